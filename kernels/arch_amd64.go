package kernels

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

var avx512vnniLevel = level{
	name:   "avx512vnni",
	vec:    vecZ,
	f32:    microF32{maxP: 14, nb: 2, run: tileF32AVX512},
	i8:     microI8{maxP: 14, nb: 2, run: func(t *tileArgsI8) { tileI8VNNI512Table[t.nb-1][t.p-1](t) }},
	dw:     byStride(dwF32AVX512s1, dwF32AVX512s2),
	dwEdge: dwEdgeAVX512,
	dwI8:   microDWI8{maxP: 16, bytes: true, run: byStride8(dwI8VNNI512s1, dwI8VNNI512s2)},

	maxF32: byStride(maxF32AVX512s1, maxF32AVX512s2),
	max8:   max8AVX512,
	addQ8:  [...]func(*addArgs){addQ8AVX512, addQ8F16AVX512},
	sumQ8:  sumQ8AVX512,

	peakF32: peakF32AVX512, peakF32Ops: 24 * 16 * 2,
	peakI8: peakI8VNNI512, peakI8Ops: 24 * 64 * 2,
}

// avx512Level is AVX-512 without VNNI: bytes go through the AVX2 kernels.
var avx512Level = level{
	name:   "avx512",
	vec:    vecZ,
	f32:    microF32{maxP: 14, nb: 2, run: tileF32AVX512},
	i8:     microI8{maxP: 2, nb: 1, run: func(t *tileArgsI8) { tileI8AVX2Table[0][t.p-1](t) }},
	dw:     byStride(dwF32AVX512s1, dwF32AVX512s2),
	dwEdge: dwEdgeAVX512,
	dwI8:   microDWI8{maxP: 16, run: byStride8(dwI8AVX2s1, dwI8AVX2s2)},

	maxF32: byStride(maxF32AVX512s1, maxF32AVX512s2),
	max8:   max8AVX512,
	addQ8:  [...]func(*addArgs){addQ8AVX512, addQ8F16AVX512},
	sumQ8:  sumQ8AVX512,

	peakF32: peakF32AVX512, peakF32Ops: 24 * 16 * 2,
	peakI8: peakI8AVX2, peakI8Ops: 5 * 16 * 2,
}

var avxvnniLevel = level{
	name: "avxvnni",
	vec:  vecY,
	f32:  microF32{maxP: 6, nb: 1, run: func(t *tileArgs) { tileF32AVX2Table[0][t.p-1](t) }},
	i8:   microI8{maxP: 6, nb: 1, run: func(t *tileArgsI8) { tileI8AVXVNNITable[0][t.p-1](t) }},
	dw:   byStride(dwF32AVX2s1, dwF32AVX2s2),
	dwI8: microDWI8{maxP: 16, run: byStride8(dwI8AVX2s1, dwI8AVX2s2)},

	maxF32: byStride(maxF32AVX2s1, maxF32AVX2s2),
	max8:   max8AVX2,
	addQ8:  [...]func(*addArgs){addQ8AVX2, addQ8F16AVX2},
	sumQ8:  sumQ8AVX2,

	peakF32: peakF32AVX2, peakF32Ops: 12 * 8 * 2,
	peakI8: peakI8AVXVNNI, peakI8Ops: 12 * 32 * 2,
}

var avx2Level = level{
	name: "avx2",
	vec:  vecY,
	f32:  microF32{maxP: 6, nb: 1, run: func(t *tileArgs) { tileF32AVX2Table[0][t.p-1](t) }},
	i8:   microI8{maxP: 2, nb: 1, run: func(t *tileArgsI8) { tileI8AVX2Table[0][t.p-1](t) }},
	dw:   byStride(dwF32AVX2s1, dwF32AVX2s2),
	dwI8: microDWI8{maxP: 16, run: byStride8(dwI8AVX2s1, dwI8AVX2s2)},

	maxF32: byStride(maxF32AVX2s1, maxF32AVX2s2),
	max8:   max8AVX2,
	addQ8:  [...]func(*addArgs){addQ8AVX2, addQ8F16AVX2},
	sumQ8:  sumQ8AVX2,

	peakF32: peakF32AVX2, peakF32Ops: 12 * 8 * 2,
	peakI8: peakI8AVX2, peakI8Ops: 5 * 16 * 2,
}

func dwEdgeAVX512(width, strideW int) func(*tileArgs) {
	if strideW > 2 || width > len(dwEdgeAVX512Table[0]) {
		return nil
	}
	return dwEdgeAVX512Table[strideW-1][width-1]
}

func tileF32AVX512(t *tileArgs) { tileF32AVX512Table[t.nb-1][t.p-1](t) }

// byStride chooses between row kernels written for one horizontal stride. For a
// wider one the kernel of stride 1 computes one position a call.
func byStride(s1, s2 func(*tileArgs)) microDW {
	return func(t *tileArgs, strideW int) {
		switch strideW {
		case 1:
			s1(t)
			return
		case 2:
			s2(t)
			return
		}
		a, dst, res, p, rows := t.a, t.dst, t.res, t.p, t.rows
		t.p = 1
		for i := range rows * p {
			t.a, t.rows = unsafe.Add(a, i/p*t.srow+i%p*int64(strideW)*4*Block), 1
			t.dst = unsafe.Add(dst, i*4*Block)
			if res != nil {
				t.res = unsafe.Add(res, i*4*Block)
			}
			s1(t)
		}
		t.a, t.dst, t.res, t.p, t.rows = a, dst, res, p, rows
	}
}

// byStride8 is byStride for bytes.
func byStride8(s1, s2 func(*tileArgsI8)) func(*tileArgsI8, int) {
	return func(t *tileArgsI8, strideW int) {
		switch strideW {
		case 1:
			s1(t)
			return
		case 2:
			s2(t)
			return
		}
		a, dst, p, rows := t.a, t.dst, t.p, t.rows
		size := int64(Block)
		if t.out == outI32 && t.corr != nil { // maxima have neither
			size = 4 * Block
		}
		t.p = 1
		for i := range rows * p {
			t.a, t.rows = unsafe.Add(a, i/p*t.srow+i%p*int64(strideW)*Block), 1
			t.dst = unsafe.Add(dst, i*size)
			s1(t)
		}
		t.a, t.dst, t.p, t.rows = a, dst, p, rows
	}
}

var (
	maxU8AVX512, maxS8AVX512 = byStride8(maxU8AVX512s1, maxU8AVX512s2), byStride8(maxS8AVX512s1, maxS8AVX512s2)
	maxU8AVX2, maxS8AVX2     = byStride8(maxU8AVX2s1, maxU8AVX2s2), byStride8(maxS8AVX2s1, maxS8AVX2s2)
)

func max8AVX512(t *tileArgsI8, strideW int, signed bool) {
	if signed {
		maxS8AVX512(t, strideW)
		return
	}
	maxU8AVX512(t, strideW)
}

func max8AVX2(t *tileArgsI8, strideW int, signed bool) {
	if signed {
		maxS8AVX2(t, strideW)
		return
	}
	maxU8AVX2(t, strideW)
}

// archLevels returns the levels this processor can run, best first.
func archLevels() []*level {
	x := &cpu.X86
	avx2 := x.HasAVX2 && x.HasFMA && hasF16C()
	avx512 := avx2 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL
	var ls []*level
	for _, l := range []struct {
		has bool
		l   *level
	}{
		{avx512 && x.HasAVX512VNNI, &avx512vnniLevel},
		{avx512, &avx512Level},
		{avx2 && x.HasAVXVNNI, &avxvnniLevel},
		{avx2, &avx2Level},
		{true, &genericLevel},
	} {
		if l.has {
			ls = append(ls, l.l)
		}
	}
	return ls
}

// Values of level.vec.
const (
	vecNone = iota
	vecZ
	vecY
)

// vecCall runs op with the kernels of the level in use.
func vecCall(op vecOp, t *vecArgs) bool {
	switch cur.vec {
	case vecZ:
		return vecAVX512(op, t)
	case vecY:
		return vecAVX2(op, t)
	}
	return false
}
