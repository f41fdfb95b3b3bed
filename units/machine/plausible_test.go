package machine

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// What a reader who knows these chips would call absurd, tried on every chip
// with networks and schemes that entered no fit as well as with those that did.

var masks = []units.Mask{units.CPUOnly, units.CPUAndGPU, units.CPUAndNE, units.All}

// sweep predicts networks under schemes and masks on every chip.
func sweep(t *testing.T, nets, schemes []string, f func(d *device.Device, net, scheme string, mask units.Mask, p *result.Prediction)) {
	t.Helper()
	if testing.Short() {
		t.Skip("thousands of predictions, one after the other")
	}
	for _, chip := range chips(t) {
		d := load(t, chip)
		for _, n := range nets {
			for _, s := range schemes {
				for _, m := range masks {
					p := predict(t, d, network(t, n, s), scheduler.Options{Mask: m})
					if p == nil {
						t.Fatalf("%s %s on %s under %s: no plan", n, s, chip, m)
					}
					f(d, n, s, m, p)
				}
			}
		}
	}
}

// Nothing computes above its peak, reads above the DRAM's bandwidth, draws
// more than the product could cool for long, or loads for nothing.
func TestNothingExceedsTheHardware(t *testing.T) {
	nets := []string{"vgg16", "resnet50", "mobilenet_v2", "vit_b_16", "bert_base", "lm_head", "fc_stack", "decoder_24l", "efficientnet_v2_s", "tiny_mlp"}
	sweep(t, nets, []string{"fp16", "w8a8", "w4"}, func(d *device.Device, net, scheme string, mask units.Mask, p *result.Prediction) {
		at := fmt.Sprintf("%s %s on %s under %s", net, scheme, d.Name, mask)
		// Multiply-adds that Winograd saves count as computed.
		peak := d.CPU.MatrixGF.Value / 1e3 * d.CPU.Winograd.Value
		if mask.Has(units.GPU) {
			peak = max(peak, d.GPU.PeakTF.Value*d.GPU.Winograd.Value)
		}
		if mask.Has(units.NE) && d.HasNE {
			peak = max(peak, d.NE.PeakTF.Value*d.NE.Int8Factor.Value*d.NE.Winograd.Value)
		}
		if tops := 2 * float64(p.MACs) / p.LatencyMS / 1e9; tops > peak {
			t.Errorf("%s: %.2f TOPS; the units' peak is %.2f", at, tops, peak)
		}
		read := 0.0
		for _, l := range p.Layers {
			read += float64(l.WeightBytes)
		}
		if gbs := read / p.LatencyMS / 1e6; gbs > d.DRAMGBs.Value {
			t.Errorf("%s: reads %.0f GB/s of weights; the DRAM gives %.0f", at, gbs, d.DRAMGBs.Value)
		}
		if w := p.EnergyMJ / p.LatencyMS; w > watts(d.Name) {
			t.Errorf("%s: %.1f W; at most %.0f is plausible", at, w, watts(d.Name))
		}
		if !(p.LoadCachedMS > 0 && p.LoadMS >= p.LoadCachedMS) {
			t.Errorf("%s: loads in %v ms, from the cache in %v", at, p.LoadMS, p.LoadCachedMS)
		}
		parts := p.HandlingMS + p.FloorMS + p.LayersMS + p.TransferMS
		if math.Abs(parts-p.LatencyMS) > 1e-9*p.LatencyMS {
			t.Errorf("%s: parts sum to %v of %v ms", at, parts, p.LatencyMS)
		}
	})
}

// watts is what a chip of the class may draw in a burst: phones about 10,
// others as their products' power supplies allow.
func watts(chip string) float64 {
	switch {
	case chip == "a12x":
		return 16
	case chip[0] == 'a':
		return 11
	case strings.Contains(chip, "ultra"):
		return 220
	case strings.Contains(chip, "max"):
		return 120
	case strings.Contains(chip, "pro"):
		return 70
	}
	return 45
}

// Where reading weights is all there is to do, fewer bytes are never slower;
// elsewhere expanding them costs at most a tenth.
func TestCompressionNeverHurtsMuch(t *testing.T) {
	base := map[string]float64{}
	nets := []string{"lm_head", "fc_stack", "decoder_24l", "resnet50", "mobilenet_v2", "vit_b_16", "densenet121"}
	sweep(t, nets, []string{"fp16", "w8", "w4", "w4b32", "p4", "s75"}, func(d *device.Device, net, scheme string, mask units.Mask, p *result.Prediction) {
		at := fmt.Sprint(net, d.Name, mask)
		if scheme == "fp16" {
			base[at] = p.LatencyMS
			return
		}
		limit := 1.1
		if net == "lm_head" || net == "fc_stack" || net == "decoder_24l" {
			limit = 1.001
		}
		if p.LatencyMS > limit*base[at] {
			t.Errorf("%s on %s under %s: %s takes %.3f ms, fp16 %.3f", net, d.Name, mask, scheme, p.LatencyMS, base[at])
		}
	})
}

// More of the same network takes longer: more pixels, more tokens, wider or
// deeper members of a family.
func TestLargerIsSlower(t *testing.T) {
	families := [][]string{
		{"mobilenet_v2@160", "mobilenet_v2", "mobilenet_v2@320"}, {"resnet50@160", "resnet50", "resnet50@448"}, {"vit_b_16", "vit_b_16@384"},
		{"mobilenet_v2_0.35", "mobilenet_v2_0.5", "mobilenet_v2", "mobilenet_v2_1.4"}, {"resnet18", "resnet34", "resnet101"}, {"vgg11", "vgg19"},
		{"efficientnet_b0", "efficientnet_b1", "efficientnet_b3"}, {"deit_ti", "deit_s", "vit_b_16"}, {"bert_base", "bert_base@512"}, {"decoder_1l", "decoder_24l"}, {"lm_head", "lm_head_8b"},
	}
	for i, family := range families {
		last := map[string]float64{}
		sweep(t, family, schemes[i%3:i%3+1], func(d *device.Device, net, scheme string, mask units.Mask, p *result.Prediction) {
			at := fmt.Sprint(d.Name, mask)
			if p.LatencyMS <= last[at] {
				t.Errorf("%s %s on %s under %s takes %.3f ms, a smaller one of the family %.3f", net, scheme, d.Name, mask, p.LatencyMS, last[at])
			}
			last[at] = p.LatencyMS
		})
	}
}

// A newer or larger chip of a class is no slower. Three differences are real
// and stay below a quarter: the measured weight streams of M1 Pro and M4 Max
// are below those of M1 and M4 Pro, and A18 has five GPU cores for the six of
// A17 Pro. M3 Pro, with three quarters of the bandwidth of M2 Pro, is left out.
func TestNewerChipsAreNoSlower(t *testing.T) {
	nets := []string{"resnet50", "mobilenet_v2", "vit_b_16", "vgg19", "decoder_24l", "lm_head", "densenet121", "efficientnet_b5", "mobilevit_v2", "resnext50_32x4d"}
	classes := [][]string{
		{"a12", "a13", "a14", "a15", "a16", "a17-pro", "a18", "a18-pro"}, {"a12", "a12x"},
		{"m1", "m2", "m3", "m4", "m5"}, {"m1-pro", "m2-pro", "m4-pro", "m5-pro"}, {"m1-max-24", "m1-max", "m2-max", "m3-max", "m4-max", "m5-max"}, {"m1-ultra", "m2-ultra", "m3-ultra"},
		{"m1", "m1-pro", "m1-max", "m1-ultra"}, {"m2", "m2-pro", "m2-max", "m2-ultra"}, {"m3", "m3-pro", "m3-max", "m3-ultra"}, {"m4", "m4-pro", "m4-max"}, {"m5", "m5-pro", "m5-max"},
		{"a14", "m1"}, {"a15", "m2"},
	}
	ms := map[string]float64{}
	used := []string{"fp16", "w8a8", "p4"}
	sweep(t, nets, used, func(d *device.Device, net, scheme string, mask units.Mask, p *result.Prediction) {
		ms[fmt.Sprint(d.Name, net, scheme, mask)] = p.LatencyMS
	})
	for _, class := range classes {
		for i := 1; i < len(class); i++ {
			for _, n := range nets {
				for _, s := range used {
					for _, m := range masks {
						a, b := ms[fmt.Sprint(class[i-1], n, s, m)], ms[fmt.Sprint(class[i], n, s, m)]
						limit := 1.02
						switch class[i] {
						case "m1-pro", "m4-max", "a18":
							limit = 1.25
						}
						if a == 0 || b > limit*a {
							t.Errorf("%s %s under %s: %s takes %.3f ms, %s %.3f", n, s, m, class[i-1], a, class[i], b)
						}
					}
				}
			}
		}
	}
}

// A batch of eight takes no longer than eight requests: images are independent,
// and weights are read once.
func TestBatchesPay(t *testing.T) {
	for _, name := range []string{"mobilenet_v2", "densenet121", "resnet18", "regnet_y_400mf"} {
		one, eight := batched(t, name, 1), batched(t, name, 8)
		for _, chip := range chips(t) {
			for _, m := range masks {
				a := predict(t, load(t, chip), one, scheduler.Options{Mask: m})
				b := predict(t, load(t, chip), eight, scheduler.Options{Mask: m})
				if b.LatencyMS > 8*a.LatencyMS || b.LatencyMS < a.LatencyMS {
					t.Errorf("%s on %s under %s: one image %.3f ms, eight %.3f", name, chip, m, a.LatencyMS, b.LatencyMS)
				}
			}
		}
	}
}

// batched lowers a network of the zoo for a number of images.
func batched(t *testing.T, name string, images int) *model.Network {
	t.Helper()
	g, err := zoo.Build(name)
	if err != nil {
		t.Fatal(err)
	}
	g.Inputs[0].Shape = append(model.Shape{images}, g.Inputs[0].Shape[1:]...)
	for _, n := range g.Nodes {
		for _, v := range n.Outputs {
			v.Shape = ops.Unranked()
		}
	}
	if err := ops.InferGraph(g); err != nil {
		t.Fatal(err)
	}
	if err := passes.Default(g); err != nil {
		t.Fatal(err)
	}
	net, err := model.Lower(g)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// A gather reads rows: its time does not depend on the size of its table.
func TestGatherReadsRows(t *testing.T) {
	for _, scheme := range []string{"fp16", "w4", "w4b32"} {
		net := network(t, "decoder_1l", scheme)
		for _, chip := range []string{"a16", "m4", "m5-max"} {
			m, err := New(load(t, chip))
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range m.Units {
				var e units.Estimate
				for _, l := range net.Layers {
					if l.Kind != model.KindGather || !u.Support(l).OK {
						continue
					}
					if u.Estimate(l, &e); e.BusyMS > 0.001 {
						t.Errorf("%s %s: %s of %d weights takes %v ms on the %s for %d outputs", chip, scheme, l.Name, l.WeightElems, e.BusyMS, u.Kind(), l.OutElems)
					}
				}
			}
		}
	}
}

// On every CPU a product of one row waits for its weights, and rows more never
// take less.
func TestOneRowIsBoundByMemory(t *testing.T) {
	for _, chip := range chips(t) {
		d := load(t, chip)
		want := 4 * 2048 * 128256 / (d.DRAMGBs.Value * d.CPU.DRAMShare.Value * 1e6)
		if got := on(t, chip, network(t, "lm_head", "fp16"), units.CPU); got < want || got > 1.1*want+0.2 {
			t.Errorf("%s: the language-model head takes %.2f ms on the CPU, its weights %.2f", chip, got, want)
		}
		last := 0.0
		for _, rows := range []int{1, 2, 4, 8, 16, 32, 64, 128} {
			ms := on(t, chip, product(t, rows, 4096, 4096), units.CPU)
			if ms < last*(1-1e-9) {
				t.Errorf("%s: %d rows take %.3f ms, half of them %.3f", chip, rows, ms, last)
			}
			last = ms
		}
	}
}
