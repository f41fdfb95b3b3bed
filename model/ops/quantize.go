package ops

import (
	"github.com/triune-sim/triune/model"
)

// Quantisation: real = scale * (code - zero). Scale and zero point are scalars
// (per tensor), vectors along axis (per channel), or of the data's rank with a
// block along axis (block_size attribute).

// scaleIndex returns, for each element, the index of its scale.
func scaleIndex(a model.Attrs, x, scale model.Shape) []int {
	n := prod(x)
	if scale.Elems() == 1 && len(scale) <= 1 && a.Int("block_size", 0) == 0 {
		return make([]int, n)
	}
	if len(x) == 0 {
		failf("a scalar with scales of shape %v", scale)
	}
	axis := normAxis(a.Int("axis", 1), len(x))
	full := make([]int, len(x))
	if block := a.Int("block_size", 0); block > 0 || len(scale) == len(x) && len(x) > 1 {
		if len(scale) != len(x) {
			failf("scales of shape %v for blocks of %v", scale, x)
		}
		idx := make([]int, n)
		ss, xs := strides(scale), strides(x)
		div := make([]int, len(x))
		for d := range x {
			switch {
			case block > 0 && d == axis:
				div[d] = block
				if (x[d]+block-1)/block != scale[d] {
					failf("scales of shape %v for %v in blocks of %d along axis %d", scale, x, block, axis)
				}
			case scale[d] == 0 || x[d]%scale[d] != 0:
				failf("scales of shape %v do not divide %v", scale, x)
			default:
				div[d] = x[d] / scale[d]
			}
		}
		for i := range idx {
			rest, j := i, 0
			for d := range x {
				j += rest / xs[d] / div[d] * ss[d]
				rest %= xs[d]
			}
			idx[i] = j
		}
		return idx
	}
	if len(scale) != 1 || scale[0] != x[axis] {
		failf("scales of shape %v for axis %d of %v", scale, axis, x)
	}
	full[axis] = 1
	return walk(x, full, 0)
}

func checkScale(c *inference) {
	x, ok := c.shapeOf(0)
	s, ok2 := c.shapeOf(1)
	if !ok || !ok2 || !s.Known() || len(s) == 0 || s.Elems() == 1 && len(s) == 1 {
		return
	}
	if len(s) == 1 {
		if len(x) == 0 {
			failf("a scalar with scales of shape %v", s)
		}
		if d := x[c.axis(1, len(x))]; d >= 0 && d != s[0] {
			failf("%d scales for axis %d of %v", s[0], c.axis(1, len(x)), x)
		}
	}
}

func inferQuantize(c *inference) {
	d := model.UInt8
	switch {
	case c.has(2):
		d = c.dtype(2)
	case c.n.Attrs.String("output_dtype", "") != "":
		d = castTarget(model.Attrs{"to": c.n.Attrs.String("output_dtype", "")})
	}
	c.typ(0, d)
	checkScale(c)
	c.out(0, d, c.shape(0))
}

func evalQuantize(c *call) {
	x, s := c.x(0), c.x(1)
	d := model.UInt8
	if z := c.opt(2); z != nil {
		d = z.DType
	} else if o := c.n.Attrs.String("output_dtype", ""); o != "" {
		d = castTarget(model.Attrs{"to": o})
	}
	idx := scaleIndex(c.n.Attrs, x.Shape, s.Shape)
	scale := floats(s)
	v := floats(x)
	if d.IsFloat() {
		out := model.NewTensor(d, x.Shape...)
		sat := c.n.Attrs.Int("saturate", 1) != 0
		for i, f := range v {
			setSmall(out, i, encodeSmall(d, float64(float32(f)/float32(scale[idx[i]])), sat))
		}
		c.put(0, out)
		return
	}
	var zero []int64
	if z := c.opt(2); z != nil {
		if zero = ints(z); len(zero) != len(scale) {
			failf("%d zero points for %d scales", len(zero), len(scale))
		}
	}
	out := make([]int64, len(v))
	lo, hi, ok := d.IntRange()
	if !ok {
		failf("cannot quantize to %s", d)
	}
	exact := x.DType == model.Float64
	for i, f := range v {
		k := idx[i]
		q := f / scale[k]
		if !exact { // the division is the operator's own arithmetic: fp32
			q = float64(float32(f) / float32(scale[k]))
		}
		q = roundEven(q)
		z := int64(0)
		if zero != nil {
			z = zero[k]
		}
		switch {
		case q != q:
			out[i] = max(lo, min(hi, z))
		case q+float64(z) <= float64(lo):
			out[i] = lo
		case q+float64(z) >= float64(hi):
			out[i] = hi
		default:
			out[i] = int64(q) + z
		}
	}
	c.putI(0, d, x.Shape, out)
}

func inferDequantize(c *inference) {
	d := c.dtype(1)
	c.typ(0, d)
	checkScale(c)
	c.out(0, d, c.shape(0))
}

func evalDequantize(c *call) {
	x, s := c.x(0), c.x(1)
	idx := scaleIndex(c.n.Attrs, x.Shape, s.Shape)
	scale := floats(s)
	v := floats(x)
	var zero []float64
	if z := c.opt(2); z != nil {
		if zero = floats(z); len(zero) != len(scale) {
			failf("%d zero points for %d scales", len(zero), len(scale))
		}
	}
	out := c.alloc(x.Shape)
	for i, q := range v {
		k := idx[i]
		if zero != nil {
			q -= zero[k]
		}
		out[i] = q * scale[k]
	}
	c.putF(0, s.DType, x.Shape, out)
}

// evalDynamicQuantize maps [min(x,0), max(x,0)] to uint8.
func evalDynamicQuantize(c *call) {
	x := c.x(0)
	lo, hi := 0.0, 0.0
	v := floats(x)
	for _, f := range v {
		lo, hi = min(lo, f), max(hi, f)
	}
	scale := float64(float32((hi - lo) / 255))
	zero := 0.0
	if scale != 0 {
		zero = roundEven(max(0, min(255, -lo/scale)))
	}
	out := make([]int64, len(v))
	for i, f := range v {
		if scale != 0 {
			out[i] = saturate(model.UInt8, roundEven(float64(float32(f)/float32(scale)))+zero)
		}
	}
	c.putI(0, model.UInt8, x.Shape, out)
	c.putF(1, c.float(model.Float32), model.Shape{}, []float64{scale})
	c.putI(2, model.UInt8, model.Shape{}, []int64{int64(zero)})
}

func init() {
	register("quantize", [4]int{2, 3, 1, 1}, inferQuantize, evalQuantize, "QuantizeLinear")
	register("quantize", [4]int{2, 3, 1, 1}, inferDequantize, evalDequantize, "DequantizeLinear")
	register("quantize", [4]int{1, 1, 3, 3}, func(c *inference) {
		c.typ(0, model.UInt8)
		c.out(1, model.Float32, model.Shape{})
		c.out(2, model.UInt8, model.Shape{})
		c.out(0, model.UInt8, c.shape(0))
	}, evalDynamicQuantize, "DynamicQuantizeLinear")
}
