package onnx

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// tiny writes a small model: y = Relu(x W + b) and an If around it.
func tiny(t testing.TB) []byte {
	t.Helper()
	x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{1, 2}}
	w := &model.Value{Name: "w", DType: model.Float32, Shape: model.Shape{2, 3}, Const: model.NewConst(model.Of([]float32{1, -2, 3, -4, 5, -6}, 2, 3))}
	mm := &model.Node{Name: "mm", Op: "MatMul", Inputs: []*model.Value{x, w}}
	h := &model.Value{Name: "h", Producer: mm, DType: model.Float32, Shape: model.Shape{1, 3}}
	mm.Outputs = []*model.Value{h}
	branch := func(op model.Op, name string) *model.Graph {
		n := &model.Node{Name: name, Op: op, Inputs: []*model.Value{h}}
		v := &model.Value{Name: name, Producer: n, DType: model.Float32, Shape: model.Shape{1, 3}}
		n.Outputs = []*model.Value{v}
		return &model.Graph{Name: name, Nodes: []*model.Node{n}, Outputs: []*model.Value{v}}
	}
	c := &model.Value{Name: "c", DType: model.Bool, Shape: model.Shape{}, Const: model.NewConst(&model.Tensor{DType: model.Bool, Shape: model.Shape{}, Data: []byte{1}})}
	iff := &model.Node{Name: "if", Op: "If", Inputs: []*model.Value{c}, Blocks: map[string]*model.Graph{"then_branch": branch("Relu", "r"), "else_branch": branch("Neg", "n")}}
	y := &model.Value{Name: "y", Producer: iff, DType: model.Float32, Shape: model.Shape{1, 3}}
	iff.Outputs = []*model.Value{y}
	g := &model.Graph{Name: "tiny", Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{mm, iff}}
	var b bytes.Buffer
	if err := Write(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// oneLineError reads data, which must not panic; an error must be one line
// with the package's prefix.
func oneLineError(t testing.TB, data []byte) error {
	t.Helper()
	_, err := Read(data, "", Options{})
	if err != nil && (!strings.HasPrefix(err.Error(), "onnx: ") || strings.Contains(err.Error(), "\n")) {
		t.Fatalf("not one line with a prefix: %q", err)
	}
	return err
}

// TestTruncated reads every prefix of a file.
func TestTruncated(t *testing.T) {
	data := tiny(t)
	for i := range data {
		if err := oneLineError(t, data[:i]); err == nil && i < len(data)-8 {
			t.Errorf("the first %d of %d bytes are accepted", i, len(data))
		}
	}
	if err := oneLineError(t, data); err != nil {
		t.Fatal(err)
	}
}

// TestDamaged flips bytes of small models.
func TestDamaged(t *testing.T) {
	seeds := [][]byte{tiny(t)}
	files, _ := filepath.Glob(filepath.Join(suiteDir, "*", "model.onnx"))
	for i := 0; i < len(files); i += 10 {
		b, err := os.ReadFile(files[i])
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, b)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for _, s := range seeds {
		for range 40 {
			b := bytes.Clone(s)
			for range 1 + r.IntN(3) {
				b[r.IntN(len(b))] = byte(r.Uint32())
			}
			oneLineError(t, b)
		}
	}
}

func TestRandomBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 2000 {
		b := make([]byte, r.IntN(200))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if oneLineError(t, b) == nil {
			t.Fatalf("%x is accepted", b)
		}
	}
}

// rawModel builds a model from a serialized graph.
func rawModel(graph []byte, opset int64) []byte {
	b := appendInt(nil, 1, 8)
	b = appendMessage(b, 7, graph)
	return appendMessage(b, 8, appendInt(nil, 2, opset))
}

func rawNode(op string, in, out []string, extra ...[]byte) []byte {
	var b []byte
	for _, s := range in {
		b = appendString(b, 1, s)
	}
	for _, s := range out {
		b = appendString(b, 2, s)
	}
	b = appendString(b, 4, op)
	b = appendString(b, 3, "the_node")
	for _, e := range extra {
		b = append(b, e...)
	}
	return b
}

func rawInput(name string, dims ...int64) []byte {
	var shape []byte
	for _, d := range dims {
		shape = appendMessage(shape, 1, appendInt(nil, 1, d))
	}
	t := appendMessage(appendInt(nil, 1, 1), 2, shape)
	return appendMessage(appendString(nil, 1, name), 2, appendMessage(nil, 1, t))
}

func rawTensor(name string, dtype int64, dims []int64, raw []byte, extra ...[]byte) []byte {
	var b []byte
	for _, d := range dims {
		b = appendInt(b, 1, d)
	}
	b = appendInt(b, 2, dtype)
	b = appendString(b, 8, name)
	if raw != nil {
		b = appendMessage(b, 9, raw)
	}
	for _, e := range extra {
		b = append(b, e...)
	}
	return b
}

func external(pairs ...string) []byte {
	var b []byte
	for i := 0; i < len(pairs); i += 2 {
		b = appendMessage(b, 13, appendString(appendString(nil, 1, pairs[i]), 2, pairs[i+1]))
	}
	return appendInt(b, 14, 1)
}

// TestErrors names what is wrong and where.
func TestErrors(t *testing.T) {
	io := func(nodes ...[]byte) []byte {
		var g []byte
		for _, n := range nodes {
			g = appendMessage(g, 1, n)
		}
		g = appendMessage(g, 11, rawInput("x", 2, 3))
		return appendMessage(g, 12, rawInput("y", 2, 3))
	}
	withInit := func(tensor []byte) []byte {
		return rawModel(appendMessage(io(rawNode("Relu", []string{"x"}, []string{"y"})), 5, tensor), 17)
	}
	deep := rawNode("Relu", []string{"x"}, []string{"y"})
	for range maxDepth + 2 {
		g := appendMessage(nil, 1, deep)
		a := appendMessage(appendString(nil, 1, "then_branch"), 6, g)
		deep = rawNode("If", []string{"x"}, []string{"y"}, appendMessage(nil, 5, appendInt(a, 20, attrGraph)))
	}
	for _, c := range []struct {
		what string
		data []byte
		want []string
	}{
		{"empty", nil, []string{"no graph"}},
		{"old opset", rawModel(io(rawNode("Add", []string{"x", "x"}, []string{"y"})), 6), []string{"the_node", "Add", "opset 6", "7 to 22"}},
		{"new opset", rawModel(io(rawNode("Relu", []string{"x"}, []string{"y"})), 99), []string{"opset 99", "7 to 22"}},
		{"unknown operator", rawModel(io(rawNode("Frobnicate", []string{"x"}, []string{"y"})), 17), []string{"the_node", "Frobnicate", "not supported"}},
		{"unknown domain", rawModel(io(rawNode("Relu", []string{"x"}, []string{"y"}, appendString(nil, 7, "com.acme"))), 17), []string{"the_node", "com.acme.Relu"}},
		{"missing producer", rawModel(io(rawNode("Relu", []string{"z"}, []string{"y"})), 17), []string{"the_node", `"z"`, "nothing produces"}},
		{"cycle", rawModel(io(rawNode("Add", []string{"x", "b"}, []string{"a"}), rawNode("Relu", []string{"a"}, []string{"b"}), rawNode("Relu", []string{"b"}, []string{"y"})), 17), []string{"cycle"}},
		{"two producers", rawModel(io(rawNode("Relu", []string{"x"}, []string{"y"}), rawNode("Neg", []string{"x"}, []string{"y"})), 17), []string{"the_node", `"y"`, "producer"}},
		{"bad shapes", rawModel(io(rawNode("MatMul", []string{"x", "x"}, []string{"y"})), 17), []string{"the_node", "MatMul", "inner dimensions"}},
		{"too many inputs", rawModel(io(rawNode("Relu", []string{"x", "x"}, []string{"y"})), 17), []string{"the_node", "2 inputs"}},
		{"short data", withInit(rawTensor("w", 1, []int64{4}, make([]byte, 15))), []string{`"w"`, "15 bytes", "16"}},
		{"huge dimensions", withInit(rawTensor("w", 1, []int64{1 << 40, 1 << 40}, nil)), []string{"w", "too large"}},
		{"huge tensor without data", withInit(rawTensor("w", 1, []int64{1 << 40}, nil)), []string{`"w"`, "0 bytes stored"}},
		{"negative dimension", withInit(rawTensor("w", 1, []int64{-1}, nil)), []string{"dimension -1"}},
		{"unknown type", withInit(rawTensor("w", 77, []int64{1}, nil)), []string{"element type 77"}},
		{"external data in memory", withInit(rawTensor("w", 1, []int64{1}, nil, external("location", "w.bin"))), []string{`"w"`, "w.bin", "folder"}},
		{"nested blocks", rawModel(io(deep), 17), []string{"nested deeper"}},
		{"sparse bomb", rawModel(appendMessage(io(rawNode("Relu", []string{"x"}, []string{"y"})), 15,
			appendInt(appendMessage(appendMessage(nil, 1, rawTensor("w", 1, []int64{0}, []byte{})), 2, rawTensor("i", 7, []int64{0}, []byte{})), 3, 1<<40)), 17), []string{"out of range"}},
	} {
		err := oneLineError(t, c.data)
		if err == nil {
			t.Errorf("%s: accepted", c.what)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", c.what, err, w)
			}
		}
	}
}

// TestExternalData reads weights beside the model and refuses what lies
// elsewhere.
func TestExternalData(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "model")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	weights := []byte{0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40} // 0 | 1, 2, 3
	for _, name := range []string{filepath.Join(dir, "outside.bin"), filepath.Join(inner, "w.bin")} {
		if err := os.WriteFile(name, weights, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "outside.bin"), filepath.Join(inner, "link.bin")); err != nil {
		t.Fatal(err)
	}
	build := func(entries ...string) string {
		g := appendMessage(nil, 1, rawNode("Add", []string{"x", "w"}, []string{"y"}))
		g = appendMessage(g, 5, rawTensor("w", 1, []int64{3}, nil, external(entries...)))
		g = appendMessage(g, 11, rawInput("x", 2, 3))
		g = appendMessage(g, 12, rawInput("y", 2, 3))
		path := filepath.Join(inner, "m.onnx")
		if err := os.WriteFile(path, rawModel(g, 17), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	g, err := Load(build("location", "w.bin", "offset", "4", "length", "12"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := g.Consts()[0].Const.Value()
	if err != nil {
		t.Fatal(err)
	}
	if v := w.Float32s(); v[0] != 1 || v[1] != 2 || v[2] != 3 {
		t.Errorf("weights %v, want [1 2 3]", v)
	}
	for _, c := range []struct {
		entries []string
		want    string
	}{
		{[]string{"location", "gone.bin"}, "missing"},
		{[]string{"location", "../outside.bin"}, "leaves the model's folder"},
		{[]string{"location", filepath.Join(dir, "outside.bin")}, "leaves the model's folder"},
		{[]string{"location", "link.bin"}, "escapes"},
		{[]string{"location", "w.bin", "offset", "8", "length", "12"}, "reaches beyond"},
		{[]string{"location", "w.bin", "offset", "18446744073709551615"}, "want a number"},
		{[]string{"location", "w.bin", "offset", "-4"}, "want a number"},
		{[]string{"location", "w.bin", "length", "4"}, "want 12 bytes"},
		{[]string{"location", "."}, "not a regular file"},
	} {
		_, err := Load(build(c.entries...), Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: error %v, want one line with %q", c.entries, err, c.want)
		}
	}
}

// TestShapes sets and defaults input shapes.
func TestShapes(t *testing.T) {
	dim := func(name string) []byte {
		if name == "" {
			return nil
		}
		return appendString(nil, 2, name)
	}
	build := func(names ...string) []byte {
		var shape []byte
		for _, n := range names {
			shape = appendMessage(shape, 1, dim(n))
		}
		ty := appendMessage(appendInt(nil, 1, 1), 2, shape)
		in := appendMessage(appendString(nil, 1, "x"), 2, appendMessage(nil, 1, ty))
		g := appendMessage(nil, 1, rawNode("Relu", []string{"x"}, []string{"y"}))
		return rawModel(appendMessage(appendMessage(g, 11, in), 12, rawInput("y")), 17)
	}
	for _, c := range []struct {
		dims  []string
		given []int
		want  model.Shape
		err   string
	}{
		{[]string{"batch", "seq"}, nil, model.Shape{1, -1}, ""},
		{[]string{"batch", "seq"}, []int{2, 5}, model.Shape{2, 5}, ""},
		{[]string{"", "seq"}, nil, model.Shape{1, -1}, ""},
		{[]string{"height", "width"}, nil, model.Shape{-1, -1}, ""},
		{[]string{"batch", "seq"}, []int{2}, nil, "another rank"},
		{[]string{"batch", "seq"}, []int{2, -5}, nil, "not valid"},
	} {
		o := Options{}
		if c.given != nil {
			o.Shapes = map[string][]int{"x": c.given}
		}
		g, err := Read(build(c.dims...), "", o)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v %v: error %v, want %q", c.dims, c.given, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !g.Inputs[0].Shape.Equal(c.want) {
			t.Errorf("%v %v: shape %v, want %v", c.dims, c.given, g.Inputs[0].Shape, c.want)
		}
	}
	if _, err := Read(build("batch"), "", Options{Shapes: map[string][]int{"z": {1}}}); err == nil || !strings.Contains(err.Error(), `"z"`) {
		t.Errorf("a shape for an input that does not exist: %v", err)
	}
}

// TestWeightsAreViews checks that large initializers are not copied.
func TestWeightsAreViews(t *testing.T) {
	data, err := os.ReadFile(testutil.Shared(t, "fixtures/onnx/mobilenet_v2.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	g, err := Read(data, "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > uint64(len(data))/4 {
		t.Errorf("reading a file of %d bytes allocates %d", len(data), n)
	}
	if g.Params() < 3_400_000 {
		t.Errorf("%d parameters", g.Params())
	}
}

func FuzzRead(f *testing.F) {
	f.Add(tiny(f))
	files, _ := filepath.Glob(filepath.Join(suiteDir, "*", "model.onnx"))
	for i := 0; i < len(files); i += 23 {
		if b, err := os.ReadFile(files[i]); err == nil && len(b) < 4096 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		g, err := Read(data, "", Options{})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("an error of several lines: %q", err)
			}
			return
		}
		// What is read can be written, and reads back.
		var b bytes.Buffer
		if err := Write(&b, g); err != nil {
			return
		}
		if _, err := Read(b.Bytes(), "", Options{}); err != nil {
			t.Fatalf("a written model does not read back: %v", err)
		}
	})
}

func FuzzTensor(f *testing.F) {
	f.Add(rawTensor("w", 1, []int64{2}, make([]byte, 8)))
	f.Add(rawTensor("w", 7, []int64{2}, nil, appendMessage(nil, 7, protowire.AppendVarint(protowire.AppendVarint(nil, 1), 1<<63))))
	f.Add(rawTensor("w", 22, []int64{3}, nil, appendMessage(nil, 5, []byte{1, 2})))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := ReadTensor(data)
		if err != nil {
			return
		}
		if x.DType != model.String && int64(len(x.Data)) != x.DType.Bytes(x.Shape.Elems()) {
			t.Fatalf("%d bytes for %s%v", len(x.Data), x.DType, x.Shape)
		}
	})
}

// FuzzEval evaluates what can be read on small inputs: any graph ends in a
// result or an error within its time and memory.
func FuzzEval(f *testing.F) {
	f.Add(tiny(f))
	g := appendMessage(nil, 1, rawNode("CropResize", []string{"x", "b"}, []string{"y"}, RawAttr("height", 2), RawAttr("width", 3), RawAttr("sampling_mode", "UNALIGN_CORNERS")))
	g = appendMessage(g, 1, rawNode("BoxSuppression", []string{"p", "s"}, []string{"q", "r", "i", "n"}, RawAttr("max_boxes", 2), RawAttr("iou_threshold", 0.5)))
	g = appendMessage(g, 11, rawInput("x", 1, 2, 4, 4))
	g = appendMessage(appendMessage(appendMessage(g, 11, rawInput("b", 1, 4)), 11, rawInput("p", 1, 3, 4)), 11, rawInput("s", 1, 3, 2))
	g = appendMessage(appendMessage(g, 12, rawInput("y")), 12, rawInput("q"))
	f.Add(rawModel(g, 17))
	files, _ := filepath.Glob(filepath.Join(suiteDir, "*", "model.onnx"))
	for i := 3; i < len(files); i += 11 {
		if b, err := os.ReadFile(files[i]); err == nil && len(b) < 4096 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<14 {
			return
		}
		g, err := Read(data, "", Options{})
		if err != nil {
			return
		}
		in := map[string]*model.Tensor{}
		for _, v := range g.Inputs {
			if n := v.Shape.Elems(); v.Type != model.TypeTensor || n < 0 || n > 4096 {
				return
			}
			in[v.Name] = model.NewTensor(v.DType, v.Shape...)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		_, err = ops.EvalGraphData(ctx, g, asData(in), ops.Options{MaxBytes: 1 << 22})
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatalf("an error of several lines: %q", err)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Fatalf("took %v", d)
		}
	})
}

func asData(in map[string]*model.Tensor) map[string]ops.Datum {
	out := map[string]ops.Datum{}
	for k, v := range in {
		out[k] = ops.TensorDatum(v)
	}
	return out
}

// Every operator with a rule of its own, of any opset, with inputs or outputs missing in any way, is
// read or refused in one line.
func TestMissingArguments(t *testing.T) {
	ins := [][]string{nil, {"x"}, {"", "x"}, {"x", "", "x"}, {"", "", "x"}, {"", "x", "x"}, {"x", "x", "", "x"}, {"", "x", "x", "x", "x", "x", "x", "x", "x"}}
	outs := [][]string{nil, {"y"}, {""}, {"", "y"}, {"y", "", "z"}}
	n := 0
	for op := range rules {
		domain, name := "", op
		if i := strings.LastIndex(op, "."); i >= 0 {
			domain, name = op[:i], op[i+1:]
		}
		for opset := int64(MinOpset); opset <= MaxOpset; opset += 3 {
			for _, in := range ins {
				for _, out := range outs {
					for _, attr := range [][]byte{nil, RawAttr("num_groups", 1), RawAttr("value", 2.0)} {
						node := rawNode(name, in, out, attr)
						if domain != "" {
							node = appendString(node, 7, domain)
						}
						g := appendMessage(nil, 1, node)
						g = appendMessage(g, 11, rawInput("x", 1, 4, 2, 2))
						g = appendMessage(g, 12, rawInput("y"))
						m := appendMessage(rawModel(g, opset), 8, appendInt(appendString(nil, 1, "com.microsoft"), 2, 1))
						if _, err := Read(m, "", Options{}); err != nil && strings.Contains(err.Error(), "\n") {
							t.Errorf("%s of opset %d, %q to %q: %q", op, opset, in, out, err)
						}
						n++
					}
				}
			}
		}
	}
	if n < 10_000 {
		t.Errorf("only %d nodes", n)
	}
	t.Logf("%d nodes", n)
}
