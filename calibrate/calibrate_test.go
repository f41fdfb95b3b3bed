package calibrate

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/machine"
)

var (
	update = flag.Bool("update", false, "write the residual plot of docs/ again")
	full   = flag.Bool("full", false, "repeat the whole cross-validation (minutes)")
)

var published = sync.OnceValues(func() (*Set, error) {
	b, err := os.ReadFile("../bench/published/latencies.csv")
	if err != nil {
		return nil, err
	}
	rows, err := ReadCSV(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	c, err := device.Builtin()
	if err != nil {
		return nil, err
	}
	return NewSet(rows, c, LoadZoo)
})

func set(t testing.TB) *Set {
	t.Helper()
	s, err := published()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Skipped) > 0 {
		t.Fatalf("rows skipped: %v", s.Skipped)
	}
	return s
}

// The bars of the published table and of all published rows.
func TestFidelity(t *testing.T) {
	s := set(t)
	f, err := Measure(context.Background(), s, DefaultPlan(), Options{}, false)
	if err != nil {
		t.Fatal(err)
	}
	sum := f.Catalogue
	t.Logf("115 rows: median %.1f %%, mean %.1f, p90 %.1f, worst %.1f; CPU %.1f, GPU %.1f, NE %.1f; inside p10-p90 %.0f %%",
		sum.MedianPct, sum.MeanPct, sum.P90Pct, sum.WorstPct, sum.PerUnit[0], sum.PerUnit[1], sum.PerUnit[2], f.CoveragePct)
	if sum.Rows != 115 {
		t.Errorf("%d rows, want 115", sum.Rows)
	}
	if sum.MedianPct > 12 || sum.P90Pct > 30 {
		t.Errorf("median %.1f %% and p90 %.1f %%; want at most 12 and 30", sum.MedianPct, sum.P90Pct)
	}
	for k, v := range sum.PerUnit {
		if !(v <= 20) {
			t.Errorf("%s: median %.1f %%; want at most 20", units.Kind(k), v)
		}
	}
	mean, worst, n := 0.0, 0.0, 0
	for _, l := range f.Lines {
		if l.Source == "quantization-performance.md" {
			mean, worst, n = mean+math.Abs(l.ErrorPct), max(worst, math.Abs(l.ErrorPct)), n+1
		}
		if !(l.P10MS <= l.PredictedMS && l.PredictedMS <= l.P90MS) {
			t.Errorf("%s on %s: %g is not inside %g..%g", l.Network, l.Device, l.PredictedMS, l.P10MS, l.P90MS)
		}
	}
	if mean /= float64(n); n != 18 || mean > 4 || worst > 10 {
		t.Errorf("table: %d cells, mean %.2f %%, worst %.2f %%; want 18, 4 and 10", n, mean, worst)
	}
}

// The whole cross-validation: go test -run TestCrossValidation -full.
func TestCrossValidation(t *testing.T) {
	if !*full {
		t.Skip("takes minutes; run with -full")
	}
	f, err := Measure(context.Background(), set(t), DefaultPlan(), Options{Evaluations: 3000, Starts: 1}, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("network left out: median %.1f %%, p90 %.1f; chip left out: median %.1f %%; inside p10-p90: %.0f %%",
		f.ByNetwork.MedianPct, f.ByNetwork.P90Pct, f.ByChip.MedianPct, f.CoveragePct)
	if f.ByNetwork.MedianPct > 15 {
		t.Errorf("leave-one-network-out median %.1f %%; want at most 15", f.ByNetwork.MedianPct)
	}
	if f.CoveragePct < 75 || f.CoveragePct > 90 {
		t.Errorf("%.0f %% of left-out rows inside p10-p90; want 75 to 90", f.CoveragePct)
	}
}

// The fit's own pricing is the scheduler's time model.
func TestPriceIsTheSchedulers(t *testing.T) {
	s := set(t)
	for _, x := range s.Samples {
		m, err := machine.New(s.devices[x.DeviceName])
		if err != nil {
			t.Fatal(err)
		}
		var p scheduler.Problem
		if err := p.Build(x.Net, m, &scheduler.Options{Mask: x.Mask}); err != nil {
			t.Fatal(err)
		}
		var tm scheduler.Timing
		p.Evaluate(x.assign, false, &tm)
		if got := x.price(m); math.Abs(got-tm.LatencyMS) > 1e-9*tm.LatencyMS {
			t.Errorf("%s on %s: %g ms here, %g ms in the scheduler", x.Network, x.DeviceName, got, tm.LatencyMS)
		}
	}
}

// units.Measured says which kinds of layer the measurements hold: no more, and
// no less where it counts.
func TestMeasuredKinds(t *testing.T) {
	var have, claimed [32]bool
	for _, x := range set(t).Samples {
		for _, l := range x.Net.Layers {
			have[l.Kind] = true
			if units.Measured(l) {
				claimed[l.Kind] = true
			} else {
				t.Errorf("%s: layer %q (%s) is in the measurements, yet not said to be", x.Network, l.Name, l.Kind)
			}
		}
	}
	for k := range model.KindControl + 1 {
		l := &model.Layer{Kind: k, Facts: model.Facts{M: 1, DilH: 1, DilW: 1, KD: 1}}
		if units.Measured(l) && !have[k] {
			t.Errorf("%s is said to be measured, and no measurement holds it", k)
		}
	}
	if claimed[model.KindMatMul] || !claimed[model.KindDepthwise] {
		t.Errorf("claimed: %v", claimed)
	}
}

// A fit finds planted figures again, and finds the same twice.
func TestFitRecovers(t *testing.T) {
	s := set(t).Only(func(x *Sample) bool { return x.Chip == "a16" || x.Chip == "a14" })
	planted := map[string]float64{"ne.spill_gbs": 38, "ne.depthwise": 0.09}
	devs := map[string]*device.Device{}
	for n, d := range s.devices {
		c := *d
		for p, v := range planted {
			if e, err := c.Get(p); err == nil && e.From == "base" {
				if err := c.Set(p, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		devs[n] = &c
	}
	rs, err := s.Residuals(devs)
	if err != nil {
		t.Fatal(err)
	}
	syn := &Set{names: s.names, devices: s.devices}
	for _, r := range rs {
		x := *r.Sample
		x.LatencyMS = r.PredictedMS
		syn.Samples = append(syn.Samples, &x)
	}
	plan := Plan{{Name: "test", Vars: []Var{{Entry: "base", Path: "ne.spill_gbs"}, {Entry: "base", Path: "ne.depthwise"}, {Entry: "no-such-entry", Path: "ne.spill_gbs"}}}}
	o := Options{Evaluations: 800, Starts: 1, Prior: 1e-6}
	f, err := syn.Fit(context.Background(), plan, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Values) != 2 {
		t.Fatalf("%d values, want 2: an entry that no device uses is left out", len(f.Values))
	}
	for _, v := range f.Values {
		if want := planted[v.Path]; math.Abs(v.Value/want-1) > 0.03 {
			t.Errorf("%s = %g, planted %g", v.Path, v.Value, want)
		}
		if v.Value < v.Low || v.Value > v.High {
			t.Errorf("%s = %g left its range [%g, %g]", v.Path, v.Value, v.Low, v.High)
		}
	}
	again, err := syn.Fit(context.Background(), plan, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range f.Values {
		if f.Values[i] != again.Values[i] {
			t.Errorf("two fits differ: %+v and %+v", f.Values[i], again.Values[i])
		}
	}
	if d := s.devices["a16"]; d != nil && d.NE.SpillGBs.Value == 38 {
		t.Error("the fit changed the set's devices")
	}

	folds, err := syn.LeaveOut(context.Background(), plan, o, ByChip)
	if err != nil {
		t.Fatal(err)
	}
	if len(folds) != 2 || Summarise(All(folds)).MedianPct > 3 {
		t.Errorf("%d folds, median %.1f %%: planted physics does not carry over", len(folds), Summarise(All(folds)).MedianPct)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := syn.Fit(ctx, plan, o); err == nil {
		t.Error("a cancelled fit returns no error")
	}
}

func TestPatch(t *testing.T) {
	data := os.DirFS("../device/data")
	f := &Fitted{Values: []Value{
		{Var: Var{Entry: "base", Path: "ne.spill_gbs"}, Value: 51.23456},
		{Var: Var{Entry: "a-2018", Path: "cpu.efficiency"}, Value: 0.4321},
		{Var: Var{Entry: "iphone-11-pro", Path: "handling_ms"}, Value: 1.25},
	}}
	files, err := f.Patch(data)
	if err != nil {
		t.Fatal(err)
	}
	m := fstest.MapFS{}
	for _, pat := range []string{"base.yaml", "devices.yaml", "families/*.yaml", "chips/*.yaml"} {
		names, err := filepath.Glob(filepath.Join("../device/data", pat))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel("../device/data", n)
			if p, ok := files[filepath.ToSlash(rel)]; ok {
				if strings.Count(string(p), "\n") != strings.Count(string(b), "\n") {
					t.Errorf("%s: lines came or went", rel)
				}
				b = p
			}
			m[filepath.ToSlash(rel)] = &fstest.MapFile{Data: b}
		}
	}
	c, err := device.Read(m)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Load("iphone-11-pro")
	if err != nil {
		t.Fatal(err)
	}
	if d.CPU.Efficiency.Value != 0.4321 || !d.CPU.Efficiency.Fitted || d.HandlingMS.Value != 1.25 {
		t.Errorf("efficiency %v, handling %v", d.CPU.Efficiency, d.HandlingMS)
	}
	if d, err = c.Load("a16"); err != nil || d.NE.SpillGBs.Value != 51.23 {
		t.Errorf("spill %v; want 51.23 (four digits): %v", d.NE.SpillGBs, err)
	}
	for _, v := range []Var{{Entry: "a16", Path: "ne.spill_gbs"}, {Entry: "nobody", Path: "ne.spill_gbs"}} {
		if _, err := (&Fitted{Values: []Value{{Var: v}}}).Patch(data); err == nil {
			t.Errorf("%s: no error for a figure that the entry does not state", v)
		}
	}
}

// A few rows of one's own move figures of the chips that they measure, in the
// files as well, and nothing of their relatives.
func TestOwnPlan(t *testing.T) {
	rows := []Row{
		{Line: 2, Device: "iphone-16-pro", Model: "resnet50", Precision: "fp16", Mask: units.All, LatencyMS: 1.6},
		{Line: 3, Device: "iphone-16-pro", Model: "mobilenet_v2", Precision: "fp16", Mask: units.All, LatencyMS: 0.62},
		{Line: 4, Device: "iphone-16-pro", Model: "mobilenet_v2", Precision: "w8a8", Mask: units.All, LatencyMS: 0.4},
		{Line: 5, Device: "m4", Model: "resnet18", Precision: "fp16", Mask: units.CPUOnly, LatencyMS: 9},
	}
	c, err := device.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSet(rows, c, LoadZoo)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	plan := s.OwnPlan()
	for _, b := range plan {
		for _, v := range b.Vars {
			got = append(got, v.String())
		}
	}
	if want := "m4:cpu.efficiency a18-pro:ne.floor_ms a18-pro:ne.spill_gbs"; strings.Join(got, " ") != want {
		t.Errorf("the plan frees %v, want %s", got, want)
	}
	f, err := s.Fit(context.Background(), plan, Options{Evaluations: 400, Starts: 1})
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.Residuals(nil)
	if err != nil {
		t.Fatal(err)
	}
	after, err := s.Residuals(f.Devices)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := Summarise(after).MeanPct, Summarise(before).MeanPct; a > b/2 {
		t.Errorf("the mean error falls from %.1f to %.1f %%; want at most half", b, a)
	}

	files, err := f.Patch(device.Files())
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2 || files["chips/a18-pro.yaml"] == nil || files["chips/m4.yaml"] == nil {
		t.Errorf("%d files change; want those of the two chips", len(files))
	}
	m := fstest.MapFS{}
	if err := fs.WalkDir(device.Files(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(device.Files(), p)
		if n := files[p]; n != nil {
			b = n
		}
		m[p] = &fstest.MapFile{Data: b}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	changed, err := device.Read(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range f.Values {
		for _, n := range []string{"iphone-16-pro", "a18", "m4", "m4-pro", "m2"} {
			x, err1 := changed.Load(n)
			y, err2 := c.Load(n)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			a, err1 := x.Get(v.Path)
			b, err2 := y.Get(v.Path)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			want := b.Value
			if x.Chip == v.Entry {
				want = v.Value
			}
			if math.Abs(a.Value/want-1) > 1e-3 || x.Chip == v.Entry && (!a.Fitted || a.Prior == nil) {
				t.Errorf("%s: %s = %+v, want %g", n, v.Path, a.Param, want)
			}
		}
	}
}

func TestReadCSVRefuses(t *testing.T) {
	const head = "device,chip,model,input,precision,compute_units,latency_ms\n"
	for _, c := range []struct{ text, want string }{
		{"", "empty"},
		{"device,model\n", `no column "precision"`},
		{head, "no measurements"},
		{head + ",,resnet50,224,fp16,all,1\n", "line 2: neither device nor chip"},
		{head + "x,,,224,fp16,all,1\n", "line 2: model"},
		{head + "x,,m,big,fp16,all,1\n", `input "big"`},
		{head + "x,,m,224,fp16,npu,1\n", "cpu_and_ne"},
		{head + "x,,m,224,fp16,all,fast\n", "latency_ms"},
		{head + "x,,m,224,fp16,all,0\n", "above 0"},
		{head + "x,,m,224,fp16,all,NaN\n", "latency_ms"},
		{head + "x,,m,224,\"fp16,all,1\n", "calibrate"},
	} {
		if _, err := ReadCSV(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v; want one that names %q", c.text, err, c.want)
		}
	}
}

func FuzzReadCSV(f *testing.F) {
	b, err := os.ReadFile("../bench/published/latencies.csv")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b[:2000]))
	f.Add("device,model,precision,compute_units,latency_ms\nx,y,fp16,all,1e308\n")
	f.Fuzz(func(t *testing.T, s string) {
		rows, err := ReadCSV(strings.NewReader(s))
		if err == nil && len(rows) == 0 {
			t.Fatal("no rows and no error")
		}
		for i := range rows {
			if v := rows[i].Sigma(); !(v > 0) || math.IsInf(v, 0) {
				t.Fatalf("sigma %v of %+v", v, rows[i])
			}
		}
	})
}

func TestSigmaRanksSources(t *testing.T) {
	official := Row{LatencyMS: 1.5, Source: "quantization-performance.md"}
	plot := Row{LatencyMS: 1.5, Note: "digitised from a plot"}
	whole := Row{LatencyMS: 20, Note: "mean of 500, whole ms, image pre-processing included"}
	short := Row{LatencyMS: 2, Note: whole.Note}
	if !(official.Sigma() < plot.Sigma() && plot.Sigma() < whole.Sigma() && whole.Sigma() < short.Sigma()) {
		t.Errorf("sigmas %v %v %v %v; want them to rise", official.Sigma(), plot.Sigma(), whole.Sigma(), short.Sigma())
	}
}

func TestReadPasted(t *testing.T) {
	rows, err := ReadPasted(strings.NewReader("# phone\n\nresnet50 fp16 all 2.1 ms\nmobilenet_v2@160 w8a8 cpu_and_ne 0.31\nvgg16 fp16 cpu_only 12ms\n"), "iphone-13", "iOS 17")
	if err != nil || len(rows) != 3 || rows[1].Input != 160 || rows[1].Mask != units.CPUAndNE || rows[2].LatencyMS != 12 || rows[0].Device != "iphone-13" {
		t.Errorf("%+v, %v", rows, err)
	}
	for _, bad := range []string{"", "resnet50 fp16 all\n", "resnet50 fp16 npu 1\n", "resnet50@x fp16 all 1\n", "resnet50 fp16 all soon\n", "resnet50 fp16 all -1\n"} {
		if _, err := ReadPasted(strings.NewReader(bad), "iphone-13", ""); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if _, err := ReadPasted(strings.NewReader("a fp16 all 1"), "", ""); err == nil {
		t.Error("no device is accepted")
	}
}

func TestSummaryIsJSON(t *testing.T) {
	b, err := json.Marshal(Summarise(nil))
	if err != nil || !bytes.Contains(b, []byte(`"rows":0`)) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestUnknownRowsAreNamed(t *testing.T) {
	c, err := device.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	rows := []Row{
		{Line: 2, Device: "toaster", Model: "resnet50", Precision: "fp16", Mask: units.All, LatencyMS: 1},
		{Line: 3, Device: "a16", Model: "skynet", Precision: "fp16", Mask: units.All, LatencyMS: 1},
		{Line: 4, Device: "a16", Model: "resnet50", Precision: "fp3", Mask: units.All, LatencyMS: 1},
		{Line: 5, Device: "?", Chip: "A16", Model: "resnet50", Precision: "fp16", Mask: units.All, LatencyMS: 1.5},
	}
	s, err := NewSet(rows, c, LoadZoo)
	if err != nil || len(s.Samples) != 1 || len(s.Skipped) != 3 || !strings.HasPrefix(s.Skipped[0], "line 2") {
		t.Errorf("%d samples, skipped %v, %v", len(s.Samples), s.Skipped, err)
	}
	if _, err := NewSet(rows[:1], c, LoadZoo); err == nil {
		t.Error("a set without a usable row is accepted")
	}
}

// The plot of docs/cost-model.md is what the program draws.
func TestPlot(t *testing.T) {
	rs, err := set(t).Residuals(nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := WriteSVG(&b, "115 published latencies", rs); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(testutil.Root(t), "docs", "residuals.svg")
	if *update {
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Error("docs/residuals.svg is not current: go test ./calibrate -run TestPlot -update")
	}
	if err := WriteSVG(&b, "", nil); err == nil {
		t.Error("an empty plot is drawn")
	}
}

// One evaluation of the fit: all 115 rows.
func BenchmarkPriceRows(b *testing.B) {
	s := set(b)
	b.ReportAllocs()
	for b.Loop() {
		ms, err := s.machines(s.devices)
		if err != nil {
			b.Fatal(err)
		}
		for _, x := range s.Samples {
			if !(x.price(ms[x.DeviceName]) > 0) {
				b.Fatal("no price")
			}
		}
	}
}
