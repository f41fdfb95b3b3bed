package coreml

import (
	"math"
	"slices"

	"github.com/triune-sim/triune/model"
)

// call is the translation of one operation.
type call struct {
	made []*model.Value // intermediate values of this operation
	im   *importer
	op   *operation
}

// handlers translate operations by type. Each file import_*.go adds a family.
var handlers = map[string]func(*call){}

func handle(f func(*call), names ...string) {
	for _, n := range names {
		if handlers[n] != nil {
			panic("coreml: operation registered twice: " + n)
		}
		handlers[n] = f
	}
}

// entryOf resolves a binding.
func (c *call) entryOf(b binding) *entry {
	if b.val == nil {
		return c.im.lookup(b.name)
	}
	if b.val.isList {
		return &entry{list: b.val.list}
	}
	k := c.im.constOf(b.val)
	return &entry{v: &model.Value{Name: c.base() + "_const", DType: k.DType, Shape: k.Shape, Const: k}}
}

func (c *call) base() string {
	if len(c.op.outputs) > 0 {
		return c.op.outputs[0].name
	}
	return c.op.name()
}

// has reports whether an input is bound.
func (c *call) has(key string) bool { return len(c.op.arg(key)) > 0 }

// in returns an input tensor; it fails if it is absent or no tensor.
func (c *call) in(key string) *model.Value {
	v := c.opt(key)
	if v == nil {
		failf("input %s is missing", quote(key))
	}
	return v
}

// opt returns an input tensor, or nil if it is absent.
func (c *call) opt(key string) *model.Value {
	a := c.op.arg(key)
	if len(a) == 0 {
		return nil
	}
	if len(a) > 1 {
		failf("input %s has %d bindings, want one", quote(key), len(a))
	}
	return c.tensor(key, c.entryOf(a[0]))
}

func (c *call) tensor(key string, e *entry) *model.Value {
	if e.v == nil || e.whole != nil {
		failf("input %s is not a tensor", quote(key))
	}
	return e.v
}

// list returns the tensors of a variadic input.
func (c *call) list(key string) []*model.Value {
	a := c.op.arg(key)
	if len(a) == 0 {
		failf("input %s is missing", quote(key))
	}
	out := make([]*model.Value, len(a))
	for i, b := range a {
		out[i] = c.tensor(key, c.entryOf(b))
	}
	return out
}

// maxStatic bounds the elements of a parameter that must be known when the
// graph is built: shapes, axes, pads, permutations.
const maxStatic = 1 << 16

// static returns the value of an input that must be known now: a constant, or
// what is computed from constants and known shapes. Nil if it is absent or not
// known.
func (c *call) static(key string) *model.Tensor {
	v := c.opt(key)
	if v == nil {
		return nil
	}
	return c.valueOf(v)
}

func (c *call) valueOf(v *model.Value) *model.Tensor {
	if v.Const != nil {
		if v.Const.Elems() > maxStatic {
			return nil
		}
		t, err := v.Const.Value()
		try(err)
		return t
	}
	return c.im.infer.Value(v)
}

func (c *call) must(key string) *model.Tensor {
	t := c.static(key)
	if t == nil && c.has(key) {
		failf("input %s depends on the data; only a constant is supported there", quote(key))
	}
	return t
}

// ints returns an integer-list parameter, or def if it is absent.
func (c *call) ints(key string, def []int) []int {
	t := c.must(key)
	if t == nil {
		return def
	}
	return toInts(key, t)
}

func toInts(key string, t *model.Tensor) []int {
	if !t.DType.IsInt() && t.DType != model.Bool {
		failf("parameter %s has type %s (want integers)", quote(key), t.DType)
	}
	out := make([]int, t.Len())
	for i := range out {
		out[i] = int(t.IntAt(i))
	}
	return out
}

func (c *call) one(key string) *model.Tensor {
	t := c.must(key)
	if t != nil && t.Len() != 1 {
		failf("parameter %s has shape %v (want one value)", quote(key), t.Shape)
	}
	return t
}

func (c *call) int(key string, def int) int {
	t := c.one(key)
	if t == nil {
		return def
	}
	return toInts(key, t)[0]
}

func (c *call) bool(key string, def bool) bool {
	t := c.one(key)
	if t == nil {
		return def
	}
	if t.DType != model.Bool && !t.DType.IsInt() {
		failf("parameter %s has type %s (want bool)", quote(key), t.DType)
	}
	return t.IntAt(0) != 0
}

func (c *call) float(key string, def float64) float64 {
	t := c.one(key)
	if t == nil {
		return def
	}
	if !t.DType.IsInt() && !(t.DType.IsFloat() && t.DType.Bits() >= 16) {
		failf("parameter %s has type %s (want a number)", quote(key), t.DType)
	}
	return t.At(0)
}

func (c *call) str(key, def string) string {
	t := c.one(key)
	if t == nil {
		return def
	}
	if t.DType != model.String {
		failf("parameter %s has type %s (want a string)", quote(key), t.DType)
	}
	return t.Strings[0]
}

// rank returns the rank of a value, which every MIL tensor has.
func rank(v *model.Value) int {
	if len(v.Shape) == 1 && v.Shape[0] < -1 {
		failf("%s has an unknown rank", quote(v.Name))
	}
	return len(v.Shape)
}

// axis normalises an axis against a rank.
func axis(a, rank int) int {
	if a < -rank || a >= rank {
		failf("axis %d is outside a tensor of rank %d", a, rank)
	}
	if a < 0 {
		a += rank
	}
	return a
}

func axesOf(a []int, rank int) []int {
	out := make([]int, len(a))
	for i, x := range a {
		out[i] = axis(x, rank)
	}
	return out
}

func seq(from, n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = from + i
	}
	return s
}

// Constants made by the translation.

func (c *call) constValue(suffix string, k *model.Const) *model.Value {
	if d, ok := k.Storage.(model.Dense); ok {
		c.im.keep(len(d.Tensor.Data))
	}
	return c.lazyValue(suffix, k)
}

// lazyValue is constValue for constants whose values are made when they are
// wanted.
func (c *call) lazyValue(suffix string, k *model.Const) *model.Value {
	c.im.keep(constBytes)
	return &model.Value{Name: c.base() + "_" + suffix, DType: k.DType, Shape: k.Shape, Const: k}
}

// instead returns a constant that takes the place of another one, and its name.
func (c *call) instead(v *model.Value, k *model.Const) *model.Value {
	return &model.Value{Name: v.Name, DType: k.DType, Shape: k.Shape, Const: k}
}

// int64s returns a one-dimensional int64 constant.
func (c *call) int64s(suffix string, v ...int) *model.Value {
	t := model.NewTensor(model.Int64, len(v))
	for i, x := range v {
		t.SetInt(i, int64(x))
	}
	return c.constValue(suffix, model.NewConst(t))
}

// scalar returns a 0-dimensional constant of the given type.
func (c *call) scalar(suffix string, d model.DType, v float64) *model.Value {
	t := newNumbers(d)
	t.Set(0, v)
	return c.constValue(suffix, model.NewConst(t))
}

// numberAt returns an element of a tensor of plain numbers; it fails for
// strings and 8-bit floats.
func numberAt(t *model.Tensor, i int) float64 {
	newNumbers(t.DType)
	return t.At(i)
}

// newNumbers returns a tensor of a type that has plain numbers; it fails for
// strings and 8-bit floats.
func newNumbers(d model.DType, shape ...int) *model.Tensor {
	if !d.IsInt() && d != model.Bool && !(d.IsFloat() && d.Bits() >= 16) {
		failf("a parameter of type %s", d)
	}
	return model.NewTensor(d, shape...)
}

// fill returns a constant of one repeated value.
func (c *call) fill(suffix string, d model.DType, v float64, shape ...int) *model.Value {
	if n := model.Shape(shape).Elems(); n < 0 || d.Bytes(n) > maxTensor {
		failf("a constant of shape %v", model.Shape(shape))
	}
	newNumbers(d)
	return c.lazyValue(suffix, &model.Const{DType: d, Shape: shape, Storage: &filled{d, model.Shape(shape).Elems(), v}})
}

// as64 returns v as int64, which many ONNX parameters must be: MIL's integers
// are int32.
func (c *call) as64(v *model.Value) *model.Value {
	if v.DType == model.Int64 {
		return v
	}
	if v.Const != nil && v.Const.Elems() <= maxStatic {
		t, err := v.Const.Value()
		try(err)
		return c.constValue("i64", model.NewConst(t.Convert(model.Int64)))
	}
	return c.cast(v, model.Int64)
}

func (c *call) cast(v *model.Value, d model.DType) *model.Value {
	if v.DType == d {
		return v
	}
	return c.mid("Cast", model.Attrs{"to": d.String()}, v)
}

// mid adds a node with one output that has no name in the program.
func (c *call) mid(op model.Op, attrs model.Attrs, ins ...*model.Value) *model.Value {
	return c.mids1(op, attrs, 1, ins...)[0]
}

func (c *call) mids1(op model.Op, attrs model.Attrs, n int, ins ...*model.Value) []*model.Value {
	return c.midAs(c.base()+"_"+string(op), op, attrs, n, ins...)
}

func (c *call) midAs(name string, op model.Op, attrs model.Attrs, n int, ins ...*model.Value) []*model.Value {
	outs := make([]*model.Value, n)
	for i := range outs {
		outs[i] = &model.Value{Name: c.im.fresh(name)}
	}
	c.im.add(&model.Node{Name: outs[0].Name, Op: op, Inputs: ins, Outputs: outs, Attrs: attrs})
	c.made = append(c.made, outs...)
	return outs
}

// result adds the node that gives the operation's first output.
func (c *call) result(op model.Op, attrs model.Attrs, ins ...*model.Value) {
	c.results(op, attrs, 1, ins...)
}

// results adds the node whose n outputs are the operation's first n.
func (c *call) results(op model.Op, attrs model.Attrs, n int, ins ...*model.Value) {
	if len(c.op.outputs) < n {
		failf("%d outputs, want %d", len(c.op.outputs), n)
	}
	outs := make([]*model.Value, n)
	for i := range outs {
		outs[i] = &model.Value{Name: c.im.fresh(c.op.outputs[i].name)}
	}
	c.im.add(&model.Node{Name: c.op.name(), Op: op, Inputs: ins, Outputs: outs, Attrs: attrs})
	for i, v := range outs {
		c.set(i, v)
	}
}

// set binds the operation's output i. A value of another integer type than
// declared is cast: MIL's indices are int32 where ONNX's are int64.
func (c *call) set(i int, v *model.Value) {
	if i >= len(c.op.outputs) {
		failf("output %d is not declared", i)
	}
	n := c.op.outputs[i]
	t := n.typ
	if t.kind == kindTensor && t.dtype != v.DType && t.dtype != model.Invalid && v.DType != model.Invalid {
		if v.Const != nil || v.Producer == nil || v.DType.IsFloat() != t.dtype.IsFloat() && v.DType != model.Bool {
			failf("output %s is declared %s and computed as %s", quote(n.name), t.dtype, v.DType)
		}
		if v.Name == n.name {
			v.Name = c.im.fresh(n.name + "_" + v.DType.String())
			delete(c.im.used, n.name)
		}
		out := &model.Value{Name: c.im.fresh(n.name)}
		c.im.add(&model.Node{Name: out.Name, Op: "Cast", Inputs: []*model.Value{v}, Outputs: []*model.Value{out},
			Attrs: model.Attrs{"to": t.dtype.String()}})
		v = out
	}
	c.checkShape(n, v)
	c.im.define(n.name, &entry{v: v})
}

// checkShape compares what was inferred with what the program declares, and
// takes the declaration where inference knows less.
func (c *call) checkShape(n named, v *model.Value) {
	t := n.typ
	if t.kind != kindTensor || t.vary {
		return
	}
	if len(v.Shape) == 1 && v.Shape[0] < -1 {
		v.Shape = t.shape.Clone()
		return
	}
	bad := len(t.shape) != len(v.Shape)
	for i := range t.shape {
		if bad {
			break
		}
		switch {
		case t.shape[i] < 0:
		case v.Shape[i] < 0:
			v.Shape[i] = t.shape[i]
		default:
			bad = t.shape[i] != v.Shape[i]
		}
	}
	// With a flexible input the fixed dimensions of the program may still be
	// those of another shape; a program of fixed shapes must agree.
	if bad {
		failf("output %s is declared with shape %v, its inputs give %v", quote(n.name), t.shape, v.Shape)
	}
	if e := v.Shape.Elems(); v.Shape.Known() && v.DType.Bytes(e) > maxTensor {
		failf("output %s of shape %v is too large", quote(n.name), v.Shape)
	}
}

// finish checks that every declared output was set.
func (c *call) finish() {
	for _, n := range c.op.outputs {
		if c.im.scopes[len(c.im.scopes)-1][n.name] == nil {
			failf("output %s is not produced", quote(n.name))
		}
	}
}

// constant binds a const operation.
func (c *call) constant() {
	if len(c.op.outputs) != 1 {
		failf("%d outputs, want one", len(c.op.outputs))
	}
	v := c.op.attr("val")
	if v == nil {
		if a := c.op.arg("val"); len(a) == 1 && a[0].val != nil {
			v = a[0].val
		} else {
			failf("no value")
		}
	}
	name := c.op.outputs[0].name
	if v.isList {
		c.im.keep(constBytes * len(v.list))
		c.im.define(name, &entry{list: v.list})
		return
	}
	c.bindConst(name, c.im.constOf(v))
}

func (c *call) bindConst(name string, k *model.Const) {
	c.im.define(name, &entry{v: &model.Value{Name: name, DType: k.DType, Shape: k.Shape, Const: k}})
}

// nextBelow returns the greatest float32 below a: x >= a is x > nextBelow(a).
func nextBelow(a float64) float64 {
	return float64(math.Nextafter32(float32(a), float32(math.Inf(-1))))
}

// Operations returns the types of the MIL operations that the reader
// translates, sorted, constexpr ones included.
func Operations() []string {
	out := append(sortedKeys(handlers), "const", "constexpr_affine_dequantize", "constexpr_blockwise_shift_scale", "constexpr_cast",
		"constexpr_lut_to_dense", "constexpr_lut_to_sparse", "constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense")
	slices.Sort(out)
	return out
}
