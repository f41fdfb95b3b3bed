package coreml_test

import (
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
)

// TestPackageMemory loads every package of the fixtures, and ResNet50 as this
// program writes it: at most eight times the package and 8 MiB are held at one
// time. (TestReaderMemory has the programs that are made to cost much.)
func TestPackageMemory(t *testing.T) {
	if testutil.Child(t) {
		return
	}
	const allowance = 8 << 20
	var most float64
	check := func(t *testing.T, path string) {
		t.Helper()
		size := int64(0)
		err := filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				var st fs.FileInfo
				st, err = d.Info()
				size += st.Size()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		var g *model.Graph
		held := testutil.Held(func() { g, err = coreml.Load(path, coreml.Options{}) })
		if err != nil {
			t.Fatal(err)
		}
		if len(g.Nodes) == 0 || held > 8*size+allowance {
			t.Errorf("%s: reading %d bytes holds %d, want at most eight times the package and %d", filepath.Base(path), size, held, allowance)
		}
		if size > 1<<20 {
			t.Logf("%s: %d bytes, %.1f MB held", filepath.Base(path), size, float64(held)/1e6)
		}
		most = max(most, float64(held)/1e6)
	}
	t.Run("fixtures", func(t *testing.T) {
		n := 0
		for _, folder := range []string{"plain", "compressed", "special"} {
			for _, p := range packages(t, folder) {
				check(t, p)
				n++
			}
		}
		t.Logf("%d packages, at most %.2f MB held", n, most)
	})
	t.Run("written", func(t *testing.T) {
		if testing.Short() {
			t.Skip("writes 75 MB")
		}
		for _, scheme := range []string{"fp16", "w8"} {
			p := filepath.Join(t.TempDir(), "resnet50_"+scheme+".mlpackage")
			if err := coreml.Save(p, compressed(t, "resnet50", scheme), coreml.Options{}); err != nil {
				t.Fatal(err)
			}
			check(t, p)
		}
	})
}
