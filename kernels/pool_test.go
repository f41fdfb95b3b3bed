package kernels

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// TestPool checks that every piece runs once, whatever the sizes, while several
// goroutines share the pool, and after it is closed.
func TestPool(t *testing.T) {
	pool := NewPool(3)
	check := func(n int) {
		ran := make([]atomic.Int32, n)
		pool.For(n, func(i int) { ran[i].Add(1) })
		for i := range ran {
			if got := ran[i].Load(); got != 1 {
				t.Errorf("piece %d of %d ran %d times", i, n, got)
			}
		}
	}
	var wg sync.WaitGroup
	for g := 0; g < 4; g++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 0; n < 60; n++ {
				check(n)
			}
		}()
	}
	wg.Wait()
	pool.Close()
	pool.Close()
	check(9)
	var none *Pool
	none.Close()
	none.For(1, func(int) {})
	if none.Threads() != 1 {
		t.Error("a nil pool has one thread")
	}
}

// A helper that does not come must not hold a job up: here there is none.
func TestPoolAbsentHelper(t *testing.T) {
	p := &Pool{threads: 3, wake: make([]chan struct{}, 2), asleep: make([]atomic.Bool, 2), done: make(chan struct{}, 1)}
	for i := range p.wake {
		p.wake[i] = make(chan struct{}, 1)
		p.asleep[i].Store(i == 0)
	}
	for n := range 20 {
		var ran atomic.Int32
		p.For(n, func(int) { ran.Add(1) })
		if int(ran.Load()) != n {
			t.Fatalf("%d of %d pieces ran", ran.Load(), n)
		}
	}
}

// TestConcurrentUse runs one packed convolution from several goroutines, each
// with its own context on one pool.
func TestConcurrentUse(t *testing.T) {
	pool := NewPool(2)
	defer pool.Close()
	r := rand.New(rand.NewPCG(30, 30))
	s := ConvShape{InC: 24, OutC: 40, InH: 20, InW: 19, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}
	dw := ConvShape{InC: 24, OutC: 24, InH: 20, InW: 19, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 24}
	conv, err := NewConvF32(s, randF32(r, 40*24*9), Epilogue{Act: Act(ActHardSwish)})
	if err != nil {
		t.Fatal(err)
	}
	depth, err := NewConvF32(dw, randF32(r, 24*9), Epilogue{})
	if err != nil {
		t.Fatal(err)
	}
	src := randF32(r, s.SrcLen(1))
	run := func() []float32 {
		ctx := NewCtx(pool)
		mid, dst := make([]float32, dw.DstLen(1)), make([]float32, s.DstLen(1))
		depth.Run(ctx, mid, src, nil, 1)
		conv.Run(ctx, dst, mid, nil, 1)
		return dst
	}
	want := run()
	var wg sync.WaitGroup
	for g := 0; g < 4; g++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := 0; k < 20; k++ {
				for i, v := range run() {
					if math.Float32bits(v) != math.Float32bits(want[i]) {
						t.Errorf("element %d is %v, alone it was %v", i, v, want[i])
						return
					}
				}
			}
		}()
	}
	wg.Wait()
}

// TestBadShapes demands one clear error for each, and no panic.
func TestBadShapes(t *testing.T) {
	ok := ConvShape{InC: 4, OutC: 4, InH: 5, InW: 5, KH: 3, KW: 3}
	for name, change := range map[string]func(s *ConvShape){
		"no channels":       func(s *ConvShape) { s.InC = 0 },
		"negative stride":   func(s *ConvShape) { s.StrideW = -1 },
		"negative padding":  func(s *ConvShape) { s.PadLeft = -1 },
		"groups":            func(s *ConvShape) { s.Groups = 3 },
		"kernel too large":  func(s *ConvShape) { s.KH = 6 },
		"dilation":          func(s *ConvShape) { s.DilH = 3 },
		"plain with groups": func(s *ConvShape) { s.InPlain, s.Groups = true, 2 },
		"plain and wide":    func(s *ConvShape) { s.InPlain, s.InC = true, 16 },
		"huge":              func(s *ConvShape) { s.InH, s.InW, s.InC = 1<<20, 1<<20, 1<<20 },
		"huge weights":      func(s *ConvShape) { s.InC, s.OutC = 1<<24, 1<<24 },
	} {
		s := ok
		change(&s)
		if err := s.Validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := NewConvF32(s, make([]float32, 144), Epilogue{}); err == nil {
			t.Errorf("%s: NewConvF32 gave no error", name)
		}
	}
	w := make([]float32, 4*4*9)
	for name, f := range map[string]func() error{
		"weights": func() error { _, err := NewConvF32(ok, w[1:], Epilogue{}); return err },
		"bias":    func() error { _, err := NewConvF32(ok, w, Epilogue{Bias: w[:3]}); return err },
		"act":     func() error { _, err := NewConvF32(ok, w, Epilogue{Act: Activation{Kind: 99}}); return err },
		"scales": func() error {
			_, err := NewConvI8(ConvI8Config{Shape: ok, Weights: make([]int8, 144), WScale: w[:2], In: QParams{Scale: 1}})
			return err
		},
		"zero scale": func() error {
			_, err := NewConvI8(ConvI8Config{Shape: ok, Weights: make([]int8, 144), WScale: w[:1]})
			return err
		},
		"zero point": func() error {
			_, err := NewConvI8(ConvI8Config{Shape: ok, Weights: make([]int8, 144), WScale: w[:1], In: QParams{Scale: 1, Zero: 256}})
			return err
		},
		"long sum": func() error {
			_, err := NewLinearI8(LinearI8Config{K: 70000, N: 1, Weights: make([]int8, 70000), WScale: w[:1], In: QParams{Scale: 1}})
			return err
		},
		"linear": func() error { _, err := NewLinearF32(3, 4, w[:11], KN, Epilogue{}); return err },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
