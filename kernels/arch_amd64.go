package kernels

import "golang.org/x/sys/cpu"

func dwAVX512(t *tileArgs, strideW int) {
	switch strideW {
	case 1:
		dwF32AVX512s1(t)
	case 2:
		dwF32AVX512s2(t)
	default:
		dwF32Go(t, strideW)
	}
}

func dwI8VNNI512(t *tileArgsI8, strideW int) {
	switch strideW {
	case 1:
		dwI8VNNI512s1(t)
	case 2:
		dwI8VNNI512s2(t)
	default:
		dwI8Go(t, strideW)
	}
}

func maxAVX512(t *tileArgs, strideW int) {
	switch strideW {
	case 1:
		maxF32AVX512s1(t)
	case 2:
		maxF32AVX512s2(t)
	default:
		maxF32Go(t, strideW)
	}
}

func max8AVX512(t *tileArgsI8, strideW int, signed bool) {
	switch {
	case strideW == 1 && signed:
		maxS8AVX512s1(t)
	case strideW == 1:
		maxU8AVX512s1(t)
	case strideW == 2 && signed:
		maxS8AVX512s2(t)
	case strideW == 2:
		maxU8AVX512s2(t)
	default:
		max8Go(t, strideW, signed)
	}
}

var avx512Level = level{
	name:   "avx512",
	vec:    vecZ,
	f32:    microF32{maxP: 14, nb: 2, run: func(t *tileArgs) { tileF32AVX512Table[t.nb-1][t.p-1](t) }},
	i8:     microI8{maxP: 4, nb: 1, run: tileI8Go},
	dw:     dwAVX512,
	dwI8:   microDWI8{maxP: 16, run: dwI8Go},
	maxF32: maxAVX512, max8: max8AVX512,

	peakF32: peakF32AVX512, peakF32Ops: 24 * 16 * 2,
	peakI8: peakI8Go, peakI8Ops: 8,
}

var avx512vnniLevel = level{
	name:   "avx512vnni",
	vec:    vecZ,
	f32:    avx512Level.f32,
	i8:     microI8{maxP: 14, nb: 2, run: func(t *tileArgsI8) { tileI8VNNI512Table[t.nb-1][t.p-1](t) }},
	dw:     dwAVX512,
	dwI8:   microDWI8{maxP: 16, run: dwI8VNNI512},
	maxF32: maxAVX512, max8: max8AVX512,

	peakF32: peakF32AVX512, peakF32Ops: 24 * 16 * 2,
	peakI8: peakI8VNNI512, peakI8Ops: 24 * 64 * 2,
}

// archLevels returns the levels this processor can run, best first.
func archLevels() []*level {
	var ls []*level
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasFMA {
		if cpu.X86.HasAVX512VNNI {
			ls = append(ls, &avx512vnniLevel)
		}
		ls = append(ls, &avx512Level)
	}
	return append(ls, &genericLevel)
}

func spinPause() {}

// Values of level.vec.
const (
	vecNone = iota
	vecZ
)

// vecCall runs op with the kernels of the level in use.
func vecCall(op vecOp, t *vecArgs) bool {
	switch cur.vec {
	case vecZ:
		return vecAVX512(op, t)
	}
	return false
}
