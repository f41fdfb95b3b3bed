package quant

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/triune-sim/triune/model"
)

// Options are what [Apply] needs beside the scheme. The zero value is usable:
// activation ranges are then found, when the compressed graph is executed, by
// running the original on seeded random inputs.
type Options struct {
	// Ranges gives the ranges of activations, by the names of the graph that
	// Apply gets; nil calibrates that graph at first use.
	Ranges Ranges
	// Calibration says how, where Ranges is nil: the zero value takes minimum
	// and maximum over one seeded input.
	Calibration Calibration
	// Eager computes all values now, so that the sizes that follow from them
	// are exact: the non-zeros of sparse weights, and which arrays of a file
	// are equal and stored once. Without it values are computed at first use, the
	// number of non-zeros is that of weights without ties, and ties at the
	// threshold are kept in order of their index until it is reached.
	Eager bool
	// Progress, if not nil, is called as Eager computes arrays: after each one,
	// and never concurrently.
	Progress func(done, total int)
}

// Apply returns a compressed copy of a graph, and what was done. The graph
// should have gone through the default passes: batch norms that were not
// folded keep weights float. The copy shares the constants it does not change.
func Apply(g *model.Graph, s Scheme, o Options) (*model.Graph, *Report, error) {
	if err := s.check(); err != nil {
		return nil, nil, err
	}
	r := &Report{Scheme: s.String()}
	out := g.Clone()
	k := &compressor{source: map[*model.Const]*model.Const{}, eager: o.Eager}
	if err := foldDequantize(out, r); err != nil {
		return nil, nil, err
	}
	for _, v := range out.Consts() {
		r.BytesBefore += v.Const.StoredBytes()
	}
	before := map[*model.Value]int64{}
	for _, w := range weightsOf(out) {
		before[w.value] = w.value.Const.StoredBytes()
	}
	r.Notes = append(r.Notes, s.unmatched(out)...)
	if s.Float == model.Float16 {
		k.castProgram(out, r)
	}
	if s.Activations != nil {
		ranges := o.Ranges
		if ranges == nil {
			names := activationNames(g)
			ranges = RangeFunc(func() (RangeMap, error) {
				return Calibrate(context.Background(), g, o.Calibration, func(n string) bool { return names[n] })
			})
		}
		if err := quantizeActivations(out, s.Activations, ranges, r); err != nil {
			return nil, nil, err
		}
	}
	for _, w := range weightsOf(out) {
		c := w.value.Const
		if len(c.Shape) == 0 { // scalars are parts of the program
			continue
		}
		wr := WeightReport{Name: w.value.Name, Shape: c.Shape, BytesBefore: before[w.value]}
		if wr.BytesBefore == 0 {
			wr.BytesBefore = c.StoredBytes()
		}
		if len(w.readers) > 0 {
			wr.Op, wr.Node = w.readers[0].node.Op, w.readers[0].node.Name
		}
		bad := ""
		if len(s.Stages) > 0 || o.Eager {
			var saturated int
			if bad, saturated = k.badValues(c); c.Elems() > maxEager {
				noteSaturated(r, wr.Name, saturated)
			}
			if bad != "" {
				r.Notes = append(r.Notes, fmt.Sprintf("constant %q (%s %q) is %s", wr.Name, wr.Op, wr.Node, bad))
			}
		}
		for _, st := range s.Stages {
			c, cfg, reason, err := k.stage(st, w, bad)
			if err != nil {
				return nil, nil, err
			}
			if c == nil {
				wr.Skipped = reason
				continue
			}
			w.value.Const = c
			if wr.Scheme != "" {
				wr.Scheme += ", "
			}
			wr.Scheme += cfg.label()
		}
		wr.BytesAfter = w.value.Const.StoredBytes()
		r.Weights = append(r.Weights, wr)
	}
	if o.Eager {
		compute(lazyParts(out.Consts()), o.Progress)
	}
	done := map[*model.Const]*model.Const{}
	for _, v := range out.Consts() {
		if o.Eager {
			c, err := computed(v.Const, done)
			if err != nil {
				return nil, nil, fmt.Errorf("quant: constant %q: %s", v.Name, strings.TrimPrefix(err.Error(), "quant: "))
			}
			v.Const = c
		}
		r.BytesAfter += v.Const.StoredBytes()
	}
	return out, r, nil
}

// lazyParts returns the arrays of constants that are yet to be computed, or that
// keep what was computed apart.
func lazyParts(values []*model.Value) []*model.Const {
	var parts []*model.Const
	var walk func(c *model.Const)
	walk = func(c *model.Const) {
		if c == nil {
			return
		}
		switch s := c.Storage.(type) {
		case *model.Lazy:
			parts = append(parts, c)
		case *model.Affine:
			walk(s.Codes)
			walk(s.Scale)
			walk(s.Zero)
		case *model.Lookup:
			walk(s.Indices)
			walk(s.Table)
		case *model.Sparse:
			walk(s.Mask)
			walk(s.Values)
		}
	}
	for _, v := range values {
		walk(v.Const)
	}
	return parts
}

// compute computes arrays on all processors; each keeps its own, or the error
// that it meets.
func compute(parts []*model.Const, progress func(done, total int)) {
	// The largest first, so that none is left alone at the end.
	slices.SortStableFunc(parts, func(a, b *model.Const) int { return cmp.Compare(b.Elems(), a.Elems()) })
	var next atomic.Int64
	var mu sync.Mutex
	done := 0
	var wg sync.WaitGroup
	for range min(len(parts), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(parts); i = next.Add(1) - 1 {
				_, _ = parts[i].Value()
				if progress != nil {
					mu.Lock()
					done++
					progress(done, len(parts))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
}

// computed returns a constant whose arrays are all computed; done has those
// that are.
func computed(c *model.Const, done map[*model.Const]*model.Const) (*model.Const, error) {
	if c == nil || done[c] != nil {
		return done[c], nil
	}
	out := &model.Const{DType: c.DType, Shape: c.Shape, Storage: c.Storage}
	var err error
	part := func(p *model.Const) *model.Const {
		q, e := computed(p, done)
		if err == nil {
			err = e
		}
		return q
	}
	switch s := c.Storage.(type) {
	case *model.Lazy:
		t, e := c.Value()
		if e != nil {
			return nil, e
		}
		out.Storage = model.Dense{Tensor: t}
	case *model.Affine:
		out.Storage = &model.Affine{Codes: part(s.Codes), Scale: part(s.Scale), Zero: part(s.Zero)}
	case *model.Lookup:
		out.Storage = &model.Lookup{Indices: part(s.Indices), Table: part(s.Table), VectorAxis: s.VectorAxis}
	case *model.Sparse:
		out.Storage = &model.Sparse{Mask: part(s.Mask), Values: part(s.Values)}
	default:
		out = c
	}
	if err != nil {
		return nil, err
	}
	done[c] = out
	return out, nil
}

// unmatched says which names and types of a configuration the graph does not
// have: most likely they are misspelt.
func (s Scheme) unmatched(g *model.Graph) []string {
	names, types := map[string]bool{}, map[string]bool{}
	var walk func(g *model.Graph)
	walk = func(g *model.Graph) {
		for _, n := range g.Nodes {
			names[n.Name] = true
			for _, t := range typeNames(n.Op) {
				types[t] = true
			}
			for _, v := range n.Inputs {
				if v != nil && v.Const != nil {
					names[v.Name] = true
				}
			}
			for _, b := range n.Blocks {
				walk(b)
			}
		}
	}
	walk(g)
	var notes []string
	check := func(what string, has map[string]bool, keys []string) {
		for _, k := range keys {
			if !has[k] {
				notes = append(notes, fmt.Sprintf("the configuration is for %s %q, which the model does not have", what, k))
			}
		}
	}
	for _, st := range s.Stages {
		check("operators of type", types, sortedKeys(st.OpTypes))
		check("an operator or constant", names, sortedKeys(st.OpNames))
	}
	if a := s.Activations; a != nil {
		check("operators of type", types, sortedKeys(a.SkipTypes))
		check("an operator or constant", names, sortedKeys(a.SkipNames))
	}
	return notes
}

// activationNames returns the names of the tensors of a graph's outermost
// level, of which alone ranges are needed.
func activationNames(g *model.Graph) map[string]bool {
	m := map[string]bool{}
	for _, v := range g.Inputs {
		m[v.Name] = true
	}
	for _, n := range g.Nodes {
		for _, v := range n.Outputs {
			if v != nil {
				m[v.Name] = true
			}
		}
	}
	return m
}

// foldDequantize turns dequantize operators of constants (the weights of QDQ
// files) into affine constants, and integer biases into float ones.
func foldDequantize(g *model.Graph, r *Report) error {
	folded := map[*model.Value]*model.Value{}
	nodes := g.Nodes[:0:0]
	outputs := map[*model.Value]bool{}
	for _, v := range g.Outputs {
		outputs[v] = true
	}
	for _, n := range g.Nodes {
		for i, v := range n.Inputs {
			if w := folded[v]; w != nil {
				n.Inputs[i] = w
			}
		}
		x, s, z, y := n.In(0), n.In(1), n.In(2), n.Out(0)
		if n.Op != "DequantizeLinear" || x == nil || s == nil || y == nil || x.Const == nil || s.Const == nil ||
			z != nil && z.Const == nil || outputs[y] {
			nodes = append(nodes, n)
			continue
		}
		c, err := affineOf(n)
		if err != nil {
			return err
		}
		if c == nil {
			nodes = append(nodes, n)
			continue
		}
		folded[y] = &model.Value{Name: y.Name, DType: c.DType, Shape: c.Shape, Const: c}
	}
	if len(folded) > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d dequantized constants taken as they are", len(folded)))
	}
	g.Nodes = nodes
	return replaceInBlocks(g, folded)
}

// replaceInBlocks exchanges values that subgraphs read.
func replaceInBlocks(g *model.Graph, m map[*model.Value]*model.Value) error {
	if len(m) == 0 {
		return nil
	}
	for _, n := range g.Nodes {
		for _, key := range sortedKeys(n.Blocks) {
			b := n.Blocks[key]
			for _, x := range b.Nodes {
				for i, v := range x.Inputs {
					if w := m[v]; w != nil {
						x.Inputs[i] = w
					}
				}
			}
			for i, v := range b.Outputs {
				if w := m[v]; w != nil {
					b.Outputs[i] = w
				}
			}
			if err := replaceInBlocks(b, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// affineOf returns the constant that a dequantize operator of constants makes,
// nil if it has no such form.
func affineOf(n *model.Node) (*model.Const, error) {
	x, s, z := n.In(0).Const, n.In(1).Const, (*model.Const)(nil)
	if n.In(2) != nil {
		z = n.In(2).Const
	}
	rank := len(x.Shape)
	groups := onesShape(rank)
	if s.Elems() != 1 {
		axis := n.Attrs.Int("axis", 1)
		if axis < 0 {
			axis += rank
		}
		switch {
		case len(s.Shape) == 1 && axis >= 0 && axis < rank && s.Shape[0] == x.Shape[axis]:
			groups[axis] = s.Shape[0]
		case len(s.Shape) == rank: // blocks: divide as affine storage does
			for i, d := range s.Shape {
				if d == 0 || x.Shape[i]%d != 0 {
					return nil, nil
				}
			}
			groups = s.Shape.Clone()
		default:
			return nil, fmt.Errorf("quant: node %q (DequantizeLinear) has a scale of shape %v on axis %d of %v", n.Name, s.Shape, axis, x.Shape)
		}
	}
	if s.DType != model.Float32 && s.DType != model.Float16 {
		return nil, nil
	}
	reshape := func(c *model.Const) *model.Const {
		return &model.Const{DType: c.DType, Shape: groups, Storage: c.Storage}
	}
	a := &model.Affine{Codes: x, Scale: reshape(s)}
	if z != nil {
		if z.Elems() != s.Elems() {
			return nil, fmt.Errorf("quant: node %q (DequantizeLinear) has a zero point of shape %v beside a scale of shape %v", n.Name, z.Shape, s.Shape)
		}
		a.Zero = reshape(z)
	}
	c := &model.Const{DType: s.DType, Shape: x.Shape, Storage: a}
	if x.DType.Bits() <= 8 {
		return c, nil
	}
	// A bias of int32 codes: its float values.
	return model.NewLazy(s.DType, x.Shape, c.Value), nil
}
