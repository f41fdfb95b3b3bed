package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/units"
)

// Options say how a network is compiled.
type Options struct {
	// Units is the unit of each layer of the network; nil means the CPU for
	// all of them.
	Units []units.Kind
	// Numerics is the arithmetic of the units. The zero Set computes
	// everything in fp32.
	Numerics Set
	// Pool is the worker pool; nil computes on the caller's goroutine.
	Pool *kernels.Pool
	// Watch compiles a program for [Program.Watch], which shows the tensors
	// that leave each layer. It costs layout changes.
	Watch bool
	// Force, with Watch, lets the function that tensors are shown to change
	// them: later layers read what it leaves, rounded or quantized as the
	// value is held. With the values of a reference, every layer computes on
	// exact inputs and shows the error that is its own.
	Force bool

	drop bool // do not collect the outputs
}

// Program is a compiled network. It is immutable after [Compile] and may be
// run by any number of goroutines at once; each running call holds an arena of
// its own, kept for the next call.
type Program struct {
	net     *model.Network
	pool    *kernels.Pool
	steps   []step
	outs    []output
	inputs  []*model.Value
	arena   int // bytes
	scratch int // bytes of kernel scratch per worker
	objects int
	weights int64
	refs    []int // layers with a node that has no kernel

	mu     sync.Mutex
	free   []*state
	closed bool
}

// step is one kernel call (or one reference evaluation) of a layer.
type step struct {
	layer int // -1: layout of graph outputs
	run   func(*state) error
}

// output is how a graph output leaves a call.
type output struct {
	value *model.Value
	t     *ten
	fixed *model.Tensor // constant outputs
}

// state is the memory of one running call.
type state struct {
	ctx     context.Context
	k       *kernels.Ctx
	arena   []byte
	base    unsafe.Pointer
	inF     [][]float32
	move    moveTask
	flat    flatTask
	workers []*worker
	objects []ops.Datum
	layerNS []int64
	see     func(v *model.Value, t *model.Tensor) error
}

// ErrClosed is returned by calls on a program that was closed.
var ErrClosed = errors.New("exec: the program is closed")

// ArenaBytes returns the size of the activation arena of one call.
func (p *Program) ArenaBytes() int64 { return int64(p.arena) }

// WeightBytes returns the bytes of packed weights the program holds.
func (p *Program) WeightBytes() int64 { return p.weights }

// Reference returns the layers (indices, ascending) with an operator that has no
// kernel and runs through the reference evaluation: right, but slow.
func (p *Program) Reference() []int { return slices.Clone(p.refs) }

// Steps returns the number of kernel calls of one inference.
func (p *Program) Steps() int { return len(p.steps) }

func (p *Program) acquire() (*state, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if n := len(p.free); n > 0 {
		s := p.free[n-1]
		p.free = p.free[:n-1]
		return s, nil
	}
	s := &state{
		k:       kernels.NewCtx(p.pool),
		inF:     make([][]float32, len(p.inputs)),
		objects: make([]ops.Datum, p.objects),
		layerNS: make([]int64, len(p.net.Layers)),
	}
	s.k.Reserve(p.scratch)
	for range s.k.Threads() {
		s.workers = append(s.workers, &worker{k: kernels.NewCtx(nil)})
	}
	raw := make([]byte, p.arena+arenaAlign)
	skip := int(-uintptr(unsafe.Pointer(&raw[0])) & (arenaAlign - 1))
	s.arena = raw[skip : skip+p.arena : skip+p.arena]
	s.base = unsafe.Pointer(&raw[skip])
	return s, nil
}

func (p *Program) release(s *state) {
	s.ctx, s.see = nil, nil
	clear(s.inF)
	clear(s.objects)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.free = append(p.free, s)
	}
}

// Close drops the weights and arenas. Calls that are running finish; later
// ones return [ErrClosed].
func (p *Program) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.free = nil
	p.steps = nil
	p.outs = nil
}

// Profile is where the host time of one call went.
type Profile struct {
	// LayerNS is the time of every layer in nanoseconds; layout changes are
	// counted to the layer that asked for them.
	LayerNS []int64
}

// Run executes the program. inputs are in the order of the graph's inputs and
// must have the shapes and types the graph declares (fp32 is accepted for
// fp16). It returns the outputs in the graph's order. A context that is done
// stops the call before its next layer.
func (p *Program) Run(ctx context.Context, inputs []*model.Tensor, prof *Profile) ([]*model.Tensor, error) {
	return p.run(ctx, inputs, prof, nil)
}

// Watch is [Program.Run] on a program compiled with [Options.Watch]: see is
// called with every float tensor that leaves a layer, right after the layer, as
// fp32 in row-major order; 8-bit codes are shown dequantized. The tensor is
// only valid during the call. An error of see ends the run.
func (p *Program) Watch(ctx context.Context, inputs []*model.Tensor, see func(v *model.Value, t *model.Tensor) error) ([]*model.Tensor, error) {
	return p.run(ctx, inputs, nil, see)
}

func (p *Program) run(ctx context.Context, inputs []*model.Tensor, prof *Profile, see func(*model.Value, *model.Tensor) error) ([]*model.Tensor, error) {
	if len(inputs) != len(p.inputs) {
		return nil, fmt.Errorf("exec: %d inputs given, the network has %d", len(inputs), len(p.inputs))
	}
	for i, v := range p.inputs {
		if err := CheckInput(v, inputs[i]); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	steps, outs := p.steps, p.outs
	p.mu.Unlock()
	s, err := p.acquire()
	if err != nil {
		return nil, err
	}
	defer p.release(s)
	s.ctx, s.see = ctx, see
	for i, v := range p.inputs {
		if v.DType.IsFloat() {
			s.inF[i] = inputs[i].Float32s()
		} else {
			s.objects[i] = ops.TensorDatum(inputs[i]) // inputs own the first slots
		}
	}
	if prof != nil {
		clear(s.layerNS)
	}
	last := -2
	for i := range steps {
		st := &steps[i]
		if st.layer != last {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("exec: stopped before layer %d of %d: %w", max(st.layer, 0), len(p.net.Layers), context.Cause(ctx))
			}
			last = st.layer
		}
		if prof == nil {
			if err := st.run(s); err != nil {
				return nil, p.layerError(st.layer, err)
			}
			continue
		}
		t0 := time.Now()
		err := st.run(s)
		if st.layer >= 0 {
			s.layerNS[st.layer] += time.Since(t0).Nanoseconds()
		}
		if err != nil {
			return nil, p.layerError(st.layer, err)
		}
	}
	if prof != nil {
		prof.LayerNS = append(prof.LayerNS[:0], s.layerNS...)
	}
	res := make([]*model.Tensor, len(outs))
	for i, o := range outs {
		res[i] = o.collect(s)
	}
	return res, nil
}

func (p *Program) layerError(layer int, err error) error {
	if layer < 0 || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("exec: %w", err)
	}
	l := p.net.Layers[layer]
	return fmt.Errorf("exec: layer %q (%s): %w", l.Name, l.Op, err)
}

// collect copies an output out of the arena in the type the graph declares.
func (o *output) collect(s *state) *model.Tensor {
	if o.fixed != nil {
		return o.fixed.Clone()
	}
	t := o.t
	if t.from == inObject && !t.codes {
		src := s.objects[t.slot].Tensor
		if src.DType == o.value.DType || !o.value.DType.IsFloat() {
			return src.Clone()
		}
		return src.Convert(o.value.DType)
	}
	if t.codes {
		d := model.UInt8
		if t.q.Signed {
			d = model.Int8
		}
		out := model.NewTensor(d, o.value.Shape...)
		copy(out.Data, s.u8(t))
		return out
	}
	src := s.f32(t)
	switch o.value.DType {
	case model.Float16:
		out := model.NewTensor(model.Float16, o.value.Shape...)
		kernels.F32ToF16(s.k, model.View[uint16](out), src[:out.Len()])
		return out
	case model.Float32:
		out := model.NewTensor(model.Float32, o.value.Shape...)
		copy(model.View[float32](out), src)
		return out
	}
	return model.Of(append([]float32(nil), src[:elems(o.value.Shape)]...), o.value.Shape...).Convert(o.value.DType)
}

// CheckInput reports in one line what is wrong with a tensor given for a graph
// input, or nil: a missing tensor, another type (fp32 is accepted for any
// float type), another shape, or data that do not fill the shape.
func CheckInput(v *model.Value, t *model.Tensor) error {
	switch {
	case t == nil:
		return fmt.Errorf("exec: input %q is missing, want %s%v", v.Name, v.DType, v.Shape)
	case !t.Shape.Equal(v.Shape):
		return fmt.Errorf("exec: input %q has shape %v, want %v", v.Name, t.Shape, v.Shape)
	case v.DType.IsFloat() && t.DType != v.DType && t.DType != model.Float32 && t.DType != model.Float16 && t.DType != model.Float64,
		!v.DType.IsFloat() && t.DType != v.DType:
		return fmt.Errorf("exec: input %q has type %s, want %s", v.Name, t.DType, v.DType)
	case t.DType == model.String && len(t.Strings) != t.Len(),
		t.DType != model.String && int64(len(t.Data)) != t.DType.Bytes(t.Shape.Elems()):
		return fmt.Errorf("exec: input %q has %d bytes of data, shape %v of %s needs %d", v.Name, len(t.Data), t.Shape, t.DType, t.DType.Bytes(t.Shape.Elems()))
	}
	return nil
}
