package ops

import (
	"math"
	"math/big"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/x448/float16"

	"github.com/triune-sim/triune/model"
)

// floats returns the elements as float64: a view for fp64 tensors (not to be
// modified), a converted copy otherwise.
func floats(t *model.Tensor) []float64 {
	switch t.DType {
	case model.Float64:
		return model.View[float64](t)
	case model.String, model.Complex64, model.Complex128, model.Invalid:
		failf("a %s tensor where numbers are wanted", t.DType)
	}
	out := make([]float64, t.Len())
	switch t.DType {
	case model.Float32:
		for i, v := range model.View[float32](t) {
			out[i] = float64(v)
		}
	case model.Float16:
		for i, v := range model.View[uint16](t) {
			out[i] = float64(float16.Frombits(v).Float32())
		}
	case model.Int8:
		for i, v := range model.View[int8](t) {
			out[i] = float64(v)
		}
	case model.UInt8:
		for i, v := range t.Data {
			out[i] = float64(v)
		}
	case model.Int32:
		for i, v := range model.View[int32](t) {
			out[i] = float64(v)
		}
	case model.Int64:
		for i, v := range model.View[int64](t) {
			out[i] = float64(v)
		}
	case model.Float8E4M3FN, model.Float8E4M3FNUZ, model.Float8E5M2, model.Float8E5M2FNUZ, model.Float4E2M1:
		dec := smallFloats(t.DType)
		for i := range out {
			out[i] = dec[smallBits(t, i)]
		}
	default:
		for i := range out {
			out[i] = t.At(i)
		}
	}
	return out
}

// ints returns the elements as int64: a view for int64 and uint64 tensors (bit
// pattern), a copy otherwise.
func ints(t *model.Tensor) []int64 {
	switch t.DType {
	case model.Int64:
		return model.View[int64](t)
	case model.String, model.Complex64, model.Complex128, model.Invalid:
		failf("a %s tensor where numbers are wanted", t.DType)
	}
	if t.DType.IsFloat() {
		f := floats(t)
		out := make([]int64, len(f))
		for i, v := range f {
			out[i] = int64(v)
		}
		return out
	}
	return t.Int64s()
}

// fromFloats rounds v to type d. The slice is kept when d is fp64.
func fromFloats(d model.DType, shape model.Shape, v []float64) *model.Tensor {
	if d == model.Float64 {
		if len(v) == 0 {
			return model.NewTensor(d, shape...)
		}
		return model.Of(v, append([]int{}, shape...)...)
	}
	t := model.NewTensor(d, shape...)
	switch d {
	case model.Float32:
		out := model.View[float32](t)
		for i, x := range v {
			out[i] = float32(x)
		}
	case model.Float16:
		out := model.View[uint16](t)
		for i, x := range v {
			out[i] = float16.Fromfloat32(float32(x)).Bits()
		}
	case model.Float8E4M3FN, model.Float8E4M3FNUZ, model.Float8E5M2, model.Float8E5M2FNUZ, model.Float4E2M1:
		for i, x := range v {
			setSmall(t, i, encodeSmall(d, x, true))
		}
	default:
		for i, x := range v {
			t.Set(i, x)
		}
	}
	return t
}

// fromInts stores integers as type d, keeping the low bits.
func fromInts(d model.DType, shape model.Shape, v []int64) *model.Tensor {
	t := model.NewTensor(d, shape...)
	if d.IsFloat() {
		for i, x := range v {
			t.Set(i, float64(x))
		}
		return t
	}
	switch d {
	case model.Int64, model.UInt64:
		copy(model.View[int64](t), v)
	default:
		for i, x := range v {
			t.SetInt(i, x)
		}
	}
	return t
}

// convert changes the element type as Cast does for numbers.
func convert(t *model.Tensor, d model.DType) *model.Tensor {
	if t.DType == d {
		return t
	}
	if t.DType.IsFloat() || d.IsFloat() {
		if t.DType == model.UInt64 {
			v := ints(t)
			f := make([]float64, len(v))
			for i, x := range v {
				f[i] = float64(uint64(x))
			}
			return fromFloats(d, t.Shape, f)
		}
		return fromFloats(d, t.Shape, floats(t))
	}
	return fromInts(d, t.Shape, ints(t))
}

// roundEven rounds half to even.
func roundEven(x float64) float64 { return math.RoundToEven(x) }

// saturate rounds to nearest even and clamps to the range of integer type d.
func saturate(d model.DType, x float64) int64 {
	lo, hi, ok := d.IntRange()
	if !ok {
		failf("cannot quantize to %s", d)
	}
	if x != x {
		return 0
	}
	x = roundEven(x)
	if x < float64(lo) {
		return lo
	}
	if x > float64(hi) {
		return hi
	}
	return int64(x)
}

// parallel calls f(i) for i in [0, n) on all processors. Each call must write
// to its own part of the result, which therefore does not depend on the number
// of processors. A panic in f is raised again in the caller.
func parallel(n int, f func(i int)) {
	workers := min(n, runtime.GOMAXPROCS(0))
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	var thrown atomic.Pointer[any]
	for range workers {
		wg.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					thrown.CompareAndSwap(nil, &r)
				}
			}()
			for {
				i := int(next.Add(1)) - 1
				if i >= n || thrown.Load() != nil {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
	if p := thrown.Load(); p != nil {
		panic(*p)
	}
}

// strides returns the row-major strides of a shape.
func strides(s []int) []int {
	out := make([]int, len(s))
	n := 1
	for i := len(s) - 1; i >= 0; i-- {
		out[i] = n
		n *= s[i]
	}
	return out
}

// walk returns, for every element of a tensor of the given shape in row-major
// order, base plus the sum of index times stride.
func walk(shape, stride []int, base int) []int {
	n := prod(shape)
	out := make([]int, n)
	if n == 0 {
		return out
	}
	rank := len(shape)
	if rank == 0 {
		out[0] = base
		return out
	}
	idx := make([]int, rank)
	last, ls := shape[rank-1], stride[rank-1]
	for p := 0; p < n; {
		o := base
		for k := 0; k < last; k++ {
			out[p] = o
			o += ls
			p++
		}
		for d := rank - 2; ; d-- {
			if d < 0 {
				return out
			}
			idx[d]++
			base += stride[d]
			if idx[d] < shape[d] {
				break
			}
			base -= idx[d] * stride[d]
			idx[d] = 0
		}
	}
	return out
}

// broadcastIndex returns for each element of out the index into a tensor of
// shape s that broadcasts to it; nil means the identity.
func broadcastIndex(s, out model.Shape) []int {
	if s.Equal(out) {
		return nil
	}
	st := strides(s)
	full := make([]int, len(out))
	off := len(out) - len(s)
	if off < 0 {
		failf("shape %v does not broadcast to %v", s, out)
	}
	for i, d := range s {
		switch {
		case d == out[off+i]:
			full[off+i] = st[i]
		case d == 1:
		default:
			failf("shape %v does not broadcast to %v", s, out)
		}
	}
	return walk(out, full, 0)
}

// expandF returns v (of shape s) broadcast to out.
func expandF(v []float64, s, out model.Shape) []float64 {
	idx := broadcastIndex(s, out)
	if idx == nil {
		return v
	}
	r := make([]float64, len(idx))
	for i, j := range idx {
		r[i] = v[j]
	}
	return r
}

// pick returns a tensor of the given shape whose element i is element idx[i]
// of t; a negative index gives element 0 of fill (or zero where fill is nil).
// It works for every element type.
func pick(t *model.Tensor, shape model.Shape, idx []int, fill *model.Tensor) *model.Tensor {
	out := model.NewTensor(t.DType, shape...)
	if fill != nil && fill.DType != t.DType {
		failf("the fill value is %s, the data %s", fill.DType, t.DType)
	}
	if t.DType == model.String {
		for i, j := range idx {
			switch {
			case j >= 0:
				out.Strings[i] = t.Strings[j]
			case fill != nil:
				out.Strings[i] = fill.Strings[0]
			}
		}
		return out
	}
	bits := t.DType.Bits()
	if bits%8 != 0 {
		for i, j := range idx {
			switch {
			case j >= 0:
				out.SetInt(i, t.IntAt(j))
			case fill != nil:
				out.SetInt(i, fill.IntAt(0))
			}
		}
		return out
	}
	switch bits / 8 {
	case 4:
		src, dst := u32(t), u32(out)
		var f uint32
		if fill != nil {
			f = u32(fill)[0]
		}
		for i, j := range idx {
			if j >= 0 {
				dst[i] = src[j]
			} else {
				dst[i] = f
			}
		}
	case 8:
		src, dst := u64(t), u64(out)
		var f uint64
		if fill != nil {
			f = u64(fill)[0]
		}
		for i, j := range idx {
			if j >= 0 {
				dst[i] = src[j]
			} else {
				dst[i] = f
			}
		}
	default:
		w := bits / 8
		for i, j := range idx {
			switch {
			case j >= 0:
				copy(out.Data[i*w:(i+1)*w], t.Data[j*w:(j+1)*w])
			case fill != nil:
				copy(out.Data[i*w:(i+1)*w], fill.Data[:w])
			}
		}
	}
	return out
}

func u32(t *model.Tensor) []uint32 { return model.View[uint32](t) }
func u64(t *model.Tensor) []uint64 { return model.View[uint64](t) }

// bigRatio guards products of sizes in messages and checks.
func mulFits(a, b int) bool {
	if a == 0 || b == 0 {
		return true
	}
	return new(big.Int).Mul(big.NewInt(int64(a)), big.NewInt(int64(b))).IsInt64()
}
