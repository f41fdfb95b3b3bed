package onnx

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// legacy builds a model of one node of an older opset; x is the only input
// that is not a constant.
func legacy(t *testing.T, op string, opset int64, dims []int64, consts [][]byte, args []string, outs []string, attrs ...any) []byte {
	t.Helper()
	var a []byte
	for i := 0; i < len(attrs); i += 2 {
		a = append(a, RawAttr(attrs[i].(string), attrs[i+1])...)
	}
	g := appendMessage(nil, 1, rawNode(op, args, outs, a))
	for _, c := range consts {
		g = appendMessage(g, 5, c)
	}
	g = appendMessage(g, 11, rawInput("x", dims...))
	for _, o := range outs {
		if o != "" {
			g = appendMessage(g, 12, rawInput(o))
		}
	}
	return rawModel(g, opset)
}

func floatTensor(name string, dims []int64, v ...float32) []byte {
	return rawTensor(name, 1, dims, model.Of(v).Data)
}

// TestLegacy reads operators in the form of older opsets and compares with
// their present form.
func TestLegacy(t *testing.T) {
	x := func(o ...string) []string { return append([]string{"x"}, o...) }
	y := []string{"y"}
	ints := func(v ...int64) *model.Tensor { return model.Of(v) }
	f32 := func(v float32) *model.Tensor { return model.Scalar(v) }
	bn := [][]byte{floatTensor("s", []int64{3}, 1, 2, 3), floatTensor("b", []int64{3}, 4, 5, 6), floatTensor("m", []int64{3}, 7, 8, 9), floatTensor("v", []int64{3}, 1, 4, 9)}
	three := func(v ...float32) *model.Tensor { return model.Of(v) }
	for _, c := range []struct {
		name  string
		file  []byte
		shape []int
		op    model.Op
		attrs model.Attrs
		extra []*model.Tensor
	}{
		{"Clip 6", legacy(t, "Clip", 7, []int64{2, 3}, nil, x(), y, "min", -0.5, "max", 0.25), []int{2, 3}, "Clip", nil, []*model.Tensor{f32(-0.5), f32(0.25)}},
		{"Clip 6, one bound", legacy(t, "Clip", 10, []int64{2, 3}, nil, x(), y, "max", 0.25), []int{2, 3}, "Clip", nil, []*model.Tensor{nil, f32(0.25)}},
		{"Squeeze 1", legacy(t, "Squeeze", 11, []int64{2, 1, 3}, nil, x(), y, "axes", []int{1}), []int{2, 1, 3}, "Squeeze", nil, []*model.Tensor{ints(1)}},
		{"Unsqueeze 1", legacy(t, "Unsqueeze", 11, []int64{2, 3}, nil, x(), y, "axes", []int{0, 2}), []int{2, 3}, "Unsqueeze", nil, []*model.Tensor{ints(0, 2)}},
		{"ReduceSum 11", legacy(t, "ReduceSum", 11, []int64{2, 3, 4}, nil, x(), y, "axes", []int{-1}, "keepdims", 0), []int{2, 3, 4}, "ReduceSum", model.Attrs{"keepdims": 0}, []*model.Tensor{ints(-1)}},
		{"ReduceMean 13", legacy(t, "ReduceMean", 17, []int64{2, 3, 4}, nil, x(), y, "axes", []int{0, 2}), []int{2, 3, 4}, "ReduceMean", nil, []*model.Tensor{ints(0, 2)}},
		{"Slice 1", legacy(t, "Slice", 9, []int64{4, 5}, nil, x(), y, "starts", []int{1, -3}, "ends", []int{3, 100}, "axes", []int{0, 1}), []int{4, 5}, "Slice", nil, []*model.Tensor{ints(1, -3), ints(3, 100), ints(0, 1)}},
		{"Pad 2", legacy(t, "Pad", 10, []int64{2, 3}, nil, x(), y, "pads", []int{1, 0, 0, 2}, "value", 1.5), []int{2, 3}, "Pad", nil, []*model.Tensor{ints(1, 0, 0, 2), f32(1.5)}},
		{"Pad 2, reflect", legacy(t, "Pad", 10, []int64{3, 3}, nil, x(), y, "pads", []int{1, 0, 0, 2}, "mode", "reflect"), []int{3, 3}, "Pad", model.Attrs{"mode": "reflect"}, []*model.Tensor{ints(1, 0, 0, 2)}},
		{"TopK 1", legacy(t, "TopK", 9, []int64{2, 5}, nil, x(), []string{"y", "i"}, "k", 2), []int{2, 5}, "TopK", nil, []*model.Tensor{ints(2)}},
		{"Upsample 7", legacy(t, "Upsample", 8, []int64{1, 1, 2, 3}, nil, x(), y, "scales", []float64{1, 1, 2, 2}, "mode", "bilinear"), []int{1, 1, 2, 3}, "Resize",
			model.Attrs{"mode": "linear", "coordinate_transformation_mode": "asymmetric"}, []*model.Tensor{nil, three(1, 1, 2, 2)}},
		{"Upsample 9", legacy(t, "Upsample", 9, []int64{1, 1, 2, 3}, [][]byte{floatTensor("s", []int64{4}, 1, 1, 3, 2)}, x("s"), y), []int{1, 1, 2, 3}, "Resize",
			model.Attrs{"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, []*model.Tensor{nil, three(1, 1, 3, 2)}},
		{"Resize 10", legacy(t, "Resize", 10, []int64{1, 1, 4, 4}, [][]byte{floatTensor("s", []int64{4}, 1, 1, 1.5, 0.5)}, x("s"), y, "mode", "linear"), []int{1, 1, 4, 4}, "Resize",
			model.Attrs{"mode": "linear", "coordinate_transformation_mode": "asymmetric"}, []*model.Tensor{nil, three(1, 1, 1.5, 0.5)}},
		{"Dropout 7", legacy(t, "Dropout", 10, []int64{2, 3}, nil, x(), y, "ratio", 0.9), []int{2, 3}, "Identity", nil, nil},
		{"BatchNormalization 7", legacy(t, "BatchNormalization", 8, []int64{2, 3}, bn, x("s", "b", "m", "v"), y, "spatial", 1), []int{2, 3}, "BatchNormalization", nil,
			[]*model.Tensor{three(1, 2, 3), three(4, 5, 6), three(7, 8, 9), three(1, 4, 9)}},
		{"Softmax 11, last axis", legacy(t, "Softmax", 11, []int64{2, 5}, nil, x(), y), []int{2, 5}, "Softmax", nil, nil},
		{"Softmax 11, one long axis", legacy(t, "Softmax", 11, []int64{2, 5, 1, 1}, nil, x(), y), []int{2, 5, 1, 1}, "Softmax", model.Attrs{"axis": 1}, nil},
		{"GroupNormalization 18", legacy(t, "GroupNormalization", 18, []int64{1, 4, 3}, [][]byte{floatTensor("s", []int64{2}, 2, 3), floatTensor("b", []int64{2}, 4, 5)}, x("s", "b"), y, "num_groups", 2), []int{1, 4, 3}, "GroupNormalization",
			model.Attrs{"num_groups": 2}, []*model.Tensor{three(2, 2, 3, 3), three(4, 4, 5, 5)}},
	} {
		g, err := Read(c.file, "", Options{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err := g.Validate(true); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		r := rand.New(rand.NewPCG(1, 9))
		in := model.NewTensor(model.Float32, c.shape...)
		for i := range in.Len() {
			in.Set(i, r.NormFloat64())
		}
		got, err := ops.EvalGraph(context.Background(), g, map[string]*model.Tensor{"x": in}, ops.Options{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		n := &model.Node{Name: "want", Op: c.op, Attrs: c.attrs, Outputs: []*model.Value{{Name: "y"}, {Name: "i"}}}
		if c.op != "TopK" {
			n.Outputs = n.Outputs[:1]
		}
		args := append([]*model.Tensor{in}, c.extra...)
		for _, a := range args {
			if a == nil {
				n.Inputs = append(n.Inputs, nil)
			} else {
				n.Inputs = append(n.Inputs, &model.Value{DType: a.DType, Shape: a.Shape})
			}
		}
		want, err := ops.EvalNode(context.Background(), n, args, ops.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := sameTensor(got["y"], want[0]); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestLegacySoftmax: before opset 13 all axes from the given one on are
// normalised together.
func TestLegacySoftmax(t *testing.T) {
	for _, op := range []string{"Softmax", "LogSoftmax", "Hardmax"} {
		g, err := Read(legacy(t, op, 11, []int64{2, 3, 4}, nil, []string{"x"}, []string{"y"}), "", Options{})
		if err != nil {
			t.Fatal(err)
		}
		in := model.NewTensor(model.Float32, 2, 3, 4)
		for i := range in.Len() {
			in.Set(i, math.Sin(float64(3*i)))
		}
		out, err := ops.EvalGraph(context.Background(), g, map[string]*model.Tensor{"x": in}, ops.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for b := range 2 {
			s := 0.0
			for i := range 12 {
				v := out["y"].At(b*12 + i)
				if op == "LogSoftmax" {
					v = math.Exp(v)
				}
				s += v
			}
			if math.Abs(s-1) > 1e-6 {
				t.Errorf("%s: batch %d sums to %g", op, b, s)
			}
		}
		if _, err := roundTrip(g); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// TestUnsorted reads nodes that the file does not hold in order.
func TestUnsorted(t *testing.T) {
	g := appendMessage(nil, 1, rawNode("Neg", []string{"b"}, []string{"y"}))
	g = appendMessage(g, 1, rawNode("Exp", []string{"a"}, []string{"b"}))
	g = appendMessage(g, 1, rawNode("Abs", []string{"x"}, []string{"a"}))
	g = appendMessage(appendMessage(g, 11, rawInput("x", 2)), 12, rawInput("y", 2))
	h, err := Read(rawModel(g, 17), "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, n := range h.Nodes {
		order = append(order, string(n.Op))
	}
	if s := strings.Join(order, " "); s != "Abs Exp Neg" {
		t.Errorf("order %s", s)
	}
}

// TestFunctions expands a model-local function, with its attribute, its
// default and a nested call.
func TestFunctions(t *testing.T) {
	ref := func(name, to string) []byte {
		a := appendString(nil, 1, name)
		return appendMessage(nil, 5, appendString(appendInt(a, 20, attrFloat), 21, to))
	}
	opsets := func(b []byte) []byte {
		b = appendMessage(b, 9, appendInt(nil, 2, 17))
		return appendMessage(b, 9, appendInt(appendString(nil, 1, "mine"), 2, 1))
	}
	// leaky(x; slope) = LeakyRelu(x; alpha = slope)
	leaky := appendString(appendString(appendString(appendString(nil, 1, "leaky"), 4, "in"), 5, "out"), 6, "slope")
	leaky = appendMessage(leaky, 7, rawNode("LeakyRelu", []string{"in"}, []string{"out"}, ref("alpha", "slope")))
	leaky = appendString(opsets(leaky), 10, "mine")
	// twice(x) = leaky(leaky(x; 0.5); slope), slope 0.25 by default
	def, err := (&writer{}).attr(&model.Node{}, "slope", 0.25)
	if err != nil {
		t.Fatal(err)
	}
	twice := appendString(appendString(appendString(nil, 1, "twice"), 4, "in"), 5, "out")
	twice = appendMessage(twice, 7, rawNode("leaky", []string{"in"}, []string{"h"}, RawAttr("slope", 0.5), appendString(nil, 7, "mine")))
	twice = appendMessage(twice, 7, rawNode("leaky", []string{"h"}, []string{"out"}, ref("slope", "slope"), appendString(nil, 7, "mine")))
	twice = appendString(opsets(appendMessage(twice, 11, def)), 10, "mine")
	build := func(functions ...[]byte) []byte {
		g := appendMessage(nil, 1, rawNode("twice", []string{"x"}, []string{"a"}, appendString(nil, 7, "mine")))
		g = appendMessage(g, 1, rawNode("twice", []string{"a"}, []string{"y"}, RawAttr("slope", 0.125), appendString(nil, 7, "mine")))
		g = appendMessage(appendMessage(g, 11, rawInput("x", 2)), 12, rawInput("y", 2))
		m := appendMessage(rawModel(g, 17), 8, appendInt(appendString(nil, 1, "mine"), 2, 1))
		for _, f := range functions {
			m = appendMessage(m, 25, f)
		}
		return m
	}
	h, err := Read(build(leaky, twice), "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := ops.EvalGraph(context.Background(), h, map[string]*model.Tensor{"x": model.Of([]float32{-64, 64})}, ops.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if v := out["y"].Float32s(); v[0] != -64*0.5*0.25*0.5*0.125 || v[1] != 64 {
		t.Errorf("result %v", v)
	}
	if _, err := roundTrip(h); err != nil {
		t.Error(err)
	}
	// A function that calls itself ends in an error.
	loop := appendString(appendString(appendString(nil, 1, "twice"), 4, "in"), 5, "out")
	loop = appendMessage(loop, 7, rawNode("twice", []string{"in"}, []string{"out"}, appendString(nil, 7, "mine")))
	loop = appendString(opsets(loop), 10, "mine")
	if _, err := Read(build(loop), "", Options{}); err == nil || !strings.Contains(err.Error(), "nested deeper") {
		t.Errorf("a function that calls itself: %v", err)
	}
	// One that doubles at each level does too, soon.
	var bomb [][]byte
	for i := range 30 {
		name, callee := "f"+string(rune('A'+i)), "f"+string(rune('B'+i))
		if i == 0 {
			name = "twice"
		}
		f := appendString(appendString(appendString(nil, 1, name), 4, "in"), 5, "out")
		if i == 29 {
			f = appendMessage(f, 7, rawNode("Neg", []string{"in"}, []string{"out"}))
		} else {
			f = appendMessage(f, 7, rawNode(callee, []string{"in"}, []string{"h"}, appendString(nil, 7, "mine")))
			f = appendMessage(f, 7, rawNode(callee, []string{"h"}, []string{"out"}, appendString(nil, 7, "mine")))
		}
		bomb = append(bomb, appendString(opsets(f), 10, "mine"))
	}
	if _, err := Read(build(bomb...), "", Options{}); err == nil || !strings.Contains(err.Error(), "more memory") {
		t.Errorf("a function that doubles: %v", err)
	}
}

// TestSparse reads a sparse initializer.
func TestSparse(t *testing.T) {
	s := appendMessage(nil, 1, floatTensor("w", []int64{2}, 5, 7))
	s = appendMessage(s, 2, rawTensor("", 7, []int64{2, 2}, model.Of([]int64{0, 1, 1, 2}).Data))
	s = appendInt(appendInt(s, 3, 2), 3, 3)
	g := appendMessage(nil, 1, rawNode("Add", []string{"x", "w"}, []string{"y"}))
	g = appendMessage(g, 15, s)
	g = appendMessage(appendMessage(g, 11, rawInput("x", 2, 3)), 12, rawInput("y", 2, 3))
	h, err := Read(rawModel(g, 17), "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := h.Consts()[0].Const.Value()
	if err != nil {
		t.Fatal(err)
	}
	if err := sameTensor(w, model.Of([]float32{0, 5, 0, 0, 0, 7}, 2, 3)); err != nil {
		t.Error(err)
	}
}

// TestStoredForms reads every way a TensorProto holds its values.
func TestStoredForms(t *testing.T) {
	half := appendMessage(nil, 5, []byte{0x80, 0x78, 0x80, 0x80, 0x03}) // 0x3c00, 0xc000 as varints
	for _, c := range []struct {
		data []byte
		want *model.Tensor
	}{
		{rawTensor("w", 1, []int64{2}, nil, appendMessage(nil, 4, model.Of([]float32{1, 2}).Data)), model.Of([]float32{1, 2})},
		{rawTensor("w", 1, []int64{2}, nil, appendFloat(nil, 4, 1), appendFloat(nil, 4, 2)), model.Of([]float32{1, 2})},
		{rawTensor("w", 11, []int64{1}, nil, appendMessage(nil, 10, model.Of([]float64{3}).Data)), model.Of([]float64{3})},
		{rawTensor("w", 7, []int64{2}, nil, appendInt(nil, 7, -1), appendInt(nil, 7, 5)), model.Of([]int64{-1, 5})},
		{rawTensor("w", 3, []int64{2}, nil, appendInt(nil, 5, -1), appendInt(nil, 5, 5)), model.Of([]int8{-1, 5})},
		{rawTensor("w", 10, []int64{2}, nil, half), &model.Tensor{DType: model.Float16, Shape: model.Shape{2}, Data: []byte{0x00, 0x3c, 0x00, 0xc0}}},
		{rawTensor("w", 22, []int64{3}, []byte{0xf1, 0x08}), model.Of([]int8{1, -1, -8}).Convert(model.Int4)},
	} {
		got, err := ReadTensor(c.data)
		if err != nil {
			t.Errorf("%v: %v", c.want, err)
			continue
		}
		if err := sameTensor(got, c.want); err != nil {
			t.Errorf("%s: %v", c.want.DType, err)
		}
	}
}
