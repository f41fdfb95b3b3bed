package samples

import (
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triune-sim/triune/internal/npy"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
)

func input(shape ...int) []*model.Value {
	return []*model.Value{{Name: "x", DType: model.Float32, Shape: shape}}
}

func TestLoadSplitsBatches(t *testing.T) {
	dir := t.TempDir()
	a := model.Of([]float32{1, 2, 3, 4}, 2, 2)
	if err := npy.Save(filepath.Join(dir, "a.npy"), a); err != nil {
		t.Fatal(err)
	}
	s, err := Load(dir, input(1, 2), Preprocess{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(s) != 2 || s[1]["x"].At(0) != 3 {
		t.Errorf("samples %v", s)
	}
	if s, err = Load(dir, input(1, 2), Preprocess{}, 1); err != nil || len(s) != 1 {
		t.Errorf("limit: %d samples, %v", len(s), err)
	}
	none := t.TempDir()
	if err := npy.Save(filepath.Join(none, "a.npy"), model.NewTensor(model.Float32, 0, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err = Load(none, input(1, 2), Preprocess{}, 0); err == nil || !strings.Contains(err.Error(), "[0,2] holds no sample") {
		t.Errorf("no sample: %v", err)
	}
	if _, err = Load(dir, input(1, 3), Preprocess{}, 0); err == nil || !strings.Contains(err.Error(), "a.npy") {
		t.Errorf("wrong shape: %v", err)
	}
}

func TestImage(t *testing.T) {
	dir := t.TempDir()
	img := image.NewNRGBA(image.Rect(0, 0, 8, 8))
	for i := range 64 {
		img.Set(i%8, i/8, color.NRGBA{255, 0, 51, 255})
	}
	p := filepath.Join(dir, "a.png")
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(f, img); err != nil {
		t.Fatal(err)
	}
	f.Close()
	x, err := Image(p, input(1, 3, 4, 4)[0], Preprocess{Mean: []float64{0.5}, Std: []float64{0.25}})
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range []float64{2, -2, -1.2} {
		if got := x.At(c*16 + 5); math.Abs(got-want) > 1e-6 {
			t.Errorf("channel %d: %v, want %v", c, got, want)
		}
	}
	// An image input of a Core ML model takes the pixels.
	g := &model.Graph{Meta: map[string]string{coreml.MetaImage + "x": "BGR 4x4", coreml.MetaImage + "y": "RGB 4x4"}}
	for name, want := range map[string][3]float64{"x": {51, 0, 255}, "y": {255, 0, 51}} {
		if x, err = Image(p, input(1, 3, 4, 4)[0], Preprocess{}.For(g, name)); err != nil {
			t.Fatal(err)
		}
		for c := range 3 {
			if got := x.At(c*16 + 5); got != want[c] {
				t.Errorf("%s, channel %d: %v, want %v", g.Meta[coreml.MetaImage+name], c, got, want[c])
			}
		}
	}
	if x, err = Image(p, input(1, 3, 4, 4)[0], Preprocess{Mean: []float64{0}, Std: []float64{1}}.For(g, "y")); err != nil || x.At(5) != 1 {
		t.Errorf("--mean 0 --std 1: %v, %v", x.At(5), err)
	}
	bad := filepath.Join(dir, "b.png")
	if err := os.WriteFile(bad, []byte("\x89PNG\r\n\x1a\nrubbish"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, input(1, 3, 4, 4), Preprocess{}, 0); err == nil || !strings.Contains(err.Error(), "b.png") {
		t.Errorf("corrupt image: %v", err)
	}
}

func TestLabels(t *testing.T) {
	p := filepath.Join(t.TempDir(), "l.txt")
	for _, c := range []struct {
		text string
		n    int
		want string
	}{{"1\n2\n3\n", 3, ""}, {"1\n2\n", 3, "2 labels for 3 samples"}, {"1\nx\n", 2, "entry 2"}, {"1\n2x\n", 2, `entry 2 is "2x"`}, {"-1\n", 1, "entry 1"}} {
		if err := os.WriteFile(p, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Labels(p, c.n)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

func TestEmptyFolder(t *testing.T) {
	if _, err := Load(t.TempDir(), input(1, 2), Preprocess{}, 0); err == nil || !strings.Contains(err.Error(), "holds no") {
		t.Errorf("error %v", err)
	}
}
