package report

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/triune-sim/triune/result"
)

// mdCell makes a text safe inside a Markdown table.
func mdCell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s)
}

// MarkdownTable writes a table; columns whose head starts with ">" are
// aligned to the right.
func MarkdownTable(w io.Writer, head []string, rows [][]string) error {
	b := bufio.NewWriter(w)
	rule := make([]string, len(head))
	names := make([]string, len(head))
	for i, h := range head {
		name, right := strings.CutPrefix(h, ">")
		names[i], rule[i] = mdCell(name), "---"
		if right {
			rule[i] = "---:"
		}
	}
	fmt.Fprintf(b, "| %s |\n| %s |\n", strings.Join(names, " | "), strings.Join(rule, " | "))
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, c := range r {
			cells[i] = mdCell(c)
		}
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
	return b.Flush()
}

// Markdown writes predictions as a table for pull requests; for a single one
// it adds the parts, the slowest layers and what runs where.
func Markdown(w io.Writer, ps []*result.Prediction) error {
	if len(ps) == 0 {
		return fmt.Errorf("report: no prediction")
	}
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "### %s\n\n", mdCell(ps[0].Model))
	var rows [][]string
	for _, p := range ps {
		var on []string
		for _, u := range p.Units {
			on = append(on, fmt.Sprintf("%s %d", u.Unit, u.Layers))
		}
		rows = append(rows, []string{p.Device, p.Scheme, p.ComputeUnits, MS(p.LatencyMS), MS(p.LatencyP10MS) + " to " + MS(p.LatencyP90MS), MS(p.EnergyMJ),
			Size(p.PackageBytes), Size(p.PeakMemoryBytes), MS(p.LoadMS), strings.Join(on, ", ")})
	}
	if err := MarkdownTable(b, []string{"device", "scheme", "units", ">latency ms", ">p10 to p90", ">energy mJ", ">package", ">memory", ">load ms", "layers on"}, rows); err != nil {
		return err
	}
	if len(ps) == 1 {
		p := ps[0]
		if p.Summary != "" {
			fmt.Fprintf(b, "\n%s.\n", mdCell(p.Summary))
		}
		order := make([]int, len(p.Layers))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(x, y int) int {
			a, c := p.Layers[x].LatencyMS+p.Layers[x].TransferMS, p.Layers[y].LatencyMS+p.Layers[y].TransferMS
			switch {
			case a > c:
				return -1
			case a < c:
				return 1
			}
			return 0
		})
		rows = rows[:0]
		for _, i := range order[:min(10, len(order))] {
			l := &p.Layers[i]
			rows = append(rows, []string{"`" + strings.ReplaceAll(l.Name, "`", "'") + "`", fused(*l), l.Unit, MS(l.LatencyMS), MS(l.TransferMS), percent(l.LatencyMS+l.TransferMS, p.LatencyMS), l.Bound, l.Reason})
		}
		fmt.Fprintf(b, "\n<details><summary>The %d slowest layers</summary>\n\n", len(rows))
		if err := MarkdownTable(b, []string{"layer", "operators", "unit", ">ms", ">moving", ">share", "bound by", "why here"}, rows); err != nil {
			return err
		}
		fmt.Fprintf(b, "\n</details>\n")
		for _, n := range p.Notes {
			fmt.Fprintf(b, "\n> %s\n", mdCell(n))
		}
	}
	return b.Flush()
}
