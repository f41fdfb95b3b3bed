package main

import (
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/compare"
	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/internal/samples"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units"
)

func (a *app) compareCommand() *cobra.Command {
	var t target
	var k calibration
	var data, labels, output, reference string
	var random, layers, threshold int
	var asJSON bool
	c := &cobra.Command{
		Use:   "compare MODEL -c SCHEME [--data DIR] [--labels FILE]",
		Short: "What compression and placement do to a model's results, layer by layer",
		Long: `Run a model compressed and placed, and the same model in fp32 on the CPU, on the
same samples, and say how far apart they are: signal-to-noise ratio (SNR), peak
SNR, cosine and largest error of every output and of every layer, top-1 agreement
where the output is a vector of class scores, and accuracy where labels are given.

Layers are listed by the noise of their own: that of their output, relative to the
signal, when their inputs are the reference's.

--data is a folder: images, .npy files of one or many samples, or a folder of
NAME.npy per sample. --labels is a text file with one class index a line, in the
order of the samples (file names sorted). Without --data, seeded random inputs
are compared: good for a first look, not for a decision.`,
		Example: `  triune compare net.onnx -c w8a8 --data images/ --labels labels.txt --calibrate train/
  triune compare mobilenet_v2 -c w4,w4b32,p4 --data images/ --layers 0
  triune compare net_qat.onnx -c stored -u cpu_and_ne --reference net.onnx --data images/`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if random < 1 || layers < -1 {
				return usagef("--random takes 1 or more, --layers -1 (all) or more")
			}
			if data == "" && labels != "" {
				return usagef("--labels goes with --data")
			}
			if _, err := k.check(); err != nil {
				return err
			}
			place, err := t.placement()
			if err != nil {
				return err
			}
			masks, err := t.masks()
			if err != nil {
				return err
			}
			schemes, err := t.parseSchemes()
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("weight-threshold") {
				for i, s := range schemes {
					if len(s.Stages) == 0 {
						continue // compresses no weight by size
					}
					if schemes[i], err = s.Override(quant.Overrides{WeightThreshold: &threshold}); err != nil {
						return usageError{err}
					}
				}
			}
			devices, err := t.parseDevices()
			if err != nil {
				return err
			}
			lo, err := t.load(args[0])
			if err != nil {
				return err
			}
			g, err := compile.Load(args[0], lo)
			if err != nil {
				return err
			}
			f, err := compile.Fold(g)
			if err != nil {
				return err
			}
			var src compare.Source
			if data != "" {
				if src, err = samples.Open(data, g.Inputs, k.preprocess(g), k.limit); err != nil {
					return err
				}
			} else if src, err = randomSamples(g, random); err != nil {
				return err
			}
			o := compare.Options{Output: output, Layers: layers != 0, Threads: k.threads}
			if labels != "" {
				if o.Labels, err = samples.Labels(labels, src.Len()); err != nil {
					return err
				}
			}
			rg := g
			if reference != "" {
				if rg, err = compile.Load(reference, lo); err != nil {
					return err
				}
			}
			ref, err := runtime.OpenGraph(rg, runtime.WithScheme("fp32"), runtime.WithUnits(units.CPUOnly), runtime.WithThreads(1))
			if err != nil {
				return err
			}
			defer ref.Close()
			var results []*compare.Result
			for _, s := range schemes {
				var co compile.Options
				if co.Quant.Ranges, err = k.ranges(a, cmd, f.Graph, s); err != nil {
					return err
				}
				comp, err := f.Apply(s, co)
				if err != nil {
					return err
				}
				for _, d := range devices {
					for _, m := range masks {
						test, err := runtime.OpenCompiled(comp, runtime.WithDeviceValue(d), runtime.WithPlacement(place), runtime.WithUnits(m), runtime.WithThreads(1))
						if err != nil {
							return err
						}
						bar := a.progress("comparing "+s.String(), src.Len())
						o.Progress = func(done, _ int) { bar.set(done) }
						r, err := compare.Sessions(cmd.Context(), ref, test, src, o)
						bar.done()
						test.Close()
						if err != nil {
							return err
						}
						if layers > 0 && len(r.Layers) > layers {
							r.Layers = r.Layers[:layers]
						}
						results = append(results, r)
					}
				}
			}
			if asJSON {
				if len(results) == 1 {
					return writeJSON(a.stdout, results[0])
				}
				return writeJSON(a.stdout, map[string]any{"comparisons": results})
			}
			printComparisons(a.stdout, results)
			if data == "" {
				fmt.Fprintf(a.stdout, "\nMeasured on %d seeded random inputs; give --data for a decision.\n", src.Len())
			}
			return nil
		},
	}
	t.register(c, "w8")
	k.register(c)
	f := c.Flags()
	f.StringVar(&data, "data", "", "folder of samples to compare on")
	f.StringVar(&labels, "labels", "", "text file with the right class of each sample, one a line")
	f.StringVar(&output, "output", "", "output that holds class scores (default: the first that looks like it)")
	f.StringVar(&reference, "reference", "", "model to compare with, in fp32 (default: MODEL itself)")
	f.IntVar(&random, "random", 4, "seeded random samples when there is no --data")
	f.IntVar(&layers, "layers", 10, "layers to list, the most damaging first (-1: all, 0: none, which is faster)")
	f.IntVar(&threshold, "weight-threshold", quant.WeightThreshold, "weights of at most so many elements stay as they are")
	f.BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

// randomSamples makes n sets of inputs.
func randomSamples(g *model.Graph, n int) (compare.Slice, error) {
	out := make(compare.Slice, n)
	for i := range out {
		var err error
		if out[i], err = runtime.RandomInputs(g, uint64(i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func printComparisons(w io.Writer, results []*compare.Result) {
	r := results[0]
	fmt.Fprintf(w, "%s against %s, %d samples\n\n", r.Model, r.Reference, r.Samples)
	t := newTable("scheme", "device", "units", "layers on", ">ms", ">ratio", "output", ">SNR dB", ">PSNR dB", ">cosine", ">max error", ">not finite", ">top-1 agree", ">top-1", ">change", ">p")
	for _, r := range results {
		for i, o := range r.Outputs {
			cells := []string{r.Scheme, r.Device, r.Units, unitLayers(r.UnitLayers), ms(r.LatencyMS), fmt.Sprintf("%.2f", r.Ratio)}
			if i > 0 {
				cells = make([]string, len(cells))
			}
			cells = append(cells, o.Name, o.SNR.String(), o.PSNR.String(), fmt.Sprintf("%.6f", o.Cosine), sig(o.MaxError, 3), fmt.Sprint(o.NonFinite))
			agree, top, change, p := "", "", "", ""
			if i == 0 {
				if r.Agreement != nil {
					agree = fmt.Sprintf("%.2f %%", r.Agreement.Percent)
				}
				if r.Accuracy != nil {
					top, change, p = r.Accuracy.String(), r.Change.String(), r.Change.P.String()
				}
			}
			t.add(append(cells, agree, top, change, p)...)
		}
	}
	t.write(w)
	if r.ReferenceAccuracy != nil {
		fmt.Fprintf(w, "\nreference top-1: %s; p: how likely chance makes such a change on these samples (McNemar's exact test)\n", r.ReferenceAccuracy)
	}
	for _, r := range results {
		if len(r.Layers) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s on %s (%s): layers by the noise of their own\n", r.Scheme, r.Device, r.Units)
		t := newTable("layer", "op", "unit", ">own noise %", ">own SNR dB", ">SNR dB", ">PSNR dB", ">cosine", ">max error", ">not finite")
		for _, l := range r.Layers {
			t.add(l.Name, l.Op, l.Unit, percent(float64(l.OwnNoise)), l.OwnSNR.String(), l.SNR.String(), l.PSNR.String(), fmt.Sprintf("%.6f", l.Cosine), sig(l.MaxError, 3), fmt.Sprint(l.NonFinite))
		}
		t.write(w)
	}
}

// percent formats a share of 1 as a percentage with three digits.
func percent(v float64) string {
	if v > 1e6 {
		return ">1e8"
	}
	return sig(100*v, 3)
}

// unitLayers formats counts by unit, "ne 50, cpu 3".
func unitLayers(m map[string]int) string {
	var names []string
	for u := range m {
		names = append(names, u)
	}
	sort.Slice(names, func(i, k int) bool {
		if m[names[i]] != m[names[k]] {
			return m[names[i]] > m[names[k]]
		}
		return names[i] < names[k]
	})
	for i, u := range names {
		names[i] = fmt.Sprintf("%s %d", u, m[u])
	}
	return strings.Join(names, ", ")
}
