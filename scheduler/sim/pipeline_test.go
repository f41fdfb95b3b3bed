package sim_test

import (
	"math"
	"testing"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/scheduler/sim"
	"github.com/triune-sim/triune/units/machine"
)

// TestAgainstScheduler runs the scheduler's plans through the simulation. One
// client must see the plan's latency; with enough clients the requests must
// leave at the pace that the scheduler states, and no faster; whatever the
// clients, the shared DRAM only slows.
func TestAgainstScheduler(t *testing.T) {
	for _, name := range []string{"resnet50", "mobilenet_v2", "squeezenet1_1"} {
		g, err := zoo.Build(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := passes.Default(g); err != nil {
			t.Fatal(err)
		}
		scheme, err := quant.Parse("fp16")
		if err != nil {
			t.Fatal(err)
		}
		if g, _, err = quant.Apply(g, scheme, quant.Options{}); err != nil {
			t.Fatal(err)
		}
		net, err := model.Lower(g)
		if err != nil {
			t.Fatal(err)
		}
		for _, chip := range []string{"a15", "m2-max"} {
			d, err := device.Load(chip)
			if err != nil {
				t.Fatal(err)
			}
			m, err := machine.New(d)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range []scheduler.Options{{}, {Policy: scheduler.Throughput}, {Policy: scheduler.Greedy}, {MaxSegments: 2, Forbid: []scheduler.Pin{{Pattern: "softmax"}}}} {
				if len(o.Forbid) > 0 {
					// The last two thirds leave for the CPU.
					o.Forbid = nil
					for _, l := range net.Layers[len(net.Layers)/3:] {
						o.Pins = append(o.Pins, scheduler.Pin{Pattern: l.Name})
					}
				}
				plan, err := scheduler.Solve(net, m, o)
				if err != nil {
					t.Fatal(err)
				}
				stages := plan.Stages(net, m)
				pace := func(clients int, dram float64) (period, latency float64) {
					r, err := sim.Run(&sim.Config{Policy: sim.FIFO, DRAMGBs: dram, Models: []sim.Model{{Name: name, HandlingMS: plan.HandlingMS, Stages: stages,
						Arrival: sim.Arrival{Clients: clients, Limit: 2000}}}})
					if err != nil {
						t.Fatal(err)
					}
					return r.DurationMS / 2000, r.Models[0].P50MS
				}
				if _, got := pace(1, m.DRAMGBs); math.Abs(got-plan.LatencyMS) > 1e-9*got {
					t.Errorf("%s on %s, %+v: one client sees %.12g ms, the plan says %.12g", name, chip, o, got, plan.LatencyMS)
				}
				var load [scheduler.NumUnits]float64
				top := 0.0
				for _, s := range stages {
					load[s.Unit] += s.MS
					top = max(top, load[s.Unit])
				}
				period, _ := pace(12, 0)
				if period < top*(1-1e-9) || period > top*1.02 {
					t.Errorf("%s on %s, %s: a request leaves every %g ms, the busiest unit works %g ms", name, chip, plan.Policy, period, top)
				}
				shared, _ := pace(12, m.DRAMGBs)
				if shared < period*(1-1e-9) {
					t.Errorf("%s on %s, %s: sharing the DRAM speeds up: %g instead of %g ms", name, chip, plan.Policy, shared, period)
				}
				if p := plan.Pipeline; p != nil {
					t.Logf("%s on %s: stated %.4f ms (%s), simulated %.4f without and %.4f with shared DRAM, %d segments", name, chip, p.PeriodMS, scheduler.ResourceName(p.Bottleneck), period, shared, len(stages))
					if shared < p.PeriodMS*(1-1e-6) && p.Bottleneck < scheduler.NumUnits {
						t.Errorf("%s on %s: simulated %g ms a request, the bottleneck works %g", name, chip, shared, p.PeriodMS)
					}
				}
			}
		}
	}
}
