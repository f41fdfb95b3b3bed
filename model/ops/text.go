package ops

import (
	"regexp"
	"slices"
	"strings"

	"github.com/triune-sim/triune/model"
)

// Strings and n-grams.

// evalNormalizer drops stop words and changes the case of a [n] or [1, n]
// tensor of strings.
func evalNormalizer(c *call) {
	x := c.x(0)
	if x.DType != model.String || len(x.Shape) < 1 || len(x.Shape) > 2 || len(x.Shape) == 2 && x.Shape[0] != 1 {
		failf("input %s%v wants strings of shape [n] or [1,n]", x.DType, x.Shape)
	}
	stop, _ := c.n.Attrs["stopwords"].([]string)
	exact := c.n.Attrs.Int("is_case_sensitive", 0) != 0
	words := []string{}
	for _, s := range x.Strings {
		if slices.ContainsFunc(stop, func(w string) bool {
			return w == s || !exact && strings.EqualFold(w, s)
		}) {
			continue
		}
		switch a := c.n.Attrs.String("case_change_action", "NONE"); a {
		case "LOWER":
			s = strings.ToLower(s)
		case "UPPER":
			s = strings.ToUpper(s)
		case "NONE":
		default:
			failf("unknown case_change_action %q", a)
		}
		words = append(words, s)
	}
	if len(words) == 0 {
		words = []string{""}
	}
	shape := model.Shape{len(words)}
	if len(x.Shape) == 2 {
		shape = model.Shape{1, len(words)}
	}
	c.put(0, &model.Tensor{DType: model.String, Shape: shape, Strings: words})
}

// evalTfIdf counts the n-grams of each row that the pool holds.
func evalTfIdf(c *call) {
	x := c.x(0)
	a := c.n.Attrs
	lo, hi, skips := a.Int("min_gram_length", 1), a.Int("max_gram_length", 1), a.Int("max_skip_count", 0)
	starts, columns := a.Ints("ngram_counts", nil), a.Ints("ngram_indexes", nil)
	weights := a.Floats("weights")
	var pool []string
	if s, ok := a["pool_strings"].([]string); ok {
		pool = s
	} else {
		for _, v := range a.Ints("pool_int64s", nil) {
			pool = append(pool, formatInt(v))
		}
	}
	width := 0
	for _, k := range columns {
		if k < 0 || k > 1<<30 {
			failf("the column %d is out of range", k)
		}
		width = max(width, k+1)
	}
	if lo < 1 || hi < lo || hi > 1<<16 || skips < 0 {
		failf("n-grams of %d to %d with %d skips", lo, hi, skips)
	}
	// Key of an n-gram: its items joined by a byte that no number has.
	grams := map[string]int{}
	k := 0
	for n := 1; n <= len(starts); n++ {
		from, to := starts[n-1], len(pool)
		if n < len(starts) {
			to = starts[n]
		}
		if from < 0 || to > len(pool) || from > to {
			failf("ngram_counts %v do not fit a pool of %d", starts, len(pool))
		}
		for i := from; i+n <= to; i += n {
			if k >= len(columns) {
				failf("%d columns for more n-grams", len(columns))
			}
			grams[gramKey(pool[i:i+n])] = k
			k++
		}
	}
	if weights != nil && len(weights) != k {
		failf("%d weights for %d n-grams", len(weights), k)
	}
	rows, cols := 1, x.Len()
	shape := model.Shape{width}
	switch len(x.Shape) {
	case 0, 1:
	case 2:
		rows, cols = x.Shape[0], x.Shape[1]
		shape = model.Shape{rows, width}
	default:
		failf("input %v wants rank 1 or 2", x.Shape)
	}
	items := make([]string, x.Len())
	for i := range items {
		if x.DType == model.String {
			items[i] = x.Strings[i]
		} else {
			items[i] = formatInt(int(x.IntAt(i)))
		}
	}
	out := c.alloc(shape)
	gram := make([]string, 0, hi)
	for r := range rows {
		row := items[r*cols : (r+1)*cols]
		for n := lo; n <= hi && n <= len(starts); n++ {
			for skip := 0; skip <= skips && (n > 1 || skip == 0) && (n-1)*(skip+1) < max(cols, 1); skip++ {
				step := skip + 1
				for i := 0; i+(n-1)*step < cols; i++ {
					gram = gram[:0]
					for j := range n {
						gram = append(gram, row[i+j*step])
					}
					if g, ok := grams[gramKey(gram)]; ok {
						out[r*width+columns[g]]++
					}
				}
			}
		}
		mode := a.String("mode", "TF")
		if mode == "TF" {
			continue
		}
		idf := make([]float64, width)
		for i := range idf {
			idf[i] = 1
		}
		for g := range k {
			if weights != nil {
				idf[columns[g]] = weights[g]
			}
		}
		for i, w := range idf {
			o := &out[r*width+i]
			switch {
			case *o == 0:
			case mode == "IDF":
				*o = w
			case mode == "TFIDF":
				*o *= w
			default:
				failf("unknown mode %q", mode)
			}
		}
	}
	c.putF(0, c.float(model.Float32), shape, out)
}

func gramKey(items []string) string { return strings.Join(items, "\x00") }

func formatInt(v int) string {
	return formatElem(model.Of([]int64{int64(v)}), 0)
}

func init() {
	register("text", [4]int{1, 1, 1, 1}, func(c *inference) {
		c.typ(0, model.String)
		s := c.shape(0).Clone()
		if len(s) > 0 {
			s[len(s)-1] = -1
		}
		c.out(0, model.String, s)
	}, evalNormalizer, "StringNormalizer")
	register("text", [4]int{1, 1, 1, 1}, func(c *inference) {
		c.typ(0, model.Float32)
		s := c.shape(0)
		width := 0
		for _, k := range c.n.Attrs.Ints("ngram_indexes", nil) {
			width = max(width, k+1)
		}
		if len(s) == 2 {
			c.out(0, model.Float32, model.Shape{s[0], width})
		} else {
			c.out(0, model.Float32, model.Shape{width})
		}
	}, evalTfIdf, "TfIdfVectorizer")
	register("text", [4]int{2, 2, 1, 1}, func(c *inference) {
		c.typ(0, model.String)
		c.out(0, model.String, broadcastShapes(c.shape(0), c.shape(1)))
	}, func(c *call) {
		a, b := c.x(0), c.x(1)
		if a.DType != model.String || b.DType != model.String {
			failf("operands are %s and %s, want strings", a.DType, b.DType)
		}
		shape := broadcastShapes(a.Shape, b.Shape)
		a, b = broadcastTo(c, a, shape), broadcastTo(c, b, shape)
		t := model.NewTensor(model.String, shape...)
		for i := range t.Strings {
			t.Strings[i] = a.Strings[i] + b.Strings[i]
		}
		c.put(0, t)
	}, "StringConcat")
	register("text", [4]int{1, 1, 1, 2}, func(c *inference) {
		c.typ(0, model.String)
		c.typ(1, model.Int64)
		s := c.shape(0)
		c.out(0, model.String, append(s.Clone(), -1))
		c.out(1, model.Int64, s)
	}, func(c *call) {
		x := c.x(0)
		if x.DType != model.String {
			failf("input is %s, wants strings", x.DType)
		}
		sep := c.n.Attrs.String("delimiter", "")
		limit := c.n.Attrs.Int("maxsplit", -1)
		parts := make([][]string, len(x.Strings))
		counts := make([]int64, len(parts))
		width := 0
		for i, s := range x.Strings {
			switch {
			case s == "" && sep != "": // no part, as the operator's reference
			case sep == "" && limit < 0:
				parts[i] = strings.Fields(s)
			case sep == "":
				parts[i] = splitSpaces(s, limit)
			default:
				n := -1
				if limit >= 0 {
					n = limit + 1
				}
				parts[i] = strings.SplitN(s, sep, n)
			}
			counts[i] = int64(len(parts[i]))
			width = max(width, len(parts[i]))
		}
		shape := append(x.Shape.Clone(), width)
		t := model.NewTensor(model.String, shape...)
		for i, p := range parts {
			copy(t.Strings[i*width:], p)
		}
		c.put(0, t)
		c.putI(1, model.Int64, x.Shape, counts)
	}, "StringSplit")
	register("text", [4]int{1, 1, 1, 1}, func(c *inference) {
		c.typ(0, model.Bool)
		c.out(0, model.Bool, c.shape(0))
	}, func(c *call) {
		x := c.x(0)
		if x.DType != model.String {
			failf("input is %s, wants strings", x.DType)
		}
		re, err := regexp.Compile("^(?:" + c.n.Attrs.String("pattern", "") + ")$")
		if err != nil {
			failf("attribute pattern: %w", err)
		}
		t := model.NewTensor(model.Bool, x.Shape...)
		for i, s := range x.Strings {
			if re.MatchString(s) {
				t.Data[i] = 1
			}
		}
		c.put(0, t)
	}, "RegexFullMatch")
}

// splitSpaces splits at runs of white space at most limit times.
func splitSpaces(s string, limit int) []string {
	var out []string
	s = strings.TrimSpace(s)
	for s != "" {
		i := strings.IndexFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' })
		if i < 0 || len(out) == limit {
			return append(out, s)
		}
		out = append(out, s[:i])
		s = strings.TrimSpace(s[i:])
	}
	return out
}
