// Package coreml reads and writes Core ML models: packages (.mlpackage) and
// bare .mlmodel files that hold an ML program, for iOS15 to iOS18
// (specification versions 6 to 9).
//
// # A package
//
//	X.mlpackage/Manifest.json                            which file is the model
//	X.mlpackage/Data/com.apple.CoreML/model.mlmodel      the specification, a protobuf
//	X.mlpackage/Data/com.apple.CoreML/weights/weight.bin weights of ten elements or more
//
// The specification's program is MIL, Core ML's intermediate language: a
// function of typed operations in order. [Load] translates one function to a
// [model.Graph], whose operators are ONNX's:
//
//	g, err := coreml.Load("MobileNetV2.mlpackage", coreml.Options{})
//
// # Translation
//
// Most operations have one counterpart; the others become several nodes with
// the same arithmetic (layer_norm over channels, l2_norm, mod, slice_update,
// ...). Points where the two vocabularies differ:
//
//   - linear becomes Gemm for matrices and MatMul (with the weight transposed
//     where it is stored) otherwise.
//   - Indices are int32 in MIL and int64 in ONNX: casts are put between.
//   - Recurrent weights have another order of gates; they are reordered where
//     they are stored. A bidirectional LSTM becomes two nodes.
//   - quantize and dequantize become QuantizeLinear and DequantizeLinear, with
//     an explicit zero point, which carries the type.
//   - A state is an input of the graph, and its new value an output.
//   - A list is a tensor with one more axis in front; its length is fixed.
//   - crop_resize and non_maximum_suppression, which ONNX lacks, have operators
//     of their own: CropResize and BoxSuppression. Random numbers repeat: with a
//     seed they follow from it, without one from the operation's name.
//   - classify disappears: the output is the tensor of probabilities, the
//     labels stand in Meta.
//
// Every operation's inferred shape is compared with the one the program
// declares. [Operations] lists what is understood; anything else is refused by
// name when the model is loaded.
//
// # Weights
//
// Compressed weights stay compressed and share the memory of the weight file:
//
//	constexpr_affine_dequantize, constexpr_blockwise_shift_scale   model.Affine
//	constexpr_lut_to_dense                                         model.Lookup
//	constexpr_sparse_to_dense                                      model.Sparse
//	constexpr_sparse_blockwise_shift_scale + sparse_to_dense       model.Affine of sparse codes
//	constexpr_lut_to_sparse + sparse_to_dense                      model.Lookup of sparse indices
//	constexpr_blockwise_shift_scale of a table + lut_to_dense      model.Lookup with an Affine table
//
// # Safety
//
// Files are not trusted: every size is checked before memory is asked for and
// every offset before it is used; nesting, ranks and counts are bounded; never
// more than eight times the package and 8 MiB is held in memory; the files of a
// package are opened below its folder, out of which neither a path
// nor a link leads. Errors are one line: coreml: FILE: what.
//
// Field numbers and layouts are those of the protobuf files and the MILBlob
// sources of github.com/apple/coremltools (mlmodel/format, mlmodel/src/MILBlob).
package coreml
