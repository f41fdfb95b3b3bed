package ops

import (
	"github.com/triune-sim/triune/model"
)

// Convolutions: X [N, C, spatial...], W [M, C/group, kernel...], B [M].

// convShape checks the operands of a convolution and returns its window, with
// the spatial output filled in.
func convShape(a model.Attrs, x, w model.Shape) window {
	if len(x) < 3 || len(w) != len(x) {
		failf("input %v and weight %v want the same rank of 3 or more", x, w)
	}
	g := a.Int("group", 1)
	if g < 1 {
		failf("group %d is not positive", g)
	}
	if x[1] >= 0 && w[1] >= 0 && x[1] != w[1]*g {
		failf("the input has %d channels, the weight %v with %d groups wants %d", x[1], w, g, w[1]*g)
	}
	if w[0] >= 0 && w[0]%g != 0 {
		failf("%d output channels do not divide into %d groups", w[0], g)
	}
	kernel := append([]int{}, w[2:]...)
	for i, k := range a.Ints("kernel_shape", nil) {
		if i >= len(kernel) || kernel[i] >= 0 && kernel[i] != k {
			failf("kernel_shape %v does not fit the weight %v", a.Ints("kernel_shape", nil), w)
		}
		kernel[i] = k
	}
	for _, k := range kernel {
		if k < 0 {
			failf("the kernel of weight %v is unknown; give kernel_shape", w)
		}
	}
	return newWindow(a, x[2:], kernel)
}

func inferConv(c *inference) {
	d := c.dtype(0)
	if c.n.Op == "ConvInteger" {
		d = model.Int32
	}
	c.typ(0, d)
	x, w := c.shape(0), c.shape(1)
	win := convShape(c.n.Attrs, x, w)
	c.out(0, d, append(model.Shape{x[0], w[0]}, win.out...))
}

func evalConv(c *call) {
	x, w := c.x(0), c.x(1)
	var bias []float64
	if b := c.opt(2); b != nil {
		bias = floats(b)
	}
	shape, out := convolve(c, x.Shape, w.Shape, floats(x), floats(w), bias)
	c.putF(0, x.DType, shape, out)
}

// convolve computes a convolution in float64: patches of a block of positions
// are gathered into rows, then multiplied by the weight rows.
func convolve(c *call, xs, ws model.Shape, x, w, bias []float64) (model.Shape, []float64) {
	win := convShape(c.n.Attrs, xs, ws)
	group := c.n.Attrs.Int("group", 1)
	shape := append(model.Shape{xs[0], ws[0]}, win.out...)
	out := c.alloc(shape)
	m, cg := ws[0]/group, ws[1]
	taps := prod(win.kernel)
	k := cg * taps
	in, pos := prod(win.in), prod(win.out)
	if bias != nil && len(bias) != ws[0] {
		failf("the bias has %d values, wants %d", len(bias), ws[0])
	}
	if int64(in) > 1<<31-1 {
		failf("a plane of %d elements is too large", in)
	}
	if len(out) == 0 {
		return shape, out
	}
	block := max(1, min(pos, 1<<15/max(k, 1)))
	blocks := (pos + block - 1) / block
	pointwise := taps == 1 && pos == in && win.stride[0] == 1
	for _, s := range win.stride {
		pointwise = pointwise && s == 1
	}
	for _, p := range win.begin {
		pointwise = pointwise && p == 0
	}
	parallel(blocks, func(b int) {
		from := b * block
		to := min(pos, from+block)
		var idx []int32
		if !pointwise {
			idx = win.taps(from, to)
		}
		rows := make([]float64, (to-from)*k)
		for n := range xs[0] {
			for g := range group {
				if c.ctx.Err() != nil {
					return
				}
				base := (n*xs[1] + g*cg) * in
				if pointwise {
					for ch := range cg {
						for p, v := range x[base+ch*in+from : base+ch*in+to] {
							rows[p*k+ch] = v
						}
					}
				} else {
					for p := range to - from {
						ix := idx[p*taps : (p+1)*taps]
						row := rows[p*k : (p+1)*k]
						for ch := range cg {
							plane := x[base+ch*in : base+ch*in+in]
							r := row[ch*taps : (ch+1)*taps]
							for t, j := range ix {
								if j < 0 {
									r[t] = 0
								} else {
									r[t] = plane[j]
								}
							}
						}
					}
				}
				first := g * m
				dotRows(out[(n*ws[0]+first)*pos+from:], pos, w[first*k:(first+m)*k], rows, m, to-from, k)
			}
		}
	})
	if err := c.ctx.Err(); err != nil {
		failf("%w", err)
	}
	if bias != nil {
		for i := range out {
			out[i] += bias[i/pos%ws[0]]
		}
	}
	return shape, out
}

// dotRows sets out[i*ld+j] = dot(a row i, b row j) for m rows of a and n rows
// of b, all of length k, two by four at a time. Sums run in index order.
func dotRows(out []float64, ld int, a, b []float64, m, n, k int) {
	i := 0
	for ; i+2 <= m; i += 2 {
		a0, a1 := a[i*k:(i+1)*k], a[(i+1)*k:(i+2)*k]
		o0, o1 := out[i*ld:i*ld+n], out[(i+1)*ld:(i+1)*ld+n]
		j := 0
		for ; j+4 <= n; j += 4 {
			b0, b1, b2, b3 := b[j*k : (j+1)*k][:len(a0)], b[(j+1)*k : (j+2)*k][:len(a0)], b[(j+2)*k : (j+3)*k][:len(a0)], b[(j+3)*k : (j+4)*k][:len(a0)]
			a1 := a1[:len(a0)]
			var s00, s01, s02, s03, s10, s11, s12, s13 float64
			for t, x := range a0 {
				y := a1[t]
				s00 += x * b0[t]
				s01 += x * b1[t]
				s02 += x * b2[t]
				s03 += x * b3[t]
				s10 += y * b0[t]
				s11 += y * b1[t]
				s12 += y * b2[t]
				s13 += y * b3[t]
			}
			o0[j], o0[j+1], o0[j+2], o0[j+3] = s00, s01, s02, s03
			o1[j], o1[j+1], o1[j+2], o1[j+3] = s10, s11, s12, s13
		}
		for ; j < n; j++ {
			o0[j], o1[j] = dot(a0, b[j*k:(j+1)*k]), dot(a1, b[j*k:(j+1)*k])
		}
	}
	for ; i < m; i++ {
		for j := range n {
			out[i*ld+j] = dot(a[i*k:(i+1)*k], b[j*k:(j+1)*k])
		}
	}
}

func dot(a, b []float64) float64 {
	b = b[:len(a)]
	s := 0.0
	for i, x := range a {
		s += x * b[i]
	}
	return s
}

// evalConvInteger subtracts the zero points (x: scalar, w: scalar or per
// output channel) and convolves; sums are exact in float64 for every size that
// fits int32.
func evalConvInteger(c *call) {
	x, w := c.x(0), c.x(1)
	xv, wv := append([]float64{}, floats(x)...), append([]float64{}, floats(w)...)
	if z := c.opt(2); z != nil {
		zp := c.float1(2, 0)
		for i := range xv {
			xv[i] -= zp
		}
	}
	if z := c.opt(3); z != nil {
		zp := floats(z)
		if len(zp) != 1 && len(zp) != w.Shape[0] {
			failf("the weight zero point has %d values, wants 1 or %d", len(zp), w.Shape[0])
		}
		per := len(wv) / max(1, w.Shape[0])
		for i := range wv {
			wv[i] -= zp[i/per%len(zp)]
		}
	}
	shape, out := convolve(c, x.Shape, w.Shape, xv, wv, nil)
	r := make([]int64, len(out))
	for i, v := range out {
		r[i] = int64(v)
	}
	c.putI(0, model.Int32, shape, r)
}

// transposeShape returns the window of a transposed convolution seen from its
// output: the convolution that maps the output back to the input.
func transposeShape(a model.Attrs, x, w model.Shape) (win window, outC int) {
	if len(x) < 3 || len(w) != len(x) {
		failf("input %v and weight %v want the same rank of 3 or more", x, w)
	}
	g := a.Int("group", 1)
	if g < 1 || x[1] >= 0 && x[1]%g != 0 {
		failf("%d input channels do not divide into %d groups", x[1], g)
	}
	if x[1] >= 0 && w[0] >= 0 && x[1] != w[0] {
		failf("the input has %d channels, the weight %v wants %d", x[1], w, w[0])
	}
	r := len(x) - 2
	b := model.Attrs{}
	for _, k := range []string{"strides", "dilations"} {
		if v, ok := a[k]; ok {
			b[k] = v
		}
	}
	kernel := append([]int{}, w[2:]...)
	for i, k := range a.Ints("kernel_shape", nil) {
		if i < len(kernel) && kernel[i] < 0 {
			kernel[i] = k
		}
	}
	// Let newWindow check lengths and signs on an input that always fits.
	big := make([]int, r)
	for i := range big {
		big[i] = -1
	}
	win = newWindow(b, big, kernel)
	list := func(key string, n int) []int {
		v := a.Ints(key, nil)
		if v == nil {
			return make([]int, n)
		}
		if len(v) != n {
			failf("attribute %s has %d values, wants %d", key, len(v), n)
		}
		return v
	}
	extra, pads := list("output_padding", r), list("pads", 2*r)
	want := a.Ints("output_shape", nil)
	if len(want) == r+2 {
		want = want[2:]
	}
	if want != nil && len(want) != r {
		failf("output_shape %v wants %d values", want, r)
	}
	auto := a.String("auto_pad", "NOTSET")
	for i := range r {
		in := x[i+2]
		if in < 0 {
			continue
		}
		full := win.stride[i]*(in-1) + extra[i] + (win.kernel[i]-1)*win.dilation[i] + 1
		out := full - pads[i] - pads[r+i]
		begin, end := pads[i], pads[r+i]
		switch {
		case want != nil:
			out = want[i]
		case auto == "SAME_UPPER" || auto == "SAME_LOWER":
			out = in * win.stride[i]
		case auto == "VALID":
			out, begin, end = full, 0, 0
		}
		if want != nil || auto == "SAME_UPPER" || auto == "SAME_LOWER" {
			total := max(0, full-out)
			if auto == "SAME_UPPER" {
				begin = total / 2
			} else {
				begin = total - total/2
			}
			end = total - begin
		}
		if out < 0 {
			failf("the pads %v leave nothing of the output on spatial axis %d", pads, i)
		}
		win.begin[i], win.end[i], win.in[i], win.out[i] = begin, end, out, in
	}
	outC = -1
	if w[1] >= 0 {
		outC = w[1] * g
	}
	return win, outC
}

func evalConvTranspose(c *call) {
	x, w := c.x(0), c.x(1)
	win, oc := transposeShape(c.n.Attrs, x.Shape, w.Shape)
	group := c.n.Attrs.Int("group", 1)
	shape := append(model.Shape{x.Shape[0], oc}, win.in...)
	out := c.alloc(shape)
	xv, wv := floats(x), floats(w)
	taps := prod(win.kernel)
	pos, plane := prod(win.out), prod(win.in)
	if plane > 1<<31-1 {
		failf("a plane of %d elements is too large", plane)
	}
	cg, mg := x.Shape[1]/group, w.Shape[1]
	if b := c.opt(2); b != nil {
		bv := floats(b)
		if len(bv) != oc {
			failf("the bias has %d values, wants %d", len(bv), oc)
		}
		for i := range out {
			out[i] = bv[i/plane%oc]
		}
	}
	idx := win.taps(0, pos)
	parallel(x.Shape[0]*oc, func(i int) {
		n, m := i/oc, i%oc
		g := m / mg
		dst := out[i*plane : (i+1)*plane]
		for ch := g * cg; ch < (g+1)*cg; ch++ {
			if c.ctx.Err() != nil {
				return
			}
			src := xv[(n*x.Shape[1]+ch)*pos : (n*x.Shape[1]+ch+1)*pos]
			ker := wv[(ch*mg+m%mg)*taps : (ch*mg+m%mg+1)*taps]
			for p, v := range src {
				for t, j := range idx[p*taps : (p+1)*taps] {
					if j >= 0 {
						dst[j] += v * ker[t]
					}
				}
			}
		}
	})
	if err := c.ctx.Err(); err != nil {
		failf("%w", err)
	}
	c.putF(0, x.DType, shape, out)
}

func init() {
	register("conv", [4]int{2, 3, 1, 1}, inferConv, evalConv, "Conv")
	register("conv", [4]int{2, 4, 1, 1}, inferConv, evalConvInteger, "ConvInteger")
	register("conv", [4]int{2, 3, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		x := c.shape(0)
		win, oc := transposeShape(c.n.Attrs, x, c.shape(1))
		c.out(0, c.dtype(0), append(model.Shape{x[0], oc}, win.in...))
	}, evalConvTranspose, "ConvTranspose")
	countMACs(func(n *model.Node) int64 {
		w := n.In(1).Shape
		if len(w) < 2 {
			return 0
		}
		return n.Out(0).Shape.Elems() * model.Shape(w[1:]).Elems()
	}, "Conv", "ConvInteger")
	countMACs(func(n *model.Node) int64 {
		w := n.In(1).Shape
		if len(w) < 2 {
			return 0
		}
		return n.In(0).Shape.Elems() * model.Shape(w[1:]).Elems()
	}, "ConvTranspose")
}
