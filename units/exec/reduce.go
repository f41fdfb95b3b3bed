package exec

import (
	"slices"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

var reduceOps = map[model.Op]kernels.ReduceOp{
	"ReduceSum": kernels.ReduceSum, "ReduceMean": kernels.ReduceMean, "ReduceMax": kernels.ReduceMax,
	"ReduceMin": kernels.ReduceMin, "ReduceProd": kernels.ReduceProd, "ReduceL1": kernels.ReduceL1,
	"ReduceL2": kernels.ReduceL2, "ReduceSumSquare": kernels.ReduceSumSquare, "ReduceLogSumExp": kernels.ReduceLogSumExp,
}

func init() {
	for op := range reduceOps {
		register(compileReduce, op)
	}
}

// compileReduce handles reductions over adjacent axes; a mean over the pixels
// of a channel-blocked tensor is a global pool.
func compileReduce(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	if !isFloat(x) || !known(x, out) || x.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	axes, ok := b.constInts(n.In(1))
	if !ok {
		if n.In(1) != nil {
			return 0, errNoKernel
		}
		axes = slices.Clone(n.Attrs.Ints("axes", nil))
	}
	if len(axes) == 0 {
		if n.Attrs.Int("noop_with_empty_axes", 0) != 0 {
			return 0, errNoKernel
		}
		for i := range x.Shape {
			axes = append(axes, i)
		}
	}
	for i, a := range axes {
		if axes[i], ok = normAxis(a, len(x.Shape)); !ok {
			return 0, errNoKernel
		}
	}
	slices.Sort(axes)
	axes = slices.Compact(axes)
	if len(axes) == 0 || axes[len(axes)-1]-axes[0] != len(axes)-1 {
		return 0, errNoKernel
	}
	lo, hi := axes[0], axes[len(axes)-1]+1
	if lay, _ := b.peek(x); lay == c16 && lo == 2 && hi == len(x.Shape) && n.Op == "ReduceMean" {
		images, c, h, w, _ := dims4(x.Shape)
		keep := slices.Clone(x.Shape)
		for i := 2; i < len(keep); i++ {
			keep[i] = 1
		}
		return b.globalMean(nodes, images, c, h, w, keep)
	}
	outer, mid, inner := elems(x.Shape[:lo]), elems(x.Shape[lo:hi]), elems(x.Shape[hi:])
	op := reduceOps[n.Op]
	return b.rows(nodes, func(k *kernels.Ctx, dst, src []float32) { kernels.Reduce(k, op, dst, src, outer, mid, inner) })
}

// globalMean is a global average pool whose output drops the pixel axes when
// the node does not keep them.
func (b *builder) globalMean(nodes []*model.Node, images, c, h, w int, keep model.Shape) (int, error) {
	n := nodes[0]
	t := b.fuseQuantize(nodes)
	src, err := b.float(n.In(0), c16)
	if err != nil {
		return 0, err
	}
	dst := b.newFloat(keep, c16)
	round := b.num.Round
	b.emit(func(s *state) error {
		d := s.f32(dst)
		kernels.GlobalAvgPoolC16(s.k, d, s.f32(src), images, c, h, w)
		kernels.Finish(s.k, d, kernels.Activation{}, round)
		return nil
	}, []*ten{dst}, []*ten{src})
	res := dst
	if out := n.Outputs[0]; !out.Shape.Equal(keep) {
		if res, err = b.relayout(dst, keep, plain); err != nil {
			return 0, err
		}
		res = reshaped(res, out.Shape)
	}
	b.store(t, res)
	return t.used, nil
}
