package calibrate

import (
	"fmt"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/triune-sim/triune/units"
)

// WriteSVG draws measured against predicted latencies on logarithmic axes, a
// colour and shape for each unit, with the diagonal and 20 % on either side of
// it.
func WriteSVG(w io.Writer, title string, rs []Residual) error {
	if len(rs) == 0 {
		return fmt.Errorf("calibrate: nothing to plot")
	}
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text, p.Y.Label.Text = "measured, ms", "predicted, ms"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: 2}, plot.LogTicks{Prec: 2}
	lo, hi := rs[0].PredictedMS, rs[0].PredictedMS
	var pts [units.NumKinds]plotter.XYs
	for _, r := range rs {
		lo, hi = min(lo, r.PredictedMS, r.Sample.LatencyMS), max(hi, r.PredictedMS, r.Sample.LatencyMS)
		k := r.Sample.Unit
		pts[k] = append(pts[k], plotter.XY{X: r.Sample.LatencyMS, Y: r.PredictedMS})
	}
	lo, hi = lo/1.3, hi*1.3
	for i, f := range []float64{1, 1.2, 1 / 1.2} {
		l, err := plotter.NewLine(plotter.XYs{{X: lo, Y: lo * f}, {X: hi, Y: hi * f}})
		if err != nil {
			return fmt.Errorf("calibrate: %w", err)
		}
		l.Color = color.Gray{Y: 120}
		if i > 0 {
			l.Dashes = []vg.Length{vg.Points(3), vg.Points(3)}
		}
		p.Add(l)
	}
	shapes := [units.NumKinds]draw.GlyphDrawer{draw.BoxGlyph{}, draw.PyramidGlyph{}, draw.CircleGlyph{}}
	colours := [units.NumKinds]color.Color{color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 255}, color.RGBA{R: 0x2c, G: 0xa0, B: 0x2c, A: 255}, color.RGBA{R: 0xd6, G: 0x27, B: 0x28, A: 255}}
	for k, xy := range pts {
		if len(xy) == 0 {
			continue
		}
		s, err := plotter.NewScatter(xy)
		if err != nil {
			return fmt.Errorf("calibrate: %w", err)
		}
		s.Shape, s.Color, s.Radius = shapes[k], colours[k], vg.Points(2.5)
		p.Add(s)
		p.Legend.Add(units.Kind(k).String(), s)
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = lo, hi, lo, hi
	c := vgsvg.New(14*vg.Centimeter, 14*vg.Centimeter)
	p.Draw(draw.New(c))
	if _, err := c.WriteTo(w); err != nil {
		return fmt.Errorf("calibrate: %w", err)
	}
	return nil
}
