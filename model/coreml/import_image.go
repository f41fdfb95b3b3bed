package coreml

import (
	"math"

	"github.com/triune-sim/triune/model"
)

// Resizing and sampling of images.

func init() {
	handle(func(c *call) {
		x := c.in("x")
		h, w := c.upsampled(x)
		c.resize(x, model.Attrs{"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, h, w)
	}, "upsample_nearest_neighbor")
	handle(func(c *call) {
		x := c.in("x")
		h, w := c.upsampled(x)
		// iOS16 added half_pixel_centers, by default the opposite of
		// align_corners.
		align := c.bool("align_corners", true)
		half := c.bool("half_pixel_centers", !align)
		mode := "asymmetric"
		switch {
		case align:
			mode = "align_corners"
		case half:
			mode = "half_pixel"
		}
		c.resize(x, model.Attrs{"mode": "linear", "coordinate_transformation_mode": mode}, h, w)
	}, "upsample_bilinear")
	handle(func(c *call) {
		x := c.in("x")
		c.resize(x, model.Attrs{"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
			c.int("target_size_height", 1), c.int("target_size_width", 1))
	}, "resize_nearest_neighbor")
	handle(func(c *call) {
		x := c.in("x")
		h, w := c.int("target_size_height", 1), c.int("target_size_width", 1)
		mode := c.str("sampling_mode", "DEFAULT")
		if mode == "OFFSET_CORNERS" {
			c.resizeOffset(x, h, w)
			return
		}
		c.resize(x, model.Attrs{"mode": "linear", "coordinate_transformation_mode": sampling(mode)}, h, w)
	}, "resize_bilinear")
	handle((*call).resize17, "resize")
	handle((*call).resample, "resample")
	handle((*call).affineGrid, "affine")
}

// upsampled returns the output size of an upsampling: floor(in * factor). MIL
// defines it by the output size, the factor is recomputed from it.
func (c *call) upsampled(x *model.Value) (h, w int) {
	r := rank(x)
	if r < 3 {
		failf("x of shape %v", x.Shape)
	}
	size := func(i int, key string) int {
		f := c.float(key, 1)
		d := x.Shape[r+i]
		if d < 0 {
			failf("an input of unknown size %v", x.Shape)
		}
		n := math.Floor(f * float64(d))
		if !(n >= 0 && n <= 1<<24) {
			failf("%s %v of a size of %d", key, f, d)
		}
		return int(n)
	}
	return size(-2, "scale_factor_height"), size(-1, "scale_factor_width")
}

// sampling maps a sampling mode to ONNX's coordinate transformation.
func sampling(mode string) string {
	switch mode {
	case "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS":
		return "align_corners"
	case "DEFAULT":
		return "asymmetric"
	case "UNALIGN_CORNERS":
		return "half_pixel"
	}
	failf("sampling_mode %s (want DEFAULT, STRICT_ALIGN_CORNERS, ALIGN_CORNERS, UNALIGN_CORNERS, or OFFSET_CORNERS of a linear resize)", quote(mode))
	return ""
}

// resizeOffset samples the middles of h x w equal parts of the span between the
// first and the last pixel, which ONNX's Resize cannot: the whole image is the
// box.
func (c *call) resizeOffset(x *model.Value, h, w int) {
	if rank(x) != 4 || !x.Shape.Known() || x.Shape[0] < 1 || x.Shape[0] > maxStatic {
		failf("sampling_mode OFFSET_CORNERS with x of shape %v (want four known dimensions)", x.Shape)
	}
	n := x.Shape[0]
	t := newNumbers(x.DType, n, 4)
	for i := range n {
		t.Set(4*i+2, float64(x.Shape[2]-1))
		t.Set(4*i+3, float64(x.Shape[3]-1))
	}
	c.result("CropResize", model.Attrs{"height": h, "width": w, "box_coordinate_mode": "CORNERS_HEIGHT_FIRST", "sampling_mode": "OFFSET_CORNERS"},
		x, c.constValue("boxes", model.NewConst(t)))
}

func (c *call) resize(x *model.Value, attrs model.Attrs, h, w int) {
	r := rank(x)
	sizes := make([]int, r)
	copy(sizes, x.Shape)
	if r < 2 {
		failf("x of shape %v", x.Shape)
	}
	sizes[r-2], sizes[r-1] = h, w
	for _, d := range sizes {
		if d < 0 {
			failf("an input of unknown size %v", x.Shape)
		}
	}
	c.result("Resize", attrs, x, nil, nil, c.int64s("sizes", sizes...))
}

// resize17 is iOS17's resize: the last dimensions take the sizes of shape.
func (c *call) resize17() {
	x := c.in("x")
	shape := c.ints("shape", nil)
	r, n := rank(x), len(shape)
	if rd := c.int("resized_dims", n); rd < n {
		shape = shape[n-rd:]
		n = rd
	}
	if n > r || !x.Shape.Known() {
		failf("x of shape %v resized to %v", x.Shape, shape)
	}
	sizes := make([]int, r)
	copy(sizes, x.Shape)
	for i, d := range shape {
		if d != 0 { // 0 keeps the size
			sizes[r-n+i] = d
		}
	}
	if c.str("sampling_mode", "DEFAULT") == "OFFSET_CORNERS" && c.str("interpolation_mode", "LINEAR") == "LINEAR" && r == 4 && sizes[0] == x.Shape[0] && sizes[1] == x.Shape[1] {
		c.resizeOffset(x, sizes[2], sizes[3])
		return
	}
	attrs := model.Attrs{"coordinate_transformation_mode": sampling(c.str("sampling_mode", "DEFAULT"))}
	switch mode := c.str("interpolation_mode", "LINEAR"); mode {
	case "LINEAR":
		attrs["mode"] = "linear"
	case "NEAREST_NEIGHBOR":
		attrs["mode"], attrs["nearest_mode"] = "nearest", "floor"
	default:
		failf("interpolation_mode %s", quote(mode))
	}
	c.result("Resize", attrs, x, nil, nil, c.int64s("sizes", sizes...))
}

// gridMode maps the modes that resample and affine share.
func (c *call) gridMode() model.Attrs {
	a := model.Attrs{"align_corners": b2i(c.bool("align_corners", true))}
	switch m := c.str("sampling_mode", "bilinear"); m {
	case "bilinear":
		a["mode"] = "linear"
	case "nearest":
		a["mode"] = "nearest"
	default:
		failf("sampling_mode %s", quote(m))
	}
	switch m := c.str("padding_mode", "constant"); m {
	case "constant":
		if v := c.float("padding_value", 0); v != 0 {
			failf("padding_value %v (only 0 is supported)", v)
		}
		a["padding_mode"] = "zeros"
	case "border":
		a["padding_mode"] = "border"
	case "reflection":
		a["padding_mode"] = "reflection"
	default:
		failf("padding_mode %s (want constant, border or reflection)", quote(m))
	}
	return a
}

// normalize turns coordinates into the range -1 to 1.
func (c *call) normalize(x, g *model.Value, mode string, align bool) *model.Value {
	switch mode {
	case "normalized_minus_one_to_one":
		return g
	case "normalized_zero_to_one":
		return c.mid("Sub", nil, c.mid("Mul", nil, g, c.scalar("two", g.DType, 2)), c.scalar("one", g.DType, 1))
	case "unnormalized":
		// Pixels p of a size n: 2p/(n-1) - 1 when corners are aligned, else
		// (2p+1)/n - 1.
		h, w := x.Shape[2], x.Shape[3]
		if h < 1 || w < 1 {
			failf("an input of unknown size %v", x.Shape)
		}
		mul, add := newNumbers(g.DType, 2), newNumbers(g.DType, 2)
		for i, n := range []int{w, h} {
			if align {
				mul.Set(i, 2/float64(max(n-1, 1)))
				add.Set(i, -1)
			} else {
				mul.Set(i, 2/float64(n))
				add.Set(i, 1/float64(n)-1)
			}
		}
		return c.mid("Add", nil, c.mid("Mul", nil, g, c.constValue("mul", model.NewConst(mul))), c.constValue("add", model.NewConst(add)))
	}
	failf("coordinates_mode %s", quote(mode))
	return nil
}

func (c *call) resample() {
	x, g := c.in("x"), c.in("coordinates")
	if rank(x) != 4 || rank(g) != 4 {
		failf("x of shape %v with coordinates of shape %v", x.Shape, g.Shape)
	}
	attrs := c.gridMode()
	g = c.normalize(x, c.cast(g, x.DType), c.str("coordinates_mode", "normalized_minus_one_to_one"), c.bool("align_corners", true))
	c.result("GridSample", attrs, x, g)
}

func (c *call) affineGrid() {
	x, m := c.in("x"), c.in("transform_matrix")
	if rank(x) != 4 || rank(m) != 2 || !x.Shape.Known() {
		failf("x of shape %v with a matrix of shape %v", x.Shape, m.Shape)
	}
	if mode := c.str("coordinates_mode", "normalized_minus_one_to_one"); mode != "normalized_minus_one_to_one" {
		failf("coordinates_mode %s (want normalized_minus_one_to_one)", quote(mode))
	}
	attrs := c.gridMode()
	n, ch := x.Shape[0], x.Shape[1]
	theta := c.mid("Reshape", nil, c.cast(m, x.DType), c.int64s("matrix", -1, 2, 3))
	size := c.int64s("size", n, ch, c.int("output_height", x.Shape[2]), c.int("output_width", x.Shape[3]))
	grid := c.mid("AffineGrid", model.Attrs{"align_corners": attrs["align_corners"]}, theta, size)
	c.result("GridSample", attrs, x, grid)
}
