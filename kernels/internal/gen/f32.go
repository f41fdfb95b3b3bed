package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Byte offsets of tileArgs (tile.go).
const (
	offA       = 0
	offB       = 8
	offStride  = 16
	offTaps    = 24
	offNTaps   = 32
	offW       = 40
	offDst     = 48
	offDStride = 56
	offDBlock  = 64
	offRes     = 72
	offBias    = 80
	offLo      = 88
	offHi      = 92
	offRound   = 96
	offLanes   = 104
	offPF      = 144
)

var (
	negInfBits = Imm(uint64(math.Float32bits(float32(math.Inf(-1)))))
	posInfBits = Imm(uint64(math.Float32bits(float32(math.Inf(1)))))
)

// Registers of the tile loops. Every pointer a tap needs is kept: with
// positions at x, x+s, x+2s, x+3s from a base, two bases a group reach 7.
var (
	rA0, rA4, rB0, rB4 = reg.RAX, reg.RBX, reg.RCX, reg.RDX
	rS, rS3            = reg.RSI, reg.RDI
	rBaseA, rBaseB     = reg.R8, reg.R9
	rW, rTap, rEnd     = reg.R10, reg.R11, reg.R12
	rN                 = reg.R13
	rT                 = reg.R15
	rPF                = reg.R14
)

// position returns the operand of position i of p, disp bytes on.
func position(i, p, disp int) Mem {
	p1 := (p + 1) / 2
	b0, b4 := rA0, rA4
	if i >= p1 {
		i -= p1
		b0, b4 = rB0, rB4
	}
	if i >= 4 {
		i -= 4
		b0 = b4
	}
	switch i {
	case 0:
		return mem(b0, disp)
	case 1:
		return idx(b0, rS, 1, disp)
	case 2:
		return idx(b0, rS, 2, disp)
	}
	return idx(b0, rS3, 1, disp)
}

// tapLoop emits the walk over the taps; steps emits the body for u input
// values from the current pointers, each with wBytes of weights. pf is the offset
// of the prefetch pointer in the arguments, 0 for none.
func (a *asm) tapLoop(p, unroll, wBytes, pf int, step func(u int)) {
	p1 := (p + 1) / 2
	a.MOVQ(mem(rT, offA), rBaseA)
	a.MOVQ(mem(rT, offB), rBaseB)
	a.MOVQ(mem(rT, offStride), rS)
	a.LEAQ(idx(rS, rS, 2, 0), rS3)
	a.MOVQ(mem(rT, offTaps), rTap)
	a.MOVQ(mem(rT, offNTaps), rEnd)
	a.SHLQ(Imm(4), rEnd)
	a.ADDQ(rTap, rEnd)
	a.MOVQ(mem(rT, offW), rW)
	if pf > 0 {
		a.MOVQ(mem(rT, pf), rPF)
	}
	a.CMPQ(rTap, rEnd)
	a.JAE(LabelRef("done"))
	a.Label("tap")
	a.MOVQ(mem(rTap, 0), rN)
	a.LEAQ(idx(rBaseA, rN, 1, 0), rA0)
	if p1 > 4 {
		a.LEAQ(idx(rA0, rS, 4, 0), rA4)
	}
	if p > 1 {
		a.LEAQ(idx(rBaseB, rN, 1, 0), rB0)
	}
	if p-p1 > 4 {
		a.LEAQ(idx(rB0, rS, 4, 0), rB4)
	}
	a.MOVQ(mem(rTap, 8), rN)
	a.ADDQ(Imm(16), rTap)
	advance := func(n int) {
		a.ADDQ(imm(4*n), rA0)
		if p1 > 4 {
			a.ADDQ(imm(4*n), rA4)
		}
		if p > 1 {
			a.ADDQ(imm(4*n), rB0)
		}
		if p-p1 > 4 {
			a.ADDQ(imm(4*n), rB4)
		}
		a.ADDQ(imm(n*wBytes), rW)
	}
	a.SUBQ(imm(unroll), rN)
	a.JLT(LabelRef("tail"))
	a.Label("body")
	if pf > 0 {
		// Two lines of the next tile's weights, into the second-level cache.
		a.PREFETCHT1(mem(rPF, 0))
		a.PREFETCHT1(mem(rPF, 64))
		a.ADDQ(mem(rT, pf+8), rPF)
	}
	for u := 0; u < unroll; u++ {
		step(u)
	}
	advance(unroll)
	a.SUBQ(imm(unroll), rN)
	a.JGE(LabelRef("body"))
	a.Label("tail")
	a.ADDQ(imm(unroll), rN)
	a.JZ(LabelRef("next"))
	a.Label("single")
	step(0)
	advance(1)
	a.DECQ(rN)
	a.JNZ(LabelRef("single"))
	a.Label("next")
	a.CMPQ(rTap, rEnd)
	a.JB(LabelRef("tap"))
	a.Label("done")
}

var zregs = []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
	reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}

var yregs = []reg.VecPhysical{
	reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
	reg.Y16, reg.Y17, reg.Y18, reg.Y19, reg.Y20, reg.Y21, reg.Y22, reg.Y23, reg.Y24, reg.Y25, reg.Y26, reg.Y27, reg.Y28, reg.Y29, reg.Y30, reg.Y31,
}

var xregs = []reg.VecPhysical{
	reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7, reg.X8, reg.X9, reg.X10, reg.X11, reg.X12, reg.X13, reg.X14, reg.X15,
	reg.X16, reg.X17, reg.X18, reg.X19, reg.X20, reg.X21, reg.X22, reg.X23, reg.X24, reg.X25, reg.X26, reg.X27, reg.X28, reg.X29, reg.X30, reg.X31,
}

// genF32AVX512 writes the float32 tiles of 1..14 positions by 1 or 2 blocks:
// up to 28 accumulators, two weight vectors, two broadcasts.
func genF32AVX512(a *asm) {
	for nb := 1; nb <= 2; nb++ {
		for p := 1; p <= 14; p++ {
			a.tileF32AVX512(p, nb)
		}
	}
	a.peak("peakF32AVX512", 24, func(r reg.VecPhysical) { a.VFMADD231PS(reg.Z31, reg.Z30, r) }, zregs)
}

// peak emits func name(n int64): n rounds of unroll independent instructions.
func (a *asm) peak(name string, unroll int, op func(r reg.VecPhysical), regs []reg.VecPhysical) {
	a.Function(name)
	a.Attributes(attr.NOSPLIT)
	a.SignatureExpr("func(n int64)")
	a.Load(a.Param("n"), rN)
	for i := 0; i < len(regs); i++ {
		a.VXORPS(yregs[i], yregs[i], yregs[i])
	}
	a.Label("loop")
	for i := 0; i < unroll; i++ {
		op(regs[i])
	}
	a.DECQ(rN)
	a.JNZ(LabelRef("loop"))
	a.VZEROUPPER()
	a.RET()
}

func (a *asm) tileF32AVX512(p, nb int) {
	a.begin(fmt.Sprintf("tileF32AVX512_%dx%d", p, nb), "tileArgs", rT)
	acc := func(i, b int) reg.VecPhysical { return zregs[i*nb+b] }
	w := []reg.VecPhysical{reg.Z28, reg.Z29}
	bc := []reg.VecPhysical{reg.Z30, reg.Z31}
	a.MOVQ(mem(rT, offBias), rW)
	for b := 0; b < nb; b++ {
		a.VMOVUPS(mem(rW, 64*b), acc(0, b))
	}
	for i := 1; i < p; i++ {
		for b := 0; b < nb; b++ {
			a.VMOVAPS(acc(0, b), acc(i, b))
		}
	}
	a.tapLoop(p, 4, 64*nb, offPF, func(u int) {
		for b := 0; b < nb; b++ {
			a.VMOVUPS(mem(rW, 64*(u*nb+b)), w[b])
		}
		for i := 0; i < p; i++ {
			if nb == 1 {
				a.VFMADD231PS_BCST(position(i, p, 4*u), w[0], acc(i, 0))
				continue
			}
			a.VBROADCASTSS(position(i, p, 4*u), bc[i%2])
			for b := 0; b < nb; b++ {
				a.VFMADD231PS(bc[i%2], w[b], acc(i, b))
			}
		}
	})
	var all []reg.VecPhysical
	for i := 0; i < p*nb; i++ {
		all = append(all, zregs[i])
	}
	a.tailMaskAVX512()
	a.residualF32(p, nb, acc)
	a.clampAVX512(all)
	a.roundAVX512(all)
	a.storeF32(p, nb, acc)
	a.VZEROUPPER()
	a.RET()
}

// tailMaskAVX512 sets K2 to the valid lanes of the last block.
func (a *asm) tailMaskAVX512() {
	a.MOVQ(mem(rT, offLanes), reg.RCX)
	a.MOVL(U32(1), reg.EAX)
	a.SHLL(reg.CL, reg.EAX)
	a.DECL(reg.EAX)
	a.KMOVW(reg.EAX, reg.K2)
}

// residualF32 adds the residual, if there is one.
func (a *asm) residualF32(p, nb int, acc func(i, b int) reg.VecPhysical) {
	a.MOVQ(mem(rT, offRes), rA0)
	a.TESTQ(rA0, rA0)
	a.JZ(LabelRef("nores"))
	a.MOVQ(mem(rT, offDStride), rS)
	if nb > 1 {
		a.MOVQ(mem(rT, offDBlock), rB0)
		a.ADDQ(rA0, rB0)
	}
	for i := 0; i < p; i++ {
		if nb > 1 {
			a.VADDPS(mem(rA0, 0), acc(i, 0), acc(i, 0))
			a.VADDPS(mem(rB0, 0), acc(i, 1), reg.K2, acc(i, 1))
			a.ADDQ(rS, rB0)
		} else {
			a.VADDPS(mem(rA0, 0), acc(i, 0), reg.K2, acc(i, 0))
		}
		a.ADDQ(rS, rA0)
	}
	a.Label("nores")
}

// clampAVX512 applies lo and hi where they are finite. The accumulator is the
// second source, so a NaN stays.
func (a *asm) clampAVX512(v []reg.VecPhysical) {
	nolo, nohi := a.newLabel("nolo"), a.newLabel("nohi")
	a.CMPL(mem(rT, offLo), negInfBits)
	a.JEQ(LabelRef(nolo))
	a.VBROADCASTSS(mem(rT, offLo), reg.Z28)
	for _, r := range v {
		a.VMAXPS(r, reg.Z28, r)
	}
	a.Label(nolo)
	a.CMPL(mem(rT, offHi), posInfBits)
	a.JEQ(LabelRef(nohi))
	a.VBROADCASTSS(mem(rT, offHi), reg.Z28)
	for _, r := range v {
		a.VMINPS(r, reg.Z28, r)
	}
	a.Label(nohi)
}

// roundAVX512 applies the Round of the arguments.
func (a *asm) roundAVX512(v []reg.VecPhysical) {
	noround, nosat := a.newLabel("noround"), a.newLabel("nosat")
	a.MOVQ(mem(rT, offRound), rN)
	a.TESTQ(rN, rN)
	a.JZ(LabelRef(noround))
	a.CMPQ(rN, Imm(2))
	a.JNE(LabelRef(nosat))
	a.MOVL(U32(0x80000000), reg.EAX)
	a.VPBROADCASTD(reg.EAX, reg.Z28) // sign
	a.MOVL(U32(0x7f800000), reg.EAX)
	a.VPBROADCASTD(reg.EAX, reg.Z29) // infinity
	a.MOVL(U32(0x47000000), reg.EAX)
	a.VPBROADCASTD(reg.EAX, reg.Z30) // 32768
	for _, r := range v {
		a.VPANDND(r, reg.Z28, reg.Z31) // magnitude
		a.VCMPPS(Imm(0x1d), reg.Z30, reg.Z31, reg.K1)
		a.VPANDD(r, reg.Z28, reg.K1, r)
		a.VPORD(r, reg.Z29, reg.K1, r)
	}
	a.Label(nosat)
	for i, r := range v {
		y := yregs[28+i%4]
		a.VCVTPS2PH(Imm(0), r, y)
		a.VCVTPH2PS(y, r)
	}
	a.Label(noround)
}

// storeF32 stores the tile, masked in the last block when it is not full.
func (a *asm) storeF32(p, nb int, acc func(i, b int) reg.VecPhysical) {
	start := func() {
		a.MOVQ(mem(rT, offDst), rA0)
		a.MOVQ(mem(rT, offDStride), rS)
		if nb > 1 {
			a.MOVQ(mem(rT, offDBlock), rB0)
			a.ADDQ(rA0, rB0)
		}
	}
	start()
	a.CMPQ(mem(rT, offLanes), Imm(16))
	a.JNE(LabelRef("masked"))
	for i := 0; i < p; i++ {
		a.VMOVUPS(acc(i, 0), mem(rA0, 0))
		a.ADDQ(rS, rA0)
		if nb > 1 {
			a.VMOVUPS(acc(i, 1), mem(rB0, 0))
			a.ADDQ(rS, rB0)
		}
	}
	a.VZEROUPPER()
	a.RET()
	a.Label("masked")
	for i := 0; i < p; i++ {
		if nb > 1 {
			a.VMOVUPS(acc(i, 0), mem(rA0, 0))
			a.VMOVUPS(acc(i, 1), reg.K2, mem(rB0, 0))
			a.ADDQ(rS, rB0)
		} else {
			a.VMOVUPS(acc(i, 0), reg.K2, mem(rA0, 0))
		}
		a.ADDQ(rS, rA0)
	}
}
