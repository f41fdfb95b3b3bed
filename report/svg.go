package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/triune-sim/triune/result"
)

// The drawings take their colours from the classes of page.css (u-cpu, u-gpu,
// u-ne, k-transfer, ...), so that they follow the light or dark setting. They
// scale with the page; wide ones scroll on a phone.

type canvas struct {
	strings.Builder
}

// sketch is the size of drawings: their width in units of which 13 are a line
// of text, and the end of their time axes; 0 is the request's own.
type sketch struct {
	w    int
	span float64 // ms
}

const (
	wide   = 960 // a drawing that has the page
	narrow = 560 // one of two side by side
)

// end is the end of a time axis.
func (k sketch) end(ms float64) float64 { return max(ms, k.span) }

func (c *canvas) f(format string, a ...any) { fmt.Fprintf(c, format, a...) }

func esc(s string) string { return template.HTMLEscapeString(s) }

func (c *canvas) open(w, h int, label string) {
	c.f(`<svg viewBox="0 0 %d %d" width="%d" role="img" aria-label="%s">`, w, h, w, esc(label))
}

func (c *canvas) html() template.HTML {
	c.WriteString("</svg>")
	return template.HTML(c.String())
}

func unitClass(u string) string {
	switch u {
	case "CPU", "GPU", "NE":
		return "u-" + strings.ToLower(u)
	}
	return "u-other"
}

var unitOrder = []string{"CPU", "GPU", "NE"}

// MappingSVG is the unit mapping bar: how many layers run where, and how the
// time divides.
func MappingSVG(p *result.Prediction) template.HTML { return sketch{w: wide}.mapping(p) }

func (k sketch) mapping(p *result.Prediction) template.HTML {
	const left = 110
	barW := float64(k.w - left - 20)
	var c canvas
	use := map[string]result.UnitUse{}
	for _, u := range p.Units {
		use[u.Unit] = u
	}
	rows := []struct {
		name string
		of   func(result.UnitUse) float64
		text func(result.UnitUse) string
	}{
		{"layers", func(u result.UnitUse) float64 { return float64(u.Layers) }, func(u result.UnitUse) string { return fmt.Sprint(u.Layers) }},
		{"busy time", func(u result.UnitUse) float64 { return u.BusyMS }, func(u result.UnitUse) string { return MS(u.BusyMS) + " ms" }},
		{"multiply-adds", func(u result.UnitUse) float64 { return float64(u.MACs) }, func(u result.UnitUse) string { return Count(u.MACs) }},
		{"energy", func(u result.UnitUse) float64 { return u.EnergyMJ }, func(u result.UnitUse) string { return MS(u.EnergyMJ) + " mJ" }},
	}
	c.open(k.w, 12+34*len(rows), "Compute unit mapping")
	for i, r := range rows {
		y := 6 + 34*i
		c.f(`<text x="%d" y="%d" text-anchor="end">%s</text>`, left-10, y+18, r.name)
		sum := 0.0
		for _, u := range unitOrder {
			sum += r.of(use[u])
		}
		if sum <= 0 {
			continue
		}
		x := float64(left)
		for _, u := range unitOrder {
			v := r.of(use[u])
			if v <= 0 {
				continue
			}
			dx := barW * v / sum
			label := fmt.Sprintf("%s: %s (%.1f %%)", u, r.text(use[u]), 100*v/sum)
			c.f(`<g><title>%s</title><rect class="%s" x="%.2f" y="%d" width="%.2f" height="26"/>`, esc(label), unitClass(u), x, y, max(dx, 1))
			if dx > 150 {
				c.f(`<text class="on" x="%.2f" y="%d">%s</text>`, x+8, y+18, esc(label))
			}
			c.f(`</g>`)
			x += dx
		}
	}
	return c.html()
}

// PartsSVG divides the latency into its parts.
func PartsSVG(p *result.Prediction) template.HTML { return sketch{w: wide}.parts(p) }

func (k sketch) parts(p *result.Prediction) template.HTML {
	const left = 110
	barW := float64(k.w - left - 20)
	if p.LatencyMS > 0 {
		barW *= p.LatencyMS / k.end(p.LatencyMS)
	}
	column := 270
	if k.w < wide {
		column = 215
	}
	columns := (k.w - left) / column
	var compute, memory, overhead float64
	for i := range p.Layers {
		compute += p.Layers[i].ComputeMS
		memory += p.Layers[i].MemoryMS
		overhead += p.Layers[i].OverheadMS
	}
	parts := []struct {
		name, class string
		v           float64
	}{{"handling", "k-handling", p.HandlingMS}, {"floors", "k-floor", p.FloorMS}, {"compute", "k-compute", compute},
		{"memory", "k-memory", memory}, {"layer overhead", "k-overhead", overhead}, {"moving", "k-transfer", p.TransferMS}}
	sum := 0.0
	for _, x := range parts {
		sum += x.v
	}
	var c canvas
	c.open(k.w, 38+22*((len(parts)+columns-1)/columns)+12, "Parts of the latency")
	c.f(`<text x="%d" y="24" text-anchor="end">latency</text>`, left-10)
	x := float64(left)
	shown := 0
	for _, s := range parts {
		if sum <= 0 || s.v <= 0 {
			continue
		}
		dx := barW * s.v / sum
		label := fmt.Sprintf("%s %s ms", s.name, MS(s.v))
		c.f(`<rect class="%s" x="%.2f" y="6" width="%.2f" height="26"><title>%s (%.1f %%)</title></rect>`, s.class, x, max(dx, 1), esc(label), 100*s.v/sum)
		lx, ly := left+shown%columns*column, 44+shown/columns*22
		c.f(`<rect class="%s" x="%d" y="%d" width="12" height="12"/><text x="%d" y="%d">%s</text>`, s.class, lx, ly, lx+17, ly+11, esc(label))
		shown++
		x += dx
	}
	return c.html()
}

// Ticks returns round values from lo to hi, about n of them.
func Ticks(lo, hi float64, n int) []float64 {
	if !(hi > lo) || math.IsInf(hi-lo, 0) {
		return []float64{lo}
	}
	raw := (hi - lo) / float64(max(1, n))
	step := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*step >= raw {
			step *= m
			break
		}
	}
	var out []float64
	for i := math.Ceil(lo/step - 1e-9); i*step <= hi+1e-9*step; i++ {
		out = append(out, math.Round(i*step*1e9)/1e9+0) // + 0: no negative zero
	}
	return out
}

// TimelineSVG draws what happens when, a lane per unit that does something.
func TimelineSVG(t *result.Timeline) template.HTML { return sketch{w: wide}.timeline(t) }

func (k sketch) timeline(t *result.Timeline) template.HTML {
	const left, right, lane, top = 60, 16, 44, 8
	w, end := k.w, k.end(t.EndMS)
	used := make([]int, len(t.Lanes))
	n := 0
	for i := range t.Lanes {
		used[i] = -1
		for _, s := range t.Spans {
			if s.Lane == i && s.DurMS > 0 {
				used[i] = n
				n++
				break
			}
		}
	}
	var c canvas
	bottom := top + lane*n
	c.open(w, bottom+34, "Timeline")
	scale := 0.0
	if end > 0 {
		scale = float64(w-left-right) / end
	}
	for _, x := range Ticks(0, end, w/120) {
		px := left + x*scale
		c.f(`<line class="grid" x1="%.2f" y1="%d" x2="%.2f" y2="%d"/><text class="dim" x="%.2f" y="%d" text-anchor="middle">%g</text>`, px, top, px, bottom, px, bottom+16, x)
	}
	c.f(`<text class="dim" x="%d" y="%d" text-anchor="end">ms</text>`, w-2, bottom+30)
	for i, name := range t.Lanes {
		if used[i] >= 0 {
			c.f(`<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, top+lane*used[i]+lane/2+4, esc(name))
		}
	}
	for _, s := range t.Spans {
		if s.Lane < 0 || s.Lane >= len(used) || used[s.Lane] < 0 {
			continue
		}
		class := "k-" + s.Kind
		if s.Kind == "layer" || s.Kind == "request" {
			class = unitClass(t.Lanes[s.Lane])
		}
		if s.DurMS*scale > 2 { // a border would hide what is thinner
			class += " cut"
		}
		tip := fmt.Sprintf("%s: %s ms from %s", s.Name, Sig(s.DurMS, 3), Sig(s.StartMS, 3))
		if s.Detail != "" {
			tip += ", " + s.Detail
		}
		c.f(`<rect class="%s" x="%.2f" y="%d" width="%.2f" height="%d"><title>%s</title></rect>`, class, left+s.StartMS*scale, top+lane*used[s.Lane]+5, max(0.3, s.DurMS*scale), lane-10, esc(tip))
	}
	return c.html()
}

// RooflineSVG draws each layer's rate over its arithmetic intensity, with the
// ceilings of the units. Layers without multiply-adds have no place on it.
func RooflineSVG(p *result.Prediction, roofs []Roof) template.HTML {
	return sketch{w: wide}.roofline(p, roofs)
}

func (k sketch) roofline(p *result.Prediction, roofs []Roof) template.HTML {
	const left, right, top, bottom = 70, 20, 14, 46
	w, h := k.w, 420
	pts := rooflinePoints(p)
	if len(pts) == 0 {
		return `<p class="dim">No layer multiplies: there is no roofline.</p>`
	}
	x0, x1, y0, y1 := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, q := range pts {
		x0, x1 = min(x0, q.x), max(x1, q.x)
		y0, y1 = min(y0, q.y), max(y1, q.y)
	}
	for _, r := range roofs {
		if r.TFLOPS > 0 {
			y1 = max(y1, r.TFLOPS*1e3)
		}
	}
	decade := func(lo, hi float64) (float64, float64) {
		return math.Floor(math.Log10(lo)), max(math.Ceil(math.Log10(hi)), math.Floor(math.Log10(lo))+1)
	}
	lx0, lx1 := decade(x0, x1)
	ly0, ly1 := decade(y0, y1)
	px := func(v float64) float64 { return left + (math.Log10(v)-lx0)/(lx1-lx0)*float64(w-left-right) }
	py := func(v float64) float64 {
		return float64(h-bottom) - (math.Log10(v)-ly0)/(ly1-ly0)*float64(h-top-bottom)
	}
	var c canvas
	c.open(w, h, "Roofline")
	for e := lx0; e <= lx1; e++ {
		x := px(math.Pow(10, e))
		c.f(`<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text class="dim" x="%.1f" y="%d" text-anchor="middle">%g</text>`, x, top, x, h-bottom, x, h-bottom+16, math.Pow(10, e))
	}
	for e := ly0; e <= ly1; e++ {
		y := py(math.Pow(10, e))
		c.f(`<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text class="dim" x="%d" y="%.1f" text-anchor="end">%g</text>`, left, y, w-right, y, left-8, y+4, math.Pow(10, e))
	}
	c.f(`<text class="dim" x="%d" y="%d" text-anchor="middle">FLOP per byte of weights and activations</text>`, (w+left)/2, h-8)
	c.f(`<text class="dim" transform="translate(14 %d) rotate(-90)" text-anchor="middle">GFLOP/s</text>`, (h-bottom)/2)
	for _, r := range roofs {
		if !(r.TFLOPS > 0 && r.GBs > 0) {
			continue
		}
		peak := r.TFLOPS * 1e3
		at := func(x float64) float64 { return min(peak, x*r.GBs) }
		a, b := math.Pow(10, lx0), math.Pow(10, lx1)
		knee := min(max(peak/r.GBs, a), b)
		floor := math.Pow(10, ly0)
		if at(a) < floor { // start where the roof enters the drawing
			a = min(floor/r.GBs, b)
		}
		c.f(`<polyline class="roof %s" points="%.1f,%.1f %.1f,%.1f %.1f,%.1f"><title>%s: %s TFLOP/s, %s GB/s</title></polyline>`, "s-"+strings.ToLower(r.Unit),
			px(a), py(at(a)), px(knee), py(at(knee)), px(b), py(at(b)), esc(r.Unit+" "+r.Label), Sig(r.TFLOPS, 3), Sig(r.GBs, 3))
		c.f(`<text class="dim" x="%d" y="%.1f" text-anchor="end">%s %s TFLOP/s</text>`, w-right-4, py(at(b))-5, esc(r.Unit), Sig(r.TFLOPS, 3))
	}
	for _, q := range pts {
		c.f(`<circle class="%s cut" cx="%.1f" cy="%.1f" r="%.1f"><title>%s: %s GFLOP/s at %s FLOP/byte, %s ms, bound by %s</title></circle>`, unitClass(q.l.Unit),
			px(q.x), py(q.y), 3+6*math.Sqrt(q.share), esc(q.l.Name), Sig(q.y, 3), Sig(q.x, 3), MS(q.l.LatencyMS), q.l.Bound)
	}
	return c.html()
}

type rooflinePoint struct {
	x, y, share float64 // FLOP/byte, GFLOP/s, share of the layers' time
	l           *result.Layer
}

func rooflinePoints(p *result.Prediction) []rooflinePoint {
	var out []rooflinePoint
	for i := range p.Layers {
		l := &p.Layers[i]
		b := l.WeightBytes + l.InputBytes + l.OutputBytes
		if l.MACs <= 0 || b <= 0 || !(l.LatencyMS > 0) {
			continue
		}
		s := 0.0
		if p.LayersMS > 0 {
			s = l.LatencyMS / p.LayersMS
		}
		out = append(out, rooflinePoint{2 * float64(l.MACs) / float64(b), 2 * float64(l.MACs) / l.LatencyMS / 1e6, s, l})
	}
	return out
}

// MemorySVG draws the bytes of live activations over time.
func MemorySVG(p *result.Prediction, live []int64) template.HTML {
	return sketch{w: wide}.memory(p, live)
}

func (k sketch) memory(p *result.Prediction, live []int64) template.HTML {
	const left, right, top, bottom = 80, 16, 36, 40 // the peak's name stands above
	w, h := k.w, 240
	if len(live) != len(p.Layers) || len(live) == 0 || !(p.LatencyMS > 0) {
		return ""
	}
	peak, at := int64(0), 0
	for i, b := range live {
		if b > peak {
			peak, at = b, i
		}
	}
	if peak == 0 {
		return ""
	}
	last := k.end(p.LatencyMS)
	px := func(ms float64) float64 { return left + ms/last*float64(w-left-right) }
	py := func(b float64) float64 { return float64(h-bottom) - b/float64(peak)*float64(h-top-bottom) }
	var c canvas
	c.open(w, h, "Activation memory over time")
	for _, v := range Ticks(0, float64(peak), 4) {
		c.f(`<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text class="dim" x="%d" y="%.1f" text-anchor="end">%s</text>`, left, py(v), w-right, py(v), left-8, py(v)+4, Size(int64(v)))
	}
	for _, v := range Ticks(0, last, w/120) {
		c.f(`<text class="dim" x="%.1f" y="%d" text-anchor="middle">%g</text>`, px(v), h-bottom+16, v)
	}
	c.f(`<text class="dim" x="%d" y="%d" text-anchor="end">ms</text>`, w-2, h-8)
	c.f(`<path class="area" d="M%.1f %d`, px(p.Layers[0].StartMS), h-bottom)
	end := 0.0
	for i := range live {
		l := &p.Layers[i]
		end = l.StartMS + l.TransferMS + l.LatencyMS
		c.f(`V%.1f H%.1f`, py(float64(live[i])), px(end))
	}
	c.f(` V%d Z"/>`, h-bottom)
	l := &p.Layers[at]
	x := px(l.StartMS)
	anchor := "start"
	if x > float64(w)/2 {
		anchor = "end"
	}
	c.f(`<circle class="peak" cx="%.1f" cy="%.1f" r="4"/><text x="%.1f" y="%.1f" text-anchor="%s">peak %s in %s</text>`, x, py(float64(peak)), x, py(float64(peak))-10, anchor, Size(peak), esc(l.Name))
	return c.html()
}
