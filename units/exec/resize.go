package exec

import (
	"github.com/triune-sim/triune/kernels"
	"github.com/triune-sim/triune/model"
)

func init() { register(compileResize, "Resize") }

// compileResize handles nearest and linear resizing of the two pixel axes.
func compileResize(b *builder, nodes []*model.Node) (int, error) {
	n := nodes[0]
	x, out := n.In(0), n.Outputs[0]
	if !isFloat(x) || !known(x, out) || len(x.Shape) != 4 || len(out.Shape) != 4 || x.Shape[0] != out.Shape[0] ||
		x.Shape[1] != out.Shape[1] || out.Shape.Elems() < 1 || x.Shape.Elems() < 1 || n.Attrs.Int("antialias", 0) != 0 || n.Attrs.Ints("axes", nil) != nil {
		return 0, errNoKernel
	}
	if n.Attrs.String("keep_aspect_ratio_policy", "stretch") != "stretch" {
		return 0, errNoKernel
	}
	var sh, sw float64
	if v := n.In(2); v != nil && v.Shape.Elems() > 0 {
		if v.Const == nil {
			return 0, errNoKernel
		}
		t, err := b.constTensor(v)
		if err != nil || t.Len() != 4 {
			return 0, errNoKernel
		}
		sh, sw = t.At(2), t.At(3)
	}
	var mode kernels.CoordMode
	switch n.Attrs.String("coordinate_transformation_mode", "half_pixel") {
	case "half_pixel":
		mode = kernels.HalfPixel
	case "align_corners":
		mode = kernels.AlignCorners
	case "asymmetric":
		mode = kernels.Asymmetric
	case "pytorch_half_pixel":
		mode = kernels.PytorchHalfPixel
	default:
		return 0, errNoKernel
	}
	images, c, h, w := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	oh, ow := out.Shape[2], out.Shape[3]
	switch n.Attrs.String("mode", "nearest") {
	case "nearest":
		near := map[string]kernels.NearestMode{"round_prefer_floor": kernels.RoundPreferFloor, "round_prefer_ceil": kernels.RoundPreferCeil,
			"floor": kernels.NearestFloor, "ceil": kernels.NearestCeil}
		r, ok := near[n.Attrs.String("nearest_mode", "round_prefer_floor")]
		if !ok {
			return 0, errNoKernel
		}
		return b.pooled(nodes, func(k *kernels.Ctx, dst, src []float32) {
			kernels.ResizeNearestC16(k, dst, src, images, c, h, w, oh, ow, sh, sw, mode, r)
		})
	case "linear":
		return b.pooled(nodes, func(k *kernels.Ctx, dst, src []float32) {
			kernels.ResizeBilinearC16(k, dst, src, images, c, h, w, oh, ow, sh, sw, mode)
		})
	}
	return 0, errNoKernel
}
