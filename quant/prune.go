package quant

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/x448/float16"

	"github.com/triune-sim/triune/model"
)

// prune makes a weight sparse. A weight that is quantised or palettised already
// keeps its scales or tables, and only the codes of its non-zeros.
func (k *compressor) prune(cfg OpConfig, w *weight) (*model.Const, string, error) {
	c := w.value.Const
	vector, vectorAxis := 1, 0
	switch s := c.Storage.(type) {
	case *model.Sparse:
		return nil, "sparse already", nil
	case *model.Affine:
		switch s.Codes.Storage.Form() {
		case model.FormDense:
		case model.FormLookup:
			return nil, "palettes of codes whose vectors span several scales cannot be pruned (prune before, or quantise after the palette)", nil
		default:
			return nil, "sparse already", nil
		}
	case *model.Lookup:
		if s.Indices.Storage.Form() != model.FormDense {
			return nil, "sparse already", nil
		}
		vector, vectorAxis = s.Vector(), s.VectorAxis
	}
	if m, ok := cfg.(Magnitude); ok && m.structured() {
		switch {
		case !structuredWeight(w):
			return nil, "blocks and n:m are for the weights of convolutions and linear layers", nil
		case !w.axesOK:
			return nil, "its readers have different channel axes", nil
		}
		// Axes are those of a weight of [output, input, ...]; a matrix that is
		// multiplied from the right lies the other way.
		m.Dim = [...]int{w.out, w.in}[m.Dim]
		cfg = m
		if reason := m.unfit(c.Shape); reason != "" {
			return nil, reason, nil
		}
	}
	if vector > 1 {
		if m, ok := cfg.(Magnitude); !ok || m.BlockSize < 2 || m.BlockSize%vector != 0 || m.Dim != vectorAxis {
			return nil, fmt.Sprintf("a palette of vectors of %d is pruned in whole vectors only (want block_size a multiple of %d along their axis)", vector, vector), nil
		}
	}
	// The number of non-zeros has to be known now. Of values that lie in a
	// file it is counted; of lazy ones it is what it is without ties.
	want := -1
	compute := sync.OnceValues(func() (*mask, error) {
		v, err := k.floats(c)
		if err != nil {
			return nil, err
		}
		a := arithOf(c.DType)
		m := newMask(cfg, a, v, c.Shape)
		if want >= 0 {
			m.resize(a, v, want)
		}
		return m, nil
	})
	n := 0
	m, plain := cfg.(Magnitude)
	if predictable := plain && m.BlockSize <= 1; predictable && k.isLazy(c) && !k.eager {
		want = m.count(c.Shape)
		n = want
	} else {
		mk, err := compute()
		if err != nil {
			return nil, err.Error(), nil
		}
		if t, ok := cfg.(Threshold); ok {
			if share := mk.zeroShare(); share < t.MinSparsity {
				return nil, fmt.Sprintf("minimum_sparsity_percentile %g: only %.3f of it is zero", t.MinSparsity, share), nil
			}
		}
		n = mk.kept
	}
	bits := model.NewLazy(model.UInt1, c.Shape, func() (*model.Tensor, error) {
		mk, err := compute()
		if err != nil {
			return nil, err
		}
		return mk.tensor(c.Shape), nil
	})
	s := &model.Sparse{Mask: bits, Values: &model.Const{DType: c.DType, Shape: model.Shape{n}}}
	out := &model.Const{DType: c.DType, Shape: c.Shape}
	switch x := c.Storage.(type) {
	case *model.Affine:
		out.Storage = &model.Affine{Codes: sparseCodes(x.Codes, s), Scale: x.Scale, Zero: x.Zero}
	case *model.Lookup:
		if vector > 1 {
			mk, err := compute()
			if err != nil {
				return nil, err.Error(), nil
			}
			s = mk.vectors(c.Shape, vectorAxis, vector)
		}
		out.Storage = &model.Lookup{Indices: sparseCodes(x.Indices, s), Table: x.Table, VectorAxis: x.VectorAxis}
	default:
		s.Values = model.NewLazy(c.DType, model.Shape{n}, func() (*model.Tensor, error) {
			mk, err := compute()
			if err != nil {
				return nil, err
			}
			v, err := k.floats(c)
			if err != nil {
				return nil, err
			}
			kept := make([]float32, 0, n)
			for i, x := range v {
				if mk.keep[i] {
					kept = append(kept, x)
				}
			}
			return tensorOf(c.DType, kept, n), nil
		})
		out.Storage = s
	}
	return out, "", nil
}

// structuredWeight reports whether all readers are convolutions or linear
// layers that read the constant as their weight.
func structuredWeight(w *weight) bool {
	for _, r := range w.readers {
		switch r.node.Op {
		case "Conv", "Gemm", "MatMul":
			if r.arg != 1 {
				return false
			}
		default:
			return false
		}
	}
	return len(w.readers) > 0
}

// unfit says why a structured pruning cannot be applied to a shape.
func (c Magnitude) unfit(shape model.Shape) string {
	if !c.structured() {
		return ""
	}
	if len(shape) > 5 {
		return fmt.Sprintf("structured pruning of rank %d (want 2 to 5)", len(shape))
	}
	ch := shape[c.Dim]
	if c.BlockSize > 1 && 2*c.BlockSize > ch {
		return fmt.Sprintf("block_size %d is more than half of the %d channels", c.BlockSize, ch)
	}
	if c.M > 0 && 2*c.M > ch {
		return fmt.Sprintf("m of %d is more than half of the %d channels", c.M, ch)
	}
	return ""
}

// count returns how many weights of a shape survive when no two magnitudes are
// equal and none is zero.
func (c Magnitude) count(shape model.Shape) int {
	n := int(shape.Elems())
	if c.M > 0 {
		ch := shape[c.Dim]
		rows := 0
		if ch > 0 {
			rows = n / ch
		}
		pruned := ch / c.M * c.N
		if rest := ch % c.M; rest > 0 { // the last group is padded with zeros, which go first
			pruned += max(0, c.N-(c.M-rest))
		}
		return rows * (ch - pruned)
	}
	switch {
	case c.Sparsity == 0 || n == 0:
		return n
	case c.Sparsity == 1:
		return 0
	}
	return n - 1 - int(math.Floor(float64(n-1)*c.Sparsity))
}

// mask says which weights are kept.
type mask struct {
	keep []bool
	kept int
}

func (m *mask) zeroShare() float64 {
	if len(m.keep) == 0 {
		return 0
	}
	return 1 - float64(m.kept)/float64(len(m.keep))
}

func (m *mask) tensor(shape model.Shape) *model.Tensor {
	t := model.NewTensor(model.UInt1, shape...)
	for i, k := range m.keep {
		if k {
			t.Data[i>>3] |= 1 << uint(i&7)
		}
	}
	return t
}

// vectors returns the mask of the vectors of n elements along an axis of which
// any is kept, and their number.
func (m *mask) vectors(shape model.Shape, axis, n int) *model.Sparse {
	v := shape.Clone()
	v[axis] /= n
	out := model.NewTensor(model.UInt1, v...)
	kept := 0
	groupWalk(shape, axis, 1, 0, n, func(i, off, step int) {
		for j := range n {
			if m.keep[off+j*step] {
				out.SetInt(i, 1)
				kept++
				return
			}
		}
	})
	return &model.Sparse{Mask: model.NewConst(out), Values: &model.Const{Shape: model.Shape{kept}}}
}

// newMask keeps the weights that a pruning leaves other than zero.
func newMask(cfg OpConfig, a arith, w []float32, shape model.Shape) *mask {
	m := &mask{keep: make([]bool, len(w))}
	switch c := cfg.(type) {
	case Threshold:
		for i, x := range w {
			m.keep[i] = float64(abs32(x)) > c.Value
		}
	case Magnitude:
		switch {
		case c.M > 0:
			m.nm(c, w, shape)
		case c.Sparsity == 0:
			for i := range m.keep {
				m.keep[i] = true
			}
		case c.Sparsity < 1:
			mag := make([]float32, len(w))
			for i, x := range w {
				mag[i] = abs32(x)
			}
			if c.BlockSize > 1 {
				mag = a.blockNorms(mag, shape, c.BlockSize, c.Dim)
			}
			t := a.percentile(mag, c.Sparsity)
			for i, x := range mag {
				m.keep[i] = float64(x) > t
			}
		}
	}
	for i, x := range w {
		if x == 0 {
			m.keep[i] = false
		}
		if m.keep[i] {
			m.kept++
		}
	}
	return m
}

// resize changes a mask to keep exactly n weights, for lazy constants whose
// size was given out before their values were known: of those tied at the
// border, the first ones in order of index.
func (m *mask) resize(a arith, w []float32, n int) {
	if m.kept == n {
		return
	}
	back := m.kept < n // bring back pruned weights, the greatest first; else drop the least
	var mag []float32
	for i, k := range m.keep {
		if k != back {
			mag = append(mag, abs32(w[i]))
		}
	}
	d := m.kept - n
	at := d - 1
	if back {
		d = -d
		at = len(mag) - d
	}
	border, _ := a.orderStats(mag, at, at)
	ties := d // how many of those at the border change
	for i, k := range m.keep {
		if k == back {
			continue
		}
		if x := abs32(w[i]); back && x > border || !back && x < border {
			m.keep[i] = back
			ties--
		}
	}
	flip := func(i int) {
		if ties > 0 && m.keep[i] != back && abs32(w[i]) == border {
			m.keep[i] = back
			ties--
		}
	}
	for i := range w {
		if back {
			flip(i)
		} else {
			flip(len(w) - 1 - i)
		}
	}
	m.kept = n
}

// nm zeroes the n least of every m consecutive weights along the axis, padding
// the last group with zeros. Equal magnitudes go in order of index, as
// numpy's argsort leaves groups of at most 16.
func (m *mask) nm(c Magnitude, w []float32, shape model.Shape) {
	ch, stride := shape[c.Dim], 1
	for _, d := range shape[c.Dim+1:] {
		stride *= d
	}
	outer := 0
	if ch > 0 && stride > 0 {
		outer = len(w) / (ch * stride)
	}
	order := make([]int, c.M)
	mag := make([]float32, c.M)
	for o := range outer {
		for s := range stride {
			base := o*ch*stride + s
			for g := 0; g < ch; g += c.M {
				for i := range c.M {
					order[i], mag[i] = i, 0
					if g+i < ch {
						mag[i] = abs32(w[base+(g+i)*stride])
					}
				}
				slices.SortStableFunc(order, func(i, j int) int {
					switch {
					case mag[i] < mag[j]:
						return -1
					case mag[i] > mag[j]:
						return 1
					}
					return 0
				})
				for r, i := range order {
					if g+i < ch {
						m.keep[base+(g+i)*stride] = r >= c.N
					}
				}
			}
		}
	}
}

// blockNorms gives every weight the L2 norm of its block of size consecutive
// channels on the axis, the last block padded with zeros.
func (a arith) blockNorms(mag []float32, shape model.Shape, size, dim int) []float32 {
	out := make([]float32, len(mag))
	ch, stride := shape[dim], 1
	for _, d := range shape[dim+1:] {
		stride *= d
	}
	if ch == 0 || stride == 0 {
		return out
	}
	for o := range len(mag) / (ch * stride) {
		for s := range stride {
			base := o*ch*stride + s
			for g := 0; g < ch; g += size {
				var sum float32
				for i := g; i < min(g+size, ch); i++ {
					x := mag[base+i*stride]
					sum = a.round(sum + a.round(x*x))
				}
				norm := a.round(float32(math.Sqrt(float64(sum))))
				for i := g; i < min(g+size, ch); i++ {
					out[base+i*stride] = norm
				}
			}
		}
	}
	return out
}

// percentile is numpy's (method linear): between the two order statistics
// around (n-1)*q, rounded to the type of the values.
func (a arith) percentile(v []float32, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	at := float64(len(v)-1) * q
	k := int(math.Floor(at))
	t := at - float64(k)
	lo, hi := a.orderStats(v, k, min(k+1, len(v)-1))
	diff := a.round(hi - lo)
	if t >= 0.5 {
		return float64(a.round(hi - a.round(diff*float32(1-t))))
	}
	return float64(a.round(lo + a.round(diff*float32(t))))
}

// orderStats returns the elements that would lie at positions i <= j of the
// sorted slice of non-negative values.
func (a arith) orderStats(v []float32, i, j int) (float32, float32) {
	if !a.half {
		s := slices.Clone(v)
		slices.Sort(s)
		return s[i], s[j]
	}
	var hist [1 << 15]int32
	for _, x := range v {
		hist[float16.Fromfloat32(x).Bits()&0x7fff]++
	}
	at := func(k int) float32 {
		n := 0
		for b, c := range hist {
			if n += int(c); n > k {
				return float16.Frombits(uint16(b)).Float32()
			}
		}
		return 0
	}
	return at(i), at(j)
}
