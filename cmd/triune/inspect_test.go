package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
	"github.com/triune-sim/triune/units/machine"
)

// What a package says of its inputs is shown: the image an input stands for,
// and the shapes it may take.
func TestInspectInputs(t *testing.T) {
	p := filepath.Join(testutil.Root(t), "model", "coreml", "testdata", "image_classifier_iOS16.mlpackage")
	code, out, msg := triune(t, "inspect", p)
	if code != 0 || !strings.Contains(out, "CoreML6, iOS16") || !strings.Contains(out, "image  fp32[1,3,16,16]  image RGB 16x16") {
		t.Errorf("exit code %d, %s\n%s", code, msg, out)
	}
	code, out, msg = triune(t, "inspect", testutil.Shared(t, "fixtures/mlpackage/special/flex_range_grouped_conv_iOS16.mlpackage"), "--json")
	var doc inspection
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 0 {
		t.Fatalf("exit code %d, %s: %v", code, msg, err)
	}
	if doc.Inputs[0].Accepts != "[1,12,4..32,4..32]" || doc.System != "iOS16" || doc.Others != nil {
		t.Errorf("%+v", doc)
	}
}

// Of several functions the one that was read is named.
func TestInspectFunctions(t *testing.T) {
	x := &model.Value{Name: "x", DType: model.Float16, Shape: model.Shape{1, 4}}
	n := &model.Node{Name: "r", Op: "Relu", Inputs: []*model.Value{x}}
	n.Outputs = []*model.Value{{Name: "y", DType: model.Float16, Shape: model.Shape{1, 4}, Producer: n}}
	g := &model.Graph{Name: "two", Format: "coreml", Inputs: []*model.Value{x}, Outputs: n.Outputs, Nodes: []*model.Node{n},
		Meta: map[string]string{coreml.MetaFunctions: "encode,decode", coreml.MetaFunction: "decode"}}
	comp, err := compile.Prepare(g, compile.Stored, compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := device.Load("a16")
	if err != nil {
		t.Fatal(err)
	}
	m, err := machine.New(d)
	if err != nil {
		t.Fatal(err)
	}
	doc := inspect(g, comp, m)
	var b strings.Builder
	(&app{stdout: &b}).printInspection(doc)
	if doc.Function != "decode" || len(doc.Others) != 2 || !strings.Contains(b.String(), "function decode of encode, decode") {
		t.Errorf("%s", b.String())
	}
}

// A shape that is given reaches every command that opens a model.
func TestShapeEverywhere(t *testing.T) {
	p := testutil.Shared(t, "fixtures/mlpackage/special/flex_range_grouped_conv_iOS16.mlpackage")
	dir := t.TempDir()
	for _, args := range []string{
		"convert " + p + " " + filepath.Join(dir, "a.onnx"), "convert " + p + " " + filepath.Join(dir, "a.mlpackage"),
		"compress " + p + " -c w8 -o " + filepath.Join(dir, "b.mlpackage"), "predict " + p, "inspect " + p,
	} {
		if code, _, msg := triune(t, append(strings.Fields(args), "--shape", "x=1x12x9x15")...); code != 0 {
			t.Errorf("%s: exit code %d, %s", args, code, msg)
		}
		if code, _, msg := triune(t, append(strings.Fields(args), "--shape", "x=1x12x99x15")...); code != 1 || !strings.Contains(msg, "it takes [1,12,4..32,4..32]") {
			t.Errorf("%s with a shape that is not allowed: exit code %d, %s", args, code, msg)
		}
	}
	for _, f := range []string{"a.onnx", "a.mlpackage", "b.mlpackage"} {
		g, err := compile.Load(filepath.Join(dir, f), compile.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if s := g.Outputs[0].Shape; !s.Equal(model.Shape{1, 24, 9, 15}) {
			t.Errorf("%s: the output has shape %v", f, s)
		}
	}
}
