//go:build !amd64 && !arm64

package kernels

func archLevels() []*level { return []*level{&genericLevel} }

func spinPause() {}

// vecCall runs op with the kernels of the level in use: there are none.
func vecCall(vecOp, *vecArgs) bool { return false }
