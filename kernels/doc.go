// Package kernels is the host arithmetic of Triune: convolution, matrix
// products, int8 products, element-wise functions, pooling, normalisation and
// layout changes on plain slices, with no graph and no device in sight.
//
// # Reading guide
//
// Start with [ConvShape] and [ConvF32] (conv.go, conv_f32.go), then [Epilogue]
// (epilogue.go) and [Ctx] (ctx.go). tile.go holds the one micro-kernel contract
// that convolution, linear layers and batched products all reduce to.
//
// # Layouts
//
// Four-dimensional activations are held in C16: [N][ceil(C/16)][H][W][16], for
// float32 as for 8-bit values. Channel c of pixel (h, w) of image n sits at
//
//	((n*CB + c/16)*H*W + h*W + w)*16 + c%16,  CB = ceil(C/16)
//
// [C16Len] gives the length of such a slice. The lanes beyond C in the last
// block are zero when [PackC16] wrote them and unspecified when another kernel
// did; no kernel lets them reach a valid lane. Because the block is 16 for
// float and for 8-bit data, quantising, dequantising and every element-wise
// function is the flat slice operation. All other tensors are plain row-major.
//
// # Eight-bit values
//
// Quantised activations travel as []uint8 holding raw bytes; [QParams] says
// whether they mean uint8 or int8 ([QParams.Signed]). real = (q - Zero) * Scale.
// Use [Bytes] and [Int8s] to view one type as the other without a copy.
// Unsigned activations are the fastest (the multiplier wants u8 x s8); a signed
// tensor (q, zero) and the unsigned (q+128, zero+128) mean the same numbers.
//
// # Calling convention
//
//	pool := kernels.NewPool(2)              // shared by sessions, any number
//	ctx := kernels.NewCtx(pool)             // one per goroutine that calls Run
//	conv, err := kernels.NewConvF32(shape, weightsOIHW, kernels.Epilogue{
//		Bias: bias, Act: kernels.Relu(),
//	})
//	conv.Run(ctx, dst, src, nil, batch)     // dst, src in C16; no allocation
//
// Packed objects (ConvF32, ConvI8, LinearF32, LinearI8) are immutable after
// construction and may be run by many goroutines at once, each with its own
// Ctx. Run methods allocate nothing once the Ctx has grown to ScratchBytes.
// Destination first. Shape errors at construction are returned; slices too
// short for the shape given are a caller's mistake and panic with a message
// prefixed "kernels:".
//
// # Determinism
//
// Every output element is summed by one worker in one fixed order, so results
// are the same bits for any number of threads. Int8 results are the same bits
// for any instruction set; float results of different instruction sets differ
// by the rounding of fused multiply-add only.
//
// # Instruction sets
//
// The best level is chosen at start; [ISA] names it, and the environment
// variable TRIUNE_CPU forces a lower one (generic, avx2, avxvnni, avx512,
// avx512vnni, neon, neondot).
package kernels
