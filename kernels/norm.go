package kernels

import (
	"math"
	"unsafe"
)

type normKind uint8

const (
	normSoftmax normKind = iota
	normSoftmaxStrided
	normLayer
	normGroup
)

// normTask is a normalisation over rows, strips or groups.
type normTask struct {
	ctx                *Ctx
	kind               normKind
	dst, src           []float32
	outer, axis, inner int
	grain              int
	gamma, beta        []float32
	eps                float32
	c, hw, groups      int
}

func (c *Ctx) runNorm(n int, t normTask) {
	t.ctx = c
	c.norm = t
	c.pool.Run(n, &c.norm)
	c.norm = normTask{}
}

func (t *normTask) RunPiece(i, worker int) {
	switch t.kind {
	case normSoftmax:
		var buf []float32
		if t.axis%Block != 0 && t.axis <= softmaxPad && cur.vec != vecNone {
			buf = t.ctx.workers[worker].f32(ceilDiv(t.axis, Block) * Block)
		}
		for r := i * t.grain; r < min((i+1)*t.grain, t.outer); r++ {
			softmaxRow(t.dst[r*t.axis:(r+1)*t.axis], t.src[r*t.axis:(r+1)*t.axis], buf)
		}
	case normSoftmaxStrided:
		t.softmaxStrip(i)
	case normLayer:
		for r := i * t.grain; r < min((i+1)*t.grain, t.outer); r++ {
			t.layerRow(t.dst[r*t.axis:(r+1)*t.axis], t.src[r*t.axis:(r+1)*t.axis])
		}
	case normGroup:
		t.group(i)
	}
}

// Softmax writes the softmax of src over the middle axis of
// [outer][axis][inner] to dst (may be src).
func Softmax(ctx *Ctx, dst, src []float32, outer, axis, inner int) {
	n := outer * axis * inner
	need("Softmax dst", len(dst), n)
	need("Softmax src", len(src), n)
	if n == 0 {
		return
	}
	t := normTask{dst: dst, src: src, outer: outer, axis: axis, inner: inner}
	if inner == 1 {
		t.grain = max(1, flatGrain/axis)
		ctx.runNorm(ceilDiv(outer, t.grain), t)
		return
	}
	t.kind = normSoftmaxStrided
	ctx.runNorm(outer*ceilDiv(inner, softmaxStrip), t)
}

// softmaxStrip is the number of columns walked together along a strided axis,
// so that cache lines are used whole.
const softmaxStrip = 64

func (t *normTask) softmaxStrip(i int) {
	strips := ceilDiv(t.inner, softmaxStrip)
	o, c0 := i/strips, i%strips*softmaxStrip
	w := min(softmaxStrip, t.inner-c0)
	var hi, sum [softmaxStrip]float32
	s, d := t.src[o*t.axis*t.inner+c0:], t.dst[o*t.axis*t.inner+c0:]
	copy(hi[:w], s[:w])
	for a := 1; a < t.axis; a++ {
		for j, v := range s[a*t.inner : a*t.inner+w] {
			if v > hi[j] {
				hi[j] = v
			}
		}
	}
	for a := 0; a < t.axis; a++ {
		out := d[a*t.inner : a*t.inner+w]
		binary(Sub, out, s[a*t.inner:a*t.inner+w], hi[:w])
		expSlice(out, out)
		binary(Add, sum[:w], sum[:w], out)
	}
	for a := 0; a < t.axis; a++ {
		out := d[a*t.inner : a*t.inner+w]
		binary(Div, out, out, sum[:w])
	}
}

// softmaxPad is the longest row that is padded to whole vectors.
const softmaxPad = 4096

// softmaxRow writes the softmax of one row. What is left over whole vectors would
// cost more than they do, so other rows go through a padded copy in buf, unless
// that is nil.
func softmaxRow(dst, src, buf []float32) {
	if n := len(src); n%Block != 0 && buf != nil {
		copy(buf, src)
		for i := n; i < len(buf); i++ {
			buf[i] = -inf32
		}
		softmaxRow(buf, buf, nil)
		copy(dst, buf)
		return
	}
	hi := maxOf(src)
	var sum float64
	full := len(src) &^ 15
	if full > 0 {
		var part [Block]float32
		t := vecArgs{dst: unsafe.Pointer(&dst[0]), a: unsafe.Pointer(&src[0]), b: unsafe.Pointer(&part), n: int64(full), p: [6]float32{hi}}
		if vecCall(vopExpSum, &t) {
			for _, v := range part {
				sum += float64(v)
			}
		} else {
			full = 0
		}
	}
	if full < len(src) {
		rest := dst[full:]
		for i, v := range src[full:] {
			rest[i] = v - hi
		}
		expSlice(rest, rest)
		for _, v := range rest {
			sum += float64(v)
		}
	}
	binaryScalar(Mul, dst, dst, float32(1/sum), false)
}

// maxOf returns the largest value.
func maxOf(src []float32) float32 {
	hi := src[0]
	if full := len(src) &^ 15; full > 0 {
		var part [Block]float32
		t := vecArgs{dst: unsafe.Pointer(&part), a: unsafe.Pointer(&src[0]), n: int64(full)}
		if vecCall(vopMax, &t) {
			for _, v := range part {
				if v > hi {
					hi = v
				}
			}
			src = src[full:]
		}
	}
	for _, v := range src {
		if v > hi {
			hi = v
		}
	}
	return hi
}

func expSlice(dst, src []float32) {
	if vec1(vopExp, dst, src, 0, 0) {
		return
	}
	for i, v := range src {
		dst[i] = float32(math.Exp(float64(v)))
	}
}

// LayerNorm normalises each of rows rows of cols values to zero mean and unit
// variance (biased, plus eps), times gamma plus beta (each cols values or nil).
// Sums are kept in float64.
func LayerNorm(ctx *Ctx, dst, src []float32, rows, cols int, gamma, beta []float32, eps float32) {
	need("LayerNorm dst", len(dst), rows*cols)
	need("LayerNorm src", len(src), rows*cols)
	if gamma != nil {
		need("LayerNorm gamma", len(gamma), cols)
	}
	if beta != nil {
		need("LayerNorm beta", len(beta), cols)
	}
	if rows < 1 || cols < 1 {
		return
	}
	t := normTask{kind: normLayer, dst: dst, src: src, outer: rows, axis: cols, gamma: gamma, beta: beta, eps: eps, grain: max(1, flatGrain/cols)}
	ctx.runNorm(ceilDiv(rows, t.grain), t)
}

func (t *normTask) layerRow(d, x []float32) {
	m := sum64(x, 0, false) / float64(len(x))
	mean, inv := float32(m), float32(1/math.Sqrt(sum64(x, m, true)/float64(len(x))+float64(t.eps)))
	if t.gamma != nil && t.beta != nil && len(x) >= Block {
		a := vecArgs{dst: unsafe.Pointer(&d[0]), a: unsafe.Pointer(&x[0]), b: unsafe.Pointer(&t.gamma[0]), c: unsafe.Pointer(&t.beta[0]),
			n: int64(len(x) &^ 15), p: [6]float32{mean, inv}}
		if vecCall(vopNorm, &a) {
			t.normTail(d, x, len(x)&^15, mean, inv)
			return
		}
	}
	t.normTail(d, x, 0, mean, inv)
}

func (t *normTask) normTail(d, x []float32, from int, mean, inv float32) {
	for i := from; i < len(x); i++ {
		y := (x[i] - mean) * inv
		if t.gamma != nil {
			y *= t.gamma[i]
		}
		if t.beta != nil {
			y += t.beta[i]
		}
		d[i] = y
	}
}

// sum64 returns the float64 sum of x, or of (x - m)^2. m is used as given, so
// that a mean that is no float32 costs nothing.
func sum64(x []float32, m float64, square bool) float64 {
	var s float64
	if full := len(x) &^ 15; full > 0 {
		var part [8]float64
		a := vecArgs{dst: unsafe.Pointer(&part), a: unsafe.Pointer(&x[0]), n: int64(full)}
		*(*float64)(unsafe.Pointer(&a.p[0])) = m
		op := vopSum64
		if square {
			op = vopVar64
		}
		if vecCall(op, &a) {
			for _, v := range part {
				s += v
			}
			x = x[full:]
		}
	}
	for _, v := range x {
		if square {
			d := float64(v) - m
			s += d * d
			continue
		}
		s += float64(v)
	}
	return s
}

// GroupNormC16 normalises n images of c channels (C16, h x w) in groups of
// c/groups channels over channels and space, times gamma plus beta by channel
// (each c values or nil). groups = 1 is layer normalisation over channels and
// space, groups = c instance normalisation.
func GroupNormC16(ctx *Ctx, dst, src []float32, n, c, h, w, groups int, gamma, beta []float32, eps float32) {
	if groups < 1 || c%groups != 0 {
		panic("kernels: GroupNormC16: channels are not divisible by groups")
	}
	hw, cb := h*w, ceilDiv(c, Block)
	need("GroupNormC16 dst", len(dst), n*cb*hw*Block)
	need("GroupNormC16 src", len(src), n*cb*hw*Block)
	if gamma != nil {
		need("GroupNormC16 gamma", len(gamma), c)
	}
	if beta != nil {
		need("GroupNormC16 beta", len(beta), c)
	}
	if n*c*hw == 0 {
		return
	}
	ctx.runNorm(n*groups, normTask{kind: normGroup, dst: dst, src: src, c: c, hw: hw, groups: groups, gamma: gamma, beta: beta, eps: eps})
}

// group normalises group i: lanes of whole and partial blocks.
func (t *normTask) group(i int) {
	hw, gc := t.hw, t.c/t.groups
	c0 := i % t.groups * gc
	base := i / t.groups * ceilDiv(t.c, Block) * hw * Block
	sum := func(m float64, square bool) float64 {
		var s float64
		for ch := c0; ch < c0+gc; {
			blk, lo := ch/Block, ch%Block
			hi := min(Block, c0+gc-blk*Block)
			x := t.src[base+blk*hw*Block:][:hw*Block]
			ch = blk*Block + hi
			if lo == 0 && hi == Block {
				s += sum64(x, m, square)
				continue
			}
			for p := 0; p < hw; p++ {
				for _, v := range x[p*Block+lo : p*Block+hi] {
					if square {
						d := float64(v) - m
						s += d * d
						continue
					}
					s += float64(v)
				}
			}
		}
		return s
	}
	count := float64(gc * hw)
	m := sum(0, false) / count
	mean, inv := float32(m), float32(1/math.Sqrt(sum(m, true)/count+float64(t.eps)))
	for ch := c0; ch < c0+gc; {
		blk, lo := ch/Block, ch%Block
		hi := min(Block, c0+gc-blk*Block)
		ch = blk*Block + hi
		var g, b [Block]float32
		for j := lo; j < hi; j++ {
			g[j] = inv
			if t.gamma != nil {
				g[j] *= t.gamma[blk*Block+j]
			}
			if t.beta != nil {
				b[j] = t.beta[blk*Block+j]
			}
		}
		at := base + blk*hw*Block
		if lo == 0 && (hi == Block || blk*Block+hi == t.c) {
			a := vecArgs{dst: unsafe.Pointer(&t.dst[at]), a: unsafe.Pointer(&t.src[at]), b: unsafe.Pointer(&g), c: unsafe.Pointer(&b),
				n: int64(hw * Block), p: [6]float32{mean}}
			if vecCall(vopAffine16, &a) {
				continue
			}
		}
		for p := 0; p < hw; p++ {
			x, d := t.src[at+p*Block:][:Block], t.dst[at+p*Block:][:Block]
			for j := lo; j < hi; j++ {
				d[j] = (x[j]-mean)*g[j] + b[j]
			}
		}
	}
}
