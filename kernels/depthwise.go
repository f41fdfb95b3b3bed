package kernels

import "unsafe"

// dwGeom is the walk of a depthwise convolution over one block of 16 channels.
// Unless there is no padding, the input reaches the micro-kernel through a
// padded copy in scratch: the whole plane when it is small, else a ring of the
// input rows that one output row needs, each row copied once.
type dwGeom struct {
	s       ConvShape
	oh, ow  int
	direct  bool // no padding: read the source in place
	slots   int  // input rows of the buffer
	ring    bool
	line    int // elements of a buffer row
	bufLen  int
	chunkOH int     // output rows of a piece
	chunks  int     // pieces of a plane
	taps    [][]tap // one table per rotation of the ring
}

// dwPlane is the largest padded plane copied whole, in bytes: half of the
// smallest first-level cache in use.
const dwPlane = 24 << 10

// newDWGeom lays the walk out for elements of es bytes; mustCopy keeps the
// micro-kernel off the source, slack is the spare elements behind the buffer.
func newDWGeom(s ConvShape, es int, mustCopy bool, slack int) dwGeom {
	g := dwGeom{s: s, oh: s.OutH(), ow: s.OutW()}
	g.direct = s.PadTop|s.PadLeft|s.PadBottom|s.PadRight == 0 && !mustCopy
	span := (s.KH-1)*s.DilH + 1
	g.line = ((g.ow-1)*s.StrideW + (s.KW-1)*s.DilW + 1) * Block
	g.slots = (g.oh-1)*s.StrideH + span
	g.chunkOH, g.chunks = g.oh, 1
	if !g.direct {
		if g.slots*g.line*es > dwPlane && g.oh > 1 {
			g.ring = true
			g.slots = span
		}
		g.bufLen = g.slots*g.line + slack
	} else {
		g.line = s.InW * Block
		g.slots = s.InH
	}
	// A plane of many rows is cut so that several threads may share it.
	if (g.ring || g.direct) && g.oh >= 32 {
		g.chunks = 2
		if g.oh >= 96 {
			g.chunks = 4
		}
		g.chunkOH = ceilDiv(g.oh, g.chunks)
		g.chunks = ceilDiv(g.oh, g.chunkOH)
	}
	rot := 1
	if g.ring {
		rot = g.slots
	}
	for r := 0; r < rot; r++ {
		t := make([]tap, 0, s.KH*s.KW)
		for kh := 0; kh < s.KH; kh++ {
			for kw := 0; kw < s.KW; kw++ {
				row := kh * s.DilH
				if g.ring {
					row = (row + r) % g.slots
				}
				t = append(t, tap{int64((row*g.line + kw*s.DilW*Block) * es), 1})
			}
		}
		g.taps = append(g.taps, t)
	}
	return g
}

// copyRow writes input row y of the plane to the buffer row d, or padding when
// there is no such row. The columns of padding are in place already.
func copyRow[T float32 | uint8](g *dwGeom, d, plane []T, y int, pad T, flip uint8) {
	s := &g.s
	d = d[:g.line]
	if y < 0 || y >= s.InH {
		fillPad(d, pad)
		return
	}
	left := min(s.PadLeft*Block, len(d))
	in := d[left : left+max(0, min(len(d)-left, s.InW*Block))]
	copy(in, plane[y*s.InW*Block:])
	if flip != 0 {
		if b, ok := any(in).([]uint8); ok {
			flipBytes(b, flip)
		}
	}
}

// fillPad sets d to pad.
func fillPad[T float32 | uint8](d []T, pad T) {
	if pad == 0 {
		clear(d)
		return
	}
	if len(d) == 0 {
		return
	}
	d[0] = pad
	for n := 1; n < len(d); n *= 2 {
		copy(d[n:], d[:n])
	}
}

// load fills the buffer for the output row y: everything when it is the first
// of a piece, else the rows that the ring has not seen. pad is the value of
// padding as the micro-kernel reads it; bytes are xored with flip.
func load[T float32 | uint8](g *dwGeom, buf, plane []T, y, first int, pad T, flip uint8) {
	s := &g.s
	if !g.ring {
		if y == first {
			for r := 0; r < min(s.InH, g.slots-s.PadTop); r++ {
				copyRow(g, buf[(r+s.PadTop)*g.line:], plane, r, pad, flip)
			}
		}
		return
	}
	top := y*s.StrideH - s.PadTop
	fresh := s.StrideH
	if y == first {
		fresh = g.slots
	}
	for r := max(0, g.slots-fresh); r < g.slots; r++ {
		slot := (y*s.StrideH + r) % g.slots
		copyRow(g, buf[slot*g.line:], plane, top+r, pad, flip)
	}
}

// depthwiseF32 holds the weights of a depthwise convolution, one vector of 16
// channels for each kernel position: [C/16][KH*KW][16].
type depthwiseF32 struct {
	dwGeom
	edge *dwEdge // reads the source in place, nil where it cannot
	w    []float32
	mk   microDW
}

// microDW is one level's float32 depthwise micro-kernel. It computes rows of
// p positions of one block: row r reads from a + r*srow, positions step by
// strideW vectors, each tap is one vector of 16; dst, and res if there is one,
// are contiguous.
type microDW func(t *tileArgs, strideW int)

func newDepthwiseF32(s ConvShape, weights []float32) *depthwiseF32 {
	k := s.KH * s.KW
	d := &depthwiseF32{mk: cur.dw}
	d.dwGeom = newDWGeom(s, 4, false, Block)
	d.edge = newDWEdge(&d.dwGeom)
	n := ceilDiv(s.InC, Block) * k * Block
	d.w = make([]float32, n, n+wSlack)
	for c := 0; c < s.InC; c++ {
		for i := 0; i < k; i++ {
			d.w[((c/Block)*k+i)*Block+c%Block] = weights[c*k+i]
		}
	}
	return d
}

func (d *depthwiseF32) scratchBytes() int { return 4 * d.bufLen }

type dwTask struct {
	d             *depthwiseF32
	c             *ConvF32
	ctx           *Ctx
	dst, src, res []float32
}

func (d *depthwiseF32) run(ctx *Ctx, c *ConvF32, dst, src, res []float32, n int) {
	ctx.dw = dwTask{d, c, ctx, dst, src, res}
	ctx.forgetCopies()
	ctx.pool.Run(n*ceilDiv(d.s.InC, Block)*d.chunks, &ctx.dw)
	ctx.dw = dwTask{}
}

func (t *dwTask) RunPiece(i, worker int) {
	d, c := t.d, t.c
	s, w := &d.s, &t.ctx.workers[worker]
	plane, chunk := i/d.chunks, i%d.chunks
	blk := plane % ceilDiv(s.InC, Block)
	src := t.src[plane*s.InH*s.InW*Block:][:s.InH*s.InW*Block]
	base := unsafe.Pointer(&src[0])
	var buf []float32
	edge := d.edge
	if t.res != nil {
		edge = nil // tiles that overlap would add an aliased residual twice
	}
	if !d.direct && edge == nil {
		buf = w.f32(d.bufLen)
		base = unsafe.Pointer(&buf[0])
		if w.copied != 0 { // the padding is the same for every plane
			clear(buf)
			w.copied = 0
		}
	}
	a := &w.tile
	a.stride, a.dstride = int64(4*Block*s.StrideW), 4*Block
	a.w = unsafe.Pointer(&d.w[blk*s.KH*s.KW*Block])
	a.bias = unsafe.Pointer(&c.bias[blk*Block])
	a.lo, a.hi, a.round, a.lanes, a.nb = c.lo, c.hi, int64(c.round), Block, 1
	a.ntaps = int64(s.KH * s.KW)
	y0, y1 := chunk*d.chunkOH, min((chunk+1)*d.chunkOH, d.oh)
	out := plane * d.oh * d.ow * Block
	a.p = int64(d.ow)
	if edge != nil {
		edge.rows(a, base, unsafe.Pointer(&t.dst[out]), y0, y1)
		y0 = y1
	}
	a.srow = int64(4 * s.StrideH * d.line)
	step := 1
	if !d.ring {
		step = y1 - y0
	}
	for y := y0; y < y1; y += step {
		row, taps := base, d.taps[0]
		if !d.direct {
			load(&d.dwGeom, buf, src, y, y0, 0, 0)
		}
		if d.ring {
			taps = d.taps[y*s.StrideH%d.slots]
		} else {
			row = unsafe.Add(base, 4*y*s.StrideH*d.line)
		}
		a.taps, a.a, a.rows = &taps[0], row, int64(step)
		at := out + y*d.ow*Block
		a.dst = unsafe.Pointer(&t.dst[at])
		if t.res != nil {
			a.res = unsafe.Pointer(&t.res[at])
		}
		d.mk(a, s.StrideW)
	}
	a.clear()
	if c.act.Kind != ActNone || c.rnd != RoundNone {
		finish(t.dst[out+chunk*d.chunkOH*d.ow*Block:out+y1*d.ow*Block], c.act, c.rnd)
	}
}

// dwF32Go is the plain Go depthwise micro-kernel.
func dwF32Go(t *tileArgs, strideW int) {
	taps := unsafe.Slice(t.taps, t.ntaps)
	bias := (*[16]float32)(t.bias)
	for r := int64(0); r < t.rows; r++ {
		for p := int64(0); p < t.p; p++ {
			x := unsafe.Add(t.a, r*t.srow+p*int64(strideW)*64)
			s := *bias
			for k, tp := range taps {
				v, w := (*[16]float32)(unsafe.Add(x, tp.off)), (*[16]float32)(unsafe.Add(t.w, k*64))
				for j := range v {
					s[j] += v[j] * w[j]
				}
			}
			t.store(&s, r*t.p+p, 0, Block)
		}
	}
}

// dwEdge is the walk of a depthwise convolution over its source in place. Taps
// outside the image are left out: those above and below by the range of kernel
// rows, those beside it by masks, of which the tables hold one for the first
// and one for the last position of a tile. So at most one position at each end
// of a row may lack a tap.
type dwEdge struct {
	g    *dwGeom
	run  func(*tileArgs)
	tabs [4][]tap // inner, first, last, only tile of a row
}

// newDWEdge returns the walk, or nil where the geometry or the level has none.
func newDWEdge(g *dwGeom) *dwEdge {
	if cur.dwEdge == nil {
		return nil
	}
	s := &g.s
	// The tile width that computes the fewest positions twice; a remainder of
	// one position would put the edge into a tile that is not the last.
	width, cost := 0, 0
	for w := 4; w <= 28; w++ {
		if w > g.ow || w != g.ow && g.ow%w == 1 || cur.dwEdge(w, s.StrideW) == nil {
			continue
		}
		// Tiles of fewer than 8 positions do not fill the multipliers.
		if c := ceilDiv(g.ow, w) * max(w, 8); width == 0 || c <= cost {
			width, cost = w, c
		}
	}
	if width == 0 {
		return nil
	}
	e := &dwEdge{g: g, run: cur.dwEdge(width, s.StrideW)}
	for kw := 0; kw < s.KW; kw++ {
		for x := 0; x < g.ow; x++ {
			ix := x*s.StrideW - s.PadLeft + kw*s.DilW
			if ix < 0 && x > 0 || ix >= s.InW && x < g.ow-1 {
				return nil
			}
		}
	}
	for y := 0; y < g.oh; y++ {
		if k0, k1 := e.kernelRows(y); k0 >= k1 {
			return nil
		}
	}
	const all = 0xffff
	for i := range e.tabs {
		for kh := 0; kh < s.KH; kh++ {
			for kw := 0; kw < s.KW; kw++ {
				first, last := int64(all), int64(all)
				if i&1 != 0 && kw*s.DilW < s.PadLeft {
					first = 0
				}
				if i&2 != 0 && (g.ow-1)*s.StrideW-s.PadLeft+kw*s.DilW >= s.InW {
					last = 0
				}
				off := 4 * Block * (kh*s.DilH*s.InW + kw*s.DilW - s.PadLeft)
				e.tabs[i] = append(e.tabs[i], tap{int64(off), first | last<<16})
			}
		}
	}
	return e
}

// kernelRows returns the kernel rows [k0, k1) that are inside the image for
// output row y.
func (e *dwEdge) kernelRows(y int) (k0, k1 int) {
	s := &e.g.s
	top := y*s.StrideH - s.PadTop
	if top < 0 {
		k0 = ceilDiv(-top, s.DilH)
	}
	k1 = min(s.KH, ceilDiv(max(0, s.InH-top), s.DilH))
	return k0, k1
}

// rows computes output rows [y0, y1) of one plane; a holds everything but the
// walk.
func (e *dwEdge) rows(a *tileArgs, src, dst unsafe.Pointer, y0, y1 int) {
	s := &e.g.s
	w := a.w
	a.srow = int64(4 * Block * s.StrideH * s.InW)
	for y := y0; y < y1; {
		k0, k1 := e.kernelRows(y)
		n := 1
		for y+n < y1 {
			if a, b := e.kernelRows(y + n); a != k0 || b != k1 {
				break
			}
			n++
		}
		// The taps start at kernel row k0, which the base takes into account: the
		// base itself stays inside the source.
		for i := range a.tabs {
			a.tabs[i] = &e.tabs[i][0]
		}
		a.a = unsafe.Add(src, 4*Block*(y*s.StrideH-s.PadTop+k0*s.DilH)*s.InW)
		a.ntaps = int64((k1 - k0) * s.KW)
		a.w = unsafe.Add(w, 4*Block*k0*s.KW)
		a.rows = int64(n)
		a.dst = unsafe.Add(dst, 4*Block*y*e.g.ow)
		e.run(a)
		y += n
	}
}
