// Package scheduler decides which unit runs each layer, and says why.
//
// Read in this order:
//
//   - options.go: policies, objectives, pins, constraints ([Options]);
//   - problem.go: a placement problem as plain numbers ([Problem]);
//   - evaluate.go: the one time model of a plan ([Problem.Evaluate]), by which
//     every policy is judged;
//   - search.go: the exact search over the live frontier;
//   - solve.go: from options to a [Plan];
//   - predict.go and explain.go: from a plan to the documents of package result;
//   - overlap.go and throughput.go: plans that use units at once.
//
// README.md beside this file tells what is proven and what was measured.
//
// Unless overlap is asked for, a plan is serial: layers run one after the
// other, in one order. [Solve] returns a plan of least latency (or energy,
// energy-delay product, weighted sum), exactly, under pins, prohibitions and
// limits on segments and memory.
package scheduler
