package zoo

import (
	"fmt"

	"github.com/triune-sim/triune/model"
)

// makeDivisible rounds v to a multiple of d, at least lo, and never below 90 %
// of v (the rule of the MobileNet reference code).
func makeDivisible(v float64, d, lo int) int {
	n := max(lo, int(v+float64(d)/2)/d*d)
	if float64(n) < 0.9*v {
		n += d
	}
	return n
}

// mobileNetV2 is Sandler et al. 2018 (arXiv 1801.04381) as torchvision builds
// it: ReLU6, widths rounded to multiples of 8, a last layer of at least 1280
// channels.
func mobileNetV2(width float64) func(b *builder, size int) {
	return func(b *builder, size int) {
		x := b.image(size)
		c := makeDivisible(32*width, 8, 8)
		x = relu6(b, b.convBN(x, "features.0", conv{out: c, k: 3, stride: 2}, false))
		i := 1
		for _, s := range [][4]int{{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}} {
			out := makeDivisible(float64(s[1])*width, 8, 8)
			for j := range s[2] {
				stride := 1
				if j == 0 {
					stride = s[3]
				}
				x = b.invertedResidual(x, fmt.Sprintf("features.%d.conv", i), s[0], out, stride, relu6)
				i++
			}
		}
		last := makeDivisible(1280*max(1, width), 8, 8)
		x = relu6(b, b.convBN(x, fmt.Sprintf("features.%d", i), conv{out: last, k: 1}, false))
		x = b.flatten(b.globalAvgPool(x))
		b.output(b.linear(x, "classifier.1", 1000), "logits")
	}
}

// invertedResidual is MobileNetV2's block: 1x1 expansion (absent when the
// factor is 1), 3x3 depthwise, linear 1x1, and a residual add where the shapes
// allow it.
func (b *builder) invertedResidual(x *model.Value, name string, expand, out, stride int, f act) *model.Value {
	in := x.Shape[1]
	hidden := in * expand
	y, i := x, 0
	if expand != 1 {
		y = f(b, b.convBN(y, name+".0", conv{out: hidden, k: 1}, false))
		i++
	}
	y = f(b, b.convBN(y, fmt.Sprintf("%s.%d", name, i), conv{out: hidden, k: 3, stride: stride, groups: hidden}, false))
	residual := stride == 1 && in == out
	y = b.bn(b.conv(y, fmt.Sprintf("%s.%d", name, i+1), conv{out: out, k: 1}), fmt.Sprintf("%s.%d", name, i+2), residual)
	if residual {
		y = b.add(x, y)
	}
	return y
}
