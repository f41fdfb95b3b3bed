package whatif

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/triune-sim/triune/units"
)

func study(tb testing.TB, src string) *Runner {
	tb.Helper()
	s, err := Read(strings.NewReader(src), ".")
	if err != nil {
		tb.Fatal(err)
	}
	r, err := Open(s)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func collect(tb testing.TB, r *Runner, workers int) *Block {
	tb.Helper()
	all := &Block{}
	if err := r.Run(context.Background(), RunOptions{Workers: workers}, all.Append); err != nil {
		tb.Fatal(err)
	}
	return all
}

const smallGrid = `
models: [tiny_cnn, tiny_mlp]
devices: [iphone-12, m1]
schemes: [fp16, w8a8]
units: [all, cpu_only]
set:
  ne.stream_gbs: x0.5..x2 log 5
  dram_gbs: [20, x2, +10%]
base: {scheme: fp16}
columns: {gmacs_per_s: macs/latency_ms/1e6, what: 'model + "/" + scheme'}
`

// Rows are in the grid's order, the last axis fastest, and each is the
// prediction of its configuration.
func TestGridRows(t *testing.T) {
	r := study(t, smallGrid)
	if r.Len() != 2*2*2*2*5*3 {
		t.Fatalf("%d configurations, want 240", r.Len())
	}
	b := collect(t, r, 2)
	if b.Rows != 240 || b.Failed != 0 {
		t.Fatalf("%d rows, %d failed", b.Rows, b.Failed)
	}
	col := func(name string) int {
		c, err := r.column(name)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	p := &Pricer{}
	for i := range b.Rows {
		c, err := r.Study.Config(int64(i))
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Num[0][i]; got != float64(i) {
			t.Fatalf("row %d has configuration %v", i, got)
		}
		pr, err := p.Predict(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Num[col("latency_ms")][i]; got != pr.LatencyMS {
			t.Fatalf("row %d, %s: latency %v, predict says %v", i, c, got, pr.LatencyMS)
		}
		if got, want := b.Num[col("gmacs_per_s")][i], float64(pr.MACs)/pr.LatencyMS/1e6; math.Abs(got-want) > 1e-12*want {
			t.Fatalf("row %d: derived column %v, want %v", i, got, want)
		}
		if got := b.Str[col("what")][i]; got != c.Model+"/"+c.Scheme {
			t.Fatalf("row %d: derived text %q", i, got)
		}
		c.Scheme = "fp16"
		base, err := p.Predict(c)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := b.Num[col("speedup")][i], base.LatencyMS/pr.LatencyMS; got != want {
			t.Fatalf("row %d: speedup %v, want %v", i, got, want)
		}
	}
	if a, z := b.Num[col("ne_stream_gbs")][0], b.Num[col("ne_stream_gbs")][12]; math.Abs(z/a-4) > 1e-12 {
		t.Errorf("the range x0.5..x2 ends at %v and %v", a, z)
	}
	if d := b.Num[col("dram_gbs")]; d[0] != 20 || math.Abs(d[2]/d[1]-0.55) > 1e-12 {
		t.Errorf("dram_gbs: %v, %v, %v; want 20, doubled, 10 %% more", d[0], d[1], d[2])
	}
}

// The rows are the same for any number of workers, and every format holds
// them.
func TestWorkersAndFormats(t *testing.T) {
	var want map[string][]byte
	for _, workers := range []int{1, 2, 5} {
		dir := filepath.Join(t.TempDir(), "out")
		r := study(t, strings.Replace(smallGrid, "log 5", "log 50", 1))
		st, err := r.RunDir(context.Background(), dir, DirOptions{RunOptions: RunOptions{Workers: workers}, Formats: Formats()}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !st.Complete || st.Rows != r.Len() {
			t.Fatalf("state %+v", st)
		}
		got := files(t, dir)
		if len(got) != 4 {
			t.Fatalf("%d files", len(got))
		}
		if want == nil {
			want = got
		}
		same(t, want, got)
	}
	type columns struct {
		LatencyMS *float64 `parquet:"latency_ms,optional"`
		Scheme    string   `parquet:"scheme"`
	}
	rows, err := parquet.Read[columns](bytes.NewReader(want["rows.parquet"]), int64(len(want["rows.parquet"])))
	if err != nil || len(rows) != 2400 {
		t.Fatalf("parquet: %d rows, %v", len(rows), err)
	}
	var doc struct {
		MadeFrom Stamp            `json:"made_from"`
		Rows     []map[string]any `json:"rows"`
	}
	if err := json.Unmarshal(want["rows.json"], &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Rows) != 2400 || doc.MadeFrom.Hash == "" {
		t.Fatalf("json: %d rows, made from %+v", len(doc.Rows), doc.MadeFrom)
	}
	for i, row := range doc.Rows {
		if p := *rows[i].LatencyMS; p != row["latency_ms"] {
			t.Fatalf("row %d: parquet %v, json %v", i, p, row["latency_ms"])
		}
		if p := rows[i].Scheme; p != row["scheme"] {
			t.Fatalf("row %d: parquet %v, json %v", i, p, row["scheme"])
		}
	}
	if n := bytes.Count(want["rows.csv"], []byte("\n")); n != 2401 {
		t.Errorf("csv has %d lines", n)
	}
	f, err := parquet.OpenFile(bytes.NewReader(want["rows.parquet"]), int64(len(want["rows.parquet"])))
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := f.Lookup("triune.study"); !ok || !strings.Contains(v, doc.MadeFrom.Hash) {
		t.Errorf("parquet metadata %q lacks the hash %s", v, doc.MadeFrom.Hash)
	}
}

func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = b
	}
	return out
}

func same(t *testing.T, want, got map[string][]byte) {
	t.Helper()
	for name, b := range want {
		if !bytes.Equal(b, got[name]) {
			t.Errorf("%s differs (%d and %d bytes)", name, len(b), len(got[name]))
		}
	}
}

// A run that is interrupted keeps finished blocks, and a resumed one computes
// the rest and ends with the same bytes as one at a go.
func TestResume(t *testing.T) {
	src := strings.Replace(smallGrid, "log 5", "log 100", 1)
	whole := filepath.Join(t.TempDir(), "whole")
	if _, err := study(t, src).RunDir(context.Background(), whole, DirOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "parts")
	resumed := 0
	for try := range 50 {
		ctx, cancel := context.WithCancel(context.Background())
		o := DirOptions{Resume: try > 0}
		o.Workers = 1 + try%3
		blocks := 0
		r := study(t, src)
		// Cancel in the course of the run: after the first new block.
		o.Progress = func(p Progress) {}
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			for ctx.Err() == nil {
				if e, err := os.ReadDir(filepath.Join(dir, blockDir)); err == nil && len(e) > try {
					cancel()
				}
			}
		}()
		st, err := r.RunDir(ctx, dir, o, func(*Block) error { blocks++; return nil })
		cancel()
		<-stop
		if err == nil {
			if !st.Complete || blocks == 0 {
				t.Fatalf("complete run: %+v, %d blocks", st, blocks)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		old, err := ReadState(dir)
		if err != nil {
			t.Fatal(err)
		}
		if old.Complete || old.Done > r.Len() { // all rows may be done when the end is cut off
			t.Fatalf("interrupted run says %+v", old)
		}
		if old.Done > 0 {
			resumed++
			csv, err := os.ReadFile(filepath.Join(dir, "rows.csv"))
			if err != nil {
				t.Fatal(err)
			}
			if n := int64(bytes.Count(csv, []byte("\n"))); n != old.Rows+1 {
				t.Fatalf("%d lines for %d rows", n, old.Rows)
			}
		}
	}
	if resumed == 0 {
		t.Log("no run was interrupted after a block; the resume was from nothing")
	}
	same(t, files(t, whole), files(t, dir))
}

// Blocks of a finished part are not computed again.
func TestResumeReadsBlocks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	r := study(t, smallGrid)
	blocks := filepath.Join(dir, blockDir)
	if err := r.prepare(dir, blocks, false); err != nil {
		t.Fatal(err)
	}
	if err := writeState(dir, &State{Stamp: r.Stamp}); err != nil {
		t.Fatal(err)
	}
	b := collect(t, r, 1)
	lat, err := r.column("latency_ms")
	if err != nil {
		t.Fatal(err)
	}
	b.Num[lat][0] = 12345 // recognisable
	if err := saveBlock(blocks, 0, b); err != nil {
		t.Fatal(err)
	}
	if _, err := study(t, smallGrid).RunDir(context.Background(), dir, DirOptions{Resume: true}, nil); err != nil {
		t.Fatal(err)
	}
	csv, err := os.ReadFile(filepath.Join(dir, "rows.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(csv, []byte(",12345,")) {
		t.Error("the stored block was computed again")
	}
}

func TestFolders(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := study(t, "models: [tiny_mlp]\n")
	if _, err := r.RunDir(context.Background(), dir, DirOptions{}, nil); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a folder with other files: %v", err)
	}
	d := filepath.Join(t.TempDir(), "d")
	if _, err := r.RunDir(context.Background(), d, DirOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	other := study(t, "models: [tiny_cnn]\n")
	if _, err := other.RunDir(context.Background(), d, DirOptions{Resume: true}, nil); !errors.Is(err, ErrOtherStudy) {
		t.Errorf("resuming another study: %v", err)
	}
	if _, err := other.RunDir(context.Background(), d, DirOptions{}, nil); err != nil {
		t.Errorf("overwriting: %v", err)
	}
	if _, err := other.RunDir(context.Background(), d, DirOptions{Formats: []string{"xlsx"}}, nil); err == nil {
		t.Error("xlsx accepted")
	}
}

// Configurations without a plan are rows with the reason, not failures of the
// study.
func TestFailedRows(t *testing.T) {
	r := study(t, `
models: [tiny_cnn]
devices: [iphone-14-pro]
units: [cpu_only]
schemes: [fp16]
set: {cpu.cache_mb: [-1000, 4]}
`)
	b := collect(t, r, 1)
	if b.Rows != 2 || b.Failed != 1 {
		t.Fatalf("%d rows, %d failed", b.Rows, b.Failed)
	}
	e, _ := r.column("error")
	lat, _ := r.column("latency_ms")
	if b.Str[e][0] == "" || !math.IsNaN(b.Num[lat][0]) || b.Str[e][1] != "" || math.IsNaN(b.Num[lat][1]) {
		t.Errorf("errors %q, latencies %v", b.Str[e], b.Num[lat])
	}
}

func TestWhere(t *testing.T) {
	all := collect(t, study(t, smallGrid), 1)
	r := study(t, smallGrid+"where: 'scheme == \"w8a8\" && latency_ms < 0.5 || units == \"cpu_only\"'\n")
	got := collect(t, r, 2)
	lat, _ := r.column("latency_ms")
	want := 0
	for i := range all.Rows {
		if all.Str[4][i] == "w8a8" && all.Num[lat][i] < 0.5 || all.Str[5][i] == "cpu_only" {
			if got.Num[0][want] != float64(i) {
				t.Fatalf("kept row %d is %v, want %d", want, got.Num[0][want], i)
			}
			want++
		}
	}
	if got.Rows != want || want == 0 || want == all.Rows {
		t.Fatalf("%d rows kept, want %d of %d", got.Rows, want, all.Rows)
	}
	early := study(t, smallGrid+"where: 'model == \"tiny_mlp\"'\n")
	if !early.rows.early {
		t.Error("a filter on inputs is not applied before pricing")
	}
	if b := collect(t, early, 1); b.Rows != 120 {
		t.Errorf("%d rows, want 120", b.Rows)
	}
}

// Batches multiply the work of a request, and take longer.
func TestBatch(t *testing.T) {
	r := study(t, "models: [mobilenet_v2, tiny_mlp]\nbatch: [1, 8]\n")
	b := collect(t, r, 1)
	macs, _ := r.column("macs")
	lat, _ := r.column("latency_ms")
	for _, i := range []int{0, 2} {
		if b.Num[macs][i+1] != 8*b.Num[macs][i] {
			t.Errorf("%s: %v and %v MACs", b.Str[1][i], b.Num[macs][i], b.Num[macs][i+1])
		}
		if q := b.Num[lat][i+1] / b.Num[lat][i]; !(q > 1) {
			t.Errorf("%s: a batch of 8 takes %v times as long", b.Str[1][i], q)
		}
	}
}

func TestBadStudies(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"", "no models"},
		{"models: [tiny_mlp]\ncolour: red\n", "colour"},
		{"models: tiny_mlp\n", "sequence"},
		{"models: [tiny_mlp]\nunits: [tpu]\n", "tpu"},
		{"models: [tiny_mlp]\npolicies: [best]\n", "best"},
		{"models: [tiny_mlp]\nbatch: [0]\n", "batch 0"},
		{"models: [tiny_mlp]\nset: {dram_gbs: 1..}\n", "no number"},
		{"models: [tiny_mlp]\nset: {dram_gbs: 1..x2 log 3}\n", "different kinds"},
		{"models: [tiny_mlp]\nset: {dram_gbs: 1..9}\n", "no count"},
		{"models: [tiny_mlp]\nset: {dram_gbs: 0..9 log 3}\n", "above 0"},
		{"models: [tiny_mlp]\nset: {dram_gbs: 9..1 3}\n", "low end"},
		{"models: [tiny_mlp]\nset: {dram_gbs: []}\n", "no values"},
		{"models: [tiny_mlp]\nset: {dram_gbs: [[1]]}\n", "want a number"},
		{"models: [tiny_mlp]\nset: {dram_gbs: 1, 'ne.linear,dram_gbs': 2}\n", "twice"},
		{"models: [tiny_mlp]\nset: {dram_gbs: .nan}\n", "finite"},
		{"models: [tiny_mlp]\nsample: {method: halton, n: 4}\n", "halton"},
		{"models: [tiny_mlp]\nsample: {method: sobol, n: 0}\n", "n 0"},
		{"models: [tiny_mlp]\nconfigs: [{units: npu}]\n", "npu"},
		{"configs: [{scheme: fp16}]\n", "no model"},
		{"models: [tiny_mlp]\nanalyses: [{}]\n", "kinds"},
		{"models: [tiny_mlp]\nanalyses: [{pivot: {rows: model}, budget: {}}]\n", "kinds"},
	} {
		if _, err := Read(strings.NewReader(c.src), "."); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, want one line with %q", c.src, err, c.want)
		}
	}
	for _, c := range []struct{ src, want string }{
		{"models: [tiny_mlp]\ndevices: [iphone-3]\n", "iphone-3"},
		{"models: [tiny_mlp]\nschemes: [w7]\n", "w7"},
		{"models: [tiny_mlp]\nset: {ne.speed: 3}\n", "ne.speed"},
		{"models: [tiny_mlp]\nwhere: latency_ms\n", "truth value"},
		{"models: [tiny_mlp]\nwhere: latency < 3\n", "latency"},
		{"models: [tiny_mlp]\nwhere: 'latency_ms < '\n", "expression"},
		{"models: [tiny_mlp]\ncolumns: {latency_ms: '1'}\n", "exists already"},
		{"models: [tiny_mlp]\ncolumns: {a b: '1'}\n", "letters"},
		{"models: [tiny_mlp]\noutputs: [speed]\n", "speed"},
		{"models: [nothing.onnx]\n", "nothing.onnx"},
	} {
		s, err := Read(strings.NewReader(c.src), ".")
		if err != nil {
			t.Errorf("%q: %v", c.src, err)
			continue
		}
		if _, err := Open(s); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, want one line with %q", c.src, err, c.want)
		}
	}
	r := study(t, "models: [resnet5]\n")
	if err := r.Run(context.Background(), RunOptions{}, func(*Block) error { return nil }); err == nil || !strings.Contains(err.Error(), "resnet5") {
		t.Errorf("an unknown model: %v", err)
	}
}

// Patterns stand for the names they match, each once and in the catalogue's
// order; names and files stay as they are.
func TestPatterns(t *testing.T) {
	s, err := Read(strings.NewReader("models: [\"resnet1*\", \"dir/a*b.onnx\", \"resnet18\"]\ndevices: [\"m[1-3]\", \"m[2-4]\"]"), ".")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(s.Models)
	if want := []string{"dir/a*b.onnx", "resnet101", "resnet152", "resnet18"}; !slices.Equal(s.Models, want) {
		t.Errorf("models %v, want %v", s.Models, want)
	}
	if want := []string{"m1", "m2", "m3", "m4"}; !slices.Equal(s.Devices, want) {
		t.Errorf("devices %v, want %v", s.Devices, want)
	}
	for _, bad := range []string{"models: [\"zz*\"]", "models: [resnet18]\ndevices: [\"zz*\"]"} {
		if _, err := Read(strings.NewReader(bad), "."); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(smallGrid)
	f.Add("configs: [{model: tiny_mlp, set: {dram_gbs: x2}}]\n")
	f.Add("models: [a]\nsample: {method: sobol, n: 9}\nset: {dram_gbs: x1..x2}\n")
	f.Add("models: [a]\nset: {dram_gbs: -10%..+10% 3}\nanalyses: [{budget: {max: {latency_ms: 3}}}]\n")
	f.Fuzz(func(t *testing.T, src string) {
		s, err := Read(strings.NewReader(src), ".")
		if err != nil {
			return
		}
		n := s.Len()
		if _, err := s.Config(n); err == nil {
			t.Fatalf("configuration %d of %d exists", n, n)
		}
		for _, i := range []int64{0, n / 2, n - 1} {
			if i >= n || i < 0 { // a study of analyses alone has none
				continue
			}
			if _, err := s.Config(i); err != nil {
				t.Fatalf("configuration %d of %d: %v", i, n, err)
			}
		}
	})
}

func BenchmarkStudy(b *testing.B) {
	r := study(b, `
models: [mobilenet_v2]
devices: [iphone-15-pro]
schemes: [fp16, w8, w8a8, p4, w4b32]
units: [all, cpu_and_ne, cpu_and_gpu, cpu_only]
set: {ne.stream_gbs: x0.5..x4 log 25, ne.peak_tf: x0.5..x2 log 20}
`)
	for b.Loop() {
		if err := r.Run(context.Background(), RunOptions{}, func(*Block) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(r.Len())*float64(b.N)/b.Elapsed().Seconds(), "configs/s")
}

// Pins of a study hold in every row and in analyses, as those of predict do.
func TestPins(t *testing.T) {
	const text = "models: [tiny_cnn]\ndevices: [m1]\nunits: [cpu_and_ne, all]\npins: [\"*=cpu\"]\nanalyses: [{sensitivity: {top: 3}}]\n"
	s, err := Read(strings.NewReader(text), "")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	cpu, err := r.Pricer.Predict(Config{Model: "tiny_cnn", Device: "m1", Scheme: "fp16", Units: units.CPUOnly})
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Len() {
		c, err := s.Config(i)
		if err != nil {
			t.Fatal(err)
		}
		p, err := r.Pricer.Predict(c)
		if err != nil {
			t.Fatal(err)
		}
		if p.LatencyMS != cpu.LatencyMS || !strings.Contains(c.String(), "*=cpu") {
			t.Errorf("%s: %v ms, on the CPU alone %v", c, p.LatencyMS, cpu.LatencyMS)
		}
	}
	f, err := r.Analyse(context.Background(), nil)
	if err != nil || len(f) != 1 || math.Abs(f[0].Base-cpu.LatencyMS) > 1e-12 {
		t.Errorf("%v %+v, on the CPU alone %v ms", err, f, cpu.LatencyMS)
	}
	for _, bad := range []string{"pins: [x]", "pins: [x=tpu]"} {
		if _, err := Read(strings.NewReader("models: [tiny_cnn]\n"+bad+"\n"), ""); err == nil {
			t.Errorf("%s accepted", bad)
		}
	}
}
