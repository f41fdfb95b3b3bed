package runtime

import (
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
)

// Option changes one thing about how a model is opened. Options are immutable
// values: they may be kept, shared and applied to any number of sessions; of
// two that set the same thing the later wins.
type Option struct{ apply func(*config) }

// DefaultDevice is the device of a session opened without [WithDevice].
const DefaultDevice = "iphone-14-pro"

type config struct {
	device      string
	overrides   []string
	dev         *device.Device
	scheme      string
	schemeValue *quant.Scheme
	mask        units.Mask
	sched       scheduler.Options
	threads     int
	profile     bool
	shapes      map[string][]int
	function    string
	samples     []map[string]*model.Tensor
	ranges      quant.Ranges
}

func defaults(opts []Option) config {
	c := config{device: DefaultDevice, scheme: "fp16", mask: units.All}
	for _, o := range opts {
		if o.apply != nil {
			o.apply(&c)
		}
	}
	return c
}

// WithDevice chooses the device or chip by name, for example "iphone-15-pro"
// or "m4", with optional changes to its figures as paths ("ne.stream_gbs=x1.5",
// see [device.Device.Override]). Default: [DefaultDevice] as catalogued.
func WithDevice(name string, overrides ...string) Option {
	overrides = append([]string(nil), overrides...)
	return Option{func(c *config) { c.device, c.overrides, c.dev = name, overrides, nil }}
}

// WithDeviceValue uses a device that the caller has loaded or made.
func WithDeviceValue(d *device.Device) Option {
	return Option{func(c *config) { c.dev = d }}
}

// WithScheme chooses the compression by name ("fp32", "fp16", "w8", "w8a8",
// "w4b32", "p4", "s50+w8", ...; see [quant.Parse]). "stored" takes the model as
// the file has it. Default: "fp16".
func WithScheme(name string) Option {
	return Option{func(c *config) { c.scheme, c.schemeValue = name, nil }}
}

// WithSchemeValue uses a scheme read from YAML or made by the caller.
func WithSchemeValue(s quant.Scheme) Option {
	return Option{func(c *config) { c.schemeValue = &s }}
}

// WithUnits restricts the compute units, as Core ML's compute units do.
// Default: [units.All].
func WithUnits(m units.Mask) Option {
	return Option{func(c *config) { c.mask = m }}
}

// WithPolicy chooses how layers are placed. Default: [scheduler.Optimal].
func WithPolicy(p scheduler.Policy) Option {
	return Option{func(c *config) { c.sched.Policy = p }}
}

// WithPins makes layers run on given units, by name pattern; see
// [scheduler.ParsePin]. Default: none.
func WithPins(pins ...scheduler.Pin) Option {
	pins = append([]scheduler.Pin(nil), pins...)
	return Option{func(c *config) { c.sched.Pins = pins }}
}

// WithPlacement sets every option of the scheduler at once (objective, pins,
// prohibitions, limits); its mask is ignored, [WithUnits] sets that.
func WithPlacement(o scheduler.Options) Option {
	return Option{func(c *config) { c.sched = o }}
}

// WithThreads sets how many host threads a run uses, the caller's included.
// Results do not depend on it. Default: 0, one per CPU of the process.
func WithThreads(n int) Option {
	return Option{func(c *config) { c.threads = n }}
}

// WithProfile measures the host time of every layer of every run
// ([Result.Profile]). Default: off.
func WithProfile() Option {
	return Option{func(c *config) { c.profile = true }}
}

// WithShapes fixes the shape of inputs by name, where the model leaves it open
// or to replace a default. Default: the model's own, 1 for an open batch.
func WithShapes(shapes map[string][]int) Option {
	c := make(map[string][]int, len(shapes))
	for k, v := range shapes {
		c[k] = append([]int(nil), v...)
	}
	return Option{func(k *config) { k.shapes = c }}
}

// WithFunction chooses one of several functions of a Core ML package.
// Default: the package's default function.
func WithFunction(name string) Option {
	return Option{func(c *config) { c.function = name }}
}

// WithCalibration takes the ranges of quantized activations from the least and
// greatest values that the given samples (one map of inputs each) produce.
// Schemes that leave activations as floats ignore it. Default: one sample of
// seeded normal values.
func WithCalibration(samples ...map[string]*model.Tensor) Option {
	samples = append([]map[string]*model.Tensor(nil), samples...)
	return Option{func(c *config) { c.samples, c.ranges = samples, nil }}
}

// WithRanges gives the ranges of quantized activations by the name of their
// value: from another calibration method (see package quant), or a file.
func WithRanges(r quant.Ranges) Option {
	return Option{func(c *config) { c.ranges, c.samples = r, nil }}
}
