package zoo

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/model"
)

// Entry describes a network of the zoo.
type Entry struct {
	Name    string   // canonical name, what [Build] takes
	Title   string   // as papers and tables write it
	Source  string   // paper and reference implementation
	Aliases []string // further spellings
	// Size is the input's height and width in pixels, or the length of the
	// context in tokens; 0 if the network has neither.
	Size    int
	Divisor int  // sizes must be multiples of it; 1 if any will do
	Tokens  bool // Size counts tokens

	build func(b *builder, size int)
}

const maxSize = 4096

// Where the networks come from.
const (
	srcVGG     = "arXiv 1409.1556, torchvision"
	srcRes     = "arXiv 1512.03385, torchvision"
	srcSqueeze = "arXiv 1602.07360, torchvision"
	srcDense   = "arXiv 1608.06993, torchvision"
	srcMBV2    = "arXiv 1801.04381, torchvision"
	srcMBV3    = "arXiv 1905.02244, torchvision"
	srcEff     = "arXiv 1905.11946, torchvision"
	srcEffV2   = "arXiv 2104.00298, torchvision"
	srcRegNet  = "arXiv 2003.13678, torchvision"
	srcViT     = "arXiv 2010.11929, torchvision"
	srcDeiT    = "arXiv 2012.12877, reference code"
	srcNeXt    = "arXiv 2201.03545, torchvision"
	srcOne     = "arXiv 2206.04040, deployed form of the reference code"
	srcMViT2   = "arXiv 2206.02680, Core ML form of the reference code"
	srcQwen    = "arXiv 2407.10671, Qwen2-0.5B"
	srcLlama   = "arXiv 2407.21783"
	srcOwn     = "Triune"
)

var entries = []Entry{
	{Name: "mobilenet_v2", Title: "MobileNetV2-1.0", Source: srcMBV2, Size: 224, build: mobileNetV2(1)},
	{Name: "mobilenet_v2_0.35", Title: "MobileNetV2-0.35", Source: srcMBV2, Size: 224, build: mobileNetV2(0.35)},
	{Name: "mobilenet_v2_0.5", Title: "MobileNetV2-0.5", Source: srcMBV2, Size: 224, build: mobileNetV2(0.5)},
	{Name: "mobilenet_v2_0.75", Title: "MobileNetV2-0.75", Source: srcMBV2, Size: 224, build: mobileNetV2(0.75)},
	{Name: "mobilenet_v2_1.4", Title: "MobileNetV2-1.4", Source: srcMBV2, Size: 224, build: mobileNetV2(1.4)},
	{Name: "mobilenet_v1", Title: "MobileNetV1-1.0", Aliases: []string{"mobilenet_1.0", "MobileNetV1"}, Source: "arXiv 1704.04861", Size: 224, build: mobileNetV1},
	{Name: "mnasnet1_0", Title: "MnasNet-1.0", Source: "arXiv 1807.11626, torchvision", Size: 224, build: mnasNet},
	{Name: "shufflenet_v2", Title: "ShuffleNetV2-1.0", Aliases: []string{"shufflenet_v2_x1_0"}, Source: "arXiv 1807.11164, torchvision", Size: 224, build: shuffleNetV2},
	{Name: "mobilenet_v3_large", Title: "MobileNetV3-Large", Source: srcMBV3, Size: 224, build: mobileNetV3(mobileNetV3Large, 1280)},
	{Name: "mobilenet_v3_small", Title: "MobileNetV3-Small", Source: srcMBV3, Size: 224, build: mobileNetV3(mobileNetV3Small, 1024)},
	{Name: "mobileone_s0", Title: "MobileOne-S0", Source: srcOne, Size: 224, build: mobileOne(false, 0.75, 1, 1, 2)},
	{Name: "mobileone_s1", Title: "MobileOne-S1", Source: srcOne, Size: 224, build: mobileOne(false, 1.5, 1.5, 2, 2.5)},
	{Name: "mobileone_s2", Title: "MobileOne-S2", Source: srcOne, Size: 224, build: mobileOne(false, 1.5, 2, 2.5, 4)},
	{Name: "mobileone_s3", Title: "MobileOne-S3", Source: srcOne, Size: 224, build: mobileOne(false, 2, 2.5, 3, 4)},
	{Name: "mobileone_s4", Title: "MobileOne-S4", Source: srcOne, Size: 224, build: mobileOne(true, 3, 3.5, 3.5, 4)},
	{Name: "mobilevit_v2", Title: "MobileViTv2-1.0", Source: srcMViT2, Size: 256, Divisor: 64, build: mobileViTv2(1)},
	{Name: "mobilevit_v2_0.5", Title: "MobileViTv2-0.5", Source: srcMViT2, Size: 256, Divisor: 64, build: mobileViTv2(0.5)},
	{Name: "mobilevit_v2_0.75", Title: "MobileViTv2-0.75", Source: srcMViT2, Size: 256, Divisor: 64, build: mobileViTv2(0.75)},
	{Name: "mobilevit_v2_2.0", Title: "MobileViTv2-2.0", Source: srcMViT2, Size: 256, Divisor: 64, build: mobileViTv2(2)},

	{Name: "resnet18", Title: "ResNet18", Source: srcRes, Size: 224, build: resNet(false, 2, 2, 2, 2)},
	{Name: "resnet34", Title: "ResNet34", Source: srcRes, Size: 224, build: resNet(false, 3, 4, 6, 3)},
	{Name: "resnet50", Title: "ResNet50", Source: srcRes, Size: 224, build: resNet(true, 3, 4, 6, 3)},
	{Name: "resnet101", Title: "ResNet101", Source: srcRes, Size: 224, build: resNet(true, 3, 4, 23, 3)},
	{Name: "resnet152", Title: "ResNet152", Source: srcRes, Size: 224, build: resNet(true, 3, 8, 36, 3)},
	{Name: "vgg11", Title: "VGG11", Source: srcVGG, Size: 224, Divisor: 224, build: vgg(1, 1, 2, 2, 2)},
	{Name: "vgg13", Title: "VGG13", Source: srcVGG, Size: 224, Divisor: 224, build: vgg(2, 2, 2, 2, 2)},
	{Name: "vgg16", Title: "VGG16", Source: srcVGG, Size: 224, Divisor: 224, build: vgg(2, 2, 3, 3, 3)},
	{Name: "vgg19", Title: "VGG19", Source: srcVGG, Size: 224, Divisor: 224, build: vgg(2, 2, 4, 4, 4)},
	{Name: "densenet121", Title: "DenseNet121", Source: srcDense, Size: 224, build: denseNet(6, 12, 24, 16)},
	{Name: "densenet169", Title: "DenseNet169", Source: srcDense, Size: 224, build: denseNet(6, 12, 32, 32)},
	{Name: "densenet201", Title: "DenseNet201", Source: srcDense, Size: 224, build: denseNet(6, 12, 48, 32)},
	{Name: "squeezenet1_1", Title: "SqueezeNet1.1", Source: srcSqueeze, Size: 224, build: squeezeNet},

	{Name: "resnext50_32x4d", Title: "ResNeXt50-32x4d", Source: "arXiv 1611.05431, torchvision", Size: 224, build: resNetOf(true, 2, 32, 3, 4, 6, 3)},
	{Name: "wide_resnet50_2", Title: "WideResNet50-2", Source: "arXiv 1605.07146, torchvision", Size: 224, build: resNetOf(true, 2, 1, 3, 4, 6, 3)},
	{Name: "alexnet", Title: "AlexNet", Source: "arXiv 1404.5997, torchvision", Size: 224, Divisor: 224, build: alexNet},
	{Name: "googlenet", Title: "GoogLeNet", Source: "arXiv 1409.4842, torchvision", Size: 224, build: googLeNet},
	{Name: "inception_v3", Title: "InceptionV3", Source: "arXiv 1512.00567, torchvision", Size: 299, build: inceptionV3},

	{Name: "efficientnet_b0", Title: "EfficientNet-B0", Source: srcEff, Size: 224, build: efficientNet(1, 1, 1e-5)},
	{Name: "efficientnet_b1", Title: "EfficientNet-B1", Source: srcEff, Size: 240, build: efficientNet(1, 1.1, 1e-5)},
	{Name: "efficientnet_b2", Title: "EfficientNet-B2", Source: srcEff, Size: 260, build: efficientNet(1.1, 1.2, 1e-5)},
	{Name: "efficientnet_b3", Title: "EfficientNet-B3", Source: srcEff, Size: 300, build: efficientNet(1.2, 1.4, 1e-5)},
	{Name: "efficientnet_b4", Title: "EfficientNet-B4", Source: srcEff, Size: 380, build: efficientNet(1.4, 1.8, 1e-5)},
	{Name: "efficientnet_b5", Title: "EfficientNet-B5", Source: srcEff, Size: 456, build: efficientNet(1.6, 2.2, 1e-3)},
	{Name: "efficientnet_v2_s", Title: "EfficientNetV2-S", Source: srcEffV2, Size: 384, build: efficientNetV2S()},

	{Name: "convnext_tiny", Title: "ConvNeXt-T", Source: srcNeXt, Size: 224, build: convNeXt(96, 3, 3, 9, 3)},
	{Name: "convnext_small", Title: "ConvNeXt-S", Source: srcNeXt, Size: 224, build: convNeXt(96, 3, 3, 27, 3)},
	{Name: "convnext_base", Title: "ConvNeXt-B", Source: srcNeXt, Size: 224, build: convNeXt(128, 3, 3, 27, 3)},
	{Name: "regnet_y_400mf", Title: "RegNetY-400MF", Source: srcRegNet, Size: 224, build: regNetY(16, 48, 27.89, 2.09, 8)},
	{Name: "regnet_y_800mf", Title: "RegNetY-800MF", Source: srcRegNet, Size: 224, build: regNetY(14, 56, 38.84, 2.4, 16)},
	{Name: "regnet_y_1_6gf", Title: "RegNetY-1.6GF", Source: srcRegNet, Size: 224, build: regNetY(27, 48, 20.71, 2.65, 24)},
	{Name: "regnet_y_3_2gf", Title: "RegNetY-3.2GF", Source: srcRegNet, Size: 224, build: regNetY(21, 80, 42.63, 2.66, 24)},
	{Name: "regnet_y_8gf", Title: "RegNetY-8GF", Source: srcRegNet, Size: 224, build: regNetY(17, 192, 76.82, 2.19, 56)},
	{Name: "regnet_y_16gf", Title: "RegNetY-16GF", Source: srcRegNet, Size: 224, build: regNetY(18, 200, 106.23, 2.48, 112)},

	{Name: "vit_b_16", Title: "ViT-B/16", Source: srcViT, Size: 224, Divisor: 16, build: vit(12, 768, 12)},
	{Name: "deit_s", Title: "DeiT-S", Aliases: []string{"deit_small"}, Source: srcDeiT, Size: 224, Divisor: 16, build: vit(12, 384, 6)},
	{Name: "deit_ti", Title: "DeiT-Ti", Aliases: []string{"deit_tiny"}, Source: srcDeiT, Size: 224, Divisor: 16, build: vit(12, 192, 3)},

	{Name: "bert_base", Title: "BERT-base", Source: "arXiv 1810.04805", Size: 128, Tokens: true, build: bert(12, true)},
	{Name: "distilbert", Title: "DistilBERT", Source: "arXiv 1910.01108", Size: 128, Tokens: true, build: bert(6, false)},
	{Name: "decoder_1l", Title: "one decoder layer of Qwen2-0.5B", Source: srcQwen, Size: 512, Tokens: true, build: qwen2.withLayers(1).build},
	{Name: "decoder_24l", Title: "Qwen2-0.5B", Aliases: []string{"qwen2_0.5b"}, Source: srcQwen, Size: 512, Tokens: true, build: qwen2.build},
	{Name: "lm_head", Title: "output layer of Llama 3.2 1B", Source: srcLlama, build: lmHead(2048, 128256)},
	{Name: "lm_head_8b", Title: "output layer of Llama 3 8B", Source: srcLlama, build: lmHead(4096, 128256)},
	{Name: "fc_stack", Title: "8 fully connected layers of 4096", Source: srcOwn, build: fcStack(8, 4096)},

	{Name: "tiny_mlp", Title: "two fully connected layers", Source: srcOwn, build: tinyMLP},
	{Name: "tiny_cnn", Title: "a small convolutional network", Source: srcOwn, Size: 32, build: tinyCNN},
	{Name: "tiny_vit", Title: "a small vision transformer", Source: srcOwn, Size: 32, Divisor: 16, build: vit(2, 32, 2)},
	{Name: "tiny_decoder", Title: "a small language model", Source: srcOwn, Size: 16, Tokens: true,
		build: lm{layers: 2, dim: 64, heads: 4, kvHeads: 2, ffn: 128, vocab: 256}.build},
}

// squash reduces a name to what spellings have in common. "_" stays between
// digits, where it separates a width from a version.
func squash(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	var out []byte
	for i := range len(s) {
		c := s[i]
		if c == '-' || c == '_' || c == ' ' {
			digit := func(j int) bool { return j >= 0 && j < len(s) && s[j] >= '0' && s[j] <= '9' }
			if !digit(i-1) || !digit(i+1) {
				continue
			}
			c = '_'
		}
		out = append(out, c)
	}
	return string(out)
}

var byName = func() map[string]*Entry {
	m := map[string]*Entry{}
	for i := range entries {
		e := &entries[i]
		e.Divisor = max(e.Divisor, 1)
		for _, n := range append([]string{e.Name, e.Title}, e.Aliases...) {
			k := squash(n)
			if o, ok := m[k]; ok && o != e {
				panic("zoo: two networks answer to " + n)
			}
			m[k] = e
		}
	}
	return m
}()

// Names returns the canonical names of all networks, sorted.
func Names() []string {
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name
	}
	slices.Sort(out)
	return out
}

// Info describes a network. The name may be any spelling that [Build] takes;
// Size is then the size asked for.
func Info(name string) (Entry, error) {
	base, suffix, sized := strings.Cut(name, "@")
	e, ok := byName[squash(base)]
	if !ok {
		return Entry{}, unknown(name, base)
	}
	out := *e
	if !sized {
		return out, nil
	}
	size, err := strconv.Atoi(suffix)
	switch {
	case e.Size == 0:
		return Entry{}, fmt.Errorf("zoo: %q: %s has no input size to choose", name, e.Name)
	case err != nil:
		return Entry{}, fmt.Errorf("zoo: %q: input size %q is not a number (write %s@%d)", name, suffix, e.Name, e.Size)
	case size < 1 || size > maxSize:
		return Entry{}, fmt.Errorf("zoo: %q: input size %d is outside 1 to %d", name, size, maxSize)
	case size%e.Divisor != 0:
		return Entry{}, fmt.Errorf("zoo: %q: input size %d is not a multiple of %d", name, size, e.Divisor)
	}
	out.Size = size
	return out, nil
}

// Has reports whether name is a network of the zoo (in any spelling, with or
// without an input size).
func Has(name string) bool {
	base, _, _ := strings.Cut(name, "@")
	_, ok := byName[squash(base)]
	return ok
}

// Build returns a network by name, with seeded weights that are computed on
// first use. The result is a new graph each time and may be modified; the same
// name gives the same weights.
func Build(name string) (g *model.Graph, err error) {
	e, err := Info(name)
	if err != nil {
		return nil, err
	}
	full := e.Name
	if d := byName[squash(e.Name)].Size; e.Size != d {
		full = fmt.Sprintf("%s@%d", e.Name, e.Size)
	}
	defer func() {
		if r := recover(); r != nil {
			be, ok := r.(buildError)
			if !ok {
				panic(r)
			}
			g, err = nil, be.error
		}
	}()
	b := newBuilder(full, e.Name)
	e.build(b, e.Size)
	return b.g, nil
}

// unknown names the networks nearest in spelling.
func unknown(name, base string) error {
	type near struct {
		name string
		d    int
	}
	if len(name) > 64 {
		name, base = name[:64]+"...", base[:min(len(base), 64)]
	}
	var ns []near
	key := squash(base)
	for _, e := range entries {
		k := squash(e.Name)
		d := distance(key, k)
		if key != "" && (strings.Contains(k, key) || strings.Contains(key, k)) {
			d = min(d, 2)
		}
		ns = append(ns, near{e.Name, d})
	}
	slices.SortStableFunc(ns, func(a, b near) int {
		if a.d != b.d {
			return a.d - b.d
		}
		return strings.Compare(a.name, b.name)
	})
	var close []string
	for _, n := range ns {
		if len(close) < 4 && n.d <= max(2, min(len(key)/2, 6)) {
			close = append(close, n.name)
		}
	}
	if len(close) == 0 {
		return fmt.Errorf("zoo: unknown network %q (built in: %s)", name, strings.Join(Names(), ", "))
	}
	return fmt.Errorf("zoo: unknown network %q (did you mean %s?)", name, strings.Join(close, ", "))
}

// distance is the edit distance of Levenshtein.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := prev
			if a[i] != b[j] {
				d++
			}
			prev = row[j+1]
			row[j+1] = min(d, row[j]+1, prev+1)
		}
	}
	return row[len(b)]
}
