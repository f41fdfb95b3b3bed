// Package ne models the Neural Engine: which layers it runs and why not, what
// they cost, and the arithmetic it uses.
//
// # Cost
//
// A layer takes the longer of its arithmetic and its activation traffic, plus
// the part of the shorter that does not hide behind it, plus an overhead.
// Weights are priced apart: they stream ahead of compute (see [units.Stream]).
// The formulas, with their sources, are in docs/cost-model.md.
package ne
