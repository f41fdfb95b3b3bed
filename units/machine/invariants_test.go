package machine

import (
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// The invariants of the design, on the real units: 1 (finite, parts sum), 2
// (monotone), 3 (no dead knob), 4 (nothing is free), 9 (W8 never speeds up
// compute).

var cache sync.Map

func network(t testing.TB, name, scheme string) *model.Network {
	t.Helper()
	key := name + " " + scheme
	if n, ok := cache.Load(key); ok {
		return n.(*model.Network)
	}
	g, err := zoo.Build(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := passes.Default(g); err != nil {
		t.Fatal(err)
	}
	s, err := quant.Parse(scheme)
	if err != nil {
		t.Fatal(err)
	}
	if g, _, err = quant.Apply(g, s, quant.Options{}); err != nil {
		t.Fatal(err)
	}
	n, err := model.Lower(g)
	if err != nil {
		t.Fatal(err)
	}
	cache.Store(key, n)
	return n
}

func load(t testing.TB, name string, changes ...string) *device.Device {
	t.Helper()
	d, err := device.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) > 0 {
		if d, err = d.Override(changes...); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func predict(t testing.TB, d *device.Device, net *model.Network, o scheduler.Options) *result.Prediction {
	t.Helper()
	m, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	p, err := scheduler.Solve(net, m, o)
	if err != nil {
		return nil // no plan under these constraints
	}
	return scheduler.NewPrediction(net, m, p, scheduler.Meta{PackageBytes: 10e6})
}

var schemes = []string{"fp16", "w8", "w8a8", "w4b32", "w4", "p4", "s75"}

// Every figure of every layer on every unit of every device is finite and not
// negative, the combined time covers its parts, and nothing is free.
func TestEstimatesAreSound(t *testing.T) {
	names := zoo.Names()
	if testing.Short() {
		names = []string{"mobilenet_v2", "mobilevit_v2"}
	}
	for _, dev := range device.Names() {
		m, err := New(load(t, dev))
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			scheme := schemes[i%len(schemes)]
			for _, l := range network(t, name, scheme).Layers {
				for _, u := range m.Units {
					if u == nil || !u.Support(l).OK {
						continue
					}
					var e units.Estimate
					u.Estimate(l, &e)
					if msg := unsound(&e); msg != "" {
						t.Errorf("%s %s %s, layer %s (%s) on %s: %s: %+v", dev, name, scheme, l.Name, l.Op, u.Kind(), msg, e)
					}
				}
			}
		}
	}
}

func unsound(e *units.Estimate) string {
	for _, v := range []float64{e.ComputeMS, e.ActivationMS, e.WeightMS, e.ExpandMS, e.BusyMS, e.OverheadMS, e.EnergyMJ,
		float64(e.InputBytes), float64(e.OutputBytes), float64(e.WeightBytes), float64(e.DRAMBytes), float64(e.ChipBytes), float64(e.ResidentBytes)} {
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			return "a figure is negative or not finite"
		}
	}
	const eps = 1e-9
	switch {
	case e.BusyMS+eps < e.ComputeMS || e.BusyMS+eps < e.ActivationMS:
		return "busy time is less than one of its parts"
	case e.BusyMS > e.ComputeMS+e.ActivationMS+e.ExpandMS+eps:
		return "busy time is more than the sum of its parts"
	case e.BusyMS+e.OverheadMS <= 0:
		return "the layer is free"
	}
	return ""
}

// A scenario is a prediction that a figure may change.
type scenario struct {
	net     *model.Network
	options scheduler.Options
}

// scenarios lists predictions for the figures of one section of a device
// ("cpu", "gpu", "ne", "link"), the likeliest to change first; for any other
// section, those of the whole device.
func scenarios(t *testing.T, d *device.Device, section string) (list []scenario) {
	add := func(name, scheme string, o scheduler.Options) {
		list = append(list, scenario{network(t, name, scheme), o})
	}
	pin := func(u units.Kind) scheduler.Options {
		return scheduler.Options{Pins: []scheduler.Pin{{Pattern: "*", Unit: u}}}
	}
	pinned := func(u units.Kind) {
		for _, s := range schemes {
			add("mobilevit_v2", s, pin(u))
		}
		for _, name := range []string{"resnet18", "lm_head", "tiny_decoder", "alexnet", "convnext_tiny", "efficientnet_b5", "decoder_1l"} {
			add(name, "fp16", pin(u))
		}
		for _, net := range []*model.Network{attention(t, 197), dilated(t), upsampled(t), one(t, "Sin", 1, 64, 56, 56)} {
			list = append(list, scenario{net, pin(u)})
		}
	}
	switch section {
	case "cpu":
		pinned(units.CPU)
	case "gpu":
		pinned(units.GPU)
	case "ne":
		pinned(units.NE)
	case "link":
		for _, pair := range [][2]units.Kind{{units.CPU, units.GPU}, {units.CPU, units.NE}, {units.GPU, units.NE}} {
			if pair[1] == units.NE && !d.HasNE {
				continue
			}
			add("resnet18", "fp16", scheduler.Options{Pins: []scheduler.Pin{{Pattern: "*", Unit: pair[0]}, {Pattern: "layer3*", Unit: pair[1]}}})
		}
	default:
		for _, u := range []units.Kind{units.GPU, units.CPU, units.NE} {
			if u != units.NE || d.HasNE {
				add("mobilenet_v2", "w8a8", pin(u))
				add("lm_head", "fp16", pin(u))
				add("efficientnet_b5", "fp16", pin(u))
			}
		}
	}
	return list
}

// dilated is a 3x3 convolution with holes, as in segmentation networks.
func dilated(t *testing.T) *model.Network {
	t.Helper()
	x := &model.Value{Name: "x", DType: model.Float16, Shape: model.Shape{1, 64, 56, 56}}
	w := &model.Value{Name: "w", DType: model.Float16, Shape: model.Shape{64, 64, 3, 3}}
	w.Const = model.NewLazy(model.Float16, w.Shape, func() (*model.Tensor, error) { return model.NewTensor(model.Float16, 64, 64, 3, 3), nil })
	return lower(t, &model.Node{Name: "dilated", Op: "Conv", Inputs: []*model.Value{x, w},
		Attrs: model.Attrs{"kernel_shape": []int{3, 3}, "strides": []int{1, 1}, "dilations": []int{2, 2}, "pads": []int{2, 2, 2, 2}, "group": 1}}, x.Shape)
}

// upsampled enlarges four times, as in segmentation networks.
func upsampled(t *testing.T) *model.Network {
	t.Helper()
	x := &model.Value{Name: "x", DType: model.Float16, Shape: model.Shape{1, 64, 28, 28}}
	return lower(t, &model.Node{Name: "upsampled", Op: "Resize", Inputs: []*model.Value{x}, Attrs: model.Attrs{"mode": "linear"}}, model.Shape{1, 64, 112, 112})
}

// lower makes a network of one node whose first input is the graph's.
func lower(t *testing.T, n *model.Node, out model.Shape) *model.Network {
	t.Helper()
	y := &model.Value{Name: "y", DType: model.Float16, Shape: out, Producer: n}
	n.Outputs = []*model.Value{y}
	net, err := model.Lower(&model.Graph{Name: n.Name, Inputs: n.Inputs[:1], Outputs: n.Outputs, Nodes: []*model.Node{n}})
	if err != nil {
		t.Fatal(err)
	}
	return net
}

func same(a, b *result.Prediction) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.LatencyMS == b.LatencyMS && a.EnergyMJ == b.EnergyMJ && a.LoadMS == b.LoadMS && a.LatencyP10MS == b.LatencyP10MS &&
		a.LatencyP90MS == b.LatencyP90MS && a.PeakMemoryBytes == b.PeakMemoryBytes && a.WeightMemoryBytes == b.WeightMemoryBytes &&
		fmt.Sprint(a.Segments) == fmt.Sprint(b.Segments)
}

// Every numeric parameter and every flag of every chip, and of a product,
// changes some prediction.
func TestNoDeadKnob(t *testing.T) {
	each(t, append(chips(t), "iphone-11-pro"), func(t *testing.T, name string) {
		d := load(t, name)
		type tried struct {
			scenario
			base *result.Prediction
		}
		sections := map[string][]*tried{}
		alive := func(path string, changes ...string) bool {
			section, _, _ := strings.Cut(path, ".")
			if sections[section] == nil {
				for _, s := range scenarios(t, d, section) {
					sections[section] = append(sections[section], &tried{scenario: s})
				}
			}
			for _, s := range sections[section] {
				if s.base == nil {
					s.base = predict(t, d, s.net, s.options)
				}
				for _, c := range changes {
					if x, err := d.Override(path + "=" + c); err == nil && !same(s.base, predict(t, x, s.net, s.options)) {
						return true
					}
				}
			}
			return false
		}
		for _, p := range d.Params() {
			if !alive(p.Path, "x0.5", "x2", "+1", "x0.001") {
				t.Errorf("%s: %s (%s) changes nothing", name, p.Path, p.Doc)
			}
		}
		for _, f := range d.Flags() {
			if !alive(f.Path, fmt.Sprint(!f.Value)) {
				t.Errorf("%s: flag %s (%s) changes nothing", name, f.Path, f.Doc)
			}
		}
	})
}

// chips lists every chip of the catalogue.
func chips(t *testing.T) []string {
	t.Helper()
	c, err := device.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return c.Chips()
}

// each runs f for devices, in parallel.
func each(t *testing.T, devices []string, f func(t *testing.T, name string)) {
	for _, name := range devices {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, name)
		})
	}
}

func long() bool { return os.Getenv("TRIUNE_LONG") != "" }

// better tells the direction in which a figure helps: +1 a greater value never
// hurts, -1 a smaller one never does, 0 neither is promised.
func better(path string) int {
	_, key, _ := strings.Cut(path, ".")
	if key == "" {
		key = path
	}
	switch {
	case strings.HasPrefix(path, "uncertainty."), strings.HasPrefix(path, "energy."), strings.HasPrefix(path, "load."), key == "idle_watts":
		return 0
	case strings.HasSuffix(key, "_ms"), strings.HasSuffix(key, "_us"), strings.HasSuffix(key, "_passes"), strings.HasSuffix(key, "_half"),
		key == "half_kops", key == "move_factor", key == "concat_factor", key == "oc_group":
		return -1
	}
	return +1
}

// A better figure never raises the optimal latency (invariant 2), on any chip:
// with one network a chip in turn, with TRIUNE_LONG set with every network of
// the zoo.
func TestMonotone(t *testing.T) {
	nets := [][2]string{{"mobilenet_v2", "fp16"}, {"mobilenet_v2", "w8a8"}, {"resnet50", "w8"}, {"mobilevit_v2", "w8a8"}, {"lm_head", "w4b32"}, {"vgg16", "fp16"}, {"decoder_1l", "p4"}}
	if long() {
		for i, n := range zoo.Names() {
			nets = append(nets, [2]string{n, schemes[i%len(schemes)]})
		}
	}
	turn := map[string]int{}
	all := chips(t)
	for i, name := range all {
		turn[name] = i
	}
	each(t, all, func(t *testing.T, name string) {
		d := load(t, name)
		for i, n := range nets {
			if !long() && i != turn[name]%len(nets) {
				continue
			}
			net := network(t, n[0], n[1])
			base := predict(t, d, net, scheduler.Options{})
			for _, p := range d.Params() {
				dir := better(p.Path)
				if dir == 0 || p.Path == "ne.oc_group" {
					continue
				}
				change := p.Path + "=x1.4"
				if dir < 0 {
					change = p.Path + "=x0.6"
				}
				x := predict(t, load(t, name, change), net, scheduler.Options{})
				if x.LatencyMS > base.LatencyMS*(1+1e-12) {
					t.Errorf("%s, %s %s: %s raises the latency from %v to %v", name, n[0], n[1], change, base.LatencyMS, x.LatencyMS)
				}
			}
		}
	})
}

// More work never costs less: a layer with a larger product or larger tensors
// takes no less time on any unit.
func TestMoreWorkNeverCostsLess(t *testing.T) {
	var all []units.Unit
	for _, name := range []string{"iphone-14-pro", "iphone-15-pro", "m4", "iphone-11-pro"} {
		m, err := New(load(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range m.Units {
			all = append(all, u)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		u := all[rapid.IntRange(0, len(all)-1).Draw(t, "unit")]
		conv := func(out, k, cin, cout int) *model.Layer {
			l := &model.Layer{Kind: model.KindConv, Op: "Conv"}
			f := &l.Facts
			f.Batch, f.InC, f.OutC, f.InH, f.InW, f.OutH, f.OutW = 1, cin, cout, out, out, out, out
			f.KD, f.KH, f.KW, f.StrideH, f.StrideW, f.DilH, f.DilW, f.Groups, f.Rank = 1, k, k, 1, 1, 1, 1, 1, 4
			f.M, f.K, f.N, f.Repeat = int64(out*out), int64(cin*k*k), int64(cout), 1
			f.MACs = f.M * f.K * f.N
			f.InElems, f.OutElems = int64(out*out*cin), int64(out*out*cout)
			f.InPad64, f.OutPad64 = 1, 1
			f.WeightElems = f.K * f.N
			f.WeightBytes, f.WeightReadBytes, f.WeightDenseBytes, f.WeightBits = 2*f.WeightElems, 2*f.WeightElems, 2*f.WeightElems, 16
			return l
		}
		out, cin, cout := rapid.IntRange(1, 112).Draw(t, "side"), rapid.IntRange(1, 512).Draw(t, "in"), rapid.IntRange(1, 512).Draw(t, "out")
		k := rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "k")
		small := conv(out, k, cin, cout)
		big := conv(out+rapid.IntRange(0, 64).Draw(t, "+side"), k, cin+rapid.IntRange(0, 256).Draw(t, "+in"), cout+rapid.IntRange(0, 256).Draw(t, "+out"))
		var a, b units.Estimate
		u.Estimate(small, &a)
		u.Estimate(big, &b)
		if b.BusyMS+b.OverheadMS < (a.BusyMS+a.OverheadMS)*(1-1e-12) || b.WeightMS < a.WeightMS*(1-1e-12) || b.EnergyMJ < a.EnergyMJ*(1-1e-12) {
			t.Fatalf("%s: %dx%d k%d %d->%d takes %v ms %v mJ; %dx%d %d->%d takes %v ms %v mJ", u.Kind(), out, out, k, cin, cout, a.BusyMS+a.OverheadMS, a.EnergyMJ,
				big.OutH, big.OutW, big.InC, big.OutC, b.BusyMS+b.OverheadMS, b.EnergyMJ)
		}
	})
}

// W8 never speeds up compute, on any unit (invariant 9).
func TestWeightsAloneNeverSpeedUpCompute(t *testing.T) {
	for _, dev := range device.Names() {
		m, err := New(load(t, dev))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"resnet50", "mobilenet_v2", "vit_b_16"} {
			a, b := network(t, name, "fp16"), network(t, name, "w8")
			for i, l := range a.Layers {
				for _, u := range m.Units {
					if u == nil || !u.Support(l).OK || !u.Support(b.Layers[i]).OK {
						continue
					}
					var x, y units.Estimate
					u.Estimate(l, &x)
					u.Estimate(b.Layers[i], &y)
					if y.ComputeMS < x.ComputeMS || y.BusyMS < x.BusyMS {
						t.Errorf("%s %s: layer %s on %s computes in %v ms with W8, %v with fp16", dev, name, l.Name, u.Kind(), y.BusyMS, x.BusyMS)
					}
				}
			}
		}
	}
}
