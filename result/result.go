// Package result holds the documents that Triune prints as JSON and that
// package report turns into tables, plots and traces. It is a leaf: it imports
// nothing of Triune, so that a reader of results needs no simulator.
//
// Times are in ms, sizes in bytes, energies in mJ, powers in W. Field names
// are a contract: fields are added, never renamed or removed. Slices are in
// execution order, so that equal inputs give equal bytes.
package result

// Prediction is what a plan of one model on one device costs.
//
// latency_ms = handling_ms + floor_ms + layers_ms + transfer_ms, and
// layers_ms and transfer_ms are the sums over layers. energy_mj = the sum of
// the layers' energy_mj + floor_energy_mj + idle_energy_mj.
type Prediction struct {
	Model        string `json:"model"`
	Device       string `json:"device"`
	Chip         string `json:"chip"`
	OS           string `json:"os"`
	Scheme       string `json:"scheme"`
	ComputeUnits string `json:"compute_units"`
	Policy       string `json:"policy"`

	LatencyMS    float64 `json:"latency_ms"`
	LatencyP10MS float64 `json:"latency_p10_ms"`
	LatencyP90MS float64 `json:"latency_p90_ms"`
	EnergyMJ     float64 `json:"energy_mj"`
	// LoadMS is the first load: reading, specialising, decompressing.
	// LoadCachedMS is a later one, with the specialised program cached.
	LoadMS       float64 `json:"load_ms"`
	LoadCachedMS float64 `json:"load_cached_ms"`

	PackageBytes     int64   `json:"package_bytes"`
	CompressionRatio float64 `json:"compression_ratio"`

	PeakMemoryBytes   int64 `json:"peak_memory_bytes"`   // weights + activations at their peak
	WeightMemoryBytes int64 `json:"weight_memory_bytes"` // weights resident after load
	// ActivationMemoryBytes is the peak of the live activation tensors, in the
	// formats of the units that hold them; inputs and outputs included.
	ActivationMemoryBytes int64 `json:"activation_memory_bytes"`

	MACs   int64 `json:"macs"`
	Params int64 `json:"params"`

	HandlingMS    float64 `json:"handling_ms"`
	FloorMS       float64 `json:"floor_ms"`
	LayersMS      float64 `json:"layers_ms"`
	TransferMS    float64 `json:"transfer_ms"`
	FloorEnergyMJ float64 `json:"floor_energy_mj"`
	IdleEnergyMJ  float64 `json:"idle_energy_mj"`

	// OptimalMS is the latency of the optimal plan under the same mask and
	// pins, where it is known: for the policies optimal, coreml and greedy.
	OptimalMS float64 `json:"optimal_ms,omitempty"`

	// Exact is false when a search had to be cut short; GapPct then bounds how
	// far the plan may be above the best one, in percent of a lower bound.
	Exact  bool    `json:"exact"`
	GapPct float64 `json:"gap_pct"`

	// Overlap is set when units may run at once; latency_ms is then less than
	// the sum of its parts by saved_ms.
	Overlap *Overlap `json:"overlap,omitempty"`

	// Pipeline is set by the policy throughput.
	Pipeline *Pipeline `json:"pipeline,omitempty"`

	// Summary is the plan in one sentence.
	Summary string `json:"summary,omitempty"`
	// Notes warn where the prediction extrapolates.
	Notes []string `json:"notes,omitempty"`

	Units    []UnitUse `json:"units"`
	Segments []Segment `json:"segments"`
	Layers   []Layer   `json:"layers"`
}

// Overlap compares a plan that runs units at once with the serial optimum.
type Overlap struct {
	SerialMS  float64 `json:"serial_ms"`
	BoundMS   float64 `json:"bound_ms"` // no schedule is shorter
	GapPct    float64 `json:"gap_pct"`  // of the plan above the bound
	SavedMS   float64 `json:"saved_ms"` // what ran beside something else
	Strategy  string  `json:"strategy"`
	Schedules int     `json:"schedules_tried"`
}

// Pipeline is how a plan serves a steady stream of requests.
type Pipeline struct {
	RequestsPerS float64 `json:"requests_per_s"`
	PeriodMS     float64 `json:"period_ms"` // between two requests leaving
	BoundMS      float64 `json:"bound_ms"`  // no plan has a shorter period
	GapPct       float64 `json:"gap_pct"`
	Bottleneck   string  `json:"bottleneck"`
	Loads        []Load  `json:"loads"`
	InFlight     int     `json:"in_flight"` // requests that keep the bottleneck busy
	Strategy     string  `json:"strategy"`
	// ContiguousPeriodMS is that of the best pipeline in which each unit runs
	// one contiguous part of the network.
	ContiguousPeriodMS float64 `json:"contiguous_period_ms"`
	// Mix serves some requests by one plan and some by another; MixBoundMS is
	// what no mixture undercuts.
	Mix         []MixPart `json:"mix"`
	MixPeriodMS float64   `json:"mix_period_ms"`
	MixBoundMS  float64   `json:"mix_bound_ms"`
	// LatencyPlanMS and LatencyPlanPeriodMS are the latency and the period of
	// the plan of least latency, for comparison.
	LatencyPlanMS       float64 `json:"latency_plan_ms"`
	LatencyPlanPeriodMS float64 `json:"latency_plan_period_ms"`
}

// MixPart is one plan of a mixture.
type MixPart struct {
	Share     float64        `json:"share"` // of the requests
	LatencyMS float64        `json:"latency_ms"`
	Layers    map[string]int `json:"layers"` // by unit
}

// Load is what one request asks of a resource.
type Load struct {
	Resource string  `json:"resource"`
	LoadMS   float64 `json:"load_ms"`
}

// UnitUse is the part of one unit in a plan. Only units that run a layer are
// listed.
type UnitUse struct {
	Unit          string  `json:"unit"`
	Layers        int     `json:"layers"`
	BusyMS        float64 `json:"busy_ms"` // its layers and the transfers to it
	FloorMS       float64 `json:"floor_ms"`
	EnergyMJ      float64 `json:"energy_mj"` // of its layers and its floor
	ResidentBytes int64   `json:"resident_bytes"`
	MACs          int64   `json:"macs"`
}

// Segment is a run of consecutive layers on one unit.
type Segment struct {
	Unit      string  `json:"unit"`
	Layers    int     `json:"layers"`
	LatencyMS float64 `json:"latency_ms"` // its layers and the transfers before them
	StartMS   float64 `json:"start_ms"`
	First     string  `json:"first"` // name of its first layer
	Last      string  `json:"last"`
}

// Layer is one layer of a plan.
//
// latency_ms = compute_ms + memory_ms + overhead_ms: memory_ms is the part of
// memory traffic, decompression and waiting for weights that compute does not
// hide. Moving to the layer's unit comes on top, as transfer_ms.
type Layer struct {
	Name           string   `json:"name"`
	Op             string   `json:"op"`
	Kind           string   `json:"kind"`
	Unit           string   `json:"unit"`
	SupportedUnits []string `json:"supported_units"`
	Reason         string   `json:"reason"`

	LatencyMS  float64 `json:"latency_ms"`
	ComputeMS  float64 `json:"compute_ms"`
	MemoryMS   float64 `json:"memory_ms"`
	OverheadMS float64 `json:"overhead_ms"`
	TransferMS float64 `json:"transfer_ms"` // switch and conversions before the layer
	StartMS    float64 `json:"start_ms"`
	// ActivationMS, WeightMS and ExpandMS are what activation traffic, weight
	// traffic and run-time conversion would take alone; they overlap.
	ActivationMS float64 `json:"activation_ms"`
	WeightMS     float64 `json:"weight_ms"`
	ExpandMS     float64 `json:"expand_ms"`
	StallMS      float64 `json:"stall_ms"` // waiting for weights; part of memory_ms
	Bound        string  `json:"bound"`

	MACs          int64   `json:"macs"`
	WeightBytes   int64   `json:"weight_bytes"`
	InputBytes    int64   `json:"input_bytes"`
	OutputBytes   int64   `json:"output_bytes"`
	DRAMBytes     int64   `json:"dram_bytes"` // activation bytes that go to DRAM
	ResidentBytes int64   `json:"resident_bytes"`
	EnergyMJ      float64 `json:"energy_mj"` // dynamic, and the unit's static power meanwhile

	Fused []string `json:"fused"`
}

// Explanation says why a plan is what it is.
type Explanation struct {
	Model     string  `json:"model"`
	Device    string  `json:"device"`
	Policy    string  `json:"policy"`
	Summary   string  `json:"summary"`
	LatencyMS float64 `json:"latency_ms"`
	EnergyMJ  float64 `json:"energy_mj"`
	// RunnerUp is the best plan that differs in at least one layer, judged by
	// the same objective.
	RunnerUp *Alternative `json:"runner_up,omitempty"`
	// Alternatives are the plans of other policies and of single units.
	Alternatives []Alternative      `json:"alternatives"`
	Layers       []LayerExplanation `json:"layers"`
}

// Alternative is another plan, beside the chosen one.
type Alternative struct {
	Name      string  `json:"name"`
	LatencyMS float64 `json:"latency_ms"`
	EnergyMJ  float64 `json:"energy_mj"`
	// DeltaMS is its latency less the chosen plan's.
	DeltaMS float64 `json:"delta_ms"`
	// Moves counts the layers that it places elsewhere, and Detail names
	// them, or says why there is no such plan.
	Moves  int    `json:"moves"`
	Detail string `json:"detail,omitempty"`
}

// LayerExplanation is one layer and its choices.
type LayerExplanation struct {
	Name    string       `json:"name"`
	Op      string       `json:"op"`
	Unit    string       `json:"unit"`
	Reason  string       `json:"reason"`
	Choices []UnitChoice `json:"choices"`
	// SwitchMS and ConvertMS are paid before the layer in the chosen plan.
	SwitchMS  float64 `json:"switch_ms"`
	ConvertMS float64 `json:"convert_ms"`
}

// UnitChoice is what a layer costs on one unit, or why it cannot run there.
type UnitChoice struct {
	Unit      string  `json:"unit"`
	Chosen    bool    `json:"chosen"`
	Supported bool    `json:"supported"`
	Note      string  `json:"note,omitempty"` // why not, or a remark
	LayerMS   float64 `json:"layer_ms"`       // the layer alone, its weights waited for
	EnergyMJ  float64 `json:"energy_mj"`      // dynamic energy and static power
	Bound     string  `json:"bound,omitempty"`
	// PlanMS is the latency of the whole plan with this layer moved there and
	// nothing else changed, and MoveMS what that changes beside the layer's
	// own time: switches, conversions, floors, lost prefetching.
	PlanMS float64 `json:"plan_ms"`
	MoveMS float64 `json:"move_ms"`
}
