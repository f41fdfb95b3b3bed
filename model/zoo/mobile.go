package zoo

import (
	"fmt"
	"math"

	"github.com/triune-sim/triune/model"
)

// squeezeExcite scales channels by a gate: global average, 1x1 down, f, 1x1
// up, gate (Hu et al. 2017, arXiv 1709.01507).
func (b *builder) squeezeExcite(x *model.Value, name string, squeeze int, f, gate act) *model.Value {
	s := b.globalAvgPool(x)
	s = f(b, b.conv(s, name+".fc1", conv{out: squeeze, k: 1, bias: true}))
	s = gate(b, b.conv(s, name+".fc2", conv{out: x.Shape[1], k: 1, bias: true}))
	return b.mul(x, s)
}

// v3 is one block of MobileNetV3: kernel, expanded channels, output channels,
// squeeze-and-excite, hard swish, stride.
type v3 struct {
	k, exp, out int
	se, hs      bool
	stride      int
}

var (
	mobileNetV3Large = []v3{
		{3, 16, 16, false, false, 1},
		{3, 64, 24, false, false, 2}, {3, 72, 24, false, false, 1},
		{5, 72, 40, true, false, 2}, {5, 120, 40, true, false, 1}, {5, 120, 40, true, false, 1},
		{3, 240, 80, false, true, 2}, {3, 200, 80, false, true, 1}, {3, 184, 80, false, true, 1}, {3, 184, 80, false, true, 1},
		{3, 480, 112, true, true, 1}, {3, 672, 112, true, true, 1},
		{5, 672, 160, true, true, 2}, {5, 960, 160, true, true, 1}, {5, 960, 160, true, true, 1},
	}
	mobileNetV3Small = []v3{
		{3, 16, 16, true, false, 2},
		{3, 72, 24, false, false, 2}, {3, 88, 24, false, false, 1},
		{5, 96, 40, true, true, 2}, {5, 240, 40, true, true, 1}, {5, 240, 40, true, true, 1},
		{5, 120, 48, true, true, 1}, {5, 144, 48, true, true, 1},
		{5, 288, 96, true, true, 2}, {5, 576, 96, true, true, 1}, {5, 576, 96, true, true, 1},
	}
)

// mobileNetV3 is Howard et al. 2019 (arXiv 1905.02244) as torchvision builds
// it.
func mobileNetV3(blocks []v3, last int) func(b *builder, size int) {
	return func(b *builder, size int) {
		b.eps = 1e-3
		x := b.image(size)
		x = hardSwish(b, b.convBN(x, "features.0", conv{out: 16, k: 3, stride: 2}, false))
		for i, c := range blocks {
			name := fmt.Sprintf("features.%d.block", i+1)
			f := act(relu)
			if c.hs {
				f = hardSwish
			}
			in, y := x, x
			if c.exp != in.Shape[1] {
				y = f(b, b.convBN(y, name+".expand", conv{out: c.exp, k: 1}, false))
			}
			y = f(b, b.convBN(y, name+".depthwise", conv{out: c.exp, k: c.k, stride: c.stride, groups: c.exp}, false))
			if c.se {
				y = b.squeezeExcite(y, name+".se", makeDivisible(float64(c.exp/4), 8, 8), relu, hardSigmoid)
			}
			residual := c.stride == 1 && in.Shape[1] == c.out
			x = b.convBN(y, name+".project", conv{out: c.out, k: 1}, residual)
			if residual {
				x = b.add(x, in)
			}
		}
		x = hardSwish(b, b.convBN(x, fmt.Sprintf("features.%d", len(blocks)+1), conv{out: 6 * x.Shape[1], k: 1}, false))
		x = b.flatten(b.globalAvgPool(x))
		x = hardSwish(b, b.linear(x, "classifier.0", last))
		b.output(b.linear(x, "classifier.3", 1000), "logits")
	}
}

// mbConv is one stage of EfficientNet: expansion, kernel, stride, output
// channels, layers; fused stages replace expansion and depthwise convolution
// by one dense convolution.
type mbConv struct {
	expand, k, stride, out, layers int
	fused                          bool
}

var efficientNetB = []mbConv{{1, 3, 1, 16, 1, false}, {6, 3, 2, 24, 2, false}, {6, 5, 2, 40, 2, false}, {6, 3, 2, 80, 3, false},
	{6, 5, 1, 112, 3, false}, {6, 5, 2, 192, 4, false}, {6, 3, 1, 320, 1, false}}

// efficientNet is Tan and Le 2019 (arXiv 1905.11946) as torchvision builds it,
// scaled in width and depth.
func efficientNet(width, depth, eps float64) func(b *builder, size int) {
	stages := make([]mbConv, len(efficientNetB))
	for i, s := range efficientNetB {
		s.out = makeDivisible(float64(s.out)*width, 8, 8)
		s.layers = int(math.Ceil(float64(s.layers) * depth))
		stages[i] = s
	}
	return efficientNetOf(makeDivisible(32*width, 8, 8), stages, 4*stages[len(stages)-1].out, eps)
}

// efficientNetV2S is Tan and Le 2021 (arXiv 2104.00298), small.
func efficientNetV2S() func(b *builder, size int) {
	return efficientNetOf(24, []mbConv{{1, 3, 1, 24, 2, true}, {4, 3, 2, 48, 4, true}, {4, 3, 2, 64, 4, true},
		{4, 3, 2, 128, 6, false}, {6, 3, 1, 160, 9, false}, {6, 3, 2, 256, 15, false}}, 1280, 1e-3)
}

func efficientNetOf(stem int, stages []mbConv, last int, eps float64) func(b *builder, size int) {
	return func(b *builder, size int) {
		b.eps = eps
		x := b.image(size)
		x = swish(b, b.convBN(x, "features.0", conv{out: stem, k: 3, stride: 2}, false))
		for s, c := range stages {
			for i := range c.layers {
				if i > 0 {
					c.stride = 1
				}
				x = b.mbConv(x, fmt.Sprintf("features.%d.%d.block", s+1, i), c)
			}
		}
		x = swish(b, b.convBN(x, fmt.Sprintf("features.%d", len(stages)+1), conv{out: last, k: 1}, false))
		x = b.flatten(b.globalAvgPool(x))
		b.output(b.linear(x, "classifier.1", 1000), "logits")
	}
}

func (b *builder) mbConv(x *model.Value, name string, c mbConv) *model.Value {
	in := x.Shape[1]
	residual := c.stride == 1 && in == c.out
	exp := makeDivisible(float64(in*c.expand), 8, 8)
	y := x
	switch {
	case c.fused && exp == in:
		y = swish(b, b.convBN(y, name+".0", conv{out: c.out, k: c.k, stride: c.stride}, residual))
		if residual {
			y = b.add(y, x)
		}
		return y
	case c.fused:
		y = swish(b, b.convBN(y, name+".0", conv{out: exp, k: c.k, stride: c.stride}, false))
	default:
		if exp != in {
			y = swish(b, b.convBN(y, name+".expand", conv{out: exp, k: 1}, false))
		}
		y = swish(b, b.convBN(y, name+".depthwise", conv{out: exp, k: c.k, stride: c.stride, groups: exp}, false))
		y = b.squeezeExcite(y, name+".se", max(1, in/4), swish, sigmoid)
	}
	y = b.convBN(y, name+".project", conv{out: c.out, k: 1}, residual)
	if residual {
		y = b.add(y, x)
	}
	return y
}

// mobileOne is Vasu et al. 2022 (arXiv 2206.04040) in its deployed form: the
// training-time branches are merged into one biased convolution each.
func mobileOne(se bool, width ...float64) func(b *builder, size int) {
	return func(b *builder, size int) {
		x := b.image(size)
		block := func(x *model.Value, name string, c conv, gated bool) *model.Value {
			c.bias = true
			x = b.conv(x, name+".reparam_conv", c)
			if gated {
				x = b.squeezeExcite(x, name+".se", x.Shape[1]/16, relu, sigmoid)
			}
			return relu(b, x)
		}
		x = block(x, "stage0", conv{out: min(64, int(64*width[0])), k: 3, stride: 2}, false)
		for s, n := range []int{2, 8, 10, 1} {
			gates := 0
			if se && s == 2 {
				gates = n / 2
			} else if se && s == 3 {
				gates = n
			}
			for i := range n {
				stride := 1
				if i == 0 {
					stride = 2
				}
				gated := i >= n-gates
				in := x.Shape[1]
				x = block(x, fmt.Sprintf("stage%d.%d", s+1, 2*i), conv{out: in, k: 3, stride: stride, groups: in}, gated)
				x = block(x, fmt.Sprintf("stage%d.%d", s+1, 2*i+1), conv{out: int(float64(int(64)<<s) * width[s]), k: 1}, gated)
			}
		}
		x = b.flatten(b.globalAvgPool(x))
		b.output(b.linear(x, "linear", 1000), "logits")
	}
}

// mobileNetV1 is Howard et al. 2017 (arXiv 1704.04861).
func mobileNetV1(b *builder, size int) {
	x := b.image(size)
	x = relu6(b, b.convBN(x, "features.0", conv{out: 32, k: 3, stride: 2}, false))
	for i, s := range [][2]int{{64, 1}, {128, 2}, {128, 1}, {256, 2}, {256, 1}, {512, 2}, {512, 1}, {512, 1}, {512, 1}, {512, 1}, {512, 1}, {1024, 2}, {1024, 1}} {
		name := fmt.Sprintf("features.%d", i+1)
		in := x.Shape[1]
		x = relu6(b, b.convBN(x, name+".depthwise", conv{out: in, k: 3, stride: s[1], groups: in}, false))
		x = relu6(b, b.convBN(x, name+".pointwise", conv{out: s[0], k: 1}, false))
	}
	x = b.flatten(b.globalAvgPool(x))
	b.output(b.linear(x, "classifier", 1000), "logits")
}

// mnasNet is Tan et al. 2018 (arXiv 1807.11626), B1 at width 1.0, as
// torchvision builds it.
func mnasNet(b *builder, size int) {
	x := b.image(size)
	x = relu(b, b.convBN(x, "stem.conv", conv{out: 32, k: 3, stride: 2}, false))
	x = relu(b, b.convBN(x, "stem.depthwise", conv{out: 32, k: 3, groups: 32}, false))
	x = b.convBN(x, "stem.pointwise", conv{out: 16, k: 1}, false)
	for s, c := range []mbConv{{3, 3, 2, 24, 3, false}, {3, 5, 2, 40, 3, false}, {6, 5, 2, 80, 3, false}, {6, 3, 1, 96, 2, false},
		{6, 5, 2, 192, 4, false}, {6, 3, 1, 320, 1, false}} {
		for i := range c.layers {
			name := fmt.Sprintf("stack%d.%d", s, i)
			stride := 1
			if i == 0 {
				stride = c.stride
			}
			mid := x.Shape[1] * c.expand
			y := relu(b, b.convBN(x, name+".expand", conv{out: mid, k: 1}, false))
			y = relu(b, b.convBN(y, name+".depthwise", conv{out: mid, k: c.k, stride: stride, groups: mid}, false))
			y = b.convBN(y, name+".project", conv{out: c.out, k: 1}, i > 0)
			if i > 0 {
				y = b.add(y, x)
			}
			x = y
		}
	}
	x = relu(b, b.convBN(x, "head", conv{out: 1280, k: 1}, false))
	x = b.flatten(b.globalAvgPool(x))
	b.output(b.linear(x, "classifier.1", 1000), "logits")
}

// shuffleNetV2 is Ma et al. 2018 (arXiv 1807.11164), width 1.0, as torchvision
// builds it: half of the channels pass a block untouched, then the halves
// interleave (a reshape, a transpose and a reshape).
func shuffleNetV2(b *builder, size int) {
	x := b.image(size)
	x = relu(b, b.convBN(x, "conv1", conv{out: 24, k: 3, stride: 2}, false))
	x = b.maxPool(x, 3, 2, 1)
	for s, st := range [][2]int{{116, 4}, {232, 8}, {464, 4}} {
		for i := range st[1] {
			name := fmt.Sprintf("stage%d.%d", s+2, i)
			half, stride := st[0]/2, 1
			left, right := x, x
			if i == 0 {
				stride = 2
				in := x.Shape[1]
				left = b.convBN(left, name+".branch1.depthwise", conv{out: in, k: 3, stride: 2, groups: in}, false)
				left = relu(b, b.convBN(left, name+".branch1.pointwise", conv{out: half, k: 1}, false))
			} else {
				parts := b.split(x, 1, half, half)
				left, right = parts[0], parts[1]
			}
			right = relu(b, b.convBN(right, name+".branch2.0", conv{out: half, k: 1}, false))
			right = b.convBN(right, name+".branch2.1", conv{out: half, k: 3, stride: stride, groups: half}, false)
			right = relu(b, b.convBN(right, name+".branch2.2", conv{out: half, k: 1}, false))
			x = b.concat(1, left, right)
			h, w := x.Shape[2], x.Shape[3]
			x = b.transpose(b.reshape(x, 1, 2, half, h, w), 0, 2, 1, 3, 4)
			x = b.reshape(x, 1, 2*half, h, w)
		}
	}
	x = relu(b, b.convBN(x, "conv5", conv{out: 1024, k: 1}, false))
	x = b.flatten(b.globalAvgPool(x))
	b.output(b.linear(x, "fc", 1000), "logits")
}
