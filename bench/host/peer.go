package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Command is a peer that runs as a process of its own, so that its
// dependencies stay out of this module. The process is started with the model,
// the scheme and the number of threads as arguments behind Args, and talks in
// lines over standard input and output:
//
//	-> {"version":"1.22.0","load_ms":81.5}    once, when the model is loaded
//	<- run
//	-> {"ms":12.25}                           one inference
//	<- quit
//	-> {"peak_rss_bytes":123456789}           and it ends
//
// {"error":"..."} in place of any answer ends the session. What it writes to
// standard error is shown.
type Command struct {
	Label string
	Path  string
	Args  []string
	Dir   string
	// DumpEnv names the environment variable that makes the process write the
	// graph it would run to a file, answer, and end without running it; "" if
	// it has none.
	DumpEnv string
}

// Name returns the label.
func (c Command) Name() string { return c.Label }

// Open starts the process and waits until it has loaded the model.
func (c Command) Open(ctx context.Context, model, scheme string, threads int) (PeerSession, error) {
	args := append(append([]string(nil), c.Args...), model, scheme, strconv.Itoa(threads))
	cmd := exec.CommandContext(ctx, c.Path, args...)
	cmd.Dir, cmd.Stderr = c.Dir, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("host: peer %s: %w", c.Label, err)
	}
	p := &process{name: c.Label, cmd: cmd, in: in, out: bufio.NewScanner(out)}
	a, err := p.answer()
	if err != nil {
		_ = p.Close()
		return nil, err
	}
	p.version, p.load = a.Version, a.LoadMS
	return p, nil
}

// Optimize runs the process once to have its graph written.
func (c Command) Optimize(ctx context.Context, model, scheme, out string) (bool, error) {
	if c.DumpEnv == "" {
		return false, nil
	}
	out, err := filepath.Abs(out) // the process runs in Dir
	if err != nil {
		return false, fmt.Errorf("host: peer %s: %w", c.Label, err)
	}
	cmd := exec.CommandContext(ctx, c.Path, append(append([]string(nil), c.Args...), model, scheme, "1")...)
	cmd.Dir, cmd.Env, cmd.Stderr = c.Dir, append(os.Environ(), c.DumpEnv+"="+out), os.Stderr
	stdout, err := cmd.Output()
	var a answer
	if line, _, _ := bytes.Cut(stdout, []byte("\n")); json.Unmarshal(line, &a) == nil && a.Error != "" {
		return false, fmt.Errorf("host: peer %s does not show its graph: %s", c.Label, a.Error)
	}
	if err == nil {
		_, err = os.Stat(out)
	}
	if err != nil {
		return false, fmt.Errorf("host: peer %s does not show its graph: %w", c.Label, err)
	}
	return true, nil
}

type process struct {
	name    string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	version string
	load    float64
	rss     int64
	done    bool
}

type answer struct {
	Version string  `json:"version"`
	LoadMS  float64 `json:"load_ms"`
	MS      float64 `json:"ms"`
	RSS     int64   `json:"peak_rss_bytes"`
	Error   string  `json:"error"`
}

func (p *process) answer() (answer, error) {
	var a answer
	if !p.out.Scan() {
		err := p.out.Err()
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return a, fmt.Errorf("host: peer %s ended without an answer: %w", p.name, err)
	}
	if err := json.Unmarshal(p.out.Bytes(), &a); err != nil {
		return a, fmt.Errorf("host: peer %s answered %q: %w", p.name, p.out.Text(), err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("host: peer %s: %s", p.name, a.Error)
	}
	return a, nil
}

func (p *process) Version() string { return p.version }

func (p *process) Run(context.Context) (float64, error) {
	if _, err := io.WriteString(p.in, "run\n"); err != nil {
		return 0, fmt.Errorf("host: peer %s: %w", p.name, err)
	}
	a, err := p.answer()
	if err == nil && !(a.MS > 0) {
		err = fmt.Errorf("host: peer %s reports %v ms", p.name, a.MS)
	}
	return a.MS, err
}

// Stats ends the process: its peak is only known then.
func (p *process) Stats() (float64, int64) {
	_ = p.Close()
	return p.load, p.rss
}

func (p *process) Close() error {
	if p.done {
		return nil
	}
	p.done = true
	_, err := io.WriteString(p.in, "quit\n")
	if err == nil {
		var a answer
		if a, err = p.answer(); err == nil {
			p.rss = a.RSS
		}
	}
	_ = p.in.Close()
	return errors.Join(err, p.cmd.Wait())
}
