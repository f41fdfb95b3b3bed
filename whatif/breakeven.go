package whatif

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Crossing is a value of a parameter at which two configurations change
// places.
type Crossing struct {
	Value  float64 // of the parameter
	A, B   float64 // the metric of both, just above the value
	BWins  bool    // above the value B is less than A
	IsJump bool    // they do not meet: one of them jumps there
}

// BreakEvenResult is the outcome of [BreakEven].
type BreakEvenResult struct {
	Path, Unit, Metric string
	Catalogued         float64 // value of the parameter on A's device
	Low, High          float64 // range that was searched
	AtLow, AtHigh      [2]float64
	Crossings          []Crossing
}

// BreakEven finds the values of a device parameter, from low to high, at which
// the metrics of two configurations are equal: where W8A8 overtakes fp16, or
// the Neural Engine the GPU. The parameter is set to the same value on both
// devices. The range is searched on steps + 1 points (0: 128 steps; equal
// ratios, or equal steps if low is 0), so of crossings closer together than a
// step an even number can be missed; each one found is then bisected to
// relative 1e-9.
func BreakEven(p *Pricer, a, b Config, path string, low, high float64, metric string, steps int) (*BreakEvenResult, error) {
	get, err := Metric(metric)
	if err != nil {
		return nil, err
	}
	if !(low >= 0 && low < high) || math.IsInf(high, 0) {
		return nil, fmt.Errorf("whatif: break-even: range %g to %g (want 0 <= low < high)", low, high)
	}
	if steps == 0 {
		steps = 128
	}
	if steps < 1 || steps > 1<<16 {
		return nil, fmt.Errorf("whatif: break-even: %d steps (want 1 to 65536)", steps)
	}
	dev, err := p.Device(a.Device)
	if err != nil {
		return nil, err
	}
	if len(a.Set) > 0 {
		if dev, err = dev.Override(a.Set...); err != nil {
			return nil, err
		}
	}
	e, err := dev.Get(path)
	if err != nil {
		return nil, err
	}
	r := &BreakEvenResult{Path: path, Unit: e.Unit, Metric: metric, Catalogued: e.Value, Low: low, High: high}
	if metric == "" {
		r.Metric = "latency_ms"
	}
	d := p.Desk()
	at := func(v float64) (y [2]float64, err error) {
		for k, c := range []Config{a, b} {
			c.Set = append(append([]string(nil), c.Set...), path+"="+strconv.FormatFloat(v, 'g', -1, 64))
			pr, err := d.Predict(&c)
			if err != nil {
				return y, fmt.Errorf("whatif: break-even: %s: %w", c, err)
			}
			y[k] = get(pr)
		}
		return y, nil
	}
	x := func(i int) float64 {
		u := float64(i) / float64(steps)
		switch {
		case i == 0:
			return low
		case i == steps:
			return high
		case low > 0:
			return low * math.Pow(high/low, u)
		}
		return low + u*(high-low)
	}
	prev, err := at(low)
	if err != nil {
		return nil, err
	}
	r.AtLow = prev
	for i := 1; i <= steps; i++ {
		cur, err := at(x(i))
		if err != nil {
			return nil, err
		}
		if (prev[0] > prev[1]) != (cur[0] > cur[1]) {
			lo, hi, yhi := x(i-1), x(i), cur
			for range 200 {
				mid := lo + (hi-lo)/2
				if hi-lo <= 1e-9*hi || mid <= lo || mid >= hi {
					break
				}
				y, err := at(mid)
				if err != nil {
					return nil, err
				}
				if (y[0] > y[1]) == (prev[0] > prev[1]) {
					lo = mid
				} else {
					hi, yhi = mid, y
				}
			}
			r.Crossings = append(r.Crossings, Crossing{Value: hi, A: yhi[0], B: yhi[1], BWins: yhi[0] > yhi[1],
				IsJump: math.Abs(yhi[0]-yhi[1]) > 1e-6*max(math.Abs(yhi[0]), math.Abs(yhi[1]))})
		}
		prev = cur
	}
	r.AtHigh = prev
	return r, nil
}

// BreakEvenSpec is a break-even analysis of a study: two configurations (what
// they leave out is the first choice of the study's lists), a parameter and a
// range of it, in its unit (10..80) or as factors of A's value (x0.1..x10).
type BreakEvenSpec struct {
	A         Entry  `yaml:"a" json:"a"`
	B         Entry  `yaml:"b" json:"b"`
	Parameter string `yaml:"parameter" json:"parameter"`
	Range     string `yaml:"range" json:"range"`
	Metric    string `yaml:"metric" json:"metric,omitempty"`
}

func (r *Runner) breakEven(s *BreakEvenSpec) (*Finding, error) {
	a, err := r.Study.first(&s.A)
	if err != nil {
		return nil, err
	}
	b, err := r.Study.first(&s.B)
	if err != nil {
		return nil, err
	}
	rng := s.Range
	if rng == "" {
		rng = "x0.1..x10"
	}
	sp, err := parseSpan(rng)
	if err != nil {
		return nil, err
	}
	if sp == nil {
		return nil, fmt.Errorf("whatif: study: break_even: range %q (want LOW..HIGH, for example x0.1..x10)", rng)
	}
	dev, err := r.Pricer.Device(a.Device)
	if err != nil {
		return nil, err
	}
	e, err := dev.Get(s.Parameter)
	if err != nil {
		return nil, err
	}
	low, high := sp.lo, sp.hi
	switch {
	case sp.prefix == "x":
		low, high = low*e.Value, high*e.Value
	case sp.suffix == "%":
		low, high = e.Value*(1+low/100), e.Value*(1+high/100)
	}
	x, err := BreakEven(r.Pricer, a, b, s.Parameter, low, high, s.Metric, sp.n)
	if err != nil {
		return nil, err
	}
	f := &Finding{Kind: "break_even", Title: fmt.Sprintf("%s against %s by %s", a, b, s.Parameter),
		Columns: []Column{{s.Parameter, Number, e.Doc + ", " + e.Unit}, {"a_" + x.Metric, Number, a.String()}, {"b_" + x.Metric, Number, b.String()}, {"less", Text, "which of them is less from here on"}}}
	row := func(v float64, y [2]float64, who string) {
		f.Rows = append(f.Rows, []Cell{number(v), number(y[0]), number(y[1]), text(who)})
	}
	who := func(bWins bool) string {
		if bWins {
			return "b"
		}
		return "a"
	}
	row(low, x.AtLow, who(x.AtLow[0] > x.AtLow[1]))
	var at []string
	for _, c := range x.Crossings {
		row(c.Value, [2]float64{c.A, c.B}, who(c.BWins))
		at = append(at, fmt.Sprintf("%.4g %s", c.Value, e.Unit))
	}
	row(high, x.AtHigh, who(x.AtHigh[0] > x.AtHigh[1]))
	if len(at) == 0 {
		w := a
		if x.AtLow[0] > x.AtLow[1] {
			w = b
		}
		f.Answer = fmt.Sprintf("no break-even between %.4g and %.4g %s (catalogued: %.4g): %s is less everywhere", low, high, e.Unit, e.Value, w)
	} else {
		f.Answer = fmt.Sprintf("they break even at %s = %s (catalogued: %.4g)", s.Parameter, strings.Join(at, ", "), e.Value)
	}
	return f, nil
}
