package ops

import (
	"math"

	"github.com/triune-sim/triune/model"
)

// Pooling: X [N, C, spatial...], windows over the spatial axes.

func poolWindow(a model.Attrs, x model.Shape) window {
	if len(x) < 3 {
		failf("input %v wants rank 3 or more", x)
	}
	k := a.Ints("kernel_shape", nil)
	if k == nil {
		failf("attribute kernel_shape is missing")
	}
	return newWindow(a, x[2:], k)
}

func inferPool(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	c.typ(1, model.Int64)
	x := c.shape(0)
	w := poolWindow(c.n.Attrs, x)
	s := append(model.Shape{x[0], x[1]}, w.out...)
	c.out(0, d, s)
	c.out(1, model.Int64, s)
}

func inferGlobalPool(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	x := c.rankAtLeast(0, 2)
	s := append(model.Shape{}, x...)
	for i := 2; i < len(s); i++ {
		s[i] = 1
	}
	c.out(0, d, s)
}

// pool calls f for every window: the plane's index, the plane, the taps'
// indices (-1 in the padding), the position, and where the result goes.
func pool(c *call, w *window, x []float64, planes int, out []float64, f func(plane int, src []float64, taps []int32, pos int) float64) {
	in, pos, k := prod(w.in), prod(w.out), prod(w.kernel)
	if in > 1<<31-1 {
		failf("a plane of %d elements is too large", in)
	}
	if !mulFits(pos, k) || pos*k > 1<<30 {
		failf("%d windows of %d elements are too many", pos, k)
	}
	block := max(1, 1<<18/max(k, 1))
	for from := 0; from < pos; from += block {
		to := min(pos, from+block)
		idx := w.taps(from, to)
		parallel(planes, func(p int) {
			if c.ctx.Err() != nil {
				return
			}
			src := x[p*in : (p+1)*in]
			for q := from; q < to; q++ {
				out[p*pos+q] = f(p, src, idx[(q-from)*k:(q-from+1)*k], q)
			}
		})
		if err := c.ctx.Err(); err != nil {
			failf("%w", err)
		}
	}
}

func evalMaxPool(c *call) {
	x := c.x(0)
	w := poolWindow(c.n.Attrs, x.Shape)
	planes, in, pos := x.Shape[0]*x.Shape[1], prod(w.in), prod(w.out)
	shape := append(model.Shape{x.Shape[0], x.Shape[1]}, w.out...)
	out := c.alloc(shape)
	which := make([]int64, len(out))
	column := c.n.Attrs.Int("storage_order", 0) != 0
	lowest := math.Inf(-1)
	if lo, _, ok := x.DType.IntRange(); ok {
		lowest = float64(lo)
	}
	pool(c, &w, floats(x), planes, out, func(p int, src []float64, taps []int32, q int) float64 {
		best, at := lowest, int32(-1)
		for _, j := range taps {
			if j >= 0 && (at < 0 || src[j] > best || src[j] != src[j]) {
				best, at = src[j], j
			}
		}
		i := int64(at)
		if column && at >= 0 { // column-major position within the plane
			i = 0
			rest, mul := int(at), int64(1)
			st := strides(w.in)
			for d := range w.in {
				i += int64(rest/st[d]) * mul
				rest %= st[d]
				mul *= int64(w.in[d])
			}
		}
		which[p*pos+q] = int64(p*in) + i
		return best
	})
	c.putF(0, x.DType, shape, out)
	if c.wants(1) {
		c.putI(1, model.Int64, shape, which)
	}
}

// evalAveragePool averages over the window; padding counts as zeros only with
// count_include_pad, the overhang of ceil_mode never.
func evalAveragePool(c *call) {
	x := c.x(0)
	w := poolWindow(c.n.Attrs, x.Shape)
	shape := append(model.Shape{x.Shape[0], x.Shape[1]}, w.out...)
	out := c.alloc(shape)
	include := c.n.Attrs.Int("count_include_pad", 0) != 0
	os := strides(w.out)
	pool(c, &w, floats(x), x.Shape[0]*x.Shape[1], out, func(_ int, src []float64, taps []int32, q int) float64 {
		sum, n := 0.0, 0
		for _, j := range taps {
			if j >= 0 {
				sum += src[j]
				n++
			}
		}
		if include {
			n = 1
			for d := range w.in {
				start := q/os[d]*w.stride[d] - w.begin[d]
				q %= os[d]
				cnt := 0
				for t := range w.kernel[d] {
					if start+t*w.dilation[d] < w.in[d]+w.end[d] {
						cnt++
					}
				}
				n *= cnt
			}
		}
		if n == 0 {
			return 0
		}
		return sum / float64(n)
	})
	c.putF(0, x.DType, shape, out)
}

func evalLpPool(c *call) {
	x := c.x(0)
	w := poolWindow(c.n.Attrs, x.Shape)
	shape := append(model.Shape{x.Shape[0], x.Shape[1]}, w.out...)
	out := c.alloc(shape)
	p := float64(c.n.Attrs.Int("p", 2))
	pool(c, &w, floats(x), x.Shape[0]*x.Shape[1], out, func(_ int, src []float64, taps []int32, _ int) float64 {
		sum := 0.0
		for _, j := range taps {
			if j >= 0 {
				sum += math.Pow(math.Abs(src[j]), p)
			}
		}
		return math.Pow(sum, 1/p)
	})
	c.putF(0, x.DType, shape, out)
}

// global reduces each plane to one value.
func global(f func(c *call, plane []float64) float64) func(*call) {
	return func(c *call) {
		x := c.x(0)
		if len(x.Shape) < 2 {
			failf("input %v wants rank 2 or more", x.Shape)
		}
		shape := append(model.Shape{}, x.Shape...)
		for i := 2; i < len(shape); i++ {
			shape[i] = 1
		}
		planes, in := shape[0]*shape[1], prod(x.Shape[2:])
		v := floats(x)
		out := c.alloc(shape)
		for p := range planes {
			out[p] = f(c, v[p*in:(p+1)*in])
		}
		c.putF(0, x.DType, shape, out)
	}
}

func init() {
	one := [4]int{1, 1, 1, 1}
	register("pool", [4]int{1, 1, 1, 2}, inferPool, evalMaxPool, "MaxPool")
	register("pool", one, inferPool, evalAveragePool, "AveragePool")
	register("pool", one, inferPool, evalLpPool, "LpPool")
	register("pool", one, inferGlobalPool, global(func(_ *call, v []float64) float64 {
		s := 0.0
		for _, x := range v {
			s += x
		}
		return s / float64(len(v))
	}), "GlobalAveragePool")
	register("pool", one, inferGlobalPool, global(func(_ *call, v []float64) float64 {
		m := math.Inf(-1)
		for _, x := range v {
			m = maxF(m, x)
		}
		return m
	}), "GlobalMaxPool")
	register("pool", one, inferGlobalPool, global(func(c *call, v []float64) float64 {
		p, s := float64(c.n.Attrs.Int("p", 2)), 0.0
		for _, x := range v {
			s += math.Pow(math.Abs(x), p)
		}
		return math.Pow(s, 1/p)
	}), "GlobalLpPool")

	// MaxUnpool: X, indices into the flat output, optional output shape.
	unpool := func(a model.Attrs, x model.Shape) model.Shape {
		k := a.Ints("kernel_shape", nil)
		r := len(x) - 2
		if r < 1 || len(k) != r {
			failf("kernel_shape %v does not fit the input %v", k, x)
		}
		s, p := a.Ints("strides", nil), a.Ints("pads", nil)
		out := append(model.Shape{}, x...)
		for i := range r {
			if x[2+i] < 0 {
				continue
			}
			stride, pad := 1, 0
			if i < len(s) {
				stride = s[i]
			}
			if r+i < len(p) {
				pad = p[i] + p[r+i]
			}
			out[2+i] = (x[2+i]-1)*stride - pad + k[i]
		}
		return out
	}
	register("pool", [4]int{2, 3, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		s := unpool(c.n.Attrs, c.shape(0))
		if c.has(2) {
			if v, ok := c.ints(2); ok {
				s = v
			} else {
				s = unknown(len(s))
			}
		}
		c.out(0, c.dtype(0), s)
	}, func(c *call) {
		x := c.x(0)
		own := unpool(c.n.Attrs, x.Shape)
		shape := model.Shape(c.ints(2, own))
		if len(shape) != len(own) {
			failf("output shape %v does not fit the input %v", shape, x.Shape)
		}
		out := c.alloc(shape)
		at := ints(c.x(1))
		if len(at) != x.Len() {
			failf("%d indices for %d elements", len(at), x.Len())
		}
		// Indices count in the unpadded inferred output; with an explicit
		// shape they keep their coordinates.
		st := strides(own)
		for i, v := range floats(x) {
			j := int(at[i])
			if !own.Equal(shape) && j >= 0 && at[i] < own.Elems() {
				dst, rest := 0, j
				ds := strides(shape)
				for d := range own {
					dst += rest / st[d] * ds[d]
					rest %= st[d]
				}
				j = dst
			}
			if at[i] < 0 || at[i] >= own.Elems() || j >= len(out) {
				failf("index %d is outside the output %v", at[i], shape)
			}
			out[j] = v
		}
		c.putF(0, x.DType, shape, out)
	}, "MaxUnpool")
}
