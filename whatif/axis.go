package whatif

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Axis is something that a study varies: the values it may take, in order, or
// a range that is sampled.
type Axis struct {
	// Name is model, device, scheme, units, policy or batch, or the paths of
	// the device parameters that it sets, joined by commas.
	Name string
	// Paths are the parameters that the axis sets; empty for the others.
	Paths []string
	// Values are the choices. A continuous range that is only sampled has
	// none.
	Values []string
	span   *span
}

// span is a range of a parameter, "x0.5..x4 log 9".
type span struct {
	prefix, suffix string // "x" and "", "+" and "%", ...
	lo, hi         float64
	log            bool
	n              int // 0 if not given
}

// maxSpan bounds the points of one range.
const maxSpan = 1 << 20

// parseSpan reads LOW..HIGH [lin|log] [COUNT], where both ends are written
// alike: plain numbers, factors (x0.5) or percentages (-10%).
func parseSpan(s string) (*span, error) {
	f := strings.Fields(s)
	lo, hi, ok := strings.Cut(f[0], "..")
	if !ok {
		return nil, nil
	}
	bad := func(what string) (*span, error) {
		return nil, fmt.Errorf("whatif: range %q: %s (want LOW..HIGH, lin or log, and a count: x0.5..x4 log 9)", s, what)
	}
	r := &span{}
	var pl, sl, ph, sh string
	var err error
	if pl, r.lo, sl, err = parseEnd(lo); err != nil {
		return bad(err.Error())
	}
	if ph, r.hi, sh, err = parseEnd(hi); err != nil {
		return bad(err.Error())
	}
	if pl != ph || sl != sh {
		return bad("its ends are of different kinds")
	}
	r.prefix, r.suffix = pl, sl
	for _, w := range f[1:] {
		switch w {
		case "log":
			r.log = true
		case "lin":
		default:
			if r.n, err = strconv.Atoi(w); err != nil || r.n < 2 || r.n > maxSpan {
				return bad(fmt.Sprintf("%q is no count of at least 2", w))
			}
		}
	}
	if r.log && (r.lo <= 0 || r.hi <= 0) {
		return bad("a logarithmic range needs ends above 0")
	}
	if r.lo > r.hi {
		return bad("its low end is above its high end")
	}
	return r, nil
}

func parseEnd(s string) (prefix string, v float64, suffix string, err error) {
	num := s
	if rest, ok := strings.CutPrefix(num, "x"); ok {
		prefix, num = "x", rest
	} else if rest, ok := strings.CutSuffix(num, "%"); ok {
		suffix, num = "%", rest
	}
	v, err = strconv.ParseFloat(num, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return "", 0, "", fmt.Errorf("%q is no number", s)
	}
	return prefix, v, suffix, nil
}

// at returns the value a share u of the way from the low end to the high one.
func (r *span) at(u float64) string {
	v := r.lo + u*(r.hi-r.lo)
	if r.log {
		v = r.lo * math.Pow(r.hi/r.lo, u)
	}
	switch u { // exactly the ends as written
	case 0:
		v = r.lo
	case 1:
		v = r.hi
	}
	return r.format(v)
}

func (r *span) format(v float64) string {
	s := r.prefix + strconv.FormatFloat(v, 'g', -1, 64) + r.suffix
	if r.suffix == "%" && v >= 0 {
		s = "+" + s
	}
	return s
}

func (r *span) values() []string {
	out := make([]string, r.n)
	for i := range out {
		out[i] = r.at(float64(i) / float64(r.n-1))
	}
	return out
}

// pick returns the value of the axis for a coordinate in [0, 1).
func (a *Axis) pick(u float64) string {
	if a.span != nil {
		return a.span.at(u)
	}
	return a.Values[min(len(a.Values)-1, int(u*float64(len(a.Values))))]
}
