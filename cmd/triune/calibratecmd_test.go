package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// calibrate refits and accounts for every row that it is given.
func TestCalibrate(t *testing.T) {
	p := filepath.Join(t.TempDir(), "mine.csv")
	csv := "device,model,precision,compute_units,latency_ms\niPhone 14 Pro,ResNet50,fp16,all,1.52\niPhone 14 Pro,MobileNetV2-1.0,fp16,all,0.48\n"
	if err := os.WriteFile(p, []byte(csv), 0o644); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := triune(t, "calibrate", p, "--evaluations", "50", "--json")
	if code != 0 {
		t.Fatal(stderr)
	}
	var doc struct {
		Residuals []struct {
			MeasuredMS  float64 `json:"measured_ms"`
			PredictedMS float64 `json:"predicted_ms"`
		} `json:"residuals"`
	}
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Residuals) != 2 || doc.Residuals[0].MeasuredMS != 1.52 || !(doc.Residuals[0].PredictedMS > 0) {
		t.Errorf("residuals %+v", doc.Residuals)
	}
	for _, bad := range []string{"", "device,model\n", csv + "iPhone 14 Pro,ResNet50,fp16,all,-3\n"} {
		if err := os.WriteFile(p, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := triune(t, "calibrate", p); code != 1 || stderr == "" {
			t.Errorf("%q: exit %d, %q", bad, code, stderr)
		}
	}
}

// Rows of one chip are someone's own: the figures that other chips share stay,
// leaving out says what it cannot do, and a slip of the unit is pointed out.
func TestCalibrateOwn(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "mine.txt")
	if err := os.WriteFile(p, []byte("resnet50 fp16 all 2.1 ms\nmobilenet_v2 w8a8 cpu_and_ne 900000\nskynet fp16 all 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := triune(t, "calibrate", p, "--from-coreml-report", "-d", "iphone-13", "--evaluations", "100", "--leave-out", "--write", filepath.Join(dir, "data"))
	if code != 0 {
		t.Fatal(stderr)
	}
	for _, want := range []string{"a15:ne.floor_ms", "leaving each network out", "triune predict MODEL -d iphone-13 --set ne.floor_ms="} {
		if !strings.Contains(stdout, want) {
			t.Errorf("standard output lacks %q:\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout, "base:") {
		t.Errorf("what chips share moves:\n%s", stdout)
	}
	for _, want := range []string{"line 2: mobilenet_v2 measured 900000", "line 3", "all rows are of one chip"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("standard error lacks %q:\n%s", want, stderr)
		}
	}
	var files []string
	if err := filepath.WalkDir(filepath.Join(dir, "data"), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, filepath.Base(p))
		}
		return err
	}); err != nil || len(files) != 1 || files[0] != "a15.yaml" {
		t.Errorf("files written: %v, %v; want a15.yaml alone", files, err)
	}
}
