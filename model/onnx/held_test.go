package onnx_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
)

// allowance is what a reader may hold beside eight times its file, in bytes:
// tables, the inferer, and the first few thousand operators.
const allowance = 8 << 20

// checkHeld reads a model and compares the most memory that was held at one
// time, the file itself included, with the bound.
func checkHeld(t *testing.T, what string, size int64, read func() (*model.Graph, error)) error {
	t.Helper()
	var g *model.Graph
	var err error
	held := size + testutil.Held(func() { g, err = read() })
	t.Logf("%s: %d bytes, %.1f MB held, %.2f times the file less the allowance (%d nodes)", what, size, float64(held)/1e6,
		max(0, float64(held-allowance)/float64(size)), nodesOf(g))
	if held > 8*size+allowance {
		t.Errorf("%s: reading %d bytes holds %d, want at most eight times the file and %d", what, size, held, allowance)
	}
	return err
}

func nodesOf(g *model.Graph) int {
	if g == nil {
		return 0
	}
	return len(g.Nodes)
}

// TestReaderMemory holds the reader to its bound: it never holds more than
// eight times the file and 8 MiB, whatever the file holds.
func TestReaderMemory(t *testing.T) {
	if testutil.Child(t) {
		return
	}
	load := func(t *testing.T, path string) error {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return checkHeld(t, filepath.Base(path), st.Size(), func() (*model.Graph, error) { return onnx.Load(path, onnx.Options{}) })
	}
	t.Run("written", func(t *testing.T) {
		if testing.Short() {
			t.Skip("writes 130 MB")
		}
		for _, scheme := range []string{"fp32", "fp32+w8a8"} {
			path := filepath.Join(t.TempDir(), "resnet50_"+scheme+".onnx")
			if err := onnx.Save(path, compressed(t, "resnet50", scheme)); err != nil {
				t.Fatal(err)
			}
			if err := load(t, path); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("fixtures", func(t *testing.T) {
		files, err := filepath.Glob(filepath.Join(testutil.Shared(t, "fixtures/onnx"), "*.onnx"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files: %v", err)
		}
		for _, f := range files {
			if err := load(t, f); err != nil {
				t.Error(err)
			}
		}
	})
	for _, c := range greedy() {
		t.Run(c.name, func(t *testing.T) {
			err := checkHeld(t, c.name, int64(len(c.file)), func() (*model.Graph, error) { return onnx.Read(c.file, "", onnx.Options{}) })
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
		})
	}
}

// greedyFile is a file made to cost its reader much; want is part of the error
// that refuses it, empty where it is read.
type greedyFile struct {
	name string
	file []byte
	want string
}

func greedy() []greedyFile {
	const tooMuch = "needs more memory"
	// Shorthands of the wire format.
	num := func(b []byte, id protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, id, protowire.VarintType), v)
	}
	msg := func(b []byte, id protowire.Number, m []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, id, protowire.BytesType), m)
	}
	str := func(b []byte, id protowire.Number, s string) []byte { return msg(b, id, []byte(s)) }
	info := func(name string, dims ...uint64) []byte {
		var shape []byte
		for _, d := range dims {
			shape = msg(shape, 1, num(nil, 1, d))
		}
		return msg(str(nil, 1, name), 2, msg(nil, 1, msg(num(nil, 1, 1), 2, shape)))
	}
	file := func(graph []byte, more ...[]byte) []byte {
		graph = msg(msg(graph, 11, info("x", 1)), 12, info("y", 1))
		b := msg(num(nil, 1, 8), 7, graph)
		b = msg(b, 8, num(nil, 2, 17))
		return append(b, bytes.Join(more, nil)...)
	}
	node := func(op string, in, out string, more ...[]byte) []byte {
		return append(str(str(str(nil, 1, in), 2, out), 4, op), bytes.Join(more, nil)...)
	}
	relu := msg(nil, 1, node("Relu", "x", "y"))
	repeat := func(n int, b []byte) []byte { return bytes.Repeat(b, n) }
	chain := func(n int) []byte {
		var g []byte
		prev := "x"
		for i := range n {
			out := fmt.Sprint("v", i)
			if i == n-1 {
				out = "y"
			}
			g, prev = msg(g, 1, node("Relu", prev, out)), out
		}
		return g
	}
	backwards := func(n int) []byte {
		g := msg(nil, 1, node("Relu", fmt.Sprint("v", n-1), "y"))
		for i := n - 1; i > 0; i-- {
			g = msg(g, 1, node("Relu", fmt.Sprint("v", i-1), fmt.Sprint("v", i)))
		}
		return msg(g, 1, node("Relu", "x", "v0"))
	}
	// Each node makes a value as large as shape inference remembers.
	folds := func(more int) []byte {
		g := chain(more)
		g = msg(g, 5, msg(str(num(num(nil, 1, 1), 2, 7), 8, "n"), 9, []byte{0, 0x80, 0, 0, 0, 0, 0, 0}))
		for i := range 2000 {
			g = msg(g, 1, node("ConstantOfShape", "n", fmt.Sprint("c", i)))
			g = msg(g, 1, msg(str(node("Expand", "x", fmt.Sprint("e", i)), 1, fmt.Sprint("c", i)), 1, nil))
		}
		return g
	}
	wide := func() []byte { // a shape of 32,768 dimensions, handed on
		ones := repeat(1<<15, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		g := msg(nil, 5, msg(str(num(num(nil, 1, 1<<15), 2, 7), 8, "n"), 9, ones))
		g = msg(g, 1, str(str(str(str(nil, 1, "x"), 1, "n"), 2, "w0"), 4, "Reshape"))
		for i := range 2000 {
			g = msg(g, 1, node("Relu", fmt.Sprint("w", i), fmt.Sprint("w", i+1)))
		}
		return append(g, relu...)
	}
	// f calls g ten times, which calls h ten times ...: 10^6 nodes.
	var functions []byte
	for level := range 6 {
		f := str(str(str(nil, 1, fmt.Sprint("f", level)), 4, "a"), 5, "b")
		f = msg(str(f, 10, "own"), 9, num(nil, 2, 17))
		f = msg(f, 9, num(str(nil, 1, "own"), 2, 1))
		prev := "a"
		for i := range 10 {
			out := fmt.Sprint("t", i)
			if i == 9 {
				out = "b"
			}
			n := node(fmt.Sprint("f", level+1), prev, out, str(nil, 7, "own"))
			if level == 5 {
				n = node("Relu", prev, out)
			}
			f, prev = msg(f, 7, n), out
		}
		functions = msg(functions, 25, f)
	}
	tensor := func(dtype uint64, n uint64, field protowire.Number, data []byte) []byte {
		return msg(nil, 5, msg(str(num(num(nil, 1, n), 2, dtype), 8, "w"), field, data))
	}
	sparse := func(n uint64) []byte {
		v := msg(str(num(num(nil, 1, 1), 2, 11), 8, "w"), 9, make([]byte, 8))
		i := msg(num(num(nil, 1, 1), 2, 7), 9, make([]byte, 8))
		return msg(nil, 15, num(msg(msg(nil, 1, v), 2, i), 3, n))
	}
	const many = 1 << 20
	deep := node("Relu", "x", "y")
	for range 30 {
		branch := func(name string, n []byte) []byte {
			return msg(nil, 5, msg(num(str(nil, 1, name), 20, 5), 6, msg(msg(nil, 1, n), 12, info("y", 1))))
		}
		deep = node("If", "c", "y", branch("then_branch", deep), branch("else_branch", node("Relu", "x", "y")))
	}
	return []greedyFile{
		{"10,000 tiny nodes", file(chain(10_000)), ""},
		{"30,000 tiny nodes", file(chain(30_000)), ""},
		{"130,000 tiny nodes", file(chain(130_000)), tooMuch},
		{"10,000 nodes from back to front", file(backwards(10_000)), ""},
		{"100,000 nodes from back to front", file(backwards(100_000)), tooMuch},
		{"25,000 tiny constants", file(append(bytes.Join(func() (l [][]byte) {
			for i := range 25_000 {
				l = append(l, msg(nil, 5, msg(str(num(nil, 2, 1), 8, fmt.Sprint("w", i)), 9, make([]byte, 4))))
			}
			return l
		}(), nil), relu...)), ""},
		{"a million empty nodes", file(append(repeat(many, msg(nil, 1, nil)), relu...)), "no operator"},
		{"a node of a million inputs", file(msg(nil, 1, append(repeat(many, str(nil, 1, "")), node("Sum", "x", "y")...))), tooMuch},
		{"a node of a million attributes", file(msg(nil, 1, append(node("Relu", "x", "y"), repeat(many, msg(nil, 5, nil))...))), tooMuch},
		{"an attribute of a million strings", file(msg(nil, 1, node("Relu", "x", "y", msg(nil, 5, repeat(many, str(nil, 9, "")))))), tooMuch},
		{"an attribute of four million packed integers", file(msg(nil, 1, node("Relu", "x", "y", msg(nil, 5, msg(nil, 8, make([]byte, 4*many)))))), tooMuch},
		{"an attribute of four million integers", file(msg(nil, 1, node("Relu", "x", "y", msg(nil, 5, repeat(4*many, num(nil, 8, 0)))))), tooMuch},
		{"an int64 tensor of four million packed integers", file(append(tensor(7, 4*many, 7, make([]byte, 4*many)), relu...)), ""},
		{"an int64 tensor of a million integers, unpacked", file(append(msg(nil, 5, append(str(num(num(nil, 1, many), 2, 7), 8, "w"), repeat(many, num(nil, 7, 0))...)), relu...)), ""},
		{"a float tensor of a million numbers, unpacked", file(append(msg(nil, 5, append(str(num(num(nil, 1, many), 2, 1), 8, "w"),
			repeat(many, protowire.AppendFixed32(protowire.AppendTag(nil, 4, protowire.Fixed32Type), 0))...)), relu...)), ""},
		{"a tensor of two million empty strings", file(append(msg(nil, 5, append(str(num(num(nil, 1, 2*many), 2, 8), 8, "w"), repeat(2*many, str(nil, 6, ""))...)), relu...)), tooMuch},
		{"a sparse tensor of 2^26 elements", file(append(sparse(1<<26), relu...)), ""},
		{"2,000 folded values", file(folds(1)), ""},
		{"2,000 folded values and 15,000 nodes", file(folds(15_000)), ""},
		{"32,768 dimensions", file(wide()), "dimensions"},
		{"a declared shape of 2^46 elements", file(append(tensor(1, 1<<46, 9, nil), relu...)), "bytes stored"},
		{"30 nested blocks", file(append(msg(nil, 5, msg(str(num(nil, 2, 9), 8, "c"), 9, []byte{1})), msg(nil, 1, deep)...)), ""},
		{"a million calls", file(msg(nil, 1, node("f0", "x", "y", str(nil, 7, "own"))), functions), tooMuch},
		{"a million opset imports", file(relu, repeat(many/2, msg(nil, 8, num(str(nil, 1, "a"), 2, 1)))), tooMuch},
		{"100,000 properties", file(relu, bytes.Join(func() (l [][]byte) {
			for i := range 100_000 {
				l = append(l, msg(nil, 14, str(str(nil, 1, fmt.Sprint(i)), 2, "")))
			}
			return l
		}(), nil)), ""},
		{"1,000 names of 60,000 bytes", file(append(bytes.Join(func() (l [][]byte) {
			for i := range 1000 {
				l = append(l, msg(nil, 1, node("Relu", "x", fmt.Sprint(strings.Repeat("n", 60_000), i))))
			}
			return l
		}(), nil), relu...)), ""},
		{"80,000 inputs", file(append(bytes.Join(func() (l [][]byte) {
			for i := range 80_000 {
				l = append(l, msg(nil, 11, info(fmt.Sprint(i))))
			}
			return l
		}(), nil), relu...)), ""},
	}
}
