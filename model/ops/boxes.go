package ops

import (
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
)

// Operators on boxes that Core ML has and ONNX lacks: CropResize samples
// regions of an image with one point a pixel, BoxSuppression chooses boxes and
// gives a fixed number of them.

// corners returns the ends of a box on the two axes: first height, then width.
func corners(mode string, b []float64) (h0, w0, h1, w1 float64) {
	switch mode {
	case "CORNERS_HEIGHT_FIRST":
		return b[0], b[1], b[2], b[3]
	case "CORNERS_WIDTH_FIRST":
		return b[1], b[0], b[3], b[2]
	case "CENTER_SIZE_HEIGHT_FIRST":
		return b[0] - b[2]/2, b[1] - b[3]/2, b[0] + b[2]/2, b[1] + b[3]/2
	case "CENTER_SIZE_WIDTH_FIRST":
		return b[1] - b[3]/2, b[0] - b[2]/2, b[1] + b[3]/2, b[0] + b[2]/2
	}
	failf("unknown box_coordinate_mode %q", mode)
	return
}

// gridPoint is where point i of n lies in the interval from a to b: the
// formulas of coremltools' documentation of resize_bilinear, with the interval
// in place of 0 to the last pixel.
func gridPoint(mode string, a, b float64, i, n int) float64 {
	inside := func(x float64) float64 { return max(min(a, b), min(max(a, b), x)) }
	k := float64(i)
	switch mode {
	case "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS":
		if n == 1 {
			if mode == "ALIGN_CORNERS" {
				return (a + b) / 2
			}
			return a
		}
		return a + k*(b-a)/float64(n-1)
	case "DEFAULT":
		return inside(a + k*(b-a+1)/float64(n))
	case "OFFSET_CORNERS":
		d := max(1, b-a) / float64(n)
		return inside(a + (k+0.5)*d)
	case "UNALIGN_CORNERS":
		d := (b - a + 1) / float64(n)
		return inside(a + (k+0.5)*d - 0.5)
	}
	failf("unknown sampling_mode %q", mode)
	return 0
}

// evalCropResize: X [B, C, H, W], boxes [N, 4], the image of each box [N]
// (otherwise box i is of image i). A point outside the image takes pad_value
// or, with the attribute clamp, the nearest pixel.
func evalCropResize(c *call) {
	x, boxes := c.x(0), c.x(1)
	a := c.n.Attrs
	oh, ow := a.Int("height", 1), a.Int("width", 1)
	if len(x.Shape) != 4 || len(boxes.Shape) != 2 || boxes.Shape[1] != 4 || oh < 1 || ow < 1 {
		failf("input %v, boxes %v and an output of %dx%d do not fit", x.Shape, boxes.Shape, oh, ow)
	}
	n, ch, h, w := boxes.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	if h == 0 || w == 0 {
		failf("the input %v is empty", x.Shape)
	}
	image := c.ints(2, nil)
	if image != nil && len(image) != n {
		failf("%d image indices for %d boxes", len(image), n)
	}
	shape := model.Shape{n, ch, oh, ow}
	out := c.alloc(shape)
	v, bv := floats(x), floats(boxes)
	mode, sampling := a.String("box_coordinate_mode", "CORNERS_HEIGHT_FIRST"), a.String("sampling_mode", "DEFAULT")
	sy, sx := a.Float("spatial_scale", 1), a.Float("spatial_scale", 1)
	if a.Int("normalized", 0) != 0 {
		sy, sx = sy*float64(h-1), sx*float64(w-1)
	}
	pad, clamp := a.Float("pad_value", 0), a.Int("clamp", 0) != 0
	ys, xs := make([]float64, oh), make([]float64, ow)
	for i := range n {
		b := i
		if image != nil {
			b = image[i]
		}
		b = index(int64(b), x.Shape[0])
		h0, w0, h1, w1 := corners(mode, bv[4*i:4*i+4])
		for k := range ys {
			ys[k] = gridPoint(sampling, h0*sy, h1*sy, k, oh)
		}
		for k := range xs {
			xs[k] = gridPoint(sampling, w0*sx, w1*sx, k, ow)
		}
		for q := range ch {
			plane := v[(b*ch+q)*h*w : (b*ch+q+1)*h*w]
			o := out[(i*ch+q)*oh*ow:]
			for j, y := range ys {
				for k, xx := range xs {
					o[j*ow+k] = samplePoint(plane, h, w, y, xx, pad, clamp)
				}
			}
		}
	}
	c.putF(0, x.DType, shape, out)
}

// samplePoint interpolates linearly between the four pixels around a point.
func samplePoint(plane []float64, h, w int, y, x, pad float64, clamp bool) float64 {
	if !clamp && !(y >= 0 && y <= float64(h-1) && x >= 0 && x <= float64(w-1)) {
		return pad
	}
	// A coordinate that is no number is clamped to the first pixel.
	at := func(v float64, n int) (i, j int, t float64) {
		if !(v > 0) {
			return 0, 0, 0
		}
		v = min(v, float64(n-1))
		i = int(math.Floor(v))
		return i, min(i+1, n-1), v - float64(i)
	}
	y0, y1, ty := at(y, h)
	x0, x1, tx := at(x, w)
	top := plane[y0*w+x0]*(1-tx) + plane[y0*w+x1]*tx
	bottom := plane[y1*w+x0]*(1-tx) + plane[y1*w+x1]*tx
	return top*(1-ty) + bottom*ty
}

// evalBoxSuppression: boxes [B, N, 4] as centre x, centre y, width, height and
// scores [B, N, K]. Boxes are taken by falling best score; one that overlaps a
// taken box by more than iou_threshold is dropped, with per_class only if both
// have the same best class. Outputs, padded to max_boxes with zeros (indices
// with -1): boxes, scores, indices and their number. If no score exceeds
// score_threshold, the best box alone is taken.
func evalBoxSuppression(c *call) {
	boxes, scores := c.x(0), c.x(1)
	a := c.n.Attrs
	most := a.Int("max_boxes", 1)
	if len(boxes.Shape) != 3 || len(scores.Shape) != 3 || boxes.Shape[2] != 4 || boxes.Shape[0] != scores.Shape[0] ||
		boxes.Shape[1] != scores.Shape[1] || scores.Shape[2] < 1 || most < 1 {
		failf("boxes %v, scores %v and at most %d boxes do not fit", boxes.Shape, scores.Shape, most)
	}
	batch, n, k := scores.Shape[0], scores.Shape[1], scores.Shape[2]
	iou, least, perClass := a.Float("iou_threshold", 0), a.Float("score_threshold", 0), a.Int("per_class", 0) != 0
	bv, sv := floats(boxes), floats(scores)
	outB, outS := c.alloc(model.Shape{batch, most, 4}), c.alloc(model.Shape{batch, most, k})
	outI, outN := make([]int64, c.size(model.Int32, model.Shape{batch, most})), make([]int64, batch)
	for i := range outI {
		outI[i] = -1
	}
	for b := range batch {
		box := func(i int) []float64 { return bv[(b*n+i)*4 : (b*n+i)*4+4] }
		best, class, order := make([]float64, n), make([]int, n), make([]int, n)
		for i := range n {
			order[i] = i
			row := sv[(b*n+i)*k : (b*n+i)*k+k]
			for j, s := range row {
				if s > row[class[i]] {
					class[i] = j
				}
			}
			best[i] = row[class[i]]
		}
		slices.SortStableFunc(order, func(i, j int) int {
			switch {
			case best[i] > best[j]:
				return -1
			case best[i] < best[j]:
				return 1
			}
			return 0
		})
		var taken []int
		for step, i := range order {
			if step%256 == 0 {
				if err := c.ctx.Err(); err != nil {
					failf("%w", err)
				}
			}
			if len(taken) == most || !(best[i] > least) {
				break
			}
			if !slices.ContainsFunc(taken, func(j int) bool {
				return (!perClass || class[i] == class[j]) && overlap(box(i), box(j)) > iou
			}) {
				taken = append(taken, i)
			}
		}
		if len(taken) == 0 && n > 0 {
			taken = order[:1]
		}
		for r, i := range taken {
			copy(outB[(b*most+r)*4:], box(i))
			copy(outS[(b*most+r)*k:], sv[(b*n+i)*k:(b*n+i)*k+k])
			outI[b*most+r] = int64(i)
		}
		outN[b] = int64(len(taken))
	}
	c.putF(0, boxes.DType, model.Shape{batch, most, 4}, outB)
	c.putF(1, scores.DType, model.Shape{batch, most, k}, outS)
	c.putI(2, model.Int32, model.Shape{batch, most}, outI)
	c.putI(3, model.Int32, model.Shape{batch}, outN)
}

// overlap is the intersection of two boxes over their union; 0 where that is
// empty.
func overlap(a, b []float64) float64 {
	side := func(ca, sa, cb, sb float64) float64 {
		return max(0, min(ca+sa/2, cb+sb/2)-max(ca-sa/2, cb-sb/2))
	}
	both := side(a[0], a[2], b[0], b[2]) * side(a[1], a[3], b[1], b[3])
	union := a[2]*a[3] + b[2]*b[3] - both
	if !(union > 0) {
		return 0
	}
	return both / union
}

func init() {
	register("boxes", [4]int{2, 3, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		x, b := c.rankIs(0, 4), c.rankIs(1, 2)
		mergeDim(b[1], 4, "the coordinates of a box")
		if c.has(2) {
			mergeDim(b[0], c.rankIs(2, 1)[0], "the boxes and their images")
		}
		h, w := c.n.Attrs.Int("height", 1), c.n.Attrs.Int("width", 1)
		if h < 1 || w < 1 {
			failf("an output of %dx%d", h, w)
		}
		c.out(0, c.dtype(0), model.Shape{b[0], x[1], h, w})
	}, evalCropResize, "CropResize")
	register("boxes", [4]int{2, 2, 1, 4}, func(c *inference) {
		for i, d := range []model.DType{c.dtype(0), c.dtype(1), model.Int32, model.Int32} {
			c.typ(i, d)
		}
		b, s := c.rankIs(0, 3), c.rankIs(1, 3)
		mergeDim(b[2], 4, "the coordinates of a box")
		mergeDim(b[1], s[1], "the boxes and their scores")
		n, most := mergeDim(b[0], s[0], "the batches"), c.n.Attrs.Int("max_boxes", 1)
		if most < 1 {
			failf("at most %d boxes", most)
		}
		c.out(0, c.dtype(0), model.Shape{n, most, 4})
		c.out(1, c.dtype(1), model.Shape{n, most, s[2]})
		c.out(2, model.Int32, model.Shape{n, most})
		c.out(3, model.Int32, model.Shape{n})
	}, evalBoxSuppression, "BoxSuppression")
}
