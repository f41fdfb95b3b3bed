package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// genPoolAVX512 writes maximum pooling over rows of one block, strides 1 and 2,
// with the walk of the depthwise kernels: float32, unsigned and signed bytes.
func genPoolAVX512(a *asm) {
	for stride := 1; stride <= 2; stride++ {
		a.maxF32AVX512(stride)
		a.maxBytesAVX512("U8", stride, a.VPMAXUB)
		a.maxBytesAVX512("S8", stride, a.VPMAXSB)
	}
}

func (a *asm) maxF32AVX512(stride int) {
	a.begin(fmt.Sprintf("maxF32AVX512s%d", stride), "tileArgs", rT)
	row, left, dst := reg.RSI, reg.RDI, reg.RDX
	a.MOVQ(mem(rT, offA), row)
	a.MOVQ(mem(rT, offDst), dst)
	a.MOVL(U32(0xff800000), reg.EAX)
	a.VPBROADCASTD(reg.EAX, reg.Z31)
	a.Label("row")
	a.MOVQ(row, rBaseA)
	a.MOVQ(mem(rT, offP), left)
	sizes := []int{14, 7, 2, 1}
	for i, p := range sizes {
		body := fmt.Sprintf("p%d", p)
		next := "rowend"
		if i+1 < len(sizes) {
			next = fmt.Sprintf("p%d", sizes[i+1])
		}
		a.Label(body)
		a.CMPQ(left, Imm(uint64(p)))
		a.JLT(LabelRef(next))
		for i := 0; i < p; i++ {
			a.VMOVAPS(reg.Z31, zregs[i])
		}
		a.MOVQ(mem(rT, offTaps), rTap)
		a.MOVQ(mem(rT, offNTaps), rEnd)
		tap := a.newLabel("tap")
		a.Label(tap)
		a.MOVQ(mem(rTap, 0), rA0)
		a.ADDQ(rBaseA, rA0)
		a.ADDQ(Imm(16), rTap)
		for i := 0; i < p; i++ {
			// A NaN on either side stays: the maximum returns its second source,
			// the accumulator, unless that is smaller; a new NaN is put in.
			a.VMOVUPS(mem(rA0, i*64*stride), reg.Z30)
			a.VCMPPS(Imm(3), reg.Z30, reg.Z30, reg.K1)
			a.VMAXPS(zregs[i], reg.Z30, zregs[i])
			a.VMOVAPS(reg.Z30, reg.K1, zregs[i])
		}
		a.DECQ(rEnd)
		a.JNZ(LabelRef(tap))
		for i := 0; i < p; i++ {
			a.VMOVUPS(zregs[i], mem(dst, 64*i))
		}
		a.ADDQ(imm(64*p), dst)
		a.ADDQ(imm(64*p*stride), rBaseA)
		a.SUBQ(imm(p), left)
		a.JMP(LabelRef(body))
	}
	a.Label("rowend")
	a.ADDQ(mem(rT, offSRow), row)
	a.DECQ(mem(rT, offRows))
	a.JNZ(LabelRef("row"))
	a.VZEROUPPER()
	a.RET()
}

func (a *asm) maxBytesAVX512(name string, stride int, op func(...Op)) {
	a.begin(fmt.Sprintf("max%sAVX512s%d", name, stride), "tileArgsI8", rT)
	row, left, dst := reg.RSI, reg.RDI, reg.RDX
	a.MOVQ(mem(rT, offA), row)
	a.MOVQ(mem(rT, offDst), dst)
	a.Label("row")
	a.MOVQ(row, rBaseA)
	a.MOVQ(mem(rT, offP), left)
	for _, g := range []int{4, 1} {
		body := fmt.Sprintf("g%d", g)
		a.Label(body)
		a.CMPQ(left, Imm(uint64(4*g)))
		if g > 1 {
			a.JLT(LabelRef("g1"))
		} else {
			a.TESTQ(left, left)
			a.JLE(LabelRef("rowend"))
		}
		a.MOVQ(mem(rT, offTaps), rTap)
		a.MOVQ(mem(rT, offNTaps), rEnd)
		tap, first := a.newLabel("tap"), true
		load := func(i int, to reg.VecPhysical) {
			a.VMOVDQU32(mem(rA0, 64*stride*i), to)
			if stride == 2 {
				a.VSHUFI64X2(Imm(0x88), mem(rA0, 64*stride*i+64), to, to)
			}
		}
		for first {
			first = false
			a.MOVQ(mem(rTap, 0), rA0)
			a.ADDQ(rBaseA, rA0)
			for i := 0; i < g; i++ {
				load(i, zregs[i])
			}
		}
		a.Label(tap)
		a.MOVQ(mem(rTap, 0), rA0)
		a.ADDQ(rBaseA, rA0)
		a.ADDQ(Imm(16), rTap)
		for i := 0; i < g; i++ {
			load(i, zregs[8+i])
			op(zregs[8+i], zregs[i], zregs[i])
		}
		a.DECQ(rEnd)
		a.JNZ(LabelRef(tap))
		if g == 1 {
			full := a.newLabel("full")
			a.CMPQ(left, Imm(4))
			a.JGE(LabelRef(full))
			a.MOVQ(I32(4), reg.RCX)
			a.SUBQ(left, reg.RCX)
			a.SHLQ(Imm(4), reg.RCX)
			a.MOVQ(I32(-1), reg.RBX)
			a.SHRQ(reg.CL, reg.RBX)
			a.KMOVQ(reg.RBX, reg.K1)
			a.VMOVDQU8(zregs[0], reg.K1, mem(dst, 0))
			a.SHLQ(Imm(4), left)
			a.ADDQ(left, dst)
			a.JMP(LabelRef("rowend"))
			a.Label(full)
		}
		for i := 0; i < g; i++ {
			a.VMOVDQU32(zregs[i], mem(dst, 64*i))
		}
		a.ADDQ(imm(64*g), dst)
		a.ADDQ(imm(64*g*stride), rBaseA)
		a.SUBQ(imm(4*g), left)
		a.JMP(LabelRef(body))
	}
	a.Label("rowend")
	a.ADDQ(mem(rT, offSRow8), row)
	a.DECQ(mem(rT, offRows8))
	a.JNZ(LabelRef("row"))
	a.VZEROUPPER()
	a.RET()
}
