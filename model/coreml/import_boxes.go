package coreml

import (
	"github.com/triune-sim/triune/model"
)

// Regions of images, detection, random numbers and lists.

func init() {
	handle((*call).cropResize, "crop_resize")
	handle((*call).boxSuppression, "non_maximum_suppression")
	handle(func(c *call) {
		c.random("RandomNormal", model.Attrs{"mean": c.float("mean", 0), "scale": c.float("stddev", 1)}, c.numberType("mean"))
	}, "random_normal")
	handle(func(c *call) {
		c.random("RandomUniform", model.Attrs{"low": c.float("low", 0), "high": c.float("high", 1)}, c.numberType("low"))
	}, "random_uniform")
	handle(func(c *call) {
		d := c.numberType("prob")
		p := c.fill("prob", d, c.float("prob", 0.5), c.randomShape()...)
		c.result("Bernoulli", c.seeded(model.Attrs{"dtype": d.String()}), p)
	}, "random_bernoulli")
	handle((*call).randomCategorical, "random_categorical")

	handle((*call).makeList, "make_list")
	handle(func(c *call) {
		ls := c.in("ls")
		c.set(0, c.mid("Cast", model.Attrs{"to": model.Int32.String()}, c.mid("Gather", model.Attrs{"axis": 0}, c.mid("Shape", nil, ls), c.scalar("zero", model.Int64, 0))))
	}, "list_length")
	handle(func(c *call) {
		c.result("Gather", model.Attrs{"axis": 0}, c.in("ls"), c.as64(c.in("index")))
	}, "list_read")
	handle(func(c *call) {
		c.result("Gather", model.Attrs{"axis": 0}, c.in("ls"), c.as64(c.in("indices")))
	}, "list_gather")
	handle(func(c *call) {
		v := c.in("value")
		at := c.mid("Reshape", nil, c.as64(c.in("index")), c.int64s("at", 1, 1))
		c.result("ScatterND", nil, c.in("ls"), at, c.mid("Unsqueeze", nil, v, c.int64s("axes", 0)))
	}, "list_write")
	handle(func(c *call) {
		at := c.mid("Unsqueeze", nil, c.as64(c.in("indices")), c.int64s("axes", 1))
		c.result("ScatterND", nil, c.in("ls"), at, c.in("value"))
	}, "list_scatter")
}

// makeList: a list of a fixed number of tensors of one shape is a tensor with
// one more axis in front, zero where nothing was written.
func (c *call) makeList() {
	n := c.int("init_length", 1)
	if c.bool("dynamic_length", true) {
		failf("a list whose length changes; convert with a fixed number of elements (dynamic_length = False)")
	}
	d, err := model.ParseDType(c.str("dtype", "fp32"))
	try(err)
	shape := model.Shape{n}
	for _, b := range c.op.arg("elem_shape") {
		e := c.entryOf(b)
		if e.v == nil || e.v.Const == nil {
			failf("a list of elements of unknown shape")
		}
		t := c.valueOf(e.v)
		if t == nil || t.DType == model.String || len(shape)+t.Len() > maxRank {
			failf("a list of elements of unknown shape")
		}
		shape = append(shape, toInts("elem_shape", t)...)
	}
	for _, k := range shape {
		if k < 0 {
			failf("a list of shape %v", shape)
		}
	}
	c.set(0, c.fill("list", d, 0, shape...))
}

// numberType is the element type of a parameter, fp32 where it is left out.
func (c *call) numberType(key string) model.DType {
	if v := c.opt(key); v != nil {
		return v.DType
	}
	return model.Float32
}

func (c *call) randomShape() []int {
	shape := c.ints("shape", nil)
	if e := model.Shape(shape).Elems(); !c.has("shape") || e < 0 || 8*e > maxTensor {
		failf("random numbers of shape %v", model.Shape(shape))
	}
	return shape
}

// seeded adds the seed of an operation. Without one (-1) a node's numbers
// follow from its name: a run can be repeated.
func (c *call) seeded(a model.Attrs) model.Attrs {
	if s := c.int("seed", -1); s != -1 {
		a["seed"] = float64(s)
	}
	return a
}

func (c *call) random(op model.Op, a model.Attrs, d model.DType) {
	a["shape"], a["dtype"] = c.randomShape(), d.String()
	c.result(op, c.seeded(a))
}

// randomCategorical: ONNX's Multinomial takes one matrix of log-probabilities
// and gives integers.
func (c *call) randomCategorical() {
	x := c.in("x")
	r := rank(x)
	if r < 1 || !x.Shape.Known() {
		failf("x of shape %v", x.Shape)
	}
	if mode := c.str("mode", "logits"); mode == "probs" {
		x = c.mid("Log", nil, x)
	} else if mode != "logits" {
		failf("mode %s (want logits or probs)", quote(mode))
	}
	n := c.int("size", 1)
	if n < 1 || n > 1<<24 {
		failf("%d samples", n)
	}
	flat := c.mid("Reshape", nil, x, c.int64s("flat", -1, x.Shape[r-1]))
	draw := c.mid("Multinomial", c.seeded(model.Attrs{"sample_size": n, "dtype": model.Int32.String()}), flat)
	shape := append(x.Shape.Clone()[:r-1], n)
	c.result("Reshape", nil, c.cast(draw, x.DType), c.int64s("shape", shape...))
}

// cropResize: until iOS16 the boxes are roi [N, 1, 4 or 5, 1, 1], for all
// images or behind the number of one, and the output has an axis of images;
// from iOS17 on they are boxes [N, 4] and box_indices [N].
func (c *call) cropResize() {
	x := c.in("x")
	if rank(x) != 4 {
		failf("x of shape %v", x.Shape)
	}
	mode := c.str("box_coordinate_mode", "CORNERS_HEIGHT_FIRST")
	if mode == "CONRNERS_HEIGHT_FIRST" { // the default, as coremltools spells it
		mode = "CORNERS_HEIGHT_FIRST"
	}
	h, w := c.int("target_height", 1), c.int("target_width", 1)
	attrs := model.Attrs{"height": h, "width": w, "box_coordinate_mode": mode, "sampling_mode": c.str("sampling_mode", "DEFAULT"),
		"normalized": b2i(c.bool("normalized_coordinates", false)), "spatial_scale": c.float("spatial_scale", 1)}
	if c.has("pad_value") {
		attrs["pad_value"] = c.float("pad_value", 0)
	} else if c.im.g.Opset == "CoreML5" {
		attrs["clamp"] = 1
	}
	if c.has("boxes") {
		ins := []*model.Value{x, c.cast(c.in("boxes"), x.DType)}
		if k := c.opt("box_indices"); k != nil {
			ins = append(ins, c.as64(k))
		}
		c.result("CropResize", attrs, ins...)
		return
	}
	roi := c.in("roi")
	s := roi.Shape
	if len(s) != 5 || s[0] < 1 || s[2] != 4 && s[2] != 5 || x.Shape[0] < 1 || x.Shape[1] < 1 || s[1] != 1 || s[3] != 1 || s[4] != 1 {
		failf("x of shape %v with roi of shape %v (want [N,1,4,1,1] or [N,1,5,1,1])", x.Shape, s)
	}
	n, images := s[0], 1
	flat := c.mid("Reshape", nil, roi, c.int64s("rows", n, s[2]))
	var boxes, image *model.Value
	if s[2] == 5 {
		image = c.cast(c.mid("Gather", model.Attrs{"axis": 1}, flat, c.scalar("first", model.Int64, 0)), model.Int64)
		boxes = c.mid("Slice", nil, flat, c.int64s("starts", 1), c.int64s("ends", 5), c.int64s("axes", 1))
	} else {
		images = x.Shape[0]
		if n*images > maxStatic {
			failf("%d boxes on %d images", n, images)
		}
		row, at := make([]int, n*images), make([]int, n*images)
		for i := range row {
			row[i], at[i] = i/images, i%images
		}
		boxes = c.mid("Gather", model.Attrs{"axis": 0}, flat, c.int64s("row", row...))
		image = c.int64s("image", at...)
	}
	y := c.mid("CropResize", attrs, x, c.cast(boxes, x.DType), image)
	c.result("Reshape", nil, y, c.int64s("shape", n, images, x.Shape[1], h, w))
}

func (c *call) boxSuppression() {
	c.results("BoxSuppression", model.Attrs{"iou_threshold": c.float("iou_threshold", 0), "score_threshold": c.float("score_threshold", 0),
		"max_boxes": c.int("max_boxes", 1), "per_class": b2i(c.bool("per_class_suppression", false))}, 4, c.in("boxes"), c.in("scores"))
}
