package exec

import (
	"testing"

	"pgregory.net/rapid"
)

// Buffers that are alive together never overlap, every offset is aligned, and
// the arena is at least as large as the fullest moment and no larger than all
// buffers side by side.
func TestPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(t, "n")
		bufs := make([]*buffer, n)
		sum := 0
		for i := range bufs {
			first := rapid.IntRange(0, 30).Draw(t, "first")
			bufs[i] = &buffer{
				bytes: rapid.IntRange(0, 5000).Draw(t, "bytes"),
				first: first,
				last:  first + rapid.IntRange(0, 10).Draw(t, "life"),
			}
			sum += (bufs[i].bytes + arenaAlign - 1) &^ (arenaAlign - 1)
		}
		total := place(bufs)
		if total > sum {
			t.Fatalf("arena of %d bytes for %d bytes of buffers", total, sum)
		}
		for i, a := range bufs {
			if a.off%arenaAlign != 0 || a.off+a.bytes > total {
				t.Fatalf("buffer %d at %d + %d, arena %d", i, a.off, a.bytes, total)
			}
			for _, b := range bufs[:i] {
				if a.last < b.first || b.last < a.first {
					continue
				}
				if a.off < b.off+b.bytes && b.off < a.off+a.bytes {
					t.Fatalf("buffers %+v and %+v overlap", *a, *b)
				}
			}
		}
		for step := 0; step <= 40; step++ {
			live := 0
			for _, b := range bufs {
				if b.first <= step && step <= b.last {
					live += b.bytes
				}
			}
			if live > total {
				t.Fatalf("step %d needs %d bytes, arena is %d", step, live, total)
			}
		}
	})
}
