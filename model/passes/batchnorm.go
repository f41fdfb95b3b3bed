package passes

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
)

// channelMap is y[c] = scale[c]*x[c] + shift[c], values on demand. A nil
// function stands for ones or zeros.
type channelMap struct {
	scale, shift func() ([]float64, error)
}

// foldBatchNorm folds a batch norm, or a multiplication, division, addition or
// subtraction with one constant per channel, into the constant weights and
// bias of the convolution, transposed convolution or linear layer that feeds
// it and nothing else.
//
// With BN(x) = gamma*(x-mean)/sqrt(var+eps) + beta the scale is
// s = gamma/sqrt(var+eps) and the shift beta - s*mean; then W' = s*W per output
// channel and b' = s*b + shift (Jacob et al. 2018, arXiv 1712.05877, section
// 3.2). Weights that are stored as integer codes keep them: their scales are
// multiplied.
func foldBatchNorm(r *rewriter, n *model.Node) (bool, error) {
	var x *model.Value
	var m channelMap
	switch n.Op {
	case "BatchNormalization":
		if n.Attrs.Int("training_mode", 0) != 0 || len(n.Inputs) != 5 || len(n.Outputs) > 1 {
			return false, nil
		}
		x = n.In(0)
	case "Mul", "Div", "Add", "Sub":
		if len(n.Inputs) != 2 {
			return false, nil
		}
		x = n.In(0)
		if x != nil && x.Const != nil && (n.Op == "Mul" || n.Op == "Add") {
			x = n.In(1)
		}
	default:
		return false, nil
	}
	if x == nil || x.Producer == nil || !r.sole(x) || !x.Shape.Equal(n.Outputs[0].Shape) || x.DType != n.Outputs[0].DType {
		return false, nil
	}
	p := x.Producer
	axis, ok := outputAxis(p)
	if !ok || len(x.Shape) <= axis {
		return false, nil
	}
	channels := x.Shape[axis]
	if n.Op == "BatchNormalization" {
		if axis != 1 {
			return false, nil
		}
		for _, v := range n.Inputs[1:] {
			if v == nil || v.Const == nil || v.Const.Elems() != int64(channels) {
				return false, nil
			}
		}
		m = batchNormMap(n, channels)
	} else {
		c := n.In(0)
		if c == x {
			c = n.In(1)
		}
		if c == nil || c.Const == nil || !c.DType.IsFloat() || !perChannel(c.Shape, len(x.Shape), axis, channels) {
			return false, nil
		}
		m = constantMap(n.Op, c.Const, channels)
	}
	w, bias, ok := foldWeights(p, channels, m)
	if !ok {
		return false, nil
	}
	r.own(w, p.In(1), p)
	if bias != nil {
		r.own(bias, p.In(2), p)
	}
	in := []*model.Value{p.In(0), w}
	if bias != nil {
		in = append(in, bias)
	}
	r.setInputs(p, in...)
	r.takeOver(p, n)
	return true, nil
}

// own names a new constant of node p after the one it replaces, or after the
// node where that one is shared or was absent.
func (r *rewriter) own(v, old *model.Value, p *model.Node) {
	switch {
	case v == old:
	case old == nil:
		v.Name = p.Name + ".bias"
	case r.sole(old):
		v.Name = old.Name
	default:
		v.Name = old.Name + "/" + p.Name
	}
}

// outputAxis returns the channel axis of the output of a node that has
// constant weights to fold into.
func outputAxis(p *model.Node) (int, bool) {
	w := p.In(1)
	if w == nil || w.Const == nil || !w.DType.IsFloat() || len(p.Outputs) != 1 {
		return 0, false
	}
	if b := p.In(2); b != nil && (b.Const == nil || len(b.Const.Shape) > 2) {
		return 0, false
	}
	switch p.Op {
	case "Conv", "ConvTranspose":
		return 1, len(w.Shape) >= 3
	case "Gemm":
		return 1, len(w.Shape) == 2 && p.Attrs.Float("alpha", 1) == 1 && p.Attrs.Float("beta", 1) == 1
	}
	return 0, false
}

// perChannel reports whether a constant of shape s varies along no axis but
// the given one of a tensor of the given rank.
func perChannel(s model.Shape, rank, axis, channels int) bool {
	if len(s) > rank {
		return false
	}
	for i, d := range s {
		if at := i + rank - len(s); d != 1 && !(at == axis && d == channels) {
			return false
		}
	}
	return true
}

func batchNormMap(n *model.Node, channels int) channelMap {
	eps := n.Attrs.Float("epsilon", 1e-5)
	gamma, beta, mean, variance := n.In(1).Const, n.In(2).Const, n.In(3).Const, n.In(4).Const
	scale := func() ([]float64, error) {
		g, err := spread(gamma, channels)
		if err != nil {
			return nil, err
		}
		v, err := spread(variance, channels)
		if err != nil {
			return nil, err
		}
		for i := range g {
			g[i] /= math.Sqrt(v[i] + eps)
		}
		return g, nil
	}
	shift := func() ([]float64, error) {
		s, err := scale()
		if err != nil {
			return nil, err
		}
		b, err := spread(beta, channels)
		if err != nil {
			return nil, err
		}
		m, err := spread(mean, channels)
		if err != nil {
			return nil, err
		}
		for i := range b {
			b[i] -= s[i] * m[i]
		}
		return b, nil
	}
	return channelMap{scale, shift}
}

func constantMap(op model.Op, c *model.Const, channels int) channelMap {
	values := func() ([]float64, error) {
		v, err := spread(c, channels)
		for i := range v {
			switch op {
			case "Div":
				v[i] = 1 / v[i]
			case "Sub":
				v[i] = -v[i]
			}
		}
		return v, err
	}
	if op == "Mul" || op == "Div" {
		return channelMap{scale: values}
	}
	return channelMap{shift: values}
}

// spread returns a fresh copy of a constant's values, a single one repeated.
func spread(c *model.Const, n int) ([]float64, error) {
	t, err := c.Value()
	if err != nil {
		return nil, err
	}
	k := t.Len()
	if k != n && k != 1 {
		return nil, fmt.Errorf("constant of shape %v where %d values are needed", t.Shape, n)
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = t.At(i % k)
	}
	return out, nil
}

// foldWeights returns the weight and bias of node p followed by m; ok is false
// where the storage of the weight does not allow it.
func foldWeights(p *model.Node, channels int, m channelMap) (w, bias *model.Value, ok bool) {
	w = p.In(1)
	if m.scale != nil {
		axis := 0
		if p.Op == "Gemm" && p.Attrs.Int("transB", 0) == 0 {
			axis = 1
		}
		groups := 1
		if p.Op == "ConvTranspose" {
			axis, groups = 1, max(p.Attrs.Int("group", 1), 1)
		}
		c := scaleConst(w.Const, axis, groups, channels, m.scale)
		if c == nil {
			return nil, nil, false
		}
		w = newConst("", c)
	}
	b := p.In(2)
	if b == nil && m.shift == nil {
		return w, nil, true
	}
	var old *model.Const
	if b != nil {
		old = b.Const
		if n := old.Elems(); n != int64(channels) && n != 1 || len(old.Shape) == 2 && old.Shape[0] != 1 {
			return nil, nil, false
		}
	}
	d := w.DType
	shape := model.Shape{channels}
	return w, newConst("", model.NewLazy(d, shape, func() (*model.Tensor, error) {
		v := make([]float64, channels)
		var err error
		if old != nil {
			if v, err = spread(old, channels); err != nil {
				return nil, err
			}
		}
		if m.scale != nil {
			s, err := m.scale()
			if err != nil {
				return nil, err
			}
			for i := range v {
				v[i] *= s[i]
			}
		}
		if m.shift != nil {
			s, err := m.shift()
			if err != nil {
				return nil, err
			}
			for i := range v {
				v[i] += s[i]
			}
		}
		t := model.NewTensor(d, shape...)
		for i, x := range v {
			t.Set(i, x)
		}
		return t, nil
	})), true
}

// scaleConst returns c with every element multiplied by the scale of its
// output channel, in the same form of storage; nil where it cannot keep the
// form. axis is the channel axis of c; with more than one group (transposed
// convolutions) axis 0 counts groups.
func scaleConst(c *model.Const, axis, groups, channels int, scale func() ([]float64, error)) *model.Const {
	if axis >= len(c.Shape) || c.Shape[axis]*groups != channels || c.Shape[0]%groups != 0 {
		return nil
	}
	if a, ok := c.Storage.(*model.Affine); ok {
		if groups != 1 {
			return nil
		}
		return scaleAffine(c, a, axis, channels, scale)
	}
	if c.Storage.Form() != model.FormDense {
		return nil
	}
	return model.NewLazy(c.DType, c.Shape, func() (*model.Tensor, error) {
		t, err := c.Value()
		if err != nil {
			return nil, err
		}
		s, err := scale()
		if err != nil {
			return nil, err
		}
		return scaleTensor(t, axis, groups, s), nil
	})
}

// scaleTensor multiplies along an axis. The scale of element (i0, ..., ia) is
// s[group(i0)*shape[axis] + ia].
func scaleTensor(t *model.Tensor, axis, groups int, s []float64) *model.Tensor {
	out := model.NewTensor(t.DType, t.Shape...)
	inner := int(t.Shape[axis+1:].Elems())
	n := t.Shape[axis]
	perGroup := 1
	if groups > 1 {
		perGroup = int(t.Shape[1:].Elems()) * (t.Shape[0] / groups)
	}
	index := func(i int) int {
		k := i / inner % n
		if groups > 1 {
			k += i / perGroup * n
		}
		return k
	}
	if t.DType == model.Float32 {
		// Read from the bytes: those of a mapped file are seldom aligned, and a view
		// would copy them all first.
		y := model.View[float32](out)
		for i := 0; i < len(y); i += inner {
			f := s[index(i)]
			x, y := t.Data[4*i:4*(i+inner)], y[i:i+inner]
			for j := range y {
				y[j] = float32(float64(math.Float32frombits(binary.LittleEndian.Uint32(x[4*j:]))) * f)
			}
		}
		return out
	}
	for i := range t.Len() {
		out.Set(i, t.At(i)*s[index(i)])
	}
	return out
}

// scaleAffine multiplies the scales of integer codes, giving them one value
// per output channel if they had a single one.
func scaleAffine(c *model.Const, a *model.Affine, axis, channels int, scale func() ([]float64, error)) *model.Const {
	old := a.Scale.Shape
	if len(old) != len(c.Shape) || old[axis] != 1 && old[axis] != channels {
		return nil
	}
	shape := old.Clone()
	shape[axis] = channels
	widen := func(k *model.Const) *model.Const {
		if slices.Equal(k.Shape, shape) {
			return k
		}
		return model.NewLazy(k.DType, shape, func() (*model.Tensor, error) { return widenAxis(k, shape, axis) })
	}
	wide := widen(a.Scale)
	out := &model.Affine{Codes: a.Codes, Scale: model.NewLazy(a.Scale.DType, shape, func() (*model.Tensor, error) {
		t, err := wide.Value()
		if err != nil {
			return nil, err
		}
		s, err := scale()
		if err != nil {
			return nil, err
		}
		return scaleTensor(t, axis, 1, s), nil
	})}
	if a.Zero != nil {
		out.Zero = widen(a.Zero)
	}
	return &model.Const{DType: c.DType, Shape: c.Shape.Clone(), Storage: out}
}

// widenAxis repeats a constant of length one along an axis.
func widenAxis(c *model.Const, shape model.Shape, axis int) (*model.Tensor, error) {
	t, err := c.Value()
	if err != nil {
		return nil, err
	}
	out := model.NewTensor(t.DType, shape...)
	inner := int(shape[axis+1:].Elems())
	n := shape[axis]
	for i := range out.Len() {
		from := i/(inner*n)*inner + i%inner
		if t.DType.IsFloat() {
			out.Set(i, t.At(from))
		} else {
			out.SetInt(i, t.IntAt(from))
		}
	}
	return out, nil
}
