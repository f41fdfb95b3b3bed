package exec

import (
	"context"
	"fmt"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

// Values runs a graph in fp32 on named inputs and shows every float tensor of
// known shape to see, graph inputs included: what calibration of activation
// ranges needs. It is far faster than the reference evaluation. The tensors are
// only valid during the call of see. The graph is not changed.
type Values struct {
	prog   *Program
	inputs []*model.Value                // of the caller's graph
	values map[*model.Value]*model.Value // compiled value -> the caller's
}

// NewValues compiles a graph for [Values.Run]; pool may be nil.
func NewValues(g *model.Graph, pool *kernels.Pool) (*Values, error) {
	v := &Values{inputs: g.Inputs, values: map[*model.Value]*model.Value{}}
	c := g.Clone()
	// Every tensor is an output of the clone, so that no layer absorbs it.
	c.Outputs = nil
	for i, n := range g.Nodes {
		for k, o := range n.Outputs {
			if isFloat(o) && o.Shape.Known() {
				v.values[c.Nodes[i].Outputs[k]] = o
				c.Outputs = append(c.Outputs, c.Nodes[i].Outputs[k])
			}
		}
	}
	net, err := model.Lower(c)
	if err != nil {
		return nil, err
	}
	v.prog, err = Compile(net, Options{Pool: pool, Watch: true, drop: true})
	return v, err
}

// Run executes the graph once and calls see for each tensor, in graph order.
func (v *Values) Run(ctx context.Context, inputs map[string]*model.Tensor, see func(v *model.Value, t *model.Tensor) error) error {
	args := make([]*model.Tensor, len(v.inputs))
	for i, in := range v.inputs {
		if args[i] = inputs[in.Name]; args[i] == nil {
			return fmt.Errorf("exec: input %q is missing, want %s%v", in.Name, in.DType, in.Shape)
		}
		if isFloat(in) {
			if err := see(in, args[i]); err != nil {
				return err
			}
		}
	}
	_, err := v.prog.Watch(ctx, args, func(x *model.Value, t *model.Tensor) error {
		if mine := v.values[x]; mine != nil {
			return see(mine, t)
		}
		return nil
	})
	return err
}

// Close drops the weights.
func (v *Values) Close() { v.prog.Close() }
