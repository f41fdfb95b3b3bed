package runtime_test

import (
	"compress/gzip"
	"context"
	"io"
	"math"
	"os"
	"testing"

	"github.com/sbinet/npyio"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units"
)

func npy(t testing.TB, name string) *model.Tensor {
	t.Helper()
	f, err := os.Open(testutil.Shared(t, "fixtures/onnx/"+name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := npyio.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var v []float32
	if err := r.Read(&v); err != nil {
		t.Fatal(err)
	}
	return model.Of(v, r.Header.Descr.Shape...)
}

// relError is the largest difference relative to the largest expected value.
func relError(got, want *model.Tensor) float64 {
	worst, scale := 0.0, 0.0
	for i := range want.Len() {
		w := want.At(i)
		scale, worst = max(scale, math.Abs(w)), max(worst, math.Abs(got.At(i)-w))
	}
	return worst / scale
}

// Real files in fp32 on the CPU give the outputs of another runtime.
func TestFilesFP32(t *testing.T) {
	for _, f := range []struct{ file, in, out, want string }{
		{"mobilenet_v2.onnx", "image224.npy", "logits", "mobilenet_v2.logits.npy"},
		{"squeezenet1_1.onnx", "image224.npy", "logits", "squeezenet1_1.logits.npy"},
		{"ultraface_rfb_320.onnx", "image_ultraface.npy", "boxes", "ultraface_rfb_320.boxes.npy"},
		{"ultraface_rfb_320.onnx", "image_ultraface.npy", "scores", "ultraface_rfb_320.scores.npy"},
	} {
		s := open(t, testutil.Shared(t, "fixtures/onnx/"+f.file), runtime.WithScheme("fp32"), runtime.WithUnits(units.CPUOnly))
		got := run(t, s, npy(t, f.in)).Outputs[f.out]
		if e := relError(got, npy(t, f.want)); e > 1e-4 {
			t.Errorf("%s: output %s is off by %.3g of the largest", f.file, f.out, e)
		}
	}
}

// Quantized files, in either of ONNX's forms, run as they are stored: as int8
// on the Neural Engine. Against another runtime only codes next to a rounding
// boundary differ; package units/exec derives that bound (half of the noise of
// quantization, 0.037 of the largest logit for this network and image).
func TestFilesW8A8(t *testing.T) {
	for _, f := range []string{"mobilenet_v2_qdq", "mobilenet_v2_qoperator"} {
		s := open(t, testutil.Shared(t, "fixtures/onnx/"+f+".onnx"), runtime.WithScheme("stored"), runtime.WithUnits(units.CPUAndNE))
		ints := 0
		for i, l := range s.Compiled().Net.Layers {
			if l.Int8(l.Kind) && s.Plan().Units[i] == units.NE {
				ints++
			}
		}
		if ints < 50 { // 52 convolutions and the classifier
			t.Errorf("%s: %d layers run as int8 on the NE", f, ints)
		}
		got := run(t, s, npy(t, "image224.npy"))
		e := relError(got.Outputs["logits"], npy(t, f+".logits.npy"))
		t.Logf("%s: %.2g from the other runtime", f, e)
		if e > 0.037/2 {
			t.Errorf("%s: logits are off by %.3g of the largest", f, e)
		}
	}
}

// The trained digit classifier gets 9,891 of the 10,000 test digits right in
// fp32, and as many give or take a few at the decision boundary elsewhere.
func TestDigits(t *testing.T) {
	read := func(name string, header int) []byte {
		f, err := os.Open(testutil.Shared(t, "fixtures/onnx/"+name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return b[header:]
	}
	pixels, labels := read("t10k-images-idx3-ubyte.gz", 16), read("t10k-labels-idx1-ubyte.gz", 8)
	digit := func(i int) *model.Tensor {
		x := model.NewTensor(model.Float32, 1, 1, 28, 28)
		for k, p := range pixels[i*784 : (i+1)*784] {
			model.View[float32](x)[k] = float32(p)
		}
		return x
	}
	var samples []map[string]*model.Tensor
	for i := range 16 {
		samples = append(samples, map[string]*model.Tensor{"Input3": digit(i)})
	}
	for _, c := range []struct {
		scheme   string
		mask     units.Mask
		lo, hi   int
		settings []runtime.Option
	}{
		{"fp32", units.CPUOnly, 9891, 9891, nil},
		{"fp16", units.CPUAndNE, 9881, 9901, nil},
		{"w8a8", units.CPUAndNE, 9791, 9991, []runtime.Option{runtime.WithCalibration(samples...)}},
	} {
		s := open(t, testutil.Shared(t, "fixtures/onnx/mnist.onnx"), append(c.settings, runtime.WithScheme(c.scheme), runtime.WithUnits(c.mask), runtime.WithThreads(1))...)
		right := 0
		for i, l := range labels {
			r, err := s.Run(context.Background(), map[string]*model.Tensor{"Input3": digit(i)})
			if err != nil {
				t.Fatal(err)
			}
			best, out := 0, r.Outputs[s.Outputs()[0].Name].Float32s()
			for k, v := range out {
				if v > out[best] {
					best = k
				}
			}
			if best == int(l) {
				right++
			}
		}
		t.Logf("%s on %v: %d of %d right", c.scheme, c.mask, right, len(labels))
		if right < c.lo || right > c.hi {
			t.Errorf("%s on %v: %d right, want %d to %d", c.scheme, c.mask, right, c.lo, c.hi)
		}
	}
}
