package kernels

import "math"

// Softmax writes the softmax of src over the middle axis of
// [outer][axis][inner] to dst (may be src).
func Softmax(ctx *Ctx, dst, src []float32, outer, axis, inner int) {
	n := outer * axis * inner
	need("Softmax dst", len(dst), n)
	need("Softmax src", len(src), n)
	if n == 0 {
		return
	}
	if inner == 1 {
		grain := max(1, flatGrain/axis)
		ctx.pool.For(ceilDiv(outer, grain), func(i int) {
			for r := i * grain; r < min((i+1)*grain, outer); r++ {
				softmaxRow(dst[r*axis:(r+1)*axis], src[r*axis:(r+1)*axis])
			}
		})
		return
	}
	// Columns in strips, so that the walk along the axis reuses cache lines.
	const strip = 64
	strips := ceilDiv(inner, strip)
	ctx.pool.For(outer*strips, func(i int) {
		o, c0 := i/strips, i%strips*strip
		w := min(strip, inner-c0)
		var hi, sum [strip]float32
		s, d := src[o*axis*inner+c0:], dst[o*axis*inner+c0:]
		copy(hi[:w], s[:w])
		for a := 1; a < axis; a++ {
			for j, v := range s[a*inner : a*inner+w] {
				if v > hi[j] {
					hi[j] = v
				}
			}
		}
		for a := 0; a < axis; a++ {
			out := d[a*inner : a*inner+w]
			for j, v := range s[a*inner : a*inner+w] {
				out[j] = v - hi[j]
			}
			expSlice(out, out)
			for j, v := range out {
				sum[j] += v
			}
		}
		for a := 0; a < axis; a++ {
			out := d[a*inner : a*inner+w]
			for j := range out {
				out[j] /= sum[j]
			}
		}
	})
}

func softmaxRow(dst, src []float32) {
	hi := src[0]
	for _, v := range src[1:] {
		if v > hi {
			hi = v
		}
	}
	for i, v := range src {
		dst[i] = v - hi
	}
	expSlice(dst, dst)
	var sum float32
	for _, v := range dst {
		sum += v
	}
	inv := 1 / sum
	for i := range dst {
		dst[i] *= inv
	}
}

func expSlice(dst, src []float32) {
	for i, v := range src {
		dst[i] = float32(math.Exp(float64(v)))
	}
}

// LayerNorm normalises each of rows rows of cols values to zero mean and unit
// variance (biased, plus eps), times gamma plus beta (each cols values or nil).
// Sums are kept in float64.
func LayerNorm(ctx *Ctx, dst, src []float32, rows, cols int, gamma, beta []float32, eps float32) {
	need("LayerNorm dst", len(dst), rows*cols)
	need("LayerNorm src", len(src), rows*cols)
	if gamma != nil {
		need("LayerNorm gamma", len(gamma), cols)
	}
	if beta != nil {
		need("LayerNorm beta", len(beta), cols)
	}
	ctx.pool.For(rows, func(r int) {
		x, d := src[r*cols:(r+1)*cols], dst[r*cols:(r+1)*cols]
		mean, inv := moments(x, eps)
		for i, v := range x {
			y := (v - mean) * inv
			if gamma != nil {
				y *= gamma[i]
			}
			if beta != nil {
				y += beta[i]
			}
			d[i] = y
		}
	})
}

func moments(x []float32, eps float32) (mean, inv float32) {
	var s, q float64
	for _, v := range x {
		s += float64(v)
	}
	m := s / float64(len(x))
	for _, v := range x {
		d := float64(v) - m
		q += d * d
	}
	return float32(m), float32(1 / math.Sqrt(q/float64(len(x))+float64(eps)))
}

// GroupNormC16 normalises n images of c channels (C16, h x w) in groups of
// c/groups channels over channels and space, times gamma plus beta by channel
// (each c values or nil). groups = 1 is layer normalisation over channels and
// space, groups = c instance normalisation.
func GroupNormC16(ctx *Ctx, dst, src []float32, n, c, h, w, groups int, gamma, beta []float32, eps float32) {
	if groups < 1 || c%groups != 0 {
		panic("kernels: GroupNormC16: channels are not divisible by groups")
	}
	hw, cb, gc := h*w, ceilDiv(c, Block), c/groups
	need("GroupNormC16 dst", len(dst), n*cb*hw*Block)
	need("GroupNormC16 src", len(src), n*cb*hw*Block)
	ctx.pool.For(n*groups, func(i int) {
		img, c0 := i/groups, i%groups*gc
		base := img * cb * hw * Block
		// span walks the lanes of one block that belong to the group.
		span := func(f func(blk, lo, hi int)) {
			for ch := c0; ch < c0+gc; {
				blk := ch / Block
				hi := min((blk+1)*Block, c0+gc)
				f(base+blk*hw*Block, ch%Block, hi-blk*Block)
				ch = hi
			}
		}
		var s, q float64
		span(func(blk, lo, hi int) {
			for p := 0; p < hw; p++ {
				for _, v := range src[blk+p*Block+lo : blk+p*Block+hi] {
					s += float64(v)
				}
			}
		})
		m := s / float64(gc*hw)
		span(func(blk, lo, hi int) {
			for p := 0; p < hw; p++ {
				for _, v := range src[blk+p*Block+lo : blk+p*Block+hi] {
					d := float64(v) - m
					q += d * d
				}
			}
		})
		mean, inv := float32(m), float32(1/math.Sqrt(q/float64(gc*hw)+float64(eps)))
		span(func(blk, lo, hi int) {
			var g, b [Block]float32
			ch := (blk - base) / (hw * Block) * Block
			for j := lo; j < hi; j++ {
				g[j], b[j] = inv, 0
				if gamma != nil {
					g[j] *= gamma[ch+j]
				}
				if beta != nil {
					b[j] = beta[ch+j]
				}
			}
			for p := 0; p < hw; p++ {
				x, d := src[blk+p*Block:][:Block], dst[blk+p*Block:][:Block]
				for j := lo; j < hi; j++ {
					d[j] = (x[j]-mean)*g[j] + b[j]
				}
			}
		})
	})
}
