package timeline

import (
	"math"
	"testing"

	"github.com/triune-sim/triune/result"
)

func TestFromPrediction(t *testing.T) {
	p := &result.Prediction{Model: "net", LatencyMS: 2, HandlingMS: 0.1, FloorMS: 0.4,
		Units: []result.UnitUse{{Unit: "CPU", FloorMS: 0.1}, {Unit: "NE", FloorMS: 0.3}},
		Layers: []result.Layer{
			{Name: "a", Op: "Conv", Unit: "NE", LatencyMS: 0.5, StartMS: 0.5, Bound: "compute", Fused: []string{"Relu"}},
			{Name: "b", Op: "TopK", Unit: "CPU", LatencyMS: 0.8, TransferMS: 0.2, StartMS: 1, Bound: "overhead"},
		}}
	tl := FromPrediction(p)
	end, sum := 0.0, 0.0
	for _, s := range tl.Spans {
		if s.StartMS < end-1e-12 {
			t.Errorf("span %q starts at %g, the one before ends at %g", s.Name, s.StartMS, end)
		}
		end = s.StartMS + s.DurMS
		sum += s.DurMS
	}
	if math.Abs(end-p.LatencyMS) > 1e-12 || math.Abs(sum-p.LatencyMS) > 1e-12 || len(tl.Spans) != 6 {
		t.Errorf("%d spans to %g, %g ms in all", len(tl.Spans), end, sum)
	}
	if s := tl.Spans[len(tl.Spans)-1]; s.Lane != 0 || s.Kind != "layer" || s.Name != "b" {
		t.Errorf("last span %+v", s)
	}
}
