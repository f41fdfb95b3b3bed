package kernels

import "math"

// BinaryOp names an element-wise function of two values.
type BinaryOp uint8

// The binary functions. Min and Max propagate NaN.
const (
	Add   BinaryOp = iota // a + b
	Sub                   // a - b
	Mul                   // a * b
	Div                   // a / b
	Max                   // max(a, b)
	Min                   // min(a, b)
	Pow                   // a ** b
	PRelu                 // a if a >= 0, else a*b
	Mod                   // a - b*trunc(a/b), the sign of a (C fmod)
)

func (op BinaryOp) eval(a, b float32) float32 {
	switch op {
	case Add:
		return a + b
	case Sub:
		return a - b
	case Mul:
		return a * b
	case Div:
		return a / b
	case Max:
		if a > b || a != a {
			return a
		}
		return b
	case Min:
		if a < b || a != a {
			return a
		}
		return b
	case Pow:
		return float32(math.Pow(float64(a), float64(b)))
	case PRelu:
		if a < 0 {
			return a * b
		}
		return a
	case Mod:
		return float32(math.Mod(float64(a), float64(b)))
	}
	panic("kernels: unknown BinaryOp")
}

// Binary writes op(a, b) to dst, element by element; a, b and dst have one
// length, and dst may be a or b. C16 tensors of one shape are such slices.
func Binary(ctx *Ctx, op BinaryOp, dst, a, b []float32) {
	need("Binary a", len(a), len(dst))
	need("Binary b", len(b), len(dst))
	ctx.forFlat(len(dst), func(lo, hi int) { binary(op, dst[lo:hi], a[lo:hi], b[lo:hi]) })
}

// BinaryScalar writes op(a, s) to dst, or op(s, a) when swap is set.
func BinaryScalar(ctx *Ctx, op BinaryOp, dst, a []float32, s float32, swap bool) {
	need("BinaryScalar a", len(a), len(dst))
	ctx.forFlat(len(dst), func(lo, hi int) { binaryScalar(op, dst[lo:hi], a[lo:hi], s, swap) })
}

// BinaryBroadcast writes op(a, b) to dst, which is row-major with the given
// shape; a and b are walked with their own strides in elements, one for each
// dimension of shape, 0 where the operand is broadcast. C16 operands are
// tensors of shape [N, C/16, H*W, 16].
func BinaryBroadcast(ctx *Ctx, op BinaryOp, dst, a, b []float32, shape, aStride, bStride []int) {
	if len(aStride) != len(shape) || len(bStride) != len(shape) {
		panic("kernels: BinaryBroadcast: strides must have one value for each dimension")
	}
	total := 1
	for _, d := range shape {
		total *= d
	}
	need("BinaryBroadcast dst", len(dst), total)
	if total == 0 {
		return
	}
	// Merge dimensions that both operands walk contiguously.
	var dims, as, bs []int
	for i, d := range shape {
		if d == 1 {
			continue
		}
		if k := len(dims) - 1; k >= 0 && as[k] == aStride[i]*d && bs[k] == bStride[i]*d {
			dims[k], as[k], bs[k] = dims[k]*d, aStride[i], bStride[i]
			continue
		}
		dims, as, bs = append(dims, d), append(as, aStride[i]), append(bs, bStride[i])
	}
	if len(dims) == 0 {
		dst[0] = op.eval(a[0], b[0])
		return
	}
	last := len(dims) - 1
	inner, sa, sb := dims[last], as[last], bs[last]
	rows := total / inner
	grain := max(1, flatGrain/inner)
	ctx.pool.For(ceilDiv(rows, grain), func(piece int) {
		for r := piece * grain; r < min((piece+1)*grain, rows); r++ {
			oa, ob := 0, 0
			for i, rem := last-1, r; i >= 0; i-- {
				k := rem % dims[i]
				rem /= dims[i]
				oa, ob = oa+k*as[i], ob+k*bs[i]
			}
			d := dst[r*inner : (r+1)*inner]
			switch {
			case sa == 1 && sb == 1:
				binary(op, d, a[oa:oa+inner], b[ob:ob+inner])
			case sa == 1 && sb == 0:
				binaryScalar(op, d, a[oa:oa+inner], b[ob], false)
			case sa == 0 && sb == 1:
				binaryScalar(op, d, b[ob:ob+inner], a[oa], true)
			default:
				for i := range d {
					d[i] = op.eval(a[oa+i*sa], b[ob+i*sb])
				}
			}
		}
	})
}

func binary(op BinaryOp, dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	switch op {
	case Add:
		for i := range dst {
			dst[i] = a[i] + b[i]
		}
	case Sub:
		for i := range dst {
			dst[i] = a[i] - b[i]
		}
	case Mul:
		for i := range dst {
			dst[i] = a[i] * b[i]
		}
	case Div:
		for i := range dst {
			dst[i] = a[i] / b[i]
		}
	default:
		for i := range dst {
			dst[i] = op.eval(a[i], b[i])
		}
	}
}

func binaryScalar(op BinaryOp, dst, a []float32, s float32, swap bool) {
	a = a[:len(dst)]
	switch {
	case swap:
		for i := range dst {
			dst[i] = op.eval(s, a[i])
		}
	case op == Add:
		for i := range dst {
			dst[i] = a[i] + s
		}
	case op == Mul:
		for i := range dst {
			dst[i] = a[i] * s
		}
	default:
		for i := range dst {
			dst[i] = op.eval(a[i], s)
		}
	}
}

// UnaryOp names an element-wise function of one value without parameters.
type UnaryOp uint8

// The unary functions; activations are applied by [Activate].
const (
	Neg UnaryOp = iota
	Abs
	Exp
	Log
	Sqrt
	Rsqrt
	Reciprocal
	Square
	Floor
	Ceil
	RoundEven
	Sign
	Erf
	Sin
	Cos
	Tan
	Asin
	Acos
	Atan
	Sinh
	Cosh
	Not // 1 where x is 0, else 0
)

var unaryFuncs = [...]func(float64) float64{
	Exp: math.Exp, Log: math.Log, Rsqrt: func(x float64) float64 { return 1 / math.Sqrt(x) },
	Floor: math.Floor, Ceil: math.Ceil, RoundEven: math.RoundToEven, Erf: math.Erf,
	Sin: math.Sin, Cos: math.Cos, Tan: math.Tan, Asin: math.Asin, Acos: math.Acos, Atan: math.Atan,
	Sinh: math.Sinh, Cosh: math.Cosh, Sqrt: math.Sqrt, Abs: math.Abs,
	Neg: func(x float64) float64 { return -x }, Reciprocal: func(x float64) float64 { return 1 / x },
	Square: func(x float64) float64 { return x * x },
	Sign: func(x float64) float64 {
		switch {
		case x > 0:
			return 1
		case x < 0:
			return -1
		}
		return x
	},
	Not: func(x float64) float64 {
		if x == 0 {
			return 1
		}
		return 0
	},
}

// Unary writes op(src) to dst (may be src).
func Unary(ctx *Ctx, op UnaryOp, dst, src []float32) {
	need("Unary dst", len(dst), len(src))
	ctx.forFlat(len(src), func(lo, hi int) { unary(op, dst[lo:hi], src[lo:hi]) })
}

func unary(op UnaryOp, dst, src []float32) {
	switch op {
	case Neg:
		for i, v := range src {
			dst[i] = -v
		}
	case Square:
		for i, v := range src {
			dst[i] = v * v
		}
	default:
		f := unaryFuncs[op]
		for i, v := range src {
			dst[i] = float32(f(float64(v)))
		}
	}
}

// Activate writes act(src) to dst (may be src).
func Activate(ctx *Ctx, act Activation, dst, src []float32) {
	need("Activate dst", len(dst), len(src))
	ctx.forFlat(len(src), func(lo, hi int) { applyAct(dst[lo:hi], src[lo:hi], act) })
}
