package model

import (
	"fmt"
	"strings"
)

// DType is the element type of a tensor.
type DType uint8

// The element types. Names follow Core ML's vocabulary (fp32, int8, ...).
const (
	Invalid DType = iota
	Bool
	Int4
	UInt4
	Int8
	UInt8
	Int16
	UInt16
	Int32
	UInt32
	Int64
	UInt64
	Float16
	BFloat16
	Float32
	Float64
	String
	UInt1
	UInt2
	UInt3
	UInt6
	Int2
	Float8E4M3FN
	Float8E4M3FNUZ
	Float8E5M2
	Float8E5M2FNUZ
	Float4E2M1
	Complex64
	Complex128
	numDTypes
)

var dtypeInfo = [numDTypes]struct {
	name string
	bits int
}{
	Invalid: {"invalid", 0}, Bool: {"bool", 8}, Int4: {"int4", 4}, UInt4: {"uint4", 4},
	Int8: {"int8", 8}, UInt8: {"uint8", 8}, Int16: {"int16", 16}, UInt16: {"uint16", 16},
	Int32: {"int32", 32}, UInt32: {"uint32", 32}, Int64: {"int64", 64}, UInt64: {"uint64", 64},
	Float16: {"fp16", 16}, BFloat16: {"bf16", 16}, Float32: {"fp32", 32}, Float64: {"fp64", 64},
	String: {"string", 0}, UInt1: {"uint1", 1}, UInt2: {"uint2", 2}, UInt3: {"uint3", 3}, UInt6: {"uint6", 6},
	Int2: {"int2", 2}, Float8E4M3FN: {"fp8e4m3fn", 8}, Float8E4M3FNUZ: {"fp8e4m3fnuz", 8},
	Float8E5M2: {"fp8e5m2", 8}, Float8E5M2FNUZ: {"fp8e5m2fnuz", 8}, Float4E2M1: {"fp4e2m1", 4},
	Complex64: {"complex64", 64}, Complex128: {"complex128", 128},
}

// String returns the Core ML name of the type, for example "fp16".
func (d DType) String() string {
	if d >= numDTypes {
		return fmt.Sprintf("dtype(%d)", uint8(d))
	}
	return dtypeInfo[d].name
}

// Bits returns the number of bits one element takes; 0 for String and Invalid.
func (d DType) Bits() int {
	if d >= numDTypes {
		return 0
	}
	return dtypeInfo[d].bits
}

// Bytes returns how many bytes n elements take when packed without gaps
// (sub-byte types are a bit stream, least significant bit first).
func (d DType) Bytes(n int64) int64 { return (n*int64(d.Bits()) + 7) / 8 }

// IsFloat reports whether d is a floating-point type.
func (d DType) IsFloat() bool {
	switch d {
	case Float16, BFloat16, Float32, Float64, Float8E4M3FN, Float8E4M3FNUZ, Float8E5M2, Float8E5M2FNUZ, Float4E2M1:
		return true
	}
	return false
}

// IsInt reports whether d is an integer type (Bool is not).
func (d DType) IsInt() bool {
	switch d {
	case Int2, Int4, UInt4, Int8, UInt8, Int16, UInt16, Int32, UInt32, Int64, UInt64, UInt1, UInt2, UInt3, UInt6:
		return true
	}
	return false
}

// IsSigned reports whether d is a signed integer type.
func (d DType) IsSigned() bool {
	switch d {
	case Int2, Int4, Int8, Int16, Int32, Int64:
		return true
	}
	return false
}

// IntRange returns the least and the greatest value of an integer type of at
// most 32 bits; ok is false for any other type.
func (d DType) IntRange() (lo, hi int64, ok bool) {
	if !d.IsInt() || d.Bits() > 32 {
		return 0, 0, false
	}
	b := uint(d.Bits())
	if d.IsSigned() {
		return -1 << (b - 1), 1<<(b-1) - 1, true
	}
	return 0, 1<<b - 1, true
}

// ParseDType reads a type's name ("fp16", "float16", "int8", ...).
func ParseDType(s string) (DType, error) {
	t := strings.ToLower(s)
	t = strings.Replace(t, "bfloat", "bf", 1)
	t = strings.Replace(t, "float", "fp", 1)
	for d := DType(1); d < numDTypes; d++ {
		if dtypeInfo[d].name == t {
			return d, nil
		}
	}
	return Invalid, fmt.Errorf("model: unknown element type %q (want fp32, fp16, int8, uint8, int4, uint4, int32, int64 or bool)", s)
}
