package ops

import (
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
)

// Resize: X, roi, scales, sizes. Axis by axis separable interpolation; the
// coordinate transformations and the cubic and antialias filters follow the
// operator's specification (opset 19).

// resizePlan returns the output shape, the scale of each axis and the region
// of interest of each axis.
func resizePlan(a model.Attrs, x model.Shape, scales []float64, sizes []int, roi []float64) (model.Shape, []float64, [][2]float64) {
	rank := len(x)
	axes := a.Ints("axes", nil)
	if axes == nil {
		axes = make([]int, rank)
		for i := range axes {
			axes[i] = i
		}
	}
	axes = normAxes(axes, rank)
	out := x.Clone()
	sc := make([]float64, rank)
	region := make([][2]float64, rank)
	for i := range sc {
		sc[i], region[i] = 1, [2]float64{0, 1}
	}
	switch {
	case len(sizes) > 0:
		if len(sizes) != len(axes) {
			failf("%d sizes for %d axes", len(sizes), len(axes))
		}
		policy := a.String("keep_aspect_ratio_policy", "stretch")
		for i, ax := range axes {
			if sizes[i] < 0 || sizes[i] > 1<<30 {
				failf("sizes %v are out of range", sizes)
			}
			out[ax] = sizes[i]
			if x[ax] > 0 {
				sc[ax] = float64(sizes[i]) / float64(x[ax])
			}
		}
		if policy != "stretch" {
			s := sc[axes[0]]
			for _, ax := range axes {
				if policy == "not_larger" {
					s = min(s, sc[ax])
				} else {
					s = max(s, sc[ax])
				}
			}
			for _, ax := range axes {
				sc[ax] = s
				out[ax] = int(math.Floor(s*float64(x[ax]) + 0.5))
			}
		}
	case len(scales) > 0:
		if len(scales) != len(axes) {
			failf("%d scales for %d axes", len(scales), len(axes))
		}
		for i, ax := range axes {
			if !(scales[i] > 0) || scales[i]*float64(max(1, x[ax])) > 1<<30 {
				failf("scale %g is out of range", scales[i])
			}
			sc[ax] = scales[i]
		}
	default:
		failf("neither scales nor sizes are given")
	}
	if len(roi) > 0 && a.String("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize" {
		if len(roi) != 2*len(axes) {
			failf("roi has %d values, wants %d", len(roi), 2*len(axes))
		}
		for i, ax := range axes {
			region[ax] = [2]float64{roi[i], roi[len(axes)+i]}
		}
	}
	if len(sizes) == 0 {
		crop := a.String("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
		for _, ax := range axes {
			if x[ax] < 0 {
				out[ax] = -1
				continue
			}
			span := 1.0
			if crop {
				span = region[ax][1] - region[ax][0]
			}
			out[ax] = int(math.Floor(float64(x[ax]) * span * sc[ax]))
		}
	}
	return out, sc, region
}

func inferResize(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	x := c.shape(0)
	var scales, roi []float64
	var sizes []int
	if c.has(3) {
		v, ok := c.ints(3)
		if !ok {
			c.out(0, d, unknown(len(x)))
			return
		}
		sizes = v
	}
	if len(sizes) == 0 && c.has(2) {
		t := c.value(2)
		if t == nil {
			c.out(0, d, unknown(len(x)))
			return
		}
		scales = floats(t)
	}
	if c.has(1) {
		if t := c.value(1); t != nil {
			roi = floats(t)
		}
	}
	out, _, _ := resizePlan(c.n.Attrs, x, scales, sizes, roi)
	c.out(0, d, out)
}

// tap is one input sample and its weight; index -1 is the extrapolation value.
type tap struct {
	i int
	w float64
}

// resizeAxis returns for each output position the input samples it blends.
func resizeAxis(a model.Attrs, in, out int, scale float64, roi [2]float64) [][]tap {
	coord := a.String("coordinate_transformation_mode", "half_pixel")
	mode := a.String("mode", "nearest")
	anti := a.Int("antialias", 0) != 0 && scale < 1 && mode != "nearest"
	exclude := a.Int("exclude_outside", 0) != 0
	cubicA := a.Float("cubic_coeff_a", -0.75)
	res := make([][]tap, out)
	for o := range res {
		x := float64(o)
		var src float64
		switch coord {
		case "half_pixel":
			src = (x+0.5)/scale - 0.5
		case "half_pixel_symmetric":
			width := float64(out)
			adjust := width / (scale * float64(in))
			center := float64(in) / 2
			src = center*(1-adjust) + (x+0.5)/scale - 0.5
		case "pytorch_half_pixel":
			if out > 1 {
				src = (x+0.5)/scale - 0.5
			}
		case "align_corners":
			// The resized length counts before it is rounded down.
			if length := scale * float64(in); out > 1 && length > 1 {
				src = x * float64(in-1) / (length - 1)
			}
		case "asymmetric":
			src = x / scale
		case "tf_half_pixel_for_nn":
			src = (x + 0.5) / scale
		case "tf_crop_and_resize":
			if out > 1 {
				src = roi[0]*float64(in-1) + x*(roi[1]-roi[0])*float64(in-1)/float64(out-1)
			} else {
				src = 0.5 * (roi[0] + roi[1]) * float64(in-1)
			}
			if src < 0 || src > float64(in-1) {
				res[o] = []tap{{-1, 1}}
				continue
			}
		default:
			failf("unknown coordinate_transformation_mode %q", coord)
		}
		// Undo the rounding noise of the division, so that exact positions
		// are exact.
		if r := math.Round(src*4) / 4; math.Abs(src-r) < 1e-9 {
			src = r
		}
		switch mode {
		case "nearest":
			var i float64
			switch nm := a.String("nearest_mode", "round_prefer_floor"); nm {
			case "round_prefer_floor":
				i = math.Ceil(src - 0.5)
			case "round_prefer_ceil":
				i = math.Floor(src + 0.5)
			case "floor":
				i = math.Floor(src)
			case "ceil":
				i = math.Ceil(src)
			default:
				failf("unknown nearest_mode %q", nm)
			}
			res[o] = []tap{{max(0, min(in-1, int(i))), 1}}
		case "linear", "cubic":
			radius := 1.0
			kernel := func(t float64) float64 { return max(0, 1-math.Abs(t)) }
			if mode == "cubic" {
				radius = 2
				kernel = func(t float64) float64 { return cubicWeight(t, cubicA) }
			}
			stretch := 1.0
			if anti {
				stretch = scale
				radius /= scale
			}
			lo, hi := int(math.Floor(src-radius))+1, int(math.Ceil(src+radius))-1
			if hi < lo {
				hi = lo
			}
			var ts []tap
			sum := 0.0
			for i := lo; i <= hi; i++ {
				w := kernel((float64(i) - src) * stretch)
				if exclude && (i < 0 || i >= in) {
					w = 0
				}
				if w == 0 {
					continue
				}
				sum += w
				ts = append(ts, tap{max(0, min(in-1, i)), w})
			}
			if sum != 0 && (anti || exclude) {
				for k := range ts {
					ts[k].w /= sum
				}
			}
			res[o] = ts
		default:
			failf("unknown mode %q", mode)
		}
	}
	return res
}

// cubicWeight is the convolution kernel of Keys (1981) with parameter a.
func cubicWeight(t, a float64) float64 {
	t = math.Abs(t)
	switch {
	case t <= 1:
		return (a+2)*t*t*t - (a+3)*t*t + 1
	case t < 2:
		return a*t*t*t - 5*a*t*t + 8*a*t - 4*a
	}
	return 0
}

func evalResize(c *call) {
	x := c.x(0)
	var scales, roi []float64
	if t := c.opt(2); t != nil {
		scales = floats(t)
	}
	if t := c.opt(1); t != nil {
		roi = floats(t)
	}
	shape, sc, region := resizePlan(c.n.Attrs, x.Shape, scales, c.ints(3, nil), roi)
	c.size(x.DType, shape)
	fill := c.n.Attrs.Float("extrapolation_value", 0)
	v, cur := floats(x), x.Shape.Clone()
	for ax := range shape {
		if cur[ax] == shape[ax] && sc[ax] == 1 && region[ax] == [2]float64{0, 1} {
			continue
		}
		if cur[ax] == 0 {
			failf("cannot resize an empty axis %d of %v", ax, x.Shape)
		}
		taps := resizeAxis(c.n.Attrs, cur[ax], shape[ax], sc[ax], region[ax])
		next := cur.Clone()
		next[ax] = shape[ax]
		outer, inner := prod(cur[:ax]), prod(cur[ax+1:])
		out := c.alloc(next)
		for o := range outer {
			for p, ts := range taps {
				dst := out[(o*shape[ax]+p)*inner : (o*shape[ax]+p+1)*inner]
				for _, t := range ts {
					if t.i < 0 {
						for k := range dst {
							dst[k] += fill
						}
						continue
					}
					src := v[(o*cur[ax]+t.i)*inner : (o*cur[ax]+t.i+1)*inner]
					for k, s := range src {
						dst[k] += t.w * s
					}
				}
			}
		}
		v, cur = out, next
	}
	switch {
	case x.DType.IsFloat():
		c.putF(0, x.DType, shape, slices.Clone(v))
	default:
		r := make([]int64, len(v))
		for i, f := range v {
			r[i] = clampInt(x.DType, f)
		}
		c.putI(0, x.DType, shape, r)
	}
}

func init() {
	register("resize", [4]int{1, 4, 1, 1}, inferResize, evalResize, "Resize")
}
