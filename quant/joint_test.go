package quant

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
)

// jointParts are single compressions, of which joint forms are made.
var jointParts = []string{"w8", "w8-tensor", "w4b16", "u8-lin", "p4", "p6-uniform", "p4g8", "p4v2", "p4-scale", "p4g8-scale", "p4v2-scale", "p4g8v2", "s50", "s50b2", "s2:4"}

// jointRefusal is part of the reason why a pair is not made: Core ML's
// operators cannot express it, or it makes no sense. It is empty for every other
// pair.
func jointRefusal(a, b string) string {
	kind := func(s string) byte {
		if s[0] == 'u' {
			return 'w'
		}
		return s[0]
	}
	vector := func(s string) bool { return strings.Contains(s, "v2") }
	switch {
	case kind(a) == kind(b):
		return "already"
	case kind(a) == 'w' && strings.Contains(b, "-scale"):
		return "scales already"
	case a == "w4b16" && vector(b):
		return "no table of int4"
	case (a == "s50" || a == "s2:4") && vector(b):
		return "vectors of 2 along axis"
	case vector(a) && (b == "s50" || b == "s2:4"):
		return "whole vectors only"
	}
	return ""
}

// TestJointForms makes every pair of compressions, and triples of different
// kinds whose pairs exist: the form is made or refused with the
// reason, pruned weights stay zero, the error is that of its parts, and a
// package gives back the very values.
func TestJointForms(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	conv := model.NewTensor(model.Float16, 32, 16, 3, 3)
	for i := range conv.Len() {
		conv.Set(i, rng.NormFloat64()*float64(1+i/(8*16*9))) // groups of 8 channels differ
	}
	graph := func() *model.Graph {
		b, x := newGraph(1, 16, 4, 4)
		x.DType = model.Float16
		y := b.node("Conv", "conv", model.Attrs{"kernel_shape": []int{3, 3}, "pads": []int{1, 1, 1, 1}, "strides": []int{1, 1}, "dilations": []int{1, 1}, "group": 1},
			x, constant("w", conv))
		return b.finish(t, y)
	}
	noise := map[string]float64{} // relative to the weights, by scheme
	dir := t.TempDir()
	check := func(parts ...string) {
		name := strings.Join(parts, "+")
		s, err := Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		out, r, err := Apply(graph(), s, Options{Eager: true})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		if len(parts) == 2 {
			want := jointRefusal(parts[0], parts[1])
			if got := r.Weights[0].Skipped; !strings.Contains(got, want) || (got == "") != (want == "") {
				t.Errorf("%s: left alone %q, want %q", name, got, want)
			}
			if want != "" {
				return
			}
		} else if r.Weights[0].Skipped != "" {
			t.Errorf("%s: left alone: %s", name, r.Weights[0].Skipped)
			return
		}
		c := out.Nodes[0].In(1).Const
		v := decode(t, c)
		if n := sizeOfArrays(t, c); n != c.StoredBytes() || n != r.Weights[0].BytesAfter {
			t.Errorf("%s: %d bytes declared, %d reported, arrays have %d", name, c.StoredBytes(), r.Weights[0].BytesAfter, n)
		}
		var e, p float64
		zeros := 0
		for i := range v.Len() {
			d := v.At(i) - conv.At(i)
			e, p = e+d*d, p+conv.At(i)*conv.At(i)
			if v.At(i) == 0 {
				zeros++
			}
		}
		noise[name] = e / p
		parting := 0.0
		for _, x := range parts {
			parting += noise[x]
			if x[0] == 's' && float64(zeros)/float64(v.Len()) < 0.49 {
				t.Errorf("%s: %d of %d are zero", name, zeros, v.Len())
			}
		}
		// Pruning a palette drops all weights of an entry at once, and so
		// more than its share.
		if limit := 4 * parting; noise[name] > limit {
			t.Errorf("%s: noise of %.2g, its parts have %.2g", name, noise[name], parting)
		}
		path := filepath.Join(dir, "joint.mlpackage")
		if err := coreml.Save(path, out, coreml.Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		back := weightList(load(t, path))["conv[1]"]
		if back == nil {
			for k, w := range weightList(load(t, path)) {
				if strings.HasSuffix(k, "[1]") {
					back = w
				}
			}
		}
		if !slices.Equal(decode(t, back).Data, v.Data) {
			t.Errorf("%s: the package gives back other values", name)
		}
	}
	for _, a := range jointParts {
		check(a)
	}
	for _, a := range jointParts {
		for _, b := range jointParts {
			check(a, b)
		}
	}
	few := []string{"w8", "u8-lin", "w4b16", "p4g8", "p4v2", "p4g8-scale", "s50", "s50b2"}
	for _, a := range few {
		for _, b := range few {
			for _, c := range few {
				// Vectors of codes that span scales are not pruned.
				abc := a + b + c
				spans := strings.Contains(abc, "s50") && (a == "w8" || a == "u8-lin" || b != "p4v2" && c == "p4v2") && strings.Contains(abc, "p4v2")
				if jointRefusal(a, b) == "" && jointRefusal(a, c) == "" && jointRefusal(b, c) == "" && !spans {
					check(a, b, c)
				}
			}
		}
	}
	t.Logf("%d forms", len(noise))
}

// A matrix that is multiplied from the right is pruned along the same channels
// as the linear layer it is.
func TestStructuredPruningOfMatMul(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	right, left := model.NewTensor(model.Float32, 32, 64), model.NewTensor(model.Float32, 64, 32) // [in, out], [out, in]
	for i := range 32 {
		for o := range 64 {
			x := rng.NormFloat64()
			right.Set(i*64+o, x)
			left.Set(o*32+i, x)
		}
	}
	for _, cfg := range []Magnitude{{N: 2, M: 4, Dim: 1}, {N: 1, M: 4}, {Sparsity: 0.5, BlockSize: 4}, {Sparsity: 0.5, BlockSize: 4, Dim: 1}} {
		b, x := newGraph(1, 32)
		mm := b.node("MatMul", "matmul", nil, x, constant("right", right))
		fc := b.node("Gemm", "linear", model.Attrs{"transB": 1}, x, constant("left", left))
		out, _, err := Apply(b.finish(t, mm, fc), Scheme{Stages: []Stage{{Global: cfg}}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		a, c := decode(t, out.Nodes[0].In(1).Const), decode(t, out.Nodes[1].In(1).Const)
		zeros := 0
		for i := range 32 {
			for o := range 64 {
				if a.At(i*64+o) != c.At(o*32+i) {
					t.Fatalf("%s: weight of input %d and output %d is %g in the product, %g in the linear layer", cfg.label(), i, o, a.At(i*64+o), c.At(o*32+i))
				}
				if c.At(o*32+i) == 0 {
					zeros++
				}
			}
		}
		if zeros == 0 {
			t.Errorf("%s pruned nothing", cfg.label())
		}
	}
}
