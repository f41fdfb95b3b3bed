package accuracy

import (
	"context"
	"fmt"
	stdruntime "runtime"
	"slices"

	"github.com/triune-sim/triune/compare"
	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// Options say what to measure. The zero value, with Networks from [Fashion], is
// the whole table.
type Options struct {
	Networks []*Network
	// Schemes are the names of the schemes to measure, of [Schemes]; nil is
	// all of them. fp32 is always measured.
	Schemes []string
	// Devices are the devices that latency is predicted on. The first one's
	// support rules say which layers run on the Neural Engine. Default:
	// [DefaultDevices].
	Devices []string
	// Threads is how many images run at once; 0 is one per processor. Results
	// do not depend on it.
	Threads int
	// Progress, if not nil, is called after each image of each row.
	Progress func(row string, done, total int)
}

// DefaultDevices are an older and a newer phone: the Neural Engine of the second
// multiplies int8 at twice the rate.
var DefaultDevices = []string{"iphone-13", "iphone-15-pro"}

// Row is one network under one scheme.
type Row struct {
	Network string `json:"network"`
	Scheme  string `json:"scheme"`
	// Calibration is the method that found the ranges of activations.
	Calibration string `json:"calibration,omitempty"`
	// PackageRatio is the size of the fp16 package over this one's, the
	// published table's figure; WeightRatio the same of the constants alone,
	// without the program, which is much of a small package.
	PackageBytes int64   `json:"package_bytes"`
	PackageRatio float64 `json:"compression_ratio"`
	WeightRatio  float64 `json:"weight_ratio"`
	// Top1 is the accuracy on the test images, Change its difference to fp32,
	// LogitSNR the signal-to-noise ratio of the logits against fp32.
	Top1   compare.Share  `json:"top1"`
	Change compare.Change `json:"change"`
	// Flipped is the share of images whose answer is not fp32's, right or wrong.
	LogitSNR compare.DB    `json:"logit_snr_db"`
	Flipped  compare.Share `json:"flipped"`
	// Float counts weights of rank 2 and more that are not compressed.
	Float int `json:"float_weights"`
	// Latency is predicted, in ms, by device.
	Latency []Latency `json:"latency"`
	// Units are the layers by unit whose arithmetic ran.
	Units map[string]int `json:"unit_layers"`

	right, flipped []bool    // by image
	noise          []float64 // by image: squared error of the logits
}

// Latency is a predicted latency.
type Latency struct {
	Device string  `json:"device"`
	MS     float64 `json:"latency_ms"`
}

// Report is the table and what follows from it.
type Report struct {
	Networks   []NetworkFacts `json:"networks"`
	Rows       []Row          `json:"rows"`
	Statements []Statement    `json:"statements"`
}

// NetworkFacts describes a network of the report.
type NetworkFacts struct {
	Name              string `json:"name"`
	Params            int64  `json:"params"`
	MACs              int64  `json:"macs"`
	Images            int    `json:"images"`
	CalibrationImages int    `json:"calibration_images"`
	Note              string `json:"note,omitempty"`
}

// variant is one row of every network.
type variant struct {
	label   string
	scheme  string
	method  quant.Method
	a8      bool // needs ranges
	trained bool // the fine-tuned network as it is stored
	blocks  bool // only weights that blocks of 32 reach
}

func variants() []variant {
	v := []variant{
		{label: "fp32", scheme: "fp32"},
		{label: "fp16", scheme: "fp16"},
		{label: "w8-tensor", scheme: "w8-tensor"},
		{label: "w8", scheme: "w8"},
	}
	for _, name := range quant.Methods() {
		m, err := quant.ParseMethod(name)
		if err != nil {
			panic("accuracy: " + err.Error()) // the two disagree
		}
		v = append(v, variant{label: "w8a8 " + name, scheme: "w8a8", method: m, a8: true})
	}
	return append(v,
		variant{label: "w8+a8-ptq minmax", scheme: "w8+a8-ptq", a8: true},
		variant{label: "w8a8 trained", trained: true},
		variant{label: "w4-tensor", scheme: "w4-tensor"},
		variant{label: "w4", scheme: "w4"},
		variant{label: "w4b32", scheme: "w4b32"},
		variant{label: "w4-tensor, blocks' layers", scheme: "w4-tensor", blocks: true},
		variant{label: "w4, blocks' layers", scheme: "w4", blocks: true},
		variant{label: "p8", scheme: "p8"},
		variant{label: "p6", scheme: "p6"},
		variant{label: "p4", scheme: "p4"},
		variant{label: "p2", scheme: "p2"},
		variant{label: "s50", scheme: "s50"},
		variant{label: "s75", scheme: "s75"},
	)
}

// Schemes returns the names of the rows.
func Schemes() []string {
	var out []string
	for _, v := range variants() {
		out = append(out, v.label)
	}
	return out
}

// Measure runs every network under every scheme on its test images.
func Measure(ctx context.Context, o Options) (*Report, error) {
	devices := o.Devices
	if len(devices) == 0 {
		devices = DefaultDevices
	}
	var devs []*device.Device
	for _, name := range devices {
		d, err := device.Load(name)
		if err != nil {
			return nil, err
		}
		devs = append(devs, d)
	}
	var rows []variant
	for _, v := range variants() {
		if o.Schemes == nil || v.label == "fp32" || slices.Contains(o.Schemes, v.label) {
			rows = append(rows, v)
		}
	}
	for _, s := range o.Schemes {
		if !slices.ContainsFunc(variants(), func(v variant) bool { return v.label == s }) {
			return nil, fmt.Errorf("accuracy: unknown scheme %q (want one of %q)", s, Schemes())
		}
	}
	r := &Report{}
	for _, n := range o.Networks {
		if err := measure(ctx, n, rows, devs, o, r); err != nil {
			return nil, err
		}
	}
	r.Statements = statements(r.Rows)
	return r, nil
}

func measure(ctx context.Context, n *Network, rows []variant, devs []*device.Device, o Options, r *Report) error {
	if n.Test == nil || n.Test.N == 0 {
		return fmt.Errorf("accuracy: %s has no test images", n.Name)
	}
	fold, err := compile.Fold(n.Graph)
	if err != nil {
		return err
	}
	half, err := quant.Parse("fp16")
	if err != nil {
		return err
	}
	base, err := fold.Apply(half, compile.Options{})
	if err != nil {
		return err
	}
	r.Networks = append(r.Networks, NetworkFacts{n.Name, base.Params, base.MACs, n.Test.N, n.Calibration.N, n.Note})
	var ref [][]float32 // fp32 logits by image
	var refRight []bool
	for _, v := range rows {
		if v.trained && n.Trained == nil {
			continue
		}
		comp, err := v.prepare(ctx, n, fold)
		if err != nil {
			return fmt.Errorf("accuracy: %s, %s: %w", n.Name, v.label, err)
		}
		row := Row{Network: n.Name, Scheme: v.label, PackageBytes: comp.PackageBytes,
			PackageRatio: float64(base.PackageBytes) / float64(comp.PackageBytes), WeightRatio: float64(constBytes(base)) / float64(constBytes(comp)), Units: map[string]int{}}
		if v.a8 {
			row.Calibration = v.method.String()
		}
		for _, c := range comp.Net.Graph.Consts() {
			if len(c.Shape) > 1 && c.DType.IsFloat() && c.Const.Storage.Form() == model.FormDense {
				row.Float++
			}
		}
		mask := units.CPUAndNE
		if v.label == "fp32" {
			mask = units.CPUOnly
		}
		var pins []scheduler.Pin
		for _, d := range devs {
			s, err := runtime.OpenCompiled(comp, runtime.WithDeviceValue(d), runtime.WithUnits(mask), runtime.WithThreads(1))
			if err != nil {
				return fmt.Errorf("accuracy: %s, %s: %w", n.Name, v.label, err)
			}
			row.Latency = append(row.Latency, Latency{d.Name, s.Predict().LatencyMS})
			if pins == nil {
				pins = toNE(s.Predict())
			}
			s.Close()
		}
		s, err := runtime.OpenCompiled(comp, runtime.WithDeviceValue(devs[0]), runtime.WithPins(pins...), runtime.WithUnits(mask), runtime.WithThreads(1))
		if err != nil {
			return fmt.Errorf("accuracy: %s, %s: %w", n.Name, v.label, err)
		}
		for _, l := range s.Predict().Layers {
			row.Units[l.Unit]++
		}
		logits, err := run(ctx, s, n, o.Threads, func(done, total int) {
			if o.Progress != nil {
				o.Progress(n.Name+" "+v.label, done, total)
			}
		})
		s.Close()
		if err != nil {
			return fmt.Errorf("accuracy: %s, %s: %w", n.Name, v.label, err)
		}
		if ref == nil {
			ref = logits
		}
		var sums compare.Sums
		hits, flips := 0, 0
		for i, l := range logits {
			sums.Add(ref[i], l)
			answer := compare.Top1(l)
			flip := answer != compare.Top1(ref[i])
			ok := answer == int(n.Test.Labels[i])
			flips, hits = flips+truth(flip), hits+truth(ok)
			var e float64
			for k, x := range l {
				d := float64(x) - float64(ref[i][k])
				e += d * d
			}
			row.right, row.flipped, row.noise = append(row.right, ok), append(row.flipped, flip), append(row.noise, e)
		}
		if refRight == nil {
			refRight = row.right
		}
		row.Top1 = compare.NewShare(hits, n.Test.N)
		row.Change = change(refRight, row.right)
		row.Flipped = compare.NewShare(flips, n.Test.N)
		row.LogitSNR = sums.Metrics().SNR
		r.Rows = append(r.Rows, row)
	}
	return nil
}

// toNE puts every layer that the Neural Engine supports on it.
func toNE(p *result.Prediction) []scheduler.Pin {
	pins := []scheduler.Pin{}
	for _, l := range p.Layers {
		if slices.Contains(l.SupportedUnits, units.NE.String()) {
			pins = append(pins, scheduler.Pin{Pattern: l.Name, Unit: units.NE})
		}
	}
	return pins
}

// change is the difference that going from one row to another makes.
func change(from, to []bool) compare.Change {
	gained, lost := 0, 0
	for i := range to {
		switch {
		case to[i] && !from[i]:
			gained++
		case from[i] && !to[i]:
			lost++
		}
	}
	return compare.NewChange(gained, lost, len(to))
}

// prepare compresses a network.
func (v variant) prepare(ctx context.Context, n *Network, fold *compile.Folded) (*compile.Compiled, error) {
	if v.trained {
		f, err := compile.Fold(n.Trained)
		if err != nil {
			return nil, err
		}
		return f.Apply(compile.Stored, compile.Options{})
	}
	s, err := quant.Parse(v.scheme)
	if err != nil {
		return nil, err
	}
	if len(s.Stages) > 0 {
		if s, err = s.Override(anySize()); err != nil {
			return nil, err
		}
	}
	if v.blocks {
		skip, err := unreached(fold)
		if err != nil {
			return nil, err
		}
		for i := range s.Stages {
			s.Stages[i].OpNames = skip
		}
	}
	o := compile.Options{Quant: quant.Options{Eager: true}}
	if v.a8 {
		if o.Quant.Ranges, err = n.ranges(ctx, fold.Graph, v.method); err != nil {
			return nil, err
		}
	}
	return fold.Apply(s, o)
}

// anySize compresses weights of any size.
func anySize() quant.Overrides {
	zero := 0
	return quant.Overrides{WeightThreshold: &zero}
}

// unreached returns the weights that blocks of 32 leave float, as entries that
// skip them.
func unreached(fold *compile.Folded) (map[string]quant.OpConfig, error) {
	s, err := quant.Parse("w4b32")
	if err != nil {
		return nil, err
	}
	if s, err = s.Override(anySize()); err != nil {
		return nil, err
	}
	c, err := fold.Apply(s, compile.Options{})
	if err != nil {
		return nil, err
	}
	skip := map[string]quant.OpConfig{}
	for _, w := range c.Report.Weights {
		if w.Scheme == "" {
			skip[w.Name] = nil
		}
	}
	return skip, nil
}

// ranges calibrates on the network's calibration images.
func (n *Network) ranges(ctx context.Context, g *model.Graph, m quant.Method) (quant.Ranges, error) {
	c := quant.Calibration{Method: m}
	in := quant.Slice{}
	for i := range n.Calibration.N {
		in = append(in, map[string]*model.Tensor{g.Inputs[0].Name: n.Calibration.Tensor(i, n.Scale)})
	}
	c.Samples = in
	// One thread: networks this small have nothing to share out within a layer.
	obs := &runtime.Observer{Threads: 1}
	defer obs.Close()
	c.Executor = obs
	return quant.Calibrate(ctx, g, c, nil)
}

// run returns the logits of every test image.
func run(ctx context.Context, s *runtime.Session, n *Network, threads int, progress func(done, total int)) ([][]float32, error) {
	in, out := s.Inputs()[0], s.Outputs()[0]
	if want := (model.Shape{1, 1, n.Test.Rows, n.Test.Cols}); !in.Shape.Equal(want) {
		return nil, fmt.Errorf("the images are %v, the network reads %s", want, in)
	}
	if err := s.Load(); err != nil {
		return nil, err
	}
	if threads <= 0 {
		threads = stdruntime.GOMAXPROCS(0)
	}
	logits := make([][]float32, n.Test.N)
	// Several images a job: one takes well under a millisecond.
	const batch = 20
	jobs := (n.Test.N + batch - 1) / batch
	err := compare.ForEach(ctx, jobs, threads, func(ctx context.Context, j int) (struct{}, error) {
		for i := j * batch; i < min((j+1)*batch, n.Test.N); i++ {
			r, err := s.Run(ctx, map[string]*model.Tensor{in.Name: n.Test.Tensor(i, n.Scale)})
			if err != nil {
				return struct{}{}, fmt.Errorf("image %d: %w", i, err)
			}
			logits[i] = r.Outputs[out.Name].Float32s()
		}
		return struct{}{}, nil
	}, func(j int, _ struct{}) { progress(min((j+1)*batch, n.Test.N), n.Test.N) })
	return logits, err
}

// constBytes is the size of all constants of a compressed graph.
func constBytes(c *compile.Compiled) int64 {
	var n int64
	for _, v := range c.Net.Graph.Consts() {
		n += v.Const.StoredBytes()
	}
	return n
}
