package exec_test

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/units/exec"
)

// lower runs the standard passes on a copy of g and lowers it.
func lower(t testing.TB, g *model.Graph) *model.Network {
	t.Helper()
	g = g.Clone()
	if err := passes.Default(g); err != nil {
		t.Fatal(err)
	}
	net, err := model.Lower(g)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// randomInputs makes seeded inputs, standard normal where float.
func randomInputs(g *model.Graph, seed uint64) map[string]*model.Tensor {
	r := rand.New(rand.NewPCG(seed, 1))
	in := map[string]*model.Tensor{}
	for _, v := range g.Inputs {
		x := model.NewTensor(v.DType, v.Shape...)
		for i := range x.Len() {
			if v.DType.IsFloat() {
				x.Set(i, r.NormFloat64())
			} else {
				x.SetInt(i, int64(r.IntN(4)))
			}
		}
		in[v.Name] = x
	}
	return in
}

// run compiles and executes a network.
func run(t testing.TB, net *model.Network, o exec.Options, in map[string]*model.Tensor) []*model.Tensor {
	t.Helper()
	p, err := exec.Compile(net, o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var args []*model.Tensor
	for _, v := range net.Graph.Inputs {
		args = append(args, in[v.Name])
	}
	out, err := p.Run(context.Background(), args, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// relError is the largest difference relative to the largest expected value.
func relError(got, want *model.Tensor) float64 {
	worst, scale := 0.0, 0.0
	for i := range want.Len() {
		w := want.At(i)
		scale = max(scale, math.Abs(w))
		d := math.Abs(got.At(i) - w)
		if d != d {
			return math.Inf(1)
		}
		worst = max(worst, d)
	}
	if scale == 0 {
		return worst
	}
	return worst / scale
}

// check compares every output of g with the float64 reference.
func check(t *testing.T, g *model.Graph, o exec.Options, tol float64) {
	t.Helper()
	in := randomInputs(g, 7)
	want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{Float64: true})
	if err != nil {
		t.Fatal(err)
	}
	got := run(t, lower(t, g), o, in)
	for i, v := range g.Outputs {
		if !got[i].Shape.Equal(want[v.Name].Shape) {
			t.Fatalf("output %s has shape %v, want %v", v.Name, got[i].Shape, want[v.Name].Shape)
		}
		if e := relError(got[i], want[v.Name]); e > tol {
			t.Errorf("output %s: relative error %.3g > %.3g", v.Name, e, tol)
		} else {
			t.Logf("output %s: relative error %.3g", v.Name, e)
		}
	}
}

func TestZooAgainstFloat64(t *testing.T) {
	for _, name := range []string{"mobilenet_v2@64", "resnet18@64", "mobilevit_v2@64"} {
		t.Run(name, func(t *testing.T) {
			g, err := zoo.Build(name)
			if err != nil {
				t.Fatal(err)
			}
			check(t, g, exec.Options{Pool: kernels.NewPool(2)}, 1e-4)
		})
	}
}
