package passes

import (
	"slices"

	"github.com/triune-sim/triune/model"
)

// norms recognises normalisations that are spelled out, and global average
// pooling spelled as a mean over space.
func norms(r *rewriter, n *model.Node) (bool, error) {
	switch n.Op {
	case "Div", "Mul":
		if standardise(r, n) || rms(r, n) {
			return true, nil
		}
		return normScale(r, n), nil
	case "Add":
		return normShift(r, n), nil
	case "Reshape":
		if done, err := groupNorm(r, n); done || err != nil {
			return done, err
		}
		return groupNormOfLayerNorm(r, n), nil
	case "BatchNormalization":
		return normBatchNorm(r, n), nil
	case "ReduceMean":
		return globalPool(r, n), nil
	}
	return false, nil
}

// mean returns the node that writes v if it is a mean, spelled either way.
func (r *rewriter) mean(v *model.Value) *model.Node {
	if p := r.producer(v, "ReduceMean"); p != nil {
		return p
	}
	return r.producer(v, "GlobalAveragePool")
}

// axesOf returns the axes of a reduction, non-negative and sorted, and whether
// they are kept.
func axesOf(n *model.Node) ([]int, bool) {
	x := n.In(0)
	if x == nil || !x.Shape.Known() {
		return nil, false
	}
	rank := len(x.Shape)
	var axes []int
	if n.Op == "GlobalAveragePool" {
		for i := 2; i < rank; i++ {
			axes = append(axes, i)
		}
		return axes, true
	}
	if v := n.In(1); v != nil {
		a, ok := ints(v)
		if !ok {
			return nil, false
		}
		for _, i := range a {
			if i < 0 {
				i += int64(rank)
			}
			axes = append(axes, int(i))
		}
	}
	if len(axes) == 0 {
		if n.Attrs.Int("noop_with_empty_axes", 0) != 0 {
			return nil, false
		}
		for i := range rank {
			axes = append(axes, i)
		}
	}
	slices.Sort(axes)
	return axes, n.Attrs.Int("keepdims", 1) == 1
}

// trailing reports whether axes are the last ones of a tensor of some rank.
func trailing(axes []int, rank int) bool {
	for i, a := range axes {
		if a != rank-len(axes)+i {
			return false
		}
	}
	return len(axes) > 0
}

// square returns y where v is y*y or y^2.
func (r *rewriter) square(v *model.Value) *model.Value {
	if p := r.inner(v, "Mul"); p != nil && p.In(0) == p.In(1) {
		return p.In(0)
	}
	if p := r.inner(v, "Pow"); p != nil {
		if e, ok := scalar(p.In(1)); ok && e == 2 {
			return p.In(0)
		}
	}
	return nil
}

// inverseRoot reads node n as numerator / sqrt(mean + eps), in one of the
// spellings division by Sqrt, product with Reciprocal of Sqrt, product with 1
// divided by Sqrt, product with the power -1/2.
func (r *rewriter) inverseRoot(n *model.Node) (numerator *model.Value, mean *model.Node, eps float64, ok bool) {
	if len(n.Inputs) != 2 {
		return nil, nil, 0, false
	}
	try := func(num, root *model.Value) bool {
		m, e := root, 0.0
		if y, c, isSum := r.shifted(root); isSum {
			m, e = y, c
		}
		p := r.mean(m)
		if p == nil || e < 0 || !r.sole(m) {
			return false
		}
		numerator, mean, eps = num, p, e
		return true
	}
	if n.Op == "Div" {
		p := r.inner(n.In(1), "Sqrt")
		ok = p != nil && try(n.In(0), p.In(0))
		return numerator, mean, eps, ok
	}
	for i := range 2 {
		num, v := n.In(1-i), n.In(i)
		var root *model.Value
		if p := r.inner(v, "Reciprocal"); p != nil {
			if q := r.inner(p.In(0), "Sqrt"); q != nil {
				root = q.In(0)
			}
		} else if p := r.inner(v, "Div"); p != nil {
			if one, isConst := scalar(p.In(0)); isConst && one == 1 {
				if q := r.inner(p.In(1), "Sqrt"); q != nil {
					root = q.In(0)
				}
			}
		} else if p := r.inner(v, "Pow"); p != nil {
			if e, isConst := scalar(p.In(1)); isConst && e == -0.5 {
				root = p.In(0)
			}
		}
		if root != nil && try(num, root) {
			return numerator, mean, eps, true
		}
	}
	return nil, nil, 0, false
}

// standardise recognises (x-mean(x)) / sqrt(mean((x-mean(x))^2) + eps) over
// the last axes. The result is a layer norm of unit scale; normScale and
// normShift give it the real one.
func standardise(r *rewriter, n *model.Node) bool {
	d, variance, eps, ok := r.inverseRoot(n)
	if !ok {
		return false
	}
	out := n.Outputs[0]
	sub := r.producer(d, "Sub")
	if sub == nil || r.outputs[d] || r.square(variance.In(0)) != d && !r.sameDifference(r.square(variance.In(0)), sub) {
		return false
	}
	x := sub.In(0)
	mean := r.mean(sub.In(1))
	if mean == nil || x == nil || mean.In(0) != x || !x.Shape.Equal(out.Shape) || x.DType != out.DType || !x.DType.IsFloat() {
		return false
	}
	axes, keep := axesOf(mean)
	more, keepMore := axesOf(variance)
	if !keep || !keepMore || !slices.Equal(axes, more) {
		return false
	}
	rank := len(x.Shape)
	switch {
	case trailing(axes, rank) && len(axes) < rank:
		shape := x.Shape[axes[0]:].Clone()
		r.become(n, "LayerNormalization", model.Attrs{"axis": axes[0] - rank, "epsilon": eps},
			x, filled(out.Name+".scale", x.DType, shape, 1))
		r.unitScale[n] = true
		return true
	}
	return false
}

// sameDifference reports whether v is the same subtraction as sub, computed
// twice.
func (r *rewriter) sameDifference(v *model.Value, sub *model.Node) bool {
	if v == nil {
		return false
	}
	p := r.producer(v, "Sub")
	if p == nil || p.In(0) != sub.In(0) {
		return false
	}
	a, b := r.mean(p.In(1)), r.mean(sub.In(1))
	if a == nil || b == nil || a.In(0) != b.In(0) {
		return false
	}
	x, kx := axesOf(a)
	y, ky := axesOf(b)
	return kx == ky && slices.Equal(x, y)
}

// rms recognises x / sqrt(mean(x^2) + eps) over the last axes.
func rms(r *rewriter, n *model.Node) bool {
	x, mean, eps, ok := r.inverseRoot(n)
	if !ok || r.square(mean.In(0)) != x || x == nil {
		return false
	}
	out := n.Outputs[0]
	axes, keep := axesOf(mean)
	rank := len(x.Shape)
	if !keep || !trailing(axes, rank) || !x.Shape.Equal(out.Shape) || x.DType != out.DType || !x.DType.IsFloat() {
		return false
	}
	r.become(n, "RMSNormalization", model.Attrs{"axis": axes[0] - rank, "epsilon": eps},
		x, filled(out.Name+".scale", x.DType, x.Shape[axes[0]:].Clone(), 1))
	r.unitScale[n] = true
	return true
}

// filled returns a constant of one repeated value.
func filled(name string, d model.DType, shape model.Shape, v float64) *model.Value {
	return newConst(name, model.NewLazy(d, shape, func() (*model.Tensor, error) {
		t := model.NewTensor(d, shape...)
		for i := range t.Len() {
			t.Set(i, v)
		}
		return t, nil
	}))
}

// operand finds the constant factor or summand of n and the norm it applies
// to.
func (r *rewriter) operand(n *model.Node) (norm *model.Node, c *model.Value) {
	if len(n.Inputs) != 2 || n.Op == "Div" {
		return nil, nil
	}
	for i := range 2 {
		c, x := n.In(i), n.In(1-i)
		if c == nil || x == nil || c.Const == nil || x.Producer == nil || !r.sole(x) || !c.DType.IsFloat() {
			continue
		}
		switch p := x.Producer; p.Op {
		case "LayerNormalization", "RMSNormalization", "GroupNormalization":
			if !r.dead[p] && len(p.Outputs) == 1 && x.Shape.Equal(n.Outputs[0].Shape) {
				return p, c
			}
		}
	}
	return nil, nil
}

// normOperand returns constant c in the shape that the norm's scale and bias
// have, or nil if it does not fit.
func normOperand(p *model.Node, c *model.Value) *model.Value {
	x := p.In(0)
	rank := len(x.Shape)
	var want model.Shape
	if p.Op == "GroupNormalization" {
		want = model.Shape{x.Shape[1]}
		if !perChannel(c.Shape, rank, 1, x.Shape[1]) || c.Const.Elems() != int64(x.Shape[1]) {
			return nil
		}
	} else {
		axis := p.Attrs.Int("axis", -1)
		if axis < 0 {
			axis += rank
		}
		if axis < 0 || axis >= rank {
			return nil
		}
		want = x.Shape[axis:].Clone()
		if len(c.Shape) > rank {
			return nil
		}
		// Leading ones are allowed; what remains must cover the axes.
		s := c.Shape
		for len(s) > len(want) {
			if s[0] != 1 {
				return nil
			}
			s = s[1:]
		}
		if !s.Equal(want) {
			return nil
		}
	}
	k := reshapeConst(c.Const, want)
	if k == nil {
		return nil
	}
	if k == c.Const {
		return c
	}
	return newConst(c.Name+"/"+p.Name, k)
}

// normScale gives a norm of unit scale the factor that follows it.
func normScale(r *rewriter, n *model.Node) bool {
	p, c := r.operand(n)
	if p == nil || n.Op != "Mul" || !r.unitScale[p] || p.In(2) != nil && p.Op != "GroupNormalization" {
		return false
	}
	k := normOperand(p, c)
	if k == nil || k.DType != p.In(0).DType {
		return false
	}
	in := slices.Clone(p.Inputs)
	in[1] = k
	r.setInputs(p, in...)
	delete(r.unitScale, p)
	r.takeOver(p, n)
	return true
}

// normShift gives a norm without bias the summand that follows it.
func normShift(r *rewriter, n *model.Node) bool {
	p, c := r.operand(n)
	if p == nil || p.Op == "RMSNormalization" || p.In(2) != nil && !r.zeroBias[p] {
		return false
	}
	k := normOperand(p, c)
	if k == nil || k.DType != p.In(0).DType {
		return false
	}
	in := append(slices.Clone(p.Inputs[:2]), k)
	r.setInputs(p, in...)
	delete(r.unitScale, p)
	delete(r.zeroBias, p)
	r.takeOver(p, n)
	return true
}

// groupNorm recognises the export of a group norm: reshape to
// [n, groups, -1], instance norm of scale 1 and bias 0, reshape back.
func groupNorm(r *rewriter, n *model.Node) (bool, error) {
	inst := r.inner(n.In(0), "InstanceNormalization")
	if inst == nil {
		return false, nil
	}
	back := r.inner(inst.In(0), "Reshape")
	if back == nil {
		return false, nil
	}
	x, out, mid := back.In(0), n.Outputs[0], inst.In(0)
	if x == nil || !x.Shape.Known() || !x.Shape.Equal(out.Shape) || len(x.Shape) < 3 || len(mid.Shape) < 3 || mid.Shape[0] != x.Shape[0] ||
		mid.Shape[1] < 1 || x.Shape[1]%mid.Shape[1] != 0 || !mid.Shape.Known() {
		return false, nil
	}
	for i, want := range []float64{1, 0} {
		c := inst.In(i + 1)
		if c == nil || c.Const == nil || c.Const.Elems() > 1<<16 {
			return false, nil
		}
		t, err := c.Const.Value()
		if err != nil {
			return false, err
		}
		for j := range t.Len() {
			if t.At(j) != want {
				return false, nil
			}
		}
	}
	r.becomeGroupNorm(n, x, mid.Shape[1], inst.Attrs.Float("epsilon", 1e-5))
	return true, nil
}

// groupNormOfLayerNorm recognises the other spelling of a group norm, Core
// ML's: reshape to [n, groups, c/groups, ...], a layer norm of unit scale over
// all axes but the first two, reshape back.
func groupNormOfLayerNorm(r *rewriter, n *model.Node) bool {
	p := r.inner(n.In(0), "LayerNormalization")
	if p == nil || !r.unitScale[p] || p.In(2) != nil {
		return false
	}
	back := r.inner(p.In(0), "Reshape")
	if back == nil {
		return false
	}
	x, out, mid := back.In(0), n.Outputs[0], p.In(0)
	axis := p.Attrs.Int("axis", -1)
	if axis < 0 {
		axis += len(mid.Shape)
	}
	if x == nil || !x.Shape.Known() || !x.Shape.Equal(out.Shape) || len(x.Shape) < 3 || axis != 2 ||
		mid.Shape[0] != x.Shape[0] || mid.Shape[1] < 1 || x.Shape[1]%mid.Shape[1] != 0 {
		return false
	}
	r.becomeGroupNorm(n, x, mid.Shape[1], p.Attrs.Float("epsilon", 1e-5))
	return true
}

// becomeGroupNorm makes n a group norm of unit scale and zero bias.
func (r *rewriter) becomeGroupNorm(n *model.Node, x *model.Value, groups int, eps float64) {
	out, shape := n.Outputs[0], model.Shape{x.Shape[1]}
	r.become(n, "GroupNormalization", model.Attrs{"num_groups": groups, "epsilon": eps},
		x, filled(out.Name+".scale", x.DType, shape, 1), filled(out.Name+".bias", x.DType, shape, 0))
	r.unitScale[n], r.zeroBias[n] = true, true
}

// normBatchNorm gives a group norm of unit scale the scale and shift per
// channel of the batch norm that follows it.
func normBatchNorm(r *rewriter, n *model.Node) bool {
	p := r.inner(n.In(0), "GroupNormalization")
	if p == nil || !r.unitScale[p] || !r.zeroBias[p] || n.Attrs.Int("training_mode", 0) != 0 || len(n.Inputs) != 5 || len(n.Outputs) != 1 {
		return false
	}
	c := p.In(0).Shape[1]
	for _, v := range n.Inputs[1:] {
		if v == nil || v.Const == nil || v.Const.Elems() != int64(c) {
			return false
		}
	}
	m := batchNormMap(n, c)
	d, shape := p.In(0).DType, model.Shape{c}
	vector := func(f func() ([]float64, error)) *model.Const {
		return model.NewLazy(d, shape, func() (*model.Tensor, error) {
			v, err := f()
			if err != nil {
				return nil, err
			}
			t := model.NewTensor(d, shape...)
			for i, x := range v {
				t.Set(i, x)
			}
			return t, nil
		})
	}
	scale, shift := newConst(n.In(1).Name+"/"+p.Name, vector(m.scale)), newConst(n.In(2).Name+"/"+p.Name, vector(m.shift))
	r.setInputs(p, p.In(0), scale, shift)
	delete(r.unitScale, p)
	delete(r.zeroBias, p)
	r.takeOver(p, n)
	return true
}

// globalPool turns the mean over all spatial axes into GlobalAveragePool, with
// a reshape behind it where the axes are dropped.
func globalPool(r *rewriter, n *model.Node) bool {
	axes, keep := axesOf(n)
	x, out := n.In(0), n.Outputs[0]
	if x == nil || len(x.Shape) < 4 || len(axes) != len(x.Shape)-2 || axes[0] != 2 || !out.DType.IsFloat() || out.Shape.Elems() < 1 {
		return false
	}
	if keep {
		r.become(n, "GlobalAveragePool", nil, x)
		return true
	}
	shape := model.Shape{x.Shape[0], x.Shape[1]}
	for range axes {
		shape = append(shape, 1)
	}
	pool := &model.Node{Name: n.Name + ".pool", Op: "GlobalAveragePool"}
	y := &model.Value{Name: out.Name + ".pool", DType: out.DType, Shape: shape, Producer: pool}
	pool.Outputs = []*model.Value{y}
	r.setInputs(pool, x)
	r.become(n, "Reshape", nil, y, shapeConst(out))
	r.spliced[n] = append(r.spliced[n], pool)
	return true
}

// softmax recognises exp(x - max(x)) / sum of the same, over one axis, with or
// without the subtraction.
func softmax(r *rewriter, n *model.Node) (bool, error) {
	if n.Op != "Div" || n.In(0) == nil || n.In(1) == nil {
		return false, nil
	}
	e, sum := r.producer(n.In(0), "Exp"), r.inner(n.In(1), "ReduceSum")
	if e == nil || sum == nil || sum.In(0) != n.In(0) || r.outputs[n.In(0)] {
		return false, nil
	}
	axes, keep := axesOf(sum)
	x := e.In(0)
	if !keep || len(axes) != 1 || x == nil || !x.Shape.Equal(n.Outputs[0].Shape) || !x.DType.IsFloat() {
		return false, nil
	}
	if sub := r.inner(x, "Sub"); sub != nil {
		if m := r.inner(sub.In(1), "ReduceMax"); m != nil && m.In(0) == sub.In(0) {
			if a, k := axesOf(m); k && slices.Equal(a, axes) {
				x = sub.In(0)
			}
		}
	}
	r.become(n, "Softmax", model.Attrs{"axis": axes[0] - len(x.Shape)}, x)
	return true, nil
}
