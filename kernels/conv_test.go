package kernels

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// convCase is one geometry; batch and epilogue are drawn beside it.
type convCase struct {
	s ConvShape
	n int
}

// refConv computes a convolution in float64 from plain NCHW input; it returns
// the sums (plain NCHW, bias not added) and the sums of absolute products,
// which bound the rounding error. pad is the value of padding.
func refConv(s ConvShape, n int, x, w func(i int) float64, pad float64) (sum, mag []float64) {
	s = s.defaults()
	oh, ow := s.OutH(), s.OutW()
	icg, ocg := s.InC/s.Groups, s.OutC/s.Groups
	sum = make([]float64, n*s.OutC*oh*ow)
	mag = make([]float64, len(sum))
	for img := 0; img < n; img++ {
		for oc := 0; oc < s.OutC; oc++ {
			for y := 0; y < oh; y++ {
				for xx := 0; xx < ow; xx++ {
					var a, m float64
					for ic := 0; ic < icg; ic++ {
						c := oc/ocg*icg + ic
						for kh := 0; kh < s.KH; kh++ {
							for kw := 0; kw < s.KW; kw++ {
								iy, ix := y*s.StrideH-s.PadTop+kh*s.DilH, xx*s.StrideW-s.PadLeft+kw*s.DilW
								v := pad
								if iy >= 0 && iy < s.InH && ix >= 0 && ix < s.InW {
									v = x(((img*s.InC+c)*s.InH+iy)*s.InW + ix)
								}
								p := v * w(((oc*icg+ic)*s.KH+kh)*s.KW+kw)
								a += p
								m += math.Abs(p)
							}
						}
					}
					i := ((img*s.OutC+oc)*oh+y)*ow + xx
					sum[i], mag[i] = a, m
				}
			}
		}
	}
	return sum, mag
}

// refCache keeps the reference of a case from level to level.
type refCache map[int][2][]float64

func (c refCache) conv(i int, f func() (sum, mag []float64)) (sum, mag []float64) {
	if r, ok := c[i]; ok {
		return r[0], r[1]
	}
	sum, mag = f()
	c[i] = [2][]float64{sum, mag}
	return sum, mag
}

// convCases are geometries around every border of the tiling: channel tails,
// short and long rows, row pairs, groups, dilation, lopsided padding.
func convCases() []convCase {
	cs := []convCase{
		{ConvShape{InC: 1, OutC: 1, InH: 1, InW: 1, KH: 1, KW: 1}, 1},
		{ConvShape{InC: 3, OutC: 32, InH: 19, InW: 23, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, InPlain: true}, 2},
		{ConvShape{InC: 3, OutC: 64, InH: 30, InW: 30, KH: 7, KW: 7, StrideH: 2, StrideW: 2, PadTop: 3, PadLeft: 3, PadBottom: 3, PadRight: 3, InPlain: true}, 1},
		{ConvShape{InC: 3, OutC: 40, InH: 9, InW: 9, KH: 3, KW: 3, DilW: 2, PadLeft: 2, InPlain: true}, 1},
		{ConvShape{InC: 5, OutC: 17, InH: 7, InW: 11, KH: 3, KW: 2, PadTop: 2, PadRight: 1}, 1},
		{ConvShape{InC: 64, OutC: 64, InH: 7, InW: 7, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, 1},
		{ConvShape{InC: 32, OutC: 96, InH: 14, InW: 14, KH: 1, KW: 1}, 2},
		{ConvShape{InC: 24, OutC: 144, InH: 5, InW: 13, KH: 1, KW: 1}, 1},
		{ConvShape{InC: 48, OutC: 33, InH: 15, InW: 15, KH: 1, KW: 1, StrideH: 2, StrideW: 2}, 1},
		{ConvShape{InC: 16, OutC: 16, InH: 12, InW: 40, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, 1},
		{ConvShape{InC: 20, OutC: 36, InH: 9, InW: 9, KH: 3, KW: 3, DilH: 2, DilW: 2, PadTop: 2, PadLeft: 2, PadBottom: 2, PadRight: 2}, 1},
		{ConvShape{InC: 64, OutC: 128, InH: 6, InW: 6, KH: 3, KW: 3, Groups: 4, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, 1},
		{ConvShape{InC: 24, OutC: 48, InH: 6, InW: 6, KH: 3, KW: 3, Groups: 8}, 1},
		{ConvShape{InC: 12, OutC: 24, InH: 6, InW: 5, KH: 3, KW: 3, Groups: 12}, 1},
		{ConvShape{InC: 34, OutC: 34, InH: 9, InW: 8, KH: 3, KW: 3, Groups: 34, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, 2},
		{ConvShape{InC: 32, OutC: 32, InH: 11, InW: 15, KH: 3, KW: 3, StrideH: 2, StrideW: 2, Groups: 32, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, 1},
		{ConvShape{InC: 18, OutC: 18, InH: 9, InW: 17, KH: 5, KW: 5, Groups: 18, PadTop: 2, PadLeft: 2, PadBottom: 2, PadRight: 2}, 1},
		{ConvShape{InC: 16, OutC: 16, InH: 9, InW: 17, KH: 5, KW: 5, StrideH: 2, StrideW: 2, Groups: 16, PadTop: 2, PadLeft: 2, PadBottom: 2, PadRight: 2}, 1},
		{ConvShape{InC: 16, OutC: 16, InH: 9, InW: 7, KH: 2, KW: 4, Groups: 16, DilH: 2, PadTop: 2, PadRight: 3}, 1},
		{ConvShape{InC: 20, OutC: 20, InH: 11, InW: 50, KH: 3, KW: 3, StrideH: 3, StrideW: 3, Groups: 20, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, 1},
		{ConvShape{InC: 20, OutC: 20, InH: 11, InW: 61, KH: 3, KW: 3, StrideH: 2, StrideW: 4, Groups: 20, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, 1},
		{ConvShape{InC: 20, OutC: 20, InH: 11, InW: 13, KH: 3, KW: 3, StrideH: 3, StrideW: 3, Groups: 20, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, 1},
		{ConvShape{InC: 20, OutC: 20, InH: 11, InW: 47, KH: 3, KW: 3, StrideH: 1, StrideW: 3, Groups: 20, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, 1},
		{ConvShape{InC: 16, OutC: 16, InH: 3, InW: 3, KH: 3, KW: 3, PadTop: 5, PadLeft: 5, PadBottom: 5, PadRight: 5}, 1},
		{ConvShape{InC: 130, OutC: 40, InH: 40, InW: 37, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, 1},
		{ConvShape{InC: 16, OutC: 48, InH: 8, InW: 8, KH: 8, KW: 8}, 3},
	}
	r := rand.New(rand.NewPCG(1, 2))
	sizes := []int{1, 2, 3, 5, 7, 13, 14, 15, 16, 17, 28, 29, 31, 32, 33, 43}
	pick := func() int { return sizes[r.IntN(len(sizes))] }
	for len(cs) < 60 {
		s := ConvShape{InC: pick(), OutC: pick(), InH: 1 + r.IntN(17), InW: pick(), KH: 1 + r.IntN(4), KW: 1 + r.IntN(4),
			StrideH: 1 + r.IntN(3), StrideW: 1 + r.IntN(3), DilH: 1 + r.IntN(2), DilW: 1 + r.IntN(2),
			PadTop: r.IntN(3), PadLeft: r.IntN(3), PadBottom: r.IntN(3), PadRight: r.IntN(3), Groups: 1}
		switch r.IntN(4) {
		case 0:
			s.Groups = s.InC
			s.OutC = s.InC * (1 + r.IntN(2))
		case 1:
			s.Groups = 1 + r.IntN(3)
			s.InC *= s.Groups
			s.OutC *= s.Groups
		case 2:
			s.InPlain = s.InC < Block
		}
		if s.Validate() == nil && s.MACs() < 2e6 {
			cs = append(cs, convCase{s, 1 + r.IntN(2)})
		}
	}
	return cs
}

func (c convCase) String() string {
	return fmt.Sprintf("n%d_c%d-%d_%dx%d_k%dx%d_s%d%d_d%d%d_p%d%d%d%d_g%d_%v", c.n, c.s.InC, c.s.OutC, c.s.InH, c.s.InW, c.s.KH, c.s.KW,
		c.s.StrideH, c.s.StrideW, c.s.DilH, c.s.DilW, c.s.PadTop, c.s.PadLeft, c.s.PadBottom, c.s.PadRight, c.s.Groups, c.s.InPlain)
}

// eachLevel runs f with every level this processor has.
func eachLevel(t *testing.T, f func(t *testing.T)) {
	saved := cur
	defer func() { cur = saved }()
	for _, l := range archLevels() {
		t.Run(l.name, func(t *testing.T) {
			cur = l
			f(t)
		})
	}
}

func randF32(r *rand.Rand, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(r.NormFloat64())
	}
	return s
}

// testActs cycles through the kinds that matter to a store path.
var testActs = []Activation{{}, Relu(), Relu6(), Act(ActHardSwish), Act(ActSilu), Clip(-0.5, 0.25)}

func TestConvF32(t *testing.T) {
	pool := NewPool(3)
	defer pool.Close()
	cache := refCache{}
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(pool)
		for i, c := range convCases() {
			r := rand.New(rand.NewPCG(3, uint64(i)))
			s := c.s.defaults()
			x := randF32(r, c.n*s.InC*s.InH*s.InW)
			w := randF32(r, s.OutC*s.InC/s.Groups*s.KH*s.KW)
			ep := Epilogue{Act: testActs[i%len(testActs)], Round: Round(i / 2 % 3)}
			if i%3 != 0 {
				ep.Bias = randF32(r, s.OutC)
			}
			conv, err := NewConvF32(c.s, w, ep)
			if err != nil {
				t.Fatal(c, err)
			}
			oh, ow := s.OutH(), s.OutW()
			src := x
			if !s.InPlain {
				src = make([]float32, s.SrcLen(c.n))
				PackC16(ctx, src, x, c.n, s.InC, s.InH, s.InW)
			}
			var res, plainRes []float32
			if i%4 < 2 {
				plainRes = randF32(r, c.n*s.OutC*oh*ow)
				res = make([]float32, s.DstLen(c.n))
				PackC16(ctx, res, plainRes, c.n, s.OutC, oh, ow)
			}
			dst := randF32(r, s.DstLen(c.n))
			conv.Run(ctx, dst, src, res, c.n)
			got := make([]float32, c.n*s.OutC*oh*ow)
			UnpackC16(ctx, got, dst, c.n, s.OutC, oh, ow)
			sum, mag := cache.conv(i, func() (sum, mag []float64) {
				return refConv(c.s, c.n, func(i int) float64 { return float64(x[i]) }, func(i int) float64 { return float64(w[i]) }, 0)
			})
			k := s.InC / s.Groups * s.KH * s.KW
			for j, g := range got {
				y, m := sum[j], mag[j]
				if ep.Bias != nil {
					b := float64(ep.Bias[j/(oh*ow)%s.OutC])
					y, m = y+b, m+math.Abs(b)
				}
				if res != nil {
					y, m = y+float64(plainRes[j]), m+math.Abs(float64(plainRes[j]))
				}
				// A sum of k+2 terms in any order: error <= (k+2) u sum|terms|; the
				// activations used are 1.1-Lipschitz, with 4 ulp of their own.
				tol := 1.1*float64(k+2)*0x1p-24*m + 4*0x1p-23*math.Abs(y) + 1e-7
				lo, hi := checkPoint(ep, y-tol), checkPoint(ep, y+tol)
				if ep.Act.Kind == ActSilu || ep.Act.Kind == ActHardSwish { // not monotone below
					mid := float64(ep.Act.Apply(float32(y)))
					lo, hi = roundTo(ep.Round, mid-tol), roundTo(ep.Round, mid+tol)
				}
				if !(float64(g) >= lo && float64(g) <= hi) {
					t.Fatalf("%v act %v round %d: element %d is %v, want %v in [%v, %v]", c, ep.Act, ep.Round, j, g, y, lo, hi)
				}
			}
		}
	})
}

func checkPoint(ep Epilogue, y float64) float64 {
	return roundTo(ep.Round, float64(ep.Act.Apply(float32(y))))
}

func roundTo(r Round, y float64) float64 {
	switch r {
	case RoundF16:
		return float64(round16(float32(y)))
	case RoundF16Sat:
		return float64(round16sat(float32(y)))
	}
	return y
}

func TestConvI8(t *testing.T) {
	pool := NewPool(2)
	defer pool.Close()
	cache := refCache{}
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(pool)
		for i, c := range convCases() {
			r := rand.New(rand.NewPCG(5, uint64(i)))
			s := c.s.defaults()
			in := QParams{Scale: 0.02, Signed: i%2 == 0}
			lo, hi := in.Range()
			in.Zero = lo + r.Int32N(hi-lo+1)
			x := make([]uint8, c.n*s.InC*s.InH*s.InW)
			for j := range x {
				x[j] = uint8(r.Uint32())
			}
			w := make([]int8, s.OutC*s.InC/s.Groups*s.KH*s.KW)
			for j := range w {
				w[j] = int8(r.Uint32())
			}
			cfg := ConvI8Config{Shape: c.s, Weights: append([]int8(nil), w...), WScale: make([]float32, s.OutC), In: in,
				Out: QParams{Scale: 3, Zero: int32(i % 100), Signed: i%3 == 0}}
			for j := range cfg.WScale {
				cfg.WScale[j] = 0.01 + r.Float32()*0.01
			}
			cfg.Act, cfg.Round = testActs[i%len(testActs)], Round(i/2%3)
			if cfg.Act.Kind != ActNone && cfg.Act.Kind != ActClip {
				cfg.Act = Relu()
			}
			if i%3 != 0 {
				cfg.Bias = randF32(r, s.OutC)
			}
			conv, err := NewConvI8(cfg)
			if err != nil {
				t.Fatal(c, err)
			}
			oh, ow := s.OutH(), s.OutW()
			src := x
			if !s.InPlain {
				src = make([]uint8, s.SrcLen(c.n))
				PackC16U8(ctx, src, x, c.n, s.InC, s.InH, s.InW, 77)
			}
			// refConv is exact here: all values are small integers.
			val := func(b uint8) float64 {
				if in.Signed {
					return float64(int32(int8(b)) - in.Zero)
				}
				return float64(int32(b) - in.Zero)
			}
			sum, _ := cache.conv(i, func() (sum, mag []float64) {
				return refConv(c.s, c.n, func(i int) float64 { return val(x[i]) }, func(i int) float64 { return float64(w[i]) }, 0)
			})
			acc := make([]int32, s.DstLen(c.n))
			conv.RunI32(ctx, acc, src, c.n)
			var res Residual
			switch i % 4 {
			case 1:
				res.F32 = randF32(r, s.DstLen(c.n))
			case 2:
				res.Q8, res.Q = make([]uint8, s.DstLen(c.n)), QParams{Scale: 0.3, Zero: 5, Signed: i%8 == 2}
				for j := range res.Q8 {
					res.Q8[j] = uint8(r.Uint32())
				}
			}
			f := make([]float32, s.DstLen(c.n))
			q := make([]uint8, s.DstLen(c.n))
			conv.RunF32(ctx, f, src, res, c.n)
			conv.RunQ8(ctx, q, src, res, c.n)
			blocks := ceilDiv(s.OutC, Block)
			for j, want := range sum {
				img, oc, p := j/(oh*ow*s.OutC), j/(oh*ow)%s.OutC, j%(oh*ow)
				at := ((img*blocks+oc/Block)*oh*ow+p)*Block + oc%Block
				if float64(acc[at]) != want {
					t.Fatalf("%v: accumulator %d is %d, want %v", c, j, acc[at], want)
				}
				// The epilogue, spelled out.
				y := float32(float32(acc[at]) * float32(in.Scale*cfg.WScale[oc]))
				if cfg.Bias != nil {
					y += cfg.Bias[oc]
				}
				if res.F32 != nil {
					y += res.F32[at]
				} else if res.Q8 != nil {
					v := int32(res.Q8[at])
					if res.Q.Signed {
						v = int32(int8(res.Q8[at]))
					}
					y += float32(float32(v-res.Q.Zero) * res.Q.Scale)
				}
				yRaw := y
				y = float32(roundTo(cfg.Round, float64(cfg.Act.Apply(y))))
				if f[at] != y {
					t.Fatalf("%v: float %d is %v, want %v", c, j, f[at], y)
				}
				qlo, qhi := cfg.Out.Range()
				units := y / cfg.Out.Scale
				if cfg.Round == RoundNone {
					// One multiplier for each term, in units of the output scale.
					units = float32(float32(acc[at]) * (float32(in.Scale*cfg.WScale[oc]) / cfg.Out.Scale))
					if cfg.Bias != nil {
						units += cfg.Bias[oc] / cfg.Out.Scale
					}
					if res.F32 != nil {
						units += float32(res.F32[at] * (1 / cfg.Out.Scale))
					} else if res.Q8 != nil {
						v := int32(res.Q8[at])
						if res.Q.Signed {
							v = int32(int8(res.Q8[at]))
						}
						units += float32(float32(v-res.Q.Zero) * (res.Q.Scale / cfg.Out.Scale))
					}
					act := cfg.Act
					if act.Kind == ActClip {
						act.A, act.B = act.A/cfg.Out.Scale, act.B/cfg.Out.Scale
					}
					units = act.Apply(units)
				}
				wantQ := min(max(math.RoundToEven(float64(units))+float64(cfg.Out.Zero), float64(qlo)), float64(qhi))
				gotQ := float64(q[at])
				if cfg.Out.Signed {
					gotQ = float64(int8(q[at]))
				}
				if math.Abs(gotQ-min(max(float64(cfg.Act.Apply(yRaw)/cfg.Out.Scale)+float64(cfg.Out.Zero), float64(qlo)), float64(qhi))) > 0.52 && cfg.Round == RoundNone {
					t.Fatalf("%v: byte %d is %v, far from %v", c, j, gotQ, yRaw/cfg.Out.Scale)
				}
				if gotQ != wantQ {
					t.Fatalf("%v: byte %d is %v, want %v (from %v)", c, j, gotQ, wantQ, y)
				}
			}
		}
	})
}

// Sums of extreme products are exact: no level may saturate or wrap on the way,
// in pairs, in fours or at the end.
func TestI8Extremes(t *testing.T) {
	s := ConvShape{InC: 64, OutC: 32, InH: 3, InW: 5, KH: 1, KW: 1}
	dw := ConvShape{InC: 32, OutC: 32, InH: 9, InW: 9, KH: 3, KW: 3, Groups: 32}
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(nil)
		for _, w := range []int8{-128, 127} {
			for _, signed := range []bool{false, true} {
				for _, b := range []uint8{0, 127, 128, 255} {
					for _, zero := range []int32{-128, 0, 127} {
						if !signed {
							zero += 128
						}
						in := QParams{Scale: 1, Zero: zero, Signed: signed}
						for _, s := range []ConvShape{s, dw} {
							d := s.defaults()
							k := d.InC / d.Groups * d.KH * d.KW
							weights := make([]int8, d.OutC*k)
							for i := range weights {
								weights[i] = w
							}
							c, err := NewConvI8(ConvI8Config{Shape: s, Weights: weights, WScale: []float32{1}, In: in, Out: QParams{Scale: 1}})
							if err != nil {
								t.Fatal(err)
							}
							src, dst := make([]uint8, s.SrcLen(1)), make([]int32, s.DstLen(1))
							for i := range src {
								src[i] = b
							}
							c.RunI32(ctx, dst, src, 1)
							want := int32(plainValue(b, in)) * int32(w) * int32(k)
							for i, v := range dst {
								if v != want {
									t.Fatalf("%+v of %d with %d, %d products: sum %d is %d, want %d", in, b, w, k, i, v, want)
								}
							}
						}
					}
				}
			}
		}
	})
}
