package whatif

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/units"
)

func predict(t *testing.T, p *Pricer, c Config) *result.Prediction {
	t.Helper()
	r, err := p.Predict(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Elasticities agree with finite differences made independently, by override
// and predict.
func TestSensitivityIsFiniteDifference(t *testing.T) {
	p := &Pricer{}
	c := Config{Model: "mobilenet_v2", Device: "iphone-15-pro", Scheme: "w8a8", Units: units.CPUAndNE}
	s, err := Sensitivity(context.Background(), p, c, SensitivityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	base := predict(t, p, c).LatencyMS
	if s.Base != base {
		t.Fatalf("base %v, predict says %v", s.Base, base)
	}
	moved := 0
	for _, x := range s.Params {
		with := func(ch string) float64 {
			k := c
			k.Set = []string{x.Path + "=" + ch}
			return predict(t, p, k).LatencyMS
		}
		if got, want := x.High, with("x2"); got != want {
			t.Errorf("%s doubled: %v, predict says %v", x.Path, got, want)
		}
		if got, want := x.Low, with("x0.5"); got != want {
			t.Errorf("%s halved: %v, predict says %v", x.Path, got, want)
		}
		const h = 1e-3
		want := (with("x1.001") - with("x0.999")) / (2 * h * base)
		if !x.Kink && math.Abs(x.Elasticity-want) > 2e-3*max(1, math.Abs(want)) {
			t.Errorf("%s: elasticity %v, finite difference %v", x.Path, x.Elasticity, want)
		}
		if x.Elasticity != 0 {
			moved++
		}
	}
	if moved < 5 {
		t.Errorf("only %d parameters have an elasticity", moved)
	}
	if !slices.IsSortedFunc(s.Params, func(a, b Sensitive) int {
		switch x, y := a.Swing(base), b.Swing(base); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	}) {
		t.Error("not sorted by swing")
	}
	f := s.Finding(3)
	if len(f.Rows) != 3 || f.Answer == "" {
		t.Errorf("finding %+v", f)
	}
}

// On a request of which the handling time is a known part, its elasticity is
// that part: latency = handling + rest.
func TestSensitivityByHand(t *testing.T) {
	p := &Pricer{}
	c := Config{Model: "tiny_mlp", Device: "m1", Scheme: "fp16", Units: units.CPUOnly, Set: []string{"handling_ms=1"}}
	base := predict(t, p, c)
	s, err := Sensitivity(context.Background(), p, c, SensitivityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(s.Params, func(x Sensitive) bool { return x.Path == "handling_ms" })
	if i < 0 {
		t.Fatal("no handling_ms")
	}
	if want := 1 / base.LatencyMS; math.Abs(s.Params[i].Elasticity-want) > 1e-6 {
		t.Errorf("elasticity %v, want handling / latency = %v", s.Params[i].Elasticity, want)
	}
	if got := s.Params[i].High - base.LatencyMS; math.Abs(got-1) > 1e-9 {
		t.Errorf("doubling adds %v ms, want 1", got)
	}
}

// Two configurations whose energies are lines in the idle power: they meet where
// the lines do.
func TestBreakEvenByHand(t *testing.T) {
	p := &Pricer{}
	// energy = watts x latency + rest: a is slow and frugal, b quick and
	// hungry, by construction.
	a := Config{Model: "tiny_cnn", Device: "m1", Scheme: "fp16", Units: units.CPUOnly, Set: []string{"handling_ms=5", "energy.cpu_pj=0", "energy.cpu_static_w=0"}}
	b := Config{Model: "tiny_cnn", Device: "m1", Scheme: "fp16", Units: units.CPUOnly, Set: []string{"handling_ms=1", "energy.cpu_pj=1000", "energy.cpu_static_w=200"}}
	ra, rb := predict(t, p, a), predict(t, p, b)
	restA, restB := ra.EnergyMJ-ra.IdleEnergyMJ, rb.EnergyMJ-rb.IdleEnergyMJ
	want := (restB - restA) / (ra.LatencyMS - rb.LatencyMS)
	if want <= 0 {
		t.Fatalf("the case is badly chosen: break-even at %v W", want)
	}
	x, err := BreakEven(p, a, b, "idle_watts", want/10, want*7, "energy_mj", 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Crossings) != 1 || math.Abs(x.Crossings[0].Value-want) > 1e-6*want || !x.Crossings[0].BWins || x.Crossings[0].IsJump {
		t.Errorf("crossings %+v, by hand %v", x.Crossings, want)
	}
	none, err := BreakEven(p, a, b, "idle_watts", want*2, want*7, "energy_mj", 0)
	if err != nil || len(none.Crossings) != 0 {
		t.Errorf("above it: %+v, %v", none, err)
	}
	for _, bad := range [][2]float64{{1, 1}, {-1, 2}, {2, 1}, {0, math.Inf(1)}} {
		if _, err := BreakEven(p, a, b, "idle_watts", bad[0], bad[1], "energy_mj", 0); err == nil {
			t.Errorf("range %v accepted", bad)
		}
	}
	if _, err := BreakEven(p, a, b, "ne.speed", 1, 2, "", 0); err == nil {
		t.Error("unknown parameter accepted")
	}
	if _, err := BreakEven(p, a, b, "idle_watts", 1, 2, "speed", 0); err == nil {
		t.Error("unknown metric accepted")
	}
}

func TestSpreadCDF(t *testing.T) {
	for _, c := range []struct{ x, want float64 }{{4, 0.1}, {5, 0.5}, {8, 0.9}, {0, 0}, {-1, 0}} {
		if got := spreadCDF(c.x, 4, 5, 8); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("share below %v is %v, want %v", c.x, got, c.want)
		}
	}
	if spreadCDF(4.999, 5, 5, 5) != 0 || spreadCDF(5, 5, 5, 5) != 1 {
		t.Error("a point is no step")
	}
}

// A fleet whose answer can be told by hand: shares of point predictions.
func TestFleetByHand(t *testing.T) {
	p := &Pricer{}
	c := Config{Model: "mobilenet_v2", Units: units.All}
	members := []FleetMember{{"iphone-12", "iOS 16", 2}, {"iphone-14-pro", "iOS 17.4", 5}, {"iphone-16", "", 3}}
	rs, err := Fleet(p, c, []string{"fp16", "w8a8", "w4b32"}, members, 1e6, "")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{0, 0.2, 0.7} { // int8 activations need iOS 17, int4 blocks iOS 18
		if math.Abs(rs[i].Unsupported-want) > 1e-12 || math.Abs(rs[i].Over-want) > 1e-9 || math.Abs(rs[i].OverPoint-want) > 1e-12 {
			t.Errorf("%s: unsupported %v, over %v, %v; want %v", rs[i].Scheme, rs[i].Unsupported, rs[i].Over, rs[i].OverPoint, want)
		}
	}
	fb, err := Fleet(p, c, []string{"w8a8"}, members, 1e6, "fp16")
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(fb[0].Fallback-0.2) > 1e-12 || fb[0].Over > 1e-9 || fb[0].Members[0].Scheme != "fp16" {
		t.Errorf("with a fallback: %+v", fb[0])
	}
	// A budget exactly between two devices' latencies.
	lat := make([]float64, 3)
	mean := 0.0
	for i, m := range members {
		k := c
		k.Device, k.Scheme = m.Device, "fp16"
		lat[i] = predict(t, p, k).LatencyMS
		mean += lat[i] * m.Share / 10
	}
	if math.Abs(mean-rs[0].MeanMS) > 1e-12*mean {
		t.Errorf("mean %v, want %v", rs[0].MeanMS, mean)
	}
	slow := slices.Max(lat)
	at := slices.Index(lat, slow)
	mid, err := Fleet(p, c, []string{"fp16"}, members, slow*0.9999, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := mid[0].OverPoint, members[at].Share/10; got < want-1e-12 {
		t.Errorf("point share above %v is %v, want at least %v", slow*0.9999, got, want)
	}
	// The quantiles invert the share above.
	for q, x := range map[float64]float64{0.5: rs[0].P50, 0.9: rs[0].P90, 0.99: rs[0].P99} {
		r, err := Fleet(p, c, []string{"fp16"}, members, x, "")
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(r[0].Over-(1-q)) > 1e-6 {
			t.Errorf("share above the %v quantile %v is %v", q, x, r[0].Over)
		}
	}
	for _, bad := range [][]FleetMember{nil, {{"iphone-12", "", -1}}, {{"iphone-12", "", 0}}, {{"iphone-12", "Windows 11", 1}}, {{"iphone-12", "iOS", 1}}, {{"iphone-3", "", 1}}} {
		if _, err := Fleet(p, c, []string{"fp16"}, bad, 5, ""); err == nil {
			t.Errorf("%v accepted", bad)
		}
	}
}

func TestOSVersion(t *testing.T) {
	for s, want := range map[string]int{"": 0, "iOS 17": 17, "iOS 17.4": 17, "iPadOS 18": 18, "macOS 13": 16, "macOS 15.1": 18, "iOS 26": 26, "macOS 26": 26} {
		if got, err := osVersion(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
}

// Pivot, Pareto and budget of a study, against the rows themselves.
func TestStudyAnalyses(t *testing.T) {
	r := study(t, `
models: [mobilenet_v2]
devices: [iphone-13, iphone-15-pro]
schemes: [fp16, w8, w8a8, p4]
units: [all, cpu_only]
analyses:
  - pivot: {rows: device, columns: scheme, value: latency_ms}
  - pareto: {minimise: [latency_ms, package_bytes], by: device}
  - budget: {max: {latency_ms: 3, package_bytes: 4e6}}
  - title: What helps
    sensitivity: {config: {scheme: w8a8}, top: 5}
  - break_even: {a: {scheme: fp16}, b: {scheme: w8a8}, parameter: ne.int8_factor, range: 1..4}
  - fleet: {budget_ms: 2, members: [{device: iphone-13, share: 1}, {device: iphone-15-pro, share: 3}]}
`)
	b := collect(t, r, 2)
	fs, err := r.Analyse(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	if len(fs) != 6 || fs[3].Title != "What helps" {
		t.Fatalf("%d findings", len(fs))
	}
	for _, f := range fs {
		if f.Answer == "" || len(f.Rows) == 0 {
			t.Errorf("%s: answer %q, %d rows", f.Kind, f.Answer, len(f.Rows))
		}
		for _, row := range f.Rows {
			if len(row) != len(f.Columns) {
				t.Errorf("%s: a row of %d cells for %d columns", f.Kind, len(row), len(f.Columns))
			}
		}
	}
	lat, _ := r.column("latency_ms")
	size, _ := r.column("package_bytes")
	for i, row := range fs[0].Rows {
		for k, sch := range r.Study.Schemes {
			least := math.Inf(1)
			for j := range b.Rows {
				if b.Str[2][j] == r.Study.Devices[i] && b.Str[4][j] == sch {
					least = min(least, b.Num[lat][j])
				}
			}
			if row[k+1].Num != least {
				t.Errorf("pivot %s %s: %v, want %v", r.Study.Devices[i], sch, row[k+1].Num, least)
			}
		}
	}
	met := 0
	for j := range b.Rows {
		if b.Num[lat][j] <= 3 && b.Num[size][j] <= 4e6 {
			met++
		}
	}
	if len(fs[2].Rows) != met {
		t.Errorf("%d within budget, want %d", len(fs[2].Rows), met)
	}
	for _, row := range fs[2].Rows {
		if m := row[len(row)-1].Num; m < 0 {
			t.Errorf("margin %v", m)
		}
	}
	for _, c := range []string{
		"pivot: {rows: colour, columns: scheme, value: latency_ms}", "pivot: {rows: device, columns: scheme, value: model}",
		"pivot: {rows: device, columns: scheme, value: latency_ms, of: median}", "pareto: {minimise: [latency_ms]}", "budget: {}",
		"budget: {max: {weight: 3}}", "fleet: {budget_ms: 0, members: [{device: m1, share: 1}]}",
		"break_even: {a: {}, b: {}, parameter: dram_gbs, range: x3}", "sensitivity: {metric: speed}", "sensitivity: {factor: 0.5}",
	} {
		s, err := Read(strings.NewReader("models: [tiny_mlp]\nanalyses:\n  - "+c+"\n"), "")
		if err != nil {
			t.Fatal(err)
		}
		// What reads rows is refused before they are priced.
		r, err := Open(s)
		if early := s.WantsRows(); early != (err != nil) {
			t.Errorf("%s: opening it gives %v", c, err)
		}
		if err == nil {
			_, err = r.Analyse(context.Background(), collect(t, r, 1))
		}
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want an error of one line", c, err)
		}
	}
}
