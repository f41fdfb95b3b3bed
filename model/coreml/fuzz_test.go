package coreml

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triune-sim/triune/model"
)

// shipped returns the specifications and weight files in testdata.
func shipped(tb testing.TB) (specs, weights [][]byte) {
	list, err := filepath.Glob("testdata/*.mlpackage")
	if err != nil || len(list) == 0 {
		tb.Fatal("no packages in testdata")
	}
	for _, p := range list {
		dir := filepath.Join(p, "Data", "com.apple.CoreML")
		s, err := os.ReadFile(filepath.Join(dir, "model.mlmodel"))
		if err != nil {
			tb.Fatal(err)
		}
		w, _ := os.ReadFile(filepath.Join(dir, "weights", "weight.bin"))
		specs, weights = append(specs, s), append(weights, w)
	}
	return specs, weights
}

// exercise does with a model what a user does: read it, look at it, write it.
func exercise(t *testing.T, spec, weights []byte) {
	g, err := Read(spec, func(string) ([]byte, error) { return weights, nil }, Options{})
	if err != nil {
		if msg := err.Error(); !strings.HasPrefix(msg, "coreml: ") || strings.Contains(msg, "\n") {
			t.Errorf("error %q", msg)
		}
		return
	}
	if err := g.Validate(false); err != nil {
		t.Errorf("an invalid graph: %v", err)
	}
	for _, v := range g.Consts() {
		if v.Const.DenseBytes() < 1<<20 {
			// Values may be wrong, but a wrong size is an error and no panic.
			if x, err := v.Const.Value(); err == nil && x.DType != model.String && int64(len(x.Data)) != v.Const.DenseBytes() {
				t.Errorf("constant %s decodes to %d bytes, want %d", v.Name, len(x.Data), v.Const.DenseBytes())
			}
		}
	}
	size, err := Size(g, Options{})
	if err == nil && size <= manifestBytes {
		t.Errorf("size %d", size)
	}
}

func FuzzSpec(f *testing.F) {
	specs, weights := shipped(f)
	for i := range specs {
		f.Add(specs[i], weights[i])
	}
	f.Fuzz(func(t *testing.T, spec, weights []byte) { exercise(t, spec, weights) })
}

func FuzzWeights(f *testing.F) {
	_, weights := shipped(f)
	for _, w := range weights {
		f.Add(w, uint64(64), uint32(1), uint16(3), uint16(16))
	}
	f.Fuzz(func(t *testing.T, data []byte, off uint64, kind uint32, d0, d1 uint16) {
		b, err := openBlob(data)
		if err != nil {
			return
		}
		d, ok := blobTypes[kind%20]
		if !ok {
			return
		}
		shape := model.Shape{int(d0), int(d1)}
		x, err := b.tensor(off, d, shape)
		if err != nil {
			return
		}
		if int64(len(x.Data)) != d.Bytes(shape.Elems()) || len(x.Data) > len(data) {
			t.Fatalf("%d bytes for %s%v", len(x.Data), d, shape)
		}
		if kind := binary.LittleEndian.Uint32(data[off+4:]); blobTypes[kind] != d {
			t.Fatalf("blob of type %d read as %s", kind, d)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"fileFormatVersion":"1.0.0","itemInfoEntries":{"a":{"path":"com.apple.CoreML/model.mlmodel"}},"rootModelIdentifier":"a"}`))
	f.Add([]byte(`{"fileFormatVersion":"1.0.0","itemInfoEntries":{"a":{"path":"../../../etc/passwd"}},"rootModelIdentifier":"a"}`))
	f.Add([]byte(`{"fileFormatVersion":"2.0.0","rootModelIdentifier":""}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseManifest(b)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q", err)
			}
			return
		}
		if !filepath.IsLocal(p) || strings.Contains(p, "\x00") {
			t.Errorf("path %q leaves the package", p)
		}
	})
}
