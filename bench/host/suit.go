package host

import (
	"math"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
)

// suitORT rewrites a graph with quantised activations so that ONNX Runtime
// fuses all of it into integer operators. Triune follows coremltools, where an
// activation belongs to the layer before it and a bias is a float; ONNX Runtime
// wants more:
//
//   - a convolution or product becomes QLinearConv or QLinearMatMul only when
//     its own result is quantised, also in front of an activation that is no
//     clamp;
//   - x * sigmoid(x) becomes QLinearSigmoid and QLinearMul when the sigmoid is
//     quantised, too;
//   - a linear layer becomes QGemm only with an int32 bias in the scale of its
//     products, and weights with a zero point.
//
// The results differ from the scheme's by the roundings this adds.
func suitORT(g *model.Graph, ranges quant.Ranges) error {
	s := suiter{ranges: ranges, readers: g.Consumers(), output: map[*model.Value]bool{}}
	for _, v := range g.Outputs {
		s.output[v] = true
	}
	for _, n := range g.Nodes {
		if err := s.node(n); err != nil {
			return err
		}
	}
	g.Nodes = s.nodes
	return nil
}

type suiter struct {
	ranges  quant.Ranges
	readers map[*model.Value][]*model.Node
	output  map[*model.Value]bool
	nodes   []*model.Node
}

func (s *suiter) emit(n *model.Node) {
	for _, v := range n.Outputs {
		v.Producer = n
	}
	s.nodes = append(s.nodes, n)
}

func (s *suiter) node(n *model.Node) error {
	y := n.Out(0)
	switch n.Op {
	case "Gemm":
		if dequantized(n.In(0)) {
			return s.linear(n)
		}
	case "Conv", "ConvTranspose", "MatMul":
		if !dequantized(n.In(0)) || !dequantized(n.In(1)) && n.In(1).Const == nil || s.closed(y) {
			break
		}
		if r, err := s.ranges.Range(y.Name); err == nil { // a pass may have made it
			s.pair(n, r)
			return nil
		}
	case "Swish":
		x := n.In(0)
		if !dequantized(x) || n.Attrs.Float("alpha", 1) != 1 || !s.closed(y) {
			break
		}
		g := &model.Value{Name: y.Name + "_sigmoid", DType: y.DType, Shape: y.Shape.Clone()}
		s.pair(&model.Node{Name: n.Name + "_sigmoid", Op: "Sigmoid", Inputs: []*model.Value{x}, Outputs: []*model.Value{g}}, quant.Range{Min: 0, Max: 1})
		s.emit(&model.Node{Name: n.Name, Op: "Mul", Inputs: []*model.Value{x, g}, Outputs: n.Outputs})
		return nil
	}
	s.emit(n)
	return nil
}

// dequantized reports whether v comes out of a dequantize operator.
func dequantized(v *model.Value) bool {
	return v != nil && v.Producer != nil && v.Producer.Op == "DequantizeLinear"
}

// closed reports whether y is quantised, at once or behind a clamp, and read by
// nothing else.
func (s *suiter) closed(y *model.Value) bool {
	for range 2 {
		if s.output[y] || len(s.readers[y]) != 1 {
			return false
		}
		switch c := s.readers[y][0]; c.Op {
		case "QuantizeLinear":
			return true
		case "Relu", "Clip":
			y = c.Out(0)
		default:
			return false
		}
	}
	return false
}

// pair emits n and quantises and dequantises its result, which keeps its name
// on the far side, where readers look for it.
func (s *suiter) pair(n *model.Node, r quant.Range) {
	y := n.Out(0)
	lo, hi := min(r.Min, 0), max(r.Max, 0)
	step := (hi - lo) / 255
	if step == 0 {
		step = 1
	}
	scale, zero := model.NewTensor(y.DType), model.NewTensor(model.UInt8)
	scale.Set(0, step)
	zero.SetInt(0, int64(math.Round(-lo/step)))
	sv := &model.Value{Name: y.Name + "_own_scale", DType: y.DType, Shape: model.Shape{}, Const: model.NewConst(scale)}
	zv := &model.Value{Name: y.Name + "_own_zero_point", DType: model.UInt8, Shape: model.Shape{}, Const: model.NewConst(zero)}
	raw := &model.Value{Name: y.Name + "_raw", DType: y.DType, Shape: y.Shape.Clone()}
	codes := &model.Value{Name: y.Name + "_own_q", DType: model.UInt8, Shape: y.Shape.Clone()}
	n.Outputs[0] = raw
	s.emit(n)
	s.emit(&model.Node{Name: y.Name + "_own_quantize", Op: "QuantizeLinear", Inputs: []*model.Value{raw, sv, zv}, Outputs: []*model.Value{codes}})
	s.emit(&model.Node{Name: y.Name + "_own_dequantize", Op: "DequantizeLinear", Inputs: []*model.Value{codes, sv, zv}, Outputs: []*model.Value{y}})
}

// linear emits a linear layer of codes with int32 bias and weights with zero
// points, or as it is where it has other operands.
func (s *suiter) linear(n *model.Node) error {
	defer s.emit(n)
	b, w, xs := n.In(2), n.In(1), n.In(0).Producer.In(1).Const
	if n.Attrs.Float("alpha", 1) != 1 || n.Attrs.Float("beta", 1) != 1 || w.Const == nil || xs == nil || b != nil && (b.Const == nil || len(b.Shape) != 1) {
		return nil
	}
	a, ok := w.Const.Storage.(*model.Affine)
	if !ok {
		return nil
	}
	if a.Zero == nil {
		zero := model.NewConst(model.NewTensor(a.Codes.DType, a.Scale.Shape...))
		w = &model.Value{Name: w.Name, DType: w.DType, Shape: w.Shape, Const: &model.Const{DType: w.DType, Shape: w.Shape,
			Storage: &model.Affine{Codes: a.Codes, Scale: a.Scale, Zero: zero}}}
		n.Inputs[1] = w
	}
	if b == nil {
		return nil
	}
	x, err := xs.Value()
	if err != nil {
		return err
	}
	ws, err := a.Scale.Value()
	if err != nil {
		return err
	}
	bias, err := b.Const.Value()
	if err != nil {
		return err
	}
	if ws.Len() != bias.Len() && ws.Len() != 1 {
		return nil
	}
	scale, codes := model.NewTensor(b.DType, bias.Len()), model.NewTensor(model.Int32, bias.Len())
	for i := range bias.Len() {
		scale.Set(i, x.At(0)*ws.At(min(i, ws.Len()-1)))
		if scale.At(i) == 0 {
			return nil
		}
		codes.SetInt(i, int64(min(max(math.RoundToEven(bias.At(i)/scale.At(i)), math.MinInt32), math.MaxInt32)))
	}
	part := func(suffix string, t *model.Tensor) *model.Value {
		return &model.Value{Name: b.Name + suffix, DType: t.DType, Shape: b.Shape.Clone(), Const: model.NewConst(t)}
	}
	d := &model.Value{Name: b.Name + "_dq", DType: b.DType, Shape: b.Shape.Clone()}
	s.emit(&model.Node{Name: b.Name + "_dequantize", Op: "DequantizeLinear", Attrs: model.Attrs{"axis": 0},
		Inputs: []*model.Value{part("_codes", codes), part("_scale", scale)}, Outputs: []*model.Value{d}})
	n.Inputs[2] = d
	return nil
}
