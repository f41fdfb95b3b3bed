package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/triune-sim/triune/model"
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
	floats   []byte   // packed float_data
	doubles  []byte   // packed double_data
	ints     [][]byte // packed int32_data, int64_data or uint64_data
	strings  [][]byte
	external map[string]string
	outside  bool
}

func parseTensor(msg []byte) (*tensorProto, error) {
	t := &tensorProto{}
	what := "tensor"
	var scattered []byte // unpacked floats, joined
	err := eachField(msg, what, func(f field) (err error) {
		switch f.num {
		case 1:
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
		case 4, 10:
			if f.typ == protowire.BytesType {
				if scattered == nil {
					scattered = f.bytes
				} else {
					scattered = slices.Concat(scattered, f.bytes)
				}
			} else if f.num == 4 {
				scattered = binary.LittleEndian.AppendUint32(slices.Clip(scattered), uint32(f.val))
			} else {
				scattered = binary.LittleEndian.AppendUint64(slices.Clip(scattered), f.val)
			}
			if f.num == 4 {
				t.floats = scattered
			} else {
				t.doubles = scattered
			}
		case 5, 7, 11:
			if f.typ == protowire.VarintType {
				t.ints = append(t.ints, protowire.AppendVarint(nil, f.val))
			} else {
				var b []byte
				if b, err = f.message(what); err == nil {
					t.ints = append(t.ints, b)
				}
			}
		case 6:
			var b []byte
			if b, err = f.message(what); err == nil {
				t.strings = append(t.strings, b)
			}
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
				t.external[k] = v
			}
		case 14:
			var v int64
			v, err = f.integer(what)
			t.outside = v == 1
		}
		return err
	})
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

// value returns the tensor's elements: a view into the file where the layout
// allows it.
func (t *tensorProto) value(r *reader) (*model.Tensor, error) {
	n := t.shape.Elems()
	where := func(err error) error { return fmt.Errorf("tensor %q (%s%v): %w", t.name, t.dtype, t.shape, err) }
	want := t.dtype.Bytes(n)
	if n > math.MaxInt64/64 || want < 0 {
		return nil, where(fmt.Errorf("too large"))
	}
	raw := t.raw
	if t.outside {
		b, err := r.externalData(t.external, want)
		if err != nil {
			return nil, where(err)
		}
		raw, t.hasRaw = b, true
	}
	switch {
	case t.dtype == model.String:
		if int64(len(t.strings)) != n {
			return nil, where(fmt.Errorf("%d strings stored", len(t.strings)))
		}
		out := &model.Tensor{DType: t.dtype, Shape: t.shape, Strings: make([]string, n)}
		for i, s := range t.strings {
			out.Strings[i] = string(s)
		}
		return out, nil
	case t.hasRaw:
		if int64(len(raw)) != want {
			return nil, where(fmt.Errorf("%d bytes stored, want %d", len(raw), want))
		}
		return &model.Tensor{DType: t.dtype, Shape: t.shape, Data: raw[:len(raw):len(raw)]}, nil
	case t.dtype == model.Float32 || t.dtype == model.Complex64:
		raw = t.floats
	case t.dtype == model.Float64 || t.dtype == model.Complex128:
		raw = t.doubles
	default:
		stored := 0
		for _, b := range t.ints {
			for _, c := range b {
				if c < 0x80 {
					stored++
				}
			}
		}
		elems := n
		if bits := t.dtype.Bits(); bits < 8 { // several elements a stored integer: one byte
			elems = want
		}
		if int64(stored) != elems {
			return nil, where(fmt.Errorf("%d integers stored, want %d", stored, elems))
		}
		out := model.NewTensor(t.dtype, t.shape...)
		i := 0
		for _, b := range t.ints {
			for len(b) > 0 {
				v, k := protowire.ConsumeVarint(b)
				if k < 0 {
					return nil, where(fmt.Errorf("a broken integer"))
				}
				b = b[k:]
				switch {
				case t.dtype.Bits() <= 8:
					out.Data[i] = byte(v)
				case t.dtype.Bits() == 16:
					binary.LittleEndian.PutUint16(out.Data[2*i:], uint16(v))
				default:
					out.SetInt(i, int64(v))
				}
				i++
			}
		}
		return out, nil
	}
	if int64(len(raw)) != want {
		return nil, where(fmt.Errorf("%d bytes stored, want %d", len(raw), want))
	}
	return &model.Tensor{DType: t.dtype, Shape: t.shape, Data: raw[:len(raw):len(raw)]}, nil
}

// parseSparse reads a SparseTensorProto and returns it dense.
func parseSparse(msg []byte, r *reader) (string, *model.Tensor, error) {
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
	fail := func(format string, args ...any) (string, *model.Tensor, error) {
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
	v, err := values.value(r)
	if err != nil {
		return "", nil, err
	}
	ix, err := indices.value(r)
	if err != nil {
		return "", nil, err
	}
	if v.DType == model.String || v.DType.Bits()%8 != 0 || ix.DType != model.Int64 {
		return fail("%s values with %s indices are not supported", v.DType, ix.DType)
	}
	nnz := v.Len()
	at := ix.Int64s()
	linear := len(ix.Shape) == 1
	if linear && len(at) != nnz || !linear && (len(ix.Shape) != 2 || ix.Shape[0] != nnz || ix.Shape[1] != len(shape)) {
		return fail("indices of shape %v for %d values of shape %v", ix.Shape, nnz, shape)
	}
	out := model.NewTensor(v.DType, shape...)
	w := v.DType.Bits() / 8
	for i := range nnz {
		p := int64(0)
		if linear {
			p = at[i]
		} else {
			for d, x := range at[i*len(shape) : (i+1)*len(shape)] {
				if x < 0 || x >= int64(shape[d]) {
					return fail("index %d is outside dimension %d of %v", x, d, shape)
				}
				p = p*int64(shape[d]) + x
			}
		}
		if p < 0 || p >= shape.Elems() {
			return fail("index %d is outside %v", p, shape)
		}
		copy(out.Data[int(p)*w:(int(p)+1)*w], v.Data[i*w:(i+1)*w])
	}
	return values.name, out, nil
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
	t, err := p.value(&reader{})
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return t, nil
}
