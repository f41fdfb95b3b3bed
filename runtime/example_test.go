package runtime_test

import (
	"context"
	"fmt"
	"log"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units"
)

// Predict what a built-in network costs on a phone. No weight is computed.
func ExampleOpen_predict() {
	s, err := runtime.Open("mobilenet_v2",
		runtime.WithDevice("iphone-14-pro"),
		runtime.WithScheme("w8a8"),
		runtime.WithUnits(units.CPUAndNE))
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	p := s.Predict()
	fmt.Println(p.Model, "on", p.Device, "as", p.Scheme)
	fmt.Println("faster than 1 ms:", p.LatencyMS < 1)
	fmt.Println("all on the Neural Engine:", len(p.Units) == 1 && p.Units[0].Unit == "NE")
	// Output:
	// mobilenet_v2 on iphone-14-pro as w8a8
	// faster than 1 ms: true
	// all on the Neural Engine: true
}

// Run a network with the arithmetic of the units its layers were placed on.
func ExampleSession_Run() {
	s, err := runtime.Open("mobilenet_v2@64", runtime.WithUnits(units.CPUAndNE))
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	image := model.NewTensor(model.Float32, 1, 3, 64, 64) // pixels go here
	r, err := s.Run(context.Background(), map[string]*model.Tensor{"image": image})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Outputs["logits"].DType, r.Outputs["logits"].Shape)
	fmt.Println("the report is the prediction:", r.Report == s.Predict())
	// Output:
	// fp16 [1,1000]
	// the report is the prediction: true
}

// Compare schemes and units: one loop over options, which are plain values.
func ExampleOpenGraph_compare() {
	ne := runtime.WithUnits(units.CPUAndNE)
	cpu := runtime.WithUnits(units.CPUOnly)
	for _, scheme := range []string{"fp16", "w8a8"} {
		var ms [2]float64
		for i, mask := range []runtime.Option{ne, cpu} {
			s, err := runtime.Open("resnet50", runtime.WithDevice("iphone-15-pro"), runtime.WithScheme(scheme), mask)
			if err != nil {
				log.Fatal(err)
			}
			ms[i] = s.Predict().LatencyMS
			s.Close()
		}
		fmt.Printf("%s: the Neural Engine is faster than the CPU: %v\n", scheme, ms[0] < ms[1])
	}
	// Output:
	// fp16: the Neural Engine is faster than the CPU: true
	// w8a8: the Neural Engine is faster than the CPU: true
}
