package exec_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// A global average between codes on the Neural Engine is the exact sum of the
// codes, scaled once in float32 and rounded half to even; on the CPU it is
// within one step of that.
func TestInt8AverageIsExact(t *testing.T) {
	for _, c := range []struct {
		channels, h, w int
		signed         bool
		zin, zout      int
	}{{16, 7, 7, true, 0, -3}, {20, 1, 5, false, 128, 0}, {5, 13, 11, true, -128, 127}, {33, 8, 8, false, 3, 200}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			m := newMaker(t, 4)
			x := m.input(model.Int8, 2, c.channels, c.h, c.w)
			od := model.UInt8
			if !c.signed {
				x.DType = model.UInt8
			}
			if c.zout < 0 {
				od = model.Int8
			}
			zero := func(d model.DType, z int) *model.Value {
				v := model.NewTensor(d)
				v.SetInt(0, int64(z))
				return m.constant(v)
			}
			const sIn, sOut = float32(0.037), float32(0.011)
			y := m.op("GlobalAveragePool", nil, m.op("DequantizeLinear", nil, x, m.scalar(sIn), zero(x.DType, c.zin)))
			g := m.done(m.op("QuantizeLinear", nil, y, m.scalar(sOut), zero(od, c.zout)))
			in := model.NewTensor(x.DType, x.Shape...)
			for i := range in.Data {
				in.Data[i] = byte(m.r.Uint32())
			}
			net, err := model.Lower(g)
			if err != nil {
				t.Fatal(err)
			}
			ne := run(t, net, on(net, units.NE), map[string]*model.Tensor{x.Name: in})[0]
			cpu := run(t, net, on(net, units.CPU), map[string]*model.Tensor{x.Name: in})[0]
			lo, hi := 0.0, 255.0
			if od == model.Int8 {
				lo, hi = -128, 127
			}
			n := c.h * c.w
			scale := sIn / (sOut * float32(n))
			for i := range ne.Len() {
				sum := 0
				for k := range n {
					sum += int(in.IntAt(i*n+k)) - c.zin
				}
				want := max(lo, min(hi, math.RoundToEven(float64(float32(sum)*scale))+float64(c.zout)))
				if got := float64(ne.IntAt(i)); got != want {
					t.Fatalf("mean %d is %v, want %v", i, got, want)
				}
				if got := float64(cpu.IntAt(i)); math.Abs(got-want) > 1 {
					t.Fatalf("mean %d is %v on the CPU, want %v", i, got, want)
				}
			}
		})
	}
}
