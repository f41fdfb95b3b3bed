package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// Model is one model of a simulation: what a request of it does, and when
// requests come.
type Model struct {
	Name       string
	HandlingMS float64           // before the first stage; occupies no unit
	Stages     []scheduler.Stage // one after the other
	Arrival    Arrival
	Priority   int     // greater is more urgent
	DeadlineMS float64 // after arrival; 0 means none
	// MaxInFlight drops a request that arrives while so many of the model
	// are in the system; 0 means no limit.
	MaxInFlight int
	// DropLate drops a request whose deadline has passed when a unit would
	// start its next stage.
	DropLate bool
}

// ServiceMS is what one request takes on an idle device.
func (m *Model) ServiceMS() float64 {
	t := m.HandlingMS
	for i := range m.Stages {
		t += m.Stages[i].MS
	}
	return t
}

// Arrival says when requests come. Exactly one of its forms is used: PeriodMS,
// RateHz, Clients or TimesMS.
type Arrival struct {
	PeriodMS float64 // periodic: at phase, phase + period, ...
	JitterMS float64 // each periodic arrival is late by a uniform part of this
	PhaseMS  float64 // of the first periodic arrival
	RateHz   float64 // Poisson
	// Clients is a closed loop: so many clients send a request, wait for it,
	// think for ThinkMS and send the next.
	Clients int
	ThinkMS float64
	TimesMS []float64 // a trace, ascending
	// Limit ends the arrivals after so many; 0 means none.
	Limit int64
}

// Policy is how a unit chooses among the requests that wait for it.
type Policy string

// The policies. A unit never stands idle while a request waits for it, and
// never interrupts a stage.
const (
	FIFO     Policy = "fifo"     // in order of arrival at the device
	Priority Policy = "priority" // greatest priority first, then FIFO
	EDF      Policy = "edf"      // earliest deadline first, then FIFO
	// Static is FIFO over plans that give each model one unit of its own, as
	// far as there are units.
	Static Policy = "static"
)

// Policies lists the policies.
func Policies() []Policy { return []Policy{FIFO, Priority, EDF, Static} }

// Config is a whole simulation. It is plain data: equal configurations give
// equal results, byte for byte.
type Config struct {
	Scenario, Device string
	Models           []Model
	Policy           Policy
	Seed             uint64
	// DurationMS is how long requests arrive, unless every model has a limit.
	DurationMS float64
	// Drain goes on until the last request is done; without it the simulation
	// ends at DurationMS, with requests in flight.
	Drain bool
	// DRAMGBs is the bandwidth that stages on different units share; 0 means
	// that they do not slow each other.
	DRAMGBs     float64
	IdleWatts   float64                     // while any request is in the system
	StaticWatts [scheduler.NumUnits]float64 // while the unit is busy
	// ModelSwitchMS is added to a stage when the unit's previous stage was
	// another model's.
	ModelSwitchMS [scheduler.NumUnits]float64
	Thermal       *ThermalModel
	// Spans bounds the timeline; 0 leaves it out.
	Spans int
}

// ThermalModel lowers the rate of all units after sustained load. The device
// is one body: its temperature above ambient follows
//
//	tau dT/dt = R x power - T
//
// and the rate falls in a straight line from 1 at StartC to MinRate at FullC.
// The constants are assumptions, not measurements of any device.
type ThermalModel struct {
	ResistanceCPerW float64 // R: steady rise per watt
	TauS            float64 // time constant
	StartC, FullC   float64 // rises at which throttling starts and is complete
	MinRate         float64
	StepMS          float64 // how often the rate is adjusted
}

// request is one request in the system.
type request struct {
	model    int32
	stage    int32
	arrival  float64
	deadline float64 // absolute; +Inf if none
	seq      uint64
	queued   float64 // when it joined the queue it waits in
	wait     float64
}

type unitState struct {
	busy   bool
	req    int32
	start  float64
	finish float64
	rate   float64
	ms     float64 // nominal length, model switch included
	stage  *scheduler.Stage
	last   int32 // model of the previous stage; -1
	queue  []int32

	busyMS, nominalMS float64
	stages            int64
	maxQueue          int
}

type modelState struct {
	rng      *rand.Rand
	next     float64 // next open arrival; +Inf when there is none
	count    int64   // arrivals so far
	trace    int
	think    []float64 // heap of the closed loop's next arrivals
	handling []int32   // requests in handling, in order; head first
	head     int

	inFlight                int64
	done, dropped, misses   int64
	latency                 []float64
	sumLatency, sumWait, mj float64
}

// engine runs one simulation.
type engine struct {
	cfg    *Config
	now    float64
	reqs   []request
	free   []int32
	units  [scheduler.NumUnits]unitState
	models []modelState
	seq    uint64
	events int64

	inSystem      int64
	areaInSystem  float64
	staticMJ      float64
	idleMJ        float64
	thermalRate   float64
	rise, peak    float64
	lowest        float64
	throttledMS   float64
	nextStep      float64
	stepMJ        float64 // energy spent since the last thermal step
	lastThermalMS float64
	spans         []result.Span

	watch func() // called after every event, by tests
}

// Run simulates a configuration.
func Run(cfg *Config) (*result.Simulation, error) {
	e, err := newEngine(cfg)
	if err != nil {
		return nil, err
	}
	e.loop()
	return e.report(), nil
}

func newEngine(cfg *Config) (*engine, error) {
	own := *cfg
	cfg = &own
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	e := &engine{cfg: cfg, thermalRate: 1, lowest: 1, nextStep: math.Inf(1)}
	if cfg.Thermal != nil {
		e.nextStep = cfg.Thermal.StepMS
	}
	for u := range e.units {
		e.units[u].last = -1
		e.units[u].rate = 1
	}
	e.models = make([]modelState, len(cfg.Models))
	for i := range e.models {
		m := &e.models[i]
		m.rng = rand.New(rand.NewPCG(cfg.Seed, uint64(i)+1))
		a := &cfg.Models[i].Arrival
		m.next = math.Inf(1)
		switch {
		case a.Clients > 0:
			m.think = make([]float64, 0, a.Clients)
			for range a.Clients {
				m.think = append(m.think, 0)
			}
		default:
			e.schedule(i)
		}
	}
	return e, nil
}

// schedule draws the next arrival of an open model.
func (e *engine) schedule(i int) {
	m, a := &e.models[i], &e.cfg.Models[i].Arrival
	m.next = math.Inf(1)
	if a.Limit > 0 && m.count >= a.Limit {
		return
	}
	switch {
	case a.PeriodMS > 0:
		m.next = a.PhaseMS + float64(m.count)*a.PeriodMS
		if a.JitterMS > 0 {
			m.next = max(e.now, m.next+m.rng.Float64()*a.JitterMS)
		}
	case a.RateHz > 0:
		m.next = e.now + m.rng.ExpFloat64()*1e3/a.RateHz
	case m.trace < len(a.TimesMS):
		m.next = a.TimesMS[m.trace]
		m.trace++
	}
}

// arrivalAt returns the time of a model's next arrival, open or closed.
func (e *engine) arrivalAt(i int) float64 {
	m, a := &e.models[i], &e.cfg.Models[i].Arrival
	t := m.next
	if len(m.think) > 0 && (a.Limit == 0 || m.count < a.Limit) {
		t = min(t, m.think[0])
	}
	if t > e.cfg.DurationMS {
		return math.Inf(1)
	}
	return t
}

// loop takes events in order of time; at equal times completions come before
// the ends of handling, those before arrivals, and each in index order.
func (e *engine) loop() {
	for {
		t, what, index := math.Inf(1), 0, 0
		for u := range e.units {
			if s := &e.units[u]; s.busy && s.finish < t {
				t, what, index = s.finish, 1, u
			}
		}
		for i := range e.models {
			m := &e.models[i]
			if m.head < len(m.handling) {
				r := &e.reqs[m.handling[m.head]]
				if at := r.arrival + e.cfg.Models[i].HandlingMS; at < t {
					t, what, index = at, 2, i
				}
			}
		}
		for i := range e.models {
			if at := e.arrivalAt(i); at < t {
				t, what, index = at, 3, i
			}
		}
		if what == 0 {
			if !e.cfg.Drain && !math.IsInf(e.cfg.DurationMS, 1) {
				e.advance(max(e.now, e.cfg.DurationMS))
			}
			return
		}
		if !e.cfg.Drain && t > e.cfg.DurationMS {
			e.advance(e.cfg.DurationMS)
			return
		}
		if e.nextStep < t {
			e.advance(e.nextStep)
			e.thermalStep()
			continue
		}
		e.advance(t)
		e.events++
		switch what {
		case 1:
			e.complete(index)
		case 2:
			m := &e.models[index]
			r := m.handling[m.head]
			m.head++
			if m.head == len(m.handling) {
				m.handling, m.head = m.handling[:0], 0
			} else if m.head > 1024 && m.head*2 > len(m.handling) {
				m.handling = append(m.handling[:0], m.handling[m.head:]...)
				m.head = 0
			}
			e.enter(r)
		case 3:
			e.arrive(index)
		}
		e.dispatch()
		if e.watch != nil {
			e.watch()
		}
	}
}

// advance moves the clock, which never goes back, and accounts for the time.
func (e *engine) advance(t float64) {
	dt := t - e.now
	if dt < 0 {
		panic(fmt.Sprintf("sim: clock from %g to %g", e.now, t))
	}
	e.areaInSystem += dt * float64(e.inSystem)
	if e.inSystem > 0 {
		e.idleMJ += dt * e.cfg.IdleWatts
		e.stepMJ += dt * e.cfg.IdleWatts
	}
	for u := range e.units {
		if s := &e.units[u]; s.busy {
			s.busyMS += dt
			e.staticMJ += dt * e.cfg.StaticWatts[u]
			e.models[e.reqs[s.req].model].mj += dt * e.cfg.StaticWatts[u]
			e.stepMJ += dt * e.cfg.StaticWatts[u]
			if s.ms > 0 {
				e.stepMJ += dt * s.rate * s.stage.EnergyMJ / s.ms
			}
		}
	}
	if e.thermalRate < 1 {
		e.throttledMS += dt
	}
	e.now = t
}

// thermalStep moves the temperature by the mean power since the last step, and
// adjusts the rate.
func (e *engine) thermalStep() {
	th := e.cfg.Thermal
	dt := e.now - e.lastThermalMS
	power := 0.0
	if dt > 0 {
		power = e.stepMJ / dt
	}
	steady := th.ResistanceCPerW * power
	e.rise = steady + (e.rise-steady)*math.Exp(-dt/(th.TauS*1e3))
	e.peak = max(e.peak, e.rise)
	e.stepMJ, e.lastThermalMS = 0, e.now
	e.nextStep = e.now + th.StepMS
	rate := 1.0
	if e.rise > th.StartC {
		rate = 1 - (1-th.MinRate)*min(1, (e.rise-th.StartC)/(th.FullC-th.StartC))
	}
	e.lowest = min(e.lowest, rate)
	if rate != e.thermalRate {
		e.thermalRate = rate
		e.share()
	}
}

func (e *engine) arrive(i int) {
	m, c := &e.models[i], &e.cfg.Models[i]
	closed := len(m.think) > 0 && m.think[0] <= e.now
	if closed {
		pop(&m.think)
	}
	m.count++
	if !closed {
		e.schedule(i)
	}
	if c.MaxInFlight > 0 && m.inFlight >= int64(c.MaxInFlight) {
		m.dropped++
		m.misses++
		if closed {
			push(&m.think, e.now+max(c.Arrival.ThinkMS, c.ServiceMS()))
		}
		return
	}
	var id int32
	if n := len(e.free); n > 0 {
		id = e.free[n-1]
		e.free = e.free[:n-1]
	} else {
		id = int32(len(e.reqs))
		e.reqs = append(e.reqs, request{})
	}
	deadline := math.Inf(1)
	if c.DeadlineMS > 0 {
		deadline = e.now + c.DeadlineMS
	}
	e.seq++
	e.reqs[id] = request{model: int32(i), arrival: e.now, deadline: deadline, seq: e.seq}
	m.inFlight++
	e.inSystem++
	if c.HandlingMS > 0 {
		m.handling = append(m.handling, id)
	} else {
		e.enter(id)
	}
}

// enter puts a request into the queue of its next stage's unit, or finishes it.
func (e *engine) enter(id int32) {
	r := &e.reqs[id]
	stages := e.cfg.Models[r.model].Stages
	if int(r.stage) == len(stages) {
		e.leave(id, false)
		return
	}
	u := &e.units[stages[r.stage].Unit]
	r.queued = e.now
	e.pushQueue(u, id)
	u.maxQueue = max(u.maxQueue, len(u.queue))
}

// leave takes a request out of the system.
func (e *engine) leave(id int32, dropped bool) {
	r := &e.reqs[id]
	m, c := &e.models[r.model], &e.cfg.Models[r.model]
	m.inFlight--
	e.inSystem--
	if dropped {
		m.dropped++
		m.misses++
	} else {
		m.done++
		l := e.now - r.arrival
		m.latency = append(m.latency, l)
		m.sumLatency += l
		m.sumWait += r.wait
		if c.DeadlineMS > 0 && l > c.DeadlineMS*(1+1e-12) {
			m.misses++
		}
	}
	if c.Arrival.Clients > 0 {
		push(&m.think, e.now+c.Arrival.ThinkMS)
	}
	e.free = append(e.free, id)
}

func (e *engine) complete(u int) {
	s := &e.units[u]
	id := s.req
	s.busy = false
	r := &e.reqs[id]
	s.last = r.model
	s.stages++
	s.nominalMS += s.ms
	e.models[r.model].mj += s.stage.EnergyMJ
	if len(e.spans) < e.cfg.Spans {
		m := &e.cfg.Models[r.model]
		e.spans = append(e.spans, result.Span{Lane: u, Name: m.Name, Kind: "request", StartMS: s.start, DurMS: e.now - s.start,
			Detail: fmt.Sprintf("request %d, stage %d of %d", r.seq, r.stage+1, len(m.Stages))})
	}
	r.stage++
	e.enter(id)
}

// dispatch starts a stage on every idle unit with a queue, and shares the
// bandwidth anew if any unit started or stopped.
func (e *engine) dispatch() {
	for u := range e.units {
		s := &e.units[u]
		for !s.busy && len(s.queue) > 0 {
			id := e.popQueue(s)
			r := &e.reqs[id]
			m := &e.cfg.Models[r.model]
			r.wait += e.now - r.queued
			if m.DropLate && e.now > r.deadline {
				e.leave(id, true)
				continue
			}
			s.busy, s.req, s.start, s.rate = true, id, e.now, 1
			s.stage = &m.Stages[r.stage]
			s.ms = s.stage.MS
			if s.last >= 0 && s.last != r.model {
				s.ms += e.cfg.ModelSwitchMS[u]
			}
			s.finish = e.now + s.ms
		}
	}
	e.share()
}

// share sets the rate of every busy unit: what it gets of the DRAM's bandwidth
// (scheduler.ShareDRAM), and what heat leaves.
func (e *engine) share() {
	var demand [scheduler.NumUnits]float64
	for u := range e.units {
		demand[u] = -1
		if s := &e.units[u]; s.busy {
			demand[u] = 0
			if s.ms > 0 {
				demand[u] = s.stage.DRAMBytes / s.ms
			}
		}
	}
	for u, rate := range scheduler.ShareDRAM(demand, e.cfg.DRAMGBs) {
		s := &e.units[u]
		if rate *= e.thermalRate; s.busy && rate != s.rate {
			s.finish = e.now + (s.finish-e.now)*s.rate/rate
			s.rate = rate
		}
	}
}

// less orders the queue of a unit.
func (e *engine) less(a, b int32) bool {
	x, y := &e.reqs[a], &e.reqs[b]
	switch e.cfg.Policy {
	case Priority:
		if p, q := e.cfg.Models[x.model].Priority, e.cfg.Models[y.model].Priority; p != q {
			return p > q
		}
	case EDF:
		if x.deadline != y.deadline {
			return x.deadline < y.deadline
		}
	}
	return x.seq < y.seq
}

func (e *engine) pushQueue(s *unitState, id int32) {
	s.queue = append(s.queue, id)
	q := s.queue
	for i := len(q) - 1; i > 0; {
		p := (i - 1) / 2
		if !e.less(q[i], q[p]) {
			break
		}
		q[i], q[p] = q[p], q[i]
		i = p
	}
}

func (e *engine) popQueue(s *unitState) int32 {
	q := s.queue
	top := q[0]
	n := len(q) - 1
	q[0] = q[n]
	q = q[:n]
	s.queue = q
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			return top
		}
		if c+1 < n && e.less(q[c+1], q[c]) {
			c++
		}
		if !e.less(q[c], q[i]) {
			return top
		}
		q[i], q[c] = q[c], q[i]
		i = c
	}
}

// push and pop keep a heap of times, least first.
func push(h *[]float64, v float64) {
	*h = append(*h, v)
	s := *h
	for i := len(s) - 1; i > 0; {
		p := (i - 1) / 2
		if s[p] <= s[i] {
			break
		}
		s[p], s[i] = s[i], s[p]
		i = p
	}
}

func pop(h *[]float64) float64 {
	s := *h
	v := s[0]
	n := len(s) - 1
	s[0] = s[n]
	s = s[:n]
	*h = s
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			return v
		}
		if c+1 < n && s[c+1] < s[c] {
			c++
		}
		if s[i] <= s[c] {
			return v
		}
		s[i], s[c] = s[c], s[i]
		i = c
	}
}

func (e *engine) report() *result.Simulation {
	cfg := e.cfg
	r := &result.Simulation{Scenario: cfg.Scenario, Device: cfg.Device, Policy: string(cfg.Policy), Seed: cfg.Seed,
		DurationMS: e.now, Events: e.events, IdleEnergyMJ: e.idleMJ, EnergyMJ: e.idleMJ,
		Models: []result.ModelStats{}, Units: []result.UnitStats{}, Assumptions: cfg.assumptions()}
	for i := range e.models {
		m, c := &e.models[i], &cfg.Models[i]
		st := result.ModelStats{Name: c.Name, Plan: c.route(), ServiceMS: c.ServiceMS(), Arrivals: m.count, Done: m.done,
			Dropped: m.dropped, InFlight: m.inFlight, DeadlineMS: c.DeadlineMS, Misses: m.misses, EnergyMJ: m.mj}
		if e.now > 0 {
			st.Throughput = float64(m.done) / e.now * 1e3
		}
		if m.done > 0 {
			st.MeanMS = m.sumLatency / float64(m.done)
			st.WaitMS = m.sumWait / float64(m.done)
			slices.Sort(m.latency)
			st.P50MS, st.P90MS, st.P99MS = rank(m.latency, 0.5), rank(m.latency, 0.9), rank(m.latency, 0.99)
			st.MaxMS = m.latency[len(m.latency)-1]
		}
		if n := m.done + m.dropped; n > 0 {
			st.MissPct = 100 * float64(m.misses) / float64(n)
		}
		r.EnergyMJ += m.mj
		r.Models = append(r.Models, st)
	}
	for u := range e.units {
		s := &e.units[u]
		st := result.UnitStats{Unit: units.Kind(u).String(), BusyMS: s.busyMS, Stages: s.stages, MaxQueue: s.maxQueue}
		if e.now > 0 {
			st.UtilisationPct = 100 * s.busyMS / e.now
		}
		busy := s.busyMS
		if s.busy { // what is under way has no nominal end yet
			busy -= e.now - s.start
		}
		if busy > 0 {
			st.SlowedPct = max(0, 100*(busy-s.nominalMS)/busy)
		}
		r.Units = append(r.Units, st)
	}
	if e.now > 0 {
		r.AverageWatts = r.EnergyMJ / e.now
		r.MeanInSystem = e.areaInSystem / e.now
	}
	if cfg.Thermal != nil {
		r.Thermal = &result.Thermal{PeakRiseC: e.peak, EndRiseC: e.rise, LowestRate: e.lowest}
		if e.now > 0 {
			r.Thermal.ThrottledPct = 100 * e.throttledMS / e.now
		}
	}
	if cfg.Spans > 0 {
		slices.SortStableFunc(e.spans, func(a, b result.Span) int {
			switch {
			case a.StartMS < b.StartMS:
				return -1
			case a.StartMS > b.StartMS:
				return 1
			}
			return a.Lane - b.Lane
		})
		end := 0.0
		for _, s := range e.spans {
			end = max(end, s.StartMS+s.DurMS)
		}
		r.Timeline = &result.Timeline{Title: cfg.Scenario, Lanes: []string{"CPU", "GPU", "NE"}, Spans: e.spans, EndMS: end}
	}
	return r
}

// rank returns the nearest-rank quantile of sorted values.
func rank(sorted []float64, q float64) float64 {
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

func (m *Model) route() string {
	var parts []string
	for i := range m.Stages {
		parts = append(parts, m.Stages[i].Unit.String())
	}
	if len(parts) > 6 {
		parts = append(parts[:5], fmt.Sprintf("... (%d segments)", len(m.Stages)))
	}
	return strings.Join(parts, " > ")
}

func (c *Config) assumptions() []string {
	a := []string{
		"a unit runs one segment at a time and never interrupts it",
		"the handling time of a request occupies no unit",
	}
	if c.DRAMGBs > 0 {
		a = append(a, fmt.Sprintf("units that run at once share %.4g GB/s of DRAM fairly", c.DRAMGBs))
	} else {
		a = append(a, "units that run at once do not slow each other")
	}
	for u, ms := range c.ModelSwitchMS {
		if ms > 0 {
			a = append(a, fmt.Sprintf("the %s takes %.3g ms to change models", units.Kind(u), ms))
		}
	}
	if t := c.Thermal; t != nil {
		a = append(a, fmt.Sprintf("thermal (assumed, not measured): %.3g C per W, time constant %.3g s, rates fall from %.3g C above ambient to %.3g of full at %.3g C",
			t.ResistanceCPerW, t.TauS, t.StartC, t.MinRate, t.FullC))
	}
	return a
}

func (c *Config) validate() error {
	bad := func(v float64) bool { return !(v >= 0) || math.IsInf(v, 1) }
	if len(c.Models) == 0 {
		return fmt.Errorf("sim: no models")
	}
	switch c.Policy {
	case FIFO, Priority, EDF, Static:
	default:
		return fmt.Errorf("sim: unknown policy %q (want fifo, priority, edf or static)", c.Policy)
	}
	limited := true
	for i := range c.Models {
		m := &c.Models[i]
		a := &m.Arrival
		where := fmt.Sprintf("sim: model %q: ", m.Name)
		forms := 0
		for _, b := range []bool{a.PeriodMS != 0, a.RateHz != 0, a.Clients != 0, len(a.TimesMS) > 0} {
			if b {
				forms++
			}
		}
		if forms != 1 {
			return fmt.Errorf("%swant exactly one kind of arrival: periodic, poisson, closed or trace", where)
		}
		for _, v := range []float64{a.PeriodMS, a.JitterMS, a.PhaseMS, a.RateHz, a.ThinkMS, m.HandlingMS, m.DeadlineMS, float64(a.Clients), float64(a.Limit), float64(m.MaxInFlight)} {
			if bad(v) {
				return fmt.Errorf("%sarrival, handling, deadline and limits must be finite and at least 0, not %g", where, v)
			}
		}
		if a.Clients > 1e6 {
			return fmt.Errorf("%s%d clients; at most a million", where, a.Clients)
		}
		if !slices.IsSorted(a.TimesMS) || len(a.TimesMS) > 0 && (bad(a.TimesMS[0]) || bad(a.TimesMS[len(a.TimesMS)-1])) {
			return fmt.Errorf("%sthe times of a trace must ascend from at least 0", where)
		}
		for s := range m.Stages {
			st := &m.Stages[s]
			if st.Unit >= scheduler.NumUnits || bad(st.MS) || bad(st.DRAMBytes) || bad(st.EnergyMJ) {
				return fmt.Errorf("%sstage %d is negative or not finite: %+v", where, s, *st)
			}
		}
		if m.ServiceMS() <= 0 && a.Clients > 0 && a.ThinkMS <= 0 && a.Limit == 0 {
			return fmt.Errorf("%sa closed loop of requests that take no time never ends", where)
		}
		limited = limited && (a.Limit > 0 || len(a.TimesMS) > 0)
	}
	if !(c.DurationMS >= 0) || c.DurationMS == 0 && !limited {
		return fmt.Errorf("sim: duration %g ms: want more than 0, or a limit of requests for every model", c.DurationMS)
	}
	if c.DurationMS == 0 {
		c.DurationMS = math.Inf(1)
	}
	if math.IsInf(c.DurationMS, 1) {
		if !limited {
			return fmt.Errorf("sim: an endless simulation wants a limit of requests for every model")
		}
		c.Drain = true
	}
	if n := c.expected(); n > 2e8 {
		return fmt.Errorf("sim: about %.3g requests; at most 2e8 are simulated", n)
	}
	for u := range c.StaticWatts {
		if bad(c.StaticWatts[u]) || bad(c.ModelSwitchMS[u]) {
			return fmt.Errorf("sim: unit %s: negative or not finite", units.Kind(u))
		}
	}
	if bad(c.DRAMGBs) || bad(c.IdleWatts) {
		return fmt.Errorf("sim: DRAM bandwidth %g GB/s, idle power %g W", c.DRAMGBs, c.IdleWatts)
	}
	if t := c.Thermal; t != nil {
		if bad(t.ResistanceCPerW) || !(t.TauS > 0) || !(t.StepMS > 0) || bad(t.StartC) || !(t.FullC > t.StartC) || !(t.MinRate > 0 && t.MinRate <= 1) {
			return fmt.Errorf("sim: thermal model %+v: want a resistance of at least 0, tau and step above 0, full above start, and a lowest rate in (0, 1]", *t)
		}
	}
	return nil
}

// expected bounds the number of open arrivals.
func (c *Config) expected() float64 {
	n := 0.0
	for i := range c.Models {
		a := &c.Models[i].Arrival
		x := 0.0
		switch {
		case a.PeriodMS > 0:
			x = c.DurationMS / a.PeriodMS
		case a.RateHz > 0:
			x = c.DurationMS * a.RateHz / 1e3
		case a.Clients > 0:
			x = c.DurationMS / (c.Models[i].ServiceMS() + a.ThinkMS) * float64(a.Clients)
		}
		if a.Limit > 0 {
			x = min(x, float64(a.Limit))
		}
		n += x
	}
	return n
}
