package quant

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
)

// builder makes small graphs.
type builder struct{ g *model.Graph }

func newGraph(shape ...int) (*builder, *model.Value) {
	x := &model.Value{Name: "x", DType: model.Float32, Shape: shape}
	return &builder{&model.Graph{Name: "test", Inputs: []*model.Value{x}}}, x
}

func (b *builder) node(op model.Op, name string, attrs model.Attrs, in ...*model.Value) *model.Value {
	n := &model.Node{Name: name, Op: op, Attrs: attrs, Inputs: in}
	y := &model.Value{Name: name + "_out", Producer: n}
	n.Outputs = []*model.Value{y}
	b.g.Nodes = append(b.g.Nodes, n)
	return y
}

func weights(name string, shape ...int) *model.Value {
	rng := rand.New(rand.NewPCG(uint64(len(name)), uint64(shape[0])))
	t := model.NewTensor(model.Float32, shape...)
	for i := range t.Len() {
		t.Set(i, rng.NormFloat64()/10)
	}
	return constant(name, t)
}

func constant(name string, t *model.Tensor) *model.Value {
	return &model.Value{Name: name, DType: t.DType, Shape: t.Shape, Const: model.NewConst(t)}
}

func (b *builder) conv(name string, x *model.Value, out, in, k int) *model.Value {
	return b.node("Conv", name, model.Attrs{"kernel_shape": []int{k, k}, "pads": []int{k / 2, k / 2, k / 2, k / 2}, "strides": []int{1, 1}, "dilations": []int{1, 1}, "group": 1},
		x, weights(name+".weight", out, in, k, k), weights(name+".bias", out))
}

func (b *builder) finish(t *testing.T, outs ...*model.Value) *model.Graph {
	t.Helper()
	b.g.Outputs = outs
	if err := ops.InferGraph(b.g); err != nil {
		t.Fatal(err)
	}
	return b.g
}

// residualNet has what activation rules distinguish: convolutions with and
// without an activation, a residual add, pooling, concat, views, a product
// with a constant, softmax.
func residualNet(t *testing.T) *model.Graph {
	b, x := newGraph(1, 16, 8, 8)
	c1 := b.node("Relu", "relu1", nil, b.conv("conv1", x, 16, 16, 3))
	c2 := b.conv("conv2", c1, 16, 16, 1)
	add := b.node("Add", "add", nil, c2, c1)
	pool := b.node("MaxPool", "pool", model.Attrs{"kernel_shape": []int{2, 2}, "strides": []int{2, 2}}, add)
	c3 := b.node("Sigmoid", "sigmoid", nil, b.conv("conv3", pool, 16, 16, 1))
	mul := b.node("Mul", "mul", nil, pool, c3)
	cat := b.node("Concat", "concat", model.Attrs{"axis": 1}, mul, pool)
	gap := b.node("GlobalAveragePool", "gap", nil, cat)
	flat := b.node("Flatten", "flatten", model.Attrs{"axis": 1}, gap)
	fc := b.node("MatMul", "fc", nil, flat, weights("fc.weight", 32, 80))
	bias := b.node("Add", "fc_bias", nil, fc, weights("fc.bias", 80))
	return b.finish(t, b.node("Softmax", "softmax", model.Attrs{"axis": 1}, bias))
}

func mustParse(t *testing.T, name string) Scheme {
	t.Helper()
	s, err := Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// noRanges fails the test when a range is asked for.
type noRanges struct{ t *testing.T }

func (n noRanges) Range(v string) (Range, error) {
	n.t.Errorf("the range of %q was asked for", v)
	return Range{}, errors.New("no")
}

// TestZoo applies schemes to built-in networks without computing a weight or a
// range, and keeps the original as it was.
func TestZoo(t *testing.T) {
	for name, want := range map[string]map[string]int{ // int8 layers by scheme
		"mobilenet_v2": {"fp16": 0, "w8": 0, "w8a8": 53, "w8a8-ptq": 43, "p4": 0, "s50+w8": 0, "w4b32": 0},
		"resnet50":     {"fp16": 0, "w8": 0, "w8a8": 54, "w8a8-ptq": 54, "p4": 0, "s50+w8": 0, "w4b32": 0},
		"mobilevit_v2": {"fp16": 0, "w8": 0, "w8a8": 68, "w8a8-ptq": 63, "p4": 0, "s50+w8": 0, "w4b32": 0},
	} {
		g, err := zoo.Build(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := passes.Default(g); err != nil {
			t.Fatal(err)
		}
		for _, v := range g.Consts() {
			if _, ok := v.Const.Storage.(*model.Lazy); ok {
				v.Const = model.NewLazy(v.Const.DType, v.Const.Shape, func() (*model.Tensor, error) {
					t.Errorf("%s: the values of %s were computed", name, v.Name)
					return nil, errors.New("no")
				})
			}
		}
		nodes, params := len(g.Nodes), g.Params()
		for scheme, int8s := range want {
			out, r, err := Apply(g, mustParse(t, scheme), Options{Ranges: noRanges{t}})
			if err != nil {
				t.Fatal(err)
			}
			if err := out.Validate(true); err != nil {
				t.Fatal(err)
			}
			net, err := model.Lower(out)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, l := range net.Layers {
				if l.Int8(l.Kind) {
					n++
				}
				if l.Float32 {
					t.Errorf("%s %s: layer %q is fp32", name, scheme, l.Name)
				}
			}
			if n != int8s {
				t.Errorf("%s %s: %d int8 layers, want %d", name, scheme, n, int8s)
			}
			if out.Params() != params {
				t.Errorf("%s %s: %d parameters, had %d", name, scheme, out.Params(), params)
			}
			var after int64
			for _, w := range r.Weights {
				after += w.BytesAfter
			}
			if after > r.BytesAfter {
				t.Errorf("%s %s: %d bytes of weights, %d in all", name, scheme, after, r.BytesAfter)
			}
			if _, _, err := Apply(g, mustParse(t, scheme), Options{Ranges: noRanges{t}}); err != nil {
				t.Fatal(err)
			}
		}
		if len(g.Nodes) != nodes || g.Inputs[0].DType != model.Float32 || g.Params() != params {
			t.Errorf("%s: Apply changed its argument", name)
		}
	}
}

// edges describes, for every node that is no quantize or dequantize operator,
// how its operands and its result are carried: "q" quantised, "-" float.
func edges(g *model.Graph) map[string]string {
	consumers := g.Consumers()
	m := map[string]string{}
	for _, n := range g.Nodes {
		if n.Op == "QuantizeLinear" || n.Op == "DequantizeLinear" {
			continue
		}
		var b strings.Builder
		for _, v := range n.Inputs {
			switch {
			case v == nil || v.Const != nil:
			case v.Producer != nil && v.Producer.Op == "DequantizeLinear", !v.DType.IsFloat():
				b.WriteByte('q')
			default:
				b.WriteByte('-')
			}
		}
		b.WriteByte('>')
		y := n.Outputs[0]
		out := byte('-')
		if !y.DType.IsFloat() {
			out = 'q'
		}
		for _, c := range consumers[y] {
			if c.Op == "QuantizeLinear" {
				out = 'q'
			}
		}
		b.WriteByte(out)
		name := n.Name
		if !y.DType.IsFloat() { // a view on codes; coremltools renames it
			name = string(n.Op)
		}
		m[name] = b.String()
	}
	return m
}

func TestActivationRules(t *testing.T) {
	g := residualNet(t)
	for scheme, want := range map[string]map[string]string{
		"w8a8": {"conv1": "q>-", "relu1": "->q", "conv2": "q>q", "add": "qq>q", "pool": "q>q", "conv3": "q>-", "sigmoid": "->q", "mul": "qq>q",
			"concat": "qq>q", "gap": "q>q", "Flatten": "q>q", "fc": "q>-", "fc_bias": "->q", "softmax": "q>-"},
		"w8a8-ptq": {"conv1": "q>-", "relu1": "->q", "conv2": "q>q", "add": "qq>q", "pool": "q>q", "conv3": "q>-", "sigmoid": "->q", "mul": "qq>-",
			"concat": "-q>-", "gap": "->-", "flatten": "->q", "fc": "q>-", "fc_bias": "->q", "softmax": "q>-"},
	} {
		out, r, err := Apply(g, mustParse(t, scheme), Options{Ranges: noRanges{t}})
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Validate(true); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, edges(out)); d != "" {
			t.Errorf("%s: (-want +got)\n%s", scheme, d)
		}
		if r.Quantized == 0 {
			t.Errorf("%s: the report counts no quantised tensor", scheme)
		}
	}
	// A skipped operator asks for nothing; its neighbours still do.
	s := mustParse(t, "w8a8")
	s.Activations.SkipTypes = map[string]bool{"softmax": true, "add": true}
	s.Activations.SkipNames = map[string]bool{"conv1": true}
	out, r, err := Apply(g, s, Options{Ranges: noRanges{t}})
	if err != nil {
		t.Fatal(err)
	}
	e := edges(out)
	for name, want := range map[string]string{"conv1": "->q", "relu1": "q>q", "add": "qq>q", "fc": "q>q", "fc_bias": "q>-", "softmax": "->-"} {
		if e[name] != want {
			t.Errorf("with skips, %s: %s, want %s", name, e[name], want)
		}
	}
	if len(r.Ops) != 4 {
		t.Errorf("float operators reported: %v", r.Ops)
	}
}

// TestSharedScales: concat, pooling and views have one scale for inputs and
// result, a fixed one where coremltools fixes it, and unsigned codes where
// nothing is negative.
func TestSharedScales(t *testing.T) {
	g := residualNet(t)
	out, _, err := Apply(g, mustParse(t, "w8a8"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	scale := map[string]*model.Value{}
	code := map[string]model.DType{}
	for _, n := range out.Nodes {
		if n.Op == "QuantizeLinear" {
			scale[n.In(0).Name], code[n.In(0).Name] = n.In(1), n.Out(0).DType
		}
		if n.Op == "Flatten" && n.Out(0).DType.IsFloat() {
			t.Errorf("flatten works on %s", n.Out(0).DType)
		}
	}
	for _, v := range []string{"concat_out", "mul_out", "gap_out", "add_out"} {
		if scale[v] != scale["pool_out"] || scale[v] == nil {
			t.Errorf("%s has a scale of its own", v)
		}
	}
	if scale["x"] == scale["pool_out"] {
		t.Error("the input shares the scale of the pool")
	}
	if code["relu1_out"] != model.UInt8 || code["x"] != model.Int8 || code["conv2_out"] != model.Int8 || code["sigmoid_out"] != model.UInt8 {
		t.Errorf("code types %v", code)
	}
	s, err := scale["sigmoid_out"].Const.Value()
	if err != nil || s.At(0) != 1.0/256 {
		t.Errorf("scale behind the sigmoid: %v, %v; want 1/256", s, err)
	}
}

// run evaluates a graph on the reference executor.
func run(t *testing.T, g *model.Graph, in map[string]*model.Tensor) []float64 {
	t.Helper()
	out, err := ops.EvalGraph(context.Background(), g, in, ops.Options{})
	if err != nil {
		t.Fatal(err)
	}
	y := out[g.Outputs[0].Name]
	v := make([]float64, y.Len())
	for i := range v {
		v[i] = y.At(i)
	}
	return v
}

// TestQuantizedResults executes compressed graphs: they stay close to the
// original on the inputs they were calibrated on.
func TestQuantizedResults(t *testing.T) {
	g := residualNet(t)
	in, err := seededInputs(g, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := run(t, g, in)
	half := map[string]*model.Tensor{"x": in["x"].Convert(model.Float16)}
	for scheme, least := range map[string]float64{"fp16": 60, "w8": 40, "w8a8": 25, "w8a8-ptq": 25, "w8a8+fp32": 25, "a8-lin": 25, "w4b16": 20, "p6": 30, "p8": 40} {
		out, _, err := Apply(g, mustParse(t, scheme), Options{})
		if err != nil {
			t.Fatal(err)
		}
		x := half
		if out.Inputs[0].DType == model.Float32 {
			x = in
		}
		got := run(t, out, x)
		var e, p float64
		for i := range got {
			d := got[i] - want[i]
			e, p = e+d*d, p+want[i]*want[i]
		}
		if snr := 10 * math.Log10(p/e); !(snr >= least) {
			t.Errorf("%s: %.1f dB, want at least %g", scheme, snr, least)
		}
	}
}

func TestCastProgram(t *testing.T) {
	b, x := newGraph(1, 1, 4, 4)
	roi := &model.Value{Name: "roi", DType: model.Float32, Shape: model.Shape{0}, Const: model.NewConst(model.NewTensor(model.Float32, 0))}
	up := b.node("Resize", "up", model.Attrs{"mode": "nearest"}, x, roi, constant("scales", model.Of([]float32{1, 1, 1.83335, 2.142871})))
	big := b.node("Add", "big", nil, up, constant("c", model.Of([]float32{1e6, -7e4, 1, float32(math.Inf(-1)), 3e38, 0, 0, 0}, 8)))
	g := b.finish(t, big)
	out, r, err := Apply(g, mustParse(t, "fp16"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := out.Nodes[0].In(2).DType; d != model.Float32 {
		t.Errorf("the scales of Resize became %s", d)
	}
	for _, v := range []*model.Value{out.Inputs[0], out.Outputs[0], out.Nodes[1].In(1)} {
		if v.DType != model.Float16 {
			t.Errorf("%s is %s", v.Name, v.DType)
		}
	}
	c, err := out.Nodes[1].In(1).Const.Value()
	if err != nil {
		t.Fatal(err)
	}
	if got := []float64{c.At(0), c.At(1), c.At(2), c.At(3), c.At(4)}; !slices.Equal(got, []float64{65504, -65504, 1, math.Inf(-1), math.Inf(1)}) {
		t.Errorf("got %v", got)
	}
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "2 values beyond 65504") {
		t.Errorf("notes %q", r.Notes)
	}
	if out, _, err = Apply(g, mustParse(t, "fp32"), Options{}); err != nil || out.Inputs[0].DType != model.Float32 {
		t.Errorf("fp32: %v %v", out.Inputs[0], err)
	}
}

// TestSkipRules: what is compressed, and the reason given for the rest.
func TestSkipRules(t *testing.T) {
	b, x := newGraph(1, 32, 4, 4)
	y := b.conv("wide", x, 64, 32, 3)                                 // 18432 elements
	y = b.conv("edge", y, 32, 64, 1)                                  // 2048: not above the threshold
	y = b.conv("odd", y, 96, 32, 1)                                   // 3072
	y = b.conv("thin", y, 33, 96, 1)                                  // 3168, 33 outputs
	y = b.conv("uneven", y, 64, 33, 1)                                // 2112, 33 inputs
	y = b.node("Add", "plus", nil, y, weights("table", 64, 64, 4, 4)) // a big constant that is no weight
	g := b.finish(t, y)
	for scheme, want := range map[string]map[string]string{
		"w8": {"wide.weight": "int8 per_channel linear_symmetric", "edge.weight": "!weight_threshold 2048: 2048 elements", "odd.weight": "int8", "thin.weight": "int8",
			"uneven.weight": "int8", "wide.bias": "!rank below 2", "table": "int8"},
		"w4b32":    {"wide.weight": "int4 per_block(32)", "uneven.weight": "!axis 1 of [64,33,1,1] is not divisible by block size 32"},
		"p4g16":    {"wide.weight": "4-bit kmeans palette per_grouped_channel(16)", "thin.weight": "!group_size 16 does not divide the 33 channels", "table": "4-bit"},
		"s2:4":     {"wide.weight": "2:4 sparse on axis 1", "table": "!blocks and n:m"},
		"s50b64":   {"wide.weight": "!block_size 64 is more than half of the 64 channels", "odd.weight": "!block_size 64"},
		"p-unique": {"wide.weight": "!"},
	} {
		_, r, err := Apply(g, mustParse(t, scheme), Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]WeightReport{}
		for _, w := range r.Weights {
			got[w.Name] = w
		}
		for name, text := range want {
			w := got[name]
			reason, skip := strings.CutPrefix(text, "!")
			if skip && (w.Scheme != "" || !strings.Contains(w.Skipped, reason)) || !skip && !strings.HasPrefix(w.Scheme, text) {
				t.Errorf("%s %s: stored as %q, skipped %q; want %q", scheme, name, w.Scheme, w.Skipped, text)
			}
		}
		var text strings.Builder
		if err := r.WriteText(&text, false); err != nil || !strings.Contains(text.String(), "left alone") || !strings.Contains(text.String(), "ratio") {
			t.Errorf("%s: %v\n%s", scheme, err, text.String())
		}
	}
}

// TestPrecedence: name before type before global, null skips, and readers of
// one constant have to agree.
func TestPrecedence(t *testing.T) {
	b, x := newGraph(1, 64)
	w := weights("shared", 64, 64)
	y := b.node("MatMul", "a", nil, x, w)
	y = b.node("MatMul", "b", nil, y, w)
	y = b.node("Gemm", "c", model.Attrs{"transB": 1}, y, weights("cw", 64, 64))
	y = b.node("Gemm", "d", nil, y, weights("dw", 64, 64))
	y = b.node("MatMul", "e", nil, y, weights("ew", 64, 64))
	g := b.finish(t, y)
	schemes := func(text string) (map[string]string, error) {
		s, err := ReadConfig(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		_, r, err := Apply(g, s, Options{})
		if err != nil {
			return nil, err
		}
		m := map[string]string{}
		for _, w := range r.Weights {
			m[w.Name] = w.Scheme
		}
		return m, nil
	}
	got, err := schemes(`
config_type: OpLinearQuantizerConfig
global_config: {}
op_type_configs: {linear: {dtype: int4}, matmul: {dtype: uint8}}
op_name_configs: {d: null, ew: {dtype: uint4}}
`)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"shared": "uint8", "cw": "int4", "dw": "", "ew": "uint4"} {
		if !strings.HasPrefix(got[name], want) || want == "" && got[name] != "" {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if _, err = schemes("config_type: OpLinearQuantizerConfig\nglobal_config: {}\nop_name_configs: {a: null}\n"); err == nil ||
		!strings.Contains(err.Error(), `constant "shared" is read by "a" and "b"`) {
		t.Errorf("disagreeing readers: %v", err)
	}
	got, err = schemes("config_type: OpLinearQuantizerConfig\nop_type_configs: {Gemm: {}}\n")
	if err != nil || got["shared"] != "" || got["cw"] == "" {
		t.Errorf("no global configuration: %v, %v", got, err)
	}
	// Per-channel axes: rows with transB, columns without.
	out, _, err := Apply(g, mustParse(t, "w8"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []model.Shape{{1, 64}, {1, 64}, {64, 1}, {1, 64}, {1, 64}} {
		if s := out.Nodes[i].In(1).Const.Storage.(*model.Affine).Scale.Shape; !s.Equal(want) {
			t.Errorf("node %s: scale of shape %v, want %v", out.Nodes[i].Name, s, want)
		}
	}
}

// TestFoldDequantize: the weights of QDQ models become affine constants, and
// their float values are those of the operator.
func TestFoldDequantize(t *testing.T) {
	b, x := newGraph(1, 4, 2, 2)
	codes := model.NewTensor(model.Int8, 4, 4, 1, 1)
	for i := range 16 {
		codes.SetInt(i, int64(i*7%50-20))
	}
	w := b.node("DequantizeLinear", "dqw", model.Attrs{"axis": 0}, constant("codes", codes), constant("s", model.Of([]float32{0.1, 0.2, 0.3, 0.4})),
		constant("z", model.Of([]int8{0, 1, 2, 3})))
	bias := b.node("DequantizeLinear", "dqb", model.Attrs{"axis": 0}, constant("bcodes", model.Of([]int32{1000, -2000, 3, 4})), constant("bs", model.Of([]float32{1e-3, 1e-3, 1e-3, 1e-6})))
	y := b.node("Conv", "conv", model.Attrs{"kernel_shape": []int{1, 1}, "pads": []int{0, 0, 0, 0}, "strides": []int{1, 1}, "dilations": []int{1, 1}, "group": 1}, x, w, bias)
	g := b.finish(t, y)
	in, _ := seededInputs(g, 0)
	want := run(t, g, in)
	out, r, err := Apply(g, Scheme{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Nodes) != 1 || out.Nodes[0].In(1).Const.Storage.Form() != model.FormAffine || len(r.Notes) != 1 {
		t.Fatalf("%d nodes, notes %q", len(out.Nodes), r.Notes)
	}
	if got := run(t, out, in); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// In fp16 the bias keeps its value although its scale is no fp16 number.
	out, _, err = Apply(g, mustParse(t, "fp16"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := out.Nodes[0].In(2).Const.Value()
	if err != nil || v.DType != model.Float16 || v.At(1) != -2 || v.At(3) == 0 {
		t.Errorf("bias %v %v", v, err)
	}
}

// faulty is a source whose third sample cannot be read.
type faulty struct{}

func (faulty) Len() int { return 4 }

func (faulty) Sample(i int) (map[string]*model.Tensor, error) {
	if i == 2 {
		return nil, errors.New("no such image")
	}
	return map[string]*model.Tensor{"x": model.Of([]float32{1, 2, 3, 4})}, nil
}

func TestCalibrate(t *testing.T) {
	b, x := newGraph(4)
	g := b.finish(t, b.node("Neg", "neg", nil, x))
	sample := func(v ...float32) map[string]*model.Tensor {
		return map[string]*model.Tensor{"x": model.Of(v)}
	}
	c := Calibration{Samples: Slice{sample(0, 1, 2, 3), sample(-1, 0, 0, 5)}}
	m, err := Calibrate(context.Background(), g, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := (RangeMap{"x": {-1, 5}, "neg_out": {-5, 1}}); !cmp.Equal(m, want) {
		t.Errorf("minmax: %v", m)
	}
	c.Method = MovingAverage
	if m, err = Calibrate(context.Background(), g, c, nil); err != nil {
		t.Fatal(err)
	}
	if want := (Range{-0.1, 0.9*3 + 0.1*5}); math.Abs(m["x"].Min-want.Min) > 1e-6 || math.Abs(m["x"].Max-want.Max) > 1e-6 {
		t.Errorf("moving average: %v, want %v", m["x"], want)
	}
	for name, c := range map[string]struct {
		samples Slice
		want    string
	}{
		"empty set":   {Slice{}, "calibration set is empty"},
		"NaN":         {Slice{sample(0, 1, 2, 3), sample(0, float32(math.NaN()), 0, 0)}, `sample 1: the tensor "x" has values that are not finite`},
		"infinity":    {Slice{sample(0, float32(math.Inf(1)), 0, 0)}, "not finite"},
		"wrong name":  {Slice{{"y": model.Of([]float32{1})}}, `input "x"`},
		"wrong shape": {Slice{{"x": model.Of([]float32{1})}}, `"x"`},
	} {
		if _, err := Calibrate(context.Background(), g, Calibration{Samples: c.samples}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A sample that cannot be read ends the calibration with its error.
	if _, err := Calibrate(context.Background(), g, Calibration{Samples: faulty{}}, nil); err == nil || err.Error() != "quant: calibration sample 2: no such image" {
		t.Errorf("faulty source: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Calibrate(ctx, g, Calibration{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, name := range append(Methods(), "", "kl", "min_max") {
		if _, err := ParseMethod(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := ParseMethod("average"); err == nil || !strings.Contains(err.Error(), "entropy") {
		t.Errorf("unknown method: %v", err)
	}
}

// TestCalibrationMethods: on a heavy-tailed tensor every clipping method gives
// a smaller range than minimum and maximum, and MSE the least squared error;
// the result does not depend on threads or on the order of samples.
func TestCalibrationMethods(t *testing.T) {
	b, x := newGraph(20000)
	g := b.finish(t, b.node("Neg", "neg", nil, x))
	rng := rand.New(rand.NewPCG(9, 9))
	var samples Slice
	var all []float64
	for range 6 {
		v := make([]float32, 20000)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
			if rng.IntN(20000) == 0 {
				v[i] *= 60
			}
			all = append(all, float64(v[i]))
		}
		samples = append(samples, map[string]*model.Tensor{"x": model.Of(v)})
	}
	errorOf := func(r Range) float64 {
		s := max(-r.Min, r.Max) / 127
		var e float64
		for _, v := range all {
			q := min(max(math.RoundToEven(v/s), -127), 127) * s
			e += (v - q) * (v - q)
		}
		return e
	}
	ranges := map[Method]Range{}
	for m := MinMax; m < numMethods; m++ {
		r, err := Calibrate(context.Background(), g, Calibration{Samples: samples, Method: m, Threads: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		other := slices.Clone(samples)
		if m != MovingAverage { // it alone depends on the order
			slices.Reverse(other)
		}
		p, err := Calibrate(context.Background(), g, Calibration{Samples: other, Method: m, Threads: 4}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(r, p) {
			t.Errorf("%s: %v with one thread, %v with four", m, r, p)
		}
		ranges[m] = r["x"]
	}
	for _, m := range []Method{Percentile, Entropy} { // MSE weighs outliers by their square
		if w := ranges[m].Max - ranges[m].Min; w > 0.8*(ranges[MinMax].Max-ranges[MinMax].Min) || w < 4 {
			t.Errorf("%s: %v, minmax %v", m, ranges[m], ranges[MinMax])
		}
	}
	for m, r := range ranges {
		if errorOf(ranges[MSE]) > 1.02*errorOf(r) {
			t.Errorf("mse: error %g, %s has %g", errorOf(ranges[MSE]), m, errorOf(r))
		}
	}
}

// TestLazyOnce: the ranges are asked for once, concurrently.
func TestLazyOnce(t *testing.T) {
	n := 0
	r := RangeFunc(func() (RangeMap, error) { n++; return RangeMap{"a": {-1, 2}, "bad": {2, math.Inf(1)}}, nil })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if x, err := r.Range("a"); err != nil || x != (Range{-1, 2}) {
				t.Errorf("%v %v", x, err)
			}
		})
	}
	wg.Wait()
	if n != 1 {
		t.Errorf("asked %d times", n)
	}
	for _, name := range []string{"b", "bad"} {
		if _, err := r.Range(name); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	g, err := zoo.Build("resnet50")
	if err != nil {
		b.Fatal(err)
	}
	if err := passes.Default(g); err != nil {
		b.Fatal(err)
	}
	s, err := Parse("w8a8")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := Apply(g, s, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// Eager computes everything, says how far it is, and names what is at fault.
func TestEager(t *testing.T) {
	calls, last := 0, 0
	o := Options{Eager: true, Progress: func(done, total int) {
		if calls++; done != calls || total < done {
			t.Errorf("call %d: %d of %d", calls, done, total)
		}
		last = total
	}}
	out, _, err := Apply(residualNet(t), mustParse(t, "s50+w8+a8"), o)
	if err != nil {
		t.Fatal(err)
	}
	if calls == 0 || calls != last {
		t.Errorf("%d calls for %d arrays", calls, last)
	}
	if n := len(lazyParts(out.Consts())); n > 0 {
		t.Errorf("%d arrays are not computed", n)
	}
	g := linearGraph(model.NewLazy(model.Float32, model.Shape{64, 64}, func() (*model.Tensor, error) {
		x := model.NewTensor(model.Float32, 64, 64)
		x.Set(70, math.NaN())
		return x, nil
	}))
	if _, _, err := Apply(g, mustParse(t, "w8"), Options{Eager: true}); err == nil || err.Error() != `quant: constant "w": not finite: element [1,6] is NaN` {
		t.Errorf("NaN in a computed weight: %v", err)
	}
}

// Names and types that a configuration mentions and the model does not have
// are noted.
func TestUnmatchedNames(t *testing.T) {
	s, err := ReadConfig(strings.NewReader(`
config_type: OpLinearQuantizerConfig
op_type_configs: {conv: {dtype: int8}, MatMul: null, convv: null}
op_name_configs: {conv1: null, conv2.weight: null, conv9: null}
activations: {op_type_configs: {softmax: null, sofmax: null}, op_name_configs: {add: null, ad: null}}
`))
	if err != nil {
		t.Fatal(err)
	}
	_, r, err := Apply(residualNet(t), s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`the configuration is for operators of type "convv", which the model does not have`,
		`the configuration is for an operator or constant "conv9", which the model does not have`,
		`the configuration is for operators of type "sofmax", which the model does not have`,
		`the configuration is for an operator or constant "ad", which the model does not have`,
	}
	if d := cmp.Diff(want, r.Notes); d != "" {
		t.Errorf("notes (-want +got)\n%s", d)
	}
}
