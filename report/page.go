package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"

	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/result/timeline"
)

// Page is what a report shows. Only Prediction is required.
type Page struct {
	Prediction *result.Prediction
	// Timeline draws the schedule; nil draws it from the layers' start times.
	Timeline *result.Timeline
	// Explanation adds the other plans that were possible.
	Explanation *result.Explanation
	// LiveBytes is what activations take during each layer, in the order of
	// Prediction.Layers.
	LiveBytes []int64
	// Roofs are the ceilings of the units, for the roofline.
	Roofs []Roof
	// Published are measurements by others of the same model, scheme and
	// device.
	Published []Published
	// Narrow draws for half a page; SpanMS is the end of the time axes, so that
	// two pages side by side compare (0: the request's own).
	Narrow bool
	SpanMS float64
	// Command reproduces the page; Version is the program's.
	Command, Version string
}

// Roof is a ceiling of a unit: what it can compute, and what it can move.
type Roof struct {
	Unit   string
	TFLOPS float64 // 2 FLOP a multiply-add
	GBs    float64 // activation bandwidth
	Label  string  // what the figures are, in a few words
}

// Published is a measurement to compare with.
type Published struct {
	What       string  `json:"what"`
	MS         float64 `json:"ms"`
	Source     string  `json:"source"`
	PredictsMS float64 `json:"predicts_ms"`
}

//go:embed page.html.tmpl
var pageSource string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// CSS is the style sheet of the pages, with the classes that the drawings use.
func CSS() string { return pageCSS }

// JS is the script of the pages: it makes tables sort and filter.
func JS() string { return pageJS }

var pageTemplate = template.Must(template.New("page").Funcs(Funcs()).Parse(pageSource))

// Funcs are the functions that templates of pages use to format figures.
func Funcs() template.FuncMap {
	return template.FuncMap{
		"ms": MS, "size": Size, "count": Count, "sig": Sig,
		"f4":    func(v float64) string { return fmt.Sprintf("%.4f", v) },
		"kb":    func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e3) },
		"mmac":  func(n int64) string { return fmt.Sprintf("%.2f", float64(n)/1e6) },
		"pct":   func(a, b float64) string { return percent(a, b) },
		"add1":  func(i int) int { return i + 1 },
		"join":  strings.Join,
		"low":   strings.ToLower,
		"plus":  func(v float64) string { return fmt.Sprintf("%+.3f", v) },
		"fused": fused, "ratio": ratio,
		"tops":  func(p *result.Prediction) string { return Sig(2*float64(p.MACs)/p.LatencyMS/1e9, 3) },
		"watts": func(p *result.Prediction) string { return Sig(p.EnergyMJ/p.LatencyMS, 3) },
		"err":   func(p Published) string { return fmt.Sprintf("%+.1f %%", 100*(p.PredictsMS/p.MS-1)) },
		"css":   func() template.CSS { return template.CSS(pageCSS) },
		"js":    func() template.JS { return template.JS(pageJS) },
	}
}

// ratio says how a package compares with that of the uncompressed fp16 network.
func ratio(r float64) string {
	switch s := fmt.Sprintf("%.2f", r); {
	case !(r > 0):
		return "package"
	case s == "1.00":
		return "package, as large as fp16"
	case r < 1:
		return fmt.Sprintf("package, %.2f times as large as fp16", 1/r)
	default:
		return "package, " + s + " times smaller than fp16"
	}
}

func fused(l result.Layer) string {
	if len(l.Fused) == 0 {
		return l.Op
	}
	return l.Op + " + " + strings.Join(l.Fused, " + ")
}

func percent(a, b float64) string {
	if !(b > 0) {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*a/b)
}

// view is what the template sees.
type view struct {
	*Page
	Mapping, Parts, Timeline, Roofline, Memory template.HTML
}

// HTML writes the page.
func HTML(w io.Writer, p *Page) error {
	if p == nil || p.Prediction == nil {
		return fmt.Errorf("report: a page without a prediction")
	}
	if err := pageTemplate.Execute(w, p.view()); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// Fragment writes the inside of a page without its frame, for a server that
// puts it into its own: the figures and drawings, and with all also the tables.
// The frame brings [CSS].
func Fragment(w io.Writer, p *Page, all bool) error {
	if p == nil || p.Prediction == nil {
		return fmt.Errorf("report: a page without a prediction")
	}
	v := p.view()
	err := pageTemplate.ExecuteTemplate(w, "cards", p.Prediction)
	if err == nil {
		err = pageTemplate.ExecuteTemplate(w, "drawings", v)
	}
	if err == nil && all {
		err = pageTemplate.ExecuteTemplate(w, "rest", v)
	}
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func (p *Page) view() view {
	k := sketch{w: wide, span: p.SpanMS}
	if p.Narrow {
		k.w = narrow
	}
	return view{Page: p, Mapping: k.mapping(p.Prediction), Parts: k.parts(p.Prediction),
		Timeline: k.timeline(TimelineOf(p)), Roofline: k.roofline(p.Prediction, p.Roofs), Memory: k.memory(p.Prediction, p.LiveBytes)}
}

// TimelineOf is the page's timeline, or one drawn from the layers alone.
func TimelineOf(p *Page) *result.Timeline {
	if p.Timeline != nil {
		return p.Timeline
	}
	return timeline.FromPrediction(p.Prediction)
}

// Sig formats v with n significant digits, without an exponent.
func Sig(v float64, n int) string {
	switch {
	case v == 0:
		return "0"
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "-"
	}
	d := n - 1 - int(math.Floor(math.Log10(math.Abs(v))))
	return fmt.Sprintf("%.*f", max(0, min(d, 6)), v)
}

// MS formats a time in ms with three significant digits.
func MS(v float64) string { return Sig(v, 3) }

// Size formats bytes with a decimal unit (1 MB = 1,000,000 bytes).
func Size(n int64) string {
	switch v := float64(n); {
	case n >= 1e9:
		return Sig(v/1e9, 3) + " GB"
	case n >= 1e6:
		return Sig(v/1e6, 3) + " MB"
	case n >= 1e3:
		return Sig(v/1e3, 3) + " kB"
	}
	return fmt.Sprintf("%d B", n)
}

// Count formats a large number with a decimal unit.
func Count(n int64) string {
	switch v := float64(n); {
	case n >= 1e9:
		return Sig(v/1e9, 3) + " G"
	case n >= 1e6:
		return Sig(v/1e6, 3) + " M"
	case n >= 1e4:
		return Sig(v/1e3, 3) + " k"
	}
	return fmt.Sprint(n)
}
