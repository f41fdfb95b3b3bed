package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/report"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/result/timeline"
	"github.com/triune-sim/triune/runtime"
)

func (a *app) predictCommand() *cobra.Command {
	var t target
	var layers, asJSON, gantt bool
	var explain string
	var width int
	var docs reportFlags
	c := &cobra.Command{
		Use:   "predict MODEL",
		Short: "Place a model on a device and predict what it costs",
		Example: `  triune predict resnet50 -d iphone-15-pro -c w8a8 --layers
  triune predict net.onnx -d iphone-14-pro,m4 -c fp16,w8,w8a8
  triune predict net.mlpackage -c stored --explain softmax`,
		Args: cobra.RangeArgs(1, 2), // the second is the layer of --explain
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 { // the layer of --explain, which may stand alone
				if !cmd.Flags().Changed("explain") || explain != "*" {
					return usagef("predict takes one model, not %q and %q", args[0], args[1])
				}
				explain = args[1]
			}
			if err := docs.check(asJSON); err != nil {
				return err
			}
			sessions, err := a.open(cmd.Context(), args[0], &t, nil)
			if err != nil {
				return err
			}
			defer closeAll(sessions)
			if cmd.Flags().Changed("explain") {
				return a.explain(sessions, explain, asJSON)
			}
			preds := make([]*result.Prediction, len(sessions))
			for i, s := range sessions {
				preds[i] = s.Predict()
				if len(sessions) == 1 {
					ex, err := s.Explainer()
					if err != nil {
						return err
					}
					ex.Reasons(preds[i])
				}
			}
			if err := docs.write(sessions, preds, &t, args[0]); err != nil {
				return err
			}
			switch {
			case asJSON && len(preds) == 1:
				return writeJSON(a.stdout, preds[0])
			case asJSON:
				return writeJSON(a.stdout, preds)
			case docs.md:
				return report.Markdown(a.stdout, preds)
			case len(preds) == 1:
				printPrediction(a.stdout, preds[0], layers)
				if gantt {
					fmt.Fprintln(a.stdout)
					return timeline.Text(a.stdout, timeline.FromPrediction(preds[0]), width)
				}
			default:
				printPredictions(a.stdout, preds)
			}
			return nil
		},
	}
	t.register(c, "fp16")
	docs.register(c)
	c.Flags().BoolVar(&layers, "layers", false, "list every layer")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	c.Flags().BoolVar(&gantt, "gantt", false, "draw the timeline as text")
	c.Flags().IntVar(&width, "width", 100, "columns of the text timeline")
	c.Flags().StringVar(&explain, "explain", "", "say why layers run where they do: a layer's name, operator or kind (* for any)")
	c.Flags().Lookup("explain").NoOptDefVal = "*"
	return c
}

// open prepares a model for every scheme and opens it on every device and
// mask. The function ranges, if not nil, gives the ranges of activations that a
// run needs; nil ranges are those of seeded inputs.
func (a *app) open(ctx context.Context, name string, t *target, ranges func(*compile.Folded, quant.Scheme) (quant.Ranges, error), more ...runtime.Option) ([]*runtime.Session, error) {
	// Everything that costs nothing is checked before the model is read.
	lo, err := t.load(name)
	if err != nil {
		return nil, err
	}
	place, err := t.placement()
	if err != nil {
		return nil, err
	}
	masks, err := t.masks()
	if err != nil {
		return nil, err
	}
	schemes, err := t.parseSchemes()
	if err != nil {
		return nil, err
	}
	devices, err := t.parseDevices()
	if err != nil {
		return nil, err
	}
	g, err := compile.Load(name, lo)
	if err != nil {
		return nil, err
	}
	f, err := compile.Fold(g)
	if err != nil {
		return nil, err
	}
	var out []*runtime.Session
	done := false
	defer func() {
		if !done {
			closeAll(out)
		}
	}()
	for _, q := range schemes {
		var o compile.Options
		if ranges != nil {
			if o.Quant.Ranges, err = ranges(f, q); err != nil {
				return nil, err
			}
		}
		if o.Quant.Ranges == nil {
			o.Quant.Ranges = runtime.Ranges(f.Graph, 0)
		}
		comp, err := f.Apply(q, o)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			for _, m := range masks {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				s, err := runtime.OpenCompiled(comp, append([]runtime.Option{runtime.WithDeviceValue(d), runtime.WithUnits(m), runtime.WithPlacement(place)}, more...)...)
				if err != nil {
					return nil, err
				}
				out = append(out, s)
			}
		}
	}
	done = true
	return out, nil
}

func closeAll(ss []*runtime.Session) {
	for _, s := range ss {
		_ = s.Close()
	}
}

func (a *app) explain(sessions []*runtime.Session, pattern string, asJSON bool) error {
	for _, s := range sessions {
		ex, err := s.Explainer()
		if err != nil {
			return err
		}
		e, err := ex.Explain(pattern)
		if err != nil {
			return err
		}
		if asJSON {
			if err := writeJSON(a.stdout, e); err != nil {
				return err
			}
			continue
		}
		w := a.stdout
		fmt.Fprintf(w, "%s on %s, policy %s: %s ms\n%s\n", e.Model, e.Device, e.Policy, ms(e.LatencyMS), e.Summary)
		if r := e.RunnerUp; r != nil {
			fmt.Fprintf(w, "Runner-up: %s ms (%+.3f ms), %s\n", ms(r.LatencyMS), r.DeltaMS, r.Detail)
		}
		if len(e.Alternatives) > 0 {
			fmt.Fprintln(w)
			t := newTable("plan", ">latency ms", ">difference ms", ">energy mJ", ">layers moved", "")
			for _, x := range e.Alternatives {
				if x.LatencyMS == 0 {
					t.add(x.Name, "-", "-", "-", "-", x.Detail)
					continue
				}
				t.add(x.Name, ms(x.LatencyMS), fmt.Sprintf("%+.3f", x.DeltaMS), ms(x.EnergyMJ), fmt.Sprint(x.Moves), x.Detail)
			}
			t.write(w)
		}
		for _, l := range e.Layers {
			fmt.Fprintf(w, "\n%s (%s) runs on the %s: %s\n", l.Name, l.Op, l.Unit, l.Reason)
			t := newTable("  unit", ">layer ms", ">energy mJ", "bound", ">whole plan ms", ">of it moving ms", "")
			for _, u := range l.Choices {
				mark := "  "
				if u.Chosen {
					mark = "* "
				}
				if !u.Supported {
					t.add(mark+u.Unit, "-", "-", "-", "-", "-", u.Note)
					continue
				}
				t.add(mark+u.Unit, ms(u.LayerMS), ms(u.EnergyMJ), u.Bound, ms(u.PlanMS), fmt.Sprintf("%+.3f", u.MoveMS), u.Note)
			}
			t.write(w)
		}
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func printPrediction(w io.Writer, p *result.Prediction, layers bool) {
	fmt.Fprintf(w, "%s, %s on %s (%s%s), compute units %s, policy %s\n", p.Model, p.Scheme, p.Device, p.Chip, osText(p.OS), p.ComputeUnits, p.Policy)
	if p.Summary != "" {
		fmt.Fprintln(w, p.Summary)
	}
	fmt.Fprintln(w)
	t := newTable("", ">", "")
	t.add("latency", ms(p.LatencyMS)+" ms", fmt.Sprintf("p10 %s, p90 %s; layers %s, floors %s, transfers %s, handling %s", ms(p.LatencyP10MS), ms(p.LatencyP90MS), ms(p.LayersMS), ms(p.FloorMS), ms(p.TransferMS), ms(p.HandlingMS)))
	t.add("energy", ms(p.EnergyMJ)+" mJ", fmt.Sprintf("%s W on average", sig(p.EnergyMJ/p.LatencyMS, 3)))
	t.add("load", ms(p.LoadMS)+" ms", "")
	t.add("package", size(p.PackageBytes), fmt.Sprintf("compression ratio %.2f against fp16", p.CompressionRatio))
	t.add("memory", size(p.PeakMemoryBytes), fmt.Sprintf("weights %s, activations %s", size(p.WeightMemoryBytes), size(p.ActivationMemoryBytes)))
	t.add("work", count(p.MACs)+"MAC", fmt.Sprintf("%s parameters, %s TOPS over the request", count(p.Params), sig(2*float64(p.MACs)/p.LatencyMS/1e9, 3)))
	var b strings.Builder
	t.write(&b)
	// The header of this table is empty: print the rows alone.
	rows := strings.SplitN(b.String(), "\n", 3)
	fmt.Fprint(w, rows[2])
	fmt.Fprintln(w)
	s := newTable("segment", "unit", ">layers", ">start ms", ">latency ms", "from", "to")
	for i, g := range p.Segments {
		s.add(fmt.Sprint(i+1), g.Unit, fmt.Sprint(g.Layers), ms(g.StartMS), ms(g.LatencyMS), g.First, g.Last)
	}
	s.write(w)
	if !layers {
		return
	}
	fmt.Fprintln(w)
	l := newTable("layer", "op", "unit", ">ms", ">compute", ">memory", ">overhead", ">moving", "bound", ">MMAC", ">weights kB", ">in kB", ">out kB", ">mJ", "can run on", "why here")
	for _, x := range p.Layers {
		op := x.Op
		if len(x.Fused) > 0 {
			op += "+" + strings.Join(x.Fused, "+")
		}
		l.add(x.Name, op, x.Unit, fmt.Sprintf("%.4f", x.LatencyMS), fmt.Sprintf("%.4f", x.ComputeMS), fmt.Sprintf("%.4f", x.MemoryMS),
			fmt.Sprintf("%.4f", x.OverheadMS), fmt.Sprintf("%.4f", x.TransferMS), x.Bound, fmt.Sprintf("%.2f", float64(x.MACs)/1e6),
			fmt.Sprintf("%.1f", float64(x.WeightBytes)/1e3), fmt.Sprintf("%.1f", float64(x.InputBytes)/1e3), fmt.Sprintf("%.1f", float64(x.OutputBytes)/1e3),
			fmt.Sprintf("%.4f", x.EnergyMJ), strings.Join(x.SupportedUnits, ","), x.Reason)
	}
	l.write(w)
}

func osText(os string) string {
	if os == "" {
		return ""
	}
	return ", " + os
}

func printPredictions(w io.Writer, ps []*result.Prediction) {
	fmt.Fprintf(w, "%s, policy %s, batch 1\n\n", ps[0].Model, ps[0].Policy)
	t := newTable("device", "scheme", "units", ">latency ms", ">p10", ">p90", ">energy mJ", ">package", ">ratio", ">memory", ">load ms", "runs on")
	for _, p := range ps {
		var on []string
		for _, u := range p.Units {
			on = append(on, fmt.Sprintf("%s %d", u.Unit, u.Layers))
		}
		t.add(p.Device, p.Scheme, p.ComputeUnits, ms(p.LatencyMS), ms(p.LatencyP10MS), ms(p.LatencyP90MS), ms(p.EnergyMJ),
			size(p.PackageBytes), fmt.Sprintf("%.2f", p.CompressionRatio), size(p.PeakMemoryBytes), ms(p.LoadMS), strings.Join(on, ", "))
	}
	t.write(w)
}
