package compare

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/bits"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/exec"
)

func TestMetrics(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		name      string
		want, got []float32
		m         Metrics
	}{
		{"same", []float32{1, -2}, []float32{1, -2}, Metrics{DB(math.Inf(1)), DB(math.Inf(1)), 1, 0, 2, 0}},
		{"both zero", []float32{0, 0}, []float32{0, 0}, Metrics{DB(math.Inf(1)), DB(math.Inf(1)), 1, 0, 0, 0}},
		// signal 100, noise 1: 20 dB; peak 64 over 1/2: 10 log10 128.
		{"20 dB", []float32{6, 8}, []float32{6, 9}, Metrics{20, DB(10 * math.Log10(128)), 108 / math.Sqrt(100*117), 1, 8, 0}},
		{"opposite", []float32{3, 4}, []float32{-3, -4}, Metrics{DB(-10 * math.Log10(4)), DB(10 * math.Log10(16/50.)), -1, 8, 4, 0}},
		{"zero reference", []float32{0}, []float32{1}, Metrics{-400, -400, 0, 1, 0, 0}},
		{"overflow", []float32{1, 2, 3}, []float32{1, inf, nan}, Metrics{DB(math.Inf(1)), DB(math.Inf(1)), 1, 0, 1, 2}},
		{"reference not finite", []float32{inf, 2}, []float32{inf, 2}, Metrics{DB(math.Inf(1)), DB(math.Inf(1)), 1, 0, 2, 0}},
	} {
		var s Sums
		s.Add(c.want, c.got)
		got := s.Metrics()
		near := cmp.Comparer(func(a, b DB) bool { return a == b || math.Abs(float64(a-b)) < 1e-9 })
		nearF := cmp.Comparer(func(a, b float64) bool { return a == b || math.Abs(a-b) < 1e-12 })
		if d := cmp.Diff(c.m, got, near, nearF); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

// Scaling both tensors changes no ratio; splitting the data changes no sum by
// more than rounding; the error in dB is the one that was put in.
func TestMetricsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 10000).Draw(t, "n")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		x, y := make([]float32, n), make([]float32, n)
		x2, y2 := make([]float32, n), make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64())
			y[i] = x[i] + float32(r.NormFloat64())*0.01
			x2[i], y2[i] = 8*x[i], 8*y[i]
		}
		var a, b, c, d Sums
		a.Add(x, y)
		b.Add(x2, y2)
		cut := rapid.IntRange(0, n).Draw(t, "cut")
		c.Add(x[:cut], y[:cut])
		d.Add(x[cut:], y[cut:])
		c.Merge(d)
		ma, mb, mc := a.Metrics(), b.Metrics(), c.Metrics()
		if ma.SNR != mb.SNR || ma.PSNR != mb.PSNR || ma.Cosine != mb.Cosine {
			t.Fatalf("scaled by 8: %+v, was %+v", mb, ma)
		}
		if math.Abs(float64(ma.SNR-mc.SNR)) > 1e-9 || ma.MaxError != mc.MaxError {
			t.Fatalf("split at %d: %+v, was %+v", cut, mc, ma)
		}
		// The cosine of a small orthogonal-ish error is about 1 - noise/2.
		if ma.Cosine > 1 || ma.Cosine < -1 {
			t.Fatalf("cosine %g", ma.Cosine)
		}
	})
}

// SignTest against counting: the share of all sequences of coins that are at
// least as uneven.
func TestSignTest(t *testing.T) {
	for n := range 14 {
		for a := range n + 1 {
			as := 0
			for coins := range 1 << n {
				heads := bits.OnesCount(uint(coins))
				if abs(2*heads-n) >= abs(2*a-n) {
					as++
				}
			}
			want := float64(as) / float64(int(1)<<n)
			if p := SignTest(a, n-a); math.Abs(float64(p)-want) > 1e-12 {
				t.Errorf("%d to %d: %g, want %g", a, n-a, p, want)
			}
		}
	}
	if p := SignTest(5000, 3000); !(p > 0 && p < 1e-100) {
		t.Errorf("5000 to 3000: %g", p)
	}
}

func abs(x int) int { return max(x, -x) }

// The formulas of standard errors against the plain variance of the samples.
func TestShareAndChange(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	n, hits, gained, lost := 500, 0, 0, 0
	var share, diff []float64
	for range n {
		was, is := r.IntN(10) < 8, r.IntN(10) < 7
		b := func(v bool) float64 {
			if v {
				return 1
			}
			return 0
		}
		share, diff = append(share, b(is)), append(diff, b(is)-b(was))
		if is {
			hits++
		}
		if is && !was {
			gained++
		}
		if was && !is {
			lost++
		}
	}
	se := func(v []float64) (mean, err float64) {
		for _, x := range v {
			mean += x / float64(n)
		}
		var s float64
		for _, x := range v {
			s += (x - mean) * (x - mean)
		}
		return mean, math.Sqrt(s/float64(n)) / math.Sqrt(float64(n))
	}
	m, e := se(share)
	if s := NewShare(hits, n); math.Abs(s.Percent-100*m) > 1e-9 || math.Abs(s.StandardErr-100*e) > 1e-9 {
		t.Errorf("share %+v, want %g and %g", s, 100*m, 100*e)
	}
	m, e = se(diff)
	if c := NewChange(gained, lost, n); math.Abs(c.Points-100*m) > 1e-9 || math.Abs(c.StandardErr-100*e) > 1e-9 {
		t.Errorf("change %+v, want %g and %g", c, 100*m, 100*e)
	}
}

func TestTop1AndScores(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		v    []float32
		want int
	}{{[]float32{1, 3, 2}, 1}, {[]float32{2, 2}, 0}, {[]float32{nan, -1}, 1}, {[]float32{nan}, -1}, {nil, -1}} {
		if got := Top1(c.v); got != c.want {
			t.Errorf("Top1(%v) = %d, want %d", c.v, got, c.want)
		}
	}
	for _, c := range []struct {
		s    model.Shape
		want bool
	}{{model.Shape{1, 10}, true}, {model.Shape{10}, true}, {model.Shape{1, 1000, 1, 1}, true}, {model.Shape{1, 2, 3}, false}, {model.Shape{1}, false}, {model.Shape{-1, 10}, false}} {
		if got := Scores(c.s); got != c.want {
			t.Errorf("Scores(%v) = %v", c.s, got)
		}
	}
}

func net(t *testing.T) *model.Graph { return load(t, "fashion_resnet") }

func load(t *testing.T, name string) *model.Graph {
	t.Helper()
	g, err := compile.Load(filepath.Join(testutil.Root(t), "bench/accuracy/nets", name+".onnx"), compile.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func images(n int) Slice {
	r := rand.New(rand.NewPCG(7, 7))
	var s Slice
	for range n {
		x := model.NewTensor(model.Float32, 1, 1, 28, 28)
		for i := range x.Len() {
			x.Set(i, r.Float64())
		}
		s = append(s, map[string]*model.Tensor{"x": x})
	}
	return s
}

func open(t *testing.T, g *model.Graph, o ...runtime.Option) *runtime.Session {
	t.Helper()
	s, err := runtime.OpenGraph(g, append(o, runtime.WithThreads(1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func reference(t *testing.T, g *model.Graph) *runtime.Session {
	return open(t, g, runtime.WithScheme("fp32"), runtime.WithUnits(units.CPUOnly))
}

func TestAgainstItselfIsExact(t *testing.T) {
	for _, name := range []string{"fashion_resnet", "fashion_resnet_qat"} {
		t.Run(name, func(t *testing.T) { exactWithItself(t, load(t, name)) })
	}
}

func exactWithItself(t *testing.T, g *model.Graph) {
	r, err := Sessions(context.Background(), reference(t, g), reference(t, g), images(3), Options{Layers: true, Labels: []int{0, 1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Outputs[0].SNR.Exact() || r.Agreement.Percent != 100 || r.Change.Points != 0 {
		t.Errorf("not exact: %+v", r)
	}
	if len(r.Layers) < 10 {
		t.Errorf("only %d layers compared", len(r.Layers))
	}
	for _, l := range r.Layers {
		if !l.SNR.Exact() || !l.OwnSNR.Exact() || l.OwnNoise != 0 {
			t.Errorf("layer %s: %+v", l.Name, l)
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

// Watching layers changes no output, and threads change nothing at all.
func TestLayersAndThreadsChangeNothing(t *testing.T) {
	g := net(t)
	for _, scheme := range []string{"fp16", "w8a8", "w4b32", "p4"} {
		ref, test := reference(t, g), open(t, g, runtime.WithScheme(scheme), runtime.WithUnits(units.CPUAndNE))
		var all []*Result
		for _, o := range []Options{{Threads: 1}, {Threads: 1, Layers: true}, {Threads: 3, Layers: true}} {
			r, err := Sessions(context.Background(), ref, test, images(5), o)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		if d := cmp.Diff(all[0].Outputs, all[1].Outputs); d != "" {
			t.Errorf("%s: watching layers changed outputs:\n%s", scheme, d)
		}
		if d := cmp.Diff(all[1], all[2]); d != "" {
			t.Errorf("%s: threads changed the result:\n%s", scheme, d)
		}
		if all[0].Outputs[0].SNR.Exact() {
			t.Errorf("%s: no difference to fp32 at all", scheme)
		}
		for _, l := range all[1].Layers {
			if l.SNR < 5 {
				t.Errorf("%s: layer %s: SNR %s: not the same tensor as in the reference?", scheme, l.Name, l.SNR)
			}
		}
	}
}

// A network with one spoiled layer: that one is listed first, all others are
// free of noise of their own, and those ahead of it are exact in the running
// network too.
func TestBlamesTheSpoiledLayer(t *testing.T) {
	g := net(t)
	ref := reference(t, g)
	binary := quant.DefaultPalette(1)
	binary.Threshold = 0
	for _, bad := range []string{"block1.conv2", "block3.conv1", "logits"} {
		s := quant.Scheme{Name: "spoiled", Float: model.Float32, Stages: []quant.Stage{{OpNames: map[string]quant.OpConfig{
			bad: binary,
		}}}}
		test := open(t, g, runtime.WithSchemeValue(s), runtime.WithUnits(units.CPUOnly))
		r, err := Sessions(context.Background(), ref, test, images(3), Options{Layers: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.Layers[0].Name != bad || r.Layers[0].SNR != r.Layers[0].OwnSNR {
			t.Errorf("spoiled %s, blamed %s (SNR %s, its own %s)", bad, r.Layers[0].Name, r.Layers[0].SNR, r.Layers[0].OwnSNR)
		}
		for _, l := range r.Layers[1:] {
			if !l.OwnSNR.Exact() {
				t.Errorf("%s is sound and blamed with %s dB beside %s", l.Name, l.OwnSNR, bad)
			}
		}
		i := slices.IndexFunc(r.Layers, func(l Layer) bool { return l.Name == "stem" })
		if !r.Layers[i].SNR.Exact() {
			t.Errorf("the stem is ahead of %s and has SNR %s", bad, r.Layers[i].SNR)
		}
	}
}

type failing struct{ Slice }

func (f failing) Sample(i int) (map[string]*model.Tensor, error) {
	if i == 1 {
		return nil, errors.New("corrupt image")
	}
	return f.Slice.Sample(i)
}

func TestBadData(t *testing.T) {
	g := net(t)
	ref, test := reference(t, g), open(t, g, runtime.WithScheme("w8"))
	wrong := images(2)
	wrong[1] = map[string]*model.Tensor{"x": model.NewTensor(model.Float32, 1, 1, 27, 28)}
	other, err := compile.Load("mobilenet_v2", compile.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		test *runtime.Session
		src  Source
		o    Options
		want string
	}{
		{"no samples", test, Slice{}, Options{}, "no samples"},
		{"labels", test, images(2), Options{Labels: []int{1}}, "1 labels for 2 samples"},
		{"class", test, images(2), Options{Labels: []int{1, 10}}, "label 1 is 10"},
		{"output", test, images(2), Options{Output: "none"}, `no output "none"`},
		{"corrupt", test, failing{images(3)}, Options{}, "sample 1: corrupt image"},
		{"shape", test, wrong, Options{Layers: true}, "27"},
		{"missing", test, Slice{{}}, Options{Layers: true}, `"x" is missing`},
		{"another model", open(t, other), images(1), Options{}, "[1,1000]"},
	} {
		_, err := Sessions(context.Background(), ref, c.test, c.src, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", c.name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Sessions(ctx, ref, test, images(8), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	closed := open(t, g)
	closed.Close()
	if _, err := Sessions(context.Background(), ref, closed, images(1), Options{Layers: true}); !errors.Is(err, runtime.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// ForEach takes results in order, whatever the threads, and stops at the first
// error in that order.
func TestForEach(t *testing.T) {
	for _, threads := range []int{1, 4, 100} {
		var seen []int
		err := ForEach(context.Background(), 50, threads, func(_ context.Context, i int) (int, error) {
			if i == 40 {
				return 0, errors.New("forty")
			}
			return i * i, nil
		}, func(i, v int) {
			if v != i*i {
				t.Errorf("%d: got %d", i, v)
			}
			seen = append(seen, i)
		})
		if err == nil || err.Error() != "forty" || len(seen) != 40 || !slices.IsSorted(seen) {
			t.Errorf("%d threads: %v after %v", threads, err, seen)
		}
	}
}

// Forcing a network's own values upon it changes not a bit, in any arithmetic:
// what [exec.Options.Force] writes back is what was there.
func TestForcedOwnValuesChangeNothing(t *testing.T) {
	zoo, err := compile.Load("mobilenet_v3_small@64", compile.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []*model.Graph{net(t), zoo} {
		for _, c := range []struct {
			scheme string
			mask   units.Mask
		}{{"fp32", units.CPUOnly}, {"fp16", units.CPUAndGPU}, {"fp16", units.CPUAndNE}, {"w8a8", units.CPUOnly}, {"w8a8", units.CPUAndNE}, {"p4", units.All}} {
			s := open(t, g, runtime.WithScheme(c.scheme), runtime.WithUnits(c.mask))
			o := exec.Options{Units: s.Plan().Units, Numerics: runtime.Arithmetic(), Watch: true}
			free, err := exec.Compile(s.Compiled().Net, o)
			if err != nil {
				t.Fatal(err)
			}
			o.Force = true
			forced, err := exec.Compile(s.Compiled().Net, o)
			if err != nil {
				t.Fatal(err)
			}
			in := s.Inputs()[0]
			x := model.NewTensor(model.Float32, in.Shape...)
			r := rand.New(rand.NewPCG(1, 2))
			for i := range x.Len() {
				x.Set(i, r.Float64())
			}
			seen := map[string][]float32{}
			want, err := free.Watch(context.Background(), []*model.Tensor{x}, func(v *model.Value, t *model.Tensor) error {
				seen[v.Name] = slices.Clone(model.View[float32](t))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			got, err := forced.Watch(context.Background(), []*model.Tensor{x}, func(v *model.Value, s *model.Tensor) error {
				if !slices.Equal(model.View[float32](s), seen[v.Name]) {
					t.Errorf("%s %s on %s: tensor %q differs", g.Name, c.scheme, c.mask, v.Name)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(seen) < 10 || !slices.Equal(want[0].Data, got[0].Data) {
				t.Errorf("%s %s on %s: outputs differ after %d tensors", g.Name, c.scheme, c.mask, len(seen))
			}
			// And what is written is read: zeros for every tensor leave the
			// output of the last layer's bias alone.
			zero, err := forced.Watch(context.Background(), []*model.Tensor{x}, func(_ *model.Value, s *model.Tensor) error {
				clear(s.Data)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if slices.Max(zero[0].Float32s()) != 0 || slices.Min(zero[0].Float32s()) != 0 {
				t.Errorf("%s %s on %s: zeros were not taken: %v", g.Name, c.scheme, c.mask, zero[0].Float32s()[:4])
			}
		}
	}
}
