// Package sim runs several models on one device: a deterministic
// discrete-event simulation of requests that queue for the units.
//
// Read sim.go ([Config], [Run]) first: a configuration is plain data, a model
// is a list of stages (the segments of its plan). Then scenario.go: the YAML
// form, in which models, schemes and devices have names, and search.go, which
// tries policies and placements.
//
// The invariants, each with a test:
//
//   - conservation: arrivals = done + dropped + in flight;
//   - the clock never goes back;
//   - work conserving: no unit idles while a request waits for it;
//   - determinism: equal configurations give equal bytes;
//   - a single model in a closed loop of one client takes its serial latency;
//   - Little's law, and the waiting time of the M/D/1 queue.
package sim
