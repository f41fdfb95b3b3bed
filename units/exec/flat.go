package exec

import (
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

// Element-wise layers are computed chunk by chunk, so that what lies between
// dequantizing the operands and quantizing the result never leaves the cache.

// flatChunk is the number of elements a worker takes at a time: three float
// buffers of it fit a first-level cache.
const flatChunk = 4096

// worker is the memory of one thread of a call.
type worker struct {
	k *kernels.Ctx // runs on the calling goroutine
	a [flatChunk]float32
	b [flatChunk]float32
}

// flatTask runs a function over chunks of n elements.
type flatTask struct {
	s *state
	n int
	f func(s *state, w *worker, lo, hi int)
}

// RunPiece computes one chunk.
func (t *flatTask) RunPiece(i, w int) {
	lo := i * flatChunk
	t.f(t.s, t.s.workers[w], lo, min(lo+flatChunk, t.n))
}

// emitFlat appends a step that computes elements [lo, hi) of its outputs from
// the same elements of its inputs.
func (b *builder) emitFlat(n int, f func(s *state, w *worker, lo, hi int), outs, ins []*ten) {
	pieces := (n + flatChunk - 1) / flatChunk
	b.emit(func(s *state) error {
		s.flat = flatTask{s: s, n: n, f: f}
		s.k.Pool().Run(pieces, &s.flat)
		s.flat.f = nil
		return nil
	}, outs, ins)
}

// source is an operand of a flat step: floats, 8-bit codes, or one constant.
type source struct {
	t      *ten
	codes  bool
	q      kernels.QParams
	half   bool // round to fp16 after dequantizing
	scalar float32
	fixed  bool
}

// floats returns elements [lo, hi), dequantized into buf if they are codes.
func (o *source) floats(s *state, w *worker, buf []float32, lo, hi int) []float32 {
	if !o.codes {
		return s.f32(o.t)[lo:hi]
	}
	buf = buf[:hi-lo]
	kernels.DequantizeF32(w.k, buf, s.u8(o.t)[lo:hi], o.q)
	if o.half {
		kernels.RoundF16Slice(w.k, buf, buf)
	}
	return buf
}

// flatSource returns v for a flat step in a layout: its codes if the layer
// dequantizes it, else its floats.
func (b *builder) flatSource(v *model.Value, lay layout) (source, error) {
	if d, ok := b.dq[v]; ok && len(b.vals[v]) == 0 {
		t, err := b.codes(d.codes, lay)
		return source{t: t, codes: true, q: d.q, half: b.num.Half}, err
	}
	t, err := b.float(v, lay)
	return source{t: t}, err
}

// flatDst makes the destination of a flat step: codes if a quantize is fused.
func (b *builder) flatDst(t tail, s model.Shape, lay layout) *ten {
	if t.quant {
		return b.newCodes(s, lay, t.q)
	}
	return b.newFloat(s, lay)
}

// target returns where a flat step computes its floats.
func target(s *state, w *worker, dst *ten, lo, hi int) []float32 {
	if dst.codes {
		return w.a[:hi-lo]
	}
	return s.f32(dst)[lo:hi]
}

// deliver rounds floats and quantizes them if the destination holds codes.
func deliver(s *state, w *worker, dst *ten, x []float32, act kernels.Activation, round kernels.Round, lo, hi int) {
	kernels.Finish(w.k, x, act, round)
	if dst.codes {
		kernels.QuantizeF32(w.k, s.u8(dst)[lo:hi], x, dst.q)
	}
}

// flat compiles a function of one element at a time, in whichever layout the
// operand is; a fused quantize is part of it. From codes to codes it becomes a
// table.
func (b *builder) flat(nodes []*model.Node, f func(k *kernels.Ctx, dst, src []float32)) (int, error) {
	n := nodes[0]
	t := b.fuseQuantize(nodes)
	lay, _ := b.peek(n.In(0))
	src, err := b.flatSource(n.In(0), lay)
	if err != nil {
		return 0, err
	}
	dst := b.flatDst(t, n.Outputs[0].Shape, lay)
	round := b.num.Round
	if src.codes && t.quant {
		var all, table [256]uint8
		for i := range all {
			all[i] = uint8(i)
		}
		k := kernels.NewCtx(nil)
		var x [256]float32
		kernels.DequantizeF32(k, x[:], all[:], src.q)
		if src.half {
			kernels.RoundF16Slice(k, x[:], x[:])
		}
		f(k, x[:], x[:])
		kernels.Finish(k, x[:], kernels.Activation{}, round)
		kernels.QuantizeF32(k, table[:], x[:], t.q)
		b.emit(func(s *state) error {
			kernels.LookupU8(s.k, s.u8(dst), s.u8(src.t)[:dst.len], &table)
			return nil
		}, []*ten{dst}, []*ten{src.t})
	} else {
		b.emitFlat(dst.len, func(s *state, w *worker, lo, hi int) {
			x := target(s, w, dst, lo, hi)
			f(w.k, x, src.floats(s, w, w.b[:], lo, hi))
			deliver(s, w, dst, x, kernels.Activation{}, round, lo, hi)
		}, []*ten{dst}, []*ten{src.t})
	}
	b.add(t.out, dst)
	return t.used, nil
}

// implied reports whether an activation is a clamp that the range of the codes
// implies: rectifying before quantizing to unsigned codes around zero, say.
func implied(act kernels.Activation, q kernels.QParams) bool {
	if act.Kind != kernels.ActClip {
		return false
	}
	lo, hi := q.Range()
	return act.A <= float32(lo-q.Zero)*q.Scale && act.B >= float32(hi-q.Zero)*q.Scale
}

// flatBinary emits dst = quantize(round(act(op(x, y)))) of operands that are
// walked element by element. One of them may be a constant.
func (b *builder) flatBinary(op kernels.BinaryOp, dst *ten, x, y source, act kernels.Activation, round kernels.Round) {
	if dst.codes && implied(act, dst.q) {
		act = kernels.Activation{}
	}
	var ins []*ten
	for _, o := range []source{x, y} {
		if !o.fixed {
			ins = append(ins, o.t)
		}
	}
	if op == kernels.Add && dst.codes && x.codes && y.codes && b.num.Int8 && !x.half && !y.half && round == kernels.RoundNone && act.Kind == kernels.ActNone {
		b.emit(func(s *state) error {
			d := s.u8(dst)[:dst.len]
			kernels.SumQ8(s.k, d, dst.q, s.u8(x.t)[:len(d)], x.q, s.u8(y.t)[:len(d)], y.q)
			return nil
		}, []*ten{dst}, ins)
		return
	}
	if op == kernels.Add && dst.codes && x.codes && y.codes && x.half == y.half && x.half == (round == kernels.RoundF16) && round <= kernels.RoundF16 &&
		(act.Kind == kernels.ActNone || act.Kind == kernels.ActClip) {
		b.emit(func(s *state) error {
			d := s.u8(dst)[:dst.len]
			kernels.AddQ8(s.k, d, dst.q, s.u8(x.t)[:len(d)], x.q, s.u8(y.t)[:len(d)], y.q, act, round)
			return nil
		}, []*ten{dst}, ins)
		return
	}
	b.emitFlat(dst.len, func(s *state, w *worker, lo, hi int) {
		d := target(s, w, dst, lo, hi)
		switch {
		case y.fixed:
			kernels.BinaryScalar(w.k, op, d, x.floats(s, w, w.b[:], lo, hi), y.scalar, false)
		case x.fixed:
			kernels.BinaryScalar(w.k, op, d, y.floats(s, w, w.b[:], lo, hi), x.scalar, true)
		default:
			kernels.Binary(w.k, op, d, x.floats(s, w, w.a[:], lo, hi), y.floats(s, w, w.b[:], lo, hi))
		}
		deliver(s, w, dst, d, act, round, lo, hi)
	}, []*ten{dst}, ins)
}
