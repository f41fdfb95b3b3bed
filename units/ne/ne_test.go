package ne

import (
	"math"
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

// conv is a k x k convolution of c channels over side x side, fp16.
func conv(c, side, k int) *model.Layer {
	px, w := int64(side*side), int64(c*c*k*k)
	return &model.Layer{Name: "conv", Op: "Conv", Kind: model.KindConv, Facts: model.Facts{
		Batch: 1, InC: c, OutC: c, InH: side, InW: side, OutH: side, OutW: side, KD: 1, KH: k, KW: k, StrideH: 1, StrideW: 1,
		DilH: 1, DilW: 1, Groups: 1, Rank: 4, M: px, K: int64(c * k * k), N: int64(c), Repeat: 1, MACs: px * w,
		InElems: px * int64(c), OutElems: px * int64(c), InPad64: 1, OutPad64: 1,
		WeightElems: w, WeightBytes: 2 * w, WeightReadBytes: 2 * w, WeightDenseBytes: 2 * w, WeightBits: 16, Axis: -1,
	}}
}

func with(l *model.Layer, change func(*model.Layer)) *model.Layer {
	c := *l
	change(&c)
	return &c
}

func estimate(u *Unit, l *model.Layer) units.Estimate {
	var e units.Estimate
	u.Estimate(l, &e)
	return e
}

func TestNoNeuralEngine(t *testing.T) {
	if unit(t, "a10") != nil {
		t.Error("A10 has no Neural Engine that Core ML can use")
	}
}

func TestSupport(t *testing.T) {
	a16, m1, a13 := unit(t, "a16"), unit(t, "m1"), unit(t, "a13")
	base := conv(64, 56, 3)
	op := func(k model.Kind, o model.Op) *model.Layer {
		return with(base, func(l *model.Layer) { l.Kind, l.Op, l.MACs, l.WeightElems = k, o, 0, 0 })
	}
	facts := func(f func(*model.Layer)) *model.Layer { return with(base, f) }
	for _, c := range []struct {
		name string
		u    *Unit
		l    *model.Layer
		ok   bool
		want string // part of the reason or remark
	}{
		{"convolution", a16, base, true, ""},
		{"fp32", a16, facts(func(l *model.Layer) { l.Float32 = true }), false, "fp32"},
		{"rank 6", a16, facts(func(l *model.Layer) { l.Rank = 6 }), false, "rank 6"},
		{"rank 5", a16, facts(func(l *model.Layer) { l.Rank = 5 }), true, ""},
		{"dynamic", a16, facts(func(l *model.Layer) { l.Dynamic = true }), false, "fixed shapes"},
		{"integer", a16, facts(func(l *model.Layer) { l.Integer = true }), false, "integers"},
		{"lstm", a16, op(model.KindRecurrent, "LSTM"), false, "LSTM"},
		{"loop", a16, op(model.KindControl, "Loop"), false, "CPU"},
		{"fused attention", a16, op(model.KindAttention, "Attention"), false, "decompose"},
		{"unknown operator", a16, op(model.KindOther, "Frobnicate"), false, "Frobnicate"},
		{"box suppression", a16, op(model.KindOther, "BoxSuppression"), false, "BoxSuppression"},
		{"crop and resize", a16, op(model.KindResize, "CropResize"), true, ""},
		{"crop and resize on M1", m1, op(model.KindResize, "CropResize"), false, "texture unit"},
		{"uniform random numbers", a16, op(model.KindOther, "RandomUniform"), true, ""},
		{"normal random numbers", a16, op(model.KindOther, "RandomNormal"), false, "RandomNormal"},
		{"scatter", a16, op(model.KindGather, "ScatterND"), false, "scatter"},
		{"gather", a16, op(model.KindGather, "Gather"), true, ""},
		{"gather on M1", m1, op(model.KindGather, "Gather"), false, "M1"},
		{"logical", a16, op(model.KindElementwise, "And"), false, "logical"},
		{"sine before M3", a16, op(model.KindActivation, "Sin"), false, "Sin"},
		{"sine on M4", unit(t, "m4"), op(model.KindActivation, "Sin"), true, ""},
		{"dilation 4", a16, facts(func(l *model.Layer) { l.DilH, l.DilW = 4, 4 }), true, ""},
		{"dilation 5", a16, facts(func(l *model.Layer) { l.DilH, l.DilW = 5, 5 }), false, "2 and 3"},
		{"dilation on A13", a13, facts(func(l *model.Layer) { l.DilH, l.DilW = 2, 2 }), false, "A13"},
		{"stride 16", a16, facts(func(l *model.Layer) { l.StrideH, l.StrideW = 16, 16 }), true, ""},
		{"stride 5", a16, facts(func(l *model.Layer) { l.StrideH, l.StrideW = 5, 5 }), false, "stride 5"},
		{"stride 1x2", a16, facts(func(l *model.Layer) { l.StrideH, l.StrideW = 1, 2 }), true, ""},
		{"stride 3x5", a16, facts(func(l *model.Layer) { l.StrideH, l.StrideW = 3, 5 }), false, "3x5"},
		{"3-D", a16, facts(func(l *model.Layer) { l.KD = 3 }), false, "3-D"},
		{"wide kernel", a16, facts(func(l *model.Layer) { l.KH, l.KW = 15, 15 }), true, "decomposed"},
		{"wider kernel", a16, facts(func(l *model.Layer) { l.KH, l.KW = 33, 33 }), false, "29x32"},
		{"pooling 14", a16, with(op(model.KindPool, "MaxPool"), func(l *model.Layer) { l.KH, l.KW = 14, 14 }), false, "13"},
		{"global pooling", a16, with(op(model.KindPool, "GlobalAveragePool"), func(l *model.Layer) { l.KH, l.KW = 56, 56 }), true, ""},
		{"upsampling 4 on M1", m1, with(op(model.KindResize, "Resize"), func(l *model.Layer) { l.OutH = 224 }), false, "upsampling"},
		{"upsampling 2 on M1", m1, with(op(model.KindResize, "Resize"), func(l *model.Layer) { l.OutH, l.OutW = 112, 112 }), true, ""},
		{"too high", m1, facts(func(l *model.Layer) { l.OutH = 20000 }), false, "20000"},
		{"argmax", a16, with(op(model.KindReduce, "ArgMax"), func(l *model.Layer) { l.InElems, l.OutElems = 4096, 1 }), false, "2048"},
		{"int4 per block", a16, facts(func(l *model.Layer) {
			l.WeightForm, l.WeightBits, l.WeightGran, l.WeightBlock = model.FormAffine, 4, model.PerBlock, 32
		}), true, "no native path"},
		{"int8 weights on M1", m1, facts(func(l *model.Layer) { l.WeightForm, l.WeightBits = model.FormAffine, 8 }), true, "unfolds"},
		{"1.2 GB of weights", a16, facts(func(l *model.Layer) { l.WeightElems, l.WeightBytes = 6e8, 12e8 }), false, "limit"},
	} {
		s := c.u.Support(c.l)
		if s.OK != c.ok || !strings.Contains(s.Reason, c.want) || (!s.OK && s.Reason == "") {
			t.Errorf("%s: %+v; want %v and %q", c.name, s, c.ok, c.want)
		}
	}
}

func TestEstimate(t *testing.T) {
	u := unit(t, "a17-pro")
	l := conv(256, 28, 1)
	f16 := estimate(u, l)
	w8 := estimate(u, with(l, func(l *model.Layer) {
		l.WeightForm, l.WeightBits, l.WeightGran, l.QuantWeight = model.FormAffine, 8, model.PerChannel, true
		l.WeightBytes, l.WeightReadBytes = l.WeightElems, l.WeightElems
	}))
	full := estimate(u, with(l, func(l *model.Layer) {
		l.WeightForm, l.WeightBits, l.WeightGran, l.QuantWeight = model.FormAffine, 8, model.PerChannel, true
		l.WeightBytes, l.WeightReadBytes = l.WeightElems, l.WeightElems
		l.QuantIn, l.QuantOut, l.QuantInElems, l.QuantOutElems = true, true, l.InElems, l.OutElems
	}))
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9*math.Max(1, math.Abs(want)) {
			t.Errorf("%s: %g, want %g", what, got, want)
		}
	}
	near("int8 weights stream half the bytes", w8.WeightMS, f16.WeightMS/2)
	near("and compute as before", w8.ComputeMS, f16.ComputeMS)
	near("int8 x int8 at its rate", full.ComputeMS, f16.ComputeMS/u.int8Factor)
	if full.InputBytes != f16.InputBytes/2 || full.OutputBytes != f16.OutputBytes/2 {
		t.Errorf("8-bit activations move %d and %d bytes", full.InputBytes, full.OutputBytes)
	}
	if w8.ExpandMS <= 0 || f16.ExpandMS != 0 {
		t.Errorf("expanding takes %g ms compressed, %g dense", w8.ExpandMS, f16.ExpandMS)
	}

	tail := estimate(u, with(l, func(l *model.Layer) {
		l.QuantIn, l.QuantWeight, l.QuantOut, l.QuantInElems, l.QuantOutElems, l.FloatTail = true, true, true, l.InElems, l.OutElems, true
	}))
	if tail.ActivationMS <= full.ActivationMS {
		t.Error("a quantized output behind a swish costs no pass")
	}
	block := estimate(u, with(l, func(l *model.Layer) {
		l.WeightForm, l.WeightBits, l.WeightGran, l.WeightBlock = model.FormAffine, 4, model.PerBlock, 32
		l.WeightBytes, l.WeightReadBytes = l.WeightElems/2, l.WeightElems/2
	}))
	if block.WeightBytes != f16.WeightBytes || block.ResidentBytes != f16.ResidentBytes {
		t.Errorf("int4 per block streams %d bytes and keeps %d; want the dense %d", block.WeightBytes, block.ResidentBytes, f16.WeightBytes)
	}
	m1 := unit(t, "m1")
	if e := estimate(m1, with(l, func(l *model.Layer) {
		l.WeightForm, l.WeightBits, l.WeightGran = model.FormAffine, 8, model.PerChannel
		l.WeightBytes, l.WeightReadBytes = l.WeightElems, l.WeightElems
	})); e.WeightBytes != 2*l.WeightElems {
		t.Errorf("M1 streams %d bytes of int8 weights; it unfolds them to %d", e.WeightBytes, 2*l.WeightElems)
	}

	big := conv(512, 64, 1)
	spilled := estimate(u, big)
	tiled := estimate(u, with(big, func(l *model.Layer) { l.TiledBytes = 2 * (l.InElems + l.OutElems) }))
	if tiled.ActivationMS >= spilled.ActivationMS || tiled.DRAMBytes != 0 {
		t.Errorf("handed over tile by tile: %g ms and %d bytes spilled; otherwise %g ms", tiled.ActivationMS, tiled.DRAMBytes, spilled.ActivationMS)
	}
	if e := estimate(u, conv(16, 8, 1)); e.Bound != units.BoundOverhead && e.Bound != units.BoundWeight && e.DRAMBytes != 0 {
		t.Errorf("a tiny layer: %+v", e)
	}
	view := estimate(u, &model.Layer{Op: "Reshape", Kind: model.KindView, Facts: model.Facts{InElems: 100, OutElems: 100}})
	if view.OverheadMS <= 0 || view.ActivationMS != 0 {
		t.Errorf("a view costs %+v; want an overhead alone", view)
	}
	sparse := estimate(u, with(l, func(l *model.Layer) {
		l.WeightForm, l.WeightSparsity = model.FormSparse, 0.75
		l.WeightBytes, l.WeightReadBytes = l.WeightElems/2, l.WeightElems/2
	}))
	if sparse.ComputeMS >= f16.ComputeMS {
		t.Error("three quarters of zeros skip nothing")
	}
}
