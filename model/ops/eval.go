package ops

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
)

// Options of an evaluation. The zero value evaluates in the types of the
// graph.
type Options struct {
	// Float64 promotes every floating-point value to float64: inputs,
	// constants and the targets of casts. Such a run is the oracle of tests.
	Float64 bool
	// Hook is called after each node of the outermost graph with its outputs
	// (nil entries for sequences and for outputs nobody reads); an error ends
	// the evaluation.
	Hook func(n *model.Node, out []*model.Tensor) error
	// MaxBytes bounds the size of a single tensor; 0 means 2 GiB.
	MaxBytes int64
	// Outer gives the values that blocks of a node read from outside, for
	// EvalNode on If, Loop and Scan.
	Outer func(v *model.Value) (Datum, bool)
}

func (o Options) maxBytes() int64 {
	if o.MaxBytes > 0 {
		return o.MaxBytes
	}
	return 2 << 30
}

// Datum is a value at run time: a tensor, a sequence of tensors, or an
// optional of either.
type Datum struct {
	Type   model.ValueType
	Tensor *model.Tensor   // TypeTensor
	Seq    []*model.Tensor // TypeSequence
	Elem   *Datum          // TypeOptional; nil when it is empty
}

// TensorDatum wraps a tensor.
func TensorDatum(t *model.Tensor) Datum { return Datum{Tensor: t} }

func (d Datum) absent() bool { return d.Type == model.TypeTensor && d.Tensor == nil }

// EvalNode evaluates one node on the given inputs (nil where an optional input
// is absent) and returns its outputs. Arithmetic is in float64 inside, rounded
// once to the output's type; integer arithmetic is exact and wraps as the type
// does. ctx may be nil. Inputs are not modified; outputs may share their data.
func EvalNode(ctx context.Context, n *model.Node, in []*model.Tensor, o Options) ([]*model.Tensor, error) {
	ds := make([]Datum, len(in))
	for i, t := range in {
		ds[i].Tensor = t
	}
	res, err := EvalNodeData(ctx, n, ds, o)
	if err != nil {
		return nil, err
	}
	out := make([]*model.Tensor, len(res))
	for i, d := range res {
		if d.Type != model.TypeTensor {
			return nil, nodeError(n, fmt.Errorf("output %d is not a tensor", i))
		}
		out[i] = d.Tensor
	}
	return out, nil
}

// EvalNodeData is [EvalNode] for sequences and optionals too.
func EvalNodeData(ctx context.Context, n *model.Node, in []Datum, o Options) ([]Datum, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	s, err := find(n)
	if err != nil {
		return nil, err
	}
	c := &call{n: n, in: in, out: make([]Datum, max(len(n.Outputs), s.minOut)), o: o, ctx: ctx}
	if err := guard(n, func() {
		for i, d := range in {
			if d.Type == model.TypeTensor && d.Tensor != nil {
				checkTensor(i, d.Tensor)
			}
		}
		s.eval(c)
	}); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return c.out, nil
}

// checkTensor refuses tensors whose data does not fit their shape.
func checkTensor(i int, t *model.Tensor) {
	e := t.Shape.Elems()
	if e < 0 {
		failf("input %d has the unknown shape %v", i, t.Shape)
	}
	if t.DType == model.String {
		if int64(len(t.Strings)) != e {
			failf("input %d has %d strings for shape %v", i, len(t.Strings), t.Shape)
		}
		return
	}
	if int64(len(t.Data)) != t.DType.Bytes(e) {
		failf("input %d has %d bytes for %s%v", i, len(t.Data), t.DType, t.Shape)
	}
}

// EvalGraph runs a graph on named inputs and returns its outputs by name. It
// is the slow, plain reference executor: nodes in order, every operator in
// float64 rounded to its type (see [Options]). Tensors are dropped after their
// last use. Cancelling ctx ends it within a node.
func EvalGraph(ctx context.Context, g *model.Graph, inputs map[string]*model.Tensor, o Options) (map[string]*model.Tensor, error) {
	in := make(map[string]Datum, len(inputs))
	for k, t := range inputs {
		in[k] = Datum{Tensor: t}
	}
	res, err := EvalGraphData(ctx, g, in, o)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*model.Tensor, len(res))
	for k, d := range res {
		if d.Type != model.TypeTensor {
			return nil, fmt.Errorf("ops: output %q of graph %q is not a tensor", k, g.Name)
		}
		out[k] = d.Tensor
	}
	return out, nil
}

// EvalGraphData is [EvalGraph] for sequences and optionals too.
func EvalGraphData(ctx context.Context, g *model.Graph, inputs map[string]Datum, o Options) (map[string]Datum, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	args := make([]Datum, len(g.Inputs))
	used := 0
	for i, v := range g.Inputs {
		d, ok := inputs[v.Name]
		if !ok || d.absent() {
			return nil, fmt.Errorf("ops: input %q (%s%v) of graph %q is not given; given: %v", v.Name, v.DType, v.Shape, g.Name, slices.Sorted(maps.Keys(inputs)))
		}
		used++
		if err := checkInput(v, d); err != nil {
			return nil, err
		}
		args[i] = d
	}
	if used != len(inputs) {
		for _, k := range slices.Sorted(maps.Keys(inputs)) {
			if !slices.ContainsFunc(g.Inputs, func(v *model.Value) bool { return v.Name == k }) {
				return nil, fmt.Errorf("ops: graph %q has no input %q; it has %v", g.Name, k, valueNames(g.Inputs))
			}
		}
	}
	res, err := runGraph(ctx, g, args, o, o.Outer, o.Hook)
	if err != nil {
		return nil, err
	}
	out := make(map[string]Datum, len(res))
	for i, v := range g.Outputs {
		out[v.Name] = res[i]
	}
	return out, nil
}

func valueNames(vs []*model.Value) []string {
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = v.Name
	}
	return out
}

func checkInput(v *model.Value, d Datum) error {
	if d.Type != v.Type {
		return fmt.Errorf("ops: input %q is of another kind (tensor, sequence, optional) than declared", v.Name)
	}
	t := d.Tensor
	if t == nil {
		return nil
	}
	if t.DType != v.DType && v.DType != model.Invalid && !(t.DType.IsFloat() && v.DType.IsFloat()) {
		return fmt.Errorf("ops: input %q is %s%v, wants %s%v", v.Name, t.DType, t.Shape, v.DType, v.Shape)
	}
	if IsUnranked(v.Shape) {
		return nil
	}
	ok := len(t.Shape) == len(v.Shape)
	for i := 0; ok && i < len(v.Shape); i++ {
		ok = v.Shape[i] < 0 || v.Shape[i] == t.Shape[i]
	}
	if !ok {
		return fmt.Errorf("ops: input %q is %s%v, wants %s%v", v.Name, t.DType, t.Shape, v.DType, v.Shape)
	}
	return nil
}

// runGraph evaluates the nodes of g (the outermost graph or a block).
func runGraph(ctx context.Context, g *model.Graph, args []Datum, o Options, outer func(*model.Value) (Datum, bool), hook func(*model.Node, []*model.Tensor) error) ([]Datum, error) {
	if len(args) != len(g.Inputs) {
		return nil, fmt.Errorf("ops: graph %q has %d inputs, %d given", g.Name, len(g.Inputs), len(args))
	}
	env := make(map[*model.Value]Datum, len(g.Nodes))
	left := map[*model.Value]int{}
	for v, readers := range g.Consumers() {
		left[v] = len(readers)
	}
	for _, v := range g.Outputs {
		left[v]++
	}
	for i, v := range g.Inputs {
		env[v] = promote(args[i], v.DType, o)
	}
	lookup := func(v *model.Value) (Datum, bool) {
		if d, ok := env[v]; ok {
			return d, true
		}
		if v.Const != nil {
			t, err := v.Const.Value()
			if err != nil {
				return Datum{}, false
			}
			return promote(Datum{Tensor: t}, t.DType, o), true
		}
		if outer != nil {
			return outer(v)
		}
		return Datum{}, false
	}
	fetch := func(v *model.Value) (Datum, error) {
		d, ok := lookup(v)
		if !ok {
			if v.Const != nil {
				_, err := v.Const.Value()
				return d, fmt.Errorf("constant %q: %w", v.Name, err)
			}
			return d, fmt.Errorf("value %q is not computed yet", v.Name)
		}
		return d, nil
	}
	inner := o
	inner.Outer, inner.Hook = lookup, nil
	for _, n := range g.Nodes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		in := make([]Datum, len(n.Inputs))
		for i, v := range n.Inputs {
			if v == nil {
				continue
			}
			d, err := fetch(v)
			if err != nil {
				return nil, nodeError(n, err)
			}
			in[i] = d
		}
		out, err := EvalNodeData(ctx, n, in, inner)
		if err != nil {
			return nil, err
		}
		for i, v := range n.Outputs {
			if v == nil || i >= len(out) {
				continue
			}
			if left[v] > 0 {
				env[v] = out[i]
			}
		}
		if hook != nil {
			ts := make([]*model.Tensor, len(out))
			for i := range out {
				ts[i] = out[i].Tensor
			}
			if err := hook(n, ts); err != nil {
				return nil, err
			}
		}
		release(n, left, env)
	}
	res := make([]Datum, len(g.Outputs))
	for i, v := range g.Outputs {
		d, err := fetch(v)
		if err != nil {
			return nil, fmt.Errorf("ops: output of graph %q: %w", g.Name, err)
		}
		res[i] = d
	}
	return res, nil
}

// release counts down the readers of what n (and its blocks) read and drops
// values nobody reads any more.
func release(n *model.Node, left map[*model.Value]int, env map[*model.Value]Datum) {
	drop := func(v *model.Value) {
		if v == nil {
			return
		}
		if left[v]--; left[v] == 0 {
			delete(env, v)
		}
	}
	var walk func(n *model.Node)
	walk = func(n *model.Node) {
		for _, v := range n.Inputs {
			drop(v)
		}
		for _, b := range n.Blocks {
			for _, x := range b.Nodes {
				walk(x)
			}
			for _, v := range b.Outputs {
				drop(v)
			}
		}
	}
	walk(n)
}

// promote brings a tensor to the type it is declared with, or to float64.
func promote(d Datum, want model.DType, o Options) Datum {
	switch {
	case d.Tensor != nil:
		if d.Tensor.DType.IsFloat() {
			if o.Float64 {
				want = model.Float64
			}
			if want.IsFloat() && want != d.Tensor.DType {
				d.Tensor = convert(d.Tensor, want)
			}
		}
	case d.Seq != nil && o.Float64:
		seq := make([]*model.Tensor, len(d.Seq))
		for i, t := range d.Seq {
			seq[i] = promote(Datum{Tensor: t}, t.DType, o).Tensor
		}
		d.Seq = seq
	case d.Elem != nil:
		e := promote(*d.Elem, want, o)
		d.Elem = &e
	}
	return d
}

// call is the state of one node's evaluation.
type call struct {
	n   *model.Node
	in  []Datum
	out []Datum
	o   Options
	ctx context.Context
}

// x returns tensor input i, which must be there.
func (c *call) x(i int) *model.Tensor {
	t := c.opt(i)
	if t == nil {
		failf("input %d is missing", i)
	}
	return t
}

// opt returns tensor input i, or nil if it is absent.
func (c *call) opt(i int) *model.Tensor {
	if i >= len(c.in) {
		return nil
	}
	if c.in[i].Type != model.TypeTensor {
		failf("input %d is not a tensor", i)
	}
	return c.in[i].Tensor
}

// ints returns integer input i, or def if it is absent.
func (c *call) ints(i int, def []int) []int {
	t := c.opt(i)
	if t == nil {
		return def
	}
	if !t.DType.IsInt() {
		failf("input %d is %s, wants integers", i, t.DType)
	}
	return asInts(t)
}

// int1 returns a one-element integer input, or def if it is absent.
func (c *call) int1(i, def int) int {
	v := c.ints(i, []int{def})
	if len(v) != 1 {
		failf("input %d has %d elements, wants one", i, len(v))
	}
	return v[0]
}

// float1 returns a one-element input as a float64, or def if it is absent.
func (c *call) float1(i int, def float64) float64 {
	t := c.opt(i)
	if t == nil {
		return def
	}
	if t.Len() != 1 {
		failf("input %d has %d elements, wants one", i, t.Len())
	}
	return floats(t)[0]
}

// wants reports whether the node has output i.
func (c *call) wants(i int) bool { return c.n.Out(i) != nil }

// put sets output i.
func (c *call) put(i int, t *model.Tensor) {
	if i < len(c.out) {
		c.out[i].Tensor = t
	}
}

// putF rounds floats to type d and sets output i.
func (c *call) putF(i int, d model.DType, shape model.Shape, v []float64) {
	c.put(i, fromFloats(d, shape, v))
}

// putI stores integers as type d in output i.
func (c *call) putI(i int, d model.DType, shape model.Shape, v []int64) {
	c.put(i, fromInts(d, shape, v))
}

// float maps a float type to the one this evaluation uses for it.
func (c *call) float(d model.DType) model.DType {
	if c.o.Float64 && d.IsFloat() {
		return model.Float64
	}
	return d
}

// size checks that a tensor of this type and shape may be allocated and
// returns its number of elements.
func (c *call) size(d model.DType, shape model.Shape) int {
	n := shape.Elems()
	bits := int64(max(d.Bits(), 64))
	if n < 0 || n > math.MaxInt64/bits || n*bits/8 > c.o.maxBytes() {
		failf("a result of shape %v would exceed %d bytes", shape, c.o.maxBytes())
	}
	return int(n)
}

// alloc returns a float64 array for a result of the given shape.
func (c *call) alloc(shape model.Shape) []float64 {
	return make([]float64, c.size(model.Float64, shape))
}
