package quant

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// Method is how a range follows from the values seen in calibration.
type Method uint8

// The calibration methods.
const (
	// MinMax takes the least and greatest value of all samples: what
	// coremltools' linear_quantize_activations does.
	MinMax Method = iota
	// MovingAverage lets the ranges of single samples flow into a running one
	// at a rate of one tenth: coremltools.optimize.torch's ema_min_max.
	MovingAverage
	// Percentile leaves out 0.01 % of the values at either end.
	Percentile
	// Entropy picks the threshold whose 8-bit histogram has the least
	// Kullback-Leibler divergence from the true one (Migacz, "8-bit inference
	// with TensorRT", GTC 2017).
	Entropy
	// MSE picks the threshold with the least expected squared error: clipping
	// plus a twelfth of the step squared.
	MSE
	numMethods
)

var methodNames = [numMethods]string{"minmax", "moving-average", "percentile", "entropy", "mse"}

// String returns the method's name.
func (m Method) String() string {
	if m >= numMethods {
		return fmt.Sprintf("method(%d)", uint8(m))
	}
	return methodNames[m]
}

// Methods returns the names of the calibration methods.
func Methods() []string { return methodNames[:] }

// ParseMethod reads a method's name; "" is minmax.
func ParseMethod(s string) (Method, error) {
	t := strings.ReplaceAll(strings.ToLower(s), "_", "-")
	switch t {
	case "", "min-max":
		return MinMax, nil
	case "ema", "ema-min-max", "moving-average-min-max":
		return MovingAverage, nil
	case "kl":
		return Entropy, nil
	}
	for m, n := range methodNames {
		if n == t {
			return Method(m), nil
		}
	}
	return 0, fmt.Errorf("quant: unknown calibration method %q (want %s)", s, strings.Join(methodNames[:], ", "))
}

// Executor runs a graph for calibration: it calls see with every activation
// tensor as it is computed (graph inputs included), in single precision or any
// other float type. It may call see concurrently only for different samples,
// and must not keep tensors that see returned from.
type Executor interface {
	Observe(ctx context.Context, g *model.Graph, inputs map[string]*model.Tensor, see func(v *model.Value, t *model.Tensor)) error
}

// Reference is the executor of package model/ops: slow and plain.
type Reference struct{}

// Observe runs the graph on the reference executor.
func (Reference) Observe(ctx context.Context, g *model.Graph, inputs map[string]*model.Tensor, see func(*model.Value, *model.Tensor)) error {
	for _, v := range g.Inputs {
		if t := inputs[v.Name]; t != nil {
			see(v, t)
		}
	}
	_, err := ops.EvalGraph(ctx, g, inputs, ops.Options{Hook: func(n *model.Node, out []*model.Tensor) error {
		for i, t := range out {
			if v := n.Out(i); v != nil && t != nil {
				see(v, t)
			}
		}
		return nil
	}})
	return err
}

// Source holds samples that are read as they are needed: input sets by name.
// Sample may be called concurrently.
type Source interface {
	Len() int
	Sample(i int) (map[string]*model.Tensor, error)
}

// Slice is a [Source] of samples in memory.
type Slice []map[string]*model.Tensor

// Len returns the number of samples.
func (s Slice) Len() int { return len(s) }

// Sample returns sample i.
func (s Slice) Sample(i int) (map[string]*model.Tensor, error) { return s[i], nil }

// Calibration says how the ranges of activations are found.
type Calibration struct {
	// Samples are the inputs to run on. Nil means one set of seeded inputs:
	// standard normal floats, zeros and ones for integers.
	Samples Source
	Method  Method
	// Executor runs the graph; nil is [Reference].
	Executor Executor
	// Threads is how many samples run at once; 0 means one.
	Threads int
	// Progress, if not nil, is called after each sample with the number done.
	Progress func(done, total int)
}

// SeededRanges calibrates a graph on one seeded input when it is first asked:
// the ranges of a network whose data is unknown.
func SeededRanges(g *model.Graph) Ranges {
	return RangeFunc(func() (RangeMap, error) { return Calibrate(context.Background(), g, Calibration{}, nil) })
}

// Calibrate runs a graph on samples and returns the ranges of its float
// activations: all of them, or with want those whose name it accepts. The
// result does not depend on the number of threads.
func Calibrate(ctx context.Context, g *model.Graph, c Calibration, want func(name string) bool) (RangeMap, error) {
	if c.Method >= numMethods {
		return nil, fmt.Errorf("quant: unknown calibration %s", c.Method)
	}
	samples := c.Samples
	if samples == nil {
		in, err := seededInputs(g, 0)
		if err != nil {
			return nil, err
		}
		samples = Slice{in}
	}
	n := samples.Len()
	if n == 0 {
		return nil, fmt.Errorf("quant: the calibration set is empty")
	}
	ex := c.Executor
	if ex == nil {
		ex = Reference{}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		stats map[string]*observed
		order []string
		err   error
	}
	results := make([]chan outcome, n)
	for i := range results {
		results[i] = make(chan outcome, 1)
	}
	one := func(i int) outcome {
		o := outcome{stats: map[string]*observed{}}
		in, err := samples.Sample(i)
		if err != nil {
			o.err = err
			return o
		}
		o.err = ex.Observe(ctx, g, in, func(v *model.Value, t *model.Tensor) {
			if v.Type != model.TypeTensor || !t.DType.IsFloat() || want != nil && !want(v.Name) {
				return
			}
			s := o.stats[v.Name]
			if s == nil {
				s = newObserved(c.Method)
				o.stats[v.Name] = s
				o.order = append(o.order, v.Name)
			}
			s.see(t)
		})
		return o
	}
	// A window of samples is in flight, so that their histograms do not pile
	// up; they are merged in order.
	threads := max(1, c.Threads)
	slots := make(chan struct{}, 2*threads)
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(threads, n) {
		wg.Go(func() {
			for i := range work {
				results[i] <- one(i)
			}
		})
	}
	go func() {
		defer close(work)
		for i := range n {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			select {
			case work <- i:
			case <-ctx.Done():
				return
			}
		}
	}()
	all := map[string]*observed{}
	var fault error
	for i := range n {
		var o outcome
		select {
		case o = <-results[i]:
		case <-ctx.Done():
			o.err = ctx.Err()
		}
		if o.err != nil {
			fault = fmt.Errorf("quant: calibration sample %d: %w", i, o.err)
			break
		}
		for _, name := range o.order {
			s := o.stats[name]
			if s.bad {
				fault = fmt.Errorf("quant: calibration sample %d: the tensor %q has values that are not finite", i, name)
				break
			}
			if t := all[name]; t != nil {
				t.merge(s)
			} else {
				s.first()
				all[name] = s
			}
		}
		if fault != nil {
			break
		}
		<-slots
		if c.Progress != nil {
			c.Progress(i+1, n)
		}
	}
	cancel()
	wg.Wait()
	if fault != nil {
		return nil, fault
	}
	m := make(RangeMap, len(all))
	for name, s := range all {
		m[name] = s.result()
	}
	return m, nil
}

// seededInputs makes one input set: standard normal floats, small integers.
func seededInputs(g *model.Graph, seed uint64) (map[string]*model.Tensor, error) {
	in := map[string]*model.Tensor{}
	for _, v := range g.Inputs {
		if v.Type != model.TypeTensor || !v.Shape.Known() || v.DType == model.String || v.DType == model.Invalid {
			return nil, fmt.Errorf("quant: input %q of %s%v cannot be made up; give calibration samples", v.Name, v.DType, v.Shape)
		}
		h := fnv.New64a()
		h.Write([]byte(v.Name))
		rng := rand.New(rand.NewPCG(h.Sum64(), seed))
		t := model.NewTensor(v.DType, v.Shape...)
		for i := range t.Len() {
			if v.DType.IsFloat() {
				t.Set(i, rng.NormFloat64())
			} else {
				t.SetInt(i, rng.Int64N(2))
			}
		}
		in[v.Name] = t
	}
	return in, nil
}

// histBins is the number of bins of either sign.
const histBins = 2048

// observed is what was seen of one tensor. Histograms cover -top..top with top
// a power of two, so that growing merges whole bins and the result does not
// depend on the order of the samples.
type observed struct {
	method   Method
	min, max float32
	avg      Range // MovingAverage
	top      float64
	neg, pos []uint64 // counts by magnitude
	bad      bool
	empty    bool
}

func newObserved(m Method) *observed {
	return &observed{method: m, min: float32(math.Inf(1)), max: float32(math.Inf(-1)), empty: true}
}

func (o *observed) histograms() bool { return o.method >= Percentile }

// see adds the values of a tensor.
func (o *observed) see(t *model.Tensor) {
	v := t.Float32s()
	if len(v) == 0 {
		return
	}
	o.empty = false
	lo, hi := o.min, o.max
	for _, x := range v {
		if !(x >= lo) {
			lo = x
		}
		if !(x <= hi) {
			hi = x
		}
		if x != x {
			o.bad = true
			return
		}
	}
	o.min, o.max = lo, hi
	if math.IsInf(float64(lo), 0) || math.IsInf(float64(hi), 0) {
		o.bad = true
		return
	}
	if !o.histograms() {
		return
	}
	o.grow(max(math.Abs(float64(lo)), math.Abs(float64(hi))))
	scale := histBins / o.top
	for _, x := range v {
		if x < 0 {
			o.neg[min(int(-float64(x)*scale), histBins-1)]++
		} else {
			o.pos[min(int(float64(x)*scale), histBins-1)]++
		}
	}
}

// grow makes the histograms reach a magnitude.
func (o *observed) grow(to float64) {
	if o.pos == nil {
		o.neg, o.pos = make([]uint64, histBins), make([]uint64, histBins)
		o.top = math.Ldexp(1, -126)
	}
	if to <= o.top {
		return
	}
	_, e := math.Frexp(to) // to < 2^e
	top := math.Ldexp(1, e)
	if to == top/2 { // a power of two fits exactly
		top /= 2
	}
	shift := math.Log2(top / o.top)
	for _, h := range [][]uint64{o.neg, o.pos} {
		for i, n := range h {
			h[i] = 0
			if n == 0 {
				continue
			}
			if shift >= 11 {
				h[0] += n
			} else {
				h[i>>uint(shift)] += n
			}
		}
	}
	o.top = top
}

func (o *observed) first() { o.avg = Range{float64(o.min), float64(o.max)} }

// merge adds a later sample.
func (o *observed) merge(s *observed) {
	if s.empty {
		return
	}
	if o.empty {
		*o = *s
		o.first()
		return
	}
	const keep = 0.9
	o.avg = Range{keep*o.avg.Min + (1-keep)*float64(s.min), keep*o.avg.Max + (1-keep)*float64(s.max)}
	o.min, o.max = min(o.min, s.min), max(o.max, s.max)
	if !o.histograms() {
		return
	}
	o.grow(s.top)
	s.grow(o.top)
	for i := range o.pos {
		o.pos[i] += s.pos[i]
		o.neg[i] += s.neg[i]
	}
}

// result derives the range.
func (o *observed) result() Range {
	r := Range{float64(o.min), float64(o.max)}
	if o.empty {
		return Range{}
	}
	switch o.method {
	case MovingAverage:
		return o.avg
	case Percentile:
		return o.percentile(r, 1e-4)
	case Entropy:
		return o.clip(r, o.entropyThreshold())
	case MSE:
		return o.clip(r, o.mseThreshold())
	}
	return r
}

// clip limits a range to +-t.
func (o *observed) clip(r Range, t float64) Range { return Range{max(r.Min, -t), min(r.Max, t)} }

// percentile cuts a share of the values off either end, in whole bins.
func (o *observed) percentile(r Range, share float64) Range {
	var total uint64
	for i := range o.pos {
		total += o.pos[i] + o.neg[i]
	}
	cut := uint64(share * float64(total))
	width := o.top / histBins
	edge := func(first, then []uint64) float64 { // upper edge of the values left, seen from first's far end
		var n uint64
		for i := histBins - 1; i >= 0; i-- {
			if n += first[i]; n > cut {
				return float64(i+1) * width
			}
		}
		for i, c := range then {
			if n += c; n > cut {
				return -float64(i) * width
			}
		}
		return 0
	}
	return Range{max(r.Min, -edge(o.neg, o.pos)), min(r.Max, edge(o.pos, o.neg))}
}

// magnitudes folds the histogram and returns how many codes cover it: 255 for
// tensors that are never negative, 127 otherwise.
func (o *observed) magnitudes() (h []float64, levels int) {
	h = make([]float64, histBins)
	levels = 255
	for i := range h {
		h[i] = float64(o.pos[i] + o.neg[i])
		if o.neg[i] > 0 {
			levels = 127
		}
	}
	for len(h) > 0 && h[len(h)-1] == 0 {
		h = h[:len(h)-1]
	}
	return h, levels
}

// mseThreshold tries a threshold at every bin's edge from 1/16 of the range.
func (o *observed) mseThreshold() float64 {
	h, levels := o.magnitudes()
	width := o.top / histBins
	best, at := math.Inf(1), len(h)
	for t := max(1, len(h)/16); t <= len(h); t++ {
		limit := float64(t) * width
		step := limit / float64(levels)
		var e, inside float64
		for i, n := range h {
			if i < t {
				inside += n
			} else {
				d := (float64(i)+0.5)*width - limit
				e += n * d * d
			}
		}
		if e += inside * step * step / 12; e < best {
			best, at = e, t
		}
	}
	return float64(at) * width
}

// entropyThreshold compares, for thresholds from as many bins as there are
// codes, the clipped histogram with the one that the codes can represent.
func (o *observed) entropyThreshold() float64 {
	h, levels := o.magnitudes()
	width := o.top / histBins
	full := float64(len(h)) * width
	if len(h) < 2 {
		return full
	}
	// A rectifier's zeros are exact in any scale; left in, their spike would
	// make every code width look bad (TensorRT leaves the first bin out too).
	h[0] = h[1]
	var tail, total float64
	for _, n := range h {
		total += n
	}
	// With few values a bin the divergence is that of noise: merge bins.
	for total < 64*float64(len(h)) && len(h) > levels {
		for i := range len(h) / 2 {
			h[i] = h[2*i] + h[2*i+1]
		}
		if n := len(h); n%2 == 1 {
			h[n/2] = h[n-1]
			h = h[:n/2+1]
		} else {
			h = h[:n/2]
		}
		width *= 2
	}
	if len(h) <= levels {
		return full
	}
	best, at := math.Inf(1), len(h)
	for t := len(h); t >= levels; t-- {
		// p: the first t bins, what is clipped added to the last one.
		// q: p's bins merged into levels groups, spread over the bins in use.
		var kl float64
		for g := range levels {
			lo, hi := g*t/levels, (g+1)*t/levels
			var sum float64
			used := 0
			for _, n := range h[lo:hi] {
				sum += n
				if n > 0 {
					used++
				}
			}
			for i := lo; i < hi; i++ {
				p := h[i]
				if i == t-1 {
					p += tail
				}
				if p == 0 {
					continue
				}
				q := 1e-9 * total // a clipped value where the codes have nothing
				if h[i] > 0 {
					q = sum / float64(used)
				}
				kl += p * math.Log(p/q*(total-tail)/total)
			}
		}
		if kl < best {
			best, at = kl, t
		}
		tail += h[t-1]
	}
	return min(float64(at)*width, full)
}
