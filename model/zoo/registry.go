package zoo

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/model"
)

// Entry describes a network of the zoo.
type Entry struct {
	Name    string   // canonical name, what [Build] takes
	Title   string   // as papers and tables write it
	Source  string   // paper and reference implementation
	Aliases []string // further spellings
	Size    int      // default input height and width in pixels; 0 if it reads no image
	Divisor int      // input sizes must be multiples of it; 1 if any will do

	build func(b *builder, size int)
}

const (
	maxSize  = 2048
	srcMBV2  = "arXiv 1801.04381, torchvision"
	srcRes   = "arXiv 1512.03385, torchvision"
	srcMViT2 = "arXiv 2206.02680, Core ML form of the reference code"
)

var entries = []Entry{
	{Name: "mobilenet_v2", Title: "MobileNetV2-1.0", Source: srcMBV2, Size: 224, build: mobileNetV2(1)},
	{Name: "mobilenet_v2_0.5", Title: "MobileNetV2-0.5", Source: srcMBV2, Size: 224, build: mobileNetV2(0.5)},
	{Name: "mobilenet_v2_0.75", Title: "MobileNetV2-0.75", Source: srcMBV2, Size: 224, build: mobileNetV2(0.75)},
	{Name: "mobilenet_v2_1.4", Title: "MobileNetV2-1.4", Source: srcMBV2, Size: 224, build: mobileNetV2(1.4)},
	{Name: "resnet18", Title: "ResNet18", Source: srcRes, Size: 224, build: resNet(false, 2, 2, 2, 2)},
	{Name: "resnet34", Title: "ResNet34", Source: srcRes, Size: 224, build: resNet(false, 3, 4, 6, 3)},
	{Name: "resnet50", Title: "ResNet50", Source: srcRes, Size: 224, build: resNet(true, 3, 4, 6, 3)},
	{Name: "resnet101", Title: "ResNet101", Source: srcRes, Size: 224, build: resNet(true, 3, 4, 23, 3)},
	{Name: "resnet152", Title: "ResNet152", Source: srcRes, Size: 224, build: resNet(true, 3, 8, 36, 3)},
	{Name: "mobilevit_v2", Title: "MobileViTv2-1.0", Source: srcMViT2, Size: 256, Divisor: 64, build: mobileViTv2(1)},
	{Name: "mobilevit_v2_0.5", Title: "MobileViTv2-0.5", Source: srcMViT2, Size: 256, Divisor: 64, build: mobileViTv2(0.5)},
	{Name: "mobilevit_v2_2.0", Title: "MobileViTv2-2.0", Source: srcMViT2, Size: 256, Divisor: 64, build: mobileViTv2(2)},
}

// squash reduces a name to what spellings have in common. "_" stays between
// digits, where it separates a width from a version.
func squash(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	var out []byte
	for i := range len(s) {
		c := s[i]
		if c == '-' || c == '_' || c == ' ' {
			digit := func(j int) bool { return j >= 0 && j < len(s) && s[j] >= '0' && s[j] <= '9' }
			if !digit(i-1) || !digit(i+1) {
				continue
			}
			c = '_'
		}
		out = append(out, c)
	}
	return string(out)
}

var byName = func() map[string]*Entry {
	m := map[string]*Entry{}
	for i := range entries {
		e := &entries[i]
		e.Divisor = max(e.Divisor, 1)
		for _, n := range append([]string{e.Name, e.Title}, e.Aliases...) {
			k := squash(n)
			if o, ok := m[k]; ok && o != e {
				panic("zoo: two networks answer to " + n)
			}
			m[k] = e
		}
	}
	return m
}()

// Names returns the canonical names of all networks, sorted.
func Names() []string {
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name
	}
	slices.Sort(out)
	return out
}

// Info describes a network. The name may be any spelling that [Build] takes;
// Size is then the size asked for.
func Info(name string) (Entry, error) {
	base, suffix, sized := strings.Cut(name, "@")
	e, ok := byName[squash(base)]
	if !ok {
		return Entry{}, unknown(name, base)
	}
	out := *e
	if !sized {
		return out, nil
	}
	size, err := strconv.Atoi(suffix)
	switch {
	case e.Size == 0:
		return Entry{}, fmt.Errorf("zoo: %q: %s has no input size to choose", name, e.Name)
	case err != nil:
		return Entry{}, fmt.Errorf("zoo: %q: input size %q is not a number of pixels (write %s@%d)", name, suffix, e.Name, e.Size)
	case size < 1 || size > maxSize:
		return Entry{}, fmt.Errorf("zoo: %q: input size %d is outside 1 to %d", name, size, maxSize)
	case size%e.Divisor != 0:
		return Entry{}, fmt.Errorf("zoo: %q: input size %d is not a multiple of %d", name, size, e.Divisor)
	}
	out.Size = size
	return out, nil
}

// Has reports whether name is a network of the zoo (in any spelling, with or
// without an input size).
func Has(name string) bool {
	base, _, _ := strings.Cut(name, "@")
	_, ok := byName[squash(base)]
	return ok
}

// Build returns a network by name, with seeded weights that are computed on
// first use. The result is a new graph each time and may be modified; the same
// name gives the same weights.
func Build(name string) (g *model.Graph, err error) {
	e, err := Info(name)
	if err != nil {
		return nil, err
	}
	full := e.Name
	if d := byName[squash(e.Name)].Size; e.Size != d {
		full = fmt.Sprintf("%s@%d", e.Name, e.Size)
	}
	defer func() {
		if r := recover(); r != nil {
			be, ok := r.(buildError)
			if !ok {
				panic(r)
			}
			g, err = nil, be.error
		}
	}()
	b := newBuilder(full, e.Name)
	e.build(b, e.Size)
	return b.g, nil
}

// unknown names the networks nearest in spelling.
func unknown(name, base string) error {
	type near struct {
		name string
		d    int
	}
	if len(name) > 64 {
		name, base = name[:64]+"...", base[:min(len(base), 64)]
	}
	var ns []near
	key := squash(base)
	for _, e := range entries {
		k := squash(e.Name)
		d := distance(key, k)
		if key != "" && (strings.Contains(k, key) || strings.Contains(key, k)) {
			d = min(d, 2)
		}
		ns = append(ns, near{e.Name, d})
	}
	slices.SortStableFunc(ns, func(a, b near) int {
		if a.d != b.d {
			return a.d - b.d
		}
		return strings.Compare(a.name, b.name)
	})
	var close []string
	for _, n := range ns {
		if len(close) < 4 && n.d <= max(2, min(len(key)/2, 6)) {
			close = append(close, n.name)
		}
	}
	if len(close) == 0 {
		return fmt.Errorf("zoo: unknown network %q (built in: %s)", name, strings.Join(Names(), ", "))
	}
	return fmt.Errorf("zoo: unknown network %q (did you mean %s?)", name, strings.Join(close, ", "))
}

// distance is the edit distance of Levenshtein.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := prev
			if a[i] != b[j] {
				d++
			}
			prev = row[j+1]
			row[j+1] = min(d, row[j]+1, prev+1)
		}
	}
	return row[len(b)]
}
