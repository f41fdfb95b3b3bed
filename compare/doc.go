// Package compare measures what a compression scheme and a placement do to a
// network's results: every layer and every output against the same network in
// fp32 on the CPU, over as many samples as there are, and top-1 agreement or
// accuracy where the output is a vector of class scores.
//
//	ref, err := runtime.OpenGraph(g, runtime.WithScheme("fp32"), runtime.WithUnits(units.CPUOnly))
//	test, err := runtime.OpenGraph(g, runtime.WithScheme("w8a8"), runtime.WithRanges(ranges))
//	r, err := compare.Sessions(ctx, ref, test, samples, compare.Options{Layers: true})
//
// # What the figures mean
//
// With x the reference, y the tested tensor and sums over all elements of all
// samples:
//
//	SNR    = 10 log10(sum x^2 / sum (y-x)^2)              dB
//	PSNR   = 10 log10(max x^2 / (sum (y-x)^2 / n))        dB
//	cosine = sum x*y / sqrt(sum x^2 * sum y^2)
//
// which are coremltools' own definitions (compute_snr_and_psnr of its testing
// utilities) without the small constants it adds. Identical tensors have no
// finite SNR; a [DB] prints that as "exact" and is null in JSON.
//
// # Which layer is to blame
//
// Errors travel: a layer's output is off because its inputs are, too. So the
// tested network runs a second time, in which every layer's output is replaced by the
// reference's as soon as it has been compared. Each layer then computes on exact
// inputs, and what differs is its own doing: its compressed weights, the rounding of
// its unit, the 8-bit codes that it reads and writes. Layers are listed by that
// noise relative to the signal, sum (y-x)^2 / sum x^2, the most damaging first,
// beside the SNR of their output in the network as it runs.
//
// # Speed and determinism
//
// Samples are shared out over goroutines, each running both networks on its
// own thread; what each sample contributes is summed in the order of the samples, so
// that results are the same bits for any number of threads.
//
// Reading order: metrics.go (the sums), sessions.go (end to end), layers.go.
package compare
