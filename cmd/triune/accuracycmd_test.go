package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/triune-sim/triune/bench/accuracy"
)

func TestBenchAccuracyBadInput(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--data " + empty, 1, "no t10k-images-idx3-ubyte"},
		{"--images -1", 2, "--images"},
		{"--calibration-images 0", 2, "--calibration-images"},
		{"-c w9", 2, "w9"},
		{"more", 2, `unknown command "more"`},
	} {
		code, out, errs := triune(t, append([]string{"bench", "accuracy"}, strings.Fields(c.args)...)...)
		if code != c.code || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: code %d, want %d with %q in one line; stdout %q stderr %q", c.args, code, c.code, c.want, out, errs)
		}
	}
}

func TestBenchAccuracyJSON(t *testing.T) {
	if _, err := os.Stat(accuracy.DefaultData); err != nil {
		t.Skipf("needs Debian's package dataset-fashion-mnist: %v", err)
	}
	code, out, errs := triune(t, "bench", "accuracy", "--network", "fashion_resnet", "--images", "50", "-c", "w8", "--json")
	if code != 0 || errs != "" {
		t.Fatalf("code %d: %s", code, errs)
	}
	var r struct {
		Rows []struct {
			Scheme string
			Top1   struct {
				Percent float64
				Samples int
			}
		}
		Statements []struct{ Verdict string }
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 2 || r.Rows[1].Scheme != "w8" || r.Rows[1].Top1.Samples != 50 || r.Rows[1].Top1.Percent < 80 || len(r.Statements) != 1 || r.Statements[0].Verdict != "holds" {
		t.Errorf("document %s", out)
	}
}
