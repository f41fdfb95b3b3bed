package scheduler_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/result"
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

// checkPrediction is invariant 1: every figure is finite and at least zero,
// and the parts sum to the whole.
func checkPrediction(t *testing.T, r *result.Prediction) {
	t.Helper()
	what := r.Model + " " + r.Scheme + " on " + r.Device + ", " + r.Policy
	ms, mj, seg := r.HandlingMS+r.FloorMS, r.FloorEnergyMJ+r.IdleEnergyMJ, r.HandlingMS+r.FloorMS
	inSegments, unitMJ := 0, r.IdleEnergyMJ
	for _, l := range r.Layers {
		ms += l.LatencyMS + l.TransferMS
		mj += l.EnergyMJ
		if math.Abs(l.LatencyMS-l.ComputeMS-l.MemoryMS-l.OverheadMS) > 1e-9*(1+l.LatencyMS) {
			t.Errorf("%s: layer %s: %g + %g + %g ms do not sum to %g", what, l.Name, l.ComputeMS, l.MemoryMS, l.OverheadMS, l.LatencyMS)
		}
		for _, v := range []float64{l.LatencyMS, l.ComputeMS, l.MemoryMS, l.OverheadMS, l.TransferMS, l.StartMS, l.EnergyMJ, l.StallMS,
			float64(l.WeightBytes), float64(l.InputBytes), float64(l.OutputBytes), float64(l.ResidentBytes), float64(l.MACs)} {
			if !(v >= 0) || math.IsInf(v, 1) {
				t.Errorf("%s: layer %s has a figure of %g: %+v", what, l.Name, v, l)
			}
		}
		if l.LatencyMS <= 0 {
			t.Errorf("%s: layer %s (%s) costs nothing", what, l.Name, l.Op)
		}
	}
	for _, s := range r.Segments {
		seg += s.LatencyMS
		inSegments += s.Layers
	}
	for _, u := range r.Units {
		unitMJ += u.EnergyMJ
	}
	saved := 0.0
	if r.Overlap != nil {
		saved = r.Overlap.SavedMS
	}
	if math.Abs(ms-saved-r.LatencyMS) > 1e-9*ms || math.Abs(mj-r.EnergyMJ) > 1e-9*mj || math.Abs(unitMJ-mj) > 1e-9*mj || math.Abs(seg-ms) > 1e-9*ms || inSegments != len(r.Layers) {
		t.Errorf("%s: parts sum to %g ms (segments %g, saved %g), %g mJ (units %g); whole %g, %g", what, ms, seg, saved, mj, unitMJ, r.LatencyMS, r.EnergyMJ)
	}
	if !(r.LatencyP10MS > 0 && r.LatencyP10MS <= r.LatencyMS && r.LatencyMS <= r.LatencyP90MS) {
		t.Errorf("%s: latency %g outside of %g to %g", what, r.LatencyMS, r.LatencyP10MS, r.LatencyP90MS)
	}
	if r.PeakMemoryBytes != r.WeightMemoryBytes+r.ActivationMemoryBytes || r.ActivationMemoryBytes <= 0 {
		t.Errorf("%s: peak %d bytes, weights %d, activations %d", what, r.PeakMemoryBytes, r.WeightMemoryBytes, r.ActivationMemoryBytes)
	}
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
				checkPrediction(t, r)
				for _, l := range r.Layers {
					if l.Reason == "" {
						t.Errorf("%s: layer %s has no reason", name, l.Name)
					}
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

// TestEveryScheme checks on every network of the zoo, a chip of every family
// and several schemes that the optimum is exact, no worse than any other
// policy, and no better under a narrower mask; and that throughput is no worse
// than the latency plan's.
func TestEveryScheme(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the whole zoo")
	}
	var s scheduler.Solver
	var plan scheduler.Plan
	placed, slowest, name := 0, time.Duration(0), ""
	for _, net := range zoo.Names() {
		g, err := zoo.Build(net)
		if err != nil {
			t.Fatal(err)
		}
		if err := passes.Default(g); err != nil {
			t.Fatal(err)
		}
		for _, scheme := range []string{"fp32", "fp16", "w8a8", "w4b32"} {
			q, err := quant.Parse(scheme)
			if err != nil {
				t.Fatal(err)
			}
			small, _, err := quant.Apply(g, q, quant.Options{})
			if err != nil {
				t.Fatalf("%s %s: %v", net, scheme, err)
			}
			n, err := model.Lower(small)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range []string{"a13", "a16", "a17-pro", "m2-max"} {
				m := dev(t, d)
				solve := func(o scheduler.Options) float64 {
					start := time.Now()
					if err := s.SolveInto(n, m, &o, &plan); err != nil {
						t.Fatalf("%s %s on %s, %+v: %v", net, scheme, d, o, err)
					}
					if o.Policy == scheduler.Optimal {
						if took := time.Since(start); took > slowest {
							slowest, name = took, net+" "+scheme+" on "+d
						}
						if !plan.Exact {
							t.Errorf("%s %s on %s: not exact: gap %g", net, scheme, d, plan.Gap())
						}
					}
					placed++
					return plan.LatencyMS
				}
				best := solve(scheduler.Options{Policy: scheduler.Optimal})
				checkPrediction(t, scheduler.NewPrediction(n, m, &plan, scheduler.Meta{Model: net, Scheme: scheme, PackageBytes: 1e6}))
				for _, p := range []scheduler.Policy{scheduler.Energy, scheduler.CoreML, scheduler.Greedy} {
					if got := solve(scheduler.Options{Policy: p}); got < best*(1-1e-12) {
						t.Errorf("%s %s on %s: %s takes %g ms, optimal %g", net, scheme, d, p, got, best)
					}
				}
				cpu := solve(scheduler.Options{Policy: scheduler.Optimal, Mask: units.CPUOnly})
				for _, mask := range []units.Mask{units.CPUAndGPU, units.CPUAndNE} {
					if got := solve(scheduler.Options{Policy: scheduler.Optimal, Mask: mask}); got < best*(1-1e-12) || got > cpu*(1+1e-12) {
						t.Errorf("%s %s on %s: %s takes %g ms, all %g, cpu_only %g", net, scheme, d, mask, got, best, cpu)
					}
				}
			}
		}
	}
	t.Logf("%d plans; the slowest optimal one, pricing included, took %v (%s)", placed, slowest, name)
}

func TestThroughputOfZoo(t *testing.T) {
	for _, name := range []string{"mobilenet_v2", "resnet50", "mobilevit_v2", "vgg16"} {
		net := network(t, name)
		for _, d := range []string{"a14", "m2-max"} {
			m := dev(t, d)
			plan, err := scheduler.Solve(net, m, scheduler.Options{Policy: scheduler.Throughput})
			if err != nil {
				t.Fatal(err)
			}
			checkPrediction(t, scheduler.NewPrediction(net, m, plan, scheduler.Meta{Model: name, Scheme: "fp16"}))
			p := plan.Pipeline
			t.Logf("%-13s %-7s %7.1f /s (latency plan %7.1f /s), bottleneck %s, %d in flight, latency %.3f ms (%.3f), gap %.1f %%, contiguous %.3f ms, %s; mixture of %d: %.1f /s, gap %.1f %%", name, d, p.RequestsPerS,
				1e3/p.LatencyPeriodMS, scheduler.ResourceName(p.Bottleneck), p.InFlight, plan.LatencyMS, p.Latency.LatencyMS, p.GapPct(), p.ContiguousMS, p.Strategy, len(p.Mix), 1e3/p.MixPeriodMS, 100*(p.MixPeriodMS/p.MixBoundMS-1))
			if p.PeriodMS > p.LatencyPeriodMS*(1+1e-12) || p.PeriodMS > p.ContiguousMS*(1+1e-12) || p.PeriodMS < p.BoundMS*(1-1e-12) {
				t.Errorf("%s on %s: %+v", name, d, *p)
			}
		}
	}
}

// TestOverlapWithoutNE places networks with branches on units that are nearly
// equal, where overlap pays.
func TestOverlapWithoutNE(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	gained := 0
	for _, name := range []string{"googlenet", "inception_v3", "distilbert", "squeezenet1_1", "mobilevit_v2"} {
		net := network(t, name)
		for _, d := range []string{"a14", "m4"} {
			plan, err := scheduler.Solve(net, dev(t, d), scheduler.Options{Mask: units.CPUAndGPU, Overlap: true})
			if err != nil {
				t.Fatal(err)
			}
			o := plan.Overlap
			gap := o.GapPct(plan.LatencyMS)
			t.Logf("%-13s %-4s serial %7.3f ms, overlapped %7.3f, bound %7.3f, gap %4.1f %%, %s", name, d, o.SerialMS, plan.LatencyMS, o.BoundMS, gap, o.Strategy)
			if gap > 15 {
				t.Errorf("%s on %s: overlap gap %.1f %%", name, d, gap)
			}
			if plan.LatencyMS < o.SerialMS*0.99 {
				gained++
			}
		}
	}
	if gained == 0 {
		t.Error("overlap gains nowhere")
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

// TestZooOverlap places every network of the zoo: exactly, in milliseconds,
// and, where it has branches, overlapped within a stated gap.
func TestZooOverlap(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the whole zoo")
	}
	var s scheduler.Solver
	for _, name := range zoo.Names() {
		net := network(t, name)
		for _, d := range []string{"a14", "m4"} {
			m := dev(t, d)
			var plan, over scheduler.Plan
			if err := s.SolveInto(net, m, &scheduler.Options{}, &plan); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := s.SolveInto(net, m, &scheduler.Options{}, &plan); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			if !plan.Exact {
				t.Errorf("%s on %s: not exact, gap %.3g %%, %+v", name, d, 100*plan.Gap(), plan.Stats)
			}
			start = time.Now()
			if err := s.SolveInto(net, m, &scheduler.Options{Overlap: true}, &over); err != nil {
				t.Fatal(err)
			}
			tookOver := time.Since(start)
			if over.LatencyMS > plan.LatencyMS*(1+1e-12) {
				t.Errorf("%s on %s: overlapped %g ms, serial %g", name, d, over.LatencyMS, plan.LatencyMS)
			}
			checkPrediction(t, scheduler.NewPrediction(net, m, &over, scheduler.Meta{Model: name, Scheme: "fp16"}))
			gap := over.Overlap.GapPct(over.LatencyMS)
			t.Logf("%-19s %-4s %4d layers, frontier %2d, widest %4d, solved in %6.3f ms; serial %8.3f ms, overlapped %8.3f, gap %5.2f %%, %4d schedules in %5.1f ms, %s", name, d,
				len(net.Layers), plan.Stats.Frontier, plan.Stats.Widest, float64(took.Microseconds())/1e3, plan.LatencyMS, over.LatencyMS, gap, over.Overlap.Tried, float64(tookOver.Microseconds())/1e3, over.Overlap.Strategy)
			if gap > 10 {
				t.Errorf("%s on %s: overlap gap %.1f %%", name, d, gap)
			}
		}
	}
}
