package quant

import (
	"fmt"
	"slices"
	"sync"

	"github.com/triune-sim/triune/model"
)

// role is what an activation rule does with an operator.
type role struct {
	in  bool // its activation operands are quantised
	out bool // its result is, behind the activation that follows
	// act: the operator may be the activation behind another one, and then
	// only its result is quantised.
	act bool
	// share: inputs and result have one common scale.
	share bool
}

// trainingRoles follow the patterns of coremltools.optimize.torch
// (quantization/_backend_config.py).
var trainingRoles = map[model.Op]role{
	"Conv": {in: true, out: true}, "ConvTranspose": {in: true, out: true},
	"Gemm": {in: true, out: true}, "MatMul": {in: true, out: true}, "Einsum": {in: true, out: true},
	"Add": {in: true, out: true}, "Sub": {in: true, out: true}, "Mul": {in: true, out: true},
	"BatchNormalization": {in: true, out: true},
	"Concat":             {in: true, out: true, share: true},
	"MaxPool":            {in: true, out: true, share: true}, "AveragePool": {in: true, out: true, share: true},
	"GlobalAveragePool": {in: true, out: true, share: true}, "GlobalMaxPool": {in: true, out: true, share: true},
	"ReduceMean": {in: true, out: true, share: true}, "Flatten": {in: true, out: true, share: true},
	"Relu": {in: true, out: true, act: true}, "PRelu": {in: true, out: true, act: true}, "Clip": {in: true, out: true, act: true},
	"LeakyRelu": {in: true, out: true, act: true}, "Sigmoid": {in: true, out: true, act: true},
	"HardSigmoid": {in: true, out: true, act: true}, "Swish": {in: true, out: true, act: true},
	"Elu": {in: true, out: true, act: true}, "Celu": {in: true, out: true, act: true}, "Selu": {in: true, out: true, act: true},
	"Mish": {in: true, out: true, act: true}, "Gelu": {in: true, out: true, act: true}, "Tanh": {in: true, out: true, act: true},
	"HardSwish": {in: true, out: true, act: true},
	"Softmax":   {in: true, out: true}, "LogSoftmax": {in: true, out: true},
}

// postTrainingRoles follow coremltools.optimize.coreml: the passes
// insert_prefix_quantize_dequantize_pair and insert_suffix_....
var postTrainingRoles = map[model.Op]role{
	"Conv": {in: true, out: true}, "Gemm": {in: true, out: true}, "MatMul": {in: true, out: true},
	"AveragePool": {in: true, out: true}, "MaxPool": {in: true, out: true}, "Add": {in: true, out: true},
	"Concat": {share: true},
	"Relu":   {act: true}, "LeakyRelu": {act: true}, "Tanh": {act: true}, "Sigmoid": {act: true}, "HardSigmoid": {act: true}, "Clip": {act: true},
}

// takesAct tells behind which operators an activation is one pattern with
// them.
func takesAct(op model.Op) bool {
	switch op {
	case "Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Add", "Sub", "Mul", "BatchNormalization", "AveragePool", "MaxPool":
		return true
	}
	return false
}

// views are operators that run on codes as they are (iOS 17 gives them integer
// forms): input and result share one scale, and no pair of operators comes in
// between.
var views = map[model.Op]bool{"Reshape": true, "Flatten": true, "Squeeze": true, "Unsqueeze": true, "Transpose": true, "Identity": true}

// quantizer inserts quantize and dequantize operators.
type quantizer struct {
	g         *model.Graph
	cfg       *ActivationConfig
	ranges    Ranges
	report    *Report
	consumers map[*model.Value][]*model.Node
	output    map[*model.Value]bool
	roles     map[model.Op]role

	inner  map[*model.Node]bool                  // belongs to the pattern of an earlier operator
	tail   map[*model.Node]*model.Node           // last operator of a pattern
	wants  map[*model.Value]bool                 // every reader gets the quantised tensor
	reads  map[*model.Value]map[*model.Node]bool // these readers do
	parent map[*model.Value]*model.Value         // union-find: tensors with one scale
	fixed  map[*model.Value]Range                // ranges known without data
	params map[*model.Value]*qparamValues        // by union-find root
	sign   map[*model.Value]bool                 // memo of nonNegative
}

type qparamValues struct {
	scale, zero *model.Value
	code        model.DType
}

// quantizeActivations changes g in place: nodes are added, and operands
// rewired.
func quantizeActivations(g *model.Graph, cfg *ActivationConfig, ranges Ranges, r *Report) error {
	q := &quantizer{
		g: g, cfg: cfg, ranges: ranges, report: r, consumers: g.Consumers(), output: map[*model.Value]bool{},
		roles: trainingRoles,
		inner: map[*model.Node]bool{}, tail: map[*model.Node]*model.Node{},
		wants: map[*model.Value]bool{}, reads: map[*model.Value]map[*model.Node]bool{},
		parent: map[*model.Value]*model.Value{}, fixed: map[*model.Value]Range{},
		params: map[*model.Value]*qparamValues{}, sign: map[*model.Value]bool{},
	}
	if cfg.Rule == PostTraining {
		q.roles = postTrainingRoles
	}
	for _, v := range g.Outputs {
		q.output[v] = true
	}
	if err := q.uniqueNames(); err != nil {
		return err
	}
	q.chains()
	for _, n := range g.Nodes {
		q.mark(n)
	}
	q.spreadViews()
	for _, n := range g.Nodes {
		q.share(n)
	}
	q.rewrite()
	return nil
}

// uniqueNames makes sure that a range can be asked for by name.
func (q *quantizer) uniqueNames() error {
	seen := map[string]bool{}
	check := func(v *model.Value) error {
		if v == nil {
			return nil
		}
		if v.Name != "" && seen[v.Name] {
			return fmt.Errorf("quant: two tensors are named %q; activation ranges go by name", v.Name)
		}
		seen[v.Name] = true
		return nil
	}
	for _, v := range q.g.Inputs {
		if err := check(v); err != nil {
			return err
		}
	}
	for _, n := range q.g.Nodes {
		for _, v := range n.Outputs {
			if err := check(v); err != nil {
				return err
			}
		}
	}
	return nil
}

// activation reports whether v is a float tensor that flows.
func activation(v *model.Value) bool {
	return v != nil && v.Const == nil && v.Type == model.TypeTensor && (v.DType == model.Float16 || v.DType == model.Float32)
}

// skipped says why the configuration leaves a node alone.
func (q *quantizer) skipped(n *model.Node) string {
	if q.cfg.SkipNames[n.Name] {
		return "skipped by name"
	}
	for _, t := range typeNames(n.Op) {
		if q.cfg.SkipTypes[t] {
			return "skipped by type"
		}
	}
	return ""
}

// role returns what the rule does with a node.
func (q *quantizer) role(n *model.Node) role {
	r, ok := q.roles[n.Op]
	if !ok || q.skipped(n) != "" {
		return role{}
	}
	if q.cfg.Rule == PostTraining {
		switch n.Op {
		case "Add": // both operands have to flow
			if !activation(n.In(0)) || !activation(n.In(1)) {
				return role{}
			}
		case "MatMul", "Gemm": // linear layers only
			if w := n.In(1); w == nil || w.Const == nil {
				return role{}
			}
		}
	}
	return r
}

// chains finds the operators that form one pattern with the one before them: a
// constant added to a product (the bias of a linear layer), and an activation.
// Only the pattern's last result is quantised.
func (q *quantizer) chains() {
	for _, n := range q.g.Nodes {
		if !takesAct(n.Op) || q.inner[n] || !q.role(n).out {
			continue
		}
		cur := n
		if next := q.sole(cur); next != nil && next.Op == "Add" && n.Op == "MatMul" && q.skipped(next) == "" && len(next.Inputs) == 2 &&
			(next.In(0).Const != nil) != (next.In(1).Const != nil) {
			q.inner[next] = true
			cur = next
		}
		if next := q.sole(cur); next != nil && next.In(0) == cur.Out(0) && q.role(next).act && constTail(next) {
			q.inner[next] = true
			cur = next
		}
		q.tail[n] = cur
	}
}

// sole returns the node that alone reads the result of n.
func (q *quantizer) sole(n *model.Node) *model.Node {
	y := n.Out(0)
	if y == nil || q.output[y] || len(q.consumers[y]) != 1 || q.consumers[y][0].Blocks != nil {
		return nil
	}
	return q.consumers[y][0]
}

// constTail reports whether every input but the first is constant or absent.
func constTail(n *model.Node) bool {
	for _, v := range n.Inputs[1:] {
		if v != nil && v.Const == nil {
			return false
		}
	}
	return true
}

// mark notes which tensors a node wants quantised.
func (q *quantizer) mark(n *model.Node) {
	if r := q.skipped(n); r != "" {
		q.report.Ops = append(q.report.Ops, OpReport{n.Name, n.Op, r})
		return
	}
	if n.Op == "QuantizeLinear" || n.Op == "DequantizeLinear" || q.inner[n] {
		return
	}
	r := q.role(n)
	if !r.in && !r.out {
		if !r.act && !views[n.Op] && activation(n.Out(0)) {
			q.report.Ops = append(q.report.Ops, OpReport{n.Name, n.Op, "not an operator of the " + q.cfg.Rule.String() + " rule"})
		}
		return
	}
	if r.in {
		for _, v := range n.Inputs {
			if activation(v) && !fromDequantize(v) {
				q.read(v, n)
			}
		}
	}
	if !r.out {
		return
	}
	last := q.tail[n]
	if last == nil {
		last = n
	}
	y := last.Out(0)
	q.want(y)
	if q.cfg.Rule == Training && q.cfg.DType == model.Invalid && !q.cfg.Asymmetric {
		switch last.Op { // coremltools gives these fixed parameters
		case "Sigmoid", "HardSigmoid", "Softmax":
			q.fixed[y] = Range{0, 255.0 / 256}
		case "Tanh":
			q.fixed[y] = Range{-127.0 / 128, 127.0 / 128}
		}
	}
}

// fromDequantize reports whether a tensor is quantised already.
func fromDequantize(v *model.Value) bool {
	return v.Producer != nil && v.Producer.Op == "DequantizeLinear"
}

func (q *quantizer) want(v *model.Value) {
	if !activation(v) || len(q.consumers[v]) == 0 {
		return
	}
	for _, c := range q.consumers[v] {
		if c.Op == "QuantizeLinear" { // quantised by the model itself
			return
		}
	}
	q.wants[v] = true
}

func (q *quantizer) read(v *model.Value, n *model.Node) {
	if q.reads[v] == nil {
		q.reads[v] = map[*model.Node]bool{}
	}
	q.reads[v][n] = true
}

// quantized reports whether a tensor has a quantised form.
func (q *quantizer) quantized(v *model.Value) bool { return q.wants[v] || len(q.reads[v]) > 0 }

// spreadViews lets views of quantised tensors run on codes: those whose result
// is quantised too take the scale of their input.
func (q *quantizer) spreadViews() {
	for _, n := range q.g.Nodes {
		x, y := n.In(0), n.Out(0)
		if views[n.Op] && q.skipped(n) == "" && activation(x) && activation(y) && q.wants[x] && q.quantized(y) {
			q.read(x, n)
			q.wants[y] = true
			q.union(x, y)
		}
	}
}

// share joins the scales of operators that have one.
func (q *quantizer) share(n *model.Node) {
	if !q.role(n).share {
		return
	}
	y := n.Out(0)
	for _, v := range n.Inputs {
		if activation(v) && q.quantized(v) && activation(y) && q.quantized(y) {
			q.union(v, y)
		}
	}
}

func (q *quantizer) root(v *model.Value) *model.Value {
	for q.parent[v] != nil {
		v = q.parent[v]
	}
	return v
}

func (q *quantizer) union(a, b *model.Value) {
	if a, b = q.root(a), q.root(b); a != b {
		q.parent[b] = a
	}
}

// nonNegative reports whether no element of v can be below zero.
func (q *quantizer) nonNegative(v *model.Value) bool {
	if r, ok := q.sign[v]; ok {
		return r
	}
	q.sign[v] = false // of a value still being decided
	n := v.Producer
	if n == nil {
		return false
	}
	r := false
	switch n.Op {
	case "Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Sqrt", "Softplus", "ReduceL1", "ReduceL2", "ReduceSumSquare":
		r = true
	case "Clip":
		if m := n.In(1); m != nil && m.Const != nil && m.Const.Elems() == 1 {
			if t, err := m.Const.Value(); err == nil {
				r = t.At(0) >= 0
			}
		}
	case "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum", "Reshape", "Flatten", "Squeeze",
		"Unsqueeze", "Transpose", "Identity", "Split", "Slice", "DepthToSpace", "SpaceToDepth", "Gather", "Expand", "Tile":
		r = n.In(0) != nil && q.nonNegative(n.In(0))
	case "Concat", "Add", "Mul", "Max":
		r = len(n.Inputs) > 0
		for _, x := range n.Inputs {
			r = r && x != nil && x.Const == nil && q.nonNegative(x)
		}
	}
	q.sign[v] = r
	return r
}

// rewrite inserts the operators. Each quantised tensor gets one quantize
// operator and one dequantize operator a reader: Core ML's compilers and our
// lowering fuse a dequantize operator into the one operator that reads it.
func (q *quantizer) rewrite() {
	members := map[*model.Value][]*model.Value{}
	var nodes []*model.Node
	values := slices.Clone(q.g.Inputs)
	for _, n := range q.g.Nodes {
		values = append(values, n.Outputs...)
	}
	for _, v := range values {
		if v != nil && q.quantized(v) {
			members[q.root(v)] = append(members[q.root(v)], v)
		}
	}
	q.report.Quantized = 0
	codes := map[*model.Value]*model.Value{} // the quantised form of a tensor
	emit := func(v *model.Value) {
		if v == nil || !q.quantized(v) {
			return
		}
		q.report.Quantized++
		c := codes[v]
		if c == nil {
			p := q.paramsOf(v, members)
			c = &model.Value{Name: v.Name + "_q", DType: p.code, Shape: v.Shape.Clone()}
			n := &model.Node{Name: v.Name + "_quantize", Op: "QuantizeLinear", Inputs: []*model.Value{v, p.scale, p.zero}, Outputs: []*model.Value{c}}
			c.Producer = n
			nodes = append(nodes, n)
			codes[v] = c
		}
	}
	for _, v := range q.g.Inputs {
		emit(v)
	}
	for _, n := range q.g.Nodes {
		for i, v := range n.Inputs {
			if v == nil || codes[v] == nil || !(q.wants[v] || q.reads[v][n]) {
				continue
			}
			if views[n.Op] && i == 0 && q.onCodes(n) {
				continue
			}
			p := q.paramsOf(v, members)
			d := &model.Value{Name: fmt.Sprintf("%s_dq%d", v.Name, q.reader(v, n)), DType: v.DType, Shape: v.Shape.Clone()}
			dn := &model.Node{Name: fmt.Sprintf("%s_dequantize%d", v.Name, q.reader(v, n)), Op: "DequantizeLinear",
				Inputs: []*model.Value{codes[v], p.scale, p.zero}, Outputs: []*model.Value{d}}
			d.Producer = dn
			nodes = append(nodes, dn)
			for j := i; j < len(n.Inputs); j++ {
				if n.Inputs[j] == v {
					n.Inputs[j] = d
				}
			}
		}
		if q.onCodes(n) {
			// The view works on codes; its float result is gone, all readers
			// take the codes through their own dequantize operator.
			x, y := n.In(0), n.Out(0)
			p := q.paramsOf(x, members)
			c := &model.Value{Name: y.Name + "_q", DType: p.code, Shape: y.Shape.Clone(), Producer: n}
			n.Inputs[0], n.Outputs[0] = codes[x], c
			codes[y] = c
			q.report.Quantized++
			nodes = append(nodes, n)
			continue
		}
		nodes = append(nodes, n)
		for _, v := range n.Outputs {
			emit(v)
		}
	}
	q.g.Nodes = nodes
}

// onCodes reports whether a view runs on codes: its input is quantised for it
// and every reader of its result takes codes.
func (q *quantizer) onCodes(n *model.Node) bool {
	x, y := n.In(0), n.Out(0)
	return views[n.Op] && x != nil && y != nil && q.wants[x] && q.wants[y] && q.reads[x][n] && !q.output[y] && q.root(x) == q.root(y) && !q.inBlock(y)
}

// inBlock reports whether a subgraph reads v.
func (q *quantizer) inBlock(v *model.Value) bool {
	for _, c := range q.consumers[v] {
		if c.Blocks != nil && !slices.Contains(c.Inputs, v) {
			return true
		}
	}
	return false
}

// reader numbers the distinct readers of a tensor, for names.
func (q *quantizer) reader(v *model.Value, n *model.Node) int {
	k := 0
	for i, c := range q.consumers[v] {
		if c == n {
			return k
		}
		if !slices.Contains(q.consumers[v][:i], c) {
			k++
		}
	}
	return k
}

// paramsOf returns the scale and zero point constants of a tensor, which all
// tensors with the same scale share. They are computed when first decoded.
func (q *quantizer) paramsOf(v *model.Value, members map[*model.Value][]*model.Value) *qparamValues {
	root := q.root(v)
	if p := q.params[root]; p != nil {
		return p
	}
	group := members[root]
	code := q.cfg.DType
	if code == model.Invalid {
		code = model.Int8
		if !q.cfg.Asymmetric {
			positive := true
			for _, m := range group {
				positive = positive && q.nonNegative(m)
			}
			if positive {
				code = model.UInt8
			}
		}
	}
	float, asymmetric, auto := root.DType, q.cfg.Asymmetric, q.cfg.DType == model.Invalid
	names := make([]string, len(group))
	fixed := make([]*Range, len(group))
	for i, m := range group {
		names[i] = m.Name
		if r, ok := q.fixed[m]; ok {
			fixed[i] = &r
		}
	}
	ranges := q.ranges
	once := sync.OnceValues(func() ([2]float32, error) {
		var all Range
		for i, name := range names {
			var r Range
			var err error
			if fixed[i] != nil {
				r = *fixed[i]
			} else if r, err = ranges.Range(name); err != nil {
				return [2]float32{}, err
			}
			if i == 0 {
				all = r
			} else {
				all = all.union(r)
			}
		}
		if auto && code == model.UInt8 { // never negative: all codes from 0 up
			s, _ := activationParams(Range{0, max(0, all.Max)}, float, model.UInt8, true)
			return [2]float32{s, 0}, nil
		}
		s, z := activationParams(all, float, code, asymmetric)
		return [2]float32{s, z}, nil
	})
	p := &qparamValues{code: code}
	p.scale = &model.Value{Name: root.Name + "_scale", DType: float, Shape: model.Shape{}, Const: model.NewLazy(float, model.Shape{}, func() (*model.Tensor, error) {
		x, err := once()
		if err != nil {
			return nil, err
		}
		return tensorOf(float, x[:1]), nil
	})}
	zero := func() (*model.Tensor, error) {
		x, err := once()
		if err != nil {
			return nil, err
		}
		t := model.NewTensor(code)
		t.SetInt(0, int64(x[1]))
		return t, nil
	}
	var zc *model.Const
	if symmetricZero := !asymmetric && (code == model.Int8 || auto); symmetricZero {
		zc = model.NewConst(model.NewTensor(code))
	} else {
		zc = model.NewLazy(code, model.Shape{}, zero)
	}
	p.zero = &model.Value{Name: root.Name + "_zero_point", DType: code, Shape: model.Shape{}, Const: zc}
	q.params[root] = p
	return p
}
