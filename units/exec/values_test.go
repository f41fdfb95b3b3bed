package exec_test

import (
	"context"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/units/exec"
)

// Every float tensor of a graph is shown, with the value the reference gives.
func TestValues(t *testing.T) {
	g, err := zoo.Build("mobilenet_v2@32")
	if err != nil {
		t.Fatal(err)
	}
	in := randomInputs(g, 3)
	want := map[*model.Value]*model.Tensor{}
	if _, err := ops.EvalGraph(context.Background(), g, in, ops.Options{Hook: func(n *model.Node, out []*model.Tensor) error {
		for i, o := range out {
			want[n.Out(i)] = o
		}
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	v, err := exec.NewValues(g, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	seen := 0
	if err := v.Run(context.Background(), in, func(x *model.Value, got *model.Tensor) error {
		if w := want[x]; w != nil {
			seen++
			if e := relError(got, w); e > 1e-5 {
				t.Errorf("%s: relative error %.3g", x.Name, e)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if seen != len(want) {
		t.Errorf("%d tensors shown, the graph computes %d", seen, len(want))
	}
}
