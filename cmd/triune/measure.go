package main

import (
	"context"
	"math"
	"sync"

	"github.com/triune-sim/triune/compare"
	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/whatif"
)

// measurer measures schemes for searches of mixed precision, with the
// machinery of triune compare: seeded random inputs, the reference in fp32 on
// the CPU.
type measurer struct {
	samples int

	mu   sync.Mutex
	refs map[*compile.Folded]*reference
}

// reference is what the schemes of one network share.
type reference struct {
	session *runtime.Session
	source  compare.Slice
	ranges  quant.Ranges
}

func (m *measurer) reference(f *compile.Folded) (*reference, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.refs[f]; r != nil {
		return r, nil
	}
	fp32, err := quant.Parse("fp32")
	if err != nil {
		return nil, err
	}
	comp, err := f.Apply(fp32, compile.Options{})
	if err != nil {
		return nil, err
	}
	src, err := randomSamples(f.Graph, m.samples)
	if err != nil {
		return nil, err
	}
	r := &reference{source: src, ranges: runtime.Ranges(f.Graph, 0, src...)}
	if r.session, err = runtime.OpenCompiled(comp, runtime.WithUnits(units.CPUOnly)); err != nil {
		return nil, err
	}
	if m.refs == nil {
		m.refs = map[*compile.Folded]*reference{}
	}
	m.refs[f] = r
	return r, nil
}

// measure is a whatif.Measure: the least SNR of the outputs.
func (m *measurer) measure(ctx context.Context, f *compile.Folded, s quant.Scheme, c whatif.Config) (float64, error) {
	ref, err := m.reference(f)
	if err != nil {
		return 0, err
	}
	comp, err := f.Apply(s, compile.Options{Quant: quant.Options{Ranges: ref.ranges}})
	if err != nil {
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
	test, err := runtime.OpenCompiled(comp, runtime.WithDeviceValue(d), runtime.WithUnits(mask), runtime.WithPlacement(scheduler.Options{Policy: c.Policy}))
	if err != nil {
		return 0, err
	}
	defer test.Close()
	r, err := compare.Sessions(ctx, ref.session, test, ref.source, compare.Options{Threads: 1})
	if err != nil {
		return 0, err
	}
	snr := math.Inf(1)
	for _, o := range r.Outputs {
		snr = min(snr, float64(o.SNR))
	}
	return snr, nil
}

func (m *measurer) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.refs {
		r.session.Close()
	}
	m.refs = nil
}
