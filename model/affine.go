package model

import (
	"fmt"
	"math"

	"github.com/x448/float16"
)

// Form returns FormAffine.
func (a *Affine) Form() Form { return FormAffine }

// StoredBytes returns the bytes of codes, scales and zero points.
func (a *Affine) StoredBytes() int64 {
	n := a.Codes.StoredBytes() + a.Scale.StoredBytes()
	if a.Zero != nil {
		n += a.Zero.StoredBytes()
	}
	return n
}

// Block returns how many elements on each axis share one scale: the whole
// axis where the scale's dimension is 1. It fails when a dimension of the
// codes is no multiple of the scale's.
func (a *Affine) Block() (Shape, error) {
	if a.Codes == nil || a.Scale == nil {
		return nil, fmt.Errorf("model: affine constant without %s", missing(a.Codes, "codes", "scale"))
	}
	return blocks("affine", "scale", a.Codes.Shape, a.Scale.Shape)
}

// Decode returns scale * (code - zero) in d, computed as Core ML does
// (constexpr_blockwise_shift_scale): codes and zero points are cast to the
// scale's type and every operation is rounded to it; only the result is
// converted to d. Where the codes are sparse, masked-out positions are 0.
func (a *Affine) Decode(d DType, shape Shape) (*Tensor, error) {
	if _, err := a.Block(); err != nil {
		return nil, err
	}
	if n := a.Codes.Shape.Elems(); n < 0 || n != shape.Elems() {
		return nil, fmt.Errorf("model: affine codes of shape %v where %v is declared", a.Codes.Shape, shape)
	}
	if !d.IsFloat() || d.Bits() < 16 {
		return nil, fmt.Errorf("model: affine constant decodes to fp16, bf16, fp32 or fp64, not to %s", d)
	}
	if t := a.Scale.DType; !t.IsFloat() || t.Bits() < 16 {
		return nil, fmt.Errorf("model: affine scale of type %s (want fp16, bf16, fp32 or fp64)", t)
	}
	if !scalar(a.Codes.DType) {
		return nil, fmt.Errorf("model: affine codes of type %s (want an integer type, fp16 or fp32)", a.Codes.DType)
	}
	codes, err := whole(a.Codes, "affine codes")
	if err != nil {
		return nil, err
	}
	scale, err := whole(a.Scale, "affine scale")
	if err != nil {
		return nil, err
	}
	var zero *Tensor
	if a.Zero != nil {
		if !scalar(a.Zero.DType) {
			return nil, fmt.Errorf("model: affine zero point of type %s (want an integer type, fp16 or fp32)", a.Zero.DType)
		}
		if zero, err = whole(a.Zero, "affine zero point"); err != nil {
			return nil, err
		}
		if zero.Shape.Elems() != scale.Shape.Elems() {
			return nil, fmt.Errorf("model: affine zero point of shape %v beside a scale of shape %v", zero.Shape, scale.Shape)
		}
	}
	out := NewTensor(d, shape...)
	groups := scale.Shape
	switch narrow := a.Codes.DType.IsInt() && a.Codes.DType.Bits() <= 8 && scale.DType != Float64; {
	case narrow && d == Float16:
		decodeAffine(View[uint16](out), codes, scale, zero, groups, rounder(scale.DType),
			func(x float32) uint16 { return float16.Fromfloat32(x).Bits() })
	case narrow && d == Float32:
		decodeAffine(View[float32](out), codes, scale, zero, groups, rounder(scale.DType),
			func(x float32) float32 { return x })
	default:
		decodeAffineSlow(out, codes, scale, zero, groups)
	}
	mask, err := maskOf(a.Codes)
	if err != nil {
		return nil, err
	}
	if mask != nil {
		clearMasked(out, mask)
	}
	return out, nil
}

// decodeAffine is the path of codes of at most 8 bits. A difference of two
// such codes has 9 bits and a scale at most 24, so that for fp16 and bf16 the
// product is exact in float32 and rounded once.
func decodeAffine[T uint16 | float32](out []T, codes, scale, zero *Tensor, groups Shape, round func(float32) float32, conv func(float32) T) {
	b, signed := bytesOf(codes)
	s := scale.Float32s()
	var z []float32
	zround := func(x float32) float32 { return x }
	if zero != nil {
		z = zero.Float32s()
		if zero.DType.IsFloat() {
			zround = round
		}
	}
	value := func(c byte, s, z float32) T {
		q := float32(c)
		if signed {
			q = float32(int8(c))
		}
		return conv(round(zround(q-z) * s))
	}
	var tab [256]T
	EachBlock(codes.Shape, groups, func(off, run, count, g int) {
		for j := 0; j < count; j, off = j+1, off+run {
			sc, zp := s[g+j], float32(0)
			if z != nil {
				zp = zround(z[g+j])
			}
			dst, src := out[off:off+run], b[off:off+run]
			if run < 512 {
				for i, c := range src {
					dst[i] = value(c, sc, zp)
				}
				continue
			}
			for i := range tab {
				tab[i] = value(byte(i), sc, zp)
			}
			for i, c := range src {
				dst[i] = tab[c]
			}
		}
	})
}

// decodeAffineSlow serves wide and floating-point codes and fp64.
func decodeAffineSlow(out, codes, scale, zero *Tensor, groups Shape) {
	round := round64(scale.DType)
	exact := codes.DType.IsInt() && (zero == nil || zero.DType.IsInt())
	EachBlock(codes.Shape, groups, func(off, run, count, g int) {
		for j := 0; j < count; j, off = j+1, off+run {
			s := scale.At(g + j)
			for i := off; i < off+run; i++ {
				var q float64
				switch {
				case exact && zero == nil:
					q = round(float64(codes.IntAt(i)))
				case exact:
					q = round(float64(codes.IntAt(i) - zero.IntAt(g+j)))
				case zero == nil:
					q = round(codes.At(i))
				default:
					q = round(round(codes.At(i)) - round(zero.At(g+j)))
				}
				out.Set(i, round(q*s))
			}
		}
	})
}

// rounder returns the rounding of float32 to a floating-point type.
func rounder(d DType) func(float32) float32 {
	switch d {
	case Float16:
		return func(x float32) float32 { return float16.Fromfloat32(x).Float32() }
	case BFloat16:
		return func(x float32) float32 {
			b := math.Float32bits(x)
			if x == x {
				b += 0x7fff + b>>16&1
			}
			return math.Float32frombits(b &^ 0xffff)
		}
	}
	return func(x float32) float32 { return x }
}

func round64(d DType) func(float64) float64 {
	if d == Float64 {
		return func(x float64) float64 { return x }
	}
	r := rounder(d)
	return func(x float64) float64 { return float64(r(float32(x))) }
}

// bytesOf returns codes of at most 8 bits as one byte each, sign-extended.
func bytesOf(t *Tensor) (b []byte, signed bool) {
	signed = t.DType.IsSigned()
	switch t.DType {
	case Int8, UInt8, Bool:
		return t.Data, signed
	case Int4, UInt4:
		b = make([]byte, t.Len())
		for i := range b {
			c := t.Data[i>>1] >> (4 * uint(i&1)) & 15
			if signed {
				c = byte(int8(c<<4) >> 4)
			}
			b[i] = c
		}
		return b, signed
	}
	b = make([]byte, t.Len())
	for i := range b {
		b[i] = byte(t.IntAt(i))
	}
	return b, signed
}

// scalar reports whether Tensor.At works for the type.
func scalar(d DType) bool {
	return d.IsInt() || d == Bool || d.IsFloat() && d.Bits() >= 16
}

// whole decodes a constant and checks that it holds all its elements.
func whole(c *Const, what string) (*Tensor, error) {
	if c == nil || c.Storage == nil {
		return nil, fmt.Errorf("model: %s missing", what)
	}
	if c.Shape.Elems() < 0 {
		return nil, fmt.Errorf("model: %s of unknown shape %v", what, c.Shape)
	}
	t, err := c.Value()
	if err != nil {
		return nil, err
	}
	if want := t.DType.Bytes(t.Shape.Elems()); int64(len(t.Data)) != want {
		return nil, fmt.Errorf("model: %s of %s %v hold %d bytes (want %d)", what, t.DType, t.Shape, len(t.Data), want)
	}
	return t, nil
}

func missing(c *Const, a, b string) string {
	if c == nil {
		return a
	}
	return b
}

// blocks divides the dimensions of a by those of groups. A group of one
// element may have any rank.
func blocks(form, what string, a, groups Shape) (Shape, error) {
	if a.Elems() < 0 || groups.Elems() < 0 {
		return nil, fmt.Errorf("model: %s constant of unknown shape %v with a %s of shape %v", form, a, what, groups)
	}
	if groups.Elems() == 1 && len(groups) != len(a) {
		return a.Clone(), nil
	}
	if len(groups) != len(a) {
		return nil, fmt.Errorf("model: %s constant of shape %v with a %s of shape %v: the ranks differ", form, a, what, groups)
	}
	b := make(Shape, len(a))
	for i, n := range a {
		g := groups[i]
		if g == 0 && n == 0 {
			continue
		}
		if g == 0 || n%g != 0 {
			return nil, fmt.Errorf("model: %s constant of shape %v with a %s of shape %v: axis %d does not divide", form, a, what, groups, i)
		}
		b[i] = n / g
	}
	return b, nil
}

// EachBlock visits an array of shape a that is divided into groups (as scales
// and tables divide weights: the number of groups on each axis, which must
// divide the axis) in row-major order: count consecutive runs of run elements
// start at off; run j belongs to group g+j, counted in row-major order of
// groups. Groups of one element may have any rank.
func EachBlock(a, groups Shape, f func(off, run, count, g int)) {
	n := int(a.Elems())
	if n == 0 {
		return
	}
	last := len(a) - 1
	if len(groups) != len(a) {
		last = -1
	}
	for last >= 0 && groups[last] == 1 {
		last--
	}
	if last < 0 {
		f(0, n, 1, 0)
		return
	}
	count := groups[last]
	run := a[last] / count
	for _, d := range a[last+1:] {
		run *= d
	}
	stride := make([]int, last) // of the group index on each outer axis
	s := count
	for i := last - 1; i >= 0; i-- {
		stride[i] = s
		s *= groups[i]
	}
	at := make([]int, last)
	for off := 0; off < n; off += run * count {
		g := 0
		for i, x := range at {
			g += x / (a[i] / groups[i]) * stride[i]
		}
		f(off, run, count, g)
		for i := last - 1; i >= 0; i-- {
			if at[i]++; at[i] < a[i] {
				break
			}
			at[i] = 0
		}
	}
}
