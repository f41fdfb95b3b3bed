package onnx_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/triune-sim/triune/internal/npy"
	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/exec"
	"github.com/triune-sim/triune/units/ne"
)

// TestQuantizedFilesOnNE runs the quantized files of another tool, in both of
// ONNX's forms, in the arithmetic of the Neural Engine: the logits agree with
// those of ONNX Runtime to 45 dB.
func TestQuantizedFilesOnNE(t *testing.T) {
	for _, name := range []string{"mobilenet_v2_qdq", "mobilenet_v2_qoperator"} {
		g, err := onnx.Load(testutil.Shared(t, "fixtures/onnx/"+name+".onnx"), onnx.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := passes.Default(g); err != nil {
			t.Fatal(err)
		}
		net, err := model.Lower(g)
		if err != nil {
			t.Fatal(err)
		}
		o := exec.Options{Units: slices.Repeat([]units.Kind{units.NE}, len(net.Layers))}
		o.Numerics[units.NE] = ne.Arithmetic()
		prog, err := exec.Compile(net, o)
		if err != nil {
			t.Fatal(err)
		}
		read := func(file string) *model.Tensor {
			x, err := npy.Load(testutil.Shared(t, "fixtures/onnx/"+file))
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
		got, err := prog.Run(context.Background(), []*model.Tensor{read("image224.npy")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := read(name + ".logits.npy")
		var signal, noise float64
		for i := range want.Len() {
			d := got[0].At(i) - want.At(i)
			signal, noise = signal+want.At(i)*want.At(i), noise+d*d
		}
		db := 10 * math.Log10(signal/noise)
		t.Logf("%s: %.1f dB", name, db)
		if !(db >= 45) {
			t.Errorf("%s: %.1f dB, want at least 45", name, db)
		}
	}
}
