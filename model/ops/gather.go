package ops

import (
	"slices"
	"sort"

	"github.com/triune-sim/triune/model"
)

// Gather, scatter and what selects by value.

// index checks and normalises one index into a dimension.
func index(i int64, dim int) int {
	if i < -int64(dim) || i >= int64(dim) {
		failf("index %d is outside a dimension of %d", i, dim)
	}
	if i < 0 {
		i += int64(dim)
	}
	return int(i)
}

func inferGather(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	x, i := c.rankAtLeast(0, 1), c.shape(1)
	axis := c.axis(0, len(x))
	c.out(0, d, slices.Concat(x[:axis], i, x[axis+1:]))
}

func evalGather(c *call) {
	x, ix := c.x(0), c.x(1)
	axis := normAxis(c.n.Attrs.Int("axis", 0), len(x.Shape))
	shape := slices.Concat(x.Shape[:axis], ix.Shape, x.Shape[axis+1:])
	idx := make([]int, 0, c.size(x.DType, shape))
	inner := prod(x.Shape[axis+1:])
	pos := ints(ix)
	dim := x.Shape[axis]
	for o := range prod(x.Shape[:axis]) {
		for _, p := range pos {
			base := (o*dim + index(p, dim)) * inner
			for k := range inner {
				idx = append(idx, base+k)
			}
		}
	}
	c.put(0, pick(x, shape, idx, nil))
}

func inferGatherElements(c *inference) {
	c.typ(0, c.dtype(0))
	x, i := c.rankAtLeast(0, 1), c.shape(1)
	c.axis(0, len(x))
	if len(x) != len(i) {
		failf("data %v and indices %v have different ranks", x, i)
	}
	c.out(0, c.dtype(0), i)
}

// elementIndex returns for each position of the index tensor the flat position
// in the data that it addresses.
func elementIndex(x model.Shape, ix *model.Tensor, axis int) []int {
	if len(x) != len(ix.Shape) {
		failf("data %v and indices %v have different ranks", x, ix.Shape)
	}
	for d := range x {
		if d != axis && ix.Shape[d] > x[d] {
			failf("indices %v reach outside the data %v", ix.Shape, x)
		}
	}
	st := strides(x)
	base := slices.Clone(st)
	base[axis] = 0
	idx := walk(ix.Shape, base, 0)
	for i, p := range ints(ix) {
		idx[i] += index(p, x[axis]) * st[axis]
	}
	return idx
}

func evalGatherElements(c *call) {
	x, ix := c.x(0), c.x(1)
	axis := normAxis(c.n.Attrs.Int("axis", 0), len(x.Shape))
	c.put(0, pick(x, ix.Shape, elementIndex(x.Shape, ix, axis), nil))
}

func inferGatherND(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	x, i := c.rankAtLeast(0, 1), c.rankAtLeast(1, 1)
	b := c.n.Attrs.Int("batch_dims", 0)
	k := i[len(i)-1]
	if k < 0 {
		return
	}
	if b < 0 || b >= len(i) || b+k > len(x) {
		failf("indices %v with %d batch dimensions do not fit the data %v", i, b, x)
	}
	c.out(0, d, slices.Concat(i[:len(i)-1], x[b+k:]))
}

func evalGatherND(c *call) {
	x, ix := c.x(0), c.x(1)
	b := c.n.Attrs.Int("batch_dims", 0)
	if len(ix.Shape) == 0 || b < 0 || b >= len(ix.Shape) {
		failf("batch_dims %d does not fit the indices %v", b, ix.Shape)
	}
	k := ix.Shape[len(ix.Shape)-1]
	if b+k > len(x.Shape) {
		failf("indices %v with %d batch dimensions do not fit the data %v", ix.Shape, b, x.Shape)
	}
	shape := slices.Concat(ix.Shape[:len(ix.Shape)-1], x.Shape[b+k:])
	inner := prod(x.Shape[b+k:])
	st := strides(x.Shape)
	pos := ints(ix)
	batches := prod(x.Shape[:b])
	if batches != prod(ix.Shape[:b]) {
		failf("the batch dimensions of %v and %v differ", x.Shape, ix.Shape)
	}
	per := prod(ix.Shape[b : len(ix.Shape)-1])
	idx := make([]int, 0, c.size(x.DType, shape))
	for n := range batches {
		for p := range per {
			at := n * prod(x.Shape[b:])
			for j := range k {
				at += index(pos[(n*per+p)*k+j], x.Shape[b+j]) * st[b+j]
			}
			for e := range inner {
				idx = append(idx, at+e)
			}
		}
	}
	c.put(0, pick(x, shape, idx, nil))
}

// combine writes updates into a copy of the data at the given positions with
// the reduction attribute.
func combine(c *call, x *model.Tensor, at []int, upd *model.Tensor) {
	if upd.DType != x.DType {
		failf("updates are %s, the data %s", upd.DType, x.DType)
	}
	if upd.Len() != len(at) {
		failf("%d updates for %d indices", upd.Len(), len(at))
	}
	red := c.n.Attrs.String("reduction", "none")
	if red == "none" {
		n := x.Len()
		idx := make([]int, n)
		for i := range idx {
			idx[i] = i
		}
		for k, j := range at {
			idx[j] = n + k
		}
		c.put(0, pick(joinFlat(x, upd), x.Shape, idx, nil))
		return
	}
	f, ok := map[string]func(a, b float64) float64{
		"add": func(a, b float64) float64 { return a + b }, "mul": func(a, b float64) float64 { return a * b },
		"max": maxF, "min": minF,
	}[red]
	if !ok {
		failf("unknown reduction %q", red)
	}
	if !x.DType.IsFloat() {
		g := map[string]func(a, b int64) int64{
			"add": func(a, b int64) int64 { return a + b }, "mul": func(a, b int64) int64 { return a * b },
			"max": func(a, b int64) int64 { return max(a, b) }, "min": func(a, b int64) int64 { return min(a, b) },
		}[red]
		v, u := slices.Clone(ints(x)), ints(upd)
		for k, j := range at {
			v[j] = g(v[j], u[k])
		}
		c.putI(0, x.DType, x.Shape, v)
		return
	}
	v, u := slices.Clone(floats(x)), floats(upd)
	for k, j := range at {
		v[j] = f(v[j], u[k])
	}
	c.putF(0, x.DType, x.Shape, v)
}

func evalScatterElements(c *call) {
	x, ix := c.x(0), c.x(1)
	axis := normAxis(c.n.Attrs.Int("axis", 0), len(x.Shape))
	combine(c, x, elementIndex(x.Shape, ix, axis), c.x(2))
}

func evalScatterND(c *call) {
	x, ix := c.x(0), c.x(1)
	if len(ix.Shape) == 0 {
		failf("indices want rank 1 or more")
	}
	k := ix.Shape[len(ix.Shape)-1]
	if k > len(x.Shape) {
		failf("indices %v do not fit the data %v", ix.Shape, x.Shape)
	}
	inner := prod(x.Shape[k:])
	st := strides(x.Shape)
	pos := ints(ix)
	n := prod(ix.Shape[:len(ix.Shape)-1])
	at := make([]int, 0, c.x(2).Len())
	for p := range n {
		base := 0
		for j := range k {
			base += index(pos[p*k+j], x.Shape[j]) * st[j]
		}
		for e := range inner {
			at = append(at, base+e)
		}
	}
	combine(c, x, at, c.x(2))
}

func inferTopK(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	c.typ(1, model.Int64)
	s := c.rankAtLeast(0, 1).Clone()
	axis := c.axis(-1, len(s))
	if k, ok := c.ints(1); ok && len(k) == 1 {
		if k[0] < 0 || s[axis] >= 0 && k[0] > s[axis] {
			failf("k = %d of an axis of %d", k[0], s[axis])
		}
		s[axis] = k[0]
	} else {
		s[axis] = -1
	}
	c.out(0, d, s)
	c.out(1, model.Int64, s)
}

func evalTopK(c *call) {
	x := c.x(0)
	axis := normAxis(c.n.Attrs.Int("axis", -1), len(x.Shape))
	k := c.int1(1, 1)
	n := x.Shape[axis]
	if k < 0 || k > n {
		failf("k = %d of an axis of %d", k, n)
	}
	largest := c.n.Attrs.Int("largest", 1) != 0
	shape := x.Shape.Clone()
	shape[axis] = k
	v := floats(x)
	iv := []int64(nil)
	if !x.DType.IsFloat() {
		iv = ints(x)
	}
	inner := prod(x.Shape[axis+1:])
	src := make([]int, prod(shape))
	which := make([]int64, len(src))
	order := make([]int, n)
	less := lessInt(x.DType)
	for o := range prod(x.Shape[:axis]) {
		for i := range inner {
			at := func(j int) int { return (o*n+j)*inner + i }
			for j := range order {
				order[j] = j
			}
			sort.SliceStable(order, func(a, b int) bool {
				p, q := at(order[a]), at(order[b])
				if !largest {
					p, q = q, p
				}
				if iv != nil {
					return less(iv[q], iv[p])
				}
				return v[p] > v[q]
			})
			for j := range k {
				p := (o*k+j)*inner + i
				src[p], which[p] = at(order[j]), int64(order[j])
			}
		}
	}
	c.put(0, pick(x, shape, src, nil))
	c.putI(1, model.Int64, shape, which)
}

func inferNonZero(c *inference) {
	c.typ(0, model.Int64)
	c.out(0, model.Int64, model.Shape{len(c.shape(0)), -1})
}

func evalNonZero(c *call) {
	x := c.x(0)
	var hit []int
	if x.DType == model.String {
		for i, s := range x.Strings {
			if s != "" {
				hit = append(hit, i)
			}
		}
	} else {
		for i, v := range floats(x) {
			if v != 0 {
				hit = append(hit, i)
			}
		}
	}
	st := strides(x.Shape)
	out := make([]int64, len(x.Shape)*len(hit))
	for k, i := range hit {
		for d := range x.Shape {
			out[d*len(hit)+k] = int64(i / st[d] % x.Shape[d])
		}
	}
	c.putI(0, model.Int64, model.Shape{len(x.Shape), len(hit)}, out)
}

func inferOneHot(c *inference) {
	d := c.dtype(2)
	c.typ(0, d)
	s := c.shape(0)
	axis := normAxis(c.n.Attrs.Int("axis", -1), len(s)+1)
	depth := -1
	if t := c.value(1); t != nil && t.Len() == 1 {
		if depth = int(ints(t)[0]); depth < 0 {
			failf("depth %d is negative", depth)
		}
	}
	c.out(0, d, slices.Concat(s[:axis], model.Shape{depth}, s[axis:]))
}

func evalOneHot(c *call) {
	ix, values := c.x(0), c.x(2)
	depth := int(c.float1(1, 0))
	if depth < 0 || values.Len() != 2 {
		failf("depth %d and %d values, want a positive depth and 2 values", depth, values.Len())
	}
	axis := normAxis(c.n.Attrs.Int("axis", -1), len(ix.Shape)+1)
	shape := slices.Concat(ix.Shape[:axis], model.Shape{depth}, ix.Shape[axis:])
	idx := make([]int, c.size(values.DType, shape))
	inner := prod(ix.Shape[axis:])
	for i, p := range ints(ix) {
		if p < 0 {
			p += int64(depth)
		}
		if p >= 0 && p < int64(depth) {
			idx[(i/inner*depth+int(p))*inner+i%inner] = 1
		}
	}
	c.put(0, pick(values, shape, idx, nil))
}

func evalCompress(c *call) {
	x := c.x(0)
	cond := ints(c.x(1))
	if _, ok := c.n.Attrs["axis"]; !ok {
		x = x.Reshape(x.Len())
	}
	axis := normAxis(c.n.Attrs.Int("axis", 0), len(x.Shape))
	var keep []int64
	for i, v := range cond {
		if v != 0 && i < x.Shape[axis] {
			keep = append(keep, int64(i))
		}
	}
	g := &call{n: &model.Node{Attrs: model.Attrs{"axis": axis}}, o: c.o, out: make([]Datum, 1),
		in: []Datum{{Tensor: x}, {Tensor: fromInts(model.Int64, model.Shape{len(keep)}, keep)}}}
	evalGather(g)
	c.put(0, g.out[0].Tensor)
}

func init() {
	register("gather", [4]int{2, 2, 1, 1}, inferGather, evalGather, "Gather")
	register("gather", [4]int{2, 2, 1, 1}, inferGatherElements, evalGatherElements, "GatherElements")
	register("gather", [4]int{2, 2, 1, 1}, inferGatherND, evalGatherND, "GatherND")
	register("gather", [4]int{3, 3, 1, 1}, sameType, evalScatterElements, "ScatterElements")
	register("gather", [4]int{3, 3, 1, 1}, sameType, evalScatterND, "ScatterND")
	register("gather", [4]int{2, 2, 1, 2}, inferTopK, evalTopK, "TopK")
	register("gather", [4]int{1, 1, 1, 1}, inferNonZero, evalNonZero, "NonZero")
	register("gather", [4]int{3, 3, 1, 1}, inferOneHot, evalOneHot, "OneHot")
	register("gather", [4]int{2, 2, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		if _, ok := c.n.Attrs["axis"]; !ok {
			c.out(0, c.dtype(0), model.Shape{-1})
			return
		}
		s := c.shape(0).Clone()
		s[c.axis(0, len(s))] = -1
		c.out(0, c.dtype(0), s)
	}, evalCompress, "Compress")
}
