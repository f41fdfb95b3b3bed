package scheduler

import (
	"fmt"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/units"
)

// laneNames are the lanes of every timeline of one request.
var laneNames = []string{"CPU", "GPU", "NE"}

// Timeline lays a serial plan out in time. The handling time and the floors
// come first; the floor of each unit is drawn in its lane.
func (p *Plan) Timeline(net *model.Network, m *units.Machine, title string) *result.Timeline {
	t := &result.Timeline{Title: title, Lanes: laneNames, EndMS: p.LatencyMS}
	at := 0.0
	add := func(u units.Kind, name, kind string, dur float64, detail string) {
		if dur > 0 {
			t.Spans = append(t.Spans, result.Span{Lane: int(u), Name: name, Kind: kind, StartMS: at, DurMS: dur, Detail: detail})
			at += dur
		}
	}
	add(units.CPU, "handling", "handling", p.HandlingMS, "")
	for k := range units.Kind(NumUnits) {
		if p.Used>>k&1 != 0 {
			add(k, k.String()+" floor", "floor", m.Units[k].Rates().FloorMS, "")
		}
	}
	for i := range p.Timing.Layers {
		lt := &p.Timing.Layers[i]
		l := net.Layers[p.Position(i)]
		u := p.Units[l.Index]
		at = lt.StartMS
		add(u, "switch to "+u.String(), "transfer", lt.SwitchMS, "")
		add(u, "convert inputs of "+l.Name, "transfer", lt.ConvertMS, "")
		detail := string(l.Op)
		if lt.StallMS > 0 {
			detail += fmt.Sprintf(", %.3g ms waiting for weights", lt.StallMS)
		}
		add(u, l.Name, "layer", lt.LayerMS, detail)
	}
	return t
}
