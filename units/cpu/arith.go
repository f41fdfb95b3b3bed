package cpu

import (
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/exec"
)

// Arithmetic is the arithmetic of the CPU: activations, weights and sums are
// fp32, whatever type the program declares. 8-bit operands are dequantized
// before, and results quantized after, every layer that has them.
func Arithmetic() exec.Numerics {
	return exec.Numerics{Unit: units.CPU}
}
