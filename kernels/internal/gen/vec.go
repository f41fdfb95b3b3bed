package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Byte offsets of vecArgs (vec.go).
const (
	vDst = 0
	vA   = 8
	vB   = 16
	vC   = 24
	vN   = 32
	vP   = 40 // six float32 parameters
)

// vec writes flat loops over float32 slices. Lengths are multiples of 16; the
// Go side pads the rest. z says 512-bit registers, else 256-bit with AVX2.
type vec struct {
	*asm
	z     bool
	isa   string
	ops   []string       // generated, in order
	konst map[uint32]Mem // constants in memory, by bits
	k     [4]Op          // operands of expTail
}

// regs returns the vector registers.
func (v *vec) regs() []reg.VecPhysical {
	if v.z {
		return zregs
	}
	return yregs
}

// width returns the bytes of a register.
func (v *vec) width() int {
	if v.z {
		return 64
	}
	return 32
}

// f broadcasts the constant c into register i.
func (v *vec) f(c float64, i int) reg.VecPhysical { return v.bits(math.Float32bits(float32(c)), i) }

func (v *vec) bits(b uint32, i int) reg.VecPhysical {
	r := v.regs()[i]
	v.MOVL(U32(b), reg.EAX)
	v.VMOVD(reg.EAX, xregs[i])
	v.VPBROADCASTD(xregs[i], r)
	return r
}

// param broadcasts parameter k into register i.
func (v *vec) param(k, i int) reg.VecPhysical {
	r := v.regs()[i]
	v.VBROADCASTSS(mem(rT, vP+4*k), r)
	return r
}

// loop emits function name: setup once, then body for every register of input.
// Register 0 holds the element of a; body leaves the result in register 0.
func (v *vec) loop(op string, setup, body func()) {
	v.start(op)
	if setup != nil {
		setup()
	}
	v.Label("loop")
	v.VMOVUPS(mem(reg.RSI, 0), v.regs()[0])
	body()
	v.VMOVUPS(v.regs()[0], mem(reg.RDI, 0))
	v.step(reg.RSI, reg.RDI)
	v.VZEROUPPER()
	v.RET()
}

// start begins function op with a in RSI, b in RDX, c in R8, dst in RDI and the
// number of registers of input in RCX.
func (v *vec) start(op string) {
	v.ops = append(v.ops, op)
	v.begin("vec"+op+v.isa, "vecArgs", rT)
	v.MOVQ(mem(rT, vDst), reg.RDI)
	v.MOVQ(mem(rT, vA), reg.RSI)
	v.MOVQ(mem(rT, vB), reg.RDX)
	v.MOVQ(mem(rT, vC), reg.R8)
	v.MOVQ(mem(rT, vN), reg.RCX)
	shift := 3
	if v.z {
		shift = 4
	}
	v.SHRQ(Imm(uint64(shift)), reg.RCX)
}

// step ends the loop, advancing the pointers by one register.
func (v *vec) step(ptrs ...reg.GPPhysical) {
	for _, p := range ptrs {
		v.ADDQ(imm(v.width()), p)
	}
	v.DECQ(reg.RCX)
	v.JNZ(LabelRef("loop"))
}

// binary emits op over a and b, over a and a scalar, and over a and a repeated
// vector of 16.
func (v *vec) binary(op string, f func(a, b, dst Op)) {
	r := v.regs()
	v.start(op)
	v.Label("loop")
	v.VMOVUPS(mem(reg.RSI, 0), r[0])
	v.VMOVUPS(mem(reg.RDX, 0), r[1])
	f(r[0], r[1], r[0])
	v.VMOVUPS(r[0], mem(reg.RDI, 0))
	v.step(reg.RSI, reg.RDX, reg.RDI)
	v.VZEROUPPER()
	v.RET()

	v.loop(op+"S", func() { v.param(0, 1) }, func() { f(r[0], r[1], r[0]) })

	v.start(op + "16")
	per := 64 / v.width()
	for i := 0; i < per; i++ {
		v.VMOVUPS(mem(reg.RDX, i*v.width()), r[1+i])
	}
	if per == 2 {
		v.SHRQ(Imm(1), reg.RCX)
	}
	v.Label("loop")
	for i := 0; i < per; i++ {
		v.VMOVUPS(mem(reg.RSI, i*v.width()), r[4])
		f(r[4], r[1+i], r[4])
		v.VMOVUPS(r[4], mem(reg.RDI, i*v.width()))
	}
	v.ADDQ(imm(64), reg.RSI)
	v.ADDQ(imm(64), reg.RDI)
	v.DECQ(reg.RCX)
	v.JNZ(LabelRef("loop"))
	v.VZEROUPPER()
	v.RET()
}

// round rounds register x to an integer, half to even, into dst.
func (v *vec) round(x, dst reg.VecPhysical) {
	if v.z {
		v.VRNDSCALEPS(Imm(8), x, dst)
	} else {
		v.VROUNDPS(Imm(8), x, dst)
	}
}

// Registers of exp: constants live in 8.. (see expSetup).
const expBase = 8

// expSetup loads the constants of exp into registers 8 to 15 (AVX2 has 16, so
// the polynomial's later coefficients come from memory there).
func (v *vec) expSetup() {
	v.f(-104, 8)
	v.f(88.8, 9)
	v.f(math.Log2E, 10)
	v.f(-0.693359375, 11)  // -ln 2, high part (Cephes)
	v.f(2.12194440e-4, 12) // -ln 2, low part
	for i, c := range expPoly[:3] {
		v.f(c, 13+i)
	}
	for i, c := range expTail {
		if v.z {
			v.k[i] = v.f(c, 16+i)
		} else {
			v.k[i] = v.constant(c)
		}
	}
}

// expPoly is (exp(x) - 1 - x)/x^2 for |x| <= ln2/2 (Cephes expf), highest first.
var expPoly = []float64{1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1}

// expTail are its last coefficients, and 1.
var expTail = append(slices.Clone(expPoly[3:]), 1)

// constant returns 32 bytes of read-only data of c.
func (v *vec) constant(c float64) Mem {
	b := math.Float32bits(float32(c))
	if m, ok := v.konst[b]; ok {
		return m
	}
	m := v.StaticGlobal(fmt.Sprintf("vec%s%08x", v.isa, b))
	v.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := 0; i < 8; i++ {
		v.AddDatum(4*i, U32(b))
	}
	v.konst[b] = m
	return m
}

// exp replaces register x by n and p with exp(x) = 2^n (1 + p); t is scratch.
// Arguments are clamped to [-104, 88.8], where the result leaves float32.
func (v *vec) expParts(x, n, p, t reg.VecPhysical) {
	r := v.regs()
	v.VMAXPS(x, r[8], x)
	v.VMINPS(x, r[9], x)
	v.VMULPS(x, r[10], n)
	v.round(n, n)
	v.VFMADD231PS(n, r[11], x)
	v.VFMADD231PS(n, r[12], x)
	v.VMOVAPS(r[13], p)
	v.VFMADD213PS(r[14], x, p)
	v.VFMADD213PS(r[15], x, p)
	v.VFMADD213PS(v.k[0], x, p)
	v.VFMADD213PS(v.k[1], x, p)
	v.VFMADD213PS(v.k[2], x, p)
	v.VMULPS(x, x, t)
	v.VFMADD213PS(x, t, p)
}

// exp replaces x by exp(x); n, p, t are scratch.
func (v *vec) exp(x, n, p, t reg.VecPhysical) {
	v.expParts(x, n, p, t)
	v.VADDPS(v.k[3], p, p)
	if v.z {
		v.VSCALEFPS(n, p, x)
		return
	}
	// 2^n in two factors, so that the subnormal and the largest results are met.
	v.VCVTPS2DQ(n, n)
	v.VPSRAD(Imm(1), n, t)
	v.VPSUBD(t, n, n)
	for _, e := range []reg.VecPhysical{t, n} {
		v.VPSLLD(Imm(23), e, e)
		v.VPADDD(v.constant(1), e, e)
		v.VMULPS(e, p, p)
	}
	v.VMOVAPS(p, x)
}

// genVec writes the flat kernels.
func genVecAVX512(a *asm) {
	v := &vec{asm: a, z: true, isa: "AVX512", konst: map[uint32]Mem{}}
	for _, cs := range [][]float64{expPoly, erfcPoly, {math.Sqrt2 / 2, 0.5, math.Log2E, -0.693359375, 2.12194440e-4}} {
		for _, c := range cs {
			v.constant(c) // data must precede the functions
		}
	}
	v.simple()
	v.exponential()
	v.transcendental()
	v.convert512()
	a.extra = append(a.extra, v.dispatch())
}

// genVecAVX2 writes the flat kernels for 256-bit registers, of which there are
// 16: what does not fit is read from memory where it is used.
func genVecAVX2(a *asm) {
	v := &vec{asm: a, isa: "AVX2", konst: map[uint32]Mem{}}
	for _, cs := range [][]float64{expTail, {math.Copysign(0, -1)}, geluTanhConsts, tanhPoly, {2, 0.625, 0.5, math.Sqrt2 / 2, -64, 64, -128}, erfcPoly} {
		for _, c := range cs {
			v.constant(c) // data must precede the functions
		}
	}
	v.simple()
	v.exponential()
	v.transcendental256()
	v.convert256()
	a.extra = append(a.extra, v.dispatch())
}

func (v *vec) simple() {
	r := v.regs()
	v.binary("Add", func(a, b, d Op) { v.VADDPS(b, a, d) })
	v.binary("Sub", func(a, b, d Op) { v.VSUBPS(b, a, d) })
	v.binary("Mul", func(a, b, d Op) { v.VMULPS(b, a, d) })
	v.binary("Div", func(a, b, d Op) { v.VDIVPS(b, a, d) })
	v.loop("Clip", func() { v.param(0, 1); v.param(1, 2) }, func() {
		v.VMAXPS(r[0], r[1], r[0])
		v.VMINPS(r[0], r[2], r[0])
	})
	// min(max(A*x + B, 0), 1)
	v.loop("HardSigmoid", func() { v.param(0, 1); v.param(1, 2); v.f(0, 3); v.f(1, 4) }, func() {
		v.VFMADD213PS(r[2], r[1], r[0])
		v.VMAXPS(r[0], r[3], r[0])
		v.VMINPS(r[0], r[4], r[0])
	})
	// x * min(max(x/6 + 1/2, 0), 1)
	v.loop("HardSwish", func() { v.f(1.0/6, 1); v.f(0.5, 2); v.f(0, 3); v.f(1, 4) }, func() {
		v.VMOVAPS(r[2], r[5])
		v.VFMADD231PS(r[1], r[0], r[5])
		v.VMAXPS(r[5], r[3], r[5])
		v.VMINPS(r[5], r[4], r[5])
		v.VMULPS(r[5], r[0], r[0])
	})
	// max(x, 0) + A*min(x, 0)
	v.loop("LeakyRelu", func() { v.param(0, 1); v.f(0, 3) }, func() {
		v.VMINPS(r[0], r[3], r[2])
		v.VMAXPS(r[0], r[3], r[0])
		v.VFMADD231PS(r[2], r[1], r[0])
	})
	// (x - p0) * b + c, with b and c repeated vectors of 16
	v.start("Affine16")
	per := 64 / v.width()
	v.param(0, 0)
	for i := 0; i < per; i++ {
		v.VMOVUPS(mem(reg.RDX, i*v.width()), r[1+i])
		v.VMOVUPS(mem(reg.R8, i*v.width()), r[3+i])
	}
	if per == 2 {
		v.SHRQ(Imm(1), reg.RCX)
	}
	v.Label("loop")
	for i := 0; i < per; i++ {
		v.VMOVUPS(mem(reg.RSI, i*v.width()), r[5])
		v.VSUBPS(r[0], r[5], r[5])
		v.VFMADD213PS(r[3+i], r[1+i], r[5])
		v.VMOVUPS(r[5], mem(reg.RDI, i*v.width()))
	}
	v.ADDQ(imm(64), reg.RSI)
	v.ADDQ(imm(64), reg.RDI)
	v.DECQ(reg.RCX)
	v.JNZ(LabelRef("loop"))
	v.VZEROUPPER()
	v.RET()
	// (x - p0) * p1 * b[i] + c[i]
	v.start("Norm")
	v.param(0, 1)
	v.param(1, 2)
	v.Label("loop")
	v.VMOVUPS(mem(reg.RSI, 0), r[0])
	v.VSUBPS(r[1], r[0], r[0])
	v.VMULPS(r[2], r[0], r[0])
	v.VMOVUPS(mem(reg.RDX, 0), r[3])
	v.VFMADD213PS(mem(reg.R8, 0), r[3], r[0])
	v.VMOVUPS(r[0], mem(reg.RDI, 0))
	v.step(reg.RSI, reg.RDX, reg.R8, reg.RDI)
	v.VZEROUPPER()
	v.RET()
	// x * p0 + p1
	v.loop("MulAdd", func() { v.param(0, 1); v.param(1, 2) }, func() { v.VFMADD213PS(r[2], r[1], r[0]) })
	// Lane-wise maximum, 16 partial results at dst.
	v.reduce("Max", func() { v.bits(math.Float32bits(float32(math.Inf(-1))), 1); v.VMOVAPS(r[1], r[2]) }, func(x, acc reg.VecPhysical) {
		v.VMAXPS(x, acc, acc)
	})
	// Lane-wise float32 sums, 16 partial results at dst.
	v.reduce("Sum", func() { v.f(0, 1); v.f(0, 2) }, func(x, acc reg.VecPhysical) { v.VADDPS(x, acc, acc) })
}

// reduce folds the input into 16 lanes, in order.
func (v *vec) reduce(op string, setup func(), f func(x, acc reg.VecPhysical)) {
	r := v.regs()
	v.start(op)
	setup()
	per := 64 / v.width()
	if per == 2 {
		v.SHRQ(Imm(1), reg.RCX)
	}
	v.Label("loop")
	for i := 0; i < per; i++ {
		v.VMOVUPS(mem(reg.RSI, i*v.width()), r[0])
		f(r[0], r[1+i])
	}
	v.ADDQ(imm(64), reg.RSI)
	v.DECQ(reg.RCX)
	v.JNZ(LabelRef("loop"))
	for i := 0; i < per; i++ {
		v.VMOVUPS(r[1+i], mem(reg.RDI, i*v.width()))
	}
	v.VZEROUPPER()
	v.RET()
}

// exponential writes exp and the functions that need little more.
func (v *vec) exponential() {
	r := v.regs()
	x, n, p, t := r[0], r[1], r[2], r[3]
	v.loop("Exp", v.expSetup, func() { v.exp(x, n, p, t) })
	// exp(x - p0), summed lane by lane into 16 floats at b.
	v.start("ExpSum")
	v.expSetup()
	v.param(0, 4)
	per := 64 / v.width()
	for i := 0; i < per; i++ {
		v.f(0, 5+i)
	}
	if per == 2 {
		v.SHRQ(Imm(1), reg.RCX)
	}
	v.Label("loop")
	for i := 0; i < per; i++ {
		v.VMOVUPS(mem(reg.RSI, i*v.width()), x)
		v.VSUBPS(r[4], x, x)
		v.exp(x, n, p, t)
		v.VADDPS(x, r[5+i], r[5+i])
		v.VMOVUPS(x, mem(reg.RDI, i*v.width()))
	}
	v.ADDQ(imm(64), reg.RSI)
	v.ADDQ(imm(64), reg.RDI)
	v.DECQ(reg.RCX)
	v.JNZ(LabelRef("loop"))
	for i := 0; i < per; i++ {
		v.VMOVUPS(r[5+i], mem(reg.RDX, i*v.width()))
	}
	v.VZEROUPPER()
	v.RET()
	if v.z {
		v.sigmoid512("Sigmoid", false)
		v.sigmoid512("Silu", true)
		return
	}
	v.loop("Sigmoid", v.sigmoidSetup, func() {
		v.VMOVAPS(x, r[4])
		v.sigmoid()
		v.VMOVAPS(r[4], x)
	})
	// Below -128 the sigmoid is 0: the factor is held there so that -inf gives 0.
	v.loop("Silu", func() { v.sigmoidSetup(); v.f(-128, 6) }, func() {
		v.VMOVAPS(x, r[4])
		v.VMAXPS(x, r[6], r[5])
		v.sigmoid()
		v.VMULPS(r[4], r[5], x)
	})
}

// sigmoidPoly is exp(-x) on [-ln2/2, ln2/2] interpolated at Chebyshev nodes,
// relative error 2e-8; the first two coefficients are 1 and -1.
var sigmoidPoly = []float64{0.001394116086885333, -0.008375167846679688, 0.04166635125875473, -0.16666415333747864, 0.5, -1, 1}

func (v *vec) sigmoid512Setup() {
	v.f(-87, 8)
	v.f(88, 9)
	v.f(-math.Log2E, 10)
	v.f(0.693359375, 11)
	v.f(-2.12194440e-4, 12)
	for i, c := range sigmoidPoly {
		v.f(c, 13+i)
	}
}

// sigmoid512 writes the sigmoid, or with times its product with the argument,
// four vectors at a time: their chains of some twenty dependent instructions
// then fill the multipliers. Within [-87, 88] exp(-x) is finite, so one step of
// Newton's iteration makes the reciprocal whole; beyond, the sigmoid is 2e-38,
// or 1.
func (v *vec) sigmoid512(op string, times bool) {
	r := v.regs()
	one := r[13+len(sigmoidPoly)-1]
	// Registers of a vector: x, n, p, y, the argument held above -87.
	sets := [][5]int{{0, 1, 2, 3, 4}, {5, 6, 7, 20, 21}, {22, 23, 24, 25, 26}, {27, 28, 29, 30, 31}}
	body := func(k int) {
		each := func(f func(x, n, p, y, h reg.VecPhysical)) {
			for _, s := range sets[:k] {
				f(r[s[0]], r[s[1]], r[s[2]], r[s[3]], r[s[4]])
			}
		}
		for i, s := range sets[:k] {
			v.VMOVUPS(mem(reg.RSI, 64*i), r[s[0]])
		}
		each(func(x, _, _, _, h reg.VecPhysical) { v.VMAXPS(x, r[8], h) })
		each(func(x, _, _, _, h reg.VecPhysical) { v.VMINPS(h, r[9], x) })
		each(func(x, n, _, _, _ reg.VecPhysical) { v.VMULPS(r[10], x, n) })
		each(func(_, n, _, _, _ reg.VecPhysical) { v.round(n, n) })
		// x + n ln2: minus what is left of -x.
		each(func(x, n, _, _, _ reg.VecPhysical) { v.VFMADD231PS(n, r[11], x) })
		each(func(x, n, _, _, _ reg.VecPhysical) { v.VFMADD231PS(n, r[12], x) })
		each(func(_, _, p, _, _ reg.VecPhysical) { v.VMOVAPS(r[13], p) })
		for i := 1; i < len(sigmoidPoly); i++ {
			each(func(x, _, p, _, _ reg.VecPhysical) { v.VFMADD213PS(r[13+i], x, p) })
		}
		each(func(_, n, p, _, _ reg.VecPhysical) { v.VSCALEFPS(n, p, p) })
		each(func(_, _, p, _, _ reg.VecPhysical) { v.VADDPS(one, p, p) })
		each(func(_, _, p, y, _ reg.VecPhysical) { v.VRCP14PS(p, y) })
		each(func(_, _, p, y, _ reg.VecPhysical) { v.VFNMADD213PS(one, y, p) }) // 1 - d*y
		each(func(_, _, p, y, _ reg.VecPhysical) { v.VFMADD213PS(y, y, p) })    // y + y*(1 - d*y)
		if times {
			each(func(_, _, p, _, h reg.VecPhysical) { v.VMULPS(h, p, p) })
		}
		for i, s := range sets[:k] {
			v.VMOVUPS(r[s[2]], mem(reg.RDI, 64*i))
		}
		v.ADDQ(imm(64*k), reg.RSI)
		v.ADDQ(imm(64*k), reg.RDI)
	}
	v.start(op)
	v.sigmoid512Setup()
	v.byFour(body)
}

func (v *vec) sigmoidSetup() {
	v.expSetup()
	v.bits(0x80000000, 7)
}

// sigmoid replaces register 4 by its sigmoid; 0 to 3 are scratch, 7 holds the
// sign.
func (v *vec) sigmoid() {
	r := v.regs()
	v.VXORPS(r[7], r[4], r[0])
	v.exp(r[0], r[1], r[2], r[3])
	v.VADDPS(v.k[3], r[0], r[0])
	if v.z {
		v.VDIVPS(r[0], r[19], r[4])
	} else {
		v.VMOVUPS(v.k[3], r[4])
		v.VDIVPS(r[0], r[4], r[4])
	}
}

// geluTanhConsts are the factors of x and x^3 in the sigmoid's argument.
var geluTanhConsts = []float64{2 * math.Sqrt(2/math.Pi), 2 * math.Sqrt(2/math.Pi) * 0.044715}

// tanhPoly is the odd polynomial of Cephes tanhf below 0.625, highest first.
var tanhPoly = []float64{-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1}

// erfcPoly is P of erfc(z) = t exp(-z^2 + P(t)), t = 1/(1 + z/2), fractional
// error 1.2e-7 for z >= 0 (Numerical Recipes, erfcc).
var erfcPoly = []float64{0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223}

// transcendental writes the functions for 32 registers.
func (v *vec) transcendental() {
	r := v.regs()
	x, n, p, t := r[0], r[1], r[2], r[3]
	neg := func() { v.expSetup(); v.bits(0x80000000, 20) }
	v.loop("GeluTanh", func() {
		v.sigmoidSetup()
		v.f(geluTanhConsts[0], 21)
		v.f(geluTanhConsts[1], 22)
		v.f(-128, 23)
	}, func() {
		v.VMAXPS(x, r[23], r[5])
		v.VMULPS(x, x, r[4])
		v.VFMADD213PS(r[21], r[22], r[4])
		v.VMULPS(x, r[4], r[4])
		v.sigmoid()
		v.VMULPS(r[4], r[5], x)
	})
	// tanh: 1 - 2/(exp(2|x|) + 1) with the sign put back; below 0.625 the odd
	// polynomial of Cephes tanhf.
	v.loop("Tanh", func() {
		neg()
		v.f(0.625, 21)
		for i, c := range tanhPoly {
			v.f(c, 22+i)
		}
		v.f(2, 27)
	}, func() {
		v.VMOVAPS(x, r[5])
		v.VANDPS(x, r[20], r[6]) // sign
		v.VXORPS(x, r[6], x)     // magnitude
		v.VMOVAPS(x, r[7])
		v.VADDPS(x, x, x)
		v.exp(x, n, p, t)
		v.VADDPS(r[19], x, x)
		v.VDIVPS(x, r[27], x)
		v.VSUBPS(x, r[19], x)
		v.VXORPS(r[6], x, x)
		v.VMULPS(r[5], r[5], t)
		v.VMOVAPS(r[22], p)
		v.VFMADD213PS(r[23], t, p)
		v.VFMADD213PS(r[24], t, p)
		v.VFMADD213PS(r[25], t, p)
		v.VFMADD213PS(r[26], t, p)
		v.VMULPS(t, p, p)
		v.VFMADD213PS(r[5], r[5], p)
		v.VCMPPS(Imm(0x11), r[21], r[7], reg.K1) // magnitude < 0.625
		v.VMOVAPS(p, reg.K1, x)
	})
	// A*(exp(x) - 1) below 0: 2^n p + (2^n - 1) loses nothing near 0.
	v.loop("Elu", func() { v.expSetup(); v.param(0, 20); v.f(0, 21) }, func() {
		v.VMOVAPS(x, r[4])
		v.expParts(x, n, p, t)
		v.VSCALEFPS(n, p, p)
		v.VSCALEFPS(n, r[19], t)
		v.VSUBPS(r[19], t, t)
		v.VADDPS(t, p, p)
		v.VMULPS(r[20], p, x)
		v.VCMPPS(Imm(0x15), r[21], r[4], reg.K1) // not less than 0
		v.VMOVAPS(r[4], reg.K1, x)
	})
	v.gelu512()
}

// gelu512 writes x/2 * erfc(-x/sqrt 2), with erfc(-z) = 2 - erfc(z), four vectors
// at a time as sigmoid512 does. Most constants are broadcast from memory where
// they are used.
func (v *vec) gelu512() {
	r, k := v.regs(), v.constant
	sign, one, low, zero, lo64, hi64 := r[24], r[25], r[26], r[27], r[28], r[29]
	masks := []reg.OpmaskPhysical{reg.K1, reg.K2, reg.K3, reg.K4}
	body := func(sets int) {
		// Registers of a vector: argument, x, n, p, t, T = 1/(1 + z/2).
		each := func(f func(h, x, n, p, t, rc reg.VecPhysical)) {
			for i := 0; i < sets; i++ {
				f(r[6*i], r[6*i+1], r[6*i+2], r[6*i+3], r[6*i+4], r[6*i+5])
			}
		}
		horner := func(cs []float64, at func(x, rc reg.VecPhysical) reg.VecPhysical) {
			each(func(_, _, _, p, _, _ reg.VecPhysical) { v.VBROADCASTSS(k(cs[0]), p) })
			for _, c := range cs[1:] {
				each(func(_, x, _, p, _, rc reg.VecPhysical) { v.VFMADD213PS_BCST(k(c), at(x, rc), p) })
			}
		}
		for i := 0; i < sets; i++ {
			v.VMOVUPS(mem(reg.RSI, 64*i), r[6*i])
		}
		each(func(h, x, _, _, _, _ reg.VecPhysical) { v.VANDNPS(h, sign, x) })
		each(func(_, x, _, _, _, _ reg.VecPhysical) { v.VMINPS(x, hi64, x) })                 // beyond, erfc is 0
		each(func(_, x, _, _, _, _ reg.VecPhysical) { v.VMULPS_BCST(k(math.Sqrt2/2), x, x) }) // z
		each(func(_, _, n, _, _, _ reg.VecPhysical) { v.VMOVAPS(one, n) })
		each(func(_, x, n, _, _, _ reg.VecPhysical) { v.VFMADD231PS_BCST(k(0.5), x, n) })
		each(func(_, _, n, _, _, rc reg.VecPhysical) { v.VRCP14PS(n, rc) })
		each(func(_, _, n, _, _, rc reg.VecPhysical) { v.VFNMADD213PS(one, rc, n) }) // 1 - d*y
		each(func(_, _, n, _, _, rc reg.VecPhysical) { v.VFMADD231PS(n, rc, rc) })   // y + y*(1 - d*y)
		horner(erfcPoly, func(_, rc reg.VecPhysical) reg.VecPhysical { return rc })
		each(func(_, x, _, p, _, _ reg.VecPhysical) { v.VFNMADD231PS(x, x, p) })
		each(func(_, x, _, p, _, _ reg.VecPhysical) { v.VMAXPS(p, low, x) })
		each(func(_, x, n, _, _, _ reg.VecPhysical) { v.VMULPS_BCST(k(math.Log2E), x, n) })
		each(func(_, _, n, _, _, _ reg.VecPhysical) { v.round(n, n) })
		each(func(_, x, n, _, _, _ reg.VecPhysical) { v.VFMADD231PS_BCST(k(-0.693359375), n, x) })
		each(func(_, x, n, _, _, _ reg.VecPhysical) { v.VFMADD231PS_BCST(k(2.12194440e-4), n, x) })
		horner(expPoly, func(x, _ reg.VecPhysical) reg.VecPhysical { return x })
		each(func(_, x, _, _, t, _ reg.VecPhysical) { v.VMULPS(x, x, t) })
		each(func(_, x, _, p, t, _ reg.VecPhysical) { v.VFMADD213PS(x, t, p) })
		each(func(_, _, _, p, _, _ reg.VecPhysical) { v.VADDPS(one, p, p) })
		each(func(_, x, n, p, _, _ reg.VecPhysical) { v.VSCALEFPS(n, p, x) })
		each(func(_, x, _, _, _, rc reg.VecPhysical) { v.VMULPS(rc, x, x) }) // erfc(|x|/sqrt 2)
		// x >= 0: x - x/2*erfc; x < 0: x/2*erfc. The factor x/2 is held within 64,
		// where erfc is 0, for the infinities.
		each(func(h, _, _, p, _, _ reg.VecPhysical) { v.VMULPS_BCST(k(0.5), h, p) })
		each(func(_, _, _, p, _, _ reg.VecPhysical) { v.VMAXPS(p, lo64, p) })
		each(func(_, _, _, p, _, _ reg.VecPhysical) { v.VMINPS(p, hi64, p) })
		each(func(_, x, _, p, _, _ reg.VecPhysical) { v.VMULPS(p, x, p) })
		for i := 0; i < sets; i++ {
			v.VCMPPS(Imm(0x15), zero, r[6*i], masks[i]) // not less than 0
		}
		for i := 0; i < sets; i++ {
			v.VSUBPS(r[6*i+3], r[6*i], masks[i], r[6*i+3])
		}
		for i := 0; i < sets; i++ {
			v.VMOVUPS(r[6*i+3], mem(reg.RDI, 64*i))
		}
		v.ADDQ(imm(64*sets), reg.RSI)
		v.ADDQ(imm(64*sets), reg.RDI)
	}
	v.start("Gelu")
	v.bits(0x80000000, 24)
	v.f(1, 25)
	v.f(-104, 26)
	v.f(0, 27)
	v.f(-64, 28)
	v.f(64, 29)
	v.byFour(body)
}

// byFour emits the loop over RCX vectors that body computes by fours and singly.
func (a *asm) byFour(body func(sets int)) {
	a.SUBQ(Imm(4), reg.RCX)
	a.JLT(LabelRef("rest"))
	a.Label("four")
	body(4)
	a.SUBQ(Imm(4), reg.RCX)
	a.JGE(LabelRef("four"))
	a.Label("rest")
	a.ADDQ(Imm(4), reg.RCX)
	a.JZ(LabelRef("end"))
	a.Label("one")
	body(1)
	a.DECQ(reg.RCX)
	a.JNZ(LabelRef("one"))
	a.Label("end")
	a.VZEROUPPER()
	a.RET()
}

// transcendental256 writes the same functions for 16 registers: 0 to 3 for exp,
// 8 to 15 for its constants, 7 the sign bit. Operands of a maximum or minimum
// are ordered so that a NaN stays.
func (v *vec) transcendental256() {
	r := v.regs()
	x, n, p, t := r[0], r[1], r[2], r[3]
	one := v.k[3]
	k := v.constant
	v.loop("GeluTanh", v.sigmoidSetup, func() {
		v.VMOVUPS(k(-128), r[6])
		v.VMAXPS(x, r[6], r[5])
		v.VMULPS(x, x, r[4])
		v.VMOVUPS(k(geluTanhConsts[1]), r[6])
		v.VFMADD213PS(k(geluTanhConsts[0]), r[6], r[4])
		v.VMULPS(x, r[4], r[4])
		v.sigmoid()
		v.VMULPS(r[4], r[5], x)
	})
	v.loop("Tanh", v.sigmoidSetup, func() {
		v.VMOVAPS(x, r[5])
		v.VANDNPS(x, r[7], x) // magnitude
		v.VADDPS(x, x, x)
		v.exp(x, n, p, t)
		v.VADDPS(one, x, x)
		v.VMOVUPS(k(2), r[4])
		v.VDIVPS(x, r[4], x)
		v.VMOVUPS(one, r[4])
		v.VSUBPS(x, r[4], x)
		v.VANDPS(r[5], r[7], r[6]) // sign
		v.VORPS(r[6], x, x)
		v.VMULPS(r[5], r[5], t)
		v.VMOVUPS(k(tanhPoly[0]), p)
		for _, c := range tanhPoly[1:] {
			v.VFMADD213PS(k(c), t, p)
		}
		v.VMULPS(t, p, p)
		v.VFMADD213PS(r[5], r[5], p)
		v.VANDNPS(r[5], r[7], r[6])
		v.VMOVUPS(k(0.625), r[4])
		v.VCMPPS(Imm(0x1e), r[6], r[4], r[6]) // 0.625 > magnitude
		v.VBLENDVPS(r[6], p, x, x)
	})
	// From -87 down the result is -A, so that 2^n is one factor.
	v.loop("Elu", func() { v.expSetup(); v.f(-87, 8); v.param(0, 7) }, func() {
		v.VMOVAPS(x, r[4])
		v.expParts(x, n, p, t)
		v.VCVTPS2DQ(n, n)
		v.VPSLLD(Imm(23), n, n)
		v.VPADDD(one, n, n)
		v.VSUBPS(one, n, t)
		v.VFMADD213PS(t, n, p)
		v.VMULPS(r[7], p, x)
		v.VXORPS(t, t, t)
		v.VCMPPS(Imm(0x15), t, r[4], t) // not less than 0
		v.VBLENDVPS(t, r[4], x, x)
	})
	v.loop("Gelu", v.sigmoidSetup, func() {
		v.VMOVAPS(x, r[4])
		v.VANDNPS(x, r[7], x)
		v.VMULPS(k(math.Sqrt2/2), x, x) // z
		v.VMOVUPS(k(0.5), r[5])
		v.VFMADD213PS(one, x, r[5])
		v.VMOVUPS(one, r[6])
		v.VDIVPS(r[5], r[6], r[5]) // t
		v.VMOVUPS(k(erfcPoly[0]), r[6])
		for _, c := range erfcPoly[1:] {
			v.VFMADD213PS(k(c), r[5], r[6])
		}
		v.VFNMADD231PS(x, x, r[6])
		v.VMOVAPS(r[6], x)
		v.exp(x, n, p, t)
		v.VMULPS(r[5], x, x) // erfc(|x|/sqrt 2)
		v.VMULPS(k(0.5), r[4], p)
		v.VMOVUPS(k(-64), n)
		v.VMAXPS(p, n, p)
		v.VMOVUPS(k(64), n)
		v.VMINPS(p, n, p)
		v.VMULPS(p, x, p)
		v.VSUBPS(p, r[4], t)
		v.VXORPS(n, n, n)
		v.VCMPPS(Imm(0x15), n, r[4], n)
		v.VBLENDVPS(n, t, p, x)
	})
	// Float64 sums of x and of (x - p0)^2: 8 lanes at dst, p0 a float64.
	for _, sq := range []bool{false, true} {
		name := "Sum64"
		if sq {
			name = "Var64"
		}
		v.start(name)
		v.SHRQ(Imm(1), reg.RCX)
		for i := 4; i < 8; i++ {
			v.VXORPD(r[i], r[i], r[i])
		}
		if sq {
			v.VBROADCASTSD(mem(rT, vP), r[8])
		}
		v.Label("loop")
		for i := 0; i < 4; i++ {
			v.VCVTPS2PD(mem(reg.RSI, 16*i), r[i])
			if sq {
				v.VSUBPD(r[8], r[i], r[i])
				v.VFMADD231PD(r[i], r[i], r[4+i])
			} else {
				v.VADDPD(r[i], r[4+i], r[4+i])
			}
		}
		v.ADDQ(imm(64), reg.RSI)
		v.DECQ(reg.RCX)
		v.JNZ(LabelRef("loop"))
		for i := 0; i < 2; i++ {
			v.VADDPD(r[6+i], r[4+i], r[4+i])
			v.VMOVUPD(r[4+i], mem(reg.RDI, 32*i))
		}
		v.VZEROUPPER()
		v.RET()
	}
}

// convert512 writes the type conversions.
func (v *vec) convert512() {
	v.loop("RoundF16", nil, func() {
		v.VCVTPS2PH(Imm(0), reg.Z0, reg.Y0)
		v.VCVTPH2PS(reg.Y0, reg.Z0)
	})
	v.loop("RoundF16Sat", func() {
		v.bits(0x80000000, 1)
		v.bits(0x7f800000, 2)
		v.bits(0x47000000, 3)
	}, func() {
		v.VPANDND(reg.Z0, reg.Z1, reg.Z4)
		v.VCMPPS(Imm(0x1d), reg.Z3, reg.Z4, reg.K1)
		v.VPANDD(reg.Z0, reg.Z1, reg.K1, reg.Z0)
		v.VPORD(reg.Z0, reg.Z2, reg.K1, reg.Z0)
		v.VCVTPS2PH(Imm(0), reg.Z0, reg.Y0)
		v.VCVTPH2PS(reg.Y0, reg.Z0)
	})
	v.start("ToF16")
	v.Label("loop")
	v.VMOVUPS(mem(reg.RSI, 0), reg.Z0)
	v.VCVTPS2PH(Imm(0), reg.Z0, reg.Y0)
	v.VMOVDQU(reg.Y0, mem(reg.RDI, 0))
	v.ADDQ(imm(32), reg.RDI)
	v.step(reg.RSI)
	v.VZEROUPPER()
	v.RET()
	v.start("FromF16")
	v.Label("loop")
	v.VMOVDQU(mem(reg.RSI, 0), reg.Y0)
	v.VCVTPH2PS(reg.Y0, reg.Z0)
	v.VMOVUPS(reg.Z0, mem(reg.RDI, 0))
	v.ADDQ(imm(32), reg.RSI)
	v.step(reg.RDI)
	v.VZEROUPPER()
	v.RET()
	// Parameters: scale, 1/scale, -zero, 255-zero (unsigned domain), the stored
	// zero point as int32. Division as in the int8 tiles.
	v.start("Quant")
	v.param(0, 1)
	v.param(1, 2)
	v.param(2, 3)
	v.param(3, 4)
	v.VPBROADCASTD(mem(rT, vP+16), reg.Z5)
	v.Label("loop")
	v.VMOVUPS(mem(reg.RSI, 0), reg.Z0)
	v.VMULPS(reg.Z2, reg.Z0, reg.Z6)
	v.VMAXPS(reg.Z6, reg.Z3, reg.Z6)
	v.VMINPS(reg.Z6, reg.Z4, reg.Z6)
	v.VFNMADD231PS(reg.Z1, reg.Z6, reg.Z0)
	v.VFMADD231PS(reg.Z2, reg.Z0, reg.Z6)
	v.VCMPPS(Imm(7), reg.Z6, reg.Z6, reg.K1)
	v.VMAXPS(reg.Z6, reg.Z3, reg.Z6)
	v.VMINPS_Z(reg.Z6, reg.Z4, reg.K1, reg.Z6)
	v.VCVTPS2DQ(reg.Z6, reg.Z6)
	v.VPADDD(reg.Z5, reg.Z6, reg.Z6)
	v.VPMOVDB(reg.Z6, reg.X6)
	v.VMOVDQU(reg.X6, mem(reg.RDI, 0))
	v.ADDQ(imm(16), reg.RDI)
	v.step(reg.RSI)
	v.VZEROUPPER()
	v.RET()
	// Parameters: scale, zero (unsigned domain, int32), flip (int32).
	v.start("Dequant")
	v.param(0, 1)
	v.VPBROADCASTD(mem(rT, vP+4), reg.Z2)
	v.VPBROADCASTD(mem(rT, vP+8), reg.Z3)
	v.Label("loop")
	v.VPMOVZXBD(mem(reg.RSI, 0), reg.Z0)
	v.VPXORD(reg.Z3, reg.Z0, reg.Z0)
	v.VPSUBD(reg.Z2, reg.Z0, reg.Z0)
	v.VCVTDQ2PS(reg.Z0, reg.Z0)
	v.VMULPS(reg.Z1, reg.Z0, reg.Z0)
	v.VMOVUPS(reg.Z0, mem(reg.RDI, 0))
	v.ADDQ(imm(16), reg.RSI)
	v.step(reg.RDI)
	v.VZEROUPPER()
	v.RET()
	// Float64 sums of x and of (x - p0)^2: 8 lanes at dst, a float64.
	for _, sq := range []bool{false, true} {
		name := "Sum64"
		if sq {
			name = "Var64"
		}
		v.start(name)
		v.VXORPD(reg.Y1, reg.Y1, reg.Y1)
		v.VXORPD(reg.Y2, reg.Y2, reg.Y2)
		if sq {
			v.VBROADCASTSD(mem(rT, vP), reg.Z3)
		}
		v.Label("loop")
		for i, acc := range []reg.VecPhysical{reg.Z1, reg.Z2} {
			v.VCVTPS2PD(mem(reg.RSI, 32*i), reg.Z0)
			if sq {
				v.VSUBPD(reg.Z3, reg.Z0, reg.Z0)
				v.VFMADD231PD(reg.Z0, reg.Z0, acc)
			} else {
				v.VADDPD(reg.Z0, acc, acc)
			}
		}
		v.step(reg.RSI)
		v.VADDPD(reg.Z2, reg.Z1, reg.Z1)
		v.VMOVUPD(reg.Z1, mem(reg.RDI, 0))
		v.VZEROUPPER()
		v.RET()
	}
}

// convert256 writes the conversions for AVX2 and F16C.
func (v *vec) convert256() {
	v.loop("RoundF16", nil, func() {
		v.VCVTPS2PH(Imm(0), reg.Y0, reg.X0)
		v.VCVTPH2PS(reg.X0, reg.Y0)
	})
	v.loop("RoundF16Sat", func() { v.bits((127+113)<<23, 1) }, func() {
		v.satF16(reg.Y0, reg.Y1, reg.Y2, reg.Y3)
		v.VCVTPS2PH(Imm(0), reg.Y0, reg.X0)
		v.VCVTPH2PS(reg.X0, reg.Y0)
	})
	v.start("ToF16")
	v.Label("loop")
	v.VMOVUPS(mem(reg.RSI, 0), reg.Y0)
	v.VCVTPS2PH(Imm(0), reg.Y0, reg.X0)
	v.VMOVDQU(reg.X0, mem(reg.RDI, 0))
	v.ADDQ(imm(16), reg.RDI)
	v.step(reg.RSI)
	v.VZEROUPPER()
	v.RET()
	v.start("FromF16")
	v.Label("loop")
	v.VMOVDQU(mem(reg.RSI, 0), reg.X0)
	v.VCVTPH2PS(reg.X0, reg.Y0)
	v.VMOVUPS(reg.Y0, mem(reg.RDI, 0))
	v.ADDQ(imm(16), reg.RSI)
	v.step(reg.RDI)
	v.VZEROUPPER()
	v.RET()
	v.start("Quant")
	for k := 0; k < 4; k++ {
		v.param(k, 1+k)
	}
	v.VPBROADCASTD(mem(rT, vP+16), reg.Y5)
	v.Label("loop")
	v.VMOVUPS(mem(reg.RSI, 0), reg.Y0)
	v.VMULPS(reg.Y2, reg.Y0, reg.Y6)
	v.VMAXPS(reg.Y6, reg.Y3, reg.Y6)
	v.VMINPS(reg.Y6, reg.Y4, reg.Y6)
	v.VFNMADD231PS(reg.Y1, reg.Y6, reg.Y0)
	v.VFMADD231PS(reg.Y2, reg.Y0, reg.Y6)
	v.VCMPPS(Imm(7), reg.Y6, reg.Y6, reg.Y7)
	v.VMAXPS(reg.Y6, reg.Y3, reg.Y6)
	v.VMINPS(reg.Y6, reg.Y4, reg.Y6)
	v.VANDPS(reg.Y7, reg.Y6, reg.Y6)
	v.VCVTPS2DQ(reg.Y6, reg.Y6)
	v.VPADDD(reg.Y5, reg.Y6, reg.Y6)
	// Both ranges fit a word; keep the low byte of each.
	v.VEXTRACTI128(Imm(1), reg.Y6, reg.X7)
	v.VPACKSSDW(reg.X7, reg.X6, reg.X6)
	v.VPSLLW(Imm(8), reg.X6, reg.X6)
	v.VPSRLW(Imm(8), reg.X6, reg.X6)
	v.VPACKUSWB(reg.X6, reg.X6, reg.X6)
	v.VMOVQ(reg.X6, mem(reg.RDI, 0))
	v.ADDQ(imm(8), reg.RDI)
	v.step(reg.RSI)
	v.VZEROUPPER()
	v.RET()
	v.start("Dequant")
	v.param(0, 1)
	v.VPBROADCASTD(mem(rT, vP+4), reg.Y2)
	v.VPBROADCASTD(mem(rT, vP+8), reg.Y3)
	v.Label("loop")
	v.VPMOVZXBD(mem(reg.RSI, 0), reg.Y0)
	v.VPXOR(reg.Y3, reg.Y0, reg.Y0)
	v.VPSUBD(reg.Y2, reg.Y0, reg.Y0)
	v.VCVTDQ2PS(reg.Y0, reg.Y0)
	v.VMULPS(reg.Y1, reg.Y0, reg.Y0)
	v.VMOVUPS(reg.Y0, mem(reg.RDI, 0))
	v.ADDQ(imm(8), reg.RSI)
	v.step(reg.RDI)
	v.VZEROUPPER()
	v.RET()
}

// dispatch writes the Go function that calls an operation by number: direct
// calls, so that the arguments stay on the caller's stack.
func (v *vec) dispatch() string {
	var s strings.Builder
	fmt.Fprintf(&s, "\n// vec%s runs op and reports whether it exists.\nfunc vec%s(op vecOp, t *vecArgs) bool {\nswitch op {\n", v.isa, v.isa)
	for _, op := range v.ops {
		fmt.Fprintf(&s, "case vop%s:\nvec%s%s(t)\n", op, op, v.isa)
	}
	s.WriteString("default:\nreturn false\n}\nreturn true\n}\n")
	return s.String()
}
