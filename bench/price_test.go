package bench

import (
	"testing"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units/machine"
)

// BenchmarkPlace prices a network on three units and places it exactly, warm:
// go test ./bench -run '^$' -bench Place -benchmem
func BenchmarkPlace(b *testing.B) {
	d, err := device.Load(phonePro)
	if err != nil {
		b.Fatal(err)
	}
	m, err := machine.New(d)
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"resnet50", "mobilenet_v2", "mobilevit_v2"} {
		for _, scheme := range []string{"fp16", "w8a8"} {
			c, err := newTrial().compile(name, scheme)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(name+"/"+scheme, func(b *testing.B) {
				var s scheduler.Solver
				var plan scheduler.Plan
				b.ReportAllocs()
				for b.Loop() {
					if err := s.SolveInto(c.Net, m, &scheduler.Options{}, &plan); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
