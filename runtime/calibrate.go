package runtime

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/units/exec"
)

// calibrate returns where the ranges of quantized activations come from: what
// the caller gave, or the least and greatest value of every tensor over the
// calibration samples (RandomInputs when there are none). The network runs
// when the first range is asked for, which a prediction never does.
func (c *config) calibrate(folded *model.Graph, s quant.Scheme) (quant.Ranges, error) {
	if c.ranges != nil || s.Activations == nil {
		return c.ranges, nil
	}
	for i, sample := range c.samples {
		for _, v := range folded.Inputs {
			if err := exec.CheckInput(v, sample[v.Name]); err != nil {
				return nil, fmt.Errorf("runtime: calibration sample %d: %w", i, err)
			}
		}
	}
	return Ranges(folded, c.threads, c.samples...), nil
}

// Ranges returns the ranges of a graph's tensors over samples ([RandomInputs]
// of seed 0 when there are none): what a session without [WithRanges] uses. The
// graph runs, in fp32 on the given number of host threads, when the first range
// is asked for.
func Ranges(g *model.Graph, threads int, samples ...map[string]*model.Tensor) quant.Ranges {
	return quant.RangeFunc(func() (quant.RangeMap, error) { return minMax(g, samples, threads) })
}

// minMax runs a graph in fp32 on samples and collects the range of each tensor.
func minMax(g *model.Graph, samples []map[string]*model.Tensor, threads int) (quant.RangeMap, error) {
	if len(samples) == 0 {
		in, err := RandomInputs(g, 0)
		if err != nil {
			return nil, err
		}
		samples = []map[string]*model.Tensor{in}
	}
	pool := kernels.NewPool(threads)
	defer pool.Close()
	v, err := exec.NewValues(g, pool)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	m := quant.RangeMap{}
	for _, in := range samples {
		err := v.Run(context.Background(), in, func(v *model.Value, t *model.Tensor) error {
			f := t.Float32s()
			if len(f) == 0 {
				return nil
			}
			lo, hi := f[0], f[0]
			for _, x := range f {
				lo, hi = min(lo, x), max(hi, x)
			}
			if math.IsInf(float64(lo), 0) || math.IsInf(float64(hi), 0) || lo != lo || hi != hi {
				return fmt.Errorf("runtime: calibration: tensor %q is not finite", v.Name)
			}
			r := quant.Range{Min: float64(lo), Max: float64(hi)}
			if old, ok := m[v.Name]; ok {
				r = quant.Range{Min: min(old.Min, r.Min), Max: max(old.Max, r.Max)}
			}
			m[v.Name] = r
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

// RandomInputs makes one set of inputs for a graph: standard normal floats,
// integers 0 or 1. Equal names, shapes and seeds give equal values. An input
// without a fixed shape, of strings or of another type than tensor is an error.
func RandomInputs(g *model.Graph, seed uint64) (map[string]*model.Tensor, error) {
	in := map[string]*model.Tensor{}
	for _, v := range g.Inputs {
		if v.Type != model.TypeTensor || !v.Shape.Known() || v.DType == model.String {
			return nil, fmt.Errorf("runtime: input %q (%s%v) cannot be made up; give samples", v.Name, v.DType, v.Shape)
		}
		h := fnv.New64a()
		h.Write([]byte(v.Name))
		r := rand.New(rand.NewPCG(h.Sum64(), seed))
		t := model.NewTensor(v.DType, v.Shape...)
		for i := range t.Len() {
			if v.DType.IsFloat() {
				t.Set(i, r.NormFloat64())
			} else {
				t.SetInt(i, r.Int64N(2))
			}
		}
		in[v.Name] = t
	}
	return in, nil
}
