package ops

import (
	"math"
	"slices"
	"strings"

	"github.com/triune-sim/triune/model"
)

// Einsum, determinants, and other matrix helpers.

// einsumPlan is a parsed equation: labels of each operand and of the result.
// The dimensions an ellipsis stands for have the labels 0x100, 0x101, ...
// counted from the innermost.
type einsumPlan struct {
	in  [][]rune
	out []rune
}

func parseEinsum(eq string, ranks []int) einsumPlan {
	eq = strings.ReplaceAll(eq, " ", "")
	left, right, explicit := strings.Cut(eq, "->")
	terms := strings.Split(left, ",")
	if len(terms) != len(ranks) {
		failf("equation %q has %d operands, %d given", eq, len(terms), len(ranks))
	}
	var p einsumPlan
	most := 0
	expand := func(term string, rank int) []rune {
		before, after, dots := strings.Cut(term, "...")
		var out []rune
		out = append(out, []rune(before)...)
		if dots {
			n := rank - len(before) - len(after)
			if n < 0 {
				failf("term %q of equation %q has more labels than the rank %d", term, eq, rank)
			}
			most = max(most, n)
			for i := n - 1; i >= 0; i-- {
				out = append(out, rune(0x100+i))
			}
			out = append(out, []rune(after)...)
		}
		if len(out) != rank {
			failf("term %q of equation %q does not fit rank %d", term, eq, rank)
		}
		for _, r := range out {
			if r < 0x100 && !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
				failf("equation %q has the label %q", eq, r)
			}
		}
		return out
	}
	for i, t := range terms {
		p.in = append(p.in, expand(t, ranks[i]))
	}
	if explicit {
		n := len(strings.Replace(right, "...", "", 1))
		if strings.Contains(right, "...") {
			n += most
		}
		p.out = expand(right, n)
		return p
	}
	// Implicit: the ellipsis, then labels that occur once, sorted.
	count := map[rune]int{}
	for _, t := range p.in {
		for _, r := range t {
			count[r]++
		}
	}
	for i := most - 1; i >= 0; i-- {
		p.out = append(p.out, rune(0x100+i))
	}
	var once []rune
	for r, n := range count {
		if r < 0x100 && n == 1 {
			once = append(once, r)
		}
	}
	slices.Sort(once)
	p.out = append(p.out, once...)
	return p
}

// dims returns the dimension of each label.
func (p einsumPlan) dims(shapes []model.Shape) map[rune]int {
	d := map[rune]int{}
	for i, t := range p.in {
		for k, r := range t {
			n := shapes[i][k]
			old, ok := d[r]
			switch {
			case !ok || old == 1 && r >= 0x100:
				d[r] = n
			case n == 1 && r >= 0x100:
			default:
				d[r] = mergeDim(old, n, "the dimensions of one label")
			}
		}
	}
	for i, r := range p.out {
		if _, ok := d[r]; !ok {
			failf("the result's label %q is in no operand", r)
		}
		if slices.Contains(p.out[:i], r) {
			failf("the result has the label %q twice", r)
		}
	}
	return d
}

func inferEinsum(c *inference) {
	d := c.dtype(0)
	c.typ(0, d)
	var shapes []model.Shape
	var ranks []int
	for i := range c.n.Inputs {
		s := c.shape(i)
		shapes, ranks = append(shapes, s), append(ranks, len(s))
	}
	p := parseEinsum(c.n.Attrs.String("equation", ""), ranks)
	dims := p.dims(shapes)
	out := model.Shape{}
	for _, r := range p.out {
		out = append(out, dims[r])
	}
	c.out(0, d, out)
}

// evalEinsum sums products over all labels that the result does not have.
func evalEinsum(c *call) {
	var shapes []model.Shape
	var ranks []int
	var vs [][]float64
	for i := range c.in {
		x := c.x(i)
		shapes, ranks, vs = append(shapes, x.Shape), append(ranks, len(x.Shape)), append(vs, floats(x))
	}
	p := parseEinsum(c.n.Attrs.String("equation", ""), ranks)
	dims := p.dims(shapes)
	outShape, inner := model.Shape{}, model.Shape{}
	var sumLabels []rune
	for _, r := range p.out {
		outShape = append(outShape, dims[r])
	}
	for r := range dims {
		if !slices.Contains(p.out, r) {
			sumLabels = append(sumLabels, r)
		}
	}
	slices.Sort(sumLabels)
	for _, r := range sumLabels {
		inner = append(inner, dims[r])
	}
	out := c.alloc(outShape)
	c.size(model.Float64, inner)
	offs, sums := make([][]int, len(vs)), make([][]int, len(vs))
	for i, t := range p.in {
		st := strides(shapes[i])
		stride := func(labels []rune) []int {
			s := make([]int, len(labels))
			for k, r := range labels {
				for j, l := range t {
					if l == r && !(shapes[i][j] == 1 && dims[r] != 1) {
						s[k] += st[j]
					}
				}
			}
			return s
		}
		offs[i], sums[i] = walk(outShape, stride(p.out), 0), walk(inner, stride(sumLabels), 0)
	}
	n := prod(inner)
	const block = 64
	parallel((len(out)+block-1)/block, func(b int) {
		if c.ctx.Err() != nil {
			return
		}
		for o := b * block; o < min(len(out), (b+1)*block); o++ {
			acc := 0.0
			for s := range n {
				m := 1.0
				for i := range vs {
					m *= vs[i][offs[i][o]+sums[i][s]]
				}
				acc += m
			}
			out[o] = acc
		}
	})
	if err := c.ctx.Err(); err != nil {
		failf("%w", err)
	}
	c.putF(0, c.x(0).DType, outShape, out)
}

// det returns the determinant of an n x n matrix by elimination with pivoting.
func det(a []float64, n int) float64 {
	a = slices.Clone(a)
	d := 1.0
	for k := range n {
		p := k
		for i := k + 1; i < n; i++ {
			if math.Abs(a[i*n+k]) > math.Abs(a[p*n+k]) {
				p = i
			}
		}
		if a[p*n+k] == 0 {
			return 0
		}
		if p != k {
			for j := range n {
				a[p*n+j], a[k*n+j] = a[k*n+j], a[p*n+j]
			}
			d = -d
		}
		d *= a[k*n+k]
		for i := k + 1; i < n; i++ {
			f := a[i*n+k] / a[k*n+k]
			for j := k; j < n; j++ {
				a[i*n+j] -= f * a[k*n+j]
			}
		}
	}
	return d
}

func init() {
	register("matmul", [4]int{1, many, 1, 1}, inferEinsum, evalEinsum, "Einsum")
	countMACs(func(n *model.Node) int64 {
		var macs int64
		if len(n.Inputs) < 2 {
			return 0
		}
		_ = guard(n, func() {
			var shapes []model.Shape
			var ranks []int
			for _, v := range n.Inputs {
				shapes, ranks = append(shapes, v.Shape), append(ranks, len(v.Shape))
			}
			macs = 1
			for _, d := range parseEinsum(n.Attrs.String("equation", ""), ranks).dims(shapes) {
				macs *= int64(d)
			}
		})
		return macs
	}, "Einsum")
	register("matmul", [4]int{1, 1, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(0))
		s := c.rankAtLeast(0, 2)
		mergeDim(s[len(s)-1], s[len(s)-2], "the sides of the matrix")
		c.out(0, c.dtype(0), s[:len(s)-2])
	}, func(c *call) {
		x := c.x(0)
		r := len(x.Shape)
		if r < 2 || x.Shape[r-1] != x.Shape[r-2] {
			failf("input %v holds no square matrices", x.Shape)
		}
		n := x.Shape[r-1]
		v := floats(x)
		out := c.alloc(x.Shape[:r-2])
		for i := range out {
			out[i] = det(v[i*n*n:(i+1)*n*n], n)
		}
		c.putF(0, x.DType, x.Shape[:r-2], out)
	}, "Det")
	register("shape", [4]int{1, 1, 1, 1}, func(c *inference) {
		d := attrType(c.n.Attrs, "dtype", c.dtype(0))
		c.typ(0, d)
		c.out(0, d, c.rankIs(0, 2))
	}, func(c *call) {
		x := c.x(0)
		if len(x.Shape) != 2 {
			failf("input %v wants rank 2", x.Shape)
		}
		d := c.float(attrType(c.n.Attrs, "dtype", x.DType))
		k := c.n.Attrs.Int("k", 0)
		t := model.NewTensor(d, x.Shape...)
		for i := range x.Shape[0] {
			if j := i + k; j >= 0 && j < x.Shape[1] {
				t.Set(i*x.Shape[1]+j, 1)
			}
		}
		c.put(0, t)
	}, "EyeLike")
}
