package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/report"
	"github.com/triune-sim/triune/result"
)

// budgetItem is one limit of a budget.
type budgetItem struct {
	Name  string  `json:"name"` // latency, p90, energy, load, size, memory
	Unit  string  `json:"unit"` // ms, mJ, bytes
	Limit float64 `json:"limit"`
}

// budgetKind says how a limit is read and what it is compared with.
type budgetKind struct {
	name, unit string
	units      map[string]float64 // spelling -> factor to unit
	of         func(*result.Prediction) float64
}

var (
	timeUnits   = map[string]float64{"ms": 1, "s": 1e3, "us": 1e-3, "": 1}
	byteUnits   = map[string]float64{"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
	budgetKinds = []budgetKind{
		{"latency", "ms", timeUnits, func(p *result.Prediction) float64 { return p.LatencyMS }},
		{"p90", "ms", timeUnits, func(p *result.Prediction) float64 { return p.LatencyP90MS }},
		{"load", "ms", timeUnits, func(p *result.Prediction) float64 { return p.LoadMS }},
		{"energy", "mJ", map[string]float64{"mj": 1, "j": 1e3, "": 1}, func(p *result.Prediction) float64 { return p.EnergyMJ }},
		{"size", "bytes", byteUnits, func(p *result.Prediction) float64 { return float64(p.PackageBytes) }},
		{"memory", "bytes", byteUnits, func(p *result.Prediction) float64 { return float64(p.PeakMemoryBytes) }},
	}
)

func (b budgetItem) kind() *budgetKind {
	for i := range budgetKinds {
		if budgetKinds[i].name == b.Name {
			return &budgetKinds[i]
		}
	}
	return nil
}

// text formats a value of the item for people.
func (b budgetItem) text(v float64) string {
	if b.Unit == "bytes" {
		return size(int64(v))
	}
	return ms(v) + " " + b.Unit
}

// parseBudget reads "latency=8ms,size=20MB,memory=200MB"; a bare "8ms" is a
// latency.
func parseBudget(list []string) ([]budgetItem, error) {
	var out []budgetItem
	seen := map[string]bool{}
	for _, s := range list {
		name, val, ok := strings.Cut(s, "=")
		if !ok {
			name, val = "latency", s
		}
		b := budgetItem{Name: strings.ToLower(strings.TrimSpace(name))}
		k := b.kind()
		if k == nil {
			return nil, usagef("--budget %q: no figure %q (want latency, p90, load, energy, size or memory)", s, name)
		}
		val = strings.TrimSpace(val)
		num := strings.TrimRight(val, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
		factor, ok := k.units[strings.ToLower(strings.TrimSpace(val[len(num):]))]
		v, err := strconv.ParseFloat(num, 64)
		if err != nil || !ok || !(v > 0) || v > 1e18 {
			want := map[string]string{"ms": "8ms", "mJ": "5mJ", "bytes": "20MB"}[k.unit]
			return nil, usagef("--budget %q: want a number above 0 with its unit, for example %s=%s", s, b.Name, want)
		}
		if seen[b.Name] {
			return nil, usagef("--budget: %s is given twice", b.Name)
		}
		seen[b.Name] = true
		b.Unit, b.Limit = k.unit, v*factor
		out = append(out, b)
	}
	if len(out) == 0 {
		return nil, usagef("check wants a budget, for example --budget latency=8ms,size=20MB,memory=200MB")
	}
	return out, nil
}

// verdict is how one configuration stands against one limit.
type verdict struct {
	Device    string  `json:"device"`
	Scheme    string  `json:"scheme"`
	Units     string  `json:"compute_units"`
	Figure    string  `json:"figure"`
	Unit      string  `json:"unit"`
	Value     float64 `json:"value"`
	Limit     float64 `json:"limit"`
	MarginPct float64 `json:"margin_pct"` // negative: over budget
	OK        bool    `json:"ok"`
}

type checkResult struct {
	Model    string    `json:"model"`
	OK       bool      `json:"ok"`
	Verdicts []verdict `json:"verdicts"`
}

func judge(preds []*result.Prediction, budget []budgetItem) checkResult {
	r := checkResult{Model: preds[0].Model, OK: true, Verdicts: []verdict{}}
	for _, p := range preds {
		for _, b := range budget {
			v := b.kind().of(p)
			x := verdict{p.Device, p.Scheme, p.ComputeUnits, b.Name, b.Unit, v, b.Limit, 100 * (b.Limit - v) / b.Limit, v <= b.Limit}
			r.OK = r.OK && x.OK
			r.Verdicts = append(r.Verdicts, x)
		}
	}
	return r
}

// markdown writes the verdicts as a summary for a pull request.
func (r *checkResult) markdown(w io.Writer) error {
	over := 0
	for _, v := range r.Verdicts {
		if !v.OK {
			over++
		}
	}
	head := fmt.Sprintf("%s is within its budget", r.Model)
	if over > 0 {
		head = fmt.Sprintf("%s is over its budget in %d of %d checks", r.Model, over, len(r.Verdicts))
	}
	if _, err := fmt.Fprintf(w, "### %s\n\n", head); err != nil {
		return err
	}
	var rows [][]string
	for _, v := range r.Verdicts {
		b := budgetItem{v.Figure, v.Unit, v.Limit}
		state := "ok"
		if !v.OK {
			state = "**over**"
		}
		rows = append(rows, []string{v.Device, v.Scheme, v.Units, v.Figure, b.text(v.Value), b.text(v.Limit), fmt.Sprintf("%+.1f %%", v.MarginPct), state})
	}
	return report.MarkdownTable(w, []string{"device", "scheme", "units", "figure", ">predicted", ">budget", ">margin", ""}, rows)
}

func (a *app) checkCommand() *cobra.Command {
	var t target
	var budget []string
	var asJSON bool
	var summary string
	c := &cobra.Command{
		Use:   "check MODEL",
		Short: "Hold a model to a budget: exit code 1 when it is over, for CI",
		Long: `Check predicts a model on every device, scheme and mask given, compares the
figures with a budget, prints a Markdown summary, and exits with code 1 when a
figure is over. Figures: latency, p90 (the 90th percentile of the prediction),
load, energy, size (of the package) and memory. 1 MB is 1,000,000 bytes; MiB is
understood too.`,
		Example: `  triune check net.onnx -d iphone-13,iphone-15-pro -c w8a8 --budget latency=8ms,size=20MB,memory=200MB
  triune check net.mlpackage -c stored --budget 8ms --summary "$GITHUB_STEP_SUMMARY"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			items, err := parseBudget(budget)
			if err != nil {
				return err
			}
			sessions, err := a.open(cmd.Context(), args[0], &t, nil)
			if err != nil {
				return err
			}
			defer closeAll(sessions)
			preds := make([]*result.Prediction, len(sessions))
			for i, s := range sessions {
				preds[i] = s.Predict()
			}
			r := judge(preds, items)
			var md bytes.Buffer
			if err := r.markdown(&md); err != nil {
				return err
			}
			if summary != "" {
				if err := appendFile(summary, md.Bytes()); err != nil {
					return err
				}
			}
			if asJSON {
				err = writeJSON(a.stdout, r)
			} else {
				_, err = a.stdout.Write(md.Bytes())
			}
			if err != nil {
				return err
			}
			if !r.OK {
				return errSilent
			}
			return nil
		},
	}
	t.register(c, "fp16")
	c.Flags().StringSliceVar(&budget, "budget", nil, "limits: latency=8ms, p90=10ms, load=500ms, energy=5mJ, size=20MB, memory=200MB; a bare 8ms is a latency")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document instead of Markdown")
	c.Flags().StringVar(&summary, "summary", "", "append the Markdown to a file (GitHub's step summary)")
	return c
}

func appendFile(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
