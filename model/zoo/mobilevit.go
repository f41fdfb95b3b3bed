package zoo

import (
	"fmt"

	"github.com/triune-sim/triune/model"
)

// mobileViTv2 is Mehta and Rastegari 2022 (arXiv 2206.02680), in the form that
// its reference code exports for Core ML: unfolding into 2x2 patches is a
// grouped 2x2/2 convolution with constant (identity) weights, folding back is
// a pixel shuffle, attention and feed-forward layers are 1x1 convolutions on
// [1,d,4,patches]. Layer norms are over channels and space at once: a group
// norm of one group.
func mobileViTv2(width float64) func(b *builder, size int) {
	div := func(c, d, lo int) int { return makeDivisible(float64(c)*width, d, lo) }
	return func(b *builder, size int) {
		x := b.image(size)
		stem := makeDivisible(min(64, max(16, 32*width)), 8, 16)
		x = swish(b, b.convBN(x, "conv_1", conv{out: stem, k: 3, stride: 2}, false))
		x = b.mobileNetBlock(x, "layer_1.0", div(64, 16, 16), 1)
		x = b.mobileNetBlock(x, "layer_2.0", div(128, 8, 8), 2)
		x = b.mobileNetBlock(x, "layer_2.1", div(128, 8, 8), 1)
		for i, s := range [][3]int{{256, 128, 2}, {384, 192, 4}, {512, 256, 3}} {
			name := fmt.Sprintf("layer_%d", i+3)
			x = b.mobileNetBlock(x, name+".0", div(s[0], 8, 8), 2)
			x = b.mobileViTv2Block(x, name+".1", div(s[1], 8, 8), s[2])
		}
		x = b.flatten(b.globalAvgPool(x))
		b.output(b.linear(x, "classifier.1", 1000), "logits")
	}
}

// mobileNetBlock is an inverted residual of expansion 2 with SiLU.
func (b *builder) mobileNetBlock(x *model.Value, name string, out, stride int) *model.Value {
	in := x.Shape[1]
	hidden := makeDivisible(float64(2*in), 8, 8)
	y := swish(b, b.convBN(x, name+".exp_1x1", conv{out: hidden, k: 1}, false))
	y = swish(b, b.convBN(y, name+".conv_3x3", conv{out: hidden, k: 3, stride: stride, groups: hidden}, false))
	residual := stride == 1 && in == out
	y = b.convBN(y, name+".red_1x1", conv{out: out, k: 1}, residual)
	if residual {
		y = b.add(x, y)
	}
	return y
}

// mobileViTv2Block is local 3x3 depthwise and 1x1 convolutions, n separable
// attention blocks on 2x2 patches, and a 1x1 convolution back.
func (b *builder) mobileViTv2Block(x *model.Value, name string, d, n int) *model.Value {
	in := x.Shape[1]
	if x.Shape[2]%2 != 0 || x.Shape[3]%2 != 0 {
		fail("zoo: %s: feature map %v does not divide into 2x2 patches; use an input size that is a multiple of 64", b.g.Name, x.Shape)
	}
	y := swish(b, b.convBN(x, name+".local_rep.0", conv{out: in, k: 3, groups: in}, false))
	y = b.conv(y, name+".local_rep.1", conv{out: d, k: 1})
	h, w := y.Shape[2]/2, y.Shape[3]/2
	y = b.unfold(y, name+".unfolding")
	y = b.reshape(y, 1, d, 4, h*w)
	for i := range n {
		y = b.linearAttention(y, fmt.Sprintf("%s.global_rep.%d.pre_norm_attn", name, i))
		y = b.feedForward(y, fmt.Sprintf("%s.global_rep.%d.pre_norm_ffn", name, i))
	}
	y = b.groupNorm(y, fmt.Sprintf("%s.global_rep.%d", name, n))
	y = b.reshape(y, 1, 4*d, h, w)
	y = b.node("DepthToSpace", "", model.Attrs{"blocksize": 2, "mode": "CRD"}, y.DType, model.Shape{1, d, 2 * h, 2 * w}, y)
	return b.convBN(y, name+".conv_proj", conv{out: in, k: 1}, false)
}

// unfold is the grouped 2x2/2 convolution whose output channel 4c+p is pixel p
// of the patches of channel c.
func (b *builder) unfold(x *model.Value, name string) *model.Value {
	c := x.Shape[1]
	shape := model.Shape{4 * c, 1, 2, 2}
	w := b.constant(name+".weight", model.NewLazy(model.Float32, shape, func() (*model.Tensor, error) {
		t := model.NewTensor(model.Float32, shape...)
		v := model.View[float32](t)
		for i := range 4 * c {
			v[4*i+i%4] = 1
		}
		return t, nil
	}))
	y := b.node("Conv", name, model.Attrs{
		"kernel_shape": []int{2, 2}, "strides": []int{2, 2}, "dilations": []int{1, 1}, "pads": []int{0, 0, 0, 0}, "group": c,
	}, x.DType, model.Shape{1, 4 * c, x.Shape[2] / 2, x.Shape[3] / 2}, x, w)
	b.moments[y] = b.moments[x]
	return y
}

// linearAttention is separable self-attention: one 1x1 convolution to a score
// per patch, keys and values; softmax of the scores over patches; their sum
// with the keys is the context, which scales the rectified values.
func (b *builder) linearAttention(x *model.Value, name string) *model.Value {
	d := x.Shape[1]
	y := b.groupNorm(x, name+".0")
	qkv := b.conv(y, name+".1.qkv_proj", conv{out: 1 + 2*d, k: 1, bias: true})
	p := b.split(qkv, 1, 1, d, d)
	context := b.mul(p[1], b.softmax(p[0], -1))
	context = b.reduceSum(context, 3)
	y = b.mul(relu(b, p[2]), context)
	y = b.conv(y, name+".1.out_proj", conv{out: d, k: 1, bias: true})
	b.moments[y] = moment{1, 0}
	return b.add(x, y)
}

func (b *builder) feedForward(x *model.Value, name string) *model.Value {
	d := x.Shape[1]
	y := b.groupNorm(x, name+".0")
	y = swish(b, b.conv(y, name+".1", conv{out: 2 * d, k: 1, bias: true}))
	y = b.conv(y, name+".3", conv{out: d, k: 1, bias: true})
	return b.add(x, y)
}

// groupNorm is a group norm of one group: over channels and space.
func (b *builder) groupNorm(x *model.Value, name string) *model.Value {
	c := x.Shape[1]
	y := b.node("GroupNormalization", name, model.Attrs{"num_groups": 1, "epsilon": 1e-5}, x.DType, x.Shape, x,
		b.uniform(name+".weight", 0.5, 1.5, c), b.normal(name+".bias", 0, 0.1, c))
	b.moments[y] = moment{1.09, 0}
	return y
}

// reduceSum sums over one axis and keeps it.
func (b *builder) reduceSum(x *model.Value, axis int) *model.Value {
	shape := x.Shape.Clone()
	n := float64(shape[axis])
	shape[axis] = 1
	y := b.node("ReduceSum", "", model.Attrs{"keepdims": 1}, x.DType, shape, x, b.vector(axis))
	b.moments[y] = b.moments[x].scaled(n)
	return y
}
