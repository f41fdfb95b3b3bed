package bench

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"math"

	"github.com/triune-sim/triune/calibrate"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/units"
)

// latenciesCSV are the published latencies that the catalogue is calibrated
// on, the published table among them; each row names its source.
//
//go:embed published/latencies.csv
var latenciesCSV []byte

// tableSource is the source of the published table's rows in latenciesCSV.
const tableSource = "quantization-performance.md"

// Latencies returns the calibration rows.
func Latencies() ([]calibrate.Row, error) { return calibrate.ReadCSV(bytes.NewReader(latenciesCSV)) }

// LeftOut is a cell of the published table, predicted by a fit that has seen
// no measurement of its network on any chip.
type LeftOut struct {
	Model       string  `json:"model"`
	Scheme      string  `json:"scheme"`
	Chip        string  `json:"chip"`
	PublishedMS float64 `json:"published_ms"`
	SimulatedMS float64 `json:"simulated_ms"`
	ErrorPct    float64 `json:"error_pct"`
}

// CrossValidation is the outcome of leaving each network of the table out.
type CrossValidation struct {
	Rows []LeftOut `json:"rows"`
	// MAPEPct is the mean absolute error over all left-out cells; ByNetwork
	// that of each network.
	MAPEPct   float64            `json:"mape_pct"`
	WorstPct  float64            `json:"worst_pct"`
	ByNetwork map[string]float64 `json:"mape_pct_by_network"`
	// Fitted is the number of figures that each fit chooses.
	Fitted int `json:"fitted_figures"`
}

// CrossValidate refits the Neural Engine's figures once for each network of
// the published table, without any row of that network, and prices the
// network's cells with the result.
func CrossValidate(ctx context.Context) (*CrossValidation, error) {
	rows, err := Latencies()
	if err != nil {
		return nil, err
	}
	cat, err := device.Builtin()
	if err != nil {
		return nil, err
	}
	set, err := calibrate.NewSet(rows, cat, calibrate.LoadZoo)
	if err != nil {
		return nil, err
	}
	if len(set.Skipped) > 0 {
		return nil, fmt.Errorf("bench: calibration row not understood: %s", set.Skipped[0])
	}
	set = set.Only(func(x *calibrate.Sample) bool { return x.Unit == units.NE })
	var networks []string
	seen := map[string]bool{}
	for _, x := range set.Samples {
		if x.Source == tableSource && !seen[x.Network] {
			seen[x.Network] = true
			networks = append(networks, x.Network)
		}
	}
	var plan calibrate.Plan
	for _, b := range calibrate.DefaultPlan() {
		for _, u := range b.Units {
			if u == units.NE {
				plan = append(plan, b)
				break
			}
		}
	}
	out := &CrossValidation{ByNetwork: map[string]float64{}}
	for _, n := range networks {
		fit, err := set.Only(func(x *calibrate.Sample) bool { return x.Network != n }).Fit(ctx, plan, calibrate.Options{})
		if err != nil {
			return nil, err
		}
		out.Fitted = max(out.Fitted, len(fit.Values))
		res, err := set.Only(func(x *calibrate.Sample) bool { return x.Network == n && x.Source == tableSource }).Residuals(fit.Devices)
		if err != nil {
			return nil, err
		}
		for _, r := range res {
			out.Rows = append(out.Rows, LeftOut{Model: n, Scheme: r.Sample.Precision, Chip: r.Sample.Chip,
				PublishedMS: r.Sample.LatencyMS, SimulatedMS: r.PredictedMS, ErrorPct: r.ErrorPct})
			out.ByNetwork[n] += math.Abs(r.ErrorPct) / float64(len(res))
		}
	}
	for _, r := range out.Rows {
		out.MAPEPct += math.Abs(r.ErrorPct) / float64(len(out.Rows))
		out.WorstPct = math.Max(out.WorstPct, math.Abs(r.ErrorPct))
	}
	return out, nil
}
