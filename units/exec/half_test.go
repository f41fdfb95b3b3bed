package exec_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/exec"
)

// roundInputs rounds float tensors to fp16.
func roundInputs(in map[string]*model.Tensor) map[string]*model.Tensor {
	out := map[string]*model.Tensor{}
	for k, t := range in {
		if t.DType.IsFloat() {
			t = t.Convert(model.Float16).Convert(t.DType)
		}
		out[k] = t
	}
	return out
}

// On units that hold fp16 every float that leaves a layer is a fp16 value, and
// it is close to what float64 gives on fp16 operands. Each graph has at most
// five layers; a layer adds at most the rounding of its weights, of its
// operands and of its result (u = 2^-11 each), and the operators here multiply
// what they are given by at most eight relative to their largest result.
func TestOperatorsHalf(t *testing.T) {
	const tol = 8 * 5 * 3 / 2048.0 / 2
	for name, f := range graphs {
		for _, k := range []units.Kind{units.GPU, units.NE} {
			t.Run(fmt.Sprintf("%s on %v", name, k), func(t *testing.T) {
				g := f(newMaker(t, 3))
				in := roundInputs(randomInputs(g, 7))
				want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{Float64: true})
				if err != nil {
					t.Fatal(err)
				}
				net := lower(t, g)
				got := run(t, net, on(net, k), in)
				for i, v := range g.Outputs {
					if !v.DType.IsFloat() {
						continue
					}
					for j, x := range got[i].Float32s() {
						if h := kernels.F16ToFloat(kernels.F16Bits(x)); h != x && x == x {
							t.Fatalf("output %s: element %d is %v, no fp16 value", v.Name, j, x)
						}
					}
					e := relError(got[i], want[v.Name])
					if e > tol {
						t.Errorf("output %s: relative error %.3g > %.3g", v.Name, e, tol)
					}
				}
			})
		}
	}
}

// Results of products become infinite from 2^15 on the NE, from 65520 on the
// GPU, never on the CPU; other operators reach 65504 on the NE too.
func TestOverflow(t *testing.T) {
	build := func(m *maker, x float32, product bool) *model.Graph {
		in := m.input(model.Float32, 1, 16, 1, 1)
		if product {
			w := model.NewTensor(model.Float32, 16, 16, 1, 1)
			for i := range 16 {
				w.Set(i*17, float64(x))
			}
			return m.done(m.op("Conv", nil, in, m.constant(w), nil))
		}
		return m.done(m.op("Mul", nil, in, m.scalar(x)))
	}
	inf := math.Inf(1)
	for _, c := range []struct {
		unit    units.Kind
		product bool
		x, want float64
	}{
		{units.NE, true, 32752, 32752}, {units.NE, true, 32768, inf}, {units.NE, true, -32768, -inf},
		{units.NE, false, 32768, 32768}, {units.NE, false, 65504, 65504},
		{units.GPU, true, 32768, 32768}, {units.GPU, true, 65504, 65504},
		{units.CPU, true, 1e6, 1e6}, {units.CPU, true, 32768, 32768},
	} {
		m := newMaker(t, 1)
		g := build(m, float32(c.x), c.product)
		one := model.NewTensor(model.Float32, 1, 16, 1, 1)
		for i := range 16 {
			one.Set(i, 1)
		}
		net := lower(t, g)
		got := run(t, net, on(net, c.unit), map[string]*model.Tensor{g.Inputs[0].Name: one})[0].At(3)
		if got != c.want {
			t.Errorf("%v, product %v: %v x 1 = %v, want %v", c.unit, c.product, c.x, got, c.want)
		}
	}
	// 2 x 65504 overflows an element-wise result too.
	m := newMaker(t, 1)
	x := m.input(model.Float32, 4)
	g := m.done(m.op("Add", nil, x, x))
	net := lower(t, g)
	big := model.Of([]float32{65504, 1, -65504, 30000})
	got := run(t, net, on(net, units.NE), map[string]*model.Tensor{x.Name: big})[0]
	if got.At(0) != inf || got.At(1) != 2 || got.At(2) != -inf || got.At(3) != 60000 {
		t.Errorf("x + x on the NE = %v", got.Float32s())
	}
}

// A network placed on alternating units computes each layer with the
// arithmetic of its own: what the CPU writes is rounded when the NE reads it.
func TestMixedUnits(t *testing.T) {
	for name, f := range graphs {
		t.Run(name, func(t *testing.T) {
			g := f(newMaker(t, 3))
			in := roundInputs(randomInputs(g, 7))
			want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{Float64: true})
			if err != nil {
				t.Fatal(err)
			}
			net := lower(t, g)
			o := exec.Options{Units: make([]units.Kind, len(net.Layers)), Numerics: arithmetic}
			for i := range o.Units {
				o.Units[i] = units.Kind(i % units.NumKinds)
			}
			got := run(t, net, o, in)
			for i, v := range g.Outputs {
				if e := relError(got[i], want[v.Name]); e > 8*5*3/2048.0/2 {
					t.Errorf("output %s: relative error %.3g", v.Name, e)
				}
			}
		})
	}
}
