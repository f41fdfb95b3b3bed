package coreml

import (
	"slices"

	"github.com/triune-sim/triune/model"
)

// expressible returns a constant in a form that MIL has: the parts in the
// constant's own type (MIL's result has the type of the scale or the table),
// and plain values where the codes are wider than 8 bits.
func expressible(k *model.Const) *model.Const {
	typed := func(p *model.Const) *model.Const {
		if p == nil || !p.DType.IsFloat() {
			return p
		}
		return expressible(&model.Const{DType: k.DType, Shape: p.Shape, Storage: p.Storage})
	}
	switch s := k.Storage.(type) {
	case *model.Affine:
		if s.Codes.DType.IsInt() && !isCode(s.Codes.DType) {
			return &model.Const{DType: k.DType, Shape: k.Shape, Storage: plainly{k}}
		}
		scale, zero := typed(s.Scale), typed(s.Zero)
		if scale.DType != s.Scale.DType || zero != nil && zero.DType != s.Zero.DType {
			return &model.Const{DType: k.DType, Shape: k.Shape, Storage: &model.Affine{Codes: s.Codes, Scale: scale, Zero: zero}}
		}
	case *model.Lookup:
		if table := typed(s.Table); table.DType != s.Table.DType {
			return &model.Const{DType: k.DType, Shape: k.Shape, Storage: &model.Lookup{Indices: s.Indices, Table: table, VectorAxis: s.VectorAxis}}
		}
	case *model.Sparse:
		if values := typed(s.Values); values.DType != s.Values.DType {
			return &model.Const{DType: k.DType, Shape: k.Shape, Storage: &model.Sparse{Mask: s.Mask, Values: values}}
		}
	}
	return k
}

// plainly presents a compressed constant as plain values.
type plainly struct{ of *model.Const }

func (p plainly) Form() model.Form   { return model.FormDense }
func (p plainly) StoredBytes() int64 { return p.of.DenseBytes() }
func (p plainly) Decode(d model.DType, s model.Shape) (*model.Tensor, error) {
	return p.of.Storage.Decode(d, s)
}

// weight writes the constexpr operations that decompress a constant.
func (x *exporter) weight(name string, k *model.Const) {
	if x.target < IOS18 {
		x.weight16(name, k)
		return
	}
	x.weight18(name, k)
}

// constexpr16 adds an operation of iOS16: its operands are attributes.
func (x *exporter) constexpr16(typ, name string, k *model.Const, attrs ...attribute) {
	slices.SortFunc(attrs, func(a, b attribute) int { return cmpString(a.key, b.key) })
	x.ops = append(x.ops, &operation{typ: typ, title: name, outputs: []named{{name, tensorType(k.DType, k.Shape)}}, attrs: attrs})
}

// plainStorage reports whether a constant holds its values as they are.
func plainStorage(k *model.Const) bool {
	switch k.Storage.(type) {
	case *model.Affine, *model.Lookup, *model.Sparse:
		return false
	}
	return true
}

// weight16 writes the compressions of iOS16 and iOS17: 8-bit codes per tensor
// or per channel, one table of 1, 2, 4, 6 or 8 bits, and sparse values.
func (x *exporter) weight16(name string, k *model.Const) {
	switch s := k.Storage.(type) {
	case *model.Affine:
		if !plainStorage(s.Codes) || !plainStorage(s.Scale) || s.Zero != nil && !plainStorage(s.Zero) {
			x.need(IOS18, "constant %q, which is compressed twice,", name)
		}
		if s.Codes.DType != model.Int8 && s.Codes.DType != model.UInt8 {
			x.need(IOS18, "constant %q of %s codes", name, s.Codes.DType)
		}
		ax, n := 0, 1
		for i, d := range s.Scale.Shape {
			if d == 1 {
				continue
			}
			if n > 1 || len(s.Scale.Shape) != len(s.Codes.Shape) || d != s.Codes.Shape[i] {
				x.need(IOS18, "constant %q, which is quantized per block,", name)
			}
			ax, n = i, d
		}
		if s.Zero != nil && s.Zero.Elems() != s.Scale.Elems() {
			failf("constant %q has %d scales and %d zero points", name, s.Scale.Elems(), s.Zero.Elems())
		}
		// Quantized data first, then zero point and scale: the order of blobs
		// in what coremltools writes.
		q := x.valueOf(s.Codes)
		var zero *value
		vec := model.Shape{}
		if n > 1 {
			vec = model.Shape{n}
		}
		switch {
		case s.Zero != nil:
			zero = x.valueOf(flat(s.Zero, vec))
		case x.inFile(s.Codes.DType, int64(n)):
			zero = x.zeroBlob(s.Codes.DType, int64(n))
		default:
			zero = immediate(model.NewTensor(s.Codes.DType, vec...))
		}
		scale := x.valueOf(flat(s.Scale, vec))
		axis := model.NewTensor(model.Int32)
		axis.SetInt(0, int64(ax))
		x.constexpr16("constexpr_affine_dequantize", name, k, attribute{"quantized_data", q}, attribute{"zero_point", zero},
			attribute{"scale", scale}, attribute{"axis", immediate(axis)})
	case *model.Lookup:
		if s.Tables() != 1 || s.Vector() != 1 {
			x.need(IOS18, "constant %q of %d tables of vectors of %d", name, s.Tables(), s.Vector())
		}
		if !plainStorage(s.Indices) || !plainStorage(s.Table) {
			x.need(IOS18, "constant %q, which is compressed twice,", name)
		}
		if s.Indices.DType == model.UInt3 {
			x.need(IOS18, "constant %q of 3-bit indices", name)
		}
		entries := int(s.Table.Elems())
		idx := x.valueOf(packed(s.Indices))
		table := x.valueOf(flat(s.Table, model.Shape{entries}))
		x.constexpr16("constexpr_lut_to_dense", name, k, attribute{"indices", idx}, attribute{"lut", table}, attribute{"shape", x.shapeValue(k.Shape)})
	case *model.Sparse:
		if !plainStorage(s.Values) {
			x.need(IOS18, "constant %q, which is compressed twice,", name)
		}
		if !s.Values.DType.IsFloat() {
			x.need(IOS18, "constant %q of sparse %s values", name, s.Values.DType)
		}
		values := x.valueOf(s.Values)
		mask := x.valueOf(packed(s.Mask))
		x.constexpr16("constexpr_sparse_to_dense", name, k, attribute{"nonzero_data", values}, attribute{"mask", mask}, attribute{"shape", x.shapeValue(k.Shape)})
	}
}

// shapeValue is the uint32 vector that iOS16's constexpr operators take.
func (x *exporter) shapeValue(s model.Shape) *value {
	t := model.NewTensor(model.UInt32, len(s))
	for i, d := range s {
		t.SetInt(i, int64(d))
	}
	return immediate(t)
}

// flat views a constant's plain values under another shape.
func flat(k *model.Const, s model.Shape) *model.Const {
	return &model.Const{DType: k.DType, Shape: s, Storage: k.Storage}
}

// packedBytes presents the bit stream of a sub-byte constant as uint8.
type packedBytes struct{ of *model.Const }

func (p packedBytes) Form() model.Form   { return model.FormDense }
func (p packedBytes) StoredBytes() int64 { return p.of.StoredBytes() }
func (p packedBytes) Decode(d model.DType, s model.Shape) (*model.Tensor, error) {
	t, err := p.of.Value()
	if err != nil {
		return nil, err
	}
	u := &model.Tensor{DType: model.UInt8, Shape: model.Shape{len(t.Data)}, Data: t.Data}
	return model.Dense{Tensor: u}.Decode(d, s)
}

func packed(k *model.Const) *model.Const {
	n := int(k.DType.Bytes(k.Elems()))
	return &model.Const{DType: model.UInt8, Shape: model.Shape{n}, Storage: packedBytes{k}}
}

// operand of an iOS18 constexpr operation.
func (x *exporter) bindConst(key string, k *model.Const) argument {
	return argument{key, []binding{{val: x.valueOf(k)}}}
}

func (x *exporter) constexpr18(typ, name string, outs []named, args ...argument) {
	slices.SortFunc(args, func(a, b argument) int { return cmpString(a.key, b.key) })
	x.ops = append(x.ops, &operation{typ: typ, title: name, outputs: outs, inputs: args})
}

// weight18 writes the compressions of iOS18, which may be nested: codes or
// indices that are sparse, a table that is quantized.
func (x *exporter) weight18(name string, k *model.Const) {
	out := []named{{name, tensorType(k.DType, k.Shape)}}
	switch s := k.Storage.(type) {
	case *model.Affine:
		if sp, ok := s.Codes.Storage.(*model.Sparse); ok {
			mask, nz := x.sparseNames(name, s.Codes.Shape, sp, k.DType)
			args := append([]argument{x.bindConst("data_mask", sp.Mask), x.nested(name, "nonzero_data", sp.Values)}, x.scales(s)...)
			x.constexpr18("constexpr_sparse_blockwise_shift_scale", name+"_quantized", []named{mask, nz}, args...)
			x.sparseJoin(name, out, mask, nz)
			return
		}
		args := append([]argument{x.nested(name, "data", s.Codes)}, x.scales(s)...)
		x.constexpr18("constexpr_blockwise_shift_scale", name, out, args...)
	case *model.Lookup:
		table := x.nested(name, "lut", s.Table)
		var vec []argument
		if s.Vector() > 1 {
			t := model.NewTensor(model.Int32)
			t.SetInt(0, int64(s.VectorAxis))
			vec = []argument{{"vector_axis", []binding{{val: immediate(t)}}}}
		}
		if sp, ok := s.Indices.Storage.(*model.Sparse); ok {
			mask, nz := x.sparseNames(name, k.Shape, sp, k.DType)
			nz.typ.shape = model.Shape{int(sp.Values.Elems()) * s.Vector()}
			args := append([]argument{x.bindConst("indices_mask", sp.Mask), x.bindConst("indices_nonzero_data", sp.Values), table}, vec...)
			x.constexpr18("constexpr_lut_to_sparse", name+"_palettized", []named{mask, nz}, args...)
			x.sparseJoin(name, out, mask, nz)
			return
		}
		x.constexpr18("constexpr_lut_to_dense", name, out, append([]argument{x.bindConst("indices", s.Indices), table}, vec...)...)
	case *model.Sparse:
		x.constexpr18("constexpr_sparse_to_dense", name, out, x.bindConst("mask", s.Mask), x.nested(name, "nonzero_data", s.Values))
	}
}

// nested writes an operand that may itself be compressed.
func (x *exporter) nested(name, key string, k *model.Const) argument {
	if plainStorage(k) {
		return x.bindConst(key, k)
	}
	inner := x.fresh(name + "_" + key)
	x.weight18(inner, k)
	return argument{key, []binding{{name: inner}}}
}

func (x *exporter) scales(s *model.Affine) []argument {
	args := []argument{x.bindConst("scale", broadcastRank(s.Scale, len(s.Codes.Shape)))}
	if s.Zero != nil {
		args = append(args, x.bindConst("offset", broadcastRank(s.Zero, len(s.Codes.Shape))))
	}
	return args
}

// broadcastRank gives a one-element constant the rank that MIL wants.
func broadcastRank(k *model.Const, rank int) *model.Const {
	if len(k.Shape) == rank || k.Elems() != 1 {
		return k
	}
	s := make(model.Shape, rank)
	for i := range s {
		s[i] = 1
	}
	return flat(k, s)
}

// sparseNames names the two outputs of an operation on sparse data.
func (x *exporter) sparseNames(name string, shape model.Shape, sp *model.Sparse, d model.DType) (mask, nz named) {
	return named{x.fresh(name + "_mask"), tensorType(model.UInt1, shape)},
		named{x.fresh(name + "_nonzero"), tensorType(d, model.Shape{int(sp.Values.Elems())})}
}

func (x *exporter) sparseJoin(name string, out []named, mask, nz named) {
	x.constexpr18("constexpr_sparse_to_dense", name, out,
		argument{"mask", []binding{{name: mask.name}}}, argument{"nonzero_data", []binding{{name: nz.name}}})
}
