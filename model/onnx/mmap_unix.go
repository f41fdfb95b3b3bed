//go:build unix

package onnx

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type fileKey struct {
	dev, ino uint64
	size     int64
	mod      time.Time
}

var mapped struct {
	sync.Mutex
	m map[fileKey][]byte
}

func mmap(f *os.File, st os.FileInfo) ([]byte, error) {
	var key fileKey
	sys, ok := st.Sys().(*syscall.Stat_t)
	if ok {
		key = fileKey{uint64(sys.Dev), uint64(sys.Ino), st.Size(), st.ModTime()}
	}
	mapped.Lock()
	defer mapped.Unlock()
	if b := mapped.m[key]; ok && b != nil {
		return b, nil
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	if ok {
		if mapped.m == nil {
			mapped.m = map[fileKey][]byte{}
		}
		mapped.m[key] = b
	}
	return b, nil
}
