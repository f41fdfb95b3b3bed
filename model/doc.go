// Package model is the graph that every other room of Triune reads.
//
// A [Graph] holds [Node] values (operators) connected by [Value] edges. The
// operator vocabulary is ONNX's, normalised by the importers to the semantics
// of the newest opset (package model/ops lists it), so that one meaning exists
// per operator name; Core ML's MIL operators are translated to it. A constant
// is a [Const]: compressed weights stay compressed (codes, scales, tables,
// masks) and are decoded only by who needs the numbers.
//
// [Lower] turns a graph into a [Network]: a list of [Layer] values, each one
// anchor operator plus what is fused into it (batch norm, bias, activation,
// residual add, quantize and dequantize). A layer is the unit of placement, of
// cost and of execution. Package model knows no device.
//
// Start reading at graph.go (Graph, Node, Value), then const.go (how weights
// are stored), then layer.go (Network, Layer and the facts a cost model sees).
package model
