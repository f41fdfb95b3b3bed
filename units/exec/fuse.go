package exec

import (
	"math"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

// tail is what a kernel absorbs after its anchor: nodes of the same layer, each
// the only reader of the value before it.
type tail struct {
	bias  *model.Value // constant, one value per output channel
	res   *model.Value // residual operand
	act   kernels.Activation
	quant bool
	q     kernels.QParams
	out   *model.Value // what the last absorbed node writes
	used  int          // nodes absorbed, the anchor included
}

// fuse collects the tail of nodes[0]. channelAxis is the axis a bias runs
// along (-1 refuses biases); residual allows a residual add.
func (b *builder) fuse(nodes []*model.Node, channelAxis int, residual bool) tail {
	t := tail{out: nodes[0].Outputs[0], used: 1}
	stage := 0
	for _, n := range nodes[1:] {
		if !b.sole(t.out) || len(n.Outputs) == 0 || !known(t.out, n.Outputs[0]) {
			break
		}
		switch {
		case n.Op == "Add" && stage == 0 && channelAxis >= 0 && b.biasOf(n, t.out, channelAxis) != nil:
			t.bias, stage = b.biasOf(n, t.out, channelAxis), 1
		case n.Op == "Add" && stage <= 1 && residual && b.residualOf(n, t.out) != nil:
			t.res, stage = b.residualOf(n, t.out), 2
		case stage <= 2 && n.In(0) == t.out && b.isActivation(n):
			t.act, _ = b.activation(n)
			stage = 3
		case n.Op == "QuantizeLinear" && n.In(0) == t.out:
			q, ok := b.quantParams(n)
			if !ok {
				return t
			}
			t.q, t.quant = q, true
			stage = 4
		default:
			return t
		}
		t.out = n.Outputs[0]
		t.used++
		if stage == 4 {
			break
		}
	}
	return t
}

func otherInput(n *model.Node, v *model.Value) *model.Value {
	if len(n.Inputs) != 2 {
		return nil
	}
	if n.In(0) == v {
		return n.In(1)
	}
	if n.In(1) == v {
		return n.In(0)
	}
	return nil
}

func (b *builder) biasOf(n *model.Node, v *model.Value, axis int) *model.Value {
	c := otherInput(n, v)
	if c == nil || c.Const == nil || !c.Const.DType.IsFloat() || len(c.Shape) > len(v.Shape) || !n.Outputs[0].Shape.Equal(v.Shape) {
		return nil
	}
	at := axis - (len(v.Shape) - len(c.Shape))
	if at < 0 || at >= len(c.Shape) || c.Shape[at] != v.Shape[axis] || c.Shape.Elems() != int64(v.Shape[axis]) {
		return nil
	}
	return c
}

func (b *builder) residualOf(n *model.Node, v *model.Value) *model.Value {
	c := otherInput(n, v)
	if c == nil || c == v || !isFloat(c) || !c.Shape.Equal(v.Shape) {
		return nil
	}
	return c
}

func (b *builder) isActivation(n *model.Node) bool {
	_, ok := b.activation(n)
	return ok
}

// activation returns the kernel's form of a unary node.
func (b *builder) activation(n *model.Node) (kernels.Activation, bool) {
	attr := func(name string, def float64) float32 { return float32(n.Attrs.Float(name, def)) }
	switch n.Op {
	case "Relu":
		return kernels.Relu(), true
	case "Clip":
		lo, hi := float32(math.Inf(-1)), float32(math.Inf(1))
		var ok bool
		if n.In(1) != nil {
			if lo, ok = b.constScalar(n.In(1)); !ok {
				return kernels.Activation{}, false
			}
		}
		if n.In(2) != nil {
			if hi, ok = b.constScalar(n.In(2)); !ok {
				return kernels.Activation{}, false
			}
		}
		return kernels.Clip(lo, hi), true
	case "LeakyRelu":
		return kernels.LeakyRelu(attr("alpha", 0.01)), true
	case "HardSigmoid":
		return kernels.HardSigmoid(attr("alpha", 0.2), attr("beta", 0.5)), true
	case "HardSwish":
		return kernels.Act(kernels.ActHardSwish), true
	case "Sigmoid":
		return kernels.Act(kernels.ActSigmoid), true
	case "Tanh":
		return kernels.Act(kernels.ActTanh), true
	case "Swish":
		if attr("alpha", 1) != 1 {
			return kernels.Activation{}, false
		}
		return kernels.Act(kernels.ActSilu), true
	case "Gelu":
		if n.Attrs.String("approximate", "none") == "tanh" {
			return kernels.Act(kernels.ActGeluTanh), true
		}
		return kernels.Act(kernels.ActGelu), true
	case "Elu":
		return kernels.Elu(attr("alpha", 1)), true
	case "Softplus":
		return kernels.Act(kernels.ActSoftplus), true
	case "Softsign":
		return kernels.Act(kernels.ActSoftsign), true
	case "Mish":
		return kernels.Act(kernels.ActMish), true
	case "Selu":
		return kernels.Activation{Kind: kernels.ActSelu, A: attr("alpha", 1.67326319217681884765625), B: attr("gamma", 1.05070102214813232421875)}, true
	case "ThresholdedRelu":
		return kernels.Activation{Kind: kernels.ActThresholdedRelu, A: attr("alpha", 1)}, true
	}
	return kernels.Activation{}, false
}

// quantParams returns the parameters of a per-tensor 8-bit QuantizeLinear or
// DequantizeLinear node; ok is false for other forms.
func (b *builder) quantParams(n *model.Node) (kernels.QParams, bool) {
	var q kernels.QParams
	codes := n.Outputs[0]
	if n.Op == "DequantizeLinear" {
		codes = n.In(0)
	}
	switch codes.DType {
	case model.Int8:
		q.Signed = true
	case model.UInt8:
	default:
		return q, false
	}
	var ok bool
	if q.Scale, ok = b.constScalar(n.In(1)); !ok || !(q.Scale > 0) || math.IsInf(float64(q.Scale), 0) {
		return q, false
	}
	if z := n.In(2); z != nil {
		zs, ok := b.constInts(z)
		if !ok || len(zs) != 1 {
			return q, false
		}
		q.Zero = int32(zs[0])
	}
	return q, true
}

// epilogue builds the kernel epilogue of a product: the bias it has by itself
// (nil for none), a fused one, the activation and the rounding. Biases of int8
// products are added to the scaled int32 sum and stay as exact as they are
// given (half is false then).
func (b *builder) epilogue(t tail, channels int, bias []float32, round kernels.Round, half bool) (kernels.Epilogue, error) {
	if t.bias != nil {
		f, err := b.constAs(t.bias, half)
		if err != nil {
			return kernels.Epilogue{}, err
		}
		sum := make([]float32, channels)
		copy(sum, bias)
		for i := range sum {
			sum[i] += f[i]
		}
		bias = sum
	}
	return kernels.Epilogue{Bias: bias, Act: t.act, Round: round}, nil
}

// store records the result of a float step: dst holds t's value before
// quantization; a fused quantize is appended.
func (b *builder) store(t tail, dst *ten) {
	if !t.quant {
		b.add(t.out, dst)
		return
	}
	b.quantize(t.out, dst, t.q)
}

// quantize emits the quantization of a float tensor.
func (b *builder) quantize(out *model.Value, src *ten, q kernels.QParams) {
	dst := b.newCodes(out.Shape, src.lay, q)
	b.emit(func(s *state) error {
		kernels.QuantizeF32(s.k, s.u8(dst), s.f32(src)[:dst.len], q)
		return nil
	}, []*ten{dst}, []*ten{src})
	b.add(out, dst)
}
