package units

import (
	"fmt"

	"github.com/triune-sim/triune/model"
)

// Kind names a compute unit.
type Kind uint8

// The compute units.
const (
	CPU Kind = iota
	GPU
	NE
	NumKinds = 3
)

// String returns "CPU", "GPU" or "NE".
func (k Kind) String() string { return [...]string{"CPU", "GPU", "NE"}[k] }

// MarshalText writes the unit's name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Mask is a set of units, with Core ML's words.
type Mask uint8

// The compute-unit masks of Core ML.
const (
	CPUOnly   Mask = 1 << CPU
	CPUAndGPU Mask = 1<<CPU | 1<<GPU
	CPUAndNE  Mask = 1<<CPU | 1<<NE
	All       Mask = 1<<CPU | 1<<GPU | 1<<NE
)

// Has reports whether the mask contains a unit.
func (m Mask) Has(k Kind) bool { return m>>k&1 != 0 }

// String returns Core ML's word for the mask.
func (m Mask) String() string {
	switch m {
	case CPUOnly:
		return "cpu_only"
	case CPUAndGPU:
		return "cpu_and_gpu"
	case CPUAndNE:
		return "cpu_and_ne"
	case All:
		return "all"
	}
	return fmt.Sprintf("mask(%d)", uint8(m))
}

// ParseMask reads all, cpu_only, cpu_and_gpu or cpu_and_ne.
func ParseMask(s string) (Mask, error) {
	for _, m := range []Mask{All, CPUOnly, CPUAndGPU, CPUAndNE} {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, fmt.Errorf("units: unknown compute units %q (want all, cpu_only, cpu_and_gpu or cpu_and_ne)", s)
}

// Bound says what limits a layer on a unit.
type Bound uint8

// The bounds.
const (
	BoundCompute    Bound = iota
	BoundWeight           // reading weights
	BoundActivation       // reading and writing activations
	BoundOverhead
)

// String returns compute, weight_memory, activation_memory or overhead.
func (b Bound) String() string {
	return [...]string{"compute", "weight_memory", "activation_memory", "overhead"}[b]
}

// Estimate is what one layer costs on one unit, at steady state, one request.
// All times are in ms, sizes in bytes, energies in mJ; all are finite and not
// negative.
//
// The time of a layer is BusyMS + OverheadMS, where BusyMS is what its
// arithmetic and its activation traffic take together (at least each of
// ComputeMS and ActivationMS), stretched, at plan level, by a stall when the
// weight stream is late (see [Stream]).
type Estimate struct {
	ComputeMS    float64 // arithmetic at the utilised rate
	ActivationMS float64 // activation traffic at the level it is served from
	WeightMS     float64 // weight traffic from DRAM, if it were alone
	ExpandMS     float64 // decompression or quantize/dequantize passes at run time, part of BusyMS
	BusyMS       float64 // combined: max or sum as the unit overlaps them; weights excluded
	OverheadMS   float64 // per-layer launch cost

	InputBytes, OutputBytes int64   // activation bytes as the unit stores them
	WeightBytes             int64   // weight bytes moved per inference
	DRAMBytes               int64   // activation bytes that go to DRAM
	ChipBytes               int64   // activation bytes served on chip
	ResidentBytes           int64   // weight bytes resident after load
	EnergyMJ                float64 // dynamic energy: operations and bytes; static power is added by the plan
	Bound                   Bound
}

// Support is a unit's answer to "can you run this layer?".
type Support struct {
	OK     bool
	Reason string // why not; or, when OK, a remark worth showing ("" for none)
}

// Unit is one compute unit of one device.
type Unit interface {
	Kind() Kind
	// Support tells whether the unit runs the layer, and why not.
	Support(l *model.Layer) Support
	// Estimate prices a supported layer. It is pure, allocates nothing and is
	// safe for concurrent use.
	Estimate(l *model.Layer, e *Estimate)
	// Rates returns the unit-wide figures that the plan needs.
	Rates() Rates
}

// Rates are the figures of a unit that are not a layer's.
type Rates struct {
	FloorMS float64 // per request, once per plan that uses the unit
	// StreamGBs is the rate at which weights stream from DRAM; PrefetchBytes
	// how far the stream may run ahead of compute. See [Stream].
	StreamGBs     float64
	PrefetchBytes float64
	StaticWatts   float64 // power while busy, beside the dynamic energy
	// ActivationBytes is the size of a float activation element: 4 on the
	// CPU, 2 elsewhere.
	ActivationBytes int
}

// Stream is the weight stream of a plan: weights are fetched in layer order,
// ahead of compute by at most the prefetch store, and a layer ends no earlier
// than its weights have arrived. It makes the time of a plan a recurrence that
// is monotone in both fields:
//
//	credit = min(credit, prefetch / rate)       time the stream is ahead
//	stall  = max(0, weight_ms - credit - busy_ms)
//	credit = credit + busy_ms + stall - weight_ms
//
// A layer takes overhead + busy + stall.
type Stream struct {
	CreditMS float64
}

// Step advances the stream by a layer and returns the stall in ms.
func (s *Stream) Step(busyMS, weightMS, capMS float64) (stallMS float64) {
	c := min(s.CreditMS, capMS) + busyMS - weightMS
	if c < 0 {
		stallMS, c = -c, 0
	}
	s.CreditMS = min(c, capMS)
	return stallMS
}
