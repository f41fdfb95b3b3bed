package model

import "fmt"

// Form returns FormLookup.
func (l *Lookup) Form() Form { return FormLookup }

// StoredBytes returns the bytes of indices and tables.
func (l *Lookup) StoredBytes() int64 { return l.Indices.StoredBytes() + l.Table.StoredBytes() }

// Tables returns the number of look-up tables (groups on all axes).
func (l *Lookup) Tables() int {
	if l.Table == nil || len(l.Table.Shape) < 2 {
		return 0
	}
	return int(l.Table.Shape[:len(l.Table.Shape)-2].Elems())
}

// Vector returns the number of weights one index stands for (1 for scalar
// palettes).
func (l *Lookup) Vector() int {
	if l.Table == nil || len(l.Table.Shape) == 0 {
		return 0
	}
	return l.Table.Shape[len(l.Table.Shape)-1]
}

// Decode returns the table entries that the indices name, converted to d. A
// group of indices on an axis is contiguous. With a vector length v above one,
// index i on VectorAxis yields elements i*v .. i*v+v-1 there. Where the
// indices are sparse, masked-out positions are 0.
func (l *Lookup) Decode(d DType, shape Shape) (*Tensor, error) {
	if l.Indices == nil || l.Table == nil {
		return nil, fmt.Errorf("model: lookup constant without %s", missing(l.Indices, "indices", "table"))
	}
	is, ts := l.Indices.Shape, l.Table.Shape
	if len(ts) != len(is)+2 || ts.Elems() < 0 {
		return nil, fmt.Errorf("model: lookup table of shape %v for indices of shape %v (want their rank plus two)", ts, is)
	}
	groups, entries, vec := ts[:len(is)], ts[len(is)], ts[len(is)+1]
	if _, err := blocks("lookup", "table", is, groups); err != nil {
		return nil, err
	}
	if entries < 1 || vec < 1 {
		return nil, fmt.Errorf("model: lookup table of shape %v has no entries", ts)
	}
	if !l.Indices.DType.IsInt() || l.Indices.DType.IsSigned() {
		return nil, fmt.Errorf("model: lookup indices of type %s (want uint1, 2, 3, 4, 6, 8 or 16)", l.Indices.DType)
	}
	if !scalar(l.Table.DType) || d.Bits() < 8 || !scalar(d) {
		return nil, fmt.Errorf("model: lookup table of type %s decoded to %s (want int8, uint8, fp16 or fp32)", l.Table.DType, d)
	}
	want, axis := is.Clone(), l.VectorAxis
	if vec > 1 {
		if axis < 0 {
			axis += len(is)
		}
		if axis < 0 || axis >= len(is) {
			return nil, fmt.Errorf("model: lookup vector axis %d for indices of rank %d", l.VectorAxis, len(is))
		}
		want[axis] *= vec
	}
	if n := want.Elems(); n < 0 || n != shape.Elems() {
		return nil, fmt.Errorf("model: lookup indices of shape %v and vectors of %d where %v is declared", is, vec, shape)
	}
	indices, err := whole(l.Indices, "lookup indices")
	if err != nil {
		return nil, err
	}
	table, err := whole(l.Table, "lookup table")
	if err != nil {
		return nil, err
	}
	table = table.Convert(d)
	mask, err := maskOf(l.Indices)
	if err != nil {
		return nil, err
	}
	idx, err := indexList(indices, entries)
	if err != nil {
		return nil, err
	}
	inner := 1 // elements between neighbours on the vector axis
	if vec > 1 {
		for _, n := range is[axis+1:] {
			inner *= n
		}
	}
	out := NewTensor(d, shape...)
	switch d.Bits() {
	case 8:
		gather(View[uint8](out), View[uint8](table), idx, is, groups, entries, vec, inner)
	case 16:
		gather(View[uint16](out), View[uint16](table), idx, is, groups, entries, vec, inner)
	case 32:
		gather(View[uint32](out), View[uint32](table), idx, is, groups, entries, vec, inner)
	default:
		gather(View[uint64](out), View[uint64](table), idx, is, groups, entries, vec, inner)
	}
	if mask != nil {
		if vec == 1 {
			clearMasked(out, mask)
		} else {
			clearVectors(out, mask, vec, inner)
		}
	}
	return out, nil
}

// indexList widens indices and checks that the table has them all.
func indexList(t *Tensor, entries int) ([]uint16, error) {
	out := make([]uint16, t.Len())
	switch t.DType {
	case UInt8:
		for i, c := range t.Data {
			out[i] = uint16(c)
		}
	case UInt4:
		for i := range out {
			out[i] = uint16(t.Data[i>>1] >> (4 * uint(i&1)) & 15)
		}
	default:
		if t.DType.Bits() > 16 {
			return nil, fmt.Errorf("model: lookup indices of type %s (want at most 16 bits)", t.DType)
		}
		for i := range out {
			out[i] = uint16(t.IntAt(i))
		}
	}
	if bits := t.DType.Bits(); bits > 16 || 1<<bits > entries {
		for i, c := range out {
			if int(c) >= entries {
				return nil, fmt.Errorf("model: lookup index %d at element %d: the table has %d entries", c, i, entries)
			}
		}
	}
	return out, nil
}

func gather[T uint8 | uint16 | uint32 | uint64](out, table []T, idx []uint16, is, groups Shape, entries, vec, inner int) {
	EachBlock(is, groups, func(off, run, count, g int) {
		for j := 0; j < count; j, off = j+1, off+run {
			tab := table[(g+j)*entries*vec:][:entries*vec]
			if vec == 1 {
				dst := out[off : off+run]
				for i, c := range idx[off : off+run] {
					dst[i] = tab[c]
				}
				continue
			}
			for i := off; i < off+run; i++ {
				base := i/inner*inner*vec + i%inner
				for k, x := range tab[int(idx[i])*vec:][:vec] {
					out[base+k*inner] = x
				}
			}
		}
	})
}

// clearVectors zeroes the vectors whose index is masked out.
func clearVectors(out, mask *Tensor, vec, inner int) {
	n := mask.Len()
	for i := 0; i < n; i++ {
		if mask.IntAt(i) != 0 {
			continue
		}
		base := i/inner*inner*vec + i%inner
		for k := 0; k < vec; k++ {
			zeroElem(out, base+k*inner)
		}
	}
}
