package accuracy

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/triune-sim/triune/model"
)

// DefaultData is where Debian's package dataset-fashion-mnist puts its files.
const DefaultData = "/usr/share/datasets/fashion-mnist"

// Images is a set of labelled grey images of equal size.
type Images struct {
	N, Rows, Cols int
	Pixels        []byte // [N][Rows][Cols]
	Labels        []byte // [N]
}

// Tensor returns image i as [1,1,Rows,Cols], each pixel times scale.
func (s *Images) Tensor(i int, scale float32) *model.Tensor {
	t := model.NewTensor(model.Float32, 1, 1, s.Rows, s.Cols)
	v := model.View[float32](t)
	for k, p := range s.Pixels[i*len(v) : (i+1)*len(v)] {
		v[k] = float32(p) * scale
	}
	return t
}

// Head returns the first n images (all of them for 0, or where there are
// fewer).
func (s *Images) Head(n int) *Images {
	if n <= 0 || n >= s.N {
		return s
	}
	return &Images{n, s.Rows, s.Cols, s.Pixels[:n*s.Rows*s.Cols], s.Labels[:n]}
}

// LoadImages reads a set in the IDX format of MNIST from a folder: part is
// "train" or "t10k", the files PART-images-idx3-ubyte and
// PART-labels-idx1-ubyte, gzipped (.gz) or not.
func LoadImages(dir, part string) (*Images, error) {
	pixels, shape, err := readIDX(dir, part+"-images-idx3-ubyte", 3)
	if err != nil {
		return nil, err
	}
	labels, n, err := readIDX(dir, part+"-labels-idx1-ubyte", 1)
	if err != nil {
		return nil, err
	}
	if shape[0] != n[0] {
		return nil, fmt.Errorf("accuracy: %s: %d %s images but %d labels", dir, shape[0], part, n[0])
	}
	return &Images{shape[0], shape[1], shape[2], pixels, labels}, nil
}

// maxIDX bounds an unpacked file: the training images are 47 MB.
const maxIDX = 1 << 28

func readIDX(dir, name string, rank int) ([]byte, []int, error) {
	path := filepath.Join(dir, name+".gz")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		path = filepath.Join(dir, name)
		raw, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		hint := ""
		if dir == DefaultData {
			hint = " (Debian's package dataset-fashion-mnist has it: apt install dataset-fashion-mnist)"
		}
		return nil, nil, fmt.Errorf("accuracy: %s: no %s or %s.gz%s", dir, name, name, hint)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("accuracy: %w", err)
	}
	if bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err == nil {
			raw, err = io.ReadAll(io.LimitReader(z, maxIDX))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("accuracy: %s: %w", path, err)
		}
	}
	data, shape, err := parseIDX(raw, rank)
	if err != nil {
		return nil, nil, fmt.Errorf("accuracy: %s: %w", path, err)
	}
	return data, shape, nil
}

// parseIDX reads unsigned bytes: the magic number 00 00 08 RANK, one big-endian
// int32 a dimension, then the data.
func parseIDX(raw []byte, rank int) ([]byte, []int, error) {
	head := 4 + 4*rank
	if len(raw) < head || raw[0] != 0 || raw[1] != 0 || raw[2] != 8 || int(raw[3]) != rank {
		return nil, nil, fmt.Errorf("no IDX file of bytes with %d dimensions", rank)
	}
	shape := make([]int, rank)
	want := int64(1)
	for i := range shape {
		d := binary.BigEndian.Uint32(raw[4+4*i:])
		shape[i] = int(d)
		if d == 0 || d > maxIDX {
			return nil, nil, fmt.Errorf("dimension %d is %d", i, d)
		}
		if want *= int64(d); want > maxIDX {
			return nil, nil, fmt.Errorf("more than %d bytes", maxIDX)
		}
	}
	if int64(len(raw)-head) != want {
		return nil, nil, fmt.Errorf("%d bytes of data, the header promises %d", len(raw)-head, want)
	}
	return raw[head:], shape, nil
}
