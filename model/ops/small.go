package ops

import (
	"math"
	"sync"

	"github.com/triune-sim/triune/model"
)

// The 8-bit and 4-bit floating-point types of ONNX ("FP8 Formats for Deep
// Learning", arXiv 2209.05433, and the FNUZ variants of arXiv 2206.02915).
type smallFormat struct {
	exp, man, bias int
	inf            bool // has infinities (E5M2)
	fnuz           bool // no negative zero: 0x80 is the only NaN
	bits           int
}

func formatOf(d model.DType) smallFormat {
	switch d {
	case model.Float8E4M3FN:
		return smallFormat{exp: 4, man: 3, bias: 7, bits: 8}
	case model.Float8E4M3FNUZ:
		return smallFormat{exp: 4, man: 3, bias: 8, fnuz: true, bits: 8}
	case model.Float8E5M2:
		return smallFormat{exp: 5, man: 2, bias: 15, inf: true, bits: 8}
	case model.Float8E5M2FNUZ:
		return smallFormat{exp: 5, man: 2, bias: 16, fnuz: true, bits: 8}
	}
	return smallFormat{exp: 2, man: 1, bias: 1, bits: 4}
}

var smallTables sync.Map // model.DType -> []float64

// smallFloats returns the value of every code of a small float type.
func smallFloats(d model.DType) []float64 {
	if t, ok := smallTables.Load(d); ok {
		return t.([]float64)
	}
	f := formatOf(d)
	n := 1 << f.bits
	t := make([]float64, n)
	for c := range t {
		sign := 1.0
		if c>>(f.bits-1) != 0 {
			sign = -1
		}
		e := c >> f.man & (1<<f.exp - 1)
		m := c & (1<<f.man - 1)
		switch {
		case f.fnuz && c == 1<<(f.bits-1):
			t[c] = math.NaN()
			continue
		case f.inf && e == 1<<f.exp-1:
			t[c] = sign * math.Inf(1)
			if m != 0 {
				t[c] = math.NaN()
			}
			continue
		case d == model.Float8E4M3FN && e == 1<<f.exp-1 && m == 1<<f.man-1:
			t[c] = math.NaN()
			continue
		}
		if e == 0 {
			t[c] = sign * math.Ldexp(float64(m), 1-f.bias-f.man)
		} else {
			t[c] = sign * math.Ldexp(float64(m+1<<f.man), e-f.bias-f.man)
		}
	}
	smallTables.Store(d, t)
	return t
}

// encodeSmall rounds x to the nearest code, ties to even. With sat, values
// beyond the range become the largest finite one; otherwise infinity or NaN.
func encodeSmall(d model.DType, x float64, sat bool) uint8 {
	f := formatOf(d)
	tab := smallFloats(d)
	half := 1 << (f.bits - 1)
	sign := uint8(0)
	if math.Signbit(x) {
		sign = uint8(half)
	}
	nan := uint8(half - 1)
	if f.fnuz {
		nan = uint8(half)
	}
	if d == model.Float4E2M1 {
		nan = 0
	}
	if x != x {
		if f.fnuz {
			return nan
		}
		return nan | sign&0x7f
	}
	a := math.Abs(x)
	maxCode := half - 1
	for math.IsNaN(tab[maxCode]) || math.IsInf(tab[maxCode], 0) {
		maxCode--
	}
	// Codes of one sign grow with the value.
	lo, hi := 0, maxCode
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if tab[mid] <= a {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	code := lo
	if lo == maxCode {
		step := tab[maxCode] - tab[maxCode-1]
		if over := a - tab[maxCode]; !sat && d != model.Float4E2M1 && (over > step/2 || over == step/2 && maxCode&1 == 1) {
			if f.inf {
				return sign | uint8((1<<f.exp-1)<<f.man)
			}
			if f.fnuz {
				return nan
			}
			return sign | nan
		}
	} else if d1, d2 := a-tab[lo], tab[lo+1]-a; d2 < d1 || d1 == d2 && lo&1 == 1 {
		code = lo + 1
	}
	if f.fnuz && code == 0 {
		return 0
	}
	return sign | uint8(code)
}

func smallBits(t *model.Tensor, i int) uint8 {
	if t.DType == model.Float4E2M1 {
		return t.Data[i/2] >> (4 * (i % 2)) & 15
	}
	return t.Data[i]
}

func setSmall(t *model.Tensor, i int, code uint8) {
	if t.DType == model.Float4E2M1 {
		sh := 4 * (i % 2)
		t.Data[i/2] = t.Data[i/2]&^(15<<sh) | code<<sh
		return
	}
	t.Data[i] = code
}
