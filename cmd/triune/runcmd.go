package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/internal/npy"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/runtime"
)

func (a *app) runCommand() *cobra.Command {
	var t target
	var inputs, calibrate []string
	var out string
	var threads int
	var asJSON bool
	c := &cobra.Command{
		Use:   "run MODEL --input NAME=FILE.npy --output DIR",
		Short: "Execute a model with the arithmetic of the units it is placed on",
		Long: `Execute a model with the arithmetic of the units its layers are placed on.
Every output is written to DIR as NAME.npy, and the same report that predict
gives as report.json. Files appear whole or not at all.`,
		Example: `  triune run net.onnx --input image=x.npy --output out -d iphone-15-pro -c w8a8
  triune run net.onnx --input image=x.npy --output out -c fp32 -u cpu_only`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(t.devices)*len(t.schemes)*len(t.units) != 1 {
				return usagef("run takes one device, one scheme and one set of compute units")
			}
			if out == "" {
				return usagef("--output DIR is missing: the folder for the outputs")
			}
			if threads < 0 {
				return usagef("--threads %d: want 0 (all) or more", threads)
			}
			values, err := readInputs(inputs)
			if err != nil {
				return err
			}
			more := []runtime.Option{runtime.WithThreads(threads)}
			if len(calibrate) > 0 {
				var samples []map[string]*model.Tensor
				for _, s := range calibrate {
					v, err := readInputs(strings.Split(s, ","))
					if err != nil {
						return err
					}
					samples = append(samples, v)
				}
				more = append(more, runtime.WithCalibration(samples...))
			}
			sessions, err := a.open(cmd.Context(), args[0], &t, more...)
			if err != nil {
				return err
			}
			defer closeAll(sessions)
			s := sessions[0]
			start := time.Now()
			res, err := s.Run(cmd.Context(), values)
			if err != nil {
				return err
			}
			host := time.Since(start)
			if err := os.MkdirAll(out, 0o755); err != nil {
				return err
			}
			for _, o := range s.Outputs() {
				if err := npy.Save(filepath.Join(out, fileName(o.Name)+".npy"), res.Outputs[o.Name]); err != nil {
					return err
				}
			}
			if err := saveJSON(filepath.Join(out, "report.json"), res.Report); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.stdout, res.Report)
			}
			printPrediction(a.stdout, res.Report, false)
			fmt.Fprintf(a.stdout, "\nexecuted on this host in %d ms (loading included); written to %s:\n", host.Milliseconds(), out)
			for _, o := range s.Outputs() {
				fmt.Fprintf(a.stdout, "  %s.npy  %s\n", fileName(o.Name), o)
			}
			fmt.Fprintln(a.stdout, "  report.json")
			return nil
		},
	}
	t.register(c, "fp16")
	c.Flags().StringArrayVarP(&inputs, "input", "i", nil, "an input, NAME=FILE.npy; once per input")
	c.Flags().StringVarP(&out, "output", "o", "", "folder for the outputs and the report")
	c.Flags().IntVar(&threads, "threads", 0, "host threads (0: all processors)")
	c.Flags().StringArrayVar(&calibrate, "calibrate", nil, "a sample for activation ranges, NAME=FILE.npy[,NAME=FILE.npy]; may repeat (default: seeded random inputs)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as one JSON document")
	return c
}

func readInputs(specs []string) (map[string]*model.Tensor, error) {
	values := map[string]*model.Tensor{}
	for _, s := range specs {
		name, path, ok := strings.Cut(s, "=")
		if !ok || name == "" || path == "" {
			return nil, usagef("input %q: want NAME=FILE.npy", s)
		}
		v, err := npy.Load(path)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", name, err)
		}
		values[name] = v
	}
	return values, nil
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
