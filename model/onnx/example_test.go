package onnx_test

import (
	"bytes"
	"fmt"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/model/ops"
)

// Write a graph and read it back.
func ExampleWrite() {
	x := &model.Value{Name: "x", DType: model.Float32, Shape: model.Shape{1, 3}}
	n := &model.Node{Name: "act", Op: "Swish", Inputs: []*model.Value{x}}
	y := &model.Value{Name: "y", Producer: n}
	n.Outputs = []*model.Value{y}
	g := &model.Graph{Name: "small", Inputs: []*model.Value{x}, Outputs: []*model.Value{y}, Nodes: []*model.Node{n}}
	if err := ops.InferGraph(g); err != nil {
		fmt.Println(err)
		return
	}
	var file bytes.Buffer
	if err := onnx.Write(&file, g); err != nil {
		fmt.Println(err)
		return
	}
	h, err := onnx.Read(file.Bytes(), "", onnx.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range h.Nodes { // ONNX has no Swish up to opset 22
		fmt.Println(n.Op, n.Outputs[0])
	}
	// Output:
	// Sigmoid act/sigmoid:fp32[1,3]
	// Mul y:fp32[1,3]
}

// An unknown operator is named when the file is read.
func ExampleRead() {
	_, err := onnx.Read([]byte("not a model"), "", onnx.Options{})
	fmt.Println(err)
	// Output:
	// onnx: model: field 13 has wire type 6, which ONNX does not use
}
