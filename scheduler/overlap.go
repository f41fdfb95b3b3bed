package scheduler

import (
	"math"
	"math/bits"
	"slices"

	"github.com/triune-sim/triune/units"
)

// This file runs independent branches on different units at once.
//
// The time model keeps the serial one's costs. Each unit runs one layer at a
// time; a layer starts when its inputs are there and its unit is free:
//
//   - a tensor is there when its producer is done (a finer grain than that of
//     real programs, which hand out their outputs at their end);
//   - a layer with an input from another unit that finished since the two last
//     met pays SwitchMS, and ConvertMS for each tensor that its unit has not
//     received; both occupy the layer's unit;
//   - the weight stream of a unit starts empty after a switch;
//   - layers that run at once share the DRAM's bandwidth fairly (ShareDRAM): a
//     layer asks for its activations and for what its unit's stream fetches
//     meanwhile, for itself or ahead, and slows down as far as it gets less;
//   - handling time and floors come first, as in a serial plan.
//
// Every schedule found is compared with the serial optimum, and the best is
// returned, so that overlap is never worse than serial.

// Overlap tells how a plan that overlaps units compares.
type Overlap struct {
	SerialMS float64 // latency of the serial optimum
	BoundMS  float64 // no schedule of this model is shorter
	SavedMS  float64 // layers and transfers that ran beside others
	Strategy string  // which candidate won
	Tried    int     // schedules evaluated
	Serial   *Plan   // the serial optimum
}

// GapPct is how far the schedule may be above the best one, in percent of the
// lower bound.
func (o *Overlap) GapPct(latencyMS float64) float64 {
	if o.BoundMS <= 0 {
		return 0
	}
	return 100 * max(0, latencyMS/o.BoundMS-1)
}

// overlapper evaluates and improves overlapped schedules of one problem. Its
// scratch is reused between evaluations.
type overlapper struct {
	p      *Problem
	rank   []float64 // priority: the longest way to the end
	left   []int32   // inputs still missing
	item   []LayerTime
	finish []float64
	got    []uint8 // per edge: units that have received it
	ready  [NumUnits][]int32
	order  []int32 // layers by start
	tried  int
	preds  []int32           // per layer, number of distinct producing edges
	credit [NumUnits]float64 // of the weight streams at the start

	latency, energy float64
	saved           float64
}

func newOverlapper(p *Problem) *overlapper {
	n := len(p.Layers)
	v := &overlapper{p: p, rank: make([]float64, n), left: make([]int32, n), item: make([]LayerTime, n),
		finish: make([]float64, n), got: make([]uint8, len(p.Edges)), preds: make([]int32, n)}
	for i := range p.Layers {
		for _, e := range p.Layers[i].Inputs {
			if p.Edges[e].Producer >= 0 {
				v.preds[i]++
			}
		}
	}
	return v
}

// ranks fills the priorities for an assignment: the time from the start of a
// layer to the end of the longest way behind it, transfers included.
func (v *overlapper) ranks(assign []units.Kind) {
	p := v.p
	for i := len(p.Layers) - 1; i >= 0; i-- {
		u := assign[i]
		tail := 0.0
		for _, e := range p.Layers[i].Outputs {
			for _, c := range p.Edges[e].Consumers {
				w := assign[c]
				t := v.rank[c]
				if w != u {
					t += p.SwitchMS[u][w] + p.Edges[e].ConvertMS[u][w]
				}
				tail = max(tail, t)
			}
		}
		v.rank[i] = tail + p.Layers[i].Cost[u].OverheadMS + p.Layers[i].Cost[u].BusyMS
	}
}

type lane struct {
	layer  int32 // -1: idle
	finish float64
	rate   float64
	ms     float64
	demand float64 // bytes a ms
	stream units.Stream
	met    [NumUnits]float64 // when it last synchronised with each unit
}

// evaluate schedules an assignment by list scheduling: whenever a unit is
// free, it starts the ready layer of greatest rank. The result is in v.
func (v *overlapper) evaluate(assign []units.Kind) {
	p := v.p
	v.tried++
	n := len(p.Layers)
	copy(v.left, v.preds)
	clear(v.got)
	v.order = v.order[:0]
	for u := range v.ready {
		v.ready[u] = v.ready[u][:0]
	}
	var used uint8
	for i, u := range assign {
		used |= 1 << u
		if v.left[i] == 0 {
			v.ready[u] = append(v.ready[u], int32(i))
		}
	}
	now := p.HandlingMS
	v.energy = 0
	for k := range NumUnits {
		if used>>k&1 != 0 {
			now += p.Units[k].FloorMS
			v.energy += p.Units[k].FloorMS * p.Units[k].StaticWatts
		}
	}
	begin := now
	var lanes [NumUnits]lane
	for u := range lanes {
		lanes[u].layer = -1
		lanes[u].stream.CreditMS = v.credit[u]
		for w := range lanes[u].met {
			lanes[u].met[w] = -1
		}
	}
	for done := 0; ; {
		for u := range lanes {
			l := &lanes[u]
			if l.layer >= 0 || len(v.ready[u]) == 0 {
				continue
			}
			best := 0
			for k, i := range v.ready[u] {
				if b := v.ready[u][best]; v.rank[i] > v.rank[b] || v.rank[i] == v.rank[b] && i < b {
					best = k
				}
			}
			i := v.ready[u][best]
			v.ready[u] = slices.Delete(v.ready[u], best, best+1)
			v.start(int(i), u, assign, now, l)
		}
		v.share(&lanes, now)
		next, at := -1, math.Inf(1)
		for u := range lanes {
			if lanes[u].layer >= 0 && lanes[u].finish < at {
				next, at = u, lanes[u].finish
			}
		}
		if next < 0 {
			break
		}
		now = at
		l := &lanes[next]
		i := l.layer
		l.layer = -1
		v.finish[i] = now
		it := &v.item[i]
		took := now - it.StartMS
		it.LayerMS = took - it.SwitchMS - it.ConvertMS
		it.EnergyMJ = p.Layers[i].Cost[next].EnergyMJ + p.Units[next].StaticWatts*took
		v.energy += it.EnergyMJ
		done++
		for _, e := range p.Layers[i].Outputs {
			for _, c := range p.Edges[e].Consumers {
				if v.left[c]--; v.left[c] == 0 {
					v.ready[assign[c]] = append(v.ready[assign[c]], int32(c))
				}
			}
		}
		if done == n {
			break
		}
	}
	v.latency = now
	v.energy += p.IdleWatts * now
	sum := 0.0
	for i := range v.item {
		sum += v.item[i].SwitchMS + v.item[i].ConvertMS + v.item[i].LayerMS
	}
	v.saved = max(0, sum-(now-begin))
}

// start begins a layer on a unit.
func (v *overlapper) start(i, u int, assign []units.Kind, now float64, l *lane) {
	p := v.p
	it := &v.item[i]
	*it = LayerTime{StartMS: now}
	for _, ei := range p.Layers[i].Inputs {
		e := &p.Edges[ei]
		if e.Producer < 0 {
			continue
		}
		from := int(assign[e.Producer])
		if from == u {
			continue
		}
		if v.finish[e.Producer] > l.met[from] {
			l.met[from] = now
			it.SwitchMS += p.SwitchMS[from][u]
			l.stream = units.Stream{}
		}
		if v.got[ei]>>u&1 == 0 {
			v.got[ei] |= 1 << u
			it.ConvertMS += e.ConvertMS[from][u]
		}
	}
	c := &p.Layers[i].Cost[u]
	ahead := min(l.stream.CreditMS, p.Units[u].CapMS)
	it.StallMS = l.stream.Step(c.BusyMS, c.WeightMS, p.Units[u].CapMS)
	fetched := max(0, l.stream.CreditMS-ahead+c.WeightMS) // time that the stream runs meanwhile
	l.ms = c.OverheadMS + c.BusyMS + it.StallMS + it.SwitchMS + it.ConvertMS
	l.layer, l.rate = int32(i), 1
	l.finish = now + l.ms
	l.demand = 0
	if l.ms > 0 {
		l.demand = (fetched*p.Units[u].StreamBytesMS + c.DRAMBytes) / l.ms
	}
	v.order = append(v.order, int32(i))
}

// share slows the layers that run at once where they ask for more than the
// DRAM gives.
func (v *overlapper) share(lanes *[NumUnits]lane, now float64) {
	var demand [NumUnits]float64
	for u := range lanes {
		demand[u] = -1
		if lanes[u].layer >= 0 {
			demand[u] = lanes[u].demand
		}
	}
	for u, rate := range ShareDRAM(demand, v.p.DRAMGBs) {
		if l := &lanes[u]; l.layer >= 0 && rate != l.rate {
			l.finish = now + (l.finish-now)*l.rate/rate
			l.rate = rate
		}
	}
}

// ShareDRAM divides the DRAM's bandwidth among units that run at once. The
// demands are in bytes a ms; a negative one marks a unit that does not run.
// Each unit gets what it asks for as long as that is no more than a fair
// share, and what it leaves goes to the others. The result is each unit's
// rate, as a part of the rate it would have alone: above 0, at most 1. One
// unit alone, or a bandwidth of 0 (unknown), slows nothing.
func ShareDRAM(demand [NumUnits]float64, gbs float64) (rate [NumUnits]float64) {
	bw, sum, n := gbs*1e6, 0.0, 0
	for u, d := range demand {
		rate[u] = 1
		if d >= 0 {
			sum += d
			n++
		}
	}
	if n < 2 || bw <= 0 || sum <= bw {
		return rate
	}
	// From the least demand up: each takes the lesser of its demand and an
	// equal part of what is left.
	var taken [NumUnits]bool
	for left := n; left > 0; left-- {
		at := -1
		for u, d := range demand {
			if d >= 0 && !taken[u] && (at < 0 || d < demand[at]) {
				at = u
			}
		}
		taken[at] = true
		if fair := bw / float64(left); demand[at] > fair {
			rate[at] = fair / demand[at]
			bw -= fair
		} else {
			bw -= demand[at]
		}
	}
	return rate
}

// earliestFinish assigns each layer, in order of the rank under the cheapest
// units, to the unit on which it would be done first, transfers and the unit's
// queue considered; look also weighs what its heaviest consumer would pay to
// follow it.
func (v *overlapper) earliestFinish(assign []units.Kind, look bool) {
	p := v.p
	n := len(p.Layers)
	// Rank by the least cost.
	for i := n - 1; i >= 0; i-- {
		tail := 0.0
		for _, e := range p.Layers[i].Outputs {
			for _, c := range p.Edges[e].Consumers {
				tail = max(tail, v.rank[c])
			}
		}
		v.rank[i] = tail + p.least(i, 7)
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case v.rank[a] > v.rank[b]:
			return -1
		case v.rank[a] < v.rank[b]:
			return 1
		}
		return a - b
	})
	// A layer costs something, so a greater rank is never behind; equal ranks
	// keep the order of the file. The order is topological.
	var free [NumUnits]float64
	finish := make([]float64, n)
	for _, i := range order {
		best := math.Inf(1)
		var bestFinish float64
		for u := range NumUnits {
			if p.Layers[i].Allowed>>u&1 == 0 {
				continue
			}
			at := free[u]
			moves := 0.0
			for _, ei := range p.Layers[i].Inputs {
				e := &p.Edges[ei]
				if e.Producer < 0 {
					continue
				}
				at = max(at, finish[e.Producer])
				if from := assign[e.Producer]; int(from) != u {
					moves = max(moves, p.SwitchMS[from][u]) + e.ConvertMS[from][u]
				}
			}
			c := &p.Layers[i].Cost[u]
			f := at + moves + c.OverheadMS + max(c.BusyMS, c.WeightMS)
			key := f
			if look {
				worst := 0.0
				for _, e := range p.Layers[i].Outputs {
					for _, x := range p.Edges[e].Consumers {
						follow := math.Inf(1)
						for w := range NumUnits {
							if p.Layers[x].Allowed>>w&1 != 0 {
								t := p.Layers[x].Cost[w].OverheadMS + p.Layers[x].Cost[w].BusyMS
								if w != u {
									t += p.SwitchMS[u][w] + p.Edges[e].ConvertMS[u][w]
								}
								follow = min(follow, t)
							}
						}
						worst = max(worst, follow)
					}
				}
				key += worst
			}
			if key < best {
				best, bestFinish, assign[i] = key, f, units.Kind(u)
			}
		}
		finish[i] = bestFinish
		free[assign[i]] = bestFinish
	}
}

// least is the least time of a layer on a set of units, weights excluded.
func (p *Problem) least(i int, set uint8) float64 {
	best := math.Inf(1)
	for u := range NumUnits {
		if p.Layers[i].Allowed&set>>u&1 != 0 {
			best = min(best, p.Layers[i].Cost[u].OverheadMS+p.Layers[i].Cost[u].BusyMS)
		}
	}
	return best
}

// reachability tells, for every layer, how many layers come before it on every
// way (ancestors) and after it (descendants).
func (p *Problem) reachability() (before, after []int) {
	n := len(p.Layers)
	words := (n + 63) / 64
	before, after = make([]int, n), make([]int, n)
	set := make([]uint64, n*words)
	row := func(i int) []uint64 { return set[i*words : (i+1)*words] }
	for i := range p.Layers {
		r := row(i)
		for _, ei := range p.Layers[i].Inputs {
			if from := p.Edges[ei].Producer; from >= 0 {
				for w, x := range row(from) {
					r[w] |= x
				}
				r[from/64] |= 1 << (from % 64)
			}
		}
		for _, x := range r {
			before[i] += bits.OnesCount64(x)
		}
		for w, x := range r {
			for x != 0 {
				after[w*64+bits.TrailingZeros64(x)]++
				x &= x - 1
			}
		}
	}
	return before, after
}

// cuts lists the layers that every other layer precedes or follows: while one
// of them runs nothing else can. Between two of them lies a block.
func (p *Problem) cuts() []int {
	before, after := p.reachability()
	var out []int
	for i := range p.Layers {
		if before[i] == i && after[i] == len(p.Layers)-1-i {
			out = append(out, i)
		}
	}
	return out
}

// branches lists the connected groups of layers inside the blocks: the
// candidates for running elsewhere.
func (p *Problem) branches(cuts []int) [][]int {
	n := len(p.Layers)
	isCut := make([]bool, n)
	for _, c := range cuts {
		isCut[c] = true
	}
	root := make([]int, n)
	for i := range root {
		root[i] = i
	}
	find := func(i int) int {
		for root[i] != i {
			root[i] = root[root[i]]
			i = root[i]
		}
		return i
	}
	for e := range p.Edges {
		from := p.Edges[e].Producer
		if from < 0 || isCut[from] {
			continue
		}
		for _, c := range p.Edges[e].Consumers {
			if !isCut[c] {
				root[find(c)] = find(from)
			}
		}
	}
	groups := map[int][]int{}
	var keys []int
	for i := range n {
		if !isCut[i] {
			r := find(i)
			if groups[r] == nil {
				keys = append(keys, r)
			}
			groups[r] = append(groups[r], i)
		}
	}
	out := make([][]int, 0, len(keys))
	for _, k := range keys {
		out = append(out, groups[k])
	}
	return out
}

// boundOverlap returns a latency that no overlapped schedule undercuts. For
// each set of units it charges handling and floors, and then the least of the
// series of blocks between cut layers, by dynamic programming over the unit of
// each cut layer and the credit of its weight stream. A block takes at least
//
//   - the longest way through it, switches and conversions included;
//   - its work, divided among the units in the best proportion, and likewise
//     the time of its weights;
//   - the time that the DRAM takes for its weights;
//   - where it has few layers, the least over all divisions of its layers of
//     the busiest unit's work, transfers included (divide.go);
//   - and if every layer of it shares the cut layers' unit, the sum, and what
//     its weights make it wait; if one does not, the longest way through that
//     one.
func (p *Problem) boundOverlap(cuts []int) float64 {
	best := math.Inf(1)
	div := newDivider(p)
	for _, set := range sets {
		if b := p.boundSet(cuts, set, div); b < best {
			best = b
		}
	}
	return best
}

// boundLabel is a lower bound on the time at which a cut layer ends, when its
// unit's weight stream is then ahead by at most credit.
type boundLabel struct{ time, credit float64 }

// addLabel keeps the labels none of which another makes redundant: credit is
// worth no more than its length.
func addLabel(ls []boundLabel, x boundLabel) []boundLabel {
	for _, l := range ls {
		if l.time+max(0, x.credit-l.credit) <= x.time {
			return ls
		}
	}
	ls = slices.DeleteFunc(ls, func(l boundLabel) bool { return x.time+max(0, l.credit-x.credit) <= l.time })
	return append(ls, x)
}

func (p *Problem) boundSet(cuts []int, set uint8, div *divider) float64 {
	n := len(p.Layers)
	floor := p.HandlingMS
	for k := range NumUnits {
		if set>>k&1 != 0 {
			floor += p.Units[k].FloorMS
		}
	}
	for i := range p.Layers {
		if p.Layers[i].Allowed&set == 0 {
			return math.Inf(1)
		}
	}
	b := &blockBounder{p: p, set: set, head: make([][NumUnits]float64, n), tail: make([][NumUnits]float64, n), bandwidth: p.DRAMGBs * 1e6, divider: div}
	for k := range NumUnits {
		if set>>k&1 != 0 && b.bandwidth > 0 {
			b.bandwidth = max(b.bandwidth, p.Units[k].StreamBytesMS)
		}
	}
	// By the unit of the last cut; index NumUnits is the start, and the end.
	var state, next [NumUnits + 1][]boundLabel
	state[NumUnits] = []boundLabel{{}}
	prev := -1
	for _, c := range append(slices.Clone(cuts), n) {
		for to := range next {
			next[to] = next[to][:0]
			if (to == NumUnits) != (c == n) || c < n && p.Layers[c].Allowed&set>>to&1 == 0 {
				continue
			}
			for from := range state {
				if len(state[from]) == 0 {
					continue
				}
				several := b.block(prev, c, from, to)
				divided := 0.0
				if c-prev > 2 && !math.IsInf(several, 1) {
					divided = div.block(b, prev, c, from, to)
				}
				for _, l := range state[from] {
					// All on one unit: the sum, and the wait for weights that
					// neither the credit nor the block's own work hides.
					for home := range NumUnits {
						if from != NumUnits && from != home || to != NumUnits && to != home || math.IsInf(b.sum[home], 1) {
							continue
						}
						capMS := p.Units[home].CapMS
						credit := min(l.credit, capMS) + b.busy[home] - b.weight[home]
						stall := max(0, -credit)
						next[to] = addLabel(next[to], boundLabel{l.time + b.sum[home] + stall, min(capMS, max(0, credit))})
					}
					if math.IsInf(several, 1) {
						continue
					}
					// Only the unit of the cut before may begin the block with
					// credit: the others are switched to within it.
					ahead := l.credit
					if from < NumUnits {
						ahead = min(ahead, p.Units[from].CapMS)
					}
					x := boundLabel{time: l.time + max(several, b.stream-ahead, divided-ahead)}
					if b.dram > 0 {
						fetched := 0.0
						if from < NumUnits {
							fetched = ahead * p.Units[from].StreamBytesMS
						}
						x.time = max(x.time, l.time+(b.dram-fetched)/b.bandwidth)
					}
					if to < NumUnits {
						// The unit of this cut has switched in since the last
						// one, and so began with no credit.
						w, capMS := &p.Layers[c].Cost[to], p.Units[to].CapMS
						x.credit = min(capMS, b.reach[to])
						if c == prev+1 {
							stall := max(0, w.WeightMS-w.BusyMS)
							x.time += stall
							x.credit = min(capMS, max(0, w.BusyMS-w.WeightMS))
						}
					}
					next[to] = addLabel(next[to], x)
				}
			}
		}
		state, next = next, state
		prev = c
	}
	best := math.Inf(1)
	for _, l := range state[NumUnits] {
		best = min(best, l.time)
	}
	return floor + best
}

// blockBounder bounds the blocks of one set of units.
type blockBounder struct {
	p          *Problem
	set        uint8
	head, tail [][NumUnits]float64
	// Of the block that was bounded last, its exit included: the time, work
	// and weights when all of it runs on one unit (sum is +Inf where a layer
	// cannot), and the most work that a unit may do in it.
	sum, busy, weight, reach [NumUnits]float64
	stream                   float64 // the weights' time, in the best proportion
	dram                     float64 // the least bytes of weights; 0 if the bandwidth is unknown
	bandwidth                float64 // bytes a ms: what the DRAM gives all units together
	shares                   [NumUnits]float64
	divider                  *divider
}

func (b *blockBounder) cost(i, u int) float64 {
	c := &b.p.Layers[i].Cost[u]
	return c.OverheadMS + c.BusyMS
}

// block bounds the time from the end of cut layer a (on unit p; a = -1 and
// p = NumUnits stand for the start) to the end of cut layer z (on unit q;
// z = n and q = NumUnits stand for the end), when not all of it runs on one
// unit: +Inf if it must. It also sums the block for the other case.
func (b *blockBounder) block(a, z, p, q int) float64 {
	pr := b.p
	inf := math.Inf(1)
	end := 0.0
	if q < NumUnits {
		end = b.cost(z, q)
	}
	// The way from a layer on u to its consumer on w.
	move := func(e *Edge, u, w int) float64 {
		if u == w || u == NumUnits || w == NumUnits {
			return 0
		}
		return pr.SwitchMS[u][w] + e.ConvertMS[u][w]
	}
	arrive := func(i, u int) float64 {
		at := 0.0
		for _, ei := range pr.Layers[i].Inputs {
			e := &pr.Edges[ei]
			switch {
			case e.Producer == a && a >= 0:
				at = max(at, move(e, p, u))
			case e.Producer > a:
				best := inf
				for w := range NumUnits {
					best = min(best, b.head[e.Producer][w]+move(e, w, u))
				}
				at = max(at, best)
			}
		}
		return at
	}
	b.sum, b.busy, b.weight, b.reach = [NumUnits]float64{}, [NumUnits]float64{}, [NumUnits]float64{}, [NumUnits]float64{}
	add := func(i, u int) {
		if pr.Layers[i].Allowed&b.set>>u&1 == 0 {
			b.sum[u] = inf
			return
		}
		c := &pr.Layers[i].Cost[u]
		b.sum[u] += b.cost(i, u)
		b.busy[u] += c.BusyMS
		b.weight[u] += c.WeightMS
		b.reach[u] += c.BusyMS
	}
	for i := a + 1; i < z; i++ {
		for u := range NumUnits {
			add(i, u)
			b.head[i][u] = inf
			if pr.Layers[i].Allowed&b.set>>u&1 != 0 {
				b.head[i][u] = arrive(i, u) + b.cost(i, u)
			}
		}
	}
	path := 0.0
	if q < NumUnits {
		for u := range NumUnits {
			add(z, u)
		}
		path = arrive(z, q) + end
	} else {
		for i := a + 1; i < z; i++ {
			path = max(path, min(b.head[i][0], b.head[i][1], b.head[i][2]))
		}
	}
	b.stream, b.dram = 0, 0
	if z-a <= 1 {
		if p == q || p == NumUnits || q == NumUnits {
			return inf // one layer, and its unit is that of the cut before it
		}
		return path
	}
	several := max(path, b.work(a, z, false)+end)
	b.stream = b.work(a, z, true)
	if b.bandwidth > 0 {
		for i := a + 1; i < z; i++ {
			least := inf
			for u := range NumUnits {
				if pr.Layers[i].Allowed&b.set>>u&1 != 0 {
					least = min(least, pr.Layers[i].Cost[u].WeightMS*pr.Units[u].StreamBytesMS)
				}
			}
			b.dram += least
		}
		if q < NumUnits {
			b.dram += pr.Layers[z].Cost[q].WeightMS * pr.Units[q].StreamBytesMS
		}
	}
	if p != q && p != NumUnits && q != NumUnits || p == NumUnits && q == NumUnits {
		return several
	}
	// Some layer leaves the cuts' unit, and the way through it counts.
	home := p
	if p == NumUnits {
		home = q
	}
	for i := z - 1; i > a; i-- {
		for u := range NumUnits {
			b.tail[i][u] = inf
			if pr.Layers[i].Allowed&b.set>>u&1 == 0 {
				continue
			}
			t := end
			for _, ei := range pr.Layers[i].Outputs {
				e := &pr.Edges[ei]
				for _, c := range e.Consumers {
					switch {
					case c == z && q < NumUnits:
						t = max(t, move(e, u, q)+end)
					case c < z:
						best := inf
						for w := range NumUnits {
							if !math.IsInf(b.tail[c][w], 1) {
								best = min(best, move(e, u, w)+b.cost(c, w)+b.tail[c][w])
							}
						}
						t = max(t, best)
					}
				}
			}
			b.tail[i][u] = t
		}
	}
	// The first layer in time to leave has just been switched to: nothing of
	// its weights is there yet.
	through := inf
	for i := a + 1; i < z; i++ {
		for u := range NumUnits {
			if u != home {
				c := &pr.Layers[i].Cost[u]
				through = min(through, b.head[i][u]+max(0, c.WeightMS-c.BusyMS)+b.tail[i][u])
			}
		}
	}
	return max(several, through)
}

// work bounds the time of the inner layers of a block by their work: whatever
// weights w (that sum to one) the units get, the makespan is at least the sum
// over layers of the least weighted cost. The best weights are found by
// narrowing intervals: the bound is concave in them, and valid for any. With
// weights true the cost of a layer is not its work but the time of its
// weights: the layers of a unit take no less than its stream does, when it
// begins with no credit.
func (b *blockBounder) work(a, z int, weights bool) float64 {
	pr := b.p
	found := -1.0
	value := func(w [NumUnits]float64) float64 {
		t := 0.0
		for i := a + 1; i < z; i++ {
			best := math.Inf(1)
			for u := range NumUnits {
				if pr.Layers[i].Allowed&b.set>>u&1 == 0 {
					continue
				}
				if weights {
					best = min(best, w[u]*pr.Layers[i].Cost[u].WeightMS)
				} else {
					best = min(best, w[u]*b.cost(i, u))
				}
			}
			t += best
		}
		if !weights && t > found {
			found, b.shares = t, w
		}
		return t
	}
	search := func(f func(x float64) float64) float64 {
		lo, hi, best := 0.0, 1.0, max(f(0), f(1))
		for range 16 {
			x, y := lo+(hi-lo)/3, hi-(hi-lo)/3
			fx, fy := f(x), f(y)
			best = max(best, fx, fy)
			if fx < fy {
				lo = x
			} else {
				hi = y
			}
		}
		return best
	}
	var in []int
	for u := range NumUnits {
		if b.set>>u&1 != 0 {
			in = append(in, u)
		}
	}
	var w [NumUnits]float64
	switch len(in) {
	case 1:
		w[in[0]] = 1
		return value(w)
	case 2:
		return search(func(x float64) float64 {
			w[in[0]], w[in[1]] = x, 1-x
			return value(w)
		})
	}
	return search(func(x float64) float64 {
		return search(func(y float64) float64 {
			w[0], w[1], w[2] = x, (1-x)*y, (1-x)*(1-y)
			return value(w)
		})
	})
}

// overlapLayers bounds the networks for which overlap is searched: finding the
// blocks takes memory in the square of the layers.
const overlapLayers = 8192

// overlapBudget bounds the search over whole networks: schedules evaluated,
// times the layers of each.
const overlapBudget = 3_500_000

// overlap looks for a schedule that is shorter than the serial plan, and
// rewrites the plan (whose Units are by position) if it finds one. It always
// fills plan.Overlap.
func (s *Solver) overlap(p *Problem, o *Options, plan *Plan) {
	serial := &Plan{Policy: plan.Policy, Mask: plan.Mask, Units: slices.Clone(plan.Units), Cost: plan.Cost, Bound: plan.Bound, Exact: plan.Exact, Stats: plan.Stats}
	p.finish(serial)
	n := len(p.Layers)
	var cuts []int
	if n <= overlapLayers {
		cuts = p.cuts()
	}
	info := &Overlap{SerialMS: serial.LatencyMS, BoundMS: min(p.boundOverlap(cuts), serial.LatencyMS), Strategy: "serial", Serial: serial}
	plan.Overlap = info
	if n > overlapLayers {
		info.Strategy = "serial (too many layers to search)"
		p.finish(plan)
		return
	}
	if len(cuts) == n {
		// A chain of cut layers: nothing can overlap, and the serial plan of
		// least latency is the best schedule.
		if latency := o.Policy == "" || o.Policy == Optimal || o.Policy == Pinned; latency && o.Objective.orLatency() == (Objective{Latency: 1}) {
			info.BoundMS = serial.Bound
		}
		p.finish(plan)
		return
	}
	v := newOverlapper(p)
	best := serial.LatencyMS
	var bestAssign []units.Kind
	assign := make([]units.Kind, n)
	var t Timing
	consider := func(a []units.Kind, name string) bool {
		v.ranks(a)
		v.evaluate(a)
		if v.latency >= best*(1-1e-12) {
			return false
		}
		p.Evaluate(a, false, &t)
		if !p.feasible(a, &t, o) {
			return false
		}
		best, info.Strategy = v.latency, name
		bestAssign = append(bestAssign[:0], a...)
		return true
	}
	groups := p.branches(cuts)
	improve := func(a []units.Kind, name string) {
		v.ranks(a)
		v.evaluate(a)
		mine := v.latency
		moves := func(group []int) bool {
			was := make([]units.Kind, len(group))
			for k, i := range group {
				was[k] = a[i]
			}
			improved := false
			for u := range units.Kind(NumUnits) {
				changed := false
				for _, i := range group {
					if p.Layers[i].Allowed>>u&1 != 0 && a[i] != u {
						a[i] = u
						changed = true
					}
				}
				if !changed || v.tried*n > overlapBudget {
					for k, i := range group {
						a[i] = was[k]
					}
					continue
				}
				v.ranks(a)
				v.evaluate(a)
				if v.latency < mine*(1-1e-9) {
					mine = v.latency
					for k, i := range group {
						was[k] = a[i]
					}
					improved = true
				}
				for k, i := range group {
					a[i] = was[k]
				}
			}
			return improved
		}
		for improved := true; improved && v.tried*n <= overlapBudget; {
			improved = false
			for _, g := range groups {
				improved = moves(g) || improved
			}
			for _, g := range groups {
				if len(g) > 1 {
					for k := range g {
						improved = moves(g[k:k+1]) || improved
					}
				}
			}
		}
		consider(a, name)
	}
	consider(plan.Units, "the serial plan's units")
	for _, credit := range []bool{false, true} {
		a, tried := p.byBlocks(cuts, credit)
		info.Tried += tried
		if a != nil && consider(a, "block by block") {
			copy(assign, a)
			improve(assign, "block by block, improved")
		}
	}
	copy(assign, plan.Units)
	improve(assign, "branches moved off the serial plan")
	for k := range units.Kind(NumUnits) {
		can := true
		for i := range p.Layers {
			assign[i] = k
			can = can && p.Layers[i].Allowed>>k&1 != 0
		}
		if can {
			improve(assign, "branches moved off the "+k.String())
		}
	}
	for _, look := range []bool{false, true} {
		v.earliestFinish(assign, look)
		name := "earliest finish"
		if look {
			name += " with lookahead"
		}
		consider(assign, name)
		improve(assign, name+", improved")
	}
	info.Tried += v.tried
	if bestAssign == nil {
		p.finish(plan)
		return
	}
	copy(plan.Units, bestAssign)
	v.ranks(plan.Units)
	v.evaluate(plan.Units)
	info.SavedMS = v.saved
	p.finishOverlap(plan, v)
}

// finishOverlap writes the schedule that v holds into the plan: the order is
// that of the starts, and segments are runs of a unit between two switches.
func (p *Problem) finishOverlap(plan *Plan, v *overlapper) {
	p.Evaluate(plan.Units, false, &plan.Timing) // residency, floors, units used
	t := &plan.Timing
	n := len(p.Layers)
	t.LatencyMS, t.EnergyMJ = v.latency, v.energy
	t.LayersMS, t.TransferMS, t.BusyMS = 0, 0, [NumUnits]float64{}
	t.IdleMJ = p.IdleWatts * v.latency
	t.Layers = make([]LayerTime, n)
	order := make([]int, n)
	byLayer := make([]units.Kind, n)
	plan.Segments = plan.Segments[:0]
	open := [NumUnits]int{-1, -1, -1}
	for k, pos := range v.order {
		i := int(pos)
		u := plan.Units[i]
		layer := i
		if p.Order != nil {
			layer = p.Order[i]
		}
		order[k], byLayer[layer] = layer, u
		it := v.item[i]
		t.Layers[k] = it
		t.LayersMS += it.LayerMS
		t.TransferMS += it.SwitchMS + it.ConvertMS
		took := it.LayerMS + it.SwitchMS + it.ConvertMS
		t.BusyMS[u] += took
		if open[u] < 0 || it.SwitchMS > 0 {
			open[u] = len(plan.Segments)
			plan.Segments = append(plan.Segments, Segment{Unit: u, First: k})
		}
		sg := &plan.Segments[open[u]]
		sg.Last = k
		sg.Layers++
		sg.LatencyMS += took
	}
	t.Runs = len(plan.Segments)
	plan.Order = order
	copy(plan.Units, byLayer)
}
