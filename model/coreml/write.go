package coreml

import (
	"slices"
	"strings"

	"github.com/triune-sim/triune/model"
	"google.golang.org/protobuf/encoding/protowire"
)

// Encoding of the specification. Map fields are written in the order of their
// keys, so that equal specifications have equal bytes.

// encode returns message Model.
func (m *specModel) encode() []byte {
	b := appendVarint(nil, 1, uint64(m.version))
	b = appendMsg(b, 2, m.desc.encode())
	if m.program != nil {
		b = appendMsg(b, 502, m.program.encode())
	}
	return b
}

func (d *description) encode() []byte {
	var b []byte
	for i := range d.inputs {
		b = appendMsg(b, 1, d.inputs[i].encode())
	}
	for i := range d.outputs {
		b = appendMsg(b, 10, d.outputs[i].encode())
	}
	b = appendString(b, 11, d.predicted)
	b = appendString(b, 12, d.probabilities)
	for i := range d.states {
		b = appendMsg(b, 13, d.states[i].encode())
	}
	if len(d.meta) > 0 {
		b = appendMsg(b, 100, encodeMetadata(d.meta))
	}
	return b
}

func encodeMetadata(meta []keyValue) []byte {
	var b []byte
	fixed := map[string]protowire.Number{"shortDescription": 1, "version": 2, "author": 3, "license": 4}
	meta = slices.Clone(meta)
	slices.SortFunc(meta, func(a, b keyValue) int {
		if fa, fb := fixed[a.key], fixed[b.key]; fa != fb {
			if fa != 0 && (fb == 0 || fa < fb) {
				return -1
			}
			return 1
		}
		return cmpString(a.key, b.key)
	})
	for _, kv := range meta {
		if id := fixed[kv.key]; id != 0 {
			b = appendString(b, id, kv.value)
			continue
		}
		var e []byte
		e = appendString(e, 1, strings.TrimPrefix(kv.key, "user."))
		e = appendString(e, 2, kv.value)
		b = appendMsg(b, 100, e)
	}
	return b
}

func (f *feature) encode() []byte {
	b := appendString(nil, 1, f.name)
	b = appendString(b, 2, f.short)
	var t []byte
	switch f.kind {
	case featureInt64:
		t = appendMsg(t, 1, nil)
	case featureDouble:
		t = appendMsg(t, 2, nil)
	case featureString:
		t = appendMsg(t, 3, nil)
	case featureImage:
		var m []byte
		m = appendVarint(m, 1, uint64(f.image.width))
		m = appendVarint(m, 2, uint64(f.image.height))
		m = appendVarint(m, 3, uint64(f.image.color))
		if f.image.enumerated != nil {
			var e []byte
			for _, s := range f.image.enumerated {
				e = appendMsg(e, 1, appendVarint(appendVarint(nil, 1, uint64(s[0])), 2, uint64(s[1])))
			}
			m = appendMsg(m, 21, e)
		}
		if f.image.ranges != nil {
			m = appendMsg(m, 31, appendMsg(appendMsg(nil, 1, encodeRange(f.image.ranges[0])), 2, encodeRange(f.image.ranges[1])))
		}
		t = appendMsg(t, 4, m)
	case featureArray:
		t = appendMsg(t, 5, f.array.encode())
	case featureDictionary:
		id := protowire.Number(2)
		if f.keyInt64 {
			id = 1
		}
		t = appendMsg(t, 6, appendMsg(nil, id, nil))
	case featureState:
		t = appendMsg(t, 8, appendMsg(nil, 1, f.array.encode()))
	}
	if f.optional {
		t = appendVarint(t, 1000, 1)
	}
	return appendMsg(b, 3, t)
}

func (a *arrayType) encode() []byte {
	b := appendInts(nil, a.shape)
	b = appendVarint(b, 2, uint64(a.dtype))
	if a.enumerated != nil {
		var e []byte
		for _, s := range a.enumerated {
			e = appendMsg(e, 1, appendInts(nil, s))
		}
		b = appendMsg(b, 21, e)
	}
	if a.ranges != nil {
		var e []byte
		for _, r := range a.ranges {
			e = appendMsg(e, 1, encodeRange(r))
		}
		b = appendMsg(b, 31, e)
	}
	return b
}

// appendInts appends a packed repeated integer field 1.
func appendInts(b []byte, v []int) []byte {
	if len(v) == 0 {
		return b
	}
	var s []byte
	for _, d := range v {
		s = protowire.AppendVarint(s, uint64(d))
	}
	return appendMsg(b, 1, s)
}

func encodeRange(r [2]int) []byte {
	return appendVarint(appendVarint(nil, 1, uint64(r[0])), 2, uint64(r[1]))
}

func (p *program) encode() []byte {
	b := appendVarint(nil, 1, uint64(p.version))
	for _, n := range p.names {
		b = appendMapEntry(b, 2, n, p.functions[n].encode())
	}
	return b
}

func (f *function) encode() []byte {
	var b []byte
	for i := range f.inputs {
		b = appendMsg(b, 1, f.inputs[i].encode())
	}
	b = appendString(b, 2, f.opset)
	return appendMapEntry(b, 3, f.opset, f.block.encode())
}

func (bl *block) encode() []byte {
	b := make([]byte, 0, 256*len(bl.ops))
	for i := range bl.inputs {
		b = appendMsg(b, 1, bl.inputs[i].encode())
	}
	for _, n := range bl.outputs {
		b = appendMsg(b, 2, []byte(n))
	}
	for _, op := range bl.ops {
		b = appendMsg(b, 3, op.encode())
	}
	return b
}

func (n *named) encode() []byte {
	return appendMsg(appendString(nil, 1, n.name), 2, n.typ.encode())
}

func (o *operation) encode() []byte {
	b := make([]byte, 0, 256)
	b = appendString(b, 1, o.typ)
	for _, a := range o.inputs {
		var m []byte
		for _, bd := range a.args {
			var e []byte
			if bd.val != nil {
				e = appendMsg(nil, 2, bd.val.encode())
			} else {
				e = appendMsg(nil, 1, []byte(bd.name))
			}
			m = appendMsg(m, 1, e)
		}
		b = appendMapEntry(b, 2, a.key, m)
	}
	for i := range o.outputs {
		b = appendMsg(b, 3, o.outputs[i].encode())
	}
	for _, bl := range o.blocks {
		b = appendMsg(b, 4, bl.encode())
	}
	named := o.title == ""
	for _, a := range o.attrs {
		if !named && a.key > "name" {
			b = o.appendTitle(b)
			named = true
		}
		b = appendMapEntry(b, 5, a.key, a.val.encode())
	}
	if !named {
		b = o.appendTitle(b)
	}
	return b
}

// stringType is the encoded type of a scalar string.
var stringType = (&valueType{kind: kindTensor, dtype: model.String}).encode()

// appendTitle writes the attribute "name".
func (o *operation) appendTitle(b []byte) []byte {
	m := make([]byte, 0, len(o.title)+24)
	m = appendMsg(m, 2, stringType)
	// immediateValue 3 { tensor 1 { strings 4 { values 1 } } }
	n := 1 + protowire.SizeBytes(len(o.title))
	k := 1 + protowire.SizeBytes(n)
	for _, f := range []struct {
		id   protowire.Number
		size int
	}{{3, 1 + protowire.SizeBytes(k)}, {1, k}, {4, n}} {
		m = protowire.AppendTag(m, f.id, protowire.BytesType)
		m = protowire.AppendVarint(m, uint64(f.size))
	}
	m = appendMsg(m, 1, []byte(o.title))
	return appendMapEntry(b, 5, "name", m)
}

func (t *valueType) encode() []byte {
	switch t.kind {
	case kindTensor:
		return appendMsg(nil, 1, encodeTensorType(t.dtype, t.shape))
	case kindList:
		m := appendMsg(nil, 1, t.elem.encode())
		m = appendMsg(m, 2, encodeDimension(t.length))
		return appendMsg(nil, 2, m)
	case kindDict:
		m := appendMsg(nil, 1, t.keyTyp.encode())
		m = appendMsg(m, 2, t.elem.encode())
		return appendMsg(nil, 4, m)
	case kindState:
		return appendMsg(nil, 5, appendMsg(nil, 1, t.elem.encode()))
	}
	return nil
}

func encodeTensorType(d model.DType, s model.Shape) []byte {
	b := make([]byte, 0, 8+8*len(s))
	b = appendVarint(b, 1, uint64(milTypeOf[d]))
	b = appendVarint(b, 2, uint64(len(s)))
	for _, n := range s {
		b = appendMsg(b, 3, encodeDimension(n))
	}
	return b
}

func encodeDimension(n int) []byte {
	if n < 0 {
		return appendMsg(nil, 2, nil)
	}
	return appendMsg(nil, 1, appendVarint(nil, 1, uint64(n)))
}

func (v *value) encode() []byte {
	b := appendMsg(nil, 2, v.typ.encode())
	if v.blob {
		m := appendString(nil, 1, v.file)
		m = appendVarint(m, 2, v.off)
		return appendMsg(b, 5, m)
	}
	var im []byte
	if v.isList {
		var l []byte
		for _, e := range v.list {
			l = appendMsg(l, 1, e.encode())
		}
		im = appendMsg(nil, 3, l)
	} else {
		var p []byte
		switch v.kase {
		case 2, 3, 5:
			for _, x := range v.ints {
				p = protowire.AppendVarint(p, uint64(x))
			}
			if p != nil {
				p = appendMsg(nil, 1, p)
			}
		case 4:
			for _, s := range v.strs {
				p = appendMsg(p, 1, []byte(s))
			}
		default:
			if len(v.raw) > 0 {
				p = appendMsg(nil, 1, v.raw)
			}
		}
		im = appendMsg(nil, 1, appendMsg(nil, protowire.Number(v.kase), p))
	}
	return appendMsg(b, 3, im)
}

// immediate makes a value that stands in the specification itself. The field
// that holds the numbers depends on the type, as MIL's parser wants it.
func immediate(t *model.Tensor) *value {
	v := &value{typ: tensorType(t.DType, t.Shape)}
	switch t.DType {
	case model.String:
		v.kase, v.strs = 4, t.Strings
	case model.Float32:
		v.kase, v.raw = 1, t.Data
	case model.Float64:
		v.kase, v.raw = 6, t.Data
	case model.Int16, model.UInt16, model.Int32:
		v.kase = 2
	case model.Bool:
		v.kase = 3
	case model.Int64, model.UInt64:
		v.kase = 5
	default: // fp16, int8, uint8, uint32 and the sub-byte types
		v.kase, v.raw = 7, t.Data
	}
	if v.kase == 2 || v.kase == 3 || v.kase == 5 {
		v.ints = make([]int64, t.Len())
		for i := range v.ints {
			v.ints[i] = t.IntAt(i)
		}
	}
	return v
}
