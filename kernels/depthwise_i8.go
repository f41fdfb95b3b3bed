package kernels

import "unsafe"

// depthwiseI8 holds depthwise weights in groups of four taps, the last padded
// with zero: [C/16][ceil(KH*KW/4)][16][4].
type depthwiseI8 struct {
	dwGeom
	groups int
	w      []int8
	mk     microDWI8
	tile   microI8
}

// microDWI8 is one level's int8 depthwise micro-kernel. It computes rows of p
// positions of one block as microDW does, walking ntaps groups of four taps,
// and writes raw sums, [p][16] int32 with p rounded up to maxP, or, with
// out = outQ8 and fused set, bytes. It may read up to 64 bytes beyond the
// inputs of maxP positions.
type microDWI8 struct {
	maxP  int
	bytes bool // writes bytes, too; otherwise only raw sums
	run   func(t *tileArgsI8, strideW int)
}

// dwI8Slack is the spare room behind the input buffer, in bytes.
const dwI8Slack = 2048

func newDepthwiseI8(s ConvShape, weights []int8) *depthwiseI8 {
	k := s.KH * s.KW
	d := &depthwiseI8{mk: cur.dwI8, tile: cur.i8, groups: ceilDiv(k, 4)}
	d.dwGeom = newDWGeom(s, 1, true, dwI8Slack)
	for i, t := range d.taps {
		for len(t)%4 != 0 {
			t = append(t, t[0])
		}
		d.taps[i] = t
	}
	n := ceilDiv(s.InC, Block) * d.groups * 4 * Block
	d.w = make([]int8, n, n+4*wSlack)
	for c := 0; c < s.InC; c++ {
		for i := 0; i < k; i++ {
			d.w[(((c/Block)*d.groups+i/4)*Block+c%Block)*4+i%4] = weights[c*k+i]
		}
	}
	return d
}

// sumLen is the length of the int32 scratch of one tile: kernels write sums of
// four positions at a time, also behind the last one.
func (d *depthwiseI8) sumLen() int { return (d.mk.maxP + 3) * Block }

func (d *depthwiseI8) scratchBytes() int {
	return (d.bufLen+63)&^63 + 8*d.sumLen()
}

type dwI8Task struct {
	d   *depthwiseI8
	c   *ConvI8
	ctx *Ctx
	out outSpec
	src []uint8
	res Residual
}

func (d *depthwiseI8) run(ctx *Ctx, c *ConvI8, out outSpec, src []uint8, res Residual, n int) {
	ctx.dwI8 = dwI8Task{d, c, ctx, out, src, res}
	ctx.forgetCopies()
	ctx.pool.Run(n*ceilDiv(d.s.InC, Block)*d.chunks, &ctx.dwI8)
	ctx.dwI8 = dwI8Task{}
}

func (t *dwI8Task) RunPiece(i, worker int) {
	d, c := t.d, t.c
	s, w := &d.s, &t.ctx.workers[worker]
	plane, chunk := i/d.chunks, i%d.chunks
	blk := plane % ceilDiv(s.InC, Block)
	src := t.src[plane*s.InH*s.InW*Block:][:s.InH*s.InW*Block]
	scratch := w.u8(d.scratchBytes())
	buf := scratch[:d.bufLen]
	at := (d.bufLen + 63) &^ 63
	sums := unsafe.Slice((*int32)(unsafe.Pointer(&scratch[at])), d.sumLen())
	late := unsafe.Slice((*float32)(unsafe.Pointer(&scratch[at+4*len(sums)])), d.sumLen())
	base := unsafe.Pointer(&buf[0])
	pad, flip := uint8(c.zeroIn), c.flipIn
	if w.copied != 0 { // the padding is the same for every plane
		fillPad(buf, pad)
		w.copied = 0
	}

	a := &w.tileI8
	c.fill(a, t.out, t.res)
	c.channel(a, blk*Block)
	corr, kind, ntaps := a.corr, a.out, int64(d.groups)
	wts := unsafe.Pointer(&d.w[blk*d.groups*4*Block])
	a.stride = int64(Block * s.StrideW)
	a.dstride, a.nb = t.out.size()*Block, 1
	isLate := c.late && t.out.kind() != outI32
	if isLate {
		a.dstride = 4 * Block
	}
	a.rstride = 4 * Block
	if a.rq8 != 0 {
		a.rstride = Block
	}
	// Bytes without a residual leave the kernel as they are, rows at a time; all
	// else goes through the raw sums of a few positions.
	direct := d.mk.bytes && kind == outQ8 && a.fused != 0 && t.res.none()
	y0, y1 := chunk*d.chunkOH, min((chunk+1)*d.chunkOH, d.oh)
	out := plane * d.oh * d.ow * Block
	limit := min(d.mk.maxP, d.tile.maxP)
	a.srow = int64(s.StrideH * d.line)
	step := 1
	if direct && !d.ring {
		step = y1 - y0
	}
	for y := y0; y < y1; y += step {
		row, taps := base, d.taps[0]
		load(&d.dwGeom, buf, src, y, y0, pad, flip)
		if d.ring {
			taps = d.taps[y*s.StrideH%d.slots]
		} else {
			row = unsafe.Add(base, y*s.StrideH*d.line)
		}
		if direct {
			a.a, a.taps, a.ntaps, a.w = row, &taps[0], ntaps, wts
			a.p, a.rows = int64(d.ow), int64(step)
			a.dst = t.out.at(out + y*d.ow*Block)
			d.mk.run(a, s.StrideW)
			continue
		}
		for x := 0; x < d.ow; x += limit {
			n := min(limit, d.ow-x)
			o := out + (y*d.ow+x)*Block
			a.a = unsafe.Add(row, int64(x)*a.stride)
			a.taps, a.ntaps, a.w, a.p, a.rows = &taps[0], ntaps, wts, int64(n), 1
			a.corr, a.cstride, a.res = corr, 0, nil
			a.out, a.dst = outI32, unsafe.Pointer(&sums[0])
			d.mk.run(a, s.StrideW)
			a.out = kind
			if kind == outI32 {
				copy(t.out.i32[o:o+n*Block], sums)
				continue
			}
			// The epilogue alone: a tile without taps that starts from the sums.
			a.b, a.ntaps = a.a, 0
			a.corr, a.cstride = unsafe.Pointer(&sums[0]), 4*Block
			a.dst = unsafe.Pointer(&late[0])
			if !isLate {
				a.dst = t.out.at(o)
			}
			if t.res.F32 != nil {
				a.res = unsafe.Pointer(&t.res.F32[o])
			} else if t.res.Q8 != nil {
				a.res = unsafe.Pointer(&t.res.Q8[o])
			}
			d.tile.run(a)
			if isLate {
				c.finishLate(t.out, o, late[:n*Block])
			}
		}
	}
	*a = tileArgsI8{}
}

// dwI8Go is the plain Go int8 depthwise micro-kernel.
func dwI8Go(t *tileArgsI8, strideW int) {
	taps := unsafe.Slice(t.taps, 4*t.ntaps)
	for r := int64(0); r < t.rows; r++ {
		for p := int64(0); p < t.p; p++ {
			x := unsafe.Add(t.a, r*t.srow+p*int64(strideW)*Block)
			s := *(*[16]int32)(t.corr)
			for k, tp := range taps {
				v := (*[16]uint8)(unsafe.Add(x, tp.off))
				w := (*[64]int8)(unsafe.Add(t.w, k/4*64))
				for j := range v {
					s[j] += int32(v[j]) * int32(w[4*j+k%4])
				}
			}
			if t.out == outI32 {
				*(*[16]int32)(unsafe.Add(t.dst, (r*t.p+p)*64)) = s
				continue
			}
			t.store(&s, r*t.p+p, 0, Block)
		}
	}
}
