package kernels

import "math"

// ReduceOp names a reduction.
type ReduceOp uint8

// The reductions. Sums and means are kept in float64.
const (
	ReduceSum ReduceOp = iota
	ReduceMean
	ReduceMax
	ReduceMin
	ReduceProd
	ReduceL1
	ReduceL2
	ReduceSumSquare
	ReduceLogSumExp
)

// Reduce writes the reduction of src, [outer][axis][inner], over its middle
// axis to dst, [outer][inner].
func Reduce(ctx *Ctx, op ReduceOp, dst, src []float32, outer, axis, inner int) {
	need("Reduce dst", len(dst), outer*inner)
	need("Reduce src", len(src), outer*axis*inner)
	ctx.pool.For(outer, func(o int) {
		s := src[o*axis*inner:]
		for i := 0; i < inner; i++ {
			dst[o*inner+i] = reduceOne(op, s[i:], axis, inner)
		}
	})
}

func reduceOne(op ReduceOp, s []float32, n, stride int) float32 {
	switch op {
	case ReduceMax, ReduceMin:
		if n == 0 {
			return 0
		}
		b := Max
		if op == ReduceMin {
			b = Min
		}
		r := s[0]
		for k := 1; k < n; k++ {
			r = b.eval(r, s[k*stride])
		}
		return r
	case ReduceProd:
		r := 1.0
		for k := 0; k < n; k++ {
			r *= float64(s[k*stride])
		}
		return float32(r)
	case ReduceLogSumExp:
		hi := math.Inf(-1)
		for k := 0; k < n; k++ {
			hi = max(hi, float64(s[k*stride]))
		}
		if math.IsInf(hi, 0) {
			return float32(hi)
		}
		var r float64
		for k := 0; k < n; k++ {
			r += math.Exp(float64(s[k*stride]) - hi)
		}
		return float32(hi + math.Log(r))
	}
	var r float64
	for k := 0; k < n; k++ {
		v := float64(s[k*stride])
		switch op {
		case ReduceL1:
			v = math.Abs(v)
		case ReduceL2, ReduceSumSquare:
			v *= v
		}
		r += v
	}
	switch op {
	case ReduceMean:
		r /= float64(n)
	case ReduceL2:
		r = math.Sqrt(r)
	}
	return float32(r)
}
