package result

import (
	"encoding/json"
	"testing"
)

// TestKeys holds the keys that readers of predictions rely on.
func TestKeys(t *testing.T) {
	p := Prediction{Segments: []Segment{{}}, Layers: []Layer{{}}}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	has := func(m map[string]any, where string, keys ...string) {
		for _, k := range keys {
			if _, ok := m[k]; !ok {
				t.Errorf("%s has no key %q", where, k)
			}
		}
	}
	has(doc, "prediction", "model", "device", "chip", "os", "scheme", "compute_units", "policy", "latency_ms", "latency_p10_ms",
		"latency_p90_ms", "energy_mj", "load_ms", "package_bytes", "compression_ratio", "peak_memory_bytes", "weight_memory_bytes",
		"macs", "params", "segments", "layers")
	has(doc["segments"].([]any)[0].(map[string]any), "segment", "unit", "layers", "latency_ms")
	has(doc["layers"].([]any)[0].(map[string]any), "layer", "name", "op", "unit", "supported_units", "reason", "latency_ms", "compute_ms",
		"memory_ms", "overhead_ms", "bound", "macs", "weight_bytes", "input_bytes", "output_bytes", "energy_mj", "fused")
}
