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
	// [InC][OutC/g][KH][KW] -> [OutC][InC/g][KH][KW], mirrored.
	icg, ocg, k := c/groups, oc/groups, win.kh*win.kw
	weights := make([]float32, len(f))
	for i := range c {
		for o := range ocg {
			from := f[(i*ocg+o)*k:][:k]
			to := weights[((i/icg*ocg+o)*icg+i%icg)*k:][:k]
			for j, v := range from {
				to[k-1-j] = v
			}
		}
	}
	conv, err := kernels.NewConvF32(shape, weights, ep)
	if err != nil {
		return 0, err
	}
	b.prog.weights += int64(conv.WeightBytes())
	b.needScratch(conv.ScratchBytes())
	src, err := b.float(x, c16)
	if err != nil {
		return 0, err
	}
	if win.sh > 1 || win.sw > 1 {
		src = b.dilate(src, ih, iw, win.sh, win.sw)
	}
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

// dilate emits the insertion of zeros between the pixels of a channel-blocked
// tensor.
func (b *builder) dilate(src *ten, h, w, sh, sw int) *ten {
	const B = kernels.Block
	planes := src.len / (src.h * src.w * B)
	dst := b.newFloat(model.Shape{src.n, src.c, h, w}, c16)
	m := newMover([]int{planes, src.h, src.w, B}, []int{h * w * B, sh * w * B, sw * B, 1}, contiguous([]int{planes, src.h, src.w, B}), 0, 0)
	b.emit(func(s *state) error {
		d := s.f32(dst)
		clear(d)
		m.f32(s, d, s.f32(src))
		return nil
	}, []*ten{dst}, []*ten{src})
	return dst
}
