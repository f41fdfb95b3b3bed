package coreml

import (
	"math/bits"

	"github.com/triune-sim/triune/model"
)

// popcount counts the ones of a uint1 tensor.
func popcount(t *model.Tensor) int64 {
	n, e := 0, t.Len()
	for i, b := range t.Data {
		if left := e - 8*i; left < 8 {
			b &= 1<<max(left, 0) - 1
		}
		n += bits.OnesCount8(b)
	}
	return int64(n)
}
