package model

import (
	"fmt"
	"slices"
)

// Lower turns a graph with inferred shapes into layers. Each node becomes the
// anchor of a layer or part of one:
//
//   - a dequantize operator joins every layer that reads it, whether its codes
//     come from a quantize operator or are an 8-bit input of the graph,
//   - after a convolution, linear layer, matmul or element-wise operator come,
//     in this order: one bias add (constant), one residual add (the other
//     operand produced earlier, same shape), one activation, one quantize
//     operator, each only if nothing else reads the value before it.
//
// Constant folding, batch-norm folding and pattern recognition are graph
// passes (package model/passes) and are expected to have run. The graph is not
// changed and must not be changed afterwards.
func Lower(g *Graph) (*Network, error) {
	for _, v := range g.Inputs {
		if v.Type == TypeTensor && (v.DType == Invalid || !v.Shape.Known()) {
			return nil, fmt.Errorf("model: input %q has shape %v; a fixed shape is needed (give one with --shape %s=...)", v.Name, v.Shape, v.Name)
		}
	}
	if err := g.Validate(false); err != nil {
		return nil, err
	}
	lo := &lowering{
		g:         g,
		consumers: g.Consumers(),
		output:    map[*Value]bool{},
		tail:      map[*Value]*draft{},
		quantized: map[*Value]bool{},
		dq:        map[*Value]*Node{},
		owner:     map[*Node]*draft{},
		asCodes:   map[*Value]bool{},
	}
	for _, v := range g.Outputs {
		lo.output[v] = true
	}
	for _, v := range g.Inputs {
		if v.Type == TypeTensor && (v.DType == Int8 || v.DType == UInt8) && lo.readAsCodes(v) {
			lo.quantized[v] = true
		}
	}
	for _, n := range g.Nodes {
		lo.place(n)
	}
	return lo.finish()
}

// readAsCodes reports whether everything that reads an 8-bit value takes it
// for codes: dequantizes it, or moves it, alone, to where it is dequantized.
func (lo *lowering) readAsCodes(v *Value) bool {
	if yes, known := lo.asCodes[v]; known {
		return yes
	}
	lo.asCodes[v] = false
	for _, c := range lo.consumers[v] {
		if len(c.Inputs) == 0 || c.In(0) != v || slices.Contains(c.Inputs[1:], v) || !constTail(c) {
			return false
		}
		if c.Op == "DequantizeLinear" {
			continue
		}
		if !lo.movesCodes(c) {
			return false
		}
		for _, o := range c.Outputs {
			if o != nil && !lo.readAsCodes(o) {
				return false
			}
		}
	}
	lo.asCodes[v] = len(lo.consumers[v]) > 0
	return lo.asCodes[v]
}

// movesCodes reports whether an operator hands 8-bit codes through.
func (lo *lowering) movesCodes(n *Node) bool {
	k := lo.kind(n)
	return k == KindMove || k == KindView || n.Op == "MaxPool" || n.Op == "Gather"
}

// draft is a layer under construction.
type draft struct {
	anchor   *Node
	kind     Kind
	prologue []*Node // dequantize nodes
	nodes    []*Node // anchor and epilogue
	stage    int     // 0 anchor, 1 bias, 2 residual, 3 activation, 4 quantize
	residual *Value
	order    int
}

type lowering struct {
	g         *Graph
	consumers map[*Value][]*Node
	output    map[*Value]bool
	layers    []*draft
	tail      map[*Value]*draft // last value of a draft that may still grow
	quantized map[*Value]bool   // values carried as codes with a scale
	dq        map[*Value]*Node  // output of an absorbed dequantize -> the node
	owner     map[*Node]*draft  // the draft a node went into
	asCodes   map[*Value]bool   // whether all readers of an 8-bit value take it for codes
}

func (lo *lowering) sole(v *Value) bool { return len(lo.consumers[v]) == 1 && !lo.output[v] }

func (lo *lowering) place(n *Node) {
	switch {
	case n.Op == "DequantizeLinear" && n.In(0).Const == nil && lo.absorbDequantize(n):
		return
	case n.Op == "QuantizeLinear":
		lo.quantized[n.Outputs[0]] = true
		if d := lo.tail[n.In(0)]; d != nil && d.stage < 4 && lo.sole(n.In(0)) && takesQuantize(d.kind) && constTail(n) {
			lo.join(d, n.In(0), n, 4)
			return
		}
	case n.Op == "Add":
		if lo.fuseAdd(n) {
			return
		}
	case epilogueActs[n.Op]:
		v := n.In(0)
		if d := lo.tail[v]; d != nil && d.stage < 3 && lo.sole(v) && (takesEpilogue(d.kind) || d.anchor.Op == "BatchNormalization") && constTail(n) {
			lo.join(d, v, n, 3)
			return
		}
	}
	d := &draft{anchor: n, kind: lo.kind(n), nodes: []*Node{n}, order: len(lo.layers)}
	for _, v := range n.Inputs {
		if v == nil {
			continue
		}
		if q := lo.dq[v]; q != nil && !slices.Contains(d.prologue, q) {
			d.prologue = append(d.prologue, q)
		}
	}
	lo.layers = append(lo.layers, d)
	lo.owner[n] = d
	if len(n.Outputs) > 0 && n.Outputs[0] != nil {
		lo.tail[n.Outputs[0]] = d
	}
	if lo.movesCodes(n) {
		if v := n.In(0); v != nil && lo.quantized[v] {
			for _, o := range n.Outputs {
				if o != nil && o.DType == v.DType {
					lo.quantized[o] = true
				}
			}
		}
	}
}

// constTail reports whether every input but the first is constant or absent.
func constTail(n *Node) bool {
	for _, v := range n.Inputs[1:] {
		if v != nil && v.Const == nil {
			return false
		}
	}
	return true
}

// absorbDequantize makes a dequantize node part of each of its readers, if all
// of them read codes; otherwise it stays a layer of its own.
func (lo *lowering) absorbDequantize(n *Node) bool {
	v := n.Outputs[0]
	if lo.output[v] || len(lo.consumers[v]) == 0 || !constTail(n) || !lo.quantized[n.In(0)] {
		return false
	}
	for _, c := range lo.consumers[v] {
		if !takesDequantize(lo.kind(c)) || c.Blocks != nil {
			return false
		}
		if !slices.Contains(c.Inputs, v) {
			return false
		}
	}
	lo.dq[v] = n
	return true
}

// join appends node n, which reads the draft's tail value v, to the draft.
func (lo *lowering) join(d *draft, v *Value, n *Node, stage int) {
	delete(lo.tail, v)
	d.nodes = append(d.nodes, n)
	d.stage = stage
	lo.owner[n] = d
	lo.tail[n.Outputs[0]] = d
}

// fuseAdd joins a bias or a residual add to the layer that produces one of its
// operands.
func (lo *lowering) fuseAdd(n *Node) bool {
	if len(n.Inputs) != 2 || n.In(0) == nil || n.In(1) == nil {
		return false
	}
	for i := range 2 {
		v, c := n.In(i), n.In(1-i)
		if c.Const == nil || v.Const != nil {
			continue
		}
		d := lo.tail[v]
		if d == nil || d.stage != 0 || !lo.sole(v) || !isBias(d, v, c) {
			return false
		}
		lo.join(d, v, n, 1)
		return true
	}
	a, b := n.In(0), n.In(1)
	if a == b || !a.Shape.Equal(b.Shape) || !n.Outputs[0].Shape.Equal(a.Shape) || lo.dq[a] != nil {
		return false
	}
	if lo.dq[b] != nil {
		return false
	}
	var best *draft
	var other, via *Value
	for i := range 2 {
		v, w := n.In(i), n.In(1-i)
		d := lo.tail[v]
		if d == nil || d.stage >= 2 || !lo.sole(v) || d.kind == KindElementwise || !takesEpilogue(d.kind) {
			continue
		}
		if lo.madeBefore(w, d) && (best == nil || d.order > best.order) {
			best, other, via = d, w, v
		}
	}
	if best == nil {
		return false
	}
	best.residual = other
	lo.join(best, via, n, 2)
	return true
}

// madeBefore reports whether v is a graph input or comes from a layer that
// runs before d.
func (lo *lowering) madeBefore(v *Value, d *draft) bool {
	if v.Producer == nil {
		return true
	}
	if o := lo.owner[v.Producer]; o != nil {
		return o.order < d.order
	}
	return false
}

// isBias reports whether constant c has one element per output channel of the
// layer that writes v.
func isBias(d *draft, v, c *Value) bool {
	if !c.Const.DType.IsFloat() {
		return false
	}
	axis := len(v.Shape) - 1
	switch d.kind {
	case KindConv, KindDepthwise, KindConvTranspose:
		axis = 1
	case KindLinear, KindMatMul:
	default:
		return false
	}
	if d.anchor.Op == "Conv" || d.anchor.Op == "ConvTranspose" || d.anchor.Op == "Gemm" {
		if d.anchor.In(2) != nil {
			return false
		}
	}
	if axis < 0 || c.Shape.Elems() != int64(v.Shape[axis]) || len(c.Shape) > len(v.Shape) {
		return false
	}
	at := axis - (len(v.Shape) - len(c.Shape))
	return at >= 0 && at < len(c.Shape) && c.Shape[at] == v.Shape[axis]
}

func (lo *lowering) kind(n *Node) Kind {
	k := kindOf[n.Op]
	switch n.Op {
	case "Conv":
		x, w := n.In(0), n.In(1)
		g := n.Attrs.Int("group", 1)
		if g > 1 && x != nil && w != nil && len(x.Shape) > 1 && len(w.Shape) > 1 && g == x.Shape[1] {
			return KindDepthwise
		}
	case "MatMul":
		if n.In(1) != nil && n.In(1).Const != nil && len(n.In(1).Shape) == 2 {
			return KindLinear
		}
	case "Gemm":
		if n.In(1) != nil && n.In(1).Const == nil {
			return KindMatMul
		}
	}
	return k
}

func (lo *lowering) finish() (*Network, error) {
	net := &Network{Graph: lo.g}
	edges := map[*Value]*Edge{}
	edge := func(v *Value, producer int) *Edge {
		e := &Edge{Index: len(net.Edges), Value: v, Producer: producer, Elems: max(0, v.Shape.Elems()), LastAxis: 1,
			Output: lo.output[v], Quantized: lo.quantized[v]}
		if len(v.Shape) > 0 {
			e.LastAxis = v.Shape[len(v.Shape)-1]
		}
		e.Integer = !e.Quantized && !v.DType.IsFloat()
		net.Edges = append(net.Edges, e)
		edges[v] = e
		return e
	}
	for _, v := range lo.g.Inputs {
		edge(v, -1)
	}
	names := map[string]int{}
	for i, d := range lo.layers {
		l := &Layer{Index: i, Anchor: d.anchor, Op: d.anchor.Op, Kind: d.kind, Name: layerName(d.anchor, names)}
		l.Nodes = append(slices.Clone(d.prologue), d.nodes...)
		inside := map[*Value]bool{}
		for _, n := range l.Nodes {
			if n != d.anchor {
				l.Fused = append(l.Fused, string(n.Op))
			}
			for _, o := range n.Outputs {
				if o != nil {
					inside[o] = true
				}
			}
		}
		read := func(v *Value) error {
			if v == nil || v.Const != nil || inside[v] {
				return nil
			}
			e := edges[v]
			if e == nil {
				return fmt.Errorf("model: layer %q reads %q before a layer writes it", l.Name, v.Name)
			}
			if !slices.Contains(l.Inputs, e.Index) {
				l.Inputs = append(l.Inputs, e.Index)
				e.Consumers = append(e.Consumers, i)
			}
			return nil
		}
		for _, n := range l.Nodes {
			for _, v := range n.Inputs {
				if err := read(v); err != nil {
					return nil, err
				}
			}
			if err := readBlocks(n, inside, read); err != nil {
				return nil, err
			}
		}
		for _, n := range d.nodes {
			for _, o := range n.Outputs {
				if o == nil {
					continue
				}
				if lo.output[o] || lo.readOutside(o, l.Nodes) || (n == d.nodes[len(d.nodes)-1] && o == n.Outputs[0]) {
					l.Outputs = append(l.Outputs, edge(o, i).Index)
				}
			}
		}
		lo.facts(net, l, d)
		net.Layers = append(net.Layers, l)
	}
	for _, e := range net.Edges {
		if e.Producer < 0 || e.Output || e.Integer || len(e.Consumers) != 1 {
			continue
		}
		from, to := net.Layers[e.Producer], net.Layers[e.Consumers[0]]
		if from.Pointwise() && to.Pointwise() {
			b := 2 * e.Elems
			if e.Quantized {
				b = e.Elems
			}
			from.TiledBytes += b
			to.TiledBytes += b
		}
	}
	for _, v := range lo.g.Outputs {
		if v.Const == nil && edges[v] == nil {
			return nil, fmt.Errorf("model: output %q is written by no layer", v.Name)
		}
	}
	return net, nil
}

// readBlocks visits the outer values that a node's subgraphs read.
func readBlocks(n *Node, inside map[*Value]bool, read func(*Value) error) error {
	for _, k := range sortedKeys(n.Blocks) {
		b := n.Blocks[k]
		local := map[*Value]bool{}
		for _, v := range b.Inputs {
			local[v] = true
		}
		for _, x := range b.Nodes {
			for _, o := range x.Outputs {
				local[o] = true
			}
		}
		outer := func(v *Value) error {
			if local[v] {
				return nil
			}
			return read(v)
		}
		for _, x := range b.Nodes {
			for _, v := range x.Inputs {
				if err := outer(v); err != nil {
					return err
				}
			}
			if err := readBlocks(x, inside, outer); err != nil {
				return err
			}
		}
		for _, v := range b.Outputs {
			if err := outer(v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (lo *lowering) readOutside(v *Value, nodes []*Node) bool {
	for _, c := range lo.consumers[v] {
		if !slices.Contains(nodes, c) {
			return true
		}
	}
	return false
}

func layerName(n *Node, used map[string]int) string {
	name := n.Name
	if name == "" && len(n.Outputs) > 0 && n.Outputs[0] != nil {
		name = n.Outputs[0].Name
	}
	if name == "" {
		name = string(n.Op)
	}
	used[name]++
	if k := used[name]; k > 1 {
		name = fmt.Sprintf("%s#%d", name, k)
	}
	return name
}
