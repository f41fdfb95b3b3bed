package sim

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// singles returns the variants of a model that use one unit only.
func singles(spec *ModelSpec, place Placer) ([]Variant, error) {
	mask, err := units.ParseMask(spec.Units)
	if err != nil {
		return nil, err
	}
	var out []Variant
	var why error
	for k := range units.Kind(scheduler.NumUnits) {
		if !mask.Has(k) {
			continue
		}
		plan, stages, _, err := place(spec, scheduler.Options{Mask: mask, Pins: []scheduler.Pin{{Pattern: "*", Unit: k}}})
		if err != nil {
			why = errors.Join(why, err)
			continue
		}
		out = append(out, Variant{Name: "all on the " + k.String(), HandlingMS: plan.HandlingMS, Stages: stages, single: true})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("sim: model %q runs wholly on no unit: %w", spec.Name, why)
	}
	return out, nil
}

// load is the share of a second of a unit that a model asks for, when it is
// served at once; a closed loop asks for all of it.
func load(m *Model, v *Variant) (l [scheduler.NumUnits]float64) {
	rate := m.Arrival.RateHz / 1e3
	if m.Arrival.PeriodMS > 0 {
		rate = 1 / m.Arrival.PeriodMS
	}
	service := v.HandlingMS
	for i := range v.Stages {
		service += v.Stages[i].MS
	}
	if m.Arrival.Clients > 0 {
		rate = 1 / max(1e-9, service+m.Arrival.ThinkMS)
	}
	if n := len(m.Arrival.TimesMS); n > 1 {
		rate = float64(n) / max(1e-9, m.Arrival.TimesMS[n-1]-m.Arrival.TimesMS[0])
	}
	for i := range v.Stages {
		l[v.Stages[i].Unit] += rate * v.Stages[i].MS
	}
	return l
}

// partition gives every model one unit: of all the ways, the one whose busiest
// unit is least loaded, and then the one with the least total service time.
func (s *Scenario) partition(cfg *Config, place Placer) error {
	n := len(cfg.Models)
	options := make([][]Variant, n)
	for i := range s.Models {
		v, err := singles(&s.Models[i], place)
		if err != nil {
			return err
		}
		options[i] = v
	}
	if n > 12 {
		return fmt.Errorf("sim: the static policy tries all partitions of at most 12 models, not %d", n)
	}
	pick, best := make([]int, n), make([]int, n)
	bestKey := [2]float64{math.Inf(1), math.Inf(1)}
	for {
		var sum [scheduler.NumUnits]float64
		service := 0.0
		for i, x := range pick {
			l := load(&cfg.Models[i], &options[i][x])
			for u := range sum {
				sum[u] += l[u]
			}
			for _, st := range options[i][x].Stages {
				service += st.MS
			}
		}
		key := [2]float64{max(sum[0], sum[1], sum[2]), service}
		if key[0] < bestKey[0] || key[0] == bestKey[0] && key[1] < bestKey[1] {
			bestKey = key
			copy(best, pick)
		}
		i := 0
		for ; i < n; i++ {
			if pick[i]++; pick[i] < len(options[i]) {
				break
			}
			pick[i] = 0
		}
		if i == n {
			break
		}
	}
	for i, x := range best {
		cfg.Models[i].HandlingMS, cfg.Models[i].Stages = options[i][x].HandlingMS, options[i][x].Stages
	}
	return nil
}

// Trial is one candidate of a search.
type Trial struct {
	Policy   Policy             `json:"policy"`
	Plans    []string           `json:"plans"` // per model
	MissPct  float64            `json:"miss_pct"`
	P99MS    float64            `json:"p99_ms"` // greatest of the models' p99, each over its deadline if it has one
	EnergyMJ float64            `json:"energy_mj"`
	Result   *result.Simulation `json:"-"`
}

// better orders trials: fewer misses, then the lower tail, then less energy.
func (t *Trial) better(o *Trial) bool {
	switch {
	case t.MissPct != o.MissPct:
		return t.MissPct < o.MissPct
	case t.P99MS != o.P99MS:
		return t.P99MS < o.P99MS
	}
	return t.EnergyMJ < o.EnergyMJ
}

// maxTrials bounds the simulations of one search.
const maxTrials = 600

// Search tries the queueing policies with the placements of every model (the
// optimal plan under each mask within the model's own, and each unit alone),
// and returns the trials, best first. With few combinations all are tried;
// otherwise one model at a time is improved until none can be.
func (s *Scenario) Search(place Placer) ([]Trial, error) {
	base, err := s.frame(place)
	if err != nil {
		return nil, err
	}
	base.Spans = 0
	n := len(s.Models)
	variants := make([][]Variant, n)
	combos := 1
	for i := range s.Models {
		if variants[i], err = s.variants(i, place); err != nil {
			return nil, err
		}
		if combos *= len(variants[i]); combos > 1<<20 {
			combos = 1 << 20
		}
	}
	var trials []Trial
	seen := map[string]bool{}
	try := func(pol Policy, pick []int) (Trial, error) {
		cfg := *base
		cfg.Policy = pol
		cfg.Models = slices.Clone(base.Models)
		t := Trial{Policy: pol}
		key := string(pol)
		for i, x := range pick {
			v := &variants[i][x]
			cfg.Models[i].HandlingMS, cfg.Models[i].Stages = v.HandlingMS, v.Stages
			t.Plans = append(t.Plans, v.Name)
			key += "|" + v.Name
		}
		r, err := Run(&cfg)
		if err != nil {
			return t, err
		}
		t.Result, t.EnergyMJ = r, r.EnergyMJ
		var misses, all int64
		for i := range r.Models {
			m := &r.Models[i]
			misses += m.Misses
			all += m.Done + m.Dropped
			p := m.P99MS
			if m.DeadlineMS > 0 {
				p /= m.DeadlineMS
			}
			t.P99MS = max(t.P99MS, p)
			if m.Done == 0 && m.Arrivals > 0 {
				misses, all = misses+m.Arrivals, all+m.Arrivals
			}
		}
		if all > 0 {
			t.MissPct = 100 * float64(misses) / float64(all)
		}
		if !seen[key] {
			seen[key] = true
			trials = append(trials, t)
		}
		return t, nil
	}
	policies := []Policy{FIFO, Priority, EDF}
	if combos*len(policies) <= maxTrials {
		pick := make([]int, n)
		for {
			for _, pol := range policies {
				if _, err := try(pol, pick); err != nil {
					return nil, err
				}
			}
			i := 0
			for ; i < n; i++ {
				if pick[i]++; pick[i] < len(variants[i]) {
					break
				}
				pick[i] = 0
			}
			if i == n {
				break
			}
		}
	} else {
		for _, pol := range policies {
			pick := make([]int, n)
			best, err := try(pol, pick)
			if err != nil {
				return nil, err
			}
			for improved := true; improved && len(trials) < maxTrials; {
				improved = false
				for i := range pick {
					was := pick[i]
					for x := range variants[i] {
						pick[i] = x
						t, err := try(pol, pick)
						if err != nil {
							return nil, err
						}
						if t.better(&best) {
							best, was, improved = t, x, true
						}
					}
					pick[i] = was
				}
			}
		}
	}
	slices.SortStableFunc(trials, func(a, b Trial) int {
		switch {
		case a.better(&b):
			return -1
		case b.better(&a):
			return 1
		}
		return 0
	})
	return trials, nil
}

// variants lists the distinct placements of a model: its own plan first.
func (s *Scenario) variants(i int, place Placer) ([]Variant, error) {
	spec := &s.Models[i]
	own, err := units.ParseMask(spec.Units)
	if err != nil {
		return nil, err
	}
	pol, err := scheduler.ParsePolicy(spec.Plan)
	if err != nil {
		return nil, err
	}
	var out []Variant
	add := func(v Variant) {
		for k := range out {
			if slices.Equal(out[k].Stages, v.Stages) {
				return
			}
		}
		out = append(out, v)
	}
	for _, mask := range []units.Mask{own, units.CPUAndNE, units.CPUAndGPU, units.CPUOnly} {
		if mask&^own != 0 {
			continue
		}
		plan, stages, _, err := place(spec, scheduler.Options{Mask: mask, Policy: pol})
		if err != nil {
			continue
		}
		add(Variant{Name: mask.String() + ", " + string(pol), HandlingMS: plan.HandlingMS, Stages: stages})
	}
	if one, err := singles(spec, place); err == nil {
		for _, v := range one {
			add(v)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("sim: model %q has no placement", spec.Name)
	}
	return out, nil
}
