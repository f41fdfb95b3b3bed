package main

import "fmt"

// The row kernels of arm64: depthwise convolutions and maxima. All strides go through
// one function: R8 is the step between positions.

// rows emits the walk over rows of p positions: R9 the position, R24 those
// left, R21 the destination; body(n) computes n positions at R9 and stores
// them at R21, which it advances. sizes end with 1.
func (a *arm) rows(sizes []int, offRows, offSRow int, body func(n int)) {
	a.f("MOVD %d(R0), R20", offA)
	a.f("MOVD %d(R0), R21", offDst)
	a.f("MOVD %d(R0), R8", offStride)
	a.f("MOVD %d(R0), R23", offRows)
	a.label("row")
	a.f("MOVD R20, R9")
	a.f("MOVD %d(R0), R24", offP)
	for i, n := range sizes {
		next := "rowend"
		if i+1 < len(sizes) {
			next = fmt.Sprintf("p%d", sizes[i+1])
		}
		l := fmt.Sprintf("p%d", n)
		a.label(l)
		a.f("CMP $%d, R24", n)
		a.f("BLT %s", next)
		body(n)
		for i := 0; i < n; i++ {
			a.f("ADD R8, R9, R9")
		}
		a.f("SUB $%d, R24, R24", n)
		a.f("B %s", l)
	}
	a.label("rowend")
	a.f("MOVD %d(R0), R2", offSRow)
	a.f("ADD R2, R20, R20")
	a.f("SUBS $1, R23, R23")
	a.f("BNE row")
	a.f("RET")
}

// taps emits a loop over the taps with the address of each in R10, at R9.
func (a *arm) taps(body func()) {
	a.f("MOVD %d(R0), R4", offTaps)
	a.f("MOVD %d(R0), R5", offNTaps)
	l := a.newLabel("tap")
	a.label(l)
	a.f("MOVD.P 16(R4), R10")
	a.f("ADD R9, R10, R10")
	body()
	a.f("SUBS $1, R5, R5")
	a.f("BNE %s", l)
}

// dwF32 computes rows of a depthwise convolution.
func (a *arm) dwF32() {
	a.begin("dwF32NEON", "tileArgs")
	a.f("MOVD %d(R0), R22", offRes)
	a.rows([]int{6, 3, 1}, offRows, offSRow, func(n int) {
		a.f("MOVD %d(R0), R1", offBias)
		for i := 0; i < n; i++ {
			a.ld4(1, 4*i, false)
		}
		a.f("MOVD %d(R0), R3", offW)
		a.taps(func() {
			a.ld4(3, 24, true)
			for i := 0; i < n; i++ {
				a.ld4(10, 28, false)
				for q := 0; q < 4; q++ {
					a.fmla(28+q, 24+q, 4*i+q)
				}
				if i < n-1 {
					a.f("ADD R8, R10, R10")
				}
			}
		})
		nores := a.newLabel("nores")
		a.f("CBZ R22, %s", nores)
		for i := 0; i < n; i++ {
			a.ld4(22, 24, true)
			for q := 0; q < 4; q++ {
				a.fadd(24+q, 4*i+q, 4*i+q)
			}
		}
		a.label(nores)
		a.clampRound(4 * n)
		for i := 0; i < n; i++ {
			a.four("VST1", 21, 4*i, true)
		}
	})
}

// maxF32 writes maxima; FMAX gives NaN when either operand is.
func (a *arm) maxF32() {
	a.begin("maxF32NEON", "tileArgs")
	a.rows([]int{6, 1}, offRows, offSRow, func(n int) {
		a.dupBits(0xff800000, 0)
		for r := 1; r < 4*n; r++ {
			a.mov(0, r)
		}
		a.taps(func() {
			for i := 0; i < n; i++ {
				a.ld4(10, 24+4*(i%2), false)
				for q := 0; q < 4; q++ {
					a.fmax(24+4*(i%2)+q, 4*i+q, 4*i+q)
				}
				if i < n-1 {
					a.f("ADD R8, R10, R10")
				}
			}
		})
		for i := 0; i < n; i++ {
			a.four("VST1", 21, 4*i, true)
		}
	})
}

// max8 writes maxima of bytes.
func (a *arm) max8(name string, op func(m, n, d int)) {
	a.begin(name, "tileArgsI8")
	a.rows([]int{8, 1}, offRows8, offSRow8, func(n int) {
		load := func(v func(i int) int) {
			for i := 0; i < n; i++ {
				a.f("VLD1 (R10), [V%d.B16]", v(i))
				if i < n-1 {
					a.f("ADD R8, R10, R10")
				}
			}
		}
		a.f("MOVD %d(R0), R4", offTaps)
		a.f("MOVD (R4), R10")
		a.f("ADD R9, R10, R10")
		load(func(i int) int { return i })
		a.taps(func() {
			load(func(i int) int { return 8 + i })
			for i := 0; i < n; i++ {
				op(8+i, i, i)
			}
		})
		for i := 0; i < n; i++ {
			a.f("VST1.P [V%d.B16], 16(R21)", i)
		}
	})
}

// dwI8 computes rows of an int8 depthwise convolution: the bytes of a tap are
// widened to 16 bits and multiplied into 32-bit sums. The weights of four taps
// lie together for each channel, [16][4], which LD4 takes apart.
func (a *arm) dwI8() {
	a.begin("dwI8NEON", "tileArgsI8")
	a.rows([]int{4, 1}, offRows8, offSRow8, func(n int) {
		a.f("MOVD %d(R0), R1", offCorr)
		for i := 0; i < n; i++ {
			a.ld4(1, 4*i, false)
		}
		a.f("MOVD %d(R0), R3", offW)
		a.f("MOVD %d(R0), R4", offTaps)
		a.f("MOVD %d(R0), R5", offNTaps)
		group := a.newLabel("group")
		a.label(group)
		a.f("WORD $%#08x // LD4.16B (R3), V16-V19, 64", uint32(0x4cdf0000|3<<5|16))
		for k := 0; k < 4; k++ {
			a.f("MOVD.P 16(R4), R10")
			a.f("ADD R9, R10, R10")
			a.sxtl8(16+k, 20)
			a.sxtl8hi(16+k, 21)
			for i := 0; i < n; i++ {
				v := 22 + 3*(i%3)
				a.f("VLD1 (R10), [V%d.B16]", v)
				a.uxtl8(v, v+1)
				a.uxtl8hi(v, v+2)
				a.smlal(20, v+1, 4*i)
				a.smlal2(20, v+1, 4*i+1)
				a.smlal(21, v+2, 4*i+2)
				a.smlal2(21, v+2, 4*i+3)
				if i < n-1 {
					a.f("ADD R8, R10, R10")
				}
			}
		}
		a.f("SUBS $1, R5, R5")
		a.f("BNE %s", group)
		raw, stored := a.newLabel("raw"), a.newLabel("stored")
		a.f("MOVD %d(R0), R2", offOut)
		a.f("CBZ R2, %s", raw)
		a.f("MOVD %d(R0), R1", offScale8)
		a.ld4(1, 20, false)
		a.f("MOVD %d(R0), R1", offBias8)
		a.ld4(1, 24, false)
		a.dup(offLo, 28)
		a.dup(offHi, 29)
		for r := 0; r < 4*n; r++ {
			a.scvtf(r, r)
			a.fmul(20+r%4, r, r)
			a.fadd(24+r%4, r, r)
			a.fmax(28, r, r)
			a.fmin(29, r, r)
		}
		a.packSetup()
		for i := 0; i < n; i++ {
			a.pack(4 * i)
			a.f("VST1.P [V26.B16], 16(R21)")
		}
		a.f("B %s", stored)
		a.label(raw)
		for i := 0; i < n; i++ {
			a.four("VST1", 21, 4*i, true)
		}
		a.label(stored)
	})
}

// packSetup loads what pack needs: the zero point into V20 and, where the
// stored bytes are signed, 128 into V21, else 0.
func (a *arm) packSetup() {
	a.dup(offQZero, 20)
	a.f("MOVWU %d(R0), R2", offQZero)
	a.f("MOVWU %d(R0), R3", offQAdd)
	a.f("SUB R3, R2, R2")
	a.f("VDUP R2, V21.B16")
}

// pack turns the 16 values in units of the output scale in v..v+3 into bytes in
// V26; V24 and V25 are scratch.
func (a *arm) pack(v int) {
	for q := 0; q < 4; q++ {
		a.fcvtns(v+q, v+q)
		a.add(20, v+q, v+q)
	}
	a.sqxtn(v, 24)
	a.sqxtn2(v+1, 24)
	a.sqxtn(v+2, 25)
	a.sqxtn2(v+3, 25)
	a.sqxtun(24, 26)
	a.sqxtun2(25, 26)
	a.eor(21, 26, 26)
}
