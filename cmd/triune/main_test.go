package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triune-sim/triune/internal/npy"
	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
)

func triune(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errb bytes.Buffer
	code = run(context.Background(), args, &out, &errb)
	return code, out.String(), errb.String()
}

// Bad input of any kind: one line on standard error, nothing on standard
// output, exit code 1 or 2, nothing written.
func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	random := make([]byte, 4096)
	for i := range random {
		random[i] = byte(i*131 + i>>3)
	}
	noise := file("noise.onnx", random)
	empty := file("empty.onnx", nil)
	text := file("model.txt", []byte("hello"))
	good := file("x.npy", nil)
	if err := npy.Save(good, model.NewTensor(model.Float32, 1, 3, 224, 224)); err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(dir, "small.npy")
	if err := npy.Save(small, model.NewTensor(model.Float32, 1, 3, 64, 64)); err != nil {
		t.Fatal(err)
	}
	ints := filepath.Join(dir, "ints.npy")
	if err := npy.Save(ints, model.NewTensor(model.Int64, 1, 3, 224, 224)); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	for _, c := range []struct {
		args string
		code int
		want []string // all must be in the message
	}{
		{"predict", 2, []string{"predict MODEL"}},
		{"predict resnet50 vgg16", 2, []string{"one model", "vgg16"}},
		{"predict resnet5", 1, []string{"resnet5", "resnet50"}},
		{"predict nothere.onnx", 1, []string{"nothere.onnx"}},
		{"predict " + noise, 1, []string{"noise.onnx"}},
		{"predict " + empty, 1, []string{"empty.onnx"}},
		{"predict " + text, 1, []string{"model.txt", ".mlpackage"}},
		{"predict " + dir + "/no.mlpackage", 1, []string{"no.mlpackage"}},
		{"predict mobilenet_v2 -d iphone-3", 2, []string{"iphone-3"}},
		{"predict mobilenet_v2 -d zz*", 2, []string{"matches", "zz*"}},
		{"predict mobilenet_v2 -d [", 2, []string{"pattern"}},
		{"run mobilenet_v2 -i random -d m[1-5]", 2, []string{"one device", "matches 5"}},
		{"inspect mobilenet_v2 -d m1,m2", 2, []string{"one device"}},
		{"convert mobilenet_v2 " + out + ".onnx -c fp16,w8", 2, []string{"one scheme"}},
		{"predict mobilenet_v2 -c w7", 2, []string{"w7", "w8"}},
		{"predict mobilenet_v2 -u tpu", 2, []string{"tpu", "cpu_and_ne"}},
		{"predict mobilenet_v2 --policy best", 2, []string{"best", "optimal"}},
		{"predict mobilenet_v2 --pin x", 2, []string{"PATTERN=UNIT"}},
		{"predict mobilenet_v2 --set ne.speed=2", 2, []string{"ne.speed"}},
		{"predict mobilenet_v2 --set ne.peak_tf=-100", 2, []string{"ne.peak_tf"}},
		{"predict mobilenet_v2 --shape image=1x3", 1, []string{"mobilenet_v2"}},
		{"predict mobilenet_v2 --nosuchflag", 2, []string{"nosuchflag"}},
		{"predict mobilenet_v2 -c fp32 -u cpu_and_ne --pin *=ne", 1, []string{"fp32"}},
		{"frobnicate", 2, []string{"frobnicate", "predict"}},
		{"devices iphone-3", 2, []string{"iphone-3"}},
		{"bench nothing", 2, []string{"table"}},
		{"inspect " + noise, 1, []string{"noise.onnx"}},
		{"run mobilenet_v2 --output " + out, 1, []string{`"image"`}},
		{"run mobilenet_v2 --input image --output " + out, 1, []string{"open image"}}, // a file for the only input
		{"run mobilenet_v2 --input image=" + small + " --output " + out, 1, []string{"image", "[1,3,64,64]", "[1,3,224,224]"}},
		{"run mobilenet_v2 --input image=" + ints + " --output " + out, 1, []string{"image", "int64"}},
		{"run mobilenet_v2 --input pixels=" + good + " --output " + out, 2, []string{"pixels", "image"}},
		{"run mobilenet_v2 --input image=" + noise + " --output " + out, 1, []string{"noise.onnx"}},
		{"run mobilenet_v2 -d m4,iphone-12 --input image=" + good + " --output " + out, 2, []string{"one device"}},
	} {
		code, stdout, stderr := triune(t, strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("triune %s: exit code %d, want %d (%s)", c.args, code, c.code, stderr)
		}
		if stdout != "" {
			t.Errorf("triune %s: printed to standard output: %.80s", c.args, stdout)
		}
		if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "triune: ") {
			t.Errorf("triune %s: want one line, got %q", c.args, stderr)
		}
		for _, w := range c.want {
			if !strings.Contains(stderr, w) {
				t.Errorf("triune %s: message does not say %q: %s", c.args, w, stderr)
			}
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a failed run left its output folder")
	}
}

// The keys of one prediction are a contract.
func TestPredictJSON(t *testing.T) {
	code, stdout, stderr := triune(t, "predict", "mobilenet_v2", "-d", "iphone-15-pro", "-c", "w8a8", "--json")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		t.Fatal(err)
	}
	for _, k := range strings.Fields("model device chip os scheme compute_units policy latency_ms latency_p10_ms latency_p90_ms energy_mj load_ms package_bytes compression_ratio peak_memory_bytes weight_memory_bytes macs params segments layers") {
		if _, ok := doc[k]; !ok {
			t.Errorf("key %q is missing", k)
		}
	}
	layer := doc["layers"].([]any)[0].(map[string]any)
	for _, k := range strings.Fields("name op unit supported_units reason latency_ms compute_ms memory_ms overhead_ms bound macs weight_bytes input_bytes output_bytes energy_mj fused") {
		if _, ok := layer[k]; !ok {
			t.Errorf("key layers[].%s is missing", k)
		}
	}
	if r, _ := layer["reason"].(string); r == "" {
		t.Error("a layer has no reason")
	}
	again := ""
	if _, again, _ = triune(t, "predict", "mobilenet_v2", "-d", "iphone-15-pro", "-c", "w8a8", "--json"); again != stdout {
		t.Error("the same command printed other bytes")
	}
}

// run and predict report the same plan and the same simulated times
// (invariant 6), and run writes what it names.
func TestRunReportsWhatPredictSays(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "x.npy"), filepath.Join(dir, "out")
	if err := npy.Save(in, model.NewTensor(model.Float32, 1, 3, 96, 96)); err != nil {
		t.Fatal(err)
	}
	flags := []string{"mobilenet_v2@96", "-d", "iphone-14-pro", "-c", "w8a8", "--pin", "*pool*=cpu", "--json"}
	code, predicted, stderr := triune(t, append([]string{"predict"}, flags...)...)
	if code != 0 {
		t.Fatal(stderr)
	}
	code, ran, stderr := triune(t, append([]string{"run", "--input", "image=" + in, "--output", out}, flags...)...)
	if code != 0 {
		t.Fatal(stderr)
	}
	var a, b map[string]any
	if err := json.Unmarshal([]byte(predicted), &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(ran), &b); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"latency_ms", "energy_mj", "package_bytes", "peak_memory_bytes"} {
		if a[k] != b[k] {
			t.Errorf("%s: predict %v, run %v", k, a[k], b[k])
		}
	}
	for i, l := range a["layers"].([]any) {
		x, y := l.(map[string]any), b["layers"].([]any)[i].(map[string]any)
		if x["unit"] != y["unit"] || x["latency_ms"] != y["latency_ms"] {
			t.Errorf("layer %v: predict %v %v, run %v %v", x["name"], x["unit"], x["latency_ms"], y["unit"], y["latency_ms"])
		}
	}
	y, err := npy.Load(filepath.Join(out, "logits.npy"))
	if err != nil {
		t.Fatal(err)
	}
	if !y.Shape.Equal(model.Shape{1, 1000}) {
		t.Errorf("logits have shape %v", y.Shape)
	}
	files, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	if !slices.Equal(names, []string{"logits.npy", "report.json"}) {
		t.Errorf("output folder holds %v", names)
	}
}

// Several devices, schemes and masks make one table.
func TestPredictTable(t *testing.T) {
	code, stdout, stderr := triune(t, "predict", "mobilenet_v2", "-d", "iphone-14-pro,m4", "-c", "fp16,w8a8", "-u", "all", "-u", "cpu_only")
	if code != 0 {
		t.Fatal(stderr)
	}
	if n := strings.Count(stdout, "\n"); n != 4+8 {
		t.Errorf("%d lines, want a title, a blank, two of head and 8 rows:\n%s", n, stdout)
	}
}

func TestTruncatedONNX(t *testing.T) {
	src := testutil.Shared(t, "fixtures/onnx/squeezenet1_1.onnx")
	data, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(t.TempDir(), "cut.onnx")
	for _, n := range []int{1, 100, 1000, len(data) / 2, len(data) - 1} {
		if err := os.WriteFile(p, data[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := triune(t, "predict", p)
		if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "cut.onnx") {
			t.Errorf("cut at %d of %d: exit %d, %q", n, len(data), code, stderr)
		}
	}
}
