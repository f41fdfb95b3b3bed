package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func tensorOf(d DType, shape []int, vals ...float64) *Tensor {
	t := NewTensor(d, shape...)
	for i, v := range vals {
		t.Set(i, v)
	}
	return t
}

func constOf(d DType, shape []int, vals ...float64) *Const {
	return NewConst(tensorOf(d, shape, vals...))
}

func values(t *Tensor) []float64 {
	v := make([]float64, t.Len())
	for i := range v {
		v[i] = t.At(i)
	}
	return v
}

func TestAffineDecode(t *testing.T) {
	mask := NewConst(tensorOf(UInt1, []int{2, 2}, 1, 0, 0, 1))
	for name, c := range map[string]struct {
		a     *Affine
		shape Shape
		want  []float64
		bytes int64
	}{
		"per tensor":  {&Affine{Codes: constOf(Int8, []int{2, 2}, -127, 0, 1, 127), Scale: constOf(Float16, []int{1, 1}, 0.5)}, Shape{2, 2}, []float64{-63.5, 0, 0.5, 63.5}, 6},
		"rank 0":      {&Affine{Codes: constOf(Int8, []int{2, 2}, 1, 2, 3, 4), Scale: constOf(Float16, []int{}, 2), Zero: constOf(Int8, []int{}, 1)}, Shape{2, 2}, []float64{0, 2, 4, 6}, 7},
		"per row":     {&Affine{Codes: constOf(UInt8, []int{2, 2}, 0, 255, 1, 2), Scale: constOf(Float16, []int{2, 1}, 1, 2), Zero: constOf(UInt8, []int{2, 1}, 255, 0)}, Shape{2, 2}, []float64{-255, 0, 2, 4}, 10},
		"per column":  {&Affine{Codes: constOf(Int4, []int{2, 2}, -8, 7, 1, 2), Scale: constOf(Float32, []int{1, 2}, 1, 0.1)}, Shape{2, 2}, []float64{-8, float64(float32(7) * float32(0.1)), 1, float64(float32(2) * float32(0.1))}, 10},
		"blocks":      {&Affine{Codes: constOf(Int4, []int{1, 4}, 1, 2, 3, 4), Scale: constOf(Float16, []int{1, 2}, 1, 10)}, Shape{1, 4}, []float64{1, 2, 30, 40}, 6},
		"int32 codes": {&Affine{Codes: constOf(Int32, []int{2}, 100000, -3), Scale: constOf(Float32, []int{2}, 0.25, 4)}, Shape{2}, []float64{25000, -12}, 16},
		"fp16 codes":  {&Affine{Codes: constOf(Float16, []int{2}, 1.5, -3), Scale: constOf(Float16, []int{1}, 2), Zero: constOf(Float16, []int{1}, 0.5)}, Shape{2}, []float64{2, -7}, 8},
		"sparse": {&Affine{Codes: &Const{DType: Int8, Shape: Shape{2, 2}, Storage: &Sparse{Mask: mask, Values: constOf(Int8, []int{2}, 5, 7)}},
			Scale: constOf(Float16, []int{2, 1}, 1, 2), Zero: constOf(Int8, []int{2, 1}, 1, 1)}, Shape{2, 2}, []float64{4, 0, 0, 12}, 1 + 2 + 4 + 2},
		"reshaped": {&Affine{Codes: constOf(Int8, []int{4}, 1, 2, 3, 4), Scale: constOf(Float16, []int{4}, 1, 2, 3, 4)}, Shape{2, 2}, []float64{1, 4, 9, 16}, 12},
		"empty":    {&Affine{Codes: constOf(Int8, []int{0, 2}), Scale: constOf(Float16, []int{1, 2}, 1, 2)}, Shape{0, 2}, []float64{}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range []DType{Float32, Float64, Float16} {
				k := &Const{DType: d, Shape: c.shape, Storage: c.a}
				got, err := k.Value()
				if err != nil {
					t.Fatal(err)
				}
				want := c.want
				if d == Float16 {
					want = values(tensorOf(Float16, []int{len(want)}, want...))
				}
				if !slices.Equal(values(got), want) {
					t.Errorf("%s: got %v, want %v", d, values(got), want)
				}
			}
			if n := c.a.StoredBytes(); n != c.bytes {
				t.Errorf("StoredBytes = %d, want %d", n, c.bytes)
			}
		})
	}
}

// TestAffineReference compares the fast paths with the plain formula on
// random shapes, blocks and types, bit for bit.
func TestAffineReference(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		rank := rapid.IntRange(1, 4).Draw(r, "rank")
		shape, groups := make(Shape, rank), make(Shape, rank)
		for i := range shape {
			groups[i] = rapid.SampledFrom([]int{1, 1, 2, 3}).Draw(r, "groups")
			shape[i] = groups[i] * rapid.SampledFrom([]int{1, 2, 5, 12}).Draw(r, "block")
		}
		if shape.Elems() > 20000 {
			r.Skip()
		}
		ct := rapid.SampledFrom([]DType{Int8, UInt8, Int4, UInt4, UInt2}).Draw(r, "codes")
		st := rapid.SampledFrom([]DType{Float16, Float32, BFloat16}).Draw(r, "scale")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		lo, hi, _ := ct.IntRange()
		fill := func(d DType, s Shape) *Tensor {
			x := NewTensor(d, s...)
			for i := range x.Len() {
				if d.IsFloat() {
					x.Set(i, rng.NormFloat64()*math.Pow(10, float64(rng.IntN(6)-4)))
				} else {
					x.SetInt(i, lo+rng.Int64N(hi-lo+1))
				}
			}
			return x
		}
		codes, scale := fill(ct, shape), fill(st, groups)
		a := &Affine{Codes: NewConst(codes), Scale: NewConst(scale)}
		var zero *Tensor
		if rapid.Bool().Draw(r, "zero") {
			zero = fill(ct, groups)
			a.Zero = NewConst(zero)
		}
		got, err := a.Decode(Float32, shape)
		if err != nil {
			r.Fatal(err)
		}
		half, err := a.Decode(Float16, shape)
		if err != nil {
			r.Fatal(err)
		}
		for i := range codes.Len() {
			g, stride, rest := 0, 1, i
			for ax := rank - 1; ax >= 0; ax-- {
				g += rest % shape[ax] / (shape[ax] / groups[ax]) * stride
				rest /= shape[ax]
				stride *= groups[ax]
			}
			q := codes.IntAt(i)
			if zero != nil {
				q -= zero.IntAt(g)
			}
			w := tensorOf(st, []int{1}, float64(q)*scale.At(g))
			if got.At(i) != w.At(0) {
				r.Fatalf("element %d: got %v, want %v", i, got.At(i), w.At(0))
			}
			if h := w.Convert(Float16).At(0); half.At(i) != h {
				r.Fatalf("element %d as fp16: got %v, want %v", i, half.At(i), h)
			}
		}
	})
}

func TestLookupDecode(t *testing.T) {
	i8 := &Const{DType: Float16, Shape: Shape{1, 1, 2, 1}, Storage: &Affine{Codes: constOf(Int8, []int{1, 1, 2, 1}, -127, 64), Scale: constOf(Float16, []int{1, 1, 1, 1}, 0.25)}}
	sparse := &Const{DType: UInt1, Shape: Shape{2, 2}, Storage: &Sparse{Mask: constOf(UInt1, []int{2, 2}, 0, 1, 1, 0), Values: constOf(UInt1, []int{2}, 1, 0)}}
	for name, c := range map[string]struct {
		l     *Lookup
		shape Shape
		want  []float64
		bytes int64
	}{
		"2 bits":        {&Lookup{Indices: constOf(UInt2, []int{2, 3}, 0, 1, 2, 3, 2, 1), Table: constOf(Float16, []int{1, 1, 4, 1}, -1, 0, 0.5, 9)}, Shape{2, 3}, []float64{-1, 0, 0.5, 9, 0.5, 0}, 2 + 8},
		"groups":        {&Lookup{Indices: constOf(UInt1, []int{4, 1}, 0, 1, 0, 1), Table: constOf(Float16, []int{2, 1, 2, 1}, 1, 2, 3, 4)}, Shape{4, 1}, []float64{1, 2, 3, 4}, 1 + 8},
		"vector axis 0": {&Lookup{Indices: constOf(UInt1, []int{1, 3}, 0, 1, 0), Table: constOf(Float16, []int{1, 1, 2, 2}, 1, 2, 3, 4)}, Shape{2, 3}, []float64{1, 3, 1, 2, 4, 2}, 1 + 8},
		"vector axis 1": {&Lookup{Indices: constOf(UInt1, []int{2, 1}, 0, 1), Table: constOf(Float16, []int{1, 1, 2, 2}, 1, 2, 3, 4), VectorAxis: 1}, Shape{2, 2}, []float64{1, 2, 3, 4}, 1 + 8},
		"int8 table":    {&Lookup{Indices: constOf(UInt1, []int{1, 2}, 1, 0), Table: i8}, Shape{1, 2}, []float64{16, -31.75}, 1 + 2 + 2},
		"sparse":        {&Lookup{Indices: sparse, Table: constOf(Float16, []int{1, 1, 2, 1}, 5, 6)}, Shape{2, 2}, []float64{0, 6, 5, 0}, 1 + 1 + 4},
		"sparse vector": {&Lookup{Indices: sparse, Table: constOf(Float16, []int{1, 1, 2, 2}, 5, 6, 7, 8)}, Shape{4, 2}, []float64{0, 7, 0, 8, 5, 0, 6, 0}, 1 + 1 + 8},
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range []DType{Float16, Float32, Float64} {
				got, err := (&Const{DType: d, Shape: c.shape, Storage: c.l}).Value()
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(values(got), c.want) {
					t.Errorf("%s: got %v, want %v", d, values(got), c.want)
				}
			}
			if n := c.l.StoredBytes(); n != c.bytes {
				t.Errorf("StoredBytes = %d, want %d", n, c.bytes)
			}
		})
	}
}

func TestSparseDecode(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		keep := rapid.SliceOfN(rapid.Bool(), 0, 40).Draw(r, "keep")
		d := rapid.SampledFrom([]DType{Int4, UInt2, Int8, Float16, Float32, Float64}).Draw(r, "type")
		mt := rapid.SampledFrom([]DType{UInt1, Bool}).Draw(r, "mask")
		mask, want := NewTensor(mt, len(keep)), make([]float64, len(keep))
		var kept []float64
		for i, k := range keep {
			if k {
				mask.SetInt(i, 1)
				want[i] = float64(1 + i%3)
				kept = append(kept, want[i])
			}
		}
		s := &Sparse{Mask: NewConst(mask), Values: constOf(d, []int{len(kept)}, kept...)}
		got, err := s.Decode(d, Shape{len(keep)})
		if err != nil {
			r.Fatal(err)
		}
		if !slices.Equal(values(got), want) {
			r.Fatalf("got %v, want %v", values(got), want)
		}
		if b := mt.Bytes(int64(len(keep))) + d.Bytes(int64(len(kept))); s.StoredBytes() != b {
			r.Fatalf("StoredBytes = %d, want %d", s.StoredBytes(), b)
		}
	})
}

// TestHostileStorage: what a broken file can declare must be an error.
func TestHostileStorage(t *testing.T) {
	i8 := func(s ...int) *Const { return NewConst(NewTensor(Int8, s...)) }
	f16 := func(s ...int) *Const { return NewConst(NewTensor(Float16, s...)) }
	short := &Const{DType: Int8, Shape: Shape{4}, Storage: Dense{&Tensor{DType: Int8, Shape: Shape{4}, Data: make([]byte, 3)}}}
	huge := &Const{DType: Int8, Shape: Shape{1 << 40, 1 << 40}, Storage: Dense{NewTensor(Int8, 1)}}
	f8 := &Const{DType: Float8E4M3FN, Shape: Shape{4}, Storage: Dense{NewTensor(Float8E4M3FN, 4)}}
	idx := constOf(UInt2, []int{2, 2}, 0, 1, 2, 3)
	for name, c := range map[string]struct {
		s     Storage
		shape Shape
		want  string
	}{
		"no scale":         {&Affine{Codes: i8(4)}, Shape{4}, "without scale"},
		"no codes":         {&Affine{Scale: f16(4)}, Shape{4}, "without codes"},
		"not divisible":    {&Affine{Codes: i8(4), Scale: f16(3)}, Shape{4}, "axis 0 does not divide"},
		"scale too long":   {&Affine{Codes: i8(4), Scale: f16(8)}, Shape{4}, "axis 0 does not divide"},
		"scale of 0":       {&Affine{Codes: i8(4), Scale: f16(0)}, Shape{4}, "axis 0 does not divide"},
		"rank":             {&Affine{Codes: i8(2, 2), Scale: f16(2)}, Shape{2, 2}, "ranks differ"},
		"zero shape":       {&Affine{Codes: i8(4), Scale: f16(4), Zero: i8(2)}, Shape{4}, "zero point of shape"},
		"declared shape":   {&Affine{Codes: i8(4), Scale: f16(4)}, Shape{5}, "[5] is declared"},
		"negative dim":     {&Affine{Codes: i8(4), Scale: f16(4)}, Shape{-1}, "is declared"},
		"overflow":         {&Affine{Codes: huge, Scale: f16(1, 1)}, huge.Shape, "unknown shape"},
		"short data":       {&Affine{Codes: short, Scale: f16(4)}, Shape{4}, "hold 3 bytes"},
		"fp8 codes":        {&Affine{Codes: f8, Scale: f16(4)}, Shape{4}, "codes of type"},
		"fp8 zero":         {&Affine{Codes: i8(4), Scale: f16(4), Zero: f8}, Shape{4}, "zero point of type"},
		"integer scale":    {&Affine{Codes: i8(4), Scale: i8(4)}, Shape{4}, "scale of type int8"},
		"no table":         {&Lookup{Indices: idx}, Shape{2, 2}, "without table"},
		"table rank":       {&Lookup{Indices: idx, Table: f16(4)}, Shape{2, 2}, "rank plus two"},
		"table groups":     {&Lookup{Indices: idx, Table: f16(3, 1, 4, 1)}, Shape{2, 2}, "does not divide"},
		"index range":      {&Lookup{Indices: idx, Table: f16(1, 1, 3, 1)}, Shape{2, 2}, "the table has 3 entries"},
		"empty table":      {&Lookup{Indices: idx, Table: f16(1, 1, 0, 1)}, Shape{2, 2}, "no entries"},
		"vector axis":      {&Lookup{Indices: idx, Table: f16(1, 1, 4, 2), VectorAxis: 2}, Shape{4, 2}, "vector axis 2"},
		"vector shape":     {&Lookup{Indices: idx, Table: f16(1, 1, 4, 2)}, Shape{2, 2}, "vectors of 2"},
		"signed indices":   {&Lookup{Indices: i8(2, 2), Table: f16(1, 1, 4, 1)}, Shape{2, 2}, "indices of type int8"},
		"wide indices":     {&Lookup{Indices: NewConst(NewTensor(UInt32, 2, 2)), Table: f16(1, 1, 4, 1)}, Shape{2, 2}, "at most 16 bits"},
		"no mask":          {&Sparse{Values: f16(1)}, Shape{4}, "without mask"},
		"mask type":        {&Sparse{Mask: i8(4), Values: f16(1)}, Shape{4}, "mask of type int8"},
		"count":            {&Sparse{Mask: constOf(UInt1, []int{4}, 1, 1), Values: f16(1)}, Shape{4}, "2 bits set for 1 values"},
		"values rank":      {&Sparse{Mask: constOf(UInt1, []int{4}, 1), Values: f16(1, 1)}, Shape{4}, "one dimension"},
		"mask shape":       {&Sparse{Mask: constOf(UInt1, []int{4}, 1), Values: f16(1)}, Shape{5}, "is declared"},
		"no inner storage": {&Affine{Codes: &Const{DType: Int8, Shape: Shape{4}}, Scale: f16(4)}, Shape{4}, "codes missing"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&Const{DType: Float16, Shape: c.shape, Storage: c.s}).Value()
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want a line with %q", err, c.want)
			}
		})
	}
	if _, err := (&Affine{Codes: i8(4), Scale: f16(4)}).Decode(Int8, Shape{4}); err == nil {
		t.Error("an affine constant decoded to int8")
	}
}

func BenchmarkAffineDecode(b *testing.B) {
	codes := NewTensor(Int8, 512, 512, 3, 3)
	for i := range codes.Data {
		codes.Data[i] = byte(i * 31)
	}
	scale := NewTensor(Float16, 512, 1, 1, 1)
	for i := range 512 {
		scale.Set(i, 0.001*float64(i+1))
	}
	a := &Affine{Codes: NewConst(codes), Scale: NewConst(scale)}
	b.SetBytes(int64(len(codes.Data)))
	for b.Loop() {
		if _, err := a.Decode(Float16, codes.Shape); err != nil {
			b.Fatal(err)
		}
	}
}
