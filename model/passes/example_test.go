package passes_test

import (
	"fmt"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
)

// The batch norms of an exported network fold into its convolutions, and what
// is left lowers into one layer for each of them.
func ExampleDefault() {
	g, err := zoo.Build("resnet50")
	if err != nil {
		fmt.Println(err)
		return
	}
	before := len(g.Nodes)
	if err := passes.Default(g); err != nil {
		fmt.Println(err)
		return
	}
	net, err := model.Lower(g)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(before, "operators,", len(g.Nodes), "after the passes,", len(net.Layers), "layers")
	// Output: 175 operators, 122 after the passes, 57 layers
}
