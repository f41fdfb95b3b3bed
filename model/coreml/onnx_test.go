package coreml_test

import (
	"path/filepath"
	"testing"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model/coreml"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/quant"
)

// TestFromONNX converts ONNX files: fp16, and the quantized one as W8A8. What
// is read back computes what was written.
func TestFromONNX(t *testing.T) {
	for _, name := range []string{"mnist", "squeezenet1_1", "mobilenet_v2", "ultraface_rfb_320", "mobilenet_v2_qdq"} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "mnist" {
				t.Skip("short")
			}
			g, err := onnx.Load(testutil.Shared(t, "fixtures/onnx/"+name+".onnx"), onnx.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := passes.Default(g); err != nil {
				t.Fatal(err)
			}
			s, err := quant.Parse("fp16")
			if err != nil {
				t.Fatal(err)
			}
			q, _, err := quant.Apply(g, s, quant.Options{})
			if err != nil {
				t.Fatal(err)
			}
			p := filepath.Join(t.TempDir(), name+".mlpackage")
			if err := coreml.Save(p, q, coreml.Options{}); err != nil {
				t.Fatal(err)
			}
			back, err := coreml.Load(p, coreml.Options{})
			if err != nil {
				t.Fatal(err)
			}
			tol := 1e-3
			if name == "mobilenet_v2_qdq" {
				// Core ML's scales have the type of the program: fp32 ones
				// are rounded to fp16, which moves some codes by a step.
				tol = 1e-2
			}
			sameOutputs(t, q, back, tol)
		})
	}
}
