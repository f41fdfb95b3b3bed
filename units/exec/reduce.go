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
	op := reduceOps[n.Op]
	if lay, _ := b.peek(x); lay == c16 && lo >= 2 && len(out.Shape) >= 2 {
		return b.reducePixels(nodes, op, hi-lo == len(x.Shape)-2, lo-2+4-len(x.Shape), hi-2+4-len(x.Shape))
	}
	outer, mid, inner := elems(x.Shape[:lo]), elems(x.Shape[lo:hi]), elems(x.Shape[hi:])
	return b.rows(nodes, func(k *kernels.Ctx, dst, src []float32) { kernels.Reduce(k, op, dst, src, outer, mid, inner) })
}

// reducePixels reduces rows, columns or both of a channel-blocked tensor: axes
// [lo, hi) of (row, column). With the reduced axes kept or dropped the result
// has the same bytes in the channel-blocked layout.
func (b *builder) reducePixels(nodes []*model.Node, op kernels.ReduceOp, all bool, lo, hi int) (int, error) {
	n := nodes[0]
	t := b.fuseQuantize(nodes)
	src, err := b.float(n.In(0), c16)
	if err != nil {
		return 0, err
	}
	dst := b.newFloat(n.Outputs[0].Shape, c16)
	round := b.num.Round
	axes := []int{src.h, src.w, kernels.Block}
	outer, mid, inner := src.len/(src.h*src.w*kernels.Block), 1, 1
	for i, d := range axes {
		switch {
		case i < lo:
			outer *= d
		case i < hi:
			mid *= d
		default:
			inner *= d
		}
	}
	mean := all && op == kernels.ReduceMean
	b.emit(func(s *state) error {
		d := s.f32(dst)
		if mean {
			kernels.GlobalAvgPoolC16(s.k, d, s.f32(src), src.n, src.c, src.h, src.w)
		} else {
			kernels.Reduce(s.k, op, d, s.f32(src), outer, mid, inner)
		}
		kernels.Finish(s.k, d, kernels.Activation{}, round)
		return nil
	}, []*ten{dst}, []*ten{src})
	b.store(t, dst)
	return t.used, nil
}
