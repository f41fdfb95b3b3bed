package coreml

import (
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
)

// Reshapes, slices, joins, and other movements of data.

func init() {
	handle((*call).reshape, "reshape")
	handle((*call).reshapeLike, "reshape_like")
	handle(func(c *call) {
		x := c.in("x")
		axes := c.ints("axes", nil)
		c.result("Unsqueeze", nil, x, c.int64s("axes", axesOf(axes, rank(x)+len(axes))...))
	}, "expand_dims")
	handle(func(c *call) {
		x := c.in("x")
		if !c.has("axes") {
			c.result("Squeeze", nil, x)
			return
		}
		c.result("Squeeze", nil, x, c.int64s("axes", axesOf(c.ints("axes", nil), rank(x))...))
	}, "squeeze")
	handle(func(c *call) {
		x := c.in("x")
		c.result("Transpose", model.Attrs{"perm": axesOf(c.ints("perm", nil), rank(x))}, x)
	}, "transpose")
	handle(func(c *call) {
		x := c.in("x")
		a := c.int("axis", 1)
		if a < 0 {
			a += rank(x)
		}
		c.result("Flatten", model.Attrs{"axis": a}, x)
	}, "flatten2d")
	handle((*call).concat, "concat")
	handle(func(c *call) {
		vs := c.list("values")
		a := axis(c.int("axis", 0), rank(vs[0])+1)
		ins := make([]*model.Value, len(vs))
		for i, v := range vs {
			ins[i] = c.mid("Unsqueeze", nil, v, c.int64s("axes", a))
		}
		c.result("Concat", model.Attrs{"axis": a}, ins...)
	}, "stack")
	handle((*call).split, "split")
	handle((*call).sliceByIndex, "slice_by_index")
	handle((*call).sliceBySize, "slice_by_size")
	handle((*call).sliceUpdate, "slice_update")
	handle((*call).pad, "pad")
	handle(func(c *call) { c.result("Tile", nil, c.in("x"), c.as64(c.in("reps"))) }, "tile")
	handle(func(c *call) {
		x := c.in("x")
		axes := axesOf(c.ints("axes", seq(0, rank(x))), rank(x))
		n := len(axes)
		all := func(v int) []int { return slices.Repeat([]int{v}, n) }
		c.result("Slice", nil, x, c.int64s("starts", all(-1)...), c.int64s("ends", all(math.MinInt64)...),
			c.int64s("axes", axes...), c.int64s("steps", all(-1)...))
	}, "reverse")
	handle(func(c *call) {
		x := c.in("x")
		attrs := model.Attrs{"time_axis": axis(c.int("seq_axis", 0), rank(x)), "batch_axis": axis(c.int("batch_axis", 0), rank(x))}
		c.result("ReverseSequence", attrs, x, c.as64(c.in("lengths")))
	}, "reverse_sequence")
	handle(func(c *call) { c.result("Shape", nil, c.in("x")) }, "shape")
	handle((*call).slidingWindows, "sliding_windows")
	handle(func(c *call) {
		c.result("DepthToSpace", model.Attrs{"blocksize": c.int("block_size", 1), "mode": "DCR"}, c.in("x"))
	}, "depth_to_space")
	handle(func(c *call) {
		c.result("DepthToSpace", model.Attrs{"blocksize": c.int("upscale_factor", 1), "mode": "CRD"}, c.in("x"))
	}, "pixel_shuffle")
	handle(func(c *call) {
		c.result("SpaceToDepth", model.Attrs{"blocksize": c.int("block_size", 1)}, c.in("x"))
	}, "space_to_depth")
	handle((*call).pixelUnshuffle, "pixel_unshuffle")
	handle((*call).spaceToBatch, "space_to_batch")
	handle((*call).batchToSpace, "batch_to_space")
	handle(func(c *call) {
		v := c.one("value")
		if v == nil {
			v = model.Scalar(float32(0))
		}
		c.filled(c.in("shape"), v)
	}, "fill")
	handle(func(c *call) {
		v := c.one("value")
		if v == nil {
			v = model.Scalar(float32(0))
		}
		c.filled(c.mid("Shape", nil, c.in("ref_tensor")), v)
	}, "fill_like")
	handle(func(c *call) { c.result("Range", nil, c.in("start"), c.in("end"), c.in("step")) }, "range_1d")
	handle(func(c *call) {
		x := c.in("x")
		lower, upper := c.int("lower", -1), c.int("upper", -1)
		if upper >= 0 {
			x = c.mid("Trilu", model.Attrs{"upper": 0}, x, c.int64s0("k", upper))
		}
		if lower >= 0 {
			x = c.mid("Trilu", model.Attrs{"upper": 1}, x, c.int64s0("k", -lower))
		}
		c.rename(x)
	}, "band_part")
	handle(func(c *call) {
		h, w := c.ints("crop_height", []int{0, 0}), c.ints("crop_width", []int{0, 0})
		if len(h) != 2 || len(w) != 2 {
			failf("crop_height %v, crop_width %v (want two values each)", h, w)
		}
		x := c.in("x")
		r := rank(x)
		end := func(n int) int {
			if n == 0 {
				return math.MaxInt64
			}
			return -n
		}
		c.sliced(x, []int{h[0], w[0]}, []int{end(h[1]), end(w[1])}, []int{axis(-2, r), axis(-1, r)}, []int{1, 1})
	}, "crop")
}

// sliced adds a Slice as the operation's result.
func (c *call) sliced(x *model.Value, starts, ends, axes, steps []int) {
	c.result("Slice", nil, x, c.int64s("starts", starts...), c.int64s("ends", ends...), c.int64s("axes", axes...), c.int64s("steps", steps...))
}

// int64s0 is a 0-dimensional int64 constant.
func (c *call) int64s0(suffix string, v int) *model.Value {
	return c.constValue(suffix, model.NewConst(model.Scalar(int64(v))))
}

func (c *call) filled(shape *model.Value, v *model.Tensor) {
	c.result("ConstantOfShape", model.Attrs{"value": v.Reshape(1)}, c.as64(shape))
}

func (c *call) reshape() {
	x, s := c.in("x"), c.in("shape")
	if t := c.valueOf(s); t != nil {
		n := toInts("shape", t)
		// With the element count known, write the whole shape: 0 copies a
		// dimension, one -1 is inferred.
		if total := x.Shape.Elems(); total > 0 {
			known, free := 1, -1
			out := slices.Clone(n)
			for i, d := range out {
				switch {
				case d == 0 && i < len(x.Shape):
					out[i] = x.Shape[i]
					known *= out[i]
				case d == -1 && free < 0:
					free = i
				case d < 1:
					failf("reshape of %v to %v", x.Shape, n)
				default:
					if d > math.MaxInt32 || known > math.MaxInt64/(d+1) {
						failf("reshape of %v to %v", x.Shape, n)
					}
					known *= d
				}
			}
			if free >= 0 && known > 0 {
				out[free] = int(total) / known
			}
			n = out
		}
		c.result("Reshape", model.Attrs{"allowzero": 0}, x, c.int64s("shape", n...))
		return
	}
	c.result("Reshape", model.Attrs{"allowzero": 0}, x, c.as64(s))
}

// reshapeLike takes parts of the shapes of other tensors.
func (c *call) reshapeLike() {
	x, refs := c.in("x"), c.list("ref_tensors")
	begins, ends, masks := c.listInts("begins"), c.listInts("ends"), c.listInts("end_masks")
	if len(begins) != len(refs) || len(ends) != len(refs) || len(masks) != len(refs) {
		failf("%d tensors with %d begins, %d ends, %d masks", len(refs), len(begins), len(ends), len(masks))
	}
	var shape []int
	for i, r := range refs {
		n := rank(r)
		b, e := begins[i], ends[i]
		if b < 0 {
			b += n
		}
		if e < 0 {
			e += n
		}
		if masks[i] != 0 {
			e = n
		}
		if b < 0 || e > n || b > e || !r.Shape.Known() {
			failf("dimensions %d to %d of a reference of shape %v", b, e, r.Shape)
		}
		shape = append(shape, r.Shape[b:e]...)
	}
	c.result("Reshape", model.Attrs{"allowzero": 0}, x, c.int64s("shape", shape...))
}

// listInts reads a parameter that is a list of scalars or a vector.
func (c *call) listInts(key string) []int {
	a := c.op.arg(key)
	if len(a) == 1 {
		e := c.entryOf(a[0])
		if e.list == nil {
			return c.ints(key, nil)
		}
		var out []int
		for _, v := range e.list {
			t, err := v.tensor(c.im.spec.dec.mem)
			try(err)
			out = append(out, toInts(key, t)...)
		}
		return out
	}
	var out []int
	for _, v := range c.list(key) {
		t := c.valueOf(v)
		if t == nil {
			failf("parameter %s is not constant", quote(key))
		}
		out = append(out, toInts(key, t)...)
	}
	return out
}

func (c *call) concat() {
	vs := c.list("values")
	a := axis(c.int("axis", 0), rank(vs[0]))
	if !c.bool("interleave", false) || len(vs) == 1 {
		c.result("Concat", model.Attrs{"axis": a}, vs...)
		return
	}
	s := vs[0].Shape.Clone()
	ins := make([]*model.Value, len(vs))
	for i, v := range vs {
		ins[i] = c.mid("Unsqueeze", nil, v, c.int64s("axes", a+1))
	}
	if !s.Known() {
		failf("interleave of unknown shape %v", s)
	}
	s[a] *= len(vs)
	c.result("Reshape", nil, c.mid("Concat", model.Attrs{"axis": a + 1}, ins...), c.int64s("shape", s...))
}

func (c *call) split() {
	x := c.in("x")
	a := axis(c.int("axis", 0), rank(x))
	n := len(c.op.outputs)
	sizes := c.ints("split_sizes", nil)
	if sizes == nil {
		k := c.int("num_splits", n)
		if k != n || n == 0 || x.Shape[a] < 0 || x.Shape[a]%n != 0 {
			failf("axis %d of %v in %d equal parts, with %d outputs", a, x.Shape, k, n)
		}
		sizes = slices.Repeat([]int{x.Shape[a] / n}, n)
	}
	if len(sizes) != n {
		failf("%d sizes for %d outputs", len(sizes), n)
	}
	c.results("Split", model.Attrs{"axis": a}, n, x, c.int64s("split", sizes...))
}

// masks reads a mask of n bits; absent means all false.
func (c *call) mask(key string, n int) []bool {
	m := c.ints(key, make([]int, n))
	if len(m) != n {
		failf("%s has %d entries for rank %d", quote(key), len(m), n)
	}
	out := make([]bool, n)
	for i, v := range m {
		out[i] = v != 0
	}
	return out
}

func (c *call) sliceByIndex() {
	x := c.in("x")
	r := rank(x)
	step := c.ints("stride", slices.Repeat([]int{1}, r))
	bm, em, sm := c.mask("begin_mask", r), c.mask("end_mask", r), c.mask("squeeze_mask", r)
	begin, end := c.static("begin"), c.static("end")
	if len(step) != r {
		failf("%d strides for rank %d", len(step), r)
	}
	var squeeze []int
	for i, s := range sm {
		if s {
			squeeze = append(squeeze, i)
		}
	}
	var y *model.Value
	if begin != nil && (end != nil || !c.has("end")) {
		b := toInts("begin", begin)
		e := slices.Repeat([]int{0}, r)
		if end != nil {
			e = toInts("end", end)
		}
		if len(b) != r || len(e) != r {
			failf("begin %v and end %v for rank %d", b, e, r)
		}
		var starts, ends, axes, steps []int
		for i := range r {
			if step[i] == 0 {
				failf("a stride of 0")
			}
			lo, hi := b[i], e[i]
			switch {
			case sm[i]:
				hi = lo + 1
				if lo == -1 {
					hi = math.MaxInt64
				}
				starts, ends, axes, steps = append(starts, lo), append(ends, hi), append(axes, i), append(steps, 1)
				continue
			case bm[i] && step[i] > 0:
				lo = 0
			case bm[i]:
				lo = math.MaxInt64
			}
			switch {
			case em[i] && step[i] > 0:
				hi = math.MaxInt64
			case em[i]:
				hi = math.MinInt64
			}
			if lo == 0 && step[i] == 1 && (hi == math.MaxInt64 || hi == x.Shape[i] && hi >= 0) {
				continue // the whole axis
			}
			starts, ends, axes, steps = append(starts, lo), append(ends, hi), append(axes, i), append(steps, step[i])
		}
		if len(axes) == 0 {
			c.result("Identity", nil, x)
			return
		}
		ins := []*model.Value{x, c.int64s("starts", starts...), c.int64s("ends", ends...), c.int64s("axes", axes...), c.int64s("steps", steps...)}
		if squeeze == nil {
			c.result("Slice", nil, ins...)
			return
		}
		y = c.mid("Slice", nil, ins...)
	} else {
		// Bounds that depend on data: masked axes keep all, squeezed ones take
		// one element.
		if slices.ContainsFunc(step, func(s int) bool { return s < 1 }) {
			failf("data-dependent bounds with strides %v", step)
		}
		lo, hi := c.as64(c.in("begin")), c.as64(c.in("end"))
		pick := func(m []bool, on int, v *model.Value) *model.Value {
			if !slices.Contains(m, true) {
				return v
			}
			return c.mid("Where", nil, c.bools("mask", m), c.int64s("whole", slices.Repeat([]int{on}, r)...), v)
		}
		lo, hi = pick(bm, 0, lo), pick(em, math.MaxInt64, hi)
		if squeeze != nil {
			hi = c.mid("Where", nil, c.bools("squeeze", sm), c.mid("Add", nil, lo, c.int64s("one", 1)), hi)
		}
		ins := []*model.Value{x, lo, hi, c.int64s("axes", seq(0, r)...), c.int64s("steps", step...)}
		if squeeze == nil {
			c.result("Slice", nil, ins...)
			return
		}
		y = c.mid("Slice", nil, ins...)
	}
	c.result("Squeeze", nil, y, c.int64s("axes", squeeze...))
}

func (c *call) bools(suffix string, m []bool) *model.Value {
	t := model.NewTensor(model.Bool, len(m))
	for i, b := range m {
		t.SetInt(i, int64(b2i(b)))
	}
	return c.constValue(suffix, model.NewConst(t))
}

func (c *call) sliceBySize() {
	x := c.in("x")
	r := rank(x)
	size := c.ints("size", nil)
	if len(size) != r {
		failf("size %v for rank %d", size, r)
	}
	if b := c.static("begin"); b != nil {
		begin := toInts("begin", b)
		if len(begin) != r {
			failf("begin %v for rank %d", begin, r)
		}
		var starts, ends, axes, steps []int
		for i := range r {
			lo, hi := begin[i], begin[i]+size[i]
			if size[i] == -1 || lo < 0 && hi == 0 {
				hi = math.MaxInt64
			}
			if lo == 0 && (hi == math.MaxInt64 || hi == x.Shape[i]) {
				continue // the whole axis
			}
			starts, ends, axes, steps = append(starts, lo), append(ends, hi), append(axes, i), append(steps, 1)
		}
		if axes == nil {
			c.result("Identity", nil, x)
			return
		}
		c.sliced(x, starts, ends, axes, steps)
		return
	}
	if slices.Contains(size, -1) {
		failf("size %v with a begin that depends on data", size)
	}
	b := c.as64(c.in("begin"))
	c.result("Slice", nil, x, b, c.mid("Add", nil, b, c.int64s("size", size...)), c.int64s("axes", seq(0, r)...), c.int64s("steps", slices.Repeat([]int{1}, r)...))
}

// sliceUpdate writes update into x[begin:end:stride]: a ScatterND at a grid of
// indices, which is constant but for a begin that depends on data.
func (c *call) sliceUpdate() {
	x, u := c.in("x"), c.in("update")
	r := rank(x)
	if !x.Shape.Known() || !u.Shape.Known() {
		failf("x of shape %v and update of shape %v", x.Shape, u.Shape)
	}
	step := c.ints("stride", slices.Repeat([]int{1}, r))
	bm, sm := c.mask("begin_mask", r), c.mask("squeeze_mask", r)
	if len(step) != r || slices.ContainsFunc(step, func(s int) bool { return s < 1 }) {
		failf("strides %v", step)
	}
	var begin, end []int
	if b := c.static("begin"); b != nil {
		begin = toInts("begin", b)
	}
	if e := c.static("end"); e != nil {
		end = toInts("end", e)
	}
	if begin != nil && len(begin) != r || end != nil && len(end) != r {
		failf("begin %v and end %v for rank %d", begin, end, r)
	}
	// The region's shape: the update's, with ones where it was squeezed.
	shape := make([]int, 0, r)
	j := 0
	for i := range r {
		if sm[i] {
			shape = append(shape, 1)
			continue
		}
		if j >= len(u.Shape) {
			failf("an update of shape %v for x of shape %v", u.Shape, x.Shape)
		}
		shape = append(shape, u.Shape[j])
		j++
	}
	if j != len(u.Shape) {
		failf("an update of shape %v for x of shape %v", u.Shape, x.Shape)
	}
	n := model.Shape(shape).Elems()
	if n < 0 || n > x.Shape.Elems() || n > maxTensor/int64(8*max(r, 1)) {
		failf("an update of shape %v for x of shape %v", u.Shape, x.Shape)
	}
	first := make([]int, r)
	for i := range r {
		if !bm[i] && begin != nil {
			if first[i] = begin[i]; first[i] < 0 {
				first[i] += x.Shape[i]
			}
		}
	}
	idx := c.constValue("indices", model.NewLazy(model.Int64, append(slices.Clone(shape), r), func() (*model.Tensor, error) {
		grid := model.NewTensor(model.Int64, append(slices.Clone(shape), r)...)
		at := make([]int, r)
		for k := 0; k < int(n); k++ {
			for i := range r {
				grid.SetInt(k*r+i, int64(first[i]+at[i]*step[i]))
			}
			for i := r - 1; i >= 0; i-- {
				if at[i]++; at[i] < shape[i] {
					break
				}
				at[i] = 0
			}
		}
		return grid, nil
	}))
	if begin == nil {
		b := c.as64(c.in("begin"))
		if slices.Contains(bm, true) {
			b = c.mid("Where", nil, c.bools("mask", bm), c.int64s("zero", make([]int, r)...), b)
		}
		idx = c.mid("Add", nil, idx, b)
	}
	if len(u.Shape) != r {
		u = c.mid("Reshape", nil, u, c.int64s("shape", shape...))
	}
	c.result("ScatterND", model.Attrs{"reduction": "none"}, x, idx, u)
}

func (c *call) pad() {
	x := c.in("x")
	r := rank(x)
	mode, ok := map[string]string{"constant": "constant", "reflect": "reflect", "reflection": "reflect", "replicate": "edge", "edge": "edge"}[c.str("mode", "constant")]
	if !ok {
		failf("mode %s (want constant, reflect or replicate)", quote(c.str("mode", "")))
	}
	p := c.static("pad")
	if p == nil {
		v := c.as64(c.in("pad"))
		if len(v.Shape) != 1 || v.Shape[0] != 2*r {
			failf("a pad of shape %v that depends on data", v.Shape)
		}
		v = c.mid("Reshape", nil, c.mid("Transpose", model.Attrs{"perm": []int{1, 0}}, c.mid("Reshape", nil, v, c.int64s("shape", r, 2))), c.int64s("flat", 2*r))
		c.result("Pad", model.Attrs{"mode": mode}, x, v, c.scalar("value", x.DType, c.float("constant_val", 0)))
		return
	}
	n := toInts("pad", p)
	if len(n)%2 != 0 || len(n)/2 > r {
		failf("pad %v for rank %d", n, r)
	}
	k := len(n) / 2
	out := make([]int, 2*r)
	for i := range k {
		out[r-k+i], out[2*r-k+i] = n[2*i], n[2*i+1]
	}
	c.result("Pad", model.Attrs{"mode": mode}, x, c.int64s("pads", out...), c.scalar("value", x.DType, c.float("constant_val", 0)))
}

// slidingWindows gathers overlapping windows of an axis.
func (c *call) slidingWindows() {
	x := c.in("x")
	a := axis(c.int("axis", 0), rank(x))
	size, stride := c.int("size", 1), c.int("stride", 1)
	d := x.Shape[a]
	if d < 0 || size < 1 || stride < 1 || size > d {
		failf("windows of %d at stride %d of an axis of %d", size, stride, d)
	}
	n := (d-size)/stride + 1
	shape := model.Shape{n, size}
	if model.Int64.Bytes(shape.Elems()) > maxTensor {
		failf("%d windows of %d", n, size)
	}
	c.result("Gather", model.Attrs{"axis": a}, x, c.constValue("indices", model.NewLazy(model.Int64, shape, func() (*model.Tensor, error) {
		t := model.NewTensor(model.Int64, shape...)
		for i := range n {
			for j := range size {
				t.SetInt(i*size+j, int64(i*stride+j))
			}
		}
		return t, nil
	})))
}

// through reshapes x to in, permutes it, and reshapes it to out, the
// operation's result.
func (c *call) through(x *model.Value, in, perm, out []int) {
	y := c.mid("Reshape", nil, x, c.int64s("blocks", in...))
	y = c.mid("Transpose", model.Attrs{"perm": perm}, y)
	c.result("Reshape", nil, y, c.int64s("shape", out...))
}

func (c *call) pixelUnshuffle() {
	x := c.in("x")
	b := c.int("downscale_factor", 1)
	s := x.Shape
	if len(s) != 4 || !s.Known() || b < 1 || s[2]%b != 0 || s[3]%b != 0 {
		failf("x of shape %v by %d", s, b)
	}
	c.through(x, []int{s[0], s[1], s[2] / b, b, s[3] / b, b}, []int{0, 1, 3, 5, 2, 4}, []int{s[0], s[1] * b * b, s[2] / b, s[3] / b})
}

// blocks reads the two-dimensional [2, 2] pads or crops and the two block
// sizes.
func (c *call) blocks(pads string) (bh, bw int, p []int) {
	b := c.ints("block_shape", nil)
	p = c.ints(pads, []int{0, 0, 0, 0})
	if len(b) != 2 || len(p) != 4 || b[0] < 1 || b[1] < 1 {
		failf("block_shape %v, %s %v", b, pads, p)
	}
	return b[0], b[1], p
}

func (c *call) spaceToBatch() {
	x := c.in("x")
	bh, bw, p := c.blocks("paddings")
	if len(x.Shape) != 4 || !x.Shape.Known() {
		failf("x of shape %v", x.Shape)
	}
	y := c.mid("Pad", model.Attrs{"mode": "constant"}, x, c.int64s("pads", 0, 0, p[0], p[2], 0, 0, p[1], p[3]))
	n, ch, h, w := y.Shape[0], y.Shape[1], y.Shape[2], y.Shape[3]
	if h < 0 || w < 0 || h%bh != 0 || w%bw != 0 {
		failf("blocks of %dx%d of %v", bh, bw, y.Shape)
	}
	c.through(y, []int{n, ch, h / bh, bh, w / bw, bw}, []int{3, 5, 0, 1, 2, 4}, []int{n * bh * bw, ch, h / bh, w / bw})
}

func (c *call) batchToSpace() {
	x := c.in("x")
	bh, bw, p := c.blocks("crops")
	s := x.Shape
	if len(s) != 4 || !s.Known() || s[0]%(bh*bw) != 0 {
		failf("x of shape %v by blocks of %dx%d", s, bh, bw)
	}
	n, h, w := s[0]/(bh*bw), s[2]*bh, s[3]*bw
	y := c.mid("Reshape", nil, x, c.int64s("blocks", bh, bw, n, s[1], s[2], s[3]))
	y = c.mid("Transpose", model.Attrs{"perm": []int{2, 3, 4, 0, 5, 1}}, y)
	y = c.mid("Reshape", nil, y, c.int64s("shape", n, s[1], h, w))
	c.sliced(y, []int{p[0], p[2]}, []int{h - p[1], w - p[3]}, []int{2, 3}, []int{1, 1})
}
