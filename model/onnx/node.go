package onnx

import (
	"fmt"
	"strconv"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// node is an operator of the file with its inputs resolved, on its way to
// become one or more nodes of the graph.
type node struct {
	*nodeProto
	opset  int // of the node's domain
	in     []*model.Value
	attrs  model.Attrs
	blocks map[string]*model.Graph
	value  *model.Const // of a Constant: its attribute value or sparse_value
}

// input returns input i, or nil.
func (n *node) input(i int) *model.Value {
	if i < len(n.in) {
		return n.in[i]
	}
	return nil
}

// node translates one node and infers the types of what it adds.
func (b *builder) node(p *nodeProto) error {
	wrap := func(err error) error {
		return fmt.Errorf("node %q (%s): %w", p.label(), p.fullOp(), err)
	}
	if len(p.outputs) == 0 {
		return wrap(fmt.Errorf("it has no output (want one or more)"))
	}
	n := &node{nodeProto: p, opset: b.opsets[p.domain], in: make([]*model.Value, 0, len(p.inputs))}
	for _, name := range p.inputs {
		var v *model.Value
		if name != "" {
			if v = b.scope.find(name); v == nil {
				return wrap(fmt.Errorf("reads %q, which nothing produces", name))
			}
		}
		n.in = append(n.in, v)
	}
	for len(n.in) > 0 && n.in[len(n.in)-1] == nil {
		n.in = n.in[:len(n.in)-1]
	}
	for _, o := range p.outputs {
		if o != "" && b.scope.values[o] != nil {
			return wrap(fmt.Errorf("writes %q, which has a producer already", o))
		}
	}
	if fn := b.r.functions[p.domain+"::"+p.op]; fn != nil {
		return b.call(fn, n)
	}
	if err := b.parseAttrs(n); err != nil {
		return wrap(err)
	}
	if p.domain == "" && n.opset < MinOpset {
		if !unchanged[p.op] {
			return wrap(fmt.Errorf("its form of opset %d is not supported (%d to %d are); convert the model with onnx.version_converter", n.opset, MinOpset, MaxOpset))
		}
		delete(n.attrs, "consumed_inputs")
	}
	rule, ok := rules[p.fullOp()]
	if !ok {
		if p.domain != "" || !ops.Supported(model.Op(p.op)) {
			return wrap(fmt.Errorf("the operator is not supported (docs/operators.md lists what is)"))
		}
		rule = direct
	}
	if err := rule(b, n); err != nil {
		if _, named := err.(nodeErr); named {
			return err
		}
		return wrap(err)
	}
	for i, o := range p.outputs {
		if o != "" && b.scope.values[o] == nil {
			return wrap(fmt.Errorf("output %d (%q) is not supported", i, o))
		}
	}
	return nil
}

// nodeErr is an error that names its node already.
type nodeErr struct{ error }

// parseAttrs turns the file's attributes into the graph's.
func (b *builder) parseAttrs(n *node) error {
	n.attrs = model.Attrs{}
	if k := len(n.nodeProto.attrs); k > 0 {
		if err := b.r.mem.Keep(k * entryBytes); err != nil {
			return err
		}
	}
	for _, a := range n.nodeProto.attrs {
		if err := b.r.mem.Keep(8*(len(a.ints)+len(a.floats)) + len(a.s) + 16*len(a.strings)); err != nil {
			return err
		}
		if a.ref != "" {
			v, ok := b.attrs[a.ref]
			if !ok {
				continue // the caller left it out: the operator's default holds
			}
			v.name = a.name
			a = v
		}
		switch a.typ {
		case attrFloat:
			n.attrs[a.name] = a.f
		case attrInt:
			n.attrs[a.name] = int(a.i)
		case attrString:
			n.attrs[a.name] = string(a.s)
		case attrTensor:
			p, err := parseTensor(a.msg)
			if err != nil {
				return fmt.Errorf("attribute %s: %w", a.name, err)
			}
			k, err := p.constant(b.r)
			if err != nil {
				return fmt.Errorf("attribute %s: %w", a.name, err)
			}
			if n.op == "Constant" {
				n.value = k
				continue
			}
			if err := b.r.mem.Keep(storeBytes + int(k.DenseBytes())); err != nil {
				return fmt.Errorf("attribute %s: %w", a.name, err)
			}
			t, err := k.Value()
			if err != nil {
				return fmt.Errorf("attribute %s: %w", a.name, err)
			}
			n.attrs[a.name] = t
		case attrSparse:
			_, k, err := parseSparse(a.msg, b.r)
			if err != nil {
				return fmt.Errorf("attribute %s: %w", a.name, err)
			}
			if n.op != "Constant" {
				return fmt.Errorf("attribute %s: a sparse tensor is supported as a constant only", a.name)
			}
			n.value = k
		case attrFloats:
			n.attrs[a.name] = append([]float64{}, a.floats...)
		case attrInts:
			v := make([]int, len(a.ints))
			for i, x := range a.ints {
				v[i] = int(x)
			}
			n.attrs[a.name] = v
		case attrStrings:
			v := make([]string, len(a.strings))
			for i, x := range a.strings {
				v[i] = string(x)
			}
			n.attrs[a.name] = v
		case attrGraph:
			g, err := b.block(n, a)
			if err != nil {
				return fmt.Errorf("attribute %s: %w", a.name, err)
			}
			if n.blocks == nil {
				n.blocks = map[string]*model.Graph{}
			}
			n.blocks[a.name] = g
		case attrType:
			t, err := parseType(a.msg, 0)
			if err != nil {
				return fmt.Errorf("attribute %s: %w", a.name, err)
			}
			n.attrs[a.name] = t.dtype.String()
			n.attrs[a.name+"_kind"] = int(t.kind)
		default:
			return fmt.Errorf("attribute %s has the type %d, which is not supported", a.name, a.typ)
		}
	}
	return nil
}

// block translates a subgraph, which sees the names around it.
func (b *builder) block(n *node, a attr) (*model.Graph, error) {
	g := &model.Graph{Format: "onnx"}
	in := &builder{r: b.r, g: g, scope: &scope{parent: b.scope, values: map[string]*model.Value{}},
		opsets: b.opsets, depth: b.depth + 1, attrs: b.attrs, prefix: b.prefix}
	return g, in.graph(a.msg)
}

// call expands a model-local function.
func (b *builder) call(fn *function, n *node) error {
	if b.depth >= maxDepth {
		return fmt.Errorf("functions are nested deeper than %d (%q)", maxDepth, fn.name)
	}
	attrs := map[string]attr{}
	for _, a := range fn.defaults {
		attrs[a.name] = a
	}
	for _, a := range n.nodeProto.attrs {
		if a.ref != "" {
			v, ok := b.attrs[a.ref]
			if !ok {
				continue
			}
			v.name = a.name
			a = v
		}
		attrs[a.name] = a
	}
	if err := b.r.mem.Keep(entryBytes + len(b.prefix) + len(n.label())); err != nil { // its prefix
		return err
	}
	in := &builder{r: b.r, g: b.g, scope: &scope{values: map[string]*model.Value{}}, opsets: fn.opsets,
		depth: b.depth + 1, attrs: attrs, prefix: b.callPrefix(n.label())}
	absent := &scope{values: map[string]*model.Value{}}
	for i, name := range fn.inputs {
		if v := n.input(i); v != nil {
			in.scope.values[name] = v
		} else {
			absent.values[name] = &model.Value{}
		}
	}
	err := eachField(fn.body, "function", func(f field) error {
		if f.num != 7 {
			return nil
		}
		m, err := f.message("function")
		if err != nil {
			return err
		}
		defer b.r.mem.Passed(b.r.mem.Passing())
		p, err := b.r.parseNode(m)
		if err != nil {
			return err
		}
		for i, s := range p.inputs {
			if absent.values[s] != nil {
				p.inputs[i] = ""
			}
		}
		return in.node(p)
	})
	if err != nil {
		return err
	}
	for i, name := range fn.outputs {
		if i >= len(n.outputs) || n.outputs[i] == "" {
			continue
		}
		v := in.scope.values[name]
		if v == nil {
			return fmt.Errorf("function %q does not produce its output %q", fn.name, name)
		}
		// The value takes the name it has at the call.
		if v.Producer != nil && v.Const == nil && !b.taken(n.outputs[i]) {
			v.Name = b.prefix + n.outputs[i]
		}
		b.scope.values[n.outputs[i]] = v
	}
	return nil
}

// callPrefix makes the prefix of the names inside a call: different for each
// call, and bounded, however deep calls nest.
func (b *builder) callPrefix(label string) string {
	p := b.prefix + label + "/"
	if len(p) > 128 || b.r.prefixes[p] {
		b.r.serial++
		p = label[:min(len(label), 64)] + "#" + strconv.Itoa(b.r.serial) + "/"
	}
	b.r.prefixes[p] = true
	return p
}

func (b *builder) taken(name string) bool { return b.scope.values[name] != nil }

// fresh makes a name for a value that translation adds.
func (b *builder) fresh(base string) string {
	for b.scope.find(base) != nil {
		b.r.serial++
		base += "_" + strconv.Itoa(b.r.serial)
	}
	return base
}

// emit adds a node, infers its outputs and binds their names ("" for an output
// that is not wanted).
func (b *builder) emit(op model.Op, name string, in []*model.Value, attrs model.Attrs, outputs ...string) ([]*model.Value, error) {
	return b.emitBlocks(op, name, in, attrs, nil, outputs...)
}

func (b *builder) emitBlocks(op model.Op, name string, in []*model.Value, attrs model.Attrs, blocks map[string]*model.Graph, outputs ...string) ([]*model.Value, error) {
	if b.r.nodes++; b.r.nodes > maxNodes {
		return nil, fmt.Errorf("more than %d nodes", maxNodes)
	}
	for len(in) > 0 && in[len(in)-1] == nil {
		in = in[:len(in)-1]
	}
	if len(attrs) == 0 {
		attrs = nil
	}
	if err := b.r.mem.Keep(nodeBytes + len(b.prefix) + len(name) + 8*len(in) + constBytes*len(outputs)); err != nil {
		return nil, err
	}
	n := &model.Node{Name: b.prefix + name, Op: op, Inputs: in, Attrs: attrs, Blocks: blocks}
	for _, o := range outputs {
		if o == "" {
			n.Outputs = append(n.Outputs, nil)
			continue
		}
		v := &model.Value{Name: n.Name, Producer: n}
		if o != name {
			v.Name = b.prefix + o
		}
		n.Outputs = append(n.Outputs, v)
		b.scope.values[o] = v
	}
	if err := b.r.inf.Node(n); err != nil {
		return nil, nodeErr{err}
	}
	more := b.r.inf.Remembered() - b.r.known
	b.r.known += more
	if err := b.r.mem.Keep(more); err != nil {
		return nil, err
	}
	for _, v := range n.Outputs {
		if v != nil {
			if err := b.r.mem.Keep(len(v.Name) + 8*len(v.Shape)); err != nil {
				return nil, err
			}
		}
	}
	b.g.Nodes = append(b.g.Nodes, n)
	return n.Outputs, nil
}

// one emits a node with one output that translation adds, named after the node.
func (b *builder) one(op model.Op, n *node, suffix string, attrs model.Attrs, in ...*model.Value) (*model.Value, error) {
	name := b.fresh(n.label() + "/" + suffix)
	vs, err := b.emit(op, name, in, attrs, name)
	if err != nil {
		return nil, err
	}
	return vs[0], nil
}

// constValue adds a constant that translation makes.
func (b *builder) constValue(n *node, suffix string, t *model.Tensor) *model.Value {
	name := b.fresh(n.label() + "/" + suffix)
	v := &model.Value{Name: b.prefix + name, DType: t.DType, Shape: t.Shape, Const: model.NewConst(t)}
	b.scope.values[name] = v
	return v
}

func (b *builder) intsConst(n *node, suffix string, v []int) *model.Value {
	t := model.NewTensor(model.Int64, len(v))
	for i, x := range v {
		t.SetInt(i, int64(x))
	}
	return b.constValue(n, suffix, t)
}

// floatConst adds a scalar of type d.
func (b *builder) floatConst(n *node, suffix string, d model.DType, v float64) *model.Value {
	t := model.NewTensor(d)
	t.Shape = model.Shape{}
	t.Set(0, v)
	return b.constValue(n, suffix, t)
}

// direct keeps the operator as it is.
func direct(b *builder, n *node) error {
	_, err := b.emitBlocks(model.Op(n.op), n.label(), n.in, n.attrs, n.blocks, n.outputs...)
	return err
}

// as keeps inputs and attributes under another operator name.
func as(op model.Op) func(*builder, *node) error {
	return func(b *builder, n *node) error {
		_, err := b.emitBlocks(op, n.label(), n.in, n.attrs, n.blocks, n.outputs...)
		return err
	}
}

// typeName turns an integer attribute that holds an element type into its name.
func typeName(n *node, key string) error {
	c, ok := n.attrs[key].(int)
	if !ok {
		return nil
	}
	if c == 0 {
		delete(n.attrs, key)
		return nil
	}
	d, err := dtypeOf(int64(c))
	if err != nil {
		return fmt.Errorf("attribute %s: %w", key, err)
	}
	n.attrs[key] = d.String()
	return nil
}

// unchanged lists the operators that mean the same in opsets 1 to 6 as later
// (but for consumed_inputs, which never had a meaning).
var unchanged = map[string]bool{}

func init() {
	for _, op := range []string{
		"Abs", "AveragePool", "Ceil", "Constant", "Conv", "ConvTranspose", "DepthToSpace", "Elu", "Exp", "Flatten", "Floor",
		"Gather", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "Hardmax", "Identity", "InstanceNormalization",
		"LRN", "LeakyRelu", "Log", "LogSoftmax", "MaxPool", "Neg", "Not", "Reciprocal", "ReduceL1", "ReduceL2",
		"ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
		"ReduceSumSquare", "Relu", "Selu", "Shape", "Sigmoid", "Size", "Slice", "Softmax", "Softplus", "Softsign",
		"SpaceToDepth", "Sqrt", "Squeeze", "Tanh", "Transpose", "Unsqueeze",
	} {
		unchanged[op] = true
	}
}
