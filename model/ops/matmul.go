package ops

import (
	"github.com/triune-sim/triune/model"
)

// Matrix products.

// matmulShape returns the result's shape and the broadcast batch shape.
func matmulShape(a, b model.Shape) (shape, batch model.Shape, m, k, n int) {
	if len(a) == 0 || len(b) == 0 {
		failf("operands %v and %v want rank 1 or more", a, b)
	}
	a2, b2 := a, b
	if len(a) == 1 {
		a2 = model.Shape{1, a[0]}
	}
	if len(b) == 1 {
		b2 = model.Shape{b[0], 1}
	}
	m, n = a2[len(a2)-2], b2[len(b2)-1]
	k = mergeDim(a2[len(a2)-1], b2[len(b2)-2], "the inner dimensions of the operands")
	batch = broadcastShapes(a2[:len(a2)-2], b2[:len(b2)-2])
	shape = append(model.Shape{}, batch...)
	if len(a) > 1 {
		shape = append(shape, m)
	}
	if len(b) > 1 {
		shape = append(shape, n)
	}
	return
}

func inferMatMul(c *inference) {
	d := c.dtype(0)
	if c.n.Op == "MatMulInteger" {
		d = model.Int32
	} else if e := c.dtype(1); d != e && d != model.Invalid && e != model.Invalid {
		failf("operands are %s and %s, want the same type", d, e)
	}
	c.typ(0, d)
	s, _, _, _, _ := matmulShape(c.shape(0), c.shape(1))
	c.out(0, d, s)
}

// matmul multiplies float64 operands with batch broadcasting.
func matmul(c *call, as, bs model.Shape, a, b []float64) (model.Shape, []float64) {
	shape, batch, m, k, n := matmulShape(as, bs)
	out := c.alloc(shape)
	if len(out) == 0 {
		return shape, out
	}
	lead := func(s model.Shape) model.Shape { return s[:max(0, len(s)-2)] }
	ia, ib := broadcastIndex(lead(as), batch), broadcastIndex(lead(bs), batch)
	at := func(ix []int, i int) int {
		if ix == nil {
			return i
		}
		return ix[i]
	}
	bt := make([]float64, n*k)
	last := -1
	for i := range prod(batch) {
		if j := at(ib, i); j != last {
			transposeInto(bt, b[j*k*n:(j+1)*k*n], k, n)
			last = j
		}
		am := a[at(ia, i)*m*k:]
		const rows = 8
		parallel((m+rows-1)/rows, func(r int) {
			if c.ctx.Err() != nil {
				return
			}
			from := r * rows
			to := min(m, from+rows)
			dotRows(out[(i*m+from)*n:], n, am[from*k:to*k], bt, to-from, n, k)
		})
		if err := c.ctx.Err(); err != nil {
			failf("%w", err)
		}
	}
	return shape, out
}

// transposeInto writes the transpose of src (rows x cols) to dst.
func transposeInto(dst, src []float64, rows, cols int) {
	for i := range rows {
		for j, v := range src[i*cols : (i+1)*cols] {
			dst[j*rows+i] = v
		}
	}
}

func evalMatMul(c *call) {
	a, b := c.x(0), c.x(1)
	if a.DType != b.DType {
		failf("operands are %s and %s, want the same type", a.DType, b.DType)
	}
	s, v := matmul(c, a.Shape, b.Shape, floats(a), floats(b))
	c.putF(0, a.DType, s, v)
}

// evalMatMulInteger: zero points are scalars, or per row of A and per column
// of B.
func evalMatMulInteger(c *call) {
	a, b := c.x(0), c.x(1)
	av, bv := append([]float64{}, floats(a)...), append([]float64{}, floats(b)...)
	if z := c.opt(2); z != nil {
		zs := z.Shape
		if len(zs) == 1 && zs[0] > 1 { // one value per row
			zs = model.Shape{zs[0], 1}
		}
		for i, v := range expandF(floats(z), zs, a.Shape) {
			av[i] -= v
		}
	}
	if z := c.opt(3); z != nil {
		for i, v := range expandF(floats(z), z.Shape, b.Shape) {
			bv[i] -= v
		}
	}
	s, v := matmul(c, a.Shape, b.Shape, av, bv)
	r := make([]int64, len(v))
	for i, x := range v {
		r[i] = int64(x)
	}
	c.putI(0, model.Int32, s, r)
}

// Gemm is alpha A' B' + beta C on matrices.
func gemmShape(a model.Attrs, as, bs model.Shape) (m, k, n int) {
	if len(as) != 2 || len(bs) != 2 {
		failf("operands %v and %v want rank 2", as, bs)
	}
	m, k = as[0], as[1]
	if a.Int("transA", 0) != 0 {
		m, k = k, m
	}
	kb, n := bs[0], bs[1]
	if a.Int("transB", 0) != 0 {
		kb, n = n, kb
	}
	return m, mergeDim(k, kb, "the inner dimensions of the operands"), n
}

func evalGemm(c *call) {
	a, b := c.x(0), c.x(1)
	at := c.n.Attrs
	m, k, n := gemmShape(at, a.Shape, b.Shape)
	av, bv := floats(a), floats(b)
	if at.Int("transA", 0) != 0 {
		t := make([]float64, len(av))
		transposeInto(t, av, k, m)
		av = t
	}
	if at.Int("transB", 0) == 0 {
		t := make([]float64, len(bv))
		transposeInto(t, bv, k, n)
		bv = t
	}
	shape := model.Shape{m, n}
	out := c.alloc(shape)
	const cols = 64
	parallel((n+cols-1)/cols, func(r int) {
		if c.ctx.Err() != nil {
			return
		}
		from := r * cols
		to := min(n, from+cols)
		dotRows(out[from:], n, av, bv[from*k:to*k], m, to-from, k)
	})
	if err := c.ctx.Err(); err != nil {
		failf("%w", err)
	}
	alpha, beta := at.Float("alpha", 1), at.Float("beta", 1)
	if alpha != 1 {
		for i := range out {
			out[i] *= alpha
		}
	}
	if t := c.opt(2); t != nil {
		for i, v := range expandF(floats(t), t.Shape, shape) {
			out[i] += beta * v
		}
	}
	c.putF(0, a.DType, shape, out)
}

func init() {
	register("matmul", [4]int{2, 2, 1, 1}, inferMatMul, evalMatMul, "MatMul")
	register("matmul", [4]int{2, 4, 1, 1}, inferMatMul, evalMatMulInteger, "MatMulInteger")
	register("matmul", [4]int{2, 3, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		m, _, n := gemmShape(c.n.Attrs, c.shape(0), c.shape(1))
		if c.has(2) {
			if s, ok := c.shapeOf(2); ok {
				if len(s) > 2 || !broadcastShapes(s, model.Shape{m, n}).Equal(model.Shape{m, n}) && m >= 0 && n >= 0 {
					failf("C of shape %v does not broadcast to [%d,%d]", s, m, n)
				}
			}
		}
		c.out(0, c.dtype(0), model.Shape{m, n})
	}, evalGemm, "Gemm")
	countMACs(func(n *model.Node) int64 {
		a := n.In(0).Shape
		if len(a) == 0 || IsUnranked(a) {
			return 0
		}
		return n.Out(0).Shape.Elems() * int64(a[len(a)-1])
	}, "MatMul", "MatMulInteger")
	countMACs(func(n *model.Node) int64 {
		a := n.In(0).Shape
		if len(a) != 2 {
			return 0
		}
		k := a[1]
		if n.Attrs.Int("transA", 0) != 0 {
			k = a[0]
		}
		return n.Out(0).Shape.Elems() * int64(k)
	}, "Gemm")
}
