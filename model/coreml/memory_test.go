package coreml

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
)

// TestReaderMemory holds the reader to its bound: it never holds more than
// eight times the file and 8 MiB, whatever the file holds.
func TestReaderMemory(t *testing.T) {
	if testutil.Child(t) {
		return
	}
	const allowance = 8 << 20
	for _, c := range greedy(t) {
		t.Run(c.name, func(t *testing.T) {
			size := int64(len(c.spec))
			var g *model.Graph
			var err error
			held := size + testutil.Held(func() { g, err = Read(c.spec, nil, Options{}) })
			nodes := 0
			if g != nil {
				nodes = len(g.Nodes)
			}
			t.Logf("%d bytes, %.1f MB held, %.2f times the file less the allowance (%d nodes)", size, float64(held)/1e6,
				max(0, float64(held-allowance)/float64(size)), nodes)
			if held > 8*size+allowance {
				t.Errorf("reading %d bytes holds %d, want at most eight times the file and %d", size, held, allowance)
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
		})
	}
}

// greedySpec is a specification made to cost its reader much; want is part of
// the error that refuses it, empty where it is read.
type greedySpec struct {
	name string
	spec []byte
	want string
}

func greedy(t *testing.T) []greedySpec {
	const tooMuch = "needs more memory"
	wrap := func(p *prog) *specModel {
		return &specModel{version: 9, program: &program{version: 1, names: []string{"main"}, functions: map[string]*function{"main": p.fn}}}
	}
	one := f32([]int{1}, 0)
	// A program of one operation whose bytes are given, behind a good one.
	raw := func(op []byte) []byte {
		p := newProg().in("x", one)
		p.op("relu", args{"x": "x"}, inner("y", one))
		p.fn.block.outputs = []string{"y"}
		bl := appendMsg(p.fn.block.encode(), 3, op)
		fn := appendMsg(nil, 1, (&named{"x", tensorType(model.Float32, model.Shape{1})}).encode())
		fn = appendMapEntry(appendString(fn, 2, "CoreML8"), 3, "CoreML8", bl)
		return appendMsg(appendVarint(nil, 1, 9), 502, appendMapEntry(appendVarint(nil, 1, 1), 2, "main", fn))
	}
	chain := func(n int) []byte {
		p := newProg().in("x", one)
		prev := "x"
		for i := range n {
			name := fmt.Sprint("v", i)
			p.op("relu", args{"x": prev}, inner(name, one))
			prev = name
		}
		p.fn.block.outputs = []string{prev}
		return wrap(p).encode()
	}
	consts := func(n int) []byte {
		p := newProg().in("x", one)
		for i := range n {
			p.fn.block.ops = append(p.fn.block.ops, &operation{typ: "const", title: fmt.Sprint("c", i),
				outputs: []named{{fmt.Sprint("c", i), tensorType(model.Float32, model.Shape{1})}}, attrs: []attribute{{"val", immediate(one)}}})
		}
		p.op("relu", args{"x": "x"}, inner("y", one))
		p.fn.block.outputs = []string{"y"}
		return wrap(p).encode()
	}
	// Values of two bytes each, in every list that the format has.
	op := func(typ string, more ...[]byte) []byte {
		return append(appendString(nil, 1, typ), bytes.Join(more, nil)...)
	}
	repeat := bytes.Repeat
	const many = 1 << 19
	value := func(tensor []byte) []byte { return appendMsg(nil, 3, appendMsg(nil, 1, tensor)) } // Value{immediate{tensor}}
	val := func(v []byte) []byte { return appendMapEntry(nil, 5, "val", v) }
	empty := func(id protowire.Number) []byte { return appendMsg(nil, id, nil) }
	deep := []byte{}
	for range 2000 {
		deep = appendMsg(nil, 3, appendMsg(nil, 3, appendMsg(nil, 1, deep))) // a list in a list ...
	}
	nest := op("relu")
	for range 200 {
		nest = op("cond", appendMsg(nil, 4, appendMsg(nil, 3, nest)))
	}
	var functions, meta []byte
	for i := range 100_000 {
		functions = appendMapEntry(functions, 2, fmt.Sprint(i), appendMapEntry(nil, 3, "", nil))
		meta = appendMsg(meta, 100, appendMapEntry(nil, 100, fmt.Sprint(i), nil))
	}
	huge := tensorType(model.Float32, model.Shape{1 << 30, 1 << 30})
	long := newProg().in("x", one)
	for i := range 300 {
		long.op("relu", args{"x": "x"}, inner(strings.Repeat("n", 30_000)+fmt.Sprint(i), one))
	}
	long.fn.block.outputs = []string{long.fn.block.ops[0].outputs[0].name}
	return []greedySpec{
		{"10,000 tiny operations", chain(10_000), ""},
		{"60,000 tiny operations", chain(60_000), ""},
		{"10,000 tiny constants", consts(10_000), ""},
		{"60,000 tiny constants", consts(60_000), ""},
		{"an operation of many inputs", raw(op("relu", repeat(empty(2), many))), tooMuch},
		{"an input of many bindings", raw(op("relu", appendMapEntry(nil, 2, "x", repeat(appendMsg(nil, 1, appendString(nil, 1, "x")), many)))), tooMuch},
		{"an operation of many outputs", raw(op("relu", repeat(appendMsg(nil, 3, appendString(nil, 1, "a")), many))), tooMuch},
		{"an operation of many blocks", raw(op("cond", repeat(empty(4), many))), tooMuch},
		{"an operation of many attributes", raw(op("const", repeat(appendMapEntry(nil, 5, "", nil), many))), tooMuch},
		{"many packed integers", raw(op("const", val(value(appendMsg(nil, 2, appendMsg(nil, 1, make([]byte, 4*many))))))), tooMuch},
		{"many integers", raw(op("const", val(value(appendMsg(nil, 2, repeat([]byte{8, 0}, 4*many)))))), tooMuch},
		{"many strings", raw(op("const", val(value(appendMsg(nil, 4, repeat(empty(1), 4*many)))))), tooMuch},
		{"many floats, one by one", raw(op("const", val(value(appendMsg(nil, 1, repeat(protowire.AppendFixed32(protowire.AppendTag(nil, 1, protowire.Fixed32Type), 0), 4*many)))))), "0 outputs"},
		{"many floats", raw(op("const", val(value(appendMsg(nil, 1, appendMsg(nil, 1, make([]byte, 16*many))))))), "0 outputs"},
		{"a list of many values", raw(op("const", val(appendMsg(nil, 3, appendMsg(nil, 3, repeat(empty(1), many)))))), tooMuch},
		{"a tuple type of many", raw(op("const", appendMsg(nil, 3, appendMsg(appendString(nil, 1, "a"), 2, appendMsg(nil, 3, repeat(empty(1), many)))))), tooMuch},
		{"lists in lists", raw(op("const", val(deep))), "nested deeper"},
		{"blocks in blocks", raw(nest), "nested deeper"},
		{"100,000 functions", appendMsg(appendVarint(nil, 1, 9), 502, append(appendVarint(nil, 1, 1), functions...)), tooMuch},
		{"100,000 properties", appendMsg(chain(1), 2, meta), tooMuch},
		{"many features", appendMsg(chain(1), 2, repeat(empty(1), many)), tooMuch},
		{"300 names of 30,000 bytes", wrap(long).encode(), ""},
		{"a declared shape of 2^60 elements", raw(op("const", appendMsg(nil, 3, (&named{"a", huge}).encode()),
			val(appendMsg(appendMsg(nil, 2, huge.encode()), 3, empty(1))))), "without values"},
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
