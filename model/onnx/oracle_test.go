package onnx_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// operand is an input of a single-operator graph; a constant is one that shapes
// depend on or that only makes sense with these values.
type operand struct {
	t *model.Tensor
	c bool
}

type opCase struct {
	op    model.Op
	in    []operand // a zero operand is an absent input
	attrs model.Attrs
	outs  int
	tol   float64 // relative to the largest output; 0 means 1e-5
}

func (c opCase) String() string { return fmt.Sprintf("%s %v", c.op, c.attrs) }

// single makes a graph of one node.
func single(c opCase) (*model.Graph, map[string]*model.Tensor, error) {
	n := &model.Node{Name: "node", Op: c.op, Attrs: c.attrs}
	g := &model.Graph{Name: "single", Nodes: []*model.Node{n}}
	feeds := map[string]*model.Tensor{}
	for i, o := range c.in {
		if o.t == nil {
			n.Inputs = append(n.Inputs, nil)
			continue
		}
		v := &model.Value{Name: fmt.Sprintf("x%d", i), DType: o.t.DType, Shape: o.t.Shape}
		if o.c {
			v.Const = model.NewConst(o.t)
		} else {
			g.Inputs = append(g.Inputs, v)
			feeds[v.Name] = o.t
		}
		n.Inputs = append(n.Inputs, v)
	}
	for i := range max(1, c.outs) {
		v := &model.Value{Name: fmt.Sprintf("y%d", i), Producer: n}
		n.Outputs, g.Outputs = append(n.Outputs, v), append(g.Outputs, v)
	}
	return g, feeds, ops.InferGraph(g)
}

// TestOperatorsAgainstONNXRuntime compares operators and attributes that the
// node suite of ONNX 1.12 does not have, or hardly, with ONNX Runtime.
func TestOperatorsAgainstONNXRuntime(t *testing.T) {
	runtimeDir(t)
	r := rand.New(rand.NewPCG(8, 9))
	f := func(shape ...int) operand {
		x := model.NewTensor(model.Float32, shape...)
		for i := range x.Len() {
			x.Set(i, r.NormFloat64())
		}
		return operand{t: x}
	}
	k := func(o operand) operand { o.c = true; return o }
	ints := func(v ...int64) operand { return operand{model.Of(v), true} }
	int32s := func(v ...int32) operand { return operand{model.Of(v), true} }
	fl := func(v ...float32) operand { return operand{model.Of(v), true} }
	scalarI := func(v int64) operand { return operand{model.Scalar(v), true} }
	codes := func(d model.DType, shape ...int) operand {
		x := model.NewTensor(d, shape...)
		lo, hi, _ := d.IntRange()
		for i := range x.Len() {
			x.SetInt(i, lo+r.Int64N(hi-lo+1))
		}
		return operand{t: x}
	}
	pos := func(o operand) operand {
		for i := range o.t.Len() {
			o.t.Set(i, math.Abs(o.t.At(i))+0.1)
		}
		return o
	}
	none := operand{}
	A := func(kv ...any) model.Attrs {
		a := model.Attrs{}
		for i := 0; i < len(kv); i += 2 {
			a[kv[i].(string)] = kv[i+1]
		}
		return a
	}
	ii := func(v ...int) []int { return v }
	var cases []opCase
	add := func(c opCase) { cases = append(cases, c) }

	// Resize: every coordinate transformation, up and down.
	for _, coord := range []string{"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"} {
		for _, mode := range []string{"nearest", "linear", "cubic"} {
			for _, size := range []operand{ints(1, 2, 7, 9), ints(1, 2, 3, 4)} {
				a := A("coordinate_transformation_mode", coord, "mode", mode)
				if mode == "nearest" && coord != "half_pixel_symmetric" { // there ONNX Runtime's offset is no exact zero
					a["nearest_mode"] = "floor"
				}
				add(opCase{op: "Resize", in: []operand{f(1, 2, 5, 6), none, none, size}, attrs: a, tol: 1e-4})
			}
		}
	}
	for _, nm := range []string{"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"} {
		add(opCase{op: "Resize", in: []operand{f(1, 1, 4, 4), none, fl(1, 1, 2, 1.5)}, attrs: A("mode", "nearest", "nearest_mode", nm)})
	}
	for _, mode := range []string{"linear", "cubic"} {
		add(opCase{op: "Resize", in: []operand{f(1, 1, 9, 8), none, none, ints(1, 1, 4, 5)}, attrs: A("mode", mode, "antialias", 1), tol: 1e-4})
		add(opCase{op: "Resize", in: []operand{f(1, 1, 9, 8), none, none, ints(1, 1, 4, 5)}, attrs: A("mode", mode, "antialias", 1, "exclude_outside", 1), tol: 1e-4})
	}
	for _, p := range []string{"not_larger", "not_smaller"} {
		add(opCase{op: "Resize", in: []operand{f(1, 1, 4, 6), none, none, ints(7, 8)}, attrs: A("mode", "nearest", "axes", ii(2, 3), "keep_aspect_ratio_policy", p)})
	}

	// Convolutions and pools.
	add(opCase{op: "Conv", in: []operand{f(2, 6, 9, 7), k(f(4, 3, 3, 2)), k(f(4))}, attrs: A("group", 2, "pads", ii(1, 0, 2, 1), "strides", ii(2, 1), "dilations", ii(1, 2))})
	add(opCase{op: "Conv", in: []operand{f(1, 3, 11), k(f(5, 3, 4))}, attrs: A("auto_pad", "SAME_LOWER", "strides", ii(3))})
	add(opCase{op: "Conv", in: []operand{f(1, 2, 5, 6, 4), k(f(3, 2, 2, 3, 1))}, attrs: A("pads", ii(0, 1, 0, 1, 1, 0))})
	add(opCase{op: "ConvTranspose", in: []operand{f(1, 4, 5, 3), k(f(4, 3, 3, 3)), k(f(6))}, attrs: A("group", 2, "strides", ii(2, 3), "pads", ii(1, 0, 1, 1), "output_padding", ii(1, 2), "dilations", ii(2, 1))})
	add(opCase{op: "ConvTranspose", in: []operand{f(1, 2, 4, 4), k(f(2, 3, 3, 3))}, attrs: A("strides", ii(2, 2), "auto_pad", "SAME_UPPER")})
	for _, ceil := range []int{0, 1} {
		for _, inc := range []int{0, 1} {
			add(opCase{op: "AveragePool", in: []operand{f(1, 2, 10, 9)}, attrs: A("kernel_shape", ii(3, 4), "strides", ii(2, 3), "pads", ii(1, 1, 1, 2), "ceil_mode", ceil, "count_include_pad", inc)})
		}
		add(opCase{op: "MaxPool", in: []operand{f(1, 2, 10, 9)}, attrs: A("kernel_shape", ii(3, 2), "strides", ii(2, 3), "pads", ii(1, 1, 0, 0), "dilations", ii(2, 1), "ceil_mode", ceil), outs: 2})
	}
	add(opCase{op: "AveragePool", in: []operand{f(1, 2, 10, 9)}, attrs: A("kernel_shape", ii(3, 2), "dilations", ii(2, 3), "pads", ii(1, 1, 0, 0))})
	add(opCase{op: "MaxPool", in: []operand{f(1, 1, 4, 5)}, attrs: A("kernel_shape", ii(2, 2), "storage_order", 1), outs: 2})
	add(opCase{op: "LpPool", in: []operand{f(1, 2, 8, 9)}, attrs: A("kernel_shape", ii(3, 2), "strides", ii(2, 2), "p", 3, "pads", ii(1, 0, 1, 0))})
	add(opCase{op: "GlobalLpPool", in: []operand{f(1, 2, 5, 4)}, attrs: A("p", 3)})
	add(opCase{op: "DeformConv", in: []operand{f(1, 4, 6, 6), k(f(4, 2, 3, 3)), f(1, 36, 6, 6), k(f(4)), f(1, 18, 6, 6)}, attrs: A("group", 2, "offset_group", 2, "pads", ii(1, 1, 1, 1)), tol: 1e-4})
	add(opCase{op: "Col2Im", in: []operand{f(1, 12, 16), ints(5, 6), ints(2, 3)}, attrs: nil})
	add(opCase{op: "Col2Im", in: []operand{f(2, 8, 12), ints(6, 6), ints(2, 2)}, attrs: A("strides", ii(2, 2), "pads", ii(0, 1, 0, 1))})

	// Normalisation.
	add(opCase{op: "GroupNormalization", in: []operand{f(2, 6, 3, 2), k(f(6)), k(f(6))}, attrs: A("num_groups", 3, "epsilon", 1e-3)})
	add(opCase{op: "LayerNormalization", in: []operand{f(2, 3, 5), k(f(3, 5)), k(f(3, 5))}, attrs: A("axis", -2), outs: 1})
	add(opCase{op: "LpNormalization", in: []operand{f(3, 4, 2)}, attrs: A("axis", 1, "p", 1)})
	add(opCase{op: "MeanVarianceNormalization", in: []operand{f(2, 3, 4, 5)}, attrs: A("axes", ii(0, 2))})
	add(opCase{op: "LRN", in: []operand{f(1, 7, 2, 3)}, attrs: A("size", 5, "alpha", 0.3, "beta", 0.6, "bias", 1.5)})

	// Element-wise.
	for _, op := range []model.Op{"Erf", "Mish", "Gelu", "HardSwish", "Softsign", "Sinh", "Asinh", "Celu", "Round", "Softplus"} {
		add(opCase{op: op, in: []operand{f(3, 4)}})
	}
	add(opCase{op: "Gelu", in: []operand{f(3, 4)}, attrs: A("approximate", "tanh")})
	add(opCase{op: "PRelu", in: []operand{f(2, 3, 4), k(f(3, 1))}})
	add(opCase{op: "Mod", in: []operand{codes(model.Int32, 12), int32s(3, -3, 5, -7, 2, 9, 1, -1, 4, 6, 7, -8)}})
	for _, op := range []model.Op{"BitwiseAnd", "BitwiseOr", "BitwiseXor"} {
		add(opCase{op: op, in: []operand{codes(model.Int32, 2, 3), codes(model.Int32, 3)}})
	}
	add(opCase{op: "BitwiseNot", in: []operand{codes(model.UInt8, 5)}})

	// Moving.
	for _, mode := range []string{"constant", "reflect", "edge", "wrap"} {
		add(opCase{op: "Pad", in: []operand{f(3, 4), ints(1, 2, 0, 1)}, attrs: A("mode", mode)})
	}
	add(opCase{op: "Pad", in: []operand{f(2, 3, 4), ints(1, -1, 2, 0), fl(2.5), ints(-1, 1)}})
	add(opCase{op: "Split", in: []operand{f(7, 2)}, outs: 3})
	add(opCase{op: "Slice", in: []operand{f(5, 6), ints(-1, 4), ints(-100, -100), ints(0, 1), ints(-2, -1)}})
	add(opCase{op: "CenterCropPad", in: []operand{f(5, 6), ints(8, 3)}})
	add(opCase{op: "CenterCropPad", in: []operand{f(5, 6, 2), ints(2)}, attrs: A("axes", ii(-2))})
	add(opCase{op: "Trilu", in: []operand{f(2, 4, 5), scalarI(-1)}, attrs: A("upper", 0)})
	add(opCase{op: "Einsum", in: []operand{f(2, 3, 4), f(2, 5, 4)}, attrs: A("equation", "bid,bjd->bij")})
	add(opCase{op: "Einsum", in: []operand{f(2, 3, 4), f(4, 5)}, attrs: A("equation", "...i,ij->...j")})
	for _, red := range []string{"none", "add", "mul", "max", "min"} {
		a := A("axis", 1, "reduction", red)
		add(opCase{op: "ScatterElements", in: []operand{f(3, 4), {model.Of([]int64{0, -1, 2, 1, 3, 0}, 3, 2), true}, f(3, 2)}, attrs: a})
		add(opCase{op: "ScatterND", in: []operand{f(4, 3), {model.Of([]int64{2, 0}, 2, 1), true}, f(2, 3)}, attrs: A("reduction", red)})
	}
	add(opCase{op: "TopK", in: []operand{f(3, 7), ints(4)}, attrs: A("axis", -1, "largest", 0), outs: 2})
	add(opCase{op: "ReduceMax", in: []operand{codes(model.Int8, 3, 4), ints(0)}})
	for _, op := range []model.Op{"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSumSquare"} {
		add(opCase{op: op, in: []operand{pos(f(2, 3, 4)), ints(-1, 0)}, attrs: A("keepdims", 0)})
		add(opCase{op: op, in: []operand{pos(f(2, 3, 4))}, attrs: A("noop_with_empty_axes", 1)})
	}
	for _, d := range []model.DType{model.Float32, model.Int32} {
		x := f(3, 5)
		if d == model.Int32 {
			x = codes(d, 3, 5)
			for i := range x.t.Len() {
				x.t.SetInt(i, x.t.IntAt(i)%100)
			}
		}
		add(opCase{op: "CumSum", in: []operand{x, scalarI(1)}, attrs: A("reverse", 1, "exclusive", 1)})
	}

	// Sampling and signals.
	for _, mode := range []string{"linear", "nearest", "cubic"} {
		for _, padding := range []string{"zeros", "border", "reflection"} {
			for _, align := range []int{0, 1} {
				add(opCase{op: "GridSample", in: []operand{f(1, 2, 5, 4), f(1, 6, 3, 2)}, attrs: A("mode", mode, "padding_mode", padding, "align_corners", align), tol: 1e-4})
			}
		}
	}
	add(opCase{op: "GridSample", in: []operand{f(1, 2, 3, 4, 5), f(1, 2, 3, 4, 3)}, attrs: A("mode", "linear")})
	add(opCase{op: "AffineGrid", in: []operand{f(2, 2, 3), ints(2, 1, 3, 4)}, attrs: A("align_corners", 0)})
	add(opCase{op: "AffineGrid", in: []operand{f(1, 3, 4), ints(1, 1, 2, 3, 4)}, attrs: A("align_corners", 1)})
	rois := operand{model.Of([]float32{1, 1, 6, 5, 0, 2, 7.5, 7}, 2, 4), true}
	for _, mode := range []string{"avg", "max"} {
		for _, half := range []string{"half_pixel", "output_half_pixel"} {
			add(opCase{op: "RoiAlign", in: []operand{f(1, 2, 8, 8), rois, ints(0, 0)}, attrs: A("mode", mode, "output_height", 3, "output_width", 2, "sampling_ratio", 2, "spatial_scale", 0.9, "coordinate_transformation_mode", half)})
		}
	}
	add(opCase{op: "DFT", in: []operand{f(2, 7, 3, 1), none, scalarI(1)}})
	add(opCase{op: "DFT", in: []operand{f(2, 8, 2), scalarI(6), scalarI(1)}, attrs: A("inverse", 1)})
	add(opCase{op: "DFT", in: []operand{f(2, 9, 1), none, scalarI(1)}, attrs: A("onesided", 1)})
	add(opCase{op: "STFT", in: []operand{f(1, 40, 1), scalarI(5), k(f(16))}})

	// Recurrent, in every direction and with what the suite leaves out.
	for _, dir := range []string{"forward", "reverse", "bidirectional"} {
		d := 1
		if dir == "bidirectional" {
			d = 2
		}
		lens := operand{model.Of([]int32{4, 2}), true}
		add(opCase{op: "RNN", in: []operand{f(4, 2, 3), k(f(d, 5, 3)), k(f(d, 5, 5)), k(f(d, 10)), lens, k(f(d, 2, 5))}, attrs: A("hidden_size", 5, "direction", dir), outs: 2})
		for _, lbr := range []int{0, 1} {
			add(opCase{op: "GRU", in: []operand{f(4, 2, 3), k(f(d, 15, 3)), k(f(d, 15, 5)), k(f(d, 30)), lens, k(f(d, 2, 5))}, attrs: A("hidden_size", 5, "direction", dir, "linear_before_reset", lbr), outs: 2})
		}
		add(opCase{op: "LSTM", in: []operand{f(4, 2, 3), k(f(d, 20, 3)), k(f(d, 20, 5)), k(f(d, 40)), lens, k(f(d, 2, 5)), k(f(d, 2, 5)), k(f(d, 15))}, attrs: A("hidden_size", 5, "direction", dir, "clip", 0.7), outs: 3})
	}
	add(opCase{op: "LSTM", in: []operand{f(4, 2, 3), k(f(1, 20, 3)), k(f(1, 20, 5))}, attrs: A("hidden_size", 5, "input_forget", 1), outs: 3})

	// Quantisation.
	for _, d := range []model.DType{model.Int8, model.UInt8, model.Int16, model.UInt16} {
		add(opCase{op: "QuantizeLinear", in: []operand{f(3, 4), fl(0.02, 0.03, 0.05, 0.1), k(codes(d, 4))}, attrs: A("axis", 1)})
	}
	for _, d := range []model.DType{model.Int4, model.UInt4} {
		add(opCase{op: "DequantizeLinear", in: []operand{k(codes(d, 4, 8)), k(pos(f(4, 2))), k(codes(d, 4, 2))}, attrs: A("axis", 1, "block_size", 4)})
	}
	add(opCase{op: "DynamicQuantizeLinear", in: []operand{f(5, 7)}, outs: 3})
	add(opCase{op: "MatMulInteger", in: []operand{codes(model.UInt8, 3, 4), k(codes(model.Int8, 4, 5)), operand{model.Of([]uint8{7}).Reshape(), true}, k(codes(model.Int8, 5))}})
	add(opCase{op: "ConvInteger", in: []operand{codes(model.UInt8, 1, 2, 5, 5), k(codes(model.UInt8, 3, 2, 3, 3)), operand{model.Of([]uint8{100}).Reshape(), true}}, attrs: A("pads", ii(1, 1, 1, 1))})

	var jobs []job
	var kept []opCase
	var wants []map[string]*model.Tensor
	for _, c := range cases {
		g, feeds, err := single(c)
		if err != nil {
			t.Errorf("%v: %v", c, err)
			continue
		}
		out, err := ops.EvalGraph(context.Background(), g, feeds, ops.Options{})
		if err != nil {
			t.Errorf("%v: %v", c, err)
			continue
		}
		jobs, kept, wants = append(jobs, job{graph: g, feeds: feeds}), append(kept, c), append(wants, out)
	}
	got, errs := runORTEach(t, jobs)
	compared := 0
	for i, c := range kept {
		if errs[i] != "" {
			t.Logf("%v: not compared: %s", c, strings.ReplaceAll(errs[i], "\n", " "))
			continue
		}
		compared++
		for o, v := range jobs[i].graph.Outputs {
			x, w := got[i][o], wants[i][v.Name]
			if x.DType != w.DType || !x.Shape.Equal(w.Shape) {
				t.Errorf("%v: output %d is %s%v, ONNX Runtime gives %s%v", c, o, w.DType, w.Shape, x.DType, x.Shape)
				continue
			}
			var diff, top float64
			for e := range w.Len() {
				d := math.Abs(w.At(e) - x.At(e))
				if d != d && w.At(e) == w.At(e) {
					d = math.Inf(1)
				}
				diff, top = max(diff, d), max(top, math.Abs(x.At(e)))
			}
			tol := c.tol
			if tol == 0 {
				tol = 1e-5
			}
			if !x.DType.IsFloat() {
				tol = 0
			}
			if !(diff <= tol*max(top, 1e-3)) {
				t.Errorf("%v: output %d differs by %g of %g", c, o, diff, top)
			}
		}
	}
	t.Logf("%d of %d cases compared", compared, len(cases))
	if compared < len(cases)*9/10 {
		t.Errorf("only %d of %d cases were compared", compared, len(cases))
	}
}
