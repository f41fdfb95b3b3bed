package whatif

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The direction numbers are what the construction requires: odd, below 2^i,
// and recurrences by primitive polynomials.
func TestSobolTable(t *testing.T) {
	for d, p := range joeKuo {
		if len(p.m) != int(p.s) {
			t.Fatalf("dimension %d has %d direction numbers for degree %d", d+2, len(p.m), p.s)
		}
		for k, m := range p.m {
			if m%2 == 0 || m >= 1<<(k+1) {
				t.Errorf("dimension %d: direction number %d is %d", d+2, k+1, m)
			}
		}
		// x has order 2^s - 1 modulo the polynomial.
		poly := uint(1)<<p.s | p.a<<1 | 1
		x, order := uint(1), 0
		for {
			x <<= 1
			if x>>p.s&1 != 0 {
				x ^= poly
			}
			order++
			if x == 1 || order > 1<<p.s {
				break
			}
		}
		if order != 1<<p.s-1 {
			t.Errorf("dimension %d: polynomial %b is not primitive", d+2, poly)
		}
		for e := range joeKuo[:d] {
			if joeKuo[e].s == p.s && joeKuo[e].a == p.a {
				t.Errorf("dimensions %d and %d share a polynomial", e+2, d+2)
			}
		}
	}
}

// In every dimension the first 2^k points fall into different intervals of
// length 2^-k, and the first two dimensions form a (0, 2)-sequence: every
// elementary rectangle of area 2^-k holds exactly one of 2^k points.
func TestSobolEquidistribution(t *testing.T) {
	const k = 8
	for _, seed := range []uint64{0, 1, 99} {
		for d := range sobolDims {
			seen := map[int]bool{}
			for i := range uint64(1 << k) {
				u := sobol(i, d, seed)
				if u < 0 || u >= 1 {
					t.Fatalf("coordinate %v", u)
				}
				seen[int(u*(1<<k))] = true
			}
			if len(seen) != 1<<k {
				t.Errorf("seed %d, dimension %d: %d of %d intervals", seed, d, len(seen), 1<<k)
			}
		}
		for a := 0; a <= k; a++ {
			seen := map[[2]int]bool{}
			for i := range uint64(1 << k) {
				seen[[2]int{int(sobol(i, 0, seed) * float64(int(1)<<a)), int(sobol(i, 1, seed) * float64(int(1)<<(k-a)))}] = true
			}
			if len(seen) != 1<<k {
				t.Errorf("seed %d: %d of %d rectangles of 2^-%d x 2^-%d", seed, len(seen), 1<<k, a, k-a)
			}
		}
	}
}

func TestRandomIsUniform(t *testing.T) {
	const n = 20000
	for d := range 3 {
		sum, sq := 0.0, 0.0
		for i := range uint64(n) {
			u := random(i, d, 7)
			sum += u
			sq += u * u
		}
		if m := sum / n; math.Abs(m-0.5) > 0.01 {
			t.Errorf("mean %v", m)
		}
		if v := sq/n - sum/n*sum/n; math.Abs(v-1.0/12) > 0.003 {
			t.Errorf("variance %v", v)
		}
	}
	if random(1, 0, 7) == random(1, 0, 8) || random(1, 0, 7) == random(1, 1, 7) {
		t.Error("seeds or dimensions coincide")
	}
}

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		src  string
		want []string
	}{
		{"x0.5..x2 log 3", []string{"x0.5", "x1", "x2"}},
		{"10..40 4", []string{"10", "20", "30", "40"}},
		{"-10%..10% lin 3", []string{"-10%", "+0%", "+10%"}},
		{"1..100 log 3", []string{"1", "10", "100"}},
		{"0..1 2", []string{"0", "1"}},
	} {
		r, err := parseSpan(c.src)
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		if got := r.values(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.src, got, c.want)
		}
	}
	for _, src := range []string{"x1.5", "+2", "+10%", "40", "true"} {
		if r, err := parseSpan(src); r != nil || err != nil {
			t.Errorf("%q is no range: %v, %v", src, r, err)
		}
	}
}

func TestExpressions(t *testing.T) {
	sc := &scope{[]Column{{"a", Number, ""}, {"b", Number, ""}, {"s", Text, ""}, {"ne_rate", Number, ""}}}
	e := &env{num: []float64{3, 4, 0, 5}, str: []string{"", "", "w8a8", ""}}
	for _, c := range []struct {
		src  string
		want any
	}{
		{"a + b*2 - 1", 10.0}, {"(a+b)/7", 1.0}, {"-a", -3.0}, {"7 % 4", 3.0}, {"sqrt(a*a+b*b)", 5.0},
		{"min(a, b, 1)", 1.0}, {"max(a, b)", 4.0}, {"pow(2, 10)", 1024.0}, {"ne.rate", 5.0}, {"1e3", 1000.0},
		{"a < b && !(a == b)", true}, {"a >= 3 || b != 4", true}, {`s == "w8a8"`, true}, {`one_of(s, "fp16", "w8a8")`, true},
		{`contains(s, "a8")`, true}, {`cond(a > b, 1, 2)`, 2.0}, {`cond(s != "x", s, "y")`, "w8a8"}, {`s + "!"`, "w8a8!"}, {"true", true},
		{"log2(8)", 3.0}, {"abs(-2) + floor(1.5) + ceil(1.5) + round(1.4) + log10(100) + log(exp(1))", 9.0},
	} {
		x, err := compileExpr(c.src, sc)
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		var got any
		switch x.kind {
		case kindNum:
			got = x.num(e)
		case kindStr:
			got = x.str(e)
		default:
			got = x.test(e)
		}
		if got != c.want {
			t.Errorf("%s = %v, want %v", c.src, got, c.want)
		}
	}
	for src, want := range map[string]string{
		"": "expected", "a +": "expected", "c": `no column "c"`, "a + s": "between", "s < s": "does not go", "f(a)": "no function",
		"a.b.c": "no column", "sqrt(s)": "one number", "func(){}()": "by name", "a = 1": "expected", "one_of(s)": "one_of", "-s": "does not go",
		"[]int{1}[0]": "only columns", "cond(a, 1, 2)": "cond", "pow(a)": "two numbers", "'c'": "not a number",
	} {
		if _, err := compileExpr(src, sc); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one line with %q", src, err, want)
		}
	}
}

func FuzzExpression(f *testing.F) {
	sc := &scope{[]Column{{"a", Number, ""}, {"s", Text, ""}}}
	for _, s := range []string{"a+1", `s == "x"`, "cond(a>1, min(a,2), 3)", "((((a))))", "!true || a < 3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		x, err := compileExpr(src, sc)
		if err != nil {
			return
		}
		e := &env{num: []float64{1.5, 0}, str: []string{"", "t"}}
		switch x.kind {
		case kindNum:
			x.num(e)
		case kindStr:
			x.str(e)
		default:
			x.test(e)
		}
	})
}

// The front is what brute force says, for two and more figures, ties included.
func TestFrontIsBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims := rapid.IntRange(2, 4).Draw(t, "dims")
		n := rapid.IntRange(0, 40).Draw(t, "n")
		pts := make([][]float64, n)
		for i := range pts {
			pts[i] = make([]float64, dims)
			for k := range pts[i] {
				v := float64(rapid.IntRange(0, 6).Draw(t, "v"))
				if v == 6 && rapid.IntRange(0, 3).Draw(t, "nan") == 0 {
					v = math.NaN()
				}
				pts[i][k] = v
			}
		}
		var want []int
		for i, p := range pts {
			if slices.ContainsFunc(p, math.IsNaN) {
				continue
			}
			beaten := false
			for j, q := range pts {
				if slices.ContainsFunc(q, math.IsNaN) || i == j {
					continue
				}
				all, one := true, false
				for k := range q {
					all = all && q[k] <= p[k]
					one = one || q[k] < p[k]
				}
				beaten = beaten || all && one
			}
			if !beaten {
				want = append(want, i)
			}
		}
		if got := Front(pts); !slices.Equal(got, want) {
			t.Fatalf("front %v, brute force %v of %v", got, want, pts)
		}
	})
}
