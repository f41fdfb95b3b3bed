package sim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/triune-sim/triune/internal/strictyaml"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// Scenario is the YAML form of a simulation. Unknown keys are errors.
//
//	name: camera app
//	device: iphone-15-pro
//	policy: edf
//	duration_s: 10
//	seed: 7
//	models:
//	  - name: detector
//	    model: mobilenet_v2
//	    scheme: w8a8
//	    arrival: {periodic_ms: 33.3}
//	    deadline_ms: 33.3
//	  - model: resnet50
//	    arrival: {poisson_hz: 5}
//	    units: cpu_and_gpu
type Scenario struct {
	Name      string       `yaml:"name"`
	Device    string       `yaml:"device"`
	Policy    Policy       `yaml:"policy"`     // fifo unless stated
	DurationS float64      `yaml:"duration_s"` // how long requests arrive
	Seed      uint64       `yaml:"seed"`
	Drain     bool         `yaml:"drain"`    // go on until the last request is done
	Spans     int          `yaml:"timeline"` // spans of the timeline to keep
	ModelMS   UnitMS       `yaml:"model_switch_ms"`
	Thermal   *ThermalSpec `yaml:"thermal"`
	Models    []ModelSpec  `yaml:"models"`

	dir string // relative trace files are looked up here
}

// UnitMS is a time for each unit, in ms.
type UnitMS struct {
	CPU float64 `yaml:"cpu"`
	GPU float64 `yaml:"gpu"`
	NE  float64 `yaml:"ne"`
}

// ThermalSpec states the constants of the thermal model; those left out get
// the defaults of [DefaultThermal].
type ThermalSpec struct {
	ResistanceCPerW *float64 `yaml:"resistance_c_per_w"`
	TauS            *float64 `yaml:"tau_s"`
	StartC          *float64 `yaml:"start_c"`
	FullC           *float64 `yaml:"full_c"`
	MinRate         *float64 `yaml:"min_rate"`
	StepMS          *float64 `yaml:"step_ms"`
}

// DefaultThermal returns a phone-like thermal model: 8 C per W to the
// ambient, a time constant of a minute, throttling from 20 C above ambient,
// down to 60 % of the rate at 35 C. These are round assumptions, not
// measurements.
func DefaultThermal() ThermalModel {
	return ThermalModel{ResistanceCPerW: 8, TauS: 60, StartC: 20, FullC: 35, MinRate: 0.6, StepMS: 100}
}

// ModelSpec is one model of a scenario.
type ModelSpec struct {
	Name        string      `yaml:"name"`   // the model's own unless stated
	Model       string      `yaml:"model"`  // a path or a built-in name
	Scheme      string      `yaml:"scheme"` // fp16 unless stated
	Units       string      `yaml:"units"`  // all unless stated
	Plan        string      `yaml:"plan"`   // placement policy; optimal unless stated
	Arrival     ArrivalSpec `yaml:"arrival"`
	Priority    int         `yaml:"priority"`
	DeadlineMS  float64     `yaml:"deadline_ms"`
	MaxInFlight int         `yaml:"max_in_flight"`
	DropLate    bool        `yaml:"drop_late"`
}

// ArrivalSpec is the arrival process of a model: exactly one of periodic_ms,
// poisson_hz, closed and trace.
type ArrivalSpec struct {
	PeriodicMS float64 `yaml:"periodic_ms"`
	JitterMS   float64 `yaml:"jitter_ms"` // with periodic_ms
	PhaseMS    float64 `yaml:"phase_ms"`  // with periodic_ms
	PoissonHz  float64 `yaml:"poisson_hz"`
	Closed     int     `yaml:"closed"`   // clients
	ThinkMS    float64 `yaml:"think_ms"` // with closed
	Trace      string  `yaml:"trace"`    // a text file of arrival times in ms, one a line
	Requests   int64   `yaml:"requests"` // ends the arrivals after so many
}

// keysText lists the keys, for the error about an unknown one.
const keysText = "a scenario has name, device, policy, duration_s, seed, drain, timeline, model_switch_ms, thermal, models; " +
	"a model has name, model, scheme, units, plan, arrival, priority, deadline_ms, max_in_flight, drop_late; " +
	"an arrival has periodic_ms, jitter_ms, phase_ms, poisson_hz, closed, think_ms, trace, requests; " +
	"thermal has resistance_c_per_w, tau_s, start_c, full_c, min_rate, step_ms; model_switch_ms has cpu, gpu, ne"

// ReadScenario reads a scenario file.
func ReadScenario(path string) (*Scenario, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	s, err := ParseScenario(data)
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, path)
	}
	s.dir = filepath.Dir(path)
	for i := range s.Models {
		// A model file is looked up beside the scenario first.
		if m := &s.Models[i]; filepath.Ext(m.Model) != "" && !filepath.IsAbs(m.Model) {
			beside := filepath.Join(s.dir, m.Model)
			if _, err := os.Stat(beside); err == nil {
				m.Model = beside
			}
		}
	}
	if s.Name == "" {
		s.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	return s, nil
}

// ParseScenario reads a scenario from YAML and checks what needs no device.
func ParseScenario(data []byte) (*Scenario, error) {
	s := &Scenario{}
	if err := strictyaml.Unmarshal(data, s); err != nil && !errors.Is(err, io.EOF) {
		text := strings.TrimSpace(yaml.FormatError(err, false, false))
		if strings.Contains(text, "unknown field") {
			text += " (" + keysText + ")"
		}
		return nil, fmt.Errorf("sim: scenario: %s", text)
	}
	if s.Policy == "" {
		s.Policy = FIFO
	}
	if len(s.Models) == 0 {
		return nil, fmt.Errorf("sim: scenario: it lists no models (models: [{model: mobilenet_v2, arrival: {periodic_ms: 33}}])")
	}
	if s.Device == "" {
		return nil, fmt.Errorf("sim: scenario: it names no device (device: iphone-15-pro)")
	}
	known := false
	for _, p := range Policies() {
		known = known || p == s.Policy
	}
	if !known {
		return nil, fmt.Errorf("sim: scenario: unknown policy %q (want fifo, priority, edf or static)", s.Policy)
	}
	names := map[string]bool{}
	for i := range s.Models {
		m := &s.Models[i]
		if m.Model == "" {
			return nil, fmt.Errorf("sim: scenario: model %d names no model (a path or a built-in name)", i+1)
		}
		if m.Name == "" {
			m.Name = m.Model
		}
		if names[m.Name] {
			return nil, fmt.Errorf("sim: scenario: two models are named %q; give them a name: each", m.Name)
		}
		names[m.Name] = true
		if m.Scheme == "" {
			m.Scheme = "fp16"
		}
		if m.Units == "" {
			m.Units = units.All.String()
		}
		if _, err := units.ParseMask(m.Units); err != nil {
			return nil, fmt.Errorf("sim: scenario: model %q: %w", m.Name, err)
		}
		if _, err := scheduler.ParsePolicy(m.Plan); err != nil {
			return nil, fmt.Errorf("sim: scenario: model %q: %w", m.Name, err)
		}
	}
	return s, nil
}

// Variant is one way to place one model: the plan's stages.
type Variant struct {
	Name       string // for people: "all, optimal"
	HandlingMS float64
	Stages     []scheduler.Stage
	single     bool // one unit only
}

// Used returns the set of units of the variant's stages.
func (v *Variant) Used() uint8 {
	var u uint8
	for i := range v.Stages {
		u |= 1 << v.Stages[i].Unit
	}
	return u
}

// Placer places one model of a scenario on its device under a mask, with the
// scheduler's options: it opens and compresses the model, solves, and returns
// the plan's stages and the machine. Package cmd supplies it.
type Placer func(spec *ModelSpec, o scheduler.Options) (plan *scheduler.Plan, stages []scheduler.Stage, m *units.Machine, err error)

// Config turns a scenario into a configuration: it places every model by its
// own mask and policy, or, under the static policy, on one unit each.
func (s *Scenario) Config(place Placer) (*Config, error) {
	cfg, err := s.frame(place)
	if err != nil {
		return nil, err
	}
	if s.Policy == Static {
		return cfg, s.partition(cfg, place)
	}
	return cfg, nil
}

// frame builds the configuration with every model's own plan.
func (s *Scenario) frame(place Placer) (*Config, error) {
	cfg := &Config{Scenario: s.Name, Device: s.Device, Policy: s.Policy, Seed: s.Seed, DurationMS: s.DurationS * 1e3,
		Drain: s.Drain, Spans: s.Spans, ModelSwitchMS: [scheduler.NumUnits]float64{s.ModelMS.CPU, s.ModelMS.GPU, s.ModelMS.NE}}
	if s.Thermal != nil {
		th := DefaultThermal()
		for _, f := range []struct {
			from *float64
			to   *float64
		}{{s.Thermal.ResistanceCPerW, &th.ResistanceCPerW}, {s.Thermal.TauS, &th.TauS}, {s.Thermal.StartC, &th.StartC},
			{s.Thermal.FullC, &th.FullC}, {s.Thermal.MinRate, &th.MinRate}, {s.Thermal.StepMS, &th.StepMS}} {
			if f.from != nil {
				*f.to = *f.from
			}
		}
		cfg.Thermal = &th
	}
	for i := range s.Models {
		spec := &s.Models[i]
		mask, err := units.ParseMask(spec.Units)
		if err != nil {
			return nil, err
		}
		pol, err := scheduler.ParsePolicy(spec.Plan)
		if err != nil {
			return nil, err
		}
		plan, stages, m, err := place(spec, scheduler.Options{Mask: mask, Policy: pol})
		if err != nil {
			return nil, fmt.Errorf("sim: model %q: %w", spec.Name, err)
		}
		if i == 0 {
			cfg.DRAMGBs, cfg.IdleWatts = m.DRAMGBs, m.IdleWatts
			for k, u := range m.Units {
				if u != nil {
					cfg.StaticWatts[k] = u.Rates().StaticWatts
				}
			}
		}
		a := &spec.Arrival
		mod := Model{Name: spec.Name, HandlingMS: plan.HandlingMS, Stages: stages, Priority: spec.Priority,
			DeadlineMS: spec.DeadlineMS, MaxInFlight: spec.MaxInFlight, DropLate: spec.DropLate,
			Arrival: Arrival{PeriodMS: a.PeriodicMS, JitterMS: a.JitterMS, PhaseMS: a.PhaseMS, RateHz: a.PoissonHz, Clients: a.Closed, ThinkMS: a.ThinkMS, Limit: a.Requests}}
		if a.Trace != "" {
			file := a.Trace
			if !filepath.IsAbs(file) {
				file = filepath.Join(s.dir, file)
			}
			if mod.Arrival.TimesMS, err = readTrace(file); err != nil {
				return nil, fmt.Errorf("sim: model %q: %w", spec.Name, err)
			}
		}
		cfg.Models = append(cfg.Models, mod)
	}
	// Check on a copy: an endless duration is filled in there.
	check := *cfg
	return cfg, check.validate()
}

// readTrace reads arrival times in ms, one a line (the first column of a CSV;
// blank lines, # comments and a heading are passed over).
func readTrace(path string) ([]float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	defer f.Close()
	var out []float64
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		field, _, _ := strings.Cut(sc.Text(), ",")
		field = strings.TrimSpace(field)
		if field == "" || field[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(field, 64)
		if err != nil && n == 1 {
			continue
		}
		if err != nil || !(v >= 0) || math.IsInf(v, 1) {
			return nil, fmt.Errorf("trace %s, line %d: %q is no arrival time in ms", filepath.Base(path), n, field)
		}
		if len(out) > 0 && v < out[len(out)-1] {
			return nil, fmt.Errorf("trace %s, line %d: %g ms comes before the line above", filepath.Base(path), n, v)
		}
		out = append(out, v)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("trace %s: %w", filepath.Base(path), err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("trace %s holds no arrival time", filepath.Base(path))
	}
	return out, nil
}
