package units

// Link is the cost of handing a tensor from one unit to another: a fixed
// switch and a copy that converts the layout.
type Link struct {
	SwitchMS float64 // per segment switch, ms
	GBs      float64 // rate at which the tensor's bytes are converted, GB/s
}

// Machine is a device as the scheduler sees it: its units and the links
// between them. A unit that the device lacks is nil.
type Machine struct {
	Device, Chip, OS string
	Units            [NumKinds]Unit
	Links            [NumKinds][NumKinds]Link
	// HandlingMS is what a request costs whatever runs it (framework call,
	// image pre-processing where a device entry states it), in ms.
	HandlingMS float64
	// IdleWatts is the power the chip draws while a request is in flight,
	// beside what its busy units draw.
	IdleWatts float64
	// DRAMGBs is the bandwidth of the DRAM that the units share, GB/s; 0 when
	// unknown, and then units that run at once do not slow each other.
	DRAMGBs float64
	// Spread is, per unit, the factor between a predicted latency and its 10th
	// and 90th percentile, from the cross-validated residuals of the fit.
	Spread [NumKinds]Spread
	// Load is what opening a model costs on the device.
	Load Load
}

// Spread turns a point prediction into an interval: latency x Low is the 10th
// percentile, latency x High the 90th. Low is in (0, 1], High at least 1.
type Spread struct {
	Low, High float64
	// Note warns, in one sentence, when the figures extrapolate (no measurement
	// of this chip's unit entered the fit); empty otherwise.
	Note string
}

// Load holds the rates of opening a model. A cold load reads the package,
// specialises every layer for its unit and decompresses what its unit keeps
// uncompressed; a cached one skips the specialisation:
//
//	cold   = FixedMS + package/ReadGBs + sum over layers CompileMS[unit] + decompressed/ExpandGBs
//	cached = FixedMS + package/ReadGBs + decompressed/ExpandGBs
type Load struct {
	FixedMS   float64           // opening, whatever the size, ms
	ReadGBs   float64           // rate of reading the package from storage, GB/s
	CompileMS [NumKinds]float64 // specialising one layer for a unit, ms
	ExpandGBs float64           // rate at which weights are decompressed at load, GB/s of dense output
}
