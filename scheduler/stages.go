package scheduler

import (
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// Stage is what one segment of a plan asks of its unit: the grain at which
// requests of several models take turns.
type Stage struct {
	Unit units.Kind
	// MS is the time on an otherwise idle device: the segment's layers, the
	// transfers before them, and the floor where the unit is used for the
	// first time.
	MS        float64
	DRAMBytes float64 // traffic of activations and weights, spread evenly over MS
	EnergyMJ  float64 // dynamic energy; static power comes on top
}

// Stages cuts a plan into its segments. HandlingMS + the sum of the stages'
// MS is the plan's latency. For a plan that overlaps units, the stages are
// those of its serial optimum.
func (p *Plan) Stages(net *model.Network, m *units.Machine) []Stage {
	if p.Overlap != nil {
		return p.Overlap.Serial.Stages(net, m)
	}
	out := make([]Stage, len(p.Segments))
	var seen [NumUnits]bool
	var est units.Estimate
	for i, sg := range p.Segments {
		u := m.Units[sg.Unit]
		rates := u.Rates()
		st := Stage{Unit: sg.Unit, MS: sg.LatencyMS}
		if !seen[sg.Unit] {
			seen[sg.Unit] = true
			st.MS += rates.FloorMS
		}
		for pos := sg.First; pos <= sg.Last; pos++ {
			u.Estimate(net.Layers[p.Position(pos)], &est)
			st.EnergyMJ += est.EnergyMJ
			st.DRAMBytes += float64(est.DRAMBytes + est.WeightBytes)
		}
		out[i] = st
	}
	return out
}
