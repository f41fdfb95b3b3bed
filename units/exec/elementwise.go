package exec

import (
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

var binaryOps = map[model.Op]kernels.BinaryOp{
	"Add": kernels.Add, "Sub": kernels.Sub, "Mul": kernels.Mul, "Div": kernels.Div, "Max": kernels.Max,
	"Min": kernels.Min, "Pow": kernels.Pow, "PRelu": kernels.PRelu, "Sum": kernels.Add, "Mod": kernels.Mod,
}

var unaryOps = map[model.Op]kernels.UnaryOp{
	"Neg": kernels.Neg, "Abs": kernels.Abs, "Exp": kernels.Exp, "Log": kernels.Log, "Sqrt": kernels.Sqrt,
	"Reciprocal": kernels.Reciprocal, "Floor": kernels.Floor, "Ceil": kernels.Ceil, "Round": kernels.RoundEven,
	"Sign": kernels.Sign, "Erf": kernels.Erf, "Sin": kernels.Sin, "Cos": kernels.Cos, "Tan": kernels.Tan,
	"Asin": kernels.Asin, "Acos": kernels.Acos, "Atan": kernels.Atan, "Sinh": kernels.Sinh, "Cosh": kernels.Cosh,
}

func init() {
	for op := range binaryOps {
		register(compileBinary, op)
	}
	for op := range unaryOps {
		register(compileUnary, op)
	}
	register(compileActivation, "Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "Swish",
		"Gelu", "Elu", "Softplus", "Softsign", "Mish", "Selu", "ThresholdedRelu")
}

// compileActivation handles a unary function that stands alone.
func compileActivation(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	act, ok := b.activation(n)
	if !ok || !isFloat(n.In(0)) || !known(n.In(0), n.Outputs[0]) {
		return 0, errNoKernel
	}
	return b.flat(nodes, func(k *kernels.Ctx, dst, src []float32) { kernels.Activate(k, act, dst, src) })
}

func compileUnary(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	if !isFloat(n.In(0)) || !known(n.In(0), n.Outputs[0]) {
		return 0, errNoKernel
	}
	op := unaryOps[n.Op]
	return b.flat(nodes, func(k *kernels.Ctx, dst, src []float32) { kernels.Unary(k, op, dst, src) })
}

// fuseQuantize is fuse for kernels that absorb nothing but a quantize.
func (b *builder) fuseQuantize(nodes []*model.Node) tail {
	t := tail{out: nodes[0].Outputs[0], used: 1}
	if len(nodes) > 1 && nodes[1].Op == "QuantizeLinear" && nodes[1].In(0) == t.out && b.sole(t.out) {
		if q, ok := b.quantParams(nodes[1]); ok {
			t.q, t.quant, t.out, t.used = q, true, nodes[1].Outputs[0], 2
		}
	}
	return t
}

// operand is one side of a broadcast.
type operand struct {
	t       *ten
	strides []int
	scalar  float32
	isConst bool // scalar holds the value
}

// compileBinary handles element-wise functions of two operands with
// broadcasting, and chains of them for Sum, Max and Min.
func compileBinary(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	out := n.Outputs[0]
	if len(n.Inputs) < 1 || !isFloat(out) || out.Shape.Elems() < 1 || len(n.Outputs) != 1 {
		return 0, errNoKernel
	}
	for _, v := range n.Inputs {
		if !isFloat(v) || !known(v) || v.Shape.Elems() < 1 || len(v.Shape) > len(out.Shape) {
			return 0, errNoKernel
		}
	}
	if n.Op == "Mod" && n.Attrs.Int("fmod", 0) == 0 {
		return 0, errNoKernel
	}
	if len(n.Inputs) == 1 {
		return b.flat(nodes, func(k *kernels.Ctx, dst, src []float32) { copy(dst, src) })
	}
	t := b.fuse(nodes, -1, false)
	lay := plain
	for _, v := range n.Inputs {
		if l, ok := b.peek(v); ok && l == c16 && v.Shape.Equal(out.Shape) {
			lay = c16
		}
	}
	if lay == c16 {
		for _, v := range n.Inputs {
			if !canBroadcastC16(v.Shape, out.Shape) {
				lay = plain
			}
		}
	}
	op, act, round := binaryOps[n.Op], t.act, b.num.Round
	if used, err := b.elementwise(nodes, t, op, lay); err != errNoKernel {
		return used, err
	}
	dst := b.newFloat(out.Shape, lay)
	x, err := b.operand(n.In(0), out.Shape, lay)
	if err != nil {
		return 0, err
	}
	for i := 1; i < len(n.Inputs); i++ {
		y, err := b.operand(n.In(i), out.Shape, lay)
		if err != nil {
			return 0, err
		}
		last := i == len(n.Inputs)-1
		tailAct, tailRound := kernels.Activation{}, kernels.RoundNone
		if last {
			tailAct, tailRound = act, round
		}
		b.binary(op, dst, x, y, tailAct, tailRound)
		x = operand{t: dst, strides: fullStrides(dst)}
	}
	b.store(t, dst)
	return t.used, nil
}

// elementwise compiles a function of two operands of which none is broadcast,
// except a constant of one element.
func (b *builder) elementwise(nodes []*model.Node, t tail, op kernels.BinaryOp, lay layout) (int, error) {
	n := nodes[0]
	out := n.Outputs[0]
	if len(n.Inputs) != 2 {
		return 0, errNoKernel
	}
	var src [2]source
	fixed := 0
	for i, v := range n.Inputs {
		switch {
		case v.Const != nil && v.Const.Elems() == 1:
			f, err := b.constFloats(v)
			if err != nil {
				return 0, err
			}
			src[i] = source{fixed: true, scalar: f[0]}
			fixed++
		case !v.Shape.Equal(out.Shape):
			return 0, errNoKernel
		}
	}
	if fixed == 2 {
		return 0, errNoKernel
	}
	for i, v := range n.Inputs {
		if src[i].fixed {
			continue
		}
		var err error
		if src[i], err = b.flatSource(v, lay); err != nil {
			return 0, err
		}
	}
	dst := b.flatDst(t, out.Shape, lay)
	b.flatBinary(op, dst, src[0], src[1], t.act, b.num.Round)
	b.add(t.out, dst)
	return t.used, nil
}

// binary emits dst = round(act(op(x, y))).
func (b *builder) binary(op kernels.BinaryOp, dst *ten, x, y operand, act kernels.Activation, round kernels.Round) {
	shape := walkShape(dst)
	full := fullStrides(dst)
	same := func(o operand) bool { return !o.isConst && equalInts(o.strides, full) }
	switch {
	case x.isConst && y.isConst:
		b.emit(func(s *state) error {
			d := s.f32(dst)
			for i := range d {
				d[i] = x.scalar
			}
			kernels.BinaryScalar(s.k, op, d, d, y.scalar, false)
			kernels.Finish(s.k, d, act, round)
			return nil
		}, []*ten{dst}, nil)
	case same(x) && y.isConst:
		b.flatBinary(op, dst, source{t: x.t}, source{fixed: true, scalar: y.scalar}, act, round)
	case same(y) && x.isConst:
		b.flatBinary(op, dst, source{fixed: true, scalar: x.scalar}, source{t: y.t}, act, round)
	case same(x) && same(y):
		b.flatBinary(op, dst, source{t: x.t}, source{t: y.t}, act, round)
	default:
		x, y = x.tensor(len(shape)), y.tensor(len(shape))
		b.emit(func(s *state) error {
			d := s.f32(dst)
			kernels.BinaryBroadcast(s.k, op, d, s.f32(x.t), s.f32(y.t), shape, x.strides, y.strides)
			kernels.Finish(s.k, d, act, round)
			return nil
		}, []*ten{dst}, []*ten{x.t, y.t})
	}
}

// tensor turns a constant scalar into a one-element tensor.
func (o operand) tensor(rank int) operand {
	if !o.isConst {
		return o
	}
	return operand{t: &ten{from: inConst, len: 1, constF: []float32{o.scalar}}, strides: make([]int, rank)}
}

// walkShape is the shape in which the elements of dst are walked.
func walkShape(t *ten) []int {
	if t.lay == plain {
		return t.shape
	}
	return []int{t.n, (t.c + kernels.Block - 1) / kernels.Block, t.h, t.w, kernels.Block}
}

func fullStrides(t *ten) []int { return contiguous(walkShape(t)) }

// contiguous returns row-major strides.
func contiguous(shape []int) []int {
	s := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= shape[i]
	}
	return s
}

func equalInts(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// padShape puts ones in front of a shape.
func padShape(s model.Shape, rank int) model.Shape {
	p := make(model.Shape, rank)
	for i := range p {
		p[i] = 1
	}
	copy(p[rank-len(s):], s)
	return p
}

// canBroadcastC16 reports whether an operand of shape s can be walked beside a
// channel-blocked result: its channels are the result's, or one.
func canBroadcastC16(s, out model.Shape) bool {
	_, c, _, _, ok := dims4(out)
	if !ok {
		return false
	}
	_, pc, _, _, _ := dims4(padShape(s, len(out)))
	return pc == c || pc == 1
}

// operand brings one side of a binary function into a form that can be walked
// beside a result of shape out in the given layout.
func (b *builder) operand(v *model.Value, out model.Shape, lay layout) (operand, error) {
	if v.Const != nil && v.Const.Elems() == 1 {
		f, err := b.constFloats(v)
		if err != nil {
			return operand{}, err
		}
		return operand{scalar: f[0], isConst: true}, nil
	}
	if lay == plain {
		t, err := b.float(v, plain)
		if err != nil {
			return operand{}, err
		}
		st := make([]int, len(out))
		own := contiguous(v.Shape)
		at := len(out) - len(v.Shape)
		for i, d := range v.Shape {
			if d == out[at+i] && d != 1 {
				st[at+i] = own[i]
			}
		}
		// A dimension of one is walked like any other when nothing is broadcast.
		if v.Shape.Equal(out) {
			st = contiguous(out)
		}
		return operand{t: t, strides: st}, nil
	}
	padded := padShape(v.Shape, len(out))
	n, c, h, w, _ := dims4(out)
	pn, pc, ph, pw, _ := dims4(padded)
	along := func(own, of, stride int) int {
		if own == 1 && of > 1 {
			return 0
		}
		return stride
	}
	if pc == 1 && c > 1 {
		t, err := b.float(v, plain)
		return operand{t: t, strides: []int{along(pn, n, ph*pw), 0, along(ph, h, pw), along(pw, w, 1), 0}}, err
	}
	t, err := b.asShape(v, padded)
	blocks := (c + kernels.Block - 1) / kernels.Block
	row := pw * kernels.Block
	return operand{t: t, strides: []int{along(pn, n, blocks*ph*row), ph * row, along(ph, h, row), along(pw, w, kernels.Block), 1}}, err
}

// asShape returns v in the C16 layout under a shape of higher rank.
func (b *builder) asShape(v *model.Value, s model.Shape) (*ten, error) {
	if v.Shape.Equal(s) {
		return b.float(v, c16)
	}
	if v.Const != nil {
		f, err := b.constFloats(v)
		if err != nil {
			return nil, err
		}
		t := &ten{from: inConst, lay: c16, shape: s, half: b.num.Half}
		b.fit(t)
		t.constF = make([]float32, t.len)
		kernels.PackC16(kernels.NewCtx(b.opt.Pool), t.constF, f, t.n, t.c, t.h, t.w)
		b.prog.weights += int64(4 * t.len)
		return t, nil
	}
	t, err := b.float(v, plain)
	if err != nil {
		return nil, err
	}
	return b.relayout(reshaped(t, s), s, c16)
}
