package scheduler

import (
	"github.com/triune-sim/triune/units"
)

// LayerTime is what one layer takes within a plan, in ms.
type LayerTime struct {
	StartMS   float64 // since the request began, before the switch
	SwitchMS  float64 // moving execution to the layer's unit
	ConvertMS float64 // converting inputs that another unit produced
	StallMS   float64 // waiting for weights
	LayerMS   float64 // overhead + busy + stall
	EnergyMJ  float64 // dynamic energy, and static power over all the above
}

// Timing is what a plan takes: its parts and their sums. LatencyMS =
// HandlingMS + FloorMS + LayersMS + TransferMS, and EnergyMJ = the layers'
// energies + FloorMJ + IdleMJ.
type Timing struct {
	LatencyMS, EnergyMJ float64

	HandlingMS, FloorMS, LayersMS, TransferMS float64
	FloorMJ, IdleMJ                           float64

	BusyMS        [NumUnits]float64 // time of the unit's layers and transfers to it
	ResidentBytes [NumUnits]int64   // weights resident on each unit
	Used          uint8             // bit k: unit k runs a layer
	Runs          int               // runs of consecutive layers on one unit
	Layers        []LayerTime       // by position; nil if not asked for
}

// Evaluate is the one time model of a serial plan: assign gives each layer's
// unit, by position. Every policy is judged by it.
//
// The request takes the handling time, the floor of every unit used, and then
// the layers one after the other:
//
//   - when the unit differs from the previous layer's, SwitchMS;
//   - for each input tensor that its producer's unit wrote and this unit has
//     not received yet, ConvertMS (once per tensor and destination unit; graph
//     inputs are free, being part of floors and handling, as is handing the
//     outputs back);
//   - OverheadMS + BusyMS + stall, where the stall follows the weight stream's
//     recurrence (units.Stream). The stream starts empty at the first layer of
//     every segment: another unit's segment ends the run of prefetching.
//
// Energy is the dynamic energy of the layers, the static power of each unit
// over its layers, over the transfers to it and over its floor, and the idle
// power over the whole request. W x ms = mJ.
//
// With a fixed assignment every figure is monotone in every cost and rate, so
// the minimum over assignments is too.
//
// Evaluate fills t, reusing t.Layers when layers is true.
func (p *Problem) Evaluate(assign []units.Kind, layers bool, t *Timing) {
	ls := t.Layers
	*t = Timing{HandlingMS: p.HandlingMS}
	if layers {
		t.Layers = grow(ls, len(p.Layers))
	}
	for _, u := range assign {
		t.Used |= 1 << u
	}
	for k := range NumUnits {
		if t.Used>>k&1 != 0 {
			t.FloorMS += p.Units[k].FloorMS
			t.FloorMJ += p.Units[k].FloorMS * p.Units[k].StaticWatts
		}
	}
	var layerMJ float64
	var stream units.Stream
	for i := range p.Layers {
		l := &p.Layers[i]
		u := assign[i]
		c := &l.Cost[u]
		var lt LayerTime
		lt.StartMS = t.HandlingMS + t.FloorMS + t.LayersMS + t.TransferMS
		if i == 0 || assign[i-1] != u {
			t.Runs++
			stream = units.Stream{}
			if i > 0 {
				lt.SwitchMS = p.SwitchMS[assign[i-1]][u]
			}
		}
		for _, ei := range l.Inputs {
			e := &p.Edges[ei]
			if e.Producer < 0 {
				continue
			}
			from := assign[e.Producer]
			if from == u {
				continue
			}
			first := true
			for _, other := range e.Consumers {
				if other >= i {
					break
				}
				if assign[other] == u {
					first = false
					break
				}
			}
			if first {
				lt.ConvertMS += e.ConvertMS[from][u]
			}
		}
		lt.StallMS = stream.Step(c.BusyMS, c.WeightMS, p.Units[u].CapMS)
		lt.LayerMS = c.OverheadMS + c.BusyMS + lt.StallMS
		move := lt.SwitchMS + lt.ConvertMS
		lt.EnergyMJ = c.EnergyMJ + p.Units[u].StaticWatts*(lt.LayerMS+move)
		t.LayersMS += lt.LayerMS
		t.TransferMS += move
		t.BusyMS[u] += lt.LayerMS + move
		t.ResidentBytes[u] += c.ResidentBytes
		layerMJ += lt.EnergyMJ
		if layers {
			t.Layers[i] = lt
		}
	}
	t.LatencyMS = t.HandlingMS + t.FloorMS + t.LayersMS + t.TransferMS
	t.IdleMJ = p.IdleWatts * t.LatencyMS
	t.EnergyMJ = layerMJ + t.FloorMJ + t.IdleMJ
}

// feasible reports whether a plan keeps to the constraints of the options and
// to the layers' allowed units.
func (p *Problem) feasible(assign []units.Kind, t *Timing, o *Options) bool {
	for i, u := range assign {
		if p.Layers[i].Allowed>>u&1 == 0 {
			return false
		}
	}
	if o.MaxSegments > 0 && t.Runs > o.MaxSegments {
		return false
	}
	for k, limit := range o.MaxResident {
		if limit > 0 && t.ResidentBytes[k] > limit {
			return false
		}
	}
	return true
}
