package coreml_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
)

// readTree returns the files of a folder by relative path.
func readTree(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		out[rel] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func treeBytes(m map[string][]byte) (n int64) {
	for _, b := range m {
		n += int64(len(b))
	}
	return n
}

// sameConst compares two constants: storage form, sizes and values.
func sameConst(a, b *model.Const) error {
	if a.DType != b.DType || !a.Shape.Equal(b.Shape) {
		return fmt.Errorf("%s%v and %s%v", a.DType, a.Shape, b.DType, b.Shape)
	}
	if a.Storage.Form() != b.Storage.Form() || a.StoredBytes() != b.StoredBytes() {
		return fmt.Errorf("%s of %d bytes and %s of %d", a.Storage.Form(), a.StoredBytes(), b.Storage.Form(), b.StoredBytes())
	}
	x, err := a.Value()
	if err != nil {
		return err
	}
	y, err := b.Value()
	if err != nil {
		return err
	}
	if !bytes.Equal(x.Data, y.Data) || !slices.Equal(x.Strings, y.Strings) {
		return fmt.Errorf("values differ")
	}
	return nil
}

// sameGraph compares two graphs: inputs, nodes in order, attributes, operands
// and constants. Names of values count, those of constants do not.
func sameGraph(a, b *model.Graph) error {
	values := func(what string, x, y []*model.Value) error {
		if len(x) != len(y) {
			return fmt.Errorf("%s: %d and %d", what, len(x), len(y))
		}
		for i := range x {
			switch {
			case x[i] == nil && y[i] == nil:
			case x[i] == nil || y[i] == nil || (x[i].Const == nil) != (y[i].Const == nil):
				return fmt.Errorf("%s %d: %v and %v", what, i, x[i], y[i])
			case x[i].Const != nil:
				if err := sameConst(x[i].Const, y[i].Const); err != nil {
					return fmt.Errorf("%s %d: constants %s and %s: %v", what, i, x[i].Name, y[i].Name, err)
				}
			case x[i].Name != y[i].Name || x[i].DType != y[i].DType || !x[i].Shape.Equal(y[i].Shape):
				return fmt.Errorf("%s %d: %v and %v", what, i, x[i], y[i])
			}
		}
		return nil
	}
	if err := values("inputs", a.Inputs, b.Inputs); err != nil {
		return err
	}
	for i := range min(len(a.Nodes), len(b.Nodes)) {
		x, y := a.Nodes[i], b.Nodes[i]
		at := fmt.Sprintf("node %d %s (%s) and %s (%s)", i, x.Name, x.Op, y.Name, y.Op)
		if x.Op != y.Op || !reflect.DeepEqual(x.Attrs, y.Attrs) && len(x.Attrs)+len(y.Attrs) > 0 {
			return fmt.Errorf("%s: attributes %v and %v", at, x.Attrs, y.Attrs)
		}
		if err := values("inputs", x.Inputs, y.Inputs); err != nil {
			return fmt.Errorf("%s: %v", at, err)
		}
		if err := values("outputs", x.Outputs, y.Outputs); err != nil {
			return fmt.Errorf("%s: %v", at, err)
		}
	}
	if len(a.Nodes) != len(b.Nodes) {
		return fmt.Errorf("%d and %d nodes", len(a.Nodes), len(b.Nodes))
	}
	return values("outputs", a.Outputs, b.Outputs)
}

// TestRoundTrip reads every package, writes it, and reads that: the graphs are
// equal, a second writing has equal bytes, and the size was known beforehand.
func TestRoundTrip(t *testing.T) {
	var list []string
	shipped, _ := filepath.Glob("testdata/*.mlpackage")
	list = append(list, shipped...)
	if !testing.Short() {
		list = append(list, allShared(t)...)
	}
	for _, p := range list {
		t.Run(strings.TrimSuffix(filepath.Base(p), ".mlpackage"), func(t *testing.T) { roundTrip(t, p) })
	}
}

// allShared lists the packages of the shared fixtures, none where there are
// none.
func allShared(t *testing.T) (list []string) {
	t.Run("shared", func(t *testing.T) {
		for _, d := range []string{"plain", "compressed", "special"} {
			list = append(list, packages(t, d)...)
		}
	})
	return list
}

func roundTrip(t *testing.T, p string) {
	g1, err := coreml.Load(p, coreml.Options{})
	if err != nil {
		t.Fatal(err)
	}
	target, err := coreml.ParseTarget(strings.Replace(g1.Meta[coreml.MetaTarget], "iOS15", "iOS16", 1))
	if err != nil {
		t.Fatal(err)
	}
	o := coreml.Options{Target: target}
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.mlpackage"), filepath.Join(dir, "second.mlpackage")
	if err := coreml.Save(first, g1, o); err != nil {
		t.Fatal(err)
	}
	g2, err := coreml.Load(first, coreml.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := sameGraph(g1, g2); err != nil {
		t.Errorf("the graph changed: %v", err)
	}
	if err := coreml.Save(second, g2, o); err != nil {
		t.Fatal(err)
	}
	a, b := readTree(t, first), readTree(t, second)
	if !slices.Equal(slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b))) {
		t.Errorf("files %v and %v", slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b)))
	}
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			t.Errorf("%s differs on the second writing (%d and %d bytes)", name, len(a[name]), len(b[name]))
		}
	}
	if n, err := coreml.Size(g1, o); err != nil || n != treeBytes(a) {
		t.Errorf("Size gives %d (%v), the package has %d bytes", n, err, treeBytes(a))
	}
	if !strings.HasPrefix(p, "testdata") {
		return // equal graphs compute the same
	}
	in := map[string]*model.Tensor{}
	if io := readIO(t, p); io != nil {
		for _, x := range io.Inputs {
			in[x.Name] = x.val
		}
	}
	out1, out2 := evaluate(t, g1, in), evaluate(t, g2, in)
	for name, v := range out1 {
		for i := range v.Len() {
			if math.Float64bits(v.At(i)) != math.Float64bits(out2[name].At(i)) {
				t.Fatalf("output %s changed from %v to %v at %d", name, v.At(i), out2[name].At(i), i)
			}
		}
	}
}
