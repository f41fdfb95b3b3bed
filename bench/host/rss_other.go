//go:build !linux

package host

import "runtime"

// peakRSS approximates the resident size by what the Go runtime has obtained
// from the system.
func peakRSS() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
