package coreml

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triune-sim/triune/model"
)

const sample = "testdata/prelu_iOS16.mlpackage"

// copyPackage copies a package into a temporary folder.
func copyPackage(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy.mlpackage")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestHostilePackages damages packages from outside: every one is refused with
// one line that names the file.
func TestHostilePackages(t *testing.T) {
	spec := filepath.Join("Data", "com.apple.CoreML", "model.mlmodel")
	weights := filepath.Join("Data", "com.apple.CoreML", "weights", "weight.bin")
	write := func(name string, b []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	edit := func(name string, f func([]byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			write(name, f(b))(t, dir)
		}
	}
	manifestPath := func(p string) func([]byte) []byte {
		return func(b []byte) []byte {
			var m manifest
			if err := json.Unmarshal(b, &m); err != nil {
				t.Fatal(err)
			}
			it := m.ItemInfoEntries[m.RootModelIdentifier]
			it.Path = p
			m.ItemInfoEntries[m.RootModelIdentifier] = it
			out, _ := json.Marshal(m)
			return out
		}
	}
	outside := filepath.Join(t.TempDir(), "outside.mlmodel")
	b, err := os.ReadFile(filepath.Join(sample, spec))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(outside, b, 0o644); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name string
		do   func(t *testing.T, dir string)
		want string
	}{
		{"empty manifest", write("Manifest.json", nil), "package manifest"},
		{"manifest is no JSON", write("Manifest.json", []byte("{\n\n")), "package manifest"},
		{"newer manifest", edit("Manifest.json", func(b []byte) []byte { return bytes.Replace(b, []byte("1.0.0"), []byte("2.0.0"), 1) }), "2.0.0"},
		{"unknown root", edit("Manifest.json", func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"rootModelIdentifier": "`), []byte(`"rootModelIdentifier": "x`), 1)
		}), "names none of its 2 items"},
		{"path up", edit("Manifest.json", manifestPath("../../outside.mlmodel")), "leaves the package"},
		{"absolute path", edit("Manifest.json", manifestPath(outside)), "leaves the package"},
		{"path with a line break", edit("Manifest.json", manifestPath("com.apple.CoreML/a\nb")), "leaves the package"},
		{"path to nothing", edit("Manifest.json", manifestPath("com.apple.CoreML/none.mlmodel")), "no such file"},
		{"path to a folder", edit("Manifest.json", manifestPath("com.apple.CoreML/weights")), "not a regular file"},
		{"link out of the package", func(t *testing.T, dir string) {
			p := filepath.Join(dir, spec)
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(outside, p); err != nil {
				t.Skip(err)
			}
		}, "escapes"},
		{"folder linked out of the package", func(t *testing.T, dir string) {
			d := filepath.Join(dir, "Data", "com.apple.CoreML")
			away := filepath.Join(t.TempDir(), "away")
			if err := os.Rename(d, away); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(away, d); err != nil {
				t.Skip(err)
			}
		}, "a link that leaves it"},
		{"empty specification", write(spec, nil), "not a Core ML specification"},
		{"cut specification", edit(spec, func(b []byte) []byte { return b[:len(b)/2] }), "truncated"},
		{"random specification", write(spec, []byte("PK\x03\x04 not a model at all")), ""},
		{"no weights", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, weights)) }, "no such file"},
		{"cut weights", edit(weights, func(b []byte) []byte { return b[:len(b)-8] }), "claims bytes"},
		{"short weights", edit(weights, func(b []byte) []byte { return b[:10] }), "shorter than its header"},
		{"old weights", edit(weights, func(b []byte) []byte { b[4] = 1; return b }), "version 1"},
		{"no sentinel", edit(weights, func(b []byte) []byte { b[64] = 0; return b }), "no blob at offset 64"},
		{"wrong type", edit(weights, func(b []byte) []byte { b[68] = 4; return b }), "holds int8 where the program declares fp16"},
		{"size beyond the file", edit(weights, func(b []byte) []byte { binary.LittleEndian.PutUint64(b[72:], 1<<63); return b }), "claims bytes"},
		{"offset beyond the file", edit(weights, func(b []byte) []byte { binary.LittleEndian.PutUint64(b[80:], 1<<63); return b }), "claims bytes"},
		{"size of another shape", edit(weights, func(b []byte) []byte { b[72] -= 2; return b }), "needs"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := copyPackage(t, sample)
			c.do(t, dir)
			_, err := Load(dir, Options{})
			if err == nil {
				t.Fatal("it was read")
			}
			msg := err.Error()
			if !strings.HasPrefix(msg, "coreml: "+dir+": ") || strings.Contains(msg, "\n") || !strings.Contains(msg, c.want) {
				t.Errorf("error %q, want one that says %q", msg, c.want)
			}
		})
	}
}

// TestVersions refuses specifications of other versions by number.
func TestVersions(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(sample, "Data", "com.apple.CoreML", "model.mlmodel"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := decodeModel(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []int{0, 1, 5, 10, 11} {
		m.version = v
		_, err := Read(m.encode(), nil, Options{})
		if err == nil || !strings.Contains(err.Error(), "specification version") && !strings.Contains(err.Error(), "not a Core ML") {
			t.Errorf("version %d: %v", v, err)
		}
	}
	for field, what := range map[int]string{200: "pipeline classifier", 404: "nearest-neighbours", 610: "non-maximum suppression", 403: "NeuralNetwork"} {
		b := appendMsg(appendVarint(nil, 1, 6), fieldNumber(field), nil)
		if _, err := Read(b, nil, Options{}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("model type %d: %v", field, err)
		}
	}
}

// TestFunctions reads a program of two functions that share weights, and a
// bare .mlmodel file.
func TestFunctions(t *testing.T) {
	dir := copyPackage(t, sample)
	p := filepath.Join(dir, "Data", "com.apple.CoreML", "model.mlmodel")
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	// A bare file finds its weights beside it.
	bare, err := Load(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := Load(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(bare.Nodes) != len(whole.Nodes) || bare.ProgramBytes != int64(len(b)) {
		t.Errorf("%d nodes and %d in the package", len(bare.Nodes), len(whole.Nodes))
	}

	m, err := decodeModel(b)
	if err != nil {
		t.Fatal(err)
	}
	main := m.program.functions["main"]
	second := *main
	second.block = &block{outputs: []string{"r"}, ops: []*operation{{typ: "relu", inputs: []argument{{"x", []binding{{name: main.inputs[0].name}}}},
		outputs: []named{{"r", main.inputs[0].typ}}}}}
	m.program.functions["second"] = &second
	m.program.names = append(m.program.names, "second")
	if err := os.WriteFile(p, m.encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	names, err := Functions(dir)
	if err != nil || !slices.Equal(names, []string{"main", "second"}) {
		t.Errorf("functions %v: %v", names, err)
	}
	g, err := Load(dir, Options{Function: "second"})
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Nodes) != 1 || g.Nodes[0].Op != "Relu" || g.Meta[MetaFunction] != "second" {
		t.Errorf("%d nodes, function %s", len(g.Nodes), g.Meta[MetaFunction])
	}
}

// TestSaveReplaces: a package is replaced, a file or another folder is not,
// and a failed write leaves nothing behind.
func TestSaveReplaces(t *testing.T) {
	g, err := Load(sample, Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := filepath.Join(dir, "x.mlpackage")
	for range 2 {
		if err := Save(p, g, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"file", "folder"} {
		q := filepath.Join(dir, name)
		if name == "file" {
			err = os.WriteFile(q, []byte("mine"), 0o644)
		} else {
			err = os.MkdirAll(filepath.Join(q, "mine"), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := Save(q, g, Options{}); err == nil || !strings.Contains(err.Error(), "not replaced") {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := g.Clone()
	bad.Nodes[0].Op = "NonMaxSuppression"
	if err := Save(filepath.Join(dir, "bad.mlpackage"), bad, Options{}); err == nil || !strings.Contains(err.Error(), "NonMaxSuppression") {
		t.Errorf("an operator without counterpart: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range left {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"file", "folder", "x.mlpackage"}) {
		t.Errorf("the folder holds %v", names)
	}
}

// TestTargets: a compression that a target lacks is an error that names the
// constant and the target that has it; without a target the oldest one is
// taken.
func TestTargets(t *testing.T) {
	nibbles := model.NewConst(&model.Tensor{DType: model.Int4, Shape: model.Shape{4, 8}, Data: make([]byte, 16)})
	scale := model.NewTensor(model.Float16, 4, 1)
	for i := range 4 {
		scale.Set(i, 0.5)
	}
	w := &model.Value{Name: "w", DType: model.Float16, Shape: model.Shape{4, 8}, Const: &model.Const{DType: model.Float16, Shape: model.Shape{4, 8},
		Storage: &model.Affine{Codes: nibbles, Scale: model.NewConst(scale)}}}
	x := &model.Value{Name: "x", DType: model.Float16, Shape: model.Shape{2, 8}}
	y := &model.Value{Name: "y", DType: model.Float16, Shape: model.Shape{2, 4}}
	n := &model.Node{Name: "fc", Op: "Gemm", Inputs: []*model.Value{x, w}, Outputs: []*model.Value{y}, Attrs: model.Attrs{"transB": 1}}
	y.Producer = n
	g := &model.Graph{Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n}}
	if _, err := Size(g, Options{Target: IOS16}); err == nil || !strings.Contains(err.Error(), `"w" of int4 codes needs target iOS18`) {
		t.Errorf("int4 for iOS16: %v", err)
	}
	m, _, err := build(g, TargetAuto, true)
	if err != nil || m.version != int(IOS18) {
		t.Errorf("target %v: %v", m, err)
	}
	if _, err := Size(g, Options{Target: 12}); err == nil || !strings.Contains(err.Error(), "not supported") {
		t.Errorf("target 12: %v", err)
	}
	for s, want := range map[string]Target{"iOS17": IOS17, "ios16": IOS16, "": TargetAuto} {
		if got, err := ParseTarget(s); err != nil || got != want {
			t.Errorf("ParseTarget(%q) = %v, %v", s, got, err)
		}
	}
	if _, err := ParseTarget("iOS12"); err == nil {
		t.Error("ParseTarget takes iOS12")
	}
}
