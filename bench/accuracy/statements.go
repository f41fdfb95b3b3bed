package accuracy

import (
	"fmt"
	"strings"

	"github.com/triune-sim/triune/compare"
)

// Statement is something the published table shows, checked on the rows of one
// network.
type Statement struct {
	Network string `json:"network"`
	Text    string `json:"statement"`
	Figures string `json:"figures"`
	// Verdict is [Holds], [Undecided] or [Fails].
	Verdict Verdict `json:"verdict"`
	// Remark says of each comparison what decides it: the images that the two
	// networks disagree on.
	Remark string `json:"remark,omitempty"`
}

// Verdict is what the figures say of a statement.
type Verdict string

// The verdicts. Two networks are compared on the same images, by those that one
// has right and the other wrong: McNemar's exact test, two-sided.
const (
	Holds     Verdict = "holds"     // the figures are as stated
	Undecided Verdict = "undecided" // they are the other way round, as chance makes them in more than 1 of 20 sets of images
	Fails     Verdict = "fails"     // they are the other way round, beyond that
)

// significant is the probability under which a difference counts as more
// than chance.
const significant = 0.05

// and returns the worse of two verdicts.
func (v Verdict) and(w Verdict) Verdict {
	if v == Fails || w == Fails {
		return Fails
	}
	if v == Undecided || w == Undecided {
		return Undecided
	}
	return Holds
}

// statements checks what the rows allow to check.
func statements(rows []Row) []Statement {
	var out []Statement
	byName := map[string]map[string]*Row{}
	var order []string
	for i := range rows {
		r := &rows[i]
		if byName[r.Network] == nil {
			byName[r.Network] = map[string]*Row{}
			order = append(order, r.Network)
		}
		byName[r.Network][r.Scheme] = r
	}
	for _, net := range order {
		m := byName[net]
		if r := m["w8"]; r != nil {
			out = append(out, within(net, "8-bit weights per channel lose at most 0.3 points", r, 0.3))
		}
		if r := m["w8a8 trained"]; r != nil {
			out = append(out, within(net, "trained W8A8 loses at most 0.5 points", r, 0.5))
			for _, q := range rows {
				if q.Network == net && q.Calibration != "" {
					out = append(out, ordered(net, "trained W8A8 is at least as good as "+q.Scheme, top1, r, &q))
				}
			}
		}
		t, c, b := m["w4-tensor, blocks' layers"], m["w4, blocks' layers"], m["w4b32"]
		if t != nil && c != nil && b != nil {
			const of = "int4 on the same layers "
			out = append(out,
				ordered(net, of+"loses least top-1 per block of 32, then per channel, then per tensor", top1, b, c, t),
				ordered(net, of+"changes fewest answers per block of 32, then per channel, then per tensor", flips, b, c, t),
				ordered(net, of+"moves the logits least per block of 32, then per channel, then per tensor", logits, b, c, t))
		}
		if t, c := m["w4-tensor"], m["w4"]; t != nil && c != nil {
			out = append(out, ordered(net, "int4 on all layers loses no more top-1 per channel than per tensor", top1, c, t))
		}
	}
	return out
}

// within says that a row loses at most so many points. The test is that of the
// change's standard error (two of them).
func within(net, text string, r *Row, points float64) Statement {
	s := Statement{Network: net, Text: text, Figures: r.Change.String() + " points", Verdict: Holds}
	if short := -r.Change.Points - points; short > 2*r.Change.StandardErr {
		s.Verdict = Fails
	} else if short > 0 {
		s.Verdict = Undecided
	}
	return s
}

// damage is how the damage of rows is compared: a figure to print, and image
// by image which of two rows does better.
type damage struct {
	figure func(*Row) string
	better func(a, b *Row, i int) int // of image i: 1 if a does better, -1 if b does
	unit   string
}

var (
	top1 = damage{
		func(r *Row) string { return fmt.Sprintf("%.2f", r.Top1.Percent) },
		func(a, b *Row, i int) int { return truth(a.right[i]) - truth(b.right[i]) }, "% right"}
	flips = damage{
		func(r *Row) string { return fmt.Sprintf("%.2f", r.Flipped.Percent) },
		func(a, b *Row, i int) int { return truth(b.flipped[i]) - truth(a.flipped[i]) }, "% changed"}
	logits = damage{
		func(r *Row) string { return r.LogitSNR.String() },
		func(a, b *Row, i int) int {
			switch {
			case a.noise[i] < b.noise[i]:
				return 1
			case a.noise[i] > b.noise[i]:
				return -1
			}
			return 0
		}, "dB"}
)

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ordered says that each row is no worse than the next.
func ordered(net, text string, m damage, rows ...*Row) Statement {
	s := Statement{Network: net, Text: text, Verdict: Holds}
	var figures, remarks []string
	for i, r := range rows {
		figures = append(figures, m.figure(r))
		if i == 0 {
			continue
		}
		a, better, worse := rows[i-1], 0, 0
		for k := range r.right {
			switch m.better(a, r, k) {
			case 1:
				better++
			case -1:
				worse++
			}
		}
		p := compare.SignTest(better, worse)
		switch {
		case worse > better && p < significant:
			s.Verdict = Fails
		case worse > better:
			s.Verdict = s.Verdict.and(Undecided)
		}
		remarks = append(remarks, fmt.Sprintf("%s better than %s on %d images, worse on %d, p %s", a.Scheme, r.Scheme, better, worse, p))
	}
	s.Figures = strings.Join(figures, ", ") + " " + m.unit
	s.Remark = strings.Join(remarks, "; ")
	return s
}
