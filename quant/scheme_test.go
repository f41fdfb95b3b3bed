package quant

import (
	"reflect"
	"strings"
	"testing"

	"github.com/triune-sim/triune/model"
)

func TestParse(t *testing.T) {
	lin := func(d model.DType, g model.Granularity, block int, asym bool) OpConfig {
		return Linear{DType: d, Granularity: g, BlockSize: block, Asymmetric: asym, Threshold: 2048}
	}
	free := func(c OpConfig) OpConfig { l := c.(Linear); l.Threshold = 0; return l }
	w8 := lin(model.Int8, model.PerChannel, 32, false)
	p4 := DefaultPalette(4)
	p4g16 := p4
	p4g16.Grouped, p4g16.GroupSize = true, 16
	s50 := Magnitude{Sparsity: 0.5, Threshold: 2048}
	for name, want := range map[string]Scheme{
		"fp16":       {Float: model.Float16},
		"fp32":       {Float: model.Float32},
		"fp32+w8":    {Float: model.Float32, Stages: []Stage{{Global: w8}}},
		"w8":         {Float: model.Float16, Stages: []Stage{{Global: w8}}},
		"w8-tensor":  {Float: model.Float16, Stages: []Stage{{Global: lin(model.Int8, model.PerTensor, 32, false)}}},
		"w8-lin":     {Float: model.Float16, Stages: []Stage{{Global: lin(model.Int8, model.PerChannel, 32, true)}}},
		"u4b16-lin":  {Float: model.Float16, Stages: []Stage{{Global: lin(model.UInt4, model.PerBlock, 16, true)}}},
		"w4b32":      {Float: model.Float16, Stages: []Stage{{Global: lin(model.Int4, model.PerBlock, 32, false)}}},
		"w8a8":       {Float: model.Float16, Stages: []Stage{{Global: free(w8)}}, Activations: &ActivationConfig{}},
		"w8a8-ptq":   {Float: model.Float16, Stages: []Stage{{Global: w8}}, Activations: &ActivationConfig{Rule: PostTraining, DType: model.Int8}},
		"a8-lin-ptq": {Float: model.Float16, Activations: &ActivationConfig{Rule: PostTraining, DType: model.Int8, Asymmetric: true}},
		"p4":         {Float: model.Float16, Stages: []Stage{{Global: p4}}},
		"p4g16":      {Float: model.Float16, Stages: []Stage{{Global: p4g16}}},
		"s50":        {Float: model.Float16, Stages: []Stage{{Global: s50}}},
		"S2:4":       {Float: model.Float16, Stages: []Stage{{Global: Magnitude{N: 2, M: 4, Dim: 1, Threshold: 2048}}}},
		"s50+w8":     {Float: model.Float16, Stages: []Stage{{Global: s50}, {Global: w8}}},
		"p4+w8":      {Float: model.Float16, Stages: []Stage{{Global: p4}, {Global: lin(model.Int8, model.PerTensor, 32, false)}}},
	} {
		got, err := Parse(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want.Name = name
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"":              "unknown scheme",
		"w9":            "unknown scheme",
		"w8b":           "unknown scheme",
		"w8b0":          "block_size 0",
		"w8b16-tensor":  "unknown scheme",
		"w8-ptq":        "unknown scheme",
		"p5":            "unknown scheme",
		"p4g0":          "group_size 0",
		"p4v2-uniform":  "uniform palette",
		"s101":          "unknown scheme",
		"s2:0":          "unknown scheme",
		"s5:4":          "n_m_ratio",
		"s50b1":         "block_size 1",
		"fp16+fp32":     "type twice",
		"w8a8+a8":       "twice",
		"w8+":           "unknown scheme",
		"w8b99999999":   "unknown scheme",
		"resnet50":      "p4g16",
		"w8a8 ; drop":   "unknown scheme",
		"s50+w8\x00":    "unknown scheme",
		"fp16+w8+w8a9":  "unknown scheme",
		"W8A8-PTQ-lin ": "unknown scheme",
	} {
		_, err := Parse(name)
		if err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%q: got %v, want one line with %q", name, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"w8a8", "p4g16+w8", "s2:4+u4b8-lin", "a8-lin-ptq", "fp32+p-unique"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		s, err := Parse(name)
		if err == nil {
			if err := s.check(); err != nil {
				t.Errorf("%q was accepted, but %v", name, err)
			}
		}
	})
}

func TestReadConfig(t *testing.T) {
	s, err := ReadConfig(strings.NewReader(`
config_type: OpLinearQuantizerConfig
global_config:
  mode: linear
  dtype: uint8
  weight_threshold: 512
op_type_configs:
  conv: {dtype: int4, granularity: per_block, block_size: 16}
  linear: null
op_name_configs:
  head: {granularity: per_tensor}
  stem: {granularity: per_block, block_size: [0, 8, 0, 0]}
`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Float != model.Float16 || len(s.Stages) != 1 || s.Activations != nil {
		t.Fatalf("got %+v", s)
	}
	st := s.Stages[0]
	if want := (Linear{DType: model.UInt8, Asymmetric: true, Granularity: model.PerChannel, BlockSize: 32, Threshold: 512}); !reflect.DeepEqual(st.Global, want) {
		t.Errorf("global: got %+v", st.Global)
	}
	if want := (Linear{DType: model.Int4, Granularity: model.PerBlock, BlockSize: 16, Threshold: 2048}); !reflect.DeepEqual(st.OpTypes["conv"], want) {
		t.Errorf("conv: got %+v", st.OpTypes["conv"])
	}
	if c, ok := st.OpTypes["linear"]; !ok || c != nil {
		t.Errorf("linear: got %v, %v; want a nil entry", c, ok)
	}
	if c := st.OpNames["stem"].(Linear); !reflect.DeepEqual(c.BlockSizes, []int{0, 8, 0, 0}) {
		t.Errorf("stem: got %+v", c)
	}
	s, err = ReadConfig(strings.NewReader(`
name: joint
compute_precision: float32
stages:
  - config_type: OpMagnitudePrunerConfig
    global_config: {target_sparsity: 0.75}
  - config_type: OpPalettizerConfig
    global_config: {nbits: 4, granularity: per_grouped_channel, group_size: 8, channel_axis: 1, enable_per_channel_scale: false}
activations:
  rule: ptq
  op_type_configs: {add: null}
  op_name_configs: {last: null}
`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "joint" || s.Float != model.Float32 || len(s.Stages) != 2 {
		t.Errorf("got %+v", s)
	}
	if p := s.Stages[1].Global.(Palette); !p.Grouped || p.GroupSize != 8 || p.ChannelAxis == nil || *p.ChannelAxis != 1 {
		t.Errorf("palette: got %+v", p)
	}
	if a := s.Activations; a == nil || a.Rule != PostTraining || !a.SkipTypes["add"] || !a.SkipNames["last"] {
		t.Errorf("activations: got %+v", a)
	}
	for name, c := range map[string][2]string{
		"empty":          {"", "nothing to do"},
		"not yaml":       {"\t{", "configuration"},
		"unknown key":    {"config_type: OpLinearQuantizerConfig\nglobl_config: {}", "globl_config"},
		"unknown op key": {"config_type: OpLinearQuantizerConfig\nglobal_config: {bits: 3}", "bits"},
		"type":           {"config_type: OpFoo\nglobal_config: {}", "OpLinearQuantizerConfig"},
		"foreign key":    {"config_type: OpLinearQuantizerConfig\nglobal_config: {nbits: 4}", "has no key nbits"},
		"dtype":          {"config_type: OpLinearQuantizerConfig\nglobal_config: {dtype: fp16}", "want int8"},
		"mode":           {"config_type: OpPalettizerConfig\nglobal_config: {mode: lloyd, nbits: 4}", "kmeans"},
		"nbits":          {"config_type: OpPalettizerConfig\nglobal_config: {nbits: 5}", "5 bits"},
		"no nbits":       {"config_type: OpPalettizerConfig\nglobal_config: {}", "nbits is missing"},
		"both":           {"config_type: OpMagnitudePrunerConfig\nglobal_config: {target_sparsity: 0.5, n_m_ratio: [2, 4]}", "either"},
		"sparsity":       {"config_type: OpMagnitudePrunerConfig\nglobal_config: {target_sparsity: 1.5}", "0 to 1"},
		"nan":            {"config_type: OpThresholdPrunerConfig\nglobal_config: {threshold: .nan}", "threshold"},
		"two forms":      {"config_type: OpLinearQuantizerConfig\nstages: [{config_type: OpLinearQuantizerConfig}]", "exclude"},
		"precision":      {"compute_precision: int8", "float16"},
		"activations":    {"activations: {dtype: int4}", "int8 or uint8"},
	} {
		_, err := ReadConfig(strings.NewReader(c[0]))
		if err == nil || !strings.Contains(err.Error(), c[1]) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %q", name, err, c[1])
		}
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add("config_type: OpLinearQuantizerConfig\nglobal_config: {dtype: int4, block_size: [1, 2]}\n")
	f.Add("stages: [{config_type: OpPalettizerConfig, global_config: {nbits: 4}}]\nactivations: {}\n")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ReadConfig(strings.NewReader(text)); err == nil {
			if err := s.check(); err != nil {
				t.Errorf("accepted, but %v", err)
			}
		}
	})
}

func TestOverride(t *testing.T) {
	n := 100
	s, err := mustParse(t, "s50+w8").Override(Overrides{WeightThreshold: &n, BlockSize: 16, Mode: "linear", DType: "uint4"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Stage{{Global: Magnitude{Sparsity: 0.5, Threshold: 100}},
		{Global: Linear{Asymmetric: true, DType: model.UInt4, Granularity: model.PerBlock, BlockSize: 16, Threshold: 100}}}
	if !reflect.DeepEqual(s.Stages, want) {
		t.Errorf("got %+v", s.Stages)
	}
	neg := -1
	for _, c := range []struct {
		scheme string
		o      Overrides
		want   string
	}{
		{"fp16", Overrides{WeightThreshold: &n}, "no stage that takes a weight threshold"},
		{"p4", Overrides{DType: "int8", Mode: "linear"}, "no stage that takes a mode, a dtype"},
		{"w8", Overrides{DType: "fp16"}, "want int8"},
		{"w8", Overrides{DType: "float"}, "want int8"},
		{"w8", Overrides{Mode: "affine"}, "linear_symmetric"},
		{"w8", Overrides{Granularity: "per_row"}, "per_tensor"},
		{"w8", Overrides{Granularity: "per_tensor", BlockSize: 8}, "per_block"},
		{"w8", Overrides{BlockSize: -4}, "block_size -4"},
		{"p4", Overrides{WeightThreshold: &neg}, "weight_threshold -1"},
	} {
		if _, err := mustParse(t, c.scheme).Override(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.scheme, err, c.want)
		}
	}
}
