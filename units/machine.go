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
}
