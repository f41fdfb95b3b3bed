package scheduler

import (
	"hash/maphash"
	"math"
)

// A block's work is not a fluid: layers are whole, and a unit that takes one
// from another pays for it. The divider bounds a block by branch and bound
// over all ways to divide its layers among units. For each division the block
// takes at least
//
//   - the time of each unit: overheads, the greater of its work and of its
//     weights, one switch for every unit that it receives from, and the
//     conversions of what it receives, each once;
//   - the longest way through it, switches and conversions included;
//
// and after that its exit layer, which waits for everything. The least over
// all divisions that use more than one unit bounds the block.

// dividerBudget bounds the nodes of one network's searches; blocks that come
// too late, or are too large, keep their other bounds.
const dividerBudget = 1_500_000

// dividerLayers bounds the inner layers of a block that is searched.
const dividerLayers = 40

type divider struct {
	p     *Problem
	nodes int
	known map[dividerKey]float64
	print map[int]uint64 // of the block that begins behind a layer
	seed  maphash.Seed

	// State of one search.
	b           *blockBounder
	a, z, p0, q int
	end         float64
	unit        []uint8
	fin         []float64
	got         []uint8
	need        []float64 // least weighted work of layers i.. of the block
	load        [NumUnits]dividerLoad
	seen        [NumUnits]uint8
	best        float64
	out         bool // the budget ran out
	home        int  // a division with all layers here does not count; -1: with all on any one unit
}

type dividerLoad struct{ over, busy, weight, moves float64 }

func (l *dividerLoad) time() float64 { return l.over + max(l.busy, l.weight) + l.moves }

type dividerKey struct {
	block uint64
	set   uint8
	p, q  int8
}

func newDivider(p *Problem) *divider {
	return &divider{p: p, known: map[dividerKey]float64{}, print: map[int]uint64{}, seed: maphash.MakeSeed(),
		unit: make([]uint8, len(p.Layers)), fin: make([]float64, len(p.Layers)), got: make([]uint8, len(p.Edges)), need: make([]float64, len(p.Layers)+1)}
}

// block bounds the block between a and z, whose cut layers are on p and q, for
// divisions that do not leave all of it on their unit; 0 if it gives up. The
// bounder b has just bounded the same block. A unit that begins with credit
// may be faster by as much.
func (d *divider) block(b *blockBounder, a, z, p, q int) float64 {
	inner := z - a - 1
	if inner > dividerLayers || d.nodes > dividerBudget {
		return 0
	}
	for i := a + 1; i < z; i++ {
		if len(d.p.Layers[i].Inputs) > 64 {
			return 0 // dive keeps one bit for each
		}
	}
	hash, ok := d.print[a]
	if !ok {
		hash = d.fingerprint(a, z)
		d.print[a] = hash
	}
	key := dividerKey{hash, b.set, int8(p), int8(q)}
	if v, ok := d.known[key]; ok {
		return v
	}
	d.b, d.a, d.z, d.p0, d.q = b, a, z, p, q
	d.end = 0
	if q < NumUnits {
		d.end = b.cost(z, q)
	}
	d.load, d.seen = [NumUnits]dividerLoad{}, [NumUnits]uint8{}
	d.best, d.out = math.Inf(1), false
	d.home = -2 // every division counts
	switch {
	case p == q && p < NumUnits:
		d.home = p
	case p == NumUnits && q < NumUnits:
		d.home = q
	case q == NumUnits && p < NumUnits:
		d.home = p
	case p == NumUnits:
		d.home = -1
	}
	if a >= 0 {
		d.unit[a], d.fin[a] = uint8(p), 0
	}
	d.need[z] = 0
	for i := z - 1; i > a; i-- {
		least := math.Inf(1)
		for u := range NumUnits {
			if d.p.Layers[i].Allowed&b.set>>u&1 != 0 {
				least = min(least, b.shares[u]*b.cost(i, u))
			}
		}
		d.need[i] = d.need[i+1] + least
	}
	limit := d.nodes + dividerBudget/8
	d.dive(a+1, 0, limit)
	v := d.best
	if d.out {
		v = 0
	}
	d.known[key] = v
	return v
}

// dive places layer i and those behind it; lower is a bound of what is placed.
func (d *divider) dive(i int, lower float64, limit int) {
	if d.nodes++; d.nodes > limit {
		d.out = true
		return
	}
	if i == d.z {
		d.leaf(lower)
		return
	}
	l := &d.p.Layers[i]
	type option struct {
		u     int
		lower float64
		fin   float64
		load  dividerLoad
		seen  uint8
	}
	var options [NumUnits]option
	n := 0
	for u := range NumUnits {
		if l.Allowed&d.b.set>>u&1 == 0 {
			continue
		}
		o := option{u: u, load: d.load[u], seen: d.seen[u]}
		for _, ei := range l.Inputs {
			e := &d.p.Edges[ei]
			if e.Producer < d.a || e.Producer < 0 {
				continue
			}
			at := d.fin[e.Producer]
			if v := int(d.unit[e.Producer]); v != u {
				at += d.p.SwitchMS[v][u] + e.ConvertMS[v][u]
				if d.got[ei]>>u&1 == 0 {
					o.load.moves += e.ConvertMS[v][u]
				}
				if o.seen>>v&1 == 0 {
					o.seen |= 1 << v
					o.load.moves += d.p.SwitchMS[v][u]
				}
			}
			o.fin = max(o.fin, at)
		}
		c := &l.Cost[u]
		o.load.over += c.OverheadMS
		o.load.busy += c.BusyMS
		o.load.weight += c.WeightMS
		o.fin += c.OverheadMS + c.BusyMS
		// The longest way, the unit's time, and the work of all that is left.
		tail := o.fin + d.end
		for _, e := range l.Outputs {
			if cs := d.p.Edges[e].Consumers; len(cs) > 0 && d.q < NumUnits && cs[len(cs)-1] == d.z && u != d.q {
				tail = max(tail, o.fin+d.end+d.p.SwitchMS[u][d.q]+d.p.Edges[e].ConvertMS[u][d.q])
			}
		}
		weighted := d.need[i+1]
		for k := range NumUnits {
			// Weights are left out: later work may hide them.
			t := &d.load[k]
			if k == u {
				t = &o.load
			}
			weighted += d.b.shares[k] * (t.over + t.busy + t.moves)
		}
		o.lower = max(lower, tail, o.load.time()+d.end, weighted+d.end)
		options[n] = o
		n++
	}
	// The most promising first.
	for x := 1; x < n; x++ {
		for y := x; y > 0 && options[y].lower < options[y-1].lower; y-- {
			options[y], options[y-1] = options[y-1], options[y]
		}
	}
	for _, o := range options[:n] {
		if o.lower >= d.best || d.out {
			return
		}
		u := o.u
		load, seen := d.load[u], d.seen[u]
		var fresh uint64 // inputs received for the first time
		for k, ei := range l.Inputs {
			if e := &d.p.Edges[ei]; e.Producer >= max(d.a, 0) && int(d.unit[e.Producer]) != u && d.got[ei]>>u&1 == 0 {
				d.got[ei] |= 1 << u
				fresh |= 1 << k
			}
		}
		d.load[u], d.seen[u], d.unit[i], d.fin[i] = o.load, o.seen, uint8(u), o.fin
		d.dive(i+1, o.lower, limit)
		d.load[u], d.seen[u] = load, seen
		for k, ei := range l.Inputs {
			if fresh>>k&1 != 0 {
				d.got[ei] &^= 1 << u
			}
		}
	}
}

// leaf bounds a complete division.
func (d *divider) leaf(lower float64) {
	if d.home != -2 {
		one := true
		home := d.home
		if home < 0 {
			home = int(d.unit[d.a+1])
		}
		for i := d.a + 1; i < d.z && one; i++ {
			one = int(d.unit[i]) == home
		}
		if one {
			return
		}
	}
	if d.q < NumUnits {
		// The exit starts when all is done, and receives what it lacks.
		most, moves := 0.0, 0.0
		for k := range d.load {
			most = max(most, d.load[k].time())
		}
		seen := d.seen[d.q]
		for _, ei := range d.p.Layers[d.z].Inputs {
			e := &d.p.Edges[ei]
			if e.Producer < 0 || e.Producer < d.a {
				continue
			}
			v := int(d.unit[e.Producer])
			if v == d.q {
				continue
			}
			if d.got[ei]>>d.q&1 == 0 {
				moves += e.ConvertMS[v][d.q]
			}
			if seen>>v&1 == 0 {
				seen |= 1 << v
				moves += d.p.SwitchMS[v][d.q]
			}
		}
		lower = max(lower, most+moves+d.end)
	}
	d.best = min(d.best, lower)
}

// fingerprint hashes all of a block that its bound depends on.
func (d *divider) fingerprint(a, z int) uint64 {
	var h maphash.Hash
	h.SetSeed(d.seed)
	put := func(v uint64) {
		var x [8]byte
		for i := range x {
			x[i] = byte(v >> (8 * i))
		}
		h.Write(x[:])
	}
	for i := a + 1; i <= z && i < len(d.p.Layers); i++ {
		l := &d.p.Layers[i]
		put(uint64(l.Allowed))
		for k := range l.Cost {
			put(math.Float64bits(l.Cost[k].OverheadMS))
			put(math.Float64bits(l.Cost[k].BusyMS))
			put(math.Float64bits(l.Cost[k].WeightMS))
		}
		for _, ei := range l.Inputs {
			e := &d.p.Edges[ei]
			if e.Producer < 0 || e.Producer < a {
				continue
			}
			put(uint64(e.Producer - a))
			first := 0 // tells inputs of one producer apart
			for x, o := range d.p.Layers[e.Producer].Outputs {
				if o == ei {
					first = x
				}
			}
			put(uint64(first))
			for _, row := range e.ConvertMS {
				for _, v := range row {
					put(math.Float64bits(v))
				}
			}
		}
		put(math.MaxUint64)
	}
	put(uint64(z - a))
	if z == len(d.p.Layers) {
		put(1)
	}
	return h.Sum64()
}
