package exec_test

import (
	"context"
	"math"
	"testing"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/exec"
	"pgregory.net/rapid"
)

// randomNetwork grows a graph of up to a dozen operators over 4-D tensors,
// with branches, residuals, views and several outputs.
func randomNetwork(rt *rapid.T, m *maker, quantize bool) *model.Graph {
	i := func(lo, hi int, what string) int { return rapid.IntRange(lo, hi).Draw(rt, what) }
	n := i(1, 2, "images")
	c := rapid.SampledFrom([]int{1, 3, 8, 16, 17, 32, 40}).Draw(rt, "channels")
	h, w := i(1, 9, "h"), i(1, 9, "w")
	pool := []*model.Value{m.input(model.Float32, n, c, h, w)}
	pick := func() *model.Value { return pool[i(0, len(pool)-1, "operand")] }
	like := func(x *model.Value) *model.Value { // a tensor of the same shape
		var same []*model.Value
		for _, v := range pool {
			if v.Shape.Equal(x.Shape) {
				same = append(same, v)
			}
		}
		return same[i(0, len(same)-1, "same")]
	}
	for range i(1, 12, "operators") {
		x := pick()
		s := x.Shape
		var y *model.Value
		switch i(0, 15, "operator") {
		case 0, 1, 2:
			k := i(1, 3, "kernel")
			p := i(0, k-1, "pad")
			if s[2]+2*p < k || s[3]+2*p < k {
				continue
			}
			oc := rapid.SampledFrom([]int{1, 4, 16, 20, 33}).Draw(rt, "out channels")
			var bias *model.Value
			if i(0, 1, "bias") == 1 {
				bias = m.weight(0.5, oc)
			}
			wt := m.weight(1/math.Sqrt(float64(s[1]*k*k)), oc, s[1], k, k)
			if quantize {
				wt = m.int8Weight(1/math.Sqrt(float64(s[1]*k*k)), i(0, 1, "per channel")-1, oc, s[1], k, k)
			}
			st := i(1, 2, "stride")
			y = m.op("Conv", attrs{"pads": []int{p, p, p, p}, "strides": []int{st, st}}, x, wt, bias)
		case 3:
			y = m.op("Conv", attrs{"group": s[1], "pads": []int{1, 1, 1, 1}}, x, m.weight(0.4, s[1], 1, 3, 3), nil)
		case 4, 5:
			y = m.op("Add", nil, x, like(x))
		case 6:
			y = m.op("Relu", nil, x)
		case 7:
			y = m.op(rapid.SampledFrom([]model.Op{"Sigmoid", "HardSwish", "Tanh", "Swish", "Abs"}).Draw(rt, "function"), nil, x)
		case 8:
			if s[2] < 2 || s[3] < 2 {
				continue
			}
			y = m.op(rapid.SampledFrom([]model.Op{"MaxPool", "AveragePool"}).Draw(rt, "pool"), attrs{"kernel_shape": []int{2, 2}, "strides": []int{i(1, 2, "stride"), 1}}, x)
		case 9:
			y = m.op("Mul", nil, x, m.op("Sigmoid", nil, m.op("GlobalAveragePool", nil, x)))
		case 10:
			o := like(x)
			y = m.op("Concat", attrs{"axis": i(1, 3, "axis")}, x, o)
		case 11:
			y = m.op("Transpose", attrs{"perm": []int{0, 1, 3, 2}}, x)
		case 12:
			y = m.op("Reshape", nil, x, m.ints(int64(s[0]), int64(s[1]*s[2]), 1, int64(s[3])))
		case 13:
			at := i(0, s[1]-1, "at")
			y = m.op("Slice", nil, x, m.ints(int64(at)), m.ints(int64(s[1])), m.ints(1))
		case 14:
			y = m.op("Softmax", attrs{"axis": i(1, 3, "axis")}, x)
		default:
			y = m.op("ReduceMean", nil, x, m.ints(int64(i(1, 3, "axis"))))
		}
		if quantize && i(0, 2, "quantize") > 0 {
			y = m.quantized(y, 0.05, i(-10, 10, "zero"), true)
		}
		if y.Shape.Elems() > 20000 {
			continue
		}
		pool = append(pool, y)
	}
	out := []*model.Value{pool[len(pool)-1]}
	if extra := pool[i(0, len(pool)-1, "second output")]; extra != out[0] {
		out = append(out, extra)
	}
	return m.done(out...)
}

// Random networks give on the CPU what float64 gives, with and without the
// graph passes: no buffer is reused while it is needed, no layout is mistaken.
func TestRandomNetworks(t *testing.T) {
	pool := kernels.NewPool(2)
	defer pool.Close()
	rapid.Check(t, func(rt *rapid.T) {
		m := newMaker(t, uint64(rapid.IntRange(0, 1<<30).Draw(rt, "seed")))
		g := randomNetwork(rt, m, false)
		in := randomInputs(g, 1)
		want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{Float64: true})
		if err != nil {
			rt.Fatal(err)
		}
		bare, err := model.Lower(g)
		if err != nil {
			rt.Fatal(err)
		}
		for _, net := range []*model.Network{bare, lower(t, g)} {
			got := run(t, net, exec.Options{Pool: pool}, in)
			for i, v := range g.Outputs {
				if e := relError(got[i], want[v.Name]); e > 2e-5 {
					rt.Fatalf("output %s is off by %.3g", v.Name, e)
				}
			}
		}
	})
}

// Random quantized networks run on every placement, and a placement changes
// results only by roundings: by a few steps of the quantization.
func TestRandomQuantizedNetworks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMaker(t, uint64(rapid.IntRange(0, 1<<30).Draw(rt, "seed")))
		g := randomNetwork(rt, m, true)
		in := roundInputs(randomInputs(g, 1))
		net, err := model.Lower(g)
		if err != nil {
			rt.Fatal(err)
		}
		o := exec.Options{Units: make([]units.Kind, len(net.Layers)), Numerics: arithmetic}
		for i := range o.Units {
			o.Units[i] = units.Kind(rapid.IntRange(0, units.NumKinds-1).Draw(rt, "unit"))
		}
		want := run(t, net, on(net, units.CPU), in)
		got := run(t, net, o, in)
		for i, v := range g.Outputs {
			worst, sum := 0.0, 0.0
			for k := range got[i].Len() {
				d := math.Abs(got[i].At(k) - want[i].At(k))
				worst, sum = max(worst, d), sum+d
			}
			mean := sum / float64(max(1, got[i].Len()))
			if math.IsNaN(sum) || mean > 0.1 || worst > 2 {
				rt.Fatalf("output %s: mean difference %.3g, largest %.3g", v.Name, mean, worst)
			}
		}
	})
}
