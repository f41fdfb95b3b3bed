package zoo

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/triune-sim/triune/model"
)

// published holds parameter counts and multiply-adds of the reference
// implementations (torchvision's documentation gives both for its models;
// buffers and element-wise work do not count).
var published = []struct {
	name   string
	params int64
	// macs of convolutions, fully connected layers and matrix products.
	macs int64
	// buffers are constants of the exported form that the framework does not
	// count as parameters.
	buffers int64
}{
	{name: "mobilenet_v2", params: 3504872, macs: 300774272},
	{name: "resnet18", params: 11689512, macs: 1814073344},
	{name: "resnet34", params: 21797672, macs: 3663761408},
	{name: "resnet50", params: 25557032, macs: 4089184256},
	{name: "resnet101", params: 44549160, macs: 7801405440},
	{name: "resnet152", params: 60192808, macs: 11513626624},
}

// macs counts the multiply-adds of convolutions and matrix products from the
// shapes alone.
func macs(g *model.Graph) int64 {
	var n int64
	for _, x := range g.Nodes {
		switch x.Op {
		case "Conv":
			w := x.In(1).Shape
			n += x.Out(0).Shape.Elems() * model.Shape(w[1:]).Elems()
		case "Gemm":
			n += x.Out(0).Shape.Elems() * int64(x.In(1).Shape[1])
		case "MatMul":
			a := x.In(0).Shape
			n += x.Out(0).Shape.Elems() * int64(a[len(a)-1])
		}
	}
	return n
}

func TestPublishedCounts(t *testing.T) {
	for _, c := range published {
		t.Run(c.name, func(t *testing.T) {
			g, err := Build(c.name)
			if err != nil {
				t.Fatal(err)
			}
			if got := g.Params() - c.buffers; got != c.params {
				t.Errorf("parameters %d, want %d", got, c.params)
			}
			if got := macs(g); got != c.macs {
				t.Errorf("multiply-adds %d, want %d", got, c.macs)
			}
		})
	}
}

func TestMobileViTv2Counts(t *testing.T) {
	g, err := Build("mobilevit_v2")
	if err != nil {
		t.Fatal(err)
	}
	// By hand from the paper's table: weights, batch norm pairs, biases.
	ir := func(in, out int64) int64 { return 2*in*in + 4*in + 18*in + 4*in + 2*in*out + 2*out }
	block := func(c, d, n int64) int64 {
		attn := 2*d + (1+2*d)*(d+1) + d*(d+1)
		ffn := 2*d + 2*d*(d+1) + d*(2*d+1)
		return 9*c + 2*c + c*d + n*(attn+ffn) + 2*d + d*c + 2*c
	}
	want := int64(27*32+64) + ir(32, 64) + ir(64, 128) + ir(128, 128) +
		ir(128, 256) + block(256, 128, 2) + ir(256, 384) + block(384, 192, 4) + ir(384, 512) + block(512, 256, 3) +
		513*1000
	unfold := int64(16 * (128 + 192 + 256))
	if got := g.Params() - unfold; got != want || got < 4.85e6 || got > 4.95e6 {
		t.Errorf("parameters %d, want %d, about 4.9 M", got, want)
	}
	if got := float64(macs(g)) / 1e9; got < 1.75 || got > 1.9 {
		t.Errorf("%.3f GMAC, want about 1.8", got)
	}
	t.Logf("%d parameters, %d MACs", g.Params(), macs(g))
}

// Every network is well formed, fully shaped, and quick to build; image
// networks have the stated input and output.
func TestBuildAll(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			best := time.Hour
			var g *model.Graph
			for range 5 {
				start := time.Now()
				var err error
				if g, err = Build(name); err != nil {
					t.Fatal(err)
				}
				best = min(best, time.Since(start))
			}
			if best > 10*time.Millisecond {
				t.Errorf("took %v to build, want below 10ms", best)
			}
			if err := g.Validate(true); err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, n := range g.Nodes {
				if seen[n.Name] {
					t.Errorf("two nodes are called %q", n.Name)
				}
				seen[n.Name] = true
			}
			e, err := Info(name)
			if err != nil {
				t.Fatal(err)
			}
			if e.Size == 0 {
				return
			}
			if in := g.Inputs[0]; in.Name != "image" || !in.Shape.Equal(model.Shape{1, 3, e.Size, e.Size}) {
				t.Errorf("input %v", in)
			}
			if out := g.Outputs[0]; out.Name != "logits" || !out.Shape.Equal(model.Shape{1, 1000}) {
				t.Errorf("output %v", out)
			}
		})
	}
}

func TestSpellings(t *testing.T) {
	for in, want := range map[string]string{
		"MobileNetV2-1.0": "mobilenet_v2", "MobileNetV2": "mobilenet_v2", "mobilenet-v2@160": "mobilenet_v2@160",
		"mobilenet_v2@224": "mobilenet_v2", "MobileNetV2-0.5": "mobilenet_v2_0.5", "ResNet50": "resnet50",
		"resnet_50": "resnet50", "MobileViTv2-1.0": "mobilevit_v2", "MOBILENET_V2_1.4@128": "mobilenet_v2_1.4@128",
	} {
		g, err := Build(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if g.Name != want {
			t.Errorf("%s builds %s, want %s", in, g.Name, want)
		}
	}
}

func TestErrors(t *testing.T) {
	for in, want := range map[string]string{
		"resnet51": "did you mean resnet", "mobilenet": "did you mean mobilenet_v2", "": "built in:", "zzzzzzzz": "built in:",
		"resnet50@x": "not a number", "resnet50@0": "outside", "resnet50@-3": "outside", "resnet50@99999": "outside",
		"mobilevit_v2@100": "multiple of 64", "resnet50@": "not a number", strings.Repeat("q", 1<<16): "built in:",
	} {
		_, err := Build(in)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "zoo: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.20q: error %v, want one line that contains %q", in, err, want)
		}
	}
}

// Weights are the same for every build and every input size, and bell-shaped
// with the stated deviation.
func TestWeights(t *testing.T) {
	value := func(name string) []float32 {
		g, err := Build(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range g.Consts() {
			if v.Name == "layer2.0.conv2.weight" {
				x, err := v.Const.Value()
				if err != nil {
					t.Fatal(err)
				}
				return x.Float32s()
			}
		}
		t.Fatal("no such weight")
		return nil
	}
	a, b := value("resnet50"), value("resnet50@160")
	var sum, sq float64
	for i, x := range a {
		if x != b[i] {
			t.Fatalf("weight %d differs between sizes", i)
		}
		sum += float64(x)
		sq += float64(x) * float64(x)
	}
	n := float64(len(a))
	std := math.Sqrt(sq / n)
	if math.Abs(sum/n) > 5*std/math.Sqrt(n) {
		t.Errorf("mean %g of deviation %g", sum/n, std)
	}
	// conv2 reads the ReLU of a batch norm of mean square about 1.17.
	if want := 1 / math.Sqrt(128*9*0.58); math.Abs(std/want-1) > 0.05 {
		t.Errorf("deviation %g, want about %g", std, want)
	}
	if c := value("resnet101"); c[0] == a[0] {
		t.Error("resnet101 has the weights of resnet50")
	}
}
