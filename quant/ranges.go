package quant

import (
	"fmt"
	"math"
	"sync"

	"github.com/triune-sim/triune/model"
)

// Range is the interval that the elements of an activation tensor lie in.
type Range struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

// union returns the least range that holds both.
func (r Range) union(s Range) Range { return Range{min(r.Min, s.Min), max(r.Max, s.Max)} }

// valid reports whether both ends are finite and in order.
func (r Range) valid() bool {
	return r.Min <= r.Max && !math.IsInf(r.Min, 0) && !math.IsInf(r.Max, 0)
}

// Ranges tells the range of an activation tensor by the name of its value. It
// is asked only when a scale is needed, which a prediction never does. It must
// be safe for concurrent use.
type Ranges interface {
	Range(value string) (Range, error)
}

// RangeMap is a table of ranges.
type RangeMap map[string]Range

// Range returns the range of a value.
func (m RangeMap) Range(value string) (Range, error) {
	r, ok := m[value]
	if !ok {
		return Range{}, fmt.Errorf("quant: no range for the tensor %q among the %d calibrated ones", value, len(m))
	}
	if !r.valid() {
		return Range{}, fmt.Errorf("quant: the range of the tensor %q is %g..%g (want finite values in order)", value, r.Min, r.Max)
	}
	return r, nil
}

// RangeFunc makes a source of ranges from a function that is called once, at
// first use.
func RangeFunc(f func() (RangeMap, error)) Ranges { return &lazyRanges{f: f} }

// activationParams returns scale and zero point of an activation tensor: the
// formula for weights on the pair (min, max) in the type of the scale, and a
// scale of 1 where it would be 0.
func activationParams(r Range, float, code model.DType, asymmetric bool) (scale, zero float32) {
	a := arithOf(float)
	lo, hi := float32(r.Min), float32(r.Max)
	if a.half {
		lo, hi = max(-65504, halfOf(lo)), min(65504, halfOf(hi))
	}
	scale, zero = a.qparams(lo, hi, code, asymmetric)
	if scale == 0 {
		scale = 1
	}
	return scale, zero
}

type lazyRanges struct {
	f    func() (RangeMap, error)
	once sync.Once
	m    RangeMap
	err  error
}

func (l *lazyRanges) Range(value string) (Range, error) {
	l.once.Do(func() { l.m, l.err = l.f(); l.f = nil })
	if l.err != nil {
		return Range{}, l.err
	}
	return l.m.Range(value)
}
