package host

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
)

// peerFile returns an ONNX file for a peer, and what removes it again. A peer
// gets the same computation in the form that suits it best:
//
//   - an ONNX file under fp32 or "stored" is given as it is;
//   - a scheme with 8-bit activations is written as QDQ with uint8 activations,
//     floats typed fp32, and in the form that ONNX Runtime fuses into integer
//     operators (suitORT);
//   - any other model is written in fp32 without passes (half precision and
//     compressed weights make no peer faster).
func peerFile(name, scheme string) (path string, done func(), err error) {
	done = func() {}
	if strings.EqualFold(filepath.Ext(name), ".onnx") && (scheme == "fp32" || scheme == compile.Stored.Name) {
		path, err = filepath.Abs(name)
		return path, done, err
	}
	g, err := compile.Load(name, compile.LoadOptions{})
	if err != nil {
		return "", done, err
	}
	if scheme != compile.Stored.Name {
		s, err := quant.Parse(scheme)
		if err != nil {
			return "", done, err
		}
		if s.Activations != nil {
			f, err := compile.Fold(g)
			if err != nil {
				return "", done, err
			}
			s.Float = model.Float32
			a := *s.Activations
			a.DType, a.Asymmetric = model.UInt8, true // what fuses best elsewhere
			s.Activations = &a
			ranges := runtime.Ranges(f.Graph, 0)
			if g, _, err = quant.Apply(f.Graph, s, quant.Options{Ranges: ranges}); err != nil {
				return "", done, err
			}
			if err := suitORT(g, ranges); err != nil {
				return "", done, err
			}
		}
	}
	dir, err := os.MkdirTemp("", "triune-peer-")
	if err != nil {
		return "", done, err
	}
	done = func() { os.RemoveAll(dir) }
	path = filepath.Join(dir, "model.onnx")
	if err := onnx.Save(path, g); err != nil {
		done()
		return "", func() {}, err
	}
	return path, done, nil
}
