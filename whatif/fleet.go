package whatif

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/triune-sim/triune/model/coreml"
)

// FleetMember is a share of the users: a device and the system it runs.
type FleetMember struct {
	Device string  `yaml:"device" json:"device"`
	OS     string  `yaml:"os" json:"os,omitempty"` // "iOS 16"; "": new enough for anything
	Share  float64 `yaml:"share" json:"share"`     // any unit: shares are divided by their sum
}

// FleetSpec asks how users fare: which share of them waits longer than the
// budget, and the percentiles of their latency. What config leaves out is the
// first choice of the study's lists; schemes are compared.
type FleetSpec struct {
	Config   Entry         `yaml:"config" json:"config"`
	Schemes  []string      `yaml:"schemes" json:"schemes,omitempty"`
	BudgetMS float64       `yaml:"budget_ms" json:"budget_ms"`
	Members  []FleetMember `yaml:"members" json:"members"`
	// Fallback is the scheme that users get whose system is too old for the
	// scheme's file format; without it they cannot run the model.
	Fallback string `yaml:"fallback" json:"fallback,omitempty"`
}

// FleetResult is how the users of one scheme fare. Shares are of all users, 0
// to 1.
type FleetResult struct {
	Scheme string
	// Over is the share of users whose request takes longer than the budget,
	// those who cannot run the model included. It counts, for every member,
	// the part of its latency distribution above the budget; OverPoint counts
	// members whose predicted latency is above it.
	Over, OverPoint float64
	// Unsupported is the share whose system is too old; Fallback the share
	// served by the fallback scheme.
	Unsupported, Fallback float64
	// Percentiles of the latency of the users who can run the model, ms.
	P50, P90, P95, P99 float64
	MeanMS             float64 // mean of the members' predicted latency
	Members            []FleetPart
}

// FleetPart is one member of a fleet under one scheme.
type FleetPart struct {
	FleetMember
	Scheme                  string // after falling back; "" when unsupported
	LatencyMS, P10MS, P90MS float64
	OverShare               float64 // part of the member's requests above the budget
}

// z90 is the 90th percentile of the normal distribution.
var z90 = distuv.UnitNormal.Quantile(0.9)

// spreadCDF is the share of requests that take at most x ms when the 10th,
// 50th and 90th percentiles are p10, p50 and p90: a log-normal distribution
// whose halves have each their own width, or a step where the width is 0.
func spreadCDF(x, p10, p50, p90 float64) float64 {
	if x <= 0 {
		return 0
	}
	s := math.Log(p90/p50) / z90
	if x < p50 {
		s = math.Log(p50/p10) / z90
	}
	if s <= 0 || math.IsNaN(s) {
		if x < p50 {
			return 0
		}
		return 1
	}
	return distuv.UnitNormal.CDF(math.Log(x/p50) / s)
}

// Fleet prices a configuration on every member of a fleet. Predictions with
// an interval (10th to 90th percentile) are spread over it.
func Fleet(p *Pricer, c Config, schemes []string, members []FleetMember, budgetMS float64, fallback string) ([]FleetResult, error) {
	if len(members) == 0 || len(members) > 4096 {
		return nil, fmt.Errorf("whatif: fleet: %d members (want 1 to 4096)", len(members))
	}
	if !(budgetMS > 0) || math.IsInf(budgetMS, 0) {
		return nil, fmt.Errorf("whatif: fleet: budget of %g ms (want more than 0)", budgetMS)
	}
	total := 0.0
	for _, m := range members {
		if !(m.Share >= 0) || math.IsInf(m.Share, 0) {
			return nil, fmt.Errorf("whatif: fleet: %s has a share of %g (want at least 0)", m.Device, m.Share)
		}
		if _, err := osVersion(m.OS); err != nil {
			return nil, err
		}
		total += m.Share
	}
	if total <= 0 {
		return nil, fmt.Errorf("whatif: fleet: the shares sum to 0")
	}
	d := p.Desk()
	var out []FleetResult
	for _, scheme := range schemes {
		r := FleetResult{Scheme: scheme}
		for _, m := range members {
			share := m.Share / total
			part := FleetPart{FleetMember: m, Scheme: scheme}
			part.Share = share
			ok, err := runsOn(p, &c, scheme, m.OS)
			if err != nil {
				return nil, err
			}
			if !ok && fallback != "" {
				if ok, err = runsOn(p, &c, fallback, m.OS); err != nil {
					return nil, err
				}
				if ok {
					part.Scheme = fallback
					r.Fallback += share
				}
			}
			if !ok {
				part.Scheme, part.OverShare = "", 1
				part.LatencyMS, part.P10MS, part.P90MS = math.NaN(), math.NaN(), math.NaN()
				r.Unsupported += share
				r.Over += share
				r.OverPoint += share
				r.Members = append(r.Members, part)
				continue
			}
			x := c
			x.Device, x.Scheme = m.Device, part.Scheme
			pr, err := d.Predict(&x)
			if err != nil {
				return nil, err
			}
			part.LatencyMS, part.P10MS, part.P90MS = pr.LatencyMS, pr.LatencyP10MS, pr.LatencyP90MS
			part.OverShare = 1 - spreadCDF(budgetMS, part.P10MS, part.LatencyMS, part.P90MS)
			r.Over += share * part.OverShare
			if part.LatencyMS > budgetMS {
				r.OverPoint += share
			}
			r.MeanMS += share * part.LatencyMS
			r.Members = append(r.Members, part)
		}
		if served := 1 - r.Unsupported; served > 1e-12 {
			r.MeanMS /= served
			r.P50, r.P90, r.P95, r.P99 = r.quantile(0.5), r.quantile(0.9), r.quantile(0.95), r.quantile(0.99)
		} else {
			r.MeanMS, r.P50, r.P90, r.P95, r.P99 = math.NaN(), math.NaN(), math.NaN(), math.NaN(), math.NaN()
		}
		out = append(out, r)
	}
	return out, nil
}

// quantile inverts the mixture of the members' distributions by bisection.
func (r *FleetResult) quantile(q float64) float64 {
	served := 0.0
	hi := 0.0
	for _, m := range r.Members {
		if m.Scheme != "" {
			served += m.Share
			hi = max(hi, m.LatencyMS, m.P90MS)
		}
	}
	cdf := func(x float64) float64 {
		s := 0.0
		for _, m := range r.Members {
			if m.Scheme != "" {
				s += m.Share * spreadCDF(x, m.P10MS, m.LatencyMS, m.P90MS)
			}
		}
		return s / served
	}
	for range 64 {
		if cdf(hi) >= q {
			break
		}
		hi *= 2
	}
	lo := 0.0
	for range 200 {
		mid := lo + (hi-lo)/2
		if mid <= lo || mid >= hi || hi-lo <= 1e-12*hi {
			break
		}
		// The tolerance keeps rounding of the shares from moving a step.
		if cdf(mid) >= q-1e-12 {
			hi = mid
		} else {
			lo = mid
		}
	}
	return hi
}

// osVersion reads the major version of "iOS 17.4"; 0 for "".
func osVersion(os string) (int, error) {
	if os == "" {
		return 0, nil
	}
	f := strings.Fields(os)
	num := f[len(f)-1]
	num, _, _ = strings.Cut(num, ".")
	v, err := strconv.Atoi(num)
	if err != nil || len(f) != 2 || v < 1 {
		return 0, fmt.Errorf("whatif: fleet: system %q (want iOS 17, iPadOS 17 or macOS 14)", os)
	}
	switch strings.ToLower(f[0]) {
	case "ios", "ipados":
		return v, nil
	case "macos":
		if v < 26 { // macOS 13 is the sister of iOS 16
			v += 3
		}
		return v, nil
	}
	return 0, fmt.Errorf("whatif: fleet: system %q (want iOS 17, iPadOS 17 or macOS 14)", os)
}

// MinimumOS returns the oldest iOS that loads the package of a configuration:
// 16, 17 or 18.
func MinimumOS(p *Pricer, c *Config) (int, error) {
	comp, err := p.Compiled(c)
	if err != nil {
		return 0, err
	}
	for _, t := range []coreml.Target{coreml.IOS16, coreml.IOS17, coreml.IOS18} {
		if _, err = coreml.Size(comp.Net.Graph, coreml.Options{Target: t}); err == nil {
			return 16 + int(t-coreml.IOS16), nil
		}
	}
	return 0, err
}

func runsOn(p *Pricer, c *Config, scheme, os string) (bool, error) {
	v, err := osVersion(os)
	if err != nil || v == 0 {
		return v == 0, err
	}
	x := *c
	x.Scheme = scheme
	need, err := MinimumOS(p, &x)
	return v >= need, err
}

func (r *Runner) fleet(s *FleetSpec) (*Finding, error) {
	c, err := r.Study.first(&s.Config)
	if err != nil {
		return nil, err
	}
	schemes := slices.Clone(s.Schemes)
	if len(schemes) == 0 {
		schemes = slices.Clone(r.Study.Schemes)
	}
	rs, err := Fleet(r.Pricer, c, schemes, s.Members, s.BudgetMS, s.Fallback)
	if err != nil {
		return nil, err
	}
	f := &Finding{Kind: "fleet", Title: fmt.Sprintf("%s for a fleet of %d devices, budget %g ms", c.Model, len(s.Members), s.BudgetMS),
		Columns: []Column{{"scheme", Text, ""}, {"over_budget_pct", Number, "users above the budget, those who cannot run it included"},
			{"over_budget_point_pct", Number, "the same without the spread of predictions"},
			{"unsupported_pct", Number, "users whose system is too old"}, {"fallback_pct", Number, "users served by the fallback scheme"},
			{"mean_ms", Number, ""}, {"p50_ms", Number, ""}, {"p90_ms", Number, ""}, {"p95_ms", Number, ""}, {"p99_ms", Number, ""}}}
	best := 0
	for i, x := range rs {
		if x.Over < rs[best].Over {
			best = i
		}
		f.Rows = append(f.Rows, []Cell{text(x.Scheme), number(100 * x.Over), number(100 * x.OverPoint), number(100 * x.Unsupported), number(100 * x.Fallback),
			number(x.MeanMS), number(x.P50), number(x.P90), number(x.P95), number(x.P99)})
	}
	f.Answer = fmt.Sprintf("%s leaves the fewest users above %g ms: %.1f %%", rs[best].Scheme, s.BudgetMS, 100*rs[best].Over)
	for _, m := range rs[best].Members {
		on := m.Device
		if m.OS != "" {
			on += ", " + m.OS
		}
		if m.Scheme == "" {
			f.Notes = append(f.Notes, fmt.Sprintf("%s (%.1f %%): cannot load %s", on, 100*m.Share, rs[best].Scheme))
			continue
		}
		f.Notes = append(f.Notes, fmt.Sprintf("%s (%.1f %%): %s, %.3g ms (%.3g to %.3g), %.1f %% above", on, 100*m.Share, m.Scheme, m.LatencyMS, m.P10MS, m.P90MS, 100*m.OverShare))
	}
	return f, nil
}
