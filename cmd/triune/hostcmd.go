package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/bench/host"
	"github.com/triune-sim/triune/units"
)

func (a *app) benchHostCommand() *cobra.Command {
	o := host.Options{}
	var mask string
	var peers []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "host [MODEL...]",
		Short: "How fast this host executes networks: time, share of the measured peak, peers in turn",
		Long: `Measure how fast this host executes networks: median, p90 and least time of n
runs after a warm-up, and the rate as a share of the peak that a register-only
multiply-add loop reaches in the same run. With --peer, another runtime runs the
same network in turn (A B A B) and the ratio is the median over pairs; so does
Triune itself with --peer fp32 (what a scheme costs) or one-thread (what more
threads gain).`,
		Example: `  triune bench host resnet50 mobilenet_v2 --scheme fp32,fp16,w8a8 --threads 1
  triune bench host resnet50 --peer ort   # once: cd bench/peers/ort && npm ci --ignore-scripts`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Models = args
			if mask != "" {
				m, err := units.ParseMask(mask)
				if err != nil {
					return usageError{err}
				}
				o.Units = m
			}
			if o.Runs < 1 || o.Warmup < 0 {
				return usagef("--runs %d --warmup %d: want at least 1 run and no negative warm-up", o.Runs, o.Warmup)
			}
			for _, n := range o.Threads {
				if n < 1 {
					return usagef("--threads %d: want 1 or more", n)
				}
			}
			for _, p := range peers {
				peer, err := findPeer(p)
				if err != nil {
					return err
				}
				o.Peers = append(o.Peers, peer)
			}
			if !asJSON {
				o.Progress = func(r host.Row) {
					fmt.Fprintf(a.stderr, "measured %s %s, %d threads\n", r.Model, r.Scheme, r.Threads)
				}
			}
			rep, err := host.Measure(cmd.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.stdout, rep)
			}
			a.printHost(rep)
			return nil
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.Schemes, "scheme", []string{"fp32", "fp16", "w8a8"}, "schemes; stored takes a file as it is")
	f.IntSliceVar(&o.Threads, "threads", []int{1}, "host threads; may be a list")
	f.StringVarP(&mask, "units", "u", "", "compute units whose arithmetic runs (default: the CPU for fp32, CPU and NE for the rest)")
	f.StringVarP(&o.Device, "device", "d", "", "device whose placement is executed")
	f.IntVar(&o.Runs, "runs", 20, "timed runs")
	f.IntVar(&o.Warmup, "warmup", 3, "runs before them")
	f.BoolVar(&o.Profile, "profile", false, "time each layer too")
	f.StringArrayVar(&peers, "peer", nil, "what to run in turn: another runtime, ort or gomlx, or Triune itself in fp32 or on one-thread; may repeat")
	f.BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

// findPeer locates a peer's harness in bench/peers of the repository.
func findPeer(name string) (host.Peer, error) {
	switch name {
	case "fp32":
		return host.Self{Scheme: "fp32"}, nil
	case "one-thread":
		return host.Self{Threads: 1}, nil
	}
	dir, err := peersDir()
	if err != nil {
		return nil, err
	}
	switch name {
	case "ort":
		d := filepath.Join(dir, "ort")
		if _, err := os.Stat(filepath.Join(d, "node_modules", "onnxruntime-node")); err != nil {
			return nil, fmt.Errorf("peer ort is not installed: cd %s && npm ci --ignore-scripts", d)
		}
		node, err := exec.LookPath("node")
		if err != nil {
			return nil, fmt.Errorf("peer ort needs node: %w", err)
		}
		return host.Command{Label: "ort", Path: node, Args: []string{"peer.js"}, Dir: d, DumpEnv: "TRIUNE_ORT_DUMP"}, nil
	case "gomlx":
		d := filepath.Join(dir, "gomlx")
		if _, err := os.Stat(d); err != nil {
			return nil, fmt.Errorf("peer gomlx is not here: %w", err)
		}
		goTool, err := exec.LookPath("go")
		if err != nil {
			return nil, fmt.Errorf("peer gomlx needs go: %w", err)
		}
		return host.Command{Label: "gomlx", Path: goTool, Args: []string{"run", "."}, Dir: d}, nil
	}
	return nil, usagef("unknown peer %q (want ort, gomlx, fp32 or one-thread)", name)
}

// peersDir finds bench/peers at or above the working folder.
func peersDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		p := filepath.Join(d, "bench", "peers")
		if st, err := os.Stat(p); err == nil && st.IsDir() {
			return p, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no bench/peers at or above %s: peers run from a checkout of the repository", dir)
		}
	}
}

func (a *app) printHost(rep *host.Report) {
	w := a.stdout
	fmt.Fprintf(w, "kernels: %s, %s\n\n", rep.CPU, rep.Go)
	t := newTable("network", "scheme", "units", ">threads", ">median ms", ">p90", ">min", ">GFLOP/s", ">peak", ">of peak", ">load ms", ">RSS", "peer", ">its ms", ">ratio")
	for _, r := range rep.Rows {
		base := []string{r.Model, r.Scheme, r.Units, fmt.Sprint(r.Threads), ms(r.MedianMS), ms(r.P90MS), ms(r.MinMS), sig(r.GFLOPS, 3), sig(r.PeakGFLOPS, 3),
			fmt.Sprintf("%.0f %%", r.PercentOfPeak), ms(r.LoadMS), size(r.PeakRSSBytes)}
		if len(r.Peers) == 0 {
			t.add(append(base, "", "", "")...)
		}
		for i, p := range r.Peers {
			if i > 0 {
				base = make([]string, len(base))
			}
			label := p.Name + " " + p.Version
			if p.Note != "" {
				t.add(append(base, label+": "+p.Note, "-", "-")...)
				continue
			}
			ratio := fmt.Sprintf("%.2f", p.Ratio)
			if p.Ratio < 0.1 {
				ratio = sig(p.Ratio, 2)
			}
			t.add(append(base, label, ms(p.MedianMS), ratio)...)
		}
	}
	t.write(w)
	a.printFusion(rep)
	for _, r := range rep.Rows {
		if len(r.Profile) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s %s, %d threads, by layer:\n", r.Model, r.Scheme, r.Threads)
		p := newTable("layer", "op", "kind", "unit", ">ms", ">share", ">GFLOP/s")
		for _, l := range r.Profile {
			p.add(l.Name, l.Op, l.Kind, l.Unit, fmt.Sprintf("%.3f", l.MS), fmt.Sprintf("%.1f %%", l.Percent), sig(l.GFLOPS, 3))
		}
		p.write(w)
	}
}

// printFusion says what the peers made of 8-bit networks, once for each network
// and scheme.
func (a *app) printFusion(rep *host.Report) {
	seen := map[[3]string]bool{}
	for _, r := range rep.Rows {
		for _, p := range r.Peers {
			key := [3]string{r.Model, r.Scheme, p.Name}
			if seen[key] || p.Fusion == nil && p.FusionNote == "" {
				continue
			}
			if len(seen) == 0 {
				fmt.Fprintln(a.stdout)
			}
			seen[key] = true
			label := fmt.Sprintf("%s %s in %s", r.Model, r.Scheme, p.Name)
			switch {
			case p.Fusion == nil:
				fmt.Fprintf(a.stdout, "warning: %s: not known what it fused: %s\n", label, p.FusionNote)
			case !p.Whole():
				fmt.Fprintf(a.stdout, "warning: %s is partly in floating point: %s\n", label, p.Summary())
			default:
				fmt.Fprintf(a.stdout, "%s: %s\n", label, p.Summary())
			}
		}
	}
}
