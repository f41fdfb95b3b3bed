package scheduler

import (
	"math"
	"math/rand/v2"
	"slices"

	"pgregory.net/rapid"

	"github.com/triune-sim/triune/units"
)

// randomProblem makes a problem of n layers whose live frontier is at most
// about width tensors. Costs are drawn so that moving between units is
// sometimes worth it and sometimes not.
func randomProblem(r *rand.Rand, n, width int, forbid float64) *Problem {
	p := &Problem{HandlingMS: r.Float64() * 0.1, IdleWatts: r.Float64()}
	scale := math.Exp(r.NormFloat64()) // of transfers against layers
	for k := range p.Units {
		p.Units[k] = UnitCost{FloorMS: r.Float64() * 0.5, CapMS: r.Float64() * 2, StaticWatts: r.Float64() * 3}
		for b := range p.SwitchMS[k] {
			if b != k {
				p.SwitchMS[k][b] = r.Float64() * 0.3 * scale
			}
		}
	}
	p.Layers = make([]Layer, n)
	p.Edges = append(p.Edges, Edge{Producer: -1})
	open := []int{0} // edges that may still be read
	for i := range p.Layers {
		l := &p.Layers[i]
		l.Allowed = 1 << units.CPU
		for k := range NumUnits {
			if r.Float64() >= forbid {
				l.Allowed |= 1 << k
			}
			l.Cost[k] = Cost{OverheadMS: r.Float64() * 0.05, BusyMS: r.ExpFloat64() * 0.3, EnergyMJ: r.ExpFloat64(), ResidentBytes: int64(r.IntN(1000))}
			if r.IntN(3) > 0 {
				l.Cost[k].WeightMS = r.ExpFloat64() * 0.4
			}
		}
		if r.IntN(4) == 0 { // a costly unit makes others attractive
			l.Cost[r.IntN(NumUnits)].BusyMS *= 5
		}
		// Read one to three open edges; close some so that the frontier
		// stays within the width.
		r.Shuffle(len(open), func(a, b int) { open[a], open[b] = open[b], open[a] })
		reads := min(len(open), 1+r.IntN(3))
		for _, e := range open[:reads] {
			l.Inputs = append(l.Inputs, e)
			p.Edges[e].Consumers = append(p.Edges[e].Consumers, i)
		}
		keep := open[:0]
		for x, e := range open {
			if x >= reads || r.IntN(3) == 0 {
				keep = append(keep, e)
			}
		}
		open = keep
		outs := 1
		if r.IntN(8) == 0 {
			outs = 2
		}
		for range outs {
			e := Edge{Producer: i}
			for a := range e.ConvertMS {
				for b := range e.ConvertMS[a] {
					if a != b {
						e.ConvertMS[a][b] = r.Float64() * 0.2 * scale
					}
				}
			}
			l.Outputs = append(l.Outputs, len(p.Edges))
			open = append(open, len(p.Edges))
			p.Edges = append(p.Edges, e)
		}
		for len(open) > width {
			open = slices.Delete(open, 0, 1)
		}
	}
	return p
}

// rapidRand returns a source seeded by a property test.
func rapidRand(rt *rapid.T) *rand.Rand {
	return rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
}

// bruteForce returns the least objective over all assignments, with the
// number that are feasible.
func bruteForce(p *Problem, o *Options, cost func(t *Timing) float64) (best float64, feasible int) {
	n := len(p.Layers)
	a := make([]units.Kind, n)
	var t Timing
	best = math.Inf(1)
	for {
		p.Evaluate(a, false, &t)
		if p.feasible(a, &t, o) {
			feasible++
			best = min(best, cost(&t))
		}
		i := 0
		for ; i < n; i++ {
			if a[i]++; a[i] < NumUnits {
				break
			}
			a[i] = 0
		}
		if i == n {
			return best, feasible
		}
	}
}
