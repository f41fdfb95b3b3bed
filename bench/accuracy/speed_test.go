package accuracy

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units"
)

// BenchmarkW8A8 runs MobileNetV2 in W8A8 on images and compares the whole time
// with that of its int8 kernels alone, which the same runs' profile gives: the
// layers that multiply codes. A run over thousands of images should cost at most 1.5
// times its kernels. Measured over 10,000 on a loaded machine of two cores: 1.11
// times (3.73 ms an image, 3.35 of them in int8 kernels), by
//
//	go test -run - -bench W8A8 -benchtime 10000x ./bench/accuracy
func BenchmarkW8A8(b *testing.B) {
	s, err := runtime.Open("mobilenet_v2", runtime.WithScheme("w8a8"), runtime.WithUnits(units.CPUAndNE), runtime.WithThreads(1), runtime.WithProfile())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	in := s.Inputs()[0]
	r := rand.New(rand.NewPCG(1, 1))
	pixels := make([]float32, in.Shape.Elems()+4096)
	for i := range pixels {
		pixels[i] = float32(r.NormFloat64())
	}
	image := func(i int) map[string]*model.Tensor {
		x := model.NewTensor(model.Float32, in.Shape...)
		copy(model.View[float32](x), pixels[i%4096:])
		return map[string]*model.Tensor{in.Name: x}
	}
	net := s.Compiled().Net
	if _, err := s.Run(context.Background(), image(0)); err != nil {
		b.Fatal(err)
	}
	var kernels time.Duration
	n := 0
	for b.Loop() {
		res, err := s.Run(context.Background(), image(n))
		if err != nil {
			b.Fatal(err)
		}
		n++
		for k, l := range res.Profile {
			switch net.Layers[k].Kind {
			case model.KindConv, model.KindDepthwise, model.KindLinear:
				if l.Unit == units.NE {
					kernels += time.Duration(l.MS * float64(time.Millisecond))
				}
			}
		}
	}
	b.ReportMetric(kernels.Seconds()*1e3/float64(n), "kernel-ms/op")
	b.ReportMetric(b.Elapsed().Seconds()/kernels.Seconds(), "ratio")
}
