package calibrate

import (
	"slices"

	"github.com/triune-sim/triune/units"
)

// DefaultPlan is the plan that the catalogue was fitted by: what all chips
// share ("base"), what a generation shares, and at most eight figures of a
// chip's own. Everything else in the catalogue comes from a source or is
// marked as interpolated.
func DefaultPlan() Plan {
	return Plan{
		{Name: "Neural Engine", Units: []units.Kind{units.NE}, Vars: []Var{
			{Entry: "base", Path: "ne.depthwise"},
			{Entry: "base", Path: "ne.border_passes"},
			{Entry: "base", Path: "ne.store_mb"},
			{Entry: "base", Path: "ne.spill_gbs"},
			{Entry: "base", Path: "ne.int8_factor"},
			{Entry: "a-2022", Path: "ne.floor_ms"},
			{Entry: "a-2022", Path: "ne.prefetch_mb"},
			{Entry: "a14", Path: "ne.floor_ms"},
			{Entry: "a15", Path: "ne.floor_ms"},
			{Entry: "iphone-11-pro", Path: "handling_ms"},
			{Entry: "a-2018", Path: "ne.efficiency"},
			{Entry: "a-2018", Path: "ne.spill_gbs"},
			{Entry: "a-2018", Path: "ne.stream_gbs"},
			{Entry: "m1", Path: "ne.spill_gbs"},
			{Entry: "m1-max", Path: "ne.spill_gbs"},
			{Entry: "m2-max", Path: "ne.spill_gbs"},
		}},
		{Name: "CPU", Units: []units.Kind{units.CPU}, Vars: []Var{
			{Entry: "base", Path: "cpu.winograd"},
			{Entry: "base", Path: "cpu.k_half"},
			{Entry: "base", Path: "cpu.layer_us"},
			{Entry: "mac", Path: "cpu.efficiency"},
			{Entry: "mac", Path: "cpu.layer_us"},
			{Entry: "a-2018", Path: "cpu.efficiency"},
			{Entry: "a-2018", Path: "cpu.vector_gf"},
			{Entry: "a10", Path: "cpu.efficiency"},
			{Entry: "a10", Path: "cpu.vector_gf"},
		}},
		{Name: "GPU", Units: []units.Kind{units.GPU}, Vars: []Var{
			{Entry: "base", Path: "gpu.depthwise"},
			{Entry: "mac", Path: "gpu.efficiency"},
			{Entry: "mac", Path: "gpu.layer_us"},
			{Entry: "early", Path: "gpu.efficiency"},
			{Entry: "early", Path: "gpu.vector_gops"},
			{Entry: "a-2018", Path: "gpu.floor_ms"},
			{Entry: "a10", Path: "gpu.floor_ms"},
		}},
	}
}

// own lists, by unit, the figures that a chip may have of its own, in the order
// in which measurements fix them.
var own = [units.NumKinds][]string{
	units.CPU: {"cpu.efficiency", "cpu.layer_us"},
	units.GPU: {"gpu.efficiency", "gpu.layer_us"},
	units.NE:  {"ne.floor_ms", "ne.spill_gbs", "ne.efficiency"},
}

// OwnPlan is the plan for a few measurements of someone's own: for each chip
// and unit that the set measures, one figure for every two rows, of the chip
// alone. What other chips share does not move.
func (s *Set) OwnPlan() Plan {
	var plan Plan
	for k, paths := range own {
		rows := map[string]int{}
		var chips []string
		for _, x := range s.Samples {
			if int(x.Unit) == k {
				if rows[x.Chip]++; rows[x.Chip] == 1 {
					chips = append(chips, x.Chip)
				}
			}
		}
		slices.Sort(chips)
		b := Block{Name: units.Kind(k).String(), Units: []units.Kind{units.Kind(k)}}
		for _, c := range chips {
			for _, p := range paths[:min(len(paths), (rows[c]+1)/2)] {
				b.Vars = append(b.Vars, Var{Entry: c, Path: p, Own: true})
			}
		}
		if len(b.Vars) > 0 {
			plan = append(plan, b)
		}
	}
	return plan
}
