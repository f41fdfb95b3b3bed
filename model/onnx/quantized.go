package onnx

import (
	"fmt"

	"github.com/triune-sim/triune/model"
)

// The fused integer operators, QLinearConv and its kin, mean: dequantize the
// operands, compute, quantize the result. They are translated to exactly that,
// so that one form of quantised graph exists. (Accumulators of int32 are exact
// and dequantised products of codes are as well, up to the rounding of the
// scales: the result is the same but for ties.)

// quantizedRules joins rules.
var quantizedRules = map[string]func(*builder, *node) error{
	"QLinearConv":                            qlinearConv,
	"QLinearMatMul":                          qlinearMatMul,
	"com.microsoft.QLinearMatMul":            qlinearMatMul,
	"com.microsoft.QLinearConv":              qlinearConv,
	"com.microsoft.QGemm":                    qgemm,
	"com.microsoft.QLinearAdd":               qlinearBinary("Add"),
	"com.microsoft.QLinearMul":               qlinearBinary("Mul"),
	"com.microsoft.QLinearSigmoid":           qlinearUnary("Sigmoid"),
	"com.microsoft.QLinearLeakyRelu":         qlinearUnary("LeakyRelu"),
	"com.microsoft.QLinearAveragePool":       qlinearUnary("AveragePool"),
	"com.microsoft.QLinearGlobalAveragePool": qlinearUnary("GlobalAveragePool"),
	"com.microsoft.QLinearSoftmax":           qlinearUnary("Softmax"),
	"com.microsoft.QLinearReduceMean":        qlinearReduceMean,
	"com.microsoft.QLinearConcat":            qlinearConcat,
	"com.microsoft.QuantizeLinear":           rulesAs("QuantizeLinear"),
	"com.microsoft.DequantizeLinear":         as("DequantizeLinear"),
	"com.microsoft.DynamicQuantizeMatMul":    dynamicMatMul,
	"com.microsoft.MatMulIntegerToFloat":     matMulIntegerToFloat,
}

func rulesAs(op model.Op) func(*builder, *node) error {
	return func(b *builder, n *node) error {
		if err := typeName(n, "output_dtype"); err != nil {
			return err
		}
		return as(op)(b, n)
	}
}

// dequantize adds a DequantizeLinear of an operand.
func (b *builder) dequantize(n *node, suffix string, x, scale, zero *model.Value, axis int) (*model.Value, error) {
	if x == nil || scale == nil {
		return nil, fmt.Errorf("the operand %s or its scale is missing", suffix)
	}
	var attrs model.Attrs
	if len(scale.Shape) > 0 && scale.Shape.Elems() != 1 {
		attrs = model.Attrs{"axis": axis}
		if zero != nil && zero.Shape.Elems() == 1 { // one zero point for all channels
			t := b.r.inf.Value(zero)
			if t == nil {
				return nil, fmt.Errorf("a zero point for all channels of %s that is no constant", suffix)
			}
			full := model.NewTensor(t.DType, scale.Shape...)
			for i := range full.Len() {
				full.SetInt(i, t.IntAt(0))
			}
			zero = b.constValue(n, suffix+"_zero", full)
		}
	} else if zero != nil && !zero.Shape.Equal(scale.Shape) && zero.Shape.Elems() == 1 {
		// [1] beside a scalar: the same thing.
		if t := b.r.inf.Value(zero); t != nil {
			zero = b.constValue(n, suffix+"_zero", t.Reshape(scale.Shape...))
		}
	}
	return b.one("DequantizeLinear", n, suffix, attrs, x, scale, zero)
}

// quantizeOut adds the QuantizeLinear that gives the node's output.
func (b *builder) quantizeOut(n *node, y, scale, zero *model.Value) error {
	if scale == nil {
		return fmt.Errorf("the output scale is missing")
	}
	if zero != nil && !zero.Shape.Equal(scale.Shape) && zero.Shape.Elems() == 1 && scale.Shape.Elems() == 1 {
		if t := b.r.inf.Value(zero); t != nil {
			zero = b.constValue(n, "y_zero", t.Reshape(scale.Shape...))
		}
	}
	_, err := b.emit("QuantizeLinear", n.label()+"/quantize", []*model.Value{y, scale, zero}, nil, n.outputs[0])
	return err
}

// biasScale returns the scale of an int32 bias: the product of the scales of
// the operands and a factor.
func (b *builder) biasScale(n *node, x, w *model.Value, factor float64) (*model.Value, error) {
	tx, tw := b.r.inf.Value(x), b.r.inf.Value(w)
	if tx == nil || tw == nil || tx.Len() != 1 {
		if factor != 1 {
			return nil, fmt.Errorf("a bias whose scale is no constant, with alpha = %g", factor)
		}
		return b.one("Mul", n, "bias_scale", nil, w, x)
	}
	t := model.NewTensor(tw.DType, tw.Shape...)
	for i := range t.Len() {
		t.Set(i, factor*tx.At(0)*tw.At(i))
	}
	return b.constValue(n, "bias_scale", t), nil
}

// qlinearConv: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias.
func qlinearConv(b *builder, n *node) error {
	if n.attrs.Int("channels_last", 0) != 0 {
		return fmt.Errorf("channels_last is not supported")
	}
	delete(n.attrs, "channels_last")
	x, err := b.dequantize(n, "x", n.input(0), n.input(1), n.input(2), 1)
	if err != nil {
		return err
	}
	w, err := b.dequantize(n, "w", n.input(3), n.input(4), n.input(5), 0)
	if err != nil {
		return err
	}
	in := []*model.Value{x, w}
	if bias := n.input(8); bias != nil {
		s, err := b.biasScale(n, n.input(1), n.input(4), 1)
		if err != nil {
			return err
		}
		v, err := b.dequantize(n, "bias", bias, s, nil, 0)
		if err != nil {
			return err
		}
		in = append(in, v)
	}
	y := b.fresh(n.label() + "/y")
	vs, err := b.emit("Conv", n.label(), in, n.attrs, y)
	if err != nil {
		return err
	}
	return b.quantizeOut(n, vs[0], n.input(6), n.input(7))
}

// qlinearMatMul: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero.
func qlinearMatMul(b *builder, n *node) error {
	x, err := b.dequantize(n, "a", n.input(0), n.input(1), n.input(2), -2)
	if err != nil {
		return err
	}
	w, err := b.dequantize(n, "b", n.input(3), n.input(4), n.input(5), -1)
	if err != nil {
		return err
	}
	vs, err := b.emit("MatMul", n.label(), []*model.Value{x, w}, nil, b.fresh(n.label()+"/y"))
	if err != nil {
		return err
	}
	return b.quantizeOut(n, vs[0], n.input(6), n.input(7))
}

// qgemm: A, a_scale, a_zero, B, b_scale, b_zero, C (int32), y_scale, y_zero;
// without y_scale the result is float.
func qgemm(b *builder, n *node) error {
	x, err := b.dequantize(n, "a", n.input(0), n.input(1), n.input(2), 1)
	if err != nil {
		return err
	}
	axis := 1
	if n.attrs.Int("transB", 0) != 0 {
		axis = 0
	}
	w, err := b.dequantize(n, "b", n.input(3), n.input(4), n.input(5), axis)
	if err != nil {
		return err
	}
	in := []*model.Value{x, w}
	if c := n.input(6); c != nil {
		s, err := b.biasScale(n, n.input(1), n.input(4), n.attrs.Float("alpha", 1))
		if err != nil {
			return err
		}
		v, err := b.dequantize(n, "c", c, s, nil, -1)
		if err != nil {
			return err
		}
		in = append(in, v)
	}
	if n.input(7) == nil {
		_, err := b.emit("Gemm", n.label(), in, n.attrs, n.outputs...)
		return err
	}
	vs, err := b.emit("Gemm", n.label(), in, n.attrs, b.fresh(n.label()+"/y"))
	if err != nil {
		return err
	}
	return b.quantizeOut(n, vs[0], n.input(7), n.input(8))
}

// qlinearBinary: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero.
func qlinearBinary(op model.Op) func(*builder, *node) error {
	return func(b *builder, n *node) error {
		x, err := b.dequantize(n, "a", n.input(0), n.input(1), n.input(2), 1)
		if err != nil {
			return err
		}
		y, err := b.dequantize(n, "b", n.input(3), n.input(4), n.input(5), 1)
		if err != nil {
			return err
		}
		vs, err := b.emit(op, n.label(), []*model.Value{x, y}, nil, b.fresh(n.label()+"/y"))
		if err != nil {
			return err
		}
		return b.quantizeOut(n, vs[0], n.input(6), n.input(7))
	}
}

// qlinearUnary: x, x_scale, x_zero, y_scale, y_zero.
func qlinearUnary(op model.Op) func(*builder, *node) error {
	return func(b *builder, n *node) error {
		if n.attrs.Int("channels_last", 0) != 0 {
			return fmt.Errorf("channels_last is not supported")
		}
		delete(n.attrs, "channels_last")
		if op == "Softmax" && n.attrs.Int("opset", 13) < 13 {
			return fmt.Errorf("the meaning of opset %d is not supported", n.attrs.Int("opset", 13))
		}
		delete(n.attrs, "opset")
		x, err := b.dequantize(n, "x", n.input(0), n.input(1), n.input(2), 1)
		if err != nil {
			return err
		}
		vs, err := b.emit(op, n.label(), []*model.Value{x}, n.attrs, b.fresh(n.label()+"/y"))
		if err != nil {
			return err
		}
		return b.quantizeOut(n, vs[0], n.input(3), n.input(4))
	}
}

// qlinearReduceMean has its axes as an attribute.
func qlinearReduceMean(b *builder, n *node) error {
	x, err := b.dequantize(n, "x", n.input(0), n.input(1), n.input(2), 1)
	if err != nil {
		return err
	}
	in := []*model.Value{x}
	if axes := n.attrs.Ints("axes", nil); axes != nil {
		in = append(in, b.intsConst(n, "axes", axes))
		delete(n.attrs, "axes")
	}
	vs, err := b.emit("ReduceMean", n.label(), in, n.attrs, b.fresh(n.label()+"/y"))
	if err != nil {
		return err
	}
	return b.quantizeOut(n, vs[0], n.input(3), n.input(4))
}

// qlinearConcat: y_scale, y_zero, then x, x_scale, x_zero of each operand.
func qlinearConcat(b *builder, n *node) error {
	var in []*model.Value
	for i := 2; i < len(n.in); i += 3 {
		x, err := b.dequantize(n, fmt.Sprintf("x%d", i/3), n.input(i), n.input(i+1), n.input(i+2), 1)
		if err != nil {
			return err
		}
		in = append(in, x)
	}
	vs, err := b.emit("Concat", n.label(), in, n.attrs, b.fresh(n.label()+"/y"))
	if err != nil {
		return err
	}
	return b.quantizeOut(n, vs[0], n.input(0), n.input(1))
}

// matMulIntegerToFloat: a, b (codes), a_scale, b_scale, a_zero, b_zero, bias.
func matMulIntegerToFloat(b *builder, n *node) error {
	x, err := b.dequantize(n, "a", n.input(0), n.input(2), n.input(4), -2)
	if err != nil {
		return err
	}
	w, err := b.dequantize(n, "b", n.input(1), n.input(3), n.input(5), -1)
	if err != nil {
		return err
	}
	return matMulBias(b, n, x, w, n.input(6))
}

// dynamicMatMul: a (float, quantised as it comes), b codes, b_scale, b_zero,
// bias.
func dynamicMatMul(b *builder, n *node) error {
	codes, scale, zero := b.fresh(n.label()+"/codes"), b.fresh(n.label()+"/scale"), b.fresh(n.label()+"/zero")
	if n.input(0) == nil {
		return fmt.Errorf("input 0 is missing")
	}
	q, err := b.emit("DynamicQuantizeLinear", n.label()+"/dynamic", n.in[:1], nil, codes, scale, zero)
	if err != nil {
		return err
	}
	x, err := b.dequantize(n, "a", q[0], q[1], q[2], -2)
	if err != nil {
		return err
	}
	w, err := b.dequantize(n, "b", n.input(1), n.input(2), n.input(3), -1)
	if err != nil {
		return err
	}
	return matMulBias(b, n, x, w, n.input(4))
}

func matMulBias(b *builder, n *node, x, w, bias *model.Value) error {
	if bias == nil {
		_, err := b.emit("MatMul", n.label(), []*model.Value{x, w}, nil, n.outputs...)
		return err
	}
	vs, err := b.emit("MatMul", n.label(), []*model.Value{x, w}, nil, b.fresh(n.label()+"/product"))
	if err != nil {
		return err
	}
	_, err = b.emit("Add", n.label()+"/bias", []*model.Value{vs[0], bias}, nil, n.outputs...)
	return err
}
