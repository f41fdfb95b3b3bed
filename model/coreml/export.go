package coreml

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/model"
)

// Target is the operating system that a package is written for: the newest
// operators and compressions it may use. Its value is the specification
// version.
type Target int

// The targets. The zero value means the oldest one that can express the graph.
const (
	TargetAuto Target = 0
	IOS16      Target = 7
	IOS17      Target = 8
	IOS18      Target = 9
)

// String returns "iOS16", "iOS17" or "iOS18".
func (t Target) String() string {
	if t == TargetAuto {
		return "auto"
	}
	if s, ok := osOf[int(t)]; ok {
		return s
	}
	return fmt.Sprintf("target(%d)", int(t))
}

// ParseTarget reads "iOS16", "iOS17", "iOS18" (any case) or "" for TargetAuto.
func ParseTarget(s string) (Target, error) {
	switch strings.ToLower(s) {
	case "", "auto":
		return TargetAuto, nil
	case "ios16":
		return IOS16, nil
	case "ios17":
		return IOS17, nil
	case "ios18":
		return IOS18, nil
	}
	return 0, fmt.Errorf("coreml: unknown target %s (want iOS16, iOS17 or iOS18)", quote(s))
}

// needTarget is thrown when the graph needs a newer target than tried.
type needTarget struct {
	want Target
	why  string
}

// blobOut is one blob of the weight file to be written. Data is nil when only
// sizes are wanted and the values do not exist yet.
type blobOut struct {
	dtype  model.DType
	elems  int64
	data   []byte
	offset uint64
}

func (b *blobOut) size() uint64 { return uint64(b.dtype.Bytes(b.elems)) }

// exporter writes a graph as the function main of an ML program.
type exporter struct {
	g      *model.Graph
	target Target
	// values is false when only the size is asked for: constants that are
	// computed at first use are then left alone.
	values bool

	ops       []*operation
	names     map[*model.Value]string
	used      map[string]bool
	titles    map[string]bool // names of operations
	next      map[string]int  // next suffix to try for a name
	consumers map[*model.Value][]*model.Node
	outputs   map[*model.Value]bool
	skip      map[*model.Node]bool // folded into another operation
	written   map[*model.Value]bool
	consts    map[model.Storage]map[string]string // constants by storage and type: their name
	places    map[placeKey]string                 // constants in the weight file: their name

	blobs  []*blobOut
	end    uint64 // of the weight file
	byHash map[uint64][]*blobOut
	byFrom map[blobSource]*blobOut
	zeros  map[string]*blobOut
	seed   maphash.Seed

	states map[*model.Value]bool // graph inputs that are states

	bias       map[*model.Node]*model.Node // products and the additions that become their bias
	transposed map[*model.Value]*model.Value
	direct     map[*model.Value]*model.Value // states of an LSTM without their direction axis
}

// placeKey identifies a constant by where its values lie.
type placeKey struct {
	off   uint64
	dtype model.DType
	shape string
}

// blobSource identifies a constant that was written already.
type blobSource struct {
	s     model.Storage
	dtype model.DType
}

const weightPath = "@model_path/weights/weight.bin"

// build translates a graph for a target. With TargetAuto it takes the oldest
// target that works.
func build(g *model.Graph, t Target, values bool) (*specModel, []*blobOut, error) {
	auto := t == TargetAuto
	if auto {
		t = IOS16
	}
	if t < IOS16 || t > IOS18 {
		return nil, nil, fmt.Errorf("target %s is not supported (want iOS16, iOS17 or iOS18)", t)
	}
	for {
		x := newExporter(g, t, values)
		m, need, err := x.run()
		if err != nil {
			return nil, nil, err
		}
		if need == nil {
			return m, x.blobs, nil
		}
		if !auto {
			return nil, nil, fmt.Errorf("%s needs target %s or later (target is %s)", need.why, need.want, t)
		}
		t = need.want
	}
}

func newExporter(g *model.Graph, t Target, values bool) *exporter {
	return &exporter{
		g: g, target: t, values: values,
		names: map[*model.Value]string{}, used: map[string]bool{}, titles: map[string]bool{}, next: map[string]int{},
		consumers: g.Consumers(), outputs: map[*model.Value]bool{}, skip: map[*model.Node]bool{},
		written: map[*model.Value]bool{}, consts: map[model.Storage]map[string]string{}, places: map[placeKey]string{},
		end: blobAlign, byHash: map[uint64][]*blobOut{}, byFrom: map[blobSource]*blobOut{}, zeros: map[string]*blobOut{},
		bias: map[*model.Node]*model.Node{}, transposed: map[*model.Value]*model.Value{}, direct: map[*model.Value]*model.Value{},
		seed: maphash.MakeSeed(), states: map[*model.Value]bool{},
	}
}

func (x *exporter) run() (m *specModel, need *needTarget, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case importError:
			err = r.err
		case needTarget:
			need = &r
		default:
			panic(r)
		}
	}()
	if err := x.g.Validate(true); err != nil {
		return nil, nil, err
	}
	m = x.program()
	return m, nil, nil
}

func (x *exporter) need(t Target, format string, args ...any) {
	if x.target < t {
		panic(needTarget{t, fmt.Sprintf(format, args...)})
	}
}

// ident makes a MIL identifier of a name: letters, digits and underscores,
// not starting with a digit.
func ident(s string) string {
	if s == "" {
		return "v"
	}
	ok := true
	for i := 0; i < len(s); i++ {
		if !identByte(s[i], i) {
			ok = false
			break
		}
	}
	if ok {
		return s
	}
	b := make([]byte, 0, len(s)+4)
	if s[0] >= '0' && s[0] <= '9' {
		b = append(b, "var_"...)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !identByte(c, 1) {
			c = '_'
		}
		b = append(b, c)
	}
	return string(b)
}

func identByte(c byte, i int) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || i > 0 && (c >= '0' && c <= '9' || c == '@')
}

// fresh returns an identifier that nothing has.
func (x *exporter) fresh(base string) string {
	base = ident(base)
	name := base
	for x.used[name] {
		x.next[base]++
		name = base + "_" + strconv.Itoa(x.next[base])
	}
	x.used[name] = true
	return name
}

// milType is the type a value has in the program: MIL's integers are int32.
func milDTypeOf(d model.DType) model.DType {
	if d == model.Int64 || d == model.UInt64 {
		return model.Int32
	}
	return d
}

func (x *exporter) program() *specModel {
	g := x.g
	fn := &function{opset: opsetOf[int(x.target)], block: &block{}}
	d := description{}
	for k, v := range g.Meta {
		if k, ok := strings.CutPrefix(k, MetaInfo); ok {
			d.meta = append(d.meta, keyValue{k, v})
		}
	}
	stateOut := map[string]string{} // state -> the output with its new value
	for _, k := range sortedKeys(g.Meta) {
		if s, ok := strings.CutPrefix(k, MetaState); ok {
			stateOut[s] = g.Meta[k]
		}
	}
	// Names of inputs and outputs are the user's: they come first.
	for _, v := range g.Inputs {
		x.names[v] = x.fresh(v.Name)
	}
	for _, v := range g.Outputs {
		x.outputs[v] = true
		if x.names[v] == "" {
			x.names[v] = x.fresh(v.Name)
		}
	}
	for _, v := range g.Inputs {
		x.written[v] = true
		t := tensorType(v.DType, v.Shape)
		f := feature{name: x.names[v], kind: featureArray, array: arrayType{shape: v.Shape, dtype: arrayDTypeOf(milDTypeOf(v.DType))}}
		if len(v.Shape) == 0 {
			f.array.shape = []int{1}
		}
		if _, ok := stateOut[v.Name]; ok {
			x.need(IOS18, "state %q", v.Name)
			if v.DType != model.Float16 {
				failf("state %q has type %s (Core ML takes fp16)", v.Name, v.DType)
			}
			f.kind = featureState
			d.states = append(d.states, f)
			fn.inputs = append(fn.inputs, named{f.name, valueType{kind: kindState, elem: &t}})
			x.states[v] = true
			continue
		}
		t.dtype = milDTypeOf(t.dtype)
		if f.array.dtype == 0 || t.dtype == model.Float64 || t.dtype == model.Int8 {
			failf("input %q has type %s (Core ML takes fp16, fp32 and int32)", v.Name, v.DType)
		}
		if img, ok := parseImage(g.Meta[MetaImage+v.Name]); ok && imageFits(img, v) {
			f.kind, f.image = featureImage, img
		}
		d.inputs = append(d.inputs, f)
		fn.inputs = append(fn.inputs, named{f.name, t})
	}
	x.fold()
	for _, n := range g.Nodes {
		if x.skip[n] {
			continue
		}
		x.node(n)
	}
	for _, v := range g.Outputs {
		if s := slices.Index(sortedValues(stateOut), v.Name); s >= 0 {
			x.writeState(stateOut, v)
			continue
		}
		if v.Name == g.Meta[MetaProbabilities] && g.Meta[MetaClasses] != "" {
			x.classify(v, fn, &d)
			continue
		}
		name := x.names[v]
		if !x.written[v] || v.Producer == nil {
			// A constant or an input that is an output.
			if v.Const != nil {
				ref := x.constant(v)
				name = x.fresh(v.Name)
				x.add("identity", name, []named{{name, x.typeOf(v)}}, param{"x", ref})
			} else {
				name = x.fresh(v.Name + "_out")
				x.add("identity", name, []named{{name, x.typeOf(v)}}, param{"x", x.ref(v)})
			}
		}
		if slices.Contains(fn.block.outputs, name) {
			old := name
			name = x.fresh(v.Name)
			x.add("identity", name, []named{{name, x.typeOf(v)}}, param{"x", ref(old)})
		}
		t := milDTypeOf(v.DType)
		f := feature{name: name, kind: featureArray, array: arrayType{shape: v.Shape, dtype: arrayDTypeOf(t)}}
		if f.array.dtype == 0 || t == model.Float64 || t == model.Int8 {
			failf("output %q has type %s (Core ML gives fp16, fp32 and int32)", v.Name, v.DType)
		}
		if img, ok := parseImage(g.Meta[MetaImage+v.Name]); ok && imageFits(img, v) {
			f.kind, f.image = featureImage, img
		}
		d.outputs = append(d.outputs, f)
		fn.block.outputs = append(fn.block.outputs, name)
	}
	fn.block.ops = x.ops
	return &specModel{version: int(x.target), desc: d, program: &program{version: 1, names: []string{"main"}, functions: map[string]*function{"main": fn}}}
}

func sortedValues(m map[string]string) []string {
	var out []string
	for _, k := range sortedKeys(m) {
		out = append(out, m[k])
	}
	return out
}

// parseImage reads what the reader put into Meta: "RGB 224x224".
func parseImage(s string) (imageType, bool) {
	var im imageType
	color, size, ok := strings.Cut(s, " ")
	w, h, ok2 := strings.Cut(size, "x")
	if !ok || !ok2 {
		return im, false
	}
	var err1, err2 error
	im.width, err1 = strconv.Atoi(w)
	im.height, err2 = strconv.Atoi(h)
	for k, n := range colorNames {
		if n == color {
			im.color = k
		}
	}
	return im, err1 == nil && err2 == nil && im.color != 0 && im.width > 0 && im.height > 0
}

func imageFits(im imageType, v *model.Value) bool {
	return slices.Equal(v.Shape, []int{1, im.channels(), im.height, im.width})
}

func (x *exporter) typeOf(v *model.Value) valueType {
	return tensorType(milDTypeOf(v.DType), v.Shape)
}

// name returns the identifier of a value that a node writes.
func (x *exporter) name(v *model.Value) string {
	if n := x.names[v]; n != "" {
		return n
	}
	n := x.fresh(v.Name)
	x.names[v] = n
	return n
}

// ref is a binding to a name; params are the inputs of an operation.
type ref string

type param struct {
	key string
	// val is a ref or []ref (variables), or a static parameter: int, []int,
	// bool, []bool, string, number, or a constant of the operation's own.
	val any
}

// number is a floating-point parameter with its type.
type number struct {
	v float64
	d model.DType
}

// add appends an operation. Static parameters become const operations in front
// of it, as coremltools writes them; params must not repeat a key.
func (x *exporter) add(typ, name string, outs []named, params ...param) {
	op := &operation{typ: typ, title: name, outputs: outs}
	for _, p := range params {
		a := argument{key: p.key}
		switch v := p.val.(type) {
		case nil:
			continue
		case ref:
			a.args = []binding{{name: string(v)}}
		case []ref:
			for _, r := range v {
				a.args = append(a.args, binding{name: string(r)})
			}
		default:
			base := name
			if len(outs) > 0 {
				base = outs[0].name
			}
			a.args = []binding{{name: x.static(base+"_"+p.key+"_0", v)}}
		}
		op.inputs = append(op.inputs, a)
	}
	slices.SortFunc(op.inputs, func(a, b argument) int { return cmpString(a.key, b.key) })
	x.ops = append(x.ops, op)
}

// static adds a const operation and returns its name.
func (x *exporter) static(base string, v any) string {
	if k, ok := v.(*model.Const); ok {
		name := x.fresh(base)
		x.constOp(name, x.valueOf(k))
		return name
	}
	var t *model.Tensor
	switch v := v.(type) {
	case string:
		t = &model.Tensor{DType: model.String, Shape: model.Shape{}, Strings: []string{v}}
	case bool:
		t = model.NewTensor(model.Bool)
		t.SetInt(0, int64(b2i(v)))
	case []bool:
		t = model.NewTensor(model.Bool, len(v))
		for i, b := range v {
			t.SetInt(i, int64(b2i(b)))
		}
	case int:
		t = model.NewTensor(model.Int32)
		t.SetInt(0, int64(clamp32(v)))
	case []int:
		t = model.NewTensor(model.Int32, len(v))
		for i, n := range v {
			t.SetInt(i, int64(clamp32(n)))
		}
	case number:
		t = newNumbers(v.d)
		t.Set(0, v.v)
	case *model.Tensor:
		t = v
	default:
		panic(fmt.Sprintf("coreml: parameter of type %T", v))
	}
	name := x.fresh(base)
	x.constOp(name, x.valueOf(model.NewConst(t)))
	return name
}

// clamp32 keeps a bound that means "to the end" in int32.
func clamp32(n int) int { return max(min(n, 1<<31-1), -(1<<31 - 1)) }

func (x *exporter) constOp(name string, v *value) {
	x.ops = append(x.ops, &operation{typ: "const", title: name, outputs: []named{{name, v.typ}}, attrs: []attribute{{"val", v}}})
}

// inFile reports whether a constant goes to the weight file.
func (x *exporter) inFile(d model.DType, n int64) bool {
	if n < 10 {
		return false
	}
	switch d {
	case model.Float16, model.Float32, model.UInt8, model.Int8, model.Int4, model.UInt1, model.UInt2, model.UInt3, model.UInt4, model.UInt6:
		return true
	case model.Int16, model.UInt16, model.Int32, model.UInt32:
		return x.target >= IOS18
	}
	return false
}

// isComputed reports whether a constant's values are computed at first use, so
// that asking for the size must not ask for them.
func isComputed(k *model.Const) bool {
	switch s := k.Storage.(type) {
	case *model.Lazy:
		return true
	case *filled:
		return s.n > 1<<20
	case *derived:
		return isComputed(s.of)
	case packedBytes:
		return isComputed(s.of)
	case plainly:
		return true
	case *model.Affine, *model.Lookup, *model.Sparse:
		return true
	}
	return false
}

// valueOf writes plain values: to the weight file or into the specification.
func (x *exporter) valueOf(k *model.Const) *value {
	d := milDTypeOf(k.DType)
	n := k.Elems()
	if n < 0 || milTypeOf[d] == 0 {
		failf("a constant of %s%v has no place in an ML program", k.DType, k.Shape)
	}
	wide := k.DType != d
	if !x.inFile(d, n) {
		if !x.values && isComputed(k) && (d.IsFloat() || d.Bits() <= 8 && d != model.Bool) {
			// The size of these does not depend on the values.
			return immediate(model.NewTensor(d, k.Shape...))
		}
		t, err := k.Value()
		try(err)
		return immediate(narrow(t, d))
	}
	v := &value{typ: tensorType(d, k.Shape), blob: true, file: weightPath}
	src := blobSource{k.Storage, d}
	if b := x.byFrom[src]; b != nil {
		v.off = b.offset
		return v
	}
	var data []byte
	if x.values || !isComputed(k) {
		t, err := k.Value()
		try(err)
		if wide {
			t = narrow(t, d)
		}
		data = t.Data
		if int64(len(data)) != d.Bytes(n) {
			failf("a constant of %s%v holds %d bytes (want %d)", d, k.Shape, len(data), d.Bytes(n))
		}
	}
	b := x.blob(d, n, data)
	if !wide {
		x.byFrom[src] = b
	}
	v.off = b.offset
	return v
}

// narrow converts int64 to int32, refusing what does not fit.
func narrow(t *model.Tensor, d model.DType) *model.Tensor {
	if t.DType == d {
		return t
	}
	if t.DType == model.Int64 || t.DType == model.UInt64 {
		out := model.NewTensor(d, t.Shape...)
		for i := range t.Len() {
			out.SetInt(i, int64(clamp32(int(t.IntAt(i)))))
		}
		return out
	}
	return t.Convert(d)
}

// blob places data in the weight file, once for equal data.
func (x *exporter) blob(d model.DType, n int64, data []byte) *blobOut {
	var h uint64
	if data != nil {
		h = maphash.Bytes(x.seed, data)
		for _, b := range x.byHash[h] {
			if b.dtype == d && b.elems == n && bytes.Equal(b.data, data) {
				return b
			}
		}
	}
	b := &blobOut{dtype: d, elems: n, data: data, offset: (x.end + blobAlign - 1) / blobAlign * blobAlign}
	x.end = b.offset + blobAlign + b.size()
	x.blobs = append(x.blobs, b)
	if data != nil {
		x.byHash[h] = append(x.byHash[h], b)
	}
	return b
}

// zeroBlob is a blob of zeros, shared whatever else is known of values.
func (x *exporter) zeroBlob(d model.DType, n int64) *value {
	v := &value{typ: tensorType(d, model.Shape{int(n)}), blob: true, file: weightPath}
	key := d.String() + strconv.FormatInt(n, 10)
	b := x.zeros[key]
	if b == nil {
		b = x.blob(d, n, make([]byte, d.Bytes(n)))
		x.zeros[key] = b
	}
	v.off = b.offset
	return v
}

// ref returns the name of an operand, writing the constant it may be.
func (x *exporter) ref(v *model.Value) ref {
	if v.Const != nil {
		return x.constant(v)
	}
	if x.states[v] {
		name := x.fresh(v.Name + "_read")
		x.add("read_state", name, []named{{name, x.typeOf(v)}}, param{"input", ref(x.names[v])})
		return ref(name)
	}
	if !x.written[v] {
		failf("value %q is read before it is written", v.Name)
	}
	return ref(x.name(v))
}

// constant writes a constant value once and returns its name.
func (x *exporter) constant(v *model.Value) ref { return x.constantAs(v, v.Const) }

// constantAs writes a constant under the name of a value.
func (x *exporter) constantAs(v *model.Value, k *model.Const) ref {
	key := k.DType.String() + k.Shape.String()
	from := k.Storage
	if n := x.consts[from][key]; n != "" {
		return ref(n)
	}
	k = expressible(k)
	base := v.Name
	if x.outputs[v] {
		base += "_const"
	}
	var name string
	if plainStorage(k) {
		val := x.valueOf(k)
		place := placeKey{val.off, val.typ.dtype, val.typ.shape.String()}
		if val.blob {
			name = x.places[place]
		}
		if name == "" {
			name = x.fresh(base)
			x.constOp(name, val)
		}
		if val.blob {
			x.places[place] = name
		}
	} else {
		name = x.fresh(base)
		x.weight(name, k)
	}
	if x.consts[from] == nil {
		x.consts[from] = map[string]string{}
	}
	x.consts[from][key] = name
	return ref(name)
}
