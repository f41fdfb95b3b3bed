package quant

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestPricedKMeans: on the values of a large layer the priced search meets the
// number of clusters, and its error is that of the layered programme.
func TestPricedKMeans(t *testing.T) {
	a := arith{half: true}
	rng := rand.New(rand.NewPCG(2, 1))
	v, w := a.histogram(func(f func(float32)) {
		for range 20000 {
			f(roundHalf(float32(rng.NormFloat64() * 0.02)))
		}
	})
	c := newClustering(v, w)
	total := func(starts []int32) float64 {
		var e float64
		for i, m := range starts {
			end := int32(len(v))
			if i+1 < len(starts) {
				end = starts[i+1]
			}
			e += c.cost(m, end)
		}
		return e
	}
	for _, k := range []int{2, 4, 8, 16, 64, 256} {
		p := c.penalised(k)
		if len(p) != k {
			t.Errorf("k = %d: %d clusters", k, len(p))
			continue
		}
		if x, y := total(p), total(c.layered(k)); math.Abs(x-y) > 1e-9*y {
			t.Errorf("k = %d: squared error %v, layered %v", k, x, y)
		}
	}
}

// BenchmarkKMeans1D clusters the half-precision values of a large layer.
func BenchmarkKMeans1D(b *testing.B) {
	a := arith{half: true}
	rng := rand.New(rand.NewPCG(1, 1))
	v, w := a.histogram(func(f func(float32)) {
		for range 2 << 20 {
			f(roundHalf(float32(rng.NormFloat64() * 0.02)))
		}
	})
	for _, k := range []int{16, 64, 256} {
		b.Run(fmt.Sprintf("%d_values/k%d", len(v), k), func(b *testing.B) {
			for b.Loop() {
				kmeans1D(v, w, k)
			}
		})
	}
}

// TestManyVectors: starts that see a sample find clusters as good as starts that
// see all vectors.
func TestManyVectors(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	points := make([]float32, 2*3*sampleVectors)
	for i := range points {
		points[i] = float32(rng.NormFloat64() * (1 + float64(i%2)))
	}
	c := kmeansVectors(points, 2, 16)
	got := lloyd(points, c, 2, 1) // of one round: the error of c itself, which it then moves
	best := math.Inf(1)
	for s := range uint64(4) {
		best = min(best, lloyd(points, seedVectors(points, 2, 16, rand.New(rand.NewPCG(s, 1))), 2, 0))
	}
	if got > 1.005*best {
		t.Errorf("squared error %g, starts on all vectors %g", got, best)
	}
}
