package exec_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/units"
)

// Core ML packages written by coremltools run on every unit: within 1e-4 of
// float64 on the CPU, and the rounding of outputs that are typed fp16; within
// fp16's precision on the other units. Packages that quantize activations are
// within a few steps.
func TestCoreMLPackages(t *testing.T) {
	var paths []string
	for _, folder := range []string{"plain", "compressed", "special"} {
		p, err := filepath.Glob(filepath.Join(testutil.Shared(t, "fixtures/mlpackage/"+folder), "*.mlpackage"))
		if err != nil || len(p) == 0 {
			t.Fatalf("no packages in %s (%v)", folder, err)
		}
		paths = append(paths, p...)
	}
	ran := 0
	for _, path := range paths {
		name := filepath.Base(path)
		g, err := coreml.Load(path, coreml.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		in := roundInputs(randomInputs(g, 5))
		want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{Float64: true})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		net := lower(t, g)
		quantized := slices.ContainsFunc(net.Graph.Nodes, func(n *model.Node) bool { return n.Op == "QuantizeLinear" })
		ran++
		for k, tol := range []float64{1e-4 + 1.0/2048, 0.02, 0.02} {
			if quantized {
				tol = 0.1
			}
			for i, o := range run(t, net, on(net, units.Kind(k)), in) {
				v := g.Outputs[i]
				if w := want[v.Name]; v.DType.IsFloat() {
					if e := relError(o, w); e > tol {
						t.Errorf("%s on %v: output %s is off by %.3g", name, units.Kind(k), v.Name, e)
					}
				} else if v.DType != model.String && relError(o, w) > 0 && k == 0 {
					t.Errorf("%s: output %s differs", name, v.Name)
				}
			}
		}
	}
	t.Logf("%d packages", ran)
}
