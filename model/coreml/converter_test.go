package coreml

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
)

// texts formats the operations of a function, constants aside, without names
// of values: two programs that do the same have the same texts. Axes count
// from the front, and a custom pad of zeros is a valid one.
func texts(f *function) []string {
	consts := map[string]*value{}
	ranks := map[string]int{}
	for _, in := range f.inputs {
		ranks[in.name] = len(in.typ.shape)
	}
	var out []string
	for _, op := range f.block.ops {
		for _, o := range op.outputs {
			ranks[o.name] = len(o.typ.shape)
		}
		if op.typ == "const" {
			consts[op.outputs[0].name] = op.attr("val")
			continue
		}
		out = append(out, opText(op, consts, ranks))
	}
	slices.Sort(out)
	return out
}

func opText(op *operation, consts map[string]*value, ranks map[string]int) string {
	rank := 0
	if x := op.arg("x"); len(x) == 1 {
		rank = ranks[x[0].name]
	}
	if op.typ == "expand_dims" {
		rank = len(op.outputs[0].typ.shape)
	}
	show := func(key string, v *value) string {
		if v.blob || v.isList || v.typ.shape.Elems() > 16 {
			return v.typ.String()
		}
		t, err := v.tensor(nil)
		if err != nil {
			return err.Error()
		}
		if t.DType == model.String {
			return fmt.Sprintf("%q", t.Strings)
		}
		s := v.typ.String()
		for i := range t.Len() {
			n := t.At(i)
			if n < 0 && (key == "axis" || key == "axes") {
				n += float64(rank)
			}
			s += fmt.Sprintf(" %v", n)
		}
		return s
	}
	var b strings.Builder
	b.WriteString(op.typ)
	for _, a := range op.inputs {
		fmt.Fprintf(&b, " %s=", a.key)
		for _, bd := range a.args {
			switch {
			case bd.val != nil:
				b.WriteString(show(a.key, bd.val))
			case consts[bd.name] != nil:
				b.WriteString(show(a.key, consts[bd.name]))
			default:
				b.WriteString("%")
			}
		}
	}
	for _, a := range op.attrs {
		if a.key != "name" {
			fmt.Fprintf(&b, " [%s=%s]", a.key, show(a.key, a.val))
		}
	}
	for _, o := range op.outputs {
		fmt.Fprintf(&b, " %s", o.typ)
	}
	return strings.ReplaceAll(b.String(), `pad=int32[4] 0 0 0 0 pad_type=["custom"]`, `pad=int32[4] 0 0 0 0 pad_type=["valid"]`)
}

// otherwise lists what Save writes in another way than the converter, on
// purpose: the epsilons of log and rsqrt are operations of their own where they
// matter, an upsampling by size gets the factor nearest to its size, and the
// mask of a sparse weight that is quantized too comes from the operation
// before.
var otherwise = []string{"rsqrt epsilon=", "inverse epsilon=", "log epsilon=", "sqrt ", "add x=% y=fp16[] 5.96", "upsample_bilinear align_corners=bool[] 1 scale", "constexpr_sparse_to_dense mask="}

// TestAsConverterWrites compares, operation by operation, what Save writes
// for a package's graph with what Apple's converter wrote: the same
// operations, parameters, parameter types and constexpr operands.
func TestAsConverterWrites(t *testing.T) {
	var list []string
	for _, d := range []string{"plain", "compressed"} {
		l, err := filepath.Glob(filepath.Join(testutil.Shared(t, "fixtures/mlpackage/"+d), "*.mlpackage"))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, l...)
	}
	compared := 0
	for _, p := range list {
		name := strings.TrimSuffix(filepath.Base(p), ".mlpackage")
		if strings.HasSuffix(name, "iOS15") {
			continue // not a target of the writer
		}
		f, err := openModel(p)
		if err != nil {
			t.Fatal(err)
		}
		want, err := decodeModel(f.spec)
		f.close()
		if err != nil {
			t.Fatal(err)
		}
		g, err := Load(p, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := build(g, Target(want.version), true)
		if err != nil {
			t.Fatal(err)
		}
		a, b := texts(want.program.functions["main"]), texts(got.program.functions["main"])
		compared += len(a)
		only := func(x, y []string, mark string) {
			for _, s := range x {
				if !slices.Contains(y, s) && !slices.ContainsFunc(otherwise, func(o string) bool { return strings.HasPrefix(s, o) }) {
					t.Errorf("%s: %s %s", name, mark, s)
				}
			}
		}
		only(a, b, "missing")
		only(b, a, "not the converter's")
	}
	if compared < 1000 {
		t.Errorf("only %d operations compared", compared)
	}
}
