package whatif

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/result"
)

// ColumnKind is the type of a column.
type ColumnKind uint8

// The kinds of columns.
const (
	Text    ColumnKind = iota
	Integer            // exact up to 2^53
	Number             // NaN: no value
)

// Column describes a column of the result. Units are part of the name
// (latency_ms, package_bytes).
type Column struct {
	Name string     `json:"name"`
	Kind ColumnKind `json:"kind"`
	Doc  string     `json:"doc"`
}

// MarshalText writes text, integer or number.
func (k ColumnKind) MarshalText() ([]byte, error) {
	return []byte([...]string{"text", "integer", "number"}[k]), nil
}

// Block is a run of rows in the order of the study. Values are by column and
// row: Num[c][r] for numbers (NaN where there is none), Str[c][r] for texts;
// the other is nil.
type Block struct {
	Rows int
	Num  [][]float64
	Str  [][]string
	// Failed counts the configurations of the block that have no plan; their
	// rows say why in the column error, unless a filter dropped them.
	Failed int
}

// output is a column that comes from a prediction.
type output struct {
	Column
	get func(*result.Prediction) float64
}

func unitOf(p *result.Prediction, name string) result.UnitUse {
	for _, u := range p.Units {
		if u.Unit == name {
			return u
		}
	}
	return result.UnitUse{}
}

var outputs = func() []output {
	var out []output
	add := func(kind ColumnKind, name, doc string, f func(*result.Prediction) float64) {
		out = append(out, output{Column{name, kind, doc}, f})
	}
	add(Number, "latency_ms", "time of one request", func(p *result.Prediction) float64 { return p.LatencyMS })
	add(Number, "latency_p10_ms", "10th percentile of the prediction", func(p *result.Prediction) float64 { return p.LatencyP10MS })
	add(Number, "latency_p90_ms", "90th percentile of the prediction", func(p *result.Prediction) float64 { return p.LatencyP90MS })
	add(Number, "energy_mj", "energy of one request", func(p *result.Prediction) float64 { return p.EnergyMJ })
	add(Number, "load_ms", "first load of the model", func(p *result.Prediction) float64 { return p.LoadMS })
	add(Number, "load_cached_ms", "later loads", func(p *result.Prediction) float64 { return p.LoadCachedMS })
	add(Integer, "package_bytes", "size of the .mlpackage", func(p *result.Prediction) float64 { return float64(p.PackageBytes) })
	add(Number, "compression_ratio", "fp16 package over this one", func(p *result.Prediction) float64 { return p.CompressionRatio })
	add(Integer, "peak_memory_bytes", "weights and activations at their peak", func(p *result.Prediction) float64 { return float64(p.PeakMemoryBytes) })
	add(Integer, "weight_memory_bytes", "weights resident after load", func(p *result.Prediction) float64 { return float64(p.WeightMemoryBytes) })
	add(Integer, "activation_memory_bytes", "peak of the live activations", func(p *result.Prediction) float64 { return float64(p.ActivationMemoryBytes) })
	add(Integer, "macs", "multiply-adds of one request", func(p *result.Prediction) float64 { return float64(p.MACs) })
	add(Integer, "params", "parameters", func(p *result.Prediction) float64 { return float64(p.Params) })
	add(Number, "handling_ms", "part of latency_ms: the framework call", func(p *result.Prediction) float64 { return p.HandlingMS })
	add(Number, "floor_ms", "part of latency_ms: floors of the units used", func(p *result.Prediction) float64 { return p.FloorMS })
	add(Number, "layers_ms", "part of latency_ms: the layers", func(p *result.Prediction) float64 { return p.LayersMS })
	add(Number, "transfer_ms", "part of latency_ms: moves between units", func(p *result.Prediction) float64 { return p.TransferMS })
	add(Integer, "segments", "runs of layers on one unit", func(p *result.Prediction) float64 { return float64(len(p.Segments)) })
	for _, u := range []string{"CPU", "GPU", "NE"} {
		low := strings.ToLower(u)
		add(Integer, low+"_layers", "layers on the "+u, func(p *result.Prediction) float64 { return float64(unitOf(p, u).Layers) })
		add(Number, low+"_busy_ms", "layers on the "+u+" and moves to it", func(p *result.Prediction) float64 { return unitOf(p, u).BusyMS })
	}
	add(Number, "requests_per_s", "of a steady stream; policy throughput only", func(p *result.Prediction) float64 {
		if p.Pipeline == nil {
			return math.NaN()
		}
		return p.Pipeline.RequestsPerS
	})
	return out
}()

// baseOutputs are the columns that base adds, as base_latency_ms.
var baseOutputs = []string{"latency_ms", "energy_mj", "package_bytes", "peak_memory_bytes"}

// inputColumns are the columns that say what a row is.
var inputColumns = []Column{
	{"config", Integer, "index of the configuration in the study"},
	{"model", Text, "model"},
	{"device", Text, "device"},
	{"chip", Text, "chip of the device"},
	{"scheme", Text, "compression"},
	{"units", Text, "compute units allowed"},
	{"policy", Text, "placement policy"},
	{"batch", Integer, "inputs of one request"},
}

func goVersion() string { return runtime.Version() }

// rowMaker makes rows of a study.
type rowMaker struct {
	study   *Study
	pricer  *Pricer
	paths   []string // varied parameters
	columns []Column // of the rows as delivered
	all     []Column // before outputs were chosen; what expressions see
	keep    []int    // columns of all that are delivered

	set, out, base, derived, failure int // first column of each group
	wanted                           []output
	exprs                            []*expr
	where                            *expr
	early                            bool // where reads input columns only
}

func newRowMaker(s *Study, p *Pricer) (*rowMaker, error) {
	m := &rowMaker{study: s, pricer: p, paths: s.setPaths(), wanted: outputs}
	m.all = slices.Clone(inputColumns)
	m.set = len(m.all)
	for _, path := range m.paths {
		kind, doc := Number, ""
		d, err := p.Device(s.Devices[0])
		if err != nil {
			return nil, err
		}
		if e, err := m.param(path); err == nil {
			doc = e.Doc
			if e.Unit != "" {
				doc += ", " + e.Unit
			}
		} else if i := slices.IndexFunc(d.Flags(), func(f device.FlagEntry) bool { return f.Path == path }); i >= 0 {
			kind, doc = Text, d.Flags()[i].Doc
		} else {
			return nil, err
		}
		m.all = append(m.all, Column{strings.ReplaceAll(path, ".", "_"), kind, doc})
	}
	m.out = len(m.all)
	for _, o := range m.wanted {
		m.all = append(m.all, o.Column)
	}
	m.base = len(m.all)
	if s.Base != nil {
		for _, name := range baseOutputs {
			o := outputs[findOutput(name)]
			m.all = append(m.all, Column{"base_" + name, Number, "of the base configuration: " + o.Doc})
		}
		m.all = append(m.all, Column{"speedup", Number, "base_latency_ms / latency_ms"})
	}
	m.derived = len(m.all)
	for _, it := range s.Columns {
		name, src := fmt.Sprint(it.Key), fmt.Sprint(it.Value)
		if !isName(name) {
			return nil, fmt.Errorf("whatif: study: column %q: a name has letters, digits and _", name)
		}
		if slices.ContainsFunc(m.all, func(c Column) bool { return c.Name == name }) {
			return nil, fmt.Errorf("whatif: study: column %q exists already", name)
		}
		e, err := compileExpr(src, &scope{m.all})
		if err != nil {
			return nil, fmt.Errorf("%w (columns: %s)", err, name)
		}
		if e.kind == kindBool {
			test := e.test
			e = &expr{kind: kindNum, uses: e.uses, num: func(v *env) float64 {
				if test(v) {
					return 1
				}
				return 0
			}}
		}
		kind := Number
		if e.kind == kindStr {
			kind = Text
		}
		m.exprs = append(m.exprs, e)
		m.all = append(m.all, Column{name, kind, src})
	}
	m.failure = len(m.all)
	m.all = append(m.all, Column{"error", Text, "why there is no plan"})
	if s.Where != "" {
		e, err := compileExpr(s.Where, &scope{m.all})
		if err != nil {
			return nil, fmt.Errorf("%w (where)", err)
		}
		if e.kind != kindBool {
			return nil, fmt.Errorf("whatif: study: where %q is %s (want a truth value)", s.Where, e.kind)
		}
		m.where = e
		m.early = !slices.ContainsFunc(e.uses, func(i int) bool { return i >= m.set })
	}
	for i, c := range m.all {
		if i < m.out || i >= m.base || len(s.Outputs) == 0 || slices.Contains(s.Outputs, c.Name) {
			m.keep = append(m.keep, i)
			m.columns = append(m.columns, c)
		}
	}
	for _, n := range s.Outputs {
		if findOutput(n) < 0 {
			var names []string
			for _, o := range outputs {
				names = append(names, o.Name)
			}
			return nil, fmt.Errorf("whatif: study: outputs: no column %q; there are %s", n, strings.Join(names, ", "))
		}
	}
	return m, nil
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}

func findOutput(name string) int {
	return slices.IndexFunc(outputs, func(o output) bool { return o.Name == name })
}

// param finds a parameter on any device of the study.
func (m *rowMaker) param(path string) (device.Entry, error) {
	var first error
	for _, n := range m.study.deviceNames() {
		d, err := m.pricer.Device(n)
		if err != nil {
			return device.Entry{}, err
		}
		e, err := d.Get(path)
		if err == nil {
			return e, nil
		}
		if first == nil {
			first = err
		}
	}
	return device.Entry{}, first
}

// desk prices rows for one goroutine.
type desk struct {
	*Desk
	m     *rowMaker
	cfg   Config
	env   env
	bases map[string]baseRow
}

type baseRow struct {
	v  [4]float64
	ok bool
}

func (m *rowMaker) desk() *desk {
	return &desk{Desk: m.pricer.Desk(), m: m, bases: map[string]baseRow{},
		env: env{num: make([]float64, len(m.all)), str: make([]string, len(m.all))}}
}

// row makes row i in the desk's environment and reports whether the filter
// keeps it and whether it has a plan. An error is one of the study, not of the
// configuration.
func (d *desk) row(i int64) (keep, ok bool, err error) {
	m, e := d.m, &d.env
	if err := m.study.config(i, &d.cfg); err != nil {
		return false, false, err
	}
	c := &d.cfg
	dev, err := m.pricer.Device(c.Device)
	if err != nil {
		return false, false, err
	}
	e.num[0] = float64(i)
	e.str[1], e.str[2], e.str[3], e.str[4], e.str[5], e.str[6] = c.Model, c.Device, dev.ChipLabel, c.Scheme, c.Units.String(), string(c.Policy)
	e.num[7] = float64(c.Batch)
	for k := m.set; k < m.failure; k++ {
		e.num[k], e.str[k] = math.NaN(), ""
	}
	e.str[m.failure] = ""
	if m.early && !m.where.test(e) {
		return false, true, nil
	}
	pl, perr := d.Place(c)
	if perr != nil && pl.Compiled == nil {
		if serr := d.studyError(c); serr != nil {
			return false, false, serr
		}
	}
	if pl.Device != nil {
		dev = pl.Device
	}
	for k, path := range m.paths {
		if m.all[m.set+k].Kind == Text {
			for _, f := range dev.Flags() {
				if f.Path == path {
					e.str[m.set+k] = fmt.Sprint(f.Value)
				}
			}
			continue
		}
		if x, err := dev.Get(path); err == nil {
			e.num[m.set+k] = x.Value
		}
	}
	if perr != nil {
		e.str[m.failure] = perr.Error()
	} else {
		p := pl.Prediction()
		for k := range m.wanted {
			e.num[m.out+k] = m.wanted[k].get(p)
		}
	}
	if m.study.Base != nil {
		if err := d.baseRow(perr == nil); err != nil {
			return false, false, err
		}
	}
	for k, x := range m.exprs {
		if x.kind == kindStr {
			e.str[m.derived+k] = x.str(e)
		} else {
			e.num[m.derived+k] = x.num(e)
		}
	}
	return m.where == nil || m.where.test(e), perr == nil, nil
}

// studyError tells the errors that spoil the whole study (a model that does
// not load) from those of one configuration; nil for the latter.
func (d *desk) studyError(c *Config) error {
	if _, cerr := d.p.Compiled(c); cerr != nil {
		return cerr
	}
	return nil
}

// baseRow fills the columns of the base configuration.
func (d *desk) baseRow(ok bool) error {
	m, e := d.m, &d.env
	lat, own := e.num[m.out], d.cfg
	base := own
	base.Set = slices.Clone(own.Set)
	if err := m.study.Base.replace(&base); err != nil {
		return err
	}
	key := fmt.Sprint(base)
	b, hit := d.bases[key]
	if !hit {
		pl, err := d.Place(&base)
		switch {
		case err == nil:
			p := pl.Prediction()
			for k, name := range baseOutputs {
				b.v[k] = outputs[findOutput(name)].get(p)
			}
			b.ok = true
		case pl.Compiled == nil:
			if serr := d.studyError(&base); serr != nil {
				return serr
			}
		}
		if len(d.bases) >= 1024 {
			clear(d.bases)
		}
		d.bases[key] = b
	}
	if !b.ok {
		return nil
	}
	for k := range baseOutputs {
		e.num[m.base+k] = b.v[k]
	}
	if ok {
		e.num[m.base+len(baseOutputs)] = b.v[0] / lat
	}
	return nil
}

// newBlock makes an empty block with room for n rows.
func (m *rowMaker) newBlock(n int) *Block {
	b := &Block{Num: make([][]float64, len(m.columns)), Str: make([][]string, len(m.columns))}
	for k, c := range m.columns {
		if c.Kind == Text {
			b.Str[k] = make([]string, 0, n)
		} else {
			b.Num[k] = make([]float64, 0, n)
		}
	}
	return b
}

// fill makes the rows of configurations from lo up to hi.
func (d *desk) fill(b *Block, lo, hi int64, stop func() bool) error {
	for i := lo; i < hi; i++ {
		if i&15 == 0 && stop() {
			return errStopped
		}
		keep, ok, err := d.row(i)
		if err != nil {
			return err
		}
		if !ok {
			b.Failed++
		}
		if !keep {
			continue
		}
		b.Rows++
		for k, c := range d.m.keep {
			if d.m.all[c].Kind == Text {
				b.Str[k] = append(b.Str[k], d.env.str[c])
			} else {
				b.Num[k] = append(b.Num[k], d.env.num[c])
			}
		}
	}
	return nil
}

var errStopped = errors.New("whatif: stopped")

// IsInput tells whether column k of the rows says what was priced (model,
// device, a varied parameter), not what came out.
func (r *Runner) IsInput(k int) bool { return r.rows.keep[k] < r.rows.out }

// IsDerived tells whether column k of the rows is one that the study defines.
func (r *Runner) IsDerived(k int) bool {
	return r.rows.keep[k] >= r.rows.derived && r.rows.keep[k] < r.rows.failure
}
