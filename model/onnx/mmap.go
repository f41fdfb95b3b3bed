package onnx

import (
	"fmt"
	"io"
	"os"
)

// mapThreshold is the size from which files are mapped rather than read.
const mapThreshold = 1 << 20

// mapFile returns the contents of a regular file. Large files are mapped where
// the system can: weights are then views into the page cache, shared between
// sessions and processes and reclaimed by the kernel under pressure. Tensors
// carry no reference to the mapping, so it stays for the life of the process;
// opening the same unchanged file again gives the same mapping.
func mapFile(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", st.Name())
	}
	size := st.Size()
	if size > 1<<46 || int64(int(size)) != size {
		return nil, fmt.Errorf("%s is too large (%d bytes)", st.Name(), size)
	}
	if size >= mapThreshold {
		if b, err := mmap(f, st); err == nil {
			return b, nil
		}
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, err
	}
	return b, nil
}
