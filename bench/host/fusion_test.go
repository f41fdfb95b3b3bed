package host

import (
	"context"
	"encoding/base64"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
)

var update = flag.Bool("update", false, "record what ONNX Runtime makes of the small network")

// smallNet writes a network with what a peer may fail to fuse: a convolution
// before a SiLU, one before a clamp, a residual, a linear layer with a bias.
func smallNet(t *testing.T) string {
	t.Helper()
	g := &model.Graph{Name: "small"}
	constant := func(name string, shape ...int) *model.Value {
		x := model.NewTensor(model.Float32, shape...)
		for i := range x.Len() {
			x.Set(i, float64(i%7-3)/8)
		}
		return &model.Value{Name: name, DType: model.Float32, Shape: model.Shape(shape), Const: model.NewConst(x)}
	}
	node := func(op model.Op, out string, shape model.Shape, attrs model.Attrs, in ...*model.Value) *model.Value {
		y := &model.Value{Name: out, DType: model.Float32, Shape: shape}
		y.Producer = &model.Node{Name: out + "_node", Op: op, Inputs: in, Outputs: []*model.Value{y}, Attrs: attrs}
		g.Nodes = append(g.Nodes, y.Producer)
		return y
	}
	conv := func(out string, x *model.Value, c int) *model.Value {
		return node("Conv", out, model.Shape{1, c, 8, 8}, model.Attrs{"kernel_shape": []int{3, 3}, "pads": []int{1, 1, 1, 1}},
			x, constant(out+"_w", c, x.Shape[1], 3, 3), constant(out+"_b", c))
	}
	x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{1, 3, 8, 8}}
	g.Inputs = []*model.Value{x}
	a := conv("a", x, 8)
	s := node("Sigmoid", "s", a.Shape, nil, a)
	a = node("Mul", "silu", a.Shape, nil, a, s)
	b := node("Relu", "b_relu", a.Shape, nil, conv("b", a, 8))
	b = node("Add", "sum", a.Shape, nil, a, b)
	b = node("GlobalAveragePool", "pool", model.Shape{1, 8, 1, 1}, nil, b)
	b = node("Flatten", "flat", model.Shape{1, 8}, model.Attrs{"axis": 1}, b)
	g.Outputs = []*model.Value{node("Gemm", "y", model.Shape{1, 5}, model.Attrs{"transB": 1}, b, constant("fc_w", 5, 8), constant("fc_b", 5))}
	p := filepath.Join(t.TempDir(), "small.onnx")
	if err := onnx.Save(p, g); err != nil {
		t.Fatal(err)
	}
	return p
}

// The graph that ONNX Runtime 1.30 made of the small network, as recorded, and
// as it makes it now where it is installed.
func TestFusion(t *testing.T) {
	check := func(t *testing.T, path string) {
		t.Helper()
		f, err := readFusion(path)
		if err != nil {
			t.Fatal(err)
		}
		fused := map[string]int{"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1}
		if !f.Whole() || f.Convs != 2 || f.Products != 1 || !maps.Equal(f.Fused, fused) || !maps.Equal(f.Unfused, map[string]int{"QuantizeLinear": 1}) {
			t.Errorf("%s: %+v", path, f)
		}
		if s := f.Summary(); !strings.HasPrefix(s, "2 of 2 convolutions and 1 of 1 products over 8-bit codes, 1 QuantizeLinear") {
			t.Error(s)
		}
	}
	if !*update {
		check(t, recordedFile(t))
	}
	t.Run("now", func(t *testing.T) {
		ort := ortPeer(t)
		file, done, err := peerFile(smallNet(t), "w8a8")
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		out := filepath.Join(t.TempDir(), "optimized.onnx")
		if ok, err := ort.Optimize(context.Background(), file, "w8a8", out); !ok || err != nil {
			t.Fatal(ok, err)
		}
		check(t, out)
		if b, err := os.ReadFile(out); *update && err == nil {
			if err := os.WriteFile(recordedText, []byte(base64.StdEncoding.EncodeToString(b)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	})
	// Without suitORT the convolution before the SiLU and the linear layer stay in
	// floating point, and that shows.
	t.Run("plain QDQ", func(t *testing.T) {
		ort := ortPeer(t)
		g, err := compile.Load(smallNet(t), compile.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := compile.Fold(g)
		if err != nil {
			t.Fatal(err)
		}
		s, err := quant.Parse("w8a8")
		if err != nil {
			t.Fatal(err)
		}
		s.Float = model.Float32
		a := *s.Activations
		a.DType, a.Asymmetric = model.UInt8, true
		s.Activations = &a
		q, _, err := quant.Apply(c.Graph, s, quant.Options{Ranges: runtime.Ranges(c.Graph, 1)})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "plain.onnx")
		if err := onnx.Save(file, q); err != nil {
			t.Fatal(err)
		}
		f, err := fusionOf(context.Background(), ort, file, "w8a8")
		if err != nil {
			t.Fatal(err)
		}
		if f.Whole() || f.FusedConvs != 1 || f.Convs != 2 || f.FusedProducts != 0 || f.Unfused["Gemm"] != 1 {
			t.Errorf("%+v", f)
		}
	})
}

// recordedText is the recorded graph as text.
var recordedText = filepath.Join("testdata", "optimized.onnx.base64")

func recordedFile(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(recordedText)
	if err != nil {
		t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(t.TempDir(), "optimized.onnx")
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// ortPeer returns ONNX Runtime as bench host runs it, or skips the test.
func ortPeer(t *testing.T) Command {
	t.Helper()
	dir := filepath.Join(testutil.Root(t), "bench", "peers", "ort")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "onnxruntime-node")); err != nil {
		t.Skipf("ONNX Runtime is not here: npm ci --ignore-scripts in %s", dir)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	return Command{Label: "ort", Path: node, Args: []string{"peer.js"}, Dir: dir, DumpEnv: "TRIUNE_ORT_DUMP"}
}

// A float network is not looked into, and a peer that cannot show its graph is
// noted without ending the measurement.
func TestFusionOf(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("no /bin/sh to play the peer: ", err)
	}
	ctx := context.Background()
	sh := func(script string) Command {
		return Command{Label: "sh", Path: "/bin/sh", Args: []string{"-c", script, "sh"}, DumpEnv: "DUMP"}
	}
	float, recorded := smallNet(t), recordedFile(t)
	if f, err := fusionOf(ctx, sh("exit 1"), float, "fp32"); f != nil || err != nil {
		t.Errorf("float network: %v, %v", f, err)
	}
	if f, err := fusionOf(ctx, fake{}, recorded, "w8a8"); f != nil || err != nil {
		t.Errorf("peer without a graph to show: %v, %v", f, err)
	}
	if f, err := fusionOf(ctx, sh(`cp "$1" "$DUMP"; echo '{}'`), recorded, "w8a8"); err != nil || f.FusedConvs != 2 {
		t.Errorf("copied: %+v, %v", f, err)
	}
	for script, want := range map[string]string{
		"exit 3":                         "exit status 3",
		"true":                           "no such file",
		`echo '{"error":"no model"}'`:    "no model",
		`echo nonsense > "$DUMP"`:        "not an ONNX model",
		`: > "$DUMP"`:                    "no operators",
		`echo '{"error":"bad"}'; exit 1`: "bad",
		`head -c 300 "$1" > "$DUMP"`:     "not an ONNX model",
	} {
		if _, err := fusionOf(ctx, sh(script), recorded, "w8a8"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", script, err, want)
		}
	}
}

// Operators in the bodies of control flow and in functions count; graphs that
// contain themselves too often are refused.
func TestCountOps(t *testing.T) {
	msg := func(num protowire.Number, parts ...[]byte) []byte {
		var all []byte
		for _, p := range parts {
			all = append(all, p...)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), all)
	}
	text := func(num protowire.Number, s string) []byte { return msg(num, []byte(s)) }
	write := func(b []byte) string {
		p := filepath.Join(t.TempDir(), "m.onnx")
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	graph := func(num protowire.Number, nodes ...[]byte) []byte { return msg(num, nodes...) }
	inner := msg(1, text(4, "Conv"))
	m := append(msg(7, inner, msg(1, text(4, "If"), msg(5, graph(6, inner, inner)))), msg(25, msg(7, text(4, "QLinearConv")))...)
	ops, err := countOps(write(m))
	if err != nil || !maps.Equal(ops, map[string]int{"Conv": 3, "If": 1, "QLinearConv": 1}) {
		t.Errorf("%v, %v", ops, err)
	}
	if f, err := readFusion(write(m)); err != nil || f.Convs != 4 || f.FusedConvs != 1 || f.Whole() {
		t.Errorf("%+v, %v", f, err)
	}
	deep := inner
	for range 200 {
		deep = msg(1, text(4, "Loop"), msg(5, graph(6, deep)))
	}
	if _, err := countOps(write(msg(7, deep))); err == nil || !strings.Contains(err.Error(), "nested") {
		t.Errorf("deep nesting: %v", err)
	}
}
