package zoo

import (
	"fmt"

	"github.com/triune-sim/triune/model"
)

// vgg is Simonyan and Zisserman 2014 (arXiv 1409.1556), configurations A, B, D
// and E without batch norm, as torchvision builds them.
func vgg(convs ...int) func(b *builder, size int) {
	return func(b *builder, size int) {
		x := b.image(size)
		i := 0
		for s, n := range convs {
			for range n {
				x = relu(b, b.conv(x, fmt.Sprintf("features.%d", i), conv{out: min(64<<s, 512), k: 3, bias: true}))
				i += 2
			}
			x = b.maxPool(x, 2, 2, 0)
			i++
		}
		// The adaptive pooling to 7 x 7 is the identity at 224 pixels.
		if k := x.Shape[2] / 7; k > 1 {
			x = b.avgPool(x, k, k, 0)
		}
		x = b.flatten(x)
		x = relu(b, b.linear(x, "classifier.0", 4096))
		x = relu(b, b.linear(x, "classifier.3", 4096))
		b.output(b.linear(x, "classifier.6", 1000), "logits")
	}
}

// denseNet is Huang et al. 2016 (arXiv 1608.06993) of growth rate 32 as
// torchvision builds it: pre-activation layers whose batch norms follow a
// concatenation and so do not fold into a convolution.
func denseNet(blocks ...int) func(b *builder, size int) {
	return func(b *builder, size int) {
		x := b.image(size)
		x = relu(b, b.bn(b.conv(x, "features.conv0", conv{out: 64, k: 7, stride: 2}), "features.norm0", false))
		x = b.maxPool(x, 3, 2, 1)
		for s, n := range blocks {
			all := []*model.Value{x}
			for i := range n {
				name := fmt.Sprintf("features.denseblock%d.denselayer%d", s+1, i+1)
				y := x
				if len(all) > 1 {
					y = b.concat(1, all...)
				}
				y = relu(b, b.bn(y, name+".norm1", false))
				y = b.conv(y, name+".conv1", conv{out: 128, k: 1})
				y = relu(b, b.bn(y, name+".norm2", false))
				all = append(all, b.conv(y, name+".conv2", conv{out: 32, k: 3}))
			}
			x = b.concat(1, all...)
			if s < len(blocks)-1 {
				name := fmt.Sprintf("features.transition%d", s+1)
				x = relu(b, b.bn(x, name+".norm", false))
				x = b.avgPool(b.conv(x, name+".conv", conv{out: x.Shape[1] / 2, k: 1}), 2, 2, 0)
			}
		}
		x = relu(b, b.bn(x, "features.norm5", false))
		x = b.flatten(b.globalAvgPool(x))
		b.output(b.linear(x, "classifier", 1000), "logits")
	}
}

// squeezeNet is Iandola et al. 2016 (arXiv 1602.07360), version 1.1 as
// torchvision builds it.
func squeezeNet(b *builder, size int) {
	pool := func(x *model.Value) *model.Value {
		y := b.pool("MaxPool", x, 3, 2, 0, model.Attrs{"ceil_mode": 1})
		b.moments[y] = b.moments[x].scaled(1.5)
		return y
	}
	fire := func(x *model.Value, i, squeeze, expand int) *model.Value {
		name := fmt.Sprintf("features.%d", i)
		x = relu(b, b.conv(x, name+".squeeze", conv{out: squeeze, k: 1, bias: true}))
		return b.concat(1, relu(b, b.conv(x, name+".expand1x1", conv{out: expand, k: 1, bias: true})),
			relu(b, b.conv(x, name+".expand3x3", conv{out: expand, k: 3, bias: true})))
	}
	x := b.image(size)
	x = pool(relu(b, b.conv(x, "features.0", conv{out: 64, k: 3, stride: 2, pad: -1, bias: true})))
	x = pool(fire(fire(x, 3, 16, 64), 4, 16, 64))
	x = pool(fire(fire(x, 6, 32, 128), 7, 32, 128))
	x = fire(fire(fire(fire(x, 9, 48, 192), 10, 48, 192), 11, 64, 256), 12, 64, 256)
	x = relu(b, b.conv(x, "classifier.1", conv{out: 1000, k: 1, bias: true}))
	b.output(b.flatten(b.globalAvgPool(x)), "logits")
}

// alexNet is Krizhevsky 2014 (arXiv 1404.5997), the one-column form that
// torchvision builds.
func alexNet(b *builder, size int) {
	x := b.image(size)
	x = relu(b, b.conv(x, "features.0", conv{out: 64, k: 11, stride: 4, pad: 2, bias: true}))
	x = b.maxPool(x, 3, 2, 0)
	x = relu(b, b.conv(x, "features.3", conv{out: 192, k: 5, bias: true}))
	x = b.maxPool(x, 3, 2, 0)
	x = relu(b, b.conv(x, "features.6", conv{out: 384, k: 3, bias: true}))
	x = relu(b, b.conv(x, "features.8", conv{out: 256, k: 3, bias: true}))
	x = relu(b, b.conv(x, "features.10", conv{out: 256, k: 3, bias: true}))
	x = b.maxPool(x, 3, 2, 0)
	if k := x.Shape[2] / 6; k > 1 {
		x = b.avgPool(x, k, k, 0)
	}
	x = b.flatten(x)
	x = relu(b, b.linear(x, "classifier.1", 4096))
	x = relu(b, b.linear(x, "classifier.4", 4096))
	b.output(b.linear(x, "classifier.6", 1000), "logits")
}

// fcStack is n fully connected layers of equal width: bound by the bandwidth
// of weights at batch 1.
func fcStack(n, width int) func(b *builder, size int) {
	return func(b *builder, size int) {
		x := b.input("x", model.Float32, 1, width)
		for i := range n {
			x = relu(b, b.linear(x, fmt.Sprintf("fc%d", i), width))
		}
		b.output(x, "y")
	}
}

// tinyMLP is the smallest useful network: two layers.
func tinyMLP(b *builder, size int) {
	x := b.input("x", model.Float32, 1, 64)
	x = relu(b, b.linear(x, "fc0", 128))
	b.output(b.linear(x, "fc1", 10), "logits")
}

// tinyCNN has one of each layer that convolutional networks are made of.
func tinyCNN(b *builder, size int) {
	x := b.image(size)
	x = relu6(b, b.convBN(x, "stem", conv{out: 16, k: 3, stride: 2}, false))
	x = b.invertedResidual(x, "block0", 4, 16, 1, relu6)
	x = b.maxPool(x, 2, 2, 0)
	x = hardSwish(b, b.convBN(x, "block1", conv{out: 24, k: 3}, false))
	x = b.squeezeExcite(x, "block1.se", 8, relu, hardSigmoid)
	x = b.convBN(x, "block2", conv{out: 32, k: 1}, false)
	x = b.flatten(b.globalAvgPool(swish(b, x)))
	b.output(b.linear(x, "fc", 10), "logits")
}
