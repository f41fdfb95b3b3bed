package ne

import (
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/exec"
)

// Arithmetic is the arithmetic of the Neural Engine: fp16 storage, products of
// fp16 operands in an accumulator wider than fp16 (fp32 here), results rounded
// to fp16. Convolutions, linear layers and matrix products become infinite
// from 2^15 up, everything else from 65520 (apple-hardware facts, A8). Layers
// whose operands are both 8-bit are computed as int8 x int8 with exact int32
// sums and requantized. Package exec lists which known behaviours are not
// modelled.
func Arithmetic() exec.Numerics {
	return exec.Numerics{Unit: units.NE, Half: true, Round: kernels.RoundF16, DotRound: kernels.RoundF16Sat, Int8: true}
}
