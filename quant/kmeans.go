package quant

import (
	"math"
	"math/rand/v2"
	"slices"
)

// kmeans1D returns k centroids, in ascending order, with the least sum of
// squared distances to the values, each counted weight times. Values must be
// ascending and distinct. With at least as many centroids as values it returns
// the values themselves (fewer than k). The optimum is exact: found by
// [clustering.penalised], or by [clustering.layered] where that does not meet k
// clusters.
func kmeans1D(values []float64, weight []float64, k int) []float64 {
	n := len(values)
	if n <= k {
		return slices.Clone(values)
	}
	c := newClustering(values, weight)
	var starts []int32
	if k >= 3 {
		starts = c.penalised(k)
	}
	if starts == nil {
		starts = c.layered(k)
	}
	centroids := make([]float64, len(starts))
	for i, m := range starts {
		end := n
		if i+1 < len(starts) {
			end = int(starts[i+1])
		}
		centroids[i] = c.mid + (c.s[end]-c.s[m])/(c.w[end]-c.w[m])
	}
	return centroids
}

// clustering holds prefix sums of weight, weight*x and weight*x^2 around the
// middle value, which keeps their differences exact enough.
type clustering struct {
	n       int
	mid     float64
	w, s, q []float64
}

func newClustering(values, weight []float64) *clustering {
	n := len(values)
	c := &clustering{n: n, mid: values[n/2], w: make([]float64, n+1), s: make([]float64, n+1), q: make([]float64, n+1)}
	for i, x := range values {
		x -= c.mid
		c.w[i+1] = c.w[i] + weight[i]
		c.s[i+1] = c.s[i] + weight[i]*x
		c.q[i+1] = c.q[i] + weight[i]*x*x
	}
	return c
}

// cost is the squared error of the values [i, j) in one cluster.
func (c *clustering) cost(i, j int32) float64 {
	if j-i <= 1 {
		return 0
	}
	sw, ss := c.w[j]-c.w[i], c.s[j]-c.s[i]
	return max(0, c.q[j]-c.q[i]-ss*ss/sw)
}

// layered is the dynamic programme over the number of clusters: with D[j][i]
// the least cost of the first i values in j clusters, D[j][i] = min over m of
// D[j-1][m] + cost(m, i). The cost is totally monotone, so that all minima of
// one layer take linear time with the SMAWK algorithm (Aggarwal, Klawe, Moran,
// Shor and Wilber 1987; Grønlund et al. 2017, arXiv 1701.07204). It returns
// where the clusters start.
func (c *clustering) layered(k int) []int32 {
	n := int32(c.n)
	prev, cur := make([]float64, n+1), make([]float64, n+1)
	for i := int32(1); i <= n; i++ {
		prev[i] = c.cost(0, i)
	}
	cut := make([][]int32, k) // cut[j][i]: start of the last of j+1 clusters of the first i values
	cut[0] = make([]int32, n+1)
	sm := &smawk{arg: make([]int32, n+1)}
	rows, cols := make([]int32, n), make([]int32, n)
	for i := range rows {
		rows[i], cols[i] = int32(i+1), int32(i)
	}
	for j := 1; j < k; j++ {
		sm.f = func(i, m int32) float64 {
			if m >= i { // an empty last cluster
				return prev[i]
			}
			return prev[m] + c.cost(m, i)
		}
		sm.minima(rows, cols)
		cut[j] = slices.Clone(sm.arg)
		for i := int32(1); i <= n; i++ {
			m := min(sm.arg[i], i)
			cut[j][i] = m
			cur[i] = sm.f(i, m)
		}
		prev, cur = cur, prev
	}
	starts := make([]int32, 0, k)
	for i, j := n, k-1; j >= 0 && i > 0; j-- {
		m := cut[j][i]
		if j == 0 {
			m = 0
		}
		if m < i {
			starts = append(starts, m)
		}
		i = m
	}
	slices.Reverse(starts)
	return starts
}

// penalised looks for a price per cluster at which the cheapest clustering has
// k of them: it is then the best of all with k, because the least cost is a
// convex function of k. A price takes one pass (see [clustering.priced]); the
// number of clusters falls about with the cube root of the price, which makes
// the search short. It returns nil if no price within reach gives exactly k.
func (c *clustering) penalised(k int) []int32 {
	total := c.cost(0, int32(c.n))
	if total == 0 {
		return nil
	}
	p := &pricing{c: c, e: make([]float64, c.n+1), from: make([]int32, c.n+1), count: make([]int32, c.n+1)}
	lo, hi := 0.0, total // prices known to give more than k, fewer than k clusters
	price := 2 * total / math.Pow(float64(k), 3)
	for range 60 {
		got := p.run(price)
		if got == k {
			starts := make([]int32, 0, k)
			for i := int32(c.n); i > 0; i = p.from[i] {
				starts = append(starts, p.from[i])
			}
			slices.Reverse(starts)
			return starts
		}
		if got > k {
			lo = price
		} else {
			hi = price
		}
		price *= math.Pow(float64(got)/float64(k), 3)
		if !(price > lo && price < hi) {
			price = (lo + hi) / 2
			if lo > 0 {
				price = math.Sqrt(lo * hi)
			}
		}
		if !(price > lo && price < hi) {
			return nil
		}
	}
	return nil
}

// pricing finds the cheapest clustering at a price per cluster.
type pricing struct {
	c     *clustering
	e     []float64 // least cost of the first i values, prices included
	from  []int32   // start of the last cluster
	count []int32   // number of clusters
	queue []candidate
}

// candidate is a start of the last cluster, the best known one for ends from
// first on, up to the next candidate's.
type candidate struct{ start, first int32 }

// run is the dynamic programme E[i] = min over m of E[m] + cost(m, i) + price.
// The best start never moves back as the end moves on, so that each start is
// the best on one interval of ends; a queue keeps these intervals (Galil and
// Giancarlo 1989). It returns the number of clusters.
func (p *pricing) run(price float64) int {
	c, n := p.c, int32(p.c.n)
	at := func(m, i int32) float64 { return p.e[m] + c.cost(m, i) }
	q := append(p.queue[:0], candidate{0, 1})
	head := 0
	for i := int32(1); i <= n; i++ {
		for head+1 < len(q) && q[head+1].first <= i {
			head++
		}
		m := q[head].start
		p.e[i], p.from[i], p.count[i] = at(m, i)+price, m, p.count[m]+1
		if i == n {
			break
		}
		// Start i wins from some end on, if at all.
		for len(q) > head {
			last := q[len(q)-1]
			if first := max(last.first, i+1); at(i, first) < at(last.start, first) {
				if len(q)-1 == head || last.first > i {
					q = q[:len(q)-1]
					continue
				}
			}
			break
		}
		if len(q) == head { // better than every start before it, at once
			q = append(q, candidate{i, i + 1})
			continue
		}
		last := q[len(q)-1].start
		lo, hi := max(q[len(q)-1].first, i+1), n+1 // loses at lo, wins from hi on
		if at(i, n) >= at(last, n) {
			continue
		}
		for hi-lo > 1 {
			mid := (lo + hi) / 2
			if at(i, mid) < at(last, mid) {
				hi = mid
			} else {
				lo = mid
			}
		}
		if hi <= n {
			q = append(q, candidate{i, hi})
		}
	}
	p.queue = q
	return int(p.count[n])
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

// sampleVectors bounds the vectors that the starts of k-means see.
const sampleVectors = 1 << 14

// kmeansVectors clusters vectors of length dim (points holds them end to end)
// around k centroids: k-means++ seeding and Lloyd's iteration, the best of
// several seeded starts. Of more than sampleVectors vectors the starts see
// evenly spaced ones, and the best is then refined on all. The result is
// deterministic.
func kmeansVectors(points []float32, dim, k int) []float32 {
	n := len(points) / dim
	if n <= k {
		return slices.Clone(points)
	}
	sample, tol := points, 0.0
	if n > sampleVectors && k <= sampleVectors/16 {
		sample, tol = make([]float32, 0, sampleVectors*dim), 1e-3
		for i := range sampleVectors {
			j := int(int64(i) * int64(n) / sampleVectors)
			sample = append(sample, points[j*dim:j*dim+dim]...)
		}
	}
	const starts = 8
	var best []float32
	bestErr := math.Inf(1)
	for s := range starts {
		c := seedVectors(sample, dim, k, rand.New(rand.NewPCG(uint64(s), 0x6b6d65616e73)))
		if e := lloyd(sample, c, dim, tol); e < bestErr {
			best, bestErr = c, e
		}
	}
	if len(sample) < len(points) {
		lloyd(points, best, dim, 1e-5)
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

// seedVectors chooses k of the vectors by greedy k-means++.
func seedVectors(points []float32, dim, k int, rng *rand.Rand) []float32 {
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
			if t := errorWith(points, at(points, i), d); t < pickTotal {
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
	return c
}

// errorWith is the squared error if p joined the centroids; d has the squared
// distances of the vectors without it.
func errorWith(points, p []float32, d []float64) float64 {
	var t float64
	if len(p) == 2 {
		x, y := float64(p[0]), float64(p[1])
		for j, m := range d {
			a, b := float64(points[2*j])-x, float64(points[2*j+1])-y
			t += min(m, a*a+b*b)
		}
		return t
	}
	for j, m := range d {
		t += min(m, dist2(points[j*len(p):][:len(p)], p))
	}
	return t
}

// lloyd moves centroids c to the means of the vectors nearest to them, over
// and over, and returns the squared error: to a standstill, until a round lowers
// the error by less than the share tol, or 100 rounds.
func lloyd(points, c []float32, dim int, tol float64) float64 {
	n, k := len(points)/dim, len(c)/dim
	assign := make([]int32, n)
	for i := range assign {
		assign[i] = -1
	}
	err, last := 0.0, math.Inf(1)
	sum := make([]float64, k*dim)
	count := make([]int, k)
	for range 100 {
		changed := false
		err = 0
		clear(sum)
		clear(count)
		for i := range n {
			p := points[i*dim : i*dim+dim]
			best, bd := nearestVector(p, c)
			err += bd
			if assign[i] != int32(best) {
				assign[i], changed = int32(best), true
			}
			count[best]++
			for a, x := range p {
				sum[best*dim+a] += float64(x)
			}
		}
		if !changed || last-err < tol*err {
			break
		}
		last = err
		for j := range k {
			if count[j] == 0 {
				continue
			}
			for a := range dim {
				c[j*dim+a] = float32(sum[j*dim+a] / float64(count[j]))
			}
		}
	}
	return err
}

// nearestVector returns the entry of table (vectors as long as p, end to end)
// that is nearest to p, the first of equals, and its squared distance.
func nearestVector(p, table []float32) (int, float64) {
	best, bd := 0, math.Inf(1)
	if len(p) == 2 {
		x, y := float64(p[0]), float64(p[1])
		for j := 0; j+1 < len(table); j += 2 {
			a, b := x-float64(table[j]), y-float64(table[j+1])
			if d := a*a + b*b; d < bd {
				best, bd = j/2, d
			}
		}
		return best, bd
	}
	for j := range len(table) / len(p) {
		if d := dist2(p, table[j*len(p):][:len(p)]); d < bd {
			best, bd = j, d
		}
	}
	return best, bd
}

func bitsOf(k int) int {
	b := 0
	for ; k > 1; k >>= 1 {
		b++
	}
	return b
}
