package kernels

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// shapeFrom draws a small convolution from bytes of a fuzzer: every field in a
// range that crosses the borders of the tiles.
func shapeFrom(b []byte) (ConvShape, bool) {
	if len(b) < 16 {
		return ConvShape{}, false
	}
	at := func(i, n int) int { return int(b[i]) % n }
	s := ConvShape{InC: 1 + at(0, 49), OutC: 1 + at(1, 49), InH: 1 + at(2, 12), InW: 1 + at(3, 33), KH: 1 + at(4, 5), KW: 1 + at(5, 5),
		StrideH: 1 + at(6, 3), StrideW: 1 + at(7, 3), DilH: 1 + at(8, 2), DilW: 1 + at(9, 2),
		PadTop: at(10, 4), PadLeft: at(11, 4), PadBottom: at(12, 4), PadRight: at(13, 4), Groups: 1}
	switch at(14, 5) {
	case 0:
		s.Groups, s.OutC = s.InC, s.InC
	case 1:
		g := 1 + at(15, 4)
		s.Groups, s.InC, s.OutC = g, s.InC*g, s.OutC*g
	case 2:
		s.InPlain = s.InC < Block
	}
	return s, s.Validate() == nil && s.MACs() < 3e5
}

// fuzzSeeds adds random inputs of a length.
func fuzzSeeds(f *testing.F, n int) {
	r := rand.New(rand.NewPCG(20, 20))
	for i := 0; i < 40; i++ {
		b := make([]byte, n)
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		f.Add(b)
	}
}

// FuzzConvF32 compares every level with the definition, within the error of a
// float32 sum of that length in any order.
func FuzzConvF32(f *testing.F) {
	fuzzSeeds(f, 24)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := shapeFrom(b)
		if !ok {
			t.Skip()
		}
		s = s.defaults()
		r := rand.New(rand.NewPCG(uint64(b[15]), uint64(len(b))))
		x, w := randF32(r, s.InC*s.InH*s.InW), randF32(r, s.OutC*s.InC/s.Groups*s.KH*s.KW)
		sum, mag := refConv(s, 1, func(i int) float64 { return float64(x[i]) }, func(i int) float64 { return float64(w[i]) }, 0)
		saved := cur
		defer func() { cur = saved }()
		for _, l := range archLevels() {
			cur = l
			ctx := NewCtx(nil)
			c, err := NewConvF32(s, w, Epilogue{})
			if err != nil {
				t.Fatal(err)
			}
			src := x
			if !s.InPlain {
				src = make([]float32, s.SrcLen(1))
				PackC16(ctx, src, x, 1, s.InC, s.InH, s.InW)
			}
			dst, got := make([]float32, s.DstLen(1)), make([]float32, len(sum))
			c.Run(ctx, dst, src, nil, 1)
			UnpackC16(ctx, got, dst, 1, s.OutC, s.OutH(), s.OutW())
			for i := range got {
				k := float64(s.InC / s.Groups * s.KH * s.KW)
				if math.Abs(float64(got[i])-sum[i]) > k*0x1p-24*mag[i] {
					t.Fatalf("%s %+v: element %d is %v, want %v", l.name, s, i, got[i], sum[i])
				}
			}
		}
	})
}

// FuzzConvI8 demands the same bytes and sums of every level, and the exact sums
// of the definition.
func FuzzConvI8(f *testing.F) {
	fuzzSeeds(f, 24)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := shapeFrom(b)
		if !ok || len(b) < 20 {
			t.Skip()
		}
		s = s.defaults()
		r := rand.New(rand.NewPCG(uint64(b[15]), uint64(len(b))))
		x, w := make([]uint8, s.InC*s.InH*s.InW), make([]int8, s.OutC*s.InC/s.Groups*s.KH*s.KW)
		for i := range x {
			x[i] = uint8(r.Uint32())
		}
		for i := range w {
			w[i] = int8(r.Uint32())
		}
		in := QParams{Scale: 0.1, Zero: int32(b[16]), Signed: b[17]&1 == 1}
		out := QParams{Scale: 0.5 + float32(b[18]), Zero: int32(b[19]), Signed: b[17]&2 == 2}
		for _, q := range []*QParams{&in, &out} {
			if q.Signed {
				q.Zero -= 128
			}
		}
		sum, _ := refConv(s, 1, func(i int) float64 {
			v := int32(x[i])
			if in.Signed {
				v = int32(int8(x[i]))
			}
			return float64(v - in.Zero)
		}, func(i int) float64 { return float64(w[i]) }, 0)
		round := Round(b[17] >> 2 % 3)
		var want []uint8
		saved := cur
		defer func() { cur = saved }()
		for _, l := range archLevels() {
			cur = l
			ctx := NewCtx(nil)
			c, err := NewConvI8(ConvI8Config{Shape: s, Weights: append([]int8(nil), w...), WScale: []float32{0.03}, In: in, Out: out,
				Epilogue: Epilogue{Act: Clip(-100, 150), Round: round}})
			if err != nil {
				t.Fatal(err)
			}
			src := x
			if !s.InPlain {
				src = make([]uint8, s.SrcLen(1))
				PackC16U8(ctx, src, x, 1, s.InC, s.InH, s.InW, b[18])
			}
			acc, q, plain := make([]int32, s.DstLen(1)), make([]uint8, s.DstLen(1)), make([]uint8, len(sum))
			c.RunI32(ctx, acc, src, 1)
			hw := s.OutH() * s.OutW()
			for i, v := range sum {
				oc, p := i/hw, i%hw
				if got := acc[(oc/Block*hw+p)*Block+oc%Block]; float64(got) != v {
					t.Fatalf("%s %+v: sum %d is %d, want %v", l.name, s, i, got, v)
				}
			}
			c.RunQ8(ctx, q, src, Residual{}, 1)
			UnpackC16U8(ctx, plain, q, 1, s.OutC, s.OutH(), s.OutW())
			if want == nil {
				want = plain
			}
			for i := range plain {
				if plain[i] != want[i] {
					t.Fatalf("%s %+v: byte %d is %d, the first level gave %d", l.name, s, i, plain[i], want[i])
				}
			}
		}
	})
}

// FuzzAddBytes demands the bytes of the plain code of every level, for both
// forms of byte addition.
func FuzzAddBytes(f *testing.F) {
	fuzzSeeds(f, 13+2*79)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 17 {
			t.Skip()
		}
		params := func(i int) QParams {
			q := QParams{Scale: math.Float32frombits(uint32(b[i])<<24 | uint32(b[i+1])<<16 | uint32(b[i+2])<<8), Zero: int32(b[i+3])}
			if b[12]>>(i/4)&1 == 1 {
				q.Signed, q.Zero = true, q.Zero-128
			}
			return q
		}
		qa, qb, to := params(0), params(4), params(8)
		for _, q := range []QParams{qa, qb, to} {
			if !(q.Scale > 0) || q.Scale > 1e30 { // what checkI8 and its like refuse
				t.Skip()
			}
		}
		data := b[13:]
		n := len(data) / 2
		x, y := data[:n], data[n:2*n]
		act := []Activation{{}, Relu(), Clip(-2*to.Scale, 90*to.Scale)}[b[12]>>4%3]
		saved := cur
		defer func() { cur = saved }()
		var want [3][]uint8
		for _, l := range append([]*level{&genericLevel}, archLevels()...) {
			cur = l
			ctx := NewCtx(nil)
			var got [3][]uint8
			for k := range got {
				got[k] = make([]uint8, n)
			}
			AddQ8(ctx, got[0], to, x, qa, y, qb, act, RoundNone)
			AddQ8(ctx, got[1], to, x, qa, y, qb, act, RoundF16)
			SumQ8(ctx, got[2], to, x, qa, y, qb)
			for k := range got {
				if want[k] == nil {
					want[k] = got[k]
				}
				for i := range got[k] {
					if got[k][i] != want[k][i] {
						t.Fatalf("%s, form %d, %+v + %+v -> %+v, %v: byte %d of %d + %d is %d, want %d", l.name, k, qa, qb, to, act, i, x[i], y[i], got[k][i], want[k][i])
					}
				}
			}
		}
	})
}

// FuzzVectors gives every level floats of any bits: conversions and quantization
// are those of the plain code to the bit, functions within the bounds of
// TestActivations, softmax within that of TestNorms.
func FuzzVectors(f *testing.F) {
	fuzzSeeds(f, 3+4*79)
	acts := []Activation{Relu(), Relu6(), Clip(-1, 2), LeakyRelu(0.1), HardSigmoid(0.2, 0.5), Act(ActHardSwish), Act(ActSigmoid),
		Act(ActTanh), Act(ActSilu), Act(ActGelu), Act(ActGeluTanh), Elu(1.3)}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 7 {
			t.Skip()
		}
		act := acts[int(b[0])%len(acts)]
		q := QParams{Scale: float32(math.Ldexp(1+float64(b[1])/256, int(b[2])%40-20)), Zero: int32(b[2])}
		if b[1]&1 == 1 {
			q.Signed, q.Zero = true, q.Zero-128
		}
		var x []float32
		for b = b[3:]; len(b) >= 4; b = b[4:] {
			x = append(x, math.Float32frombits(uint32(b[0])|uint32(b[1])<<8|uint32(b[2])<<16|uint32(b[3])<<24))
		}
		n := len(x)
		finite := !slices.ContainsFunc(x, func(v float32) bool { return !(math.Abs(float64(v)) < 1e30) })
		saved := cur
		defer func() { cur = saved }()
		for _, l := range archLevels() {
			cur = l
			ctx := NewCtx(nil)
			y, half, codes := make([]float32, n), make([]float32, n), make([]uint8, n)
			Activate(ctx, act, y, x)
			RoundF16Slice(ctx, half, x)
			QuantizeF32(ctx, codes, x, q)
			for i, v := range x {
				if want := float64(act.Apply(v)); !within(float64(y[i]), want, 4e-7, 2e-6) {
					t.Fatalf("%s: %v of %v = %v, want %v", l.name, act, v, y[i], want)
				}
				if want := round16(v); half[i] != want && (v == v || half[i] == half[i]) {
					t.Fatalf("%s: fp16 of %v = %v, want %v", l.name, v, half[i], want)
				}
				if want := quantU8(v, q.Scale, q.zeroU8()) ^ q.flip(); codes[i] != want {
					t.Fatalf("%s: %v quantized with %+v = %d, want %d", l.name, v, q, codes[i], want)
				}
			}
			if !finite {
				continue
			}
			Softmax(ctx, y, x, 1, n, 1)
			top, sum := slices.Max(x), 0.0
			for _, v := range x {
				sum += math.Exp(float64(v - top))
			}
			for i, v := range x {
				if want := math.Exp(float64(v-top)) / sum; !within(float64(y[i]), want, 1e-9, 2e-6) {
					t.Fatalf("%s: softmax of %v at %d = %v, want %v", l.name, x, i, y[i], want)
				}
			}
		}
	})
}
