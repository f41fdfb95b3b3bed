package calibrate

import (
	"context"

	"github.com/triune-sim/triune/device"
)

// Line is one row of a fidelity report.
type Line struct {
	Device, Chip, OS string
	Network          string
	Precision        string
	Mask             string
	Unit             string // the unit that the row measures
	MeasuredMS       float64
	PredictedMS      float64
	P10MS, P90MS     float64 // the interval of the prediction
	ErrorPct         float64
	LeftOutPct       float64 // error of the fit that has not seen the network; 0 unless computed
	SigmaPct         float64 // what the measurement itself is trusted to
	Source           string
}

// Fidelity says how near the catalogue is to measurements.
type Fidelity struct {
	Lines []Line
	// Catalogue holds the errors of the shipped figures.
	Catalogue Summary
	// LeftOut holds the errors on networks (ByNetwork) and chips (ByChip) that
	// a repeated fit has not seen; nil unless asked for.
	ByNetwork, ByChip *Summary
	// CoveragePct is the share of left-out rows (of all rows, when nothing was
	// left out) whose measurement lies between p10 and p90.
	CoveragePct float64
	// Fitted is the number of figures that the plan fits.
	Fitted int
}

// Measure prices every sample of a set with the catalogue's figures, and with
// leaveOut repeats the fit without each network and each chip (a minute or
// two).
func Measure(ctx context.Context, s *Set, plan Plan, o Options, leaveOut bool) (*Fidelity, error) {
	rs, err := s.Residuals(nil)
	if err != nil {
		return nil, err
	}
	f := &Fidelity{Catalogue: Summarise(rs), CoveragePct: 100 * Coverage(rs, s.devices)}
	for _, b := range plan {
		f.Fitted += len(b.Vars)
	}
	left := map[*Sample]float64{}
	if leaveOut {
		folds, err := s.LeaveOut(ctx, plan, o, ByNetwork)
		if err != nil {
			return nil, err
		}
		all := All(folds)
		sum := Summarise(all)
		f.ByNetwork, f.CoveragePct = &sum, 100*Coverage(all, s.devices)
		for _, r := range all {
			left[r.Sample] = r.ErrorPct
		}
		if folds, err = s.LeaveOut(ctx, plan, o, ByChip); err != nil {
			return nil, err
		}
		chips := Summarise(All(folds))
		f.ByChip = &chips
	}
	for _, r := range rs {
		x, d := r.Sample, s.devices[r.Sample.DeviceName]
		low, high := spread(x, d)
		f.Lines = append(f.Lines, Line{
			Device: d.Name, Chip: x.Chip, OS: d.OS, Network: x.Network, Precision: x.Precision,
			Mask: x.Mask.String(), Unit: x.Unit.String(), MeasuredMS: x.LatencyMS, PredictedMS: r.PredictedMS,
			P10MS: r.PredictedMS * low, P90MS: r.PredictedMS * high, ErrorPct: r.ErrorPct, LeftOutPct: left[x],
			SigmaPct: 100 * x.sigma, Source: x.Source,
		})
	}
	return f, nil
}

// spread is the interval of a sample's device and unit, as factors.
func spread(x *Sample, d *device.Device) (low, high float64) {
	lo, err1 := d.Get(uncertaintyPath(x.Unit, "low"))
	hi, err2 := d.Get(uncertaintyPath(x.Unit, "high"))
	if err1 != nil || err2 != nil {
		return 1, 1
	}
	return lo.Value, hi.Value
}
