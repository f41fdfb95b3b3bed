package machine

import (
	"fmt"
	"testing"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// The qualitative checks at the end of the hardware facts: what any model of
// these chips must get right. Numbers in the names of tests are theirs.

func latency(t *testing.T, dev string, net *model.Network, mask units.Mask) float64 {
	t.Helper()
	p := predict(t, load(t, dev), net, scheduler.Options{Mask: mask, Policy: scheduler.CoreML})
	if p == nil {
		t.Fatalf("no plan on %s under %s", dev, mask)
	}
	return p.LatencyMS
}

// 1: depthwise-separable networks reach only 5 to 8 % of the fp16 peak.
func TestSanity1Depthwise(t *testing.T) {
	for _, c := range []struct{ dev, net string }{{"a16", "mobilenet_v2"}, {"a17-pro", "mobilenet_v2"}, {"a14", "mobilenet_v2"}} {
		n := network(t, c.net, "fp16")
		macs := int64(0)
		for _, l := range n.Layers {
			macs += l.MACs
		}
		d := load(t, c.dev)
		share := 2 * float64(macs) / latency(t, c.dev, n, units.CPUAndNE) / 1e9 / d.NE.PeakTF.Value
		if share < 0.045 || share > 0.085 {
			t.Errorf("%s on %s runs at %.1f %% of the peak; want 5 to 8", c.net, c.dev, 100*share)
		}
	}
}

// 2: weights alone never speed up compute: see TestWeightsAloneNeverSpeedUpCompute.

// 3: W8A8 gains 1.6 to 1.8 on ResNet50 and 1.2 to 1.3 on MobileViTv2 (published
// medians; each may be a tenth off).
func TestSanity3W8A8(t *testing.T) {
	for _, c := range []struct {
		net    string
		lo, hi float64
	}{{"resnet50", 1.6 / 1.15, 1.8 * 1.15}, {"mobilevit_v2", 1.17 / 1.1, 1.32 * 1.1}} {
		for _, dev := range []string{"a16", "a17-pro"} {
			g := latency(t, dev, network(t, c.net, "fp16"), units.CPUAndNE) / latency(t, dev, network(t, c.net, "w8a8"), units.CPUAndNE)
			if g < c.lo || g > c.hi {
				t.Errorf("%s on %s gains %.2f from W8A8; want %.2f to %.2f", c.net, dev, g, c.lo, c.hi)
			}
		}
	}
}

// 4: a language-model head is bound by 55 to 126 GB/s of weight streaming (AB;
// M5 Pro reaches 143).
func TestSanity4Head(t *testing.T) {
	n := network(t, "lm_head", "fp16")
	var bytes int64
	for _, l := range n.Layers {
		bytes += 2 * l.WeightElems
	}
	measured := map[string]float64{"m1": 60.9, "m1-pro": 54.9, "m1-max": 54.6, "m1-ultra": 54.7, "m2": 60.5, "m2-max": 62.0, "m2-ultra": 61.7,
		"m3": 63.1, "m3-max": 120.2, "m4": 64.2, "m4-pro": 126.4, "m4-max": 118.9, "m5": 70.2}
	for dev, gbs := range measured {
		got := float64(bytes) / latency(t, dev, n, units.CPUAndNE) / 1e6
		if got < 0.9*gbs || got > 1.1*gbs {
			t.Errorf("%s streams the head at %.1f GB/s; measured %.1f", dev, got, gbs)
		}
	}
}

// 5: energy per inference on the Neural Engine is 8 to 16 times below the
// GPU's (ResNet-18 on M5 Pro: 2.2 and 35 mJ; on M2 Pro 2.6 mJ).
func TestSanity5Energy(t *testing.T) {
	for _, dev := range []string{"m2-pro", "m4", "m5-pro", "a16"} {
		for _, name := range []string{"resnet18", "resnet50", "vit_b_16"} {
			n := network(t, name, "fp16")
			d := load(t, dev)
			a := predict(t, d, n, scheduler.Options{Mask: units.CPUAndNE, Policy: scheduler.CoreML})
			b := predict(t, d, n, scheduler.Options{Mask: units.CPUAndGPU, Policy: scheduler.CoreML})
			lo, hi := 8.0, 16.0
			if name == "vit_b_16" || dev == "a16" { // not measured there: half a factor of two either way
				lo, hi = lo/1.5, hi*1.5
			}
			if r := b.EnergyMJ / a.EnergyMJ; r < lo || r > hi {
				t.Errorf("%s on %s: %.1f mJ on the NE, %.1f on the GPU, a factor of %.1f; want %.0f to %.0f", name, dev, a.EnergyMJ, b.EnergyMJ, r, lo, hi)
			}
		}
	}
	p := predict(t, load(t, "m2-pro"), network(t, "resnet18", "fp16"), scheduler.Options{Mask: units.CPUAndNE})
	if p.EnergyMJ < 2.6/1.6 || p.EnergyMJ > 2.6*1.6 {
		t.Errorf("resnet18 on M2 Pro takes %.2f mJ; measured 2.6", p.EnergyMJ)
	}
}

// one returns a network of one operator over an fp16 tensor of the shape.
func one(t *testing.T, op model.Op, shape ...int) *model.Network {
	t.Helper()
	x := &model.Value{Name: "x", DType: model.Float16, Shape: shape}
	y := &model.Value{Name: "y", DType: model.Float16, Shape: shape}
	n := &model.Node{Name: "n", Op: op, Inputs: []*model.Value{x}, Outputs: []*model.Value{y}}
	y.Producer = n
	net, err := model.Lower(&model.Graph{Name: string(op), Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n}})
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// on prices a network on one unit.
func on(t *testing.T, dev string, net *model.Network, k units.Kind) float64 {
	t.Helper()
	p := predict(t, load(t, dev), net, scheduler.Options{Mask: units.All, Policy: scheduler.Pinned, Pins: []scheduler.Pin{{Pattern: "*", Unit: k}}})
	if p == nil {
		t.Fatalf("no plan with everything on the %s of %s", k, dev)
	}
	return p.LatencyMS
}

// 6: stand-alone element-wise operators are slower on the Neural Engine than
// on CPU or GPU. FORGE times relu on M4 at 0.57, 2.31 and 8.86 ms.
func TestSanity6Elementwise(t *testing.T) {
	for elems, ms := range map[int]float64{1 << 20: 0.570, 4 << 20: 2.309, 16 << 20: 8.864} {
		net := one(t, "Relu", 1, elems/4096, 64, 64)
		ne := on(t, "m4", net, units.NE)
		if cpu, gpu := on(t, "m4", net, units.CPU), on(t, "m4", net, units.GPU); ne < cpu || ne < gpu {
			t.Errorf("relu of %d: NE %.3f ms, CPU %.3f, GPU %.3f; the NE should be slowest", elems, ne, cpu, gpu)
		}
		if ne < ms/1.35 || ne > ms*1.35 {
			t.Errorf("relu of %d on the NE of M4: %.3f ms; measured %.3f", elems, ne, ms)
		}
	}
}

// 7: the GPU beats the Neural Engine for large attention-heavy graphs on Max
// and Pro chips.
func TestSanity7Attention(t *testing.T) {
	for _, c := range []struct {
		what  string
		net   *model.Network
		chips []string
	}{
		{"ViT-B/16 at 512 pixels", network(t, "vit_b_16@512", "fp16"), []string{"m1-max", "m2-pro", "m2-max", "m3-max", "m4-max"}},
		{"attention over 1024 tokens", attention(t, 1024), []string{"m1-max", "m2-pro", "m2-max", "m3-max", "m4-pro", "m4-max", "m5-pro"}},
	} {
		for _, dev := range c.chips {
			ne, gpu := latency(t, dev, c.net, units.CPUAndNE), latency(t, dev, c.net, units.CPUAndGPU)
			if gpu >= ne {
				t.Errorf("%s on %s: NE %.2f ms, GPU %.2f", c.what, dev, ne, gpu)
			}
		}
	}
}

// 8: a network small enough runs fastest on the CPU.
func TestSanity8Small(t *testing.T) {
	for _, dev := range []string{"a13", "a14", "a16", "m1", "m4"} {
		p := predict(t, load(t, dev), network(t, "tiny_mlp", "fp16"), scheduler.Options{})
		for _, s := range p.Segments {
			if s.Unit != "CPU" {
				t.Errorf("tiny_mlp on %s has a segment on the %s", dev, s.Unit)
			}
		}
	}
}

// Measurements beside the calibration rows, each within the factor stated.
func TestOtherMeasurements(t *testing.T) {
	stack := func(n int) *model.Network { return convChain(t, n, 512, 64) }
	for _, c := range []struct {
		what   string
		dev    string
		net    *model.Network
		unit   units.Kind
		ms     float64
		factor float64
	}{
		{"128 1x1 convolutions, 512 channels, 64x64 (MADERIX part 4)", "m4", stack(128), units.NE, 14.8, 1.25},
		{"64 of the same", "m4", stack(64), units.NE, 7.5, 1.35},
		{"attention, 197 tokens of 768, 12 heads (FORGE)", "m1-max", attention(t, 197), units.NE, 0.613, 1.25},
		{"attention, 512 tokens (FORGE)", "m1-max", attention(t, 512), units.NE, 1.815, 1.25},
		{"attention, 512 tokens (FORGE)", "m1-max", attention(t, 512), units.GPU, 0.855, 1.6},
		{"256x4096x4096 product (FORGE)", "m1-max", product(t, 256, 4096, 4096), units.NE, 2.394, 1.3},
		{"256x4096x4096 product (FORGE)", "m1-max", product(t, 256, 4096, 4096), units.GPU, 1.179, 1.6},
		{"256x4096x4096 product (FORGE)", "m1-max", product(t, 256, 4096, 4096), units.CPU, 21.4, 1.1},
		{"128x1024x1024 product (FORGE)", "m1-max", product(t, 128, 1024, 1024), units.CPU, 0.676, 1.2},
		{"attention, 197 tokens (FORGE)", "m1-max", attention(t, 197), units.CPU, 4.78, 1.6},
		{"attention, 512 tokens (FORGE)", "m1-max", attention(t, 512), units.CPU, 19.7, 1.8},
		{"4096x4096x4096 product (FORGE)", "m4", product(t, 4096, 4096, 4096), units.GPU, 49.1, 1.2},
		{"one row by 8192x8192 (FORGE)", "m5-pro", product(t, 1, 8192, 8192), units.NE, 0.941, 1.2},
		{"16 3x3 convolutions, 256 channels, 32x32 (FORGE)", "m1-max", convs(t, 16, 256, 32, 3), units.NE, 1.918, 1.2},
		{"1024x1024x1024 product (FORGE)", "m4", product(t, 1024, 1024, 1024), units.NE, 0.746, 1.3},
		{"2048x2048x2048 product (FORGE)", "m4", product(t, 2048, 2048, 2048), units.NE, 3.513, 1.3},
		{"lone 3x3 C256 28x28 (GUIDE 18)", "m1", lone(t, 256, 28, 3), units.NE, 0.507, 1.6},
		{"lone 1x1 C512 32x32 (GUIDE 18)", "m1", lone(t, 512, 32, 1), units.NE, 0.444, 1.6},
	} {
		got := on(t, c.dev, c.net, c.unit)
		t.Logf("%s on the %s of %s: %.3f ms, measured %.3f (%+.0f %%)", c.what, c.unit, c.dev, got, c.ms, 100*(got/c.ms-1))
		if got < c.ms/c.factor || got > c.ms*c.factor {
			t.Errorf("%s on the %s of %s: %.3f ms; measured %.3f", c.what, c.unit, c.dev, got, c.ms)
		}
	}
}

// attention is one self-attention layer: four products with weights, two
// between activations, softmax, and the moves of the heads.
func attention(t *testing.T, seq int) *model.Network {
	t.Helper()
	const dim, heads = 768, 12
	g := &model.Graph{Name: "attention"}
	x := &model.Value{Name: "x", DType: model.Float16, Shape: model.Shape{1, seq, dim}}
	g.Inputs = []*model.Value{x}
	node := func(op model.Op, attrs model.Attrs, shape model.Shape, in ...*model.Value) *model.Value {
		name := fmt.Sprintf("%s%d", op, len(g.Nodes))
		n := &model.Node{Name: name, Op: op, Attrs: attrs, Inputs: in}
		v := &model.Value{Name: name + "_out", DType: model.Float16, Shape: shape, Producer: n}
		n.Outputs = []*model.Value{v}
		g.Nodes = append(g.Nodes, n)
		return v
	}
	project := func(v *model.Value) *model.Value {
		w := &model.Value{Name: fmt.Sprintf("w%d", len(g.Nodes)), DType: model.Float16, Shape: model.Shape{dim, dim}}
		w.Const = model.NewLazy(model.Float16, w.Shape, func() (*model.Tensor, error) { return model.NewTensor(model.Float16, dim, dim), nil })
		return node("MatMul", nil, model.Shape{1, seq, dim}, v, w)
	}
	split := func(v *model.Value, perm ...int) *model.Value {
		in := model.Shape{1, seq, heads, dim / heads}
		out := make(model.Shape, 4)
		for i, p := range perm {
			out[i] = in[p]
		}
		return node("Transpose", model.Attrs{"perm": perm}, out, node("Reshape", nil, in, v))
	}
	q, k, v := split(project(x), 0, 2, 1, 3), split(project(x), 0, 2, 3, 1), split(project(x), 0, 2, 1, 3)
	scores := node("Softmax", model.Attrs{"axis": -1}, model.Shape{1, heads, seq, seq}, node("MatMul", nil, model.Shape{1, heads, seq, seq}, q, k))
	y := node("MatMul", nil, model.Shape{1, heads, seq, dim / heads}, scores, v)
	y = node("Transpose", model.Attrs{"perm": []int{0, 2, 1, 3}}, model.Shape{1, seq, heads, dim / heads}, y)
	g.Outputs = []*model.Value{project(node("Reshape", nil, model.Shape{1, seq, dim}, y))}
	net, err := model.Lower(g)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// product is rows x depth activations times depth x cols weights.
func product(t *testing.T, rows, depth, cols int) *model.Network {
	t.Helper()
	x := &model.Value{Name: "x", DType: model.Float16, Shape: model.Shape{rows, depth}}
	w := &model.Value{Name: "w", DType: model.Float16, Shape: model.Shape{depth, cols}}
	w.Const = model.NewLazy(model.Float16, w.Shape, func() (*model.Tensor, error) { return model.NewTensor(model.Float16, depth, cols), nil })
	n := &model.Node{Name: "product", Op: "MatMul", Inputs: []*model.Value{x, w}}
	y := &model.Value{Name: "y", DType: model.Float16, Shape: model.Shape{rows, cols}, Producer: n}
	n.Outputs = []*model.Value{y}
	net, err := model.Lower(&model.Graph{Name: "product", Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n}})
	if err != nil {
		t.Fatal(err)
	}
	return net
}

func lone(t *testing.T, ch, side, k int) *model.Network {
	return convs(t, 1, ch, side, k)
}

func convChain(t *testing.T, n, ch, side int) *model.Network { return convs(t, n, ch, side, 1) }

func convs(t *testing.T, n, ch, side, k int) *model.Network {
	t.Helper()
	g := &model.Graph{Name: "convs"}
	v := &model.Value{Name: "x", DType: model.Float16, Shape: model.Shape{1, ch, side, side}}
	g.Inputs = []*model.Value{v}
	for i := range n {
		w := &model.Value{Name: fmt.Sprintf("w%d", i), DType: model.Float16, Shape: model.Shape{ch, ch, k, k}}
		w.Const = model.NewLazy(model.Float16, w.Shape, func() (*model.Tensor, error) { return model.NewTensor(model.Float16, ch, ch, k, k), nil })
		p := k / 2
		c := &model.Node{Name: fmt.Sprintf("c%d", i), Op: "Conv", Inputs: []*model.Value{v, w},
			Attrs: model.Attrs{"kernel_shape": []int{k, k}, "strides": []int{1, 1}, "dilations": []int{1, 1}, "pads": []int{p, p, p, p}, "group": 1}}
		v = &model.Value{Name: c.Name + "_out", DType: model.Float16, Shape: v.Shape, Producer: c}
		c.Outputs = []*model.Value{v}
		g.Nodes = append(g.Nodes, c)
	}
	g.Outputs = []*model.Value{v}
	net, err := model.Lower(g)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// Every chip without measurements says so.
func TestExtrapolationIsSaid(t *testing.T) {
	for _, c := range []struct {
		dev  string
		unit units.Kind
		said bool
	}{{"a16", units.NE, false}, {"a16", units.GPU, true}, {"a13", units.GPU, false}, {"a14", units.CPU, true}} {
		m, err := New(load(t, c.dev))
		if err != nil {
			t.Fatal(err)
		}
		s := m.Spread[c.unit]
		if s.Low > 1 || s.High < 1 || (s.Note != "") != c.said {
			t.Errorf("%s %s: %+v; want a note: %v", c.dev, c.unit, s, c.said)
		}
	}
}

// BenchmarkPrice is ResNet50 on three units.
func BenchmarkPrice(b *testing.B) {
	d, err := device.Load("iphone-14-pro")
	if err != nil {
		b.Fatal(err)
	}
	m, err := New(d)
	if err != nil {
		b.Fatal(err)
	}
	net := network(b, "resnet50", "fp16")
	var e units.Estimate
	b.ReportAllocs()
	for b.Loop() {
		for _, l := range net.Layers {
			for _, u := range m.Units {
				u.Estimate(l, &e)
			}
		}
	}
}

func TestPricingAllocatesNothing(t *testing.T) {
	m, err := New(load(t, "iphone-14-pro"))
	if err != nil {
		t.Fatal(err)
	}
	net := network(t, "mobilevit_v2", "w8a8")
	var e units.Estimate
	if n := testing.AllocsPerRun(10, func() {
		for _, l := range net.Layers {
			for _, u := range m.Units {
				u.Estimate(l, &e)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
