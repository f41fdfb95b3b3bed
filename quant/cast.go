package quant

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/x448/float16"

	"github.com/triune-sim/triune/model"
)

// float32Inputs are operands that stay fp32 in an fp16 program: they are no
// activations, and half precision would change what the operator does.
var float32Inputs = map[model.Op][]int{
	"Resize":            {1, 2},
	"Upsample":          {1},
	"NonMaxSuppression": {3, 4},
}

// castProgram types a graph fp16: values, constants, and the attributes that
// name a type. Nodes of the graph are changed in place.
func (k *compressor) castProgram(g *model.Graph, r *Report) {
	seen := map[*model.Value]bool{}
	kept := map[*model.Value]bool{} // constants that some operand wants in fp32
	cast := func(v *model.Value) {
		if v == nil || seen[v] || kept[v] {
			return
		}
		seen[v] = true
		if v.DType == model.Float32 {
			v.DType = model.Float16
		}
		if c := v.Const; c != nil && c.DType == model.Float32 {
			v.Const = k.castConst(v.Name, c, r)
		}
	}
	var walk func(g *model.Graph)
	walk = func(g *model.Graph) {
		for _, v := range g.Inputs {
			cast(v)
		}
		for _, n := range g.Nodes {
			keep := float32Inputs[n.Op]
			for i, v := range n.Inputs {
				if v != nil && v.Const != nil && !seen[v] && slices.Contains(keep, i) {
					kept[v] = true
				}
				cast(v)
			}
			for _, v := range n.Outputs {
				cast(v)
			}
			castAttrs(n)
			for _, key := range sortedKeys(n.Blocks) {
				walk(n.Blocks[key])
			}
		}
		for _, v := range g.Outputs {
			cast(v)
		}
	}
	walk(g)
}

// ONNX's numbers of the float types, as attributes name them.
const (
	onnxFloat   = 1
	onnxFloat16 = 10
)

// castAttrs changes the attributes by which an operator chooses the type of
// its output. The attributes of n are its own (Graph.Clone copies the map).
func castAttrs(n *model.Node) {
	for _, key := range []string{"to", "dtype", "output_dtype"} {
		switch v := n.Attrs[key].(type) {
		case int:
			if v == onnxFloat && len(n.Outputs) > 0 && n.Outputs[0] != nil && n.Outputs[0].DType == model.Float16 {
				n.Attrs[key] = onnxFloat16
			}
		case string:
			if d, err := model.ParseDType(v); err == nil && d == model.Float32 {
				n.Attrs[key] = model.Float16.String()
			}
		}
	}
	if n.Op == "ConstantOfShape" || n.Op == "Constant" {
		if t, ok := n.Attrs["value"].(*model.Tensor); ok && t.DType == model.Float32 {
			n.Attrs["value"] = t.Convert(model.Float16)
		}
	}
}

// maxEager is the size up to which constants are cast at once: for scalars and
// short vectors it is not worth being lazy.
const maxEager = 64

// castConst returns the fp16 form of an fp32 constant. Compressed constants
// keep their storage: only the type they decode to changes. A finite value
// beyond the range of half precision saturates (above 1e38 it stands for
// infinity, as in attention masks, and becomes that).
func (k *compressor) castConst(name string, c *model.Const, r *Report) *model.Const {
	switch s := c.Storage.(type) {
	case *model.Affine, *model.Lookup, *model.Sparse:
		return &model.Const{DType: model.Float16, Shape: c.Shape, Storage: c.Storage}
	case model.Dense:
		if c.Elems() <= maxEager {
			t, n := toHalf(s.Tensor)
			noteSaturated(r, name, n)
			return &model.Const{DType: model.Float16, Shape: c.Shape, Storage: model.Dense{Tensor: t.Reshape(c.Shape...)}}
		}
	}
	out := model.NewLazy(model.Float16, c.Shape, sync.OnceValues(func() (*model.Tensor, error) {
		t, err := c.Value()
		if err != nil {
			return nil, err
		}
		h, _ := toHalf(t)
		return h, nil
	}))
	k.source[out] = c
	return out
}

func noteSaturated(r *Report, name string, n int) {
	if n > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("constant %q: %d values beyond 65504 saturate in fp16", name, n))
	}
}

// toHalf converts to half precision and counts the values that saturated.
func toHalf(t *model.Tensor) (*model.Tensor, int) {
	out := model.NewTensor(model.Float16, t.Shape...)
	h := model.View[uint16](out)
	n := 0
	for i, x := range t.Float32s() {
		if saturates(x) {
			n++
		}
		h[i] = float16.Fromfloat32(halfOf(x)).Bits()
	}
	return out, n
}

// saturates reports whether a finite value lies beyond half precision.
func saturates(x float32) bool {
	a := abs32(x)
	return a >= 65520 && a < 1e38
}

// halfOf rounds a value of the program to half precision.
func halfOf(x float32) float32 {
	if saturates(x) {
		return float32(math.Copysign(65504, float64(x)))
	}
	return roundHalf(x)
}
