package exec_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// maker builds small graphs for tests.
type maker struct {
	t testing.TB
	g *model.Graph
	r *rand.Rand
	n int
}

func newMaker(t testing.TB, seed uint64) *maker {
	return &maker{t: t, g: &model.Graph{Name: "test"}, r: rand.New(rand.NewPCG(seed, 2))}
}

func (m *maker) name(p string) string { m.n++; return fmt.Sprintf("%s%d", p, m.n) }

func (m *maker) input(d model.DType, shape ...int) *model.Value {
	v := &model.Value{Name: m.name("in"), DType: d, Shape: model.Shape(shape)}
	m.g.Inputs = append(m.g.Inputs, v)
	return v
}

// weight makes a random constant with the given standard deviation.
func (m *maker) weight(sd float64, shape ...int) *model.Value {
	t := model.NewTensor(model.Float32, shape...)
	for i := range t.Len() {
		t.Set(i, m.r.NormFloat64()*sd)
	}
	return m.constant(t)
}

func (m *maker) constant(t *model.Tensor) *model.Value {
	return &model.Value{Name: m.name("c"), DType: t.DType, Shape: t.Shape, Const: model.NewConst(t)}
}

func (m *maker) floats(v ...float32) *model.Value { return m.constant(model.Of(v)) }
func (m *maker) scalar(v float32) *model.Value    { return m.constant(model.Scalar(v)) }
func (m *maker) ints(v ...int64) *model.Value     { return m.constant(model.Of(v)) }

// op adds a node and infers its outputs.
func (m *maker) op(op model.Op, attrs model.Attrs, in ...*model.Value) *model.Value {
	return m.ops(op, 1, attrs, in...)[0]
}

func (m *maker) ops(op model.Op, outs int, attrs model.Attrs, in ...*model.Value) []*model.Value {
	m.t.Helper()
	n := &model.Node{Name: m.name(string(op)), Op: op, Inputs: in, Attrs: attrs}
	for range outs {
		n.Outputs = append(n.Outputs, &model.Value{Name: m.name("v"), Producer: n})
	}
	if err := ops.InferNode(n); err != nil {
		m.t.Fatal(err)
	}
	m.g.Nodes = append(m.g.Nodes, n)
	return n.Outputs
}

// done makes the values outputs and returns the graph.
func (m *maker) done(out ...*model.Value) *model.Graph {
	m.g.Outputs = append(m.g.Outputs, out...)
	return m.g
}

// quantized puts a quantize and a dequantize behind v.
func (m *maker) quantized(v *model.Value, scale float32, zero int, signed bool) *model.Value {
	s := m.scalar(scale)
	var z *model.Tensor
	if signed {
		z = model.NewTensor(model.Int8)
	} else {
		z = model.NewTensor(model.UInt8)
	}
	z.SetInt(0, int64(zero))
	zc := m.constant(z)
	return m.op("DequantizeLinear", nil, m.op("QuantizeLinear", nil, v, s, zc), s, zc)
}

// int8Weight makes a symmetric int8 weight with scales along an axis (-1: one
// scale).
func (m *maker) int8Weight(sd float64, axis int, shape ...int) *model.Value {
	codes := model.NewTensor(model.Int8, shape...)
	for i := range codes.Len() {
		codes.SetInt(i, int64(m.r.IntN(256))-128)
	}
	ss := make([]int, len(shape))
	for i := range ss {
		ss[i] = 1
	}
	if axis >= 0 {
		ss[axis] = shape[axis]
	}
	scale := model.NewTensor(model.Float32, ss...)
	for i := range scale.Len() {
		scale.Set(i, sd/70*(0.5+m.r.Float64()))
	}
	c := &model.Const{DType: model.Float32, Shape: shape, Storage: &model.Affine{Codes: model.NewConst(codes), Scale: model.NewConst(scale)}}
	return &model.Value{Name: m.name("w"), DType: model.Float32, Shape: shape, Const: c}
}
