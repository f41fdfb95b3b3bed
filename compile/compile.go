// Package compile takes a model from a file or a name to a network that a
// scheduler can place: it opens the model, runs the graph passes, applies a
// compression scheme, lowers the graph to layers and sizes the package.
//
//	g, err := compile.Load("resnet50", compile.LoadOptions{})
//	c, err := compile.Prepare(g, scheme, compile.Options{})
//	plan, err := scheduler.Solve(c.Net, machine, scheduler.Options{})
//
// No weight is computed on the way: constants are lazy.
package compile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/quant"
)

// LoadOptions say how to read a model. The zero value takes the model's own
// shapes and its default function.
type LoadOptions struct {
	// Shapes fixes the shape of inputs by name, where the model leaves it
	// open or to replace a default.
	Shapes map[string][]int
	// Function chooses one of several functions of a Core ML package.
	Function string
}

// Load reads a model: a path that ends in .onnx, .mlpackage or .mlmodel, or
// the name of a built-in network (zoo.Names lists them). The graph comes as
// the file states it, shapes inferred, no pass run.
func Load(name string, o LoadOptions) (*model.Graph, error) {
	switch ext := strings.ToLower(filepath.Ext(strings.TrimRight(name, "/"))); ext {
	case ".onnx":
		return onnx.Load(name, onnx.Options{Shapes: o.Shapes})
	case ".mlpackage", ".mlmodel":
		return coreml.Load(name, coreml.Options{Shapes: o.Shapes, Function: o.Function})
	}
	if zoo.Has(name) {
		if len(o.Shapes) > 0 {
			return nil, fmt.Errorf("compile: built-in network %q has fixed shapes; write the size into the name, for example mobilenet_v2@160", name)
		}
		return zoo.Build(name)
	}
	if _, err := os.Stat(name); err == nil {
		return nil, fmt.Errorf("compile: %s: unknown kind of model file (want .onnx, .mlpackage or .mlmodel)", name)
	}
	if strings.ContainsAny(name, `/\`) {
		return nil, fmt.Errorf("compile: %s: no such file", name)
	}
	_, err := zoo.Build(name)
	return nil, fmt.Errorf("%w; a file would end in .onnx, .mlpackage or .mlmodel", err)
}

// Options say how to prepare a graph. The zero value is what coremltools
// would do by default.
type Options struct {
	Quant quant.Options
}

// Compiled is a prepared network and what is known of its package.
type Compiled struct {
	Model  string // name of the graph
	Scheme quant.Scheme
	Net    *model.Network
	Report *quant.Report

	// PackageBytes is the size of the .mlpackage that the compressed graph
	// makes; BaselineBytes that of the same graph in fp16 without
	// compression. CompressionRatio is their quotient.
	PackageBytes, BaselineBytes int64
	CompressionRatio            float64
	// PackageNote says why PackageBytes is an estimate; empty when it is exact.
	PackageNote string
	Params      int64 // of the graph as loaded, before folding
	MACs        int64 // multiply-adds of one inference
}

// Prepare runs the passes, applies the scheme and lowers. The graph is not
// changed, so that one graph serves many schemes.
func Prepare(g *model.Graph, s quant.Scheme, o Options) (*Compiled, error) {
	f, err := Fold(g)
	if err != nil {
		return nil, err
	}
	return f.Apply(s, o)
}

// Folded is a graph after the passes, ready for any number of schemes.
type Folded struct {
	Graph    *model.Graph
	params   int64
	baseline int64 // bytes of the fp16 package
}

// Fold clones a graph and runs the standard passes.
func Fold(g *model.Graph) (*Folded, error) {
	f := &Folded{params: g.Params(), Graph: g.Clone()}
	if err := passes.Default(f.Graph); err != nil {
		return nil, err
	}
	// Batch norms count before they are folded, quantized weights after.
	f.params = max(f.params, f.Graph.Params())
	fp16, err := quant.Parse("fp16")
	if err != nil {
		return nil, err
	}
	base, _, err := quant.Apply(f.Graph, fp16, quant.Options{})
	if err != nil {
		return nil, err
	}
	f.baseline, _ = packageBytes(decompressed(base))
	return f, nil
}

// Stored is the scheme that takes a model's weights and quantize operators as
// they are. A Core ML program keeps its types; any other model is typed fp32
// for want of a choice, and becomes fp16, as conversion to Core ML makes it.
var Stored = quant.Scheme{Name: "stored"}

// Apply compresses the folded graph and lowers it.
func (f *Folded) Apply(s quant.Scheme, o Options) (*Compiled, error) {
	if s.Name == Stored.Name && f.Graph.Format != "coreml" {
		s.Float = model.Float16
	}
	q, report, err := quant.Apply(f.Graph, s, o.Quant)
	if err != nil {
		return nil, err
	}
	net, err := model.Lower(q)
	if err != nil {
		return nil, err
	}
	c := &Compiled{Model: f.Graph.Name, Scheme: s, Net: net, Report: report, Params: f.params, BaselineBytes: f.baseline}
	c.PackageBytes, c.PackageNote = packageBytes(q)
	c.CompressionRatio = float64(c.BaselineBytes) / float64(c.PackageBytes)
	for _, l := range net.Layers {
		c.MACs += l.MACs
	}
	return c, nil
}

// decompressed returns a graph in which every compressed constant is dense:
// what a package would hold without compression.
func decompressed(g *model.Graph) *model.Graph {
	out := g.Clone()
	for _, v := range out.Consts() {
		if c := v.Const; c.Storage.Form() != model.FormDense {
			v.Const = model.NewLazy(c.DType, c.Shape, c.Value)
		}
	}
	return out
}

// packageBytes returns the size of the graph's .mlpackage: exact where the
// Core ML writer can express the graph, else an estimate from the stored bytes,
// with the reason.
func packageBytes(g *model.Graph) (bytes int64, note string) {
	n, err := coreml.Size(g, coreml.Options{})
	if err == nil {
		return n, ""
	}
	// A program holds about 400 bytes of text per operator; a blob takes 64
	// bytes of metadata and on average 32 of alignment (facts on the packages
	// that coremltools writes: MobileNetV2, 105 operators, 85,344 bytes).
	n = 1000
	for range g.Nodes {
		n += 400
	}
	for _, v := range g.Consts() {
		n += v.Const.StoredBytes() + 96
	}
	return n, err.Error()
}
