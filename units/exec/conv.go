package exec

import (
	"math"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

func init() { register(compileConv, "Conv") }

// window is the geometry of a sliding window (convolution or pooling) in two
// dimensions; one-dimensional ones have height 1.
type window struct {
	kh, kw, sh, sw, dh, dw               int
	padTop, padLeft, padBottom, padRight int
	spatial                              int
}

// windowOf reads kernel_shape (or the shape of the weights), strides,
// dilations, pads and auto_pad of a node whose input has shape in; ok is false
// unless there are one or two spatial dimensions.
func windowOf(n *model.Node, in model.Shape, kernel []int) (w window, ok bool) {
	d := len(in) - 2
	if d < 1 || d > 2 || len(kernel) != d {
		return w, false
	}
	ones := []int{1, 1}[:d]
	strides, dil := n.Attrs.Ints("strides", ones), n.Attrs.Ints("dilations", ones)
	pads := n.Attrs.Ints("pads", []int{0, 0, 0, 0}[:2*d])
	if len(strides) != d || len(dil) != d || len(pads) != 2*d {
		return w, false
	}
	begin, end := make([]int, d), make([]int, d)
	copy(begin, pads[:d])
	copy(end, pads[d:])
	switch auto := n.Attrs.String("auto_pad", "NOTSET"); auto {
	case "SAME_UPPER", "SAME_LOWER":
		for i := range d {
			out := (in[2+i] + strides[i] - 1) / strides[i]
			total := max(0, (out-1)*strides[i]+(kernel[i]-1)*dil[i]+1-in[2+i])
			begin[i], end[i] = total/2, total-total/2
			if auto == "SAME_LOWER" {
				begin[i], end[i] = end[i], begin[i]
			}
		}
	case "VALID":
		clear(begin)
		clear(end)
	}
	w = window{1, 1, 1, 1, 1, 1, 0, 0, 0, 0, d}
	if d == 2 {
		w.kh, w.sh, w.dh, w.padTop, w.padBottom = kernel[0], strides[0], dil[0], begin[0], end[0]
	}
	w.kw, w.sw, w.dw, w.padLeft, w.padRight = kernel[d-1], strides[d-1], dil[d-1], begin[d-1], end[d-1]
	if min(w.padTop, w.padLeft, w.padBottom, w.padRight) < 0 {
		return w, false
	}
	return w, true
}

func compileConv(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, w := n.In(0), n.In(1)
	if !isFloat(x) || w == nil || w.Const == nil || !w.Const.DType.IsFloat() || !known(x, n.Outputs[0]) || len(w.Shape) != len(x.Shape) {
		return 0, errNoKernel
	}
	win, ok := windowOf(n, x.Shape, w.Shape[2:])
	if !ok {
		return 0, errNoKernel
	}
	images, c, h, wd, _ := dims4(x.Shape)
	shape := kernels.ConvShape{
		InC: c, OutC: w.Shape[0], InH: h, InW: wd, KH: win.kh, KW: win.kw,
		StrideH: win.sh, StrideW: win.sw, DilH: win.dh, DilW: win.dw,
		PadTop: win.padTop, PadLeft: win.padLeft, PadBottom: win.padBottom, PadRight: win.padRight,
		Groups: n.Attrs.Int("group", 1),
	}
	if images < 1 || shape.Validate() != nil {
		return 0, errNoKernel
	}
	lay, _ := b.peek(x)
	if lay == plain && c < kernels.Block && shape.Groups == 1 {
		shape.InPlain = true
	} else {
		lay = c16
	}
	if v := n.In(2); v != nil && v.Const == nil {
		return 0, errNoKernel
	}
	t := b.fuse(nodes, 1, true)
	if used, err := b.convI8(n, t, shape, lay, images); err != errNoKernel {
		return used, err
	}
	bias, err := b.optional(n.In(2), b.num.Half)
	if err != nil {
		return 0, err
	}
	ep, err := b.epilogue(t, shape.OutC, bias, b.num.DotRound, b.num.Half)
	if err != nil {
		return 0, err
	}
	weights, err := b.constFloats(w)
	if err != nil {
		return 0, err
	}
	conv, err := kernels.NewConvF32(shape, weights, ep)
	if err != nil {
		return 0, err
	}
	b.prog.weights += int64(conv.WeightBytes())
	b.needScratch(conv.ScratchBytes())
	src, err := b.float(x, lay)
	if err != nil {
		return 0, err
	}
	ins := []*ten{src}
	var res *ten
	if t.res != nil {
		if res, err = b.float(t.res, c16); err != nil {
			return 0, err
		}
		ins = append(ins, res)
	}
	dst := b.newFloat(n.Outputs[0].Shape, c16)
	b.emit(func(s *state) error {
		var r []float32
		if res != nil {
			r = s.f32(res)
		}
		conv.Run(s.k, s.f32(dst), s.f32(src), r, images)
		return nil
	}, []*ten{dst}, ins)
	b.store(t, dst)
	return t.used, nil
}

// optional returns the values of a constant that may be absent.
func (b *builder) optional(v *model.Value, half bool) ([]float32, error) {
	if v == nil {
		return nil, nil
	}
	return b.constAs(v, half)
}

// convI8 compiles a convolution of 8-bit operands on a unit with int8
// products; errNoKernel means that it is none.
func (b *builder) convI8(n *model.Node, t tail, shape kernels.ConvShape, lay layout, images int) (int, error) {
	d, ok := b.dq[n.In(0)]
	if !ok || !b.num.Int8 {
		return 0, errNoKernel
	}
	w, err := b.weightsI8(n.In(1), 0)
	if err != nil {
		return 0, err
	}
	if w == nil {
		return 0, errNoKernel
	}
	bias, err := b.optional(n.In(2), false)
	if err != nil {
		return 0, err
	}
	sum, bias := w.bias(bias, d.q.Scale, shape.InC/shape.Groups*shape.KH*shape.KW)
	cfg := kernels.ConvI8Config{Shape: shape, Weights: w.codes, WScale: w.scale, In: d.q}
	if cfg.Epilogue, err = b.epilogue(t, shape.OutC, bias, b.num.DotRound, false); err != nil {
		return 0, err
	}
	cfg.Sum = sum
	if t.quant {
		cfg.Out, cfg.Round = t.q, kernels.RoundNone
	}
	conv, err := kernels.NewConvI8(cfg)
	if err != nil {
		return 0, err
	}
	b.prog.weights += int64(conv.WeightBytes())
	b.needScratch(conv.ScratchBytes())
	src, err := b.codes(d.codes, lay)
	if err != nil {
		return 0, err
	}
	ins := []*ten{src}
	res, err := b.residualI8(t.res, c16)
	if err != nil {
		return 0, err
	}
	if res != nil {
		ins = append(ins, res.t)
	}
	if t.quant {
		dst := b.newCodes(n.Outputs[0].Shape, c16, t.q)
		b.emit(func(s *state) error {
			conv.RunQ8(s.k, s.u8(dst), s.u8(src), res.get(s), images)
			return nil
		}, []*ten{dst}, ins)
		b.add(t.out, dst)
		return t.used, nil
	}
	dst := b.newFloat(n.Outputs[0].Shape, c16)
	b.emit(func(s *state) error {
		conv.RunF32(s.k, s.f32(dst), s.u8(src), res.get(s), images)
		return nil
	}, []*ten{dst}, ins)
	b.add(t.out, dst)
	return t.used, nil
}

// residual is the residual operand of an int8 product, as floats or codes.
type residual struct {
	t *ten
	q kernels.QParams
}

func (r *residual) get(s *state) kernels.Residual {
	if r == nil {
		return kernels.Residual{}
	}
	if r.t.codes {
		return kernels.Residual{Q8: s.u8(r.t), Q: r.q}
	}
	return kernels.Residual{F32: s.f32(r.t)}
}

func (b *builder) residualI8(v *model.Value, lay layout) (*residual, error) {
	if v == nil {
		return nil, nil
	}
	if d, ok := b.dq[v]; ok {
		t, err := b.codes(d.codes, lay)
		return &residual{t, d.q}, err
	}
	t, err := b.float(v, lay)
	return &residual{t: t}, err
}

// weightsI8 are symmetric int8 weights with one scale, or one per channel.
type weightsI8 struct {
	codes []int8
	scale []float32
}

// bias splits a bias of an int8 product. Beside the int32 sum stands an int32 in
// units of the input's scale times the weight's, which is what QDQ files hold
// and what ONNX Runtime makes of a float bias. One that would leave int32
// together with the sum of k products stays a float.
func (w *weightsI8) bias(bias []float32, in float32, k int) (sum []int32, rest []float32) {
	room := math.MaxInt32 - 255*128*float64(k)
	for i, v := range bias {
		n := math.RoundToEven(float64(v / (in * w.scale[i%len(w.scale)])))
		if !(math.Abs(n) <= room) { // or the scale is zero
			return nil, bias
		}
		sum = append(sum, int32(n))
	}
	return sum, nil
}

// weightsI8 returns the codes of a weight stored in 8 bits with scales per
// tensor or per channel of the given axis: affine codes (with zero points, if
// code - zero still fits int8) or a palette with an 8-bit table. It is nil when
// the weight is stored in another way.
func (b *builder) weightsI8(v *model.Value, axis int) (*weightsI8, error) {
	switch st := v.Const.Storage.(type) {
	case *model.Affine:
		return affineI8(st, v.Shape, axis)
	case *model.Lookup:
		return lookupI8(st, v.Shape, axis)
	}
	return nil, nil
}

func affineI8(a *model.Affine, shape model.Shape, axis int) (*weightsI8, error) {
	if a.Codes.DType != model.Int8 && a.Codes.DType != model.UInt8 {
		return nil, nil
	}
	if !alongAxis(a.Scale.Shape, shape, axis) || a.Zero != nil && !alongAxis(a.Zero.Shape, shape, axis) {
		return nil, nil
	}
	c, err := a.Codes.Value()
	if err != nil {
		return nil, err
	}
	s, err := a.Scale.Value()
	if err != nil {
		return nil, err
	}
	w := &weightsI8{scale: s.Float32s()}
	if a.Zero == nil && c.DType == model.Int8 {
		w.codes = model.View[int8](c)
		return w, nil
	}
	zeros := []int64{0}
	if a.Zero != nil {
		z, err := a.Zero.Value()
		if err != nil {
			return nil, err
		}
		zeros = z.Convert(model.Int64).Int64s()
	}
	w.codes = make([]int8, c.Len())
	inner := elems(shape[axis+1:])
	for i := range w.codes {
		d := c.IntAt(i) - zeros[i/inner%shape[axis]%len(zeros)]
		if d < -128 || d > 127 {
			return nil, nil
		}
		w.codes[i] = int8(d)
	}
	return w, nil
}

// alongAxis reports whether scales of shape s for a weight are one for all, or
// one for each element of an axis.
func alongAxis(s, weight model.Shape, axis int) bool {
	if s.Elems() == 1 {
		return true
	}
	if len(s) != len(weight) {
		return false
	}
	for i, d := range s {
		if i == axis && d != weight[i] || i != axis && d != 1 {
			return false
		}
	}
	return true
}

// lookupI8 decodes a palette whose table holds 8-bit codes under one scale.
func lookupI8(l *model.Lookup, shape model.Shape, axis int) (*weightsI8, error) {
	t, ok := l.Table.Storage.(*model.Affine)
	if !ok || t.Codes.DType != model.Int8 && t.Codes.DType != model.UInt8 || t.Scale.Elems() != 1 {
		return nil, nil
	}
	s, err := t.Scale.Value()
	if err != nil {
		return nil, err
	}
	// The same palette with a scale of one gives the codes.
	one := model.NewTensor(model.Float32, t.Scale.Shape...)
	one.Set(0, 1)
	codes := model.Const{DType: model.Float32, Shape: shape, Storage: &model.Lookup{
		Indices: l.Indices, VectorAxis: l.VectorAxis,
		Table: &model.Const{DType: model.Float32, Shape: l.Table.Shape, Storage: &model.Affine{Codes: t.Codes, Scale: model.NewConst(one), Zero: t.Zero}},
	}}
	c, err := codes.Value()
	if err != nil {
		return nil, err
	}
	w := &weightsI8{codes: make([]int8, c.Len()), scale: s.Float32s()}
	for i, v := range c.Float32s() {
		if v != float32(int8(v)) {
			return nil, nil
		}
		w.codes[i] = int8(v)
	}
	return w, nil
}
