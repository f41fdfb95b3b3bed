package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// genCPU writes what golang.org/x/sys/cpu does not tell, and the spin hint.
func genCPU(a *asm) {
	a.Function("hasF16C")
	a.Doc("hasF16C reports the F16C bit of CPUID leaf 1.")
	a.Attributes(attr.NOSPLIT)
	a.SignatureExpr("func() bool")
	a.MOVL(U32(1), reg.EAX)
	a.XORL(reg.ECX, reg.ECX)
	a.CPUID()
	a.SHRL(Imm(29), reg.ECX)
	a.ANDL(Imm(1), reg.ECX)
	a.Store(reg.CL, a.ReturnIndex(0))
	a.RET()

	a.Function("spinPause")
	a.Doc("spinPause tells the processor that this is a spin loop.")
	a.Attributes(attr.NOSPLIT)
	a.SignatureExpr("func()")
	for i := 0; i < 8; i++ {
		a.PAUSE()
	}
	a.RET()
}
