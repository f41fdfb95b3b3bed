package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The documents of one prediction: page, trace, plot and Markdown.
func TestPredictReports(t *testing.T) {
	dir := t.TempDir()
	html, trace, plot := filepath.Join(dir, "r.html"), filepath.Join(dir, "r.json"), filepath.Join(dir, "r.svg")
	code, out, errs := triune(t, "predict", "resnet50", "-d", "iphone-15-pro", "-c", "w8a8", "--html", html, "--trace", trace, "--plot", plot, "--md")
	if code != 0 || errs != "" || !strings.HasPrefix(out, "### resnet50") {
		t.Fatalf("code %d, stderr %q, stdout:\n%s", code, errs, out)
	}
	b, err := os.ReadFile(html)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 1e6 {
		t.Errorf("the page has %d bytes; want less than 1 MB", len(b))
	}
	h := string(b)
	for _, want := range []string{"triune predict resnet50 -d iphone-15-pro -c w8a8 -u all", "Published measurements", "layer4.2.conv3", "Activation memory over time", "Roofline"} {
		if !strings.Contains(h, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	for _, bad := range []string{"http:", "https:", "src="} {
		if strings.Contains(h, bad) {
			t.Errorf("%q in the page", bad)
		}
	}
	b, err = os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		TraceEvents []map[string]any `json:"traceEvents"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || len(doc.TraceEvents) < 50 {
		t.Errorf("trace: %v, %d events", err, len(doc.TraceEvents))
	}
	if b, err = os.ReadFile(plot); err != nil || !strings.Contains(string(b), "<svg") {
		t.Errorf("plot: %v", err)
	}
	for args, want := range map[string]string{
		"-c fp16,w8 --html " + html + "x": "one configuration",
		"--plot x.gif":                    ".png",
		"--md --json":                     "exclude",
	} {
		code, out, errs := triune(t, append([]string{"predict", "tiny_mlp"}, strings.Fields(args)...)...)
		if code != 2 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: code %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"resnet50": "resnet50", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "ne.x=x1.5": "ne.x=x1.5", "*=cpu": "'*=cpu'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
