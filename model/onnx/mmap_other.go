//go:build !unix

package onnx

import (
	"errors"
	"os"
)

func mmap(*os.File, os.FileInfo) ([]byte, error) { return nil, errors.ErrUnsupported }
