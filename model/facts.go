package model

import "strings"

// facts fills the cost facts of a layer.
func (lo *lowering) facts(net *Network, l *Layer, d *draft) {
	f := &l.Facts
	f.Batch, f.InC, f.OutC, f.InH, f.InW, f.OutH, f.OutW = 1, 1, 1, 1, 1, 1, 1
	f.KD, f.KH, f.KW, f.StrideH, f.StrideW, f.DilH, f.DilW, f.Groups = 1, 1, 1, 1, 1, 1, 1, 1
	f.M, f.K, f.N, f.Repeat = 1, 1, 1, 1
	f.Axis = -1

	inPad, outPad := 0.0, 0.0
	for _, i := range l.Inputs {
		e := net.Edges[i]
		f.InElems += e.Elems
		if e.Producer < 0 && !e.Integer {
			f.IOElems += e.Elems
		}
		if e.Quantized {
			f.QuantInElems += e.Elems
		}
		if d.residual != nil && e.Value == d.residual {
			f.ResidualElems = e.Elems
		}
		inPad += float64(e.Elems) * pad64(e.LastAxis)
		f.Rank = max(f.Rank, len(e.Value.Shape))
		f.Dynamic = f.Dynamic || !e.Value.Shape.Known()
	}
	f.Integer = true
	for _, o := range l.Outputs {
		e := net.Edges[o]
		f.OutElems += e.Elems
		if e.Output && !e.Integer {
			f.IOElems += e.Elems
		}
		if e.Quantized {
			f.QuantOutElems += e.Elems
		}
		outPad += float64(e.Elems) * pad64(e.LastAxis)
		f.Rank = max(f.Rank, len(e.Value.Shape))
		f.Dynamic = f.Dynamic || !e.Value.Shape.Known()
		f.Integer = f.Integer && e.Integer
	}
	f.Images = images(net, l, d.anchor)
	f.InPad64, f.OutPad64 = 1, 1
	if f.InElems > 0 {
		f.InPad64 = inPad / float64(f.InElems)
	}
	if f.OutElems > 0 {
		f.OutPad64 = outPad / float64(f.OutElems)
	}
	f.QuantOut = f.OutElems > 0 && f.QuantOutElems == f.OutElems
	lo.weights(l, d)
	f.QuantIn = lo.quantIn(d)
	for _, n := range d.nodes {
		for _, o := range n.Outputs {
			if o != nil && (o.DType == Float32 || o.DType == Float64) {
				f.Float32 = true
			}
		}
	}
	lo.geometry(l, d)
	out := elems(d.anchor.Out(0))
	for _, n := range d.nodes[1:] {
		f.VectorOps += max(elems(n.Out(0)), 1)
		switch n.Op {
		case "Swish", "HardSwish", "Gelu", "Mish", "Softplus", "Elu":
			f.FloatTail = true
		}
	}
	switch {
	case d.anchor.Op == "BatchNormalization": // a scale and a shift per channel
		f.VectorOps += 2 * out
	case d.kind == KindSoftmax || d.kind == KindNorm:
		f.VectorOps += 5 * out
	}
}

func elems(v *Value) int64 {
	if v == nil {
		return 0
	}
	return max(0, v.Shape.Elems())
}

func pad64(last int) float64 {
	if last <= 0 {
		return 1
	}
	b := last * 2
	return float64((b+63)/64*64) / float64(b)
}

// images is the batch that a layer works on; see [Facts.Images].
func images(net *Network, l *Layer, n *Node) int {
	if perm := n.Attrs.Ints("perm", nil); n.Op == "Transpose" && (len(perm) == 0 || perm[0] != 0) {
		return 1
	}
	batch := 0
	for _, edges := range [][]int{l.Inputs, l.Outputs} {
		for _, i := range edges {
			s := net.Edges[i].Value.Shape
			if len(s) < 3 || s[0] < 1 || batch > 0 && s[0] != batch {
				return 1
			}
			batch = s[0]
		}
	}
	return max(1, batch)
}

// quantIn reports whether every activation operand of the anchor is carried as
// codes: through an absorbed dequantize, or directly.
func (lo *lowering) quantIn(d *draft) bool {
	any := false
	for _, v := range d.anchor.Inputs {
		if v == nil || v.Const != nil {
			continue
		}
		if lo.dq[v] == nil && !lo.quantized[v] {
			return false
		}
		any = true
	}
	return any
}

// weights sums the constants of a layer and describes the largest.
func (lo *lowering) weights(l *Layer, d *draft) {
	f := &l.Facts
	f.WeightBits = 16
	var largest int64 = -1
	seen := map[*Value]bool{}
	for _, n := range d.nodes {
		if n.Op == "QuantizeLinear" || n.Op == "DequantizeLinear" {
			continue
		}
		for i, v := range n.Inputs {
			if v == nil || v.Const == nil || seen[v] || !v.Const.DType.IsFloat() || len(v.Const.Shape) == 0 {
				continue
			}
			seen[v] = true
			c := v.Const
			f.WeightElems += c.Elems()
			f.WeightBytes += c.StoredBytes()
			f.WeightDenseBytes += c.DenseBytes()
			read := c.StoredBytes()
			if n.Op == "Gather" && i == 0 && c.Elems() > 0 {
				read = min(read, int64(float64(read)*float64(elems(n.Out(0)))/float64(c.Elems()))+1)
			}
			f.WeightReadBytes += read
			if n == d.anchor && c.Elems() > largest {
				largest = c.Elems()
				describe(f, c)
			}
		}
	}
}

// describe records how the largest weight is stored.
func describe(f *Facts, c *Const) {
	f.WeightForm, f.WeightBits, f.WeightGran, f.WeightBlock = c.Storage.Form(), c.DType.Bits(), PerTensor, 0
	f.WeightTables, f.WeightSparsity, f.QuantWeight = 0, 0, false
	switch s := any(c.Storage).(type) {
	case *Affine:
		describeCodes(f, s.Codes)
		f.WeightGran, f.WeightBlock = blockOf(s.Codes.Shape, s.Scale.Shape)
		f.QuantWeight = f.WeightBits == 8 && f.WeightGran != PerBlock
	case *Lookup:
		describeCodes(f, s.Indices)
		if n := len(s.Table.Shape); n >= 2 {
			groups := s.Table.Shape[:n-2]
			f.WeightTables = int(max(1, groups.Elems()))
			f.WeightGran, f.WeightBlock = blockOf(c.Shape, groups)
		}
		if a, ok := any(s.Table.Storage).(*Affine); ok {
			f.QuantWeight = a.Codes.DType.Bits() == 8
		}
	case *Sparse:
		f.WeightSparsity = sparsity(s)
	}
}

func describeCodes(f *Facts, codes *Const) {
	f.WeightBits = codes.DType.Bits()
	if s, ok := any(codes.Storage).(*Sparse); ok {
		f.WeightSparsity = sparsity(s)
	}
}

func sparsity(s *Sparse) float64 {
	n := s.Mask.Elems()
	if n <= 0 {
		return 0
	}
	return 1 - float64(s.Values.Elems())/float64(n)
}

// blockOf derives the granularity from the shapes of codes and scales.
func blockOf(codes, scale Shape) (Granularity, int) {
	if len(codes) != len(scale) {
		if scale.Elems() <= 1 {
			return PerTensor, 0
		}
		return PerChannel, 0
	}
	axes, block := 0, 0
	for i := range codes {
		if scale[i] > 1 {
			axes++
			if b := codes[i] / scale[i]; b > 1 {
				block = b
			}
		}
	}
	switch {
	case axes == 0:
		return PerTensor, 0
	case axes == 1:
		return PerChannel, 0
	}
	return PerBlock, max(block, 1)
}

func at(s Shape, i int) int {
	if i < 0 || i >= len(s) || s[i] < 0 {
		return 1
	}
	return s[i]
}

func pick(v []int, i, def int) int {
	if i >= 0 && i < len(v) {
		return v[i]
	}
	return def
}

// spatial splits the trailing spatial dimensions of an NC... shape into depth,
// height and width.
func spatial(s Shape) (dep, h, w int) {
	switch n := len(s); {
	case n >= 5:
		dep = 1
		for i := 2; i < n-2; i++ {
			dep *= at(s, i)
		}
		return dep, at(s, n-2), at(s, n-1)
	case n == 4:
		return 1, at(s, 2), at(s, 3)
	case n == 3:
		return 1, 1, at(s, 2)
	}
	return 1, 1, 1
}

// geometry fills the shape facts and the operation counts of the anchor.
func (lo *lowering) geometry(l *Layer, d *draft) {
	f, n := &l.Facts, d.anchor
	x, y := n.In(0), n.Out(0)
	if x == nil || y == nil {
		f.VectorOps += max(1, elems(y))
		return
	}
	rank := len(x.Shape)
	axis := func(def int) int {
		a := n.Attrs.Int("axis", def)
		if a < 0 {
			a += rank
		}
		return a
	}
	switch d.kind {
	case KindConv, KindDepthwise, KindConvTranspose, KindPool:
		idep, ih, iw := spatial(x.Shape)
		odep, oh, ow := spatial(y.Shape)
		f.InC, f.InH, f.InW = at(x.Shape, 1), ih, iw
		f.OutC, f.OutH, f.OutW = at(y.Shape, 1), oh, ow
		f.Batch = at(x.Shape, 0) * odep
		kernel := n.Attrs.Ints("kernel_shape", nil)
		if d.kind != KindPool && n.In(1) != nil && len(n.In(1).Shape) > 2 {
			kernel = n.In(1).Shape[2:]
		}
		if d.kind == KindPool && strings.HasPrefix(string(n.Op), "Global") {
			kernel = x.Shape[min(2, len(x.Shape)):]
		}
		k := len(kernel)
		f.KH, f.KW = pick(kernel, k-2, 1), pick(kernel, k-1, 1)
		for i := 0; i < k-2; i++ {
			f.KD *= max(kernel[i], 1)
		}
		st, di := n.Attrs.Ints("strides", nil), n.Attrs.Ints("dilations", nil)
		f.StrideH, f.StrideW = pick(st, len(st)-2, 1), pick(st, len(st)-1, 1)
		f.DilH, f.DilW = pick(di, len(di)-2, 1), pick(di, len(di)-1, 1)
		f.Groups = max(1, n.Attrs.Int("group", 1))
		window := int64(f.KD) * int64(f.KH) * int64(f.KW)
		switch d.kind {
		case KindPool:
			f.Groups = f.InC
			f.VectorOps += elems(y) * window
		case KindConvTranspose:
			f.M = int64(at(x.Shape, 0)) * int64(idep) * int64(ih) * int64(iw)
			f.K = int64(f.InC / f.Groups)
			f.N = int64(f.OutC/f.Groups) * window
			f.Repeat = int64(f.Groups)
		default:
			f.M = int64(f.Batch) * int64(oh) * int64(ow)
			f.K = int64(f.InC/f.Groups) * window
			f.N = int64(f.OutC / f.Groups)
			f.Repeat = int64(f.Groups)
		}
		if d.kind != KindPool {
			f.MACs = f.M * f.K * f.N * f.Repeat
		}
	case KindLinear, KindMatMul:
		lo.matmul(f, n)
	case KindRecurrent:
		gates := map[Op]int64{"RNN": 1, "GRU": 3, "LSTM": 4}[n.Op]
		hidden, dirs := int64(n.Attrs.Int("hidden_size", 1)), int64(1)
		if w := n.In(1); w != nil {
			dirs = int64(at(w.Shape, 0))
		}
		in := int64(at(x.Shape, rank-1))
		f.M, f.K, f.N, f.Repeat = int64(at(x.Shape, 1)), in+hidden, gates*hidden, dirs*int64(at(x.Shape, 0))
		f.MACs = f.M * f.K * f.N * f.Repeat
		f.VectorOps += f.M * f.N * f.Repeat * 2
	case KindAttention:
		if q, k := n.In(0), n.In(1); q != nil && k != nil && len(q.Shape) > 2 && len(k.Shape) == len(q.Shape) {
			r := len(q.Shape)
			f.M, f.K, f.N = int64(at(q.Shape, r-2)), int64(at(q.Shape, r-1)), int64(at(k.Shape, r-2))
			f.Repeat = 2 * max(1, elems(q)/max(1, f.M*f.K))
			f.MACs = f.M * f.K * f.N * f.Repeat
			f.VectorOps += f.M * f.N * f.Repeat * 3
		} else {
			f.VectorOps += 4 * elems(y)
		}
	case KindSoftmax:
		f.Axis = axis(-1)
		f.LastAxis = f.Axis == rank-1
	case KindNorm:
		f.Axis = axis(-1)
		f.LastAxis = n.Op == "LayerNormalization" || n.Op == "RMSNormalization"
	case KindReduce:
		f.VectorOps += elems(x)
		f.Axis = axis(-1)
		if axes := n.In(1); axes != nil && axes.Const != nil {
			if t, err := axes.Const.Value(); err == nil {
				for i, a := range t.Int64s() {
					if a < 0 {
						a += int64(rank)
					}
					if i == 0 || int(a) < f.Axis {
						f.Axis = int(a)
					}
					f.LastAxis = f.LastAxis || int(a) == rank-1
				}
			}
		} else {
			f.LastAxis = true
		}
	case KindMove:
		f.VectorOps += elems(y)
		f.Axis = axis(1)
		switch n.Op {
		case "Transpose":
			p := n.Attrs.Ints("perm", nil)
			f.LastAxis = p == nil || (len(p) > 0 && p[len(p)-1] != len(p)-1)
		case "Concat", "Split":
			f.LastAxis = f.Axis == rank-1
		default:
			f.LastAxis = at(x.Shape, rank-1) != at(y.Shape, len(y.Shape)-1)
		}
	case KindView:
		f.LastAxis = at(x.Shape, rank-1) != at(y.Shape, len(y.Shape)-1)
	case KindElementwise:
		f.VectorOps += elems(y) * int64(max(1, len(n.Inputs)-1))
		lo.nchw(f, y)
	case KindResize:
		f.VectorOps += 4 * elems(y)
		lo.nchw(f, y)
		if len(x.Shape) >= 3 {
			_, f.InH, f.InW = spatial(x.Shape)
		}
	case KindGather:
		switch n.Op {
		case "Gather", "GatherElements", "GatherND": // rows are read, not the table
			f.VectorOps += max(1, elems(y))
		default:
			f.VectorOps += max(1, elems(y), elems(x))
		}
		lo.nchw(f, y)
	default:
		f.VectorOps += max(1, elems(y), elems(x))
		if n.Op == "BoxSuppression" { // each box against those taken: ten operations a pair
			boxes := elems(x) / 4
			f.VectorOps += 10 * boxes * int64(min(max(at(x.Shape, 1), 1), n.Attrs.Int("max_boxes", 1)))
		}
		lo.nchw(f, y)
	}
}

func (lo *lowering) nchw(f *Facts, y *Value) {
	if len(y.Shape) >= 3 {
		_, f.OutH, f.OutW = spatial(y.Shape)
		f.Batch, f.OutC = at(y.Shape, 0), at(y.Shape, 1)
		f.InC, f.InH, f.InW = f.OutC, f.OutH, f.OutW
	}
}

func (lo *lowering) matmul(f *Facts, n *Node) {
	a, b, y := n.In(0), n.In(1), n.Out(0)
	if b == nil {
		f.VectorOps += elems(y)
		return
	}
	switch n.Op {
	case "Gemm":
		f.M, f.K, f.N = int64(at(a.Shape, 0)), int64(at(a.Shape, 1)), int64(at(y.Shape, 1))
		if n.Attrs.Int("transA", 0) != 0 {
			f.M, f.K = f.K, f.M
		}
	case "Einsum":
		// The product of the extents of all labels, over all operands.
		eq := n.Attrs.String("equation", "")
		in, _, _ := strings.Cut(strings.ReplaceAll(eq, " ", ""), "->")
		size := map[rune]int64{}
		for i, t := range strings.Split(in, ",") {
			if v := n.In(i); v != nil {
				for j, r := range []rune(strings.ReplaceAll(t, "...", "")) {
					size[r] = int64(at(v.Shape, j))
				}
			}
		}
		total := int64(1)
		for _, v := range size {
			total *= v
		}
		f.K = max(1, total/max(1, elems(y)))
		f.M, f.N = max(1, elems(y)/int64(max(1, at(y.Shape, len(y.Shape)-1)))), int64(at(y.Shape, len(y.Shape)-1))
	default:
		ra, rb := len(a.Shape), len(b.Shape)
		f.K = int64(at(a.Shape, ra-1))
		f.N = 1
		if rb >= 2 {
			f.N = int64(at(b.Shape, rb-1))
		}
		rows := max(1, elems(y)/max(1, f.N))
		if rb <= 2 {
			f.M = rows
		} else {
			f.M = 1
			if ra >= 2 {
				f.M = int64(at(a.Shape, ra-2))
			}
			f.Repeat = max(1, rows/f.M)
		}
	}
	f.MACs = f.M * f.K * f.N * f.Repeat
	f.InC, f.OutC, f.InW, f.OutW, f.Batch = int(f.K), int(f.N), int(f.M), int(f.M), int(f.Repeat)
	if f.Repeat > 1 {
		f.Groups = 1
	}
}
