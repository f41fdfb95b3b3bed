package quant

import (
	"math"

	"github.com/x448/float16"

	"github.com/triune-sim/triune/model"
)

// arith is numpy's arithmetic in one floating-point type. Operations on half
// precision compute in single precision and round once: with 24 >= 2*11+2
// bits, sums, products and quotients come out correctly rounded.
type arith struct{ half bool }

func arithOf(d model.DType) arith { return arith{d == model.Float16} }

func (a arith) round(x float32) float32 {
	if a.half {
		return roundHalf(x)
	}
	return x
}

// roundHalf rounds to half precision, half to even. Normal results take the
// short way: adding and subtracting the right power of two rounds the
// mantissa to 11 bits.
func roundHalf(x float32) float32 {
	b := math.Float32bits(x)
	e := b >> 23 & 0xff
	if e < 113 || e > 141 { // below 2^-14, or where rounding may overflow
		return float16.Fromfloat32(x).Float32()
	}
	b += 0xfff + b>>13&1
	return math.Float32frombits(b &^ 0x1fff)
}

// rint rounds to an integer, half to even.
func rint(x float32) float32 { return float32(math.RoundToEven(float64(x))) }

// tensorOf stores float32 values, already rounded, in a tensor of type d.
func tensorOf(d model.DType, vals []float32, shape ...int) *model.Tensor {
	t := model.NewTensor(d, shape...)
	switch d {
	case model.Float32:
		copy(model.View[float32](t), vals)
	case model.Float16:
		h := model.View[uint16](t)
		for i, v := range vals {
			h[i] = float16.Fromfloat32(v).Bits()
		}
	default:
		for i, v := range vals {
			t.Set(i, float64(v))
		}
	}
	return t
}

// pack stores small integers in a tensor of type d.
func pack[T int8 | uint8 | int16](d model.DType, v []T, shape ...int) *model.Tensor {
	t := model.NewTensor(d, shape...)
	switch d {
	case model.Int8, model.UInt8:
		for i, x := range v {
			t.Data[i] = byte(x)
		}
	case model.Int4, model.UInt4:
		for i, x := range v {
			t.Data[i>>1] |= byte(x) & 15 << (4 * uint(i&1))
		}
	default:
		for i, x := range v {
			t.SetInt(i, int64(x))
		}
	}
	return t
}

// indexType returns the unsigned type of a palette's indices, Invalid if there
// is none of so many bits.
func indexType(bits int) model.DType {
	switch bits {
	case 1:
		return model.UInt1
	case 2:
		return model.UInt2
	case 3:
		return model.UInt3
	case 4:
		return model.UInt4
	case 6:
		return model.UInt6
	case 8:
		return model.UInt8
	}
	return model.Invalid
}
