package coreml

import (
	"math"

	"github.com/triune-sim/triune/model"
)

// Element-wise operators and activations.

func init() {
	for mil, op := range unaryOps {
		handle(func(c *call) { c.result(op, nil, c.in("x")) }, mil)
	}
	for mil, op := range binaryOps {
		handle(func(c *call) { c.result(op, nil, c.in("x"), c.in("y")) }, mil)
	}

	handle(func(c *call) {
		x, y := c.in("x"), c.in("y")
		c.result("Not", nil, c.mid("Equal", nil, x, y))
	}, "not_equal")
	handle(func(c *call) {
		x, y := c.in("x"), c.in("y")
		if x.DType.IsFloat() {
			c.result("Floor", nil, c.mid("Div", nil, x, y))
			return
		}
		// Integers: (x - x mod y) / y, where mod has the sign of y.
		c.result("Div", nil, c.mid("Sub", nil, x, c.mid("Mod", nil, x, y)), y)
	}, "floor_div")
	handle(func(c *call) {
		x, y := c.in("x"), c.in("y")
		if !x.DType.IsFloat() {
			c.result("Mod", nil, x, y)
			return
		}
		// The sign of y, unlike C's fmod: x - floor(x/y)*y.
		c.result("Sub", nil, x, c.mid("Mul", nil, c.mid("Floor", nil, c.mid("Div", nil, x, y)), y))
	}, "mod")
	handle(func(c *call) { c.result("Mul", nil, c.in("x"), c.in("x")) }, "square")
	handle(func(c *call) {
		x := c.in("x")
		c.result("Pow", nil, c.scalar("base", x.DType, 2), x)
	}, "exp2")
	handle(func(c *call) { c.result("Reciprocal", nil, c.plus(c.in("x"), c.float("epsilon", 1e-4))) }, "inverse")
	handle(func(c *call) { c.result("Log", nil, c.plus(c.in("x"), c.float("epsilon", 1e-45))) }, "log")
	handle(func(c *call) {
		c.result("Reciprocal", nil, c.mid("Sqrt", nil, c.plus(c.in("x"), c.float("epsilon", 1e-12))))
	}, "rsqrt")
	handle(func(c *call) {
		x := c.in("x")
		c.result("Max", nil, x, c.scalar("alpha", x.DType, c.float("alpha", 1)))
	}, "threshold")
	handle(func(c *call) {
		x := c.in("x")
		c.result("Clip", nil, x, c.scalar("min", x.DType, c.float("alpha", 0)), c.scalar("max", x.DType, c.float("beta", 1)))
	}, "clip")
	handle(func(c *call) {
		x := c.in("x")
		d, err := model.ParseDType(c.str("dtype", ""))
		try(err)
		c.result("Cast", model.Attrs{"to": d.String()}, x)
	}, "cast")
	handle(func(c *call) { c.result("Where", nil, c.in("cond"), c.in("a"), c.in("b")) }, "select")

	// Activations.
	handle(func(c *call) {
		x := c.in("x")
		c.result("Clip", nil, x, c.scalar("min", x.DType, 0), c.scalar("max", x.DType, 6))
	}, "relu6")
	handle(func(c *call) { c.result("LeakyRelu", model.Attrs{"alpha": c.float("alpha", 0.01)}, c.in("x")) }, "leaky_relu")
	handle(func(c *call) { c.result("Elu", model.Attrs{"alpha": c.float("alpha", 1)}, c.in("x")) }, "elu")
	handle(func(c *call) {
		c.result("HardSigmoid", model.Attrs{"alpha": c.float("alpha", 0.2), "beta": c.float("beta", 0.5)}, c.in("x"))
	}, "sigmoid_hard")
	handle(func(c *call) { c.result("Swish", model.Attrs{"alpha": 1.0}, c.in("x")) }, "silu")
	handle(func(c *call) {
		// MIL keeps x where x >= alpha, ONNX where x > alpha.
		c.result("ThresholdedRelu", model.Attrs{"alpha": nextBelow(c.float("alpha", 1))}, c.in("x"))
	}, "thresholded_relu")
	handle(func(c *call) {
		x := c.in("x")
		switch mode := c.str("mode", "EXACT"); mode {
		case "EXACT":
			c.result("Gelu", model.Attrs{"approximate": "none"}, x)
		case "TANH_APPROXIMATION":
			c.result("Gelu", model.Attrs{"approximate": "tanh"}, x)
		case "SIGMOID_APPROXIMATION":
			c.result("Swish", model.Attrs{"alpha": 1.702}, x)
		default:
			failf("gelu mode %s", quote(mode))
		}
	}, "gelu")
	handle(func(c *call) {
		x := c.in("x")
		y := c.mid("LeakyRelu", model.Attrs{"alpha": c.float("alpha", 0)}, x)
		c.result("Min", nil, y, c.scalar("beta", x.DType, c.float("beta", math.Inf(1))))
	}, "clamped_relu")
	handle(func(c *call) {
		x := c.in("x")
		y := c.mid("Mul", nil, x, c.scalar("alpha", x.DType, c.float("alpha", 1)))
		c.result("Add", nil, y, c.scalar("beta", x.DType, c.float("beta", 0)))
	}, "linear_activation")
	handle(func(c *call) {
		c.result("ScaledTanh", model.Attrs{"alpha": c.float("alpha", 1), "beta": c.float("beta", 1)}, c.in("x"))
	}, "scaled_tanh")
	handle(func(c *call) {
		x := c.in("x")
		c.result("PRelu", nil, x, c.perChannel(c.in("alpha"), rank(x), 1))
	}, "prelu")
	handle(func(c *call) {
		x := c.in("x")
		a, b := c.perChannel(c.in("alpha"), rank(x), 1), c.perChannel(c.in("beta"), rank(x), 1)
		c.result("Mul", nil, c.mid("Softplus", nil, c.mid("Mul", nil, x, b)), a)
	}, "softplus_parametric")
	handle(func(c *call) {
		x := c.in("x")
		c.result("Softmax", model.Attrs{"axis": axis(c.int("axis", -1), rank(x))}, x)
	}, "softmax")

	handle(func(c *call) { c.quantizer("QuantizeLinear") }, "quantize")
	handle(func(c *call) { c.quantizer("DequantizeLinear") }, "dequantize")
}

var unaryOps = map[string]model.Op{
	"abs": "Abs", "acos": "Acos", "asin": "Asin", "atan": "Atan", "atanh": "Atanh", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh",
	"erf": "Erf", "exp": "Exp", "floor": "Floor", "logical_not": "Not", "round": "Round", "sign": "Sign", "sin": "Sin",
	"sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus",
	"softsign": "Softsign", "identity": "Identity",
}

var binaryOps = map[string]model.Op{
	"add": "Add", "sub": "Sub", "mul": "Mul", "real_div": "Div", "maximum": "Max", "minimum": "Min", "pow": "Pow",
	"equal": "Equal", "greater": "Greater", "greater_equal": "GreaterOrEqual", "less": "Less", "less_equal": "LessOrEqual",
	"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor",
}

// plus adds an epsilon to x, unless it is nothing in x's type: zero after
// rounding, or below the least normal number, as log's default of 1e-45 is.
func (c *call) plus(x *model.Value, eps float64) *model.Value {
	e := c.scalar("epsilon", x.DType, eps)
	t, err := e.Const.Value()
	try(err)
	if v := math.Abs(t.At(0)); v == 0 || v < 0x1p-126 {
		return x
	}
	return c.mid("Add", nil, x, e)
}

// perChannel shapes a vector so that it broadcasts along an axis.
func (c *call) perChannel(v *model.Value, rank, ax int) *model.Value {
	if len(v.Shape) != 1 || rank < 1 {
		return v
	}
	s := make([]int, 0, rank-ax)
	s = append(s, v.Shape[0])
	for len(s) < rank-ax {
		s = append(s, 1)
	}
	if v.Const != nil {
		if d, ok := v.Const.Storage.(model.Dense); ok {
			return c.instead(v, model.NewConst(d.Tensor.Reshape(s...)))
		}
	}
	return c.mid("Reshape", nil, v, c.int64s("shape", s...))
}

// quantizer translates quantize and dequantize. The zero point, which MIL
// leaves out when it is zero, is made explicit: it carries the type.
func (c *call) quantizer(op model.Op) {
	x, scale := c.in("input"), c.in("scale")
	q := x.DType
	attrs := model.Attrs{}
	if op == "QuantizeLinear" {
		var err error
		q, err = model.ParseDType(c.str("output_dtype", ""))
		try(err)
	}
	if q != model.Int8 && q != model.UInt8 {
		failf("codes of type %s (want int8 or uint8)", q)
	}
	zero := c.opt("zero_point")
	if zero == nil {
		t := model.NewTensor(q, scale.Shape...)
		zero = c.constValue("zero_point", model.NewConst(t))
	}
	if len(scale.Shape) == 1 {
		attrs["axis"] = axis(c.int("axis", 0), rank(x))
	}
	c.result(op, attrs, x, scale, zero)
}
