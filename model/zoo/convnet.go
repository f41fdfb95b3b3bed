package zoo

import (
	"fmt"
	"math"

	"github.com/triune-sim/triune/model"
)

// convNeXt is Liu et al. 2022 (arXiv 2201.03545) as torchvision builds it:
// layer norms over channels between transposes, fully connected layers on the
// channels-last tensor, a scale per channel at the end of every block.
func convNeXt(width int, depths ...int) func(b *builder, size int) {
	return func(b *builder, size int) {
		x := b.image(size)
		x = b.norm2d(b.conv(x, "features.0.0", conv{out: width, k: 4, stride: 4, pad: -1, bias: true}), "features.0.1")
		for s, n := range depths {
			c := width << s
			if s > 0 {
				name := fmt.Sprintf("features.%d", 2*s)
				x = b.conv(b.norm2d(x, name+".0"), name+".1", conv{out: c, k: 2, stride: 2, pad: -1, bias: true})
			}
			for i := range n {
				name := fmt.Sprintf("features.%d.%d", 2*s+1, i)
				y := b.conv(x, name+".block.0", conv{out: c, k: 7, groups: c, bias: true})
				y = b.layerNorm(b.transpose(y, 0, 2, 3, 1), name+".block.2", 1e-6)
				y = gelu(b, b.project(y, name+".block.3", 4*c, true))
				y = b.transpose(b.project(y, name+".block.5", c, true), 0, 3, 1, 2)
				scale := b.uniform(name+".layer_scale", 0.1, 0.5, c, 1, 1)
				b.moments[scale] = moment{0.1, 0.1}
				x = b.add(b.mul(y, scale), x)
			}
		}
		x = b.flatten(b.norm2d(b.globalAvgPool(x), "classifier.0"))
		b.output(b.linear(x, "classifier.2", 1000), "logits")
	}
}

// norm2d is a layer norm over the channels of an NCHW tensor, as frameworks
// export it: to channels last and back.
func (b *builder) norm2d(x *model.Value, name string) *model.Value {
	return b.transpose(b.layerNorm(b.transpose(x, 0, 2, 3, 1), name, 1e-6), 0, 3, 1, 2)
}

// regNetY is Radosavovic et al. 2020 (arXiv 2003.13678) as torchvision builds
// it: widths follow w0 + wa*i, quantised to powers of wm and multiples of 8;
// grouped bottlenecks of ratio 1 with squeeze-and-excite.
func regNetY(depth, w0 int, wa, wm float64, group int) func(b *builder, size int) {
	return func(b *builder, size int) {
		x := b.image(size)
		x = relu(b, b.convBN(x, "stem", conv{out: 32, k: 3, stride: 2}, false))
		stage, block, prev := 0, 0, 0
		for i := range depth {
			step := math.RoundToEven(math.Log((float64(w0)+wa*float64(i))/float64(w0)) / math.Log(wm))
			raw := int(math.RoundToEven(float64(w0)*math.Pow(wm, step)/8)) * 8
			stride := 1
			if raw != prev {
				stage, block, prev, stride = stage+1, 0, raw, 2
			}
			g := min(group, raw)
			w := makeDivisible(float64(raw), g, g)
			x = b.regNetBlock(x, fmt.Sprintf("trunk_output.block%d.%d", stage, block), w, stride, w/g)
			block++
		}
		x = b.flatten(b.globalAvgPool(x))
		b.output(b.linear(x, "fc", 1000), "logits")
	}
}

func (b *builder) regNetBlock(x *model.Value, name string, w, stride, groups int) *model.Value {
	in := x.Shape[1]
	y := relu(b, b.convBN(x, name+".f.a", conv{out: w, k: 1}, false))
	y = relu(b, b.convBN(y, name+".f.b", conv{out: w, k: 3, stride: stride, groups: groups}, false))
	y = b.squeezeExcite(y, name+".f.se", int(math.RoundToEven(0.25*float64(in))), relu, sigmoid)
	y = b.convBN(y, name+".f.c", conv{out: w, k: 1}, true)
	if in != w || stride != 1 {
		x = b.convBN(x, name+".proj", conv{out: w, k: 1, stride: stride}, false)
	}
	return relu(b, b.add(x, y))
}
