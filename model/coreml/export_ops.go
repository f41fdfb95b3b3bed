package coreml

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/triune-sim/triune/model"
)

// emitter writes the MIL of one node.
type emitter struct {
	x *exporter
	n *model.Node
}

// writers translate operators.
var writers = map[model.Op]func(*emitter){}

func writes(f func(*emitter), names ...model.Op) {
	for _, n := range names {
		if writers[n] != nil {
			panic("coreml: operator registered twice: " + string(n))
		}
		writers[n] = f
	}
}

// Writable reports whether [Save] can express an operator.
func Writable(op model.Op) bool { return writers[op] != nil }

func (x *exporter) node(n *model.Node) {
	w := writers[n.Op]
	if w == nil {
		failf("node %q: operator %s has no counterpart in an ML program that Triune writes", n.Name, n.Op)
	}
	func() {
		defer func() {
			if r := recover(); r != nil {
				if e, ok := r.(importError); ok {
					panic(importError{fmt.Errorf("node %q (%s): %w", n.Name, n.Op, e.err)})
				}
				panic(r)
			}
		}()
		w(&emitter{x, n})
	}()
	for i, v := range n.Outputs {
		if v == nil {
			continue
		}
		if !x.written[v] {
			if len(x.consumers[v]) > 0 || x.outputs[v] {
				failf("node %q (%s): output %d is not written", n.Name, n.Op, i)
			}
		}
	}
}

// fold marks nodes that another operation takes in.
func (x *exporter) fold() {
	for _, n := range x.g.Nodes {
		switch n.Op {
		case "MatMul":
			// x W + b with a constant matrix is linear.
			if w := n.In(1); w != nil && w.Const != nil && len(w.Shape) == 2 && n.In(0).Const == nil && w.DType.IsFloat() {
				if a := x.only(n.Out(0), "Add"); a != nil && !x.skip[a] {
					b := a.In(1)
					if b == n.Out(0) {
						b = a.In(0)
					}
					if b != nil && b.Const != nil && len(b.Shape) == 1 && b.Shape[0] == w.Shape[1] && plainStorage(b.Const) && b.DType == w.DType {
						x.bias[n] = a
						x.skip[a] = true
					}
				}
				continue
			}
			for _, v := range []*model.Value{n.In(0), n.In(1)} {
				t := v.Producer
				if t == nil || t.Op != "Transpose" || x.skip[t] || x.only(v, "MatMul") == nil || n.In(0) == n.In(1) || !swapsLast(t) {
					continue
				}
				x.skip[t] = true
				x.transposed[v] = t.In(0)
			}
		case "LSTM", "GRU", "RNN":
			x.foldRecurrent(n)
		}
	}
	// The identity that names the probabilities of a classifier or the new
	// value of a state is the reader's.
	special := map[string]bool{}
	if x.g.Meta[MetaClasses] != "" {
		special[x.g.Meta[MetaProbabilities]] = true
	}
	for k, v := range x.g.Meta {
		if strings.HasPrefix(k, MetaState) {
			special[v] = true
		}
	}
	for _, v := range x.g.Outputs {
		if p := v.Producer; special[v.Name] && p != nil && p.Op == "Identity" && len(x.consumers[v]) == 0 {
			x.skip[p] = true
		}
	}
}

// foldRecurrent takes in the reshapes between MIL's states [batch, H] and ONNX's
// [directions, batch, H].
func (x *exporter) foldRecurrent(n *model.Node) {
	axes := func(m *model.Node, want int) bool {
		if m == nil || x.skip[m] || m.In(1) == nil || m.In(1).Const == nil {
			return false
		}
		t, err := m.In(1).Const.Value()
		return err == nil && t.Len() == 1 && t.IntAt(0) == int64(want)
	}
	for i := 5; i <= 6; i++ {
		if v := n.In(i); v != nil && v.Producer != nil && v.Producer.Op == "Unsqueeze" && x.only(v, n.Op) != nil && axes(v.Producer, 0) {
			x.skip[v.Producer] = true
			x.direct[v] = v.Producer.In(0)
		}
	}
	for i, v := range n.Outputs {
		if v == nil {
			continue
		}
		sq := x.only(v, "Squeeze")
		if !axes(sq, b2i(i == 0)) {
			continue
		}
		out := sq.Out(0)
		if i == 0 && n.Attrs.String("direction", "") == "reverse" {
			// The steps come in the order they are computed; who wants that
			// order has reversed them.
			rev := x.only(out, "Slice")
			if rev == nil || !reversesFirst(rev) {
				continue
			}
			x.skip[rev] = true
			out = rev.Out(0)
		}
		x.skip[sq] = true
		x.direct[v] = out
	}
}

// reversesFirst reports whether a Slice reverses axis 0 and nothing else.
func reversesFirst(n *model.Node) bool {
	for i, want := range []int64{-1, math.MinInt64, 0, -1} {
		v := n.In(1 + i)
		if v == nil || v.Const == nil {
			return false
		}
		t, err := v.Const.Value()
		if err != nil || t.Len() != 1 || t.IntAt(0) != want {
			return false
		}
	}
	return true
}

func swapsLast(n *model.Node) bool {
	p := n.Attrs.Ints("perm", nil)
	r := len(n.In(0).Shape)
	if len(p) != r || r < 2 {
		return false
	}
	want := seq(0, r)
	want[r-1], want[r-2] = r-2, r-1
	return slices.Equal(p, want)
}

// only returns the single consumer of a value if it has the operator and the
// value is no output.
func (x *exporter) only(v *model.Value, op model.Op) *model.Node {
	c := x.consumers[v]
	if len(c) == 1 && c[0].Op == op && !x.outputs[v] {
		return c[0]
	}
	return nil
}

// in returns the name of input i.
func (e *emitter) in(i int) ref {
	v := e.n.In(i)
	if v == nil {
		failf("input %d is missing", i)
	}
	return e.x.ref(v)
}

func (e *emitter) has(i int) bool { return e.n.In(i) != nil }

func (e *emitter) dtype(i int) model.DType { return e.n.In(i).DType }

func (e *emitter) shape(i int) model.Shape { return e.n.In(i).Shape }

// static returns the value of a constant input, nil if it is absent.
func (e *emitter) static(i int) *model.Tensor {
	v := e.n.In(i)
	if v == nil {
		return nil
	}
	if v.Const == nil {
		failf("input %d depends on data; a constant is wanted", i)
	}
	t, err := v.Const.Value()
	try(err)
	return t
}

func (e *emitter) ints(i int) []int {
	t := e.static(i)
	if t == nil {
		return nil
	}
	return toInts(fmt.Sprint(i), t)
}

// outs are the declared outputs of the node, the first n.
func (e *emitter) outs(n int) []named {
	var out []named
	for i := range n {
		v := e.n.Out(i)
		if v == nil { // nobody wants it, but the operation has it
			out = append(out, named{e.x.fresh(e.base() + "_unused"), tensorType(e.dtype(0), model.Shape{})})
			continue
		}
		out = append(out, named{e.x.name(v), e.x.typeOf(v)})
	}
	return out
}

func (e *emitter) base() string {
	for _, v := range e.n.Outputs {
		if v != nil {
			return e.x.name(v)
		}
	}
	return ident(e.n.Name)
}

// title is the name of the node's operation, which no other has.
func (e *emitter) title() string {
	name := ident(e.n.Name)
	if e.n.Name == "" {
		name = e.base()
	}
	if e.x.titles[name] {
		name = e.base() + "_op"
	}
	e.x.titles[name] = true
	return name
}

// op writes the operation that gives the node's first output.
func (e *emitter) op(typ string, params ...param) { e.opN(typ, 1, params...) }

func (e *emitter) opN(typ string, n int, params ...param) {
	e.x.add(typ, e.title(), e.outs(n), params...)
	for i := range n {
		if v := e.n.Out(i); v != nil {
			e.x.written[v] = true
		}
	}
}

// mid writes an intermediate operation.
func (e *emitter) mid(typ string, d model.DType, s model.Shape, params ...param) ref {
	name := e.x.fresh(e.base() + "_" + typ)
	e.x.add(typ, name, []named{{name, tensorType(milDTypeOf(d), s)}}, params...)
	return ref(name)
}

// same makes the node's first output another name for a value.
func (e *emitter) same(r ref) {
	v := e.n.Out(0)
	if e.x.outputs[v] {
		e.op("identity", param{"x", r})
		return
	}
	e.x.names[v] = string(r)
	e.x.written[v] = true
}

// num is a floating-point parameter in the type of input 0.
func (e *emitter) num(v float64) number {
	d := e.dtype(0)
	if !d.IsFloat() {
		d = model.Float32
	}
	return number{v, d}
}

// free is a parameter that iOS17 freed from the type of x: it is written as
// coremltools does, fp16 for iOS16's fp16 programs and fp32 later.
func (e *emitter) free(v float64) number {
	if e.x.target >= IOS17 {
		return number{v, model.Float32}
	}
	return e.num(v)
}

func init() {
	writes(func(e *emitter) {
		if s := e.n.In(0); e.x.states[s] {
			e.op("read_state", param{"input", ref(e.x.names[s])})
			return
		}
		e.op("identity", param{"x", e.in(0)})
	}, "Identity")
	for mil, op := range unaryOps {
		if op == "Identity" {
			continue
		}
		writes(func(e *emitter) { e.op(mil, param{"x", e.in(0)}) }, op)
	}
	for mil, op := range binaryOps {
		if op == "Max" || op == "Min" || op == "Add" || op == "Mul" {
			continue
		}
		writes(func(e *emitter) { e.op(mil, param{"x", e.in(0)}, param{"y", e.in(1)}) }, op)
	}
	writes(func(e *emitter) { e.nary("add") }, "Add", "Sum")
	writes(func(e *emitter) { e.nary("mul") }, "Mul")
	writes(func(e *emitter) { e.nary("maximum") }, "Max")
	writes(func(e *emitter) { e.nary("minimum") }, "Min")
	writes(func(e *emitter) { e.op("inverse", param{"x", e.in(0)}, param{"epsilon", e.num(0)}) }, "Reciprocal")
	writes(func(e *emitter) { e.op("log", param{"x", e.in(0)}, param{"epsilon", e.num(0)}) }, "Log")
	writes(func(e *emitter) {
		if e.dtype(0).IsFloat() {
			e.op("mul", param{"x", e.in(0)}, param{"y", e.num(-1)})
			return
		}
		e.op("mul", param{"x", e.in(0)}, param{"y", -1})
	}, "Neg")
	writes(func(e *emitter) {
		if e.n.Attrs.Int("fmod", 0) != 0 {
			failf("C's fmod (Core ML's mod has the sign of the divisor)")
		}
		e.op("mod", param{"x", e.in(0)}, param{"y", e.in(1)})
	}, "Mod")
	writes(func(e *emitter) { e.op("select", param{"cond", e.in(0)}, param{"a", e.in(1)}, param{"b", e.in(2)}) }, "Where")
	writes((*emitter).clip, "Clip")
	writes((*emitter).cast, "Cast")
	writes(func(e *emitter) { e.same(e.in(0)) }, "Dropout")
	writes(func(e *emitter) {
		e.op("leaky_relu", param{"x", e.in(0)}, param{"alpha", e.free(e.n.Attrs.Float("alpha", 0.01))})
	}, "LeakyRelu")
	writes(func(e *emitter) {
		e.op("elu", param{"x", e.in(0)}, param{"alpha", e.free(e.n.Attrs.Float("alpha", 1))})
	}, "Elu")
	writes(func(e *emitter) {
		e.op("sigmoid_hard", param{"x", e.in(0)}, param{"alpha", e.free(e.n.Attrs.Float("alpha", 0.2))}, param{"beta", e.free(e.n.Attrs.Float("beta", 0.5))})
	}, "HardSigmoid")
	writes(func(e *emitter) {
		e.op("scaled_tanh", param{"x", e.in(0)}, param{"alpha", e.free(e.n.Attrs.Float("alpha", 1))}, param{"beta", e.free(e.n.Attrs.Float("beta", 1))})
	}, "ScaledTanh")
	writes(func(e *emitter) {
		// x > a is x >= the number above a.
		a := float64(math.Nextafter32(float32(e.n.Attrs.Float("alpha", 1)), float32(math.Inf(1))))
		e.op("thresholded_relu", param{"x", e.in(0)}, param{"alpha", e.free(a)})
	}, "ThresholdedRelu")
	writes(func(e *emitter) {
		d, s := e.dtype(0), e.shape(0)
		t := e.mid("thresholded_relu", d, s, param{"x", e.in(0)}, param{"alpha", e.free(-3)})
		h := e.mid("sigmoid_hard", d, s, param{"x", t}, param{"alpha", e.free(1. / 6)}, param{"beta", e.free(0.5)})
		e.op("mul", param{"x", t}, param{"y", h})
	}, "HardSwish")
	writes(func(e *emitter) {
		switch a := e.n.Attrs.Float("alpha", 1); a {
		case 1:
			e.op("silu", param{"x", e.in(0)})
		case 1.702:
			e.op("gelu", param{"x", e.in(0)}, param{"mode", "SIGMOID_APPROXIMATION"})
		default:
			d, s := e.dtype(0), e.shape(0)
			m := e.mid("mul", d, s, param{"x", e.in(0)}, param{"y", e.num(a)})
			e.op("mul", param{"x", e.in(0)}, param{"y", e.mid("sigmoid", d, s, param{"x", m})})
		}
	}, "Swish")
	writes(func(e *emitter) {
		mode := "EXACT"
		if e.n.Attrs.String("approximate", "none") == "tanh" {
			mode = "TANH_APPROXIMATION"
		}
		e.op("gelu", param{"x", e.in(0)}, param{"mode", mode})
	}, "Gelu")
	writes(func(e *emitter) {
		d, s := e.dtype(0), e.shape(0)
		t := e.mid("tanh", d, s, param{"x", e.mid("softplus", d, s, param{"x", e.in(0)})})
		e.op("mul", param{"x", e.in(0)}, param{"y", t})
	}, "Mish")
	writes(func(e *emitter) {
		const alpha, gamma = 1.67326319217681884765625, 1.05070102214813232421875
		d, s := e.dtype(0), e.shape(0)
		t := e.mid("elu", d, s, param{"x", e.in(0)}, param{"alpha", e.free(e.n.Attrs.Float("alpha", alpha))})
		e.op("mul", param{"x", t}, param{"y", e.num(e.n.Attrs.Float("gamma", gamma))})
	}, "Selu")
	writes((*emitter).prelu, "PRelu")
	writes(func(e *emitter) { e.op("softmax", param{"x", e.in(0)}, param{"axis", e.n.Attrs.Int("axis", -1)}) }, "Softmax")
	writes(func(e *emitter) {
		d, s := e.dtype(0), e.shape(0)
		a := axis(e.n.Attrs.Int("axis", -1), len(s))
		r := s.Clone()
		r[a] = 1
		// Take the maximum out first: next to a large one the logarithm of
		// the sum has no digits left.
		m := e.mid("reduce_max", d, r, param{"x", e.in(0)}, param{"axes", []int{a}}, param{"keep_dims", true})
		x := e.mid("sub", d, s, param{"x", e.in(0)}, param{"y", m})
		l := e.mid("reduce_log_sum_exp", d, r, param{"x", x}, param{"axes", []int{a}}, param{"keep_dims", true})
		e.op("sub", param{"x", x}, param{"y", l})
	}, "LogSoftmax")
	writes(func(e *emitter) {
		// alpha * elu(x / alpha)
		alpha := e.n.Attrs.Float("alpha", 1)
		d, s := e.dtype(0), e.shape(0)
		y := e.mid("mul", d, s, param{"x", e.in(0)}, param{"y", e.num(1 / alpha)})
		y = e.mid("elu", d, s, param{"x", y}, param{"alpha", e.free(1)})
		e.op("mul", param{"x", y}, param{"y", e.num(alpha)})
	}, "Celu")
	writes(func(e *emitter) {
		n, d, s := len(e.n.Inputs), e.dtype(0), e.n.Out(0).Shape
		acc := e.in(0)
		for i := 1; i < n; i++ {
			acc = e.mid("add", d, s, param{"x", acc}, param{"y", e.in(i)})
		}
		e.op("mul", param{"x", acc}, param{"y", e.num(1 / float64(n))})
	}, "Mean")
	writes((*emitter).cast, "CastLike")
	writes(func(e *emitter) { e.op("not_equal", param{"x", e.in(0)}, param{"y", e.in(0)}) }, "IsNaN")
	writes((*emitter).cond, "If")
	writes((*emitter).quantize, "QuantizeLinear")
	writes((*emitter).dequantize, "DequantizeLinear")
}

// cond writes the two branches as blocks. What a branch defines, constants
// included, is its own.
func (e *emitter) cond() {
	x := e.x
	pred := e.in(0)
	outs := e.outs(len(e.n.Outputs))
	branch := func(key string) *block {
		g := e.n.Blocks[key]
		if g == nil || len(g.Inputs) > 0 || len(g.Outputs) != len(e.n.Outputs) {
			failf("branch %s", key)
		}
		saved, consts, places := x.ops, x.consts, x.places
		x.ops, x.consts, x.places = nil, cloneConsts(consts), maps.Clone(places)
		for v, c := range g.Consumers() {
			x.consumers[v] = append(x.consumers[v], c...)
		}
		b := &block{}
		for _, n := range g.Nodes {
			x.node(n)
		}
		for _, v := range g.Outputs {
			name := string(x.ref(v))
			if v.Producer == nil || slices.Contains(b.outputs, name) {
				// A block gives what it computes itself.
				own := x.fresh(v.Name + "_out")
				x.add("identity", own, []named{{own, x.typeOf(v)}}, param{"x", ref(name)})
				name = own
			}
			b.outputs = append(b.outputs, name)
		}
		b.ops = x.ops
		x.ops, x.consts, x.places = saved, consts, places
		return b
	}
	op := &operation{typ: "cond", title: e.title(), outputs: outs, inputs: []argument{{"pred", []binding{{name: string(pred)}}}}}
	op.blocks = []*block{branch("then_branch"), branch("else_branch")}
	x.ops = append(x.ops, op)
	for _, v := range e.n.Outputs {
		if v != nil {
			x.written[v] = true
		}
	}
}

func cloneConsts(m map[model.Storage]map[string]string) map[model.Storage]map[string]string {
	out := make(map[model.Storage]map[string]string, len(m))
	for k, v := range m {
		out[k] = maps.Clone(v)
	}
	return out
}

// nary folds an operator of two inputs over all of them.
func (e *emitter) nary(typ string) {
	n := len(e.n.Inputs)
	if n == 1 {
		e.op("identity", param{"x", e.in(0)})
		return
	}
	acc, s := e.in(0), e.shape(0)
	for i := 1; i < n-1; i++ {
		s = broadcast(s, e.shape(i))
		acc = e.mid(typ, e.dtype(0), s, param{"x", acc}, param{"y", e.in(i)})
	}
	e.op(typ, param{"x", acc}, param{"y", e.in(n - 1)})
}

func broadcast(a, b model.Shape) model.Shape {
	if len(a) < len(b) {
		a, b = b, a
	}
	out := a.Clone()
	for i, d := range b {
		j := len(a) - len(b) + i
		if out[j] == 1 {
			out[j] = d
		}
	}
	return out
}

func (e *emitter) clip() {
	lo, hi := math.Inf(-1), math.Inf(1)
	if t := e.static(1); t != nil {
		lo = numberAt(t, 0)
	}
	if t := e.static(2); t != nil {
		hi = numberAt(t, 0)
	}
	d := e.dtype(0)
	switch {
	case lo == 0 && math.IsInf(hi, 1):
		e.op("relu", param{"x", e.in(0)})
	case !d.IsFloat():
		s := e.shape(0)
		r := e.mid("maximum", d, s, param{"x", e.in(0)}, param{"y", int(max(lo, math.MinInt32))})
		e.op("minimum", param{"x", r}, param{"y", int(min(hi, math.MaxInt32))})
	case math.IsInf(lo, -1) && math.IsInf(hi, 1):
		e.op("identity", param{"x", e.in(0)})
	case math.IsInf(hi, 1):
		e.op("maximum", param{"x", e.in(0)}, param{"y", e.num(lo)})
	case math.IsInf(lo, -1):
		e.op("minimum", param{"x", e.in(0)}, param{"y", e.num(hi)})
	case lo == 0 && hi == 6:
		e.op("relu6", param{"x", e.in(0)})
	default:
		e.op("clip", param{"x", e.in(0)}, param{"alpha", e.num(lo)}, param{"beta", e.num(hi)})
	}
}

func (e *emitter) cast() {
	from, to := milDTypeOf(e.dtype(0)), milDTypeOf(e.n.Out(0).DType)
	if from == to {
		e.same(e.in(0))
		return
	}
	// int8 and uint8 only exist from iOS17 on, int16 too.
	name := to.String()
	switch to {
	case model.Int32, model.Bool, model.Float16, model.Float32:
	case model.Int8, model.UInt8, model.Int16, model.UInt16:
		e.x.need(IOS17, "a conversion to %s", to)
	default:
		failf("conversion to %s", to)
	}
	e.op("cast", param{"x", e.in(0)}, param{"dtype", name})
}

// prelu wants one slope per channel.
func (e *emitter) prelu() {
	w, s := e.n.In(1), e.shape(0)
	if w.Const != nil && len(s) >= 3 && plainStorage(w.Const) {
		c := s[1]
		// [C,1,1], [1,C,1,1], [C] cannot be told from a slope on the last axis.
		want := len(w.Shape) >= len(s)-1 && w.Const.Elems() == int64(c) && w.Shape[len(w.Shape)-len(s)+1] == c
		if len(w.Shape) == len(s)-1 {
			want = w.Const.Elems() == int64(c) && w.Shape[0] == c
		}
		if want {
			e.op("prelu", param{"x", e.in(0)}, param{"alpha", e.x.constantAs(w, flat(w.Const, model.Shape{c}))})
			return
		}
	}
	// max(x, 0) + slope * min(x, 0)
	d := e.dtype(0)
	pos := e.mid("relu", d, s, param{"x", e.in(0)})
	neg := e.mid("minimum", d, s, param{"x", e.in(0)}, param{"y", e.num(0)})
	e.op("add", param{"x", pos}, param{"y", e.mid("mul", d, s, param{"x", neg}, param{"y", e.in(1)})})
}

func (e *emitter) zeroPoint(q model.DType) any {
	z := e.n.In(2)
	if z == nil {
		return nil
	}
	if z.Const == nil {
		failf("a zero point that depends on data")
	}
	// A zero point that is computed is one of asymmetric codes: it is there.
	if (e.x.values || !isComputed(z.Const)) && dropZero(z.Const) == nil {
		return nil
	}
	return e.ownConst(2, q)
}

// ownConst is a constant operand that the operation does not share with
// others, in type d: a scalar where it has one element.
func (e *emitter) ownConst(i int, d model.DType) *model.Const {
	k := e.n.In(i).Const
	s := k.Shape
	if len(s) == 1 && s[0] == 1 {
		s = model.Shape{}
	}
	return &model.Const{DType: d, Shape: s, Storage: k.Storage}
}

// scaleParams adds the scale, in the type of the floating-point side, and the
// axis of a vector.
func (e *emitter) scaleParams(d model.DType, list []param) []param {
	s := e.n.In(1)
	if s.Const == nil {
		failf("a scale that depends on data")
	}
	own := e.ownConst(1, d)
	list = append(list, param{"scale", own})
	if len(own.Shape) > 0 {
		list = append(list, param{"axis", axis(e.n.Attrs.Int("axis", 1), len(e.shape(0)))})
	}
	return list
}

func (e *emitter) quantize() {
	e.x.need(IOS17, "node %q (QuantizeLinear)", e.n.Name)
	q := e.n.Out(0).DType
	if q != model.Int8 && q != model.UInt8 {
		failf("codes of type %s (Core ML takes int8 and uint8)", q)
	}
	p := e.scaleParams(e.dtype(0), []param{{"input", e.in(0)}, {"output_dtype", q.String()}})
	e.op("quantize", append(p, param{"zero_point", e.zeroPoint(q)})...)
}

func (e *emitter) dequantize() {
	e.x.need(IOS17, "node %q (DequantizeLinear)", e.n.Name)
	q := e.dtype(0)
	if q != model.Int8 && q != model.UInt8 {
		failf("codes of type %s (Core ML takes int8 and uint8)", q)
	}
	p := e.scaleParams(e.n.Out(0).DType, []param{{"input", e.in(0)}})
	e.op("dequantize", append(p, param{"zero_point", e.zeroPoint(q)})...)
}
