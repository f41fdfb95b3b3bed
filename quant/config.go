package quant

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/triune-sim/triune/internal/strictyaml"
	"github.com/triune-sim/triune/model"
)

// configFile is a YAML configuration: coremltools' OptimizationConfig at the
// top level, or a list of them, and what to do with activations.
type configFile struct {
	Name        string          `yaml:"name"`
	Precision   string          `yaml:"compute_precision"`
	Type        string          `yaml:"config_type"`
	Global      *opFile         `yaml:"global_config"`
	OpTypes     opFiles         `yaml:"op_type_configs"`
	OpNames     opFiles         `yaml:"op_name_configs"`
	Stages      []stageFile     `yaml:"stages"`
	Activations *activationFile `yaml:"activations"`
}

type opFiles map[string]*opFile

type stageFile struct {
	Type    string  `yaml:"config_type"`
	Global  *opFile `yaml:"global_config"`
	OpTypes opFiles `yaml:"op_type_configs"`
	OpNames opFiles `yaml:"op_name_configs"`
}

// opFile has the keys of all configuration types; which of them a type knows
// is checked afterwards.
type opFile struct {
	Mode            *string  `yaml:"mode"`
	DType           *string  `yaml:"dtype"`
	Granularity     *string  `yaml:"granularity"`
	BlockSize       any      `yaml:"block_size"`
	WeightThreshold *int     `yaml:"weight_threshold"`
	NBits           *int     `yaml:"nbits"`
	GroupSize       *int     `yaml:"group_size"`
	ChannelAxis     *int     `yaml:"channel_axis"`
	ClusterDim      *int     `yaml:"cluster_dim"`
	PerChannelScale *bool    `yaml:"enable_per_channel_scale"`
	Workers         *int     `yaml:"num_kmeans_workers"`
	Sparsity        *float64 `yaml:"target_sparsity"`
	NM              []int    `yaml:"n_m_ratio"`
	Dim             *int     `yaml:"dim"`
	Threshold       *float64 `yaml:"threshold"`
	MinSparsity     *float64 `yaml:"minimum_sparsity_percentile"`
}

type activationFile struct {
	Rule    string  `yaml:"rule"`
	Mode    string  `yaml:"mode"`
	DType   string  `yaml:"dtype"`
	OpTypes opFiles `yaml:"op_type_configs"`
	OpNames opFiles `yaml:"op_name_configs"`
}

// keys lists the keys that are set.
func (o *opFile) keys() []string {
	var ks []string
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"mode", o.Mode != nil}, {"dtype", o.DType != nil}, {"granularity", o.Granularity != nil}, {"block_size", o.BlockSize != nil},
		{"weight_threshold", o.WeightThreshold != nil}, {"nbits", o.NBits != nil}, {"group_size", o.GroupSize != nil},
		{"channel_axis", o.ChannelAxis != nil}, {"cluster_dim", o.ClusterDim != nil}, {"enable_per_channel_scale", o.PerChannelScale != nil},
		{"num_kmeans_workers", o.Workers != nil}, {"target_sparsity", o.Sparsity != nil}, {"n_m_ratio", o.NM != nil}, {"dim", o.Dim != nil},
		{"threshold", o.Threshold != nil}, {"minimum_sparsity_percentile", o.MinSparsity != nil},
	} {
		if k.set {
			ks = append(ks, k.name)
		}
	}
	return ks
}

// allowed are the keys of each configuration type.
var allowed = map[string]string{
	"OpLinearQuantizerConfig": "mode dtype granularity block_size weight_threshold",
	"OpPalettizerConfig":      "mode nbits granularity group_size channel_axis cluster_dim enable_per_channel_scale num_kmeans_workers weight_threshold",
	"OpMagnitudePrunerConfig": "target_sparsity block_size n_m_ratio dim weight_threshold",
	"OpThresholdPrunerConfig": "threshold minimum_sparsity_percentile weight_threshold",
}

// ReadConfig reads a scheme from YAML in coremltools' vocabulary:
//
//	config_type: OpLinearQuantizerConfig   # or OpPalettizerConfig,
//	                                       # OpMagnitudePrunerConfig, OpThresholdPrunerConfig
//	global_config: {mode: linear_symmetric, dtype: int8, weight_threshold: 512}
//	op_type_configs: {conv: {dtype: int4, granularity: per_block}, gather: null}
//	op_name_configs: {classifier: null}    # null leaves an operator alone
//
// Beyond coremltools, a list under stages holds several such configurations,
// applied in order (joint compression); compute_precision is float16 (the
// default) or float32; and activations (rule: training or ptq, mode, dtype,
// and null entries by type and name) quantises activations. Unknown keys are
// errors. Names of operators are MIL's or ONNX's.
func ReadConfig(r io.Reader) (Scheme, error) {
	data, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return Scheme{}, fmt.Errorf("quant: %w", err)
	}
	var f configFile
	if err := strictyaml.Unmarshal(data, &f); err != nil {
		return Scheme{}, fmt.Errorf("quant: configuration: %s", yamlLine(err))
	}
	s := Scheme{Name: f.Name, Float: model.Float16}
	if f.Precision != "" {
		d, err := model.ParseDType(f.Precision)
		if err != nil || d != model.Float16 && d != model.Float32 {
			return Scheme{}, fmt.Errorf("quant: compute_precision %q (want float16 or float32)", f.Precision)
		}
		s.Float = d
	}
	stages := f.Stages
	if f.Type != "" || f.Global != nil || f.OpTypes != nil || f.OpNames != nil {
		if stages != nil {
			return Scheme{}, errors.New("quant: configuration: stages and config_type exclude each other")
		}
		stages = []stageFile{{f.Type, f.Global, f.OpTypes, f.OpNames}}
	}
	if len(stages) == 0 && f.Activations == nil && f.Precision == "" {
		return Scheme{}, errors.New("quant: configuration: nothing to do (want config_type and global_config, stages, activations or compute_precision)")
	}
	for i, st := range stages {
		x, err := st.stage()
		if err != nil {
			if len(stages) > 1 {
				return Scheme{}, fmt.Errorf("quant: configuration: stage %d: %w", i+1, err)
			}
			return Scheme{}, fmt.Errorf("quant: configuration: %w", err)
		}
		s.Stages = append(s.Stages, x)
	}
	if f.Activations != nil {
		if s.Activations, err = f.Activations.config(); err != nil {
			return Scheme{}, fmt.Errorf("quant: configuration: activations: %w", err)
		}
	}
	return s, s.check()
}

// yamlLine reduces a YAML error, which quotes the source, to its first line.
func yamlLine(err error) string {
	line, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
	return line
}

func (f stageFile) stage() (Stage, error) {
	keys, ok := allowed[f.Type]
	if !ok {
		return Stage{}, fmt.Errorf("config_type %q (want %s)", f.Type, strings.Join(sortedKeys(allowed), ", "))
	}
	st := Stage{OpTypes: map[string]OpConfig{}, OpNames: map[string]OpConfig{}}
	read := func(where string, o *opFile) (OpConfig, error) {
		if o == nil {
			return nil, nil
		}
		for _, k := range o.keys() {
			if !slices.Contains(strings.Fields(keys), k) {
				return nil, fmt.Errorf("%s: %s has no key %s (it has %s)", where, f.Type, k, strings.ReplaceAll(keys, " ", ", "))
			}
		}
		c, err := o.config(f.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		return c, nil
	}
	var err error
	if st.Global, err = read("global_config", f.Global); err != nil {
		return Stage{}, err
	}
	for _, k := range sortedKeys(f.OpTypes) {
		if st.OpTypes[k], err = read("op_type_configs: "+k, f.OpTypes[k]); err != nil {
			return Stage{}, err
		}
	}
	for _, k := range sortedKeys(f.OpNames) {
		if st.OpNames[k], err = read("op_name_configs: "+k, f.OpNames[k]); err != nil {
			return Stage{}, err
		}
	}
	return st, nil
}

// set overwrites a default where the file gives a value.
func set[T any](dst *T, v *T) {
	if v != nil {
		*dst = *v
	}
}

// config makes a configuration of the given type.
func (o *opFile) config(kind string) (OpConfig, error) {
	var c OpConfig
	switch kind {
	case "OpLinearQuantizerConfig":
		x := DefaultLinear()
		set(&x.Threshold, o.WeightThreshold)
		switch mode := word(o.Mode); mode {
		case "", "linear_symmetric":
		case "linear":
			x.Asymmetric = true
		default:
			return nil, fmt.Errorf("mode %q (want linear or linear_symmetric)", mode)
		}
		if o.DType != nil {
			d, err := model.ParseDType(*o.DType)
			if err != nil {
				return nil, fmt.Errorf("dtype %q (want int8, uint8, int4 or uint4)", *o.DType)
			}
			x.DType = d
		}
		switch g := word(o.Granularity); g {
		case "", "per_channel":
		case "per_tensor":
			x.Granularity = model.PerTensor
		case "per_block":
			x.Granularity = model.PerBlock
		default:
			return nil, fmt.Errorf("granularity %q (want per_tensor, per_channel or per_block)", g)
		}
		if o.BlockSize != nil {
			n, list, err := intOrList(o.BlockSize)
			if err != nil {
				return nil, fmt.Errorf("block_size: %w", err)
			}
			if list != nil {
				x.BlockSizes = list
			} else {
				x.BlockSize = n
			}
		}
		c = x
	case "OpPalettizerConfig":
		x := DefaultPalette(0)
		set(&x.Bits, o.NBits)
		set(&x.GroupSize, o.GroupSize)
		set(&x.ClusterDim, o.ClusterDim)
		set(&x.PerChannelScale, o.PerChannelScale)
		set(&x.Threshold, o.WeightThreshold)
		x.ChannelAxis = o.ChannelAxis
		switch mode := word(o.Mode); mode {
		case "", "kmeans":
		case "uniform":
			x.Mode = Uniform
		case "unique":
			x.Mode = Unique
		default:
			return nil, fmt.Errorf("mode %q (want kmeans, uniform or unique)", mode)
		}
		switch g := word(o.Granularity); g {
		case "", "per_tensor":
		case "per_grouped_channel":
			x.Grouped = true
		default:
			return nil, fmt.Errorf("granularity %q (want per_tensor or per_grouped_channel)", g)
		}
		if x.Mode == Unique && o.NBits != nil {
			return nil, errors.New("nbits does not go with mode unique")
		}
		if x.Mode != Unique && o.NBits == nil {
			return nil, fmt.Errorf("nbits is missing: mode %s needs it (want 1, 2, 3, 4, 6 or 8)", x.Mode)
		}
		c = x
	case "OpMagnitudePrunerConfig":
		x := Magnitude{Threshold: WeightThreshold}
		set(&x.Threshold, o.WeightThreshold)
		set(&x.Sparsity, o.Sparsity)
		if o.BlockSize != nil {
			n, list, err := intOrList(o.BlockSize)
			if err != nil || list != nil {
				return nil, errors.New("block_size: want one number")
			}
			x.BlockSize = n
			if n < 2 {
				return nil, fmt.Errorf("block_size %d (want at least 2)", n)
			}
		}
		if o.NM != nil {
			if len(o.NM) != 2 || o.NM[1] < 1 {
				return nil, fmt.Errorf("n_m_ratio %v (want two numbers)", o.NM)
			}
			x.N, x.M, x.Dim = o.NM[0], o.NM[1], 1
		}
		if (o.Sparsity == nil) == (o.NM == nil) {
			return nil, errors.New("want either target_sparsity or n_m_ratio")
		}
		set(&x.Dim, o.Dim)
		c = x
	default:
		x := Threshold{Value: 1e-12, MinSparsity: 0.5, Threshold: WeightThreshold}
		set(&x.Threshold, o.WeightThreshold)
		set(&x.Value, o.Threshold)
		set(&x.MinSparsity, o.MinSparsity)
		c = x
	}
	if err := c.check(); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "quant: "))
	}
	return c, nil
}

func word(s *string) string {
	if s == nil {
		return ""
	}
	return strings.ToLower(*s)
}

// intOrList reads a number or a list of numbers.
func intOrList(v any) (int, []int, error) {
	one := func(v any) (int, bool) {
		switch n := v.(type) {
		case uint64:
			return int(n), n <= 1<<30
		case int64:
			return int(n), n >= -1<<30 && n <= 1<<30
		case int:
			return n, true
		}
		return 0, false
	}
	if n, ok := one(v); ok {
		return n, nil, nil
	}
	if l, ok := v.([]any); ok {
		out := make([]int, len(l))
		for i, x := range l {
			n, ok := one(x)
			if !ok {
				return 0, nil, fmt.Errorf("%v is no whole number", x)
			}
			out[i] = n
		}
		return 0, out, nil
	}
	return 0, nil, fmt.Errorf("%v is neither a whole number nor a list of them", v)
}

func (f *activationFile) config() (*ActivationConfig, error) {
	c := &ActivationConfig{SkipTypes: map[string]bool{}, SkipNames: map[string]bool{}}
	if f.Rule != "" {
		r, err := ParseRule(f.Rule)
		if err != nil {
			return nil, errors.New(strings.TrimPrefix(err.Error(), "quant: "))
		}
		c.Rule = r
	}
	if c.Rule == PostTraining {
		c.DType = model.Int8
	}
	switch strings.ToLower(f.Mode) {
	case "", "linear_symmetric":
	case "linear":
		c.Asymmetric = true
	default:
		return nil, fmt.Errorf("mode %q (want linear or linear_symmetric)", f.Mode)
	}
	if f.DType != "" {
		d, err := model.ParseDType(f.DType)
		if err != nil || d != model.Int8 && d != model.UInt8 {
			return nil, fmt.Errorf("dtype %q (want int8 or uint8)", f.DType)
		}
		c.DType = d
	}
	for _, m := range []struct {
		from opFiles
		to   map[string]bool
	}{{f.OpTypes, c.SkipTypes}, {f.OpNames, c.SkipNames}} {
		for k, o := range m.from {
			if o != nil {
				return nil, fmt.Errorf("%s: only null (leave it alone) is accepted here", k)
			}
			m.to[k] = true
		}
	}
	return c, nil
}
