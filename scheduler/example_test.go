package scheduler_test

import (
	"fmt"

	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// A problem can be made by hand, from numbers alone: two layers that the
// Neural Engine runs well, and one between them that it does not run.
func Example() {
	all, noNE := uint8(units.All), uint8(units.CPUAndGPU)
	slow, fast := scheduler.Cost{BusyMS: 1}, scheduler.Cost{BusyMS: 0.1}
	p := &scheduler.Problem{
		Layers: []scheduler.Layer{
			{Allowed: all, Cost: [scheduler.NumUnits]scheduler.Cost{slow, slow, fast}, Inputs: []int{0}, Outputs: []int{1}},
			{Allowed: noNE, Cost: [scheduler.NumUnits]scheduler.Cost{fast, fast, {}}, Inputs: []int{1}, Outputs: []int{2}},
			{Allowed: all, Cost: [scheduler.NumUnits]scheduler.Cost{slow, slow, fast}, Inputs: []int{2}, Outputs: []int{3}},
		},
		Edges: []scheduler.Edge{{Producer: -1, Consumers: []int{0}}, {Producer: 0, Consumers: []int{1}}, {Producer: 1, Consumers: []int{2}}, {Producer: 2}},
	}
	for a := range p.SwitchMS {
		for b := range p.SwitchMS[a] {
			if a != b {
				p.SwitchMS[a][b] = 0.2
			}
		}
	}
	var s scheduler.Solver
	var plan scheduler.Plan
	for _, o := range []scheduler.Options{{}, {MaxSegments: 1}} {
		if err := s.SolveProblem(p, &o, &plan); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%v: %.1f ms in %d segments\n", plan.Units, plan.LatencyMS, len(plan.Segments))
	}
	// Output:
	// [NE CPU NE]: 0.7 ms in 3 segments
	// [CPU CPU CPU]: 2.1 ms in 1 segments
}
