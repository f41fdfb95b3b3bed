package scheduler

import (
	"errors"
	"fmt"
	"math"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// NumUnits is the number of unit kinds a problem has room for.
const NumUnits = units.NumKinds

// Problem is a placement problem as plain numbers: what each layer costs on
// each unit, which tensors connect the layers, and what moving costs. It knows
// no model and no device, so that tests and studies can make one at will.
// [Problem.Build] makes it from a network and a machine.
//
// Layers are in execution order: the producer of every edge precedes its
// consumers.
type Problem struct {
	Layers []Layer
	Edges  []Edge
	Units  [NumUnits]UnitCost
	// SwitchMS[a][b] is charged each time execution moves from a layer on a
	// to the next layer on b. The diagonal is zero.
	SwitchMS   [NumUnits][NumUnits]float64
	HandlingMS float64 // per request, whatever runs it
	IdleWatts  float64 // drawn through the whole request
	// DRAMGBs is the bandwidth that units share when they run at once; 0
	// means that they do not slow each other. A serial plan has no use for it.
	DRAMGBs float64
	// Order maps positions to the layers of the network; nil when they agree.
	Order []int

	est units.Estimate // scratch: what goes through an interface escapes
}

// Layer is one layer of a problem.
type Layer struct {
	Allowed uint8 // bit k: unit k may run the layer
	Cost    [NumUnits]Cost
	Inputs  []int // edges read, each once
	Outputs []int // edges written
}

// Cost is what a layer costs on a unit: see units.Estimate for the meaning of
// the fields.
type Cost struct {
	OverheadMS, BusyMS, WeightMS float64
	EnergyMJ                     float64
	ResidentBytes                int64
	// DRAMBytes is the traffic of activations to and from DRAM; the weights'
	// is WeightMS at the unit's stream rate. Only plans that use units at once
	// look at it.
	DRAMBytes float64
}

// Edge is a tensor between layers.
type Edge struct {
	Producer  int   // position of the layer that writes it; -1 for a graph input
	Consumers []int // positions of the layers that read it, ascending, unique
	// ConvertMS[a][b] is the time to convert the tensor, produced on a, for
	// use on b; it is paid once per destination unit. The diagonal is zero.
	// A graph input is converted for nothing: that is part of the floors and
	// of the handling time.
	ConvertMS [NumUnits][NumUnits]float64
}

// UnitCost holds the figures of a unit that are not a layer's.
type UnitCost struct {
	FloorMS     float64 // once per request that uses the unit
	CapMS       float64 // how far the weight stream may run ahead
	StaticWatts float64
	// StreamBytesMS is the rate of the weight stream, bytes a ms. Only plans
	// that use units at once look at it.
	StreamBytesMS float64
}

// ErrUnplaceable is wrapped by the errors that say that no unit (of those
// allowed) runs a layer.
var ErrUnplaceable = errors.New("no allowed unit runs it")

// Build fills the problem from a network, a machine and the options' mask,
// pins and prohibitions. It reuses the problem's memory and keeps references
// to the network's edge lists.
func (p *Problem) Build(net *model.Network, m *units.Machine, o *Options) error {
	mask := o.mask()
	n := len(net.Layers)
	p.Layers = grow(p.Layers, n)
	p.Edges = grow(p.Edges, len(net.Edges))
	p.Order = nil
	p.HandlingMS, p.IdleWatts, p.DRAMGBs = m.HandlingMS, m.IdleWatts, m.DRAMGBs
	var act [NumUnits]int64
	var have uint8
	for k := range NumUnits {
		p.Units[k] = UnitCost{}
		act[k] = 2
		u := m.Units[k]
		if u == nil || !mask.Has(units.Kind(k)) {
			continue
		}
		have |= 1 << k
		r := u.Rates()
		act[k] = int64(max(1, r.ActivationBytes))
		p.Units[k] = UnitCost{FloorMS: r.FloorMS, StaticWatts: r.StaticWatts}
		if r.StreamGBs > 0 {
			p.Units[k].StreamBytesMS = r.StreamGBs * 1e6
			p.Units[k].CapMS = r.PrefetchBytes / p.Units[k].StreamBytesMS
		}
	}
	if have == 0 {
		return fmt.Errorf("scheduler: device %s has none of the units of %s", m.Device, mask)
	}
	for a := range NumUnits {
		for b := range NumUnits {
			p.SwitchMS[a][b] = 0
			if a != b {
				p.SwitchMS[a][b] = m.Links[a][b].SwitchMS
			}
		}
	}
	est := &p.est
	for i, l := range net.Layers {
		pl := &p.Layers[i]
		pl.Inputs, pl.Outputs, pl.Allowed = l.Inputs, l.Outputs, 0
		for k := range NumUnits {
			pl.Cost[k] = Cost{}
			if have>>k&1 == 0 {
				continue
			}
			u := m.Units[k]
			if !u.Support(l).OK {
				continue
			}
			pl.Allowed |= 1 << k
			u.Estimate(l, est)
			c := Cost{OverheadMS: est.OverheadMS, BusyMS: est.BusyMS, WeightMS: est.WeightMS,
				EnergyMJ: est.EnergyMJ, ResidentBytes: est.ResidentBytes,
				DRAMBytes: float64(est.DRAMBytes)}
			if !c.valid() {
				return fmt.Errorf("scheduler: the %s of %s prices layer %q (%s) at %+v: not finite or negative",
					units.Kind(k), m.Device, l.Name, l.Op, c)
			}
			pl.Cost[k] = c
		}
		if pl.Allowed == 0 {
			return fmt.Errorf("scheduler: layer %q (%s): %w under %s: %s", l.Name, l.Op, ErrUnplaceable, mask, refusals(l, m, have))
		}
		if err := restrict(pl, l, m, o); err != nil {
			return err
		}
	}
	if err := unmatched(net, o); err != nil {
		return err
	}
	for i, e := range net.Edges {
		pe := &p.Edges[i]
		pe.Producer, pe.Consumers = e.Producer, e.Consumers
		pe.ConvertMS = [NumUnits][NumUnits]float64{}
		if e.Producer < 0 {
			continue
		}
		for a := range NumUnits {
			for b := range NumUnits {
				if a != b && have>>a&have>>b&1 != 0 {
					if g := m.Links[a][b].GBs; g > 0 {
						pe.ConvertMS[a][b] = float64(EdgeBytes(e, max(act[a], act[b]))) / (g * 1e6)
					}
				}
			}
		}
	}
	return nil
}

// EdgeBytes is the size of an edge's tensor when a float element takes
// floatBytes: one byte per element for quantized edges, the type's own size
// for integers and booleans. A conversion between units is priced by the
// larger of the two units' formats.
func EdgeBytes(e *model.Edge, floatBytes int64) int64 {
	switch {
	case e.Quantized:
		return e.Elems
	case e.Integer && e.Value != nil:
		return e.Value.DType.Bytes(e.Elems)
	}
	return e.Elems * floatBytes
}

func refusals(l *model.Layer, m *units.Machine, have uint8) string {
	s := ""
	for k := range NumUnits {
		if have>>k&1 != 0 {
			if s != "" {
				s += "; "
			}
			s += units.Kind(k).String() + ": " + m.Units[k].Support(l).Reason
		}
	}
	return s
}

func (p Pin) matches(l *model.Layer) bool {
	return match(p.Pattern, l.Name) || match(p.Pattern, string(l.Op)) || match(p.Pattern, l.Kind.String())
}

func restrict(pl *Layer, l *model.Layer, m *units.Machine, o *Options) error {
	for _, f := range o.Forbid {
		if f.matches(l) {
			pl.Allowed &^= 1 << f.Unit
		}
	}
	if pl.Allowed == 0 {
		return fmt.Errorf("scheduler: layer %q (%s): every unit that runs it is forbidden: %w", l.Name, l.Op, ErrUnplaceable)
	}
	for i := len(o.Pins) - 1; i >= 0; i-- {
		pin := o.Pins[i]
		if !pin.matches(l) {
			continue
		}
		if pl.Allowed>>pin.Unit&1 == 0 {
			why := "it is forbidden or not in the mask " + o.mask().String()
			if u := m.Units[pin.Unit]; u == nil {
				why = "device " + m.Device + " has no such unit"
			} else if s := u.Support(l); !s.OK {
				why = s.Reason
			}
			return fmt.Errorf("scheduler: pin %s: layer %q (%s) cannot run on the %s: %s", pin, l.Name, l.Op, pin.Unit, why)
		}
		pl.Allowed = 1 << pin.Unit
		break
	}
	return nil
}

// unmatched reports a pin or prohibition that names no layer: most likely a
// misspelling.
func unmatched(net *model.Network, o *Options) error {
	for which, list := range [2][]Pin{o.Pins, o.Forbid} {
		for _, pin := range list {
			found := false
			for _, l := range net.Layers {
				if pin.matches(l) {
					found = true
					break
				}
			}
			if !found && len(net.Layers) > 0 {
				return fmt.Errorf("scheduler: %s pattern %q matches no layer's name, operator or kind (the first layer is %q, %s, %s)",
					[2]string{"pin", "forbid"}[which], pin.Pattern, net.Layers[0].Name, net.Layers[0].Op, net.Layers[0].Kind)
			}
		}
	}
	return nil
}

func (c *Cost) valid() bool {
	for _, v := range [...]float64{c.OverheadMS, c.BusyMS, c.WeightMS, c.EnergyMJ, c.DRAMBytes} {
		if !(v >= 0) || math.IsInf(v, 1) {
			return false
		}
	}
	return c.ResidentBytes >= 0
}

// Validate checks that a problem made by hand is well formed: topological
// order, at least one unit per layer, finite figures of at least zero.
func (p *Problem) Validate() error {
	bad := func(v float64) bool { return !(v >= 0) || math.IsInf(v, 1) }
	for i := range p.Layers {
		l := &p.Layers[i]
		if l.Allowed&(1<<NumUnits-1) == 0 {
			return fmt.Errorf("scheduler: layer %d: %w", i, ErrUnplaceable)
		}
		for k := range l.Cost {
			if l.Allowed>>k&1 != 0 && !l.Cost[k].valid() {
				return fmt.Errorf("scheduler: layer %d: cost on %s is negative or not finite", i, units.Kind(k))
			}
		}
	}
	for i := range p.Edges {
		e := &p.Edges[i]
		last := e.Producer
		for _, c := range e.Consumers {
			if c <= last || c >= len(p.Layers) {
				return fmt.Errorf("scheduler: edge %d: consumer %d out of order (producer %d)", i, c, e.Producer)
			}
			last = c
		}
		for a := range e.ConvertMS {
			for b, v := range e.ConvertMS[a] {
				if bad(v) || a == b && v != 0 {
					return fmt.Errorf("scheduler: edge %d: conversion %d to %d takes %g ms", i, a, b, v)
				}
			}
		}
	}
	for a := range p.SwitchMS {
		u := &p.Units[a]
		if bad(u.FloorMS) || bad(u.CapMS) || bad(u.StaticWatts) || bad(u.StreamBytesMS) {
			return fmt.Errorf("scheduler: unit %s: negative or not finite: %+v", units.Kind(a), *u)
		}
		for b, v := range p.SwitchMS[a] {
			if bad(v) || a == b && v != 0 {
				return fmt.Errorf("scheduler: switch %d to %d takes %g ms", a, b, v)
			}
		}
	}
	if bad(p.HandlingMS) || bad(p.IdleWatts) {
		return fmt.Errorf("scheduler: handling %g ms, idle %g W", p.HandlingMS, p.IdleWatts)
	}
	return nil
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	return s[:n]
}
