package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/compare"
	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/internal/npy"
	"github.com/triune-sim/triune/internal/samples"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
)

func (a *app) runCommand() *cobra.Command {
	var t target
	var k calibration
	var inputs []string
	var out string
	var asJSON bool
	c := &cobra.Command{
		Use:   "run MODEL --input NAME=FILE [--output DIR]",
		Short: "Execute a model with the arithmetic of the units it is placed on",
		Long: `Execute a model with the arithmetic of the units its layers are placed on.

An input is a .npy file, an image (scaled to the input's size, then --mean and
--std), or made up: random or random:SEED, standard normal values. A model with
one input needs no NAME.

What each output holds is printed; with --output, every output is written to DIR
as NAME.npy, and the same report that predict gives as report.json. Files appear
whole or not at all.`,
		Example: `  triune run mobilenet_v2 --input random -c w8a8
  triune run net.onnx --input image=cat.jpg --output out -d iphone-15-pro
  triune run net.onnx --input image=x.npy --output out -c fp32 -u cpu_only`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(t.devices)*len(t.schemes)*len(t.units) != 1 {
				return usagef("run takes one device, one scheme and one set of compute units")
			}
			if _, err := k.check(); err != nil {
				return err
			}
			var values map[string]*model.Tensor
			sessions, err := a.open(cmd.Context(), args[0], &t, func(f *compile.Folded, scheme quant.Scheme) (quant.Ranges, error) {
				var err error
				if values, err = readInputs(inputs, f.Graph, samples.Preprocess{Mean: k.mean, Std: k.std}); err != nil {
					return nil, err
				}
				return k.ranges(a, cmd, f.Graph, scheme)
			}, runtime.WithThreads(k.threads))
			if err != nil {
				return err
			}
			defer closeAll(sessions)
			if len(sessions) != 1 { // a pattern of devices
				return usagef("run takes one device, and %s matches %d", t.devices[0], len(sessions))
			}
			s := sessions[0]
			start := time.Now()
			res, err := s.Run(cmd.Context(), values)
			if err != nil {
				return err
			}
			host := time.Since(start)
			if out != "" {
				if err := saveRun(out, s, res); err != nil {
					return err
				}
			}
			if asJSON {
				return writeJSON(a.stdout, res.Report)
			}
			printPrediction(a.stdout, res.Report, false)
			fmt.Fprintf(a.stdout, "\nexecuted on this host in %d ms (loading included)\n", host.Milliseconds())
			for _, o := range s.Outputs() {
				printOutput(a.stdout, o, res.Outputs[o.Name])
			}
			if out != "" {
				fmt.Fprintf(a.stdout, "written to %s, with report.json\n", out)
			}
			return nil
		},
	}
	t.register(c, "fp16")
	k.register(c)
	f := c.Flags()
	f.StringArrayVarP(&inputs, "input", "i", nil, "an input, NAME=FILE.npy, NAME=IMAGE or NAME=random[:SEED]; once per input")
	f.StringVarP(&out, "output", "o", "", "folder for the outputs and the report")
	f.BoolVar(&asJSON, "json", false, "print the report as one JSON document")
	return c
}

// readInputs reads what --input says for a model's inputs.
func readInputs(specs []string, g *model.Graph, p samples.Preprocess) (map[string]*model.Tensor, error) {
	values := map[string]*model.Tensor{}
	made := map[uint64]map[string]*model.Tensor{}
	for _, s := range specs {
		name, from, ok := strings.Cut(s, "=")
		if !ok && len(g.Inputs) == 1 {
			name, from = g.Inputs[0].Name, s
		}
		if name == "" || from == "" {
			return nil, usagef("--input %q: want NAME=FILE.npy, NAME=IMAGE or NAME=random[:SEED]; the model reads %s", s, inputNames(g))
		}
		i := slices.IndexFunc(g.Inputs, func(v *model.Value) bool { return v.Name == name })
		if i < 0 {
			return nil, usagef("--input %q: the model has no such input; it reads %s", s, inputNames(g))
		}
		if _, twice := values[name]; twice {
			return nil, usagef("--input %q: %s is given twice", s, name)
		}
		var err error
		switch word, n, _ := strings.Cut(from, ":"); {
		case word == "random":
			var seed uint64
			if n != "" {
				if seed, err = strconv.ParseUint(n, 10, 64); err != nil {
					return nil, usagef("--input %q: %q is no seed (want random:0, random:1, ...)", s, n)
				}
			}
			if made[seed] == nil {
				if made[seed], err = runtime.RandomInputs(g, seed); err != nil {
					return nil, err
				}
			}
			values[name] = made[seed][name]
		case strings.EqualFold(filepath.Ext(from), ".npy"):
			values[name], err = npy.Load(from)
		default:
			values[name], err = samples.Image(from, g.Inputs[i], p.For(g, name))
		}
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", name, err)
		}
	}
	return values, nil
}

func inputNames(g *model.Graph) string {
	var s []string
	for _, v := range g.Inputs {
		s = append(s, v.Name)
	}
	return strings.Join(s, ", ")
}

// saveRun writes every output and the report to a folder.
func saveRun(dir string, s *runtime.Session, res *runtime.Result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, o := range s.Outputs() {
		if err := npy.Save(filepath.Join(dir, fileName(o.Name)+".npy"), res.Outputs[o.Name]); err != nil {
			return err
		}
	}
	return saveJSON(filepath.Join(dir, "report.json"), res.Report)
}

// printOutput prints what an output holds: its range, and the five largest
// elements of a vector of scores.
func printOutput(w io.Writer, o runtime.Tensor, t *model.Tensor) {
	fmt.Fprintf(w, "  %s  ", o)
	if t.DType == model.String || t.Len() == 0 {
		fmt.Fprintln(w)
		return
	}
	v := t.Float32s()
	lo, hi, sum := v[0], v[0], 0.0
	for _, x := range v {
		lo, hi, sum = min(lo, x), max(hi, x), sum+float64(x)
	}
	fmt.Fprintf(w, "min %s, mean %s, max %s", sig(float64(lo), 4), sig(sum/float64(len(v)), 4), sig(float64(hi), 4))
	if compare.Scores(t.Shape) {
		at := make([]int, len(v))
		for i := range at {
			at[i] = i
		}
		slices.SortStableFunc(at, func(a, b int) int { return cmp.Compare(v[b], v[a]) })
		var top []string
		for _, i := range at[:min(5, len(at))] {
			top = append(top, fmt.Sprintf("%d (%s)", i, sig(float64(v[i]), 4)))
		}
		fmt.Fprintf(w, "; largest at %s", strings.Join(top, ", "))
	}
	fmt.Fprintln(w)
}

var unsafeName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// fileName turns a tensor's name into a file name.
func fileName(s string) string {
	s = strings.Trim(unsafeName.ReplaceAllString(s, "_"), ".")
	if s == "" {
		return "output"
	}
	return s
}

// saveJSON writes a document under a temporary name and renames it.
func saveJSON(path string, v any) error {
	return saveFile(path, func(w io.Writer) error { return writeJSON(w, v) })
}

// saveFile writes a file under a temporary name and renames it, so that it
// appears whole or not at all.
func saveFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".triune-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err = write(f); err == nil {
		err = f.Chmod(0o644)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
