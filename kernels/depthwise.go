package kernels

// depthwiseF32 holds the weights of a depthwise convolution, one vector of 16
// channels for each kernel position: [C/16][KH*KW][16].
type depthwiseF32 struct {
	s ConvShape
	w []float32
}

func newDepthwiseF32(s ConvShape, weights []float32) *depthwiseF32 {
	k := s.KH * s.KW
	d := &depthwiseF32{s: s, w: make([]float32, ceilDiv(s.InC, Block)*k*Block)}
	for c := 0; c < s.InC; c++ {
		for i := 0; i < k; i++ {
			d.w[((c/Block)*k+i)*Block+c%Block] = weights[c*k+i]
		}
	}
	return d
}

func (d *depthwiseF32) scratchBytes() int { return 0 }

func (d *depthwiseF32) run(ctx *Ctx, c *ConvF32, dst, src, res []float32, n int) {
	s := &d.s
	cb := ceilDiv(s.InC, Block)
	oh, ow := s.OutH(), s.OutW()
	ctx.pool.For(n*cb, func(i int) {
		w := d.w[(i%cb)*s.KH*s.KW*Block:]
		bias := (*[Block]float32)(c.bias[(i%cb)*Block:])
		plane := src[i*s.InH*s.InW*Block:][:s.InH*s.InW*Block]
		for y := 0; y < oh; y++ {
			for x := 0; x < ow; x++ {
				sum := *bias
				for kh := 0; kh < s.KH; kh++ {
					iy := y*s.StrideH - s.PadTop + kh*s.DilH
					if iy < 0 || iy >= s.InH {
						continue
					}
					for kw := 0; kw < s.KW; kw++ {
						ix := x*s.StrideW - s.PadLeft + kw*s.DilW
						if ix < 0 || ix >= s.InW {
							continue
						}
						v := (*[Block]float32)(plane[(iy*s.InW+ix)*Block:])
						wv := (*[Block]float32)(w[(kh*s.KW+kw)*Block:])
						for j := range v {
							sum[j] += v[j] * wv[j]
						}
					}
				}
				o := ((i*oh+y)*ow + x) * Block
				out := dst[o : o+Block]
				if res != nil {
					for j, v := range res[o : o+Block] {
						sum[j] += v
					}
				}
				for j, v := range sum {
					if v < c.lo {
						v = c.lo
					}
					if v > c.hi {
						v = c.hi
					}
					out[j] = v
				}
				roundSlice(out, c.round)
			}
		}
		if c.act.Kind != ActNone || c.rnd != RoundNone {
			finish(dst[i*oh*ow*Block:(i+1)*oh*ow*Block], c.act, c.rnd)
		}
	})
}
