package onnx

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// CountOps returns how often each operator occurs in a model, by its name
// without the domain: in the graph, the bodies of control flow and the functions.
// Nothing else is decoded, so that operators that Read refuses are no obstacle.
func CountOps(model []byte) (map[string]int, error) {
	ops := map[string]int{}
	err := eachField(model, "model", func(f field) error {
		switch f.num {
		case 7: // graph
			return countNodes(f, 1, ops, 0)
		case 25: // functions
			return countNodes(f, 7, ops, 0)
		}
		return nil
	})
	if err == nil && len(ops) == 0 {
		err = fmt.Errorf("no operators")
	}
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return ops, nil
}

// countNodes counts the nodes that stand in field num of a graph or function.
func countNodes(in field, num protowire.Number, ops map[string]int, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("graphs nested more than %d deep", maxDepth)
	}
	return in.each("graph", func(f field) error {
		if f.num != num {
			return nil
		}
		return f.each("node", func(f field) error {
			switch f.num {
			case 4: // op_type
				op, err := f.text("node")
				ops[op]++
				return err
			case 5: // attribute, with a graph g or graphs
				return f.each("attribute", func(f field) error {
					if f.num == 6 || f.num == 11 {
						return countNodes(f, 1, ops, depth+1)
					}
					return nil
				})
			}
			return nil
		})
	})
}

// each calls do for every field of an embedded message.
func (f field) each(what string, do func(field) error) error {
	msg, err := f.message(what)
	if err != nil {
		return err
	}
	return eachField(msg, what, do)
}
