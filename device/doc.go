// Package device is the catalogue of Apple chips and the phones, tablets and
// Macs that hold them: every figure that a prediction uses, with its source,
// its plausible range, and whether calibration chose it.
//
// A device is loaded by name and read through its fields:
//
//	d, err := device.Load("iphone-14-pro")
//	fmt.Println(d.NE.StreamGBs.Value, d.NE.StreamGBs.Source)
//
// What-if questions change figures by path:
//
//	d, err = d.Override("ne.stream_gbs=x1.5", "link.cpu_ne_ms=0")
//
// # How figures are stored
//
// The YAML under data/ is embedded in the program. base.yaml states what holds
// for every chip, families/ what a generation shares, chips/ what is a chip's
// own, and devices.yaml which product holds which chip, with an operating
// system where a figure depends on it. An entry inherits from the one it names
// and states only what differs; reading is strict, so a misspelt key is an
// error with its line.
//
// The package knows no network and no cost formula: those are in the packages
// below units, documented in docs/cost-model.md.
package device
