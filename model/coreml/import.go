package coreml

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"google.golang.org/protobuf/encoding/protowire"
)

func fieldNumber(n int) protowire.Number { return protowire.Number(n) }

// Keys of Graph.Meta that the reader sets and the writer understands.
const (
	// MetaSpec is the specification version, "6" to "9".
	MetaSpec = "coreml.spec"
	// MetaTarget is its operating system, "iOS15" to "iOS18".
	MetaTarget = "coreml.target"
	// MetaFunction is the function that was read, MetaFunctions all of them.
	MetaFunction  = "coreml.function"
	MetaFunctions = "coreml.functions"
	// MetaClasses holds the labels of a classifier as a JSON list, MetaLabel
	// the name of its label output and MetaProbabilities that of its
	// probabilities. The graph's output is the tensor of probabilities.
	MetaClasses       = "coreml.classes"
	MetaLabel         = "coreml.label"
	MetaProbabilities = "coreml.probabilities"
	// MetaImage + the name of an input or output describes an image:
	// "RGB 224x224" (colour space, width x height).
	MetaImage = "coreml.image."
	// MetaShapes + the name of an input says which shapes it may take:
	// "[1,3,64..512,64..512]" or "[1,3,64,64] [1,3,128,128]".
	MetaShapes = "coreml.shapes."
	// MetaState + the name of a state is the name of the graph output that
	// holds its new value; the state itself is a graph input.
	MetaState = "coreml.state."
	// MetaInfo + one of shortDescription, version, author, license, or
	// user.KEY is the model's metadata.
	MetaInfo = "coreml.meta."
)

// importError is thrown by the translation of one operation and turned into an
// error by its caller.
type importError struct{ err error }

func failf(format string, args ...any) {
	panic(importError{fmt.Errorf(format, args...)})
}

func try(err error) {
	if err != nil {
		panic(importError{err})
	}
}

// entry is what a name of the program stands for.
type entry struct {
	v    *model.Value // a tensor
	list []*value     // a constant list (class labels)
	// state is the name of a state, for a function input of that type.
	state string
	// whole is set on the non-zero values that constexpr_lut_to_sparse and
	// constexpr_sparse_blockwise_shift_scale give: the dense constant that
	// constexpr_sparse_to_dense makes of them.
	whole *model.Const
	// dict marks the second output of classify.
	dict bool
}

// importer translates one function.
type importer struct {
	spec  *specModel
	file  func(string) ([]byte, error)
	blobs map[string]*blobFile
	// tensors caches blobs: one place in a file is one constant.
	tensors map[blobKey]*model.Const

	g      *model.Graph
	nodes  *[]*model.Node
	scopes []map[string]*entry
	infer  *ops.Inferer
	used   map[string]bool         // names of values in the graph
	next   map[string]int          // next suffix to try for a name
	out    map[*model.Value]bool   // the graph's outputs
	count  int                     // nodes made, blocks included
	known  int                     // bytes of infer's values that the budget counts
	state  map[string]*model.Value // current value of every state
	states []string
	depth  int
}

type blobKey struct {
	file string
	off  uint64
	typ  model.DType
	// shape is the shape as text: one blob may serve constants of several
	// shapes.
	shape string
}

func importModel(m *specModel, file func(string) ([]byte, error), o Options) (*model.Graph, error) {
	name, fn, desc, err := m.choose(o.Function)
	if err != nil {
		return nil, err
	}
	im := &importer{
		spec: m, file: file,
		blobs: map[string]*blobFile{}, tensors: map[blobKey]*model.Const{},
		g:     &model.Graph{Format: "coreml", Opset: fn.opset, Meta: map[string]string{}},
		infer: ops.NewInferer(), used: map[string]bool{}, next: map[string]int{}, out: map[*model.Value]bool{}, state: map[string]*model.Value{},
	}
	im.nodes = &im.g.Nodes
	if want := opsetOf[m.version]; fn.opset != want && !slices.Contains([]string{"CoreML5", "CoreML6", "CoreML7", "CoreML8"}, fn.opset) {
		return nil, fmt.Errorf("function %s has opset %s (want %s)", quote(name), quote(fn.opset), want)
	}
	im.meta(name, desc)
	err = im.run(func() {
		im.inputs(fn, desc, o)
		im.block(fn.block)
		im.outputs(fn)
	})
	if err != nil {
		return nil, fmt.Errorf("function %s: %w", quote(name), err)
	}
	im.nameConsts()
	if err := im.g.Validate(false); err != nil {
		return nil, err
	}
	return im.g, nil
}

// nameConsts gives constants names that nothing else has: those of the program
// where they are free.
func (im *importer) nameConsts() {
	for _, v := range im.g.Consts() {
		v.Name = im.fresh(v.Name)
	}
}

// run calls f and returns what it threw.
func (im *importer) run(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(importError)
			if !ok {
				panic(r)
			}
			err = e.err
		}
	}()
	f()
	return nil
}

func (im *importer) meta(name string, desc *description) {
	m := im.g.Meta
	m[MetaSpec] = strconv.Itoa(im.spec.version)
	m[MetaTarget] = osOf[im.spec.version]
	if len(im.spec.program.names) > 1 || name != "main" {
		m[MetaFunction] = name
		m[MetaFunctions] = strings.Join(im.spec.program.names, ",")
	}
	for _, kv := range im.spec.desc.meta {
		m[MetaInfo+kv.key] = kv.value
	}
	for _, f := range slices.Concat(desc.inputs, desc.outputs) {
		if f.kind == featureImage {
			m[MetaImage+f.name] = fmt.Sprintf("%s %dx%d", colorNames[f.image.color], f.image.width, f.image.height)
		}
		if s := flexibility(f); s != "" {
			m[MetaShapes+f.name] = s
		}
	}
	if desc.predicted != "" {
		m[MetaLabel] = desc.predicted
	}
	if desc.probabilities != "" {
		m[MetaProbabilities] = desc.probabilities
	}
}

// flexibility formats the shapes a feature may take; empty if there is one.
func flexibility(f feature) string {
	var parts []string
	span := func(r [2]int) string {
		switch {
		case r[1] < 0:
			return fmt.Sprintf("%d..", r[0])
		case r[0] == r[1]:
			return strconv.Itoa(r[0])
		}
		return fmt.Sprintf("%d..%d", r[0], r[1])
	}
	switch f.kind {
	case featureArray:
		for _, s := range f.array.enumerated {
			parts = append(parts, model.Shape(s).String())
		}
		if f.array.ranges != nil {
			var d []string
			for _, r := range f.array.ranges {
				d = append(d, span(r))
			}
			parts = append(parts, "["+strings.Join(d, ",")+"]")
		}
	case featureImage:
		c := strconv.Itoa(f.image.channels())
		for _, s := range f.image.enumerated {
			parts = append(parts, fmt.Sprintf("[1,%s,%d,%d]", c, s[1], s[0]))
		}
		if r := f.image.ranges; r != nil {
			parts = append(parts, fmt.Sprintf("[1,%s,%s,%s]", c, span(r[1]), span(r[0])))
		}
	}
	return strings.Join(parts, " ")
}

// allows reports whether the description of an input admits a shape.
func (f feature) allows(s []int) bool {
	fits := func(d []int, r [][2]int) bool {
		if len(d) != len(r) {
			return false
		}
		for i, n := range d {
			if n < r[i][0] || r[i][1] >= 0 && n > r[i][1] {
				return false
			}
		}
		return true
	}
	switch f.kind {
	case featureArray:
		return slices.ContainsFunc(f.array.enumerated, func(e []int) bool { return slices.Equal(e, s) }) ||
			f.array.ranges != nil && fits(s, f.array.ranges) || slices.Equal(f.array.shape, s)
	case featureImage:
		if len(s) != 4 || s[0] != 1 || s[1] != f.image.channels() {
			return false
		}
		h, w := s[2], s[3]
		for _, e := range f.image.enumerated {
			if e[0] == w && e[1] == h {
				return true
			}
		}
		r := f.image.ranges
		return r != nil && fits([]int{w, h}, r) || w == f.image.width && h == f.image.height
	}
	return false
}

// defaultShape is the shape a description gives an input of flexible shape;
// nil if it gives none.
func (f feature) defaultShape() []int {
	switch f.kind {
	case featureArray:
		switch {
		case len(f.array.shape) > 0:
			return f.array.shape
		case len(f.array.enumerated) > 0:
			return f.array.enumerated[0]
		case f.array.ranges != nil:
			s := make([]int, len(f.array.ranges))
			for i, r := range f.array.ranges {
				s[i] = r[0]
			}
			return s
		}
	case featureImage:
		w, h := f.image.width, f.image.height
		if w == 0 && len(f.image.enumerated) > 0 {
			w, h = f.image.enumerated[0][0], f.image.enumerated[0][1]
		} else if w == 0 && f.image.ranges != nil {
			w, h = f.image.ranges[0][0], f.image.ranges[1][0]
		}
		return []int{1, f.image.channels(), h, w}
	}
	return nil
}

func (im *importer) inputs(fn *function, desc *description, o Options) {
	scope := map[string]*entry{}
	im.scopes = append(im.scopes, scope)
	for _, name := range sortedKeys(o.Shapes) {
		if !slices.ContainsFunc(fn.inputs, func(n named) bool { return n.name == name }) {
			failf("a shape is given for %s, which is no input (inputs: %s)", quote(name), inputNames(fn))
		}
	}
	// The file's order of function inputs is that of the description in what
	// coremltools writes; the description is what users see.
	list := slices.Clone(fn.inputs)
	described := make(map[string]feature, len(desc.inputs))
	rank := make(map[string]int, len(desc.inputs))
	for i, f := range desc.inputs {
		described[f.name], rank[f.name] = f, i-len(desc.inputs)
	}
	sort.SliceStable(list, func(i, j int) bool { return rank[list[i].name] < rank[list[j].name] })
	for _, n := range list {
		if scope[n.name] != nil {
			failf("two inputs named %s", quote(n.name))
		}
		t := n.typ
		if t.kind == kindState {
			t = *t.elem
			if t.kind != kindTensor || !t.shape.Known() {
				failf("state %s is a %s (want a tensor of fixed shape)", quote(n.name), t)
			}
			v := im.input(n.name, t.dtype, t.shape)
			scope[n.name] = &entry{state: n.name}
			im.state[n.name] = v
			im.states = append(im.states, n.name)
			continue
		}
		if t.kind != kindTensor {
			failf("input %s is a %s (want a tensor)", quote(n.name), t)
		}
		shape := t.shape.Clone()
		f := described[n.name]
		if want, ok := o.Shapes[n.name]; ok {
			shape = pick(n.name, t, f, want)
		} else if t.vary || !shape.Known() {
			d := f.defaultShape()
			if d == nil {
				failf("input %s has the flexible shape %v and no default; give one with --shape %s=...", quote(n.name), shape, n.name)
			}
			shape = pick(n.name, t, f, d)
		}
		if shape.Elems() < 0 || t.dtype.Bytes(max(shape.Elems(), 0)) > maxTensor {
			failf("input %s of shape %v is too large", quote(n.name), shape)
		}
		v := im.input(n.name, t.dtype, shape)
		scope[n.name] = &entry{v: v}
		if s := flexibility(f); s != "" && !t.shape.Known() {
			v.Dims = make([]string, len(shape))
			for i, d := range t.shape {
				if d < 0 && i < len(v.Dims) {
					v.Dims[i] = fmt.Sprintf("%s_%d", n.name, i)
				}
			}
		}
	}
}

// maxTensor bounds one tensor that a program declares, in bytes: more than any
// device of the catalogue has memory for.
const maxTensor = 64 << 30

// pick checks a shape for an input against its declared type and description.
func pick(name string, t valueType, f feature, want []int) model.Shape {
	ok := t.vary || len(want) == len(t.shape)
	if ok && !t.vary {
		for i, d := range t.shape {
			if d >= 0 && d != want[i] {
				ok = false
			}
		}
	}
	fixed := t.shape.Known() && !t.vary
	if ok && !fixed && (f.kind == featureArray || f.kind == featureImage) {
		ok = f.allows(want)
	}
	for _, d := range want {
		ok = ok && d >= 0
	}
	if !ok {
		accepts := flexibility(f)
		if fixed || accepts == "" {
			accepts = t.shape.String()
		}
		failf("input %s cannot have shape %v; it takes %s", quote(name), model.Shape(want), accepts)
	}
	return model.Shape(want).Clone()
}

func inputNames(fn *function) string {
	var s []string
	for _, n := range fn.inputs {
		s = append(s, n.name)
	}
	return strings.Join(s, ", ")
}

func sortedKeys[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

func (im *importer) input(name string, d model.DType, s model.Shape) *model.Value {
	v := &model.Value{Name: name, DType: d, Shape: s}
	im.used[name] = true
	im.g.Inputs = append(im.g.Inputs, v)
	return v
}

// outputs sets the graph's outputs: those of the block, then the new values of
// the states.
func (im *importer) outputs(fn *function) {
	for _, name := range fn.block.outputs {
		e := im.lookup(name)
		switch {
		case e.v != nil:
			if im.out[e.v] && e.v.Name == name {
				continue
			}
			im.output(im.named(e.v, name))
		case e.dict || e.list != nil:
			// A label or a dictionary; classify has put the probabilities
			// into the scope under the dictionary's name.
		default:
			failf("output %s is not a tensor", quote(name))
		}
	}
	for _, s := range im.states {
		v := im.state[s]
		if slices.Contains(im.g.Inputs, v) {
			continue // never written
		}
		out := im.named(v, im.fresh(s+"_out"))
		im.output(out)
		im.g.Meta[MetaState+s] = out.Name
	}
	if len(im.g.Outputs) == 0 {
		failf("no output")
	}
}

func (im *importer) output(v *model.Value) {
	im.g.Outputs = append(im.g.Outputs, v)
	im.out[v] = true
}

// named returns v under the given name, through an Identity where v is an
// input, a constant, or has another name already.
func (im *importer) named(v *model.Value, name string) *model.Value {
	if v.Name == name && v.Producer != nil && !im.out[v] {
		return v
	}
	out := &model.Value{Name: name}
	if im.used[name] {
		out.Name = im.fresh(name + "_out")
	}
	im.used[out.Name] = true
	im.add(&model.Node{Name: out.Name, Op: "Identity", Inputs: []*model.Value{v}, Outputs: []*model.Value{out}})
	return out
}

// fresh returns a name that no value has.
func (im *importer) fresh(base string) string {
	name := base
	for im.used[name] {
		im.next[base]++
		name = base + "_" + strconv.Itoa(im.next[base])
	}
	im.used[name] = true
	return name
}

// maxNodes bounds the graph: nested loops are unrolled once a level.
const maxNodes = 1 << 20

// add appends a node and infers its outputs.
func (im *importer) add(n *model.Node) {
	for _, v := range n.Outputs {
		if v != nil {
			v.Producer = n
		}
	}
	if im.count++; im.count > maxNodes {
		failf("more than %d operators", maxNodes)
	}
	im.keep(nodeBytes + len(n.Name) + 8*len(n.Inputs) + outBytes*len(n.Outputs))
	if err := im.infer.Node(n); err != nil {
		panic(importError{fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "ops: "))})
	}
	more := im.infer.Remembered() - im.known
	im.known += more
	im.keep(more)
	for _, v := range n.Outputs {
		if v != nil {
			im.keep(8*len(v.Shape) + len(v.Name))
		}
	}
	*im.nodes = append(*im.nodes, n)
}

func (im *importer) lookup(name string) *entry {
	for i := len(im.scopes) - 1; i >= 0; i-- {
		if e := im.scopes[i][name]; e != nil {
			return e
		}
	}
	failf("%s is read before anything defines it", quote(name))
	return nil
}

func (im *importer) define(name string, e *entry) {
	s := im.scopes[len(im.scopes)-1]
	if s[name] != nil {
		failf("two values named %s", quote(name))
	}
	s[name] = e
}

// block translates the operations of a block into im.nodes.
func (im *importer) block(b *block) {
	try(im.spec.dec.operations(b, func(i int, op *operation) error {
		if err := im.run(func() { im.operation(op) }); err != nil {
			return fmt.Errorf("operation %d %s (%s): %w", i, quote(op.name()), plain(op.typ), err)
		}
		return nil
	}))
}

// What the parts of a graph take in memory, in bytes, for the budget.
const (
	nodeBytes  = 150 // a model.Node in its lists
	outBytes   = 260 // a model.Value under its name
	constBytes = 420 // a constant under its name, its values excluded
)

// keep counts memory that stays with the graph.
func (im *importer) keep(n int) { try(im.spec.dec.mem.Keep(n)) }

func (im *importer) operation(op *operation) {
	c := &call{im: im, op: op}
	switch {
	case op.typ == "const":
		c.constant()
		return
	case strings.HasPrefix(op.typ, "constexpr_"):
		c.constexpr()
		return
	}
	h := handlers[op.typ]
	if h == nil {
		failf("operation %s is not supported (docs/operators.md lists what is)", quote(op.typ))
	}
	h(c)
	c.finish()
}

// constOf returns the constant that a value of the program holds.
func (im *importer) constOf(v *value) *model.Const {
	if !v.blob {
		im.keep(constBytes)
		t, err := v.tensor(im.spec.dec.mem)
		try(err)
		return model.NewConst(t)
	}
	if v.typ.kind != kindTensor || !v.typ.shape.Known() {
		failf("a constant in a weight file has type %s", v.typ)
	}
	key := blobKey{v.file, v.off, v.typ.dtype, v.typ.shape.String()}
	if c := im.tensors[key]; c != nil {
		im.keep(outBytes)
		return c
	}
	im.keep(constBytes)
	b := im.blob(v.file)
	t, err := b.tensor(v.off, v.typ.dtype, v.typ.shape)
	try(err)
	c := model.NewConst(t)
	im.tensors[key] = c
	return c
}

// blob opens a weight file once.
func (im *importer) blob(name string) *blobFile {
	if b := im.blobs[name]; b != nil {
		return b
	}
	rel, ok := strings.CutPrefix(name, "@model_path/")
	if !ok {
		failf("weight file %s is not below @model_path", quote(name))
	}
	try(localPath(path.Clean(rel)))
	if im.file == nil {
		failf("weight file %s: a specification without its package has no weights", quote(name))
	}
	data, err := im.file(rel)
	try(err)
	b, err := openBlob(data)
	try(err)
	im.spec.dec.mem.Allow(len(data))
	im.blobs[name] = b
	return b
}

func (im *importer) metaClasses(list []*value) {
	labels := make([]any, 0, len(list))
	for _, v := range list {
		t, err := v.tensor(im.spec.dec.mem)
		try(err)
		switch {
		case t.Len() != 1:
			failf("a class label with %d values", t.Len())
		case t.DType == model.String:
			labels = append(labels, t.Strings[0])
		case t.DType.IsInt():
			labels = append(labels, t.IntAt(0))
		default:
			failf("a class label of type %s (want a string or an integer)", t.DType)
		}
	}
	b, err := json.Marshal(labels)
	try(err)
	im.g.Meta[MetaClasses] = string(b)
}
