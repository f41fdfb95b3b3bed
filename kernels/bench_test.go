package kernels

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// benchShape is a convolution of a real network.
type benchShape struct {
	name string
	s    ConvShape
}

func cs(ic, oc, hw, k, stride, groups int) ConvShape {
	p := k / 2
	return ConvShape{InC: ic, OutC: oc, InH: hw, InW: hw, KH: k, KW: k, StrideH: stride, StrideW: stride, PadTop: p, PadLeft: p, PadBottom: p, PadRight: p, Groups: groups, InPlain: ic == 3}
}

var benchShapes = []benchShape{
	{"r50/conv1_7x7s2", cs(3, 64, 224, 7, 2, 1)},
	{"r50/56_64-64_1x1", cs(64, 64, 56, 1, 1, 1)},
	{"r50/56_64-64_3x3", cs(64, 64, 56, 3, 1, 1)},
	{"r50/56_64-256_1x1", cs(64, 256, 56, 1, 1, 1)},
	{"r50/56_256-64_1x1", cs(256, 64, 56, 1, 1, 1)},
	{"r50/56_128_3x3s2", cs(128, 128, 56, 3, 2, 1)},
	{"r50/56_256-512_1x1s2", cs(256, 512, 56, 1, 2, 1)},
	{"r50/28_128-128_3x3", cs(128, 128, 28, 3, 1, 1)},
	{"r50/28_512-128_1x1", cs(512, 128, 28, 1, 1, 1)},
	{"r50/28_128-512_1x1", cs(128, 512, 28, 1, 1, 1)},
	{"r50/14_256-256_3x3", cs(256, 256, 14, 3, 1, 1)},
	{"r50/14_1024-256_1x1", cs(1024, 256, 14, 1, 1, 1)},
	{"r50/14_256-1024_1x1", cs(256, 1024, 14, 1, 1, 1)},
	{"r50/7_512-512_3x3", cs(512, 512, 7, 3, 1, 1)},
	{"r50/7_2048-512_1x1", cs(2048, 512, 7, 1, 1, 1)},
	{"r50/7_512-2048_1x1", cs(512, 2048, 7, 1, 1, 1)},
	{"mbv2/conv1_3x3s2", cs(3, 32, 224, 3, 2, 1)},
	{"mbv2/112_32_dw", cs(32, 32, 112, 3, 1, 32)},
	{"mbv2/112_16-96_1x1", cs(16, 96, 112, 1, 1, 1)},
	{"mbv2/112_96_dws2", cs(96, 96, 112, 3, 2, 96)},
	{"mbv2/56_144_dw", cs(144, 144, 56, 3, 1, 144)},
	{"mbv2/56_24-144_1x1", cs(24, 144, 56, 1, 1, 1)},
	{"mbv2/56_144-24_1x1", cs(144, 24, 56, 1, 1, 1)},
	{"mbv2/28_192-32_1x1", cs(192, 32, 28, 1, 1, 1)},
	{"mbv2/14_384_dw", cs(384, 384, 14, 3, 1, 384)},
	{"mbv2/14_384-96_1x1", cs(384, 96, 14, 1, 1, 1)},
	{"mbv2/7_960_dw", cs(960, 960, 7, 3, 1, 960)},
	{"mbv2/7_160-960_1x1", cs(160, 960, 7, 1, 1, 1)},
	{"mbv2/7_960-160_1x1", cs(960, 160, 7, 1, 1, 1)},
	{"mbv2/7_320-1280_1x1", cs(320, 1280, 7, 1, 1, 1)},
}

func BenchmarkConvF32(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	ctx := NewCtx(nil)
	peak := PeakF32()
	for _, bs := range benchShapes {
		s := bs.s
		w := randF32(r, s.OutC*s.InC/s.Groups*s.KH*s.KW)
		c, err := NewConvF32(s, w, Epilogue{Bias: make([]float32, s.OutC), Act: Relu()})
		if err != nil {
			b.Fatal(err)
		}
		src, dst := randF32(r, s.SrcLen(1)), make([]float32, s.DstLen(1))
		b.Run(bs.name, func(b *testing.B) {
			report(b, float64(s.MACs()), peak, func() { c.Run(ctx, dst, src, nil, 1) })
		})
	}
}

func BenchmarkConvI8(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	ctx := NewCtx(nil)
	peak := PeakI8()
	for _, bs := range benchShapes {
		s := bs.s
		w := make([]int8, s.OutC*s.InC/s.Groups*s.KH*s.KW)
		for i := range w {
			w[i] = int8(r.Uint32())
		}
		c, err := NewConvI8(ConvI8Config{Shape: s, Weights: w, WScale: []float32{0.01}, In: QParams{Scale: 0.1, Zero: 100}, Out: QParams{Scale: 1, Zero: 3},
			Epilogue: Epilogue{Bias: make([]float32, s.OutC), Act: Relu()}})
		if err != nil {
			b.Fatal(err)
		}
		src, dst := make([]uint8, s.SrcLen(1)), make([]uint8, s.DstLen(1))
		b.Run(bs.name, func(b *testing.B) {
			report(b, float64(s.MACs()), peak, func() { c.RunQ8(ctx, dst, src, Residual{}, 1) })
		})
	}
}

// report runs f b.N times and gives the median and the least time, the rate of
// the median, and the share of the peak that both reach. Other work on the
// machine raises the median; the least time is what the kernel can do.
func report(b *testing.B, macs, peak float64, f func()) {
	f()
	d := make([]float64, b.N)
	for i := range d {
		t := time.Now()
		f()
		d[i] = float64(time.Since(t).Nanoseconds())
	}
	slices.Sort(d)
	median, least := d[len(d)/2], d[0]
	b.ReportMetric(median/1e3, "us")
	b.ReportMetric(2*macs/median, "GOP/s")
	b.ReportMetric(100*2*macs/median/peak, "%peak")
	b.ReportMetric(100*2*macs/least/peak, "%peak-best")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkPeak(b *testing.B) {
	for i := 0; i < b.N; i++ {
		b.ReportMetric(PeakF32(), "f32-GOP/s")
		b.ReportMetric(PeakI8(), "i8-GOP/s")
	}
}

func ExampleConvShape_MACs() {
	fmt.Println(cs(64, 64, 56, 3, 1, 1).MACs())
	// Output: 115605504
}

func BenchmarkPack(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, bs := range benchShapes {
		s := bs.s
		w := randF32(r, s.OutC*s.InC/s.Groups*s.KH*s.KW)
		q := make([]int8, len(w))
		b.Run(bs.name, func(b *testing.B) {
			b.SetBytes(int64(4 * len(w)))
			for i := 0; i < b.N; i++ {
				if _, err := NewConvF32(s, w, Epilogue{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bs.name+"/i8", func(b *testing.B) {
			b.SetBytes(int64(len(w)))
			for i := 0; i < b.N; i++ {
				if _, err := NewConvI8(ConvI8Config{Shape: s, Weights: q, WScale: []float32{1}, In: QParams{Scale: 1}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkActivate measures activations over 8192 values, 64 KB in and out.
func BenchmarkActivate(b *testing.B) {
	ctx := NewCtx(nil)
	x := randF32(rand.New(rand.NewPCG(1, 1)), flatGrain/2)
	y := make([]float32, len(x))
	for _, a := range []struct {
		name string
		act  Activation
	}{{"relu", Relu()}, {"hardswish", Act(ActHardSwish)}, {"sigmoid", Act(ActSigmoid)}, {"silu", Act(ActSilu)}, {"tanh", Act(ActTanh)}, {"gelu", Act(ActGelu)}} {
		b.Run(a.name, func(b *testing.B) {
			best := time.Hour
			for i := 0; i < b.N; i++ {
				t := time.Now()
				Activate(ctx, a.act, y, x)
				best = min(best, time.Since(t))
			}
			b.ReportMetric(float64(best.Nanoseconds())/float64(len(x)/Block), "ns/vector-best")
		})
	}
}
