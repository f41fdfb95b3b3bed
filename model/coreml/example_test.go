package coreml_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/triune-sim/triune/model/coreml"
)

// Read a package and look at what it computes and how its weights are stored.
func ExampleLoad() {
	g, err := coreml.Load("testdata/depthwise_ir__pal2_un_iOS16.mlpackage", coreml.Options{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(g.Opset, g.Inputs[0], "to", g.Outputs[0])
	for _, n := range g.Nodes {
		if n.Op == "Conv" {
			w := n.In(1).Const
			fmt.Println(n.Op, w.Shape, w.Storage.Form(), w.StoredBytes(), "bytes for", w.DenseBytes())
		}
	}
	// Output:
	// CoreML6 x:fp16[1,16,10,10] to y:fp16[1,16,5,5]
	// Conv [48,16,1,1] lookup 200 bytes for 1536
	// Conv [48,1,3,3] lookup 116 bytes for 864
	// Conv [16,48,1,1] lookup 200 bytes for 1536
	// Conv [16,1,3,3] lookup 44 bytes for 288
}

// Write a graph as a package for iOS17; its size is known beforehand.
func ExampleSave() {
	g, err := coreml.Load("testdata/add_mul_concat__w8a8_sym_iOS17.mlpackage", coreml.Options{})
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	o := coreml.Options{Target: coreml.IOS17}
	size, err := coreml.Size(g, o)
	if err != nil {
		log.Fatal(err)
	}
	path := filepath.Join(dir, "net.mlpackage")
	if err := coreml.Save(path, g, o); err != nil {
		log.Fatal(err)
	}
	var written int64
	err = filepath.Walk(path, func(_ string, f os.FileInfo, err error) error {
		if err == nil && f.Mode().IsRegular() {
			written += f.Size()
		}
		return err
	})
	fmt.Println(written == size, err)
	// Output: true <nil>
}
