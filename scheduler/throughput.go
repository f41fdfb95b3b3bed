package scheduler

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize/convex/lp"

	"github.com/triune-sim/triune/units"
)

// This file finds plans for a steady stream of requests. While one request is
// on the Neural Engine another may be on the CPU, so what counts is not the
// sum of the units' times but the greatest: with enough requests in flight,
// one leaves every PeriodMS, the load of the busiest resource. A unit's load
// is the time of its layers, of the transfers to it and its floor; the DRAM's
// load is the traffic of all layers at its full bandwidth. The handling time
// occupies no unit.
//
// Two searches are combined. Pipelines (each unit runs one contiguous part of
// the network) are tried exhaustively. General plans are found through the
// dual problem: for any weights of the resources that sum to one, the plan of
// least weighted load is found exactly by the same dynamic programme as for
// latency, and its value is a lower bound on the period of every plan; the
// weights then move towards the resources that were overloaded. The best plan
// met is improved by moving layers, and the gap to the best bound is reported.
//
// A stream need not treat all requests alike: some may take one plan and some
// another. The best shares of the plans that the search has met are a small
// linear programme, and the same dual value bounds them, so that the gap of a
// mixture is that of the search alone. A mixture keeps the weights of all its
// plans resident.

// NumResources counts the units and the DRAM.
const NumResources = NumUnits + 1

// Pipeline is how a plan serves a stream of requests.
type Pipeline struct {
	PeriodMS     float64               // between two requests leaving
	RequestsPerS float64               // 1000 / PeriodMS
	LoadMS       [NumResources]float64 // per request: CPU, GPU, NE, DRAM
	Bottleneck   int                   // index of the greatest load
	BoundMS      float64               // no plan has a shorter period
	InFlight     int                   // requests in flight that keep the bottleneck busy
	Strategy     string
	// Contiguous is the period of the best pipeline in which each unit runs
	// one contiguous part; 0 when the constraints admit none.
	ContiguousMS float64
	// Mix is the best mixture of plans, each with its share of the requests,
	// MixPeriodMS its period, and MixBoundMS what no mixture undercuts.
	Mix                     []MixPart
	MixPeriodMS, MixBoundMS float64
	// Latency is the latency-optimal plan, and LatencyPeriodMS its period.
	Latency         *Plan
	LatencyPeriodMS float64
}

// MixPart is one plan of a mixture.
type MixPart struct {
	Share     float64 // of the requests
	Units     []units.Kind
	LatencyMS float64
	LoadMS    [NumResources]float64
}

// ResourceName names a resource of a pipeline.
func ResourceName(i int) string {
	if i < NumUnits {
		return units.Kind(i).String()
	}
	return "DRAM"
}

// GapPct is how far the period may be above the best one, in percent.
func (p *Pipeline) GapPct() float64 {
	if p.BoundMS <= 0 {
		return 0
	}
	return 100 * max(0, p.PeriodMS/p.BoundMS-1)
}

// loads returns what each resource does for one request, given a timing of
// the assignment.
func (p *Problem) loads(assign []units.Kind, t *Timing) (l [NumResources]float64) {
	for k := range NumUnits {
		if t.Used>>k&1 != 0 {
			l[k] = t.BusyMS[k] + p.Units[k].FloorMS
		}
	}
	if p.DRAMGBs > 0 {
		for i, u := range assign {
			l[NumUnits] += p.traffic(i, int(u)) / (p.DRAMGBs * 1e6)
		}
	}
	return l
}

// traffic is what a layer moves from and to DRAM on a unit, in bytes.
func (p *Problem) traffic(i, u int) float64 {
	c := &p.Layers[i].Cost[u]
	return c.DRAMBytes + c.WeightMS*p.Units[u].StreamBytesMS
}

func greatest(l [NumResources]float64) (int, float64) {
	at := 0
	for i := range l {
		if l[i] > l[at] {
			at = i
		}
	}
	return at, l[at]
}

// weighLoads sets the search up for a weighted sum of loads.
func (s *search) weighLoads(p *Problem, w [NumResources]float64) {
	copy(s.rho[:], w[:NumUnits])
	for a := range NumUnits {
		for b := range NumUnits {
			s.sw[a][b] = s.rho[b] * p.SwitchMS[a][b]
		}
		s.sw[noUnit][a] = 0
	}
	dram := 0.0
	if p.DRAMGBs > 0 {
		dram = w[NumUnits] / (p.DRAMGBs * 1e6)
	}
	s.fixed = grow(s.fixed, len(p.Layers))
	for i := range p.Layers {
		for k := range NumUnits {
			c := &p.Layers[i].Cost[k]
			s.fixed[i][k] = s.rho[k]*(c.OverheadMS+c.BusyMS) + dram*p.traffic(i, k)
		}
	}
	s.convert = grow(s.convert, len(p.Edges))
	for i := range p.Edges {
		for a := range NumUnits {
			for b := range NumUnits {
				s.convert[i][a][b] = s.rho[b] * p.Edges[i].ConvertMS[a][b]
			}
		}
	}
}

// throughput finds the plan of least period and fills plan.Units (by
// position) and plan.Pipeline.
func (s *Solver) throughput(p *Problem, o *Options, plan *Plan) error {
	n := len(p.Layers)
	latency := &Plan{Policy: Optimal, Mask: o.mask(), Units: make([]units.Kind, n)}
	if err := s.minimise(p, o, Objective{Latency: 1}, latency); err != nil {
		return err
	}
	stats := latency.Stats
	pl := &Pipeline{}
	best := math.Inf(1)
	bestSum := math.Inf(1)
	bestAssign := make([]units.Kind, n)
	var columns []MixPart
	try := func(a []units.Kind, name string) [NumResources]float64 {
		p.Evaluate(a, false, &s.timing)
		l := p.loads(a, &s.timing)
		_, period := greatest(l)
		if name != movedLayers && p.feasible(a, &s.timing, o) && !slices.ContainsFunc(columns, func(c MixPart) bool { return c.LoadMS == l }) {
			columns = append(columns, MixPart{Units: slices.Clone(a), LatencyMS: s.timing.LatencyMS, LoadMS: l})
		}
		if period < best*(1-1e-12) || period <= best && s.timing.LatencyMS < bestSum*(1-1e-12) {
			if p.feasible(a, &s.timing, o) {
				best, bestSum, pl.Strategy = period, s.timing.LatencyMS, name
				copy(bestAssign, a)
			}
		}
		return l
	}
	l := try(latency.Units, "the plan of least latency")
	_, pl.LatencyPeriodMS = greatest(l)

	var split []units.Kind
	var period float64
	if n <= contiguousLayers {
		split, period = s.contiguous(p, o)
	}
	if split != nil {
		pl.ContiguousMS = period
		try(split, "a pipeline of contiguous parts")
	}
	// No layer is divided: the longest of the shortest bounds the period.
	for i := range p.Layers {
		least := math.Inf(1)
		for k := range NumUnits {
			if p.Layers[i].Allowed>>k&1 != 0 {
				c := &p.Layers[i].Cost[k]
				least = min(least, c.OverheadMS+c.BusyMS+p.Units[k].FloorMS)
			}
		}
		pl.BoundMS = max(pl.BoundMS, least)
	}

	// The dual, by cutting planes: the loads of the plans met so far bound the
	// dual function from above; where that bound is greatest, the next plan is
	// found. Every second step goes only half the way from the best weights
	// known, which steadies the method.
	assign := make([]units.Kind, n)
	var can uint8
	for i := range p.Layers {
		can |= p.Layers[i].Allowed
	}
	var w, bestW [NumResources]float64
	live := 0
	for k := range w {
		if k < NumUnits && can>>k&1 != 0 || k == NumUnits && p.DRAMGBs > 0 {
			w[k] = 1
			live++
		}
	}
	for k := range w {
		w[k] /= float64(live)
	}
	const steps = 60
	for step := range steps {
		s.search.weighLoads(p, w)
		least, bound := math.Inf(1), math.Inf(1)
		var got []units.Kind
		for _, set := range sets {
			if set&^can != 0 {
				continue
			}
			c := 0.0
			for k := range NumUnits {
				if set>>k&1 != 0 {
					c += w[k] * p.Units[k].FloorMS
				}
			}
			f := s.search.run(p, o, set, least-c, assign)
			if f.ok && f.cost+c < least {
				least = f.cost + c
				got = append(got[:0], f.assign...)
			}
			bound = min(bound, f.bound+c)
		}
		if got == nil {
			break
		}
		if v := min(least, bound); v > pl.MixBoundMS || step == 0 {
			pl.MixBoundMS, bestW = v, w
		}
		try(got, "the dual search")
		next, upper, ok := dualWeights(columns, w)
		if !ok || upper <= pl.MixBoundMS*(1+1e-4) {
			break
		}
		if step%2 == 0 {
			for k := range w {
				w[k] = (next[k] + bestW[k]) / 2
			}
		} else {
			w = next
		}
	}
	pl.BoundMS = max(pl.BoundMS, pl.MixBoundMS)
	if !math.IsInf(best, 1) && best > pl.BoundMS*(1+1e-9) {
		starts := [][]units.Kind{slices.Clone(bestAssign), slices.Clone(latency.Units)}
		if split != nil {
			starts = append(starts, split)
		}
		for k := range units.Kind(NumUnits) {
			a := make([]units.Kind, n)
			for i := range a {
				a[i] = p.pick(i, k, units.NE, units.CPU)
			}
			starts = append(starts, a)
		}
		for _, a := range starts {
			s.polish(p, o, a, 4000/len(starts), try)
		}
	}
	if math.IsInf(best, 1) {
		return s.noPlan(o)
	}
	p.Evaluate(bestAssign, false, &s.timing)
	pl.LoadMS = p.loads(bestAssign, &s.timing)
	pl.Bottleneck, pl.PeriodMS = greatest(pl.LoadMS)
	pl.BoundMS = min(pl.BoundMS, pl.PeriodMS)
	if !slices.ContainsFunc(columns, func(c MixPart) bool { return c.LoadMS == pl.LoadMS }) {
		columns = append(columns, MixPart{Units: slices.Clone(bestAssign), LatencyMS: s.timing.LatencyMS, LoadMS: pl.LoadMS})
	}
	pl.mix(columns)
	for i := range pl.Mix {
		p.byLayer(pl.Mix[i].Units)
	}
	pl.InFlight = 1
	if pl.PeriodMS > 0 {
		pl.RequestsPerS = 1e3 / pl.PeriodMS
		pl.InFlight = int(math.Ceil(s.timing.LatencyMS/pl.PeriodMS - 1e-9))
	}
	p.finish(latency)
	pl.Latency = latency
	copy(plan.Units, bestAssign)
	plan.Pipeline = pl
	plan.Cost, plan.Bound, plan.Exact = pl.PeriodMS, pl.BoundMS, pl.PeriodMS <= pl.BoundMS*(1+1e-9)
	st := s.search.stats
	st.Labels += stats.Labels
	plan.Stats = st
	return nil
}

// contiguousLayers bounds the networks for which all contiguous pipelines are
// tried: the time is in the square of the layers.
const contiguousLayers = 4096

const movedLayers = "moved layers"

// dualWeights maximises, over weights that sum to one, the least weighted load
// of a set of plans, and returns that value. It looks at the plans that bind
// near the present weights, so that the linear programme stays small.
func dualWeights(columns []MixPart, at [NumResources]float64) (w [NumResources]float64, value float64, ok bool) {
	const most = 14
	weighted := func(c *MixPart, w *[NumResources]float64) float64 {
		t := 0.0
		for r, x := range c.LoadMS {
			t += w[r] * x
		}
		return t
	}
	pool := make([]*MixPart, len(columns))
	for i := range columns {
		pool[i] = &columns[i]
	}
	slices.SortStableFunc(pool, func(a, b *MixPart) int {
		x, y := weighted(a, &at), weighted(b, &at)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	pool = pool[:min(len(pool), most)]
	// Variables: the weights, the value v, a slack for each plan.
	// maximise v: v - weights x loads + slack = 0, weights sum to one.
	k := len(pool)
	scale := 0.0
	for _, c := range pool {
		_, x := greatest(c.LoadMS)
		scale = max(scale, x)
	}
	if scale <= 0 {
		return w, 0, false
	}
	a := mat.NewDense(k+1, NumResources+1+k, nil)
	cost := make([]float64, NumResources+1+k)
	cost[NumResources] = -1
	b := make([]float64, k+1)
	for i, c := range pool {
		for r, x := range c.LoadMS {
			a.Set(i, r, -x/scale)
		}
		a.Set(i, NumResources, 1)
		a.Set(i, NumResources+1+i, 1)
	}
	for r := range NumResources {
		a.Set(k, r, 1)
	}
	b[k] = 1
	_, x, err := lp.Simplex(cost, a, b, 1e-10, nil)
	if err != nil {
		return w, 0, false
	}
	sum := 0.0
	for r := range w {
		w[r] = max(0, x[r])
		sum += w[r]
	}
	if !(sum > 0) {
		return w, 0, false
	}
	for r := range w {
		w[r] /= sum
	}
	value = math.Inf(1)
	for i := range columns {
		value = min(value, weighted(&columns[i], &w))
	}
	return w, value, true
}

// mix solves for the shares of plans that give the least period.
func (pl *Pipeline) mix(columns []MixPart) {
	pl.MixPeriodMS = pl.PeriodMS
	pl.MixBoundMS = min(pl.MixBoundMS, pl.PeriodMS)
	k := len(columns)
	single := func() {
		for _, c := range columns {
			if _, x := greatest(c.LoadMS); x == pl.PeriodMS {
				c.Share = 1
				pl.Mix = []MixPart{c}
				return
			}
		}
	}
	if k < 2 || pl.PeriodMS <= 0 {
		single()
		return
	}
	// minimise t: for every resource, sum of share x load - t + slack = 0;
	// the shares sum to one.
	a := mat.NewDense(NumResources+1, k+1+NumResources, nil)
	cost := make([]float64, k+1+NumResources)
	cost[k] = 1
	b := make([]float64, NumResources+1)
	for j, c := range columns {
		for r, x := range c.LoadMS {
			a.Set(r, j, x/pl.PeriodMS)
		}
		a.Set(NumResources, j, 1)
	}
	for r := range NumResources {
		a.Set(r, k, -1)
		a.Set(r, k+1+r, 1)
	}
	b[NumResources] = 1
	t, x, err := lp.Simplex(cost, a, b, 1e-9, nil)
	if err != nil || !(t < 1-1e-9) {
		single()
		return
	}
	// Evaluate the shares rather than trust the solver's last digits.
	sum := 0.0
	for j := range columns {
		if x[j] > 1e-9 {
			sum += x[j]
		}
	}
	var load [NumResources]float64
	for j, c := range columns {
		if x[j] > 1e-9 {
			c.Share = x[j] / sum
			for r := range load {
				load[r] += c.Share * c.LoadMS[r]
			}
			pl.Mix = append(pl.Mix, c)
		}
	}
	_, pl.MixPeriodMS = greatest(load)
	pl.MixBoundMS = min(pl.MixBoundMS, pl.MixPeriodMS)
}

// byLayer turns units by position into units by the network's layers.
func (p *Problem) byLayer(u []units.Kind) {
	if p.Order == nil {
		return
	}
	pos := slices.Clone(u)
	for i, l := range p.Order {
		u[l] = pos[i]
	}
}

// polish moves runs of layers between units, and exchanges single layers of
// different units, while a high norm of the loads falls: the norm follows the
// greatest load, but also rewards relief of the next ones.
func (s *Solver) polish(p *Problem, o *Options, cur []units.Kind, budget int, try func([]units.Kind, string) [NumResources]float64) {
	n := len(cur)
	scale := 0.0
	norm := func() float64 {
		p.Evaluate(cur, false, &s.timing)
		l := p.loads(cur, &s.timing)
		if scale == 0 {
			_, scale = greatest(l)
		}
		if scale == 0 || !p.feasible(cur, &s.timing, o) {
			return math.Inf(1)
		}
		sum := 0.0
		for _, x := range l {
			x /= scale
			x *= x
			x *= x
			sum += x * x
		}
		return sum
	}
	now := norm()
	step := func() bool { // keeps cur if it is better
		budget--
		if x := norm(); x < now*(1-1e-9) {
			now = x
			try(cur, movedLayers)
			return true
		}
		return false
	}
	var was [8]units.Kind
	for improved := true; improved && budget > 0; {
		improved = false
		for run := 1; run <= len(was); run *= 2 {
			for i := 0; i+run <= n && budget > 0; i++ {
				copy(was[:], cur[i:i+run])
				for u := range units.Kind(NumUnits) {
					ok, moved := true, false
					for k := range run {
						ok = ok && p.Layers[i+k].Allowed>>u&1 != 0
						moved = moved || was[k] != u
						cur[i+k] = u
					}
					if ok && moved && step() {
						improved = true
						copy(was[:], cur[i:i+run])
					} else {
						copy(cur[i:i+run], was[:run])
					}
				}
			}
		}
		for i := 0; i < n && n <= contiguousLayers && budget > 0 && !improved; i++ {
			for j := i + 1; j < n && budget > 0; j++ {
				a, b := cur[i], cur[j]
				if a == b || p.Layers[i].Allowed>>b&1 == 0 || p.Layers[j].Allowed>>a&1 == 0 {
					continue
				}
				cur[i], cur[j] = b, a
				if step() {
					improved = true
				} else {
					cur[i], cur[j] = a, b
				}
			}
		}
	}
}

// contiguous returns the pipeline of least period in which at most three parts
// of the order run on different units, one after the other, by trying all of
// them; nil if the constraints admit none.
func (s *Solver) contiguous(p *Problem, o *Options) (assign []units.Kind, period float64) {
	n := len(p.Layers)
	first := make([]int, len(p.Edges)) // scratch: first consumer at or after the cut
	best := math.Inf(1)
	var bestCut [2]int
	var bestOrder [3]units.Kind
	dram := func(i, u int) float64 {
		if p.DRAMGBs <= 0 {
			return 0
		}
		return p.traffic(i, u) / (p.DRAMGBs * 1e6)
	}
	// tail[u][b]: the time of layers b.. on u, the stream empty at b; +Inf if
	// it cannot.
	var tail, tailDRAM, prefix, prefixDRAM [NumUnits][]float64
	for u := range NumUnits {
		tail[u], tailDRAM[u] = make([]float64, n+1), make([]float64, n+1)
		prefix[u], prefixDRAM[u] = make([]float64, n+1), make([]float64, n+1)
		capMS := p.Units[u].CapMS
		for b := n - 1; b >= 0; b-- {
			tailDRAM[u][b] = tailDRAM[u][b+1] + dram(b, u)
			if p.Layers[b].Allowed>>u&1 == 0 || math.IsInf(tail[u][b+1], 1) {
				tail[u][b] = math.Inf(1)
				continue
			}
			var st units.Stream
			for i := b; i < n; i++ {
				c := &p.Layers[i].Cost[u]
				tail[u][b] += c.OverheadMS + c.BusyMS + st.Step(c.BusyMS, c.WeightMS, capMS)
			}
		}
		var st units.Stream
		for i := range n {
			c := &p.Layers[i].Cost[u]
			prefix[u][i+1] = prefix[u][i] + c.OverheadMS + c.BusyMS + st.Step(c.BusyMS, c.WeightMS, capMS)
			prefixDRAM[u][i+1] = prefixDRAM[u][i] + dram(i, u)
			if p.Layers[i].Allowed>>u&1 == 0 {
				prefix[u][i+1] = math.Inf(1)
			}
		}
	}
	consider := func(x, y, z, a, b int, load [3]float64, dr float64) {
		m := max(load[0], load[1], load[2], dr)
		if m >= best {
			return
		}
		if o.MaxSegments > 0 || o.MaxResident != [NumUnits]int64{} {
			segs := 1
			var res [NumUnits]int64
			if b > a {
				segs++
			}
			if n > b {
				segs++
			}
			for i := range n {
				u := part(i, a, b, x, y, z)
				res[u] += p.Layers[i].Cost[u].ResidentBytes
			}
			if o.MaxSegments > 0 && segs > o.MaxSegments {
				return
			}
			for k, lim := range o.MaxResident {
				if lim > 0 && res[k] > lim {
					return
				}
			}
		}
		best = m
		bestCut, bestOrder = [2]int{a, b}, [3]units.Kind{units.Kind(x), units.Kind(y), units.Kind(z)}
	}
	for _, ord := range [...][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		x, y, z := ord[0], ord[1], ord[2]
		capY := p.Units[y].CapMS
		for a := 1; a <= n; a++ {
			if math.IsInf(prefix[x][a], 1) {
				break
			}
			loadX := prefix[x][a] + p.Units[x].FloorMS
			if loadX >= best {
				break
			}
			if a == n {
				consider(x, y, z, n, n, [3]float64{loadX}, prefixDRAM[x][n])
				break
			}
			// Conversions into the last part [b, n), b = a to begin with, and
			// into the middle one [a, b).
			toY, fromX, fromY := 0.0, 0.0, 0.0
			for e := range p.Edges {
				ed := &p.Edges[e]
				first[e] = n
				if ed.Producer < 0 || ed.Producer >= a || len(ed.Consumers) == 0 {
					continue
				}
				for _, c := range ed.Consumers {
					if c >= a {
						first[e] = c
						fromX += ed.ConvertMS[x][z]
						break
					}
				}
			}
			loadY, dramY := p.Units[y].FloorMS+p.SwitchMS[x][y], 0.0
			var st units.Stream
			for b := a; b <= n; b++ {
				if b > a { // layer b-1 joins the middle
					i := b - 1
					if p.Layers[i].Allowed>>y&1 == 0 {
						break
					}
					c := &p.Layers[i].Cost[y]
					loadY += c.OverheadMS + c.BusyMS + st.Step(c.BusyMS, c.WeightMS, capY)
					dramY += dram(i, y)
					for _, e := range p.Layers[i].Inputs {
						ed := &p.Edges[e]
						last := ed.Consumers[len(ed.Consumers)-1] == i
						switch {
						case ed.Producer < 0:
						case ed.Producer < a:
							if first[e] == i {
								toY += ed.ConvertMS[x][y]
							}
							if last {
								fromX -= ed.ConvertMS[x][z]
							}
						case last:
							fromY -= ed.ConvertMS[y][z]
						}
					}
					for _, e := range p.Layers[i].Outputs {
						if len(p.Edges[e].Consumers) > 0 {
							fromY += p.Edges[e].ConvertMS[y][z]
						}
					}
				}
				load := [3]float64{loadX, 0, 0}
				dr := prefixDRAM[x][a] + dramY
				prev := x
				if b > a {
					load[1] = loadY + toY
					prev = y
				}
				if load[1] >= best {
					break
				}
				if b < n {
					if math.IsInf(tail[z][b], 1) {
						continue
					}
					load[2] = tail[z][b] + p.Units[z].FloorMS + p.SwitchMS[prev][z] + fromX + fromY
					dr += tailDRAM[z][b]
				}
				consider(x, y, z, a, b, load, dr)
			}
		}
	}
	if math.IsInf(best, 1) {
		return nil, 0
	}
	assign = make([]units.Kind, n)
	for i := range assign {
		assign[i] = units.Kind(part(i, bestCut[0], bestCut[1], int(bestOrder[0]), int(bestOrder[1]), int(bestOrder[2])))
	}
	return assign, best
}

func part(i, a, b, x, y, z int) int {
	switch {
	case i < a:
		return x
	case i < b:
		return y
	}
	return z
}
