package passes

import (
	"reflect"
	"slices"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// removeNoop forwards the input of an operator that returns it unchanged.
func removeNoop(r *rewriter, n *model.Node) (bool, error) {
	v := noop(r, n)
	if v == nil || len(n.Outputs) == 0 || n.Outputs[0] == nil || v.DType != n.Outputs[0].DType || v.Type != n.Outputs[0].Type {
		return false, nil
	}
	return r.forward(n, v), nil
}

// noop returns the input that node n hands through, or nil.
func noop(r *rewriter, n *model.Node) *model.Value {
	x, y := n.In(0), n.Out(0)
	if x == nil || y == nil {
		return nil
	}
	for _, o := range n.Outputs[1:] {
		if o != nil && (r.outputs[o] || len(r.readers[o]) > 0) {
			return nil
		}
	}
	same := x.Shape.Known() && x.Shape.Equal(y.Shape)
	ok := false
	switch n.Op {
	case "Identity":
		ok = true
	case "Dropout":
		training, isConst := scalar(n.In(2))
		ok = n.In(2) == nil || isConst && training == 0
		if n.In(2) != nil && n.In(2).Const != nil && n.In(2).DType == model.Bool {
			t, err := n.In(2).Const.Value()
			ok = err == nil && t.Len() == 1 && t.IntAt(0) == 0
		}
	case "Cast":
		ok = x.DType == y.DType
	case "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile":
		ok = same
	case "Transpose":
		ok = same && identity(perm(n, len(x.Shape)))
	case "Pad":
		// Equal shapes may also be a crop on one side and a pad on the other.
		p, isConst := ints(n.In(1))
		ok = isConst && !slices.ContainsFunc(p, func(v int64) bool { return v != 0 })
	case "Slice":
		steps, isConst := ints(n.In(4))
		ok = same && (n.In(4) == nil || isConst && !slices.ContainsFunc(steps, func(v int64) bool { return v != 1 }))
	case "Concat", "Sum", "Max", "Min", "Mean":
		ok = len(n.Inputs) == 1
	case "Split":
		ok = len(n.Outputs) == 1 && same
	case "DepthToSpace", "SpaceToDepth":
		ok = n.Attrs.Int("blocksize", 0) == 1
	case "Clip":
		ok = n.In(1) == nil && n.In(2) == nil
	case "Mul", "Div", "Add", "Sub":
		return neutral(n)
	case "Pow":
		e, isConst := scalar(n.In(1))
		ok = isConst && e == 1 && x.Shape.Equal(y.Shape)
	}
	if !ok {
		return nil
	}
	return x
}

// neutral finds x*1, x/1, x+0 and x-0 where the constant adds no dimension.
func neutral(n *model.Node) *model.Value {
	if len(n.Inputs) != 2 {
		return nil
	}
	want := 0.0
	if n.Op == "Mul" || n.Op == "Div" {
		want = 1
	}
	for i := range 2 {
		if i == 0 && (n.Op == "Div" || n.Op == "Sub") {
			continue
		}
		c, ok := scalar(n.In(i))
		x := n.In(1 - i)
		if ok && c == want && x != nil && x.Shape.Known() && x.Shape.Equal(n.Outputs[0].Shape) {
			return x
		}
	}
	return nil
}

func perm(n *model.Node, rank int) []int {
	if p := n.Attrs.Ints("perm", nil); p != nil {
		return p
	}
	p := make([]int, rank)
	for i := range p {
		p[i] = rank - 1 - i
	}
	return p
}

func identity(p []int) bool {
	for i, x := range p {
		if i != x {
			return false
		}
	}
	return true
}

// isView reports the operators that keep the bytes and change the shape.
func isView(op model.Op) bool {
	switch op {
	case "Reshape", "Flatten", "Squeeze", "Unsqueeze":
		return true
	}
	return false
}

// mergeMoves joins a view of a view into one reshape, a transpose of a
// transpose into one, and gives a transpose that only moves axes of length one
// its plain form, a reshape.
func mergeMoves(r *rewriter, n *model.Node) (bool, error) {
	x, y := n.In(0), n.Out(0)
	if x == nil || y == nil || x.Shape.Elems() < 1 || y.Shape.Elems() < 1 {
		return false, nil
	}
	switch {
	case isView(n.Op):
		if p := x.Producer; p != nil && !r.dead[p] && isView(p.Op) && r.sole(x) && p.In(0) != nil && p.In(0).Shape.Known() {
			r.become(n, "Reshape", nil, p.In(0), shapeConst(y))
			return true, nil
		}
	case n.Op == "Transpose":
		q := perm(n, len(x.Shape))
		if len(q) != len(x.Shape) {
			return false, nil
		}
		if p := r.inner(x, "Transpose"); p != nil && p.In(0) != nil && len(p.In(0).Shape) == len(q) {
			first := perm(p, len(q))
			joint := make([]int, len(q))
			for i, a := range q {
				joint[i] = first[a]
			}
			r.become(n, "Transpose", model.Attrs{"perm": joint}, p.In(0))
			return true, nil
		}
		var moved []int
		for _, a := range q {
			if a >= 0 && a < len(x.Shape) && x.Shape[a] != 1 {
				moved = append(moved, a)
			}
		}
		if slices.IsSorted(moved) && !identity(q) {
			r.become(n, "Reshape", nil, x, shapeConst(y))
			return true, nil
		}
	}
	return false, nil
}

// shapeConst returns the target shape of a reshape to v's shape.
func shapeConst(v *model.Value) *model.Value {
	s := make([]int64, len(v.Shape))
	for i, d := range v.Shape {
		s[i] = int64(d)
	}
	t := model.Of(s, len(s))
	return newConst(v.Name+".shape", model.NewConst(t))
}

// foldPadding moves explicit zero padding of the spatial axes into the
// convolution that reads it.
func foldPadding(r *rewriter, n *model.Node) (bool, error) {
	if n.Op != "Conv" && !(n.Op == "AveragePool" && n.Attrs.Int("count_include_pad", 0) == 1 && n.Attrs.Int("ceil_mode", 0) == 0) {
		return false, nil
	}
	x := n.In(0)
	p := r.inner(x, "Pad")
	if p == nil || p.Attrs.String("mode", "constant") != "constant" || p.In(3) != nil {
		return false, nil
	}
	if auto := n.Attrs.String("auto_pad", "NOTSET"); auto != "NOTSET" && auto != "" && auto != "VALID" {
		return false, nil
	}
	if p.In(2) != nil {
		if v, ok := scalar(p.In(2)); !ok || v != 0 {
			return false, nil
		}
	}
	pads, ok := ints(p.In(1))
	rank := len(x.Shape)
	if !ok || len(pads) != 2*rank || rank < 3 {
		return false, nil
	}
	k := rank - 2
	own := n.Attrs.Ints("pads", make([]int, 2*k))
	if n.Attrs.String("auto_pad", "") == "VALID" {
		own = make([]int, 2*k)
	}
	if len(own) != 2*k {
		return false, nil
	}
	sum := slices.Clone(own)
	for i, v := range pads {
		axis := i % rank
		switch {
		case v < 0 || axis < 2 && v != 0:
			return false, nil
		case axis >= 2:
			sum[axis-2+i/rank*k] += int(v)
		}
	}
	a := model.Attrs{}
	for key, v := range n.Attrs {
		if key != "auto_pad" {
			a[key] = v
		}
	}
	a["pads"] = sum
	in := slices.Clone(n.Inputs)
	in[0] = p.In(0)
	r.become(n, n.Op, a, in...)
	return true, nil
}

// mergeDuplicates lets the readers of a node that computes the same as an
// earlier one read that one's outputs instead.
func mergeDuplicates(r *rewriter, n *model.Node) (bool, error) {
	// A duplicate shares its first tensor with the original.
	var x *model.Value
	for _, v := range n.Inputs {
		if v != nil && v.Const == nil {
			x = v
			break
		}
	}
	if x == nil || len(r.readers[x]) < 2 || len(n.Blocks) > 0 {
		return false, nil
	}
	if info, ok := ops.Lookup(n.Op); !ok || !info.Pure {
		return false, nil
	}
	for _, v := range n.Outputs {
		if v == nil || r.outputs[v] {
			return false, nil
		}
	}
	for _, m := range r.readers[x] {
		if m == n {
			return false, nil // the first of its kind
		}
		if m.Op != n.Op || r.dead[m] || len(m.Blocks) > 0 || len(m.Outputs) != len(n.Outputs) || !sameInputs(m, n) || !sameAttrs(m.Attrs, n.Attrs) {
			continue
		}
		if slices.ContainsFunc(m.Outputs, func(v *model.Value) bool { return v == nil }) || !r.before(m, n) {
			continue
		}
		for i, v := range n.Outputs {
			r.redirect(v, m.Outputs[i])
		}
		r.kill(n)
		return true, nil
	}
	return false, nil
}

// before reports whether m comes before n in the graph.
func (r *rewriter) before(m, n *model.Node) bool {
	for _, x := range r.g.Nodes {
		switch x {
		case m:
			return true
		case n:
			return false
		}
	}
	return false
}

// sameInputs compares inputs: the same tensors, or small constants of equal
// values.
func sameInputs(m, n *model.Node) bool {
	if len(m.Inputs) != len(n.Inputs) {
		return false
	}
	for i, v := range m.Inputs {
		w := n.Inputs[i]
		switch {
		case v == w:
		case v == nil || w == nil || v.Const == nil || w.Const == nil:
			return false
		case v.DType != w.DType || !v.Shape.Equal(w.Shape) || v.Const.Elems() > 64 || v.DType == model.String ||
			v.Const.Storage.Form() != model.FormDense || w.Const.Storage.Form() != model.FormDense:
			return false
		default:
			a, err := v.Const.Value()
			b, err2 := w.Const.Value()
			if err != nil || err2 != nil || !slices.Equal(a.Data, b.Data) {
				return false
			}
		}
	}
	return true
}

func sameAttrs(a, b model.Attrs) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		w, ok := b[k]
		if !ok || !reflect.DeepEqual(v, w) {
			return false
		}
	}
	return true
}

// inlineIf replaces an If of constant condition by the branch it takes.
func inlineIf(r *rewriter, n *model.Node) (bool, error) {
	if n.Op != "If" || n.In(0) == nil || n.In(0).Const == nil || n.In(0).Const.Elems() != 1 {
		return false, nil
	}
	t, err := n.In(0).Const.Value()
	if err != nil {
		return false, err
	}
	b := n.Blocks["else_branch"]
	if t.IntAt(0) != 0 {
		b = n.Blocks["then_branch"]
	}
	if b == nil || len(b.Outputs) != len(n.Outputs) {
		return false, nil
	}
	for i, v := range b.Outputs {
		// A branch may hand an outer value through; then an output of the
		// graph would need two names.
		if o := n.Outputs[i]; o != nil && r.outputs[o] && (v.Producer == nil || r.outputs[v] || !inBlock(b, v)) {
			return false, nil
		}
	}
	for i, v := range b.Outputs {
		o := n.Outputs[i]
		if o == nil {
			continue
		}
		if r.outputs[o] {
			v.Name = o.Name
			r.outputs[v] = true
			delete(r.outputs, o)
			for j, w := range r.g.Outputs {
				if w == o {
					r.g.Outputs[j] = v
				}
			}
		}
		if v.DType == model.Invalid {
			v.DType = o.DType
		}
		if !v.Shape.Known() && o.Shape.Known() {
			v.Shape = o.Shape
		}
		r.redirect(o, v)
	}
	r.spliced[n] = b.Nodes
	n.Outputs, n.Blocks = nil, nil
	r.dead[n] = true
	return true, nil
}

func inBlock(b *model.Graph, v *model.Value) bool {
	return slices.Contains(b.Nodes, v.Producer)
}
