// Command gomlx is a peer of `triune bench host`: it loads an ONNX file with
// onnx-gomlx, runs it on gomlx's backend in Go when told to, and answers in
// lines of JSON (bench/host/peer.go). Arguments: MODEL.onnx SCHEME THREADS.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/gomlx/gomlx/backends/simplego"
	"github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/tensors"
	"github.com/gomlx/gomlx/pkg/ml/context"
	"github.com/gomlx/onnx-gomlx/onnx"
)

func say(v map[string]any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(b))
}

func main() {
	if err := run(); err != nil {
		say(map[string]any{"error": err.Error()})
		os.Exit(1)
	}
}

func run() (err error) {
	// gomlx reports errors of graph building by panics.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	if len(os.Args) != 4 {
		return fmt.Errorf("want MODEL.onnx SCHEME THREADS, got %d arguments", len(os.Args)-1)
	}
	threads, err := strconv.Atoi(os.Args[3])
	if err != nil || threads < 1 {
		return fmt.Errorf("threads is %q, want a positive number", os.Args[3])
	}
	start := time.Now()
	model, err := onnx.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	// One thread means sequential operators without a worker pool.
	config := fmt.Sprintf("parallelism=%d", threads)
	if threads == 1 {
		config = "parallelism=0,ops_sequential"
	}
	// The backend writes its settings to standard output, which is ours.
	stdout := os.Stdout
	os.Stdout = os.Stderr
	backend, err := simplego.New(config)
	os.Stdout = stdout
	if err != nil {
		return err
	}
	names, shapes := model.Inputs()
	if len(names) != 1 {
		return fmt.Errorf("the model has %d inputs, the peer feeds one", len(names))
	}
	dims, n := make([]int, shapes[0].Rank()), 1
	for i, d := range shapes[0].Dimensions {
		dims[i] = max(1, d)
		n *= dims[i]
	}
	x := make([]float32, n)
	s := uint32(1)
	for i := range x {
		s = s*1664525 + 1013904223
		x[i] = float32(s)/(1<<31) - 1
	}
	ctx := context.New()
	if err := model.VariablesToContext(ctx); err != nil {
		return err
	}
	exec, err := context.NewExec(backend, ctx.Reuse(), func(ctx *context.Context, in *graph.Node) *graph.Node {
		return model.CallGraph(ctx, in.Graph(), map[string]*graph.Node{names[0]: in})[0]
	})
	if err != nil {
		return err
	}
	input := tensors.FromFlatDataAndDimensions(x, dims...)
	infer := func() error {
		out, err := exec.Exec(input)
		if err != nil {
			return err
		}
		for _, o := range out {
			o.FinalizeAll()
		}
		return nil
	}
	if err := infer(); err != nil {
		return err
	}
	say(map[string]any{"version": version(), "load_ms": ms(start)})
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch in.Text() {
		case "run":
			t := time.Now()
			if err := infer(); err != nil {
				return err
			}
			say(map[string]any{"ms": ms(t)})
		case "quit":
			say(map[string]any{"peak_rss_bytes": peakRSS()})
			return nil
		default:
			return fmt.Errorf("unknown request %q", in.Text())
		}
	}
	return in.Err()
}

// peakRSS returns the greatest resident size of this process in bytes, 0 if it
// is not known. What getrusage says also covers the process that started this
// one, up to exec.
func peakRSS() int64 {
	b, _ := os.ReadFile("/proc/self/status")
	_, after, ok := bytes.Cut(b, []byte("VmHWM:"))
	if f := bytes.Fields(after); ok && len(f) > 0 {
		kb, _ := strconv.ParseInt(string(f[0]), 10, 64)
		return kb << 10
	}
	return 0
}

func ms(t time.Time) float64 { return float64(time.Since(t).Nanoseconds()) / 1e6 }

func version() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, d := range b.Deps {
			if d.Path == "github.com/gomlx/gomlx" {
				return d.Version
			}
		}
	}
	return ""
}
