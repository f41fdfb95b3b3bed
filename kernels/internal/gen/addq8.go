package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Byte offsets of addArgs (addq8.go of the package).
const (
	aqDst    = 0
	aqA      = 8
	aqB      = 16
	aqN      = 24
	aqScaleA = 32
	aqScaleB = 36
	aqZeroA  = 40
	aqZeroB  = 44
	aqFlipA  = 48
	aqFlipB  = 52
	aqLo     = 56
	aqHi     = 60
	aqScale  = 64
	aqInv    = 68
	aqQLo    = 72
	aqQHi    = 76
	aqAdd    = 80
)

// Byte offsets of sumArgs; the first four fields are those of addArgs.
const (
	sqRatioA = 32
	sqRatioB = 36
	sqC      = 40
	sqFlipA  = 44
	sqFlipB  = 48
	sqFlipD  = 52
)

func genAddQ8AVX512(a *asm) {
	a.sumQ8512("sumQ8AVX512")
	a.addQ8512("addQ8AVX512", false)
	a.addQ8512("addQ8F16AVX512", true)
}

// addQ8512 adds bytes, four vectors at a time. The quotient is
// rounded correctly by Markstein's two steps from the reciprocal, as in the
// int8 tiles; its clamp comes last, because nothing here is infinite.
func (a *asm) addQ8512(name string, half bool) {
	a.begin(name, "addArgs", rT)
	dst, pa, pb, left := reg.RDI, reg.RSI, reg.RDX, reg.RCX
	a.MOVQ(mem(rT, aqDst), dst)
	a.MOVQ(mem(rT, aqA), pa)
	a.MOVQ(mem(rT, aqB), pb)
	a.MOVQ(mem(rT, aqN), left)
	a.SHRQ(Imm(4), left)
	z := zregs
	k := map[int]reg.VecPhysical{}
	for i, off := range []int{aqScaleA, aqScaleB, aqZeroA, aqZeroB, aqFlipA, aqFlipB, aqLo, aqHi, aqScale, aqInv, aqQLo, aqQHi, aqAdd} {
		k[off] = z[16+i]
		a.VPBROADCASTD(mem(rT, off), z[16+i])
	}
	round := func(v int) {
		if half {
			a.VCVTPS2PH(Imm(0), z[v], yregs[v])
			a.VCVTPH2PS(yregs[v], z[v])
		}
	}
	body := func(n int) {
		each := func(f func(x, y int)) {
			for i := 0; i < n; i++ {
				f(3*i, 3*i+1)
			}
		}
		operand := func(y bool, p reg.Register, flip, zero, scale int) {
			at := func(x int) int {
				if y {
					return x + 1
				}
				return x
			}
			each(func(x, _ int) { a.VPMOVZXBD(mem(p, 16*(x/3)), z[at(x)]) })
			each(func(x, _ int) { a.VPXORD(k[flip], z[at(x)], z[at(x)]) })
			each(func(x, _ int) { a.VPSUBD(k[zero], z[at(x)], z[at(x)]) })
			each(func(x, _ int) { a.VCVTDQ2PS(z[at(x)], z[at(x)]) })
			each(func(x, _ int) { a.VMULPS(k[scale], z[at(x)], z[at(x)]) })
			each(func(x, _ int) { round(at(x)) })
		}
		operand(false, pa, aqFlipA, aqZeroA, aqScaleA)
		operand(true, pb, aqFlipB, aqZeroB, aqScaleB)
		each(func(x, y int) { a.VADDPS(z[y], z[x], z[x]) })
		each(func(x, _ int) { a.VMAXPS(k[aqLo], z[x], z[x]) })
		each(func(x, _ int) { a.VMINPS(k[aqHi], z[x], z[x]) })
		each(func(x, _ int) { round(x) })
		each(func(x, y int) { a.VMULPS(k[aqInv], z[x], z[y]) })
		each(func(x, y int) { a.VFNMADD231PS(k[aqScale], z[y], z[x]) })
		each(func(x, y int) { a.VFMADD231PS(k[aqInv], z[x], z[y]) })
		each(func(_, y int) { a.VMAXPS(k[aqQLo], z[y], z[y]) })
		each(func(_, y int) { a.VMINPS(k[aqQHi], z[y], z[y]) })
		each(func(_, y int) { a.VCVTPS2DQ(z[y], z[y]) })
		each(func(_, y int) { a.VPADDD(k[aqAdd], z[y], z[y]) })
		each(func(x, y int) { a.VPMOVDB(z[y], mem(dst, 16*(x/3))) })
		for _, p := range []reg.GPPhysical{pa, pb, dst} {
			a.ADDQ(imm(16*n), p)
		}
	}
	a.SUBQ(Imm(4), left)
	a.JLT(LabelRef("rest"))
	a.Label("four")
	body(4)
	a.SUBQ(Imm(4), left)
	a.JGE(LabelRef("four"))
	a.Label("rest")
	a.ADDQ(Imm(4), left)
	a.JZ(LabelRef("end"))
	a.Label("one")
	body(1)
	a.DECQ(left)
	a.JNZ(LabelRef("one"))
	a.Label("end")
	a.VZEROUPPER()
	a.RET()
}

// sumQ8512 adds bytes in steps of the sum, two vectors at a time.
func (a *asm) sumQ8512(name string) {
	a.begin(name, "sumArgs", rT)
	dst, pa, pb, left := reg.RDI, reg.RSI, reg.RDX, reg.RCX
	a.MOVQ(mem(rT, aqDst), dst)
	a.MOVQ(mem(rT, aqA), pa)
	a.MOVQ(mem(rT, aqB), pb)
	a.MOVQ(mem(rT, aqN), left)
	a.SHRQ(Imm(4), left)
	z := zregs
	k := map[int]reg.VecPhysical{}
	for i, off := range []int{sqRatioA, sqRatioB, sqC, sqFlipA, sqFlipB, sqFlipD} {
		k[off] = z[16+i]
		a.VPBROADCASTD(mem(rT, off), z[16+i])
	}
	zero, top := z[22], z[23]
	a.VPXORD(zero, zero, zero)
	a.MOVL(U32(255), reg.EAX)
	a.VPBROADCASTD(reg.EAX, top)
	a.VCVTDQ2PS(top, top)
	body := func(n int) {
		each := func(f func(x, y, i int)) {
			for i := 0; i < n; i++ {
				f(2*i, 2*i+1, i)
			}
		}
		each(func(x, _, i int) { a.VPMOVZXBD(mem(pa, 16*i), z[x]) })
		each(func(_, y, i int) { a.VPMOVZXBD(mem(pb, 16*i), z[y]) })
		each(func(x, _, _ int) { a.VPXORD(k[sqFlipA], z[x], z[x]) })
		each(func(_, y, _ int) { a.VPXORD(k[sqFlipB], z[y], z[y]) })
		each(func(x, _, _ int) { a.VCVTDQ2PS(z[x], z[x]) })
		each(func(_, y, _ int) { a.VCVTDQ2PS(z[y], z[y]) })
		each(func(_, y, _ int) { a.VFMADD213PS(k[sqC], k[sqRatioB], z[y]) })
		each(func(x, y, _ int) { a.VFMADD231PS(k[sqRatioA], z[x], z[y]) })
		each(func(_, y, _ int) { a.VMAXPS(zero, z[y], z[y]) })
		each(func(_, y, _ int) { a.VMINPS(top, z[y], z[y]) })
		each(func(_, y, _ int) { a.VCVTPS2DQ(z[y], z[y]) })
		each(func(_, y, _ int) { a.VPXORD(k[sqFlipD], z[y], z[y]) })
		each(func(_, y, i int) { a.VPMOVDB(z[y], mem(dst, 16*i)) })
		for _, p := range []reg.GPPhysical{pa, pb, dst} {
			a.ADDQ(imm(16*n), p)
		}
	}
	a.SUBQ(Imm(4), left)
	a.JLT(LabelRef("rest"))
	a.Label("four")
	body(4)
	a.SUBQ(Imm(4), left)
	a.JGE(LabelRef("four"))
	a.Label("rest")
	a.ADDQ(Imm(4), left)
	a.JZ(LabelRef("end"))
	a.Label("one")
	body(1)
	a.DECQ(left)
	a.JNZ(LabelRef("one"))
	a.Label("end")
	a.VZEROUPPER()
	a.RET()
}

func genAddQ8AVX2(a *asm) {
	a.sumQ8256("sumQ8AVX2")
	a.addQ8256("addQ8AVX2", false)
	a.addQ8256("addQ8F16AVX2", true)
}

// addQ8256 is the same for 256-bit registers, 16 bytes a round in two of them.
// What does not fit into registers is broadcast where it is used.
func (a *asm) addQ8256(name string, half bool) {
	a.begin(name, "addArgs", rT)
	dst, pa, pb, left := reg.RDI, reg.RSI, reg.RDX, reg.RCX
	a.MOVQ(mem(rT, aqDst), dst)
	a.MOVQ(mem(rT, aqA), pa)
	a.MOVQ(mem(rT, aqB), pb)
	a.MOVQ(mem(rT, aqN), left)
	a.SHRQ(Imm(4), left)
	y := yregs
	k := map[int]reg.VecPhysical{}
	for i, off := range []int{aqZeroA, aqZeroB, aqFlipA, aqFlipB, aqScaleA, aqScaleB, aqInv, aqScale, aqQLo, aqQHi} {
		k[off] = y[6+i]
		a.VPBROADCASTD(mem(rT, off), y[6+i])
	}
	round := func(v int) {
		if half {
			a.VCVTPS2PH(Imm(0), y[v], xregs[v])
			a.VCVTPH2PS(xregs[v], y[v])
		}
	}
	// Registers 0 and 1 hold the first operand and the remainder of the division,
	// 2 and 3 the second and the quotient, 4 a broadcast.
	both := func(f func(h int)) { f(0); f(1) }
	a.Label("loop")
	for i, p := range []reg.Register{pa, pb} {
		flip, zero, scale := []int{aqFlipA, aqFlipB}[i], []int{aqZeroA, aqZeroB}[i], []int{aqScaleA, aqScaleB}[i]
		both(func(h int) { a.VPMOVZXBD(mem(p, 8*h), y[2*i+h]) })
		both(func(h int) { a.VPXOR(k[flip], y[2*i+h], y[2*i+h]) })
		both(func(h int) { a.VPSUBD(k[zero], y[2*i+h], y[2*i+h]) })
		both(func(h int) { a.VCVTDQ2PS(y[2*i+h], y[2*i+h]) })
		both(func(h int) { a.VMULPS(k[scale], y[2*i+h], y[2*i+h]) })
		both(func(h int) { round(2*i + h) })
	}
	both(func(h int) { a.VADDPS(y[2+h], y[h], y[h]) })
	a.VBROADCASTSS(mem(rT, aqLo), y[4])
	both(func(h int) { a.VMAXPS(y[4], y[h], y[h]) })
	a.VBROADCASTSS(mem(rT, aqHi), y[4])
	both(func(h int) { a.VMINPS(y[4], y[h], y[h]) })
	both(func(h int) { round(h) })
	both(func(h int) { a.VMULPS(k[aqInv], y[h], y[2+h]) })
	both(func(h int) { a.VFNMADD231PS(k[aqScale], y[2+h], y[h]) })
	both(func(h int) { a.VFMADD231PS(k[aqInv], y[h], y[2+h]) })
	both(func(h int) { a.VMAXPS(k[aqQLo], y[2+h], y[2+h]) })
	both(func(h int) { a.VMINPS(k[aqQHi], y[2+h], y[2+h]) })
	a.VPBROADCASTD(mem(rT, aqAdd), y[4])
	both(func(h int) { a.VCVTPS2DQ(y[2+h], y[2+h]) })
	both(func(h int) { a.VPADDD(y[4], y[2+h], y[2+h]) })
	a.packPair()
	a.VMOVDQU(reg.X2, mem(dst, 0))
	for _, p := range []reg.GPPhysical{pa, pb, dst} {
		a.ADDQ(Imm(16), p)
	}
	a.DECQ(left)
	a.JNZ(LabelRef("loop"))
	a.VZEROUPPER()
	a.RET()
}

// sumQ8256 is sumQ8512 for 256-bit registers, 16 bytes a round in two of them.
func (a *asm) sumQ8256(name string) {
	a.begin(name, "sumArgs", rT)
	dst, pa, pb, left := reg.RDI, reg.RSI, reg.RDX, reg.RCX
	a.MOVQ(mem(rT, aqDst), dst)
	a.MOVQ(mem(rT, aqA), pa)
	a.MOVQ(mem(rT, aqB), pb)
	a.MOVQ(mem(rT, aqN), left)
	a.SHRQ(Imm(4), left)
	y := yregs
	k := map[int]reg.VecPhysical{}
	for i, off := range []int{sqRatioA, sqRatioB, sqC, sqFlipA, sqFlipB, sqFlipD} {
		k[off] = y[6+i]
		a.VPBROADCASTD(mem(rT, off), y[6+i])
	}
	zero, top := y[12], y[13]
	a.VPXOR(zero, zero, zero)
	a.MOVL(U32(255), reg.EAX)
	a.VMOVD(reg.EAX, xregs[13])
	a.VPBROADCASTD(xregs[13], top)
	a.VCVTDQ2PS(top, top)
	both := func(f func(h int)) { f(0); f(1) }
	a.Label("loop")
	both(func(h int) { a.VPMOVZXBD(mem(pa, 8*h), y[h]) })
	both(func(h int) { a.VPMOVZXBD(mem(pb, 8*h), y[2+h]) })
	both(func(h int) { a.VPXOR(k[sqFlipA], y[h], y[h]) })
	both(func(h int) { a.VPXOR(k[sqFlipB], y[2+h], y[2+h]) })
	both(func(h int) { a.VCVTDQ2PS(y[h], y[h]) })
	both(func(h int) { a.VCVTDQ2PS(y[2+h], y[2+h]) })
	both(func(h int) { a.VFMADD213PS(k[sqC], k[sqRatioB], y[2+h]) })
	both(func(h int) { a.VFMADD231PS(k[sqRatioA], y[h], y[2+h]) })
	both(func(h int) { a.VMAXPS(zero, y[2+h], y[2+h]) })
	both(func(h int) { a.VMINPS(top, y[2+h], y[2+h]) })
	both(func(h int) { a.VCVTPS2DQ(y[2+h], y[2+h]) })
	both(func(h int) { a.VPXOR(k[sqFlipD], y[2+h], y[2+h]) })
	a.packPair()
	a.VMOVDQU(reg.X2, mem(dst, 0))
	for _, p := range []reg.GPPhysical{pa, pb, dst} {
		a.ADDQ(Imm(16), p)
	}
	a.DECQ(left)
	a.JNZ(LabelRef("loop"))
	a.VZEROUPPER()
	a.RET()
}

// packPair packs the low bytes of the 16 integers in registers 2 and 3, which
// fit words, into the first 16 bytes of register 2.
func (a *asm) packPair() {
	y := yregs
	a.VPACKSSDW(y[3], y[2], y[2])
	a.VPERMQ(Imm(0xd8), y[2], y[2])
	a.VPSLLW(Imm(8), y[2], y[2])
	a.VPSRLW(Imm(8), y[2], y[2])
	a.VEXTRACTI128(Imm(1), y[2], reg.X4)
	a.VPACKUSWB(reg.X4, reg.X2, reg.X2)
}

// sumQ8 is the same for arm64.
func (a *arm) sumQ8(name string) {
	a.begin(name, "sumArgs")
	a.f("MOVD %d(R0), R1", aqDst)
	a.f("MOVD %d(R0), R3", aqA)
	a.f("MOVD %d(R0), R4", aqB)
	a.f("MOVD %d(R0), R5", aqN)
	a.f("LSR $4, R5, R5")
	for i, off := range []int{sqRatioA, sqRatioB, sqC} {
		a.dup(off, 16+i)
	}
	for i, off := range []int{sqFlipA, sqFlipB, sqFlipD} {
		a.f("MOVWU %d(R0), R2", off)
		a.f("VDUP R2, V%d.B16", 26+i)
	}
	a.zero(20)
	a.konst(255, 21)
	a.label("loop")
	for i := 0; i < 2; i++ {
		v := 4 * i
		a.f("VLD1.P 16(R%d), [V8.B16]", 3+i)
		a.eor(26+i, 8, 8)
		a.uxtl8(8, 9)
		a.uxtl8hi(8, 10)
		a.uxtl16(9, v)
		a.uxtl16hi(9, v+1)
		a.uxtl16(10, v+2)
		a.uxtl16hi(10, v+3)
		q4(func(q int) { a.scvtf(v+q, v+q) })
	}
	q4(func(q int) {
		a.mov(18, 22+q)
		a.fmla(17, 4+q, 22+q)
	})
	q4(func(q int) {
		a.fmla(16, q, 22+q)
		a.fmax(20, 22+q, 22+q)
		a.fmin(21, 22+q, q)
		a.fcvtns(q, q)
	})
	a.narrow()
	a.eor(28, 6, 6)
	a.f("VST1.P [V6.B16], 16(R1)")
	a.f("SUBS $1, R5, R5")
	a.f("BNE loop")
	a.f("RET")
}

// addQ8 is the same for arm64, which divides.
func (a *arm) addQ8(name string, half bool) {
	a.begin(name, "addArgs")
	a.f("MOVD %d(R0), R1", aqDst)
	a.f("MOVD %d(R0), R3", aqA)
	a.f("MOVD %d(R0), R4", aqB)
	a.f("MOVD %d(R0), R5", aqN)
	a.f("LSR $4, R5, R5")
	for i, off := range []int{aqZeroA, aqZeroB, aqScaleA, aqScaleB, aqLo, aqHi, aqScale, aqQLo, aqQHi, aqAdd} {
		a.dup(off, 16+i)
	}
	for i, off := range []int{aqFlipA, aqFlipB} {
		a.f("MOVWU %d(R0), R2", off)
		a.f("VDUP R2, V%d.B16", 26+i)
	}
	round := func(v int) {
		if half {
			a.fcvtn(v, 28+v%4)
			a.fcvtl(28+v%4, v)
		}
	}
	a.label("loop")
	for i := 0; i < 2; i++ {
		v := 4 * i
		a.f("VLD1.P 16(R%d), [V8.B16]", 3+i)
		a.eor(26+i, 8, 8)
		a.uxtl8(8, 9)
		a.uxtl8hi(8, 10)
		a.uxtl16(9, v)
		a.uxtl16hi(9, v+1)
		a.uxtl16(10, v+2)
		a.uxtl16hi(10, v+3)
		q4(func(q int) {
			a.sub(16+i, v+q, v+q)
			a.scvtf(v+q, v+q)
			a.fmul(18+i, v+q, v+q)
			round(v + q)
		})
	}
	q4(func(q int) {
		a.fadd(4+q, q, q)
		a.fmax(20, q, q)
		a.fmin(21, q, q)
		round(q)
		a.fdiv(22, q, q)
		a.fmax(23, q, q)
		a.fmin(24, q, q)
		a.fcvtns(q, q)
		a.add(25, q, q)
	})
	a.narrow()
	a.f("VST1.P [V6.B16], 16(R1)")
	a.f("SUBS $1, R5, R5")
	a.f("BNE loop")
	a.f("RET")
}
