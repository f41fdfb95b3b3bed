package testutil

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// Held runs f and returns the most heap, in bytes, that was held at one time
// beyond what was held before: a sampler reads the size of the heap's objects
// while the collector runs at every few per cent of growth, so that the figure
// is what is reachable and not what the collector has not come to yet. It is
// the resident cost of f, not the sum of its allocations. Nothing else may run
// in the process meanwhile.
func Held(f func()) int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	runtime.GC()
	read := func() int64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64())
	}
	before := read()
	var most int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			most = max(most, read())
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
			}
		}
	})
	f()
	runtime.GC() // what f leaves behind counts too
	last := read()
	close(stop)
	wg.Wait()
	return max(most, last) - before
}
