package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/internal/budget"
)

// dtypes maps TensorProto.DataType to element types.
var dtypes = []model.DType{
	1: model.Float32, 2: model.UInt8, 3: model.Int8, 4: model.UInt16, 5: model.Int16, 6: model.Int32, 7: model.Int64,
	8: model.String, 9: model.Bool, 10: model.Float16, 11: model.Float64, 12: model.UInt32, 13: model.UInt64,
	14: model.Complex64, 15: model.Complex128, 16: model.BFloat16, 17: model.Float8E4M3FN, 18: model.Float8E4M3FNUZ,
	19: model.Float8E5M2, 20: model.Float8E5M2FNUZ, 21: model.UInt4, 22: model.Int4, 23: model.Float4E2M1,
}

func dtypeOf(code int64) (model.DType, error) {
	if code < 1 || code >= int64(len(dtypes)) {
		return model.Invalid, fmt.Errorf("unknown element type %d", code)
	}
	return dtypes[code], nil
}

// codeOf is the inverse of dtypeOf; 0 for a type ONNX does not have.
func codeOf(d model.DType) int64 { return int64(max(0, slices.Index(dtypes, d))) }

// maxSparse bounds the dense size of a sparse tensor, in elements: the one
// place where a short file could ask for much memory.
const maxSparse = 1 << 26

// tensorProto is a parsed TensorProto: payloads are views.
type tensorProto struct {
	name     string
	dtype    model.DType
	shape    model.Shape
	raw      []byte
	hasRaw   bool
	numbers  []byte // packed float_data, double_data, or the varints of the integer fields
	kind     numberKind
	strings  int // how many
	msg      []byte
	external map[string]string
	outside  bool
}

// numberKind tells which of the typed data fields a tensor has.
type numberKind uint8

const (
	noNumbers numberKind = iota
	floatNumbers
	doubleNumbers
	intNumbers
)

func parseTensor(msg []byte) (*tensorProto, error) {
	t := &tensorProto{msg: msg}
	what := "tensor"
	// Typed data is one packed field in nearly every file, and stays a view; in
	// any other form its elements are joined, once their size is known.
	pieces := 0
	err := eachField(msg, what, func(f field) (err error) {
		switch f.num {
		case 1:
			if len(f.bytes) > 10*maxRank {
				return fmt.Errorf("%s: more than %d dimensions", what, maxRank)
			}
			var dims []int64
			if dims, err = f.integers(nil, what); err != nil {
				return err
			}
			for _, d := range dims {
				if d < 0 || d > math.MaxInt32*int64(1<<16) {
					return fmt.Errorf("%s: dimension %d is out of range", what, d)
				}
				t.shape = append(t.shape, int(d))
			}
			if len(t.shape) > maxRank {
				return fmt.Errorf("%s: more than %d dimensions", what, maxRank)
			}
		case 2:
			var v int64
			if v, err = f.integer(what); err == nil {
				t.dtype, err = dtypeOf(v)
			}
		case 3:
			return fmt.Errorf("%s: segmented tensors are not supported", what)
		case 4, 5, 7, 10, 11:
			if t.kind != noNumbers && t.kind != kindOf(f.num) {
				return fmt.Errorf("%s: values in two fields", what)
			}
			t.kind, t.numbers = kindOf(f.num), f.bytes
			pieces++
		case 6:
			_, err = f.message(what)
			t.strings++
		case 8:
			t.name, err = f.text(what)
			what = fmt.Sprintf("tensor %q", t.name)
		case 9:
			t.raw, err = f.message(what)
			t.hasRaw = true
		case 13:
			var b []byte
			if b, err = f.message(what); err != nil {
				return err
			}
			var k, v string
			if k, v, err = parseEntry(b); err == nil {
				if t.external == nil {
					t.external = map[string]string{}
				}
				if t.external[k] = v; len(t.external) > 16 {
					err = fmt.Errorf("%s: more than 16 entries of external data", what)
				}
			}
		case 14:
			var v int64
			v, err = f.integer(what)
			t.outside = v == 1
		}
		return err
	})
	if err == nil && (pieces > 1 || pieces == 1 && t.numbers == nil) {
		err = t.join(what)
	}
	if err != nil {
		return nil, err
	}
	if t.dtype == model.Invalid {
		return nil, fmt.Errorf("%s: no element type", what)
	}
	if t.shape.Elems() < 0 {
		return nil, fmt.Errorf("%s: shape %v is too large", what, t.shape)
	}
	if t.shape == nil {
		t.shape = model.Shape{}
	}
	return t, nil
}

func kindOf(num protowire.Number) numberKind {
	switch num {
	case 4:
		return floatNumbers
	case 10:
		return doubleNumbers
	}
	return intNumbers
}

// join collects the values of a typed data field that stands in several
// pieces, or one value at a time.
func (t *tensorProto) join(what string) error {
	t.numbers = nil
	size := 0
	for _, write := range []bool{false, true} { // no memory to grow into
		if write {
			t.numbers = make([]byte, 0, size)
		}
		err := eachField(t.msg, what, func(f field) error {
			switch f.num {
			case 4, 5, 7, 10, 11:
			default:
				return nil
			}
			want := map[numberKind]protowire.Type{floatNumbers: protowire.Fixed32Type, doubleNumbers: protowire.Fixed64Type, intNumbers: protowire.VarintType}[t.kind]
			n := len(f.bytes)
			switch {
			case f.typ == protowire.BytesType:
			case f.typ != want:
				return f.want(want, what)
			case t.kind == floatNumbers:
				n = 4
			case t.kind == doubleNumbers:
				n = 8
			default:
				n = protowire.SizeVarint(f.val)
			}
			size += n
			if !write {
				return nil
			}
			switch {
			case f.typ == protowire.BytesType:
				t.numbers = append(t.numbers, f.bytes...)
			case t.kind == floatNumbers:
				t.numbers = binary.LittleEndian.AppendUint32(t.numbers, uint32(f.val))
			case t.kind == doubleNumbers:
				t.numbers = binary.LittleEndian.AppendUint64(t.numbers, f.val)
			default:
				t.numbers = protowire.AppendVarint(t.numbers, f.val)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func parseEntry(msg []byte) (key, value string, err error) {
	err = eachField(msg, "entry", func(f field) (err error) {
		switch f.num {
		case 1:
			key, err = f.text("entry")
		case 2:
			value, err = f.text("entry")
		}
		return err
	})
	return key, value, err
}

// lazyElems is the number of elements from which values that must be decoded
// are decoded at first use: a view takes no memory, eight bytes for each byte
// of a list of small integers do.
const lazyElems = 1 << 12

// constant returns the tensor as a constant: a view into the file where the
// layout allows it, decoded at first use where it is long.
func (t *tensorProto) constant(r *reader) (*model.Const, error) {
	n := t.shape.Elems()
	where := func(err error) error { return fmt.Errorf("tensor %q (%s%v): %w", t.name, t.dtype, t.shape, err) }
	want := t.dtype.Bytes(n)
	if n > math.MaxInt64/64 || want < 0 {
		return nil, where(fmt.Errorf("too large"))
	}
	raw, stored := t.raw, t.hasRaw
	if t.outside {
		b, err := r.externalData(t.external, want)
		if err != nil {
			return nil, where(err)
		}
		raw, stored = b, true
	}
	switch {
	case t.dtype == model.String:
		if int64(t.strings) != n {
			return nil, where(fmt.Errorf("%d strings stored", t.strings))
		}
		if err := r.mem.Keep(16*t.strings + len(t.msg)); err != nil {
			return nil, where(err)
		}
		return model.NewConst(t.texts()), nil
	case stored:
	case t.dtype == model.Float32 || t.dtype == model.Complex64:
		raw = t.typed(floatNumbers)
	case t.dtype == model.Float64 || t.dtype == model.Complex128:
		raw = t.typed(doubleNumbers)
	default:
		values := t.typed(intNumbers)
		have := int64(0)
		for _, c := range values {
			if c < 0x80 {
				have++
			}
		}
		elems := n
		if bits := t.dtype.Bits(); bits < 8 { // several elements a stored integer: one byte
			elems = want
		}
		if have != elems {
			return nil, where(fmt.Errorf("%d integers stored, want %d", have, elems))
		}
		for b := values; len(b) > 0; {
			_, k := protowire.ConsumeVarint(b)
			if k < 0 {
				return nil, where(fmt.Errorf("a broken integer"))
			}
			b = b[k:]
		}
		d, shape := t.dtype, t.shape
		if elems > lazyElems {
			return model.NewLazy(d, shape, func() (*model.Tensor, error) { return decodeInts(values, d, shape), nil }), nil
		}
		if err := r.mem.Keep(int(want)); err != nil {
			return nil, where(err)
		}
		return model.NewConst(decodeInts(values, d, shape)), nil
	}
	if int64(len(raw)) != want {
		return nil, where(fmt.Errorf("%d bytes stored, want %d", len(raw), want))
	}
	return model.NewConst(&model.Tensor{DType: t.dtype, Shape: t.shape, Data: raw[:len(raw):len(raw)]}), nil
}

// typed returns the values of a typed data field; none if another one is set.
func (t *tensorProto) typed(k numberKind) []byte {
	if t.kind != k {
		return nil
	}
	return t.numbers
}

// texts returns the strings, all in one piece of memory.
func (t *tensorProto) texts() *model.Tensor {
	out := &model.Tensor{DType: t.dtype, Shape: t.shape, Strings: make([]string, 0, t.strings)}
	each := func(f func([]byte)) {
		_ = eachField(t.msg, "", func(fd field) error {
			if fd.num == 6 {
				f(fd.bytes)
			}
			return nil
		})
	}
	size := 0
	each(func(s []byte) { size += len(s) })
	var all strings.Builder
	all.Grow(size)
	each(func(s []byte) { all.Write(s) })
	text := all.String()
	each(func(s []byte) {
		out.Strings = append(out.Strings, text[:len(s)])
		text = text[len(s):]
	})
	return out
}

// decodeInts decodes well-formed varints, as many as the shape has elements
// (bytes, for types of less than eight bits).
func decodeInts(b []byte, d model.DType, shape model.Shape) *model.Tensor {
	out := model.NewTensor(d, shape...)
	for i := 0; len(b) > 0; i++ {
		v, k := protowire.ConsumeVarint(b)
		b = b[k:]
		switch {
		case d.Bits() <= 8:
			out.Data[i] = byte(v)
		case d.Bits() == 16:
			binary.LittleEndian.PutUint16(out.Data[2*i:], uint16(v))
		default:
			out.SetInt(i, int64(v))
		}
	}
	return out
}

// parseSparse reads a SparseTensorProto as a constant that is made dense at
// first use.
func parseSparse(msg []byte, r *reader) (string, *model.Const, error) {
	var values, indices *tensorProto
	var dims []int64
	err := eachField(msg, "sparse tensor", func(f field) (err error) {
		switch f.num {
		case 1, 2:
			var b []byte
			if b, err = f.message("sparse tensor"); err != nil {
				return err
			}
			t, err := parseTensor(b)
			if f.num == 1 {
				values = t
			} else {
				indices = t
			}
			return err
		case 3:
			if len(dims)+len(f.bytes) > 10*maxRank {
				return fmt.Errorf("sparse tensor: more than %d dimensions", maxRank)
			}
			dims, err = f.integers(dims, "sparse tensor")
		}
		return err
	})
	if err != nil {
		return "", nil, err
	}
	if values == nil || indices == nil {
		return "", nil, fmt.Errorf("sparse tensor: values or indices are missing")
	}
	fail := func(format string, args ...any) (string, *model.Const, error) {
		return "", nil, fmt.Errorf("sparse tensor %q: "+format, append([]any{values.name}, args...)...)
	}
	shape := model.Shape{}
	for _, d := range dims {
		if d < 0 || d > maxSparse {
			return fail("dimension %d is out of range", d)
		}
		shape = append(shape, int(d))
	}
	if n := shape.Elems(); n < 0 || n > maxSparse {
		return fail("shape %v has more than %d elements", shape, maxSparse)
	}
	vk, err := values.constant(r)
	if err != nil {
		return "", nil, err
	}
	ik, err := indices.constant(r)
	if err != nil {
		return "", nil, err
	}
	if vk.DType == model.String || vk.DType.Bits()%8 != 0 || ik.DType != model.Int64 {
		return fail("%s values with %s indices are not supported", vk.DType, ik.DType)
	}
	nnz := vk.Elems()
	linear := len(ik.Shape) == 1
	if linear && ik.Elems() != nnz || !linear && (len(ik.Shape) != 2 || int64(ik.Shape[0]) != nnz || ik.Shape[1] != len(shape)) {
		return fail("indices of shape %v for %d values of shape %v", ik.Shape, nnz, shape)
	}
	name := values.name
	if d, ok := ik.Storage.(model.Dense); ok { // else when they are decoded
		if err := eachIndex(d.Tensor, shape, func(int, int) {}); err != nil {
			return fail("%w", err)
		}
	}
	if err := r.mem.Keep(functionBytes); err != nil {
		return "", nil, err
	}
	k := model.NewLazy(vk.DType, shape, func() (*model.Tensor, error) {
		defer vk.Drop()
		defer ik.Drop()
		return scatter(name, vk, ik, shape)
	})
	return name, k, nil
}

// scatter makes a sparse tensor dense.
func scatter(name string, vk, ik *model.Const, shape model.Shape) (*model.Tensor, error) {
	v, err := vk.Value()
	if err != nil {
		return nil, err
	}
	ix, err := ik.Value()
	if err != nil {
		return nil, err
	}
	out := model.NewTensor(v.DType, shape...)
	w := v.DType.Bits() / 8
	err = eachIndex(ix, shape, func(i, p int) { copy(out.Data[p*w:(p+1)*w], v.Data[i*w:(i+1)*w]) })
	if err != nil {
		return nil, fmt.Errorf("onnx: sparse tensor %q: %w", name, err)
	}
	return out, nil
}

// eachIndex calls f with the number and the linear position of every value of
// a sparse tensor.
func eachIndex(ix *model.Tensor, shape model.Shape, f func(i, p int)) error {
	at, rank := ix.Int64s(), len(shape)
	if len(ix.Shape) == 1 {
		rank = 1
	}
	total := shape.Elems()
	for i := range ix.Shape[0] {
		p := int64(0)
		if len(ix.Shape) == 1 {
			p = at[i]
		} else {
			for d, x := range at[i*rank : (i+1)*rank] {
				if x < 0 || x >= int64(shape[d]) {
					return fmt.Errorf("index %d is outside dimension %d of %v", x, d, shape)
				}
				p = p*int64(shape[d]) + x
			}
		}
		if p < 0 || p >= total {
			return fmt.Errorf("index %d is outside %v", p, shape)
		}
		f(i, int(p))
	}
	return nil
}

// externalData returns a view of want bytes of the file an initializer names.
// The file must lie below the model's folder, symbolic links included.
func (r *reader) externalData(e map[string]string, want int64) ([]byte, error) {
	loc := e["location"]
	if loc == "" {
		return nil, fmt.Errorf("external data without a location")
	}
	if r.dir == "" {
		return nil, fmt.Errorf("external data %q, but the model was not read from a folder", loc)
	}
	if !filepath.IsLocal(filepath.FromSlash(loc)) {
		return nil, fmt.Errorf("external data %q: the path leaves the model's folder", loc)
	}
	number := func(key string, def int64) (int64, error) {
		s, ok := e[key]
		if !ok {
			return def, nil
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("external data %q: %s is %q, want a number", loc, key, s)
		}
		return n, nil
	}
	off, err := number("offset", 0)
	if err != nil {
		return nil, err
	}
	size, err := number("length", want)
	if err != nil {
		return nil, err
	}
	if size != want {
		return nil, fmt.Errorf("external data %q: length %d, want %d bytes", loc, size, want)
	}
	data, ok := r.files[loc]
	if !ok {
		root, err := os.OpenRoot(r.dir)
		if err != nil {
			return nil, fmt.Errorf("external data %q: %w", loc, err)
		}
		defer root.Close()
		f, err := root.Open(filepath.FromSlash(loc))
		if err != nil {
			return nil, fmt.Errorf("external data file %q is missing or unreadable: %w", loc, err)
		}
		defer f.Close()
		if data, err = mapFile(f); err != nil {
			return nil, fmt.Errorf("external data %q: %w", loc, err)
		}
		r.files[loc] = data
	}
	if off > int64(len(data)) || size > int64(len(data))-off {
		return nil, fmt.Errorf("external data %q has %d bytes, offset %d with %d bytes reaches beyond it", loc, len(data), off, size)
	}
	return data[off : off+size : off+size], nil
}

// ReadTensor parses a serialized TensorProto, as the data files of the ONNX
// test suite hold.
func ReadTensor(data []byte) (*model.Tensor, error) {
	p, err := parseTensor(data)
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	k, err := p.constant(&reader{mem: budget.New(len(data))})
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	t, err := k.Value()
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return t, nil
}
