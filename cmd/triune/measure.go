package main

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/triune-sim/triune/compare"
	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/whatif"
)

// measurer measures schemes for searches of mixed precision with the machinery
// of triune compare: seeded random inputs, the reference in fp32 on the CPU. It
// measures many schemes of one network, so it keeps what they share: the
// reference's outputs, and every weight in every form it was measured in.
type measurer struct {
	mu      sync.Mutex
	refs    map[inputs]*reference
	weights map[weightForm]*model.Const
	kept    int64 // bytes of the weights' values
}

// inputs are what a network is measured on.
type inputs struct {
	f       *compile.Folded
	seed    uint64 // of the first input; the others follow
	samples int
}

// weightForm is a weight and how it is compressed.
type weightForm struct {
	f            *compile.Folded
	name, scheme string
	dtype        model.DType
	asCompressed bool // in its compressed form, rather than as values
}

// reference is what the schemes of one network share.
type reference struct {
	once    sync.Once
	err     error
	inputs  []map[string]*model.Tensor
	outputs []map[string]*model.Tensor
	ranges  quant.Ranges // of the activations
}

func (m *measurer) reference(ctx context.Context, in inputs) (*reference, error) {
	m.mu.Lock()
	if m.refs == nil {
		m.refs, m.weights = map[inputs]*reference{}, map[weightForm]*model.Const{}
	}
	r := m.refs[in]
	if r == nil {
		r = &reference{}
		m.refs[in] = r
	}
	m.mu.Unlock()
	r.once.Do(func() { r.err = r.init(ctx, in.f, in.seed, in.samples) })
	return r, r.err
}

func (r *reference) init(ctx context.Context, f *compile.Folded, seed uint64, samples int) error {
	fp32, err := quant.Parse("fp32")
	if err != nil {
		return err
	}
	comp, err := f.Apply(fp32, compile.Options{})
	if err != nil {
		return err
	}
	s, err := runtime.OpenCompiled(comp, runtime.WithUnits(units.CPUOnly))
	if err != nil {
		return err
	}
	defer s.Close()
	for i := range samples {
		in, err := runtime.RandomInputs(f.Graph, seed+uint64(i))
		if err != nil {
			return err
		}
		out, err := s.Run(ctx, in)
		if err != nil {
			return err
		}
		r.inputs, r.outputs = append(r.inputs, in), append(r.outputs, out.Outputs)
	}
	// Activations are calibrated on the same inputs whatever is measured on:
	// the scheme that ships has one set of ranges.
	calibration, err := randomSamples(f.Graph, calibrationSamples)
	if err != nil {
		return err
	}
	r.ranges = runtime.Ranges(f.Graph, 0, calibration...)
	return nil
}

// calibrationSamples is how many inputs, of seeds 0, 1, ..., give the ranges of
// activations.
const calibrationSamples = 1

// on makes a measure on inputs: the least SNR of the outputs over all samples.
func (m *measurer) on(seed uint64, samples int) whatif.Measure {
	return func(ctx context.Context, f *compile.Folded, s quant.Scheme, c whatif.Config) (float64, error) {
		return m.measure(ctx, inputs{f, seed, samples}, s, c)
	}
}

// measure runs on one thread, since searches measure several schemes at once.
func (m *measurer) measure(ctx context.Context, on inputs, s quant.Scheme, c whatif.Config) (float64, error) {
	ref, err := m.reference(ctx, on)
	if err != nil {
		return 0, err
	}
	comp, err := on.f.Apply(s, compile.Options{Quant: quant.Options{Ranges: ref.ranges}})
	if err != nil {
		return 0, err
	}
	if err := m.share(on.f, comp); err != nil {
		return 0, err
	}
	d, err := device.Load(c.Device)
	if err != nil {
		return 0, err
	}
	if d, err = d.Override(c.Set...); err != nil {
		return 0, err
	}
	mask := c.Units
	if mask == 0 {
		mask = units.All
	}
	test, err := runtime.OpenCompiled(comp, runtime.WithDeviceValue(d), runtime.WithUnits(mask), runtime.WithThreads(1),
		runtime.WithPlacement(scheduler.Options{Policy: c.Policy, Pins: c.Pins}))
	if err != nil {
		return 0, err
	}
	defer test.Close()
	sums := map[string]*compare.Sums{}
	for i, in := range ref.inputs {
		got, err := test.Run(ctx, in)
		if err != nil {
			return 0, err
		}
		for name, want := range ref.outputs[i] {
			y := got.Outputs[name]
			if y == nil || !want.Shape.Equal(y.Shape) {
				return 0, fmt.Errorf("mixed: output %q has another shape under scheme %s", name, s)
			}
			if !want.DType.IsFloat() || !y.DType.IsFloat() {
				continue
			}
			if sums[name] == nil {
				sums[name] = &compare.Sums{}
			}
			sums[name].Add(want.Float32s(), y.Float32s())
		}
	}
	if len(sums) == 0 {
		return 0, fmt.Errorf("mixed: %s has no float output to measure", c.Model)
	}
	snr := math.Inf(1)
	for _, x := range sums {
		o := x.Metrics()
		if o.NonFinite > 0 {
			return math.Inf(-1), nil
		}
		snr = min(snr, float64(o.SNR))
	}
	return snr, nil
}

// share replaces the weights of a compressed network by those of an earlier one
// that were compressed alike: as values, so that tables, codes and their
// expansion are found once. It changes neither costs, which were taken from the
// network before, nor values. Where activations are quantized too the codes
// themselves are operands, so that there the compressed form is what is shared.
func (m *measurer) share(f *compile.Folded, comp *compile.Compiled) error {
	how := map[string]string{}
	for _, w := range comp.Report.Weights {
		how[w.Name] = w.Scheme
	}
	for _, v := range comp.Net.Graph.Consts() {
		h, ok := how[v.Name]
		if !ok {
			continue
		}
		k := weightForm{f, v.Name, h, v.Const.DType, comp.Scheme.Activations != nil}
		m.mu.Lock()
		c, full := m.weights[k], m.kept >= maxKept
		m.mu.Unlock()
		if c == nil && full {
			continue
		}
		if c == nil {
			c = v.Const
			if !k.asCompressed {
				t, err := c.Value()
				if err != nil {
					return fmt.Errorf("mixed: constant %q: %w", v.Name, err)
				}
				c = model.NewConst(t)
			}
			m.mu.Lock()
			if other := m.weights[k]; other != nil {
				c = other
			} else {
				m.weights[k], m.kept = c, m.kept+c.DenseBytes()
			}
			m.mu.Unlock()
		}
		v.Const = c
	}
	return nil
}

// maxKept bounds the bytes of weights that are kept for later measurements.
const maxKept = 512 << 20
