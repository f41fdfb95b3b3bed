package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triune-sim/triune/compare"
	"github.com/triune-sim/triune/internal/npy"
	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
)

// batchFile writes n made-up images for the Fashion-MNIST networks.
func batchFile(t *testing.T, dir string, n int) {
	t.Helper()
	x := model.NewTensor(model.Float32, n, 1, 28, 28)
	for i := range x.Len() {
		x.Set(i, float64(i*7919%256)/255)
	}
	if err := npy.Save(filepath.Join(dir, "x.npy"), x); err != nil {
		t.Fatal(err)
	}
}

func TestCompareJSON(t *testing.T) {
	netFile := filepath.Join(testutil.Root(t), "bench", "accuracy", "nets", "fashion_resnet.onnx")
	data := t.TempDir()
	batchFile(t, data, 6)
	labels := filepath.Join(t.TempDir(), "labels.txt")
	if err := os.WriteFile(labels, []byte("0\n1\n2\n3\n4\n5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var first string
	for _, threads := range []int{1, 2} {
		code, out, errs := triune(t, "compare", netFile, "-c", "w8a8", "-u", "cpu_and_ne", "--data", data, "--labels", labels,
			"--calibrate", data, "--layers", "3", "--json", "--threads", fmt.Sprint(threads))
		if code != 0 || errs != "" {
			t.Fatalf("code %d: %s", code, errs)
		}
		if first == "" {
			first = out
		} else if out != first {
			t.Errorf("threads changed the document")
		}
		var r struct {
			Samples  int
			Layers   []map[string]any
			Accuracy *compare.Share `json:"top1_accuracy"`
			Outputs  []struct {
				SNR float64 `json:"snr_db"`
			}
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if r.Samples != 6 || len(r.Layers) != 3 || r.Accuracy == nil || r.Outputs[0].SNR < 15 {
			t.Errorf("document %s", out)
		}
	}
	// Several schemes are a table; each has its row.
	code, out, errs := triune(t, "compare", netFile, "-c", "fp16,w4", "--layers", "0")
	if code != 0 || !strings.Contains(out, "\nfp16 ") || !strings.Contains(out, "\nw4 ") || !strings.Contains(out, "random") {
		t.Errorf("code %d, %s%s", code, out, errs)
	}
}

// A threshold of 0 compresses the small weights too, which costs accuracy.
func TestCompareThreshold(t *testing.T) {
	netFile := filepath.Join(testutil.Root(t), "bench", "accuracy", "nets", "fashion_mobilenet_v2.onnx")
	snr := func(args ...string) float64 {
		code, out, errs := triune(t, append([]string{"compare", netFile, "-c", "w8-tensor", "--layers", "0", "--json"}, args...)...)
		if code != 0 {
			t.Fatal(errs)
		}
		var r struct {
			Outputs []struct {
				SNR float64 `json:"snr_db"`
			}
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		return r.Outputs[0].SNR
	}
	if a, b := snr(), snr("--weight-threshold", "0"); a < b+10 {
		t.Errorf("SNR is %g dB, and %g with all weights compressed", a, b)
	}
}

func TestCompareBadInput(t *testing.T) {
	netFile := filepath.Join(testutil.Root(t), "bench", "accuracy", "nets", "fashion_resnet.onnx")
	dir, empty, corrupt := t.TempDir(), t.TempDir(), t.TempDir()
	batchFile(t, dir, 2)
	short := filepath.Join(empty, ".labels")
	if err := os.WriteFile(short, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	words := filepath.Join(empty, ".words")
	if err := os.WriteFile(words, []byte("cat\ndog\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(corrupt, "a.png"), []byte("no image"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--labels " + short, 2, "--data"},
		{"--data " + dir + " --labels " + short, 1, "1 labels for 2 samples"},
		{"--data " + dir + " --labels " + words, 1, `"cat"`},
		{"--data " + empty, 1, "holds no"},
		{"--data " + corrupt, 1, "a.png"},
		{"-c w8a8 --data " + dir + " --calibrate " + empty, 1, "holds no"},
		{"-c w8a8 --calibration best", 2, "best"},
		{"--weight-threshold -1", 2, "weight"},
		{"--random 0", 2, "--random"},
		{"--output nothing", 1, "nothing"},
		{"--reference nothere.onnx", 1, "nothere.onnx"},
		{"-c w9", 2, "w9"},
	} {
		code, out, errs := triune(t, append([]string{"compare", netFile}, strings.Fields(c.args)...)...)
		if code != c.code || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("compare %s: code %d, want %d with %q in one line; stdout %q stderr %q", c.args, code, c.code, c.want, out, errs)
		}
	}
}

// Weights that are not finite, a channel of zeros, bad calibration data: a
// clear error or a stated skip, and nothing half-written.
func TestBadDataIsStated(t *testing.T) {
	netFile := filepath.Join(testutil.Root(t), "bench", "accuracy", "nets", "fashion_resnet.onnx")
	dir := t.TempDir()
	spoil := func(name string, change func(w []float32)) string {
		g, err := onnx.Load(netFile, onnx.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range g.Consts() {
			if v.Name == "block2.conv2.weight" {
				w, err := v.Const.Value()
				if err != nil {
					t.Fatal(err)
				}
				w = w.Clone()
				change(model.View[float32](w))
				v.Const = model.NewConst(w)
			}
		}
		p := filepath.Join(dir, name)
		if err := onnx.Save(p, g); err != nil {
			t.Fatal(err)
		}
		return p
	}
	nan := spoil("nan.onnx", func(w []float32) { w[100] = float32(math.NaN()) })
	inf := spoil("inf.onnx", func(w []float32) { w[5] = float32(math.Inf(-1)) })
	zero := spoil("zero.onnx", func(w []float32) { clear(w[:32*9]) })
	for _, scheme := range []string{"w8", "w4b32", "p4", "s50", "p4+w8"} {
		for file, at := range map[string]string{nan: "[0,11,0,1] is NaN", inf: "[0,0,1,2] is -Inf"} {
			out := filepath.Join(dir, "out.mlpackage")
			want := `note: constant "block2.conv2.weight" (Conv "block2.conv2") is not finite: element ` + at
			code, stdout, errs := triune(t, "compress", file, "-c", scheme, "-o", out)
			if code != 0 || !strings.Contains(stdout, want) || !strings.Contains(stdout, "bytes: not finite\n") {
				t.Errorf("%s of %s: code %d, %s%s; want %q stated", scheme, filepath.Base(file), code, stdout, errs, want)
			}
			os.RemoveAll(out)
		}
		// A channel of zeros is compressed, and stays zero.
		code, stdout, errs := triune(t, "compare", zero, "-c", scheme, "--json")
		if code != 0 || strings.Contains(stdout, `"non_finite": 1`) {
			t.Errorf("%s of a channel of zeros: code %d %s", scheme, code, errs)
		}
	}
	// What such weights do is counted, not hidden.
	code, stdout, errs := triune(t, "compare", nan, "-c", "w8", "--reference", netFile, "--json")
	if code != 0 || !strings.Contains(stdout, `"non_finite": 40`) {
		t.Errorf("NaN weight against the sound network: code %d %s%s", code, stdout, errs)
	}
	bad, empty, none, nans := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "a.png"), []byte("no image"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := npy.Save(filepath.Join(none, "a.npy"), model.NewTensor(model.Float32, 0, 1, 28, 28)); err != nil {
		t.Fatal(err)
	}
	x := model.NewTensor(model.Float32, 1, 1, 28, 28)
	x.Set(9, math.NaN())
	if err := npy.Save(filepath.Join(nans, "a.npy"), x); err != nil {
		t.Fatal(err)
	}
	for _, ext := range []string{".mlpackage", ".onnx"} {
		for samples, want := range map[string]string{bad: "a.png", empty: "holds no", none: "holds no sample", nans: "not finite"} {
			out := filepath.Join(empty, "out"+ext)
			code, _, errs := triune(t, "compress", netFile, "-c", "w8a8", "--calibrate", samples, "-o", out)
			entries, _ := os.ReadDir(empty)
			if code != 1 || !strings.Contains(errs, want) || len(entries) != 0 {
				t.Errorf("calibrating on %s: code %d, %q, left %v", samples, code, errs, entries)
			}
		}
	}
}

// What ONNX cannot express is said: a palette in a .onnx file is as large as
// its values.
func TestCompressToONNX(t *testing.T) {
	netFile := filepath.Join(testutil.Root(t), "bench", "accuracy", "nets", "fashion_resnet.onnx")
	for scheme, note := range map[string]bool{"p4": true, "s50": true, "s50+w8": true, "w8": false, "w4b32": false} {
		for _, ext := range []string{".onnx", ".mlpackage"} {
			code, stdout, errs := triune(t, "compress", netFile, "-c", scheme, "-o", filepath.Join(t.TempDir(), "out"+ext))
			if code != 0 || strings.Contains(stdout, "ONNX has no palettes") != (note && ext == ".onnx") {
				t.Errorf("%s to %s: code %d, %s%s", scheme, ext, code, stdout, errs)
			}
		}
	}
}
