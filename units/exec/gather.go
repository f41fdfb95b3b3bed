package exec

import (
	"fmt"

	"github.com/triune-sim/triune/model"
)

func init() { register(compileGather, "Gather") }

// compileGather copies slices of a float tensor along one axis, picked by
// integers known at run time or before.
func compileGather(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, ix, out := n.In(0), n.In(1), n.Outputs[0]
	if !isFloat(x) || ix == nil || !known(x, ix, out) || ix.DType != model.Int64 && ix.DType != model.Int32 || out.Shape.Elems() < 1 {
		return 0, errNoKernel
	}
	axis, ok := normAxis(n.Attrs.Int("axis", 0), len(x.Shape))
	if !ok {
		return 0, errNoKernel
	}
	outer, mid, inner := split3(x.Shape, axis)
	var fixed *model.Tensor
	var at *ten
	var err error
	if ix.Const != nil {
		if fixed, err = b.constTensor(ix); err != nil {
			return 0, err
		}
	} else {
		b.settle(ix)
		forms := b.vals[ix]
		if len(forms) == 0 || forms[0].from != inObject {
			return 0, errNoKernel
		}
		at = forms[0]
	}
	t := b.fuseQuantize(nodes)
	src, err := b.float(x, plain)
	if err != nil {
		return 0, err
	}
	dst := b.newFloat(out.Shape, plain)
	count := elems(ix.Shape)
	b.emit(func(s *state) error {
		picks := fixed
		if at != nil {
			picks = s.objects[at.slot].Tensor
		}
		if picks.Len() != count {
			return fmt.Errorf("%d indices, the graph declares %d", picks.Len(), count)
		}
		d, f := s.f32(dst), s.f32(src)
		for j := range count {
			i := int(picks.IntAt(j))
			if i < 0 {
				i += mid
			}
			if i < 0 || i >= mid {
				return fmt.Errorf("index %d is out of range for axis %d of length %d", picks.IntAt(j), axis, mid)
			}
			for o := range outer {
				copy(d[(o*count+j)*inner:][:inner], f[(o*mid+i)*inner:])
			}
		}
		return nil
	}, []*ten{dst}, []*ten{src})
	b.store(t, dst)
	return t.used, nil
}
