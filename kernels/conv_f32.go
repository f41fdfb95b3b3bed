package kernels

import (
	"fmt"
	"unsafe"
)

// ConvF32 is a float32 convolution with packed weights and a fused epilogue.
// It is immutable and safe for concurrent use.
type ConvF32 struct {
	plan  *convPlan
	dw    *depthwiseF32 // set instead of the packed weights for depthwise
	w     []float32
	bias  []float32 // 16 per output block
	lo    float32
	hi    float32
	round Round
	act   Activation // what is left for the pass after the micro-kernel
	rnd   Round      // rounding of that pass
	mk    microF32
}

// NewConvF32 packs a convolution. weights are OIHW, [OutC][InC/Groups][KH][KW];
// ep.Bias has OutC values or is nil.
func NewConvF32(s ConvShape, weights []float32, ep Epilogue) (*ConvF32, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	s = s.defaults()
	if err := checkWeights(s, len(weights), ep); err != nil {
		return nil, err
	}
	c := &ConvF32{mk: cur.f32}
	if ep.Round > RoundF16Sat || !ep.Act.valid() {
		return nil, fmt.Errorf("kernels: convolution epilogue has unknown activation %d or rounding %d", ep.Act.Kind, ep.Round)
	}
	var ok bool
	if c.lo, c.hi, ok = ep.Act.clip(); ok {
		c.round = ep.Round
	} else {
		c.act, c.rnd = ep.Act, ep.Round
	}
	c.bias = make([]float32, ceilDiv(s.OutC, Block)*Block)
	copy(c.bias, ep.Bias)
	if s.isDepthwise() {
		c.dw = newDepthwiseF32(s, weights)
		c.plan = &convPlan{s: s}
		return c, nil
	}
	c.plan = newConvPlan(s, 4, c.mk.nb, c.mk.maxP, false, false)
	c.w = make([]float32, c.plan.wLen, c.plan.wLen+wSlack)
	for i := range c.plan.tiles {
		t := &c.plan.tiles[i]
		packTile(c.plan, t, c.w[t.w:], weights)
	}
	return c, nil
}

func checkWeights(s ConvShape, n int, ep Epilogue) error {
	if want := s.OutC * (s.InC / s.Groups) * s.KH * s.KW; n != want {
		return fmt.Errorf("kernels: convolution weights have %d values, shape %dx%dx%dx%d needs %d", n, s.OutC, s.InC/s.Groups, s.KH, s.KW, want)
	}
	if ep.Bias != nil && len(ep.Bias) != s.OutC {
		return fmt.Errorf("kernels: convolution bias has %d values, needs %d", len(ep.Bias), s.OutC)
	}
	return nil
}

func (s ConvShape) isDepthwise() bool {
	return s.Groups == s.InC && s.InC == s.OutC && s.InC > 1
}

// Shape returns the geometry.
func (c *ConvF32) Shape() ConvShape { return c.plan.s }

// WeightBytes returns the bytes of the packed weights and bias.
func (c *ConvF32) WeightBytes() int {
	n := 4 * (len(c.w) + len(c.bias))
	if c.dw != nil {
		n += 4 * len(c.dw.w)
	}
	return n
}

// ScratchBytes returns the bytes of scratch that Run needs in each worker.
func (c *ConvF32) ScratchBytes() int {
	if c.dw != nil {
		return c.dw.scratchBytes()
	}
	if c.plan.via == viaDirect {
		return 0
	}
	return 4 * c.plan.bufLen
}

type convTask struct {
	c             *ConvF32
	ctx           *Ctx
	dst, src, res []float32
	chunks, split int
}

// Run computes n images: dst (C16) = epilogue(conv(src) + residual). src is
// C16, or plain with InPlain; res is nil or has the shape of dst (it may be
// dst itself).
func (c *ConvF32) Run(ctx *Ctx, dst, src, res []float32, n int) {
	s := &c.plan.s
	need("convolution dst", len(dst), s.DstLen(n))
	need("convolution src", len(src), s.SrcLen(n))
	if res != nil {
		need("convolution residual", len(res), s.DstLen(n))
	}
	if n < 1 {
		return
	}
	if c.dw != nil {
		c.dw.run(ctx, c, dst, src, res, n)
		return
	}
	t := &ctx.conv
	*t = convTask{c: c, ctx: ctx, dst: dst, src: src, res: res, chunks: c.plan.chunks()}
	t.split = c.plan.ocSplit(n*t.chunks, ctx.Threads())
	ctx.forgetCopies()
	ctx.pool.Run(n*t.chunks*t.split, t)
	*t = convTask{}
}

func (t *convTask) RunPiece(i, worker int) {
	c, p, w := t.c, t.c.plan, &t.ctx.workers[worker]
	s := &p.s
	chunk := i / t.split
	img, ck := chunk/t.chunks, chunk%t.chunks
	tile0 := len(p.tiles) * (i % t.split) / t.split
	tile1 := len(p.tiles) * (i%t.split + 1) / t.split
	outHW := p.oh * p.ow

	r0, r1, c0, c1 := ck*p.rows, min((ck+1)*p.rows, p.oh), 0, p.ow
	if p.flat {
		r0, r1, c0, c1 = 0, 1, ck*p.rows, min((ck+1)*p.rows, p.ow)
	}
	base := unsafe.Pointer(unsafe.SliceData(t.src))
	lineLen := p.iw * Block
	var rowOff int
	posLen := Block
	if p.via == viaDirect {
		base = unsafe.Add(base, 4*img*p.icBlocks*p.ih*p.iw*Block)
	} else {
		buf := w.f32(p.bufLen)
		if w.copied != chunk {
			copyChunk(p, buf, t.src, img, r0, c0, 0)
			w.copied = chunk
		}
		base = unsafe.Pointer(unsafe.SliceData(buf))
		lineLen, posLen = p.bufW*p.bufC, p.bufC
		rowOff = r0
	}
	a := &w.tile
	a.stride = int64(4 * s.StrideW * posLen)
	a.dstride, a.dblock = 4*Block, int64(4*outHW*Block)
	a.lo, a.hi, a.round, a.lanes = c.lo, c.hi, int64(c.round), Block
	rowStep := 1
	if width := c1 - c0; !p.flat && 2*width <= c.mk.maxP {
		rowStep = 2
	}
	for ti := tile0; ti < tile1; ti++ {
		tl := &p.tiles[ti]
		a.taps, a.ntaps = &p.taps[tl.tap0], int64(tl.tapN)
		a.w = unsafe.Pointer(&c.w[tl.w])
		a.bias = unsafe.Pointer(&c.bias[tl.block*Block])
		a.nb = int64(tl.nb)
		pf := p.newPrefetch(unsafe.Pointer(&c.w[0]), ti, tile1)
		dst0 := (img*p.ocBlocks + tl.block) * outHW * Block
		for r := r0; r < r1; r += rowStep {
			rowBase := unsafe.Add(base, 4*(r-rowOff)*s.StrideH*lineLen)
			if rowStep == 2 && r+1 < r1 {
				a.a = rowBase
				a.b = unsafe.Add(rowBase, 4*s.StrideH*lineLen)
				a.p = int64(2 * p.ow)
				t.tile(a, &pf, dst0+r*p.ow*Block)
				continue
			}
			for col, left := c0, c1-c0; left > 0; {
				n := splitEven(left, c.mk.maxP)
				a.a = unsafe.Add(rowBase, 4*col*s.StrideW*posLen)
				a.b = unsafe.Add(a.a, secondGroup(n)*a.stride)
				a.p = int64(n)
				t.tile(a, &pf, dst0+(r*p.ow+col)*Block)
				col, left = col+n, left-n
			}
		}
		if c.act.Kind != ActNone || c.rnd != RoundNone {
			for b := 0; b < tl.nb; b++ {
				d := dst0 + b*outHW*Block
				finish(t.dst[d+(r0*p.ow+c0)*Block:d+((r1-1)*p.ow+c1)*Block], c.act, c.rnd)
			}
		}
	}
	a.clear()
}

// splitEven returns the size of the next of the fewest, nearly equal parts of
// at most maxN that left is cut into.
func splitEven(left, maxN int) int {
	if left <= maxN {
		return left
	}
	if left >= 4*maxN {
		return maxN
	}
	return ceilDiv(left, ceilDiv(left, maxN))
}

func (t *convTask) tile(a *tileArgs, pf *prefetch, dst int) {
	a.pf, a.pfStep = pf.step()
	a.dst = unsafe.Pointer(&t.dst[dst])
	if t.res != nil {
		a.res = unsafe.Pointer(&t.res[dst])
	}
	t.c.mk.run(a)
}

// clear drops the pointers of a finished call.
func (t *tileArgs) clear() { *t = tileArgs{} }
