package coreml

import (
	"math"
	"sync"

	"github.com/triune-sim/triune/model"
)

func sqrt(n int) float64 { return math.Sqrt(float64(n)) }

// derived is the storage of a constant that is another one rearranged: its
// axes permuted, its gates reordered. The work is done at first use; the size
// is that of the original.
type derived struct {
	of   *model.Const
	f    func(*model.Tensor) *model.Tensor
	perm []int // set where f permutes axes, so that two of them can cancel
	once sync.Once
	val  *model.Tensor
	err  error
}

// Form returns FormDense: the constant holds plain values.
func (p *derived) Form() model.Form { return model.FormDense }

// StoredBytes returns the bytes of the original.
func (p *derived) StoredBytes() int64 { return p.of.StoredBytes() }

// Decode rearranges the original's values.
func (p *derived) Decode(d model.DType, s model.Shape) (*model.Tensor, error) {
	p.once.Do(func() {
		t, err := p.of.Value()
		if err != nil {
			p.err = err
			return
		}
		p.val = p.f(t)
	})
	if p.err != nil {
		return nil, p.err
	}
	return model.Dense{Tensor: p.val}.Decode(d, s)
}

// filled is a constant of one repeated value, which takes no memory: a file of
// a few bytes can ask for many of them.
type filled struct {
	dtype model.DType
	n     int64
	v     float64
}

// Form returns FormDense.
func (f *filled) Form() model.Form { return model.FormDense }

// StoredBytes returns the size the values have where they are written.
func (f *filled) StoredBytes() int64 { return f.dtype.Bytes(f.n) }

// Decode makes the values.
func (f *filled) Decode(d model.DType, s model.Shape) (*model.Tensor, error) {
	t := model.NewTensor(f.dtype, int(f.n))
	if f.v != 0 {
		for i := range t.Len() {
			t.Set(i, f.v)
		}
	}
	return model.Dense{Tensor: t}.Decode(d, s)
}

// permuteConst returns a constant with permuted axes whose storage stays as
// compressed as it was: codes, scales, indices, tables and masks are permuted
// when somebody decodes them.
func permuteConst(k *model.Const, perm []int) *model.Const {
	out := &model.Const{DType: k.DType, Shape: permuteShape(k.Shape, perm)}
	side := func(c *model.Const) *model.Const { // a scale or a zero point
		if c == nil || len(c.Shape) != len(perm) {
			return c
		}
		return permuteConst(c, perm)
	}
	switch s := k.Storage.(type) {
	case *model.Affine:
		out.Storage = &model.Affine{Codes: permuteConst(s.Codes, perm), Scale: side(s.Scale), Zero: side(s.Zero)}
		return out
	case *model.Lookup:
		r := len(perm)
		l := &model.Lookup{Indices: permuteConst(s.Indices, perm), Table: s.Table}
		if len(s.Table.Shape) == r+2 && s.Table.Shape[:r].Elems() > 1 { // one table is all ones there
			l.Table = permuteConst(s.Table, append(append([]int{}, perm...), r, r+1))
		}
		for i, p := range perm {
			if p == s.VectorAxis {
				l.VectorAxis = i
			}
		}
		out.Storage = l
		return out
	case *model.Sparse:
		// The order of the non-zero values changes with the axes.
		mask := permuteConst(s.Mask, perm)
		out.Storage = &model.Sparse{Mask: mask, Values: model.NewLazy(s.Values.DType, s.Values.Shape, func() (*model.Tensor, error) {
			t, err := k.Value()
			if err != nil {
				return nil, err
			}
			m, err := mask.Value()
			if err != nil {
				return nil, err
			}
			return kept(permute(t, perm), m, s.Values), nil
		})}
		return out
	case *derived:
		if both := compose(s.perm, perm); both != nil && isIdentity(both) && s.of.DType == k.DType {
			return s.of
		}
	}
	out.Storage = &derived{of: k, perm: perm, f: func(t *model.Tensor) *model.Tensor { return permute(t, perm) }}
	return out
}

func permuteShape(s model.Shape, perm []int) model.Shape {
	out := make(model.Shape, len(s))
	for i, p := range perm {
		out[i] = s[p]
	}
	return out
}

func compose(first, then []int) []int {
	if len(first) != len(then) {
		return nil
	}
	out := make([]int, len(then))
	for i, p := range then {
		out[i] = first[p]
	}
	return out
}

func isIdentity(p []int) bool {
	for i, x := range p {
		if x != i {
			return false
		}
	}
	return true
}

// kept collects the elements of a tensor whose mask bit is set; like gives
// their type and number.
func kept(t, mask *model.Tensor, like *model.Const) *model.Tensor {
	out := model.NewTensor(like.DType, like.Shape...)
	j := 0
	for i := range mask.Len() {
		if mask.IntAt(i) != 0 && j < out.Len() {
			copyElem(out, j, t, i)
			j++
		}
	}
	return out
}

// keptConst is the one-dimensional constant of the elements of k where the
// mask is set.
func keptConst(k, mask *model.Const) *model.Const {
	m, err := mask.Value()
	try(err)
	n := int(popcount(m))
	like := &model.Const{DType: k.DType, Shape: model.Shape{n}}
	return model.NewLazy(k.DType, like.Shape, func() (*model.Tensor, error) {
		t, err := k.Value()
		if err != nil {
			return nil, err
		}
		return kept(t, m, like), nil
	})
}

// permute returns a tensor with its axes permuted.
func permute(t *model.Tensor, perm []int) *model.Tensor {
	out := model.NewTensor(t.DType, permuteShape(t.Shape, perm)...)
	n := t.Len()
	if n == 0 {
		return out
	}
	r := len(perm)
	stride := make([]int, r) // of t, on its own axes
	for i, s := r-1, 1; i >= 0; i-- {
		stride[i] = s
		s *= t.Shape[i]
	}
	step := make([]int, r) // of t, on out's axes
	for i, p := range perm {
		step[i] = stride[p]
	}
	at := make([]int, r)
	src := 0
	for i := 0; i < n; i++ {
		copyElem(out, i, t, src)
		for a := r - 1; a >= 0; a-- {
			at[a]++
			src += step[a]
			if at[a] < out.Shape[a] {
				break
			}
			src -= at[a] * step[a]
			at[a] = 0
		}
	}
	return out
}

// copyElem copies one element between tensors of one type.
func copyElem(dst *model.Tensor, i int, src *model.Tensor, j int) {
	if dst.DType == model.String {
		dst.Strings[i] = src.Strings[j]
		return
	}
	w := dst.DType.Bits() / 8
	switch w {
	case 0:
		dst.SetInt(i, src.IntAt(j))
	case 1:
		dst.Data[i] = src.Data[j]
	case 2:
		dst.Data[2*i], dst.Data[2*i+1] = src.Data[2*j], src.Data[2*j+1]
	default:
		copy(dst.Data[i*w:i*w+w], src.Data[j*w:])
	}
}
