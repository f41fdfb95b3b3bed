package passes

import (
	"context"
	"math"
	"testing"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/model/ops"
)

// Real exports keep their function, and quantized ones lower to int8 layers.
func TestExports(t *testing.T) {
	for _, c := range []struct {
		name       string
		layers     int // after lowering
		int8Layers int
		tol        float64
	}{
		{"mnist", 6, 0, 1e-5},
		{"squeezenet1_1", 39, 0, 1e-5},
		{"ultraface_rfb_320", 72, 0, 1e-5},
		// Scales that batch norms and exporters have folded round differently
		// in the last bit, which may move a code by one; nothing does here.
		{"mobilenet_v2_qdq", 66, 53, 1e-5},
		{"mobilenet_v2_qoperator", 66, 53, 1e-5},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g, err := onnx.Load(testutil.Shared(t, "fixtures/onnx/"+c.name+".onnx"), onnx.Options{})
			if err != nil {
				t.Fatal(err)
			}
			in := inputsFor(g)
			o := ops.Options{Float64: c.int8Layers == 0}
			want, err := ops.EvalGraph(context.Background(), g, in, o)
			if err != nil {
				t.Fatal(err)
			}
			if err := Default(g); err != nil {
				t.Fatal(err)
			}
			if err := g.Validate(true); err != nil {
				t.Fatal(err)
			}
			got, err := ops.EvalGraph(context.Background(), g, in, o)
			if err != nil {
				t.Fatal(err)
			}
			same(t, want, got, c.tol)
			for _, y := range got {
				if v := y.At(0); math.IsNaN(v) {
					t.Error("an output is not a number")
				}
			}
			net, err := model.Lower(g)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, l := range net.Layers {
				if l.Int8(l.Kind) {
					n++
				}
			}
			if len(net.Layers) != c.layers || n != c.int8Layers {
				t.Errorf("%d layers, %d of them int8; want %d and %d", len(net.Layers), n, c.layers, c.int8Layers)
			}
		})
	}
}
