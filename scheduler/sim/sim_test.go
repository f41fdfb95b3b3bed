package sim

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

func one(ms float64) []scheduler.Stage { return []scheduler.Stage{{Unit: units.NE, MS: ms}} }

// TestClosedLoop: one client of one model takes the serial latency, no more
// and no less.
func TestClosedLoop(t *testing.T) {
	m := Model{Name: "m", HandlingMS: 0.125, Stages: []scheduler.Stage{
		{Unit: units.NE, MS: 0.75, DRAMBytes: 1e9}, {Unit: units.CPU, MS: 0.3}, {Unit: units.NE, MS: 0.11}},
		Arrival: Arrival{Clients: 1, Limit: 5000}}
	r, err := Run(&Config{Models: []Model{m}, Policy: FIFO, DRAMGBs: 10})
	if err != nil {
		t.Fatal(err)
	}
	s := r.Models[0]
	want := m.ServiceMS()
	if s.Done != 5000 || math.Abs(s.P50MS-want) > 1e-9 || math.Abs(s.MaxMS-want) > 1e-9 || s.WaitMS > 1e-12 {
		t.Errorf("%+v, want latency %g", s, want)
	}
	if math.Abs(r.MeanInSystem-1) > 1e-9 {
		t.Errorf("%g requests in the system, want 1", r.MeanInSystem)
	}
}

// TestMD1 compares the mean wait of a million requests with theory: for
// Poisson arrivals of rate l and a constant service d, W = l d^2 / 2(1 - l d).
func TestMD1(t *testing.T) {
	for _, rho := range []float64{0.3, 0.7} {
		const d = 2.0
		r, err := Run(&Config{Policy: FIFO, Seed: 11, Models: []Model{{Name: "q", Stages: one(d), Arrival: Arrival{RateHz: rho / d * 1e3, Limit: 1000000}}}})
		if err != nil {
			t.Fatal(err)
		}
		got, want := r.Models[0].WaitMS, rho*d/(2*(1-rho))
		t.Logf("load %.1f: mean wait %.4f ms, theory %.4f (%+.2f %%), %d events", rho, got, want, 100*(got/want-1), r.Events)
		if math.Abs(got/want-1) > 0.02 {
			t.Errorf("load %g: mean wait %g, theory %g", rho, got, want)
		}
		if u := r.Units[units.NE].UtilisationPct; math.Abs(u-100*rho) > 1 {
			t.Errorf("utilisation %g %%, offered %g", u, 100*rho)
		}
	}
}

func randomConfig(rt *rapid.T) *Config {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
	c := &Config{Policy: Policies()[r.IntN(4)], Seed: r.Uint64(), DurationMS: 5 + 200*r.Float64(), Drain: r.IntN(2) == 0,
		IdleWatts: r.Float64(), StaticWatts: [3]float64{r.Float64(), r.Float64(), r.Float64()}}
	if r.IntN(2) == 0 {
		c.DRAMGBs = 1 + r.Float64()*50
	}
	if r.IntN(3) == 0 {
		c.ModelSwitchMS = [3]float64{r.Float64() * 0.1, 0, r.Float64() * 0.2}
	}
	if r.IntN(3) == 0 {
		c.Thermal = &ThermalModel{ResistanceCPerW: 20, TauS: 0.02, StartC: 5, FullC: 15, MinRate: 0.5, StepMS: 1}
	}
	for i := range 1 + r.IntN(4) {
		m := Model{Name: string(rune('a' + i)), Priority: r.IntN(3), DropLate: r.IntN(3) == 0}
		if r.IntN(2) == 0 {
			m.HandlingMS = r.Float64() * 0.2
		}
		for range 1 + r.IntN(4) {
			st := scheduler.Stage{Unit: units.Kind(r.IntN(3)), MS: 0.05 + r.ExpFloat64(), EnergyMJ: r.Float64()}
			st.DRAMBytes = st.MS * r.Float64() * 40e6
			m.Stages = append(m.Stages, st)
		}
		if r.IntN(2) == 0 {
			m.DeadlineMS = 1 + 5*r.Float64()
		}
		if r.IntN(3) == 0 {
			m.MaxInFlight = 1 + r.IntN(5)
		}
		switch r.IntN(4) {
		case 0:
			m.Arrival = Arrival{PeriodMS: 1 + 5*r.Float64(), PhaseMS: r.Float64(), JitterMS: r.Float64() * 8}
		case 1:
			m.Arrival = Arrival{RateHz: 100 + 400*r.Float64()}
		case 2:
			m.Arrival = Arrival{Clients: 1 + r.IntN(3), ThinkMS: r.Float64()}
		case 3:
			at := 0.0
			for range 20 {
				at += r.ExpFloat64() * 5
				m.Arrival.TimesMS = append(m.Arrival.TimesMS, at)
			}
		}
		if r.IntN(4) == 0 {
			m.Arrival.Limit = int64(1 + r.IntN(30))
		}
		c.Models = append(c.Models, m)
	}
	return c
}

// TestInvariants: conservation, a clock that never goes back, no idle unit
// with a queue, no latency below the service time, Little's law, utilisation
// within bounds, equal seeds give equal bytes.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := randomConfig(rt)
		e, err := newEngine(c)
		if err != nil {
			rt.Fatal(err)
		}
		last := 0.0
		e.watch = func() {
			if e.now < last {
				rt.Fatalf("clock from %g to %g", last, e.now)
			}
			last = e.now
			for u := range e.units {
				if s := &e.units[u]; !s.busy && len(s.queue) > 0 {
					rt.Fatalf("%s idles at %g ms while %d requests wait", units.Kind(u), e.now, len(s.queue))
				}
				if s := &e.units[u]; s.busy && (s.rate <= 0 || s.rate > 1 || s.finish < e.now) {
					rt.Fatalf("%s runs at rate %g until %g, now %g", units.Kind(u), s.rate, s.finish, e.now)
				}
			}
		}
		e.loop()
		r := e.report()
		sojourn, done := 0.0, int64(0)
		inFlight := int64(0)
		for i, m := range r.Models {
			if m.Arrivals != m.Done+m.Dropped+m.InFlight || m.InFlight < 0 {
				rt.Fatalf("model %s: %d arrivals, %d done, %d dropped, %d in flight", m.Name, m.Arrivals, m.Done, m.Dropped, m.InFlight)
			}
			if e.models[i].done > 0 && e.models[i].latency[0] < m.ServiceMS*(1-1e-9) {
				rt.Fatalf("model %s: a latency of %g ms, below its service time of %g", m.Name, e.models[i].latency[0], m.ServiceMS)
			}
			if m.P50MS > m.P90MS || m.P90MS > m.P99MS || m.P99MS > m.MaxMS || m.Misses > m.Done+m.Dropped {
				rt.Fatalf("quantiles or misses out of order: %+v", m)
			}
			sojourn += m.MeanMS * float64(m.Done)
			done += m.Done
			inFlight += m.InFlight
			if c.Drain && m.InFlight > 0 {
				rt.Fatalf("model %s: %d requests left after draining", m.Name, m.InFlight)
			}
		}
		for _, u := range r.Units {
			if u.UtilisationPct < 0 || u.UtilisationPct > 100+1e-9 || u.SlowedPct < 0 || u.SlowedPct > 100 {
				rt.Fatalf("%+v", u)
			}
		}
		dropsInside := false
		for _, m := range c.Models {
			dropsInside = dropsInside || m.DropLate
		}
		if inFlight == 0 && !dropsInside && r.DurationMS > 0 {
			if area := r.MeanInSystem * r.DurationMS; math.Abs(area-sojourn) > 1e-6*(1+area) {
				rt.Fatalf("Little: %g request-ms in the system, sojourns sum to %g", area, sojourn)
			}
		}
		again, err := Run(c)
		if err != nil {
			rt.Fatal(err)
		}
		a, _ := json.Marshal(r)
		b, err := json.Marshal(again)
		if err != nil || string(a) != string(b) {
			rt.Fatalf("two runs differ (%v):\n%s\n%s", err, a, b)
		}
	})
}

func TestPolicies(t *testing.T) {
	// A long stage blocks; then urgent requests wait behind it. Priority and
	// deadlines must order the queue, FIFO must not.
	models := []Model{
		{Name: "bulk", Stages: one(5), Arrival: Arrival{TimesMS: []float64{0, 0.1, 0.2}}, DeadlineMS: 100},
		{Name: "urgent", Stages: one(1), Arrival: Arrival{TimesMS: []float64{1}}, Priority: 1, DeadlineMS: 6},
	}
	for pol, want := range map[Policy]float64{FIFO: 15, Priority: 5, EDF: 5} {
		r, err := Run(&Config{Policy: pol, Models: models})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Models[1].MaxMS; math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: the urgent request takes %g ms, want %g", pol, got, want)
		}
		if miss := r.Models[1].Misses; (miss == 1) != (pol == FIFO) {
			t.Errorf("%s: %d misses", pol, miss)
		}
	}
}

func TestBandwidthAndThermal(t *testing.T) {
	// Two units that each need 30 GB/s for all of their time share 40: both
	// take 1.5 times as long.
	stage := func(u units.Kind) []scheduler.Stage {
		return []scheduler.Stage{{Unit: u, MS: 1, DRAMBytes: 30e6, EnergyMJ: 5}}
	}
	c := &Config{Policy: FIFO, DRAMGBs: 40, Models: []Model{
		{Name: "a", Stages: stage(units.GPU), Arrival: Arrival{TimesMS: []float64{0}}},
		{Name: "b", Stages: stage(units.NE), Arrival: Arrival{TimesMS: []float64{0}}}}}
	r, err := Run(c)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(r.Models[0].MaxMS-1.5) > 1e-12 || math.Abs(r.Units[units.NE].SlowedPct-100.0/3) > 1e-9 {
		t.Errorf("shared bandwidth: %+v, %+v", r.Models[0], r.Units)
	}
	c.DRAMGBs = 0
	if r, _ = Run(c); r.Models[0].MaxMS != 1 {
		t.Errorf("unshared: %+v", r.Models[0])
	}
	// Sustained load heats: 5 W x 10 C/W = 50 C, far beyond full throttling.
	hot := &Config{Policy: FIFO, DurationMS: 2000, Models: []Model{{Name: "a", Stages: stage(units.NE), Arrival: Arrival{Clients: 1}}},
		Thermal: &ThermalModel{ResistanceCPerW: 10, TauS: 0.1, StartC: 10, FullC: 20, MinRate: 0.5, StepMS: 10}}
	r, err = Run(hot)
	if err != nil {
		t.Fatal(err)
	}
	// At half the rate the power halves: the steady rise is between full
	// throttling and 25 C.
	if th := r.Thermal; th.LowestRate != 0.5 || th.EndRiseC < 20 || th.EndRiseC > 30 || th.ThrottledPct < 80 {
		t.Errorf("thermal %+v", *th)
	}
	if m := r.Models[0]; m.P50MS < 1.9 || m.P50MS > 2.1 {
		t.Errorf("throttled latency %g ms, want about 2", m.P50MS)
	}
}

func fakePlacer(spec *ModelSpec, o scheduler.Options) (*scheduler.Plan, []scheduler.Stage, *units.Machine, error) {
	m := &units.Machine{Device: "testbed", DRAMGBs: 50}
	u := units.NE
	if len(o.Pins) > 0 {
		u = o.Pins[0].Unit
	} else if !o.Mask.Has(units.NE) {
		u = units.CPU
	}
	ms := map[units.Kind]float64{units.CPU: 8, units.GPU: 2.5, units.NE: 2}[u]
	plan := &scheduler.Plan{}
	plan.HandlingMS = 0.1
	return plan, []scheduler.Stage{{Unit: u, MS: ms}}, m, nil
}

const scenario = `
name: two cameras
device: testbed
policy: edf
duration_s: 0.5
seed: 3
timeline: 50
thermal: {tau_s: 10}
models:
  - name: front
    model: mobilenet_v2
    arrival: {periodic_ms: 3}
    deadline_ms: 3
  - name: back
    model: mobilenet_v2
    arrival: {periodic_ms: 3}
    deadline_ms: 6
`

func TestScenario(t *testing.T) {
	s, err := ParseScenario([]byte(scenario))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s.Config(fakePlacer)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Thermal.TauS != 10 || cfg.Thermal.MinRate != DefaultThermal().MinRate || cfg.DRAMGBs != 50 {
		t.Errorf("%+v", cfg)
	}
	r, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Models[0].Arrivals != 167 || len(r.Timeline.Spans) != 50 || r.Models[1].MissPct == 0 {
		t.Errorf("%+v", r.Models)
	}
	// Two models that overload one unit fit when each has its own.
	trials, err := s.Search(fakePlacer)
	if err != nil {
		t.Fatal(err)
	}
	if best := trials[0]; best.MissPct != 0 || best.Plans[0] == best.Plans[1] {
		t.Errorf("best %+v", best)
	}
	s.Policy = Static
	if cfg, err = s.Config(fakePlacer); err != nil {
		t.Fatal(err)
	}
	if a, b := cfg.Models[0].Stages[0].Unit, cfg.Models[1].Stages[0].Unit; a == b {
		t.Errorf("static partition puts both on the %s", a)
	}
}

// TestKeysText checks that the error about unknown keys names every key.
func TestKeysText(t *testing.T) {
	var walk func(ty reflect.Type)
	walk = func(ty reflect.Type) {
		for ty.Kind() == reflect.Pointer || ty.Kind() == reflect.Slice {
			ty = ty.Elem()
		}
		if ty.Kind() != reflect.Struct {
			return
		}
		for i := range ty.NumField() {
			f := ty.Field(i)
			if key := f.Tag.Get("yaml"); key != "" {
				if !strings.Contains(keysText, " "+key) {
					t.Errorf("key %s of %s is not listed", key, ty)
				}
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[Scenario]())
}

func TestScenarioErrors(t *testing.T) {
	for _, c := range []struct{ edit, with, want string }{
		{"seed: 3", "sede: 3", "sede"},
		{"policy: edf", "policy: lifo", "want fifo, priority, edf or static"},
		{"device: testbed", "", "names no device"},
		{"name: back", "name: front", "two models are named"},
		{"{periodic_ms: 3}", "{periodic_ms: 3, poisson_hz: 2}", "exactly one kind of arrival"},
		{"{periodic_ms: 3}", "{trace: nowhere.csv}", "nowhere.csv"},
		{"{periodic_ms: 3}", "{periodic_ms: -3}", "at least 0"},
		{"duration_s: 0.5", "duration_s: 0", "duration"},
		{"duration_s: 0.5", "duration_s: 1e300", "at most 2e8"},
		{"thermal: {tau_s: 10}", "thermal: {tau_s: -1}", "thermal"},
		{"    deadline_ms: 3\n", "    deadline_ms: 3\n    units: tpu\n", "want all"},
		{"    deadline_ms: 3\n", "    deadline_ms: 3\n    plan: best\n", "want optimal"},
		{"models:", "models: []\nrest:", "rest"},
	} {
		text := strings.Replace(scenario, c.edit, c.with, 1)
		if text == scenario {
			t.Fatalf("edit %q finds nothing", c.edit)
		}
		s, err := ParseScenario([]byte(text))
		if err == nil {
			_, err = s.Config(fakePlacer)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "sim: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, want one with %q", c.with, err, c.want)
		}
	}
	dir := t.TempDir()
	for text, want := range map[string]string{"time_ms\n1\n0.5\n": "comes before", "1\nx\n": "no arrival time", "# nothing\n": "holds no arrival", "time_ms\n1,a\n2,b\n": ""} {
		if err := os.WriteFile(filepath.Join(dir, "trace.csv"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readTrace(filepath.Join(dir, "trace.csv"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("trace %q: %v", text, err)
		}
	}
}

func FuzzParseScenario(f *testing.F) {
	f.Add([]byte(scenario))
	f.Add([]byte("models: [{}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseScenario(data)
		if err != nil {
			return
		}
		s.dir = t.TempDir()
		s.DurationS = min(s.DurationS, 0.01)
		if cfg, err := s.Config(fakePlacer); err == nil && cfg.expected() < 1e4 {
			if _, err := Run(cfg); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// BenchmarkMillion simulates a million requests of three models on three
// units.
func BenchmarkMillion(b *testing.B) {
	mk := func(name string, hz float64, st ...scheduler.Stage) Model {
		return Model{Name: name, HandlingMS: 0.05, Stages: st, Arrival: Arrival{RateHz: hz}, DeadlineMS: 10}
	}
	c := &Config{Policy: EDF, Seed: 1, DurationMS: 1e6, DRAMGBs: 60, Models: []Model{
		mk("a", 500, scheduler.Stage{Unit: units.NE, MS: 0.7, DRAMBytes: 2e7}, scheduler.Stage{Unit: units.CPU, MS: 0.4}),
		mk("b", 300, scheduler.Stage{Unit: units.GPU, MS: 1.4, DRAMBytes: 6e7}),
		mk("c", 200, scheduler.Stage{Unit: units.NE, MS: 1.2, DRAMBytes: 3e7})}}
	for b.Loop() {
		r, err := Run(c)
		if err != nil {
			b.Fatal(err)
		}
		n := int64(0)
		for _, m := range r.Models {
			n += m.Arrivals
		}
		b.ReportMetric(float64(n), "requests")
		b.ReportMetric(float64(r.Events), "events")
	}
}
