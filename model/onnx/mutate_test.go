package onnx

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// TestMutated damages the attributes, shapes and types of the node suite's
// graphs. Inference and evaluation must agree: what evaluates must have been
// inferred, with a shape that fits, and nothing may fail by a run-time panic.
func TestMutated(t *testing.T) {
	cases, _ := filepath.Glob(filepath.Join(suiteDir, "*", "model.onnx"))
	if len(cases) == 0 {
		t.Skip("the node suite of ONNX is not installed (apt-get install libonnx-testdata)")
	}
	r := rand.New(rand.NewPCG(21, 4))
	rounds := 4
	if testing.Short() {
		rounds = 1
	}
	evaluated := 0
	for _, path := range cases {
		name := filepath.Base(filepath.Dir(path))
		g, err := Load(path, Options{})
		if err != nil || len(g.Nodes) == 0 {
			continue
		}
		in := map[string]ops.Datum{}
		for i, v := range g.Inputs {
			d, err := readDatum(filepath.Join(filepath.Dir(path), "test_data_set_0", fmt.Sprintf("input_%d.pb", i)), v.Type)
			if err != nil {
				t.Fatal(err)
			}
			in[v.Name] = declared(d, v.DType)
		}
		for range rounds {
			h, feeds := g.Clone(), maps.Clone(in)
			what := mutate(r, h, feeds)
			inferErr := ops.InferGraph(h)
			if inferErr == nil && h.Validate(false) == nil {
				if _, err := roundTrip(h); err != nil {
					t.Errorf("%s, %s: round trip: %v", name, what, err)
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			start := time.Now()
			out, evalErr := ops.EvalGraphData(ctx, h, feeds, ops.Options{MaxBytes: 1 << 24})
			cancel()
			if d := time.Since(start); d > 4*time.Second {
				t.Errorf("%s, %s: evaluation takes %v", name, what, d)
			}
			for _, err := range []error{inferErr, evalErr} {
				if err != nil && strings.Contains(err.Error(), "runtime error") {
					t.Errorf("%s, %s: %v", name, what, err)
				}
			}
			if evalErr != nil {
				continue
			}
			evaluated++
			if inferErr != nil {
				if strings.Contains(inferErr.Error(), "block body") {
					continue // inference looks into blocks that run zero times
				}
				t.Errorf("%s, %s: evaluates, but inference says: %v", name, what, inferErr)
				continue
			}
			for _, v := range h.Outputs {
				if d := out[v.Name]; d.Tensor != nil {
					if err := fits(v, d.Tensor); err != nil {
						t.Errorf("%s, %s: %v", name, what, err)
					}
				}
			}
		}
	}
	t.Logf("%d mutated graphs evaluated", evaluated)
	if evaluated < len(cases)/10 {
		t.Errorf("only %d mutated graphs evaluated", evaluated)
	}
}

// mutate changes one or two things of a graph and its inputs, and says what.
func mutate(r *rand.Rand, g *model.Graph, in map[string]ops.Datum) string {
	var what []string
	for range 1 + r.IntN(2) {
		n := g.Nodes[r.IntN(len(g.Nodes))]
		keys := slices.Sorted(maps.Keys(n.Attrs))
		small := func() int { return []int{-7, -3, -2, -1, 0, 1, 2, 3, 4, 5, 9, 1 << 40, -1 << 62}[r.IntN(13)] }
		switch k := r.IntN(10); {
		case k < 4 && len(keys) > 0:
			key := keys[r.IntN(len(keys))]
			switch a := n.Attrs[key].(type) {
			case int:
				n.Attrs[key] = small()
			case []int:
				b := slices.Clone(a)
				if len(b) > 0 && r.IntN(3) > 0 {
					b[r.IntN(len(b))] = small()
				} else {
					b = append(b, small())
				}
				n.Attrs[key] = b
			case float64:
				n.Attrs[key] = []float64{0, -1, 0x1p100, a * 2}[r.IntN(4)]
			default:
				delete(n.Attrs, key)
			}
			what = append(what, fmt.Sprintf("%s of %s = %v", key, n.Op, n.Attrs[key]))
		case k < 8 && len(g.Inputs) > 0:
			v := g.Inputs[r.IntN(len(g.Inputs))]
			t := in[v.Name].Tensor
			if t == nil || t.DType == model.String {
				continue
			}
			shape := slices.Clone(t.Shape)
			switch {
			case len(shape) > 0 && r.IntN(3) > 0:
				shape[r.IntN(len(shape))] = r.IntN(6)
			case len(shape) > 0 && r.IntN(2) > 0:
				shape = shape[1:]
			default:
				shape = append(shape, 1+r.IntN(3))
			}
			d := t.DType
			if r.IntN(5) == 0 {
				d = []model.DType{model.Float32, model.Int64, model.Bool, model.UInt8, model.Float16, model.Int4}[r.IntN(6)]
			}
			x := model.NewTensor(d, shape...)
			for i := range x.Len() {
				if t.Len() > 0 && d.IsFloat() {
					x.Set(i, t.At(i%t.Len()))
				} else if t.Len() > 0 {
					x.SetInt(i, t.IntAt(i%t.Len()))
				}
			}
			if r.IntN(4) == 0 && d.IsInt() && x.Len() > 0 {
				x.SetInt(r.IntN(x.Len()), int64(small()))
			}
			in[v.Name] = ops.TensorDatum(x)
			v.DType, v.Shape, v.Dims = d, x.Shape, nil
			what = append(what, fmt.Sprintf("%s is %v", v.Name, v))
		case k == 8 && len(n.Inputs) > 0:
			i := r.IntN(len(n.Inputs))
			n.Inputs[i] = nil
			what = append(what, fmt.Sprintf("%s without input %d", n.Op, i))
		default:
			delete(n.Attrs, "axis")
			n.Inputs = append(n.Inputs, n.Inputs...)
			what = append(what, fmt.Sprintf("%s with inputs twice", n.Op))
		}
	}
	return strings.Join(what, ", ")
}
