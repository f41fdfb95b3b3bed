package passes

import (
	"math"

	"github.com/triune-sim/triune/model"
)

// activations recognises activation functions that are spelled out. The
// argument is the last node of the spelling.
func activations(r *rewriter, n *model.Node) (bool, error) {
	switch n.Op {
	case "Mul", "Div":
		return gated(r, n) || hardSigmoid(r, n), nil
	case "Clip":
		return mergeClip(r, n), nil
	case "Min", "Max":
		return minMax(r, n), nil
	case "PRelu":
		return leaky(r, n)
	}
	return false, nil
}

// factors is a product: a constant and the tensors it multiplies.
type factors struct {
	c    float64
	list []*model.Value
}

// product takes a tree of multiplications and divisions by constants apart.
// The root may have several readers, what is below it only one.
func (r *rewriter) product(v *model.Value) factors {
	f := factors{c: 1}
	var walk func(v *model.Value, root bool)
	walk = func(v *model.Value, root bool) {
		if s, ok := scalar(v); ok {
			f.c *= s
			return
		}
		p := v.Producer
		if p == nil || r.dead[p] || len(p.Inputs) != 2 || !root && !r.sole(v) || len(f.list) > 8 {
			f.list = append(f.list, v)
			return
		}
		switch p.Op {
		case "Mul":
			walk(p.In(0), false)
			walk(p.In(1), false)
		case "Div":
			if s, ok := scalar(p.In(1)); ok && s != 0 {
				f.c /= s
				walk(p.In(0), false)
				return
			}
			f.list = append(f.list, v)
		default:
			f.list = append(f.list, v)
		}
	}
	walk(v, true)
	return f
}

// shifted takes x + c apart, c a constant of one element.
func (r *rewriter) shifted(v *model.Value) (*model.Value, float64, bool) {
	p := r.inner(v, "Add")
	if p == nil || len(p.Inputs) != 2 {
		return nil, 0, false
	}
	for i := range 2 {
		if c, ok := scalar(p.In(i)); ok {
			return p.In(1 - i), c, true
		}
	}
	return nil, 0, false
}

// gated recognises x*g(x): Swish, HardSwish, Gelu (both forms) and Mish.
func gated(r *rewriter, n *model.Node) bool {
	out := n.Outputs[0]
	f := r.product(out)
	if len(f.list) < 2 || len(f.list) > 3 {
		return false
	}
	if coreHardSwish(r, n, f) {
		return true
	}
	for i, g := range f.list {
		if g.Producer == nil || r.dead[g.Producer] || !r.sole(g) {
			continue
		}
		// The other factors must be one tensor x of the result's shape.
		var x *model.Value
		one := true
		for j, v := range f.list {
			if j == i {
				continue
			}
			one = one && (x == nil || x == v)
			x = v
		}
		if !one || len(f.list) != 2 || !x.Shape.Equal(out.Shape) || x.DType != out.DType {
			continue
		}
		p := g.Producer
		switch p.Op {
		case "Sigmoid":
			if f.c != 1 {
				continue
			}
			if p.In(0) == x {
				r.become(n, "Swish", model.Attrs{"alpha": 1.0}, x)
				return true
			}
			if a := r.product(p.In(0)); r.sole(p.In(0)) && len(a.list) == 1 && a.list[0] == x && a.c != 0 {
				r.become(n, "Swish", model.Attrs{"alpha": a.c}, x)
				return true
			}
		case "HardSigmoid":
			if p.In(0) == x && f.c == 1 && near(p.Attrs.Float("alpha", 0.2), 1.0/6) && near(p.Attrs.Float("beta", 0.5), 0.5) {
				r.become(n, "HardSwish", nil, x)
				return true
			}
		case "Clip":
			if y, c, ok := r.shifted(p.In(0)); ok && y == x && c == 3 && near(f.c, 1.0/6) && clipIs(p, 0, 6) {
				r.become(n, "HardSwish", nil, x)
				return true
			}
		case "Tanh":
			if q := r.inner(p.In(0), "Softplus"); q != nil && q.In(0) == x && f.c == 1 {
				r.become(n, "Mish", nil, x)
				return true
			}
		case "Add":
			y, c, ok := r.shifted(g)
			if !ok || c != 1 || f.c != 0.5 {
				continue
			}
			if q := r.inner(y, "Erf"); q != nil && r.sole(q.In(0)) {
				if a := r.product(q.In(0)); len(a.list) == 1 && a.list[0] == x && near(a.c, math.Sqrt2/2) {
					r.become(n, "Gelu", model.Attrs{"approximate": "none"}, x)
					return true
				}
			}
			if q := r.inner(y, "Tanh"); q != nil && r.sole(q.In(0)) && r.geluArgument(q.In(0), x) {
				r.become(n, "Gelu", model.Attrs{"approximate": "tanh"}, x)
				return true
			}
		}
	}
	return false
}

// coreHardSwish recognises how Core ML's converter spells HardSwish:
// ThresholdedRelu(x, -3) * HardSigmoid(x, 1/6, 1/2).
func coreHardSwish(r *rewriter, n *model.Node, f factors) bool {
	if len(f.list) != 2 || f.c != 1 {
		return false
	}
	for i := range 2 {
		p, q := r.inner(f.list[i], "ThresholdedRelu"), r.inner(f.list[1-i], "HardSigmoid")
		if p == nil || q == nil || p.In(0) != q.In(0) || p.In(0) == nil || !near(p.Attrs.Float("alpha", 1), -3) ||
			!near(q.Attrs.Float("alpha", 0.2), 1.0/6) || !near(q.Attrs.Float("beta", 0.5), 0.5) {
			continue
		}
		x := p.In(0)
		if !x.Shape.Equal(n.Outputs[0].Shape) || x.DType != n.Outputs[0].DType {
			continue
		}
		r.become(n, "HardSwish", nil, x)
		return true
	}
	return false
}

// geluArgument recognises sqrt(2/pi) * (x + 0.044715*x^3), also as
// sqrt(2/pi) * x * (1 + 0.044715*x^2).
func (r *rewriter) geluArgument(v, x *model.Value) bool {
	f := r.product(v)
	if !near(f.c, math.Sqrt(2/math.Pi)) {
		return false
	}
	switch len(f.list) {
	case 1:
		p := r.inner(f.list[0], "Add")
		if p == nil || len(p.Inputs) != 2 {
			return false
		}
		for i := range 2 {
			if p.In(i) != x {
				continue
			}
			if c, e, ok := r.power(p.In(1-i), x); ok && e == 3 && near(c, 0.044715) {
				return true
			}
		}
	case 2:
		for i := range 2 {
			if f.list[i] != x {
				continue
			}
			y, c, ok := r.shifted(f.list[1-i])
			if !ok || c != 1 {
				continue
			}
			if k, e, ok := r.power(y, x); ok && e == 2 && near(k, 0.044715) {
				return true
			}
		}
	}
	return false
}

// power reads v as c*x^e, e a small whole number.
func (r *rewriter) power(v, x *model.Value) (c float64, e int, ok bool) {
	f := r.product(v)
	for _, y := range f.list {
		switch {
		case y == x:
			e++
		case r.inner(y, "Pow") != nil && y.Producer.In(0) == x:
			k, isConst := scalar(y.Producer.In(1))
			if !isConst || k != math.Trunc(k) || k < 1 || k > 8 {
				return 0, 0, false
			}
			e += int(k)
		default:
			return 0, 0, false
		}
	}
	return f.c, e, len(f.list) > 0
}

// bounds returns the limits of a Clip node of constant bounds.
func bounds(p *model.Node) (lo, hi float64, ok bool) {
	lo, hi = math.Inf(-1), math.Inf(1)
	if v := p.In(1); v != nil {
		if lo, ok = scalar(v); !ok {
			return 0, 0, false
		}
	}
	if v := p.In(2); v != nil {
		if hi, ok = scalar(v); !ok {
			return 0, 0, false
		}
	}
	return lo, hi, true
}

func clipIs(p *model.Node, lo, hi float64) bool {
	a, b, ok := bounds(p)
	return ok && a == lo && b == hi
}

// hardSigmoid recognises Clip(x+3, 0, 6)/6.
func hardSigmoid(r *rewriter, n *model.Node) bool {
	f := r.product(n.Outputs[0])
	if len(f.list) != 1 || !near(f.c, 1.0/6) {
		return false
	}
	p := r.inner(f.list[0], "Clip")
	if p == nil || !clipIs(p, 0, 6) {
		return false
	}
	x, c, ok := r.shifted(p.In(0))
	if !ok || c != 3 || !x.Shape.Equal(n.Outputs[0].Shape) {
		return false
	}
	// Leave the whole to HardSwish where x multiplies it next.
	if next := r.reader(n.Outputs[0]); next != nil && next.Op == "Mul" && (next.In(0) == x || next.In(1) == x) {
		return false
	}
	r.become(n, "HardSigmoid", model.Attrs{"alpha": 1.0 / 6, "beta": 0.5}, x)
	return true
}

// mergeClip joins a clip with the ReLU or clip before it, and gives a clip at
// zero from below its name, ReLU.
func mergeClip(r *rewriter, n *model.Node) bool {
	lo, hi, ok := bounds(n)
	if !ok || !n.Outputs[0].DType.IsFloat() {
		return false
	}
	x := n.In(0)
	if p := r.inner(x, "Relu"); p != nil {
		r.clip(n, p.In(0), math.Min(math.Max(lo, 0), hi), hi)
		return true
	}
	if p := r.inner(x, "Clip"); p != nil {
		a, b, ok := bounds(p)
		if !ok || a > b || lo > hi {
			return false
		}
		low, high := math.Min(math.Max(a, lo), hi), math.Max(math.Min(b, hi), lo)
		r.clip(n, p.In(0), low, high)
		return true
	}
	if lo == 0 && math.IsInf(hi, 1) {
		r.become(n, "Relu", nil, x)
		return true
	}
	return false
}

// clip makes n a Clip of x.
func (r *rewriter) clip(n *model.Node, x *model.Value, lo, hi float64) {
	out := n.Outputs[0]
	in := []*model.Value{x, nil, nil}
	if !math.IsInf(lo, -1) {
		in[1] = scalarConst(out.Name+".min", out.DType, lo)
	}
	if !math.IsInf(hi, 1) {
		in[2] = scalarConst(out.Name+".max", out.DType, hi)
	}
	r.become(n, "Clip", nil, in...)
}

// minMax turns Min and Max with a constant into Clip.
func minMax(r *rewriter, n *model.Node) bool {
	if len(n.Inputs) != 2 || !n.Outputs[0].DType.IsFloat() {
		return false
	}
	for i := range 2 {
		c, ok := scalar(n.In(i))
		x := n.In(1 - i)
		if !ok || x == nil || x.Const != nil || !x.Shape.Equal(n.Outputs[0].Shape) || c != c {
			continue
		}
		if n.Op == "Min" {
			r.clip(n, x, math.Inf(-1), c)
		} else {
			r.clip(n, x, c, math.Inf(1))
		}
		return true
	}
	return false
}

// leaky turns a PRelu of equal slopes into LeakyRelu.
func leaky(r *rewriter, n *model.Node) (bool, error) {
	s := n.In(1)
	if s == nil || s.Const == nil || !s.DType.IsFloat() || n.In(0) == nil || !n.In(0).Shape.Equal(n.Outputs[0].Shape) || s.Const.Elems() > 1<<16 || s.Const.Elems() < 1 {
		return false, nil
	}
	t, err := s.Const.Value()
	if err != nil {
		return false, err
	}
	a := t.At(0)
	for i := range t.Len() {
		if t.At(i) != a {
			return false, nil
		}
	}
	r.become(n, "LeakyRelu", model.Attrs{"alpha": a}, n.In(0))
	return true, nil
}
