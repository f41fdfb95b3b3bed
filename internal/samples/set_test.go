package samples

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triune-sim/triune/internal/npy"
	"github.com/triune-sim/triune/model"
)

// Open gives what Load gives, sample by sample, for every kind of file.
func TestSetIsLoad(t *testing.T) {
	dir := t.TempDir()
	in := []*model.Value{{Name: "x", DType: model.Float32, Shape: model.Shape{1, 1, 4, 4}}}
	batch := model.NewTensor(model.Float32, 3, 1, 4, 4)
	for i := range batch.Len() {
		batch.Set(i, float64(i))
	}
	if err := npy.Save(filepath.Join(dir, "b.npy"), batch); err != nil {
		t.Fatal(err)
	}
	img := image.NewGray(image.Rect(0, 0, 8, 8))
	img.SetGray(3, 3, color.Gray{Y: 200})
	f, err := os.Create(filepath.Join(dir, "a.png"))
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(f, img); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := npy.Save(filepath.Join(dir, "c", "x.npy"), model.NewTensor(model.Float32, 1, 1, 4, 4)); err != nil {
		t.Fatal(err)
	}
	for limit := range 6 {
		want, err := Load(dir, in, Preprocess{}, limit)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, in, Preprocess{}, limit)
		if err != nil {
			t.Fatal(err)
		}
		if s.Len() != len(want) {
			t.Fatalf("limit %d: %d samples, Load has %d", limit, s.Len(), len(want))
		}
		for i := range want {
			got, err := s.Sample(i)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want[i], got); d != "" {
				t.Errorf("limit %d, sample %d: %s", limit, i, d)
			}
		}
	}
}

// A corrupt image is an error that names the file, when it is read.
func TestSetCorrupt(t *testing.T) {
	dir := t.TempDir()
	in := []*model.Value{{Name: "x", DType: model.Float32, Shape: model.Shape{1, 1, 4, 4}}}
	if err := os.WriteFile(filepath.Join(dir, "bad.png"), []byte("\x89PNG\r\n\x1a\nnothing"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, in, Preprocess{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sample(0); err == nil || !strings.Contains(err.Error(), "bad.png") {
		t.Errorf("error %v, want one that names bad.png", err)
	}
	if _, err := Open(t.TempDir(), in, Preprocess{}, 0); err == nil {
		t.Error("an empty folder was opened")
	}
}
