package scheduler

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/units"
)

// Policy names a way of choosing a unit for every layer.
type Policy string

// The policies.
const (
	// Optimal minimises the objective (latency unless said otherwise)
	// exactly.
	Optimal Policy = "optimal"
	// Energy minimises the energy of a request exactly.
	Energy Policy = "energy"
	// EDP minimises the energy-delay product exactly.
	EDP Policy = "edp"
	// Throughput minimises the time between two requests of a steady stream,
	// pipelined over the units: see throughput.go.
	Throughput Policy = "throughput"
	// CoreML follows the rules known of Core ML: see [Problem.CoreML].
	CoreML Policy = "coreml"
	// Greedy gives each layer its cheapest unit and ignores transfers: the
	// baseline to beat.
	Greedy Policy = "greedy"
	// Pinned is Optimal with at least one pin: layers named by the user run
	// where the user says, the others where that is best.
	Pinned Policy = "pinned"
)

// Policies lists the policies in the order in which help texts show them.
func Policies() []Policy { return []Policy{Optimal, Energy, EDP, Throughput, CoreML, Greedy, Pinned} }

// ParsePolicy reads a policy's name; "" and "latency" mean optimal.
func ParsePolicy(s string) (Policy, error) {
	if s == "" || s == "latency" {
		return Optimal, nil
	}
	for _, p := range Policies() {
		if string(p) == s {
			return p, nil
		}
	}
	return "", fmt.Errorf("scheduler: unknown policy %q (want optimal, energy, edp, throughput, coreml, greedy or pinned)", s)
}

// Objective is what a plan costs: Latency x ms + Energy x mJ. The zero value
// is latency alone.
type Objective struct {
	Latency float64 `json:"latency"` // weight of one ms
	Energy  float64 `json:"energy"`  // weight of one mJ
}

func (o Objective) orLatency() Objective {
	if o.Latency == 0 && o.Energy == 0 {
		return Objective{Latency: 1}
	}
	return o
}

// Of returns the objective's value for a latency in ms and an energy in mJ.
func (o Objective) Of(latencyMS, energyMJ float64) float64 {
	o = o.orLatency()
	return o.Latency*latencyMS + o.Energy*energyMJ
}

// ParseObjective reads what a plan is to minimise, for the --objective flag:
// latency, energy, edp or throughput, or weights of a ms and a mJ
// ("latency=1,energy=0.25").
func ParseObjective(s string) (Policy, Objective, error) {
	switch s {
	case "", "latency":
		return Optimal, Objective{}, nil
	case "energy":
		return Energy, Objective{}, nil
	case "edp":
		return EDP, Objective{}, nil
	case "throughput":
		return Throughput, Objective{}, nil
	}
	var o Objective
	for _, part := range strings.Split(s, ",") {
		k, v, _ := strings.Cut(part, "=")
		w, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		k = strings.TrimSpace(k)
		if err != nil || !(w >= 0) || math.IsInf(w, 1) || k != "latency" && k != "energy" {
			return "", o, fmt.Errorf("scheduler: objective %q: want latency, energy, edp, throughput, or weights such as latency=1,energy=0.25", s)
		}
		if k == "latency" {
			o.Latency = w
		} else {
			o.Energy = w
		}
	}
	if o == (Objective{}) {
		return "", o, fmt.Errorf("scheduler: objective %q weighs nothing", s)
	}
	return Optimal, o, nil
}

// ParseResident reads a limit of resident weight bytes, "UNIT=SIZE", into
// limits. The size is in bytes or has one of the units kB, MB, GB (decimal).
func ParseResident(s string, limits *[units.NumKinds]int64) error {
	u, size, ok := strings.Cut(s, "=")
	k, err := ParseUnit(u)
	if !ok || err != nil {
		return fmt.Errorf("scheduler: memory limit %q: want UNIT=SIZE, for example ne=64MB", s)
	}
	num, scale := strings.TrimSpace(size), 1.0
	for suffix, f := range map[string]float64{"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9} {
		if n, found := strings.CutSuffix(num, suffix); found {
			num, scale = strings.TrimSpace(n), f
		}
	}
	v, err := strconv.ParseFloat(num, 64)
	if err != nil || !(v*scale >= 1) || v*scale > 1e18 {
		return fmt.Errorf("scheduler: memory limit %q: %q is no size (want bytes, or a number with kB, MB or GB)", s, size)
	}
	limits[k] = int64(v * scale)
	return nil
}

// Pin is one rule about layers: those that Pattern matches run on Unit
// (in Options.Pins) or never run on it (in Options.Forbid).
//
// A pattern is compared with the layer's name, its operator and its kind,
// without regard to case; * stands for any run of characters.
type Pin struct {
	Pattern string
	Unit    units.Kind
}

// String formats the rule as pattern=unit.
func (p Pin) String() string { return p.Pattern + "=" + strings.ToLower(p.Unit.String()) }

// ParsePin reads "PATTERN=UNIT" ("layer3.*=cpu").
func ParsePin(s string) (Pin, error) {
	i := strings.LastIndexByte(s, '=')
	if i <= 0 || i == len(s)-1 {
		return Pin{}, fmt.Errorf("scheduler: pin %q: want PATTERN=UNIT, for example layer3.*=cpu", s)
	}
	k, err := ParseUnit(s[i+1:])
	if err != nil {
		return Pin{}, fmt.Errorf("scheduler: pin %q: %w", s, err)
	}
	return Pin{Pattern: s[:i], Unit: k}, nil
}

// ParseForbid reads "UNIT:PATTERN" ("ne:softmax").
func ParseForbid(s string) (Pin, error) {
	u, pat, ok := strings.Cut(s, ":")
	if !ok || pat == "" {
		return Pin{}, fmt.Errorf("scheduler: forbid %q: want UNIT:PATTERN, for example ne:softmax", s)
	}
	k, err := ParseUnit(u)
	if err != nil {
		return Pin{}, fmt.Errorf("scheduler: forbid %q: %w", s, err)
	}
	return Pin{Pattern: pat, Unit: k}, nil
}

// ParseUnit reads cpu, gpu or ne (ane is accepted too), without regard to case.
func ParseUnit(s string) (units.Kind, error) {
	switch strings.ToLower(s) {
	case "cpu":
		return units.CPU, nil
	case "gpu":
		return units.GPU, nil
	case "ne", "ane":
		return units.NE, nil
	}
	return 0, fmt.Errorf("unknown unit %q (want cpu, gpu or ne)", s)
}

// Options say how to place a network. The zero value is the optimal policy on
// all units with latency as the objective and no constraint.
type Options struct {
	// Mask is the set of units that may be used; 0 means units.All.
	Mask units.Mask
	// Policy is how units are chosen; "" means Optimal.
	Policy Policy
	// Objective is what Optimal and Pinned minimise; the zero value is
	// latency.
	Objective Objective
	// Pins name layers that must run on a unit; of two that match a layer the
	// later wins. Forbid names layers that must not run on a unit.
	Pins, Forbid []Pin
	// MaxSegments bounds the number of runs of consecutive layers on one
	// unit; 0 means no bound.
	MaxSegments int
	// MaxResident bounds the weight bytes resident on each unit; 0 means no
	// bound.
	MaxResident [units.NumKinds]int64
	// MaxStates bounds the labels that the search keeps per layer; beyond it
	// the search becomes a beam and the plan carries a gap. 0 means 131,072,
	// and less for networks of more than 763 layers (4,096 at least).
	MaxStates int
	// Overlap lets independent branches run on different units at once. It
	// looks for the least latency, starting from the policy's serial plan.
	Overlap bool
	// KeepOrder places layers in the order of the network even where another
	// order would keep fewer tensors alive.
	KeepOrder bool
}

func (o *Options) mask() units.Mask {
	if o.Mask == 0 {
		return units.All
	}
	return o.Mask & units.All
}

// match reports whether s fits a pattern in which * stands for any run of
// characters, without regard to case.
func match(pattern, s string) bool {
	p, t := strings.ToLower(pattern), strings.ToLower(s)
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && p[i] == t[j]:
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
