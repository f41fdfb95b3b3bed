// Package whatif answers questions of the kind "what if": it prices many
// configurations of models, devices, schemes, units and changed device figures,
// and analyses the results.
//
// A [Study] says what to vary. It is read from strict YAML:
//
//	name: int8-rate
//	models: [mobilenet_v2]
//	devices: [iphone-15-pro]
//	schemes: [fp16, w8a8]
//	units: [cpu_and_ne]
//	set:
//	  ne.int8_factor: [1, 2, 4]             # values
//	  ne.stream_gbs: x0.5..x4 log 9         # a range: nine factors, equal ratios
//	base: {scheme: fp16}                    # adds base_latency_ms, speedup, ...
//	where: latency_ms < 8
//	columns: {tops: 2*macs/latency_ms/1e9}
//
// [Open] loads the models and devices that it names, and [Runner.Run] prices
// every configuration and hands the rows over in order, in blocks:
//
//	s, err := whatif.Read(file, dir)
//	r, err := whatif.Open(s)
//	err = r.Run(ctx, whatif.RunOptions{}, func(b *whatif.Block) error { ... })
//
// A row is a pure function of the study and the row's index. So the output is
// the same, byte for byte, with any number of workers, and a run that was
// interrupted continues where it stopped ([RunDir]).
//
// A configuration takes tens of microseconds: a network is compiled once per
// model, scheme and batch size, and then only priced and placed anew.
//
// The analyses stand on the same [Pricer]: [Sensitivity], [BreakEven],
// [Fleet], [Front] and [Mixed]. docs/whatif.md explains the file format and
// every analysis with examples.
package whatif
