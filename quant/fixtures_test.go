package quant

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
)

// stagesOf translates the scheme in a fixture's name into stages, with the
// given weight threshold.
func stagesOf(name string, threshold int) ([]Stage, error) {
	one := func(p string) (OpConfig, error) {
		lin := func(d model.DType, g model.Granularity, block int, asym bool) OpConfig {
			return Linear{DType: d, Granularity: g, BlockSize: block, Asymmetric: asym, Threshold: threshold}
		}
		pal := func(bits int) Palette {
			c := DefaultPalette(bits)
			c.Threshold = threshold
			return c
		}
		mag := func(s float64) Magnitude { return Magnitude{Sparsity: s, Threshold: threshold} }
		switch p {
		case "w8pc_sym", "w8pc_sym_t0", "w8":
			return lin(model.Int8, model.PerChannel, 0, false), nil
		case "w8lin", "w8pc_lin":
			return lin(model.Int8, model.PerChannel, 0, true), nil
		case "w8pt_sym", "lut8":
			return lin(model.Int8, model.PerTensor, 0, false), nil
		case "w8pt_lin", "lut8lin":
			return lin(model.Int8, model.PerTensor, 0, true), nil
		case "u8pc_sym":
			return lin(model.UInt8, model.PerChannel, 0, false), nil
		case "u8pc_lin":
			return lin(model.UInt8, model.PerChannel, 0, true), nil
		case "w4pc_sym", "w4":
			return lin(model.Int4, model.PerChannel, 0, false), nil
		case "w4pt_lin":
			return lin(model.Int4, model.PerTensor, 0, true), nil
		case "w4pb16_sym":
			return lin(model.Int4, model.PerBlock, 16, false), nil
		case "w4pb32_sym":
			return lin(model.Int4, model.PerBlock, 32, false), nil
		case "w4pb16_lin":
			return lin(model.Int4, model.PerBlock, 16, true), nil
		case "u4pb16_lin":
			return lin(model.UInt4, model.PerBlock, 16, true), nil
		case "w8pb16_sym":
			return lin(model.Int8, model.PerBlock, 16, false), nil
		case "prune50", "prune_m50":
			return mag(0.5), nil
		case "prune75", "prune_m75":
			return mag(0.75), nil
		case "prune_b4_50":
			c := mag(0.5)
			c.BlockSize = 4
			return c, nil
		case "prune_nm24":
			return Magnitude{N: 2, M: 4, Dim: 1, Threshold: threshold}, nil
		case "prune_nm34_d0":
			return Magnitude{N: 3, M: 4, Dim: 0, Threshold: threshold}, nil
		case "prune_thr":
			return Threshold{Value: 0.03, MinSparsity: 0.3, Threshold: threshold}, nil
		}
		var bits int
		if _, err := fmt.Sscanf(p, "pal%d", &bits); err == nil {
			c := pal(bits)
			for _, f := range strings.Split(p, "_")[1:] {
				switch f {
				case "km":
				case "un":
					c.Mode = Uniform
				case "pcs":
					c.PerChannelScale = true
				case "vec2":
					c.ClusterDim = 2
				case "gc2":
					c.Grouped, c.GroupSize = true, 2
				case "gc8":
					c.Grouped, c.GroupSize = true, 8
				case "ax1":
					ax := 1
					c.ChannelAxis = &ax
				default:
					return nil, fmt.Errorf("unknown part %q", f)
				}
			}
			return c, nil
		}
		return nil, fmt.Errorf("unknown scheme %q", p)
	}
	if rest, ok := strings.CutPrefix(name, "j_"); ok {
		var out []Stage
		for _, p := range strings.Split(rest, "_") {
			c, err := one(p)
			if err != nil {
				return nil, err
			}
			out = append(out, Stage{Global: c})
		}
		return out, nil
	}
	c, err := one(name)
	return []Stage{{Global: c}}, err
}

func load(t *testing.T, path string) *model.Graph {
	t.Helper()
	g, err := coreml.Load(path, coreml.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// weightList returns the floating-point weights of a graph by node name and
// operand.
func weightList(g *model.Graph) map[string]*model.Const {
	m := map[string]*model.Const{}
	for _, w := range weightsOf(g) {
		if w.value.Const.Elems() < minFileElems {
			continue
		}
		for _, r := range w.readers {
			m[fmt.Sprintf("%s[%d]", r.node.Name, r.arg)] = w.value.Const
		}
	}
	return m
}

func ints(t *testing.T, c *model.Const) []int64 {
	t.Helper()
	v, err := c.Value()
	if err != nil {
		t.Fatal(err)
	}
	out := make([]int64, v.Len())
	for i := range out {
		out[i] = v.IntAt(i)
	}
	return out
}

func bitsOfConst(t *testing.T, c *model.Const) []byte {
	t.Helper()
	v, err := c.Value()
	if err != nil {
		t.Fatal(err)
	}
	return v.Data
}

// diffConst compares how two constants are stored, bit for bit.
func diffConst(t *testing.T, got, want *model.Const, kmeans bool) string {
	t.Helper()
	if got.Storage.Form() != want.Storage.Form() {
		return fmt.Sprintf("form %s, want %s", got.Storage.Form(), want.Storage.Form())
	}
	count := func(a, b []int64) string {
		if len(a) != len(b) {
			return fmt.Sprintf("%d elements, want %d", len(a), len(b))
		}
		n := 0
		for i := range a {
			if a[i] != b[i] {
				n++
			}
		}
		if n > 0 {
			return fmt.Sprintf("%d of %d differ", n, len(a))
		}
		return ""
	}
	part := func(what string, a, b *model.Const) string {
		if a.DType != b.DType {
			return fmt.Sprintf("%s of type %s, want %s", what, a.DType, b.DType)
		}
		if x, ok := a.Storage.(*model.Sparse); ok {
			y, ok := b.Storage.(*model.Sparse)
			if !ok {
				return what + " sparse, want dense"
			}
			if d := count(ints(t, x.Mask), ints(t, y.Mask)); d != "" {
				return what + " mask: " + d
			}
			if !slices.Equal(bitsOfConst(t, x.Values), bitsOfConst(t, y.Values)) {
				return what + " kept: differ"
			}
			return ""
		}
		if !slices.Equal(bitsOfConst(t, a), bitsOfConst(t, b)) {
			if a.DType.IsFloat() {
				return fmt.Sprintf("%s differ (%v, want %v)", what, a.Shape, b.Shape)
			}
			return what + ": " + count(ints(t, a), ints(t, b))
		}
		return ""
	}
	switch x := got.Storage.(type) {
	case *model.Affine:
		y := want.Storage.(*model.Affine)
		if d := part("codes", x.Codes, y.Codes); d != "" {
			return d
		}
		if d := part("scale", x.Scale, y.Scale); d != "" {
			return d
		}
		zeros := func(c *model.Const, n int64) []int64 {
			if c == nil {
				return make([]int64, n)
			}
			return ints(t, c)
		}
		if d := count(zeros(x.Zero, x.Scale.Elems()), zeros(y.Zero, y.Scale.Elems())); d != "" {
			return "zero points: " + d
		}
	case *model.Lookup:
		y := want.Storage.(*model.Lookup)
		if kmeans {
			return ""
		}
		if d := part("indices", x.Indices, y.Indices); d != "" {
			return d
		}
		if x.Table.Storage.Form() == model.FormAffine {
			return diffConst(t, x.Table, y.Table, kmeans)
		}
		return part("table", x.Table, y.Table)
	case *model.Sparse:
		y := want.Storage.(*model.Sparse)
		if d := part("mask", x.Mask, y.Mask); d != "" {
			return d
		}
		return part("values", x.Values, y.Values)
	default:
		return part("values", got, want)
	}
	return ""
}

func squaredError(t *testing.T, c, ref *model.Const) float64 {
	t.Helper()
	a, err := c.Value()
	if err != nil {
		t.Fatal(err)
	}
	b, err := ref.Value()
	if err != nil {
		t.Fatal(err)
	}
	var e float64
	for i := range a.Len() {
		d := a.At(i) - b.At(i)
		e += d * d
	}
	return e
}

// TestCoremltools compresses the uncompressed packages and compares with what
// coremltools made of them: the same decisions, and the same bits in codes,
// scales, zero points, masks and uniform tables. K-means tables may be better
// than theirs.
func TestCoremltools(t *testing.T) {
	dir := testutil.Shared(t, "fixtures/mlpackage")
	list, err := filepath.Glob(filepath.Join(dir, "compressed", "*.mlpackage"))
	if err != nil || len(list) == 0 {
		t.Fatal("no packages", err)
	}
	for _, path := range list {
		base := strings.TrimSuffix(filepath.Base(path), ".mlpackage")
		net, rest, _ := strings.Cut(base, "__")
		if strings.HasPrefix(rest, "a8_") {
			continue // weights stay float
		}
		i := strings.LastIndex(rest, "_iOS")
		scheme, target := rest[:i], rest[i+1:]
		if strings.HasPrefix(scheme, "w8a8") { // activations beside the weights; see TestCoremltoolsActivations
			if scheme = "w8"; strings.Contains(rest, "_lin_") {
				scheme = "w8lin"
			}
		}
		t.Run(base, func(t *testing.T) {
			plain := filepath.Join(dir, "plain", net+"_"+target+".mlpackage")
			if _, err := os.Stat(plain); err != nil {
				plain = filepath.Join(dir, "plain", net+"_iOS16.mlpackage")
			}
			src, want := load(t, plain), weightList(load(t, path))
			dense := weightList(src)
			threshold := 0
			if scheme == "w8pc_sym" {
				threshold = WeightThreshold
			}
			stages, err := stagesOf(scheme, threshold)
			if err != nil {
				t.Fatal(err)
			}
			out, report, err := Apply(src, Scheme{Stages: stages}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			got := weightList(out)
			kmeans := strings.Contains(scheme, "_km") || strings.HasPrefix(scheme, "j_") && strings.Contains(scheme, "pal")
			for _, k := range sortedKeys(want) {
				if got[k] == nil {
					t.Errorf("%s: not in the compressed graph", k)
					continue
				}
				if d := diffConst(t, got[k], want[k], kmeans); d != "" {
					reason := ""
					for _, w := range report.Weights {
						if k == w.Node+"[1]" {
							reason = w.Skipped
						}
					}
					t.Errorf("%s %v: %s %s", k, want[k].Shape, d, reason)
					continue
				}
				if kmeans && want[k].Storage.Form() == model.FormLookup {
					e, limit := squaredError(t, got[k], dense[k]), squaredError(t, want[k], dense[k])
					if e > limit*1.001 {
						t.Errorf("%s: squared error %g, theirs %g", k, e, limit)
					}
				}
			}
		})
	}
}

// TestCoremltoolsActivations compares where quantize and dequantize operators
// go with the packages that coremltools'
// linear_quantize_activations made (their ranges came from samples that are
// not recorded, so that scales cannot be compared).
func TestCoremltoolsActivations(t *testing.T) {
	dir := testutil.Shared(t, "fixtures/mlpackage")
	list, err := filepath.Glob(filepath.Join(dir, "compressed", "*a8_*.mlpackage"))
	if err != nil || len(list) == 0 {
		t.Fatal("no packages", err)
	}
	for _, path := range list {
		base := strings.TrimSuffix(filepath.Base(path), ".mlpackage")
		net, rest, _ := strings.Cut(base, "__")
		i := strings.LastIndex(rest, "_iOS")
		t.Run(base, func(t *testing.T) {
			plain := filepath.Join(dir, "plain", net+"_"+rest[i+1:]+".mlpackage")
			if _, err := os.Stat(plain); err != nil {
				plain = filepath.Join(dir, "plain", net+"_iOS18.mlpackage")
			}
			want := load(t, path)
			s := Scheme{Float: model.Float16, Activations: &ActivationConfig{Rule: PostTraining, DType: model.Int8}}
			s.Activations.Asymmetric = strings.Contains(rest, "_lin")
			if strings.Contains(rest, "usym") {
				s.Activations.DType = model.UInt8
			}
			got, _, err := Apply(load(t, plain), s, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(edges(want), edges(got)); d != "" {
				t.Errorf("(-theirs +ours)\n%s", d)
			}
		})
	}
}

// TestZeroChannel quantises again what coremltools' weights with an all-zero
// channel decode to: the codes, scales and zero points come out as they wrote
// them.
func TestZeroChannel(t *testing.T) {
	for _, name := range []string{"zero_channel_linear_symmetric_iOS16", "zero_channel_linear_symmetric_iOS18", "zero_channel_linear_iOS16"} {
		found := false
		for k, want := range weightList(load(t, testutil.Shared(t, "fixtures/mlpackage/special/"+name+".mlpackage"))) {
			s, ok := want.Storage.(*model.Affine)
			if !ok {
				continue
			}
			scales := decode(t, s.Scale)
			for i := range scales.Len() {
				found = found || scales.At(i) == 0
			}
			v := decode(t, want)
			cfg := Linear{DType: s.Codes.DType, Granularity: model.PerChannel, Asymmetric: !strings.Contains(name, "symmetric")}
			got, reason, err := newCompressor().linear(cfg, denseWeight(v, "Conv"))
			if err != nil || reason != "" {
				t.Fatal(reason, err)
			}
			if d := diffConst(t, got, want, false); d != "" && !cfg.Asymmetric { // an asymmetric range does not come back exactly
				t.Errorf("%s %s: %s", name, k, d)
			}
			if cfg.Asymmetric {
				a := got.Storage.(*model.Affine)
				for i := range scales.Len() {
					if scales.At(i) == 0 && (decode(t, a.Scale).At(i) != 0 || decode(t, a.Zero).At(i) != decode(t, s.Zero).At(i)) {
						t.Errorf("%s %s: channel %d has scale %v, zero %v", name, k, i, decode(t, a.Scale).At(i), decode(t, a.Zero).At(i))
					}
				}
			}
		}
		if !found {
			t.Errorf("%s: no all-zero channel", name)
		}
	}
}
