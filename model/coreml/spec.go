package coreml

import (
	"fmt"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/internal/budget"
)

// The Go view of the parts of Model.proto, FeatureTypes.proto and MIL.proto
// that an ML program uses. Field numbers stand in read.go and write.go.

// specModel is message Model.
type specModel struct {
	version     int // specificationVersion: 6 is iOS15 ... 9 is iOS18
	desc        description
	program     *program // mlProgram (502), or nil
	typeField   int      // field number of the oneof Type that was present, 0 if none
	isUpdatable bool
	dec         *decoder // that read it
}

// description is message ModelDescription; functions of a multi-function model
// have one each.
type description struct {
	name          string // of a FunctionDescription
	inputs        []feature
	outputs       []feature
	states        []feature
	predicted     string // predictedFeatureName of a classifier
	probabilities string // predictedProbabilitiesName
	functions     []description
	defaultFunc   string
	meta          []keyValue // metadata: "shortDescription", "version", "author", "license", and userDefined
}

type keyValue struct{ key, value string }

// feature is message FeatureDescription.
type feature struct {
	name     string
	short    string
	kind     featureKind
	array    arrayType // featureArray and featureState
	image    imageType // featureImage
	keyInt64 bool      // featureDictionary: keys are int64, not strings
	optional bool
}

type featureKind uint8

const (
	featureUnknown featureKind = iota
	featureInt64
	featureDouble
	featureString
	featureImage
	featureArray
	featureDictionary
	featureSequence
	featureState
)

// arrayType is message ArrayFeatureType.
type arrayType struct {
	shape      []int
	dtype      int // ArrayDataType: kind << 16 | bits
	enumerated [][]int
	ranges     [][2]int // lower, upper (-1 unbounded) per dimension
}

// ArrayDataType values.
const (
	arrayFloat16 = 65552
	arrayFloat32 = 65568
	arrayDouble  = 65600
	arrayInt8    = 131080
	arrayInt32   = 131104
)

func arrayDTypeOf(d model.DType) int {
	switch d {
	case model.Float16:
		return arrayFloat16
	case model.Float32:
		return arrayFloat32
	case model.Float64:
		return arrayDouble
	case model.Int8:
		return arrayInt8
	case model.Int32:
		return arrayInt32
	}
	return 0
}

// imageType is message ImageFeatureType.
type imageType struct {
	width, height int
	color         int
	enumerated    [][2]int // width, height
	ranges        [][2]int // widthRange, heightRange; nil or two entries
}

var colorNames = map[int]string{10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}

func (i imageType) channels() int {
	if i.color == 20 || i.color == 30 {
		return 3
	}
	return 1
}

// program is message Program of MIL.
type program struct {
	version   int64
	functions map[string]*function
	names     []string // of functions, sorted
}

// function is message Function; block is the specialization that opset names.
type function struct {
	inputs []named
	opset  string
	block  *block
}

type block struct {
	inputs  []named
	outputs []string
	ops     []*operation
	raw     []byte // of a lazy decoder: the message whose operations are not in ops
}

// named is message NamedValueType.
type named struct {
	name string
	typ  valueType
}

// operation is message Operation. Inputs and attributes are maps in the file;
// here they are sorted by key, so that writing is deterministic.
type operation struct {
	typ     string
	title   string // the attribute "name", which every operation has
	inputs  []argument
	outputs []named
	blocks  []*block
	attrs   []attribute
}

type argument struct {
	key  string
	args []binding
}

// binding is a name or a value.
type binding struct {
	name string
	val  *value
}

type attribute struct {
	key string
	val *value
}

func (o *operation) attr(key string) *value {
	for _, a := range o.attrs {
		if a.key == key {
			return a.val
		}
	}
	return nil
}

func (o *operation) arg(key string) []binding {
	for _, a := range o.inputs {
		if a.key == key {
			return a.args
		}
	}
	return nil
}

// name returns the operation's name: its name attribute, else its first
// output.
func (o *operation) name() string {
	if o.title != "" {
		return o.title
	}
	if len(o.outputs) > 0 {
		return o.outputs[0].name
	}
	return o.typ
}

// typeKind tells the members of the oneof in ValueType.
type typeKind uint8

const (
	kindNone typeKind = iota
	kindTensor
	kindList
	kindTuple
	kindDict
	kindState
)

// valueType is message ValueType.
type valueType struct {
	kind   typeKind
	dtype  model.DType
	shape  model.Shape // -1 where unknown
	vary   bool        // unknown rank (variadic dimension)
	elem   *valueType  // of a list (its element), a state (wrapped) or a dictionary (its value)
	keyTyp *valueType  // of a dictionary
	length int         // of a list, -1 unknown
	tuple  []valueType
}

func (t valueType) String() string {
	switch t.kind {
	case kindTensor:
		return fmt.Sprintf("%s%v", t.dtype, t.shape)
	case kindList:
		return "list"
	case kindTuple:
		return "tuple"
	case kindDict:
		return "dictionary"
	case kindState:
		return "state"
	}
	return "nothing"
}

func tensorType(d model.DType, s model.Shape) valueType {
	return valueType{kind: kindTensor, dtype: d, shape: s}
}

// value is message Value: an immediate tensor, a list of them, or a place in
// the weight file.
type value struct {
	typ  valueType
	blob bool
	file string // blob: fileName
	off  uint64 // blob: offset of the metadata

	// An immediate tensor holds exactly one of these, by the case of the
	// oneof in TensorValue.
	kase   int      // 1 floats, 2 ints, 3 bools, 4 strings, 5 longInts, 6 doubles, 7 bytes; 0 none
	raw    []byte   // bytes; floats, doubles: fixed-width little-endian
	ints   []int64  // ints, longInts, bools
	strs   []string // strings
	list   []*value // list or tuple
	isList bool
}

// mil data types, MIL.proto.
var milTypes = map[int]model.DType{
	1: model.Bool, 2: model.String,
	10: model.Float16, 11: model.Float32, 12: model.Float64, 13: model.BFloat16,
	21: model.Int8, 22: model.Int16, 23: model.Int32, 24: model.Int64, 25: model.Int4,
	31: model.UInt8, 32: model.UInt16, 33: model.UInt32, 34: model.UInt64,
	35: model.UInt4, 36: model.UInt2, 37: model.UInt1, 38: model.UInt6, 39: model.UInt3,
	40: model.Float8E4M3FN, 41: model.Float8E5M2,
}

var milTypeOf = func() map[model.DType]int {
	m := map[model.DType]int{}
	for k, v := range milTypes {
		m[v] = k
	}
	return m
}()

// opsetOf names the opset of a specification version, and osOf its system.
var opsetOf = map[int]string{6: "CoreML5", 7: "CoreML6", 8: "CoreML7", 9: "CoreML8"}
var osOf = map[int]string{1: "iOS11", 2: "iOS11.2", 3: "iOS12", 4: "iOS13", 5: "iOS14", 6: "iOS15", 7: "iOS16", 8: "iOS17", 9: "iOS18", 10: "iOS26"}

// tensor turns an immediate value into a tensor, checking that the number of
// values is what the type declares. Mem counts the bytes.
func (v *value) tensor(mem *budget.Budget) (*model.Tensor, error) {
	t := v.typ
	if t.kind != kindTensor {
		return nil, fmt.Errorf("a %s where a tensor is wanted", t)
	}
	n := t.shape.Elems()
	if n < 0 {
		return nil, fmt.Errorf("a constant of unknown shape %v", t.shape)
	}
	bad := func(have int64, what string) error {
		return fmt.Errorf("a constant %s%v holds %d %s, %d wanted", t.dtype, t.shape, have, what, n)
	}
	switch v.kase {
	case 4:
		if t.dtype != model.String {
			return nil, fmt.Errorf("strings in a constant of type %s", t.dtype)
		}
		if int64(len(v.strs)) != n {
			return nil, bad(int64(len(v.strs)), "strings")
		}
		size := 16 * len(v.strs)
		for _, s := range v.strs {
			size += len(s)
		}
		return &model.Tensor{DType: model.String, Shape: t.shape, Strings: v.strs}, mem.Keep(size)
	case 2, 3, 5:
		if !t.dtype.IsInt() && t.dtype != model.Bool {
			return nil, fmt.Errorf("integers in a constant of type %s", t.dtype)
		}
		if int64(len(v.ints)) != n {
			return nil, bad(int64(len(v.ints)), "integers")
		}
		if err := mem.Keep(int(t.dtype.Bytes(n))); err != nil {
			return nil, err
		}
		out := model.NewTensor(t.dtype, t.shape...)
		for i, x := range v.ints {
			out.SetInt(i, x)
		}
		return out, nil
	case 1, 6, 7:
		want := t.dtype
		if v.kase == 1 {
			want = model.Float32
		} else if v.kase == 6 {
			want = model.Float64
		}
		if want != t.dtype || t.dtype == model.String {
			return nil, fmt.Errorf("%s values in a constant of type %s", want, t.dtype)
		}
		if int64(len(v.raw)) != t.dtype.Bytes(n) {
			return nil, bad(int64(len(v.raw)), fmt.Sprintf("bytes (%d wanted)", t.dtype.Bytes(n)))
		}
		if err := mem.Keep(len(v.raw)); err != nil {
			return nil, err
		}
		return (&model.Tensor{DType: t.dtype, Shape: t.shape, Data: v.raw}).Clone(), nil
	}
	if n == 0 {
		return model.NewTensor(t.dtype, t.shape...), nil
	}
	return nil, fmt.Errorf("a constant %s%v without values", t.dtype, t.shape)
}
