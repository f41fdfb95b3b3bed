package model

import (
	"slices"
	"strings"
	"testing"
)

// net builds small graphs by hand, shapes included.
type net struct {
	g *Graph
	n int
}

func newNet(name string, shape ...int) (*net, *Value) {
	x := &Value{Name: "x", DType: Float16, Shape: shape}
	return &net{g: &Graph{Name: name, Inputs: []*Value{x}}}, x
}

func (b *net) weight(shape ...int) *Value {
	b.n++
	c := NewLazy(Float16, shape, func() (*Tensor, error) { return NewTensor(Float16, shape...), nil })
	return &Value{Name: "w", DType: Float16, Shape: shape, Const: c}
}

func (b *net) op(op Op, attrs Attrs, d DType, shape Shape, in ...*Value) *Value {
	n := &Node{Name: strings.ToLower(string(op)), Op: op, Attrs: attrs, Inputs: in}
	out := &Value{Name: n.Name + "_out", DType: d, Shape: shape, Producer: n}
	n.Outputs = []*Value{out}
	b.g.Nodes = append(b.g.Nodes, n)
	return out
}

func (b *net) conv(x *Value, out, k, group int) *Value {
	s := x.Shape.Clone()
	w := b.weight(out, s[1]/group, k, k)
	s[1] = out
	return b.op("Conv", Attrs{"group": group, "strides": []int{1, 1}}, Float16, s, x, w, b.weight(out))
}

func (b *net) quant(x *Value) *Value {
	return b.op("QuantizeLinear", nil, Int8, x.Shape, x, b.weight(), &Value{Name: "zp", DType: Int8, Const: NewConst(Of([]int8{0}, 1))})
}

func (b *net) dequant(x *Value) *Value {
	return b.op("DequantizeLinear", nil, Float16, x.Shape, x, b.weight())
}

func (b *net) lower(t *testing.T, out ...*Value) *Network {
	t.Helper()
	b.g.Outputs = out
	n, err := Lower(b.g)
	if err != nil {
		t.Fatal(err)
	}
	checkNetwork(t, n)
	return n
}

// checkNetwork asserts what must hold of every lowered graph: each node is in
// exactly one layer (dequantize nodes: at least one), edges connect layers in
// order, and every layer that does work states it.
func checkNetwork(t *testing.T, n *Network) {
	t.Helper()
	seen := map[*Node]int{}
	for i, l := range n.Layers {
		if l.Index != i || l.Name == "" {
			t.Errorf("layer %d has index %d, name %q", i, l.Index, l.Name)
		}
		for _, x := range l.Nodes {
			seen[x]++
		}
		for _, e := range l.Inputs {
			if p := n.Edges[e].Producer; p >= i {
				t.Errorf("layer %d (%s) reads an edge of layer %d", i, l.Name, p)
			}
			if !slices.Contains(n.Edges[e].Consumers, i) {
				t.Errorf("edge %d does not list consumer %d", e, i)
			}
		}
		for _, e := range l.Outputs {
			if n.Edges[e].Producer != i {
				t.Errorf("edge %d does not point back to layer %d", e, i)
			}
		}
		if l.MACs == 0 && l.VectorOps == 0 && l.Kind != KindView {
			t.Errorf("layer %s (%s) does no work", l.Name, l.Op)
		}
	}
	for _, x := range n.Graph.Nodes {
		if c := seen[x]; c != 1 && !(x.Op == "DequantizeLinear" && c > 1) {
			t.Errorf("node %s (%s) is in %d layers", x.Name, x.Op, c)
		}
	}
}

func ops(l *Layer) string { return string(l.Op) + "+" + strings.Join(l.Fused, "+") }

func TestLowerResidualBlock(t *testing.T) {
	b, x := newNet("residual", 1, 64, 56, 56)
	y := b.op("Relu", nil, Float16, x.Shape, b.conv(x, 64, 3, 1))
	z := b.op("Relu", nil, Float16, x.Shape, b.op("Add", nil, Float16, x.Shape, b.conv(y, 64, 1, 1), x))
	n := b.lower(t, z)
	if len(n.Layers) != 2 || ops(n.Layers[0]) != "Conv+Relu" || ops(n.Layers[1]) != "Conv+Add+Relu" {
		t.Fatalf("layers: %v", n.Layers)
	}
	l := n.Layers[0]
	if want := int64(56 * 56 * 64 * 64 * 9); l.MACs != want {
		t.Errorf("MACs = %d, want %d", l.MACs, want)
	}
	if l.M != 3136 || l.K != 576 || l.N != 64 || l.Repeat != 1 || l.KH != 3 {
		t.Errorf("GEMM view %d %d %d %d", l.M, l.K, l.N, l.Repeat)
	}
	r := n.Layers[1]
	if r.ResidualElems != x.Shape.Elems() || r.InElems != 2*x.Shape.Elems() || len(r.Inputs) != 2 {
		t.Errorf("residual layer reads %d, of it %d residual", r.InElems, r.ResidualElems)
	}
	if got := l.WeightElems; got != 64*64*9+64 {
		t.Errorf("weights = %d", got)
	}
}

// A downsampling block adds two convolutions: the add belongs to the later.
func TestLowerAddsToTheLaterProducer(t *testing.T) {
	b, x := newNet("down", 1, 32, 8, 8)
	p, q := b.conv(x, 32, 1, 1), b.conv(x, 32, 3, 1)
	n := b.lower(t, b.op("Add", nil, Float16, p.Shape, q, p))
	if len(n.Layers) != 2 || len(n.Layers[0].Fused) != 0 || ops(n.Layers[1]) != "Conv+Add" || n.Layers[1].KH != 3 {
		t.Fatalf("got %s, %s", ops(n.Layers[0]), ops(n.Layers[1]))
	}
}

// A value that is read twice or leaves the graph is not swallowed.
func TestLowerKeepsSharedValues(t *testing.T) {
	b, x := newNet("shared", 1, 32, 8, 8)
	c := b.conv(x, 32, 1, 1)
	r := b.op("Relu", nil, Float16, c.Shape, c)
	n := b.lower(t, r, c)
	if len(n.Layers) != 2 {
		t.Fatalf("%d layers, want 2", len(n.Layers))
	}
}

func TestLowerQuantizedChain(t *testing.T) {
	b, x := newNet("w8a8", 1, 32, 8, 8)
	q := b.quant(x)
	c1 := b.op("Relu", nil, Float16, x.Shape, b.conv(b.dequant(q), 32, 3, 1))
	q1 := b.quant(c1)
	d1 := b.dequant(q1)
	c2 := b.conv(d1, 32, 1, 32)
	s := b.op("Softmax", Attrs{"axis": 1}, Float16, x.Shape, c2)
	n := b.lower(t, s)
	var got []string
	for _, l := range n.Layers {
		got = append(got, l.Kind.String())
	}
	if want := []string{"quantize", "conv", "depthwise", "softmax"}; !slices.Equal(got, want) {
		t.Fatalf("layers %v, want %v", got, want)
	}
	conv := n.Layers[1]
	if !conv.QuantIn || !conv.QuantOut || conv.QuantWeight || conv.Int8(conv.Kind) {
		t.Errorf("fp16 weights must not make an int8 layer: %+v", conv.Facts)
	}
	if !n.Edges[conv.Outputs[0]].Quantized || conv.QuantOutElems != conv.OutElems {
		t.Error("the tensor behind a fused quantize is carried as codes")
	}
	if dw := n.Layers[2]; !dw.QuantIn || dw.QuantOut || dw.Groups != 32 || dw.MACs != 32*64 {
		t.Errorf("depthwise facts %+v", dw.Facts)
	}
}

// int8 x int8 is used only between quantized tensors (invariant 9).
func TestInt8NeedsBothOperands(t *testing.T) {
	for _, quantIn := range []bool{false, true} {
		for _, quantWeight := range []bool{false, true} {
			f := Facts{QuantIn: quantIn, QuantWeight: quantWeight}
			for k := Kind(0); k < numKinds; k++ {
				if f.Int8(k) && !quantIn {
					t.Errorf("%s runs as int8 with a float operand", k)
				}
			}
			if got := f.Int8(KindConv); got != (quantIn && quantWeight) {
				t.Errorf("conv int8 = %v with quantized input %v, weight %v", got, quantIn, quantWeight)
			}
		}
	}
}

func TestLowerAffineWeightFacts(t *testing.T) {
	codes := &Const{DType: Int8, Shape: Shape{64, 32}, Storage: Dense{NewTensor(Int8, 64, 32)}}
	for _, c := range []struct {
		scale Shape
		gran  Granularity
		block int
	}{{Shape{1, 1}, PerTensor, 0}, {Shape{64, 1}, PerChannel, 0}, {Shape{64, 4}, PerBlock, 8}} {
		var f Facts
		describe(&f, &Const{DType: Float16, Shape: Shape{64, 32}, Storage: &Affine{Codes: codes,
			Scale: &Const{DType: Float16, Shape: c.scale, Storage: Dense{NewTensor(Float16, c.scale...)}}}})
		if f.WeightForm != FormAffine || f.WeightBits != 8 || f.WeightGran != c.gran || f.WeightBlock != c.block {
			t.Errorf("scale %v: form %s bits %d gran %s block %d", c.scale, f.WeightForm, f.WeightBits, f.WeightGran, f.WeightBlock)
		}
		if f.QuantWeight != (c.gran != PerBlock) {
			t.Errorf("scale %v: QuantWeight = %v", c.scale, f.QuantWeight)
		}
	}
}

func TestLowerGatherReadsRows(t *testing.T) {
	b, _ := newNet("embed", 1, 4)
	b.g.Inputs[0].DType = Int32
	n := b.lower(t, b.op("Gather", Attrs{"axis": 0}, Float16, Shape{1, 4, 64}, b.weight(1000, 64), b.g.Inputs[0]))
	l := n.Layers[0]
	if l.WeightBytes != 128000 || l.WeightReadBytes != 4*64*2+1 {
		t.Errorf("table %d bytes, read %d", l.WeightBytes, l.WeightReadBytes)
	}
}

func TestLowerRefusesUnknownInputShape(t *testing.T) {
	b, _ := newNet("dyn", -1, 3)
	_, err := Lower(b.g)
	if err == nil || !strings.Contains(err.Error(), `input "x"`) || !strings.Contains(err.Error(), "--shape") {
		t.Errorf("error %v", err)
	}
}

func TestSortReportsCycle(t *testing.T) {
	b, x := newNet("cycle", 1, 2)
	p := b.op("Relu", nil, Float16, x.Shape, x)
	q := b.op("Relu", nil, Float16, x.Shape, p)
	p.Producer.Inputs[0] = q
	if err := b.g.Sort(); err == nil || !strings.Contains(err.Error(), "cycle") {
		t.Errorf("error %v", err)
	}
}

// Types without a scalar value are a programmer's mistake, not a loop.
func TestSetRefusesTypesWithoutScalar(t *testing.T) {
	for _, d := range []DType{Float8E4M3FN, Complex64, Invalid} {
		x := &Tensor{DType: d, Shape: Shape{1}, Data: make([]byte, 8)}
		for _, f := range []func(){func() { x.Set(0, 1) }, func() { x.SetInt(0, 1) }} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: no panic", d)
					}
				}()
				f()
			}()
		}
	}
}

// An 8-bit input that is dequantized wherever it is read is carried as codes:
// the first layer is then int8 x int8. One that is read as integers is not.
func TestQuantizedInput(t *testing.T) {
	b, x := newNet("codes", 1, 4, 6, 6)
	x.DType = UInt8
	flat := b.op("Transpose", Attrs{"perm": []int{0, 1, 3, 2}}, UInt8, Shape{1, 4, 6, 6}, x)
	n := b.lower(t, b.quant(b.conv(b.dequant(flat), 8, 1, 1)))
	if !n.Edges[0].Quantized || n.Edges[0].Integer {
		t.Errorf("the input is no quantized edge: %+v", n.Edges[0])
	}
	conv := n.Layers[1]
	if !conv.QuantIn || conv.QuantInElems != 144 || !slices.Equal(conv.Fused, []string{"DequantizeLinear", "QuantizeLinear"}) {
		t.Errorf("the convolution reads %d codes, fused %v", conv.QuantInElems, conv.Fused)
	}
	b, x = newNet("both", 1, 4, 6, 6)
	x.DType = UInt8
	n = b.lower(t, b.conv(b.dequant(x), 8, 1, 1), b.op("Cast", Attrs{"to": "int32"}, Int32, x.Shape, x))
	if n.Edges[0].Quantized || !n.Edges[0].Integer {
		t.Errorf("an input that is read as integers too is an edge of codes: %+v", n.Edges[0])
	}
}

// Suppressing boxes costs by the pairs that are compared: a layer of its own,
// of no kind that an accelerator runs.
func TestBoxSuppressionCost(t *testing.T) {
	ops := func(most int) int64 {
		b, x := newNet("boxes", 2, 100, 4)
		scores := b.op("Mul", nil, Float16, Shape{2, 100, 4}, x, x)
		y := b.op("BoxSuppression", Attrs{"max_boxes": most}, Float16, Shape{2, most, 4}, x, scores)
		l := b.lower(t, y).Layers[1]
		if l.Kind != KindOther {
			t.Errorf("kind %v", l.Kind)
		}
		return l.VectorOps
	}
	if ops(10) != 800+10*200*10 || ops(1000)-max(800, 8000) != 10*200*100 {
		t.Errorf("%d and %d operations", ops(10), ops(1000))
	}
}
