// Package quant compresses graphs the way coremltools does: half precision,
// linear quantisation of weights, palettes, pruning, joint forms, and 8-bit
// activations.
//
// A [Scheme] says what to do; [Parse] reads its short name ("fp16", "w8",
// "w8a8", "p4g16", "s50+w8") and [ReadConfig] a YAML file in coremltools'
// vocabulary. [Apply] makes a new graph from a graph and a scheme, and a
// [Report] of what was compressed, what was left alone and why:
//
//	s, err := quant.Parse("w8a8")
//	small, report, err := quant.Apply(g, s, quant.Options{})
//
// Nothing is computed by Apply that a prediction does not need: codes, scales,
// tables and masks are lazy constants ([model.NewLazy]) whose sizes are known
// and whose values are made at first use. Activation scales are lazy too: they
// come from a [Ranges] source ([Calibrate] makes one from samples) that is
// asked only when the graph is executed.
//
// The arithmetic is coremltools' own, in numpy float16 (each operation rounded
// to half precision) for fp16 weights, so that codes, scales, zero points,
// masks and tables come out bit for bit equal; k-means tables are exact optima
// where coremltools' are approximate. Formulas are those of
// coremltools/optimize/_utils.py and optimize/coreml/_quantization_passes.py.
//
// Reading order: scheme.go (what can be asked), weights.go (which constants
// are touched), linear.go, palette.go and prune.go (the numbers), activation.go
// (where quantize and dequantize operators go), ranges.go and calibrate.go.
package quant
