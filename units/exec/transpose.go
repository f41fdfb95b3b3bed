package exec

import (
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

func init() { register(compileConvTranspose, "ConvTranspose") }

// compileConvTranspose runs a transposed convolution as a convolution of the
// input with zeros between its pixels (stride - 1 of them) and the kernel
// mirrored.
func compileConvTranspose(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, w, out := n.In(0), n.In(1), n.Outputs[0]
	if !isFloat(x) || w == nil || w.Const == nil || !w.Const.DType.IsFloat() || !known(x, out) || len(w.Shape) != len(x.Shape) ||
		x.Shape.Elems() < 1 || out.Shape.Elems() < 1 || n.In(2) != nil && n.In(2).Const == nil {
		return 0, errNoKernel
	}
	// Padding may exceed what the convolution's geometry allows: it is derived
	// from the output's shape below, so only its begin is read here.
	win, ok := windowOf(n, x.Shape, w.Shape[2:])
	if !ok || n.Attrs.String("auto_pad", "NOTSET") != "NOTSET" || n.Attrs.Ints("output_shape", nil) != nil {
		return 0, errNoKernel
	}
	images, c, h, wd, _ := dims4(x.Shape)
	_, oc, oh, ow, _ := dims4(out.Shape)
	groups := n.Attrs.Int("group", 1)
	if groups < 1 || c%groups != 0 || oc%groups != 0 {
		return 0, errNoKernel
	}
	ih, iw := (h-1)*win.sh+1, (wd-1)*win.sw+1
	top, left := win.dh*(win.kh-1)-win.padTop, win.dw*(win.kw-1)-win.padLeft
	bottom, right := oh-ih-top+win.dh*(win.kh-1), ow-iw-left+win.dw*(win.kw-1)
	if min(top, left, bottom, right) < 0 {
		return 0, errNoKernel
	}
	shape := kernels.ConvShape{InC: c, OutC: oc, InH: ih, InW: iw, KH: win.kh, KW: win.kw, DilH: win.dh, DilW: win.dw,
		PadTop: top, PadLeft: left, PadBottom: bottom, PadRight: right, Groups: groups}
	if shape.Validate() != nil {
		return 0, errNoKernel
	}
	t := b.fuse(nodes, 1, true)
	if used, err := b.convTransposeI8(n, t, shape, win, images); err != errNoKernel {
		return used, err
	}
	bias, err := b.optional(n.In(2), b.num.Half)
	if err != nil {
		return 0, err
	}
	ep, err := b.epilogue(t, oc, bias, b.num.DotRound, b.num.Half)
	if err != nil {
		return 0, err
	}
	f, err := b.constFloats(w)
	if err != nil {
		return 0, err
	}
	conv, err := kernels.NewConvF32(shape, mirrored(f, shape), ep)
	if err != nil {
		return 0, err
	}
	b.prog.weights += int64(conv.WeightBytes())
	b.needScratch(conv.ScratchBytes())
	src, err := b.float(x, c16)
	if err != nil {
		return 0, err
	}
	src = b.dilate(src, ih, iw, win.sh, win.sw)
	ins := []*ten{src}
	var res *ten
	if t.res != nil {
		if res, err = b.float(t.res, c16); err != nil {
			return 0, err
		}
		ins = append(ins, res)
	}
	dst := b.newFloat(out.Shape, c16)
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

// convTransposeI8 is compileConvTranspose for 8-bit operands on a unit with int8
// products: the zeros between pixels are the zero point.
func (b *builder) convTransposeI8(n *model.Node, t tail, shape kernels.ConvShape, win window, images int) (int, error) {
	d, ok := b.dq[n.In(0)]
	if !ok || !b.num.Int8 {
		return 0, errNoKernel
	}
	w, err := b.weightsI8(n.In(1), 1)
	if err != nil {
		return 0, err
	}
	if w == nil || shape.Groups > 1 && len(w.scale) > 1 { // scales by channel within a group
		return 0, errNoKernel
	}
	bias, err := b.optional(n.In(2), false)
	if err != nil {
		return 0, err
	}
	sum, bias := w.bias(bias, d.q.Scale, shape.InC/shape.Groups*shape.KH*shape.KW)
	cfg := kernels.ConvI8Config{Shape: shape, Weights: mirrored(w.codes, shape), WScale: w.scale, In: d.q}
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
	src, err := b.codes(d.codes, c16)
	if err != nil {
		return 0, err
	}
	src = b.dilate(src, shape.InH, shape.InW, win.sh, win.sw)
	ins := []*ten{src}
	res, err := b.residualI8(t.res, c16)
	if err != nil {
		return 0, err
	}
	if res != nil {
		ins = append(ins, res.t)
	}
	dst := b.flatDst(t, n.Outputs[0].Shape, c16)
	b.emit(func(s *state) error {
		if t.quant {
			conv.RunQ8(s.k, s.u8(dst), s.u8(src), res.get(s), images)
		} else {
			conv.RunF32(s.k, s.f32(dst), s.u8(src), res.get(s), images)
		}
		return nil
	}, []*ten{dst}, ins)
	b.add(t.out, dst)
	return t.used, nil
}

// mirrored turns the weights of a transposed convolution, [InC][OutC/g][KH][KW],
// into those of the convolution, [OutC][InC/g][KH][KW], mirrored in both axes.
func mirrored[T float32 | int8](w []T, s kernels.ConvShape) []T {
	icg, ocg, k := s.InC/s.Groups, s.OutC/s.Groups, s.KH*s.KW
	out := make([]T, len(w))
	for i := range s.InC {
		for o := range ocg {
			from := w[(i*ocg+o)*k:][:k]
			to := out[((i/icg*ocg+o)*icg+i%icg)*k:][:k]
			for j, v := range from {
				to[k-1-j] = v
			}
		}
	}
	return out
}

// dilate emits the insertion of zeros (the zero point of codes) between the
// pixels of a channel-blocked tensor.
func (b *builder) dilate(src *ten, h, w, sh, sw int) *ten {
	if sh == 1 && sw == 1 {
		return src
	}
	const B = kernels.Block
	planes := src.len / (src.h * src.w * B)
	m := newMover([]int{planes, src.h, src.w, B}, []int{h * w * B, sh * w * B, sw * B, 1}, contiguous([]int{planes, src.h, src.w, B}), 0, 0)
	s := model.Shape{src.n, src.c, h, w}
	if src.codes {
		dst, zero := b.newCodes(s, c16, src.q), uint8(src.q.Zero)
		b.emit(func(s *state) error {
			d := s.u8(dst)
			for i := range d {
				d[i] = zero
			}
			m.u8(s, d, s.u8(src))
			return nil
		}, []*ten{dst}, []*ten{src})
		return dst
	}
	dst := b.newFloat(s, c16)
	b.emit(func(s *state) error {
		d := s.f32(dst)
		clear(d)
		m.f32(s, d, s.f32(src))
		return nil
	}, []*ten{dst}, []*ten{src})
	return dst
}
