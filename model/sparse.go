package model

import (
	"fmt"
	"math/bits"
)

// Form returns FormSparse.
func (s *Sparse) Form() Form { return FormSparse }

// StoredBytes returns the bytes of the mask and of the values kept.
func (s *Sparse) StoredBytes() int64 { return s.Mask.StoredBytes() + s.Values.StoredBytes() }

// Sparsity returns the share of positions that are not stored, 0 to 1.
func (s *Sparse) Sparsity() float64 {
	n := s.Mask.Elems()
	if n <= 0 {
		return 0
	}
	return 1 - float64(s.Values.Elems())/float64(n)
}

// Decode scatters the values to the positions of set mask bits, in row-major
// order, and leaves 0 elsewhere. The number of set bits must be the number of
// values.
func (s *Sparse) Decode(d DType, shape Shape) (*Tensor, error) {
	if s.Mask == nil || s.Values == nil {
		return nil, fmt.Errorf("model: sparse constant without %s", missing(s.Mask, "mask", "values"))
	}
	if n := s.Mask.Shape.Elems(); n < 0 || n != shape.Elems() {
		return nil, fmt.Errorf("model: sparse mask of shape %v where %v is declared", s.Mask.Shape, shape)
	}
	if t := s.Mask.DType; t != UInt1 && t != Bool {
		return nil, fmt.Errorf("model: sparse mask of type %s (want uint1)", t)
	}
	if len(s.Values.Shape) != 1 {
		return nil, fmt.Errorf("model: sparse values of shape %v (want one dimension)", s.Values.Shape)
	}
	if !scalar(s.Values.DType) || !scalar(d) {
		return nil, fmt.Errorf("model: sparse values of type %s decoded to %s", s.Values.DType, d)
	}
	mask, err := whole(s.Mask, "sparse mask")
	if err != nil {
		return nil, err
	}
	values, err := whole(s.Values, "sparse values")
	if err != nil {
		return nil, err
	}
	if set := popcount(mask); set != values.Len() {
		return nil, fmt.Errorf("model: sparse mask of shape %v has %d bits set for %d values", s.Mask.Shape, set, values.Len())
	}
	values = values.Convert(d)
	out := NewTensor(d, shape...)
	switch d.Bits() {
	case 8:
		scatter(View[uint8](out), View[uint8](values), mask)
	case 16:
		scatter(View[uint16](out), View[uint16](values), mask)
	case 32:
		scatter(View[uint32](out), View[uint32](values), mask)
	case 64:
		scatter(View[uint64](out), View[uint64](values), mask)
	default:
		k := 0
		for i, n := 0, out.Len(); i < n; i++ {
			if mask.IntAt(i) != 0 {
				out.SetInt(i, values.IntAt(k))
				k++
			}
		}
	}
	return out, nil
}

func scatter[T uint8 | uint16 | uint32 | uint64](out, values []T, mask *Tensor) {
	k := 0
	if mask.DType == Bool {
		for i, m := range mask.Data {
			if m != 0 {
				out[i] = values[k]
				k++
			}
		}
		return
	}
	for i, m := range mask.Data {
		for ; m != 0; m &= m - 1 {
			at := i*8 + bits.TrailingZeros8(m)
			if at >= len(out) {
				return
			}
			out[at] = values[k]
			k++
		}
	}
}

// popcount counts the set bits of a mask, padding excluded.
func popcount(mask *Tensor) int {
	n := 0
	if mask.DType == Bool {
		for _, m := range mask.Data {
			if m != 0 {
				n++
			}
		}
		return n
	}
	for _, m := range mask.Data {
		n += bits.OnesCount8(m)
	}
	if pad := mask.Len() & 7; pad != 0 {
		n -= bits.OnesCount8(mask.Data[len(mask.Data)-1] >> pad)
	}
	return n
}

// maskOf returns the mask of a constant with sparse storage (or of a palette
// of sparse indices), nil if there is none.
func maskOf(c *Const) (*Tensor, error) {
	switch s := c.Storage.(type) {
	case *Sparse:
		return whole(s.Mask, "sparse mask")
	case *Lookup:
		if s.Vector() == 1 {
			return maskOf(s.Indices)
		}
	case *Affine:
		return maskOf(s.Codes)
	}
	return nil, nil
}

// clearMasked zeroes the elements of out whose mask bit is clear.
func clearMasked(out, mask *Tensor) {
	for i, n := 0, mask.Len(); i < n; i++ {
		if mask.IntAt(i) == 0 {
			zeroElem(out, i)
		}
	}
}

// zeroElem clears element i of a type of at least 8 bits.
func zeroElem(t *Tensor, i int) {
	w := t.DType.Bits() / 8
	clear(t.Data[i*w : i*w+w])
}
