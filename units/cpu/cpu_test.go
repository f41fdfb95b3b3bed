package cpu

import (
	"strings"
	"testing"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

func conv(groups int, kind model.Kind) *model.Layer {
	const c, px = 256, 28 * 28
	k, n := int64(c/groups*9), int64(c/groups)
	return &model.Layer{Op: "Conv", Kind: kind, Facts: model.Facts{
		KD: 1, KH: 3, KW: 3, StrideH: 1, StrideW: 1, DilH: 1, DilW: 1, Groups: groups, Rank: 4,
		M: px, K: k, N: n, Repeat: int64(groups), MACs: px * k * n * int64(groups), InElems: c * px, OutElems: c * px,
		WeightElems: k * c, WeightBytes: 2 * k * c, WeightReadBytes: 2 * k * c,
	}}
}

func TestTwoEngines(t *testing.T) {
	d, err := device.Load("m1")
	if err != nil {
		t.Fatal(err)
	}
	fast, err := d.Override("cpu.matrix_gf=x2")
	if err != nil {
		t.Fatal(err)
	}
	var a, b units.Estimate
	dense, depthwise := conv(1, model.KindConv), conv(256, model.KindDepthwise)
	New(d).Estimate(dense, &a)
	New(fast).Estimate(dense, &b)
	if !(b.ComputeMS < 0.6*a.ComputeMS) {
		t.Errorf("a matrix unit twice as fast: %g ms after %g", b.ComputeMS, a.ComputeMS)
	}
	New(d).Estimate(depthwise, &a)
	New(fast).Estimate(depthwise, &b)
	if a.ComputeMS != b.ComputeMS {
		t.Errorf("a depthwise convolution runs on the vector units, yet %g ms became %g", a.ComputeMS, b.ComputeMS)
	}
	if a.WeightBytes != 4*depthwise.WeightElems || a.InputBytes != 4*depthwise.InElems {
		t.Errorf("the CPU keeps fp32: %d weight bytes, %d input bytes", a.WeightBytes, a.InputBytes)
	}
}

func TestSupportsEverything(t *testing.T) {
	d, err := device.Load("a10")
	if err != nil {
		t.Fatal(err)
	}
	u := New(d)
	for k := range model.KindControl + 1 {
		if s := u.Support(&model.Layer{Kind: k, Facts: model.Facts{Dynamic: true, Float32: true, Rank: 20}}); !s.OK {
			t.Errorf("%s: %s", k, s.Reason)
		}
	}
	if s := u.Support(&model.Layer{Kind: model.KindConv, Facts: model.Facts{QuantInElems: 1}}); !strings.Contains(s.Reason, "run time") {
		t.Errorf("quantized activations: %q", s.Reason)
	}
}
