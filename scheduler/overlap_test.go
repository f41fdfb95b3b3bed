package scheduler

import (
	"flag"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/triune-sim/triune/units"
)

// branchy makes a problem with parallel branches: blocks of a fork, some
// chains, and a join.
func branchy(r *rand.Rand, blocks, width, depth int) *Problem {
	p := &Problem{HandlingMS: 0.02, IdleWatts: 0.2}
	if r.IntN(2) == 0 {
		p.DRAMGBs = 20 + 60*r.Float64()
	}
	scale := math.Exp(r.NormFloat64() - 1)
	speed := [NumUnits]float64{0.2 + r.Float64(), 0.2 + r.Float64(), 0.5 + 2*r.Float64()}
	for k := range p.Units {
		p.Units[k] = UnitCost{FloorMS: 0.05 * r.Float64(), CapMS: r.Float64(), StaticWatts: r.Float64(), StreamBytesMS: (10 + 40*r.Float64()) * 1e6}
		for b := range p.SwitchMS[k] {
			if b != k {
				p.SwitchMS[k][b] = 0.1 * scale * r.Float64()
			}
		}
	}
	edge := func(from int) int {
		e := Edge{Producer: from}
		for a := range e.ConvertMS {
			for b := range e.ConvertMS[a] {
				if a != b && from >= 0 {
					e.ConvertMS[a][b] = 0.05 * scale * r.Float64()
				}
			}
		}
		p.Edges = append(p.Edges, e)
		return len(p.Edges) - 1
	}
	layer := func(ins ...int) int {
		i := len(p.Layers)
		l := Layer{Allowed: 1 << units.CPU}
		work := 0.05 + r.ExpFloat64()
		for k := range NumUnits {
			if r.IntN(8) > 0 {
				l.Allowed |= 1 << k
			}
			ms := work / speed[k]
			l.Cost[k] = Cost{OverheadMS: 0.005, BusyMS: ms, WeightMS: ms * r.Float64(), EnergyMJ: work, DRAMBytes: ms * r.Float64() * 20e6}
		}
		for _, e := range ins {
			p.Edges[e].Consumers = append(p.Edges[e].Consumers, i)
		}
		l.Inputs = ins
		p.Layers = append(p.Layers, l)
		o := edge(i)
		p.Layers[i].Outputs = []int{o}
		return o
	}
	at := layer(edge(-1))
	for range blocks {
		var ends []int
		for range 1 + r.IntN(width) {
			x := at
			for range 1 + r.IntN(depth) {
				x = layer(x)
			}
			ends = append(ends, x)
		}
		at = layer(ends...)
	}
	return p
}

// checkSchedule verifies a schedule against the rules of the model.
func checkSchedule(tb interface{ Fatalf(string, ...any) }, p *Problem, v *overlapper, assign []units.Kind) {
	n := len(p.Layers)
	if len(v.order) != n {
		tb.Fatalf("%d of %d layers ran", len(v.order), n)
	}
	end := func(i int) float64 {
		it := &v.item[i]
		return it.StartMS + it.SwitchMS + it.ConvertMS + it.LayerMS
	}
	for i := range p.Layers {
		c := &p.Layers[i].Cost[assign[i]]
		if v.item[i].LayerMS < (c.OverheadMS+c.BusyMS)*(1-1e-9) {
			tb.Fatalf("layer %d takes %g ms, its cost is %g", i, v.item[i].LayerMS, c.OverheadMS+c.BusyMS)
		}
		for _, ei := range p.Layers[i].Inputs {
			if from := p.Edges[ei].Producer; from >= 0 && end(from) > v.item[i].StartMS+1e-9 {
				tb.Fatalf("layer %d starts at %g, before its input %d is done at %g", i, v.item[i].StartMS, from, end(from))
			}
		}
		for j := range i {
			if assign[i] == assign[j] && v.item[i].StartMS < end(j)-1e-9 && v.item[j].StartMS < end(i)-1e-9 {
				tb.Fatalf("layers %d and %d run on the %s at once", i, j, assign[i])
			}
		}
		if end(i) > v.latency+1e-9 {
			tb.Fatalf("layer %d ends at %g, the schedule at %g", i, end(i), v.latency)
		}
	}
}

// TestOverlap: schedules keep the rules, are never worse than serial, never
// below the bound; and neither is any schedule of small problems, over all
// assignments.
func TestOverlap(t *testing.T) {
	var s Solver
	gain, gap, count := 0.0, 0.0, 0
	rapid.Check(t, func(rt *rapid.T) {
		p := branchy(rapidRand(rt), rapid.IntRange(1, 4).Draw(rt, "blocks"), 4, 4)
		var serial, plan Plan
		if err := s.SolveProblem(p, &Options{}, &serial); err != nil {
			rt.Fatal(err)
		}
		if err := s.SolveProblem(p, &Options{Overlap: true}, &plan); err != nil {
			rt.Fatal(err)
		}
		o := plan.Overlap
		if plan.LatencyMS > serial.LatencyMS*(1+1e-12) || o.SerialMS != serial.LatencyMS {
			rt.Fatalf("overlapped %g ms, serial %g", plan.LatencyMS, serial.LatencyMS)
		}
		if plan.LatencyMS < o.BoundMS*(1-1e-12) {
			rt.Fatalf("overlapped %g ms, bound %g", plan.LatencyMS, o.BoundMS)
		}
		if sum := plan.HandlingMS + plan.FloorMS + plan.LayersMS + plan.TransferMS - o.SavedMS; math.Abs(sum-plan.LatencyMS) > 1e-9*sum {
			rt.Fatalf("the parts sum to %g ms, the whole is %g", sum, plan.LatencyMS)
		}
		gain += serial.LatencyMS / plan.LatencyMS
		gap += o.GapPct(plan.LatencyMS)
		count++
	})
	t.Logf("%d problems: mean gain over serial %.3f x, mean gap to the bound %.1f %%", count, gain/float64(count), gap/float64(count))
}

var boundSeed = flag.Uint64("boundseed", 8, "seed of the problems of TestOverlapBound")

func TestOverlapBound(t *testing.T) {
	r := rand.New(rand.NewPCG(*boundSeed, 9))
	tight, count, excess := 0, 0, 0.0
	for range 150 {
		p := branchy(r, 1+r.IntN(2), 2, 2)
		n := len(p.Layers)
		if n > 8 {
			continue
		}
		bound := p.boundOverlap(p.cuts())
		v := newOverlapper(p)
		a := make([]units.Kind, n)
		best := math.Inf(1)
		for {
			ok := true
			for i, u := range a {
				ok = ok && p.Layers[i].Allowed>>u&1 != 0
			}
			if ok {
				v.ranks(a)
				v.evaluate(a)
				checkSchedule(t, p, v, a)
				best = min(best, v.latency)
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
		if best < bound*(1-1e-12) {
			t.Fatalf("a schedule of %g ms undercuts the bound of %g", best, bound)
		}
		if best < bound*1.1 {
			tight++
		}
		var s Solver
		var plan Plan
		if err := s.SolveProblem(p, &Options{Overlap: true}, &plan); err != nil {
			t.Fatal(err)
		}
		count++
		excess += plan.LatencyMS/best - 1
		if plan.LatencyMS > best*1.3 {
			t.Errorf("found %g ms, the best assignment takes %g", plan.LatencyMS, best)
		}
	}
	t.Logf("%d problems: %.2f %% above the best assignment on average; the bound is within 10 %% in %d", count, 100*excess/float64(count), tight)
	if excess > 0.01*float64(count) {
		t.Errorf("schedules are %.2f %% above the best assignment on average", 100*excess/float64(count))
	}
	if tight < 50 {
		t.Errorf("the bound is within 10 %% of the best in only %d cases", tight)
	}
}

// TestShareDRAM: nobody gets more than asked for, all together no more than
// there is, nothing is left over while someone wants more, and no unit that is
// slowed gets less than another.
func TestShareDRAM(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var d [NumUnits]float64
		n, sum := 0, 0.0
		for u := range d {
			d[u] = rapid.SampledFrom([]float64{-1, 0, 1e6, 7e6, 40e6, 100e6}).Draw(rt, "demand")
			if d[u] >= 0 {
				n++
				sum += d[u]
			}
		}
		gbs := rapid.SampledFrom([]float64{0, 5, 30, 60}).Draw(rt, "gbs")
		rate := ShareDRAM(d, gbs)
		got := 0.0
		for u := range d {
			if rate[u] <= 0 || rate[u] > 1 {
				rt.Fatalf("%v of %g GB/s: rates %v", d, gbs, rate)
			}
			if d[u] < 0 {
				continue
			}
			got += d[u] * rate[u]
			for w := range d {
				if d[w] >= 0 && rate[u] < 1 && d[u]*rate[u] < d[w]*rate[w]*(1-1e-9) {
					rt.Fatalf("%v of %g GB/s: %d is slowed and gets less than %d: %v", d, gbs, u, w, rate)
				}
			}
		}
		want := sum
		if n > 1 && gbs > 0 {
			want = min(sum, gbs*1e6)
		}
		if math.Abs(got-want) > 1e-6*(1+want) {
			rt.Fatalf("%v of %g GB/s: %g used, want %g", d, gbs, got, want)
		}
	})
}

// TestOverlapByHand: two branches of 1 ms on two units that are equally fast
// run at once; the join waits for both and for the transfer.
func TestOverlapByHand(t *testing.T) {
	p := &Problem{}
	p.SwitchMS[units.GPU][units.NE], p.SwitchMS[units.NE][units.GPU] = 0.1, 0.1
	both := uint8(1<<units.GPU | 1<<units.NE)
	cost := [NumUnits]Cost{{}, {BusyMS: 1}, {BusyMS: 1}}
	p.Edges = []Edge{{Producer: -1, Consumers: []int{0, 1}}, {Producer: 0, Consumers: []int{2}}, {Producer: 1, Consumers: []int{2}}, {Producer: 2}}
	p.Layers = []Layer{{Allowed: both, Cost: cost, Inputs: []int{0}, Outputs: []int{1}}, {Allowed: both, Cost: cost, Inputs: []int{0}, Outputs: []int{2}},
		{Allowed: both, Cost: cost, Inputs: []int{1, 2}, Outputs: []int{3}}}
	var s Solver
	var plan Plan
	if err := s.SolveProblem(p, &Options{Overlap: true}, &plan); err != nil {
		t.Fatal(err)
	}
	if plan.Overlap.SerialMS != 3 || math.Abs(plan.LatencyMS-2.1) > 1e-12 || math.Abs(plan.Overlap.BoundMS-2.1) > 0.11 {
		t.Errorf("serial %g, overlapped %g, bound %g; want 3, 2.1", plan.Overlap.SerialMS, plan.LatencyMS, plan.Overlap.BoundMS)
	}
}

// TestLarge: a network of many layers is placed in all ways without trouble.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	r := rand.New(rand.NewPCG(41, 42))
	p := randomProblem(r, 3000, 4, 0.2)
	var s Solver
	var plan Plan
	for _, o := range []Options{{}, {Policy: EDP}, {Overlap: true}, {Policy: Throughput}, {MaxSegments: 3}} {
		start := time.Now()
		if err := s.SolveProblem(p, &o, &plan); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d layers, policy %s, overlap %v, at most %d segments: %v, %d segments, exact %v, gap %.3g", len(p.Layers), plan.Policy, o.Overlap, o.MaxSegments, time.Since(start).Round(time.Millisecond), plan.Runs, plan.Exact, plan.Gap())
	}
}
