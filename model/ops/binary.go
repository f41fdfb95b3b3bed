package ops

import (
	"math"

	"github.com/triune-sim/triune/model"
)

// Element-wise operators of two and more operands, with the broadcasting of
// NumPy.

func inferBinary(c *inference) {
	d := c.dtype(0)
	if e := c.dtype(1); d != e && d != model.Invalid && e != model.Invalid && c.n.Op != "Pow" && c.n.Op != "BitShift" {
		failf("operands are %s and %s, want the same type", d, e)
	}
	c.typ(0, d)
	c.out(0, d, broadcastShapes(c.shape(0), c.shape(1)))
}

func inferCompare(c *inference) {
	if d, e := c.dtype(0), c.dtype(1); d != e && d != model.Invalid && e != model.Invalid {
		failf("operands are %s and %s, want the same type", d, e)
	}
	c.typ(0, model.Bool)
	c.out(0, model.Bool, broadcastShapes(c.shape(0), c.shape(1)))
}

// pairF applies f to two broadcast float operands.
func pairF(c *call, a, b *model.Tensor, f func(x, y float64) float64) (model.Shape, []float64) {
	shape := broadcastShapes(a.Shape, b.Shape)
	out := c.alloc(shape)
	av, bv := floats(a), floats(b)
	ia, ib := broadcastIndex(a.Shape, shape), broadcastIndex(b.Shape, shape)
	switch {
	case ia == nil && ib == nil:
		for i, x := range av {
			out[i] = f(x, bv[i])
		}
	case ia == nil:
		for i, x := range av {
			out[i] = f(x, bv[ib[i]])
		}
	case ib == nil:
		for i, y := range bv {
			out[i] = f(av[ia[i]], y)
		}
	default:
		for i := range out {
			out[i] = f(av[ia[i]], bv[ib[i]])
		}
	}
	return shape, out
}

// pairI applies f to two broadcast integer operands.
func pairI(c *call, a, b *model.Tensor, f func(x, y int64) int64) (model.Shape, []int64) {
	shape := broadcastShapes(a.Shape, b.Shape)
	out := make([]int64, c.size(model.Int64, shape))
	av, bv := ints(a), ints(b)
	ia, ib := broadcastIndex(a.Shape, shape), broadcastIndex(b.Shape, shape)
	for i := range out {
		x, y := i, i
		if ia != nil {
			x = ia[i]
		}
		if ib != nil {
			y = ib[i]
		}
		out[i] = f(av[x], bv[y])
	}
	return shape, out
}

// arith evaluates a binary operator: f for floats, g for signed integers, u
// for uint64 (nil: the same bits as g).
func arith(f func(x, y float64) float64, g func(x, y int64) int64, u func(x, y uint64) uint64) func(*call) {
	return func(c *call) { c.put(0, arith2(c, c.x(0), c.x(1), f, g, u)) }
}

func arith2(c *call, a, b *model.Tensor, f func(x, y float64) float64, g func(x, y int64) int64, u func(x, y uint64) uint64) *model.Tensor {
	if a.DType != b.DType {
		failf("operands are %s and %s, want the same type", a.DType, b.DType)
	}
	if a.DType.IsFloat() {
		s, v := pairF(c, a, b, f)
		return fromFloats(a.DType, s, v)
	}
	if g == nil {
		failf("not defined for %s", a.DType)
	}
	h := g
	if a.DType == model.UInt64 && u != nil {
		h = func(x, y int64) int64 { return int64(u(uint64(x), uint64(y))) }
	}
	s, v := pairI(c, a, b, h)
	return fromInts(a.DType, s, v)
}

func compare(f func(x, y float64) bool, g func(x, y int64) bool, u func(x, y uint64) bool) func(*call) {
	return func(c *call) {
		a, b := c.x(0), c.x(1)
		if a.DType != b.DType {
			failf("operands are %s and %s, want the same type", a.DType, b.DType)
		}
		if a.DType == model.String {
			compareStrings(c, a, b)
			return
		}
		if a.DType.IsFloat() {
			s, v := pairF(c, a, b, func(x, y float64) float64 {
				if f(x, y) {
					return 1
				}
				return 0
			})
			t := model.NewTensor(model.Bool, s...)
			for i, x := range v {
				t.Data[i] = byte(x)
			}
			c.put(0, t)
			return
		}
		s, v := pairI(c, a, b, func(x, y int64) int64 {
			r := g(x, y)
			if a.DType == model.UInt64 {
				r = u(uint64(x), uint64(y))
			}
			if r {
				return 1
			}
			return 0
		})
		c.putI(0, model.Bool, s, v)
	}
}

func compareStrings(c *call, a, b *model.Tensor) {
	if c.n.Op != "Equal" {
		failf("not defined for strings")
	}
	shape := broadcastShapes(a.Shape, b.Shape)
	a, b = broadcastTo(c, a, shape), broadcastTo(c, b, shape)
	t := model.NewTensor(model.Bool, shape...)
	for i := range t.Data {
		if a.Strings[i] == b.Strings[i] {
			t.Data[i] = 1
		}
	}
	c.put(0, t)
}

// broadcastTo expands t to the shape.
func broadcastTo(c *call, t *model.Tensor, shape model.Shape) *model.Tensor {
	c.size(t.DType, shape)
	idx := broadcastIndex(t.Shape, shape)
	if idx == nil {
		return t
	}
	return pick(t, shape, idx, nil)
}

// divide truncates toward zero; division of integers by zero gives 0 here,
// where ONNX leaves it undefined.
func divide(x, y int64) int64 {
	switch y {
	case 0:
		return 0
	case -1:
		return -x
	}
	return x / y
}

// floorMod has the sign of the divisor, as Python's %.
func floorMod(x, y int64) int64 {
	if y == 0 || y == -1 {
		return 0
	}
	if m := x % y; m != 0 && (m < 0) != (y < 0) {
		return m + y
	} else {
		return m
	}
}

func floorModF(x, y float64) float64 {
	m := math.Mod(x, y)
	if m != 0 && (m < 0) != (y < 0) {
		m += y
	}
	return m
}

// maxF and minF propagate NaN, as NumPy's maximum and minimum.
func maxF(x, y float64) float64 { return math.Max(x, y) }
func minF(x, y float64) float64 { return math.Min(x, y) }

func ipow(x, y int64) int64 {
	if y < 0 {
		return int64(math.Pow(float64(x), float64(y)))
	}
	r := int64(1)
	for ; y > 0; y >>= 1 {
		if y&1 != 0 {
			r *= x
		}
		x *= x
	}
	return r
}

func init() {
	two := [4]int{2, 2, 1, 1}
	addF := func(x, y float64) float64 { return x + y }
	addI := func(x, y int64) int64 { return x + y }
	register("binary", two, inferBinary, arith(addF, addI, nil), "Add")
	register("binary", two, inferBinary, arith(func(x, y float64) float64 { return x - y }, func(x, y int64) int64 { return x - y }, nil), "Sub")
	register("binary", two, inferBinary, arith(func(x, y float64) float64 { return x * y }, func(x, y int64) int64 { return x * y }, nil), "Mul")
	register("binary", two, inferBinary, arith(func(x, y float64) float64 { return x / y }, divide, func(x, y uint64) uint64 {
		if y == 0 {
			return 0
		}
		return x / y
	}), "Div")
	register("binary", two, inferBinary, func(c *call) {
		a, b := c.x(0), c.x(1)
		if !a.DType.IsFloat() && !b.DType.IsFloat() {
			s, v := pairI(c, a, b, ipow)
			c.putI(0, a.DType, s, v)
			return
		}
		s, v := pairF(c, a, b, math.Pow)
		c.putF(0, a.DType, s, v)
	}, "Pow")
	register("binary", two, inferBinary, func(c *call) {
		if c.n.Attrs.Int("fmod", 0) != 0 {
			arith(math.Mod, func(x, y int64) int64 {
				if y == 0 || y == -1 {
					return 0
				}
				return x % y
			}, func(x, y uint64) uint64 {
				if y == 0 {
					return 0
				}
				return x % y
			})(c)
			return
		}
		arith(floorModF, floorMod, func(x, y uint64) uint64 {
			if y == 0 {
				return 0
			}
			return x % y
		})(c)
	}, "Mod")
	register("binary", two, inferBinary, func(c *call) {
		left := c.n.Attrs.String("direction", "LEFT") == "LEFT"
		bits := uint64(c.x(0).DType.Bits())
		f := func(x, y uint64) uint64 {
			switch {
			case y >= bits:
				return 0
			case left:
				return x << y
			}
			return x >> y
		}
		arith(nil, func(x, y int64) int64 { return int64(f(uint64(x), uint64(y))) }, f)(c)
	}, "BitShift")
	and, or, xor := func(x, y int64) int64 { return x & y }, func(x, y int64) int64 { return x | y }, func(x, y int64) int64 { return x ^ y }
	for name, f := range map[model.Op]func(x, y int64) int64{
		"And": and, "Or": or, "Xor": xor, "BitwiseAnd": and, "BitwiseOr": or, "BitwiseXor": xor,
	} {
		register("binary", two, inferBinary, func(c *call) {
			if c.x(0).DType.IsFloat() {
				failf("not defined for %s", c.x(0).DType)
			}
			arith(nil, f, nil)(c)
		}, name)
	}
	register("binary", two, inferCompare, compare(
		func(x, y float64) bool { return x == y }, func(x, y int64) bool { return x == y }, func(x, y uint64) bool { return x == y }), "Equal")
	register("binary", two, inferCompare, compare(
		func(x, y float64) bool { return x < y }, func(x, y int64) bool { return x < y }, func(x, y uint64) bool { return x < y }), "Less")
	register("binary", two, inferCompare, compare(
		func(x, y float64) bool { return x > y }, func(x, y int64) bool { return x > y }, func(x, y uint64) bool { return x > y }), "Greater")
	register("binary", two, inferCompare, compare(
		func(x, y float64) bool { return x <= y }, func(x, y int64) bool { return x <= y }, func(x, y uint64) bool { return x <= y }), "LessOrEqual")
	register("binary", two, inferCompare, compare(
		func(x, y float64) bool { return x >= y }, func(x, y int64) bool { return x >= y }, func(x, y uint64) bool { return x >= y }), "GreaterOrEqual")

	register("binary", two, func(c *inference) {
		c.typ(0, c.dtype(0))
		s := c.shape(0)
		if r, ok := c.shapeOf(1); ok {
			if b := broadcastShapes(s, r); len(b) != len(s) || s.Known() && !b.Equal(s) {
				failf("the slope %v does not broadcast to the input %v", r, s)
			}
		}
		c.out(0, c.dtype(0), s)
	}, func(c *call) {
		x, slope := c.x(0), c.x(1)
		if !broadcastShapes(x.Shape, slope.Shape).Equal(x.Shape) {
			failf("the slope %v does not broadcast to the input %v", slope.Shape, x.Shape)
		}
		s, v := pairF(c, x, slope, func(x, a float64) float64 {
			if x < 0 {
				return a * x
			}
			return x
		})
		c.putF(0, x.DType, s, v)
	}, "PRelu")

	variadic := [4]int{1, many, 1, 1}
	fold := func(f func(x, y float64) float64, g func(x, y int64) int64, u func(x, y uint64) uint64) func(*call) {
		return func(c *call) {
			acc := c.x(0)
			if acc.DType.IsFloat() { // one rounding at the end
				d := acc.DType
				acc = convert(acc, model.Float64)
				for i := 1; i < len(c.in); i++ {
					if c.x(i).DType != d {
						failf("operands are %s and %s, want the same type", d, c.x(i).DType)
					}
					acc = arith2(c, acc, convert(c.x(i), model.Float64), f, g, u)
				}
				c.put(0, convert(acc, d))
				return
			}
			for i := 1; i < len(c.in); i++ {
				acc = arith2(c, acc, c.x(i), f, g, u)
			}
			c.put(0, acc)
		}
	}
	register("binary", variadic, inferVariadic, fold(addF, addI, nil), "Sum")
	register("binary", variadic, inferVariadic, fold(maxF, func(x, y int64) int64 { return max(x, y) }, func(x, y uint64) uint64 { return max(x, y) }), "Max")
	register("binary", variadic, inferVariadic, fold(minF, func(x, y int64) int64 { return min(x, y) }, func(x, y uint64) uint64 { return min(x, y) }), "Min")
	register("binary", variadic, inferVariadic, func(c *call) {
		d := c.x(0).DType
		acc := convert(c.x(0), model.Float64)
		for i := range c.in {
			if e := c.x(i).DType; e != d || !d.IsFloat() {
				failf("operands are %s and %s, want the same float type", d, e)
			}
			if i > 0 {
				acc = arith2(c, acc, convert(c.x(i), model.Float64), addF, nil, nil)
			}
		}
		n := float64(len(c.in))
		out := append([]float64{}, floats(acc)...)
		for i := range out {
			out[i] /= n
		}
		c.putF(0, d, acc.Shape, out)
	}, "Mean")

	register("binary", [4]int{3, 3, 1, 1}, func(c *inference) {
		d := c.dtype(1)
		c.typ(0, d)
		c.out(0, d, broadcastShapes(c.shape(0), c.shape(1), c.shape(2)))
	}, func(c *call) {
		cond, a, b := c.x(0), c.x(1), c.x(2)
		if a.DType != b.DType {
			failf("branches are %s and %s, want the same type", a.DType, b.DType)
		}
		shape := broadcastShapes(cond.Shape, a.Shape, b.Shape)
		cond, a, b = broadcastTo(c, cond, shape), broadcastTo(c, a, shape), broadcastTo(c, b, shape)
		// Elements of b follow those of a in one index space.
		n := prod(shape)
		both := joinFlat(a, b)
		idx := make([]int, n)
		cv := ints(cond)
		for i := range idx {
			idx[i] = i
			if cv[i] == 0 {
				idx[i] += n
			}
		}
		c.put(0, pick(both, shape, idx, nil))
	}, "Where")
}

func inferVariadic(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	shapes := make([]model.Shape, len(c.n.Inputs))
	for i := range c.n.Inputs {
		if e := c.dtype(i); d != e && d != model.Invalid && e != model.Invalid {
			failf("operands are %s and %s, want the same type", d, e)
		}
		shapes[i] = c.shape(i)
	}
	c.out(0, d, broadcastShapes(shapes...))
}

// joinFlat returns the elements of the tensors one after the other, in one
// dimension.
func joinFlat(ts ...*model.Tensor) *model.Tensor {
	n := 0
	for _, t := range ts {
		n += t.Len()
	}
	out := model.NewTensor(ts[0].DType, n)
	if out.DType == model.String {
		k := 0
		for _, t := range ts {
			k += copy(out.Strings[k:], t.Strings)
		}
		return out
	}
	if out.DType.Bits()%8 != 0 {
		k := 0
		for _, t := range ts {
			for i := range t.Len() {
				out.SetInt(k, t.IntAt(i))
				k++
			}
		}
		return out
	}
	k := 0
	for _, t := range ts {
		k += copy(out.Data[k:], t.Data)
	}
	return out
}
