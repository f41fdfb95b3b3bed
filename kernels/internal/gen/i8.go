package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Byte offsets of tileArgsI8 (tile.go) beyond those of tileArgs; offBias is
// corr there.
const (
	offCorr    = 80
	offScale8  = 128
	offBias8   = 136
	offOut     = 144
	offFused   = 152
	offRQ8     = 160
	offRStride = 168
	offRBlock  = 176
	offRScale  = 184
	offRZero   = 188
	offRFlip   = 192
	offQAdd    = 196
	offQScale  = 200
	offQInv    = 204
	offQLo     = 212
	offQHi     = 216
	offPF8     = 248
)

// genI8AVX512 writes the int8 tiles for AVX-512 VNNI: the shape of the float
// ones, with four input bytes for every float.
func genI8AVX512(a *asm) {
	a.lanePerm()
	for nb := 1; nb <= 2; nb++ {
		for p := 1; p <= 14; p++ {
			a.tileI8AVX512(p, nb)
		}
	}
	a.peak("peakI8VNNI512", 24, func(r reg.VecPhysical) { a.raw("VPDPBUSD", reg.Z31, reg.Z30, r) }, zregs)
}

// lanePerm defines the order that gathers dword j of each 128-bit lane.
func (a *asm) lanePerm() {
	a.permMem = a.StaticGlobal("lanePerm")
	a.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := 0; i < 16; i++ {
		a.AddDatum(4*i, U32(uint32(i%4*4+i/4)))
	}
}

// packBytes clamps to Z29 from above, converts, and stores positions of 16 bytes
// side by side, four at a time, and returns: two words of four positions
// interleave by lane, so one permutation puts them in order.
func (a *asm) packBytes(p, nb int, acc func(i, b int) reg.VecPhysical) {
	a.VPBROADCASTW(mem(rT, offQZero), reg.Z28)
	a.MOVL(mem(rT, offQZero), reg.EAX)
	a.SUBL(mem(rT, offQAdd), reg.EAX)
	a.IMUL3L(U32(0x01010101), reg.EAX, reg.EAX)
	a.VPBROADCASTD(reg.EAX, reg.Z31) // 0x80 in every byte when they are signed
	a.VMOVDQU32(a.permMem, reg.Z30)
	a.MOVQ(mem(rT, offDst), rA0)
	if nb > 1 {
		a.MOVQ(mem(rT, offDBlock), rB0)
		a.ADDQ(rA0, rB0)
	}
	for i := 0; i < p; i += 4 {
		n := min(4, p-i)
		for b := 0; b < nb; b++ {
			r := make([]reg.VecPhysical, 4)
			for j := range r {
				r[j] = acc(i+min(j, n-1), b)
			}
			for _, x := range r[:n] {
				a.VMINPS(x, reg.Z29, x)
				a.VCVTPS2DQ(x, x)
			}
			if n < 3 {
				a.VPACKSSDW(r[1], r[0], r[0])
				a.VPADDW(reg.Z28, r[0], r[0])
				a.VPACKUSWB(r[0], r[0], r[0])
			} else {
				a.VPACKSSDW(r[1], r[0], r[0])
				a.VPACKSSDW(r[3], r[2], r[2])
				a.VPADDW(reg.Z28, r[0], r[0])
				a.VPADDW(reg.Z28, r[2], r[2])
				a.VPACKUSWB(r[2], r[0], r[0])
			}
			a.VPXORD(reg.Z31, r[0], r[0])
			a.VPERMD(r[0], reg.Z30, r[0])
			k := i*nb + b // register number of r[0]
			ptr := []reg.Register{rA0, rB0}[b]
			switch n {
			case 4:
				a.VMOVDQU32(zregs[k], mem(ptr, 16*i))
			case 3:
				a.VMOVDQU32(yregs[k], mem(ptr, 16*i))
				a.VEXTRACTI32X4(Imm(2), zregs[k], mem(ptr, 16*i+32))
			case 2:
				a.VMOVDQU32(yregs[k], mem(ptr, 16*i))
			case 1:
				a.VMOVDQU32(xregs[k], mem(ptr, 16*i))
			}
		}
	}
	a.VZEROUPPER()
	a.RET()
}

func (a *asm) tileI8AVX512(p, nb int) {
	a.begin(fmt.Sprintf("tileI8VNNI512_%dx%d", p, nb), "tileArgsI8", rT)
	acc := func(i, b int) reg.VecPhysical { return zregs[i*nb+b] }
	w := []reg.VecPhysical{reg.Z28, reg.Z29}
	bc := []reg.VecPhysical{reg.Z30, reg.Z31}
	a.MOVQ(mem(rT, offCorr), rW)
	a.MOVQ(mem(rT, offCStride), rS)
	for i := 0; i < p; i++ {
		for b := 0; b < nb; b++ {
			a.VMOVDQU32(mem(rW, 64*b), acc(i, b))
		}
		if i < p-1 {
			a.ADDQ(rS, rW)
		}
	}
	a.tapLoop(p, 4, 64*nb, offPF8, func(u int) {
		for b := 0; b < nb; b++ {
			a.VMOVDQU32(mem(rW, 64*(u*nb+b)), w[b])
		}
		for i := 0; i < p; i++ {
			a.VPBROADCASTD(position(i, p, 4*u), bc[i%2])
			for b := 0; b < nb; b++ {
				a.raw("VPDPBUSD", w[b], bc[i%2], acc(i, b))
			}
		}
	})
	var all []reg.VecPhysical
	for i := 0; i < p*nb; i++ {
		all = append(all, zregs[i])
	}
	a.tailMaskAVX512()
	a.CMPQ(mem(rT, offOut), Imm(0))
	a.JEQ(LabelRef("store32"))

	// To float, scaled and biased; separate multiply and add (see ConvI8).
	a.MOVQ(mem(rT, offScale8), rA0)
	a.MOVQ(mem(rT, offBias8), rB0)
	for b := 0; b < nb; b++ {
		a.VMOVUPS(mem(rA0, 64*b), zregs[28+b])
		a.VMOVUPS(mem(rB0, 64*b), zregs[30+b])
	}
	for i := 0; i < p; i++ {
		for b := 0; b < nb; b++ {
			a.VCVTDQ2PS(acc(i, b), acc(i, b))
		}
		for b := 0; b < nb; b++ {
			a.VMULPS(zregs[28+b], acc(i, b), acc(i, b))
		}
		for b := 0; b < nb; b++ {
			a.VADDPS(zregs[30+b], acc(i, b), acc(i, b))
		}
	}

	a.MOVQ(mem(rT, offRes), rA0)
	a.TESTQ(rA0, rA0)
	a.JZ(LabelRef("nores"))
	a.VBROADCASTSS(mem(rT, offRScale), reg.Z28)
	a.MOVQ(mem(rT, offRStride), rS)
	if nb > 1 {
		a.MOVQ(mem(rT, offRBlock), rB0)
		a.ADDQ(rA0, rB0)
	}
	ptr := []reg.Register{rA0, rB0}
	a.CMPQ(mem(rT, offRQ8), Imm(0))
	a.JEQ(LabelRef("res32"))
	a.VPBROADCASTD(mem(rT, offRZero), reg.Z29)
	a.VPBROADCASTD(mem(rT, offRFlip), reg.Z30)
	for i := 0; i < p; i++ {
		for b := 0; b < nb; b++ {
			if b == nb-1 {
				a.VPMOVZXBD_Z(mem(ptr[b], 0), reg.K2, reg.Z31)
			} else {
				a.VPMOVZXBD(mem(ptr[b], 0), reg.Z31)
			}
			a.VPXORD(reg.Z30, reg.Z31, reg.Z31)
			a.VPSUBD(reg.Z29, reg.Z31, reg.Z31)
			a.VCVTDQ2PS(reg.Z31, reg.Z31)
			a.VMULPS(reg.Z28, reg.Z31, reg.Z31)
			a.VADDPS(reg.Z31, acc(i, b), acc(i, b))
			a.ADDQ(rS, ptr[b])
		}
	}
	a.JMP(LabelRef("nores"))
	a.Label("res32")
	for i := 0; i < p; i++ {
		for b := 0; b < nb; b++ {
			if b == nb-1 {
				a.VMULPS_Z(mem(ptr[b], 0), reg.Z28, reg.K2, reg.Z31)
			} else {
				a.VMULPS(mem(ptr[b], 0), reg.Z28, reg.Z31)
			}
			a.VADDPS(reg.Z31, acc(i, b), acc(i, b))
			a.ADDQ(rS, ptr[b])
		}
	}
	a.Label("nores")
	// Whole blocks of bytes side by side are packed with saturation, which makes
	// the clamp at the lowest byte superfluous.
	a.CMPQ(mem(rT, offFused), Imm(0))
	a.JEQ(LabelRef("clamp"))
	a.CMPQ(mem(rT, offDStride), Imm(16))
	a.JNE(LabelRef("clamp"))
	a.CMPQ(mem(rT, offLanes), Imm(16))
	a.JNE(LabelRef("clamp"))
	a.VBROADCASTSS(mem(rT, offHi), reg.Z29)
	a.MOVL(mem(rT, offLo), reg.EAX)
	a.CMPL(reg.EAX, mem(rT, offQLo))
	a.JEQ(LabelRef("lowest"))
	a.VBROADCASTSS(mem(rT, offLo), reg.Z28)
	for _, r := range all {
		a.VMAXPS(r, reg.Z28, r)
	}
	a.Label("lowest")
	a.packBytes(p, nb, acc)
	a.Label("clamp")
	a.clampAVX512(all)
	a.roundAVX512(all)
	a.CMPQ(mem(rT, offOut), Imm(1))
	a.JEQ(LabelRef("store32"))

	// Bytes. Not yet in units of the output scale: divide, correctly rounded,
	// by Markstein's two steps from the reciprocal; the first quotient is kept
	// in range so that an infinity stays one. A NaN becomes 0.
	a.CMPQ(mem(rT, offFused), Imm(0))
	a.JNE(LabelRef("fused"))
	a.VBROADCASTSS(mem(rT, offQLo), reg.Z28)
	a.VBROADCASTSS(mem(rT, offQHi), reg.Z29)
	for _, r := range all {
		a.VMULPS_BCST(mem(rT, offQInv), r, reg.Z30)
		a.VMAXPS(reg.Z30, reg.Z28, reg.Z30)
		a.VMINPS(reg.Z30, reg.Z29, reg.Z30)
		a.VFNMADD231PS_BCST(mem(rT, offQScale), reg.Z30, r)
		a.VFMADD231PS_BCST(mem(rT, offQInv), r, reg.Z30)
		a.VCMPPS(Imm(7), reg.Z30, reg.Z30, reg.K1)
		a.VMAXPS(reg.Z30, reg.Z28, reg.Z30)
		a.VMINPS_Z(reg.Z30, reg.Z29, reg.K1, r)
	}
	a.Label("fused")
	a.VPBROADCASTD(mem(rT, offQAdd), reg.Z28)
	a.MOVQ(mem(rT, offDst), rA0)
	a.MOVQ(mem(rT, offDStride), rS)
	if nb > 1 {
		a.MOVQ(mem(rT, offDBlock), rB0)
		a.ADDQ(rA0, rB0)
	}
	for i := 0; i < p; i++ {
		for b := 0; b < nb; b++ {
			a.VCVTPS2DQ(acc(i, b), acc(i, b))
			a.VPADDD(reg.Z28, acc(i, b), acc(i, b))
			a.VPMOVDB(acc(i, b), xregs[i*nb+b])
		}
	}
	a.CMPQ(mem(rT, offLanes), Imm(16))
	a.JNE(LabelRef("masked8"))
	for i := 0; i < p; i++ {
		for b := 0; b < nb; b++ {
			a.VMOVDQU8(xregs[i*nb+b], mem(ptr[b], 0))
			a.ADDQ(rS, ptr[b])
		}
	}
	a.VZEROUPPER()
	a.RET()
	a.Label("masked8")
	for i := 0; i < p; i++ {
		for b := 0; b < nb; b++ {
			if b == nb-1 {
				a.VMOVDQU8(xregs[i*nb+b], reg.K2, mem(ptr[b], 0))
			} else {
				a.VMOVDQU8(xregs[i*nb+b], mem(ptr[b], 0))
			}
			a.ADDQ(rS, ptr[b])
		}
	}
	a.VZEROUPPER()
	a.RET()
	a.Label("store32")
	a.storeF32(p, nb, acc)
	a.VZEROUPPER()
	a.RET()
}
