package scheduler

import (
	"fmt"
	"math"
	"strings"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/units"
)

// Explainer answers questions about one plan. Nothing is computed before it is
// asked for. It is not safe for concurrent use.
type Explainer struct {
	net  *model.Network
	m    *units.Machine
	plan *Plan
	opts Options

	problem Problem // without pins and prohibitions: prices every supported unit
	assign  []units.Kind
	timing  Timing
	ms, mj  float64 // of the plan, run serially
	solver  Solver
}

// NewExplainer prepares to explain a plan that was made with the options.
func NewExplainer(net *model.Network, m *units.Machine, plan *Plan, o Options) (*Explainer, error) {
	e := &Explainer{net: net, m: m, plan: plan, opts: o}
	free := o
	free.Pins, free.Forbid = nil, nil
	if err := e.problem.Build(net, m, &free); err != nil {
		return nil, err
	}
	if plan.Order != nil {
		e.problem.Order = plan.Order
		e.problem.reorder(&e.solver.order)
	}
	e.assign = make([]units.Kind, len(plan.Units))
	for i := range e.assign {
		e.assign[i] = plan.Units[plan.Position(i)]
	}
	// Alternatives are priced as serial plans, and so is the plan itself.
	e.problem.Evaluate(e.assign, false, &e.timing)
	e.ms, e.mj = e.timing.LatencyMS, e.timing.EnergyMJ
	return e, nil
}

// build makes the problem under options in the plan's own order, so that
// positions agree.
func (e *Explainer) build(o *Options) (*Problem, error) {
	p := &e.solver.problem
	if err := p.Build(e.net, e.m, o); err != nil {
		return nil, err
	}
	if e.plan.Order != nil {
		p.Order = e.plan.Order
		p.reorder(&e.solver.order)
	}
	return p, nil
}

// alone is what a layer takes on a unit by itself, its weights waited for.
func (e *Explainer) alone(pos int, u units.Kind) float64 {
	c := &e.problem.Layers[pos].Cost[u]
	return c.OverheadMS + max(c.BusyMS, c.WeightMS)
}

func (e *Explainer) aloneMJ(pos int, u units.Kind) float64 {
	return e.problem.Layers[pos].Cost[u].EnergyMJ + e.problem.Units[u].StaticWatts*e.alone(pos, u)
}

// moved returns latency and energy of the plan with one layer moved.
func (e *Explainer) moved(pos int, u units.Kind) (ms, mj float64) {
	was := e.assign[pos]
	e.assign[pos] = u
	e.problem.Evaluate(e.assign, false, &e.timing)
	e.assign[pos] = was
	return e.timing.LatencyMS, e.timing.EnergyMJ
}

// Reason says in one sentence why the layer at a position runs where it does.
func (e *Explainer) Reason(pos int) string {
	li := e.plan.Position(pos)
	l := e.net.Layers[li]
	u := e.assign[pos]
	if pin, ok := lastMatch(e.opts.Pins, l); ok {
		return "pinned by " + pin.String()
	}
	mask := e.plan.Mask
	var can, cannot []units.Kind
	why := ""
	for k := range units.Kind(NumUnits) {
		un := e.m.Units[k]
		if un == nil || !mask.Has(k) {
			continue
		}
		s := un.Support(l)
		forbidden := false
		for _, f := range e.opts.Forbid {
			forbidden = forbidden || f.Unit == k && f.matches(l)
		}
		switch {
		case !s.OK:
			cannot = append(cannot, k)
			why = join(why, "; ", "the "+k.String()+" refuses it: "+s.Reason)
		case forbidden:
			cannot = append(cannot, k)
			why = join(why, "; ", "the "+k.String()+" is forbidden")
		default:
			can = append(can, k)
			if k == u && s.Reason != "" {
				why = join(why, "; ", s.Reason)
			}
		}
	}
	if len(can) == 1 {
		if len(cannot) == 0 {
			return join("the only unit of the mask", "; ", why)
		}
		return why
	}
	best := u
	for _, k := range can {
		if e.alone(pos, k) < e.alone(pos, best) {
			best = k
		}
	}
	if best == u {
		return join(why, "; ", e.comparison(pos, u, can))
	}
	ms, mj := e.moved(pos, best)
	saves := e.alone(pos, u) - e.alone(pos, best)
	moves := ms - e.ms + saves
	switch {
	case e.plan.Policy == Throughput && ms < e.ms:
		return join(why, "; ", fmt.Sprintf("one request alone would be %.3g ms faster with it on the %s, but a stream gains from sharing the work", e.ms-ms, best))
	case e.plan.Overlap != nil && ms < e.ms:
		return join(why, "; ", fmt.Sprintf("run in turn it would be %.3g ms faster on the %s, but here it runs beside other branches", e.ms-ms, best))
	case ms >= e.ms:
		return join(why, "; ", fmt.Sprintf("moving it to the %s costs %.3g ms of switches and conversions and saves %.3g ms", best, moves, saves))
	case mj > e.mj:
		return join(why, "; ", fmt.Sprintf("the %s would be %.3g ms faster but take %.3g mJ more", best, e.ms-ms, mj-e.mj))
	case e.plan.Policy == CoreML:
		return join(why, "; ", fmt.Sprintf("a rule of Core ML keeps it here; the %s would save %.3g ms", best, e.ms-ms))
	}
	return join(why, "; ", fmt.Sprintf("the %s would save %.3g ms, but a limit or the objective keeps it here", best, e.ms-ms))
}

// comparison says by how much the chosen unit is the fastest.
func (e *Explainer) comparison(pos int, u units.Kind, can []units.Kind) string {
	s := fmt.Sprintf("fastest here: %s %.3g ms", u, e.alone(pos, u))
	for _, k := range can {
		if k != u {
			s += fmt.Sprintf(", %s %.3g", k, e.alone(pos, k))
		}
	}
	return s
}

func join(a, sep, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + sep + b
}

func lastMatch(pins []Pin, l *model.Layer) (Pin, bool) {
	for i := len(pins) - 1; i >= 0; i-- {
		if pins[i].matches(l) {
			return pins[i], true
		}
	}
	return Pin{}, false
}

// Reasons fills the reason of every layer of a prediction of the same plan.
func (e *Explainer) Reasons(r *result.Prediction) {
	for i := range r.Layers {
		r.Layers[i].Reason = e.Reason(i)
	}
}

// Layer explains the layer at a position.
func (e *Explainer) Layer(pos int) result.LayerExplanation {
	li := e.plan.Position(pos)
	l := e.net.Layers[li]
	lt := &e.plan.Timing.Layers[pos]
	x := result.LayerExplanation{Name: l.Name, Op: string(l.Op), Unit: e.assign[pos].String(),
		Reason: e.Reason(pos), SwitchMS: lt.SwitchMS, ConvertMS: lt.ConvertMS}
	var est units.Estimate
	for k := range units.Kind(NumUnits) {
		un := e.m.Units[k]
		if un == nil || !e.plan.Mask.Has(k) {
			continue
		}
		s := un.Support(l)
		c := result.UnitChoice{Unit: k.String(), Chosen: k == e.assign[pos], Supported: s.OK, Note: s.Reason}
		if s.OK {
			un.Estimate(l, &est)
			c.Bound = est.Bound.String()
			c.LayerMS, c.EnergyMJ = e.alone(pos, k), e.aloneMJ(pos, k)
			c.PlanMS, _ = e.moved(pos, k)
			c.MoveMS = c.PlanMS - e.ms - (c.LayerMS - e.alone(pos, e.assign[pos]))
			if c.Chosen {
				c.MoveMS = 0
			}
		}
		x.Choices = append(x.Choices, c)
	}
	return x
}

// Find returns the positions of the layers whose name, operator or kind fits
// a pattern ("" fits all).
func (e *Explainer) Find(pattern string) []int {
	var out []int
	for i := range e.assign {
		if pattern == "" || (Pin{Pattern: pattern}).matches(e.net.Layers[e.plan.Position(i)]) {
			out = append(out, i)
		}
	}
	return out
}

// Explain explains the whole plan, with the layers that fit a pattern.
func (e *Explainer) Explain(pattern string) (*result.Explanation, error) {
	pos := e.Find(pattern)
	if pattern != "" && len(pos) == 0 {
		return nil, fmt.Errorf("scheduler: no layer's name, operator or kind fits %q", pattern)
	}
	x := &result.Explanation{Device: e.m.Device, Policy: string(e.plan.Policy), Summary: Summary(e.net, e.plan),
		LatencyMS: e.ms, EnergyMJ: e.mj,
		RunnerUp: e.RunnerUp(), Alternatives: e.Alternatives(), Layers: []result.LayerExplanation{}}
	for _, i := range pos {
		x.Layers = append(x.Layers, e.Layer(i))
	}
	if e.net.Graph != nil {
		x.Model = e.net.Graph.Name
	}
	return x, nil
}

// alternative describes another plan; units are by position.
func (e *Explainer) alternative(name string, a []units.Kind) result.Alternative {
	e.problem.Evaluate(a, false, &e.timing)
	alt := result.Alternative{Name: name, LatencyMS: e.timing.LatencyMS, EnergyMJ: e.timing.EnergyMJ,
		DeltaMS: e.timing.LatencyMS - e.ms}
	var parts []string
	for i := 0; i < len(a); {
		if a[i] == e.assign[i] {
			i++
			continue
		}
		j := i
		for j+1 < len(a) && a[j+1] == a[i] && a[j+1] != e.assign[j+1] {
			j++
		}
		name := e.net.Layers[e.plan.Position(i)].Name
		if j > i {
			name += " to " + e.net.Layers[e.plan.Position(j)].Name
		}
		parts = append(parts, name+" on the "+a[i].String())
		alt.Moves += j - i + 1
		i = j + 1
	}
	if len(parts) > 4 {
		parts = append(parts[:3], fmt.Sprintf("%d more runs of layers", len(parts)-3))
	}
	alt.Detail = strings.Join(parts, ", ")
	return alt
}

// Alternatives returns the plans of the other policies and of every single
// unit, under the same mask and pins where the policy knows them.
func (e *Explainer) Alternatives() []result.Alternative {
	out := []result.Alternative{}
	var plan Plan
	for _, pol := range []Policy{Optimal, Energy, CoreML, Greedy} {
		if pol == e.plan.Policy {
			continue
		}
		o := e.opts
		o.Policy, o.Objective, o.Overlap = pol, Objective{}, false
		p, err := e.build(&o)
		if err == nil {
			err = e.solver.SolveProblem(p, &o, &plan)
		}
		if err != nil {
			out = append(out, result.Alternative{Name: string(pol), Detail: err.Error()})
			continue
		}
		plan.Order = e.plan.Order
		out = append(out, e.alternative(string(pol), positions(&plan)))
	}
	a := make([]units.Kind, len(e.assign))
	ruled, err := e.build(&e.opts)
	for k := range units.Kind(NumUnits) {
		if e.m.Units[k] == nil || !e.plan.Mask.Has(k) {
			continue
		}
		can, allowed := true, err == nil
		for i := range e.problem.Layers {
			a[i] = k
			can = can && e.problem.Layers[i].Allowed>>k&1 != 0
			allowed = allowed && ruled.Layers[i].Allowed>>k&1 != 0
		}
		if can {
			alt := e.alternative("all on the "+k.String(), a)
			if !allowed {
				alt.Detail = join("against the pins or prohibitions", "; ", alt.Detail)
			}
			out = append(out, alt)
		}
	}
	return out
}

// positions returns a plan's units by position.
func positions(p *Plan) []units.Kind {
	out := make([]units.Kind, len(p.Units))
	for i := range out {
		out[i] = p.Units[p.Position(i)]
	}
	return out
}

// RunnerUp returns the best plan, by the plan's own objective, that differs in
// at least one layer; nil when there is none, or when the policy minimises
// nothing. It is exact: the search keeps apart the labels that differ already
// and those that do not yet.
func (e *Explainer) RunnerUp() *result.Alternative {
	obj := e.opts.Objective.orLatency()
	switch e.plan.Policy {
	case Energy:
		obj = Objective{Energy: 1}
	case Optimal, Pinned:
	default:
		return nil
	}
	o := e.opts
	p, err := e.build(&o)
	if err != nil {
		return nil
	}
	second := e.solver.second(p, &o, obj, e.assign)
	if second == nil {
		return nil
	}
	alt := e.alternative("runner-up", second)
	return &alt
}

// second returns the best plan that is not the given one, by position; nil if
// there is none.
func (v *Solver) second(p *Problem, o *Options, obj Objective, plan []units.Kind) []units.Kind {
	s := &v.search
	s.prepare(p)
	s.weigh(p, obj)
	best := math.Inf(1)
	var found []units.Kind
	try := func(a []units.Kind) {
		p.Evaluate(a, false, &v.timing)
		if c := obj.Of(v.timing.LatencyMS, v.timing.EnergyMJ); c < best && p.feasible(a, &v.timing, o) {
			best, found = c, append(found[:0], a...)
		}
	}
	// Single moves give a first bound.
	a := append([]units.Kind(nil), plan...)
	for i, was := range plan {
		if i == 4096 {
			break // enough for a bound; all of them take time in the square
		}
		for k := range units.Kind(NumUnits) {
			if k != was && p.Layers[i].Allowed>>k&1 != 0 {
				a[i] = k
				try(a)
			}
		}
		a[i] = was
	}
	s.avoid = plan
	defer func() { s.avoid = nil }()
	for _, set := range sets {
		c := s.constant(p, obj, set)
		if f := s.run(p, o, set, best-c, a); f.ok {
			try(f.assign)
		}
	}
	return found
}
