package kernels

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// neonDotLevel uses SDOT, which Apple's processors and every Armv8.4 one have.
var neonDotLevel = level{
	name: "neondot",
	vec:  vecN,
	f32:  microF32{maxP: 5, nb: 1, run: tileF32NEON},
	i8:   microI8{maxP: 5, nb: 1, signed: true, run: func(t *tileArgsI8) { tileI8(t, true) }},
	dw:   dwNEON,
	dwI8: microDWI8{maxP: 16, bytes: true, run: dwI8NEONAny},

	maxF32: func(t *tileArgs, _ int) { maxF32NEON(t) },
	max8:   max8NEON,
	addQ8:  [...]func(*addArgs){addQ8NEON, addQ8F16NEON},
	sumQ8:  sumQ8NEON,

	peakF32: peakF32NEON, peakF32Ops: 24 * 4 * 2,
	peakI8: peakI8SDOT, peakI8Ops: 24 * 16 * 2,
}

var neonLevel = level{
	name: "neon",
	vec:  vecN,
	f32:  microF32{maxP: 5, nb: 1, run: tileF32NEON},
	i8:   microI8{maxP: 3, nb: 1, signed: true, run: func(t *tileArgsI8) { tileI8(t, false) }},
	dw:   dwNEON,
	dwI8: microDWI8{maxP: 16, bytes: true, run: dwI8NEONAny},

	maxF32: func(t *tileArgs, _ int) { maxF32NEON(t) },
	max8:   max8NEON,
	addQ8:  [...]func(*addArgs){addQ8NEON, addQ8F16NEON},
	sumQ8:  sumQ8NEON,

	peakF32: peakF32NEON, peakF32Ops: 24 * 4 * 2,
	peakI8: peakI8NEON, peakI8Ops: 12 * 8 * 2,
}

// archLevels returns the levels this processor can run, best first.
func archLevels() []*level {
	ls := []*level{&neonLevel, &genericLevel}
	if cpu.ARM64.HasASIMDDP || runtime.GOOS == "darwin" {
		ls = append([]*level{&neonDotLevel}, ls...)
	}
	return ls
}

// The row kernels take any stride.
func dwNEON(t *tileArgs, _ int) { dwF32NEON(t) }

func dwI8NEONAny(t *tileArgsI8, _ int) { dwI8NEON(t) }

func max8NEON(t *tileArgsI8, _ int, signed bool) {
	if signed {
		maxS8NEON(t)
		return
	}
	maxU8NEON(t)
}

// tileF32NEON runs the tile; a partial last block, which the assembly does not
// know, goes through a copy.
func tileF32NEON(t *tileArgs) {
	if t.lanes == Block {
		calltileF32NEON(t)
		return
	}
	var out, res [5 * Block]float32
	u := *t
	u.dst, u.dstride = ptr(&out[0]), 4*Block
	if t.res != nil {
		u.res = ptr(&res[0])
		for p := int64(0); p < t.p; p++ {
			copy(res[p*Block:], lanesOf[float32](t.res, p*t.dstride, t.lanes))
		}
	}
	calltileF32NEON(&u)
	for p := int64(0); p < t.p; p++ {
		copy(lanesOf[float32](t.dst, p*t.dstride, t.lanes), out[p*Block:])
	}
}

// wholeI8 runs a tile of whole blocks. The calls are direct, so that arguments
// on the stack stay there.
func wholeI8(t *tileArgsI8, dot bool) {
	if dot {
		calltileI8SDOT(t)
	} else {
		calltileI8NEON(t)
	}
}

// tileI8 is tileF32NEON for bytes.
func tileI8(t *tileArgsI8, dot bool) {
	if t.lanes == Block {
		wholeI8(t, dot)
		return
	}
	var out, res [5 * Block]uint32
	u := *t
	size, rsize := int64(4), int64(4)
	if t.out == outQ8 {
		size = 1
	}
	if t.rq8 != 0 {
		rsize = 1
	}
	u.dst, u.dstride = ptr(&out[0]), size*Block
	if t.res != nil {
		u.res, u.rstride = ptr(&res[0]), rsize*Block
		for p := int64(0); p < t.p; p++ {
			copy(lanesOf[uint8](u.res, p*u.rstride, rsize*t.lanes), lanesOf[uint8](t.res, p*t.rstride, rsize*t.lanes))
		}
	}
	wholeI8(&u, dot)
	for p := int64(0); p < t.p; p++ {
		copy(lanesOf[uint8](t.dst, p*t.dstride, size*t.lanes), lanesOf[uint8](u.dst, p*u.dstride, size*t.lanes))
	}
}

func spinPause() {}

// Values of level.vec.
const (
	vecNone = iota
	vecN
)

// vecCall runs op with the kernels of the level in use.
func vecCall(op vecOp, t *vecArgs) bool { return cur.vec == vecN && vecNEON(op, t) }

// ptr and lanesOf view memory of a tile.
func ptr[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

func lanesOf[T any](p unsafe.Pointer, off, n int64) []T {
	return unsafe.Slice((*T)(unsafe.Add(p, off)), n)
}
