package kernels

import (
	"math"
	"math/rand/v2"
	"testing"
)

// within reports whether got is want up to an absolute and a relative error;
// infinities and NaN must match.
func within(got, want, abs, rel float64) bool {
	if math.IsNaN(want) || math.IsNaN(got) {
		return math.IsNaN(want) && math.IsNaN(got)
	}
	if math.IsInf(want, 0) || math.IsInf(got, 0) {
		return got == want
	}
	return math.Abs(got-want) <= abs+rel*math.Abs(want)
}

func TestActivations(t *testing.T) {
	acts := []Activation{Relu(), Relu6(), Clip(-1, 2), LeakyRelu(0.1), HardSigmoid(0.2, 0.5), Act(ActHardSwish), Act(ActSigmoid),
		Act(ActTanh), Act(ActSilu), Act(ActGelu), Act(ActGeluTanh), Elu(1.3), Act(ActSoftplus), Act(ActSoftsign), Act(ActMish),
		{ActSelu, 1.67326, 1.0507}, {ActScaledTanh, 1.7, 0.6}, {ActThresholdedRelu, 0.5, 0}}
	var xs []float32
	for x := -30.0; x <= 30; x += 0.0137 {
		xs = append(xs, float32(x))
	}
	for e := -40; e < 40; e++ {
		xs = append(xs, float32(math.Ldexp(1.1, e)), float32(-math.Ldexp(1.1, e)))
	}
	inf := float32(math.Inf(1))
	xs = append(xs, 0, inf, -inf, float32(math.NaN()), 88, 89, -88, -89, -103, -105)
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(nil)
		dst := make([]float32, len(xs))
		for _, a := range acts {
			Activate(ctx, a, dst, xs)
			for i, x := range xs {
				want := float64(a.Apply(x))
				// exp and the polynomials are good to about 2 ulp; erfc and the tails
				// built on it to 1.2e-7 plus the rounding of an exponent up to 100.
				if !within(float64(dst[i]), want, 4e-7, 2e-6) {
					t.Errorf("%v of %v = %v, want %v", a, x, dst[i], want)
				}
			}
		}
	})
}

func TestExpAccuracy(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(nil)
		r := rand.New(rand.NewPCG(1, 9))
		x := make([]float32, 20000)
		for i := range x {
			x[i] = float32(r.Float64()*192 - 104)
		}
		y := make([]float32, len(x))
		Unary(ctx, Exp, y, x)
		for i := range x {
			want := math.Exp(float64(x[i]))
			if !within(float64(y[i]), want, 2e-45, 3*0x1p-24) && want <= math.MaxFloat32 {
				t.Fatalf("exp(%v) = %v, want %v", x[i], y[i], want)
			}
		}
	})
}

// TestF16Exhaustive compares the conversions with the definition on all fp16
// values, their midpoints and the neighbours of the midpoints.
func TestF16Exhaustive(t *testing.T) {
	value := func(h int) float64 { // finite magnitudes
		e, m := h>>10, h&0x3ff
		if e == 0 {
			return math.Ldexp(float64(m), -24)
		}
		return math.Ldexp(float64(m|0x400), e-25)
	}
	var xs []float32
	var want []uint16
	add := func(x float32, h uint16) {
		xs, want = append(xs, x, -x), append(want, h, h|0x8000)
	}
	for h := 0; h < 0x7c00; h++ {
		v := value(h)
		if got := F16ToFloat(uint16(h)); float64(got) != v {
			t.Fatalf("F16ToFloat(%#x) = %v, want %v", h, got, v)
		}
		add(float32(v), uint16(h))
		next := 65536.0
		if h+1 < 0x7c00 {
			next = value(h + 1)
		}
		mid := float32((v + next) / 2)
		even := h
		if h&1 == 1 {
			even = h + 1
		}
		add(mid, uint16(even))
		add(math.Nextafter32(mid, 0), uint16(h))
		add(math.Nextafter32(mid, 1e6), uint16(h+1))
	}
	add(inf32, 0x7c00)
	add(1e30, 0x7c00)
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(nil)
		bits, back, direct, sat := make([]uint16, len(xs)), make([]float32, len(xs)), make([]float32, len(xs)), make([]float32, len(xs))
		F32ToF16(ctx, bits, xs)
		F16ToF32(ctx, back, bits)
		RoundF16Slice(ctx, direct, xs)
		RoundF16SatSlice(ctx, sat, xs)
		for i, x := range xs {
			if F16Bits(x) != want[i] || bits[i] != want[i] {
				t.Fatalf("fp16 of %v: scalar %#x, vector %#x, want %#x", x, F16Bits(x), bits[i], want[i])
			}
			if math.Float32bits(back[i]) != math.Float32bits(direct[i]) || back[i] != F16ToFloat(want[i]) {
				t.Fatalf("round trip of %v: %v, %v", x, back[i], direct[i])
			}
			w := direct[i]
			if x >= 32768 {
				w = inf32
			} else if x <= -32768 {
				w = -inf32
			}
			if sat[i] != w {
				t.Fatalf("saturated fp16 of %v = %v, want %v", x, sat[i], w)
			}
		}
		nan := []float32{float32(math.NaN())}
		RoundF16Slice(ctx, nan, nan)
		if nan[0] == nan[0] {
			t.Fatal("fp16 lost a NaN")
		}
	})
}

func TestQuantize(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(nil)
		r := rand.New(rand.NewPCG(2, 3))
		for round := 0; round < 200; round++ {
			q := QParams{Scale: float32(math.Exp(r.NormFloat64() * 3)), Signed: round%2 == 0}
			lo, hi := q.Range()
			q.Zero = lo + r.Int32N(hi-lo+1)
			n := 1 + r.IntN(400)
			x := make([]float32, n)
			for i := range x {
				switch r.IntN(4) {
				case 0: // exactly between two steps, and beside that
					x[i] = (float32(r.IntN(512)-256) + 0.5) * q.Scale
				case 1:
					x[i] = math.Nextafter32((float32(r.IntN(512)-256)+0.5)*q.Scale, float32(r.NormFloat64())*1e9)
				default:
					x[i] = float32(r.NormFloat64()) * 100 * q.Scale
				}
			}
			x[0] = []float32{inf32, -inf32, float32(math.NaN()), 3e38, -3e38, 1e-45}[round%6]
			got := make([]uint8, n)
			QuantizeF32(ctx, got, x, q)
			for i, v := range x {
				want := math.RoundToEven(float64(v/q.Scale)) + float64(q.Zero)
				if v != v {
					want = float64(q.Zero)
				}
				want = min(max(want, float64(lo)), float64(hi))
				g := float64(got[i])
				if q.Signed {
					g = float64(int8(got[i]))
				}
				if g != want {
					t.Fatalf("quantize %v with %+v = %v, want %v", v, q, g, want)
				}
			}
			back := make([]float32, n)
			DequantizeF32(ctx, back, got, q)
			for i, b := range got {
				v := int32(b)
				if q.Signed {
					v = int32(int8(b))
				}
				if back[i] != float32(v-q.Zero)*q.Scale {
					t.Fatalf("dequantize %d with %+v = %v", v, q, back[i])
				}
			}
		}
	})
}

func TestBinary(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(nil)
		r := rand.New(rand.NewPCG(4, 4))
		for op := Add; op <= Mod; op++ {
			for _, n := range []int{0, 1, 15, 16, 17, 1000, flatGrain + 3} {
				a, b, d := randF32(r, n), randF32(r, n), make([]float32, n)
				check := func(kind string, f func(i int) float32) {
					for i := range d {
						if w := f(i); !within(float64(d[i]), float64(w), 0, 0x1p-23) {
							t.Fatalf("op %d %s n=%d: element %d is %v, want %v", op, kind, n, i, d[i], w)
						}
					}
				}
				Binary(ctx, op, d, a, b)
				check("vector", func(i int) float32 { return op.eval(a[i], b[i]) })
				BinaryScalar(ctx, op, d, a, 0.7, false)
				check("scalar", func(i int) float32 { return op.eval(a[i], 0.7) })
				BinaryScalar(ctx, op, d, a, 0.7, true)
				check("swapped", func(i int) float32 { return op.eval(0.7, a[i]) })
			}
			// Channel operand of a C16 tensor, a row, a column, a middle axis.
			for _, c := range []struct{ shape, as, bs []int }{
				{[]int{2, 3, 35, 16}, []int{1680, 560, 16, 1}, []int{48, 16, 0, 1}},
				{[]int{7, 33}, []int{33, 1}, []int{0, 1}},
				{[]int{7, 33}, []int{33, 1}, []int{1, 0}},
				{[]int{7, 33}, []int{1, 0}, []int{33, 1}},
				{[]int{2, 5, 9}, []int{45, 9, 1}, []int{0, 1, 0}},
				{[]int{1, 1}, []int{1, 1}, []int{0, 0}},
			} {
				total := 1
				for _, d := range c.shape {
					total *= d
				}
				a, b, d := randF32(r, 4000), randF32(r, 4000), make([]float32, total)
				BinaryBroadcast(ctx, op, d, a, b, c.shape, c.as, c.bs)
				for i := range d {
					oa, ob := 0, 0
					for k, rem := len(c.shape)-1, i; k >= 0; k-- {
						oa, ob = oa+rem%c.shape[k]*c.as[k], ob+rem%c.shape[k]*c.bs[k]
						rem /= c.shape[k]
					}
					if w := op.eval(a[oa], b[ob]); !within(float64(d[i]), float64(w), 0, 0x1p-23) {
						t.Fatalf("broadcast op %d shape %v: element %d is %v, want %v", op, c.shape, i, d[i], w)
					}
				}
			}
		}
	})
}

func poolShapes() []PoolShape {
	r := rand.New(rand.NewPCG(6, 6))
	ss := []PoolShape{
		{N: 1, C: 64, InH: 30, InW: 31, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, OutH: 15, OutW: 16},
		{N: 1, C: 20, InH: 40, InW: 70, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, OutH: 20, OutW: 35},
		{N: 2, C: 5, InH: 7, InW: 7, KH: 7, KW: 7, StrideH: 1, StrideW: 1, OutH: 1, OutW: 1},
		{N: 1, C: 16, InH: 40, InW: 40, KH: 40, KW: 40, StrideH: 1, StrideW: 1, OutH: 1, OutW: 1},
	}
	for len(ss) < 40 {
		s := PoolShape{N: 1 + r.IntN(2), C: 1 + r.IntN(40), InH: 1 + r.IntN(40), InW: 1 + r.IntN(40), KH: 1 + r.IntN(4), KW: 1 + r.IntN(4),
			StrideH: 1 + r.IntN(3), StrideW: 1 + r.IntN(3), CountPad: r.IntN(2) == 0, DilH: r.IntN(3), DilW: r.IntN(3)}
		s.PadTop, s.PadLeft, s.PadBottom, s.PadRight = r.IntN(s.KH), r.IntN(s.KW), r.IntN(s.KH), r.IntN(s.KW)
		dh, dw := max(1, s.DilH), max(1, s.DilW)
		ceil := r.IntN(2) * (s.StrideH - 1)
		s.OutH = (s.InH+s.PadTop+s.PadBottom-(s.KH-1)*dh-1+ceil)/s.StrideH + 1
		s.OutW = (s.InW+s.PadLeft+s.PadRight-(s.KW-1)*dw-1)/s.StrideW + 1
		if s.InH+s.PadTop+s.PadBottom >= (s.KH-1)*dh+1 && s.InW+s.PadLeft+s.PadRight >= (s.KW-1)*dw+1 {
			ss = append(ss, s)
		}
	}
	return ss
}

func TestPooling(t *testing.T) {
	pool := NewPool(2)
	defer pool.Close()
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(pool)
		r := rand.New(rand.NewPCG(7, 7))
		for _, s := range poolShapes() {
			cb := ceilDiv(s.C, Block)
			src := randF32(r, s.N*cb*s.InH*s.InW*Block)
			b := make([]uint8, len(src))
			for i := range b {
				b[i] = uint8(r.Uint32())
			}
			n := s.N * cb * s.OutH * s.OutW * Block
			mx, av, u, i8 := make([]float32, n), make([]float32, n), make([]uint8, n), make([]uint8, n)
			MaxPoolC16(ctx, mx, src, s)
			AvgPoolC16(ctx, av, src, s)
			MaxPoolC16U8(ctx, u, b, s, false)
			MaxPoolC16U8(ctx, i8, b, s, true)
			for i := range mx {
				pl, y, x, lane := i/(s.OutH*s.OutW*Block), i/(s.OutW*Block)%s.OutH, i/Block%s.OutW, i%Block
				hi, sum, real, in := math.Inf(-1), 0.0, 0, 0
				hu, hs := uint8(0), int8(-128)
				for kh := 0; kh < s.KH; kh++ {
					for kw := 0; kw < s.KW; kw++ {
						iy, ix := y*s.StrideH-s.PadTop+kh*max(1, s.DilH), x*s.StrideW-s.PadLeft+kw*max(1, s.DilW)
						if iy < s.InH+s.PadBottom && ix < s.InW+s.PadRight {
							in++
						}
						if iy < 0 || iy >= s.InH || ix < 0 || ix >= s.InW {
							continue
						}
						real++
						at := ((pl*s.InH+iy)*s.InW+ix)*Block + lane
						hi, sum = max(hi, float64(src[at])), sum+float64(src[at])
						hu, hs = max(hu, b[at]), max(hs, int8(b[at]))
					}
				}
				div := real
				if s.CountPad {
					div = in
				}
				if float64(mx[i]) != hi || u[i] != hu || int8(i8[i]) != hs || !within(float64(av[i]), sum/float64(max(1, div)), 1e-5, 1e-5) {
					t.Fatalf("%+v element %d: max %v want %v, mean %v want %v, u8 %d want %d, s8 %d want %d", s, i, mx[i], hi, av[i], sum/float64(max(1, div)), u[i], hu, int8(i8[i]), hs)
				}
			}
		}
		x := randF32(r, 2*3*49*Block)
		g, m := make([]float32, 2*3*Block), make([]float32, 2*3*Block)
		GlobalAvgPoolC16(ctx, g, x, 2, 40, 7, 7)
		GlobalMaxPoolC16(ctx, m, x, 2, 40, 7, 7)
		for i := range g {
			sum, hi := 0.0, math.Inf(-1)
			for p := 0; p < 49; p++ {
				v := float64(x[(i/Block*49+p)*Block+i%Block])
				sum, hi = sum+v, max(hi, v)
			}
			if !within(float64(g[i]), sum/49, 1e-6, 1e-6) || float64(m[i]) != hi {
				t.Fatalf("global pool %d: %v, %v", i, g[i], m[i])
			}
		}
	})
}

func TestNorms(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(nil)
		r := rand.New(rand.NewPCG(8, 8))
		for _, d := range [][3]int{{1, 1, 1}, {3, 1000, 1}, {5, 17, 1}, {2, 10, 3}, {1, 33, 130}, {4, 16, 64}} {
			outer, axis, inner := d[0], d[1], d[2]
			x, y := randF32(r, outer*axis*inner), make([]float32, outer*axis*inner)
			Softmax(ctx, y, x, outer, axis, inner)
			for o := 0; o < outer; o++ {
				for i := 0; i < inner; i++ {
					var sum float64
					for a := 0; a < axis; a++ {
						sum += math.Exp(float64(x[(o*axis+a)*inner+i]))
					}
					for a := 0; a < axis; a++ {
						k := (o*axis+a)*inner + i
						if want := math.Exp(float64(x[k])) / sum; !within(float64(y[k]), want, 1e-9, 2e-6) {
							t.Fatalf("softmax %v at %d = %v, want %v", d, k, y[k], want)
						}
					}
				}
			}
		}
		for _, cols := range []int{1, 7, 16, 50, 384} {
			x, g, b, y := randF32(r, 3*cols), randF32(r, cols), randF32(r, cols), make([]float32, 3*cols)
			for i := range x {
				x[i] += 100 // a mean far from 0 must not cost the variance
			}
			LayerNorm(ctx, y, x, 3, cols, g, b, 1e-5)
			for k := range y {
				row := x[k/cols*cols:][:cols]
				var m, v float64
				for _, e := range row {
					m += float64(e)
				}
				m /= float64(cols)
				for _, e := range row {
					v += (float64(e) - m) * (float64(e) - m)
				}
				want := (float64(x[k])-m)/math.Sqrt(v/float64(cols)+1e-5)*float64(g[k%cols]) + float64(b[k%cols])
				if !within(float64(y[k]), want, 4e-5, 2e-5) { // float32 mean near 100 is off by up to 4e-6
					t.Fatalf("layer norm of %d at %d = %v, want %v", cols, k, y[k], want)
				}
			}
		}
		for _, c := range [][2]int{{32, 1}, {40, 1}, {40, 4}, {24, 24}, {48, 3}} {
			const hw = 35
			ch, groups := c[0], c[1]
			cb := ceilDiv(ch, Block)
			x, g, b, y := randF32(r, 2*cb*hw*Block), randF32(r, ch), randF32(r, ch), make([]float32, 2*cb*hw*Block)
			GroupNormC16(ctx, y, x, 2, ch, 5, 7, groups, g, b, 1e-5)
			at := func(n, k, p int) int { return ((n*cb+k/Block)*hw+p)*Block + k%Block }
			per := ch / groups
			for n := 0; n < 2; n++ {
				for k := 0; k < ch; k++ {
					var m, v float64
					for j := k / per * per; j < (k/per+1)*per; j++ {
						for p := 0; p < hw; p++ {
							m += float64(x[at(n, j, p)])
						}
					}
					m /= float64(per * hw)
					for j := k / per * per; j < (k/per+1)*per; j++ {
						for p := 0; p < hw; p++ {
							d := float64(x[at(n, j, p)]) - m
							v += d * d
						}
					}
					for p := 0; p < hw; p++ {
						want := (float64(x[at(n, k, p)])-m)/math.Sqrt(v/float64(per*hw)+1e-5)*float64(g[k]) + float64(b[k])
						if !within(float64(y[at(n, k, p)]), want, 1e-5, 1e-5) {
							t.Fatalf("group norm %v channel %d = %v, want %v", c, k, y[at(n, k, p)], want)
						}
					}
				}
			}
		}
	})
}

func TestLinearAndMatMul(t *testing.T) {
	pool := NewPool(2)
	defer pool.Close()
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(pool)
		r := rand.New(rand.NewPCG(9, 9))
		for _, d := range [][3]int{{1, 1, 1}, {1, 10, 1000}, {3, 64, 33}, {14, 100, 64}, {15, 1024, 48}, {29, 7, 16}, {40, 33, 95}} {
			m, k, n := d[0], d[1], d[2]
			a, w, bias, res := randF32(r, m*k), randF32(r, k*n), randF32(r, n), randF32(r, m*n)
			wt := make([]float32, k*n)
			transpose2(wt, w, k, n)
			ref := func(i, j int) (sum, mag float64) {
				for x := 0; x < k; x++ {
					p := float64(a[i*k+x]) * float64(w[x*n+j])
					sum, mag = sum+p, mag+math.Abs(p)
				}
				return
			}
			for _, order := range []WeightOrder{KN, NK} {
				ws := w
				if order == NK {
					ws = wt
				}
				l, err := NewLinearF32(k, n, ws, order, Epilogue{Bias: bias, Act: Act(ActTanh)})
				if err != nil {
					t.Fatal(err)
				}
				y := make([]float32, m*n+1)
				y[m*n] = 42
				l.Run(ctx, y, a, res, m)
				for i := range m {
					for j := range n {
						s, mag := ref(i, j)
						s += float64(bias[j]) + float64(res[i*n+j])
						if !within(float64(y[i*n+j]), math.Tanh(s), float64(k+3)*0x1p-24*(mag+4)+1e-6, 0) {
							t.Fatalf("linear %v order %d at %d,%d = %v, want %v", d, order, i, j, y[i*n+j], math.Tanh(s))
						}
					}
				}
				if y[m*n] != 42 {
					t.Fatal("linear wrote behind its result")
				}
			}
			at := make([]float32, m*k)
			transpose2(at, a, m, k)
			y := make([]float32, 2*m*n)
			for v := 0; v < 8; v++ {
				s := MatMulShape{Batch: 2, M: m, N: n, K: k, TransA: v&1 != 0, TransB: v&2 != 0, BroadcastB: v&4 != 0}
				pick := func(t bool, x, xt []float32) []float32 {
					if t {
						x = xt
					}
					return append(append([]float32(nil), x...), x...)
				}
				clear(y)
				MatMulF32(ctx, y, pick(s.TransA, a, at), pick(s.TransB, w, wt), s, Epilogue{})
				for i := range y {
					sum, mag := ref(i/n%m, i%n)
					if !within(float64(y[i]), sum, float64(k)*0x1p-24*mag, 0) {
						t.Fatalf("matmul %+v at %d = %v, want %v", s, i, y[i], sum)
					}
				}
			}
		}
	})
}

func TestLinearI8(t *testing.T) {
	pool := NewPool(2)
	defer pool.Close()
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(pool)
		r := rand.New(rand.NewPCG(10, 10))
		for c, d := range [][3]int{{1, 1, 1}, {1, 10, 1000}, {3, 64, 33}, {14, 101, 64}, {15, 1023, 48}, {29, 7, 16}, {40, 33, 95}} {
			m, k, n := d[0], d[1], d[2]
			cfg := LinearI8Config{K: k, N: n, Weights: make([]int8, k*n), Order: WeightOrder(c % 2), WScale: []float32{0.02},
				In: QParams{Scale: 0.1, Zero: int32(c * 5), Signed: c%2 == 1}, Out: QParams{Scale: 2, Zero: 7, Signed: c%3 == 0}}
			for i := range cfg.Weights {
				cfg.Weights[i] = int8(r.Uint32())
			}
			cfg.Bias = randF32(r, n)
			if c%3 == 1 {
				cfg.Act = Act(ActSigmoid)
			}
			w := append([]int8(nil), cfg.Weights...)
			l, err := NewLinearI8(cfg)
			if err != nil {
				t.Fatal(err)
			}
			a := make([]uint8, m*k)
			for i := range a {
				a[i] = uint8(r.Uint32())
			}
			acc, f, q := make([]int32, m*n), make([]float32, m*n), make([]uint8, m*n)
			res := Residual{F32: randF32(r, m*n)}
			l.RunI32(ctx, acc, a, m)
			l.RunF32(ctx, f, a, res, m)
			l.RunQ8(ctx, q, a, res, m)
			for i := range acc {
				var want int32
				for x := 0; x < k; x++ {
					v, at := int32(a[i/n*k+x]), x*n+i%n
					if cfg.In.Signed {
						v = int32(int8(a[i/n*k+x]))
					}
					if cfg.Order == NK {
						at = i%n*k + x
					}
					want += (v - cfg.In.Zero) * int32(w[at])
				}
				if acc[i] != want {
					t.Fatalf("%v: sum %d is %d, want %d", d, i, acc[i], want)
				}
				y := float32(float32(want) * float32(cfg.In.Scale*0.02))
				y += cfg.Bias[i%n]
				y += res.F32[i]
				y = cfg.Act.Apply(y)
				if !within(float64(f[i]), float64(y), 1e-6, 0) || cfg.Act.Kind == ActNone && f[i] != y {
					t.Fatalf("%v: value %d is %v, want %v", d, i, f[i], y)
				}
				lo, hi := cfg.Out.Range()
				g := float64(q[i])
				if cfg.Out.Signed {
					g = float64(int8(q[i]))
				}
				if w := min(max(float64(y/2)+7, float64(lo)), float64(hi)); math.Abs(g-w) > 0.501 {
					t.Fatalf("%v: byte %d is %v, want %v", d, i, g, w)
				}
			}
		}
	})
}

func TestReduceTransposeResize(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		ctx := NewCtx(nil)
		r := rand.New(rand.NewPCG(11, 11))
		for _, d := range [][3]int{{1, 1, 1}, {3, 100, 1}, {2, 17, 5}, {1, 9, 100}, {4, 64, 16}} {
			outer, axis, inner := d[0], d[1], d[2]
			x, y := randF32(r, outer*axis*inner), make([]float32, outer*inner)
			for op := ReduceSum; op <= ReduceLogSumExp; op++ {
				Reduce(ctx, op, y, x, outer, axis, inner)
				for i := range y {
					if want := reduceOne(op, x[i/inner*axis*inner+i%inner:], axis, inner); !within(float64(y[i]), float64(want), 1e-6, 1e-6) {
						t.Fatalf("reduce %d %v at %d = %v, want %v", op, d, i, y[i], want)
					}
				}
			}
		}
		shape := []int{2, 3, 5, 17}
		x := randF32(r, 2*3*5*17)
		y := make([]float32, len(x))
		for _, perm := range [][]int{{0, 1, 2, 3}, {0, 2, 3, 1}, {3, 2, 1, 0}, {0, 1, 3, 2}, {2, 3, 0, 1}} {
			Transpose(ctx, y, x, shape, perm)
			out := make([]int, 4)
			for i, p := range perm {
				out[i] = shape[p]
			}
			for i := range y {
				var src [4]int
				for k, rem := 3, i; k >= 0; k-- {
					src[perm[k]] = rem % out[k]
					rem /= out[k]
				}
				if want := x[((src[0]*3+src[1])*5+src[2])*17+src[3]]; y[i] != want {
					t.Fatalf("transpose %v at %d = %v, want %v", perm, i, y[i], want)
				}
			}
		}
		// Doubling with half-pixel centres: interior weights 3/4 and 1/4.
		in := make([]float32, 4*Block)
		for i := range in {
			in[i] = float32(i / Block)
		}
		out := make([]float32, 8*Block)
		ResizeBilinearC16(ctx, out, in, 1, 16, 1, 4, 1, 8, 0, 0, HalfPixel)
		for i, want := range []float32{0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3} {
			if out[i*Block] != want {
				t.Fatalf("bilinear %d = %v, want %v", i, out[i*Block], want)
			}
		}
		ResizeNearestC16(ctx, out, in, 1, 16, 1, 4, 1, 8, 0, 0, Asymmetric, NearestFloor)
		for i := 0; i < 8; i++ {
			if out[i*Block] != float32(i/2) {
				t.Fatalf("nearest %d = %v, want %v", i, out[i*Block], i/2)
			}
		}
	})
}

func TestCopyChannels(t *testing.T) {
	ctx := NewCtx(nil)
	const hw = 6
	for _, c := range []struct{ dstC, dstAt, srcC, srcAt, n int }{{48, 16, 32, 0, 32}, {40, 5, 20, 3, 17}, {24, 16, 8, 0, 8}} {
		src := make([]float32, C16Len(2, c.srcC, 2, 3))
		plain := make([]float32, 2*c.srcC*hw)
		for i := range plain {
			plain[i] = float32(i + 1)
		}
		PackC16(ctx, src, plain, 2, c.srcC, 2, 3)
		dst := make([]float32, C16Len(2, c.dstC, 2, 3))
		CopyChannelsC16(ctx, dst, c.dstC, c.dstAt, src, c.srcC, c.srcAt, c.n, 2, 2, 3)
		out := make([]float32, 2*c.dstC*hw)
		UnpackC16(ctx, out, dst, 2, c.dstC, 2, 3)
		for i, v := range out {
			img, ch, p := i/(c.dstC*hw), i/hw%c.dstC, i%hw
			want := float32(0)
			if ch >= c.dstAt && ch < c.dstAt+c.n {
				want = plain[(img*c.srcC+ch-c.dstAt+c.srcAt)*hw+p]
			}
			if v != want {
				t.Fatalf("%+v: channel %d pixel %d is %v, want %v", c, ch, p, v, want)
			}
		}
	}
}

// TestNoAllocations runs every kernel once to grow its scratch and then demands
// that it allocates nothing.
func TestNoAllocations(t *testing.T) {
	pool := NewPool(2)
	defer pool.Close()
	ctx := NewCtx(pool)
	r := rand.New(rand.NewPCG(12, 12))
	s := ConvShape{InC: 32, OutC: 32, InH: 14, InW: 14, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	dw := s
	dw.Groups = 32
	conv, _ := NewConvF32(s, randF32(r, 32*32*9), Epilogue{Act: Act(ActSilu), Round: RoundF16})
	dconv, _ := NewConvF32(dw, randF32(r, 32*9), Epilogue{Act: Relu6()})
	q := QParams{Scale: 0.1, Zero: 3}
	ci, _ := NewConvI8(ConvI8Config{Shape: s, Weights: make([]int8, 32*32*9), WScale: []float32{1}, In: q, Out: q, Epilogue: Epilogue{Act: Act(ActSilu)}})
	di, _ := NewConvI8(ConvI8Config{Shape: dw, Weights: make([]int8, 32*9), WScale: []float32{1}, In: q, Out: q})
	lin, _ := NewLinearF32(64, 100, randF32(r, 6400), KN, Epilogue{})
	li, _ := NewLinearI8(LinearI8Config{K: 64, N: 100, Weights: make([]int8, 6400), WScale: []float32{1}, In: q, Out: q})
	a, b, c := randF32(r, 6272), randF32(r, 6272), make([]float32, 6272*2)
	u, v := make([]uint8, 6272), make([]uint8, 6272)
	h := make([]uint16, 6272)
	ps := PoolShape{N: 1, C: 32, InH: 14, InW: 14, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, OutH: 7, OutW: 7}
	shape, as, bs := []int{2, 196, 16}, []int{3136, 16, 1}, []int{16, 0, 1}
	for name, f := range map[string]func(){
		"ConvF32":         func() { conv.Run(ctx, c, a, b, 1) },
		"ConvF32 dw":      func() { dconv.Run(ctx, c, a, b, 1) },
		"ConvI8":          func() { ci.RunQ8(ctx, u, v, Residual{}, 1) },
		"ConvI8 dw":       func() { di.RunF32(ctx, c, v, Residual{F32: a}, 1) },
		"LinearF32":       func() { lin.Run(ctx, c, a, nil, 40) },
		"LinearI8":        func() { li.RunQ8(ctx, u, v, Residual{}, 40) },
		"MatMulF32":       func() { MatMulF32(ctx, c, a, b, MatMulShape{Batch: 2, M: 20, N: 30, K: 40, TransA: true}, Epilogue{}) },
		"Binary":          func() { Binary(ctx, Add, c[:6272], a, b) },
		"BinaryScalar":    func() { BinaryScalar(ctx, Pow, c[:6272], a, 2, false) },
		"BinaryBroadcast": func() { BinaryBroadcast(ctx, Mul, c, a, b, shape, as, bs) },
		"Unary":           func() { Unary(ctx, Exp, c, a) },
		"Activate":        func() { Activate(ctx, Act(ActGelu), c, a) },
		"Quantize":        func() { QuantizeF32(ctx, u, a, q) },
		"Dequantize":      func() { DequantizeF32(ctx, c, u, q) },
		"Requantize":      func() { Requantize(ctx, v, q, u, q) },
		"F16":             func() { F32ToF16(ctx, h, a); F16ToF32(ctx, c, h); RoundF16Slice(ctx, c, a) },
		"Pack":            func() { PackC16(ctx, c, a, 1, 32, 14, 14); UnpackC16U8(ctx, u, v, 1, 32, 14, 14) },
		"MaxPool":         func() { MaxPoolC16(ctx, c, a, ps); MaxPoolC16U8(ctx, u, v, PoolShape(ps), true) },
		"AvgPool":         func() { AvgPoolC16(ctx, c, a, ps); GlobalAvgPoolC16(ctx, c, a, 1, 32, 14, 14) },
		"Softmax":         func() { Softmax(ctx, c, a, 4, 100, 1); Softmax(ctx, c, a, 4, 10, 100) },
		"LayerNorm":       func() { LayerNorm(ctx, c, a, 10, 100, b, b, 1e-5) },
		"GroupNorm":       func() { GroupNormC16(ctx, c, a, 1, 32, 14, 14, 1, b, b, 1e-5) },
		"Reduce":          func() { Reduce(ctx, ReduceMean, c, a, 4, 10, 100) },
		"Resize":          func() { ResizeBilinearC16(ctx, c, a, 1, 32, 7, 7, 14, 14, 0, 0, HalfPixel) },
		"Copy":            func() { CopyChannelsC16(ctx, c, 64, 32, a, 32, 0, 32, 1, 14, 14) },
	} {
		if n := testing.AllocsPerRun(20, f); n != 0 {
			t.Errorf("%s allocates %v times a run", name, n)
		}
	}
}

// TestThreads checks that the number of threads changes no bit.
func TestThreads(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 13))
	s := ConvShape{InC: 48, OutC: 80, InH: 40, InW: 33, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	conv, err := NewConvF32(s, randF32(r, 80*48*9), Epilogue{Act: Act(ActSilu)})
	if err != nil {
		t.Fatal(err)
	}
	src := randF32(r, s.SrcLen(2))
	var want []float32
	for _, n := range []int{1, 2, 3, 7} {
		pool := NewPool(n)
		dst := make([]float32, s.DstLen(2))
		conv.Run(NewCtx(pool), dst, src, nil, 2)
		pool.Close()
		if want == nil {
			want = dst
		}
		for i := range dst {
			if math.Float32bits(dst[i]) != math.Float32bits(want[i]) {
				t.Fatalf("%d threads: element %d is %v, one thread gave %v", n, i, dst[i], want[i])
			}
		}
	}
}
