package calibrate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/machine"
)

// Loader gives the lowered network of a model name, an input size in pixels (0
// for the network's own) and a scheme.
type Loader func(name string, input int, scheme string) (*model.Network, error)

// Sample is a row with its network, its device and the placement that Core ML
// gives it.
type Sample struct {
	Row
	Net *model.Network
	// DeviceName is the catalogue's name of the device.
	DeviceName string
	// Unit is the unit that the row measures.
	Unit units.Kind
	// Network is the canonical name of network and size, "mobilenet_v2@160":
	// rows with the same one leave a fit together.
	Network string
	Chip    string // catalogue's name

	assign []units.Kind
	sigma  float64
}

// Set is a list of samples over a catalogue.
type Set struct {
	Samples []*Sample
	// Skipped says which rows could not be used, and why.
	Skipped []string
	names   []string
	devices map[string]*device.Device
}

// NewSet resolves rows: devices by the catalogue, networks by the loader. Rows
// whose device or network is unknown are skipped and named in Set.Skipped.
func NewSet(rows []Row, c *device.Catalogue, load Loader) (*Set, error) {
	s := &Set{devices: map[string]*device.Device{}}
	nets := map[string]*model.Network{}
	for i := range rows {
		r := rows[i]
		skip := func(err error) { s.Skipped = append(s.Skipped, fmt.Sprintf("line %d: %v", r.Line, err)) }
		d, err := c.Load(r.Device)
		if err != nil && r.Chip != "" {
			d, err = c.Load(r.Chip)
		}
		if err != nil {
			skip(err)
			continue
		}
		key := fmt.Sprintf("%s@%d/%s", r.Model, r.Input, r.Precision)
		net := nets[key]
		if net == nil {
			if net, err = load(r.Model, r.Input, r.Precision); err != nil {
				skip(err)
				continue
			}
			nets[key] = net
		}
		if s.devices[d.Name] == nil {
			s.devices[d.Name] = d
			s.names = append(s.names, d.Name)
		}
		sm := &Sample{Row: r, Net: net, DeviceName: d.Name, Unit: r.Row(d), Network: network(&r), Chip: d.Chip, sigma: r.Sigma()}
		m, err := machine.New(d)
		if err != nil {
			return nil, err
		}
		if sm.assign, err = place(net, m, r.Mask); err != nil {
			skip(err)
			continue
		}
		s.Samples = append(s.Samples, sm)
	}
	if len(s.Samples) == 0 {
		return nil, fmt.Errorf("calibrate: no row can be used: %s", strings.Join(s.Skipped, "; "))
	}
	slices.Sort(s.names)
	return s, nil
}

// Row gives the unit that the row measures on the device.
func (r *Row) Row(d *device.Device) units.Kind { return r.Unit(d.HasNE) }

func network(r *Row) string {
	n := strings.ToLower(r.Model)
	if r.Input != 0 && r.Input != 224 {
		n += fmt.Sprintf("@%d", r.Input)
	}
	return n
}

// place prefers the Neural Engine, then the GPU, under the mask, and leaves
// what they refuse to the CPU: what measurements under a mask show Core ML to
// do, even where the CPU alone would be faster.
func place(net *model.Network, m *units.Machine, mask units.Mask) ([]units.Kind, error) {
	prefer := []units.Kind{units.NE, units.CPU, units.GPU}
	if m.Units[units.NE] == nil || !mask.Has(units.NE) {
		prefer = []units.Kind{units.GPU, units.CPU}
	}
	out := make([]units.Kind, len(net.Layers))
	for i, l := range net.Layers {
		ok := false
		for _, k := range prefer {
			if u := m.Units[k]; u != nil && mask.Has(k) && u.Support(l).OK {
				out[i], ok = k, true
				break
			}
		}
		if !ok {
			return nil, fmt.Errorf("layer %q (%s): no unit of %s on %s runs it", l.Name, l.Op, mask, m.Device)
		}
	}
	return out, nil
}

// price is the latency of a sample on a machine, in ms: the scheduler's time
// model for the sample's placement (a test holds the two equal).
func (s *Sample) price(m *units.Machine) float64 {
	t := m.HandlingMS
	var caps [units.NumKinds]float64
	var used [units.NumKinds]bool
	var e units.Estimate
	var stream units.Stream
	prev := -1
	for i, l := range s.Net.Layers {
		k := s.assign[i]
		u := m.Units[k]
		if !used[k] {
			used[k] = true
			r := u.Rates()
			t += r.FloorMS
			caps[k] = r.PrefetchBytes / (r.StreamGBs * 1e6)
		}
		u.Estimate(l, &e)
		if int(k) != prev {
			stream = units.Stream{}
			if prev >= 0 {
				t += m.Links[prev][k].SwitchMS
			}
			prev = int(k)
		}
		if l.Index > 0 {
			t += s.convert(m, i, k)
		}
		t += e.OverheadMS + e.BusyMS + stream.Step(e.BusyMS, e.WeightMS, caps[k])
	}
	return t
}

// convert is the time to convert the inputs of layer i that another unit wrote.
func (s *Sample) convert(m *units.Machine, i int, k units.Kind) float64 {
	t := 0.0
	for _, ei := range s.Net.Layers[i].Inputs {
		e := s.Net.Edges[ei]
		if e.Producer < 0 || s.assign[e.Producer] == k {
			continue
		}
		first := true
		for _, o := range e.Consumers {
			if o >= i {
				break
			}
			if s.assign[o] == k {
				first = false
				break
			}
		}
		if !first {
			continue
		}
		from := s.assign[e.Producer]
		bytes := e.Elems
		if !e.Quantized {
			bytes *= int64(max(m.Units[k].Rates().ActivationBytes, m.Units[from].Rates().ActivationBytes))
		}
		t += float64(bytes) / (m.Links[from][k].GBs * 1e6)
	}
	return t
}

// machines builds a machine for every device of the set.
func (s *Set) machines(devs map[string]*device.Device) (map[string]*units.Machine, error) {
	out := make(map[string]*units.Machine, len(devs))
	for _, n := range s.names {
		m, err := machine.New(devs[n])
		if err != nil {
			return nil, err
		}
		out[n] = m
	}
	return out, nil
}

// Only returns the set restricted to the samples that keep approves.
func (s *Set) Only(keep func(*Sample) bool) *Set {
	out := &Set{devices: s.devices, names: s.names}
	for _, x := range s.Samples {
		if keep(x) {
			out.Samples = append(out.Samples, x)
		}
	}
	return out
}
