package cpu

import (
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// Support tells that the CPU runs every layer, with what is worth knowing.
func (u *Unit) Support(l *model.Layer) units.Support {
	f := &l.Facts
	s := units.Support{OK: true}
	switch {
	case f.QuantInElems > 0 && u.passes > 0:
		s.Reason = "quantized activations are dequantized at run time"
	case f.WeightForm != model.FormDense && f.WeightElems > 0:
		s.Reason = "weights are decompressed to fp32 at load"
	}
	return s
}
