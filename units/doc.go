// Package units is the contract between the scheduler, the runtime and the
// three compute units, and what the units share.
//
// A [Unit] answers three questions about a layer: can you run it (and if not,
// why), what would it cost, and which arithmetic do you use. Packages cpu, gpu
// and ne implement it; they never import each other.
package units
