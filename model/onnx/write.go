package onnx

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// The limits of one protobuf message, and from which size on an initializer
// goes to the data file of a model beyond it.
const (
	maxMessage = 1<<31 - 1<<20
	minOutside = 1 << 10
	alignData  = 64
)

// Write writes a graph as one ONNX file. Compressed weights are written as
// codes with a DequantizeLinear where ONNX can say that (integer codes with
// scales per tensor, per channel or in blocks along one axis); palettes and
// sparse weights, which it cannot, are written decompressed. Activations of
// int8 codes are written as uint8, unless an ONNX file had them so. Operators
// beyond ONNX are written as the operators they stand for. The bytes depend on
// the graph only. Models of 2 GiB and more need [Save].
func Write(w io.Writer, g *model.Graph) error {
	m, err := layout(g, "")
	if err != nil {
		return fmt.Errorf("onnx: %w", err)
	}
	if err := m.writeTo(w, nil); err != nil {
		return fmt.Errorf("onnx: %w", err)
	}
	return nil
}

// Size returns the number of bytes [Write] writes, without computing the
// values of weights.
func Size(g *model.Graph) (int64, error) {
	m, err := layout(g, "")
	if err != nil {
		return 0, fmt.Errorf("onnx: %w", err)
	}
	return m.size, nil
}

// Save writes a graph to a file, through a temporary file beside it, so that
// nothing half-written stays. A model too large for one file gets its weights
// in PATH.data.
func Save(path string, g *model.Graph) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("onnx: %s: %w", filepath.Base(path), err)
		}
	}()
	m, err := layout(g, "")
	if err != nil {
		if _, large := err.(tooLarge); !large {
			return err
		}
		if m, err = layout(g, filepath.Base(path)+".data"); err != nil {
			return err
		}
	}
	create := func(name string) (*os.File, error) {
		return os.CreateTemp(filepath.Dir(path), "."+filepath.Base(name)+".*")
	}
	f, err := create(path)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var data *os.File
	var dw io.Writer
	if m.outside != "" {
		if data, err = create(m.outside); err != nil {
			return err
		}
		defer os.Remove(data.Name())
		defer data.Close()
		dw = data
	}
	if err := m.writeTo(f, dw); err != nil {
		return err
	}
	finish := func(f *os.File, to string) error {
		if err := f.Chmod(0o644); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		return os.Rename(f.Name(), to)
	}
	if data != nil {
		if err := finish(data, filepath.Join(filepath.Dir(path), m.outside)); err != nil {
			return err
		}
	}
	return finish(f, path)
}

type tooLarge struct{ size int64 }

func (e tooLarge) Error() string {
	return fmt.Sprintf("the model takes %d bytes, more than one protobuf file may have", e.size)
}

// message is a laid-out file: pieces whose lengths are known before the values
// of weights are.
type message struct {
	parts   []part
	size    int64
	outside string // data file; "" for none
	data    []part
}

// part is a piece of the file: bytes, or a constant's values.
type part struct {
	bytes []byte
	value func() ([]byte, error)
	size  int64 // of value
	pad   int64 // zeros before it (data file)
	name  string
}

func (m *message) writeTo(w, data io.Writer) error {
	put := func(w io.Writer, parts []part) error {
		b := bufio.NewWriterSize(w, 1<<16)
		for _, p := range parts {
			if p.pad > 0 {
				if _, err := b.Write(make([]byte, p.pad)); err != nil {
					return err
				}
			}
			v := p.bytes
			if p.value != nil {
				var err error
				if v, err = p.value(); err != nil {
					return fmt.Errorf("constant %q: %w", p.name, err)
				}
				if int64(len(v)) != p.size {
					return fmt.Errorf("constant %q has %d bytes, want %d", p.name, len(v), p.size)
				}
			}
			if _, err := b.Write(v); err != nil {
				return err
			}
		}
		return b.Flush()
	}
	if data != nil {
		if err := put(data, m.data); err != nil {
			return err
		}
	}
	return put(w, m.parts)
}

// writer turns a graph into messages.
type writer struct {
	opset    int
	training bool // the operators of ai.onnx.preview.training are used
	names    map[*model.Value]string
	taken    map[string]bool
	consts   []constant1
	seen     map[*model.Value]bool
	symbolic bool // an input has a symbolic dimension
}

// constant1 is an initializer to write.
type constant1 struct {
	name  string
	dtype model.DType
	shape model.Shape
	size  int64
	value func() ([]byte, error)
	text  []string // of a string tensor
}

// layout plans the file. With outside, initializers go to that file.
func layout(g *model.Graph, outside string) (*message, error) {
	if err := g.Validate(false); err != nil {
		return nil, err
	}
	g = unsigned(g)
	w := &writer{opset: 18, names: map[*model.Value]string{}, taken: map[string]bool{}, seen: map[*model.Value]bool{}}
	// Inputs and outputs keep their names before anything else takes them.
	for _, v := range slices.Concat(g.Inputs, g.Outputs) {
		w.name(v)
	}
	for _, v := range g.Inputs {
		for i, d := range v.Dims {
			w.symbolic = w.symbolic || d != "" && i < len(v.Shape) && keepsSymbol(v, i)
		}
	}
	body, outs, err := w.graph(g, true)
	if err != nil {
		return nil, err
	}
	var tail []byte // of the graph, after the initializers
	for _, v := range g.Inputs {
		tail = appendMessage(tail, 11, w.valueInfo(v, true))
	}
	for _, v := range outs {
		tail = appendMessage(tail, 12, w.valueInfo(v, false))
	}
	m := &message{outside: outside}
	graph := []part{{bytes: appendString(body, 2, g.Name)}}
	at := int64(0)
	for _, c := range w.consts {
		head := c.header()
		switch {
		case c.text != nil:
			for _, s := range c.text {
				head = appendMessage(head, 6, []byte(s))
			}
			graph = append(graph, part{bytes: appendMessage(nil, 5, head)})
		case outside != "" && c.size >= minOutside:
			pad := (alignData - at%alignData) % alignData
			at += pad
			m.data = append(m.data, part{value: c.value, size: c.size, pad: pad, name: c.name})
			for _, e := range [][2]string{{"location", outside}, {"offset", strconv.FormatInt(at, 10)}, {"length", strconv.FormatInt(c.size, 10)}} {
				head = appendMessage(head, 13, appendString(appendString(nil, 1, e[0]), 2, e[1]))
			}
			at += c.size
			graph = append(graph, part{bytes: appendMessage(nil, 5, appendInt(head, 14, 1))})
		default:
			head = protowire.AppendTag(head, 9, protowire.BytesType)
			head = protowire.AppendVarint(head, uint64(c.size))
			b := protowire.AppendTag(nil, 5, protowire.BytesType)
			b = protowire.AppendVarint(b, uint64(int64(len(head))+c.size))
			graph = append(graph, part{bytes: append(b, head...)}, part{value: c.value, size: c.size, name: c.name})
		}
	}
	graph = append(graph, part{bytes: tail})
	size := int64(0)
	for _, p := range graph {
		size += int64(len(p.bytes)) + p.size
	}
	ir := 8
	switch {
	case w.opset >= 21:
		ir = 10
	case w.opset >= 19:
		ir = 9
	}
	head := appendInt(nil, 1, int64(ir))
	head = appendString(head, 2, "triune")
	head = protowire.AppendTag(head, 7, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(size))
	opset := func(domain string, version int) []byte {
		var b []byte
		if domain != "" {
			b = appendString(b, 1, domain)
		}
		return appendInt(b, 2, int64(version))
	}
	end := appendMessage(nil, 8, opset("", w.opset))
	if w.training {
		end = appendMessage(end, 8, opset("ai.onnx.preview.training", 1))
	}
	for _, k := range slices.Sorted(maps.Keys(g.Meta)) {
		if p, ok := strings.CutPrefix(k, "prop:"); ok {
			end = appendMessage(end, 14, appendString(appendString(nil, 1, p), 2, g.Meta[k]))
		}
	}
	m.parts = slices.Concat([]part{{bytes: head}}, graph, []part{{bytes: end}})
	m.size = int64(len(head)) + size + int64(len(end))
	if m.size > maxMessage {
		return nil, tooLarge{m.size}
	}
	return m, nil
}

func (c *constant1) header() []byte {
	var b []byte
	for _, d := range c.shape {
		b = appendInt(b, 1, int64(d))
	}
	b = appendInt(b, 2, codeOf(c.dtype))
	return appendString(b, 8, c.name)
}

func appendMessage(b []byte, num protowire.Number, msg []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), msg)
}

func appendString(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendInt(b []byte, num protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(v))
}

func appendFloat(b []byte, num protowire.Number, v float64) []byte {
	return protowire.AppendFixed32(protowire.AppendTag(b, num, protowire.Fixed32Type), math.Float32bits(float32(v)))
}

// name gives a value its name in the file: its own, made unique.
func (w *writer) name(v *model.Value) string {
	if v == nil {
		return ""
	}
	if s, ok := w.names[v]; ok {
		return s
	}
	s := w.unique(cmp.Or(v.Name, "value"))
	w.names[v] = s
	return s
}

func (w *writer) unique(base string) string {
	s := base
	for i := 2; w.taken[s]; i++ {
		s = base + "_" + strconv.Itoa(i)
	}
	w.taken[s] = true
	return s
}

// keepsSymbol tells whether a dimension of an input is written as a symbol:
// when it is unknown, or a batch that the reader sets to 1.
func keepsSymbol(v *model.Value, i int) bool {
	return v.Shape[i] == -1 || v.Shape[i] == 1 && isBatch(v.Dims[i], i, len(v.Shape))
}

// valueInfo writes the name and type of a graph's input or output.
func (w *writer) valueInfo(v *model.Value, input bool) []byte {
	b := appendString(nil, 1, w.name(v))
	if t := w.valueType(v, input); t != nil {
		b = appendMessage(b, 2, t)
	}
	return b
}

func (w *writer) valueType(v *model.Value, input bool) []byte {
	code := codeOf(v.DType)
	if code == 0 {
		return nil
	}
	t := appendInt(nil, 1, code)
	if v.Type == model.TypeTensor && !ops.IsUnranked(v.Shape) {
		var shape []byte
		for i, d := range v.Shape {
			var dim []byte
			switch {
			case input && i < len(v.Dims) && v.Dims[i] != "" && keepsSymbol(v, i):
				if v.Dims[i] != "?" {
					dim = appendString(dim, 2, v.Dims[i])
				}
			case d < 0 || !input && w.symbolic: // follows from the inputs
			default:
				dim = appendInt(dim, 1, int64(d))
			}
			shape = appendMessage(shape, 1, dim)
		}
		t = appendMessage(t, 2, shape)
	}
	t = appendMessage(nil, 1, t)
	switch v.Type {
	case model.TypeSequence:
		return appendMessage(nil, 4, appendMessage(nil, 1, t))
	case model.TypeOptional:
		return appendMessage(nil, 9, appendMessage(nil, 1, t))
	}
	return t
}

// graph writes the nodes of a graph or block (field 1 each) and returns them
// with the names its outputs have.
func (w *writer) graph(g *model.Graph, top bool) (b []byte, outs []*model.Value, err error) {
	emit := func(n *model.Node) error {
		msg, err := w.node(n)
		b = appendMessage(b, 1, msg)
		return err
	}
	inside := map[*model.Value]bool{} // what may be an output as it is
	for _, v := range g.Inputs {
		inside[v] = top
	}
	for _, n := range g.Nodes {
		if err := beyond(n); err != nil {
			return nil, nil, err
		}
		for _, x := range w.expand(n) {
			for _, v := range constsOf(x, top) {
				pre, err := w.constant(v)
				if err != nil {
					return nil, nil, err
				}
				for _, d := range pre {
					if err := emit(d); err != nil {
						return nil, nil, err
					}
				}
			}
			if err := emit(x); err != nil {
				return nil, nil, err
			}
		}
		for _, v := range n.Outputs {
			inside[v] = true
		}
	}
	for _, v := range g.Outputs {
		if v.Const != nil && !w.seen[v] {
			if !top {
				// A constant that only the block gives: a node of its own.
				t, err := v.Const.Value()
				if err != nil {
					return nil, nil, fmt.Errorf("constant %q: %w", v.Name, err)
				}
				c := &model.Node{Name: w.name(v), Op: "Constant", Attrs: model.Attrs{"value": t}, Outputs: []*model.Value{v}}
				if err := emit(c); err != nil {
					return nil, nil, err
				}
				o := &model.Value{Name: v.Name, DType: v.DType, Shape: v.Shape}
				w.names[o] = w.names[v]
				delete(w.names, v)
				outs = append(outs, o)
				continue
			}
			pre, err := w.constant(v)
			if err != nil {
				return nil, nil, err
			}
			for _, d := range pre {
				if err := emit(d); err != nil {
					return nil, nil, err
				}
			}
		}
		if v.Const != nil {
			inside[v] = top
		}
		if inside[v] && !slices.Contains(outs, v) {
			outs = append(outs, v)
			continue
		}
		name := w.unique(w.name(v) + "_out")
		n := &model.Node{Name: name, Op: "Identity", Inputs: []*model.Value{v}}
		n.Outputs = []*model.Value{{Name: name, DType: v.DType, Shape: v.Shape, Type: v.Type, Producer: n}}
		w.names[n.Outputs[0]] = name
		if err := emit(n); err != nil {
			return nil, nil, err
		}
		outs = append(outs, n.Outputs[0])
	}
	return b, outs, nil
}

// constsOf lists the constants that a node, or with blocks a node of its
// blocks, reads.
func constsOf(n *model.Node, blocks bool) []*model.Value {
	var out []*model.Value
	for _, v := range n.Inputs {
		if v != nil && v.Const != nil {
			out = append(out, v)
		}
	}
	if blocks {
		for _, k := range slices.Sorted(maps.Keys(n.Blocks)) {
			for _, x := range n.Blocks[k].Nodes {
				out = append(out, constsOf(x, true)...)
			}
		}
	}
	return out
}

// typeAttrs are attributes that hold an element type by name in the graph and
// by number in the file.
var typeAttrs = map[string]bool{"to": true, "dtype": true, "output_dtype": true, "output_datatype": true}

// node writes a NodeProto.
func (w *writer) node(n *model.Node) ([]byte, error) {
	fail := func(format string, args ...any) ([]byte, error) {
		return nil, fmt.Errorf("node %q (%s): "+format, append([]any{n.Name, n.Op}, args...)...)
	}
	if n.Op != "Constant" && !ops.Supported(n.Op) {
		return fail("the operator is not in the vocabulary")
	}
	w.opset = max(w.opset, since(n))
	if w.opset > MaxOpset {
		return fail("ONNX has no such operator up to opset %d", MaxOpset)
	}
	var b []byte
	in := n.Inputs
	for len(in) > 0 && in[len(in)-1] == nil {
		in = in[:len(in)-1]
	}
	for _, v := range in {
		b = appendString(b, 1, w.name(v))
	}
	for _, v := range n.Outputs {
		b = appendString(b, 2, w.name(v))
	}
	b = appendString(b, 3, n.Name)
	b = appendString(b, 4, string(n.Op))
	keys := slices.Collect(maps.Keys(n.Attrs))
	for k := range n.Blocks {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	attrs := n.Attrs
	if n.Op == "Split" && n.In(1) == nil {
		keys, attrs = append(keys, "num_outputs"), maps.Clone(attrs)
		if attrs == nil {
			attrs = model.Attrs{}
		}
		attrs["num_outputs"] = len(n.Outputs)
		slices.Sort(keys)
	}
	for _, k := range keys {
		if n.Op == "Optional" && k == "type_kind" {
			continue
		}
		a, err := w.attr(n, k, attrs[k])
		if err != nil {
			return fail("attribute %s: %w", k, err)
		}
		b = appendMessage(b, 5, a)
	}
	if trainingOps[n.Op] {
		w.training = true
		b = appendString(b, 7, "ai.onnx.preview.training")
	}
	return b, nil
}

var trainingOps = map[model.Op]bool{"Adagrad": true, "Adam": true, "Momentum": true}

// attr writes an AttributeProto; an attribute without a value is a block.
func (w *writer) attr(n *model.Node, key string, value any) ([]byte, error) {
	b := appendString(nil, 1, key)
	kind := 0
	if s, ok := value.(string); ok && typeAttrs[key] {
		d, err := model.ParseDType(s)
		if s == "string" {
			d, err = model.String, nil
		}
		if err != nil {
			return nil, err
		}
		c := codeOf(d)
		if c == 0 {
			return nil, fmt.Errorf("ONNX has no type %s", d)
		}
		value = int(c)
	} else if ok && n.Op == "Optional" && key == "type" {
		d, err := model.ParseDType(s)
		if err != nil {
			return nil, err
		}
		v := &model.Value{DType: d, Shape: ops.Unranked(), Type: model.ValueType(n.Attrs.Int("type_kind", 0))}
		return appendInt(appendMessage(b, 14, w.valueType(v, true)), 20, attrType), nil
	}
	switch v := value.(type) {
	case float64:
		b, kind = appendFloat(b, 2, v), attrFloat
	case int:
		b, kind = appendInt(b, 3, int64(v)), attrInt
	case bool:
		x := int64(0)
		if v {
			x = 1
		}
		b, kind = appendInt(b, 3, x), attrInt
	case string:
		b, kind = appendString(b, 4, v), attrString
	case *model.Tensor:
		t, err := tensorBytes(v)
		if err != nil {
			return nil, err
		}
		b, kind = appendMessage(b, 5, t), attrTensor
	case []float64:
		var p []byte
		for _, x := range v {
			p = protowire.AppendFixed32(p, math.Float32bits(float32(x)))
		}
		b, kind = appendMessage(b, 7, p), attrFloats
	case []int:
		var p []byte
		for _, x := range v {
			p = protowire.AppendVarint(p, uint64(int64(x)))
		}
		b, kind = appendMessage(b, 8, p), attrInts
	case []string:
		for _, x := range v {
			b = appendString(b, 9, x)
		}
		kind = attrStrings
	case nil:
		g := n.Blocks[key]
		if g == nil {
			return nil, fmt.Errorf("it has no value")
		}
		nodes, outs, err := w.graph(g, false)
		if err != nil {
			return nil, err
		}
		nodes = appendString(nodes, 2, cmp.Or(g.Name, key))
		for _, v := range g.Inputs {
			nodes = appendMessage(nodes, 11, w.valueInfo(v, true))
		}
		for _, v := range outs {
			nodes = appendMessage(nodes, 12, w.valueInfo(v, false))
		}
		b, kind = appendMessage(b, 6, nodes), attrGraph
	default:
		return nil, fmt.Errorf("values of type %T cannot be written", v)
	}
	return appendInt(b, 20, int64(kind)), nil
}

// tensorBytes writes a small TensorProto whole.
func tensorBytes(t *model.Tensor) ([]byte, error) {
	if codeOf(t.DType) == 0 {
		return nil, fmt.Errorf("ONNX has no type %s", t.DType)
	}
	c := constant1{dtype: t.DType, shape: t.Shape}
	b := c.header()
	if t.DType == model.String {
		for _, s := range t.Strings {
			b = appendString(b, 6, s)
		}
		return b, nil
	}
	return appendMessage(b, 9, t.Data), nil
}

// since is the first opset that has a node's operator in the form it is
// written.
func since(n *model.Node) int {
	has := func(i int, ds ...model.DType) bool {
		v := n.In(i)
		return v != nil && slices.Contains(ds, v.DType)
	}
	switch n.Op {
	case "Gelu", "AffineGrid", "StringConcat", "StringSplit", "RegexFullMatch", "DFT", "GridSample":
		return 20
	case "DeformConv":
		return 19
	case "GroupNormalization":
		return 21
	case "RMSNormalization":
		return 23
	case "AveragePool", "LpPool":
		if n.Attrs["dilations"] != nil {
			return 19
		}
	case "Pad":
		if n.Attrs.String("mode", "") == "wrap" {
			return 19
		}
	case "Resize":
		if n.Attrs.String("coordinate_transformation_mode", "") == "half_pixel_symmetric" {
			return 19
		}
	case "Equal":
		if has(0, model.String) {
			return 19
		}
	case "ReduceMax", "ReduceMin":
		if has(0, model.Bool) {
			return 20
		}
	case "Cast", "CastLike":
		switch n.Attrs.String("to", "") {
		case "int4", "uint4":
			return 21
		case "fp8e4m3fn", "fp8e4m3fnuz", "fp8e5m2", "fp8e5m2fnuz":
			return 19
		}
		if has(0, model.Int4, model.UInt4) {
			return 21
		}
	case "QuantizeLinear", "DequantizeLinear":
		if n.Attrs.Int("block_size", 0) > 0 || n.Attrs["output_dtype"] != nil ||
			has(0, model.Int4, model.UInt4, model.Int16, model.UInt16) || has(2, model.Int4, model.UInt4, model.Int16, model.UInt16) {
			return 21
		}
		if has(1, model.Float16, model.BFloat16) {
			return 19
		}
	}
	return 18
}

// constant registers the initializers of a constant, once, and returns the
// nodes that compute it from them.
func (w *writer) constant(v *model.Value) ([]*model.Node, error) {
	if w.seen[v] {
		return nil, nil
	}
	w.seen[v] = true
	if a, ok := v.Const.Storage.(*model.Affine); ok {
		if n := w.dequantize(v, a); n != nil {
			for _, in := range n.Inputs {
				if _, err := w.constant(in); err != nil {
					return nil, err
				}
			}
			return []*model.Node{n}, nil
		}
	}
	c := v.Const
	if codeOf(c.DType) == 0 {
		return nil, fmt.Errorf("constant %q: ONNX has no type %s", v.Name, c.DType)
	}
	if c.Shape.Elems() < 0 {
		return nil, fmt.Errorf("constant %q has the unknown shape %v", v.Name, c.Shape)
	}
	out := constant1{name: w.name(v), dtype: c.DType, shape: c.Shape, size: c.DenseBytes()}
	if c.DType == model.String {
		t, err := c.Value()
		if err != nil {
			return nil, fmt.Errorf("constant %q: %w", v.Name, err)
		}
		out.text, out.size = append([]string{}, t.Strings...), 0
	} else {
		out.value = func() ([]byte, error) {
			t, err := c.Value()
			if err != nil {
				return nil, err
			}
			return t.Data, nil
		}
	}
	w.consts = append(w.consts, out)
	return nil, nil
}

// reshaped is a constant under another shape, or with its integers in another
// type.
type reshaped struct{ c *model.Const }

func (r reshaped) Form() model.Form   { return model.FormDense }
func (r reshaped) StoredBytes() int64 { return r.c.StoredBytes() }
func (r reshaped) Decode(d model.DType, s model.Shape) (*model.Tensor, error) {
	t, err := r.c.Value()
	if err != nil {
		return nil, err
	}
	if t.DType.IsFloat() && d.IsInt() {
		lo, hi, _ := d.IntRange()
		for i := range t.Len() {
			if x := t.At(i); x != math.Trunc(x) || x < float64(lo) || x > float64(hi) {
				return nil, fmt.Errorf("the zero point %g is no %s", x, d)
			}
		}
	}
	return t.Convert(d).Reshape(s...), nil
}

func view(c *model.Const, d model.DType, s model.Shape) *model.Const {
	return &model.Const{DType: d, Shape: s, Storage: reshaped{c}}
}

// dequantize returns the DequantizeLinear that an affine constant is, or nil
// where ONNX cannot say it.
func (w *writer) dequantize(v *model.Value, a *model.Affine) *model.Node {
	if a.Codes == nil || a.Scale == nil || a.Codes.Storage.Form() != model.FormDense || a.Scale.Storage.Form() != model.FormDense ||
		a.Zero != nil && a.Zero.Storage.Form() != model.FormDense || !a.Codes.Shape.Equal(v.Const.Shape) || a.Scale.DType != v.Const.DType ||
		len(a.Scale.Shape) != len(a.Codes.Shape) {
		return nil
	}
	code := a.Codes.DType
	switch code {
	case model.Int8, model.UInt8, model.Int4, model.UInt4, model.Int16, model.UInt16:
	case model.Int2:
		code = model.Int4
	case model.UInt1, model.UInt2, model.UInt3:
		code = model.UInt4
	case model.UInt6:
		code = model.UInt8
	default:
		return nil
	}
	if a.Zero != nil && a.Zero.DType.IsFloat() {
		// A zero point between codes has no form in ONNX.
		if _, err := view(a.Zero, code, a.Zero.Shape).Value(); err != nil {
			return nil
		}
	}
	// Which axes have more than one scale?
	axis, split := 0, 0
	for i, s := range a.Scale.Shape {
		if s > 1 {
			axis, split = i, split+1
		}
	}
	var attrs model.Attrs
	shape := model.Shape{}
	switch block := 0; {
	case split == 0:
	case split == 1 && a.Scale.Shape[axis] == a.Codes.Shape[axis]:
		attrs, shape = model.Attrs{"axis": axis}, model.Shape{a.Codes.Shape[axis]}
	default:
		axis = -1
		for i, s := range a.Scale.Shape {
			if s == a.Codes.Shape[i] {
				continue
			}
			if axis >= 0 || s < 1 || a.Codes.Shape[i]%s != 0 {
				return nil // blocks along two axes
			}
			axis, block = i, a.Codes.Shape[i]/s
		}
		if axis < 0 {
			return nil
		}
		attrs, shape = model.Attrs{"axis": axis, "block_size": block}, a.Scale.Shape
	}
	part := func(suffix string, c *model.Const) *model.Value {
		return &model.Value{Name: w.name(v) + suffix, DType: c.DType, Shape: c.Shape, Const: c}
	}
	n := &model.Node{Name: w.unique(w.name(v) + "/dequantize"), Op: "DequantizeLinear", Attrs: attrs, Outputs: []*model.Value{v}}
	n.Inputs = []*model.Value{part("/codes", view(a.Codes, code, a.Codes.Shape)), part("/scale", view(a.Scale, a.Scale.DType, shape))}
	if a.Zero != nil {
		n.Inputs = append(n.Inputs, part("/zero", view(a.Zero, code, shape)))
	}
	return n
}

// beyond reports what ONNX cannot say of a node and expand cannot spell out.
func beyond(n *model.Node) error {
	switch {
	case n.Op == "CropResize" || n.Op == "BoxSuppression":
	case n.Op == "LSTM" && n.Attrs["cell_clip"] != nil:
		return fmt.Errorf("node %q (LSTM): ONNX cannot clip the cell state; write an .mlpackage", n.Name)
	default:
		return nil
	}
	return fmt.Errorf("node %q: ONNX has no counterpart of %s; write an .mlpackage", n.Name, n.Op)
}

// expand returns the nodes that an operator beyond ONNX stands for; any other
// node is itself.
func (w *writer) expand(n *model.Node) []*model.Node {
	var out []*model.Node
	x := n.In(0)
	op := func(op model.Op, suffix string, attrs model.Attrs, in ...*model.Value) *model.Value {
		name := w.unique(cmp.Or(n.Name, w.name(n.Outputs[0])) + "/" + suffix)
		m := &model.Node{Name: name, Op: op, Inputs: in, Attrs: attrs}
		v := &model.Value{Name: name, DType: x.DType, Shape: x.Shape, Producer: m}
		w.names[v] = name
		m.Outputs = []*model.Value{v}
		out = append(out, m)
		return v
	}
	scalar := func(suffix string, f float64) *model.Value {
		t := model.NewTensor(x.DType)
		t.Shape = model.Shape{}
		t.Set(0, f)
		return &model.Value{Name: cmp.Or(n.Name, w.name(n.Outputs[0])) + "/" + suffix, DType: t.DType, Shape: t.Shape, Const: model.NewConst(t)}
	}
	// last makes the final node write the operator's own output.
	last := func() []*model.Node {
		m := out[len(out)-1]
		m.Name, m.Outputs = n.Name, n.Outputs
		return out
	}
	if x == nil {
		return []*model.Node{n}
	}
	switch n.Op {
	case "Swish":
		s := x
		if alpha := n.Attrs.Float("alpha", 1); alpha != 1 {
			s = op("Mul", "scaled", nil, x, scalar("alpha", alpha))
		}
		op("Mul", "product", nil, x, op("Sigmoid", "sigmoid", nil, s))
		return last()
	case "ScaledTanh":
		s := op("Tanh", "tanh", nil, op("Mul", "scaled", nil, x, scalar("beta", n.Attrs.Float("beta", 1))))
		op("Mul", "product", nil, s, scalar("alpha", n.Attrs.Float("alpha", 1)))
		return last()
	case "RMSNormalization":
		rank := len(x.Shape)
		axis := n.Attrs.Int("axis", -1)
		if axis < 0 {
			axis += rank
		}
		t := model.NewTensor(model.Int64, max(0, rank-axis))
		for i := range t.Len() {
			t.SetInt(i, int64(axis+i))
		}
		axes := &model.Value{Name: cmp.Or(n.Name, w.name(n.Outputs[0])) + "/axes", DType: t.DType, Shape: t.Shape, Const: model.NewConst(t)}
		mean := op("ReduceMean", "mean", nil, op("Mul", "square", nil, x, x), axes)
		dev := op("Sqrt", "deviation", nil, op("Add", "shifted", nil, mean, scalar("epsilon", n.Attrs.Float("epsilon", 1e-5))))
		op("Mul", "product", nil, op("Div", "normal", nil, x, dev), n.In(1))
		return last()
	}
	return []*model.Node{n}
}
