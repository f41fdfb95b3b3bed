package kernels

import (
	"fmt"
	"unsafe"
)

// ConvShape is the geometry of a two-dimensional convolution. Zero strides and
// dilations mean 1, zero Groups means 1. Weights are OIHW:
// [OutC][InC/Groups][KH][KW].
type ConvShape struct {
	InC, OutC                            int
	InH, InW                             int
	KH, KW                               int
	StrideH, StrideW                     int
	DilH, DilW                           int
	PadTop, PadLeft, PadBottom, PadRight int
	Groups                               int
	// InPlain says that the source is plain [N][InC][InH][InW] rather than
	// C16: the usual case of a network's first layer. It needs InC < 16.
	InPlain bool
}

func (s ConvShape) defaults() ConvShape {
	for _, p := range []*int{&s.StrideH, &s.StrideW, &s.DilH, &s.DilW, &s.Groups} {
		if *p == 0 {
			*p = 1
		}
	}
	return s
}

// OutH returns the output height in rows.
func (s ConvShape) OutH() int {
	s = s.defaults()
	return (s.InH+s.PadTop+s.PadBottom-(s.KH-1)*s.DilH-1)/s.StrideH + 1
}

// OutW returns the output width in columns.
func (s ConvShape) OutW() int {
	s = s.defaults()
	return (s.InW+s.PadLeft+s.PadRight-(s.KW-1)*s.DilW-1)/s.StrideW + 1
}

// MACs returns the multiply-accumulates of one image.
func (s ConvShape) MACs() int64 {
	s = s.defaults()
	return int64(s.OutC) * int64(s.InC/s.Groups) * int64(s.KH*s.KW) * int64(s.OutH()) * int64(s.OutW())
}

// SrcLen returns the length of the source slice for n images.
func (s ConvShape) SrcLen(n int) int {
	if s.InPlain {
		return n * s.InC * s.InH * s.InW
	}
	return C16Len(n, s.InC, s.InH, s.InW)
}

// DstLen returns the length of the destination slice (C16) for n images.
func (s ConvShape) DstLen(n int) int { return C16Len(n, s.OutC, s.OutH(), s.OutW()) }

// Validate says in one line what is wrong with the shape, or returns nil.
func (s ConvShape) Validate() error {
	s = s.defaults()
	const big = 1 << 24
	for _, d := range []struct {
		name   string
		v, min int
	}{
		{"InC", s.InC, 1}, {"OutC", s.OutC, 1}, {"InH", s.InH, 1}, {"InW", s.InW, 1},
		{"KH", s.KH, 1}, {"KW", s.KW, 1}, {"StrideH", s.StrideH, 1}, {"StrideW", s.StrideW, 1},
		{"DilH", s.DilH, 1}, {"DilW", s.DilW, 1}, {"Groups", s.Groups, 1},
		{"PadTop", s.PadTop, 0}, {"PadLeft", s.PadLeft, 0}, {"PadBottom", s.PadBottom, 0}, {"PadRight", s.PadRight, 0},
	} {
		if d.v < d.min || d.v > big {
			return fmt.Errorf("kernels: convolution %s is %d, must be %d to %d", d.name, d.v, d.min, big)
		}
	}
	if s.InC%s.Groups != 0 || s.OutC%s.Groups != 0 {
		return fmt.Errorf("kernels: convolution channels %d -> %d are not divisible by groups %d", s.InC, s.OutC, s.Groups)
	}
	if s.InH+s.PadTop+s.PadBottom < (s.KH-1)*s.DilH+1 || s.InW+s.PadLeft+s.PadRight < (s.KW-1)*s.DilW+1 {
		return fmt.Errorf("kernels: convolution kernel %dx%d (dilation %d,%d) is larger than the padded input %dx%d",
			s.KH, s.KW, s.DilH, s.DilW, s.InH+s.PadTop+s.PadBottom, s.InW+s.PadLeft+s.PadRight)
	}
	if s.InPlain && (s.InC >= Block || s.Groups != 1) {
		return fmt.Errorf("kernels: convolution InPlain needs fewer than %d input channels and one group, has %d and %d", Block, s.InC, s.Groups)
	}
	const limit = 1 << 31
	for _, v := range [][]int{
		{s.OutC, s.InC / s.Groups, s.KH, s.KW}, {s.InC + Block, s.InH + s.PadTop + s.PadBottom, s.InW + s.PadLeft + s.PadRight},
		{s.OutC + Block, s.OutH(), s.OutW()},
	} {
		n := 1
		for _, d := range v {
			if n > limit/d {
				return fmt.Errorf("kernels: convolution tensor %v is too large", v)
			}
			n *= d
		}
	}
	return nil
}

// The way the source of a convolution reaches the micro-kernel.
const (
	viaDirect = iota // read the C16 source in place (no padding)
	viaPadded        // copy a chunk of rows, with its padding, to scratch
	viaPlanar        // the same from few channels, as separate planes
)

// ocTile is one or two blocks of 16 output channels computed together.
type ocTile struct {
	block, nb  int // first block, number of blocks
	tap0, tapN int // range of convPlan.taps
	w          int // offset of its packed weights, elements
}

// convPlan is the geometry shared by the float and int8 convolutions.
type convPlan struct {
	s        ConvShape
	oh, ow   int // as walked: flat ones have oh = 1, ow = H*W
	ih, iw   int
	es       int // bytes of an input element
	via      int
	flat     bool
	rows     int // output rows (flat: positions) of a chunk
	bufRows  int // input rows of a chunk (via copy)
	bufW     int // columns of the buffer
	bufC     int // elements of a position of the buffer
	bufLen   int // elements of the buffer
	taps     []tap
	tiles    []ocTile
	wLen     int  // elements of packed weights
	group4   bool // pad taps to 4 elements (int8)
	icBlocks int
	ocBlocks int
}

// Input bytes a chunk may fill: the lower bound keeps chunks worth their
// overhead, the upper one leaves half of a 1 MB L2 to the weights.
const (
	chunkMin = 96 << 10
	chunkMax = 384 << 10
	// Weights beyond chunkHuge come from memory: they are read once, and the
	// input, half of that, comes from the third-level cache again and again.
	chunkHuge = 2 << 20
	// Fewer positions would read the weights for too little.
	chunkPositions = 64
	minPieces      = 8
)

// newConvPlan lays a validated shape out for elements of es bytes and
// micro-kernels of nb blocks and maxP positions. group4 pads taps to groups of
// four elements, mustCopy keeps the micro-kernel off the source itself.
func newConvPlan(s ConvShape, es, nb, maxP int, group4, mustCopy bool) *convPlan {
	s = s.defaults()
	p := &convPlan{s: s, es: es, oh: s.OutH(), ow: s.OutW(), ih: s.InH, iw: s.InW, group4: group4}
	p.icBlocks, p.ocBlocks = ceilDiv(s.InC, Block), ceilDiv(s.OutC, Block)
	padded := s.PadTop|s.PadLeft|s.PadBottom|s.PadRight != 0
	one := s.KH == 1 && s.KW == 1 && s.StrideH == 1 && s.StrideW == 1
	switch {
	case s.InPlain || (s.InC < Block && s.Groups == 1 && !(one && !padded)):
		p.via = viaPlanar
	case padded:
		p.via = viaPadded
	default:
		p.via = viaDirect
		if mustCopy {
			p.via = viaPadded
		}
		if one {
			p.flat = true
			p.oh, p.ow, p.ih, p.iw = 1, p.oh*p.ow, 1, p.ih*p.iw
		}
	}
	weights := s.OutC * (s.InC / s.Groups) * s.KH * s.KW * es
	budget := min(max(weights, chunkMin), chunkMax)
	if weights > chunkHuge {
		budget = chunkHuge / 2
	}
	p.bufC = Block
	chans := p.icBlocks * Block
	if p.via == viaPlanar {
		p.bufC, chans = 1, s.InC
	}
	p.bufW = (p.ow-1)*s.StrideW + (s.KW-1)*s.DilW + 1
	// A layer of few output tiles is cut along the image, so that threads find
	// work, as long as a chunk has chunkPositions.
	cut := ceilDiv(minPieces, ceilDiv(p.ocBlocks, nb))
	if p.flat {
		p.rows = max(1, min(p.ow, budget/(chans*es), max(chunkPositions, ceilDiv(ceilDiv(p.ow, cut), maxP)*maxP)))
	} else {
		line := p.bufW * chans * es
		r := (budget/line - (s.KH-1)*s.DilH - 1) / s.StrideH
		p.rows = max(1, min(p.oh, r+1, max(ceilDiv(chunkPositions, p.ow), ceilDiv(p.oh, cut))))
		p.rows = ceilDiv(p.oh, ceilDiv(p.oh, p.rows)) // even chunks
	}
	if p.flat {
		p.bufW = p.rows
	}
	p.bufRows = (p.rows-1)*s.StrideH + (s.KH-1)*s.DilH + 1
	if p.flat {
		p.bufRows = 1
	}
	p.bufLen = p.bufRows*p.bufW*chans + 2*Block
	// Offsets of (ic block, kh, kw) from a position, in elements.
	lineLen, planeRows := p.iw*Block, p.ih
	if p.via != viaDirect {
		lineLen, planeRows = p.bufW*p.bufC, p.bufRows
	}
	for b := 0; b < p.ocBlocks; b += nb {
		t := ocTile{block: b, nb: min(nb, p.ocBlocks-b), tap0: len(p.taps), w: p.wLen}
		c0, c1 := p.reads(&t)
		add := func(off, n int) {
			if group4 {
				n = ceilDiv(n, 4)
			}
			p.taps = append(p.taps, tap{int64(off * es), int64(n)})
		}
		if p.via == viaPlanar {
			for ic := 0; ic < s.InC; ic++ {
				for kh := 0; kh < s.KH; kh++ {
					off := (ic*p.bufRows + kh*s.DilH) * p.bufW
					if s.DilW == 1 {
						add(off, s.KW)
						continue
					}
					for kw := 0; kw < s.KW; kw++ {
						add(off+kw*s.DilW, 1)
					}
				}
			}
		} else {
			for ib := c0 / Block; ib*Block < c1; ib++ {
				lo, hi := p.channels(ib, c0, c1)
				for kh := 0; kh < s.KH; kh++ {
					for kw := 0; kw < s.KW; kw++ {
						off := (ib*planeRows+kh*s.DilH)*lineLen + kw*s.DilW*Block + lo%Block
						add(off, hi-lo)
					}
				}
			}
		}
		t.tapN = len(p.taps) - t.tap0
		for _, tp := range p.taps[t.tap0:] {
			n := int(tp.n)
			if group4 {
				n *= 4
			}
			p.wLen += n * t.nb * Block
		}
		p.tiles = append(p.tiles, t)
	}
	return p
}

// reads returns the input channels [c0, c1) that the groups of a tile read.
func (p *convPlan) reads(t *ocTile) (c0, c1 int) {
	icg, ocg := p.s.InC/p.s.Groups, p.s.OutC/p.s.Groups
	last := min((t.block+t.nb)*Block, p.s.OutC) - 1
	return t.block * Block / ocg * icg, (last/ocg + 1) * icg
}

// channels returns the part of block ib that the taps over [c0, c1) cover,
// starting at a group of four bytes for int8.
func (p *convPlan) channels(ib, c0, c1 int) (lo, hi int) {
	lo, hi = max(c0, ib*Block), min(c1, (ib+1)*Block)
	if p.group4 {
		lo -= lo % 4
	}
	return lo, hi
}

// packTile writes the OIHW weights of a tile to dst (zeroed) in the order of
// its taps: 16*nb output channels for each input value, or for int8 four input
// values for each channel.
func packTile[T float32 | int8](p *convPlan, t *ocTile, dst, weights []T) {
	s := &p.s
	icg, ocg, kk, width := s.InC/s.Groups, s.OutC/s.Groups, s.KH*s.KW, t.nb*Block
	step := 1 // input values side by side
	if p.group4 {
		step = 4
	}
	if p.via == viaPlanar {
		n := ceilDiv(s.KW, step) * step * width // of a row of KW taps
		if s.DilW != 1 {
			n = s.KW * step * width
		}
		for j := 0; j < min(width, s.OutC-t.block*Block); j++ {
			src := weights[(t.block*Block+j)*icg*kk:]
			for r := 0; r < s.InC*s.KH; r++ {
				for kw := 0; kw < s.KW; kw++ {
					at := (kw/step*width+j)*step + kw%step
					if s.DilW != 1 {
						at = (kw*width + j) * step
					}
					dst[r*n+at] = src[r*s.KW+kw]
				}
			}
		}
		return
	}
	c0, c1 := p.reads(t)
	for ib := c0 / Block; ib*Block < c1; ib++ {
		lo, hi := p.channels(ib, c0, c1)
		tapLen := ceilDiv(hi-lo, step) * step * width
		for j := 0; j < min(width, s.OutC-t.block*Block); j++ {
			oc := t.block*Block + j
			first := oc / ocg * icg // of the channel's group
			a, b := max(lo, first), min(hi, first+icg)
			if a >= b {
				continue
			}
			src := weights[(oc*icg+a-first)*kk : (oc*icg+b-first)*kk]
			if kk == 1 && step == 4 && (a-lo)%4 == 0 {
				for k := a - lo; len(src) >= 4; k += 4 {
					copy(dst[(k/4*width+j)*4:][:4], src)
					src, a = src[4:], a+4
				}
			}
			if step == 1 {
				at := (a-lo)*width + j
				if kk == 1 {
					for _, v := range src {
						dst[at] = v
						at += width
					}
					continue
				}
				for ; len(src) >= kk; src = src[kk:] {
					d := dst[at:]
					for i, v := range src[:kk] {
						d[i*tapLen] = v
					}
					at += width
				}
				continue
			}
			for ic := a; ic < b; ic++ {
				k := ic - lo
				d := dst[(k/step*width+j)*step+k%step:]
				for i, v := range src[:kk] {
					d[i*tapLen] = v
				}
				src = src[kk:]
			}
		}
		dst = dst[kk*tapLen:]
	}
}

// chunks returns how one image is cut: along rows (or flat positions).
func (p *convPlan) chunks() int {
	if p.flat {
		return ceilDiv(p.ow, p.rows)
	}
	return ceilDiv(p.oh, p.rows)
}

// copyChunk fills buf with the input rows that output rows r0... need, padding
// included; of a flat plan, with the positions from c0 on.
func copyChunk[T float32 | uint8](p *convPlan, buf, src []T, img, r0, c0 int, pad T) {
	s := &p.s
	hw := s.InH * s.InW
	if p.flat {
		n := min(p.rows, hw-c0) * Block
		for b := 0; b < p.icBlocks; b++ {
			copy(buf[b*p.bufW*Block:][:n], src[((img*p.icBlocks+b)*hw+c0)*Block:])
		}
		return
	}
	y0 := r0*s.StrideH - s.PadTop
	// Columns of the buffer that exist in the source: [left, left+n).
	left := min(s.PadLeft, p.bufW)
	n := max(0, min(p.bufW-left, s.InW))
	fill := func(b []T) { fillPad(b, pad) }
	if p.via == viaPlanar {
		for c := 0; c < s.InC; c++ {
			for r := 0; r < p.bufRows; r++ {
				d := buf[(c*p.bufRows+r)*p.bufW:][:p.bufW]
				y := y0 + r
				if y < 0 || y >= s.InH {
					fill(d)
					continue
				}
				fill(d[:left])
				fill(d[left+n:])
				d = d[left : left+n]
				if s.InPlain {
					copy(d, src[(img*s.InC+c)*hw+y*s.InW:])
					continue
				}
				row := src[(img*s.InH+y)*s.InW*Block+c:]
				for x := range d {
					d[x] = row[x*Block]
				}
			}
		}
		fill(buf[s.InC*p.bufRows*p.bufW : p.bufLen])
		return
	}
	line := p.bufW * Block
	for b := 0; b < p.icBlocks; b++ {
		plane := src[(img*p.icBlocks+b)*hw*Block:][:hw*Block]
		for r := 0; r < p.bufRows; r++ {
			d := buf[(b*p.bufRows+r)*line:][:line]
			y := y0 + r
			if y < 0 || y >= s.InH {
				fill(d)
				continue
			}
			fill(d[:left*Block])
			copy(d[left*Block:(left+n)*Block], plane[y*s.InW*Block:])
			fill(d[(left+n)*Block:])
		}
	}
	fill(buf[p.bufRows*p.bufW*p.icBlocks*Block : p.bufLen])
}

// ocSplit returns into how many pieces the output-channel tiles are cut so
// that pieces pieces become enough for the threads.
func (p *convPlan) ocSplit(pieces, threads int) int {
	if threads < 2 {
		return 1
	}
	return min(len(p.tiles), max(1, ceilDiv(4*threads, pieces)))
}

// prefetch is the fetching of the next output tile's weights while the present
// one is computed. The weights of the last layers of a network come from
// memory, faster than a core can ask for when they are first needed; spread
// over the first four passes of a tile over its positions they arrive in time.
type prefetch struct {
	base    unsafe.Pointer
	next    int // byte offset of the next tile's weights, -1 when there is none
	quarter int // bytes fetched in a pass
	pass    int
}

// newPrefetch prepares tile ti, the next of which is fetched if below end.
func (p *convPlan) newPrefetch(base unsafe.Pointer, ti, end int) prefetch {
	f := prefetch{base: base, next: -1}
	if ti+1 < end {
		last := p.wLen
		if ti+2 < len(p.tiles) {
			last = p.tiles[ti+2].w
		}
		f.next = p.tiles[ti+1].w * p.es
		f.quarter = (last*p.es - f.next) / 4 &^ 63
	}
	return f
}

// step returns the pointer and the step of the next pass.
func (f *prefetch) step() (unsafe.Pointer, int64) {
	if f.next < 0 || f.pass >= 4 {
		return f.base, 0
	}
	at := f.next + f.pass*f.quarter
	f.pass++
	return unsafe.Add(f.base, at), 128
}
