package whatif

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// Metric reads one figure of a prediction by the name of its column
// ("latency_ms").
func Metric(name string) (func(*result.Prediction) float64, error) {
	if name == "" {
		name = "latency_ms"
	}
	i := findOutput(name)
	if i < 0 {
		return nil, fmt.Errorf("whatif: no figure %q (want a result column such as latency_ms, energy_mj or load_ms)", name)
	}
	return outputs[i].get, nil
}

// SensitivityOptions say what to measure. The zero value: latency, each
// parameter halved and doubled.
type SensitivityOptions struct {
	Metric string  // result column; "" is latency_ms
	Factor float64 // the tornado's ends: value / Factor and value x Factor; 0 is 2
	// Step is the relative step of the elasticities; 0 is 1e-4.
	Step float64
}

// Sensitive is how a metric reacts to one parameter.
type Sensitive struct {
	Path, Unit, Doc string
	Value           float64
	// Elasticity is the percentage by which the metric changes when the
	// parameter grows by one percent, d ln metric / d ln parameter, by a
	// central difference that solves the placement anew on both sides. Where
	// the two sides differ (another plan, a maximum that changes sides) Kink
	// is true, and Left and Right are the one-sided elasticities.
	Elasticity, Left, Right float64
	Kink                    bool
	// Low and High are the metric with the parameter divided and multiplied
	// by the factor, and Moves tells whether a layer changes its unit there.
	Low, High           float64
	LowMoves, HighMoves bool
}

// Swing is the greatest change of the metric over the tornado's range.
func (s *Sensitive) Swing(base float64) float64 {
	return max(math.Abs(s.Low-base), math.Abs(s.High-base))
}

// Sensitivities is the outcome of [Sensitivity].
type Sensitivities struct {
	Config Config
	Metric string
	Base   float64 // the metric as catalogued
	Factor float64
	Params []Sensitive // greatest swing first
}

// Sensitivity measures how a figure of one configuration reacts to every
// parameter of the device: what would help this network on this chip?
func Sensitivity(ctx context.Context, p *Pricer, c Config, o SensitivityOptions) (*Sensitivities, error) {
	if o.Factor == 0 {
		o.Factor = 2
	}
	if o.Step == 0 {
		o.Step = 1e-4
	}
	if !(o.Factor > 1) || math.IsInf(o.Factor, 0) || !(o.Step > 0 && o.Step < 0.5) {
		return nil, fmt.Errorf("whatif: sensitivity: factor %g, step %g (want a factor above 1 and a step below 0.5)", o.Factor, o.Step)
	}
	get, err := Metric(o.Metric)
	if err != nil {
		return nil, err
	}
	d := p.Desk()
	pl, err := d.Place(&c)
	if err != nil {
		return nil, err
	}
	out := &Sensitivities{Config: c, Metric: o.Metric, Factor: o.Factor, Base: get(pl.Prediction())}
	if out.Metric == "" {
		out.Metric = "latency_ms"
	}
	if math.IsNaN(out.Base) {
		return nil, fmt.Errorf("whatif: sensitivity: %s has no value for %s", out.Metric, c)
	}
	assign := slices.Clone(pl.Plan.Units)
	at := func(path string, v float64) (float64, bool, error) {
		x := c
		x.Set = append(slices.Clone(c.Set), path+"="+strconv.FormatFloat(v, 'g', -1, 64))
		r, err := d.Place(&x)
		if err != nil {
			return 0, false, err
		}
		return get(r.Prediction()), !slices.Equal(r.Plan.Units, assign), nil
	}
	for _, e := range pl.Device.Params() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if e.Value == 0 {
			continue // nothing to scale
		}
		s := Sensitive{Path: e.Path, Unit: e.Unit, Doc: e.Doc, Value: e.Value}
		if s.Low, s.LowMoves, err = at(e.Path, e.Value/o.Factor); err != nil {
			// A limit that forbids what the network needs: no plan at all.
			s.Low = math.NaN()
		}
		if s.High, s.HighMoves, err = at(e.Path, e.Value*o.Factor); err != nil {
			s.High = math.NaN()
		}
		lo, _, err1 := at(e.Path, e.Value*(1-o.Step))
		hi, _, err2 := at(e.Path, e.Value*(1+o.Step))
		if err1 == nil && err2 == nil && out.Base > 0 && lo > 0 && hi > 0 {
			s.Left = math.Log(lo/out.Base) / math.Log1p(-o.Step)
			s.Right = math.Log(hi/out.Base) / math.Log1p(o.Step)
			s.Elasticity = math.Log(hi/lo) / (math.Log1p(o.Step) - math.Log1p(-o.Step))
			s.Kink = math.Abs(s.Left-s.Right) > 1e-3+0.02*math.Abs(s.Elasticity)
		} else {
			s.Elasticity, s.Left, s.Right = math.NaN(), math.NaN(), math.NaN()
		}
		out.Params = append(out.Params, s)
	}
	swing := func(s *Sensitive) float64 {
		v := s.Swing(out.Base)
		if math.IsNaN(v) {
			return math.Inf(1)
		}
		return v
	}
	slices.SortStableFunc(out.Params, func(a, b Sensitive) int {
		switch x, y := swing(&a), swing(&b); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	return out, nil
}

// SensitivitySpec is a sensitivity analysis of a study. What the configuration
// leaves out is the first choice of the study's lists.
type SensitivitySpec struct {
	Config Entry   `yaml:"config" json:"config"`
	Metric string  `yaml:"metric" json:"metric,omitempty"`
	Factor float64 `yaml:"factor" json:"factor,omitempty"`
	Top    int     `yaml:"top" json:"top,omitempty"` // parameters to show; 0: those that matter
}

// first is the configuration of the first choices of the study, with parts
// replaced.
func (s *Study) first(e *Entry) (Config, error) {
	c := Config{Device: s.Devices[0], Scheme: s.Schemes[0], Batch: s.Batch[0], Pins: s.pins}
	if len(s.Models) > 0 {
		c.Model = s.Models[0]
	}
	c.Units, _ = units.ParseMask(s.Units[0])
	c.Policy, _ = scheduler.ParsePolicy(s.Policies[0])
	if err := e.check(); err != nil {
		return c, err
	}
	err := e.replace(&c)
	if err == nil && c.Model == "" {
		err = fmt.Errorf("whatif: study: no model")
	}
	return c, err
}

func (r *Runner) sensitivity(ctx context.Context, s *SensitivitySpec) (*Finding, error) {
	c, err := r.Study.first(&s.Config)
	if err != nil {
		return nil, err
	}
	x, err := Sensitivity(ctx, r.Pricer, c, SensitivityOptions{Metric: s.Metric, Factor: s.Factor})
	if err != nil {
		return nil, err
	}
	return x.Finding(s.Top), nil
}

// Finding lays the sensitivities out as a table, with a tornado drawn in
// characters. top is how many parameters to show; 0 shows those that change
// the metric by more than 0.1 % over the range.
func (x *Sensitivities) Finding(top int) *Finding {
	f := &Finding{Kind: "sensitivity", Metric: x.Metric, Base: x.Base, Title: fmt.Sprintf("What moves %s of %s (%.4g)", x.Metric, x.Config, x.Base),
		Columns: []Column{{"parameter", Text, "path of the device parameter"}, {"value", Number, "as catalogued"}, {"unit", Text, ""},
			{"elasticity", Number, "percent of the metric per percent of the parameter"},
			{"at_low", Number, fmt.Sprintf("%s with the parameter divided by %g", x.Metric, x.Factor)},
			{"at_high", Number, fmt.Sprintf("%s with the parameter multiplied by %g", x.Metric, x.Factor)},
			{"tornado", Text, "change of the metric: < by the low end, > by the high end; left is less"},
			{"remark", Text, ""}}}
	widest := 0.0
	for i := range x.Params {
		if v := x.Params[i].Swing(x.Base); v > widest {
			widest = v
		}
	}
	var best *Sensitive
	gain := 0.0
	for i := range x.Params {
		s := &x.Params[i]
		sw := s.Swing(x.Base)
		if g := x.Base - min(s.Low, s.High); g > gain && !strings.HasPrefix(s.Path, "uncertainty.") {
			best, gain = s, g
		}
		if top > 0 && len(f.Rows) >= top || top == 0 && !math.IsNaN(sw) && sw <= 1e-3*x.Base {
			continue
		}
		remark := ""
		if s.LowMoves || s.HighMoves {
			remark = "layers move"
		}
		if s.Kink {
			remark = strings.TrimPrefix(remark+fmt.Sprintf(", kink: %.3f below, %.3f above", s.Left, s.Right), ", ")
		}
		f.Rows = append(f.Rows, []Cell{text(s.Path), number(s.Value), text(s.Unit), number(s.Elasticity), number(s.Low), number(s.High), text(tornado(s.Low-x.Base, s.High-x.Base, widest)), text(remark)})
	}
	if best == nil {
		f.Answer = "no parameter changes " + x.Metric
		return f
	}
	how := fmt.Sprintf("dividing %s by %g", best.Path, x.Factor)
	if best.High < best.Low {
		how = fmt.Sprintf("multiplying %s by %g", best.Path, x.Factor)
	}
	f.Answer = fmt.Sprintf("what helps most is %s: %s falls from %.4g to %.4g (%.1f %%)", how, x.Metric, x.Base, min(best.Low, best.High), -100*gain/x.Base)
	return f
}

// tornado draws changes as a bar of nine characters around a centre.
func tornado(low, high, widest float64) string {
	const half = 9
	b := []byte(strings.Repeat(" ", half) + "|" + strings.Repeat(" ", half))
	if widest <= 0 {
		return string(b)
	}
	draw := func(v float64, c byte) {
		n := int(math.Round(min(1, math.Abs(v)/widest) * half))
		for k := 1; k <= n; k++ {
			if v < 0 {
				b[half-k] = c
			} else {
				b[half+k] = c
			}
		}
	}
	if !math.IsNaN(low) {
		draw(low, '<')
	}
	if !math.IsNaN(high) {
		draw(high, '>')
	}
	return string(b)
}
