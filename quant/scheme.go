package quant

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/model"
)

// Scheme says how to compress a graph: the program's float type, the stages
// applied to weights in order, and how activations are quantised. The zero
// value changes nothing.
type Scheme struct {
	// Name is the text the scheme was parsed from, or a file's name.
	Name string
	// Float is the type that fp32 values and constants of the program get:
	// Float16 or Float32. Invalid leaves them as they are.
	Float model.DType
	// Stages compress weights, the first one first: pruning then quantising
	// gives sparse codes, palettising then quantising gives a table of codes.
	Stages []Stage
	// Activations quantises activation tensors; nil leaves them float.
	Activations *ActivationConfig
}

// String returns the scheme's name.
func (s Scheme) String() string {
	if s.Name == "" {
		return "none"
	}
	return s.Name
}

// Stage is one pass over the weights: coremltools' OptimizationConfig. The
// configuration of a weight is the one given for its name (its own or that of
// the node reading it), else the one for the operator type, else the global
// one; a nil entry in a map skips.
type Stage struct {
	Global  OpConfig
	OpTypes map[string]OpConfig // by ONNX or MIL operator name ("Conv", "conv", "linear")
	OpNames map[string]OpConfig // by name of the node or of the constant
}

// OpConfig is how one weight is compressed: a [Linear], [Palette], [Magnitude]
// or [Threshold] value.
type OpConfig interface {
	// label names the configuration in reports ("int8 per_channel symmetric").
	label() string
	// minElems is weight_threshold: a weight of at most so many elements
	// stays as it is.
	minElems() int
	// check reports a setting that no weight could have.
	check() error
}

// WeightThreshold is coremltools' default weight_threshold: weights of at most
// so many elements are not compressed.
const WeightThreshold = 2048

// Linear is coremltools' OpLinearQuantizerConfig.
type Linear struct {
	Asymmetric  bool              // mode linear; false is linear_symmetric
	DType       model.DType       // Int8, UInt8, Int4 or UInt4
	Granularity model.Granularity // PerTensor, PerChannel or PerBlock
	BlockSize   int               // block length on the input axis, PerBlock only
	BlockSizes  []int             // one per axis, 0 for the whole axis; replaces BlockSize
	Threshold   int               // weight_threshold
}

// DefaultLinear is coremltools' default: symmetric int8 per channel.
func DefaultLinear() Linear {
	return Linear{DType: model.Int8, Granularity: model.PerChannel, BlockSize: 32, Threshold: WeightThreshold}
}

func (c Linear) minElems() int { return c.Threshold }

func (c Linear) label() string {
	s := c.DType.String() + " " + c.Granularity.String()
	if c.Granularity == model.PerBlock {
		if c.BlockSizes != nil {
			s += fmt.Sprintf("(%s)", strings.Trim(fmt.Sprint(c.BlockSizes), "[]"))
		} else {
			s += fmt.Sprintf("(%d)", c.BlockSize)
		}
	}
	if c.Asymmetric {
		return s + " linear"
	}
	return s + " linear_symmetric"
}

func (c Linear) check() error {
	switch c.DType {
	case model.Int8, model.UInt8, model.Int4, model.UInt4:
	default:
		return fmt.Errorf("quant: linear quantisation to %s (want int8, uint8, int4 or uint4)", c.DType)
	}
	if c.Granularity > model.PerBlock {
		return fmt.Errorf("quant: unknown granularity %d", c.Granularity)
	}
	if c.Granularity == model.PerBlock && c.BlockSizes == nil && c.BlockSize < 1 {
		return fmt.Errorf("quant: block_size %d (want at least 1)", c.BlockSize)
	}
	for _, b := range c.BlockSizes {
		if b < 0 {
			return fmt.Errorf("quant: block_size %v (want sizes of at least 0)", c.BlockSizes)
		}
	}
	return checkThreshold(c.Threshold)
}

func checkThreshold(n int) error {
	if n < 0 {
		return fmt.Errorf("quant: weight_threshold %d (want at least 0)", n)
	}
	return nil
}

// PaletteMode says how a table is found.
type PaletteMode uint8

// The palette modes.
const (
	KMeans  PaletteMode = iota // least squared error (exact, by dynamic programming)
	Uniform                    // equal steps from the least to the greatest value
	Unique                     // the distinct values, if few enough
)

// String returns coremltools' word.
func (m PaletteMode) String() string { return [...]string{"kmeans", "uniform", "unique"}[m] }

// Palette is coremltools' OpPalettizerConfig.
type Palette struct {
	Mode            PaletteMode
	Bits            int  // 1, 2, 3, 4, 6 or 8; 0 with Unique
	Grouped         bool // granularity per_grouped_channel; false is per_tensor
	GroupSize       int  // channels that share a table
	ChannelAxis     *int // axis of the groups; nil for the weight's output axis
	ClusterDim      int  // weights that share one index (vector palettes); 1 for scalars
	PerChannelScale bool
	Threshold       int // weight_threshold
}

// DefaultPalette is coremltools' default with the given number of bits.
func DefaultPalette(bits int) Palette {
	return Palette{Bits: bits, GroupSize: 32, ClusterDim: 1, Threshold: WeightThreshold}
}

func (c Palette) minElems() int { return c.Threshold }

func (c Palette) label() string {
	s := c.Mode.String() + " palette"
	if c.Bits > 0 {
		s = fmt.Sprintf("%d-bit %s", c.Bits, s)
	}
	if c.Grouped {
		s += fmt.Sprintf(" per_grouped_channel(%d)", c.GroupSize)
	} else {
		s += " per_tensor"
	}
	if c.ClusterDim > 1 {
		s += fmt.Sprintf(" vectors of %d", c.ClusterDim)
	}
	if c.PerChannelScale {
		s += " with per-channel scale"
	}
	return s
}

func (c Palette) check() error {
	switch {
	case c.Mode > Unique:
		return fmt.Errorf("quant: unknown palette mode %d", c.Mode)
	case indexType(c.Bits) == model.Invalid && !(c.Mode == Unique && c.Bits == 0):
		return fmt.Errorf("quant: palette of %d bits (want 1, 2, 3, 4, 6 or 8)", c.Bits)
	case c.Grouped && c.GroupSize < 1:
		return fmt.Errorf("quant: group_size %d (want at least 1)", c.GroupSize)
	case c.ClusterDim < 1:
		return fmt.Errorf("quant: cluster_dim %d (want at least 1)", c.ClusterDim)
	case c.ClusterDim > 1 && c.Mode == Uniform:
		return fmt.Errorf("quant: a uniform palette has scalars only (cluster_dim %d; use kmeans or unique)", c.ClusterDim)
	}
	return checkThreshold(c.Threshold)
}

// Magnitude is coremltools' OpMagnitudePrunerConfig: the weights of least
// magnitude become zero.
type Magnitude struct {
	Sparsity  float64 // target_sparsity, 0 to 1; unused with N:M
	BlockSize int     // channels that live or die together; 0 for none
	N, M      int     // of every M consecutive weights N become zero; 0 for none
	Dim       int     // axis of blocks (default 0) and of N:M (default 1)
	Threshold int     // weight_threshold
}

func (c Magnitude) minElems() int { return c.Threshold }

func (c Magnitude) label() string {
	switch {
	case c.M > 0:
		return fmt.Sprintf("%d:%d sparse on axis %d", c.N, c.M, c.Dim)
	case c.BlockSize > 1:
		return fmt.Sprintf("%g %% sparse in blocks of %d on axis %d", 100*c.Sparsity, c.BlockSize, c.Dim)
	}
	return fmt.Sprintf("%g %% sparse", 100*c.Sparsity)
}

func (c Magnitude) check() error {
	switch {
	case c.M < 0 || c.N < 0 || c.N > c.M:
		return fmt.Errorf("quant: n_m_ratio (%d, %d) (want 0 <= n <= m)", c.N, c.M)
	case c.M > 0 && c.Sparsity != 0:
		return fmt.Errorf("quant: target_sparsity and n_m_ratio are exclusive")
	case c.M > 0 && c.BlockSize != 0:
		return fmt.Errorf("quant: block_size and n_m_ratio are exclusive")
	case !(c.Sparsity >= 0 && c.Sparsity <= 1):
		return fmt.Errorf("quant: target_sparsity %g (want 0 to 1)", c.Sparsity)
	case c.BlockSize < 0 || c.BlockSize == 1:
		return fmt.Errorf("quant: pruning block_size %d (want at least 2)", c.BlockSize)
	case c.Dim != 0 && c.Dim != 1:
		return fmt.Errorf("quant: pruning dim %d (want 0 or 1)", c.Dim)
	}
	return checkThreshold(c.Threshold)
}

// structured reports whether the pruning has blocks: such pruning is for the
// weights of convolutions and linear layers only.
func (c Magnitude) structured() bool { return c.M > 0 || c.BlockSize > 1 }

// Threshold is coremltools' OpThresholdPrunerConfig: weights of at most the
// given magnitude become zero, if enough of them do.
type Threshold struct {
	Value       float64 // threshold, default 1e-12
	MinSparsity float64 // minimum_sparsity_percentile, default 0.5
	Threshold   int     // weight_threshold
}

func (c Threshold) minElems() int { return c.Threshold }

func (c Threshold) label() string { return fmt.Sprintf("sparse where |w| <= %g", c.Value) }

func (c Threshold) check() error {
	if !(c.Value >= 0) {
		return fmt.Errorf("quant: pruning threshold %g (want at least 0)", c.Value)
	}
	if !(c.MinSparsity >= 0 && c.MinSparsity <= 1) {
		return fmt.Errorf("quant: minimum_sparsity_percentile %g (want 0 to 1)", c.MinSparsity)
	}
	return checkThreshold(c.Threshold)
}

// Rule is where quantize and dequantize operators go.
type Rule uint8

const (
	// Training is what coremltools.optimize.torch puts into a model when it
	// quantises while training: convolutions, linear layers and products, Add,
	// Sub and Mul, pooling, concat, flatten, batch norm and activations. The
	// models of the published table were made so. Its defaults: symmetric,
	// 8 bits without sign where a tensor is never negative.
	Training Rule = iota
	// PostTraining is coremltools.optimize.coreml.linear_quantize_activations:
	// convolutions, linear layers, average and max pooling, Add.
	PostTraining
)

// String returns "training" or "ptq".
func (r Rule) String() string { return [...]string{"training", "ptq"}[r] }

// ParseRule reads "training" or "ptq".
func ParseRule(s string) (Rule, error) {
	switch strings.ToLower(s) {
	case "training", "qat":
		return Training, nil
	case "ptq", "post-training", "post_training":
		return PostTraining, nil
	}
	return 0, fmt.Errorf("quant: unknown activation rule %q (want training or ptq)", s)
}

// ActivationConfig is how activations are quantised: always to 8 bits and per
// tensor, as Core ML does.
type ActivationConfig struct {
	Rule Rule
	// Asymmetric is mode linear: a zero point, and the full range of codes.
	Asymmetric bool
	// DType is Int8 or UInt8. With Invalid a tensor that is never negative
	// gets UInt8 with zero point 0 and any other Int8 (the training rule's
	// default).
	DType model.DType
	// SkipTypes and SkipNames leave operators alone, by ONNX or MIL operator
	// type and by node name.
	SkipTypes, SkipNames map[string]bool
}

func (c *ActivationConfig) check() error {
	switch c.DType {
	case model.Invalid, model.Int8, model.UInt8:
	default:
		return fmt.Errorf("quant: activations of type %s (want int8 or uint8)", c.DType)
	}
	if c.Rule > PostTraining {
		return fmt.Errorf("quant: unknown activation rule %d", c.Rule)
	}
	return nil
}

// schemeHelp is what Parse accepts, for error messages.
const schemeHelp = "fp32, fp16, w8, w8-tensor, w8a8, w8b32, w4, w4-tensor, w4b32, u8, u4, a8, p8, p6, p4, p3, p2, p1, p4g16, p4-uniform, p-unique, s50, s75, s2:4, joined by +; -lin makes a linear scheme asymmetric"

var (
	linearName  = regexp.MustCompile(`^([wu])(8|4)(?:b(\d{1,6}))?(-tensor)?(-lin)?(a8)?(-ptq)?$`)
	paletteName = regexp.MustCompile(`^p(8|6|4|3|2|1)(?:g(\d{1,6}))?(?:v(\d{1,4}))?(-uniform|-kmeans)?(-scale)?(a8)?(-ptq)?$`)
	sparseName  = regexp.MustCompile(`^s(\d{1,2}|100)(?:b(\d{1,4}))?(a8)?(-ptq)?$`)
	nmName      = regexp.MustCompile(`^s(\d{1,3}):(\d{1,3})$`)
	activName   = regexp.MustCompile(`^a8(-lin)?(-ptq)?$`)
)

// Parse reads a scheme's name: parts joined by "+", applied from left to
// right. The program becomes fp16 unless "fp32" is one of the parts.
//
//	fp32 fp16            the program's type
//	w8 w4 u8 u4          linear, per output channel, symmetric (w signed, u unsigned)
//	w8-tensor w4b32      per tensor, per block of 32 input channels; -lin: asymmetric
//	a8                   8-bit activations (training rule; a8-ptq: post-training rule)
//	w8a8 w4a8 p4a8       both; with the training rule weights of any size are
//	                     quantised, as training does, otherwise those above 2048
//	p8 p6 p4 p3 p2 p1    k-means palettes; p4g16: a table for 16 channels;
//	                     p4v2: vectors of 2; p4-uniform; p4-scale: per-channel
//	                     scale; p-unique: lossless
//	s50 s75              magnitude pruning to 50, 75 % zeros; s50b4: blocks of 4
//	                     channels; s2:4: two zeros in every four input channels
//	s50+w8 p4+w8 w8+p4   joint forms, in any order; w8 after a palette quantises
//	                     the tables. Vectors are pruned whole: s50b2+p4v2
func Parse(name string) (Scheme, error) {
	s := Scheme{Name: name, Float: model.Float16}
	seen := map[string]bool{}
	parts := strings.Split(strings.ToLower(strings.TrimSpace(name)), "+")
	bad := func() (Scheme, error) {
		return Scheme{}, fmt.Errorf("quant: unknown scheme %q (want %s)", name, schemeHelp)
	}
	num := func(t string) int { n, _ := strconv.Atoi(t); return n }
	activations := func(on, ptq string) error {
		if on == "" {
			return nil
		}
		if s.Activations != nil {
			return fmt.Errorf("quant: scheme %q quantises activations twice", name)
		}
		s.Activations = &ActivationConfig{}
		if ptq != "" {
			s.Activations.Rule = PostTraining
			s.Activations.DType = model.Int8
		}
		return nil
	}
	add := func(c OpConfig) error {
		if err := c.check(); err != nil {
			return fmt.Errorf("quant: scheme %q: %w", name, err)
		}
		s.Stages = append(s.Stages, Stage{Global: c})
		return nil
	}
	for _, p := range parts {
		var err error
		switch p {
		case "fp32", "fp16":
			if seen["fp"] {
				return Scheme{}, fmt.Errorf("quant: scheme %q gives the program's type twice", name)
			}
			seen["fp"] = true
			if p == "fp32" {
				s.Float = model.Float32
			}
			continue
		case "p-unique":
			if err = add(Palette{Mode: Unique, ClusterDim: 1, GroupSize: 32, Threshold: WeightThreshold}); err != nil {
				return Scheme{}, err
			}
			continue
		}
		if m := linearName.FindStringSubmatch(p); m != nil {
			c := DefaultLinear()
			c.DType = map[string]model.DType{"w8": model.Int8, "w4": model.Int4, "u8": model.UInt8, "u4": model.UInt4}[m[1]+m[2]]
			c.Asymmetric = m[5] != ""
			if m[3] != "" && m[4] != "" || m[7] != "" && m[6] == "" {
				return bad()
			}
			if m[4] != "" {
				c.Granularity = model.PerTensor
			}
			if m[3] != "" {
				c.Granularity, c.BlockSize = model.PerBlock, num(m[3])
			}
			if afterPalette(s.Stages) { // the tables are quantised, which coremltools does per tensor only
				c.Granularity = model.PerTensor
			}
			err = add(c)
			if err == nil {
				err = activations(m[6], m[7])
			}
		} else if m := paletteName.FindStringSubmatch(p); m != nil {
			c := DefaultPalette(num(m[1]))
			if m[2] != "" {
				c.Grouped, c.GroupSize = true, num(m[2])
			}
			if m[3] != "" {
				c.ClusterDim = num(m[3])
			}
			if m[4] == "-uniform" {
				c.Mode = Uniform
			}
			c.PerChannelScale = m[5] != ""
			if m[7] != "" && m[6] == "" {
				return bad()
			}
			err = add(c)
			if err == nil {
				err = activations(m[6], m[7])
			}
		} else if m := sparseName.FindStringSubmatch(p); m != nil {
			if m[4] != "" && m[3] == "" {
				return bad()
			}
			err = add(Magnitude{Sparsity: float64(num(m[1])) / 100, BlockSize: num(m[2]), Threshold: WeightThreshold})
			if err == nil {
				err = activations(m[3], m[4])
			}
		} else if m := nmName.FindStringSubmatch(p); m != nil {
			if num(m[2]) == 0 {
				return bad()
			}
			err = add(Magnitude{N: num(m[1]), M: num(m[2]), Dim: 1, Threshold: WeightThreshold})
		} else if m := activName.FindStringSubmatch(p); m != nil {
			if err = activations("a8", m[2]); err == nil {
				s.Activations.Asymmetric = m[1] != ""
			}
		} else {
			return bad()
		}
		if err != nil {
			return Scheme{}, err
		}
	}
	if s.Activations != nil && s.Activations.Rule == Training {
		// Training quantises every weight of the operators it quantises,
		// however small.
		for i, st := range s.Stages {
			if c, ok := st.Global.(Linear); ok {
				c.Threshold = 0
				s.Stages[i].Global = c
			}
		}
	}
	return s, nil
}

// afterPalette reports whether a stage makes palettes.
func afterPalette(stages []Stage) bool {
	return slices.ContainsFunc(stages, func(st Stage) bool {
		_, ok := st.Global.(Palette)
		return ok
	})
}

func (s Scheme) check() error {
	switch s.Float {
	case model.Invalid, model.Float16, model.Float32:
	default:
		return fmt.Errorf("quant: program of type %s (want fp16 or fp32)", s.Float)
	}
	for _, st := range s.Stages {
		for _, c := range st.all() {
			if err := c.check(); err != nil {
				return err
			}
		}
	}
	if s.Activations != nil {
		return s.Activations.check()
	}
	return nil
}

// all returns the configurations of a stage that are set.
func (st Stage) all() []OpConfig {
	var out []OpConfig
	if st.Global != nil {
		out = append(out, st.Global)
	}
	for _, m := range []map[string]OpConfig{st.OpTypes, st.OpNames} {
		for _, c := range m {
			if c != nil {
				out = append(out, c)
			}
		}
	}
	return out
}
