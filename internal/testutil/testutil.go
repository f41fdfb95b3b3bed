// Package testutil finds the data that tests read.
package testutil

import (
	"os"
	"path/filepath"
	"testing"
)

// Root returns the root folder of the repository.
func Root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Fatal("testutil: no go.mod above the working folder")
		}
		dir = up
	}
}

// Shared returns the path of a file of the shared data folder that lies
// beside a developer's checkout (TRIUNE_SHARED overrides where), and skips
// the test, saying why, where there is none.
func Shared(tb testing.TB, name string) string {
	tb.Helper()
	base := os.Getenv("TRIUNE_SHARED")
	if base == "" {
		base = filepath.Join(Root(tb), "..", "shared")
	}
	p := filepath.Join(base, filepath.FromSlash(name))
	if _, err := os.Stat(p); err != nil {
		tb.Skipf("shared data %s is not here (set TRIUNE_SHARED to its folder): %v", name, err)
	}
	return p
}
