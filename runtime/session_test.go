package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

func image(size int, seed uint64) *model.Tensor {
	r := rand.New(rand.NewPCG(seed, 9))
	t := model.NewTensor(model.Float32, 1, 3, size, size)
	for i := range t.Len() {
		t.Set(i, r.NormFloat64())
	}
	return t
}

func open(t testing.TB, name string, opts ...runtime.Option) *runtime.Session {
	t.Helper()
	s, err := runtime.Open(name, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func run(t testing.TB, s *runtime.Session, in *model.Tensor) *runtime.Result {
	t.Helper()
	r, err := s.Run(context.Background(), map[string]*model.Tensor{s.Inputs()[0].Name: in})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// snr is the signal-to-noise ratio of got in dB.
func snr(got, want *model.Tensor) float64 {
	var s, n float64
	for i := range want.Len() {
		w, d := want.At(i), got.At(i)-want.At(i)
		s += w * w
		n += d * d
	}
	return 10 * math.Log10(s/n)
}

// Run and Predict report the same plan and times; the unit of a layer in the
// report is the unit whose arithmetic ran.
func TestRunReportsWhatPredictSays(t *testing.T) {
	for _, o := range [][]runtime.Option{
		{runtime.WithScheme("fp16")},
		{runtime.WithScheme("w8a8"), runtime.WithDevice("iphone-15-pro")},
		{runtime.WithScheme("w8"), runtime.WithUnits(units.CPUAndGPU), runtime.WithPolicy(scheduler.Greedy)},
	} {
		s := open(t, "mobilenet_v2@64", append(o, runtime.WithProfile())...)
		before := *s.Predict()
		r := run(t, s, image(64, 1))
		if d := cmp.Diff(&before, r.Report); d != "" {
			t.Errorf("the report changed by running: %s", d)
		}
		if len(r.Profile) != len(r.Report.Layers) {
			t.Fatalf("profile of %d layers, report of %d", len(r.Profile), len(r.Report.Layers))
		}
		byName := map[string]string{}
		for _, l := range r.Report.Layers {
			byName[l.Name] = l.Unit
		}
		total := 0.0
		for _, l := range r.Profile {
			if byName[l.Name] != l.Unit.String() {
				t.Errorf("layer %s ran on %v, the report says %s", l.Name, l.Unit, byName[l.Name])
			}
			total += l.MS
		}
		if total <= 0 {
			t.Error("the profile is empty")
		}
	}
}

// The arithmetic differs by unit as it should: fp32 on the CPU is far closer
// to fp32 than fp16 units are, int8 is farther, and each scheme gives a usable
// result (the network is the same function).
func TestArithmeticByUnit(t *testing.T) {
	in := image(64, 1)
	ref := run(t, open(t, "mobilenet_v2@64", runtime.WithScheme("fp32"), runtime.WithUnits(units.CPUOnly)), in).Outputs["logits"]
	db := map[string]float64{}
	for name, o := range map[string][]runtime.Option{
		"fp16 CPU": {runtime.WithScheme("fp16"), runtime.WithUnits(units.CPUOnly)},
		"fp16 NE":  {runtime.WithScheme("fp16"), runtime.WithUnits(units.CPUAndNE)},
		"fp16 GPU": {runtime.WithScheme("fp16"), runtime.WithUnits(units.CPUAndGPU), runtime.WithPins(pin(t, "*=gpu"))},
		"w8 NE":    {runtime.WithScheme("w8"), runtime.WithUnits(units.CPUAndNE)},
		"w8a8 NE":  {runtime.WithScheme("w8a8"), runtime.WithUnits(units.CPUAndNE)},
		"w8a8 CPU": {runtime.WithScheme("w8a8"), runtime.WithUnits(units.CPUOnly)},
	} {
		db[name] = snr(run(t, open(t, "mobilenet_v2@64", o...), in).Outputs["logits"], ref)
		t.Logf("%s: %.1f dB", name, db[name])
	}
	for _, pair := range [][2]string{{"fp16 CPU", "fp16 NE"}, {"fp16 NE", "w8 NE"}, {"w8 NE", "w8a8 NE"}} {
		if db[pair[0]] <= db[pair[1]] {
			t.Errorf("%s has %.1f dB, %s %.1f: want more", pair[0], db[pair[0]], pair[1], db[pair[1]])
		}
	}
	for name, v := range db {
		if v < 10 {
			t.Errorf("%s: %.1f dB", name, v)
		}
	}
}

func pin(t testing.TB, s string) scheduler.Pin {
	t.Helper()
	p, err := scheduler.ParsePin(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What leaves a layer is what its unit holds: fp16 values behind the GPU and
// the Neural Engine, full fp32 behind the CPU; the last tensor is the output.
func TestWatchShowsTheUnitsArithmetic(t *testing.T) {
	s := open(t, "mobilenet_v2@32", runtime.WithPins(pin(t, "features.3*=cpu"), pin(t, "features.5*=gpu"), pin(t, "features.7*=ne")))
	in := map[string]*model.Tensor{"image": image(32, 1)}
	seen := map[units.Kind]int{}
	finer := map[units.Kind]int{} // elements that are no fp16 values
	var last []float32
	r, err := s.Watch(context.Background(), in, func(o runtime.LayerOutput) error {
		if u := s.Predict().Layers[o.Layer]; u.Name != o.Name || u.Unit != o.Unit.String() {
			t.Errorf("layer %d: watched %s on %v, reported %s on %s", o.Layer, o.Name, o.Unit, u.Name, u.Unit)
		}
		seen[o.Unit]++
		last = append(last[:0], o.Tensor.Float32s()...)
		for _, v := range last {
			if model.Of([]float32{v}).Convert(model.Float16).Float32s()[0] != v {
				finer[o.Unit]++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen[units.CPU] == 0 || seen[units.GPU] == 0 || seen[units.NE] == 0 {
		t.Fatalf("layers by unit: %v", seen)
	}
	if finer[units.GPU] != 0 || finer[units.NE] != 0 || finer[units.CPU] == 0 {
		t.Errorf("elements that are no fp16 values, by unit: %v", finer)
	}
	again := run(t, s, in["image"])
	if !bytes.Equal(again.Outputs["logits"].Data, r.Outputs["logits"].Data) {
		t.Error("watching changes the result")
	}
	for i, v := range r.Outputs["logits"].Float32s() {
		if v != last[i] {
			t.Fatalf("output %d is %v, the last layer wrote %v", i, v, last[i])
		}
	}
	stop := errors.New("enough")
	if _, err := s.Watch(context.Background(), in, func(runtime.LayerOutput) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v, want the callback's", err)
	}
}

// Calibration on the data of the run gives a better W8A8 network than ranges
// of other data.
func TestCalibration(t *testing.T) {
	in := image(64, 1)
	big := in.Clone()
	for i := range big.Len() {
		big.Set(i, 50*big.At(i))
	}
	ref := run(t, open(t, "mobilenet_v2@64", runtime.WithScheme("fp32"), runtime.WithUnits(units.CPUOnly)), in).Outputs["logits"]
	good := run(t, open(t, "mobilenet_v2@64", runtime.WithScheme("w8a8"), runtime.WithCalibration(map[string]*model.Tensor{"image": in})), in).Outputs["logits"]
	bad := run(t, open(t, "mobilenet_v2@64", runtime.WithScheme("w8a8"), runtime.WithCalibration(map[string]*model.Tensor{"image": big})), in).Outputs["logits"]
	if g, b := snr(good, ref), snr(bad, ref); g < b+6 {
		t.Errorf("calibrated on the data: %.1f dB, on other data: %.1f dB", g, b)
	}
	_, err := runtime.Open("mobilenet_v2@64", runtime.WithScheme("w8a8"), runtime.WithCalibration(map[string]*model.Tensor{"pixels": in}))
	if err == nil || !strings.Contains(err.Error(), `calibration sample 0: exec: input "image" is missing`) {
		t.Errorf("a sample without the input: %v", err)
	}
}

func TestConcurrentSessions(t *testing.T) {
	s := open(t, "mobilenet_v2@32", runtime.WithThreads(2))
	want := run(t, s, image(32, 1)).Outputs["logits"].Data
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 3 {
				r, err := s.Run(context.Background(), map[string]*model.Tensor{"image": image(32, 1)})
				if err != nil || !bytes.Equal(r.Outputs["logits"].Data, want) {
					t.Errorf("a concurrent run differs (%v)", err)
				}
			}
		})
	}
	wg.Wait()
}

// Closing during runs lets them finish, and later calls say that the session
// is closed.
func TestClose(t *testing.T) {
	s, err := runtime.Open("mobilenet_v2@32")
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]*model.Tensor{"image": image(32, 1)}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				if _, err := s.Run(context.Background(), in); err != nil {
					if !errors.Is(err, runtime.ErrClosed) {
						t.Errorf("error %v", err)
					}
					return
				}
			}
		})
	}
	if _, err := s.Run(context.Background(), in); err != nil {
		t.Errorf("before Close: %v", err)
	}
	if w, a := s.MemoryBytes(); w == 0 || a == 0 {
		t.Errorf("an open session holds %d and %d bytes", w, a)
	}
	s.Close()
	wg.Wait()
	s.Close()
	if w, a := s.MemoryBytes(); w != 0 || a != 0 {
		t.Errorf("a closed session holds %d and %d bytes", w, a)
	}
	if s.Load() != runtime.ErrClosed || s.Plan() != nil || s.Compiled() != nil {
		t.Error("a closed session still works")
	}
	if s.Predict() == nil {
		t.Error("the prediction is gone")
	}
}

func TestCancel(t *testing.T) {
	s := open(t, "mobilenet_v2@32")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Run(ctx, map[string]*model.Tensor{"image": image(32, 1)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestErrors(t *testing.T) {
	s := open(t, "mobilenet_v2@32")
	for _, c := range []struct {
		in   map[string]*model.Tensor
		want string
	}{
		{nil, `input "image" is missing; the model reads image:fp16[1,3,32,32]`},
		{map[string]*model.Tensor{"image": image(32, 1), "mask": image(32, 1)}, `the model has no input "mask"; it reads image:fp16[1,3,32,32]`},
		{map[string]*model.Tensor{"image": image(33, 1)}, `input "image" has shape [1,3,33,33], want [1,3,32,32]`},
		{map[string]*model.Tensor{"image": model.NewTensor(model.Int32, 1, 3, 32, 32)}, `input "image" has type int32, want fp16`},
	} {
		if _, err := s.Run(context.Background(), c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
	for _, c := range []struct {
		name string
		opts []runtime.Option
		want string
	}{
		{"mobilenet_v9", nil, "mobilenet_v9"},
		{"nowhere.onnx", nil, "nowhere.onnx"},
		{"resnet18", []runtime.Option{runtime.WithDevice("nokia-3310")}, "nokia-3310"},
		{"resnet18", []runtime.Option{runtime.WithScheme("w9")}, "w9"},
		{"resnet18", []runtime.Option{runtime.WithDevice("iphone-12", "ne.warp=9")}, "ne.warp"},
	} {
		_, err := runtime.Open(c.name, c.opts...)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Open(%s): error %q, want one line with %q", c.name, err, c.want)
		}
	}
}
