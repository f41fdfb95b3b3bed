package kernels

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// The bytes are those of the functions one after the other, on every level, for
// lengths around every border and scales from one extreme to the other.
func TestAddQ8(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(11, 4))
		ctx := NewCtx(nil)
		params := func(spread float64) QParams {
			q := QParams{Scale: float32(math.Exp(r.NormFloat64() * spread)), Signed: r.IntN(2) == 0}
			lo, hi := q.Range()
			q.Zero = lo + r.Int32N(hi-lo+1)
			return q
		}
		for i := range 600 {
			spread := 1.0
			if i%5 == 0 {
				spread = 25 // sums beyond fp16, quotients beyond float32
			}
			qa, qb, to := params(spread), params(spread), params(spread)
			if i%3 == 0 { // what networks have
				qb.Scale = qa.Scale * (0.5 + r.Float32())
				to.Scale = qa.Scale * (0.5 + r.Float32())
			}
			act := []Activation{{}, Relu(), Clip(-3*to.Scale, 50*to.Scale), Clip(inf32, inf32)}[i%4]
			n := []int{1, 15, 16, 17, 63, 64, 65, 79, 300, flatGrain + 33}[i%10]
			a, b := make([]uint8, n), make([]uint8, n)
			for j := range a {
				a[j], b[j] = uint8(r.Uint32()), uint8(r.Uint32())
			}
			for _, round := range []Round{RoundNone, RoundF16} {
				got, want := make([]uint8, n+1), make([]uint8, n)
				got[n] = 77
				AddQ8(ctx, got[:n], to, a, qa, b, qb, act, round)
				x, y := make([]float32, n), make([]float32, n)
				for j := range x {
					x[j], y[j] = plainValue(a[j], qa), plainValue(b[j], qb)
					if round == RoundF16 {
						x[j], y[j] = round16(x[j]), round16(y[j])
					}
					v := act.Apply(x[j] + y[j])
					if round == RoundF16 {
						v = round16(v)
					}
					want[j] = quantU8(v, to.Scale, to.zeroU8()) ^ to.flip()
				}
				for j := range want {
					if got[j] != want[j] {
						t.Fatalf("%+v + %+v -> %+v, %v, round %d: byte %d of %d + %d is %d, want %d", qa, qb, to, act, round, j, a[j], b[j], got[j], want[j])
					}
				}
				if got[n] != 77 {
					t.Fatal("wrote beyond the destination")
				}
			}
		}
	})
}

// Every level writes the bytes of the formula, and these are within the rounding
// of the exact sum: another byte only next to half a step.
func TestSumQ8(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(7, 9))
		ctx := NewCtx(nil)
		params := func(scale float64) QParams {
			q := QParams{Scale: float32(scale), Signed: r.IntN(2) == 0}
			lo, hi := q.Range()
			q.Zero = lo + r.Int32N(hi-lo+1)
			return q
		}
		for i := range 400 {
			to := params(math.Exp(r.NormFloat64()))
			spread := []float64{0.5, 2, 8}[i%3] // the last leaves the range of the ratios
			qa, qb := params(float64(to.Scale)*math.Exp(r.NormFloat64()*spread)), params(float64(to.Scale)*math.Exp(r.NormFloat64()*spread))
			n := []int{1, 15, 16, 17, 63, 64, 65, 79, 300, flatGrain + 33}[i%10]
			a, b, got := make([]uint8, n), make([]uint8, n), make([]uint8, n+1)
			for j := range a {
				a[j], b[j] = uint8(r.Uint32()), uint8(r.Uint32())
			}
			got[n] = 77
			SumQ8(ctx, got[:n], to, a, qa, b, qb)
			if got[n] != 77 {
				t.Fatal("wrote beyond the destination")
			}
			p, q := qa.Scale/to.Scale, qb.Scale/to.Scale
			inside := p >= 1.0/1024 && p < 256 && q >= 1.0/1024 && q < 256
			for j := range a {
				fused := func(x uint8, ratio, c float32) float32 { // one rounding
					s := new(big.Float).SetPrec(300).SetFloat64(float64(x))
					s.Mul(s, big.NewFloat(float64(ratio))).Add(s, big.NewFloat(float64(c)))
					f, _ := s.Float32()
					return f
				}
				exact := (float64(plainValue(a[j], qa))+float64(plainValue(b[j], qb)))/float64(to.Scale) + float64(to.zeroU8())
				code := func(x float64) uint8 { return uint8(math.RoundToEven(min(max(x, 0), 255))) ^ to.flip() }
				if inside {
					c := float32(to.zeroU8()) - float32(float32(p*float32(qa.zeroU8()))+float32(q*float32(qb.zeroU8())))
					want := code(float64(fused(a[j]^qa.flip(), p, fused(b[j]^qb.flip(), q, c))))
					if got[j] != want {
						t.Fatalf("%+v + %+v -> %+v: byte %d of %d + %d is %d, want %d", qa, qb, to, j, a[j], b[j], got[j], want)
					}
				}
				slack := 1e-6 * (256 + 255*float64(p) + 255*float64(q))
				if d := got[j] ^ to.flip(); d < code(exact-slack)^to.flip() || d > code(exact+slack)^to.flip() {
					t.Fatalf("%+v + %+v -> %+v: byte %d is %d for the exact %v", qa, qb, to, j, d, exact)
				}
			}
		}
	})
}

func plainValue(b uint8, q QParams) float32 {
	v := int32(b)
	if q.Signed {
		v = int32(int8(b))
	}
	return float32(v-q.Zero) * q.Scale
}

func BenchmarkAddQ8(b *testing.B) {
	const n = 256 * 56 * 56
	ctx := NewCtx(nil)
	x, y, d := make([]uint8, n), make([]uint8, n), make([]uint8, n)
	q := QParams{Scale: 0.02, Zero: 3, Signed: true}
	t := addTask{dst: d[:flatGrain], a: x[:flatGrain], b: y[:flatGrain], qa: q, qb: q, to: q, act: Relu(), round: RoundF16}
	b.Run("fused", func(b *testing.B) {
		b.SetBytes(n)
		for b.Loop() {
			AddQ8(ctx, d, q, x, q, y, q, Relu(), RoundF16)
		}
	})
	b.Run("sum", func(b *testing.B) {
		b.SetBytes(n)
		for b.Loop() {
			SumQ8(ctx, d, q, x, q, y, q)
		}
	})
	b.Run("separate", func(b *testing.B) {
		b.SetBytes(n)
		for b.Loop() {
			for i := 0; i < n; i += flatGrain {
				k := min(flatGrain, n-i)
				t.separate(d[i:i+k], x[i:i+k], y[i:i+k])
			}
		}
	})
}
