package kernels

import "math"

// QuantizeF32 writes clamp(rint(src/q.Scale) + q.Zero) to dst as raw bytes:
// ONNX QuantizeLinear, ties to even. NaN becomes the zero point.
func QuantizeF32(ctx *Ctx, dst []uint8, src []float32, q QParams) {
	need("QuantizeF32 dst", len(dst), len(src))
	ctx.forFlat(len(src), func(lo, hi int) { quantize(dst[lo:hi], src[lo:hi], q) })
}

// DequantizeF32 writes (src - q.Zero) * q.Scale to dst.
func DequantizeF32(ctx *Ctx, dst []float32, src []uint8, q QParams) {
	need("DequantizeF32 dst", len(dst), len(src))
	ctx.forFlat(len(src), func(lo, hi int) { dequantize(dst[lo:hi], src[lo:hi], q) })
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
	for i, v := range src {
		dst[i] = quantU8(v, q.Scale, z) ^ flip
	}
}

func dequantize(dst []float32, src []uint8, q QParams) {
	z, flip := q.zeroU8(), q.flip()
	for i, v := range src {
		dst[i] = float32(int32(v^flip)-z) * q.Scale
	}
}

// Requantize converts bytes of one quantisation to another: the dequantised
// value, requantised.
func Requantize(ctx *Ctx, dst []uint8, to QParams, src []uint8, from QParams) {
	need("Requantize dst", len(dst), len(src))
	var lut [256]uint8
	z, flip := from.zeroU8(), from.flip()
	for i := range lut {
		v := float32(int32(uint8(i)^flip)-z) * from.Scale
		lut[i] = quantU8(v, to.Scale, to.zeroU8()) ^ to.flip()
	}
	ctx.forFlat(len(src), func(lo, hi int) {
		for i, v := range src[lo:hi] {
			dst[lo+i] = lut[v]
		}
	})
}
