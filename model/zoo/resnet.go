package zoo

import (
	"fmt"

	"github.com/triune-sim/triune/model"
)

// resNet is He et al. 2015 (arXiv 1512.03385) as torchvision builds it. With
// bottleneck blocks the stride sits on the 3x3 convolution ("v1.5").
func resNet(bottleneck bool, blocks ...int) func(b *builder, size int) {
	return resNetOf(bottleneck, 1, 1, blocks...)
}

// resNetOf is a ResNet whose 3x3 convolutions are wider by a factor (Wide
// ResNet, arXiv 1605.07146) and in groups (ResNeXt, arXiv 1611.05431).
func resNetOf(bottleneck bool, wide, groups int, blocks ...int) func(b *builder, size int) {
	return func(b *builder, size int) {
		x := b.image(size)
		x = relu(b, b.bn(b.conv(x, "conv1", conv{out: 64, k: 7, stride: 2}), "bn1", false))
		x = b.maxPool(x, 3, 2, 1)
		for s, n := range blocks {
			for i := range n {
				stride := 1
				if s > 0 && i == 0 {
					stride = 2
				}
				x = b.resBlock(x, fmt.Sprintf("layer%d.%d", s+1, i), 64<<s, wide, groups, stride, bottleneck)
			}
		}
		x = b.flatten(b.globalAvgPool(x))
		b.output(b.linear(x, "fc", 1000), "logits")
	}
}

func (b *builder) resBlock(x *model.Value, name string, width, wide, groups, stride int, bottleneck bool) *model.Value {
	out, y := width, x
	cb := func(y *model.Value, i int, c conv, last bool) *model.Value {
		return b.bn(b.conv(y, fmt.Sprintf("%s.conv%d", name, i), c), fmt.Sprintf("%s.bn%d", name, i), last)
	}
	if bottleneck {
		out = 4 * width
		y = relu(b, cb(y, 1, conv{out: width * wide, k: 1}, false))
		y = relu(b, cb(y, 2, conv{out: width * wide, k: 3, stride: stride, groups: groups}, false))
		y = cb(y, 3, conv{out: out, k: 1}, true)
	} else {
		y = relu(b, cb(y, 1, conv{out: width, k: 3, stride: stride}, false))
		y = cb(y, 2, conv{out: width, k: 3}, true)
	}
	if stride != 1 || x.Shape[1] != out {
		x = b.convBN(x, name+".downsample", conv{out: out, k: 1, stride: stride}, false)
	}
	return relu(b, b.add(x, y))
}
