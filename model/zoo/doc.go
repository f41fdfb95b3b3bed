// Package zoo builds well-known networks in Go, layer by layer, with the
// exact shapes and parameter counts of their papers and reference
// implementations.
//
// A network of the zoo has seeded weights: they are not trained, but they are
// the same on every machine, they have a bell-shaped distribution, and they
// are scaled so that activations keep a variance near one from the first layer
// to the last (also in fp16). Values are computed on first use
// ([model.NewLazy]), so [Build] is a matter of microseconds and a prediction,
// which needs no values, never pays for them.
//
// A name is a family, an optional width and an optional input size:
//
//	mobilenet_v2            width 1.0, 224 x 224
//	mobilenet_v2_1.4        width 1.4
//	mobilenet_v2@160        160 x 160 pixels
//	resnet50, efficientnet_b0, vit_b_16, ...
//
// Spelling is forgiving: case, "-", "_" and spaces do not matter, and the
// names that papers and tables use ("MobileNetV2-1.0", "ResNet50",
// "MobileViTv2-1.0", "EfficientNet-B0") are understood. [Names] lists the
// canonical ones.
//
// Image networks read `image` [1,3,H,W] (fp32, NCHW) and write `logits`
// [1,1000]. Batch norms are kept as nodes, as a framework exports them;
// package passes folds them. Language models read one token and the KV cache
// of the tokens before it (see decoder.go).
//
// To add a network, write one function on *builder beside its relatives, add
// a line to the table in registry.go, and put its published parameter count
// into the table of zoo_test.go.
package zoo
