package ops

import (
	"math"

	"github.com/triune-sim/triune/model"
)

// Reductions over axes given as input 1 (ReduceSum and its family), arg-min
// and arg-max, softmax and its family, cumulative sum.

// reduced returns the axes to reduce and the result's shape. A nil result
// means nothing is reduced.
func reduceAxes(a model.Attrs, rank int, axes []int) []bool {
	mask := make([]bool, rank)
	if len(axes) == 0 {
		if a.Int("noop_with_empty_axes", 0) != 0 {
			return mask
		}
		for i := range mask {
			mask[i] = true
		}
		return mask
	}
	for _, x := range normAxes(axes, rank) {
		mask[x] = true
	}
	return mask
}

func dropAxes(s model.Shape, mask []bool, keep bool) model.Shape {
	out := model.Shape{}
	for i, d := range s {
		switch {
		case !mask[i]:
			out = append(out, d)
		case keep:
			out = append(out, 1)
		}
	}
	return out
}

func inferReduce(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	x := c.shape(0)
	keep := c.n.Attrs.Int("keepdims", 1) != 0
	var axes []int
	if c.has(1) {
		v, ok := c.ints(1)
		if !ok {
			if !keep {
				s, known := c.shapeOf(1)
				if known && len(s) == 1 && s[0] > 0 && s[0] <= len(x) {
					c.out(0, d, unknown(len(x)-s[0]))
				}
				return
			}
			c.out(0, d, unknown(len(x)))
			return
		}
		axes = v
	}
	c.out(0, d, dropAxes(x, reduceAxes(c.n.Attrs, len(x), axes), keep))
}

// split orders a tensor's elements by groups that are reduced together: idx
// holds groups x size indices.
func reduceIndex(shape model.Shape, mask []bool) (idx []int, groups, size int) {
	var outer, inner, so, si []int
	st := strides(shape)
	for i, d := range shape {
		if mask[i] {
			inner, si = append(inner, d), append(si, st[i])
		} else {
			outer, so = append(outer, d), append(so, st[i])
		}
	}
	all := append(append([]int{}, outer...), inner...)
	return walk(all, append(so, si...), 0), prod(outer), prod(inner)
}

func reduce(start float64, step func(acc, x float64) float64, finish func(acc float64, n int) float64) func(*call) {
	return func(c *call) {
		x := c.x(0)
		mask := reduceAxes(c.n.Attrs, len(x.Shape), c.ints(1, nil))
		shape := dropAxes(x.Shape, mask, c.n.Attrs.Int("keepdims", 1) != 0)
		v := floats(x)
		idx, groups, size := reduceIndex(x.Shape, mask)
		out := c.alloc(shape)
		for g := range groups {
			acc := start
			for _, j := range idx[g*size : (g+1)*size] {
				acc = step(acc, v[j])
			}
			if finish != nil {
				acc = finish(acc, size)
			}
			out[g] = acc
		}
		switch {
		case size == 0 && !x.DType.IsFloat(): // the identity of an empty maximum
			r := make([]int64, len(out))
			for i, f := range out {
				r[i] = clampInt(x.DType, f)
			}
			c.putI(0, x.DType, shape, r)
		default:
			c.putF(0, x.DType, shape, out)
		}
	}
}

func clampInt(d model.DType, f float64) int64 {
	lo, hi, ok := d.IntRange()
	if !ok {
		lo, hi = math.MinInt64, math.MaxInt64
	}
	switch {
	case d == model.Bool:
		if f > 0 {
			return 1
		}
		return 0
	case f <= float64(lo):
		return lo
	case f >= float64(hi):
		return hi
	}
	return int64(f)
}

// reduceInt adds exact integer arithmetic for int64 and int32 sums.
func reduceInt(start int64, step func(acc, x int64) int64, f func(*call)) func(*call) {
	return func(c *call) {
		x := c.x(0)
		if x.DType.IsFloat() {
			f(c)
			return
		}
		mask := reduceAxes(c.n.Attrs, len(x.Shape), c.ints(1, nil))
		shape := dropAxes(x.Shape, mask, c.n.Attrs.Int("keepdims", 1) != 0)
		v := ints(x)
		idx, groups, size := reduceIndex(x.Shape, mask)
		out := make([]int64, groups)
		for g := range groups {
			acc := start
			for _, j := range idx[g*size : (g+1)*size] {
				acc = step(acc, v[j])
			}
			out[g] = acc
		}
		c.putI(0, x.DType, shape, out)
	}
}

func evalLogSumExp(c *call) {
	x := c.x(0)
	mask := reduceAxes(c.n.Attrs, len(x.Shape), c.ints(1, nil))
	shape := dropAxes(x.Shape, mask, c.n.Attrs.Int("keepdims", 1) != 0)
	v := floats(x)
	idx, groups, size := reduceIndex(x.Shape, mask)
	out := c.alloc(shape)
	for g := range groups {
		m := math.Inf(-1)
		for _, j := range idx[g*size : (g+1)*size] {
			m = maxF(m, v[j])
		}
		if math.IsInf(m, 0) || m != m {
			out[g] = m
			continue
		}
		s := 0.0
		for _, j := range idx[g*size : (g+1)*size] {
			s += math.Exp(v[j] - m)
		}
		out[g] = m + math.Log(s)
	}
	c.putF(0, x.DType, shape, out)
}

// along calls f on every line of the tensor along an axis; in and out are
// copies of the line.
func along(c *call, t *model.Tensor, axis int, f func(in, out []float64)) []float64 {
	shape := t.Shape
	v := floats(t)
	out := c.alloc(shape)
	n := shape[axis]
	inner := prod(shape[axis+1:])
	outer := prod(shape[:axis])
	line, res := make([]float64, n), make([]float64, n)
	for o := range outer {
		for i := range inner {
			base := o*n*inner + i
			for k := range line {
				line[k] = v[base+k*inner]
			}
			f(line, res)
			for k, r := range res {
				out[base+k*inner] = r
			}
		}
	}
	return out
}

// lines evaluates an operator that maps each line along the axis attribute.
func lines(def int, f func(in, out []float64)) func(*call) {
	return func(c *call) {
		x := c.x(0)
		axis := normAxis(c.n.Attrs.Int("axis", def), len(x.Shape))
		c.putF(0, x.DType, x.Shape, along(c, x, axis, f))
	}
}

func softmax(in, out []float64) {
	m := math.Inf(-1)
	for _, v := range in {
		m = maxF(m, v)
	}
	s := 0.0
	for i, v := range in {
		out[i] = math.Exp(v - m)
		s += out[i]
	}
	for i := range out {
		out[i] /= s
	}
}

func logSoftmax(in, out []float64) {
	m := math.Inf(-1)
	for _, v := range in {
		m = maxF(m, v)
	}
	s := 0.0
	for _, v := range in {
		s += math.Exp(v - m)
	}
	l := m + math.Log(s)
	for i, v := range in {
		out[i] = v - l
	}
}

func hardmax(in, out []float64) {
	best := 0
	for i, v := range in {
		out[i] = 0
		if v > in[best] {
			best = i
		}
	}
	if len(out) > 0 {
		out[best] = 1
	}
}

func inferSoftmax(c *inference) {
	c.typ(0, c.dtype(0))
	s := c.shape(0)
	if len(s) > 0 {
		c.axis(-1, len(s))
	}
	c.out(0, c.dtype(0), s)
}

func argReduce(better func(x, best float64) bool) func(*call) {
	return func(c *call) {
		x := c.x(0)
		axis := normAxis(c.n.Attrs.Int("axis", 0), len(x.Shape))
		lastWins := c.n.Attrs.Int("select_last_index", 0) != 0
		mask := make([]bool, len(x.Shape))
		mask[axis] = true
		shape := dropAxes(x.Shape, mask, c.n.Attrs.Int("keepdims", 1) != 0)
		v := floats(x)
		idx, groups, size := reduceIndex(x.Shape, mask)
		if size == 0 && groups > 0 {
			failf("axis %d of %v is empty", axis, x.Shape)
		}
		out := make([]int64, groups)
		for g := range groups {
			best := 0
			row := idx[g*size : (g+1)*size]
			for k, j := range row {
				if b := v[row[best]]; better(v[j], b) || lastWins && v[j] == b {
					best = k
				}
			}
			out[g] = int64(best)
		}
		c.putI(0, model.Int64, shape, out)
	}
}

func init() {
	arity := [4]int{1, 2, 1, 1}
	sum := func(a, x float64) float64 { return a + x }
	abs := func(a, x float64) float64 { return a + math.Abs(x) }
	sq := func(a, x float64) float64 { return a + x*x }
	register("reduce", arity, inferReduce, reduceInt(0, func(a, x int64) int64 { return a + x }, reduce(0, sum, nil)), "ReduceSum")
	register("reduce", arity, inferReduce, reduce(0, sum, func(a float64, n int) float64 { return a / float64(n) }), "ReduceMean")
	register("reduce", arity, inferReduce, reduce(math.Inf(-1), maxF, nil), "ReduceMax")
	register("reduce", arity, inferReduce, reduce(math.Inf(1), minF, nil), "ReduceMin")
	register("reduce", arity, inferReduce, reduceInt(1, func(a, x int64) int64 { return a * x }, reduce(1, func(a, x float64) float64 { return a * x }, nil)), "ReduceProd")
	register("reduce", arity, inferReduce, reduceInt(0, func(a, x int64) int64 { return a + max(x, -x) }, reduce(0, abs, nil)), "ReduceL1")
	register("reduce", arity, inferReduce, reduce(0, sq, func(a float64, _ int) float64 { return math.Sqrt(a) }), "ReduceL2")
	register("reduce", arity, inferReduce, reduceInt(0, func(a, x int64) int64 { return a + x*x }, reduce(0, sq, nil)), "ReduceSumSquare")
	register("reduce", arity, inferReduce, reduce(0, sum, func(a float64, _ int) float64 { return math.Log(a) }), "ReduceLogSum")
	register("reduce", arity, inferReduce, evalLogSumExp, "ReduceLogSumExp")

	one := [4]int{1, 1, 1, 1}
	register("softmax", one, inferSoftmax, lines(-1, softmax), "Softmax")
	register("softmax", one, inferSoftmax, lines(-1, logSoftmax), "LogSoftmax")
	register("softmax", one, inferSoftmax, lines(-1, hardmax), "Hardmax")

	inferArg := func(c *inference) {
		c.typ(0, model.Int64)
		s := c.shape(0)
		mask := make([]bool, len(s))
		mask[c.axis(0, len(s))] = true
		c.out(0, model.Int64, dropAxes(s, mask, c.n.Attrs.Int("keepdims", 1) != 0))
	}
	register("reduce", one, inferArg, argReduce(func(x, b float64) bool { return x > b }), "ArgMax")
	register("reduce", one, inferArg, argReduce(func(x, b float64) bool { return x < b }), "ArgMin")

	register("reduce", [4]int{2, 2, 1, 1}, sameType, func(c *call) {
		x := c.x(0)
		axis := normAxis(c.int1(1, 0), len(x.Shape))
		exclusive, reverse := c.n.Attrs.Int("exclusive", 0) != 0, c.n.Attrs.Int("reverse", 0) != 0
		c.putF(0, x.DType, x.Shape, along(c, x, axis, func(in, out []float64) {
			s := 0.0
			for i := range in {
				k := i
				if reverse {
					k = len(in) - 1 - i
				}
				if exclusive {
					out[k] = s
					s += in[k]
				} else {
					s += in[k]
					out[k] = s
				}
			}
		}))
	}, "CumSum")
}
