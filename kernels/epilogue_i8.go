package kernels

import (
	"fmt"
	"unsafe"
)

// epilogueI8 is what the int8 convolution and linear layer share: scales,
// corrections and the way from an int32 sum to the destination.
type epilogueI8 struct {
	in, out QParams
	zeroIn  int32 // zero point of the source as the multiplier reads it
	flipIn  uint8 // what turns its bytes into that, by exclusive or
	act     Activation
	rnd     Round
	corr    []int32 // integer bias - zero * sum of the weights, per channel
	scale   []float32
	bias    []float32
	// The same in units of the output scale, for byte results without a
	// rounding in between.
	fused  bool
	scaleQ []float32
	biasQ  []float32
	lo, hi float32
	late   bool // the activation is no clamp: applied after the micro-kernel
}

// newEpilogueI8 prepares n output channels; sums are the sums of the weights
// of each; signed is the domain of the multiplier.
func newEpilogueI8(n int, wScale []float32, in, out QParams, ep Epilogue, sums []int32, signed bool) epilogueI8 {
	np := ceilDiv(n, Block) * Block
	e := epilogueI8{in: in, out: out, act: ep.Act, rnd: ep.Round}
	e.corr, e.scale, e.bias = make([]int32, np), make([]float32, np), make([]float32, np)
	copy(e.bias, ep.Bias)
	e.zeroIn = in.Zero
	if in.Signed != signed {
		e.flipIn = 0x80
		e.zeroIn = in.zeroU8()
		if signed {
			e.zeroIn = in.Zero - 128
		}
	}
	zp := e.zeroIn
	for i := 0; i < n; i++ {
		e.scale[i] = in.Scale * wScale[i%len(wScale)]
		e.corr[i] = -zp * sums[i]
		if ep.Sum != nil {
			e.corr[i] += ep.Sum[i]
		}
	}
	var clip bool
	e.lo, e.hi, clip = ep.Act.clip()
	e.late = !clip
	if out != (QParams{}) && clip && ep.Round == RoundNone {
		e.fused = true
		e.scaleQ, e.biasQ = make([]float32, np), make([]float32, np)
		for i := range e.scaleQ {
			e.scaleQ[i] = e.scale[i] / out.Scale
			e.biasQ[i] = e.bias[i] / out.Scale
		}
	}
	return e
}

// fill sets the arguments that do not change from tile to tile. toBytes says
// that the final destination, not only this tile's, is bytes.
func (e *epilogueI8) fill(a *tileArgsI8, out outSpec, res Residual) {
	a.lo, a.hi, a.lanes, a.out = e.lo, e.hi, Block, out.kind()
	if e.late && a.out == outQ8 {
		a.out = outF32
	}
	if !e.late {
		a.round = int64(e.rnd)
	}
	a.rscale = 1
	if res.F32 == nil && res.Q8 != nil {
		a.rq8, a.rscale = 1, res.Q.Scale
		a.rzero, a.rflip = res.Q.zeroU8(), int32(res.Q.flip())
	}
	if a.out != outQ8 {
		return
	}
	z := e.out.zeroU8()
	a.qscale, a.qinv, a.qzero, a.qadd = e.out.Scale, 1/e.out.Scale, z, e.out.Zero
	a.qlo, a.qhi = float32(-z), float32(255-z)
	if e.fused {
		a.fused = 1
		a.rscale /= e.out.Scale
		a.lo, a.hi = max(e.lo/e.out.Scale, a.qlo), min(e.hi/e.out.Scale, a.qhi)
		// Bounds outside the bytes' range still leave one value.
		a.lo, a.hi = min(a.lo, a.qhi), max(a.hi, a.qlo)
	}
}

// channel points the arguments at the values of channel c on.
func (e *epilogueI8) channel(a *tileArgsI8, c int) {
	a.corr = unsafe.Pointer(&e.corr[c])
	if a.fused != 0 {
		a.scale, a.bias = unsafe.Pointer(&e.scaleQ[c]), unsafe.Pointer(&e.biasQ[c])
		return
	}
	a.scale, a.bias = unsafe.Pointer(&e.scale[c]), unsafe.Pointer(&e.bias[c])
}

// finishLate applies the rest of the epilogue to x and stores it at off.
func (e *epilogueI8) finishLate(out outSpec, off int, x []float32) {
	finish(x, e.act, e.rnd)
	if out.f32 != nil {
		copy(out.f32[off:], x)
		return
	}
	quantize(out.q8[off:off+len(x)], x, e.out)
}

func (e *epilogueI8) bytes() int {
	return 4 * (len(e.corr) + len(e.scale) + len(e.bias) + len(e.scaleQ) + len(e.biasQ))
}

// zeroU8 is the zero point in the unsigned domain.
func (q QParams) zeroU8() int32 {
	if q.Signed {
		return q.Zero + 128
	}
	return q.Zero
}

// flip is what turns a raw byte into the unsigned domain, by exclusive or.
func (q QParams) flip() uint8 {
	if q.Signed {
		return 0x80
	}
	return 0
}

// Scales outside this range make the reciprocal or its products lose bits.
const minScale, maxScale = 0x1p-100, 0x1p100

func (q QParams) check(what string) error {
	lo, hi := q.Range()
	if !(q.Scale >= minScale && q.Scale <= maxScale) {
		return fmt.Errorf("kernels: %s scale is %v, must be %g to %g", what, q.Scale, minScale, maxScale)
	}
	if q.Zero < lo || q.Zero > hi {
		return fmt.Errorf("kernels: %s zero point is %d, must be %d to %d", what, q.Zero, lo, hi)
	}
	return nil
}

// maxSum is the longest sum that cannot leave int32: 255*128*maxSum < 2^31.
const maxSum = 65793

func checkI8(outC, sum int, wScale []float32, in, out QParams, ep Epilogue) error {
	if len(wScale) != 1 && len(wScale) != outC {
		return fmt.Errorf("kernels: weight scales have %d values, need 1 or %d", len(wScale), outC)
	}
	if err := in.check("input"); err != nil {
		return err
	}
	if out != (QParams{}) {
		if err := out.check("output"); err != nil {
			return err
		}
	}
	if sum > maxSum {
		return fmt.Errorf("kernels: an int8 sum of %d products can leave int32, must be at most %d", sum, maxSum)
	}
	if ep.Sum != nil && len(ep.Sum) != outC {
		return fmt.Errorf("kernels: integer bias has %d values, need %d", len(ep.Sum), outC)
	}
	if ep.Round > RoundF16Sat || !ep.Act.valid() {
		return fmt.Errorf("kernels: epilogue has unknown activation %d or rounding %d", ep.Act.Kind, ep.Round)
	}
	return nil
}

// outSpec is where a result goes: exactly one of the slices is set.
type outSpec struct {
	i32 []int32
	f32 []float32
	q8  []uint8
}

func (o outSpec) kind() int64 {
	switch {
	case o.i32 != nil:
		return outI32
	case o.f32 != nil:
		return outF32
	}
	return outQ8
}

// at returns the address of element i.
func (o outSpec) at(i int) unsafe.Pointer {
	switch {
	case o.i32 != nil:
		return unsafe.Pointer(&o.i32[i])
	case o.f32 != nil:
		return unsafe.Pointer(&o.f32[i])
	}
	return unsafe.Pointer(&o.q8[i])
}

// size returns the bytes of an element.
func (o outSpec) size() int64 {
	if o.i32 != nil || o.f32 != nil {
		return 4
	}
	return 1
}
