package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/bench"
)

func (a *app) benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Reproduce the published table and its statements, and measure this host",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	c.AddCommand(a.benchTableCommand(), a.benchClaimsCommand(), a.benchFidelityCommand(), a.benchHostCommand(), a.benchAccuracyCommand())
	return c
}

func (a *app) benchTableCommand() *cobra.Command {
	var asJSON, cross bool
	c := &cobra.Command{
		Use:   "table",
		Short: "The published quantization table beside Triune's figures",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cross {
				return a.crossValidate(cmd.Context(), asJSON)
			}
			t, err := bench.Table()
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.stdout, t)
			}
			w := a.stdout
			fmt.Fprint(w, "Published: Core ML Tools guide, median of Xcode's performance report, compute units all, iOS 17.\nSimulated: Triune, compute units all, policy optimal.\n\n")
			p := newTable("network", "scheme", "device", ">published ms", ">simulated ms", ">error %", ">p10-p90 ms", ">published ratio", ">simulated ratio", ">top-1 % (published)")
			for _, r := range t.Rows {
				p.add(r.Model, r.Scheme, r.Device, fmt.Sprintf("%.2f", r.PublishedMS), fmt.Sprintf("%.3f", r.SimulatedMS), fmt.Sprintf("%+.1f", r.ErrorPct),
					fmt.Sprintf("%.2f-%.2f", r.P10MS, r.P90MS), fmt.Sprintf("%.2f", r.PublishedRatio), fmt.Sprintf("%.3f", r.SimulatedRatio), r.PublishedAccuracy)
			}
			p.write(w)
			fmt.Fprintf(w, "\nlatency: mean absolute error %.1f %%, worst %.1f %%; ratio: worst difference %.3f\nTop-1 accuracy is shown as published; Triune does not simulate it.\n", t.MAPEPct, t.WorstPct, t.WorstRatio)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	c.Flags().BoolVar(&cross, "cross-validate", false, "refit leaving each network out and print the error on it")
	return c
}

func (a *app) benchClaimsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "claims",
		Short: "The published statements as scenarios: two figures, their ratio, and whether it holds",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			claims, err := bench.Claims()
			if err != nil {
				return err
			}
			failed := 0
			for _, c := range claims {
				if !c.Holds {
					failed++
				}
			}
			if asJSON {
				if err := writeJSON(a.stdout, map[string]any{"claims": claims}); err != nil {
					return err
				}
			} else {
				for _, c := range claims {
					verdict := "holds"
					if !c.Holds {
						verdict = "DOES NOT HOLD"
					}
					fmt.Fprintf(a.stdout, "(%s) %s: %s\n", c.ID, c.Statement, verdict)
					t := newTable("    scenario", ">first", ">second", ">ratio", "needed", "")
					for _, f := range c.Figures {
						mark := ""
						if f.Want != "" {
							mark = "yes"
						}
						if !f.Holds {
							mark = "NO"
						}
						t.add("    "+f.Scenario, fmt.Sprintf("%s %s %s", f.ALabel, sig(f.A, 4), f.Unit), fmt.Sprintf("%s %s %s", f.BLabel, sig(f.B, 4), f.Unit), fmt.Sprintf("%.2f", f.Ratio), f.Want, mark)
					}
					t.write(a.stdout)
					fmt.Fprintln(a.stdout)
				}
				fmt.Fprintf(a.stdout, "%d of %d claims hold\n", len(claims)-failed, len(claims))
			}
			if failed > 0 {
				return fmt.Errorf("bench claims: %d of %d claims do not hold", failed, len(claims))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func (a *app) crossValidate(ctx context.Context, asJSON bool) error {
	cv, err := bench.CrossValidate(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.stdout, cv)
	}
	fmt.Fprintf(a.stdout, "Each network of the table predicted by a fit (%d figures over all chips) that saw no row of it.\n\n", cv.Fitted)
	t := newTable("network left out", "scheme", "chip", ">published ms", ">simulated ms", ">error %")
	for _, r := range cv.Rows {
		t.add(r.Model, r.Scheme, r.Chip, fmt.Sprintf("%.2f", r.PublishedMS), fmt.Sprintf("%.3f", r.SimulatedMS), fmt.Sprintf("%+.1f", r.ErrorPct))
	}
	t.write(a.stdout)
	fmt.Fprintf(a.stdout, "\nmean absolute error %.1f %%, worst %.1f %%\n", cv.MAPEPct, cv.WorstPct)
	for _, n := range slices.Sorted(maps.Keys(cv.ByNetwork)) {
		fmt.Fprintf(a.stdout, "  %-14s %.1f %%\n", n, cv.ByNetwork[n])
	}
	return nil
}
