package exec

import (
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/units"
)

// Numerics is the arithmetic of one compute unit: how activations are held,
// how products are rounded, and whether 8-bit products are native. Packages
// units/cpu, units/gpu and units/ne each export theirs; the zero value is
// plain fp32.
type Numerics struct {
	Unit units.Kind
	// Half means that activations and weights are fp16: they are held as
	// float32 slices of fp16-representable values, products are exact in
	// float32 and sums are accumulated in float32.
	Half bool
	// Round is applied to the result of every layer that is not a product:
	// element-wise functions, pooling, normalisation, moves.
	Round kernels.Round
	// DotRound is applied to the result of convolutions, linear layers and
	// matrix products.
	DotRound kernels.Round
	// Int8 means that a convolution or linear layer whose operands are both
	// 8-bit runs as int8 x int8 -> int32 and is requantized from the exact
	// sum. Without it the operands are dequantized first and the float
	// product is quantized again. Element-wise operators, activations, pooling
	// and moves from 8-bit tensors to an 8-bit tensor then requantize from an
	// unrounded result too.
	Int8 bool
}

// Set is the arithmetic of every unit, indexed by [units.Kind].
type Set [units.NumKinds]Numerics
