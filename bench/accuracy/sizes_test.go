package accuracy

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/quant"
)

// sizeSchemes are all forms a weight can take: every kind of linear
// quantisation, palette and pruning that a scheme can name, activations, and
// joint forms.
func sizeSchemes() []string {
	names := []string{"fp32", "fp16", "a8", "a8-lin", "a8-ptq", "w8a8", "w8a8-ptq", "w8+a8-ptq", "w4a8", "p4a8", "s50a8",
		"p-unique", "s50", "s75", "s100", "s50b4", "s2:4", "s3:4",
		"s50+w8", "s50+u8-lin", "s50+w4b16", "s50+p4", "s50+p4+w8", "s50b2+p2v2", "s50+p4-scale", "p4+w8", "p4g8+w8", "p2v2+w8", "p4-scale+w8",
		"p2v2+s50b2", "p6+s50", "w8+p4", "w8+p4g8", "w8+p2v2", "w4b16+p4", "w8+s50", "w8+s50+p4", "u8-lin+p4+s50"}
	for _, d := range []string{"w8", "u8", "w4", "u4"} {
		for _, g := range []string{"", "-tensor", "b16"} {
			names = append(names, d+g, d+g+"-lin")
		}
	}
	for _, b := range []string{"p8", "p6", "p4", "p3", "p2", "p1"} {
		names = append(names, b, b+"-uniform")
	}
	return append(names, "p4g8", "p3g8-uniform", "p6-scale", "p2v2", "p2v4", "p2g8v2", "p4g8-scale", "p2v2-scale", "p2g8v2-scale")
}

// The size that is computed is the number of bytes that are written, for every
// scheme and both formats, and what a prediction says before any value is
// known is within the few bytes that values decide.
func TestSizesAreBytesWritten(t *testing.T) {
	nets, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	fold, err := compile.Fold(nets[0].Graph)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, threshold := range []int{0, quant.WeightThreshold} {
		names := sizeSchemes()
		if threshold > 0 { // some weights stay float
			names = []string{"w8", "u4", "w4b32", "w8a8", "p2", "s50+w8"}
		}
		for _, name := range names {
			s, err := quant.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Stages) > 0 {
				if s, err = s.Override(quant.Overrides{WeightThreshold: &threshold}); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			g, rep, err := quant.Apply(fold.Graph, s, quant.Options{Eager: true})
			if err != nil {
				t.Errorf("%s, threshold %d: %v", name, threshold, err)
				continue
			}
			if len(s.Stages) > 0 && rep.Compressed() == 0 {
				t.Errorf("%s, threshold %d compressed nothing", name, threshold)
			}
			pkg, file := filepath.Join(dir, "n.mlpackage"), filepath.Join(dir, "n.onnx")
			if err := coreml.Save(pkg, g, coreml.Options{}); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			want, err := coreml.Size(g, coreml.Options{})
			if got := written(t, pkg); err != nil || got != want {
				t.Errorf("%s, threshold %d: package of %d bytes, computed %d (%v)", name, threshold, got, want, err)
			}
			c, err := fold.Apply(s, compile.Options{})
			if err != nil {
				t.Fatal(err)
			}
			// Where values are not known yet, no two arrays are taken to be equal:
			// nothing at all, or the few codes of a block, are.
			most := want / 50
			if name == "s100" || name == "w4b16+p4" {
				most = want / 8
			}
			if d := c.PackageBytes - want; d < -want/50 || d > most {
				t.Errorf("%s, threshold %d: predicted %d bytes, written %d", name, threshold, c.PackageBytes, want)
			}
			if err := onnx.Save(file, g); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			want, err = onnx.Size(g)
			if got := written(t, file); err != nil || got != want {
				t.Errorf("%s, threshold %d: file of %d bytes, computed %d (%v)", name, threshold, got, want, err)
			}
		}
	}
}

func written(t *testing.T, path string) int64 {
	t.Helper()
	var n int64
	err := filepath.Walk(path, func(_ string, fi fs.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A model that cannot be written leaves nothing behind.
func TestNothingHalfWritten(t *testing.T) {
	bad := &model.Graph{Name: "bad"}
	x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{1, 4}}
	y := &model.Value{Name: "y", DType: model.Float32, Shape: model.Shape{1, 4}}
	bad.Inputs, bad.Outputs = []*model.Value{x}, []*model.Value{y}
	bad.Nodes = []*model.Node{{Name: "n", Op: "Loop", Inputs: []*model.Value{x}, Outputs: []*model.Value{y}}}
	w := &model.Value{Name: "w", DType: model.Float32, Shape: model.Shape{4}, Const: model.NewLazy(model.Float32, model.Shape{4}, func() (*model.Tensor, error) { return nil, os.ErrInvalid })}
	lazy := &model.Graph{Name: "lazy", Inputs: []*model.Value{x}, Outputs: []*model.Value{y}}
	lazy.Nodes = []*model.Node{{Name: "n", Op: "Add", Inputs: []*model.Value{x, w}, Outputs: []*model.Value{y}}}
	for name, f := range map[string]func(string) error{
		"unknown operator.mlpackage": func(p string) error { return coreml.Save(p, bad, coreml.Options{}) },
		"lost weight.mlpackage":      func(p string) error { return coreml.Save(p, lazy, coreml.Options{}) },
		"lost weight.onnx":           func(p string) error { return onnx.Save(p, lazy) },
	} {
		dir := t.TempDir()
		if err := f(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s: written", name)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 0 {
			t.Errorf("%s: left %v behind (%v)", name, entries, err)
		}
	}
}
