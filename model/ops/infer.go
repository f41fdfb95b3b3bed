package ops

import (
	"context"

	"github.com/triune-sim/triune/model"
)

// Unranked is the shape of a value of which not even the rank is known, as
// happens inside loops and for elements of sequences. It is not Known.
func Unranked() model.Shape { return model.Shape{-2} }

// IsUnranked reports whether s stands for an unknown rank.
func IsUnranked(s model.Shape) bool { return len(s) == 1 && s[0] == -2 }

// maxRank bounds the dimensions of a tensor.
const maxRank = 64

// maxFold bounds how many elements a constant may have to be evaluated during
// shape inference: shapes, axes and index tensors are far smaller.
const maxFold = 1 << 15

// Inferer infers types and shapes node by node, remembering the values of
// constants that shapes depend on. It is not safe for concurrent use.
type Inferer struct {
	known map[*model.Value]*model.Tensor
	// room is how many more bytes of computed values may be remembered: one
	// operator of a few bytes can make the largest that is folded.
	room int
}

// maxKnown bounds the values an Inferer remembers, in bytes. The shapes and
// indices of a network of ten thousand operators take less than one megabyte.
const maxKnown = 2 << 20

// NewInferer returns an inferer with nothing known.
func NewInferer() *Inferer { return &Inferer{known: map[*model.Value]*model.Tensor{}, room: maxKnown} }

// Remembered returns about how many bytes the values take that are remembered.
func (f *Inferer) Remembered() int { return maxKnown - f.room + 48*len(f.known) }

// InferGraph sets the type and shape of every value that a node of g writes,
// blocks included, from the types of the graph's inputs and constants. A
// dimension that depends on data is -1. Where a shape depends on the value of
// another tensor (the target of Reshape, the axes of Squeeze), that value is
// computed if it depends on constants and shapes only; weights are not
// decoded.
func InferGraph(g *model.Graph) error { return NewInferer().Graph(g) }

// InferNode is [Inferer.Node] without memory between calls.
func InferNode(n *model.Node) error { return NewInferer().Node(n) }

// Graph infers all nodes of g in order.
func (f *Inferer) Graph(g *model.Graph) error {
	for _, n := range g.Nodes {
		if err := f.Node(n); err != nil {
			return err
		}
	}
	return nil
}

// Node sets the types and shapes of a node's outputs from those of its inputs.
// The error names the node, the operator and what is wrong.
func (f *Inferer) Node(n *model.Node) error {
	s, err := find(n)
	if err != nil {
		return err
	}
	for _, v := range n.Outputs {
		if v != nil {
			v.DType, v.Shape = model.Invalid, Unranked()
		}
	}
	c := &inference{n: n, f: f}
	return guard(n, func() {
		defer func() {
			if r := recover(); r != nil && r != stop {
				panic(r)
			}
		}()
		s.infer(c)
	})
}

// Value returns the value of v if it depends on constants and known shapes
// only and is small, else nil. The result must not be modified.
func (f *Inferer) Value(v *model.Value) *model.Tensor {
	if v == nil || v.Type != model.TypeTensor {
		return nil
	}
	if t, ok := f.known[v]; ok {
		return t
	}
	t := f.compute(v)
	f.known[v] = t
	return t
}

func (f *Inferer) compute(v *model.Value) *model.Tensor {
	if v.Const != nil {
		if n := v.Const.Elems(); n < 0 || n > maxFold {
			return nil
		}
		t, err := v.Const.Value()
		if err != nil {
			return nil
		}
		return t
	}
	n := v.Producer
	if n == nil {
		return nil
	}
	// Cut recursion on malformed graphs: unknown until proven otherwise.
	f.known[v] = nil
	switch n.Op {
	case "Shape", "Size":
		x := n.In(0)
		if x == nil || x.Type != model.TypeTensor || !x.Shape.Known() {
			return nil
		}
		if n.Op == "Size" {
			return model.Scalar(x.Shape.Elems())
		}
		return shapeTensor(n, x.Shape)
	}
	s := registry[n.Op]
	if s == nil || s.impure || n.Blocks != nil {
		return nil
	}
	if e := v.Shape.Elems(); e > maxFold || (e < 0 && IsUnranked(v.Shape)) || e >= 0 && v.DType.Bytes(e) > int64(f.room) {
		return nil
	}
	in := make([]*model.Tensor, len(n.Inputs))
	for i, x := range n.Inputs {
		if x == nil {
			continue
		}
		if e := x.Shape.Elems(); e > maxFold {
			return nil
		}
		if in[i] = f.Value(x); in[i] == nil {
			return nil
		}
	}
	out, err := EvalNode(context.Background(), n, in, Options{MaxBytes: maxFold * 8})
	if err != nil {
		return nil
	}
	var result *model.Tensor
	for i, w := range n.Outputs {
		if w == nil || i >= len(out) || out[i] == nil {
			continue
		}
		if len(out[i].Data) > f.room {
			return nil
		}
		f.room -= len(out[i].Data)
		if w == v {
			result = out[i]
		} else {
			f.known[w] = out[i]
		}
	}
	return result
}

// stop ends an inference early: what is set so far stands.
var stop = new(int)

// inference is the state of one node's inference.
type inference struct {
	n *model.Node
	f *Inferer
}

func (c *inference) has(i int) bool { return c.n.In(i) != nil }

func (c *inference) in(i int) *model.Value {
	v := c.n.In(i)
	if v == nil {
		failf("input %d is missing", i)
	}
	return v
}

func (c *inference) dtype(i int) model.DType { return c.in(i).DType }

// shape returns the shape of input i; if its rank is unknown the inference
// ends there, leaving the outputs unranked.
func (c *inference) shape(i int) model.Shape {
	v := c.in(i)
	if v.Type != model.TypeTensor {
		failf("input %d (%q) is not a tensor", i, v.Name)
	}
	if IsUnranked(v.Shape) {
		panic(stop)
	}
	return v.Shape
}

// shapeOf returns the shape of input i and whether its rank is known.
func (c *inference) shapeOf(i int) (model.Shape, bool) {
	v := c.in(i)
	return v.Shape, !IsUnranked(v.Shape)
}

// rankIs returns the shape of input i after checking its rank.
func (c *inference) rankIs(i, rank int) model.Shape {
	s := c.shape(i)
	if len(s) != rank {
		failf("input %d (%q) has shape %v, wants rank %d", i, c.in(i).Name, s, rank)
	}
	return s
}

func (c *inference) rankAtLeast(i, rank int) model.Shape {
	s := c.shape(i)
	if len(s) < rank {
		failf("input %d (%q) has shape %v, wants rank %d or more", i, c.in(i).Name, s, rank)
	}
	return s
}

// value returns the value of input i if it is known, else nil.
func (c *inference) value(i int) *model.Tensor { return c.f.Value(c.n.In(i)) }

// ints returns the value of integer input i if it is known.
func (c *inference) ints(i int) ([]int, bool) {
	t := c.value(i)
	if t == nil || !(t.DType.IsInt() || t.DType == model.Bool) {
		return nil, false
	}
	return asInts(t), true
}

// typ sets the element type of output i, if the node has it.
func (c *inference) typ(i int, d model.DType) {
	if v := c.n.Out(i); v != nil {
		v.DType, v.Type = d, model.TypeTensor
	}
}

// out sets the element type and shape of output i, if the node has it.
func (c *inference) out(i int, d model.DType, s model.Shape) {
	if v := c.n.Out(i); v != nil {
		if len(s) > maxRank {
			failf("output %d (%q) would have %d dimensions (%d are allowed)", i, v.Name, len(s), maxRank)
		}
		v.DType, v.Type = d, model.TypeTensor
		v.Shape = append(model.Shape{}, s...)
	}
}

// axis normalises an axis attribute against a rank.
func (c *inference) axis(def, rank int) int {
	return normAxis(c.n.Attrs.Int("axis", def), rank)
}

// unknown returns a shape of the given rank with every dimension unknown.
func unknown(rank int) model.Shape {
	s := make(model.Shape, rank)
	for i := range s {
		s[i] = -1
	}
	return s
}

// normAxis maps an axis in [-rank, rank) to [0, rank).
func normAxis(axis, rank int) int {
	if axis < -rank || axis >= rank {
		failf("axis %d is outside [%d, %d)", axis, -rank, rank)
	}
	if axis < 0 {
		axis += rank
	}
	return axis
}

// normAxes maps several axes and refuses a repeated one.
func normAxes(axes []int, rank int) []int {
	out := make([]int, len(axes))
	var seen [64]bool
	for i, a := range axes {
		a = normAxis(a, rank)
		if a < len(seen) {
			if seen[a] {
				failf("axis %d is given twice", a)
			}
			seen[a] = true
		}
		out[i] = a
	}
	return out
}

func asInts(t *model.Tensor) []int {
	v := t.Int64s()
	out := make([]int, len(v))
	for i, x := range v {
		out[i] = int(x)
	}
	return out
}

// mergeDim unifies two dimensions that must agree.
func mergeDim(a, b int, what string) int {
	switch {
	case a < 0:
		return b
	case b < 0 || a == b:
		return a
	}
	failf("%s: %d and %d do not agree", what, a, b)
	return 0
}

// prod multiplies dimensions; -1 if one is unknown.
func prod(s []int) int {
	n := model.Shape(s).Elems()
	return int(n)
}

// broadcastShapes unifies shapes by the rule of NumPy; unknown dimensions stay
// unknown unless the other operand fixes them.
func broadcastShapes(shapes ...model.Shape) model.Shape {
	rank := 0
	for _, s := range shapes {
		rank = max(rank, len(s))
	}
	out := make(model.Shape, rank)
	for i := range out {
		out[i] = 1
	}
	for _, s := range shapes {
		off := rank - len(s)
		for i, d := range s {
			o := out[off+i]
			switch {
			case d == o || d == 1:
			case o == 1:
				out[off+i] = d
			case o == -1:
				out[off+i] = d
			case d == -1:
			default:
				failf("shapes %v do not broadcast: %d and %d on axis %d", shapes, o, d, off+i)
			}
		}
	}
	return out
}
