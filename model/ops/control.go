package ops

import (
	"github.com/triune-sim/triune/model"
)

// If, Loop and Scan. Their blocks are graphs that read outer values directly.

func (c *call) block(name string) *model.Graph {
	g := c.n.Blocks[name]
	if g == nil {
		failf("the block %s is missing", name)
	}
	return g
}

func (c *call) run(g *model.Graph, args []Datum) []Datum {
	out, err := runGraph(c.ctx, g, args, c.o, c.o.Outer, nil)
	if err != nil {
		failf("%w", err)
	}
	return out
}

// inferBlock infers a block; what constants were known is forgotten, because
// the types of its inputs may have changed.
func (c *inference) inferBlock(name string) *model.Graph {
	g := c.n.Blocks[name]
	if g == nil {
		failf("the block %s is missing", name)
	}
	clear(c.f.known)
	c.f.room = maxKnown
	if err := c.f.Graph(g); err != nil {
		failf("block %s: %w", name, err)
	}
	return g
}

// unify returns the shape that covers both: equal dimensions stay.
func unify(a, b model.Shape) model.Shape {
	if IsUnranked(a) || IsUnranked(b) || len(a) != len(b) {
		return Unranked()
	}
	out := a.Clone()
	for i := range out {
		if a[i] != b[i] {
			out[i] = -1
		}
	}
	return out
}

// carry sets an output from a block's output.
func carry(dst, src *model.Value) {
	if dst != nil {
		dst.DType, dst.Type, dst.Shape = src.DType, src.Type, append(model.Shape{}, src.Shape...)
	}
}

func inferIf(c *inference) {
	then, other := c.inferBlock("then_branch"), c.inferBlock("else_branch")
	if len(then.Outputs) != len(c.n.Outputs) || len(other.Outputs) != len(c.n.Outputs) {
		failf("the branches have %d and %d outputs, want %d", len(then.Outputs), len(other.Outputs), len(c.n.Outputs))
	}
	for i, v := range c.n.Outputs {
		if v == nil {
			continue
		}
		a, b := then.Outputs[i], other.Outputs[i]
		if a.DType != b.DType && a.DType != model.Invalid && b.DType != model.Invalid {
			failf("output %d is %s in one branch and %s in the other", i, a.DType, b.DType)
		}
		carry(v, a)
		v.Shape = unify(a.Shape, b.Shape)
	}
}

func evalIf(c *call) {
	name := "else_branch"
	if t := c.x(0); t.Len() != 1 {
		failf("the condition has %d elements, wants one", t.Len())
	} else if ints(t)[0] != 0 {
		name = "then_branch"
	}
	copy(c.out, c.run(c.block(name), nil))
}

func inferLoop(c *inference) {
	g := c.n.Blocks["body"]
	if g == nil {
		failf("the block body is missing")
	}
	k := len(c.n.Inputs) - 2
	if k < 0 || len(g.Inputs) != k+2 || len(g.Outputs) < k+1 || len(c.n.Outputs) > len(g.Outputs)-1 {
		failf("the body has %d inputs and %d outputs for %d carried values and %d outputs", len(g.Inputs), len(g.Outputs), max(k, 0), len(c.n.Outputs))
	}
	g.Inputs[0].DType, g.Inputs[0].Shape = model.Int64, model.Shape{}
	g.Inputs[1].DType, g.Inputs[1].Shape = model.Bool, model.Shape{}
	for i := range k {
		carry(g.Inputs[2+i], c.in(2+i))
	}
	// Widen the carried shapes until the body keeps them.
	for range 3 {
		c.inferBlock("body")
		same := true
		for i := range k {
			in, out := g.Inputs[2+i], g.Outputs[1+i]
			if u := unify(in.Shape, out.Shape); !u.Equal(in.Shape) {
				in.Shape, same = u, false
			}
		}
		if same {
			break
		}
	}
	for i, v := range c.n.Outputs {
		if v == nil {
			continue
		}
		src := g.Outputs[1+i]
		carry(v, src)
		switch {
		case i < k:
			v.Shape = unify(g.Inputs[2+i].Shape, src.Shape)
		case !IsUnranked(src.Shape):
			v.Shape = append(model.Shape{c.tripCount()}, src.Shape...)
		}
	}
}

// tripCount is the number of iterations where it is certain, else -1.
func (c *inference) tripCount() int {
	if m := c.n.In(0); m != nil && c.n.In(1) == nil {
		if v, ok := c.ints(0); ok && len(v) == 1 && v[0] >= 0 && c.n.Blocks["body"].Outputs[0] == c.n.Blocks["body"].Inputs[1] {
			return v[0]
		}
	}
	return -1
}

// stack joins equally shaped tensors along a new axis.
func stack(c *call, ts []*model.Tensor, axis int, empty *model.Value) *model.Tensor {
	if len(ts) == 0 {
		shape := model.Shape{0}
		if !IsUnranked(empty.Shape) {
			for _, d := range empty.Shape {
				shape = append(shape, max(d, 0))
			}
		}
		d := empty.DType
		if d == model.Invalid {
			d = model.Float32
		}
		return model.NewTensor(c.float(d), shape...)
	}
	parts := make([]*model.Tensor, len(ts))
	for i, t := range ts {
		if t == nil || !t.Shape.Equal(ts[0].Shape) || t.DType != ts[0].DType {
			failf("the iterations give differently shaped tensors")
		}
		a := axis
		if a < 0 {
			a += len(t.Shape) + 1
		}
		parts[i] = t.Reshape(unsqueezeShape(t.Shape, []int{a})...)
	}
	if axis < 0 {
		axis += len(ts[0].Shape) + 1
	}
	return concat(c, parts, axis)
}

func evalLoop(c *call) {
	g := c.block("body")
	k := len(c.n.Inputs) - 2
	if k < 0 || len(g.Inputs) != k+2 || len(g.Outputs) < k+1 {
		failf("the body has %d inputs and %d outputs for %d carried values", len(g.Inputs), len(g.Outputs), max(k, 0))
	}
	limit := int64(-1)
	if t := c.opt(0); t != nil {
		if t.Len() != 1 {
			failf("the trip count has %d elements, wants one", t.Len())
		}
		limit = max(0, ints(t)[0])
	}
	cond := true
	if t := c.opt(1); t != nil {
		if t.Len() != 1 {
			failf("the condition has %d elements, wants one", t.Len())
		}
		cond = ints(t)[0] != 0
	}
	for i := range k {
		if 2+i >= len(c.in) || c.in[2+i].absent() {
			failf("input %d is missing", 2+i)
		}
	}
	state := append([]Datum{}, c.in[min(2, len(c.in)):]...)
	for len(state) < k {
		state = append(state, Datum{})
	}
	scans := make([][]*model.Tensor, len(g.Outputs)-1-k)
	var bytes int64
	for i := int64(0); cond && (limit < 0 || i < limit); i++ {
		if err := c.ctx.Err(); err != nil {
			failf("%w", err)
		}
		b := model.NewTensor(model.Bool)
		b.Data[0] = 1
		out := c.run(g, append([]Datum{{Tensor: model.Scalar(i)}, {Tensor: b}}, state...))
		if t := out[0].Tensor; t == nil || t.Len() != 1 {
			failf("the body's condition is no scalar")
		} else {
			cond = ints(t)[0] != 0
		}
		copy(state, out[1:1+k])
		for j := range scans {
			t := out[1+k+j].Tensor
			if t != nil {
				if bytes += int64(len(t.Data)) + 64; bytes > c.o.maxBytes() {
					failf("the outputs of the iterations exceed %d bytes", c.o.maxBytes())
				}
			}
			scans[j] = append(scans[j], t)
		}
	}
	for i := range c.out {
		switch {
		case i < k:
			c.out[i] = state[i]
		case i-k < len(scans):
			c.put(i, stack(c, scans[i-k], 0, g.Outputs[1+i]))
		}
	}
}

// scanAxes reads a per-value axis or direction list with default 0.
func scanList(a model.Attrs, key string, n int) []int {
	v := a.Ints(key, make([]int, n))
	if len(v) != n {
		failf("attribute %s has %d values, wants %d", key, len(v), n)
	}
	return v
}

// scanCounts returns the number of states, scanned inputs and scanned outputs.
func scanCounts(n *model.Node, g *model.Graph) (states, ins, outs int) {
	ins = n.Attrs.Int("num_scan_inputs", 0)
	states = len(n.Inputs) - ins
	outs = len(g.Outputs) - states
	if ins < 1 || states < 0 || outs < 0 || len(g.Inputs) != len(n.Inputs) || len(n.Outputs) > len(g.Outputs) {
		failf("%d scan inputs do not fit %d inputs, and a body of %d inputs and %d outputs", ins, len(n.Inputs), len(g.Inputs), len(g.Outputs))
	}
	return
}

func inferScan(c *inference) {
	g := c.n.Blocks["body"]
	if g == nil {
		failf("the block body is missing")
	}
	states, ins, outs := scanCounts(c.n, g)
	axes := scanList(c.n.Attrs, "scan_input_axes", ins)
	length := -1
	for i := range states {
		carry(g.Inputs[i], c.in(i))
	}
	for i := range ins {
		v := c.in(states + i)
		w := g.Inputs[states+i]
		carry(w, v)
		if !IsUnranked(v.Shape) {
			ax := normAxis(axes[i], len(v.Shape))
			length = mergeDim(length, v.Shape[ax], "the scanned lengths")
			w.Shape = append(v.Shape[:ax].Clone(), v.Shape[ax+1:]...)
		}
	}
	for range 3 {
		c.inferBlock("body")
		same := true
		for i := range states {
			in, out := g.Inputs[i], g.Outputs[i]
			if u := unify(in.Shape, out.Shape); !u.Equal(in.Shape) {
				in.Shape, same = u, false
			}
		}
		if same {
			break
		}
	}
	oaxes := scanList(c.n.Attrs, "scan_output_axes", outs)
	for i, v := range c.n.Outputs {
		if v == nil {
			continue
		}
		carry(v, g.Outputs[i])
		if s := g.Outputs[i].Shape; i >= states && !IsUnranked(s) {
			ax := normAxis(oaxes[i-states], len(s)+1)
			v.Shape = append(append(s[:ax].Clone(), length), s[ax:]...)
		}
	}
}

func evalScan(c *call) {
	g := c.block("body")
	states, ins, outs := scanCounts(c.n, g)
	iaxes, idirs := scanList(c.n.Attrs, "scan_input_axes", ins), scanList(c.n.Attrs, "scan_input_directions", ins)
	oaxes, odirs := scanList(c.n.Attrs, "scan_output_axes", outs), scanList(c.n.Attrs, "scan_output_directions", outs)
	length := -1
	for i := range ins {
		t := c.x(states + i)
		iaxes[i] = normAxis(iaxes[i], len(t.Shape))
		length = mergeDim(length, t.Shape[iaxes[i]], "the scanned lengths")
	}
	state := append([]Datum{}, c.in[:states]...)
	scans := make([][]*model.Tensor, outs)
	for s := range length {
		args := append([]Datum{}, state...)
		for i := range ins {
			t := c.x(states + i)
			at := s
			if idirs[i] != 0 {
				at = length - 1 - s
			}
			part := cut(t, iaxes[i], at, 1)
			mask := make([]bool, len(part.Shape))
			mask[iaxes[i]] = true
			args = append(args, Datum{Tensor: part.Reshape(dropAxes(part.Shape, mask, false)...)})
		}
		out := c.run(g, args)
		copy(state, out[:states])
		for j := range scans {
			scans[j] = append(scans[j], out[states+j].Tensor)
		}
	}
	copy(c.out, state)
	for j, ts := range scans {
		if odirs[j] != 0 {
			for a, b := 0, len(ts)-1; a < b; a, b = a+1, b-1 {
				ts[a], ts[b] = ts[b], ts[a]
			}
		}
		c.put(states+j, stack(c, ts, oaxes[j], g.Outputs[states+j]))
	}
}

func init() {
	register("control", [4]int{1, 1, 0, many}, inferIf, evalIf, "If")
	register("control", [4]int{0, many, 0, many}, inferLoop, evalLoop, "Loop")
	register("control", [4]int{1, many, 0, many}, inferScan, evalScan, "Scan")
	impure("If", "Loop", "Scan")
}
