package gpu

import (
	"strings"
	"testing"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

func unit(t testing.TB, name string, changes ...string) *Unit {
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
	return New(d)
}

func linear() *model.Layer {
	return &model.Layer{Op: "Gemm", Kind: model.KindLinear, Facts: model.Facts{
		M: 1, K: 4096, N: 4096, Repeat: 1, MACs: 1 << 24, Rank: 2, InElems: 4096, OutElems: 4096,
		WeightElems: 1 << 24, WeightBytes: 1 << 25, WeightReadBytes: 1 << 25, WeightDenseBytes: 1 << 25, WeightBits: 16,
	}}
}

func TestBlocksStayPacked(t *testing.T) {
	var dense, packed, off units.Estimate
	l := linear()
	u := unit(t, "m4")
	u.Estimate(l, &dense)
	l.WeightForm, l.WeightBits, l.WeightGran, l.WeightBlock = model.FormAffine, 4, model.PerBlock, 32
	l.WeightBytes, l.WeightReadBytes = 1<<23+1<<20, 1<<23+1<<20
	u.Estimate(l, &packed)
	if packed.WeightBytes*3 > dense.WeightBytes || packed.ResidentBytes != packed.WeightBytes || packed.ExpandMS <= 0 {
		t.Errorf("int4 per block moves %d of %d bytes, keeps %d, expands for %g ms", packed.WeightBytes, dense.WeightBytes, packed.ResidentBytes, packed.ExpandMS)
	}
	unit(t, "m4", "gpu.packed_int4=false").Estimate(l, &off)
	if off.WeightBytes != dense.WeightBytes {
		t.Errorf("without packing: %d bytes, want %d", off.WeightBytes, dense.WeightBytes)
	}
}

func TestQuantizedActivationsCostPasses(t *testing.T) {
	var plain, quant, fused units.Estimate
	l := linear()
	u := unit(t, "a16")
	u.Estimate(l, &plain)
	l.QuantIn, l.QuantWeight, l.QuantInElems, l.QuantOutElems = true, true, l.InElems, l.OutElems
	u.Estimate(l, &quant)
	if quant.BusyMS <= plain.BusyMS || quant.ComputeMS != plain.ComputeMS {
		t.Errorf("W8A8: busy %g, compute %g; fp16: %g, %g", quant.BusyMS, quant.ComputeMS, plain.BusyMS, plain.ComputeMS)
	}
	unit(t, "a16", "gpu.w8a8_passes=0").Estimate(l, &fused)
	if fused.BusyMS != plain.BusyMS {
		t.Errorf("no passes: busy %g, want %g", fused.BusyMS, plain.BusyMS)
	}
}

func TestSupport(t *testing.T) {
	u := unit(t, "m4")
	for _, c := range []struct {
		kind model.Kind
		op   model.Op
		f    model.Facts
		ok   bool
		want string
	}{
		{model.KindConv, "Conv", model.Facts{Rank: 4}, true, ""},
		{model.KindConv, "Conv", model.Facts{Rank: 4, Float32: true}, true, ""},
		{model.KindRecurrent, "LSTM", model.Facts{Rank: 3}, true, ""},
		{model.KindControl, "If", model.Facts{}, false, "control flow"},
		{model.KindGather, "NonZero", model.Facts{Rank: 2}, false, "NonZero"},
		{model.KindConv, "Conv", model.Facts{Dynamic: true}, false, "depends on values"},
		{model.KindOther, "Frobnicate", model.Facts{}, false, "Frobnicate"},
		{model.KindOther, "BoxSuppression", model.Facts{Rank: 3}, false, "BoxSuppression"},
		{model.KindResize, "CropResize", model.Facts{Rank: 4}, true, ""},
		{model.KindMove, "Transpose", model.Facts{Rank: 17}, false, "rank 17"},
		{model.KindLinear, "Gemm", model.Facts{WeightElems: 10, WeightForm: model.FormLookup}, true, "at load"},
		{model.KindLinear, "Gemm", model.Facts{WeightElems: 10, WeightForm: model.FormAffine, WeightBits: 4, WeightGran: model.PerBlock}, true, "packed"},
		{model.KindLinear, "Gemm", model.Facts{QuantInElems: 5}, true, "run time"},
	} {
		s := u.Support(&model.Layer{Kind: c.kind, Op: c.op, Facts: c.f})
		if s.OK != c.ok || !strings.Contains(s.Reason, c.want) {
			t.Errorf("%s %+v: %+v; want %v and %q", c.op, c.f, s, c.ok, c.want)
		}
	}
}
