package ops

import (
	"math/rand/v2"

	"github.com/triune-sim/triune/model"
)

// Random operators. A run is repeatable: the generator is seeded from the seed
// attribute, or from the node's name.

func (c *call) rand() *rand.Rand {
	if s, ok := c.n.Attrs["seed"]; ok {
		switch s := s.(type) {
		case int:
			return rand.New(newMersenne(uint32(s)))
		case float64:
			return rand.New(newMersenne(uint32(int64(s))))
		}
	}
	seed := uint64(0x9e3779b97f4a7c15)
	for _, b := range []byte(c.n.Name) {
		seed = (seed ^ uint64(b)) * 0x100000001b3
	}
	return rand.New(rand.NewPCG(seed, 1))
}

// mersenne is the generator MT19937 (Matsumoto and Nishimura, 1998) seeded and
// read as NumPy's RandomState does, which the reference implementation of ONNX
// uses: with a seed, uniform numbers are the same as there.
type mersenne struct {
	mt [624]uint32
	at int
}

func newMersenne(seed uint32) *mersenne {
	m := &mersenne{at: 624}
	m.mt[0] = seed
	for i := uint32(1); i < 624; i++ {
		m.mt[i] = 1812433253*(m.mt[i-1]^m.mt[i-1]>>30) + i
	}
	return m
}

func (m *mersenne) next() uint32 {
	if m.at == 624 {
		for i := range m.mt {
			y := m.mt[i]&0x80000000 | m.mt[(i+1)%624]&0x7fffffff
			m.mt[i] = m.mt[(i+397)%624] ^ y>>1 ^ (y&1)*0x9908b0df
		}
		m.at = 0
	}
	y := m.mt[m.at]
	m.at++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// Uint64 holds, in the 53 bits that rand.Float64 reads, what NumPy's
// random_sample takes from two draws.
func (m *mersenne) Uint64() uint64 {
	a, b := uint64(m.next()>>5), uint64(m.next()>>6)
	return a<<26 | b
}

func attrType(a model.Attrs, key string, def model.DType) model.DType {
	if s := a.String(key, ""); s != "" {
		return castTarget(model.Attrs{"to": s})
	}
	return def
}

// evalDropout is the identity unless training_mode (input 2) is true.
func evalDropout(c *call) {
	x := c.x(0)
	ratio := c.float1(1, 0.5)
	training := false
	if t := c.opt(2); t != nil && t.Len() == 1 {
		training = ints(t)[0] != 0
	}
	mask := model.NewTensor(model.Bool, x.Shape...)
	if !training || ratio == 0 {
		for i := range mask.Data {
			mask.Data[i] = 1
		}
		c.put(0, x)
		c.put(1, mask)
		return
	}
	r := c.rand()
	out := append([]float64{}, floats(x)...)
	for i := range out {
		if r.Float64() < ratio {
			out[i] = 0
		} else {
			out[i] /= 1 - ratio
			mask.Data[i] = 1
		}
	}
	c.putF(0, x.DType, x.Shape, out)
	c.put(1, mask)
}

func inferRandom(like bool) func(*inference) {
	return func(c *inference) {
		if like {
			d := attrType(c.n.Attrs, "dtype", c.dtype(0))
			c.typ(0, d)
			c.out(0, d, c.shape(0))
			return
		}
		d := attrType(c.n.Attrs, "dtype", model.Float32)
		s := c.n.Attrs.Ints("shape", nil)
		if model.Shape(s).Elems() < 0 {
			failf("the shape %v is not valid", s)
		}
		c.out(0, d, s)
	}
}

func evalRandom(normal, like bool) func(*call) {
	return func(c *call) {
		d, shape := model.Float32, model.Shape(c.n.Attrs.Ints("shape", nil))
		if like {
			d, shape = c.x(0).DType, c.x(0).Shape
		}
		d = c.float(attrType(c.n.Attrs, "dtype", d))
		v := c.alloc(shape)
		r := c.rand()
		a := c.n.Attrs
		for i := range v {
			if normal {
				v[i] = a.Float("mean", 0) + a.Float("scale", 1)*r.NormFloat64()
			} else {
				v[i] = a.Float("low", 0) + (a.Float("high", 1)-a.Float("low", 0))*r.Float64()
			}
		}
		c.putF(0, d, shape, v)
	}
}

func init() {
	register("random", [4]int{1, 3, 1, 2}, func(c *inference) {
		c.typ(0, c.dtype(0))
		c.typ(1, model.Bool)
		c.out(0, c.dtype(0), c.shape(0))
		c.out(1, model.Bool, c.shape(0))
	}, evalDropout, "Dropout")
	register("random", [4]int{0, 0, 1, 1}, inferRandom(false), evalRandom(false, false), "RandomUniform")
	register("random", [4]int{0, 0, 1, 1}, inferRandom(false), evalRandom(true, false), "RandomNormal")
	register("random", [4]int{1, 1, 1, 1}, inferRandom(true), evalRandom(false, true), "RandomUniformLike")
	register("random", [4]int{1, 1, 1, 1}, inferRandom(true), evalRandom(true, true), "RandomNormalLike")
	register("random", [4]int{1, 1, 1, 1}, inferRandom(true), func(c *call) {
		x := c.x(0)
		d := c.float(attrType(c.n.Attrs, "dtype", x.DType))
		r := c.rand()
		out := c.alloc(x.Shape)
		for i, p := range floats(x) {
			if r.Float64() < p {
				out[i] = 1
			}
		}
		c.putF(0, d, x.Shape, out)
	}, "Bernoulli")
	register("random", [4]int{1, 1, 1, 1}, func(c *inference) {
		d := attrType(c.n.Attrs, "dtype", model.Int32)
		c.typ(0, d)
		s := c.rankIs(0, 2)
		c.out(0, d, model.Shape{s[0], c.n.Attrs.Int("sample_size", 1)})
	}, func(c *call) {
		x := c.x(0)
		if len(x.Shape) != 2 {
			failf("input %v wants rank 2", x.Shape)
		}
		n := c.n.Attrs.Int("sample_size", 1)
		shape := model.Shape{x.Shape[0], n}
		r := c.rand()
		out := make([]int64, c.size(model.Int64, shape))
		classes := x.Shape[1]
		p := make([]float64, classes)
		v := floats(x)
		for b := range x.Shape[0] {
			softmax(v[b*classes:(b+1)*classes], p) // inputs are log-probabilities
			for s := range n {
				u, k := r.Float64(), 0
				for ; k < classes-1 && u >= p[k]; k++ {
					u -= p[k]
				}
				out[b*n+s] = int64(k)
			}
		}
		c.putI(0, attrType(c.n.Attrs, "dtype", model.Int32), shape, out)
	}, "Multinomial")
	impure("RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike", "Bernoulli", "Multinomial")
}
