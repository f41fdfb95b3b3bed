package zoo

import (
	"fmt"
	"math"
	"strings"

	"github.com/triune-sim/triune/model"
)

// builder appends nodes to a graph. It computes every shape as it goes and
// panics with a buildError on a shape that cannot be (an input size too small
// for the network); build turns that into an error.
type builder struct {
	g       *model.Graph
	seedKey string // network name without the input size: weights depend on it
	moments map[*model.Value]moment
	offsets map[*model.Value]offset // of depthwise convolutions, for their batch norm
	names   map[string]int
	ints    map[string]*model.Value // shared small int64 constants
	eps     float64                 // of batch norms
}

type buildError struct{ error }

func newBuilder(name, seedKey string) *builder {
	return &builder{
		g:       &model.Graph{Name: name, Format: "zoo", Opset: "24"},
		seedKey: seedKey,
		moments: map[*model.Value]moment{},
		offsets: map[*model.Value]offset{},
		names:   map[string]int{},
		ints:    map[string]*model.Value{},
		eps:     1e-5,
	}
}

func fail(format string, args ...any) {
	panic(buildError{fmt.Errorf(format, args...)})
}

// unique returns name, with a number behind it when it is taken.
func (b *builder) unique(name string) string {
	n := b.names[name]
	b.names[name] = n + 1
	if n == 0 {
		return name
	}
	return b.unique(fmt.Sprintf("%s_%d", name, n))
}

// input declares a graph input.
func (b *builder) input(name string, d model.DType, shape ...int) *model.Value {
	v := &model.Value{Name: b.unique(name), DType: d, Shape: shape}
	b.g.Inputs = append(b.g.Inputs, v)
	b.moments[v] = moment{1, 0}
	return v
}

// image declares the input of an image network, [1,3,size,size].
func (b *builder) image(size int) *model.Value {
	return b.input("image", model.Float32, 1, 3, size, size)
}

// output declares v as a graph output under the given name.
func (b *builder) output(v *model.Value, name string) {
	v.Name = b.unique(name)
	b.g.Outputs = append(b.g.Outputs, v)
}

// node appends an operator with one output of the given type and shape.
func (b *builder) node(op model.Op, name string, attrs model.Attrs, d model.DType, shape model.Shape, in ...*model.Value) *model.Value {
	return b.nodeN(op, name, attrs, d, []model.Shape{shape}, in...)[0]
}

func (b *builder) nodeN(op model.Op, name string, attrs model.Attrs, d model.DType, shapes []model.Shape, in ...*model.Value) []*model.Value {
	if name == "" {
		name = strings.ToLower(string(op))
	}
	name = b.unique(name)
	n := &model.Node{Name: name, Op: op, Attrs: attrs, Inputs: in}
	for i, s := range shapes {
		for _, x := range s {
			if x <= 0 {
				fail("zoo: %s: node %q (%s) would have the shape %v: the input is too small for this network", b.g.Name, name, op, s)
			}
		}
		out := name + ".out"
		if len(shapes) > 1 {
			out = fmt.Sprintf("%s.out%d", name, i)
		}
		v := &model.Value{Name: out, DType: d, Shape: s.Clone(), Producer: n}
		b.moments[v] = b.moments[in[0]]
		n.Outputs = append(n.Outputs, v)
	}
	b.g.Nodes = append(b.g.Nodes, n)
	return n.Outputs
}

func (b *builder) constant(name string, c *model.Const) *model.Value {
	return &model.Value{Name: b.unique(name), DType: c.DType, Shape: c.Shape, Const: c}
}

func (b *builder) normal(name string, mean, std float64, shape ...int) *model.Value {
	return b.constant(name, fillNormal(seedOf(b.seedKey, name), mean, std, shape))
}

// filters returns weights of shape [out, ...] for inputs of moment m; with
// center each of the filters has a zero sum. Depthwise filters (one input
// channel) have not: see offset.
func (b *builder) filters(name string, m moment, fanIn int, center bool, shape ...int) *model.Value {
	center = center && fanIn >= 8
	if center || len(shape) > 1 && shape[1] == 1 {
		m = m.centered()
	}
	return b.constant(name, fillFilters(seedOf(b.seedKey, name), m.std(fanIn), fanIn, center, shape))
}

func (b *builder) uniform(name string, lo, hi float64, shape ...int) *model.Value {
	return b.constant(name, fillUniform(seedOf(b.seedKey, name), lo, hi, shape))
}

// vector returns an int64 constant (a target shape, a list of axes).
func (b *builder) vector(v ...int) *model.Value {
	key := fmt.Sprint(v)
	if c, ok := b.ints[key]; ok {
		return c
	}
	w := make([]int64, len(v))
	for i, x := range v {
		w[i] = int64(x)
	}
	c := b.constant("const."+strings.Trim(strings.ReplaceAll(key, " ", "x"), "[]"), model.NewConst(model.Of(w)))
	b.ints[key] = c
	return c
}

// scalar returns a 0-dimensional fp32 constant.
func (b *builder) scalar(name string, v float32) *model.Value {
	return b.constant(name, model.NewConst(model.Scalar(v)))
}

// conv describes a 2-D convolution. Zero values mean: stride 1, one group,
// padding that keeps the size at stride 1, no bias.
type conv struct {
	out, k, stride, groups int
	kw                     int // kernel width, where it is not k
	pad                    int // -1 for none; 0 means (k-1)/2
	bias                   bool
}

func (b *builder) conv(x *model.Value, name string, c conv) *model.Value {
	stride, groups, kh, kw := max(c.stride, 1), max(c.groups, 1), c.k, c.kw
	if kw == 0 {
		kw = kh
	}
	ph, pw := (kh-1)/2, (kw-1)/2
	if c.pad != 0 {
		ph, pw = max(c.pad, 0), max(c.pad, 0)
	}
	n, in, h, w := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	fan := in / groups * kh * kw
	weight := b.filters(name+".weight", b.moments[x], fan, in/groups > 1, c.out, in/groups, kh, kw)
	ins := []*model.Value{x, weight}
	var off offset
	if in == groups {
		off = offset{w: weight.Const, n: fan, mean: math.Sqrt(common * b.moments[x].pos)}
	}
	if c.bias {
		ins = append(ins, b.constant(name+".bias", off.bias(seedOf(b.seedKey, name+".bias"), -1, 0.05, c.out)))
		off = offset{}
	}
	y := b.node("Conv", name, model.Attrs{
		"kernel_shape": []int{kh, kw}, "strides": []int{stride, stride}, "dilations": []int{1, 1},
		"pads": []int{ph, pw, ph, pw}, "group": groups,
	}, x.DType, model.Shape{n, c.out, (h+2*ph-kh)/stride + 1, (w+2*pw-kw)/stride + 1}, ins...)
	b.moments[y] = moment{1, 0}
	if off.w != nil {
		b.offsets[y] = off
	}
	return y
}

// bn appends a batch norm. Its statistics are those of the convolution before
// it (mean near 0, variance near 1); last marks the one that ends a residual
// branch, whose scale is smaller, as in trained networks.
func (b *builder) bn(x *model.Value, name string, last bool) *model.Value {
	c := x.Shape[1]
	lo, hi := 0.5, 1.5
	if last {
		lo, hi = 0.2, 0.8
	}
	y := b.node("BatchNormalization", name, model.Attrs{"epsilon": b.eps}, x.DType, x.Shape, x,
		b.uniform(name+".weight", lo, hi, c), b.normal(name+".bias", 0, 0.1, c),
		b.constant(name+".running_mean", b.offsets[x].bias(seedOf(b.seedKey, name+".running_mean"), 1, 0.05, c)), b.uniform(name+".running_var", 0.7, 1.4, c))
	// E[1/v] of the variances is 0.99; E[g^2] is mean^2 + width^2/12.
	mean := (lo + hi) / 2
	b.moments[y] = moment{(mean*mean+(hi-lo)*(hi-lo)/12)*b.moments[x].ms + 0.01, 0}
	return y
}

// convBN is a convolution without bias and its batch norm, named as
// torchvision's Conv2dNormActivation: name.0 and name.1.
func (b *builder) convBN(x *model.Value, name string, c conv, last bool) *model.Value {
	return b.bn(b.conv(x, name+".0", c), name+".1", last)
}

// act is an activation function of the builder, for use as a parameter.
type act func(b *builder, x *model.Value) *model.Value

func relu(b *builder, x *model.Value) *model.Value {
	y := b.node("Relu", "", nil, x.DType, x.Shape, x)
	b.moments[y] = b.moments[x].rectified()
	return y
}

func relu6(b *builder, x *model.Value) *model.Value {
	y := b.node("Clip", "", nil, x.DType, x.Shape, x, b.scalar("zero", 0), b.scalar("six", 6))
	b.moments[y] = b.moments[x].rectified()
	return y
}

// Mean squares of the smooth activations of a standard normal variable.
const (
	swishMS = 0.3557
	geluMS  = 0.4252
)

// smooth is the moment after a smooth rectifier. Its mean makes up a smaller
// share of the mean square than a ReLU's (0.12 for Swish).
func (m moment) smooth(f float64) moment { return moment{m.ms * f, m.ms * f * 0.38} }

func swish(b *builder, x *model.Value) *model.Value {
	y := b.node("Swish", "", model.Attrs{"alpha": 1.0}, x.DType, x.Shape, x)
	b.moments[y] = b.moments[x].smooth(swishMS)
	return y
}

func hardSwish(b *builder, x *model.Value) *model.Value {
	y := b.node("HardSwish", "", nil, x.DType, x.Shape, x)
	b.moments[y] = b.moments[x].smooth(swishMS)
	return y
}

func gelu(b *builder, x *model.Value) *model.Value {
	y := b.node("Gelu", "", model.Attrs{"approximate": "none"}, x.DType, x.Shape, x)
	b.moments[y] = b.moments[x].smooth(geluMS)
	return y
}

// gate functions: values between 0 and 1, of mean square about 0.3.

func sigmoid(b *builder, x *model.Value) *model.Value {
	y := b.node("Sigmoid", "", nil, x.DType, x.Shape, x)
	b.moments[y] = moment{0.29, 0.29}
	return y
}

func hardSigmoid(b *builder, x *model.Value) *model.Value {
	y := b.node("HardSigmoid", "", model.Attrs{"alpha": 1.0 / 6, "beta": 0.5}, x.DType, x.Shape, x)
	b.moments[y] = moment{0.28, 0.28}
	return y
}

// broadcast returns the shape of an element-wise operator.
func (b *builder) broadcast(x, y model.Shape) model.Shape {
	n := max(len(x), len(y))
	out := make(model.Shape, n)
	for i := range out {
		p, q := 1, 1
		if j := i - n + len(x); j >= 0 {
			p = x[j]
		}
		if j := i - n + len(y); j >= 0 {
			q = y[j]
		}
		if p != q && p != 1 && q != 1 {
			fail("zoo: %s: shapes %v and %v do not broadcast", b.g.Name, x, y)
		}
		out[i] = max(p, q)
	}
	return out
}

func (b *builder) add(x, y *model.Value) *model.Value {
	z := b.node("Add", "", nil, x.DType, b.broadcast(x.Shape, y.Shape), x, y)
	b.moments[z] = b.moments[x].plus(b.moments[y])
	return z
}

func (b *builder) mul(x, y *model.Value) *model.Value {
	z := b.node("Mul", "", nil, x.DType, b.broadcast(x.Shape, y.Shape), x, y)
	mx, my := b.moments[x], b.moments[y]
	m := moment{ms: mx.ms * my.ms}
	if mx.pos == mx.ms && my.pos == my.ms {
		m.pos = m.ms
	}
	b.moments[z] = m
	return z
}

func (b *builder) pool(op model.Op, x *model.Value, k, stride, pad int, attrs model.Attrs) *model.Value {
	a := model.Attrs{"kernel_shape": []int{k, k}, "strides": []int{stride, stride}, "pads": []int{pad, pad, pad, pad}}
	for k, v := range attrs {
		a[k] = v
	}
	up := 0
	if a.Int("ceil_mode", 0) == 1 {
		up = stride - 1
	}
	h, w := x.Shape[2], x.Shape[3]
	return b.node(op, "", a, x.DType, model.Shape{x.Shape[0], x.Shape[1], (h+2*pad-k+up)/stride + 1, (w+2*pad-k+up)/stride + 1}, x)
}

func (b *builder) maxPool(x *model.Value, k, stride, pad int) *model.Value {
	y := b.pool("MaxPool", x, k, stride, pad, nil)
	b.moments[y] = b.moments[x].scaled(1.5)
	return y
}

func (b *builder) avgPool(x *model.Value, k, stride, pad int) *model.Value {
	y := b.pool("AveragePool", x, k, stride, pad, model.Attrs{"count_include_pad": 1})
	b.moments[y] = b.moments[x].scaled(0.7)
	return y
}

// globalAvgPool averages over space: [n,c,h,w] to [n,c,1,1].
func (b *builder) globalAvgPool(x *model.Value) *model.Value {
	y := b.node("GlobalAveragePool", "", nil, x.DType, model.Shape{x.Shape[0], x.Shape[1], 1, 1}, x)
	b.moments[y] = b.moments[x].scaled(0.5)
	return y
}

func (b *builder) flatten(x *model.Value) *model.Value {
	n := int(x.Shape[1:].Elems())
	return b.node("Flatten", "", model.Attrs{"axis": 1}, x.DType, model.Shape{x.Shape[0], n}, x)
}

// linear is a fully connected layer on [m,k], exported as Gemm with the
// transposed weight [out,k] as frameworks store it.
func (b *builder) linear(x *model.Value, name string, out int) *model.Value {
	k := x.Shape[1]
	y := b.node("Gemm", name, model.Attrs{"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}, x.DType, model.Shape{x.Shape[0], out}, x,
		b.filters(name+".weight", b.moments[x], k, true, out, k), b.normal(name+".bias", 0, 0.05, out))
	b.moments[y] = moment{1, 0}
	return y
}

// project is a fully connected layer on the last axis of a tensor of any
// rank: MatMul with a constant [k,out], and Add when there is a bias.
func (b *builder) project(x *model.Value, name string, out int, bias bool) *model.Value {
	r := len(x.Shape)
	k := x.Shape[r-1]
	shape := x.Shape.Clone()
	shape[r-1] = out
	w := b.normal(name+".weight", 0, b.moments[x].std(k), k, out)
	y := b.node("MatMul", name, nil, x.DType, shape, x, w)
	b.moments[y] = moment{1, 0}
	if !bias {
		return y
	}
	z := b.node("Add", name+".add", nil, x.DType, shape, y, b.normal(name+".bias", 0, 0.05, out))
	b.moments[z] = moment{1, 0}
	return z
}

// matmul multiplies two activations (batch axes equal).
func (b *builder) matmul(x, y *model.Value) *model.Value {
	r := len(x.Shape)
	if x.Shape[r-1] != y.Shape[len(y.Shape)-2] {
		fail("zoo: %s: product of %v and %v", b.g.Name, x.Shape, y.Shape)
	}
	shape := append(b.broadcast(x.Shape[:r-2], y.Shape[:len(y.Shape)-2]), x.Shape[r-2], y.Shape[len(y.Shape)-1])
	z := b.node("MatMul", "", nil, x.DType, shape, x, y)
	b.moments[z] = moment{b.moments[x].ms * b.moments[y].ms * float64(x.Shape[r-1]), 0}
	return z
}

func (b *builder) softmax(x *model.Value, axis int) *model.Value {
	n := float64(x.Shape[(axis+len(x.Shape))%len(x.Shape)])
	y := b.node("Softmax", "", model.Attrs{"axis": axis}, x.DType, x.Shape, x)
	// Scores of unit variance: E[p^2] is about e/n^2.
	b.moments[y] = moment{math.E / (n * n), math.E / (n * n)}
	return y
}

func (b *builder) concat(axis int, xs ...*model.Value) *model.Value {
	shape := xs[0].Shape.Clone()
	axis = (axis + len(shape)) % len(shape)
	n := float64(shape[axis])
	m := b.moments[xs[0]].scaled(n)
	for _, x := range xs[1:] {
		shape[axis] += x.Shape[axis]
		k := float64(x.Shape[axis])
		m, n = m.plus(b.moments[x].scaled(k)), n+k
	}
	y := b.node("Concat", "", model.Attrs{"axis": axis}, xs[0].DType, shape, xs...)
	b.moments[y] = m.scaled(1 / n)
	return y
}

// split cuts x along an axis into parts of the given sizes.
func (b *builder) split(x *model.Value, axis int, sizes ...int) []*model.Value {
	shapes := make([]model.Shape, len(sizes))
	for i, s := range sizes {
		shapes[i] = x.Shape.Clone()
		shapes[i][axis] = s
	}
	return b.nodeN("Split", "", model.Attrs{"axis": axis}, x.DType, shapes, x, b.vector(sizes...))
}

func (b *builder) reshape(x *model.Value, shape ...int) *model.Value {
	if model.Shape(shape).Elems() != x.Shape.Elems() {
		fail("zoo: %s: cannot view %v as %v", b.g.Name, x.Shape, model.Shape(shape))
	}
	return b.node("Reshape", "", nil, x.DType, shape, x, b.vector(shape...))
}

func (b *builder) transpose(x *model.Value, perm ...int) *model.Value {
	shape := make(model.Shape, len(perm))
	for i, p := range perm {
		shape[i] = x.Shape[p]
	}
	return b.node("Transpose", "", model.Attrs{"perm": perm}, x.DType, shape, x)
}

// layerNorm normalises over the last axis.
func (b *builder) layerNorm(x *model.Value, name string, eps float64) *model.Value {
	c := x.Shape[len(x.Shape)-1]
	y := b.node("LayerNormalization", name, model.Attrs{"axis": -1, "epsilon": eps}, x.DType, x.Shape, x,
		b.uniform(name+".weight", 0.5, 1.5, c), b.normal(name+".bias", 0, 0.1, c))
	b.moments[y] = moment{1.09, 0}
	return y
}
