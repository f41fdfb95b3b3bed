package whatif

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Analysis is one entry of a study's analyses: exactly one of its fields is
// set.
type Analysis struct {
	Title       string           `yaml:"title" json:"title,omitempty"`
	Pivot       *PivotSpec       `yaml:"pivot" json:"pivot,omitempty"`
	Pareto      *ParetoSpec      `yaml:"pareto" json:"pareto,omitempty"`
	Budget      *BudgetSpec      `yaml:"budget" json:"budget,omitempty"`
	Sensitivity *SensitivitySpec `yaml:"sensitivity" json:"sensitivity,omitempty"`
	BreakEven   *BreakEvenSpec   `yaml:"break_even" json:"break_even,omitempty"`
	Fleet       *FleetSpec       `yaml:"fleet" json:"fleet,omitempty"`
	Mixed       *MixedSpec       `yaml:"mixed" json:"mixed,omitempty"`
}

func (a *Analysis) check() error {
	n := 0
	for _, set := range []bool{a.Pivot != nil, a.Pareto != nil, a.Budget != nil, a.Sensitivity != nil, a.BreakEven != nil, a.Fleet != nil, a.Mixed != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("whatif: study: an analysis has %d kinds (want one of pivot, pareto, budget, sensitivity, break_even, fleet, mixed)", n)
	}
	if a.Mixed != nil {
		if _, _, err := a.Mixed.counts(); err != nil {
			return err
		}
	}
	return nil
}

// wantsRows tells whether the analysis reads the study's rows.
func (a *Analysis) wantsRows() bool { return a.Pivot != nil || a.Pareto != nil || a.Budget != nil }

// Finding is the result of an analysis: a sentence that answers, and a table.
type Finding struct {
	Kind    string   `json:"kind"`
	Title   string   `json:"title"`
	Answer  string   `json:"answer"`
	Columns []Column `json:"columns"`
	Rows    [][]Cell `json:"rows"`
	Notes   []string `json:"notes,omitempty"`
	// Metric and Base are those of a sensitivity: what was measured, and its
	// value as catalogued.
	Metric string  `json:"metric,omitempty"`
	Base   float64 `json:"base,omitempty"`
	// SchemeYAML is the scheme that a search for mixed precision found, as
	// triune compress takes it.
	SchemeYAML string `json:"scheme_yaml,omitempty"`
}

// Cell is a value of a finding's table: a text or a number.
type Cell struct {
	Text   string
	Num    float64
	IsText bool
}

// MarshalJSON writes a text, a number, or null for what has no value.
func (c Cell) MarshalJSON() ([]byte, error) {
	if c.IsText {
		return appendJSONString(nil, c.Text), nil
	}
	return appendJSONNumber(nil, c.Num), nil
}

func text(s string) Cell    { return Cell{Text: s, IsText: true} }
func number(v float64) Cell { return Cell{Num: v} }

// Analyse runs the study's analyses. rows are all rows of the study (Collect);
// nil where no analysis reads them.
func (r *Runner) Analyse(ctx context.Context, rows *Block) ([]Finding, error) {
	out := []Finding{}
	for i := range r.Study.Analyses {
		a := &r.Study.Analyses[i]
		var f *Finding
		var err error
		switch {
		case a.Pivot != nil:
			f, err = r.pivot(a.Pivot, rows)
		case a.Pareto != nil:
			f, err = r.pareto(a.Pareto, rows)
		case a.Budget != nil:
			f, err = r.budget(a.Budget, rows)
		case a.Sensitivity != nil:
			f, err = r.sensitivity(ctx, a.Sensitivity)
		case a.BreakEven != nil:
			f, err = r.breakEven(a.BreakEven)
		case a.Fleet != nil:
			f, err = r.fleet(a.Fleet)
		case a.Mixed != nil:
			f, err = r.mixed(ctx, a.Mixed)
		}
		if err != nil {
			return nil, fmt.Errorf("%w (analyses, entry %d)", err, i+1)
		}
		if a.Title != "" {
			f.Title = a.Title
		}
		out = append(out, *f)
	}
	return out, nil
}

// checkAnalyses tries the analyses of rows on none, so that a wrong column is
// an error before the rows are priced.
func (r *Runner) checkAnalyses() error {
	for i := range r.Study.Analyses {
		a := &r.Study.Analyses[i]
		b := r.rows.newBlock(0)
		var err error
		switch {
		case a.Pivot != nil:
			_, err = r.pivot(a.Pivot, b)
		case a.Pareto != nil:
			_, err = r.pareto(a.Pareto, b)
		case a.Budget != nil:
			_, err = r.budget(a.Budget, b)
		}
		if err != nil {
			return fmt.Errorf("%w (analyses, entry %d)", err, i+1)
		}
	}
	return nil
}

// WantsRows tells whether an analysis of the study reads its rows.
func (s *Study) WantsRows() bool {
	return slices.ContainsFunc(s.Analyses, func(a Analysis) bool { return a.wantsRows() })
}

// MaxCollect is the most rows that an analysis holds in memory.
const MaxCollect = 1 << 20

// Append adds the rows of a block; analyses of rows need them all at once.
func (b *Block) Append(x *Block) error {
	if b.Rows+x.Rows > MaxCollect {
		return fmt.Errorf("whatif: more than %d rows for an analysis (narrow the study with where, or run the analysis over its Parquet file)", MaxCollect)
	}
	if b.Num == nil {
		b.Num, b.Str = make([][]float64, len(x.Num)), make([][]string, len(x.Str))
	}
	for k := range x.Num {
		b.Num[k] = append(b.Num[k], x.Num[k]...)
		b.Str[k] = append(b.Str[k], x.Str[k]...)
	}
	b.Rows += x.Rows
	b.Failed += x.Failed
	return nil
}

// column finds a column of the rows.
func (r *Runner) column(name string, kinds ...ColumnKind) (int, error) {
	cols := r.rows.columns
	i, ok := (&scope{cols}).find(name)
	if !ok {
		var names []string
		for _, c := range cols {
			names = append(names, c.Name)
		}
		return 0, fmt.Errorf("whatif: study: no column %q; there are %s", name, strings.Join(names, ", "))
	}
	if len(kinds) > 0 && !slices.Contains(kinds, cols[i].Kind) {
		return 0, fmt.Errorf("whatif: study: column %q holds no numbers", name)
	}
	return i, nil
}

func (b *Block) cell(c, row int) Cell {
	if b.Str[c] != nil {
		return text(b.Str[c][row])
	}
	return number(b.Num[c][row])
}

// key writes a cell as text that identifies it.
func (c Cell) key() string {
	if c.IsText {
		return c.Text
	}
	return fmt.Sprintf("%g", c.Num)
}

// varying lists the input columns that differ between rows, so that tables
// leave out what is the same everywhere.
func (r *Runner) varying(b *Block) []int {
	var out []int
	for c := 1; c < len(r.rows.columns) && r.rows.keep[c] < r.rows.out; c++ {
		if c == 3 { // the chip follows from the device
			continue
		}
		for i := 1; i < b.Rows; i++ {
			if b.cell(c, i).key() != b.cell(c, 0).key() {
				out = append(out, c)
				break
			}
		}
	}
	if out == nil {
		out = []int{1, 2, 4}
	}
	return out
}

// PivotSpec spreads one result over two inputs: rows of one, columns of
// another. Of several values for a cell it takes the least (of: min, the
// default), the greatest (max) or the mean.
type PivotSpec struct {
	Rows    string `yaml:"rows" json:"rows"`
	Columns string `yaml:"columns" json:"columns"`
	Value   string `yaml:"value" json:"value"`
	Of      string `yaml:"of" json:"of,omitempty"`
}

func (r *Runner) pivot(s *PivotSpec, b *Block) (*Finding, error) {
	if s.Rows == "" || s.Columns == "" || s.Value == "" {
		return nil, fmt.Errorf("whatif: study: pivot wants rows, columns and value, three columns")
	}
	rc, err := r.column(s.Rows)
	if err != nil {
		return nil, err
	}
	cc, err := r.column(s.Columns)
	if err != nil {
		return nil, err
	}
	vc, err := r.column(s.Value, Integer, Number)
	if err != nil {
		return nil, err
	}
	of := s.Of
	if of == "" {
		of = "min"
	}
	if of != "min" && of != "max" && of != "mean" {
		return nil, fmt.Errorf("whatif: study: pivot: of %q (want min, max or mean)", s.Of)
	}
	type agg struct {
		v float64
		n int
	}
	cells := map[[2]string]*agg{}
	var rows, cols []string
	for i := range b.Rows {
		v := b.Num[vc][i]
		rk, ck := b.cell(rc, i).key(), b.cell(cc, i).key()
		if !slices.Contains(rows, rk) {
			rows = append(rows, rk)
		}
		if !slices.Contains(cols, ck) {
			cols = append(cols, ck)
		}
		if len(cols) > 512 || len(rows) > 65536 {
			return nil, fmt.Errorf("whatif: study: pivot: more than 512 columns or 65536 rows")
		}
		if math.IsNaN(v) {
			continue
		}
		a := cells[[2]string{rk, ck}]
		if a == nil {
			cells[[2]string{rk, ck}] = &agg{v, 1}
			continue
		}
		a.n++
		switch of {
		case "min":
			a.v = min(a.v, v)
		case "max":
			a.v = max(a.v, v)
		case "mean":
			a.v += v
		}
	}
	f := &Finding{Kind: "pivot", Title: fmt.Sprintf("%s by %s and %s", s.Value, s.Rows, s.Columns), Columns: []Column{{Name: s.Rows, Kind: Text}}}
	for _, c := range cols {
		f.Columns = append(f.Columns, Column{Name: c, Kind: Number, Doc: s.Value})
	}
	best, worst := math.Inf(1), math.Inf(-1)
	var bestAt, worstAt string
	for _, rk := range rows {
		line := []Cell{text(rk)}
		for _, ck := range cols {
			a := cells[[2]string{rk, ck}]
			if a == nil {
				line = append(line, number(math.NaN()))
				continue
			}
			v := a.v
			if of == "mean" {
				v /= float64(a.n)
			}
			line = append(line, number(v))
			if v < best {
				best, bestAt = v, rk+", "+ck
			}
			if v > worst {
				worst, worstAt = v, rk+", "+ck
			}
		}
		f.Rows = append(f.Rows, line)
	}
	if bestAt != "" {
		f.Answer = fmt.Sprintf("%s is least for %s (%.4g) and greatest for %s (%.4g)", s.Value, bestAt, best, worstAt, worst)
	} else {
		f.Answer = "no configuration has a value"
	}
	return f, nil
}

// ParetoSpec asks for the configurations that no other one beats in every
// figure: the front. By makes one front for each value of a column.
type ParetoSpec struct {
	Minimise []string `yaml:"minimise" json:"minimise,omitempty"`
	Maximise []string `yaml:"maximise" json:"maximise,omitempty"`
	By       string   `yaml:"by" json:"by,omitempty"`
}

// Front returns the indices of the points that no other point dominates, in
// ascending order: a point dominates another when it is at most equal in every
// coordinate and less in one. All coordinates are to be minimised; points with
// a NaN are left out. Of equal points all are kept.
func Front(points [][]float64) []int {
	var idx []int
	for i, p := range points {
		if !slices.ContainsFunc(p, math.IsNaN) {
			idx = append(idx, i)
		}
	}
	// In lexicographic order only earlier points can dominate later ones.
	slices.SortStableFunc(idx, func(a, b int) int { return slices.Compare(points[a], points[b]) })
	var front []int
	if len(idx) > 0 && len(points[idx[0]]) == 2 {
		best := math.Inf(1)
		for k := 0; k < len(idx); {
			p := points[idx[k]]
			end := k
			for end < len(idx) && points[idx[end]][0] == p[0] && points[idx[end]][1] == p[1] {
				end++
			}
			if p[1] < best {
				best = p[1]
				front = append(front, idx[k:end]...)
			}
			k = end
		}
	} else {
		for _, i := range idx {
			if !slices.ContainsFunc(front, func(j int) bool { return dominates(points[j], points[i]) }) {
				front = append(front, i)
			}
		}
	}
	slices.Sort(front)
	return front
}

func dominates(a, b []float64) bool {
	less := false
	for k := range a {
		if a[k] > b[k] {
			return false
		}
		less = less || a[k] < b[k]
	}
	return less
}

func (r *Runner) pareto(s *ParetoSpec, b *Block) (*Finding, error) {
	if len(s.Minimise)+len(s.Maximise) < 2 {
		return nil, fmt.Errorf("whatif: study: pareto wants at least two columns to minimise or maximise")
	}
	var cols []int
	var sign []float64
	for k, name := range append(slices.Clone(s.Minimise), s.Maximise...) {
		c, err := r.column(name, Integer, Number)
		if err != nil {
			return nil, err
		}
		cols = append(cols, c)
		sign = append(sign, 1)
		if k >= len(s.Minimise) {
			sign[k] = -1
		}
	}
	groups := []string{""}
	group := func(int) string { return "" }
	if s.By != "" {
		by, err := r.column(s.By)
		if err != nil {
			return nil, err
		}
		groups = groups[:0]
		group = func(i int) string { return b.cell(by, i).key() }
		for i := range b.Rows {
			if g := group(i); !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
	}
	var front []int
	for _, g := range groups {
		var rows []int
		var pts [][]float64
		for i := range b.Rows {
			if group(i) != g {
				continue
			}
			p := make([]float64, len(cols))
			for k, c := range cols {
				p[k] = sign[k] * b.Num[c][i]
			}
			rows, pts = append(rows, i), append(pts, p)
		}
		for _, i := range Front(pts) {
			front = append(front, rows[i])
		}
	}
	names := append(slices.Clone(s.Minimise), s.Maximise...)
	f := &Finding{Kind: "pareto", Title: "Pareto front of " + strings.Join(names, ", ")}
	f.Answer = fmt.Sprintf("%d of %d configurations are on the front: none of the others is at least as good in every figure", len(front), b.Rows)
	in := r.varying(b)
	if s.By == "" {
		slices.SortStableFunc(front, func(x, y int) int {
			switch a, c := b.Num[cols[0]][x], b.Num[cols[0]][y]; {
			case a < c:
				return -1
			case a > c:
				return 1
			}
			return 0
		})
	}
	f.table(r, b, append(in, cols...), front)
	return f, nil
}

// table fills a finding with columns of rows.
func (f *Finding) table(r *Runner, b *Block, cols, rows []int) {
	for _, c := range cols {
		f.Columns = append(f.Columns, r.rows.columns[c])
	}
	for _, i := range rows {
		line := make([]Cell, len(cols))
		for k, c := range cols {
			line[k] = b.cell(c, i)
		}
		f.Rows = append(f.Rows, line)
	}
}

// BudgetSpec asks which configurations stay within limits, by column.
type BudgetSpec struct {
	Max map[string]float64 `yaml:"max" json:"max,omitempty"`
	Min map[string]float64 `yaml:"min" json:"min,omitempty"`
	// All lists those that miss the budget too, with what they miss.
	All bool `yaml:"all" json:"all,omitempty"`
}

func (r *Runner) budget(s *BudgetSpec, b *Block) (*Finding, error) {
	type limit struct {
		col  int
		at   float64
		sign float64
	}
	var limits []limit
	var words []string
	for k, m := range []map[string]float64{s.Max, s.Min} {
		names := make([]string, 0, len(m))
		for n := range m {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			c, err := r.column(n, Integer, Number)
			if err != nil {
				return nil, err
			}
			limits = append(limits, limit{c, m[n], [2]float64{1, -1}[k]})
			words = append(words, fmt.Sprintf("%s %s %g", n, [2]string{"<=", ">="}[k], m[n]))
		}
	}
	if len(limits) == 0 {
		return nil, fmt.Errorf("whatif: study: budget has no limit (want max: {latency_ms: 8})")
	}
	var cols []int
	for _, l := range limits {
		cols = append(cols, l.col)
	}
	f := &Finding{Kind: "budget", Title: "Within " + strings.Join(words, " and ")}
	in := r.varying(b)
	var rows []int
	var margin []float64
	met := 0
	for i := range b.Rows {
		room := math.Inf(1)
		for _, l := range limits {
			v := b.Num[l.col][i]
			switch {
			case math.IsNaN(v):
				room = math.Inf(-1)
			case l.at != 0:
				room = min(room, l.sign*(l.at-v)/math.Abs(l.at))
			case l.sign*v > 0:
				room = math.Inf(-1)
			default:
				room = min(room, 0)
			}
		}
		if room >= 0 {
			met++
		} else if !s.All {
			continue
		}
		rows = append(rows, i)
		margin = append(margin, room)
	}
	f.Answer = fmt.Sprintf("%d of %d configurations stay within %s", met, b.Rows, strings.Join(words, " and "))
	f.table(r, b, append(in, cols...), rows)
	f.Columns = append(f.Columns, Column{"margin_pct", Number, "room to the tightest limit, in percent of it; negative: over budget"})
	for k := range f.Rows {
		m := 100 * margin[k]
		if math.IsInf(m, 0) {
			m = math.NaN()
		}
		f.Rows[k] = append(f.Rows[k], number(m))
	}
	return f, nil
}
