package npy

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/sbinet/npyio"

	"github.com/triune-sim/triune/model"
)

func TestRoundTrip(t *testing.T) {
	half := model.Of([]float32{1, -0.5, 65504}, 3).Convert(model.Float16)
	for _, x := range []*model.Tensor{
		model.Of([]float32{1, 2, 3, 4, 5, 6}, 1, 2, 3), model.Scalar(float32(7)), half,
		model.Of([]int64{-1, 9}), model.Of([]int8{-128, 127}, 2, 1), model.NewTensor(model.Bool, 0, 4),
	} {
		path := filepath.Join(t.TempDir(), "x.npy")
		if err := Save(path, x); err != nil {
			t.Fatal(err)
		}
		y, err := Load(path)
		if err != nil {
			t.Fatalf("%s%v: %v", x.DType, x.Shape, err)
		}
		if y.DType != x.DType || !y.Shape.Equal(x.Shape) || !bytes.Equal(x.Data, y.Data) {
			t.Errorf("%s%v came back as %s%v", x.DType, x.Shape, y.DType, y.Shape)
		}
	}
}

// What we write, the ecosystem's reader reads.
func TestReadByNpyio(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, model.Of([]float32{1, 2, 3, 4}, 2, 2)); err != nil {
		t.Fatal(err)
	}
	var got []float32
	if err := npyio.Read(&b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]float32{1, 2, 3, 4}, got); d != "" {
		t.Error(d)
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := Write(&b, model.Of([]float32{1, 2}, 1, 2)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:40])
	f.Add([]byte("\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999,), }   \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := Read(bytes.NewReader(data), int64(len(data)))
		if err == nil && int64(len(x.Data)) > int64(len(data)) {
			t.Errorf("%d bytes from %d", len(x.Data), len(data))
		}
	})
}
