package onnx

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// graphDiff compares two graphs: structure, names of the outer graph's values,
// types, attributes and the values of constants. Opset and file facts may
// differ.
func graphDiff(a, b *model.Graph) error {
	pair := map[*model.Value]*model.Value{}
	return diffGraphs(a, b, pair, true)
}

func diffGraphs(a, b *model.Graph, pair map[*model.Value]*model.Value, names bool) error {
	same := func(x, y *model.Value, what string) error {
		if (x == nil) != (y == nil) {
			return fmt.Errorf("%s: present in one graph only", what)
		}
		if x == nil || pair[x] == y {
			return nil
		}
		if pair[x] != nil {
			return fmt.Errorf("%s: %q stands for two values", what, x.Name)
		}
		pair[x] = y
		if names && x.Const == nil && x.Name != y.Name {
			return fmt.Errorf("%s: %q became %q", what, x.Name, y.Name)
		}
		if x.DType != y.DType || !x.Shape.Equal(y.Shape) || x.Type != y.Type || !slices.Equal(x.Dims, y.Dims) {
			return fmt.Errorf("%s: %v%q became %v%q", what, x, x.Dims, y, y.Dims)
		}
		if (x.Const == nil) != (y.Const == nil) {
			return fmt.Errorf("%s: %q is a constant in one graph only", what, x.Name)
		}
		if x.Const != nil {
			s, err := x.Const.Value()
			if err != nil {
				return err
			}
			t, err := y.Const.Value()
			if err != nil {
				return err
			}
			if !bytes.Equal(s.Data, t.Data) || !slices.Equal(s.Strings, t.Strings) {
				return fmt.Errorf("%s: the constant %q changed", what, x.Name)
			}
		}
		return nil
	}
	list := func(x, y []*model.Value, what string) error {
		for len(x) > 0 && x[len(x)-1] == nil { // absent inputs at the end are not written
			x = x[:len(x)-1]
		}
		if len(x) != len(y) {
			return fmt.Errorf("%s: %d became %d", what, len(x), len(y))
		}
		for i := range x {
			if err := same(x[i], y[i], fmt.Sprintf("%s %d", what, i)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := list(a.Inputs, b.Inputs, "graph input"); err != nil {
		return err
	}
	if len(a.Nodes) != len(b.Nodes) {
		return fmt.Errorf("%d nodes became %d", len(a.Nodes), len(b.Nodes))
	}
	for i, n := range a.Nodes {
		m := b.Nodes[i]
		what := fmt.Sprintf("node %q (%s)", n.Name, n.Op)
		if n.Op != m.Op || names && n.Name != m.Name {
			return fmt.Errorf("%s became %q (%s)", what, m.Name, m.Op)
		}
		if d := cmp.Diff(n.Attrs, m.Attrs); d != "" && len(n.Attrs)+len(m.Attrs) > 0 {
			return fmt.Errorf("%s: attributes: %s", what, d)
		}
		if err := list(n.Inputs, m.Inputs, what+": input"); err != nil {
			return err
		}
		if err := list(n.Outputs, m.Outputs, what+": output"); err != nil {
			return err
		}
		if len(n.Blocks) != len(m.Blocks) {
			return fmt.Errorf("%s: %d blocks became %d", what, len(n.Blocks), len(m.Blocks))
		}
		for k, g := range n.Blocks {
			if m.Blocks[k] == nil {
				return fmt.Errorf("%s: the block %s is gone", what, k)
			}
			if err := diffGraphs(g, m.Blocks[k], pair, false); err != nil {
				return fmt.Errorf("%s: block %s: %w", what, k, err)
			}
		}
	}
	return list(a.Outputs, b.Outputs, "graph output")
}

// roundTrip writes and reads g, checks that the graph is the same and that
// writing again gives the same bytes, and returns the graph read.
func roundTrip(g *model.Graph) (*model.Graph, error) {
	var first, second bytes.Buffer
	if err := Write(&first, g); err != nil {
		return nil, err
	}
	if n, err := Size(g); err != nil || n != int64(first.Len()) {
		return nil, fmt.Errorf("Size says %d, %d bytes were written (%v)", n, first.Len(), err)
	}
	h, err := Read(first.Bytes(), "", Options{})
	if err != nil {
		return nil, err
	}
	if err := graphDiff(g, h); err != nil {
		return nil, err
	}
	if err := Write(&second, h); err != nil {
		return nil, err
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		return nil, fmt.Errorf("the second write gives other bytes")
	}
	return h, nil
}

func TestRoundTripFixtures(t *testing.T) {
	for _, name := range []string{"mobilenet_v2", "mobilenet_v2_qdq", "mobilenet_v2_qoperator", "squeezenet1_1", "mnist", "ultraface_rfb_320"} {
		g, err := Load(testutil.Shared(t, "fixtures/onnx/"+name+".onnx"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := roundTrip(g); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRoundTripSuite writes every graph of the node suite, reads it back and
// runs the case on what was read.
func TestRoundTripSuite(t *testing.T) {
	cases, _ := filepath.Glob(filepath.Join(suiteDir, "*", "model.onnx"))
	if len(cases) == 0 {
		t.Skip("the node suite of ONNX is not installed (apt-get install libonnx-testdata)")
	}
	unsupported := readUnsupported(t)
	for _, path := range cases {
		name := filepath.Base(filepath.Dir(path))
		if unsupported[name] != "" {
			continue
		}
		g, err := Load(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		h, err := roundTrip(g)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sets, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "test_data_set_*"))
		for _, set := range sets {
			if err := runSet(h, set); err != nil {
				t.Errorf("%s, read back: %v", name, err)
			}
		}
	}
}

// weight builds a constant value.
func weight(name string, c *model.Const) *model.Value {
	return &model.Value{Name: name, DType: c.DType, Shape: c.Shape, Const: c}
}

func fill(d model.DType, r *rand.Rand, shape ...int) *model.Tensor {
	t := model.NewTensor(d, shape...)
	lo, hi, ok := d.IntRange()
	for i := range t.Len() {
		if ok {
			t.SetInt(i, lo+r.Int64N(hi-lo+1))
		} else {
			t.Set(i, r.Float64()+0.5)
		}
	}
	return t
}

// TestWriteAffine writes compressed weights as DequantizeLinear; the values
// are the same after reading.
func TestWriteAffine(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	type form struct {
		codes        model.DType
		scale        model.DType
		shape, per   []int
		zero, native bool
	}
	for _, f := range []form{
		{model.Int8, model.Float32, []int{8, 4}, []int{8, 1}, false, true},
		{model.Int8, model.Float16, []int{8, 4}, []int{1, 1}, false, true},
		{model.UInt8, model.Float32, []int{8, 4}, []int{8, 1}, true, true},
		{model.UInt4, model.Float16, []int{8, 64}, []int{8, 2}, true, true},
		{model.Int4, model.Float32, []int{8, 64}, []int{8, 1}, false, true},
		{model.UInt2, model.Float32, []int{8, 5}, []int{8, 1}, true, true},
		{model.Int4, model.Float32, []int{8, 64}, []int{4, 2}, false, false}, // blocks on two axes
	} {
		c := &model.Affine{Codes: model.NewConst(fill(f.codes, r, f.shape...)), Scale: model.NewConst(fill(f.scale, r, f.per...))}
		if f.zero {
			c.Zero = model.NewConst(fill(f.codes, r, f.per...))
		}
		x := &model.Value{Name: "x", DType: f.scale, Shape: model.Shape{2, f.shape[0]}}
		n := &model.Node{Name: "product", Op: "MatMul", Inputs: []*model.Value{x, weight("w", &model.Const{DType: f.scale, Shape: f.shape, Storage: c})}}
		y := &model.Value{Name: "y", Producer: n}
		n.Outputs = []*model.Value{y}
		g := &model.Graph{Name: "affine", Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n}}
		if err := ops.InferGraph(g); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := Write(&b, g); err != nil {
			t.Fatal(err)
		}
		h, err := Read(b.Bytes(), "", Options{})
		if err != nil {
			t.Fatalf("%+v: %v", f, err)
		}
		if native := h.Nodes[0].Op == "DequantizeLinear"; native != f.native {
			t.Errorf("%+v: written as DequantizeLinear: %t", f, native)
		}
		in := map[string]*model.Tensor{"x": fill(f.scale, r, x.Shape...)}
		want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ops.EvalGraph(context.Background(), h, in, ops.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got["y"].Data, want["y"].Data) {
			t.Errorf("%+v: the product changed", f)
		}
		if _, err := roundTrip(h); err != nil {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

// TestWriteBeyondONNX writes operators that ONNX lacks as what they stand for.
func TestWriteBeyondONNX(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []*model.Node{
		{Name: "n", Op: "Swish"},
		{Name: "n", Op: "Swish", Attrs: model.Attrs{"alpha": 1.5}},
		{Name: "n", Op: "ScaledTanh", Attrs: model.Attrs{"alpha": 1.5, "beta": 0.5}},
		{Name: "n", Op: "RMSNormalization", Attrs: model.Attrs{"axis": -1, "epsilon": 1e-3}},
	} {
		x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{2, 6}}
		y := &model.Value{Name: "y", Producer: n}
		n.Inputs, n.Outputs = []*model.Value{x}, []*model.Value{y}
		if n.Op == "RMSNormalization" {
			n.Inputs = append(n.Inputs, weight("scale", model.NewConst(fill(model.Float32, r, 6))))
		}
		g := &model.Graph{Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n}}
		if err := ops.InferGraph(g); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := Write(&b, g); err != nil {
			t.Fatal(err)
		}
		h, err := Read(b.Bytes(), "", Options{})
		if err != nil {
			t.Fatal(err)
		}
		in := map[string]*model.Tensor{"x": fill(model.Float32, r, 2, 6)}
		want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ops.EvalGraph(context.Background(), h, in, ops.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if e := relErr(t, got["y"], want["y"]); e > 1e-6 {
			t.Errorf("%s: error %g", n.Op, e)
		}
	}
}

// TestSaveLeavesNothing checks that a failing constant leaves no file behind.
func TestSaveLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{2}}
	n := &model.Node{Name: "n", Op: "Add", Inputs: []*model.Value{x, weight("w", model.NewLazy(model.Float32, model.Shape{2}, func() (*model.Tensor, error) {
		return nil, fmt.Errorf("no weights today")
	}))}}
	y := &model.Value{Name: "y", DType: model.Float32, Shape: model.Shape{2}, Producer: n}
	n.Outputs = []*model.Value{y}
	g := &model.Graph{Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n}}
	if err := Save(filepath.Join(dir, "m.onnx"), g); err == nil {
		t.Error("no error from a constant that fails")
	}
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Errorf("%d files left behind", len(es))
	}
}

// TestOutside writes a model with its weights in a data file, the form of
// models too large for one file, and reads it back.
func TestOutside(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{2, 30}}
	n := &model.Node{Name: "n", Op: "Gemm", Inputs: []*model.Value{x, weight("w", model.NewConst(fill(model.Float32, r, 30, 17))), weight("b", model.NewConst(fill(model.Float32, r, 17)))}}
	m := &model.Node{Name: "m", Op: "MatMul"}
	h, y := &model.Value{Name: "h", Producer: n}, &model.Value{Name: "y", Producer: m}
	n.Outputs, m.Outputs = []*model.Value{h}, []*model.Value{y}
	m.Inputs = []*model.Value{h, weight("v", model.NewConst(fill(model.Float32, r, 17, 40)))}
	g := &model.Graph{Name: "outside", Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n, m}}
	if err := ops.InferGraph(g); err != nil {
		t.Fatal(err)
	}
	plan, err := layout(g, "m.onnx.data")
	if err != nil {
		t.Fatal(err)
	}
	var file, data bytes.Buffer
	if err := plan.writeTo(&file, &data); err != nil {
		t.Fatal(err)
	}
	if len(plan.data) != 2 {
		t.Errorf("%d weights in the data file, want the two of 1 KiB and more", len(plan.data))
	}
	dir := t.TempDir()
	for name, b := range map[string][]byte{"m.onnx": file.Bytes(), "m.onnx.data": data.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k, err := Load(filepath.Join(dir, "m.onnx"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := graphDiff(g, k); err != nil {
		t.Error(err)
	}
	// A model too large for one file is told so by Write, before any weight
	// is computed.
	n.Inputs[1] = weight("w", model.NewLazy(model.Float32, model.Shape{30, 1 << 25}, func() (*model.Tensor, error) {
		t.Error("a weight was computed")
		return nil, nil
	}))
	n.Inputs = n.Inputs[:2]
	if err := Write(&file, g); err == nil {
		t.Error("a model of 4 GB fits one file")
	}
}

// TestUnsigned writes int8 activations as uint8: the same numbers, and bytes
// that do not change when they are read and written again.
func TestUnsigned(t *testing.T) {
	g := quantizedChain(t)
	in := map[string]*model.Tensor{"x": model.Of([]float32{-9, -1.26, -0.5, 0, 0.24, 0.26, 1, 99}, 1, 8)}
	var b bytes.Buffer
	if err := Write(&b, g); err != nil {
		t.Fatal(err)
	}
	h, err := Read(b.Bytes(), "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	types := map[model.DType]int{}
	for _, n := range h.Nodes {
		if n.Op == "QuantizeLinear" {
			types[n.Outputs[0].DType]++
		}
	}
	// The last one is an output of the graph and keeps its type.
	if types[model.UInt8] != 1 || types[model.Int8] != 1 {
		t.Errorf("quantized to %v", types)
	}
	// A float file that was quantized after reading is no different.
	g.Format, g.Meta = "onnx", map[string]string{}
	var same bytes.Buffer
	if err := Write(&same, g); err != nil || !bytes.Equal(same.Bytes(), b.Bytes()) {
		t.Errorf("read from a float file, then quantized: %v, other bytes", err)
	}
	// A file of int8 activations keeps them.
	g.Meta[metaSigned] = "1"
	same.Reset()
	if err := Write(&same, g); err != nil {
		t.Fatal(err)
	}
	if k, err := Read(same.Bytes(), "", Options{}); err != nil || k.Nodes[0].Outputs[0].DType != model.Int8 || k.Meta[metaSigned] == "" {
		t.Errorf("a file of int8 activations does not keep them: %v", err)
	}
	if g.Nodes[0].Outputs[0].DType != model.Int8 || g.Nodes[0].In(2).DType != model.Int8 {
		t.Error("writing changed the graph")
	}
	want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := ops.EvalGraph(context.Background(), h, in, ops.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range g.Outputs {
		if w := want[v.Name]; !bytes.Equal(got[h.Outputs[i].Name].Data, w.Data) {
			t.Errorf("output %s is %v, was %v", v.Name, got[h.Outputs[i].Name].Data, w.Data)
		}
	}
	var again bytes.Buffer
	if err := Write(&again, h); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), b.Bytes()) {
		t.Error("the second writing gives other bytes")
	}
}

// quantizedChain is x -> int8 -> relu -> int8, both codes with the zero point
// -3; the first are dequantized twice.
func quantizedChain(t *testing.T) *model.Graph {
	t.Helper()
	x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{1, 8}}
	scale := &model.Value{Name: "scale", DType: model.Float32, Shape: model.Shape{}, Const: model.NewConst(model.Scalar(float32(0.25)))}
	z := model.Of([]int8{-3})
	z.Shape = model.Shape{}
	zero := &model.Value{Name: "zero", DType: model.Int8, Shape: model.Shape{}, Const: model.NewConst(z)}
	g := &model.Graph{Name: "chain", Format: "zoo", Inputs: []*model.Value{x}}
	op := func(op model.Op, name string, in ...*model.Value) *model.Value {
		n := &model.Node{Name: name, Op: op, Inputs: in}
		n.Outputs = []*model.Value{{Name: name, Producer: n}}
		g.Nodes = append(g.Nodes, n)
		return n.Outputs[0]
	}
	q := op("QuantizeLinear", "q", x, scale, zero)
	a := op("Relu", "a", op("DequantizeLinear", "d1", q, scale, zero))
	c := op("Neg", "c", op("DequantizeLinear", "d2", q, scale, zero))
	g.Outputs = []*model.Value{op("QuantizeLinear", "y", a, scale, zero), c}
	if err := ops.InferGraph(g); err != nil {
		t.Fatal(err)
	}
	return g
}
