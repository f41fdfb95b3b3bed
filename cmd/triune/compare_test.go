package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triune-sim/triune/compare"
	"github.com/triune-sim/triune/internal/npy"
	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
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
