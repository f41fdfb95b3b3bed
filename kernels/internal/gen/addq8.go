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
	aqBase   = 84
	aqFlipD  = 88
)

// Registers of the byte additions; RCX counts vectors of 16 bytes.
var addDst, addA, addB = reg.RDI, reg.RSI, reg.RDX

func (a *asm) beginAdd(name string) {
	a.begin(name, "addArgs", rT)
	a.MOVQ(mem(rT, aqDst), addDst)
	a.MOVQ(mem(rT, aqA), addA)
	a.MOVQ(mem(rT, aqB), addB)
	a.MOVQ(mem(rT, aqN), reg.RCX)
	a.SHRQ(Imm(4), reg.RCX)
}

func (a *asm) nextBytes(n int) {
	for _, p := range []reg.GPPhysical{addA, addB, addDst} {
		a.ADDQ(imm(n), p)
	}
}

func genAddQ8AVX512(a *asm) {
	a.sumQ8512("sumQ8AVX512")
	a.addQ8512("addQ8AVX512", false)
	a.addQ8512("addQ8F16AVX512", true)
}

// addQ8512 adds bytes, four vectors at a time. The quotient is
// rounded correctly by Markstein's two steps from the reciprocal, as in the
// int8 tiles; its clamp comes last, because nothing here is infinite.
func (a *asm) addQ8512(name string, half bool) {
	a.beginAdd(name)
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
		operand(false, addA, aqFlipA, aqZeroA, aqScaleA)
		operand(true, addB, aqFlipB, aqZeroB, aqScaleB)
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
		each(func(x, y int) { a.VPMOVDB(z[y], mem(addDst, 16*(x/3))) })
		a.nextBytes(16 * n)
	}
	a.byFour(body)
}

// sumQ8512 adds bytes in steps of the sum, four vectors at a time.
func (a *asm) sumQ8512(name string) {
	a.beginAdd(name)
	z := zregs
	k := map[int]reg.VecPhysical{}
	for i, off := range []int{aqScaleA, aqScaleB, aqBase, aqFlipA, aqFlipB, aqFlipD} {
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
		each(func(x, _, i int) { a.VPMOVZXBD(mem(addA, 16*i), z[x]) })
		each(func(_, y, i int) { a.VPMOVZXBD(mem(addB, 16*i), z[y]) })
		each(func(x, _, _ int) { a.VPXORD(k[aqFlipA], z[x], z[x]) })
		each(func(_, y, _ int) { a.VPXORD(k[aqFlipB], z[y], z[y]) })
		each(func(x, _, _ int) { a.VCVTDQ2PS(z[x], z[x]) })
		each(func(_, y, _ int) { a.VCVTDQ2PS(z[y], z[y]) })
		each(func(_, y, _ int) { a.VFMADD213PS(k[aqBase], k[aqScaleB], z[y]) })
		each(func(x, y, _ int) { a.VFMADD231PS(k[aqScaleA], z[x], z[y]) })
		each(func(_, y, _ int) { a.VMAXPS(zero, z[y], z[y]) })
		each(func(_, y, _ int) { a.VMINPS(top, z[y], z[y]) })
		each(func(_, y, _ int) { a.VCVTPS2DQ(z[y], z[y]) })
		each(func(_, y, _ int) { a.VPXORD(k[aqFlipD], z[y], z[y]) })
		each(func(_, y, i int) { a.VPMOVDB(z[y], mem(addDst, 16*i)) })
		a.nextBytes(16 * n)
	}
	a.byFour(body)
}

func genAddQ8AVX2(a *asm) {
	a.sumQ8256("sumQ8AVX2")
	a.addQ8256("addQ8AVX2", false)
	a.addQ8256("addQ8F16AVX2", true)
}

// addQ8256 is the same for 256-bit registers, 16 bytes a round in two of them.
// What does not fit into registers is broadcast where it is used.
func (a *asm) addQ8256(name string, half bool) {
	a.beginAdd(name)
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
	for i, p := range []reg.Register{addA, addB} {
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
	a.VMOVDQU(reg.X2, mem(addDst, 0))
	a.nextBytes(16)
	a.DECQ(reg.RCX)
	a.JNZ(LabelRef("loop"))
	a.VZEROUPPER()
	a.RET()
}

// sumQ8256 is sumQ8512 for 256-bit registers, 16 bytes a round in two of them.
func (a *asm) sumQ8256(name string) {
	a.beginAdd(name)
	y := yregs
	k := map[int]reg.VecPhysical{}
	for i, off := range []int{aqScaleA, aqScaleB, aqBase, aqFlipA, aqFlipB, aqFlipD} {
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
	both(func(h int) { a.VPMOVZXBD(mem(addA, 8*h), y[h]) })
	both(func(h int) { a.VPMOVZXBD(mem(addB, 8*h), y[2+h]) })
	both(func(h int) { a.VPXOR(k[aqFlipA], y[h], y[h]) })
	both(func(h int) { a.VPXOR(k[aqFlipB], y[2+h], y[2+h]) })
	both(func(h int) { a.VCVTDQ2PS(y[h], y[h]) })
	both(func(h int) { a.VCVTDQ2PS(y[2+h], y[2+h]) })
	both(func(h int) { a.VFMADD213PS(k[aqBase], k[aqScaleB], y[2+h]) })
	both(func(h int) { a.VFMADD231PS(k[aqScaleA], y[h], y[2+h]) })
	both(func(h int) { a.VMAXPS(zero, y[2+h], y[2+h]) })
	both(func(h int) { a.VMINPS(top, y[2+h], y[2+h]) })
	both(func(h int) { a.VCVTPS2DQ(y[2+h], y[2+h]) })
	both(func(h int) { a.VPXOR(k[aqFlipD], y[2+h], y[2+h]) })
	a.packPair()
	a.VMOVDQU(reg.X2, mem(addDst, 0))
	a.nextBytes(16)
	a.DECQ(reg.RCX)
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

// beginAdd loads the operands to R3 and R4, the destination to R1 and the number
// of vectors to R5.
func (a *arm) beginAdd(name string) {
	a.begin(name, "addArgs")
	a.f("MOVD %d(R0), R1", aqDst)
	a.f("MOVD %d(R0), R3", aqA)
	a.f("MOVD %d(R0), R4", aqB)
	a.f("MOVD %d(R0), R5", aqN)
	a.f("LSR $4, R5, R5")
}

// widenNext loads 16 bytes from the register base, flips their signs and widens
// them to v..v+3.
func (a *arm) widenNext(base, flip, v int) {
	a.f("VLD1.P 16(R%d), [V8.B16]", base)
	a.eor(flip, 8, 8)
	a.uxtl8(8, 9)
	a.uxtl8hi(8, 10)
	a.uxtl16(9, v)
	a.uxtl16hi(9, v+1)
	a.uxtl16(10, v+2)
	a.uxtl16hi(10, v+3)
}

// endAdd stores the bytes of V6 and ends the loop.
func (a *arm) endAdd() {
	a.f("VST1.P [V6.B16], 16(R1)")
	a.f("SUBS $1, R5, R5")
	a.f("BNE loop")
	a.f("RET")
}

// sumQ8 is the same for arm64.
func (a *arm) sumQ8(name string) {
	a.beginAdd(name)
	for i, off := range []int{aqScaleA, aqScaleB, aqBase} {
		a.dup(off, 16+i)
	}
	for i, off := range []int{aqFlipA, aqFlipB, aqFlipD} {
		a.f("MOVWU %d(R0), R2", off)
		a.f("VDUP R2, V%d.B16", 26+i)
	}
	a.zero(20)
	a.konst(255, 21)
	a.label("loop")
	for i := 0; i < 2; i++ {
		v := 4 * i
		a.widenNext(3+i, 26+i, v)
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
	a.endAdd()
}

// addQ8 is the same for arm64, which divides.
func (a *arm) addQ8(name string, half bool) {
	a.beginAdd(name)
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
		a.widenNext(3+i, 26+i, v)
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
	a.endAdd()
}
