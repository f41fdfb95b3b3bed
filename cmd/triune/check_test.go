package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/triune-sim/triune/result"
)

func TestParseBudget(t *testing.T) {
	for in, want := range map[string]budgetItem{
		"latency=8ms": {"latency", "ms", 8}, "8ms": {"latency", "ms", 8}, "8": {"latency", "ms", 8}, "p90=0.5s": {"p90", "ms", 500}, "load=250us": {"load", "ms", 0.25},
		"size=20MB": {"size", "bytes", 20e6}, "memory=1GiB": {"memory", "bytes", 1 << 30}, "size = 500 kB": {"size", "bytes", 5e5}, "energy=2J": {"energy", "mJ", 2000},
	} {
		got, err := parseBudget([]string{in})
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, bad := range [][]string{nil, {""}, {"latency="}, {"latency=fast"}, {"speed=3"}, {"size=20"}, {"size=20ms"}, {"latency=-1ms"}, {"latency=0ms"}, {"latency=NaN"}, {"latency=1e999ms"}, {"8ms", "latency=9ms"}} {
		if _, err := parseBudget(bad); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A budget equal to the figure holds; one just below does not.
func TestJudge(t *testing.T) {
	p := &result.Prediction{Model: "m", LatencyMS: 8, PackageBytes: 100}
	r := judge([]*result.Prediction{p}, []budgetItem{{"latency", "ms", 8}, {"size", "bytes", 99}})
	if r.OK || !r.Verdicts[0].OK || r.Verdicts[0].MarginPct != 0 || r.Verdicts[1].OK || r.Verdicts[1].MarginPct >= 0 {
		t.Errorf("%+v", r)
	}
}

func TestCheck(t *testing.T) {
	sum := filepath.Join(t.TempDir(), "summary.md")
	code, out, errs := triune(t, "check", "mobilenet_v2", "-d", "iphone-13,iphone-15-pro", "-c", "w8", "--budget", "latency=1s,size=20MB,memory=200MB", "--summary", sum)
	if code != 0 || errs != "" || !strings.Contains(out, "within its budget") || strings.Count(out, "\n| iphone") != 6 {
		t.Fatalf("code %d, stderr %q, stdout:\n%s", code, errs, out)
	}
	if b, err := os.ReadFile(sum); err != nil || string(b) != out {
		t.Errorf("summary: %v\n%s", err, b)
	}
	code, out, errs = triune(t, "check", "mobilenet_v2", "--budget", "latency=1us,size=20MB", "--json")
	var r checkResult
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 1 || errs != "" || r.OK || len(r.Verdicts) != 2 || r.Verdicts[0].OK || !r.Verdicts[1].OK {
		t.Errorf("code %d, stderr %q, %v: %s", code, errs, err, out)
	}
	for args, want := range map[string]string{
		"mobilenet_v2":                      "wants a budget",
		"mobilenet_v2 --budget speed=3":     "speed",
		"mobilenet_v2 --budget 8ms -d none": "none",
	} {
		code, out, errs := triune(t, append([]string{"check"}, strings.Fields(args)...)...)
		if code != 2 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: code %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
}

// The command of the GitHub Actions example runs as written.
func TestActionsExample(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "examples", "github-actions", "model-budget.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Env  map[string]string `yaml:"env"`
		Jobs map[string]struct {
			Steps []struct {
				Run string `yaml:"run"`
			} `yaml:"steps"`
		} `yaml:"jobs"`
	}
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	ran := false
	for _, s := range doc.Jobs["budget"].Steps {
		if !strings.HasPrefix(s.Run, "triune check") {
			continue
		}
		sum := filepath.Join(t.TempDir(), "summary.md")
		cmd := strings.NewReplacer("\\\n", " ", `"$MODEL"`, doc.Env["MODEL"], `"$GITHUB_STEP_SUMMARY"`, sum).Replace(s.Run)
		code, out, errs := triune(t, strings.Fields(cmd)[1:]...)
		if code != 0 || errs != "" || !strings.Contains(out, "within its budget") {
			t.Errorf("code %d, stderr %q, stdout:\n%s", code, errs, out)
		}
		if _, err := os.Stat(sum); err != nil {
			t.Error(err)
		}
		ran = true
	}
	if !ran {
		t.Error("the example has no triune check")
	}
}
