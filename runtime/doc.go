// Package runtime is the embedding API of Triune: open a model, choose device,
// compression and compute units, run it, and read what it would cost.
//
//	s, err := runtime.Open("resnet50",
//		runtime.WithDevice("iphone-15-pro"),
//		runtime.WithScheme("w8a8"),
//		runtime.WithUnits(units.CPUAndNE))
//	defer s.Close()
//
//	p := s.Predict()                 // no weight is computed, nothing runs
//	r, err := s.Run(ctx, inputs)     // real arithmetic, the same report
//
// A [Session] holds one model placed on one device. [Session.Predict] prices
// the plan; [Session.Run] executes it with the arithmetic of the unit that each
// layer was placed on, and returns the outputs with the same report: the same
// plan and the same simulated times. Weights are packed at the first run
// ([Session.Load] does it ahead).
//
// A session may be used by any number of goroutines at once. A context that is
// done stops a run before its next layer. A closed session holds no memory and
// returns [ErrClosed].
//
// Options are values that only say what differs from the default; the zero
// set of options opens the model in fp16 on an iPhone 14 Pro with all units.
package runtime
