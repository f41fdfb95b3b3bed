package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triune-sim/triune/kernels"
)

var updateExamples = flag.Bool("update-examples", false, "write the output of every study in examples/ into its README")

var slowExamples = flag.Bool("slow-examples", false, "also run the study of examples/ that measures networks, half a minute on two processors")

// measuredOn are the kernels that made the figures of the study that measures
// networks: their sums round differently from others'.
const measuredOn = "avx512vnni"

const (
	outputBegin = "<!-- output: written by go test ./cmd/triune -run TestExamples -update-examples -->\n```text\n"
	outputEnd   = "```\n<!-- end of output -->\n"
)

// Every study in examples/ prints what its README shows.
func TestExamples(t *testing.T) {
	studies, err := filepath.Glob(filepath.Join("..", "..", "examples", "*", "study.yaml"))
	if err != nil || len(studies) < 5 {
		t.Fatalf("%d studies, %v", len(studies), err)
	}
	for _, s := range studies {
		dir := filepath.Dir(s)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			measures := filepath.Base(dir) == "mixed-precision"
			if !*slowExamples && measures {
				t.Skip("it measures a network some six hundred times (-slow-examples)")
			}
			code, out, errs := triune(t, "whatif", s, "-q")
			if code != 0 || errs != "" {
				t.Fatalf("code %d, stderr %q", code, errs)
			}
			// The first line holds the hash, which names versions.
			_, out, _ = strings.Cut(out, "\n")
			readme := filepath.Join(dir, "README.md")
			b, err := os.ReadFile(readme)
			if err != nil {
				t.Fatal(err)
			}
			head, rest, ok := strings.Cut(string(b), outputBegin)
			have, tail, ok2 := strings.Cut(rest, outputEnd)
			if !ok || !ok2 {
				t.Fatalf("%s has no place for the output", readme)
			}
			if measures && kernels.ISA() != measuredOn {
				claim, _, _ := strings.Cut(have[strings.Index(have, "mixtures of"):], " (")
				if !strings.Contains(out, claim) {
					t.Errorf("on %s the study does not say %q:\n%.1000s", kernels.ISA(), claim, out)
				}
				return
			}
			if have == out {
				return
			}
			if *updateExamples {
				if err := os.WriteFile(readme, []byte(head+outputBegin+out+outputEnd+tail), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			a, c := strings.Split(have, "\n"), strings.Split(out, "\n")
			for i := range min(len(a), len(c)) {
				if a[i] != c[i] {
					t.Fatalf("%s is stale (go test ./cmd/triune -run TestExamples -update-examples): line %d is\n%s\nand the study prints\n%s", readme, i+1, a[i], c[i])
				}
			}
			t.Fatalf("%s is stale: %d lines, and the study prints %d", readme, len(a), len(c))
		})
	}
}
