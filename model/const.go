package model

import (
	"fmt"
	"sync"
)

// Const is a constant of the graph: its logical shape and type, and how it is
// stored. Logical means after decompression: a W8 weight of an fp16 model has
// DType Float16 and a storage of int8 codes and fp16 scales.
type Const struct {
	DType   DType
	Shape   Shape
	Storage Storage
}

// Storage is how a constant lies in the package. The forms are [Dense],
// [*Lazy], [*Affine], [*Lookup] and [*Sparse]; package quant makes the
// compressed ones. Sizes are known without the values, so that a prediction
// never materialises a weight.
type Storage interface {
	// Form names the storage.
	Form() Form
	// StoredBytes is the number of bytes of all arrays (codes, scales, zero
	// points, tables, masks), without container metadata.
	StoredBytes() int64
	// Decode returns the decompressed values in the constant's logical type
	// and shape. The result must not be modified.
	Decode(d DType, shape Shape) (*Tensor, error)
}

// Form is the family of a constant's storage.
type Form uint8

// The storage families.
const (
	FormDense  Form = iota // values as they are
	FormAffine             // integer codes with scales (and zero points)
	FormLookup             // palette: indices into a look-up table
	FormSparse             // bit mask and the non-zero values
)

// String returns "dense", "affine", "lookup" or "sparse".
func (f Form) String() string { return [...]string{"dense", "affine", "lookup", "sparse"}[f] }

// Value decodes the constant. The result must not be modified.
func (c *Const) Value() (*Tensor, error) {
	t, err := c.Storage.Decode(c.DType, c.Shape)
	if err != nil {
		return nil, err
	}
	if t.DType != c.DType || !t.Shape.Equal(c.Shape) {
		return nil, fmt.Errorf("model: constant of type %s shape %v decodes to %s %v", c.DType, c.Shape, t.DType, t.Shape)
	}
	return t, nil
}

// Elems returns the number of logical elements.
func (c *Const) Elems() int64 { return c.Shape.Elems() }

// DenseBytes returns the size of the decompressed values in the logical type.
func (c *Const) DenseBytes() int64 { return c.DType.Bytes(c.Elems()) }

// StoredBytes returns the size as stored.
func (c *Const) StoredBytes() int64 { return c.Storage.StoredBytes() }

// NewConst wraps a dense tensor.
func NewConst(t *Tensor) *Const {
	return &Const{DType: t.DType, Shape: t.Shape, Storage: Dense{t}}
}

// Dense stores values as they are.
type Dense struct{ Tensor *Tensor }

// Form returns FormDense.
func (d Dense) Form() Form { return FormDense }

// StoredBytes returns the size of the values.
func (d Dense) StoredBytes() int64 { return int64(len(d.Tensor.Data)) }

// Decode returns the tensor, converted if the type differs.
func (d Dense) Decode(t DType, s Shape) (*Tensor, error) {
	if d.Tensor.Shape.Elems() != s.Elems() {
		return nil, fmt.Errorf("model: dense constant of shape %v where %v is declared", d.Tensor.Shape, s)
	}
	v := d.Tensor
	if !v.Shape.Equal(s) {
		v = v.Reshape(s...)
	}
	return v.Convert(t), nil
}

// Lazy is a dense storage whose values are computed at first use, and kept
// until [Lazy.Drop]: seeded weights of built-in networks, folded batch norms.
// It is safe for concurrent use.
type Lazy struct {
	dtype DType
	elems int64
	make  func() (*Tensor, error)
	mu    sync.Mutex
	val   *Tensor
	err   error
}

// NewLazy returns a constant of the given type and shape computed by f.
func NewLazy(d DType, shape Shape, f func() (*Tensor, error)) *Const {
	return &Const{DType: d, Shape: shape.Clone(), Storage: &Lazy{dtype: d, elems: shape.Elems(), make: f}}
}

// Form returns FormDense.
func (l *Lazy) Form() Form { return FormDense }

// StoredBytes returns the size the values have in the stored type.
func (l *Lazy) StoredBytes() int64 { return l.dtype.Bytes(l.elems) }

// Decode computes the values once and returns them.
func (l *Lazy) Decode(d DType, s Shape) (*Tensor, error) {
	v, err := l.value()
	if err != nil {
		return nil, err
	}
	return Dense{v}.Decode(d, s)
}

func (l *Lazy) value() (*Tensor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.val == nil && l.err == nil {
		l.val, l.err = l.make()
	}
	return l.val, l.err
}

// Drop forgets the values, for those who have made their own copy of them;
// another Decode computes them again.
func (l *Lazy) Drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.val = nil
}

// Drop forgets what the constant has computed on demand (see [Lazy.Drop]). It
// changes no value.
func (c *Const) Drop() {
	if c == nil {
		return
	}
	switch s := c.Storage.(type) {
	case *Lazy:
		s.Drop()
	case *Affine:
		s.Codes.Drop()
		s.Scale.Drop()
		s.Zero.Drop()
	case *Lookup:
		s.Indices.Drop()
		s.Table.Drop()
	case *Sparse:
		s.Mask.Drop()
		s.Values.Drop()
	}
}

// Affine stores integer codes with a scale (and a zero point) per block:
//
//	value = scale[block] * (code - zero[block])
//
// It is constexpr_affine_dequantize and constexpr_blockwise_shift_scale of
// Core ML and DequantizeLinear of ONNX. Scale has the rank of the codes; on
// axis d a block is Codes.Shape[d] / Scale.Shape[d] long (per tensor: all
// ones; per channel: full on the output axis, one elsewhere). Codes may be
// sparse: masked-out positions then decode to 0.
type Affine struct {
	Codes *Const // int8, uint8, int4, uint4 (or any integer type)
	Scale *Const // fp16 or fp32
	Zero  *Const // like Scale in shape; nil when symmetric
}

// Lookup stores indices into look-up tables (a palette). It is
// constexpr_lut_to_dense of Core ML. Table has the rank of the weight plus
// two: [groups on each axis..., 2^bits, vector]. With a vector length above
// one, Indices is 1/vector long on VectorAxis. Indices may be sparse.
type Lookup struct {
	Indices    *Const // uint1, 2, 3, 4, 6 or 8
	Table      *Const // fp16, fp32, or an Affine of int8 or uint8 codes
	VectorAxis int
}

// Sparse stores a bit mask in the shape of the weight and the non-zero values
// in row-major order. It is constexpr_sparse_to_dense of Core ML. The number
// of values is Values.Shape[0], known without the mask.
type Sparse struct {
	Mask   *Const // uint1, the weight's shape
	Values *Const // one-dimensional
}
