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
	if outer*inner == 0 {
		return
	}
	ctx.reduce = reduceTask{op, dst, src, axis, inner}
	ctx.pool.Run(outer, &ctx.reduce)
	ctx.reduce = reduceTask{}
}

type reduceTask struct {
	op          ReduceOp
	dst, src    []float32
	axis, inner int
}

func (t *reduceTask) RunPiece(o, _ int) {
	s := t.src[o*t.axis*t.inner:][:t.axis*t.inner]
	if t.inner == 1 && t.axis > 0 {
		switch t.op {
		case ReduceSum:
			t.dst[o] = float32(sum64(s, 0, false))
			return
		case ReduceMean:
			t.dst[o] = float32(sum64(s, 0, false) / float64(t.axis))
			return
		case ReduceSumSquare:
			t.dst[o] = float32(sum64(s, 0, true))
			return
		case ReduceL2:
			t.dst[o] = float32(math.Sqrt(sum64(s, 0, true)))
			return
		}
	}
	if t.inner >= Block && (t.op == ReduceSum || t.op == ReduceMean) {
		// Columns in strips of float64 sums, so that rows are read whole.
		const strip = 64
		for c := 0; c < t.inner; c += strip {
			var sum [strip]float64
			w := min(strip, t.inner-c)
			for a := 0; a < t.axis; a++ {
				for j, v := range s[a*t.inner+c:][:w] {
					sum[j] += float64(v)
				}
			}
			for j := range sum[:w] {
				if t.op == ReduceMean {
					sum[j] /= float64(t.axis)
				}
				t.dst[o*t.inner+c+j] = float32(sum[j])
			}
		}
		return
	}
	for i := 0; i < t.inner; i++ {
		t.dst[o*t.inner+i] = reduceOne(t.op, s[min(i, len(s)):], t.axis, t.inner)
	}
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
