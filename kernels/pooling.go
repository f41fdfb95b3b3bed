package kernels

import "unsafe"

// PoolShape is the geometry of a two-dimensional pooling window over n x c
// planes of InH x InW. OutH and OutW are given by the caller, because formats
// disagree on rounding (ceil mode); windows are clipped to the padded input.
type PoolShape struct {
	N, C, InH, InW      int
	KH, KW              int
	StrideH, StrideW    int
	PadTop, PadLeft     int
	PadBottom, PadRight int
	DilH, DilW          int // 0 means 1
	OutH, OutW          int
	// CountPad makes the average divide by the window's size inside the padded
	// input instead of the number of real values.
	CountPad bool
}

// MaxPoolC16 writes the maximum of each window; both slices are C16. A window
// of padding alone gives -inf; NaN propagates.
func MaxPoolC16(ctx *Ctx, dst, src []float32, s PoolShape) {
	runPool(ctx, poolTask{kind: poolMaxF32, dst: dst, src: src}, s, len(dst), len(src))
}

// MaxPoolC16U8 is [MaxPoolC16] on raw bytes, signed or not; a window of padding
// alone gives the lowest value.
func MaxPoolC16U8(ctx *Ctx, dst, src []uint8, s PoolShape, signed bool) {
	t := poolTask{kind: poolMaxU8, d8: dst, s8: src}
	if signed {
		t.kind = poolMaxS8
	}
	runPool(ctx, t, s, len(dst), len(src))
}

// AvgPoolC16 writes the mean of each window; both slices are C16. A window
// without values gives 0.
func AvgPoolC16(ctx *Ctx, dst, src []float32, s PoolShape) {
	runPool(ctx, poolTask{kind: poolAvg, dst: dst, src: src}, s, len(dst), len(src))
}

type poolKind uint8

const (
	poolMaxF32 poolKind = iota
	poolMaxU8
	poolMaxS8
	poolAvg
	poolGlobal
)

// poolTask is a pooling job over block planes.
type poolTask struct {
	kind     poolKind
	ctx      *Ctx
	g        *dwGeom
	s        PoolShape
	dst, src []float32
	d8, s8   []uint8
	hw       int
}

// onesLen bounds the windows that averages sum with the depthwise kernel.
const onesLen = 1024

var (
	poolOnes  = filled(onesLen*Block, 1)
	zeroBlock = make([]float32, Block)
)

func filled(n int, v float32) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// conv returns the depthwise convolution that walks the same windows.
func (s PoolShape) conv() ConvShape {
	dh, dw := max(1, s.DilH), max(1, s.DilW)
	// Padding after the end is whatever the last window needs (ceil mode).
	bottom := max(0, (s.OutH-1)*s.StrideH+(s.KH-1)*dh+1-s.InH-s.PadTop)
	right := max(0, (s.OutW-1)*s.StrideW+(s.KW-1)*dw+1-s.InW-s.PadLeft)
	return ConvShape{InC: Block, OutC: Block, InH: s.InH, InW: s.InW, KH: s.KH, KW: s.KW, StrideH: s.StrideH, StrideW: s.StrideW,
		DilH: dh, DilW: dw, PadTop: s.PadTop, PadLeft: s.PadLeft, PadBottom: bottom, PadRight: right, Groups: Block}
}

// poolKey identifies a geometry kept in a context.
type poolKey struct {
	s     PoolShape
	bytes bool
}

func runPool(ctx *Ctx, t poolTask, s PoolShape, dn, sn int) {
	cb := ceilDiv(s.C, Block)
	need("pool dst", dn, s.N*cb*s.OutH*s.OutW*Block)
	need("pool src", sn, s.N*cb*s.InH*s.InW*Block)
	if s.N < 1 || s.C < 1 || s.OutH < 1 || s.OutW < 1 {
		return
	}
	key := poolKey{s, t.d8 != nil}
	g := ctx.plans[key]
	if g == nil {
		es, must := 4, false
		if t.d8 != nil {
			es, must = 1, true
		}
		c := s.conv().defaults()
		if c.OutH() < s.OutH || c.OutW() < s.OutW {
			panic("kernels: pooling output is larger than the windows of the padded input")
		}
		n := newDWGeom(c, es, must, dwI8Slack)
		n.oh, n.ow = s.OutH, s.OutW
		n.chunkOH, n.chunks = s.OutH, 1
		g = &n
		if ctx.plans == nil {
			ctx.plans = map[poolKey]*dwGeom{}
		}
		ctx.plans[key] = g
	}
	t.ctx, t.g, t.s = ctx, g, s
	ctx.forgetCopies()
	ctx.pools = t
	ctx.pool.Run(s.N*cb, &ctx.pools)
	ctx.pools = poolTask{}
}

func (t *poolTask) RunPiece(i, worker int) {
	if t.kind == poolGlobal {
		t.global(i)
		return
	}
	w := &t.ctx.workers[worker]
	if t.d8 != nil {
		t.bytes(i, w)
		return
	}
	g, s := t.g, &t.s
	src := t.src[i*s.InH*s.InW*Block:][:s.InH*s.InW*Block]
	base := unsafe.Pointer(&src[0])
	pad := float32(0)
	if t.kind == poolMaxF32 {
		pad = -inf32
	}
	var buf []float32
	if !g.direct {
		buf = w.f32(g.bufLen)
		base = unsafe.Pointer(&buf[0])
		if w.copied != 0 {
			fillPad(buf, pad)
			w.copied = 0
		}
	}
	a := &w.tile
	a.p, a.srow, a.stride, a.dstride = int64(s.OutW), int64(4*s.StrideH*g.line), int64(4*Block*s.StrideW), 4*Block
	a.ntaps, a.lo, a.hi, a.lanes, a.nb = int64(s.KH*s.KW), -inf32, inf32, Block, 1
	a.w, a.bias = unsafe.Pointer(&poolOnes[0]), unsafe.Pointer(&zeroBlock[0])
	if s.KH*s.KW >= onesLen {
		t.avgLarge(i)
		return
	}
	step := 1
	if !g.ring {
		step = s.OutH
	}
	for y := 0; y < s.OutH; y += step {
		row, taps := base, g.taps[0]
		if !g.direct {
			load(g, buf, src, y, 0, pad, 0)
		}
		if g.ring {
			taps = g.taps[y*s.StrideH%g.slots]
		}
		a.a, a.taps, a.rows = row, &taps[0], int64(step)
		a.dst = unsafe.Pointer(&t.dst[(i*s.OutH+y)*s.OutW*Block])
		if t.kind == poolMaxF32 {
			cur.maxF32(a, s.StrideW)
			continue
		}
		cur.dw(a, s.StrideW)
		for k := y; k < y+step; k++ {
			t.divide(t.dst[(i*s.OutH+k)*s.OutW*Block:][:s.OutW*Block], k)
		}
	}
	a.clear()
}

// window returns how many of the k taps of output position x lie in [0, limit).
func window(x, stride, pad, k, dil, limit int) int {
	n := 0
	for j := 0; j < k; j++ {
		if p := x*stride - pad + j*dil; p >= 0 && p < limit {
			n++
		}
	}
	return n
}

// counts returns the divisors of the average along one axis.
func (s *PoolShape) countH(y int) int {
	if s.CountPad {
		return window(y, s.StrideH, 0, s.KH, max(1, s.DilH), s.InH+s.PadTop+s.PadBottom)
	}
	return window(y, s.StrideH, s.PadTop, s.KH, max(1, s.DilH), s.InH)
}

func (s *PoolShape) countW(x int) int {
	if s.CountPad {
		return window(x, s.StrideW, 0, s.KW, max(1, s.DilW), s.InW+s.PadLeft+s.PadRight)
	}
	return window(x, s.StrideW, s.PadLeft, s.KW, max(1, s.DilW), s.InW)
}

// divide turns the sums of output row y into means.
func (t *poolTask) divide(row []float32, y int) {
	s := &t.s
	ch := s.countH(y)
	for x := 0; x < s.OutW; x++ {
		inv := 1 / float32(max(1, ch*s.countW(x)))
		v := (*[Block]float32)(row[x*Block:])
		for j := range v {
			v[j] *= inv
		}
	}
}

// avgLarge pools plane i with windows too large for the depthwise walk.
func (t *poolTask) avgLarge(i int) {
	s := &t.s
	dh, dw := max(1, s.DilH), max(1, s.DilW)
	src := t.src[i*s.InH*s.InW*Block:]
	for y := 0; y < s.OutH; y++ {
		for x := 0; x < s.OutW; x++ {
			d := (*[Block]float32)(t.dst[((i*s.OutH+y)*s.OutW+x)*Block:])
			var sum [Block]float32
			top := [Block]float32{}
			for j := range top {
				top[j] = -inf32
			}
			for kh := 0; kh < s.KH; kh++ {
				iy := y*s.StrideH - s.PadTop + kh*dh
				if iy < 0 || iy >= s.InH {
					continue
				}
				for kw := 0; kw < s.KW; kw++ {
					ix := x*s.StrideW - s.PadLeft + kw*dw
					if ix < 0 || ix >= s.InW {
						continue
					}
					v := (*[Block]float32)(src[(iy*s.InW+ix)*Block:])
					for j := range v {
						sum[j] += v[j]
						if v[j] > top[j] || v[j] != v[j] {
							top[j] = v[j]
						}
					}
				}
			}
			if t.kind == poolMaxF32 {
				*d = top
				continue
			}
			inv := 1 / float32(max(1, s.countH(y)*s.countW(x)))
			for j := range d {
				d[j] = sum[j] * inv
			}
		}
	}
}

// bytes is RunPiece for 8-bit maxima.
func (t *poolTask) bytes(i int, w *workerState) {
	g, s := t.g, &t.s
	src := t.s8[i*s.InH*s.InW*Block:][:s.InH*s.InW*Block]
	pad := uint8(0)
	if t.kind == poolMaxS8 {
		pad = 0x80
	}
	buf := w.u8(g.bufLen)
	if w.copied != 0 {
		fillPad(buf, pad)
		w.copied = 0
	}
	a := &w.tileI8
	a.p, a.srow, a.stride, a.dstride = int64(s.OutW), int64(s.StrideH*g.line), int64(Block*s.StrideW), Block
	a.ntaps = int64(s.KH * s.KW)
	step := 1
	if !g.ring {
		step = s.OutH
	}
	for y := 0; y < s.OutH; y += step {
		taps := g.taps[0]
		load(g, buf, src, y, 0, pad, 0)
		if g.ring {
			taps = g.taps[y*s.StrideH%g.slots]
		}
		a.a, a.taps, a.rows = unsafe.Pointer(&buf[0]), &taps[0], int64(step)
		a.dst = unsafe.Pointer(&t.d8[(i*s.OutH+y)*s.OutW*Block])
		cur.max8(a, s.StrideW, t.kind == poolMaxS8)
	}
	*a = tileArgsI8{}
}

// maxF32Go is the plain Go maximum over rows of one block.
func maxF32Go(t *tileArgs, strideW int) {
	taps := unsafe.Slice(t.taps, t.ntaps)
	for r := int64(0); r < t.rows; r++ {
		for p := int64(0); p < t.p; p++ {
			x := unsafe.Add(t.a, r*t.srow+p*int64(strideW)*64)
			d := (*[Block]float32)(unsafe.Add(t.dst, (r*t.p+p)*64))
			s := [Block]float32{}
			for j := range s {
				s[j] = -inf32
			}
			for _, tp := range taps {
				v := (*[Block]float32)(unsafe.Add(x, tp.off))
				for j := range v {
					if v[j] > s[j] || v[j] != v[j] {
						s[j] = v[j]
					}
				}
			}
			*d = s
		}
	}
}

// max8Go is the plain Go maximum of bytes.
func max8Go(t *tileArgsI8, strideW int, signed bool) {
	taps := unsafe.Slice(t.taps, t.ntaps)
	var flip uint8
	if signed {
		flip = 0x80
	}
	for r := int64(0); r < t.rows; r++ {
		for p := int64(0); p < t.p; p++ {
			x := unsafe.Add(t.a, r*t.srow+p*int64(strideW)*Block)
			d := (*[Block]uint8)(unsafe.Add(t.dst, (r*t.p+p)*Block))
			s := *(*[Block]uint8)(unsafe.Add(x, taps[0].off))
			for _, tp := range taps[1:] {
				v := (*[Block]uint8)(unsafe.Add(x, tp.off))
				for j := range v {
					if v[j]^flip > s[j]^flip {
						s[j] = v[j]
					}
				}
			}
			*d = s
		}
	}
}

// GlobalAvgPoolC16 writes the mean over h*w of each channel. dst is C16 with
// one pixel, [N][ceil(C/16)][16], which for C a multiple of 16 is plain [N][C].
func GlobalAvgPoolC16(ctx *Ctx, dst, src []float32, n, c, h, w int) {
	cb, hw := ceilDiv(c, Block), h*w
	need("global pool dst", len(dst), n*cb*Block)
	need("global pool src", len(src), n*cb*hw*Block)
	ctx.pools = poolTask{kind: poolGlobal, dst: dst, src: src, hw: hw}
	ctx.pool.Run(n*cb, &ctx.pools)
	ctx.pools = poolTask{}
}

func (t *poolTask) global(i int) {
	var sum [Block]float32
	sumBlocks(&sum, t.src[i*t.hw*Block:(i+1)*t.hw*Block])
	d := (*[Block]float32)(t.dst[i*Block:])
	for j := range d {
		d[j] = sum[j] / float32(t.hw)
	}
}

// GlobalMaxPoolC16 writes the maximum over h*w of each channel.
func GlobalMaxPoolC16(ctx *Ctx, dst, src []float32, n, c, h, w int) {
	MaxPoolC16(ctx, dst, src, PoolShape{N: n, C: c, InH: h, InW: w, KH: h, KW: w, StrideH: 1, StrideW: 1, OutH: 1, OutW: 1})
}

// sumBlocks writes the sum of the vectors of 16 in src to sum.
func sumBlocks(sum *[Block]float32, src []float32) {
	if len(src) > 0 {
		t := vecArgs{dst: unsafe.Pointer(sum), a: unsafe.Pointer(&src[0]), n: int64(len(src) &^ 15)}
		if vecCall(vopSum, &t) {
			return
		}
	}
	for ; len(src) >= Block; src = src[Block:] {
		v := (*[Block]float32)(src)
		for j := range v {
			sum[j] += v[j]
		}
	}
}
