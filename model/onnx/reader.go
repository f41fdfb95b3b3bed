package onnx

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/internal/budget"
	"github.com/triune-sim/triune/model/ops"
)

// Options of reading. The zero value reads as described in the package
// documentation.
type Options struct {
	// Shapes gives inputs a shape by name, for models with symbolic or unknown
	// dimensions. It may also replace fixed ones; the rank must be the same.
	Shapes map[string][]int
}

// The opset versions of the default domain that are understood in full. Files
// of older ones are read if they use only operators whose meaning has not
// changed since.
const (
	MinOpset = 7
	MaxOpset = 22
)

// maxIR is the newest IR version known.
const maxIR = 13

// Load reads an .onnx file. Weights are views into the (mapped) file. The
// graph's operators are normalised (see package model/ops) and its types and
// shapes are inferred. Errors are one line: "onnx: FILE: what (where)".
func Load(path string, o Options) (*model.Graph, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	defer f.Close()
	data, err := mapFile(f)
	if err != nil {
		return nil, fmt.Errorf("onnx: %s: %w", filepath.Base(path), err)
	}
	g, err := read(data, filepath.Dir(path), o)
	if err != nil {
		return nil, fmt.Errorf("onnx: %s: %s", filepath.Base(path), oneLine(err))
	}
	return g, nil
}

// Read is [Load] for a model in memory, which must not change afterwards:
// weights are views into it. baseDir is the folder of external data; with ""
// such models are refused.
func Read(data []byte, baseDir string, o Options) (*model.Graph, error) {
	g, err := read(data, baseDir, o)
	if err != nil {
		return nil, fmt.Errorf("onnx: %s", oneLine(err))
	}
	return g, nil
}

func oneLine(err error) string {
	s := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "ops: "), "\n", " ")
	if len(s) > 1000 { // where it starts and what it ends in
		s = strings.ToValidUTF8(s[:300]+" ... "+s[len(s)-600:], "")
	}
	return s
}

// reader is the state of reading one model.
type reader struct {
	dir       string
	opts      Options
	inf       *ops.Inferer
	files     map[string][]byte // external data by location
	functions map[string]*function
	nodes     int // emitted so far
	serial    int // for names of values that translation adds
	prefixes  map[string]bool
	mem       *budget.Budget
	known     int // bytes of inf's values that mem counts
}

// function is a model-local function, expanded where it is called.
type function struct {
	name            string
	inputs, outputs []string
	body            []byte // the FunctionProto, of which nodes are read at each call
	opsets          map[string]int
	defaults        []attr
}

func read(data []byte, dir string, o Options) (*model.Graph, error) {
	r := &reader{dir: dir, opts: o, inf: ops.NewInferer(), files: map[string][]byte{}, functions: map[string]*function{}, prefixes: map[string]bool{}, mem: budget.New(len(data))}
	opsets := map[string]int{}
	var graph []byte
	var ir int64
	meta := map[string]string{}
	const what = "model"
	err := eachField(data, what, func(f field) (err error) {
		switch f.num {
		case 1:
			ir, err = f.integer(what)
		case 2:
			meta["producer"], err = f.text(what)
		case 3:
			meta["producer_version"], err = f.text(what)
		case 7:
			graph, err = f.message(what)
		case 8:
			var b []byte
			if b, err = f.message(what); err == nil {
				if err = r.mem.Keep(entryBytes + len(b)); err == nil {
					err = parseOpset(b, opsets)
				}
			}
		case 14:
			var b []byte
			if b, err = f.message(what); err == nil {
				if err = r.mem.Keep(entryBytes + len(b)); err != nil {
					return err
				}
				var k, v string
				if k, v, err = parseEntry(b); err == nil {
					meta["prop:"+k] = v
				}
			}
		case 25:
			var b []byte
			if b, err = f.message(what); err == nil {
				err = r.parseFunction(b)
			}
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case graph == nil:
		return nil, fmt.Errorf("no graph (is this an ONNX model?)")
	case ir < 3 || ir > maxIR:
		return nil, fmt.Errorf("IR version %d is not supported (3 to %d are)", ir, maxIR)
	}
	if err := checkOpsets(opsets); err != nil {
		return nil, err
	}
	g := &model.Graph{Format: "onnx", Opset: strconv.Itoa(opsets[""]), Meta: meta}
	b := &builder{r: r, g: g, scope: &scope{values: map[string]*model.Value{}}, opsets: opsets}
	if err := b.graph(graph); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Shapes)) {
		if !slices.ContainsFunc(g.Inputs, func(v *model.Value) bool { return v.Name == name }) {
			var have []string
			for _, v := range g.Inputs {
				have = append(have, v.Name)
			}
			return nil, fmt.Errorf("a shape is given for %q, but the inputs are %s", name, strings.Join(have, ", "))
		}
	}
	noteSigned(g)
	g.ProgramBytes = int64(len(data))
	for _, v := range g.Consts() {
		g.ProgramBytes -= v.Const.StoredBytes()
	}
	g.ProgramBytes = max(0, g.ProgramBytes)
	return g, nil
}

func parseOpset(msg []byte, into map[string]int) error {
	domain, version := "", int64(0)
	err := eachField(msg, "opset import", func(f field) (err error) {
		switch f.num {
		case 1:
			domain, err = f.text("opset import")
		case 2:
			version, err = f.integer("opset import")
		}
		return err
	})
	if err != nil {
		return err
	}
	if domain == "ai.onnx" {
		domain = ""
	}
	if version < 0 || version > 1<<20 {
		return fmt.Errorf("opset import: version %d of domain %q is out of range", version, domain)
	}
	into[domain] = int(version)
	return nil
}

func checkOpsets(opsets map[string]int) error {
	v, ok := opsets[""]
	if !ok {
		if len(opsets) > 0 {
			return nil // only other domains are used
		}
		return fmt.Errorf("no opset import of the default domain")
	}
	if v < 1 || v > MaxOpset {
		return fmt.Errorf("opset %d is not supported (%d to %d are); convert the model with onnx.version_converter", v, MinOpset, MaxOpset)
	}
	return nil
}

func (r *reader) parseFunction(msg []byte) error {
	fn := &function{opsets: map[string]int{}, body: msg}
	domain := ""
	if err := r.mem.Keep(functionBytes); err != nil {
		return err
	}
	const what = "function"
	err := eachField(msg, what, func(f field) (err error) {
		var s string
		var b []byte
		switch f.num {
		case 1:
			fn.name, err = f.text(what)
		case 4:
			if s, err = f.text(what); err == nil {
				err = r.mem.Keep(nameBytes + len(s))
			}
			fn.inputs = append(fn.inputs, s)
		case 5:
			if s, err = f.text(what); err == nil {
				err = r.mem.Keep(nameBytes + len(s))
			}
			fn.outputs = append(fn.outputs, s)
		case 9:
			if b, err = f.message(what); err == nil {
				if err = r.mem.Keep(entryBytes + len(b)); err == nil {
					err = parseOpset(b, fn.opsets)
				}
			}
		case 10:
			domain, err = f.text(what)
		case 11:
			if b, err = f.message(what); err == nil {
				if err = r.mem.Keep(attrBytes + len(b)); err != nil {
					return err
				}
				var a attr
				a, err = r.parseAttr(b)
				fn.defaults = append(fn.defaults, a)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := checkOpsets(fn.opsets); err != nil {
		return fmt.Errorf("function %q: %w", fn.name, err)
	}
	r.functions[domain+"::"+fn.name] = fn
	return nil
}

// attr is a parsed AttributeProto; messages stay views.
type attr struct {
	name    string
	typ     int64
	f       float64
	i       int64
	s       []byte
	msg     []byte // tensor, graph, sparse tensor or type
	floats  []float64
	ints    []int64
	strings [][]byte
	ref     string // the function's attribute this one copies
}

// AttributeProto.AttributeType
const (
	attrFloat = iota + 1
	attrInt
	attrString
	attrTensor
	attrGraph
	attrFloats
	attrInts
	attrStrings
	attrTensors
	attrGraphs
	attrSparse
	attrSparses
	attrType
)

func (r *reader) parseAttr(msg []byte) (attr, error) {
	var a attr
	const what = "attribute"
	guess := int64(0)
	err := eachField(msg, what, func(f field) (err error) {
		switch f.num {
		case 1:
			a.name, err = f.text(what)
		case 2:
			a.f, err = f.float(what)
			guess = attrFloat
		case 3:
			a.i, err = f.integer(what)
			guess = attrInt
		case 4:
			a.s, err = f.message(what)
			guess = attrString
		case 5:
			a.msg, err = f.message(what)
			guess = attrTensor
		case 6:
			a.msg, err = f.message(what)
			guess = attrGraph
		case 7:
			if a.floats == nil {
				_, n := counts(msg, 7, 4)
				if err = r.mem.Pass(numberBytes * n); err != nil {
					return err
				}
				a.floats = make([]float64, 0, n)
			}
			a.floats, err = f.floats(a.floats, what)
			guess = attrFloats
		case 8:
			if a.ints == nil {
				_, n := counts(msg, 8, 1)
				if err = r.mem.Pass(numberBytes * n); err != nil {
					return err
				}
				a.ints = make([]int64, 0, n)
			}
			a.ints, err = f.integers(a.ints, what)
			guess = attrInts
		case 9:
			if a.strings == nil {
				n, _ := counts(msg, 9, 1)
				if err = r.mem.Pass(nameBytes * n); err != nil {
					return err
				}
				a.strings = make([][]byte, 0, n)
			}
			var b []byte
			b, err = f.message(what)
			a.strings = append(a.strings, b)
			guess = attrStrings
		case 14:
			a.msg, err = f.message(what)
			guess = attrType
		case 20:
			a.typ, err = f.integer(what)
		case 21:
			a.ref, err = f.text(what)
		case 22:
			a.msg, err = f.message(what)
			guess = attrSparse
		}
		return err
	})
	if a.typ == 0 { // old files leave it out
		a.typ = guess
	}
	return a, err
}

// nodeProto is a parsed NodeProto.
type nodeProto struct {
	name, op, domain string
	inputs, outputs  []string
	attrs            []attr
}

// parseNode reads a NodeProto; what it takes passes when the node has become
// part of the graph.
func (r *reader) parseNode(msg []byte) (*nodeProto, error) {
	n := &nodeProto{}
	const what = "node"
	ins, _ := counts(msg, 1, 1)
	outs, _ := counts(msg, 2, 1)
	attrs, _ := counts(msg, 5, 1)
	if err := r.mem.Pass(protoBytes + nameBytes*(ins+outs) + attrBytes*attrs + len(msg)); err != nil {
		return nil, err
	}
	n.inputs, n.outputs, n.attrs = make([]string, 0, ins), make([]string, 0, outs), make([]attr, 0, attrs)
	err := eachField(msg, what, func(f field) (err error) {
		var s string
		switch f.num {
		case 1:
			s, err = f.text(what)
			n.inputs = append(n.inputs, s)
		case 2:
			s, err = f.text(what)
			n.outputs = append(n.outputs, s)
		case 3:
			n.name, err = f.text(what)
		case 4:
			n.op, err = f.text(what)
			if known, ok := ops.Lookup(model.Op(n.op)); ok {
				n.op = string(known.Op) // one string for all nodes
			}
		case 5:
			var b []byte
			if b, err = f.message(what); err == nil {
				var a attr
				if a, err = r.parseAttr(b); err == nil {
					n.attrs = append(n.attrs, a)
				}
			}
		case 7:
			n.domain, err = f.text(what)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if n.domain == "ai.onnx" {
		n.domain = ""
	}
	if n.op == "" {
		return nil, fmt.Errorf("node %q has no operator", n.label())
	}
	return n, nil
}

// label is the node's name, or its first output where it has none.
func (n *nodeProto) label() string {
	if n.name != "" {
		return n.name
	}
	for _, o := range n.outputs {
		if o != "" {
			return o
		}
	}
	return ""
}

func (n *nodeProto) fullOp() string {
	if n.domain == "" {
		return n.op
	}
	return n.domain + "." + n.op
}

// scope resolves names; inner graphs see outer ones.
type scope struct {
	parent *scope
	values map[string]*model.Value
}

func (s *scope) find(name string) *model.Value {
	for ; s != nil; s = s.parent {
		if v := s.values[name]; v != nil {
			return v
		}
	}
	return nil
}

// builder translates one graph (or block, or function body) node by node.
type builder struct {
	r      *reader
	g      *model.Graph
	scope  *scope
	opsets map[string]int
	depth  int
	// attrs are the attributes of the function call being expanded.
	attrs  map[string]attr
	prefix string // of names inside an expanded function
}

// graph translates a GraphProto.
func (b *builder) graph(msg []byte) error {
	if b.depth > maxDepth {
		return fmt.Errorf("graphs are nested deeper than %d", maxDepth)
	}
	const what = "graph"
	// Constants first: nodes refer to them, and files hold them behind.
	err := eachField(msg, what, func(f field) (err error) {
		switch f.num {
		case 2:
			b.g.Name, err = f.text(what)
		case 5:
			var m []byte
			if m, err = f.message(what); err != nil {
				return err
			}
			p, err := parseTensor(m)
			if err != nil {
				return err
			}
			k, err := p.constant(b.r)
			if err != nil {
				return err
			}
			return b.constant(p.name, k)
		case 15:
			var m []byte
			if m, err = f.message(what); err != nil {
				return err
			}
			name, k, err := parseSparse(m, b.r)
			if err != nil {
				return err
			}
			return b.constant(name, k)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = eachField(msg, what, func(f field) error {
		if f.num != 11 {
			return nil
		}
		m, err := f.message(what)
		if err != nil {
			return err
		}
		return b.input(m)
	})
	if err != nil {
		return err
	}
	if err := b.nodes(msg, 1); err != nil {
		return err
	}
	return eachField(msg, what, func(f field) error {
		if f.num != 12 {
			return nil
		}
		m, err := f.message(what)
		if err != nil {
			return err
		}
		return b.output(m)
	})
}

func (b *builder) constant(name string, k *model.Const) error {
	if name == "" {
		return fmt.Errorf("an initializer has no name")
	}
	if err := b.r.mem.Keep(constBytes + storeBytes + len(name) + 8*len(k.Shape)); err != nil {
		return err
	}
	if b.scope.values[name] != nil {
		return fmt.Errorf("two initializers have the name %q", name)
	}
	b.scope.values[name] = &model.Value{Name: name, DType: k.DType, Shape: k.Shape, Const: k}
	return nil
}

// valueType is a parsed TypeProto.
type valueType struct {
	kind  model.ValueType
	dtype model.DType
	shape model.Shape
	dims  []string
}

func parseType(msg []byte, depth int) (valueType, error) {
	t := valueType{shape: ops.Unranked()}
	const what = "type"
	if depth > maxDepth {
		return t, fmt.Errorf("types are nested deeper than %d", maxDepth)
	}
	err := eachField(msg, what, func(f field) error {
		m, err := f.message(what)
		if f.num == 6 {
			return nil
		}
		if err != nil {
			return err
		}
		switch f.num {
		case 1:
			return eachField(m, what, func(f field) (err error) {
				switch f.num {
				case 1:
					var c int64
					if c, err = f.integer(what); err == nil && c != 0 {
						t.dtype, err = dtypeOf(c)
					}
				case 2:
					var s []byte
					if s, err = f.message(what); err == nil {
						t.shape, t.dims, err = parseShape(s)
					}
				}
				return err
			})
		case 4, 9:
			return eachField(m, what, func(g field) error {
				if g.num != 1 {
					return nil
				}
				e, err := g.message(what)
				if err != nil {
					return err
				}
				in, err := parseType(e, depth+1)
				t = in
				t.kind = model.TypeSequence
				if f.num == 9 {
					t.kind = model.TypeOptional
				}
				t.shape, t.dims = ops.Unranked(), nil
				return err
			})
		case 5, 7, 8:
			return fmt.Errorf("map, sparse and opaque types are not supported")
		}
		return nil
	})
	return t, err
}

func parseShape(msg []byte) (model.Shape, []string, error) {
	shape, dims := model.Shape{}, []string{}
	named := false
	const what = "shape"
	err := eachField(msg, what, func(f field) error {
		if f.num != 1 {
			return nil
		}
		m, err := f.message(what)
		if err != nil {
			return err
		}
		d, name := int64(-1), ""
		err = eachField(m, what, func(f field) (err error) {
			switch f.num {
			case 1:
				if d, err = f.integer(what); err == nil && d > 1<<48 {
					err = fmt.Errorf("dimension %d is out of range", d)
				}
			case 2:
				name, err = f.text(what)
			}
			return err
		})
		if d < 0 {
			d = -1
			if name == "" {
				name = "?"
			}
		}
		shape, dims = append(shape, int(d)), append(dims, name)
		named = named || name != ""
		if len(shape) > maxRank {
			return fmt.Errorf("more than %d dimensions", maxRank)
		}
		return err
	})
	if !named {
		dims = nil
	}
	return shape, dims, err
}

func parseValueInfo(msg []byte) (name string, t valueType, err error) {
	t.shape = ops.Unranked()
	const what = "value"
	err = eachField(msg, what, func(f field) (err error) {
		switch f.num {
		case 1:
			name, err = f.text(what)
		case 2:
			var m []byte
			if m, err = f.message(what); err == nil {
				t, err = parseType(m, 0)
			}
		}
		return err
	})
	if err != nil && name != "" {
		err = fmt.Errorf("value %q: %w", name, err)
	}
	return name, t, err
}

// isBatch tells whether an unknown dimension is the batch: the first one of a
// tensor of rank two or more, unless it is named otherwise, or one named so.
func isBatch(name string, axis, rank int) bool {
	n := strings.ToLower(name)
	if strings.HasPrefix(n, "batch") || n == "n" || n == "b" || n == "bs" || n == "bsz" {
		return true
	}
	return axis == 0 && rank >= 2 && (n == "?" || n == "none" || strings.HasPrefix(n, "unk__"))
}

func (b *builder) input(msg []byte) error {
	name, t, err := parseValueInfo(msg)
	if err != nil {
		return err
	}
	if name == "" {
		return fmt.Errorf("an input has no name")
	}
	if err := b.r.mem.Keep(constBytes + len(msg)); err != nil {
		return err
	}
	if v := b.scope.values[name]; v != nil {
		if v.Const != nil {
			return nil // an initializer listed among the inputs, as IR 3 demands
		}
		return fmt.Errorf("two inputs have the name %q", name)
	}
	v := &model.Value{Name: name, DType: t.dtype, Shape: t.shape, Type: t.kind, Dims: t.dims}
	if b.depth > 0 {
		v.Dims = nil // the node that holds the block decides its shapes
	}
	if b.depth == 0 && t.dtype == model.Invalid {
		return fmt.Errorf("input %q has no element type", name)
	}
	if b.depth == 0 {
		if want, ok := b.r.opts.Shapes[name]; ok {
			if len(want) != len(v.Shape) && !ops.IsUnranked(v.Shape) {
				return fmt.Errorf("input %q has shape %v, the shape %v given for it has another rank", name, v.Shape, model.Shape(want))
			}
			if model.Shape(want).Elems() < 0 {
				return fmt.Errorf("the shape %v given for input %q is not valid", model.Shape(want), name)
			}
			v.Shape = append(model.Shape{}, want...)
		}
		for i, d := range v.Shape {
			if d == -1 && i < len(v.Dims) && isBatch(v.Dims[i], i, len(v.Shape)) {
				v.Shape[i] = 1
			}
		}
	}
	b.scope.values[name] = v
	b.g.Inputs = append(b.g.Inputs, v)
	return nil
}

func (b *builder) output(msg []byte) error {
	name, _, err := parseValueInfo(msg)
	if err != nil {
		return err
	}
	v := b.scope.find(name)
	if v == nil {
		return fmt.Errorf("output %q of graph %q is produced by no node", name, b.g.Name)
	}
	if v.Name != name && v.Producer != nil {
		// A rewrite answered with an existing value: outputs keep their names.
		v2, err := b.emit("Identity", name, []*model.Value{v}, nil, name)
		if err != nil {
			return err
		}
		v = v2[0]
	}
	b.g.Outputs = append(b.g.Outputs, v)
	return nil
}

// nodes translates the nodes that stand in field num of a graph, putting them
// into topological order if need be.
func (b *builder) nodes(graph []byte, num protowire.Number) error {
	defer b.r.mem.Passed(b.r.mem.Passing())
	var waiting []*nodeProto
	err := eachField(graph, "graph", func(f field) error {
		if f.num != num {
			return nil
		}
		m, err := f.message("graph")
		if err != nil {
			return err
		}
		before := b.r.mem.Passing()
		n, err := b.r.parseNode(m)
		if err != nil {
			return err
		}
		if len(waiting) > 0 || b.missing(n) != "" {
			waiting = append(waiting, n)
			return b.r.mem.Pass(waitingBytes)
		}
		err = b.node(n)
		b.r.mem.Passed(before)
		return err
	})
	if err != nil || len(waiting) == 0 {
		return err
	}
	return b.unsorted(waiting)
}

// missing names an input that is not known yet; "" if all are.
func (b *builder) missing(n *nodeProto) string {
	for _, in := range n.inputs {
		if in != "" && b.scope.find(in) == nil {
			return in
		}
	}
	return ""
}

// unsorted translates nodes that the file does not hold in order.
func (b *builder) unsorted(ns []*nodeProto) error {
	maker := map[string]int{}
	for i, n := range ns {
		for _, o := range n.outputs {
			if o != "" {
				maker[o] = i
			}
		}
	}
	left := make([]int, len(ns))
	users := make([][]int, len(ns))
	for i, n := range ns {
		seen := map[int]bool{}
		need := func(name string) {
			if j, ok := maker[name]; ok && j != i && !seen[j] {
				seen[j] = true
				left[i]++
				users[j] = append(users[j], i)
			}
		}
		for _, in := range n.inputs {
			need(in)
		}
		for _, a := range n.attrs {
			if a.typ == attrGraph {
				if err := b.r.freeNames(a.msg, 0, need); err != nil {
					return err
				}
			}
		}
	}
	var ready []int
	for i := range ns {
		if left[i] == 0 {
			ready = append(ready, i)
		}
	}
	done := 0
	for len(ready) > 0 {
		i := ready[0]
		ready = ready[1:]
		if m := b.missing(ns[i]); m != "" {
			return fmt.Errorf("node %q (%s) reads %q, which nothing produces", ns[i].label(), ns[i].fullOp(), m)
		}
		if err := b.node(ns[i]); err != nil {
			return err
		}
		done++
		for _, u := range users[i] {
			if left[u]--; left[u] == 0 {
				ready = append(ready, u)
			}
		}
	}
	if done != len(ns) {
		for i, n := range ns {
			if left[i] > 0 {
				return fmt.Errorf("the graph has a cycle through node %q (%s)", n.label(), n.fullOp())
			}
		}
	}
	return nil
}

// freeNames reports every name that nodes of a graph read.
func (r *reader) freeNames(msg []byte, depth int, need func(string)) error {
	defer r.mem.Passed(r.mem.Passing())
	if depth > maxDepth {
		return fmt.Errorf("graphs are nested deeper than %d", maxDepth)
	}
	return eachField(msg, "graph", func(f field) error {
		if f.num == 12 && f.typ == protowire.BytesType {
			name, _, err := parseValueInfo(f.bytes)
			need(name)
			return err
		}
		if f.num != 1 || f.typ != protowire.BytesType {
			return nil
		}
		before := r.mem.Passing()
		n, err := r.parseNode(f.bytes)
		if err != nil {
			return err
		}
		defer r.mem.Passed(before)
		for _, in := range n.inputs {
			need(in)
		}
		for _, a := range n.attrs {
			if a.typ == attrGraph {
				if err := r.freeNames(a.msg, depth+1, need); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
