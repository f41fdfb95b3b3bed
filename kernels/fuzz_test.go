package kernels

import (
	"math"
	"math/rand/v2"
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

func fuzzSeeds(f *testing.F) {
	r := rand.New(rand.NewPCG(20, 20))
	for i := 0; i < 40; i++ {
		b := make([]byte, 24)
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		f.Add(b)
	}
}

// FuzzConvF32 compares every level with the definition, within the error of a
// float32 sum of that length in any order.
func FuzzConvF32(f *testing.F) {
	fuzzSeeds(f)
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
	fuzzSeeds(f)
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
