package exec

import "github.com/triune-sim/triune/kernels"

// mover copies elements between two strided views of the same shape. It is
// immutable; merged dimensions and blocks are chosen at compile time.
type mover struct {
	dims           []int // outer dimensions
	ds, ss         []int // their strides in dst and src, elements
	inner          int   // length of the inner run
	id, is         int   // its strides
	dstOff, srcOff int
	rows           int // product of dims
	grain          int // rows of a piece
}

// moveGrain is the number of elements a piece moves at least.
const moveGrain = 16384

// newMover prepares dst[dstOff + i*ds] = src[srcOff + i*ss] for all i in shape.
func newMover(shape, ds, ss []int, dstOff, srcOff int) *mover {
	m := &mover{dstOff: dstOff, srcOff: srcOff, inner: 1, id: 1, is: 1, rows: 1}
	var dims, d, s []int
	for i, n := range shape {
		if n == 1 {
			continue
		}
		if k := len(dims) - 1; k >= 0 && d[k] == ds[i]*n && s[k] == ss[i]*n {
			dims[k], d[k], s[k] = dims[k]*n, ds[i], ss[i]
			continue
		}
		dims, d, s = append(dims, n), append(d, ds[i]), append(s, ss[i])
	}
	if k := len(dims) - 1; k >= 0 {
		m.inner, m.id, m.is = dims[k], d[k], s[k]
		m.dims, m.ds, m.ss = dims[:k], d[:k], s[:k]
	}
	for _, n := range m.dims {
		m.rows *= n
	}
	m.grain = max(1, moveGrain/max(1, m.inner))
	return m
}

// moveTask runs a mover over a pool without allocating.
type moveTask struct {
	m          *mover
	dstF, srcF []float32
	dstU, srcU []uint8
}

// RunPiece moves one piece of rows.
func (t *moveTask) RunPiece(i, _ int) {
	m := t.m
	lo, hi := i*m.grain, min((i+1)*m.grain, m.rows)
	if t.dstF != nil {
		moveRows(m, t.dstF, t.srcF, lo, hi)
	} else {
		moveRows(m, t.dstU, t.srcU, lo, hi)
	}
}

func moveRows[T float32 | uint8](m *mover, dst, src []T, lo, hi int) {
	for r := lo; r < hi; r++ {
		do, so := m.dstOff, m.srcOff
		for i, rem := len(m.dims)-1, r; i >= 0; i-- {
			k := rem % m.dims[i]
			rem /= m.dims[i]
			do, so = do+k*m.ds[i], so+k*m.ss[i]
		}
		switch {
		case m.id == 1 && m.is == 1:
			copy(dst[do:do+m.inner], src[so:so+m.inner])
		case m.id == 1 && m.is == 0:
			d, v := dst[do:do+m.inner], src[so]
			for i := range d {
				d[i] = v
			}
		case m.id == 1:
			d := dst[do : do+m.inner]
			for i := range d {
				d[i] = src[so]
				so += m.is
			}
		default:
			for range m.inner {
				dst[do] = src[so]
				do, so = do+m.id, so+m.is
			}
		}
	}
}

func (m *mover) f32(s *state, dst, src []float32) {
	s.move = moveTask{m: m, dstF: dst, srcF: src}
	m.run(s)
}

func (m *mover) u8(s *state, dst, src []uint8) {
	s.move = moveTask{m: m, dstU: dst, srcU: src}
	m.run(s)
}

func (m *mover) run(s *state) {
	if m.rows == 0 || m.inner == 0 {
		return
	}
	runPool(s.k, (m.rows+m.grain-1)/m.grain, &s.move)
	s.move = moveTask{}
}

func runPool(k *kernels.Ctx, n int, t kernels.Task) { k.Pool().Run(n, t) }
