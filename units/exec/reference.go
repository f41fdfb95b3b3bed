package exec

import (
	"fmt"
	"unsafe"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// refInput is how a reference evaluation gets one operand.
type refInput struct {
	t     *ten
	dtype model.DType // of codes
	fixed *model.Tensor
	half  bool // round at run time (objects of unknown shape)
}

func (r *refInput) get(s *state) ops.Datum {
	switch {
	case r.fixed != nil:
		return ops.TensorDatum(r.fixed)
	case r.t == nil:
		return ops.Datum{}
	case r.t.from == inObject:
		d := s.objects[r.t.slot]
		if d.Tensor != nil && d.Tensor.DType.IsFloat() && d.Tensor.DType != model.Float32 {
			d = ops.TensorDatum(d.Tensor.Convert(model.Float32))
		}
		if r.half && d.Tensor != nil && d.Tensor.DType == model.Float32 {
			c := d.Tensor.Clone()
			f := model.View[float32](c)
			kernels.RoundF16Slice(s.k, f, f)
			d = ops.TensorDatum(c)
		}
		return d
	case r.t.codes:
		return ops.TensorDatum(&model.Tensor{DType: r.dtype, Shape: r.t.shape, Data: s.u8(r.t)})
	}
	return ops.TensorDatum(model.Of(s.f32(r.t)[:elems(r.t.shape)], r.t.shape...))
}

// refOperand prepares a value for the reference evaluation.
func (b *builder) refOperand(v *model.Value) (refInput, *ten, error) {
	switch {
	case v == nil:
		return refInput{}, nil, nil
	case v.Const != nil:
		t, err := b.constTensor(v)
		if err != nil {
			return refInput{}, nil, err
		}
		if t.DType.IsFloat() {
			f, err := b.constFloats(v)
			if err != nil {
				return refInput{}, nil, err
			}
			t = model.Of(f, v.Shape...)
		}
		b.prog.weights += int64(len(t.Data))
		return refInput{fixed: t}, nil, nil
	}
	b.settle(v)
	forms := b.vals[v]
	if _, ok := b.dq[v]; !ok {
		if len(forms) == 0 {
			return refInput{}, nil, fmt.Errorf("value %q is read before it is written", v.Name)
		}
		if f := forms[0]; f.from == inObject && !f.codes && (!v.Shape.Known() || !isFloat(v)) {
			return refInput{t: f, half: b.num.Half && !f.half}, f, nil
		}
		if forms[0].codes {
			t, err := b.codes(v, plain)
			return refInput{t: t, dtype: v.DType}, t, err
		}
	}
	t, err := b.float(v, plain)
	return refInput{t: t}, t, err
}

// compileReference makes a node run through the reference evaluation of
// package model/ops, which computes in float64: operands are what the unit
// holds, results are rounded as the unit rounds.
func (b *builder) compileReference(n *model.Node) error {
	if !ops.Supported(n.Op) {
		return fmt.Errorf("no kernel and no reference evaluation for operator %s", n.Op)
	}
	if k := len(b.prog.refs); k == 0 || b.prog.refs[k-1] != b.layer {
		b.prog.refs = append(b.prog.refs, b.layer)
	}
	in := make([]refInput, len(n.Inputs))
	var ins []*ten
	for i, v := range n.Inputs {
		r, t, err := b.refOperand(v)
		if err != nil {
			return err
		}
		in[i] = r
		ins = append(ins, t)
	}
	outer := map[*model.Value]refInput{}
	for _, v := range outerValues(n) {
		if v.Const != nil {
			continue
		}
		r, t, err := b.refOperand(v)
		if err != nil {
			return err
		}
		outer[v] = r
		ins = append(ins, t)
	}
	outs := make([]*ten, len(n.Outputs))
	var defs []*ten
	round := b.num.Round
	switch n.Op {
	case "Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum":
		round = b.num.DotRound
	}
	half := b.num.Half
	for i, v := range n.Outputs {
		if v == nil {
			continue
		}
		if isFloat(v) && v.Shape.Known() && n.Blocks == nil {
			outs[i] = b.newFloat(v.Shape, plain)
			defs = append(defs, outs[i])
		} else {
			outs[i] = b.newObject(v.Shape)
			outs[i].half = half
			if (v.DType == model.Int8 || v.DType == model.UInt8) && v.Shape.Known() {
				outs[i].codes = true
				outs[i].q.Signed = v.DType == model.Int8
			}
		}
		b.add(v, outs[i])
	}
	b.emit(func(s *state) error {
		args := make([]ops.Datum, len(in))
		for i := range in {
			args[i] = in[i].get(s)
		}
		o := ops.Options{}
		if len(outer) > 0 {
			o.Outer = func(v *model.Value) (ops.Datum, bool) {
				r, ok := outer[v]
				if !ok {
					return ops.Datum{}, false
				}
				return r.get(s), true
			}
		}
		res, err := ops.EvalNodeData(s.ctx, n, args, o)
		if err != nil {
			return err
		}
		for i, t := range outs {
			if t == nil || i >= len(res) {
				continue
			}
			if t.from == inArena {
				x := res[i].Tensor
				if x == nil || x.Len() != t.len {
					return fmt.Errorf("output %q does not have the shape %v the graph declares", n.Outputs[i].Name, t.shape)
				}
				dst := s.f32(t)
				copy(dst, x.Float32s())
				kernels.Finish(s.k, dst, kernels.Activation{}, round)
				continue
			}
			s.objects[t.slot] = own(s, res[i], round)
		}
		return nil
	}, defs, ins)
	return nil
}

// own makes a result independent of the arena and rounds floats.
func own(s *state, d ops.Datum, round kernels.Round) ops.Datum {
	t := d.Tensor
	if t == nil {
		return d
	}
	switch {
	case t.DType.IsFloat():
		f := append([]float32(nil), t.Float32s()...)
		kernels.Finish(s.k, f, kernels.Activation{}, round)
		return ops.TensorDatum(model.Of(f, t.Shape...))
	case len(t.Data) > 0 && len(s.arena) > 0:
		p, a := uintptr(unsafe.Pointer(&t.Data[0])), uintptr(s.base)
		if p >= a && p < a+uintptr(len(s.arena)) {
			return ops.TensorDatum(t.Clone())
		}
	}
	return d
}

// outerValues returns what the subgraphs of a node read from outside.
func outerValues(n *model.Node) []*model.Value {
	var out []*model.Value
	seen := map[*model.Value]bool{}
	var walk func(n *model.Node, local map[*model.Value]bool)
	walk = func(n *model.Node, local map[*model.Value]bool) {
		for _, g := range n.Blocks {
			inner := map[*model.Value]bool{}
			for v := range local {
				inner[v] = true
			}
			for _, v := range g.Inputs {
				inner[v] = true
			}
			for _, x := range g.Nodes {
				for _, v := range x.Outputs {
					inner[v] = true
				}
			}
			read := func(v *model.Value) {
				if v != nil && !inner[v] && !seen[v] {
					seen[v] = true
					out = append(out, v)
				}
			}
			for _, x := range g.Nodes {
				for _, v := range x.Inputs {
					read(v)
				}
				walk(x, inner)
			}
			for _, v := range g.Outputs {
				read(v)
			}
		}
	}
	walk(n, map[*model.Value]bool{})
	return out
}
