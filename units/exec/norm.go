package exec

import (
	"math"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

func init() {
	register(compileSoftmax, "Softmax")
	register(compileLayerNorm, "LayerNormalization")
	register(compileRMSNorm, "RMSNormalization")
	register(compileGroupNorm, "GroupNormalization", "InstanceNormalization")
	register(compileBatchNorm, "BatchNormalization")
}

// split3 views a shape around an axis as [outer][axis][inner].
func split3(s model.Shape, axis int) (outer, mid, inner int) {
	return elems(s[:axis]), s[axis], elems(s[axis+1:])
}

func normAxis(axis, rank int) (int, bool) {
	if axis < 0 {
		axis += rank
	}
	return axis, axis >= 0 && axis < rank
}

// rows compiles a function from a plain tensor to a plain tensor in the shape
// of the node's output, with rounding and a fused quantize.
func (b *builder) rows(nodes []*model.Node, f func(k *kernels.Ctx, dst, src []float32)) (int, error) {
	n := nodes[0]
	t := b.fuseQuantize(nodes)
	src, err := b.float(n.In(0), plain)
	if err != nil {
		return 0, err
	}
	dst := b.newFloat(n.Outputs[0].Shape, plain)
	round := b.num.Round
	b.emit(func(s *state) error {
		d := s.f32(dst)
		f(s.k, d, s.f32(src))
		kernels.Finish(s.k, d, kernels.Activation{}, round)
		return nil
	}, []*ten{dst}, []*ten{src})
	b.store(t, dst)
	return t.used, nil
}

func compileSoftmax(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x := n.In(0)
	if !isFloat(x) || !known(x, n.Outputs[0]) || x.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	axis, ok := normAxis(n.Attrs.Int("axis", -1), len(x.Shape))
	if !ok {
		return 0, errNoKernel
	}
	outer, mid, inner := split3(x.Shape, axis)
	return b.rows(nodes, func(k *kernels.Ctx, dst, src []float32) { kernels.Softmax(k, dst, src, outer, mid, inner) })
}

// constRow returns an optional constant operand of exactly n values.
func (b *builder) constRow(v *model.Value, n int) ([]float32, bool) {
	if v == nil {
		return nil, true
	}
	if v.Const == nil || v.Const.Elems() != int64(n) {
		return nil, false
	}
	f, err := b.constFloats(v)
	return f, err == nil
}

func compileLayerNorm(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x := n.In(0)
	if !isFloat(x) || !known(x, n.Outputs[0]) || x.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	for _, o := range n.Outputs[1:] {
		if o != nil {
			return 0, errNoKernel
		}
	}
	axis, ok := normAxis(n.Attrs.Int("axis", -1), len(x.Shape))
	if !ok {
		return 0, errNoKernel
	}
	rows, cols := elems(x.Shape[:axis]), elems(x.Shape[axis:])
	gamma, ok1 := b.constRow(n.In(1), cols)
	beta, ok2 := b.constRow(n.In(2), cols)
	if !ok1 || !ok2 {
		return 0, errNoKernel
	}
	eps := float32(n.Attrs.Float("epsilon", 1e-5))
	return b.rows(nodes, func(k *kernels.Ctx, dst, src []float32) {
		kernels.LayerNorm(k, dst, src, rows, cols, gamma, beta, eps)
	})
}

func compileRMSNorm(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x := n.In(0)
	if !isFloat(x) || !known(x, n.Outputs[0]) || x.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	axis, ok := normAxis(n.Attrs.Int("axis", -1), len(x.Shape))
	if !ok {
		return 0, errNoKernel
	}
	cols := elems(x.Shape[axis:])
	gamma, ok := b.constRow(n.In(1), cols)
	if !ok {
		return 0, errNoKernel
	}
	eps := n.Attrs.Float("epsilon", 1e-5)
	return b.rows(nodes, func(_ *kernels.Ctx, dst, src []float32) {
		for len(dst) > 0 {
			row, out := src[:cols], dst[:cols]
			var sum [4]float64
			for i, v := range row {
				sum[i&3] += float64(v) * float64(v)
			}
			inv := float32(1 / math.Sqrt((sum[0]+sum[1]+sum[2]+sum[3])/float64(cols)+eps))
			for i, v := range row {
				out[i] = v * inv
				if gamma != nil {
					out[i] *= gamma[i]
				}
			}
			src, dst = src[cols:], dst[cols:]
		}
	})
}

func compileGroupNorm(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x := n.In(0)
	if !isFloat(x) || !known(x, n.Outputs[0]) || x.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	images, c, h, w, ok := dims4(x.Shape)
	groups := c
	if n.Op == "GroupNormalization" {
		groups = n.Attrs.Int("num_groups", 0)
	}
	if !ok || groups < 1 || c%groups != 0 {
		return 0, errNoKernel
	}
	gamma, ok1 := b.constRow(n.In(1), c)
	beta, ok2 := b.constRow(n.In(2), c)
	if !ok1 || !ok2 {
		return 0, errNoKernel
	}
	eps := float32(n.Attrs.Float("epsilon", 1e-5))
	return b.pooled(nodes, func(k *kernels.Ctx, dst, src []float32) {
		kernels.GroupNormC16(k, dst, src, images, c, h, w, groups, gamma, beta, eps)
	})
}

// compileBatchNorm runs a batch norm that was not folded as a 1x1 depthwise
// convolution: one multiply and one add per element.
func compileBatchNorm(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x := n.In(0)
	if !isFloat(x) || !known(x, n.Outputs[0]) || x.Shape.Elems() < 1 || n.Attrs.Int("training_mode", 0) != 0 {
		return 0, errNoKernel
	}
	images, c, h, w, ok := dims4(x.Shape)
	if !ok {
		return 0, errNoKernel
	}
	var p [4][]float32
	for i := range p {
		v := n.In(1 + i)
		if v == nil {
			return 0, errNoKernel
		}
		if p[i], ok = b.constRow(v, c); !ok {
			return 0, errNoKernel
		}
	}
	eps := n.Attrs.Float("epsilon", 1e-5)
	scale, shift := make([]float32, c), make([]float32, c)
	for i := range scale {
		k := float64(p[0][i]) / math.Sqrt(float64(p[3][i])+eps)
		scale[i], shift[i] = float32(k), float32(float64(p[1][i])-float64(p[2][i])*k)
	}
	conv, err := kernels.NewConvF32(kernels.ConvShape{InC: c, OutC: c, InH: h, InW: w, KH: 1, KW: 1, Groups: c}, scale, kernels.Epilogue{Bias: shift})
	if err != nil {
		return 0, err
	}
	b.prog.weights += int64(conv.WeightBytes())
	b.needScratch(conv.ScratchBytes())
	return b.pooled(nodes, func(k *kernels.Ctx, dst, src []float32) { conv.Run(k, dst, src, nil, images) })
}
