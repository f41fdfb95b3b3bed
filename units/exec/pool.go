package exec

import (
	"math"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

func init() {
	register(compilePool, "MaxPool", "AveragePool")
	register(compileGlobalPool, "GlobalAveragePool", "GlobalMaxPool")
}

func compilePool(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	if !known(x, out) || len(x.Shape) != len(out.Shape) || out.Shape.Elems() < 1 || len(n.Outputs) > 1 && n.Outputs[1] != nil {
		return 0, errNoKernel
	}
	win, ok := windowOf(n, x.Shape, n.Attrs.Ints("kernel_shape", nil))
	if !ok {
		return 0, errNoKernel
	}
	countPad := n.Attrs.Int("count_include_pad", 0) != 0
	if countPad && n.Attrs.Int("ceil_mode", 0) != 0 {
		return 0, errNoKernel // windows may hang over the padding
	}
	images, c, h, w, _ := dims4(x.Shape)
	_, _, oh, ow, _ := dims4(out.Shape)
	s := kernels.PoolShape{
		N: images, C: c, InH: h, InW: w, KH: win.kh, KW: win.kw, StrideH: win.sh, StrideW: win.sw,
		PadTop: win.padTop, PadLeft: win.padLeft, PadBottom: win.padBottom, PadRight: win.padRight,
		DilH: win.dh, DilW: win.dw, OutH: oh, OutW: ow, CountPad: countPad,
	}
	if n.Op == "MaxPool" {
		if codes, q, used, ok := b.codesThrough(nodes); ok {
			src, err := b.codes(codes, c16)
			if err != nil {
				return 0, err
			}
			dst := b.newCodes(out.Shape, c16, q)
			b.emit(func(st *state) error {
				kernels.MaxPoolC16U8(st.k, st.u8(dst), st.u8(src), s, q.Signed)
				return nil
			}, []*ten{dst}, []*ten{src})
			b.add(nodes[used-1].Outputs[0], dst)
			return used, nil
		}
	}
	if !isFloat(x) {
		return 0, errNoKernel
	}
	f := kernels.MaxPoolC16
	if n.Op == "AveragePool" {
		f = kernels.AvgPoolC16
	}
	return b.pooled(nodes, func(k *kernels.Ctx, dst, src []float32) { f(k, dst, src, s) })
}

func compileGlobalPool(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x := n.In(0)
	if !isFloat(x) || !known(x, n.Outputs[0]) || len(x.Shape) < 3 || x.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	images, c, h, w, ok := dims4(x.Shape)
	if !ok {
		return 0, errNoKernel
	}
	f := kernels.GlobalAvgPoolC16
	if n.Op == "GlobalMaxPool" {
		f = kernels.GlobalMaxPoolC16
	} else if used, err := b.averageI8(nodes, images, c, h, w); err != errNoKernel {
		return used, err
	}
	return b.pooled(nodes, func(k *kernels.Ctx, dst, src []float32) { f(k, dst, src, images, c, h, w) })
}

// averageI8 compiles a global average from 8-bit codes to 8-bit codes on a unit
// with int8 products: the exact sum of the codes, less the zero points, is
// scaled once in float32 and rounded half to even, as a product is.
func (b *builder) averageI8(nodes []*model.Node, images, c, h, w int) (int, error) {
	n := nodes[0]
	t := b.fuseQuantize(nodes)
	d, ok := b.dq[n.In(0)]
	if !ok || !b.num.Int8 || !t.quant || 255*h*w >= 1<<22 { // sums are exact in float32
		return 0, errNoKernel
	}
	src, err := b.codes(d.codes, c16)
	if err != nil {
		return 0, err
	}
	whole, mean := b.newFloat(n.In(0).Shape, c16), b.newFloat(n.Outputs[0].Shape, c16)
	dst := b.newCodes(n.Outputs[0].Shape, c16, t.q)
	unit := kernels.QParams{Scale: 1, Zero: d.q.Zero, Signed: d.q.Signed}
	scale, pixels, one := d.q.Scale/(t.q.Scale*float32(h*w)), float64(h*w), kernels.QParams{Scale: 1, Zero: t.q.Zero, Signed: t.q.Signed}
	b.emit(func(s *state) error {
		x, y := s.f32(whole), s.f32(mean)
		kernels.DequantizeF32(s.k, x, s.u8(src)[:len(x)], unit)
		kernels.GlobalAvgPoolC16(s.k, y, x, images, c, h, w)
		for i, v := range y { // the mean of integers tells their sum
			y[i] = float32(math.RoundToEven(float64(v)*pixels)) * scale
		}
		kernels.QuantizeF32(s.k, s.u8(dst)[:len(y)], y, one)
		return nil
	}, []*ten{whole, mean, dst}, []*ten{src})
	b.add(t.out, dst)
	return t.used, nil
}

// pooled compiles a function from a C16 tensor to a C16 tensor in the shape of
// the node's output, with rounding and a fused quantize.
func (b *builder) pooled(nodes []*model.Node, f func(k *kernels.Ctx, dst, src []float32)) (int, error) {
	n := nodes[0]
	t := b.fuseQuantize(nodes)
	src, err := b.float(n.In(0), c16)
	if err != nil {
		return 0, err
	}
	dst := b.newFloat(n.Outputs[0].Shape, c16)
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

// codesThrough reports whether an operator that only selects among its
// elements can work on the 8-bit codes of its input: because the input is
// codes, or because the layer dequantizes it and quantizes the result with the
// same parameters. used is the number of nodes that covers.
func (b *builder) codesThrough(nodes []*model.Node) (codes *model.Value, q kernels.QParams, used int, ok bool) {
	n := nodes[0]
	x := n.In(0)
	if d, isDQ := b.dq[x]; isDQ {
		t := b.fuseQuantize(nodes)
		if t.quant && t.q == d.q {
			return d.codes, d.q, t.used, true
		}
		return nil, q, 0, false
	}
	if x == nil || x.Const != nil || x.DType != model.Int8 && x.DType != model.UInt8 {
		return nil, q, 0, false
	}
	if t := b.views[x]; t != nil {
		q = t.q
		q.Signed = x.DType == model.Int8
		return x, q, 1, true
	}
	for _, t := range b.vals[x] {
		if t.codes {
			q = t.q
			q.Signed = x.DType == model.Int8
			return x, q, 1, true
		}
	}
	return nil, q, 0, false
}
