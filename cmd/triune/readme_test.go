package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/triune-sim/triune/kernels"
)

var updateReadme = flag.Bool("update-readme", false, "write what the commands of README.md print into it")

// hostTime is what differs from run to run.
var hostTime = regexp.MustCompile(`host in \d+ ms`)

// Every command that README.md shows with its output prints that output. A line
// "..." stands for any number of lines left out.
func TestREADME(t *testing.T) {
	path := filepath.Join("..", "..", "README.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const fence, prompt = "```\n", "```\n$ triune "
	text := string(b)
	var fresh strings.Builder
	shown := 0
	for {
		before, rest, ok := strings.Cut(text, prompt)
		fresh.WriteString(before)
		if !ok {
			break
		}
		block, after, ok := strings.Cut(rest, fence)
		if !ok {
			t.Fatalf("a block of %s has no end", path)
		}
		text = after
		command, want, _ := strings.Cut(block, "\n")
		shown++
		fresh.WriteString(prompt + command + "\n" + checkShown(t, command, want) + fence)
	}
	if shown < 5 {
		t.Errorf("%d commands with output in %s", shown, path)
	}
	if *updateReadme && fresh.String() != string(b) {
		if err := os.WriteFile(path, []byte(fresh.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// checkShown runs a command, reports where its output is not what is shown, and
// returns what should be shown.
func checkShown(t *testing.T, command, shown string) string {
	t.Helper()
	args := strings.Fields(command)
	switch {
	case strings.Contains(command, "--cross-validate") && !*slowExamples && !*updateReadme:
		return shown // fits three times
	case args[0] == "run" && kernels.ISA() != measuredOn:
		return shown
	}
	code, out, errs := triune(t, args...)
	if code != 0 {
		t.Errorf("triune %s: exit %d, %q", command, code, errs)
		return shown
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	parts := strings.Split(shown, "...\n")
	if len(parts) == 1 {
		if *updateReadme {
			return out
		}
		if hostTime.ReplaceAllString(out, "") != hostTime.ReplaceAllString(shown, "") {
			t.Errorf("README.md is stale (go test ./cmd/triune -run TestREADME -update-readme): triune %s prints\n%s", command, out)
		}
		return shown
	}
	at := 0
	for k, p := range parts {
		if p == "" {
			continue
		}
		want := strings.Split(strings.TrimSuffix(p, "\n"), "\n")
		found := slices.IndexFunc(lines[at:], func(l string) bool { return strings.HasPrefix(l, want[0][:min(len(want[0]), 12)]) })
		if found < 0 || at+found+len(want) > len(lines) {
			t.Errorf("README.md is stale: triune %s prints no line like %q", command, want[0])
			return shown
		}
		at += found
		for i, w := range want {
			have := lines[at+i]
			if hostTime.ReplaceAllString(have, "") != hostTime.ReplaceAllString(w, "") && !*updateReadme {
				t.Errorf("README.md is stale (go test ./cmd/triune -run TestREADME -update-readme): triune %s prints\n%s\nand not\n%s", command, have, w)
			}
			want[i] = have
		}
		at += len(want)
		parts[k] = strings.Join(want, "\n") + "\n"
	}
	return strings.Join(parts, "...\n")
}
