package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const offTabs = 160

// dwEdgeSizes are the tile widths of the depthwise kernels that read the source
// in place; depthwise.go chooses among the same.
var dwEdgeSizes = []int{4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28}

// genDWEdgeAVX512 writes depthwise kernels that need no padded copy: where the
// first or the last position of a row has a tap outside the image, a mask in
// the table of taps turns that one multiply-add off (a masked load does not
// fault). Rows shorter than a whole number of tiles end with a tile that
// overlaps the one before.
func genDWEdgeAVX512(a *asm) {
	for _, stride := range []int{1, 2} {
		for _, p := range dwEdgeSizes {
			a.dwEdgeAVX512(p, stride)
		}
	}
}

func (a *asm) dwEdgeAVX512(p, stride int) {
	a.begin(fmt.Sprintf("dwEdgeAVX512_%dx%d", p, stride), "tileArgs", rT)
	row, left, dst, first := reg.RSI, reg.RDI, reg.RDX, reg.R9
	a.MOVQ(mem(rT, offA), row)
	a.MOVQ(mem(rT, offDst), dst)
	a.Label("row")
	a.MOVQ(row, rBaseA)
	a.MOVQ(mem(rT, offP), left)
	a.MOVQ(U32(1), first)
	a.Label("tile")
	a.CMPQ(left, Imm(uint64(p)))
	a.JGE(LabelRef("whole"))
	// Step back so that the last tile is whole.
	a.MOVQ(U32(uint32(p)), rN)
	a.SUBQ(left, rN)
	a.SHLQ(Imm(6), rN)
	a.SUBQ(rN, dst)
	for i := 0; i < stride; i++ {
		a.SUBQ(rN, rBaseA)
	}
	a.MOVQ(U32(uint32(p)), left)
	a.Label("whole")
	a.CMPQ(left, Imm(uint64(p)))
	a.JNE(LabelRef("notlast"))
	a.ADDQ(Imm(2), first)
	a.Label("notlast")
	a.MOVQ(idx(rT, first, 8, offTabs), rTap)
	a.MOVQ(mem(rT, offBias), rW)
	a.VMOVUPS(mem(rW, 0), reg.Z0)
	for i := 1; i < p; i++ {
		a.VMOVAPS(reg.Z0, zregs[i])
	}
	a.MOVQ(mem(rT, offNTaps), rEnd)
	a.MOVQ(mem(rT, offW), rW)
	a.Label("tap")
	a.MOVQ(mem(rTap, 0), rA0)
	a.KMOVW(mem(rTap, 8), reg.K1)
	a.KMOVW(mem(rTap, 10), reg.K2)
	a.VMOVUPS(mem(rW, 0), reg.Z28)
	a.ADDQ(rBaseA, rA0)
	a.ADDQ(Imm(16), rTap)
	a.ADDQ(Imm(64), rW)
	a.VFMADD231PS(mem(rA0, 0), reg.Z28, reg.K1, zregs[0])
	for i := 1; i < p-1; i++ {
		a.VFMADD231PS(mem(rA0, i*64*stride), reg.Z28, zregs[i])
	}
	a.VFMADD231PS(mem(rA0, (p-1)*64*stride), reg.Z28, reg.K2, zregs[p-1])
	a.DECQ(rEnd)
	a.JNZ(LabelRef("tap"))
	a.clampAVX512(zregs[:p])
	a.roundAVX512(zregs[:p])
	for i := 0; i < p; i++ {
		a.VMOVUPS(zregs[i], mem(dst, 64*i))
	}
	a.ADDQ(imm(64*p), dst)
	a.ADDQ(imm(64*p*stride), rBaseA)
	a.XORQ(first, first)
	a.SUBQ(imm(p), left)
	a.JG(LabelRef("tile"))
	a.ADDQ(mem(rT, offSRow), row)
	a.DECQ(mem(rT, offRows))
	a.JNZ(LabelRef("row"))
	a.VZEROUPPER()
	a.RET()
}
