package whatif

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/machine"
)

// Config is one configuration: what runs where, and what is changed about the
// device.
type Config struct {
	Model  string           // path or built-in network
	Device string           // device or chip
	Scheme string           // scheme's name, or a YAML file
	Units  units.Mask       // 0: all
	Policy scheduler.Policy // "": optimal
	Batch  int              // 0: as the model has it
	// Set changes figures of the device, as device.Override takes them.
	Set []string
	// Pins name layers that must run on a unit.
	Pins []scheduler.Pin
}

// String names the configuration in a few words.
func (c Config) String() string {
	s := fmt.Sprintf("%s %s on %s", c.Model, c.Scheme, c.Device)
	if c.Units != 0 && c.Units != units.All {
		s += " " + c.Units.String()
	}
	if c.Policy != "" && c.Policy != scheduler.Optimal {
		s += " " + string(c.Policy)
	}
	if c.Batch > 1 {
		s += fmt.Sprintf(" batch %d", c.Batch)
	}
	for _, x := range c.Set {
		s += " " + x
	}
	for _, p := range c.Pins {
		s += " " + p.String()
	}
	return s
}

// Pricer prices configurations. It keeps what it has loaded and compiled: a
// model once, a network once per scheme and batch size, a device once. It is
// safe for concurrent use.
type Pricer struct {
	// Dir is what relative paths of models and schemes start from; "" is the
	// working folder.
	Dir string

	mu       sync.Mutex
	folded   map[foldKey]*memo[*compile.Folded]
	compiled map[compileKey]*memo[*compile.Compiled]
	schemes  map[string]*memo[quant.Scheme]
	devices  map[string]*memo[*device.Device]
	graphs   map[string]*model.Graph
	desks    sync.Pool
}

type foldKey struct {
	model string
	batch int
}

type compileKey struct {
	foldKey
	scheme string
}

// memo is a value that is made once.
type memo[T any] struct {
	once sync.Once
	v    T
	err  error
}

func once[K comparable, T any](p *Pricer, m *map[K]*memo[T], k K, f func() (T, error)) (T, error) {
	p.mu.Lock()
	if *m == nil {
		*m = map[K]*memo[T]{}
	}
	e := (*m)[k]
	if e == nil {
		e = &memo[T]{}
		(*m)[k] = e
	}
	p.mu.Unlock()
	e.once.Do(func() { e.v, e.err = f() })
	return e.v, e.err
}

// AddGraph makes a graph known under a name, as if it were a model of that
// name.
func (p *Pricer) AddGraph(name string, g *model.Graph) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.graphs == nil {
		p.graphs = map[string]*model.Graph{}
	}
	p.graphs[name] = g
}

func (p *Pricer) path(name string) string {
	if p.Dir == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(p.Dir, name)
}

// Graph loads a model.
func (p *Pricer) Graph(name string) (*model.Graph, error) {
	p.mu.Lock()
	g := p.graphs[name]
	p.mu.Unlock()
	if g != nil {
		return g, nil
	}
	switch strings.ToLower(filepath.Ext(strings.TrimRight(name, "/"))) {
	case ".onnx", ".mlpackage", ".mlmodel":
		name = p.path(name)
	}
	return compile.Load(name, compile.LoadOptions{})
}

// Folded returns a model after the graph passes, with a batch size.
func (p *Pricer) Folded(name string, batch int) (*compile.Folded, error) {
	return once(p, &p.folded, foldKey{name, batch}, func() (*compile.Folded, error) {
		g, err := p.Graph(name)
		if err != nil {
			return nil, err
		}
		if batch > 1 {
			if g, err = Batch(g, batch); err != nil {
				return nil, err
			}
		}
		return compile.Fold(g)
	})
}

// Compiled returns the prepared network of a configuration.
func (p *Pricer) Compiled(c *Config) (*compile.Compiled, error) {
	k := compileKey{foldKey{c.Model, c.Batch}, c.Scheme}
	return once(p, &p.compiled, k, func() (*compile.Compiled, error) {
		f, err := p.Folded(c.Model, c.Batch)
		if err != nil {
			return nil, err
		}
		s, err := p.Scheme(c.Scheme)
		if err != nil {
			return nil, err
		}
		return f.Apply(s, compile.Options{})
	})
}

// Scheme reads a scheme: a name, "stored", or a YAML file.
func (p *Pricer) Scheme(name string) (quant.Scheme, error) {
	return once(p, &p.schemes, name, func() (quant.Scheme, error) {
		if name == compile.Stored.Name {
			return compile.Stored, nil
		}
		ext := strings.ToLower(filepath.Ext(name))
		if ext != ".yaml" && ext != ".yml" {
			return quant.Parse(name)
		}
		f, err := os.Open(p.path(name))
		if err != nil {
			return quant.Scheme{}, fmt.Errorf("whatif: scheme: %w", err)
		}
		defer f.Close()
		s, err := quant.ReadConfig(f)
		if err != nil {
			return s, fmt.Errorf("whatif: scheme %s: %w", name, err)
		}
		if s.Name == "" {
			s.Name = strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
		}
		return s, nil
	})
}

// AddScheme makes a scheme known under a name.
func (p *Pricer) AddScheme(name string, s quant.Scheme) {
	_, _ = once(p, &p.schemes, name, func() (quant.Scheme, error) { return s, nil })
}

// Device loads a device as catalogued.
func (p *Pricer) Device(name string) (*device.Device, error) {
	return once(p, &p.devices, name, func() (*device.Device, error) { return device.Load(name) })
}

// Desk is what one goroutine prices with: it reuses the memory of the solver.
type Desk struct {
	p      *Pricer
	solver scheduler.Solver
	plan   scheduler.Plan
}

// Desk returns a desk of the pricer, for one goroutine.
func (p *Pricer) Desk() *Desk { return &Desk{p: p} }

// Placed is a priced configuration: everything that a report could need. Plan
// belongs to the desk and is overwritten by its next call.
type Placed struct {
	Config   Config
	Compiled *compile.Compiled
	Device   *device.Device
	Machine  *units.Machine
	Options  scheduler.Options
	Plan     *scheduler.Plan
}

// Place solves a configuration.
func (d *Desk) Place(c *Config) (Placed, error) {
	var r Placed
	comp, err := d.p.Compiled(c)
	if err != nil {
		return r, err
	}
	dev, err := d.p.Device(c.Device)
	if err != nil {
		return r, err
	}
	if len(c.Set) > 0 {
		if dev, err = dev.Override(c.Set...); err != nil {
			return r, err
		}
	}
	m, err := machine.New(dev)
	if err != nil {
		return r, err
	}
	r = Placed{Config: *c, Compiled: comp, Device: dev, Machine: m, Plan: &d.plan,
		Options: scheduler.Options{Mask: c.Units, Policy: c.Policy, Pins: c.Pins}}
	return r, d.solver.SolveInto(comp.Net, m, &r.Options, &d.plan)
}

// Prediction writes a placed configuration as the document that the command
// line prints.
func (r *Placed) Prediction() *result.Prediction {
	c := r.Compiled
	return scheduler.NewPrediction(c.Net, r.Machine, r.Plan, scheduler.Meta{
		Model: c.Model, Scheme: c.Scheme.String(), PackageBytes: c.PackageBytes,
		CompressionRatio: c.CompressionRatio, Params: c.Params,
	})
}

// Predict prices a configuration.
func (d *Desk) Predict(c *Config) (*result.Prediction, error) {
	r, err := d.Place(c)
	if err != nil {
		return nil, err
	}
	return r.Prediction(), nil
}

// Predict prices one configuration; callers with many keep a [Desk].
func (p *Pricer) Predict(c Config) (*result.Prediction, error) {
	d, _ := p.desks.Get().(*Desk)
	if d == nil {
		d = p.Desk()
	}
	defer p.desks.Put(d)
	return d.Predict(&c)
}

// Batch returns a copy of a graph for batches of n: the leading dimension of
// every input is multiplied, and all shapes are inferred anew. Graphs that fix
// their batch inside (in the shape of a reshape, for example) are refused.
func Batch(g *model.Graph, n int) (*model.Graph, error) {
	if n < 1 || n > 1<<16 {
		return nil, fmt.Errorf("whatif: batch %d (want 1 to 65536)", n)
	}
	out := g.Clone()
	was := map[string]model.Shape{}
	for _, v := range g.Outputs {
		was[v.Name] = v.Shape.Clone()
	}
	for _, v := range out.Inputs {
		if len(v.Shape) == 0 || v.Shape[0] < 1 {
			return nil, fmt.Errorf("whatif: model %s: input %q of shape %v has no batch dimension", g.Name, v.Name, v.Shape)
		}
		v.Shape = v.Shape.Clone()
		v.Shape[0] *= n
	}
	// Forget what was inferred, so that nothing keeps the old batch.
	for _, x := range out.Nodes {
		for _, v := range x.Outputs {
			if v != nil {
				v.Shape = ops.Unranked()
			}
		}
	}
	if err := ops.InferGraph(out); err != nil {
		return nil, fmt.Errorf("whatif: model %s does not take batches of %d: %w", g.Name, n, err)
	}
	for _, v := range out.Outputs {
		w := was[v.Name]
		if len(v.Shape) != len(w) || len(w) == 0 || v.Shape[0] != w[0]*n || !v.Shape[1:].Equal(w[1:]) {
			return nil, fmt.Errorf("whatif: model %s does not take batches of %d: its output %q would be %v", g.Name, n, v.Name, v.Shape)
		}
	}
	return out, nil
}
