package coreml_test

import (
	"context"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/quant"
)

// compressed builds a network of the zoo under a scheme.
func compressed(tb testing.TB, name, scheme string) *model.Graph {
	tb.Helper()
	g, err := zoo.Build(name)
	if err != nil {
		tb.Fatal(err)
	}
	if err := passes.Default(g); err != nil {
		tb.Fatal(err)
	}
	s, err := quant.Parse(scheme)
	if err != nil {
		tb.Fatal(err)
	}
	q, _, err := quant.Apply(g, s, quant.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return q
}

// TestPackageSizes compares sizes with what Apple's converter wrote for the
// same architectures (random weights; its program texts have longer names).
func TestPackageSizes(t *testing.T) {
	sizes := func(name, scheme string) (spec, weights int64) {
		spec, weights, err := coreml.Sizes(compressed(t, name, scheme), coreml.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return spec, weights
	}
	const manifest = 617
	total := func(name, scheme string) float64 {
		s, w := sizes(name, scheme)
		return float64(s + w + manifest)
	}
	spec, weights := sizes("mobilenet_v2", "fp16")
	if weights != 6_982_736 {
		t.Errorf("MobileNetV2's weights take %d bytes, the converter's 6982736", weights)
	}
	if math.Abs(float64(spec)/85_344-1) > 0.05 {
		t.Errorf("MobileNetV2's program takes %d bytes, the converter's 85344", spec)
	}
	if spec, _ := sizes("mobilenet_v2", "w8"); math.Abs(float64(spec)/94_569-1) > 0.05 {
		t.Errorf("MobileNetV2's W8 program takes %d bytes, the converter's 94569", spec)
	}
	for _, c := range []struct {
		net, scheme string
		ratio, tol  float64
	}{
		{"mobilenet_v2", "w8", 1.929, 0.002},
		// The converter saw ReLU6 as a clip, which its pass does not fuse with
		// the convolution: it quantizes in front of it and behind it.
		{"mobilenet_v2", "w8a8-ptq", 1.892, 0.012},
		{"resnet50", "w8", 1.989, 0.002},
		{"resnet50", "w8a8-ptq", 1.984, 0.002},
	} {
		if r := total(c.net, "fp16") / total(c.net, c.scheme); math.Abs(r-c.ratio) > c.tol {
			t.Errorf("%s %s: ratio %.4f, the converter's %.3f", c.net, c.scheme, r, c.ratio)
		}
	}
}

// TestZooIsWritable asks for the package size of every built-in network.
func TestZooIsWritable(t *testing.T) {
	for _, name := range zoo.Names() {
		g := compressed(t, name, "fp16")
		n, err := coreml.Size(g, coreml.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var stored int64
		for _, v := range g.Consts() {
			stored += v.Const.StoredBytes()
		}
		// Everything is in the package, and little else. Constants that
		// several values share count once there.
		if n > stored+stored/10+2_000_000 {
			t.Errorf("%s: a package of %d bytes for %d bytes of constants", name, n, stored)
		}
	}
}

// TestSavedZoo writes small networks under every kind of scheme: the size is
// as announced, and what is read back computes the same.
func TestSavedZoo(t *testing.T) {
	for _, net := range []string{"tiny_cnn", "tiny_vit", "tiny_decoder"} {
		for _, scheme := range []string{"fp16", "w8", "w8a8", "w4b32", "p4", "p6", "s75", "s50+w8"} {
			t.Run(net+"/"+scheme, func(t *testing.T) {
				g := compressed(t, net, scheme)
				p := filepath.Join(t.TempDir(), "x.mlpackage")
				want, err := coreml.Size(g, coreml.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if err := coreml.Save(p, g, coreml.Options{}); err != nil {
					t.Fatal(err)
				}
				// Size takes computed constants to be distinct; the tiny
				// networks have equal ones (scales and biases of norms).
				if n := treeBytes(readTree(t, p)); n > want || n < want*9/10 {
					t.Errorf("the package has %d bytes, Size said %d", n, want)
				}
				back, err := coreml.Load(p, coreml.Options{})
				if err != nil {
					t.Fatal(err)
				}
				sameOutputs(t, g, back, 1e-3)
			})
		}
	}
}

// sameOutputs runs two graphs on one random input; outputs may differ by tol
// of their greatest element.
func sameOutputs(t *testing.T, a, b *model.Graph, tol float64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 9))
	in, inB := map[string]*model.Tensor{}, map[string]*model.Tensor{}
	for i, v := range a.Inputs {
		x := model.NewTensor(v.DType, v.Shape...)
		for j := range x.Len() {
			if v.DType.IsFloat() {
				x.Set(j, rng.Float64()*2-1)
			} else {
				x.SetInt(j, int64(rng.IntN(8)))
			}
		}
		in[v.Name] = x
		inB[b.Inputs[i].Name] = x.Convert(b.Inputs[i].DType)
	}
	run := func(g *model.Graph, in map[string]*model.Tensor) []*model.Tensor {
		out, err := ops.EvalGraph(context.Background(), g, in, ops.Options{Float64: true})
		if err != nil {
			t.Fatal(err)
		}
		var list []*model.Tensor
		for _, v := range g.Outputs {
			list = append(list, out[v.Name])
		}
		return list
	}
	x, y := run(a, in), run(b, inB)
	for i := range x {
		if e := worst(y[i], x[i]); e > tol {
			t.Errorf("output %s differs by %.3g of its maximum", a.Outputs[i].Name, e)
		}
	}
}

func BenchmarkSize(b *testing.B) {
	g := compressed(b, "resnet50", "w8")
	for b.Loop() {
		if _, err := coreml.Size(g, coreml.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestBidirectionalLSTM writes ONNX's two-directional LSTM, which comes back
// as two nodes, with weights and states of its own for each direction.
func TestBidirectionalLSTM(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	random := func(name string, shape ...int) *model.Value {
		x := model.NewTensor(model.Float32, shape...)
		for i := range x.Len() {
			x.Set(i, rng.Float64()-0.5)
		}
		return &model.Value{Name: name, DType: x.DType, Shape: x.Shape, Const: model.NewConst(x)}
	}
	const s, b, in, h = 3, 2, 4, 3
	value := func(name string, shape ...int) *model.Value {
		return &model.Value{Name: name, DType: model.Float32, Shape: shape}
	}
	x, h0 := value("x", s, b, in), value("h0", 2, b, h)
	n := &model.Node{Name: "lstm", Op: "LSTM", Inputs: []*model.Value{x, random("w", 2, 4*h, in), random("r", 2, 4*h, h), random("bias", 2, 8*h), nil, h0},
		Attrs: model.Attrs{"hidden_size": h, "direction": "bidirectional"}}
	n.Outputs = []*model.Value{value("y", s, 2, b, h), value("yh", 2, b, h), value("yc", 2, b, h)}
	for _, v := range n.Outputs {
		v.Producer = n
	}
	g := &model.Graph{Name: "bi", Inputs: []*model.Value{x, h0}, Nodes: []*model.Node{n}, Outputs: n.Outputs}
	p := filepath.Join(t.TempDir(), "bi.mlpackage")
	if err := coreml.Save(p, g, coreml.Options{}); err != nil {
		t.Fatal(err)
	}
	back, err := coreml.Load(p, coreml.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sameOutputs(t, g, back, 1e-6)
}

func BenchmarkLoad(b *testing.B) {
	p := filepath.Join(b.TempDir(), "resnet50.mlpackage")
	if err := coreml.Save(p, compressed(b, "resnet50", "w8"), coreml.Options{}); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for b.Loop() {
		if _, err := coreml.Load(p, coreml.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
