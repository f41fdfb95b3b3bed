package onnx

import "github.com/triune-sim/triune/model"

// Builders of raw protobuf for the tests outside the package.

// RawNode is a node of a model under test.
type RawNode struct {
	Op, Domain string
	In, Out    []string
	Attrs      []byte
}

// RawAttr serializes an attribute.
func RawAttr(name string, v any) []byte {
	b, err := (&writer{}).attr(&model.Node{}, name, v)
	if err != nil {
		panic(err)
	}
	return appendMessage(nil, 5, b)
}

// RawModel serializes a model: inputs are float, initializers are serialized
// TensorProtos.
func RawModel(nodes []RawNode, inputs map[string][]int64, initializers [][]byte, outputs ...string) []byte {
	var g []byte
	for _, n := range nodes {
		var domain []byte
		if n.Domain != "" {
			domain = appendString(nil, 7, n.Domain)
		}
		g = appendMessage(g, 1, rawNode(n.Op, n.In, n.Out, n.Attrs, domain))
	}
	g = appendString(g, 2, "raw")
	for _, t := range initializers {
		g = appendMessage(g, 5, t)
	}
	for name, dims := range inputs {
		g = appendMessage(g, 11, rawInput(name, dims...))
	}
	for _, o := range outputs {
		g = appendMessage(g, 12, appendString(appendMessage(nil, 2, appendMessage(nil, 1, appendInt(nil, 1, 1))), 1, o))
	}
	b := appendInt(nil, 1, 8)
	b = appendMessage(b, 7, g)
	b = appendMessage(b, 8, appendInt(nil, 2, 17))
	return appendMessage(b, 8, appendInt(appendString(nil, 1, "com.microsoft"), 2, 1))
}

// RawTensor serializes an initializer.
var RawTensor = rawTensor
