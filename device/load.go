package device

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"

	"github.com/triune-sim/triune/internal/pattern"
	"github.com/triune-sim/triune/internal/strictyaml"
)

//go:embed data
var embedded embed.FS

// entry is one YAML file of the catalogue: a family, or a chip.
type entry struct {
	Name     string   `yaml:"name"`
	Label    string   `yaml:"label,omitempty"`
	Inherits string   `yaml:"inherits,omitempty"`
	OS       string   `yaml:"os,omitempty"`
	NoNE     bool     `yaml:"no_ne,omitempty"`
	Aliases  []string `yaml:"aliases,omitempty"`
	Figures  Device   `yaml:"figures,omitempty"`
}

// product is an entry of devices.yaml.
type product struct {
	Name    string   `yaml:"name"`
	Label   string   `yaml:"label"`
	Chip    string   `yaml:"chip"`
	OS      string   `yaml:"os,omitempty"`
	Aliases []string `yaml:"aliases,omitempty"`
	Figures Device   `yaml:"figures,omitempty"`
}

// Catalogue is a set of chips and devices.
type Catalogue struct {
	entries  map[string]*entry // by name, families included
	chips    []string
	products []*product
	byName   map[string]string // every accepted name -> canonical name
}

var builtin = sync.OnceValues(func() (*Catalogue, error) { return Read(Files()) })

// Files returns the files of the built-in catalogue, as [Read] takes them.
func Files() fs.FS {
	sub, err := fs.Sub(embedded, "data")
	if err != nil { // the name is a constant and valid
		panic("device: " + err.Error())
	}
	return sub
}

// Builtin returns the catalogue embedded in the program.
func Builtin() (*Catalogue, error) { return builtin() }

// Load returns a device or chip of the built-in catalogue by name or alias,
// without regard to case.
func Load(name string) (*Device, error) {
	c, err := builtin()
	if err != nil {
		return nil, err
	}
	return c.Load(name)
}

// Names lists the devices and then the chips of the built-in catalogue.
func Names() []string {
	c, err := builtin()
	if err != nil {
		return nil
	}
	return c.Names()
}

// Match returns the names of the built-in catalogue, in the order of [Names],
// that a shell pattern matches ("iphone-1[45]*"; see path.Match). A name
// without any of *?[ is returned as it is, known or not.
func Match(names string) ([]string, error) {
	out, err := pattern.Match(names, Names())
	if err != nil {
		return nil, fmt.Errorf("device: %w (triune devices lists the names)", err)
	}
	return out, nil
}

// Read reads a catalogue: base.yaml, families/*.yaml, chips/*.yaml and
// devices.yaml. Unknown keys, missing figures, values outside their range and
// names used twice are errors that name the file.
func Read(fsys fs.FS) (*Catalogue, error) {
	c := &Catalogue{entries: map[string]*entry{}, byName: map[string]string{}}
	var files []string
	for _, pat := range []string{"base.yaml", "families/*.yaml", "chips/*.yaml"} {
		m, err := fs.Glob(fsys, pat)
		if err != nil {
			return nil, err
		}
		files = append(files, m...)
	}
	for _, f := range files {
		e := &entry{}
		if err := decode(fsys, f, e); err != nil {
			return nil, err
		}
		if want := strings.TrimSuffix(path.Base(f), ".yaml"); e.Name != want {
			return nil, fmt.Errorf("device: %s: name is %q; want %q, as the file", f, e.Name, want)
		}
		if c.entries[e.Name] != nil {
			return nil, fmt.Errorf("device: %s: %q is defined twice", f, e.Name)
		}
		c.entries[e.Name] = e
		if path.Dir(f) == "chips" {
			c.chips = append(c.chips, e.Name)
			if err := c.claim(f, e.Name, append(e.Aliases, e.Name)); err != nil {
				return nil, err
			}
		}
	}
	var list struct {
		Devices []*product `yaml:"devices"`
	}
	if err := decode(fsys, "devices.yaml", &list); err != nil {
		return nil, err
	}
	for _, p := range list.Devices {
		if !slices.Contains(c.chips, p.Chip) {
			return nil, fmt.Errorf("device: devices.yaml: %q names chip %q; want one of %s", p.Name, p.Chip, strings.Join(c.chips, ", "))
		}
		c.products = append(c.products, p)
		if err := c.claim("devices.yaml", p.Name, append(p.Aliases, p.Name)); err != nil {
			return nil, err
		}
	}
	for _, n := range c.Names() {
		if _, err := c.Load(n); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func decode(fsys fs.FS, name string, v any) error {
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	if err := strictyaml.Unmarshal(b, v); err != nil {
		return fmt.Errorf("device: %s: %s", name, strings.TrimSpace(yaml.FormatError(err, false, false)))
	}
	return nil
}

func (c *Catalogue) claim(file, canonical string, names []string) error {
	for _, n := range names {
		k := normal(n)
		if old, ok := c.byName[k]; ok {
			return fmt.Errorf("device: %s: the name %q of %q is already taken by %q", file, n, canonical, old)
		}
		c.byName[k] = canonical
	}
	return nil
}

func normal(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	return strings.NewReplacer(" ", "-", "_", "-", "(", "", ")", "").Replace(s)
}

// Devices lists the names of the products.
func (c *Catalogue) Devices() []string {
	out := make([]string, len(c.products))
	for i, p := range c.products {
		out[i] = p.Name
	}
	return out
}

// Chips lists the names of the chips.
func (c *Catalogue) Chips() []string { return slices.Clone(c.chips) }

// Names lists devices, then chips.
func (c *Catalogue) Names() []string { return append(c.Devices(), c.chips...) }

// ErrUnknown is wrapped by the error for a name that the catalogue lacks.
var ErrUnknown = errors.New("unknown device")

// Load returns a device or chip by name or alias.
func (c *Catalogue) Load(name string) (*Device, error) {
	canonical, ok := c.byName[normal(name)]
	if !ok {
		return nil, fmt.Errorf("device: %w %q; want one of %s", ErrUnknown, name, strings.Join(c.Names(), ", "))
	}
	d := &Device{}
	chip := canonical
	for _, p := range c.products {
		if p.Name == canonical {
			d.Name, d.Label, d.OS, d.Aliases, chip = p.Name, p.Label, p.OS, p.Aliases, p.Chip
			d.merge(&p.Figures, p.Name)
		}
	}
	e := c.entries[chip]
	if d.Name == "" {
		d.Name, d.Label, d.Aliases = e.Name, e.Label, e.Aliases
	}
	d.Chip, d.ChipLabel, d.HasNE = e.Name, e.Label, true
	for depth := 0; e != nil; depth++ {
		if depth > 10 {
			return nil, fmt.Errorf("device: %q inherits from itself", chip)
		}
		if d.OS == "" {
			d.OS = e.OS
		}
		if e.NoNE {
			d.HasNE = false
		}
		d.merge(&e.Figures, e.Name)
		next := e.Inherits
		if next == "" && e.Name != "base" {
			next = "base"
		}
		if next == "" {
			break
		}
		if c.entries[next] == nil {
			return nil, fmt.Errorf("device: %q inherits from %q, which does not exist", e.Name, next)
		}
		e = c.entries[next]
	}
	return d, d.check()
}

// merge takes from the parent what the device does not state.
func (d *Device) merge(parent *Device, from string) {
	used := false
	for i := range fields {
		f := &fields[i]
		dst, src := d.leaf(f), parent.leaf(f)
		if src.IsNil() || !dst.IsNil() {
			continue
		}
		used = true
		if f.flag {
			v := *src.Interface().(*Flag)
			v.From = from
			dst.Set(reflect.ValueOf(&v))
		} else {
			v := *src.Interface().(*Param)
			v.From = from
			dst.Set(reflect.ValueOf(&v))
		}
	}
	if used {
		d.Chain = append(d.Chain, from)
	}
}

func (d *Device) check() error {
	for i := range fields {
		f := &fields[i]
		leaf := d.leaf(f)
		if leaf.IsNil() {
			return fmt.Errorf("device: %s: no figure for %s (%s)", d.Name, f.path, f.doc)
		}
		if f.flag {
			fl := leaf.Interface().(*Flag)
			if fl.Source == "" {
				return fmt.Errorf("device: %s (in %s): %s has no source", d.Name, fl.From, f.path)
			}
			continue
		}
		p := leaf.Interface().(*Param)
		switch {
		case p.Source == "":
			return fmt.Errorf("device: %s (in %s): %s has no source", d.Name, p.From, f.path)
		case math.IsNaN(p.Value) || math.IsInf(p.Value, 0) || p.Value < 0:
			return fmt.Errorf("device: %s (in %s): %s = %v; want a finite number >= 0", d.Name, p.From, f.path, p.Value)
		case !(p.Range[0] <= p.Value && p.Value <= p.Range[1]) || math.IsInf(p.Range[1], 0):
			return fmt.Errorf("device: %s (in %s): %s = %v is outside its range %v", d.Name, p.From, f.path, p.Value, p.Range)
		case p.Prior != nil && !(p.Range[0] <= *p.Prior && *p.Prior <= p.Range[1]):
			return fmt.Errorf("device: %s (in %s): the prior %v of %s is outside its range %v", d.Name, p.From, *p.Prior, f.path, p.Range)
		}
	}
	return nil
}
