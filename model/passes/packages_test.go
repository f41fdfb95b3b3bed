package passes

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/triune-sim/triune/internal/testutil"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
	"github.com/triune-sim/triune/model/ops"
)

// Packages of Apple's converter keep their function and lower into layers.
func TestPackages(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testutil.Shared(t, "fixtures/mlpackage"), "*", "*.mlpackage"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no packages: %v", err)
	}
	read := 0
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			g, err := coreml.Load(f, coreml.Options{})
			if err != nil {
				t.Skipf("not read: %v", err) // package coreml tests that
			}
			read++
			in := inputsFor(g)
			o := ops.Options{Float64: true}
			want, err := ops.EvalGraph(context.Background(), g, in, o)
			if err != nil {
				t.Fatal(err)
			}
			if err := Default(g); err != nil {
				t.Fatal(err)
			}
			if err := g.Validate(true); err != nil {
				t.Fatal(err)
			}
			got, err := ops.EvalGraph(context.Background(), g, in, o)
			if err != nil {
				t.Fatal(err)
			}
			// Folded fp16 weights are rounded to fp16 once more.
			same(t, want, got, 1e-3)
			if _, err := model.Lower(g); err != nil {
				t.Fatal(err)
			}
		})
	}
	if read < 170 {
		t.Errorf("only %d of %d packages were read", read, len(files))
	}
}
