package exec

import (
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

func init() {
	register(compileGemm, "Gemm")
	register(compileMatMul, "MatMul")
}

// compileGemm handles alpha*A*B + beta*C with a constant or computed B.
func compileGemm(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	a, w, c := n.In(0), n.In(1), n.In(2)
	out := n.Outputs[0]
	if !isFloat(a) || !isFloat(w) || !known(a, w, out) || len(a.Shape) != 2 || len(w.Shape) != 2 {
		return 0, errNoKernel
	}
	alpha, beta := float32(n.Attrs.Float("alpha", 1)), float32(n.Attrs.Float("beta", 1))
	transA, transB := n.Attrs.Int("transA", 0) != 0, n.Attrs.Int("transB", 0) != 0
	m, k, cols := out.Shape[0], a.Shape[1], out.Shape[1]
	if transA {
		k = a.Shape[0]
	}
	if m < 1 || k < 1 || cols < 1 {
		return 0, errNoKernel
	}
	bias := noBias
	if c != nil {
		if c.Const == nil || len(c.Shape) > 2 || c.Shape.Elems() != 1 && (c.Shape.Elems() != int64(cols) || c.Shape[len(c.Shape)-1] != cols) {
			return 0, errNoKernel
		}
		bias = func(half bool) ([]float32, error) {
			f, err := b.constAs(c, half)
			if err != nil {
				return nil, err
			}
			row := make([]float32, cols)
			for i := range row {
				row[i] = beta * f[i%len(f)]
			}
			return row, nil
		}
	}
	if w.Const == nil || transA {
		if alpha != 1 {
			return 0, errNoKernel
		}
		return b.matmul(nodes, kernels.MatMulShape{Batch: 1, M: m, N: cols, K: k, TransA: transA, TransB: transB}, bias)
	}
	order := kernels.KN
	if transB {
		order = kernels.NK
	}
	return b.linear(nodes, m, k, cols, order, alpha, bias)
}

// linear compiles A[m][k] x constant W.
func (b *builder) linear(nodes []*model.Node, m, k, cols int, order kernels.WeightOrder, alpha float32, biasOf func(half bool) ([]float32, error)) (int, error) {
	n := nodes[0]
	a, w := n.In(0), n.In(1)
	out := n.Outputs[0]
	t := b.fuse(nodes, len(out.Shape)-1, true)
	if alpha == 1 {
		if used, err := b.linearI8(n, t, m, k, cols, order, biasOf); err != errNoKernel {
			return used, err
		}
	}
	bias, err := biasOf(b.num.Half)
	if err != nil {
		return 0, err
	}
	ep, err := b.epilogue(t, cols, bias, b.num.DotRound, b.num.Half)
	if err != nil {
		return 0, err
	}
	weights, err := b.constFloats(w)
	if err != nil {
		return 0, err
	}
	if alpha != 1 {
		scaled := make([]float32, len(weights))
		for i, v := range weights {
			scaled[i] = alpha * v
		}
		weights = scaled
	}
	lin, err := kernels.NewLinearF32(k, cols, weights, order, ep)
	if err != nil {
		return 0, err
	}
	b.prog.weights += int64(lin.WeightBytes())
	b.needScratch(lin.ScratchBytes())
	src, err := b.float(a, plain)
	if err != nil {
		return 0, err
	}
	ins := []*ten{src}
	var res *ten
	if t.res != nil {
		if res, err = b.float(t.res, plain); err != nil {
			return 0, err
		}
		ins = append(ins, res)
	}
	dst := b.newFloat(out.Shape, plain)
	b.emit(func(s *state) error {
		var r []float32
		if res != nil {
			r = s.f32(res)
		}
		lin.Run(s.k, s.f32(dst), s.f32(src), r, m)
		return nil
	}, []*ten{dst}, ins)
	b.store(t, dst)
	return t.used, nil
}

func (b *builder) linearI8(n *model.Node, t tail, m, k, cols int, order kernels.WeightOrder, biasOf func(half bool) ([]float32, error)) (int, error) {
	d, ok := b.dq[n.In(0)]
	if !ok || !b.num.Int8 {
		return 0, errNoKernel
	}
	axis := 1
	if order == kernels.NK {
		axis = 0
	}
	w, err := b.weightsI8(n.In(1), axis)
	if err != nil {
		return 0, err
	}
	if w == nil {
		return 0, errNoKernel
	}
	bias, err := biasOf(false)
	if err != nil {
		return 0, err
	}
	sum, bias := w.bias(bias, d.q.Scale, k)
	cfg := kernels.LinearI8Config{K: k, N: cols, Weights: w.codes, Order: order, WScale: w.scale, In: d.q}
	if cfg.Epilogue, err = b.epilogue(t, cols, bias, b.num.DotRound, false); err != nil {
		return 0, err
	}
	cfg.Sum = sum
	if t.quant {
		cfg.Out, cfg.Round = t.q, kernels.RoundNone
	}
	lin, err := kernels.NewLinearI8(cfg)
	if err != nil {
		return 0, err
	}
	b.prog.weights += int64(lin.WeightBytes())
	b.needScratch(lin.ScratchBytes())
	src, err := b.codes(d.codes, plain)
	if err != nil {
		return 0, err
	}
	ins := []*ten{src}
	res, err := b.residualI8(t.res, plain)
	if err != nil {
		return 0, err
	}
	if res != nil {
		ins = append(ins, res.t)
	}
	if t.quant {
		dst := b.newCodes(n.Outputs[0].Shape, plain, t.q)
		b.emit(func(s *state) error {
			lin.RunQ8(s.k, s.u8(dst), s.u8(src), res.get(s), m)
			return nil
		}, []*ten{dst}, ins)
		b.add(t.out, dst)
		return t.used, nil
	}
	dst := b.newFloat(n.Outputs[0].Shape, plain)
	b.emit(func(s *state) error {
		lin.RunF32(s.k, s.f32(dst), s.u8(src), res.get(s), m)
		return nil
	}, []*ten{dst}, ins)
	b.add(t.out, dst)
	return t.used, nil
}

// compileMatMul handles constant 2-D right operands as linear layers, and
// products whose batch dimensions are equal or absent on one side.
func compileMatMul(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, y, out := n.In(0), n.In(1), n.Outputs[0]
	if !isFloat(x) || !isFloat(y) || !known(x, y, out) || len(x.Shape) < 2 || len(y.Shape) < 2 || out.Shape.Elems() == 0 {
		return 0, errNoKernel
	}
	m, k, cols := x.Shape[len(x.Shape)-2], x.Shape[len(x.Shape)-1], y.Shape[len(y.Shape)-1]
	if k < 1 {
		return 0, errNoKernel
	}
	if len(y.Shape) == 2 {
		rows := elems(x.Shape) / k
		if y.Const != nil {
			return b.linear(nodes, rows, k, cols, kernels.KN, 1, noBias)
		}
		return b.matmul(nodes, kernels.MatMulShape{Batch: 1, M: rows, N: cols, K: k}, noBias)
	}
	xb, yb := x.Shape[:len(x.Shape)-2], y.Shape[:len(y.Shape)-2]
	batch, ybatch := elems(xb), elems(yb)
	s := kernels.MatMulShape{Batch: batch, M: m, N: cols, K: k}
	switch {
	case ybatch == 1:
		s.Batch, s.M = 1, batch*m
	case !trimOnes(xb).Equal(trimOnes(yb)):
		return 0, errNoKernel
	}
	return b.matmul(nodes, s, noBias)
}

func noBias(bool) ([]float32, error) { return nil, nil }

func trimOnes(s model.Shape) model.Shape {
	for len(s) > 0 && s[0] == 1 {
		s = s[1:]
	}
	return s
}

// matmul compiles a product of two activations (either may be constant).
func (b *builder) matmul(nodes []*model.Node, shape kernels.MatMulShape, biasOf func(half bool) ([]float32, error)) (int, error) {
	n := nodes[0]
	out := n.Outputs[0]
	t := b.fuse(nodes, len(out.Shape)-1, false)
	if used, err := b.matmulI8(nodes, t, shape, biasOf); err != errNoKernel {
		return used, err
	}
	bias, err := biasOf(b.num.Half)
	if err != nil {
		return 0, err
	}
	ep, err := b.epilogue(t, shape.N, bias, b.num.DotRound, b.num.Half)
	if err != nil {
		return 0, err
	}
	x, err := b.float(n.In(0), plain)
	if err != nil {
		return 0, err
	}
	y, err := b.float(n.In(1), plain)
	if err != nil {
		return 0, err
	}
	dst := b.newFloat(out.Shape, plain)
	b.emit(func(s *state) error {
		kernels.MatMulF32(s.k, s.f32(dst), s.f32(x), s.f32(y), shape, ep)
		return nil
	}, []*ten{dst}, []*ten{x, y})
	b.store(t, dst)
	return t.used, nil
}

// matmulI8 compiles a product of two 8-bit activations on a unit with int8
// products. Codes minus zero points are integers of at most 8 bits and a sign,
// so that fp32 holds their products and the sum of K of them exactly while it
// stays below 2^24; longer sums are left to the float product.
func (b *builder) matmulI8(nodes []*model.Node, t tail, shape kernels.MatMulShape, biasOf func(half bool) ([]float32, error)) (int, error) {
	n := nodes[0]
	dx, okX := b.dq[n.In(0)]
	dy, okY := b.dq[n.In(1)]
	if !b.num.Int8 || !okX || !okY || shape.K*reach(dx.q)*reach(dy.q) >= 1<<24 {
		return 0, errNoKernel
	}
	bias, err := biasOf(false)
	if err != nil {
		return 0, err
	}
	ep, err := b.epilogue(t, shape.N, bias, b.num.DotRound, false)
	if err != nil {
		return 0, err
	}
	if t.quant {
		ep.Round = kernels.RoundNone
	}
	var ops [2]*ten
	for i, d := range []dequant{dx, dy} {
		src, err := b.codes(d.codes, plain)
		if err != nil {
			return 0, err
		}
		whole := d.q
		whole.Scale = 1
		ops[i] = b.newFloat(n.In(i).Shape, plain)
		b.emitFlat(src.len, func(s *state, w *worker, lo, hi int) {
			kernels.DequantizeF32(w.k, s.f32(ops[i])[lo:hi], s.u8(src)[lo:hi], whole)
		}, []*ten{ops[i]}, []*ten{src})
	}
	dst := b.newFloat(n.Outputs[0].Shape, plain)
	scale := dx.q.Scale * dy.q.Scale
	row := make([]float32, shape.N)
	copy(row, ep.Bias)
	strides := contiguous([]int{dst.len / shape.N, shape.N})
	b.emit(func(s *state) error {
		d := s.f32(dst)
		kernels.MatMulF32(s.k, d, s.f32(ops[0]), s.f32(ops[1]), shape, kernels.Epilogue{})
		kernels.BinaryScalar(s.k, kernels.Mul, d, d, scale, false)
		if ep.Bias != nil {
			kernels.BinaryBroadcast(s.k, kernels.Add, d, d, row, []int{len(d) / len(row), len(row)}, strides, []int{0, 1})
		}
		kernels.Finish(s.k, d, ep.Act, ep.Round)
		return nil
	}, []*ten{dst}, ops[:])
	b.store(t, dst)
	return t.used, nil
}

// reach is the largest distance of a code from its zero point.
func reach(q kernels.QParams) int {
	lo, hi := q.Range()
	return int(max(hi-q.Zero, q.Zero-lo))
}
