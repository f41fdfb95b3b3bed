package quant

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/triune-sim/triune/model"
)

// minFileElems is the size from which Core ML puts a constant into the weight
// file; smaller ones are part of the program and never compressed.
const minFileElems = 10

// weight is a floating-point constant and who reads it.
type weight struct {
	value   *model.Value
	readers []reader
	output  bool // is also a graph output
	in, out int  // input and output channel axis
	axesOK  bool // all readers agree on the axes
}

// reader is a node and the index of the input through which it reads.
type reader struct {
	node *model.Node
	arg  int
}

// weightsOf lists the floating-point constants that nodes read, in order of
// first use, subgraphs included.
func weightsOf(g *model.Graph) []*weight {
	byValue := map[*model.Value]*weight{}
	var list []*weight
	get := func(v *model.Value) *weight {
		w := byValue[v]
		if w == nil {
			w = &weight{value: v}
			byValue[v] = w
			list = append(list, w)
		}
		return w
	}
	var walk func(g *model.Graph)
	walk = func(g *model.Graph) {
		for _, n := range g.Nodes {
			for i, v := range n.Inputs {
				if v != nil && v.Const != nil && v.Const.DType.IsFloat() {
					w := get(v)
					w.readers = append(w.readers, reader{n, i})
				}
			}
			for _, k := range sortedKeys(n.Blocks) {
				walk(n.Blocks[k])
			}
		}
		for _, v := range g.Outputs {
			if v.Const != nil && v.Const.DType.IsFloat() {
				get(v).output = true
			}
		}
	}
	walk(g)
	for _, w := range list {
		w.axes()
	}
	return list
}

// axes sets the channel axes as coremltools' select_input_output_channel_axis
// does: output 0 and input 1, except transposed convolutions and products.
func (w *weight) axes() {
	rank := len(w.value.Shape)
	w.axesOK = true
	for i, r := range w.readers {
		in, out := channelAxes(r.node, r.arg, rank)
		if i == 0 {
			w.in, w.out = in, out
		}
		if in != w.in || out != w.out {
			w.axesOK = false
		}
	}
}

func channelAxes(n *model.Node, arg, rank int) (in, out int) {
	last := func(transposed bool) (int, int) { // [..., in, out] unless transposed
		if rank < 2 {
			return 0, 0
		}
		if transposed {
			return rank - 1, rank - 2
		}
		return rank - 2, rank - 1
	}
	switch n.Op {
	case "ConvTranspose":
		if arg == 1 {
			return 0, 1
		}
	case "MatMul":
		if arg == 1 {
			return last(false)
		}
		return last(true)
	case "Gemm":
		if arg == 1 {
			return last(n.Attrs.Int("transB", 0) != 0)
		}
		if arg == 0 {
			return last(n.Attrs.Int("transA", 0) == 0)
		}
	case "LSTM", "GRU", "RNN": // [directions, gates*hidden, input]
		return 2, 1
	}
	return 1, 0
}

// milNames maps operators to the MIL names that coremltools' configurations
// use for them; others are looked up in snake case ("LayerNormalization" as
// "layer_normalization").
var milNames = map[model.Op][]string{
	"Conv": {"conv"}, "ConvTranspose": {"conv_transpose"}, "Gemm": {"linear"}, "MatMul": {"matmul", "linear"},
	"AveragePool": {"avg_pool"}, "MaxPool": {"max_pool"}, "LpPool": {"l2_pool"}, "GlobalAveragePool": {"reduce_mean"},
	"GlobalMaxPool": {"reduce_max"}, "BatchNormalization": {"batch_norm"}, "InstanceNormalization": {"instance_norm"},
	"LayerNormalization": {"layer_norm"}, "PRelu": {"prelu"}, "Div": {"real_div"}, "HardSigmoid": {"sigmoid_hard"},
	"Swish": {"silu"}, "Clip": {"clip", "relu6"}, "Gather": {"gather"}, "LSTM": {"lstm"}, "GRU": {"gru"}, "RNN": {"rnn"},
}

// typeNames lists the names under which a configuration may mention an
// operator.
func typeNames(op model.Op) []string {
	names := []string{string(op)}
	if m := milNames[op]; m != nil {
		return append(names, m...)
	}
	var b strings.Builder
	for i, r := range string(op) {
		if i > 0 && r >= 'A' && r <= 'Z' && op[i-1] >= 'a' && op[i-1] <= 'z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return append(names, strings.ToLower(b.String()))
}

// configFor returns the configuration of a weight in a stage: by its own name,
// else by the names of its readers, else by their types, else the global one.
// Readers that disagree are an error, as in coremltools.
func (st Stage) configFor(w *weight) (OpConfig, error) {
	if c, ok := st.OpNames[w.value.Name]; ok {
		return c, nil
	}
	var first OpConfig
	for i, r := range w.readers {
		c := st.configOf(r.node)
		if i == 0 {
			first = c
			continue
		}
		if !sameConfig(c, first) {
			return nil, fmt.Errorf("quant: constant %q is read by %q and %q, which have different configurations", w.value.Name, w.readers[0].node.Name, r.node.Name)
		}
	}
	if len(w.readers) == 0 {
		return st.Global, nil
	}
	return first, nil
}

func (st Stage) configOf(n *model.Node) OpConfig {
	if c, ok := st.OpNames[n.Name]; ok {
		return c
	}
	for _, t := range typeNames(n.Op) {
		if c, ok := st.OpTypes[t]; ok {
			return c
		}
	}
	return st.Global
}

func sameConfig(a, b OpConfig) bool {
	if a == nil || b == nil {
		return a == b
	}
	return fmt.Sprintf("%T%+v", a, a) == fmt.Sprintf("%T%+v", b, b)
}

// compressor carries what the stages of one graph share.
type compressor struct {
	// source maps a constant cast to fp16 to the one it was cast from, so that
	// the cast need not be kept.
	source map[*model.Const]*model.Const
	// eager makes sizes that depend on values exact even where that means
	// computing lazy values.
	eager bool
}

// stage compresses one weight. It returns the new constant, or nil and why the
// weight is left alone; bad says that it has values nothing can compress.
func (k *compressor) stage(st Stage, w *weight, bad string) (*model.Const, OpConfig, string, error) {
	c := w.value.Const
	cfg, err := st.configFor(w)
	if err != nil {
		return nil, nil, "", err
	}
	switch n := c.Elems(); {
	case len(w.readers) == 0:
		return nil, cfg, "no operator reads it", nil
	case cfg == nil && st.Global == nil && len(st.OpTypes) == 0 && len(st.OpNames) == 0:
		return nil, cfg, "", nil
	case cfg == nil:
		return nil, cfg, "the configuration skips it", nil
	case len(c.Shape) <= 1 || recurrentBias(w):
		return nil, cfg, "rank below 2 (biases and vectors stay float)", nil
	case n < minFileElems:
		return nil, cfg, fmt.Sprintf("fewer than %d elements", minFileElems), nil
	case n <= int64(cfg.minElems()):
		return nil, cfg, fmt.Sprintf("weight_threshold %d: %d elements", cfg.minElems(), n), nil
	case c.DType != model.Float16 && c.DType != model.Float32:
		return nil, cfg, fmt.Sprintf("type %s", c.DType), nil
	}
	if bad != "" {
		return nil, cfg, bad, nil
	}
	var out *model.Const
	var reason string
	switch x := cfg.(type) {
	case Linear:
		out, reason, err = k.linear(x, w)
	case Palette:
		out, reason, err = k.palette(x, w)
	case Magnitude, Threshold:
		out, reason, err = k.prune(x, w)
	default:
		return nil, cfg, "", fmt.Errorf("quant: unknown configuration %T", cfg)
	}
	if err != nil {
		return nil, cfg, "", fmt.Errorf("quant: constant %q: %w", w.value.Name, err)
	}
	return out, cfg, reason, nil
}

// recurrentBias reports whether a constant is the bias or the peephole weights
// of recurrent layers: a vector by direction, which Core ML stores as vectors.
func recurrentBias(w *weight) bool {
	for _, r := range w.readers {
		switch r.node.Op {
		case "LSTM", "GRU", "RNN":
			if r.arg != 3 && r.arg != 7 {
				return false
			}
		default:
			return false
		}
	}
	return len(w.readers) > 0
}

// isLazy reports whether the values of a constant are yet to be computed.
func (k *compressor) isLazy(c *model.Const) bool {
	if s, ok := k.source[c]; ok {
		c = s
	}
	_, ok := c.Storage.(*model.Lazy)
	return ok
}

// badValues looks for NaN and infinite weights, which nothing can compress, and
// counts those that saturate in the constant's type. Lazy constants are
// checked when they are computed.
func (k *compressor) badValues(c *model.Const) (bad string, saturated int) {
	src := c
	if s, ok := k.source[c]; ok {
		src = s
	}
	d, ok := src.Storage.(model.Dense)
	if !ok {
		return "", 0
	}
	top := float32(math.MaxFloat32)
	if c.DType == model.Float16 {
		top = 1e38 // from here on infinite in half precision
	}
	switch t := d.Tensor; t.DType {
	case model.Float32:
		for i, x := range model.View[float32](t) {
			if a := abs32(x); !(a < 65520) {
				switch {
				case !(a <= top):
					return badValue(t.Shape, i, float64(x)), 0
				case c.DType == model.Float16:
					saturated++
				}
			}
		}
	case model.Float16:
		for i, b := range model.View[uint16](t) {
			if b&0x7c00 == 0x7c00 {
				return badValue(t.Shape, i, t.At(i)), 0
			}
		}
	}
	return "", saturated
}

// badValue names element i, in row-major order, by its index on every axis.
func badValue(shape model.Shape, i int, x float64) string {
	at := make([]int, len(shape))
	for k := len(shape) - 1; k >= 0; k-- {
		at[k] = i % shape[k]
		i /= shape[k]
	}
	return fmt.Sprintf("not finite: element %s is %g", strings.ReplaceAll(fmt.Sprint(at), " ", ","), x)
}

// floats returns the values of a constant in single precision, rounded to its
// type. The slice must not be modified.
func (k *compressor) floats(c *model.Const) ([]float32, error) {
	src, ok := k.source[c]
	if !ok {
		src = c
	}
	t, err := src.Value()
	if err != nil {
		return nil, err
	}
	v := t.Float32s()
	if c.DType == model.Float16 && src.DType != model.Float16 {
		h := make([]float32, len(v))
		for i, x := range v {
			h[i] = halfOf(x)
		}
		v = h
	}
	for i, x := range v {
		if math.Float32bits(x)&0x7f800000 == 0x7f800000 {
			return nil, fmt.Errorf("quant: %s", badValue(c.Shape, i, float64(x)))
		}
	}
	return v, nil
}

// linear quantises a weight, the codes kept by a mask, or the tables of a
// palette: these per tensor, as coremltools does, or per channel, which is a
// scale for each table and which coremltools refuses although its format has it.
func (k *compressor) linear(cfg Linear, w *weight) (*model.Const, string, error) {
	c := w.value.Const
	switch s := c.Storage.(type) {
	case *model.Lookup:
		table, scaled := s.Table, (*model.Affine)(nil)
		if x, ok := table.Storage.(*model.Affine); ok { // of a palette with per-channel scale
			scaled, table = x, x.Codes
		}
		groups := onesShape(len(table.Shape))
		switch {
		case !table.DType.IsFloat() || table.Storage.Form() != model.FormDense:
			return nil, "its tables are quantised already", nil
		case cfg.Granularity == model.PerBlock:
			return nil, "", fmt.Errorf("the tables of a palette are quantised per_tensor, or per_channel (a scale for each table), not %s", cfg.Granularity)
		case table.Elems() < minFileElems:
			return nil, fmt.Sprintf("its table has fewer than %d entries", minFileElems), nil
		case cfg.Granularity == model.PerChannel:
			copy(groups, table.Shape[:len(groups)-2])
		}
		table = k.affine(cfg, table, groups)
		if scaled != nil {
			table = &model.Const{DType: table.DType, Shape: table.Shape, Storage: &model.Affine{Codes: table, Scale: scaled.Scale, Zero: scaled.Zero}}
		}
		return &model.Const{DType: c.DType, Shape: c.Shape, Storage: &model.Lookup{Indices: s.Indices, Table: table, VectorAxis: s.VectorAxis}}, "", nil
	case *model.Affine:
		return nil, "quantised already", nil
	case *model.Sparse:
		if s.Values.Storage.Form() != model.FormDense {
			return nil, "compressed already", nil
		}
	}
	if !w.axesOK && !(cfg.Granularity == model.PerBlock && cfg.BlockSizes != nil) {
		return nil, "its readers have different channel axes", nil
	}
	groups, reason := cfg.groups(c.Shape, w.in, w.out)
	if reason != "" {
		return nil, reason, nil
	}
	out := k.affine(cfg, c, groups)
	if s, ok := c.Storage.(*model.Sparse); ok {
		a := out.Storage.(*model.Affine)
		a.Codes = sparseCodes(a.Codes, s)
	}
	return out, "", nil
}

// affine returns the lazily quantised form of c.
func (k *compressor) affine(cfg Linear, c *model.Const, groups model.Shape) *model.Const {
	a := arithOf(c.DType)
	once := sync.OnceValues(func() (linearCodes, error) {
		v, err := k.floats(c)
		if err != nil {
			return linearCodes{}, err
		}
		return a.quantizeLinear(v, c.Shape, groups, cfg.DType, cfg.Asymmetric), nil
	})
	part := func(d model.DType, shape model.Shape, f func(linearCodes) *model.Tensor) *model.Const {
		return model.NewLazy(d, shape, func() (*model.Tensor, error) {
			r, err := once()
			if err != nil {
				return nil, err
			}
			return f(r), nil
		})
	}
	s := &model.Affine{
		Codes: part(cfg.DType, c.Shape, func(r linearCodes) *model.Tensor { return pack(cfg.DType, r.codes, c.Shape...) }),
		Scale: part(c.DType, groups, func(r linearCodes) *model.Tensor { return tensorOf(c.DType, r.scale, groups...) }),
	}
	switch {
	case !hasZero(cfg.DType, cfg.Asymmetric):
	case !cfg.Asymmetric: // known without the weights, so that writers can share equal ones
		_, z := a.qparams(0, 0, cfg.DType, false)
		s.Zero = model.NewConst(pack(cfg.DType, bytes.Repeat([]byte{byte(int(z))}, int(groups.Elems())), groups...))
	default:
		s.Zero = part(cfg.DType, groups, func(r linearCodes) *model.Tensor { return pack(cfg.DType, r.zero, groups...) })
	}
	return &model.Const{DType: c.DType, Shape: c.Shape, Storage: s}
}

// sparseCodes keeps the codes that a sparse constant's mask keeps.
func sparseCodes(codes *model.Const, s *model.Sparse) *model.Const {
	n := s.Values.Shape
	kept := model.NewLazy(codes.DType, n, func() (*model.Tensor, error) {
		t, err := codes.Value()
		if err != nil {
			return nil, err
		}
		mask, err := s.Mask.Value()
		if err != nil {
			return nil, err
		}
		out := model.NewTensor(codes.DType, n...)
		j := 0
		for i, m := 0, mask.Len(); i < m; i++ {
			if mask.IntAt(i) == 0 {
				continue
			}
			if j == out.Len() {
				return nil, fmt.Errorf("quant: a mask has more bits set than its %d values", j)
			}
			out.SetInt(j, t.IntAt(i))
			j++
		}
		return out, nil
	})
	return &model.Const{DType: codes.DType, Shape: codes.Shape, Storage: &model.Sparse{Mask: s.Mask, Values: kept}}
}

func onesShape(rank int) model.Shape {
	s := make(model.Shape, rank)
	for i := range s {
		s[i] = 1
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
