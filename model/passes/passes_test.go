package passes

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/model/zoo"
	"pgregory.net/rapid"
)

type val = *model.Value

func TestPatterns(t *testing.T) {
	ints := func(v ...int) []int { return v }
	keep := model.Attrs{"keepdims": 1}
	convAttrs := model.Attrs{"kernel_shape": ints(3, 3), "pads": ints(1, 1, 1, 1), "strides": ints(1, 1), "dilations": ints(1, 1), "group": 1}
	bnOf := func(b *gb, x val, c int) val {
		return b.op("BatchNormalization", model.Attrs{"epsilon": 1e-5}, x, b.rnd(1.5, c), b.rnd(0, c), b.rnd(0, c), b.rnd(2, c))
	}
	perm := func(p ...int) model.Attrs { return model.Attrs{"perm": p} }
	cases := []struct {
		name  string
		build func(b *gb, x val) val // x is [2,4,6,6]
		want  string
	}{
		{"identity", func(b *gb, x val) val { return b.op("Relu", nil, b.op("Identity", nil, x)) }, "Relu"},
		{"identity at the output", func(b *gb, x val) val { return b.op("Identity", nil, b.op("Relu", nil, x)) }, "Relu"},
		{"identity of an input stays", func(b *gb, x val) val { return b.op("Identity", nil, x) }, "Identity"},
		{"dropout", func(b *gb, x val) val { return b.op("Relu", nil, b.op("Dropout", nil, x)) }, "Relu"},
		{"neutral", func(b *gb, x val) val {
			return b.op("Relu", nil, b.op("Sub", nil, b.op("Add", nil, b.f(0), b.op("Div", nil, b.op("Mul", nil, x, b.f(1)), b.f(1))), b.f(0)))
		}, "Relu"},
		{"one divided by x stays", func(b *gb, x val) val { return b.op("Div", nil, b.f(1), x) }, "Div"},
		{"views", func(b *gb, x val) val {
			y := b.op("Reshape", nil, x, b.i64(2, -1))
			y = b.op("Unsqueeze", nil, y, b.i64(0))
			return b.op("Relu", nil, b.op("Reshape", nil, y, b.i64(2, 4, 6, 6)))
		}, "Relu"},
		{"transposes cancel", func(b *gb, x val) val {
			return b.op("Relu", nil, b.op("Transpose", perm(0, 3, 1, 2), b.op("Transpose", perm(0, 2, 3, 1), x)))
		}, "Relu"},
		{"transposes join", func(b *gb, x val) val {
			return b.op("Transpose", perm(0, 2, 3, 1), b.op("Transpose", perm(0, 2, 3, 1), x))
		}, "Transpose"},
		{"transpose of ones", func(b *gb, x val) val {
			return b.op("Transpose", perm(0, 2, 3, 1), b.op("GlobalAveragePool", nil, x))
		}, "GlobalAveragePool Reshape"},
		{"shape arithmetic", func(b *gb, x val) val {
			n := b.op("Gather", model.Attrs{"axis": 0}, b.op("Shape", nil, x), b.i64(0))
			return b.op("Reshape", nil, x, b.op("Concat", model.Attrs{"axis": 0}, n, b.i64(-1)))
		}, "Reshape"},
		{"conv bn", func(b *gb, x val) val {
			return b.op("Relu", nil, bnOf(b, b.op("Conv", convAttrs, x, b.rnd(0, 5, 4, 3, 3), b.rnd(0, 5)), 5))
		}, "Conv Relu"},
		{"depthwise conv, mul, add, sub, div", func(b *gb, x val) val {
			a := model.Attrs{"kernel_shape": ints(3, 3), "pads": ints(1, 1, 1, 1), "strides": ints(1, 1), "dilations": ints(1, 1), "group": 4}
			y := b.op("Mul", nil, b.rnd(2, 1, 4, 1, 1), b.op("Conv", a, x, b.rnd(0, 4, 1, 3, 3)))
			y = b.op("Sub", nil, b.op("Add", nil, y, b.rnd(0, 4, 1, 1)), b.f(0.25))
			return b.op("Div", nil, y, b.rnd(3, 4, 1, 1))
		}, "Conv"},
		{"scale along width stays", func(b *gb, x val) val {
			return b.op("Mul", nil, b.op("Conv", convAttrs, x, b.rnd(0, 6, 4, 3, 3)), b.rnd(2, 6))
		}, "Conv Mul"},
		{"grouped transposed conv bn", func(b *gb, x val) val {
			a := model.Attrs{"kernel_shape": ints(2, 2), "strides": ints(2, 2), "group": 2}
			return bnOf(b, b.op("ConvTranspose", a, x, b.rnd(0, 4, 3, 2, 2)), 6)
		}, "ConvTranspose"},
		{"shared conv output keeps bn", func(b *gb, x val) val {
			y := b.op("Conv", convAttrs, x, b.rnd(0, 4, 4, 3, 3))
			return b.op("Add", nil, y, bnOf(b, y, 4))
		}, "Conv BatchNormalization Add"},
		{"gemm scale and shift", func(b *gb, x val) val {
			y := b.op("Gemm", model.Attrs{"transB": 1}, b.op("Flatten", nil, x), b.rnd(0, 7, 144), b.rnd(0, 7))
			return b.op("Add", nil, b.op("Mul", nil, y, b.rnd(2, 7)), b.rnd(0, 1, 7))
		}, "Flatten Gemm"},
		{"gemm bn", func(b *gb, x val) val {
			return bnOf(b, b.op("Gemm", nil, b.op("Flatten", nil, x), b.rnd(0, 144, 7)), 7)
		}, "Flatten Gemm"},
		{"padding", func(b *gb, x val) val {
			y := b.op("Pad", model.Attrs{"mode": "constant"}, x, b.i64(0, 0, 0, 1, 0, 0, 1, 2))
			a := model.Attrs{"kernel_shape": ints(3, 3), "pads": ints(0, 1, 0, 0), "strides": ints(2, 2)}
			return b.op("Conv", a, y, b.rnd(0, 3, 4, 3, 3))
		}, "Conv"},
		{"padding with another value stays", func(b *gb, x val) val {
			y := b.op("Pad", model.Attrs{"mode": "constant"}, x, b.i64(0, 0, 1, 1, 0, 0, 1, 1), b.f(1))
			return b.op("Conv", model.Attrs{"kernel_shape": ints(3, 3)}, y, b.rnd(0, 3, 4, 3, 3))
		}, "Pad Conv"},
		{"swish", func(b *gb, x val) val { return b.op("Mul", nil, x, b.op("Sigmoid", nil, x)) }, "Swish"},
		{"swish of 1.702", func(b *gb, x val) val {
			return b.op("Mul", nil, b.op("Sigmoid", nil, b.op("Mul", nil, x, b.f(1.702))), x)
		}, "Swish"},
		{"gate by another tensor stays", func(b *gb, x val) val {
			return b.op("Mul", nil, x, b.op("Sigmoid", nil, b.op("Relu", nil, x)))
		}, "Relu Sigmoid Mul"},
		{"sigmoid read twice stays", func(b *gb, x val) val {
			s := b.op("Sigmoid", nil, x)
			return b.op("Add", nil, s, b.op("Mul", nil, x, s))
		}, "Sigmoid Mul Add"},
		{"hard swish", func(b *gb, x val) val {
			y := b.op("Clip", nil, b.op("Add", nil, x, b.f(3)), b.f(0), b.f(6))
			return b.op("Div", nil, b.op("Mul", nil, x, y), b.f(6))
		}, "HardSwish"},
		{"hard swish, divided first", func(b *gb, x val) val {
			y := b.op("Clip", nil, b.op("Add", nil, b.f(3), x), b.f(0), b.f(6))
			return b.op("Mul", nil, x, b.op("Div", nil, y, b.f(6)))
		}, "HardSwish"},
		{"hard swish of a hard sigmoid", func(b *gb, x val) val {
			return b.op("Mul", nil, x, b.op("HardSigmoid", model.Attrs{"alpha": 1.0 / 6, "beta": 0.5}, x))
		}, "HardSwish"},
		{"hard sigmoid of another slope stays", func(b *gb, x val) val {
			return b.op("Mul", nil, x, b.op("HardSigmoid", model.Attrs{"alpha": 0.2, "beta": 0.5}, x))
		}, "HardSigmoid Mul"},
		{"hard sigmoid", func(b *gb, x val) val {
			return b.op("Mul", nil, b.op("Clip", nil, b.op("Add", nil, x, b.f(3)), b.f(0), b.f(6)), b.f(1.0/6))
		}, "HardSigmoid"},
		{"gelu erf", func(b *gb, x val) val {
			e := b.op("Add", nil, b.op("Erf", nil, b.op("Div", nil, x, b.f(math.Sqrt2))), b.f(1))
			return b.op("Mul", nil, b.op("Mul", nil, x, e), b.f(0.5))
		}, "Gelu"},
		{"gelu erf, other order", func(b *gb, x val) val {
			e := b.op("Add", nil, b.f(1), b.op("Erf", nil, b.op("Mul", nil, b.f(math.Sqrt2/2), x)))
			return b.op("Mul", nil, e, b.op("Mul", nil, x, b.f(0.5)))
		}, "Gelu"},
		{"gelu tanh", func(b *gb, x val) val {
			c := b.op("Mul", nil, b.op("Pow", nil, x, b.f(3)), b.f(0.044715))
			u := b.op("Mul", nil, b.op("Add", nil, x, c), b.f(float32(math.Sqrt(2/math.Pi))))
			return b.op("Mul", nil, b.op("Mul", nil, b.f(0.5), x), b.op("Add", nil, b.op("Tanh", nil, u), b.f(1)))
		}, "Gelu"},
		{"gelu tanh of products", func(b *gb, x val) val {
			c := b.op("Mul", nil, b.op("Mul", nil, b.op("Mul", nil, x, x), x), b.f(0.044715))
			u := b.op("Mul", nil, b.op("Add", nil, c, x), b.f(float32(math.Sqrt(2/math.Pi))))
			return b.op("Mul", nil, b.op("Mul", nil, b.f(0.5), x), b.op("Add", nil, b.op("Tanh", nil, u), b.f(1)))
		}, "Gelu"},
		{"gelu tanh factored", func(b *gb, x val) val {
			c := b.op("Add", nil, b.f(1), b.op("Mul", nil, b.op("Mul", nil, x, b.f(0.044715)), x))
			u := b.op("Mul", nil, b.op("Mul", nil, x, b.f(float32(math.Sqrt(2/math.Pi)))), c)
			return b.op("Mul", nil, b.op("Mul", nil, b.f(0.5), x), b.op("Add", nil, b.op("Tanh", nil, u), b.f(1)))
		}, "Gelu"},
		{"almost gelu stays", func(b *gb, x val) val {
			e := b.op("Add", nil, b.op("Erf", nil, b.op("Div", nil, x, b.f(1.5))), b.f(1))
			return b.op("Mul", nil, b.op("Mul", nil, x, e), b.f(0.5))
		}, "Div Erf Add Mul Mul"},
		{"mish", func(b *gb, x val) val { return b.op("Mul", nil, x, b.op("Tanh", nil, b.op("Softplus", nil, x))) }, "Mish"},
		{"min max", func(b *gb, x val) val { return b.op("Min", nil, b.op("Max", nil, x, b.f(-0.5)), b.f(0.5)) }, "Clip"},
		{"relu6", func(b *gb, x val) val { return b.op("Min", nil, b.op("Relu", nil, x), b.f(0.6)) }, "Clip"},
		{"clip at zero", func(b *gb, x val) val { return b.op("Clip", nil, x, b.f(0)) }, "Relu"},
		{"clips join", func(b *gb, x val) val {
			return b.op("Clip", nil, b.op("Clip", nil, x, b.f(-0.7), b.f(0.2)), b.f(0.1), b.f(0.9))
		}, "Clip"},
		{"clips apart", func(b *gb, x val) val {
			return b.op("Clip", nil, b.op("Clip", nil, x, b.f(-0.7), b.f(0.2)), b.f(0.3), b.f(0.9))
		}, "Clip"},
		{"prelu equal", func(b *gb, x val) val {
			return b.op("PRelu", nil, x, b.tensor(model.Of([]float32{.25, .25, .25, .25}, 4, 1, 1)))
		}, "LeakyRelu"},
		{"prelu unequal stays", func(b *gb, x val) val { return b.op("PRelu", nil, x, b.rnd(0, 4, 1, 1)) }, "PRelu"},
		{"softmax", func(b *gb, x val) val {
			e := b.op("Exp", nil, b.op("Sub", nil, x, b.op("ReduceMax", keep, x, b.i64(-1))))
			return b.op("Div", nil, e, b.op("ReduceSum", keep, e, b.i64(3)))
		}, "Softmax"},
		{"softmax over another axis than the maximum", func(b *gb, x val) val {
			e := b.op("Exp", nil, b.op("Sub", nil, x, b.op("ReduceMax", keep, x, b.i64(2))))
			return b.op("Div", nil, e, b.op("ReduceSum", keep, e, b.i64(3)))
		}, "ReduceMax Sub Softmax"},
		{"layer norm", func(b *gb, x val) val {
			d := b.op("Sub", nil, x, b.op("ReduceMean", keep, x, b.i64(-1)))
			v := b.op("ReduceMean", keep, b.op("Pow", nil, d, b.f(2)), b.i64(3))
			y := b.op("Div", nil, d, b.op("Sqrt", nil, b.op("Add", nil, v, b.f(1e-3))))
			return b.op("Add", nil, b.op("Mul", nil, y, b.rnd(1, 6)), b.rnd(0, 1, 6))
		}, "LayerNormalization"},
		{"layer norm over two axes, reciprocal", func(b *gb, x val) val {
			d := b.op("Sub", nil, x, b.op("ReduceMean", keep, x, b.i64(2, 3)))
			v := b.op("ReduceMean", keep, b.op("Mul", nil, d, d), b.i64(2, 3))
			return b.op("Relu", nil, b.op("Mul", nil, d, b.op("Reciprocal", nil, b.op("Sqrt", nil, b.op("Add", nil, v, b.f(1e-3))))))
		}, "LayerNormalization Relu"},
		{"layer norm over channels stays spelled out", func(b *gb, x val) val {
			d := b.op("Sub", nil, x, b.op("ReduceMean", keep, x, b.i64(1)))
			v := b.op("ReduceMean", keep, b.op("Mul", nil, d, d), b.i64(1))
			return b.op("Div", nil, d, b.op("Sqrt", nil, b.op("Add", nil, v, b.f(1e-3))))
		}, "ReduceMean Sub Mul ReduceMean Add Sqrt Div"},
		{"rms norm", func(b *gb, x val) val {
			v := b.op("ReduceMean", keep, b.op("Pow", nil, x, b.f(2)), b.i64(-1))
			y := b.op("Mul", nil, x, b.op("Div", nil, b.f(1), b.op("Sqrt", nil, b.op("Add", nil, v, b.f(1e-3)))))
			return b.op("Mul", nil, b.rnd(1, 6), y)
		}, "RMSNormalization"},
		{"group norm", func(b *gb, x val) val {
			y := b.op("Reshape", nil, x, b.i64(0, 2, -1))
			y = b.op("InstanceNormalization", model.Attrs{"epsilon": 1e-3}, y, b.tensor(model.Of([]float32{1, 1})), b.tensor(model.Of([]float32{0, 0})))
			y = b.op("Reshape", nil, y, b.op("Shape", nil, x))
			return b.op("Add", nil, b.op("Mul", nil, y, b.rnd(1, 4, 1, 1)), b.rnd(0, 4, 1, 1))
		}, "GroupNormalization"},
		{"group norm of Core ML", func(b *gb, x val) val {
			y := b.op("Reshape", nil, x, b.i64(2, 2, 2, 6, 6))
			d := b.op("Sub", nil, y, b.op("ReduceMean", keep, y, b.i64(2, 3, 4)))
			v := b.op("ReduceMean", keep, b.op("Mul", nil, d, d), b.i64(2, 3, 4))
			y = b.op("Div", nil, d, b.op("Sqrt", nil, b.op("Add", nil, v, b.f(1e-3))))
			return bnOf(b, b.op("Reshape", nil, y, b.i64(2, 4, 6, 6)), 4)
		}, "GroupNormalization"},
		{"hard swish of Core ML", func(b *gb, x val) val {
			x = b.op("Mul", nil, x, b.f(5))
			return b.op("Mul", nil, b.op("ThresholdedRelu", model.Attrs{"alpha": -3.0000002}, x), b.op("HardSigmoid", model.Attrs{"alpha": 1.0 / 6, "beta": 0.5}, x))
		}, "Mul HardSwish"},
		{"global pool", func(b *gb, x val) val { return b.op("ReduceMean", keep, x, b.i64(-1, -2)) }, "GlobalAveragePool"},
		{"constants fold", func(b *gb, x val) val {
			return b.op("MatMul", nil, x, b.op("Transpose", perm(1, 0), b.op("Mul", nil, b.rnd(0, 8, 6), b.f(2))))
		}, "MatMul"},
		{"large constants fold lazily", func(b *gb, x val) val {
			return b.op("MatMul", nil, b.op("Flatten", nil, x), b.op("Transpose", perm(1, 0), b.rnd(0, 300, 144)))
		}, "Flatten MatMul"},
		{"global pool, axes dropped", func(b *gb, x val) val {
			return b.op("ReduceMean", model.Attrs{"keepdims": 0}, x, b.i64(2, 3))
		}, "GlobalAveragePool Reshape"},
		{"duplicates", func(b *gb, x val) val {
			y := b.op("Mul", nil, b.op("Clip", nil, x, b.f(-0.5), b.f(0.5)), b.op("Exp", nil, b.op("Clip", nil, x, b.f(-0.5), b.f(0.5))))
			return b.op("Add", nil, y, b.op("Clip", nil, x, b.f(-0.25), b.f(0.5)))
		}, "Clip Exp Mul Clip Add"},
		{"dead branch", func(b *gb, x val) val { b.op("Exp", nil, x); return b.op("Relu", nil, x) }, "Relu"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newGB()
			b.output(c.build(b, b.input(model.Float32, 2, 4, 6, 6)))
			g := check(t, b.graph(t), 2e-6)
			if got := opsOf(g); got != c.want {
				t.Errorf("operators %q, want %q", got, c.want)
			}
		})
	}
}

// Weights stored as codes stay so through dequantize, transpose and batch norm.
func TestQuantizedConstants(t *testing.T) {
	codes := model.NewTensor(model.Int8, 5, 4, 3, 3)
	for i := range codes.Len() {
		codes.SetInt(i, int64(i*37%255-127))
	}
	zero := model.NewTensor(model.Int8, 5)
	zero.SetInt(2, 3)
	bn := func(b *gb, y val) val {
		return b.op("BatchNormalization", nil, y, b.rnd(1.5, 5), b.rnd(0, 5), b.rnd(0, 5), b.rnd(2, 5))
	}
	for _, c := range []struct {
		name  string
		build func(b *gb, x val) val
		want  string
		scale model.Shape
	}{
		{"per channel, bn", func(b *gb, x val) val {
			w := b.op("DequantizeLinear", model.Attrs{"axis": 0}, b.tensor(codes), b.rnd(2, 5), b.tensor(zero))
			return bn(b, b.op("Conv", nil, x, w))
		}, "Conv", model.Shape{5, 1, 1, 1}},
		{"per tensor", func(b *gb, x val) val {
			return b.op("Conv", nil, x, b.op("DequantizeLinear", nil, b.tensor(codes), b.f(0.03)))
		}, "Conv", model.Shape{1, 1, 1, 1}},
		{"per tensor with zero, bn", func(b *gb, x val) val {
			z := model.NewTensor(model.Int8)
			z.SetInt(0, -5)
			return bn(b, b.op("Conv", nil, x, b.op("DequantizeLinear", nil, b.tensor(codes), b.f(0.03), b.tensor(z))))
		}, "Conv", model.Shape{5, 1, 1, 1}},
		{"transposed", func(b *gb, x val) val {
			w := b.op("DequantizeLinear", model.Attrs{"axis": 0}, b.tensor(codes.Reshape(30, 6)), b.rnd(2, 30))
			return b.op("MatMul", nil, x, b.op("Transpose", model.Attrs{"perm": []int{1, 0}}, w))
		}, "MatMul", model.Shape{1, 30}},
		{"blocked", func(b *gb, x val) val {
			w := b.op("DequantizeLinear", model.Attrs{"axis": 1, "block_size": 10}, b.tensor(codes.Reshape(6, 30)), b.rnd(2, 6, 3))
			return b.op("MatMul", nil, x, w)
		}, "MatMul", model.Shape{6, 3}},
		{"viewed", func(b *gb, x val) val {
			w := b.op("DequantizeLinear", model.Attrs{"axis": 0}, b.tensor(codes.Reshape(5, 36)), b.rnd(2, 5))
			return b.op("Conv", nil, x, b.op("Reshape", nil, w, b.i64(5, 4, 3, 3)))
		}, "Conv", model.Shape{5, 1, 1, 1}},
		{"quantized float weights", func(b *gb, x val) val {
			q := b.op("QuantizeLinear", model.Attrs{"axis": 0}, b.rnd(0, 5, 4, 3, 3), b.rnd(2, 5), b.tensor(zero))
			return b.op("Conv", nil, x, b.op("DequantizeLinear", model.Attrs{"axis": 0}, q, b.rnd(2, 5), b.tensor(zero)))
		}, "Conv", model.Shape{5, 1, 1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newGB()
			b.output(c.build(b, b.input(model.Float32, 2, 4, 6, 6)))
			g := check(t, b.graph(t), 2e-6)
			if got := opsOf(g); got != c.want {
				t.Fatalf("operators %q, want %q", got, c.want)
			}
			a, ok := g.Nodes[0].In(1).Const.Storage.(*model.Affine)
			if !ok {
				t.Fatalf("weight is stored as %T", g.Nodes[0].In(1).Const.Storage)
			}
			if !a.Scale.Shape.Equal(c.scale) || a.Codes.DType != model.Int8 {
				t.Errorf("codes %s, scales %v, want %v", a.Codes.DType, a.Scale.Shape, c.scale)
			}
		})
	}
}

// An If of constant condition gives way to the branch it takes.
func TestInlineIf(t *testing.T) {
	if !ops.Supported("If") {
		t.Skip("package ops cannot evaluate If yet")
	}
	for _, cond := range []byte{0, 1} {
		b := newGB()
		x := b.input(model.Float32, 2, 3)
		shift := b.op("Add", nil, x, b.f(2))
		branch := func(op model.Op) *model.Graph {
			n := &model.Node{Name: "inner" + string(op), Op: op, Inputs: []val{shift}}
			v := &model.Value{Name: "y" + string(op), DType: model.Float32, Shape: model.Shape{2, 3}, Producer: n}
			n.Outputs = []val{v}
			return &model.Graph{Name: "branch", Nodes: []*model.Node{n}, Outputs: []val{v}}
		}
		test := &model.Tensor{DType: model.Bool, Shape: model.Shape{}, Data: []byte{cond}}
		y := b.op("If", nil, b.tensor(test))
		y.Producer.Blocks = map[string]*model.Graph{"then_branch": branch("Exp"), "else_branch": branch("Log")}
		b.output(y)
		g := check(t, b.graph(t), 1e-9)
		if got, want := opsOf(g), []string{"Add Log", "Add Exp"}[cond]; got != want {
			t.Errorf("condition %d: %s, want %s", cond, got, want)
		}
	}
}

// Passes keep the function of zoo networks and take their batch norms away.
func TestZooFunction(t *testing.T) {
	for _, name := range []string{"tiny_mlp", "tiny_cnn", "tiny_vit", "tiny_decoder", "mobilevit_v2_0.5@64", "squeezenet1_1@64",
		"mobilenet_v3_small@32", "mobileone_s0@32"} {
		t.Run(name, func(t *testing.T) {
			g, err := zoo.Build(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range check(t, g, 1e-4).Nodes {
				if n.Op == "BatchNormalization" {
					t.Errorf("batch norm %q is left", n.Name)
				}
			}
		})
	}
}

// Every network passes through quickly, without computing a weight.
func TestZooSpeed(t *testing.T) {
	for _, name := range zoo.Names() {
		g, err := zoo.Build(name)
		if err != nil {
			t.Fatal(err)
		}
		forbid(g)
		start := time.Now()
		if err := Default(g); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := time.Since(start); d > 500*time.Millisecond {
			t.Errorf("%s took %v", name, d)
		}
		if err := g.Validate(true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		left := 0
		for _, n := range g.Nodes {
			if n.Op == "BatchNormalization" {
				left++
			}
		}
		if left > 0 && !strings.HasPrefix(name, "densenet") {
			t.Errorf("%s: %d batch norms are left", name, left)
		}
	}
}

func BenchmarkDefault(b *testing.B) {
	for _, name := range []string{"resnet50", "mobilevit_v2", "decoder_24l"} {
		g, err := zoo.Build(name)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := Default(g.Clone()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Random chains of operators keep their function.
func TestRandomGraphs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newGB()
		b.seed = rapid.Uint64().Draw(t, "seed")
		c := 4
		values := []val{b.input(model.Float32, 1, c, 5, 5)}
		pick := func() val {
			return values[rapid.IntRange(max(0, len(values)-3), len(values)-1).Draw(t, "value")]
		}
		for range rapid.IntRange(2, 14).Draw(t, "nodes") {
			x := pick()
			var y val
			switch rapid.IntRange(0, 17).Draw(t, "op") {
			case 0, 1:
				y = b.op("Conv", model.Attrs{"kernel_shape": []int{1, 1}}, x, b.rnd(0, c, c, 1, 1))
			case 2:
				y = b.op("BatchNormalization", nil, x, b.rnd(1.5, c), b.rnd(0, c), b.rnd(0, c), b.rnd(2, c))
			case 3:
				y = b.op("Mul", nil, x, b.rnd(1.5, c, 1, 1))
			case 4:
				y = b.op("Add", nil, b.rnd(0, 1, c, 1, 1), x)
			case 5:
				y = b.op("Div", nil, x, b.f(2))
			case 6:
				y = b.op("Sigmoid", nil, x)
			case 7:
				y = b.op("Mul", nil, x, b.op("Sigmoid", nil, pick()))
			case 8:
				y = b.op("Relu", nil, x)
			case 9:
				y = b.op("Clip", nil, x, b.f(-0.5), b.f(0.75))
			case 10:
				y = b.op("Identity", nil, x)
			case 11:
				y = b.op("Reshape", nil, b.op("Flatten", nil, x), b.i64(1, int64(c), 5, 5))
			case 12:
				y = b.op("Transpose", model.Attrs{"perm": []int{0, 1, 3, 2}}, x)
			case 13:
				y = b.op("Add", nil, x, pick())
			case 14:
				y = b.op("Sub", nil, x, b.op("ReduceMean", model.Attrs{"keepdims": 1}, x, b.i64(-1)))
			case 15:
				y = b.op("Max", nil, x, b.f(0))
			case 16:
				y = b.op("Mul", nil, x, b.op("Clip", nil, b.op("Add", nil, x, b.f(3)), b.f(0), b.f(6)))
			case 17:
				y = b.op("Mul", nil, x, b.f(1))
			}
			values = append(values, y)
		}
		b.output(values[len(values)-1])
		if v := values[len(values)-2]; v.Producer != nil && rapid.Bool().Draw(t, "second output") {
			b.output(v)
		}
		check(t, b.graph(t), 1e-5)
	})
}

// Damaged graphs that shape inference lets through give a result or an error,
// never a panic.
func TestDamagedGraphs(t *testing.T) {
	names := []string{"tiny_cnn", "tiny_vit", "tiny_decoder"}
	rapid.Check(t, func(t *rapid.T) {
		var g *model.Graph
		if k := rapid.IntRange(0, len(names)).Draw(t, "network"); k < len(names) {
			var err error
			if g, err = zoo.Build(names[k]); err != nil {
				t.Fatalf("%v", err)
			}
		} else {
			// A chain with every spelled-out pattern.
			b := newGB()
			x := b.input(model.Float32, 2, 4, 6, 6)
			keep := model.Attrs{"keepdims": 1}
			d := b.op("Sub", nil, x, b.op("ReduceMean", keep, x, b.i64(-1)))
			v := b.op("ReduceMean", keep, b.op("Mul", nil, d, d), b.i64(-1))
			x = b.op("Add", nil, b.op("Mul", nil, b.op("Div", nil, d, b.op("Sqrt", nil, b.op("Add", nil, v, b.f(1e-3)))), b.rnd(1, 6)), b.rnd(0, 6))
			e := b.op("Exp", nil, b.op("Sub", nil, x, b.op("ReduceMax", keep, x, b.i64(-1))))
			x = b.op("Div", nil, e, b.op("ReduceSum", keep, e, b.i64(-1)))
			x = b.op("Mul", nil, b.op("Mul", nil, x, b.op("Add", nil, b.op("Erf", nil, b.op("Div", nil, x, b.f(math.Sqrt2))), b.f(1))), b.f(0.5))
			x = b.op("Min", nil, b.op("Relu", nil, x), b.f(6))
			w := b.op("DequantizeLinear", model.Attrs{"axis": 0}, b.tensor(model.NewTensor(model.Int8, 4, 4, 1, 1)), b.rnd(2, 4))
			x = b.op("Conv", nil, b.op("Pad", nil, x, b.i64(0, 0, 1, 1, 0, 0, 1, 1)), w)
			x = b.op("PRelu", nil, b.op("Mul", nil, x, b.rnd(1, 4, 1, 1)), b.rnd(0, 4, 1, 1))
			b.output(b.op("Reshape", nil, x, b.op("Shape", nil, x)))
			g = b.graph(t)
		}
		for range rapid.IntRange(1, 4).Draw(t, "damages") {
			n := g.Nodes[rapid.IntRange(0, len(g.Nodes)-1).Draw(t, "node")]
			i := 0
			if len(n.Inputs) > 0 {
				i = rapid.IntRange(0, len(n.Inputs)-1).Draw(t, "input")
			}
			m := g.Nodes[rapid.IntRange(0, len(g.Nodes)-1).Draw(t, "other")]
			switch kind := rapid.IntRange(0, 5).Draw(t, "damage"); {
			case kind == 0 && len(n.Inputs) > 0:
				n.Inputs[i] = nil
			case kind == 1 && len(n.Inputs) > 0:
				n.Inputs = n.Inputs[:i]
			case kind == 2 && len(m.Inputs) > 0 && len(n.Inputs) > 0:
				n.Inputs[i] = m.Inputs[0]
			case kind == 3:
				n.Attrs = model.Attrs{"axis": 99, "perm": []int{7}, "pads": []int{-1}, "group": 0, "num_groups": 0, "transB": 2}
			case kind == 4 && len(n.Inputs) > 0 && n.Inputs[i] != nil && n.Inputs[i].Const != nil:
				n.Inputs[i] = newConst("damaged", model.NewConst(model.NewTensor(model.Float32, 0)))
			case kind == 5 && len(n.Inputs) > 0 && n.Inputs[i] != nil && n.Inputs[i].Const != nil:
				n.Inputs[i] = newConst("damaged", model.NewConst(model.Of([]int64{math.MinInt64, 1 << 40})))
			}
		}
		for _, n := range g.Nodes {
			for _, v := range n.Outputs {
				if v != nil {
					v.DType, v.Shape = model.Invalid, nil
				}
			}
		}
		if ops.InferGraph(g) != nil || g.Validate(false) != nil {
			return
		}
		_ = Default(g)
	})
}
