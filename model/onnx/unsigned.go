package onnx

import "github.com/triune-sim/triune/model"

// metaSigned is set in the Meta of a graph whose file has int8 activations.
const metaSigned = "onnx.int8"

// noteSigned sets it.
func noteSigned(g *model.Graph) {
	for _, n := range g.Nodes {
		if v := n.Out(0); n.Op == "QuantizeLinear" && v != nil && v.DType == model.Int8 {
			g.Meta[metaSigned] = "1"
			return
		}
	}
}

// unsigned returns a graph whose quantized activations are uint8 where g has
// them int8: code + 128 with zero point + 128 is the same number. Core ML's
// tools write int8; ONNX Runtime fuses an operator between quantized tensors
// only if they have one type, and leaves the others in float, between a
// DequantizeLinear and a QuantizeLinear. Graphs that were quantized so in an
// ONNX file, and codes that anything but DequantizeLinear reads, stay as they
// are. G itself is not changed.
func unsigned(g *model.Graph) *model.Graph {
	if g.Meta[metaSigned] != "" {
		return g
	}
	// Decide on g, by the position of the nodes, and change a copy.
	consumers := g.Consumers()
	output := map[*model.Value]bool{}
	for _, v := range g.Outputs {
		output[v] = true
	}
	signed := func(n *model.Node) bool {
		z := n.In(2)
		return z != nil && z.Const != nil && z.DType == model.Int8 && z.Shape.Elems() == 1
	}
	change := map[*model.Value]bool{} // outputs of quantize operators
	for _, n := range g.Nodes {
		if n.Op != "QuantizeLinear" || n.Out(0) == nil || !signed(n) || output[n.Outputs[0]] {
			continue
		}
		all := len(consumers[n.Outputs[0]]) > 0
		for _, c := range consumers[n.Outputs[0]] {
			all = all && c.Op == "DequantizeLinear" && signed(c)
		}
		if all {
			change[n.Outputs[0]] = true
		}
	}
	if len(change) == 0 {
		return g
	}
	h := g.Clone()
	zeros := map[*model.Value]*model.Value{}
	for i, n := range h.Nodes {
		old := g.Nodes[i]
		switch {
		case n.Op == "QuantizeLinear" && change[old.Outputs[0]]:
			n.Outputs[0].DType = model.UInt8
		case n.Op == "DequantizeLinear" && change[old.In(0)]:
		default:
			continue
		}
		z := n.In(2)
		if zeros[z] == nil {
			k := z.Const
			zeros[z] = &model.Value{Name: z.Name, DType: model.UInt8, Shape: z.Shape, Const: model.NewLazy(model.UInt8, z.Shape, func() (*model.Tensor, error) {
				s, err := k.Value()
				if err != nil {
					return nil, err
				}
				u := model.NewTensor(model.UInt8, s.Shape...)
				u.SetInt(0, s.IntAt(0)+128)
				return u, nil
			})}
		}
		n.Inputs[2] = zeros[z]
	}
	return h
}
