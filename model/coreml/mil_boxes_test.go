package coreml

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// TestCropResize holds crop_resize to the cases of coremltools' own test
// (test_image_resizing.py), in the form of iOS15 and in that of iOS17.
func TestCropResize(t *testing.T) {
	x := f32([]int{1, 1, 4, 4}, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
	for i, c := range []struct {
		box  []float64
		n    int
		norm bool
		want []float64
	}{
		{[]float64{1, 1, 2, 2}, 2, false, []float64{6, 7, 10, 11}},
		{[]float64{1, 1, 2, 2}, 4, false, []float64{6, 6.333333, 6.666666, 7, 7.333333, 7.666666, 8, 8.333333, 8.666666, 9, 9.333333, 9.666666, 10, 10.333333, 10.666666, 11}},
		{[]float64{1, 1, 2, 2}, 1, false, []float64{8.5}},
		{[]float64{0, 0, 1. / 3, 1. / 3}, 2, true, []float64{1, 2, 5, 6}},
		{[]float64{2, 2, 1, 1}, 2, false, []float64{11, 10, 7, 6}},
	} {
		a := args{"x": "x", "target_height": c.n, "target_width": c.n, "normalized_coordinates": c.norm, "box_coordinate_mode": str("CORNERS_HEIGHT_FIRST"), "sampling_mode": str("ALIGN_CORNERS")}
		t.Run(fmt.Sprint("roi ", i), func(t *testing.T) {
			a["roi"] = f32([]int{1, 1, 4, 1, 1}, c.box...)
			newProg().in("x", x).op("crop_resize", a, out("y", f32([]int{1, 1, 1, c.n, c.n}, c.want...))).check(t)
			a["roi"] = f32([]int{1, 1, 5, 1, 1}, append([]float64{0}, c.box...)...)
			newProg().in("x", x).op("crop_resize", a, out("y", f32([]int{1, 1, 1, c.n, c.n}, c.want...))).check(t)
		})
		t.Run(fmt.Sprint("boxes ", i), func(t *testing.T) {
			delete(a, "roi")
			a["boxes"], a["box_indices"], a["pad_value"] = f32([]int{1, 4}, c.box...), i32([]int{1}, 0), 0.0
			newProg().in("x", x).op("crop_resize", a, out("y", f32([]int{1, 1, c.n, c.n}, c.want...))).check(t)
		})
	}
	// Two boxes on two images: by width first, by centre, scaled, and beyond
	// the image.
	two := f32([]int{2, 1, 2, 2}, 0, 1, 2, 3, 10, 11, 12, 13)
	t.Run("two images", func(t *testing.T) {
		newProg().in("x", two).op("crop_resize", args{"x": "x", "roi": f32([]int{2, 1, 4, 1, 1}, 1, 0, 1, 1, 0.5, 0.5, 0, 1), "target_height": 2,
			"box_coordinate_mode": str("CORNERS_WIDTH_FIRST"), "sampling_mode": str("STRICT_ALIGN_CORNERS")},
			out("y", f32([]int{2, 2, 1, 2, 1}, 1, 3, 11, 13, 1.5, 2.5, 11.5, 12.5))).check(t)
	})
	t.Run("centre", func(t *testing.T) {
		newProg().in("x", two).op("crop_resize", args{"x": "x", "boxes": f32([]int{1, 4}, 1, 1, 2, 2), "box_indices": i32([]int{1}, 1), "spatial_scale": 0.5,
			"target_height": 2, "target_width": 2, "box_coordinate_mode": str("CENTER_SIZE_WIDTH_FIRST"), "sampling_mode": str("ALIGN_CORNERS"), "pad_value": 0.0},
			out("y", f32([]int{1, 1, 2, 2}, 10, 11, 12, 13))).check(t)
	})
	t.Run("outside", func(t *testing.T) {
		box := args{"x": "x", "boxes": f32([]int{1, 4}, 0, -1, 0, 2), "box_indices": i32([]int{1}, 0), "target_width": 4, "sampling_mode": str("ALIGN_CORNERS"), "pad_value": -5.0}
		newProg().in("x", two).op("crop_resize", box, out("y", f32([]int{1, 1, 1, 4}, -5, 0, 1, -5))).check(t)
		delete(box, "pad_value")
		old := newProg().in("x", two)
		old.fn.opset = "CoreML5" // iOS15 knows no padding: the nearest pixel
		old.op("crop_resize", box, out("y", f32([]int{1, 1, 1, 4}, 0, 0, 1, 1)))
		g := old.read(t)
		old.compare(t, g, "read")
		// The writer cannot say that, and says so.
		if _, err := Size(g, Options{}); err == nil || !strings.Contains(err.Error(), "iOS15") {
			t.Errorf("writing it: error %v", err)
		}
	})
}

// TestSamplingModes checks the grid points that coremltools' documentation of
// resize_bilinear lists for an input of two pixels, 0 and 1.
func TestSamplingModes(t *testing.T) {
	x := f32([]int{1, 1, 1, 2}, 0, 1)
	third, twelfth := 1./3, 1./12
	for mode, want := range map[string][2][]float64{
		"UNALIGN_CORNERS":      {{0, 0.1, 0.5, 0.9, 1}, {0, 0, third, 2 * third, 1, 1}},
		"STRICT_ALIGN_CORNERS": {{0, 0.25, 0.5, 0.75, 1}, {0, 0.2, 0.4, 0.6, 0.8, 1}},
		"ALIGN_CORNERS":        {{0, 0.25, 0.5, 0.75, 1}, {0, 0.2, 0.4, 0.6, 0.8, 1}},
		"DEFAULT":              {{0, 0.4, 0.8, 1, 1}, {0, third, 2 * third, 1, 1, 1}},
		"OFFSET_CORNERS":       {{0.1, 0.3, 0.5, 0.7, 0.9}, {twelfth, 3 * twelfth, 5 * twelfth, 7 * twelfth, 9 * twelfth, 11 * twelfth}},
	} {
		for _, w := range want {
			n := len(w)
			t.Run(fmt.Sprint(mode, " ", n), func(t *testing.T) {
				y := out("y", f32([]int{1, 1, 1, n}, w...))
				newProg().in("x", x).op("resize_bilinear", args{"x": "x", "target_size_height": 1, "target_size_width": n, "sampling_mode": str(mode)}, y).check(t)
				newProg().in("x", x).op("resize", args{"x": "x", "shape": []int{1, n}, "resized_dims": 2, "sampling_mode": str(mode)}, y).check(t)
				newProg().in("x", x).op("crop_resize", args{"x": "x", "boxes": f32([]int{1, 4}, 0, 0, 0, 1), "target_width": n, "sampling_mode": str(mode), "pad_value": 0.0}, y).check(t)
			})
		}
	}
}

// TestNonMaximumSuppression: the first case is coremltools' own, the others are
// worked out by hand. Boxes are centre x, centre y, width, height.
func TestNonMaximumSuppression(t *testing.T) {
	run := func(name string, boxes, scores *model.Tensor, a args, wantB, wantS, wantI, wantN *model.Tensor) {
		t.Run(name, func(t *testing.T) {
			a["boxes"], a["scores"] = "boxes", "scores"
			newProg().in("boxes", boxes).in("scores", scores).op("non_maximum_suppression", a, out("b", wantB), out("s", wantS), out("i", wantI), out("n", wantN)).check(t)
		})
	}
	run("smoke", f32([]int{1, 4, 4}, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), f32([]int{1, 4, 1}, -3.5, 9.4, 2.3, 0.7),
		args{"iou_threshold": 0.2, "score_threshold": 0.4, "max_boxes": 2, "per_class_suppression": true},
		f32([]int{1, 2, 4}, 1, 1, 1, 1, 2, 2, 2, 2), f32([]int{1, 2, 1}, 9.4, 2.3), i32([]int{1, 2}, 1, 2), i32([]int{1}, 2))
	// Box 1 is box 0 moved by a tenth of its width: they share 0.9 of 1.1.
	// Box 2 lies elsewhere. Two classes: 0 and 2 are of class 0, 1 of class 1.
	boxes := f32([]int{1, 3, 4}, 0, 0, 1, 1, 0.1, 0, 1, 1, 5, 5, 1, 1)
	scores := f32([]int{1, 3, 2}, 0.9, 0, 0.1, 0.8, 0.7, 0.2)
	run("across classes", boxes, scores, args{"iou_threshold": 0.5, "score_threshold": 0.0, "max_boxes": 4, "per_class_suppression": false},
		f32([]int{1, 4, 4}, 0, 0, 1, 1, 5, 5, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0), f32([]int{1, 4, 2}, 0.9, 0, 0.7, 0.2, 0, 0, 0, 0), i32([]int{1, 4}, 0, 2, -1, -1), i32([]int{1}, 2))
	run("within classes", boxes, scores, args{"iou_threshold": 0.5, "score_threshold": 0.0, "max_boxes": 3, "per_class_suppression": true},
		f32([]int{1, 3, 4}, 0, 0, 1, 1, 0.1, 0, 1, 1, 5, 5, 1, 1), f32([]int{1, 3, 2}, 0.9, 0, 0.1, 0.8, 0.7, 0.2), i32([]int{1, 3}, 0, 1, 2), i32([]int{1}, 3))
	// 0.9 / 1.1 = 0.818: below the threshold they stay.
	run("threshold", boxes, scores, args{"iou_threshold": 0.82, "score_threshold": 0.75, "max_boxes": 3, "per_class_suppression": false},
		f32([]int{1, 3, 4}, 0, 0, 1, 1, 0.1, 0, 1, 1, 0, 0, 0, 0), f32([]int{1, 3, 2}, 0.9, 0, 0.1, 0.8, 0, 0), i32([]int{1, 3}, 0, 1, -1), i32([]int{1}, 2))
	// No score is high enough: the best box alone.
	run("none", boxes, scores, args{"iou_threshold": 0.5, "score_threshold": 2.0, "max_boxes": 2, "per_class_suppression": false},
		f32([]int{1, 2, 4}, 0, 0, 1, 1, 0, 0, 0, 0), f32([]int{1, 2, 2}, 0.9, 0, 0, 0), i32([]int{1, 2}, 0, -1), i32([]int{1}, 1))
}

// TestRandom: with a seed uniform numbers are those of NumPy's RandomState(0),
// which are known; the others repeat and have the moments they should.
func TestRandom(t *testing.T) {
	x := f32([]int{1}, 0)
	newProg().in("x", x).op("relu", args{"x": "x"}, out("r", x)).
		op("random_uniform", args{"shape": []int{4}, "low": 0.0, "high": 2.0, "seed": 0},
			out("y", f32([]int{4}, 2*0.5488135039, 2*0.7151893664, 2*0.6027633761, 2*0.5448831830))).check(t)
	// Certain outcomes.
	newProg().in("x", x).op("relu", args{"x": "x"}, out("r", x)).
		op("random_bernoulli", args{"shape": []int{2, 3}, "prob": 1.0}, out("a", f32([]int{2, 3}, 1, 1, 1, 1, 1, 1))).
		op("random_bernoulli", args{"shape": []int{2}, "prob": 0.0, "seed": 7}, out("b", f32([]int{2}, 0, 0))).
		op("random_categorical", args{"x": f32([]int{2, 3}, 0, 0, 1, 1, 0, 0), "mode": str("probs"), "size": 4, "seed": 3},
			out("c", f32([]int{2, 4}, 2, 2, 2, 2, 0, 0, 0, 0))).check(t)
	run := func(seed int) []float32 {
		p := newProg().in("x", x).op("random_normal", args{"shape": []int{1000}, "mean": 3.0, "stddev": 2.0, "seed": seed}, out("y", f32([]int{1000}, make([]float64, 1000)...)))
		g := p.read(t)
		got, err := ops.EvalGraph(context.Background(), g, p.inputs, ops.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return got["y"].Float32s()
	}
	for _, seed := range []int{-1, 5} {
		a, b := run(seed), run(seed)
		mean, square := 0.0, 0.0
		for i, v := range a {
			if v != b[i] {
				t.Fatalf("seed %d: number %d is %v and then %v", seed, i, v, b[i])
			}
			mean += float64(v) / 1000
			square += float64(v*v) / 1000
		}
		// Four standard errors of 1,000 numbers.
		if dev := math.Sqrt(square - mean*mean); math.Abs(mean-3) > 4*2/math.Sqrt(1000) || math.Abs(dev-2) > 4*2/math.Sqrt(2000) {
			t.Errorf("seed %d: mean %.3f, deviation %.3f, want 3 and 2", seed, mean, dev)
		}
	}
	if a, b := run(5), run(6); a[0] == b[0] {
		t.Error("two seeds give the same numbers")
	}
}

// TestLists writes, scatters, reads and gathers elements of a list.
func TestLists(t *testing.T) {
	ls := func(p *prog, typ string, a args, name string) *prog {
		p.op(typ, a, inner(name, f32([]int{2}, 0, 0)))
		o := p.fn.block.ops[len(p.fn.block.ops)-1]
		e := tensorType(model.Float32, model.Shape{2})
		o.outputs[0].typ = valueType{kind: kindList, elem: &e, length: 4}
		return p
	}
	p := newProg().in("x", f32([]int{2}, 5, 6))
	ls(p, "make_list", args{"init_length": 4, "dynamic_length": false, "elem_shape": []*model.Tensor{i32([]int{}, 2)}, "dtype": str("fp32")}, "l0")
	ls(p, "list_write", args{"ls": "l0", "index": 1, "value": "x"}, "l1")
	ls(p, "list_scatter", args{"ls": "l1", "indices": []int{3, 0}, "value": f32([]int{2, 2}, 1, 2, 3, 4)}, "l2")
	p.op("list_read", args{"ls": "l2", "index": 1}, out("a", f32([]int{2}, 5, 6))).
		op("list_gather", args{"ls": "l2", "indices": []int{0, 2, 3}}, out("b", f32([]int{3, 2}, 3, 4, 0, 0, 1, 2))).
		op("list_length", args{"ls": "l2"}, out("n", i32([]int{}, 4))).check(t)

	grows := newProg().in("x", f32([]int{2}, 5, 6))
	ls(grows, "make_list", args{"init_length": 4, "elem_shape": []*model.Tensor{i32([]int{}, 2)}}, "l0").op("list_read", args{"ls": "l0", "index": 1}, out("a", f32([]int{2}, 5, 6)))
	m := &specModel{version: 9, program: &program{version: 1, names: []string{"main"}, functions: map[string]*function{"main": grows.fn}}}
	if _, err := Read(m.encode(), nil, Options{}); err == nil || !strings.Contains(err.Error(), "dynamic_length = False") {
		t.Errorf("a list that grows: error %v", err)
	}
}

// TestLSTMClip: gates that are all but one make the cell state grow by one a
// step; clipped at 1.5 it stays there.
func TestLSTMClip(t *testing.T) {
	big := 30.0
	c1, c2 := 1.0, 1.5
	newProg().in("x", f32([]int{3, 1, 1}, 0, 0, 0)).
		op("lstm", args{"x": "x", "initial_h": f32([]int{1, 1}, 0), "initial_c": f32([]int{1, 1}, 0), "weight_ih": f32([]int{4, 1}, 0, 0, 0, 0),
			"weight_hh": f32([]int{4, 1}, 0, 0, 0, 0), "bias": f32([]int{4}, big, big, big, big), "direction": str("forward"), "output_sequence": true, "clip": 1.5},
			out("y", f32([]int{3, 1, 1}, math.Tanh(c1), math.Tanh(c2), math.Tanh(c2))), out("h", f32([]int{1, 1}, math.Tanh(c2))), out("c", f32([]int{1, 1}, c2))).check(t)
}

// TestListInLoop carries a list through a loop, as TensorFlow's TensorArray is
// converted: element i becomes i times x.
func TestListInLoop(t *testing.T) {
	elem := tensorType(model.Float32, model.Shape{2})
	list := valueType{kind: kindList, elem: &elem, length: 3}
	x, i := f32([]int{2}, 5, 6), i32([]int{}, 0)
	pred := model.NewTensor(model.Bool)
	p := newProg().in("x", x).in("i0", i).
		op("make_list", args{"init_length": 3, "dynamic_length": false, "elem_shape": []*model.Tensor{i32([]int{}, 2)}}, inner("l0", x)).
		op("while_loop", args{"loop_vars": []string{"i0", "l0"}}, out("i", i32([]int{}, 3)), inner("l", x)).
		op("list_gather", args{"ls": "l", "indices": []int{0, 1, 2}}, out("y", f32([]int{3, 2}, 0, 0, 5, 6, 10, 12)))
	ops := p.fn.block.ops
	ops[0].outputs[0].typ, ops[1].outputs[1].typ = list, list
	vars := func(a, b string) []named { return []named{{a, tensorType(model.Int32, model.Shape{})}, {b, list}} }
	body := []*operation{
		milOp("cast", args{"x": "i2", "dtype": str("fp32")}, inner("f", model.NewTensor(model.Float32))),
		milOp("mul", args{"x": "x", "y": "f"}, inner("v", x)),
		milOp("list_write", args{"ls": "l2", "index": "i2", "value": "v"}, inner("l3", x)),
		milOp("add", args{"x": "i2", "y": 1}, inner("i3", i)),
	}
	body[2].outputs[0].typ = list
	ops[1].blocks = []*block{
		{inputs: vars("i1", "l1"), outputs: []string{"go"}, ops: []*operation{milOp("less", args{"x": "i1", "y": 3}, inner("go", pred))}},
		{inputs: vars("i2", "l2"), outputs: []string{"i3", "l3"}, ops: body},
	}
	p.check(t)
}
