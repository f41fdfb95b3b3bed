// Package npy reads and writes NumPy .npy files as tensors. The header is
// parsed by npyio; the data is taken as it lies, so that half floats and any
// rank work, and a header that promises more than the file holds is refused
// before anything is allocated.
package npy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sbinet/npyio"

	"github.com/triune-sim/triune/model"
)

var kinds = map[string]model.DType{
	"b1": model.Bool, "i1": model.Int8, "u1": model.UInt8, "i2": model.Int16, "u2": model.UInt16,
	"i4": model.Int32, "u4": model.UInt32, "i8": model.Int64, "u8": model.UInt64,
	"f2": model.Float16, "f4": model.Float32, "f8": model.Float64,
}

// Load reads a .npy file.
func Load(path string) (*model.Tensor, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	t, err := Read(f, st.Size())
	if err != nil {
		return nil, fmt.Errorf("npy: %s: %w", path, err)
	}
	return t, nil
}

// Read reads a .npy stream of at most size bytes.
func Read(r io.Reader, size int64) (t *model.Tensor, err error) {
	defer func() { // npyio panics on some malformed headers
		if e := recover(); e != nil {
			t, err = nil, fmt.Errorf("not a NumPy file: %v", e)
		}
	}()
	nr, err := npyio.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("not a NumPy file: %w", err)
	}
	d := nr.Header.Descr
	typ := d.Type
	if strings.HasPrefix(typ, ">") {
		return nil, fmt.Errorf("big-endian data %q is not supported (want little-endian)", typ)
	}
	dt, ok := kinds[strings.TrimLeft(typ, "<|=")]
	if !ok {
		return nil, fmt.Errorf("element type %q is not supported (want bool, int8 to int64, uint8 to uint64, float16, float32 or float64)", typ)
	}
	if d.Fortran && len(d.Shape) > 1 {
		return nil, fmt.Errorf("data in Fortran order is not supported (save with numpy.ascontiguousarray)")
	}
	shape := model.Shape(d.Shape)
	n := shape.Elems()
	if n < 0 || n > size || dt.Bytes(n) > size {
		return nil, fmt.Errorf("the header promises shape %v of %s, more than the file holds (%d bytes)", shape, dt, size)
	}
	t = model.NewTensor(dt, shape...)
	if _, err := io.ReadFull(r, t.Data); err != nil {
		return nil, fmt.Errorf("the file ends before shape %v of %s is complete", shape, dt)
	}
	return t, nil
}

// Write writes a tensor; types without a NumPy name (bfloat16, sub-byte) are
// refused.
func Write(w io.Writer, t *model.Tensor) error {
	code := ""
	for k, d := range kinds {
		if d == t.DType {
			code = k
		}
	}
	if code == "" {
		return fmt.Errorf("npy: no NumPy type for %s", t.DType)
	}
	order := "<"
	if t.DType.Bits() == 8 {
		order = "|"
	}
	var dims strings.Builder
	for _, d := range t.Shape {
		fmt.Fprintf(&dims, "%d, ", d)
	}
	s := strings.TrimSuffix(dims.String(), " ")
	if len(t.Shape) > 1 {
		s = strings.TrimSuffix(s, ",")
	}
	h := fmt.Sprintf("{'descr': '%s%s', 'fortran_order': False, 'shape': (%s), }", order, code, s)
	h += strings.Repeat(" ", (64-(10+len(h)+1)%64)%64) + "\n"
	var b bytes.Buffer
	b.WriteString("\x93NUMPY\x01\x00")
	_ = binary.Write(&b, binary.LittleEndian, uint16(len(h)))
	b.WriteString(h)
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	_, err := w.Write(t.Data)
	return err
}

// Save writes a .npy file under a temporary name and renames it.
func Save(path string, t *model.Tensor) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".npy-*")
	if err != nil {
		return fmt.Errorf("npy: %w", err)
	}
	defer os.Remove(f.Name())
	if err = Write(f, t); err == nil {
		err = f.Chmod(0o644)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("npy: %s: %w", path, err)
	}
	return nil
}
