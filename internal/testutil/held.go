package testutil

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"
)

// Child runs the calling test again, in a process of its own whose garbage
// collector stops the world and sweeps at once, and reports what that found; it
// returns true in the parent, which has nothing more to do. [Held] needs it: a collector that
// runs beside the program leaves what dies meanwhile in its count.
func Child(t *testing.T) bool {
	t.Helper()
	const mode = "gcstoptheworld=2"
	if strings.Contains(os.Getenv("GODEBUG"), mode) {
		return false
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v=true", "-test.count=1"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GODEBUG="+mode)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("in a process of its own: %v", err)
	}
	return true
}

// Held returns the most heap, in bytes, that f holds at one time beyond what
// was held before: what is reachable at its peak and when it ends, not the sum
// of its allocations. A sampler reads the size of the heap's objects while the
// collector runs at every five per cent of growth. Call it in a [Child].
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
