package passes

import (
	"context"
	"fmt"
	"slices"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

const (
	// eagerElems is the size up to which a folded constant is computed at
	// once (shapes, axes, scalars); larger ones are computed on first use.
	eagerElems = 1 << 10
	// growElems is the size up to which folding may make a constant larger
	// than what it is computed from (Expand, Tile, ConstantOfShape, Range).
	growElems = 1 << 20
)

// foldConstants replaces a node whose inputs are all constant, and Shape and
// Size of a tensor of known shape, by constants; dequantized codes become one
// constant that keeps the codes (see storeQuantized). Compressed weights are not
// expanded: a transpose moves their codes and scales, any other operator on
// them stays.
func foldConstants(r *rewriter, n *model.Node) (bool, error) {
	if len(n.Blocks) > 0 || len(n.Outputs) == 0 || slices.ContainsFunc(n.Outputs, func(v *model.Value) bool { return v != nil && (r.outputs[v] || v.Type != model.TypeTensor) }) {
		return false, nil
	}
	if done, err := storeQuantized(r, n); done || err != nil {
		return done, err
	}
	if s := knownShape(n); s != nil {
		return r.settle(n, []*model.Const{model.NewConst(s)}), nil
	}
	info, ok := ops.Lookup(n.Op)
	if !ok || !info.Pure {
		return false, nil
	}
	var size int64
	for _, v := range n.Inputs {
		if v == nil {
			continue
		}
		if v.Const == nil {
			return false, nil
		}
		size += v.Const.Elems()
	}
	if a, ok := compressed(n); ok {
		c := transposeAffine(n, a)
		if c == nil {
			c = reshapeAffine(n, a)
		}
		if c != nil {
			return r.settle(n, []*model.Const{c}), nil
		}
		return false, nil
	}
	var grow int64
	for _, v := range n.Outputs {
		if v == nil {
			continue
		}
		e := v.Shape.Elems()
		if e < 0 || v.DType == model.Invalid {
			// Unknown until computed; only small inputs can be afforded.
			if size > eagerElems || !bounded(n.Op) {
				return false, nil
			}
			continue
		}
		grow += e
	}
	if grow > growElems && grow > 2*size {
		return false, nil
	}
	lazy := size+grow > eagerElems && len(n.Outputs) == 1 && n.Outputs[0].DType != model.String && n.Outputs[0].Shape.Known()
	if lazy {
		c := n.Outputs[0]
		frozen := &model.Node{Name: n.Name, Op: n.Op, Attrs: n.Attrs, Inputs: slices.Clone(n.Inputs), Outputs: slices.Clone(n.Outputs)}
		return r.settle(n, []*model.Const{model.NewLazy(c.DType, c.Shape, func() (*model.Tensor, error) {
			out, err := evaluate(frozen)
			if err != nil {
				return nil, err
			}
			return out[0], nil
		})}), nil
	}
	out, err := evaluate(n)
	if err != nil {
		return false, err
	}
	consts := make([]*model.Const, len(n.Outputs))
	for i, v := range n.Outputs {
		if v == nil {
			continue
		}
		if i >= len(out) || out[i] == nil || v.DType != model.Invalid && out[i].DType != v.DType {
			return false, nil
		}
		consts[i] = model.NewConst(out[i])
	}
	return r.settle(n, consts), nil
}

// bounded reports operators whose output cannot be much larger than their
// inputs, so that they may be computed although its shape is not known.
func bounded(op model.Op) bool {
	switch op {
	case "Expand", "Tile", "ConstantOfShape", "Range", "Resize", "Upsample", "Pad", "OneHot", "EyeLike", "RandomNormal", "RandomUniform",
		"HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix", "CenterCropPad", "Col2Im", "Reshape":
		return false
	}
	return true
}

func knownShape(n *model.Node) *model.Tensor {
	x := n.In(0)
	if x == nil || !x.Shape.Known() || x.Type != model.TypeTensor {
		return nil
	}
	switch n.Op {
	case "Shape":
		rank := len(x.Shape)
		clip := func(i int) int {
			if i < 0 {
				i += rank
			}
			return max(0, min(i, rank))
		}
		lo, hi := clip(n.Attrs.Int("start", 0)), clip(n.Attrs.Int("end", rank))
		s := []int64{}
		for i := lo; i < hi; i++ {
			s = append(s, int64(x.Shape[i]))
		}
		return model.Of(s, len(s))
	case "Size":
		return model.Scalar(x.Shape.Elems())
	}
	return nil
}

// settle turns the outputs of a node into constants and removes the node.
func (r *rewriter) settle(n *model.Node, consts []*model.Const) bool {
	for i, v := range n.Outputs {
		if v == nil || consts[i] == nil {
			continue
		}
		v.Const, v.DType, v.Shape, v.Producer = consts[i], consts[i].DType, consts[i].Shape.Clone(), nil
	}
	n.Outputs = nil
	r.kill(n)
	return true
}

// evaluate computes a node of constant inputs.
func evaluate(n *model.Node) ([]*model.Tensor, error) {
	in := make([]*model.Tensor, len(n.Inputs))
	for i, v := range n.Inputs {
		if v == nil {
			continue
		}
		t, err := v.Const.Value()
		if err != nil {
			return nil, fmt.Errorf("constant %q: %w", v.Name, err)
		}
		in[i] = t
	}
	return ops.EvalNode(context.Background(), n, in, ops.Options{MaxBytes: 1 << 30})
}

// compressed returns the first input that is stored compressed.
func compressed(n *model.Node) (*model.Value, bool) {
	for _, v := range n.Inputs {
		if v != nil && v.Const.Storage.Form() != model.FormDense {
			return v, true
		}
	}
	return nil, false
}

// transposeAffine moves the axes of a constant of integer codes.
func transposeAffine(n *model.Node, v *model.Value) *model.Const {
	a, ok := v.Const.Storage.(*model.Affine)
	if !ok || n.Op != "Transpose" || !n.Outputs[0].Shape.Known() {
		return nil
	}
	p := perm(n, len(v.Shape))
	if len(a.Scale.Shape) != len(p) || a.Codes.Storage.Form() != model.FormDense {
		return nil
	}
	move := func(c *model.Const) *model.Const {
		if c == nil {
			return nil
		}
		s := make(model.Shape, len(p))
		for i, k := range p {
			s[i] = c.Shape[k]
		}
		return model.NewLazy(c.DType, s, func() (*model.Tensor, error) {
			t, err := c.Value()
			if err != nil {
				return nil, err
			}
			node := &model.Node{Name: n.Name, Op: "Transpose", Attrs: model.Attrs{"perm": p}, Inputs: []*model.Value{{DType: c.DType, Shape: c.Shape}},
				Outputs: []*model.Value{{DType: c.DType, Shape: s}}}
			out, err := ops.EvalNode(context.Background(), node, []*model.Tensor{t}, ops.Options{})
			if err != nil {
				return nil, err
			}
			return out[0], nil
		})
	}
	return &model.Const{DType: v.Const.DType, Shape: n.Outputs[0].Shape.Clone(), Storage: &model.Affine{Codes: move(a.Codes), Scale: move(a.Scale), Zero: move(a.Zero)}}
}

// reshapeAffine views a constant of integer codes under another shape: with one
// scale for all, or one per element of a leading axis that stays.
func reshapeAffine(n *model.Node, v *model.Value) *model.Const {
	a, ok := v.Const.Storage.(*model.Affine)
	out := n.Outputs[0]
	if !ok || !isView(n.Op) || !out.Shape.Known() || out.Shape.Elems() != v.Const.Elems() || len(out.Shape) == 0 {
		return nil
	}
	groups := make(model.Shape, len(out.Shape))
	for i := range groups {
		groups[i] = 1
	}
	if k := a.Scale.Elems(); k != 1 {
		s := a.Scale.Shape
		if len(s) == 0 || int64(s[0]) != k || v.Shape[0] != s[0] || out.Shape[0] != s[0] {
			return nil
		}
		groups[0] = s[0]
	}
	b := &model.Affine{Codes: reshapeConst(a.Codes, out.Shape), Scale: reshapeConst(a.Scale, groups)}
	if b.Codes == nil || b.Scale == nil {
		return nil
	}
	if a.Zero != nil {
		if a.Zero.Elems() != a.Scale.Elems() {
			return nil
		}
		if b.Zero = reshapeConst(a.Zero, groups); b.Zero == nil {
			return nil
		}
	}
	return &model.Const{DType: v.Const.DType, Shape: out.Shape.Clone(), Storage: b}
}

// storeQuantized turns DequantizeLinear of constants into one constant that is
// stored as integer codes with scales, which is what a compressed weight is.
func storeQuantized(r *rewriter, n *model.Node) (bool, error) {
	if n.Op != "DequantizeLinear" || n.Out(0) == nil || r.outputs[n.Outputs[0]] {
		return false, nil
	}
	codes, scale, zero := n.In(0), n.In(1), n.In(2)
	if codes == nil || scale == nil || codes.Const == nil || scale.Const == nil || zero != nil && zero.Const == nil {
		return false, nil
	}
	out := n.Outputs[0]
	rank := len(codes.Shape)
	if !codes.DType.IsInt() || !scale.DType.IsFloat() || !out.DType.IsFloat() || zero != nil && !zero.DType.IsInt() {
		return false, nil
	}
	shape := make(model.Shape, rank)
	for i := range shape {
		shape[i] = 1
	}
	axis, block := n.Attrs.Int("axis", 1), n.Attrs.Int("block_size", 0)
	if axis < 0 {
		axis += rank
	}
	switch k := scale.Const.Elems(); {
	case block > 0:
		if len(scale.Shape) != rank || axis >= rank || codes.Shape[axis] != scale.Shape[axis]*block {
			return false, nil
		}
		copy(shape, scale.Shape)
	case k == 1:
	case len(scale.Shape) == 1 && axis >= 0 && axis < rank && int64(codes.Shape[axis]) == k:
		shape[axis] = int(k)
	default:
		return false, nil
	}
	a := &model.Affine{Codes: codes.Const, Scale: reshapeConst(scale.Const, shape)}
	if a.Scale == nil || codes.Const.Storage.Form() != model.FormDense {
		return false, nil
	}
	if zero != nil {
		if zero.Const.Elems() != scale.Const.Elems() {
			return false, nil
		}
		t, err := zero.Const.Value()
		if err != nil {
			return false, err
		}
		for i := range t.Len() {
			if t.IntAt(i) != 0 {
				if a.Zero = reshapeConst(zero.Const, shape); a.Zero == nil {
					return false, nil
				}
				break
			}
		}
	}
	return r.settle(n, []*model.Const{{DType: out.DType, Shape: codes.Shape.Clone(), Storage: a}}), nil
}

// reshapeConst returns a dense constant under another shape; nil for other
// storage.
func reshapeConst(c *model.Const, s model.Shape) *model.Const {
	if c.Shape.Equal(s) {
		return c
	}
	if c.Storage.Form() != model.FormDense {
		return nil
	}
	return &model.Const{DType: c.DType, Shape: s.Clone(), Storage: c.Storage}
}
