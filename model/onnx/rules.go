package onnx

import (
	"fmt"
	"maps"
	"slices"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// rules translate operators whose meaning depends on the opset, or that have
// no counterpart of the same name. Every other operator is kept as it is.
var rules map[string]func(*builder, *node) error

func init() {
	rules = map[string]func(*builder, *node) error{
		"Constant": constant,
		"Cast":     func(b *builder, n *node) error { return castLike(b, n, "to") },
		"EyeLike":  func(b *builder, n *node) error { return castLike(b, n, "dtype") },

		"QuantizeLinear": func(b *builder, n *node) error { return castLike(b, n, "output_dtype") },

		"RandomNormal":      func(b *builder, n *node) error { return castLike(b, n, "dtype") },
		"RandomNormalLike":  func(b *builder, n *node) error { return castLike(b, n, "dtype") },
		"RandomUniform":     func(b *builder, n *node) error { return castLike(b, n, "dtype") },
		"RandomUniformLike": func(b *builder, n *node) error { return castLike(b, n, "dtype") },
		"Bernoulli":         func(b *builder, n *node) error { return castLike(b, n, "dtype") },
		"Multinomial":       func(b *builder, n *node) error { return castLike(b, n, "dtype") },

		"Clip":               clip,
		"Dropout":            dropout,
		"Squeeze":            axesInput(13),
		"Unsqueeze":          axesInput(13),
		"ReduceSum":          axesInput(13),
		"Split":              split,
		"Slice":              slice,
		"Pad":                pad,
		"TopK":               topK,
		"Upsample":           upsample,
		"Resize":             resize,
		"Softmax":            softmax,
		"LogSoftmax":         softmax,
		"Hardmax":            softmax,
		"Scatter":            as("ScatterElements"),
		"BatchNormalization": batchNorm,
		"Gemm":               gemm,
		"DFT":                dft,
		"RoiAlign":           roiAlign,
		"GroupNormalization": groupNorm,
		"Scan":               scan,
		"SequenceEmpty":      func(b *builder, n *node) error { return castLike(b, n, "dtype") },
		"HannWindow":         func(b *builder, n *node) error { return castLike(b, n, "output_datatype") },
		"HammingWindow":      func(b *builder, n *node) error { return castLike(b, n, "output_datatype") },
		"BlackmanWindow":     func(b *builder, n *node) error { return castLike(b, n, "output_datatype") },
		"MelWeightMatrix":    func(b *builder, n *node) error { return castLike(b, n, "output_datatype") },

		"ai.onnx.preview.training.Adagrad":  as("Adagrad"),
		"ai.onnx.preview.training.Adam":     as("Adam"),
		"ai.onnx.preview.training.Momentum": as("Momentum"),
	}
	for _, op := range []string{"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"} {
		rules[op] = axesInput(18)
	}
	maps.Copy(rules, quantizedRules)
	maps.Copy(rules, contribRules)
}

func castLike(b *builder, n *node, key string) error {
	if err := typeName(n, key); err != nil {
		return err
	}
	return direct(b, n)
}

// constant turns a Constant node into a constant value.
func constant(b *builder, n *node) error {
	var t *model.Tensor
	for _, key := range []string{"value_float", "value_floats", "value_int", "value_ints", "value_string", "value_strings"} {
		switch v := n.attrs[key].(type) {
		case float64:
			t = model.Scalar(float32(v))
		case []float64:
			t = model.NewTensor(model.Float32, len(v))
			for i, x := range v {
				t.Set(i, x)
			}
		case int:
			t = model.Scalar(int64(v))
		case []int:
			t = model.NewTensor(model.Int64, len(v))
			for i, x := range v {
				t.SetInt(i, int64(x))
			}
		case string:
			t = &model.Tensor{DType: model.String, Shape: model.Shape{}, Strings: []string{v}}
		case []string:
			t = &model.Tensor{DType: model.String, Shape: model.Shape{len(v)}, Strings: v}
		}
	}
	k := n.value
	if t != nil {
		k = model.NewConst(t)
	}
	if k == nil || len(n.outputs) != 1 || n.outputs[0] == "" {
		return fmt.Errorf("a constant without a value or an output")
	}
	name := n.outputs[0]
	if err := b.r.mem.Keep(constBytes + storeBytes + len(b.prefix) + len(name) + 8*len(k.Shape)); err != nil {
		return err
	}
	b.scope.values[name] = &model.Value{Name: b.prefix + name, DType: k.DType, Shape: k.Shape, Const: k}
	return nil
}

// clip moves the bounds of opset 6 from attributes to inputs.
func clip(b *builder, n *node) error {
	if n.opset < 11 && len(n.in) == 1 {
		in := []*model.Value{n.in[0], nil, nil}
		if v, ok := n.attrs["min"].(float64); ok {
			in[1] = b.floatConst(n, "min", n.in[0].DType, v)
		}
		if v, ok := n.attrs["max"].(float64); ok {
			in[2] = b.floatConst(n, "max", n.in[0].DType, v)
		}
		n.in, n.attrs = in, nil
	}
	return direct(b, n)
}

// dropout moves the ratio of opsets below 12 to an input; there the operator
// never trains.
func dropout(b *builder, n *node) error {
	if n.opset < 12 {
		n.in = n.in[:min(len(n.in), 1)]
		delete(n.attrs, "ratio")
		delete(n.attrs, "is_test")
	}
	return direct(b, n)
}

// axesInput moves axes from an attribute to input 1 for opsets before since.
func axesInput(since int) func(*builder, *node) error {
	return func(b *builder, n *node) error {
		if axes, ok := n.attrs["axes"].([]int); ok && n.opset < since && len(n.in) > 0 {
			n.in = []*model.Value{n.in[0], b.intsConst(n, "axes", axes)}
			delete(n.attrs, "axes")
		}
		return direct(b, n)
	}
}

func split(b *builder, n *node) error {
	if s, ok := n.attrs["split"].([]int); ok && n.opset < 13 && len(n.in) > 0 {
		n.in = []*model.Value{n.in[0], b.intsConst(n, "split", s)}
		delete(n.attrs, "split")
	}
	if k, ok := n.attrs["num_outputs"].(int); ok {
		if k != len(n.outputs) {
			return fmt.Errorf("num_outputs is %d, but there are %d outputs", k, len(n.outputs))
		}
		delete(n.attrs, "num_outputs")
	}
	return direct(b, n)
}

func slice(b *builder, n *node) error {
	if n.opset < 10 && len(n.in) > 0 {
		starts, ends := n.attrs.Ints("starts", nil), n.attrs.Ints("ends", nil)
		in := []*model.Value{n.in[0], b.intsConst(n, "starts", starts), b.intsConst(n, "ends", ends)}
		if axes, ok := n.attrs["axes"].([]int); ok {
			in = append(in, b.intsConst(n, "axes", axes))
		}
		n.in, n.attrs = in, nil
	}
	return direct(b, n)
}

func pad(b *builder, n *node) error {
	if n.opset < 11 && n.input(0) != nil {
		pads := n.attrs.Ints("pads", nil)
		in := []*model.Value{n.in[0], b.intsConst(n, "pads", pads)}
		if v := n.attrs.Float("value", 0); v != 0 {
			in = append(in, b.floatConst(n, "value", n.in[0].DType, v))
		}
		mode := n.attrs.String("mode", "constant")
		n.in, n.attrs = in, model.Attrs{"mode": mode}
	}
	return direct(b, n)
}

func topK(b *builder, n *node) error {
	if n.opset < 10 && len(n.in) > 0 {
		n.in = []*model.Value{n.in[0], b.intsConst(n, "k", []int{n.attrs.Int("k", 1)})}
		delete(n.attrs, "k")
	}
	return direct(b, n)
}

// upsample is Resize with asymmetric coordinates that rounds down.
func upsample(b *builder, n *node) error {
	in := []*model.Value{n.input(0), nil, n.input(1)}
	if s, ok := n.attrs["scales"].([]float64); ok {
		t := model.NewTensor(model.Float32, len(s))
		for i, x := range s {
			t.Set(i, x)
		}
		in[2] = b.constValue(n, "scales", t)
	}
	if in[2] == nil {
		return fmt.Errorf("no scales")
	}
	mode := n.attrs.String("mode", "nearest")
	if mode == "bilinear" || mode == "trilinear" {
		mode = "linear"
	}
	_, err := b.emit("Resize", n.label(), in, model.Attrs{"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, n.outputs...)
	return err
}

func resize(b *builder, n *node) error {
	if n.opset < 11 {
		n.in = []*model.Value{n.input(0), nil, n.input(1)}
		n.attrs["coordinate_transformation_mode"], n.attrs["nearest_mode"] = "asymmetric", "floor"
	}
	// Older files pass empty tensors for inputs that are not used.
	for i := 1; i < len(n.in); i++ {
		if v := n.in[i]; v != nil && v.Const != nil && v.Shape.Elems() == 0 {
			n.in[i] = nil
		}
	}
	return direct(b, n)
}

// softmax: before opset 13 the input is flattened to two dimensions at axis
// (1 by default) and the second one is normalised.
func softmax(b *builder, n *node) error {
	if n.opset >= 13 || n.input(0) == nil {
		return direct(b, n)
	}
	x := n.in[0]
	axis := n.attrs.Int("axis", 1)
	if rank := len(x.Shape); !ops.IsUnranked(x.Shape) {
		if axis < 0 {
			axis += rank
		}
		if axis < 0 || axis > rank {
			return fmt.Errorf("axis %d is outside the rank of %v", axis, x.Shape)
		}
		// Where only one of the flattened axes is longer than one, the newer
		// meaning is the same.
		long, count := min(axis, rank-1), 0
		for i := axis; i < rank; i++ {
			if x.Shape[i] != 1 {
				long, count = i, count+1
			}
		}
		if count <= 1 && rank > 0 && axis < rank {
			n.attrs["axis"] = long
			return direct(b, n)
		}
	}
	flat, err := b.one("Flatten", n, "flatten", model.Attrs{"axis": axis}, x)
	if err != nil {
		return err
	}
	s, err := b.one(model.Op(n.op), n, "softmax", model.Attrs{"axis": -1}, flat)
	if err != nil {
		return err
	}
	shape, err := b.one("Shape", n, "shape", nil, x)
	if err != nil {
		return err
	}
	_, err = b.emit("Reshape", n.label(), []*model.Value{s, shape}, nil, n.outputs...)
	return err
}

func batchNorm(b *builder, n *node) error {
	if n.opset < 9 && n.attrs.Int("spatial", 1) == 0 {
		return fmt.Errorf("spatial = 0 is not supported")
	}
	delete(n.attrs, "spatial")
	if n.opset < 14 {
		if len(n.outputs) > 1 && slices.ContainsFunc(n.outputs[1:], func(s string) bool { return s != "" }) {
			return fmt.Errorf("training outputs are not supported")
		}
		n.outputs = n.outputs[:1]
	}
	return direct(b, n)
}

func gemm(b *builder, n *node) error {
	delete(n.attrs, "broadcast")
	return direct(b, n)
}

// dft: the axis of opset 17 (1 by default) is an input from opset 20 on.
func dft(b *builder, n *node) error {
	if n.opset < 20 && len(n.in) > 0 {
		t := model.Scalar(int64(n.attrs.Int("axis", 1)))
		delete(n.attrs, "axis")
		n.in = []*model.Value{n.in[0], n.input(1), b.constValue(n, "axis", t)}
	}
	return direct(b, n)
}

func roiAlign(b *builder, n *node) error {
	if n.opset < 16 {
		n.attrs["coordinate_transformation_mode"] = "output_half_pixel"
	}
	return direct(b, n)
}

// groupNorm: before opset 21 scale and bias are per group; they are repeated
// for the channels of each.
func groupNorm(b *builder, n *node) error {
	groups := n.attrs.Int("num_groups", 0)
	if n.opset >= 21 || len(n.in) < 3 || n.in[0] == nil || n.in[1] == nil || groups < 1 {
		return direct(b, n)
	}
	x := n.in[0]
	if len(x.Shape) < 2 || x.Shape[1] < 1 || x.Shape[1]%groups != 0 {
		return fmt.Errorf("%d groups do not fit the input %v", groups, x.Shape)
	}
	per := x.Shape[1] / groups
	for i := 1; i < 3; i++ {
		suffix := []string{"", "scale", "bias"}[i]
		if t := b.r.inf.Value(n.in[i]); t != nil && t.Len() == groups {
			full := model.NewTensor(t.DType, x.Shape[1])
			for k := range full.Len() {
				full.Set(k, t.At(k/per))
			}
			n.in[i] = b.constValue(n, suffix, full)
			continue
		}
		col, err := b.one("Reshape", n, suffix+"_column", nil, n.in[i], b.intsConst(n, suffix+"_shape", []int{groups, 1}))
		if err != nil {
			return err
		}
		wide, err := b.one("Expand", n, suffix+"_wide", nil, col, b.intsConst(n, suffix+"_expand", []int{groups, per}))
		if err != nil {
			return err
		}
		if n.in[i], err = b.one("Reshape", n, suffix, nil, wide, b.intsConst(n, suffix+"_flat", []int{groups * per})); err != nil {
			return err
		}
	}
	return direct(b, n)
}

// scan: in opset 8 the states and sequences have a batch axis in front. Each
// item of the batch is a scan of its own: one over the batch is put around.
func scan(b *builder, n *node) error {
	body, k := n.blocks["body"], n.attrs.Int("num_scan_inputs", 0)
	if n.opset >= 9 || body == nil {
		return direct(b, n)
	}
	if n.input(0) != nil {
		return fmt.Errorf("sequence lengths, which opset 9 dropped, are not supported")
	}
	ins := n.in[min(1, len(n.in)):]
	if k < 1 || k > len(ins) || len(body.Inputs) != len(ins) || slices.Contains(ins, nil) {
		return fmt.Errorf("%d inputs and %d scanned ones do not fit a body of %d inputs", len(ins), k, len(body.Inputs))
	}
	attrs := model.Attrs{"num_scan_inputs": k}
	if d, ok := n.attrs["directions"].([]int); ok {
		attrs["scan_input_directions"] = d
	}
	inner := &model.Node{Name: b.prefix + b.fresh(n.label()+"/item"), Op: "Scan", Attrs: attrs, Blocks: n.blocks}
	outer := &model.Graph{Format: "onnx", Nodes: []*model.Node{inner}}
	for _, v := range ins {
		in := &model.Value{Name: inner.Name + "/" + v.Name, DType: v.DType, Shape: ops.Unranked()}
		outer.Inputs, inner.Inputs = append(outer.Inputs, in), append(inner.Inputs, in)
	}
	for _, v := range body.Outputs {
		out := &model.Value{Name: inner.Name + "/out/" + v.Name, Producer: inner}
		inner.Outputs, outer.Outputs = append(inner.Outputs, out), append(outer.Outputs, out)
	}
	if err := b.r.mem.Keep(nodeBytes + constBytes*(len(ins)+len(body.Outputs))); err != nil {
		return err
	}
	_, err := b.emitBlocks("Scan", n.label(), ins, model.Attrs{"num_scan_inputs": len(ins)}, map[string]*model.Graph{"body": outer}, n.outputs...)
	return err
}
