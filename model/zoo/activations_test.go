package zoo_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/model/zoo"
)

// inputs returns normally distributed inputs (Irwin-Hall, as the weights);
// masks and token numbers are zeros.
func inputs(g *model.Graph, seed uint64) map[string]*model.Tensor {
	in := map[string]*model.Tensor{}
	for _, v := range g.Inputs {
		x := model.NewTensor(v.DType, v.Shape...)
		if v.DType.IsFloat() && v.Name != "mask" {
			for i := range x.Len() {
				s := 0.0
				for range 4 {
					seed = seed*6364136223846793005 + 1442695040888963407
					s += float64(seed>>40)/(1<<24) - 0.5
				}
				x.Set(i, s*math.Sqrt(3))
			}
		}
		in[v.Name] = x
	}
	return in
}

// Untrained as they are, networks tell inputs apart: logits of two inputs are
// not nearly the same, as they would be with independent weights.
func TestOutputsDependOnInputs(t *testing.T) {
	for _, name := range []string{"mobilenet_v2@64", "resnet18@64", "mobilevit_v2@64", "squeezenet1_1@64", "mobileone_s0@64"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := zoo.Build(name)
			if err != nil {
				t.Fatal(err)
			}
			var y [2]*model.Tensor
			for i := range y {
				in := inputs(g, uint64(i+1))
				// Blocks of one colour: an image is smooth.
				x := in["image"]
				w := x.Shape[3]
				for j := range x.Len() {
					k := j - j%8 - j/w%8*w
					x.Set(j, x.At(k))
				}
				out, err := ops.EvalGraph(context.Background(), g, in, ops.Options{})
				if err != nil {
					t.Fatal(err)
				}
				y[i] = out["logits"]
			}
			n := float64(y[0].Len())
			var a, b, ab, aa, bb float64
			for i := range y[0].Len() {
				p, q := y[0].At(i), y[1].At(i)
				a, b, ab, aa, bb = a+p, b+q, ab+p*q, aa+p*p, bb+q*q
			}
			corr := (ab - a*b/n) / math.Sqrt((aa-a*a/n)*(bb-b*b/n))
			t.Logf("correlation %.3f", corr)
			if !(corr < 0.97) {
				t.Errorf("logits of two inputs correlate by %.4f", corr)
			}
		})
	}
}

// Seeded weights keep activations in the range where fp16 is at ease, from
// the first layer to the last: no layer's root mean square leaves 0.02 to 60
// (scores and gates, which are small by nature, apart) and no element comes
// near 65504, or 2^15 where the Neural Engine saturates.
func TestActivationsStaySane(t *testing.T) {
	names := []string{"mobilenet_v2@64", "resnet50@32", "mobilevit_v2@64", "mobilenet_v3_small@64", "efficientnet_b0@64", "mobileone_s0@64",
		"squeezenet1_1@64", "densenet121@32", "regnet_y_400mf@64", "tiny_cnn", "tiny_mlp", "tiny_vit", "tiny_decoder"}
	if !testing.Short() {
		names = append(names, "resnet152@32", "mobileone_s4@32")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := zoo.Build(name)
			if err != nil {
				t.Fatal(err)
			}
			in := inputs(g, 7)
			worst, at := 0.0, ""
			_, err = ops.EvalGraph(context.Background(), g, in, ops.Options{Hook: func(n *model.Node, out []*model.Tensor) error {
				for i, y := range out {
					if y == nil || !y.DType.IsFloat() || y.Len() == 0 {
						continue
					}
					sq, top := 0.0, 0.0
					for j := range y.Len() {
						v := math.Abs(y.At(j))
						sq += v * v
						top = math.Max(top, v)
					}
					rms := math.Sqrt(sq / float64(y.Len()))
					if top > worst {
						worst, at = top, n.Name
					}
					if !(rms < 60) || !(top < 4096) {
						return fmt.Errorf("output %d of %q (%s): rms %.3g, largest %.3g", i, n.Name, n.Op, rms, top)
					}
					switch n.Op {
					case "Conv", "Gemm", "BatchNormalization", "Add", "LayerNormalization", "GroupNormalization", "RMSNormalization":
						if rms < 0.02 {
							return fmt.Errorf("output %d of %q (%s): rms only %.3g", i, n.Name, n.Op, rms)
						}
					}
				}
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("largest element %.1f, at %s", worst, at)
		})
	}
}
