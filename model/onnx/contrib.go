package onnx

import (
	"fmt"

	"github.com/triune-sim/triune/model"
)

// Float operators of ONNX Runtime (domain com.microsoft, and two that it puts
// into the default domain), which its optimiser writes into saved models.
// Their meaning is that of ONNX Runtime's ContribOperators.md.

// contribRules joins rules.
var contribRules = map[string]func(*builder, *node) error{
	"com.microsoft.Gelu":                             as("Gelu"),
	"com.microsoft.BiasGelu":                         biasGelu("none"),
	"com.microsoft.FastGelu":                         biasGelu("tanh"),
	"com.microsoft.QuickGelu":                        quickGelu,
	"com.microsoft.FusedMatMul":                      fusedMatMul,
	"com.microsoft.FusedGemm":                        fusedGemm,
	"com.microsoft.FusedConv":                        fusedConv,
	"com.microsoft.LayerNormalization":               as("LayerNormalization"),
	"com.microsoft.SkipLayerNormalization":           skipNorm("LayerNormalization"),
	"com.microsoft.SkipSimplifiedLayerNormalization": skipNorm("RMSNormalization"),
	"com.microsoft.MatMulNBits":                      matMulNBits,
	"com.microsoft.Attention":                        packedAttention,
	"com.microsoft.MultiHeadAttention":               multiHeadAttention,
	"SimplifiedLayerNormalization":                   simplifiedNorm,
}

// biasGelu is Gelu of input plus an optional bias.
func biasGelu(approximate string) func(*builder, *node) error {
	return func(b *builder, n *node) error {
		x := n.input(0)
		if x == nil {
			return fmt.Errorf("input 0 is missing")
		}
		if bias := n.input(1); bias != nil {
			var err error
			if x, err = b.one("Add", n, "biased", nil, x, bias); err != nil {
				return err
			}
		}
		_, err := b.emit("Gelu", n.label(), []*model.Value{x}, model.Attrs{"approximate": approximate}, n.outputs...)
		return err
	}
}

// quickGelu is x sigmoid(alpha x), alpha 1.702 by default.
func quickGelu(b *builder, n *node) error {
	_, err := b.emit("Swish", n.label(), n.in, model.Attrs{"alpha": n.attrs.Float("alpha", float64(float32(1.702)))}, n.outputs...)
	return err
}

// swapLast transposes the last two axes of a matrix operand.
func (b *builder) swapLast(n *node, suffix string, x *model.Value) (*model.Value, error) {
	r := len(x.Shape)
	if r < 2 {
		return nil, fmt.Errorf("operand %s of shape %v cannot be transposed", suffix, x.Shape)
	}
	perm := make([]int, r)
	for i := range perm {
		perm[i] = i
	}
	perm[r-1], perm[r-2] = r-2, r-1
	return b.one("Transpose", n, suffix+"_transposed", model.Attrs{"perm": perm}, x)
}

// fusedMatMul is alpha A' B'.
func fusedMatMul(b *builder, n *node) error {
	if n.attrs.Int("transBatchA", 0) != 0 || n.attrs.Int("transBatchB", 0) != 0 {
		return fmt.Errorf("transBatchA and transBatchB are not supported")
	}
	if len(n.in) != 2 || n.in[0] == nil || n.in[1] == nil {
		return fmt.Errorf("has %d inputs, wants 2", len(n.in))
	}
	x, y := n.in[0], n.in[1]
	var err error
	if n.attrs.Int("transA", 0) != 0 && len(x.Shape) > 1 {
		if x, err = b.swapLast(n, "a", x); err != nil {
			return err
		}
	}
	if n.attrs.Int("transB", 0) != 0 && len(y.Shape) > 1 {
		if y, err = b.swapLast(n, "b", y); err != nil {
			return err
		}
	}
	alpha := n.attrs.Float("alpha", 1)
	if alpha == 1 {
		_, err = b.emit("MatMul", n.label(), []*model.Value{x, y}, nil, n.outputs...)
		return err
	}
	p, err := b.one("MatMul", n, "product", nil, x, y)
	if err != nil {
		return err
	}
	_, err = b.emit("Mul", n.label(), []*model.Value{p, b.floatConst(n, "alpha", p.DType, alpha)}, nil, n.outputs...)
	return err
}

// activate adds the activation that an operator was fused with and gives the
// node's output.
func (b *builder) activate(n *node, x *model.Value, name string, params []float64) error {
	param := func(i int, def float64) float64 {
		if i < len(params) {
			return params[i]
		}
		return def
	}
	var attrs model.Attrs
	in := []*model.Value{x}
	switch name {
	case "":
		name = "Identity"
	case "Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Softsign":
	case "LeakyRelu":
		attrs = model.Attrs{"alpha": param(0, 0.01)}
	case "HardSigmoid":
		attrs = model.Attrs{"alpha": param(0, 0.2), "beta": param(1, 0.5)}
	case "Clip":
		in = append(in, b.floatConst(n, "min", x.DType, param(0, 0)), b.floatConst(n, "max", x.DType, param(1, 0)))
	default:
		return fmt.Errorf("the activation %q is not supported", name)
	}
	_, err := b.emit(model.Op(name), n.label()+"/"+name, in, attrs, n.outputs...)
	return err
}

func fusedGemm(b *builder, n *node) error {
	act := n.attrs.String("activation", "")
	var params []float64
	for _, k := range []string{"activation_alpha", "activation_beta", "activation_gamma"} {
		if v, ok := n.attrs[k].(float64); ok {
			params = append(params, v)
		}
		delete(n.attrs, k)
	}
	delete(n.attrs, "activation")
	x, err := b.emit("Gemm", n.label(), n.in, n.attrs, b.fresh(n.label()+"/gemm"))
	if err != nil {
		return err
	}
	return b.activate(n, x[0], act, params)
}

// fusedConv is a convolution, an optional sum with input 3, an activation.
func fusedConv(b *builder, n *node) error {
	act, params := n.attrs.String("activation", ""), n.attrs.Floats("activation_params")
	delete(n.attrs, "activation")
	delete(n.attrs, "activation_params")
	vs, err := b.emit("Conv", n.label(), n.in[:min(3, len(n.in))], n.attrs, b.fresh(n.label()+"/conv"))
	if err != nil {
		return err
	}
	x := vs[0]
	if z := n.input(3); z != nil {
		if x, err = b.one("Add", n, "sum", nil, x, z); err != nil {
			return err
		}
	}
	return b.activate(n, x, act, params)
}

// skipNorm normalises input + skip (+ bias) over the last axis; the sum is
// output 3. Inputs: input, skip, gamma, beta (not for RMS), bias.
func skipNorm(op model.Op) func(*builder, *node) error {
	return func(b *builder, n *node) error {
		in := append([]*model.Value{}, n.in...)
		if op == "RMSNormalization" && len(in) > 3 { // no beta
			in = []*model.Value{in[0], in[1], in[2], nil, in[3]}
		}
		for len(in) < 5 {
			in = append(in, nil)
		}
		for i := range 3 {
			if in[i] == nil {
				return fmt.Errorf("input %d is missing", i)
			}
		}
		for i := 1; i < len(n.outputs) && i < 3; i++ {
			if n.outputs[i] != "" {
				return fmt.Errorf("output %d, a training statistic, is not supported", i)
			}
		}
		sum, name := "", n.label()+"/sum"
		if len(n.outputs) > 3 && n.outputs[3] != "" {
			sum = n.outputs[3]
		}
		add := func(out string, x, y *model.Value) (*model.Value, error) {
			if out == "" {
				out = b.fresh(name)
			}
			vs, err := b.emit("Add", out, []*model.Value{x, y}, nil, out)
			if err != nil {
				return nil, err
			}
			return vs[0], nil
		}
		first := sum
		if in[4] != nil {
			first = ""
		}
		x, err := add(first, in[0], in[1])
		if err == nil && in[4] != nil {
			x, err = add(sum, x, in[4])
		}
		if err != nil {
			return err
		}
		attrs := model.Attrs{"axis": -1, "epsilon": n.attrs.Float("epsilon", 1e-12)}
		_, err = b.emit(op, n.label(), []*model.Value{x, in[2], in[3]}, attrs, n.outputs[0])
		return err
	}
}

// simplifiedNorm is RMSNormalization under its older name.
func simplifiedNorm(b *builder, n *node) error {
	for _, o := range n.outputs[1:] {
		if o != "" {
			return fmt.Errorf("the output %q, a training statistic, is not supported", o)
		}
	}
	attrs := model.Attrs{"axis": n.attrs.Int("axis", -1), "epsilon": n.attrs.Float("epsilon", 1e-5)}
	_, err := b.emit("RMSNormalization", n.label(), n.in, attrs, n.outputs[0])
	return err
}

// matMulNBits: A [..., K]; B [N, blocks, bytes] holds codes of 4 or 8 bits,
// scales [N, blocks], zero points packed a row (by default the middle code),
// bias. The weight becomes an affine constant of shape [K, N] with a block
// along K.
func matMulNBits(b *builder, n *node) error {
	k, cols, bits, block := n.attrs.Int("K", 0), n.attrs.Int("N", 0), n.attrs.Int("bits", 4), n.attrs.Int("block_size", 0)
	if k < 1 || cols < 1 || block < 16 || k > 1<<30 || cols > 1<<30 || bits != 4 && bits != 8 {
		return fmt.Errorf("the sizes K %d, N %d, bits %d and block_size %d are not supported", k, cols, bits, block)
	}
	if n.input(4) != nil {
		return fmt.Errorf("g_idx (reordered blocks) is not supported")
	}
	if k%block != 0 {
		return fmt.Errorf("the size K = %d is no multiple of the block size %d", k, block)
	}
	x, w, s := n.input(0), n.input(1), n.input(2)
	if x == nil || w == nil || s == nil || w.Const == nil || s.Const == nil {
		return fmt.Errorf("the weight and its scales must be constants")
	}
	blocks := k / block
	row := (blocks*bits + 7) / 8 // bytes of one row of zero points
	code := map[int]model.DType{4: model.UInt4, 8: model.UInt8}[bits]
	if w.DType != model.UInt8 || w.Const.Elems() != code.Bytes(int64(k)*int64(cols)) || s.Const.Elems() != int64(blocks)*int64(cols) || !s.DType.IsFloat() {
		return fmt.Errorf("weight %v and scales %v do not fit K %d, N %d, bits %d, block_size %d", w, s, k, cols, bits, block)
	}
	zp := n.input(3)
	if zp != nil && (zp.Const == nil || zp.DType != model.UInt8 || zp.Const.Elems() != int64(cols)*int64(row)) {
		return fmt.Errorf("zero points %v are not supported (constants of uint8, %d values, are)", zp, cols*row)
	}
	// transposed turns [N, rows] into [rows, N].
	transposed := func(c *model.Const, d model.DType, rows int, at func(t *model.Tensor, i, j int) int) *model.Const {
		return model.NewLazy(d, model.Shape{rows, cols}, func() (*model.Tensor, error) {
			out := model.NewTensor(d, rows, cols)
			var src *model.Tensor
			if c != nil {
				var err error
				if src, err = c.Value(); err != nil {
					return nil, err
				}
			}
			for j := range cols {
				for i := range rows {
					if d.IsFloat() {
						out.Set(i*cols+j, src.At(j*rows+i))
					} else {
						out.SetInt(i*cols+j, int64(at(src, j, i)))
					}
				}
			}
			return out, nil
		})
	}
	field := func(perRow int) func(t *model.Tensor, i, j int) int {
		return func(t *model.Tensor, i, j int) int {
			if bits == 8 {
				return int(t.Data[i*perRow+j])
			}
			return int(t.Data[i*perRow+j/2] >> (4 * (j % 2)) & 15)
		}
	}
	a := &model.Affine{
		Codes: transposed(w.Const, code, k, field(k*bits/8)),
		Scale: transposed(s.Const, s.DType, blocks, nil),
	}
	if zp != nil {
		a.Zero = transposed(zp.Const, code, blocks, field(row))
	} else {
		a.Zero = transposed(nil, code, blocks, func(*model.Tensor, int, int) int { return 1 << (bits - 1) })
	}
	name := b.fresh(n.label() + "/weight")
	weight := &model.Value{Name: b.prefix + name, DType: s.DType, Shape: model.Shape{k, cols},
		Const: &model.Const{DType: s.DType, Shape: model.Shape{k, cols}, Storage: a}}
	b.scope.values[name] = weight
	return matMulBias(b, n, x, weight, n.input(5))
}
