package scheduler

import (
	"hash/maphash"
	"math"
	"slices"

	"github.com/triune-sim/triune/units"
)

// This file searches overlapped schedules block by block. Between two cut
// layers nothing of the rest of the network runs, so a good schedule is a
// series of good blocks, tied together by the units of the cut layers. Each
// block is searched on its own for every pair of those units, and a dynamic
// programme joins the blocks. What blocks do to each other beyond that (copies
// that a later block finds ready, the weight stream's credit) is left to the
// evaluation of the whole.

// blockBudget bounds the search of blocks: schedules evaluated, times the
// layers of each.
const blockBudget = 1_000_000

// blockChoice is the best schedule found of a block for a pair of units.
type blockChoice struct {
	ms     float64
	assign []units.Kind // of the inner layers
}

// blockSearch searches the blocks of one problem. Equal blocks (the layers of
// a transformer) are searched once.
type blockSearch struct {
	p       *Problem
	credit  bool // a block begins with as much prefetched as the store holds
	known   map[uint64]*[NumUnits + 1][NumUnits + 1]blockChoice
	seed    maphash.Seed
	edgeMap map[int]int
	tried   int // schedules
	work    int // their layers
}

// byBlocks assigns the layers of a problem by the best series of blocks; nil
// when no unit runs some layer.
func (p *Problem) byBlocks(cuts []int, credit bool) (assign []units.Kind, tried int) {
	n := len(p.Layers)
	b := &blockSearch{p: p, credit: credit, known: map[uint64]*[NumUnits + 1][NumUnits + 1]blockChoice{}, seed: maphash.MakeSeed(), edgeMap: map[int]int{}}
	const start = NumUnits // the state before the first cut, and after the last
	type step struct {
		cost  [NumUnits + 1]float64
		from  [NumUnits + 1]int
		table *[NumUnits + 1][NumUnits + 1]blockChoice
	}
	ends := append(slices.Clone(cuts), n)
	steps := make([]step, len(ends))
	state := [NumUnits + 1]float64{math.Inf(1), math.Inf(1), math.Inf(1), 0}
	prev := -1
	for k, c := range ends {
		st := &steps[k]
		st.table = b.block(prev, c)
		for to := range st.cost {
			st.cost[to] = math.Inf(1)
			for from, t := range state {
				if x := t + st.table[from][to].ms; x < st.cost[to] {
					st.cost[to], st.from[to] = x, from
				}
			}
		}
		state, prev = st.cost, c
	}
	if math.IsInf(state[start], 1) {
		return nil, b.tried
	}
	assign = make([]units.Kind, n)
	to := start
	for k := len(ends) - 1; k >= 0; k-- {
		if ends[k] < n {
			assign[ends[k]] = units.Kind(to)
		}
		first := 0
		if k > 0 {
			first = ends[k-1] + 1
		}
		from := steps[k].from[to]
		copy(assign[first:ends[k]], steps[k].table[from][to].assign)
		to = from
	}
	return assign, b.tried
}

// block returns the choices of the block between layers a and z (both cut
// layers, or the ends -1 and n), by the units of a and z.
func (b *blockSearch) block(a, z int) *[NumUnits + 1][NumUnits + 1]blockChoice {
	sub, inner := b.sub(a, z)
	key := b.fingerprint(sub)
	if t, ok := b.known[key]; ok {
		return t
	}
	t := &[NumUnits + 1][NumUnits + 1]blockChoice{}
	b.known[key] = t
	n := len(b.p.Layers)
	groups := sub.innerGroups(inner)
	v := newOverlapper(sub)
	for p := range t {
		for q := range t[p] {
			t[p][q].ms = math.Inf(1)
			if (p == NumUnits) != (a < 0) || (q == NumUnits) != (z >= n) || z < n && b.p.Layers[z].Allowed>>q&1 == 0 {
				continue
			}
			t[p][q] = b.search(sub, v, inner, groups, p, q)
		}
	}
	return t
}

// sub makes the problem of a block: the entry as a layer that costs nothing,
// the inner layers, the exit. inner is the range of the inner layers.
func (b *blockSearch) sub(a, z int) (sub *Problem, inner [2]int) {
	p := b.p
	n := len(p.Layers)
	sub = &Problem{SwitchMS: p.SwitchMS, DRAMGBs: p.DRAMGBs, Units: p.Units}
	for k := range sub.Units {
		sub.Units[k].FloorMS = 0
	}
	first, last := max(a, 0), min(z, n-1)
	clear(b.edgeMap)
	mapped := func(e int) int {
		if x, ok := b.edgeMap[e]; ok {
			return x
		}
		src := &p.Edges[e]
		edge := Edge{Producer: src.Producer - first, ConvertMS: src.ConvertMS}
		if src.Producer < first {
			edge.Producer = -1
		}
		for _, c := range src.Consumers {
			if c > a && c <= last {
				edge.Consumers = append(edge.Consumers, c-first)
			}
		}
		sub.Edges = append(sub.Edges, edge)
		b.edgeMap[e] = len(sub.Edges) - 1
		return len(sub.Edges) - 1
	}
	for i := first; i <= last; i++ {
		src := &p.Layers[i]
		l := Layer{Allowed: src.Allowed, Cost: src.Cost}
		if i == a {
			l.Allowed, l.Cost = 1<<NumUnits-1, [NumUnits]Cost{}
		} else {
			for _, e := range src.Inputs {
				l.Inputs = append(l.Inputs, mapped(e))
			}
		}
		for _, e := range src.Outputs {
			l.Outputs = append(l.Outputs, mapped(e))
		}
		sub.Layers = append(sub.Layers, l)
	}
	return sub, [2]int{a + 1 - first, z - first}
}

// fingerprint hashes all that a block's search depends on.
func (b *blockSearch) fingerprint(s *Problem) uint64 {
	var h maphash.Hash
	h.SetSeed(b.seed)
	put := func(v uint64) {
		var x [8]byte
		for i := range x {
			x[i] = byte(v >> (8 * i))
		}
		h.Write(x[:])
	}
	for i := range s.Layers {
		l := &s.Layers[i]
		put(uint64(l.Allowed) | uint64(len(l.Inputs))<<8 | uint64(len(l.Outputs))<<32)
		for k := range l.Cost {
			c := &l.Cost[k]
			for _, v := range [...]float64{c.OverheadMS, c.BusyMS, c.WeightMS, c.DRAMBytes} {
				put(math.Float64bits(v))
			}
		}
		for _, e := range l.Inputs {
			put(uint64(e))
		}
		for _, e := range l.Outputs {
			put(uint64(e))
		}
	}
	for i := range s.Edges {
		e := &s.Edges[i]
		put(uint64(int64(e.Producer)))
		for _, c := range e.Consumers {
			put(uint64(c))
		}
		for _, row := range e.ConvertMS {
			for _, v := range row {
				put(math.Float64bits(v))
			}
		}
	}
	return h.Sum64()
}

// innerGroups lists the connected groups of a block's inner layers.
func (p *Problem) innerGroups(inner [2]int) [][]int {
	outside := []int{}
	for i := range p.Layers {
		if i < inner[0] || i >= inner[1] {
			outside = append(outside, i)
		}
	}
	return p.branches(outside)
}

// search looks for a good schedule of a block whose entry is on unit p and
// whose exit is on q.
func (b *blockSearch) search(sub *Problem, v *overlapper, inner [2]int, groups [][]int, p, q int) blockChoice {
	n := len(sub.Layers)
	cur := make([]units.Kind, n)
	home := q
	if q == NumUnits {
		home = p
	}
	set := func(u int) bool { // all inner layers on u where it runs them
		whole := true
		for i := inner[0]; i < inner[1]; i++ {
			if sub.Layers[i].Allowed>>u&1 != 0 {
				cur[i] = units.Kind(u)
			} else {
				cur[i] = sub.pick(i, units.Kind(min(home, NumUnits-1)), units.NE, units.CPU)
				whole = false
				if sub.Layers[i].Allowed>>cur[i]&1 == 0 {
					cur[i] = units.GPU
				}
			}
		}
		if p < NumUnits {
			cur[0] = units.Kind(p)
		}
		if q < NumUnits {
			cur[n-1] = units.Kind(q)
		}
		return whole
	}
	v.credit = [NumUnits]float64{}
	if b.credit && p < NumUnits {
		v.credit[p] = sub.Units[p].CapMS
	}
	best := blockChoice{ms: math.Inf(1)}
	price := func() float64 {
		b.tried++
		b.work += n
		v.ranks(cur)
		v.evaluate(cur)
		if v.latency < best.ms {
			best.ms = v.latency
			best.assign = append(best.assign[:0], cur[inner[0]:inner[1]]...)
		}
		return v.latency
	}
	if inner[0] >= inner[1] {
		set(0)
		price()
		return best
	}
	// Hill climbing over branches, then over layers, until neither helps.
	climb := func() {
		mine := price()
		moves := func(group []int) (improved bool) {
			was := make([]units.Kind, len(group))
			for k, i := range group {
				was[k] = cur[i]
			}
			for u := range units.Kind(NumUnits) {
				changed := false
				for _, i := range group {
					if sub.Layers[i].Allowed>>u&1 != 0 && cur[i] != u {
						cur[i], changed = u, true
					}
				}
				if changed && b.work < blockBudget {
					if x := price(); x < mine*(1-1e-9) {
						mine, improved = x, true
						for k, i := range group {
							was[k] = cur[i]
						}
					}
				}
				for k, i := range group {
					cur[i] = was[k]
				}
			}
			return improved
		}
		for improved := true; improved && b.work < blockBudget; {
			improved = false
			for _, g := range groups {
				improved = moves(g) || improved
			}
			for i := inner[0]; i < inner[1]; i++ {
				improved = moves([]int{i}) || improved
			}
		}
	}
	for u := range NumUnits {
		if set(u) || u == home {
			climb()
		}
	}
	// All ways to divide whole branches, where they are few.
	if g := len(groups); g > 1 && g <= 4 && b.work < blockBudget {
		set(min(home, NumUnits-1))
		pick := make([]int, g)
		bestPick, bestMS := make([]int, g), math.Inf(1)
		for {
			ok := true
			for k, grp := range groups {
				for _, i := range grp {
					if sub.Layers[i].Allowed>>pick[k]&1 == 0 {
						ok = false
					}
					cur[i] = units.Kind(pick[k])
				}
			}
			if ok {
				if x := price(); x < bestMS {
					bestMS = x
					copy(bestPick, pick)
				}
			}
			k := 0
			for ; k < g; k++ {
				if pick[k]++; pick[k] < NumUnits {
					break
				}
				pick[k] = 0
			}
			if k == g {
				break
			}
		}
		if !math.IsInf(bestMS, 1) {
			for k, grp := range groups {
				for _, i := range grp {
					cur[i] = units.Kind(bestPick[k])
				}
			}
			climb()
		}
	}
	return best
}
