package onnx

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/ops"
)

// suiteDir is where Debian's libonnx-testdata puts the node tests of ONNX.
const suiteDir = "/usr/share/libonnx-testdata/data/node"

// The tolerance of the suite's own runner.
const (
	suiteRtol = 1e-3
	suiteAtol = 1e-7
)

// readUnsupported reads testdata/unsupported.txt: "case: reason" a line.
func readUnsupported(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "unsupported.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]string{}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, ok := strings.Cut(line, ": ")
		if !ok || reason == "" {
			t.Fatalf("testdata/unsupported.txt: %q wants the form \"case: reason\"", line)
		}
		out[name] = reason
	}
	return out
}

// TestNodeSuite runs the node tests of the ONNX project. A case that fails
// must stand in testdata/unsupported.txt with the reason, and one that stands
// there must fail.
func TestNodeSuite(t *testing.T) {
	cases, err := filepath.Glob(filepath.Join(suiteDir, "*", "model.onnx"))
	if err != nil || len(cases) == 0 {
		t.Skipf("the node suite of ONNX is not installed: apt-get install libonnx-testdata puts it in %s", suiteDir)
	}
	unsupported := readUnsupported(t)
	total, passed := len(cases), 0
	for _, path := range cases {
		name := filepath.Base(filepath.Dir(path))
		err := runCase(filepath.Dir(path))
		reason, expected := unsupported[name]
		delete(unsupported, name)
		switch {
		case err == nil && expected:
			t.Errorf("%s passes, but testdata/unsupported.txt lists it (%s)", name, reason)
		case err != nil && !expected:
			t.Errorf("%s: %v", name, err)
		case err == nil:
			passed++
		}
	}
	for name := range unsupported {
		t.Errorf("testdata/unsupported.txt lists %s, which the suite does not have", name)
	}
	t.Logf("%d of %d cases pass", passed, total)
}

// runCase runs every data set of a case.
func runCase(dir string) error {
	sets, err := filepath.Glob(filepath.Join(dir, "test_data_set_*"))
	if err != nil || len(sets) == 0 {
		return fmt.Errorf("no data sets: %v", err)
	}
	for _, set := range sets {
		g, err := Load(filepath.Join(dir, "model.onnx"), Options{})
		if err != nil {
			return err
		}
		if err := runSet(g, set); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(set), err)
		}
	}
	return nil
}

func runSet(g *model.Graph, set string) error {
	in := map[string]ops.Datum{}
	changed := false
	for i, v := range g.Inputs {
		d, err := readDatum(filepath.Join(set, fmt.Sprintf("input_%d.pb", i)), v.Type)
		if err != nil {
			return err
		}
		d = declared(d, v.DType)
		in[v.Name] = d
		// Some cases declare another shape than their data has.
		if d.Tensor != nil && !d.Tensor.Shape.Equal(v.Shape) {
			v.Shape, changed = d.Tensor.Shape, true
		}
	}
	if changed {
		if err := ops.InferGraph(g); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := ops.EvalGraphData(ctx, g, in, ops.Options{})
	if err != nil {
		return err
	}
	for i, v := range g.Outputs {
		got := out[v.Name]
		want, err := readDatum(filepath.Join(set, fmt.Sprintf("output_%d.pb", i)), got.Type)
		if err != nil {
			return err
		}
		if err := sameDatum(got, declared(want, v.DType)); err != nil {
			return fmt.Errorf("output %q: %w", v.Name, err)
		}
		if got.Tensor != nil {
			if err := fits(v, got.Tensor); err != nil {
				return err
			}
		}
	}
	return nil
}

// declared gives bfloat16 data its type back: the suite, made with NumPy,
// which lacks the type, stores the bits as uint16.
func declared(d ops.Datum, want model.DType) ops.Datum {
	if t := d.Tensor; t != nil && want == model.BFloat16 && t.DType == model.UInt16 {
		d.Tensor = &model.Tensor{DType: want, Shape: t.Shape, Data: t.Data}
	}
	return d
}

// fits checks an output against the inferred type and shape.
func fits(v *model.Value, t *model.Tensor) error {
	if v.DType != t.DType {
		return fmt.Errorf("output %q is inferred as %s, but is %s", v.Name, v.DType, t.DType)
	}
	if ops.IsUnranked(v.Shape) {
		return nil
	}
	ok := len(v.Shape) == len(t.Shape)
	for i := 0; ok && i < len(v.Shape); i++ {
		ok = v.Shape[i] == -1 || v.Shape[i] == t.Shape[i]
	}
	if !ok {
		return fmt.Errorf("output %q is inferred as %v, but is %v", v.Name, v.Shape, t.Shape)
	}
	return nil
}

// readDatum reads a TensorProto, SequenceProto or OptionalProto.
func readDatum(path string, kind model.ValueType) (ops.Datum, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return ops.Datum{}, err
	}
	return parseDatum(b, kind)
}

func parseDatum(b []byte, kind model.ValueType) (ops.Datum, error) {
	d := ops.Datum{Type: kind}
	switch kind {
	case model.TypeTensor:
		t, err := ReadTensor(b)
		d.Tensor = t
		return d, err
	case model.TypeSequence:
		err := eachField(b, "sequence", func(f field) error {
			if f.num != 3 {
				return nil
			}
			t, err := ReadTensor(f.bytes)
			d.Seq = append(d.Seq, t)
			return err
		})
		return d, err
	}
	err := eachField(b, "optional", func(f field) error {
		inner := model.TypeTensor
		switch f.num {
		case 3:
		case 5:
			inner = model.TypeSequence
		default:
			return nil
		}
		e, err := parseDatum(f.bytes, inner)
		d.Elem = &e
		return err
	})
	return d, err
}

func sameDatum(got, want ops.Datum) error {
	switch {
	case got.Type != want.Type:
		return fmt.Errorf("kind %d, want %d", got.Type, want.Type)
	case got.Tensor != nil:
		return sameTensor(got.Tensor, want.Tensor)
	case got.Type == model.TypeSequence:
		if len(got.Seq) != len(want.Seq) {
			return fmt.Errorf("a sequence of %d, want %d", len(got.Seq), len(want.Seq))
		}
		for i := range got.Seq {
			if err := sameTensor(got.Seq[i], want.Seq[i]); err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
		}
	case (got.Elem == nil) != (want.Elem == nil):
		return fmt.Errorf("optional present %t, want %t", got.Elem != nil, want.Elem != nil)
	case got.Elem != nil:
		return sameDatum(*got.Elem, *want.Elem)
	}
	return nil
}

func sameTensor(got, want *model.Tensor) error {
	if got.DType != want.DType || !got.Shape.Equal(want.Shape) {
		return fmt.Errorf("%s%v, want %s%v", got.DType, got.Shape, want.DType, want.Shape)
	}
	if got.DType == model.String {
		if !slices.Equal(got.Strings, want.Strings) {
			return fmt.Errorf("%q, want %q", got.Strings, want.Strings)
		}
		return nil
	}
	for i := range want.Len() {
		if !got.DType.IsFloat() {
			if g, w := got.IntAt(i), want.IntAt(i); g != w {
				return fmt.Errorf("element %d is %d, want %d", i, g, w)
			}
			continue
		}
		g, w := got.At(i), want.At(i)
		if g == w || g != g && w != w {
			continue
		}
		if !(math.Abs(g-w) <= suiteAtol+suiteRtol*math.Abs(w)) {
			return fmt.Errorf("element %d is %g, want %g", i, g, w)
		}
	}
	return nil
}
