// Package passes simplifies graphs: same function, fewer and larger
// operators.
//
// Importers only translate. What makes the operators of a framework's export
// recognisable to a unit happens here, on a [model.Graph], before
// [model.Lower] forms layers:
//
//   - dead nodes and operators that change nothing go away;
//   - what depends on constants and known shapes alone becomes a constant
//     (values are computed on first use, so that a prediction never pays);
//   - dequantized constants become constants that are stored compressed
//     ([model.Affine]);
//   - batch norms and per-channel scales and shifts fold into the weights of
//     the convolution or linear layer before them, explicit zero padding into
//     the padding of the one after;
//   - decompositions become the operator they spell: Swish, HardSwish,
//     HardSigmoid, Gelu, Mish, Clip, LayerNormalization, GroupNormalization,
//     RMSNormalization, Softmax, GlobalAveragePool, LeakyRelu.
//
// [Default] runs the standard pipeline until nothing changes. It works in
// place (clone first to keep the original), is deterministic and idempotent,
// and keeps the names, types and shapes of graph inputs and outputs.
//
// A pass is a function over a [*rewriter], which knows who reads what and
// keeps that current while nodes change. To add a pattern, write a function
// that looks at one node (the last of the pattern), and turn that node into the
// new operator with become; what nothing reads any more disappears by itself.
package passes
