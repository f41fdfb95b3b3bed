package gpu

import (
	"fmt"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// Support tells whether the GPU runs a layer, and why not. Core ML drives the
// GPU through MPSGraph: floating point and integer tensors of any rank,
// recurrent cells included; control flow, sequences and operators whose shape
// depends on values stay on the CPU.
func (u *Unit) Support(l *model.Layer) units.Support {
	f := &l.Facts
	switch {
	case l.Kind == model.KindControl:
		return units.Support{Reason: "control flow and sequences run on the CPU"}
	case f.Dynamic:
		return units.Support{Reason: "its shape depends on values; it runs on the CPU"}
	case l.Kind == model.KindOther:
		return units.Support{Reason: fmt.Sprintf("%s has no GPU path", l.Op)}
	case f.Rank > 16:
		return units.Support{Reason: fmt.Sprintf("rank %d; the GPU takes at most 16 axes", f.Rank)}
	}
	switch l.Op {
	case "NonMaxSuppression", "Unique", "Compress", "NonZero", "Shape", "Size", "Bernoulli":
		return units.Support{Reason: fmt.Sprintf("%s has no GPU path", l.Op)}
	}
	s := units.Support{OK: true}
	switch {
	case f.WeightForm == model.FormAffine && f.WeightGran == model.PerBlock && u.packedInt4:
		s.Reason = fmt.Sprintf("int%d per block stays packed and is dequantized inside the kernel", f.WeightBits)
	case f.WeightForm != model.FormDense && f.WeightElems > 0:
		s.Reason = "weights are decompressed to fp16 at load"
	}
	if f.QuantInElems > 0 && u.passes > 0 {
		s.Reason = "quantized activations are dequantized at run time"
	}
	return s
}
