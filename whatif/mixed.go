package whatif

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units/machine"
)

// Measure runs a network under a scheme, on the device and units of a
// configuration, and returns the signal-to-noise ratio of its outputs against
// the network in fp32, in dB; +Inf when nothing differs.
type Measure func(ctx context.Context, f *compile.Folded, s quant.Scheme, c Config) (snrDB float64, err error)

// MixedOptions say what to search for.
type MixedOptions struct {
	// Schemes are the choices for each part of the network, by name; the
	// first one is where the search begins, and should do the least harm.
	Schemes []string
	// Minimise is package_bytes or a time or energy of the prediction
	// (latency_ms, energy_mj); "" is package_bytes.
	Minimise string
	// FloorDB is the least SNR of the result; -Inf finds the whole front only.
	FloorDB float64
	// Groups is how many parts the network is cut into, contiguous in its
	// order, each with one scheme; 0 is one for each compressed weight, at
	// most 64.
	Groups int
	// Points is how many mixtures are measured along the front; 0 is 24.
	Points   int
	Progress func(done, total int) // measurements; may be nil
}

// Mixture is an assignment of schemes to the groups, and what was measured and
// predicted of it.
type Mixture struct {
	Name    string // of a uniform scheme; "" for mixtures
	Choice  []int  // index into the schemes, by group
	SNR     float64
	Cost    float64 // what is minimised
	Scheme  quant.Scheme
	OnFront bool
}

// MixedResult is the outcome of [Mixed].
type MixedResult struct {
	Schemes  []string
	Minimise string
	Groups   [][]string // weights of each group
	Uniform  []Mixture  // one for each scheme
	Mixtures []Mixture  // by rising cost
	// Best is the cheapest of all at or above the floor; nil if there is none.
	Best *Mixture
	// Measured counts the runs of the network.
	Measured int

	folded *compile.Folded
	stages []quant.Scheme
	acts   [][]string // nodes of each group
}

// mixer holds what a search shares.
type mixer struct {
	*MixedResult
	ctx     context.Context
	cfg     Config
	desk    *Desk
	measure Measure
	cost    func(quant.Scheme) (float64, error)
	opts    MixedOptions
	total   int
	memo    map[string]*Mixture
}

// Mixed looks for a scheme by parts of the network that costs less than any
// uniform one at the same quality. It measures the noise that each group adds
// under each scheme alone, and what each choice saves; walks from the first
// scheme along the best ratio of saving to noise (noise powers of small
// independent errors add); and then measures mixtures along that walk, so that
// what it reports of them is measured, not predicted.
func Mixed(ctx context.Context, p *Pricer, c Config, measure Measure, o MixedOptions) (*MixedResult, error) {
	switch {
	case measure == nil:
		return nil, fmt.Errorf("whatif: mixed: no way to measure (Runner.Measure)")
	case len(o.Schemes) < 2 || len(o.Schemes) > 16:
		return nil, fmt.Errorf("whatif: mixed: %d schemes (want 2 to 16)", len(o.Schemes))
	case o.Groups < 0 || o.Groups > 1024 || o.Points < 0 || o.Points > 1024:
		return nil, fmt.Errorf("whatif: mixed: %d groups, %d points (want at most 1024)", o.Groups, o.Points)
	case math.IsNaN(o.FloorDB):
		return nil, fmt.Errorf("whatif: mixed: the floor is not a number")
	}
	if o.Minimise == "" {
		o.Minimise = "package_bytes"
	}
	if o.Points == 0 {
		o.Points = 24
	}
	get, err := Metric(o.Minimise)
	if err != nil {
		return nil, err
	}
	f, err := p.Folded(c.Model, c.Batch)
	if err != nil {
		return nil, err
	}
	dev, err := p.Device(c.Device)
	if err != nil {
		return nil, err
	}
	if len(c.Set) > 0 {
		if dev, err = dev.Override(c.Set...); err != nil {
			return nil, err
		}
	}
	mach, err := machine.New(dev)
	if err != nil {
		return nil, err
	}
	x := &mixer{MixedResult: &MixedResult{Schemes: o.Schemes, Minimise: o.Minimise, folded: f}, ctx: ctx, cfg: c, desk: p.Desk(),
		measure: measure, opts: o, memo: map[string]*Mixture{}}
	so := scheduler.Options{Mask: c.Units, Policy: c.Policy}
	x.cost = func(s quant.Scheme) (float64, error) {
		comp, err := f.Apply(s, compile.Options{})
		if err != nil {
			return 0, err
		}
		if err := x.desk.solver.SolveInto(comp.Net, mach, &so, &x.desk.plan); err != nil {
			return 0, err
		}
		pl := Placed{Config: c, Compiled: comp, Device: dev, Machine: mach, Options: so, Plan: &x.desk.plan}
		return get(pl.Prediction()), nil
	}
	for _, n := range o.Schemes {
		s, err := p.Scheme(n)
		if err != nil {
			return nil, err
		}
		for _, st := range s.Stages {
			if len(st.OpTypes)+len(st.OpNames) > 0 {
				return nil, fmt.Errorf("whatif: mixed: scheme %s has settings by type or name (want uniform schemes)", n)
			}
		}
		x.stages = append(x.stages, s)
	}
	if err := x.cut(); err != nil {
		return nil, err
	}
	return x.MixedResult, x.search()
}

// cut divides the network into groups: contiguous runs of its nodes, with about
// equally many compressible weights each.
func (x *mixer) cut() error {
	compressible := map[string]bool{}
	acts := false
	for _, s := range x.stages {
		comp, err := x.folded.Apply(s, compile.Options{})
		if err != nil {
			return err
		}
		for _, w := range comp.Report.Weights {
			if w.Scheme != "" {
				compressible[w.Name] = true
			}
		}
		acts = acts || s.Activations != nil
	}
	if len(compressible) == 0 {
		return fmt.Errorf("whatif: mixed: no scheme compresses a weight of %s", x.cfg.Model)
	}
	type node struct {
		name    string
		weights []string
	}
	var nodes []node
	seen := map[string]bool{}
	for _, n := range x.folded.Graph.Nodes {
		k := node{name: n.Name}
		for _, v := range n.Inputs {
			if v != nil && v.Const != nil && compressible[v.Name] && !seen[v.Name] {
				seen[v.Name] = true
				k.weights = append(k.weights, v.Name)
			}
		}
		nodes = append(nodes, k)
	}
	groups := x.opts.Groups
	if groups == 0 {
		groups = 64
	}
	groups = min(groups, len(seen))
	if groups == 0 {
		return fmt.Errorf("whatif: mixed: the weights of %s have no names", x.cfg.Model)
	}
	x.Groups, x.acts = make([][]string, groups), make([][]string, groups)
	done := 0
	for _, n := range nodes {
		// Nodes before the first weight and between weights go with the weight
		// before them.
		g := min(groups-1, max(0, done-1)*groups/len(seen))
		if len(n.weights) > 0 {
			g = min(groups-1, done*groups/len(seen))
		}
		x.Groups[g] = append(x.Groups[g], n.weights...)
		if n.name != "" {
			x.acts[g] = append(x.acts[g], n.name)
		}
		done += len(n.weights)
	}
	return nil
}

// scheme builds the scheme of a choice.
func (x *mixer) scheme(choice []int) quant.Scheme {
	out := quant.Scheme{Name: "mixed", Float: x.stages[0].Float}
	for k, s := range x.stages {
		for _, st := range s.Stages {
			names := map[string]quant.OpConfig{}
			for g, c := range choice {
				if c == k {
					for _, w := range x.Groups[g] {
						names[w] = st.Global
					}
				}
			}
			if len(names) > 0 {
				out.Stages = append(out.Stages, quant.Stage{OpNames: names})
			}
		}
		if s.Activations == nil {
			continue
		}
		used := false
		skip := map[string]bool{}
		for g, c := range choice {
			if x.stages[c].Activations != nil {
				used = true
				continue
			}
			for _, n := range x.acts[g] {
				skip[n] = true
			}
		}
		if used && out.Activations == nil {
			a := *s.Activations
			a.SkipNames = skip
			out.Activations = &a
		}
	}
	return out
}

// evaluate measures and prices a choice, once.
func (x *mixer) evaluate(choice []int) (*Mixture, error) {
	key := fmt.Sprint(choice)
	if m := x.memo[key]; m != nil {
		return m, nil
	}
	if err := x.ctx.Err(); err != nil {
		return nil, err
	}
	s := x.scheme(choice)
	m := &Mixture{Choice: slices.Clone(choice), Scheme: s}
	var err error
	if m.Cost, err = x.cost(s); err != nil {
		return nil, err
	}
	if m.SNR, err = x.measure(x.ctx, x.folded, s, x.cfg); err != nil {
		return nil, err
	}
	x.Measured++
	if x.opts.Progress != nil {
		x.opts.Progress(min(x.Measured, x.total), x.total)
	}
	x.memo[key] = m
	return m, nil
}

// noise turns an SNR in dB into the ratio of noise power to signal power.
func noise(snr float64) float64 {
	if math.IsInf(snr, 1) {
		return 0
	}
	return math.Pow(10, -snr/10)
}

func (x *mixer) search() error {
	n, k := len(x.Groups), len(x.stages)
	x.total = k + n*(k-1) + x.opts.Points + 4*(k+1) // about
	uniform := make([]int, n)
	for s := range k {
		for g := range uniform {
			uniform[g] = s
		}
		m, err := x.evaluate(uniform)
		if err != nil {
			return err
		}
		m.Name = x.Schemes[s]
		x.Uniform = append(x.Uniform, *m)
	}
	// What each choice does alone, beside the first scheme.
	ref := x.Uniform[0]
	type move struct{ noise, saves float64 }
	alone := make([][]move, n)
	for g := range n {
		alone[g] = make([]move, k)
		for s := 1; s < k; s++ {
			choice := make([]int, n)
			choice[g] = s
			m, err := x.evaluate(choice)
			if err != nil {
				return err
			}
			alone[g][s] = move{max(0, noise(m.SNR)-noise(ref.SNR)), ref.Cost - m.Cost}
		}
	}
	// The walk: from the first scheme, the change of one group with the best
	// ratio of further saving to further noise; and the same from the cheapest
	// schemes backwards is its mirror. Every step is a candidate.
	at := make([]int, n)
	var walk [][]int
	for {
		bestG, bestS, bestRatio := -1, 0, 0.0
		for g := range n {
			cur := alone[g][at[g]]
			for s := range k {
				dSave, dNoise := alone[g][s].saves-cur.saves, alone[g][s].noise-cur.noise
				if dSave <= 0 {
					continue
				}
				r := dSave / max(dNoise, 1e-30)
				if dNoise <= 0 {
					r = math.Inf(1)
				}
				if bestG < 0 || r > bestRatio {
					bestG, bestS, bestRatio = g, s, r
				}
			}
		}
		if bestG < 0 {
			break
		}
		at[bestG] = bestS
		walk = append(walk, slices.Clone(at))
	}
	// Measure points spread along the walk.
	if len(walk) > 0 {
		points := min(x.opts.Points, len(walk))
		for i := range points {
			if _, err := x.evaluate(walk[(i+1)*len(walk)/points-1]); err != nil {
				return err
			}
		}
		// Then find the last step that is at least as good as the floor, and as
		// each uniform scheme: that is what competes with it.
		floors := []float64{x.opts.FloorDB}
		for i := range x.Uniform {
			floors = append(floors, x.Uniform[i].SNR)
		}
		for _, floor := range floors {
			if err := x.approach(walk, floor); err != nil {
				return err
			}
		}
	}
	var all []*Mixture
	for _, m := range x.memo {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *Mixture) int {
		switch {
		case a.Cost != b.Cost:
			if a.Cost < b.Cost {
				return -1
			}
			return 1
		case a.SNR != b.SNR:
			if a.SNR > b.SNR {
				return -1
			}
			return 1
		}
		return slices.Compare(a.Choice, b.Choice)
	})
	pts := make([][]float64, len(all))
	for i, m := range all {
		pts[i] = []float64{m.Cost, -m.SNR}
	}
	for _, i := range Front(pts) {
		all[i].OnFront = true
	}
	for _, m := range all {
		if x.Best == nil && m.SNR >= x.opts.FloorDB {
			x.Best = m
		}
		if m.Name == "" {
			x.Mixtures = append(x.Mixtures, *m)
		}
	}
	for i := range x.Uniform {
		for _, m := range all {
			if m.Name == x.Uniform[i].Name {
				x.Uniform[i].OnFront = m.OnFront
			}
		}
	}
	return nil
}

// approach bisects a walk for its last step at or above a floor: neighbours on
// both sides of it are then measured.
func (x *mixer) approach(walk [][]int, floor float64) error {
	if math.IsInf(floor, 0) || math.IsNaN(floor) {
		return nil
	}
	lo, hi := -1, len(walk) // the last step known to hold, the first above it known not to
	for i := range walk {
		if m := x.memo[fmt.Sprint(walk[i])]; m != nil {
			if m.SNR >= floor {
				lo, hi = i, len(walk)
			} else if hi == len(walk) {
				hi = i
			}
		}
	}
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		m, err := x.evaluate(walk[mid])
		if err != nil {
			return err
		}
		if m.SNR >= floor {
			lo = mid
		} else {
			hi = mid
		}
	}
	return nil
}

// Beats returns the cheapest mixture that is at least as good as a uniform
// scheme in both figures and better in one; nil if there is none.
func (r *MixedResult) Beats(u *Mixture) *Mixture {
	for i := range r.Mixtures {
		m := &r.Mixtures[i]
		if m.SNR >= u.SNR && m.Cost <= u.Cost && (m.SNR > u.SNR || m.Cost < u.Cost) {
			return m
		}
	}
	return nil
}

// YAML writes the scheme of a mixture as a configuration that triune compress
// takes (-c FILE).
func (r *MixedResult) YAML(m *Mixture) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s %.6g at %.2f dB: a mixture of %s.\n", r.Minimise, m.Cost, m.SNR, strings.Join(r.Schemes, ", "))
	precision := "float16"
	if m.Scheme.Float == model.Float32 {
		precision = "float32"
	}
	doc := yaml.MapSlice{{Key: "name", Value: "mixed"}, {Key: "compute_precision", Value: precision}}
	var stages []yaml.MapSlice
	for _, st := range m.Scheme.Stages {
		names := make([]string, 0, len(st.OpNames))
		for n := range st.OpNames {
			names = append(names, n)
		}
		slices.Sort(names)
		kind := ""
		var ops yaml.MapSlice
		for _, n := range names {
			k, c, err := configYAML(st.OpNames[n])
			if err != nil {
				return nil, err
			}
			kind = k
			ops = append(ops, yaml.MapItem{Key: n, Value: c})
		}
		stages = append(stages, yaml.MapSlice{{Key: "config_type", Value: kind}, {Key: "op_name_configs", Value: ops}})
	}
	if len(stages) > 0 {
		doc = append(doc, yaml.MapItem{Key: "stages", Value: stages})
	}
	if a := m.Scheme.Activations; a != nil {
		act := yaml.MapSlice{{Key: "rule", Value: a.Rule.String()}}
		if a.Asymmetric {
			act = append(act, yaml.MapItem{Key: "mode", Value: "linear"})
		}
		if a.DType != model.Invalid {
			act = append(act, yaml.MapItem{Key: "dtype", Value: a.DType.String()})
		}
		var skip []string
		for n := range a.SkipNames {
			skip = append(skip, n)
		}
		slices.Sort(skip)
		var ops yaml.MapSlice
		for _, n := range skip {
			ops = append(ops, yaml.MapItem{Key: n, Value: nil})
		}
		if ops != nil {
			act = append(act, yaml.MapItem{Key: "op_name_configs", Value: ops})
		}
		doc = append(doc, yaml.MapItem{Key: "activations", Value: act})
	}
	y, err := yaml.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("whatif: mixed: %w", err)
	}
	b.Write(y)
	return []byte(b.String()), nil
}

// configYAML writes a weight's configuration in coremltools' words.
func configYAML(c quant.OpConfig) (kind string, out yaml.MapSlice, err error) {
	put := func(k string, v any) { out = append(out, yaml.MapItem{Key: k, Value: v}) }
	switch c := c.(type) {
	case quant.Linear:
		mode := "linear_symmetric"
		if c.Asymmetric {
			mode = "linear"
		}
		put("mode", mode)
		put("dtype", c.DType.String())
		put("granularity", c.Granularity.String())
		if c.Granularity == model.PerBlock {
			if c.BlockSizes != nil {
				put("block_size", c.BlockSizes)
			} else {
				put("block_size", c.BlockSize)
			}
		}
		put("weight_threshold", c.Threshold)
		return "OpLinearQuantizerConfig", out, nil
	case quant.Palette:
		put("mode", c.Mode.String())
		if c.Mode != quant.Unique {
			put("nbits", c.Bits)
		}
		if c.Grouped {
			put("granularity", "per_grouped_channel")
			put("group_size", c.GroupSize)
			if c.ChannelAxis != nil {
				put("channel_axis", *c.ChannelAxis)
			}
		}
		if c.ClusterDim > 1 {
			put("cluster_dim", c.ClusterDim)
		}
		if c.PerChannelScale {
			put("enable_per_channel_scale", true)
		}
		put("weight_threshold", c.Threshold)
		return "OpPalettizerConfig", out, nil
	case quant.Magnitude:
		if c.M > 0 {
			put("n_m_ratio", []int{c.N, c.M})
		} else {
			put("target_sparsity", c.Sparsity)
			if c.BlockSize > 1 {
				put("block_size", c.BlockSize)
			}
		}
		put("dim", c.Dim)
		put("weight_threshold", c.Threshold)
		return "OpMagnitudePrunerConfig", out, nil
	case quant.Threshold:
		put("threshold", c.Value)
		put("minimum_sparsity_percentile", c.MinSparsity)
		put("weight_threshold", c.Threshold)
		return "OpThresholdPrunerConfig", out, nil
	}
	return "", nil, fmt.Errorf("whatif: mixed: a %T cannot be written as a configuration", c)
}

// MixedSpec is a search for mixed precision in a study. What config leaves out
// is the first choice of the study's lists.
type MixedSpec struct {
	Config   Entry    `yaml:"config" json:"config"`
	Schemes  []string `yaml:"schemes" json:"schemes"`
	Minimise string   `yaml:"minimise" json:"minimise,omitempty"`
	FloorDB  *float64 `yaml:"floor_snr_db" json:"floor_snr_db,omitempty"`
	Groups   int      `yaml:"groups" json:"groups,omitempty"`
	Points   int      `yaml:"points" json:"points,omitempty"`
}

func (r *Runner) mixed(ctx context.Context, s *MixedSpec) (*Finding, error) {
	c, err := r.Study.first(&s.Config)
	if err != nil {
		return nil, err
	}
	o := MixedOptions{Schemes: s.Schemes, Minimise: s.Minimise, FloorDB: math.Inf(-1), Groups: s.Groups, Points: s.Points, Progress: r.MeasureProgress}
	if s.FloorDB != nil {
		o.FloorDB = *s.FloorDB
	}
	x, err := Mixed(ctx, r.Pricer, c, r.Measure, o)
	if err != nil {
		return nil, err
	}
	return x.Finding(c, o.FloorDB)
}

// Finding lays a search out as a table: the uniform schemes, and the mixtures on
// the front.
func (x *MixedResult) Finding(c Config, floor float64) (*Finding, error) {
	f := &Finding{Kind: "mixed", Title: fmt.Sprintf("Mixed precision for %s on %s: %s against SNR", c.Model, c.Device, x.Minimise),
		Columns: []Column{{"scheme", Text, "uniform, or a mixture"}, {x.Minimise, Number, ""}, {"snr_db", Number, "of the outputs against fp32, measured"}}}
	for _, s := range x.Schemes {
		f.Columns = append(f.Columns, Column{s + "_groups", Integer, "groups under this scheme"})
	}
	f.Columns = append(f.Columns, Column{"remark", Text, ""})
	beaten := 0
	row := func(m *Mixture, name, remark string) {
		line := []Cell{text(name), number(m.Cost), number(m.SNR)}
		for s := range x.Schemes {
			n := 0
			for _, k := range m.Choice {
				if k == s {
					n++
				}
			}
			line = append(line, number(float64(n)))
		}
		f.Rows = append(f.Rows, append(line, text(remark)))
	}
	for i := range x.Uniform {
		u := &x.Uniform[i]
		remark := "on the front"
		if b := x.Beats(u); b != nil {
			beaten++
			remark = fmt.Sprintf("beaten by a mixture of %.5g at %.2f dB", b.Cost, b.SNR)
		} else if !u.OnFront {
			remark = "beaten by another uniform scheme"
		}
		row(u, u.Name, remark)
	}
	for i := range x.Mixtures {
		m := &x.Mixtures[i]
		if !m.OnFront {
			continue
		}
		remark := ""
		if x.Best != nil && slices.Equal(m.Choice, x.Best.Choice) && !math.IsInf(floor, -1) {
			remark = fmt.Sprintf("the cheapest at or above %g dB", floor)
		}
		row(m, "mixture", remark)
	}
	f.Answer = fmt.Sprintf("mixtures of %d groups beat %d of %d uniform schemes (%d runs measured)", len(x.Groups), beaten, len(x.Uniform), x.Measured)
	if !math.IsInf(floor, -1) {
		if x.Best == nil {
			f.Answer += fmt.Sprintf("; nothing reaches %g dB", floor)
		} else {
			f.Answer += fmt.Sprintf("; the cheapest at or above %g dB has %s %.6g at %.2f dB", floor, x.Minimise, x.Best.Cost, x.Best.SNR)
		}
	}
	if x.Best != nil {
		y, err := x.YAML(x.Best)
		if err != nil {
			return nil, err
		}
		f.SchemeYAML = string(y)
	}
	return f, nil
}
