// Package host measures how fast Triune executes networks on the machine it
// runs on: wall-clock time of inferences, the share of the arithmetic peak
// measured in the same run, load time and memory, beside other runtimes.
//
// A [Row] is one model, scheme and number of threads. Rows are measured one
// after the other; within a row Triune and its peers run in turn (A B A B), so
// that what else the machine does falls on all of them, and the ratio is the
// median of the ratios of neighbouring runs.
package host

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units"
)

// Options say what to measure. The zero value measures ResNet50 in fp32 on one
// thread.
type Options struct {
	Models  []string   // files or built-in names; default resnet50
	Schemes []string   // default fp32
	Threads []int      // default 1
	Units   units.Mask // 0: the CPU for fp32, CPU and Neural Engine for the rest
	Device  string     // whose placement is executed; default runtime.DefaultDevice
	Runs    int        // timed runs of each row; default 20
	Warmup  int        // runs before them; default 3
	Profile bool       // time each layer too, in runs of their own
	Peers   []Peer     // a Self among them adds its memory to the row's
	// Progress, if set, is called with each finished row.
	Progress func(Row)
}

// Report is what a measurement gives.
type Report struct {
	CPU  string `json:"cpu"` // instruction set the kernels use
	Go   string `json:"go"`
	Rows []Row  `json:"rows"`
}

// Row is one model, scheme and number of threads. Times are in ms; GFLOP/s
// count two operations per multiply-add of the network (GOP/s for 8-bit ones).
type Row struct {
	Model   string `json:"model"`
	Scheme  string `json:"scheme"`
	Units   string `json:"units"`
	Threads int    `json:"threads"`
	Runs    int    `json:"runs"`

	MedianMS float64 `json:"median_ms"`
	P90MS    float64 `json:"p90_ms"`
	MinMS    float64 `json:"min_ms"`

	GFLOPS float64 `json:"gflops"` // at the median
	// PeakGFLOPS is the rate of a register-only multiply-add loop on as many
	// threads, measured just before the runs: of 8-bit multiply-adds when the
	// network's convolutions and linear layers are 8-bit, else of fp32 ones.
	PeakGFLOPS    float64 `json:"peak_gflops"`
	PercentOfPeak float64 `json:"percent_of_peak"`
	Int8MACs      float64 `json:"int8_macs_share"` // share of multiply-adds done as int8 x int8

	LoadMS       float64 `json:"load_ms"` // from opening to the first result
	PeakRSSBytes int64   `json:"peak_rss_bytes"`
	WeightBytes  int64   `json:"weight_bytes"` // packed
	ArenaBytes   int64   `json:"arena_bytes"`  // activations of one run

	Peers   []PeerRow `json:"peers"`
	Profile []Layer   `json:"profile,omitempty"`
}

// PeerRow is another runtime in the same row.
type PeerRow struct {
	Name     string  `json:"name"`
	Version  string  `json:"version"`
	MedianMS float64 `json:"median_ms"`
	// Ratio is the median of Triune's time over the peer's, pair by pair:
	// below 1, Triune is faster.
	Ratio        float64 `json:"ratio"`
	LoadMS       float64 `json:"load_ms,omitempty"`
	PeakRSSBytes int64   `json:"peak_rss_bytes,omitempty"`
	Note         string  `json:"note,omitempty"` // why it was not measured
	// Fusion is what an 8-bit network became in the peer; nil for other
	// networks, and for peers that do not show their graph. FusionNote says why
	// a graph that should be there could not be had.
	*Fusion
	FusionNote string `json:"fusion_note,omitempty"`
}

// Layer is the median host time of one layer.
type Layer struct {
	Name    string  `json:"name"`
	Op      string  `json:"op"`
	Kind    string  `json:"kind"`
	Unit    string  `json:"unit"`
	MS      float64 `json:"ms"`
	Percent float64 `json:"percent"`
	GFLOPS  float64 `json:"gflops"`
}

// Peer is another runtime to compare with.
type Peer interface {
	Name() string
	// Open loads an ONNX file: the model itself, or what Triune writes of it
	// under the scheme (see peerFile). An error is noted in the row and does
	// not end the measurement.
	Open(ctx context.Context, file, scheme string, threads int) (PeerSession, error)
}

// Optimizer is a peer that shows the graph it runs.
type Optimizer interface {
	// Optimize writes the graph that the peer makes of an ONNX file to another,
	// in a process or session of its own so that nothing of it is measured. It
	// reports false where the peer has none to show.
	Optimize(ctx context.Context, file, scheme, out string) (bool, error)
}

// PeerSession is a loaded model of a peer.
type PeerSession interface {
	Version() string
	// Run executes one inference and returns its time in ms.
	Run(ctx context.Context) (float64, error)
	// Stats returns load time in ms and peak resident bytes; 0 if unknown.
	Stats() (loadMS float64, rss int64)
	Close() error
}

func (o Options) withDefaults() Options {
	if len(o.Models) == 0 {
		o.Models = []string{"resnet50"}
	}
	if len(o.Schemes) == 0 {
		o.Schemes = []string{"fp32"}
	}
	if len(o.Threads) == 0 {
		o.Threads = []int{1}
	}
	if o.Device == "" {
		o.Device = runtime.DefaultDevice
	}
	if o.Runs < 1 {
		o.Runs = 20
	}
	if o.Warmup < 1 {
		o.Warmup = 3
	}
	return o
}

// mask returns the units whose arithmetic runs a scheme.
func (o *Options) mask(scheme string) units.Mask {
	switch {
	case o.Units != 0:
		return o.Units
	case scheme == "fp32":
		return units.CPUOnly
	}
	return units.CPUAndNE
}

// Measure measures every combination of model, scheme and threads.
func Measure(ctx context.Context, o Options) (*Report, error) {
	o = o.withDefaults()
	for _, n := range o.Threads {
		if n < 1 {
			return nil, fmt.Errorf("host: %d threads (want at least 1)", n)
		}
	}
	r := &Report{CPU: kernels.ISA(), Go: goruntime.Version(), Rows: []Row{}}
	for _, m := range o.Models {
		for _, s := range o.Schemes {
			for _, n := range o.Threads {
				row, err := measure(ctx, o, m, s, n)
				if err != nil {
					return nil, fmt.Errorf("host: %s %s on %d threads: %w", m, s, n, err)
				}
				r.Rows = append(r.Rows, *row)
				if o.Progress != nil {
					o.Progress(*row)
				}
			}
		}
	}
	return r, nil
}

func measure(ctx context.Context, o Options, name, scheme string, threads int) (*Row, error) {
	mask := o.mask(scheme)
	row := &Row{Model: name, Scheme: scheme, Units: mask.String(), Threads: threads, Runs: o.Runs, Peers: []PeerRow{}}
	// The peers' file is written and looked into first: what that takes is not
	// part of the row.
	file, done, fileErr := "", func() {}, error(nil)
	if slices.ContainsFunc(o.Peers, func(p Peer) bool { _, self := p.(Self); return !self }) {
		file, done, fileErr = peerFile(name, scheme)
	}
	defer done()
	var sessions []PeerSession
	for _, p := range o.Peers {
		pr := PeerRow{Name: p.Name()}
		if fileErr == nil {
			var err error
			if pr.Fusion, err = fusionOf(ctx, p, file, scheme); err != nil {
				pr.FusionNote = err.Error()
			}
		}
		row.Peers = append(row.Peers, pr)
	}
	debug.FreeOSMemory()
	resetPeakRSS()

	start := time.Now()
	open := func(opts ...runtime.Option) (*runtime.Session, error) {
		return runtime.Open(name, append(opts, runtime.WithScheme(scheme), runtime.WithDevice(o.Device), runtime.WithUnits(mask), runtime.WithThreads(threads))...)
	}
	s, err := open()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	in, err := inputs(s)
	if err != nil {
		return nil, err
	}
	if _, err := s.Run(ctx, in); err != nil {
		return nil, err
	}
	row.LoadMS = ms(time.Since(start))
	row.WeightBytes, row.ArenaBytes = s.MemoryBytes()

	var macs, int8 int64
	net, plan := s.Compiled().Net, s.Plan()
	arith := runtime.Arithmetic()
	for i, l := range net.Layers {
		macs += l.MACs
		if l.Int8(l.Kind) && arith[plan.Units[i]].Int8 {
			int8 += l.MACs
		}
	}
	row.Int8MACs = ratio(float64(int8), float64(macs))

	for i, p := range o.Peers {
		pr := &row.Peers[i]
		ps, err := PeerSession(nil), fileErr
		if self, ok := p.(Self); ok {
			ps, err = self.open(o, name, scheme, threads)
		} else if err == nil {
			ps, err = p.Open(ctx, file, scheme, threads)
		}
		if err != nil {
			pr.Note = err.Error()
			sessions = append(sessions, nil)
			continue
		}
		defer ps.Close()
		sessions = append(sessions, ps)
	}

	run := func() (float64, error) {
		t := time.Now()
		_, err := s.Run(ctx, in)
		return ms(time.Since(t)), err
	}
	for range o.Warmup {
		if _, err := run(); err != nil {
			return nil, err
		}
		for i, ps := range sessions {
			if ps != nil {
				if _, err := ps.Run(ctx); err != nil {
					row.Peers[i].Note, sessions[i] = err.Error(), nil
				}
			}
		}
	}
	row.PeakGFLOPS = peak(threads, row.Int8MACs > 0.5)
	ours := make([]float64, 0, o.Runs)
	theirs := make([][]float64, len(sessions))
	ratios := make([][]float64, len(sessions))
	for range o.Runs {
		t, err := run()
		if err != nil {
			return nil, err
		}
		ours = append(ours, t)
		for i, ps := range sessions {
			if ps == nil {
				continue
			}
			p, err := ps.Run(ctx)
			if err != nil {
				row.Peers[i].Note, sessions[i] = err.Error(), nil
				continue
			}
			theirs[i] = append(theirs[i], p)
			ratios[i] = append(ratios[i], ratio(t, p))
		}
	}
	row.PeakRSSBytes = peakRSS()
	row.MedianMS, row.P90MS, row.MinMS = quantile(ours, 0.5), quantile(ours, 0.9), slices.Min(ours)
	row.GFLOPS = ratio(2*float64(macs)/1e6, row.MedianMS)
	row.PercentOfPeak = 100 * ratio(row.GFLOPS, row.PeakGFLOPS)
	for i, ps := range sessions {
		if ps == nil || len(theirs[i]) == 0 {
			continue
		}
		p := &row.Peers[i]
		p.Version = ps.Version()
		p.LoadMS, p.PeakRSSBytes = ps.Stats()
		p.MedianMS, p.Ratio = quantile(theirs[i], 0.5), quantile(ratios[i], 0.5)
	}
	if o.Profile {
		if row.Profile, err = profile(ctx, o, open, in); err != nil {
			return nil, err
		}
	}
	return row, nil
}

// profile times the layers in runs of their own: the clock reads would
// otherwise be part of the measured time.
func profile(ctx context.Context, o Options, open func(...runtime.Option) (*runtime.Session, error), in map[string]*model.Tensor) ([]Layer, error) {
	s, err := open(runtime.WithProfile())
	if err != nil {
		return nil, err
	}
	defer s.Close()
	net := s.Compiled().Net
	times := make([][]float64, len(net.Layers))
	var last []runtime.LayerTime
	for i := range o.Warmup + min(o.Runs, 10) {
		r, err := s.Run(ctx, in)
		if err != nil {
			return nil, err
		}
		if i < o.Warmup {
			continue
		}
		last = r.Profile
		for k, l := range r.Profile {
			times[k] = append(times[k], l.MS)
		}
	}
	total := 0.0
	out := make([]Layer, len(last))
	for i, l := range last {
		t := quantile(times[i], 0.5)
		total += t
		out[i] = Layer{Name: l.Name, Op: l.Op, Kind: net.Layers[i].Kind.String(), Unit: l.Unit.String(), MS: t,
			GFLOPS: ratio(2*float64(net.Layers[i].MACs)/1e6, t)}
	}
	for i := range out {
		out[i].Percent = 100 * ratio(out[i].MS, total)
	}
	return out, nil
}

// peak measures the register-only rate of as many threads at once.
func peak(threads int, int8 bool) float64 {
	f := kernels.PeakF32
	if int8 {
		f = kernels.PeakI8
	}
	rates := make([]float64, threads)
	var wg sync.WaitGroup
	for i := range rates {
		wg.Go(func() { rates[i] = f() })
	}
	wg.Wait()
	sum := 0.0
	for _, r := range rates {
		sum += r
	}
	return sum
}

// inputs makes one set of seeded inputs: standard normal floats, zeros and ones.
func inputs(s *runtime.Session) (map[string]*model.Tensor, error) {
	in := map[string]*model.Tensor{}
	for _, v := range s.Inputs() {
		if !v.Shape.Known() || v.DType == model.String {
			return nil, fmt.Errorf("input %s cannot be made up", v)
		}
		h := fnv.New64a()
		h.Write([]byte(v.Name))
		r := rand.New(rand.NewPCG(h.Sum64(), 1))
		d := v.DType
		if d.IsFloat() {
			d = model.Float32
		}
		t := model.NewTensor(d, v.Shape...)
		for i := range t.Len() {
			if d == model.Float32 {
				t.Set(i, r.NormFloat64())
			} else {
				t.SetInt(i, r.Int64N(2))
			}
		}
		in[v.Name] = t
	}
	return in, nil
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// quantile interpolates linearly between the sorted values.
func quantile(x []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(x))
	p := q * float64(len(s)-1)
	lo := int(math.Floor(p))
	if lo+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[lo] + (p-float64(lo))*(s[lo+1]-s[lo])
}

// resetPeakRSS restarts the peak that peakRSS reports, where the system can.
func resetPeakRSS() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }
