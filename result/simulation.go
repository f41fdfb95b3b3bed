package result

// Simulation is the outcome of one scenario: several models on one device.
type Simulation struct {
	Scenario   string  `json:"scenario"`
	Device     string  `json:"device"`
	Policy     string  `json:"policy"`
	Seed       uint64  `json:"seed"`
	DurationMS float64 `json:"duration_ms"` // simulated time, draining included
	Events     int64   `json:"events"`

	EnergyMJ     float64 `json:"energy_mj"`
	IdleEnergyMJ float64 `json:"idle_energy_mj"` // part of it
	AverageWatts float64 `json:"average_watts"`

	// MeanInSystem is the time average of the requests in the system, and
	// MeanSojournMS what they spend there: by Little's law the first is the
	// arrival rate times the second.
	MeanInSystem float64 `json:"mean_in_system"`

	Models  []ModelStats `json:"models"`
	Units   []UnitStats  `json:"units"`
	Thermal *Thermal     `json:"thermal,omitempty"`
	// Assumptions lists what the simulation takes for granted.
	Assumptions []string  `json:"assumptions"`
	Timeline    *Timeline `json:"timeline,omitempty"`
}

// ModelStats is the service that one model got. arrivals = done + dropped +
// in_flight.
type ModelStats struct {
	Name       string  `json:"name"`
	Plan       string  `json:"plan"` // the units that its plan uses
	ServiceMS  float64 `json:"service_ms"`
	Arrivals   int64   `json:"arrivals"`
	Done       int64   `json:"done"`
	Dropped    int64   `json:"dropped"`
	InFlight   int64   `json:"in_flight"`
	Throughput float64 `json:"throughput_per_s"`
	// Latencies of finished requests, from arrival to completion.
	MeanMS float64 `json:"mean_ms"`
	P50MS  float64 `json:"p50_ms"`
	P90MS  float64 `json:"p90_ms"`
	P99MS  float64 `json:"p99_ms"`
	MaxMS  float64 `json:"max_ms"`
	// WaitMS is the mean time spent waiting for units.
	WaitMS     float64 `json:"mean_wait_ms"`
	DeadlineMS float64 `json:"deadline_ms"` // 0: none
	// Misses counts the requests that finished late or were dropped.
	Misses   int64   `json:"misses"`
	MissPct  float64 `json:"miss_pct"`
	EnergyMJ float64 `json:"energy_mj"` // of its stages, idle power excluded
}

// UnitStats is how one unit was used.
type UnitStats struct {
	Unit           string  `json:"unit"`
	UtilisationPct float64 `json:"utilisation_pct"`
	BusyMS         float64 `json:"busy_ms"`
	Stages         int64   `json:"stages"`
	// SlowedPct is the part of the busy time that was added by other units'
	// memory traffic and by thermal throttling.
	SlowedPct float64 `json:"slowed_pct"`
	MaxQueue  int     `json:"max_queue"`
}

// Thermal is the state of the thermal model at the end.
type Thermal struct {
	PeakRiseC    float64 `json:"peak_rise_c"`
	EndRiseC     float64 `json:"end_rise_c"`
	LowestRate   float64 `json:"lowest_rate"`
	ThrottledPct float64 `json:"throttled_pct"` // of the simulated time
}
