// Package gpu models the GPU as Core ML drives it: which layers it runs and
// why not, what they cost, and the arithmetic it uses (fp16 operands, fp32
// accumulation).
//
// The formulas, with their sources, are in docs/cost-model.md.
package gpu
