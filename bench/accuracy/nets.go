package accuracy

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
)

//go:embed nets/*.onnx
var files embed.FS

// Network is one network with the images it is measured on.
type Network struct {
	Name string
	// Graph is the fp32 network; Trained its version that was fine-tuned with
	// fake quantisation (QDQ), nil if there is none.
	Graph, Trained *model.Graph
	// Scale is what a pixel of 0 to 255 is multiplied with.
	Scale float32
	// Test are the images of the figures, Calibration those of the ranges.
	Test, Calibration *Images
	// Note says what is particular about the data.
	Note string
}

// names are the embedded networks.
var names = []string{"fashion_mobilenet_v2", "fashion_resnet"}

// Embedded returns the embedded networks without images.
func Embedded() ([]*Network, error) {
	var out []*Network
	for _, name := range names {
		n := &Network{Name: name, Scale: 1. / 255}
		var err error
		if n.Graph, err = read(name); err != nil {
			return nil, err
		}
		if n.Trained, err = read(name + "_qat"); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

func read(name string) (*model.Graph, error) {
	data, err := files.ReadFile("nets/" + name + ".onnx")
	if err != nil {
		return nil, fmt.Errorf("accuracy: %w", err)
	}
	g, err := onnx.Read(data, "", onnx.Options{})
	if err != nil {
		return nil, fmt.Errorf("accuracy: %s: %w", name, err)
	}
	g.Name = name
	return g, nil
}

// Fashion returns the embedded networks with the images of Fashion-MNIST in a
// folder. Ranges are calibrated on the first images of the training set.
func Fashion(dir string, images, calibration int) ([]*Network, error) {
	test, err := LoadImages(dir, "t10k")
	if err != nil {
		return nil, err
	}
	train, err := LoadImages(dir, "train")
	if err != nil {
		return nil, err
	}
	nets, err := Embedded()
	if err != nil {
		return nil, err
	}
	for _, n := range nets {
		n.Test, n.Calibration = test.Head(images), train.Head(calibration)
	}
	return nets, nil
}

// MNIST returns the network mnist.onnx of a folder with the test digits beside
// it (t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte). Ranges are calibrated
// on the first training digits if they are there, else on the first test
// digits.
func MNIST(dir string, images, calibration int) (*Network, error) {
	test, err := LoadImages(dir, "t10k")
	if err != nil {
		return nil, err
	}
	n := &Network{Name: "mnist", Scale: 1, Test: test.Head(images),
		Note: "no trained W8A8: it takes MNIST's training digits, which no Debian package has"}
	train, err := LoadImages(dir, "train")
	if err != nil {
		n.Calibration = test.Head(calibration)
		n.Note += fmt.Sprintf("; ranges are those of its first %d test digits", n.Calibration.N)
	} else {
		n.Calibration = train.Head(calibration)
	}
	path := filepath.Join(dir, "mnist.onnx")
	if n.Graph, err = onnx.Load(path, onnx.Options{}); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("accuracy: %s: no mnist.onnx", dir)
		}
		return nil, err
	}
	n.Graph.Name = n.Name
	return n, nil
}
