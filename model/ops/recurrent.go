package ops

import (
	"math"
	"slices"
	"strings"

	"github.com/triune-sim/triune/model"
)

// RNN, GRU and LSTM. X is [seq, batch, input] (or [batch, seq, input] with
// layout 1), W [dirs, gates*hidden, input], R [dirs, gates*hidden, hidden],
// B [dirs, 2*gates*hidden]; then sequence lengths, initial states, and for
// LSTM peepholes P [dirs, 3*hidden]. The attribute clip bounds what the
// activations are given; cell_clip, which is Core ML's and not ONNX's, bounds
// the cell state.

func directions(a model.Attrs) int {
	switch d := a.String("direction", "forward"); d {
	case "forward", "reverse":
		return 1
	case "bidirectional":
		return 2
	default:
		failf("unknown direction %q", d)
	}
	return 0
}

func inferRecurrent(c *inference) {
	d := c.dtype(0)
	for i := range 3 {
		c.typ(i, d)
	}
	x, r := c.rankIs(0, 3), c.rankIs(2, 3)
	dirs, h := directions(c.n.Attrs), r[2]
	if k := c.n.Attrs.Int("hidden_size", h); h < 0 {
		h = k
	}
	seq, batch := x[0], x[1]
	if c.n.Attrs.Int("layout", 0) != 0 {
		batch, seq = seq, batch
		c.out(0, d, model.Shape{batch, seq, dirs, h})
		c.out(1, d, model.Shape{batch, dirs, h})
		c.out(2, d, model.Shape{batch, dirs, h})
		return
	}
	c.out(0, d, model.Shape{seq, dirs, batch, h})
	c.out(1, d, model.Shape{dirs, batch, h})
	c.out(2, d, model.Shape{dirs, batch, h})
}

// activation returns a gate's function by name.
func activation(name string, alpha, beta float64, hasAlpha, hasBeta bool) func(float64) float64 {
	def := func(v float64, has bool, d float64) float64 {
		if has {
			return v
		}
		return d
	}
	switch strings.ToLower(name) {
	case "relu":
		return relu
	case "tanh":
		return math.Tanh
	case "sigmoid":
		return sigmoid
	case "affine":
		a, b := def(alpha, hasAlpha, 1), def(beta, hasBeta, 0)
		return func(x float64) float64 { return a*x + b }
	case "leakyrelu":
		a := def(alpha, hasAlpha, 0.01)
		return func(x float64) float64 {
			if x < 0 {
				return a * x
			}
			return x
		}
	case "thresholdedrelu":
		a := def(alpha, hasAlpha, 1)
		return func(x float64) float64 {
			if x > a {
				return x
			}
			return 0
		}
	case "scaledtanh":
		a, b := def(alpha, hasAlpha, 1), def(beta, hasBeta, 1)
		return func(x float64) float64 { return a * math.Tanh(b*x) }
	case "hardsigmoid":
		a, b := def(alpha, hasAlpha, 0.2), def(beta, hasBeta, 0.5)
		return func(x float64) float64 { return hardSigmoid(x, a, b) }
	case "elu":
		a := def(alpha, hasAlpha, 1)
		return func(x float64) float64 { return elu(x, a) }
	case "softsign":
		return func(x float64) float64 { return x / (1 + math.Abs(x)) }
	case "softplus":
		return softplus
	}
	failf("unknown activation %q", name)
	return nil
}

// takesAlpha and takesBeta tell which activations consume a value of
// activation_alpha and activation_beta.
func takesAlpha(name string) bool {
	return slices.Contains([]string{"affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"}, strings.ToLower(name))
}

func takesBeta(name string) bool {
	return slices.Contains([]string{"affine", "scaledtanh", "hardsigmoid"}, strings.ToLower(name))
}

func evalRecurrent(gates int, defaults ...string) func(*call) {
	return func(c *call) {
		a := c.n.Attrs
		x, w, r := c.x(0), c.x(1), c.x(2)
		dirs := directions(a)
		if len(x.Shape) != 3 || len(w.Shape) != 3 || len(r.Shape) != 3 {
			failf("X %v, W %v and R %v want rank 3", x.Shape, w.Shape, r.Shape)
		}
		layout := a.Int("layout", 0) != 0
		xv := floats(x)
		seq, batch, in := x.Shape[0], x.Shape[1], x.Shape[2]
		if layout {
			batch, seq = seq, batch
			xv = floats(transpose(x, []int{1, 0, 2}))
		}
		h := r.Shape[2]
		if w.Shape[0] != dirs || r.Shape[0] != dirs || w.Shape[1] != gates*h || r.Shape[1] != gates*h || w.Shape[2] != in {
			failf("X %v, W %v and R %v do not fit %d directions and %d gates", x.Shape, w.Shape, r.Shape, dirs, gates)
		}
		wv, rv := floats(w), floats(r)
		var bias, peep []float64
		if t := c.opt(3); t != nil {
			if bias = floats(t); len(bias) != dirs*2*gates*h {
				failf("B has shape %v, wants [%d,%d]", t.Shape, dirs, 2*gates*h)
			}
		}
		lens := c.ints(4, nil)
		if lens != nil && len(lens) != batch {
			failf("%d sequence lengths for a batch of %d", len(lens), batch)
		}
		state := func(i int) []float64 {
			t := c.opt(i)
			if t == nil {
				return make([]float64, dirs*batch*h)
			}
			if t.Len() != dirs*batch*h {
				failf("the initial state has shape %v, wants [%d,%d,%d]", t.Shape, dirs, batch, h)
			}
			if layout {
				if len(t.Shape) != 3 {
					failf("the initial state has shape %v, wants rank 3", t.Shape)
				}
				t = transpose(t, []int{1, 0, 2})
			}
			return append([]float64{}, floats(t)...)
		}
		hs := state(5)
		var cs []float64
		if gates == 4 {
			cs = state(6)
			if t := c.opt(7); t != nil {
				if peep = floats(t); len(peep) != dirs*3*h {
					failf("P has shape %v, wants [%d,%d]", t.Shape, dirs, 3*h)
				}
			}
		}
		acts := gateFunctions(a, dirs, defaults)
		clip := math.Inf(1)
		if v, ok := a["clip"].(float64); ok && v > 0 {
			clip = v
		}
		cellClip := math.Inf(1)
		if v, ok := a["cell_clip"].(float64); ok && v > 0 {
			cellClip = v
		}
		out := c.alloc(model.Shape{seq, dirs, batch, h})
		for dir := range dirs {
			cell := &cell{h: h, in: in, gates: gates, clip: clip, cellClip: cellClip, f: acts[dir*len(defaults) : (dir+1)*len(defaults)],
				w: wv[dir*gates*h*in : (dir+1)*gates*h*in], r: rv[dir*gates*h*h : (dir+1)*gates*h*h],
				linear: a.Int("linear_before_reset", 0) != 0, coupled: a.Int("input_forget", 0) != 0}
			cell.wb, cell.rb = make([]float64, gates*h), make([]float64, gates*h)
			if bias != nil {
				cell.wb, cell.rb = bias[dir*2*gates*h:(dir*2+1)*gates*h], bias[(dir*2+1)*gates*h:(dir*2+2)*gates*h]
			}
			if peep != nil {
				cell.p = peep[dir*3*h : (dir+1)*3*h]
			}
			reverse := dir == 1 || a.String("direction", "forward") == "reverse"
			for n := range batch {
				if err := c.ctx.Err(); err != nil {
					failf("%w", err)
				}
				length := seq
				if lens != nil {
					if length = lens[n]; length < 0 || length > seq {
						failf("sequence length %d is outside [0, %d]", length, seq)
					}
				}
				hv := hs[(dir*batch+n)*h : (dir*batch+n+1)*h]
				var cv []float64
				if cs != nil {
					cv = cs[(dir*batch+n)*h : (dir*batch+n+1)*h]
				}
				for s := range length {
					t := s
					if reverse {
						t = length - 1 - s
					}
					cell.step(xv[(t*batch+n)*in:(t*batch+n+1)*in], hv, cv)
					copy(out[((t*dirs+dir)*batch+n)*h:], hv)
				}
			}
		}
		d := x.DType
		put := func(i int, shape model.Shape, v []float64, perm []int) {
			t := fromFloats(d, shape, v)
			if layout {
				t = transpose(t, perm)
			}
			c.put(i, t)
		}
		put(0, model.Shape{seq, dirs, batch, h}, out, []int{2, 0, 1, 3})
		put(1, model.Shape{dirs, batch, h}, hs, []int{1, 0, 2})
		if cs != nil {
			put(2, model.Shape{dirs, batch, h}, cs, []int{1, 0, 2})
		}
	}
}

func gateFunctions(a model.Attrs, dirs int, defaults []string) []func(float64) float64 {
	names, _ := a["activations"].([]string)
	if names == nil {
		for range dirs {
			names = append(names, defaults...)
		}
	}
	if len(names) != dirs*len(defaults) {
		failf("%d activations, want %d", len(names), dirs*len(defaults))
	}
	alpha, beta := a.Floats("activation_alpha"), a.Floats("activation_beta")
	out := make([]func(float64) float64, len(names))
	take := func(list *[]float64, uses bool) (float64, bool) {
		if !uses || len(*list) == 0 {
			return 0, false
		}
		v := (*list)[0]
		*list = (*list)[1:]
		return v, true
	}
	for i, name := range names {
		av, ha := take(&alpha, takesAlpha(name))
		bv, hb := take(&beta, takesBeta(name))
		out[i] = activation(name, av, bv, ha, hb)
	}
	return out
}

// cell is one direction of a recurrent layer.
type cell struct {
	h, in, gates    int
	w, r, wb, rb, p []float64
	clip, cellClip  float64
	f               []func(float64) float64
	linear, coupled bool
}

func (c *cell) lim(x float64) float64 { return max(-c.clip, min(c.clip, x)) }

// step advances hidden (and cell) state by one input.
func (c *cell) step(x, hv, cv []float64) {
	h := c.h
	xs, hs := make([]float64, c.gates*h), make([]float64, c.gates*h)
	for i := range xs {
		xs[i] = dot(c.w[i*c.in:(i+1)*c.in], x) + c.wb[i]
		hs[i] = dot(c.r[i*h:(i+1)*h], hv) + c.rb[i]
	}
	switch c.gates {
	case 1:
		for i := range h {
			hv[i] = c.f[0](c.lim(xs[i] + hs[i]))
		}
	case 3: // update z, reset r, hidden
		next := make([]float64, h)
		reset := make([]float64, h)
		for i := range h {
			reset[i] = c.f[0](c.lim(xs[h+i] + hs[h+i]))
		}
		rh := make([]float64, h)
		for i := range rh {
			rh[i] = reset[i] * hv[i]
		}
		for i := range h {
			z := c.f[0](c.lim(xs[i] + hs[i]))
			k := 2*h + i
			var g float64
			if c.linear {
				g = c.f[1](c.lim(xs[k] + reset[i]*hs[k]))
			} else {
				g = c.f[1](c.lim(xs[k] + dot(c.r[k*h:(k+1)*h], rh) + c.rb[k]))
			}
			next[i] = (1-z)*g + z*hv[i]
		}
		copy(hv, next)
	case 4: // input, output, forget, cell
		for i := range h {
			in, out, forget, cand := xs[i]+hs[i], xs[h+i]+hs[h+i], xs[2*h+i]+hs[2*h+i], xs[3*h+i]+hs[3*h+i]
			if c.p != nil {
				in += c.p[i] * cv[i]
				forget += c.p[2*h+i] * cv[i]
			}
			ig := c.f[0](c.lim(in))
			fg := 1 - ig
			if !c.coupled {
				fg = c.f[0](c.lim(forget))
			}
			cv[i] = max(-c.cellClip, min(c.cellClip, fg*cv[i]+ig*c.f[1](c.lim(cand))))
			if c.p != nil {
				out += c.p[h+i] * cv[i]
			}
			hv[i] = c.f[0](c.lim(out)) * c.f[2](cv[i])
		}
	}
}

func init() {
	register("recurrent", [4]int{3, 6, 0, 2}, inferRecurrent, evalRecurrent(1, "Tanh"), "RNN")
	register("recurrent", [4]int{3, 6, 0, 2}, inferRecurrent, evalRecurrent(3, "Sigmoid", "Tanh"), "GRU")
	register("recurrent", [4]int{3, 8, 0, 3}, inferRecurrent, evalRecurrent(4, "Sigmoid", "Tanh", "Tanh"), "LSTM")
	countMACs(func(n *model.Node) int64 {
		x, w, r := n.In(0).Shape, n.In(1).Shape, n.In(2).Shape
		if len(x) != 3 || w.Elems() < 0 || r.Elems() < 0 || x.Elems() < 0 {
			return 0
		}
		return int64(x[0]) * int64(x[1]) * (w.Elems() + r.Elems())
	}, "RNN", "GRU", "LSTM")
}
