// Package ops is the operator vocabulary of Triune: what each operator means,
// which shapes it gives, and how it is computed by the book.
//
// # Vocabulary
//
// Operators are named and defined as in ONNX, default domain, with the meaning
// of the newest opset (22). One meaning exists per name; importers translate
// older forms. In particular
//
//   - what became an input is an input: the bounds of Clip; the axes of
//     Squeeze, Unsqueeze and every Reduce operator; starts, ends, axes and
//     steps of Slice; pads, value and axes of Pad; the sizes of Split (without
//     them the axis is divided evenly over the outputs); k of TopK; ratio and
//     training mode of Dropout; scales and sizes of Resize;
//   - Softmax, LogSoftmax and Hardmax normalise one axis (-1 by default);
//   - element types in attributes are names: Cast has to = "fp16", also
//     dtype and output_dtype elsewhere (see model.ParseDType);
//   - Constant does not exist: constants are values with a model.Const;
//   - GroupNormalization has one scale and bias per channel.
//
// Beyond opset 22 the vocabulary has, with the meaning of later opsets or of
// Core ML:
//
//	Swish            x * sigmoid(alpha*x), alpha 1 by default (SiLU)
//	RMSNormalization x / sqrt(mean(x^2) + epsilon) * scale from axis on
//	ScaledTanh       alpha * tanh(beta*x)
//
// [List] gives the vocabulary; docs/operators.md is generated from it.
//
// # Inference
//
// [InferGraph] sets every value's type and shape; [Inferer] does so node by
// node while a graph is being built. An unknown dimension is -1, an unknown
// rank is [Unranked]. Shapes that depend on values (Reshape's target) are
// found by evaluating the operators between constants, shapes and that value;
// weights are never decoded for it.
//
// # Evaluation
//
// [EvalNode] and [EvalGraph] compute in float64 and round once to the output's
// type; integers are exact. They are plain, not fast (a MobileNetV2 takes some
// tenths of a second), and are the oracle of Triune's tests: with
// [Options].Float64 nothing is rounded below float64. Operators without a
// hand-written kernel run through EvalNode on the CPU unit.
//
// Errors name the node and the operator; inputs that do not fit give an error,
// never a panic, and no tensor grows beyond [Options].MaxBytes.
package ops
