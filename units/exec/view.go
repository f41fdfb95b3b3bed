package exec

import (
	"github.com/triune-sim/triune/model"
)

func init() {
	register(compileView, "Reshape", "Flatten", "Squeeze", "Unsqueeze")
	register(compileIdentity, "Identity", "Dropout")
}

// compileView gives a tensor another shape without a copy. The plain layout is
// needed; a channel-blocked tensor of one pixel is in it already.
func compileView(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	if !known(x, out) || x.Const != nil || x.Shape.Elems() != out.Shape.Elems() {
		return 0, errNoKernel
	}
	if codes, q, used, ok := b.codesThrough(nodes); ok {
		lay, _ := b.peek(codes)
		src, err := b.codes(codes, lay)
		if err != nil {
			return 0, err
		}
		if y := nodes[used-1].Outputs[0]; b.view(y, src) {
			b.views[y].q = q
			return used, nil
		}
		src, err = b.codes(codes, plain)
		if err != nil {
			return 0, err
		}
		v := reshaped(src, out.Shape)
		v.q = q
		b.add(nodes[used-1].Outputs[0], v)
		return used, nil
	}
	if !isFloat(x) {
		return 0, errNoKernel
	}
	t := b.fuseQuantize(nodes)
	if lay, _ := b.peek(x); lay == c16 && !t.quant {
		src, err := b.float(x, c16)
		if err != nil {
			return 0, err
		}
		if b.view(out, src) {
			return t.used, nil
		}
	}
	src, err := b.float(x, plain)
	if err != nil {
		return 0, err
	}
	b.store(t, reshaped(src, out.Shape))
	return t.used, nil
}

// view records v as src under another shape, to be copied only if a reader
// needs it; false means that a plain tensor serves.
func (b *builder) view(v *model.Value, src *ten) bool {
	if _, ok := aliasPlain(src); ok || src.lay != c16 {
		return false
	}
	a := *src
	b.views[v] = &a
	return true
}

// compileIdentity hands every form of its input on.
func compileIdentity(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	if x.Const != nil || len(n.Outputs) > 1 && n.Outputs[1] != nil {
		return 0, errNoKernel
	}
	b.settle(x)
	if d, ok := b.dq[x]; ok {
		t := b.fuseQuantize(nodes)
		if t.quant && t.q == d.q {
			b.vals[t.out] = append(b.vals[t.out], b.vals[d.codes]...)
			return t.used, nil
		}
		return 0, errNoKernel
	}
	if n.Op == "Dropout" && !isFloat(x) {
		return 0, errNoKernel
	}
	if isFloat(x) && known(x) {
		lay, _ := b.peek(x)
		t := b.fuseQuantize(nodes)
		src, err := b.float(x, lay)
		if err != nil {
			return 0, err
		}
		b.store(t, src)
		return t.used, nil
	}
	b.vals[out] = append(b.vals[out], b.vals[x]...)
	return 1, nil
}
