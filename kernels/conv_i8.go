package kernels

import (
	"fmt"
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
//	y = float32(acc) * float32(In.Scale*WScale[oc])
//	y = round(act(y + bias[oc] + residual))
//	q = clamp(rint(y / Out.Scale) + Out.Zero)          (RunQ8 only)
//
// with every step rounded to float32 and no fused multiply-add, so the result
// is the same bits on every instruction set (activations other than clamps are
// approximated and may differ in the last bits). Immutable, safe for
// concurrent use.
type ConvI8 struct {
	plan  *convPlan
	cfg   ConvI8Config
	dw    *depthwiseI8
	w     []int8
	corr  []int32
	scale []float32
	bias  []float32
	lo    float32
	hi    float32
	round Round
	late  bool // activation runs after the micro-kernel, from float32 scratch
	mk    microI8
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
	var clip bool
	c.lo, c.hi, clip = cfg.Act.clip()
	c.late = !clip
	if clip {
		c.round = cfg.Round
	}
	oc := ceilDiv(s.OutC, Block) * Block
	c.corr, c.scale, c.bias = make([]int32, oc), make([]float32, oc), make([]float32, oc)
	copy(c.bias, cfg.Bias)
	per := len(cfg.Weights) / s.OutC
	zp := cfg.In.zeroU8()
	for o := 0; o < s.OutC; o++ {
		c.scale[o] = cfg.In.Scale * cfg.WScale[o%len(cfg.WScale)]
		var sum int32
		for _, v := range cfg.Weights[o*per : (o+1)*per] {
			sum += int32(v)
		}
		c.corr[o] = -zp * sum
	}
	if s.isDepthwise() {
		c.plan = &convPlan{s: s}
		c.dw = newDepthwiseI8(s, cfg.Weights)
	} else {
		c.plan = newConvPlan(s, 1, c.mk.nb, true)
		c.w = make([]int8, c.plan.wLen, c.plan.wLen+4*wSlack)
		for ti, t := range c.plan.tiles {
			d := c.w[t.w:]
			for i, e := range c.plan.elems[ti] {
				for j := 0; j < t.nb*Block; j++ {
					if k := c.plan.weightIndex(t.block*Block+j, e); k >= 0 {
						d[j*4+i%4] = cfg.Weights[k]
					}
				}
				if i%4 == 3 {
					d = d[4*t.nb*Block:]
				}
			}
		}
		c.plan.elems = nil
	}
	c.cfg.Weights = nil
	return c, nil
}

// zeroU8 is the zero point in the unsigned domain the multiplier works in.
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

func (q QParams) check(what string) error {
	lo, hi := q.Range()
	if !(q.Scale > 0) || q.Scale > maxFloat32 {
		return fmt.Errorf("kernels: %s scale is %v, must be finite and positive", what, q.Scale)
	}
	if q.Zero < lo || q.Zero > hi {
		return fmt.Errorf("kernels: %s zero point is %d, must be %d to %d", what, q.Zero, lo, hi)
	}
	return nil
}

const maxFloat32 = 3.4028234663852886e38

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
	if ep.Round > RoundF16Sat || !ep.Act.valid() {
		return fmt.Errorf("kernels: epilogue has unknown activation %d or rounding %d", ep.Act.Kind, ep.Round)
	}
	return nil
}

// Shape returns the geometry.
func (c *ConvI8) Shape() ConvShape { return c.cfg.Shape }

// WeightBytes returns the bytes of the packed weights, scales and biases.
func (c *ConvI8) WeightBytes() int {
	n := len(c.w) + 12*len(c.bias)
	if c.dw != nil {
		n += len(c.dw.w)
	}
	return n
}

// ScratchBytes returns the bytes of scratch that Run needs in each worker.
func (c *ConvI8) ScratchBytes() int {
	if c.dw != nil {
		return c.dw.scratchBytes(c)
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

// at returns the address of element i and the element's bytes.
func (o outSpec) at(i int) unsafe.Pointer {
	switch {
	case o.i32 != nil:
		return unsafe.Pointer(&o.i32[i])
	case o.f32 != nil:
		return unsafe.Pointer(&o.f32[i])
	}
	return unsafe.Pointer(&o.q8[i])
}

func (o outSpec) size() int64 {
	if o.i32 != nil || o.f32 != nil {
		return 4
	}
	return 1
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
	if c.cfg.Out == (QParams{}) {
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
	for i := range ctx.workers {
		ctx.workers[i].copied = -1
	}
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
	lineLen, posLen, rowOff := p.iw*Block, Block, 0
	var scratch []uint8
	if n := c.ScratchBytes(); n > 0 {
		scratch = w.u8(n)
	}
	if p.via == viaDirect {
		base = unsafe.Add(base, img*p.icBlocks*p.ih*p.iw*Block)
	} else {
		buf := scratch[:p.bufLen]
		if w.copied != chunk {
			copyChunk(p, buf, t.src, img, r0, uint8(c.cfg.In.Zero))
			w.copied = chunk
		}
		base = unsafe.Pointer(&buf[0])
		lineLen, posLen, rowOff = p.bufW*p.bufC, p.bufC, r0
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
		a.out = outF32
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
		a.corr = unsafe.Pointer(&c.corr[tl.block*Block])
		a.scale = unsafe.Pointer(&c.scale[tl.block*Block])
		a.bias = unsafe.Pointer(&c.bias[tl.block*Block])
		a.nb = int64(tl.nb)
		dst0 := (img*p.ocBlocks + tl.block) * outHW // in positions
		emit := func(pos int) {
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
				a.a = unsafe.Add(rowBase, col*s.StrideW*posLen)
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

// fill sets the arguments that do not change from tile to tile.
func (c *ConvI8) fill(a *tileArgsI8, out outSpec, res Residual) {
	a.flip = int64(c.cfg.In.flip()) * 0x01010101
	a.lo, a.hi, a.round, a.lanes, a.out = c.lo, c.hi, int64(c.round), Block, out.kind()
	a.setQuant(c.cfg.Out, res)
}

func (a *tileArgsI8) setQuant(q QParams, res Residual) {
	if res.Q8 != nil && res.F32 == nil {
		a.rq8 = 1
		a.rscale, a.rzero, a.rflip = res.Q.Scale, res.Q.zeroU8(), int64(res.Q.flip())
	}
	a.qscale, a.qzero, a.qflip = q.Scale, q.zeroU8(), int32(q.flip())
	if q.Scale != 0 {
		a.qinv = 1 / q.Scale
	}
}

// finishLate applies the rest of the epilogue to x and stores it at off.
func (c *ConvI8) finishLate(out outSpec, off int, x []float32) {
	finish(x, c.cfg.Act, c.cfg.Round)
	if out.f32 != nil {
		copy(out.f32[off:], x)
		return
	}
	quantize(out.q8[off:off+len(x)], x, c.cfg.Out)
}

// depthwiseI8 holds depthwise weights as [C/16][KH*KW][16].
type depthwiseI8 struct {
	s ConvShape
	w []int8
}

func newDepthwiseI8(s ConvShape, weights []int8) *depthwiseI8 {
	k := s.KH * s.KW
	d := &depthwiseI8{s: s, w: make([]int8, ceilDiv(s.InC, Block)*k*Block)}
	for c := 0; c < s.InC; c++ {
		for i := 0; i < k; i++ {
			d.w[((c/Block)*k+i)*Block+c%Block] = weights[c*k+i]
		}
	}
	return d
}

func (d *depthwiseI8) scratchBytes(c *ConvI8) int { return 4 * d.s.OutW() * Block }

func (d *depthwiseI8) run(ctx *Ctx, c *ConvI8, out outSpec, src []uint8, res Residual, n int) {
	s := &d.s
	cb := ceilDiv(s.InC, Block)
	oh, ow := s.OutH(), s.OutW()
	flip, zp := c.cfg.In.flip(), c.cfg.In.zeroU8()
	ctx.pool.For(n*cb, func(i int) {
		b := i % cb
		w := d.w[b*s.KH*s.KW*Block:]
		corr := (*[Block]int32)(c.corr[b*Block:])
		plane := src[i*s.InH*s.InW*Block:][:s.InH*s.InW*Block]
		var late [Block]float32
		var a tileArgsI8
		c.fill(&a, out, res)
		a.scale, a.bias = unsafe.Pointer(&c.scale[b*Block]), unsafe.Pointer(&c.bias[b*Block])
		if c.late && out.i32 == nil {
			a.out = outF32
		}
		for y := 0; y < oh; y++ {
			for x := 0; x < ow; x++ {
				sum := *corr
				for kh := 0; kh < s.KH; kh++ {
					iy := y*s.StrideH - s.PadTop + kh*s.DilH
					for kw := 0; kw < s.KW; kw++ {
						ix := x*s.StrideW - s.PadLeft + kw*s.DilW
						wv := (*[Block]int8)(w[(kh*s.KW+kw)*Block:])
						if iy < 0 || iy >= s.InH || ix < 0 || ix >= s.InW {
							for j, v := range wv {
								sum[j] += zp * int32(v)
							}
							continue
						}
						v := (*[Block]uint8)(plane[(iy*s.InW+ix)*Block:])
						for j := range v {
							sum[j] += int32(v[j]^flip) * int32(wv[j])
						}
					}
				}
				o := ((i*oh+y)*ow + x) * Block
				if res.F32 != nil {
					a.res = unsafe.Pointer(&res.F32[o])
				} else if res.Q8 != nil {
					a.res = unsafe.Pointer(&res.Q8[o])
				}
				if c.late && out.i32 == nil {
					a.dst = unsafe.Pointer(&late)
					a.store(&sum, 0, 0, Block)
					c.finishLate(out, o, late[:])
					continue
				}
				a.dst = out.at(o)
				a.store(&sum, 0, 0, Block)
			}
		}
	})
}
