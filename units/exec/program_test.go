package exec_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/exec"
)

func zooNet(t testing.TB, name string) *model.Network {
	t.Helper()
	g, err := zoo.Build(name)
	if err != nil {
		t.Fatal(err)
	}
	return lower(t, g)
}

func compileOn(t testing.TB, net *model.Network, k units.Kind, pool *kernels.Pool) *exec.Program {
	t.Helper()
	o := on(net, k)
	o.Pool = pool
	p, err := exec.Compile(net, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func args(net *model.Network, in map[string]*model.Tensor) []*model.Tensor {
	var a []*model.Tensor
	for _, v := range net.Graph.Inputs {
		a = append(a, in[v.Name])
	}
	return a
}

// Results are the same bits on any number of threads.
func TestThreadsDoNotMatter(t *testing.T) {
	for _, name := range []string{"mobilenet_v2@64", "mobilevit_v2@64"} {
		net := zooNet(t, name)
		in := args(net, randomInputs(net.Graph, 3))
		var want []byte
		for _, threads := range []int{1, 2, 3} {
			pool := kernels.NewPool(threads)
			p := compileOn(t, net, units.NE, pool)
			out, err := p.Run(context.Background(), in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = out[0].Data
			} else if !bytes.Equal(want, out[0].Data) {
				t.Errorf("%s: %d threads give other bits than one", name, threads)
			}
			pool.Close()
		}
	}
}

// Any number of goroutines may run one program; each gets the same result.
func TestConcurrentRuns(t *testing.T) {
	pool := kernels.NewPool(2)
	defer pool.Close()
	net := zooNet(t, "mobilenet_v2@32")
	p := compileOn(t, net, units.NE, pool)
	in := args(net, randomInputs(net.Graph, 3))
	want, err := p.Run(context.Background(), in, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 3 {
				got, err := p.Run(context.Background(), in, &exec.Profile{})
				if err != nil || !bytes.Equal(got[0].Data, want[0].Data) {
					t.Errorf("a concurrent run differs (%v)", err)
				}
			}
		})
	}
	wg.Wait()
}

// An inference allocates its outputs and nothing else.
func TestSteadyStateAllocations(t *testing.T) {
	for _, c := range []struct {
		name string
		unit units.Kind
	}{{"mobilenet_v2@32", units.CPU}, {"resnet18@32", units.NE}, {"mobilevit_v2@64", units.GPU}} {
		name, net := c.name, zooNet(t, c.name)
		p := compileOn(t, net, c.unit, nil)
		in := args(net, randomInputs(net.Graph, 3))
		ctx := context.Background()
		got := testing.AllocsPerRun(3, func() {
			if _, err := p.Run(ctx, in, nil); err != nil {
				t.Fatal(err)
			}
		})
		// The list of outputs, and for each the tensor, its shape and its data.
		if want := float64(1 + 3*len(net.Graph.Outputs)); got > want {
			t.Errorf("%s: %v allocations per inference, want at most %v", name, got, want)
		}
	}
}

// The arena is far smaller than all activations together.
func TestArenaIsReused(t *testing.T) {
	net := zooNet(t, "mobilenet_v2@64")
	p := compileOn(t, net, units.CPU, nil)
	var all int64
	for _, e := range net.Edges {
		all += 4 * e.Elems
	}
	if p.ArenaBytes() > all/3 {
		t.Errorf("the arena takes %d bytes, all tensors together %d", p.ArenaBytes(), all)
	}
}

// doneAfter is a context that is done after a number of looks at it.
type doneAfter struct {
	context.Context
	left int
}

func (c *doneAfter) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// A context that is done stops the run before its next layer.
func TestCancel(t *testing.T) {
	net := zooNet(t, "mobilenet_v2@32")
	p := compileOn(t, net, units.CPU, nil)
	in := args(net, randomInputs(net.Graph, 3))
	for _, layers := range []int{0, 1, 20} {
		c := &doneAfter{context.Background(), layers}
		if _, err := p.Run(c, in, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d layers: error %v", layers, err)
		}
		if c.left < -2 { // the look that ends the run, and one for the cause
			t.Errorf("the run went on for %d layers", -1-c.left)
		}
	}
	if _, err := p.Run(context.Background(), in, nil); err != nil {
		t.Errorf("after a cancelled run: %v", err)
	}
}

func TestWrongInputs(t *testing.T) {
	m := newMaker(t, 1)
	x := m.input(model.Float32, 1, 4)
	i := m.input(model.Int64, 2)
	g := m.done(m.op("Relu", nil, x), m.op("Add", nil, i, i))
	p, err := exec.Compile(lower(t, g), exec.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ok, ints := model.NewTensor(model.Float32, 1, 4), model.NewTensor(model.Int64, 2)
	short := model.NewTensor(model.Float32, 1, 4)
	short.Data = short.Data[:8]
	for _, c := range []struct {
		in   []*model.Tensor
		want string
	}{
		{[]*model.Tensor{ok}, "1 inputs given, the network has 2"},
		{[]*model.Tensor{nil, ints}, `input "in1" is missing, want fp32[1,4]`},
		{[]*model.Tensor{model.NewTensor(model.Float32, 4), ints}, `input "in1" has shape [4], want [1,4]`},
		{[]*model.Tensor{model.NewTensor(model.Int32, 1, 4), ints}, `input "in1" has type int32, want fp32`},
		{[]*model.Tensor{ok, model.NewTensor(model.Int32, 2)}, `input "in2" has type int32, want int64`},
		{[]*model.Tensor{short, ints}, `has 8 bytes of data`},
	} {
		if _, err := p.Run(context.Background(), c.in, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
	for _, d := range []model.DType{model.Float16, model.Float64} {
		if _, err := p.Run(context.Background(), []*model.Tensor{model.NewTensor(d, 1, 4), ints}, nil); err != nil {
			t.Errorf("%s for a float input: %v", d, err)
		}
	}
	p.Close()
	if _, err := p.Run(context.Background(), []*model.Tensor{ok, ints}, nil); !errors.Is(err, exec.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A shape that no host can hold is refused when it is compiled, in one line.
func TestTooLarge(t *testing.T) {
	for _, shape := range [][]int{{1 << 20, 1 << 14}, {1 << 31}} {
		m := newMaker(t, 1)
		x := m.input(model.Float32, 4)
		big := m.op("Expand", nil, m.op("Reshape", nil, x, m.ints(4)), m.ints(append(sizes(shape), 4)...))
		g := m.done(m.op("ReduceSum", nil, m.op("Relu", nil, big)))
		net, err := model.Lower(g)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := exec.Compile(net, exec.Options{}); err == nil || !strings.Contains(err.Error(), "at most") {
			t.Errorf("shape %v: error %v", shape, err)
		}
	}
}

func sizes(s []int) (out []int64) {
	for _, d := range s {
		out = append(out, int64(d))
	}
	return out
}
