package kernels

// PoolShape is the geometry of a two-dimensional pooling window over n x c
// planes of InH x InW. OutH and OutW are given by the caller, because formats
// disagree on rounding (ceil mode); windows are clipped to the padded input.
type PoolShape struct {
	N, C, InH, InW      int
	KH, KW              int
	StrideH, StrideW    int
	PadTop, PadLeft     int
	PadBottom, PadRight int
	DilH, DilW          int // 0 means 1
	OutH, OutW          int
	// CountPad makes the average divide by the window's size inside the padded
	// input instead of the number of real values.
	CountPad bool
}

func (s PoolShape) dil() (h, w int) { return max(1, s.DilH), max(1, s.DilW) }

// MaxPoolC16 writes the maximum of each window; both slices are C16. A window
// of padding alone gives -inf; NaN propagates.
func MaxPoolC16(ctx *Ctx, dst, src []float32, s PoolShape) {
	maxPool(ctx, dst, src, s, -inf32, func(d, v *[Block]float32) {
		for j := range d {
			if v[j] > d[j] || v[j] != v[j] {
				d[j] = v[j]
			}
		}
	})
}

// MaxPoolC16U8 is [MaxPoolC16] on raw bytes, signed or not.
func MaxPoolC16U8(ctx *Ctx, dst, src []uint8, s PoolShape, signed bool) {
	var flip, lowest uint8
	if signed {
		flip, lowest = 0x80, 0x80
	}
	maxPool(ctx, dst, src, s, lowest, func(d, v *[Block]uint8) {
		for j := range d {
			if v[j]^flip > d[j]^flip {
				d[j] = v[j]
			}
		}
	})
}

func maxPool[T float32 | uint8](ctx *Ctx, dst, src []T, s PoolShape, start T, merge func(d, v *[Block]T)) {
	cb := ceilDiv(s.C, Block)
	need("max pool dst", len(dst), s.N*cb*s.OutH*s.OutW*Block)
	need("max pool src", len(src), s.N*cb*s.InH*s.InW*Block)
	dh, dw := s.dil()
	ctx.pool.For(s.N*cb, func(i int) {
		plane := src[i*s.InH*s.InW*Block:]
		out := dst[i*s.OutH*s.OutW*Block:]
		for y := 0; y < s.OutH; y++ {
			for x := 0; x < s.OutW; x++ {
				d := (*[Block]T)(out[(y*s.OutW+x)*Block:])
				for j := range d {
					d[j] = start
				}
				for kh := 0; kh < s.KH; kh++ {
					iy := y*s.StrideH - s.PadTop + kh*dh
					if iy < 0 || iy >= s.InH {
						continue
					}
					for kw := 0; kw < s.KW; kw++ {
						ix := x*s.StrideW - s.PadLeft + kw*dw
						if ix < 0 || ix >= s.InW {
							continue
						}
						merge(d, (*[Block]T)(plane[(iy*s.InW+ix)*Block:]))
					}
				}
			}
		}
	})
}

// AvgPoolC16 writes the mean of each window; both slices are C16.
func AvgPoolC16(ctx *Ctx, dst, src []float32, s PoolShape) {
	cb := ceilDiv(s.C, Block)
	need("average pool dst", len(dst), s.N*cb*s.OutH*s.OutW*Block)
	need("average pool src", len(src), s.N*cb*s.InH*s.InW*Block)
	dh, dw := s.dil()
	ctx.pool.For(s.N*cb, func(i int) {
		plane := src[i*s.InH*s.InW*Block:]
		out := dst[i*s.OutH*s.OutW*Block:]
		for y := 0; y < s.OutH; y++ {
			for x := 0; x < s.OutW; x++ {
				var sum [Block]float32
				count := 0
				for kh := 0; kh < s.KH; kh++ {
					iy := y*s.StrideH - s.PadTop + kh*dh
					rowIn := iy >= 0 && iy < s.InH
					for kw := 0; kw < s.KW; kw++ {
						ix := x*s.StrideW - s.PadLeft + kw*dw
						if !rowIn || ix < 0 || ix >= s.InW {
							if s.CountPad && iy < s.InH+s.PadBottom && ix < s.InW+s.PadRight {
								count++
							}
							continue
						}
						count++
						v := (*[Block]float32)(plane[(iy*s.InW+ix)*Block:])
						for j := range v {
							sum[j] += v[j]
						}
					}
				}
				d := (*[Block]float32)(out[(y*s.OutW+x)*Block:])
				n := float32(max(count, 1))
				for j := range d {
					d[j] = sum[j] / n
				}
			}
		}
	})
}

// GlobalAvgPoolC16 writes the mean over h*w of each channel. dst is C16 with
// one pixel, [N][ceil(C/16)][16], which for C a multiple of 16 is plain [N][C].
func GlobalAvgPoolC16(ctx *Ctx, dst, src []float32, n, c, h, w int) {
	cb, hw := ceilDiv(c, Block), h*w
	need("global pool dst", len(dst), n*cb*Block)
	need("global pool src", len(src), n*cb*hw*Block)
	ctx.pool.For(n*cb, func(i int) {
		var sum [Block]float32
		sumBlocks(&sum, src[i*hw*Block:(i+1)*hw*Block])
		d := (*[Block]float32)(dst[i*Block:])
		for j := range d {
			d[j] = sum[j] / float32(hw)
		}
	})
}

// GlobalMaxPoolC16 writes the maximum over h*w of each channel.
func GlobalMaxPoolC16(ctx *Ctx, dst, src []float32, n, c, h, w int) {
	MaxPoolC16(ctx, dst, src, PoolShape{N: n, C: c, InH: h, InW: w, KH: h, KW: w, StrideH: 1, StrideW: 1, OutH: 1, OutW: 1})
}

// sumBlocks adds the vectors of 16 in src to sum.
func sumBlocks(sum *[Block]float32, src []float32) {
	for ; len(src) >= Block; src = src[Block:] {
		v := (*[Block]float32)(src)
		for j := range v {
			sum[j] += v[j]
		}
	}
}
