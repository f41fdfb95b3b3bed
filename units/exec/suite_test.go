package exec_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/model/ops"
	"github.com/triune-sim/triune/model/passes"
	"github.com/triune-sim/triune/units/exec"
)

// suiteDir is where Debian's libonnx-testdata puts the node tests of ONNX.
const suiteDir = "/usr/share/libonnx-testdata/data/node"

// The node tests of the ONNX project give the same results through the
// executor, with the passes and the lowering before it, as through the
// reference evaluation: for each case that the reference runs and whose inputs
// are tensors. (That the reference is right is checked beside the reader.)
func TestNodeSuite(t *testing.T) {
	cases, _ := filepath.Glob(filepath.Join(suiteDir, "*", "model.onnx"))
	if len(cases) == 0 {
		t.Skipf("the node suite of ONNX is not installed: apt-get install libonnx-testdata puts it in %s", suiteDir)
	}
	ran, skipped := 0, 0
	for _, path := range cases {
		name := filepath.Base(filepath.Dir(path))
		did, err := suiteCase(filepath.Dir(path))
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case did:
			ran++
		default:
			skipped++
		}
	}
	t.Logf("%d cases agree, %d skipped", ran, skipped)
	if ran < 700 {
		t.Errorf("only %d cases ran", ran)
	}
}

func suiteCase(dir string) (ran bool, err error) {
	g, err := onnx.Load(filepath.Join(dir, "model.onnx"), onnx.Options{})
	if err != nil {
		return false, nil
	}
	in := map[string]*model.Tensor{}
	for i, v := range g.Inputs {
		if v.Type != model.TypeTensor {
			return false, nil
		}
		b, err := os.ReadFile(filepath.Join(dir, "test_data_set_0", fmt.Sprintf("input_%d.pb", i)))
		if err != nil {
			return false, nil
		}
		x, err := onnx.ReadTensor(b)
		if err != nil || x.DType != v.DType {
			return false, nil
		}
		in[v.Name], v.Shape = x, x.Shape
	}
	if ops.InferGraph(g) != nil {
		return false, nil
	}
	for _, n := range g.Nodes {
		switch n.Op {
		case "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout":
			return false, nil
		}
	}
	want, err := ops.EvalGraph(context.Background(), g, in, ops.Options{})
	if err != nil {
		return false, nil
	}
	c := g.Clone()
	if err := passes.Default(c); err != nil {
		return false, err
	}
	net, err := model.Lower(c)
	if err != nil {
		return false, err
	}
	p, err := exec.Compile(net, exec.Options{})
	if err != nil {
		return false, err
	}
	defer p.Close()
	got, err := p.Run(context.Background(), args(net, in), nil)
	if err != nil {
		return false, err
	}
	for i, v := range g.Outputs {
		if err := agree(got[i], want[v.Name]); err != nil {
			return false, fmt.Errorf("output %q: %w", v.Name, err)
		}
	}
	return true, nil
}

// agree compares tensors: integers exactly, floats to fp32 precision (or that
// of their type).
func agree(got, want *model.Tensor) error {
	if got == nil || want == nil {
		return fmt.Errorf("missing: %v, %v", got, want)
	}
	if got.DType != want.DType || !got.Shape.Equal(want.Shape) {
		return fmt.Errorf("%s%v, want %s%v", got.DType, got.Shape, want.DType, want.Shape)
	}
	if want.DType == model.String {
		return nil
	}
	tol := 2e-5
	switch want.DType {
	case model.Float16:
		tol = 2e-3
	case model.BFloat16:
		tol = 1e-2
	case model.Float8E4M3FN, model.Float8E4M3FNUZ, model.Float8E5M2, model.Float8E5M2FNUZ, model.Float4E2M1:
		return nil
	}
	scale := 0.0
	for i := range want.Len() {
		if w := math.Abs(want.At(i)); !math.IsInf(w, 0) && want.DType.IsFloat() {
			scale = max(scale, w)
		}
	}
	for i := range want.Len() {
		if !want.DType.IsFloat() {
			if got.IntAt(i) != want.IntAt(i) {
				return fmt.Errorf("element %d is %d, want %d", i, got.IntAt(i), want.IntAt(i))
			}
			continue
		}
		g, w := got.At(i), want.At(i)
		if g == w || g != g && w != w {
			continue
		}
		if !(math.Abs(g-w) <= tol*(math.Abs(w)+scale/10)+1e-30) {
			return fmt.Errorf("element %d is %g, want %g", i, g, w)
		}
	}
	return nil
}
