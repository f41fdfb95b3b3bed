package coreml

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// prog builds an ML program operation by operation, for tests of the
// translation. It describes outputs as the test expects them; the reader
// compares that with what it infers.
type prog struct {
	fn     *function
	inputs map[string]*model.Tensor
	want   map[string]*model.Tensor
}

func newProg() *prog {
	return &prog{fn: &function{opset: "CoreML8", block: &block{}}, inputs: map[string]*model.Tensor{}, want: map[string]*model.Tensor{}}
}

// args are the operands of an operation: a string is the name of a value, a
// []string several; str, ints, numbers and tensors are constants.
type args map[string]any

type str string

// in adds an input with a value.
func (p *prog) in(name string, t *model.Tensor) *prog {
	p.inputs[name] = t
	p.fn.inputs = append(p.fn.inputs, named{name, tensorType(t.DType, t.Shape)})
	return p
}

// op adds an operation whose outputs have the given values; a nil value is an
// output of shape s nobody checks.
func (p *prog) op(typ string, a args, outs ...namedTensor) *prog {
	p.fn.block.ops = append(p.fn.block.ops, milOp(typ, a, outs...))
	for _, o := range outs {
		if !o.inner {
			p.fn.block.outputs = append(p.fn.block.outputs, o.name)
			p.want[o.name] = o.t
		}
	}
	return p
}

type namedTensor struct {
	name  string
	t     *model.Tensor
	inner bool // no output of the program
}

func out(name string, t *model.Tensor) namedTensor   { return namedTensor{name, t, false} }
func inner(name string, t *model.Tensor) namedTensor { return namedTensor{name, t, true} }

func milOp(typ string, a args, outs ...namedTensor) *operation {
	o := &operation{typ: typ, title: outs[0].name + "_op"}
	for _, k := range slices.Sorted(maps.Keys(a)) {
		arg := argument{key: k}
		switch v := a[k].(type) {
		case string:
			arg.args = []binding{{name: v}}
		case []string:
			for _, s := range v {
				arg.args = append(arg.args, binding{name: s})
			}
		case *model.Tensor:
			arg.args = []binding{{val: immediate(v)}}
		case []*model.Tensor:
			for _, x := range v {
				arg.args = append(arg.args, binding{val: immediate(x)})
			}
		case str:
			arg.args = []binding{{val: immediate(&model.Tensor{DType: model.String, Shape: model.Shape{}, Strings: []string{string(v)}})}}
		case bool:
			t := model.NewTensor(model.Bool)
			t.SetInt(0, int64(b2i(v)))
			arg.args = []binding{{val: immediate(t)}}
		case int:
			arg.args = []binding{{val: immediate(model.Scalar(int32(v)))}}
		case float64:
			arg.args = []binding{{val: immediate(model.Scalar(float32(v)))}}
		case []int:
			t := model.NewTensor(model.Int32, len(v))
			for i, x := range v {
				t.SetInt(i, int64(x))
			}
			arg.args = []binding{{val: immediate(t)}}
		case []bool:
			t := model.NewTensor(model.Bool, len(v))
			for i, x := range v {
				t.SetInt(i, int64(b2i(x)))
			}
			arg.args = []binding{{val: immediate(t)}}
		default:
			panic(fmt.Sprintf("%T", v))
		}
		o.inputs = append(o.inputs, arg)
	}
	for _, n := range outs {
		o.outputs = append(o.outputs, named{n.name, tensorType(n.t.DType, n.t.Shape)})
	}
	return o
}

// check encodes the program, reads it, runs it in float64 and compares; then
// it writes the graph, reads that, and compares again, where it can be
// written.
func (p *prog) check(t *testing.T) {
	t.Helper()
	g := p.read(t)
	p.compare(t, g, "read")
	for _, n := range g.Nodes {
		if !Writable(n.Op) || g.Validate(true) != nil {
			return
		}
	}
	dir := t.TempDir() + "/x.mlpackage"
	if err := Save(dir, g, Options{}); err != nil {
		if strings.Contains(err.Error(), "depends on data") {
			return // the writer takes constants there
		}
		t.Fatal(err)
	}
	back, err := Load(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.compare(t, back, "written and read")
}

// read encodes the program and reads it.
func (p *prog) read(t *testing.T) *model.Graph {
	t.Helper()
	m := &specModel{version: 9, program: &program{version: 1, names: []string{"main"}, functions: map[string]*function{"main": p.fn}}}
	g, err := Read(m.encode(), nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (p *prog) compare(t *testing.T, g *model.Graph, how string) {
	t.Helper()
	got, err := ops.EvalGraph(context.Background(), g, p.inputs, ops.Options{Float64: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range p.want {
		x := got[name]
		if x == nil {
			t.Fatalf("%s: no output %s", how, name)
		}
		if !x.Shape.Equal(want.Shape) {
			t.Fatalf("%s: output %s has shape %v, want %v", how, name, x.Shape, want.Shape)
		}
		for i := range want.Len() {
			if a, b := x.At(i), want.At(i); math.Abs(a-b) > 1e-5*(1+math.Abs(b)) || math.IsNaN(a) != math.IsNaN(b) {
				t.Fatalf("%s: output %s is %v at %d, want %v", how, name, a, i, b)
			}
		}
	}
}

func f32(shape []int, v ...float64) *model.Tensor {
	t := model.NewTensor(model.Float32, shape...)
	if len(v) != t.Len() {
		panic(fmt.Sprintf("%d values for %v", len(v), shape))
	}
	for i, x := range v {
		t.Set(i, x)
	}
	return t
}

func i32(shape []int, v ...int) *model.Tensor {
	t := model.NewTensor(model.Int32, shape...)
	if len(v) != t.Len() {
		panic(fmt.Sprintf("%d values for %v", len(v), shape))
	}
	for i, x := range v {
		t.SetInt(i, int64(x))
	}
	return t
}

// ramp counts from 1.
func ramp(shape ...int) *model.Tensor {
	t := model.NewTensor(model.Float32, shape...)
	for i := range t.Len() {
		t.Set(i, float64(i+1))
	}
	return t
}

// each applies f to every element.
func each(t *model.Tensor, f func(float64) float64) *model.Tensor {
	out := model.NewTensor(t.DType, t.Shape...)
	for i := range t.Len() {
		out.Set(i, f(t.At(i)))
	}
	return out
}

// at builds a tensor from a function of the index.
func fromIndex(shape []int, f func(i []int) float64) *model.Tensor {
	t := model.NewTensor(model.Float32, shape...)
	i := make([]int, len(shape))
	for k := range t.Len() {
		t.Set(k, f(i))
		for a := len(i) - 1; a >= 0; a-- {
			if i[a]++; i[a] < shape[a] {
				break
			}
			i[a] = 0
		}
	}
	return t
}

// get reads an element by index.
func get(t *model.Tensor, i ...int) float64 {
	k := 0
	for a, x := range i {
		k = k*t.Shape[a] + x
	}
	return t.At(k)
}

func TestElementwiseTranslation(t *testing.T) {
	x := f32([]int{6}, -7, -3, -0.5, 0, 2, 7)
	sigmoid := func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }
	for _, c := range []struct {
		typ string
		a   args
		f   func(float64) float64
	}{
		{"clamped_relu", args{"alpha": 0.5, "beta": 3.0}, func(v float64) float64 {
			if v < 0 {
				v *= 0.5
			}
			return min(v, 3)
		}},
		{"linear_activation", args{"alpha": 2.0, "beta": -1.0}, func(v float64) float64 { return 2*v - 1 }},
		{"scaled_tanh", args{"alpha": 2.0, "beta": 0.5}, func(v float64) float64 { return 2 * math.Tanh(v/2) }},
		{"thresholded_relu", args{"alpha": -3.0}, func(v float64) float64 {
			if v >= -3 {
				return v
			}
			return 0
		}},
		{"sigmoid_hard", args{"alpha": 0.2, "beta": 0.5}, func(v float64) float64 { return max(0, min(1, 0.2*v+0.5)) }},
		{"silu", nil, func(v float64) float64 { return v * sigmoid(v) }},
		{"gelu", args{"mode": str("EXACT")}, func(v float64) float64 { return v / 2 * (1 + math.Erf(v/math.Sqrt2)) }},
		{"gelu", args{"mode": str("TANH_APPROXIMATION")}, func(v float64) float64 {
			return v / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
		}},
		{"gelu", args{"mode": str("SIGMOID_APPROXIMATION")}, func(v float64) float64 { return v * sigmoid(1.702*v) }},
		{"elu", args{"alpha": 0.5}, func(v float64) float64 {
			if v < 0 {
				return 0.5 * math.Expm1(v)
			}
			return v
		}},
		{"relu6", nil, func(v float64) float64 { return max(0, min(6, v)) }},
		{"clip", args{"alpha": -1.0, "beta": 1.5}, func(v float64) float64 { return max(-1, min(1.5, v)) }},
		{"threshold", args{"alpha": 1.0}, func(v float64) float64 { return max(1, v) }},
		{"exp2", nil, math.Exp2},
		{"square", nil, func(v float64) float64 { return v * v }},
		{"inverse", args{"epsilon": 0.25}, func(v float64) float64 { return 1 / (v + 0.25) }},
		{"softsign", nil, func(v float64) float64 { return v / (1 + math.Abs(v)) }},
		{"round", nil, math.RoundToEven},
		{"sign", nil, func(v float64) float64 { return float64(b2i(v > 0) - b2i(v < 0)) }},
	} {
		t.Run(fmt.Sprint(c.typ, c.a), func(t *testing.T) {
			a := args{"x": "x"}
			maps.Copy(a, c.a)
			newProg().in("x", x).op(c.typ, a, out("y", each(x, c.f))).check(t)
		})
	}
	pos := f32([]int{3}, 0.5, 1, 4)
	t.Run("rsqrt", func(t *testing.T) {
		newProg().in("x", pos).op("rsqrt", args{"x": "x", "epsilon": 0.5}, out("y", each(pos, func(v float64) float64 { return 1 / math.Sqrt(v+0.5) }))).check(t)
	})
	t.Run("log", func(t *testing.T) {
		newProg().in("x", pos).op("log", args{"x": "x", "epsilon": 0.5}, out("y", each(pos, func(v float64) float64 { return math.Log(v + 0.5) }))).check(t)
	})
	t.Run("parametric", func(t *testing.T) {
		x := f32([]int{1, 2, 1, 2}, -1, 2, -3, 4)
		newProg().in("x", x).
			op("softplus_parametric", args{"x": "x", "alpha": f32([]int{2}, 1, 2), "beta": f32([]int{2}, 0.5, 1)}, out("p", fromIndex(x.Shape, func(i []int) float64 {
				a, b := float64(1+i[1]), 0.5*float64(1+i[1])
				return a * math.Log1p(math.Exp(b*get(x, i...)))
			}))).
			op("prelu", args{"x": "x", "alpha": f32([]int{2}, 0.5, 0.25)}, out("q", f32(x.Shape, -0.5, 2, -0.75, 4))).check(t)
	})
	t.Run("mod and floor_div", func(t *testing.T) {
		a, b := f32([]int{4}, 7, -7, 7, -7), f32([]int{4}, 3, 3, -3, -3)
		ai, bi := i32([]int{4}, 7, -7, 7, -7), i32([]int{4}, 3, 3, -3, -3)
		newProg().in("a", a).in("b", b).in("ai", ai).in("bi", bi).
			op("mod", args{"x": "a", "y": "b"}, out("m", f32([]int{4}, 1, 2, -2, -1))).
			op("floor_div", args{"x": "a", "y": "b"}, out("d", f32([]int{4}, 2, -3, -3, 2))).
			op("mod", args{"x": "ai", "y": "bi"}, out("mi", i32([]int{4}, 1, 2, -2, -1))).
			op("floor_div", args{"x": "ai", "y": "bi"}, out("di", i32([]int{4}, 2, -3, -3, 2))).check(t)
	})
	t.Run("select and compare", func(t *testing.T) {
		a, b := f32([]int{3}, 1, 2, 3), f32([]int{3}, 3, 2, 1)
		p := newProg().in("a", a).in("b", b)
		m := model.NewTensor(model.Bool, 3)
		m.SetInt(0, 1)
		m.SetInt(2, 1)
		p.op("not_equal", args{"x": "a", "y": "b"}, inner("ne", m)).
			op("select", args{"cond": "ne", "a": "a", "b": f32([]int{3}, 9, 9, 9)}, out("s", f32([]int{3}, 1, 9, 3))).
			op("cast", args{"x": "ne", "dtype": str("fp32")}, out("c", f32([]int{3}, 1, 0, 1))).check(t)
	})
}

func TestShapeTranslation(t *testing.T) {
	x := ramp(2, 3, 4)
	t.Run("slice", func(t *testing.T) {
		newProg().in("x", x).
			op("slice_by_index", args{"x": "x", "begin": []int{1, 0, -3}, "end": []int{2, 2, 4}}, out("a", fromIndex([]int{1, 2, 3}, func(i []int) float64 { return get(x, 1, i[1], 1+i[2]) }))).
			op("slice_by_index", args{"x": "x", "begin": []int{0, 2, 0}, "end": []int{2, 0, 4}, "stride": []int{1, -2, 3}, "begin_mask": []bool{true, true, true}, "end_mask": []bool{true, true, true}},
				out("b", fromIndex([]int{2, 2, 2}, func(i []int) float64 { return get(x, i[0], 2-2*i[1], 3*i[2]) }))).
			op("slice_by_index", args{"x": "x", "begin": []int{-1, 1, 0}, "end": []int{0, 2, 0}, "squeeze_mask": []bool{true, true, false}, "end_mask": []bool{false, false, true}},
				out("c", fromIndex([]int{4}, func(i []int) float64 { return get(x, 1, 1, i[0]) }))).
			op("slice_by_size", args{"x": "x", "begin": []int{0, 1, 1}, "size": []int{2, -1, 2}}, out("d", fromIndex([]int{2, 2, 2}, func(i []int) float64 { return get(x, i[0], 1+i[1], 1+i[2]) }))).
			check(t)
	})
	t.Run("slice by data", func(t *testing.T) {
		newProg().in("x", x).in("b", i32([]int{3}, 0, 1, 2)).in("e", i32([]int{3}, 1, 3, 3)).
			op("slice_by_size", args{"x": "x", "begin": "b", "size": []int{1, 2, 2}}, out("d", fromIndex([]int{1, 2, 2}, func(i []int) float64 { return get(x, 0, 1+i[1], 2+i[2]) }))).
			check(t)
	})
	t.Run("slice_update", func(t *testing.T) {
		newProg().in("x", x).in("u", f32([]int{2, 2}, 100, 200, 300, 400)).in("b", i32([]int{3}, 1, 0, 1)).
			op("slice_update", args{"x": "x", "update": "u", "begin": []int{0, 1, 0}, "end": []int{2, 2, 4}, "stride": []int{1, 1, 3}, "squeeze_mask": []bool{false, true, false}},
				out("a", fromIndex([]int{2, 3, 4}, func(i []int) float64 {
					if i[1] == 1 && i[2]%3 == 0 {
						return float64(100 * (1 + 2*i[0] + i[2]/3))
					}
					return get(x, i...)
				}))).
			op("slice_update", args{"x": "x", "update": f32([]int{1, 1, 2}, -1, -2), "begin": "b", "end": i32([]int{3}, 2, 1, 3)},
				out("c", fromIndex([]int{2, 3, 4}, func(i []int) float64 {
					if i[0] == 1 && i[1] == 0 && i[2] >= 1 && i[2] <= 2 {
						return -float64(i[2])
					}
					return get(x, i...)
				}))).check(t)
	})
	t.Run("joins", func(t *testing.T) {
		a, b := f32([]int{1, 2}, 1, 2), f32([]int{1, 2}, 3, 4)
		newProg().in("a", a).in("b", b).
			op("stack", args{"values": []string{"a", "b"}, "axis": -1}, out("s", f32([]int{1, 2, 2}, 1, 3, 2, 4))).
			op("concat", args{"values": []string{"a", "b"}, "axis": 1, "interleave": true}, out("i", f32([]int{1, 4}, 1, 3, 2, 4))).
			op("concat", args{"values": []string{"a", "b"}, "axis": -2, "interleave": false}, out("c", f32([]int{2, 2}, 1, 2, 3, 4))).check(t)
	})
	t.Run("split", func(t *testing.T) {
		newProg().in("x", ramp(1, 5)).
			op("split", args{"x": "x", "split_sizes": []int{2, 3}, "axis": 1}, out("a", f32([]int{1, 2}, 1, 2)), out("b", f32([]int{1, 3}, 3, 4, 5))).check(t)
	})
	t.Run("blocks", func(t *testing.T) {
		y := ramp(1, 4, 4, 6)
		newProg().in("x", y).
			op("pixel_unshuffle", args{"x": "x", "downscale_factor": 2}, inner("u", model.NewTensor(model.Float32, 1, 16, 2, 3))).
			op("pixel_shuffle", args{"x": "u", "upscale_factor": 2}, out("p", y)).
			op("space_to_depth", args{"x": "x", "block_size": 2}, inner("d", model.NewTensor(model.Float32, 1, 16, 2, 3))).
			op("depth_to_space", args{"x": "d", "block_size": 2}, out("q", y)).
			op("space_to_batch", args{"x": "x", "block_shape": []int{2, 3}, "paddings": i32([]int{2, 2}, 1, 1, 0, 3)}, inner("b", model.NewTensor(model.Float32, 6, 4, 3, 3))).
			op("batch_to_space", args{"x": "b", "block_shape": []int{2, 3}, "crops": i32([]int{2, 2}, 1, 1, 0, 3)}, out("r", y)).check(t)
	})
	t.Run("windows and reversal", func(t *testing.T) {
		newProg().in("x", ramp(5)).
			op("sliding_windows", args{"x": "x", "axis": 0, "size": 3, "stride": 2}, out("w", f32([]int{2, 3}, 1, 2, 3, 3, 4, 5))).
			op("reverse", args{"x": "x", "axes": []int{0}}, out("r", f32([]int{5}, 5, 4, 3, 2, 1))).check(t)
	})
	t.Run("pads and crops", func(t *testing.T) {
		y := ramp(1, 1, 2, 3)
		newProg().in("x", y).
			op("pad", args{"x": "x", "pad": []int{0, 1, 1, 0}, "mode": str("constant"), "constant_val": 9.0}, out("c", f32([]int{1, 1, 3, 4}, 9, 1, 2, 3, 9, 4, 5, 6, 9, 9, 9, 9))).
			op("pad", args{"x": "x", "pad": []int{1, 0, 0, 2}, "mode": str("reflect")}, out("r", f32([]int{1, 1, 3, 5}, 4, 5, 6, 5, 4, 1, 2, 3, 2, 1, 4, 5, 6, 5, 4))).
			op("pad", args{"x": "x", "pad": []int{0, 0, 1, 0}, "mode": str("replicate")}, out("e", f32([]int{1, 1, 2, 4}, 1, 1, 2, 3, 4, 4, 5, 6))).
			op("crop", args{"x": "x", "crop_height": []int{1, 0}, "crop_width": []int{0, 1}}, out("k", f32([]int{1, 1, 1, 2}, 4, 5))).check(t)
	})
	t.Run("bands", func(t *testing.T) {
		y := ramp(3, 3)
		newProg().in("x", y).
			op("band_part", args{"x": "x", "lower": 1, "upper": 0}, out("b", f32([]int{3, 3}, 1, 0, 0, 4, 5, 0, 0, 8, 9))).
			op("band_part", args{"x": "x", "lower": -1, "upper": 1}, out("c", f32([]int{3, 3}, 1, 2, 0, 4, 5, 6, 7, 8, 9))).check(t)
	})
	t.Run("shapes", func(t *testing.T) {
		newProg().in("x", ramp(2, 3, 4)).
			op("shape", args{"x": "x"}, out("s", i32([]int{3}, 2, 3, 4))).
			op("reshape", args{"x": "x", "shape": []int{0, -1, 2}}, out("r", ramp(2, 6, 2))).
			op("flatten2d", args{"x": "x", "axis": -1}, out("f", ramp(6, 4))).
			op("reshape_like", args{"x": "x", "ref_tensors": []string{"r", "f"}, "begins": []int{0, 0}, "ends": []int{2, 1}, "end_masks": []bool{false, false}},
				inner("bad", ramp(2, 6, 6))).check2(t)
	})
}

// check2 expects a refusal: the last operation does not fit.
func (p *prog) check2(t *testing.T) {
	t.Helper()
	m := &specModel{version: 9, program: &program{version: 1, names: []string{"main"}, functions: map[string]*function{"main": p.fn}}}
	if _, err := Read(m.encode(), nil, Options{}); err == nil {
		t.Error("an operation that does not fit was read")
	}
	p.fn.block.ops = p.fn.block.ops[:len(p.fn.block.ops)-1]
	p.check(t)
}

func TestIndexTranslation(t *testing.T) {
	x := ramp(2, 3, 4)
	t.Run("gather", func(t *testing.T) {
		idx := i32([]int{2, 2}, 2, 0, 1, 1)
		newProg().in("x", x).in("i", idx).
			op("gather", args{"x": "x", "indices": "i", "axis": 1, "batch_dims": 0}, out("a", fromIndex([]int{2, 2, 2, 4}, func(i []int) float64 { return get(x, i[0], int(get(idx, i[1], i[2])), i[3]) }))).
			op("gather", args{"x": "x", "indices": "i", "axis": 1, "batch_dims": 1}, out("b", fromIndex([]int{2, 2, 4}, func(i []int) float64 { return get(x, i[0], int(get(idx, i[0], i[1])), i[2]) }))).
			op("gather", args{"x": "x", "indices": "i", "axis": 2, "batch_dims": 1}, out("c", fromIndex([]int{2, 3, 2}, func(i []int) float64 { return get(x, i[0], i[1], int(get(idx, i[0], i[2]))) }))).
			check(t)
	})
	t.Run("scatter", func(t *testing.T) {
		y := ramp(2, 3)
		newProg().in("x", y).in("i", i32([]int{2}, 2, 0)).in("u", f32([]int{2, 2}, 10, 20, 30, 40)).
			op("scatter", args{"data": "x", "indices": "i", "updates": "u", "axis": 1, "mode": str("add")}, out("a", f32([]int{2, 3}, 21, 2, 13, 44, 5, 36))).
			op("scatter", args{"data": "x", "indices": "i", "updates": "u", "axis": 1, "mode": str("sub")}, out("s", f32([]int{2, 3}, -19, 2, -7, -36, 5, -24))).
			op("scatter", args{"data": "x", "indices": "i", "updates": "u", "axis": 1, "mode": str("update")}, out("b", f32([]int{2, 3}, 20, 2, 10, 40, 5, 30))).
			op("scatter", args{"data": "x", "indices": i32([]int{1}, 1), "updates": f32([]int{1, 3}, 2, 4, 8), "axis": 0, "mode": str("div")}, out("d", f32([]int{2, 3}, 1, 2, 3, 2, 1.25, 0.75))).
			op("scatter_nd", args{"data": "x", "indices": i32([]int{2, 2}, 0, 1, 1, 2), "updates": f32([]int{2}, 7, 9), "mode": str("max")}, out("n", f32([]int{2, 3}, 1, 7, 3, 4, 5, 9))).
			check(t)
	})
	t.Run("sorting", func(t *testing.T) {
		y := f32([]int{4}, 3, 1, 4, 2)
		newProg().in("x", y).
			op("topk", args{"x": "x", "k": 2, "axis": 0, "ascending": false}, out("v", f32([]int{2}, 4, 3)), out("i", i32([]int{2}, 2, 0))).
			op("topk", args{"x": "x", "k": 2, "axis": -1, "ascending": true}, out("w", f32([]int{2}, 1, 2)), out("j", i32([]int{2}, 1, 3))).
			op("argsort", args{"x": "x", "axis": 0, "ascending": true}, out("s", i32([]int{4}, 1, 3, 0, 2))).
			op("reduce_argmax", args{"x": "x", "axis": -1, "keep_dims": true}, out("m", i32([]int{1}, 2))).
			op("cumsum", args{"x": "x", "axis": 0, "exclusive": true, "reverse": true}, out("c", f32([]int{4}, 7, 6, 2, 0))).
			check(t)
	})
	t.Run("one hot and non-zero", func(t *testing.T) {
		newProg().in("i", i32([]int{2}, 2, 0)).in("x", f32([]int{2, 2}, 0, 3, 4, 0)).
			op("one_hot", args{"indices": "i", "one_hot_vector_size": 3, "axis": -1, "on_value": 5, "off_value": 1}, out("o", i32([]int{2, 3}, 1, 1, 5, 5, 1, 1))).
			check(t)
	})
}

func TestLayerTranslation(t *testing.T) {
	t.Run("same padding", func(t *testing.T) {
		// TensorFlow's rule: 5 wide, kernel 3, stride 2: 3 outputs, one pad a
		// side; 4 wide: 2 outputs, one pad at the end only.
		newProg().in("x", ramp(1, 1, 5)).in("z", ramp(1, 1, 4)).
			op("conv", args{"x": "x", "weight": f32([]int{1, 1, 3}, 1, 10, 100), "strides": []int{2}, "pad_type": str("same"), "pad": []int{0, 0}, "dilations": []int{1}, "groups": 1},
				out("a", f32([]int{1, 1, 3}, 10+200, 2+30+400, 4+50))).
			op("conv", args{"x": "z", "weight": f32([]int{1, 1, 3}, 1, 10, 100), "strides": []int{2}, "pad_type": str("same"), "pad": []int{0, 0}, "dilations": []int{1}, "groups": 1},
				out("b", f32([]int{1, 1, 2}, 1+20+300, 3+40))).
			op("conv", args{"x": "z", "weight": f32([]int{1, 1, 3}, 1, 10, 100), "strides": []int{2}, "pad_type": str("same_lower"), "pad": []int{0, 0}, "dilations": []int{1}, "groups": 1},
				out("c", f32([]int{1, 1, 2}, 10+200, 2+30+400))).
			check(t)
	})
	t.Run("pools", func(t *testing.T) {
		x := ramp(1, 1, 4)
		newProg().in("x", x).
			op("avg_pool", args{"x": "x", "kernel_sizes": []int{2}, "strides": []int{2}, "pad_type": str("custom"), "pad": []int{1, 1}, "exclude_padding_from_average": true}, out("a", f32([]int{1, 1, 3}, 1, 2.5, 4))).
			op("avg_pool", args{"x": "x", "kernel_sizes": []int{2}, "strides": []int{2}, "pad_type": str("custom"), "pad": []int{1, 1}, "exclude_padding_from_average": false}, out("b", f32([]int{1, 1, 3}, 0.5, 2.5, 2))).
			op("l2_pool", args{"x": "x", "kernel_sizes": []int{2}, "strides": []int{2}, "pad_type": str("valid"), "pad": []int{0, 0}}, out("l", f32([]int{1, 1, 2}, math.Sqrt(5), 5))).
			op("max_pool", args{"x": "x", "kernel_sizes": []int{3}, "strides": []int{2}, "pad_type": str("valid"), "pad": []int{0, 0}, "ceil_mode": true}, out("m", f32([]int{1, 1, 2}, 3, 4))).
			check(t)
	})
	t.Run("conv_transpose", func(t *testing.T) {
		x := f32([]int{1, 1, 2}, 1, 2)
		w := f32([]int{1, 1, 3}, 1, 10, 100)
		newProg().in("x", x).
			op("conv_transpose", args{"x": "x", "weight": w, "strides": []int{2}, "pad_type": str("valid"), "pad": []int{0, 0}, "dilations": []int{1}, "groups": 1}, out("v", f32([]int{1, 1, 5}, 1, 10, 102, 20, 200))).
			op("conv_transpose", args{"x": "x", "weight": w, "strides": []int{2}, "pad_type": str("custom"), "pad": []int{1, 1}, "output_shape": []int{1, 1, 4}, "dilations": []int{1}, "groups": 1}, out("o", f32([]int{1, 1, 4}, 10, 102, 20, 200))).
			check(t)
	})
	t.Run("norms", func(t *testing.T) {
		x := ramp(1, 2, 2, 2)
		layer := fromIndex(x.Shape, func(i []int) float64 {
			a, b := get(x, 0, 0, i[2], i[3]), get(x, 0, 1, i[2], i[3])
			m, d := (a+b)/2, (b-a)/2
			return (get(x, i...)-m)/math.Sqrt(d*d+0.5)*float64(2+i[1]) + float64(i[1])
		})
		norm := 0.0
		for i := range 8 {
			norm += x.At(i) * x.At(i)
		}
		newProg().in("x", x).
			op("layer_norm", args{"x": "x", "axes": []int{1}, "gamma": f32([]int{2}, 2, 3), "beta": f32([]int{2}, 0, 1), "epsilon": 0.5}, out("l", layer)).
			op("l2_norm", args{"x": "x", "epsilon": 1.0}, out("n", each(x, func(v float64) float64 { return v / math.Sqrt(norm+1) }))).
			op("batch_norm", args{"x": "x", "mean": f32([]int{2}, 1, 2), "variance": f32([]int{2}, 3, 8), "epsilon": 1.0}, out("b", fromIndex(x.Shape, func(i []int) float64 {
				return (get(x, i...) - float64(1+i[1])) / float64(2+i[1])
			}))).check(t)
	})
	t.Run("products", func(t *testing.T) {
		x := ramp(1, 2, 3)
		w := f32([]int{2, 3}, 1, 0, 2, 0, 1, 0)
		newProg().in("x", x).in("y", f32([]int{1, 3, 2}, 1, 2, 3, 4, 5, 6)).
			op("linear", args{"x": "x", "weight": w, "bias": f32([]int{2}, 10, 20)}, out("l", f32([]int{1, 2, 2}, 17, 22, 26, 25))).
			op("linear", args{"x": "x", "weight": w}, out("k", f32([]int{1, 2, 2}, 7, 2, 16, 5))).
			op("matmul", args{"x": "x", "y": "x", "transpose_x": false, "transpose_y": true}, out("m", f32([]int{1, 2, 2}, 14, 32, 32, 77))).
			op("matmul", args{"x": "x", "y": "y", "transpose_x": true, "transpose_y": true}, out("q", fromIndex([]int{1, 3, 3}, func(i []int) float64 {
				s := 0.0
				for k := range 2 {
					s += get(x, 0, k, i[1]) * float64(1+2*i[2]+k)
				}
				return s
			}))).check(t)
	})
	t.Run("quantizers", func(t *testing.T) {
		x := f32([]int{2, 2}, 0.6, -3, 100, 5)
		q := model.NewTensor(model.Int8, 2, 2)
		for i, v := range []int64{1, -6, 127, 13} {
			q.SetInt(i, v)
		}
		z := model.NewTensor(model.Int8, 2)
		z.SetInt(1, 3)
		newProg().in("x", x).
			op("quantize", args{"input": "x", "scale": f32([]int{2}, 0.5, 0.5), "zero_point": z, "axis": 0, "output_dtype": str("int8")}, inner("q", q)).
			op("dequantize", args{"input": "q", "scale": f32([]int{2}, 0.5, 0.5), "zero_point": z, "axis": 0}, out("d", f32([]int{2, 2}, 0.5, -3, 62, 5))).check(t)
	})
	t.Run("resizing", func(t *testing.T) {
		x := f32([]int{1, 1, 1, 2}, 0, 1)
		bil := func(mode string) args {
			return args{"x": "x", "target_size_height": 1, "target_size_width": 6, "sampling_mode": str(mode)}
		}
		third := 1.0 / 3
		newProg().in("x", x).
			op("resize_bilinear", bil("UNALIGN_CORNERS"), out("u", f32([]int{1, 1, 1, 6}, 0, 0, third, 2*third, 1, 1))).
			op("resize_bilinear", bil("STRICT_ALIGN_CORNERS"), out("s", f32([]int{1, 1, 1, 6}, 0, 0.2, 0.4, 0.6, 0.8, 1))).
			op("resize_bilinear", bil("DEFAULT"), out("d", f32([]int{1, 1, 1, 6}, 0, third, 2*third, 1, 1, 1))).
			op("upsample_nearest_neighbor", args{"x": "x", "scale_factor_height": 1.0, "scale_factor_width": 2.5}, out("n", f32([]int{1, 1, 1, 5}, 0, 0, 0, 1, 1))).check(t)
	})
	t.Run("sampling", func(t *testing.T) {
		x := ramp(1, 1, 2, 2)
		newProg().in("x", x).in("g", f32([]int{1, 1, 2, 2}, 0.5, 0.5, 1, 0)).
			op("resample", args{"x": "x", "coordinates": "g", "sampling_mode": str("bilinear"), "padding_mode": str("border"), "padding_value": 0.0, "coordinates_mode": str("unnormalized"), "align_corners": true},
				out("y", f32([]int{1, 1, 1, 2}, 2.5, 2))).
			op("affine", args{"x": "x", "transform_matrix": f32([]int{1, 6}, -1, 0, 0, 0, 1, 0), "output_height": 2, "output_width": 2, "sampling_mode": str("bilinear"),
				"padding_mode": str("constant"), "padding_value": 0.0, "coordinates_mode": str("normalized_minus_one_to_one"), "align_corners": true}, out("a", f32([]int{1, 1, 2, 2}, 2, 1, 4, 3))).check(t)
	})
}

// step tables of small recurrent layers: H = I = 1, so that the matrices are
// the gates' weights.
func TestRecurrentTranslation(t *testing.T) {
	sig := func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }
	xs := []float64{0.5, -1, 2}
	x := f32([]int{3, 1, 1}, xs...)
	const h0, c0 = 0.3, -0.2
	lstm := func(xs []float64, w, r, b [4]float64) (hs []float64, h, c float64) { // gates i f o z
		h, c = h0, c0
		for _, v := range xs {
			g := func(k int) float64 { return w[k]*v + r[k]*h + b[k] }
			c = sig(g(1))*c + sig(g(0))*math.Tanh(g(3))
			h = sig(g(2)) * math.Tanh(c)
			hs = append(hs, h)
		}
		return
	}
	w, r, b := [4]float64{0.1, 0.7, -0.4, 0.9}, [4]float64{-0.3, 0.2, 0.8, 0.5}, [4]float64{0.05, -0.1, 0.2, -0.3}
	col := func(v []float64) *model.Tensor { return f32([]int{len(v), 1}, v...) }
	base := func(dir string) args {
		return args{"x": "x", "initial_h": f32([]int{1, 1}, h0), "initial_c": f32([]int{1, 1}, c0), "weight_ih": col(w[:]), "weight_hh": col(r[:]), "bias": f32([]int{4}, b[:]...),
			"direction": str(dir), "output_sequence": true}
	}
	t.Run("lstm", func(t *testing.T) {
		hs, h, c := lstm(xs, w, r, b)
		newProg().in("x", x).op("lstm", base("forward"), out("y", f32([]int{3, 1, 1}, hs...)), out("h", f32([]int{1, 1}, h)), out("c", f32([]int{1, 1}, c))).check(t)
	})
	back := []float64{2, -1, 0.5}
	t.Run("reverse", func(t *testing.T) {
		// MIL lists the steps in the order they are computed.
		hs, h, c := lstm(back, w, r, b)
		newProg().in("x", x).op("lstm", base("reverse"), out("y", f32([]int{3, 1, 1}, hs...)), out("h", f32([]int{1, 1}, h)), out("c", f32([]int{1, 1}, c))).check(t)
	})
	t.Run("bidirectional", func(t *testing.T) {
		w2 := [4]float64{-0.6, 0.3, 0.2, 0.4}
		f, fh, fc := lstm(xs, w, r, b)
		k, kh, kc := lstm(back, w2, r, b)
		a := base("bidirectional")
		a["initial_h"], a["initial_c"] = f32([]int{1, 2}, h0, h0), f32([]int{1, 2}, c0, c0)
		a["weight_ih_back"], a["weight_hh_back"], a["bias_back"] = col(w2[:]), col(r[:]), f32([]int{4}, b[:]...)
		newProg().in("x", x).op("lstm", a, out("y", f32([]int{3, 1, 2}, f[0], k[2], f[1], k[1], f[2], k[0])), out("h", f32([]int{1, 2}, fh, kh)), out("c", f32([]int{1, 2}, fc, kc))).check(t)
	})
	t.Run("last step", func(t *testing.T) {
		_, h, c := lstm(xs, w, r, b)
		a := base("forward")
		a["output_sequence"] = false
		newProg().in("x", x).op("lstm", a, out("y", f32([]int{1, 1, 1}, h)), out("h", f32([]int{1, 1}, h)), out("c", f32([]int{1, 1}, c))).check(t)
	})
	gru := func(after bool, bi, bh [3]float64) (hs []float64) { // gates r o z
		w, r := [3]float64{0.3, -0.8, 0.5}, [3]float64{0.6, 0.9, -0.2}
		h := h0
		for _, v := range xs {
			rt := sig(w[0]*v + r[0]*h + bi[0] + bh[0])
			z := sig(w[2]*v + r[2]*h + bi[2] + bh[2])
			var o float64
			if after {
				o = math.Tanh(w[1]*v + bi[1] + rt*(r[1]*h+bh[1]))
			} else {
				o = math.Tanh(w[1]*v + bi[1] + r[1]*(rt*h) + bh[1])
			}
			h = (1-z)*o + z*h
			hs = append(hs, h)
		}
		return
	}
	gargs := args{"x": "x", "initial_h": f32([]int{1, 1}, h0), "weight_ih": f32([]int{3, 1}, 0.3, -0.8, 0.5), "weight_hh": f32([]int{3, 1}, 0.6, 0.9, -0.2), "output_sequence": true}
	t.Run("gru", func(t *testing.T) {
		bias := [3]float64{0.1, -0.2, 0.3}
		hs := gru(false, [3]float64{}, bias)
		a := maps.Clone(gargs)
		a["bias"] = f32([]int{3}, bias[:]...)
		newProg().in("x", x).op("gru", a, out("y", f32([]int{3, 1, 1}, hs...)), out("h", f32([]int{1, 1}, hs[2]))).check(t)
	})
	t.Run("gru, reset after", func(t *testing.T) {
		bias, ib := [3]float64{0.1, -0.2, 0.3}, [3]float64{-0.4, 0.5, 0.6}
		hs := gru(true, ib, bias)
		a := maps.Clone(gargs)
		a["bias"], a["input_bias"], a["reset_after"] = f32([]int{3}, bias[:]...), f32([]int{3}, ib[:]...), true
		newProg().in("x", x).op("gru", a, out("y", f32([]int{3, 1, 1}, hs...)), out("h", f32([]int{1, 1}, hs[2]))).check(t)
	})
	t.Run("rnn", func(t *testing.T) {
		h := h0
		var hs []float64
		for _, v := range xs {
			h = max(0, 0.7*v-0.5*h+0.1)
			hs = append(hs, h)
		}
		newProg().in("x", x).op("rnn", args{"x": "x", "initial_h": f32([]int{1, 1}, h0), "weight_ih": f32([]int{1, 1}, 0.7), "weight_hh": f32([]int{1, 1}, -0.5), "bias": f32([]int{1}, 0.1),
			"activation": str("relu"), "output_sequence": true, "direction": str("forward")}, out("y", f32([]int{3, 1, 1}, hs...)), out("h", f32([]int{1, 1}, h))).check(t)
	})
}

func TestControlTranslation(t *testing.T) {
	x := f32([]int{2}, 1, 2)
	pred := func(v bool) *model.Tensor {
		p := model.NewTensor(model.Bool)
		p.SetInt(0, int64(b2i(v)))
		return p
	}
	for _, v := range []bool{true, false} {
		t.Run(fmt.Sprint("cond ", v), func(t *testing.T) {
			want := f32([]int{2}, 2, 4)
			if !v {
				want = f32([]int{2}, 1, 4)
			}
			p := newProg().in("x", x).in("p", f32([]int{}, float64(b2i(v)))).
				op("greater", args{"x": "p", "y": 0.5}, inner("yes", pred(v))).
				op("cond", args{"pred": "yes"}, out("y", want))
			p.fn.block.ops[1].blocks = []*block{
				{outputs: []string{"a"}, ops: []*operation{milOp("add", args{"x": "x", "y": "x"}, inner("a", x))}},
				{outputs: []string{"b"}, ops: []*operation{milOp("mul", args{"x": "x", "y": "x"}, inner("b", x))}},
			}
			p.check(t)
		})
	}
	t.Run("while_loop", func(t *testing.T) {
		// Doubles x while i < n: 3 times.
		one, zero := i32([]int{}, 1), i32([]int{}, 0)
		p := newProg().in("x", x).in("n", i32([]int{}, 3)).
			op("const", args{}, inner("i0", zero)).
			op("while_loop", args{"loop_vars": []string{"i0", "x"}}, out("i", i32([]int{}, 3)), out("y", f32([]int{2}, 8, 16)))
		p.fn.block.ops[0].attrs = append(p.fn.block.ops[0].attrs, attribute{"val", immediate(zero)})
		vars := func(a, b string) []named {
			return []named{{a, tensorType(model.Int32, model.Shape{})}, {b, tensorType(model.Float32, x.Shape)}}
		}
		p.fn.block.ops[1].blocks = []*block{
			{inputs: vars("i1", "x1"), outputs: []string{"go"}, ops: []*operation{milOp("less", args{"x": "i1", "y": "n"}, inner("go", pred(true)))}},
			{inputs: vars("i2", "x2"), outputs: []string{"i3", "x3"}, ops: []*operation{
				milOp("add", args{"x": "i2", "y": one}, inner("i3", one)),
				milOp("add", args{"x": "x2", "y": "x2"}, inner("x3", x)),
			}},
		}
		p.check(t)
	})
}
