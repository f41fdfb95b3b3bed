package quant

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/x448/float16"

	"github.com/triune-sim/triune/model"
)

// paletteCodes is the result of palettising.
type paletteCodes struct {
	indices []uint8   // row-major in the shape of the indices
	table   []float32 // [group][entry][vector]
}

// palette turns a weight, the values kept by a mask, or quantised codes into
// indices and tables.
func (k *compressor) palette(cfg Palette, w *weight) (*model.Const, string, error) {
	c := w.value.Const
	source, affine := c, (*model.Affine)(nil)
	switch s := c.Storage.(type) {
	case *model.Lookup:
		return nil, "a palette already", nil
	case *model.Affine: // the codes are palettised as the integers they are
		if cfg.PerChannelScale {
			return nil, "its codes have scales already, and Core ML has no second one (palettise with per-channel scale first, then quantise the tables)", nil
		}
		source, affine = s.Codes, s
	}
	sparse, _ := source.Storage.(*model.Sparse)
	if f := source.Storage.Form(); sparse == nil && f != model.FormDense || sparse != nil && sparse.Values.Storage.Form() != model.FormDense {
		return nil, "compressed already", nil
	}
	if !w.axesOK {
		return nil, "its readers have different channel axes", nil
	}
	shape := c.Shape
	axis := w.out
	if cfg.Grouped && cfg.ChannelAxis != nil {
		if axis = *cfg.ChannelAxis; axis < 0 {
			axis += len(shape)
		}
		if axis < 0 || axis >= len(shape) {
			return nil, "", fmt.Errorf("channel_axis %d for a weight of shape %v", *cfg.ChannelAxis, shape)
		}
	}
	axis = min(axis, len(shape)-1)
	ch, size := shape[axis], shape[axis]
	if cfg.Grouped {
		size = cfg.GroupSize
	}
	if size == 0 || ch%size != 0 {
		return nil, fmt.Sprintf("group_size %d does not divide the %d channels", size, ch), nil
	}
	if size%cfg.ClusterDim != 0 {
		return nil, fmt.Sprintf("cluster_dim %d does not divide the group of %d channels", cfg.ClusterDim, size), nil
	}
	if cfg.ClusterDim > 1 {
		for _, r := range w.readers {
			n := ch
			if g := r.node.Attrs.Int("group", 1); (r.node.Op == "Conv" || r.node.Op == "ConvTranspose") && axis == 0 && g > 1 {
				n /= g
			}
			if n%cfg.ClusterDim != 0 {
				return nil, fmt.Sprintf("cluster_dim %d does not divide the %d channels of a group", cfg.ClusterDim, n), nil
			}
		}
	}
	if sparse != nil && cfg.ClusterDim > 1 {
		var err error
		if sparse, err = wholeVectors(sparse, axis, cfg.ClusterDim); err != nil {
			return nil, err.Error(), nil
		}
	}
	groups := onesShape(len(shape))
	groups[axis] = ch / size
	bits := cfg.Bits
	a := arithOf(c.DType)
	values := func() ([]float32, []float32, error) { // values and per-channel scales
		v, err := k.floatsOrCodes(source)
		if err != nil || !cfg.PerChannelScale {
			return v, nil, err
		}
		v, scale := a.perChannelScale(v, shape, axis)
		return v, scale, nil
	}
	if cfg.Mode == Unique {
		v, _, err := values()
		if err != nil {
			return nil, err.Error(), nil
		}
		need, most := uniqueBits(v, shape, axis, groups[axis], cfg.ClusterDim)
		if need == 0 {
			return nil, fmt.Sprintf("%d different values do not fit 8 bits", most), nil
		}
		bits = max(bits, need)
	}
	entries := 1 << bits
	iShape := shape.Clone()
	iShape[axis] /= cfg.ClusterDim
	type result struct {
		paletteCodes
		scale []float32
	}
	once := sync.OnceValues(func() (result, error) {
		v, scale, err := values()
		if err != nil {
			return result{}, err
		}
		tableArith := a
		if affine != nil { // integers: coremltools clusters them as int32
			tableArith = arith{}
		}
		r := tableArith.palettise(v, shape, axis, groups[axis], cfg, bits)
		if affine != nil {
			for i, x := range r.table { // numpy's cast of the table to int8 truncates
				r.table[i] = float32(math.Trunc(float64(x)))
			}
		}
		return result{r, scale}, nil
	})
	indices := model.NewLazy(indexType(bits), iShape, func() (*model.Tensor, error) {
		r, err := once()
		if err != nil {
			return nil, err
		}
		return packIndices(bits, r.indices, iShape), nil
	})
	// tables lays out the tables, one copy for every position of shape at.
	tables := func(d model.DType, at model.Shape) *model.Const {
		full := append(at.Clone(), entries, cfg.ClusterDim)
		return model.NewLazy(d, full, func() (*model.Tensor, error) {
			r, err := once()
			if err != nil {
				return nil, err
			}
			v := spread(r.table, full, axis, groups[axis])
			if affine == nil {
				return tensorOf(d, v, full...), nil
			}
			out := model.NewTensor(d, full...)
			for i, x := range v {
				out.SetInt(i, int64(x))
			}
			return out, nil
		})
	}
	if sparse != nil {
		indices = sparseCodes(indices, sparse)
	}
	look := &model.Lookup{Indices: indices, VectorAxis: axis}
	out := &model.Const{DType: c.DType, Shape: c.Shape, Storage: look}
	switch {
	case affine != nil:
		// Core ML stores quantised codes with a palette as a palette of
		// quantised tables: one copy of the table for every scale.
		at, ok := jointGroups(groups, affine.Scale.Shape, iShape)
		if ok {
			look.Table = &model.Const{DType: c.DType, Shape: append(at.Clone(), entries, cfg.ClusterDim),
				Storage: &model.Affine{Codes: tables(source.DType, at), Scale: withEntries(affine.Scale), Zero: withEntries(affine.Zero)}}
			break
		}
		// Where a vector spans several scales no table can have them: the
		// palette gives the codes, and the scales apply to these.
		switch {
		case source.DType.Bits() != 8:
			return nil, fmt.Sprintf("vectors of %d span several scales, and Core ML has no table of %s codes (want int8 or uint8)", cfg.ClusterDim, source.DType), nil
		case sparse != nil:
			return nil, fmt.Sprintf("vectors of %d span several scales, which is not supported of sparse codes (quantise per_tensor, or after the palette)", cfg.ClusterDim), nil
		}
		look.Table = tables(source.DType, groups)
		out.Storage = &model.Affine{Scale: affine.Scale, Zero: affine.Zero,
			Codes: &model.Const{DType: source.DType, Shape: shape, Storage: look}}
	case cfg.PerChannelScale:
		// And a palette with scales the same way.
		sShape, at := shape.Clone(), shape.Clone()
		sShape[axis], at[axis] = 1, groups[axis]
		look.Table = &model.Const{DType: c.DType, Shape: append(at.Clone(), entries, cfg.ClusterDim), Storage: &model.Affine{
			Codes: tables(c.DType, at),
			Scale: withEntries(model.NewLazy(c.DType, sShape, func() (*model.Tensor, error) {
				r, err := once()
				if err != nil {
					return nil, err
				}
				return tensorOf(c.DType, r.scale, sShape...), nil
			})),
		}}
	default:
		look.Table = tables(c.DType, groups)
	}
	return out, "", nil
}

// jointGroups returns on how many positions of each axis a table is needed so
// that each has one palette and one scale, and whether the indices divide so.
func jointGroups(palettes, scales, indices model.Shape) (model.Shape, bool) {
	at := make(model.Shape, len(palettes))
	for i, n := range palettes {
		at[i] = n
		for at[i]%scales[i] != 0 { // the least common multiple
			at[i] += n
		}
		if indices[i]%at[i] != 0 {
			return nil, false
		}
	}
	return at, true
}

// spread copies tables ([group][entry][vector]) to every position of shape
// full, whose last two dimensions are entries and vector: those along axis are
// divided among the groups in order.
func spread(table []float32, full model.Shape, axis, groups int) []float32 {
	r := len(full) - 2
	size, inner := full[r]*full[r+1], int(full[axis+1:r].Elems())
	out := make([]float32, 0, full.Elems())
	for p := range int(full[:r].Elems()) {
		g := p / inner % full[axis] * groups / full[axis]
		out = append(out, table[g*size:(g+1)*size]...)
	}
	return out
}

// withEntries gives scales or zero points the rank of tables.
func withEntries(c *model.Const) *model.Const {
	if c == nil {
		return nil
	}
	return &model.Const{DType: c.DType, Shape: append(c.Shape.Clone(), 1, 1), Storage: c.Storage}
}

// wholeVectors returns the mask of the vectors of n elements along an axis
// (and how many it keeps). Core ML masks the indices of a palette, so that
// a vector is stored or zero as a whole.
func wholeVectors(s *model.Sparse, axis, n int) (*model.Sparse, error) {
	mask, err := s.Mask.Value()
	if err != nil {
		return nil, err
	}
	shape := mask.Shape.Clone()
	shape[axis] /= n
	out := model.NewTensor(model.UInt1, shape...)
	kept, split := 0, false
	groupWalk(mask.Shape, axis, 1, 0, n, func(i, off, step int) {
		ones := 0
		for j := range n {
			ones += int(mask.IntAt(off + j*step))
		}
		if split = split || ones%n != 0; ones > 0 {
			out.SetInt(i, 1)
			kept++
		}
	})
	if split {
		return nil, fmt.Errorf("its zeros do not come in vectors of %d along axis %d (prune in blocks of a multiple of %d)", n, axis, n)
	}
	return &model.Sparse{Mask: model.NewConst(out), Values: &model.Const{Shape: model.Shape{kept}}}, nil
}

// floatsOrCodes returns the values of a constant, integers included.
func (k *compressor) floatsOrCodes(c *model.Const) ([]float32, error) {
	if c.DType.IsFloat() {
		return k.floats(c)
	}
	t, err := c.Value()
	if err != nil {
		return nil, err
	}
	return t.Float32s(), nil
}

// perChannelScale divides the weights by the greatest magnitude over the
// channel axis: coremltools' enable_per_channel_scale takes the maximum over
// that axis, so that there is a scale for every position of the other axes.
func (a arith) perChannelScale(v []float32, shape model.Shape, axis int) (scaled, scale []float32) {
	inner := 1
	for _, d := range shape[axis+1:] {
		inner *= d
	}
	ch := shape[axis]
	outer := len(v) / max(1, ch*inner)
	scale = make([]float32, outer*inner)
	for i, x := range v {
		s := &scale[i/(ch*inner)*inner+i%inner]
		*s = max(*s, abs32(x))
	}
	for i, s := range scale {
		if s == 0 {
			scale[i] = 1
		}
	}
	scaled = make([]float32, len(v))
	for i, x := range v {
		scaled[i] = a.round(x / scale[i/(ch*inner)*inner+i%inner])
	}
	return scaled, scale
}

// groupWalk visits the vectors of one group: offsets of their elements are
// off, off+step, ... (dim of them); i is the position among the indices.
func groupWalk(shape model.Shape, axis, groups, g, dim int, f func(i, off, step int)) {
	inner := 1
	for _, d := range shape[axis+1:] {
		inner *= d
	}
	ch := shape[axis]
	size := ch / groups
	outer := 1
	for _, d := range shape[:axis] {
		outer *= d
	}
	for o := range outer {
		for c := g * size; c < (g+1)*size; c += dim {
			for s := range inner {
				f((o*(ch/dim)+c/dim)*inner+s, (o*ch+c)*inner+s, inner)
			}
		}
	}
}

// uniqueBits returns the least width whose table holds the different values of
// every group, 0 if 8 bits do not, and the greatest number of them.
func uniqueBits(v []float32, shape model.Shape, axis, groups, dim int) (bits, most int) {
	for g := range groups {
		if dim == 1 {
			seen := map[float32]struct{}{}
			groupWalk(shape, axis, groups, g, 1, func(_, off, _ int) { seen[v[off]] = struct{}{} })
			most = max(most, len(seen))
			continue
		}
		seen := map[string]struct{}{}
		groupWalk(shape, axis, groups, g, dim, func(_, off, step int) {
			seen[fmt.Sprint(vectorAt(v, off, step, dim))] = struct{}{}
		})
		most = max(most, len(seen))
	}
	for _, b := range []int{1, 2, 3, 4, 6, 8} {
		if most <= 1<<b {
			return b, most
		}
	}
	return 0, most
}

func vectorAt(v []float32, off, step, dim int) []float32 {
	out := make([]float32, dim)
	for i := range out {
		out[i] = v[off+i*step]
	}
	return out
}

// palettise finds the tables and indices of all groups.
func (a arith) palettise(v []float32, shape model.Shape, axis, groups int, cfg Palette, bits int) paletteCodes {
	dim, entries := cfg.ClusterDim, 1<<bits
	r := paletteCodes{indices: make([]uint8, len(v)/dim), table: make([]float32, groups*entries*dim)}
	for g := range groups {
		table := r.table[g*entries*dim:][:entries*dim]
		switch {
		case dim > 1:
			a.vectorTable(v, shape, axis, groups, g, dim, cfg.Mode, table, r.indices)
		case cfg.Mode == Uniform:
			a.uniformTable(v, shape, axis, groups, g, table, r.indices)
		default:
			a.scalarTable(v, shape, axis, groups, g, cfg.Mode, table, r.indices)
		}
	}
	return r
}

// uniformTable: lut_i = min + i*step with step = (max-min)/(2^n-1) and index =
// rint((w-min)/(max-min)*(2^n-1)). Operations on the weights round to their
// type; those on scalars, after max-min, are in float64, as numpy promotes.
func (a arith) uniformTable(v []float32, shape model.Shape, axis, groups, g int, table []float32, indices []uint8) {
	lo, hi := float32(math.Inf(1)), float32(math.Inf(-1))
	groupWalk(shape, axis, groups, g, 1, func(_, off, _ int) { lo, hi = min(lo, v[off]), max(hi, v[off]) })
	if lo > hi {
		return
	}
	width := a.round(hi - lo)
	top := float32(len(table) - 1)
	step := float64(width) / float64(top)
	for i := range table {
		table[i] = a.roundWide(float64(i)*step + float64(lo))
	}
	groupWalk(shape, axis, groups, g, 1, func(i, off, _ int) {
		if width == 0 {
			return
		}
		x := a.round(a.round(v[off]-lo) / width)
		indices[i] = uint8(rint(a.round(x * top)))
	})
}

// roundWide rounds a float64 to the type once.
func (a arith) roundWide(x float64) float32 {
	f := float32(x)
	if !a.half || float64(f) == x {
		return a.round(f)
	}
	// Round to odd first, so that the second rounding sees which side x is on.
	if b := math.Float32bits(f); b&1 == 0 {
		if (float64(f) < x) == (x > 0) {
			f = math.Float32frombits(b + 1)
		} else {
			f = math.Float32frombits(b - 1)
		}
	}
	return a.round(f)
}

// scalarTable finds a table by k-means or from the different values.
func (a arith) scalarTable(v []float32, shape model.Shape, axis, groups, g int, mode PaletteMode, table []float32, indices []uint8) {
	values, counts := a.histogram(func(f func(float32)) {
		groupWalk(shape, axis, groups, g, 1, func(_, off, _ int) { f(v[off]) })
	})
	if len(values) == 0 {
		return
	}
	var c []float32
	if mode == Unique {
		for _, x := range values {
			c = append(c, float32(x))
		}
	} else {
		for _, x := range kmeans1D(values, counts, len(table)) {
			c = append(c, a.roundWide(x))
		}
	}
	copy(table, c) // a table with fewer entries than places is padded with zeros
	nearest := nearestIndex(c)
	if a.half { // at most 65,536 different values: look each up once
		index := make([]uint8, 1<<16)
		for _, x := range values {
			index[float16.Fromfloat32(float32(x)).Bits()] = nearest(float32(x))
		}
		index[1<<15] = index[0] // -0
		groupWalk(shape, axis, groups, g, 1, func(i, off, _ int) { indices[i] = index[float16.Fromfloat32(v[off]).Bits()] })
		return
	}
	groupWalk(shape, axis, groups, g, 1, func(i, off, _ int) { indices[i] = nearest(v[off]) })
}

// histogram returns the different values, ascending, and how often each comes.
func (a arith) histogram(each func(func(float32))) (values, counts []float64) {
	if a.half {
		var hist [1 << 16]int32
		each(func(x float32) {
			if x == 0 {
				x = 0 // -0 and 0 are one value
			}
			hist[float16.Fromfloat32(x).Bits()]++
		})
		add := func(b int) {
			if hist[b] > 0 {
				values = append(values, float64(float16.Frombits(uint16(b)).Float32()))
				counts = append(counts, float64(hist[b]))
			}
		}
		for b := 1<<16 - 1; b > 1<<15; b-- {
			add(b)
		}
		hist[0] += hist[1<<15]
		for b := range 1 << 15 {
			add(b)
		}
		return values, counts
	}
	var all []float32
	each(func(x float32) { all = append(all, x) })
	slices.Sort(all)
	for _, x := range all {
		if n := len(values); n > 0 && values[n-1] == float64(x) {
			counts[n-1]++
			continue
		}
		values, counts = append(values, float64(x)), append(counts, 1)
	}
	return values, counts
}

// nearestIndex returns a function that finds the nearest of ascending table
// entries, the first of equally near ones.
func nearestIndex(table []float32) func(float32) uint8 {
	mids := make([]float64, len(table)-1)
	for i := range mids {
		mids[i] = (float64(table[i]) + float64(table[i+1])) / 2
	}
	return func(x float32) uint8 {
		i, _ := slices.BinarySearchFunc(mids, float64(x), func(m, x float64) int { return cmp.Compare(m, x) })
		return uint8(i)
	}
}

// vectorTable finds the table of a vector palette.
func (a arith) vectorTable(v []float32, shape model.Shape, axis, groups, g, dim int, mode PaletteMode, table []float32, indices []uint8) {
	var points []float32
	groupWalk(shape, axis, groups, g, dim, func(_, off, step int) {
		for i := range dim {
			points = append(points, v[off+i*step])
		}
	})
	if len(points) == 0 {
		return
	}
	var c []float32
	if mode == Unique {
		c = uniqueVectors(points, dim)
	} else {
		c = kmeansVectors(points, dim, len(table)/dim)
		for i, x := range c {
			c[i] = a.round(x)
		}
	}
	copy(table, c)
	n := 0
	groupWalk(shape, axis, groups, g, dim, func(i, _, _ int) {
		best, _ := nearestVector(points[n*dim:n*dim+dim], c)
		n++
		indices[i] = uint8(best)
	})
}

func uniqueVectors(points []float32, dim int) []float32 {
	rows := make([][]float32, 0, len(points)/dim)
	for i := 0; i < len(points); i += dim {
		rows = append(rows, points[i:i+dim])
	}
	slices.SortFunc(rows, slices.Compare[[]float32])
	rows = slices.CompactFunc(rows, slices.Equal[[]float32])
	return slices.Concat(rows...)
}

// packIndices stores indices in as few bits as they need.
func packIndices(bits int, idx []uint8, shape model.Shape) *model.Tensor {
	d := indexType(bits)
	t := model.NewTensor(d, shape...)
	switch bits {
	case 8:
		copy(t.Data, idx)
	case 1, 2, 4:
		per := 8 / bits
		for i, x := range idx {
			t.Data[i/per] |= x << (bits * (i % per))
		}
	default:
		for i, x := range idx {
			t.SetInt(i, int64(x))
		}
	}
	return t
}
