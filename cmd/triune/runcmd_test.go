package main

import (
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A run without a folder prints what the outputs hold: the same for equal
// seeds, another for other seeds, and for an image.
func TestRunPrintsOutputs(t *testing.T) {
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "grey.png"))
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(file, image.NewGray(image.Rect(0, 0, 40, 30))); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	outputs := func(input string) string {
		t.Helper()
		code, stdout, stderr := triune(t, "run", "mobilenet_v2@32", "-c", "w8a8", "--input", input)
		if code != 0 {
			t.Fatal(stderr)
		}
		_, line, ok := strings.Cut(stdout, "logits:fp16[1,1000]")
		if !ok || !strings.Contains(line, "largest at") {
			t.Fatalf("no line about the output in\n%s", stdout)
		}
		return line
	}
	a := outputs("random")
	if b := outputs("image=random:0"); a != b {
		t.Errorf("equal seeds print %q and %q", a, b)
	}
	for _, in := range []string{"random:1", filepath.Join(dir, "grey.png")} {
		if b := outputs(in); a == b {
			t.Errorf("%s prints the same as another input: %q", in, b)
		}
	}
}

func TestRunRefusesInputs(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, `"image" is missing`},
		{[]string{"foo=x.npy"}, "no such input; it reads image"},
		{[]string{"image="}, "want NAME=FILE.npy"},
		{[]string{"random:z"}, "is no seed"},
		{[]string{"random", "image=random"}, "given twice"},
		{[]string{"image=absent.jpg"}, "absent.jpg"},
		{[]string{"runcmd_test.go"}, "no readable image"},
	} {
		args := []string{"run", "mobilenet_v2@32"}
		for _, in := range c.args {
			args = append(args, "-i", in)
		}
		code, stdout, stderr := triune(t, args...)
		if code == 0 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d, %q, want one line with %q", c.args, code, stderr, c.want)
		}
	}
}
