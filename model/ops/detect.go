package ops

import (
	"math"
	"sort"

	"github.com/triune-sim/triune/model"
)

// Sampling and detection: GridSample, AffineGrid, RoiAlign, MaxRoiPool, DeformConv,
// Col2Im, NonMaxSuppression.

// gridPlan checks X [N, C, spatial...] and grid [N, out..., dims].
func gridShape(x, g model.Shape) model.Shape {
	if len(x) < 3 || len(g) != len(x) {
		failf("input %v and grid %v want the same rank of 3 or more", x, g)
	}
	r := len(x) - 2
	mergeDim(g[len(g)-1], r, "the grid's coordinates and the spatial axes")
	return append(model.Shape{mergeDim(x[0], g[0], "the batches"), x[1]}, g[1:len(g)-1]...)
}

// reflectCoord mirrors a coordinate between lo and hi.
func reflectCoord(x, lo, hi float64) float64 {
	span := hi - lo
	if span <= 0 {
		return lo
	}
	x = math.Mod(math.Abs(x-lo), 2*span)
	if x > span {
		x = 2*span - x
	}
	return x + lo
}

func evalGridSample(c *call) {
	x, g := c.x(0), c.x(1)
	shape := gridShape(x.Shape, g.Shape)
	out := c.alloc(shape)
	mode := c.n.Attrs.String("mode", "linear")
	padding := c.n.Attrs.String("padding_mode", "zeros")
	align := c.n.Attrs.Int("align_corners", 0) != 0
	r := len(x.Shape) - 2
	spatial := x.Shape[2:]
	v, gv := floats(x), floats(g)
	ch, in := x.Shape[1], prod(spatial)
	pos := prod(shape[2:])
	if in == 0 {
		failf("the input %v is empty", x.Shape)
	}
	st := strides(spatial)
	bounds := func(d int) (lo, hi float64) {
		if align {
			return 0, float64(spatial[d] - 1)
		}
		return -0.5, float64(spatial[d]) - 0.5
	}
	// resolve maps a sample index on an axis to the input, -1 outside.
	resolve := func(i float64, d int) int {
		n := spatial[d]
		switch padding {
		case "border":
			return int(max(0, min(float64(n-1), i)))
		case "reflection":
			lo, hi := bounds(d)
			return int(max(0, min(float64(n-1), roundEven(reflectCoord(i, lo, hi)))))
		case "zeros":
			if i < 0 || i > float64(n-1) {
				return -1
			}
			return int(i)
		}
		failf("unknown padding_mode %q", padding)
		return 0
	}
	axes := make([][]tap, r)
	for b := range shape[0] {
		for p := range pos {
			for d := range r {
				// The last coordinate of the grid is the first axis.
				t := gv[(b*pos+p)*r+r-1-d]
				n := float64(spatial[d])
				if align {
					t = (t + 1) / 2 * (n - 1)
				} else {
					t = ((t+1)*n - 1) / 2
				}
				if t != t || math.IsInf(t, 0) {
					t = -1e9
				}
				axes[d] = axes[d][:0]
				switch mode {
				case "nearest":
					if padding == "reflection" {
						lo, hi := bounds(d)
						t = reflectCoord(t, lo, hi)
					}
					axes[d] = append(axes[d], tap{resolve(roundEven(t), d), 1})
				case "linear", "bilinear":
					f := math.Floor(t)
					axes[d] = append(axes[d], tap{resolve(f, d), 1 - (t - f)}, tap{resolve(f+1, d), t - f})
				case "cubic", "bicubic":
					f := math.Floor(t)
					for k := -1.0; k <= 2; k++ {
						axes[d] = append(axes[d], tap{resolve(f+k, d), cubicWeight(t-f-k, -0.75)})
					}
				default:
					failf("unknown mode %q", mode)
				}
			}
			var gather func(d, off int, w float64)
			gather = func(d, off int, w float64) {
				if d == r {
					for k := range ch {
						out[(b*ch+k)*pos+p] += w * v[(b*ch+k)*in+off]
					}
					return
				}
				for _, t := range axes[d] {
					if t.i >= 0 && t.w != 0 {
						gather(d+1, off+t.i*st[d], w*t.w)
					}
				}
			}
			gather(0, 0, 1)
		}
	}
	c.putF(0, x.DType, shape, out)
}

// evalAffineGrid: theta [N, r, r+1], size [N, C, spatial...].
func affineShape(theta model.Shape, size []int) model.Shape {
	if len(size) != 4 && len(size) != 5 {
		failf("size %v wants 4 or 5 values", size)
	}
	if model.Shape(size).Elems() < 0 {
		failf("size %v is not valid", size)
	}
	r := len(size) - 2
	if len(theta) != 3 || theta[1] != r || theta[2] != r+1 {
		failf("theta %v does not fit size %v", theta, size)
	}
	return append(append(model.Shape{size[0]}, size[2:]...), r)
}

func evalAffineGrid(c *call) {
	theta := c.x(0)
	size := c.ints(1, nil)
	shape := affineShape(theta.Shape, size)
	out := c.alloc(shape)
	r := len(size) - 2
	align := c.n.Attrs.Int("align_corners", 0) != 0
	tv := floats(theta)
	st := strides(size[2:])
	pos := prod(size[2:])
	coord := make([]float64, r+1)
	coord[r] = 1
	for b := range size[0] {
		for p := range pos {
			rest := p
			for d := range r {
				i, n := rest/st[d], size[2+d]
				rest %= st[d]
				var t float64
				switch {
				case align && n > 1:
					t = -1 + 2*float64(i)/float64(n-1)
				case align:
					t = 0
				default:
					t = (2*float64(i)+1)/float64(n) - 1
				}
				coord[r-1-d] = t
			}
			for d := range r {
				out[(b*pos+p)*r+d] = dot(tv[(b*r+d)*(r+1):(b*r+d+1)*(r+1)], coord)
			}
		}
	}
	c.putF(0, theta.DType, shape, out)
}

// evalRoiAlign: X [N, C, H, W], rois [R, 4] (x1, y1, x2, y2), batch [R].
func evalRoiAlign(c *call) {
	x, rois := c.x(0), c.x(1)
	batch := ints(c.x(2))
	a := c.n.Attrs
	oh, ow := a.Int("output_height", 1), a.Int("output_width", 1)
	if len(x.Shape) != 4 || len(rois.Shape) != 2 || rois.Shape[1] != 4 || len(batch) != rois.Shape[0] || oh < 1 || ow < 1 {
		failf("input %v, rois %v, %d batch indices, output %dx%d do not fit", x.Shape, rois.Shape, len(batch), oh, ow)
	}
	shape := model.Shape{rois.Shape[0], x.Shape[1], oh, ow}
	out := c.alloc(shape)
	scale := a.Float("spatial_scale", 1)
	ratio := a.Int("sampling_ratio", 0)
	maxMode := a.String("mode", "avg") == "max"
	half := a.String("coordinate_transformation_mode", "half_pixel") == "half_pixel"
	v, rv := floats(x), floats(rois)
	ch, h, w := x.Shape[1], x.Shape[2], x.Shape[3]
	if h == 0 || w == 0 {
		failf("the input %v is empty", x.Shape)
	}
	for r := range rois.Shape[0] {
		b := index(batch[r], x.Shape[0])
		off := 0.0
		if half {
			off = 0.5
		}
		x1, y1, x2, y2 := rv[r*4]*scale-off, rv[r*4+1]*scale-off, rv[r*4+2]*scale-off, rv[r*4+3]*scale-off
		rw, rh := x2-x1, y2-y1
		if !half {
			rw, rh = max(rw, 1), max(rh, 1)
		}
		bh, bw := rh/float64(oh), rw/float64(ow)
		gh, gw := ratio, ratio
		if ratio <= 0 {
			gh, gw = int(math.Ceil(bh)), int(math.Ceil(bw))
		}
		if gh > 1<<12 || gw > 1<<12 {
			failf("%d x %d samples a bin", gh, gw)
		}
		count := float64(max(1, gh*gw))
		for k := range ch {
			plane := v[(b*ch+k)*h*w : (b*ch+k+1)*h*w]
			for py := range oh {
				for px := range ow {
					acc, first := 0.0, true
					for iy := range gh {
						y := y1 + float64(py)*bh + (float64(iy)+0.5)*bh/float64(gh)
						for ix := range gw {
							xx := x1 + float64(px)*bw + (float64(ix)+0.5)*bw/float64(gw)
							ws, at, ok := bilinear(y, xx, h, w)
							if !ok {
								if maxMode && first {
									first = false
								}
								continue
							}
							if maxMode {
								m := math.Inf(-1)
								for q := range 4 {
									m = max(m, ws[q]*plane[at[q]])
								}
								if first || m > acc {
									acc, first = m, false
								}
								continue
							}
							for q := range 4 {
								acc += ws[q] * plane[at[q]]
							}
						}
					}
					if !maxMode {
						acc /= count
					}
					out[((r*ch+k)*oh+py)*ow+px] = acc
				}
			}
		}
	}
	c.putF(0, x.DType, shape, out)
}

// bilinear returns the four neighbours of a point and their weights; false if
// it lies more than one pixel outside.
func bilinear(y, x float64, h, w int) (ws [4]float64, at [4]int, ok bool) {
	if y < -1 || y > float64(h) || x < -1 || x > float64(w) || y != y || x != x {
		return ws, at, false
	}
	y, x = max(y, 0), max(x, 0)
	y0, x0 := int(y), int(x)
	y1, x1 := y0+1, x0+1
	if y0 >= h-1 {
		y0, y1 = h-1, h-1
		y = float64(y0)
	}
	if x0 >= w-1 {
		x0, x1 = w-1, w-1
		x = float64(x0)
	}
	ly, lx := y-float64(y0), x-float64(x0)
	return [4]float64{(1 - ly) * (1 - lx), (1 - ly) * lx, ly * (1 - lx), ly * lx},
		[4]int{y0*w + x0, y0*w + x1, y1*w + x0, y1*w + x1}, true
}

// evalNMS: boxes [N, B, 4], scores [N, C, B], then the limits.
func evalNMS(c *call) {
	boxes, scores := c.x(0), c.x(1)
	bs, ss := boxes.Shape, scores.Shape
	if len(bs) != 3 || bs[2] != 4 || len(ss) != 3 || ss[0] != bs[0] || ss[2] != bs[1] {
		failf("boxes %v and scores %v do not fit", bs, ss)
	}
	limit := int(c.float1(2, 0))
	iou := c.float1(3, 0)
	threshold := c.float1(4, math.Inf(-1))
	center := c.n.Attrs.Int("center_point_box", 0) != 0
	bv, sv := floats(boxes), floats(scores)
	box := func(n, i int) [4]float64 { // y1, x1, y2, x2
		b := bv[(n*bs[1]+i)*4 : (n*bs[1]+i)*4+4]
		if center {
			return [4]float64{b[1] - b[3]/2, b[0] - b[2]/2, b[1] + b[3]/2, b[0] + b[2]/2}
		}
		return [4]float64{min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])}
	}
	area := func(b [4]float64) float64 { return (b[2] - b[0]) * (b[3] - b[1]) }
	var out []int64
	for n := range ss[0] {
		for k := range ss[1] {
			row := sv[(n*ss[1]+k)*ss[2] : (n*ss[1]+k+1)*ss[2]]
			var order []int
			for i, s := range row {
				if s > threshold {
					order = append(order, i)
				}
			}
			sort.SliceStable(order, func(a, b int) bool { return row[order[a]] > row[order[b]] })
			var kept []int
			for _, i := range order {
				if len(kept) >= limit {
					break
				}
				if err := c.ctx.Err(); err != nil {
					failf("%w", err)
				}
				a, ok := box(n, i), true
				for _, j := range kept {
					b := box(n, j)
					h, w := min(a[2], b[2])-max(a[0], b[0]), min(a[3], b[3])-max(a[1], b[1])
					if h <= 0 || w <= 0 {
						continue
					}
					if u := area(a) + area(b) - h*w; u > 0 && h*w/u > iou {
						ok = false
						break
					}
				}
				if ok {
					kept = append(kept, i)
					out = append(out, int64(n), int64(k), int64(i))
				}
			}
		}
	}
	c.putI(0, model.Int64, model.Shape{len(out) / 3, 3}, out)
}

// col2imShape: X [N, C*block, L], image shape, block shape.
func col2imWindow(a model.Attrs, image, block []int) window {
	b := model.Attrs{}
	for _, k := range []string{"strides", "dilations", "pads"} {
		if v, ok := a[k]; ok {
			b[k] = v
		}
	}
	return newWindow(b, image, block)
}

func evalCol2Im(c *call) {
	x := c.x(0)
	image, block := c.ints(1, nil), c.ints(2, nil)
	if len(x.Shape) != 3 || model.Shape(image).Elems() < 0 {
		failf("input %v and image shape %v do not fit", x.Shape, image)
	}
	w := col2imWindow(c.n.Attrs, image, block)
	k, pos, plane := prod(block), prod(w.out), prod(image)
	if k < 1 || x.Shape[1]%k != 0 || x.Shape[2] != pos {
		failf("input %v does not fit blocks %v of an image %v (%d positions)", x.Shape, block, image, pos)
	}
	ch := x.Shape[1] / k
	shape := append(model.Shape{x.Shape[0], ch}, image...)
	out := c.alloc(shape)
	v := floats(x)
	idx := w.taps(0, pos)
	for n := range x.Shape[0] * ch {
		for t := range k {
			for p := range pos {
				if j := idx[p*k+t]; j >= 0 {
					out[n*plane+int(j)] += v[(n*k+t)*pos+p]
				}
			}
		}
	}
	c.putF(0, x.DType, shape, out)
}

// evalMaxRoiPool: X [N, C, H, W], rois [R, 5] (image, x1, y1, x2, y2), both
// ends included and rounded to pixels after scaling: the region pooling of Fast
// R-CNN (Girshick, 2015). An empty bin gives 0.
func evalMaxRoiPool(c *call) {
	x, rois := c.x(0), c.x(1)
	size := c.n.Attrs.Ints("pooled_shape", nil)
	if len(x.Shape) != 4 || len(rois.Shape) != 2 || rois.Shape[1] != 5 || len(size) != 2 || size[0] < 1 || size[1] < 1 {
		failf("input %v, rois %v and a pooled shape of %v do not fit", x.Shape, rois.Shape, size)
	}
	shape := model.Shape{rois.Shape[0], x.Shape[1], size[0], size[1]}
	out := c.alloc(shape)
	scale := c.n.Attrs.Float("spatial_scale", 1)
	v, rv := floats(x), floats(rois)
	ch, h, w := x.Shape[1], x.Shape[2], x.Shape[3]
	// span is bin i of n of the pixels from a to b, cut to a size.
	span := func(a, b float64, i, n, size int) (from, to int) {
		bin := max(b-a+1, 1) / float64(n)
		cut := func(p float64) int { return int(max(0, min(float64(size), p+a))) }
		return cut(math.Floor(float64(i) * bin)), cut(math.Ceil(float64(i+1) * bin))
	}
	for r := range shape[0] {
		roi := rv[5*r : 5*r+5]
		for _, p := range roi {
			if !(math.Abs(p*scale) < 1<<30) {
				failf("a region %v", roi)
			}
		}
		b := index(int64(roi[0]), x.Shape[0])
		end := func(i int) float64 { return math.Round(roi[i] * scale) }
		for q := range ch {
			plane := v[(b*ch+q)*h*w : (b*ch+q+1)*h*w]
			for py := range size[0] {
				y0, y1 := span(end(2), end(4), py, size[0], h)
				for px := range size[1] {
					x0, x1 := span(end(1), end(3), px, size[1], w)
					most := 0.0
					for y := y0; y < y1; y++ {
						for xx := x0; xx < x1; xx++ {
							if p := plane[y*w+xx]; y == y0 && xx == x0 || p > most {
								most = p
							}
						}
					}
					out[((r*ch+q)*size[0]+py)*size[1]+px] = most
				}
			}
		}
	}
	c.putF(0, x.DType, shape, out)
}

// evalDeformConv: X [N, C, H, W], W [M, C/group, kh, kw], offset
// [N, og*kh*kw*2, oh, ow], bias, mask [N, og*kh*kw, oh, ow].
func evalDeformConv(c *call) {
	x, w, off := c.x(0), c.x(1), c.x(2)
	if len(x.Shape) != 4 {
		failf("input %v wants rank 4", x.Shape)
	}
	win := convShape(c.n.Attrs, x.Shape, w.Shape)
	group, og := c.n.Attrs.Int("group", 1), c.n.Attrs.Int("offset_group", 1)
	taps, pos := prod(win.kernel), prod(win.out)
	ch, m := x.Shape[1], w.Shape[0]
	if og < 1 || ch%og != 0 || off.Len() != x.Shape[0]*og*taps*2*pos {
		failf("offsets %v do not fit %d groups of %d taps and the output %v", off.Shape, og, taps, win.out)
	}
	shape := append(model.Shape{x.Shape[0], m}, win.out...)
	out := c.alloc(shape)
	xv, wv, ov := floats(x), floats(w), floats(off)
	var bias, mask []float64
	if t := c.opt(3); t != nil {
		if bias = floats(t); len(bias) != m {
			failf("the bias has %d values, wants %d", len(bias), m)
		}
	}
	if t := c.opt(4); t != nil {
		if mask = floats(t); len(mask) != x.Shape[0]*og*taps*pos {
			failf("the mask has shape %v, which does not fit", t.Shape)
		}
	}
	h, wd := x.Shape[2], x.Shape[3]
	cg, mg := w.Shape[1], m/group
	sample := make([]float64, ch*taps)
	for n := range x.Shape[0] {
		for p := range pos {
			oy, ox := p/win.out[1], p%win.out[1]
			for t := range taps {
				ky, kx := t/win.kernel[1], t%win.kernel[1]
				for g := range og {
					base := ((n*og+g)*taps + t) * 2
					y := float64(oy*win.stride[0]-win.begin[0]+ky*win.dilation[0]) + ov[base*pos+p]
					xx := float64(ox*win.stride[1]-win.begin[1]+kx*win.dilation[1]) + ov[(base+1)*pos+p]
					k := 1.0
					if mask != nil {
						k = mask[((n*og+g)*taps+t)*pos+p]
					}
					y0, x0 := math.Floor(y), math.Floor(xx)
					for q := g * ch / og; q < (g+1)*ch/og; q++ {
						s := 0.0
						for dy := range 2 {
							for dx := range 2 {
								yy, xq := y0+float64(dy), x0+float64(dx)
								if yy < 0 || xq < 0 || yy > float64(h-1) || xq > float64(wd-1) {
									continue
								}
								s += (1 - math.Abs(y-yy)) * (1 - math.Abs(xx-xq)) * xv[((n*ch+q)*h+int(yy))*wd+int(xq)]
							}
						}
						sample[q*taps+t] = s * k
					}
				}
			}
			for o := range m {
				g := o / mg
				s := dot(wv[o*cg*taps:(o+1)*cg*taps], sample[g*cg*taps:(g+1)*cg*taps])
				if bias != nil {
					s += bias[o]
				}
				out[(n*m+o)*pos+p] = s
			}
		}
	}
	c.putF(0, x.DType, shape, out)
}

func init() {
	register("sample", [4]int{2, 2, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		c.out(0, c.dtype(0), gridShape(c.shape(0), c.shape(1)))
	}, evalGridSample, "GridSample")
	register("sample", [4]int{2, 2, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		t := c.shape(0)
		size, ok := c.ints(1)
		if !ok {
			if s, k := c.shapeOf(1); k && len(s) == 1 && (s[0] == 4 || s[0] == 5) {
				c.out(0, c.dtype(0), append(unknown(s[0]-1), s[0]-2))
			}
			return
		}
		c.out(0, c.dtype(0), affineShape(t, size))
	}, evalAffineGrid, "AffineGrid")
	register("sample", [4]int{3, 3, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		x, r := c.rankIs(0, 4), c.rankIs(1, 2)
		c.out(0, c.dtype(0), model.Shape{r[0], x[1], c.n.Attrs.Int("output_height", 1), c.n.Attrs.Int("output_width", 1)})
	}, evalRoiAlign, "RoiAlign")
	register("sample", [4]int{2, 2, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		x, r, size := c.rankIs(0, 4), c.rankIs(1, 2), c.n.Attrs.Ints("pooled_shape", nil)
		if mergeDim(r[1], 5, "the numbers of a region"); len(size) != 2 || size[0] < 1 || size[1] < 1 {
			failf("a pooled shape of %v", size)
		}
		c.out(0, c.dtype(0), model.Shape{r[0], x[1], size[0], size[1]})
	}, evalMaxRoiPool, "MaxRoiPool")
	register("sample", [4]int{2, 5, 1, 1}, func(c *inference) {
		c.out(0, model.Int64, model.Shape{-1, 3})
	}, evalNMS, "NonMaxSuppression")
	register("sample", [4]int{3, 3, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		x := c.rankIs(0, 3)
		image, ok := c.ints(1)
		block, ok2 := c.ints(2)
		if !ok || !ok2 {
			return
		}
		k := prod(block)
		if k < 1 || x[1] >= 0 && x[1]%k != 0 {
			failf("input %v does not fit blocks %v", x, block)
		}
		ch := -1
		if x[1] >= 0 {
			ch = x[1] / k
		}
		col2imWindow(c.n.Attrs, image, block)
		c.out(0, c.dtype(0), append(model.Shape{x[0], ch}, image...))
	}, evalCol2Im, "Col2Im")
	register("conv", [4]int{3, 5, 1, 1}, inferConv, evalDeformConv, "DeformConv")
	countMACs(registry["Conv"].macs, "DeformConv")
}
