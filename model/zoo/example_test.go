package zoo_test

import (
	"fmt"

	"github.com/triune-sim/triune/model/zoo"
)

// A network by the name a paper gives it, at another input size. Nothing is
// computed until a weight is asked for.
func ExampleBuild() {
	g, err := zoo.Build("MobileNetV2-1.0@160")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(g.Name, g.Inputs[0], g.Params(), "parameters")
	// Output: mobilenet_v2@160 image:fp32[1,3,160,160] 3504872 parameters
}

// A name that is not there is answered with those that are near.
func ExampleBuild_unknown() {
	_, err := zoo.Build("efficientnet_b9")
	fmt.Println(err)
	// Output: zoo: unknown network "efficientnet_b9" (did you mean efficientnet_b0, efficientnet_b1, efficientnet_b2, efficientnet_b3?)
}
