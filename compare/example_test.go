package compare_test

import (
	"context"
	"fmt"
	"log"

	"github.com/triune-sim/triune/compare"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units"
)

// What 4-bit weights do to a network, and which layer is worst.
func ExampleSessions() {
	ref, err := runtime.Open("mobilenet_v2@64", runtime.WithScheme("fp32"), runtime.WithUnits(units.CPUOnly))
	if err != nil {
		log.Fatal(err)
	}
	defer ref.Close()
	test, err := runtime.Open("mobilenet_v2@64", runtime.WithScheme("w4"), runtime.WithUnits(units.CPUOnly))
	if err != nil {
		log.Fatal(err)
	}
	defer test.Close()
	in := ref.Inputs()[0]
	x := model.NewTensor(model.Float32, in.Shape...)
	for i := range x.Len() {
		x.Set(i, float64(i%17)/8-1)
	}
	samples := compare.Slice{{in.Name: x}}
	r, err := compare.Sessions(context.Background(), ref, test, samples, compare.Options{Layers: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Outputs[0].Name, "differs:", !r.Outputs[0].SNR.Exact())
	fmt.Println("worst layer first:", r.Layers[0].OwnNoise >= r.Layers[1].OwnNoise)
	// Output:
	// logits differs: true
	// worst layer first: true
}
