package quant

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// randomGraph draws a graph of the operators that activation rules know, views
// and operators they do not know in between.
func randomGraph(r *rapid.T) *model.Graph {
	b, x := newGraph(1, 4, 4, 4)
	live := []*model.Value{x}
	shape := map[*model.Value]model.Shape{x: {1, 4, 4, 4}}
	pick := func() *model.Value { return live[rapid.IntRange(max(0, len(live)-4), len(live)-1).Draw(r, "operand")] }
	for i := range rapid.IntRange(1, 12).Draw(r, "nodes") {
		name := fmt.Sprintf("n%d", i)
		v := pick()
		s := shape[v]
		var y *model.Value
		out := s.Clone()
		switch op := rapid.SampledFrom([]string{"Conv", "Relu", "Sigmoid", "Add", "Mul", "Concat", "MaxPool", "Transpose", "Reshape", "Softmax", "Neg", "Softplus"}).Draw(r, "op"); op {
		case "Conv":
			out[1] = rapid.SampledFrom([]int{4, 6}).Draw(r, "out")
			y = b.conv(name, v, out[1], s[1], 1)
		case "Relu", "Sigmoid", "Neg", "Softplus":
			y = b.node(model.Op(op), name, nil, v)
		case "Softmax":
			y = b.node("Softmax", name, model.Attrs{"axis": 1}, v)
		case "Add", "Mul":
			w := pick()
			if !shape[w].Equal(s) {
				w = v
			}
			y = b.node(model.Op(op), name, nil, v, w)
		case "Concat":
			y = b.node("Concat", name, model.Attrs{"axis": 1}, v, v)
			out[1] *= 2
		case "MaxPool":
			y = b.node("MaxPool", name, model.Attrs{"kernel_shape": []int{1, 1}, "strides": []int{1, 1}}, v)
		case "Transpose":
			y = b.node("Transpose", name, model.Attrs{"perm": []int{0, 1, 3, 2}}, v)
		case "Reshape":
			y = b.node("Reshape", name, nil, v, constant(name+".shape", model.Of([]int64{1, int64(s[1]), 2, 8})))
			y = b.node("Reshape", name+"b", nil, y, constant(name+"b.shape", model.Of([]int64{1, int64(s[1]), 4, 4})))
		}
		if out[1] > 16 {
			continue
		}
		live = append(live, y)
		shape[y] = out
	}
	last := live[len(live)-1]
	if last == x {
		last = b.node("Relu", "end", nil, x)
	}
	b.g.Outputs = []*model.Value{last}
	if len(live) > 3 && rapid.Bool().Draw(r, "second output") && live[1] != last && live[1] != x {
		b.g.Outputs = append(b.g.Outputs, live[1])
	}
	if err := ops.InferGraph(b.g); err != nil {
		r.Fatal(err)
	}
	return b.g
}

// TestRandomGraphs: whatever the graph, the quantised one is well formed, has
// the same operators and interface, hands codes only to operators that take
// them, and computes nearly the same.
func TestRandomGraphs(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		g := randomGraph(r)
		count := func(g *model.Graph) map[model.Op]int {
			m := map[model.Op]int{}
			for _, n := range g.Nodes {
				m[n.Op]++
			}
			return m
		}
		before := count(g)
		s, err := Parse("fp32+" + rapid.SampledFrom([]string{"w8a8", "a8-ptq", "a8-lin", "w8+a8-lin-ptq"}).Draw(r, "scheme"))
		if err != nil {
			r.Fatal(err)
		}
		out, _, err := Apply(g, s, Options{})
		if err != nil {
			r.Fatal(err)
		}
		if err := out.Validate(true); err != nil {
			r.Fatal(err)
		}
		if _, err := model.Lower(out); err != nil {
			r.Fatal(err)
		}
		after := count(out)
		for op, n := range before {
			if after[op] != n {
				r.Fatalf("%d %s became %d", n, op, after[op])
			}
		}
		for i, v := range out.Outputs {
			if v.Name != g.Outputs[i].Name || v.DType != model.Float32 {
				r.Fatalf("output %d is %v, was %v", i, v, g.Outputs[i])
			}
		}
		for _, n := range out.Nodes {
			for i, v := range n.Inputs {
				if v.Const == nil && !v.DType.IsFloat() && n.Op != "DequantizeLinear" && !views[n.Op] {
					r.Fatalf("node %q (%s) reads codes at operand %d", n.Name, n.Op, i)
				}
			}
			if n.Op == "QuantizeLinear" && n.In(0).Producer != nil && n.In(0).Producer.Op == "DequantizeLinear" {
				r.Fatalf("a dequantised tensor is quantised again at %q", n.Name)
			}
		}
		// Shapes and types that inference finds are those set.
		again := out.Clone()
		if err := ops.InferGraph(again); err != nil {
			r.Fatal(err)
		}
		for i, n := range again.Nodes {
			for j, v := range n.Outputs {
				if w := out.Nodes[i].Outputs[j]; w.DType != v.DType || !w.Shape.Equal(v.Shape) {
					r.Fatalf("%v, inferred %v", w, v)
				}
			}
		}
		in, err := seededInputs(g, 0)
		if err != nil {
			r.Fatal(err)
		}
		want, err := ops.EvalGraph(t.Context(), g, in, ops.Options{})
		if err != nil {
			r.Fatal(err)
		}
		got, err := ops.EvalGraph(t.Context(), out, in, ops.Options{})
		if err != nil {
			r.Fatal(err)
		}
		for name, w := range want {
			var e, top float64
			for i := range w.Len() {
				e = max(e, math.Abs(got[name].At(i)-w.At(i)))
				top = max(top, math.Abs(w.At(i)))
			}
			if e > 0.25*top+0.05 {
				r.Fatalf("output %s is off by %g of %g", name, e, top)
			}
		}
	})
}
