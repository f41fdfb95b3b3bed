package coreml

import (
	"slices"

	"github.com/triune-sim/triune/model"
)

// constexpr binds the output of an operation that decompresses a weight to a
// constant that stays compressed. Operands are attributes up to iOS17 and
// inputs from iOS18 on; the operators of both generations share names.
func (c *call) constexpr() {
	if len(c.op.outputs) == 0 {
		failf("no output")
	}
	switch c.op.typ {
	case "constexpr_affine_dequantize":
		c.affineDequantize()
	case "constexpr_blockwise_shift_scale":
		c.bind(c.affine(c.operand("data"), c.operand("scale"), c.optOperand("offset")))
	case "constexpr_lut_to_dense":
		if c.optOperand("shape") != nil {
			c.lutToDense16()
			return
		}
		c.bind(c.lookup(c.operand("indices"), c.operand("lut")))
	case "constexpr_sparse_to_dense":
		c.sparseToDense()
	case "constexpr_lut_to_sparse":
		mask := c.operand("indices_mask")
		c.sparseParts(mask, c.lookup(c.sparse(mask, c.operand("indices_nonzero_data")), c.operand("lut")))
	case "constexpr_sparse_blockwise_shift_scale":
		mask := c.operand("data_mask")
		codes := c.optWhole("nonzero_data")
		if codes == nil {
			codes = c.sparse(mask, c.operand("nonzero_data"))
		}
		c.sparseParts(mask, c.affine(codes, c.operand("scale"), c.optOperand("offset")))
	case "constexpr_cast":
		k := c.operand("source_val")
		if k.DType != model.Float16 {
			failf("constexpr_cast of %s (want fp16)", k.DType)
		}
		c.bind(&model.Const{DType: model.Float32, Shape: k.Shape, Storage: k.Storage})
	default:
		failf("operation %s is not supported", quote(c.op.typ))
	}
}

// operand returns an operand of a constexpr operation as a constant.
func (c *call) operand(key string) *model.Const {
	k := c.optOperand(key)
	if k == nil {
		failf("operand %s is missing", quote(key))
	}
	return k
}

func (c *call) operandEntry(key string) *entry {
	if v := c.op.attr(key); v != nil {
		return &entry{v: &model.Value{Const: c.im.constOf(v)}}
	}
	a := c.op.arg(key)
	if len(a) == 0 {
		return nil
	}
	if len(a) > 1 {
		failf("operand %s has %d bindings, want one", quote(key), len(a))
	}
	if a[0].val != nil {
		return &entry{v: &model.Value{Const: c.im.constOf(a[0].val)}}
	}
	return c.im.lookup(a[0].name)
}

func (c *call) optOperand(key string) *model.Const {
	e := c.operandEntry(key)
	if e == nil {
		return nil
	}
	if e.v == nil || e.v.Const == nil || e.whole != nil {
		failf("operand %s is not a constant tensor", quote(key))
	}
	return e.v.Const
}

// optWhole returns the dense constant behind an operand that is the non-zero
// part another constexpr operation gave, else nil.
func (c *call) optWhole(key string) *model.Const {
	if e := c.operandEntry(key); e != nil {
		return e.whole
	}
	return nil
}

// intOperand reads a small integer operand.
func (c *call) intOperand(key string, def int) int {
	k := c.optOperand(key)
	if k == nil {
		return def
	}
	s := c.staticOperand(key, k)
	if len(s) != 1 {
		failf("operand %s has %d values, want one", quote(key), len(s))
	}
	return s[0]
}

func (c *call) staticOperand(key string, k *model.Const) []int {
	if k.Elems() > maxStatic {
		failf("operand %s has %d elements", quote(key), k.Elems())
	}
	t, err := k.Value()
	try(err)
	return toInts(key, t)
}

// bind defines the first output after checking the declared type.
func (c *call) bind(k *model.Const) { c.bindOut(0, k) }

func (c *call) bindOut(i int, k *model.Const) {
	n := c.op.outputs[i]
	if t := n.typ; t.kind == kindTensor && (t.dtype != k.DType || !t.vary && !t.shape.Equal(k.Shape)) {
		failf("output %s is declared %s%v and decodes to %s%v", quote(n.name), t.dtype, t.shape, k.DType, k.Shape)
	}
	if traceConst != nil {
		traceConst(n.name, k)
	}
	c.bindConst(n.name, k)
}

// traceConst, when set, sees every decompressed constant by name; tests use it.
var traceConst func(name string, k *model.Const)

// sparseParts defines the two outputs (mask, non-zero values) of an operation
// whose dense result is whole.
func (c *call) sparseParts(mask, whole *model.Const) {
	if len(c.op.outputs) != 2 {
		failf("%d outputs, want two", len(c.op.outputs))
	}
	m := mask
	if _, ok := whole.Storage.(*model.Lookup); ok && !mask.Shape.Equal(whole.Shape) {
		// The mask is widened along the vector axis; only the shape matters
		// here, the values are inside whole.
		m = &model.Const{DType: mask.DType, Shape: whole.Shape, Storage: mask.Storage}
	}
	c.bindConst(c.op.outputs[0].name, m)
	name := c.op.outputs[1].name
	if traceConst != nil {
		traceConst(c.op.outputs[0].name, m)
		traceConst(name, keptConst(whole, mask))
	}
	c.im.define(name, &entry{v: &model.Value{Name: name, Const: whole}, whole: whole})
}

func isCode(d model.DType) bool {
	switch d {
	case model.Int4, model.UInt4, model.Int8, model.UInt8, model.UInt1, model.UInt2, model.UInt3, model.UInt6:
		return true
	}
	return false
}

// affine builds scale * (codes - offset) with a scale of the codes' rank.
func (c *call) affine(codes, scale, offset *model.Const) *model.Const {
	if !isCode(codes.DType) && codes.DType != model.Float16 && codes.DType != model.Float32 {
		failf("codes of type %s", codes.DType)
	}
	if scale.DType != model.Float16 && scale.DType != model.Float32 {
		failf("a scale of type %s (want fp16 or fp32)", scale.DType)
	}
	if offset != nil {
		if !offset.Shape.Equal(scale.Shape) {
			failf("an offset of shape %v beside a scale of shape %v", offset.Shape, scale.Shape)
		}
		offset = dropZero(offset)
	}
	a := &model.Affine{Codes: codes, Scale: scale, Zero: offset}
	_, err := a.Block()
	try(err)
	return &model.Const{DType: scale.DType, Shape: codes.Shape, Storage: a}
}

// dropZero returns nil for a zero point of zeros: symmetric quantization has
// none.
func dropZero(k *model.Const) *model.Const {
	t, err := k.Value()
	try(err)
	if t.DType.IsInt() {
		for _, b := range t.Data {
			if b != 0 {
				return k
			}
		}
		return nil
	}
	for i := range t.Len() {
		if numberAt(t, i) != 0 {
			return k
		}
	}
	return nil
}

// affineDequantize is constexpr_affine_dequantize of iOS16: scale and zero
// point are scalars, or vectors along axis.
func (c *call) affineDequantize() {
	codes, scale, zero := c.operand("quantized_data"), c.operand("scale"), c.operand("zero_point")
	if !isCode(codes.DType) || len(codes.Shape) == 0 {
		failf("quantized data %s%v (want int8 or uint8 of rank 1 or more)", codes.DType, codes.Shape)
	}
	ax := axis(c.intOperand("axis", 0), len(codes.Shape))
	n := codes.Shape[ax]
	spread := func(what string, k *model.Const) *model.Const {
		shape := make(model.Shape, len(codes.Shape))
		for i := range shape {
			shape[i] = 1
		}
		switch {
		case k.Elems() == 1:
		case len(k.Shape) == 1 && k.Shape[0] == n:
			shape[ax] = n
		default:
			failf("a %s of shape %v for axis %d of %v", what, k.Shape, ax, codes.Shape)
		}
		return reshapeConst(k, shape)
	}
	scale, zero = spread("scale", scale), spread("zero point", zero)
	if zero = dropZero(zero); zero != nil && !zero.Shape.Equal(scale.Shape) {
		// One of the two is a scalar: widen it, so that they agree.
		if zero.Elems() == 1 {
			zero = splat(zero, scale.Shape)
		} else {
			scale = splat(scale, zero.Shape)
		}
	}
	c.bind(c.affine(codes, scale, zero))
}

// reshapeConst returns a dense constant under another shape, sharing its data.
func reshapeConst(k *model.Const, s model.Shape) *model.Const {
	t, err := k.Value()
	try(err)
	return model.NewConst(t.Reshape(s...))
}

// splat repeats a one-element constant.
func splat(k *model.Const, s model.Shape) *model.Const {
	t, err := k.Value()
	try(err)
	out := model.NewTensor(t.DType, s...)
	n := len(t.Data)
	for i := 0; i+n <= len(out.Data); i += n {
		copy(out.Data[i:], t.Data)
	}
	return model.NewConst(out)
}

// lookup builds a palette from indices and tables of their rank plus two.
func (c *call) lookup(indices, table *model.Const) *model.Const {
	switch indices.DType {
	case model.UInt1, model.UInt2, model.UInt3, model.UInt4, model.UInt6, model.UInt8:
	default:
		failf("indices of type %s (want uint1, 2, 3, 4, 6 or 8)", indices.DType)
	}
	r := len(indices.Shape)
	if len(table.Shape) != r+2 {
		failf("a table of shape %v for indices of shape %v (want rank %d)", table.Shape, indices.Shape, r+2)
	}
	vec := table.Shape[r+1]
	if table.Shape[r] != 1<<indices.DType.Bits() || vec < 1 {
		failf("a table of shape %v for %s indices", table.Shape, indices.DType)
	}
	l := &model.Lookup{Indices: indices, Table: table}
	shape := indices.Shape.Clone()
	for i, d := range shape {
		if g := table.Shape[i]; g < 1 || d%g != 0 {
			failf("%d groups on axis %d of indices of shape %v", g, i, indices.Shape)
		}
	}
	if vec > 1 {
		if c.optOperand("vector_axis") == nil {
			failf("a table of vectors of %d without vector_axis", vec)
		}
		l.VectorAxis = axis(c.intOperand("vector_axis", 0), r)
		shape[l.VectorAxis] *= vec
	}
	if shape.Elems() < 0 || table.DType.Bytes(shape.Elems()) > maxTensor {
		failf("a constant of shape %v is too large", shape)
	}
	return &model.Const{DType: table.DType, Shape: shape, Storage: l}
}

// lutToDense16 is constexpr_lut_to_dense of iOS16: packed indices, one table,
// and the shape.
func (c *call) lutToDense16() {
	idx, table := c.operand("indices"), c.operand("lut")
	shape := c.shapeOperand()
	bits, ok := map[int]model.DType{2: model.UInt1, 4: model.UInt2, 16: model.UInt4, 64: model.UInt6, 256: model.UInt8}[int(table.Elems())]
	if !ok {
		failf("a table of %d entries (want 2, 4, 16, 64 or 256)", table.Elems())
	}
	idx = repack(idx, bits, shape)
	ts := make(model.Shape, len(shape)+2)
	for i := range ts {
		ts[i] = 1
	}
	ts[len(shape)] = int(table.Elems())
	c.bind(c.lookup(idx, reshapeConst(table, ts)))
}

// repack views the bytes of a uint8 constant as packed elements of a narrower
// type.
func repack(k *model.Const, d model.DType, shape model.Shape) *model.Const {
	if k.DType != model.UInt8 {
		failf("packed data of type %s (want uint8)", k.DType)
	}
	t, err := k.Value()
	try(err)
	n := shape.Elems()
	if n < 0 || n > int64(len(t.Data))*8 || d.Bytes(n) != int64(len(t.Data)) {
		failf("%d packed bytes for %s%v (want %d)", len(t.Data), d, shape, d.Bytes(max(n, 0)))
	}
	return model.NewConst(&model.Tensor{DType: d, Shape: shape, Data: t.Data})
}

func (c *call) shapeOperand() model.Shape {
	s := c.staticOperand("shape", c.operand("shape"))
	if len(s) > maxRank {
		failf("a shape of %d dimensions", len(s))
	}
	for _, d := range s {
		if d < 0 || d > 1<<31-1 {
			failf("dimension %d is out of range", d)
		}
	}
	return model.Shape(slices.Clone(s))
}

// sparse builds the dense constant of a mask and its non-zero values.
func (c *call) sparse(mask, values *model.Const) *model.Const {
	if mask.DType != model.UInt1 {
		failf("a mask of type %s (want uint1)", mask.DType)
	}
	if len(values.Shape) != 1 {
		failf("non-zero data of shape %v (want one dimension)", values.Shape)
	}
	if !plainStorage(mask) {
		failf("a mask that is compressed itself")
	}
	t, err := mask.Value()
	try(err)
	if n := popcount(t); n != int64(values.Shape[0]) {
		failf("a mask with %d ones for %d values", n, values.Shape[0])
	}
	return &model.Const{DType: values.DType, Shape: mask.Shape, Storage: &model.Sparse{Mask: mask, Values: values}}
}

func (c *call) sparseToDense() {
	if whole := c.optWhole("nonzero_data"); whole != nil {
		c.bind(whole)
		return
	}
	mask, values := c.operand("mask"), c.operand("nonzero_data")
	if mask.DType == model.UInt8 {
		mask = repack(mask, model.UInt1, c.shapeOperand())
	}
	c.bind(c.sparse(mask, values))
}
