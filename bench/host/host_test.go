package host

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/triune-sim/triune/units"
)

// fake is a peer that answers at once.
type fake struct{ fail bool }

func (f fake) Name() string                         { return "fake" }
func (f fake) Version() string                      { return "1" }
func (f fake) Run(context.Context) (float64, error) { return 1000, nil }
func (f fake) Stats() (float64, int64)              { return 5, 6 }
func (f fake) Close() error                         { return nil }
func (f fake) Open(_ context.Context, _, _ string, _ int) (PeerSession, error) {
	if f.fail {
		return nil, errors.New("not installed")
	}
	return f, nil
}

func TestMeasure(t *testing.T) {
	seen := 0
	r, err := Measure(context.Background(), Options{
		Models: []string{"mobilenet_v2@32"}, Schemes: []string{"fp32", "w8a8"}, Threads: []int{1, 2},
		Runs: 3, Warmup: 1, Profile: true, Peers: []Peer{fake{}, fake{fail: true}}, Progress: func(Row) { seen++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 4 || seen != 4 {
		t.Fatalf("%d rows, %d shown, want 4", len(r.Rows), seen)
	}
	for _, w := range r.Rows {
		if !(w.MinMS > 0 && w.MinMS <= w.MedianMS && w.MedianMS <= w.P90MS && w.LoadMS > 0 && w.GFLOPS > 0 && w.PeakGFLOPS > 0) {
			t.Errorf("times out of order: %+v", w)
		}
		if math.Abs(w.PercentOfPeak-100*w.GFLOPS/w.PeakGFLOPS) > 1e-9 {
			t.Errorf("percent of peak %v", w.PercentOfPeak)
		}
		if q := w.Scheme == "w8a8"; q != (w.Int8MACs > 0.9) || !q && (w.Units != "cpu_only" || w.Int8MACs != 0) {
			t.Errorf("%s on %s does %v of its multiply-adds in int8", w.Scheme, w.Units, w.Int8MACs)
		}
		sum := 0.0
		for _, l := range w.Profile {
			sum += l.Percent
		}
		if len(w.Profile) == 0 || math.Abs(sum-100) > 1e-6 {
			t.Errorf("profile of %d layers adds up to %v %%", len(w.Profile), sum)
		}
		if len(w.Peers) != 2 || w.Peers[0].MedianMS != 1000 || !(w.Peers[0].Ratio > 0 && w.Peers[0].Ratio < 1) || w.Peers[1].Note != "not installed" {
			t.Errorf("peers %+v", w.Peers)
		}
	}
	if b, err := json.Marshal(r); err != nil || !strings.Contains(string(b), `"percent_of_peak"`) {
		t.Errorf("JSON %s, %v", b, err)
	}
}

// Triune beside itself: a row of fp16 on two threads, fp32 and one thread in
// turn with it.
func TestSelf(t *testing.T) {
	r, err := Measure(context.Background(), Options{
		Models: []string{"mobilenet_v2@32"}, Schemes: []string{"fp16"}, Threads: []int{2}, Runs: 3, Warmup: 1,
		Peers: []Peer{Self{Scheme: "fp32"}, Self{Threads: 1}, Self{Scheme: "w9"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := r.Rows[0].Peers
	for i, name := range []string{"triune fp32", "triune on one thread"} {
		if p[i].Name != name || p[i].Note != "" || !(p[i].MedianMS > 0 && p[i].Ratio > 0 && p[i].LoadMS > 0) || p[i].PeakRSSBytes != 0 {
			t.Errorf("%+v", p[i])
		}
	}
	if p[2].Note == "" {
		t.Errorf("unknown scheme: %+v", p[2])
	}
}

func TestMeasureErrors(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Models: []string{"nonet"}}, "nonet"},
		{Options{Threads: []int{0}}, "0 threads"},
		{Options{Models: []string{"mobilenet_v2@32"}, Schemes: []string{"w9"}, Units: units.CPUOnly}, "w9"},
	} {
		if _, err := Measure(context.Background(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}

// The process of a Command speaks the line protocol; a shell plays the peer.
func TestCommand(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("no /bin/sh to play the peer: ", err)
	}
	script := `echo '{"version":"7","load_ms":3}'; while read l; do case $l in run) echo '{"ms":2.5}';; quit) echo '{"peak_rss_bytes":99}'; exit 0;; esac; done`
	s, err := Command{Label: "sh", Path: "/bin/sh", Args: []string{"-c", script}}.Open(context.Background(), "m", "fp32", 1)
	if err != nil {
		t.Fatal(err)
	}
	if ms, err := s.Run(context.Background()); ms != 2.5 || err != nil || s.Version() != "7" {
		t.Errorf("run: %v ms, %v, version %s", ms, err, s.Version())
	}
	if load, rss := s.Stats(); load != 3 || rss != 99 {
		t.Errorf("stats: %v, %v", load, rss)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"exit 3", "echo nonsense", `echo '{"error":"no model"}'`} {
		if _, err := (Command{Label: "sh", Path: "/bin/sh", Args: []string{"-c", bad}}).Open(context.Background(), "m", "fp32", 1); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestQuantile(t *testing.T) {
	x := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0: 1, 0.5: 2.5, 1: 4, 0.9: 3.7} {
		if got := quantile(x, q); math.Abs(got-want) > 1e-12 {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
}
