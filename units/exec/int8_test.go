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
	"pgregory.net/rapid"
)

// convI8 is the geometry of a quantized convolution under test.
type convI8 struct {
	n, c, h, w, oc, k, stride, pad, groups int
	signedIn, signedOut, relu, bias        bool
	zeroIn, zeroOut                        int
	perChannel                             bool
	codesIn                                bool // the graph's input is the codes
}

// integerConv is the integer reference: exact sums of (q - zero) * w over the
// real pixels and an int32 bias, scaled to units of the output scale, clamped
// and rounded in float32 steps (the definition of kernels.ConvI8). It shares no
// code with the executor.
func (c convI8) integerConv(q []int, w []int8, ws []float32, bias []float32, sIn, sOut float32) []int {
	oh, ow := (c.h+2*c.pad-c.k)/c.stride+1, (c.w+2*c.pad-c.k)/c.stride+1
	icg, ocg := c.c/c.groups, c.oc/c.groups
	lo, hi := 0, 255
	if c.signedOut {
		lo, hi = -128, 127
	}
	var out []int
	for n := range c.n {
		for o := range c.oc {
			for y := range oh {
				for x := range ow {
					var acc int32
					for i := range icg {
						for ky := range c.k {
							for kx := range c.k {
								iy, ix := y*c.stride-c.pad+ky, x*c.stride-c.pad+kx
								if iy < 0 || iy >= c.h || ix < 0 || ix >= c.w {
									continue
								}
								v := q[((n*c.c+o/ocg*icg+i)*c.h+iy)*c.w+ix] - c.zeroIn
								acc += int32(v) * int32(w[((o*icg+i)*c.k+ky)*c.k+kx])
							}
						}
					}
					if bias != nil { // an int32 in units of the products
						acc += int32(math.RoundToEven(float64(bias[o] / (sIn * ws[o%len(ws)]))))
					}
					// In units of the output scale, each step rounded to float32.
					f := float32(acc) * (sIn * ws[o%len(ws)] / sOut)
					if c.relu {
						f = max(f, 0)
					}
					r := math.RoundToEven(float64(f)) + float64(c.zeroOut)
					out = append(out, int(min(max(r, float64(lo)), float64(hi))))
				}
			}
		}
	}
	return out
}

// A W8A8 convolution on the Neural Engine gives the integer reference's codes,
// bit for bit, for any geometry, sign and zero point.
func TestInt8ConvolutionIsExact(t *testing.T) {
	pool := kernels.NewPool(2)
	defer pool.Close()
	rapid.Check(t, func(rt *rapid.T) {
		b := func(name string) bool { return rapid.Bool().Draw(rt, name) }
		i := func(lo, hi int, name string) int { return rapid.IntRange(lo, hi).Draw(rt, name) }
		c := convI8{n: i(1, 2, "n"), h: i(1, 9, "h"), w: i(1, 9, "w"), k: i(1, 3, "k"), stride: i(1, 2, "stride"), pad: i(0, 2, "pad"),
			signedIn: b("signed in"), signedOut: b("signed out"), relu: b("relu"), bias: b("bias"), perChannel: b("per channel"), codesIn: b("codes in")}
		switch i(0, 2, "groups") {
		case 0:
			c.c, c.oc, c.groups = i(1, 40, "c"), i(1, 40, "oc"), 1
		case 1:
			c.c = i(1, 40, "c")
			c.oc, c.groups = c.c, c.c
		default:
			c.groups = i(2, 3, "g")
			c.c, c.oc = c.groups*i(1, 9, "cg"), c.groups*i(1, 9, "og")
		}
		if c.h+2*c.pad < c.k || c.w+2*c.pad < c.k {
			rt.Skip()
		}
		c.zeroIn, c.zeroOut = i(0, 255, "zero in"), i(0, 255, "zero out")
		if c.signedIn {
			c.zeroIn -= 128
		}
		if c.signedOut {
			c.zeroOut -= 128
		}
		c.compare(t, rt, pool, uint64(i(0, 1<<30, "seed")))
	})
}

func (c convI8) compare(t *testing.T, rt *rapid.T, pool *kernels.Pool, seed uint64) {
	m := newMaker(t, seed)
	// A power of two: every code is an exact fp16 value before it is quantized.
	const sIn, sOut = float32(1.0 / 32), float32(0.11)
	x := m.input(model.Float32, c.n, c.c, c.h, c.w)
	id := model.UInt8
	if c.signedIn {
		id = model.Int8
	}
	var d *model.Value
	if c.codesIn {
		x.DType = id
		z := model.NewTensor(id)
		z.SetInt(0, int64(c.zeroIn))
		d = m.op("DequantizeLinear", nil, x, m.scalar(sIn), m.constant(z))
	} else {
		d = m.quantized(x, sIn, c.zeroIn, c.signedIn)
	}
	axis := -1
	if c.perChannel {
		axis = 0
	}
	w := m.int8Weight(0.3, axis, c.oc, c.c/c.groups, c.k, c.k)
	var bias *model.Value
	var biasF []float32
	if c.bias {
		bias = m.weight(1, c.oc)
		bt, _ := bias.Const.Value()
		biasF = bt.Float32s()
	}
	y := m.op("Conv", attrs{"group": c.groups, "strides": []int{c.stride, c.stride}, "pads": []int{c.pad, c.pad, c.pad, c.pad}}, d, w, bias)
	if c.relu {
		y = m.op("Relu", nil, y)
	}
	od := model.UInt8
	if c.signedOut {
		od = model.Int8
	}
	zo := model.NewTensor(od)
	zo.SetInt(0, int64(c.zeroOut))
	out := m.op("QuantizeLinear", nil, y, m.scalar(sOut), m.constant(zo))
	g := m.done(out)

	in := model.NewTensor(model.Float32, c.n, c.c, c.h, c.w)
	q := make([]int, in.Len())
	for k := range q {
		q[k] = m.r.IntN(256)
		if c.signedIn {
			q[k] -= 128
		}
		in.Set(k, float64(float32(q[k]-c.zeroIn)*sIn))
	}
	if c.codesIn {
		in = model.NewTensor(id, c.n, c.c, c.h, c.w)
		for k, v := range q {
			in.SetInt(k, int64(v))
		}
	}
	a := w.Const.Storage.(*model.Affine)
	codes, _ := a.Codes.Value()
	ws, _ := a.Scale.Value()
	want := c.integerConv(q, model.View[int8](codes), ws.Float32s(), biasF, sIn, sOut)

	net, err := model.Lower(g)
	if err != nil {
		rt.Fatal(err)
	}
	if l := net.Layers[len(net.Layers)-1]; !l.Int8(l.Kind) {
		rt.Fatalf("%+v: the convolution is not int8 x int8", c)
	}
	o := on(net, units.NE)
	o.Pool = pool
	got := run(t, net, o, map[string]*model.Tensor{x.Name: in})[0]
	if got.Len() != len(want) {
		rt.Fatalf("%d codes, want %d", got.Len(), len(want))
	}
	for k, v := range want {
		if int(got.IntAt(k)) != v {
			rt.Fatalf("%+v: code %d is %d, the integer reference gives %d", c, k, got.IntAt(k), v)
		}
	}
}

// A W8A8 linear layer on the Neural Engine gives the integer reference's codes.
func TestInt8LinearIsExact(t *testing.T) {
	for _, transB := range []int{0, 1} {
		for _, k := range []int{1, 3, 16, 67, 300} {
			for _, n := range []int{1, 15, 16, 33} {
				t.Run(fmt.Sprintf("transB%d k%d n%d", transB, k, n), func(t *testing.T) {
					m := newMaker(t, uint64(k*100+n))
					x := m.input(model.Float32, 3, k)
					const sIn, zIn, sOut, zOut = float32(0.021), 117, float32(0.4), -5
					shape, axis := []int{k, n}, 1
					if transB == 1 {
						shape, axis = []int{n, k}, 0
					}
					w := m.int8Weight(0.3, axis, shape...)
					y := m.op("Gemm", attrs{"transB": transB}, m.quantized(x, sIn, zIn, false), w, nil)
					zo := model.NewTensor(model.Int8)
					zo.SetInt(0, zOut)
					g := m.done(m.op("QuantizeLinear", nil, y, m.scalar(sOut), m.constant(zo)))
					in := randomInputs(g, 5)
					a := w.Const.Storage.(*model.Affine)
					codes, _ := a.Codes.Value()
					ws, _ := a.Scale.Value()
					net, err := model.Lower(g)
					if err != nil {
						t.Fatal(err)
					}
					got := run(t, net, on(net, units.NE), in)[0]
					f := in[x.Name].Float32s()
					for r := range 3 {
						for c := range n {
							var acc int32
							for i := range k {
								h := kernels.F16ToFloat(kernels.F16Bits(f[r*k+i])) // the NE holds fp16
								q := int32(min(max(math.RoundToEven(float64(h/sIn))+zIn, 0), 255)) - zIn
								at := i*n + c
								if transB == 1 {
									at = c*k + i
								}
								acc += q * int32(codes.IntAt(at))
							}
							v := float32(acc) * (sIn * ws.Float32s()[c] / sOut)
							want := int64(min(max(math.RoundToEven(float64(v))+zOut, -128), 127))
							if got.IntAt(r*n+c) != want {
								t.Fatalf("row %d column %d: code %d, want %d", r, c, got.IntAt(r*n+c), want)
							}
						}
					}
				})
			}
		}
	}
}

// quantizedGraphs are chains of quantized operators.
var quantizedGraphs = map[string]func(m *maker) *model.Graph{
	"conv, residual of codes, pool, concat": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 16, 8, 8)
		q := m.quantized(x, 0.03, 128, false)
		a := m.quantized(m.op("Relu", nil, m.op("Conv", nil, q, m.int8Weight(0.3, 0, 32, 16, 1, 1), m.weight(1, 32))), 0.03, 0, false)
		b := m.quantized(m.op("Conv", attrs{"pads": []int{1, 1, 1, 1}}, a, m.int8Weight(0.08, 0, 32, 32, 3, 3), nil), 0.04, 3, true)
		s := m.quantized(m.op("Relu", nil, m.op("Add", nil, a, b)), 0.05, 0, false)
		p := m.quantized(m.op("MaxPool", attrs{"kernel_shape": []int{2, 2}, "strides": []int{2, 2}}, s), 0.05, 0, false)
		v := m.quantized(m.op("AveragePool", attrs{"kernel_shape": []int{2, 2}, "strides": []int{2, 2}}, b), 0.04, 3, true)
		c := m.quantized(m.op("Concat", attrs{"axis": 1}, p, v), 0.05, 10, true)
		g := m.quantized(m.op("GlobalAveragePool", nil, c), 0.02, 0, true)
		f := m.op("Flatten", attrs{"axis": 1}, g)
		f = m.quantized(f, 0.02, 0, true)
		return m.done(m.op("Gemm", attrs{"transB": 1}, f, m.int8Weight(0.2, 0, 10, 64), m.weight(1, 10)))
	},
	"moves of codes": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 16, 8, 8)
		q := m.quantized(m.op("Relu", nil, m.op("Conv", nil, m.quantized(x, 0.03, 0, true), m.int8Weight(0.3, -1, 16, 16, 1, 1), nil)), 0.03, 7, false)
		t := m.quantized(m.op("Transpose", attrs{"perm": []int{0, 2, 3, 1}}, q), 0.03, 7, false)
		r := m.quantized(m.op("Reshape", nil, t, m.ints(1, 64, 16)), 0.03, 7, false)
		p := m.quantized(m.op("Pad", nil, q, m.ints(0, 0, 1, 1, 0, 0, 1, 1)), 0.03, 7, false)
		return m.done(m.op("MatMul", nil, r, m.int8Weight(0.3, 1, 16, 5)), m.op("Sigmoid", nil, p), m.op("Mul", nil, q, q))
	},
	"channels last and back, of codes": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 16, 6, 7)
		q := m.quantized(m.op("Conv", nil, m.quantized(x, 0.03, 0, true), m.int8Weight(0.3, -1, 40, 16, 1, 1), nil), 0.03, 7, true)
		t := m.quantized(m.op("Transpose", attrs{"perm": []int{0, 2, 3, 1}}, q), 0.03, 7, true)
		l := m.quantized(m.op("MatMul", nil, t, m.int8Weight(0.2, 0, 40, 24)), 0.05, 3, false)
		b := m.quantized(m.op("Transpose", attrs{"perm": []int{0, 3, 1, 2}}, l), 0.05, 3, false)
		return m.done(m.op("Conv", attrs{"pads": []int{1, 1, 1, 1}}, b, m.int8Weight(0.1, 0, 16, 24, 3, 3), nil), m.op("Sigmoid", nil, b))
	},
	"matmul and softmax of codes": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 5, 8)
		q := m.quantized(x, 0.03, 0, true)
		k := m.quantized(m.op("Transpose", attrs{"perm": []int{0, 2, 1}}, q), 0.03, 0, true)
		s := m.quantized(m.op("Softmax", nil, m.quantized(m.op("MatMul", nil, q, k), 0.1, 0, true)), 1.0/256, 0, false)
		return m.done(m.op("MatMul", nil, s, q))
	},
	"split, reduce, broadcast and pixel shuffle of codes": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 16, 8, 8)
		q := m.quantized(m.op("Conv", nil, m.quantized(x, 0.03, 128, false), m.int8Weight(0.3, 0, 65, 16, 1, 1), nil), 0.04, 3, true)
		s := m.ops("Split", 3, attrs{"axis": 1}, q, m.ints(1, 32, 32))
		a, b, c := m.quantized(s[0], 0.04, 3, true), m.quantized(s[1], 0.03, 0, true), m.quantized(s[2], 0.04, 3, true)
		k := m.quantized(m.op("ReduceSum", nil, m.op("Mul", nil, b, a), m.ints(3)), 0.2, 0, true)
		y := m.quantized(m.op("Mul", nil, c, k), 0.5, 0, true)
		z := m.op("Reshape", nil, m.op("Conv", nil, y, m.int8Weight(0.2, 0, 32, 32, 1, 1), nil), m.ints(1, 128, 4, 4))
		p := m.quantized(m.op("DepthToSpace", attrs{"blocksize": 2, "mode": "CRD"}, z), 0.5, 0, true)
		r := m.quantized(m.op("Reshape", nil, y, m.ints(1, 512, 4)), 0.5, 0, true)
		return m.done(m.op("Neg", nil, p), m.op("Neg", nil, r))
	},
	"quantized input and output of the graph": func(m *maker) *model.Graph {
		x := m.input(model.UInt8, 1, 3, 6, 6)
		z := model.NewTensor(model.UInt8)
		d := m.op("DequantizeLinear", nil, x, m.scalar(0.02), m.constant(z))
		y := m.op("Conv", nil, d, m.int8Weight(0.5, 0, 8, 3, 3, 3), m.weight(1, 8))
		return m.done(m.op("QuantizeLinear", nil, y, m.scalar(0.02), m.constant(z)))
	},
}

// Chains of quantized operators stay within the steps that a rounding near a
// boundary can flip: on the CPU, whose arithmetic is the float64 reference's
// up to fp32 rounding, and on units where operands are rounded to fp16. A
// flipped code is one step off; the coarsest step of these graphs is 2.4 % of
// the largest output, and an element may be flipped twice on its way.
func TestQuantizedChains(t *testing.T) {
	for name, f := range quantizedGraphs {
		for k := range units.Kind(units.NumKinds) {
			t.Run(fmt.Sprintf("%s on %v", name, k), func(t *testing.T) {
				g := f(newMaker(t, 11))
				in := randomInputs(g, 13)
				want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{Float64: true})
				if err != nil {
					t.Fatal(err)
				}
				net, err := model.Lower(g)
				if err != nil {
					t.Fatal(err)
				}
				got := run(t, net, on(net, k), in)
				for i, v := range g.Outputs {
					e := relError(got[i], want[v.Name])
					t.Logf("%s: %.3g", v.Name, e)
					if e > 0.05 {
						t.Errorf("output %s: relative error %.3g", v.Name, e)
					}
				}
			})
		}
	}
}

// A product of two quantized activations on the Neural Engine is exact too.
func TestInt8MatMulIsExact(t *testing.T) {
	const s1, z1, s2, z2, sOut, zOut = float32(1.0 / 32), 100, float32(1.0 / 16), -7, float32(0.9), 3
	for _, k := range []int{1, 7, 64, 200} {
		m := newMaker(t, uint64(k))
		x, y := m.input(model.Float32, 2, 5, k), m.input(model.Float32, 2, k, 6)
		p := m.op("MatMul", nil, m.quantized(x, s1, z1, false), m.quantized(y, s2, z2, true))
		zo := model.NewTensor(model.Int8)
		zo.SetInt(0, zOut)
		g := m.done(m.op("QuantizeLinear", nil, p, m.scalar(sOut), m.constant(zo)))
		net, err := model.Lower(g)
		if err != nil {
			t.Fatal(err)
		}
		in := map[string]*model.Tensor{}
		var qx, qy []int32
		fill := func(v *model.Value, s float32, lo, hi, zero int, q *[]int32) {
			f := model.NewTensor(model.Float32, v.Shape...)
			for i := range f.Len() {
				c := lo + m.r.IntN(hi-lo+1) - zero
				*q = append(*q, int32(c))
				f.Set(i, float64(float32(c)*s))
			}
			in[v.Name] = f
		}
		fill(x, s1, 0, 255, z1, &qx)
		fill(y, s2, -128, 127, z2, &qy)
		got := run(t, net, on(net, units.NE), in)[0]
		for b := range 2 {
			for r := range 5 {
				for c := range 6 {
					var acc int32
					for i := range k {
						acc += qx[(b*5+r)*k+i] * qy[(b*k+i)*6+c]
					}
					want := int64(min(max(math.RoundToEven(float64(float32(acc)*(s1*s2)/sOut))+zOut, -128), 127))
					if g := got.IntAt((b*5+r)*6 + c); g != want {
						t.Fatalf("k %d, element %d,%d,%d: code %d, want %d", k, b, r, c, g, want)
					}
				}
			}
		}
	}
}

// Weights with zero points, and palettes of 8-bit codes, run as int8 with the
// codes that they stand for: the result is that of the same weight stored
// symmetrically.
func TestInt8WeightStorages(t *testing.T) {
	const k, n = 24, 16
	build := func(storage func(codes *model.Tensor) model.Storage) []int64 {
		m := newMaker(t, 5)
		codes := model.NewTensor(model.Int8, n, k)
		for i := range codes.Len() {
			codes.SetInt(i, int64(m.r.IntN(16))-8)
		}
		w := &model.Value{Name: "w", DType: model.Float32, Shape: model.Shape{n, k}, Const: &model.Const{DType: model.Float32, Shape: model.Shape{n, k}, Storage: storage(codes)}}
		x := m.input(model.Float32, 4, k)
		z := model.NewTensor(model.Int8)
		g := m.done(m.op("QuantizeLinear", nil, m.op("Gemm", attrs{"transB": 1}, m.quantized(x, 0.03, 5, true), w, nil), m.scalar(0.02), m.constant(z)))
		net, err := model.Lower(g)
		if err != nil {
			t.Fatal(err)
		}
		return run(t, net, on(net, units.NE), randomInputs(g, 2))[0].Convert(model.Int64).Int64s()
	}
	one := func(v float64) *model.Const {
		s := model.NewTensor(model.Float32, 1, 1)
		s.Set(0, v)
		return model.NewConst(s)
	}
	want := build(func(c *model.Tensor) model.Storage { return &model.Affine{Codes: model.NewConst(c), Scale: one(0.01)} })
	for name, f := range map[string]func(c *model.Tensor) model.Storage{
		"uint8 around 128": func(c *model.Tensor) model.Storage {
			u, z := model.NewTensor(model.UInt8, n, k), model.NewTensor(model.UInt8, 1, 1)
			for i := range u.Len() {
				u.SetInt(i, c.IntAt(i)+128)
			}
			z.SetInt(0, 128)
			return &model.Affine{Codes: model.NewConst(u), Scale: one(0.01), Zero: model.NewConst(z)}
		},
		"uint8 from 8": func(c *model.Tensor) model.Storage {
			u, z := model.NewTensor(model.UInt8, n, k), model.NewTensor(model.UInt8, 1, 1)
			for i := range u.Len() {
				u.SetInt(i, c.IntAt(i)+8)
			}
			z.SetInt(0, 8)
			return &model.Affine{Codes: model.NewConst(u), Scale: one(0.01), Zero: model.NewConst(z)}
		},
		"palette of int8": func(c *model.Tensor) model.Storage {
			ix, table := model.NewTensor(model.UInt4, n, k), model.NewTensor(model.Int8, 1, 1, 16, 1)
			for i := range ix.Len() {
				ix.SetInt(i, c.IntAt(i)+8)
			}
			for i := range 16 {
				table.SetInt(i, int64(i)-8)
			}
			s := model.NewTensor(model.Float32, 1, 1, 1, 1)
			s.Set(0, 0.01)
			return &model.Lookup{Indices: model.NewConst(ix), Table: &model.Const{DType: model.Float32, Shape: table.Shape,
				Storage: &model.Affine{Codes: model.NewConst(table), Scale: model.NewConst(s)}}}
		},
	} {
		got := build(f)
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: code %d is %d, want %d", name, i, got[i], want[i])
				break
			}
		}
	}
}

// A transposed convolution of 8-bit operands on the Neural Engine gives the
// codes of an integer reference that scatters each pixel.
func TestInt8ConvTransposeIsExact(t *testing.T) {
	const c, h, w, oc, k, sIn, zIn, sOut, zOut = 5, 4, 3, 7, 3, float32(1.0 / 32), 11, float32(0.3), -4
	for _, stride := range []int{1, 2} {
		for _, pad := range []int{0, 1} {
			m := newMaker(t, uint64(stride*10+pad))
			x := m.input(model.Float32, 1, c, h, w)
			wt := m.int8Weight(0.3, 1, c, oc, k, k)
			y := m.op("ConvTranspose", attrs{"strides": []int{stride, stride}, "pads": []int{pad, pad, pad, pad}}, m.quantized(x, sIn, zIn, false), wt, nil)
			zo := model.NewTensor(model.Int8)
			zo.SetInt(0, zOut)
			g := m.done(m.op("QuantizeLinear", nil, y, m.scalar(sOut), m.constant(zo)))
			net, err := model.Lower(g)
			if err != nil {
				t.Fatal(err)
			}
			in := model.NewTensor(model.Float32, 1, c, h, w)
			a := wt.Const.Storage.(*model.Affine)
			codes, _ := a.Codes.Value()
			scale, _ := a.Scale.Value()
			oh, ow := (h-1)*stride+k-2*pad, (w-1)*stride+k-2*pad
			acc := make([]int32, oc*oh*ow)
			for i := range in.Len() {
				q := int32(m.r.IntN(256)) - zIn
				in.Set(i, float64(float32(q)*sIn))
				ci, yi, xi := i/(h*w), i/w%h, i%w
				for o := range oc {
					for ky := range k {
						for kx := range k {
							r, s := yi*stride+ky-pad, xi*stride+kx-pad
							if r >= 0 && r < oh && s >= 0 && s < ow {
								acc[(o*oh+r)*ow+s] += q * int32(codes.IntAt(((ci*oc+o)*k+ky)*k+kx))
							}
						}
					}
				}
			}
			got := run(t, net, on(net, units.NE), map[string]*model.Tensor{x.Name: in})[0]
			for i, v := range acc {
				f := float32(v) * (sIn * scale.Float32s()[i/(oh*ow)] / sOut)
				want := int64(min(max(math.RoundToEven(float64(f))+zOut, -128), 127))
				if got.IntAt(i) != want {
					t.Fatalf("stride %d, padding %d: code %d is %d, want %d", stride, pad, i, got.IntAt(i), want)
				}
			}
		}
	}
}
