package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The AVX2 kernels have 16 registers of 8 floats: tiles of up to 6 positions by
// one block (12 accumulators, 2 weights, 2 broadcasts).

const avx2P = 6

// genAVX2 writes the float32 kernels for AVX2, FMA and F16C.
func genAVX2(a *asm) {
	a.iota()
	for p := 1; p <= avx2P; p++ {
		a.tileF32AVX2(p)
	}
	for _, stride := range []int{1, 2} {
		a.dwF32AVX2(stride)
		a.maxF32AVX2(stride)
	}
	a.peak("peakF32AVX2", 12, func(r reg.VecPhysical) { a.VFMADD231PS(reg.Y15, reg.Y14, r) }, yregs[:16])
}

// iota defines sixteen int32 0..15 for lane masks.
func (a *asm) iota() {
	a.iotaMem = a.StaticGlobal("iota16")
	a.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := 0; i < 16; i++ {
		a.AddDatum(4*i, U32(uint32(i)))
	}
}

// laneMasks sets Y14 and Y15 to the masks of the valid lanes.
func (a *asm) laneMasks() {
	a.VPBROADCASTD(mem(rT, offLanes), reg.Y13)
	a.VPCMPGTD(a.iotaMem, reg.Y13, reg.Y14)
	a.VPCMPGTD(a.iotaMem.Offset(32), reg.Y13, reg.Y15)
}

func pair(i int) []reg.VecPhysical { return yregs[2*i : 2*i+2] }

func (a *asm) tileF32AVX2(p int) {
	a.begin(fmt.Sprintf("tileF32AVX2_%dx1", p), "tileArgs", rT)
	w := []reg.VecPhysical{reg.Y12, reg.Y13}
	bc := []reg.VecPhysical{reg.Y14, reg.Y15}
	a.MOVQ(mem(rT, offBias), rW)
	for h := 0; h < 2; h++ {
		a.VMOVUPS(mem(rW, 32*h), pair(0)[h])
		for i := 1; i < p; i++ {
			a.VMOVAPS(pair(0)[h], pair(i)[h])
		}
	}
	a.tapLoop(p, 4, 64, 0, func(u int) {
		for h := 0; h < 2; h++ {
			a.VMOVUPS(mem(rW, 64*u+32*h), w[h])
		}
		for i := 0; i < p; i++ {
			a.VBROADCASTSS(position(i, p, 4*u), bc[i%2])
			for h := 0; h < 2; h++ {
				a.VFMADD231PS(bc[i%2], w[h], pair(i)[h])
			}
		}
	})
	all := yregs[:2*p]
	a.MOVQ(mem(rT, offDStride), rS)
	a.MOVQ(mem(rT, offRes), rA0)
	a.TESTQ(rA0, rA0)
	a.JZ(LabelRef("nores"))
	a.laneMasks()
	for i := 0; i < p; i++ {
		for h := 0; h < 2; h++ {
			a.VMASKMOVPS(mem(rA0, 32*h), yregs[14+h], reg.Y12)
			a.VADDPS(reg.Y12, pair(i)[h], pair(i)[h])
		}
		a.ADDQ(rS, rA0)
	}
	a.Label("nores")
	a.clampAVX2(all)
	a.roundAVX2(all)
	a.storeF32AVX2(p)
}

// storeF32AVX2 stores pairs of registers and returns.
func (a *asm) storeF32AVX2(p int) {
	a.MOVQ(mem(rT, offDStride), rS)
	a.MOVQ(mem(rT, offDst), rA0)
	a.CMPQ(mem(rT, offLanes), Imm(16))
	a.JNE(LabelRef("masked"))
	for i := 0; i < p; i++ {
		for h := 0; h < 2; h++ {
			a.VMOVUPS(pair(i)[h], mem(rA0, 32*h))
		}
		a.ADDQ(rS, rA0)
	}
	a.VZEROUPPER()
	a.RET()
	a.Label("masked")
	a.laneMasks()
	for i := 0; i < p; i++ {
		for h := 0; h < 2; h++ {
			a.VMASKMOVPS(pair(i)[h], yregs[14+h], mem(rA0, 32*h))
		}
		a.ADDQ(rS, rA0)
	}
	a.VZEROUPPER()
	a.RET()
}

// clampAVX2 applies lo and hi where they are finite, with Y12 as scratch.
func (a *asm) clampAVX2(v []reg.VecPhysical) {
	nolo, nohi := a.newLabel("nolo"), a.newLabel("nohi")
	a.CMPL(mem(rT, offLo), negInfBits)
	a.JEQ(LabelRef(nolo))
	a.VBROADCASTSS(mem(rT, offLo), reg.Y12)
	for _, r := range v {
		a.VMAXPS(r, reg.Y12, r)
	}
	a.Label(nolo)
	a.CMPL(mem(rT, offHi), posInfBits)
	a.JEQ(LabelRef(nohi))
	a.VBROADCASTSS(mem(rT, offHi), reg.Y12)
	for _, r := range v {
		a.VMINPS(r, reg.Y12, r)
	}
	a.Label(nohi)
}

// satF16 turns |r| >= 32768 into infinity: scaled by 2^113 those overflow, and
// infinity less itself is no number. scale holds 2^113; t and m are scratch.
func (a *asm) satF16(r, scale, t, m reg.VecPhysical) {
	a.VMULPS(scale, r, t)
	a.VSUBPS(t, t, m)
	a.VCMPPS(Imm(3), m, m, m)
	a.VBLENDVPS(m, t, r, r)
}

// roundAVX2 applies the Round of the arguments; Y12 to Y15 are scratch.
func (a *asm) roundAVX2(v []reg.VecPhysical) {
	noround, nosat := a.newLabel("noround"), a.newLabel("nosat")
	a.MOVQ(mem(rT, offRound), rN)
	a.TESTQ(rN, rN)
	a.JZ(LabelRef(noround))
	a.CMPQ(rN, Imm(2))
	a.JNE(LabelRef(nosat))
	a.MOVL(U32((127+113)<<23), reg.EAX)
	a.VMOVD(reg.EAX, reg.X12)
	a.VPBROADCASTD(reg.X12, reg.Y12)
	for _, r := range v {
		a.satF16(r, reg.Y12, reg.Y14, reg.Y15)
	}
	a.Label(nosat)
	for i, r := range v {
		x := xregs[12+i%4]
		a.VCVTPS2PH(Imm(0), r, x)
		a.VCVTPH2PS(x, r)
	}
	a.Label(noround)
}

// rows emits the walk over rows and positions shared by the depthwise and
// pooling kernels; tile emits the body for n positions.
func (a *asm) rows(sizes []int, srow int, srcStep, dstStep int, tile func(n int)) {
	row, left, dst := reg.RSI, reg.RDI, reg.RDX
	a.MOVQ(mem(rT, offA), row)
	a.MOVQ(mem(rT, offDst), dst)
	a.Label("row")
	a.MOVQ(row, rBaseA)
	a.MOVQ(mem(rT, offP), left)
	for i, n := range sizes {
		next := "rowend"
		if i+1 < len(sizes) {
			next = fmt.Sprintf("p%d", sizes[i+1])
		}
		body := fmt.Sprintf("p%d", n)
		a.Label(body)
		a.CMPQ(left, Imm(uint64(n)))
		a.JLT(LabelRef(next))
		tile(n)
		a.ADDQ(imm(dstStep*n), dst)
		a.ADDQ(imm(srcStep*n), rBaseA)
		a.SUBQ(imm(n), left)
		a.JMP(LabelRef(body))
	}
	a.Label("rowend")
	a.ADDQ(mem(rT, srow), row)
	a.DECQ(mem(rT, srow-8))
	a.JNZ(LabelRef("row"))
	a.VZEROUPPER()
	a.RET()
}

// taps emits a loop over the taps with the pointer of each in rA0.
func (a *asm) taps(body func()) {
	a.MOVQ(mem(rT, offTaps), rTap)
	a.MOVQ(mem(rT, offNTaps), rEnd)
	l := a.newLabel("tap")
	a.Label(l)
	a.MOVQ(mem(rTap, 0), rA0)
	a.ADDQ(rBaseA, rA0)
	a.ADDQ(Imm(16), rTap)
	body()
	a.DECQ(rEnd)
	a.JNZ(LabelRef(l))
}

func (a *asm) dwF32AVX2(stride int) {
	a.begin(fmt.Sprintf("dwF32AVX2s%d", stride), "tileArgs", rT)
	dst, res := reg.RDX, reg.RBX
	a.MOVQ(mem(rT, offRes), res)
	a.rows([]int{6, 3, 1}, offSRow, 64*stride, 64, func(n int) {
		a.MOVQ(mem(rT, offBias), rW)
		for h := 0; h < 2; h++ {
			a.VMOVUPS(mem(rW, 32*h), pair(0)[h])
			for i := 1; i < n; i++ {
				a.VMOVAPS(pair(0)[h], pair(i)[h])
			}
		}
		a.MOVQ(mem(rT, offW), rW)
		a.taps(func() {
			for h := 0; h < 2; h++ {
				a.VMOVUPS(mem(rW, 32*h), yregs[12+h])
			}
			a.ADDQ(Imm(64), rW)
			for i := 0; i < n; i++ {
				for h := 0; h < 2; h++ {
					a.VFMADD231PS(mem(rA0, 64*stride*i+32*h), yregs[12+h], pair(i)[h])
				}
			}
		})
		nores := a.newLabel("nores")
		a.TESTQ(res, res)
		a.JZ(LabelRef(nores))
		for i, r := range yregs[:2*n] {
			a.VADDPS(mem(res, 32*i), r, r)
		}
		a.ADDQ(imm(64*n), res)
		a.Label(nores)
		a.clampAVX2(yregs[:2*n])
		a.roundAVX2(yregs[:2*n])
		for i, r := range yregs[:2*n] {
			a.VMOVUPS(r, mem(dst, 32*i))
		}
	})
}

func (a *asm) maxF32AVX2(stride int) {
	a.begin(fmt.Sprintf("maxF32AVX2s%d", stride), "tileArgs", rT)
	a.rows([]int{6, 3, 1}, offSRow, 64*stride, 64, func(n int) {
		a.MOVL(U32(0xff800000), reg.EAX)
		a.VMOVD(reg.EAX, reg.X15)
		a.VPBROADCASTD(reg.X15, reg.Y15)
		for _, r := range yregs[:2*n] {
			a.VMOVAPS(reg.Y15, r)
		}
		a.taps(func() {
			for i := 0; i < n; i++ {
				for h, r := range pair(i) {
					a.VMOVUPS(mem(rA0, 64*stride*i+32*h), reg.Y12)
					a.VCMPPS(Imm(3), reg.Y12, reg.Y12, reg.Y13)
					a.VMAXPS(r, reg.Y12, r)
					a.VBLENDVPS(reg.Y13, reg.Y12, r, r)
				}
			}
		})
		for i, r := range yregs[:2*n] {
			a.VMOVUPS(r, mem(reg.RDX, 32*i))
		}
	})
}

// genI8AVX2 writes the int8 kernels for 256-bit registers: with AVX-VNNI, the
// shape of the float tiles; without, exact products of 16-bit pairs.
func genI8AVX2(a *asm) {
	a.iota()
	for p := 1; p <= avx2P; p++ {
		a.tileI8AVXVNNI(p)
	}
	for p := 1; p <= 2; p++ {
		a.tileI8AVX2(p)
	}
	for _, stride := range []int{1, 2} {
		a.maxBytesAVX2("U8", stride, a.VPMAXUB)
		a.maxBytesAVX2("S8", stride, a.VPMAXSB)
		a.dwI8AVX2(stride)
	}
	n := 0
	a.peak("peakI8AVXVNNI", 12, func(reg.VecPhysical) { a.dpbusd(15, 14, n); n++ }, yregs[:16])
	a.peak("peakI8AVX2", 5, func(r reg.VecPhysical) {
		a.VPMADDWD(reg.Y15, reg.Y14, reg.Y13)
		a.VPADDD(reg.Y13, r, r)
	}, yregs[:16])
}

// dpbusd emits the VEX form of VPDPBUSD ymm[acc] += u8 ymm[u] * s8 ymm[w], which
// the Go assembler does not know.
func (a *asm) dpbusd(w, u, acc int) {
	b1 := byte(0xe2) // map 0F38, R and B inverted
	if acc > 7 {
		b1 &^= 0x80
	}
	if w > 7 {
		b1 &^= 0x20
	}
	a.raw("BYTE", U8(0xc4))
	a.raw("BYTE", U8(b1))
	a.raw("BYTE", U8(byte(^u&15)<<3|0x05)) // W0, vvvv, L = 256, pp = 66
	a.raw("BYTE", U8(0x50))
	a.raw("BYTE", U8(0xc0|byte(acc&7)<<3|byte(w&7)))
}

func (a *asm) tileI8AVXVNNI(p int) {
	a.begin(fmt.Sprintf("tileI8AVXVNNI_%dx1", p), "tileArgsI8", rT)
	a.MOVQ(mem(rT, offCorr), rW)
	a.MOVQ(mem(rT, offCStride), rS)
	for i := 0; i < p; i++ {
		for h, r := range pair(i) {
			a.VMOVDQU(mem(rW, 32*h), r)
		}
		if i < p-1 {
			a.ADDQ(rS, rW)
		}
	}
	a.tapLoop(p, 4, 64, 0, func(u int) {
		a.VMOVDQU(mem(rW, 64*u), reg.Y12)
		a.VMOVDQU(mem(rW, 64*u+32), reg.Y13)
		for i := 0; i < p; i++ {
			a.VPBROADCASTD(position(i, p, 4*u), yregs[14+i%2])
			for h := 0; h < 2; h++ {
				a.dpbusd(12+h, 14+i%2, 2*i+h)
			}
		}
	})
	a.epilogueI8AVX2(p)
}

// tileI8AVX2 widens bytes to 16-bit pairs: VPMADDWD of four channels by four
// inputs gives two partial sums a channel, added pairwise at the end.
func (a *asm) tileI8AVX2(p int) {
	a.begin(fmt.Sprintf("tileI8AVX2_%dx1", p), "tileArgsI8", rT)
	acc := func(i, q int) reg.VecPhysical { return yregs[4*i+q] }
	for i := 0; i < 4*p; i++ {
		a.VPXOR(yregs[i], yregs[i], yregs[i])
	}
	a.tapLoop(p, 2, 64, 0, func(u int) {
		for i := 0; i < p; i++ {
			a.VMOVD(position(i, p, 4*u), xregs[8+i])
			a.VPMOVZXBW(xregs[8+i], xregs[8+i])
			a.VPBROADCASTQ(xregs[8+i], yregs[8+i])
		}
		for q := 0; q < 4; q++ {
			a.VPMOVSXBW(mem(rW, 64*u+16*q), reg.Y10)
			for i := 0; i < p; i++ {
				a.VPMADDWD(reg.Y10, yregs[8+i], yregs[11+i])
				a.VPADDD(yregs[11+i], acc(i, q), acc(i, q))
			}
		}
	})
	// VPHADDD works in lanes: (0,1)(2,3) of 4 registers come out as channels
	// 0 1 4 5 | 2 3 6 7, put in order by VPERMQ.
	for i := 0; i < p; i++ {
		for h := 0; h < 2; h++ {
			a.VPHADDD(acc(i, 2*h+1), acc(i, 2*h), acc(i, 2*h))
			a.VPERMQ(Imm(0xd8), acc(i, 2*h), acc(i, 2*h))
		}
	}
	// Into the pairs the epilogue expects, plus the start value.
	a.MOVQ(mem(rT, offCorr), rW)
	a.MOVQ(mem(rT, offCStride), rS)
	for i := 0; i < p; i++ {
		for h := 0; h < 2; h++ {
			a.VPADDD(mem(rW, 32*h), acc(i, 2*h), pair(i)[h])
		}
		if i < p-1 {
			a.ADDQ(rS, rW)
		}
	}
	a.epilogueI8AVX2(p)
}

// epilogueI8AVX2 turns the int32 sums in pairs of registers into the result and
// returns. Y12 to Y15 are scratch.
func (a *asm) epilogueI8AVX2(p int) {
	all := yregs[:2*p]
	a.CMPQ(mem(rT, offOut), Imm(0))
	a.JEQ(LabelRef("store32"))
	a.MOVQ(mem(rT, offScale8), rA0)
	a.MOVQ(mem(rT, offBias8), rB0)
	for h := 0; h < 2; h++ {
		a.VMOVUPS(mem(rA0, 32*h), yregs[12+h])
		a.VMOVUPS(mem(rB0, 32*h), yregs[14+h])
	}
	for i := 0; i < p; i++ {
		for h, r := range pair(i) {
			a.VCVTDQ2PS(r, r)
			a.VMULPS(yregs[12+h], r, r)
			a.VADDPS(yregs[14+h], r, r)
		}
	}
	a.MOVQ(mem(rT, offRes), rA0)
	a.TESTQ(rA0, rA0)
	a.JZ(LabelRef("nores"))
	a.MOVQ(mem(rT, offRStride), rS)
	a.CMPQ(mem(rT, offRQ8), Imm(0))
	a.JEQ(LabelRef("res32"))
	a.VPBROADCASTD(mem(rT, offRZero), reg.Y13)
	a.VPBROADCASTD(mem(rT, offRFlip), reg.Y14)
	a.VBROADCASTSS(mem(rT, offRScale), reg.Y15)
	for i := 0; i < p; i++ {
		for h, r := range pair(i) {
			a.VPMOVZXBD(mem(rA0, 8*h), reg.Y12)
			a.VPXOR(reg.Y14, reg.Y12, reg.Y12)
			a.VPSUBD(reg.Y13, reg.Y12, reg.Y12)
			a.VCVTDQ2PS(reg.Y12, reg.Y12)
			a.VMULPS(reg.Y15, reg.Y12, reg.Y12)
			a.VADDPS(reg.Y12, r, r)
		}
		a.ADDQ(rS, rA0)
	}
	a.JMP(LabelRef("nores"))
	a.Label("res32")
	a.laneMasks()
	a.VBROADCASTSS(mem(rT, offRScale), reg.Y13)
	for i := 0; i < p; i++ {
		for h, r := range pair(i) {
			a.VMASKMOVPS(mem(rA0, 32*h), yregs[14+h], reg.Y12)
			a.VMULPS(reg.Y13, reg.Y12, reg.Y12)
			a.VADDPS(reg.Y12, r, r)
		}
		a.ADDQ(rS, rA0)
	}
	a.Label("nores")
	a.clampAVX2(all)
	a.roundAVX2(all)
	a.CMPQ(mem(rT, offOut), Imm(1))
	a.JEQ(LabelRef("store32"))
	a.CMPQ(mem(rT, offFused), Imm(0))
	a.JNE(LabelRef("fused"))
	a.VBROADCASTSS(mem(rT, offQLo), reg.Y12)
	a.VBROADCASTSS(mem(rT, offQHi), reg.Y13)
	for _, r := range all {
		a.VBROADCASTSS(mem(rT, offQInv), reg.Y15)
		a.VMULPS(reg.Y15, r, reg.Y14)
		a.VMAXPS(reg.Y14, reg.Y12, reg.Y14)
		a.VMINPS(reg.Y14, reg.Y13, reg.Y14)
		a.VBROADCASTSS(mem(rT, offQScale), reg.Y15)
		a.VFNMADD231PS(reg.Y15, reg.Y14, r)
		a.VBROADCASTSS(mem(rT, offQInv), reg.Y15)
		a.VFMADD231PS(reg.Y15, r, reg.Y14)
		a.VCMPPS(Imm(7), reg.Y14, reg.Y14, r)
		a.VMAXPS(reg.Y14, reg.Y12, reg.Y14)
		a.VMINPS(reg.Y14, reg.Y13, reg.Y14)
		a.VANDPS(reg.Y14, r, r)
	}
	a.Label("fused")
	a.VPBROADCASTD(mem(rT, offQZero), reg.Y12)
	// 0x80 in every byte when the stored bytes are signed.
	a.MOVL(mem(rT, offQZero), reg.EAX)
	a.SUBL(mem(rT, offQAdd), reg.EAX)
	a.IMUL3L(U32(0x01010101), reg.EAX, reg.EAX)
	a.VMOVD(reg.EAX, reg.X13)
	a.VPBROADCASTD(reg.X13, reg.X13)
	for i := 0; i < p; i++ {
		r := pair(i)
		for _, x := range r {
			a.VCVTPS2DQ(x, x)
			a.VPADDD(reg.Y12, x, x)
		}
		a.VPACKSSDW(r[1], r[0], r[0])
		a.VPERMQ(Imm(0xd8), r[0], r[0])
		a.VEXTRACTI128(Imm(1), r[0], reg.X14)
		a.VPACKUSWB(reg.X14, xregs[2*i], xregs[2*i])
		a.VPXOR(reg.X13, xregs[2*i], xregs[2*i])
	}
	a.MOVQ(mem(rT, offDst), rA0)
	a.MOVQ(mem(rT, offDStride), rS)
	a.CMPQ(mem(rT, offLanes), Imm(16))
	a.JNE(LabelRef("masked8"))
	for i := 0; i < p; i++ {
		a.VMOVDQU(xregs[2*i], mem(rA0, 0))
		a.ADDQ(rS, rA0)
	}
	a.VZEROUPPER()
	a.RET()
	// Byte by byte: only the last block of a linear layer comes here.
	a.Label("masked8")
	for i := 0; i < p; i++ {
		a.MOVQ(mem(rT, offLanes), reg.RCX)
		a.MOVQ(rA0, reg.RBX)
		l := a.newLabel("byte")
		a.Label(l)
		a.VPEXTRB(Imm(0), xregs[2*i], mem(reg.RBX, 0))
		a.VPSRLDQ(Imm(1), xregs[2*i], xregs[2*i])
		a.INCQ(reg.RBX)
		a.DECQ(reg.RCX)
		a.JNZ(LabelRef(l))
		a.ADDQ(rS, rA0)
	}
	a.VZEROUPPER()
	a.RET()
	a.Label("store32")
	a.storeF32AVX2(p)
}

func (a *asm) maxBytesAVX2(name string, stride int, op func(...Op)) {
	a.begin(fmt.Sprintf("max%sAVX2s%d", name, stride), "tileArgsI8", rT)
	a.rows([]int{8, 2, 1}, offSRow8, 16*stride, 16, func(n int) {
		if n == 1 {
			a.MOVQ(mem(rT, offTaps), rTap)
			a.MOVQ(mem(rTap, 0), rA0)
			a.VMOVDQU(idx(rBaseA, rA0, 1, 0), reg.X0)
			a.taps(func() { op(mem(rA0, 0), reg.X0, reg.X0) })
			a.VMOVDQU(reg.X0, mem(reg.RDX, 0))
			return
		}
		load := func(i int, y, x reg.VecPhysical) {
			if stride == 1 {
				a.VMOVDQU(mem(rA0, 32*i), y)
				return
			}
			a.VMOVDQU(mem(rA0, 64*i), x)
			a.VINSERTI128(Imm(1), mem(rA0, 64*i+32), y, y)
		}
		a.MOVQ(mem(rT, offTaps), rTap)
		a.MOVQ(mem(rTap, 0), rA0)
		a.ADDQ(rBaseA, rA0)
		for i := 0; i < n/2; i++ {
			load(i, yregs[i], xregs[i])
		}
		a.taps(func() {
			for i := 0; i < n/2; i++ {
				load(i, yregs[8+i], xregs[8+i])
				op(yregs[8+i], yregs[i], yregs[i])
			}
		})
		for i := 0; i < n/2; i++ {
			a.VMOVDQU(yregs[i], mem(reg.RDX, 32*i))
		}
	})
}

// dwI8AVX2 writes raw depthwise sums, one position at a time: the bytes of two
// taps side by side, widened, times the weights of the two.
func (a *asm) dwI8AVX2(stride int) {
	a.begin(fmt.Sprintf("dwI8AVX2s%d", stride), "tileArgsI8", rT)
	// Weights are [group][16][4]: shuffled to pairs (0,1) and (2,3) as words.
	a.rows([]int{2, 1}, offSRow8, 16*stride, 64, func(n int) {
		a.MOVQ(mem(rT, offCorr), rW)
		for i := 0; i < n; i++ {
			a.VMOVDQU(mem(rW, 0), pair(i)[0])
			a.VMOVDQU(mem(rW, 32), pair(i)[1])
		}
		a.MOVQ(mem(rT, offW), rW)
		a.MOVQ(mem(rT, offTaps), rTap)
		a.MOVQ(mem(rT, offNTaps), rEnd)
		l := a.newLabel("tap")
		a.Label(l)
		for half := 0; half < 2; half++ {
			// Weights of channels 0-7 and 8-15, words (w0,w1) or (w2,w3).
			for h := 0; h < 2; h++ {
				a.VMOVDQU(mem(rW, 32*h), reg.Y8) // 8 channels x 4 taps
				if half == 1 {
					a.VPSRAD(Imm(16), reg.Y8, reg.Y8)
				}
				// low byte and second byte of each dword, sign-extended to words.
				a.VPSLLD(Imm(24), reg.Y8, reg.Y9)
				a.VPSRAD(Imm(24), reg.Y9, reg.Y9)
				a.VPSLLD(Imm(16), reg.Y8, reg.Y10)
				a.VPSRAD(Imm(24), reg.Y10, reg.Y10)
				a.VPSLLD(Imm(16), reg.Y10, reg.Y10)
				a.VPBLENDW(Imm(0xaa), reg.Y10, reg.Y9, yregs[12+h])
			}
			for i := 0; i < n; i++ {
				a.MOVQ(mem(rTap, 32*half), rA0)
				a.VMOVDQU(idx(rBaseA, rA0, 1, 16*stride*i), reg.X4)
				a.MOVQ(mem(rTap, 32*half+16), rA0)
				a.VMOVDQU(idx(rBaseA, rA0, 1, 16*stride*i), reg.X5)
				a.VPUNPCKLBW(reg.X5, reg.X4, reg.X6)
				a.VPUNPCKHBW(reg.X5, reg.X4, reg.X7)
				a.VPMOVZXBW(reg.X6, reg.Y6)
				a.VPMOVZXBW(reg.X7, reg.Y7)
				a.VPMADDWD(reg.Y12, reg.Y6, reg.Y6)
				a.VPMADDWD(reg.Y13, reg.Y7, reg.Y7)
				a.VPADDD(reg.Y6, pair(i)[0], pair(i)[0])
				a.VPADDD(reg.Y7, pair(i)[1], pair(i)[1])
			}
		}
		a.ADDQ(Imm(64), rTap)
		a.ADDQ(Imm(64), rW)
		a.DECQ(rEnd)
		a.JNZ(LabelRef(l))
		for i := 0; i < n; i++ {
			a.VMOVDQU(pair(i)[0], mem(reg.RDX, 64*i))
			a.VMOVDQU(pair(i)[1], mem(reg.RDX, 64*i+32))
		}
	})
}
