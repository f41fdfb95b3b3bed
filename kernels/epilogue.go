package kernels

import "math"

// ActKind names an activation function.
type ActKind uint8

// The activations, with x the input and A, B the two parameters of
// [Activation].
const (
	ActNone            ActKind = iota // x
	ActClip                           // min(max(x, A), B); relu is A = 0, B = +inf
	ActLeakyRelu                      // x if x >= 0, else A*x
	ActHardSigmoid                    // min(max(A*x + B, 0), 1)
	ActHardSwish                      // x * min(max(x/6 + 1/2, 0), 1)
	ActSigmoid                        // 1 / (1 + exp(-x))
	ActTanh                           // tanh(x)
	ActSilu                           // x * sigmoid(x)
	ActGelu                           // x/2 * (1 + erf(x/sqrt 2))
	ActGeluTanh                       // x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
	ActElu                            // x if x >= 0, else A*(exp(x) - 1)
	ActSoftplus                       // log(1 + exp(x))
	ActSoftsign                       // x / (1 + |x|)
	ActMish                           // x * tanh(softplus(x))
	ActSelu                           // B * (x if x >= 0, else A*(exp(x) - 1))
	ActScaledTanh                     // A * tanh(B*x)
	ActThresholdedRelu                // x if x > A, else 0
)

// Activation is an activation function with its parameters. The zero value is
// the identity.
type Activation struct {
	Kind ActKind
	A, B float32
}

var inf32 = float32(math.Inf(1))

// Relu returns max(x, 0).
func Relu() Activation { return Activation{ActClip, 0, inf32} }

// Relu6 returns min(max(x, 0), 6).
func Relu6() Activation { return Activation{ActClip, 0, 6} }

// Clip returns min(max(x, lo), hi).
func Clip(lo, hi float32) Activation { return Activation{ActClip, lo, hi} }

// LeakyRelu returns x for x >= 0 and alpha*x below.
func LeakyRelu(alpha float32) Activation { return Activation{ActLeakyRelu, alpha, 0} }

// HardSigmoid returns min(max(alpha*x+beta, 0), 1).
func HardSigmoid(alpha, beta float32) Activation { return Activation{ActHardSigmoid, alpha, beta} }

// Elu returns x for x >= 0 and alpha*(exp(x)-1) below.
func Elu(alpha float32) Activation { return Activation{ActElu, alpha, 0} }

// Act returns an activation that has no parameters, such as ActSilu.
func Act(k ActKind) Activation { return Activation{Kind: k} }

// Round is the rounding of a stored result.
type Round uint8

// The roundings.
const (
	RoundNone   Round = iota // keep float32
	RoundF16                 // to the nearest fp16, ties to even, overflow to infinity at 65520
	RoundF16Sat              // the same, but |x| >= 32768 becomes infinity (NE convolution and matmul)
)

// QParams is an affine 8-bit quantisation: real = (q - Zero) * Scale, with q
// in [-128, 127] when Signed and [0, 255] otherwise.
type QParams struct {
	Scale  float32
	Zero   int32
	Signed bool
}

// Range returns the smallest and largest q.
func (q QParams) Range() (lo, hi int32) {
	if q.Signed {
		return -128, 127
	}
	return 0, 255
}

// Epilogue is what happens to a sum before it is stored, in this order:
// integer bias and scale (int8 products only), bias, residual, activation, rounding, and, where
// the destination is 8-bit, requantisation. Every step is fused into the
// kernel. The zero value stores the sum.
type Epilogue struct {
	Bias  []float32  // per output channel, or nil
	Act   Activation // after the residual
	Round Round      // after the activation, before requantisation
	// Sum is added to the exact sum of int8 products before it is scaled: a
	// bias in units of In.Scale*WScale, per output channel, or nil. Together
	// they must stay inside int32. Float kernels do not read it.
	Sum []int32
}

// Residual is a tensor added before the activation, in the layout and shape of
// the destination. The zero value adds nothing; set F32, or Q8 with its Q.
type Residual struct {
	F32 []float32
	Q8  []uint8
	Q   QParams
}

func (r Residual) none() bool { return r.F32 == nil && r.Q8 == nil }

// clip returns the activation as a clamp, and whether it is one.
func (a Activation) clip() (lo, hi float32, ok bool) {
	switch a.Kind {
	case ActNone:
		return -inf32, inf32, true
	case ActClip:
		return a.A, a.B, true
	}
	return -inf32, inf32, false
}

// valid reports whether the kind is known.
func (a Activation) valid() bool { return a.Kind <= ActThresholdedRelu }

// Apply returns the activation of one value, computed in float64 and rounded
// once: the reference that the vector code is tested against. Comparisons are
// written so that a NaN stays NaN.
func (a Activation) Apply(v float32) float32 {
	x, p, q := float64(v), float64(a.A), float64(a.B)
	switch a.Kind {
	case ActNone:
		return v
	case ActClip:
		if v < a.A {
			v = a.A
		}
		if v > a.B {
			v = a.B
		}
		return v
	case ActLeakyRelu:
		if v < 0 {
			return a.A * v
		}
		return v
	case ActHardSigmoid:
		return float32(clamp01(p*x + q))
	case ActHardSwish:
		return float32(x * clamp01(x/6+0.5))
	case ActSigmoid:
		return float32(sigmoid64(x))
	case ActTanh:
		return float32(math.Tanh(x))
	case ActSilu:
		if math.IsInf(x, -1) {
			return 0
		}
		return float32(x * sigmoid64(x))
	case ActGelu:
		if math.IsInf(x, -1) {
			return 0
		}
		return float32(x * 0.5 * math.Erfc(-x/math.Sqrt2))
	case ActGeluTanh:
		if math.IsInf(x, -1) {
			return 0
		}
		return float32(x * sigmoid64(2*math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
	case ActElu:
		if x < 0 {
			return float32(p * math.Expm1(x))
		}
		return v
	case ActSoftplus:
		return float32(softplus64(x))
	case ActSoftsign:
		if math.IsInf(x, 0) {
			return float32(math.Copysign(1, x))
		}
		return float32(x / (1 + math.Abs(x)))
	case ActMish:
		if math.IsInf(x, -1) {
			return 0
		}
		return float32(x * math.Tanh(softplus64(x)))
	case ActSelu:
		if x < 0 {
			return float32(q * p * math.Expm1(x))
		}
		return float32(q * x)
	case ActScaledTanh:
		return float32(p * math.Tanh(q*x))
	case ActThresholdedRelu:
		if v > a.A || v != v {
			return v
		}
		return 0
	}
	return v
}

func clamp01(x float64) float64 {
	if x < 0 {
		return 0
	}
	if x > 1 {
		return 1
	}
	return x
}

func sigmoid64(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func softplus64(x float64) float64 {
	if x > 0 {
		return x + math.Log1p(math.Exp(-x))
	}
	return math.Log1p(math.Exp(x))
}

// Finish applies an activation and a rounding in place: the tail of an
// epilogue, for results of kernels that take none.
func Finish(ctx *Ctx, x []float32, act Activation, r Round) {
	if act.Kind == ActNone && r == RoundNone {
		return
	}
	ctx.runFlat(flatTask{kind: flatFinish, n: len(x), dst: x, act: act, round: r})
}

// finish is Finish on one piece.
func finish(x []float32, act Activation, r Round) {
	applyAct(x, x, act)
	roundSlice(x, r)
}

func roundSlice(x []float32, r Round) {
	switch r {
	case RoundF16:
		roundF16(x, x)
	case RoundF16Sat:
		roundF16Sat(x, x)
	}
}

// actVec gives the flat kernel of an activation and its parameters.
func actVec(a Activation) (op vecOp, p0, p1 float32, ok bool) {
	switch a.Kind {
	case ActClip:
		return vopClip, a.A, a.B, true
	case ActLeakyRelu:
		return vopLeakyRelu, a.A, 0, true
	case ActHardSigmoid:
		return vopHardSigmoid, a.A, a.B, true
	case ActHardSwish:
		return vopHardSwish, 0, 0, true
	case ActSigmoid:
		return vopSigmoid, 0, 0, true
	case ActTanh:
		return vopTanh, 0, 0, true
	case ActSilu:
		return vopSilu, 0, 0, true
	case ActGelu:
		return vopGelu, 0, 0, true
	case ActGeluTanh:
		return vopGeluTanh, 0, 0, true
	case ActElu:
		return vopElu, a.A, 0, true
	}
	return 0, 0, 0, false
}

// applyAct writes act(src) to dst.
func applyAct(dst, src []float32, act Activation) {
	src = src[:len(dst)]
	if act.Kind == ActNone {
		copy(dst, src)
		return
	}
	if op, p0, p1, ok := actVec(act); ok && vec1(op, dst, src, p0, p1) {
		return
	}
	for i, v := range src {
		dst[i] = act.Apply(v)
	}
}
