package kernels

import "math"

// CoordMode maps an output coordinate to an input one, as ONNX Resize names it.
type CoordMode uint8

// The coordinate transformations, with s = out/in.
const (
	HalfPixel        CoordMode = iota // (x + 0.5)/s - 0.5
	AlignCorners                      // x * (in-1)/(out-1)
	Asymmetric                        // x / s
	PytorchHalfPixel                  // HalfPixel, but 0 when out is 1
)

// NearestMode rounds the coordinate of nearest-neighbour sampling.
type NearestMode uint8

// The roundings.
const (
	RoundPreferFloor NearestMode = iota
	RoundPreferCeil
	NearestFloor
	NearestCeil
)

func (m CoordMode) at(x, in, out int, scale float64) float64 {
	switch m {
	case AlignCorners:
		if out <= 1 {
			return 0
		}
		return float64(x) * float64(in-1) / float64(out-1)
	case Asymmetric:
		return float64(x) / scale
	case PytorchHalfPixel:
		if out <= 1 {
			return 0
		}
	}
	return (float64(x)+0.5)/scale - 0.5
}

func resizeScale(s float64, in, out int) float64 {
	if s > 0 {
		return s
	}
	return float64(out) / float64(in)
}

// ResizeNearestC16 resizes n images of c channels (C16) from inH x inW to
// outH x outW. scaleH and scaleW are out/in; 0 means exactly that quotient.
func ResizeNearestC16(ctx *Ctx, dst, src []float32, n, c, inH, inW, outH, outW int, scaleH, scaleW float64, m CoordMode, r NearestMode) {
	cb := ceilDiv(c, Block)
	need("resize dst", len(dst), n*cb*outH*outW*Block)
	need("resize src", len(src), n*cb*inH*inW*Block)
	g := ctx.grid(gridKey{inH, inW, outH, outW, scaleH, scaleW, m, r, false})
	ctx.resize = resizeTask{g: g, dst: dst, src: src}
	ctx.pool.Run(n*cb, &ctx.resize)
	ctx.resize = resizeTask{}
}

// gridKey identifies a grid of sampling positions.
type gridKey struct {
	inH, inW, outH, outW int
	scaleH, scaleW       float64
	m                    CoordMode
	r                    NearestMode
	linear               bool
}

// grid holds the sampling positions of a resize, kept in the context from the
// first call on.
type grid struct {
	gridKey
	ys, xs []int
	ly, lx []lerp
}

func (c *Ctx) grid(k gridKey) *grid {
	if g := c.grids[k]; g != nil {
		return g
	}
	g := &grid{gridKey: k}
	if k.linear {
		g.ly = linearIndex(k.inH, k.outH, resizeScale(k.scaleH, k.inH, k.outH), k.m)
		g.lx = linearIndex(k.inW, k.outW, resizeScale(k.scaleW, k.inW, k.outW), k.m)
	} else {
		g.ys = nearestIndex(k.inH, k.outH, resizeScale(k.scaleH, k.inH, k.outH), k.m, k.r)
		g.xs = nearestIndex(k.inW, k.outW, resizeScale(k.scaleW, k.inW, k.outW), k.m, k.r)
	}
	if c.grids == nil {
		c.grids = map[gridKey]*grid{}
	}
	c.grids[k] = g
	return g
}

type resizeTask struct {
	g        *grid
	dst, src []float32
}

func (t *resizeTask) RunPiece(i, _ int) {
	g := t.g
	s, d := t.src[i*g.inH*g.inW*Block:], t.dst[i*g.outH*g.outW*Block:]
	if !g.linear {
		for y, sy := range g.ys {
			for x, sx := range g.xs {
				*(*[Block]float32)(d[(y*g.outW+x)*Block:]) = *(*[Block]float32)(s[(sy*g.inW+sx)*Block:])
			}
		}
		return
	}
	for y, ly := range g.ly {
		r0, r1 := s[ly.lo*g.inW*Block:], s[ly.hi*g.inW*Block:]
		for x, lx := range g.lx {
			a, b := (*[Block]float32)(r0[lx.lo*Block:]), (*[Block]float32)(r0[lx.hi*Block:])
			e, f := (*[Block]float32)(r1[lx.lo*Block:]), (*[Block]float32)(r1[lx.hi*Block:])
			o := (*[Block]float32)(d[(y*g.outW+x)*Block:])
			for j := range o {
				top := a[j] + (b[j]-a[j])*lx.t
				bot := e[j] + (f[j]-e[j])*lx.t
				o[j] = top + (bot-top)*ly.t
			}
		}
	}
}

func nearestIndex(in, out int, scale float64, m CoordMode, r NearestMode) []int {
	ix := make([]int, out)
	for i := range ix {
		p := m.at(i, in, out, scale)
		switch r {
		case RoundPreferFloor:
			p = math.Ceil(p - 0.5)
		case RoundPreferCeil:
			p = math.Floor(p + 0.5)
		case NearestFloor:
			p = math.Floor(p)
		case NearestCeil:
			p = math.Ceil(p)
		}
		ix[i] = min(max(int(p), 0), in-1)
	}
	return ix
}

// ResizeBilinearC16 resizes with linear interpolation in both directions,
// coordinates clamped to the image.
func ResizeBilinearC16(ctx *Ctx, dst, src []float32, n, c, inH, inW, outH, outW int, scaleH, scaleW float64, m CoordMode) {
	cb := ceilDiv(c, Block)
	need("resize dst", len(dst), n*cb*outH*outW*Block)
	need("resize src", len(src), n*cb*inH*inW*Block)
	g := ctx.grid(gridKey{inH, inW, outH, outW, scaleH, scaleW, m, 0, true})
	ctx.resize = resizeTask{g: g, dst: dst, src: src}
	ctx.pool.Run(n*cb, &ctx.resize)
	ctx.resize = resizeTask{}
}

type lerp struct {
	lo, hi int
	t      float32
}

func linearIndex(in, out int, scale float64, m CoordMode) []lerp {
	ix := make([]lerp, out)
	for i := range ix {
		p := min(max(m.at(i, in, out, scale), 0), float64(in-1))
		lo := int(p)
		ix[i] = lerp{lo, min(lo+1, in-1), float32(p - float64(lo))}
	}
	return ix
}
