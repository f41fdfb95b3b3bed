package zoo

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/triune-sim/triune/model"
)

// published holds parameter counts and multiply-adds of the reference
// implementations: torchvision's weights list both ("num_params"; "_ops", in units of
// 10^9, three decimals); DeiT's multiply-adds are its paper's. Buffers and
// element-wise work do not count.
var published = []struct {
	name   string
	params int64
	gmacs  float64 // at size
	size   int     // 0 for the default
	tol    float64 // 0 for half of the third decimal
	// buffers are constants of the exported form that the framework does not
	// count as parameters.
	buffers int64
}{
	{name: "mobilenet_v2", params: 3504872, gmacs: 0.300774272},
	{name: "mobilenet_v2_0.5", params: 1968680, gmacs: 0.097},
	{name: "mobilenet_v2_1.4", params: 6108776, gmacs: 0.582},
	{name: "mobilenet_v3_large", params: 5483032, gmacs: 0.217},
	{name: "mobilenet_v3_small", params: 2542856, gmacs: 0.057},
	{name: "resnet18", params: 11689512, gmacs: 1.814073344},
	{name: "resnet34", params: 21797672, gmacs: 3.663761408},
	{name: "resnet50", params: 25557032, gmacs: 4.089184256},
	{name: "resnet101", params: 44549160, gmacs: 7.801405440},
	{name: "resnet152", params: 60192808, gmacs: 11.513626624},
	{name: "vgg11", params: 132863336, gmacs: 7.609},
	{name: "vgg13", params: 133047848, gmacs: 11.308},
	{name: "vgg16", params: 138357544, gmacs: 15.47},
	{name: "vgg19", params: 143667240, gmacs: 19.632},
	{name: "densenet121", params: 7978856, gmacs: 2.834},
	{name: "densenet169", params: 14149480, gmacs: 3.36},
	{name: "densenet201", params: 20013928, gmacs: 4.291},
	{name: "squeezenet1_1", params: 1235496, gmacs: 0.349},
	{name: "efficientnet_b0", params: 5288548, gmacs: 0.386},
	{name: "efficientnet_b1", params: 7794184, gmacs: 0.687},
	{name: "efficientnet_b2", params: 9109994, gmacs: 1.088, size: 288},
	{name: "efficientnet_b3", params: 12233232, gmacs: 1.827},
	{name: "efficientnet_b4", params: 19341616, gmacs: 4.394},
	{name: "efficientnet_b5", params: 30389784, gmacs: 10.266},
	{name: "efficientnet_v2_s", params: 21458488, gmacs: 8.366},
	{name: "convnext_tiny", params: 28589128, gmacs: 4.456},
	{name: "convnext_small", params: 50223688, gmacs: 8.684},
	{name: "convnext_base", params: 88591464, gmacs: 15.355},
	{name: "regnet_y_400mf", params: 4344144, gmacs: 0.402},
	{name: "regnet_y_800mf", params: 6432512, gmacs: 0.834},
	{name: "regnet_y_1_6gf", params: 11202430, gmacs: 1.612},
	{name: "regnet_y_3_2gf", params: 19436338, gmacs: 3.176},
	{name: "regnet_y_8gf", params: 39381472, gmacs: 8.473},
	{name: "regnet_y_16gf", params: 83590140, gmacs: 15.912},
	{name: "vit_b_16", params: 86567656, gmacs: 17.564},
	{name: "deit_s", params: 22050664, gmacs: 4.6, tol: 0.05},
	{name: "deit_ti", params: 5717416, gmacs: 1.3, tol: 0.05},
	{name: "resnext50_32x4d", params: 25028904, gmacs: 4.23},
	{name: "wide_resnet50_2", params: 68883240, gmacs: 11.398},
	{name: "alexnet", params: 61100840, gmacs: 0.714},
	{name: "googlenet", params: 6624904, gmacs: 1.498},
	// Without the auxiliary classifier: 27161264 with it, whose 3326696 are
	// 768*128 + 2*128 + 128*768*25 + 2*768 + 768*1000 + 1000.
	{name: "inception_v3", params: 27161264 - 3326696, gmacs: 5.713},
	{name: "mobilenet_v1", params: 4231976, gmacs: 0.56874, tol: 1e-5},
	{name: "mnasnet1_0", params: 4383312, gmacs: 0.314},
	{name: "shufflenet_v2", params: 2278604, gmacs: 0.145},
	{name: "bert_base", params: 109482240},
	{name: "distilbert", params: 66362880},
	{name: "decoder_24l", params: 494032768, buffers: 2 * 512 * 64},
	{name: "lm_head", params: 2048 * 128256, gmacs: 2048 * 128256 / 1e9},
	{name: "lm_head_8b", params: 4096 * 128256, gmacs: 4096 * 128256 / 1e9},
	{name: "fc_stack", params: 8 * 4096 * 4097, gmacs: 8 * 4096 * 4096 / 1e9},
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
			name := c.name
			if c.size != 0 {
				name = fmt.Sprintf("%s@%d", name, c.size)
			}
			g, err := Build(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := g.Params() - c.buffers; got != c.params {
				t.Errorf("parameters %d, want %d", got, c.params)
			}
			if c.gmacs == 0 {
				return
			}
			got := float64(macs(g)) / 1e9
			if math.Abs(got-c.gmacs) > max(c.tol, 0.00051) {
				t.Errorf("%.9f G multiply-adds, want %v", got, c.gmacs)
			}
		})
	}
}

// The paper's table 8 gives parameters and multiply-adds of the deployed
// MobileOne in units of 10^6: one decimal and none.
func TestMobileOneCounts(t *testing.T) {
	for name, want := range map[string][2]float64{"mobileone_s0": {2.1, 275}, "mobileone_s1": {4.8, 825}, "mobileone_s2": {7.8, 1299},
		"mobileone_s3": {10.1, 1896}, "mobileone_s4": {14.8, 2978}} {
		g, err := Build(name)
		if err != nil {
			t.Fatal(err)
		}
		p, m := float64(g.Params())/1e6, float64(macs(g))/1e6
		if math.Abs(p-want[0]) > 0.051 || math.Abs(m/want[1]-1) > 0.004 {
			t.Errorf("%s: %.3f M parameters, %.1f M multiply-adds; want %v", name, p, m, want)
		}
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
			if e.Size == 0 || e.Tokens {
				return
			}
			if in := g.Inputs[0]; in.Name != "image" || !in.Shape.Equal(model.Shape{1, 3, e.Size, e.Size}) {
				t.Errorf("input %v", in)
			}
			if out := g.Outputs[0]; out.Name != "logits" || len(out.Shape) != 2 || out.Shape[0] != 1 {
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
		"resnet51": "did you mean resnet", "mobilenet": "mobilenet_v2,", "": "built in:", "zzzzzzzz": "built in:",
		"resnet50@x": "not a number", "resnet50@0": "outside", "resnet50@-3": "outside", "resnet50@99999": "outside",
		"inception_v3@32": "too small", "bert_base@513": "512 positions", "decoder_1l@1": "at least 2", "fc_stack@5": "no input size",
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
	// conv2 reads the ReLU of a batch norm of mean square about 1.17, without
	// the share of the mean.
	if want := 1 / math.Sqrt(128*9*0.58*(1-common)); math.Abs(std/want-1) > 0.05 {
		t.Errorf("deviation %g, want about %g", std, want)
	}
	if c := value("resnet101"); c[0] == a[0] {
		t.Error("resnet101 has the weights of resnet50")
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, name := range []string{"mobilenet_v2", "resnet50", "mobilevit_v2", "decoder_24l"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Build(name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWeights computes all weights of a network.
func BenchmarkWeights(b *testing.B) {
	for b.Loop() {
		g, err := Build("resnet50")
		if err != nil {
			b.Fatal(err)
		}
		for _, v := range g.Consts() {
			if _, err := v.Const.Value(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
