package quant

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// SeededRanges calibrates a graph on seeded normal inputs when it is first
// asked: the ranges of a network whose data is unknown.
func SeededRanges(g *model.Graph) Ranges {
	return RangeFunc(func() (RangeMap, error) {
		in, err := seededInputs(g, 0)
		if err != nil {
			return nil, err
		}
		m := RangeMap{}
		see := func(v *model.Value, t *model.Tensor) {
			if v == nil || t == nil || !t.DType.IsFloat() {
				return
			}
			r, ok := m[v.Name]
			if !ok {
				r = Range{math.Inf(1), math.Inf(-1)}
			}
			for _, x := range t.Float32s() {
				r = r.union(Range{float64(x), float64(x)})
			}
			m[v.Name] = r
		}
		for _, v := range g.Inputs {
			see(v, in[v.Name])
		}
		_, err = ops.EvalGraph(context.Background(), g, in, ops.Options{Hook: func(n *model.Node, out []*model.Tensor) error {
			for i, t := range out {
				see(n.Out(i), t)
			}
			return nil
		}})
		return m, err
	})
}

// seededInputs makes one input set: standard normal floats, small integers.
func seededInputs(g *model.Graph, seed uint64) (map[string]*model.Tensor, error) {
	in := map[string]*model.Tensor{}
	for _, v := range g.Inputs {
		if v.Type != model.TypeTensor || !v.Shape.Known() || v.DType == model.String {
			return nil, fmt.Errorf("quant: input %q of %s%v cannot be made up; give calibration samples", v.Name, v.DType, v.Shape)
		}
		h := fnv.New64a()
		h.Write([]byte(v.Name))
		rng := rand.New(rand.NewPCG(h.Sum64(), seed))
		t := model.NewTensor(v.DType, v.Shape...)
		for i := range t.Len() {
			if v.DType.IsFloat() {
				t.Set(i, rng.NormFloat64())
			} else {
				t.SetInt(i, rng.Int64N(2))
			}
		}
		in[v.Name] = t
	}
	return in, nil
}
