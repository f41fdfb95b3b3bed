package compare

import (
	"fmt"
	"math"
	"strconv"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/triune-sim/triune/model"
)

// DB is a ratio in decibels. It is +Inf when nothing differs, which JSON shows
// as null.
type DB float64

// Exact reports whether nothing differed.
func (d DB) Exact() bool { return math.IsInf(float64(d), 1) }

// String returns the ratio with one decimal, or "exact".
func (d DB) String() string {
	if d.Exact() {
		return "exact"
	}
	return fmt.Sprintf("%.1f", float64(d))
}

// MarshalJSON writes a number, or null where there is no finite one.
func (d DB) MarshalJSON() ([]byte, error) {
	if f := float64(d); !math.IsInf(f, 0) && f == f {
		return strconv.AppendFloat(nil, f, 'g', -1, 64), nil
	}
	return []byte("null"), nil
}

// Metrics says how far a tensor is from its reference, over all samples.
type Metrics struct {
	// SNR and PSNR are in dB; null (exact) when nothing differs.
	SNR  DB `json:"snr_db"`
	PSNR DB `json:"psnr_db"`
	// Cosine is the cosine of the angle between the two tensors; 1 where both
	// are zero.
	Cosine float64 `json:"cosine"`
	// MaxError is the largest absolute difference of an element, MaxReference
	// the largest magnitude in the reference.
	MaxError     float64 `json:"max_error"`
	MaxReference float64 `json:"max_reference"`
	// NonFinite counts elements that are infinite or not a number although
	// the reference is finite. They are left out of the other figures, as are
	// elements whose reference is not finite.
	NonFinite int64 `json:"non_finite"`
}

// Sums accumulates what [Metrics] are made of. Its zero value is empty. The
// same elements added in the same grouping give the same bits.
type Sums struct {
	n                  int64
	signal, noise, dot float64
	tested             float64
	maxErr, maxRef     float64
	bad                int64
}

// Add compares one pair of tensors of equal length: want is the reference.
func (s *Sums) Add(want, got []float32) {
	got = got[:len(want)]
	// Four partial sums keep the additions short of each other's latency, and
	// the error of long sums small.
	for len(want) > 0 {
		n := min(len(want), 4096)
		s.chunk(want[:n], got[:n])
		want, got = want[n:], got[n:]
	}
}

func (s *Sums) chunk(want, got []float32) {
	var signal, noise, dot, tested, maxErr, maxRef float64
	n := int64(0)
	for i, w := range want {
		x, y := float64(w), float64(got[i])
		d := y - x
		if d-d != 0 { // either is infinite or not a number
			if x-x == 0 {
				s.bad++
			}
			continue
		}
		n++
		signal += x * x
		noise += d * d
		dot += x * y
		tested += y * y
		maxErr = max(maxErr, math.Abs(d))
		maxRef = max(maxRef, math.Abs(x))
	}
	s.n += n
	s.signal += signal
	s.noise += noise
	s.dot += dot
	s.tested += tested
	s.maxErr = max(s.maxErr, maxErr)
	s.maxRef = max(s.maxRef, maxRef)
}

// Merge adds the sums of other samples.
func (s *Sums) Merge(o Sums) {
	s.n += o.n
	s.signal += o.signal
	s.noise += o.noise
	s.dot += o.dot
	s.tested += o.tested
	s.maxErr = max(s.maxErr, o.maxErr)
	s.maxRef = max(s.maxRef, o.maxRef)
	s.bad += o.bad
}

// Metrics returns the figures.
func (s *Sums) Metrics() Metrics {
	m := Metrics{SNR: DB(math.Inf(1)), PSNR: DB(math.Inf(1)), Cosine: 1, MaxError: s.maxErr, MaxReference: s.maxRef, NonFinite: s.bad}
	if s.noise > 0 {
		m.SNR = decibels(s.signal / s.noise)
		m.PSNR = decibels(s.maxRef * s.maxRef / (s.noise / float64(s.n)))
	}
	if p := math.Sqrt(s.signal) * math.Sqrt(s.tested); p > 0 {
		m.Cosine = min(1, max(-1, s.dot/p))
	} else if s.signal != s.tested {
		m.Cosine = 0
	}
	return m
}

// decibels is 10 log10 r, at least -400 (an error on a zero reference).
func decibels(r float64) DB { return DB(10 * math.Log10(max(r, 1e-40))) }

// relative returns the noise relative to the signal; infinite where a zero
// reference is missed or a value is not finite.
func (s *Sums) relative() float64 {
	switch {
	case s.bad > 0, s.noise > 0 && s.signal == 0:
		return math.Inf(1)
	case s.noise == 0:
		return 0
	}
	return s.noise / s.signal
}

// Share is a percentage of samples with its standard error: sqrt(p(1-p)/n),
// in percentage points.
type Share struct {
	Percent     float64 `json:"percent"`
	StandardErr float64 `json:"standard_error"`
	Samples     int     `json:"samples"`
}

// NewShare returns the share of hits in n samples.
func NewShare(hits, n int) Share {
	p := float64(hits) / float64(n)
	return Share{100 * p, 100 * math.Sqrt(p*(1-p)/float64(n)), n}
}

// String formats the share as 91.23 ± 0.28 %.
func (s Share) String() string { return fmt.Sprintf("%.2f ± %.2f %%", s.Percent, s.StandardErr) }

// Change is the difference of two accuracies on the same samples, in percentage
// points. Both networks see the same images, so that its standard error comes
// from the images they disagree on: with b gained and c lost of n,
// sqrt(b + c - (b-c)^2/n) / n (the variance behind McNemar's test).
type Change struct {
	Points      float64 `json:"points"`
	StandardErr float64 `json:"standard_error"`
	Gained      int     `json:"gained"`
	Lost        int     `json:"lost"`
	// P is the probability of a change at least as large, either way, if
	// gains and losses were equally likely: McNemar's exact test.
	P Chance `json:"mcnemar_p"`
}

// NewChange returns the change when, of n samples, gained became right and
// lost became wrong.
func NewChange(gained, lost, n int) Change {
	d := float64(gained - lost)
	v := float64(gained+lost) - d*d/float64(n)
	return Change{100 * d / float64(n), 100 * math.Sqrt(max(v, 0)) / float64(n), gained, lost, SignTest(gained, lost)}
}

// Chance is a probability, 0 to 1.
type Chance float64

// String formats it with two digits.
func (p Chance) String() string {
	if p < 1e-4 {
		return "< 0.0001"
	}
	return fmt.Sprintf("%.2g", float64(p))
}

// SignTest returns the two-sided probability of a split at least as uneven as a
// to b if both sides were equally likely: twice the tail of the binomial
// distribution of a+b fair coins, at most 1.
func SignTest(a, b int) Chance {
	if a == b {
		return 1
	}
	coins := distuv.Binomial{N: float64(a + b), P: 0.5}
	return Chance(min(1, 2*coins.CDF(float64(min(a, b)))))
}

// String formats the change as -0.12 ± 0.05.
func (c Change) String() string { return fmt.Sprintf("%+.2f ± %.2f", c.Points, c.StandardErr) }

// Top1 returns the index of the largest element (the first of equals), or -1
// if there is no finite one.
func Top1(v []float32) int {
	best := -1
	for i, x := range v {
		if x == x && (best < 0 || x > v[best]) {
			best = i
		}
	}
	return best
}

// Scores reports whether a tensor of this shape is one vector of class scores:
// at least two elements along one axis, and 1 along all others.
func Scores(s model.Shape) bool {
	long := 0
	for _, d := range s {
		if d < 1 {
			return false
		}
		if d > 1 {
			long++
		}
	}
	return long == 1
}
