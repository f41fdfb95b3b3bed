package quant

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/x448/float16"
	"pgregory.net/rapid"

	"github.com/triune-sim/triune/model"
)

// TestRoundHalf compares the short way of rounding with package float16's on
// every half, its neighbours and the midpoints between halves.
func TestRoundHalf(t *testing.T) {
	check := func(x float32) {
		got, want := roundHalf(x), float16.Fromfloat32(x).Float32()
		if got != want && !(got != got && want != want) {
			t.Fatalf("%g: got %g, want %g", x, got, want)
		}
	}
	for h := range 1 << 16 {
		x := float16.Frombits(uint16(h)).Float32()
		mid := float32((float64(x) + float64(float16.Frombits(uint16(h+1)).Float32())) / 2)
		for _, y := range []float32{x, mid} {
			check(y)
			check(math.Nextafter32(y, 1e30))
			check(math.Nextafter32(y, -1e30))
		}
	}
}

func TestRoundWide(t *testing.T) {
	a := arith{half: true}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200000 {
		h := float16.Frombits(uint16(rng.IntN(0x7bff)))
		lo, hi := float64(h.Float32()), float64(float16.Frombits(h.Bits()+1).Float32())
		mid := (lo + hi) / 2
		// Just off a tie by less than float32 can tell.
		for _, x := range []float64{mid, math.Nextafter(mid, 0), math.Nextafter(mid, 1e9), lo + (hi-lo)*rng.Float64()} {
			want := lo
			switch {
			case x > mid:
				want = hi
			case x == mid && h.Bits()&1 == 1:
				want = hi
			}
			if got := float64(a.roundWide(x)); got != want {
				t.Fatalf("%v: got %v, want %v", x, got, want)
			}
			if got := float64(a.roundWide(-x)); got != -want {
				t.Fatalf("%v: got %v, want %v", -x, got, -want)
			}
		}
	}
}

func randomWeights(r *rapid.T, d model.DType, shape model.Shape) *model.Tensor {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 3))
	scale := math.Pow(10, rapid.Float64Range(-3, 1).Draw(r, "scale"))
	t := model.NewTensor(d, shape...)
	for i := range t.Len() {
		t.Set(i, rng.NormFloat64()*scale)
	}
	return t
}

func denseWeight(t *model.Tensor, op model.Op) *weight {
	v := &model.Value{Name: "w", DType: t.DType, Shape: t.Shape, Const: model.NewConst(t)}
	n := &model.Node{Name: "n", Op: op, Inputs: []*model.Value{{Name: "x", DType: t.DType}, v}}
	w := &weight{value: v, readers: []reader{{n, 1}}}
	w.axes()
	return w
}

func newCompressor() *compressor { return &compressor{source: map[*model.Const]*model.Const{}} }

func decode(t interface{ Fatal(...any) }, c *model.Const) *model.Tensor {
	v, err := c.Value()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// sizeOfArrays decodes all arrays of a constant and adds up their bytes.
func sizeOfArrays(t interface{ Fatal(...any) }, c *model.Const) int64 {
	switch s := c.Storage.(type) {
	case *model.Affine:
		n := sizeOfArrays(t, s.Codes) + sizeOfArrays(t, s.Scale)
		if s.Zero != nil {
			n += sizeOfArrays(t, s.Zero)
		}
		return n
	case *model.Lookup:
		return sizeOfArrays(t, s.Indices) + sizeOfArrays(t, s.Table)
	case *model.Sparse:
		return sizeOfArrays(t, s.Mask) + sizeOfArrays(t, s.Values)
	}
	return int64(len(decode(t, c).Data))
}

// TestLinearHalfStep: a weight comes back within half a scale step (and the
// rounding of the arithmetic), and the size given out beforehand is the size
// of the arrays.
func TestLinearHalfStep(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		in := rapid.SampledFrom([]int{4, 8, 32}).Draw(r, "in")
		shape := model.Shape{rapid.IntRange(1, 6).Draw(r, "out"), in, rapid.IntRange(1, 3).Draw(r, "k"), 1}
		d := rapid.SampledFrom([]model.DType{model.Float16, model.Float32}).Draw(r, "type")
		src := randomWeights(r, d, shape)
		cfg := Linear{
			DType:       rapid.SampledFrom([]model.DType{model.Int8, model.UInt8, model.Int4, model.UInt4}).Draw(r, "codes"),
			Granularity: model.Granularity(rapid.IntRange(0, 2).Draw(r, "granularity")),
			BlockSize:   4,
			Asymmetric:  rapid.Bool().Draw(r, "asymmetric"),
		}
		c, reason, err := newCompressor().linear(cfg, denseWeight(src, "Conv"))
		if err != nil || reason != "" {
			r.Fatal(reason, err)
		}
		declared := c.StoredBytes()
		got, s := decode(r, c), c.Storage.(*model.Affine)
		scale := decode(r, s.Scale)
		model.EachBlock(shape, s.Scale.Shape, func(off, run, count, g int) {
			for j := range count {
				step := scale.At(g + j)
				for i := off; i < off+run; i++ {
					// The quotient, the product and the scale are rounded to
					// the type: 2^-11 of the value each, and the zero point of
					// an asymmetric code is itself rounded by up to half a
					// step, which clips one end.
					tol := step/2 + 3*math.Abs(src.At(i))*math.Pow(2, -11) + 1e-7
					if cfg.Asymmetric {
						tol += step / 2
					}
					// A scale below 2^-14 is a subnormal half: off by up to
					// 2^-25, times the code.
					if d == model.Float16 && step > 0 {
						tol += (math.Abs(src.At(i))/step + 1) * math.Pow(2, -25)
					}
					if e := math.Abs(got.At(i) - src.At(i)); e > tol {
						r.Fatalf("element %d: %v comes back as %v, %.3f steps of %v off", i, src.At(i), got.At(i), e/step, step)
					}
				}
				off += run
			}
		})
		if n := sizeOfArrays(r, c); n != declared {
			r.Fatalf("%d bytes declared, arrays have %d", declared, n)
		}
	})
}

func TestLinearSpecialValues(t *testing.T) {
	k := newCompressor()
	for _, d := range []model.DType{model.Int8, model.UInt8, model.Int4, model.UInt4} {
		for _, asym := range []bool{false, true} {
			src := model.NewTensor(model.Float16, 2, 16) // channel 0 is all zero
			for i := range 16 {
				src.Set(16+i, float64(i)-3)
			}
			c, _, err := k.linear(Linear{DType: d, Granularity: model.PerChannel, Asymmetric: asym}, denseWeight(src, "Conv"))
			if err != nil {
				t.Fatal(err)
			}
			got := decode(t, c)
			for i := range 16 {
				if got.At(i) != 0 {
					t.Errorf("%s asymmetric %v: a zero became %v", d, asym, got.At(i))
				}
			}
			if s := decode(t, c.Storage.(*model.Affine).Scale).At(0); s != 0 {
				t.Errorf("scale of an all-zero channel is %v, coremltools has 0", s)
			}
		}
	}
	// A zero survives asymmetric quantisation of any range exactly.
	src := model.NewTensor(model.Float16, 1, 16)
	for i := range 16 {
		src.Set(i, float64(i)*0.37-0.9)
	}
	src.Set(5, 0)
	c, _, _ := k.linear(Linear{DType: model.UInt8, Granularity: model.PerChannel, Asymmetric: true}, denseWeight(src, "Conv"))
	if x := decode(t, c).At(5); x != 0 {
		t.Errorf("0 came back as %v", x)
	}
}

// TestNonFinite: NaN and infinite weights are left alone with a reason, or,
// where they are only computed later, end the computation with an error.
func TestNonFinite(t *testing.T) {
	for name, bad := range map[string]float64{"NaN": math.NaN(), "inf": math.Inf(-1)} {
		for _, scheme := range []string{"w8", "p4", "p-unique", "s50", "w4b32"} {
			for _, d := range []model.DType{model.Float32, model.Float16} {
				src := model.NewTensor(d, 64, 64)
				for i := range src.Len() {
					src.Set(i, float64(i%13))
				}
				src.Set(77, bad)
				s, err := Parse(scheme)
				if err != nil {
					t.Fatal(err)
				}
				g := linearGraph(model.NewConst(src))
				_, r, err := Apply(g, s, Options{})
				if err != nil {
					t.Fatal(err)
				}
				if w := r.Weights[0]; w.Scheme != "" || !strings.Contains(w.Skipped, "not finite: element [1,13]") ||
					len(r.Notes) != 1 || !strings.Contains(r.Notes[0], `constant "w" (MatMul "fc") is not finite: element [1,13]`) {
					t.Errorf("%s %s %s: stored as %q, skipped %q, noted %q", name, scheme, d, w.Scheme, w.Skipped, r.Notes)
				}
				lazy := model.NewLazy(d, src.Shape, func() (*model.Tensor, error) { return src, nil })
				out, _, err := Apply(linearGraph(lazy), s, Options{})
				if err != nil {
					t.Fatal(err)
				}
				c := out.Nodes[0].In(1).Const
				if c.Storage.Form() == model.FormDense {
					continue // found when it had to be counted
				}
				if _, err := c.Value(); err == nil || !strings.Contains(err.Error(), "not finite") {
					t.Errorf("%s %s %s lazy: got %v", name, scheme, d, err)
				}
			}
		}
	}
}

// linearGraph is y = x W with W [64,64].
func linearGraph(w *model.Const) *model.Graph {
	x := &model.Value{Name: "x", DType: w.DType, Shape: model.Shape{1, 64}}
	n := &model.Node{Name: "fc", Op: "MatMul", Inputs: []*model.Value{x, {Name: "w", DType: w.DType, Shape: w.Shape, Const: w}}}
	y := &model.Value{Name: "y", DType: w.DType, Shape: model.Shape{1, 64}, Producer: n}
	n.Outputs = []*model.Value{y}
	return &model.Graph{Name: "linear", Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n}}
}

// bruteKMeans is the textbook dynamic programme.
func bruteKMeans(v, w []float64, k int) float64 {
	n := len(v)
	cost := func(i, j int) float64 {
		var sw, sx float64
		for t := i; t < j; t++ {
			sw, sx = sw+w[t], sx+w[t]*v[t]
		}
		var e float64
		for t := i; t < j; t++ {
			d := v[t] - sx/sw
			e += w[t] * d * d
		}
		return e
	}
	best := make([]float64, n+1)
	for i := 1; i <= n; i++ {
		best[i] = cost(0, i)
	}
	for range k - 1 {
		next := make([]float64, n+1)
		for i := 1; i <= n; i++ {
			next[i] = best[i]
			for m := range i {
				next[i] = min(next[i], best[m]+cost(m, i))
			}
		}
		best = next
	}
	return best[n]
}

func TestKMeans1D(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		raw := rapid.SliceOfNDistinct(rapid.IntRange(-300, 300), 1, 40, rapid.ID[int]).Draw(r, "values")
		slices.Sort(raw)
		v, w := make([]float64, len(raw)), make([]float64, len(raw))
		for i, x := range raw {
			v[i] = float64(x) / 16
			w[i] = float64(rapid.IntRange(1, 5).Draw(r, "weight"))
		}
		k := rapid.IntRange(1, 12).Draw(r, "k")
		c := kmeans1D(v, w, k)
		if len(c) > k || !slices.IsSorted(c) {
			r.Fatalf("centroids %v for k=%d", c, k)
		}
		var e float64
		for i, x := range v {
			d := math.Inf(1)
			for _, y := range c {
				d = min(d, (x-y)*(x-y))
			}
			e += w[i] * d
		}
		want := bruteKMeans(v, w, k)
		if len(v) > k { // the priced search finds the same, or nothing
			cl := newClustering(v, w)
			if starts := cl.penalised(k); starts != nil {
				var p float64
				for i, m := range starts {
					end := int32(len(v))
					if i+1 < len(starts) {
						end = starts[i+1]
					}
					p += cl.cost(m, end)
				}
				if len(starts) != k || p > want*(1+1e-9)+1e-9 {
					r.Fatalf("priced: squared error %v in %d clusters, optimum %v in %d", p, len(starts), want, k)
				}
			}
		}
		if e > want*(1+1e-9)+1e-9 {
			r.Fatalf("squared error %v, optimum %v (values %v, weights %v, k %d, centroids %v)", e, want, v, w, k, c)
		}
	})
}

// TestPaletteProperties: every weight takes the entry nearest to it, sizes are
// those given out, unique palettes lose nothing.
func TestPaletteProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		shape := model.Shape{rapid.SampledFrom([]int{2, 4, 8}).Draw(r, "out"), rapid.SampledFrom([]int{4, 6}).Draw(r, "in"), 3, 1}
		d := rapid.SampledFrom([]model.DType{model.Float16, model.Float32}).Draw(r, "type")
		src := randomWeights(r, d, shape)
		if rapid.Bool().Draw(r, "coarse") {
			for i := range src.Len() {
				src.Set(i, math.Round(src.At(i)*4)/4)
			}
		}
		cfg := DefaultPalette(rapid.SampledFrom([]int{1, 2, 3, 4, 6, 8}).Draw(r, "bits"))
		cfg.Mode = PaletteMode(rapid.IntRange(0, 2).Draw(r, "mode"))
		if cfg.Mode == Unique {
			cfg.Bits = 0
		}
		if rapid.Bool().Draw(r, "grouped") {
			cfg.Grouped, cfg.GroupSize = true, 2
			if rapid.Bool().Draw(r, "axis") {
				ax := 1
				cfg.ChannelAxis = &ax
			}
		}
		if cfg.Mode != Uniform && rapid.Bool().Draw(r, "vector") {
			cfg.ClusterDim = 2
		}
		c, reason, err := newCompressor().palette(cfg, denseWeight(src, "Conv"))
		if err != nil {
			r.Fatal(err)
		}
		if reason != "" {
			r.Skip(reason)
		}
		declared := c.StoredBytes()
		got := decode(r, c)
		l := c.Storage.(*model.Lookup)
		table := decode(r, l.Table)
		if cfg.ClusterDim == 1 && cfg.Mode == KMeans {
			n := 1 << cfg.Bits
			model.EachBlock(shape, l.Table.Shape[:4], func(off, run, count, g int) {
				for j := range count {
					for i := off; i < off+run; i++ {
						e := math.Abs(got.At(i) - src.At(i))
						for x := range n {
							y := table.At((g+j)*n + x)
							if y != 0 && math.Abs(y-src.At(i)) < e-1e-12 { // zeros may be padding
								r.Fatalf("element %d: %v became %v though the table has %v", i, src.At(i), got.At(i), y)
							}
						}
					}
					off += run
				}
			})
		}
		if cfg.Mode == Unique && !slices.Equal(got.Data, src.Data) {
			for i := range src.Len() {
				if got.At(i) != src.At(i) {
					r.Fatalf("a unique palette turned %v into %v", src.At(i), got.At(i))
				}
			}
		}
		if n := sizeOfArrays(r, c); n != declared {
			r.Fatalf("%d bytes declared, arrays have %d", declared, n)
		}
	})
}

// TestPruneCount: the number of non-zeros given out for lazy weights is the
// number there is, ties and zeros included, and without ties it is what
// numpy's percentile keeps.
func TestPruneCount(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		shape := model.Shape{rapid.IntRange(8, 12).Draw(r, "out"), rapid.IntRange(8, 13).Draw(r, "in"), rapid.IntRange(1, 3).Draw(r, "k")}
		src := randomWeights(r, model.Float32, shape)
		ties := rapid.Bool().Draw(r, "ties")
		if ties {
			for i := range src.Len() {
				src.Set(i, math.Round(src.At(i)*2)/2)
			}
		}
		cfg := Magnitude{Sparsity: rapid.SampledFrom([]float64{0, 0.1, 0.25, 0.5, 0.75, 0.99, 1}).Draw(r, "sparsity")}
		if rapid.Bool().Draw(r, "n:m") {
			m := rapid.IntRange(1, 4).Draw(r, "m")
			cfg = Magnitude{N: rapid.IntRange(0, m).Draw(r, "n"), M: m, Dim: rapid.IntRange(0, 1).Draw(r, "dim")}
		}
		k := newCompressor()
		exact, reason, err := k.prune(cfg, denseWeight(src, "Conv"))
		if err != nil || reason != "" {
			r.Fatal(reason, err)
		}
		w := denseWeight(src, "Conv")
		w.value.Const = model.NewLazy(model.Float32, shape, func() (*model.Tensor, error) { return src, nil })
		lazy, _, err := k.prune(cfg, w)
		if err != nil {
			r.Fatal(err)
		}
		a, b := exact.Storage.(*model.Sparse), lazy.Storage.(*model.Sparse)
		for _, c := range []*model.Const{exact, lazy} {
			if n := sizeOfArrays(r, c); n != c.StoredBytes() {
				r.Fatalf("%d bytes declared, arrays have %d", c.StoredBytes(), n)
			}
			got := decode(r, c)
			for i := range src.Len() {
				if x := got.At(i); x != 0 && x != src.At(i) {
					r.Fatalf("element %d: %v became %v", i, src.At(i), x)
				}
			}
		}
		if !ties && a.Values.Shape[0] != b.Values.Shape[0] {
			r.Fatalf("%d values counted, %d predicted", a.Values.Shape[0], b.Values.Shape[0])
		}
		// What is dropped is never greater than what is kept.
		if cfg.M == 0 {
			got := decode(r, lazy)
			least, most := math.Inf(1), 0.0
			mask := decode(r, b.Mask)
			for i := range got.Len() {
				if x := math.Abs(src.At(i)); mask.IntAt(i) != 0 {
					least = min(least, x)
				} else {
					most = max(most, x)
				}
			}
			if most > least {
				r.Fatalf("dropped %v and kept %v", most, least)
			}
		}
	})
}

// TestJoint: pruned weights stay zero through the other stages, sizes are the
// arrays', and every combination decodes near the original.
func TestJoint(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	src := model.NewTensor(model.Float32, 64, 64)
	for i := range src.Len() {
		src.Set(i, rng.NormFloat64())
	}
	for _, name := range []string{"s50+w8", "s50+w4b32", "s50+u8-lin", "s50+p4", "s50+p4+w8", "p4+w8", "p6+s50", "w8+s50", "w8+p4", "u8-lin+p4", "s75+p2", "p4-scale", "p6-scale+w8",
		"s2:4+w8", "p4g16+w8", "p4v2", "s50b4+w8"} {
		s, err := Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		out, r, err := Apply(linearGraph(model.NewConst(src)), s, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c := out.Nodes[0].In(1).Const
		v := decode(t, c)
		if n := sizeOfArrays(t, c); n != c.StoredBytes() || n != r.Weights[0].BytesAfter {
			t.Errorf("%s: %d bytes declared, %d reported, arrays have %d", name, c.StoredBytes(), r.Weights[0].BytesAfter, n)
		}
		var e, p, zeros float64
		for i := range v.Len() {
			d := v.At(i) - src.At(i)
			e, p = e+d*d, p+src.At(i)*src.At(i)
			if v.At(i) == 0 {
				zeros++
			}
		}
		if snr := 10 * math.Log10(p/e); snr < 5 {
			t.Errorf("%s: %.1f dB", name, snr)
		}
		if strings.Contains(name, "s50") && zeros/float64(v.Len()) < 0.49 {
			t.Errorf("%s: only %.3f of it is zero", name, zeros/float64(v.Len()))
		}
		if got := strings.Count(r.Weights[0].Scheme, ",") + 1; got != len(s.Stages) && name != "p6-scale+w8" {
			t.Errorf("%s: stored as %q (left alone: %q)", name, r.Weights[0].Scheme, r.Weights[0].Skipped)
		}
	}
}

func ExampleApply() {
	g := linearGraph(model.NewConst(model.NewTensor(model.Float32, 64, 64)))
	s, err := Parse("w4b32")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, report, err := Apply(g, s, Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	w := report.Weights[0]
	fmt.Printf("%s: %s, %d -> %d bytes\n", w.Name, w.Scheme, w.BytesBefore, w.BytesAfter)
	// Output: w: int4 per_block(32) linear_symmetric, 16384 -> 2304 bytes
}
