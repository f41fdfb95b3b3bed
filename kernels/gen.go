package kernels

//go:generate go -C internal/gen run . -dir ../..
