package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	offRows  = 128
	offSRow  = 136
	offRows8 = 232
	offSRow8 = 240
)

// genDWAVX512 writes the float32 depthwise kernels, strides 1 and 2: rows of
// one block of 16 channels, 28 positions in registers, one fused multiply-add
// with a memory operand for each position and tap.
func genDWAVX512(a *asm) {
	for _, stride := range []int{1, 2} {
		a.dwF32AVX512(stride)
	}
}

func (a *asm) dwF32AVX512(stride int) {
	a.begin(fmt.Sprintf("dwF32AVX512s%d", stride), "tileArgs", rT)
	row, left, dst, res := reg.RSI, reg.RDI, reg.RDX, reg.RBX
	a.MOVQ(mem(rT, offA), row)
	a.MOVQ(mem(rT, offDst), dst)
	a.MOVQ(mem(rT, offRes), res)
	a.Label("row")
	a.MOVQ(row, rBaseA)
	a.MOVQ(mem(rT, offP), left)
	sizes := []int{28, 14, 7, 4, 2, 1}
	for i, p := range sizes {
		body := fmt.Sprintf("p%d", p)
		next := "rowend"
		if i+1 < len(sizes) {
			next = fmt.Sprintf("p%d", sizes[i+1])
		}
		a.Label(body)
		a.CMPQ(left, Imm(uint64(p)))
		a.JLT(LabelRef(next))
		a.MOVQ(mem(rT, offBias), rW)
		a.VMOVUPS(mem(rW, 0), reg.Z0)
		for i := 1; i < p; i++ {
			a.VMOVAPS(reg.Z0, zregs[i])
		}
		a.MOVQ(mem(rT, offTaps), rTap)
		a.MOVQ(mem(rT, offNTaps), rEnd)
		a.MOVQ(mem(rT, offW), rW)
		tap := a.newLabel("tap")
		a.Label(tap)
		a.MOVQ(mem(rTap, 0), rA0)
		a.VMOVUPS(mem(rW, 0), reg.Z28)
		a.ADDQ(rBaseA, rA0)
		a.ADDQ(Imm(16), rTap)
		a.ADDQ(Imm(64), rW)
		for i := 0; i < p; i++ {
			a.VFMADD231PS(mem(rA0, i*64*stride), reg.Z28, zregs[i])
		}
		a.DECQ(rEnd)
		a.JNZ(LabelRef(tap))
		nores := a.newLabel("nores")
		a.TESTQ(res, res)
		a.JZ(LabelRef(nores))
		for i := 0; i < p; i++ {
			a.VADDPS(mem(res, 64*i), zregs[i], zregs[i])
		}
		a.ADDQ(imm(64*p), res)
		a.Label(nores)
		a.clampAVX512(zregs[:p])
		a.roundAVX512(zregs[:p])
		for i := 0; i < p; i++ {
			a.VMOVUPS(zregs[i], mem(dst, 64*i))
		}
		a.ADDQ(imm(64*p), dst)
		a.ADDQ(imm(64*p*stride), rBaseA)
		a.SUBQ(imm(p), left)
		if i == 0 {
			a.JMP(LabelRef(body))
		}
	}
	a.Label("rowend")
	a.ADDQ(mem(rT, offSRow), row)
	a.DECQ(mem(rT, offRows))
	a.JNZ(LabelRef("row"))
	a.VZEROUPPER()
	a.RET()
}
