package exec

import (
	"unsafe"

	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

// layout is how the elements of a tensor lie in memory.
type layout uint8

const (
	plain layout = iota // row-major
	c16                 // [N][ceil(C/16)][H][W][16], see package kernels
)

// origin says where the memory of a tensor is found at run time.
type origin uint8

const (
	inArena  origin = iota // the activation arena of the call
	inConst                // held by the program
	inInput                // the caller's input, index ten.slot
	inObject               // a model.Tensor made during the call, index ten.slot
)

// buffer is a piece of the activation arena.
type buffer struct {
	bytes       int
	first, last int // steps that write it first and read it last
	off         int // byte offset in the arena, set by the planner
}

// ten is a tensor as a step sees it: where it is, in which layout, and what
// its elements mean. A graph value may exist as several tens (another layout,
// rounded to fp16, dequantized); views share a buffer.
type ten struct {
	from   origin
	lay    layout
	codes  bool            // elements are 8-bit codes with parameters q, else float32
	half   bool            // every value is fp16-representable
	q      kernels.QParams // of codes
	shape  model.Shape     // logical shape
	n      int             // c16: images
	c      int             // c16: channels
	h, w   int             // c16: rows and columns
	len    int             // elements of the slice, tails included
	buf    *buffer
	slot   int
	constF []float32
	constU []uint8
}

// dims4 reads a shape of rank 2 to 4 as N, C, H, W ([N,C] and [N,C,L] have
// H = 1); ok is false for other ranks.
func dims4(s model.Shape) (n, c, h, w int, ok bool) {
	switch len(s) {
	case 2:
		return s[0], s[1], 1, 1, true
	case 3:
		return s[0], s[1], 1, s[2], true
	case 4:
		return s[0], s[1], s[2], s[3], true
	}
	return 0, 0, 0, 0, false
}

// elems is the number of elements of a known shape.
func elems(s model.Shape) int { return int(s.Elems()) }

// f32 returns the float elements of t in this call.
func (s *state) f32(t *ten) []float32 {
	switch t.from {
	case inArena:
		if t.len == 0 {
			return nil
		}
		return unsafe.Slice((*float32)(unsafe.Add(s.base, t.buf.off)), t.len)
	case inConst:
		return t.constF
	case inInput:
		return s.inF[t.slot]
	}
	return s.objects[t.slot].Tensor.Float32s()
}

// u8 returns the 8-bit codes of t in this call.
func (s *state) u8(t *ten) []uint8 {
	switch t.from {
	case inArena:
		if t.len == 0 {
			return nil
		}
		return unsafe.Slice((*uint8)(unsafe.Add(s.base, t.buf.off)), t.len)
	case inConst:
		return t.constU
	}
	return s.objects[t.slot].Tensor.Data
}

// aliasPlain returns t seen as a plain tensor when a C16 tensor's bytes happen
// to be in row-major order: one pixel, and full blocks or a single image.
func aliasPlain(t *ten) (*ten, bool) {
	if t.lay == plain {
		return t, true
	}
	if t.h*t.w != 1 || t.c%kernels.Block != 0 && t.n != 1 {
		return nil, false
	}
	a := *t
	a.lay, a.len = plain, t.n*t.c
	return &a, true
}

// aliasC16 is the reverse of aliasPlain; it needs full blocks.
func aliasC16(t *ten) (*ten, bool) {
	if t.lay == c16 {
		return t, true
	}
	n, c, h, w, ok := dims4(t.shape)
	if !ok || h*w != 1 || c%kernels.Block != 0 {
		return nil, false
	}
	a := *t
	a.lay, a.n, a.c, a.h, a.w = c16, n, c, h, w
	return &a, true
}

// reshaped returns a plain tensor under another shape, same memory.
func reshaped(t *ten, s model.Shape) *ten {
	a := *t
	a.shape = s
	return &a
}
