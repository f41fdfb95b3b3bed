package coreml

import (
	"math/rand/v2"
	"testing"

	"github.com/triune-sim/triune/model"
)

// TestDamagedPrograms changes well-formed programs in ways that keep the
// protobuf valid: what a fuzzer of bytes seldom reaches. Nothing may panic,
// hang or ask for much memory.
func TestDamagedPrograms(t *testing.T) {
	specs, weights := shipped(t)
	rounds := 250
	if testing.Short() {
		rounds = 40
	}
	for i, spec := range specs {
		rng := rand.New(rand.NewPCG(7, uint64(i)))
		for range rounds {
			m, err := decodeModel(spec)
			if err != nil {
				t.Fatal(err)
			}
			for range 1 + rng.IntN(3) {
				damage(rng, m)
			}
			exercise(t, m.encode(), weights[i])
		}
	}
}

var strange = []int64{0, 1, -1, 2, -2, 3, 7, 64, 1 << 16, 1<<31 - 1, -1 << 31}

func pickOf[T any](r *rand.Rand, s []T) T { return s[r.IntN(len(s))] }

func damage(r *rand.Rand, m *specModel) {
	f := m.program.functions["main"]
	op := pickOf(r, f.block.ops)
	shape := func(s model.Shape) model.Shape {
		s = s.Clone()
		switch r.IntN(4) {
		case 0:
			return append(s, int(pickOf(r, strange))&0x7fffffff)
		case 1:
			if len(s) > 0 {
				return s[1:]
			}
		default:
			if len(s) > 0 {
				s[r.IntN(len(s))] = int(pickOf(r, strange)) & 0x7fffffff
			}
		}
		return s
	}
	value := func(v *value) {
		switch {
		case v.blob && r.IntN(2) == 0:
			v.off = uint64(pickOf(r, strange)) * blobAlign
		case v.blob:
			v.typ.shape = shape(v.typ.shape)
		case len(v.ints) > 0 && r.IntN(3) > 0:
			v.ints[r.IntN(len(v.ints))] = pickOf(r, strange)
		case len(v.ints) > 0 && r.IntN(2) == 0:
			v.ints = append(v.ints, pickOf(r, strange))
			v.typ.shape = model.Shape{len(v.ints)}
		case len(v.strs) > 0:
			v.strs[0] = pickOf(r, []string{"", "custom", "same", "int8", "fp64", "reverse", "bidirectional"})
		case len(v.raw) > 0:
			v.raw = append([]byte{}, v.raw...)
			v.raw[r.IntN(len(v.raw))] ^= byte(1 << r.IntN(8))
		default:
			v.typ.shape = shape(v.typ.shape)
		}
	}
	switch r.IntN(8) {
	case 0: // another operation of the same operands
		op.typ = pickOf(r, Operations())
	case 1: // an operand less
		if len(op.inputs) > 0 {
			i := r.IntN(len(op.inputs))
			op.inputs = append(op.inputs[:i:i], op.inputs[i+1:]...)
		}
	case 2: // another operand
		if len(op.inputs) > 0 {
			a := &op.inputs[r.IntN(len(op.inputs))]
			o := pickOf(r, f.block.ops)
			if len(a.args) > 0 && len(o.outputs) > 0 {
				a.args[r.IntN(len(a.args))] = binding{name: o.outputs[0].name}
			}
		}
	case 3: // a declared shape or type
		if len(op.outputs) > 0 {
			o := &op.outputs[r.IntN(len(op.outputs))]
			if r.IntN(2) == 0 {
				o.typ.shape = shape(o.typ.shape)
			} else {
				o.typ.dtype = pickOf(r, []model.DType{model.Float16, model.Float32, model.Int32, model.Bool, model.UInt1, model.Int4, model.String})
			}
		}
	case 4: // an input's shape
		in := &f.inputs[r.IntN(len(f.inputs))]
		if in.typ.kind == kindTensor {
			in.typ.shape = shape(in.typ.shape)
		}
	default: // a constant
		for range 20 {
			op := pickOf(r, f.block.ops)
			for _, a := range op.attrs {
				if a.key != "name" && r.IntN(2) == 0 {
					value(a.val)
					return
				}
			}
			for _, a := range op.inputs {
				for _, b := range a.args {
					if b.val != nil {
						value(b.val)
						return
					}
				}
			}
		}
	}
}
