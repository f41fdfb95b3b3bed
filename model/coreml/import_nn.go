package coreml

import (
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
)

// Convolutions, products, norms, pools and reductions.

func init() {
	handle((*call).conv, "conv")
	handle((*call).convTranspose, "conv_transpose")
	handle((*call).linear, "linear")
	handle((*call).matmul, "matmul")
	handle(func(c *call) {
		c.result("Einsum", model.Attrs{"equation": c.str("equation", "")}, c.list("values")...)
	}, "einsum")
	handle((*call).batchNorm, "batch_norm")
	handle((*call).instanceNorm, "instance_norm")
	handle((*call).layerNorm, "layer_norm")
	handle(func(c *call) {
		// x / sqrt(sum of squares over the last three axes + epsilon)
		x := c.in("x")
		r := rank(x)
		s := c.mid("ReduceSumSquare", model.Attrs{"keepdims": 1}, x, c.int64s("axes", seq(max(r-3, 0), min(r, 3))...))
		c.result("Div", nil, x, c.mid("Sqrt", nil, c.plus(s, c.float("epsilon", 1e-6))))
	}, "l2_norm")
	handle(func(c *call) {
		c.result("LRN", model.Attrs{"size": c.int("size", 1), "alpha": c.float("alpha", 1e-4), "beta": c.float("beta", 0.75), "bias": c.float("k", 1)}, c.in("x"))
	}, "local_response_norm")

	handle(func(c *call) { c.pool("MaxPool") }, "max_pool")
	handle(func(c *call) { c.pool("AveragePool") }, "avg_pool")
	handle(func(c *call) { c.pool("LpPool") }, "l2_pool")

	for mil, op := range reduceOps {
		handle(func(c *call) {
			x := c.in("x")
			axes := axesOf(c.ints("axes", seq(0, rank(x))), rank(x))
			attrs := model.Attrs{"keepdims": b2i(c.bool("keep_dims", false))}
			c.result(op, attrs, x, c.int64s("axes", axes...))
		}, mil)
	}
	for mil, op := range map[string]model.Op{"reduce_argmax": "ArgMax", "reduce_argmin": "ArgMin"} {
		handle(func(c *call) {
			x := c.in("x")
			c.result(op, model.Attrs{"axis": axis(c.int("axis", -1), rank(x)), "keepdims": b2i(c.bool("keep_dims", false)), "select_last_index": 0}, x)
		}, mil)
	}
	handle((*call).attention, "scaled_dot_product_attention")
}

var reduceOps = map[string]model.Op{
	"reduce_l1_norm": "ReduceL1", "reduce_l2_norm": "ReduceL2", "reduce_log_sum": "ReduceLogSum",
	"reduce_log_sum_exp": "ReduceLogSumExp", "reduce_max": "ReduceMax", "reduce_mean": "ReduceMean",
	"reduce_min": "ReduceMin", "reduce_prod": "ReduceProd", "reduce_sum": "ReduceSum", "reduce_sum_square": "ReduceSumSquare",
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// window is the geometry of a convolution or a pool.
type window struct {
	strides, dilations, pads []int // pads as ONNX has them: all begins, all ends
}

// window reads strides, dilations and padding for n spatial axes of x; MIL
// orders pads by axis (begin, end, begin, end, ...).
func (c *call) window(x *model.Value, kernel []int, n int, pads bool) window {
	ones := make([]int, n)
	for i := range ones {
		ones[i] = 1
	}
	w := window{strides: c.ints("strides", ones), dilations: c.ints("dilations", ones), pads: make([]int, 2*n)}
	if len(w.strides) != n || len(w.dilations) != n || len(kernel) != n {
		failf("kernel %v, strides %v and dilations %v for %d spatial axes", kernel, w.strides, w.dilations, n)
	}
	for i := range n {
		if w.strides[i] < 1 || w.dilations[i] < 1 || kernel[i] < 1 {
			failf("kernel %v, strides %v, dilations %v: all must be positive", kernel, w.strides, w.dilations)
		}
	}
	if !pads {
		return w
	}
	switch kind := c.str("pad_type", "valid"); kind {
	case "valid":
	case "custom":
		p := c.ints("pad", make([]int, 2*n))
		if len(p) != 2*n {
			failf("pad %v for %d spatial axes", p, n)
		}
		for i := range n {
			if p[2*i] < 0 || p[2*i+1] < 0 {
				failf("negative pad %v", p)
			}
			w.pads[i], w.pads[n+i] = p[2*i], p[2*i+1]
		}
	case "same", "same_lower":
		for i := range n {
			d := x.Shape[len(x.Shape)-n+i]
			if d < 0 {
				failf("pad_type %s of an unknown size", quote(kind))
			}
			out := (d + w.strides[i] - 1) / w.strides[i]
			total := max((out-1)*w.strides[i]+(kernel[i]-1)*w.dilations[i]+1-d, 0)
			w.pads[i], w.pads[n+i] = total/2, total-total/2
			if kind == "same_lower" {
				w.pads[i], w.pads[n+i] = w.pads[n+i], w.pads[i]
			}
		}
	default:
		failf("pad_type %s (want valid, custom, same or same_lower)", quote(kind))
	}
	return w
}

func (c *call) conv() {
	x, w := c.in("x"), c.in("weight")
	n := rank(x) - 2
	if n < 1 || rank(w) != n+2 {
		failf("x of shape %v with a weight of shape %v", x.Shape, w.Shape)
	}
	kernel := slices.Clone([]int(w.Shape[2:]))
	win := c.window(x, kernel, n, true)
	ins := []*model.Value{x, w}
	if b := c.opt("bias"); b != nil {
		ins = append(ins, b)
	}
	c.result("Conv", model.Attrs{"kernel_shape": kernel, "strides": win.strides, "dilations": win.dilations, "pads": win.pads, "group": c.int("groups", 1)}, ins...)
}

func (c *call) convTranspose() {
	x, w := c.in("x"), c.in("weight")
	n := rank(x) - 2
	if n < 1 || rank(w) != n+2 {
		failf("x of shape %v with a weight of shape %v", x.Shape, w.Shape)
	}
	kernel := slices.Clone([]int(w.Shape[2:]))
	kind := c.str("pad_type", "valid")
	win := c.window(x, kernel, n, kind == "custom" || kind == "valid")
	outPad := make([]int, n)
	size := func(i int) int { // output without padding
		return (x.Shape[2+i]-1)*win.strides[i] + (kernel[i]-1)*win.dilations[i] + 1
	}
	want := c.ints("output_shape", nil)
	if want != nil && len(want) != n && len(want) != n+2 {
		failf("output_shape %v for %d spatial axes", want, n)
	}
	if len(want) == n+2 {
		want = want[2:]
	}
	for i := range n {
		if x.Shape[2+i] < 0 && (want != nil || kind == "same" || kind == "same_lower") {
			failf("an output size with an input of unknown size")
		}
		if kind == "same" || kind == "same_lower" {
			total := max(size(i)-x.Shape[2+i]*win.strides[i], 0)
			if want != nil {
				total = max(size(i)-want[i], 0)
			}
			win.pads[i], win.pads[n+i] = total/2, total-total/2
			if kind == "same_lower" {
				win.pads[i], win.pads[n+i] = win.pads[n+i], win.pads[i]
			}
		} else if kind != "custom" && kind != "valid" {
			failf("pad_type %s (want valid, custom, same or same_lower)", quote(kind))
		}
		if want != nil {
			outPad[i] = want[i] - (size(i) - win.pads[i] - win.pads[n+i])
			// A larger crop than the pads give is a pad at the end.
			if outPad[i] < 0 {
				win.pads[n+i] -= outPad[i]
				outPad[i] = 0
			}
		}
	}
	ins := []*model.Value{x, w}
	if b := c.opt("bias"); b != nil {
		ins = append(ins, b)
	}
	c.result("ConvTranspose", model.Attrs{"kernel_shape": kernel, "strides": win.strides, "dilations": win.dilations,
		"pads": win.pads, "group": c.int("groups", 1), "output_padding": outPad}, ins...)
}

// linear is x W' + b with W [out, in]: a Gemm for matrices, else a MatMul with
// the weight transposed where it is stored.
func (c *call) linear() {
	x, w, b := c.in("x"), c.in("weight"), c.opt("bias")
	if rank(w) != 2 {
		failf("a weight of shape %v (want rank 2)", w.Shape)
	}
	if rank(x) == 2 {
		ins := []*model.Value{x, w}
		if b != nil {
			ins = append(ins, b)
		}
		c.result("Gemm", model.Attrs{"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}, ins...)
		return
	}
	wt := c.transposed(w, "")
	if b == nil {
		c.result("MatMul", nil, x, wt)
		return
	}
	c.result("Add", nil, c.mid("MatMul", nil, x, wt), b)
}

// transposed swaps the last two axes of a value: in the storage of a constant,
// through a node otherwise.
//
// The node is named after the product that reads it, whose name is the
// operation's with a suffix.
func (c *call) transposed(v *model.Value, suffix string) *model.Value {
	r := rank(v)
	if r < 2 {
		return v
	}
	perm := seq(0, r)
	perm[r-1], perm[r-2] = r-2, r-1
	if v.Const != nil {
		return c.instead(v, permuteConst(v.Const, perm))
	}
	return c.midAs(c.base()+suffix+"_Transpose", "Transpose", model.Attrs{"perm": perm}, 1, v)[0]
}

func (c *call) matmul() {
	x, y := c.in("x"), c.in("y")
	if c.bool("transpose_x", false) {
		x = c.transposed(x, "")
	}
	if c.bool("transpose_y", false) {
		y = c.transposed(y, "")
	}
	c.result("MatMul", nil, x, y)
}

func (c *call) batchNorm() {
	x, mean, variance := c.in("x"), c.in("mean"), c.in("variance")
	if len(mean.Shape) != 1 {
		failf("a mean of shape %v (want one dimension)", mean.Shape)
	}
	n := mean.Shape[0]
	gamma, beta := c.opt("gamma"), c.opt("beta")
	if gamma == nil {
		gamma = c.fill("gamma", x.DType, 1, n)
	}
	if beta == nil {
		beta = c.fill("beta", x.DType, 0, n)
	}
	c.result("BatchNormalization", model.Attrs{"epsilon": c.float("epsilon", 1e-5)}, x, gamma, beta, mean, variance)
}

func (c *call) instanceNorm() {
	x := c.in("x")
	if rank(x) < 3 || x.Shape[1] < 0 {
		failf("x of shape %v", x.Shape)
	}
	gamma, beta := c.opt("gamma"), c.opt("beta")
	if gamma == nil {
		gamma = c.fill("gamma", x.DType, 1, x.Shape[1])
	}
	if beta == nil {
		beta = c.fill("beta", x.DType, 0, x.Shape[1])
	}
	c.result("InstanceNormalization", model.Attrs{"epsilon": c.float("epsilon", 1e-5)}, x, gamma, beta)
}

func (c *call) layerNorm() {
	x := c.in("x")
	r := rank(x)
	axes := axesOf(c.ints("axes", seq(0, r)), r)
	slices.Sort(axes)
	eps := c.float("epsilon", 1e-5)
	gamma, beta := c.opt("gamma"), c.opt("beta")
	if len(axes) == 0 {
		failf("no axes")
	}
	trailing := slices.Equal(axes, seq(r-len(axes), len(axes)))
	if trailing {
		ins := []*model.Value{x, gamma}
		if gamma == nil {
			s := x.Shape[axes[0]:]
			if !s.Known() {
				failf("normalised axes of unknown size %v", s)
			}
			ins[1] = c.fill("gamma", x.DType, 1, s...)
		}
		if beta != nil {
			ins = append(ins, beta)
		}
		c.result("LayerNormalization", model.Attrs{"axis": axes[0], "epsilon": eps}, ins...)
		return
	}
	// Axes that are not the last ones (the channels of NCHW): in parts.
	keep := model.Attrs{"keepdims": 1}
	spread := func(v *model.Value) *model.Value { // to x's rank, ones elsewhere
		s := make([]int, r)
		for i := range s {
			s[i] = 1
		}
		for i, a := range axes {
			s[a] = v.Shape[i]
		}
		return c.mid("Reshape", nil, v, c.int64s("shape", s...))
	}
	d := c.mid("Sub", nil, x, c.mid("ReduceMean", keep, x, c.int64s("axes", axes...)))
	v := c.mid("ReduceMean", keep, c.mid("Mul", nil, d, d), c.int64s("axes", axes...))
	y := c.mid("Div", nil, d, c.mid("Sqrt", nil, c.plus(v, eps)))
	if gamma != nil {
		y = c.mid("Mul", nil, y, spread(gamma))
	}
	if beta != nil {
		y = c.mid("Add", nil, y, spread(beta))
	}
	c.rename(y)
}

// rename makes an intermediate value the operation's first output; a value of
// another operation is passed on.
func (c *call) rename(v *model.Value) {
	if !slices.Contains(c.made, v) {
		c.result("Identity", nil, v)
		return
	}
	delete(c.im.used, v.Name)
	v.Name = c.im.fresh(c.op.outputs[0].name)
	c.set(0, v)
}

func (c *call) pool(op model.Op) {
	x := c.in("x")
	n := rank(x) - 2
	kernel := c.ints("kernel_sizes", nil)
	if n < 1 || len(kernel) != n {
		failf("kernel_sizes %v for x of shape %v", kernel, x.Shape)
	}
	win := c.window(x, kernel, n, true)
	attrs := model.Attrs{"kernel_shape": kernel, "strides": win.strides, "pads": win.pads, "dilations": win.dilations,
		"ceil_mode": b2i(c.bool("ceil_mode", false))}
	switch op {
	case "AveragePool":
		attrs["count_include_pad"] = b2i(!c.bool("exclude_padding_from_average", false))
	case "LpPool":
		attrs["p"] = 2
	}
	c.result(op, attrs, x)
}

// attention is softmax(q k' / sqrt(d) + mask) v over the last two axes.
func (c *call) attention() {
	q, k, v, mask := c.in("query"), c.in("key"), c.in("value"), c.opt("attn_mask")
	d := q.Shape[max(rank(q)-1, 0)]
	if rank(q) < 3 || d < 1 {
		failf("a query of shape %v", q.Shape)
	}
	s := c.mid("MatMul", nil, q, c.transposed(k, "_MatMul"))
	s = c.mid("Mul", nil, s, c.scalar("scale", q.DType, 1/sqrt(d)))
	if mask != nil {
		if mask.DType == model.Bool {
			mask = c.mid("Where", nil, mask, c.scalar("keep", q.DType, 0), c.scalar("drop", q.DType, math.Inf(-1)))
		}
		s = c.mid("Add", nil, s, mask)
	}
	p := c.mid("Softmax", model.Attrs{"axis": rank(s) - 1}, s)
	c.result("MatMul", nil, p, v)
}
