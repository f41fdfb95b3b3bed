// Package cpu models the CPU with its matrix unit: what layers cost, and the
// arithmetic it uses (fp32). It runs every layer.
//
// The formulas, with their sources, are in docs/cost-model.md.
package cpu
