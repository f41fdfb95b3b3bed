package coreml

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of the protobuf layer. A program that passes them can still be
// refused later; they only bound what a hostile file can make the reader do.
const (
	maxDepth    = 64      // nested messages that may recurse (values, types, blocks)
	maxMessages = 1 << 23 // operations, bindings and values in one file; memory has its own bound
	maxRank     = 16      // dimensions of one tensor
)

var errTruncated = errors.New("the protobuf is truncated or malformed")

// field is one field of a protobuf message: its number, its wire type, and
// either the varint or fixed value (num) or the bytes (data) it carries.
type field struct {
	id   protowire.Number
	typ  protowire.Type
	num  uint64
	data []byte
}

// eachField calls f for every field of a message, in file order. Unknown
// fields reach f too, which ignores them; groups are refused.
func eachField(b []byte, f func(field) error) error {
	for len(b) > 0 {
		id, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errTruncated
		}
		b = b[n:]
		fl := field{id: id, typ: typ}
		switch typ {
		case protowire.VarintType:
			fl.num, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			fl.num = uint64(v)
		case protowire.Fixed64Type:
			fl.num, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			fl.data, n = protowire.ConsumeBytes(b)
		default:
			return fmt.Errorf("field %d has wire type %d, which Core ML does not use", id, typ)
		}
		if n < 0 {
			return errTruncated
		}
		b = b[n:]
		if err := f(fl); err != nil {
			return err
		}
	}
	return nil
}

// wantBytes reports an error unless the field is length-delimited.
func (f field) wantBytes() ([]byte, error) {
	if f.typ != protowire.BytesType {
		return nil, fmt.Errorf("field %d has wire type %d where a message or a string is wanted", f.id, f.typ)
	}
	return f.data, nil
}

// varints calls f for each value of a repeated integer field, which may be
// packed or not.
func (f field) varints(fn func(uint64) error) error {
	switch f.typ {
	case protowire.VarintType:
		return fn(f.num)
	case protowire.BytesType:
		b := f.data
		for len(b) > 0 {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return errTruncated
			}
			b = b[n:]
			if err := fn(v); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("field %d has wire type %d where integers are wanted", f.id, f.typ)
}

// mapEntry splits the entry of a map<string, message> field.
func (f field) mapEntry() (key string, val []byte, err error) {
	b, err := f.wantBytes()
	if err != nil {
		return "", nil, err
	}
	err = eachField(b, func(g field) error {
		d, err := g.wantBytes()
		if err != nil {
			return err
		}
		switch g.id {
		case 1:
			key = string(d)
		case 2:
			val = d
		}
		return nil
	})
	return key, val, err
}

// The writer's side: every helper appends one field and skips proto3 defaults.

func appendVarint(b []byte, id protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, id, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

func appendString(b []byte, id protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, id, protowire.BytesType)
	return protowire.AppendString(b, s)
}

// appendMsg appends a message field even when it is empty: an empty message is
// not the same as an absent one.
func appendMsg(b []byte, id protowire.Number, m []byte) []byte {
	b = protowire.AppendTag(b, id, protowire.BytesType)
	return protowire.AppendBytes(b, m)
}

func appendMapEntry(b []byte, id protowire.Number, key string, val []byte) []byte {
	b = protowire.AppendTag(b, id, protowire.BytesType)
	n := 1 + protowire.SizeBytes(len(key)) + 1 + protowire.SizeBytes(len(val))
	b = protowire.AppendVarint(b, uint64(n))
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, key)
	return appendMsg(b, 2, val)
}
