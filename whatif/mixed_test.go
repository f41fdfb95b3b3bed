package whatif

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
)

// modelNoise is a measure that is known: each weight adds noise of its own
// size, 256 times as much with 4 bits as with 8.
func modelNoise(_ context.Context, f *compile.Folded, s quant.Scheme, _ Config) (float64, error) {
	total := 1e-6
	for _, st := range s.Stages {
		for _, name := range slices.Sorted(maps.Keys(st.OpNames)) {
			c := st.OpNames[name]
			h := fnv.New32a()
			h.Write([]byte(name))
			n := 1e-5 * float64(1+h.Sum32()%100)
			if l, ok := c.(quant.Linear); ok && l.DType == model.Int4 {
				n *= 256
			}
			total += n
		}
	}
	return -10 * math.Log10(total), nil
}

// With a known measure on a small network, the mixture found at a floor is that
// of trying all mixtures, or close to it; none below the floor is returned.
func TestMixedAgainstBruteForce(t *testing.T) {
	p := &Pricer{}
	c := Config{Model: "mobilevit_v2_0.5@64", Device: "iphone-15-pro"}
	schemes := []string{"fp16", "w8", "w4"}
	const groups = 5
	var every []Mixture // of the space
	for _, floor := range []float64{12, 18, 24, 33} {
		r, err := Mixed(context.Background(), p, c, modelNoise, MixedOptions{Schemes: schemes, FloorDB: floor, Groups: groups})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Groups) != groups {
			t.Fatalf("%d groups", len(r.Groups))
		}
		x := &mixer{MixedResult: r, cfg: c, opts: MixedOptions{Schemes: schemes}}
		for i := 0; len(every) < 243; i++ {
			choice := make([]int, groups)
			for g, k := 0, i; g < groups; g, k = g+1, k/3 {
				choice[g] = k % 3
			}
			s := x.scheme(choice)
			snr, _ := modelNoise(context.Background(), nil, s, c)
			comp, err := r.folded.Apply(s, compile.Options{})
			if err != nil {
				t.Fatal(err)
			}
			every = append(every, Mixture{SNR: snr, Cost: float64(comp.PackageBytes), HeldOut: math.NaN()})
		}
		best, least := math.Inf(1), math.Inf(1)
		could := make([]bool, len(schemes)) // some mixture beats the uniform scheme
		for _, m := range every {
			for k := range r.Uniform {
				could[k] = could[k] || m.beats(&r.Uniform[k])
			}
			least = min(least, m.Cost)
			if m.SNR >= floor {
				best = min(best, m.Cost)
			}
		}
		for k := range r.Uniform {
			u := &r.Uniform[k]
			if found := r.Beats(u) != nil; found != could[k] {
				t.Errorf("floor %g: %s beaten: %v, by brute force %v", floor, u.Name, found, could[k])
			}
			if r.Cheapest[k] != (u.Cost == least) {
				t.Errorf("floor %g: %s has %g bytes and is called the cheapest: %v; the least is %g", floor, u.Name, u.Cost, r.Cheapest[k], least)
			}
		}
		switch {
		case math.IsInf(best, 1) != (r.Best == nil):
			t.Errorf("floor %g: best %v, brute force %v", floor, r.Best, best)
		case r.Best == nil:
		case r.Best.SNR < floor:
			t.Errorf("floor %g: the result has %v dB", floor, r.Best.SNR)
		case r.Best.Cost < best || r.Best.Cost > 1.1*best:
			t.Errorf("floor %g: %v bytes, brute force %v", floor, r.Best.Cost, best)
		}
		for _, m := range r.Mixtures {
			for _, n := range append(r.Mixtures, r.Uniform...) {
				if m.OnFront && dominates([]float64{n.Cost, -n.SNR}, []float64{m.Cost, -m.SNR}) {
					t.Errorf("floor %g: %v on the front is beaten by %v", floor, m.Choice, n.Choice)
				}
			}
		}
	}
}

// A search is the same with any number of workers; what it reports of the
// inputs held out is measured on them, and a mixture that is worse there beats
// nothing.
func TestMixedHeldOut(t *testing.T) {
	p := &Pricer{}
	c := Config{Model: "mobilevit_v2_0.5@64", Device: "iphone-15-pro"}
	o := MixedOptions{Schemes: []string{"fp16", "w8", "w4", "p2"}, FloorDB: 20, Groups: 6, Workers: 1,
		HeldOut: func(ctx context.Context, f *compile.Folded, s quant.Scheme, c Config) (float64, error) {
			v, err := modelNoise(ctx, f, s, c)
			return v - 3, err
		}}
	r, err := Mixed(context.Background(), p, c, modelNoise, o)
	if err != nil {
		t.Fatal(err)
	}
	o.Workers = 5
	again, err := Mixed(context.Background(), p, c, modelNoise, o)
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.Finding(c, 20)
	if err != nil {
		t.Fatal(err)
	}
	b, err := again.Finding(c, 20)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a, b); d != "" {
		t.Errorf("one worker and five differ: %s", d)
	}
	for _, m := range append(r.Uniform, r.Mixtures...) {
		if (m.OnFront || m.Name != "") && m.HeldOut != m.SNR-3 {
			t.Errorf("%v on inputs held out, want %v", m.HeldOut, m.SNR-3)
		}
	}
	if w8 := &r.Uniform[1]; r.Beats(w8) == nil {
		t.Error("w8 is not beaten")
	}
	// Inputs on which every mixture fails.
	o.HeldOut = func(ctx context.Context, f *compile.Folded, s quant.Scheme, c Config) (float64, error) {
		seen := map[string]bool{}
		for _, st := range s.Stages {
			for _, x := range st.OpNames {
				seen[fmt.Sprint(x)] = true
			}
		}
		if len(seen) != 1 {
			return -50, nil
		}
		return 50, nil
	}
	if r, err = Mixed(context.Background(), p, c, modelNoise, o); err != nil {
		t.Fatal(err)
	}
	for i := range r.Uniform {
		if m := r.Beats(&r.Uniform[i]); m != nil && m.HeldOut < 0 {
			t.Errorf("%s is called beaten by a mixture of %v dB on the inputs held out", r.Uniform[i].Name, m.HeldOut)
		}
	}
}

// The YAML of a mixture is read back as a scheme with the same result, for
// weights of all kinds and for activations.
func TestMixedYAML(t *testing.T) {
	p := &Pricer{}
	c := Config{Model: "mobilevit_v2_0.5@64", Device: "iphone-15-pro"}
	r, err := Mixed(context.Background(), p, c, modelNoise, MixedOptions{Schemes: []string{"fp16", "w8a8", "w4b32", "p6", "s50+w8"}, FloorDB: math.Inf(-1), Groups: 5, Minimise: "latency_ms"})
	if err != nil {
		t.Fatal(err)
	}
	x := &mixer{MixedResult: r, cfg: c}
	for _, choice := range [][]int{{0, 1, 2, 3, 4}, {1, 1, 0, 0, 1}, {4, 4, 4, 4, 4}, {0, 0, 0, 0, 0}} {
		m := &Mixture{Choice: choice, Scheme: x.scheme(choice), Cost: 1, SNR: 2}
		y, err := r.YAML(m)
		if err != nil {
			t.Fatal(err)
		}
		back, err := quant.ReadConfig(bytes.NewReader(y))
		if err != nil {
			t.Fatalf("%v\n%s", err, y)
		}
		a, err := r.folded.Apply(m.Scheme, compile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.folded.Apply(back, compile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if a.PackageBytes != b.PackageBytes || a.Report.Quantized != b.Report.Quantized || len(a.Net.Layers) != len(b.Net.Layers) {
			t.Errorf("%v: %d bytes, %d quantized; read back: %d, %d", choice, a.PackageBytes, a.Report.Quantized, b.PackageBytes, b.Report.Quantized)
		}
		for i := range a.Report.Weights {
			if v, w := a.Report.Weights[i], b.Report.Weights[i]; v.Scheme != w.Scheme || v.BytesAfter != w.BytesAfter {
				t.Errorf("%v: %s is %q, read back %q", choice, v.Name, v.Scheme, w.Scheme)
			}
		}
	}
	// Where every group has the scheme, the mixture is the uniform scheme.
	for k, name := range r.Schemes {
		s, err := p.Scheme(name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := r.folded.Apply(s, compile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.folded.Apply(r.Uniform[k].Scheme, compile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d := math.Abs(float64(a.PackageBytes-b.PackageBytes)) / float64(a.PackageBytes); d > 0.01 {
			t.Errorf("%s: %d bytes, as a mixture %d", name, a.PackageBytes, b.PackageBytes)
		}
	}
}

func TestMixedRefuses(t *testing.T) {
	p := &Pricer{}
	c := Config{Model: "tiny_cnn", Device: "m1"}
	for _, o := range []MixedOptions{{Schemes: []string{"w8"}}, {Schemes: []string{"w8", "fp16", "w8"}}, {Schemes: []string{"fp16", "w8"}, Workers: -1}, {Schemes: []string{"fp16", "w7"}}, {Schemes: []string{"fp16", "w8"}, Groups: -1}, {Schemes: []string{"fp16", "w8"}, Minimise: "beauty"},
		{Schemes: []string{"fp16", "w8"}, FloorDB: math.NaN()}, {Schemes: []string{"fp16", "fp32"}}} {
		if _, err := Mixed(context.Background(), p, c, modelNoise, o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
	if _, err := Mixed(context.Background(), p, c, nil, MixedOptions{Schemes: []string{"fp16", "w8"}}); err == nil {
		t.Error("no measure accepted")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Mixed(ctx, p, c, modelNoise, MixedOptions{Schemes: []string{"fp16", "w8"}}); err == nil {
		t.Error("a cancelled search went on")
	}
}
