package kernels

// Transpose writes src, row-major with the given shape, to dst with its
// dimensions in the order perm: dst dimension i is src dimension perm[i].
func Transpose[T any](ctx *Ctx, dst, src []T, shape, perm []int) {
	if len(perm) != len(shape) {
		panic("kernels: Transpose: perm and shape differ in length")
	}
	total := 1
	for _, d := range shape {
		total *= d
	}
	need("Transpose dst", len(dst), total)
	need("Transpose src", len(src), total)
	if total == 0 {
		return
	}
	stride := make([]int, len(shape))
	for i, s := len(shape)-1, 1; i >= 0; i-- {
		stride[i] = s
		s *= shape[i]
	}
	// Drop dimensions of 1 and merge neighbours that stay neighbours.
	var dims, st []int
	seen := make([]bool, len(shape))
	for _, p := range perm {
		if p < 0 || p >= len(shape) || seen[p] {
			panic("kernels: Transpose: perm is not a permutation")
		}
		seen[p] = true
		if shape[p] == 1 {
			continue
		}
		if k := len(dims) - 1; k >= 0 && st[k] == stride[p]*shape[p] {
			dims[k], st[k] = dims[k]*shape[p], stride[p]
			continue
		}
		dims, st = append(dims, shape[p]), append(st, stride[p])
	}
	if len(dims) == 0 || len(dims) == 1 && st[0] == 1 {
		copy(dst[:total], src)
		return
	}
	last := len(dims) - 1
	inner, si := dims[last], st[last]
	rows := total / inner
	// With a strided inner dimension, walk it together with the dimension that
	// is contiguous in the source, in small squares.
	grain := max(1, flatGrain/inner)
	offset := func(r int) int {
		o := 0
		for i := last - 1; i >= 0; i-- {
			o += r % dims[i] * st[i]
			r /= dims[i]
		}
		return o
	}
	ctx.pool.For(ceilDiv(rows, grain), func(piece int) {
		r1 := min((piece+1)*grain, rows)
		if si == 1 {
			for r := piece * grain; r < r1; r++ {
				o := offset(r)
				copy(dst[r*inner:(r+1)*inner], src[o:o+inner])
			}
			return
		}
		const sq = 16
		for r0 := piece * grain; r0 < r1; r0 += sq {
			var off [sq]int
			n := min(sq, r1-r0)
			for k := 0; k < n; k++ {
				off[k] = offset(r0 + k)
			}
			for i0 := 0; i0 < inner; i0 += sq {
				i1 := min(i0+sq, inner)
				for k := 0; k < n; k++ {
					d := dst[(r0+k)*inner:]
					for i := i0; i < i1; i++ {
						d[i] = src[off[k]+i*si]
					}
				}
			}
		}
	})
}
