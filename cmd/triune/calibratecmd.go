package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/calibrate"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/units"
)

func (a *app) calibrateCommand() *cobra.Command {
	var chips []string
	var evaluations int
	var folds, pasted, asJSON, shared bool
	var pastedDevice, pastedOS, svg, patch string
	c := &cobra.Command{
		Use:   "calibrate DATA.csv",
		Short: "Fit the free figures of the catalogue to measured latencies",
		Long: `Fit the free figures of the catalogue to measured latencies, inside their plausible
ranges and with a robust loss. DATA.csv has a header line naming the columns device,
chip, os, model, input, precision, compute_units, latency_ms, source and note.
Prints every fitted figure and the residual of every row; with --leave-out also the
errors on networks and chips that a fit has not seen.

Rows of one or two chips are taken as someone's own: they move one figure of the chip
and unit measured for every two rows, and nothing that other chips share. Rows of three
or more chips fit the whole plan of the catalogue. --shared says otherwise.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if evaluations < 1 {
				return usagef("--evaluations %d: want 1 or more", evaluations)
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			var rows []calibrate.Row
			if pasted {
				if pastedDevice == "" {
					return usagef("--from-coreml-report needs --device: the device that the medians were measured on")
				}
				rows, err = calibrate.ReadPasted(f, pastedDevice, pastedOS)
			} else {
				rows, err = calibrate.ReadCSV(f)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			cat, err := device.Builtin()
			if err != nil {
				return err
			}
			set, err := calibrate.NewSet(rows, cat, calibrate.LoadZoo)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			for _, s := range set.Skipped {
				a.log.Warn("row skipped: " + s)
			}
			if len(chips) > 0 {
				known := map[string]bool{}
				for _, c := range cat.Chips() {
					known[c] = true
				}
				want := map[string]bool{}
				for _, c := range chips {
					if !known[c] {
						return usagef("unknown chip %q (want one of %s)", c, strings.Join(cat.Chips(), ", "))
					}
					want[c] = true
				}
				set = set.Only(func(x *calibrate.Sample) bool { return want[x.Chip] })
			}
			if len(set.Samples) == 0 {
				return fmt.Errorf("%s: no row can be used", args[0])
			}
			before, err := set.Residuals(nil)
			if err != nil {
				return err
			}
			for _, r := range before {
				if x := r.Sample.LatencyMS / r.PredictedMS; x > 10 || x < 0.1 {
					a.log.Warn(fmt.Sprintf("line %d: %s measured %s ms, predicted %s: check the unit and the network", r.Sample.Line, r.Sample.Network,
						sig(r.Sample.LatencyMS, 4), sig(r.PredictedMS, 4)))
				}
			}
			o := calibrate.Options{Evaluations: evaluations}
			measured := map[string]bool{}
			for _, x := range set.Samples {
				measured[x.Chip] = true
			}
			if !cmd.Flags().Changed("shared") {
				shared = len(measured) > 2
			}
			plan := set.OwnPlan()
			if shared {
				plan = calibrate.DefaultPlan()
			}
			fit, err := set.Fit(cmd.Context(), plan, o)
			if err != nil {
				return err
			}
			res, err := set.Residuals(fit.Devices)
			if err != nil {
				return err
			}
			if svg != "" {
				if err := saveFile(svg, func(w io.Writer) error {
					return calibrate.WriteSVG(w, "Predicted against measured latency, "+args[0], res)
				}); err != nil {
					return err
				}
			}
			type leftOut struct {
				By      string
				Summary calibrate.Summary
			}
			var left []leftOut
			var intervals []calibrate.Value // p10 and p90, from networks left out
			if folds {
				for _, k := range []struct {
					name string
					key  func(*calibrate.Sample) string
				}{{"network", calibrate.ByNetwork}, {"chip", calibrate.ByChip}} {
					groups := map[string]bool{}
					for _, x := range set.Samples {
						groups[k.key(x)] = true
					}
					if len(groups) < 2 {
						a.log.Warn(fmt.Sprintf("all rows are of one %s: nothing is left to fit without it", k.name))
						continue
					}
					fs, err := set.LeaveOut(cmd.Context(), plan, o, k.key)
					if err != nil {
						return err
					}
					left = append(left, leftOut{k.name, calibrate.Summarise(calibrate.All(fs))})
					if shared && k.name == "network" {
						iv, err := calibrate.Intervals(calibrate.All(fs), fit.Devices)
						if err != nil {
							return err
						}
						for _, v := range iv {
							intervals = append(intervals, v.Values()...)
						}
					}
				}
			}
			if patch != "" {
				out := *fit
				out.Values = append(slices.Clone(fit.Values), intervals...)
				if err := writePatch(&out, patch); err != nil {
					return err
				}
			}
			if asJSON {
				type row struct {
					Device      string  `json:"device"`
					Network     string  `json:"network"`
					Precision   string  `json:"precision"`
					Units       string  `json:"compute_units"`
					MeasuredMS  float64 `json:"measured_ms"`
					PredictedMS float64 `json:"predicted_ms"`
					ErrorPct    float64 `json:"error_pct"`
				}
				var rs []row
				for _, r := range res {
					rs = append(rs, row{r.Sample.DeviceName, r.Sample.Network, r.Sample.Precision, r.Sample.Mask.String(), r.Sample.LatencyMS, r.PredictedMS, r.ErrorPct})
				}
				sums := map[string]any{"all": summaryJSON(calibrate.Summarise(res))}
				for _, l := range left {
					sums["left_out_"+l.By] = summaryJSON(l.Summary)
				}
				return writeJSON(a.stdout, map[string]any{"figures": fit.Values, "residuals": rs, "errors": sums})
			}
			w := a.stdout
			t := newTable("figure", ">value", ">before", "range", "")
			for _, v := range fit.Values {
				mark := ""
				if v.AtBound {
					mark = "at the end of its range"
				}
				t.add(v.String(), sig(v.Value, 4), sig(v.Before, 4), fmt.Sprintf("%s to %s", sig(v.Low, 3), sig(v.High, 3)), mark)
			}
			t.write(w)
			fmt.Fprintln(w)
			printResiduals(a, res)
			fmt.Fprintf(w, "\n%s\n", summaryText(calibrate.Summarise(res)))
			if !shared {
				fmt.Fprintf(w, "before: %s\n", summaryText(calibrate.Summarise(before)))
			}
			for _, l := range left {
				fmt.Fprintf(w, "leaving each %s out: %s\n", l.By, summaryText(l.Summary))
			}
			if !shared && len(measured) == 1 {
				fmt.Fprintf(w, "\nto predict with these figures: triune predict MODEL -d %s", set.Samples[0].DeviceName)
				for _, v := range fit.Values {
					fmt.Fprintf(w, " --set %s=%s", v.Path, sig(v.Value, 4))
				}
				fmt.Fprintln(w)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&pasted, "from-coreml-report", false, "DATA holds medians pasted from Xcode's performance report: NETWORK SCHEME UNITS MS a line")
	c.Flags().StringVarP(&pastedDevice, "device", "d", "", "with --from-coreml-report: the device measured")
	c.Flags().StringVar(&pastedOS, "os", "", "with --from-coreml-report: its operating system")
	c.Flags().StringVar(&svg, "svg", "", "write predicted against measured as SVG to a file")
	c.Flags().StringVar(&patch, "write", "", "write the changed catalogue entries (YAML, with provenance) below a folder")
	c.Flags().StringSliceVar(&chips, "chip", nil, "use the rows of these chips only")
	c.Flags().BoolVar(&shared, "shared", false, "move what chips share as well (default: with rows of three chips or more)")
	c.Flags().IntVar(&evaluations, "evaluations", 6000, "evaluations of the loss per start and block")
	c.Flags().BoolVar(&folds, "leave-out", false, "refit without each network and each chip and print the errors on them")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

// writePatch writes the catalogue files that a fit changes below a folder.
func writePatch(fit *calibrate.Fitted, dir string) error {
	files, err := fit.Patch(device.Files())
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := saveFile(p, func(w io.Writer) error { _, err := w.Write(files[name]); return err }); err != nil {
			return err
		}
	}
	return nil
}

func printResiduals(a *app, res []calibrate.Residual) {
	t := newTable("device", "network", "precision", "units", ">measured ms", ">predicted ms", ">error %")
	for _, r := range res {
		t.add(r.Sample.DeviceName, r.Sample.Network, r.Sample.Precision, r.Sample.Mask.String(), sig(r.Sample.LatencyMS, 4), sig(r.PredictedMS, 4), fmt.Sprintf("%+.1f", r.ErrorPct))
	}
	t.write(a.stdout)
}

// summaryJSON leaves out the units without a row, whose median is no number.
func summaryJSON(s calibrate.Summary) map[string]any {
	by := map[string]float64{}
	for u, v := range s.PerUnit {
		if v == v {
			by[units.Kind(u).String()] = v
		}
	}
	return map[string]any{"rows": s.Rows, "median_pct": s.MedianPct, "mean_pct": s.MeanPct, "p90_pct": s.P90Pct, "worst_pct": s.WorstPct, "median_pct_by_unit": by}
}

func summaryText(s calibrate.Summary) string {
	text := fmt.Sprintf("%d rows: median absolute error %.1f %%, mean %.1f %%, 90th percentile %.1f %%, worst %.1f %%", s.Rows, s.MedianPct, s.MeanPct, s.P90Pct, s.WorstPct)
	for u, v := range s.PerUnit {
		if v == v {
			text += fmt.Sprintf("; %s %.1f %%", units.Kind(u), v)
		}
	}
	return text
}
