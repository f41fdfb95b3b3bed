package ops

import (
	"math"

	"github.com/triune-sim/triune/model"
)

// Element-wise operators of one operand.

func sameType(c *inference) {
	c.typ(0, c.dtype(0))
	c.out(0, c.dtype(0), c.shape(0))
}

// unaryF evaluates a float function of one operand whose parameters come from
// the attributes.
func unaryF(make func(a model.Attrs) func(float64) float64) func(*call) {
	return func(c *call) {
		x := c.x(0)
		f := make(c.n.Attrs)
		in := floats(x)
		out := c.alloc(x.Shape)
		for i, v := range in {
			out[i] = f(v)
		}
		c.putF(0, x.DType, x.Shape, out)
	}
}

func plainUnary(f func(float64) float64) func(*call) {
	return unaryF(func(model.Attrs) func(float64) float64 { return f })
}

// unaryI adds an integer function to a float one.
func unaryI(f func(float64) float64, g func(int64) int64) func(*call) {
	ff := plainUnary(f)
	return func(c *call) {
		x := c.x(0)
		if x.DType.IsFloat() {
			ff(c)
			return
		}
		in := ints(x)
		out := make([]int64, len(in))
		for i, v := range in {
			out[i] = g(v)
		}
		c.putI(0, x.DType, x.Shape, out)
	}
}

func sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + math.Exp(-x))
	}
	e := math.Exp(x)
	return e / (1 + e)
}

func softplus(x float64) float64 {
	// log(1 + e^x) without overflow.
	return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x)))
}

// relu keeps NaN, as max of IEEE 754-2019 does.
func relu(x float64) float64 {
	if x < 0 {
		return 0
	}
	return x
}

// elu is x for x >= 0, else alpha (e^x - 1).
func elu(x, alpha float64) float64 {
	if x < 0 {
		return alpha * math.Expm1(x)
	}
	return x
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return x
}

// geluTanh is the tanh approximation of Gelu (arXiv 1606.08415).
func geluTanh(x float64) float64 {
	return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

func gelu(x float64) float64 { return 0.5 * x * (1 + math.Erf(x/math.Sqrt2)) }

func hardSigmoid(x, alpha, beta float64) float64 { return max(0, min(1, alpha*x+beta)) }

func init() {
	arity := [4]int{1, 1, 1, 1}
	for name, f := range map[model.Op]func(float64) float64{
		"Sqrt": math.Sqrt, "Exp": math.Exp, "Log": math.Log, "Sin": math.Sin, "Cos": math.Cos, "Tan": math.Tan,
		"Asin": math.Asin, "Acos": math.Acos, "Atan": math.Atan, "Sinh": math.Sinh, "Cosh": math.Cosh,
		"Asinh": math.Asinh, "Acosh": math.Acosh, "Atanh": math.Atanh, "Tanh": math.Tanh,
		"Floor": math.Floor, "Ceil": math.Ceil, "Round": roundEven, "Erf": math.Erf,
		"Reciprocal": func(x float64) float64 { return 1 / x },
		"Sigmoid":    sigmoid,
		"Softplus":   softplus,
		"Softsign":   func(x float64) float64 { return x / (1 + math.Abs(x)) },
		"HardSwish":  func(x float64) float64 { return x * hardSigmoid(x, 1.0/6, 0.5) },
		"Mish":       func(x float64) float64 { return x * math.Tanh(softplus(x)) },
	} {
		register("unary", arity, sameType, plainUnary(f), name)
	}
	register("unary", arity, sameType, unaryI(math.Abs, func(x int64) int64 { return max(x, -x) }), "Abs")
	register("unary", arity, sameType, unaryI(func(x float64) float64 { return -x }, func(x int64) int64 { return -x }), "Neg")
	register("unary", arity, sameType, unaryI(relu, func(x int64) int64 { return max(x, 0) }), "Relu")
	register("unary", arity, sameType, func(c *call) {
		if c.x(0).DType == model.UInt64 { // the top bit is not a sign
			unaryI(sign, func(x int64) int64 { return int64(min(uint64(x), 1)) })(c)
			return
		}
		unaryI(sign, func(x int64) int64 { return max(-1, min(1, x)) })(c)
	}, "Sign")

	register("unary", arity, sameType, unaryF(func(a model.Attrs) func(float64) float64 {
		alpha := a.Float("alpha", 0.01)
		return func(x float64) float64 {
			if x < 0 {
				return alpha * x
			}
			return x
		}
	}), "LeakyRelu")
	register("unary", arity, sameType, unaryF(func(a model.Attrs) func(float64) float64 {
		alpha := a.Float("alpha", 1)
		return func(x float64) float64 { return elu(x, alpha) }
	}), "Elu")
	register("unary", arity, sameType, unaryF(func(a model.Attrs) func(float64) float64 {
		alpha, gamma := a.Float("alpha", 1.67326319217681884765625), a.Float("gamma", 1.05070102214813232421875)
		return func(x float64) float64 { return gamma * elu(x, alpha) }
	}), "Selu")
	register("unary", arity, sameType, unaryF(func(a model.Attrs) func(float64) float64 {
		alpha := a.Float("alpha", 1)
		return func(x float64) float64 {
			if x < 0 {
				return alpha * math.Expm1(x/alpha)
			}
			return x
		}
	}), "Celu")
	register("unary", arity, sameType, unaryF(func(a model.Attrs) func(float64) float64 {
		alpha, beta := a.Float("alpha", 0.2), a.Float("beta", 0.5)
		return func(x float64) float64 { return hardSigmoid(x, alpha, beta) }
	}), "HardSigmoid")
	register("unary", arity, sameType, unaryF(func(a model.Attrs) func(float64) float64 {
		alpha := a.Float("alpha", 1)
		return func(x float64) float64 {
			if x > alpha {
				return x
			}
			return 0
		}
	}), "ThresholdedRelu")
	register("unary", arity, sameType, func(c *call) {
		x := c.x(0)
		lambd, bias := c.n.Attrs.Float("lambd", 0.5), c.n.Attrs.Float("bias", 0)
		out := append([]float64{}, floats(x)...)
		for i, v := range out {
			switch {
			case v < -lambd:
				out[i] = v + bias
			case v > lambd:
				out[i] = v - bias
			default:
				out[i] = 0
			}
		}
		c.putF(0, x.DType, x.Shape, out)
	}, "Shrink")
	register("unary", arity, sameType, unaryF(func(a model.Attrs) func(float64) float64 {
		if a.String("approximate", "none") == "tanh" {
			return geluTanh
		}
		return gelu
	}), "Gelu")
	// Swish is x sigmoid(alpha x): SiLU for alpha 1 (ONNX opset 24).
	register("unary", arity, sameType, unaryF(func(a model.Attrs) func(float64) float64 {
		alpha := a.Float("alpha", 1)
		return func(x float64) float64 { return x * sigmoid(alpha*x) }
	}), "Swish")
	// ScaledTanh is alpha tanh(beta x), Core ML's scaled_tanh.
	register("unary", arity, sameType, unaryF(func(a model.Attrs) func(float64) float64 {
		alpha, beta := a.Float("alpha", 1), a.Float("beta", 1)
		return func(x float64) float64 { return alpha * math.Tanh(beta*x) }
	}), "ScaledTanh")

	register("unary", arity, func(c *inference) {
		c.typ(0, model.Bool)
		c.out(0, model.Bool, c.shape(0))
	}, test(func(x float64, _ model.Attrs) bool { return x != x }), "IsNaN")
	register("unary", arity, func(c *inference) {
		c.typ(0, model.Bool)
		c.out(0, model.Bool, c.shape(0))
	}, test(func(x float64, a model.Attrs) bool {
		return math.IsInf(x, 1) && a.Int("detect_positive", 1) != 0 || math.IsInf(x, -1) && a.Int("detect_negative", 1) != 0
	}), "IsInf")
	register("unary", arity, sameType, func(c *call) {
		x := c.x(0)
		if x.DType != model.Bool {
			failf("the operand is %s, want bool", x.DType)
		}
		in := ints(x)
		out := make([]int64, len(in))
		for i, v := range in {
			out[i] = 1 - min(v, 1)
		}
		c.putI(0, model.Bool, x.Shape, out)
	}, "Not")
	register("unary", arity, sameType, func(c *call) {
		x := c.x(0)
		in := ints(x)
		out := make([]int64, len(in))
		for i, v := range in {
			out[i] = ^v
		}
		c.putI(0, x.DType, x.Shape, out)
	}, "BitwiseNot")

	// Clip takes its bounds as inputs: X, min, max.
	register("unary", [4]int{1, 3, 1, 1}, sameType, evalClip, "Clip")
}

func test(f func(float64, model.Attrs) bool) func(*call) {
	return func(c *call) {
		x := c.x(0)
		t := model.NewTensor(model.Bool, x.Shape...)
		for i, v := range floats(x) {
			if f(v, c.n.Attrs) {
				t.Data[i] = 1
			}
		}
		c.put(0, t)
	}
}

func evalClip(c *call) {
	x := c.x(0)
	if x.DType.IsFloat() {
		lo, hi := c.float1(1, math.Inf(-1)), c.float1(2, math.Inf(1))
		in := floats(x)
		out := c.alloc(x.Shape)
		for i, v := range in {
			if v < lo {
				v = lo
			}
			if v > hi {
				v = hi
			}
			out[i] = v
		}
		c.putF(0, x.DType, x.Shape, out)
		return
	}
	out := append([]int64{}, ints(x)...)
	less := lessInt(x.DType)
	bound := func(i int, beyond func(v, b int64) bool) {
		t := c.opt(i)
		if t == nil {
			return
		}
		if t.Len() != 1 {
			failf("input %d has %d elements, wants one", i, t.Len())
		}
		b := ints(t)[0]
		for k, v := range out {
			if beyond(v, b) {
				out[k] = b
			}
		}
	}
	bound(1, less)
	bound(2, func(v, b int64) bool { return less(b, v) })
	c.putI(0, x.DType, x.Shape, out)
}

// lessInt compares integers held as int64: by bit pattern for uint64.
func lessInt(d model.DType) func(a, b int64) bool {
	if d == model.UInt64 {
		return func(a, b int64) bool { return uint64(a) < uint64(b) }
	}
	return func(a, b int64) bool { return a < b }
}
