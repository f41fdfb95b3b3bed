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
// and 2, 1 to 4 groups of four positions. A register holds four positions of 16
// channels; the bytes of four taps are interleaved so that one VPDPBUSD sums
// them, which leaves sum j of a group with channels 4j..4j+3 of the position in
// each 128-bit lane.
func genDWI8AVX512(a *asm) {
	for stride := 1; stride <= 2; stride++ {
		for g := 1; g <= 4; g++ {
			a.dwI8AVX512(g, stride)
		}
	}
}

func (a *asm) dwI8AVX512(groups, stride int) {
	a.begin(fmt.Sprintf("dwI8VNNI512_%dx%d", groups, stride), "tileArgsI8", rT)
	acc := func(g, j int) reg.VecPhysical { return zregs[4*g+j] }
	w := zregs[16:20]
	v := zregs[20:24]
	u := zregs[24:28]
	a.MOVQ(mem(rT, offCorr), rW)
	for j := 0; j < 4; j++ {
		a.VBROADCASTI32X4(mem(rW, 16*j), acc(0, j))
		for g := 1; g < groups; g++ {
			a.VMOVDQA32(acc(0, j), acc(g, j))
		}
	}
	a.MOVQ(mem(rT, offA), rBaseA)
	a.MOVQ(mem(rT, offTaps), rTap)
	a.MOVQ(mem(rT, offNTaps), rEnd)
	a.MOVQ(mem(rT, offW), rW)
	ptr := []reg.Register{rA0, rA4, rB0, rB4}
	a.Label("tap")
	for k := range ptr {
		a.MOVQ(mem(rTap, 16*k), ptr[k].(reg.GPPhysical))
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
	a.JNZ(LabelRef("tap"))

	a.MOVQ(mem(rT, offDst), rA0)
	a.CMPQ(mem(rT, offOut), Imm(0))
	a.JEQ(LabelRef("raw"))
	a.MOVQ(mem(rT, offScale8), rB0)
	a.MOVQ(mem(rT, offBias8), rB4)
	sc, bi := zregs[16:20], zregs[20:24]
	for j := 0; j < 4; j++ {
		a.VBROADCASTF32X4(mem(rB0, 16*j), sc[j])
		a.VBROADCASTF32X4(mem(rB4, 16*j), bi[j])
	}
	a.VBROADCASTSS(mem(rT, offLo), reg.Z24)
	a.VBROADCASTSS(mem(rT, offHi), reg.Z25)
	a.VPBROADCASTD(mem(rT, offQZero), reg.Z26)
	// 0x80 in every byte when the stored bytes are signed.
	a.MOVL(mem(rT, offQZero), reg.EAX)
	for g := 0; g < groups; g++ {
		for j := 0; j < 4; j++ {
			r := acc(g, j)
			a.VCVTDQ2PS(r, r)
			a.VMULPS(sc[j], r, r)
			a.VADDPS(bi[j], r, r)
			a.VMAXPS(r, reg.Z24, r)
			a.VMINPS(r, reg.Z25, r)
			a.VCVTPS2DQ(r, r)
			a.VPADDD(reg.Z26, r, r)
		}
		a.VPACKSSDW(acc(g, 1), acc(g, 0), acc(g, 0))
		a.VPACKSSDW(acc(g, 3), acc(g, 2), acc(g, 2))
		a.VPACKUSWB(acc(g, 2), acc(g, 0), acc(g, 0))
	}
	a.SUBL(mem(rT, offQAdd), reg.EAX)
	a.IMUL3L(U32(0x01010101), reg.EAX, reg.EAX)
	a.VPBROADCASTD(reg.EAX, reg.Z27)
	for g := 0; g < groups; g++ {
		a.VPXORD(reg.Z27, acc(g, 0), acc(g, 0))
	}
	// The last group holds 1 to 4 positions.
	a.MOVQ(mem(rT, offDst), rA0)
	a.MOVQ(mem(rT, offP), reg.RCX)
	a.SUBQ(imm(4*groups), reg.RCX)
	a.NEGQ(reg.RCX)
	a.SHLQ(Imm(4), reg.RCX)
	a.MOVQ(I32(-1), reg.RBX)
	a.SHRQ(reg.CL, reg.RBX)
	a.KMOVQ(reg.RBX, reg.K1)
	for g := 0; g < groups-1; g++ {
		a.VMOVDQU32(acc(g, 0), mem(rA0, 64*g))
	}
	a.VMOVDQU8(acc(groups-1, 0), reg.K1, mem(rA0, 64*(groups-1)))
	a.VZEROUPPER()
	a.RET()

	// Raw sums: lanes back to one vector a position.
	a.Label("raw")
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
			a.VMOVDQU32(z[l], mem(rA0, 64*(4*g+l)))
		}
	}
	a.VZEROUPPER()
	a.RET()
}
