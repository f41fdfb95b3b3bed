package accuracy

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/triune-sim/triune/compare"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units"
)

// idx makes a file of the given shape.
func idx(shape []int, data []byte) []byte {
	b := []byte{0, 0, 8, byte(len(shape))}
	for _, d := range shape {
		b = append(b, byte(d>>24), byte(d>>16), byte(d>>8), byte(d))
	}
	return append(b, data...)
}

func zip(t *testing.T, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestLoadImages(t *testing.T) {
	images, labels := idx([]int{2, 2, 3}, []byte("abcdefghijkl")), idx([]int{2}, []byte{7, 9})
	for _, c := range []struct {
		name  string
		files map[string][]byte
		want  string // in the error; "" is success
	}{
		{"plain", map[string][]byte{"t10k-images-idx3-ubyte": images, "t10k-labels-idx1-ubyte": labels}, ""},
		{"gzip", map[string][]byte{"t10k-images-idx3-ubyte.gz": zip(t, images), "t10k-labels-idx1-ubyte.gz": zip(t, labels)}, ""},
		{"missing", nil, "no t10k-images-idx3-ubyte"},
		{"no labels", map[string][]byte{"t10k-images-idx3-ubyte": images}, "no t10k-labels-idx1-ubyte"},
		{"labels do not match", map[string][]byte{"t10k-images-idx3-ubyte": images, "t10k-labels-idx1-ubyte": idx([]int{3}, []byte{1, 2, 3})}, "2 t10k images but 3 labels"},
		{"cut", map[string][]byte{"t10k-images-idx3-ubyte": images[:20]}, "the header promises 12"},
		{"cut gzip", map[string][]byte{"t10k-images-idx3-ubyte.gz": zip(t, images)[:20]}, "unexpected EOF"},
		{"swapped", map[string][]byte{"t10k-images-idx3-ubyte": labels}, "3 dimensions"},
		{"huge", map[string][]byte{"t10k-images-idx3-ubyte": idx([]int{1 << 20, 1 << 20, 1 << 20}, nil)}, "more than"},
		{"zero", map[string][]byte{"t10k-images-idx3-ubyte": idx([]int{0, 28, 28}, nil)}, "dimension 0 is 0"},
	} {
		dir := t.TempDir()
		for name, b := range c.files {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s, err := LoadImages(dir, "t10k")
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			x := s.Tensor(1, 0.5)
			if s.N != 2 || !x.Shape.Equal(model.Shape{1, 1, 2, 3}) || x.At(0) != 'g'*0.5 || s.Labels[1] != 9 || s.Head(1).N != 1 {
				t.Errorf("%s: read %+v", c.name, s)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", c.name, err, c.want)
		}
	}
}

func FuzzParseIDX(f *testing.F) {
	f.Add(idx([]int{2, 2, 3}, []byte("abcdefghijkl")))
	f.Add(idx([]int{1 << 31, 1, 1}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		data, shape, err := parseIDX(b, 3)
		if err == nil && len(data) != shape[0]*shape[1]*shape[2] {
			t.Errorf("%d bytes for %v", len(data), shape)
		}
	})
}

// The embedded networks are small, and compute what the float reference computes.
func TestEmbedded(t *testing.T) {
	nets, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := files.ReadDir("nets")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2*len(nets) {
		t.Errorf("%d files for %d networks", len(entries), len(nets))
	}
	for _, e := range entries {
		if fi, err := e.Info(); err != nil || fi.Size() >= 1e6 {
			t.Errorf("%s: %d bytes, want under 1 MB", e.Name(), fi.Size())
		}
	}
	r := rand.New(rand.NewPCG(3, 3))
	im := &Images{N: 2, Rows: 28, Cols: 28, Pixels: make([]byte, 2*784), Labels: make([]byte, 2)}
	for i := range im.Pixels {
		im.Pixels[i] = byte(r.IntN(256))
	}
	for _, n := range nets {
		n.Test, n.Calibration = im, im
		for _, g := range []*model.Graph{n.Graph, n.Trained} {
			m := *n
			m.Graph, m.Trained = g, nil
			rep, err := Measure(context.Background(), Options{Networks: []*Network{&m}, Schemes: []string{"fp16"}, Threads: 1})
			if err != nil {
				t.Fatalf("%s: %v", g.Name, err)
			}
			// Codes of the trained network may fall the other way at a tie, and
			// its biases are integers on the NE.
			least := compare.DB(35)
			if g == n.Trained {
				least = 25
			}
			if snr := rep.Rows[1].LogitSNR; snr < least {
				t.Errorf("%s: fp16 on the NE has %s dB against fp32", g.Name, snr)
			}
			s, err := runtime.OpenGraph(g, runtime.WithScheme("fp32"), runtime.WithUnits(units.CPUOnly), runtime.WithThreads(1))
			if err != nil {
				t.Fatal(err)
			}
			got, err := run(context.Background(), s, &m, 1, func(int, int) {})
			s.Close()
			if err != nil {
				t.Fatal(err)
			}
			var sums compare.Sums
			for i := range im.N {
				out, err := ops.EvalGraph(context.Background(), g, map[string]*model.Tensor{"x": im.Tensor(i, n.Scale)}, ops.Options{})
				if err != nil {
					t.Fatal(err)
				}
				sums.Add(out["logits"].Float32s(), got[i])
			}
			want := compare.DB(90)
			if g == n.Trained {
				want = 35
			}
			if snr := sums.Metrics().SNR; snr < want {
				t.Errorf("%s: fp32 has %s dB against the reference evaluation", g.Name, snr)
			}
		}
	}
}

// images returns the networks with n test images, or skips.
func images(t *testing.T, n int) []*Network {
	t.Helper()
	nets, err := Fashion(DefaultData, n, 100)
	if err != nil {
		t.Skipf("needs Fashion-MNIST: %v", err)
	}
	return nets
}

// On 300 images: the networks are trained, 8 bits cost nothing that shows, int4
// damage falls with granularity (by the logits: 300 images cannot tell by
// top-1), trained W8A8 is near fp32, and threads change nothing.
func TestSubset(t *testing.T) {
	nets := images(t, 300)
	schemes := []string{"fp16", "w8", "w8a8 minmax", "w8a8 trained", "w4-tensor", "w4", "w4b32", "w4-tensor, blocks' layers", "w4, blocks' layers"}
	r, err := Measure(context.Background(), Options{Networks: nets, Schemes: schemes, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != len(nets)*(len(schemes)+1) {
		t.Fatalf("%d rows", len(r.Rows))
	}
	rows := map[string]Row{}
	for _, row := range r.Rows {
		rows[row.Network+" "+row.Scheme] = row
		if row.PackageBytes <= 0 || row.WeightRatio <= 0 || len(row.Latency) != 2 || row.Latency[0].MS <= 0 {
			t.Errorf("%s %s: %+v", row.Network, row.Scheme, row)
		}
		if row.Scheme != "fp32" && row.Units["CPU"]+row.Units["GPU"] > 0 {
			t.Errorf("%s %s ran on %v, want the NE", row.Network, row.Scheme, row.Units)
		}
	}
	for _, n := range nets {
		get := func(s string) Row { return rows[n.Name+" "+s] }
		if p := get("fp32").Top1.Percent; p < 88 {
			t.Errorf("%s: fp32 top-1 is %.1f %%", n.Name, p)
		}
		for s, points := range map[string]float64{"fp16": 0.5, "w8": 1, "w8a8 minmax": 2, "w8a8 trained": 2} {
			if c := get(s).Change; c.Points < -points {
				t.Errorf("%s %s: change %s points, want at least -%g", n.Name, s, c, points)
			}
		}
		b, c, te := get("w4b32").LogitSNR, get("w4, blocks' layers").LogitSNR, get("w4-tensor, blocks' layers").LogitSNR
		if !(b > c && c > te) {
			t.Errorf("%s: int4 logits per block %s, channel %s, tensor %s dB", n.Name, b, c, te)
		}
		if get("w4b32").Float != get("w4, blocks' layers").Float || get("w4b32").Float == 0 {
			t.Errorf("%s: blocks leave %d weights float, the comparison %d", n.Name, get("w4b32").Float, get("w4, blocks' layers").Float)
		}
	}
	few := []string{"w8a8 minmax"}
	for _, n := range nets {
		n.Test = n.Test.Head(60)
	}
	one, err := Measure(context.Background(), Options{Networks: nets, Schemes: few, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	three, err := Measure(context.Background(), Options{Networks: nets, Schemes: few, Threads: 3})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(one, three, cmpopts.IgnoreUnexported(Row{})); d != "" {
		t.Errorf("threads changed the report:\n%s", d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Measure(ctx, Options{Networks: nets, Schemes: few}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestMeasureBadInput(t *testing.T) {
	nets, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	n := nets[0]
	bad := &Images{N: 1, Rows: 27, Cols: 28, Pixels: make([]byte, 27*28), Labels: []byte{1}}
	good := &Images{N: 1, Rows: 28, Cols: 28, Pixels: make([]byte, 784), Labels: []byte{1}}
	for _, c := range []struct {
		name              string
		test, calibration *Images
		o                 Options
		want              string
	}{
		{"no images", nil, good, Options{}, "no test images"},
		{"size", bad, good, Options{}, "[1,1,27,28]"},
		{"device", good, good, Options{Devices: []string{"iphone-3"}}, "iphone-3"},
		{"scheme", good, good, Options{Schemes: []string{"w9"}}, `"w9"`},
		{"calibration size", good, bad, Options{Schemes: []string{"w8a8 minmax"}}, "27"},
		{"empty calibration", good, &Images{Rows: 28, Cols: 28}, Options{Schemes: []string{"w8a8 minmax"}}, "calibration set is empty"},
	} {
		m := *n
		m.Test, m.Calibration = c.test, c.calibration
		c.o.Networks = []*Network{&m}
		_, err := Measure(context.Background(), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", c.name, err, c.want)
		}
	}
}

// Statements say what the rows say: as stated, the other way round by chance,
// and beyond it.
func TestStatements(t *testing.T) {
	const images = 20
	row := func(scheme, calibration string, wrong int) Row {
		r := Row{Network: "n", Scheme: scheme, Calibration: calibration, Flipped: compare.NewShare(wrong, images), Top1: compare.NewShare(images-wrong, images)}
		for i := range images {
			r.right = append(r.right, i >= wrong)
			r.flipped = append(r.flipped, i < wrong)
			r.noise = append(r.noise, float64(wrong))
		}
		return r
	}
	verdicts := func(w8, trained, ptq, block, channel, tensor int) []Verdict {
		rows := []Row{row("fp32", "", 0), row("w8", "", w8), row("w8a8 minmax", "minmax", ptq), row("w8a8 trained", "", trained),
			row("w4b32", "", block), row("w4, blocks' layers", "", channel), row("w4-tensor, blocks' layers", "", tensor)}
		for i := range rows {
			rows[i].Change = change(rows[0].right, rows[i].right)
		}
		var out []Verdict
		for _, s := range statements(rows) {
			out = append(out, s.Verdict)
		}
		return out
	}
	for name, c := range map[string]struct{ got, want []Verdict }{
		"as stated": {verdicts(0, 0, 1, 0, 1, 2), []Verdict{Holds, Holds, Holds, Holds, Holds, Holds}},
		"all equal": {verdicts(0, 0, 0, 3, 3, 3), []Verdict{Holds, Holds, Holds, Holds, Holds, Holds}},
		// One image of 20 is a loss of 5 points, with a standard error of 4.9;
		// five lost and none gained have p = 1/16, six 1/32.
		"by chance": {verdicts(1, 1, 0, 5, 0, 1), []Verdict{Undecided, Undecided, Undecided, Undecided, Undecided, Fails}},
		"beyond it": {verdicts(9, 9, 3, 6, 0, 1), []Verdict{Fails, Fails, Fails, Fails, Fails, Fails}},
	} {
		if d := cmp.Diff(c.want, c.got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
	}
}
