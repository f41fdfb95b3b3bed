package quant

import (
	"math"
	"math/rand/v2"
	"slices"
)

// kmeans1D returns k centroids, in ascending order, with the least sum of
// squared distances to the values, each counted weight times. Values must be
// ascending and distinct. With at least as many centroids as values it returns
// the values themselves (fewer than k).
//
// The optimum in one dimension is found by dynamic programming: with D[j][i]
// the least cost of the first i values in j clusters, D[j][i] = min over m of
// D[j-1][m] + cost(m, i). The cost matrix is totally monotone, so that all row
// minima of one layer take linear time with the SMAWK algorithm (Aggarwal,
// Klawe, Moran, Shor and Wilber 1987; Grønlund et al. 2017, arXiv 1701.07204).
func kmeans1D(values []float64, weight []float64, k int) []float64 {
	n := len(values)
	if n <= k {
		return slices.Clone(values)
	}
	// Prefix sums of weight, weight*x and weight*x^2 around the middle, which
	// keeps the differences exact enough.
	mid := values[n/2]
	w, s, q := make([]float64, n+1), make([]float64, n+1), make([]float64, n+1)
	for i, x := range values {
		x -= mid
		w[i+1] = w[i] + weight[i]
		s[i+1] = s[i] + weight[i]*x
		q[i+1] = q[i] + weight[i]*x*x
	}
	// cost of the values [i, j) in one cluster
	cost := func(i, j int) float64 {
		if j-i <= 1 {
			return 0
		}
		sw, ss := w[j]-w[i], s[j]-s[i]
		return max(0, q[j]-q[i]-ss*ss/sw)
	}
	prev, cur := make([]float64, n+1), make([]float64, n+1)
	for i := 1; i <= n; i++ {
		prev[i] = cost(0, i)
	}
	cut := make([][]int32, k) // cut[j][i]: start of the last of j+1 clusters of the first i values
	cut[0] = make([]int32, n+1)
	sm := &smawk{arg: make([]int32, n+1)}
	rows := make([]int32, n)
	for i := range rows {
		rows[i] = int32(i + 1)
	}
	for j := 1; j < k; j++ {
		cols := make([]int32, n)
		for i := range cols {
			cols[i] = int32(i)
		}
		sm.f = func(i, m int32) float64 {
			if m >= i { // an empty last cluster: no better than none
				return prev[i]
			}
			return prev[m] + cost(int(m), int(i))
		}
		sm.minima(rows, cols)
		cut[j] = slices.Clone(sm.arg)
		for i := int32(1); i <= int32(n); i++ {
			m := min(sm.arg[i], i)
			cut[j][i] = m
			cur[i] = sm.f(i, m)
		}
		prev, cur = cur, prev
	}
	centroids := make([]float64, 0, k)
	for i, j := n, k-1; j >= 0 && i > 0; j-- {
		m := int(cut[j][i])
		if j == 0 {
			m = 0
		}
		if m < i {
			centroids = append(centroids, mid+(s[i]-s[m])/(w[i]-w[m]))
		}
		i = m
	}
	slices.Reverse(centroids)
	return centroids
}

// smawk finds the row minima of a totally monotone matrix.
type smawk struct {
	f   func(row, col int32) float64
	arg []int32 // by row: the column of its least entry
}

func (s *smawk) minima(rows, cols []int32) {
	if len(rows) == 0 {
		return
	}
	// Reduce: drop columns that hold no row's minimum.
	keep := make([]int32, 0, len(rows))
	for _, c := range cols {
		for len(keep) > 0 {
			r := rows[len(keep)-1]
			if s.f(r, keep[len(keep)-1]) <= s.f(r, c) {
				break
			}
			keep = keep[:len(keep)-1]
		}
		if len(keep) < len(rows) {
			keep = append(keep, c)
		}
	}
	odd := make([]int32, 0, len(rows)/2)
	for i := 1; i < len(rows); i += 2 {
		odd = append(odd, rows[i])
	}
	s.minima(odd, keep)
	// Interpolate: the minimum of an even row lies between its neighbours'.
	c := 0
	for i := 0; i < len(rows); i += 2 {
		r := rows[i]
		stop := keep[len(keep)-1]
		if i+1 < len(rows) {
			stop = s.arg[rows[i+1]]
		}
		best, at := math.Inf(1), keep[c]
		for ; ; c++ {
			if x := s.f(r, keep[c]); x < best {
				best, at = x, keep[c]
			}
			if keep[c] == stop {
				break
			}
		}
		s.arg[r] = at
	}
}

// kmeansVectors clusters vectors of length dim (points holds them end to end)
// around k centroids: k-means++ seeding and Lloyd's iteration, the best of
// several seeded starts. The result is deterministic.
func kmeansVectors(points []float32, dim, k int) []float32 {
	n := len(points) / dim
	if n <= k {
		return slices.Clone(points)
	}
	const starts = 8
	var best []float32
	bestErr := math.Inf(1)
	for s := range starts {
		c, e := lloyd(points, dim, k, rand.New(rand.NewPCG(uint64(s), 0x6b6d65616e73)))
		if e < bestErr {
			best, bestErr = c, e
		}
	}
	return best
}

func dist2(a, b []float32) float64 {
	var d float64
	for i, x := range a {
		e := float64(x) - float64(b[i])
		d += e * e
	}
	return d
}

// lloyd runs k-means++ and Lloyd's iteration to a standstill (at most 100
// rounds) and returns the centroids and the squared error.
func lloyd(points []float32, dim, k int, rng *rand.Rand) ([]float32, float64) {
	n := len(points) / dim
	at := func(v []float32, i int) []float32 { return v[i*dim : i*dim+dim] }
	c := make([]float32, 0, k*dim)
	c = append(c, at(points, rng.IntN(n))...)
	d := make([]float64, n)
	var total float64
	for i := range d {
		d[i] = dist2(at(points, i), c)
		total += d[i]
	}
	for len(c) < k*dim {
		// Of a few candidates drawn in proportion to their distance, take the
		// one that lowers the error most (greedy k-means++).
		var pick int
		pickTotal := math.Inf(1)
		for range 2 + bitsOf(k) {
			x, i := rng.Float64()*total, 0
			for i < n-1 && x >= d[i] {
				x -= d[i]
				i++
			}
			var t float64
			for j := range d {
				t += min(d[j], dist2(at(points, j), at(points, i)))
			}
			if t < pickTotal {
				pick, pickTotal = i, t
			}
		}
		p := at(points, pick)
		c = append(c, p...)
		total = 0
		for j := range d {
			d[j] = min(d[j], dist2(at(points, j), p))
			total += d[j]
		}
	}
	assign := make([]int, n)
	for i := range assign {
		assign[i] = -1
	}
	var err float64
	sum := make([]float64, k*dim)
	count := make([]int, k)
	for range 100 {
		changed := false
		err = 0
		clear(sum)
		clear(count)
		for i := range n {
			p := at(points, i)
			best, bd := 0, math.Inf(1)
			for j := range k {
				if e := dist2(p, at(c, j)); e < bd {
					best, bd = j, e
				}
			}
			err += bd
			if assign[i] != best {
				assign[i], changed = best, true
			}
			count[best]++
			for a, x := range p {
				sum[best*dim+a] += float64(x)
			}
		}
		if !changed {
			break
		}
		for j := range k {
			if count[j] == 0 {
				continue
			}
			for a := range dim {
				c[j*dim+a] = float32(sum[j*dim+a] / float64(count[j]))
			}
		}
	}
	return c, err
}

func bitsOf(k int) int {
	b := 0
	for ; k > 1; k >>= 1 {
		b++
	}
	return b
}
