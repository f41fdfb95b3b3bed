package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"html/template"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/triune-sim/triune/result"
)

// sample is a prediction of n layers on three units.
func sample(n int) *result.Prediction {
	p := &result.Prediction{Model: "m", Device: "d", Chip: "c", OS: "iOS 17", Scheme: "fp16", ComputeUnits: "all", Policy: "optimal",
		LatencyP10MS: 1, LatencyP90MS: 2, EnergyMJ: 3, LoadMS: 4, PackageBytes: 5e6, CompressionRatio: 1, PeakMemoryBytes: 6e6,
		WeightMemoryBytes: 5e6, ActivationMemoryBytes: 1e6, HandlingMS: 0.1, FloorMS: 0.2, Summary: "all layers run", Notes: []string{"a note"}}
	at := p.HandlingMS + p.FloorMS
	for i := range n {
		l := result.Layer{Name: fmt.Sprintf("layer%d", i), Op: "Conv", Kind: "conv", Unit: unitOrder[i%3], SupportedUnits: []string{"CPU", "GPU", "NE"},
			Reason: "because", LatencyMS: 0.1 + float64(i)/100, ComputeMS: 0.05, OverheadMS: 0.01, TransferMS: 0.02, StartMS: at, Bound: "compute",
			MACs: int64(i) * 1e6, WeightBytes: 1e5, InputBytes: 2e5, OutputBytes: 3e5, EnergyMJ: 0.1, Fused: []string{"Relu"}}
		l.MemoryMS = l.LatencyMS - l.ComputeMS - l.OverheadMS
		at += l.LatencyMS + l.TransferMS
		p.LayersMS += l.LatencyMS
		p.TransferMS += l.TransferMS
		p.MACs += l.MACs
		p.Layers = append(p.Layers, l)
	}
	p.LatencyMS = at
	for k, u := range unitOrder {
		p.Units = append(p.Units, result.UnitUse{Unit: u, Layers: (n + 2 - k) / 3, BusyMS: 1, EnergyMJ: 1, MACs: 1e6})
	}
	if n > 0 {
		p.Segments = []result.Segment{{Unit: "CPU", Layers: n, LatencyMS: at, First: p.Layers[0].Name, Last: p.Layers[n-1].Name}}
	}
	return p
}

func page(tb testing.TB, p *Page) string {
	tb.Helper()
	var b bytes.Buffer
	if err := HTML(&b, p); err != nil {
		tb.Fatal(err)
	}
	return b.String()
}

func full(n int) *Page {
	live := make([]int64, n)
	for i := range live {
		live[i] = int64(i+1) * 1000
	}
	return &Page{Prediction: sample(n), LiveBytes: live, Roofs: []Roof{{"NE", 17, 1000, "fp16"}, {"CPU", 1, 100, "fp32"}},
		Published: []Published{{"m fp16 on d", 1, "somebody", 1.1}}, Command: "triune predict m", Version: "v1",
		Explanation: &result.Explanation{RunnerUp: &result.Alternative{Name: "other", LatencyMS: 9, DeltaMS: 1, Detail: "one layer"},
			Alternatives: []result.Alternative{{Name: "greedy", LatencyMS: 3, DeltaMS: 1, EnergyMJ: 2, Moves: 3}, {Name: "all on the NE", Detail: "cannot"}}}}
}

// The page needs nothing from elsewhere, and shows every layer without script.
func TestPageIsSelfContained(t *testing.T) {
	h := page(t, full(60))
	for _, bad := range []string{"http:", "https:", "src=", "@import", "url(", "ZgotmplZ", "<no value>"} {
		if strings.Contains(h, bad) {
			i := strings.Index(h, bad)
			t.Errorf("%q in the page: ...%s...", bad, h[max(0, i-60):min(len(h), i+60)])
		}
	}
	noScript := h[:strings.LastIndex(h, "<script>")]
	if strings.Contains(noScript, "NaN") || strings.Contains(noScript, "Inf") {
		t.Error("a figure is not finite")
	}
	for i := range 60 {
		if !strings.Contains(noScript, fmt.Sprintf(">layer%d<", i)) {
			t.Errorf("layer %d is not in the page", i)
		}
	}
	for _, want := range []string{"prefers-color-scheme:dark", "width=device-width", "Runner-up", "Published measurements", "Activation memory", "10.0 %", "triune predict m", "because"} {
		if !strings.Contains(h, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	if len(h) > 300_000 {
		t.Errorf("%d bytes for 60 layers", len(h))
	}
}

var svgs = regexp.MustCompile(`(?s)<svg .*?</svg>`)

// Drawings are well-formed and have finite coordinates, whatever the
// prediction.
func TestDrawings(t *testing.T) {
	for _, n := range []int{0, 1, 2, 40} {
		p := full(n)
		if n == 2 { // degenerate: no time at all
			p.Prediction.LatencyMS = 0
			for i := range p.Prediction.Layers {
				p.Prediction.Layers[i].LatencyMS = 0
			}
		}
		h := page(t, p)
		all := svgs.FindAllString(h, -1)
		if want := 3; len(all) < want {
			t.Errorf("%d layers: %d drawings", n, len(all))
		}
		for _, s := range all {
			d := xml.NewDecoder(strings.NewReader(s))
			for {
				_, err := d.Token()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("%d layers: %v in %.200s", n, err, s)
				}
			}
			if strings.Contains(s, "NaN") || strings.Contains(s, "Inf") {
				t.Errorf("%d layers: a coordinate is not finite: %.300s", n, s)
			}
		}
	}
}

// Names come from files: they must not become markup.
func TestHostileNames(t *testing.T) {
	const evil = `"><script>alert(1)</script>|` + "`" + `\n&`
	p := full(3)
	p.Prediction.Model, p.Prediction.Summary, p.Command = evil, evil, evil
	for i := range p.Prediction.Layers {
		p.Prediction.Layers[i].Name, p.Prediction.Layers[i].Reason, p.Prediction.Layers[i].Op = evil, evil, evil
	}
	h := page(t, p)
	if strings.Contains(h, "<script>alert") {
		t.Error("a name became a script")
	}
	var b bytes.Buffer
	if err := Markdown(&b, []*result.Prediction{p.Prediction}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "<script>") || strings.Contains(b.String(), "\\n&|") {
		t.Errorf("markup in Markdown: %s", b.String())
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := Markdown(&b, []*result.Prediction{sample(20)}); err != nil {
		t.Fatal(err)
	}
	md := b.String()
	if !strings.Contains(md, "10 slowest layers") || !strings.Contains(md, "`layer19`") || strings.Contains(md, "`layer3`") {
		t.Errorf("the slowest layers are not listed:\n%s", md)
	}
	bars := 0
	for line := range strings.SplitSeq(md, "\n") {
		if strings.HasPrefix(line, "|") {
			if n := strings.Count(line, "|"); bars != 0 && n != bars && strings.Contains(line, "layer") && !strings.Contains(line, "layer ") && n != 9 {
				t.Errorf("a row of %d bars: %s", n, line)
			}
		}
	}
	if err := Markdown(&b, nil); err == nil {
		t.Error("no prediction accepted")
	}
	if err := HTML(&b, &Page{}); err == nil {
		t.Error("a page without a prediction accepted")
	}
}

func TestPlots(t *testing.T) {
	dir := t.TempDir()
	pl, err := Roofline(sample(10), full(1).Roofs)
	if err != nil {
		t.Fatal(err)
	}
	for ext, magic := range map[string]string{"svg": "<?xml", "png": "\x89PNG"} {
		name := filepath.Join(dir, "r."+ext)
		if err := SavePlot(pl, name); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(name); err != nil || !bytes.HasPrefix(b, []byte(magic)) {
			t.Errorf("%s: %v, starts with %.8q", name, err, b)
		}
	}
	if err := SavePlot(pl, filepath.Join(dir, "r.gif")); err == nil {
		t.Error("gif accepted")
	}
	if _, err := Roofline(sample(1), nil); err == nil {
		t.Error("a roofline without multiplying layers")
	}
	if _, err := Plot("t", "x", "y", []Series{{"a", []float64{1, 2}, []float64{3, 4}, true}, {"b", []float64{1}, []float64{2}, false}}); err != nil {
		t.Error(err)
	}
	if pl, err := Tornado("t", "latency_ms", 3, []Bar{{"a", 2, 5}, {"b", math.NaN(), 3.5}}); err != nil {
		t.Error(err)
	} else if err := SavePlot(pl, filepath.Join(dir, "t.svg")); err != nil {
		t.Error(err)
	}
	if _, err := Tornado("t", "x", 1, nil); err == nil {
		t.Error("a tornado without bars accepted")
	}
	if _, err := Plot("t", "x", "y", []Series{{"a", []float64{1}, nil, true}}); err == nil {
		t.Error("unequal coordinates accepted")
	}
}

func TestFormats(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1234.5: "1234", 12.345: "12.3", 0.012345: "0.0123", math.NaN(): "-", math.Inf(1): "-"} {
		if got := MS(v); got != want && !(v == 1234.5 && got == "1235") {
			t.Errorf("MS(%v) = %q, want %q", v, got, want)
		}
	}
	for v, want := range map[int64]string{12: "12 B", 12_340: "12.3 kB", 12_340_000: "12.3 MB", 1_234_000_000: "1.23 GB"} {
		if got := Size(v); got != want {
			t.Errorf("Size(%d) = %q, want %q", v, got, want)
		}
	}
	if got := Ticks(0, 10, 5); fmt.Sprint(got) != "[0 2 4 6 8 10]" {
		t.Errorf("ticks %v", got)
	}
	if got := Ticks(3, 3, 5); len(got) != 1 {
		t.Errorf("ticks of a point: %v", got)
	}
}

// Side by side, times are drawn on one scale, and nothing leaves the drawing.
func TestSideBySide(t *testing.T) {
	rects := regexp.MustCompile(`<rect class="[^"]*" x="([\d.]+)" y="\d+" width="([\d.]+)"`)
	widths := func(svg template.HTML) (sum, end float64) {
		for _, m := range rects.FindAllStringSubmatch(string(svg), -1) {
			var x, w float64
			fmt.Sscan(m[1], &x)
			fmt.Sscan(m[2], &w)
			if w != 12 { // the legend
				sum += w
			}
			end = max(end, x+w)
		}
		return sum, end
	}
	p := full(9)
	p.Narrow = true
	own := p.view()
	p.SpanMS = 2 * p.Prediction.LatencyMS
	half := p.view()
	for name, pair := range map[string][2]template.HTML{"timeline": {own.Timeline, half.Timeline}, "parts": {own.Parts, half.Parts}} {
		a, enda := widths(pair[0])
		b, _ := widths(pair[1])
		if math.Abs(a/b-2) > 0.02 {
			t.Errorf("%s: bars of %.1f, on twice the time %.1f", name, a, b)
		}
		if enda > narrow {
			t.Errorf("%s ends at %.1f of %d", name, enda, narrow)
		}
	}
	for name, svg := range map[string]template.HTML{"mapping": own.Mapping, "parts": own.Parts, "timeline": own.Timeline, "roofline": own.Roofline, "memory": own.Memory} {
		if !strings.Contains(string(svg), fmt.Sprintf(`viewBox="0 0 %d `, narrow)) {
			t.Errorf("%s is not narrow", name)
		}
	}
	if p.SpanMS = p.Prediction.LatencyMS / 2; p.view().Timeline != own.Timeline {
		t.Error("a scale shorter than the request cuts it")
	}
}

func TestRatio(t *testing.T) {
	for _, c := range []struct {
		r    float64
		want string
	}{{1, "package, as large as fp16"}, {0.9999, "package, as large as fp16"}, {1.94, "package, 1.94 times smaller than fp16"},
		{0.5, "package, 2.00 times as large as fp16"}, {0, "package"}, {math.NaN(), "package"}} {
		if got := ratio(c.r); got != c.want {
			t.Errorf("%v: %q, want %q", c.r, got, c.want)
		}
	}
}

func TestShortTicks(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.5: "0.5", 9999: "9999", 20000: "20k", 750000: "750k", 1.5e6: "1.5M", -2e9: "-2G"} {
		if got := short(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
	pl := newPlot("", "", "")
	pl.X.Min, pl.X.Max, pl.Y.Min, pl.Y.Max = 0, 1, 0, 1
	at := func(x, y float64) []Series { return []Series{{X: []float64{x}, Y: []float64{y}}} }
	for _, c := range []struct {
		s         []Series
		top, left bool
	}{{nil, true, false}, {at(0.9, 0.9), true, true}, {append(at(0.9, 0.9), at(0.1, 0.9)...), false, false}, {at(0.5, 0.9), true, false}} {
		if top, left := emptyCorner(pl, c.s); top != c.top || left != c.left {
			t.Errorf("%v: the legend is on top: %v, left: %v", c.s, top, left)
		}
	}
}
