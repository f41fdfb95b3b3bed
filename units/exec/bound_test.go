package exec_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/units"
)

// The bounds of this file come from Monte Carlo arithmetic (Parker, 1997; the
// model of rounding errors as independent random ones is that of Higham and
// Mary, SIAM J. Sci. Comput. 41(5), 2019): the network is evaluated in float64,
// and after every operator each element takes a random error as large as the
// rounding it stands for,
//
//	rounding to fp16        uniform in +-u |x|, u = 2^-11, on inputs, weights and results
//	quantizing, step s      uniform in +-s/2, behind the clamp to the code's range
//
// so that errors spread and correlate through the network as real ones do. The
// real executor rounds at most as often. With d the deviations that a few such
// evaluations show, an element may be off by
//
//	deviations * sqrt(mean of its own d^2 + mean of d^2 over the tensor)
//
// where 8 covers the 4.5 standard deviations of the largest among 10^5 normal
// values and a spread estimated from four samples.
const (
	deviations = 8
	samples    = 4
)

// exactMoves only select or rearrange values: no rounding.
var exactMoves = map[model.Op]bool{"Reshape": true, "Flatten": true, "Transpose": true, "Squeeze": true, "Unsqueeze": true, "Identity": true,
	"Concat": true, "Slice": true, "Split": true, "Gather": true, "MaxPool": true, "Relu": true, "Clip": true, "Dropout": true, "Pad": true, "Shape": true}

// bound holds the exact outputs of a network and how far each may be off.
type bound struct {
	exact map[string]*model.Tensor
	limit map[string][]float64
}

// derive evaluates g exactly and with random errors. With half, everything is
// rounded to fp16; quantize operators become clamps with quantization noise in
// any case.
func derive(t *testing.T, g *model.Graph, in map[string]*model.Tensor, half bool) bound {
	t.Helper()
	g = g.Clone()
	step := map[*model.Node]float64{}
	for _, n := range g.Nodes {
		switch n.Op {
		case "QuantizeLinear":
			value := func(i int) float64 {
				if n.In(i) == nil {
					return 0
				}
				c, err := n.In(i).Const.Value()
				if err != nil {
					t.Fatal(err)
				}
				return c.At(0)
			}
			s, zero := value(1), value(2)
			lo, hi := 0.0, 255.0
			if n.Outputs[0].DType == model.Int8 {
				lo, hi = -128, 127
			}
			scalar := func(v float64) *model.Value {
				c := model.NewConst(model.Scalar(v))
				return &model.Value{Name: "bound", DType: model.Float64, Shape: model.Shape{}, Const: c}
			}
			step[n] = s
			n.Op, n.Inputs = "Clip", []*model.Value{n.In(0), scalar((lo - zero) * s), scalar((hi - zero) * s)}
			n.Outputs[0].DType = model.Float32
		case "DequantizeLinear":
			n.Op, n.Inputs = "Identity", n.Inputs[:1]
		}
	}
	eval := func(r *rand.Rand) map[string]*model.Tensor {
		h, ins := g, in
		if r != nil && half {
			h, ins = g.Clone(), map[string]*model.Tensor{}
			for k, v := range in {
				ins[k] = jitter(r, v)
			}
			for _, v := range h.Consts() {
				if v.Const.DType.IsFloat() && v.Name != "bound" {
					c, err := v.Const.Value()
					if err != nil {
						t.Fatal(err)
					}
					v.Const = model.NewConst(jitter(r, c))
					v.DType = model.Float64
				}
			}
		}
		steps := map[string]float64{}
		for n, s := range step {
			steps[n.Name] = s
		}
		out, err := ops.EvalGraph(context.Background(), h, ins, ops.Options{Float64: true, Hook: func(n *model.Node, out []*model.Tensor) error {
			if r == nil {
				return nil
			}
			for _, o := range out {
				if o == nil || o.DType != model.Float64 {
					continue
				}
				f := model.View[float64](o)
				if s, ok := steps[n.Name]; ok {
					for i := range f {
						f[i] += s * (r.Float64() - 0.5)
					}
				} else if half && !exactMoves[n.Op] {
					for i := range f {
						f[i] *= 1 + (2*r.Float64()-1)/2048
					}
				}
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	b := bound{exact: eval(nil), limit: map[string][]float64{}}
	own, all := map[string][]float64{}, map[string]float64{}
	for k, x := range b.exact {
		own[k] = make([]float64, x.Len())
	}
	for s := range samples {
		for k, x := range eval(rand.New(rand.NewPCG(uint64(s), 77))) {
			for i := range own[k] {
				d := x.At(i) - b.exact[k].At(i)
				own[k][i] += d * d / samples
				all[k] += d * d / samples / float64(len(own[k]))
			}
		}
	}
	for k, v := range own {
		b.limit[k] = make([]float64, len(v))
		for i := range v {
			b.limit[k][i] = deviations * math.Sqrt(v[i]+all[k])
		}
	}
	return b
}

// jitter returns t in float64 with a random fp16 rounding error.
func jitter(r *rand.Rand, t *model.Tensor) *model.Tensor {
	t = t.Convert(model.Float64).Clone()
	for i, v := range model.View[float64](t) {
		model.View[float64](t)[i] = v * (1 + (2*r.Float64()-1)/2048)
	}
	return t
}

// compare returns the largest error as a share of its limit, and the largest
// limit relative to the largest output.
func (b bound) compare(name string, got *model.Tensor) (share, relative float64) {
	scale, limit := 0.0, 0.0
	for i, l := range b.limit[name] {
		w := b.exact[name].At(i)
		d := math.Abs(got.At(i) - w)
		if d != d {
			d = math.Inf(1)
		}
		share = max(share, d/l)
		scale, limit = max(scale, math.Abs(w)), max(limit, l)
	}
	return share, limit / scale
}

// Real files in fp16 on the NE and the GPU stay within the derived bound of the
// exact result, element by element. The bound itself is a few percent of the
// largest output, so that wrong arithmetic cannot pass.
func TestFixturesHalf(t *testing.T) {
	pool := kernels.NewPool(2)
	defer pool.Close()
	for _, f := range fixtures {
		g := load(t, f.file)
		in := map[string]*model.Tensor{f.input: npy(t, f.in)}
		b := derive(t, lower(t, g).Graph, in, true)
		for _, k := range []units.Kind{units.GPU, units.NE} {
			t.Run(fmt.Sprintf("%s on %v", f.file, k), func(t *testing.T) {
				net := lower(t, g)
				o := on(net, k)
				o.Pool = pool
				got := run(t, net, o, in)
				for i, v := range g.Outputs {
					share, relative := b.compare(v.Name, got[i])
					t.Logf("%s: error %.2g, bound %.2g relative to the largest output, %.0f %% of it used", v.Name, relError(got[i], b.exact[v.Name]), relative, 100*share)
					if share > 1 || relative > 0.1 {
						t.Errorf("output %s: %.0f %% of the bound, which is %.2g of the largest output", v.Name, 100*share, relative)
					}
				}
			})
		}
	}
}

// A W8A8 file stays within the derived bound of the same network without
// quantized activations, on every unit; and close to another runtime, which
// quantizes at the same places: codes differ only where a value falls next to
// a rounding boundary, so that less than the noise of quantization is left.
func TestFixtureW8A8(t *testing.T) {
	g := load(t, "mobilenet_v2_qdq.onnx")
	in := map[string]*model.Tensor{"image": npy(t, "image224.npy")}
	net := lower(t, g)
	b := derive(t, net.Graph, in, false)
	ref := npy(t, "mobilenet_v2_qdq.logits.npy")
	name := g.Outputs[0].Name
	for k := range units.Kind(units.NumKinds) {
		got := run(t, net, on(net, k), in)[0]
		share, relative := b.compare(name, got)
		e := relError(got, ref)
		t.Logf("%v: bound %.2g of the largest output, %.0f %% of it used; %.2g from the other runtime", k, relative, 100*share, e)
		if share > 1 || relative > 0.15 {
			t.Errorf("%v: %.0f %% of the bound, which is %.2g of the largest output", k, 100*share, relative)
		}
		if e > relative/2 {
			t.Errorf("%v: %.3g from the other runtime; the noise bound is %.3g", k, e, relative)
		}
	}
}
