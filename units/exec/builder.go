package exec

import (
	"fmt"
	"slices"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// builder turns layers into steps. A graph value becomes one or more tens (see
// [ten]); a step that wants a value in a form it does not have yet makes the
// builder emit the conversion first, once.
type builder struct {
	prog   *Program
	net    *model.Network
	opt    Options
	bufs   []*buffer
	vals   map[*model.Value][]*ten
	consts map[*model.Value]*model.Tensor // decoded constants of this layer
	dq     map[*model.Value]dequant       // dequantized views of 8-bit codes
	views  map[*model.Value]*ten          // reshaped channel-blocked tensors, not copied yet
	layer  int
	num    Numerics
	// left counts how often a value is still read by nodes of the current
	// layer; leaves marks those that are read by other layers too.
	reads  map[*model.Value]int
	leaves map[*model.Value]bool
}

// dequant is the output of a DequantizeLinear node that no step has computed:
// consumers that take codes read them as they are, others have them converted.
type dequant struct {
	codes *model.Value
	q     kernels.QParams
}

// Bounds on what a program may ask the host for: elements of one tensor, and
// bytes of the activation arena. They keep a mistaken shape from taking the
// machine down.
const (
	maxElems = 1 << 32
	maxArena = 1 << 36
)

// Compile turns a lowered network into a program. It decodes and packs every
// weight; graphs are not kept. Operators without a kernel run through the
// reference evaluation of package model/ops.
func Compile(net *model.Network, o Options) (*Program, error) {
	if o.Units != nil && len(o.Units) != len(net.Layers) {
		return nil, fmt.Errorf("exec: %d units given for %d layers", len(o.Units), len(net.Layers))
	}
	for _, e := range net.Edges {
		if e.Elems > maxElems {
			return nil, fmt.Errorf("exec: tensor %q of shape %v has %d elements; at most %d can be held", e.Value.Name, e.Value.Shape, e.Elems, int64(maxElems))
		}
	}
	p := &Program{net: net, pool: o.Pool, inputs: net.Graph.Inputs, objects: len(net.Graph.Inputs)}
	b := &builder{
		prog: p, net: net, opt: o,
		vals:   map[*model.Value][]*ten{},
		consts: map[*model.Value]*model.Tensor{},
		dq:     map[*model.Value]dequant{},
		views:  map[*model.Value]*ten{},
	}
	for i, v := range net.Graph.Inputs {
		if v.Type != model.TypeTensor {
			return nil, fmt.Errorf("exec: input %q is a container type, which only the reference evaluation runs", v.Name)
		}
		t := &ten{from: inObject, slot: i, shape: v.Shape, len: elems(v.Shape)}
		if v.DType.IsFloat() {
			t.from = inInput
		}
		b.vals[v] = []*ten{t}
	}
	for i, l := range net.Layers {
		b.layer, b.num = i, wide(b.numerics(i), l)
		if err := b.compileLayer(l); err != nil {
			return nil, fmt.Errorf("exec: layer %q (%s): %w", l.Name, l.Op, err)
		}
		if o.Watch {
			if err := b.watch(l); err != nil {
				return nil, fmt.Errorf("exec: layer %q (%s): %w", l.Name, l.Op, err)
			}
		}
		b.release(l)
	}
	b.layer, b.num = -1, Numerics{}
	for _, v := range net.Graph.Outputs {
		if o.drop {
			break
		}
		o, err := b.compileOutput(v)
		if err != nil {
			return nil, fmt.Errorf("exec: output %q: %w", v.Name, err)
		}
		p.outs = append(p.outs, o)
	}
	for _, o := range p.outs { // alive until they are copied out
		if o.t != nil && o.t.from == inArena {
			o.t.buf.last = len(p.steps)
		}
	}
	if p.arena = place(b.bufs); p.arena > maxArena {
		return nil, fmt.Errorf("exec: the activations of one inference need %d bytes; at most %d are allowed", p.arena, maxArena)
	}
	b.vals, b.consts = nil, nil
	return p, nil
}

func (b *builder) numerics(layer int) Numerics {
	if b.opt.Units == nil {
		return b.opt.Numerics[units.CPU]
	}
	return b.opt.Numerics[b.opt.Units[layer]]
}

// wide returns the arithmetic of a layer: on a unit with int8 products, an
// element-wise operator, activation, pooling or move from 8-bit tensors to an
// 8-bit tensor computes between them without rounding to fp16, as the products
// do.
func wide(n Numerics, l *model.Layer) Numerics {
	if !n.Int8 || !l.QuantIn || !l.QuantOut {
		return n
	}
	switch l.Kind {
	case model.KindElementwise, model.KindActivation, model.KindPool, model.KindMove, model.KindView, model.KindResize:
		return Numerics{Unit: n.Unit, Int8: true}
	}
	return n
}

func (b *builder) compileOutput(v *model.Value) (output, error) {
	if v.Const != nil {
		t, err := v.Const.Value()
		return output{value: v, fixed: t}, err
	}
	b.settle(v)
	if _, ok := b.dq[v]; !ok {
		if ts := b.vals[v]; len(ts) == 1 && ts[0].from == inObject {
			return output{value: v, t: ts[0]}, nil
		} else if len(ts) > 0 && ts[0].codes {
			t, err := b.codes(v, plain)
			return output{value: v, t: t}, err
		}
	}
	t, err := b.float(v, plain)
	return output{value: v, t: t}, err
}

// watch emits steps that show what the layer writes.
func (b *builder) watch(l *model.Layer) error {
	for _, e := range l.Outputs {
		v := b.net.Edges[e].Value
		b.settle(v)
		forms := b.vals[v]
		if !v.Shape.Known() || len(forms) == 0 {
			continue
		}
		var t *ten
		var err error
		switch f := forms[0]; {
		case f.codes && f.q.Scale > 0:
			var c *ten
			if c, err = b.codes(v, plain); err != nil {
				return err
			}
			t = b.newFloat(v.Shape, plain)
			b.emit(func(s *state) error {
				if s.see != nil {
					kernels.DequantizeF32(s.k, s.f32(t), s.u8(c)[:t.len], c.q)
				}
				return nil
			}, []*ten{t}, []*ten{c})
		case !f.codes && isFloat(v):
			if t, err = b.float(v, plain); err != nil {
				return err
			}
		default:
			continue
		}
		b.emit(func(s *state) error {
			if s.see == nil {
				return nil
			}
			return s.see(v, model.Of(s.f32(t)[:elems(v.Shape)], v.Shape...))
		}, nil, []*ten{t})
		if b.opt.Force {
			b.writeBack(v, t)
		}
	}
	return nil
}

// emit appends a step of the current layer and extends the lives of the
// buffers it touches.
func (b *builder) emit(run func(*state) error, outs, ins []*ten) {
	at := len(b.prog.steps)
	for _, t := range outs {
		if t != nil && t.from == inArena {
			if t.buf.first < 0 {
				t.buf.first = at
			}
			t.buf.last = max(t.buf.last, at)
		}
	}
	for _, t := range ins {
		if t != nil && t.from == inArena {
			t.buf.last = max(t.buf.last, at)
		}
	}
	b.prog.steps = append(b.prog.steps, step{b.layer, run})
}

// needScratch records the scratch a kernel uses per worker, in bytes.
func (b *builder) needScratch(bytes int) { b.prog.scratch = max(b.prog.scratch, bytes) }

func (b *builder) newBuffer(bytes int) *buffer {
	u := &buffer{bytes: bytes, first: -1}
	b.bufs = append(b.bufs, u)
	return u
}

// newFloat makes a float tensor of a shape in a layout (not yet written).
func (b *builder) newFloat(s model.Shape, lay layout) *ten {
	t := &ten{lay: lay, shape: s, len: elems(s)}
	b.fit(t)
	t.half = b.num.Half
	t.buf = b.newBuffer(4 * t.len)
	return t
}

// newCodes makes a tensor of 8-bit codes.
func (b *builder) newCodes(s model.Shape, lay layout, q kernels.QParams) *ten {
	t := &ten{lay: lay, shape: s, len: elems(s), codes: true, q: q}
	b.fit(t)
	t.buf = b.newBuffer(t.len)
	return t
}

func (b *builder) fit(t *ten) {
	if t.lay == c16 {
		t.n, t.c, t.h, t.w, _ = dims4(t.shape)
		t.len = kernels.C16Len(t.n, t.c, t.h, t.w)
	}
}

// newObject makes a slot for a model.Tensor that a reference evaluation makes.
func (b *builder) newObject(s model.Shape) *ten {
	t := &ten{from: inObject, slot: b.prog.objects, shape: s}
	if s.Known() {
		t.len = elems(s)
	}
	b.prog.objects++
	return t
}

func (b *builder) add(v *model.Value, t *ten) *ten {
	b.vals[v] = append(b.vals[v], t)
	return t
}

// constTensor decodes a constant; the decoded copy lives until the end of the
// layer.
func (b *builder) constTensor(v *model.Value) (*model.Tensor, error) {
	if t := b.consts[v]; t != nil {
		return t, nil
	}
	t, err := v.Const.Value()
	if err != nil {
		return nil, fmt.Errorf("constant %q: %w", v.Name, err)
	}
	b.consts[v] = t
	return t, nil
}

// constFloats returns the values of a constant in the unit's arithmetic:
// rounded to fp16 on units that hold fp16. The slice may be shared and must
// not be modified.
func (b *builder) constFloats(v *model.Value) ([]float32, error) { return b.constAs(v, b.num.Half) }

// constAs returns the values of a constant, rounded to fp16 if asked for.
func (b *builder) constAs(v *model.Value, half bool) ([]float32, error) {
	t, err := b.constTensor(v)
	if err != nil {
		return nil, err
	}
	if t.DType == model.Float16 {
		f := make([]float32, t.Len())
		kernels.F16ToF32(kernels.NewCtx(b.opt.Pool), f, model.View[uint16](t))
		return f, nil
	}
	f := t.Float32s()
	if half {
		r := make([]float32, len(f))
		kernels.RoundF16Slice(kernels.NewCtx(b.opt.Pool), r, f)
		return r, nil
	}
	return f, nil
}

// isFloat reports whether a value is a float tensor as far as arithmetic is
// concerned: declared so, or dequantized.
func isFloat(v *model.Value) bool { return v != nil && v.Type == model.TypeTensor && v.DType.IsFloat() }

// peek returns the layout in which a float value (or its codes) exists now,
// preferring C16; ok is false when it is a constant or an object.
func (b *builder) peek(v *model.Value) (layout, bool) {
	if d, ok := b.dq[v]; ok {
		v = d.codes
	}
	lay, ok := plain, b.views[v] != nil
	for _, t := range b.vals[v] {
		if t.from == inArena || t.from == inInput {
			ok = true
			if t.lay == c16 {
				lay = c16
			}
		}
	}
	return lay, ok
}

// settle gives a reshaped channel-blocked tensor its bytes in row-major order,
// which a reader that cannot walk the old shape needs.
func (b *builder) settle(v *model.Value) {
	src := b.views[v]
	if src == nil {
		return
	}
	delete(b.views, v)
	var t *ten
	if src.codes {
		t = b.newCodes(src.shape, plain, src.q)
	} else {
		t = b.newFloat(src.shape, plain)
		t.half = src.half
	}
	b.unpack(t, src)
	b.add(v, reshaped(t, v.Shape))
}

// unpack emits the copy of a channel-blocked tensor to a plain one.
func (b *builder) unpack(t, src *ten) {
	b.emit(func(s *state) error {
		if src.codes {
			kernels.UnpackC16U8(s.k, s.u8(t), s.u8(src), src.n, src.c, src.h, src.w)
		} else {
			kernels.UnpackC16(s.k, s.f32(t), s.f32(src), src.n, src.c, src.h, src.w)
		}
		return nil
	}, []*ten{t}, []*ten{src})
}

// float returns a value as floats in a layout, in the arithmetic of the
// current unit, emitting what conversions that takes.
func (b *builder) float(v *model.Value, lay layout) (*ten, error) {
	b.settle(v)
	if v.Const != nil {
		return b.floatConst(v, lay)
	}
	if d, ok := b.dq[v]; ok {
		if t := b.find(v, lay, b.num.Half); t != nil {
			return t, nil
		}
		if len(b.vals[v]) == 0 {
			from, _ := b.peek(v)
			src, err := b.codes(d.codes, from)
			if err != nil {
				return nil, err
			}
			t := b.newFloat(v.Shape, src.lay)
			b.dequantize(t, src, d.q)
			b.add(v, t)
		}
	}
	if t := b.find(v, lay, b.num.Half); t != nil {
		return t, nil
	}
	if len(b.vals[v]) == 0 {
		return nil, fmt.Errorf("value %q is read before it is written", v.Name)
	}
	// Change the layout first, then the precision.
	t := b.find(v, lay, false)
	if t == nil {
		src := b.vals[v][0]
		if src.codes {
			return nil, fmt.Errorf("value %q holds 8-bit codes where floats are wanted", v.Name)
		}
		var err error
		if t, err = b.relayout(src, v.Shape, lay); err != nil {
			return nil, fmt.Errorf("value %q: %w", v.Name, err)
		}
		b.add(v, t)
	}
	if b.num.Half && !t.half {
		src := t
		r := *src
		r.from, r.half = inArena, true
		r.buf = b.newBuffer(4 * r.len)
		t = &r
		b.emit(func(s *state) error {
			kernels.RoundF16Slice(s.k, s.f32(t), s.f32(src))
			return nil
		}, []*ten{t}, []*ten{src})
		b.add(v, t)
	}
	return t, nil
}

// dequantize emits the conversion of codes to floats in the unit's arithmetic.
func (b *builder) dequantize(dst, src *ten, q kernels.QParams) {
	half := b.num.Half
	b.emitFlat(dst.len, func(s *state, w *worker, lo, hi int) {
		x := s.f32(dst)[lo:hi]
		kernels.DequantizeF32(w.k, x, s.u8(src)[lo:hi], q)
		if half {
			kernels.RoundF16Slice(w.k, x, x)
		}
	}, []*ten{dst}, []*ten{src})
}

// find returns an existing form of v, or an alias of one.
func (b *builder) find(v *model.Value, lay layout, half bool) *ten {
	for _, t := range b.vals[v] {
		if !t.codes && t.lay == lay && (t.half || !half) {
			return t
		}
	}
	for _, t := range b.vals[v] {
		if t.codes || half && !t.half || t.from == inObject {
			continue
		}
		if lay == plain {
			if a, ok := aliasPlain(t); ok {
				return a
			}
		} else if a, ok := aliasC16(t); ok {
			return a
		}
	}
	return nil
}

// relayout emits the change of layout of a float tensor.
func (b *builder) relayout(src *ten, s model.Shape, lay layout) (*ten, error) {
	if src.lay == lay {
		return src, nil
	}
	if lay == plain {
		if a, ok := aliasPlain(src); ok {
			return a, nil
		}
	} else if _, _, _, _, ok := dims4(s); !ok {
		return nil, fmt.Errorf("shape %v has no channel-blocked layout", s)
	}
	t := b.newFloat(s, lay)
	t.half = src.half
	if lay == c16 {
		b.emit(func(st *state) error {
			kernels.PackC16(st.k, st.f32(t), st.f32(src), t.n, t.c, t.h, t.w)
			return nil
		}, []*ten{t}, []*ten{src})
	} else {
		b.unpack(t, src)
	}
	return t, nil
}

// codes returns a value of 8-bit codes in a layout.
func (b *builder) codes(v *model.Value, lay layout) (*ten, error) {
	b.settle(v)
	if v.Const != nil {
		t, err := b.constTensor(v)
		if err != nil {
			return nil, err
		}
		if lay == c16 {
			return nil, fmt.Errorf("constant codes %q have no channel-blocked layout", v.Name)
		}
		return &ten{from: inConst, codes: true, shape: v.Shape, len: t.Len(), constU: t.Data, q: kernels.QParams{Signed: t.DType == model.Int8}}, nil
	}
	var src *ten
	for _, t := range b.vals[v] {
		if t.codes && t.lay == lay {
			return t, nil
		}
		if t.codes || t.from == inObject {
			src = t
		}
	}
	if src == nil {
		return nil, fmt.Errorf("value %q is not held as 8-bit codes", v.Name)
	}
	if src.from == inObject && lay == plain {
		a := *src
		a.codes = true
		a.q.Signed = v.DType == model.Int8
		return &a, nil
	}
	if lay == plain {
		if a, ok := aliasPlain(src); ok {
			return a, nil
		}
	} else if a, ok := aliasC16(src); ok && src.from != inObject {
		return a, nil
	} else if _, _, _, _, ok := dims4(v.Shape); !ok {
		return nil, fmt.Errorf("shape %v has no channel-blocked layout", v.Shape)
	}
	t := b.newCodes(v.Shape, lay, src.q)
	if lay == c16 {
		fill := uint8(src.q.Zero)
		b.emit(func(s *state) error {
			kernels.PackC16U8(s.k, s.u8(t), s.u8(src), t.n, t.c, t.h, t.w, fill)
			return nil
		}, []*ten{t}, []*ten{src})
	} else {
		b.unpack(t, src)
	}
	return b.add(v, t), nil
}

// floatConst makes a constant an operand.
func (b *builder) floatConst(v *model.Value, lay layout) (*ten, error) {
	f, err := b.constFloats(v)
	if err != nil {
		return nil, err
	}
	t := &ten{from: inConst, shape: v.Shape, len: len(f), constF: f, half: b.num.Half}
	if lay == plain {
		b.prog.weights += int64(4 * len(f))
		return t, nil
	}
	t.lay = c16
	var ok bool
	if t.n, t.c, t.h, t.w, ok = dims4(v.Shape); !ok {
		return nil, fmt.Errorf("constant %q of shape %v has no channel-blocked layout", v.Name, v.Shape)
	}
	t.len = kernels.C16Len(t.n, t.c, t.h, t.w)
	t.constF = make([]float32, t.len)
	kernels.PackC16(kernels.NewCtx(b.opt.Pool), t.constF, f, t.n, t.c, t.h, t.w)
	b.prog.weights += int64(4 * t.len)
	return t, nil
}

// release lets go of the decoded constants of a layer: the kernels have packed
// them. Small ones are kept, because other layers read them too (scales).
func (b *builder) release(l *model.Layer) {
	clear(b.consts)
	if b.opt.drop { // a calibration: quantization reads the weights next
		return
	}
	for _, n := range l.Nodes {
		for _, v := range n.Inputs {
			if v != nil && v.Const != nil && v.Const.Elems() > 1024 {
				v.Const.Drop()
			}
		}
	}
}

// sole reports whether value v, made by a node of the current layer, is read
// exactly once and only inside the layer.
func (b *builder) sole(v *model.Value) bool { return b.reads[v] == 1 && !b.leaves[v] }

func (b *builder) compileLayer(l *model.Layer) error {
	b.reads = map[*model.Value]int{}
	b.leaves = map[*model.Value]bool{}
	for _, n := range l.Nodes {
		for _, v := range n.Inputs {
			b.reads[v]++
		}
		if n.Blocks != nil {
			for _, o := range n.Outputs {
				b.leaves[o] = true
			}
		}
	}
	for _, e := range l.Outputs {
		b.leaves[b.net.Edges[e].Value] = true
	}
	nodes := l.Nodes
	for len(nodes) > 0 {
		used, err := b.compileNode(nodes)
		if err != nil {
			if n := nodes[0]; n != l.Anchor {
				return fmt.Errorf("node %q (%s): %w", n.Name, n.Op, err)
			}
			return err
		}
		nodes = nodes[used:]
	}
	// Dequantized forms are private to a layer: every layer that reads codes
	// on a unit without int8 pays for its own pass, as the unit does.
	for _, n := range l.Nodes {
		if n.Op == "DequantizeLinear" && !b.leaves[n.Outputs[0]] {
			delete(b.vals, n.Outputs[0])
			delete(b.dq, n.Outputs[0])
		}
	}
	return nil
}

// compileNode compiles the first of the given nodes, together with those
// behind it that its kernel absorbs, and returns how many that were.
func (b *builder) compileNode(nodes []*model.Node) (int, error) {
	n := nodes[0]
	if f := compilers[n.Op]; f != nil {
		used, err := f(b, nodes)
		if err == nil || err != errNoKernel {
			return used, err
		}
	}
	return 1, b.compileReference(n)
}

// errNoKernel is returned by a compiler for a form of its operator that no
// kernel handles; the reference evaluation then runs it.
var errNoKernel = fmt.Errorf("no kernel")

// compilers maps operators to the functions that turn them into kernel calls.
var compilers map[model.Op]func(*builder, []*model.Node) (int, error)

func register(f func(*builder, []*model.Node) (int, error), ops ...model.Op) {
	if compilers == nil {
		compilers = map[model.Op]func(*builder, []*model.Node) (int, error){}
	}
	for _, op := range ops {
		if compilers[op] != nil {
			panic("exec: two compilers for " + string(op))
		}
		compilers[op] = f
	}
}

// constInts returns an optional constant integer input; ok is false when it is
// absent or not constant.
func (b *builder) constInts(v *model.Value) ([]int, bool) {
	if v == nil || v.Const == nil {
		return nil, false
	}
	t, err := b.constTensor(v)
	if err != nil || t.DType == model.String {
		return nil, false
	}
	out := make([]int, t.Len())
	for i := range out {
		out[i] = int(t.IntAt(i))
	}
	return out, true
}

// constScalar returns a constant of one element.
func (b *builder) constScalar(v *model.Value) (float32, bool) {
	if v == nil || v.Const == nil || v.Const.Elems() != 1 {
		return 0, false
	}
	t, err := b.constTensor(v)
	if err != nil || t.DType == model.String {
		return 0, false
	}
	return float32(t.At(0)), true
}

// known reports whether all values have known shapes.
func known(vs ...*model.Value) bool {
	return !slices.ContainsFunc(vs, func(v *model.Value) bool { return v != nil && !v.Shape.Known() })
}
