package coreml

import (
	"slices"

	"github.com/triune-sim/triune/model"
)

// Gathers, scatters, sorting, and other work with indices.

func init() {
	handle((*call).gather, "gather")
	handle(func(c *call) {
		x := c.in("x")
		c.result("GatherElements", model.Attrs{"axis": axis(c.int("axis", 0), rank(x))}, x, c.indices("indices"))
	}, "gather_along_axis")
	handle(func(c *call) {
		c.result("GatherND", model.Attrs{"batch_dims": c.int("batch_dims", 0)}, c.in("x"), c.as64(c.in("indices")))
	}, "gather_nd")
	handle((*call).scatter, "scatter")
	handle(func(c *call) {
		x := c.in("data")
		red, u := c.reduction("updates")
		c.result("ScatterElements", model.Attrs{"axis": axis(c.int("axis", 0), rank(x)), "reduction": red}, x, c.indices("indices"), u)
	}, "scatter_along_axis")
	handle(func(c *call) {
		red, u := c.reduction("updates")
		c.result("ScatterND", model.Attrs{"reduction": red}, c.in("data"), c.as64(c.in("indices")), u)
	}, "scatter_nd")
	handle(func(c *call) {
		x := c.in("x")
		c.topk(x, axis(c.int("axis", -1), rank(x)), c.int("k", 1), c.bool("ascending", false), c.bool("sort", true), len(c.op.outputs))
	}, "topk")
	handle(func(c *call) {
		x := c.in("x")
		a := axis(c.int("axis", -1), rank(x))
		if x.Shape[a] < 0 {
			failf("an axis of unknown size")
		}
		v := c.mids1("TopK", topkAttrs(a, c.bool("ascending", false), true), 2, x, c.int64s("k", x.Shape[a]))
		c.rename(v[1])
	}, "argsort")
	handle(func(c *call) {
		x := c.in("x")
		attrs := model.Attrs{"exclusive": b2i(c.bool("exclusive", false)), "reverse": b2i(c.bool("reverse", false))}
		c.result("CumSum", attrs, x, c.int64s0("axis", axis(c.int("axis", 0), rank(x))))
	}, "cumsum")
	handle(func(c *call) {
		x := c.in("x")
		c.rename(c.mid("Transpose", model.Attrs{"perm": []int{1, 0}}, c.mid("NonZero", nil, x)))
	}, "non_zero")
	handle(func(c *call) {
		x := c.in("indices")
		on, off := c.one("on_value"), c.one("off_value")
		d := model.Int32
		if t := c.op.outputs[0].typ; t.kind == kindTensor && t.dtype != model.Invalid {
			d = t.dtype
		}
		vals := newNumbers(d, 2)
		vals.Set(1, 1)
		if off != nil {
			vals.Set(0, numberAt(off, 0))
		}
		if on != nil {
			vals.Set(1, numberAt(on, 0))
		}
		a := c.int("axis", -1)
		c.result("OneHot", model.Attrs{"axis": axis(a, rank(x)+1)}, x, c.int64s("depth", c.int("one_hot_vector_size", 1)), c.constValue("values", model.NewConst(vals)))
	}, "one_hot")
}

// indices returns an index tensor in a type that ONNX's indexing takes.
func (c *call) indices(key string) *model.Value {
	v := c.in(key)
	if v.DType == model.Int32 || v.DType == model.Int64 {
		return v
	}
	if !v.DType.IsInt() {
		failf("%s of type %s (want integers)", quote(key), v.DType)
	}
	if v.Const != nil && v.Const.Elems() <= maxStatic {
		t, err := v.Const.Value()
		try(err)
		return c.instead(v, model.NewConst(t.Convert(model.Int32)))
	}
	return c.cast(v, model.Int32)
}

func (c *call) gather() {
	x, idx := c.in("x"), c.indices("indices")
	a, b := axis(c.int("axis", 0), rank(x)), c.int("batch_dims", 0)
	if b < 0 {
		b += rank(idx)
	}
	if b == 0 {
		c.result("Gather", model.Attrs{"axis": a}, x, idx)
		return
	}
	if b > a || b > rank(idx) {
		failf("batch_dims %d with axis %d and indices of shape %v", b, a, idx.Shape)
	}
	// Bring the axis behind the batch, gather there, and put the other axes
	// back in front of the gathered ones.
	r, k := rank(x), rank(idx)-b
	perm := seq(0, r)
	perm = slices.Delete(perm, a, a+1)
	perm = slices.Insert(perm, b, a)
	y := x
	if a != b {
		y = c.mid("Transpose", model.Attrs{"perm": perm}, x)
	}
	i := c.mid("Unsqueeze", nil, c.as64(idx), c.int64s("axes", rank(idx)))
	y = c.mid("GatherND", model.Attrs{"batch_dims": b}, y, i)
	// y: batch, k gathered axes, then x's axes b..a-1, a+1...
	out := seq(0, b)
	out = append(out, seq(b+k, a-b)...)
	out = append(out, seq(b, k)...)
	out = append(out, seq(a+k, rank(y)-a-k)...)
	c.result("Transpose", model.Attrs{"perm": out}, y)
}

// reduction maps MIL's scatter modes; sub and div become add and mul of the
// inverse.
func (c *call) reduction(updates string) (string, *model.Value) {
	u := c.in(updates)
	switch mode := c.str("mode", "add"); mode {
	case "update":
		return "none", u
	case "add", "mul", "max", "min":
		return mode, u
	case "sub":
		return "add", c.mid("Neg", nil, u)
	case "div":
		return "mul", c.mid("Reciprocal", nil, u)
	default:
		failf("mode %s (want update, add, sub, mul, div, max or min)", quote(mode))
	}
	return "", nil
}

// scatter writes slices of an axis.
func (c *call) scatter() {
	x, idx := c.in("data"), c.as64(c.in("indices"))
	red, u := c.reduction("updates")
	r := rank(x)
	a := axis(c.int("axis", 0), r)
	k := rank(idx)
	idx = c.mid("Unsqueeze", nil, idx, c.int64s("axes", k))
	if a == 0 {
		c.result("ScatterND", model.Attrs{"reduction": red}, x, idx, u)
		return
	}
	// x with the axis first; updates with the index axes first.
	perm := append([]int{a}, slices.Delete(seq(0, r), a, a+1)...)
	up := append(seq(a, k), seq(0, a)...)
	up = append(up, seq(a+k, rank(u)-a-k)...)
	y := c.mid("ScatterND", model.Attrs{"reduction": red}, c.mid("Transpose", model.Attrs{"perm": perm}, x), idx, c.mid("Transpose", model.Attrs{"perm": up}, u))
	back := make([]int, r)
	for i, p := range perm {
		back[p] = i
	}
	c.result("Transpose", model.Attrs{"perm": back}, y)
}

func topkAttrs(a int, ascending, sorted bool) model.Attrs {
	return model.Attrs{"axis": a, "largest": b2i(!ascending), "sorted": b2i(sorted)}
}

func (c *call) topk(x *model.Value, a, k int, ascending, sorted bool, outputs int) {
	if k == -1 {
		k = x.Shape[a]
	}
	attrs := topkAttrs(a, ascending, sorted)
	if outputs >= 2 && c.bool("return_indices", true) {
		c.results("TopK", attrs, 2, x, c.int64s("k", k))
		return
	}
	c.rename(c.mids1("TopK", attrs, 2, x, c.int64s("k", k))[0])
}
