package whatif

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units/machine"
)

// Measure runs a network under a scheme, on the device and units of a
// configuration, and returns the signal-to-noise ratio of its outputs against
// the network in fp32, in dB; +Inf when nothing differs. It is called from
// several goroutines at once.
type Measure func(ctx context.Context, f *compile.Folded, s quant.Scheme, c Config) (snrDB float64, err error)

// MixedSchemes are the choices of a search that names none: what is shipped
// as it is, and smaller forms for the parts that hardly notice.
func MixedSchemes() []string {
	return []string{"fp16", "w8", "w8-tensor", "w8a8", "p6", "w4b32", "w4", "p4", "p2"}
}

// MixedOptions say what to search for.
type MixedOptions struct {
	// Schemes are the choices for each part of the network, by name; the
	// first one is where the search begins, and should do the least harm.
	// None: MixedSchemes.
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
	Points int
	// HeldOut measures on other inputs than the search's, what the search has
	// found; nil leaves that out.
	HeldOut  Measure
	Workers  int                   // measurements at once; 0: one per processor
	Progress func(done, total int) // measurements, total a guess; may be nil
}

// Mixture is an assignment of schemes to the groups, and what was measured and
// predicted of it.
type Mixture struct {
	Name    string // of a uniform scheme; "" for mixtures
	Choice  []int  // index into the schemes, by group
	SNR     float64
	HeldOut float64 // SNR on the inputs held out; NaN if not measured
	Cost    float64 // what is minimised
	Scheme  quant.Scheme
	OnFront bool
}

// beats tells whether a mixture is at least as good as another one in cost and
// SNR and better in one of them, on the inputs of the search and, where both
// were measured on those, on the inputs held out.
func (m *Mixture) beats(u *Mixture) bool {
	better := m.SNR >= u.SNR && m.Cost <= u.Cost && (m.SNR > u.SNR || m.Cost < u.Cost)
	if math.IsNaN(m.HeldOut + u.HeldOut) {
		return better
	}
	return better && m.HeldOut >= u.HeldOut && (m.HeldOut > u.HeldOut || m.Cost < u.Cost)
}

// MixedResult is the outcome of [Mixed].
type MixedResult struct {
	Schemes  []string
	Minimise string
	Groups   [][]string // weights of each group
	Uniform  []Mixture  // one for each scheme
	Mixtures []Mixture  // by rising cost
	// Cheapest holds, for each scheme, whether every change of one group from the
	// uniform scheme costs more. Where the cost is a sum over the groups
	// (package_bytes), nothing in the space is then as cheap, so that nothing can
	// beat the scheme.
	Cheapest []bool
	// Best is the cheapest of all at or above the floor; nil if there is none.
	Best *Mixture
	// Measured counts the runs of the network.
	Measured int

	folded *compile.Folded
	stages []quant.Scheme
	acts   [][]string // nodes of each group
	same   [][]int    // of each group and scheme, the first scheme that does the same
}

// mixer holds what a search shares.
type mixer struct {
	*MixedResult
	ctx     context.Context
	cfg     Config
	measure Measure
	price   func() func(quant.Scheme) (float64, error) // one for each goroutine
	opts    MixedOptions
	total   int
	alone   [][]move // of each group, each scheme alone beside the first one

	mu      sync.Mutex
	memo    map[string]*Mixture
	pricers []func(quant.Scheme) (float64, error)
}

// move is what a scheme does to one group: the noise it adds and the cost it
// saves, against the first scheme.
type move struct{ noise, saves float64 }

// Mixed looks for a scheme by parts of the network that costs less than any
// uniform one at the same quality.
//
// It measures the uniform schemes, and the noise that each group adds under each
// scheme alone, and prices what each choice saves. From the first scheme it walks
// along the best ratio of saving to noise (noise powers of small independent
// errors add), and measures mixtures along that walk: at the floor, at the SNR
// and at the cost of each uniform scheme. A uniform scheme that none of them
// beats is searched around: the changes of one group from it are measured too,
// and swaps of them that cost no more. All figures reported are measured, none
// is predicted from others.
func Mixed(ctx context.Context, p *Pricer, c Config, measure Measure, o MixedOptions) (*MixedResult, error) {
	if len(o.Schemes) == 0 {
		o.Schemes = MixedSchemes()
	}
	switch {
	case measure == nil:
		return nil, fmt.Errorf("whatif: mixed: no way to measure (Runner.Measure)")
	case len(o.Schemes) < 2 || len(o.Schemes) > 16:
		return nil, fmt.Errorf("whatif: mixed: %d schemes (want 2 to 16)", len(o.Schemes))
	case o.Groups < 0 || o.Groups > 1024 || o.Points < 0 || o.Points > 1024 || o.Workers < 0:
		return nil, fmt.Errorf("whatif: mixed: %d groups, %d points, %d workers (want 0 to 1024)", o.Groups, o.Points, o.Workers)
	case math.IsNaN(o.FloorDB):
		return nil, fmt.Errorf("whatif: mixed: the floor is not a number")
	}
	for i, n := range o.Schemes {
		if slices.Contains(o.Schemes[:i], n) {
			return nil, fmt.Errorf("whatif: mixed: scheme %s is named twice", n)
		}
	}
	if o.Minimise == "" {
		o.Minimise = "package_bytes"
	}
	if o.Points == 0 {
		o.Points = 24
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
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
	x := &mixer{MixedResult: &MixedResult{Schemes: o.Schemes, Minimise: o.Minimise, folded: f}, ctx: ctx, cfg: c,
		measure: measure, opts: o, memo: map[string]*Mixture{}}
	so := scheduler.Options{Mask: c.Units, Policy: c.Policy, Pins: c.Pins}
	x.price = func() func(quant.Scheme) (float64, error) {
		desk := p.Desk()
		return func(s quant.Scheme) (float64, error) {
			comp, err := f.Apply(s, compile.Options{})
			if err != nil {
				return 0, err
			}
			if err := desk.solver.SolveInto(comp.Net, mach, &so, &desk.plan); err != nil {
				return 0, err
			}
			pl := Placed{Config: c, Compiled: comp, Device: dev, Machine: mach, Options: so, Plan: &desk.plan}
			return get(pl.Prediction()), nil
		}
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
	how := make([]map[string]string, len(x.stages)) // by scheme and weight
	for k, s := range x.stages {
		comp, err := x.folded.Apply(s, compile.Options{})
		if err != nil {
			return err
		}
		how[k] = map[string]string{}
		for _, w := range comp.Report.Weights {
			if w.Scheme != "" {
				compressible[w.Name], how[k][w.Name] = true, w.Scheme
			}
		}
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
	// Schemes that do the same to a group (weights too small for both of them)
	// are one choice.
	x.same = make([][]int, groups)
	for g, ws := range x.Groups {
		x.same[g] = make([]int, len(x.stages))
		for k := range x.stages {
			j := 0
			for j < k && (x.stages[j].Activations != x.stages[k].Activations || slices.ContainsFunc(ws, func(w string) bool { return how[j][w] != how[k][w] })) {
				j++
			}
			x.same[g][k] = j
		}
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

// plain writes a choice with the first of the schemes that do the same to a group.
func (x *mixer) plain(choice []int) []int {
	out := slices.Clone(choice)
	for g, s := range out {
		out[g] = x.same[g][s]
	}
	return out
}

// evaluate measures and prices choices, each once, several at a time. The
// results stand in the order of the choices.
func (x *mixer) evaluate(choices ...[]int) ([]*Mixture, error) {
	choices = slices.Clone(choices)
	for i := range choices {
		choices[i] = x.plain(choices[i])
	}
	out := make([]*Mixture, len(choices))
	todo := map[string][]int{} // by key, indices into choices
	var order []string
	for i, c := range choices {
		key := fmt.Sprint(c)
		if out[i] = x.memo[key]; out[i] == nil {
			if todo[key] == nil {
				order = append(order, key)
			}
			todo[key] = append(todo[key], i)
		}
	}
	made, err := x.each(len(order), func(k int, price func(quant.Scheme) (float64, error)) (*Mixture, error) {
		choice := choices[todo[order[k]][0]]
		m := &Mixture{Choice: slices.Clone(choice), Scheme: x.scheme(choice), HeldOut: math.NaN()}
		var err error
		if m.Cost, err = price(m.Scheme); err != nil {
			return nil, err
		}
		m.SNR, err = x.measure(x.ctx, x.folded, m.Scheme, x.cfg)
		x.count()
		return m, err
	})
	if err != nil {
		return nil, err
	}
	for k, key := range order {
		x.memo[key] = made[k]
		for _, i := range todo[key] {
			out[i] = made[k]
		}
	}
	return out, nil
}

// each calls do for 0 to n-1 on the search's workers; the first error, in that
// order, is returned.
func (x *mixer) each(n int, do func(i int, price func(quant.Scheme) (float64, error)) (*Mixture, error)) ([]*Mixture, error) {
	out, errs := make([]*Mixture, n), make([]error, n)
	next := make(chan int)
	var wg sync.WaitGroup
	for w := range min(n, x.opts.Workers) {
		if w == len(x.pricers) {
			x.pricers = append(x.pricers, x.price())
		}
		price := x.pricers[w]
		wg.Go(func() {
			for i := range next {
				if errs[i] = x.ctx.Err(); errs[i] == nil {
					out[i], errs[i] = do(i, price)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// count counts a measurement.
func (x *mixer) count() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.Measured++
	if x.opts.Progress != nil {
		x.opts.Progress(min(x.Measured, x.total), x.total)
	}
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
	x.total = 2*k + n*(k-1) + 2*x.opts.Points + 8*k // about
	uniform := make([][]int, k)
	for s := range uniform {
		uniform[s] = slices.Repeat([]int{s}, n)
	}
	us, err := x.evaluate(uniform...)
	if err != nil {
		return err
	}
	for s, m := range us {
		m.Name = x.Schemes[s]
	}
	if err := x.measureAlone(us[0]); err != nil {
		return err
	}
	walk := x.walk()
	if len(walk) > 0 {
		// Points spread along the walk, then the last step at or above the
		// floor and the SNR of each uniform scheme, and the first at or below
		// its cost: those compete with it.
		points := min(x.opts.Points, len(walk))
		spread := make([][]int, points)
		for i := range spread {
			spread[i] = walk[(i+1)*len(walk)/points-1]
		}
		if _, err := x.evaluate(spread...); err != nil {
			return err
		}
		floors := []float64{x.opts.FloorDB}
		for _, u := range us {
			floors = append(floors, u.SNR)
		}
		if err := x.approach(walk, floors); err != nil {
			return err
		}
		if err := x.atCost(walk, us); err != nil {
			return err
		}
	}
	if x.Cheapest, err = x.cheapest(uniform); err != nil {
		return err
	}
	for s, u := range us {
		if x.Cheapest[s] || x.beaten(u) {
			continue
		}
		if err := x.refine(u, u.SNR); err != nil {
			return err
		}
		if !x.beaten(u) {
			if err := x.around(u); err != nil {
				return err
			}
		}
	}
	if b := x.best(); b != nil && !math.IsInf(x.opts.FloorDB, -1) {
		if err := x.refine(b, x.opts.FloorDB); err != nil {
			return err
		}
	}
	all := x.front()
	if x.opts.HeldOut != nil {
		if err := x.holdOut(all, us); err != nil {
			return err
		}
	}
	x.Best = x.best()
	for _, m := range all {
		if m.Name == "" {
			x.Mixtures = append(x.Mixtures, *m)
		}
	}
	for _, u := range us {
		x.Uniform = append(x.Uniform, *u)
	}
	return nil
}

// measureAlone finds what each choice of each group does beside the first scheme.
func (x *mixer) measureAlone(ref *Mixture) error {
	n, k := len(x.Groups), len(x.stages)
	var choices [][]int
	for g := range n {
		for s := 1; s < k; s++ {
			choices = append(choices, with(ref.Choice, g, s))
		}
	}
	ms, err := x.evaluate(choices...)
	if err != nil {
		return err
	}
	x.alone = make([][]move, n)
	for g := range n {
		x.alone[g] = make([]move, k)
		for s := 1; s < k; s++ {
			m := ms[g*(k-1)+s-1]
			x.alone[g][s] = move{max(0, noise(m.SNR)-noise(ref.SNR)), ref.Cost - m.Cost}
		}
	}
	return nil
}

// with returns a choice with one group changed.
func with(choice []int, g, s int) []int {
	c := slices.Clone(choice)
	c[g] = s
	return c
}

// walk lists the steps from the first scheme: each changes one group, by the
// best ratio of further saving to further noise.
func (x *mixer) walk() [][]int {
	at := make([]int, len(x.Groups))
	var walk [][]int
	for {
		g, s, ok := x.down(at, math.Inf(1))
		if !ok {
			return walk
		}
		at[g] = s
		walk = append(walk, slices.Clone(at))
	}
}

// down returns the change of one group that saves most for the noise it adds,
// among those that add no more than slack.
func (x *mixer) down(at []int, slack float64) (g, s int, ok bool) {
	best := 0.0
	for i, cur := range at {
		for k, m := range x.alone[i] {
			save, add := m.saves-x.alone[i][cur].saves, m.noise-x.alone[i][cur].noise
			if save <= 0 || add > slack {
				continue
			}
			r := save / max(add, 1e-30)
			if add <= 0 {
				r = math.Inf(1)
			}
			if !ok || r > best {
				g, s, best, ok = i, k, r, true
			}
		}
	}
	return g, s, ok
}

// up returns the change of one group that takes away most noise for what it
// costs, among those that cost no more than slack.
func (x *mixer) up(at []int, slack float64) (g, s int, ok bool) {
	best := 0.0
	for i, cur := range at {
		for k, m := range x.alone[i] {
			cost, less := x.alone[i][cur].saves-m.saves, x.alone[i][cur].noise-m.noise
			if !(less > 0) || cost > slack {
				continue
			}
			if r := less / max(cost, 1e-30); !ok || r > best {
				g, s, best, ok = i, k, r, true
			}
		}
	}
	return g, s, ok
}

// spendNoise changes groups from a choice until they would add more noise than
// slack; spendCost until they would cost more. Both foresee sums of what each
// group does alone.
func (x *mixer) spendNoise(choice []int, slack float64) []int {
	at := slices.Clone(choice)
	for {
		g, s, ok := x.down(at, slack)
		if !ok {
			return at
		}
		slack -= x.alone[g][s].noise - x.alone[g][at[g]].noise
		at[g] = s
	}
}

func (x *mixer) spendCost(choice []int, slack float64) []int {
	at := slices.Clone(choice)
	for {
		g, s, ok := x.up(at, slack)
		if !ok {
			return at
		}
		slack -= x.alone[g][at[g]].saves - x.alone[g][s].saves
		at[g] = s
	}
}

// foreseen is the noise of a choice beside the first scheme's, if what each
// group adds alone is summed.
func (x *mixer) foreseen(choice []int) float64 {
	sum := 0.0
	for g, s := range choice {
		sum += x.alone[g][s].noise
	}
	return sum
}

// approach bisects a walk for its last step at or above each floor: neighbours
// on both sides of it are then measured.
func (x *mixer) approach(walk [][]int, floors []float64) error {
	for {
		var mid [][]int
		for _, floor := range floors {
			if math.IsInf(floor, 0) || math.IsNaN(floor) {
				continue
			}
			// The last step known to hold, and the first above it known not to.
			lo, hi := -1, len(walk)
			for i := range walk {
				if m := x.memo[fmt.Sprint(x.plain(walk[i]))]; m != nil {
					if m.SNR >= floor {
						lo, hi = i, len(walk)
					} else if hi == len(walk) {
						hi = i
					}
				}
			}
			if hi-lo > 1 {
				mid = append(mid, walk[(lo+hi)/2])
			}
		}
		if mid == nil {
			return nil
		}
		if _, err := x.evaluate(mid...); err != nil {
			return err
		}
	}
}

// atCost measures what the walk has to offer at the costs of mixtures: its first
// step that costs no more, with the rest spent on the groups that need it most.
func (x *mixer) atCost(walk [][]int, us []*Mixture) error {
	first := x.memo[fmt.Sprint(x.plain(make([]int, len(x.Groups))))]
	var tries [][]int
	for _, u := range us {
		for _, at := range walk {
			c := first.Cost
			for g, s := range at {
				c -= x.alone[g][s].saves
			}
			if c <= u.Cost {
				tries = append(tries, at, x.spendCost(at, u.Cost-c))
				break
			}
		}
	}
	_, err := x.evaluate(tries...)
	return err
}

// cheapest tells of each uniform scheme whether every change of one group costs
// more.
func (x *mixer) cheapest(uniform [][]int) ([]bool, error) {
	out := make([]bool, len(uniform))
	_, err := x.each(len(uniform), func(i int, price func(quant.Scheme) (float64, error)) (*Mixture, error) {
		cost := x.memo[fmt.Sprint(x.plain(uniform[i]))].Cost
		// Most have a cheaper choice for some group even beside the first scheme.
		for g := range x.Groups {
			for _, m := range x.alone[g] {
				if m.saves > x.alone[g][i].saves {
					return nil, nil
				}
			}
		}
		for g := range x.Groups {
			for s := range x.stages {
				if x.same[g][s] == x.same[g][i] {
					continue
				}
				c, err := price(x.scheme(with(uniform[i], g, s)))
				if err != nil || c <= cost {
					return nil, err
				}
			}
		}
		out[i] = true
		return nil, nil
	})
	return out, err
}

// beaten tells whether a mixture beats another one on the search's inputs.
func (x *mixer) beaten(u *Mixture) bool {
	for _, m := range x.memo {
		if m.Name == "" && m.beats(u) {
			return true
		}
	}
	return false
}

// refine looks for cheaper mixtures at or above a floor, from one of them: by
// spending the noise that is left, and by swaps, where what one group gains
// pays for others.
func (x *mixer) refine(from *Mixture, floor float64) error {
	const rounds, ups = 6, 4
	first := x.memo[fmt.Sprint(x.plain(make([]int, len(x.Groups))))]
	for range rounds {
		// What is foreseen is scaled to what was measured here.
		scale := (noise(from.SNR) - noise(first.SNR)) / x.foreseen(from.Choice)
		if !(scale > 0) || math.IsInf(scale, 0) {
			scale = 1
		}
		slack := max(0, noise(floor)-noise(from.SNR)) / scale
		tries := [][]int{x.spendNoise(from.Choice, slack), x.spendNoise(from.Choice, slack/2), x.spendNoise(from.Choice, slack/4)}
		at := slices.Clone(from.Choice)
		for range ups {
			g, s, ok := x.up(at, math.Inf(1))
			if !ok {
				break
			}
			at[g] = s
			gain := x.foreseen(from.Choice) - x.foreseen(at)
			tries = append(tries, x.spendNoise(at, slack+gain), x.spendNoise(at, slack+gain/2))
		}
		ms, err := x.evaluate(tries...)
		if err != nil {
			return err
		}
		next := from
		for _, m := range ms {
			if m.SNR >= floor && m.Cost < next.Cost {
				next = m
			}
		}
		if next == from {
			return nil
		}
		from = next
	}
	return nil
}

// around looks for a mixture that beats one where sums of what was measured
// beside the first scheme foresee it badly: it measures changes of one group
// from the mixture itself, and then swaps of them that cost no more.
func (x *mixer) around(u *Mixture) error {
	type change struct {
		g, s        int
		noise, cost float64 // added
	}
	var tries []change
	for g, cur := range u.Choice {
		// The nearest schemes on both sides, by cost.
		lo, hi := -1, -1
		for s, m := range x.alone[g] {
			d := x.alone[g][cur].saves - m.saves
			switch {
			case s == cur:
			case d <= 0 && (lo < 0 || m.saves < x.alone[g][lo].saves || m.saves == x.alone[g][lo].saves && m.noise < x.alone[g][lo].noise):
				lo = s
			case d > 0 && m.noise < x.alone[g][cur].noise && (hi < 0 || m.saves > x.alone[g][hi].saves):
				hi = s
			}
		}
		for _, s := range []int{lo, hi} {
			if s >= 0 {
				tries = append(tries, change{g: g, s: s})
			}
		}
	}
	choices := make([][]int, len(tries))
	for i, c := range tries {
		choices[i] = with(u.Choice, c.g, c.s)
	}
	ms, err := x.evaluate(choices...)
	if err != nil {
		return err
	}
	var ups, downs []change
	for i, m := range ms {
		c := tries[i]
		c.noise, c.cost = noise(m.SNR)-noise(u.SNR), m.Cost-u.Cost
		switch {
		case c.cost <= 0:
			downs = append(downs, c)
		case c.noise < 0:
			ups = append(ups, c)
		}
	}
	slices.SortStableFunc(downs, func(a, b change) int { return cmp.Compare(a.noise*-b.cost, b.noise*-a.cost) })
	slices.SortStableFunc(ups, func(a, b change) int { return cmp.Compare(a.noise*b.cost, b.noise*a.cost) })
	var swaps [][]int
	for n := 1; n <= len(downs); n = max(n+1, 3*n/2) {
		at, slack := slices.Clone(u.Choice), 0.0
		moved := map[int]bool{}
		for _, c := range downs[:n] {
			if !moved[c.g] {
				at[c.g], moved[c.g], slack = c.s, true, slack-c.cost
			}
		}
		for _, c := range ups {
			if !moved[c.g] && c.cost <= slack {
				at[c.g], moved[c.g], slack = c.s, true, slack-c.cost
			}
		}
		swaps = append(swaps, at)
	}
	_, err = x.evaluate(swaps...)
	return err
}

// best returns the cheapest of all that was measured at or above the floor.
func (x *mixer) best() *Mixture {
	for _, m := range x.sorted() {
		if m.SNR >= x.opts.FloorDB {
			return m
		}
	}
	return nil
}

// sorted lists all that was measured by rising cost.
func (x *mixer) sorted() []*Mixture {
	return slices.SortedFunc(maps.Values(x.memo), func(a, b *Mixture) int {
		return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(b.SNR, a.SNR), slices.Compare(a.Choice, b.Choice))
	})
}

// front marks what is on the front of all that was measured, and returns all.
func (x *mixer) front() []*Mixture {
	all := x.sorted()
	pts := make([][]float64, len(all))
	for i, m := range all {
		pts[i] = []float64{m.Cost, -m.SNR}
	}
	for _, i := range Front(pts) {
		all[i].OnFront = true
	}
	return all
}

// holdOut measures the front and the uniform schemes on the inputs held out,
// and where a uniform scheme is beaten on the search's inputs only, whatever
// else might beat it on both.
func (x *mixer) holdOut(all, uniform []*Mixture) error {
	measure := func(want func(*Mixture) bool) error {
		var ms []*Mixture
		for _, m := range all {
			if math.IsNaN(m.HeldOut) && want(m) {
				ms = append(ms, m)
			}
		}
		_, err := x.each(len(ms), func(i int, _ func(quant.Scheme) (float64, error)) (*Mixture, error) {
			var err error
			ms[i].HeldOut, err = x.opts.HeldOut(x.ctx, x.folded, ms[i].Scheme, x.cfg)
			x.count()
			return nil, err
		})
		return err
	}
	if err := measure(func(m *Mixture) bool { return m.OnFront || m.Name != "" }); err != nil {
		return err
	}
	for _, u := range uniform {
		held := false
		for _, m := range all {
			held = held || m.Name == "" && !math.IsNaN(m.HeldOut) && m.beats(u)
		}
		if held {
			continue
		}
		if err := measure(func(m *Mixture) bool { return m.Name == "" && m.beats(u) }); err != nil {
			return err
		}
	}
	return nil
}

// Beats returns the cheapest mixture that is at least as good as a uniform
// scheme in both figures and better in one, on the inputs held out too where
// there are any; nil if there is none.
func (r *MixedResult) Beats(u *Mixture) *Mixture {
	for i := range r.Mixtures {
		m := &r.Mixtures[i]
		if math.IsNaN(m.HeldOut) != math.IsNaN(u.HeldOut) {
			continue // not measured on all inputs
		}
		if m.beats(u) {
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
	Schemes  []string `yaml:"schemes" json:"schemes,omitempty"`
	Minimise string   `yaml:"minimise" json:"minimise,omitempty"`
	FloorDB  *float64 `yaml:"floor_snr_db" json:"floor_snr_db,omitempty"`
	Groups   int      `yaml:"groups" json:"groups,omitempty"`
	Points   int      `yaml:"points" json:"points,omitempty"`
	Samples  *int     `yaml:"samples" json:"samples,omitempty"`   // inputs of the search
	HeldOut  *int     `yaml:"held_out" json:"held_out,omitempty"` // inputs for checking what it found; 0: none
}

// What a study measures on if it does not say.
const (
	defaultSamples = 2
	defaultHeldOut = 4
	maxSamples     = 4096
)

// counts checks the figures of a search and fills in what is left out.
func (s *MixedSpec) counts() (samples, heldOut int, err error) {
	samples, heldOut = defaultSamples, defaultHeldOut
	if s.Samples != nil {
		samples = *s.Samples
	}
	if s.HeldOut != nil {
		heldOut = *s.HeldOut
	}
	if s.FloorDB != nil && (math.IsNaN(*s.FloorDB) || math.IsInf(*s.FloorDB, 0)) {
		return 0, 0, fmt.Errorf("whatif: mixed: floor_snr_db %v (want a number of dB)", *s.FloorDB)
	}
	if samples < 1 || samples > maxSamples || heldOut < 0 || heldOut > maxSamples {
		return 0, 0, fmt.Errorf("whatif: mixed: samples %d, held_out %d (want 1 to %d, and 0 to %[3]d)", samples, heldOut, maxSamples)
	}
	return samples, heldOut, nil
}

func (r *Runner) mixed(ctx context.Context, s *MixedSpec) (*Finding, error) {
	c, err := r.Study.first(&s.Config)
	if err != nil {
		return nil, err
	}
	samples, heldOut, err := s.counts()
	if err != nil {
		return nil, err
	}
	o := MixedOptions{Schemes: s.Schemes, Minimise: s.Minimise, FloorDB: math.Inf(-1), Groups: s.Groups, Points: s.Points, Progress: r.MeasureProgress}
	if s.FloorDB != nil {
		o.FloorDB = *s.FloorDB
	}
	var measure Measure
	if r.Measurer != nil {
		measure = r.Measurer(0, samples)
		if heldOut > 0 {
			o.HeldOut = r.Measurer(uint64(samples), heldOut)
		}
	}
	x, err := Mixed(ctx, r.Pricer, c, measure, o)
	if err != nil {
		return nil, err
	}
	f, err := x.Finding(c, o.FloorDB)
	if err != nil {
		return nil, err
	}
	if heldOut > 0 {
		f.Notes = append(f.Notes, fmt.Sprintf("snr_db is measured on %d seeded random inputs, the ones of the search; held_out_snr_db on %d others", samples, heldOut))
	} else {
		f.Notes = append(f.Notes, fmt.Sprintf("snr_db is measured on %d seeded random inputs, the ones of the search", samples))
	}
	return f, nil
}

// Finding lays a search out as a table: the uniform schemes, and the mixtures on
// the front.
func (x *MixedResult) Finding(c Config, floor float64) (*Finding, error) {
	f := &Finding{Kind: "mixed", Title: fmt.Sprintf("Mixed precision for %s on %s: %s against SNR", c.Model, c.Device, x.Minimise),
		Columns: []Column{{"scheme", Text, "uniform, or a mixture"}, {x.Minimise, Number, ""}, {"snr_db", Number, "of the outputs against fp32, measured on the inputs of the search"}}}
	held := len(x.Uniform) > 0 && !math.IsNaN(x.Uniform[0].HeldOut)
	if held {
		f.Columns = append(f.Columns, Column{"held_out_snr_db", Number, "the same, on inputs that the search has not seen"})
	}
	for _, s := range x.Schemes {
		f.Columns = append(f.Columns, Column{s + "_groups", Integer, "groups under this scheme"})
	}
	f.Columns = append(f.Columns, Column{"remark", Text, ""})
	row := func(m *Mixture, name, remark string) {
		line := []Cell{text(name), number(m.Cost), number(m.SNR)}
		if held {
			line = append(line, number(m.HeldOut))
		}
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
	beaten := 0
	var cannot []string
	additive := x.Minimise == "package_bytes" // a sum over the groups
	for i := range x.Uniform {
		u := &x.Uniform[i]
		remark := "beaten by another uniform scheme"
		switch b := x.Beats(u); {
		case b != nil:
			beaten++
			remark = fmt.Sprintf("beaten by a mixture of %.5g at %.2f dB", b.Cost, b.SNR)
			if held {
				remark += fmt.Sprintf(", held out %.2f dB", b.HeldOut)
			}
		case x.Cheapest[i]:
			cannot = append(cannot, u.Name)
			remark = "every change of one group costs more"
			if additive {
				remark = "the cheapest choice of every group: nothing can beat it"
			}
		case u.OnFront:
			remark = "on the front: nothing that was measured beats it"
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
	f.Answer = fmt.Sprintf("mixtures of %d groups beat %d of %d uniform schemes", len(x.Groups), beaten, len(x.Uniform))
	switch {
	case len(cannot) == 0:
	case additive:
		f.Answer += fmt.Sprintf(", and nothing can beat %s, the cheapest", strings.Join(cannot, ", "))
	default:
		f.Answer += fmt.Sprintf(", and from %s every change of one group costs more", strings.Join(cannot, ", "))
	}
	f.Answer += fmt.Sprintf(" (%d measurements)", x.Measured)
	if !math.IsInf(floor, -1) {
		if x.Best == nil {
			f.Answer += fmt.Sprintf("; nothing reaches %g dB", floor)
		} else {
			f.Answer += fmt.Sprintf("; the cheapest at or above %g dB has %s %.6g at %.2f dB", floor, x.Minimise, x.Best.Cost, x.Best.SNR)
			if held {
				f.Answer += fmt.Sprintf(" (%.2f dB on inputs held out)", x.Best.HeldOut)
			}
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
