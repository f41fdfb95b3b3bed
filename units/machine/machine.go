// Package machine builds the scheduler's view of a device: its three units
// with their cost models, and the links between them.
package machine

import (
	"fmt"

	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/units/cpu"
	"github.com/triune-sim/triune/units/gpu"
	"github.com/triune-sim/triune/units/ne"
)

// New builds the machine of a device.
func New(d *device.Device) (*units.Machine, error) {
	if d == nil || d.HandlingMS == nil {
		return nil, fmt.Errorf("machine: the device has no figures; load one with device.Load")
	}
	m := &units.Machine{
		Device: d.Name, Chip: d.ChipLabel, OS: d.OS,
		HandlingMS: d.HandlingMS.Value, IdleWatts: d.IdleWatts.Value, DRAMGBs: d.DRAMGBs.Value,
	}
	m.Units[units.CPU] = cpu.New(d)
	m.Units[units.GPU] = gpu.New(d)
	link := func(a, b units.Kind, ms float64) {
		l := units.Link{SwitchMS: ms, GBs: d.Link.GBs.Value}
		m.Links[a][b], m.Links[b][a] = l, l
	}
	link(units.CPU, units.GPU, d.Link.CPUGPUMS.Value)
	if u := ne.New(d); u != nil {
		m.Units[units.NE] = u
		link(units.CPU, units.NE, d.Link.CPUNEMS.Value)
		link(units.GPU, units.NE, d.Link.GPUNEMS.Value)
	}
	q, l := &d.Uncertainty, &d.Load
	m.Spread = [units.NumKinds]units.Spread{
		units.CPU: spread(q.CPULow, q.CPUHigh, "CPU"),
		units.GPU: spread(q.GPULow, q.GPUHigh, "GPU"),
		units.NE:  spread(q.NELow, q.NEHigh, "Neural Engine"),
	}
	m.Load = units.Load{
		FixedMS: l.FixedMS.Value, ReadGBs: l.ReadGBs.Value, ExpandGBs: l.ExpandGBs.Value,
		CompileMS: [units.NumKinds]float64{l.CPUCompileMS.Value, l.GPUCompileMS.Value, l.NECompileMS.Value},
	}
	return m, nil
}

func spread(low, high *device.Param, unit string) units.Spread {
	s := units.Spread{Low: min(1, low.Value), High: max(1, high.Value)}
	if !low.Fitted {
		s.Note = fmt.Sprintf("no measurement of this chip's %s entered the fit: the interval is that of its relatives, widened", unit)
	}
	return s
}
