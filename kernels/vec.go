package kernels

import "unsafe"

// vecOp is a flat kernel of internal/gen/vec.go.
type vecOp uint8

const (
	vopAdd   vecOp = iota // dst = a + b
	vopAddS               // dst = a + p0
	vopAdd16              // dst = a + b, b of 16 repeated
	vopSub
	vopSubS
	vopSub16
	vopMul
	vopMulS
	vopMul16
	vopDiv
	vopDivS
	vopDiv16
	vopClip        // p0, p1
	vopHardSigmoid // p0, p1
	vopHardSwish
	vopLeakyRelu // p0
	vopAffine16  // (a - p0)*b + c, b and c of 16 repeated
	vopNorm      // (a - p0)*p1*b + c
	vopMulAdd    // a*p0 + p1
	vopMax       // 16 lane-wise maxima
	vopSum       // 16 lane-wise sums
	vopExp
	vopExpSum // dst = exp(a - p0), 16 lane-wise sums to b
	vopSigmoid
	vopSilu
	vopGeluTanh
	vopTanh
	vopElu // p0
	vopGelu
	vopRoundF16
	vopRoundF16Sat
	vopToF16
	vopFromF16
	vopQuant
	vopDequant
	vopSum64
	vopVar64
)

// vecArgs are the arguments of the flat kernels. Assembly reads it by offset.
type vecArgs struct {
	dst, a, b, c unsafe.Pointer
	n            int64 // elements, a positive multiple of 16
	p            [6]float32
}

// vecRun runs op for the level in use and reports whether it has one. n may be
// any length: what is left over 16 goes through a padded copy. Elements are
// as, bs and ds bytes; bs 0 means b does not step.
func vecRun(op vecOp, t *vecArgs, n, ds, as, bs int) bool {
	full := n &^ 15
	if full > 0 {
		t.n = int64(full)
		if !vecCall(op, t) {
			return false
		}
	}
	rest := n - full
	if rest == 0 {
		return true
	}
	var x, y, d [64]byte
	copy(x[:rest*as], unsafe.Slice((*byte)(unsafe.Add(t.a, full*as)), rest*as))
	u := vecArgs{dst: unsafe.Pointer(&d), a: unsafe.Pointer(&x), b: t.b, c: t.c, n: 16, p: t.p}
	if bs > 0 {
		copy(y[:rest*bs], unsafe.Slice((*byte)(unsafe.Add(t.b, full*bs)), rest*bs))
		u.b = unsafe.Pointer(&y)
	}
	if !vecCall(op, &u) {
		return false
	}
	copy(unsafe.Slice((*byte)(unsafe.Add(t.dst, full*ds)), rest*ds), d[:rest*ds])
	return true
}

// vec1 runs a function of one slice.
func vec1(op vecOp, dst, a []float32, p0, p1 float32) bool {
	if len(a) == 0 {
		return true
	}
	t := vecArgs{dst: unsafe.Pointer(&dst[0]), a: unsafe.Pointer(&a[0]), p: [6]float32{p0, p1}}
	return vecRun(op, &t, len(a), 4, 4, 0)
}

// vec2 runs a function of two slices.
func vec2(op vecOp, dst, a, b []float32) bool {
	if len(a) == 0 {
		return true
	}
	t := vecArgs{dst: unsafe.Pointer(&dst[0]), a: unsafe.Pointer(&a[0]), b: unsafe.Pointer(&b[0])}
	return vecRun(op, &t, len(a), 4, 4, 4)
}
