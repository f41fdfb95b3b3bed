package exec

import (
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

// writeBack emits the steps that take what [Program.Watch]'s caller has left in
// the shown tensor into every form the value exists in: rounded to fp16 where
// the unit holds that, quantized where it is held as 8-bit codes. Values that
// are not in the arena (graph inputs, results of the reference evaluation) stay
// as they are.
func (b *builder) writeBack(v *model.Value, shown *ten) {
	for _, f := range b.vals[v] {
		if f.from != inArena {
			continue
		}
		if f.codes {
			c := f
			if f.lay != plain {
				c = b.newCodes(v.Shape, plain, f.q)
			}
			b.emit(func(s *state) error {
				if s.see == nil {
					return nil
				}
				kernels.QuantizeF32(s.k, s.u8(c)[:elems(v.Shape)], s.f32(shown)[:elems(v.Shape)], f.q)
				if c != f {
					kernels.PackC16U8(s.k, s.u8(f), s.u8(c), f.n, f.c, f.h, f.w, byte(f.q.Zero))
				}
				return nil
			}, []*ten{f, c}, []*ten{shown})
			continue
		}
		b.emit(func(s *state) error {
			if s.see == nil {
				return nil
			}
			to, from := s.f32(f), s.f32(shown)[:elems(v.Shape)]
			switch {
			case f.lay != plain && f.buf == shown.buf: // one pixel: the same order
			case f.lay != plain:
				kernels.PackC16(s.k, to, from, f.n, f.c, f.h, f.w)
			default:
				copy(to, from)
			}
			if f.half {
				kernels.RoundF16Slice(s.k, to, to)
			}
			return nil
		}, []*ten{f}, []*ten{shown})
	}
}
