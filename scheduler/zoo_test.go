package scheduler_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/machine"
)

// network lowers a zoo network typed fp16.
func network(tb testing.TB, name string) *model.Network {
	tb.Helper()
	g, err := zoo.Build(name)
	if err != nil {
		tb.Fatal(err)
	}
	if err := passes.Default(g); err != nil {
		tb.Fatal(err)
	}
	half := func(v *model.Value) {
		if v != nil && v.DType == model.Float32 {
			v.DType = model.Float16
			if v.Const != nil {
				v.Const.DType = model.Float16
			}
		}
	}
	for _, v := range g.Inputs {
		half(v)
	}
	for _, n := range g.Nodes {
		for _, v := range n.Inputs {
			half(v)
		}
		for _, v := range n.Outputs {
			half(v)
		}
	}
	net, err := model.Lower(g)
	if err != nil {
		tb.Fatal(err)
	}
	return net
}

func dev(tb testing.TB, name string) *units.Machine {
	tb.Helper()
	d, err := device.Load(name)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := machine.New(d)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// TestZoo places real networks on real devices: the parts of a prediction sum
// to the whole, no policy beats the optimum, and the document is the same
// bytes each time.
func TestZoo(t *testing.T) {
	for _, name := range []string{"mobilenet_v2", "resnet50", "mobilevit_v2"} {
		net := network(t, name)
		for _, d := range []string{"a14", "a17-pro"} {
			m := dev(t, d)
			var opt float64
			for _, pol := range []scheduler.Policy{scheduler.Optimal, scheduler.CoreML, scheduler.Greedy, scheduler.Energy} {
				o := scheduler.Options{Policy: pol}
				plan, err := scheduler.Solve(net, m, o)
				if err != nil {
					t.Fatal(err)
				}
				if pol == scheduler.Optimal {
					opt = plan.LatencyMS
				} else if plan.LatencyMS < opt*(1-1e-12) {
					t.Errorf("%s on %s: %s takes %g ms, optimal %g", name, d, pol, plan.LatencyMS, opt)
				}
				r := scheduler.NewPrediction(net, m, plan, scheduler.Meta{Model: name, Scheme: "fp16"})
				ex, err := scheduler.NewExplainer(net, m, plan, o)
				if err != nil {
					t.Fatal(err)
				}
				ex.Reasons(r)
				ms, mj, seg := r.HandlingMS+r.FloorMS, r.FloorEnergyMJ+r.IdleEnergyMJ, 0.0
				for _, l := range r.Layers {
					ms += l.LatencyMS + l.TransferMS
					mj += l.EnergyMJ
					if math.Abs(l.LatencyMS-l.ComputeMS-l.MemoryMS-l.OverheadMS) > 1e-12 {
						t.Errorf("%s: layer %s: parts do not sum to %g", name, l.Name, l.LatencyMS)
					}
					if l.Reason == "" {
						t.Errorf("%s: layer %s has no reason", name, l.Name)
					}
				}
				for _, s := range r.Segments {
					seg += s.LatencyMS
				}
				if math.Abs(ms-r.LatencyMS) > 1e-9*ms || math.Abs(mj-r.EnergyMJ) > 1e-9*mj || math.Abs(seg+r.HandlingMS+r.FloorMS-ms) > 1e-9*ms {
					t.Errorf("%s on %s: parts sum to %g ms, %g mJ; whole %g, %g", name, d, ms, mj, r.LatencyMS, r.EnergyMJ)
				}
				a, _ := json.Marshal(r)
				again, _ := scheduler.Solve(net, m, o)
				r2 := scheduler.NewPrediction(net, m, again, scheduler.Meta{Model: name, Scheme: "fp16"})
				ex.Reasons(r2)
				b, _ := json.Marshal(r2)
				if string(a) != string(b) {
					t.Errorf("%s: two predictions differ", name)
				}
				t.Logf("%-13s %-8s %-8s %.3f ms %.3f mJ, %d segments, peak %.1f MB, exact %v: %s", name, d, pol, r.LatencyMS, r.EnergyMJ, len(r.Segments), float64(r.PeakMemoryBytes)/1e6, r.Exact, r.Summary)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	net, m := network(t, "mobilenet_v2"), dev(t, "a16")
	o := scheduler.Options{Forbid: []scheduler.Pin{{Pattern: "pool", Unit: units.NE}}}
	plan, err := scheduler.Solve(net, m, o)
	if err != nil {
		t.Fatal(err)
	}
	ex, err := scheduler.NewExplainer(net, m, plan, o)
	if err != nil {
		t.Fatal(err)
	}
	x, err := ex.Explain("")
	if err != nil {
		t.Fatal(err)
	}
	if x.RunnerUp == nil || x.RunnerUp.DeltaMS < 0 || x.RunnerUp.Moves == 0 {
		t.Errorf("runner-up %+v", x.RunnerUp)
	}
	for _, l := range x.Layers {
		for _, c := range l.Choices {
			if c.Supported && c.Chosen && math.Abs(c.PlanMS-plan.LatencyMS) > 1e-12 {
				t.Errorf("layer %s: the plan with nothing moved takes %g, not %g", l.Name, c.PlanMS, plan.LatencyMS)
			}
		}
	}
	out, _ := json.MarshalIndent(x, "", " ")
	if testing.Verbose() {
		t.Logf("%.6000s", out)
	}
	if _, err := ex.Explain("no such layer"); err == nil || !strings.Contains(err.Error(), "no such layer") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkSolveResNet50(b *testing.B) {
	net, m := network(b, "resnet50"), dev(b, "a16")
	var s scheduler.Solver
	o := scheduler.Options{}
	b.Run("price+place", func(b *testing.B) {
		b.ReportAllocs()
		var plan scheduler.Plan
		for b.Loop() {
			if err := s.SolveInto(net, m, &o, &plan); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(plan.Stats.Labels), "labels")
	})
	b.Run("place", func(b *testing.B) {
		b.ReportAllocs()
		var plan scheduler.Plan
		p, err := s.Build(net, m, &o)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := s.SolveProblem(p, &o, &plan); err != nil {
				b.Fatal(err)
			}
		}
	})
}
