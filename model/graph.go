package model

import (
	"container/heap"
	"fmt"
	"slices"
)

// Graph is a network of operators in topological order.
type Graph struct {
	Name    string
	Inputs  []*Value // in declaration order, constants not included
	Outputs []*Value
	Nodes   []*Node // topological: producers before consumers

	// Format and Opset say where the graph comes from ("onnx" and "17",
	// "coreml" and "CoreML8", "zoo"), for inspection and round trips.
	Format, Opset string
	// Meta carries what a format has and the graph does not interpret.
	Meta map[string]string
	// ProgramBytes is the size of the program text of the file it was read
	// from (weights excluded); 0 if unknown.
	ProgramBytes int64
}

// Value is an edge: a tensor that flows, or a constant.
type Value struct {
	Name  string
	DType DType
	Shape Shape
	// Const is set for constants; Producer is nil then.
	Const *Const
	// Producer is the node that writes the value; nil for graph inputs.
	Producer *Node
	// Type is the kind of the value; the zero value is a tensor.
	Type ValueType
	// Dims names symbolic dimensions of a graph input ("batch"), empty where
	// fixed; nil when all are fixed.
	Dims []string
}

// ValueType tells tensors from the container types of ONNX.
type ValueType uint8

// The value types.
const (
	TypeTensor ValueType = iota
	TypeSequence
	TypeOptional
)

// IsConst reports whether the value is a constant.
func (v *Value) IsConst() bool { return v.Const != nil }

// String formats the value as name:fp16[1,3,224,224].
func (v *Value) String() string { return fmt.Sprintf("%s:%s%v", v.Name, v.DType, v.Shape) }

// Node is one operator. An optional input that is absent is nil.
type Node struct {
	Name    string
	Op      Op
	Inputs  []*Value
	Outputs []*Value
	Attrs   Attrs
	// Blocks holds the subgraphs of If, Loop and Scan by attribute name. A
	// subgraph reads outer values directly.
	Blocks map[string]*Graph
}

// Op is an operator's name, ONNX spelling ("Conv", "MatMul", "HardSwish").
// Package model/ops has the list.
type Op string

// In returns input i, or nil if the node has none there.
func (n *Node) In(i int) *Value {
	if i < 0 || i >= len(n.Inputs) {
		return nil
	}
	return n.Inputs[i]
}

// Out returns output i, or nil if the node has none there.
func (n *Node) Out(i int) *Value {
	if i < 0 || i >= len(n.Outputs) {
		return nil
	}
	return n.Outputs[i]
}

// Attrs are a node's static parameters. Values have one of the types int,
// float64, string, bool, []int, []float64, []string, *Tensor.
type Attrs map[string]any

// Int returns an integer attribute, or def if it is absent.
func (a Attrs) Int(key string, def int) int {
	if v, ok := a[key].(int); ok {
		return v
	}
	return def
}

// Float returns a floating-point attribute, or def if it is absent.
func (a Attrs) Float(key string, def float64) float64 {
	if v, ok := a[key].(float64); ok {
		return v
	}
	return def
}

// String returns a string attribute, or def if it is absent.
func (a Attrs) String(key, def string) string {
	if v, ok := a[key].(string); ok {
		return v
	}
	return def
}

// Ints returns an integer-list attribute, or def if it is absent.
func (a Attrs) Ints(key string, def []int) []int {
	if v, ok := a[key].([]int); ok {
		return v
	}
	return def
}

// Floats returns a float-list attribute, or nil.
func (a Attrs) Floats(key string) []float64 { v, _ := a[key].([]float64); return v }

// Consumers returns, for every value, the nodes that read it (a node that
// reads it twice appears twice), in graph order. Nodes inside blocks count as
// reads by the node that holds the block.
func (g *Graph) Consumers() map[*Value][]*Node {
	m := make(map[*Value][]*Node, len(g.Nodes))
	var add func(owner *Node, n *Node)
	add = func(owner, n *Node) {
		for _, v := range n.Inputs {
			if v != nil {
				m[v] = append(m[v], owner)
			}
		}
		for _, b := range n.Blocks {
			for _, x := range b.Nodes {
				add(owner, x)
			}
			for _, v := range b.Outputs {
				m[v] = append(m[v], owner)
			}
		}
	}
	for _, n := range g.Nodes {
		add(n, n)
	}
	return m
}

// Consts returns every constant value that a node (or a block's node) or a
// graph output reads, each once, in order of first use.
func (g *Graph) Consts() []*Value {
	seen := map[*Value]bool{}
	var out []*Value
	var walk func(g *Graph)
	take := func(v *Value) {
		if v != nil && v.Const != nil && !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	walk = func(g *Graph) {
		for _, n := range g.Nodes {
			for _, v := range n.Inputs {
				take(v)
			}
			for _, k := range sortedKeys(n.Blocks) {
				walk(n.Blocks[k])
			}
		}
		for _, v := range g.Outputs {
			take(v)
		}
	}
	walk(g)
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// Sort puts the nodes into topological order, stable with respect to the
// order they have; it reports a cycle by naming one of its nodes.
func (g *Graph) Sort() error {
	index := make(map[*Node]int, len(g.Nodes))
	for i, n := range g.Nodes {
		index[n] = i
	}
	deps := make([]map[int]bool, len(g.Nodes))
	users := make([][]int, len(g.Nodes))
	var collect func(i int, n *Node)
	collect = func(i int, n *Node) {
		use := func(v *Value) {
			if v == nil || v.Producer == nil {
				return
			}
			if j, ok := index[v.Producer]; ok && j != i && !deps[i][j] {
				deps[i][j] = true
				users[j] = append(users[j], i)
			}
		}
		for _, v := range n.Inputs {
			use(v)
		}
		for _, b := range n.Blocks {
			for _, x := range b.Nodes {
				collect(i, x)
			}
			for _, v := range b.Outputs {
				use(v)
			}
		}
	}
	for i, n := range g.Nodes {
		deps[i] = map[int]bool{}
		collect(i, n)
	}
	// Kahn's algorithm with a priority on the original index.
	ready := &intHeap{}
	left := make([]int, len(g.Nodes))
	for i := range g.Nodes {
		left[i] = len(deps[i])
		if left[i] == 0 {
			heap.Push(ready, i)
		}
	}
	out := make([]*Node, 0, len(g.Nodes))
	for len(*ready) > 0 {
		i := heap.Pop(ready).(int)
		out = append(out, g.Nodes[i])
		for _, u := range users[i] {
			if left[u]--; left[u] == 0 {
				heap.Push(ready, u)
			}
		}
	}
	if len(out) != len(g.Nodes) {
		for i, n := range g.Nodes {
			if left[i] > 0 {
				return fmt.Errorf("model: graph %q has a cycle through node %q (%s)", g.Name, n.Name, n.Op)
			}
		}
	}
	g.Nodes = out
	return nil
}

// intHeap is a heap.Interface of node indices, least first.
type intHeap []int

func (h intHeap) Len() int           { return len(h) }
func (h intHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h intHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *intHeap) Push(v any)        { *h = append(*h, v.(int)) }
func (h *intHeap) Pop() any {
	old := *h
	v := old[len(old)-1]
	*h = old[:len(old)-1]
	return v
}

// Params returns the number of elements of all floating-point constants that
// nodes read, scalars excluded, as frameworks count the parameters of a
// network: the running mean and variance of a batch norm are buffers there and
// do not count.
func (g *Graph) Params() int64 {
	buffers := map[*Value]bool{}
	for _, n := range g.Nodes {
		if n.Op == "BatchNormalization" {
			buffers[n.In(3)], buffers[n.In(4)] = true, true
		}
	}
	var n int64
	for _, v := range g.Consts() {
		if v.Const.DType.IsFloat() && len(v.Const.Shape) > 0 && !buffers[v] {
			n += v.Const.Elems()
		}
	}
	return n
}

// Clone returns a deep copy of the structure. Constants' storage is shared:
// it is immutable.
func (g *Graph) Clone() *Graph {
	return g.clone(map[*Value]*Value{})
}

func (g *Graph) clone(vm map[*Value]*Value) *Graph {
	nm := map[*Node]*Node{}
	cv := func(v *Value) *Value {
		if v == nil {
			return nil
		}
		if c, ok := vm[v]; ok {
			return c
		}
		c := *v
		c.Shape = v.Shape.Clone()
		if v.Const != nil {
			k := *v.Const
			c.Const = &k
		}
		vm[v] = &c
		return &c
	}
	out := *g
	out.Inputs, out.Outputs, out.Nodes = nil, nil, nil
	for _, v := range g.Inputs {
		out.Inputs = append(out.Inputs, cv(v))
	}
	for _, n := range g.Nodes {
		c := &Node{Name: n.Name, Op: n.Op, Attrs: n.Attrs}
		nm[n] = c
		for _, v := range n.Inputs {
			c.Inputs = append(c.Inputs, cv(v))
		}
		for _, v := range n.Outputs {
			w := cv(v)
			if w != nil {
				w.Producer = c
			}
			c.Outputs = append(c.Outputs, w)
		}
		if n.Attrs != nil {
			c.Attrs = make(Attrs, len(n.Attrs))
			for k, v := range n.Attrs {
				c.Attrs[k] = v
			}
		}
		if n.Blocks != nil {
			c.Blocks = make(map[string]*Graph, len(n.Blocks))
			for _, k := range sortedKeys(n.Blocks) {
				c.Blocks[k] = n.Blocks[k].clone(vm)
			}
		}
		out.Nodes = append(out.Nodes, c)
	}
	for _, v := range g.Outputs {
		out.Outputs = append(out.Outputs, cv(v))
	}
	return &out
}

// Validate checks the structure: topological order, unique producers, and
// (with shapes true) that every tensor has a known shape and type. The error
// names the node or value.
func (g *Graph) Validate(shapes bool) error {
	have := map[*Value]bool{}
	check := func(v *Value, where string) error {
		if shapes && v.Type == TypeTensor && (v.DType == Invalid || !v.Shape.Known()) {
			return fmt.Errorf("model: %s %q has type %s and shape %v; a fixed shape is needed (give one with --shape %s=...)", where, v.Name, v.DType, v.Shape, v.Name)
		}
		return nil
	}
	for _, v := range g.Inputs {
		have[v] = true
		if err := check(v, "input"); err != nil {
			return err
		}
	}
	for _, n := range g.Nodes {
		for i, v := range n.Inputs {
			if v == nil || v.Const != nil {
				continue
			}
			if !have[v] {
				return fmt.Errorf("model: node %q (%s) reads %q (input %d) before anything produces it", n.Name, n.Op, v.Name, i)
			}
		}
		for _, v := range n.Outputs {
			if v == nil {
				continue
			}
			if have[v] {
				return fmt.Errorf("model: value %q has two producers, the second is node %q (%s)", v.Name, n.Name, n.Op)
			}
			if v.Producer != n {
				return fmt.Errorf("model: value %q does not point back to its producer %q", v.Name, n.Name)
			}
			have[v] = true
			if err := check(v, "value"); err != nil {
				return err
			}
		}
	}
	for _, v := range g.Outputs {
		if v.Const == nil && !have[v] {
			return fmt.Errorf("model: output %q is produced by no node", v.Name)
		}
	}
	return nil
}
