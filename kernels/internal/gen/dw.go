package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// dwSizes are the tile widths of the depthwise kernels; depthwise.go chooses
// among the same.
var dwSizes = []int{1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28}

// genDWAVX512 writes the float32 depthwise tiles, strides 1 and 2: one block
// of 16 channels, up to 28 positions in registers, one fused multiply-add with
// a memory operand for each position and tap.
func genDWAVX512(a *asm) {
	for _, stride := range []int{1, 2} {
		for _, p := range dwSizes {
			a.dwF32AVX512(p, stride)
		}
	}
}

func (a *asm) dwF32AVX512(p, stride int) {
	a.begin(fmt.Sprintf("dwF32AVX512_%dx%d", p, stride), "tileArgs", rT)
	p1 := (p + 1) / 2
	a.MOVQ(mem(rT, offBias), rW)
	a.VMOVUPS(mem(rW, 0), reg.Z0)
	for i := 1; i < p; i++ {
		a.VMOVAPS(reg.Z0, zregs[i])
	}
	a.MOVQ(mem(rT, offA), rBaseA)
	a.MOVQ(mem(rT, offB), rBaseB)
	a.MOVQ(mem(rT, offTaps), rTap)
	a.MOVQ(mem(rT, offNTaps), rEnd)
	a.MOVQ(mem(rT, offW), rW)
	a.Label("tap")
	a.MOVQ(mem(rTap, 0), rN)
	a.VMOVUPS(mem(rW, 0), reg.Z28)
	a.LEAQ(idx(rBaseA, rN, 1, 0), rA0)
	if p > 1 {
		a.LEAQ(idx(rBaseB, rN, 1, 0), rB0)
	}
	a.ADDQ(Imm(16), rTap)
	a.ADDQ(Imm(64), rW)
	for i := 0; i < p; i++ {
		m := mem(rA0, i*64*stride)
		if i >= p1 {
			m = mem(rB0, (i-p1)*64*stride)
		}
		a.VFMADD231PS(m, reg.Z28, zregs[i])
	}
	a.DECQ(rEnd)
	a.JNZ(LabelRef("tap"))
	a.MOVQ(mem(rT, offRes), rA0)
	a.TESTQ(rA0, rA0)
	a.JZ(LabelRef("nores"))
	for i := 0; i < p; i++ {
		a.VADDPS(mem(rA0, 64*i), zregs[i], zregs[i])
	}
	a.Label("nores")
	a.clampAVX512(zregs[:p])
	a.roundAVX512(zregs[:p])
	a.MOVQ(mem(rT, offDst), rA0)
	for i := 0; i < p; i++ {
		a.VMOVUPS(zregs[i], mem(rA0, 64*i))
	}
	a.VZEROUPPER()
	a.RET()
}
