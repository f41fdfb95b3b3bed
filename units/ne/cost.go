package ne

import (
	"math"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// Unit is the Neural Engine of one device. It is immutable and safe for
// concurrent use.
type Unit struct {
	macsMS, int8Factor    float64 // multiply-adds a ms at full use; int8 over fp16
	winograd              float64
	ocGroup               int64
	kHalf, nHalf          float64
	depthwise, matmul     float64
	opsMS                 float64 // element-wise operations a ms
	overlap               float64
	sparseSkip            float64
	store, spread, border float64 // bytes
	chipMS, spillMS       float64 // bytes a ms
	streamMS, expandMS    float64 // bytes a ms
	move, concat, linear  float64
	kernelMax             int
	ioMS                  float64 // bytes a ms
	lutMS, layerMS        float64
	pjMAC, pjInt8, pjOp   float64
	pjChip, pjDRAM        float64
	rates                 units.Rates
	axisMax               int
	channelMax            int64
	weightMax             float64 // bytes
	gather, texture       bool
	trig, dilation        bool
	streamInt8            bool
	chip                  string
}

// New builds the unit from a device's figures; nil if the device has no Neural
// Engine.
func New(d *device.Device) *Unit {
	if !d.HasNE {
		return nil
	}
	n, g := &d.NE, &d.Energy
	u := &Unit{
		macsMS:     n.PeakTF.Value * 1e9 / 2 * n.Efficiency.Value,
		int8Factor: n.Int8Factor.Value,
		winograd:   n.Winograd.Value,
		ocGroup:    max(1, int64(n.OCGroup.Value)),
		kHalf:      n.KHalf.Value,
		nHalf:      n.NHalf.Value,
		depthwise:  n.Depthwise.Value,
		matmul:     n.MatMul.Value,
		opsMS:      n.VectorGops.Value * 1e6,
		overlap:    min(1, n.Overlap.Value),
		sparseSkip: min(1, n.SparseSkip.Value),
		store:      n.StoreMB.Value * 1e6,
		spread:     n.StoreSpread.Value,
		border:     n.BorderPasses.Value,
		chipMS:     n.ChipGBs.Value * 1e6,
		spillMS:    min(n.SpillGBs.Value, n.ChipGBs.Value) * 1e6,
		streamMS:   min(n.StreamGBs.Value, d.DRAMGBs.Value) * 1e6,
		expandMS:   n.ExpandGBs.Value * 1e6,
		move:       n.MoveFactor.Value,
		ioMS:       n.IOGBs.Value * 1e6,
		concat:     n.ConcatFactor.Value,
		linear:     n.Linear.Value,
		kernelMax:  max(1, int(n.KernelMax.Value)),
		lutMS:      n.LUTUS.Value / 1e3,
		layerMS:    n.LayerUS.Value / 1e3,
		pjMAC:      g.NEFP16PJ.Value, pjInt8: g.NEInt8PJ.Value, pjOp: g.VectorPJ.Value,
		pjChip: g.ChipPJB.Value, pjDRAM: g.DRAMPJB.Value,
		axisMax: int(n.AxisMax.Value), channelMax: max(1, int64(n.ChannelMax.Value)), weightMax: n.WeightMaxMB.Value * 1e6,
		gather: n.Gather.Value, texture: n.Texture.Value, trig: n.Trig.Value, dilation: n.Dilation.Value,
		streamInt8: n.StreamInt8.Value, chip: d.ChipLabel,
	}
	u.rates = units.Rates{
		FloorMS: n.FloorMS.Value, StreamGBs: u.streamMS / 1e6, PrefetchBytes: n.PrefetchMB.Value * 1e6,
		StaticWatts: g.NEStaticW.Value, ActivationBytes: 2,
	}
	return u
}

// Kind returns [units.NE].
func (u *Unit) Kind() units.Kind { return units.NE }

// Rates returns the unit-wide figures.
func (u *Unit) Rates() units.Rates { return u.rates }

// Estimate prices a layer; see docs/cost-model.md, section "Neural Engine".
func (u *Unit) Estimate(l *model.Layer, e *units.Estimate) {
	f := &l.Facts
	*e = units.Estimate{OverheadMS: u.layerMS}
	if parts := (f.N + u.channelMax - 1) / u.channelMax; l.Kind == model.KindLinear && parts > 1 {
		e.OverheadMS *= float64(parts) // split into parts that the unit can hold
	}
	e.InputBytes = 2*(f.InElems-f.QuantInElems) + f.QuantInElems
	e.OutputBytes = 2*(f.OutElems-f.QuantOutElems) + f.QuantOutElems

	u.arithmetic(l, e)
	u.traffic(l, e)
	u.weights(f, e)

	long, short := e.ComputeMS+e.ExpandMS, e.ActivationMS
	if long < short {
		long, short = short, long
	}
	e.BusyMS = long + (1-u.overlap)*short
	e.EnergyMJ += float64(f.VectorOps)*u.pjOp*1e-9 +
		(float64(e.ChipBytes)*u.pjChip+float64(e.DRAMBytes+e.WeightBytes)*u.pjDRAM)*1e-9
	switch {
	case e.OverheadMS > e.BusyMS && e.OverheadMS > e.WeightMS:
		e.Bound = units.BoundOverhead
	case e.WeightMS > e.BusyMS:
		e.Bound = units.BoundWeight
	case e.ActivationMS > e.ComputeMS+e.ExpandMS:
		e.Bound = units.BoundActivation
	}
}

// arithmetic fills ComputeMS and its energy.
func (u *Unit) arithmetic(l *model.Layer, e *units.Estimate) {
	f := &l.Facts
	e.ComputeMS = float64(f.VectorOps) / u.opsMS
	if f.MACs == 0 {
		return
	}
	rate, pj := u.macsMS, u.pjMAC
	if f.Int8(l.Kind) {
		rate, pj = rate*u.int8Factor, u.pjInt8
	}
	m, k, n, r := float64(f.M), float64(f.K), float64(f.N), float64(f.Repeat)
	switch l.Kind {
	case model.KindDepthwise:
		// One input channel a group: no reduction over channels to share.
		rate *= u.depthwise
		e.ComputeMS += m * n * r * k / rate
	case model.KindMatMul, model.KindAttention:
		rate *= u.matmul
		e.ComputeMS += (m + u.nHalf) * n * (k + u.kHalf) * r / rate
	default:
		if l.Kind == model.KindLinear && f.M > 1 {
			rate *= u.linear
		}
		group := u.ocGroup
		if r > 1 { // groups share the array: a quarter group each
			group = max(1, group/16)
		}
		n = float64((f.N + group - 1) / group * group)
		if f.Winograd() && l.Kind == model.KindConv {
			rate *= u.winograd
		}
		macs := (m + u.nHalf) * n * (k + u.kHalf) * r
		if s := f.WeightSparsity; s > 0.5 {
			macs *= 1 - u.sparseSkip*(2*s-1)
		}
		e.ComputeMS += macs / rate
	}
	e.EnergyMJ += float64(f.MACs) * pj * 1e-9
}

// traffic fills ActivationMS and the bytes by level.
func (u *Unit) traffic(l *model.Layer, e *units.Estimate) {
	f := &l.Facts
	bytes := float64(e.InputBytes + e.OutputBytes)
	// Images of a batch are independent: what must fit is one of them.
	set := bytes / float64(max(1, f.Images))
	// What neighbouring pointwise layers hand over tile by tile stays on chip.
	tiled := float64(f.TiledBytes)
	switch l.Kind {
	case model.KindView:
		if !f.LastAxis {
			return // the same bytes under another shape
		}
		bytes *= u.move
	case model.KindMove:
		switch {
		case f.LastAxis:
			bytes *= u.move
		case l.Op == "Concat" || l.Op == "Split":
			// Channel planes are joined and taken apart by address.
			bytes *= u.concat
		}
	case model.KindConv, model.KindDepthwise, model.KindConvTranspose:
		// Kernels wider than one pass accumulate partial outputs.
		passes := ((f.KH + u.kernelMax - 1) / u.kernelMax) * ((f.KW + u.kernelMax - 1) / u.kernelMax)
		bytes += float64(e.OutputBytes) * float64(passes-1) * 2
		if f.DilH > 1 || f.DilW > 1 { // space to batch and back
			bytes += float64(e.InputBytes+e.OutputBytes) * u.move
		}
	case model.KindSoftmax, model.KindNorm:
		if l.Op != "BatchNormalization" {
			bytes += float64(e.InputBytes) // statistics first, then the result
		}
	}
	if f.QuantOutElems > 0 && (f.FloatTail || floatKind(l.Kind)) {
		// The result is written in fp16, then quantized in a pass of its own.
		bytes += 2 * u.border * float64(f.QuantOutElems)
	}
	spill := 0.0
	if set > u.store {
		spill = max(0, bytes-tiled) * min(1, (set-u.store)/(u.spread*u.store))
	}
	// The graph's own inputs and outputs come through buffers of the caller.
	e.ActivationMS = (bytes-spill)/u.chipMS + spill/u.spillMS + 2*float64(f.IOElems)/u.ioMS
	e.DRAMBytes = int64(spill)
	e.ChipBytes = int64(bytes - spill)
}

// floatKind tells which kinds compute in fp16 only, whatever their operands.
func floatKind(k model.Kind) bool {
	switch k {
	case model.KindSoftmax, model.KindNorm, model.KindReduce, model.KindActivation, model.KindMatMul:
		return true
	}
	return false
}

// weights fills WeightMS, ExpandMS, WeightBytes and ResidentBytes.
func (u *Unit) weights(f *model.Facts, e *units.Estimate) {
	if f.WeightElems == 0 {
		return
	}
	dense := 2 * f.WeightElems
	resident, read := dense, dense
	if u.packed(f) {
		resident, read = min(dense, f.WeightBytes), min(dense, f.WeightReadBytes)
		// A gather expands the rows that it reads.
		e.ExpandMS = float64(dense)*f.ReadShare()/u.expandMS + float64(f.WeightTables)*u.lutMS
	} else if f.WeightBytes > 0 {
		read = int64(math.Ceil(float64(dense) * f.ReadShare()))
	}
	e.ResidentBytes, e.WeightBytes = resident, read
	e.WeightMS = float64(read) / u.streamMS
}

// packed tells whether a layer's weights stay compressed until they are next
// to the multipliers.
func (u *Unit) packed(f *model.Facts) bool {
	switch f.WeightForm {
	case model.FormDense:
		return false
	case model.FormAffine:
		if f.WeightGran == model.PerBlock {
			return false
		}
		return f.WeightBits < 8 || u.streamInt8
	}
	return true
}
