package ops

import (
	"math"

	"github.com/triune-sim/triune/model"
)

// Normalisation.

func inferBatchNorm(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	c.typ(1, c.dtype(3))
	c.typ(2, c.dtype(4))
	x := c.rankAtLeast(0, 1)
	for i := 1; i < 5; i++ {
		if s, ok := c.shapeOf(i); ok && len(x) > 1 && s.Known() && x[1] >= 0 && s.Elems() != int64(x[1]) {
			failf("input %d (%q) has shape %v, wants one value per channel of %v", i, c.in(i).Name, s, x)
		}
	}
	c.out(0, d, x)
	if s, ok := c.shapeOf(3); ok {
		c.out(1, c.dtype(3), s)
	}
	if s, ok := c.shapeOf(4); ok {
		c.out(2, c.dtype(4), s)
	}
}

// evalBatchNorm normalises per channel (axis 1) with the given statistics, or
// in training mode with those of the batch, which it then blends into the
// running ones.
func evalBatchNorm(c *call) {
	x := c.x(0)
	scale, bias, mean, variance := floats(c.x(1)), floats(c.x(2)), floats(c.x(3)), floats(c.x(4))
	ch, inner := 1, 1
	if len(x.Shape) > 1 {
		ch, inner = x.Shape[1], prod(x.Shape[2:])
	}
	for _, v := range [][]float64{scale, bias, mean, variance} {
		if len(v) != ch {
			failf("%d values where one per channel (%d) is wanted", len(v), ch)
		}
	}
	eps := c.n.Attrs.Float("epsilon", 1e-5)
	v := floats(x)
	if c.n.Attrs.Int("training_mode", 0) != 0 {
		mom := c.n.Attrs.Float("momentum", 0.9)
		m, s, cnt := make([]float64, ch), make([]float64, ch), float64(len(v)/max(1, ch))
		for i, f := range v {
			m[i/inner%ch] += f / cnt
		}
		for i, f := range v {
			d := f - m[i/inner%ch]
			s[i/inner%ch] += d * d / cnt
		}
		rm, rv := make([]float64, ch), make([]float64, ch)
		for i := range rm {
			rm[i] = mean[i]*mom + m[i]*(1-mom)
			rv[i] = variance[i]*mom + s[i]*(1-mom)
		}
		c.putF(1, c.x(3).DType, c.x(3).Shape, rm)
		c.putF(2, c.x(4).DType, c.x(4).Shape, rv)
		mean, variance = m, s
	}
	mul, add := make([]float64, ch), make([]float64, ch)
	for i := range mul {
		mul[i] = scale[i] / math.Sqrt(variance[i]+eps)
		add[i] = bias[i] - mean[i]*mul[i]
	}
	out := c.alloc(x.Shape)
	for i, f := range v {
		k := i / inner % ch
		out[i] = f*mul[k] + add[k]
	}
	c.putF(0, x.DType, x.Shape, out)
}

// standardize returns (v - mean) / sqrt(variance + eps) of a row, with the
// mean and the inverse deviation.
func standardize(out, v []float64, eps float64) (mean, inv float64) {
	n := float64(len(v))
	for _, x := range v {
		mean += x
	}
	mean /= n
	s := 0.0
	for _, x := range v {
		s += (x - mean) * (x - mean)
	}
	inv = 1 / math.Sqrt(s/n+eps)
	for i, x := range v {
		out[i] = (x - mean) * inv
	}
	return mean, inv
}

// evalInstanceNorm normalises each plane of [N, C, spatial...]; groups > 0
// normalises groups of channels instead (GroupNormalization).
func groupNorm(c *call, groups int) {
	x := c.x(0)
	if len(x.Shape) < 2 {
		failf("input %v wants rank 2 or more", x.Shape)
	}
	scale, bias := floats(c.x(1)), floats(c.x(2))
	ch, inner := x.Shape[1], prod(x.Shape[2:])
	if len(scale) != ch || len(bias) != ch {
		failf("scale and bias have %d and %d values, want one per channel (%d)", len(scale), len(bias), ch)
	}
	if groups < 1 || ch%groups != 0 {
		failf("%d channels do not divide into %d groups", ch, groups)
	}
	eps := c.n.Attrs.Float("epsilon", 1e-5)
	v := floats(x)
	out := c.alloc(x.Shape)
	row := ch / groups * inner
	for g := range x.Shape[0] * groups {
		standardize(out[g*row:(g+1)*row], v[g*row:(g+1)*row], eps)
	}
	for i := range out {
		k := i / inner % ch
		out[i] = out[i]*scale[k] + bias[k]
	}
	c.putF(0, x.DType, x.Shape, out)
}

func inferLayerNorm(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	stat := model.Float32
	if d == model.Float64 {
		stat = d
	}
	c.typ(1, stat)
	c.typ(2, stat)
	s := c.rankAtLeast(0, 1)
	axis := c.axis(-1, len(s))
	c.out(0, d, s)
	r := append(model.Shape{}, s...)
	for i := axis; i < len(r); i++ {
		r[i] = 1
	}
	c.out(1, stat, r)
	c.out(2, stat, r)
}

func evalLayerNorm(c *call) {
	x := c.x(0)
	axis := normAxis(c.n.Attrs.Int("axis", -1), len(x.Shape))
	eps := c.n.Attrs.Float("epsilon", 1e-5)
	v := floats(x)
	out := c.alloc(x.Shape)
	row := prod(x.Shape[axis:])
	rows := prod(x.Shape[:axis])
	mean, inv := make([]float64, rows), make([]float64, rows)
	scale := expandF(floats(c.x(1)), c.x(1).Shape, x.Shape[axis:])
	var bias []float64
	if b := c.opt(2); b != nil {
		bias = expandF(floats(b), b.Shape, x.Shape[axis:])
	}
	for r := range rows {
		o := out[r*row : (r+1)*row]
		mean[r], inv[r] = standardize(o, v[r*row:(r+1)*row], eps)
		for i := range o {
			o[i] *= scale[i]
			if bias != nil {
				o[i] += bias[i]
			}
		}
	}
	c.putF(0, x.DType, x.Shape, out)
	if c.wants(1) || c.wants(2) {
		s := append(model.Shape{}, x.Shape...)
		for i := axis; i < len(s); i++ {
			s[i] = 1
		}
		stat := c.float(model.Float32)
		if x.DType == model.Float64 {
			stat = model.Float64
		}
		c.putF(1, stat, s, mean)
		c.putF(2, stat, s, inv)
	}
}

// evalRMSNorm is x / sqrt(mean(x^2) + eps) * scale over the axes from axis on
// (ONNX opset 23; arXiv 1910.07467).
func evalRMSNorm(c *call) {
	x := c.x(0)
	axis := normAxis(c.n.Attrs.Int("axis", -1), len(x.Shape))
	eps := c.n.Attrs.Float("epsilon", 1e-5)
	v := floats(x)
	out := c.alloc(x.Shape)
	row := prod(x.Shape[axis:])
	scale := expandF(floats(c.x(1)), c.x(1).Shape, x.Shape[axis:])
	for r := range prod(x.Shape[:axis]) {
		in, o := v[r*row:(r+1)*row], out[r*row:(r+1)*row]
		s := 0.0
		for _, f := range in {
			s += f * f
		}
		inv := 1 / math.Sqrt(s/float64(row)+eps)
		for i, f := range in {
			o[i] = f * inv * scale[i]
		}
	}
	c.putF(0, x.DType, x.Shape, out)
}

// evalLRN divides by a power of the sum of squares over neighbouring channels.
func evalLRN(c *call) {
	x := c.x(0)
	if len(x.Shape) < 2 {
		failf("input %v wants rank 2 or more", x.Shape)
	}
	a := c.n.Attrs
	alpha, beta, bias, size := a.Float("alpha", 1e-4), a.Float("beta", 0.75), a.Float("bias", 1), a.Int("size", 0)
	if size < 1 {
		failf("attribute size is missing or not positive")
	}
	before, after := (size-1)/2, size/2
	c.putF(0, x.DType, x.Shape, along(c, x, 1, func(in, out []float64) {
		for i, v := range in {
			s := 0.0
			for j := max(0, i-before); j <= min(len(in)-1, i+after); j++ {
				s += in[j] * in[j]
			}
			out[i] = v / math.Pow(bias+alpha/float64(size)*s, beta)
		}
	}))
}

func evalLpNorm(c *call) {
	x := c.x(0)
	p := c.n.Attrs.Int("p", 2)
	lines(-1, func(in, out []float64) {
		s := 0.0
		for _, v := range in {
			if p == 1 {
				s += math.Abs(v)
			} else {
				s += v * v
			}
		}
		if p != 1 {
			s = math.Sqrt(s)
		}
		for i, v := range in {
			if s == 0 {
				out[i] = 0
			} else {
				out[i] = v / s
			}
		}
	})(c)
	_ = x
}

// evalMVN is MeanVarianceNormalization: (x - mean) / (deviation + 1e-9) over
// the given axes.
func evalMVN(c *call) {
	x := c.x(0)
	axes := c.n.Attrs.Ints("axes", []int{0, 2, 3})
	mask := reduceAxes(nil, len(x.Shape), axes)
	v := floats(x)
	idx, groups, size := reduceIndex(x.Shape, mask)
	out := c.alloc(x.Shape)
	for g := range groups {
		row := idx[g*size : (g+1)*size]
		mean, sq := 0.0, 0.0
		for _, j := range row {
			mean += v[j]
			sq += v[j] * v[j]
		}
		mean /= float64(size)
		sd := math.Sqrt(max(0, sq/float64(size)-mean*mean))
		for _, j := range row {
			out[j] = (v[j] - mean) / (sd + 1e-9)
		}
	}
	c.putF(0, x.DType, x.Shape, out)
}

func init() {
	register("norm", [4]int{5, 5, 1, 5}, inferBatchNorm, evalBatchNorm, "BatchNormalization")
	register("norm", [4]int{3, 3, 1, 1}, sameType, func(c *call) {
		if len(c.x(0).Shape) < 2 {
			failf("input %v wants rank 2 or more", c.x(0).Shape)
		}
		groupNorm(c, c.x(0).Shape[1])
	}, "InstanceNormalization")
	register("norm", [4]int{3, 3, 1, 1}, sameType, func(c *call) {
		groupNorm(c, c.n.Attrs.Int("num_groups", 0))
	}, "GroupNormalization")
	register("norm", [4]int{2, 3, 1, 3}, inferLayerNorm, evalLayerNorm, "LayerNormalization")
	register("norm", [4]int{2, 2, 1, 1}, sameType, evalRMSNorm, "RMSNormalization")
	register("norm", [4]int{1, 1, 1, 1}, sameType, evalLRN, "LRN")
	register("norm", [4]int{1, 1, 1, 1}, sameType, evalLpNorm, "LpNormalization")
	register("norm", [4]int{1, 1, 1, 1}, sameType, evalMVN, "MeanVarianceNormalization")
}
