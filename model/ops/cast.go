package ops

import (
	"math"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/model"
)

// Type conversion. The attribute "to" of Cast holds the type's name
// ("fp32", "int64", see model.ParseDType; "string" for strings).

func castTarget(a model.Attrs) model.DType {
	s := a.String("to", "")
	if s == "string" {
		return model.String
	}
	d, err := model.ParseDType(s)
	if err != nil {
		failf("attribute to: %w", err)
	}
	return d
}

// castTo converts with saturation of small floats as ONNX defines Cast.
func castTo(c *call, x *model.Tensor, d model.DType) *model.Tensor {
	d = c.float(d)
	switch {
	case x.DType == d:
		return x
	case d == model.Invalid || d == model.Complex64 || d == model.Complex128:
		failf("cannot cast to %s", d)
	case d == model.String:
		t := model.NewTensor(d, x.Shape...)
		for i := range t.Strings {
			t.Strings[i] = formatElem(x, i)
		}
		return t
	case x.DType == model.String:
		if d.IsFloat() {
			v := c.alloc(x.Shape)
			for i, s := range x.Strings {
				v[i] = parseFloat(s)
			}
			return fromFloats(d, x.Shape, v)
		}
		v := make([]int64, len(x.Strings))
		for i, s := range x.Strings {
			n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
			if err != nil {
				n = int64(parseFloat(s))
			}
			v[i] = n
		}
		return fromInts(d, x.Shape, v)
	case d == model.Bool:
		t := model.NewTensor(d, x.Shape...)
		for i, v := range floats(x) {
			if v != 0 {
				t.Data[i] = 1
			}
		}
		return t
	case d.Bits() == 8 && d.IsFloat() && c.n.Attrs.Int("saturate", 1) == 0:
		t := model.NewTensor(d, x.Shape...)
		for i, v := range floats(x) {
			setSmall(t, i, encodeSmall(d, v, false))
		}
		return t
	case d.IsInt() && d.Bits() < 8 && !x.DType.IsFloat():
		return fromInts(d, x.Shape, ints(x))
	}
	return convert(x, d)
}

func parseFloat(s string) float64 {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil && !math.IsInf(f, 0) {
		failf("the string %q is no number", s)
	}
	return f
}

// formatElem writes a number as NumPy's str does: the shortest decimal that
// reads back as the same value.
func formatElem(t *model.Tensor, i int) string {
	if t.DType == model.Bool {
		if t.Data[i] != 0 {
			return "True"
		}
		return "False"
	}
	if !t.DType.IsFloat() {
		if t.DType == model.UInt64 {
			return strconv.FormatUint(uint64(t.IntAt(i)), 10)
		}
		return strconv.FormatInt(t.IntAt(i), 10)
	}
	v := floats(&model.Tensor{DType: t.DType, Shape: t.Shape, Data: t.Data})[i]
	bits := 64
	if t.DType != model.Float64 {
		bits = 32
	}
	switch {
	case math.IsNaN(v):
		return "nan"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	}
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(v, 'e', -1, bits)
	}
	s := strconv.FormatFloat(v, 'f', -1, bits)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func init() {
	register("cast", [4]int{1, 1, 1, 1}, func(c *inference) {
		d := castTarget(c.n.Attrs)
		c.typ(0, d)
		c.out(0, d, c.shape(0))
	}, func(c *call) { c.put(0, castTo(c, c.x(0), castTarget(c.n.Attrs))) }, "Cast")
	register("cast", [4]int{2, 2, 1, 1}, func(c *inference) {
		c.typ(0, c.dtype(1))
		c.out(0, c.dtype(1), c.shape(0))
	}, func(c *call) { c.put(0, castTo(c, c.x(0), c.x(1).DType)) }, "CastLike")
}
