package ops

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/dsp/fourier"

	"github.com/triune-sim/triune/model"
)

// Signal operators: Fourier transforms and window functions. Complex numbers
// are a last axis of length 2.

// fft transforms a line; the inverse divides by its length.
func fft(x []complex128, inverse bool) []complex128 {
	if len(x) == 0 {
		return x
	}
	t := fourier.NewCmplxFFT(len(x))
	if !inverse {
		return t.Coefficients(nil, x)
	}
	out := t.Sequence(nil, x)
	for i := range out {
		out[i] /= complex(float64(len(x)), 0)
	}
	return out
}

// dftAxis returns the axis of DFT: input 2, among the axes before the last.
func dftAxis(a, rank int) int {
	if rank < 2 {
		failf("rank %d, want 2 or more", rank)
	}
	ax := normAxis(a, rank)
	if ax == rank-1 {
		failf("axis %d holds the complex parts", a)
	}
	return ax
}

func dftShape(a model.Attrs, s model.Shape, axis, length int) model.Shape {
	out := s.Clone()
	if length >= 0 {
		out[axis] = length
	}
	if a.Int("onesided", 0) != 0 && out[axis] >= 0 {
		out[axis] = out[axis]/2 + 1
	}
	out[len(out)-1] = 2
	return out
}

func evalDFT(c *call) {
	x := c.x(0)
	axis := dftAxis(c.int1(2, -2), len(x.Shape))
	parts := x.Shape[len(x.Shape)-1]
	if parts != 1 && parts != 2 {
		failf("the last axis of %v holds neither real nor complex numbers", x.Shape)
	}
	n := c.int1(1, x.Shape[axis])
	if n < 0 {
		failf("a length of %d", n)
	}
	shape := dftShape(c.n.Attrs, x.Shape, axis, n)
	out := c.alloc(shape)
	inverse := c.n.Attrs.Int("inverse", 0) != 0
	if inverse && c.n.Attrs.Int("onesided", 0) != 0 {
		failf("inverse and onesided exclude each other")
	}
	v := floats(x)
	rank := len(x.Shape)
	mid := prod(x.Shape[axis+1 : rank-1])
	line := make([]complex128, c.size(model.Complex128, model.Shape{n}))
	dim, odim := x.Shape[axis], shape[axis]
	for o := range prod(x.Shape[:axis]) {
		for m := range mid {
			for k := range line {
				line[k] = 0
				if k < dim {
					p := ((o*dim+k)*mid + m) * parts
					if parts == 2 {
						line[k] = complex(v[p], v[p+1])
					} else {
						line[k] = complex(v[p], 0)
					}
				}
			}
			for k, z := range fft(line, inverse)[:odim] {
				p := ((o*odim+k)*mid + m) * 2
				out[p], out[p+1] = real(z), imag(z)
			}
		}
	}
	c.putF(0, x.DType, shape, out)
}

// stftShape: signal [batch, length, parts], frame step, window, frame length.
func stftShape(a model.Attrs, s model.Shape, step, length int) model.Shape {
	if len(s) != 2 && len(s) != 3 {
		failf("signal %v wants rank 3", s)
	}
	if step < 1 || length < 1 {
		failf("frame step %d and frame length %d must be positive", step, length)
	}
	frames := -1
	if s[1] >= 0 {
		frames = max(0, (s[1]-length)/step+1)
		if s[1] < length {
			frames = 0
		}
	}
	bins := length
	if a.Int("onesided", 1) != 0 {
		bins = length/2 + 1
	}
	return model.Shape{s[0], frames, bins, 2}
}

func evalSTFT(c *call) {
	x := c.x(0)
	var window []float64
	if t := c.opt(2); t != nil {
		window = floats(t)
	}
	length := c.int1(3, len(window))
	step := c.int1(1, 0)
	shape := stftShape(c.n.Attrs, x.Shape, step, length)
	if window != nil && len(window) != length {
		failf("a window of %d for frames of %d", len(window), length)
	}
	out := c.alloc(shape)
	parts := 1
	if len(x.Shape) == 3 {
		parts = x.Shape[2]
	}
	if parts != 1 && parts != 2 {
		failf("the last axis of %v holds neither real nor complex numbers", x.Shape)
	}
	v := floats(x)
	line := make([]complex128, c.size(model.Complex128, model.Shape{length}))
	for b := range shape[0] {
		for f := range shape[1] {
			for k := range line {
				p := (b*x.Shape[1] + f*step + k) * parts
				re, im := v[p], 0.0
				if parts == 2 {
					im = v[p+1]
				}
				if window != nil {
					re, im = re*window[k], im*window[k]
				}
				line[k] = complex(re, im)
			}
			for k, z := range fft(line, false)[:shape[2]] {
				p := ((b*shape[1]+f)*shape[2] + k) * 2
				out[p], out[p+1] = real(z), imag(z)
			}
		}
	}
	c.putF(0, x.DType, shape, out)
}

// windowFunction registers a window of cosine terms a0 - a1 cos + a2 cos.
func windowFunction(name model.Op, a0, a1, a2 float64) {
	register("signal", [4]int{1, 1, 1, 1}, func(c *inference) {
		d := attrType(c.n.Attrs, "output_datatype", model.Float32)
		n := -1
		if v, ok := c.ints(0); ok && len(v) == 1 {
			n = max(v[0], -1)
		}
		c.out(0, d, model.Shape{n})
	}, func(c *call) {
		size := c.int1(0, 0)
		shape := model.Shape{size}
		out := c.alloc(shape)
		n := float64(size)
		if c.n.Attrs.Int("periodic", 1) == 0 {
			n--
		}
		for i := range out {
			t := 2 * math.Pi * float64(i) / n
			out[i] = a0 - a1*math.Cos(t) + a2*math.Cos(2*t)
		}
		d := c.float(attrType(c.n.Attrs, "output_datatype", model.Float32))
		c.putF(0, d, shape, out)
	}, name)
}

// evalMel returns the triangular filters that map spectrogram bins to the mel
// scale; lengths and frequencies are scalars.
func evalMel(c *call) {
	mels, dft, rate := c.int1(0, 0), c.int1(1, 0), c.int1(2, 0)
	lo, hi := c.float1(3, 0), c.float1(4, 0)
	if mels < 1 || dft < 1 || rate < 1 || mels > 1<<20 {
		failf("%d mel bins of a transform of %d at rate %d", mels, dft, rate)
	}
	bins := dft/2 + 1
	shape := model.Shape{bins, mels}
	out := c.alloc(shape)
	mel := func(f float64) float64 { return 2595 * math.Log10(1+f/700) }
	ml, mh := mel(lo), mel(hi)
	step := (mh - ml) / float64(mels+2)
	at := make([]int, mels+2)
	for i := range at {
		f := 700 * (math.Pow(10, (float64(i)*step+ml)/2595) - 1)
		at[i] = int(math.Floor(float64(dft+1) * f / float64(rate)))
	}
	set := func(j, i int, w float64) {
		if j >= 0 && j < bins {
			out[j*mels+i] = w
		}
	}
	for i := range mels {
		l, m, h := at[i], at[i+1], at[i+2]
		if m == l {
			set(m, i, 1)
		} else {
			for j := l; j <= m; j++ {
				set(j, i, float64(j-l)/float64(m-l))
			}
		}
		for j := m; j < h; j++ {
			set(j, i, float64(h-j)/float64(h-m))
		}
	}
	c.putF(0, c.float(attrType(c.n.Attrs, "output_datatype", model.Float32)), shape, out)
}

func init() {
	register("signal", [4]int{1, 3, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		s := c.rankAtLeast(0, 2)
		length := -1
		if c.has(1) {
			v, ok := c.ints(1)
			if !ok || len(v) != 1 {
				c.out(0, c.dtype(0), append(unknown(len(s)-1), 2))
				return
			}
			length = v[0]
		}
		axis, ok := []int{-2}, true
		if c.has(2) {
			axis, ok = c.ints(2)
		}
		if !ok || len(axis) != 1 {
			c.out(0, c.dtype(0), append(unknown(len(s)-1), 2))
			return
		}
		c.out(0, c.dtype(0), dftShape(c.n.Attrs, s, dftAxis(axis[0], len(s)), length))
	}, evalDFT, "DFT")
	register("signal", [4]int{2, 4, 1, 1}, func(c *inference) {
		d := c.dtype(0)
		c.typ(0, d)
		s := c.shape(0)
		step, ok := c.ints(1)
		length := -1
		if v, ok := c.ints(3); ok && len(v) == 1 {
			length = v[0]
		} else if w, k := c.shapeOf2(2); k && len(w) == 1 {
			length = w[0]
		}
		if !ok || len(step) != 1 || length < 0 {
			c.out(0, d, model.Shape{s[0], -1, -1, 2})
			return
		}
		c.out(0, d, stftShape(c.n.Attrs, s, step[0], length))
	}, evalSTFT, "STFT")
	windowFunction("HannWindow", 0.5, 0.5, 0)
	windowFunction("HammingWindow", 25.0/46, 21.0/46, 0)
	windowFunction("BlackmanWindow", 0.42, 0.5, 0.08)
	register("signal", [4]int{5, 5, 1, 1}, func(c *inference) {
		d := attrType(c.n.Attrs, "output_datatype", model.Float32)
		m, ok := c.ints(0)
		n, ok2 := c.ints(1)
		s := model.Shape{-1, -1}
		if ok && len(m) == 1 {
			s[1] = m[0]
		}
		if ok2 && len(n) == 1 {
			s[0] = n[0]/2 + 1
		}
		c.out(0, d, s)
	}, evalMel, "MelWeightMatrix")
}

// shapeOf2 is shapeOf for an optional input.
func (c *inference) shapeOf2(i int) (model.Shape, bool) {
	if !c.has(i) {
		return nil, false
	}
	return c.shapeOf(i)
}

// unique finds the distinct entries along an axis (or of the flat tensor).
func evalUnique(c *call) {
	x := c.x(0)
	_, hasAxis := c.n.Attrs["axis"]
	flat := !hasAxis
	if flat {
		x = x.Reshape(x.Len())
	}
	axis := normAxis(c.n.Attrs.Int("axis", 0), len(x.Shape))
	n := x.Shape[axis]
	inner, outer := prod(x.Shape[axis+1:]), prod(x.Shape[:axis])
	var cmpElem func(i, j int) int
	switch {
	case x.DType == model.String:
		cmpElem = func(i, j int) int {
			switch {
			case x.Strings[i] < x.Strings[j]:
				return -1
			case x.Strings[i] > x.Strings[j]:
				return 1
			}
			return 0
		}
	case x.DType.IsFloat():
		v := floats(x)
		cmpElem = func(i, j int) int {
			switch {
			case v[i] < v[j]:
				return -1
			case v[i] > v[j]:
				return 1
			}
			return 0
		}
	default:
		v, less := ints(x), lessInt(x.DType)
		cmpElem = func(i, j int) int {
			switch {
			case less(v[i], v[j]):
				return -1
			case less(v[j], v[i]):
				return 1
			}
			return 0
		}
	}
	cmp := func(a, b int) int {
		for o := range outer {
			for k := range inner {
				if r := cmpElem((o*n+a)*inner+k, (o*n+b)*inner+k); r != 0 {
					return r
				}
			}
		}
		return 0
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, cmp)
	var first []int // of each class, its first entry
	class := make([]int, n)
	for i, e := range order {
		if i == 0 || cmp(order[i-1], e) != 0 {
			first = append(first, e)
		}
		class[e] = len(first) - 1
	}
	if c.n.Attrs.Int("sorted", 1) == 0 { // in order of appearance
		rank := make([]int, len(first))
		for i := range rank {
			rank[i] = i
		}
		slices.SortFunc(rank, func(a, b int) int { return first[a] - first[b] })
		to := make([]int, len(first))
		sorted := make([]int, len(first))
		for i, r := range rank {
			to[r], sorted[i] = i, first[r]
		}
		for i := range class {
			class[i] = to[class[i]]
		}
		first = sorted
	}
	shape := x.Shape.Clone()
	shape[axis] = len(first)
	idx := make([]int, 0, prod(shape))
	for o := range outer {
		for _, e := range first {
			for k := range inner {
				idx = append(idx, (o*n+e)*inner+k)
			}
		}
	}
	c.put(0, pick(x, shape, idx, nil))
	to64 := func(v []int) []int64 {
		out := make([]int64, len(v))
		for i, k := range v {
			out[i] = int64(k)
		}
		return out
	}
	counts := make([]int64, len(first))
	for _, k := range class {
		counts[k]++
	}
	c.putI(1, model.Int64, model.Shape{len(first)}, to64(first))
	c.putI(2, model.Int64, model.Shape{n}, to64(class))
	c.putI(3, model.Int64, model.Shape{len(first)}, counts)
}

func init() {
	register("gather", [4]int{1, 1, 1, 4}, func(c *inference) {
		c.typ(0, c.dtype(0))
		for i := 1; i < 4; i++ {
			c.out(i, model.Int64, model.Shape{-1})
		}
		s := c.shape(0)
		if _, ok := c.n.Attrs["axis"]; ok {
			s = s.Clone()
			a := c.axis(0, len(s))
			c.out(2, model.Int64, model.Shape{s[a]})
			s[a] = -1
			c.out(0, c.dtype(0), s)
			return
		}
		c.out(2, model.Int64, model.Shape{prod(s)})
		c.out(0, c.dtype(0), model.Shape{-1})
	}, evalUnique, "Unique")
}
