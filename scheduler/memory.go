package scheduler

import (
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/units"
)

// Memory is what a plan holds at its peak, in bytes.
type Memory struct {
	WeightBytes     [NumUnits]int64 // resident on each unit
	ActivationBytes int64           // most bytes of tensors alive at once
	PeakLayer       int             // the layer during which that is so
}

// Weights returns the resident weight bytes of all units.
func (m *Memory) Weights() int64 {
	s := int64(0)
	for _, b := range m.WeightBytes {
		s += b
	}
	return s
}

// Peak returns weights and activations together.
func (m *Memory) Peak() int64 { return m.Weights() + m.ActivationBytes }

// PlanMemory follows the liveness of tensors through a plan ([LiveBytes]) to
// its peak.
func PlanMemory(net *model.Network, m *units.Machine, plan *Plan) Memory {
	var mem Memory
	for k := range NumUnits {
		mem.WeightBytes[k] = plan.ResidentBytes[k]
	}
	for i, live := range LiveBytes(net, m, plan) {
		if live > mem.ActivationBytes {
			mem.ActivationBytes, mem.PeakLayer = live, plan.Position(i)
		}
	}
	return mem
}

// LiveBytes returns the bytes of activations that are alive during each layer,
// by position of the plan. A tensor lives, in its producer's format, from its
// producer to its last consumer; a copy for another unit lives from the first
// to the last consumer there. Graph inputs live from the start, and outputs to
// the end. Nothing is computed in place.
func LiveBytes(net *model.Network, m *units.Machine, plan *Plan) []int64 {
	n := len(net.Layers)
	if n == 0 {
		return nil
	}
	var act [NumUnits]int64
	for k := range NumUnits {
		act[k] = 2
		if m.Units[k] != nil {
			act[k] = int64(max(1, m.Units[k].Rates().ActivationBytes))
		}
	}
	at := make([]int, n) // position of each layer
	for i := range n {
		at[plan.Position(i)] = i
	}
	delta := make([]int64, n+1)
	hold := func(first, last int, bytes int64) {
		delta[first] += bytes
		delta[last+1] -= bytes
	}
	for _, e := range net.Edges {
		from, first := units.CPU, 0
		if e.Producer >= 0 {
			from, first = plan.Units[e.Producer], at[e.Producer]
		}
		last := first
		var used [NumUnits][2]int
		var has [NumUnits]bool
		for _, c := range e.Consumers {
			pos, u := at[c], plan.Units[c]
			last = max(last, pos)
			if !has[u] {
				used[u] = [2]int{pos, pos}
				has[u] = true
			}
			used[u][0], used[u][1] = min(used[u][0], pos), max(used[u][1], pos)
		}
		if e.Output {
			last = n - 1
		}
		hold(first, last, EdgeBytes(e, act[from]))
		for u := range NumUnits {
			if has[u] && units.Kind(u) != from {
				hold(used[u][0], used[u][1], EdgeBytes(e, act[u]))
			}
		}
	}
	for i := 1; i < n; i++ {
		delta[i] += delta[i-1]
	}
	return delta[:n]
}
