package exec

import (
	"cmp"
	"slices"
)

// arenaAlign is the alignment of the arena and of every buffer in it, in
// bytes: a cache line, and the width of the widest vector.
const arenaAlign = 64

// place gives every buffer its offset and returns the size of the arena: the
// largest buffers first, each at the lowest offset where it overlaps no buffer
// that is alive at the same time (the "greedy by size" of Pisarchyk and Lee,
// arXiv 2001.03288). Buffers are alive from first to last inclusive.
func place(bufs []*buffer) int {
	order := slices.Clone(bufs)
	slices.SortStableFunc(order, func(a, b *buffer) int { return cmp.Compare(b.bytes, a.bytes) })
	var done []*buffer // by offset
	total := 0
	for _, b := range order {
		if b.first < 0 { // nothing writes it
			continue
		}
		need := (b.bytes + arenaAlign - 1) &^ (arenaAlign - 1)
		off := 0
		for _, o := range done {
			if o.last < b.first || b.last < o.first {
				continue
			}
			if off+need <= o.off {
				break
			}
			off = max(off, (o.off+o.bytes+arenaAlign-1)&^(arenaAlign-1))
		}
		b.off = off
		total = max(total, off+need)
		i, _ := slices.BinarySearchFunc(done, off, func(o *buffer, off int) int { return cmp.Compare(o.off, off) })
		done = slices.Insert(done, i, b)
	}
	return total
}
