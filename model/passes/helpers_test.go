package passes

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// gb builds graphs for tests; ops.InferGraph gives the shapes.
type gb struct {
	g    *model.Graph
	n    int
	seed uint64
}

func newGB() *gb { return &gb{g: &model.Graph{Name: "test"}, seed: 1} }

func (b *gb) name(p string) string { b.n++; return fmt.Sprintf("%s%d", p, b.n) }

func (b *gb) input(d model.DType, shape ...int) *model.Value {
	v := &model.Value{Name: b.name("in"), DType: d, Shape: shape}
	b.g.Inputs = append(b.g.Inputs, v)
	return v
}

func (b *gb) output(vs ...*model.Value) {
	for _, v := range vs {
		v.Name = b.name("result")
		b.g.Outputs = append(b.g.Outputs, v)
	}
}

func (b *gb) op(op model.Op, attrs model.Attrs, in ...*model.Value) *model.Value {
	n := &model.Node{Name: b.name("n"), Op: op, Attrs: attrs, Inputs: in}
	v := &model.Value{Name: b.name("v"), Producer: n}
	n.Outputs = []*model.Value{v}
	b.g.Nodes = append(b.g.Nodes, n)
	return v
}

// rnd returns a constant of values on -1..1, plus shift.
func (b *gb) rnd(shift float64, shape ...int) *model.Value {
	t := random(model.Float32, &b.seed, shape...)
	for i := range t.Len() {
		t.Set(i, t.At(i)+shift)
	}
	return b.tensor(t)
}

func (b *gb) tensor(t *model.Tensor) *model.Value {
	return &model.Value{Name: b.name("c"), DType: t.DType, Shape: t.Shape, Const: model.NewConst(t)}
}

func (b *gb) f(v float32) *model.Value    { return b.tensor(model.Scalar(v)) }
func (b *gb) i64(v ...int64) *model.Value { return b.tensor(model.Of(v)) }

func (b *gb) graph(t fataler) *model.Graph {
	t.Helper()
	if err := ops.InferGraph(b.g); err != nil {
		t.Fatalf("infer: %v", err)
	}
	if err := b.g.Validate(true); err != nil {
		t.Fatalf("validate: %v", err)
	}
	return b.g
}

type fataler interface {
	Fatalf(string, ...any)
	Helper()
}

func random(d model.DType, seed *uint64, shape ...int) *model.Tensor {
	t := model.NewTensor(d, shape...)
	for i := range t.Len() {
		*seed = *seed*6364136223846793005 + 1442695040888963407
		t.Set(i, float64(int64(*seed)>>40)/(1<<23))
	}
	return t
}

// inputsFor returns seeded inputs; integer inputs are zeros.
func inputsFor(g *model.Graph) map[string]*model.Tensor {
	in := map[string]*model.Tensor{}
	seed := uint64(99)
	for _, v := range g.Inputs {
		if v.DType.IsFloat() {
			in[v.Name] = random(v.DType, &seed, v.Shape...)
		} else {
			in[v.Name] = model.NewTensor(v.DType, v.Shape...)
		}
	}
	return in
}

func eval(t fataler, g *model.Graph) map[string]*model.Tensor {
	t.Helper()
	out, err := ops.EvalGraph(context.Background(), g, inputsFor(g), ops.Options{Float64: true})
	if err != nil {
		t.Fatalf("eval: %v", err)
	}
	return out
}

// same compares outputs relative to the largest element.
func same(t fataler, want, got map[string]*model.Tensor, tol float64) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d outputs, want %d", len(got), len(want))
	}
	for name, w := range want {
		g := got[name]
		if g == nil || !g.Shape.Equal(w.Shape) {
			t.Fatalf("output %q: %v, want shape %v", name, g, w.Shape)
		}
		top := 1e-30
		for i := range w.Len() {
			top = math.Max(top, math.Abs(w.At(i)))
		}
		for i := range w.Len() {
			if d := math.Abs(w.At(i) - g.At(i)); !(d <= tol*top) {
				t.Fatalf("output %q[%d]: %v, want %v (largest %v)", name, i, g.At(i), w.At(i), top)
			}
		}
	}
}

func opsOf(g *model.Graph) string {
	var s []string
	for _, n := range g.Nodes {
		s = append(s, string(n.Op))
	}
	return strings.Join(s, " ")
}

// check runs Default on a copy of g and checks that outputs, interface and
// validity are kept and that a second run changes nothing. Folded constants
// are rounded to fp32 once more, which tol has to cover.
func check(t fataler, g *model.Graph, tol float64) *model.Graph {
	t.Helper()
	want := eval(t, g)
	c := g.Clone()
	if err := Default(c); err != nil {
		t.Fatalf("%v", err)
	}
	if err := c.Validate(true); err != nil {
		t.Fatalf("%v\n%s", err, opsOf(c))
	}
	for i, v := range g.Outputs {
		w := c.Outputs[i]
		if v.Name != w.Name || v.DType != w.DType || !v.Shape.Equal(w.Shape) {
			t.Fatalf("output %v became %v", v, w)
		}
	}
	same(t, want, eval(t, c), tol)
	// Shapes written by the passes are those that inference finds.
	d := c.Clone()
	if err := ops.InferGraph(d); err != nil {
		t.Fatalf("infer after passes: %v", err)
	}
	for i, n := range c.Nodes {
		for j, v := range n.Outputs {
			if w := d.Nodes[i].Outputs[j]; v != nil && (v.DType != w.DType || !v.Shape.Equal(w.Shape)) {
				t.Fatalf("node %q (%s): %v, inferred %v", n.Name, n.Op, v, w)
			}
		}
	}
	if err := Default(d); err != nil {
		t.Fatalf("second run: %v", err)
	}
	if opsOf(c) != opsOf(d) {
		t.Fatalf("not idempotent:\n%s\n%s", opsOf(c), opsOf(d))
	}
	return c
}

// forbid makes every large constant fail when its values are asked for.
func forbid(g *model.Graph) {
	for _, v := range g.Consts() {
		if v.Const.Elems() > eagerElems {
			v.Const.Storage = tripwire{v.Const.DenseBytes()}
		}
	}
}

type tripwire struct{ n int64 }

func (w tripwire) Form() model.Form   { return model.FormDense }
func (w tripwire) StoredBytes() int64 { return w.n }
func (w tripwire) Decode(model.DType, model.Shape) (*model.Tensor, error) {
	return nil, fmt.Errorf("a weight was computed")
}
