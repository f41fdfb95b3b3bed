package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestEveryEntryLoads(t *testing.T) {
	c, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Chips()) < 28 || len(c.Devices()) < 30 {
		t.Errorf("%d chips and %d devices; the catalogue has lost some", len(c.Chips()), len(c.Devices()))
	}
	for _, n := range c.Names() {
		d, err := Load(n)
		if err != nil {
			t.Error(err)
			continue
		}
		if d.Name != n || d.Label == "" || d.Chip == "" || d.ChipLabel == "" || d.OS == "" {
			t.Errorf("%s: incomplete head %q %q %q %q %q", n, d.Name, d.Label, d.Chip, d.ChipLabel, d.OS)
		}
		if len(d.Chain) < 2 || d.Chain[len(d.Chain)-1] != "base" {
			t.Errorf("%s: figures from %v; want them to end in base", n, d.Chain)
		}
		for _, a := range d.Aliases {
			if e, err := Load(strings.ToUpper(a)); err != nil || e.Name != n {
				t.Errorf("alias %q does not lead to %s: %v", a, n, err)
			}
		}
	}
	if _, err := Load("M1 Max (24 GPU cores)"); err != nil {
		t.Errorf("the spelling of the published rows: %v", err)
	}
}

// At most eight figures of a chip's own, and as many shared by all chips per
// unit, are fitted; each has a prior or a source that a reader can follow.
func TestFittedFiguresAreFew(t *testing.T) {
	c, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Chips() {
		d, err := Load(n)
		if err != nil {
			t.Fatal(err)
		}
		own, shared := 0, map[string]int{}
		for _, e := range d.Params() {
			if !e.Fitted || strings.HasPrefix(e.Path, "uncertainty.") {
				continue
			}
			if e.Prior == nil {
				t.Errorf("%s: %s is fitted and states no prior", n, e.Path)
			}
			if e.From == "base" {
				unit, _, _ := strings.Cut(e.Path, ".")
				shared[unit]++
			} else {
				own++
			}
		}
		if own > 8 {
			t.Errorf("%s: %d figures of its own are fitted; at most 8", n, own)
		}
		for u, k := range shared {
			if k > 5 {
				t.Errorf("%s: %d figures of the %s that all chips share are fitted; at most 5", n, k, u)
			}
		}
	}
}

func TestParams(t *testing.T) {
	d, err := Load("iphone-14-pro")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range d.Params() {
		if e.Doc == "" || e.Source == "" || e.From == "" || seen[e.Path] {
			t.Errorf("%s: doc %q, source %q, from %q, twice %v", e.Path, e.Doc, e.Source, e.From, seen[e.Path])
		}
		seen[e.Path] = true
	}
	for _, want := range []string{"handling_ms", "ne.stream_gbs", "gpu.peak_tf", "cpu.matrix_gf", "link.cpu_ne_ms", "energy.dram_pj_byte", "uncertainty.ne_low"} {
		if !seen[want] {
			t.Errorf("no parameter %s", want)
		}
	}
	if len(d.Flags()) == 0 {
		t.Error("no flags")
	}
	// A chip without a Neural Engine lists none of its figures.
	a10, err := Load("a10")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range a10.Params() {
		if strings.HasPrefix(e.Path, "ne.") {
			t.Errorf("a10 lists %s", e.Path)
		}
	}
	if _, err := a10.Override("ne.peak_tf=1"); err == nil {
		t.Error("a10 accepts an override of a unit that it lacks")
	}
}

func TestOverride(t *testing.T) {
	d, err := Load("a16")
	if err != nil {
		t.Fatal(err)
	}
	old := d.NE.StreamGBs.Value
	for _, c := range []struct {
		change string
		want   float64
	}{
		{"ne.stream_gbs=40", 40},
		{"ne.stream_gbs=x1.5", 1.5 * old},
		{"ne.stream_gbs=*2", 2 * old},
		{"ne.stream_gbs=+2.5", old + 2.5},
		{"ne.stream_gbs=-5", old - 5},
		{"ne.stream_gbs=+10%", 1.1 * old},
		{"ne.stream_gbs=-10%", 0.9 * old},
		{" ne.stream_gbs = 1e2 ", 100},
		{"ne.stream_gbs=0", 0},
	} {
		o, err := d.Override(c.change)
		if err != nil {
			t.Errorf("%q: %v", c.change, err)
			continue
		}
		if got := o.NE.StreamGBs.Value; fmt.Sprintf("%.9g", got) != fmt.Sprintf("%.9g", c.want) {
			t.Errorf("%q gives %v, want %v", c.change, got, c.want)
		}
		if d.NE.StreamGBs.Value != old {
			t.Fatalf("%q changed the original", c.change)
		}
	}
	o, err := d.Override("ne.gather=false", "ne.floor_ms=1")
	if err != nil || o.NE.Gather.Value || !d.NE.Gather.Value || len(o.Overrides) != 2 {
		t.Errorf("flag: %v %v", o, err)
	}
	for _, bad := range []struct{ change, names string }{
		{"ne.stream_gbs", "path=value"},
		{"ne.stream_gbs=", "path=value"},
		{"ne.stream_gbs=fast", "not a number"},
		{"ne.stream_gbs=NaN", "not a number"},
		{"ne.stream_gbs=-1000", ">= 0"},
		{"ne.stream=1", "stream_gbs"},
		{"gqu.peak_tf=1", "gpu.*"},
		{"ne.gather=maybe", "true or false"},
		{"=3", "want one of"},
	} {
		if _, err := d.Override(bad.change); err == nil || !strings.Contains(err.Error(), bad.names) {
			t.Errorf("%q: error %v; want one that names %q", bad.change, err, bad.names)
		}
	}
	if _, err := d.Get("ne.gather"); err == nil {
		t.Error("Get returns a flag as a number")
	}
}

func TestUnknownName(t *testing.T) {
	_, err := Load("iphone-99")
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "iphone-14-pro") {
		t.Errorf("error %v; want ErrUnknown with the names", err)
	}
}

// small returns a catalogue of one chip, for damage.
func small(t *testing.T) fstest.MapFS {
	t.Helper()
	b, err := fs.ReadFile(os.DirFS("data"), "base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{
		"base.yaml":    {Data: b},
		"chips/x.yaml": {Data: []byte("name: x\nlabel: X\nos: iOS 1\n")},
		"devices.yaml": {Data: []byte("devices:\n  - {name: phone, label: Phone, chip: x}\n")},
	}
}

func TestReadIsStrict(t *testing.T) {
	if _, err := Read(small(t)); err != nil {
		t.Fatal(err)
	}
	chip := func(s string) func(fstest.MapFS) {
		return func(m fstest.MapFS) {
			m["chips/x.yaml"] = &fstest.MapFile{Data: []byte("name: x\nlabel: X\nos: iOS 1\n" + s)}
		}
	}
	for _, c := range []struct {
		name   string
		damage func(fstest.MapFS)
		want   string
	}{
		{"unknown key", chip("figures:\n  ne:\n    strean_gbs: {value: 1, range: [0, 2], source: s}\n"), "strean_gbs"},
		{"unknown section", chip("figures:\n  npu:\n    a: 1\n"), "npu"},
		{"no source", chip("figures:\n  ne:\n    stream_gbs: {value: 1, range: [0, 2]}\n"), "no source"},
		{"outside the range", chip("figures:\n  ne:\n    stream_gbs: {value: 3, range: [0, 2], source: s}\n"), "outside its range"},
		{"prior outside", chip("figures:\n  ne:\n    stream_gbs: {value: 1, range: [0, 2], source: s, prior: 9}\n"), "prior"},
		{"negative", chip("figures:\n  ne:\n    stream_gbs: {value: -1, range: [-2, 2], source: s}\n"), ">= 0"},
		{"not a number", chip("figures:\n  ne:\n    stream_gbs: {value: fast, range: [0, 2], source: s}\n"), "x.yaml"},
		{"parent missing", chip("inherits: y\n"), "does not exist"},
		{"parent is itself", chip("inherits: x\n"), "inherits from itself"},
		{"wrong name", func(m fstest.MapFS) { m["chips/z.yaml"] = m["chips/x.yaml"] }, `want "z"`},
		{"chip missing", func(m fstest.MapFS) {
			m["devices.yaml"] = &fstest.MapFile{Data: []byte("devices:\n  - {name: p, label: P, chip: q}\n")}
		}, `"q"`},
		{"name twice", func(m fstest.MapFS) {
			m["devices.yaml"] = &fstest.MapFile{Data: []byte("devices:\n  - {name: X, label: P, chip: x}\n")}
		}, "already taken"},
		{"no base", func(m fstest.MapFS) { delete(m, "base.yaml") }, "base"},
		{"no devices", func(m fstest.MapFS) { delete(m, "devices.yaml") }, "devices.yaml"},
		{"figure missing", func(m fstest.MapFS) {
			m["base.yaml"] = &fstest.MapFile{Data: []byte("name: base\nlabel: b\n")}
		}, "no figure for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := small(t)
			c.damage(m)
			if _, err := Read(m); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want one that names %q", err, c.want)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	b, err := fs.ReadFile(os.DirFS("data"), "base.yaml")
	if err != nil {
		f.Fatal(err)
	}
	chips, err := fs.Glob(os.DirFS("data"), "chips/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range chips {
		s, err := fs.ReadFile(os.DirFS("data"), c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(s))
	}
	f.Add("name: x\nfigures: {ne: {stream_gbs: {value: 1e999, range: [0, 1], source: s}}}")
	f.Fuzz(func(t *testing.T, s string) {
		m := fstest.MapFS{
			"base.yaml":    {Data: b},
			"chips/x.yaml": {Data: []byte(s)},
			"devices.yaml": {Data: []byte("devices: []\n")},
		}
		c, err := Read(m)
		if err != nil {
			return
		}
		if d, err := c.Load("x"); err != nil || d.check() != nil {
			t.Fatalf("Read accepts what Load does not: %v", err)
		}
	})
}

func TestMatch(t *testing.T) {
	for pattern, want := range map[string][]string{
		"iphone-1[45]*": {"iphone-14", "iphone-14-pro", "iphone-15", "iphone-15-pro"},
		"m[1-3]":        {"m1", "m2", "m3"},
		"a17*":          {"a17-pro"},
		"iPhone 14 Pro": {"iPhone 14 Pro"}, // no pattern: Load knows it
	} {
		if got, err := Match(pattern); err != nil || !slices.Equal(got, want) {
			t.Errorf("Match(%q) = %v, %v, want %v", pattern, got, err, want)
		}
	}
	if all, err := Match("*"); err != nil || !slices.Equal(all, Names()) {
		t.Errorf("* matches %d of %d names, %v", len(all), len(Names()), err)
	}
	for _, pattern := range []string{"zz*", "[", "iphone-[z"} {
		if got, err := Match(pattern); err == nil {
			t.Errorf("Match(%q) = %v", pattern, got)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		if _, err := Load("iphone-14-pro"); err != nil {
			b.Fatal(err)
		}
	}
}
