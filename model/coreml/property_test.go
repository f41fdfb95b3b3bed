package coreml

import (
	"bytes"
	"testing"

	"github.com/triune-sim/triune/model"
	"pgregory.net/rapid"
)

// drawTensor draws a tensor of random codes or small halves.
func drawTensor(r *rapid.T, d model.DType, shape ...int) *model.Const {
	t := model.NewTensor(d, shape...)
	lo, hi, isInt := d.IntRange()
	for i := range t.Len() {
		if isInt {
			t.SetInt(i, rapid.Int64Range(lo, hi).Draw(r, "code"))
		} else {
			t.Set(i, float64(rapid.IntRange(-64, 64).Draw(r, "half"))/32)
		}
	}
	return model.NewConst(t)
}

// divisor draws a divisor of n.
func divisor(r *rapid.T, n int) int {
	var d []int
	for i := 1; i <= n; i++ {
		if n%i == 0 {
			d = append(d, i)
		}
	}
	return rapid.SampledFrom(d).Draw(r, "divisor")
}

// drawMask draws a mask and the number of its ones.
func drawMask(r *rapid.T, shape ...int) (*model.Const, int) {
	m := drawTensor(r, model.UInt1, shape...)
	t, _ := m.Value()
	return m, int(popcount(t))
}

// drawWeight draws a constant in any storage that the target can express.
func drawWeight(r *rapid.T, target Target, shape model.Shape) *model.Const {
	half := func(s model.Storage) *model.Const {
		return &model.Const{DType: model.Float16, Shape: shape, Storage: s}
	}
	codeTypes := []model.DType{model.Int8, model.UInt8}
	indexTypes := []model.DType{model.UInt1, model.UInt2, model.UInt4, model.UInt6, model.UInt8}
	if target >= IOS18 {
		codeTypes = append(codeTypes, model.Int4, model.UInt4)
		indexTypes = append(indexTypes, model.UInt3)
	}
	groups := func() model.Shape {
		g := make(model.Shape, len(shape))
		for i := range g {
			g[i] = 1
		}
		if target < IOS18 { // per tensor, or per channel of one axis
			if rapid.Bool().Draw(r, "channel") {
				a := rapid.IntRange(0, len(shape)-1).Draw(r, "axis")
				g[a] = shape[a]
			}
			return g
		}
		for i := range g {
			g[i] = divisor(r, shape[i])
		}
		return g
	}
	codes := rapid.SampledFrom(codeTypes).Draw(r, "codes")
	switch kind := rapid.SampledFrom([]string{"affine", "lookup", "sparse", "sparse affine", "sparse lookup", "int8 table", "dense"}).Draw(r, "kind"); {
	case kind == "affine" || target < IOS18 && kind == "sparse affine":
		g := groups()
		a := &model.Affine{Codes: drawTensor(r, codes, shape...), Scale: drawTensor(r, model.Float16, g...)}
		if rapid.Bool().Draw(r, "zero") {
			a.Zero = drawTensor(r, codes, g...)
			a.Zero = dropZero(a.Zero)
		}
		return half(a)
	case kind == "lookup" || target < IOS18 && (kind == "sparse lookup" || kind == "int8 table"):
		d := rapid.SampledFrom(indexTypes).Draw(r, "indices")
		ts := make(model.Shape, len(shape))
		for i := range ts {
			ts[i] = 1
		}
		vec, va, is := 1, 0, shape.Clone()
		if target >= IOS18 {
			ts[0] = divisor(r, shape[0])
			if rapid.Bool().Draw(r, "vector") {
				va = rapid.IntRange(0, 1).Draw(r, "vector axis")
				if vec = divisor(r, shape[va]); va == 0 {
					ts[0] = 1
				}
				is[va] /= vec
			}
		}
		if vec == 1 {
			va = 0
		}
		return half(&model.Lookup{Indices: drawTensor(r, d, is...), Table: drawTensor(r, model.Float16, append(ts, 1<<d.Bits(), vec)...), VectorAxis: va})
	case kind == "sparse":
		mask, n := drawMask(r, shape...)
		return half(&model.Sparse{Mask: mask, Values: drawTensor(r, model.Float16, n)})
	case kind == "sparse affine":
		mask, n := drawMask(r, shape...)
		inner := &model.Const{DType: codes, Shape: shape, Storage: &model.Sparse{Mask: mask, Values: drawTensor(r, codes, n)}}
		return half(&model.Affine{Codes: inner, Scale: drawTensor(r, model.Float16, shape[0], 1)})
	case kind == "sparse lookup":
		mask, n := drawMask(r, shape...)
		inner := &model.Const{DType: model.UInt4, Shape: shape, Storage: &model.Sparse{Mask: mask, Values: drawTensor(r, model.UInt4, n)}}
		return half(&model.Lookup{Indices: inner, Table: drawTensor(r, model.Float16, 1, 1, 16, 1)})
	case kind == "int8 table":
		one := make(model.Shape, 4)
		for i := range one {
			one[i] = 1
		}
		table := &model.Const{DType: model.Float16, Shape: model.Shape{1, 1, 16, 1}, Storage: &model.Affine{Codes: drawTensor(r, model.Int8, 1, 1, 16, 1), Scale: drawTensor(r, model.Float16, one...)}}
		return half(&model.Lookup{Indices: drawTensor(r, model.UInt4, shape...), Table: table})
	}
	return drawTensor(r, model.Float16, shape...)
}

// TestWeightsRoundTrip draws weights of every storage and shape: what is
// written and read back has the same form, size and values, also transposed
// on the way, and the size was known.
func TestWeightsRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		target := rapid.SampledFrom([]Target{IOS16, IOS17, IOS18}).Draw(r, "target")
		rows, cols := rapid.IntRange(1, 6).Draw(r, "rows"), rapid.IntRange(1, 6).Draw(r, "cols")
		k := drawWeight(r, target, model.Shape{rows, cols})
		w := &model.Value{Name: "w", DType: k.DType, Shape: k.Shape, Const: k}
		x := &model.Value{Name: "x", DType: model.Float16, Shape: model.Shape{2, cols}}
		y := &model.Value{Name: "y", DType: model.Float16, Shape: model.Shape{2, rows}}
		n := &model.Node{Name: "fc", Op: "Gemm", Inputs: []*model.Value{x, w}, Outputs: []*model.Value{y}, Attrs: model.Attrs{"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}}
		flip := rapid.Bool().Draw(r, "transposed")
		if flip { // the product wants [cols, rows]
			x.Shape, y.Shape = model.Shape{2, 3, rows}, model.Shape{2, 3, cols}
			n.Op, n.Attrs = "MatMul", nil
		}
		y.Producer = n
		g := &model.Graph{Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n}}

		m, blobs, err := build(g, target, true)
		if err != nil {
			r.Fatal(err)
		}
		var file bytes.Buffer
		if len(blobs) > 0 {
			if err := writeBlobs(&file, blobs); err != nil {
				r.Fatal(err)
			}
		}
		spec := m.encode()
		if s, b, err := Sizes(g, Options{Target: target}); err != nil || s != int64(len(spec)) || b != int64(file.Len()) {
			r.Fatalf("sizes %d and %d (%v), written %d and %d", s, b, err, len(spec), file.Len())
		}
		back, err := Read(spec, func(string) ([]byte, error) { return file.Bytes(), nil }, Options{})
		if err != nil {
			r.Fatal(err)
		}
		got := back.Nodes[0].In(1).Const
		if back.Nodes[0].Op != n.Op {
			r.Fatalf("%s came back as %s", n.Op, back.Nodes[0].Op)
		}
		if got.Storage.Form() != k.Storage.Form() || !got.Shape.Equal(k.Shape) || got.StoredBytes() != k.StoredBytes() {
			r.Fatalf("%s%v of %d bytes came back as %s%v of %d", k.Storage.Form(), k.Shape, k.StoredBytes(), got.Storage.Form(), got.Shape, got.StoredBytes())
		}
		a, err := k.Value()
		if err != nil {
			r.Fatal(err)
		}
		b, err := got.Value()
		if err != nil {
			r.Fatal(err)
		}
		if !bytes.Equal(a.Data, b.Data) {
			r.Fatalf("values %x came back as %x", a.Data, b.Data)
		}
	})
}
