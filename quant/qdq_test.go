package quant

import (
	"math"
	"os"
	"testing"

	"github.com/sbinet/npyio"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/model/passes"
)

func readNpy(t *testing.T, name string) []float32 {
	t.Helper()
	f, err := os.Open(testutil.Shared(t, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var v []float32
	if err := npyio.Read(f, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestQDQModel takes a W8A8 model as it is: its dequantised constants become
// stored codes, every convolution is int8, and the results stay those of ONNX
// Runtime within the rounding of a few codes.
func TestQDQModel(t *testing.T) {
	g, err := onnx.Load(testutil.Shared(t, "fixtures/onnx/mobilenet_v2_qdq.onnx"), onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	image, want := readNpy(t, "fixtures/onnx/image224.npy"), readNpy(t, "fixtures/onnx/mobilenet_v2_qdq.logits.npy")
	if err := passes.Default(g); err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"stored", "fp16"} {
		s := Scheme{Name: "stored"}
		if scheme != "stored" {
			s = mustParse(t, scheme)
		}
		out, r, err := Apply(g, s, Options{Ranges: noRanges{t}})
		if err != nil {
			t.Fatal(err)
		}
		net, err := model.Lower(out)
		if err != nil {
			t.Fatal(err)
		}
		convs := 0
		for _, l := range net.Layers {
			switch l.Kind {
			case model.KindConv, model.KindDepthwise, model.KindLinear:
				convs++
				if !l.Int8(l.Kind) {
					t.Errorf("%s: layer %q is not int8 (operands %v, weight %v)", scheme, l.Name, l.QuantIn, l.QuantWeight)
				}
			}
		}
		if convs != 53 {
			t.Errorf("%s: %d convolutions and linear layers", scheme, convs)
		}
		x := model.Of(image, 1, 3, 224, 224).Convert(out.Inputs[0].DType)
		got := run(t, out, map[string]*model.Tensor{g.Inputs[0].Name: x})
		var e, p float64
		for i, w := range want {
			d := got[i] - float64(w)
			e, p = e+d*d, p+float64(w)*float64(w)
		}
		snr := 10 * math.Log10(p/e)
		t.Logf("%s: %.1f dB from ONNX Runtime; %v", scheme, snr, r.Notes)
		if snr < 40 {
			t.Errorf("%s: %.1f dB", scheme, snr)
		}
	}
}
