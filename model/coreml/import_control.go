package coreml

import (
	"github.com/triune-sim/triune/model"
)

// Classifiers, states and control flow.

func init() {
	handle((*call).classify, "classify")
	handle(func(c *call) {
		c.result("Identity", nil, c.im.stateValue(c, "input"))
	}, "read_state")
	handle(func(c *call) {
		name := c.stateName("input")
		v := c.in("data")
		old := c.im.state[name]
		if !v.Shape.Equal(old.Shape) || v.DType != old.DType {
			failf("state %s of %s%v is written with %s%v", quote(name), old.DType, old.Shape, v.DType, v.Shape)
		}
		c.im.state[name] = v
	}, "write_state")
	handle((*call).cond, "cond")
	handle((*call).whileLoop, "while_loop")
}

// classify names the probabilities of a classifier. The label, which is the
// class of the greatest one, is no tensor: the classes go into Meta.
func (c *call) classify() {
	p := c.in("probabilities")
	a := c.op.arg("classes")
	if len(a) != 1 {
		failf("input \"classes\" is missing")
	}
	e := c.entryOf(a[0])
	n := len(e.list)
	if e.list != nil {
		c.im.metaClasses(e.list)
	} else if e.v != nil && e.v.Const != nil && len(e.v.Shape) == 1 && e.v.Shape[0] <= maxStatic {
		t, err := e.v.Const.Value()
		try(err)
		n = t.Len()
		list := make([]*value, n)
		for i := range list {
			if t.DType == model.String {
				list[i] = &value{typ: tensorType(model.String, model.Shape{}), kase: 4, strs: t.Strings[i : i+1]}
			} else {
				list[i] = &value{typ: tensorType(model.Int64, model.Shape{}), kase: 5, ints: []int64{t.IntAt(i)}}
			}
		}
		c.im.metaClasses(list)
	} else {
		failf("classes that are no constant list")
	}
	if p.Shape.Known() && p.Shape.Elems() != int64(n) {
		failf("%d classes for probabilities of shape %v", n, p.Shape)
	}
	if len(c.op.outputs) != 2 {
		failf("%d outputs, want two", len(c.op.outputs))
	}
	label, probs := c.op.outputs[0].name, c.op.outputs[1].name
	if c.im.g.Meta[MetaLabel] == "" {
		c.im.g.Meta[MetaLabel] = label
	}
	c.im.g.Meta[MetaProbabilities] = probs
	c.im.define(label, &entry{dict: true})
	c.im.define(probs, &entry{v: p})
}

func (c *call) stateName(key string) string {
	a := c.op.arg(key)
	if len(a) != 1 || a[0].val != nil {
		failf("input %s is not a state", quote(key))
	}
	e := c.im.lookup(a[0].name)
	if e.state == "" {
		failf("%s is not a state", quote(a[0].name))
	}
	if c.im.depth > 0 {
		failf("a state inside a branch or a loop")
	}
	return e.state
}

func (im *importer) stateValue(c *call, key string) *model.Value { return im.state[c.stateName(key)] }

// nested translates blocks into a graph of their own.
func (c *call) nested(f func(g *model.Graph)) *model.Graph {
	g := &model.Graph{Name: c.base(), Format: "coreml"}
	saved := c.im.nodes
	c.im.nodes = &g.Nodes
	c.im.depth++
	c.im.scopes = append(c.im.scopes, map[string]*entry{})
	f(g)
	c.im.scopes = c.im.scopes[:len(c.im.scopes)-1]
	c.im.depth--
	c.im.nodes = saved
	return g
}

// results of a block as values its own nodes produce.
func (c *call) blockOutputs(g *model.Graph, b *block) {
	for _, name := range b.outputs {
		e := c.im.lookup(name)
		if e.v == nil || e.whole != nil {
			failf("block output %s is not a tensor", quote(name))
		}
		out := &model.Value{Name: c.im.fresh(name + "_result")}
		c.im.add(&model.Node{Name: out.Name, Op: "Identity", Inputs: []*model.Value{e.v}, Outputs: []*model.Value{out}})
		g.Outputs = append(g.Outputs, out)
	}
}

func (c *call) withBlocks(op model.Op, blocks map[string]*model.Graph, ins ...*model.Value) {
	outs := make([]*model.Value, len(c.op.outputs))
	for i, n := range c.op.outputs {
		outs[i] = &model.Value{Name: c.im.fresh(n.name)}
	}
	c.im.add(&model.Node{Name: c.op.name(), Op: op, Inputs: ins, Outputs: outs, Blocks: blocks})
	for i, v := range outs {
		c.set(i, v)
	}
}

func (c *call) cond() {
	if len(c.op.blocks) != 2 {
		failf("%d blocks, want two", len(c.op.blocks))
	}
	branch := func(b *block) *model.Graph {
		if len(b.outputs) != len(c.op.outputs) {
			failf("a branch with %d outputs for %d", len(b.outputs), len(c.op.outputs))
		}
		return c.nested(func(g *model.Graph) {
			c.im.block(b)
			c.blockOutputs(g, b)
		})
	}
	c.withBlocks("If", map[string]*model.Graph{"then_branch": branch(c.op.blocks[0]), "else_branch": branch(c.op.blocks[1])}, c.in("pred"))
}

// whileLoop has a block for the condition and one for the body, over the same
// loop variables. ONNX's Loop carries the condition: it is computed once in
// front, and at the end of the body.
func (c *call) whileLoop() {
	if len(c.op.blocks) != 2 {
		failf("%d blocks, want two", len(c.op.blocks))
	}
	test, body := c.op.blocks[0], c.op.blocks[1]
	vars := c.list("loop_vars")
	if len(test.inputs) != len(vars) || len(body.inputs) != len(vars) || len(test.outputs) != 1 || len(body.outputs) != len(vars) || len(c.op.outputs) != len(vars) {
		failf("%d loop variables do not fit the blocks", len(vars))
	}
	// inline evaluates the condition block on values, in the current graph.
	inline := func(vs []*model.Value) *model.Value {
		c.im.scopes = append(c.im.scopes, map[string]*entry{})
		for i, n := range test.inputs {
			c.im.define(n.name, &entry{v: vs[i]})
		}
		c.im.block(test)
		e := c.im.lookup(test.outputs[0])
		c.im.scopes = c.im.scopes[:len(c.im.scopes)-1]
		if e.v == nil {
			failf("a condition that is not a tensor")
		}
		return e.v
	}
	first := inline(vars)
	g := c.nested(func(g *model.Graph) {
		iter := &model.Value{Name: c.im.fresh(c.base() + "_iter"), DType: model.Int64, Shape: model.Shape{}}
		cond := &model.Value{Name: c.im.fresh(c.base() + "_cond"), DType: model.Bool, Shape: model.Shape{}}
		g.Inputs = append(g.Inputs, iter, cond)
		for i, n := range body.inputs {
			// A variable may change its shape from one iteration to the next:
			// the block's declaration says what holds.
			s := vars[i].Shape.Clone()
			if n.typ.kind == kindTensor && !n.typ.vary && len(n.typ.shape) == len(s) {
				s = n.typ.shape.Clone()
			}
			v := &model.Value{Name: c.im.fresh(n.name), DType: vars[i].DType, Shape: s}
			g.Inputs = append(g.Inputs, v)
			c.im.define(n.name, &entry{v: v})
		}
		c.im.block(body)
		c.blockOutputs(g, body)
		again := inline(g.Outputs)
		out := &model.Value{Name: c.im.fresh(c.base() + "_again")}
		c.im.add(&model.Node{Name: out.Name, Op: "Identity", Inputs: []*model.Value{again}, Outputs: []*model.Value{out}})
		g.Outputs = append([]*model.Value{out}, g.Outputs...)
	})
	c.withBlocks("Loop", map[string]*model.Graph{"body": g}, append([]*model.Value{nil, first}, vars...)...)
}
