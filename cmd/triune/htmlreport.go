package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/bench"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/report"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/result/timeline"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/whatif"
)

// reportFlags are the documents that predict writes beside what it prints.
type reportFlags struct {
	html, trace, plot string
	md                bool
}

func (f *reportFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.html, "html", "", "write a self-contained page to a file")
	c.Flags().StringVar(&f.trace, "trace", "", "write the timeline for Perfetto or chrome://tracing to a file")
	c.Flags().StringVar(&f.plot, "plot", "", "write the roofline to a file that ends in .svg or .png")
	c.Flags().BoolVar(&f.md, "md", false, "print Markdown, for pull requests")
}

// check refuses what cannot be written before anything is computed.
func (f *reportFlags) check(asJSON bool) error {
	if f.md && asJSON {
		return usagef("--md and --json exclude each other")
	}
	if f.plot != "" {
		if ext := strings.ToLower(filepath.Ext(f.plot)); ext != ".svg" && ext != ".png" {
			return usagef("--plot %s: want a file that ends in .svg or .png", f.plot)
		}
	}
	return nil
}

// write writes the documents of a prediction; they show one configuration.
func (f *reportFlags) write(sessions []*runtime.Session, preds []*result.Prediction, t *target, model string) error {
	if f.html == "" && f.trace == "" && f.plot == "" {
		return nil
	}
	if len(sessions) != 1 {
		return usagef("--html, --trace and --plot show one configuration, and these are %d (want one device, scheme and units)", len(sessions))
	}
	p := preds[0]
	devices, err := t.parseDevices()
	if err != nil {
		return err
	}
	if f.trace != "" {
		if err := writeFile(f.trace, func(w io.Writer) error { return timeline.ChromeTrace(w, timeline.FromPrediction(p)) }); err != nil {
			return err
		}
	}
	if f.plot != "" {
		pl, err := report.Roofline(p, roofs(devices[0], p))
		if err != nil {
			return err
		}
		if err := report.SavePlot(pl, f.plot); err != nil {
			return err
		}
	}
	if f.html == "" {
		return nil
	}
	ex, err := sessions[0].Explainer()
	if err != nil {
		return err
	}
	page := &report.Page{
		Prediction: p, Timeline: timeline.FromPrediction(p), LiveBytes: sessions[0].LiveBytes(), Roofs: roofs(devices[0], p),
		Explanation: &result.Explanation{Alternatives: ex.Alternatives(), RunnerUp: ex.RunnerUp()},
		Command:     commandLine(model, t), Version: whatif.Version(),
	}
	if len(devices[0].Overrides) == 0 {
		page.Published = published(devices[0], p)
	}
	return writeFile(f.html, func(w io.Writer) error { return report.HTML(w, page) })
}

// commandLine is the predict command of a target.
func commandLine(model string, t *target) string {
	args := []string{"triune", "predict", model, "-d", t.devices[0], "-c", t.schemes[0], "-u", t.units[0]}
	if t.policy != "optimal" {
		args = append(args, "--policy", t.policy)
	}
	for _, x := range []struct {
		flag string
		list []string
	}{{"--set", t.set}, {"--pin", t.pins}, {"--forbid", t.forbid}, {"--shape", t.shapes}} {
		for _, v := range x.list {
			args = append(args, x.flag, v)
		}
	}
	for i := range args {
		args[i] = shellQuote(args[i])
	}
	return strings.Join(args, " ")
}

// shellQuote quotes an argument for a POSIX shell where it needs that.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+%@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// roofs are the ceilings of the units that a plan uses.
func roofs(d *device.Device, p *result.Prediction) []report.Roof {
	var out []report.Roof
	int8 := strings.Contains(p.Scheme, "a8")
	for _, u := range p.Units {
		switch u.Unit {
		case "CPU":
			out = append(out, report.Roof{Unit: "CPU", TFLOPS: d.CPU.MatrixGF.Value / 1e3, GBs: d.CPU.CacheGBs.Value, Label: "fp32, cache bandwidth"})
		case "GPU":
			out = append(out, report.Roof{Unit: "GPU", TFLOPS: d.GPU.PeakTF.Value, GBs: d.GPU.CacheGBs.Value, Label: "fp16, cache bandwidth"})
		case "NE":
			out = append(out, report.Roof{Unit: "NE", TFLOPS: d.NE.PeakTF.Value, GBs: d.NE.ChipGBs.Value, Label: "fp16, on-chip bandwidth"})
			if int8 && d.NE.Int8Factor.Value > 1 {
				out = append(out, report.Roof{Unit: "NE", TFLOPS: d.NE.PeakTF.Value * d.NE.Int8Factor.Value, GBs: d.NE.ChipGBs.Value, Label: "int8, on-chip bandwidth"})
			}
		}
	}
	return out
}

// published finds measurements of the same model, scheme, units and device.
func published(d *device.Device, p *result.Prediction) []report.Published {
	rows, err := bench.Latencies()
	if err != nil {
		return nil
	}
	var out []report.Published
	for _, r := range rows {
		if r.Precision != p.Scheme || r.Mask.String() != p.ComputeUnits || p.Policy != "optimal" {
			continue
		}
		e, err := zoo.Info(r.Model)
		if err != nil || e.Name != p.Model || r.Input != 0 && r.Input != e.Size {
			continue
		}
		x, err := device.Load(r.Device)
		if err != nil || x.Name != d.Name && x.Chip != d.Name {
			continue
		}
		out = append(out, report.Published{What: fmt.Sprintf("%s %s on %s, %s", r.Model, r.Precision, r.Device, r.OS), MS: r.LatencyMS, PredictsMS: p.LatencyMS, Source: r.Source})
	}
	return out
}

// writeFile writes a file that appears whole or not at all.
func writeFile(name string, f func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".triune-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	b := bufio.NewWriter(tmp)
	err = f(b)
	if err == nil {
		err = b.Flush()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644)
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}
