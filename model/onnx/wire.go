package onnx

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one field of a protobuf message. Its payload is a view into the
// message.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	bytes []byte // BytesType
	val   uint64 // VarintType, Fixed32Type, Fixed64Type
}

// eachField calls f for every field of a message, in order.
func eachField(msg []byte, what string, f func(field) error) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return fmt.Errorf("%s: broken field tag %d bytes before its end", what, len(msg))
		}
		msg = msg[n:]
		fd := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			fd.val, n = protowire.ConsumeVarint(msg)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(msg)
			fd.val = uint64(v)
		case protowire.Fixed64Type:
			fd.val, n = protowire.ConsumeFixed64(msg)
		case protowire.BytesType:
			fd.bytes, n = protowire.ConsumeBytes(msg)
		default:
			return fmt.Errorf("%s: field %d has wire type %d, which ONNX does not use", what, num, typ)
		}
		if n < 0 {
			return fmt.Errorf("%s: field %d is cut off (%d bytes left)", what, num, len(msg))
		}
		msg = msg[n:]
		if err := f(fd); err != nil {
			return err
		}
	}
	return nil
}

func (f field) want(t protowire.Type, what string) error {
	if f.typ != t {
		return fmt.Errorf("%s: field %d has wire type %d, want %d", what, f.num, f.typ, t)
	}
	return nil
}

// message returns the payload of an embedded message, a string or bytes.
func (f field) message(what string) ([]byte, error) {
	return f.bytes, f.want(protowire.BytesType, what)
}

func (f field) text(what string) (string, error) {
	if err := f.want(protowire.BytesType, what); err != nil {
		return "", err
	}
	if len(f.bytes) > maxText {
		return "", fmt.Errorf("%s: a name of %d bytes is too long", what, len(f.bytes))
	}
	return string(f.bytes), nil
}

// counts returns how many fields of the given number a message has, and how
// many numbers those hold if they are packed or single numbers of size bytes
// (1 for varints): lists are made in their final size.
func counts(msg []byte, num protowire.Number, size int) (fields, numbers int) {
	_ = eachField(msg, "", func(f field) error {
		if f.num != num {
			return nil
		}
		fields++
		switch {
		case f.typ != protowire.BytesType:
			numbers++
		case size > 1:
			numbers += len(f.bytes) / size
		default:
			for _, c := range f.bytes {
				if c < 0x80 {
					numbers++
				}
			}
		}
		return nil
	})
	return fields, numbers
}

func (f field) integer(what string) (int64, error) {
	return int64(f.val), f.want(protowire.VarintType, what)
}

func (f field) float(what string) (float64, error) {
	return float64(math.Float32frombits(uint32(f.val))), f.want(protowire.Fixed32Type, what)
}

// integers appends a repeated integer field, packed or not.
func (f field) integers(dst []int64, what string) ([]int64, error) {
	if f.typ == protowire.VarintType {
		return append(dst, int64(f.val)), nil
	}
	b, err := f.message(what)
	if err != nil {
		return nil, err
	}
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, fmt.Errorf("%s: field %d holds a broken integer", what, f.num)
		}
		dst, b = append(dst, int64(v)), b[n:]
	}
	return dst, nil
}

// floats appends a repeated float field, packed or not.
func (f field) floats(dst []float64, what string) ([]float64, error) {
	if f.typ == protowire.Fixed32Type {
		return append(dst, float64(math.Float32frombits(uint32(f.val)))), nil
	}
	b, err := f.message(what)
	if err != nil {
		return nil, err
	}
	if len(b)%4 != 0 {
		return nil, fmt.Errorf("%s: field %d holds %d bytes of floats", what, f.num, len(b))
	}
	for len(b) > 0 {
		v, n := protowire.ConsumeFixed32(b)
		dst, b = append(dst, float64(math.Float32frombits(v))), b[n:]
	}
	return dst, nil
}

const (
	maxText  = 1 << 16
	maxDepth = 32      // of nested graphs, functions and types
	maxNodes = 1 << 17 // after functions are expanded
	maxRank  = 64
)
