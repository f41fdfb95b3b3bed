package coreml

import (
	"encoding/binary"
	"fmt"

	"github.com/triune-sim/triune/model"
)

// Layout of weight.bin ("blob v2"; MILBlob/Blob/StorageFormat.hpp of
// coremltools): a header of 64 bytes (u32 count, u32 version = 2), then for
// every blob, at a multiple of 64, metadata of 64 bytes (u32 sentinel, u32
// type, u64 size in bytes, u64 absolute offset of the data, u64 unused bits of
// the last byte) and the data.
const (
	blobAlign    = 64
	blobSentinel = 0xDEADBEEF
	blobVersion  = 2
)

// blobTypes maps the type numbers of weight.bin, which are not MIL's.
var blobTypes = map[uint32]model.DType{
	1: model.Float16, 2: model.Float32, 3: model.UInt8, 4: model.Int8, 5: model.BFloat16,
	6: model.Int16, 7: model.UInt16, 8: model.Int4, 9: model.UInt1, 10: model.UInt2,
	11: model.UInt4, 12: model.UInt3, 13: model.UInt6, 14: model.Int32, 15: model.UInt32,
	16: model.Float8E4M3FN, 17: model.Float8E5M2,
}

var blobTypeOf = func() map[model.DType]uint32 {
	m := map[model.DType]uint32{}
	for k, v := range blobTypes {
		m[v] = k
	}
	return m
}()

// blobFile is a weight file in memory.
type blobFile struct{ data []byte }

// openBlob checks the header of a weight file.
func openBlob(data []byte) (*blobFile, error) {
	if len(data) < blobAlign {
		return nil, fmt.Errorf("weight file of %d bytes is shorter than its header (%d)", len(data), blobAlign)
	}
	if v := binary.LittleEndian.Uint32(data[4:]); v != blobVersion {
		return nil, fmt.Errorf("weight file has version %d, want %d", v, blobVersion)
	}
	return &blobFile{data}, nil
}

// tensor returns the blob whose metadata lies at off as a tensor that shares
// the file's memory. The type and the number of elements must agree with what
// the program declares.
func (f *blobFile) tensor(off uint64, d model.DType, shape model.Shape) (*model.Tensor, error) {
	size := uint64(len(f.data))
	if off%blobAlign != 0 {
		return nil, fmt.Errorf("blob offset %d is not a multiple of %d", off, blobAlign)
	}
	if off < blobAlign || off > size || size-off < blobAlign {
		return nil, fmt.Errorf("blob offset %d lies outside the weight file of %d bytes", off, size)
	}
	m := f.data[off:]
	if s := binary.LittleEndian.Uint32(m); s != blobSentinel {
		return nil, fmt.Errorf("no blob at offset %d of the weight file (sentinel %#x)", off, s)
	}
	kind := binary.LittleEndian.Uint32(m[4:])
	bt, ok := blobTypes[kind]
	if !ok {
		return nil, fmt.Errorf("blob at %d has unknown type %d", off, kind)
	}
	if bt != d {
		return nil, fmt.Errorf("blob at %d holds %s where the program declares %s", off, bt, d)
	}
	n := binary.LittleEndian.Uint64(m[8:])
	at := binary.LittleEndian.Uint64(m[16:])
	pad := binary.LittleEndian.Uint64(m[24:])
	if at > size || n > size-at {
		return nil, fmt.Errorf("blob at %d claims bytes %d to %d of a weight file of %d bytes", off, at, at+n, size)
	}
	e := shape.Elems()
	if e < 0 || e > int64(size)*8 || uint64(d.Bytes(e)) != n {
		return nil, fmt.Errorf("blob at %d holds %d bytes where %s%v needs %d", off, n, d, shape, d.Bytes(max(e, 0)))
	}
	if bits := d.Bits(); bits < 8 && (pad >= 8 || (n*8-pad)%uint64(bits) != 0) {
		return nil, fmt.Errorf("blob at %d of type %s has %d padding bits", off, d, pad)
	}
	return &model.Tensor{DType: d, Shape: shape.Clone(), Data: f.data[at : at+n : at+n]}, nil
}
