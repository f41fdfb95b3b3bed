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
	x := model.NewTensor(model.Float32, 1, 1, 4, 4)
	p := newProg().in("x", x).
		op("crop_resize", args{"x": "x", "boxes": model.NewTensor(model.Float32, 1, 4), "target_width": 4}, inner("b", model.NewTensor(model.Float32, 1, 1, 1, 4))).
		op("reshape", args{"x": "b", "shape": []int{1, 1, 4}}, inner("p", model.NewTensor(model.Float32, 1, 1, 4))).
		op("non_maximum_suppression", args{"boxes": "p", "scores": "p", "max_boxes": 1}, out("q", model.NewTensor(model.Float32, 1, 1, 4)),
			out("s", model.NewTensor(model.Float32, 1, 1, 4)), out("i", model.NewTensor(model.Int32, 1, 1)), out("n", model.NewTensor(model.Int32, 1))).
		op("random_normal", args{"shape": []int{2}, "seed": 1}, out("r", model.NewTensor(model.Float32, 2))).
		op("random_categorical", args{"x": "p", "size": 2}, out("c", model.NewTensor(model.Float32, 1, 1, 2))).
		op("make_list", args{"init_length": 2, "dynamic_length": false, "elem_shape": []*model.Tensor{i32([]int{}, 2)}}, inner("l", model.NewTensor(model.Float32, 2))).
		op("list_write", args{"ls": "l", "index": 1, "value": "r"}, inner("m", model.NewTensor(model.Float32, 2))).
		op("list_read", args{"ls": "m", "index": 1}, out("e", model.NewTensor(model.Float32, 2)))
	list := valueType{kind: kindList, elem: &valueType{kind: kindTensor, dtype: model.Float32, shape: model.Shape{2}}, length: 2}
	for _, o := range p.fn.block.ops[5:7] {
		o.outputs[0].typ = list
	}
	m := &specModel{version: 9, program: &program{version: 1, names: []string{"main"}, functions: map[string]*function{"main": p.fn}}}
	if _, err := Read(m.encode(), nil, Options{}); err != nil {
		f.Fatal(err)
	}
	f.Add(m.encode(), []byte{})
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
