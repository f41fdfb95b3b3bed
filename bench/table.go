package bench

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
)

//go:embed published/quantization.csv
var publishedCSV string

// Published is one row of the published table: a network and a scheme.
type Published struct {
	Model, Scheme, Config string
	CompressionRatio      float64
	Accuracy              string             // ImageNet top-1 in %, as printed
	LatencyMS             map[string]float64 // by device
}

// PublishedTable returns the published rows and the devices, in the order of
// the document.
func PublishedTable() (rows []Published, devices []string, err error) {
	r := csv.NewReader(strings.NewReader(publishedCSV))
	r.Comment = '#'
	lines, err := r.ReadAll()
	if err != nil {
		return nil, nil, fmt.Errorf("bench: published table: %w", err)
	}
	devices = lines[0][5:]
	for _, l := range lines[1:] {
		p := Published{Model: l[0], Scheme: l[1], Config: l[2], Accuracy: l[4], LatencyMS: map[string]float64{}}
		if p.CompressionRatio, err = strconv.ParseFloat(l[3], 64); err != nil {
			return nil, nil, fmt.Errorf("bench: published table: %w", err)
		}
		for i, d := range devices {
			if p.LatencyMS[d], err = strconv.ParseFloat(l[5+i], 64); err != nil {
				return nil, nil, fmt.Errorf("bench: published table: %w", err)
			}
		}
		rows = append(rows, p)
	}
	return rows, devices, nil
}

// Row is one latency cell of the table, with the ratio of its row.
type Row struct {
	Model          string  `json:"model"`
	Scheme         string  `json:"scheme"`
	Device         string  `json:"device"`
	PublishedMS    float64 `json:"published_ms"`
	SimulatedMS    float64 `json:"simulated_ms"`
	ErrorPct       float64 `json:"error_pct"` // 100 x (simulated / published - 1)
	P10MS          float64 `json:"simulated_p10_ms"`
	P90MS          float64 `json:"simulated_p90_ms"`
	PublishedRatio float64 `json:"published_ratio"`
	SimulatedRatio float64 `json:"simulated_ratio"`
	// PublishedAccuracy is printed as published; Triune does not simulate it.
	PublishedAccuracy string `json:"published_accuracy"`
}

// TableResult is the published table side by side with the simulated figures.
type TableResult struct {
	Rows []Row `json:"rows"`
	// MAPEPct is the mean of the absolute errors, WorstPct the largest.
	MAPEPct  float64 `json:"mape_pct"`
	WorstPct float64 `json:"worst_pct"`
	// WorstRatio is the largest absolute difference of a compression ratio.
	WorstRatio float64 `json:"worst_ratio_difference"`
}

// Table predicts every cell of the published table: all compute units, the
// optimal plan, batch 1.
func Table() (*TableResult, error) {
	pub, devices, err := PublishedTable()
	if err != nil {
		return nil, err
	}
	t := &TableResult{}
	folded := map[string]*compile.Folded{}
	for _, p := range pub {
		f := folded[p.Model]
		if f == nil {
			g, err := compile.Load(p.Model, compile.LoadOptions{})
			if err != nil {
				return nil, err
			}
			if f, err = compile.Fold(g); err != nil {
				return nil, err
			}
			folded[p.Model] = f
		}
		s, err := quant.Parse(p.Scheme)
		if err != nil {
			return nil, err
		}
		c, err := f.Apply(s, compile.Options{})
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			sess, err := runtime.OpenCompiled(c, runtime.WithDevice(d))
			if err != nil {
				return nil, err
			}
			r := sess.Predict()
			if err := sess.Close(); err != nil {
				return nil, err
			}
			t.Rows = append(t.Rows, Row{
				Model: p.Model, Scheme: p.Scheme, Device: d,
				PublishedMS: p.LatencyMS[d], SimulatedMS: r.LatencyMS, P10MS: r.LatencyP10MS, P90MS: r.LatencyP90MS,
				ErrorPct:       100 * (r.LatencyMS/p.LatencyMS[d] - 1),
				PublishedRatio: p.CompressionRatio, SimulatedRatio: r.CompressionRatio,
				PublishedAccuracy: p.Accuracy,
			})
		}
	}
	for _, r := range t.Rows {
		e := math.Abs(r.ErrorPct)
		t.MAPEPct += e / float64(len(t.Rows))
		t.WorstPct = math.Max(t.WorstPct, e)
		t.WorstRatio = math.Max(t.WorstRatio, math.Abs(r.SimulatedRatio-r.PublishedRatio))
	}
	return t, nil
}
