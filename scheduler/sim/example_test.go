package sim_test

import (
	"fmt"

	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/scheduler/sim"
	"github.com/triune-sim/triune/units"
)

// Two cameras share the Neural Engine; the second sends its frames half a
// period later, and so never waits.
func Example() {
	frame := []scheduler.Stage{{Unit: units.NE, MS: 8}}
	for _, phase := range []float64{0, 16.5} {
		r, err := sim.Run(&sim.Config{Policy: sim.FIFO, DurationMS: 990, Drain: true, Models: []sim.Model{
			{Name: "front", Stages: frame, Arrival: sim.Arrival{PeriodMS: 33}},
			{Name: "back", Stages: frame, Arrival: sim.Arrival{PeriodMS: 33, PhaseMS: phase}},
		}})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("phase %4.1f ms: front %.0f ms, back %.0f ms\n", phase, r.Models[0].P99MS, r.Models[1].P99MS)
	}
	// Output:
	// phase  0.0 ms: front 8 ms, back 16 ms
	// phase 16.5 ms: front 8 ms, back 8 ms
}
