package whatif

import (
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// Whatever changes the code changes what names it, so that rows of other code
// are not continued.
func TestBuildOf(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) func() (string, error) {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return func() (string, error) { return p, nil }
	}
	one, two := file("one", "code"), file("two", "other code")
	info := func(version, revision, modified string) *debug.BuildInfo {
		bi := &debug.BuildInfo{}
		bi.Main.Version = version
		for k, v := range map[string]string{"vcs.revision": revision, "vcs.modified": modified} {
			if v != "" {
				bi.Settings = append(bi.Settings, debug.BuildSetting{Key: k, Value: v})
			}
		}
		return bi
	}
	get := func(bi *debug.BuildInfo, exe func() (string, error)) string {
		t.Helper()
		s, err := buildOf(bi, exe)
		if err != nil || s == "" {
			t.Fatalf("%q, %v", s, err)
		}
		return s
	}
	for _, c := range []struct {
		name string
		bi   *debug.BuildInfo
		file bool // the executable tells
	}{
		{"released", info("v1.2.3", "", ""), false},
		{"a commit", info("(devel)", "abc", "false"), false},
		{"a commit with a version", info("v0.0.0-20260101000000-abc", "abc", "false"), false},
		{"a changed tree", info("(devel)", "abc", "true"), true},
		{"a changed tree with a version", info("v0.0.0-20260101000000-abc+dirty", "abc", "true"), true},
		{"changed, without the commit", info("v1.2.3+dirty", "", ""), true},
		{"nothing known", info("(devel)", "", ""), true},
		{"no build information", nil, true},
	} {
		a, b := get(c.bi, one), get(c.bi, two)
		if (a != b) != c.file {
			t.Errorf("%s: %q and, with another executable, %q", c.name, a, b)
		}
	}
	if a, b := get(info("(devel)", "abc", "false"), one), get(info("(devel)", "abd", "false"), one); a == b {
		t.Errorf("two commits are both %q", a)
	}
	if _, err := buildOf(nil, func() (string, error) { return "", errors.New("gone") }); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("error %v", err)
	}
}

// The hash of a study names the build, and resuming rows of another one is
// refused.
func TestStampNamesTheBuild(t *testing.T) {
	const text = "models: [tiny_cnn]\nset: {dram_gbs: x1..x2 log 5}\n"
	r := study(t, text)
	if r.Stamp.Build == "" {
		t.Fatal("no build in the stamp")
	}
	dir := t.TempDir()
	if _, err := r.RunDir(t.Context(), dir, DirOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	was := thisBuild
	defer func() { thisBuild = was }()
	thisBuild = func() (string, error) { return "other code", nil }
	other := study(t, text)
	if other.Stamp.Hash == r.Stamp.Hash {
		t.Fatal("other code, the same hash")
	}
	if _, err := other.RunDir(t.Context(), dir, DirOptions{Resume: true}, nil); !errors.Is(err, ErrOtherStudy) {
		t.Errorf("error %v", err)
	}
	thisBuild = was
	if _, err := study(t, text).RunDir(t.Context(), dir, DirOptions{Resume: true}, nil); err != nil {
		t.Errorf("the same code: %v", err)
	}
}
