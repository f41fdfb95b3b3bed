package kernels

import "unsafe"

// Ctx is what one calling goroutine owns while it runs kernels: a pool to
// spread work over, scratch memory for each of its workers, and the argument
// blocks of the calls. A Ctx must not be used by two goroutines at once; make
// one per session context. The zero Ctx, and a nil *Ctx, are not valid: use
// [NewCtx].
type Ctx struct {
	pool    *Pool
	workers []workerState
	conv    convTask
	dw      dwTask
	dwI8    dwI8Task
	convI8  convI8Task
	gemm    gemmTask
	gemmI8  gemmI8Task
	flat    flatTask
	bcast   bcastTask
	add     addTask
	layout  layoutTask
	pools   poolTask
	norm    normTask
	reduce  reduceTask
	resize  resizeTask
	plans   map[poolKey]*dwGeom // pooling geometries seen
	grids   map[gridKey]*grid   // resize index tables seen
	packB   []float32
	lut     [256]uint8
}

// workerState is the private memory of one worker in one Ctx.
type workerState struct {
	scratch []uint64 // 8-byte aligned backing of f32() and u8()
	tile    tileArgs
	tileI8  tileArgsI8
	copied  int // chunk id whose padded input is in scratch, -1 none
	taps    []tap
	_       [64]byte
}

// NewCtx returns a context that spreads work over p (nil: no extra threads).
func NewCtx(p *Pool) *Ctx {
	c := &Ctx{pool: p, workers: make([]workerState, p.Threads())}
	for i := range c.workers {
		c.workers[i].copied = -1
	}
	return c
}

// Threads returns the number of threads the context's pool uses.
func (c *Ctx) Threads() int { return len(c.workers) }

// Pool returns the pool the context spreads work over; it may be nil.
func (c *Ctx) Pool() *Pool { return c.pool }

// Reserve grows the scratch of every worker to at least bytes, so that later
// calls of kernels whose ScratchBytes is no larger allocate nothing.
func (c *Ctx) Reserve(bytes int) {
	for i := range c.workers {
		c.workers[i].reserve(bytes)
	}
}

// ScratchBytes returns the bytes of scratch held now, over all workers.
func (c *Ctx) ScratchBytes() int {
	n := 4 * cap(c.packB)
	for i := range c.workers {
		n += 8 * len(c.workers[i].scratch)
	}
	return n
}

func (w *workerState) reserve(bytes int) {
	if n := (bytes + 7) / 8; n > len(w.scratch) {
		w.scratch = make([]uint64, n)
	}
}

// forgetCopies marks the scratch of all workers as holding nothing.
func (c *Ctx) forgetCopies() {
	for i := range c.workers {
		c.workers[i].copied = -1
	}
}

// f32 returns n floats of scratch; contents are whatever was there.
func (w *workerState) f32(n int) []float32 {
	w.reserve(4 * n)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&w.scratch[0])), n)
}

// u8 returns n bytes of scratch.
func (w *workerState) u8(n int) []uint8 {
	w.reserve(n)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*uint8)(unsafe.Pointer(&w.scratch[0])), n)
}

// Bytes views int8 values as raw bytes without a copy.
func Bytes(s []int8) []uint8 {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*uint8)(unsafe.Pointer(&s[0])), len(s))
}

// Int8s views raw bytes as int8 values without a copy.
func Int8s(s []uint8) []int8 {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*int8)(unsafe.Pointer(&s[0])), len(s))
}

func need(what string, have, want int) {
	if have < want {
		panicShort(what, have, want)
	}
}

//go:noinline
func panicShort(what string, have, want int) {
	panic("kernels: " + what + " has " + itoa(have) + " elements, needs " + itoa(want))
}

func itoa(n int) string {
	if n < 0 {
		return "-" + itoa(-n)
	}
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// flatGrain is the number of elements of one piece of a flat element-wise job:
// large enough to hide the hand-over, small enough to stay in L2.
const flatGrain = 16384

// flatKind says what a flatTask computes.
type flatKind uint8

const (
	flatBinary flatKind = iota
	flatScalar
	flatUnary
	flatAct
	flatFinish
	flatRound
	flatToF16
	flatFromF16
	flatQuant
	flatDequant
	flatLUT
)

// flatTask is an element-wise job on [0, n), cut into pieces of flatGrain. It
// is a value with no closure so that running it allocates nothing.
type flatTask struct {
	kind      flatKind
	bin       BinaryOp
	un        UnaryOp
	swap      bool
	round     Round
	n         int
	dst, a, b []float32
	s         float32
	act       Activation
	h         []uint16
	d8, s8    []uint8
	q         QParams
	lut       *[256]uint8
}

// runFlat runs t on the context's pool.
func (c *Ctx) runFlat(t flatTask) {
	if t.n <= 0 {
		return
	}
	c.flat = t
	c.pool.Run(ceilDiv(t.n, flatGrain), &c.flat)
	c.flat = flatTask{}
}

func (t *flatTask) RunPiece(i, _ int) {
	lo := i * flatGrain
	hi := min(lo+flatGrain, t.n)
	switch t.kind {
	case flatBinary:
		binary(t.bin, t.dst[lo:hi], t.a[lo:hi], t.b[lo:hi])
	case flatScalar:
		binaryScalar(t.bin, t.dst[lo:hi], t.a[lo:hi], t.s, t.swap)
	case flatUnary:
		unary(t.un, t.dst[lo:hi], t.a[lo:hi])
	case flatAct:
		applyAct(t.dst[lo:hi], t.a[lo:hi], t.act)
	case flatFinish:
		finish(t.dst[lo:hi], t.act, t.round)
	case flatRound:
		if t.round == RoundF16Sat {
			roundF16Sat(t.dst[lo:hi], t.a[lo:hi])
		} else {
			roundF16(t.dst[lo:hi], t.a[lo:hi])
		}
	case flatToF16:
		f32ToF16(t.h[lo:hi], t.a[lo:hi])
	case flatFromF16:
		f16ToF32(t.dst[lo:hi], t.h[lo:hi])
	case flatQuant:
		quantize(t.d8[lo:hi], t.a[lo:hi], t.q)
	case flatDequant:
		dequantize(t.dst[lo:hi], t.s8[lo:hi], t.q)
	case flatLUT:
		d := t.d8[lo:hi]
		for k, v := range t.s8[lo:hi] {
			d[k] = t.lut[v]
		}
	}
}
