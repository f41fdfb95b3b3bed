package kernels

import (
	bin "encoding/binary"
	"unsafe"
)

// ConvI8Config describes an int8 convolution: real output =
// epilogue(sum (x - In.Zero) * w * In.Scale * WScale[oc]).
type ConvI8Config struct {
	Shape   ConvShape
	Weights []int8    // OIHW
	WScale  []float32 // one, or one per output channel
	In      QParams   // of the source; padding is In.Zero
	Out     QParams   // of the destination of RunQ8
	Epilogue
}

// ConvI8 is a convolution of 8-bit activations with int8 weights: exact int32
// accumulation, then the float epilogue
//
//	y = round(act((acc+sum[oc])*s[oc] + bias[oc] + residual)),  s = In.Scale*WScale[oc]
//
// and for RunQ8
//
//	q = clamp(rint(y/Out.Scale) + Out.Zero)
//
// Where nothing rounds in between (no Round, and an activation that is a
// clamp), RunQ8 works in units of the output scale, as fixed-function hardware
// and ONNX Runtime do:
//
//	q = clamp(rint((acc+sum[oc])*(s[oc]/Out.Scale) + bias[oc]/Out.Scale + residual/Out.Scale) + Out.Zero)
//
// Every step is rounded to float32 and none is a fused multiply-add, rint is
// half to even, so the result is the same bits on every instruction set
// (activations other than clamps are approximated and may differ in their last
// bits). Immutable, safe for concurrent use.
type ConvI8 struct {
	epilogueI8
	plan *convPlan
	cfg  ConvI8Config
	dw   *depthwiseI8
	w    []int8
	mk   microI8
}

// NewConvI8 packs an int8 convolution.
func NewConvI8(cfg ConvI8Config) (*ConvI8, error) {
	s := cfg.Shape
	if err := s.Validate(); err != nil {
		return nil, err
	}
	s = s.defaults()
	if err := checkWeights(s, len(cfg.Weights), cfg.Epilogue); err != nil {
		return nil, err
	}
	if err := checkI8(s.OutC, s.InC/s.Groups*s.KH*s.KW, cfg.WScale, cfg.In, cfg.Out, cfg.Epilogue); err != nil {
		return nil, err
	}
	c := &ConvI8{mk: cur.i8, cfg: cfg}
	c.cfg.Shape = s
	per := len(cfg.Weights) / s.OutC
	sums := make([]int32, s.OutC)
	for oc := range sums {
		sums[oc] = sumI8(cfg.Weights[oc*per : (oc+1)*per])
	}
	c.epilogueI8 = newEpilogueI8(s.OutC, cfg.WScale, cfg.In, cfg.Out, cfg.Epilogue, sums, c.mk.signed && !s.isDepthwise())
	if s.isDepthwise() {
		c.plan = &convPlan{s: s}
		c.dw = newDepthwiseI8(s, cfg.Weights)
	} else {
		c.plan = newConvPlan(s, 1, c.mk.nb, c.mk.maxP, true, c.flipIn != 0)
		c.w = make([]int8, c.plan.wLen, c.plan.wLen+4*wSlack)
		for i := range c.plan.tiles {
			t := &c.plan.tiles[i]
			packTile(c.plan, t, c.w[t.w:], cfg.Weights)
		}
	}
	c.cfg.Weights = nil
	return c, nil
}

// sumI8 adds up w, in four chains that do not wait for one another.
func sumI8(w []int8) int32 {
	var a, b, c, d int32
	for ; len(w) >= 4; w = w[4:] {
		a += int32(w[0])
		b += int32(w[1])
		c += int32(w[2])
		d += int32(w[3])
	}
	for _, v := range w {
		a += int32(v)
	}
	return a + b + c + d
}

// Shape returns the geometry.
func (c *ConvI8) Shape() ConvShape { return c.cfg.Shape }

// WeightBytes returns the bytes of the packed weights, scales and biases.
func (c *ConvI8) WeightBytes() int {
	n := len(c.w) + c.epilogueI8.bytes()
	if c.dw != nil {
		n += len(c.dw.w)
	}
	return n
}

// ScratchBytes returns the bytes of scratch that Run needs in each worker.
func (c *ConvI8) ScratchBytes() int {
	if c.dw != nil {
		return c.dw.scratchBytes()
	}
	n := c.lateOff()
	if c.late {
		n += 4 * c.lateLen()
	}
	return n
}

// lateOff is where the float scratch starts, lateLen its length in floats: a
// row chunk of one output tile.
func (c *ConvI8) lateOff() int {
	if c.plan.via == viaDirect {
		return 0
	}
	return (c.plan.bufLen + 63) &^ 63
}

func (c *ConvI8) lateLen() int {
	if c.plan.flat {
		return c.plan.rows * Block * c.mk.nb
	}
	return c.plan.rows * c.plan.ow * Block * c.mk.nb
}

type convI8Task struct {
	c             *ConvI8
	ctx           *Ctx
	out           outSpec
	src           []uint8
	res           Residual
	chunks, split int
}

// RunF32 computes n images to float32 (C16).
func (c *ConvI8) RunF32(ctx *Ctx, dst []float32, src []uint8, res Residual, n int) {
	need("int8 convolution dst", len(dst), c.cfg.Shape.DstLen(n))
	c.run(ctx, outSpec{f32: dst}, src, res, n)
}

// RunQ8 computes n images to bytes quantised with Out (C16).
func (c *ConvI8) RunQ8(ctx *Ctx, dst []uint8, src []uint8, res Residual, n int) {
	if c.out == (QParams{}) {
		panic("kernels: RunQ8 of an int8 convolution built without Out")
	}
	need("int8 convolution dst", len(dst), c.cfg.Shape.DstLen(n))
	c.run(ctx, outSpec{q8: dst}, src, res, n)
}

// RunI32 computes the raw accumulators sum (x - In.Zero) * w of n images (C16):
// no epilogue. Tests compare it bit for bit with an integer reference.
func (c *ConvI8) RunI32(ctx *Ctx, dst []int32, src []uint8, n int) {
	need("int8 convolution dst", len(dst), c.cfg.Shape.DstLen(n))
	c.run(ctx, outSpec{i32: dst}, src, Residual{}, n)
}

func (c *ConvI8) run(ctx *Ctx, out outSpec, src []uint8, res Residual, n int) {
	s := &c.cfg.Shape
	need("int8 convolution src", len(src), s.SrcLen(n))
	if res.F32 != nil {
		need("int8 convolution residual", len(res.F32), s.DstLen(n))
	} else if res.Q8 != nil {
		need("int8 convolution residual", len(res.Q8), s.DstLen(n))
	}
	if n < 1 {
		return
	}
	if c.dw != nil {
		c.dw.run(ctx, c, out, src, res, n)
		return
	}
	t := &ctx.convI8
	*t = convI8Task{c: c, ctx: ctx, out: out, src: src, res: res, chunks: c.plan.chunks()}
	t.split = c.plan.ocSplit(n*t.chunks, ctx.Threads())
	ctx.forgetCopies()
	ctx.pool.Run(n*t.chunks*t.split, t)
	*t = convI8Task{}
}

func (t *convI8Task) RunPiece(i, worker int) {
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
	lineLen, posLen, rowOff, colOff := p.iw*Block, Block, 0, 0
	var scratch []uint8
	if n := c.ScratchBytes(); n > 0 {
		scratch = w.u8(n)
	}
	if p.via == viaDirect {
		base = unsafe.Add(base, img*p.icBlocks*p.ih*p.iw*Block)
	} else {
		buf := scratch[:p.bufLen]
		if w.copied != chunk {
			copyChunk(p, buf, t.src, img, r0, c0, uint8(c.in.Zero))
			flipBytes(buf, c.flipIn)
			w.copied = chunk
		}
		base = unsafe.Pointer(&buf[0])
		lineLen, posLen, rowOff = p.bufW*p.bufC, p.bufC, r0
		if p.flat {
			colOff = c0
		}
	}
	a := &w.tileI8
	a.stride = int64(s.StrideW * posLen)
	c.fill(a, t.out, t.res)
	late := c.late && t.out.kind() != outI32
	var lateBuf []float32
	first := r0*p.ow + c0 // first output position of the chunk
	count := (r1-1)*p.ow + c1 - first
	if late {
		lateBuf = unsafe.Slice((*float32)(unsafe.Pointer(&scratch[c.lateOff()])), c.lateLen())
		a.dstride, a.dblock = 4*Block, int64(4*count*Block)
	} else {
		a.dstride, a.dblock = t.out.size()*Block, t.out.size()*int64(outHW*Block)
	}
	rs := int64(4)
	if a.rq8 != 0 {
		rs = 1
	}
	a.rstride, a.rblock = rs*Block, rs*int64(outHW*Block)
	rowStep := 1
	if !p.flat && 2*(c1-c0) <= c.mk.maxP {
		rowStep = 2
	}
	for ti := tile0; ti < tile1; ti++ {
		tl := &p.tiles[ti]
		a.taps, a.ntaps = &p.taps[tl.tap0], int64(tl.tapN)
		a.w = unsafe.Pointer(&c.w[tl.w])
		c.channel(a, tl.block*Block)
		a.nb = int64(tl.nb)
		dst0 := (img*p.ocBlocks + tl.block) * outHW // in positions
		pf := p.newPrefetch(unsafe.Pointer(&c.w[0]), ti, tile1)
		emit := func(pos int) {
			a.pf, a.pfStep = pf.step()
			if late {
				a.dst = unsafe.Pointer(&lateBuf[(pos-first)*Block])
			} else {
				a.dst = t.out.at((dst0 + pos) * Block)
			}
			if t.res.F32 != nil {
				a.res = unsafe.Pointer(&t.res.F32[(dst0+pos)*Block])
			} else if t.res.Q8 != nil {
				a.res = unsafe.Pointer(&t.res.Q8[(dst0+pos)*Block])
			}
			c.mk.run(a)
		}
		for r := r0; r < r1; r += rowStep {
			rowBase := unsafe.Add(base, (r-rowOff)*s.StrideH*lineLen)
			if rowStep == 2 && r+1 < r1 {
				a.a = rowBase
				a.b = unsafe.Add(rowBase, s.StrideH*lineLen)
				a.p = int64(2 * p.ow)
				emit(r * p.ow)
				continue
			}
			for col, left := c0, c1-c0; left > 0; {
				n := splitEven(left, c.mk.maxP)
				a.a = unsafe.Add(rowBase, (col-colOff)*s.StrideW*posLen)
				a.b = unsafe.Add(a.a, secondGroup(n)*a.stride)
				a.p = int64(n)
				emit(r*p.ow + col)
				col, left = col+n, left-n
			}
		}
		if late {
			for b := 0; b < tl.nb; b++ {
				x := lateBuf[b*count*Block : (b+1)*count*Block]
				c.finishLate(t.out, (dst0+b*outHW+first)*Block, x)
			}
		}
	}
	*a = tileArgsI8{}
}

// flipBytes turns signed bytes into the unsigned domain, or does nothing.
func flipBytes(b []uint8, flip uint8) {
	if flip == 0 {
		return
	}
	for len(b) >= 8 {
		bin.LittleEndian.PutUint64(b, bin.LittleEndian.Uint64(b)^0x8080808080808080)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= flip
	}
}
