package ops

import (
	"math"

	"github.com/triune-sim/triune/model"
)

// Losses and optimiser steps: training operators that inference graphs
// sometimes carry.

// nll computes the negative log-likelihood of logp [N, C, d...] at target
// [N, d...].
func nll(c *call, logp *model.Tensor, v []float64, target, weight *model.Tensor) {
	s := logp.Shape
	if len(s) < 2 || len(target.Shape) != len(s)-1 {
		failf("scores %v and target %v do not fit", s, target.Shape)
	}
	ch, inner := s[1], prod(s[2:])
	if target.Len() != s[0]*inner {
		failf("scores %v and target %v do not fit", s, target.Shape)
	}
	ignore, hasIgnore := c.n.Attrs["ignore_index"].(int)
	var w []float64
	if weight != nil {
		if w = floats(weight); len(w) != ch {
			failf("%d weights for %d classes", len(w), ch)
		}
	}
	out := c.alloc(target.Shape)
	total, norm := 0.0, 0.0
	for i, t := range ints(target) {
		if hasIgnore && t == int64(ignore) {
			continue
		}
		if t < 0 || t >= int64(ch) {
			failf("target %d is outside %d classes", t, ch)
		}
		k := 1.0
		if w != nil {
			k = w[t]
		}
		out[i] = -v[(i/inner*ch+int(t))*inner+i%inner] * k
		total += out[i]
		norm += k
	}
	switch r := c.n.Attrs.String("reduction", "mean"); r {
	case "none":
		c.putF(0, logp.DType, target.Shape, out)
	case "sum":
		c.putF(0, logp.DType, model.Shape{}, []float64{total})
	case "mean":
		c.putF(0, logp.DType, model.Shape{}, []float64{total / norm})
	default:
		failf("unknown reduction %q", r)
	}
}

func inferLoss(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	c.typ(1, d)
	if s, ok := c.shapeOf(0); ok {
		c.out(1, d, s)
	}
	if c.n.Attrs.String("reduction", "mean") == "none" {
		c.out(0, d, c.shape(1))
		return
	}
	c.out(0, d, model.Shape{})
}

// optimizer steps every tensor of a group of n states per tensor: f gets x, g
// and the states, and returns the new x.
func optimizer(states int, f func(a model.Attrs, r float64, t int64, x, g float64, s []float64) float64) func(*call) {
	return func(c *call) {
		k := (len(c.in) - 2) / (2 + states)
		if k < 1 || 2+k*(2+states) != len(c.in) || len(c.out) < k*(1+states) {
			failf("%d inputs do not form groups", len(c.in))
		}
		for i := range c.in {
			c.x(i)
		}
		r, t := c.float1(0, 0), int64(c.float1(1, 0))
		for i := range k {
			x := c.x(2 + i)
			n := x.Len()
			in := make([][]float64, 2+states)
			for j := range in {
				in[j] = append([]float64{}, floats(c.x(2+j*k+i))...)
				if len(in[j]) != n {
					failf("the tensors of a group differ in size")
				}
			}
			s := make([]float64, states)
			for e := range n {
				for j := range s {
					s[j] = in[2+j][e]
				}
				in[0][e] = f(c.n.Attrs, r, t, in[0][e], in[1][e], s)
				for j := range s {
					in[2+j][e] = s[j]
				}
			}
			c.putF(i, x.DType, x.Shape, in[0])
			for j := range s {
				c.putF((1+j)*k+i, x.DType, x.Shape, in[2+j])
			}
		}
	}
}

func inferOptimizer(states int) func(*inference) {
	return func(c *inference) {
		k := (len(c.n.Inputs) - 2) / (2 + states)
		if k < 1 || 2+k*(2+states) != len(c.n.Inputs) || len(c.n.Outputs) != k*(1+states) {
			failf("%d inputs and %d outputs do not form groups", len(c.n.Inputs), len(c.n.Outputs))
		}
		for i := range c.n.Inputs {
			c.in(i)
		}
		for i := range k {
			for j := range 1 + states {
				c.typ(j*k+i, c.dtype(2+i))
				if s, ok := c.shapeOf(2 + i); ok {
					c.out(j*k+i, c.dtype(2+i), s)
				}
			}
		}
	}
}

func init() {
	register("loss", [4]int{2, 3, 1, 1}, inferLoss, func(c *call) {
		nll(c, c.x(0), floats(c.x(0)), c.x(1), c.opt(2))
	}, "NegativeLogLikelihoodLoss")
	register("loss", [4]int{2, 3, 1, 2}, inferLoss, func(c *call) {
		x := c.x(0)
		if len(x.Shape) < 2 {
			failf("scores %v want rank 2 or more", x.Shape)
		}
		v := along(c, x, 1, logSoftmax)
		c.putF(1, x.DType, x.Shape, append([]float64{}, v...))
		nll(c, x, v, c.x(1), c.opt(2))
	}, "SoftmaxCrossEntropyLoss")

	register("loss", [4]int{3, many, 1, many}, inferOptimizer(1), optimizer(1, func(a model.Attrs, r float64, t int64, x, g float64, s []float64) float64 {
		r /= 1 + float64(t)*a.Float("decay_factor", 0)
		g += a.Float("norm_coefficient", 0) * x
		s[0] += g * g
		return x - r*g/(math.Sqrt(s[0])+a.Float("epsilon", 1e-6))
	}), "Adagrad")
	register("loss", [4]int{3, many, 1, many}, inferOptimizer(2), optimizer(2, func(a model.Attrs, r float64, t int64, x, g float64, s []float64) float64 {
		alpha, beta := a.Float("alpha", 0.9), a.Float("beta", 0.999)
		g += a.Float("norm_coefficient", 0) * x
		s[0] = alpha*s[0] + (1-alpha)*g
		s[1] = beta*s[1] + (1-beta)*g*g
		if t > 0 {
			r *= math.Sqrt(1-math.Pow(beta, float64(t))) / (1 - math.Pow(alpha, float64(t)))
		}
		x -= r * s[0] / (math.Sqrt(s[1]) + a.Float("epsilon", 1e-6))
		return (1 - a.Float("norm_coefficient_post", 0)) * x
	}), "Adam")
	register("loss", [4]int{3, many, 1, many}, inferOptimizer(1), optimizer(1, func(a model.Attrs, r float64, t int64, x, g float64, s []float64) float64 {
		alpha, beta := a.Float("alpha", 0), a.Float("beta", 0)
		if t == 0 {
			beta = 1
		}
		g += a.Float("norm_coefficient", 0) * x
		s[0] = alpha*s[0] + beta*g
		if a.String("mode", "standard") == "nesterov" {
			return x - r*(g+alpha*s[0])
		}
		return x - r*s[0]
	}), "Momentum")
}
