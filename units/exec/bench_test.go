package exec_test

import (
	"context"
	"testing"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/units"
)

// BenchmarkRun times one inference on one thread and reports GFLOP/s (two per
// multiply-add).
func BenchmarkRun(b *testing.B) {
	for _, c := range []struct {
		model string
		unit  units.Kind
	}{
		{"resnet50", units.CPU}, {"resnet50", units.NE}, {"mobilenet_v2", units.CPU}, {"mobilenet_v2", units.NE}, {"mobilevit_v2", units.CPU},
	} {
		b.Run(c.model+"/"+c.unit.String(), func(b *testing.B) {
			net := zooNet(b, c.model)
			p := compileOn(b, net, c.unit, kernels.NewPool(1))
			in := args(net, randomInputs(net.Graph, 3))
			var macs int64
			for _, l := range net.Layers {
				macs += l.MACs
			}
			for b.Loop() {
				if _, err := p.Run(context.Background(), in, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(2*float64(macs)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
