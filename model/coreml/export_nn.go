package coreml

import (
	"encoding/json"
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
)

func init() {
	writes((*emitter).conv, "Conv")
	writes((*emitter).convTranspose, "ConvTranspose")
	writes((*emitter).gemm, "Gemm")
	writes((*emitter).matmul, "MatMul")
	writes(func(e *emitter) {
		var vs []ref
		for i := range e.n.Inputs {
			vs = append(vs, e.in(i))
		}
		e.op("einsum", param{"values", vs}, param{"equation", e.n.Attrs.String("equation", "")})
	}, "Einsum")
	writes(func(e *emitter) { e.pool("max_pool") }, "MaxPool")
	writes(func(e *emitter) { e.pool("avg_pool") }, "AveragePool")
	writes(func(e *emitter) {
		if e.n.Attrs.Int("p", 2) != 2 {
			failf("p = %d (want 2)", e.n.Attrs.Int("p", 2))
		}
		e.pool("l2_pool")
	}, "LpPool")
	writes(func(e *emitter) { e.global("reduce_mean") }, "GlobalAveragePool")
	writes(func(e *emitter) { e.global("reduce_max") }, "GlobalMaxPool")
	writes((*emitter).batchNorm, "BatchNormalization")
	writes(func(e *emitter) {
		e.op("instance_norm", param{"x", e.in(0)}, param{"gamma", e.in(1)}, param{"beta", e.in(2)}, param{"epsilon", e.num(e.n.Attrs.Float("epsilon", 1e-5))})
	}, "InstanceNormalization")
	writes((*emitter).layerNorm, "LayerNormalization")
	writes((*emitter).groupNorm, "GroupNormalization")
	writes((*emitter).rmsNorm, "RMSNormalization")
	writes(func(e *emitter) {
		a := e.n.Attrs
		e.op("local_response_norm", param{"x", e.in(0)}, param{"size", a.Int("size", 1)}, param{"alpha", e.num(a.Float("alpha", 1e-4))},
			param{"beta", e.num(a.Float("beta", 0.75))}, param{"k", e.num(a.Float("bias", 1))})
	}, "LRN")
	for mil, op := range reduceOps {
		writes(func(e *emitter) {
			axes := e.ints(1)
			if len(axes) == 0 {
				if e.n.Attrs.Int("noop_with_empty_axes", 0) != 0 {
					e.op("identity", param{"x", e.in(0)})
					return
				}
				axes = seq(0, len(e.shape(0)))
			}
			e.op(mil, param{"x", e.in(0)}, param{"axes", axes}, param{"keep_dims", e.n.Attrs.Int("keepdims", 1) != 0})
		}, op)
	}
	for mil, op := range map[string]model.Op{"reduce_argmax": "ArgMax", "reduce_argmin": "ArgMin"} {
		writes(func(e *emitter) {
			if e.n.Attrs.Int("select_last_index", 0) != 0 {
				failf("the last of equal elements (Core ML takes the first)")
			}
			e.op(mil, param{"x", e.in(0)}, param{"axis", e.n.Attrs.Int("axis", 0)}, param{"keep_dims", e.n.Attrs.Int("keepdims", 1) != 0})
		}, op)
	}
}

// window returns strides, pads (as MIL orders them), dilations and groups of
// a convolution or a pool of n spatial axes.
func (e *emitter) window(n int) (strides, pads, dilations []int) {
	ones := slices.Repeat([]int{1}, n)
	a := e.n.Attrs
	strides, dilations = a.Ints("strides", ones), a.Ints("dilations", ones)
	p := a.Ints("pads", make([]int, 2*n))
	if auto := a.String("auto_pad", "NOTSET"); auto != "NOTSET" && auto != "" && auto != "VALID" {
		kernel := a.Ints("kernel_shape", nil)
		if kernel == nil && e.has(1) {
			kernel = e.shape(1)[2:]
		}
		p = make([]int, 2*n)
		for i := range n {
			d := e.shape(0)[2+i]
			out := (d + strides[i] - 1) / strides[i]
			total := max((out-1)*strides[i]+(kernel[i]-1)*dilations[i]+1-d, 0)
			p[i], p[n+i] = total/2, total-total/2
			if auto == "SAME_LOWER" {
				p[i], p[n+i] = p[n+i], p[i]
			}
		}
	}
	if len(strides) != n || len(dilations) != n || len(p) != 2*n {
		failf("strides %v, dilations %v, pads %v for %d spatial axes", strides, dilations, p, n)
	}
	for i := range n {
		pads = append(pads, p[i], p[n+i])
	}
	return strides, pads, dilations
}

func padType(pads []int) string {
	for _, p := range pads {
		if p != 0 {
			return "custom"
		}
	}
	return "valid"
}

// vector returns a constant vector operand such as a bias.
func (e *emitter) vector(i int) any {
	if !e.has(i) {
		return nil
	}
	return e.in(i)
}

func (e *emitter) conv() {
	n := len(e.shape(0)) - 2
	strides, pads, dil := e.window(n)
	x := e.in(0)
	e.op("conv", param{"pad_type", padType(pads)}, param{"pad", pads}, param{"strides", strides}, param{"dilations", dil},
		param{"groups", e.n.Attrs.Int("group", 1)}, param{"weight", e.in(1)}, param{"bias", e.vector(2)}, param{"x", x})
}

func (e *emitter) convTranspose() {
	n := len(e.shape(0)) - 2
	out := e.n.Out(0).Shape
	a := e.n.Attrs
	strides, pads, dil := e.window(n)
	w := e.shape(1)
	if a.Ints("output_shape", nil) != nil || a.String("auto_pad", "NOTSET") != "NOTSET" {
		// Derive the pads from the output's size, as ONNX defines it.
		op := a.Ints("output_padding", make([]int, n))
		for i := range n {
			total := max(strides[i]*(e.shape(0)[2+i]-1)+op[i]+(w[2+i]-1)*dil[i]+1-out[2+i], 0)
			pads[2*i], pads[2*i+1] = total-total/2, total/2
			if a.String("auto_pad", "") == "SAME_UPPER" {
				pads[2*i], pads[2*i+1] = total/2, total-total/2
			}
		}
	}
	kind := padType(pads)
	e.op("conv_transpose", param{"pad_type", kind}, param{"pad", pads}, param{"strides", strides}, param{"dilations", dil},
		param{"groups", a.Int("group", 1)}, param{"output_shape", []int(out)}, param{"weight", e.in(1)}, param{"bias", e.vector(2)}, param{"x", e.in(0)})
}

// gemm is linear where the right operand is constant.
func (e *emitter) gemm() {
	a := e.n.Attrs
	alpha, beta := a.Float("alpha", 1), a.Float("beta", 1)
	w, bias := e.n.In(1), e.n.In(2)
	s, d := e.n.Out(0).Shape, e.dtype(0)
	y, last := ref(""), bias == nil && alpha == 1
	if w.Const != nil && a.Int("transA", 0) == 0 && e.n.In(0).Const == nil {
		k := w.Const
		if a.Int("transB", 0) == 0 {
			k = permuteConst(k, []int{1, 0})
		}
		wr := e.x.constantAs(w, k)
		if alpha == 1 && bias != nil && bias.Const != nil && beta == 1 && plainStorage(bias.Const) && bias.Const.Elems() == int64(s[1]) {
			e.op("linear", param{"weight", wr}, param{"bias", e.x.constantAs(bias, flat(bias.Const, model.Shape{s[1]}))}, param{"x", e.in(0)})
			return
		}
		if last {
			e.op("linear", param{"weight", wr}, param{"x", e.in(0)})
			return
		}
		y = e.mid("linear", d, s, param{"weight", wr}, param{"x", e.in(0)})
	} else {
		p := []param{{"transpose_x", a.Int("transA", 0) != 0}, {"transpose_y", a.Int("transB", 0) != 0}, {"x", e.in(0)}, {"y", e.in(1)}}
		if last {
			e.op("matmul", p...)
			return
		}
		y = e.mid("matmul", d, s, p...)
	}
	if alpha != 1 {
		if bias == nil {
			e.op("mul", param{"x", y}, param{"y", e.num(alpha)})
			return
		}
		y = e.mid("mul", d, s, param{"x", y}, param{"y", e.num(alpha)})
	}
	b := e.in(2)
	if beta != 1 {
		b = e.mid("mul", d, bias.Shape, param{"x", b}, param{"y", e.num(beta)})
	}
	e.op("add", param{"x", y}, param{"y", b})
}

func (e *emitter) matmul() {
	a, w := e.n.In(0), e.n.In(1)
	if w.Const != nil && len(w.Shape) == 2 && a.Const == nil && w.DType.IsFloat() {
		wr := e.x.constantAs(w, permuteConst(w.Const, []int{1, 0}))
		add := e.x.bias[e.n]
		if add == nil {
			e.op("linear", param{"weight", wr}, param{"x", e.in(0)})
			return
		}
		b := add.In(1)
		if b.Const == nil {
			b = add.In(0)
		}
		// The sum takes the product's place; its name is the addition's.
		sum := &emitter{e.x, add}
		sum.op("linear", param{"weight", wr}, param{"bias", e.x.constant(b)}, param{"x", e.in(0)})
		e.x.written[e.n.Out(0)] = true
		return
	}
	operand := func(v *model.Value) (ref, bool) {
		if t := e.x.transposed[v]; t != nil {
			e.x.written[v] = true
			return e.x.ref(t), true
		}
		return e.x.ref(v), false
	}
	x, tx := operand(a)
	y, ty := operand(w)
	e.op("matmul", param{"transpose_x", tx}, param{"transpose_y", ty}, param{"x", x}, param{"y", y})
}

func (e *emitter) pool(typ string) {
	a := e.n.Attrs
	kernel := a.Ints("kernel_shape", nil)
	n := len(e.shape(0)) - 2
	strides, pads, dil := e.window(n)
	for _, d := range dil {
		if d != 1 {
			failf("dilations %v (Core ML's pools have none)", dil)
		}
	}
	if len(e.n.Outputs) > 1 && e.n.Out(1) != nil {
		failf("indices as a second output")
	}
	p := []param{{"x", e.in(0)}, {"kernel_sizes", kernel}, {"strides", strides}, {"pad_type", padType(pads)}, {"pad", pads}}
	if typ == "avg_pool" {
		p = append(p, param{"exclude_padding_from_average", a.Int("count_include_pad", 0) == 0})
	}
	e.op(typ, append(p, param{"ceil_mode", a.Int("ceil_mode", 0) != 0})...)
}

func (e *emitter) global(typ string) {
	e.op(typ, param{"x", e.in(0)}, param{"axes", seq(2, len(e.shape(0))-2)}, param{"keep_dims", true})
}

func (e *emitter) batchNorm() {
	if len(e.n.Outputs) > 1 {
		failf("training outputs")
	}
	if e.n.Attrs.Int("training_mode", 0) != 0 {
		failf("training mode")
	}
	e.op("batch_norm", param{"x", e.in(0)}, param{"gamma", e.in(1)}, param{"beta", e.in(2)}, param{"mean", e.in(3)}, param{"variance", e.in(4)},
		param{"epsilon", e.num(e.n.Attrs.Float("epsilon", 1e-5))})
}

func (e *emitter) layerNorm() {
	if len(e.n.Outputs) > 1 {
		failf("the mean as a second output")
	}
	s := e.shape(0)
	a := axis(e.n.Attrs.Int("axis", -1), len(s))
	axes := seq(a, len(s)-a)
	fit := func(i int) any {
		if !e.has(i) {
			return nil
		}
		v := e.n.In(i)
		if v.Const != nil && plainStorage(v.Const) && v.Const.Elems() == model.Shape(s[a:]).Elems() {
			return e.x.constantAs(v, flat(v.Const, s[a:].Clone()))
		}
		failf("scale or bias of shape %v for axes of %v", v.Shape, s[a:])
		return nil
	}
	e.op("layer_norm", param{"x", e.in(0)}, param{"axes", axes}, param{"gamma", fit(1)}, param{"beta", fit(2)}, param{"epsilon", e.num(e.n.Attrs.Float("epsilon", 1e-5))})
}

// groupNorm normalises groups of channels: a reshape, a layer norm over the
// group, and a scale and bias per channel.
func (e *emitter) groupNorm() {
	s, d := e.shape(0), e.dtype(0)
	g := e.n.Attrs.Int("num_groups", 1)
	if len(s) < 3 || g < 1 || s[1]%g != 0 {
		failf("%d groups of x of shape %v", g, s)
	}
	grouped := append(model.Shape{s[0], g, s[1] / g}, s[2:]...)
	y := e.mid("reshape", d, grouped, param{"x", e.in(0)}, param{"shape", []int(grouped)})
	y = e.mid("layer_norm", d, grouped, param{"x", y}, param{"axes", seq(2, len(grouped)-2)}, param{"epsilon", e.num(e.n.Attrs.Float("epsilon", 1e-5))})
	y = e.mid("reshape", d, s, param{"x", y}, param{"shape", []int(s)})
	channel := func(i int) ref {
		v := e.n.In(i)
		c := append(model.Shape{s[1]}, slices.Repeat([]int{1}, len(s)-2)...)
		if v.Const == nil || !plainStorage(v.Const) || v.Const.Elems() != int64(s[1]) {
			failf("scale or bias of shape %v", v.Shape)
		}
		return e.x.constantAs(v, flat(v.Const, c))
	}
	y = e.mid("mul", d, s, param{"x", y}, param{"y", channel(1)})
	e.op("add", param{"x", y}, param{"y", channel(2)})
}

// rmsNorm is x * rsqrt(mean(x^2) + epsilon) * scale.
func (e *emitter) rmsNorm() {
	s, d := e.shape(0), e.dtype(0)
	a := axis(e.n.Attrs.Int("axis", -1), len(s))
	r := s.Clone()
	for i := a; i < len(r); i++ {
		r[i] = 1
	}
	sq := e.mid("square", d, s, param{"x", e.in(0)})
	m := e.mid("reduce_mean", d, r, param{"x", sq}, param{"axes", seq(a, len(s)-a)}, param{"keep_dims", true})
	q := e.mid("rsqrt", d, r, param{"x", m}, param{"epsilon", e.num(e.n.Attrs.Float("epsilon", 1e-5))})
	y := e.mid("mul", d, s, param{"x", e.in(0)}, param{"y", q})
	e.op("mul", param{"x", y}, param{"y", e.in(1)})
}

// writeState ends a state's update.
func (x *exporter) writeState(stateOut map[string]string, out *model.Value) {
	for _, s := range x.g.Inputs {
		if stateOut[s.Name] != out.Name {
			continue
		}
		v := out
		if p := out.Producer; p != nil && x.skip[p] {
			v = p.In(0)
		}
		x.add("write_state", x.fresh(s.Name+"_write_state"), nil, param{"input", ref(x.names[s])}, param{"data", x.ref(v)})
		return
	}
}

// classify ends a classifier: the label and a dictionary of probabilities.
func (x *exporter) classify(out *model.Value, fn *function, d *description) {
	v := out
	if p := out.Producer; p != nil && x.skip[p] {
		v = p.In(0)
	}
	r := x.ref(v)
	if v.DType != model.Float32 {
		name := x.fresh(string(r) + "_cast_to_fp32")
		x.add("cast", name, []named{{name, tensorType(model.Float32, v.Shape)}}, param{"x", r}, param{"dtype", "fp32"})
		r = ref(name)
	}
	var labels []any
	dec := json.Unmarshal([]byte(x.g.Meta[MetaClasses]), &labels)
	if dec != nil || int64(len(labels)) != v.Shape.Elems() {
		failf("%d class labels for output %q of shape %v", len(labels), out.Name, v.Shape)
	}
	kind := tensorType(model.String, model.Shape{})
	list := &value{isList: true}
	ints := true
	for _, l := range labels {
		f, ok := l.(float64)
		ints = ints && ok && f == math.Trunc(f)
	}
	for _, l := range labels {
		e := &value{typ: kind}
		switch l := l.(type) {
		case string:
			e.kase, e.strs = 4, []string{l}
		case float64:
			e.kase, e.ints = 5, []int64{int64(l)}
		}
		if ints {
			e.typ.dtype = model.Int64
		} else if e.kase != 4 {
			failf("class labels of mixed types")
		}
		list.list = append(list.list, e)
	}
	if ints {
		kind.dtype = model.Int64
	}
	list.typ = valueType{kind: kindList, elem: &kind, length: len(labels)}
	label := x.g.Meta[MetaLabel]
	if label == "" {
		label = "classLabel"
	}
	label = x.fresh(label)
	probs := x.names[out]
	value := tensorType(model.Float32, model.Shape{})
	op := &operation{typ: "classify", title: x.fresh("classify"),
		inputs:  []argument{{"classes", []binding{{val: list}}}, {"probabilities", []binding{{name: string(r)}}}},
		outputs: []named{{label, kind}, {probs, valueType{kind: kindDict, keyTyp: &kind, elem: &value}}}}
	x.ops = append(x.ops, op)
	fn.block.outputs = append(fn.block.outputs, label, probs)
	lf := feature{name: label, kind: featureString}
	if ints {
		lf.kind = featureInt64
	}
	d.outputs = append(d.outputs, lf, feature{name: probs, kind: featureDictionary, keyInt64: ints})
	d.predicted, d.probabilities = label, probs
}
