package ops

import (
	"context"
	"testing"

	"github.com/triune-sim/triune/model"
)

// TestMaxRoiPool pools regions of the ramp 0 to 15 by hand: its quarters, one
// pixel, and a region that lies outside.
func TestMaxRoiPool(t *testing.T) {
	x := model.NewTensor(model.Float32, 1, 1, 4, 4)
	for i := range x.Len() {
		x.Set(i, float64(i))
	}
	rois := model.Of([]float32{0, 0, 0, 3, 3, 0, 1, 1, 1, 1, 0, 9, 9, 12, 12}, 3, 5)
	in := func(v *model.Tensor) *model.Value { return &model.Value{DType: v.DType, Shape: v.Shape} }
	n := &model.Node{Name: "pool", Op: "MaxRoiPool", Inputs: []*model.Value{in(x), in(rois)}, Attrs: model.Attrs{"pooled_shape": []int{2, 2}}}
	n.Outputs = []*model.Value{{Name: "y", Producer: n}}
	if err := InferNode(n); err != nil {
		t.Fatal(err)
	}
	out, err := EvalNode(context.Background(), n, []*model.Tensor{x, rois}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []float32{5, 7, 13, 15, 5, 5, 5, 5, 0, 0, 0, 0}
	if !out[0].Shape.Equal(n.Outputs[0].Shape) || !out[0].Shape.Equal(model.Shape{3, 1, 2, 2}) {
		t.Fatalf("shape %v, inferred %v", out[0].Shape, n.Outputs[0].Shape)
	}
	for i, v := range out[0].Float32s() {
		if v != want[i] {
			t.Errorf("element %d is %v, want %v", i, v, want[i])
		}
	}
}
