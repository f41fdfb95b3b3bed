package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/result/timeline"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/scheduler/sim"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/machine"
)

func (a *app) simulateCommand() *cobra.Command {
	var search, gantt, asJSON bool
	var trace, svg, policy string
	var width int
	c := &cobra.Command{
		Use:   "simulate SCENARIO.yaml",
		Short: "Simulate several models that share one device",
		Long: `Simulate several models on one device: arrivals (periodic, Poisson, closed loop,
trace file), priorities and deadlines, a queue per unit, shared memory bandwidth,
switch costs, and a thermal state if the scenario has one. The simulation is
deterministic: equal scenarios give equal bytes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := sim.ReadScenario(args[0])
			if err != nil {
				return err
			}
			if policy != "" {
				s.Policy = sim.Policy(policy)
			}
			if (gantt || trace != "" || svg != "") && s.Spans == 0 {
				s.Spans = 2000
			}
			place := newPlacer(s.Device, filepath.Dir(args[0]))
			if search {
				return a.searchScenario(s, place, asJSON)
			}
			cfg, err := s.Config(place)
			if err != nil {
				return err
			}
			r, err := sim.Run(cfg)
			if err != nil {
				return err
			}
			if err := a.drawTimeline(r.Timeline, trace, svg, width); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.stdout, r)
			}
			a.printSimulation(r)
			if gantt {
				fmt.Fprintln(a.stdout)
				return timeline.Text(a.stdout, r.Timeline, width)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&policy, "policy", "", "queueing policy instead of the scenario's: fifo, priority, edf, static")
	f.BoolVar(&search, "search", false, "try the queueing policies and placements and print the trials, best first")
	f.BoolVar(&gantt, "gantt", false, "draw the first spans of the timeline as text")
	f.StringVar(&trace, "trace", "", "write the timeline for Perfetto or chrome://tracing to a file")
	f.StringVar(&svg, "svg", "", "write the timeline as SVG to a file")
	f.IntVar(&width, "width", 100, "columns of the text timeline")
	f.BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

// newPlacer returns the function that places one model of a scenario. Paths in
// the scenario are relative to its folder; networks are compiled once.
func newPlacer(deviceName, dir string) sim.Placer {
	compiled := map[string]*compile.Compiled{}
	return func(spec *sim.ModelSpec, o scheduler.Options) (*scheduler.Plan, []scheduler.Stage, *units.Machine, error) {
		d, err := device.Load(deviceName)
		if err != nil {
			return nil, nil, nil, err
		}
		m, err := machine.New(d)
		if err != nil {
			return nil, nil, nil, err
		}
		scheme := spec.Scheme
		if scheme == "" {
			scheme = "fp16"
		}
		key := spec.Model + "\x00" + scheme
		c := compiled[key]
		if c == nil {
			q, err := parseScheme(scheme)
			if err != nil {
				return nil, nil, nil, err
			}
			name := spec.Model
			if p := filepath.Join(dir, name); filepath.Ext(name) != "" && !filepath.IsAbs(name) {
				if _, err := os.Stat(p); err == nil {
					name = p
				}
			}
			g, err := compile.Load(name, compile.LoadOptions{})
			if err != nil {
				return nil, nil, nil, err
			}
			if c, err = compile.Prepare(g, q, compile.Options{}); err != nil {
				return nil, nil, nil, err
			}
			compiled[key] = c
		}
		plan, err := scheduler.Solve(c.Net, m, o)
		if err != nil {
			return nil, nil, nil, err
		}
		return plan, plan.Stages(c.Net, m), m, nil
	}
}

func (a *app) searchScenario(s *sim.Scenario, place sim.Placer, asJSON bool) error {
	trials, err := s.Search(place)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.stdout, map[string]any{"trials": trials, "best": trials[0].Result})
	}
	t := newTable(">rank", "queueing", "placements", ">misses %", ">p99", ">energy mJ")
	for i, x := range trials[:min(12, len(trials))] {
		t.add(fmt.Sprint(i+1), string(x.Policy), strings.Join(x.Plans, ", "), fmt.Sprintf("%.2f", x.MissPct), ms(x.P99MS), ms(x.EnergyMJ))
	}
	t.write(a.stdout)
	fmt.Fprintf(a.stdout, "\n%d trials; the best in full:\n\n", len(trials))
	a.printSimulation(trials[0].Result)
	return nil
}

func (a *app) printSimulation(r *result.Simulation) {
	w := a.stdout
	fmt.Fprintf(w, "%s on %s, policy %s, seed %d: %s s simulated, %s events\n\n", r.Scenario, r.Device, r.Policy, r.Seed, sig(r.DurationMS/1000, 4), count(r.Events))
	t := newTable("model", "runs on", ">service ms", ">arrivals", ">done", ">dropped", ">in flight", ">per s", ">p50 ms", ">p90", ">p99", ">wait ms", ">deadline", ">misses %", ">energy mJ")
	for _, m := range r.Models {
		dl := "-"
		if m.DeadlineMS > 0 {
			dl = ms(m.DeadlineMS)
		}
		t.add(m.Name, m.Plan, ms(m.ServiceMS), fmt.Sprint(m.Arrivals), fmt.Sprint(m.Done), fmt.Sprint(m.Dropped), fmt.Sprint(m.InFlight), sig(m.Throughput, 4),
			ms(m.P50MS), ms(m.P90MS), ms(m.P99MS), ms(m.WaitMS), dl, fmt.Sprintf("%.2f", m.MissPct), ms(m.EnergyMJ))
	}
	t.write(w)
	fmt.Fprintln(w)
	t = newTable("unit", ">busy %", ">busy ms", ">stages", ">slowed %", ">longest queue")
	for _, u := range r.Units {
		t.add(u.Unit, fmt.Sprintf("%.1f", u.UtilisationPct), ms(u.BusyMS), fmt.Sprint(u.Stages), fmt.Sprintf("%.1f", u.SlowedPct), fmt.Sprint(u.MaxQueue))
	}
	t.write(w)
	fmt.Fprintf(w, "\nenergy %s mJ, %s W on average\n", ms(r.EnergyMJ), sig(r.AverageWatts, 3))
	if h := r.Thermal; h != nil {
		fmt.Fprintf(w, "thermal: peak rise %.1f C, lowest rate %.2f, throttled %.1f %% of the time\n", h.PeakRiseC, h.LowestRate, h.ThrottledPct)
	}
	for _, s := range r.Assumptions {
		fmt.Fprintf(w, "assumed: %s\n", s)
	}
}

// drawTimeline writes the trace and SVG files that were asked for.
func (a *app) drawTimeline(t *result.Timeline, trace, svg string, width int) error {
	if trace != "" {
		if err := saveFile(trace, func(w io.Writer) error { return timeline.ChromeTrace(w, t) }); err != nil {
			return err
		}
	}
	if svg != "" {
		return saveFile(svg, func(w io.Writer) error { return timeline.SVG(w, t, 1200) })
	}
	return nil
}
