// Package onnx reads and writes ONNX models.
//
// [Load] maps the file, reads the protobuf field by field and translates each
// node to Triune's vocabulary (package model/ops): operators keep their ONNX
// names, but older opsets are brought to the newest meaning (the attributes
// that became inputs are inputs, Upsample is Resize, Scatter is
// ScatterElements), Constant nodes become constants, model-local functions are
// expanded, and the fused integer operators (QLinearConv, QLinearMatMul, and
// QLinearAdd, QGemm and their kin of com.microsoft) become the
// DequantizeLinear - operator - QuantizeLinear form, which lowers to the same
// quantised layers as a QDQ file.
//
// Weights are views into the mapped file, not copies; so is external data,
// whose file must lie below the model's folder. Types and shapes are inferred
// while reading. A symbolic batch dimension becomes 1; any other unknown
// dimension needs [Options].Shapes before the graph can be lowered.
//
// The reader trusts nothing: sizes are checked before memory is asked for,
// offsets before they are used, nesting and counts are bounded, and an unknown
// operator is an error that names the node. Every error is one line.
package onnx
