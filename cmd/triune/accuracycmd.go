package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/bench/accuracy"
)

func (a *app) benchAccuracyCommand() *cobra.Command {
	var data, mnist string
	var nets, schemes, devices []string
	var images, calibration, threads int
	var asJSON bool
	c := &cobra.Command{
		Use:   "accuracy",
		Short: "What each compression scheme does to the accuracy of trained networks",
		Long: `Run two small trained networks (one in the style of MobileNetV2, one of ResNet)
under every scheme on the 10,000 test images of Fashion-MNIST, and print what the
published table has, all measured: compression ratio, top-1 with its standard
error, the change against fp32 on the same images, and predicted latency.

The images are those of Debian's package dataset-fashion-mnist. --mnist adds a
network that nobody here trained: a folder with mnist.onnx and the t10k files
(default: fixtures/onnx below $TRIUNE_SHARED, where that is set).

Weights of any size are compressed: at coremltools' default threshold of 2,048
elements most weights of networks this small would stay float.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if images < 0 || calibration < 1 || threads < 0 {
				return usagef("--images and --threads take 0 or more, --calibration-images 1 or more")
			}
			for _, s := range schemes {
				if !slices.Contains(accuracy.Schemes(), s) {
					return usagef("unknown scheme %q (want of %s)", s, strings.Join(accuracy.Schemes(), "; "))
				}
			}
			all, err := accuracy.Fashion(data, images, calibration)
			if err != nil {
				return err
			}
			if base := os.Getenv("TRIUNE_SHARED"); mnist == "" && base != "" {
				dir := filepath.Join(base, "fixtures", "onnx")
				if _, err := os.Stat(filepath.Join(dir, "mnist.onnx")); err == nil {
					mnist = dir
				}
			}
			if mnist != "" {
				n, err := accuracy.MNIST(mnist, images, calibration)
				if err != nil {
					return err
				}
				all = append(all, n)
			}
			o := accuracy.Options{Schemes: schemes, Devices: devices, Threads: threads}
			var names []string
			for _, n := range all {
				names = append(names, n.Name)
				if len(nets) == 0 || slices.Contains(nets, n.Name) {
					o.Networks = append(o.Networks, n)
				}
			}
			for _, n := range nets {
				if !slices.Contains(names, n) {
					return usagef("unknown network %q (want %s)", n, strings.Join(names, ", "))
				}
			}
			var b *bar
			var current string
			o.Progress = func(row string, done, total int) {
				if row != current {
					if b != nil {
						b.done()
					}
					b, current = a.progress(row, total), row
				}
				b.set(done)
			}
			r, err := accuracy.Measure(cmd.Context(), o)
			if b != nil {
				b.done()
			}
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.stdout, r)
			}
			a.printAccuracy(r)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&data, "data", accuracy.DefaultData, "folder with Fashion-MNIST's t10k and train files (IDX, gzipped or not)")
	f.StringVar(&mnist, "mnist", "", "folder with mnist.onnx and MNIST's t10k files")
	f.StringSliceVar(&nets, "network", nil, "networks to measure (default: all)")
	f.StringArrayVarP(&schemes, "scheme", "c", nil, "row to measure, by its name; may repeat (default: all)")
	f.StringSliceVarP(&devices, "device", "d", accuracy.DefaultDevices, "devices that latency is predicted on")
	f.IntVar(&images, "images", 0, "test images (0: all 10,000)")
	f.IntVar(&calibration, "calibration-images", 500, "training images that activation ranges are calibrated on")
	f.IntVar(&threads, "threads", 0, "host threads (0: all processors)")
	f.BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func (a *app) printAccuracy(r *accuracy.Report) {
	w := a.stdout
	for _, n := range r.Networks {
		fmt.Fprintf(w, "%s: %s parameters, %sMAC; top-1 on %d images, ranges from %d\n", n.Name, count(n.Params), count(n.MACs), n.Images, n.CalibrationImages)
		if n.Note != "" {
			fmt.Fprintf(w, "  %s\n", n.Note)
		}
		head := []string{"scheme", ">package kB", ">ratio", ">weights ratio", ">top-1 %", ">change, points", ">p", ">flipped %", ">logits SNR dB", ">float weights", "ran on"}
		var rows [][]string
		for _, row := range r.Rows {
			if row.Network != n.Name {
				continue
			}
			if rows == nil {
				for _, l := range row.Latency {
					head = append(head, ">ms "+l.Device)
				}
			}
			cells := []string{row.Scheme, fmt.Sprintf("%.1f", float64(row.PackageBytes)/1e3), fmt.Sprintf("%.2f", row.PackageRatio), fmt.Sprintf("%.2f", row.WeightRatio),
				strings.TrimSuffix(row.Top1.String(), " %"), row.Change.String(), row.Change.P.String(), fmt.Sprintf("%.2f", row.Flipped.Percent), row.LogitSNR.String(), fmt.Sprint(row.Float), unitLayers(row.Units)}
			for _, l := range row.Latency {
				cells = append(cells, ms(l.MS))
			}
			rows = append(rows, cells)
		}
		t := newTable(head...)
		for _, c := range rows {
			t.add(c...)
		}
		t.write(w)
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "ratio: size of the fp16 package over this one's; weights ratio: of the constants alone.\n± is one standard error; that of a change is of the paired difference on the same images,\nwhich chance makes as large with probability p (McNemar's exact test).\nflipped: images whose answer is not fp32's, right or wrong.\nLatency is predicted, compute units cpu_and_ne (fp32: cpu_only), and may choose the CPU for\nnetworks this small; all else is measured on the units listed under ran on.\n\n")
	count := map[accuracy.Verdict]int{}
	for _, s := range r.Statements {
		count[s.Verdict]++
		verdict := strings.ToUpper(string(s.Verdict))
		if s.Verdict == accuracy.Holds {
			verdict = "holds"
		}
		fmt.Fprintf(w, "%s: %s: %s (%s)\n", s.Network, s.Text, verdict, s.Figures)
		if s.Remark != "" {
			fmt.Fprintf(w, "    %s\n", s.Remark)
		}
	}
	fmt.Fprintf(w, "%d statements: %d hold, %d are undecided (the other way round by no more than chance, p >= 0.05), %d fail\n",
		len(r.Statements), count[accuracy.Holds], count[accuracy.Undecided], count[accuracy.Fails])
}
