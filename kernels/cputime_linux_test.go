package kernels

import "golang.org/x/sys/unix"

// threadCPU returns the processor time of this thread in ns.
func threadCPU() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return t.Nano()
}
