package quant

import (
	"fmt"
	"strings"

	"github.com/triune-sim/triune/model"
)

// Overrides change a scheme's weight configurations, as flags beside its name
// do. Zero values change nothing.
type Overrides struct {
	WeightThreshold *int   // of all stages
	BlockSize       int    // of linear stages; makes them per_block
	Mode            string // linear or linear_symmetric, of linear stages
	DType           string // int8, uint8, int4 or uint4, of linear stages
	Granularity     string // per_tensor, per_channel or per_block, of linear stages
}

// Override returns a copy of the scheme with its weight configurations
// changed. It is an error to change what no stage has.
func (s Scheme) Override(o Overrides) (Scheme, error) {
	linear, any := false, len(s.Stages) > 0
	change := func(c OpConfig) (OpConfig, error) {
		switch x := c.(type) {
		case Linear:
			linear = true
			set(&x.Threshold, o.WeightThreshold)
			if o.BlockSize != 0 {
				x.Granularity, x.BlockSize, x.BlockSizes = model.PerBlock, o.BlockSize, nil
			}
			switch o.Mode {
			case "":
			case "linear", "linear_symmetric":
				x.Asymmetric = o.Mode == "linear"
			default:
				return nil, fmt.Errorf("quant: mode %q (want linear or linear_symmetric)", o.Mode)
			}
			if o.DType != "" {
				d, err := model.ParseDType(o.DType)
				if err != nil {
					return nil, fmt.Errorf("quant: dtype %q (want int8, uint8, int4 or uint4)", o.DType)
				}
				x.DType = d
			}
			switch o.Granularity {
			case "":
			case "per_tensor", "per_channel", "per_block":
				x.Granularity = map[string]model.Granularity{"per_tensor": model.PerTensor, "per_channel": model.PerChannel, "per_block": model.PerBlock}[o.Granularity]
				if o.BlockSize != 0 && x.Granularity != model.PerBlock {
					return nil, fmt.Errorf("quant: a block size goes with granularity per_block, not %s", o.Granularity)
				}
			default:
				return nil, fmt.Errorf("quant: granularity %q (want per_tensor, per_channel or per_block)", o.Granularity)
			}
			return x, x.check()
		case Palette:
			set(&x.Threshold, o.WeightThreshold)
			return x, x.check()
		case Magnitude:
			set(&x.Threshold, o.WeightThreshold)
			return x, x.check()
		case Threshold:
			set(&x.Threshold, o.WeightThreshold)
			return x, x.check()
		}
		return c, nil
	}
	all := func(m map[string]OpConfig) (map[string]OpConfig, error) {
		if m == nil {
			return nil, nil
		}
		out := make(map[string]OpConfig, len(m))
		for _, k := range sortedKeys(m) {
			c, err := change(m[k])
			if err != nil {
				return nil, err
			}
			out[k] = c
		}
		return out, nil
	}
	stages := make([]Stage, len(s.Stages))
	for i, st := range s.Stages {
		var err error
		if stages[i].Global, err = change(st.Global); err != nil {
			return s, err
		}
		if stages[i].OpTypes, err = all(st.OpTypes); err != nil {
			return s, err
		}
		if stages[i].OpNames, err = all(st.OpNames); err != nil {
			return s, err
		}
	}
	var names []string
	for _, f := range []struct {
		name     string
		set, has bool
	}{
		{"a weight threshold", o.WeightThreshold != nil, any}, {"a block size", o.BlockSize != 0, linear}, {"a mode", o.Mode != "", linear},
		{"a dtype", o.DType != "", linear}, {"a granularity", o.Granularity != "", linear},
	} {
		if f.set && !f.has {
			names = append(names, f.name)
		}
	}
	if len(names) > 0 {
		return s, fmt.Errorf("quant: scheme %q has no stage that takes %s", s, strings.Join(names, ", "))
	}
	s.Stages = stages
	return s, nil
}
