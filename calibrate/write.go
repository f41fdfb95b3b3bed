package calibrate

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Patch returns the catalogue's files with fitted values written into them, by
// name; files that do not change are left out. Figures are single lines,
//
//	stream_gbs: {value: 40, range: [15, 130], source: "AB"}
//
// of which the value is replaced and fitted: true added; ranges, sources and
// comments stay. A chip's own figure ([Var.Own]) is added where the chip does
// not state it; any other entry that does not state its figure is an error:
// give it one first, with a range and a source.
func (f *Fitted) Patch(fsys fs.FS) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, v := range f.Values {
		name, text, err := findEntry(fsys, out, v.Entry)
		if err != nil {
			return nil, err
		}
		if v.Own {
			text = addFigure(text, v)
		}
		next, err := setFigure(text, v.Entry, v.Path, v.Value, true)
		if err != nil {
			return nil, fmt.Errorf("calibrate: %s: %w", name, err)
		}
		out[name] = []byte(next)
	}
	return out, nil
}

func findEntry(fsys fs.FS, done map[string][]byte, entry string) (name, text string, err error) {
	for _, name := range []string{entry + ".yaml", path.Join("families", entry+".yaml"), path.Join("chips", entry+".yaml"), "devices.yaml"} {
		b, ok := done[name]
		if !ok {
			if b, err = fs.ReadFile(fsys, name); err != nil {
				continue
			}
		}
		if name != "devices.yaml" || strings.Contains(string(b), "name: "+entry+"\n") {
			return name, string(b), nil
		}
	}
	return "", "", fmt.Errorf("calibrate: the catalogue has no entry %q", entry)
}

var valueRE = regexp.MustCompile(`value: [^,}]+`)

// setFigure replaces the value of a figure in the text of an entry.
func setFigure(text, entry, figure string, v float64, fitted bool) (string, error) {
	section, key, dotted := strings.Cut(figure, ".")
	if !dotted {
		section, key = "figures", figure
	}
	lines := strings.Split(text, "\n")
	inEntry := !strings.Contains(text, "\ndevices:") && !strings.HasPrefix(text, "devices:")
	inSection := false
	for i, l := range lines {
		t := strings.TrimSpace(l)
		if strings.HasPrefix(t, "- name: ") {
			inEntry, inSection = t == "- name: "+entry, false
		}
		if !inEntry {
			continue
		}
		if t == section+":" {
			inSection = true
			continue
		}
		if inSection && strings.HasSuffix(t, ":") {
			inSection = false // the next section
		}
		if !inSection || !strings.HasPrefix(t, key+": {") {
			continue
		}
		n := valueRE.ReplaceAllString(l, "value: "+format(v))
		if fitted && !strings.Contains(n, "fitted: true") {
			n = strings.Replace(n, "}", ", fitted: true}", 1)
		}
		lines[i] = n
		return strings.Join(lines, "\n"), nil
	}
	return "", fmt.Errorf("entry %q does not state %s; add it with a range and a source", entry, figure)
}

// addFigure gives the entry of a chip a line for a figure that it does not
// state yet.
func addFigure(text string, v Value) string {
	if _, err := setFigure(text, v.Entry, v.Path, v.Value, true); err == nil {
		return text
	}
	section, key, _ := strings.Cut(v.Path, ".")
	line := fmt.Sprintf("    %s: {value: %s, range: [%s, %s], source: \"calibrated on own measurements\", prior: %s}\n",
		key, format(v.Value), format(v.Low), format(v.High), format(v.Prior))
	if i := strings.Index(text, "\n  "+section+":\n"); i >= 0 {
		at := i + len("\n  "+section+":\n")
		return text[:at] + line + text[at:]
	}
	if !strings.Contains(text, "\nfigures:") {
		text = strings.TrimRight(text, "\n") + "\nfigures:\n"
	}
	return strings.TrimRight(text, "\n") + "\n  " + section + ":\n" + line
}

// format keeps four significant digits: more would be pretence.
func format(v float64) string {
	if v == 0 {
		return "0"
	}
	d := 3 - int(math.Floor(math.Log10(math.Abs(v))))
	if d < 0 {
		d = 0
	}
	s := strconv.FormatFloat(v, 'f', d, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
