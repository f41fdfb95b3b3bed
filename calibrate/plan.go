package calibrate

import "github.com/triune-sim/triune/units"

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
