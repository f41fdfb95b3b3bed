package passes

import (
	"fmt"

	"github.com/triune-sim/triune/model"
)

// Pass is one simplification.
type Pass struct {
	Name string
	// visit looks at one live node and reports whether it changed the graph.
	visit func(r *rewriter, n *model.Node) (bool, error)
}

// Standard returns the passes of [Default], in order.
func Standard() []Pass {
	return []Pass{
		{"inline-if", inlineIf},
		{"fold-constants", foldConstants},
		{"remove-noops", removeNoop},
		{"merge-duplicates", mergeDuplicates},
		{"merge-moves", mergeMoves},
		{"normalise-activations", activations},
		{"normalise-norms", norms},
		{"normalise-softmax", softmax},
		{"fold-padding", foldPadding},
		{"fold-batchnorm", foldBatchNorm},
	}
}

// maxRounds bounds the pipeline. Every rewrite removes a node or moves one
// towards its normal form, so a few rounds are the rule.
const maxRounds = 64

// Default runs the standard passes on g, in place, until nothing changes.
func Default(g *model.Graph) error { return Run(g, Standard()...) }

// Run applies passes in order, in place, again and again until none changes
// the graph. Nodes whose results nothing reads are removed.
func Run(g *model.Graph, list ...Pass) error {
	r := newRewriter(g)
	r.sweep()
	for round := 0; ; round++ {
		if round == maxRounds {
			return fmt.Errorf("passes: graph %q still changes after %d rounds", g.Name, maxRounds)
		}
		changed := false
		for _, p := range list {
			for _, n := range g.Nodes {
				if r.dead[n] || len(n.Outputs) == 0 || n.Outputs[0] == nil {
					continue
				}
				c, err := p.visit(r, n)
				if err != nil {
					return fmt.Errorf("passes: %s: node %q (%s): %w", p.Name, n.Name, n.Op, err)
				}
				changed = changed || c
			}
			r.compact()
		}
		if !changed {
			return nil
		}
	}
}

// rewriter knows the readers of every value while the graph changes.
type rewriter struct {
	g       *model.Graph
	readers map[*model.Value][]*model.Node // one entry per read; a block's reads count for its owner
	outputs map[*model.Value]bool
	inputs  map[*model.Value]bool
	dead    map[*model.Node]bool

	// Norms whose scale or bias this run has made up: the constant factor or
	// summand that follows may replace it.
	unitScale, zeroBias map[*model.Node]bool
	// spliced holds nodes that take the place of a dead one.
	spliced map[*model.Node][]*model.Node
}

func newRewriter(g *model.Graph) *rewriter {
	r := &rewriter{
		g: g, readers: g.Consumers(), outputs: map[*model.Value]bool{}, inputs: map[*model.Value]bool{}, dead: map[*model.Node]bool{},
		unitScale: map[*model.Node]bool{}, zeroBias: map[*model.Node]bool{}, spliced: map[*model.Node][]*model.Node{},
	}
	for _, v := range g.Outputs {
		r.outputs[v] = true
	}
	for _, v := range g.Inputs {
		r.inputs[v] = true
	}
	return r
}

// sole reports whether exactly one read of v exists and it is no output.
func (r *rewriter) sole(v *model.Value) bool { return len(r.readers[v]) == 1 && !r.outputs[v] }

// reader returns the only reader of v, or nil.
func (r *rewriter) reader(v *model.Value) *model.Node {
	if r.sole(v) {
		return r.readers[v][0]
	}
	return nil
}

// sweep removes nodes that nothing reads.
func (r *rewriter) sweep() {
	for i := len(r.g.Nodes) - 1; i >= 0; i-- {
		if n := r.g.Nodes[i]; !r.dead[n] && r.unused(n) {
			r.kill(n)
		}
	}
	r.compact()
}

func (r *rewriter) unused(n *model.Node) bool {
	for _, o := range n.Outputs {
		if o != nil && (r.outputs[o] || len(r.readers[o]) > 0) {
			return false
		}
	}
	return true
}

// kill removes a node and, in turn, what only it read.
func (r *rewriter) kill(n *model.Node) {
	r.dead[n] = true
	for v, k := range readsOf(n) {
		for range k {
			r.unread(v, n)
		}
	}
}

// readsOf counts how often a node, its blocks included, reads each value. The
// order of a map does not matter to its callers.
func readsOf(n *model.Node) map[*model.Value]int {
	m := map[*model.Value]int{}
	var walk func(n *model.Node)
	walk = func(n *model.Node) {
		for _, v := range n.Inputs {
			if v != nil {
				m[v]++
			}
		}
		for _, b := range n.Blocks {
			for _, x := range b.Nodes {
				walk(x)
			}
			for _, v := range b.Outputs {
				m[v]++
			}
		}
	}
	walk(n)
	return m
}

// unread takes one read of v by n away.
func (r *rewriter) unread(v *model.Value, n *model.Node) {
	l := r.readers[v]
	for i, x := range l {
		if x == n {
			r.readers[v] = append(l[:i:i], l[i+1:]...)
			break
		}
	}
	if p := v.Producer; p != nil && !r.dead[p] && r.unused(p) {
		r.kill(p)
	}
}

func (r *rewriter) compact() {
	if len(r.dead) == 0 && len(r.spliced) == 0 {
		return
	}
	out := make([]*model.Node, 0, len(r.g.Nodes))
	for _, n := range r.g.Nodes {
		out = append(out, r.spliced[n]...)
		if !r.dead[n] {
			out = append(out, n)
		}
	}
	r.g.Nodes = out
	clear(r.dead)
	if len(r.spliced) > 0 {
		clear(r.spliced)
		r.readers = r.g.Consumers()
		r.sweep()
	}
}

// setInputs gives n new inputs.
func (r *rewriter) setInputs(n *model.Node, in ...*model.Value) {
	old := n.Inputs
	n.Inputs = in
	for _, v := range in {
		if v != nil {
			r.readers[v] = append(r.readers[v], n)
		}
	}
	for _, v := range old {
		if v != nil {
			r.unread(v, n)
		}
	}
}

// become turns n into another operator with the same outputs.
func (r *rewriter) become(n *model.Node, op model.Op, attrs model.Attrs, in ...*model.Value) {
	n.Op, n.Attrs = op, attrs
	r.setInputs(n, in...)
}

// forward makes every reader of node n's only used output read v instead and
// removes n. It reports false, and changes nothing, where that cannot keep a
// graph output.
func (r *rewriter) forward(n *model.Node, v *model.Value) bool {
	old := n.Outputs[0]
	if r.outputs[old] {
		// The producer of v takes over the output, if v is nobody's name yet.
		if v.Producer == nil || r.outputs[v] || r.inputs[v] || v.Const != nil {
			return false
		}
		v.Name = old.Name
		r.outputs[v] = true
		delete(r.outputs, old)
		for i, o := range r.g.Outputs {
			if o == old {
				r.g.Outputs[i] = v
			}
		}
	}
	if !v.Shape.Known() && old.Shape.Known() {
		v.Shape = old.Shape
	}
	r.redirect(old, v)
	r.kill(n)
	return true
}

// redirect makes every reader of old read v.
func (r *rewriter) redirect(old, v *model.Value) {
	done := map[*model.Node]bool{}
	for _, x := range r.readers[old] {
		if !done[x] {
			done[x] = true
			replaceReads(x, old, v)
		}
		r.readers[v] = append(r.readers[v], x)
	}
	delete(r.readers, old)
}

func replaceReads(n *model.Node, old, v *model.Value) {
	for i, x := range n.Inputs {
		if x == old {
			n.Inputs[i] = v
		}
	}
	for _, b := range n.Blocks {
		for _, x := range b.Nodes {
			replaceReads(x, old, v)
		}
		for i, x := range b.Outputs {
			if x == old {
				b.Outputs[i] = v
			}
		}
	}
}

// takeOver makes node p, whose output only n reads, write n's output instead,
// and removes n. Both values have the same shape.
func (r *rewriter) takeOver(p, n *model.Node) {
	out := n.Outputs[0]
	between := p.Outputs[0]
	p.Outputs[0] = out
	out.Producer = p
	n.Outputs = nil
	between.Producer = nil
	r.kill(n)
}

// producer returns the node that writes v if its operator is op and nothing
// but the pattern reads v.
func (r *rewriter) producer(v *model.Value, op model.Op) *model.Node {
	if v == nil || v.Producer == nil || v.Producer.Op != op || r.dead[v.Producer] || v.Producer.Outputs[0] != v {
		return nil
	}
	return v.Producer
}

// inner is producer for values that only one node reads.
func (r *rewriter) inner(v *model.Value, op model.Op) *model.Node {
	if v == nil || !r.sole(v) {
		return nil
	}
	return r.producer(v, op)
}

// scalar returns the value of a constant of one element.
func scalar(v *model.Value) (float64, bool) {
	if v == nil || v.Const == nil || v.Const.Elems() != 1 || !(v.Const.DType.IsFloat() || v.Const.DType.IsInt()) {
		return 0, false
	}
	t, err := v.Const.Value()
	if err != nil {
		return 0, false
	}
	return t.At(0), true
}

// ints returns the values of a constant of integers.
func ints(v *model.Value) ([]int64, bool) {
	if v == nil || v.Const == nil || !v.Const.DType.IsInt() || v.Const.Elems() > 1<<16 {
		return nil, false
	}
	t, err := v.Const.Value()
	if err != nil {
		return nil, false
	}
	return t.Int64s(), true
}

// near reports equality up to the rounding of a value stored as fp16.
func near(a, b float64) bool {
	d := a - b
	if d < 0 {
		d = -d
	}
	if b < 0 {
		b = -b
	}
	return d <= 1e-3*b+1e-12
}

// newConst returns a constant value named after what it stems from.
func newConst(name string, c *model.Const) *model.Value {
	return &model.Value{Name: name, DType: c.DType, Shape: c.Shape.Clone(), Const: c}
}

// scalarConst returns a 0-dimensional constant of type d.
func scalarConst(name string, d model.DType, v float64) *model.Value {
	t := model.NewTensor(d)
	t.Set(0, v)
	return newConst(name, model.NewConst(t))
}
