package onnx

import (
	"fmt"
	"math"

	"github.com/triune-sim/triune/model"
)

// Attention as ONNX Runtime's optimiser fuses it, spelled out again: the passes
// and the units know products and softmax. Masks by length and caches of past
// keys, which belong to a decoder's loop, are refused.

// unwanted refuses inputs that are not supported, by name.
func (n *node) unwanted(names map[int]string) error {
	for i := range n.in {
		if what := names[i]; what != "" && n.in[i] != nil {
			return fmt.Errorf("%s (input %d) is not supported; export the model without it, or without ONNX Runtime's attention fusion", what, i)
		}
	}
	return nil
}

// packedAttention: input [B, S, H], one weight [H, 3 H'] for queries, keys and
// values, and its bias.
func packedAttention(b *builder, n *node) error {
	if err := n.unwanted(map[int]string{3: "a mask", 4: "a cache", 6: "a cache"}); err != nil {
		return err
	}
	if n.attrs["qkv_hidden_sizes"] != nil || n.attrs.Int("do_rotary", 0) != 0 {
		return fmt.Errorf("qkv_hidden_sizes and do_rotary are not supported")
	}
	x, w := n.input(0), n.input(1)
	if x == nil || w == nil || len(w.Shape) != 2 || w.Shape[1] < 3 || w.Shape[1]%3 != 0 {
		return fmt.Errorf("wants an input and a weight of three equal parts")
	}
	y, err := b.one("MatMul", n, "projected", nil, x, w)
	if err != nil {
		return err
	}
	if bias := n.input(2); bias != nil {
		if y, err = b.one("Add", n, "biased", nil, y, bias); err != nil {
			return err
		}
	}
	h := w.Shape[1] / 3
	var parts [3]*model.Value
	for i := range parts {
		part := func(s string) string { return []string{"query", "key", "value"}[i] + s }
		if parts[i], err = b.one("Slice", n, part(""), nil, y, b.intsConst(n, part("_from"), []int{i * h}), b.intsConst(n, part("_to"), []int{(i + 1) * h}),
			b.intsConst(n, part("_axis"), []int{2})); err != nil {
			return err
		}
	}
	return b.attend(n, parts[0], parts[1], parts[2], n.input(5))
}

// multiHeadAttention: queries, keys and values [B, S, H] apart, with one bias
// [3 H] for the three.
func multiHeadAttention(b *builder, n *node) error {
	if err := n.unwanted(map[int]string{4: "a mask", 6: "a cache", 7: "a cache", 8: "a cache", 9: "a cache"}); err != nil {
		return err
	}
	var parts [3]*model.Value
	at := 0
	for i := range parts {
		x := n.input(i)
		if x == nil || len(x.Shape) != 3 || x.Shape[2] < 1 {
			return fmt.Errorf("wants query, key and value of rank 3 (packed ones are not supported)")
		}
		if bias := n.input(3); bias != nil {
			what := []string{"query", "key", "value"}[i]
			part, err := b.one("Slice", n, what+"_bias", nil, bias, b.intsConst(n, what+"_from", []int{at}), b.intsConst(n, what+"_to", []int{at + x.Shape[2]}))
			if err != nil {
				return err
			}
			if x, err = b.one("Add", n, what+"_biased", nil, x, part); err != nil {
				return err
			}
			at += x.Shape[2]
		}
		parts[i] = x
	}
	return b.attend(n, parts[0], parts[1], parts[2], n.input(5))
}

// attend adds softmax(scale Q K' + bias) V by heads and gives the node's output.
func (b *builder) attend(n *node, q, k, v, bias *model.Value) error {
	heads := n.attrs.Int("num_heads", 0)
	if len(q.Shape) != 3 || heads < 1 || q.Shape[2]%heads != 0 || v.Shape[2]%heads != 0 {
		return fmt.Errorf("%d heads do not fit queries %v and values %v", heads, q.Shape, v.Shape)
	}
	var err error
	step := func(op model.Op, suffix string, attrs model.Attrs, in ...*model.Value) *model.Value {
		if err != nil {
			return nil
		}
		var out *model.Value
		out, err = b.one(op, n, suffix, attrs, in...)
		return out
	}
	split := func(x *model.Value, what string, perm ...int) *model.Value {
		shape := b.intsConst(n, what+"_heads_shape", []int{0, 0, heads, x.Shape[2] / heads})
		return step("Transpose", what+"_by_head", model.Attrs{"perm": perm}, step("Reshape", what+"_heads", nil, x, shape))
	}
	scale := n.attrs.Float("scale", 0)
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(q.Shape[2]/heads))
	}
	s := step("MatMul", "scores", nil, split(q, "q", 0, 2, 1, 3), split(k, "k", 0, 2, 3, 1))
	s = step("Mul", "scaled", nil, s, b.floatConst(n, "scale", q.DType, scale))
	if bias != nil {
		s = step("Add", "scores_biased", nil, s, bias)
	}
	if n.attrs.Int("unidirectional", 0) != 0 {
		rows, cols := q.Shape[1], k.Shape[1]
		if rows < 1 || cols != rows || rows > 1<<14 {
			return fmt.Errorf("causal attention over %d positions and %d keys (want one known length for both)", rows, cols)
		}
		d := q.DType
		mask := model.NewLazy(d, model.Shape{rows, cols}, func() (*model.Tensor, error) {
			t := model.NewTensor(d, rows, cols)
			for i := range rows {
				for j := i + 1; j < cols; j++ {
					t.Set(i*cols+j, -10000) // as ONNX Runtime fills it by default
				}
			}
			return t, nil
		})
		s = step("Add", "causal", nil, s, &model.Value{Name: b.prefix + b.fresh(n.label()+"/mask"), DType: d, Shape: mask.Shape, Const: mask})
	}
	y := step("MatMul", "weighted", nil, step("Softmax", "weights", model.Attrs{"axis": -1}, s), split(v, "v", 0, 2, 1, 3))
	y = step("Transpose", "by_position", model.Attrs{"perm": []int{0, 2, 1, 3}}, y)
	if err != nil {
		return err
	}
	_, err = b.emit("Reshape", n.label(), []*model.Value{y, b.intsConst(n, "shape", []int{0, 0, v.Shape[2]})}, nil, n.outputs...)
	return err
}
