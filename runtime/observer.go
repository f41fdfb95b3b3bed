package runtime

import (
	"context"
	"sync"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units/exec"
)

// Observer runs a graph in fp32 on the host kernels and shows every tensor: a
// fast [quant.Executor] for calibration over many samples. It packs the weights
// once per graph. Its zero value uses all processors; Close frees the weights.
type Observer struct {
	Threads int

	mu   sync.Mutex
	g    *model.Graph
	pool *kernels.Pool
	vals *exec.Values
}

// Observe runs g on inputs and calls see with every float tensor.
func (o *Observer) Observe(ctx context.Context, g *model.Graph, inputs map[string]*model.Tensor, see func(*model.Value, *model.Tensor)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.g != g {
		o.close()
		o.pool = kernels.NewPool(o.Threads)
		v, err := exec.NewValues(g, o.pool)
		if err != nil {
			o.pool.Close()
			o.pool = nil
			return err
		}
		o.g, o.vals = g, v
	}
	return o.vals.Run(ctx, inputs, func(v *model.Value, t *model.Tensor) error {
		see(v, t)
		return nil
	})
}

func (o *Observer) close() {
	if o.vals != nil {
		o.vals.Close()
		o.pool.Close()
	}
	o.g, o.vals, o.pool = nil, nil, nil
}

// Close frees what the observer holds.
func (o *Observer) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.close()
}
