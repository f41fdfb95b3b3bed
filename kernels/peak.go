package kernels

import (
	"runtime"
	"time"
)

// PeakF32 measures the float32 rate of one thread, in GFLOP/s (a
// multiply-add is two), of a loop of independent fused multiply-adds that
// touches registers only: the roof under which convolutions are judged. It
// takes about 30 ms and returns the best of several rounds, because other work
// on the machine can only lower it.
func PeakF32() float64 { return peak(cur.peakF32, cur.peakF32Ops) }

// PeakI8 is [PeakF32] for 8-bit multiply-adds, in GOP/s.
func PeakI8() float64 { return peak(cur.peakI8, cur.peakI8Ops) }

func peak(loop func(n int64), opsPerIter float64) float64 {
	n := int64(1000)
	for {
		t := time.Now()
		loop(n)
		if d := time.Since(t); d > 2*time.Millisecond {
			break
		}
		n *= 2
	}
	best := 0.0
	for i := 0; i < 12; i++ {
		t := time.Now()
		loop(n)
		if g := float64(n) * opsPerIter / float64(time.Since(t).Nanoseconds()); g > best {
			best = g
		}
	}
	return best
}

func peakF32Go(n int64) {
	var a, b, c, d float32
	x, y := float32(1.0000001), float32(0.5)
	for ; n > 0; n-- {
		a = a*x + y
		b = b*x + y
		c = c*x + y
		d = d*x + y
	}
	runtime.KeepAlive(a + b + c + d)
}

func peakI8Go(n int64) {
	var a, b, c, d int32
	x := int32(n)
	for ; n > 0; n-- {
		a += x * 3
		b += (x ^ 1) * 5
		c += (x ^ 2) * 7
		d += (x ^ 3) * 9
		x++
	}
	runtime.KeepAlive(a + b + c + d)
}
