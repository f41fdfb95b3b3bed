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
// offsets before they are used, nesting and counts are bounded, never more than
// eight times the file and 8 MiB is held in memory, and an unknown operator is an
// error that names the node. Every error is one line.
//
// [Write] and [Save] write any graph in the lowest opset that has its
// operators (18 or later). Integer codes with scales stay compressed as
// DequantizeLinear; palettes and sparse weights, which ONNX cannot express, are
// written decompressed; operators beyond ONNX are written as what they stand
// for. The bytes depend on the graph only, sizes are known without the weights'
// values ([Size]), and a file appears whole or not at all.
//
// The tests run the node suite of the ONNX project (922 of its 932 cases pass;
// testdata/unsupported.txt says why the others do not), compare operators and
// networks with ONNX Runtime where it is installed, and damage models at random.
package onnx
