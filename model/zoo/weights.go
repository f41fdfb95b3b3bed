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

// fillFilters returns the weights of filters of n elements each, one after the
// other: normal, and with center of zero sum, so that a filter does not see
// what all its inputs have in common.
//
// Rectified inputs have a positive mean. Through filters of independent
// weights that mean swamps the signal within a few layers, and a deep untrained
// network gives nearly the same output for every input; batch norm takes it
// away in training, zero-sum filters do here.
func fillFilters(seed uint64, std float64, n int, center bool, shape model.Shape) *model.Const {
	if !center {
		return fillNormal(seed, 0, std, shape)
	}
	return model.NewLazy(model.Float32, shape, func() (*model.Tensor, error) {
		t := model.NewTensor(model.Float32, shape...)
		v, s := model.View[float32](t), float32(std)
		for at := 0; at+n <= len(v); at += n {
			f := v[at : at+n]
			sum := float32(0)
			for i := range f {
				f[i] = s * normal(splitmix(seed, at+i))
				sum += f[i]
			}
			sum /= float32(n)
			for i := range f {
				f[i] -= sum
			}
		}
		return t, nil
	})
}

// offset is the mean that the outputs of a depthwise convolution have because
// its rectified inputs have one: the sum of a filter times that mean. The batch
// norm (or bias) that follows takes it away, as training would have it; a
// depthwise filter of zero sum would take away the signal as well.
type offset struct {
	w    *model.Const // nil for none
	n    int          // elements of a filter
	mean float64      // of the inputs
}

// bias returns a normal vector of mean zero and deviation std, plus sign times
// the offset.
func (o offset) bias(seed uint64, sign, std float64, c int) *model.Const {
	shape := model.Shape{c}
	if o.w == nil || o.mean == 0 {
		return fillNormal(seed, 0, std, shape)
	}
	return model.NewLazy(model.Float32, shape, func() (*model.Tensor, error) {
		t := model.NewTensor(model.Float32, shape...)
		w, err := o.w.Value()
		if err != nil {
			return nil, err
		}
		f, v := model.View[float32](w), model.View[float32](t)
		for i := range v {
			sum := float32(0)
			for _, x := range f[i*o.n : (i+1)*o.n] {
				sum += x
			}
			v[i] = float32(std)*normal(splitmix(seed, i)) + float32(sign*o.mean)*sum
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

// std returns the standard deviation of independent weights that give an
// output of unit mean square.
func (m moment) std(fanIn int) float64 {
	return 1 / math.Sqrt(float64(max(fanIn, 1))*max(m.ms, 1e-6))
}

// common is the share of the mean square that the mean of a rectified normal
// variable makes up: (1/sqrt(2 pi))^2 / (1/2).
const common = 1 / math.Pi

// centered returns the moment that filters of zero sum see.
func (m moment) centered() moment { return moment{m.ms - common*m.pos, 0} }
