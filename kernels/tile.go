package kernels

import (
	"math"
	"unsafe"
)

// The micro-kernel contract. Convolution, linear layers and batched products
// all come down to one operation: for P output positions (at most the level's
// maxP) and nb blocks of 16 output channels,
//
//	sum[p][c] = bias[c] + sum over taps t, k < t.n of x(p, t, k) * w[.][c]
//
// where x(p, t, k) = *(base(p) + t.off + 4*k). Positions 0..P1-1, with
// P1 = (P+1)/2, start at a, the others at b; both step by stride. Two bases let
// one tile span two short image rows. Weights are read in tap order, 16*nb
// floats for each k.

// wSlack is the spare capacity behind packed weights, in floats: a walking
// pointer rests one step past the last weight, which must still be inside the
// allocation.
const wSlack = 64

// tap is a run of n consecutive input values at a byte offset from a position.
type tap struct {
	off int64
	n   int64
}

// tileArgs are the arguments of the float32 micro-kernels. Assembly reads it
// by offset: keep the order (gen/args.go holds the same list).
type tileArgs struct {
	a, b    unsafe.Pointer // first position of each group
	stride  int64          // bytes between positions
	taps    *tap
	ntaps   int64
	w       unsafe.Pointer // packed weights of this tile
	dst     unsafe.Pointer // position 0, block 0
	dstride int64          // bytes between positions of dst
	dblock  int64          // bytes between blocks of dst
	res     unsafe.Pointer // residual, strides of dst; nil for none
	bias    unsafe.Pointer // 16*nb floats
	lo, hi  float32        // clamp after the residual
	round   int64          // a Round
	lanes   int64          // valid lanes of the last block, 1..16
	p       int64          // positions
	nb      int64          // blocks, 1 or 2
	rows    int64          // depthwise: output rows of p positions (counted down)
	srow    int64          // depthwise: bytes between the inputs of two rows
	pf      unsafe.Pointer // weights of a later tile to fetch meanwhile, or nil
	pfStep  int64          // bytes fetched for four values of input, 128 or 0
	tabs    [4]*tap        // depthwise in place: taps of inner, first, last, only tiles
}

// microF32 is one level's float32 micro-kernel.
type microF32 struct {
	maxP, nb int
	run      func(*tileArgs)
}

// tileF32Go is the plain Go micro-kernel.
func tileF32Go(t *tileArgs) {
	taps := unsafe.Slice(t.taps, t.ntaps)
	p1 := (t.p + 1) / 2
	for blk := int64(0); blk < t.nb; blk++ {
		lanes := 16
		if blk == t.nb-1 {
			lanes = int(t.lanes)
		}
		bias := (*[16]float32)(unsafe.Add(t.bias, blk*64))
		for p := int64(0); p < t.p; p += 2 {
			x0 := t.position(p, p1)
			two := p+1 < t.p
			x1 := x0
			if two {
				x1 = t.position(p+1, p1)
			}
			s0, s1 := *bias, *bias
			w := unsafe.Add(t.w, blk*64)
			for _, tp := range taps {
				y0, y1 := unsafe.Add(x0, tp.off), unsafe.Add(x1, tp.off)
				for k := int64(0); k < tp.n; k++ {
					wv := (*[16]float32)(w)
					v0, v1 := *(*float32)(unsafe.Add(y0, 4*k)), *(*float32)(unsafe.Add(y1, 4*k))
					for j := range wv {
						s0[j] += v0 * wv[j]
						s1[j] += v1 * wv[j]
					}
					w = unsafe.Add(w, t.nb*64)
				}
			}
			t.store(&s0, p, blk, lanes)
			if two {
				t.store(&s1, p+1, blk, lanes)
			}
		}
	}
}

func (t *tileArgs) position(p, p1 int64) unsafe.Pointer {
	if p < p1 {
		return unsafe.Add(t.a, p*t.stride)
	}
	return unsafe.Add(t.b, (p-p1)*t.stride)
}

func (t *tileArgs) store(s *[16]float32, p, blk int64, lanes int) {
	off := p*t.dstride + blk*t.dblock
	dst := unsafe.Slice((*float32)(unsafe.Add(t.dst, off)), lanes)
	if t.res != nil {
		res := unsafe.Slice((*float32)(unsafe.Add(t.res, off)), lanes)
		for j, v := range res {
			s[j] += v
		}
	}
	for j := range dst {
		v := s[j]
		if v < t.lo {
			v = t.lo
		}
		if v > t.hi {
			v = t.hi
		}
		switch Round(t.round) {
		case RoundF16:
			v = round16(v)
		case RoundF16Sat:
			v = round16sat(v)
		}
		dst[j] = v
	}
}

// Output kinds of the int8 micro-kernels.
const (
	outI32 = iota // raw accumulators
	outF32        // float32 after the epilogue
	outQ8         // requantised byte
)

// tileArgsI8 are the arguments of the int8 micro-kernels: u8 activations
// times s8 weights, summed exactly in int32 (modulo 2^32). tap.n counts groups
// of four bytes; weights are [k/4][16*nb][4]. Assembly reads it by offset (the
// first fields are those of tileArgs).
type tileArgsI8 struct {
	a, b    unsafe.Pointer
	stride  int64 // bytes between positions
	taps    *tap
	ntaps   int64
	w       unsafe.Pointer
	dst     unsafe.Pointer
	dstride int64
	dblock  int64
	res     unsafe.Pointer // float32 or byte residual, nil for none
	corr    unsafe.Pointer // int32 start value per channel
	lo, hi  float32
	round   int64
	lanes   int64
	p       int64
	nb      int64
	scale   unsafe.Pointer // float32 per channel
	bias    unsafe.Pointer // float32 per channel
	out     int64          // outI32, outF32, outQ8
	fused   int64          // outQ8: the value is in units of the output scale already
	rq8     int64          // residual is bytes
	rstride int64          // bytes between positions of res
	rblock  int64          // bytes between blocks of res
	rscale  float32        // factor of the residual
	rzero   int32          // zero point of a byte residual, unsigned domain
	rflip   int32          // 0x80 when the residual bytes are signed
	qadd    int32          // zero point of the output bytes as stored
	qscale  float32        // output scale
	qinv    float32        // float32(1/qscale)
	qzero   int32          // output zero point, unsigned domain
	qlo     float32        // -qzero
	qhi     float32        // 255 - qzero
	cstride int64          // bytes between positions of corr, 0 usually
	rows    int64          // as in tileArgs
	srow    int64
	pf      unsafe.Pointer
	pfStep  int64
}

// microI8 is one level's int8 micro-kernel.
type microI8 struct {
	maxP, nb int
	signed   bool // multiplies signed activations (q-128 for unsigned ones)
	run      func(*tileArgsI8)
}

// tileI8Go is the plain Go int8 micro-kernel.
func tileI8Go(t *tileArgsI8) {
	taps := unsafe.Slice(t.taps, t.ntaps)
	p1 := (t.p + 1) / 2
	for blk := int64(0); blk < t.nb; blk++ {
		lanes := 16
		if blk == t.nb-1 {
			lanes = int(t.lanes)
		}
		for p := int64(0); p < t.p; p++ {
			x := unsafe.Add(t.a, p*t.stride)
			if p >= p1 {
				x = unsafe.Add(t.b, (p-p1)*t.stride)
			}
			s := *(*[16]int32)(unsafe.Add(t.corr, p*t.cstride+blk*64))
			w := unsafe.Add(t.w, blk*64)
			for _, tp := range taps {
				y := unsafe.Add(x, tp.off)
				for k := int64(0); k < tp.n; k++ {
					v := (*[4]uint8)(unsafe.Add(y, 4*k))
					v0, v1, v2, v3 := int32(v[0]), int32(v[1]), int32(v[2]), int32(v[3])
					wv := (*[64]int8)(w)
					for j := range s {
						s[j] += v0*int32(wv[4*j]) + v1*int32(wv[4*j+1]) + v2*int32(wv[4*j+2]) + v3*int32(wv[4*j+3])
					}
					w = unsafe.Add(w, t.nb*64)
				}
			}
			t.store(&s, p, blk, lanes)
		}
	}
}

func (t *tileArgsI8) store(s *[16]int32, p, blk int64, lanes int) {
	d := unsafe.Add(t.dst, p*t.dstride+blk*t.dblock)
	if t.out == outI32 {
		copy(unsafe.Slice((*int32)(d), lanes), s[:])
		return
	}
	scale := (*[16]float32)(unsafe.Add(t.scale, blk*64))
	bias := (*[16]float32)(unsafe.Add(t.bias, blk*64))
	for j := 0; j < lanes; j++ {
		v := float32(float32(s[j]) * scale[j])
		v += bias[j]
		if t.res != nil {
			r := unsafe.Add(t.res, p*t.rstride+blk*t.rblock)
			if t.rq8 != 0 {
				q := int32(*(*uint8)(unsafe.Add(r, j))^uint8(t.rflip)) - t.rzero
				v += float32(float32(q) * t.rscale)
			} else {
				v += float32(*(*float32)(unsafe.Add(r, 4*j)) * t.rscale)
			}
		}
		if v < t.lo {
			v = t.lo
		}
		if v > t.hi {
			v = t.hi
		}
		switch Round(t.round) {
		case RoundF16:
			v = round16(v)
		case RoundF16Sat:
			v = round16sat(v)
		}
		switch {
		case t.out == outF32:
			*(*float32)(unsafe.Add(d, 4*j)) = v
		case t.fused != 0:
			*(*uint8)(unsafe.Add(d, j)) = uint8(int32(math.RoundToEven(float64(v))) + t.qadd)
		default:
			*(*uint8)(unsafe.Add(d, j)) = quantU8(v, t.qscale, t.qzero) + uint8(t.qadd-t.qzero)
		}
	}
}

// secondGroup returns the index of the position that base b addresses. A tile
// of one position has no second group; b then equals a, because a pointer past
// the end of a slice must not be kept.
func secondGroup(p int) int64 {
	if p < 2 {
		return 0
	}
	return int64((p + 1) / 2)
}
