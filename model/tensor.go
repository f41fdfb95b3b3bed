package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/x448/float16"
)

// Shape is the list of a tensor's dimensions, outermost first. A dimension of
// -1 is unknown; only importers produce it, and [Graph.Validate] refuses it in
// a graph that is to be lowered.
type Shape []int

// Elems returns the number of elements (1 for a scalar, -1 if a dimension is
// unknown or the product does not fit).
func (s Shape) Elems() int64 {
	n := int64(1)
	for _, d := range s {
		if d < 0 {
			return -1
		}
		if d != 0 && n > math.MaxInt64/int64(d) {
			return -1
		}
		n *= int64(d)
	}
	return n
}

// Known reports whether every dimension is known.
func (s Shape) Known() bool { return s.Elems() >= 0 }

// Equal reports whether two shapes are the same.
func (s Shape) Equal(t Shape) bool { return slices.Equal(s, t) }

// Clone returns a copy.
func (s Shape) Clone() Shape { return slices.Clone(s) }

// String formats the shape as [1,3,224,224]; unknown dimensions print as "?".
func (s Shape) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, d := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		if d < 0 {
			b.WriteByte('?')
		} else {
			b.WriteString(strconv.Itoa(d))
		}
	}
	b.WriteByte(']')
	return b.String()
}

// Tensor is a dense array in row-major order. Data holds the elements
// little-endian, packed (sub-byte types least significant bit first); Strings
// holds them for DType String.
type Tensor struct {
	DType   DType
	Shape   Shape
	Data    []byte
	Strings []string
}

// NewTensor returns a zeroed tensor, 8-byte aligned so that it can be viewed
// as a slice of its element type. It panics on an unknown or absurd shape:
// callers that read shapes from a file check them first.
func NewTensor(d DType, shape ...int) *Tensor {
	s := Shape(shape).Clone()
	n := s.Elems()
	if n < 0 {
		panic("model: NewTensor: unknown shape " + s.String())
	}
	t := &Tensor{DType: d, Shape: s}
	if d == String {
		t.Strings = make([]string, n)
		return t
	}
	t.Data = alignedBytes(d.Bytes(n))
	return t
}

func alignedBytes(n int64) []byte {
	if n == 0 {
		return []byte{}
	}
	w := make([]uint64, (n+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), len(w)*8)[:n]
}

// Of returns a tensor that holds the given values (shared, not copied). With
// no shape it is one-dimensional.
func Of[T float32 | float64 | int32 | int64 | int8 | uint8 | int16 | uint16 | uint32 | uint64](v []T, shape ...int) *Tensor {
	var z T
	var d DType
	switch any(z).(type) {
	case float32:
		d = Float32
	case float64:
		d = Float64
	case int32:
		d = Int32
	case int64:
		d = Int64
	case int8:
		d = Int8
	case uint8:
		d = UInt8
	case int16:
		d = Int16
	case uint16:
		d = UInt16
	case uint32:
		d = UInt32
	case uint64:
		d = UInt64
	}
	if shape == nil {
		shape = []int{len(v)}
	}
	t := &Tensor{DType: d, Shape: Shape(shape).Clone(), Data: []byte{}}
	if t.Shape.Elems() != int64(len(v)) {
		panic(fmt.Sprintf("model: Of: %d values for shape %v", len(v), t.Shape))
	}
	if len(v) > 0 {
		t.Data = unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(z)))
	}
	return t
}

// Scalar returns a 0-dimensional tensor of one value.
func Scalar[T float32 | float64 | int32 | int64](v T) *Tensor {
	t := Of([]T{v})
	t.Shape = Shape{}
	return t
}

// Len returns the number of elements.
func (t *Tensor) Len() int { return int(t.Shape.Elems()) }

// View returns the tensor's data as a slice of T without a copy. The element
// size must match the tensor's type; it panics otherwise (a programmer's
// mistake). Data that is not aligned is copied first.
func View[T float32 | float64 | int32 | int64 | int8 | uint8 | int16 | uint16 | uint32 | uint64](t *Tensor) []T {
	var z T
	size := int(unsafe.Sizeof(z))
	n := t.Len()
	if len(t.Data) != n*size {
		panic(fmt.Sprintf("model: View of %s tensor %v with %d-byte elements", t.DType, t.Shape, size))
	}
	if n == 0 {
		return nil
	}
	p := unsafe.Pointer(&t.Data[0])
	if uintptr(p)%uintptr(size) != 0 {
		c := alignedBytes(int64(len(t.Data)))
		copy(c, t.Data)
		p = unsafe.Pointer(&c[0])
	}
	return unsafe.Slice((*T)(p), n)
}

// Float32s returns the elements as float32: a view for fp32 tensors, a
// converted copy for every other numeric type.
func (t *Tensor) Float32s() []float32 {
	if t.DType == Float32 {
		return View[float32](t)
	}
	out := make([]float32, t.Len())
	switch t.DType {
	case Float16:
		for i, h := range View[uint16](t) {
			out[i] = float16.Frombits(h).Float32()
		}
	case BFloat16:
		for i, h := range View[uint16](t) {
			out[i] = math.Float32frombits(uint32(h) << 16)
		}
	default:
		for i := range out {
			out[i] = float32(t.At(i))
		}
	}
	return out
}

// Int64s returns the elements as int64 (a view for int64 tensors, a converted
// copy otherwise; floats are truncated).
func (t *Tensor) Int64s() []int64 {
	if t.DType == Int64 {
		return View[int64](t)
	}
	out := make([]int64, t.Len())
	for i := range out {
		out[i] = t.IntAt(i)
	}
	return out
}

// Bits returns the n-bit field at element i of a packed bit stream, least
// significant bit first.
func packedBits(data []byte, i, n int) uint64 {
	bit := i * n
	var v uint64
	for k := 0; k < n; {
		b := data[(bit+k)/8]
		off := (bit + k) % 8
		take := min(8-off, n-k)
		v |= uint64(b>>off&byte(1<<take-1)) << k
		k += take
	}
	return v
}

func setPackedBits(data []byte, i, n int, v uint64) {
	bit := i * n
	for k := 0; k < n; {
		off := (bit + k) % 8
		take := min(8-off, n-k)
		m := byte(1<<take-1) << off
		p := &data[(bit+k)/8]
		*p = *p&^m | byte(v>>k)<<off&m
		k += take
	}
}

// IntAt returns element i as an integer (floats truncated, bool 0 or 1).
func (t *Tensor) IntAt(i int) int64 {
	d := t.Data
	switch t.DType {
	case Bool, UInt8:
		return int64(d[i])
	case Int8:
		return int64(int8(d[i]))
	case Int16:
		return int64(int16(binary.LittleEndian.Uint16(d[2*i:])))
	case UInt16:
		return int64(binary.LittleEndian.Uint16(d[2*i:]))
	case Int32:
		return int64(int32(binary.LittleEndian.Uint32(d[4*i:])))
	case UInt32:
		return int64(binary.LittleEndian.Uint32(d[4*i:]))
	case Int64, UInt64:
		return int64(binary.LittleEndian.Uint64(d[8*i:]))
	case Int4, UInt4, UInt1, UInt2, UInt3, UInt6, Int2:
		n := t.DType.Bits()
		v := packedBits(d, i, n)
		if t.DType.IsSigned() && v>>(n-1) != 0 {
			return int64(v) - 1<<n
		}
		return int64(v)
	}
	return int64(t.At(i))
}

// At returns element i as a float64.
func (t *Tensor) At(i int) float64 {
	d := t.Data
	switch t.DType {
	case Float32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(d[4*i:])))
	case Float64:
		return math.Float64frombits(binary.LittleEndian.Uint64(d[8*i:]))
	case Float16:
		return float64(float16.Frombits(binary.LittleEndian.Uint16(d[2*i:])).Float32())
	case BFloat16:
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(d[2*i:])) << 16))
	case UInt64:
		return float64(binary.LittleEndian.Uint64(d[8*i:]))
	case Float8E4M3FN, Float8E4M3FNUZ, Float8E5M2, Float8E5M2FNUZ, Float4E2M1, String, Complex64, Complex128, Invalid:
		panic("model: At: no scalar value for " + t.DType.String())
	}
	return float64(t.IntAt(i))
}

// Set stores v as element i, rounding to the tensor's type (half to even for
// floats, truncation towards zero for integers; no saturation).
func (t *Tensor) Set(i int, v float64) {
	d := t.Data
	switch t.DType {
	case Float32:
		binary.LittleEndian.PutUint32(d[4*i:], math.Float32bits(float32(v)))
	case Float64:
		binary.LittleEndian.PutUint64(d[8*i:], math.Float64bits(v))
	case Float16:
		binary.LittleEndian.PutUint16(d[2*i:], float16.Fromfloat32(float32(v)).Bits())
	case BFloat16:
		b := math.Float32bits(float32(v))
		if v == v {
			b += 0x7fff + b>>16&1
		}
		binary.LittleEndian.PutUint16(d[2*i:], uint16(b>>16))
	default:
		if !t.DType.IsInt() && t.DType != Bool {
			panic("model: Set: no scalar value for " + t.DType.String())
		}
		t.SetInt(i, int64(v))
	}
}

// SetInt stores v as element i of an integer or bool tensor (low bits kept).
func (t *Tensor) SetInt(i int, v int64) {
	d := t.Data
	switch t.DType {
	case Bool:
		d[i] = 0
		if v != 0 {
			d[i] = 1
		}
	case Int8, UInt8:
		d[i] = byte(v)
	case Int16, UInt16:
		binary.LittleEndian.PutUint16(d[2*i:], uint16(v))
	case Int32, UInt32:
		binary.LittleEndian.PutUint32(d[4*i:], uint32(v))
	case Int64, UInt64:
		binary.LittleEndian.PutUint64(d[8*i:], uint64(v))
	case Int4, UInt4, UInt1, UInt2, UInt3, UInt6, Int2:
		setPackedBits(d, i, t.DType.Bits(), uint64(v))
	default:
		t.Set(i, float64(v))
	}
}

// Convert returns the tensor in another element type, rounding each element
// as [Tensor.Set] does. It returns t itself when the type is the same.
func (t *Tensor) Convert(d DType) *Tensor {
	if t.DType == d {
		return t
	}
	out := NewTensor(d, t.Shape...)
	if d == Float32 {
		copy(View[float32](out), t.Float32s())
		return out
	}
	n := t.Len()
	if t.DType.IsFloat() || d.IsFloat() {
		for i := 0; i < n; i++ {
			out.Set(i, t.At(i))
		}
		return out
	}
	for i := 0; i < n; i++ {
		out.SetInt(i, t.IntAt(i))
	}
	return out
}

// Reshape returns a tensor that shares t's data under another shape with the
// same number of elements; it panics if the count differs.
func (t *Tensor) Reshape(shape ...int) *Tensor {
	s := Shape(shape).Clone()
	if s.Elems() != t.Shape.Elems() {
		panic(fmt.Sprintf("model: Reshape %v to %v", t.Shape, s))
	}
	return &Tensor{DType: t.DType, Shape: s, Data: t.Data, Strings: t.Strings}
}

// Clone returns a deep copy.
func (t *Tensor) Clone() *Tensor {
	c := &Tensor{DType: t.DType, Shape: t.Shape.Clone(), Strings: slices.Clone(t.Strings)}
	c.Data = alignedBytes(int64(len(t.Data)))
	copy(c.Data, t.Data)
	return c
}
