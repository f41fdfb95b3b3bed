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
	ys := nearestIndex(inH, outH, resizeScale(scaleH, inH, outH), m, r)
	xs := nearestIndex(inW, outW, resizeScale(scaleW, inW, outW), m, r)
	ctx.pool.For(n*cb, func(i int) {
		s, d := src[i*inH*inW*Block:], dst[i*outH*outW*Block:]
		for y, sy := range ys {
			for x, sx := range xs {
				*(*[Block]float32)(d[(y*outW+x)*Block:]) = *(*[Block]float32)(s[(sy*inW+sx)*Block:])
			}
		}
	})
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
	ys := linearIndex(inH, outH, resizeScale(scaleH, inH, outH), m)
	xs := linearIndex(inW, outW, resizeScale(scaleW, inW, outW), m)
	ctx.pool.For(n*cb, func(i int) {
		s, d := src[i*inH*inW*Block:], dst[i*outH*outW*Block:]
		for y, ly := range ys {
			r0, r1 := s[ly.lo*inW*Block:], s[ly.hi*inW*Block:]
			for x, lx := range xs {
				a, b := (*[Block]float32)(r0[lx.lo*Block:]), (*[Block]float32)(r0[lx.hi*Block:])
				e, f := (*[Block]float32)(r1[lx.lo*Block:]), (*[Block]float32)(r1[lx.hi*Block:])
				o := (*[Block]float32)(d[(y*outW+x)*Block:])
				for j := range o {
					top := a[j] + (b[j]-a[j])*lx.t
					bot := e[j] + (f[j]-e[j])*lx.t
					o[j] = top + (bot-top)*ly.t
				}
			}
		}
	})
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
