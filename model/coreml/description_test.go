package coreml

import (
	"reflect"
	"strings"
	"testing"

	"github.com/triune-sim/triune/model"
)

// TestDescriptions encodes every kind of description and reads it back.
func TestDescriptions(t *testing.T) {
	array := func(a arrayType) feature { return feature{name: "a", kind: featureArray, array: a} }
	for _, f := range []feature{
		{name: "i", kind: featureInt64, short: "an integer"},
		{name: "d", kind: featureDouble, optional: true},
		{name: "s", kind: featureString},
		array(arrayType{shape: []int{1, 3}, dtype: arrayFloat16}),
		array(arrayType{dtype: arrayFloat32, enumerated: [][]int{{1, 3}, {1, 5}}}),
		array(arrayType{shape: []int{1, 4}, dtype: arrayInt32, ranges: [][2]int{{1, 1}, {2, -1}}}),
		{name: "img", kind: featureImage, image: imageType{width: 8, height: 6, color: 20}},
		{name: "img", kind: featureImage, image: imageType{width: 8, height: 6, color: 10, enumerated: [][2]int{{8, 6}, {16, 12}}}},
		{name: "img", kind: featureImage, image: imageType{color: 30, ranges: [][2]int{{8, 64}, {6, -1}}}},
		{name: "dict", kind: featureDictionary, keyInt64: true},
		{name: "st", kind: featureState, array: arrayType{shape: []int{2}, dtype: arrayFloat16}},
	} {
		got, err := (&decoder{}).feature(f.encode())
		if err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("%+v comes back as %+v: %v", f, got, err)
		}
	}
}

// TestFlexibleInputs reads one program under each kind of flexible shape.
func TestFlexibleInputs(t *testing.T) {
	loose := func(s ...int) *specModel {
		f := &function{opset: "CoreML6", inputs: []named{{"x", tensorType(model.Float32, s)}}, block: &block{outputs: []string{"y"}}}
		f.block.ops = []*operation{milOp("relu", args{"x": "x"}, inner("y", model.NewTensor(model.Float32)))}
		f.block.ops[0].outputs[0].typ.shape = s
		return &specModel{version: 7, program: &program{version: 1, names: []string{"main"}, functions: map[string]*function{"main": f}}}
	}
	for _, c := range []struct {
		name    string
		shape   []int
		f       feature
		def     model.Shape // nil: none, an error that asks for one
		good    []int
		bad     []int
		accepts string
	}{
		{"default", []int{1, -1}, feature{kind: featureArray, array: arrayType{shape: []int{1, 4}, ranges: [][2]int{{1, 1}, {2, 9}}}}, model.Shape{1, 4}, []int{1, 9}, []int{1, 10}, "[1,2..9]"},
		{"lower bound", []int{1, -1}, feature{kind: featureArray, array: arrayType{ranges: [][2]int{{1, 1}, {2, -1}}}}, model.Shape{1, 2}, []int{1, 1000}, []int{1, 1}, "[1,2..]"},
		{"enumerated", []int{-1, -1}, feature{kind: featureArray, array: arrayType{enumerated: [][]int{{1, 3}, {2, 5}}}}, model.Shape{1, 3}, []int{2, 5}, []int{1, 5}, "[1,3] [2,5]"},
		{"image sizes", []int{1, 3, -1, -1}, feature{kind: featureImage, image: imageType{color: 20, enumerated: [][2]int{{8, 6}, {16, 12}}}}, model.Shape{1, 3, 6, 8}, []int{1, 3, 12, 16}, []int{1, 3, 8, 6}, "[1,3,6,8] [1,3,12,16]"},
		{"image range", []int{1, 1, -1, -1}, feature{kind: featureImage, image: imageType{color: 10, width: 8, height: 6, ranges: [][2]int{{4, 8}, {6, -1}}}}, model.Shape{1, 1, 6, 8}, []int{1, 1, 99, 4}, []int{1, 1, 5, 8}, "[1,1,6..,4..8]"},
		{"image lower bound", []int{1, 1, -1, -1}, feature{kind: featureImage, image: imageType{color: 10, ranges: [][2]int{{4, 8}, {6, -1}}}}, model.Shape{1, 1, 6, 4}, []int{1, 1, 6, 8}, []int{1, 3, 6, 8}, "[1,1,6..,4..8]"},
		{"fixed", []int{1, 3}, feature{kind: featureArray, array: arrayType{shape: []int{1, 3}}}, model.Shape{1, 3}, []int{1, 3}, []int{1, 4}, "[1,3]"},
		{"undescribed", []int{1, -1}, feature{kind: featureString}, nil, []int{1, 7}, []int{2, 7}, "[1,?]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := loose(c.shape...)
			c.f.name = "x"
			m.desc.inputs = []feature{c.f}
			spec := m.encode()
			g, err := Read(spec, nil, Options{})
			switch {
			case c.def == nil:
				if err == nil || !strings.Contains(err.Error(), "no default; give one with --shape x=") {
					t.Errorf("without a default: %v", err)
				}
			case err != nil:
				t.Error(err)
			case !g.Inputs[0].Shape.Equal(c.def) || !g.Outputs[0].Shape.Equal(c.def):
				t.Errorf("shape %v and %v, want %v", g.Inputs[0].Shape, g.Outputs[0].Shape, c.def)
			}
			if g, err := Read(spec, nil, Options{Shapes: map[string][]int{"x": c.good}}); err != nil || !g.Outputs[0].Shape.Equal(c.good) {
				t.Errorf("shape %v: %v", c.good, err)
			}
			if _, err := Read(spec, nil, Options{Shapes: map[string][]int{"x": c.bad}}); err == nil || !strings.Contains(err.Error(), "it takes "+c.accepts) {
				t.Errorf("shape %v: %v, want one that says %q", c.bad, err, c.accepts)
			}
		})
	}
}

// TestMoreTranslation covers operations whose arguments are shapes and lists.
func TestMoreTranslation(t *testing.T) {
	t.Run("fill", func(t *testing.T) {
		newProg().in("x", ramp(2, 2)).
			op("fill", args{"shape": []int{2, 2}, "value": 3.5}, inner("f", f32([]int{2, 2}, 3.5, 3.5, 3.5, 3.5))).
			op("add", args{"x": "x", "y": "f"}, out("a", f32([]int{2, 2}, 4.5, 5.5, 6.5, 7.5))).
			op("fill_like", args{"ref_tensor": "x", "value": -1.0}, inner("g", f32([]int{2, 2}, -1, -1, -1, -1))).
			op("mul", args{"x": "x", "y": "g"}, out("b", f32([]int{2, 2}, -1, -2, -3, -4))).check(t)
	})
	t.Run("range", func(t *testing.T) {
		newProg().in("x", f32([]int{3}, 10, 20, 30)).
			op("range_1d", args{"start": 1, "end": 7, "step": 2}, inner("r", i32([]int{3}, 1, 3, 5))).
			op("cast", args{"x": "r", "dtype": str("fp32")}, inner("c", f32([]int{3}, 1, 3, 5))).
			op("add", args{"x": "x", "y": "c"}, out("y", f32([]int{3}, 11, 23, 35))).check(t)
	})
	t.Run("resize", func(t *testing.T) {
		x := f32([]int{1, 1, 2, 2}, 1, 2, 3, 4)
		newProg().in("x", x).
			op("resize", args{"x": "x", "shape": []int{1, 0, 2, 4}, "resized_dims": 2, "interpolation_mode": str("NEAREST_NEIGHBOR"), "sampling_mode": str("DEFAULT")}, out("n", f32([]int{1, 1, 2, 4}, 1, 1, 2, 2, 3, 3, 4, 4))).
			op("resize", args{"x": "x", "shape": []int{2, 3}, "resized_dims": 2, "interpolation_mode": str("LINEAR"), "sampling_mode": str("STRICT_ALIGN_CORNERS")}, out("l", f32([]int{1, 1, 2, 3}, 1, 1.5, 2, 3, 3.5, 4))).check(t)
	})
	t.Run("reshape_like", func(t *testing.T) {
		newProg().in("x", ramp(6)).in("a", ramp(2, 5)).in("b", ramp(4, 3)).
			op("reshape_like", args{"x": "x", "ref_tensors": []string{"a", "b"}, "begins": []int{0, 1}, "ends": []int{1, 0}, "end_masks": []bool{false, true}}, out("y", ramp(2, 3))).check(t)
	})
	t.Run("slices by data", func(t *testing.T) {
		x := ramp(3, 4)
		newProg().in("x", x).in("b", i32([]int{2}, 1, 2)).in("e", i32([]int{2}, 9, 4)).
			op("slice_by_index", args{"x": "x", "begin": "b", "end": "e", "begin_mask": []bool{false, true}, "squeeze_mask": []bool{true, false}}, inner("y", f32([]int{4}, 5, 6, 7, 8))).
			op("relu", args{"x": "y"}, out("z", f32([]int{4}, 5, 6, 7, 8))).check(t)
	})
	t.Run("instance norm", func(t *testing.T) {
		newProg().in("x", f32([]int{1, 2, 2}, 1, 3, 10, 30)).
			op("instance_norm", args{"x": "x", "epsilon": 0.0}, out("y", f32([]int{1, 2, 2}, -1, 1, -1, 1))).check(t)
	})
	t.Run("nothing to do", func(t *testing.T) {
		// Operations that change nothing pass their input on, which keeps
		// its name.
		x := ramp(2, 2)
		newProg().in("x", x).
			op("relu", args{"x": "x"}, out("r", x)).
			op("band_part", args{"x": "r", "lower": -1, "upper": -1}, out("b", x)).
			op("squeeze", args{"x": "b"}, out("s", x)).
			op("slice_by_index", args{"x": "s", "begin": []int{0, 0}, "end": []int{2, 2}}, out("w", x)).
			op("slice_by_size", args{"x": "w", "begin": []int{0, 0}, "size": []int{-1, 2}}, out("z", x)).
			op("resample", args{"x": "q", "coordinates": f32([]int{1, 1, 1, 2}, 1, 0), "sampling_mode": str("nearest"), "padding_mode": str("constant"), "padding_value": 0.0,
				"coordinates_mode": str("normalized_zero_to_one"), "align_corners": true}, out("n", f32([]int{1, 1, 1, 1}, 2))).in("q", ramp(1, 1, 2, 2)).check(t)
	})
	t.Run("pads by data", func(t *testing.T) {
		newProg().in("x", ramp(1, 2)).in("p", i32([]int{4}, 0, 0, 1, 2)).
			op("pad", args{"x": "x", "pad": "p", "mode": str("constant"), "constant_val": 7.0}, out("y", f32([]int{1, 5}, 7, 1, 2, 7, 7))).check(t)
	})
	t.Run("attention", func(t *testing.T) {
		// Two keys of equal score; the mask drops the second.
		m := model.NewTensor(model.Bool, 1, 1, 2)
		m.SetInt(0, 1)
		newProg().in("q", f32([]int{1, 1, 2}, 1, 0)).in("k", f32([]int{1, 2, 2}, 0, 1, 0, 1)).in("v", f32([]int{1, 2, 2}, 2, 4, 6, 8)).
			op("scaled_dot_product_attention", args{"query": "q", "key": "k", "value": "v"}, out("a", f32([]int{1, 1, 2}, 4, 6))).
			op("scaled_dot_product_attention", args{"query": "q", "key": "k", "value": "v", "attn_mask": m}, out("b", f32([]int{1, 1, 2}, 2, 4))).check(t)
	})
}
