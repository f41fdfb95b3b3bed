package whatif

import (
	"bytes"
	"context"
	"hash/fnv"
	"math"
	"testing"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
)

// modelNoise is a measure that is known: each weight adds noise of its own
// size, 256 times as much with 4 bits as with 8.
func modelNoise(_ context.Context, f *compile.Folded, s quant.Scheme, _ Config) (float64, error) {
	total := 1e-6
	for _, st := range s.Stages {
		for name, c := range st.OpNames {
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
	for _, floor := range []float64{12, 18, 24, 33} {
		r, err := Mixed(context.Background(), p, c, modelNoise, MixedOptions{Schemes: schemes, FloorDB: floor, Groups: groups})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Groups) != groups {
			t.Fatalf("%d groups", len(r.Groups))
		}
		x := &mixer{MixedResult: r, cfg: c, desk: p.Desk(), opts: MixedOptions{Schemes: schemes}}
		best := math.Inf(1)
		for i := range 243 {
			choice := make([]int, groups)
			for g, k := 0, i; g < groups; g, k = g+1, k/3 {
				choice[g] = k % 3
			}
			s := x.scheme(choice)
			snr, _ := modelNoise(context.Background(), nil, s, c)
			if snr < floor {
				continue
			}
			comp, err := r.folded.Apply(s, compile.Options{})
			if err != nil {
				t.Fatal(err)
			}
			best = min(best, float64(comp.PackageBytes))
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
	for _, o := range []MixedOptions{{}, {Schemes: []string{"w8"}}, {Schemes: []string{"fp16", "w7"}}, {Schemes: []string{"fp16", "w8"}, Groups: -1}, {Schemes: []string{"fp16", "w8"}, Minimise: "beauty"},
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
