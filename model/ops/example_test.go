package ops_test

import (
	"context"
	"fmt"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// Infer the shapes of a graph and run it.
func Example() {
	x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{2, 3}}
	w := model.NewConst(model.Of([]float32{1, 0, 0, 1, 1, 1}, 3, 2))
	n := &model.Node{Name: "product", Op: "MatMul", Inputs: []*model.Value{x, {Name: "w", DType: w.DType, Shape: w.Shape, Const: w}}}
	y := &model.Value{Name: "y", Producer: n}
	n.Outputs = []*model.Value{y}
	g := &model.Graph{Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n}}

	if err := ops.InferGraph(g); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(y, ops.MACs(n), "multiply-adds")

	out, err := ops.EvalGraph(context.Background(), g, map[string]*model.Tensor{
		"x": model.Of([]float32{1, 2, 3, 4, 5, 6}, 2, 3),
	}, ops.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(out["y"].Float32s())
	// Output:
	// y:fp32[2,2] 12 multiply-adds
	// [4 5 10 11]
}
