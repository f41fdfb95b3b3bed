package timeline

import (
	"fmt"

	"github.com/triune-sim/triune/result"
)

// FromPrediction lays a prediction out in time, one lane a unit. The handling
// time and the floors come first, each floor in the lane of its unit; then the
// layers, each behind the switch and the conversions that it needs.
func FromPrediction(p *result.Prediction) *result.Timeline {
	t := &result.Timeline{Lanes: []string{"CPU", "GPU", "NE"}, EndMS: p.LatencyMS,
		Title: fmt.Sprintf("%s, %s on %s, %s, %s: %.3g ms", p.Model, p.Scheme, p.Device, p.ComputeUnits, p.Policy, p.LatencyMS)}
	lane := func(unit string) int {
		for i, l := range t.Lanes {
			if l == unit {
				return i
			}
		}
		t.Lanes = append(t.Lanes, unit)
		return len(t.Lanes) - 1
	}
	at := 0.0
	add := func(lane int, name, kind string, start, dur float64, detail string) {
		if dur > 0 {
			t.Spans = append(t.Spans, result.Span{Lane: lane, Name: name, Kind: kind, StartMS: start, DurMS: dur, Detail: detail})
		}
	}
	add(0, "handling", "handling", at, p.HandlingMS, "")
	at += p.HandlingMS
	for _, u := range p.Units {
		add(lane(u.Unit), u.Unit+" floor", "floor", at, u.FloorMS, "once per request that uses the unit")
		at += u.FloorMS
	}
	for i := range p.Layers {
		l := &p.Layers[i]
		k := lane(l.Unit)
		add(k, "to "+l.Name, "transfer", l.StartMS, l.TransferMS, "switch and conversion of inputs")
		detail := l.Op
		for _, f := range l.Fused {
			detail += "+" + f
		}
		detail += ", bound by " + l.Bound
		if l.StallMS > 0 {
			detail += fmt.Sprintf(", %.3g ms waiting for weights", l.StallMS)
		}
		add(k, l.Name, "layer", l.StartMS+l.TransferMS, l.LatencyMS, detail)
	}
	return t
}
