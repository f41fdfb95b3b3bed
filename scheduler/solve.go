package scheduler

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// Plan is a placement: a unit for every layer of a network.
type Plan struct {
	Policy Policy
	Mask   units.Mask
	// Units gives the unit of each layer, by the network's layer index.
	Units []units.Kind
	// Order lists the layers in execution order; nil when it is the
	// network's.
	Order []int
	// Timing is what [Problem.Evaluate] says of the plan; its Layers are by
	// position in Order.
	Timing
	// Segments are the runs of consecutive layers on one unit.
	Segments []Segment
	// Cost is the value of the objective that was minimised, and Bound a
	// lower bound on it over all plans; they are equal when Exact.
	Cost, Bound float64
	Exact       bool
	Stats       Stats
	// OptimalMS is the latency of the optimal plan, for the policies that
	// minimise nothing (coreml, greedy); 0 otherwise.
	OptimalMS float64
	// Overlap is set when units may run at once (Options.Overlap). Layers
	// then overlap in time: LatencyMS is less than the sum of the parts by
	// Overlap.SavedMS.
	Overlap *Overlap
	// Pipeline is set by the policy throughput.
	Pipeline *Pipeline
}

// Segment is a run of layers on one unit, from position First of the plan's
// order to Last. In a serial plan it holds all positions between; where units
// overlap, those on its unit.
type Segment struct {
	Unit        units.Kind
	First, Last int
	Layers      int
	LatencyMS   float64 // layers and the transfers before them
}

// Gap returns how far the plan may be above the optimum, as a share of the
// bound: 0 for an exact plan.
func (p *Plan) Gap() float64 {
	if p.Exact || p.Bound <= 0 {
		return 0
	}
	return p.Cost/p.Bound - 1
}

// Position returns the layer at a position of the plan's order.
func (p *Plan) Position(i int) int {
	if p.Order == nil {
		return i
	}
	return p.Order[i]
}

// ErrNoPlan is wrapped by the error that says that the constraints admit no
// plan.
var ErrNoPlan = errors.New("no plan meets the constraints")

// Solve places a network on a machine. It is safe for concurrent use; a
// caller that prices many plans keeps a [Solver].
func Solve(net *model.Network, m *units.Machine, o Options) (*Plan, error) {
	return new(Solver).Solve(net, m, o)
}

// Solver places networks and reuses its memory from one to the next. It is not
// safe for concurrent use. The zero value is ready.
type Solver struct {
	problem Problem
	search  search
	order   orderer
	assign  [2][]units.Kind
	timing  Timing
	beside  Plan // the optimum beside a policy that minimises nothing
}

// Solve places a network; the plan is the caller's to keep.
func (s *Solver) Solve(net *model.Network, m *units.Machine, o Options) (*Plan, error) {
	plan := &Plan{}
	if err := s.SolveInto(net, m, &o, plan); err != nil {
		return nil, err
	}
	return plan, nil
}

// SolveInto places a network and overwrites plan, reusing its memory: a warm
// call allocates nothing.
func (s *Solver) SolveInto(net *model.Network, m *units.Machine, o *Options, plan *Plan) error {
	p, err := s.Build(net, m, o)
	if err != nil {
		return err
	}
	return s.SolveProblem(p, o, plan)
}

// Build makes the problem of a network on a machine in the solver's memory:
// it is valid until the next call.
func (s *Solver) Build(net *model.Network, m *units.Machine, o *Options) (*Problem, error) {
	if err := s.problem.Build(net, m, o); err != nil {
		return nil, err
	}
	if !o.KeepOrder {
		s.order.narrow(&s.problem)
	}
	return &s.problem, nil
}

// SolveProblem solves a problem under the options' policy, objective and
// constraints, and overwrites plan.
func (s *Solver) SolveProblem(p *Problem, o *Options, plan *Plan) error {
	obj := o.Objective.orLatency()
	if !(obj.Latency >= 0 && obj.Energy >= 0) || math.IsInf(obj.Latency+obj.Energy, 0) {
		return fmt.Errorf("scheduler: objective weights %g per ms, %g per mJ: want finite numbers of at least 0", obj.Latency, obj.Energy)
	}
	s.search.prepare(p)
	policy := o.Policy
	if policy == "" {
		policy = Optimal
	}
	n := len(p.Layers)
	plan.Units = grow(plan.Units, n)
	plan.Stats, plan.Overlap, plan.Pipeline, plan.OptimalMS = Stats{}, nil, nil, 0
	var err error
	switch policy {
	case Optimal:
		err = s.minimise(p, o, obj, plan)
	case Pinned:
		if len(o.Pins) == 0 {
			return fmt.Errorf("scheduler: policy pinned wants at least one pin (--pin 'PATTERN=UNIT')")
		}
		err = s.minimise(p, o, obj, plan)
	case Energy:
		err = s.minimise(p, o, Objective{Energy: 1}, plan)
	case EDP:
		err = s.minimiseProduct(p, o, plan)
	case Throughput:
		err = s.throughput(p, o, plan)
	case Greedy, CoreML:
		if policy == Greedy {
			p.greedy(plan.Units)
		} else {
			p.CoreML(plan.Units)
		}
		p.Evaluate(plan.Units, false, &s.timing)
		if !p.feasible(plan.Units, &s.timing, o) {
			return fmt.Errorf("scheduler: policy %s: %w (it knows no limit of segments or memory)", policy, ErrNoPlan)
		}
		plan.Cost = obj.Of(s.timing.LatencyMS, s.timing.EnergyMJ)
		plan.Bound, plan.Exact = plan.Cost, true
		s.beside.Units, s.beside.Stats = grow(s.beside.Units, n), Stats{}
		if err := s.minimise(p, o, Objective{Latency: 1}, &s.beside); err != nil {
			return err
		}
		plan.OptimalMS = s.beside.Cost
	default:
		_, err = ParsePolicy(string(policy))
	}
	if err != nil {
		return err
	}
	plan.Policy, plan.Mask = policy, o.mask()
	if o.Overlap && policy != Throughput {
		s.overlap(p, o, plan)
		return nil
	}
	p.finish(plan)
	return nil
}

// finish evaluates a plan whose Units are by position, lists its segments, and
// turns Units to the network's indices.
func (p *Problem) finish(plan *Plan) {
	p.Evaluate(plan.Units, true, &plan.Timing)
	plan.Segments = plan.Segments[:0]
	for i, u := range plan.Units {
		if i == 0 || u != plan.Units[i-1] {
			plan.Segments = append(plan.Segments, Segment{Unit: u, First: i})
		}
		sg := &plan.Segments[len(plan.Segments)-1]
		lt := &plan.Timing.Layers[i]
		sg.Last = i
		sg.Layers++
		sg.LatencyMS += lt.SwitchMS + lt.ConvertMS + lt.LayerMS
	}
	plan.Order = nil
	if p.Order != nil {
		plan.Order = slices.Clone(p.Order)
		byPos := slices.Clone(plan.Units)
		for i, l := range p.Order {
			plan.Units[l] = byPos[i]
		}
	}
}

// sets lists the sets of units from single ones to all three: the plans of
// smaller sets bound the search of greater ones.
var sets = [...]uint8{1 << units.CPU, 1 << units.GPU, 1 << units.NE,
	1<<units.CPU | 1<<units.NE, 1<<units.CPU | 1<<units.GPU, 1<<units.GPU | 1<<units.NE, 7}

// minimise finds the least-cost plan for a linear objective and fills plan's
// Units, Cost, Bound, Exact and Stats.
func (s *Solver) minimise(p *Problem, o *Options, obj Objective, plan *Plan) error {
	n := len(p.Layers)
	s.search.weigh(p, obj)
	for k := range s.assign {
		s.assign[k] = grow(s.assign[k], n)
	}
	var can uint8 // units that some layer may use
	must := uint8(0)
	for i := range p.Layers {
		a := p.Layers[i].Allowed
		can |= a
		if a&(a-1) == 0 {
			must |= a
		}
	}
	best, bound := math.Inf(1), math.Inf(1)
	try := func(a []units.Kind) {
		p.Evaluate(a, false, &s.timing)
		if c := obj.Of(s.timing.LatencyMS, s.timing.EnergyMJ); c < best && p.feasible(a, &s.timing, o) {
			best = c
			copy(plan.Units, a)
		}
	}
	// Start from the greedy plan: it is free, and bounds the search.
	p.greedyBy(s.search.fixed, s.assign[0])
	try(s.assign[0])
	for _, set := range sets {
		// A unit that no layer may use only adds its floor; a layer that runs
		// on one unit only must find it in the set.
		if set&^can != 0 || must&^set != 0 {
			continue
		}
		if set&(set-1) == 0 {
			ok := true
			for i := range p.Layers {
				ok = ok && p.Layers[i].Allowed&set != 0
			}
			if ok {
				for i := range s.assign[0] {
					s.assign[0][i] = single(set)
				}
				try(s.assign[0])
			}
			continue
		}
		c := s.search.constant(p, obj, set)
		f := s.search.run(p, o, set, best-c, s.assign[1])
		if f.ok {
			try(f.assign)
		}
		bound = min(bound, f.bound+c)
	}
	if math.IsInf(best, 1) {
		return s.noPlan(o)
	}
	plan.Cost, plan.Bound = best, min(best, bound)
	plan.Exact = bound >= best
	st := s.search.stats
	st.Labels += plan.Stats.Labels
	st.Searches += plan.Stats.Searches
	st.Widest = max(st.Widest, plan.Stats.Widest)
	plan.Stats = st
	return nil
}

func (s *Solver) noPlan(o *Options) error {
	return fmt.Errorf("scheduler: %w (%s)", ErrNoPlan, o.constraints())
}

func single(set uint8) units.Kind {
	for k := range NumUnits {
		if set>>k&1 != 0 {
			return units.Kind(k)
		}
	}
	return 0
}

func (o *Options) constraints() string {
	s := ""
	if o.MaxSegments > 0 {
		s = fmt.Sprintf("at most %d segments", o.MaxSegments)
	}
	for k, b := range o.MaxResident {
		if b > 0 {
			if s != "" {
				s += ", "
			}
			s += fmt.Sprintf("at most %d weight bytes on the %s", b, units.Kind(k))
		}
	}
	if s == "" {
		return "pins and supported units"
	}
	return s
}

// minimiseProduct finds the plan of least latency x energy, exactly. The
// product is quasi-concave where both are positive, so over a finite set of
// plans it is least at a corner of their convex hull, and each corner is the
// optimum of some weighted sum. The corners are found by bisection: between
// two of them the weights at which they tie are solved; either a new corner
// appears or the edge is proven. An edge is skipped when even the point where
// its two supporting lines meet is no better than the best product known.
func (s *Solver) minimiseProduct(p *Problem, o *Options, plan *Plan) error {
	type corner struct {
		t, e float64
		w    Objective // a weighted sum that it minimises
	}
	best := math.Inf(1)
	exact := true
	stats := Stats{}
	bestUnits := make([]units.Kind, len(p.Layers))
	solve := func(w Objective) (corner, error) {
		s.search.stats.Labels, s.search.stats.Searches, s.search.stats.Widest = 0, 0, 0
		plan.Stats = stats
		if err := s.minimise(p, o, w, plan); err != nil {
			return corner{}, err
		}
		stats = plan.Stats
		exact = exact && plan.Exact
		p.Evaluate(plan.Units, false, &s.timing)
		c := corner{s.timing.LatencyMS, s.timing.EnergyMJ, w}
		if v := c.t * c.e; v < best {
			best = v
			copy(bestUnits, plan.Units)
		}
		return c, nil
	}
	a, err := solve(Objective{Latency: 1})
	if err != nil {
		return err
	}
	b, err := solve(Objective{Energy: 1})
	if err != nil {
		return err
	}
	// Each supporting line w.(t,e) >= w.corner; where two meet bounds what
	// lies between.
	meet := func(a, b corner) float64 {
		det := a.w.Latency*b.w.Energy - b.w.Latency*a.w.Energy
		if det <= 0 {
			return math.Inf(1)
		}
		ca := a.w.Latency*a.t + a.w.Energy*a.e
		cb := b.w.Latency*b.t + b.w.Energy*b.e
		t := (ca*b.w.Energy - cb*a.w.Energy) / det
		e := (a.w.Latency*cb - b.w.Latency*ca) / det
		return t * e
	}
	type edge struct{ a, b corner }
	todo := []edge{{a, b}}
	for len(todo) > 0 {
		x := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		dt, de := x.b.t-x.a.t, x.a.e-x.b.e
		if dt <= 1e-12*x.a.t || de <= 1e-12*x.a.e || meet(x.a, x.b) >= best*(1-1e-12) {
			continue
		}
		// Equal weights in relative terms keep the sums well scaled.
		w := Objective{Latency: de / (de + dt), Energy: dt / (de + dt)}
		c, err := solve(w)
		if err != nil {
			return err
		}
		line := w.Latency*x.a.t + w.Energy*x.a.e
		if w.Latency*c.t+w.Energy*c.e >= line*(1-1e-12) {
			continue
		}
		todo = append(todo, edge{x.a, c}, edge{c, x.b})
	}
	copy(plan.Units, bestUnits)
	plan.Cost, plan.Bound, plan.Exact, plan.Stats = best, best, exact, stats
	return nil
}

// greedy gives each layer its fastest unit, transfers ignored.
func (p *Problem) greedy(dst []units.Kind) {
	for i := range p.Layers {
		l := &p.Layers[i]
		best := math.Inf(1)
		for k := range NumUnits {
			if l.Allowed>>k&1 != 0 {
				c := &l.Cost[k]
				if t := c.OverheadMS + max(c.BusyMS, c.WeightMS); t < best {
					best, dst[i] = t, units.Kind(k)
				}
			}
		}
	}
}

func (p *Problem) greedyBy(cost [][NumUnits]float64, dst []units.Kind) {
	for i := range p.Layers {
		best := math.Inf(1)
		for k := range NumUnits {
			if p.Layers[i].Allowed>>k&1 != 0 && cost[i][k] < best {
				best, dst[i] = cost[i][k], units.Kind(k)
			}
		}
	}
}
