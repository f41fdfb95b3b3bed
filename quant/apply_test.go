package quant

import (
	"os"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/zoo"
)

func TestApplyZoo(t *testing.T) {
	for _, name := range []string{"mobilenet_v2", "resnet50", "mobilevit_v2"} {
		g, err := zoo.Build(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, scheme := range []string{"fp16", "w8", "w8a8", "w8a8-ptq"} {
			s, err := Parse(scheme)
			if err != nil {
				t.Fatal(err)
			}
			out, r, err := Apply(g, s, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := out.Validate(true); err != nil {
				t.Fatal(err)
			}
			net, err := model.Lower(out)
			if err != nil {
				t.Fatal(err)
			}
			i8, n := 0, 0
			for _, l := range net.Layers {
				if l.Kind == model.KindQuantize {
					n++
				}
				if l.Int8(l.Kind) {
					i8++
				}
			}
			t.Logf("%s %s: layers %d int8 %d loose quantize layers %d, bytes %d -> %d, quantized %d, float ops %d", name, scheme, len(net.Layers), i8, n, r.BytesBefore, r.BytesAfter, r.Quantized, len(r.Ops))
			if testing.Verbose() && name == "mobilevit_v2" && scheme == "w8a8" {
				r.WriteText(os.Stdout, false)
				for _, l := range net.Layers {
					if !l.QuantIn || !l.QuantOut {
						t.Log(l.Name, l.Op, l.Kind, l.Fused, "in", l.QuantIn, "out", l.QuantOut)
					}
				}
			}
		}
	}
}
