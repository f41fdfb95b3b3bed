package whatif

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/internal/pattern"
	"github.com/triune-sim/triune/internal/strictyaml"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// Study says what to vary and what to do with the results. Its fields are the
// keys of the YAML file; docs/whatif.md explains them.
type Study struct {
	Name     string `yaml:"name" json:"name"`
	Question string `yaml:"question" json:"question,omitempty"`

	Models   []string `yaml:"models" json:"models,omitempty"`
	Devices  []string `yaml:"devices" json:"devices,omitempty"`
	Schemes  []string `yaml:"schemes" json:"schemes,omitempty"`
	Units    []string `yaml:"units" json:"units,omitempty"`
	Policies []string `yaml:"policies" json:"policies,omitempty"`
	Batch    []int    `yaml:"batch" json:"batch,omitempty"`
	// Pins name layers that must run on a unit, PATTERN=UNIT, in every
	// configuration.
	Pins []string `yaml:"pins" json:"pins,omitempty"`
	// Set varies device parameters: by path (or paths joined by commas, which
	// then change together), a value, a list of values, or a range.
	Set yaml.MapSlice `yaml:"set" json:"-"`
	// Configs lists configurations one by one, instead of a grid. What an
	// entry leaves out is the first choice of the lists above.
	Configs []Entry `yaml:"configs" json:"configs,omitempty"`
	// Sample draws points instead of the whole grid.
	Sample *Sample `yaml:"sample" json:"sample,omitempty"`

	// Base adds columns of the same configuration with some choices replaced.
	Base *Entry `yaml:"base" json:"base,omitempty"`
	// Where keeps the rows for which the expression is true.
	Where string `yaml:"where" json:"where,omitempty"`
	// Columns adds derived columns: names and expressions.
	Columns yaml.MapSlice `yaml:"columns" json:"-"`
	// Outputs are the result columns to keep; all of them if empty.
	Outputs []string `yaml:"outputs" json:"outputs,omitempty"`

	Analyses []Analysis `yaml:"analyses" json:"analyses,omitempty"`

	dir  string
	axes []Axis // varying first to last, the last one fastest
	pins []scheduler.Pin
}

// Entry is a configuration with parts left out.
type Entry struct {
	Model  string        `yaml:"model" json:"model,omitempty"`
	Device string        `yaml:"device" json:"device,omitempty"`
	Scheme string        `yaml:"scheme" json:"scheme,omitempty"`
	Units  string        `yaml:"units" json:"units,omitempty"`
	Policy string        `yaml:"policy" json:"policy,omitempty"`
	Batch  int           `yaml:"batch" json:"batch,omitempty"`
	Set    yaml.MapSlice `yaml:"set" json:"-"`
}

// Sample is how points are drawn: method random or sobol, how many, and the
// seed of the draw.
type Sample struct {
	Method string `yaml:"method" json:"method"`
	N      int    `yaml:"n" json:"n"`
	Seed   uint64 `yaml:"seed" json:"seed"`
}

const (
	maxStudyBytes = 4 << 20
	maxRows       = 1 << 40
)

// ReadFile reads a study from a YAML file. Relative paths in it start from its
// folder.
func ReadFile(name string) (*Study, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("whatif: %w", err)
	}
	defer f.Close()
	s, err := Read(f, filepath.Dir(name))
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, name)
	}
	if s.Name == "" {
		s.Name = strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
	}
	return s, nil
}

// Read reads a study from YAML; unknown keys are errors with their line. dir
// is what relative paths in the study start from.
func Read(r io.Reader, dir string) (*Study, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxStudyBytes+1))
	if err != nil {
		return nil, fmt.Errorf("whatif: %w", err)
	}
	if len(b) > maxStudyBytes {
		return nil, fmt.Errorf("whatif: a study of more than %d bytes", maxStudyBytes)
	}
	s := &Study{dir: dir}
	if err := strictyaml.Unmarshal(b, s); err != nil {
		line, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
		return nil, fmt.Errorf("whatif: study: %s", goTypes.ReplaceAllString(line, "$1 where $2 is wanted"))
	}
	return s, s.init()
}

// goTypes is how the decoder says that a value is of the wrong kind.
var goTypes = regexp.MustCompile(`cannot unmarshal (\S+) into Go .*of type (?:\*|\[\]|whatif\.)*(\S+)`)

// init checks the study and lists its axes.
func (s *Study) init() error {
	first := func(list *[]string, def string) {
		if len(*list) == 0 {
			*list = []string{def}
		}
	}
	if len(s.Models) == 0 && len(s.Configs) == 0 && len(s.Analyses) == 0 {
		return fmt.Errorf("whatif: study: no models (want models: [mobilenet_v2])")
	}
	var err error
	if s.Models, err = expand(s.Models, matchModels); err != nil {
		return err
	}
	if s.Devices, err = expand(s.Devices, device.Match); err != nil {
		return err
	}
	first(&s.Devices, "iphone-14-pro")
	first(&s.Schemes, "fp16")
	first(&s.Units, units.All.String())
	first(&s.Policies, string(scheduler.Optimal))
	if len(s.Batch) == 0 {
		s.Batch = []int{1}
	}
	for _, u := range s.Units {
		if _, err := units.ParseMask(u); err != nil {
			return err
		}
	}
	for _, p := range s.Policies {
		if _, err := scheduler.ParsePolicy(p); err != nil {
			return err
		}
	}
	s.pins = nil
	for _, x := range s.Pins {
		p, err := scheduler.ParsePin(x)
		if err != nil {
			return err
		}
		s.pins = append(s.pins, p)
	}
	var batch []string
	for _, b := range s.Batch {
		if b < 1 || b > 1<<16 {
			return fmt.Errorf("whatif: study: batch %d (want 1 to 65536)", b)
		}
		batch = append(batch, strconv.Itoa(b))
	}
	s.axes = []Axis{{Name: "model", Values: s.Models}, {Name: "device", Values: s.Devices}, {Name: "scheme", Values: s.Schemes},
		{Name: "units", Values: s.Units}, {Name: "policy", Values: s.Policies}, {Name: "batch", Values: batch}}
	seen := map[string]bool{}
	for _, it := range s.Set {
		a, err := setAxis(it, s.Sample != nil)
		if err != nil {
			return err
		}
		for _, p := range a.Paths {
			if seen[p] {
				return fmt.Errorf("whatif: study: set: %s is varied twice", p)
			}
			seen[p] = true
		}
		s.axes = append(s.axes, a)
	}
	if len(s.Configs) > 0 && s.Sample != nil {
		return fmt.Errorf("whatif: study: configs and sample exclude each other")
	}
	if len(s.Configs) > 0 && len(s.Set) > 0 {
		return fmt.Errorf("whatif: study: configs and set exclude each other (put set into the configurations)")
	}
	for i := range s.Configs {
		if err := s.Configs[i].check(); err != nil {
			return fmt.Errorf("%w (configs, entry %d)", err, i+1)
		}
		if s.Configs[i].Model == "" && len(s.Models) == 0 {
			return fmt.Errorf("whatif: study: configs, entry %d: no model", i+1)
		}
	}
	if s.Base != nil {
		if err := s.Base.check(); err != nil {
			return fmt.Errorf("%w (base)", err)
		}
	}
	if p := s.Sample; p != nil {
		switch p.Method {
		case "random", "sobol":
		default:
			return fmt.Errorf("whatif: study: sample method %q (want random or sobol)", p.Method)
		}
		if p.N < 1 || p.N > 1<<30 {
			return fmt.Errorf("whatif: study: sample n %d (want 1 to %d)", p.N, 1<<30)
		}
		if d := s.dims(); p.Method == "sobol" && len(d) > sobolDims {
			return fmt.Errorf("whatif: study: a Sobol sample of %d varying axes (want at most %d, or method random)", len(d), sobolDims)
		}
	}
	if s.Len() > maxRows {
		return fmt.Errorf("whatif: study: more than %d configurations", int64(maxRows))
	}
	for i := range s.Analyses {
		if err := s.Analyses[i].check(); err != nil {
			return fmt.Errorf("%w (analyses, entry %d)", err, i+1)
		}
	}
	return nil
}

func (e *Entry) check() error {
	if e.Units != "" {
		if _, err := units.ParseMask(e.Units); err != nil {
			return err
		}
	}
	if e.Policy != "" {
		if _, err := scheduler.ParsePolicy(e.Policy); err != nil {
			return err
		}
	}
	if e.Batch < 0 || e.Batch > 1<<16 {
		return fmt.Errorf("whatif: study: batch %d (want 1 to 65536)", e.Batch)
	}
	_, err := changes(e.Set)
	return err
}

// changes turns a mapping of paths to single values into overrides.
func changes(m yaml.MapSlice) ([]string, error) {
	var out []string
	for _, it := range m {
		v, err := scalar(it.Value)
		if err != nil {
			return nil, fmt.Errorf("whatif: study: set: %v: %w", it.Key, err)
		}
		for p := range strings.SplitSeq(fmt.Sprint(it.Key), ",") {
			out = append(out, strings.TrimSpace(p)+"="+v)
		}
	}
	return out, nil
}

// scalar writes a YAML value as an override's right side.
func scalar(v any) (string, error) {
	switch x := v.(type) {
	case string:
		if strings.TrimSpace(x) == "" {
			return "", fmt.Errorf("an empty value")
		}
		return strings.TrimSpace(x), nil
	case bool:
		return strconv.FormatBool(x), nil
	case uint64:
		return strconv.FormatUint(x, 10), nil
	case int64:
		return strconv.FormatInt(x, 10), nil
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return "", fmt.Errorf("%v is no finite number", x)
		}
		return strconv.FormatFloat(x, 'g', -1, 64), nil
	}
	what := map[bool]string{true: "a list", false: "a mapping"}[reflect.ValueOf(v).Kind() == reflect.Slice]
	if v == nil {
		what = "no value"
	}
	return "", fmt.Errorf("%s (want a number, a factor such as x1.5, a step such as +2 or +10%%, or true or false)", what)
}

func setAxis(it yaml.MapItem, sampled bool) (Axis, error) {
	a := Axis{Name: strings.TrimSpace(fmt.Sprint(it.Key))}
	for p := range strings.SplitSeq(a.Name, ",") {
		if p = strings.TrimSpace(p); p == "" {
			return a, fmt.Errorf("whatif: study: set: %q names an empty parameter", a.Name)
		}
		a.Paths = append(a.Paths, p)
	}
	list, ok := it.Value.([]any)
	if !ok {
		list = []any{it.Value}
	}
	if len(list) == 0 {
		return a, fmt.Errorf("whatif: study: set: %s has no values", a.Name)
	}
	for _, v := range list {
		s, err := scalar(v)
		if err != nil {
			return a, fmt.Errorf("whatif: study: set: %s: %w", a.Name, err)
		}
		r, err := parseSpan(s)
		if err != nil {
			return a, fmt.Errorf("%w (set: %s)", err, a.Name)
		}
		switch {
		case r == nil:
			a.Values = append(a.Values, s)
		case sampled && r.n == 0:
			if len(list) > 1 {
				return a, fmt.Errorf("whatif: study: set: %s: a range to sample stands alone, not in a list", a.Name)
			}
			a.span = r
		case r.n == 0:
			return a, fmt.Errorf("whatif: study: set: %s: range %q has no count (want %q)", a.Name, s, s+" log 9")
		default:
			a.Values = append(a.Values, r.values()...)
		}
	}
	return a, nil
}

// dims lists the axes that vary.
func (s *Study) dims() []int {
	var d []int
	for i := range s.axes {
		if s.axes[i].span != nil || len(s.axes[i].Values) > 1 {
			d = append(d, i)
		}
	}
	return d
}

// Axes lists what the study varies, in the order of the rows: the last axis
// changes fastest.
func (s *Study) Axes() []Axis { return s.axes }

// Len returns the number of configurations.
func (s *Study) Len() int64 {
	switch {
	case len(s.Configs) > 0:
		return int64(len(s.Configs))
	case s.Sample != nil:
		return int64(s.Sample.N)
	}
	n := int64(1)
	for i := range s.axes {
		k := int64(len(s.axes[i].Values))
		if k > 0 && n > maxRows/k {
			return maxRows + 1
		}
		n *= k
	}
	return n
}

// Config returns configuration i, 0 <= i < Len.
func (s *Study) Config(i int64) (Config, error) {
	var c Config
	if n := s.Len(); i < 0 || i >= n {
		return c, fmt.Errorf("whatif: configuration %d of a study of %d", i, n)
	}
	err := s.config(i, &c)
	return c, err
}

func (s *Study) config(i int64, c *Config) error {
	if len(s.Configs) > 0 {
		e := &s.Configs[i]
		*c = Config{Device: s.Devices[0], Scheme: s.Schemes[0], Batch: s.Batch[0], Set: c.Set[:0], Pins: s.pins}
		c.Units, _ = units.ParseMask(s.Units[0])
		c.Policy, _ = scheduler.ParsePolicy(s.Policies[0])
		if len(s.Models) > 0 {
			c.Model = s.Models[0]
		}
		return e.replace(c)
	}
	var at [64]string
	vals := at[:0]
	if s.Sample != nil {
		draw := random
		if s.Sample.Method == "sobol" {
			draw = sobol
		}
		d := 0
		for k := range s.axes {
			a := &s.axes[k]
			if a.span == nil && len(a.Values) == 1 {
				vals = append(vals, a.Values[0])
				continue
			}
			vals = append(vals, a.pick(draw(uint64(i), d, s.Sample.Seed)))
			d++
		}
	} else {
		vals = vals[:0]
		for range s.axes {
			vals = append(vals, "")
		}
		for k := len(s.axes) - 1; k >= 0; k-- {
			n := int64(len(s.axes[k].Values))
			vals[k] = s.axes[k].Values[i%n]
			i /= n
		}
	}
	set := c.Set[:0]
	*c = Config{Model: vals[0], Device: vals[1], Scheme: vals[2], Pins: s.pins}
	c.Units, _ = units.ParseMask(vals[3])
	c.Policy, _ = scheduler.ParsePolicy(vals[4])
	c.Batch, _ = strconv.Atoi(vals[5])
	for k := 6; k < len(s.axes); k++ {
		for _, p := range s.axes[k].Paths {
			set = append(set, p+"="+vals[k])
		}
	}
	c.Set = set
	return nil
}

// replace puts the parts that an entry states into a configuration; its
// changes to the device come after those of the configuration.
func (e *Entry) replace(c *Config) error {
	if e.Model != "" {
		c.Model = e.Model
	}
	if e.Device != "" {
		c.Device = e.Device
	}
	if e.Scheme != "" {
		c.Scheme = e.Scheme
	}
	if e.Units != "" {
		m, err := units.ParseMask(e.Units)
		if err != nil {
			return err
		}
		c.Units = m
	}
	if e.Policy != "" {
		p, err := scheduler.ParsePolicy(e.Policy)
		if err != nil {
			return err
		}
		c.Policy = p
	}
	if e.Batch > 0 {
		c.Batch = e.Batch
	}
	set, err := changes(e.Set)
	if err != nil {
		return err
	}
	if len(set) > 0 {
		c.Set = append(slices.Clone(c.Set), set...)
	}
	return nil
}

// setPaths lists the device parameters that the study varies.
func (s *Study) setPaths() []string {
	var out []string
	add := func(p string) {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for i := range s.axes {
		for _, p := range s.axes[i].Paths {
			add(p)
		}
	}
	for i := range s.Configs {
		set, _ := changes(s.Configs[i].Set)
		for _, ch := range set {
			p, _, _ := strings.Cut(ch, "=")
			add(p)
		}
	}
	return out
}

// Stamp says what a result was made from.
type Stamp struct {
	Study   string `json:"study"`
	Hash    string `json:"hash"`    // of the study, the devices' figures, the files and the program's code
	Version string `json:"version"` // of Triune
	Build   string `json:"build"`   // the commit or version of the code, or a hash of the executable
	Go      string `json:"go"`
	Seed    uint64 `json:"seed"`
	Configs int64  `json:"configurations"`
}

// Version is the version of the program: its module's, or the commit it was
// built from.
func Version() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return version(bi)
}

func version(bi *debug.BuildInfo) string {
	v := bi.Main.Version
	if v == "" || v == "(devel)" {
		v = cmp.Or(setting(bi, "vcs.revision"), "(devel)")
	}
	return v
}

func setting(bi *debug.BuildInfo, key string) string {
	for _, x := range bi.Settings {
		if x.Key == key {
			return x.Value
		}
	}
	return ""
}

// thisBuild tells the code of this program from other code.
var thisBuild = sync.OnceValues(func() (string, error) {
	bi, _ := debug.ReadBuildInfo()
	return buildOf(bi, os.Executable)
})

// buildOf names the code of a program: by the commit, or the released version.
// Where that does not say what was compiled, because files were changed or
// nothing is known, a hash of the executable does.
func buildOf(bi *debug.BuildInfo, executable func() (string, error)) (string, error) {
	if bi != nil {
		revision, modified, v := setting(bi, "vcs.revision"), setting(bi, "vcs.modified"), bi.Main.Version
		switch {
		case revision != "" && modified == "false":
			return revision, nil
		case revision == "" && v != "" && v != "(devel)" && !strings.HasSuffix(v, "+dirty"):
			return v, nil
		}
	}
	name, err := executable()
	if err != nil {
		return "", fmt.Errorf("whatif: the program's own file: %w", err)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("whatif: the program's own file: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("whatif: the program's own file: %w", err)
	}
	return "executable " + hex.EncodeToString(h.Sum(nil))[:16], nil
}

// stamp hashes everything that the rows depend on.
func (s *Study) stamp(p *Pricer) (Stamp, error) {
	build, err := thisBuild()
	if err != nil {
		return Stamp{}, err
	}
	st := Stamp{Study: s.Name, Version: Version(), Build: build, Go: goVersion(), Configs: s.Len()}
	if s.Sample != nil {
		st.Seed = s.Sample.Seed
	}
	h := sha256.New()
	e := json.NewEncoder(h)
	if err := e.Encode(s); err != nil {
		return st, fmt.Errorf("whatif: %w", err)
	}
	put := func(v any) { fmt.Fprintf(h, "%q\n", fmt.Sprint(v)) }
	put(st.Version)
	put(st.Build)
	put(runtime.GOARCH) // some processors fuse multiplications and additions
	for _, m := range []yaml.MapSlice{s.Set, s.Columns} {
		put(m)
	}
	for i := range s.Configs {
		put(s.Configs[i].Set)
	}
	if s.Base != nil {
		put(s.Base.Set)
	}
	for _, n := range s.deviceNames() {
		d, err := p.Device(n)
		if err != nil {
			return st, err
		}
		for _, x := range d.Params() {
			put(x.Path)
			put(strconv.FormatFloat(x.Value, 'g', -1, 64))
		}
		for _, x := range d.Flags() {
			put(x.Path)
			put(x.Value)
		}
	}
	for _, n := range s.fileNames() {
		if err := hashFile(h, p.path(n)); err != nil {
			return st, err
		}
	}
	st.Hash = hex.EncodeToString(h.Sum(nil))[:16]
	return st, nil
}

// expand replaces each pattern of a list by the names it matches, each name once.
func expand(list []string, match func(string) ([]string, error)) ([]string, error) {
	var out []string
	for _, l := range list {
		names, err := match(l)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out, nil
}

// matchModels returns the built-in networks that a shell pattern matches; a
// file's name is no pattern.
func matchModels(names string) ([]string, error) {
	if isFile(names) {
		return []string{names}, nil
	}
	out, err := pattern.Match(names, zoo.Names())
	if err != nil {
		return nil, fmt.Errorf("whatif: study: models: %w", err)
	}
	return out, nil
}

func (s *Study) deviceNames() []string {
	out := slices.Clone(s.Devices)
	for i := range s.Configs {
		if d := s.Configs[i].Device; d != "" {
			out = append(out, d)
		}
	}
	if s.Base != nil && s.Base.Device != "" {
		out = append(out, s.Base.Device)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// fileNames lists the files that the study names.
func (s *Study) fileNames() []string {
	all := append(slices.Clone(s.Models), s.Schemes...)
	for i := range s.Configs {
		all = append(all, s.Configs[i].Model, s.Configs[i].Scheme)
	}
	if s.Base != nil {
		all = append(all, s.Base.Model, s.Base.Scheme)
	}
	all = slices.DeleteFunc(all, func(n string) bool { return !isFile(n) })
	slices.Sort(all)
	return slices.Compact(all)
}

// isFile reports whether a model or scheme is named by a file.
func isFile(name string) bool {
	switch strings.ToLower(filepath.Ext(strings.TrimRight(name, "/"))) {
	case ".onnx", ".mlpackage", ".mlmodel", ".yaml", ".yml":
		return true
	}
	return false
}

// hashFile adds the contents of a file, or of all files of a folder.
func hashFile(w io.Writer, name string) error {
	return filepath.WalkDir(name, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("whatif: %w", err)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(p)
		if err != nil {
			return fmt.Errorf("whatif: %w", err)
		}
		defer f.Close()
		rel, _ := filepath.Rel(name, p)
		fmt.Fprintf(w, "%q\n", rel)
		_, err = io.Copy(w, f)
		return err
	})
}
