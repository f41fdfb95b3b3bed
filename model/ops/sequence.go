package ops

import (
	"slices"

	"github.com/triune-sim/triune/model"
)

// Sequences and optionals. At run time they are a [Datum]; the shape of an
// element is not tracked.

func setType(v *model.Value, t model.ValueType, d model.DType) {
	if v != nil {
		v.Type, v.DType, v.Shape = t, d, Unranked()
	}
}

func (c *call) seq(i int) []*model.Tensor {
	if i >= len(c.in) || c.in[i].Type != model.TypeSequence {
		failf("input %d is not a sequence", i)
	}
	return c.in[i].Seq
}

// position normalises a position in a sequence; a new element may also stand
// at the end.
func position(p, n int, insert bool) int {
	hi := n - 1
	if insert {
		hi = n
	}
	if p < -n || p > hi {
		failf("position %d is outside a sequence of %d", p, n)
	}
	if p < 0 {
		p += n
	}
	return p
}

func putSeq(c *call, s []*model.Tensor) { c.out[0] = Datum{Type: model.TypeSequence, Seq: s} }

// splitParts cuts a tensor along an axis: into single entries (without split),
// pieces of a length, or pieces of given lengths.
func splitParts(c *call, x *model.Tensor) []*model.Tensor {
	axis := normAxis(c.n.Attrs.Int("axis", 0), len(x.Shape))
	keep := c.n.Attrs.Int("keepdims", 1) != 0
	dim := x.Shape[axis]
	var sizes []int
	t := c.opt(1)
	switch {
	case t == nil:
		sizes = slices.Repeat([]int{1}, dim)
	case len(t.Shape) == 0 || t.Len() == 1 && len(t.Shape) == 0:
		n := c.int1(1, 1)
		if n < 1 {
			failf("a split length of %d", n)
		}
		for at := 0; at < dim; at += n {
			sizes = append(sizes, min(n, dim-at))
		}
	default:
		sizes = c.ints(1, nil)
		splitSizes(dim, len(sizes), sizes)
	}
	var out []*model.Tensor
	at := 0
	for _, n := range sizes {
		p := cut(x, axis, at, n)
		if t == nil && !keep {
			mask := make([]bool, len(p.Shape))
			mask[axis] = true
			p = p.Reshape(dropAxes(p.Shape, mask, false)...)
		}
		out = append(out, p)
		at += n
	}
	return out
}

func init() {
	register("sequence", [4]int{0, 0, 1, 1}, func(c *inference) {
		setType(c.n.Out(0), model.TypeSequence, attrType(c.n.Attrs, "dtype", model.Float32))
	}, func(c *call) { putSeq(c, nil) }, "SequenceEmpty")
	register("sequence", [4]int{1, many, 1, 1}, func(c *inference) {
		setType(c.n.Out(0), model.TypeSequence, c.dtype(0))
	}, func(c *call) {
		var s []*model.Tensor
		for i := range c.in {
			s = append(s, c.x(i))
		}
		putSeq(c, s)
	}, "SequenceConstruct")
	register("sequence", [4]int{2, 3, 1, 1}, func(c *inference) {
		setType(c.n.Out(0), model.TypeSequence, c.dtype(0))
	}, func(c *call) {
		s := c.seq(0)
		putSeq(c, slices.Insert(slices.Clone(s), position(c.int1(2, len(s)), len(s), true), c.x(1)))
	}, "SequenceInsert")
	register("sequence", [4]int{1, 2, 1, 1}, func(c *inference) {
		setType(c.n.Out(0), model.TypeSequence, c.dtype(0))
	}, func(c *call) {
		s := c.seq(0)
		p := position(c.int1(1, len(s)-1), len(s), false)
		putSeq(c, slices.Delete(slices.Clone(s), p, p+1))
	}, "SequenceErase")
	register("sequence", [4]int{2, 2, 1, 1}, func(c *inference) {
		c.out(0, c.dtype(0), Unranked())
	}, func(c *call) {
		s := c.seq(0)
		c.put(0, s[position(c.int1(1, 0), len(s), false)])
	}, "SequenceAt")
	register("sequence", [4]int{1, 1, 1, 1}, func(c *inference) {
		c.out(0, model.Int64, model.Shape{})
	}, func(c *call) { c.put(0, model.Scalar(int64(len(c.seq(0))))) }, "SequenceLength")
	register("sequence", [4]int{1, 2, 1, 1}, func(c *inference) {
		setType(c.n.Out(0), model.TypeSequence, c.dtype(0))
	}, func(c *call) { putSeq(c, splitParts(c, c.x(0))) }, "SplitToSequence")
	register("sequence", [4]int{1, 1, 1, 1}, func(c *inference) {
		c.out(0, c.dtype(0), Unranked())
	}, func(c *call) {
		s := c.seq(0)
		if len(s) == 0 {
			failf("the sequence is empty")
		}
		axis := c.n.Attrs.Int("axis", 0)
		if c.n.Attrs.Int("new_axis", 0) != 0 {
			c.put(0, stack(c, s, normAxis(axis, len(s[0].Shape)+1), nil))
			return
		}
		c.put(0, concat(c, s, axis))
	}, "ConcatFromSequence")
	register("sequence", [4]int{1, many, 1, many}, func(c *inference) {
		g := c.n.Blocks["body"]
		if g == nil || len(g.Inputs) != len(c.n.Inputs) || len(g.Outputs) != len(c.n.Outputs) {
			failf("the body does not fit the inputs and outputs")
		}
		for i := range c.n.Inputs {
			v := c.in(i)
			g.Inputs[i].DType, g.Inputs[i].Type = v.DType, model.TypeTensor
			if v.Type == model.TypeTensor {
				g.Inputs[i].Shape = v.Shape.Clone()
			} else {
				g.Inputs[i].Shape = Unranked()
			}
		}
		c.inferBlock("body")
		for i, v := range c.n.Outputs {
			setType(v, model.TypeSequence, g.Outputs[i].DType)
		}
	}, func(c *call) {
		g := c.block("body")
		res := make([][]*model.Tensor, len(c.out))
		for k := range c.in {
			if c.in[k].absent() {
				failf("input %d is missing", k)
			}
		}
		for i := range c.seq(0) {
			args := make([]Datum, len(c.in))
			for k, d := range c.in {
				args[k] = d
				if d.Type == model.TypeSequence {
					if i >= len(d.Seq) {
						failf("the sequences have different lengths")
					}
					args[k] = Datum{Tensor: d.Seq[i]}
				}
			}
			for k, d := range c.run(g, args) {
				if k < len(res) {
					res[k] = append(res[k], d.Tensor)
				}
			}
		}
		for k := range res {
			c.out[k] = Datum{Type: model.TypeSequence, Seq: res[k]}
		}
	}, "SequenceMap")
	impure("SequenceMap")

	register("sequence", [4]int{0, 1, 1, 1}, func(c *inference) {
		d := model.Invalid
		if c.has(0) {
			d = c.dtype(0)
		} else if s := c.n.Attrs.String("type", ""); s != "" {
			d = castTarget(model.Attrs{"to": s})
		}
		setType(c.n.Out(0), model.TypeOptional, d)
	}, func(c *call) {
		c.out[0] = Datum{Type: model.TypeOptional}
		if len(c.in) > 0 && !c.in[0].absent() {
			e := c.in[0]
			c.out[0].Elem = &e
		}
	}, "Optional")
	register("sequence", [4]int{0, 1, 1, 1}, func(c *inference) {
		c.out(0, model.Bool, model.Shape{})
	}, func(c *call) {
		t := model.NewTensor(model.Bool)
		t.Shape = model.Shape{}
		if len(c.in) > 0 && !c.in[0].absent() && (c.in[0].Type != model.TypeOptional || c.in[0].Elem != nil) {
			t.Data[0] = 1
		}
		c.put(0, t)
	}, "OptionalHasElement")
	register("sequence", [4]int{1, 1, 1, 1}, func(c *inference) {
		v := c.in(0)
		if v.Type != model.TypeOptional {
			carry(c.n.Out(0), v)
			return
		}
		c.out(0, v.DType, Unranked())
	}, func(c *call) {
		d := c.in[0]
		if d.Type != model.TypeOptional {
			c.out[0] = d
			return
		}
		if d.Elem == nil {
			failf("the optional is empty")
		}
		c.out[0] = *d.Elem
	}, "OptionalGetElement")
}
