package main

import "math"

// Exponentials and conversions of arm64: loops over 16 floats, a quarter of
// them in each of four registers.
//
//	0-3    x: argument and result
//	4-15   scratch: n, p and t of exp
//	16-27  constants of exp (expConsts)
//	28-31  h: a copy of the argument
//
// Constants beyond these are made in the loop, in scratch registers.

const (
	mX = 0
	mN = 4
	mP = 8
	mT = 12
	mH = 28

	kLo, kHi, kLog2E, kLn2Hi, kLn2Lo, kPoly, kOne = 16, 17, 18, 19, 20, 21, 27
)

// expConsts are the constants of exp in registers 16 to 27: its range, the
// reduction and the polynomial of Cephes' expf, and 1.
var expConsts = append(append([]float64{-104, 88.8, math.Log2E, -0.693359375, 2.12194440e-4}, expPoly...), 1)

func (a *arm) expSetup() {
	for i, c := range expConsts {
		a.konst(c, kLo+i)
	}
}

// konst makes four copies of c.
func (a *arm) konst(c float64, v int) { a.dupBits(math.Float32bits(float32(c)), v) }

// q4 emits f for each quarter.
func q4(f func(q int)) {
	for q := 0; q < 4; q++ {
		f(q)
	}
}

// horner evaluates the polynomial with the given coefficients, highest first,
// of the registers at z, in the registers at acc with those at tmp as scratch,
// and returns where the result is. A coefficient is a register below 32, or a
// constant that is made.
func (a *arm) horner(z, acc, tmp int, coef func(i, v int), n int) int {
	coef(0, acc)
	for i := 1; i < n; i++ {
		coef(i, tmp)
		q4(func(q int) { a.fmla(acc+q, z+q, tmp+q) })
		acc, tmp = tmp, acc
	}
	return acc
}

// made returns coefficients that are made where they are needed.
func (a *arm) made(cs []float64) func(i, v int) {
	return func(i, v int) {
		a.konst(cs[i], v)
		for q := 1; q < 4; q++ {
			a.f("VDUP R2, V%d.S4", v+q)
		}
	}
}

// expParts turns x into p with exp = 2^n (1 + p): n is in the registers at mN,
// rounded. The argument must be in a range where 2^n makes sense.
func (a *arm) expParts() {
	q4(func(q int) { a.fmul(kLog2E, mX+q, mN+q) })
	q4(func(q int) { a.frintn(mN+q, mN+q) })
	q4(func(q int) { a.fmla(kLn2Hi, mN+q, mX+q) })
	q4(func(q int) { a.fmla(kLn2Lo, mN+q, mX+q) })
	p := a.horner(mX, mP, mT, func(i, v int) { q4(func(q int) { a.mov(kPoly+i, v+q) }) }, 6)
	t := mP + mT - p
	q4(func(q int) { a.fmul(mX+q, mX+q, t+q) })
	q4(func(q int) { a.fmla(p+q, t+q, mX+q) })
}

// exp replaces x by exp(x), with the argument held in [-104, 88.8], where the
// result leaves float32. 2^n comes in two factors, so that the subnormal and
// the largest results are met.
func (a *arm) exp() {
	q4(func(q int) { a.fmax(kLo, mX+q, mX+q); a.fmin(kHi, mX+q, mX+q) })
	a.expParts()
	q4(func(q int) { a.fadd(kOne, mX+q, mX+q) })
	q4(func(q int) {
		a.fcvtns(mN+q, mN+q)
		a.sshr1(mN+q, mT+q)
		a.sub(mT+q, mN+q, mN+q)
	})
	for _, e := range []int{mT, mN} {
		q4(func(q int) {
			a.shl23(e+q, e+q)
			a.add(kOne, e+q, e+q)
			a.fmul(e+q, mX+q, mX+q)
		})
	}
}

// keep copies the argument to h.
func (a *arm) keep() { q4(func(q int) { a.mov(mX+q, mH+q) }) }

// sigmoid replaces x by its sigmoid.
func (a *arm) sigmoid() {
	q4(func(q int) { a.fneg(mX+q, mX+q) })
	a.exp()
	q4(func(q int) { a.fadd(kOne, mX+q, mX+q) })
	q4(func(q int) { a.fdiv(mX+q, kOne, mX+q) })
}

// holdBelow holds h above lo, with a scratch register: where a factor of the
// sigmoid is 0 it must not be infinite.
func (a *arm) holdBelow(lo float64) {
	a.konst(lo, mT)
	q4(func(q int) { a.fmax(mT, mH+q, mH+q) })
}

// mathOps writes the functions built on exp and the conversions, and returns
// their names.
func (a *arm) mathOps() []string {
	var ops []string
	add := func(op string, params int, setup, body func()) {
		ops = append(ops, op)
		a.vec(op, false, params, setup, body)
	}
	add("Exp", 0, a.expSetup, a.exp)
	add("Sigmoid", 0, a.expSetup, a.sigmoid)
	add("Silu", 0, a.expSetup, func() {
		a.keep()
		a.holdBelow(-128)
		a.sigmoid()
		q4(func(q int) { a.fmul(mH+q, mX+q, mX+q) })
	})
	// x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))
	add("GeluTanh", 0, a.expSetup, func() {
		a.keep()
		a.holdBelow(-128)
		a.konst(geluTanhConsts[1], mP)
		q4(func(q int) { a.fmul(mX+q, mX+q, mT+q) })
		a.made(geluTanhConsts[:1])(0, mN)
		q4(func(q int) { a.fmla(mP, mT+q, mN+q) })
		q4(func(q int) { a.fmul(mN+q, mX+q, mX+q) })
		a.sigmoid()
		q4(func(q int) { a.fmul(mH+q, mX+q, mX+q) })
	})
	// 1 - 2/(exp(2|x|) + 1) with the sign put back; below 0.625 the odd
	// polynomial of Cephes tanhf.
	add("Tanh", 0, a.expSetup, func() {
		a.keep()
		q4(func(q int) { a.fabs(mX+q, mX+q); a.fadd(mX+q, mX+q, mX+q) })
		a.exp()
		a.konst(2, mT)
		a.dupBits(0x80000000, mT+1)
		q4(func(q int) {
			a.fadd(kOne, mX+q, mX+q)
			a.fdiv(mX+q, mT, mX+q)
			a.fsub(mX+q, kOne, mX+q)
			a.bit(mT+1, mH+q, mX+q)
		})
		q4(func(q int) { a.fmul(mH+q, mH+q, mN+q) })
		p := a.horner(mN, mP, mT, a.made(tanhPoly), len(tanhPoly))
		t := mP + mT - p
		q4(func(q int) { a.fmul(mN+q, p+q, p+q) })
		a.konst(0.625, mN)
		q4(func(q int) {
			a.facgt(mH+q, mN, t+q) // 0.625 > |x|
			a.fmla(mH+q, p+q, mH+q)
			a.bit(t+q, mH+q, mX+q)
		})
	})
	// A*(exp(x) - 1) below 0: 2^n p + (2^n - 1) loses nothing near 0. From -87
	// down the result is -A.
	add("Elu", 0, func() {
		a.expSetup()
		a.konst(-87, kLo)
		a.dup(vP, kHi)
	}, func() {
		a.keep()
		q4(func(q int) { a.fmax(kLo, mX+q, mX+q) })
		a.expParts()
		q4(func(q int) {
			a.fcvtns(mN+q, mN+q)
			a.shl23(mN+q, mN+q)
			a.add(kOne, mN+q, mN+q)
			a.fsub(kOne, mN+q, mT+q)
			a.fmla(mN+q, mX+q, mT+q)
			a.fmul(kHi, mT+q, mX+q)
			a.fcmlt0(mH+q, mT+q)
			a.bif(mT+q, mH+q, mX+q)
		})
	})
	// x/2 * erfc(-x/sqrt 2), with erfc(-z) = 2 - erfc(z).
	add("Gelu", 0, a.expSetup, func() {
		a.keep()
		reciprocal := func(dst int) { // t of h
			a.konst(math.Sqrt2/4, dst)
			for q := 3; q >= 0; q-- {
				a.fabs(mH+q, mX+q)
				a.fmul(dst, mX+q, mX+q)
				a.fadd(kOne, mX+q, mX+q)
				a.fdiv(mX+q, kOne, dst+q)
			}
		}
		reciprocal(mN)
		p := a.horner(mN, mP, mT, a.made(erfcPoly), len(erfcPoly))
		a.konst(math.Sqrt2/2, mN)
		q4(func(q int) {
			a.fmul(mN, mH+q, mX+q)
			a.fmls(mX+q, mX+q, p+q)
			a.mov(p+q, mX+q)
		})
		a.exp()
		q4(func(q int) { a.mov(mX+q, mP+q) })
		reciprocal(mN)
		// The factor x/2 is held within 64, where erfc is 0, for the infinities.
		a.konst(0.5, mT)
		a.konst(-64, mT+1)
		a.konst(64, mT+2)
		q4(func(q int) {
			a.fmul(mN+q, mP+q, mP+q) // erfc(|x|/sqrt 2)
			a.fmul(mT, mH+q, mX+q)
			a.fmax(mT+1, mX+q, mX+q)
			a.fmin(mT+2, mX+q, mX+q)
			a.fmul(mP+q, mX+q, mX+q)
			a.fsub(mX+q, mH+q, mH+q) // x - x/2*erfc
		})
		// h is at least 0 just where x is.
		q4(func(q int) { a.fcmge0(mH+q, mT+q); a.bit(mT+q, mH+q, mX+q) })
	})
	// exp(x - p0), summed lane by lane into 16 floats at b.
	ops = append(ops, "ExpSum")
	a.loop("ExpSum", func() {
		a.expSetup()
		a.f("MOVWU %d(R0), R6", vP)
		q4(func(q int) { a.zero(mH + q) })
	}, func() {
		a.ld4(3, mX, true)
		a.f("VDUP R6, V%d.S4", mT)
		q4(func(q int) { a.fsub(mT, mX+q, mX+q) })
		a.exp()
		q4(func(q int) { a.fadd(mX+q, mH+q, mH+q) })
		a.four("VST1", 1, mX, true)
	}, func() { a.four("VST1", 4, mH, false) })

	a.reductions(&ops)
	a.affine(&ops)
	a.conversions(&ops)
	return ops
}

// reductions fold the input into 16 lanes at dst, or 8 of float64.
func (a *arm) reductions(ops *[]string) {
	*ops = append(*ops, "Max", "Sum", "Sum64", "Var64")
	a.loop("Max", func() { q4(func(q int) { a.dupBits(0xff800000, 16+q) }) }, func() {
		a.ld4(3, 0, true)
		q4(func(q int) { a.fmax(q, 16+q, 16+q) })
	}, func() { a.four("VST1", 1, 16, false) })
	a.loop("Sum", func() { q4(func(q int) { a.zero(16 + q) }) }, func() {
		a.ld4(3, 0, true)
		q4(func(q int) { a.fadd(q, 16+q, 16+q) })
	}, func() { a.four("VST1", 1, 16, false) })
	for _, square := range []bool{false, true} {
		name := "Sum64"
		if square {
			name = "Var64"
		}
		a.loop(name, func() {
			for r := 16; r < 24; r++ {
				a.zero(r)
			}
			if square {
				a.f("MOVD %d(R0), R2", vP)
				a.f("VDUP R2, V24.D2")
			}
		}, func() {
			a.ld4(3, 0, true)
			q4(func(q int) {
				for h, widen := range []func(n, d int){a.fcvtl2d, a.fcvtl2dHi} {
					x, acc := 4+2*q+h, 16+2*q+h
					widen(q, x)
					if square {
						a.fsub2d(24, x, x)
						a.fmla2d(x, x, acc)
					} else {
						a.fadd2d(x, acc, acc)
					}
				}
			})
		}, func() {
			q4(func(q int) { a.fadd2d(20+q, 16+q, 16+q) })
			a.four("VST1", 1, 16, false)
		})
	}
}

// affine writes the functions with per-element or per-channel factors.
func (a *arm) affine(ops *[]string) {
	*ops = append(*ops, "HardSigmoid", "LeakyRelu", "Affine16", "Norm")
	// min(max(A*x + B, 0), 1)
	a.vec("HardSigmoid", false, 2, func() { a.zero(18); a.konst(1, 19) }, func() {
		q4(func(q int) {
			a.mov(17, 4+q)
			a.fmla(16, q, 4+q)
			a.fmax(18, 4+q, 4+q)
			a.fmin(19, 4+q, q)
		})
	})
	// max(x, 0) + A*min(x, 0)
	a.vec("LeakyRelu", false, 1, func() { a.zero(17) }, func() {
		q4(func(q int) {
			a.fmin(17, q, 4+q)
			a.fmax(17, q, q)
			a.fmla(16, 4+q, q)
		})
	})
	// (x - p0) * b + c, with b and c repeated vectors of 16
	a.vec("Affine16", false, 1, func() {
		a.f("MOVD %d(R0), R6", vC)
		a.ld4(4, 4, false)
		a.ld4(6, 8, false)
	}, func() {
		q4(func(q int) {
			a.fsub(16, q, q)
			a.mov(8+q, 12+q)
			a.fmla(4+q, q, 12+q)
			a.mov(12+q, q)
		})
	})
	// (x - p0) * p1 * b[i] + c[i]
	a.vec("Norm", true, 2, func() { a.f("MOVD %d(R0), R6", vC) }, func() {
		a.ld4(6, 8, true)
		q4(func(q int) {
			a.fsub(16, q, q)
			a.fmul(17, q, q)
			a.fmla(4+q, q, 8+q)
			a.mov(8+q, q)
		})
	})
}

// narrow packs the low bytes of the 16 integers in 0-3 into V6; 4 and 5 are
// scratch.
func (a *arm) narrow() {
	a.xtn16(0, 4)
	a.xtn16hi(1, 4)
	a.xtn16(2, 5)
	a.xtn16hi(3, 5)
	a.xtn8(4, 6)
	a.xtn8hi(5, 6)
}

// conversions writes those between types.
func (a *arm) conversions(ops *[]string) {
	*ops = append(*ops, "ToF16", "FromF16", "Quant", "Dequant")
	a.loop("ToF16", nil, func() {
		a.ld4(3, 0, true)
		for h := 0; h < 2; h++ {
			a.fcvtn(2*h, 4+h)
			a.fcvtn2(2*h+1, 4+h)
		}
		a.f("VST1.P [V4.H8, V5.H8], 32(R1)")
	}, nil)
	a.loop("FromF16", nil, func() {
		a.f("VLD1.P 32(R3), [V4.H8, V5.H8]")
		for h := 0; h < 2; h++ {
			a.fcvtl(4+h, 2*h)
			a.fcvtl2(4+h, 2*h+1)
		}
		a.four("VST1", 1, 0, true)
	}, nil)
	// Parameters: scale, 1/scale, -zero, 255-zero (unsigned domain), the stored
	// zero point as int32. A NaN becomes the zero point.
	a.loop("Quant", func() {
		a.dup(vP, 16)
		a.dup(vP+8, 17)
		a.dup(vP+12, 18)
		a.dup(vP+16, 19)
	}, func() {
		a.ld4(3, 0, true)
		q4(func(q int) {
			a.fdiv(16, q, q)
			a.fmax(17, q, q)
			a.fmin(18, q, q)
			a.fcvtns(q, q)
			a.add(19, q, q)
		})
		a.narrow()
		a.f("VST1.P [V6.B16], 16(R1)")
	}, nil)
	// Parameters: scale, zero (unsigned domain, int32), flip (int32).
	a.loop("Dequant", func() {
		a.dup(vP, 16)
		a.dup(vP+4, 17)
		a.f("MOVWU %d(R0), R2", vP+8)
		a.f("VDUP R2, V18.B16")
	}, func() {
		a.f("VLD1.P 16(R3), [V4.B16]")
		a.eor(18, 4, 4)
		a.uxtl8(4, 5)
		a.uxtl8hi(4, 6)
		a.uxtl16(5, 0)
		a.uxtl16hi(5, 1)
		a.uxtl16(6, 2)
		a.uxtl16hi(6, 3)
		q4(func(q int) {
			a.sub(17, q, q)
			a.scvtf(q, q)
			a.fmul(16, q, q)
		})
		a.four("VST1", 1, 0, true)
	}, nil)
}
