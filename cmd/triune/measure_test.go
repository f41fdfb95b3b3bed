package main

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/triune-sim/triune/compare"
	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/whatif"
)

// A search measures what triune compare prints, the first time and when it has
// the weights already; other inputs give other figures.
func TestMeasureAgreesWithCompare(t *testing.T) {
	ctx := context.Background()
	p := &whatif.Pricer{}
	c := whatif.Config{Model: "mobilevit_v2_0.5@64", Device: "iphone-15-pro"}
	f, err := p.Folded(c.Model, 0)
	if err != nil {
		t.Fatal(err)
	}
	fp32, err := quant.Parse("fp32")
	if err != nil {
		t.Fatal(err)
	}
	comp, err := f.Apply(fp32, compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := runtime.OpenCompiled(comp, runtime.WithUnits(units.CPUOnly), runtime.WithThreads(1))
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	src, err := randomSamples(f.Graph, 2)
	if err != nil {
		t.Fatal(err)
	}
	var m measurer
	for _, name := range []string{"fp16", "w8", "w4b32", "p4", "s50+w8", "w8a8", "w8"} {
		s, err := p.Scheme(name)
		if err != nil {
			t.Fatal(err)
		}
		comp, err := f.Apply(s, compile.Options{Quant: quant.Options{Ranges: runtime.Ranges(f.Graph, 0, src[:calibrationSamples]...)}})
		if err != nil {
			t.Fatal(err)
		}
		test, err := runtime.OpenCompiled(comp, runtime.WithDevice(c.Device), runtime.WithThreads(1))
		if err != nil {
			t.Fatal(err)
		}
		r, err := compare.Sessions(ctx, ref, test, src, compare.Options{Threads: 1})
		test.Close()
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.on(0, 2)(ctx, f, s, c)
		if err != nil {
			t.Fatal(err)
		}
		if want := float64(r.Outputs[0].SNR); math.Abs(got-want) > 1e-9 || math.IsInf(got, 0) {
			t.Errorf("%s: %v dB, compare says %v", name, got, want)
		}
		if other, err := m.on(2, 2)(ctx, f, s, c); err != nil || other == got {
			t.Errorf("%s: other inputs give %v dB too (%v)", name, other, err)
		}
	}
}

// On MobileViTv2, run in the arithmetic of its units, mixtures beat every
// uniform scheme that is commonly shipped, on the inputs of the search and on
// others; only the smallest scheme of the space cannot be beaten. The study
// examples/mixed-precision is the same at full size, where fp16 is beaten too:
// a weight can be compressed for nothing there. With three schemes only the
// network at full size beats w8.
func TestMixedBeatsUniform(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a network some two hundred times")
	}
	searchBeats(t, "mobilevit_v2_0.5@64", whatif.MixedOptions{Groups: 16, Points: 12}, "w8", "w8-tensor", "w8a8", "p6", "w4b32", "w4", "p4")
	if *slowExamples {
		searchBeats(t, "mobilevit_v2", whatif.MixedOptions{Schemes: []string{"fp16", "w8", "w4"}}, "fp16", "w8")
	}
}

// searchBeats searches and holds the result to beating the schemes named; the
// last one of the search must be the one that nothing can beat.
func searchBeats(t *testing.T, model string, o whatif.MixedOptions, want ...string) {
	t.Helper()
	var m measurer
	o.FloorDB, o.HeldOut = math.Inf(-1), m.on(2, 4)
	r, err := whatif.Mixed(context.Background(), &whatif.Pricer{}, whatif.Config{Model: model, Device: "iphone-15-pro"}, m.on(0, 2), o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Uniform {
		u := &r.Uniform[i]
		b := r.Beats(u)
		t.Logf("%s: %-9s %8.0f bytes %6.2f dB, held out %6.2f dB: beaten %v", model, u.Name, u.Cost, u.SNR, u.HeldOut, b != nil)
		switch {
		case r.Cheapest[i] != (i == len(r.Uniform)-1):
			t.Errorf("%s: the cheapest: %v", u.Name, r.Cheapest[i])
		case b == nil && slices.Contains(want, u.Name):
			t.Errorf("%s (%.0f bytes, %.2f dB) is not beaten", u.Name, u.Cost, u.SNR)
		case b != nil && !(b.Cost <= u.Cost && b.SNR >= u.SNR && b.HeldOut >= u.HeldOut):
			t.Errorf("%s is called beaten by %.0f bytes, %.2f and %.2f dB", u.Name, b.Cost, b.SNR, b.HeldOut)
		}
	}
}
