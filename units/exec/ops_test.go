package exec_test

import (
	"testing"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/cpu"
	"github.com/triune-sim/triune/units/exec"
	"github.com/triune-sim/triune/units/gpu"
	"github.com/triune-sim/triune/units/ne"
)

var arithmetic = exec.Set{units.CPU: cpu.Arithmetic(), units.GPU: gpu.Arithmetic(), units.NE: ne.Arithmetic()}

// on places every layer of a network on one unit.
func on(net *model.Network, k units.Kind) exec.Options {
	o := exec.Options{Units: make([]units.Kind, len(net.Layers)), Numerics: arithmetic}
	for i := range o.Units {
		o.Units[i] = k
	}
	return o
}

type attrs = model.Attrs

// graphs is one small graph for each form of each operator that has a kernel,
// and some that have none.
var graphs = map[string]func(m *maker) *model.Graph{
	"conv 3x3": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 3, 9, 11)
		return m.done(m.op("Conv", attrs{"pads": []int{1, 1, 1, 1}}, x, m.weight(0.2, 20, 3, 3, 3), m.weight(1, 20)))
	},
	"conv chain, residual, relu": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 32, 8, 8)
		a := m.op("Relu", nil, m.op("Conv", nil, x, m.weight(0.2, 32, 32, 1, 1), m.weight(1, 32)))
		b := m.op("Conv", attrs{"pads": []int{1, 1, 1, 1}}, a, m.weight(0.06, 32, 32, 3, 3), nil)
		return m.done(m.op("Relu", nil, m.op("Add", nil, b, x)))
	},
	"conv same_upper stride 2": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 17, 10, 7)
		return m.done(m.op("Conv", attrs{"auto_pad": "SAME_UPPER", "strides": []int{2, 2}}, x, m.weight(0.1, 18, 17, 3, 3), nil))
	},
	"conv dilated, asymmetric": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 16, 12, 12)
		return m.done(m.op("Conv", attrs{"dilations": []int{2, 3}, "pads": []int{0, 1, 2, 3}}, x, m.weight(0.1, 8, 16, 3, 3), nil))
	},
	"conv grouped": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 24, 6, 6)
		return m.done(m.op("Conv", attrs{"group": 3, "pads": []int{1, 1, 1, 1}}, x, m.weight(0.1, 12, 8, 3, 3), nil))
	},
	"depthwise 5x5 hardswish": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 40, 9, 9)
		return m.done(m.op("HardSwish", nil, m.op("Conv", attrs{"group": 40, "pads": []int{2, 2, 2, 2}, "strides": []int{2, 2}}, x, m.weight(0.2, 40, 1, 5, 5), m.weight(1, 40))))
	},
	"channels last and back": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 3, 9, 7)
		a := m.op("Conv", nil, x, m.weight(0.2, 40, 3, 1, 1), m.weight(1, 40))
		l := m.op("LayerNormalization", attrs{"axis": -1}, m.op("Transpose", attrs{"perm": []int{0, 2, 3, 1}}, a), m.weight(1, 40), m.weight(1, 40))
		b := m.op("Transpose", attrs{"perm": []int{0, 3, 1, 2}}, m.op("MatMul", nil, l, m.weight(0.2, 40, 24)))
		return m.done(m.op("Conv", nil, b, m.weight(0.2, 16, 24, 1, 1), nil), m.op("Reshape", nil, b, m.ints(2, 24, 63)))
	},
	"conv 1d": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 20, 15)
		y := m.op("Conv", attrs{"pads": []int{1, 1}}, x, m.weight(0.1, 21, 20, 3), m.weight(1, 21))
		return m.done(m.op("Relu", nil, y))
	},
	"conv 3d (reference)": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 3, 4, 5, 6)
		return m.done(m.op("Conv", nil, x, m.weight(0.2, 4, 3, 2, 2, 2), nil))
	},
	"conv of computed weights (reference)": func(m *maker) *model.Graph {
		x, w := m.input(model.Float32, 1, 3, 6, 6), m.input(model.Float32, 4, 3, 3, 3)
		return m.done(m.op("Conv", nil, x, w, nil))
	},
	"conv transpose": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 4, 5, 6)
		y := m.op("ConvTranspose", attrs{"strides": []int{2, 2}}, x, m.weight(0.3, 4, 3, 2, 2), m.weight(1, 3))
		z := m.op("ConvTranspose", attrs{"strides": []int{2, 3}, "pads": []int{1, 0, 0, 1}, "output_padding": []int{1, 1}}, x, m.weight(0.2, 4, 17, 3, 3), nil)
		w := m.op("ConvTranspose", attrs{"group": 2, "dilations": []int{2, 1}, "pads": []int{1, 1, 1, 1}}, x, m.weight(0.2, 4, 3, 3, 3), nil)
		u := m.op("ConvTranspose", attrs{"strides": []int{2, 2}, "auto_pad": "SAME_UPPER"}, x, m.weight(0.2, 4, 3, 3, 3), nil)
		l := m.op("ConvTranspose", attrs{"strides": []int{2}}, m.input(model.Float32, 1, 3, 7), m.weight(0.3, 3, 2, 4), m.weight(1, 2))
		return m.done(m.op("Relu", nil, y), z, w, u, l)
	},
	"embedding and RMS norm": func(m *maker) *model.Graph {
		i := m.input(model.Int64, 2, 3)
		e := m.op("Gather", nil, m.weight(1, 10, 8), i)
		r := m.op("RMSNormalization", attrs{"axis": -1, "epsilon": 1e-6}, e, m.weight(1, 8))
		return m.done(r, m.op("Gather", attrs{"axis": 2}, e, m.ints(1, -1)), m.op("Gather", attrs{"axis": 1}, e, m.constant(model.Scalar(int64(2)))))
	},
	"gemm": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 3, 50)
		return m.done(m.op("Gemm", attrs{"transB": 1, "alpha": 0.5, "beta": 2.0}, x, m.weight(0.15, 33, 50), m.weight(1, 33)))
	},
	"gemm transA": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 50, 3)
		return m.done(m.op("Gemm", attrs{"transA": 1}, x, m.weight(0.15, 50, 33), m.weight(1, 33)))
	},
	"matmul constant, bias, gelu, residual": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 7, 48)
		y := m.op("Add", nil, m.op("MatMul", nil, x, m.weight(0.14, 48, 48)), m.weight(1, 48))
		z := m.op("Gelu", attrs{"approximate": "none"}, y)
		w := m.op("Add", nil, m.op("MatMul", nil, z, m.weight(0.14, 48, 48)), x)
		return m.done(w)
	},
	"attention": func(m *maker) *model.Graph {
		q, k := m.input(model.Float32, 2, 3, 9, 16), m.input(model.Float32, 2, 3, 9, 16)
		kt := m.op("Transpose", attrs{"perm": []int{0, 1, 3, 2}}, k)
		s := m.op("Softmax", attrs{"axis": -1}, m.op("Mul", nil, m.op("MatMul", nil, q, kt), m.scalar(0.25)))
		return m.done(m.op("MatMul", nil, s, k))
	},
	"matmul broadcast": func(m *maker) *model.Graph {
		a, b := m.input(model.Float32, 2, 3, 4, 5), m.input(model.Float32, 1, 1, 5, 6)
		c := m.input(model.Float32, 5, 6)
		d := m.input(model.Float32, 3, 5, 6) // only the reference broadcasts this one
		return m.done(m.op("MatMul", nil, a, b), m.op("MatMul", nil, a, c), m.op("MatMul", nil, a, d))
	},
	"binary broadcasts": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 20, 4, 5)
		y := m.op("Conv", nil, x, m.weight(0.2, 20, 20, 1, 1), nil) // channel-blocked
		var outs []*model.Value
		for _, s := range [][]int{{}, {1}, {5}, {20, 1, 1}, {1, 20, 1, 1}, {2, 20, 1, 1}, {2, 1, 4, 5}, {1, 1, 4, 5}, {20, 4, 5}, {2, 20, 4, 5}, {4, 1}} {
			c := m.input(model.Float32, s...)
			outs = append(outs, m.op("Mul", nil, y, c), m.op("Sub", nil, m.weight(1, s...), y))
		}
		return m.done(outs...)
	},
	"n-ary": func(m *maker) *model.Graph {
		a, b, c := m.input(model.Float32, 3, 4), m.input(model.Float32, 4), m.input(model.Float32, 3, 1)
		return m.done(m.op("Sum", nil, a, b, c), m.op("Max", nil, a, b, c), m.op("Min", nil, a), m.op("Mean", nil, a, b))
	},
	"binary ops": func(m *maker) *model.Graph {
		a, b := m.input(model.Float32, 3, 40), m.input(model.Float32, 3, 40)
		p := m.op("Exp", nil, a)
		return m.done(m.op("Div", nil, a, m.op("Add", nil, p, m.scalar(1))), m.op("Pow", nil, p, m.scalar(2)),
			m.op("Relu", nil, m.op("Sub", nil, a, b)), m.op("PRelu", nil, a, m.weight(1, 40)), m.op("Sub", nil, m.scalar(1), b))
	},
	"unary": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 18, 3, 3)
		y := m.op("MaxPool", attrs{"kernel_shape": []int{2, 2}}, x)
		p := m.op("Exp", nil, y)
		return m.done(p, m.op("Log", nil, p), m.op("Sqrt", nil, p), m.op("Reciprocal", nil, p), m.op("Neg", nil, y), m.op("Abs", nil, y),
			m.op("Erf", nil, y), m.op("Sin", nil, y), m.op("Floor", nil, x), m.op("Sign", nil, y))
	},
	"activations": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 5, 4, 4)
		return m.done(m.op("Sigmoid", nil, x), m.op("Tanh", nil, x), m.op("Swish", attrs{"alpha": 1.0}, x), m.op("Elu", nil, x),
			m.op("Softplus", nil, x), m.op("Mish", nil, x), m.op("Selu", nil, x), m.op("LeakyRelu", nil, x),
			m.op("HardSigmoid", nil, x), m.op("Clip", nil, x, m.scalar(-0.5), m.scalar(0.5)), m.op("Clip", nil, x, nil, m.scalar(0.25)),
			m.op("Softsign", nil, x), m.op("ThresholdedRelu", nil, x), m.op("Gelu", attrs{"approximate": "tanh"}, x), m.op("Celu", nil, x))
	},
	"pools": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 19, 9, 10)
		return m.done(
			m.op("MaxPool", attrs{"kernel_shape": []int{3, 3}, "strides": []int{2, 2}, "pads": []int{1, 1, 1, 1}}, x),
			m.op("MaxPool", attrs{"kernel_shape": []int{3, 3}, "strides": []int{2, 2}, "ceil_mode": 1}, x),
			m.op("AveragePool", attrs{"kernel_shape": []int{3, 3}, "pads": []int{1, 1, 1, 1}}, x),
			m.op("AveragePool", attrs{"kernel_shape": []int{3, 2}, "strides": []int{2, 1}, "pads": []int{1, 1, 1, 1}, "count_include_pad": 1}, x),
			m.op("GlobalAveragePool", nil, x), m.op("GlobalMaxPool", nil, x),
			m.op("LpPool", attrs{"kernel_shape": []int{2, 2}}, x))
	},
	"squeeze and excite": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 32, 6, 6)
		y := m.op("Conv", nil, x, m.weight(0.2, 32, 32, 1, 1), nil)
		s := m.op("Conv", nil, m.op("GlobalAveragePool", nil, y), m.weight(0.2, 8, 32, 1, 1), m.weight(1, 8))
		s = m.op("Sigmoid", nil, m.op("Conv", nil, m.op("Relu", nil, s), m.weight(0.3, 32, 8, 1, 1), m.weight(1, 32)))
		return m.done(m.op("Mul", nil, y, s))
	},
	"classifier head": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 32, 5, 5)
		y := m.op("Relu", nil, m.op("Conv", nil, x, m.weight(0.2, 32, 32, 1, 1), nil))
		f := m.op("Flatten", attrs{"axis": 1}, m.op("GlobalAveragePool", nil, y))
		return m.done(m.op("Gemm", attrs{"transB": 1}, f, m.weight(0.2, 10, 32), m.weight(1, 10)))
	},
	"reduce": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 17, 4, 5)
		y := m.op("Conv", nil, x, m.weight(0.2, 17, 17, 1, 1), nil)
		return m.done(m.op("ReduceMean", nil, y, m.ints(2, 3)), m.op("ReduceMean", attrs{"keepdims": 0}, y, m.ints(-1, -2)),
			m.op("ReduceSum", nil, y, m.ints(1)), m.op("ReduceMax", nil, y, m.ints(1, 3)), m.op("ReduceMean", nil, y), m.op("ReduceL2", nil, y, m.ints(3)))
	},
	"norms": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 24, 4, 4)
		return m.done(
			m.op("LayerNormalization", attrs{"axis": -1}, x, m.weight(1, 4), m.weight(1, 4)),
			m.op("LayerNormalization", attrs{"axis": 2}, x, m.weight(1, 4, 4), nil),
			m.op("GroupNormalization", attrs{"num_groups": 3}, x, m.weight(1, 24), m.weight(1, 24)),
			m.op("InstanceNormalization", nil, x, m.weight(1, 24), m.weight(1, 24)),
			m.op("BatchNormalization", nil, x, m.weight(1, 24), m.weight(1, 24), m.weight(1, 24), m.constant(positive(24))),
			m.op("LRN", attrs{"size": 3}, x))
	},
	"softmax axes": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 3, 4, 5)
		return m.done(m.op("Softmax", attrs{"axis": 1}, x), m.op("Softmax", nil, x), m.op("LogSoftmax", nil, x))
	},
	"concat and split": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 16, 5, 5)
		a := m.op("Conv", nil, x, m.weight(0.2, 16, 16, 1, 1), nil)
		b := m.op("Conv", nil, x, m.weight(0.2, 20, 16, 1, 1), nil)
		c := m.op("Concat", attrs{"axis": 1}, a, b, x)
		s := m.ops("Split", 3, attrs{"axis": 1}, c, m.ints(16, 10, 26))
		d := m.op("Concat", attrs{"axis": 3}, a, x)
		return m.done(append(s, c, d, m.op("Slice", nil, c, m.ints(3), m.ints(19), m.ints(1)))...)
	},
	"moves": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 8, 4, 6)
		y := m.op("Conv", nil, x, m.weight(0.2, 8, 8, 1, 1), nil)
		return m.done(
			m.op("Transpose", attrs{"perm": []int{0, 2, 3, 1}}, y), m.op("Transpose", nil, x),
			m.op("Slice", nil, y, m.ints(1, 5), m.ints(9, -9), m.ints(1, 3), m.ints(2, -2)),
			m.op("Pad", nil, y, m.ints(0, 0, 1, 2, 0, 0, 3, 0), m.scalar(0.3)), m.op("Pad", nil, x, m.ints(0, 0, -1, 2, 0, 0, 0, -1)),
			m.op("Pad", attrs{"mode": "reflect"}, x, m.ints(0, 0, 1, 1, 0, 0, 1, 1)),
			m.op("DepthToSpace", attrs{"blocksize": 2, "mode": "CRD"}, y), m.op("DepthToSpace", attrs{"blocksize": 2}, y),
			m.op("SpaceToDepth", attrs{"blocksize": 2}, y), m.op("Expand", nil, m.op("ReduceMax", nil, x, m.ints(2)), m.ints(2, 8, 3, 6)),
			m.op("Tile", nil, x, m.ints(1, 2, 1, 1)), m.op("Identity", nil, y),
			m.op("Unsqueeze", nil, y, m.ints(0)), m.op("Reshape", nil, y, m.ints(2, 4, 2, -1)))
	},
	"views of channel-blocked tensors": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 2, 16, 4, 16)
		y := m.op("Conv", nil, x, m.weight(0.2, 20, 16, 1, 1), nil)
		r := m.op("Reshape", nil, y, m.ints(2, 80, 4, 4))
		s := m.op("DepthToSpace", attrs{"blocksize": 2, "mode": "CRD"}, r)
		t := m.op("DepthToSpace", attrs{"blocksize": 2, "mode": "DCR"}, r)
		u := m.op("Relu", nil, m.op("Reshape", nil, r, m.ints(2, 20, 64)))
		v := m.ops("Split", 2, attrs{"axis": 1}, y, m.ints(3, 17))
		return m.done(s, t, u, r, v[0], v[1], m.op("Conv", nil, r, m.weight(0.1, 5, 80, 1, 1), nil))
	},
	"resize": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 1, 18, 4, 5)
		return m.done(
			m.op("Resize", attrs{"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, x, nil, m.floats(1, 1, 2, 2)),
			m.op("Resize", attrs{"mode": "linear"}, x, nil, m.floats(1, 1, 1.5, 2)),
			m.op("Resize", attrs{"mode": "linear", "coordinate_transformation_mode": "align_corners"}, x, nil, nil, m.ints(1, 18, 7, 11)),
			m.op("Resize", attrs{"mode": "cubic"}, x, nil, m.floats(1, 1, 2, 2)))
	},
	"integers and masks": func(m *maker) *model.Graph {
		x, i := m.input(model.Float32, 4, 6), m.input(model.Int64, 3)
		g := m.op("Gather", attrs{"axis": 0}, x, i)
		mask := m.op("Greater", nil, x, m.scalar(0))
		w := m.op("Where", nil, mask, x, m.scalar(0.1))
		return m.done(g, w, mask, m.op("Add", nil, i, m.ints(1)), m.op("Cast", attrs{"to": "fp32"}, i), m.op("Shape", nil, x), m.op("ArgMax", nil, x))
	},
	"data-dependent shapes": func(m *maker) *model.Graph {
		x := m.input(model.Float32, 4, 6)
		nz := m.op("NonZero", nil, m.op("Relu", nil, x))
		picked := m.op("GatherND", nil, x, m.op("Transpose", attrs{"perm": []int{1, 0}}, nz))
		return m.done(nz, picked, m.op("Mul", nil, picked, picked))
	},
}

func positive(n int) *model.Tensor {
	t := model.NewTensor(model.Float32, n)
	for i := range n {
		t.Set(i, 0.5+float64(i%7)/7)
	}
	return t
}

func TestOperatorsFP32(t *testing.T) {
	pool := kernels.NewPool(2)
	defer pool.Close()
	for name, f := range graphs {
		t.Run(name, func(t *testing.T) {
			check(t, f(newMaker(t, 3)), exec.Options{Pool: pool}, 2e-6)
		})
	}
}
