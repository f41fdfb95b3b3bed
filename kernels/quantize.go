package kernels

import (
	"math"
	"unsafe"
)

// QuantizeF32 writes clamp(rint(src/q.Scale) + q.Zero) to dst as raw bytes:
// ONNX QuantizeLinear, ties to even. NaN becomes the zero point.
func QuantizeF32(ctx *Ctx, dst []uint8, src []float32, q QParams) {
	need("QuantizeF32 dst", len(dst), len(src))
	ctx.runFlat(flatTask{kind: flatQuant, n: len(src), d8: dst, a: src, q: q})
}

// DequantizeF32 writes (src - q.Zero) * q.Scale to dst.
func DequantizeF32(ctx *Ctx, dst []float32, src []uint8, q QParams) {
	need("DequantizeF32 dst", len(dst), len(src))
	ctx.runFlat(flatTask{kind: flatDequant, n: len(src), dst: dst, s8: src, q: q})
}

// quantU8 quantises in the unsigned domain.
func quantU8(v, scale float32, zero int32) uint8 {
	r := float32(v / scale)
	// Clamp before rounding: bounds are integers, so the order is immaterial,
	// and the conversion below stays in range.
	lo, hi := float32(-zero), float32(255-zero)
	if !(r > lo) {
		if r != r {
			return uint8(zero)
		}
		return 0
	}
	if r >= hi {
		return 255
	}
	return uint8(int32(math.RoundToEven(float64(r))) + zero)
}

func quantize(dst []uint8, src []float32, q QParams) {
	z, flip := q.zeroU8(), q.flip()
	if len(src) > 0 {
		t := vecArgs{dst: unsafe.Pointer(&dst[0]), a: unsafe.Pointer(&src[0]),
			p: [6]float32{q.Scale, 1 / q.Scale, float32(-z), float32(255 - z), math.Float32frombits(uint32(q.Zero))}}
		if q.Scale >= minScale && q.Scale <= maxScale && vecRun(vopQuant, &t, len(src), 1, 4, 0) {
			return
		}
	}
	for i, v := range src {
		dst[i] = quantU8(v, q.Scale, z) ^ flip
	}
}

func dequantize(dst []float32, src []uint8, q QParams) {
	z, flip := q.zeroU8(), q.flip()
	if len(src) > 0 {
		t := vecArgs{dst: unsafe.Pointer(&dst[0]), a: unsafe.Pointer(&src[0]),
			p: [6]float32{q.Scale, math.Float32frombits(uint32(z)), math.Float32frombits(uint32(flip))}}
		if vecRun(vopDequant, &t, len(src), 4, 1, 0) {
			return
		}
	}
	for i, v := range src {
		dst[i] = float32(int32(v^flip)-z) * q.Scale
	}
}

// Requantize converts bytes of one quantisation to another: the dequantised
// value, requantised.
func Requantize(ctx *Ctx, dst []uint8, to QParams, src []uint8, from QParams) {
	need("Requantize dst", len(dst), len(src))
	z, flip := from.zeroU8(), from.flip()
	for i := range ctx.lut {
		v := float32(int32(uint8(i)^flip)-z) * from.Scale
		ctx.lut[i] = quantU8(v, to.Scale, to.zeroU8()) ^ to.flip()
	}
	ctx.runFlat(flatTask{kind: flatLUT, n: len(src), d8: dst, s8: src, lut: &ctx.lut})
}

// LookupU8 writes table[src[i]] to dst: any function of one 8-bit value.
func LookupU8(ctx *Ctx, dst, src []uint8, table *[256]uint8) {
	need("LookupU8 dst", len(dst), len(src))
	ctx.runFlat(flatTask{kind: flatLUT, n: len(src), d8: dst, s8: src, lut: table})
}
