package quant

import (
	"fmt"
	"math"

	"github.com/triune-sim/triune/model"
)

// linearCodes is the result of linear quantisation.
type linearCodes struct {
	codes []byte    // one per weight, two's complement where signed
	scale []float32 // one per group
	zero  []byte    // one per group; nil when there is no zero point
}

// codeRange returns the codes in use: a symmetric scheme drops one, so that
// zero lies in the middle.
func codeRange(d model.DType, asymmetric bool) (lo, hi int) {
	l, h, _ := d.IntRange()
	if !asymmetric {
		if d.IsSigned() {
			l++
		} else {
			h--
		}
	}
	return int(l), int(h)
}

// hasZero reports whether the scheme stores zero points.
func hasZero(d model.DType, asymmetric bool) bool { return asymmetric || !d.IsSigned() }

// qparams returns scale and zero point of the range lo..hi, as coremltools'
// quantize_weight_by_dtype computes them: every operation rounded to the
// weights' type.
//
//	symmetric  R = max(|lo|,|hi|), scale = 2R/(qmax-qmin), zero 0 (unsigned: qmax/2)
//	linear     lo' = min(0,lo), hi' = max(0,hi), scale = (hi'-lo')/(qmax-qmin),
//	           zero = clip(rint((qmin*hi' - qmax*lo') / (hi'-lo')))
//
// A range of width 0 gives scale 0 and a zero point of 0 (numpy divides 0 by
// 0 there, and the cast of the result to an integer gives 0).
func (a arith) qparams(lo, hi float32, d model.DType, asymmetric bool) (scale, zero float32) {
	qmin, qmax := codeRange(d, asymmetric)
	if !asymmetric {
		r := max(abs32(lo), abs32(hi))
		lo, hi = -r, r
		if !d.IsSigned() {
			zero = float32(qmax / 2)
		}
	} else {
		lo, hi = min(0, lo), max(0, hi)
	}
	width := a.round(hi - lo)
	scale = a.round(width / float32(qmax-qmin))
	if asymmetric && width != 0 {
		z := a.round(a.round(float32(qmin)*hi) - a.round(float32(qmax)*lo))
		zero = min(max(rint(a.round(z/width)), float32(qmin)), float32(qmax))
	}
	return scale, zero
}

func abs32(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// quantizeLinear quantises weights w of the given shape; groups counts the
// scales on each axis.
func (a arith) quantizeLinear(w []float32, shape, groups model.Shape, d model.DType, asymmetric bool) linearCodes {
	n := int(groups.Elems())
	lo, hi := make([]float32, n), make([]float32, n)
	for i := range lo {
		lo[i], hi[i] = float32(math.Inf(1)), float32(math.Inf(-1))
	}
	model.EachBlock(shape, groups, func(off, run, count, g int) {
		for j := range count {
			l, h := lo[g+j], hi[g+j]
			for _, x := range w[off : off+run] {
				l, h = min(l, x), max(h, x)
			}
			lo[g+j], hi[g+j] = l, h
			off += run
		}
	})
	r := linearCodes{codes: make([]byte, len(w)), scale: make([]float32, n)}
	zero := make([]float32, n)
	for i := range n {
		if len(w) == 0 {
			lo[i], hi[i] = 0, 0
		}
		r.scale[i], zero[i] = a.qparams(lo[i], hi[i], d, asymmetric)
	}
	if hasZero(d, asymmetric) {
		r.zero = make([]byte, n)
		for i, z := range zero {
			r.zero[i] = byte(int(z))
		}
	}
	qmin, qmax := codeRange(d, asymmetric)
	model.EachBlock(shape, groups, func(off, run, count, g int) {
		for j := range count {
			a.quantizeRun(r.codes[off:off+run], w[off:off+run], r.scale[g+j], zero[g+j], float32(qmin), float32(qmax))
			off += run
		}
	})
	return r
}

// quantizeRun computes q = clip(rint(w/scale) + zero, qmin, qmax).
func (a arith) quantizeRun(q []byte, w []float32, scale, zero, qmin, qmax float32) {
	if scale == 0 {
		// numpy computes 0/0 for a zero weight, which casts to 0, and an
		// infinity, which clips, for a weight that underflowed its scale.
		for i, x := range w {
			switch {
			case x > 0:
				q[i] = byte(int(qmax))
			case x < 0:
				q[i] = byte(int(qmin))
			default:
				q[i] = 0
			}
		}
		return
	}
	for i, x := range w {
		v := rint(a.round(x/scale)) + zero
		q[i] = byte(int(min(max(v, qmin), qmax)))
	}
}

// groups returns the number of scales on each axis, or the reason why
// the weight cannot be divided so.
func (c Linear) groups(shape model.Shape, in, out int) (model.Shape, string) {
	sizes := make([]int, len(shape))
	switch {
	case c.Granularity == model.PerBlock && c.BlockSizes != nil:
		if len(c.BlockSizes) != len(shape) {
			return nil, fmt.Sprintf("block_size has %d entries for a weight of rank %d", len(c.BlockSizes), len(shape))
		}
		copy(sizes, c.BlockSizes)
	case c.Granularity == model.PerChannel:
		if out < len(shape) {
			sizes[out] = 1
		}
	case c.Granularity == model.PerBlock:
		if in < len(shape) {
			sizes[in] = c.BlockSize
		}
		if out < len(shape) {
			sizes[out] = 1
		}
	}
	groups := make(model.Shape, len(shape))
	for i, b := range sizes {
		groups[i] = 1
		if b == 0 {
			continue
		}
		if shape[i]%b != 0 {
			return nil, fmt.Sprintf("axis %d of %v is not divisible by block size %d", i, shape, b)
		}
		groups[i] = shape[i] / b
	}
	return groups, ""
}
