package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gonum.org/v1/plot"

	"github.com/triune-sim/triune/report"
	"github.com/triune-sim/triune/whatif"
)

func (a *app) whatifCommand() *cobra.Command {
	var (
		out           string
		formats       []string
		resume        bool
		asJSON, asCSV bool
		workers, rows int
		quiet         bool
		plots         string
	)
	c := &cobra.Command{
		Use:   "whatif STUDY.yaml",
		Short: "Run a study: many configurations, and what follows from them",
		Long: `A study varies models, devices, schemes, compute units, policies, batch sizes and
any figure of a device, and analyses the results: pivot tables, Pareto fronts,
budgets, sensitivities, break-even values, mixed precision, fleets. docs/whatif.md
describes the file. Rows are the same whatever the number of workers; with -o an interrupted
run is continued by --resume.`,
		Example: `  triune whatif study.yaml
  triune whatif study.yaml -o results --format csv,parquet
  triune whatif study.yaml -o results --resume`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case asJSON && asCSV:
				return usagef("--json and --csv exclude each other")
			case out == "" && resume:
				return usagef("--resume wants the folder of the run (-o DIR)")
			case plots != "" && plots != "svg" && plots != "png":
				return usagef("--plots %q: want svg or png", plots)
			case out == "" && plots != "":
				return usagef("--plots wants a folder (-o DIR)")
			case out == "" && cmd.Flags().Changed("format"):
				return usagef("--format wants a folder (-o DIR)")
			case workers < 0 || rows < 0:
				return usagef("--workers and --rows want numbers of at least 0")
			}
			for _, f := range formats {
				if !slices.Contains(whatif.Formats(), f) {
					return usagef("--format %q: want csv, json or parquet", f)
				}
			}
			s, err := whatif.ReadFile(args[0])
			if err != nil {
				return err
			}
			r, err := whatif.Open(s)
			if err != nil {
				return err
			}
			r.Measurer = new(measurer).on
			o := whatif.RunOptions{Workers: workers}
			var bar *progressBar
			if !quiet {
				bar = &progressBar{w: a.stderr, terminal: isTerminal(a.stderr)}
				o.Progress = bar.show
				start := time.Now()
				r.MeasureProgress = func(done, total int) {
					p := whatif.Progress{Done: int64(done), Total: int64(total), Elapsed: time.Since(start)}
					p.PerSecond = float64(done) / p.Elapsed.Seconds()
					p.Left = time.Duration(float64(total-done) / p.PerSecond * float64(time.Second))
					bar.show(p)
				}
			}
			return a.runStudy(cmd.Context(), r, studyOutput{dir: out, formats: formats, resume: resume, json: asJSON, csv: asCSV, rows: rows, plots: plots}, o, bar)
		},
	}
	f := c.Flags()
	f.StringVarP(&out, "output", "o", "", "folder for the rows and study.json (new, empty, or of an earlier run)")
	f.StringSliceVar(&formats, "format", []string{"csv", "parquet"}, "formats in the folder: csv, json, parquet")
	f.StringVar(&plots, "plots", "", "draw fronts, mixtures and sensitivities into the folder: svg or png")
	f.BoolVar(&resume, "resume", false, "continue an interrupted run of the same study")
	f.BoolVar(&asJSON, "json", false, "print one JSON document")
	f.BoolVar(&asCSV, "csv", false, "print the rows as CSV")
	f.IntVar(&workers, "workers", 0, "configurations priced at once (0: one per processor)")
	f.IntVar(&rows, "rows", 40, "rows of the printed table (0: all)")
	f.BoolVarP(&quiet, "quiet", "q", false, "no progress on standard error")
	return c
}

type studyOutput struct {
	dir       string
	formats   []string
	resume    bool
	json, csv bool
	rows      int
	plots     string // svg, png or none
}

// head keeps the first rows of a study for the printed table, or all of them
// for analyses.
type head struct {
	limit int // 0: all
	all   bool
	block whatif.Block
	total int64
	fail  int64
	why   string // the first reason of a row without a plan
}

func (h *head) add(b *whatif.Block) error {
	h.count(b)
	if !h.all && h.limit > 0 && h.block.Rows >= h.limit {
		return nil
	}
	return h.block.Append(b)
}

// count counts the rows of a block.
func (h *head) count(b *whatif.Block) {
	h.total += int64(b.Rows)
	h.fail += int64(b.Failed)
	if n := len(b.Str) - 1; h.why == "" && n >= 0 { // error is the last column
		for _, s := range b.Str[n] {
			if s != "" {
				h.why = s
				break
			}
		}
	}
}

// verdict is an error when no configuration of the study has a plan.
func (h *head) verdict(r *whatif.Runner) error {
	if h.fail == 0 || h.fail < r.Len() {
		return nil
	}
	return fmt.Errorf("whatif: none of the %d configurations has a plan: %s", h.fail, cmp.Or(h.why, "see the column error"))
}

func (a *app) runStudy(ctx context.Context, r *whatif.Runner, out studyOutput, o whatif.RunOptions, bar *progressBar) error {
	h := &head{limit: out.rows, all: r.Study.WantsRows()}
	var findings []whatif.Finding
	analyse := func() error {
		var err error
		findings, err = r.Analyse(ctx, &h.block)
		bar.done() // of the measurements
		return err
	}
	if out.dir != "" {
		st, err := r.RunDir(ctx, out.dir, whatif.DirOptions{RunOptions: o, Formats: out.formats, Resume: out.resume}, h.add)
		bar.done()
		if err != nil {
			if ctx.Err() != nil && st != nil {
				fmt.Fprintf(a.stderr, "triune: interrupted: %d of %d configurations are in %s; --resume continues\n", st.Done, st.Configs, out.dir)
				return errSilent
			}
			return err
		}
		if err := analyse(); err != nil {
			return err
		}
		st.Findings = findings
		for i, f := range findings {
			if out.plots != "" {
				if err := plotFinding(&f, filepath.Join(out.dir, fmt.Sprintf("finding-%d.%s", i+1, out.plots))); err != nil {
					return err
				}
			}
			if f.SchemeYAML != "" {
				name := filepath.Join(out.dir, fmt.Sprintf("scheme-%d.yaml", i+1))
				if err := writeFile(name, func(w io.Writer) error { _, err := io.WriteString(w, f.SchemeYAML); return err }); err != nil {
					return err
				}
			}
		}
		if err := whatif.WriteState(out.dir, st); err != nil {
			return err
		}
		switch {
		case out.json:
			err = writeJSON(a.stdout, st)
		case !out.csv:
			a.printStudy(r, h, findings, out)
			fmt.Fprintf(a.stdout, "\n%d rows in %s\n", st.Rows, out.dir)
		}
		return cmp.Or(err, h.verdict(r))
	}
	var w whatif.Writer
	var err error
	switch {
	case out.json:
		w, err = whatif.NewJSON(a.stdout, r.Stamp, r.Columns(), func() (any, error) { err := analyse(); return findings, err })
	case out.csv:
		w, err = whatif.NewCSV(a.stdout, r.Columns())
	}
	if err != nil {
		return err
	}
	err = r.Run(ctx, o, func(b *whatif.Block) error {
		if w != nil {
			if err := w.Write(b); err != nil {
				return err
			}
			if !h.all {
				h.count(b)
				return nil
			}
		}
		return h.add(b)
	})
	bar.done()
	if err != nil && (w == nil || ctx.Err() == nil) {
		return err
	}
	if w != nil {
		if cerr := w.Close(); err == nil {
			err = cerr
		}
		return cmp.Or(err, h.verdict(r))
	}
	if err := analyse(); err != nil {
		return err
	}
	a.printStudy(r, h, findings, out)
	return h.verdict(r)
}

func (a *app) printStudy(r *whatif.Runner, h *head, findings []whatif.Finding, out studyOutput) {
	w := a.stdout
	s := r.Study
	fmt.Fprintf(w, "%s: %d configurations, %d rows (study %s, seed %d)\n", s.Name, r.Len(), h.total, r.Stamp.Hash, r.Stamp.Seed)
	if s.Question != "" {
		fmt.Fprintln(w, s.Question)
	}
	if h.fail > 0 {
		fmt.Fprintf(w, "%d configurations have no plan (column error)\n", h.fail)
	}
	// Findings answer; without any, the rows do.
	if len(findings) == 0 {
		fmt.Fprintln(w)
		printRows(w, r, &h.block, out.rows)
		if n := h.total - int64(h.block.Rows); n > 0 || out.rows > 0 && h.total > int64(out.rows) {
			fmt.Fprintf(w, "... %d more rows (--rows 0 prints all, -o DIR keeps them)\n", h.total-int64(min(h.block.Rows, out.rows)))
		}
		return
	}
	for i := range findings {
		printFinding(w, &findings[i], out.rows)
	}
}

// shown are the result columns of the printed table, when the study names
// none.
var shown = []string{"latency_ms", "energy_mj", "package_bytes", "peak_memory_bytes", "speedup"}

func printRows(w io.Writer, r *whatif.Runner, b *whatif.Block, limit int) {
	cols := r.Columns()
	n := b.Rows
	if limit > 0 {
		n = min(n, limit)
	}
	varies := func(k int) bool {
		for i := 1; i < b.Rows; i++ {
			if b.Str[k] != nil && b.Str[k][i] != b.Str[k][0] || b.Num[k] != nil && b.Num[k][i] != b.Num[k][0] {
				return true
			}
		}
		return false
	}
	var keep []int
	for k, c := range cols {
		switch {
		case k == 0 || c.Name == "chip":
		case r.IsInput(k):
			if varies(k) || c.Name == "model" || c.Name == "device" || c.Name == "scheme" {
				keep = append(keep, k)
			}
		case c.Name == "error":
			if varies(k) || b.Rows > 0 && b.Str[k][0] != "" {
				keep = append(keep, k)
			}
		case r.IsDerived(k) || len(r.Study.Outputs) > 0 || slices.Contains(shown, c.Name):
			keep = append(keep, k)
		}
	}
	var head []string
	for _, k := range keep {
		h := cols[k].Name
		if cols[k].Kind != whatif.Text {
			h = ">" + h
		}
		head = append(head, h)
	}
	t := newTable(head...)
	for i := range n {
		var line []string
		for _, k := range keep {
			if b.Str[k] != nil {
				line = append(line, b.Str[k][i])
			} else {
				line = append(line, cellText(cols[k], b.Num[k][i]))
			}
		}
		t.add(line...)
	}
	t.write(w)
}

// cellText formats a number of a study's table for people.
func cellText(c whatif.Column, v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "-"
	case c.Kind == whatif.Integer || v == math.Trunc(v) && math.Abs(v) < 1e15:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 1e4:
		return fmt.Sprintf("%.0f", v)
	}
	return sig(v, 4)
}

func printFinding(w io.Writer, f *whatif.Finding, limit int) {
	fmt.Fprintf(w, "\n%s\n%s\n", f.Title, f.Answer)
	if len(f.Rows) > 0 {
		var head []string
		for _, c := range f.Columns {
			h := c.Name
			if c.Kind != whatif.Text {
				h = ">" + h
			}
			head = append(head, h)
		}
		t := newTable(head...)
		for i, row := range f.Rows {
			if limit > 0 && i == limit {
				break
			}
			var line []string
			for k, c := range row {
				if c.IsText {
					line = append(line, c.Text)
				} else {
					line = append(line, cellText(f.Columns[k], c.Num))
				}
			}
			t.add(line...)
		}
		fmt.Fprintln(w)
		t.write(w)
		if limit > 0 && len(f.Rows) > limit {
			fmt.Fprintf(w, "... %d more rows (--rows 0 prints all)\n", len(f.Rows)-limit)
		}
	}
	if f.SchemeYAML != "" {
		fmt.Fprintln(w, "\nThe scheme goes to scheme-N.yaml in the folder of -o; triune compress takes it.")
	}
	if len(f.Notes) > 0 {
		fmt.Fprintln(w)
		for _, n := range f.Notes {
			fmt.Fprintf(w, "- %s\n", n)
		}
	}
}

// plotFinding draws a front, the mixtures of a search or a tornado; other
// findings are tables only.
func plotFinding(f *whatif.Finding, name string) error {
	column := func(want string) int {
		return slices.IndexFunc(f.Columns, func(c whatif.Column) bool { return c.Name == want })
	}
	var pl *plot.Plot
	var err error
	switch f.Kind {
	case "pareto", "mixed":
		var x, y int
		if f.Kind == "mixed" {
			x, y = 1, 2
		} else {
			// The figures of a front are its numbers behind the inputs.
			var nums []int
			for k, c := range f.Columns {
				if c.Kind != whatif.Text {
					nums = append(nums, k)
				}
			}
			x, y = nums[len(nums)-2], nums[len(nums)-1]
		}
		series := []report.Series{{Name: "front", Line: true}, {Name: "uniform"}}
		for _, r := range f.Rows {
			k := 0
			if f.Kind == "mixed" && r[0].Text != "mixture" {
				k = 1
			}
			if math.IsNaN(r[x].Num + r[y].Num) {
				continue
			}
			series[k].X, series[k].Y = append(series[k].X, r[x].Num), append(series[k].Y, r[y].Num)
		}
		series = slices.DeleteFunc(series, func(s report.Series) bool { return len(s.X) == 0 })
		if len(series) == 0 {
			return nil
		}
		pl, err = report.Plot(f.Title, f.Columns[x].Name, f.Columns[y].Name, series)
	case "sensitivity":
		low, high := column("at_low"), column("at_high")
		var bars []report.Bar
		for _, r := range f.Rows {
			if len(bars) < 20 {
				bars = append(bars, report.Bar{Name: r[0].Text, Low: r[low].Num, High: r[high].Num})
			}
		}
		if len(bars) == 0 {
			return nil
		}
		pl, err = report.Tornado(f.Title, f.Metric, f.Base, bars)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return report.SavePlot(pl, name)
}

// progressBar draws a run's progress on standard error: a bar on a terminal,
// a line every few seconds elsewhere.
type progressBar struct {
	w        io.Writer
	terminal bool
	last     time.Time
	drawn    bool
}

func (b *progressBar) show(p whatif.Progress) {
	if b.last.IsZero() && p.Elapsed < 500*time.Millisecond && p.Done < p.Total || p.Done == p.Total && !b.drawn {
		return // over before anyone could read it
	}
	if !b.terminal {
		if time.Since(b.last) < 5*time.Second {
			return
		}
		b.last = time.Now()
		fmt.Fprintln(b.w, p)
		return
	}
	b.last, b.drawn = time.Now(), true
	const width = 30
	n := width
	if p.Total > 0 {
		n = int(width * p.Done / p.Total)
	}
	fmt.Fprintf(b.w, "\r\x1b[K[%s%s] %s", strings.Repeat("=", n), strings.Repeat(" ", width-n), p)
}

func (b *progressBar) done() {
	if b != nil && b.drawn {
		fmt.Fprintln(b.w)
		b.drawn, b.last = false, time.Time{}
	}
}

// isTerminal tells whether a writer is a character device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
