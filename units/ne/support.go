package ne

import (
	"fmt"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// never lists operators that no Neural Engine runs (GUIDE A, decompile-derived,
// and HOLLANCE), with the reason.
var never = map[model.Op]string{
	"ReduceProd": "product reductions have no Neural Engine path", "Mod": "modulo has no Neural Engine path",
	"Scatter": noScatter, "ScatterElements": noScatter, "ScatterND": noScatter, "TensorScatter": noScatter,
	"OneHot": "one-hot has no Neural Engine path", "NonZero": "the shape of non-zero depends on values",
	"Compress": "the shape of compress depends on values", "Unique": "the shape of unique depends on values",
	"NonMaxSuppression": "the shape of non-maximum suppression depends on values",
	"Trilu":             "band part (triangular) has no Neural Engine path", "ReverseSequence": "reverse sequence has no Neural Engine path",
	"Shape": "shape queries run on the CPU", "Size": "shape queries run on the CPU", "Col2Im": "sliding windows have no Neural Engine path",
	"And": noLogic, "Or": noLogic, "Xor": noLogic, "Not": noLogic, "BitShift": noLogic, "BitwiseAnd": noLogic, "BitwiseOr": noLogic,
	"BitwiseXor": noLogic, "BitwiseNot": noLogic,
	"Tan": noTrig, "Asin": noTrig, "Acos": noTrig, "Atan": noTrig, "Sinh": noTrig, "Cosh": noTrig, "Asinh": noTrig, "Acosh": noTrig, "Atanh": noTrig,
	"Bernoulli": "random numbers other than uniform have no Neural Engine path", "DeformConv": "deformable convolution has no Neural Engine path",
	"MaxUnpool": "unpooling has no Neural Engine path", "MaxRoiPool": noROI, "RoiAlign": noROI, "Det": "determinants have no Neural Engine path",
}

const (
	noScatter = "scatter has no Neural Engine path"
	noLogic   = "logical and bitwise operators have no Neural Engine path"
	noTrig    = "inverse and hyperbolic trigonometry has no Neural Engine path"
	noROI     = "region pooling has no Neural Engine path"
)

// strides are the equal strides above 2 that a convolution may have
// (APPLE-RULES).
var strides = map[int]bool{1: true, 2: true, 3: true, 4: true, 6: true, 8: true, 9: true, 12: true, 16: true, 24: true, 32: true}

// Support tells whether the Neural Engine runs a layer, and why not. The rules
// are those of the hardware facts A9 and Apple's authoring rules; the figures
// come from the device.
func (u *Unit) Support(l *model.Layer) units.Support {
	no := func(format string, args ...any) units.Support {
		return units.Support{Reason: fmt.Sprintf(format, args...)}
	}
	f := &l.Facts
	switch {
	case f.Dynamic:
		return no("its shape depends on values; the Neural Engine needs fixed shapes")
	case l.Kind == model.KindControl:
		return no("control flow runs on the CPU")
	case l.Kind == model.KindRecurrent:
		return no("recurrent cells (%s) have no Neural Engine path", l.Op)
	case l.Kind == model.KindAttention:
		return no("the Neural Engine has no fused attention; decompose it into matmul, softmax, matmul")
	case l.Kind == model.KindOther && l.Op != "RandomUniform" && l.Op != "RandomUniformLike": // GUIDE A: uniform ones are drawn
		return no("%s has no Neural Engine path", l.Op)
	}
	if why, bad := never[l.Op]; bad {
		return units.Support{Reason: why}
	}
	switch {
	case f.Float32:
		return no("it is typed fp32, and the Neural Engine computes in fp16")
	case f.Integer:
		return no("it works on integers; the Neural Engine takes fp16 and 8-bit tensors")
	case f.Rank > 5:
		return no("rank %d; the Neural Engine takes at most 5 axes", f.Rank)
	case max(f.InH, f.OutH) > u.axisMax || max(f.InW, f.OutW) > u.axisMax && l.Kind != model.KindLinear && l.Kind != model.KindMatMul:
		return no("height or width %d is over the limit of %d of %s", max(f.InH, f.OutH, f.InW, f.OutW), u.axisMax, u.chip)
	case float64(min(2*f.WeightElems, max(f.WeightBytes, 1))) > u.weightMax:
		return no("its weights (%d MB) are over the limit of %.0f MB", f.WeightBytes>>20, u.weightMax/1e6)
	}
	switch l.Kind {
	case model.KindConv, model.KindDepthwise, model.KindConvTranspose:
		if s := u.convolution(l); s.Reason != "" {
			return s
		}
	case model.KindPool:
		global := f.KH == f.InH && f.KW == f.InW
		if !global && (f.KH > 13 || f.KW > 13) {
			return no("pooling window %dx%d; the Neural Engine takes at most 13", f.KH, f.KW)
		}
		if f.KD > 1 {
			return no("3-D pooling has no Neural Engine path")
		}
	case model.KindGather:
		if !u.gather {
			return no("%s does not run on the Neural Engine of %s", l.Op, u.chip)
		}
	case model.KindResize:
		if l.Op == "GridSample" || l.Op == "AffineGrid" || l.Op == "CropResize" {
			if !u.texture {
				return no("%s needs the texture unit, which the Neural Engine of %s lacks", l.Op, u.chip)
			}
		} else if !u.texture && (f.OutH > 2*f.InH || f.OutW > 2*f.InW) {
			return no("upsampling by more than 2 does not run on the Neural Engine of %s", u.chip)
		}
	case model.KindReduce:
		if (l.Op == "ArgMax" || l.Op == "ArgMin") && f.OutElems > 0 && f.InElems/f.OutElems > 2048 {
			return no("%s over %d elements; the Neural Engine takes at most 2048", l.Op, f.InElems/f.OutElems)
		}
	case model.KindActivation:
		if (l.Op == "Sin" || l.Op == "Cos") && !u.trig {
			return no("%s does not run on the Neural Engine of %s", l.Op, u.chip)
		}
	}
	return units.Support{OK: true, Reason: u.remark(l)}
}

func (u *Unit) convolution(l *model.Layer) units.Support {
	f := &l.Facts
	no := func(format string, args ...any) units.Support {
		return units.Support{Reason: fmt.Sprintf(format, args...)}
	}
	if f.KD > 1 {
		return no("3-D convolution has no Neural Engine path")
	}
	if f.KH > 29 || f.KW > 32 {
		return no("kernel %dx%d; the Neural Engine takes at most 29x32", f.KH, f.KW)
	}
	if f.DilH > 1 || f.DilW > 1 {
		switch {
		case !u.dilation:
			return no("dilated convolution does not run on the Neural Engine of %s with this system", u.chip)
		case !smooth(f.DilH) || !smooth(f.DilW):
			return no("dilation %dx%d; the Neural Engine takes products of 2 and 3", f.DilH, f.DilW)
		}
	}
	switch {
	case f.StrideH == f.StrideW && !strides[f.StrideH]:
		return no("stride %d; the Neural Engine takes 1, 2, 3, 4, 6, 8, 9, 12, 16, 24 and 32", f.StrideH)
	case f.StrideH != f.StrideW && !mixed(f.StrideH, f.StrideW):
		return no("stride %dx%d; of unequal strides the Neural Engine takes 1 or 2 with 1, 2, 3, 4, 8 or 9", f.StrideH, f.StrideW)
	case f.WeightForm == model.FormLookup && f.KH*f.KW > 1 && max(f.StrideH, f.StrideW) > 2 && f.StrideH != f.KH:
		return no("stride %d with palettized weights; the Neural Engine takes at most 2", max(f.StrideH, f.StrideW))
	}
	return units.Support{}
}

// mixed tells whether unequal strides are allowed: a small one with 1, 2, 3, 4,
// 8 or 9.
func mixed(a, b int) bool {
	if a > b {
		a, b = b, a
	}
	return a <= 2 && (b <= 4 || b == 8 || b == 9)
}

// smooth tells whether n has no prime factor but 2 and 3.
func smooth(n int) bool {
	for _, p := range []int{2, 3} {
		for n > 1 && n%p == 0 {
			n /= p
		}
	}
	return n == 1
}

// remark says what is worth knowing about a supported layer.
func (u *Unit) remark(l *model.Layer) string {
	f := &l.Facts
	switch {
	case f.WeightForm == model.FormAffine && f.WeightGran == model.PerBlock:
		return fmt.Sprintf("int%d per block has no native path on the Neural Engine: decompressed to fp16 at load", f.WeightBits)
	case f.WeightForm == model.FormAffine && f.WeightBits == 8 && !u.streamInt8:
		return fmt.Sprintf("the Neural Engine of %s unfolds int8 weights to fp16 before streaming them", u.chip)
	case l.Kind == model.KindLinear && f.N > u.channelMax:
		return fmt.Sprintf("%d output channels: split into parts of at most %d", f.N, u.channelMax)
	case max(f.KH, f.KW) > u.kernelMax && (l.Kind == model.KindConv || l.Kind == model.KindDepthwise):
		return fmt.Sprintf("kernel %dx%d is decomposed into passes of at most %d", f.KH, f.KW, u.kernelMax)
	case f.Int8(l.Kind):
		return "int8 x int8"
	}
	return ""
}
