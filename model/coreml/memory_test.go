package coreml

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/triune-sim/triune/model"
)

// TestReaderMemory reads a program that is nothing but small operations, the
// worst there is for a reader that keeps a record of each: what stays is under
// four times the file, and all that was ever allocated under sixteen times.
func TestReaderMemory(t *testing.T) {
	p := newProg().in("x", f32([]int{1}, 1))
	prev := "x"
	for i := range 20000 {
		n := fmt.Sprint("v", i)
		p.op("relu", args{"x": prev}, inner(n, f32([]int{1}, 0)))
		prev = n
	}
	p.fn.block.outputs = []string{prev}
	m := &specModel{version: 9, program: &program{version: 1, names: []string{"main"}, functions: map[string]*function{"main": p.fn}}}
	spec := m.encode()
	p, m = nil, nil
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	g, err := Read(spec, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	times := func(a, b uint64) float64 { return float64(int64(a)-int64(b)) / float64(len(spec)) }
	if n := times(after.TotalAlloc, before.TotalAlloc); n > 16 {
		t.Errorf("reading %d bytes allocates %.1f times that", len(spec), n)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := times(after.HeapAlloc, before.HeapAlloc); n > 4 {
		t.Errorf("reading %d bytes leaves %.1f times that", len(spec), n)
	}
	if len(g.Nodes) != 20000 {
		t.Errorf("%d nodes", len(g.Nodes))
	}
}

// TestWeightsAreShared loads 8 MB of weights: they are read once and not
// copied.
func TestWeightsAreShared(t *testing.T) {
	const n = 2048
	w := model.NewTensor(model.Float16, n, n)
	for i := range w.Data {
		w.Data[i] = byte(i>>3) & 0x3b
	}
	v := func(name string, k *model.Const, s ...int) *model.Value {
		return &model.Value{Name: name, DType: model.Float16, Shape: s, Const: k}
	}
	x, y := v("x", nil, 1, n), v("y", nil, 1, n)
	node := &model.Node{Name: "fc", Op: "Gemm", Inputs: []*model.Value{x, v("w", model.NewConst(w), n, n)}, Outputs: []*model.Value{y}, Attrs: model.Attrs{"transB": 1}}
	y.Producer = node
	p := t.TempDir() + "/big.mlpackage"
	if err := Save(p, &model.Graph{Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{node}}, Options{}); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	g, err := Load(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	size := float64(g.Nodes[0].In(1).Const.StoredBytes())
	if r := float64(after.TotalAlloc-before.TotalAlloc) / size; r > 1.1 {
		t.Errorf("loading %.0f bytes of weights allocates %.2f times that", size, r)
	}
}
