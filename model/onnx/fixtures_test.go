package onnx

import (
	"compress/gzip"
	"context"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sbinet/npyio"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// readNpy reads a float32 array of the shared fixtures.
func readNpy(t testing.TB, name string) *model.Tensor {
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

// relErr is the largest difference relative to the largest expected value.
func relErr(t testing.TB, got, want *model.Tensor) float64 {
	t.Helper()
	if !got.Shape.Equal(want.Shape) {
		t.Fatalf("shape %v, want %v", got.Shape, want.Shape)
	}
	var diff, top float64
	for i := range want.Len() {
		d := math.Abs(got.At(i) - want.At(i))
		if d != d {
			t.Fatalf("element %d is %v, want %v", i, got.At(i), want.At(i))
		}
		diff, top = max(diff, d), max(top, math.Abs(want.At(i)))
	}
	return diff / top
}

var floatFixtures = []struct {
	model, input, image string
	outputs             map[string]string
}{
	{"mobilenet_v2", "image", "image224.npy", map[string]string{"logits": "mobilenet_v2.logits.npy"}},
	{"squeezenet1_1", "image", "image224.npy", map[string]string{"logits": "squeezenet1_1.logits.npy"}},
	{"ultraface_rfb_320", "input", "image_ultraface.npy", map[string]string{"scores": "ultraface_rfb_320.scores.npy", "boxes": "ultraface_rfb_320.boxes.npy"}},
}

// TestFixtures runs real networks in fp32 and float64 against the outputs of
// ONNX Runtime.
func TestFixtures(t *testing.T) {
	for _, f := range floatFixtures {
		t.Run(f.model, func(t *testing.T) {
			g, err := Load(testutil.Shared(t, "fixtures/onnx/"+f.model+".onnx"), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Validate(true); err != nil {
				t.Fatal(err)
			}
			in := map[string]*model.Tensor{f.input: readNpy(t, f.image)}
			for _, double := range []bool{false, true} {
				out, err := ops.EvalGraph(context.Background(), g, in, ops.Options{Float64: double})
				if err != nil {
					t.Fatal(err)
				}
				for name, file := range f.outputs {
					if out[name] == nil {
						t.Fatalf("no output %q among %v", name, out)
					}
					if e := relErr(t, out[name], readNpy(t, file)); e > 1e-4 {
						t.Errorf("%s, float64 %t: error %.3g relative to the largest value", name, double, e)
					} else {
						t.Logf("%s, float64 %t: error %.3g", name, double, e)
					}
				}
			}
		})
	}
}

// readIDX reads the bytes of a gzipped MNIST file after its header.
func readIDX(t testing.TB, name string, header int) []byte {
	t.Helper()
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

// TestMNIST classifies the first 1,000 test digits with the trained network,
// of which it gets 987 right. (Of all 10,000 it gets 9,891: TRIUNE_LONG=1 looks
// at all.)
func TestMNIST(t *testing.T) {
	g, err := Load(testutil.Shared(t, "fixtures/onnx/mnist.onnx"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	images, labels := readIDX(t, "t10k-images-idx3-ubyte.gz", 16), readIDX(t, "t10k-labels-idx1-ubyte.gz", 8)
	n, want := 1000, 987
	if os.Getenv("TRIUNE_LONG") != "" {
		n, want = len(labels), 9891
	}
	var right atomic.Int64
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			x := make([]float32, 784)
			for i := w; i < n; i += 2 {
				for k, p := range images[i*784 : (i+1)*784] {
					x[k] = float32(p)
				}
				out, err := ops.EvalGraph(context.Background(), g, map[string]*model.Tensor{"Input3": model.Of(x, 1, 1, 28, 28)}, ops.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				logits := out[g.Outputs[0].Name].Float32s()
				best := 0
				for k, v := range logits {
					if v > logits[best] {
						best = k
					}
				}
				if best == int(labels[i]) {
					right.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if r := int(right.Load()); r != want {
		t.Errorf("%d of %d right, want %d", r, n, want)
	}
}

// snr is the ratio of the signal to the difference, in dB.
func snr(got, want *model.Tensor) float64 {
	var signal, noise float64
	for i := range want.Len() {
		w, d := want.At(i), got.At(i)-want.At(i)
		signal, noise = signal+w*w, noise+d*d
	}
	return 10 * math.Log10(signal/noise)
}

// TestQuantizedFixtures runs the same network in QDQ form and as fused integer
// operators.
func TestQuantizedFixtures(t *testing.T) {
	for _, name := range []string{"mobilenet_v2_qdq", "mobilenet_v2_qoperator"} {
		t.Run(name, func(t *testing.T) {
			g, err := Load(testutil.Shared(t, "fixtures/onnx/"+name+".onnx"), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Validate(true); err != nil {
				t.Fatal(err)
			}
			out, err := ops.EvalGraph(context.Background(), g, map[string]*model.Tensor{g.Inputs[0].Name: readNpy(t, "image224.npy")}, ops.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got := out[g.Outputs[0].Name]
			if s := snr(got, readNpy(t, name+".logits.npy")); s < 45 {
				t.Errorf("SNR %.1f dB against ONNX Runtime, want at least 45", s)
			} else {
				t.Logf("SNR %.1f dB", s)
			}
		})
	}
}
