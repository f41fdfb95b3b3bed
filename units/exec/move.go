package exec

import (
	"slices"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

func init() {
	register(compileConcat, "Concat")
	register(compileTranspose, "Transpose")
	register(compileSlice, "Slice")
	register(compileSplit, "Split")
	register(compileExpand, "Expand")
	register(compilePad, "Pad")
	register(compileDepthToSpace, "DepthToSpace", "SpaceToDepth")
}

// part is a piece of a move: elements of src's view land in a view of dst.
type part struct {
	shape  []int
	ds, ss []int
	dstOff int
	srcOff int
}

// moved compiles a single-input move of plain tensors: output i is written by
// parts[i]. Codes are moved as codes when the layer allows it; fill is the
// value of elements no part writes (used with full set).
func (b *builder) moved(nodes []*model.Node, parts []part, pad *float32) (int, error) {
	n := nodes[0]
	if codes, q, used, ok := b.codesThrough(nodes); ok && (used == 1 || len(n.Outputs) == 1) {
		src, err := b.codes(codes, plain)
		if err != nil {
			return 0, err
		}
		var fill uint8
		if pad != nil {
			if q.Scale == 0 { // raw codes: the constant is a code
				fill = uint8(int32(*pad))
			} else {
				fill = code(*pad, q)
			}
		}
		for i, p := range parts {
			out := n.Outputs[i]
			if out == nil {
				continue
			}
			if used == 2 {
				out = nodes[1].Outputs[0]
			}
			dst := b.newCodes(out.Shape, plain, q)
			m := newMover(p.shape, p.ds, p.ss, p.dstOff, p.srcOff)
			b.emit(func(s *state) error {
				d := s.u8(dst)
				if pad != nil {
					for i := range d {
						d[i] = fill
					}
				}
				m.u8(s, d, s.u8(src))
				return nil
			}, []*ten{dst}, []*ten{src})
			b.add(out, dst)
		}
		return used, nil
	}
	if !isFloat(n.In(0)) {
		return 0, errNoKernel
	}
	src, err := b.float(n.In(0), plain)
	if err != nil {
		return 0, err
	}
	t := tail{used: 1}
	if len(n.Outputs) == 1 {
		t = b.fuseQuantize(nodes)
	}
	var fill float32
	if pad != nil {
		fill = *pad
		if b.num.Half {
			fill = kernels.F16ToFloat(kernels.F16Bits(fill))
		}
	}
	for i, p := range parts {
		out := n.Outputs[i]
		if out == nil {
			continue
		}
		dst := b.newFloat(out.Shape, plain)
		m := newMover(p.shape, p.ds, p.ss, p.dstOff, p.srcOff)
		b.emit(func(s *state) error {
			d := s.f32(dst)
			if pad != nil {
				for i := range d {
					d[i] = fill
				}
			}
			m.f32(s, d, s.f32(src))
			return nil
		}, []*ten{dst}, []*ten{src})
		if len(n.Outputs) == 1 {
			b.store(t, dst)
		} else {
			b.add(out, dst)
		}
	}
	return t.used, nil
}

// code quantizes one value.
func code(v float32, q kernels.QParams) uint8 {
	var d [1]uint8
	kernels.QuantizeF32(kernels.NewCtx(nil), d[:], []float32{v}, q)
	return d[0]
}

func compileTranspose(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	if !known(x, out) || x.Const != nil || out.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	rank := len(x.Shape)
	perm := n.Attrs.Ints("perm", nil)
	if perm == nil {
		for i := range rank {
			perm = append(perm, rank-1-i)
		}
	}
	if len(perm) != rank {
		return 0, errNoKernel
	}
	if lay, _ := b.peek(x); rank == 4 && slices.Equal(perm, []int{0, 2, 3, 1}) && lay == c16 {
		return b.channels(nodes, x.Shape, c16, plain)
	} else if rank == 4 && slices.Equal(perm, []int{0, 3, 1, 2}) && lay == plain && out.Shape[1] >= kernels.Block && out.Shape[2]*out.Shape[3] > 1 {
		return b.channels(nodes, out.Shape, plain, c16)
	}
	own := contiguous(x.Shape)
	ss := make([]int, rank)
	for i, p := range perm {
		if p < 0 || p >= rank {
			return 0, errNoKernel
		}
		ss[i] = own[p]
	}
	return b.moved(nodes, []part{{shape: out.Shape, ds: contiguous(out.Shape), ss: ss}}, nil)
}

// channels compiles the move of channels to or from the innermost dimension,
// where the side that has them second, of the given shape, is blocked by
// channels: it skips the row-major form that nothing reads.
func (b *builder) channels(nodes []*model.Node, shape model.Shape, from, to layout) (int, error) {
	n, c, h, w := shape[0], shape[1], shape[2], shape[3]
	x, out := nodes[0].In(0), nodes[0].Outputs[0]
	if codes, q, used, ok := b.codesThrough(nodes); ok {
		src, err := b.codes(codes, from)
		if err != nil {
			return 0, err
		}
		if used == 2 {
			out = nodes[1].Outputs[0]
		}
		dst := b.newCodes(out.Shape, to, q)
		b.emit(func(s *state) error {
			if to == c16 {
				kernels.PackNHWCU8(s.k, s.u8(dst), s.u8(src), n, c, h, w, uint8(q.Zero))
			} else {
				kernels.UnpackNHWC(s.k, s.u8(dst), s.u8(src), n, c, h, w)
			}
			return nil
		}, []*ten{dst}, []*ten{src})
		b.add(out, dst)
		return used, nil
	}
	if !isFloat(x) {
		return 0, errNoKernel
	}
	src, err := b.float(x, from)
	if err != nil {
		return 0, err
	}
	t := b.fuseQuantize(nodes)
	dst := b.newFloat(out.Shape, to)
	b.emit(func(s *state) error {
		if to == c16 {
			kernels.PackNHWC(s.k, s.f32(dst), s.f32(src), n, c, h, w)
		} else {
			kernels.UnpackNHWC(s.k, s.f32(dst), s.f32(src), n, c, h, w)
		}
		return nil
	}, []*ten{dst}, []*ten{src})
	b.store(t, dst)
	return t.used, nil
}

func compileExpand(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	if !known(x, out) || x.Const != nil || out.Shape.Elems() < 1 || len(x.Shape) > len(out.Shape) {
		return 0, errNoKernel
	}
	own := contiguous(x.Shape)
	ss := make([]int, len(out.Shape))
	at := len(out.Shape) - len(x.Shape)
	for i, d := range x.Shape {
		if d == out.Shape[at+i] {
			ss[at+i] = own[i]
		} else if d != 1 {
			return 0, errNoKernel
		}
	}
	return b.moved(nodes, []part{{shape: out.Shape, ds: contiguous(out.Shape), ss: ss}}, nil)
}

func compileSlice(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	if !known(x, out) || x.Const != nil || out.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	starts, ok1 := b.constInts(n.In(1))
	_, ok2 := b.constInts(n.In(2))
	if !ok1 || !ok2 {
		return 0, errNoKernel
	}
	axes, ok := b.constInts(n.In(3))
	if !ok {
		if n.In(3) != nil {
			return 0, errNoKernel
		}
		for i := range starts {
			axes = append(axes, i)
		}
	}
	steps, ok := b.constInts(n.In(4))
	if !ok && n.In(4) != nil || len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		return 0, errNoKernel
	}
	ss := contiguous(x.Shape)
	off := 0
	for i, a := range axes {
		a, ok := normAxis(a, len(x.Shape))
		if !ok {
			return 0, errNoKernel
		}
		step := 1
		if steps != nil {
			step = steps[i]
		}
		start, d := starts[i], x.Shape[a]
		if start < 0 {
			start += d
		}
		if step > 0 {
			start = min(max(start, 0), d)
		} else {
			start = min(max(start, 0), d-1)
		}
		off += start * ss[a]
		ss[a] *= step
	}
	if len(axes) == 1 {
		if a, _ := normAxis(axes[0], len(x.Shape)); a == 1 && (steps == nil || steps[0] == 1) {
			if used, err := b.splitChannels(nodes, []int{min(max(starts[0]+boolInt(starts[0] < 0)*x.Shape[1], 0), x.Shape[1])}); err != errNoKernel {
				return used, err
			}
		}
	}
	return b.moved(nodes, []part{{shape: out.Shape, ds: contiguous(out.Shape), ss: ss, srcOff: off}}, nil)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func compileSplit(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x := n.In(0)
	if !known(x) || !known(n.Outputs...) || x.Const != nil {
		return 0, errNoKernel
	}
	axis, ok := normAxis(n.Attrs.Int("axis", 0), len(x.Shape))
	if !ok {
		return 0, errNoKernel
	}
	at := 0
	var parts []part
	var starts []int
	ss := contiguous(x.Shape)
	for _, o := range n.Outputs {
		if o == nil || len(o.Shape) != len(x.Shape) || o.Shape.Elems() < 1 {
			return 0, errNoKernel
		}
		parts = append(parts, part{shape: o.Shape, ds: contiguous(o.Shape), ss: ss, srcOff: at * ss[axis]})
		starts = append(starts, at)
		at += o.Shape[axis]
	}
	if at != x.Shape[axis] {
		return 0, errNoKernel
	}
	if axis == 1 {
		if used, err := b.splitChannels(nodes, starts); err != errNoKernel {
			return used, err
		}
	}
	return b.moved(nodes, parts, nil)
}

// splitChannels copies channel ranges of a channel-blocked float tensor.
func (b *builder) splitChannels(nodes []*model.Node, starts []int) (int, error) {
	n := nodes[0]
	x := n.In(0)
	lay, ok := b.peek(x)
	if !ok || lay != c16 || !isFloat(x) {
		return 0, errNoKernel
	}
	d, coded := b.dq[x]
	var src *ten
	var err error
	if coded {
		src, err = b.codes(d.codes, c16)
	} else {
		src, err = b.float(x, c16)
	}
	if err != nil {
		return 0, err
	}
	t := tail{used: 1}
	if len(n.Outputs) == 1 {
		t = b.fuseQuantize(nodes)
	}
	for i, o := range n.Outputs {
		dst := b.newFloat(o.Shape, c16)
		at := starts[i]
		if coded {
			part := b.newCodes(o.Shape, c16, d.q)
			b.emit(func(s *state) error {
				takeChannels(s.u8(part), s.u8(src), part, src.c, at)
				return nil
			}, []*ten{part}, []*ten{src})
			b.dequantize(dst, part, d.q)
		} else {
			b.emit(func(s *state) error {
				takeChannels(s.f32(dst), s.f32(src), dst, src.c, at)
				return nil
			}, []*ten{dst}, []*ten{src})
		}
		if len(n.Outputs) == 1 {
			b.store(t, dst)
		} else {
			b.add(o, dst)
		}
	}
	return t.used, nil
}

// takeChannels copies channels [at, at+dst.c) of a channel-blocked tensor.
// Blocks that straddle two of the source's are put together lane by lane.
func takeChannels[T float32 | uint8](d, s []T, dst *ten, srcC, at int) {
	const B = kernels.Block
	hw := dst.h * dst.w
	db, sb := (dst.c+B-1)/B, (srcC+B-1)/B
	shift := at % B
	for img := range dst.n {
		for k := range db {
			to := d[(img*db+k)*hw*B:][:hw*B]
			first := at/B + k
			lo := s[(img*sb+first)*hw*B:][:hw*B]
			if shift == 0 {
				copy(to, lo)
				continue
			}
			hi := lo
			if first+1 < sb {
				hi = s[(img*sb+first+1)*hw*B:][:hw*B]
			}
			for p := 0; p < len(to); p += B {
				t, l, h := to[p:p+B], lo[p:p+B], hi[p:p+B]
				copy(t, l[shift:])
				copy(t[B-shift:], h)
			}
		}
	}
}

func compilePad(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	if !known(x, out) || x.Const != nil || n.Attrs.String("mode", "constant") != "constant" || out.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	pads, ok := b.constInts(n.In(1))
	if !ok {
		return 0, errNoKernel
	}
	axes, ok := b.constInts(n.In(3))
	if !ok {
		if n.In(3) != nil {
			return 0, errNoKernel
		}
		for i := range x.Shape {
			axes = append(axes, i)
		}
	}
	if len(pads) != 2*len(axes) {
		return 0, errNoKernel
	}
	var value float32
	if v := n.In(2); v != nil && v.Shape.Elems() > 0 {
		if value, ok = b.constScalar(v); !ok {
			return 0, errNoKernel
		}
	}
	p := part{shape: slices.Clone(x.Shape), ds: contiguous(out.Shape), ss: contiguous(x.Shape)}
	for i, a := range axes {
		a, ok := normAxis(a, len(x.Shape))
		if !ok {
			return 0, errNoKernel
		}
		lo, hi := pads[i], pads[len(axes)+i]
		// Negative padding crops.
		if lo >= 0 {
			p.dstOff += lo * p.ds[a]
		} else {
			p.srcOff -= lo * p.ss[a]
		}
		p.shape[a] += min(lo, 0) + min(hi, 0)
		if p.shape[a] < 0 {
			return 0, errNoKernel
		}
	}
	return b.moved(nodes, []part{p}, &value)
}

func compileDepthToSpace(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	k := n.Attrs.Int("blocksize", 0)
	if !known(x, out) || x.Const != nil || len(x.Shape) != 4 || k < 1 || out.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	N, C, H, W := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	if n.Op == "SpaceToDepth" {
		// out [N, k, k, C, H/k, W/k] from x [N, C, H/k, k, W/k, k].
		h, w := H/k, W/k
		shape := []int{N, k, k, C, h, w}
		ss := []int{C * H * W, W, 1, H * W, k * W, k}
		return b.moved(nodes, []part{{shape: shape, ds: contiguous(shape), ss: ss}}, nil)
	}
	c := C / (k * k)
	if n.Attrs.String("mode", "DCR") == "CRD" {
		if used, err := b.shuffleView(nodes, k); err != errNoKernel {
			return used, err
		}
	}
	shape := []int{N, c, H, k, W, k} // out
	ss := []int{C * H * W, H * W, W, k * c * H * W, 1, c * H * W}
	if n.Attrs.String("mode", "DCR") == "CRD" {
		ss = []int{C * H * W, k * k * H * W, W, k * H * W, 1, H * W}
	}
	return b.moved(nodes, []part{{shape: shape, ds: contiguous(shape), ss: ss}}, nil)
}

// shuffleView compiles a pixel shuffle of a reshaped tensor [N,c,k*k*H*W] that
// is still channel-blocked: it moves whole blocks of channels.
func (b *builder) shuffleView(nodes []*model.Node, k int) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	src := b.views[x]
	c, H, W := out.Shape[1], x.Shape[2], x.Shape[3]
	if src == nil || src.codes || src.n != x.Shape[0] || src.c != c || b.num.Half && !src.half {
		return 0, errNoKernel
	}
	const B = kernels.Block
	blocks, pix := (c+B-1)/B, H*W
	t := b.fuseQuantize(nodes)
	dst := b.newFloat(out.Shape, c16)
	shape := []int{src.n, blocks, H, k, W, k, B}
	area := k * k * pix * B
	m := newMover(shape, contiguous(shape), []int{blocks * area, area, W * B, k * pix * B, B, pix * B, 1}, 0, 0)
	b.emit(func(s *state) error {
		m.f32(s, s.f32(dst), s.f32(src))
		return nil
	}, []*ten{dst}, []*ten{src})
	b.store(t, dst)
	return t.used, nil
}

// compileConcat joins tensors: along channels in the channel-blocked layout
// when one of them is in it, else as plain tensors. 8-bit operands are joined
// as codes; those with other parameters are requantized first.
func compileConcat(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	out := n.Outputs[0]
	if !known(out) || !known(n.Inputs...) || !isFloat(out) || out.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	axis, ok := normAxis(n.Attrs.Int("axis", 0), len(out.Shape))
	if !ok {
		return 0, errNoKernel
	}
	t := b.fuseQuantize(nodes)
	lay, allDQ := plain, true
	_, _, _, _, can := dims4(out.Shape)
	for _, v := range n.Inputs {
		if !isFloat(v) || len(v.Shape) != len(out.Shape) {
			return 0, errNoKernel
		}
		if l, ok := b.peek(v); ok && l == c16 && axis == 1 && can {
			lay = c16
		}
		if _, ok := b.dq[v]; !ok {
			allDQ = false
		}
	}
	asCodes := allDQ && t.quant
	var dst *ten
	if asCodes {
		dst = b.newCodes(out.Shape, lay, t.q)
	} else {
		dst = b.newFloat(out.Shape, lay)
	}
	at := 0
	ds := contiguous(out.Shape)
	for _, v := range n.Inputs {
		if v.Shape.Elems() == 0 {
			continue
		}
		src, err := b.concatOperand(v, lay, asCodes, t.q)
		if err != nil {
			return 0, err
		}
		from := at
		at += v.Shape[axis]
		if lay == c16 {
			b.emit(func(s *state) error {
				if asCodes {
					kernels.CopyChannelsC16(s.k, s.u8(dst), dst.c, from, s.u8(src), src.c, 0, src.c, dst.n, dst.h, dst.w)
				} else {
					kernels.CopyChannelsC16(s.k, s.f32(dst), dst.c, from, s.f32(src), src.c, 0, src.c, dst.n, dst.h, dst.w)
				}
				return nil
			}, []*ten{dst}, []*ten{src})
			continue
		}
		m := newMover(v.Shape, ds, contiguous(v.Shape), from*ds[axis], 0)
		b.emit(func(s *state) error {
			if asCodes {
				m.u8(s, s.u8(dst), s.u8(src))
			} else {
				m.f32(s, s.f32(dst), s.f32(src))
			}
			return nil
		}, []*ten{dst}, []*ten{src})
	}
	if asCodes {
		b.add(t.out, dst)
	} else {
		b.store(t, dst)
	}
	return t.used, nil
}

func (b *builder) concatOperand(v *model.Value, lay layout, asCodes bool, q kernels.QParams) (*ten, error) {
	if !asCodes {
		return b.float(v, lay)
	}
	d := b.dq[v]
	src, err := b.codes(d.codes, lay)
	if err != nil || d.q == q {
		return src, err
	}
	dst := b.newCodes(v.Shape, lay, q)
	from := d.q
	b.emit(func(s *state) error {
		kernels.Requantize(s.k, s.u8(dst), q, s.u8(src), from)
		return nil
	}, []*ten{dst}, []*ten{src})
	return dst, nil
}
