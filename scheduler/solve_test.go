package scheduler

import (
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/triune-sim/triune/units"
)

var bruteGraphs = flag.Int("brute", 10000, "random graphs compared with brute force")

// TestBruteForce compares the search with the enumeration of all plans on
// random graphs, with every objective and constraint.
func TestBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s Solver
	var infeasible, constrained int
	if testing.Short() {
		*bruteGraphs = min(*bruteGraphs, 1000)
	}
	for g := range *bruteGraphs {
		n := 1 + r.IntN(8)
		p := randomProblem(r, n, 1+r.IntN(6), r.Float64()*0.5)
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		var o Options
		cost := func(t *Timing) float64 { return o.Objective.Of(t.LatencyMS, t.EnergyMJ) }
		switch r.IntN(5) {
		case 0:
		case 1:
			o.Policy = Energy
			cost = func(t *Timing) float64 { return t.EnergyMJ }
		case 2:
			o.Policy = EDP
			cost = func(t *Timing) float64 { return t.EnergyMJ * t.LatencyMS }
		default:
			o.Objective = Objective{Latency: r.Float64(), Energy: r.Float64()}
		}
		if r.IntN(3) == 0 {
			o.MaxSegments = 1 + r.IntN(3)
			constrained++
		}
		if r.IntN(3) == 0 {
			for k := range o.MaxResident {
				if r.IntN(2) == 0 {
					o.MaxResident[k] = int64(1 + r.IntN(500*n))
				}
			}
			constrained++
		}
		want, feasible := bruteForce(p, &o, cost)
		var plan Plan
		err := s.SolveProblem(p, &o, &plan)
		if feasible == 0 {
			infeasible++
			if !errors.Is(err, ErrNoPlan) {
				t.Fatalf("graph %d: no plan is feasible, got error %v", g, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("graph %d: %v, but %d plans are feasible", g, err, feasible)
		}
		got := cost(&plan.Timing)
		if !plan.Exact || math.Abs(got-want) > 1e-9*want || math.Abs(got-plan.Cost) > 1e-9*want {
			t.Fatalf("graph %d, %d layers, options %+v: got %.17g (stated %.17g, exact %v), brute force %.17g", g, n, o, got, plan.Cost, plan.Exact, want)
		}
		var tm Timing
		p.Evaluate(plan.Units, false, &tm)
		if !p.feasible(plan.Units, &tm, &o) {
			t.Fatalf("graph %d: the plan breaks a constraint", g)
		}
	}
	t.Logf("%d graphs, %d constraints, %d infeasible", *bruteGraphs, constrained, infeasible)
	if *bruteGraphs > 100 && (infeasible == 0 || infeasible > *bruteGraphs/3) {
		t.Errorf("%d of %d problems are infeasible: the generator has drifted", infeasible, *bruteGraphs)
	}
}

// TestPolicies checks that optimal is never worse than another policy, nor
// than itself under a narrower mask, and that a beam never claims more than
// it proves.
func TestPolicies(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var s Solver
	price := func(p *Problem, o Options) *Plan {
		var plan Plan
		if err := s.SolveProblem(p, &o, &plan); err != nil {
			t.Fatal(err)
		}
		return &plan
	}
	for range 100 {
		p := randomProblem(r, 20+r.IntN(40), 1+r.IntN(5), r.Float64()*0.6)
		opt := price(p, Options{})
		for _, pol := range []Policy{Greedy, CoreML, Energy, EDP} {
			if other := price(p, Options{Policy: pol}); other.LatencyMS < opt.LatencyMS*(1-1e-12) {
				t.Errorf("%s takes %g ms, optimal %g", pol, other.LatencyMS, opt.LatencyMS)
			}
		}
		for _, m := range []units.Mask{units.CPUOnly, units.CPUAndGPU, units.CPUAndNE} {
			q := *p
			q.Layers = append([]Layer(nil), p.Layers...)
			for i := range q.Layers {
				q.Layers[i].Allowed &= uint8(m)
			}
			if narrow := price(&q, Options{}); narrow.LatencyMS < opt.LatencyMS*(1-1e-12) {
				t.Errorf("%s takes %g ms, all units %g", m, narrow.LatencyMS, opt.LatencyMS)
			}
		}
		for _, states := range []int{1, 2, 4, 8} {
			beam := price(p, Options{MaxStates: states})
			if beam.Cost < opt.Cost*(1-1e-12) || beam.Bound > opt.Cost*(1+1e-12) {
				t.Errorf("beam of %d: cost %g, bound %g, optimum %g", states, beam.Cost, beam.Bound, opt.Cost)
			}
			if beam.Exact && beam.Cost > opt.Cost*(1+1e-12) {
				t.Errorf("beam of %d claims to be exact at %g, optimum %g", states, beam.Cost, opt.Cost)
			}
		}
	}
}

func BenchmarkSolveWide(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	p := randomProblem(r, 1000, 8, 0.1)
	var s Solver
	var plan Plan
	for b.Loop() {
		if err := s.SolveProblem(p, &Options{}, &plan); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(plan.Stats.Widest), "labels/layer-max")
	b.ReportMetric(float64(plan.Stats.Frontier), "frontier")
	if !plan.Exact {
		b.Fatalf("not exact: gap %g", plan.Gap())
	}
}

// TestRunnerUp compares the second best plan with the enumeration of all.
func TestRunnerUp(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	var s Solver
	for g := range 500 {
		n := 1 + r.IntN(7)
		p := randomProblem(r, n, 1+r.IntN(5), r.Float64()*0.4)
		var plan Plan
		if err := s.SolveProblem(p, &Options{}, &plan); err != nil {
			t.Fatal(err)
		}
		var tm Timing
		a := make([]units.Kind, n)
		want := math.Inf(1)
		for {
			p.Evaluate(a, false, &tm)
			if p.feasible(a, &tm, &Options{}) && !slices.Equal(a, plan.Units) {
				want = min(want, tm.LatencyMS)
			}
			i := 0
			for ; i < n; i++ {
				if a[i]++; a[i] < NumUnits {
					break
				}
				a[i] = 0
			}
			if i == n {
				break
			}
		}
		got := s.second(p, &Options{}, Objective{Latency: 1}, plan.Units)
		if got == nil {
			if !math.IsInf(want, 1) {
				t.Fatalf("graph %d: no runner-up, but one takes %g ms", g, want)
			}
			continue
		}
		p.Evaluate(got, false, &tm)
		if slices.Equal(got, plan.Units) || math.Abs(tm.LatencyMS-want) > 1e-9*want {
			t.Fatalf("graph %d: runner-up %g ms, enumeration %g", g, tm.LatencyMS, want)
		}
	}
}
