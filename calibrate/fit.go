package calibrate

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/units"
	"gonum.org/v1/gonum/optimize"
)

// Var is one free figure: the parameter at Path as the catalogue entry Entry
// states it. Every device that takes the figure from that entry shares it.
type Var struct {
	Entry, Path string
	// Own makes the figure one of the chip Entry alone, even where the chip
	// takes it from its family: relatives keep theirs. The search then starts
	// at the present value.
	Own bool
	// Low and High bound the value; zero for the catalogue's own range.
	Low, High float64
}

// String returns entry:path.
func (v Var) String() string { return v.Entry + ":" + v.Path }

// Block is a group of figures that is fitted together, on the rows of some
// units.
type Block struct {
	Name  string
	Units []units.Kind // rows that enter; empty for all
	Vars  []Var
}

// Plan is what is fitted, block after block.
type Plan []Block

// Options bound the search. The zero value is the default.
type Options struct {
	Evaluations int    // per start and block; default 6000
	Starts      int    // default 2
	Seed        uint64 // default 1
	// Prior is the weight of staying near the starting values, per figure, in
	// units of the loss of one row that is one sigma off; default 0.1.
	Prior float64
}

func (o Options) orDefault() Options {
	if o.Evaluations == 0 {
		o.Evaluations = 6000
	}
	if o.Starts == 0 {
		o.Starts = 2
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Prior == 0 {
		o.Prior = 0.1
	}
	return o
}

// Value is a fitted figure.
type Value struct {
	Var
	Value     float64 // fitted
	Before    float64 // in the catalogue
	Prior     float64 // what the sources alone would give
	Low, High float64
	AtBound   bool // within 1 % of an end of its range
}

// Fitted is the outcome of a fit: values, and devices that carry them.
type Fitted struct {
	Values  []Value
	Loss    float64
	Devices map[string]*device.Device
}

// binding is a Var resolved to the devices that it sets.
type binding struct {
	Var
	devs   []*device.Device
	start  float64 // where the search begins and what it stays near
	before float64
	lo, hi float64
}

// Fit fits a plan to the set. The set and its devices are not changed. The
// search starts from the figures' priors, not from their present values, so
// that leaving rows out is not undone by a catalogue that has seen them.
func (s *Set) Fit(ctx context.Context, plan Plan, o Options) (*Fitted, error) {
	o = o.orDefault()
	devs := make(map[string]*device.Device, len(s.devices))
	for n, d := range s.devices {
		c := *d
		devs[n] = &c
	}
	f := &Fitted{Devices: devs}
	for i := range plan {
		b := &plan[i]
		sub := s
		if len(b.Units) > 0 {
			sub = s.Only(func(x *Sample) bool { return slices.Contains(b.Units, x.Unit) })
		}
		if len(sub.Samples) == 0 {
			continue
		}
		vals, loss, err := sub.fitBlock(ctx, devs, b, o)
		if err != nil {
			return nil, err
		}
		f.Values = append(f.Values, vals...)
		f.Loss += loss
	}
	return f, nil
}

func bind(devs map[string]*device.Device, names []string, v Var) (*binding, error) {
	b := &binding{Var: v}
	for _, n := range names {
		d := devs[n]
		e, err := d.Get(v.Path)
		if err != nil || !v.Own && e.From != v.Entry || v.Own && d.Chip != v.Entry {
			continue
		}
		b.devs = append(b.devs, d)
		b.start, b.before, b.lo, b.hi = e.Value, e.Value, e.Range[0], e.Range[1]
		if e.Prior != nil && !v.Own {
			b.start = *e.Prior
		}
	}
	if v.High > 0 {
		b.lo, b.hi = v.Low, v.High
	}
	if len(b.devs) == 0 {
		return nil, nil
	}
	if !(b.hi > b.lo) {
		return nil, fmt.Errorf("calibrate: %s has the range [%g, %g]; nothing to fit", v, b.lo, b.hi)
	}
	return b, nil
}

// value maps an unbounded coordinate to the range: logistic, on a logarithmic
// scale where the range allows it.
func (b *binding) value(x float64) float64 {
	z := 1 / (1 + math.Exp(-x))
	if b.lo > 0 {
		return b.lo * math.Pow(b.hi/b.lo, z)
	}
	return b.lo + (b.hi-b.lo)*z
}

func (b *binding) coord(v float64) float64 {
	z := 0.0
	if b.lo > 0 {
		z = math.Log(v/b.lo) / math.Log(b.hi/b.lo)
	} else {
		z = (v - b.lo) / (b.hi - b.lo)
	}
	z = min(0.98, max(0.02, z))
	return math.Log(z / (1 - z))
}

func (s *Set) fitBlock(ctx context.Context, devs map[string]*device.Device, blk *Block, o Options) ([]Value, float64, error) {
	var bs []*binding
	for _, v := range blk.Vars {
		b, err := bind(devs, s.names, v)
		if err != nil {
			return nil, 0, err
		}
		if b != nil {
			bs = append(bs, b)
		}
	}
	if len(bs) == 0 {
		return nil, 0, nil
	}
	x0 := make([]float64, len(bs))
	for i, b := range bs {
		x0[i] = b.coord(b.start)
	}
	used := map[string]bool{}
	for _, x := range s.Samples {
		used[x.DeviceName] = true
	}
	names := slices.DeleteFunc(slices.Clone(s.names), func(n string) bool { return !used[n] })
	var failed error
	objective := func(x []float64) float64 {
		for i, b := range bs {
			v := b.value(x[i])
			for _, d := range b.devs {
				if err := d.Set(b.Path, v); err != nil {
					failed = err
				}
			}
		}
		ms, err := (&Set{names: names}).machines(devs)
		if err != nil {
			failed = err
			return math.Inf(1)
		}
		sum := 0.0
		for _, sm := range s.Samples {
			z := math.Log(sm.price(ms[sm.DeviceName])/sm.LatencyMS) / sm.sigma
			sum += huber(z)
		}
		for i := range x {
			d := x[i] - x0[i]
			sum += o.Prior * d * d
		}
		return sum / float64(len(s.Samples))
	}
	best, bestF := slices.Clone(x0), objective(x0)
	for st := range o.Starts {
		start := slices.Clone(x0)
		rng := rand.New(rand.NewPCG(o.Seed, uint64(st)))
		if st > 0 {
			for i := range start {
				start[i] += rng.NormFloat64()
			}
		}
		for _, m := range []optimize.Method{
			&optimize.CmaEsChol{InitStepSize: 0.7, Src: rand.NewPCG(o.Seed, uint64(100+st))},
			&optimize.NelderMead{},
		} {
			if err := ctx.Err(); err != nil {
				return nil, 0, err
			}
			res, err := optimize.Minimize(optimize.Problem{Func: objective}, start, &optimize.Settings{
				FuncEvaluations: o.Evaluations,
				Converger:       &optimize.FunctionConverge{Absolute: 1e-6, Relative: 1e-6, Iterations: 1000},
			}, m)
			if res == nil {
				return nil, 0, fmt.Errorf("calibrate: block %s: %w", blk.Name, err)
			}
			if failed != nil {
				return nil, 0, failed
			}
			if res.F < bestF {
				best, bestF = slices.Clone(res.X), res.F
			}
			start = slices.Clone(res.X)
		}
	}
	loss := objective(best)
	vals := make([]Value, len(bs))
	for i, b := range bs {
		v := b.value(best[i])
		z := 1 / (1 + math.Exp(-best[i]))
		vals[i] = Value{Var: b.Var, Value: v, Before: b.before, Prior: b.start, Low: b.lo, High: b.hi, AtBound: z < 0.01 || z > 0.99}
	}
	return vals, loss, nil
}

// huber is quadratic to 1.5 sigma and linear beyond.
func huber(z float64) float64 {
	const k = 1.5
	if z = math.Abs(z); z > k {
		return 2*k*z - k*k
	}
	return z * z
}
