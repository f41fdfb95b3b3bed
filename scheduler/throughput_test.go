package scheduler

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/triune-sim/triune/units"
)

// TestThroughput compares periods with the enumeration of all plans, and the
// contiguous pipelines with the enumeration of all splits.
func TestThroughput(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	var s Solver
	var exact, total int
	var worst, worstBound, mixGap float64
	for g := range 400 {
		n := 1 + r.IntN(8)
		p := randomProblem(r, n, 1+r.IntN(4), r.Float64()*0.4)
		if r.IntN(2) == 0 {
			p.DRAMGBs = 10
			for i := range p.Layers {
				for k := range p.Layers[i].Cost {
					p.Layers[i].Cost[k].DRAMBytes = r.Float64() * 3e6
				}
			}
		}
		var tm Timing
		period := func(a []units.Kind) float64 {
			p.Evaluate(a, false, &tm)
			_, x := greatest(p.loads(a, &tm))
			return x
		}
		a := make([]units.Kind, n)
		best, bestSplit := math.Inf(1), math.Inf(1)
		for {
			p.Evaluate(a, false, &tm)
			if p.feasible(a, &tm, &Options{}) {
				x := period(a)
				best = min(best, x)
				// Contiguous: each unit in one run.
				segs, used := 1, 1<<a[0]
				for i := 1; i < n; i++ {
					if a[i] != a[i-1] {
						segs++
						used |= 1 << a[i]
					}
				}
				if count := used&1 + used>>1&1 + used>>2&1; count == segs {
					bestSplit = min(bestSplit, x)
				}
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
		var plan Plan
		if err := s.SolveProblem(p, &Options{Policy: Throughput}, &plan); err != nil {
			t.Fatal(err)
		}
		pl := plan.Pipeline
		if math.Abs(pl.ContiguousMS-bestSplit) > 1e-9*bestSplit {
			t.Fatalf("graph %d: contiguous %.12g, enumeration %.12g", g, pl.ContiguousMS, bestSplit)
		}
		if pl.BoundMS > best*(1+1e-9) || pl.PeriodMS < best*(1-1e-9) {
			t.Fatalf("graph %d: period %g, bound %g, enumeration %g", g, pl.PeriodMS, pl.BoundMS, best)
		}
		if pl.PeriodMS > pl.LatencyPeriodMS*(1+1e-12) {
			t.Fatalf("graph %d: period %g, worse than the latency plan's %g", g, pl.PeriodMS, pl.LatencyPeriodMS)
		}
		if got := period(plan.Units); math.Abs(got-pl.PeriodMS) > 1e-9*got {
			t.Fatalf("graph %d: stated %g, evaluated %g", g, pl.PeriodMS, got)
		}
		share := 0.0
		var load [NumResources]float64
		for _, m := range pl.Mix {
			share += m.Share
			p.Evaluate(m.Units, false, &tm)
			for r, x := range p.loads(m.Units, &tm) {
				load[r] += m.Share * x
			}
		}
		if _, x := greatest(load); math.Abs(share-1) > 1e-9 || math.Abs(x-pl.MixPeriodMS) > 1e-9*x || x > pl.PeriodMS*(1+1e-9) || x < pl.MixBoundMS*(1-1e-9) {
			t.Fatalf("graph %d: a mixture of shares %g and period %g (stated %g), single plan %g, bound %g", g, share, x, pl.MixPeriodMS, pl.PeriodMS, pl.MixBoundMS)
		}
		mixGap += pl.MixPeriodMS/pl.MixBoundMS - 1
		total++
		if pl.PeriodMS <= best*(1+1e-9) {
			exact++
		}
		worst = max(worst, pl.PeriodMS/best-1)
		worstBound += best/pl.BoundMS - 1
	}
	t.Logf("%d of %d periods are the best, the worst is %.1f %% above; the bound is %.1f %% below the best on average", exact, total, 100*worst, 100*worstBound/float64(total))
	t.Logf("mixtures are %.2f %% above their bound on average", 100*mixGap/float64(total))
	if mixGap/float64(total) > 0.02 {
		t.Errorf("mixtures are %.1f %% above their bound on average", 100*mixGap/float64(total))
	}
	if float64(exact) < 0.9*float64(total) {
		t.Errorf("only %d of %d periods are the best", exact, total)
	}
}
