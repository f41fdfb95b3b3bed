package exec_test

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"os"
	"testing"

	"github.com/sbinet/npyio"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/units/exec"
)

// npy reads a float32 .npy file of the shared fixtures.
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

func load(t testing.TB, name string) *model.Graph {
	t.Helper()
	g, err := onnx.Load(testutil.Shared(t, "fixtures/onnx/"+name), onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// fixtures are real files with the outputs of another runtime.
var fixtures = []struct {
	file, input, in string
	outs            map[string]string
}{
	{"mobilenet_v2.onnx", "image", "image224.npy", map[string]string{"": "mobilenet_v2.logits.npy"}},
	{"squeezenet1_1.onnx", "image", "image224.npy", map[string]string{"": "squeezenet1_1.logits.npy"}},
	{"ultraface_rfb_320.onnx", "input", "image_ultraface.npy", map[string]string{"scores": "ultraface_rfb_320.scores.npy", "boxes": "ultraface_rfb_320.boxes.npy"}},
}

// In fp32 on the CPU the outputs of real files are within 1e-4, relative to
// the largest output, of what another runtime computes and of float64.
func TestFixturesFP32(t *testing.T) {
	pool := kernels.NewPool(2)
	defer pool.Close()
	for _, f := range fixtures {
		t.Run(f.file, func(t *testing.T) {
			g := load(t, f.file)
			in := map[string]*model.Tensor{f.input: npy(t, f.in)}
			got := run(t, lower(t, g), exec.Options{Pool: pool}, in)
			want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{Float64: true})
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range g.Outputs {
				file := f.outs[v.Name]
				if file == "" {
					file = f.outs[""]
				}
				ref := npy(t, file)
				e1, e2 := relError(got[i], ref), relError(got[i], want[v.Name])
				t.Logf("%s: %.2g from the other runtime, %.2g from float64", v.Name, e1, e2)
				if !got[i].Shape.Equal(ref.Shape) || e1 > 1e-4 || e2 > 1e-4 {
					t.Errorf("output %s: shape %v (want %v), errors %.3g and %.3g", v.Name, got[i].Shape, ref.Shape, e1, e2)
				}
			}
		})
	}
}

// mnist reads the test digits as one tensor [n,1,28,28] and their labels.
func mnist(t testing.TB) (*model.Tensor, []byte) {
	t.Helper()
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
		if n := int(binary.BigEndian.Uint32(b[4:])); n != 10000 {
			t.Fatalf("%s holds %d items", name, n)
		}
		return b[header:]
	}
	pix, labels := read("t10k-images-idx3-ubyte.gz", 16), read("t10k-labels-idx1-ubyte.gz", 8)
	x := model.NewTensor(model.Float32, len(labels), 1, 28, 28)
	for i, p := range pix {
		model.View[float32](x)[i] = float32(p)
	}
	return x, labels
}

// The trained MNIST network gets exactly 9,891 of the 10,000 test digits right.
func TestMNIST(t *testing.T) {
	pool := kernels.NewPool(2)
	defer pool.Close()
	p, err := exec.Compile(lower(t, load(t, "mnist.onnx")), exec.Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if right := countDigits(t, p); right != 9891 {
		t.Errorf("%d of 10000 digits right, want 9891", right)
	}
}

func countDigits(t testing.TB, p *exec.Program) int {
	x, labels := mnist(t)
	pix := x.Float32s()
	right := 0
	for i, l := range labels {
		out, err := p.Run(context.Background(), []*model.Tensor{model.Of(pix[i*784:(i+1)*784], 1, 1, 28, 28)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := out[0].Float32s()
		best := 0
		for k, v := range s {
			if v > s[best] {
				best = k
			}
		}
		if best == int(l) {
			right++
		}
	}
	return right
}
