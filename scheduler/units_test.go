package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// fakeUnit is a unit whose costs follow from a few figures, for tests.
type fakeUnit struct {
	kind     units.Kind
	macsPerS float64
	refuse   model.Kind // KindOther: refuses nothing
	why      string
	rates    units.Rates
}

func (u *fakeUnit) Kind() units.Kind { return u.kind }
func (u *fakeUnit) Support(l *model.Layer) units.Support {
	if u.refuse != model.KindOther && l.Kind == u.refuse {
		return units.Support{Reason: u.why}
	}
	return units.Support{OK: true}
}
func (u *fakeUnit) Estimate(l *model.Layer, e *units.Estimate) {
	*e = units.Estimate{ComputeMS: float64(l.MACs) / u.macsPerS * 1e3, ActivationMS: float64(l.InElems+l.OutElems) * 1e-7,
		OverheadMS: 0.001, WeightBytes: l.WeightBytes, ResidentBytes: l.WeightBytes, EnergyMJ: float64(l.MACs) * 1e-9}
	e.WeightMS = float64(l.WeightBytes) / (u.rates.StreamGBs * 1e6)
	e.BusyMS = max(e.ComputeMS, e.ActivationMS)
	if e.BusyMS > e.ComputeMS {
		e.Bound = units.BoundActivation
	}
}
func (u *fakeUnit) Rates() units.Rates { return u.rates }

func fakeMachine() *units.Machine {
	m := &units.Machine{Device: "testbed", Chip: "T1", OS: "any", HandlingMS: 0.02, IdleWatts: 0.1}
	rate := []float64{1e11, 1e12, 8e12}
	for k := range units.Kind(NumUnits) {
		m.Units[k] = &fakeUnit{kind: k, macsPerS: rate[k], rates: units.Rates{FloorMS: 0.05, StreamGBs: 40, PrefetchBytes: 2e6, StaticWatts: 0.5, ActivationBytes: 2}}
		for b := range m.Links[k] {
			if b != int(k) {
				m.Links[k][b] = units.Link{SwitchMS: 0.2, GBs: 20}
			}
		}
	}
	ne := m.Units[units.NE].(*fakeUnit)
	ne.refuse, ne.why = model.KindGather, "gather has no native path on the NE"
	return m
}

// chain makes a network of layers in a row with the given kinds.
func chain(macs int64, kinds ...model.Kind) *model.Network {
	net := &model.Network{}
	net.Edges = append(net.Edges, &model.Edge{Index: 0, Producer: -1, Consumers: []int{0}, Elems: 1000})
	for i, k := range kinds {
		l := &model.Layer{Index: i, Name: fmt.Sprintf("l%d/%s", i, k), Op: model.Op(strings.ToUpper(k.String()[:1]) + k.String()[1:]), Kind: k,
			Inputs: []int{i}, Outputs: []int{i + 1}}
		l.MACs, l.InElems, l.OutElems, l.WeightBytes = macs, 1000, 1000, 10000
		net.Layers = append(net.Layers, l)
		e := &model.Edge{Index: i + 1, Producer: i, Elems: 1000}
		if i < len(kinds)-1 {
			e.Consumers = []int{i + 1}
		} else {
			e.Output = true
		}
		net.Edges = append(net.Edges, e)
	}
	return net
}

func TestRefusalsAndReasons(t *testing.T) {
	m := fakeMachine()
	net := chain(2e9, model.KindConv, model.KindConv, model.KindGather, model.KindConv)
	plan, err := Solve(net, m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Units[0] != units.NE || plan.Units[2] == units.NE || plan.Units[3] != units.NE {
		t.Fatalf("placed %v", plan.Units)
	}
	ex, err := NewExplainer(net, m, plan, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r := ex.Reason(2); !strings.Contains(r, "gather has no native path on the NE") {
		t.Errorf("reason %q", r)
	}
	if r := ex.Reason(0); !strings.HasPrefix(r, "fastest here: NE") {
		t.Errorf("reason %q", r)
	}
	if s := Summary(net, plan); !strings.HasPrefix(s, "1 of 4 layers leave the NE: 1 Gather (") {
		t.Errorf("summary %q", s)
	}

	// A layer that is faster elsewhere, but not by the price of two switches.
	small := chain(4e9, model.KindConv, model.KindPool, model.KindConv)
	small.Layers[1].MACs = 1
	m.Units[units.NE].(*fakeUnit).rates.StreamGBs = 0.2 // 0.05 ms of weights
	plan, err = Solve(small, m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ex, _ = NewExplainer(small, m, plan, Options{})
	if r := ex.Reason(1); plan.Units[1] != units.NE || !strings.Contains(r, "costs") || !strings.Contains(r, "saves") {
		t.Errorf("placed %v: %q", plan.Units, r)
	}
	plan, err = Solve(small, m, Options{Pins: []Pin{{"l1*", units.CPU}}})
	if err != nil || plan.Units[1] != units.CPU {
		t.Fatalf("%v: %v", err, plan)
	}
}

func TestOptionErrors(t *testing.T) {
	m := fakeMachine()
	net := chain(1e9, model.KindConv, model.KindGather)
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Pins: []Pin{{"*gather", units.NE}}}, "gather has no native path"},
		{Options{Pins: []Pin{{"nothing*", units.NE}}}, "matches no layer"},
		{Options{Forbid: []Pin{{"conv", units.CPU}, {"conv", units.GPU}, {"conv", units.NE}}}, "every unit that runs it is forbidden"},
		{Options{Mask: units.CPUOnly, Pins: []Pin{{"conv", units.NE}}}, "cpu_only"},
		{Options{Policy: "fastest"}, "want optimal"},
		{Options{Policy: Pinned}, "at least one pin"},
		{Options{Objective: Objective{Latency: -1}}, "at least 0"},
		{Options{MaxSegments: 1, Pins: []Pin{{"l0*", units.NE}, {"l1*", units.CPU}}}, "at most 1 segments"},
	} {
		_, err := Solve(net, m, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "scheduler: ") {
			t.Errorf("%+v: error %v, want one with %q", c.o, err, c.want)
		}
	}
	refuseAll := fakeMachine()
	refuseAll.Units[units.CPU], refuseAll.Units[units.GPU] = nil, nil
	if _, err := Solve(net, refuseAll, Options{}); !errors.Is(err, ErrUnplaceable) || !strings.Contains(err.Error(), "l1/gather") {
		t.Errorf("error %v", err)
	}
	for _, s := range []string{"", "x", "=cpu", "a=", "a=tpu"} {
		if _, err := ParsePin(s); err == nil {
			t.Errorf("pin %q accepted", s)
		}
	}
	for _, s := range []string{"", "softmax", "ne:", "tpu:softmax"} {
		if _, err := ParseForbid(s); err == nil {
			t.Errorf("forbid %q accepted", s)
		}
	}
	if p, err := ParsePin("layer3.*=cpu"); err != nil || p.String() != "layer3.*=cpu" {
		t.Errorf("%v %v", p, err)
	}
	if p, err := ParseForbid("ne:softmax"); err != nil || p.Unit != units.NE || p.Pattern != "softmax" {
		t.Errorf("%v %v", p, err)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"layer3.*", "layer3.0.conv1", true}, {"layer3.*", "layer30", false}, {"*", "", true}, {"", "", true}, {"", "a", false},
		{"*conv*", "a/Conv_1", true}, {"a*b*c", "aXbYc", true}, {"a*b*c", "aXbY", false}, {"softmax", "Softmax", true}, {"**x", "abx", true},
	} {
		if got := match(c.pattern, c.s); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

// TestMonotone is invariant 2 on problems: no figure that gets better makes
// the optimum worse, and no layer that does more makes it better.
func TestMonotone(t *testing.T) {
	var s Solver
	rapid.Check(t, func(rt *rapid.T) {
		r := rapidRand(rt)
		p := randomProblem(r, rapid.IntRange(1, 25).Draw(rt, "layers"), rapid.IntRange(1, 5).Draw(rt, "width"), 0.2)
		var before, after Plan
		if err := s.SolveProblem(p, &Options{}, &before); err != nil {
			rt.Fatal(err)
		}
		k := rapid.IntRange(0, NumUnits-1).Draw(rt, "unit")
		f := rapid.Float64Range(0.1, 1).Draw(rt, "factor")
		switch what := rapid.IntRange(0, 7).Draw(rt, "what"); what {
		case 0, 1, 2:
			for i := range p.Layers {
				c := &p.Layers[i].Cost[k]
				switch what {
				case 0:
					c.BusyMS *= f // a faster unit
				case 1:
					c.OverheadMS *= f
				case 2: // a faster stream: the same bytes, in less time and so less time ahead
					c.WeightMS *= f
				}
			}
			if what == 2 {
				p.Units[k].CapMS *= f
			}
		case 3:
			p.Units[k].CapMS /= f // a larger store
		case 4:
			p.Units[k].FloorMS *= f
		case 5:
			for b := range p.SwitchMS[k] {
				p.SwitchMS[k][b] *= f
			}
		case 6:
			for i := range p.Edges {
				for b := range p.Edges[i].ConvertMS[k] {
					p.Edges[i].ConvertMS[k][b] *= f
				}
			}
		case 7:
			p.HandlingMS *= f
		}
		if err := s.SolveProblem(p, &Options{}, &after); err != nil {
			rt.Fatal(err)
		}
		if after.LatencyMS > before.LatencyMS*(1+1e-12) {
			rt.Fatalf("a better machine takes %.17g ms instead of %.17g", after.LatencyMS, before.LatencyMS)
		}
	})
}

// TestSolverReuse checks that a solver used again gives the same plan as a new
// one (invariant 7), and that a warm call allocates nothing.
func TestSolverReuse(t *testing.T) {
	m := fakeMachine()
	var s Solver
	var plan Plan
	nets := []*model.Network{chain(1e9, model.KindConv, model.KindGather, model.KindConv), chain(1e7, model.KindPool), chain(3e9, model.KindConv, model.KindConv, model.KindSoftmax, model.KindGather, model.KindConv)}
	for range 3 {
		for _, net := range nets {
			for _, pol := range Policies() {
				if pol == Pinned {
					continue
				}
				o := Options{Policy: pol}
				if err := s.SolveInto(net, m, &o, &plan); err != nil {
					t.Fatal(err)
				}
				fresh, err := Solve(net, m, o)
				if err != nil {
					t.Fatal(err)
				}
				if fmt.Sprint(fresh.Units, fresh.LatencyMS, fresh.EnergyMJ) != fmt.Sprint(plan.Units, plan.LatencyMS, plan.EnergyMJ) {
					t.Errorf("%s: reused solver gives %v, new one %v", pol, plan.Units, fresh.Units)
				}
			}
		}
	}
	o := Options{}
	if a := testing.AllocsPerRun(20, func() {
		if err := s.SolveInto(nets[2], m, &o, &plan); err != nil {
			t.Fatal(err)
		}
	}); a > 0 {
		t.Errorf("a warm call allocates %v times", a)
	}
}

func TestParseObjective(t *testing.T) {
	for s, want := range map[string]struct {
		p Policy
		o Objective
	}{
		"latency": {Optimal, Objective{}}, "energy": {Energy, Objective{}}, "edp": {EDP, Objective{}}, "throughput": {Throughput, Objective{}},
		"latency=1,energy=0.25": {Optimal, Objective{1, 0.25}}, "energy=2": {Optimal, Objective{0, 2}},
	} {
		if p, o, err := ParseObjective(s); err != nil || p != want.p || o != want.o {
			t.Errorf("%q: %v %v %v", s, p, o, err)
		}
	}
	for _, s := range []string{"speed", "latency=", "latency=-1", "latency=NaN", "energy=0", "power=1", "latency=1;energy=1"} {
		if _, _, err := ParseObjective(s); err == nil || !strings.HasPrefix(err.Error(), "scheduler: ") {
			t.Errorf("%q: error %v", s, err)
		}
	}
	var limits [NumUnits]int64
	for s, want := range map[string]int64{"ne=64MB": 64e6, "cpu=1.5 GB": 15e8, "gpu=10": 10} {
		k, _ := ParseUnit(strings.SplitN(s, "=", 2)[0])
		if err := ParseResident(s, &limits); err != nil || limits[k] != want {
			t.Errorf("%q: %v %v", s, limits, err)
		}
	}
	for _, s := range []string{"", "ne", "ne=", "tpu=1", "ne=x", "ne=-1MB", "ne=1TB", "ne=1e30"} {
		if err := ParseResident(s, &limits); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

// TestCoreMLRules checks the rules of the policy one by one.
func TestCoreMLRules(t *testing.T) {
	place := func(m *units.Machine, mask units.Mask, net *model.Network) (string, *Plan) {
		plan, err := Solve(net, m, Options{Policy: CoreML, Mask: mask})
		if err != nil {
			t.Fatal(err)
		}
		s := ""
		for _, u := range plan.Units {
			s += u.String()[:1]
		}
		if plan.OptimalMS <= 0 || plan.OptimalMS > plan.LatencyMS*(1+1e-12) {
			t.Errorf("optimal %g ms beside %g", plan.OptimalMS, plan.LatencyMS)
		}
		return s, plan
	}
	conv, gather := model.KindConv, model.KindGather
	for _, c := range []struct {
		name string
		mask units.Mask
		net  *model.Network
		want string
	}{
		{"the NE is preferred", units.All, chain(4e9, conv, conv, conv), "NNN"},
		{"a refused layer between goes to the CPU, not the GPU", units.All, chain(4e9, conv, gather, conv), "NCN"},
		{"what follows the last NE layer may go to the GPU", units.All, chain(4e9, conv, conv, gather, gather), "NNGG"},
		{"no NE in the mask: the GPU", units.CPUAndGPU, chain(4e9, conv, conv), "GG"},
		{"only the CPU", units.CPUOnly, chain(4e9, conv, conv), "CC"},
		{"a tiny graph stays on the CPU", units.All, chain(10, conv, gather, conv), "CCC"},
		{"an NE island between refused layers is given up when the switches cost more", units.All, chain(2e7, gather, conv, gather), "CCC"},
	} {
		if got, _ := place(fakeMachine(), c.mask, c.net); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	big := chain(4e9, conv, conv)
	for _, l := range big.Layers {
		l.WeightBytes = 600 << 20
	}
	if got, plan := place(fakeMachine(), units.All, big); got != "GG" || !strings.Contains(Summary(big, plan), "left on the table") && plan.LatencyMS > plan.OptimalMS {
		t.Errorf("a model over 1 GiB: %s; %s", got, Summary(big, plan))
	}
}

// TestSummary checks that the sentence tells what is special about a plan.
func TestSummary(t *testing.T) {
	m := fakeMachine()
	net := chain(4e9, model.KindConv, model.KindConv, model.KindGather)
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "1 of 3 layers leave the NE"},
		{Options{Mask: units.CPUOnly}, "all 3 layers run on the CPU"},
		{Options{Policy: CoreML}, "optimal plan"},
		{Options{Overlap: true}, "running branches at once gains nothing"},
		{Options{Policy: Throughput}, "a stream of requests runs at"},
	} {
		plan, err := Solve(net, m, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if s := Summary(net, plan); !strings.Contains(s, c.want) {
			t.Errorf("%+v: %q, want %q", c.o, s, c.want)
		}
	}
}
