package report

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/triune-sim/triune/result"
)

// plotColours are those of the pages in light mode.
var plotColours = map[string]color.RGBA{
	"CPU": {0xc9, 0x6f, 0x16, 0xff}, "GPU": {0x1f, 0x8a, 0x5b, 0xff}, "NE": {0x36, 0x67, 0xc9, 0xff},
}

// newPlot makes an empty plot in the style of the pages.
func newPlot(title, x, y string) *plot.Plot {
	pl := plot.New()
	pl.Title.Text, pl.X.Label.Text, pl.Y.Label.Text = title, x, y
	for _, f := range []*font.Font{&pl.Title.TextStyle.Font, &pl.X.Label.TextStyle.Font, &pl.Y.Label.TextStyle.Font,
		&pl.X.Tick.Label.Font, &pl.Y.Tick.Label.Font, &pl.Legend.TextStyle.Font} {
		f.Variant = "Sans"
	}
	pl.BackgroundColor = color.White
	pl.Title.Padding, pl.X.Label.Padding, pl.Y.Label.Padding = vg.Points(8), vg.Points(4), vg.Points(4)
	pl.X.Tick.Marker, pl.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	return pl
}

// ticks marks round values and writes them short: 1.5M for 1,500,000.
func ticks(lo, hi float64) []plot.Tick {
	var out []plot.Tick
	for _, v := range Ticks(lo, hi, 6) {
		out = append(out, plot.Tick{Value: v, Label: short(v)})
	}
	return out
}

func short(v float64) string {
	scale, unit := 1.0, ""
	switch a := math.Abs(v); {
	case a >= 1e9:
		scale, unit = 1e9, "G"
	case a >= 1e6:
		scale, unit = 1e6, "M"
	case a >= 1e4:
		scale, unit = 1e3, "k"
	}
	return strconv.FormatFloat(v/scale, 'g', 6, 64) + unit
}

// Roofline makes the roofline of a prediction as a gonum plot.
func Roofline(p *result.Prediction, roofs []Roof) (*plot.Plot, error) {
	pts := rooflinePoints(p)
	if len(pts) == 0 {
		return nil, fmt.Errorf("report: no layer of %s multiplies: there is no roofline", p.Model)
	}
	pl := newPlot(fmt.Sprintf("%s %s on %s", p.Model, p.Scheme, p.Device), "FLOP per byte", "GFLOP/s")
	pl.X.Scale, pl.Y.Scale = plot.LogScale{}, plot.LogScale{}
	pl.X.Tick.Marker, pl.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	lo, hi := pts[0].x, pts[0].x
	for _, u := range unitOrder {
		var xy plotter.XYs
		for _, q := range pts {
			lo, hi = min(lo, q.x), max(hi, q.x)
			if q.l.Unit == u {
				xy = append(xy, plotter.XY{X: q.x, Y: q.y})
			}
		}
		if xy == nil {
			continue
		}
		s, err := plotter.NewScatter(xy)
		if err != nil {
			return nil, fmt.Errorf("report: %w", err)
		}
		s.Color, s.Shape, s.Radius = plotColours[u], draw.CircleGlyph{}, vg.Points(3)
		pl.Add(s)
		pl.Legend.Add(u, s)
	}
	for _, r := range roofs {
		if !(r.TFLOPS > 0 && r.GBs > 0) {
			continue
		}
		peak := r.TFLOPS * 1e3
		xy := plotter.XYs{{X: lo, Y: min(peak, lo*r.GBs)}}
		if k := peak / r.GBs; k > lo && k < hi {
			xy = append(xy, plotter.XY{X: k, Y: peak})
		}
		xy = append(xy, plotter.XY{X: hi, Y: min(peak, hi*r.GBs)})
		l, err := plotter.NewLine(xy)
		if err != nil {
			return nil, fmt.Errorf("report: %w", err)
		}
		l.Color = plotColours[r.Unit]
		pl.Add(l)
	}
	pl.Legend.Top, pl.Legend.Left = true, true
	pl.Add(plotter.NewGrid())
	return pl, nil
}

// Series is a named set of points of a plot.
type Series struct {
	Name string
	X, Y []float64
	Line bool
}

// Plot makes a plot of series, for studies: fronts, ranges.
func Plot(title, x, y string, series []Series) (*plot.Plot, error) {
	pl := newPlot(title, x, y)
	pl.Add(plotter.NewGrid())
	colours := []color.RGBA{plotColours["NE"], plotColours["CPU"], plotColours["GPU"], {0xb1, 0x3a, 0x6b, 0xff}, {0x7a, 0x5b, 0xb5, 0xff}, {0x5c, 0x66, 0x75, 0xff}}
	for i, s := range series {
		if len(s.X) != len(s.Y) {
			return nil, fmt.Errorf("report: series %q has %d and %d coordinates", s.Name, len(s.X), len(s.Y))
		}
		xy := make(plotter.XYs, len(s.X))
		for k := range xy {
			xy[k] = plotter.XY{X: s.X[k], Y: s.Y[k]}
		}
		l, p, err := plotter.NewLinePoints(xy)
		if err != nil {
			return nil, fmt.Errorf("report: series %q: %w", s.Name, err)
		}
		l.Color, p.Color, p.Shape, p.Radius = colours[i%len(colours)], colours[i%len(colours)], draw.CircleGlyph{}, vg.Points(3)
		if s.Line {
			pl.Add(l, p)
		} else {
			pl.Add(p)
		}
		pl.Legend.Add(s.Name, p)
	}
	pl.Legend.Top, pl.Legend.Left = emptyCorner(pl, series)
	return pl, nil
}

// emptyCorner returns the corner of a plot with the fewest points.
func emptyCorner(pl *plot.Plot, series []Series) (top, left bool) {
	least := -1
	for _, c := range [][2]bool{{true, false}, {true, true}, {false, false}, {false, true}} {
		n := 0
		for _, s := range series {
			for k := range s.X {
				u, v := (s.X[k]-pl.X.Min)/(pl.X.Max-pl.X.Min), (s.Y[k]-pl.Y.Min)/(pl.Y.Max-pl.Y.Min)
				if (u < 0.3 == c[1]) && (u < 0.3 || u > 0.7) && (v > 0.75 == c[0]) && (v < 0.25 || v > 0.75) {
					n++
				}
			}
		}
		if least < 0 || n < least {
			least, top, left = n, c[0], c[1]
		}
	}
	return top, left
}

// SavePlot writes a plot of 20 by 12 cm to a file that ends in .svg or .png.
func SavePlot(pl *plot.Plot, name string) error {
	ext := strings.ToLower(filepath.Ext(name))
	if ext != ".svg" && ext != ".png" {
		return fmt.Errorf("report: %s: a plot is .svg or .png", name)
	}
	const width, height, margin = 20 * vg.Centimeter, 12 * vg.Centimeter, 8
	c, err := draw.NewFormattedCanvas(width, height, ext[1:])
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	page := draw.New(c)
	page.SetColor(color.White)
	page.Fill(page.Rectangle.Path())
	pl.Draw(draw.Crop(page, margin, -margin, margin, -margin))
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	_, err = c.WriteTo(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// Bar is one figure of a tornado: what a metric becomes at both ends of the
// figure's range.
type Bar struct {
	Name      string
	Low, High float64
}

// Tornado makes a tornado plot: horizontal bars about the metric's base value,
// the first on top.
func Tornado(title, metric string, base float64, bars []Bar) (*plot.Plot, error) {
	if len(bars) == 0 {
		return nil, fmt.Errorf("report: a tornado without bars")
	}
	pl := newPlot(title, metric, "")
	names := make([]string, len(bars))
	for i, b := range bars {
		y := float64(len(bars) - 1 - i)
		names[len(bars)-1-i] = b.Name
		for k, v := range [2]float64{b.Low, b.High} {
			if v != v {
				continue // no plan at that end
			}
			p, err := plotter.NewPolygon(plotter.XYs{{X: base, Y: y - 0.35}, {X: v, Y: y - 0.35}, {X: v, Y: y + 0.35}, {X: base, Y: y + 0.35}})
			if err != nil {
				return nil, fmt.Errorf("report: %w", err)
			}
			p.Color = plotColours[[2]string{"CPU", "NE"}[k]]
			p.LineStyle.Width = 0
			pl.Add(p)
			if i == 0 {
				pl.Legend.Add([2]string{"low end", "high end"}[k], p)
			}
		}
	}
	pl.NominalY(names...)
	return pl, nil
}
