package units

import "github.com/triune-sim/triune/model"

// Measured reports whether the measurements that the cost models are
// calibrated on hold layers of this kind: convolutions, depthwise ones, fully
// connected layers of one row, pooling, element-wise work, norms and moves.
// Products over a sequence, attention, gather, resize, transposed and dilated
// convolutions and recurrent cells are priced from isolated measurements and
// rules alone. A test of package calibrate holds the list to the data.
func Measured(l *model.Layer) bool {
	switch l.Kind {
	case model.KindConv, model.KindDepthwise:
		return l.DilH <= 1 && l.DilW <= 1 && l.KD <= 1
	case model.KindLinear:
		return l.M <= 1
	case model.KindPool, model.KindElementwise, model.KindActivation, model.KindSoftmax, model.KindNorm, model.KindReduce,
		model.KindMove, model.KindView, model.KindQuantize:
		return true
	}
	return false
}
