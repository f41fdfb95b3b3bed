package kernels

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// chain is the convolutions of a network, each with weights of its own, so that
// weights come from memory as they do in a run.
type chain struct {
	f32  []*ConvF32
	i8   []*ConvI8
	macs float64
}

func newChain(b *testing.B, shapes []ConvShape, int8s bool) *chain {
	r := rand.New(rand.NewPCG(1, 1))
	c := &chain{}
	for _, s := range shapes {
		n := s.OutC * s.InC / max(1, s.Groups) * s.KH * s.KW
		c.macs += float64(s.MACs())
		var err error
		if int8s {
			w := make([]int8, n)
			for i := range w {
				w[i] = int8(r.Uint32())
			}
			var k *ConvI8
			k, err = NewConvI8(ConvI8Config{Shape: s, Weights: w, WScale: []float32{0.01}, In: QParams{Scale: 0.1, Zero: 100}, Out: QParams{Scale: 9, Zero: 3}, Epilogue: Epilogue{Act: Relu()}})
			c.i8 = append(c.i8, k)
		} else {
			var k *ConvF32
			k, err = NewConvF32(s, randF32(r, n), Epilogue{Act: Clip(0, 1)})
			c.f32 = append(c.f32, k)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return c
}

// resNet50 lists the convolutions of ResNet50 v1.5 at 224 x 224.
func resNet50() []ConvShape {
	ss := []ConvShape{cs(3, 64, 224, 7, 2, 1)}
	in, hw := 64, 56
	for stage, n := range []int{3, 4, 6, 3} {
		mid := 64 << stage
		for i := 0; i < n; i++ {
			stride := 1
			if i == 0 && stage > 0 {
				stride = 2
			}
			ss = append(ss, cs(in, mid, hw, 1, 1, 1), cs(mid, mid, hw, 3, stride, 1))
			if i == 0 {
				ss = append(ss, cs(in, 4*mid, hw, 1, stride, 1))
			}
			hw /= stride
			ss = append(ss, cs(mid, 4*mid, hw, 1, 1, 1))
			in = 4 * mid
		}
	}
	return ss
}

// mobileNetV2 lists the convolutions of MobileNetV2 at 224 x 224.
func mobileNetV2() []ConvShape {
	ss := []ConvShape{cs(3, 32, 224, 3, 2, 1)}
	in, hw := 32, 112
	for _, b := range [][4]int{{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}} {
		for i := 0; i < b[2]; i++ {
			stride, mid := 1, in*b[0]
			if i == 0 {
				stride = b[3]
			}
			if b[0] != 1 {
				ss = append(ss, cs(in, mid, hw, 1, 1, 1))
			}
			ss = append(ss, cs(mid, mid, hw, 3, stride, mid))
			hw /= stride
			ss = append(ss, cs(mid, b[1], hw, 1, 1, 1))
			in = b[1]
		}
	}
	return append(ss, cs(in, 1280, hw, 1, 1, 1))
}

// BenchmarkChain runs all convolutions of a network one after the other, and
// gives the median of the whole and the sum of the best time of each layer: the
// latter is what the kernels take when nothing else runs.
func BenchmarkChain(b *testing.B) {
	for _, n := range []struct {
		name   string
		shapes []ConvShape
	}{{"resnet50", resNet50()}, {"mobilenet_v2", mobileNetV2()}} {
		for _, int8s := range []bool{false, true} {
			name, peak := n.name+"/f32", PeakF32()
			if int8s {
				name, peak = n.name+"/int8", PeakI8()
			}
			var size int
			for _, s := range n.shapes {
				size = max(size, s.SrcLen(1), s.DstLen(1))
			}
			c := newChain(b, n.shapes, int8s)
			ctx := NewCtx(nil)
			var f [2][]float32
			var q [2][]uint8
			for i := range f {
				f[i], q[i] = make([]float32, size), make([]uint8, size)
				for j := range f[i] {
					f[i][j] = float32(j%17) / 17
				}
			}
			b.Run(name, func(b *testing.B) {
				best := slices.Repeat([]float64{math.Inf(1)}, len(n.shapes))
				wall := make([]float64, 0, b.N)
				for i := 0; i < b.N; i++ {
					start := time.Now()
					for k := range n.shapes {
						t := time.Now()
						if int8s {
							c.i8[k].RunQ8(ctx, q[(k+1)%2], q[k%2], Residual{}, 1)
						} else {
							c.f32[k].Run(ctx, f[(k+1)%2], f[k%2], nil, 1)
						}
						best[k] = min(best[k], time.Since(t).Seconds()*1e3)
					}
					wall = append(wall, time.Since(start).Seconds()*1e3)
				}
				slices.Sort(wall)
				var sum float64
				for _, t := range best {
					sum += t
				}
				b.ReportMetric(wall[len(wall)/2], "ms")
				b.ReportMetric(sum, "ms-best")
				b.ReportMetric(100*2*c.macs/(sum*1e6)/peak, "%peak-best")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
