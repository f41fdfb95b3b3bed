package accuracy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// provenance is what train.py leaves beside the networks.
type provenance struct {
	Script   string `json:"script_sha256"`
	Date     string `json:"date"`
	Versions map[string]string
	Seeds    map[string]int
	Images   struct{ Training, Validation, Test int }
	Networks map[string]struct {
		FP32       stageFacts `json:"fp32"`
		FineTuning []struct {
			stageFacts
			Chosen bool `json:"chosen"`
		} `json:"fine_tuning"`
		W8A8 stageFacts `json:"w8a8"`
	}
	Files map[string]string `json:"files_sha256"`
}

type stageFacts struct {
	ByEpoch          []float64 `json:"validation_by_epoch"` // percent
	ChosenEpoch      int       `json:"chosen_epoch"`        // from 1
	Validation, Test float64   // percent
}

// choice checks that the epoch is the last of those with the best validation
// accuracy, which it returns.
func (s stageFacts) choice(t *testing.T, what string) float64 {
	t.Helper()
	best := 0
	for i, v := range s.ByEpoch {
		if v >= s.ByEpoch[best] {
			best = i
		}
	}
	if len(s.ByEpoch) == 0 || s.ChosenEpoch != best+1 {
		t.Fatalf("%s: epoch %d was chosen of %v", what, s.ChosenEpoch, s.ByEpoch)
	}
	return s.ByEpoch[best]
}

func readProvenance(t *testing.T) provenance {
	t.Helper()
	data, err := os.ReadFile("nets/provenance.json")
	if err != nil {
		t.Fatal(err)
	}
	var p provenance
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// The committed networks are those that the committed script made, and it chose
// everything by the validation images.
func TestProvenance(t *testing.T) {
	p := readProvenance(t)
	hash := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.Sum256(data)
		return hex.EncodeToString(h[:])
	}
	if h := hash("train/train.py"); h != p.Script {
		t.Errorf("train.py has the hash %s, the networks were made by %s: train again, or take the change back", h, p.Script)
	}
	paths, err := filepath.Glob("nets/*.onnx")
	if err != nil || len(paths) != len(p.Files) {
		t.Errorf("%d networks, %d are known", len(paths), len(p.Files))
	}
	for _, path := range paths {
		if h := hash(path); h != p.Files[filepath.Base(path)] {
			t.Errorf("%s is not the file that train.py wrote", path)
		}
	}
	if p.Images.Training+p.Images.Validation != 60000 || p.Images.Validation != 5000 || p.Images.Test != 10000 {
		t.Errorf("images %+v, want 55,000, 5,000 and 10,000", p.Images)
	}
	for _, name := range names {
		n, ok := p.Networks[name]
		if !ok {
			t.Errorf("nothing is known of %s", name)
			continue
		}
		if v := n.FP32.choice(t, name); v != n.FP32.Validation {
			t.Errorf("%s: the fp32 network has %g %% of the validation images, the chosen epoch %g", name, n.FP32.Validation, v)
		}
		best, chosen := -1.0, -1.0
		for _, f := range n.FineTuning {
			v := f.choice(t, name)
			best = max(best, v)
			if f.Chosen {
				chosen = v
			}
		}
		if chosen != best || chosen != n.W8A8.Validation {
			t.Errorf("%s: fine-tuning with %g %% of the validation images was chosen, the best has %g, the network %g", name, chosen, best, n.W8A8.Validation)
		}
	}
}

// Triune measures the accuracy that PyTorch measured at the end of training:
// the same for fp32, and nearly so for the trained W8A8 networks, whose codes
// may fall the other way at a tie.
func TestAccuracyOfTraining(t *testing.T) {
	if testing.Short() {
		t.Skip("runs four networks on 10,000 images")
	}
	p := readProvenance(t)
	r, err := Measure(context.Background(), Options{Networks: images(t, 0), Schemes: []string{"w8a8 trained"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Rows {
		want, within := p.Networks[row.Network].FP32.Test, 0.02
		if row.Scheme != "fp32" {
			want, within = p.Networks[row.Network].W8A8.Test, 0.2
		}
		if math.Abs(row.Top1.Percent-want) > within {
			t.Errorf("%s %s: %.2f %%, PyTorch measured %.2f", row.Network, row.Scheme, row.Top1.Percent, want)
		}
	}
}
