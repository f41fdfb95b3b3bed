package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// target is what most commands take: model options, devices, schemes, units
// and how to place.
type target struct {
	devices, schemes, units []string
	policy                  string
	pins, forbid, set       []string
	shapes                  []string
	function                string
	maxSegments             int
	objective               string
	maxResident             []string
	overlap                 bool
}

// register adds the flags of commands that place a model.
func (t *target) register(c *cobra.Command, scheme string) {
	t.registerModel(c, scheme)
	t.registerDevice(c)
	f := c.Flags()
	f.StringSliceVarP(&t.units, "units", "u", []string{"all"}, "compute units: all, cpu_only, cpu_and_gpu, cpu_and_ne; may repeat")
	f.StringVar(&t.policy, "policy", "optimal", "placement: optimal, energy, edp, throughput, coreml, greedy")
	f.StringArrayVar(&t.pins, "pin", nil, "layers that must run on a unit, PATTERN=UNIT (layer3.*=cpu)")
	f.StringArrayVar(&t.forbid, "forbid", nil, "layers that must not run on a unit, UNIT:PATTERN (ne:softmax)")
	f.IntVar(&t.maxSegments, "max-segments", 0, "most runs of consecutive layers on one unit (0: any)")
	f.StringVar(&t.objective, "objective", "", "what to minimise: latency, energy, edp, throughput, or weights of a ms and a mJ (latency=1,energy=0.25)")
	f.StringArrayVar(&t.maxResident, "max-resident", nil, "most weight bytes resident on a unit, UNIT=SIZE (ne=64MB)")
	f.BoolVar(&t.overlap, "overlap", false, "let independent branches run on different units at once")
}

// registerModel adds the flags that say what the model is.
func (t *target) registerModel(c *cobra.Command, scheme string) {
	f := c.Flags()
	f.StringSliceVarP(&t.schemes, "scheme", "c", []string{scheme}, "compression scheme (fp32, fp16, w8, w8-tensor, w8a8, w4, w4b32, p4, s50, ...; joined by +; stored takes the file as it is), or a YAML file; may repeat")
	f.StringArrayVar(&t.shapes, "shape", nil, "fix the shape of an input, NAME=1x3x224x224")
	f.StringVar(&t.function, "function", "", "function of a Core ML package that has several")
}

// registerDevice adds the flags that say what the device is.
func (t *target) registerDevice(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVarP(&t.devices, "device", "d", []string{runtime.DefaultDevice}, "device or chip, or a pattern of them ('iphone-1[45]*'); may repeat or be a list (triune devices lists them)")
	f.StringArrayVar(&t.set, "set", nil, "change a figure of the device, PATH=VALUE (ne.stream_gbs=x1.5)")
}

func (t *target) load(name string) (compile.LoadOptions, error) {
	o := compile.LoadOptions{Function: t.function}
	for _, s := range t.shapes {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return o, usagef("--shape %q: want NAME=1x3x224x224", s)
		}
		var dims []int
		for _, p := range strings.FieldsFunc(v, func(r rune) bool { return r == 'x' || r == ',' }) {
			n, err := strconv.Atoi(p)
			if err != nil || n < 1 || n > 1<<30 {
				return o, usagef("--shape %q: %q is no dimension (want NAME=1x3x224x224)", s, p)
			}
			dims = append(dims, n)
		}
		if o.Shapes == nil {
			o.Shapes = map[string][]int{}
		}
		o.Shapes[k] = dims
	}
	return o, nil
}

// fold opens a model and runs the standard passes.
func (t *target) fold(name string) (*compile.Folded, error) {
	o, err := t.load(name)
	if err != nil {
		return nil, err
	}
	g, err := compile.Load(name, o)
	if err != nil {
		return nil, err
	}
	return compile.Fold(g)
}

func (t *target) placement() (scheduler.Options, error) {
	o := scheduler.Options{MaxSegments: t.maxSegments}
	if t.maxSegments < 0 {
		return o, usagef("--max-segments %d: want 0 or more", t.maxSegments)
	}
	var err error
	if o.Policy, err = scheduler.ParsePolicy(t.policy); err != nil {
		return o, usageError{err}
	}
	if t.objective != "" {
		p, obj, err := scheduler.ParseObjective(t.objective)
		if err != nil {
			return o, usageError{err}
		}
		if o.Policy != scheduler.Optimal {
			return o, usagef("--objective goes with the policy optimal, not %s", o.Policy)
		}
		o.Policy, o.Objective = p, obj
	}
	o.Overlap = t.overlap
	for _, s := range t.maxResident {
		if err := scheduler.ParseResident(s, &o.MaxResident); err != nil {
			return o, usageError{err}
		}
	}
	for _, s := range t.pins {
		p, err := scheduler.ParsePin(s)
		if err != nil {
			return o, usageError{err}
		}
		o.Pins = append(o.Pins, p)
	}
	for _, s := range t.forbid {
		p, err := scheduler.ParseForbid(s)
		if err != nil {
			return o, usageError{err}
		}
		o.Forbid = append(o.Forbid, p)
	}
	return o, nil
}

func (t *target) masks() ([]units.Mask, error) {
	var out []units.Mask
	for _, s := range t.units {
		m, err := units.ParseMask(s)
		if err != nil {
			return nil, usageError{err}
		}
		out = append(out, m)
	}
	return out, nil
}

func (t *target) parseSchemes() ([]quant.Scheme, error) {
	var out []quant.Scheme
	for _, s := range t.schemes {
		q, err := parseScheme(s)
		if err != nil {
			return nil, err
		}
		out = append(out, q)
	}
	return out, nil
}

// parseScheme reads a scheme's name or a YAML file in coremltools' vocabulary.
func parseScheme(s string) (quant.Scheme, error) {
	if s == compile.Stored.Name {
		return compile.Stored, nil
	}
	if ext := strings.ToLower(filepath.Ext(s)); ext == ".yaml" || ext == ".yml" {
		f, err := os.Open(s)
		if err != nil {
			return quant.Scheme{}, err
		}
		defer f.Close()
		q, err := quant.ReadConfig(f)
		if err != nil {
			return q, fmt.Errorf("%s: %w", s, err)
		}
		if q.Name == "" {
			q.Name = strings.TrimSuffix(filepath.Base(s), filepath.Ext(s))
		}
		return q, nil
	}
	q, err := quant.Parse(s)
	if err != nil {
		return q, usageError{err}
	}
	return q, nil
}

func (t *target) parseDevices() ([]*device.Device, error) {
	var out []*device.Device
	for _, pattern := range t.devices {
		names, err := device.Match(pattern)
		if err != nil {
			return nil, usageError{err}
		}
		for _, name := range names {
			d, err := device.Load(name)
			if err != nil {
				return nil, usageError{err}
			}
			if len(t.set) > 0 {
				if d, err = d.Override(t.set...); err != nil {
					return nil, usageError{err}
				}
			}
			out = append(out, d)
		}
	}
	return out, nil
}
