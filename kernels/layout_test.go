package kernels

import (
	"math/rand/v2"
	"testing"
)

// Both layouts hold the same values, for floats and bytes, channels around a
// block and pixels around a piece; the tail of the last block is filled.
func TestNHWC(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	ctx := NewCtx(nil)
	for _, c := range []int{1, 3, 15, 16, 17, 32, 47, 96} {
		for _, hw := range [][2]int{{1, 1}, {1, 31}, {4, 8}, {3, 11}, {7, 13}} {
			const n = 2
			h, w := hw[0], hw[1]
			x := randF32(r, n*c*h*w)
			blocked := make([]float32, C16Len(n, c, h, w))
			PackNHWC(ctx, blocked, x, n, c, h, w)
			checkNHWC(t, ctx, n, c, h, w, x, blocked, 0)
			b := make([]uint8, n*c*h*w)
			for i := range b {
				b[i] = uint8(r.Uint32())
			}
			blocked8 := make([]uint8, len(blocked))
			PackNHWCU8(ctx, blocked8, b, n, c, h, w, 77)
			checkNHWC(t, ctx, n, c, h, w, b, blocked8, 77)
		}
	}
}

func checkNHWC[T float32 | uint8](t *testing.T, ctx *Ctx, n, c, h, w int, x, blocked []T, fill T) {
	t.Helper()
	back := make([]T, len(x))
	cb := ceilDiv(c, Block)
	for i, v := range blocked {
		img, ch, p := i/(cb*h*w*Block), i/(h*w*Block)%cb*Block+i%Block, i/Block%(h*w)
		want := fill
		if ch < c {
			want = x[(img*h*w+p)*c+ch]
		}
		if v != want {
			t.Fatalf("%T of %d channels, %dx%d: element %d is %v, want %v", v, c, h, w, i, v, want)
		}
	}
	UnpackNHWC(ctx, back, blocked, n, c, h, w)
	for i := range x {
		if back[i] != x[i] {
			t.Fatalf("%T of %d channels, %dx%d: element %d came back as %v, was %v", x[i], c, h, w, i, back[i], x[i])
		}
	}
}
