package gpu

import (
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/exec"
)

// Arithmetic is the arithmetic of the GPU: fp16 storage, products of fp16
// operands accumulated in fp32 (Core ML's default: low-precision accumulation
// is off), results rounded to fp16, overflow at 65520. 8-bit operands are
// dequantized before, and results quantized after, every layer that has them.
func Arithmetic() exec.Numerics {
	return exec.Numerics{Unit: units.GPU, Half: true, Round: kernels.RoundF16, DotRound: kernels.RoundF16}
}
