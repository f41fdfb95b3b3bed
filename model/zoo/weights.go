package zoo

import (
	"hash/fnv"
	"math"

	"github.com/triune-sim/triune/model"
)

// seedOf hashes the name of a constant within its network.
func seedOf(network, name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(network))
	h.Write([]byte{'/'})
	h.Write([]byte(name))
	return h.Sum64()
}

// splitmix is the output function of SplitMix64 (Steele, Lea and Flood, "Fast
// splittable pseudorandom number generators", OOPSLA 2014) at position i of
// the stream of a seed. Being a function of the position, it gives the same
// values whatever order they are computed in.
func splitmix(seed uint64, i int) uint64 {
	z := seed + (uint64(i)+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// normal returns a bell-shaped value of mean 0 and variance 1: the sum of four
// independent 16-bit uniforms (Irwin-Hall), bounded by +-sqrt(12).
func normal(bits uint64) float32 {
	s := int32(bits&0xffff) + int32(bits>>16&0xffff) + int32(bits>>32&0xffff) + int32(bits>>48)
	// Each uniform on 0..65535 has mean 32767.5 and variance (65536^2-1)/12.
	const scale = 1.7320508 / 65536.0 // 1 / sqrt(4 * 65536^2 / 12)
	return (float32(s) - 4*32767.5) * scale
}

// fillNormal returns a constant of normally distributed values.
func fillNormal(seed uint64, mean, std float64, shape model.Shape) *model.Const {
	n := int(shape.Elems())
	return model.NewLazy(model.Float32, shape, func() (*model.Tensor, error) {
		t := model.NewTensor(model.Float32, shape...)
		v, m, s := model.View[float32](t), float32(mean), float32(std)
		for i := range n {
			v[i] = m + s*normal(splitmix(seed, i))
		}
		return t, nil
	})
}

// fillUniform returns a constant of values uniform on lo..hi.
func fillUniform(seed uint64, lo, hi float64, shape model.Shape) *model.Const {
	n := int(shape.Elems())
	return model.NewLazy(model.Float32, shape, func() (*model.Tensor, error) {
		t := model.NewTensor(model.Float32, shape...)
		v, a, b := model.View[float32](t), float32(lo), float32(hi-lo)
		for i := range n {
			v[i] = a + b*float32(splitmix(seed, i)>>40)*(1.0/(1<<24))
		}
		return t, nil
	})
}

// moment is what the builder knows of the distribution of a tensor: its mean
// square, and how much of that stems from a part that is never negative (and
// so passes a ReLU unharmed). It is an estimate, carried along by simple rules,
// that serves to scale weights: every convolution and linear layer divides by
// the root mean square of its input, as a trained batch norm would.
type moment struct{ ms, pos float64 }

func (m moment) rectified() moment {
	ms := m.pos + (m.ms-m.pos)/2
	return moment{ms, ms}
}

func (m moment) scaled(f float64) moment { return moment{m.ms * f, m.pos * f} }

func (m moment) plus(n moment) moment { return moment{m.ms + n.ms, m.pos + n.pos} }

// std returns the standard deviation of weights that give an output of unit
// mean square.
func (m moment) std(fanIn int) float64 {
	return 1 / math.Sqrt(float64(max(fanIn, 1))*max(m.ms, 1e-6))
}
