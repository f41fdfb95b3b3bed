// Package timeline draws a result.Timeline: as text for a terminal, as
// Chrome trace JSON for Perfetto and chrome://tracing, and as SVG.
package timeline

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/triune-sim/triune/result"
)

// glyphs are the fills of a terminal column, by kind of span.
var glyphs = map[string]rune{"layer": '█', "request": '█', "transfer": '▒', "floor": '░', "handling": '░'}

// Text writes a Gantt chart of the given width in columns (at least 20 are
// used). A column shows what took most of its time; a dot is an idle unit.
func Text(w io.Writer, t *result.Timeline, width int) error {
	name := 0
	for _, l := range t.Lanes {
		name = max(name, len([]rune(l)))
	}
	cols := max(20, width-name-3)
	b := bufio.NewWriter(w)
	if t.Title != "" {
		fmt.Fprintln(b, t.Title)
	}
	if t.EndMS <= 0 {
		fmt.Fprintln(b, "nothing happens")
		return b.Flush()
	}
	kinds := []string{"layer", "request", "transfer", "floor", "handling"}
	per := t.EndMS / float64(cols)
	for lane, label := range t.Lanes {
		share := make([][5]float64, cols)
		busy := 0.0
		for _, s := range t.Spans {
			if s.Lane != lane || s.DurMS <= 0 {
				continue
			}
			busy += s.DurMS
			k := 0
			for i := range kinds {
				if kinds[i] == s.Kind {
					k = i
				}
			}
			from, to := s.StartMS/per, (s.StartMS+s.DurMS)/per
			for c := max(0, int(from)); c < cols && float64(c) < to; c++ {
				share[c][k] += min(to, float64(c+1)) - max(from, float64(c))
			}
		}
		fmt.Fprintf(b, "%-*s ", name, label)
		for c := range share {
			best, idle := -1, 1.0
			for k, v := range share[c] {
				idle -= v
				if v > 0 && (best < 0 || v > share[c][best]) {
					best = k
				}
			}
			if best < 0 || idle > 0.5 && idle > share[c][best] {
				b.WriteRune('·')
			} else {
				b.WriteRune(glyphs[kinds[best]])
			}
		}
		fmt.Fprintf(b, " %3.0f%%\n", 100*busy/t.EndMS)
	}
	axis := []byte(strings.Repeat(" ", cols))
	for _, x := range ticks(t.EndMS, cols/10) {
		s := fmt.Sprintf("%g", x)
		if c := int(x / per); c+len(s) <= cols {
			copy(axis[c:], s)
		}
	}
	fmt.Fprintf(b, "%-*s %s ms\n", name, "", strings.TrimRight(string(axis), " "))
	fmt.Fprintf(b, "%-*s █ layers  ▒ transfers  ░ floor and handling  · idle\n", name, "")
	return b.Flush()
}

// ticks returns round values from 0 to end, about n of them.
func ticks(end float64, n int) []float64 {
	if !(end > 0) || math.IsInf(end, 1) {
		return []float64{0}
	}
	raw := end / float64(max(1, n))
	step := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*step >= raw {
			step *= m
			break
		}
	}
	var out []float64
	for i := 0; float64(i)*step <= end*(1+1e-9); i++ {
		// Round away the noise of multiplying by a fraction.
		v := float64(i) * step
		out = append(out, math.Round(v*1e9)/1e9)
	}
	return out
}

type event struct {
	Name string            `json:"name"`
	Cat  string            `json:"cat,omitempty"`
	Ph   string            `json:"ph"`
	Ts   float64           `json:"ts"`
	Dur  float64           `json:"dur,omitempty"`
	Pid  int               `json:"pid"`
	Tid  int               `json:"tid"`
	Args map[string]string `json:"args,omitempty"`
}

// ChromeTrace writes the timeline in the Chrome trace event format, which
// Perfetto reads; times are in microseconds there.
func ChromeTrace(w io.Writer, t *result.Timeline) error {
	b := bufio.NewWriter(w)
	b.WriteString(`{"displayTimeUnit":"ms","traceEvents":[` + "\n")
	put := func(e event, last bool) error {
		j, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b.Write(j)
		if !last {
			b.WriteByte(',')
		}
		return b.WriteByte('\n')
	}
	if err := put(event{Name: "process_name", Ph: "M", Pid: 1, Args: map[string]string{"name": t.Title}}, len(t.Lanes)+len(t.Spans) == 0); err != nil {
		return err
	}
	for i, l := range t.Lanes {
		if err := put(event{Name: "thread_name", Ph: "M", Pid: 1, Tid: i + 1, Args: map[string]string{"name": l}}, i == len(t.Lanes)-1 && len(t.Spans) == 0); err != nil {
			return err
		}
	}
	for i, s := range t.Spans {
		e := event{Name: s.Name, Cat: s.Kind, Ph: "X", Ts: s.StartMS * 1e3, Dur: s.DurMS * 1e3, Pid: 1, Tid: s.Lane + 1}
		if s.Detail != "" {
			e.Args = map[string]string{"detail": s.Detail}
		}
		if err := put(e, i == len(t.Spans)-1); err != nil {
			return err
		}
	}
	b.WriteString("]}\n")
	return b.Flush()
}

var fills = map[string]string{"layer": "#3b7dd8", "request": "#3b7dd8", "transfer": "#e0912f", "floor": "#b8bec7", "handling": "#d5d9df"}

// SVG writes the timeline as a drawing of the given width in pixels. Each span
// carries its name and times as a tooltip.
func SVG(w io.Writer, t *result.Timeline, width int) error {
	const lane, left, top, right = 34, 64, 30, 16
	width = max(width, 200)
	height := top + lane*len(t.Lanes) + 40
	b := bufio.NewWriter(w)
	esc := func(s string) string {
		var x strings.Builder
		_ = xml.EscapeText(&x, []byte(s))
		return x.String()
	}
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(b, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text x=\"%d\" y=\"18\" font-weight=\"bold\">%s</text>\n", esc(t.Title), left, esc(t.Title))
	scale := 0.0
	if t.EndMS > 0 {
		scale = float64(width-left-right) / t.EndMS
	}
	bottom := top + lane*len(t.Lanes)
	for _, x := range ticks(t.EndMS, 8) {
		px := float64(left) + x*scale
		fmt.Fprintf(b, `<line x1="%.2f" y1="%d" x2="%.2f" y2="%d" stroke="#e6e8eb"/><text x="%.2f" y="%d" text-anchor="middle" fill="#555">%g</text>`+"\n", px, top, px, bottom, px, bottom+16, x)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" fill="#555">ms</text>`+"\n", width-2, bottom+32)
	for i, l := range t.Lanes {
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, top+lane*i+lane/2+4, esc(l))
	}
	for _, s := range t.Spans {
		fill, ok := fills[s.Kind]
		if !ok {
			fill = "#7a8794"
		}
		tip := fmt.Sprintf("%s: %.4g ms at %.4g", s.Name, s.DurMS, s.StartMS)
		if s.Detail != "" {
			tip += ", " + s.Detail
		}
		fmt.Fprintf(b, `<rect x="%.2f" y="%d" width="%.2f" height="%d" fill="%s" stroke="#fff" stroke-width="0.3"><title>%s</title></rect>`+"\n",
			float64(left)+s.StartMS*scale, top+lane*s.Lane+4, max(0.2, s.DurMS*scale), lane-8, fill, esc(tip))
	}
	b.WriteString("</svg>\n")
	return b.Flush()
}
