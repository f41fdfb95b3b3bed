package kernels

import (
	"math"
	"unsafe"
)

// addArgs are the arguments of the byte addition kernels. Assembly reads it by
// offset (internal/gen/addq8.go holds the same list).
type addArgs struct {
	dst, a, b      unsafe.Pointer
	n              int64 // elements, a positive multiple of 16
	aScale, bScale float32
	aZero, bZero   int32 // zero points, unsigned domain
	aFlip, bFlip   int32 // 0x80 where the bytes are signed
	lo, hi         float32
	qScale, qInv   float32
	qLo, qHi       float32 // least and greatest value in steps of the output
	qAdd           int32   // zero point of the output bytes as stored
	base           float32 // of SumQ8: the sum where both codes are 0
	dFlip          int32   // of SumQ8: 0x80 where the output bytes are signed
	_              int32
}

// AddQ8 adds two tensors of 8-bit codes to one: to dst it writes
//
//	quantize(round(clamp(h(dequantize(a)) + h(dequantize(b)))))
//
// where h rounds to fp16 if round does and is the identity otherwise, and every
// other step rounds to float32, so that the bytes are those of the separate
// functions. act is a clamp or nothing. dst may be a or b.
func AddQ8(ctx *Ctx, dst []uint8, to QParams, a []uint8, qa QParams, b []uint8, qb QParams, act Activation, round Round) {
	lo, hi, ok := act.clip()
	if !ok || round > RoundF16 {
		panic("kernels: AddQ8 takes a clamp and RoundNone or RoundF16")
	}
	t := addTask{dst: dst, a: a, b: b, qa: qa, qb: qb, to: to, act: act, round: round, plain: (*addTask).separate}
	// The vector kernel divides without bounding the quotient first, so sums must
	// be finite, also as fp16.
	bound, limit := 255*(math.Abs(float64(qa.Scale))+math.Abs(float64(qb.Scale))), 1e30
	if round == RoundF16 {
		limit = 32768
	}
	if bound < limit && lo <= float32(bound) && hi >= -float32(bound) && to.Scale >= minScale && to.Scale <= maxScale && bound/float64(to.Scale) < 1e30 {
		z := to.zeroU8()
		t.vector = cur.addQ8[round]
		t.args = addArgs{
			aScale: qa.Scale, bScale: qb.Scale, aZero: qa.zeroU8(), bZero: qb.zeroU8(), aFlip: int32(qa.flip()), bFlip: int32(qb.flip()),
			lo: lo, hi: hi, qScale: to.Scale, qInv: 1 / to.Scale, qLo: float32(-z), qHi: float32(255 - z), qAdd: to.Zero,
		}
	}
	t.start(ctx)
}

// SumQ8 adds two tensors of 8-bit codes in steps of the sum, as integer hardware
// does: with p = a.Scale/to.Scale, q = b.Scale/to.Scale and codes and zero
// points as unsigned ones, it writes to dst
//
//	round(clamp(fma(a, p, fma(b, q, z - (p*za + q*zb))), 0, 255))
//
// in float32, rounding half to even. It is the arithmetic of ONNX Runtime's
// QLinearAdd. Sums whose exact value is within some 1e-6 of half a step may round
// to the other side of it than those of [AddQ8]. Where p or q is below 2^-10 or
// from 2^8 up it is AddQ8 without activation and rounding. dst may be a or b.
func SumQ8(ctx *Ctx, dst []uint8, to QParams, a []uint8, qa QParams, b []uint8, qb QParams) {
	p, q := qa.Scale/to.Scale, qb.Scale/to.Scale
	const least, most = 1.0 / 1024, 256 // fma is exact in float64, then rounded
	if !(p >= least && p < most && q >= least && q < most) {
		AddQ8(ctx, dst, to, a, qa, b, qb, Activation{}, RoundNone)
		return
	}
	t := addTask{dst: dst, a: a, b: b, plain: (*addTask).sum, vector: cur.sumQ8, args: addArgs{
		aScale: p, bScale: q,
		base:  float32(to.zeroU8()) - float32(float32(p*float32(qa.zeroU8()))+float32(q*float32(qb.zeroU8()))),
		aFlip: int32(qa.flip()), bFlip: int32(qb.flip()), dFlip: int32(to.flip()),
	}}
	t.start(ctx)
}

// addTask is a byte addition, cut into pieces of flatGrain.
type addTask struct {
	dst, a, b  []uint8
	qa, qb, to QParams // of AddQ8, like the next line
	act        Activation
	round      Round
	args       addArgs
	vector     func(*addArgs) // nil: plain
	plain      func(t *addTask, dst, a, b []uint8)
}

// start runs the task in the context's own, so that it is not allocated.
func (t addTask) start(ctx *Ctx) {
	need("byte addition: a", len(t.a), len(t.dst))
	need("byte addition: b", len(t.b), len(t.dst))
	ctx.add = t
	ctx.pool.Run(ceilDiv(len(t.dst), flatGrain), &ctx.add)
	ctx.add = addTask{}
}

func (t *addTask) RunPiece(i, _ int) {
	lo, hi := i*flatGrain, min((i+1)*flatGrain, len(t.dst))
	dst, a, b := t.dst[lo:hi], t.a[lo:hi], t.b[lo:hi]
	if t.vector == nil {
		t.plain(t, dst, a, b)
		return
	}
	u := t.args
	if n := len(dst) &^ (Block - 1); n > 0 {
		u.dst, u.a, u.b, u.n = unsafe.Pointer(&dst[0]), unsafe.Pointer(&a[0]), unsafe.Pointer(&b[0]), int64(n)
		t.vector(&u)
		dst, a, b = dst[n:], a[n:], b[n:]
	}
	if len(dst) > 0 {
		var d, x, y [Block]uint8
		copy(x[:], a)
		copy(y[:], b)
		u.dst, u.a, u.b, u.n = unsafe.Pointer(&d), unsafe.Pointer(&x), unsafe.Pointer(&y), Block
		t.vector(&u)
		copy(dst, d[:])
	}
}

// sum is the formula of SumQ8.
func (t *addTask) sum(dst, a, b []uint8) {
	u := &t.args
	for i := range dst {
		x := float32(math.FMA(float64(b[i]^uint8(u.bFlip)), float64(u.bScale), float64(u.base)))
		x = float32(math.FMA(float64(a[i]^uint8(u.aFlip)), float64(u.aScale), float64(x)))
		dst[i] = uint8(math.RoundToEven(float64(min(max(x, 0), 255)))) ^ uint8(u.dFlip)
	}
}

// separate calls the separate functions, a few elements at a time.
func (t *addTask) separate(dst, a, b []uint8) {
	var x, y [256]float32
	for len(dst) > 0 {
		n := min(len(dst), len(x))
		dequantize(x[:n], a[:n], t.qa)
		dequantize(y[:n], b[:n], t.qb)
		roundSlice(x[:n], t.round)
		roundSlice(y[:n], t.round)
		binary(Add, x[:n], x[:n], y[:n])
		finish(x[:n], t.act, t.round)
		quantize(dst[:n], x[:n], t.to)
		dst, a, b = dst[n:], a[n:], b[n:]
	}
}
