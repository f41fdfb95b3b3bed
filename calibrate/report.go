package calibrate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/units"
)

// Residual is a row and its prediction.
type Residual struct {
	Sample      *Sample
	PredictedMS float64
	ErrorPct    float64 // 100 x (predicted / measured - 1)
}

// Summary holds the figures of a list of residuals, of absolute errors in
// percent.
type Summary struct {
	Rows                                 int
	MedianPct, MeanPct, P90Pct, WorstPct float64
	// PerUnit holds the medians by unit that the rows measure; NaN where none.
	PerUnit [units.NumKinds]float64
}

// MarshalJSON writes rows, median_pct, mean_pct, p90_pct, worst_pct and
// per_unit, the medians of the units that have rows.
func (s Summary) MarshalJSON() ([]byte, error) {
	per := map[string]float64{}
	for k, v := range s.PerUnit {
		if !math.IsNaN(v) {
			per[units.Kind(k).String()] = v
		}
	}
	num := func(v float64) *float64 {
		if math.IsNaN(v) {
			return nil
		}
		return &v
	}
	return json.Marshal(struct {
		Rows      int                `json:"rows"`
		MedianPct *float64           `json:"median_pct"`
		MeanPct   *float64           `json:"mean_pct"`
		P90Pct    *float64           `json:"p90_pct"`
		WorstPct  *float64           `json:"worst_pct"`
		PerUnit   map[string]float64 `json:"per_unit"`
	}{s.Rows, num(s.MedianPct), num(s.MeanPct), num(s.P90Pct), num(s.WorstPct), per})
}

// Residuals prices every sample with the given devices (the catalogue's own
// where nil).
func (s *Set) Residuals(devs map[string]*device.Device) ([]Residual, error) {
	if devs == nil {
		devs = s.devices
	}
	ms, err := s.machines(devs)
	if err != nil {
		return nil, err
	}
	out := make([]Residual, len(s.Samples))
	for i, x := range s.Samples {
		p := x.price(ms[x.DeviceName])
		out[i] = Residual{x, p, 100 * (p/x.LatencyMS - 1)}
	}
	return out, nil
}

// Summarise computes the figures of a list of residuals.
func Summarise(rs []Residual) Summary {
	s := Summary{Rows: len(rs)}
	abs := make([]float64, 0, len(rs))
	if len(rs) == 0 {
		s.MeanPct = math.NaN()
	}
	var per [units.NumKinds][]float64
	for _, r := range rs {
		a := math.Abs(r.ErrorPct)
		abs = append(abs, a)
		per[r.Sample.Unit] = append(per[r.Sample.Unit], a)
		s.MeanPct += a / float64(len(rs))
	}
	s.MedianPct, s.P90Pct, s.WorstPct = quantile(abs, 0.5), quantile(abs, 0.9), quantile(abs, 1)
	for k := range per {
		s.PerUnit[k] = quantile(per[k], 0.5)
	}
	return s
}

// quantile interpolates linearly between order statistics; NaN for no values.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Clone(v)
	slices.Sort(v)
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 >= len(v) {
		return v[len(v)-1]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}

// Fold is one part left out of a fit, and the errors on it.
type Fold struct {
	Left      string
	Residuals []Residual
}

// LeaveOut repeats the fit without each group of samples that key names, and
// prices the group with it. Groups are taken in the order of their names.
func (s *Set) LeaveOut(ctx context.Context, plan Plan, o Options, key func(*Sample) string) ([]Fold, error) {
	groups := map[string]bool{}
	for _, x := range s.Samples {
		groups[key(x)] = true
	}
	names := make([]string, 0, len(groups))
	for g := range groups {
		names = append(names, g)
	}
	slices.SortFunc(names, cmp.Compare)
	out := make([]Fold, len(names))
	errs := make([]error, len(names))
	// Folds are independent and each is deterministic: their order of
	// execution does not matter.
	var wg sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, g := range names {
		wg.Add(1)
		go func() {
			defer wg.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i], errs[i] = s.fold(ctx, plan, o, key, g)
		}()
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Set) fold(ctx context.Context, plan Plan, o Options, key func(*Sample) string, g string) (Fold, error) {
	train := s.Only(func(x *Sample) bool { return key(x) != g })
	if len(train.Samples) == 0 {
		return Fold{}, fmt.Errorf("calibrate: leaving %s out leaves nothing", g)
	}
	f, err := train.Fit(ctx, plan, o)
	if err != nil {
		return Fold{}, err
	}
	rs, err := s.Only(func(x *Sample) bool { return key(x) == g }).Residuals(f.Devices)
	return Fold{g, rs}, err
}

// ByNetwork groups rows by network and input size.
func ByNetwork(x *Sample) string { return x.Network }

// ByChip groups rows by chip.
func ByChip(x *Sample) string { return x.Chip }

// ByFamily groups rows by the network's family: the name without what follows
// the first hyphen or digit ("resnet", "mobilenetv", "vgg").
func ByFamily(x *Sample) string {
	for i, r := range x.Network {
		if r == '-' || r == '@' || r >= '0' && r <= '9' {
			return x.Network[:i]
		}
	}
	return x.Network
}

// All joins the residuals of folds.
func All(folds []Fold) []Residual {
	var out []Residual
	for _, f := range folds {
		out = append(out, f.Residuals...)
	}
	return out
}

// Interval is the p10 to p90 of measured over predicted latency for the chips
// of an entry and one unit.
type Interval struct {
	Entry     string
	Unit      units.Kind
	Low, High float64
	Rows      int
}

// Intervals takes quantiles of left-out residuals by unit and by the entry of
// the catalogue that states the unit's uncertainty for the row's device. A
// tail of few networks is seen too short (rows of one network err together):
// the 10 % quantiles move outwards by a rank's share, neither end is nearer
// than 0.7 standard deviations of the logarithms (a normal tail would be
// 1.28), and below eight networks both ends move out by half as much again.
func Intervals(rs []Residual, devs map[string]*device.Device) ([]Interval, error) {
	type key struct {
		entry string
		unit  units.Kind
	}
	ratios := map[key][]float64{}
	networks := map[key]map[string]bool{}
	for _, r := range rs {
		d := devs[r.Sample.DeviceName]
		e, err := d.Get(uncertaintyPath(r.Sample.Unit, "low"))
		if err != nil {
			return nil, err
		}
		k := key{e.From, r.Sample.Unit}
		ratios[k] = append(ratios[k], r.Sample.LatencyMS/r.PredictedMS)
		if networks[k] == nil {
			networks[k] = map[string]bool{}
		}
		networks[k][r.Sample.Network] = true
	}
	keys := make([]key, 0, len(ratios))
	for k := range ratios {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.entry, b.entry), cmp.Compare(a.unit, b.unit))
	})
	var out []Interval
	for _, k := range keys {
		v := ratios[k]
		n, nets := float64(len(v)), float64(len(networks[k]))
		q := 0.1 * (nets - 1) / (nets + 1)
		mean, ss := 0.0, 0.0
		for _, x := range v {
			mean += math.Log(x) / n
		}
		for _, x := range v {
			d := math.Log(x) - mean
			ss += d * d
		}
		floor := 0.7 * math.Sqrt(ss/max(1, n-1))
		lo, hi := min(math.Log(quantile(v, q)), -floor), max(math.Log(quantile(v, 1-q)), floor)
		if nets < 8 {
			lo, hi = 1.5*lo, 1.5*hi
		}
		out = append(out, Interval{k.entry, k.unit, math.Exp(min(lo, -0.03)), math.Exp(max(hi, 0.03)), len(v)})
	}
	return out, nil
}

func uncertaintyPath(k units.Kind, end string) string {
	return "uncertainty." + [...]string{"cpu", "gpu", "ne"}[k] + "_" + end
}

// Values turns intervals into figures for [Fitted.Patch].
func (iv Interval) Values() []Value {
	return []Value{
		{Var: Var{Entry: iv.Entry, Path: uncertaintyPath(iv.Unit, "low")}, Value: iv.Low},
		{Var: Var{Entry: iv.Entry, Path: uncertaintyPath(iv.Unit, "high")}, Value: iv.High},
	}
}

// Coverage is the share of residuals whose measured latency lies between the
// p10 and p90 of its device.
func Coverage(rs []Residual, devs map[string]*device.Device) float64 {
	in := 0
	for _, r := range rs {
		d := devs[r.Sample.DeviceName]
		lo, err1 := d.Get(uncertaintyPath(r.Sample.Unit, "low"))
		hi, err2 := d.Get(uncertaintyPath(r.Sample.Unit, "high"))
		x := r.Sample.LatencyMS / r.PredictedMS
		if err1 == nil && err2 == nil && x >= lo.Value && x <= hi.Value {
			in++
		}
	}
	return float64(in) / float64(max(1, len(rs)))
}
