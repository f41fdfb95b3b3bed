package gpu

import (
	"math"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// Unit is the GPU of one device. It is immutable and safe for concurrent use.
type Unit struct {
	macsMS               float64 // multiply-adds a ms on large dense layers
	winograd, gemm       float64
	half, kHalf          float64
	depthwise            float64
	opsMS                float64 // element-wise operations a ms
	cache, slc           float64 // bytes
	cacheMS, slcMS, dram float64 // bytes a ms
	expandMS             float64
	passes               float64
	layerMS              float64
	packedInt4           bool
	pjMAC, pjOp          float64
	pjChip, pjDRAM       float64
	rates                units.Rates
}

// New builds the unit from a device's figures.
func New(d *device.Device) *Unit {
	n, g := &d.GPU, &d.Energy
	dram := d.DRAMGBs.Value * min(1, n.DRAMShare.Value) * 1e6
	u := &Unit{
		macsMS:     n.PeakTF.Value * 1e9 / 2 * n.Efficiency.Value,
		winograd:   n.Winograd.Value,
		gemm:       n.GEMM.Value,
		half:       n.HalfKops.Value * 1e3,
		kHalf:      n.KHalf.Value,
		depthwise:  n.Depthwise.Value,
		opsMS:      n.VectorGops.Value * 1e6,
		cache:      n.CacheMB.Value * 1e6,
		slc:        d.SLCMB.Value * 1e6,
		cacheMS:    max(n.CacheGBs.Value*1e6, dram*max(1, d.SLCGain.Value)),
		slcMS:      dram * max(1, d.SLCGain.Value),
		dram:       dram,
		expandMS:   n.ExpandGBs.Value * 1e6,
		passes:     n.W8A8Passes.Value,
		layerMS:    n.LayerUS.Value / 1e3,
		packedInt4: n.PackedInt4.Value,
		pjMAC:      g.GPUPJ.Value, pjOp: g.VectorPJ.Value, pjChip: g.ChipPJB.Value, pjDRAM: g.DRAMPJB.Value,
	}
	u.rates = units.Rates{
		FloorMS: n.FloorMS.Value, StreamGBs: dram / 1e6, PrefetchBytes: n.PrefetchMB.Value * 1e6,
		StaticWatts: g.GPUStaticW.Value, ActivationBytes: 2,
	}
	return u
}

// Kind returns [units.GPU].
func (u *Unit) Kind() units.Kind { return units.GPU }

// Rates returns the unit-wide figures.
func (u *Unit) Rates() units.Rates { return u.rates }

// Estimate prices a layer; see docs/cost-model.md, section "GPU".
func (u *Unit) Estimate(l *model.Layer, e *units.Estimate) {
	f := &l.Facts
	*e = units.Estimate{InputBytes: 2 * f.InElems, OutputBytes: 2 * f.OutElems}
	if l.Kind == model.KindView {
		// MPSGraph renames the buffer; encoding the operation is what is left.
		e.OverheadMS = u.layerMS / 8
		e.Bound = units.BoundOverhead
		return
	}
	e.OverheadMS = u.layerMS
	e.ComputeMS = float64(f.VectorOps) / u.opsMS
	if f.MACs > 0 {
		rate := u.macsMS
		out := float64(f.M) * float64(f.N) * float64(f.Repeat)
		k := float64(f.K) + u.kHalf
		switch {
		case l.Kind == model.KindDepthwise:
			rate *= u.depthwise
			k = float64(f.K)
		case f.Winograd() && l.Kind == model.KindConv:
			rate *= u.winograd
		case l.Kind == model.KindLinear || l.Kind == model.KindMatMul || l.Kind == model.KindAttention:
			rate *= u.gemm
		}
		// Occupancy: a layer with few outputs leaves cores idle.
		e.ComputeMS += (out + u.half) * k / rate
		e.EnergyMJ += float64(f.MACs) * u.pjMAC * 1e-9
	}

	// Activations: last-level cache, then system cache, then DRAM.
	bytes := float64(e.InputBytes + e.OutputBytes)
	if l.Kind == model.KindSoftmax || l.Kind == model.KindNorm && l.Op != "BatchNormalization" {
		bytes += float64(e.InputBytes)
	}
	near := min(bytes, u.cache)
	mid := min(bytes-near, u.slc)
	far := bytes - near - mid
	e.ActivationMS = near/u.cacheMS + mid/u.slcMS + far/u.dram
	e.ChipBytes, e.DRAMBytes = int64(near+mid), int64(far)

	u.weights(f, e)
	if q := f.QuantInElems + f.QuantOutElems; q > 0 && l.Kind != model.KindMove {
		// W8A8: the GPU computes in fp16, so codes are dequantized before the
		// layer and quantized after it, at run time.
		e.ExpandMS += u.passes * 2 * float64(q) / u.expandMS
	}
	e.BusyMS = max(e.ComputeMS, e.ActivationMS) + e.ExpandMS
	e.EnergyMJ += float64(f.VectorOps)*u.pjOp*1e-9 +
		(float64(e.ChipBytes)*u.pjChip+float64(e.DRAMBytes+e.WeightBytes)*u.pjDRAM)*1e-9
	e.Bound = bound(e)
}

// weights fills WeightMS, ExpandMS, WeightBytes and ResidentBytes.
func (u *Unit) weights(f *model.Facts, e *units.Estimate) {
	if f.WeightElems == 0 {
		return
	}
	dense := 2 * f.WeightElems
	e.ResidentBytes, e.WeightBytes = dense, dense
	switch {
	case u.packedInt4 && f.WeightForm == model.FormAffine && f.WeightGran == model.PerBlock:
		e.ResidentBytes, e.WeightBytes = min(dense, f.WeightBytes), min(dense, f.WeightReadBytes)
		// A gather expands the rows that it reads.
		e.ExpandMS = float64(dense) * f.ReadShare() / u.expandMS
	default:
		e.WeightBytes = int64(math.Ceil(float64(dense) * f.ReadShare()))
	}
	e.WeightMS = float64(e.WeightBytes) / u.dram
}

func bound(e *units.Estimate) units.Bound {
	switch {
	case e.OverheadMS > e.BusyMS && e.OverheadMS > e.WeightMS:
		return units.BoundOverhead
	case e.WeightMS > e.BusyMS:
		return units.BoundWeight
	case e.ActivationMS+e.ExpandMS > e.ComputeMS:
		return units.BoundActivation
	}
	return units.BoundCompute
}
