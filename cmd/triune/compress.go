package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/internal/samples"
	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/model/coreml"
	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/runtime"
)

// calibration is how activation ranges are found from user data.
type calibration struct {
	dir, method string
	limit       int
	mean, std   []float64
	threads     int
}

func (k *calibration) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&k.dir, "calibrate", "", "folder of samples for activation ranges: .npy files, images, or a folder of NAME.npy per sample (default: seeded random inputs)")
	f.StringVar(&k.method, "calibration", quant.MinMax.String(), "how ranges follow from the samples: "+strings.Join(quant.Methods(), ", "))
	f.IntVar(&k.limit, "samples", 0, "most samples to read (0: all)")
	f.Float64SliceVar(&k.mean, "mean", nil, "per-channel mean subtracted from images scaled to 0..1 (default: ImageNet's; image inputs of Core ML models take pixels as they are)")
	f.Float64SliceVar(&k.std, "std", nil, "per-channel standard deviation that images are divided by (default: ImageNet's)")
	f.IntVar(&k.threads, "threads", 0, "host threads (0: all processors)")
}

// preprocess is how images become the first input of a graph.
func (k *calibration) preprocess(g *model.Graph) samples.Preprocess {
	p := samples.Preprocess{Mean: k.mean, Std: k.std}
	if len(g.Inputs) > 0 {
		p = p.For(g, g.Inputs[0].Name)
	}
	return p
}

func (k *calibration) check() (quant.Method, error) {
	m, err := quant.ParseMethod(k.method)
	if err != nil {
		return m, usageError{err}
	}
	if k.limit < 0 || k.threads < 0 {
		return m, usagef("--samples and --threads take 0 or more")
	}
	for _, s := range k.std {
		if !(s > 0) {
			return m, usagef("--std %v: want positive numbers", s)
		}
	}
	return m, nil
}

// ranges calibrates the folded graph, if the scheme has activations and the
// user gave data.
func (k *calibration) ranges(a *app, cmd *cobra.Command, g *model.Graph, s quant.Scheme) (quant.Ranges, error) {
	method, err := k.check()
	if err != nil {
		return nil, err
	}
	if s.Activations == nil || k.dir == "" && method == quant.MinMax {
		return nil, nil
	}
	c := quant.Calibration{Method: method}
	total := 1
	if k.dir != "" {
		set, err := samples.Open(k.dir, g.Inputs, k.preprocess(g), k.limit)
		if err != nil {
			return nil, err
		}
		c.Samples, total = set, set.Len()
	}
	obs := &runtime.Observer{Threads: k.threads}
	defer obs.Close()
	c.Executor = obs
	bar := a.progress("calibrating", total)
	defer bar.done()
	c.Progress = func(done, _ int) { bar.set(done) }
	return quant.Calibrate(cmd.Context(), g, c, nil)
}

func (a *app) compressCommand() *cobra.Command {
	var t target
	var k calibration
	var out, targetOS string
	var threshold int
	var over quant.Overrides
	var all, asJSON bool
	c := &cobra.Command{
		Use:   "compress MODEL -c SCHEME -o OUT",
		Short: "Compress a model as coremltools does and write it as .mlpackage or .onnx",
		Long: `Compress a model as coremltools does, write it as .mlpackage or .onnx, and say what
was compressed, what was left alone and why, and the bytes before and after.

A scheme is a name, parts of which are joined by + and applied from left to right:

  w8 w4 u8 u4       linear, symmetric, per output channel (u: unsigned codes);
                    w8-tensor, w4b32 (blocks of 32 input channels), w8-lin (asymmetric)
  p8 p6 p4 p3 p2 p1 k-means palettes; p4g16 (a table for 16 channels), p4v2 (vectors
                    of 2), p4-uniform, p4-scale (per-channel scale), p-unique
  s50 s75           magnitude pruning; s50b4 (blocks of 4 channels), s2:4 (n:m)
  a8 w8a8 w4a8      8-bit activations, by the rule of training; -ptq: after training
  s50+w8 p4+w8      joint forms; w8 after a palette quantises its tables
  fp16 fp32         the program's type; stored takes the file as it is

or a YAML file in coremltools' words; the name of an operator or constant comes
before the type of its operator, and that before the global entry; null skips:

  config_type: OpLinearQuantizerConfig   # OpPalettizerConfig, OpMagnitudePrunerConfig,
                                         # OpThresholdPrunerConfig
  global_config: {mode: linear_symmetric, dtype: int8, weight_threshold: 512}
  op_type_configs: {conv: {dtype: int4, granularity: per_block}, gather: null}
  op_name_configs: {classifier: null}
  activations: {rule: ptq, op_type_configs: {softmax: null}}

A list under stages holds several of them for joint compression. Flags change the
linear stages of either.`,
		Example: `  triune compress net.onnx -c w8 -o net-w8.mlpackage
  triune compress net.mlpackage -c w8a8 --calibrate images/ -o net-w8a8.mlpackage
  triune compress resnet50 -c w4 --granularity per_block --block-size 64 -o r50.onnx`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("-o OUT is missing: the file to write (.mlpackage or .onnx)")
			}
			if len(t.schemes) != 1 {
				return usagef("compress takes one scheme")
			}
			write, err := writer(out, targetOS)
			if err != nil {
				return err
			}
			schemes, err := t.parseSchemes()
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("weight-threshold") {
				over.WeightThreshold = &threshold
			}
			s, err := schemes[0].Override(over)
			if err != nil {
				return usageError{err}
			}
			if _, err := k.check(); err != nil {
				return err
			}
			f, err := t.fold(args[0])
			if err != nil {
				return err
			}
			ranges, err := k.ranges(a, cmd, f.Graph, s)
			if err != nil {
				return err
			}
			var b *bar
			q, rep, err := quant.Apply(f.Graph, s, quant.Options{Ranges: ranges, Eager: true, Progress: func(done, total int) {
				if b == nil {
					b = a.progress("compressing", total)
				}
				b.set(done)
			}})
			if b != nil {
				b.done()
			}
			if err != nil {
				return err
			}
			if err := write(q); err != nil {
				return err
			}
			if n, size := valuesInONNX(q); n > 0 && strings.EqualFold(filepath.Ext(out), ".onnx") {
				rep.Notes = append(rep.Notes, fmt.Sprintf("ONNX has no palettes and no sparse weights: %d constants are in the file as their values, %d bytes", n, size))
			}
			bytes, err := sizeOnDisk(out)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.stdout, map[string]any{"output": out, "bytes": bytes, "report": rep})
			}
			if err := rep.WriteText(a.stdout, all); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "wrote %s, %s\n", out, size(bytes))
			return nil
		},
	}
	t.registerModel(c, "w8")
	k.register(c)
	f := c.Flags()
	f.StringVarP(&out, "output", "o", "", "file to write: .mlpackage or .onnx")
	f.StringVar(&targetOS, "target", "", "deployment target of a package: iOS16, iOS17 or iOS18 (default: the oldest that can express it)")
	f.IntVar(&threshold, "weight-threshold", quant.WeightThreshold, "weights of at most so many elements stay as they are")
	f.IntVar(&over.BlockSize, "block-size", 0, "block length on the input axis (makes linear quantization per_block)")
	f.StringVar(&over.Mode, "mode", "", "linear or linear_symmetric")
	f.StringVar(&over.DType, "dtype", "", "int8, uint8, int4 or uint4")
	f.StringVar(&over.Granularity, "granularity", "", "per_tensor, per_channel or per_block")
	f.BoolVar(&all, "all", false, "list every constant, also those that are never compressed")
	f.BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

// valuesInONNX counts the compressed constants that ONNX can only hold as their
// values, and their bytes then.
func valuesInONNX(g *model.Graph) (n int, bytes int64) {
	for _, v := range g.Consts() {
		a, affine := v.Const.Storage.(*model.Affine)
		if v.Const.Storage.Form() != model.FormDense && !(affine && a.Codes.Storage.Form() == model.FormDense) {
			n++
			bytes += v.Const.DenseBytes()
		}
	}
	return n, bytes
}

func (a *app) convertCommand() *cobra.Command {
	var t target
	var targetOS string
	c := &cobra.Command{
		Use:   "convert MODEL OUT",
		Short: "Convert between ONNX and Core ML packages",
		Long: `Convert a model to the format that OUT's ending names. Weights and quantize
operators stay as they are; a package is an fp16 ML program unless the model is a
Core ML program of its own types, or -c says otherwise.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			write, err := writer(args[1], targetOS)
			if err != nil {
				return err
			}
			schemes, err := t.parseSchemes()
			if err != nil {
				return err
			}
			if len(schemes) != 1 {
				return usagef("convert takes one scheme")
			}
			f, err := t.fold(args[0])
			if err != nil {
				return err
			}
			s := schemes[0]
			if s.Name == compile.Stored.Name && strings.HasSuffix(args[1], ".mlpackage") && f.Graph.Format != "coreml" {
				s.Float = model.Float16
			}
			q, _, err := quant.Apply(f.Graph, s, quant.Options{Eager: true})
			if err != nil {
				return err
			}
			if err := write(q); err != nil {
				return err
			}
			bytes, err := sizeOnDisk(args[1])
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "wrote %s, %s\n", args[1], size(bytes))
			return nil
		},
	}
	t.registerModel(c, compile.Stored.Name)
	c.Flags().StringVar(&targetOS, "target", "", "deployment target of a package: iOS16, iOS17 or iOS18 (default: the oldest that can express it)")
	return c
}

// writer returns the function that writes a graph in the format of a path.
func writer(path, targetOS string) (func(*model.Graph) error, error) {
	if dir := filepath.Dir(path); dir != "." {
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			return nil, fmt.Errorf("%s: the folder %s does not exist", path, dir)
		}
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".onnx":
		if targetOS != "" {
			return nil, usagef("--target goes with a .mlpackage")
		}
		return func(g *model.Graph) error { return onnx.Save(path, g) }, nil
	case ".mlpackage":
		o := coreml.Options{}
		if targetOS != "" {
			t, err := coreml.ParseTarget(targetOS)
			if err != nil {
				return nil, usageError{err}
			}
			o.Target = t
		}
		return func(g *model.Graph) error { return coreml.Save(path, g, o) }, nil
	}
	return nil, usagef("%s: unknown format (want a name that ends in .mlpackage or .onnx)", path)
}

// sizeOnDisk sums the sizes of a file, or of all files below a folder.
func sizeOnDisk(path string) (int64, error) {
	var n int64
	err := filepath.Walk(path, func(_ string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return err
	})
	return n, err
}
