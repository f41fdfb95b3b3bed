package compare

import (
	"context"
	"errors"
	"fmt"
	stdruntime "runtime"
	"sync"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
)

// Source is a set of samples that are read as they are needed.
type Source = quant.Source

// Slice is a source held in memory.
type Slice = quant.Slice

// Options say what to compare. The zero value compares outputs on all
// processors.
type Options struct {
	// Labels are the right classes, one a sample; nil means unknown.
	Labels []int
	// Output is the output that holds class scores; "" is the first float
	// output that looks like it ([Scores]).
	Output string
	// Layers compares every layer's output too.
	Layers bool
	// Threads is how many samples run at once; 0 is one per processor.
	// Results do not depend on it.
	Threads int
	// Progress, if not nil, is called after each sample, never concurrently.
	Progress func(done, total int)
}

// Result is how a tested network compares with its reference.
type Result struct {
	Model     string  `json:"model"`
	Scheme    string  `json:"scheme"`
	Device    string  `json:"device"`
	Units     string  `json:"compute_units"`
	Policy    string  `json:"policy"`
	LatencyMS float64 `json:"latency_ms"`
	Ratio     float64 `json:"compression_ratio"`
	// UnitLayers counts the layers that ran in each unit's arithmetic.
	UnitLayers map[string]int `json:"unit_layers"`
	Reference  string         `json:"reference"` // the reference's scheme and units
	Samples    int            `json:"samples"`

	Outputs []Tensor `json:"outputs"`
	// Agreement is the share of samples on which both name the same class.
	Agreement *Share `json:"top1_agreement,omitempty"`
	// Accuracy and ReferenceAccuracy need labels, Change is their difference.
	Accuracy          *Share  `json:"top1_accuracy,omitempty"`
	ReferenceAccuracy *Share  `json:"reference_top1_accuracy,omitempty"`
	Change            *Change `json:"accuracy_change,omitempty"`
	// Layers lists the layers by the noise of their own, the largest first.
	Layers []Layer `json:"layers,omitempty"`
}

// Tensor is an output of the network.
type Tensor struct {
	Name string `json:"name"`
	Metrics
}

// Sessions runs two sessions on the same samples and compares what comes out.
// The sessions must read and write the same names and shapes; they should run
// on one thread each ([runtime.WithThreads]), since samples run in parallel.
func Sessions(ctx context.Context, ref, test *runtime.Session, src Source, o Options) (*Result, error) {
	n := src.Len()
	if n == 0 {
		return nil, errors.New("compare: there are no samples")
	}
	if o.Labels != nil && len(o.Labels) != n {
		return nil, fmt.Errorf("compare: %d labels for %d samples", len(o.Labels), n)
	}
	outs, err := pairOutputs(ref, test)
	if err != nil {
		return nil, err
	}
	scores, err := scoreOutput(test, o)
	if err != nil {
		return nil, err
	}
	if err := checkLabels(test, scores, o.Labels); err != nil {
		return nil, err
	}
	var watch *watcher
	if o.Layers {
		if watch, err = newWatcher(ref, test); err != nil {
			return nil, err
		}
		defer watch.close()
	}
	res := describe(ref, test)
	res.Samples = n
	total := make([]Sums, len(outs))
	var layers []layerSums
	if watch != nil {
		layers = make([]layerSums, len(watch.edges))
	}
	var agree, right, refRight, gained, lost int
	err = ForEach(ctx, n, o.Threads, func(ctx context.Context, i int) (*contribution, error) {
		in, err := src.Sample(i)
		if err != nil {
			return nil, fmt.Errorf("compare: sample %d: %w", i, err)
		}
		c := &contribution{outs: make([]Sums, len(outs)), top: -1, refTop: -1}
		var want, got map[string]*model.Tensor
		if watch != nil {
			want, got, c.layers, err = watch.run(ctx, in)
		} else {
			want, got, err = both(ctx, ref, test, in)
		}
		if err != nil {
			return nil, fmt.Errorf("compare: sample %d: %w", i, err)
		}
		for k, name := range outs {
			c.outs[k].Add(want[name].Float32s(), got[name].Float32s())
		}
		if scores != "" {
			c.refTop, c.top = Top1(want[scores].Float32s()), Top1(got[scores].Float32s())
		}
		return c, nil
	}, func(i int, c *contribution) {
		for k := range total {
			total[k].Merge(c.outs[k])
		}
		for k := range layers {
			layers[k].merge(c.layers[k])
		}
		if c.top == c.refTop {
			agree++
		}
		if o.Labels != nil {
			was, is := c.refTop == o.Labels[i], c.top == o.Labels[i]
			switch {
			case is && !was:
				gained++
			case was && !is:
				lost++
			}
			if is {
				right++
			}
			if was {
				refRight++
			}
		}
		if o.Progress != nil {
			o.Progress(i+1, n)
		}
	})
	if err != nil {
		return nil, err
	}
	for k, name := range outs {
		res.Outputs = append(res.Outputs, Tensor{name, total[k].Metrics()})
	}
	if scores != "" {
		s := NewShare(agree, n)
		res.Agreement = &s
		if o.Labels != nil {
			a, r, c := NewShare(right, n), NewShare(refRight, n), NewChange(gained, lost, n)
			res.Accuracy, res.ReferenceAccuracy, res.Change = &a, &r, &c
		}
	}
	if watch != nil {
		res.Layers = watch.report(layers)
	}
	return res, nil
}

// contribution is what one sample adds.
type contribution struct {
	outs        []Sums
	layers      []layerSums
	top, refTop int
}

func both(ctx context.Context, ref, test *runtime.Session, in map[string]*model.Tensor) (want, got map[string]*model.Tensor, err error) {
	r, err := ref.Run(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	t, err := test.Run(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	return r.Outputs, t.Outputs, nil
}

// pairOutputs returns the float outputs that both sessions have.
func pairOutputs(ref, test *runtime.Session) ([]string, error) {
	want := map[string]runtime.Tensor{}
	for _, t := range ref.Outputs() {
		want[t.Name] = t
	}
	var names []string
	for _, t := range test.Outputs() {
		r, ok := want[t.Name]
		switch {
		case !ok:
			return nil, fmt.Errorf("compare: the reference has no output %q", t.Name)
		case !r.Shape.Equal(t.Shape):
			return nil, fmt.Errorf("compare: output %q has shape %v in the reference and %v here", t.Name, r.Shape, t.Shape)
		case t.DType.IsFloat() && r.DType.IsFloat() && t.Shape.Known():
			names = append(names, t.Name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("compare: the model has no float output of known shape")
	}
	return names, nil
}

// scoreOutput returns the name of the output whose largest element is the
// answer; "" if none is a vector of scores and nobody asked for one.
func scoreOutput(s *runtime.Session, o Options) (string, error) {
	for _, t := range s.Outputs() {
		if o.Output == t.Name {
			if !Scores(t.Shape) || !t.DType.IsFloat() {
				return "", fmt.Errorf("compare: output %s is no vector of class scores (want one axis longer than 1)", t)
			}
			return t.Name, nil
		}
	}
	if o.Output != "" {
		return "", fmt.Errorf("compare: the model has no output %q", o.Output)
	}
	for _, t := range s.Outputs() {
		if t.DType.IsFloat() && Scores(t.Shape) {
			return t.Name, nil
		}
	}
	if o.Labels != nil {
		return "", errors.New("compare: labels were given, but no output is a vector of class scores")
	}
	return "", nil
}

// checkLabels refuses classes that the network cannot name.
func checkLabels(s *runtime.Session, output string, labels []int) error {
	for _, t := range s.Outputs() {
		if t.Name != output {
			continue
		}
		for i, l := range labels {
			if n := t.Shape.Elems(); l < 0 || int64(l) >= n {
				return fmt.Errorf("compare: label %d is %d, output %q has classes 0 to %d", i, l, output, n-1)
			}
		}
	}
	return nil
}

func describe(ref, test *runtime.Session) *Result {
	p, r := test.Predict(), ref.Predict()
	res := &Result{Model: p.Model, Scheme: p.Scheme, Device: p.Device, Units: p.ComputeUnits, Policy: p.Policy,
		LatencyMS: p.LatencyMS, Ratio: p.CompressionRatio, UnitLayers: map[string]int{},
		Reference: r.Scheme + " " + r.ComputeUnits}
	if r.Model != p.Model {
		res.Reference = r.Model + " " + res.Reference
	}
	for _, l := range p.Layers {
		res.UnitLayers[l.Unit]++
	}
	return res
}

// ForEach calls do for 0 to n-1 on several goroutines (0 threads: one per
// processor), and take with each result in order, on the caller's goroutine.
// The first error, in that order, ends it. At most a few results per thread are
// in flight.
func ForEach[T any](ctx context.Context, n, threads int, do func(ctx context.Context, i int) (T, error), take func(i int, v T)) error {
	if threads <= 0 {
		threads = stdruntime.GOMAXPROCS(0)
	}
	threads = min(threads, n)
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		v   T
		err error
	}
	type job struct {
		i   int
		out chan result
	}
	jobs := make(chan job)
	order := make(chan job, 4*threads)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range threads {
		wg.Go(func() {
			for j := range jobs {
				v, err := do(ctx, j.i)
				j.out <- result{v, err}
			}
		})
	}
	go func() {
		defer close(order)
		defer close(jobs)
		for i := range n {
			j := job{i, make(chan result, 1)}
			select {
			case order <- j:
			case <-ctx.Done():
				return
			}
			select {
			case jobs <- j:
			case <-ctx.Done():
				j.out <- result{err: ctx.Err()}
				return
			}
		}
	}()
	done := 0
	for j := range order {
		r := <-j.out
		if r.err != nil {
			return r.err
		}
		take(j.i, r.v)
		done++
	}
	if done < n {
		return ctx.Err()
	}
	return nil
}
