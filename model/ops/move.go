package ops

import (
	"math"

	"github.com/triune-sim/triune/model"
)

// Operators that move elements without computing: transpose, concat, slice,
// split, pad, tile, expand, depth to space.

func rangeLen(from, to, step float64) int {
	if step == 0 || step != step {
		failf("the step is zero")
	}
	n := math.Ceil((to - from) / step)
	if !(n < 1<<30) {
		failf("a range from %g to %g by %g is too long", from, to, step)
	}
	return max(0, int(n))
}

func permutation(a model.Attrs, rank int) []int {
	p := a.Ints("perm", nil)
	if p == nil {
		p = make([]int, rank)
		for i := range p {
			p[i] = rank - 1 - i
		}
		return p
	}
	if len(p) != rank {
		failf("perm %v does not fit rank %d", p, rank)
	}
	return normAxes(p, rank)
}

func inferTranspose(c *inference) {
	c.typ(0, c.dtype(0))
	s := c.shape(0)
	out := make(model.Shape, len(s))
	for i, p := range permutation(c.n.Attrs, len(s)) {
		out[i] = s[p]
	}
	c.out(0, c.dtype(0), out)
}

func evalTranspose(c *call) {
	x := c.x(0)
	c.put(0, transpose(x, permutation(c.n.Attrs, len(x.Shape))))
}

func transpose(x *model.Tensor, perm []int) *model.Tensor {
	st := strides(x.Shape)
	shape, ps := make(model.Shape, len(perm)), make([]int, len(perm))
	for i, p := range perm {
		shape[i], ps[i] = x.Shape[p], st[p]
	}
	return pick(x, shape, walk(shape, ps, 0), nil)
}

func inferConcat(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	var out model.Shape
	axis := 0
	for i := range c.n.Inputs {
		if e := c.dtype(i); e != d && d != model.Invalid && e != model.Invalid {
			failf("operands are %s and %s, want the same type", d, e)
		}
		s := c.shape(i)
		if i == 0 {
			out = s.Clone()
			axis = c.axis(0, len(s))
			continue
		}
		if len(s) != len(out) {
			failf("operands %v and %v have different ranks", out, s)
		}
		for k := range s {
			if k != axis {
				out[k] = mergeDim(out[k], s[k], "the operands outside the concatenated axis")
				continue
			}
			if out[k] < 0 || s[k] < 0 {
				out[k] = -1
			} else {
				out[k] += s[k]
			}
		}
	}
	c.out(0, d, out)
}

func evalConcat(c *call) {
	ts := make([]*model.Tensor, len(c.in))
	for i := range ts {
		ts[i] = c.x(i)
	}
	c.put(0, concat(c, ts, c.n.Attrs.Int("axis", 0)))
}

func concat(c *call, ts []*model.Tensor, axis int) *model.Tensor {
	shape := ts[0].Shape.Clone()
	axis = normAxis(axis, len(shape))
	for _, t := range ts[1:] {
		if t.DType != ts[0].DType {
			failf("operands are %s and %s, want the same type", ts[0].DType, t.DType)
		}
		if len(t.Shape) != len(shape) {
			failf("operands %v and %v have different ranks", ts[0].Shape, t.Shape)
		}
		for k, d := range t.Shape {
			if k == axis {
				shape[k] += d
			} else if d != shape[k] {
				failf("operands %v and %v differ outside axis %d", ts[0].Shape, t.Shape, axis)
			}
		}
	}
	c.size(ts[0].DType, shape)
	flat := joinFlat(ts...)
	idx := make([]int, 0, flat.Len())
	inner := prod(shape[axis+1:])
	for o := range prod(shape[:axis]) {
		base := 0
		for _, t := range ts {
			row := t.Shape[axis] * inner
			for k := range row {
				idx = append(idx, base+o*row+k)
			}
			base += t.Len()
		}
	}
	return pick(flat, shape, idx, nil)
}

// sliceRange normalises one axis of Slice and returns start, step and count.
func sliceRange(start, end, step, dim int) (int, int, int) {
	if step == 0 {
		failf("a slice step is zero")
	}
	fix := func(i, lo, hi int) int {
		if i < 0 {
			if i < -dim {
				i = -dim - 1 // keep far negatives from overflowing
			}
			i += dim
		}
		return max(lo, min(hi, i))
	}
	if step > 0 {
		start, end = fix(start, 0, dim), fix(end, 0, dim)
		if end <= start {
			return start, step, 0
		}
		return start, step, (end-start-1)/step + 1
	}
	start, end = fix(start, -1, dim-1), fix(end, -1, dim-1)
	if start <= end {
		return start, step, 0
	}
	if step < -dim-1 {
		step = -dim - 1
	}
	return start, step, (start-end-1)/(-step) + 1
}

// sliceAxes fills the defaults of axes and steps.
func sliceAxes(rank int, starts, ends, axes, steps []int) (a, s []int) {
	if len(starts) != len(ends) {
		failf("%d starts and %d ends", len(starts), len(ends))
	}
	if axes == nil {
		axes = make([]int, len(starts))
		for i := range axes {
			axes[i] = i
		}
	}
	if steps == nil {
		steps = make([]int, len(starts))
		for i := range steps {
			steps[i] = 1
		}
	}
	if len(axes) != len(starts) || len(steps) != len(starts) {
		failf("%d starts, %d axes, %d steps", len(starts), len(axes), len(steps))
	}
	return normAxes(axes, rank), steps
}

func inferSlice(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	s := c.shape(0)
	starts, ok1 := c.ints(1)
	ends, ok2 := c.ints(2)
	axes, _, ok3 := c.optionalAxes(3)
	steps, _, ok4 := c.optionalAxes(4)
	out := s.Clone()
	if !ok3 || (!ok1 && !ok2 && axes == nil) {
		c.out(0, d, unknown(len(s)))
		return
	}
	if !ok1 || !ok2 || !ok4 {
		if axes == nil {
			c.out(0, d, unknown(len(s)))
			return
		}
		for _, a := range normAxes(axes, len(s)) {
			out[a] = -1
		}
		c.out(0, d, out)
		return
	}
	axes, steps = sliceAxes(len(s), starts, ends, axes, steps)
	for i, a := range axes {
		if s[a] < 0 {
			continue
		}
		_, _, out[a] = sliceRange(starts[i], ends[i], steps[i], s[a])
	}
	c.out(0, d, out)
}

func evalSlice(c *call) {
	x := c.x(0)
	starts, ends := c.ints(1, nil), c.ints(2, nil)
	axes, steps := sliceAxes(len(x.Shape), starts, ends, c.ints(3, nil), c.ints(4, nil))
	st := strides(x.Shape)
	shape := x.Shape.Clone()
	base := 0
	for i, a := range axes {
		start, step, n := sliceRange(starts[i], ends[i], steps[i], x.Shape[a])
		shape[a] = n
		if n > 0 {
			base += start * st[a]
		}
		st[a] *= step
	}
	c.put(0, pick(x, shape, walk(shape, st, base), nil))
}

// splitSizes returns the lengths of the parts of an axis of length dim.
func splitSizes(dim, outputs int, sizes []int) []int {
	if sizes != nil {
		if len(sizes) != outputs {
			failf("%d split sizes for %d outputs", len(sizes), outputs)
		}
		sum := 0
		for _, s := range sizes {
			if s < 0 {
				failf("split sizes %v have a negative one", sizes)
			}
			sum += s
		}
		if dim >= 0 && sum != dim {
			failf("split sizes %v do not add up to %d", sizes, dim)
		}
		return sizes
	}
	out := make([]int, outputs)
	if dim < 0 {
		return unknown(outputs)
	}
	chunk := (dim + outputs - 1) / outputs
	for i := range out {
		out[i] = max(0, min(chunk, dim-i*chunk))
	}
	return out
}

func inferSplit(c *inference) {
	d := c.dtype(0)
	n := len(c.n.Outputs)
	for i := range n {
		c.typ(i, d)
	}
	s := c.shape(0)
	axis := c.axis(0, len(s))
	sizes, given, ok := c.optionalAxes(1)
	parts := unknown(n)
	if ok {
		if !given {
			sizes = nil
		}
		parts = splitSizes(s[axis], n, sizes)
	}
	for i := range n {
		o := s.Clone()
		o[axis] = parts[i]
		c.out(i, d, o)
	}
}

func evalSplit(c *call) {
	x := c.x(0)
	axis := normAxis(c.n.Attrs.Int("axis", 0), len(x.Shape))
	at := 0
	for i, n := range splitSizes(x.Shape[axis], len(c.out), c.ints(1, nil)) {
		c.put(i, cut(x, axis, at, n))
		at += n
	}
}

// cut returns n entries of an axis from position at.
func cut(x *model.Tensor, axis, at, n int) *model.Tensor {
	shape := x.Shape.Clone()
	shape[axis] = n
	st := strides(x.Shape)
	return pick(x, shape, walk(shape, st, at*st[axis]), nil)
}

// padWidths returns the begin and end padding of every axis.
func padWidths(rank int, pads, axes []int) (begin, end []int) {
	begin, end = make([]int, rank), make([]int, rank)
	if axes == nil {
		axes = make([]int, rank)
		for i := range axes {
			axes[i] = i
		}
	}
	axes = normAxes(axes, rank)
	if len(pads) != 2*len(axes) {
		failf("%d pads for %d axes, want two an axis", len(pads), len(axes))
	}
	for i, a := range axes {
		begin[a], end[a] = pads[i], pads[len(axes)+i]
	}
	return begin, end
}

func inferPad(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	s := c.shape(0)
	pads, ok := c.ints(1)
	axes, _, ok2 := c.optionalAxes(3)
	if !ok || !ok2 {
		c.out(0, d, unknown(len(s)))
		return
	}
	begin, end := padWidths(len(s), pads, axes)
	c.out(0, d, padShape(s, begin, end))
}

func padShape(s model.Shape, begin, end []int) model.Shape {
	out := s.Clone()
	for i := range out {
		if s[i] < 0 {
			continue
		}
		if n := s[i] + begin[i] + end[i]; n < 0 || begin[i] > 1<<30 || end[i] > 1<<30 {
			failf("pads %d and %d do not fit dimension %d", begin[i], end[i], s[i])
		} else {
			out[i] = n
		}
	}
	return out
}

func evalPad(c *call) {
	x := c.x(0)
	begin, end := padWidths(len(x.Shape), c.ints(1, nil), c.ints(3, nil))
	shape := padShape(x.Shape, begin, end)
	n := c.size(x.DType, shape)
	mode := c.n.Attrs.String("mode", "constant")
	// The source index on each axis, -1 for the constant.
	src := make([][]int, len(shape))
	for a := range src {
		dim := x.Shape[a]
		src[a] = make([]int, shape[a])
		for i := range src[a] {
			j := i - begin[a]
			if j < 0 || j >= dim {
				switch {
				case mode == "constant":
					j = -1
				case dim == 0:
					failf("mode %s on an empty axis", mode)
				case mode == "edge":
					j = max(0, min(dim-1, j))
				case mode == "reflect":
					j = reflect(j, dim)
				case mode == "wrap":
					j = ((j % dim) + dim) % dim
				default:
					failf("unknown mode %q", mode)
				}
			}
			src[a][i] = j
		}
	}
	idx := make([]int, n)
	st, os := strides(x.Shape), strides(shape)
	for i := range idx {
		rest, j := i, 0
		for a := range shape {
			k := src[a][rest/os[a]]
			rest %= os[a]
			if k < 0 {
				j = -1
				break
			}
			j += k * st[a]
		}
		idx[i] = j
	}
	fill := c.opt(2)
	if fill != nil && fill.Len() != 1 {
		failf("the padding value has %d elements, wants one", fill.Len())
	}
	c.put(0, pick(x, shape, idx, fill))
}

// reflect mirrors an index about the first and last element.
func reflect(j, dim int) int {
	if dim == 1 {
		return 0
	}
	p := 2 * (dim - 1)
	j = ((j % p) + p) % p
	if j >= dim {
		j = p - j
	}
	return j
}

func expandShape(c *inference, s model.Shape, target []int) model.Shape {
	for _, d := range target {
		if d < 0 {
			failf("the shape %v has a negative dimension", target)
		}
	}
	return broadcastShapes(s, target)
}

func depthShape(s model.Shape, block int, toSpace bool) model.Shape {
	if len(s) != 4 {
		failf("input %v wants rank 4", s)
	}
	if block < 1 || block > 1<<15 {
		failf("blocksize %d is out of range", block)
	}
	out := s.Clone()
	mul := func(d, k int) int {
		if d < 0 {
			return -1
		}
		return d * k
	}
	div := func(d, k int, what string) int {
		if d < 0 {
			return -1
		}
		if d%k != 0 {
			failf("%s of %v does not divide by %d", what, s, k)
		}
		return d / k
	}
	if toSpace {
		out[1], out[2], out[3] = div(s[1], block*block, "the channels"), mul(s[2], block), mul(s[3], block)
	} else {
		out[1], out[2], out[3] = mul(s[1], block*block), div(s[2], block, "the height"), div(s[3], block, "the width")
	}
	return out
}

func init() {
	register("move", [4]int{1, 1, 1, 1}, inferTranspose, evalTranspose, "Transpose")
	register("move", [4]int{1, many, 1, 1}, inferConcat, evalConcat, "Concat")
	register("move", [4]int{3, 5, 1, 1}, inferSlice, evalSlice, "Slice")
	register("move", [4]int{1, 2, 1, many}, inferSplit, evalSplit, "Split")
	register("move", [4]int{2, 4, 1, 1}, inferPad, evalPad, "Pad")
	register("move", [4]int{2, 2, 1, 1}, func(c *inference) {
		d := c.dtype(0)
		c.typ(0, d)
		s := c.shape(0)
		r, ok := c.ints(1)
		if !ok {
			c.out(0, d, unknown(len(s)))
			return
		}
		c.out(0, d, tileShape(s, r))
	}, func(c *call) {
		x := c.x(0)
		shape := tileShape(x.Shape, c.ints(1, nil))
		n := c.size(x.DType, shape)
		idx := make([]int, n)
		st, os := strides(x.Shape), strides(shape)
		for i := range idx {
			rest, j := i, 0
			for a := range shape {
				j += rest / os[a] % x.Shape[a] * st[a]
				rest %= os[a]
			}
			idx[i] = j
		}
		c.put(0, pick(x, shape, idx, nil))
	}, "Tile")
	register("move", [4]int{2, 2, 1, 1}, func(c *inference) {
		d := c.dtype(0)
		c.typ(0, d)
		t, ok := c.ints(1)
		if !ok {
			if s, k := c.shapeOf(1); k && len(s) == 1 && s[0] >= 0 && s[0] < 64 {
				if in, k := c.shapeOf(0); k {
					c.out(0, d, unknown(max(s[0], len(in))))
				}
			}
			return
		}
		c.out(0, d, expandShape(c, c.shape(0), t))
	}, func(c *call) {
		x := c.x(0)
		t := model.Shape(c.ints(1, nil))
		if t.Elems() < 0 {
			failf("the shape %v is not valid", t)
		}
		c.put(0, broadcastTo(c, x, broadcastShapes(x.Shape, t)))
	}, "Expand")

	// DepthToSpace and SpaceToDepth on [N, C, H, W]; mode DCR or CRD.
	register("move", [4]int{1, 1, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		c.out(0, c.dtype(0), depthShape(c.shape(0), c.n.Attrs.Int("blocksize", 0), true))
	}, func(c *call) {
		x := c.x(0)
		b := c.n.Attrs.Int("blocksize", 0)
		out := depthShape(x.Shape, b, true)
		n, ch, h, w := x.Shape[0], out[1], x.Shape[2], x.Shape[3]
		var t *model.Tensor
		switch mode := c.n.Attrs.String("mode", "DCR"); mode {
		case "DCR":
			t = transpose(x.Reshape(n, b, b, ch, h, w), []int{0, 3, 4, 1, 5, 2})
		case "CRD":
			t = transpose(x.Reshape(n, ch, b, b, h, w), []int{0, 1, 4, 2, 5, 3})
		default:
			failf("unknown mode %q", mode)
		}
		c.put(0, t.Reshape(out...))
	}, "DepthToSpace")
	register("move", [4]int{1, 1, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		c.out(0, c.dtype(0), depthShape(c.shape(0), c.n.Attrs.Int("blocksize", 0), false))
	}, func(c *call) {
		x := c.x(0)
		b := c.n.Attrs.Int("blocksize", 0)
		out := depthShape(x.Shape, b, false)
		t := transpose(x.Reshape(x.Shape[0], x.Shape[1], out[2], b, out[3], b), []int{0, 3, 5, 1, 2, 4})
		c.put(0, t.Reshape(out...))
	}, "SpaceToDepth")

	register("move", [4]int{1, 2, 1, 1}, sameType, func(c *call) {
		x := c.x(0)
		if len(x.Shape) < 2 {
			failf("input %v wants rank 2 or more", x.Shape)
		}
		k := c.int1(1, 0)
		upper := c.n.Attrs.Int("upper", 1) != 0
		rows, cols := x.Shape[len(x.Shape)-2], x.Shape[len(x.Shape)-1]
		idx := make([]int, x.Len())
		for i := range idx {
			r, col := i/cols%rows, i%cols
			idx[i] = i
			if upper && col-r < k || !upper && col-r > k {
				idx[i] = -1
			}
		}
		c.put(0, pick(x, x.Shape, idx, nil))
	}, "Trilu")

	// ReverseSequence reverses the first sequence_lens[b] steps of batch b.
	register("move", [4]int{2, 2, 1, 1}, sameType, func(c *call) {
		x := c.x(0)
		if len(x.Shape) < 2 {
			failf("input %v wants rank 2 or more", x.Shape)
		}
		ta, ba := normAxis(c.n.Attrs.Int("time_axis", 0), len(x.Shape)), normAxis(c.n.Attrs.Int("batch_axis", 1), len(x.Shape))
		lens := c.ints(1, nil)
		if len(lens) != x.Shape[ba] {
			failf("%d lengths for a batch of %d", len(lens), x.Shape[ba])
		}
		st := strides(x.Shape)
		idx := make([]int, x.Len())
		for i := range idx {
			t, b := i/st[ta]%x.Shape[ta], i/st[ba]%x.Shape[ba]
			idx[i] = i
			if n := lens[b]; n > x.Shape[ta] {
				failf("length %d exceeds the time axis %d", n, x.Shape[ta])
			} else if t < n {
				idx[i] += (n - 1 - 2*t) * st[ta]
			}
		}
		c.put(0, pick(x, x.Shape, idx, nil))
	}, "ReverseSequence")

	// CenterCropPad crops or pads the centre of the axes to a shape.
	register("move", [4]int{2, 2, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		s := c.shape(0).Clone()
		axes := c.n.Attrs.Ints("axes", nil)
		t, ok := c.ints(1)
		if !ok {
			c.out(0, c.dtype(0), unknown(len(s)))
			return
		}
		for i, a := range cropAxes(axes, len(s), len(t)) {
			s[a] = t[i]
		}
		c.out(0, c.dtype(0), s)
	}, func(c *call) {
		x := c.x(0)
		t := c.ints(1, nil)
		shape := x.Shape.Clone()
		off := make([]int, len(shape))
		for i, a := range cropAxes(c.n.Attrs.Ints("axes", nil), len(shape), len(t)) {
			if t[i] < 0 {
				failf("the shape %v has a negative dimension", t)
			}
			if t[i] >= shape[a] {
				off[a] = -((t[i] - shape[a]) / 2)
			} else {
				off[a] = (shape[a] - t[i]) / 2
			}
			shape[a] = t[i]
		}
		idx := make([]int, c.size(x.DType, shape))
		st, os := strides(x.Shape), strides(shape)
		for i := range idx {
			rest, j := i, 0
			for a := range shape {
				k := rest/os[a] + off[a]
				rest %= os[a]
				if k < 0 || k >= x.Shape[a] {
					j = -1
					break
				}
				j += k * st[a]
			}
			idx[i] = j
		}
		c.put(0, pick(x, shape, idx, nil))
	}, "CenterCropPad")
}

func cropAxes(axes []int, rank, n int) []int {
	if axes == nil {
		axes = make([]int, rank)
		for i := range axes {
			axes[i] = i
		}
	}
	if len(axes) != n {
		failf("the shape has %d values for %d axes", n, len(axes))
	}
	return normAxes(axes, rank)
}

func tileShape(s model.Shape, r []int) model.Shape {
	if len(r) != len(s) {
		failf("%d repeats for the shape %v", len(r), s)
	}
	out := s.Clone()
	for i, k := range r {
		if k < 0 {
			failf("repeats %v have a negative one", r)
		}
		if s[i] < 0 {
			continue
		}
		if !mulFits(s[i], k) {
			failf("repeats %v of %v are too large", r, s)
		}
		out[i] = s[i] * k
	}
	return out
}
