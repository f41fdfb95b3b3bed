package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// arm writes arm64 assembly as text: avo knows amd64 only, and the Go assembler
// lacks most of the vector instructions, which are therefore encoded here.
type arm struct {
	s     strings.Builder
	stubs strings.Builder
	fn    string
	n     int
}

func (a *arm) f(format string, args ...any) { fmt.Fprintf(&a.s, "\t"+format+"\n", args...) }

func (a *arm) label(l string) { fmt.Fprintf(&a.s, "%s:\n", l) }

// newLabel returns a label unique in the function.
func (a *arm) newLabel(l string) string {
	a.n++
	return fmt.Sprintf("%s%d", l, a.n)
}

// begin starts func name(t *typ) with t in R0.
func (a *arm) begin(name, typ string) {
	a.fn, a.n = name, 0
	fmt.Fprintf(&a.s, "\n// func %s(t *%s)\nTEXT ·%s(SB), NOSPLIT, $0-8\n", name, typ, name)
	fmt.Fprintf(&a.stubs, "\n//go:noescape\nfunc %s(t *%s)\n", name, typ)
	a.f("MOVD t+0(FP), R0")
}

// Vector instructions by encoding: three registers, or two.
func (a *arm) op3(comment string, base uint32, m, n, d int) {
	a.f("WORD $%#08x // %s V%d, V%d, V%d", base|uint32(m)<<16|uint32(n)<<5|uint32(d), comment, m, n, d)
}

func (a *arm) op2(comment string, base uint32, n, d int) {
	a.f("WORD $%#08x // %s V%d, V%d", base|uint32(n)<<5|uint32(d), comment, n, d)
}

func (a *arm) fadd(m, n, d int)  { a.op3("FADD.4S", 0x4e20d400, m, n, d) }
func (a *arm) fsub(m, n, d int)  { a.op3("FSUB.4S", 0x4ea0d400, m, n, d) } // n - m
func (a *arm) fmul(m, n, d int)  { a.op3("FMUL.4S", 0x6e20dc00, m, n, d) }
func (a *arm) fdiv(m, n, d int)  { a.op3("FDIV.4S", 0x6e20fc00, m, n, d) } // n / m
func (a *arm) fmax(m, n, d int)  { a.op3("FMAX.4S", 0x4e20f400, m, n, d) }
func (a *arm) fmin(m, n, d int)  { a.op3("FMIN.4S", 0x4ea0f400, m, n, d) }
func (a *arm) fmla(m, n, d int)  { a.op3("FMLA.4S", 0x4e20cc00, m, n, d) }
func (a *arm) facge(m, n, d int) { a.op3("FACGE.4S", 0x6e20ec00, m, n, d) } // |n| >= |m|
func (a *arm) bit(m, n, d int)   { a.op3("BIT.16B", 0x6ea01c00, m, n, d) }  // d = m ? n : d
func (a *arm) eor(m, n, d int)   { a.op3("EOR.16B", 0x6e201c00, m, n, d) }
func (a *arm) add(m, n, d int)   { a.op3("ADD.4S", 0x4ea08400, m, n, d) }
func (a *arm) sub(m, n, d int)   { a.op3("SUB.4S", 0x6ea08400, m, n, d) } // n - m
func (a *arm) scvtf(n, d int)    { a.op2("SCVTF.4S", 0x4e21d800, n, d) }
func (a *arm) fcvtns(n, d int)   { a.op2("FCVTNS.4S", 0x4e21a800, n, d) }
func (a *arm) fcvtn(n, d int)    { a.op2("FCVTN.4H", 0x0e216800, n, d) }
func (a *arm) fcvtl(n, d int)    { a.op2("FCVTL.4S", 0x0e217800, n, d) }
func (a *arm) sqxtn(n, d int)    { a.op2("SQXTN.4H", 0x0e614800, n, d) }
func (a *arm) sqxtn2(n, d int)   { a.op2("SQXTN2.8H", 0x4e614800, n, d) }
func (a *arm) sqxtun(n, d int)   { a.op2("SQXTUN.8B", 0x2e212800, n, d) }
func (a *arm) sqxtun2(n, d int)  { a.op2("SQXTUN2.16B", 0x6e212800, n, d) }
func (a *arm) uxtl8(n, d int)    { a.op2("USHLL.8H", 0x2f08a400, n, d) }
func (a *arm) uxtl8hi(n, d int)  { a.op2("USHLL2.8H", 0x6f08a400, n, d) }
func (a *arm) uxtl16(n, d int)   { a.op2("USHLL.4S", 0x2f10a400, n, d) }
func (a *arm) uxtl16hi(n, d int) { a.op2("USHLL2.4S", 0x6f10a400, n, d) }

func (a *arm) mov(n, d int)         { a.f("VMOV V%d.B16, V%d.B16", n, d) }
func (a *arm) zero(d int)           { a.f("VEOR V%d.B16, V%d.B16, V%d.B16", d, d, d) }
func (a *arm) fmls(m, n, d int)     { a.op3("FMLS.4S", 0x4ea0cc00, m, n, d) }  // d -= n * m
func (a *arm) facgt(m, n, d int)    { a.op3("FACGT.4S", 0x6ea0ec00, m, n, d) } // |n| > |m|
func (a *arm) bif(m, n, d int)      { a.op3("BIF.16B", 0x6ee01c00, m, n, d) }  // d = m ? d : n
func (a *arm) smull8(m, n, d int)   { a.op3("SMULL.8H", 0x0e20c000, m, n, d) }
func (a *arm) smull8hi(m, n, d int) { a.op3("SMULL2.8H", 0x4e20c000, m, n, d) }
func (a *arm) sadalp(n, d int)      { a.op2("SADALP.4S", 0x4e606800, n, d) }
func (a *arm) addp(m, n, d int)     { a.op3("ADDP.4S", 0x4ea0bc00, m, n, d) } // pairs of n, then of m
func (a *arm) umax8(m, n, d int)    { a.op3("UMAX.16B", 0x6e206400, m, n, d) }
func (a *arm) smax8(m, n, d int)    { a.op3("SMAX.16B", 0x4e206400, m, n, d) }
func (a *arm) smlal(m, n, d int)    { a.op3("SMLAL.4S", 0x0e608000, m, n, d) }
func (a *arm) smlal2(m, n, d int)   { a.op3("SMLAL2.4S", 0x4e608000, m, n, d) }
func (a *arm) fadd2d(m, n, d int)   { a.op3("FADD.2D", 0x4e60d400, m, n, d) }
func (a *arm) fsub2d(m, n, d int)   { a.op3("FSUB.2D", 0x4ee0d400, m, n, d) } // n - m
func (a *arm) fmla2d(m, n, d int)   { a.op3("FMLA.2D", 0x4e60cc00, m, n, d) }
func (a *arm) fabs(n, d int)        { a.op2("FABS.4S", 0x4ea0f800, n, d) }
func (a *arm) fneg(n, d int)        { a.op2("FNEG.4S", 0x6ea0f800, n, d) }
func (a *arm) frintn(n, d int)      { a.op2("FRINTN.4S", 0x4e218800, n, d) }
func (a *arm) fcmlt0(n, d int)      { a.op2("FCMLT.4S zero", 0x4ea0e800, n, d) }
func (a *arm) fcmge0(n, d int)      { a.op2("FCMGE.4S zero", 0x6ea0c800, n, d) }
func (a *arm) shl23(n, d int)       { a.op2("SHL.4S 23", 0x4f375400, n, d) }
func (a *arm) sshr1(n, d int)       { a.op2("SSHR.4S 1", 0x4f3f0400, n, d) }
func (a *arm) sxtl8(n, d int)       { a.op2("SSHLL.8H", 0x0f08a400, n, d) }
func (a *arm) sxtl8hi(n, d int)     { a.op2("SSHLL2.8H", 0x4f08a400, n, d) }
func (a *arm) fcvtn2(n, d int)      { a.op2("FCVTN2.8H", 0x4e216800, n, d) }
func (a *arm) fcvtl2(n, d int)      { a.op2("FCVTL2.4S", 0x4e217800, n, d) }
func (a *arm) fcvtl2d(n, d int)     { a.op2("FCVTL.2D", 0x0e617800, n, d) }
func (a *arm) fcvtl2dHi(n, d int)   { a.op2("FCVTL2.2D", 0x4e617800, n, d) }
func (a *arm) xtn16(n, d int)       { a.op2("XTN.4H", 0x0e612800, n, d) }
func (a *arm) xtn16hi(n, d int)     { a.op2("XTN2.8H", 0x4e612800, n, d) }
func (a *arm) xtn8(n, d int)        { a.op2("XTN.8B", 0x0e212800, n, d) }
func (a *arm) xtn8hi(n, d int)      { a.op2("XTN2.16B", 0x4e212800, n, d) }

// element adds the lane i of four of register m to an encoding.
func element(base uint32, m, i, n, d int) uint32 {
	return base | uint32(i&1)<<21 | uint32(m)<<16 | uint32(i>>1)<<11 | uint32(n)<<5 | uint32(d)
}

// fmlaEl is d += n * m[i].
func (a *arm) fmlaEl(m, i, n, d int) {
	a.f("WORD $%#08x // FMLA.4S V%d[%d], V%d, V%d", element(0x4f801000, m, i, n, d), m, i, n, d)
}

// sdotEl is d[j] += sum of the four products of bytes 4j.. of n and 4i.. of m.
func (a *arm) sdotEl(m, i, n, d int) {
	a.f("WORD $%#08x // SDOT.4S V%d[%d], V%d, V%d", element(0x4f80e000, m, i, n, d), m, i, n, d)
}

// ld4 loads 64 bytes into v..v+3, advancing the base when post is set.
func (a *arm) ld4(base, v int, post bool) { a.four("VLD1", base, v, post) }

func (a *arm) four(op string, base, v int, post bool) {
	regs := fmt.Sprintf("[V%d.S4, V%d.S4, V%d.S4, V%d.S4]", v, v+1, v+2, v+3)
	addr := fmt.Sprintf("(R%d)", base)
	if post {
		op, addr = op+".P", "64"+addr
	}
	if strings.HasPrefix(op, "VST1") {
		a.f("%s %s, %s", op, regs, addr)
		return
	}
	a.f("%s %s, %s", op, addr, regs)
}

// dup loads the 32-bit word at off(R0) into every lane of v.
func (a *arm) dup(off, v int) {
	a.f("MOVWU %d(R0), R2", off)
	a.f("VDUP R2, V%d.S4", v)
}

func (a *arm) dupBits(bits uint32, v int) {
	a.f("MOVD $%#x, R2", bits)
	a.f("VDUP R2, V%d.S4", v)
}

// armP is the widest tile: 20 accumulators, 4 weights, 5 inputs.
const armP = 5

// Registers of the tile loops: R3 weights, R4 taps, R5 taps left, R6 values
// left, R10.. pointers of the positions in a tap, R19.. their bases.
func (a *arm) tapLoop(p int, step func(unrolled bool)) {
	a.f("MOVD %d(R0), R19", offA)
	a.f("MOVD %d(R0), R7", offStride)
	p1 := (p + 1) / 2
	for i := 1; i < p; i++ {
		if i == p1 {
			a.f("MOVD %d(R0), R%d", offB, 19+i)
		} else {
			a.f("ADD R7, R%d, R%d", 19+i-1, 19+i)
		}
	}
	a.f("MOVD %d(R0), R4", offTaps)
	a.f("MOVD %d(R0), R5", offNTaps)
	a.f("MOVD %d(R0), R3", offW)
	a.f("CBZ R5, done")
	a.label("tap")
	a.f("MOVD.P 8(R4), R2")
	a.f("MOVD.P 8(R4), R6")
	for i := 0; i < p; i++ {
		a.f("ADD R2, R%d, R%d", 19+i, 10+i)
	}
	a.f("SUBS $4, R6, R6")
	a.f("BLT tail")
	a.label("body")
	for i := 0; i < p; i++ {
		a.f("VLD1.P 16(R%d), [V%d.S4]", 10+i, 24+i)
	}
	step(true)
	a.f("SUBS $4, R6, R6")
	a.f("BGE body")
	a.label("tail")
	a.f("ADDS $4, R6, R6")
	a.f("BEQ next")
	a.label("single")
	for i := 0; i < p; i++ {
		a.f("FMOVS.P 4(R%d), F%d", 10+i, 24+i)
	}
	step(false)
	a.f("SUBS $1, R6, R6")
	a.f("BNE single")
	a.label("next")
	a.f("SUBS $1, R5, R5")
	a.f("BNE tap")
	a.label("done")
}

// step emits the products of one or four input values.
func (a *arm) step(p int, unrolled bool, mul func(m, i, n, d int)) {
	n := 1
	if unrolled {
		n = 4
	}
	for u := 0; u < n; u++ {
		a.ld4(3, 20, true)
		for i := 0; i < p; i++ {
			for q := 0; q < 4; q++ {
				mul(24+i, u, 20+q, 4*i+q)
			}
		}
	}
}

func (a *arm) tileF32(p int) {
	a.begin(fmt.Sprintf("tileF32NEON%d", p), "tileArgs")
	a.f("MOVD %d(R0), R1", offBias)
	for i := 0; i < p; i++ {
		a.ld4(1, 4*i, false)
	}
	a.tapLoop(p, func(unrolled bool) { a.step(p, unrolled, a.fmlaEl) })
	a.f("MOVD %d(R0), R7", offDStride)
	a.f("MOVD %d(R0), R1", offRes)
	a.f("CBZ R1, nores")
	for i := 0; i < p; i++ {
		a.ld4(1, 20, false)
		for q := 0; q < 4; q++ {
			a.fadd(20+q, 4*i+q, 4*i+q)
		}
		a.f("ADD R7, R1, R1")
	}
	a.label("nores")
	a.clampRound(4 * p)
	a.storeTile(p)
}

// clampRound applies lo, hi and the Round to registers 0 to n-1.
func (a *arm) clampRound(n int) {
	noround, nosat := a.newLabel("noround"), a.newLabel("nosat")
	a.dup(offLo, 28)
	a.dup(offHi, 29)
	for r := 0; r < n; r++ {
		a.fmax(28, r, r)
		a.fmin(29, r, r)
	}
	a.f("MOVD %d(R0), R2", offRound)
	a.f("CBZ R2, %s", noround)
	a.f("CMP $2, R2")
	a.f("BNE %s", nosat)
	// |x| >= 32768 becomes infinity: times 2^113 it overflows.
	a.dupBits(0x47000000, 28)
	a.dupBits((127+113)<<23, 29)
	for r := 0; r < n; r++ {
		a.facge(28, r, 30)
		a.fmul(29, r, 31)
		a.bit(30, 31, r)
	}
	a.label(nosat)
	for r := 0; r < n; r++ {
		a.fcvtn(r, 28+r%4)
		a.fcvtl(28+r%4, r)
	}
	a.label(noround)
}

func (a *arm) storeTile(p int) {
	a.f("MOVD %d(R0), R7", offDStride)
	a.f("MOVD %d(R0), R1", offDst)
	for i := 0; i < p; i++ {
		a.four("VST1", 1, 4*i, false)
		a.f("ADD R7, R1, R1")
	}
	a.f("RET")
}

// tileI8 multiplies with SDOT.
func (a *arm) tileI8(p int) {
	a.begin(fmt.Sprintf("tileI8SDOT%d", p), "tileArgsI8")
	a.f("MOVD %d(R0), R1", offCorr)
	a.f("MOVD %d(R0), R7", offCStride)
	for i := 0; i < p; i++ {
		a.ld4(1, 4*i, false)
		a.f("ADD R7, R1, R1")
	}
	a.tapLoop(p, func(unrolled bool) { a.step(p, unrolled, a.sdotEl) })
	a.epilogueI8(p)
}

// armMullP is the widest tile without SDOT: 24 accumulators, a weight, three
// inputs and three broadcasts, a product.
const armMullP = 3

// tileI8Mull multiplies to 16 bits and adds pairs of products to 32-bit sums, of
// which each channel has two; nothing overflows on the way.
func (a *arm) tileI8Mull(p int) {
	a.begin(fmt.Sprintf("tileI8NEON%d", p), "tileArgsI8")
	for r := 0; r < 8*p; r++ {
		a.zero(r)
	}
	a.tapLoop(p, func(unrolled bool) {
		n := 1
		if unrolled {
			n = 4
		}
		for u := 0; u < n; u++ {
			for i := 0; i < p; i++ {
				a.f("VDUP V%d.S[%d], V%d.S4", 24+i, u, 28+i)
			}
			for q := 0; q < 4; q++ {
				a.f("VLD1.P 16(R3), [V27.B16]")
				for i := 0; i < p; i++ {
					a.smull8(28+i, 27, 31)
					a.sadalp(31, 8*i+2*q)
					a.smull8hi(28+i, 27, 31)
					a.sadalp(31, 8*i+2*q+1)
				}
			}
		}
	})
	a.f("MOVD %d(R0), R1", offCorr)
	a.f("MOVD %d(R0), R7", offCStride)
	for i := 0; i < p; i++ {
		a.ld4(1, 24, false)
		a.f("ADD R7, R1, R1")
		for q := 0; q < 4; q++ {
			a.addp(8*i+2*q+1, 8*i+2*q, 4*i+q)
			a.add(24+q, 4*i+q, 4*i+q)
		}
	}
	a.epilogueI8(p)
}

// epilogueI8 turns the int32 sums in registers 0 to 4p-1 into the result and
// returns.
func (a *arm) epilogueI8(p int) {
	a.f("MOVD %d(R0), R2", offOut)
	a.f("CBZ R2, store32")
	a.f("MOVD %d(R0), R1", offScale8)
	a.ld4(1, 20, false)
	a.f("MOVD %d(R0), R1", offBias8)
	a.ld4(1, 24, false)
	for r := 0; r < 4*p; r++ {
		a.scvtf(r, r)
		a.fmul(20+r%4, r, r)
		a.fadd(24+r%4, r, r)
	}
	a.f("MOVD %d(R0), R1", offRes)
	a.f("CBZ R1, nores")
	a.f("MOVD %d(R0), R7", offRStride)
	a.dup(offRScale, 22)
	a.f("MOVD %d(R0), R2", offRQ8)
	a.f("CBZ R2, res32")
	a.f("MOVWU %d(R0), R2", offRFlip)
	a.f("VDUP R2, V20.B16")
	a.dup(offRZero, 21)
	for i := 0; i < p; i++ {
		a.f("VLD1 (R1), [V24.B16]")
		a.eor(20, 24, 24)
		a.uxtl8(24, 25)
		a.uxtl8hi(24, 26)
		a.uxtl16(25, 27)
		a.uxtl16hi(25, 28)
		a.uxtl16(26, 29)
		a.uxtl16hi(26, 30)
		for q := 0; q < 4; q++ {
			a.sub(21, 27+q, 27+q)
			a.scvtf(27+q, 27+q)
			a.fmul(22, 27+q, 27+q)
			a.fadd(27+q, 4*i+q, 4*i+q)
		}
		a.f("ADD R7, R1, R1")
	}
	a.f("B nores")
	a.label("res32")
	for i := 0; i < p; i++ {
		a.ld4(1, 24, false)
		for q := 0; q < 4; q++ {
			a.fmul(22, 24+q, 24+q)
			a.fadd(24+q, 4*i+q, 4*i+q)
		}
		a.f("ADD R7, R1, R1")
	}
	a.label("nores")
	a.clampRound(4 * p)
	a.f("MOVD %d(R0), R2", offOut)
	a.f("CMP $1, R2")
	a.f("BEQ store32")
	a.f("MOVD %d(R0), R2", offFused)
	a.f("CBNZ R2, fused")
	a.dup(offQScale, 20)
	a.dup(offQLo, 21)
	a.dup(offQHi, 22)
	for r := 0; r < 4*p; r++ {
		a.fdiv(20, r, r)
		a.fmax(21, r, r)
		a.fmin(22, r, r)
	}
	a.label("fused")
	a.packSetup()
	a.f("MOVD %d(R0), R7", offDStride)
	a.f("MOVD %d(R0), R1", offDst)
	for i := 0; i < p; i++ {
		a.pack(4 * i)
		a.f("VST1 [V26.B16], (R1)")
		a.f("ADD R7, R1, R1")
	}
	a.f("RET")
	a.label("store32")
	a.storeTile(p)
}

// peak emits n rounds of 24 independent instructions.
func (a *arm) peak(name string, op func(d int)) {
	a.fn = name
	fmt.Fprintf(&a.s, "\n// func %s(n int64)\nTEXT ·%s(SB), NOSPLIT, $0-8\n", name, name)
	fmt.Fprintf(&a.stubs, "\nfunc %s(n int64)\n", name)
	a.f("MOVD n+0(FP), R0")
	for i := 0; i < 32; i++ {
		a.f("VEOR V%d.B16, V%d.B16, V%d.B16", i, i, i)
	}
	a.label("loop")
	for i := 0; i < 24; i++ {
		op(i)
	}
	a.f("SUBS $1, R0, R0")
	a.f("BNE loop")
	a.f("RET")
}

// loop emits the flat kernel op over 16 elements a round: R1 dst, R3 a, R4 b,
// R5 rounds, R2 scratch. body reads and writes them; end runs after the last.
func (a *arm) loop(op string, setup, body, end func()) {
	a.begin("vec"+op+"NEON", "vecArgs")
	a.f("MOVD %d(R0), R1", vDst)
	a.f("MOVD %d(R0), R3", vA)
	a.f("MOVD %d(R0), R4", vB)
	a.f("MOVD %d(R0), R5", vN)
	a.f("LSR $4, R5, R5")
	if setup != nil {
		setup()
	}
	a.label("loop")
	body()
	a.f("SUBS $1, R5, R5")
	a.f("BNE loop")
	if end != nil {
		end()
	}
	a.f("RET")
}

// vec emits a loop over floats: registers 0-3 hold a and then the result, 4-7 b
// when two is set, 16.. the parameters.
func (a *arm) vec(op string, two bool, params int, setup, body func()) {
	a.loop(op, func() {
		for k := 0; k < params; k++ {
			a.dup(vP+4*k, 16+k)
		}
		if setup != nil {
			setup()
		}
	}, func() {
		a.ld4(3, 0, true)
		if two {
			a.ld4(4, 4, true)
		}
		body()
		a.four("VST1", 1, 0, true)
	}, nil)
}

func (a *arm) each(f func(q int)) func() {
	return func() {
		for q := 0; q < 4; q++ {
			f(q)
		}
	}
}

// vectors writes the flat kernels and returns their names.
func (a *arm) vectors() []string {
	var ops []string
	add := func(op string, two bool, params int, setup func(), f func(q int)) {
		ops = append(ops, op)
		a.vec(op, two, params, setup, a.each(f))
	}
	add("Add", true, 0, nil, func(q int) { a.fadd(4+q, q, q) })
	add("Sub", true, 0, nil, func(q int) { a.fsub(4+q, q, q) })
	add("Mul", true, 0, nil, func(q int) { a.fmul(4+q, q, q) })
	add("Div", true, 0, nil, func(q int) { a.fdiv(4+q, q, q) })
	add("AddS", false, 1, nil, func(q int) { a.fadd(16, q, q) })
	add("SubS", false, 1, nil, func(q int) { a.fsub(16, q, q) })
	add("MulS", false, 1, nil, func(q int) { a.fmul(16, q, q) })
	add("DivS", false, 1, nil, func(q int) { a.fdiv(16, q, q) })
	b16 := func() { a.ld4(4, 4, false) }
	add("Add16", false, 0, b16, func(q int) { a.fadd(4+q, q, q) })
	add("Sub16", false, 0, b16, func(q int) { a.fsub(4+q, q, q) })
	add("Mul16", false, 0, b16, func(q int) { a.fmul(4+q, q, q) })
	add("Div16", false, 0, b16, func(q int) { a.fdiv(4+q, q, q) })
	add("Clip", false, 2, nil, func(q int) { a.fmax(16, q, q); a.fmin(17, q, q) })
	add("MulAdd", false, 2, nil, func(q int) {
		a.f("VMOV V17.B16, V%d.B16", 4+q)
		a.fmla(16, q, 4+q)
		a.f("VMOV V%d.B16, V%d.B16", 4+q, q)
	})
	add("HardSwish", false, 0, func() {
		a.dupBits(0x3e2aaaab, 16)
		a.dupBits(0x3f000000, 17)
		a.dupBits(0, 18)
		a.dupBits(0x3f800000, 19)
	}, func(q int) {
		a.f("VMOV V17.B16, V%d.B16", 4+q)
		a.fmla(16, q, 4+q)
		a.fmax(18, 4+q, 4+q)
		a.fmin(19, 4+q, 4+q)
		a.fmul(4+q, q, q)
	})
	add("RoundF16", false, 0, nil, func(q int) { a.fcvtn(q, 4+q); a.fcvtl(4+q, q) })
	add("RoundF16Sat", false, 0, func() {
		a.dupBits(0x47000000, 16)
		a.dupBits((127+113)<<23, 17)
	}, func(q int) {
		a.facge(16, q, 4+q)
		a.fmul(17, q, 8+q)
		a.bit(4+q, 8+q, q)
		a.fcvtn(q, 4+q)
		a.fcvtl(4+q, q)
	})
	return ops
}

// genARM64 writes the arm64 files.
func genARM64(dir string) error {
	a := &arm{}
	for p := 1; p <= armP; p++ {
		a.tileF32(p)
	}
	for p := 1; p <= armP; p++ {
		a.tileI8(p)
	}
	for p := 1; p <= armMullP; p++ {
		a.tileI8Mull(p)
	}
	a.dwF32()
	a.dwI8()
	a.maxF32()
	a.max8("maxU8NEON", a.umax8)
	a.max8("maxS8NEON", a.smax8)
	a.sumQ8("sumQ8NEON")
	a.addQ8("addQ8NEON", false)
	a.addQ8("addQ8F16NEON", true)
	ops := append(a.vectors(), a.mathOps()...)
	a.peak("peakF32NEON", func(d int) { a.fmla(31, 30, d) })
	a.peak("peakI8NEON", func(d int) {
		if d%2 == 0 {
			a.smull8(31, 30, 24+d/2%4)
		} else {
			a.sadalp(24+d/2%4, d/2)
		}
	})
	a.peak("peakI8SDOT", func(d int) { a.sdotEl(31%16, 0, 30, d) })

	const head = "// Code generated by internal/gen. DO NOT EDIT.\n"
	var g strings.Builder
	g.WriteString(head + "\npackage kernels\n" + a.stubs.String())
	for _, k := range []struct {
		name, typ string
		maxP      int
	}{{"tileF32NEON", "tileArgs", armP}, {"tileI8SDOT", "tileArgsI8", armP}, {"tileI8NEON", "tileArgsI8", armMullP}} {
		fmt.Fprintf(&g, "\n// call%s runs the variant for t.p positions.\nfunc call%s(t *%s) {\n\tswitch t.p {\n", k.name, k.name, k.typ)
		for p := 1; p <= k.maxP; p++ {
			fmt.Fprintf(&g, "\tcase %d:\n\t\t%s%d(t)\n", p, k.name, p)
		}
		g.WriteString("\t}\n}\n")
	}
	g.WriteString("\n// vecNEON runs op and reports whether it exists.\nfunc vecNEON(op vecOp, t *vecArgs) bool {\n\tswitch op {\n")
	for _, op := range ops {
		fmt.Fprintf(&g, "\tcase vop%s:\n\t\tvec%sNEON(t)\n", op, op)
	}
	g.WriteString("\tdefault:\n\t\treturn false\n\t}\n\treturn true\n}\n")
	if err := os.WriteFile(filepath.Join(dir, "zneon_arm64.go"), []byte(g.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "zneon_arm64.s"), []byte(head+"\n#include \"textflag.h\"\n"+a.s.String()), 0o644)
}
