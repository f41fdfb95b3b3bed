//go:build !amd64

package kernels

func archLevels() []*level { return []*level{&genericLevel} }

func spinPause() {}
