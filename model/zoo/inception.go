package zoo

import (
	"fmt"

	"github.com/triune-sim/triune/model"
)

// branch is a chain of convolution, batch norm and ReLU.
func (b *builder) branch(x *model.Value, name string, convs ...conv) *model.Value {
	for i, c := range convs {
		x = relu(b, b.bn(b.conv(x, fmt.Sprintf("%s.%d.conv", name, i), c), fmt.Sprintf("%s.%d.bn", name, i), false))
	}
	return x
}

// googLeNet is Szegedy et al. 2014 (arXiv 1409.4842) as torchvision builds it:
// with batch norms, and 3x3 kernels in the branch that the paper draws as 5x5.
// The auxiliary classifiers, which serve training, are absent.
func googLeNet(b *builder, size int) {
	b.eps = 1e-3
	pool := func(x *model.Value, k, stride, pad int) *model.Value {
		y := b.pool("MaxPool", x, k, stride, pad, model.Attrs{"ceil_mode": 1})
		b.moments[y] = b.moments[x].scaled(1.5)
		return y
	}
	inception := func(x *model.Value, name string, c [6]int) *model.Value {
		return b.concat(1,
			b.branch(x, name+".branch1", conv{out: c[0], k: 1}),
			b.branch(x, name+".branch2", conv{out: c[1], k: 1}, conv{out: c[2], k: 3}),
			b.branch(x, name+".branch3", conv{out: c[3], k: 1}, conv{out: c[4], k: 3}),
			b.branch(pool(x, 3, 1, 1), name+".branch4", conv{out: c[5], k: 1}))
	}
	x := b.image(size)
	x = pool(b.branch(x, "conv1", conv{out: 64, k: 7, stride: 2}), 3, 2, 0)
	x = pool(b.branch(x, "conv2", conv{out: 64, k: 1}, conv{out: 192, k: 3}), 3, 2, 0)
	x = inception(x, "inception3a", [6]int{64, 96, 128, 16, 32, 32})
	x = pool(inception(x, "inception3b", [6]int{128, 128, 192, 32, 96, 64}), 3, 2, 0)
	x = inception(x, "inception4a", [6]int{192, 96, 208, 16, 48, 64})
	x = inception(x, "inception4b", [6]int{160, 112, 224, 24, 64, 64})
	x = inception(x, "inception4c", [6]int{128, 128, 256, 24, 64, 64})
	x = inception(x, "inception4d", [6]int{112, 144, 288, 32, 64, 64})
	x = pool(inception(x, "inception4e", [6]int{256, 160, 320, 32, 128, 128}), 2, 2, 0)
	x = inception(x, "inception5a", [6]int{256, 160, 320, 32, 128, 128})
	x = inception(x, "inception5b", [6]int{384, 192, 384, 48, 128, 128})
	x = b.flatten(b.globalAvgPool(x))
	b.output(b.linear(x, "fc", 1000), "logits")
}

// inceptionV3 is Szegedy et al. 2015 (arXiv 1512.00567) as torchvision builds
// it, without the auxiliary classifier.
func inceptionV3(b *builder, size int) {
	b.eps = 1e-3
	x := b.image(size)
	x = b.branch(x, "stem.0", conv{out: 32, k: 3, stride: 2, pad: -1}, conv{out: 32, k: 3, pad: -1}, conv{out: 64, k: 3})
	x = b.maxPool(x, 3, 2, 0)
	x = b.branch(x, "stem.1", conv{out: 80, k: 1}, conv{out: 192, k: 3, pad: -1})
	x = b.maxPool(x, 3, 2, 0)
	for i, features := range []int{32, 64, 64} {
		name := fmt.Sprintf("mixed_5%c", 'b'+i)
		x = b.concat(1,
			b.branch(x, name+".branch1x1", conv{out: 64, k: 1}),
			b.branch(x, name+".branch5x5", conv{out: 48, k: 1}, conv{out: 64, k: 5}),
			b.branch(x, name+".branch3x3dbl", conv{out: 64, k: 1}, conv{out: 96, k: 3}, conv{out: 96, k: 3}),
			b.branch(b.avgPool(x, 3, 1, 1), name+".branch_pool", conv{out: features, k: 1}))
	}
	x = b.concat(1,
		b.branch(x, "mixed_6a.branch3x3", conv{out: 384, k: 3, stride: 2, pad: -1}),
		b.branch(x, "mixed_6a.branch3x3dbl", conv{out: 64, k: 1}, conv{out: 96, k: 3}, conv{out: 96, k: 3, stride: 2, pad: -1}),
		b.maxPool(x, 3, 2, 0))
	for i, c := range []int{128, 160, 160, 192} {
		name := fmt.Sprintf("mixed_6%c", 'b'+i)
		x = b.concat(1,
			b.branch(x, name+".branch1x1", conv{out: 192, k: 1}),
			b.branch(x, name+".branch7x7", conv{out: c, k: 1}, conv{out: c, k: 1, kw: 7}, conv{out: 192, k: 7, kw: 1}),
			b.branch(x, name+".branch7x7dbl", conv{out: c, k: 1}, conv{out: c, k: 7, kw: 1}, conv{out: c, k: 1, kw: 7},
				conv{out: c, k: 7, kw: 1}, conv{out: 192, k: 1, kw: 7}),
			b.branch(b.avgPool(x, 3, 1, 1), name+".branch_pool", conv{out: 192, k: 1}))
	}
	x = b.concat(1,
		b.branch(x, "mixed_7a.branch3x3", conv{out: 192, k: 1}, conv{out: 320, k: 3, stride: 2, pad: -1}),
		b.branch(x, "mixed_7a.branch7x7x3", conv{out: 192, k: 1}, conv{out: 192, k: 1, kw: 7}, conv{out: 192, k: 7, kw: 1},
			conv{out: 192, k: 3, stride: 2, pad: -1}),
		b.maxPool(x, 3, 2, 0))
	for i := range 2 {
		name := fmt.Sprintf("mixed_7%c", 'b'+i)
		fork := func(x *model.Value, name string) *model.Value {
			return b.concat(1, b.branch(x, name+"a", conv{out: 384, k: 1, kw: 3}), b.branch(x, name+"b", conv{out: 384, k: 3, kw: 1}))
		}
		x = b.concat(1,
			b.branch(x, name+".branch1x1", conv{out: 320, k: 1}),
			fork(b.branch(x, name+".branch3x3_1", conv{out: 384, k: 1}), name+".branch3x3_2"),
			fork(b.branch(x, name+".branch3x3dbl", conv{out: 448, k: 1}, conv{out: 384, k: 3}), name+".branch3x3dbl_3"),
			b.branch(b.avgPool(x, 3, 1, 1), name+".branch_pool", conv{out: 192, k: 1}))
	}
	x = b.flatten(b.globalAvgPool(x))
	b.output(b.linear(x, "fc", 1000), "logits")
}
