package main

import (
	"encoding/json"
	"os"
	"path/filepath"
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
