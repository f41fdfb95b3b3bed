package kernels

import (
	"math"
	"unsafe"
)

// F16Bits returns the fp16 nearest to x (ties to even; overflow to infinity
// from 65520 up; NaN stays NaN with its top payload bits, quiet).
func F16Bits(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000: // NaN
		return sign | 0x7e00 | uint16(b>>13&0x3ff)
	case b >= 0x477ff000: // >= 65520 rounds to infinity
		return sign | 0x7c00
	case b >= 0x38800000: // normal fp16
		b += 0xfff + (b >> 13 & 1) // round half to even at bit 13
		return sign | uint16((b-0x38000000)>>13)
	default: // subnormal or zero: adding 0.5 aligns the mantissa and rounds
		f := math.Float32frombits(b) + 0.5
		return sign | uint16(math.Float32bits(f)-0x3f000000)
	}
}

// F16ToFloat returns the value of fp16 bits, exactly.
func F16ToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	e := uint32(h >> 10 & 0x1f)
	m := uint32(h & 0x3ff)
	switch {
	case e == 0x1f:
		if m != 0 {
			m |= 0x200 // quiet, as the hardware does
		}
		return math.Float32frombits(sign | 0x7f800000 | m<<13)
	case e != 0:
		return math.Float32frombits(sign | (e+112)<<23 | m<<13)
	default:
		f := float32(m) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(f))
	}
}

func round16(x float32) float32 { return F16ToFloat(F16Bits(x)) }

func round16sat(x float32) float32 {
	if x >= 32768 {
		return inf32
	}
	if x <= -32768 {
		return -inf32
	}
	return round16(x)
}

// RoundF16Slice writes src rounded to fp16 to dst (may be src).
func RoundF16Slice(ctx *Ctx, dst, src []float32) {
	need("dst", len(dst), len(src))
	ctx.runFlat(flatTask{kind: flatRound, n: len(src), dst: dst, a: src, round: RoundF16})
}

// RoundF16SatSlice is [RoundF16Slice] with |x| >= 32768 becoming infinity.
func RoundF16SatSlice(ctx *Ctx, dst, src []float32) {
	need("dst", len(dst), len(src))
	ctx.runFlat(flatTask{kind: flatRound, n: len(src), dst: dst, a: src, round: RoundF16Sat})
}

// F32ToF16 writes the fp16 bits nearest to src to dst.
func F32ToF16(ctx *Ctx, dst []uint16, src []float32) {
	need("dst", len(dst), len(src))
	ctx.runFlat(flatTask{kind: flatToF16, n: len(src), h: dst, a: src})
}

// F16ToF32 writes the values of fp16 bits to dst, exactly.
func F16ToF32(ctx *Ctx, dst []float32, src []uint16) {
	need("dst", len(dst), len(src))
	ctx.runFlat(flatTask{kind: flatFromF16, n: len(src), dst: dst, h: src})
}

func roundF16(dst, src []float32) {
	if vec1(vopRoundF16, dst, src, 0, 0) {
		return
	}
	for i, v := range src {
		dst[i] = round16(v)
	}
}

func roundF16Sat(dst, src []float32) {
	if vec1(vopRoundF16Sat, dst, src, 0, 0) {
		return
	}
	for i, v := range src {
		dst[i] = round16sat(v)
	}
}

func f32ToF16(dst []uint16, src []float32) {
	if len(src) > 0 {
		t := vecArgs{dst: unsafe.Pointer(&dst[0]), a: unsafe.Pointer(&src[0])}
		if vecRun(vopToF16, &t, len(src), 2, 4, 0) {
			return
		}
	}
	for i, v := range src {
		dst[i] = F16Bits(v)
	}
}

func f16ToF32(dst []float32, src []uint16) {
	if len(src) > 0 {
		t := vecArgs{dst: unsafe.Pointer(&dst[0]), a: unsafe.Pointer(&src[0])}
		if vecRun(vopFromF16, &t, len(src), 4, 2, 0) {
			return
		}
	}
	for i, v := range src {
		dst[i] = F16ToFloat(v)
	}
}
