package ops

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/triune-sim/triune/model"
)

// failer is what tests and property checks have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// eval1 builds a one-output node on the given tensors and evaluates it.
func eval1(t failer, op model.Op, attrs model.Attrs, in ...*model.Tensor) *model.Tensor {
	t.Helper()
	out, err := EvalNode(context.Background(), testNode(op, attrs, in...), in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

func testNode(op model.Op, attrs model.Attrs, in ...*model.Tensor) *model.Node {
	n := &model.Node{Name: "n", Op: op, Attrs: attrs}
	for _, x := range in {
		if x == nil {
			n.Inputs = append(n.Inputs, nil)
			continue
		}
		n.Inputs = append(n.Inputs, &model.Value{Name: "in", DType: x.DType, Shape: x.Shape, Const: model.NewConst(x)})
	}
	n.Outputs = []*model.Value{{Name: "out", Producer: n}}
	return n
}

func random(r *rand.Rand, shape ...int) *model.Tensor {
	x := model.NewTensor(model.Float64, shape...)
	for i := range x.Len() {
		x.Set(i, r.NormFloat64())
	}
	return x
}

func closeTo(t failer, got *model.Tensor, want []float64, tol float64) {
	t.Helper()
	if got.Len() != len(want) {
		t.Fatalf("%d elements, want %d", got.Len(), len(want))
	}
	for i, w := range want {
		if g := got.At(i); !(math.Abs(g-w) <= tol) {
			t.Fatalf("element %d is %g, want %g", i, g, w)
		}
	}
}

// TestConvDefinition compares convolutions of random geometry with the
// defining sum, written out.
func TestConvDefinition(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		in := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(rt, name) }
		g, cg, mg, batch := in("groups", 1, 3), in("channels", 1, 3), in("filters", 1, 3), in("batch", 1, 2)
		h, w, kh, kw := in("h", 1, 7), in("w", 1, 7), in("kh", 1, 3), in("kw", 1, 3)
		sh, sw, dh, dw := in("sh", 1, 3), in("sw", 1, 3), in("dh", 1, 2), in("dw", 1, 2)
		pt, pl, pb, pr := in("pt", 0, 2), in("pl", 0, 2), in("pb", 0, 2), in("pr", 0, 2)
		eh, ew := (kh-1)*dh+1, (kw-1)*dw+1
		if h+pt+pb < eh || w+pl+pr < ew {
			return
		}
		oh, ow := (h+pt+pb-eh)/sh+1, (w+pl+pr-ew)/sw+1
		c, m := g*cg, g*mg
		x, k, b := random(r, batch, c, h, w), random(r, m, cg, kh, kw), random(r, m)
		attrs := model.Attrs{"group": g, "strides": []int{sh, sw}, "dilations": []int{dh, dw}, "pads": []int{pt, pl, pb, pr}}
		got := eval1(rt, "Conv", attrs, x, k, b)
		if !got.Shape.Equal(model.Shape{batch, m, oh, ow}) {
			rt.Fatalf("shape %v, want [%d,%d,%d,%d]", got.Shape, batch, m, oh, ow)
		}
		var want []float64
		for n := range batch {
			for o := range m {
				for y := range oh {
					for z := range ow {
						s := b.At(o)
						for ch := range cg {
							for i := range kh {
								for j := range kw {
									yy, xx := y*sh-pt+i*dh, z*sw-pl+j*dw
									if yy >= 0 && yy < h && xx >= 0 && xx < w {
										s += x.At(((n*c+o/mg*cg+ch)*h+yy)*w+xx) * k.At(((o*cg+ch)*kh+i)*kw+j)
									}
								}
							}
						}
						want = append(want, s)
					}
				}
			}
		}
		closeTo(rt, got, want, 1e-12)

		// The transposed convolution is the adjoint: <conv x, y> = <x, convT y>.
		y := random(r, batch, m, oh, ow)
		free := eval1(rt, "Conv", attrs, x, k)
		attrs["output_shape"] = []int{h, w}
		delete(attrs, "pads")
		lead := model.Attrs{"group": g, "strides": []int{sh, sw}, "dilations": []int{dh, dw}, "pads": []int{pt, pl, pb, pr},
			"output_padding": []int{h + pt + pb - eh - (oh-1)*sh, w + pl + pr - ew - (ow-1)*sw}}
		back := eval1(rt, "ConvTranspose", lead, y, k)
		if !back.Shape.Equal(x.Shape) {
			rt.Fatalf("transposed shape %v, want %v", back.Shape, x.Shape)
		}
		var a, e float64
		for i := range y.Len() {
			a += free.At(i) * y.At(i)
		}
		for i := range x.Len() {
			e += back.At(i) * x.At(i)
		}
		if math.Abs(a-e) > 1e-9*(1+math.Abs(a)) {
			rt.Fatalf("adjoint: %g and %g", a, e)
		}
	})
}

func TestMatMulDefinition(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 2))
		m, k, n := rapid.IntRange(1, 9).Draw(rt, "m"), rapid.IntRange(1, 9).Draw(rt, "k"), rapid.IntRange(1, 9).Draw(rt, "n")
		b1, b2 := rapid.IntRange(1, 3).Draw(rt, "b1"), rapid.IntRange(1, 3).Draw(rt, "b2")
		one := rapid.Bool().Draw(rt, "broadcast")
		as := model.Shape{b1, b2, m, k}
		if one {
			as = model.Shape{b1, 1, m, k}
		}
		a, b := random(r, as...), random(r, b2, k, n)
		got := eval1(rt, "MatMul", nil, a, b)
		var want []float64
		for p := range b1 {
			for q := range b2 {
				qa := q
				if one {
					qa = 0
				}
				for i := range m {
					for j := range n {
						s := 0.0
						for l := range k {
							s += a.At(((p*as[1]+qa)*m+i)*k+l) * b.At((q*k+l)*n+j)
						}
						want = append(want, s)
					}
				}
			}
		}
		closeTo(rt, got, want, 1e-12)
		// Gemm and Einsum are the same product.
		x, y := random(r, k, m), random(r, n, k)
		g := eval1(rt, "Gemm", model.Attrs{"transA": 1, "transB": 1}, x, y)
		e := eval1(rt, "Einsum", model.Attrs{"equation": "km,nk->mn"}, x, y)
		closeTo(rt, g, floats(e), 1e-12)
	})
}

// TestViews checks that moving there and back is the identity.
func TestViews(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 3))
		shape := rapid.SliceOfN(rapid.IntRange(0, 4), 1, 5).Draw(rt, "shape")
		x := random(r, shape...)
		perm := rapid.Permutation(rangeTo(len(shape))).Draw(rt, "perm")
		back := make([]int, len(perm))
		for i, p := range perm {
			back[p] = i
		}
		y := eval1(rt, "Transpose", model.Attrs{"perm": back}, eval1(rt, "Transpose", model.Attrs{"perm": perm}, x))
		if !y.Shape.Equal(x.Shape) || !bytes.Equal(y.Data, x.Data) {
			rt.Fatalf("transposing %v there and back changed it", x.Shape)
		}
		axis := rapid.IntRange(0, len(shape)-1).Draw(rt, "axis")
		cutAt := rapid.IntRange(0, shape[axis]).Draw(rt, "cut")
		n := testNode("Split", model.Attrs{"axis": axis}, x, model.Of([]int64{int64(cutAt), int64(shape[axis] - cutAt)}))
		n.Outputs = append(n.Outputs, &model.Value{Name: "out2", Producer: n})
		parts, err := EvalNode(context.Background(), n, []*model.Tensor{x, model.Of([]int64{int64(cutAt), int64(shape[axis] - cutAt)})}, Options{})
		if err != nil {
			rt.Fatal(err)
		}
		y = eval1(rt, "Concat", model.Attrs{"axis": axis}, parts...)
		if !y.Shape.Equal(x.Shape) || !bytes.Equal(y.Data, x.Data) {
			rt.Fatalf("splitting and joining %v changed it", x.Shape)
		}
		// A slice backwards twice.
		all := func() *model.Tensor {
			return eval1(rt, "Slice", nil, x, model.Of([]int64{-1}), model.Of([]int64{math.MinInt64}), model.Of([]int64{int64(axis)}), model.Of([]int64{-1}))
		}
		x0 := x
		x = all()
		x = all()
		if !bytes.Equal(x.Data, x0.Data) {
			rt.Fatalf("reversing %v twice changed it", x0.Shape)
		}
	})
	x := random(rand.New(rand.NewPCG(1, 1)), 2, 8, 3, 5)
	for _, mode := range []string{"DCR"} {
		y := eval1(t, "SpaceToDepth", model.Attrs{"blocksize": 2}, eval1(t, "DepthToSpace", model.Attrs{"blocksize": 2, "mode": mode}, x))
		if !bytes.Equal(y.Data, x.Data) {
			t.Errorf("depth to space and back changed the tensor")
		}
	}
}

func rangeTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestSoftmaxProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := rapid.SliceOfN(rapid.Float64Range(-1e4, 1e4), 1, 20).Draw(rt, "x")
		shift := rapid.Float64Range(-100, 100).Draw(rt, "shift")
		p := floats(eval1(rt, "Softmax", nil, model.Of(slices.Clone(v))))
		l := floats(eval1(rt, "LogSoftmax", nil, model.Of(slices.Clone(v))))
		s := 0.0
		for i := range p {
			s += p[i]
			if math.Abs(math.Exp(l[i])-p[i]) > 1e-12 {
				rt.Fatalf("exp of log-softmax %g, softmax %g", math.Exp(l[i]), p[i])
			}
		}
		if math.Abs(s-1) > 1e-12 {
			rt.Fatalf("sum %g", s)
		}
		for i := range v {
			v[i] += shift
		}
		closeTo(rt, eval1(rt, "Softmax", nil, model.Of(v)), p, 1e-9)
	})
}

// TestQuantizeHalfStep: dequantized codes are within half a step of what was
// quantized, unless it was out of range.
func TestQuantizeHalfStep(t *testing.T) {
	for _, d := range []model.DType{model.Int8, model.UInt8, model.Int4, model.UInt4, model.Int16} {
		lo, hi, _ := d.IntRange()
		rapid.Check(t, func(rt *rapid.T) {
			scale := rapid.Float64Range(1e-3, 10).Draw(rt, "scale")
			zp := rapid.Int64Range(lo, hi).Draw(rt, "zero")
			x := rapid.Float64Range(-100, 100).Draw(rt, "x")
			s, z := model.Scalar(scale), fromInts(d, model.Shape{}, []int64{zp})
			q := eval1(rt, "QuantizeLinear", nil, model.Scalar(x), s, z)
			y := eval1(rt, "DequantizeLinear", nil, q, s, z).At(0)
			inside := max(scale*float64(lo-zp), min(scale*float64(hi-zp), x))
			if math.Abs(y-inside) > scale/2*(1+1e-12) {
				rt.Fatalf("%s: %g became code %d, %g", d, x, q.IntAt(0), y)
			}
		})
	}
}

// TestSmallFloats: every code survives, and rounding picks the nearest value.
func TestSmallFloats(t *testing.T) {
	for _, d := range []model.DType{model.Float8E4M3FN, model.Float8E4M3FNUZ, model.Float8E5M2, model.Float8E5M2FNUZ, model.Float4E2M1} {
		tab := smallFloats(d)
		for c, v := range tab {
			if v != v {
				continue
			}
			if math.IsInf(v, 0) {
				if got := encodeSmall(d, v, false); int(got) != c {
					t.Errorf("%s: infinity is code %#x, want %#x", d, got, c)
				}
				continue
			}
			if got := encodeSmall(d, v, true); int(got) != c {
				t.Errorf("%s: %g is code %#x, want %#x", d, v, got, c)
			}
		}
		rapid.Check(t, func(rt *rapid.T) {
			x := rapid.Float64Range(-600, 600).Draw(rt, "x")
			got := tab[encodeSmall(d, x, true)]
			best := math.Inf(1)
			for _, v := range tab {
				if !math.IsInf(v, 0) && v == v {
					best = min(best, math.Abs(v-x))
				}
			}
			if math.Abs(got-x) != best {
				rt.Fatalf("%s: %g became %g, off by %g where %g is possible", d, x, got, math.Abs(got-x), best)
			}
		})
	}
	// Values of the OCP and FNUZ definitions.
	for _, c := range []struct {
		d    model.DType
		code int
		want float64
	}{
		{model.Float8E4M3FN, 0x7e, 448}, {model.Float8E4M3FN, 0x01, 0x1p-9}, {model.Float8E5M2, 0x7b, 57344},
		{model.Float8E4M3FNUZ, 0x7f, 240}, {model.Float8E5M2FNUZ, 0x7f, 57344}, {model.Float4E2M1, 7, 6},
	} {
		if got := smallFloats(c.d)[c.code]; got != c.want {
			t.Errorf("%s: code %#x is %g, want %g", c.d, c.code, got, c.want)
		}
	}
}

// chain is x -> Relu -> Reshape to [N, -1] with a target computed from Shape.
func chain() *model.Graph {
	x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{2, 3, 4}}
	g := &model.Graph{Name: "chain", Inputs: []*model.Value{x}}
	add := func(op model.Op, name string, attrs model.Attrs, in ...*model.Value) *model.Value {
		n := &model.Node{Name: name, Op: op, Attrs: attrs, Inputs: in}
		v := &model.Value{Name: name, Producer: n}
		n.Outputs = []*model.Value{v}
		g.Nodes = append(g.Nodes, n)
		return v
	}
	c := func(v ...int64) *model.Value {
		return &model.Value{Name: "c", DType: model.Int64, Shape: model.Shape{len(v)}, Const: model.NewConst(model.Of(v))}
	}
	r := add("Relu", "r", nil, x)
	s := add("Shape", "s", nil, x)
	first := add("Gather", "first", nil, s, c(0))
	target := add("Concat", "target", model.Attrs{"axis": 0}, first, c(-1))
	g.Outputs = []*model.Value{add("Reshape", "y", nil, r, target)}
	return g
}

func TestInferFollowsValues(t *testing.T) {
	g := chain()
	if err := InferGraph(g); err != nil {
		t.Fatal(err)
	}
	if y := g.Outputs[0]; y.DType != model.Float32 || !y.Shape.Equal(model.Shape{2, 12}) {
		t.Errorf("inferred %v, want fp32[2,12]", y)
	}
	g.Inputs[0].Shape = model.Shape{-1, 3, 4}
	if err := InferGraph(g); err != nil {
		t.Fatal(err)
	}
	if y := g.Outputs[0]; len(y.Shape) != 2 || y.Shape.Known() {
		t.Errorf("inferred %v from an unknown batch, want fp32[?,?]", y)
	}
	g.Inputs[0].Shape = Unranked()
	if err := InferGraph(g); err != nil {
		t.Fatal(err)
	}
	if y := g.Outputs[0]; y.Shape.Known() || y.DType != model.Float32 {
		t.Errorf("inferred %v from an unknown rank", y)
	}
}

func TestInferDecodesNoWeights(t *testing.T) {
	x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{1, 3, 8, 8}}
	w := model.NewLazy(model.Float32, model.Shape{4, 3, 3, 3}, func() (*model.Tensor, error) {
		t.Error("a weight was decoded")
		return model.NewTensor(model.Float32, 4, 3, 3, 3), nil
	})
	n := &model.Node{Name: "conv", Op: "Conv", Inputs: []*model.Value{x, {Name: "w", DType: w.DType, Shape: w.Shape, Const: w}}}
	n.Outputs = []*model.Value{{Name: "y", Producer: n}}
	if err := InferNode(n); err != nil {
		t.Fatal(err)
	}
	if s := n.Outputs[0].Shape; !s.Equal(model.Shape{1, 4, 6, 6}) {
		t.Errorf("shape %v", s)
	}
	if m := MACs(n); m != 4*6*6*27 {
		t.Errorf("%d multiply-adds, want %d", m, 4*6*6*27)
	}
}

func TestEvalGraphErrors(t *testing.T) {
	g := chain()
	if err := InferGraph(g); err != nil {
		t.Fatal(err)
	}
	x := model.NewTensor(model.Float32, 2, 3, 4)
	stopped := errors.New("stopped")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		what string
		ctx  context.Context
		in   map[string]*model.Tensor
		o    Options
		want string
	}{
		{"no input", nil, nil, Options{}, `"x"`},
		{"another name", nil, map[string]*model.Tensor{"z": x}, Options{}, "[z]"},
		{"one too many", nil, map[string]*model.Tensor{"x": x, "z": x}, Options{}, `no input "z"`},
		{"wrong shape", nil, map[string]*model.Tensor{"x": model.NewTensor(model.Float32, 2, 3)}, Options{}, "wants fp32[2,3,4]"},
		{"wrong type", nil, map[string]*model.Tensor{"x": model.NewTensor(model.Int32, 2, 3, 4)}, Options{}, "int32[2,3,4]"},
		{"short data", nil, map[string]*model.Tensor{"x": {DType: model.Float32, Shape: model.Shape{2, 3, 4}, Data: make([]byte, 8)}}, Options{}, "8 bytes"},
		{"cancelled", cancelled, map[string]*model.Tensor{"x": x}, Options{}, "canceled"},
		{"hook", nil, map[string]*model.Tensor{"x": x}, Options{Hook: func(*model.Node, []*model.Tensor) error { return stopped }}, "stopped"},
		{"memory", nil, map[string]*model.Tensor{"x": x}, Options{MaxBytes: 16}, "16 bytes"},
	} {
		_, err := EvalGraph(c.ctx, g, c.in, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line with %q", c.what, err, c.want)
		}
	}
}

// TestNodeErrors: inputs that do not fit give an error that names the node.
func TestNodeErrors(t *testing.T) {
	f := func(shape ...int) *model.Tensor { return model.NewTensor(model.Float32, shape...) }
	i := func(v ...int64) *model.Tensor { return model.Of(v) }
	for _, c := range []struct {
		op    model.Op
		attrs model.Attrs
		in    []*model.Tensor
		want  string
	}{
		{"Nonsense", nil, nil, "unknown operator"},
		{"Add", nil, []*model.Tensor{f(2)}, "1 inputs"},
		{"Add", nil, []*model.Tensor{f(2), f(3)}, "broadcast"},
		{"Add", nil, []*model.Tensor{f(2), i(1, 2)}, "fp32 and int64"},
		{"Conv", nil, []*model.Tensor{f(1, 3, 4, 4), f(2, 4, 3, 3)}, "channels"},
		{"Conv", model.Attrs{"group": 0}, []*model.Tensor{f(1, 3, 4, 4), f(2, 3, 3, 3)}, "group 0"},
		{"Conv", nil, []*model.Tensor{f(1, 3, 2, 2), f(2, 3, 3, 3)}, "larger than the padded input"},
		{"MaxPool", model.Attrs{"kernel_shape": []int{2, 0}}, []*model.Tensor{f(1, 1, 4, 4)}, "positive"},
		{"Reshape", nil, []*model.Tensor{f(2, 3), i(4, -1)}, "cannot reshape"},
		{"Reshape", nil, []*model.Tensor{f(2, 3), i(-1, -1)}, "two -1"},
		{"Gather", nil, []*model.Tensor{f(2, 3), i(2)}, "outside"},
		{"Transpose", model.Attrs{"perm": []int{0, 0}}, []*model.Tensor{f(2, 3)}, "twice"},
		{"Expand", nil, []*model.Tensor{f(1), i(1<<40, 1<<40)}, ""},
		{"ConstantOfShape", nil, []*model.Tensor{i(1 << 50)}, "exceed"},
		{"Range", nil, []*model.Tensor{model.Scalar[int64](0), model.Scalar[int64](1 << 60), model.Scalar[int64](1)}, "too long"},
		{"Tile", nil, []*model.Tensor{f(2), i(1 << 62)}, "too large"},
		{"Softmax", model.Attrs{"axis": 3}, []*model.Tensor{f(2)}, "axis 3"},
		{"TopK", nil, []*model.Tensor{f(3), i(4)}, "k = 4"},
		{"Einsum", model.Attrs{"equation": "ij,jk->il"}, []*model.Tensor{f(2, 3), f(3, 2)}, "'l'"},
		{"Cast", model.Attrs{"to": "fp7"}, []*model.Tensor{f(2)}, "fp7"},
	} {
		n := testNode(c.op, c.attrs, c.in...)
		_, err := EvalNode(context.Background(), n, c.in, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `"n" (`+string(c.op)) {
			t.Errorf("%s: error %v, want one that says %q and names the node", c.op, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "runtime error") {
			t.Errorf("%s: a run-time panic: %v", c.op, err)
		}
	}
}

// TestCancelInside: a long node stops soon after its context ends.
func TestCancelInside(t *testing.T) {
	x, w := model.NewTensor(model.Float32, 1, 64, 128, 128), model.NewTensor(model.Float32, 256, 64, 5, 5)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := EvalNode(ctx, testNode("Conv", nil, x, w), []*model.Tensor{x, w}, Options{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("took %v after its context ended", d)
	}
}

// TestThreads: results do not depend on the number of processors.
func TestThreads(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	x, w := random(r, 1, 8, 33, 31).Convert(model.Float32), random(r, 12, 8, 3, 3).Convert(model.Float32)
	var first []byte
	for _, n := range []int{1, 2, 3, 8} {
		old := runtime.GOMAXPROCS(n)
		y := eval1(t, "Conv", model.Attrs{"pads": []int{1, 1, 1, 1}}, x, w)
		runtime.GOMAXPROCS(old)
		if first == nil {
			first = y.Data
		} else if !bytes.Equal(first, y.Data) {
			t.Fatalf("%d processors give another result", n)
		}
	}
}

// TestFloat64 promotes everything: nothing is rounded to fp16 on the way.
func TestFloat64(t *testing.T) {
	x := &model.Value{Name: "x", DType: model.Float16, Shape: model.Shape{3}}
	w := model.NewConst(model.Of([]float32{0.1, 0.2, 0.3}).Convert(model.Float16))
	g := &model.Graph{Inputs: []*model.Value{x}}
	n := &model.Node{Name: "m", Op: "Mul", Inputs: []*model.Value{x, {Name: "w", DType: w.DType, Shape: w.Shape, Const: w}}}
	v := &model.Value{Name: "m", Producer: n}
	n.Outputs = []*model.Value{v}
	c := &model.Node{Name: "y", Op: "Cast", Attrs: model.Attrs{"to": "fp16"}, Inputs: []*model.Value{v}}
	y := &model.Value{Name: "y", Producer: c}
	c.Outputs = []*model.Value{y}
	g.Nodes, g.Outputs = []*model.Node{n, c}, []*model.Value{y}
	if err := InferGraph(g); err != nil {
		t.Fatal(err)
	}
	in := map[string]*model.Tensor{"x": model.Of([]float64{1.0 / 3, 1.0 / 7, 1e-5})}
	wide, err := EvalGraph(context.Background(), g, in, Options{Float64: true})
	if err != nil {
		t.Fatal(err)
	}
	if wide["y"].DType != model.Float64 {
		t.Fatalf("the promoted output is %s", wide["y"].DType)
	}
	wv := floats(w.Storage.(model.Dense).Tensor)
	for i := range 3 {
		if want := in["x"].At(i) * wv[i]; wide["y"].At(i) != want {
			t.Errorf("element %d is %g, want %g", i, wide["y"].At(i), want)
		}
	}
	half, err := EvalGraph(context.Background(), g, in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if half["y"].DType != model.Float16 {
		t.Errorf("the output is %s, want fp16", half["y"].DType)
	}
}

func TestRegistry(t *testing.T) {
	l := List()
	if len(l) < 180 {
		t.Errorf("%d operators", len(l))
	}
	for i, o := range l {
		if i > 0 && l[i-1].Op >= o.Op {
			t.Errorf("%s is out of order", o.Op)
		}
		s := registry[o.Op]
		if s.infer == nil || s.eval == nil || !Supported(o.Op) {
			t.Errorf("%s lacks inference or evaluation", o.Op)
		}
	}
	if _, ok := Lookup("Nonsense"); ok || Supported("Nonsense") {
		t.Error("Nonsense is an operator")
	}
}

// TestIntegerArithmetic: exact, wrapping, and unsigned where the type is.
func TestIntegerArithmetic(t *testing.T) {
	big := int64(1)<<53 + 1
	y := eval1(t, "Add", nil, model.Of([]int64{big, math.MaxInt64}), model.Of([]int64{2, 1}))
	if v := y.Int64s(); v[0] != big+2 || v[1] != math.MinInt64 {
		t.Errorf("int64 sums %v", v)
	}
	u := eval1(t, "Div", nil, model.Of([]uint64{math.MaxUint64}), model.Of([]uint64{2}))
	if v := model.View[uint64](u)[0]; v != math.MaxUint64/2 {
		t.Errorf("uint64 quotient %d", v)
	}
	b := eval1(t, "Less", nil, model.Of([]uint64{1 << 63}), model.Of([]uint64{1}))
	if b.Data[0] != 0 {
		t.Error("2^63 < 1 as uint64")
	}
	m := eval1(t, "Mod", nil, model.Of([]int32{-7, 7}), model.Of([]int32{3, -3}))
	if v := model.View[int32](m); v[0] != 2 || v[1] != -2 {
		t.Errorf("remainders %v, want [2 -2]", v)
	}
	s := eval1(t, "ReduceSum", nil, model.Of([]int64{big, 1}))
	if v := s.Int64s()[0]; v != big+1 {
		t.Errorf("sum %d, want %d", v, big+1)
	}
	w := eval1(t, "Mul", nil, model.Of([]int8{100}), model.Of([]int8{3}))
	if v := w.IntAt(0); v != 44 {
		t.Errorf("100 * 3 as int8 is %d, want 44", v)
	}
}
