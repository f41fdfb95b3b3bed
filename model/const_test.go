package model

import (
	"errors"
	"sync"
	"testing"
)

// A lazy constant is computed once for any number of readers, and again only
// after it was dropped; dropping a compressed constant reaches its parts.
func TestLazyDrop(t *testing.T) {
	calls := 0
	c := NewLazy(Float32, Shape{2}, func() (*Tensor, error) { calls++; return Of([]float32{1, 2}), nil })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if v, err := c.Value(); err != nil || v.At(1) != 2 {
				t.Errorf("value %v, %v", v, err)
			}
		})
	}
	wg.Wait()
	if calls != 1 {
		t.Errorf("computed %d times for four readers", calls)
	}
	codes := NewLazy(Int8, Shape{2}, func() (*Tensor, error) { calls++; return Of([]int8{3, 4}), nil })
	a := &Const{DType: Float32, Shape: Shape{2}, Storage: &Affine{Codes: codes, Scale: NewConst(Of([]float32{0.5}))}}
	for range 2 {
		if v, err := a.Value(); err != nil || v.At(1) != 2 {
			t.Errorf("value %v, %v", v, err)
		}
	}
	if calls != 2 {
		t.Errorf("codes computed %d times", calls-1)
	}
	c.Drop()
	a.Drop()
	(*Const)(nil).Drop()
	if v, _ := c.Value(); v.At(0) != 1 || calls != 3 {
		t.Errorf("after Drop: %v, computed %d times", v, calls)
	}
	if v, _ := a.Value(); v.At(0) != 1.5 || calls != 4 {
		t.Errorf("after Drop of the compressed constant: %v, computed %d times", v, calls)
	}
	bad := NewLazy(Float32, Shape{2}, func() (*Tensor, error) { return nil, errors.New("no values") })
	if _, err := bad.Value(); err == nil {
		t.Error("an error is lost")
	}
}
