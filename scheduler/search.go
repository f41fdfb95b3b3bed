package scheduler

import (
	"math"
	"slices"

	"github.com/triune-sim/triune/units"
)

// This file holds the exact search: a dynamic programme over the live frontier
// of the graph.
//
// After each layer, a state is the unit of every tensor that is still to be
// read, the units it has been converted for, and the current unit. The cost to
// come also depends on how far the weight stream is ahead (the credit), which
// is traded against the cost so far; so each state holds a small set of labels
// (cost, credit), none of which is at least as good as another in both.
//
// Four things keep the tables small:
//
//   - the set of units that pay a floor is enumerated outside (seven sets at
//     most), so it is not part of the state;
//   - credit is worth at most its own length: the total stall of any
//     continuation changes by no more than the credit does. A label therefore
//     yields to one that is cheaper by the value of the difference;
//   - a label yields even to a label of another state that is cheaper by all
//     that the other would have to pay to continue in the same way: a switch
//     and the conversions of the tensors that lie elsewhere;
//   - a label whose cost plus the least cost of the layers left exceeds the
//     best plan known is dropped.
//
// All four are exact. Only when a stage still holds more labels than MaxStates
// is the table cut, best first; the least bound among what was cut then gives
// the gap.

// noUnit marks that no layer has run yet.
const noUnit = 3

// A slot is the state of a live tensor: bits 0-1 the producer's unit, bit 2+k
// whether unit (producer + 1 + k) mod 3 has a copy.
var (
	slotHolders [16]uint8           // units that can read it without conversion
	slotCopy    [16][NumUnits]uint8 // the slot after unit u has received a copy
)

func init() {
	for v := range 16 {
		u := v & 3
		if u == 3 {
			continue
		}
		slotHolders[v] = 1 << u
		for k := range 2 {
			if v>>(2+k)&1 != 0 {
				slotHolders[v] |= 1 << ((u + 1 + k) % 3)
			}
		}
		for w := range NumUnits {
			slotCopy[v][w] = uint8(v)
			if w != u {
				slotCopy[v][w] |= 1 << (2 + (w-u+2)%3)
			}
		}
	}
}

// slotHash mixes an edge and the state of its slot into 64 bits (splitmix64's
// finaliser); a state's hash is the exclusive or over its slots.
func slotHash(edge int32, v uint8) uint64 {
	x := uint64(edge)<<4 | uint64(v) + 0x9e3779b97f4a7c15
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// inputRef is an input of a layer as the search sees it.
type inputRef struct {
	edge int32
	slot int32 // in the frontier before the layer; -1 for a graph input
	next int32 // in the frontier after the layer; -1 if it dies here
}

// stageInfo describes how a layer changes the frontier.
type stageInfo struct {
	in0, in1     int32 // range of Solver.inputs
	keep0, keep1 int32 // range of Solver.keeps: old slots that stay, in order
	out0, out1   int32 // range of Solver.outs: edges added behind them
	live         int32 // slots after the layer
}

type label struct {
	cost   float64
	credit float64
	hash   uint64
	back   uint32 // index in the previous stage << 2 | unit
	next   int32  // next label of the bucket
	segs   int32
	unit   uint8
	dead   bool
	// differs is true once a layer was placed unlike search.avoid does.
	differs bool
}

type stage struct {
	labels []label
	slots  []uint8 // stride live
	mem    []int64 // stride NumUnits, only with MaxResident
}

type bucket struct {
	epoch uint32
	head  int32
}

// Stats tell how hard a search was.
type Stats struct {
	Frontier int // most tensors alive at once
	Labels   int // labels kept, over all layers
	Widest   int // most labels kept after one layer
	Searches int // sets of units searched
}

// search is the state of the dynamic programme; its memory is reused.
type search struct {
	stages []stageInfo
	inputs []inputRef
	keeps  []int32
	outs   []int32
	live   []int32 // per slot and stage: the edges alive, strided by liveOff
	single []bool  // beside live: exactly one consumer left
	liveAt []int32

	cur, nxt stage
	buckets  []bucket
	epoch    uint32
	hist     []uint32
	histAt   []int

	slotOf  []int32
	left    []int32
	fixed   [][NumUnits]float64
	convert [][NumUnits][NumUnits]float64
	suffix  []float64
	sw      [4][NumUnits]float64
	rho     [NumUnits]float64
	fix     []float64
	stats   Stats
	// avoid, when set, is a plan from which the one that is searched must
	// differ in at least one layer.
	avoid []units.Kind
}

// prepare computes how each layer changes the frontier. It depends on the
// graph alone.
func (s *search) prepare(p *Problem) {
	s.stages = grow(s.stages, len(p.Layers))
	s.inputs, s.keeps, s.outs = s.inputs[:0], s.keeps[:0], s.outs[:0]
	s.live, s.single, s.liveAt = s.live[:0], s.single[:0], s.liveAt[:0]
	s.slotOf = grow(s.slotOf, len(p.Edges))
	s.left = grow(s.left, len(p.Edges))
	for i := range p.Edges {
		s.slotOf[i] = -1
		s.left[i] = int32(len(p.Edges[i].Consumers))
	}
	s.stats = Stats{}
	var prev0, prev1 int32 // previous frontier in s.live
	for i := range p.Layers {
		l := &p.Layers[i]
		st := &s.stages[i]
		st.in0 = int32(len(s.inputs))
		for _, e := range l.Inputs {
			s.left[e]--
			if s.slotOf[e] >= 0 {
				s.inputs = append(s.inputs, inputRef{edge: int32(e), slot: s.slotOf[e], next: -1})
			}
		}
		st.in1 = int32(len(s.inputs))
		st.keep0, st.out0 = int32(len(s.keeps)), int32(len(s.outs))
		begin := int32(len(s.live))
		for k := prev0; k < prev1; k++ {
			e := s.live[k]
			if s.left[e] == 0 {
				s.slotOf[e] = -1
				continue
			}
			s.slotOf[e] = int32(len(s.live)) - begin
			s.keeps = append(s.keeps, k-prev0)
			s.live = append(s.live, e)
			s.single = append(s.single, s.left[e] == 1)
		}
		for _, e := range l.Outputs {
			if s.left[e] > 0 {
				s.slotOf[e] = int32(len(s.live)) - begin
				s.outs = append(s.outs, int32(e))
				s.live = append(s.live, int32(e))
				s.single = append(s.single, s.left[e] == 1)
			}
		}
		for k := st.in0; k < st.in1; k++ {
			r := &s.inputs[k]
			r.next = s.slotOf[r.edge]
		}
		st.keep1, st.out1 = int32(len(s.keeps)), int32(len(s.outs))
		prev0, prev1 = begin, int32(len(s.live))
		st.live = prev1 - prev0
		s.liveAt = append(s.liveAt, begin)
		s.stats.Frontier = max(s.stats.Frontier, int(st.live))
	}
}

// weigh turns times and energies into the objective's units.
func (s *search) weigh(p *Problem, o Objective) {
	for k := range NumUnits {
		s.rho[k] = o.Latency + o.Energy*(p.Units[k].StaticWatts+p.IdleWatts)
	}
	for a := range NumUnits {
		for b := range NumUnits {
			s.sw[a][b] = s.rho[b] * p.SwitchMS[a][b]
		}
		s.sw[noUnit][a] = 0
	}
	s.fixed = grow(s.fixed, len(p.Layers))
	for i := range p.Layers {
		l := &p.Layers[i]
		for k := range NumUnits {
			c := &l.Cost[k]
			s.fixed[i][k] = s.rho[k]*(c.OverheadMS+c.BusyMS) + o.Energy*c.EnergyMJ
		}
	}
	s.convert = grow(s.convert, len(p.Edges))
	for i := range p.Edges {
		c := &p.Edges[i].ConvertMS
		for a := range NumUnits {
			for b := range NumUnits {
				s.convert[i][a][b] = s.rho[b] * c[a][b]
			}
		}
	}
}

// constant is what the objective charges a set of units before any layer runs.
func (s *search) constant(p *Problem, o Objective, set uint8) float64 {
	c := (o.Latency + o.Energy*p.IdleWatts) * p.HandlingMS
	for k := range NumUnits {
		if set>>k&1 != 0 {
			c += s.rho[k] * p.Units[k].FloorMS
		}
	}
	return c
}

// bounds fills suffix[i] with a lower bound on the cost of layers i.. on a set
// of units; false when a layer runs on none of them.
func (s *search) bounds(p *Problem, set uint8) bool {
	n := len(p.Layers)
	s.suffix = grow(s.suffix, n+1)
	s.suffix[n] = 0
	for i := n - 1; i >= 0; i-- {
		best := math.Inf(1)
		for k := range NumUnits {
			if p.Layers[i].Allowed&set>>k&1 != 0 {
				best = min(best, s.fixed[i][k])
			}
		}
		if math.IsInf(best, 1) {
			return false
		}
		s.suffix[i] = s.suffix[i+1] + best
	}
	return true
}

// result of one search over a set of units.
type found struct {
	ok     bool
	cost   float64 // without the constant
	bound  float64 // least lower bound among the labels that were cut; +Inf if none
	assign []units.Kind
}

// run searches plans whose layers run on a set of units, and writes the best
// one to dst if it costs less than limit (without the constant). It calls
// bounds first.
func (s *search) run(p *Problem, o *Options, set uint8, limit float64, dst []units.Kind) found {
	f := found{bound: math.Inf(1)}
	if !s.bounds(p, set) {
		return f
	}
	s.stats.Searches++
	maxStates := o.MaxStates
	if maxStates <= 0 {
		maxStates = min(1<<17, max(1<<12, 100_000_000/len(p.Layers)))
	}
	memory := false
	for k := range NumUnits {
		memory = memory || set>>k&1 != 0 && o.MaxResident[k] > 0
	}
	counted := o.MaxSegments > 0
	// Floating-point sums in another order differ in the last digits: the cut
	// by the bound leaves room for that.
	cut := limit + 1e-12*math.Abs(limit)

	n := len(p.Layers)
	s.hist = s.hist[:0]
	s.histAt = grow(s.histAt, n+1)[:0]
	s.cur.labels = append(s.cur.labels[:0], label{unit: noUnit})
	s.cur.slots = s.cur.slots[:0]
	s.cur.mem = append(s.cur.mem[:0], 0, 0, 0)
	live := 0
	for i := 0; i < n; i++ {
		st := &s.stages[i]
		l := &p.Layers[i]
		allowed := l.Allowed & set
		nlive := int(st.live)
		s.begin(len(s.cur.labels) * NumUnits)
		ins := s.inputs[st.in0:st.in1]
		keeps := s.keeps[st.keep0:st.keep1]
		outs := s.outs[st.out0:st.out1]
		for a := range s.cur.labels {
			la := &s.cur.labels[a]
			slots := s.cur.slots[a*live : (a+1)*live]
			for u := uint8(0); u < NumUnits; u++ {
				if allowed>>u&1 == 0 {
					continue
				}
				c := &l.Cost[u]
				b := label{cost: la.cost + s.fixed[i][u], hash: la.hash, back: uint32(a)<<2 | uint32(u), unit: u, segs: la.segs,
					differs: la.differs || s.avoid != nil && s.avoid[i] != units.Kind(u)}
				credit := 0.0
				if la.unit == u {
					credit = la.credit
				} else {
					b.cost += s.sw[la.unit][u]
					b.segs++
					if counted && int(b.segs) > o.MaxSegments {
						continue
					}
				}
				capMS := p.Units[u].CapMS
				credit = min(credit, capMS) + c.BusyMS - c.WeightMS
				if credit < 0 {
					b.cost -= s.rho[u] * credit
					credit = 0
				}
				b.credit = min(credit, capMS)
				for k := range ins {
					r := &ins[k]
					v := slots[r.slot]
					if slotHolders[v]>>u&1 == 0 {
						b.cost += s.convert[r.edge][v&3][u]
					}
				}
				if b.cost+s.suffix[i+1] > cut {
					continue
				}
				if memory && s.cur.mem[a*NumUnits+int(u)]+c.ResidentBytes > o.MaxResident[u] && o.MaxResident[u] > 0 {
					continue
				}
				// The new frontier, at the end of the next stage's slots.
				at := len(s.nxt.slots)
				for _, k := range keeps {
					s.nxt.slots = append(s.nxt.slots, slots[k])
				}
				fresh := s.nxt.slots[at:]
				for k := range ins {
					r := &ins[k]
					v := slots[r.slot]
					if r.next < 0 {
						b.hash ^= slotHash(r.edge, v)
					} else if w := slotCopy[v][u]; w != v {
						b.hash ^= slotHash(r.edge, v) ^ slotHash(r.edge, w)
						fresh[r.next] = w
					}
				}
				for _, e := range outs {
					s.nxt.slots = append(s.nxt.slots, u)
					b.hash ^= slotHash(e, u)
				}
				if memory {
					m := len(s.nxt.mem)
					s.nxt.mem = append(s.nxt.mem, s.cur.mem[a*NumUnits:(a+1)*NumUnits]...)
					s.nxt.mem[m+int(u)] += c.ResidentBytes
				}
				s.insert(b, at, nlive, counted, memory)
			}
		}
		s.compact(p, i, set, nlive, counted, memory, maxStates, &f)
		s.histAt = append(s.histAt, len(s.hist))
		for k := range s.nxt.labels {
			s.hist = append(s.hist, s.nxt.labels[k].back)
		}
		s.stats.Labels += len(s.nxt.labels)
		s.stats.Widest = max(s.stats.Widest, len(s.nxt.labels))
		s.cur, s.nxt = s.nxt, s.cur
		live = nlive
		if len(s.cur.labels) == 0 {
			return f
		}
	}
	best := -1
	for k := range s.cur.labels {
		if l := &s.cur.labels[k]; (s.avoid == nil || l.differs) && (best < 0 || l.cost < s.cur.labels[best].cost) {
			best = k
		}
	}
	if best < 0 {
		return f
	}
	f.ok, f.cost = true, s.cur.labels[best].cost
	f.assign = dst[:n]
	at := uint32(best)
	for i := n - 1; i >= 0; i-- {
		b := s.hist[s.histAt[i]+int(at)]
		f.assign[i] = units.Kind(b & 3)
		at = b >> 2
	}
	return f
}

// begin empties the next stage and its hash table, sized for about n labels.
func (s *search) begin(n int) {
	s.nxt.labels, s.nxt.slots, s.nxt.mem = s.nxt.labels[:0], s.nxt.slots[:0], s.nxt.mem[:0]
	want := 64
	for want < n {
		want *= 2
	}
	if len(s.buckets) < want {
		s.buckets = make([]bucket, want)
		s.epoch = 0
	}
	s.epoch++
	if s.epoch == 0 {
		clear(s.buckets)
		s.epoch = 1
	}
}

// insert adds a label whose slots (and memory) are already appended, unless a
// label of the same state is at least as good; it removes those that are no
// better than the new one.
func (s *search) insert(b label, at, live int, counted, memory bool) {
	h := b.hash ^ uint64(b.unit)*0x9e3779b97f4a7c15
	bk := &s.buckets[(h^h>>32)&uint64(len(s.buckets)-1)]
	if bk.epoch != s.epoch {
		bk.epoch, bk.head = s.epoch, -1
	}
	rho := s.rho[b.unit]
	var mb []int64
	if memory {
		mb = s.nxt.mem[len(s.nxt.mem)-NumUnits:]
	}
	for k := bk.head; k >= 0; k = s.nxt.labels[k].next {
		a := &s.nxt.labels[k]
		if a.dead || a.hash != b.hash || a.unit != b.unit || !slices.Equal(s.nxt.slots[int(k)*live:(int(k)+1)*live], s.nxt.slots[at:]) {
			continue
		}
		ab := a.cost+rho*max(0, b.credit-a.credit) <= b.cost
		ba := !ab && b.cost+rho*max(0, a.credit-b.credit) <= a.cost
		if counted {
			ab = ab && a.segs <= b.segs
			ba = ba && b.segs <= a.segs
		}
		// What follows may make neither differ: a label that does not differ
		// yet cannot stand in for one that does.
		ab = ab && (a.differs || !b.differs)
		ba = ba && (b.differs || !a.differs)
		if memory && (ab || ba) {
			ma := s.nxt.mem[int(k)*NumUnits : (int(k)+1)*NumUnits]
			for u := range ma {
				ab = ab && ma[u] <= mb[u]
				ba = ba && mb[u] <= ma[u]
			}
		}
		if ab {
			s.nxt.slots = s.nxt.slots[:at]
			if memory {
				s.nxt.mem = s.nxt.mem[:len(s.nxt.mem)-NumUnits]
			}
			return
		}
		if ba {
			a.dead = true
		}
	}
	b.next = bk.head
	bk.head = int32(len(s.nxt.labels))
	s.nxt.labels = append(s.nxt.labels, b)
}

// compact removes the labels of the next stage that are dead or that yield to
// a label of another state, and cuts the table to maxStates.
func (s *search) compact(p *Problem, i int, set uint8, live int, counted, memory bool, maxStates int, f *found) {
	labels := s.nxt.labels
	if len(labels) > 2 && !memory {
		s.crossPrune(i, set, live, counted)
	}
	alive := 0
	for k := range labels {
		if !labels[k].dead {
			alive++
		}
	}
	if alive > maxStates {
		order := make([]int32, 0, alive)
		for k := range labels {
			if !labels[k].dead {
				order = append(order, int32(k))
			}
		}
		slices.SortFunc(order, func(a, b int32) int {
			switch x, y := &labels[a], &labels[b]; {
			case x.cost < y.cost:
				return -1
			case x.cost > y.cost:
				return 1
			}
			return int(a - b)
		})
		for _, k := range order[maxStates:] {
			labels[k].dead = true
			f.bound = min(f.bound, labels[k].cost+s.suffix[i+1])
		}
	}
	w := 0
	for k := range labels {
		if labels[k].dead {
			continue
		}
		if w != k {
			labels[w] = labels[k]
			copy(s.nxt.slots[w*live:(w+1)*live], s.nxt.slots[k*live:(k+1)*live])
			if memory {
				copy(s.nxt.mem[w*NumUnits:(w+1)*NumUnits], s.nxt.mem[k*NumUnits:(k+1)*NumUnits])
			}
		}
		w++
	}
	s.nxt.labels = labels[:w]
	s.nxt.slots = s.nxt.slots[:w*live]
	if memory {
		s.nxt.mem = s.nxt.mem[:w*NumUnits]
	}
}

// crossPrune lets labels yield to the cheapest label of each current unit: a
// label B yields to A when A's cost, plus all that A may have to pay more than
// B to continue as B would, is no more than B's cost. That extra is a switch
// (and the credit that it loses), and for each live tensor the conversions
// that B needs less.
func (s *search) crossPrune(i int, set uint8, live int, counted bool) {
	labels := s.nxt.labels
	refs := [2 * NumUnits]int{-1, -1, -1, -1, -1, -1}
	for k := range labels {
		r := int(labels[k].unit)
		if labels[k].differs {
			r += NumUnits
		}
		if !labels[k].dead && (refs[r] < 0 || labels[k].cost < labels[refs[r]].cost) {
			refs[r] = k
		}
	}
	base := s.liveAt[i]
	// With many labels, what a slot's state costs is kept in a table.
	table := len(labels) > 16
	if table {
		s.fix = grow(s.fix, live*16)
	}
	for _, ra := range refs {
		if ra < 0 || labels[ra].dead {
			continue
		}
		a := &labels[ra]
		ua := int(a.unit)
		if table {
			for k := range s.fix {
				s.fix[k] = -1 // not computed yet
			}
		}
		mine := s.nxt.slots[ra*live : (ra+1)*live]
		var move [NumUnits]float64 // to act as a label whose current unit is ub
		for ub := range move {
			if ub == ua {
				continue
			}
			for t := range NumUnits {
				if set>>t&1 != 0 {
					move[ub] = max(move[ub], s.sw[ua][t]-s.sw[ub][t])
				}
			}
		}
		for k := range labels {
			b := &labels[k]
			if b.dead || k == ra || b.differs && !a.differs {
				continue
			}
			room := b.cost - a.cost
			if room < 0 {
				continue
			}
			segs := a.segs
			if int(b.unit) == ua {
				room -= s.rho[ua] * max(0, b.credit-a.credit)
			} else {
				room -= max(move[b.unit], s.sw[ua][b.unit]+s.rho[b.unit]*b.credit)
				segs++
			}
			if room < 0 || counted && segs > b.segs {
				continue
			}
			slots := s.nxt.slots[k*live : (k+1)*live]
			for x, v := range slots {
				if v == mine[x] {
					continue
				}
				extra := -1.0
				if table {
					extra = s.fix[x*16+int(v)]
				}
				if extra < 0 {
					extra = s.slotFix(s.live[base+int32(x)], mine[x], v, set, s.single[base+int32(x)])
					if table {
						s.fix[x*16+int(v)] = extra
					}
				}
				if room -= extra; room < 0 {
					break
				}
			}
			if room >= 0 {
				b.dead = true
			}
		}
	}
}

// slotFix returns what a live tensor in state va costs more from now on than
// in state vb, at most: the sum over the units that may still ask for it, or
// the greatest of them if only one consumer is left.
func (s *search) slotFix(edge int32, va, vb, set uint8, single bool) float64 {
	conv := &s.convert[edge]
	ha, pa, hb, pb := slotHolders[va], va&3, slotHolders[vb], vb&3
	sum := 0.0
	for t := range NumUnits {
		if set>>t&1 == 0 || ha>>t&1 != 0 {
			continue
		}
		x := conv[pa][t]
		if hb>>t&1 == 0 {
			x -= conv[pb][t]
		}
		if x <= 0 {
			continue
		}
		if single {
			sum = max(sum, x)
		} else {
			sum += x
		}
	}
	return sum
}
