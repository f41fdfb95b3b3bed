package coreml

import (
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
)

// Recurrent layers. MIL has one matrix a direction, [gates*H, I], with gates
// in the order input, forget, output, cell (LSTM) or reset, output, update
// (GRU); ONNX has [directions, gates*H, I] with input, output, forget, cell
// and update, reset, output. The weights are reordered where they are stored.
// A bidirectional layer becomes two nodes.

func init() {
	handle(func(c *call) { c.recurrent("LSTM", []int{0, 2, 1, 3}) }, "lstm")
	handle(func(c *call) { c.recurrent("GRU", []int{2, 0, 1}) }, "gru")
	handle(func(c *call) { c.recurrent("RNN", []int{0}) }, "rnn")
}

func (c *call) recurrent(op model.Op, gates []int) {
	x, h0 := c.in("x"), c.in("initial_h")
	var c0 *model.Value
	if op == "LSTM" {
		c0 = c.in("initial_c")
	}
	if rank(x) != 3 || rank(h0) != 2 {
		failf("x of shape %v with an initial state of shape %v", x.Shape, h0.Shape)
	}
	dir := c.str("direction", "forward")
	if dir != "forward" && dir != "reverse" && dir != "bidirectional" || dir == "bidirectional" && op != "LSTM" {
		failf("direction %s", quote(dir))
	}
	both := dir == "bidirectional"
	states := 2
	if op == "LSTM" {
		states = 3
	}
	var outs [3][]*model.Value // Y, h, c of every direction
	for d := range 1 + b2i(both) {
		back := ""
		dirName := dir
		if both {
			dirName = "forward"
			if d == 1 {
				back, dirName = "_back", "reverse"
			}
		}
		w, r := c.in("weight_ih"+back), c.in("weight_hh"+back)
		if rank(w) != 2 || rank(r) != 2 || r.Shape[1] < 1 || r.Shape[0] != len(gates)*r.Shape[1] || w.Shape[0] != r.Shape[0] {
			failf("weights of shape %v and %v", w.Shape, r.Shape)
		}
		h := r.Shape[1]
		ins := []*model.Value{x, c.gateWeights(w, gates, h), c.gateWeights(r, gates, h), nil, nil, nil}
		if b := c.opt("bias" + back); b != nil {
			ins[3] = c.gateBias(b, c.opt("input_bias"), gates, h)
		}
		part := func(s *model.Value) *model.Value {
			if s.Const != nil && !both {
				return c.instead(s, lead(s.Const))
			}
			if both {
				s = c.mid("Slice", nil, s, c.int64s("starts", d*h), c.int64s("ends", (d+1)*h), c.int64s("axes", 1))
			}
			return c.mid("Unsqueeze", nil, s, c.int64s("axes", 0))
		}
		ins[5] = part(h0)
		if op == "LSTM" {
			ins = append(ins, part(c0))
			if p := c.opt("peephole" + back); p != nil {
				ins = append(ins, c.gateWeights(p, []int{0, 2, 1}, h))
			}
		}
		attrs := model.Attrs{"hidden_size": h, "direction": dirName, "layout": 0}
		acts := []string{activation(c.str("recurrent_activation", "sigmoid"))}
		switch op {
		case "LSTM":
			acts = append(acts, activation(c.str("cell_activation", "tanh")))
		case "RNN":
			acts = nil
		case "GRU":
			attrs["linear_before_reset"] = b2i(c.bool("reset_after", false))
		}
		attrs["activations"] = append(acts, activation(c.str("activation", "tanh")))
		if k := c.one("clip"); k != nil && !math.IsInf(numberAt(k, 0), 0) {
			if op != "LSTM" || !(numberAt(k, 0) > 0) {
				failf("clip %v (only the cell state of an LSTM is clipped, by a positive number)", numberAt(k, 0))
			}
			attrs["cell_clip"] = numberAt(k, 0)
		}
		for len(ins) > 3 && ins[len(ins)-1] == nil {
			ins = ins[:len(ins)-1]
		}
		res := slices.Clone(c.mids1(op, attrs, states, ins...))
		res[0] = c.mid("Squeeze", nil, res[0], c.int64s("axes", 1))
		for i := 1; i < states; i++ {
			res[i] = c.mid("Squeeze", nil, res[i], c.int64s("axes", 0))
		}
		for i, v := range res {
			outs[i] = append(outs[i], v)
		}
	}
	join := func(vs []*model.Value) *model.Value {
		if len(vs) == 1 {
			return vs[0]
		}
		return c.mid("Concat", model.Attrs{"axis": len(vs[0].Shape) - 1}, vs...)
	}
	hidden := join(outs[1])
	y := hidden
	if c.bool("output_sequence", false) {
		y = join(outs[0])
		if dir == "reverse" {
			// MIL lists the steps as they are computed, ONNX by time.
			y = c.mid("Slice", nil, y, c.int64s("starts", -1), c.int64s("ends", math.MinInt64), c.int64s("axes", 0), c.int64s("steps", -1))
		}
	} else {
		y = c.mid("Unsqueeze", nil, hidden, c.int64s("axes", 0))
	}
	all := []*model.Value{y, hidden}
	if op == "LSTM" {
		all = append(all, join(outs[2]))
	}
	for i, v := range all {
		if i >= len(c.op.outputs) {
			break
		}
		delete(c.im.used, v.Name)
		v.Name = c.im.fresh(c.op.outputs[i].name)
		c.set(i, v)
	}
}

func activation(s string) string {
	a, ok := map[string]string{"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "sigmoid_hard": "HardSigmoid", "softsign": "Softsign",
		"softplus": "Softplus"}[s]
	if !ok {
		failf("activation %s (want sigmoid, tanh, relu, sigmoid_hard, softsign or softplus)", quote(s))
	}
	return a
}

// gateWeights reorders the gates of a constant matrix or vector and puts a
// direction axis in front.
func (c *call) gateWeights(w *model.Value, gates []int, h int) *model.Value {
	if w.Const == nil {
		failf("weights that are not constant")
	}
	if w.Shape[0] != len(gates)*h {
		failf("a weight of shape %v for %d gates of %d", w.Shape, len(gates), h)
	}
	k := gateRows(w.Const, gates, h)
	return c.instead(w, lead(k))
}

// gateBias builds ONNX's [1, 2*gates*H] bias. MIL's single bias is the sum of
// the two.
func (c *call) gateBias(b, inputBias *model.Value, gates []int, h int) *model.Value {
	if b.Const == nil || inputBias != nil && inputBias.Const == nil {
		failf("a bias that is not constant")
	}
	n := len(gates) * h
	side := func(v *model.Value) *model.Const {
		if v.Const.Elems() != int64(n) {
			failf("a bias of shape %v for %d gates of %d", v.Shape, len(gates), h)
		}
		return gateRows(v.Const, gates, h)
	}
	hid := side(b)
	var inp *model.Const
	if inputBias != nil {
		inp = side(inputBias)
	}
	return c.instead(b, model.NewLazy(b.DType, model.Shape{1, 2 * n}, func() (*model.Tensor, error) {
		out := model.NewTensor(b.DType, 1, 2*n)
		v, err := hid.Value()
		if err != nil {
			return nil, err
		}
		if inp == nil { // the whole sum stands on the input's side
			copy(out.Data, v.Data)
			return out, nil
		}
		i, err := inp.Value()
		if err != nil {
			return nil, err
		}
		copy(out.Data, i.Data)
		copy(out.Data[len(i.Data):], v.Data)
		return out, nil
	}))
}

// gateRows reorders blocks of h rows: block i of the result is block order[i].
func gateRows(k *model.Const, order []int, h int) *model.Const {
	if slices.IsSorted(order) {
		return k
	}
	rows := len(order) * h
	// Parts that have one row per group of rows move as whole groups.
	part := func(p *model.Const) *model.Const {
		if p == nil || len(p.Shape) == 0 || p.Shape[0] == 1 {
			return p
		}
		n := p.Shape[0]
		if rows%n != 0 || h%(rows/n) != 0 {
			return nil
		}
		return gateRows(p, order, h/(rows/n))
	}
	dense := func() *model.Const {
		return &model.Const{DType: k.DType, Shape: k.Shape, Storage: &derived{of: k, f: func(t *model.Tensor) *model.Tensor {
			return reorderRows(t, order)
		}}}
	}
	switch s := k.Storage.(type) {
	case *model.Affine:
		codes, scale, zero := gateRows(s.Codes, order, h), part(s.Scale), part(s.Zero)
		if scale != nil && (zero != nil || s.Zero == nil) {
			return &model.Const{DType: k.DType, Shape: k.Shape, Storage: &model.Affine{Codes: codes, Scale: scale, Zero: zero}}
		}
	case *model.Lookup:
		vec := s.Vector()
		if vec == 1 || s.VectorAxis != 0 {
			if table := part(s.Table); table != nil {
				return &model.Const{DType: k.DType, Shape: k.Shape, Storage: &model.Lookup{Indices: gateRows(s.Indices, order, h), Table: table, VectorAxis: s.VectorAxis}}
			}
		}
	case *model.Sparse:
		mask := gateRows(s.Mask, order, h)
		values := model.NewLazy(s.Values.DType, s.Values.Shape, func() (*model.Tensor, error) {
			t, err := k.Value()
			if err != nil {
				return nil, err
			}
			m, err := mask.Value()
			if err != nil {
				return nil, err
			}
			return kept(reorderRows(t, order), m, s.Values), nil
		})
		return &model.Const{DType: k.DType, Shape: k.Shape, Storage: &model.Sparse{Mask: mask, Values: values}}
	}
	return dense()
}

// reorderRows permutes equal parts of the outermost axis.
func reorderRows(t *model.Tensor, order []int) *model.Tensor {
	out := model.NewTensor(t.DType, t.Shape...)
	n := t.Len() / len(order)
	for i, o := range order {
		if t.DType.Bits() >= 8 {
			w := n * t.DType.Bits() / 8
			copy(out.Data[i*w:(i+1)*w], t.Data[o*w:])
			continue
		}
		for j := range n {
			out.SetInt(i*n+j, t.IntAt(o*n+j))
		}
	}
	return out
}

// lead puts an axis of one in front of a constant, whatever its storage.
func lead(k *model.Const) *model.Const {
	front := func(p *model.Const, always bool) *model.Const {
		if p == nil || !always && len(p.Shape) == 0 {
			return p
		}
		return lead(p)
	}
	out := &model.Const{DType: k.DType, Shape: append(model.Shape{1}, k.Shape...), Storage: k.Storage}
	switch s := k.Storage.(type) {
	case *model.Affine:
		out.Storage = &model.Affine{Codes: lead(s.Codes), Scale: front(s.Scale, false), Zero: front(s.Zero, false)}
	case *model.Lookup:
		out.Storage = &model.Lookup{Indices: lead(s.Indices), Table: front(s.Table, true), VectorAxis: s.VectorAxis + 1}
	case *model.Sparse:
		out.Storage = &model.Sparse{Mask: lead(s.Mask), Values: s.Values}
	}
	return out
}
