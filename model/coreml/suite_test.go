package coreml_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/model/ops"
	"google.golang.org/protobuf/encoding/protowire"
)

// suiteDir is where Debian's libonnx-testdata puts the node tests of ONNX.
const suiteDir = "/usr/share/libonnx-testdata/data/node"

var onnxTypes = map[uint64]model.DType{1: model.Float32, 2: model.UInt8, 3: model.Int8, 4: model.UInt16, 5: model.Int16, 6: model.Int32, 7: model.Int64,
	9: model.Bool, 10: model.Float16, 11: model.Float64, 12: model.UInt32, 13: model.UInt64}

// readTensorProto reads a TensorProto with raw data, nil for any other.
func readTensorProto(path string) *model.Tensor {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	t := &model.Tensor{Shape: model.Shape{}}
	for len(b) > 0 {
		id, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		switch {
		case id == 1 && typ == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(b)
			t.Shape = append(t.Shape, int(v))
		case id == 2 && typ == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(b)
			t.DType = onnxTypes[v]
		case id == 9 && typ == protowire.BytesType:
			t.Data, _ = protowire.ConsumeBytes(b)
		}
		if n = protowire.ConsumeFieldValue(id, typ, b); n < 0 {
			return nil
		}
		b = b[n:]
	}
	if t.DType == model.Invalid || int64(len(t.Data)) != t.DType.Bytes(t.Shape.Elems()) {
		return nil
	}
	return t.Clone()
}

// fixInputs makes the inputs of g from i on constants.
func fixInputs(g *model.Graph, in map[string]*model.Tensor, from int) *model.Graph {
	g = g.Clone()
	for _, v := range g.Inputs[from:] {
		v.Const = model.NewConst(in[v.Name])
		v.DType, v.Shape = v.Const.DType, v.Const.Shape
	}
	g.Inputs = g.Inputs[:from]
	return g
}

// TestNodeSuiteThroughCoreML writes every node test of ONNX that an ML
// program can express, reads it back and compares the two on the case's input:
// writer and reader must agree on what each operation means.
func TestNodeSuiteThroughCoreML(t *testing.T) {
	cases, err := filepath.Glob(filepath.Join(suiteDir, "*", "model.onnx"))
	if err != nil || len(cases) == 0 {
		t.Skipf("the node suite of ONNX is not installed: apt-get install libonnx-testdata puts it in %s", suiteDir)
	}
	if testing.Short() {
		t.Skip("short")
	}
	dir := t.TempDir()
	written, refused := 0, map[string]int{}
	for i, path := range cases {
		name := filepath.Base(filepath.Dir(path))
		g, err := onnx.Load(path, onnx.Options{})
		if err != nil {
			continue // the reader's own suite tells
		}
		in := map[string]*model.Tensor{}
		for k, v := range g.Inputs {
			x := readTensorProto(filepath.Join(filepath.Dir(path), "test_data_set_0", fmt.Sprintf("input_%d.pb", k)))
			if x == nil || v.Type != model.TypeTensor || x.DType != v.DType || !x.Shape.Equal(v.Shape) {
				in = nil
				break
			}
			in[v.Name] = x
		}
		if in == nil {
			continue
		}
		p := filepath.Join(dir, fmt.Sprint(i)+".mlpackage")
		err = nil
		for from := len(g.Inputs); from >= min(1, len(g.Inputs)); from-- {
			f := fixInputs(g, in, from)
			if ops.InferGraph(f) != nil {
				continue
			}
			if err = coreml.Save(p, f, coreml.Options{}); err == nil {
				g = f
				break
			}
		}
		if err != nil {
			msg := err.Error()
			refused[msg[strings.Index(msg, ".mlpackage: ")+12:]]++
			continue
		}
		if _, err := os.Stat(p); err != nil {
			continue
		}
		back, err := coreml.Load(p, coreml.Options{})
		if err != nil {
			t.Errorf("%s: written and not read: %v", name, err)
			continue
		}
		written++
		if err := agree(g, back, in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Logf("%d of %d cases written", written, len(cases))
	if os.Getenv("SHOW") != "" {
		for m, n := range refused {
			fmt.Println(n, m)
		}
	}
	if written < 450 {
		t.Errorf("only %d cases written", written)
	}
}

// agree runs two graphs, whose inputs are in the same order, on one input.
func agree(a, b *model.Graph, in map[string]*model.Tensor) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	want, err := ops.EvalGraph(ctx, a, in, ops.Options{})
	if err != nil {
		return nil // the operators' own suite tells
	}
	inB := map[string]*model.Tensor{}
	for i, v := range b.Inputs {
		inB[v.Name] = in[a.Inputs[i].Name].Convert(v.DType)
	}
	got, err := ops.EvalGraph(ctx, b, inB, ops.Options{})
	if err != nil {
		return err
	}
	for i, v := range a.Outputs {
		x, y := want[v.Name], got[b.Outputs[i].Name]
		if !x.Shape.Equal(y.Shape) {
			return fmt.Errorf("output %s has shape %v, was %v", v.Name, y.Shape, x.Shape)
		}
		if x.DType == model.String {
			continue
		}
		for k := range x.Len() {
			p, q := x.At(k), y.At(k)
			if p != q && !(p != p && q != q) && !(abs(p-q) <= 1e-5*(1+abs(p))) {
				return fmt.Errorf("output %s is %v at %d, was %v", v.Name, q, k, p)
			}
		}
	}
	return nil
}

func abs(x float64) float64 { return max(x, -x) }
