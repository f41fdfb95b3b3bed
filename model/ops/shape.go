package ops

import (
	"github.com/triune-sim/triune/model"
)

// The reshape family and shape queries.

// shapeTensor is the result of Shape with its start and end attributes.
func shapeTensor(n *model.Node, s model.Shape) *model.Tensor {
	from, to := shapeRange(n.Attrs, len(s))
	v := make([]int64, 0, len(s))
	for _, d := range s[from:to] {
		v = append(v, int64(d))
	}
	return fromInts(model.Int64, model.Shape{len(v)}, v)
}

func shapeRange(a model.Attrs, rank int) (from, to int) {
	clamp := func(i int) int {
		if i < 0 {
			i += rank
		}
		return max(0, min(rank, i))
	}
	from, to = clamp(a.Int("start", 0)), clamp(a.Int("end", rank))
	return from, max(from, to)
}

// reshapeTarget resolves 0 (copy) and -1 (the rest) of a Reshape target.
func reshapeTarget(in model.Shape, inKnown bool, target []int, allowZero bool) model.Shape {
	out := append(model.Shape{}, target...)
	hole := -1
	for i, d := range out {
		switch {
		case d == -1:
			if hole >= 0 {
				failf("target %v has two -1", target)
			}
			hole = i
		case d < -1:
			failf("target %v has the dimension %d", target, d)
		case d == 0 && !allowZero:
			if !inKnown {
				out[i] = -2 // unknown, not the hole
				continue
			}
			if i >= len(in) {
				failf("target %v copies dimension %d of the input %v", target, i, in)
			}
			out[i] = in[i]
			if in[i] < 0 {
				out[i] = -2
			}
		}
	}
	total := int64(-1)
	if inKnown {
		total = in.Elems()
	}
	if hole >= 0 {
		rest := int64(1)
		for i, d := range out {
			if i == hole {
				continue
			}
			if d == -2 || rest < 0 {
				rest = -1
				continue
			}
			rest = model.Shape{int(rest), d}.Elems()
		}
		switch {
		case total < 0 || rest < 0:
			// A dimension copied and otherwise unknown may cancel; leave it.
		case rest == 0:
			if total != 0 {
				failf("cannot reshape %v to %v", in, target)
			}
			out[hole] = 0
		case total%rest != 0:
			failf("cannot reshape %v (%d elements) to %v", in, total, target)
		default:
			out[hole] = int(total / rest)
		}
	}
	for i, d := range out {
		if d == -2 {
			out[i] = -1
		}
	}
	if e := out.Elems(); total >= 0 && e >= 0 && e != total {
		failf("cannot reshape %v (%d elements) to %v", in, total, target)
	}
	return out
}

func inferReshape(c *inference) {
	c.typ(0, c.dtype(0))
	in, known := c.shapeOf(0)
	target, ok := c.ints(1)
	if !ok {
		if s, k := c.shapeOf(1); k && len(s) == 1 && s[0] >= 0 && s[0] < 64 {
			c.out(0, c.dtype(0), unknown(s[0]))
		}
		return
	}
	c.out(0, c.dtype(0), reshapeTarget(in, known, target, c.n.Attrs.Int("allowzero", 0) != 0))
}

func flattenShape(s model.Shape, axis int) model.Shape {
	if axis < 0 {
		axis += len(s)
	}
	if axis < 0 || axis > len(s) {
		failf("axis %d is outside the rank of %v", axis, s)
	}
	return model.Shape{prod(s[:axis]), prod(s[axis:])}
}

func squeezeShape(s model.Shape, axes []int, given bool) model.Shape {
	drop := make([]bool, len(s))
	if given {
		for _, a := range normAxes(axes, len(s)) {
			if s[a] > 1 {
				failf("axis %d of %v is not 1", a, s)
			}
			drop[a] = true
		}
	} else {
		for i, d := range s {
			if d < 0 {
				panic(stop) // whether it goes is not known
			}
			drop[i] = d == 1
		}
	}
	return dropAxes(s, drop, false)
}

func unsqueezeShape(s model.Shape, axes []int) model.Shape {
	rank := len(s) + len(axes)
	out := make(model.Shape, rank)
	for _, a := range normAxes(axes, rank) {
		out[a] = -3
	}
	k := 0
	for i := range out {
		if out[i] == -3 {
			out[i] = 1
		} else {
			out[i] = s[k]
			k++
		}
	}
	return out
}

// optionalAxes returns the axes of input i: known tells whether they are (an
// absent input is known and not given).
func (c *inference) optionalAxes(i int) (axes []int, given, known bool) {
	if !c.has(i) {
		return nil, false, true
	}
	axes, ok := c.ints(i)
	return axes, true, ok
}

// view registers an operator that keeps the elements in their order.
func view(arity [4]int, infer func(*inference), target func(c *call, x *model.Tensor) model.Shape, names ...model.Op) {
	register("view", arity, infer, func(c *call) {
		x := c.x(0)
		s := target(c, x)
		if s.Elems() != x.Shape.Elems() {
			failf("cannot view %v as %v", x.Shape, s)
		}
		c.put(0, x.Reshape(s...))
	}, names...)
}

func init() {
	view([4]int{2, 2, 1, 1}, inferReshape, func(c *call, x *model.Tensor) model.Shape {
		return reshapeTarget(x.Shape, true, c.ints(1, nil), c.n.Attrs.Int("allowzero", 0) != 0)
	}, "Reshape")
	view([4]int{1, 1, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		c.out(0, c.dtype(0), flattenShape(c.shape(0), c.n.Attrs.Int("axis", 1)))
	}, func(c *call, x *model.Tensor) model.Shape {
		return flattenShape(x.Shape, c.n.Attrs.Int("axis", 1))
	}, "Flatten")
	view([4]int{1, 2, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		s := c.shape(0)
		axes, given, known := c.optionalAxes(1)
		if !known {
			if a, ok := c.shapeOf(1); ok && len(a) == 1 && a[0] >= 0 && a[0] <= len(s) {
				c.out(0, c.dtype(0), unknown(len(s)-a[0]))
			}
			return
		}
		c.out(0, c.dtype(0), squeezeShape(s, axes, given))
	}, func(c *call, x *model.Tensor) model.Shape {
		axes := c.ints(1, nil)
		return squeezeShape(x.Shape, axes, c.opt(1) != nil)
	}, "Squeeze")
	view([4]int{2, 2, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		s := c.shape(0)
		axes, _, known := c.optionalAxes(1)
		if !known {
			if a, ok := c.shapeOf(1); ok && len(a) == 1 && a[0] >= 0 && a[0] < 64 {
				c.out(0, c.dtype(0), unknown(len(s)+a[0]))
			}
			return
		}
		c.out(0, c.dtype(0), unsqueezeShape(s, axes))
	}, func(c *call, x *model.Tensor) model.Shape {
		return unsqueezeShape(x.Shape, c.ints(1, nil))
	}, "Unsqueeze")

	register("view", [4]int{1, 1, 1, 1}, func(c *inference) {
		v, w := c.in(0), c.n.Out(0)
		if w != nil {
			w.DType, w.Type = v.DType, v.Type
			w.Shape = append(model.Shape{}, v.Shape...)
		}
	}, func(c *call) { c.out[0] = c.in[0] }, "Identity")

	register("shape", [4]int{1, 1, 1, 1}, func(c *inference) {
		c.typ(0, model.Int64)
		s, ok := c.shapeOf(0)
		if !ok {
			c.out(0, model.Int64, model.Shape{-1})
			return
		}
		from, to := shapeRange(c.n.Attrs, len(s))
		c.out(0, model.Int64, model.Shape{to - from})
	}, func(c *call) { c.put(0, shapeTensor(c.n, c.x(0).Shape)) }, "Shape")
	register("shape", [4]int{1, 1, 1, 1}, func(c *inference) {
		c.out(0, model.Int64, model.Shape{})
	}, func(c *call) { c.put(0, model.Scalar(c.x(0).Shape.Elems())) }, "Size")

	register("shape", [4]int{1, 1, 1, 1}, func(c *inference) {
		d := model.Float32
		if t, ok := c.n.Attrs["value"].(*model.Tensor); ok {
			d = t.DType
		}
		c.typ(0, d)
		if s, ok := c.ints(0); ok {
			for _, x := range s {
				if x < 0 {
					failf("the shape %v has a negative dimension", s)
				}
			}
			c.out(0, d, s)
			return
		}
		if s, ok := c.shapeOf(0); ok && len(s) == 1 && s[0] >= 0 && s[0] < 64 {
			c.out(0, d, unknown(s[0]))
		}
	}, func(c *call) {
		v, ok := c.n.Attrs["value"].(*model.Tensor)
		if !ok {
			v = model.NewTensor(model.Float32, 1)
		}
		if v.Len() != 1 {
			failf("attribute value has %d elements, wants one", v.Len())
		}
		if v.DType.IsFloat() {
			v = convert(v, c.float(v.DType))
		}
		s := model.Shape(c.ints(0, nil))
		if s.Elems() < 0 {
			failf("the shape %v has a negative dimension", s)
		}
		c.put(0, pick(v, s, make([]int, c.size(v.DType, s)), nil))
	}, "ConstantOfShape")

	register("shape", [4]int{3, 3, 1, 1}, func(c *inference) {
		d := c.dtype(0)
		c.out(0, d, model.Shape{-1})
		a, b, s := c.value(0), c.value(1), c.value(2)
		if a != nil && b != nil && s != nil && a.Len() == 1 && b.Len() == 1 && s.Len() == 1 {
			c.out(0, d, model.Shape{rangeLen(floats(a)[0], floats(b)[0], floats(s)[0])})
		}
	}, func(c *call) {
		d := c.x(0).DType
		from, to, step := c.float1(0, 0), c.float1(1, 0), c.float1(2, 1)
		n := rangeLen(from, to, step)
		shape := model.Shape{n}
		v := c.alloc(shape)
		if !d.IsFloat() {
			a, s := ints(c.x(0))[0], ints(c.x(2))[0]
			r := make([]int64, n)
			for i := range r {
				r[i] = a + int64(i)*s
			}
			c.putI(0, d, shape, r)
			return
		}
		for i := range v {
			v[i] = from + float64(i)*step
		}
		c.putF(0, d, shape, v)
	}, "Range")
}
