package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/cpu"
	"github.com/triune-sim/triune/units/exec"
	"github.com/triune-sim/triune/units/gpu"
	"github.com/triune-sim/triune/units/machine"
	"github.com/triune-sim/triune/units/ne"
)

// ErrClosed is returned by calls on a closed session.
var ErrClosed = errors.New("runtime: the session is closed")

// Arithmetic returns the arithmetic of the three units.
func Arithmetic() exec.Set {
	return exec.Set{units.CPU: cpu.Arithmetic(), units.GPU: gpu.Arithmetic(), units.NE: ne.Arithmetic()}
}

// Tensor describes an input or an output of a model.
type Tensor struct {
	Name  string
	DType model.DType
	Shape model.Shape
}

// String formats the tensor as name:fp16[1,3,224,224].
func (t Tensor) String() string { return fmt.Sprintf("%s:%s%v", t.Name, t.DType, t.Shape) }

// Session is a model placed on a device. It is safe for concurrent use.
type Session struct {
	inputs, outputs []Tensor
	profile         bool

	mu       sync.Mutex
	closed   bool
	compiled *compile.Compiled
	machine  *units.Machine
	plan     *scheduler.Plan
	options  scheduler.Options
	report   *result.Prediction
	pool     *kernels.Pool
	threads  int
	prog     *exec.Program
	progErr  error
	watch    *exec.Program        // for Watch
	written  map[*model.Value]int // layer that writes a value, for Watch
	running  sync.WaitGroup
	loading  sync.Mutex
}

// LayerTime is the host time of one layer of one run.
type LayerTime struct {
	Name string     `json:"name"`
	Op   string     `json:"op"`
	Unit units.Kind `json:"unit"`
	MS   float64    `json:"ms"`
}

// Result is what a run returns.
type Result struct {
	// Outputs are the model's outputs by name, in the types the model
	// declares. They belong to the caller.
	Outputs map[string]*model.Tensor
	// Report is the prediction of the plan that ran: the same for every run,
	// and shared between them. It must not be modified.
	Report *result.Prediction
	// Profile is the host time by layer, with [WithProfile] only.
	Profile []LayerTime
}

// Open opens a model: a path that ends in .onnx, .mlpackage or .mlmodel, or
// the name of a built-in network ("resnet50"). The model is compressed by the
// scheme and placed on the device; nothing is executed yet.
func Open(name string, opts ...Option) (*Session, error) {
	c := defaults(opts)
	g, err := compile.Load(name, compile.LoadOptions{Shapes: c.shapes, Function: c.function})
	if err != nil {
		return nil, err
	}
	return open(g, c)
}

// OpenGraph opens a graph that the caller has built or loaded. The graph is
// not changed; it must not be changed while the session is open.
func OpenGraph(g *model.Graph, opts ...Option) (*Session, error) { return open(g, defaults(opts)) }

func open(g *model.Graph, c config) (*Session, error) {
	scheme, err := c.parseScheme()
	if err != nil {
		return nil, err
	}
	f, err := compile.Fold(g)
	if err != nil {
		return nil, err
	}
	var o compile.Options
	if o.Quant.Ranges, err = c.calibrate(f.Graph, scheme); err != nil {
		return nil, err
	}
	comp, err := f.Apply(scheme, o)
	if err != nil {
		return nil, err
	}
	return openCompiled(comp, c)
}

// OpenCompiled opens a prepared network (see package compile), so that one
// network serves many devices and masks. Options about the model and its
// compression are ignored.
func OpenCompiled(comp *compile.Compiled, opts ...Option) (*Session, error) {
	return openCompiled(comp, defaults(opts))
}

func openCompiled(comp *compile.Compiled, c config) (*Session, error) {
	d := c.dev
	var err error
	if d == nil {
		if d, err = device.Load(c.device); err != nil {
			return nil, err
		}
	}
	if len(c.overrides) > 0 {
		if d, err = d.Override(c.overrides...); err != nil {
			return nil, err
		}
	}
	m, err := machine.New(d)
	if err != nil {
		return nil, err
	}
	c.sched.Mask = c.mask
	plan, err := scheduler.Solve(comp.Net, m, c.sched)
	if err != nil {
		return nil, err
	}
	s := &Session{compiled: comp, machine: m, plan: plan, options: c.sched, profile: c.profile, threads: c.threads}
	s.report = scheduler.NewPrediction(comp.Net, m, plan, scheduler.Meta{
		Model: comp.Model, Scheme: comp.Scheme.String(), PackageBytes: comp.PackageBytes,
		CompressionRatio: comp.CompressionRatio, Params: comp.Params,
	})
	for _, v := range comp.Net.Graph.Inputs {
		s.inputs = append(s.inputs, Tensor{v.Name, v.DType, v.Shape.Clone()})
	}
	for _, v := range comp.Net.Graph.Outputs {
		s.outputs = append(s.outputs, Tensor{v.Name, v.DType, v.Shape.Clone()})
	}
	return s, nil
}

func (c *config) parseScheme() (quant.Scheme, error) {
	if c.schemeValue != nil {
		return *c.schemeValue, nil
	}
	if c.scheme == compile.Stored.Name {
		return compile.Stored, nil
	}
	return quant.Parse(c.scheme)
}

// Inputs returns what the model reads, in declaration order.
func (s *Session) Inputs() []Tensor { return slices.Clone(s.inputs) }

// Outputs returns what the model writes, in declaration order.
func (s *Session) Outputs() []Tensor { return slices.Clone(s.outputs) }

// Predict returns the cost of the plan: units, times, bytes and energy, by
// layer and in total. Nothing is executed and no weight is computed. The
// document is shared and must not be modified; it stays valid after Close.
func (s *Session) Predict() *result.Prediction { return s.report }

// Explainer answers why the plan is what it is.
func (s *Session) Explainer() (*scheduler.Explainer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	return scheduler.NewExplainer(s.compiled.Net, s.machine, s.plan, s.options)
}

// Compiled returns the prepared network, for other sessions on it and for
// reports; nil after Close.
func (s *Session) Compiled() *compile.Compiled {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.compiled
}

// Plan returns the placement; nil after Close.
func (s *Session) Plan() *scheduler.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan
}

// LiveBytes returns what the activations take during each layer, in the order
// of the prediction's layers; nil after Close.
func (s *Session) LiveBytes() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	return scheduler.LiveBytes(s.compiled.Net, s.machine, s.plan)
}

// Load decodes and packs the weights, which the first run does otherwise.
func (s *Session) Load() error {
	_, err := s.program()
	return err
}

// program returns the compiled program, compiling it at the first call.
func (s *Session) program() (*exec.Program, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	s.mu.Lock()
	closed, prog, err, comp, plan := s.closed, s.prog, s.progErr, s.compiled, s.plan
	s.mu.Unlock()
	switch {
	case closed:
		return nil, ErrClosed
	case prog != nil || err != nil:
		return prog, err
	}
	pool := kernels.NewPool(s.threads)
	prog, err = exec.Compile(comp.Net, exec.Options{Units: plan.Units, Numerics: Arithmetic(), Pool: pool})
	if err != nil {
		pool.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		if err == nil {
			prog.Close()
			pool.Close()
		}
		return nil, ErrClosed
	}
	if s.prog, s.progErr = prog, err; err == nil {
		s.pool = pool
	}
	return prog, err
}

// Run executes the model on named inputs: tensors of the shapes and types that
// [Session.Inputs] lists (any float type is accepted for a float input). It may
// be called by any number of goroutines at once. When ctx is done the run
// stops before its next layer with the context's error.
func (s *Session) Run(ctx context.Context, inputs map[string]*model.Tensor) (*Result, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	args, err := s.arguments(inputs)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	s.running.Add(1)
	net, plan := s.compiled.Net, s.plan
	s.mu.Unlock()
	defer s.running.Done()
	prog, err := s.program()
	if err != nil {
		return nil, err
	}
	var prof *exec.Profile
	if s.profile {
		prof = &exec.Profile{}
	}
	outs, err := prog.Run(ctx, args, prof)
	if err != nil {
		if errors.Is(err, exec.ErrClosed) {
			return nil, ErrClosed
		}
		return nil, err
	}
	r := &Result{Outputs: make(map[string]*model.Tensor, len(outs)), Report: s.report}
	for i, o := range outs {
		r.Outputs[s.outputs[i].Name] = o
	}
	if prof != nil {
		r.Profile = make([]LayerTime, len(net.Layers))
		for i, l := range net.Layers {
			r.Profile[i] = LayerTime{l.Name, string(l.Op), plan.Units[i], float64(prof.LayerNS[i]) / 1e6}
		}
	}
	return r, nil
}

// LayerOutput is a tensor that leaves a layer.
type LayerOutput struct {
	Layer int // index in the network
	Name  string
	Op    string
	Unit  units.Kind
	Value string // name of the tensor in the graph
	// Tensor holds the values as fp32, those of 8-bit tensors dequantized. It
	// is only valid during the call.
	Tensor *model.Tensor
}

// Watch is [Session.Run] that shows every float or 8-bit tensor that leaves a
// layer, in execution order: the way to see where a scheme loses accuracy. It
// packs the weights a second time. An error of see ends the run.
func (s *Session) Watch(ctx context.Context, inputs map[string]*model.Tensor, see func(LayerOutput) error) (*Result, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	args, err := s.arguments(inputs)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	s.running.Add(1)
	net, plan := s.compiled.Net, s.plan
	s.mu.Unlock()
	defer s.running.Done()
	prog, written, err := s.watcher()
	if err != nil {
		return nil, err
	}
	outs, err := prog.Watch(ctx, args, func(v *model.Value, t *model.Tensor) error {
		i := written[v]
		l := net.Layers[i]
		return see(LayerOutput{Layer: i, Name: l.Name, Op: string(l.Op), Unit: plan.Units[i], Value: v.Name, Tensor: t})
	})
	if err != nil {
		return nil, err
	}
	r := &Result{Outputs: make(map[string]*model.Tensor, len(outs)), Report: s.report}
	for i, o := range outs {
		r.Outputs[s.outputs[i].Name] = o
	}
	return r, nil
}

// watcher compiles the program of Watch at the first call.
func (s *Session) watcher() (*exec.Program, map[*model.Value]int, error) {
	if _, err := s.program(); err != nil { // for its pool
		return nil, nil, err
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	s.mu.Lock()
	prog, written, comp, plan, pool := s.watch, s.written, s.compiled, s.plan, s.pool
	s.mu.Unlock()
	if prog != nil {
		return prog, written, nil
	}
	prog, err := exec.Compile(comp.Net, exec.Options{Units: plan.Units, Numerics: Arithmetic(), Pool: pool, Watch: true})
	if err != nil {
		return nil, nil, err
	}
	written = map[*model.Value]int{}
	for _, e := range comp.Net.Edges {
		written[e.Value] = e.Producer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch, s.written = prog, written
	return prog, written, nil
}

// arguments puts named inputs in the model's order.
func (s *Session) arguments(inputs map[string]*model.Tensor) ([]*model.Tensor, error) {
	args := make([]*model.Tensor, len(s.inputs))
	for i, in := range s.inputs {
		t := inputs[in.Name]
		if t == nil {
			return nil, fmt.Errorf("runtime: input %q is missing; the model reads %s", in.Name, list(s.inputs))
		}
		args[i] = t
	}
	if len(inputs) > len(args) {
		for _, name := range slices.Sorted(maps.Keys(inputs)) {
			if !slices.ContainsFunc(s.inputs, func(t Tensor) bool { return t.Name == name }) {
				return nil, fmt.Errorf("runtime: the model has no input %q; it reads %s", name, list(s.inputs))
			}
		}
	}
	return args, nil
}

func list(ts []Tensor) string {
	names := make([]string, len(ts))
	for i, t := range ts {
		names[i] = t.String()
	}
	return strings.Join(names, ", ")
}

// Close ends the session: later calls return [ErrClosed], runs that are under
// way finish first, and the session's weights, arenas and threads are let go.
// Closing twice is harmless.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watch != nil {
		s.watch.Close()
	}
	if s.prog != nil {
		s.prog.Close()
		s.pool.Close()
	}
	s.prog, s.watch, s.written, s.pool, s.compiled, s.plan, s.machine = nil, nil, nil, nil, nil, nil, nil
	return nil
}

// MemoryBytes returns what the session holds on the host now: packed weights,
// and the activation arena of one run.
func (s *Session) MemoryBytes() (weights, arena int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prog == nil {
		return 0, 0
	}
	return s.prog.WeightBytes(), s.prog.ArenaBytes()
}
