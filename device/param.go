package device

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// Param is one numeric figure of a device with where it comes from.
type Param struct {
	// Value is the figure, in the unit of its schema field.
	Value float64 `yaml:"value"`
	// Range is what is plausible, [low, high]; a fit stays inside it.
	Range [2]float64 `yaml:"range,flow"`
	// Source is a tag of the source list (see [Sources]), "A4" style sections
	// of it, or "interpolated from ..." where nobody measured.
	Source string `yaml:"source"`
	// Prior is the value before the fit, where calibration may move it: what
	// the sources alone would give. Nil where nothing is fitted.
	Prior *float64 `yaml:"prior,omitempty"`
	// Fitted is true when calibration chose the value inside Range.
	Fitted bool `yaml:"fitted,omitempty"`
	// From names the entry of the catalogue that states the figure (the chip
	// itself, or what it inherits from). It is filled by [Load].
	From string `yaml:"-"`
}

// Flag is one yes-or-no figure of a device with where it comes from.
type Flag struct {
	Value  bool   `yaml:"value"`
	Source string `yaml:"source"`
	From   string `yaml:"-"`
}

// Entry is a parameter as [Device.Params] lists it.
type Entry struct {
	// Path addresses the parameter, for example "ne.stream_gbs".
	Path string
	// Unit is the unit of the value: ms, us, GB/s, TFLOP/s, MB, W, pJ, "" for a
	// ratio.
	Unit string
	// Doc says in a line what the parameter is.
	Doc string
	Param
}

var (
	paramType = reflect.TypeFor[*Param]()
	flagType  = reflect.TypeFor[*Flag]()
)

// field is a leaf of the schema.
type field struct {
	path  string
	unit  string
	doc   string
	index []int
	flag  bool
}

// fields is the schema of [Device]: every leaf, in declaration order.
var fields = walkFields(reflect.TypeFor[Device](), "", nil)

func walkFields(t reflect.Type, prefix string, index []int) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" || name == "" {
			continue
		}
		path := prefix + name
		ix := append(append([]int(nil), index...), i)
		switch {
		case f.Type == paramType || f.Type == flagType:
			out = append(out, field{path, f.Tag.Get("unit"), f.Tag.Get("doc"), ix, f.Type == flagType})
		case f.Type.Kind() == reflect.Struct:
			out = append(out, walkFields(f.Type, path+".", ix)...)
		}
	}
	return out
}

func (d *Device) leaf(f *field) reflect.Value {
	return reflect.ValueOf(d).Elem().FieldByIndex(f.index)
}

// Params lists every numeric parameter in schema order. Parameters of a unit
// that the device lacks are left out.
func (d *Device) Params() []Entry {
	out := make([]Entry, 0, len(fields))
	for i := range fields {
		f := &fields[i]
		if f.flag || !d.hasSection(f.path) {
			continue
		}
		if p := d.leaf(f).Interface().(*Param); p != nil {
			out = append(out, Entry{f.path, f.unit, f.doc, *p})
		}
	}
	return out
}

// FlagEntry is a flag as [Device.Flags] lists it.
type FlagEntry struct {
	Path, Doc string
	Flag
}

// Flags lists every yes-or-no figure in schema order.
func (d *Device) Flags() []FlagEntry {
	var out []FlagEntry
	for i := range fields {
		f := &fields[i]
		if !f.flag || !d.hasSection(f.path) {
			continue
		}
		if p := d.leaf(f).Interface().(*Flag); p != nil {
			out = append(out, FlagEntry{f.path, f.doc, *p})
		}
	}
	return out
}

func (d *Device) hasSection(path string) bool {
	head, _, _ := strings.Cut(path, ".")
	return d.HasNE || head != "ne" && !strings.HasPrefix(path, "energy.ne_") && path != "link.cpu_ne_ms" && path != "link.gpu_ne_ms" &&
		!strings.HasPrefix(path, "uncertainty.ne_") && path != "load.ne_compile_ms"
}

func (d *Device) find(path string) (*field, error) {
	for i := range fields {
		if fields[i].path == path && d.hasSection(path) {
			return &fields[i], nil
		}
	}
	section := path
	if i := strings.IndexByte(path, '.'); i >= 0 {
		section = path[:i+1]
	}
	var near, heads []string
	seen := map[string]bool{}
	for i := range fields {
		p := fields[i].path
		if !d.hasSection(p) {
			continue
		}
		if strings.HasPrefix(p, section) {
			near = append(near, strings.TrimPrefix(p, section))
		}
		h, _, dotted := strings.Cut(p, ".")
		if dotted {
			h += ".*"
		}
		if !seen[h] {
			seen[h] = true
			heads = append(heads, h)
		}
	}
	if len(near) > 0 && section != path {
		return nil, fmt.Errorf("device: %s has no parameter %q; %s* are: %s", d.Name, path, section, strings.Join(near, ", "))
	}
	return nil, fmt.Errorf("device: %s has no parameter %q; want one of %s", d.Name, path, strings.Join(heads, ", "))
}

// Get returns the numeric parameter at a path.
func (d *Device) Get(path string) (Entry, error) {
	f, err := d.find(path)
	if err != nil {
		return Entry{}, err
	}
	if f.flag {
		return Entry{}, fmt.Errorf("device: %s is a yes-or-no figure, not a number", path)
	}
	return Entry{f.path, f.unit, f.doc, *d.leaf(f).Interface().(*Param)}, nil
}

// Set replaces the value of a numeric parameter in place. The value must be
// finite and not negative; it may leave the plausible range.
func (d *Device) Set(path string, v float64) error {
	f, err := d.find(path)
	if err != nil {
		return err
	}
	if f.flag {
		return fmt.Errorf("device: %s is a yes-or-no figure, not a number", path)
	}
	if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return fmt.Errorf("device: %s = %v; want a finite number >= 0", path, v)
	}
	leaf := d.leaf(f)
	p := *leaf.Interface().(*Param)
	p.Value = v
	leaf.Set(reflect.ValueOf(&p))
	return nil
}

// Override returns a copy of the device with figures changed. A change is
// "path=value", where value is a number, a factor ("x1.5"), a step ("+2",
// "-0.5"), a percentage ("+10%") or, for a flag, true or false:
//
//	d, err := dev.Override("ne.stream_gbs=x1.5", "link.cpu_ne_ms=0")
func (d *Device) Override(changes ...string) (*Device, error) {
	c := *d
	c.Overrides = append(append([]string(nil), d.Overrides...), changes...)
	for _, ch := range changes {
		path, val, ok := strings.Cut(ch, "=")
		path, val = strings.TrimSpace(path), strings.TrimSpace(val)
		if !ok || val == "" {
			return nil, fmt.Errorf("device: override %q; want path=value, path=x1.5, path=+2 or path=+10%%", ch)
		}
		f, err := c.find(path)
		if err != nil {
			return nil, err
		}
		if f.flag {
			b, err := strconv.ParseBool(val)
			if err != nil {
				return nil, fmt.Errorf("device: override %q; %s is true or false", ch, path)
			}
			fl := *c.leaf(f).Interface().(*Flag)
			fl.Value = b
			c.leaf(f).Set(reflect.ValueOf(&fl))
			continue
		}
		old := c.leaf(f).Interface().(*Param).Value
		v, err := applyChange(old, val)
		if err != nil {
			return nil, fmt.Errorf("device: override %q: %w", ch, err)
		}
		if err := c.Set(path, v); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

func applyChange(old float64, s string) (float64, error) {
	num, mode := s, byte('=')
	switch s[0] {
	case 'x', '*':
		num, mode = s[1:], 'x'
	case '+', '-':
		mode = '+'
		if rest, ok := strings.CutSuffix(s, "%"); ok {
			num, mode = rest, '%'
		}
	}
	v, err := strconv.ParseFloat(num, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%q is not a number (want 40, x1.5, +2 or +10%%)", s)
	}
	switch mode {
	case 'x':
		v *= old
	case '+':
		v += old
	case '%':
		v = old * (1 + v/100)
	}
	return v, nil
}
