package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/bench"
	"github.com/triune-sim/triune/calibrate"
	"github.com/triune-sim/triune/device"
)

func (a *app) benchFidelityCommand() *cobra.Command {
	var leaveOut, asJSON bool
	var evaluations int
	var svg string
	c := &cobra.Command{
		Use:   "fidelity",
		Short: "How near the catalogue is to all published measurements, row by row",
		Long: `Price every measured row that the catalogue is calibrated on. With --leave-out the fit
is repeated without each network, and without each chip, and the errors on what was
left out are printed: these are what to expect on networks and chips without data.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if evaluations < 1 {
				return usagef("--evaluations %d: want 1 or more", evaluations)
			}
			rows, err := bench.Latencies()
			if err != nil {
				return err
			}
			cat, err := device.Builtin()
			if err != nil {
				return err
			}
			set, err := calibrate.NewSet(rows, cat, calibrate.LoadZoo)
			if err != nil {
				return err
			}
			f, err := calibrate.Measure(cmd.Context(), set, calibrate.DefaultPlan(), calibrate.Options{Evaluations: evaluations}, leaveOut)
			if err != nil {
				return err
			}
			if svg != "" {
				rs, err := set.Residuals(nil)
				if err != nil {
					return err
				}
				if err := saveFile(svg, func(w io.Writer) error {
					return calibrate.WriteSVG(w, "Predicted against measured latency", rs)
				}); err != nil {
					return err
				}
			}
			if asJSON {
				return writeJSON(a.stdout, f)
			}
			w := a.stdout
			t := newTable("device", "os", "network", "precision", "units", ">measured ms", ">simulated ms", ">p10-p90", ">error %", ">left out %", ">trusted to %")
			for _, l := range f.Lines {
				left := "-"
				if f.ByNetwork != nil {
					left = fmt.Sprintf("%+.1f", l.LeftOutPct)
				}
				t.add(l.Device, l.OS, l.Network, l.Precision, l.Mask, sig(l.MeasuredMS, 4), sig(l.PredictedMS, 3), ms(l.P10MS)+"-"+ms(l.P90MS),
					fmt.Sprintf("%+.1f", l.ErrorPct), left, fmt.Sprintf("%.0f", l.SigmaPct))
			}
			t.write(w)
			for _, s := range set.Skipped {
				fmt.Fprintf(w, "skipped: %s\n", s)
			}
			fmt.Fprintf(w, "\ncatalogue (%d fitted figures over all chips), %s\n", f.Fitted, summaryText(f.Catalogue))
			of := "rows"
			if f.ByNetwork != nil {
				of = "left-out rows"
				fmt.Fprintf(w, "leaving each network out, %s\nleaving each chip out, %s\n", summaryText(*f.ByNetwork), summaryText(*f.ByChip))
			}
			fmt.Fprintf(w, "%.0f %% of %s lie between p10 and p90\n", f.CoveragePct, of)
			return nil
		},
	}
	c.Flags().BoolVar(&leaveOut, "leave-out", false, "refit without each network and each chip (a minute or two)")
	c.Flags().IntVar(&evaluations, "evaluations", 6000, "evaluations of the loss per start and block when refitting")
	c.Flags().StringVar(&svg, "svg", "", "write predicted against measured as SVG to a file")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}
