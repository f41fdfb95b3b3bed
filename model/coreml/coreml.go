package coreml

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triune-sim/triune/model"
)

// Options are the choices of reader and writer. The zero value reads the default
// function at its default shapes.
type Options struct {
	// Function names the function of a model that has several; empty means
	// the default one.
	Function string
	// Shapes gives inputs of flexible shape another shape than their default.
	// The key is the input's name.
	Shapes map[string][]int
	// Target is the system that [Save] and [Size] write for; the zero value is
	// the oldest one that can express the graph. Readers ignore it.
	Target Target
}

// Load reads a Core ML model: a package (a folder with a Manifest.json) or a
// bare .mlmodel file that holds an ML program. Weights stay as they are stored:
// compressed ones become [model.Affine], [model.Lookup] or [model.Sparse]
// constants that share the memory of the weight file.
//
// The returned graph has Format "coreml" and the program's opset ("CoreML5" to
// "CoreML8"); Meta holds what the graph does not express (see the package
// documentation). An error is one line that begins with the path.
func Load(path string, o Options) (*model.Graph, error) {
	f, err := openModel(path)
	if err != nil {
		return nil, fileErr(path, err)
	}
	defer f.close()
	g, err := Read(f.spec, func(name string) ([]byte, error) { return f.read(name, maxWeights) }, o)
	if err != nil {
		return nil, fmt.Errorf("coreml: %s: %s", path, strings.TrimPrefix(oneLine(err), "coreml: "))
	}
	if g.Name == "" {
		g.Name = strings.TrimSuffix(filepath.Base(filepath.Clean(path)), filepath.Ext(path))
	}
	return g, nil
}

// fileErr prefixes a file-system error; it stays unwrappable.
func fileErr(path string, err error) error { return fmt.Errorf("coreml: %s: %w", path, err) }

// maxWeights bounds the size of one weight file: the Neural Engine of a phone
// takes 1 GB, a Mac more.
const maxWeights = 64 << 30

// Read builds the graph of a specification (the bytes of model.mlmodel). File
// returns the contents of a weight file by its path relative to the
// specification's folder, for example "weights/weight.bin"; it may be nil for
// programs without one. The graph keeps references to both.
func Read(spec []byte, file func(name string) ([]byte, error), o Options) (*model.Graph, error) {
	m, err := (&decoder{lazy: true}).model(spec)
	if err != nil {
		return nil, fmt.Errorf("coreml: %w", line(err))
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("coreml: %w", line(err))
	}
	g, err := importModel(m, file, o)
	if err != nil {
		return nil, fmt.Errorf("coreml: %w", line(err))
	}
	g.ProgramBytes = int64(len(spec))
	return g, nil
}

// check refuses what is not an ML program of a version that Triune knows.
func (m *specModel) check() error {
	switch {
	case m.program == nil && (m.typeField == 500 || m.typeField == 303 || m.typeField == 403):
		return fmt.Errorf("this is a model of the old NeuralNetwork type (specification version %d); convert the original network again with coremltools' convert(..., convert_to=\"mlprogram\") and minimum_deployment_target iOS15 or later, which gives an .mlpackage that Triune reads", m.version)
	case m.program == nil && m.typeField != 0:
		return fmt.Errorf("this is a %s; Triune reads ML programs (.mlpackage written by coremltools' convert(..., convert_to=\"mlprogram\"))", notProgram[fieldNumber(m.typeField)])
	case m.program == nil && m.version == 0:
		return fmt.Errorf("not a Core ML specification")
	case m.program == nil:
		return fmt.Errorf("the specification (version %d) holds no model", m.version)
	case m.version < 6 || m.version > 9:
		return fmt.Errorf("specification version %d is not supported (want 6 to 9: iOS15 to iOS18); set minimum_deployment_target accordingly when converting", m.version)
	case m.program.version != 1:
		return fmt.Errorf("ML program version %d is not supported (want 1)", m.program.version)
	case len(m.program.functions) == 0:
		return fmt.Errorf("the ML program has no function")
	}
	return nil
}

// choose returns the function to import and its description.
func (m *specModel) choose(want string) (string, *function, *description, error) {
	name := want
	if name == "" {
		name = m.desc.defaultFunc
	}
	if name == "" {
		name = "main"
	}
	if name != want && m.program.functions[name] == nil && len(m.program.names) == 1 {
		name = m.program.names[0]
	}
	f := m.program.functions[name]
	if f == nil {
		return "", nil, nil, fmt.Errorf("no function %s; the program has %s", quote(name), strings.Join(m.program.names, ", "))
	}
	desc := &m.desc
	if i := slices.IndexFunc(m.desc.functions, func(d description) bool { return d.name == name }); i >= 0 {
		desc = &m.desc.functions[i]
	}
	return name, f, desc, nil
}

// Functions returns the names of the functions of a model, sorted, the default
// one first.
func Functions(path string) ([]string, error) {
	f, err := openModel(path)
	if err != nil {
		return nil, fileErr(path, err)
	}
	defer f.close()
	m, err := (&decoder{lazy: true}).model(f.spec)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return nil, fileErr(path, err)
	}
	first, _, _, err := m.choose("")
	if err != nil {
		return m.program.names, nil
	}
	out := []string{first}
	for _, n := range m.program.names {
		if n != first {
			out = append(out, n)
		}
	}
	return out, nil
}
