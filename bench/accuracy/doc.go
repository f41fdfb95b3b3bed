// Package accuracy measures what compression does to the accuracy of trained
// networks, the way the published table does: network by scheme, compression
// ratio, top-1, and predicted latency. Nothing is simulated but the latency: each row
// runs the network on every test image, in the arithmetic of the units that
// its layers were placed on.
//
//	r, err := accuracy.Measure(ctx, accuracy.Options{})
//	for _, row := range r.Rows { fmt.Println(row.Network, row.Scheme, row.Top1) }
//
// Two networks are embedded, each under 400 kB: one in the style of MobileNetV2
// (inverted residuals, depthwise convolutions, ReLU6) and one in the style of
// ResNet, trained on Fashion-MNIST by train/train.py, each with a version that was
// fine-tuned with fake quantisation and exported as QDQ ONNX. Every choice in
// training was made by 5,000 images held out of the training set (see
// nets/provenance.json); the test images had no part in it. The images come
// from Debian's package dataset-fashion-mnist: 10,000 test images for top-1,
// and the first images of the training set for calibration. A third network, the MNIST
// classifier of the ONNX Runtime examples that nobody here trained, is measured
// where its file and its test digits are given.
//
// # Choices that matter
//
// The networks are so small that most of their weights have fewer than 2,048 elements,
// which coremltools leaves alone by default. Every scheme is therefore applied
// with a weight threshold of 0.
//
// Blocks of 32 need a number of input channels divisible by 32, which the early
// layers and all depthwise ones do not have; those keep float weights, as with
// coremltools. To compare granularities fairly, int4 per tensor and per channel are
// measured twice: on all layers, and on just the layers that blocks of 32 reach.
//
// Every layer that the Neural Engine supports runs in its arithmetic (fp16, or
// int8 x int8), as larger networks would, although the fastest placement of networks
// this small may be the CPU: predicted latency is that of the fastest placement.
// fp32 runs on the CPU, the only unit that has it.
//
// Palettes and sparsity are applied after training, without fine-tuning: what
// coremltools.optimize.coreml does. The sparse and palettized networks of the
// published table were trained, and lose far less.
//
// # Errors of the figures
//
// Top-1 has the standard error of a share. Its change against fp32 is measured on
// the same images and has the smaller standard error of a paired difference
// (see compare.Change). Finer measures of damage are listed beside them: the share
// of images whose answer is not fp32's, right or wrong, and the SNR of the logits
// against fp32. A network that was trained further differs from fp32 in both
// without being worse.
//
// Two schemes are compared by the images that one has right and the other
// wrong: McNemar's exact test, p < 0.05. See [Verdict].
package accuracy
