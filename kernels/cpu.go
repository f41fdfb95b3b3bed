package kernels

import "os"

// level is a set of kernels, by instruction set.
type level struct {
	name string
	vec  int // which flat kernels, see vecCall
	f32  microF32
	i8   microI8
	dw   microDW
	dwI8 microDWI8
	// Depthwise rows read in place, by tile width; nil if there is none.
	dwEdge func(width, strideW int) func(*tileArgs)
	// Maximum over the windows of rows of one block.
	maxF32 microDW
	max8   func(t *tileArgsI8, strideW int, signed bool)
	// Addition of bytes, by Round; nil where it goes through floats.
	addQ8 [RoundF16 + 1]func(*addArgs)
	// Addition of bytes in steps of the sum.
	sumQ8 func(*addArgs)
	// Register-only loops and the operations of one iteration.
	peakF32, peakI8       func(n int64)
	peakF32Ops, peakI8Ops float64
}

var genericLevel = level{
	name:   "generic",
	f32:    microF32{maxP: 4, nb: 1, run: tileF32Go},
	i8:     microI8{maxP: 4, nb: 1, run: tileI8Go},
	dw:     dwF32Go,
	dwI8:   microDWI8{maxP: 16, bytes: true, run: dwI8Go},
	maxF32: maxF32Go, max8: max8Go,

	peakF32: peakF32Go, peakF32Ops: 8,
	peakI8: peakI8Go, peakI8Ops: 8,
}

// cur is the level in use, chosen once at start.
var cur = chooseLevel(os.Getenv("TRIUNE_CPU"))

// ISA names the instruction-set level in use.
func ISA() string { return cur.name }

// chooseLevel returns the best level of this processor whose rank is at most
// that of the name asked for; an empty or unknown name asks for the best.
func chooseLevel(name string) *level {
	ls := archLevels() // best first, generic last
	for i, l := range ls {
		if l.name == name {
			return ls[i]
		}
	}
	return ls[0]
}
