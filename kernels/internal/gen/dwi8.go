package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	offP       = 112
	offQZero   = 208
	offCStride = 224
)

// genDWI8AVX512 writes the int8 depthwise kernels for AVX-512 VNNI, strides 1
// and 2. A register holds four positions of 16 channels; the bytes of four taps
// are interleaved so that one VPDPBUSD sums them, which leaves sum j of a group
// with channels 4j..4j+3 of the position in each 128-bit lane.
func genDWI8AVX512(a *asm) {
	for stride := 1; stride <= 2; stride++ {
		a.dwI8AVX512(stride)
	}
}

func (a *asm) dwI8AVX512(stride int) {
	a.begin(fmt.Sprintf("dwI8VNNI512s%d", stride), "tileArgsI8", rT)
	acc := func(g, j int) reg.VecPhysical { return zregs[4*g+j] }
	w, v, u := zregs[16:20], zregs[20:24], zregs[24:28]
	ptr := []reg.GPPhysical{reg.RAX, reg.RBX, reg.RCX, reg.RDX}
	left, dst := reg.RSI, reg.RDI
	// Z28, Z29: clamp; Z30: zero point; Z31: 0x80 in every byte when the stored
	// bytes are signed (zero point less its stored form is 128 then).
	a.VBROADCASTSS(mem(rT, offLo), reg.Z28)
	a.VBROADCASTSS(mem(rT, offHi), reg.Z29)
	a.VPBROADCASTD(mem(rT, offQZero), reg.Z30)
	a.MOVL(mem(rT, offQZero), reg.EAX)
	a.SUBL(mem(rT, offQAdd), reg.EAX)
	a.IMUL3L(U32(0x01010101), reg.EAX, reg.EAX)
	a.VPBROADCASTD(reg.EAX, reg.Z31)
	a.MOVQ(mem(rT, offA), rBaseB)
	a.MOVQ(mem(rT, offDst), dst)
	a.Label("row")
	a.MOVQ(rBaseB, rBaseA)
	a.MOVQ(mem(rT, offP), left)
	a.Label("more")
	a.CMPQ(left, Imm(12))
	a.JGT(LabelRef("g4"))
	a.CMPQ(left, Imm(8))
	a.JGT(LabelRef("g3"))
	a.CMPQ(left, Imm(4))
	a.JGT(LabelRef("g2"))
	for groups := 1; groups <= 4; groups++ {
		a.Label(fmt.Sprintf("g%d", groups))
		a.MOVQ(mem(rT, offCorr), rW)
		for j := 0; j < 4; j++ {
			a.VBROADCASTI32X4(mem(rW, 16*j), acc(0, j))
			for g := 1; g < groups; g++ {
				a.VMOVDQA32(acc(0, j), acc(g, j))
			}
		}
		a.MOVQ(mem(rT, offTaps), rTap)
		a.MOVQ(mem(rT, offNTaps), rEnd)
		a.MOVQ(mem(rT, offW), rW)
		tap := a.newLabel("tap")
		a.Label(tap)
		for k := range ptr {
			a.MOVQ(mem(rTap, 16*k), ptr[k])
			a.ADDQ(rBaseA, ptr[k])
		}
		for j := 0; j < 4; j++ {
			a.VBROADCASTI32X4(mem(rW, 16*j), w[j])
		}
		a.ADDQ(Imm(64), rTap)
		a.ADDQ(Imm(64), rW)
		for g := 0; g < groups; g++ {
			for k := range ptr {
				a.VMOVDQU32(mem(ptr[k], 64*stride*g), v[k])
				if stride == 2 {
					a.VSHUFI64X2(Imm(0x88), mem(ptr[k], 64*stride*g+64), v[k], v[k])
				}
			}
			a.VPUNPCKLBW(v[1], v[0], u[0])
			a.VPUNPCKHBW(v[1], v[0], u[1])
			a.VPUNPCKLBW(v[3], v[2], u[2])
			a.VPUNPCKHBW(v[3], v[2], u[3])
			a.VPUNPCKLWD(u[2], u[0], v[0])
			a.VPUNPCKHWD(u[2], u[0], v[1])
			a.VPUNPCKLWD(u[3], u[1], v[2])
			a.VPUNPCKHWD(u[3], u[1], v[3])
			for j := 0; j < 4; j++ {
				a.raw("VPDPBUSD", w[j], v[j], acc(g, j))
			}
		}
		a.DECQ(rEnd)
		a.JNZ(LabelRef(tap))

		raw, stored := a.newLabel("raw"), a.newLabel("stored")
		a.CMPQ(mem(rT, offOut), Imm(0))
		a.JEQ(LabelRef(raw))
		a.MOVQ(mem(rT, offScale8), reg.RAX)
		a.MOVQ(mem(rT, offBias8), reg.RBX)
		for j := 0; j < 4; j++ {
			a.VBROADCASTF32X4(mem(reg.RAX, 16*j), w[j])
			a.VBROADCASTF32X4(mem(reg.RBX, 16*j), v[j])
		}
		for g := 0; g < groups; g++ {
			for j := 0; j < 4; j++ {
				r := acc(g, j)
				a.VCVTDQ2PS(r, r)
				a.VMULPS(w[j], r, r)
				a.VADDPS(v[j], r, r)
				a.VMAXPS(r, reg.Z28, r)
				a.VMINPS(r, reg.Z29, r)
				a.VCVTPS2DQ(r, r)
				a.VPADDD(reg.Z30, r, r)
			}
			a.VPACKSSDW(acc(g, 1), acc(g, 0), acc(g, 0))
			a.VPACKSSDW(acc(g, 3), acc(g, 2), acc(g, 2))
			a.VPACKUSWB(acc(g, 2), acc(g, 0), acc(g, 0))
			a.VPXORD(reg.Z31, acc(g, 0), acc(g, 0))
		}
		for g := 0; g < groups-1; g++ {
			a.VMOVDQU32(acc(g, 0), mem(dst, 64*g))
		}
		// The last group holds 1 to 4 positions.
		full := a.newLabel("full")
		a.CMPQ(left, Imm(uint64(4*groups)))
		a.JGE(LabelRef(full))
		a.MOVQ(I32(4*groups), reg.RCX)
		a.SUBQ(left, reg.RCX)
		a.SHLQ(Imm(4), reg.RCX)
		a.MOVQ(I32(-1), reg.RBX)
		a.SHRQ(reg.CL, reg.RBX)
		a.KMOVQ(reg.RBX, reg.K1)
		a.VMOVDQU8(acc(groups-1, 0), reg.K1, mem(dst, 64*(groups-1)))
		a.SHLQ(Imm(4), left)
		a.ADDQ(left, dst)
		a.JMP(LabelRef("rowend"))
		a.Label(full)
		a.VMOVDQU32(acc(groups-1, 0), mem(dst, 64*(groups-1)))
		a.ADDQ(imm(64*groups), dst)
		a.JMP(LabelRef(stored))

		// Raw sums: lanes back to one vector a position.
		a.Label(raw)
		for g := 0; g < groups; g++ {
			z := []reg.VecPhysical{acc(g, 0), acc(g, 1), acc(g, 2), acc(g, 3)}
			a.VSHUFI32X4(Imm(0x88), z[1], z[0], u[0])
			a.VSHUFI32X4(Imm(0x88), z[3], z[2], u[1])
			a.VSHUFI32X4(Imm(0xdd), z[1], z[0], u[2])
			a.VSHUFI32X4(Imm(0xdd), z[3], z[2], u[3])
			a.VSHUFI32X4(Imm(0x88), u[1], u[0], z[0])
			a.VSHUFI32X4(Imm(0xdd), u[1], u[0], z[2])
			a.VSHUFI32X4(Imm(0x88), u[3], u[2], z[1])
			a.VSHUFI32X4(Imm(0xdd), u[3], u[2], z[3])
			for l := 0; l < 4; l++ {
				a.VMOVDQU32(z[l], mem(dst, 64*(4*g+l)))
			}
		}
		a.ADDQ(imm(256*groups), dst)
		a.Label(stored)
		a.ADDQ(imm(64*stride*groups), rBaseA)
		a.SUBQ(imm(4*groups), left)
		a.JGT(LabelRef("more"))
		if groups < 4 {
			a.JMP(LabelRef("rowend"))
		}
	}
	a.Label("rowend")
	a.ADDQ(mem(rT, offSRow8), rBaseB)
	a.DECQ(mem(rT, offRows8))
	a.JNZ(LabelRef("row"))
	a.VZEROUPPER()
	a.RET()
}
