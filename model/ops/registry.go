package ops

import (
	"fmt"
	"slices"

	"github.com/triune-sim/triune/model"
)

// opSpec is what the package knows of one operator.
type opSpec struct {
	op     model.Op
	family string
	// Arity: minimum and maximum number of inputs and outputs; a maximum of
	// many means no limit.
	minIn, maxIn, minOut, maxOut int
	infer                        func(*inference)
	eval                         func(*call)
	// impure operators give another result each time (random numbers) or
	// depend on blocks: they are not folded.
	impure bool
	// macs counts multiply-adds where they are the operator's work.
	macs func(*model.Node) int64
}

const many = 1 << 30

var registry = map[model.Op]*opSpec{}

// register adds an operator; the arity reads min-in, max-in, min-out, max-out.
func register(family string, arity [4]int, infer func(*inference), eval func(*call), names ...model.Op) {
	for _, op := range names {
		if registry[op] != nil {
			panic("ops: operator registered twice: " + string(op))
		}
		registry[op] = &opSpec{op: op, family: family, minIn: arity[0], maxIn: arity[1], minOut: arity[2], maxOut: arity[3], infer: infer, eval: eval}
	}
}

func impure(names ...model.Op) {
	for _, op := range names {
		registry[op].impure = true
	}
}

// Info describes an operator of the vocabulary.
type Info struct {
	Op     model.Op
	Family string // the file and chapter it belongs to: "conv", "reduce", ...
	// MinIn to MaxOut bound the number of inputs and outputs; -1 means no
	// upper bound.
	MinIn, MaxIn, MinOut, MaxOut int
	// CountsMACs tells whether [MACs] counts its multiply-adds.
	CountsMACs bool
	// Pure operators give the same outputs for the same inputs.
	Pure bool
}

// Supported reports whether the vocabulary has the operator.
func Supported(op model.Op) bool { return registry[op] != nil }

// Lookup returns the description of an operator.
func Lookup(op model.Op) (Info, bool) {
	s := registry[op]
	if s == nil {
		return Info{}, false
	}
	limit := func(n int) int {
		if n >= many {
			return -1
		}
		return n
	}
	return Info{Op: s.op, Family: s.family, MinIn: s.minIn, MaxIn: limit(s.maxIn), MinOut: s.minOut, MaxOut: limit(s.maxOut), Pure: !s.impure, CountsMACs: s.macs != nil}, true
}

// List returns the vocabulary sorted by name.
func List() []Info {
	names := make([]model.Op, 0, len(registry))
	for op := range registry {
		names = append(names, op)
	}
	slices.Sort(names)
	out := make([]Info, len(names))
	for i, op := range names {
		out[i], _ = Lookup(op)
	}
	return out
}

// MACs returns the multiply-adds a node performs, from the shapes of its
// values (which [InferGraph] has set): those of convolutions, matrix products
// and recurrent operators; 0 for every other operator and for unknown shapes.
func MACs(n *model.Node) int64 {
	s := registry[n.Op]
	if s == nil || s.macs == nil {
		return 0
	}
	return max(0, s.macs(n))
}

func countMACs(f func(*model.Node) int64, names ...model.Op) {
	for _, op := range names {
		registry[op].macs = f
	}
}

// opError is what inference and evaluation throw and the package's entry
// points turn into an error.
type opError struct{ err error }

func failf(format string, args ...any) {
	panic(opError{fmt.Errorf(format, args...)})
}

// nodeError names the node and the operator.
func nodeError(n *model.Node, err error) error {
	name := n.Name
	if name == "" && len(n.Outputs) > 0 && n.Outputs[0] != nil {
		name = n.Outputs[0].Name
	}
	return fmt.Errorf("ops: node %q (%s): %w", name, n.Op, err)
}

// guard runs f and turns a thrown opError, or a run-time panic caused by
// inputs that no check has caught, into an error.
func guard(n *model.Node, f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case opError:
			err = nodeError(n, r.err)
		case error:
			err = nodeError(n, fmt.Errorf("invalid inputs or attributes: %w", r))
		default:
			err = nodeError(n, fmt.Errorf("invalid inputs or attributes: %v", r))
		}
	}()
	f()
	return nil
}

func checkArity(n *model.Node, s *opSpec) error {
	in := len(n.Inputs)
	for in > 0 && n.Inputs[in-1] == nil {
		in--
	}
	if in < s.minIn || in > s.maxIn {
		return nodeError(n, fmt.Errorf("has %d inputs, wants %s", in, span(s.minIn, s.maxIn)))
	}
	if out := len(n.Outputs); out < s.minOut || out > s.maxOut {
		return nodeError(n, fmt.Errorf("has %d outputs, wants %s", out, span(s.minOut, s.maxOut)))
	}
	return nil
}

func span(lo, hi int) string {
	switch {
	case lo == hi:
		return fmt.Sprint(lo)
	case hi >= many:
		return fmt.Sprintf("at least %d", lo)
	}
	return fmt.Sprintf("%d to %d", lo, hi)
}

func find(n *model.Node) (*opSpec, error) {
	s := registry[n.Op]
	if s == nil {
		return nil, nodeError(n, fmt.Errorf("unknown operator (the list is in docs/operators.md)"))
	}
	return s, checkArity(n, s)
}
