package scheduler

import (
	"fmt"
	"math"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/units"
)

// Meta is what a prediction says of the model and its package that neither
// the network nor the machine knows.
type Meta struct {
	Model, Scheme    string
	PackageBytes     int64   // size of the compressed package
	CompressionRatio float64 // fp16 package / compressed package
	Params           int64
}

// NewPrediction writes a plan as the document that --json prints. It leaves
// out the reasons of layers; [Explainer.Reasons] adds them.
func NewPrediction(net *model.Network, m *units.Machine, plan *Plan, meta Meta) *result.Prediction {
	mem := PlanMemory(net, m, plan)
	r := &result.Prediction{
		Model: meta.Model, Device: m.Device, Chip: m.Chip, OS: m.OS, Scheme: meta.Scheme,
		ComputeUnits: plan.Mask.String(), Policy: string(plan.Policy),
		LatencyMS: plan.LatencyMS, EnergyMJ: plan.EnergyMJ,
		PackageBytes: meta.PackageBytes, CompressionRatio: meta.CompressionRatio, Params: meta.Params,
		PeakMemoryBytes: mem.Peak(), WeightMemoryBytes: mem.Weights(), ActivationMemoryBytes: mem.ActivationBytes,
		HandlingMS: plan.HandlingMS, FloorMS: plan.FloorMS, LayersMS: plan.LayersMS, TransferMS: plan.TransferMS,
		FloorEnergyMJ: plan.FloorMJ, IdleEnergyMJ: plan.IdleMJ,
		Exact: plan.Exact, GapPct: 100 * plan.Gap(), Overlap: overlapResult(plan), Pipeline: pipelineResult(plan),
		Units: []result.UnitUse{}, Segments: []result.Segment{}, Layers: make([]result.Layer, len(net.Layers)),
	}
	var use [NumUnits]result.UnitUse
	for k := range NumUnits {
		use[k].Unit = units.Kind(k).String()
		use[k].BusyMS = plan.BusyMS[k]
		use[k].ResidentBytes = plan.ResidentBytes[k]
		if plan.Used>>k&1 != 0 {
			rates := m.Units[k].Rates()
			use[k].FloorMS = rates.FloorMS
			use[k].EnergyMJ = rates.FloorMS * rates.StaticWatts
		}
	}
	load := m.Load.FixedMS
	if m.Load.ReadGBs > 0 {
		load += float64(meta.PackageBytes) / (m.Load.ReadGBs * 1e6)
	}
	compile := 0.0
	var est units.Estimate
	for i := range net.Layers {
		li := plan.Position(i)
		l := net.Layers[li]
		u := plan.Units[li]
		m.Units[u].Estimate(l, &est)
		lt := &plan.Timing.Layers[i]
		out := &r.Layers[i]
		*out = result.Layer{
			Name: l.Name, Op: string(l.Op), Kind: l.Kind.String(), Unit: u.String(),
			LatencyMS: lt.LayerMS, ComputeMS: min(est.ComputeMS, est.BusyMS), OverheadMS: est.OverheadMS,
			TransferMS: lt.SwitchMS + lt.ConvertMS, StartMS: lt.StartMS,
			ActivationMS: est.ActivationMS, WeightMS: est.WeightMS, ExpandMS: est.ExpandMS, StallMS: lt.StallMS,
			Bound: est.Bound.String(), MACs: l.MACs,
			WeightBytes: est.WeightBytes, InputBytes: est.InputBytes, OutputBytes: est.OutputBytes,
			DRAMBytes: est.DRAMBytes, ResidentBytes: est.ResidentBytes, EnergyMJ: lt.EnergyMJ,
			SupportedUnits: supported(l, m, plan.Mask), Fused: l.Fused,
		}
		if out.Fused == nil {
			out.Fused = []string{}
		}
		out.MemoryMS = max(0, out.LatencyMS-out.ComputeMS-out.OverheadMS)
		if lt.StallMS > max(est.BusyMS, est.OverheadMS) {
			out.Bound = units.BoundWeight.String()
		}
		r.MACs += l.MACs
		use[u].Layers++
		use[u].MACs += l.MACs
		use[u].EnergyMJ += lt.EnergyMJ
		compile += m.Load.CompileMS[u]
		if m.Load.ExpandGBs > 0 && est.ResidentBytes > l.WeightBytes {
			load += float64(est.ResidentBytes) / (m.Load.ExpandGBs * 1e6)
		}
	}
	r.LoadMS, r.LoadCachedMS = load+compile, load
	for k := range NumUnits {
		if plan.Used>>k&1 != 0 {
			r.Units = append(r.Units, use[k])
		}
	}
	for _, s := range plan.Segments {
		r.Segments = append(r.Segments, result.Segment{
			Unit: s.Unit.String(), Layers: s.Layers, LatencyMS: s.LatencyMS,
			StartMS: plan.Timing.Layers[s.First].StartMS,
			First:   net.Layers[plan.Position(s.First)].Name, Last: net.Layers[plan.Position(s.Last)].Name,
		})
	}
	low, high, notes := interval(net, m, plan)
	r.LatencyP10MS, r.LatencyP90MS, r.Notes = r.LatencyMS*low, r.LatencyMS*high, notes
	r.Summary = Summary(net, plan)
	r.OptimalMS = plan.OptimalMS
	if r.OptimalMS == 0 && plan.Overlap == nil && plan.Pipeline == nil && plan.Exact && plan.Policy == Optimal {
		r.OptimalMS = plan.LatencyMS
	}
	return r
}

func overlapResult(plan *Plan) *result.Overlap {
	o := plan.Overlap
	if o == nil {
		return nil
	}
	return &result.Overlap{SerialMS: o.SerialMS, BoundMS: o.BoundMS, GapPct: o.GapPct(plan.LatencyMS), SavedMS: o.SavedMS,
		Strategy: o.Strategy, Schedules: o.Tried}
}

func pipelineResult(plan *Plan) *result.Pipeline {
	p := plan.Pipeline
	if p == nil {
		return nil
	}
	r := &result.Pipeline{RequestsPerS: p.RequestsPerS, PeriodMS: p.PeriodMS, BoundMS: p.BoundMS, GapPct: p.GapPct(),
		Bottleneck: ResourceName(p.Bottleneck), InFlight: p.InFlight, Strategy: p.Strategy, ContiguousPeriodMS: p.ContiguousMS,
		LatencyPlanMS: p.Latency.LatencyMS, LatencyPlanPeriodMS: p.LatencyPeriodMS}
	for i, l := range p.LoadMS {
		r.Loads = append(r.Loads, result.Load{Resource: ResourceName(i), LoadMS: l})
	}
	r.MixPeriodMS, r.MixBoundMS = p.MixPeriodMS, p.MixBoundMS
	for _, m := range p.Mix {
		var count [NumUnits]int
		for _, u := range m.Units {
			count[u]++
		}
		part := result.MixPart{Share: m.Share, LatencyMS: m.LatencyMS, Layers: map[string]int{}}
		for k, n := range count {
			if n > 0 {
				part.Layers[units.Kind(k).String()] = n
			}
		}
		r.Mix = append(r.Mix, part)
	}
	return r
}

// interval mixes the spreads of the units that a plan uses by the time that
// each of them is busy. A machine without spreads gives an interval of a
// point. Where layers take time of which no measurement holds the kind (see
// [units.Measured]), the interval widens, in logarithms, by their share of the
// time: to twice the width when all are such. A note says so from a fifth on.
func interval(net *model.Network, m *units.Machine, plan *Plan) (low, high float64, notes []string) {
	var sum float64
	for k := range NumUnits {
		if plan.Used>>k&1 == 0 {
			continue
		}
		s := m.Spread[k]
		if s.Low == 0 && s.High == 0 {
			s.Low, s.High = 1, 1
		}
		w := plan.BusyMS[k] + m.Units[k].Rates().FloorMS
		sum += w
		low += w * s.Low
		high += w * s.High
		if s.Note != "" {
			notes = append(notes, s.Note)
		}
	}
	if sum <= 0 {
		return 1, 1, notes
	}
	low, high = low/sum, high/sum
	var all, unseen float64
	var first *model.Layer
	for i := range plan.Timing.Layers {
		l, ms := net.Layers[plan.Position(i)], plan.Timing.Layers[i].LayerMS
		all += ms
		if !units.Measured(l) {
			unseen += ms
			if first == nil {
				first = l
			}
		}
	}
	if share := unseen / max(all, 1e-12); share > 0 && all > 0 {
		low, high = math.Pow(low, 1+share), math.Pow(high, 1+share)
		if share >= 0.2 {
			notes = append(notes, fmt.Sprintf("%.0f %% of the time is in layers of kinds that no calibration measurement holds (%s, first %q): the interval is widened",
				100*share, first.Kind, first.Name))
		}
	}
	return low, high, notes
}

func supported(l *model.Layer, m *units.Machine, mask units.Mask) []string {
	out := make([]string, 0, NumUnits)
	for k := range NumUnits {
		if u := m.Units[k]; u != nil && mask.Has(units.Kind(k)) && u.Support(l).OK {
			out = append(out, units.Kind(k).String())
		}
	}
	return out
}

// Summary is a plan in one sentence: where it runs, what leaves the unit that
// does most of the work, and what that costs.
func Summary(net *model.Network, plan *Plan) string {
	n := len(plan.Units)
	if n == 0 {
		return "the network has no layers"
	}
	var count [NumUnits]int
	for _, u := range plan.Units {
		count[u]++
	}
	main := units.NE
	if count[main] == 0 {
		main = units.GPU
	}
	if count[main] == 0 {
		main = units.CPU
	}
	if count[main] == n {
		return fmt.Sprintf("all %d layers run on the %s, %.3g ms", n, main, plan.LatencyMS) + left(plan)
	}
	// What leaves, by operator and unit, in order of first appearance.
	type group struct {
		op   model.Op
		unit units.Kind
		n    int
	}
	var groups []group
	away := 0.0
	for i := range n {
		li := plan.Position(i)
		u := plan.Units[li]
		lt := &plan.Timing.Layers[i]
		away += lt.SwitchMS + lt.ConvertMS
		if u == main {
			continue
		}
		away += lt.LayerMS
		op := net.Layers[li].Op
		found := false
		for g := range groups {
			if groups[g].op == op && groups[g].unit == u {
				groups[g].n++
				found = true
			}
		}
		if !found {
			groups = append(groups, group{op, u, 1})
		}
	}
	s := fmt.Sprintf("%d of %d layers leave the %s: ", n-count[main], n, main)
	const show = 5
	for g, x := range groups {
		if g == show {
			s += fmt.Sprintf(" and %d other kinds", len(groups)-show)
			break
		}
		if g > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%d %s (%s)", x.n, x.op, x.unit)
	}
	return s + fmt.Sprintf("; they and the moves cost %.3g ms of %.3g", away, plan.LatencyMS) + left(plan)
}

// left says what a plan is beside the others that are known: how many ms a
// policy that minimises nothing leaves on the table, what overlap gains, and
// how a stream of requests fares.
func left(plan *Plan) string {
	switch {
	case plan.Overlap != nil:
		o := plan.Overlap
		if d := o.SerialMS - plan.LatencyMS; d > 1e-9*plan.LatencyMS {
			return fmt.Sprintf("; running branches at once saves %.3g ms of %.3g (no schedule takes less than %.3g)", d, o.SerialMS, o.BoundMS)
		}
		return fmt.Sprintf("; running branches at once gains nothing (no schedule takes less than %.3g ms)", o.BoundMS)
	case plan.Pipeline != nil:
		p := plan.Pipeline
		s := fmt.Sprintf("; a stream of requests runs at %.4g per s, bound by the %s (%.4g with the plan of least latency, %.3g ms)",
			p.RequestsPerS, ResourceName(p.Bottleneck), 1e3/p.LatencyPeriodMS, p.Latency.LatencyMS)
		if len(p.Mix) > 1 {
			s += fmt.Sprintf("; sending requests by %d plans in turn reaches %.4g", len(p.Mix), 1e3/p.MixPeriodMS)
		}
		return s
	case plan.OptimalMS > 0:
		if d := plan.LatencyMS - plan.OptimalMS; d > 1e-9*plan.LatencyMS {
			return fmt.Sprintf("; the optimal plan takes %.3g ms: %.3g ms are left on the table", plan.OptimalMS, d)
		}
		return "; this is also the optimal plan's latency"
	}
	return ""
}
