package whatif

import "math/bits"

// sobolDims is the number of dimensions that [sobol] has.
const sobolDims = 21

// joeKuo are the primitive polynomials (degree and inner coefficients) and
// initial direction numbers of dimensions 2 and up, from S. Joe and F. Y. Kuo,
// "Constructing Sobol sequences with better two-dimensional projections",
// SIAM J. Sci. Comput. 30 (2008), file new-joe-kuo-6.
var joeKuo = [sobolDims - 1]struct {
	s, a uint
	m    []uint64
}{
	{1, 0, []uint64{1}},
	{2, 1, []uint64{1, 3}},
	{3, 1, []uint64{1, 3, 1}},
	{3, 2, []uint64{1, 1, 1}},
	{4, 1, []uint64{1, 1, 3, 3}},
	{4, 4, []uint64{1, 3, 5, 13}},
	{5, 2, []uint64{1, 1, 5, 5, 17}},
	{5, 4, []uint64{1, 1, 5, 5, 5}},
	{5, 7, []uint64{1, 1, 7, 11, 19}},
	{5, 11, []uint64{1, 1, 5, 1, 1}},
	{5, 13, []uint64{1, 1, 1, 3, 11}},
	{5, 14, []uint64{1, 3, 5, 5, 31}},
	{6, 1, []uint64{1, 3, 3, 9, 7, 49}},
	{6, 13, []uint64{1, 1, 1, 15, 21, 21}},
	{6, 16, []uint64{1, 3, 1, 13, 27, 49}},
	{6, 19, []uint64{1, 1, 1, 15, 7, 5}},
	{6, 22, []uint64{1, 3, 1, 15, 13, 25}},
	{6, 25, []uint64{1, 1, 5, 5, 19, 61}},
	{7, 1, []uint64{1, 3, 7, 11, 23, 15, 103}},
	{7, 4, []uint64{1, 3, 7, 13, 13, 15, 69}},
}

const sobolBits = 52

// sobolV[d][k] is the direction number of bit k in dimension d, as a fraction
// of 2^sobolBits.
var sobolV = func() (v [sobolDims][sobolBits]uint64) {
	for k := range sobolBits {
		v[0][k] = 1 << (sobolBits - 1 - k)
	}
	for d := 1; d < sobolDims; d++ {
		p := joeKuo[d-1]
		s := int(p.s)
		for k := range sobolBits {
			if k < s {
				v[d][k] = p.m[k] << (sobolBits - 1 - k)
				continue
			}
			x := v[d][k-s] ^ v[d][k-s]>>p.s
			for j := 1; j < s; j++ {
				if p.a>>(s-1-j)&1 != 0 {
					x ^= v[d][k-j]
				}
			}
			v[d][k] = x
		}
	}
	return v
}()

// sobol returns coordinate d of point i of the Sobol sequence in Gray code
// order, shifted digitally by a hash of the seed: the shift keeps the
// sequence's equidistribution and makes seeds independent.
func sobol(i uint64, d int, seed uint64) float64 {
	x := mix(seed, ^uint64(0), uint64(d)) >> (64 - sobolBits)
	for g := i ^ i>>1; g != 0; g &= g - 1 {
		x ^= sobolV[d][bits.TrailingZeros64(g)]
	}
	return float64(x) / (1 << sobolBits)
}

// random returns coordinate d of point i of a pseudo-random sequence.
func random(i uint64, d int, seed uint64) float64 {
	return float64(mix(seed, i, uint64(d))>>11) / (1 << 53)
}

// mix hashes three words by splitmix64's finaliser.
func mix(a, b, c uint64) uint64 {
	x := a
	for _, w := range [...]uint64{b, c, 0x9e3779b97f4a7c15} {
		x += w + 0x9e3779b97f4a7c15
		x ^= x >> 30
		x *= 0xbf58476d1ce4e5b9
		x ^= x >> 27
		x *= 0x94d049bb133111eb
		x ^= x >> 31
	}
	return x
}
