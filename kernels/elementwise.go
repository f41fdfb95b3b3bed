package kernels

import (
	"math"
	"unsafe"
)

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
	ctx.runFlat(flatTask{kind: flatBinary, n: len(dst), bin: op, dst: dst, a: a, b: b})
}

// BinaryScalar writes op(a, s) to dst, or op(s, a) when swap is set.
func BinaryScalar(ctx *Ctx, op BinaryOp, dst, a []float32, s float32, swap bool) {
	need("BinaryScalar a", len(a), len(dst))
	ctx.runFlat(flatTask{kind: flatScalar, n: len(dst), bin: op, dst: dst, a: a, s: s, swap: swap})
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
	t := &ctx.bcast
	*t = bcastTask{op: op, dst: dst, a: a, b: b}
	// Merge dimensions that both operands walk contiguously.
	for i, d := range shape {
		if d == 1 {
			continue
		}
		if k := t.nd - 1; k >= 0 && t.as[k] == aStride[i]*d && t.bs[k] == bStride[i]*d {
			t.dims[k], t.as[k], t.bs[k] = t.dims[k]*d, aStride[i], bStride[i]
			continue
		}
		if t.nd == len(t.dims) {
			panic("kernels: BinaryBroadcast: too many dimensions")
		}
		t.dims[t.nd], t.as[t.nd], t.bs[t.nd] = d, aStride[i], bStride[i]
		t.nd++
	}
	if t.nd == 0 {
		dst[0] = op.eval(a[0], b[0])
		*t = bcastTask{}
		return
	}
	last := t.nd - 1
	t.inner = t.dims[last]
	// Vectors of 16 with one operand repeated from pixel to pixel: a C16 tensor
	// and a value for each channel.
	if last > 0 && t.inner == Block && t.as[last] == 1 && t.bs[last] == 1 && t.as[last-1] == Block && t.bs[last-1] == 0 && op <= Div {
		t.rep = t.dims[last-1]
		t.nd--
		t.inner *= t.rep
	}
	t.rows = total / t.inner
	t.grain = max(1, flatGrain/t.inner)
	ctx.pool.Run(ceilDiv(t.rows, t.grain), t)
	*t = bcastTask{}
}

// bcastTask is a broadcast binary function in merged dimensions.
type bcastTask struct {
	op           BinaryOp
	dst, a, b    []float32
	dims, as, bs [12]int
	nd           int
	inner, rows  int
	rep          int // vectors of 16 that share one b, 0 otherwise
	grain        int
}

func (t *bcastTask) RunPiece(piece, _ int) {
	last := t.nd - 1
	sa, sb, inner := t.as[last], t.bs[last], t.inner
	for r := piece * t.grain; r < min((piece+1)*t.grain, t.rows); r++ {
		oa, ob := 0, 0
		for i, rem := last-1, r; i >= 0; i-- {
			k := rem % t.dims[i]
			rem /= t.dims[i]
			oa, ob = oa+k*t.as[i], ob+k*t.bs[i]
		}
		d := t.dst[r*inner : (r+1)*inner]
		switch {
		case t.rep > 0:
			binary16(t.op, d, t.a[oa:oa+inner], t.b[ob:ob+Block])
		case sa == 1 && sb == 1:
			binary(t.op, d, t.a[oa:oa+inner], t.b[ob:ob+inner])
		case sa == 1 && sb == 0:
			binaryScalar(t.op, d, t.a[oa:oa+inner], t.b[ob], false)
		case sa == 0 && sb == 1:
			binaryScalar(t.op, d, t.b[ob:ob+inner], t.a[oa], true)
		default:
			for i := range d {
				d[i] = t.op.eval(t.a[oa+i*sa], t.b[ob+i*sb])
			}
		}
	}
}

// binary16 is binary with b of 16 values repeated.
func binary16(op BinaryOp, dst, a, b []float32) {
	t := vecArgs{dst: unsafe.Pointer(&dst[0]), a: unsafe.Pointer(&a[0]), b: unsafe.Pointer(&b[0])}
	if vecRun([...]vecOp{vopAdd16, vopSub16, vopMul16, vopDiv16}[op], &t, len(dst), 4, 4, 0) {
		return
	}
	for i := range dst {
		dst[i] = op.eval(a[i], b[i%Block])
	}
}

func binary(op BinaryOp, dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	if op <= Div && vec2([...]vecOp{vopAdd, vopSub, vopMul, vopDiv}[op], dst, a, b) {
		return
	}
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
	if op <= Div && (!swap || op == Add || op == Mul) && vec1([...]vecOp{vopAddS, vopSubS, vopMulS, vopDivS}[op], dst, a, s, 0) {
		return
	}
	if swap && op == Sub && vec1(vopMulAdd, dst, a, -1, s) {
		return
	}
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
	ctx.runFlat(flatTask{kind: flatUnary, n: len(src), un: op, dst: dst, a: src})
}

func unary(op UnaryOp, dst, src []float32) {
	switch op {
	case Exp:
		expSlice(dst, src)
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
	ctx.runFlat(flatTask{kind: flatAct, n: len(src), dst: dst, a: src, act: act})
}
