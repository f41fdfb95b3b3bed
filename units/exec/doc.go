// Package exec runs a lowered network on the host with the arithmetic of
// simulated compute units.
//
// [Compile] takes a [model.Network], the unit of every layer and the
// [Numerics] of each unit, and turns the layers into steps over package
// kernels. [Program.Run] executes them.
//
// # Reading guide
//
// program.go is what a caller sees. builder.go holds the idea: a graph value
// exists in one or more forms (plain or channel-blocked, as it is or rounded
// to fp16, as floats or as 8-bit codes), a step asks for the form it wants,
// and the missing conversion is emitted once. conv.go, linear.go,
// elementwise.go and so on turn one family of operators each into steps;
// fuse.go finds what their epilogues absorb; reference.go runs what has no
// kernel; planner.go lays the arena out.
//
// # What a unit's arithmetic means here
//
// Activations of every unit are float32 slices. On a unit that holds fp16
// ([Numerics.Half]) each value is fp16-representable: operands and weights are
// rounded to fp16, products are exact in float32, sums accumulate in float32,
// and the result of a layer is rounded once to fp16, after its bias, residual
// and activation. On the Neural Engine the result of a convolution, linear
// layer or matrix product becomes infinite from 2^15 up
// ([kernels.RoundF16Sat]). A layer whose operands are 8-bit codes runs there as
// int8 x int8 with exact int32 sums, the bias an int32 in units of the products
// beside them, that are scaled in float32 and requantized
// from the unrounded value; so do element-wise operators, activations, pooling
// and moves from codes to codes. A sum of codes is taken in steps of the result
// ([kernels.SumQ8]). On the other units, and for every other
// operator, codes are dequantized, computed as floats, rounded as the unit
// rounds and quantized again.
//
// Modelled of the Neural Engine's known behaviour: fp16 storage, accumulation
// wider than fp16, overflow of products at 2^15, independence of the batch.
// Not modelled, because the evidence is a single source or differs between
// chips: the rounding of small groups to fp16 ahead of the accumulator,
// flushing of denormals, NaN and 0*inf becoming other values, and the
// piecewise-linear tables behind the activation functions (maximum error
// 0.0013 to 0.0059 where measured); activations are exact and rounded to fp16.
//
// # Results and threads
//
// Every output element is computed by one worker in one fixed order, so
// results are the same bits for any number of threads.
package exec
