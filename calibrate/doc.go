// Package calibrate fits the free figures of the device catalogue to measured
// latencies, and says how far the result can be trusted.
//
//	rows, err := calibrate.ReadCSV(file)
//	set, err := calibrate.NewSet(rows, catalogue, calibrate.LoadZoo)
//	fit, err := set.Fit(ctx, calibrate.DefaultPlan(), calibrate.Options{})
//	res, err := set.Residuals(fit.Devices)
//	fmt.Println(calibrate.Summarise(res).MedianPct)
//
// A few measurements of one's own move only figures of the chips that they
// measure: [Set.OwnPlan].
//
// A [Plan] names the free figures: paths of package device, each with the
// entry of the catalogue that states it (a chip, or a family whose chips share
// it). Values stay inside the ranges that the catalogue gives. The loss is
// robust (a Huber loss of the logarithm of the ratio), and a row counts by the
// quality of its measurement ([Row.Sigma]). No figure belongs to a network or
// to a row.
//
// Leave-one-network-out and leave-one-chip-out repeat the fit without a part
// of the data and price that part: these are the errors to expect on networks
// and chips that were not measured, and the intervals p10 to p90 come from
// them.
package calibrate
