package exec

import (
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

func init() {
	register(compileQuantize, "QuantizeLinear")
	register(compileDequantize, "DequantizeLinear")
	register(compileCast, "Cast")
}

func compileQuantize(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	q, ok := b.quantParams(n)
	if !ok || !isFloat(n.In(0)) || !known(n.In(0)) {
		return 0, errNoKernel
	}
	lay, _ := b.peek(n.In(0))
	src, err := b.float(n.In(0), lay)
	if err != nil {
		return 0, err
	}
	b.quantize(n.Outputs[0], src, q)
	return 1, nil
}

// compileDequantize computes nothing for a per-tensor dequantize inside a
// layer: its readers take the codes, or have them converted.
func compileDequantize(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	q, ok := b.quantParams(n)
	if !ok || n.In(0).Const != nil || !known(n.In(0)) {
		return 0, errNoKernel
	}
	out := n.Outputs[0]
	b.dq[out] = dequant{n.In(0), q}
	if !b.leaves[out] {
		return 1, nil
	}
	lay, _ := b.peek(out)
	if _, err := b.float(out, lay); err != nil {
		return 0, err
	}
	delete(b.dq, out)
	return 1, nil
}

// compileCast handles casts between float types: a cast to fp16 rounds on
// every unit, other casts change nothing that the unit holds.
func compileCast(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	if !isFloat(x) || !isFloat(out) || x.Const != nil || !known(x) || x.DType == model.Float64 {
		return 0, errNoKernel
	}
	lay, _ := b.peek(x)
	src, err := b.float(x, lay)
	if err != nil {
		return 0, err
	}
	switch out.DType {
	case model.Float32, model.Float64:
		b.add(out, reshaped(src, out.Shape))
	case model.Float16:
		if src.half {
			b.add(out, reshaped(src, out.Shape))
			return 1, nil
		}
		dst := b.newFloat(out.Shape, lay)
		dst.half = true
		b.emit(func(s *state) error {
			d := s.f32(dst)
			kernels.RoundF16Slice(s.k, d, s.f32(src)[:len(d)])
			return nil
		}, []*ten{dst}, []*ten{src})
		b.add(out, dst)
	default:
		return 0, errNoKernel
	}
	return 1, nil
}
