package cpu

import (
	"math"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// Unit is the CPU of one device. It is immutable and safe for concurrent use.
type Unit struct {
	macsMS               float64 // fp32 multiply-adds a ms of the matrix unit on large dense layers
	winograd             float64
	kHalf, nHalf         float64
	vectorMS             float64 // multiply-adds a ms of the vector units
	opsMS, rowMS         float64 // element-wise operations a ms; the same in softmax and norms
	cache, slc           float64 // bytes
	cacheMS, slcMS, dram float64 // bytes a ms
	expandMS, passes     float64
	layerMS              float64
	pjMAC, pjOp          float64
	pjChip, pjDRAM       float64
	rates                units.Rates
}

// New builds the unit from a device's figures.
func New(d *device.Device) *Unit {
	n, g := &d.CPU, &d.Energy
	// Nothing reaches the cores but through their L2.
	cache := n.CacheGBs.Value * 1e6
	dram := min(cache, d.DRAMGBs.Value*min(1, n.DRAMShare.Value)*1e6)
	u := &Unit{
		macsMS:   n.MatrixGF.Value * 1e6 / 2 * n.Efficiency.Value,
		winograd: n.Winograd.Value,
		kHalf:    n.KHalf.Value, nHalf: n.NHalf.Value,
		vectorMS: n.VectorGF.Value * 1e6 / 2,
		opsMS:    n.VectorGops.Value * 1e6,
		rowMS:    n.VectorGops.Value * 1e6 * min(1, n.RowShare.Value),
		cache:    n.CacheMB.Value * 1e6,
		slc:      d.SLCMB.Value * 1e6,
		cacheMS:  cache,
		slcMS:    min(cache, dram*max(1, d.SLCGain.Value)),
		dram:     dram,
		expandMS: n.ExpandGBs.Value * 1e6,
		passes:   n.W8A8Passes.Value,
		layerMS:  n.LayerUS.Value / 1e3,
		pjMAC:    g.CPUPJ.Value, pjOp: g.VectorPJ.Value, pjChip: g.ChipPJB.Value, pjDRAM: g.DRAMPJB.Value,
	}
	u.rates = units.Rates{
		FloorMS: n.FloorMS.Value, StreamGBs: dram / 1e6, PrefetchBytes: n.PrefetchMB.Value * 1e6,
		StaticWatts: g.CPUStaticW.Value, ActivationBytes: 4,
	}
	return u
}

// Kind returns [units.CPU].
func (u *Unit) Kind() units.Kind { return units.CPU }

// Rates returns the unit-wide figures.
func (u *Unit) Rates() units.Rates { return u.rates }

// Estimate prices a layer; see docs/cost-model.md, section "CPU".
func (u *Unit) Estimate(l *model.Layer, e *units.Estimate) {
	f := &l.Facts
	*e = units.Estimate{InputBytes: 4 * f.InElems, OutputBytes: 4 * f.OutElems}
	if l.Kind == model.KindView {
		// A view of the same buffer: bookkeeping only.
		e.OverheadMS = u.layerMS / 8
		e.Bound = units.BoundOverhead
		return
	}
	e.OverheadMS = u.layerMS
	// Softmax and norms pass over their rows more than once, with sums between.
	rows := l.Kind == model.KindSoftmax || l.Kind == model.KindNorm && l.Op != "BatchNormalization"
	e.ComputeMS = float64(f.VectorOps) / u.opsMS
	if rows {
		e.ComputeMS = float64(f.VectorOps) / u.rowMS
	}
	if f.MACs > 0 {
		if l.Kind == model.KindDepthwise {
			e.ComputeMS += float64(f.MACs) / u.vectorMS
		} else {
			rate := u.macsMS
			if f.Winograd() && l.Kind == model.KindConv {
				rate *= u.winograd
			}
			m, k, n := float64(f.M), float64(f.K), float64(f.N)*float64(f.Repeat)
			matrix := (m + u.nHalf) * (k + u.kHalf) * n / rate
			// A product of few rows does not fill the matrix unit: the vector
			// units take it, loading every weight from the cache once a row.
			e.ComputeMS += min(matrix, m*(k+u.kHalf)*n*4/u.cacheMS)
		}
		e.EnergyMJ += float64(f.MACs) * u.pjMAC * 1e-9
	}

	bytes := float64(e.InputBytes + e.OutputBytes)
	if rows {
		bytes += float64(e.InputBytes)
	}
	near := min(bytes, u.cache)
	mid := min(bytes-near, u.slc)
	far := bytes - near - mid
	e.ActivationMS = near/u.cacheMS + mid/u.slcMS + far/u.dram
	e.ChipBytes, e.DRAMBytes = int64(near+mid), int64(far)

	if f.WeightElems > 0 {
		dense := 4 * f.WeightElems
		e.ResidentBytes, e.WeightBytes = dense, int64(math.Ceil(float64(dense)*f.ReadShare()))
		e.WeightMS = float64(e.WeightBytes) / u.dram
	}
	if q := f.QuantInElems + f.QuantOutElems; q > 0 && l.Kind != model.KindMove {
		// W8A8: the CPU computes in fp32, so codes are dequantized before the
		// layer and quantized after it, at run time.
		e.ExpandMS = u.passes * 4 * float64(q) / u.expandMS
	}
	e.BusyMS = max(e.ComputeMS, e.ActivationMS) + e.ExpandMS
	e.EnergyMJ += float64(f.VectorOps)*u.pjOp*1e-9 +
		(float64(e.ChipBytes)*u.pjChip+float64(e.DRAMBytes+e.WeightBytes)*u.pjDRAM)*1e-9
	switch {
	case e.OverheadMS > e.BusyMS && e.OverheadMS > e.WeightMS:
		e.Bound = units.BoundOverhead
	case e.WeightMS > e.BusyMS:
		e.Bound = units.BoundWeight
	case e.ActivationMS+e.ExpandMS > e.ComputeMS:
		e.Bound = units.BoundActivation
	}
}
