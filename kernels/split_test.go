package kernels

import "testing"

// The pieces of each layer, taken in turn by whichever of two threads is free,
// keep both busy: a bound on what any machine can gain, with one multiply-add
// as the unit of time.
func TestSplit(t *testing.T) {
	for _, c := range benchShapes {
		s := c.s.defaults()
		if s.Groups != 1 {
			continue
		}
		for _, int8 := range []bool{false, true} {
			es, nb := 4, 2
			if int8 {
				es = 1
			}
			p := newConvPlan(s, es, nb, 14, int8, false)
			split := p.ocSplit(p.chunks(), 2)
			var busy [2]int
			total := 0
			length := p.oh
			if p.flat {
				length = p.ow
			}
			for i := range p.chunks() * split {
				rows, blocks := min(p.rows, length-i/split*p.rows), 0
				for _, tl := range p.tiles[len(p.tiles)*(i%split)/split : len(p.tiles)*(i%split+1)/split] {
					blocks += tl.nb
				}
				k := 0
				if busy[1] < busy[0] {
					k = 1
				}
				busy[k] += rows * blocks
				total += rows * blocks
			}
			if total != length*p.ocBlocks {
				t.Errorf("%s int8 %v: pieces cover %d rows of blocks, want %d", c.name, int8, total, length*p.ocBlocks)
			}
			want := 1.65
			if c.name[:3] == "r50" {
				want = 1.85
			}
			if g := float64(total) / float64(max(busy[0], busy[1])); g < want {
				t.Errorf("%s int8 %v: %d chunks of %d, %d tiles in %d: two threads gain %.2f", c.name, int8, p.chunks(), p.rows, len(p.tiles), split, g)
			}
		}
	}
}
