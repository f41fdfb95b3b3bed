package accuracy

import (
	"fmt"
	"math"
	"strings"
)

// Statement is something the published table shows, checked on the rows of one
// network.
type Statement struct {
	Network string `json:"network"`
	Text    string `json:"statement"`
	Figures string `json:"figures"`
	Holds   bool   `json:"holds"`
	// Remark says how far the figures decide the matter, where it does not
	// hold.
	Remark string `json:"remark,omitempty"`
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
					out = append(out, atLeast(net, "trained W8A8 is at least as good as "+q.Scheme, r, &q))
				}
			}
		}
		t, c, b := m["w4-tensor, blocks' layers"], m["w4, blocks' layers"], m["w4b32"]
		if t != nil && c != nil && b != nil {
			out = append(out, ordered(net, "int4 on the same layers loses least top-1 per block of 32, then per channel, then per tensor", b, c, t),
				flipped(net, "int4 on the same layers changes fewest answers per block of 32, then per channel, then per tensor", b, c, t))
		}
		if t, c := m["w4-tensor"], m["w4"]; t != nil && c != nil {
			out = append(out, atLeast(net, "int4 on all layers loses no more top-1 per channel than per tensor", c, t))
		}
	}
	return out
}

func within(net, text string, r *Row, points float64) Statement {
	s := Statement{Network: net, Text: text, Figures: r.Change.String() + " points", Holds: r.Change.Points >= -points}
	if !s.Holds {
		s.Remark = decided(math.Abs(r.Change.Points)-points, r.Change.StandardErr)
	}
	return s
}

// atLeast says that a is no worse than b.
func atLeast(net, text string, a, b *Row) Statement {
	d := change(b.right, a.right)
	s := Statement{Network: net, Text: text, Holds: d.Points >= 0,
		Figures: fmt.Sprintf("%.2f and %.2f %%, difference %s", a.Top1.Percent, b.Top1.Percent, d)}
	if !s.Holds {
		s.Remark = decided(-d.Points, d.StandardErr)
	}
	return s
}

// ordered says that each row is no worse than the next, in top-1.
func ordered(net, text string, rows ...*Row) Statement {
	s := Statement{Network: net, Text: text, Holds: true}
	var top, remarks []string
	for i, r := range rows {
		top = append(top, fmt.Sprintf("%+.2f", r.Change.Points))
		if i == 0 {
			continue
		}
		if d := change(r.right, rows[i-1].right); d.Points < 0 {
			s.Holds = false
			remarks = append(remarks, fmt.Sprintf("%s against %s: %s points, %s", rows[i-1].Scheme, r.Scheme, d, decided(-d.Points, d.StandardErr)))
		}
	}
	s.Figures = strings.Join(top, ", ") + " points"
	s.Remark = strings.Join(remarks, "; ")
	return s
}

// flipped says that no row changes more answers than the next: a finer measure
// of damage than top-1, where answers that become right make up for others.
func flipped(net, text string, rows ...*Row) Statement {
	s := Statement{Network: net, Text: text, Holds: true}
	var figures, remarks []string
	for i, r := range rows {
		figures = append(figures, fmt.Sprintf("%.2f %% at %s dB", r.Flipped.Percent, r.LogitSNR))
		if i > 0 && rows[i-1].Flipped.Percent > r.Flipped.Percent {
			s.Holds = false
			remarks = append(remarks, fmt.Sprintf("%s changes more than %s: %s", rows[i-1].Scheme, r.Scheme,
				decided(rows[i-1].Flipped.Percent-r.Flipped.Percent, math.Hypot(r.Flipped.StandardErr, rows[i-1].Flipped.StandardErr))))
		}
	}
	s.Figures, s.Remark = strings.Join(figures, ", "), strings.Join(remarks, "; ")
	return s
}

// decided words whether a shortfall stands out of its standard error.
func decided(by, se float64) string {
	switch {
	case se == 0 || by > 2*se:
		return fmt.Sprintf("beyond two standard errors (%.2f)", se)
	default:
		return fmt.Sprintf("within two standard errors (%.2f): these images cannot tell", se)
	}
}
