package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func writeStudy(t *testing.T, src string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "study.yaml")
	if err := os.WriteFile(p, []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhatif(t *testing.T) {
	p := writeStudy(t, `
question: Does W8A8 pay?
models: [mobilenet_v2]
devices: [iphone-12, iphone-15-pro]
schemes: [fp16, w8a8]
base: {scheme: fp16}
`)
	code, out, errs := triune(t, "whatif", p)
	if code != 0 || errs != "" || !strings.Contains(out, "Does W8A8 pay?") || strings.Count(out, "mobilenet_v2 ") != 4 {
		t.Fatalf("code %d, stderr %q, stdout:\n%s", code, errs, out)
	}
	code, out, errs = triune(t, "whatif", p, "--json")
	var doc struct {
		Rows     []map[string]any `json:"rows"`
		Findings []any            `json:"findings"`
	}
	if err := json.Unmarshal([]byte(out), &doc); code != 0 || errs != "" || err != nil || len(doc.Rows) != 4 || doc.Rows[0]["latency_ms"].(float64) <= 0 {
		t.Fatalf("code %d, stderr %q, %v: %s", code, errs, err, out)
	}
	code, out, _ = triune(t, "whatif", p, "--csv")
	if code != 0 || strings.Count(out, "\n") != 5 || !strings.HasPrefix(out, "config,model,device") {
		t.Fatalf("code %d: %s", code, out)
	}
	dir := filepath.Join(t.TempDir(), "d")
	for _, args := range [][]string{{}, {"--resume"}} {
		code, out, errs = triune(t, append([]string{"whatif", p, "-o", dir, "--format", "csv,json,parquet"}, args...)...)
		if code != 0 || !strings.Contains(out, "4 rows in "+dir) {
			t.Fatalf("code %d, stderr %q, stdout:\n%s", code, errs, out)
		}
	}
	for _, f := range []string{"study.json", "rows.csv", "rows.json", "rows.parquet"} {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestWhatifBadInput(t *testing.T) {
	good := writeStudy(t, "models: [tiny_mlp]\n")
	bad := writeStudy(t, "models: [tiny_mlp]\nset: {ne.speed: 3}\n")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{}, 2, "accepts 1 arg"},
		{[]string{"nothere.yaml"}, 1, "nothere.yaml"},
		{[]string{bad}, 1, "ne.speed"},
		{[]string{good, "--resume"}, 2, "-o DIR"},
		{[]string{good, "--format", "csv"}, 2, "-o DIR"},
		{[]string{good, "-o", "x", "--format", "xls"}, 2, "xls"},
		{[]string{good, "--json", "--csv"}, 2, "exclude"},
		{[]string{good, "--rows", "-1"}, 2, "at least 0"},
	} {
		code, out, errs := triune(t, append([]string{"whatif"}, c.args...)...)
		if code != c.code || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: code %d, stdout %q, stderr %q", c.args, code, out, errs)
		}
	}
}

// Wrong studies: one clear line each, before anything is priced.
func TestWhatifBadStudies(t *testing.T) {
	for text, want := range map[string]string{
		"":                                                        "no models",
		"42":                                                      "mapping is expected",
		"models: [tiny_mlp]\nmodel: x":                            "unknown field \"model\"",
		"models: [tiny_ml]":                                       "did you mean tiny_mlp",
		"models: [missing.onnx]":                                  "missing.onnx",
		"models: [tiny_mlp]\nmodels: [tiny_cnn]":                  "already defined",
		"models: [tiny_mlp]\nschemes: [w7]":                       "unknown scheme \"w7\"",
		"models: [tiny_mlp]\nschemes: [no.yaml]":                  "no.yaml",
		"models: [tiny_mlp]\nunits: [tpu]":                        "tpu",
		"models: [tiny_mlp]\npolicies: [best]":                    "best",
		"models: [tiny_mlp]\nbatch: [0]":                          "batch 0",
		"models: [tiny_mlp]\nbatch: [many]":                       "string where int is wanted",
		"models: [tiny_mlp]\npins: [conv]":                        "PATTERN=UNIT",
		"models: [tiny_mlp]\nset: {dram_gbs: {}}":                 "a mapping (want a number",
		"models: [tiny_mlp]\nset: {dram_gbs: }":                   "no value (want a number",
		"models: [tiny_mlp]\nset: {dram_gbs: 1..5}":               "has no count",
		"models: [tiny_mlp]\nset: {dram_gbs: 5..1 3}":             "low end is above",
		"models: [tiny_mlp]\nwhere: latency_ms <":                 "expected operand",
		"models: [tiny_mlp]\nwhere: latency_ms":                   "want a truth value",
		"models: [tiny_mlp]\ncolumns: {a b: 3}":                   "letters, digits and _",
		"models: [tiny_mlp]\noutputs: [lat]":                      "no column \"lat\"",
		"models: [tiny_mlp]\nsample: {method: halton, n: 3}":      "random or sobol",
		"models: [tiny_mlp]\nanalyses: [{}]":                      "0 kinds",
		"models: [tiny_mlp]\nanalyses: [{pivot: {rows: device}}]": "wants rows, columns and value",
		"models: [tiny_mlp]\nanalyses: [{pareto: {minimise: [beauty, energy_mj]}}]":                       "no column \"beauty\"",
		"models: [tiny_mlp]\nanalyses: [{budget: {}}]":                                                    "no limit",
		"models: [tiny_mlp]\nanalyses: [{sensitivity: {metric: beauty}}]":                                 "no figure \"beauty\"",
		"models: [tiny_mlp]\nanalyses: [{break_even: {parameter: ne.x}}]":                                 "ne.x",
		"models: [tiny_mlp]\nanalyses: [{fleet: {}}]":                                                     "0 members",
		"models: [tiny_mlp]\nanalyses: [{mixed: {schemes: [fp16]}}]":                                      "want 2 to 16",
		"models: [tiny_mlp]\nanalyses: [{mixed: {samples: 0}}]":                                           "samples 0",
		"models: [tiny_mlp]\nanalyses: [{mixed: {floor_snr_db: .nan}}]":                                   "floor_snr_db NaN",
		"models: [tiny_mlp]\nset: {dram_gbs: 1..2 999999, slc_mb: 1..2 999999, ne.store_mb: 1..2 999999}": "more than 1099511627776",
		"a: &a [*a, *a]\nmodels: *a":                                                                      "study:",
	} {
		code, out, errs := triune(t, "whatif", writeStudy(t, text+"\n"), "-q")
		if code != 1 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: code %d, stdout %q, stderr %q, want %q", text, code, out, errs, want)
		}
	}
	// Where nothing has a plan, the rows say so and the exit code too.
	for _, f := range []string{"", "--csv", "--json"} {
		args := append([]string{"whatif", writeStudy(t, "models: [tiny_mlp]\npins: [nothing=cpu]\nunits: [all, cpu_only]\n"), "-q"}, strings.Fields(f)...)
		code, out, errs := triune(t, args...)
		if code != 1 || out == "" || !strings.Contains(errs, "none of the 2 configurations has a plan: scheduler: pin pattern") {
			t.Errorf("%s: code %d, stdout %q, stderr %q", f, code, out, errs)
		}
	}
}

// A search for mixed precision ends in a scheme that compress takes, and the
// package has the size that the search told.
func TestWhatifMixed(t *testing.T) {
	p := writeStudy(t, `
models: [tiny_cnn]
devices: [iphone-15-pro]
analyses: [{mixed: {schemes: [fp16, w8, w4], floor_snr_db: 20}}]
`)
	dir := filepath.Join(t.TempDir(), "d")
	code, out, errs := triune(t, "whatif", p, "-o", dir, "-q")
	if code != 0 {
		t.Fatalf("code %d: %s", code, errs)
	}
	if !strings.Contains(out, "the cheapest at or above 20 dB has package_bytes") {
		t.Fatalf("no answer in\n%s", out)
	}
	scheme := filepath.Join(dir, "scheme-1.yaml")
	y, err := os.ReadFile(scheme)
	if err != nil {
		t.Fatal(err)
	}
	var want float64
	var db float64
	if _, err := fmt.Sscanf(string(y), "# package_bytes %g at %g dB", &want, &db); err != nil || db < 20 {
		t.Fatalf("%v in %s", err, y)
	}
	code, out, errs = triune(t, "predict", "tiny_cnn", "-d", "iphone-15-pro", "-c", scheme, "--json")
	var pr struct {
		PackageBytes float64 `json:"package_bytes"`
	}
	if err := json.Unmarshal([]byte(out), &pr); code != 0 || err != nil || pr.PackageBytes != want {
		t.Errorf("code %d, %v, %s: %v bytes, the search says %v", code, err, errs, pr.PackageBytes, want)
	}
	if code, _, errs = triune(t, "compress", "tiny_cnn", "-c", scheme, "-o", filepath.Join(dir, "n.mlpackage")); code != 0 {
		t.Errorf("compress: %s", errs)
	}
}

// Fronts and sensitivities are drawn on request.
func TestWhatifPlots(t *testing.T) {
	p := writeStudy(t, `
models: [mobilenet_v2]
schemes: [fp16, w8, w8a8, w4]
analyses:
  - pareto: {minimise: [latency_ms, package_bytes]}
  - sensitivity: {top: 5}
  - budget: {max: {latency_ms: 3}}
`)
	for ext, magic := range map[string]string{"svg": "<?xml", "png": "\x89PNG"} {
		dir := filepath.Join(t.TempDir(), ext)
		if code, _, errs := triune(t, "whatif", p, "-o", dir, "--plots", ext, "-q"); code != 0 {
			t.Fatal(errs)
		}
		for _, n := range []string{"finding-1.", "finding-2."} {
			if b, err := os.ReadFile(filepath.Join(dir, n+ext)); err != nil || !strings.HasPrefix(string(b), magic) {
				t.Errorf("%s%s: %v", n, ext, err)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "finding-3."+ext)); err == nil {
			t.Error("a budget was drawn")
		}
	}
	if code, out, errs := triune(t, "whatif", p, "--plots", "gif"); code != 2 || out != "" || !strings.Contains(errs, "svg or png") {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
}
