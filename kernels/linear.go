package kernels

import (
	"fmt"
	"unsafe"
)

// WeightOrder says how a matrix of weights is stored.
type WeightOrder uint8

// The orders of the weights of a product A[M,K] x W -> [M,N].
const (
	KN WeightOrder = iota // W is [K][N]
	NK                    // W is [N][K] (PyTorch's Linear, Gemm with transB)
)

// LinearF32 is A[M,K] x W[K,N] with packed weights and a fused epilogue, A and
// the result row-major. Immutable, safe for concurrent use.
type LinearF32 struct {
	k, n  int
	w     []float32
	bias  []float32
	lo    float32
	hi    float32
	round Round
	act   Activation
	rnd   Round
	mk    microF32
	tap   [1]tap
}

// NewLinearF32 packs k x n weights stored in the given order.
func NewLinearF32(k, n int, weights []float32, order WeightOrder, ep Epilogue) (*LinearF32, error) {
	if err := checkLinear(k, n, len(weights), ep); err != nil {
		return nil, err
	}
	l := &LinearF32{k: k, n: n, mk: cur.f32}
	var ok bool
	if l.lo, l.hi, ok = ep.Act.clip(); ok {
		l.round = ep.Round
	} else {
		l.act, l.rnd = ep.Act, ep.Round
	}
	l.bias = make([]float32, ceilDiv(n, Block)*Block)
	copy(l.bias, ep.Bias)
	l.tap[0] = tap{0, int64(k)}
	l.w = make([]float32, ceilDiv(n, Block)*Block*k, ceilDiv(n, Block)*Block*k+wSlack)
	rs, cs := n, 1
	if order == NK {
		rs, cs = 1, k
	}
	packB(l.w, weights, k, n, rs, cs, l.mk.nb)
	return l, nil
}

func checkLinear(k, n, weights int, ep Epilogue) error {
	if k < 1 || n < 1 || k > 1<<30 || n > 1<<30 || weights != k*n {
		return fmt.Errorf("kernels: linear layer %d -> %d needs %d weights, has %d", k, n, k*n, weights)
	}
	if ep.Bias != nil && len(ep.Bias) != n {
		return fmt.Errorf("kernels: linear bias has %d values, needs %d", len(ep.Bias), n)
	}
	if ep.Round > RoundF16Sat || !ep.Act.valid() {
		return fmt.Errorf("kernels: linear epilogue has unknown activation %d or rounding %d", ep.Act.Kind, ep.Round)
	}
	return nil
}

// packB packs a k x n matrix with the given row and column strides into panels
// of 16*nb columns: [panel][k][16*nb], the last panel as narrow as it can be.
func packB(dst, src []float32, k, n, rs, cs, nb int) {
	blocks := ceilDiv(n, Block)
	for b := 0; b < blocks; b += nb {
		w := min(nb, blocks-b) * Block
		d := dst[b*Block*k:]
		valid := min(w, n-b*Block)
		if cs == 1 {
			for i := 0; i < k; i++ {
				o := d[i*w : (i+1)*w]
				copy(o, src[i*rs+b*Block:][:valid])
				clear(o[valid:])
			}
			continue
		}
		for j := 0; j < w; j++ {
			if j >= valid {
				for i := 0; i < k; i++ {
					d[i*w+j] = 0
				}
				continue
			}
			col := src[(b*Block+j)*cs:]
			for i := 0; i < k; i++ {
				d[i*w+j] = col[i*rs]
			}
		}
	}
}

// K returns the length of a row of A.
func (l *LinearF32) K() int { return l.k }

// N returns the length of a row of the result.
func (l *LinearF32) N() int { return l.n }

// WeightBytes returns the bytes of the packed weights and bias.
func (l *LinearF32) WeightBytes() int { return 4 * (len(l.w) + len(l.bias)) }

// ScratchBytes returns the bytes of scratch that Run needs in each worker.
func (l *LinearF32) ScratchBytes() int { return 0 }

// gemmTask is a batch of products with the right side packed in panels.
type gemmTask struct {
	mk            microF32
	ctx           *Ctx
	dst, a, b     []float32
	res           []float32
	m, n, k       int
	as            int // row stride of a, elements
	aBatch        int
	bBatch        int
	taps          []tap
	bias          []float32
	lo, hi        float32
	round, rnd    Round
	act           Activation
	mChunk, mN    int // rows of a chunk, chunks
	tiles, nSplit int
}

// Run computes dst[m][N] = epilogue(a[m][K] x W + res).
func (l *LinearF32) Run(ctx *Ctx, dst, a, res []float32, m int) {
	need("linear dst", len(dst), m*l.n)
	need("linear a", len(a), m*l.k)
	if res != nil {
		need("linear residual", len(res), m*l.n)
	}
	if m < 1 {
		return
	}
	ctx.gemm = gemmTask{mk: l.mk, ctx: ctx, dst: dst, a: a, b: l.w, res: res, m: m, n: l.n, k: l.k, as: l.k,
		taps: l.tap[:], bias: l.bias, lo: l.lo, hi: l.hi, round: l.round, act: l.act, rnd: l.rnd}
	ctx.gemm.start(1)
}

func (g *gemmTask) start(batch int) {
	g.tiles = ceilDiv(ceilDiv(g.n, Block), g.mk.nb)
	g.mChunk = max(g.mk.maxP, min(g.m, chunkMax/(4*g.k))/g.mk.maxP*g.mk.maxP)
	g.mN = ceilDiv(g.m, g.mChunk)
	g.nSplit = 1
	if t := g.ctx.Threads(); t > 1 {
		g.nSplit = min(g.tiles, max(1, ceilDiv(4*t, batch*g.mN)))
	}
	g.ctx.pool.Run(batch*g.mN*g.nSplit, g)
	*g = gemmTask{}
}

func (g *gemmTask) RunPiece(i, worker int) {
	batch, rest := i/(g.mN*g.nSplit), i%(g.mN*g.nSplit)
	m0 := rest / g.nSplit * g.mChunk
	m1 := min(m0+g.mChunk, g.m)
	t0 := g.tiles * (rest % g.nSplit) / g.nSplit
	t1 := g.tiles * (rest%g.nSplit + 1) / g.nSplit
	if t0 >= t1 {
		return
	}
	nb := g.mk.nb
	src := g.a[batch*g.aBatch:]
	w := g.b[batch*g.bBatch:]
	out := batch * g.m * g.n
	t := &g.ctx.workers[worker].tile
	t.stride = int64(4 * g.as)
	t.dstride, t.dblock = int64(4*g.n), 4*Block
	t.taps, t.ntaps = &g.taps[0], 1
	t.lo, t.hi, t.round = g.lo, g.hi, int64(g.round)
	for ti := t0; ti < t1; ti++ {
		col := ti * nb * Block
		blocks := min(nb, ceilDiv(g.n-col, Block))
		t.nb = int64(blocks)
		t.lanes = int64(min(Block, g.n-col-(blocks-1)*Block))
		t.w = unsafe.Pointer(&w[col*g.k])
		t.bias = unsafe.Pointer(&g.bias[col])
		for r, left := m0, m1-m0; left > 0; {
			n := splitEven(left, g.mk.maxP)
			t.p = int64(n)
			t.a = unsafe.Pointer(&src[r*g.as])
			t.b = unsafe.Add(t.a, secondGroup(n)*t.stride)
			t.dst = unsafe.Pointer(&g.dst[out+r*g.n+col])
			if g.res != nil {
				t.res = unsafe.Pointer(&g.res[out+r*g.n+col])
			}
			g.mk.run(t)
			r, left = r+n, left-n
		}
	}
	t.clear()
	if g.act.Kind != ActNone || g.rnd != RoundNone {
		c0, c1 := t0*nb*Block, min(t1*nb*Block, g.n)
		for r := m0; r < m1; r++ {
			finish(g.dst[out+r*g.n+c0:out+r*g.n+c1], g.act, g.rnd)
		}
	}
}

// MatMulShape is a batch of products dst[M,N] = A[M,K] x B[K,N] of activations,
// row-major; TransA says A is stored [K,M], TransB that B is stored [N,K].
// BroadcastB uses one B for the whole batch.
type MatMulShape struct {
	Batch, M, N, K int
	TransA, TransB bool
	BroadcastB     bool
}

// MatMulScratchFloats returns the length of the shared scratch MatMulF32 keeps
// in the context.
func MatMulScratchFloats(s MatMulShape) int {
	n := ceilDiv(s.N, Block)*Block*s.K*s.bBatches() + ceilDiv(s.N, Block)*Block
	if s.TransA {
		n += s.Batch * s.M * s.K
	}
	return n
}

func (s MatMulShape) bBatches() int {
	if s.BroadcastB {
		return min(1, s.Batch)
	}
	return s.Batch
}

// MatMulF32 computes a batch of products of two activations, with an epilogue
// whose bias has N values.
func MatMulF32(ctx *Ctx, dst, a, b []float32, s MatMulShape, ep Epilogue) {
	if s.Batch < 1 || s.M < 1 || s.N < 1 {
		return
	}
	if s.K < 1 {
		panic("kernels: MatMulF32: K must be positive")
	}
	need("MatMulF32 dst", len(dst), s.Batch*s.M*s.N)
	need("MatMulF32 a", len(a), s.Batch*s.M*s.K)
	need("MatMulF32 b", len(b), s.bBatches()*s.K*s.N)
	total := MatMulScratchFloats(s)
	if len(ctx.packB) < total {
		ctx.packB = make([]float32, total+wSlack)[:total]
	}
	buf := ctx.packB[:total]
	bias := buf[:ceilDiv(s.N, Block)*Block]
	buf = buf[len(bias):]
	clear(bias)
	copy(bias, ep.Bias)
	panel := ceilDiv(s.N, Block) * Block * s.K
	pb := buf[:panel*s.bBatches()]
	buf = buf[len(pb):]
	rs, cs := s.N, 1
	if s.TransB {
		rs, cs = 1, s.K
	}
	for i := 0; i < s.bBatches(); i++ {
		packB(pb[i*panel:], b[i*s.K*s.N:], s.K, s.N, rs, cs, cur.f32.nb)
	}
	if s.TransA {
		for i := 0; i < s.Batch; i++ {
			transpose2(buf[i*s.M*s.K:], a[i*s.M*s.K:], s.K, s.M)
		}
		a = buf
	}
	g := &ctx.gemm
	*g = gemmTask{mk: cur.f32, ctx: ctx, dst: dst, a: a, b: pb, m: s.M, n: s.N, k: s.K, as: s.K,
		aBatch: s.M * s.K, bBatch: panel, bias: bias}
	if s.BroadcastB {
		g.bBatch = 0
	}
	var ok bool
	if g.lo, g.hi, ok = ep.Act.clip(); ok {
		g.round = ep.Round
	} else {
		g.act, g.rnd = ep.Act, ep.Round
	}
	w := &ctx.workers[0]
	if cap(w.taps) < 1 {
		w.taps = make([]tap, 1)
	}
	w.taps = w.taps[:1]
	w.taps[0] = tap{0, int64(s.K)}
	g.taps = w.taps
	g.start(s.Batch)
}

// transpose2 writes the rows x cols matrix src to dst as cols x rows.
func transpose2(dst, src []float32, rows, cols int) {
	const b = 16
	for r0 := 0; r0 < rows; r0 += b {
		for c0 := 0; c0 < cols; c0 += b {
			for r := r0; r < min(r0+b, rows); r++ {
				for c := c0; c < min(c0+b, cols); c++ {
					dst[c*rows+r] = src[r*cols+c]
				}
			}
		}
	}
}

// LinearI8Config describes an int8 linear layer.
type LinearI8Config struct {
	K, N    int
	Weights []int8
	Order   WeightOrder
	WScale  []float32 // one, or one per output
	In, Out QParams
	Epilogue
}

// LinearI8 is A[M,K] x W[K,N] of 8-bit activations and int8 weights, exact in
// int32, with the epilogue of [ConvI8]. Immutable, safe for concurrent use.
type LinearI8 struct {
	epilogueI8
	cfg LinearI8Config
	kp  int // K rounded up to 4
	w   []int8
	tap [1]tap
	mk  microI8
}

// NewLinearI8 packs an int8 linear layer.
func NewLinearI8(cfg LinearI8Config) (*LinearI8, error) {
	if err := checkLinear(cfg.K, cfg.N, len(cfg.Weights), cfg.Epilogue); err != nil {
		return nil, err
	}
	if err := checkI8(cfg.N, cfg.K, cfg.WScale, cfg.In, cfg.Out, cfg.Epilogue); err != nil {
		return nil, err
	}
	l := &LinearI8{cfg: cfg, kp: (cfg.K + 3) &^ 3, mk: cur.i8}
	np := ceilDiv(cfg.N, Block) * Block
	sums := make([]int32, cfg.N)
	l.w = make([]int8, np*l.kp, np*l.kp+4*wSlack)
	l.tap[0] = tap{0, int64(l.kp / 4)}
	blocks, nb := np/Block, l.mk.nb
	for n := 0; n < cfg.N; n++ {
		b := n / Block / nb * nb
		width := min(nb, blocks-b) * Block
		d := l.w[b*Block*l.kp:]
		j := n - b*Block
		for k := 0; k < cfg.K; k++ {
			var v int8
			if cfg.Order == KN {
				v = cfg.Weights[k*cfg.N+n]
			} else {
				v = cfg.Weights[n*cfg.K+k]
			}
			sums[n] += int32(v)
			d[(k/4*width+j)*4+k%4] = v
		}
	}
	l.epilogueI8 = newEpilogueI8(cfg.N, cfg.WScale, cfg.In, cfg.Out, cfg.Epilogue, sums, l.mk.signed)
	l.cfg.Weights = nil
	return l, nil
}

// WeightBytes returns the bytes of the packed weights, scales and biases.
func (l *LinearI8) WeightBytes() int { return len(l.w) + l.epilogueI8.bytes() }

// ScratchBytes returns the bytes of scratch that Run needs in each worker.
func (l *LinearI8) ScratchBytes() int {
	return l.mk.maxP*(l.kp+64) + 5*l.mk.maxP*Block*l.mk.nb + 64 // rows, and a tile as floats and bytes
}

// RunF32 computes m rows to float32.
func (l *LinearI8) RunF32(ctx *Ctx, dst []float32, a []uint8, res Residual, m int) {
	need("int8 linear dst", len(dst), m*l.cfg.N)
	l.run(ctx, outSpec{f32: dst}, a, res, m)
}

// RunQ8 computes m rows to bytes quantised with Out.
func (l *LinearI8) RunQ8(ctx *Ctx, dst []uint8, a []uint8, res Residual, m int) {
	if l.out == (QParams{}) {
		panic("kernels: RunQ8 of an int8 linear layer built without Out")
	}
	need("int8 linear dst", len(dst), m*l.cfg.N)
	l.run(ctx, outSpec{q8: dst}, a, res, m)
}

// RunI32 computes the raw accumulators sum (a - In.Zero) * w of m rows.
func (l *LinearI8) RunI32(ctx *Ctx, dst []int32, a []uint8, m int) {
	need("int8 linear dst", len(dst), m*l.cfg.N)
	l.run(ctx, outSpec{i32: dst}, a, Residual{}, m)
}

type gemmI8Task struct {
	l             *LinearI8
	ctx           *Ctx
	out           outSpec
	a             []uint8
	res           Residual
	m             int
	mN            int
	tiles, nSplit int
}

func (l *LinearI8) run(ctx *Ctx, out outSpec, a []uint8, res Residual, m int) {
	need("int8 linear a", len(a), m*l.cfg.K)
	if res.F32 != nil {
		need("int8 linear residual", len(res.F32), m*l.cfg.N)
	} else if res.Q8 != nil {
		need("int8 linear residual", len(res.Q8), m*l.cfg.N)
	}
	if m < 1 {
		return
	}
	t := &ctx.gemmI8
	*t = gemmI8Task{l: l, ctx: ctx, out: out, a: a, res: res, m: m, mN: ceilDiv(m, l.mk.maxP)}
	t.tiles = ceilDiv(ceilDiv(l.cfg.N, Block), l.mk.nb)
	t.nSplit = 1
	if n := ctx.Threads(); n > 1 {
		t.nSplit = min(t.tiles, max(1, ceilDiv(4*n, t.mN)))
	}
	ctx.pool.Run(t.mN*t.nSplit, t)
	*t = gemmI8Task{}
}

func (t *gemmI8Task) RunPiece(i, worker int) {
	l := t.l
	n, nb := l.cfg.N, l.mk.nb
	m0 := i / t.nSplit * l.mk.maxP
	rows := min(l.mk.maxP, t.m-m0)
	t0 := t.tiles * (i % t.nSplit) / t.nSplit
	t1 := t.tiles * (i%t.nSplit + 1) / t.nSplit
	w := &t.ctx.workers[worker]
	buf := w.u8(l.ScratchBytes())
	// Rows are copied to a stride that is a multiple of 4 and not of a page, so
	// that the kernel may read whole groups and no cache set is overloaded.
	as := l.kp + 64
	for r := 0; r < rows; r++ {
		d := buf[r*as : r*as+l.kp]
		copy(d, t.a[(m0+r)*l.cfg.K:][:l.cfg.K])
		flipBytes(d[:l.cfg.K], l.flipIn)
		clear(d[l.cfg.K:])
	}
	lateAt := (l.mk.maxP*as + 63) &^ 63
	a := &w.tileI8
	a.stride = int64(as)
	l.fill(a, t.out, t.res)
	late := l.late && t.out.kind() != outI32
	rs := int64(4)
	if a.rq8 != 0 {
		rs = 1
	}
	a.rstride, a.rblock = rs*int64(n), rs*Block
	a.dstride, a.dblock = t.out.size()*int64(n), t.out.size()*Block
	if late {
		a.dstride, a.dblock = int64(4*Block*nb), 4*Block
	}
	a.taps, a.ntaps = &l.tap[0], 1
	a.p = int64(rows)
	a.a = unsafe.Pointer(&buf[0])
	a.b = unsafe.Add(a.a, secondGroup(rows)*a.stride)
	for ti := t0; ti < t1; ti++ {
		col := ti * nb * Block
		blocks := min(nb, ceilDiv(n-col, Block))
		a.nb = int64(blocks)
		a.lanes = int64(min(Block, n-col-(blocks-1)*Block))
		a.w = unsafe.Pointer(&l.w[col*l.kp])
		l.channel(a, col)
		at := m0*n + col
		if t.res.F32 != nil {
			a.res = unsafe.Pointer(&t.res.F32[at])
		} else if t.res.Q8 != nil {
			a.res = unsafe.Pointer(&t.res.Q8[at])
		}
		if !late {
			a.dst = t.out.at(at)
			l.mk.run(a)
			continue
		}
		a.dst = unsafe.Pointer(&buf[lateAt])
		l.mk.run(a)
		// The tile is finished as a whole: its rows are too short to be worth calls
		// of their own. Lanes beyond the last column are whatever they were.
		x := unsafe.Slice((*float32)(a.dst), rows*nb*Block)
		finish(x, l.act, l.rnd)
		valid := min(nb*Block, n-col)
		if t.out.f32 != nil {
			for r := range rows {
				copy(t.out.f32[at+r*n:][:valid], x[r*nb*Block:])
			}
			continue
		}
		q := buf[lateAt+4*len(x):][:len(x)]
		quantize(q, x, l.out)
		for r := range rows {
			copy(t.out.q8[at+r*n:][:valid], q[r*nb*Block:])
		}
	}
	*a = tileArgsI8{}
}
