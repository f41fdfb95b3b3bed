package onnx

import (
	"context"
	"io"
	"testing"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

func BenchmarkLoad(b *testing.B) {
	for _, name := range []string{"mobilenet_v2", "mobilenet_v2_qdq", "ultraface_rfb_320"} {
		path := testutil.Shared(b, "fixtures/onnx/"+name+".onnx")
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				if _, err := Load(path, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	g, err := Load(testutil.Shared(b, "fixtures/onnx/mobilenet_v2.onnx"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for range b.N {
		if err := Write(io.Discard, g); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReference runs MobileNetV2 (300 million multiply-adds) in the
// reference executor.
func BenchmarkReference(b *testing.B) {
	g, err := Load(testutil.Shared(b, "fixtures/onnx/mobilenet_v2.onnx"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	in := map[string]*model.Tensor{"image": readNpy(b, "image224.npy")}
	for range b.N {
		if _, err := ops.EvalGraph(context.Background(), g, in, ops.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
