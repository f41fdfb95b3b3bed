package kernels

import (
	"testing"
	"unsafe"
)

// TestTileOffsets pins the argument layouts that the generator writes into the
// assembly (internal/gen).
func TestTileOffsets(t *testing.T) {
	var f tileArgs
	var i tileArgsI8
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"a", unsafe.Offsetof(f.a), 0}, {"b", unsafe.Offsetof(f.b), 8}, {"stride", unsafe.Offsetof(f.stride), 16},
		{"taps", unsafe.Offsetof(f.taps), 24}, {"ntaps", unsafe.Offsetof(f.ntaps), 32}, {"w", unsafe.Offsetof(f.w), 40},
		{"dst", unsafe.Offsetof(f.dst), 48}, {"dstride", unsafe.Offsetof(f.dstride), 56}, {"dblock", unsafe.Offsetof(f.dblock), 64},
		{"res", unsafe.Offsetof(f.res), 72}, {"bias", unsafe.Offsetof(f.bias), 80}, {"lo", unsafe.Offsetof(f.lo), 88},
		{"hi", unsafe.Offsetof(f.hi), 92}, {"round", unsafe.Offsetof(f.round), 96}, {"lanes", unsafe.Offsetof(f.lanes), 104},
		{"i8.a", unsafe.Offsetof(i.a), 0}, {"i8.b", unsafe.Offsetof(i.b), 8}, {"i8.stride", unsafe.Offsetof(i.stride), 16},
		{"i8.taps", unsafe.Offsetof(i.taps), 24}, {"i8.ntaps", unsafe.Offsetof(i.ntaps), 32}, {"i8.w", unsafe.Offsetof(i.w), 40},
		{"i8.dst", unsafe.Offsetof(i.dst), 48}, {"i8.dstride", unsafe.Offsetof(i.dstride), 56}, {"i8.dblock", unsafe.Offsetof(i.dblock), 64},
		{"i8.res", unsafe.Offsetof(i.res), 72}, {"i8.corr", unsafe.Offsetof(i.corr), 80}, {"i8.lo", unsafe.Offsetof(i.lo), 88},
		{"i8.hi", unsafe.Offsetof(i.hi), 92}, {"i8.round", unsafe.Offsetof(i.round), 96}, {"i8.lanes", unsafe.Offsetof(i.lanes), 104},
		{"i8.scale", unsafe.Offsetof(i.scale), 128}, {"i8.bias", unsafe.Offsetof(i.bias), 136}, {"i8.out", unsafe.Offsetof(i.out), 144},
		{"i8.fused", unsafe.Offsetof(i.fused), 152}, {"i8.rq8", unsafe.Offsetof(i.rq8), 160}, {"i8.rstride", unsafe.Offsetof(i.rstride), 168},
		{"i8.rblock", unsafe.Offsetof(i.rblock), 176}, {"i8.rscale", unsafe.Offsetof(i.rscale), 184}, {"i8.rzero", unsafe.Offsetof(i.rzero), 188},
		{"i8.rflip", unsafe.Offsetof(i.rflip), 192}, {"i8.qadd", unsafe.Offsetof(i.qadd), 196}, {"i8.qscale", unsafe.Offsetof(i.qscale), 200},
		{"i8.qinv", unsafe.Offsetof(i.qinv), 204}, {"i8.qlo", unsafe.Offsetof(i.qlo), 212}, {"i8.qhi", unsafe.Offsetof(i.qhi), 216},
		{"i8.p", unsafe.Offsetof(i.p), 112}, {"i8.qzero", unsafe.Offsetof(i.qzero), 208}, {"i8.cstride", unsafe.Offsetof(i.cstride), 224},
		{"p", unsafe.Offsetof(f.p), 112}, {"rows", unsafe.Offsetof(f.rows), 128}, {"srow", unsafe.Offsetof(f.srow), 136},
		{"i8.rows", unsafe.Offsetof(i.rows), 232}, {"i8.srow", unsafe.Offsetof(i.srow), 240},
		{"pf", unsafe.Offsetof(f.pf), 144}, {"pfStep", unsafe.Offsetof(f.pfStep), 152},
		{"i8.pf", unsafe.Offsetof(i.pf), 248}, {"i8.pfStep", unsafe.Offsetof(i.pfStep), 256},
		{"tabs", unsafe.Offsetof(f.tabs), 160},
		{"tap.n", unsafe.Offsetof(tap{}.n), 8}, {"tap size", unsafe.Sizeof(tap{}), 16},
	} {
		if c.got != c.want {
			t.Errorf("offset of %s is %d, the assembly uses %d", c.name, c.got, c.want)
		}
	}
}
