package compare

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units/exec"
)

// Layer is one layer's output beside the same tensor in the reference.
type Layer struct {
	Name string `json:"name"`
	Op   string `json:"op"`
	Unit string `json:"unit"`
	// Tensor is the value compared: what leaves the layer, dequantized where
	// the layer writes 8-bit codes.
	Tensor string `json:"tensor"`
	Metrics
	// OwnSNR is the SNR that the layer alone would leave: its output when its
	// inputs are the reference's, rounded or quantized as they are held.
	OwnSNR DB `json:"own_snr_db"`
	// OwnNoise is the noise of that output relative to the signal. It is null
	// where the output is not finite, or not zero where it should be.
	OwnNoise Ratio `json:"own_noise"`
}

// Ratio is a non-negative number; +Inf is null in JSON.
type Ratio float64

// MarshalJSON writes a number, or null where there is no finite one.
func (r Ratio) MarshalJSON() ([]byte, error) { return DB(r).MarshalJSON() }

// watcher runs both networks and compares what leaves each layer.
type watcher struct {
	ref, test, own  *exec.Program
	net             *model.Network
	units           []string
	refIn, testIn   []*model.Value
	refOut, testOut []*model.Value
	slot            map[*model.Value]int // reference value -> index of the tensor kept
	sizes           []int
	edges           []watched
	byValue         map[*model.Value]int // tested value -> index into edges
	buffers         sync.Pool
}

// kept holds the reference's tensors of one sample.
type kept struct{ tensors [][]float32 }

// watched is an output of a layer of the tested network that the reference has too.
type watched struct {
	layer int
	name  string
	slot  int
}

func newWatcher(ref, test *runtime.Session) (*watcher, error) {
	rc, tc, plan := ref.Compiled(), test.Compiled(), test.Plan()
	if rc == nil || tc == nil || plan == nil {
		return nil, runtime.ErrClosed
	}
	w := &watcher{net: tc.Net, slot: map[*model.Value]int{}, byValue: map[*model.Value]int{}}
	for _, u := range plan.Units {
		w.units = append(w.units, u.String())
	}
	// The tested network's tensors by the names of the graph before
	// compression: codes and their dequantized views stand for the float
	// tensor that was quantized.
	g := rc.Net.Graph.Clone()
	known := map[string]*model.Value{}
	input := map[*model.Value]bool{}
	for _, v := range g.Inputs {
		if v.DType.IsFloat() && v.Shape.Known() {
			known[v.Name], input[v] = v, true
		}
	}
	// A reference that is quantized itself has the codes too: theirs is the
	// dequantized view.
	codes := map[string]*model.Value{}
	writer := map[*model.Value]*model.Node{}
	for _, n := range g.Nodes {
		if n.Op == "QuantizeLinear" {
			writer[n.Out(0)] = n
		}
		for _, v := range n.Outputs {
			if v != nil && v.DType.IsFloat() && v.Shape.Known() {
				known[v.Name] = v
				if in := n.In(0); n.Op == "DequantizeLinear" && inverts(n, writer[in]) {
					codes[in.Name] = v
				}
			}
		}
	}
	source := sources(tc.Net.Graph)
	outputs := slices.Clone(g.Outputs)
	w.refOut = rc.Net.Graph.Outputs
	for i, l := range tc.Net.Layers {
		for _, e := range l.Outputs {
			v := tc.Net.Edges[e].Value
			r := codes[v.Name]
			if r == nil {
				r = known[source(v).Name]
			}
			if r == nil || r.Shape.Elems() != v.Shape.Elems() || w.byValue[v] != 0 {
				continue
			}
			s, ok := w.slot[r]
			if !ok {
				s = len(w.sizes)
				w.slot[r] = s
				w.sizes = append(w.sizes, int(r.Shape.Elems()))
				if !input[r] && !slices.Contains(outputs, r) {
					outputs = append(outputs, r)
				}
			}
			w.edges = append(w.edges, watched{i, r.Name, s})
			w.byValue[v] = len(w.edges)
		}
	}
	// Every tensor kept is an output of the reference, so that no layer
	// absorbs it.
	g.Outputs = outputs
	net, err := model.Lower(g)
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	w.refIn, w.testIn, w.testOut = net.Graph.Inputs, tc.Net.Graph.Inputs, tc.Net.Graph.Outputs
	if w.ref, err = exec.Compile(net, exec.Options{Watch: true}); err != nil {
		return nil, err
	}
	w.test, err = exec.Compile(tc.Net, exec.Options{Units: plan.Units, Numerics: runtime.Arithmetic(), Watch: true})
	if err != nil {
		w.ref.Close()
		return nil, err
	}
	w.own, err = exec.Compile(tc.Net, exec.Options{Units: plan.Units, Numerics: runtime.Arithmetic(), Watch: true, Force: true})
	if err != nil {
		w.ref.Close()
		w.test.Close()
		return nil, err
	}
	w.buffers.New = func() any { return &kept{make([][]float32, len(w.sizes))} }
	return w, nil
}

func (w *watcher) close() {
	w.ref.Close()
	w.test.Close()
	w.own.Close()
}

// inverts reports whether a dequantize has the parameters of the quantize
// whose codes it reads (nil: something else wrote them).
func inverts(d, q *model.Node) bool {
	if q == nil {
		return false
	}
	for i := 1; i < 3; i++ {
		a, b := d.In(i), q.In(i)
		if a == b {
			continue
		}
		if a == nil || b == nil || !a.IsConst() || !b.IsConst() {
			return false
		}
		x, err := a.Const.Value()
		y, err2 := b.Const.Value()
		if err != nil || err2 != nil || x.DType != y.DType || !bytes.Equal(x.Data, y.Data) {
			return false
		}
	}
	return true
}

// sources returns a function that goes from a value back to the float tensor
// it carries: through quantize, dequantize and cast operators.
func sources(g *model.Graph) func(*model.Value) *model.Value {
	from := map[*model.Value]*model.Value{}
	for _, n := range g.Nodes {
		switch n.Op {
		case "QuantizeLinear", "DequantizeLinear", "Cast":
			if in := n.In(0); in != nil && !in.IsConst() {
				for _, v := range n.Outputs {
					from[v] = in
				}
			}
		}
	}
	return func(v *model.Value) *model.Value {
		for from[v] != nil {
			v = from[v]
		}
		return v
	}
}

// run executes both networks on one sample.
func (w *watcher) run(ctx context.Context, in map[string]*model.Tensor) (want, got map[string]*model.Tensor, layers []layerSums, err error) {
	k := w.buffers.Get().(*kept)
	defer w.buffers.Put(k)
	kept := k.tensors
	args, err := arguments(w.refIn, in)
	if err != nil {
		return nil, nil, nil, err
	}
	for i, v := range w.refIn {
		if s, ok := w.slot[v]; ok {
			kept[s] = append(kept[s][:0], args[i].Float32s()...)
		}
	}
	routs, err := w.ref.Watch(ctx, args, func(v *model.Value, t *model.Tensor) error {
		if s, ok := w.slot[v]; ok {
			kept[s] = append(kept[s][:0], model.View[float32](t)...)
		}
		return nil
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("reference: %w", err)
	}
	if args, err = arguments(w.testIn, in); err != nil {
		return nil, nil, nil, err
	}
	layers = make([]layerSums, len(w.edges))
	touts, err := w.test.Watch(ctx, args, func(v *model.Value, t *model.Tensor) error {
		if k := w.byValue[v]; k > 0 {
			e := w.edges[k-1]
			if len(kept[e.slot]) != t.Len() {
				return fmt.Errorf("the reference did not show the tensor %q", e.name)
			}
			layers[k-1].all.Add(kept[e.slot], model.View[float32](t))
		}
		return nil
	})
	if err != nil {
		return nil, nil, nil, err
	}
	_, err = w.own.Watch(ctx, args, func(v *model.Value, t *model.Tensor) error {
		if k := w.byValue[v]; k > 0 {
			want, got := kept[w.edges[k-1].slot], model.View[float32](t)
			layers[k-1].own.Add(want, got)
			copy(got, want)
		}
		return nil
	})
	if err != nil {
		return nil, nil, nil, err
	}
	return named(w.refOut, routs), named(w.testOut, touts), layers, nil
}

func named(vs []*model.Value, ts []*model.Tensor) map[string]*model.Tensor {
	m := make(map[string]*model.Tensor, len(vs))
	for i, v := range vs {
		m[v.Name] = ts[i]
	}
	return m
}

func arguments(vs []*model.Value, in map[string]*model.Tensor) ([]*model.Tensor, error) {
	args := make([]*model.Tensor, len(vs))
	for i, v := range vs {
		if args[i] = in[v.Name]; args[i] == nil {
			return nil, fmt.Errorf("input %q is missing, want %s%v", v.Name, v.DType, v.Shape)
		}
	}
	return args, nil
}

// layerSums are the sums of one layer's output: in the network as it runs, and
// on the reference's inputs.
type layerSums struct{ all, own Sums }

func (s *layerSums) merge(o layerSums) {
	s.all.Merge(o.all)
	s.own.Merge(o.own)
}

// report turns sums into layers, the ones that add the most noise first.
func (w *watcher) report(sums []layerSums) []Layer {
	var out []Layer
	for k, e := range w.edges {
		l, s := w.net.Layers[e.layer], &sums[k]
		out = append(out, Layer{Name: l.Name, Op: string(l.Op), Unit: w.units[e.layer], Tensor: e.name,
			Metrics: s.all.Metrics(), OwnSNR: s.own.Metrics().SNR, OwnNoise: Ratio(s.own.relative())})
	}
	slices.SortStableFunc(out, func(a, b Layer) int {
		if c := cmp.Compare(b.OwnNoise, a.OwnNoise); c != 0 {
			return c
		}
		return cmp.Compare(a.SNR, b.SNR)
	})
	return out
}
