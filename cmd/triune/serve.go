package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/triune-sim/triune/compile"
	"github.com/triune-sim/triune/device"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/quant"
	"github.com/triune-sim/triune/report"
	"github.com/triune-sim/triune/result"
	"github.com/triune-sim/triune/result/timeline"
	"github.com/triune-sim/triune/scheduler"
	"github.com/triune-sim/triune/units"
	"github.com/triune-sim/triune/whatif"
)

//go:embed web
var webFiles embed.FS

var appTemplate = template.Must(template.New("app.html.tmpl").Funcs(report.Funcs()).Funcs(template.FuncMap{
	"wrap": func(x *shownAnswer, lite bool) map[string]any { return map[string]any{"X": x, "Lite": lite} },
}).ParseFS(webFiles, "web/app.html.tmpl"))

func (a *app) serveCommand() *cobra.Command {
	var addr, dir string
	var maxUpload int64
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve a page to look at models and turn the knobs of devices",
		Long: `Serve answers on 127.0.0.1 with a page: choose a model (built-in, from the folder
of --dir, or dropped on the page), a device, a scheme and compute units, and
drag the device's main figures while timeline, roofline and totals follow. The
same answers are there as JSON under /api/v1, with the schema of "triune predict
--json"; docs/whatif.md lists the calls. Files are only read, and only below --dir.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if maxUpload < 1 || maxUpload > 4096 {
				return usagef("--max-upload %d: want 1 to 4096 MB", maxUpload)
			}
			s, err := newServer(dir, maxUpload*1e6)
			if err != nil {
				return err
			}
			defer s.Close()
			ln, err := net.Listen("tcp", addr)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "http://%s\n", ln.Addr())
			if t, ok := ln.Addr().(*net.TCPAddr); ok && !t.IP.IsLoopback() {
				fmt.Fprintf(a.stderr, "triune: %s can be reached from other machines, which may then upload models and read what models below --dir say\n", t)
			}
			return serveUntil(cmd.Context(), ln, s)
		},
	}
	c.Flags().StringVar(&addr, "addr", "127.0.0.1:8421", "address to listen on")
	c.Flags().StringVar(&dir, "dir", "", "folder whose models the page may read")
	c.Flags().Int64Var(&maxUpload, "max-upload", 512, "largest upload, MB")
	return c
}

// serveUntil serves until the context ends, then lets requests finish.
func serveUntil(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Minute, WriteTimeout: 5 * time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 16}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		return srv.Close()
	}
	return nil
}

// server answers the page and the API. It is safe for concurrent use.
type server struct {
	handler   http.Handler
	root      *os.Root // nil: no folder
	dir       string
	uploads   string // temporary folder
	maxUpload int64
	busy      chan struct{} // bounds what is computed at once
	uploading chan struct{} // bounds what is received at once

	mu     sync.Mutex
	models map[string]*loadedModel
	clock  int64
	names  map[string]string // upload: identifier -> name of the file
	files  map[string]string // upload: identifier -> path
	sizes  map[string]int64  // upload: identifier -> bytes on disk
	order  []string          // uploads, oldest first
}

// loadedModel is a model that requests share.
type loadedModel struct {
	pricer  *whatif.Pricer
	path    string
	stamp   string // size and time of a file
	used    int64
	variant map[string]bool // schemes and batches compiled
}

const (
	maxModels   = 16   // kept ready
	maxVariants = 64   // compiled per model
	maxUploads  = 32   // kept on disk, and of their bytes
	maxKeptSize = 4    // times the largest upload
	maxReceived = 4    // uploads at once
	maxListing  = 2000 // files listed of a folder
	maxZipFiles = 4096 // in an uploaded package
	maxQuery    = 16 << 10
)

func newServer(dir string, maxUpload int64) (*server, error) {
	s := &server{maxUpload: maxUpload, busy: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))), models: map[string]*loadedModel{},
		uploading: make(chan struct{}, maxReceived), names: map[string]string{}, files: map[string]string{}, sizes: map[string]int64{}}
	var err error
	if dir != "" {
		if s.dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		if s.root, err = os.OpenRoot(s.dir); err != nil {
			return nil, err
		}
	}
	if s.uploads, err = os.MkdirTemp("", "triune-uploads-*"); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /view", s.fragment)
	mux.HandleFunc("GET /app.js", s.asset("web/app.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /tables.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		io.WriteString(w, report.JS())
	})
	mux.HandleFunc("GET /app.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		io.WriteString(w, report.CSS())
		b, _ := webFiles.ReadFile("web/app.css")
		w.Write(b)
	})
	mux.HandleFunc("POST /upload", s.upload)
	mux.HandleFunc("GET /report.html", s.reportPage)
	mux.HandleFunc("GET /api/v1/predict", s.apiPredict)
	mux.HandleFunc("GET /api/v1/trace", s.apiTrace)
	mux.HandleFunc("GET /api/v1/models", s.apiModels)
	mux.HandleFunc("GET /api/v1/devices", s.apiDevices)
	s.handler = guard(http.NewCrossOriginProtection().Handler(mux))
	return s, nil
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close removes what was uploaded.
func (s *server) Close() error {
	if s.root != nil {
		s.root.Close()
	}
	return os.RemoveAll(s.uploads)
}

// guard refuses foreign host names where the connection came by the loopback
// (a page of another site whose name was made to point here), and what pages of
// other sites load from here (links to here are welcome); it sets headers that
// forbid the page to load anything from elsewhere.
func guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok && local.IP.IsLoopback() {
			host := r.Host
			if h, _, err := net.SplitHostPort(host); err == nil {
				host = h
			}
			ip := net.ParseIP(strings.Trim(host, "[]"))
			if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
				http.Error(w, "this server answers to localhost only", http.StatusForbidden)
				return
			}
		}
		if h := r.Header; h.Get("Sec-Fetch-Site") == "cross-site" && (h.Get("Sec-Fetch-Mode") != "navigate" || h.Get("Sec-Fetch-Dest") != "document") {
			http.Error(w, "this server answers to its own page only", http.StatusForbidden)
			return
		}
		d := w.Header()
		d.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'self'")
		d.Set("X-Content-Type-Options", "nosniff")
		d.Set("Referrer-Policy", "no-referrer")
		d.Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

func (s *server) asset(name, kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		b, _ := webFiles.ReadFile(name)
		w.Write(b)
	}
}

// knobs are the figures that have sliders.
var knobs = []string{"ne.peak_tf", "ne.int8_factor", "ne.chip_gbs", "ne.spill_gbs", "ne.stream_gbs", "ne.store_mb", "ne.io_gbs", "ne.floor_ms",
	"gpu.peak_tf", "gpu.cache_gbs", "gpu.floor_ms", "cpu.matrix_gf", "cpu.cache_gbs", "dram_gbs", "link.cpu_ne_ms", "handling_ms"}

// maxKnob is the end of a slider: factors of 2^-3 to 2^3.
const maxKnob = 3.0

// choice is what a query asks for.
type choice struct {
	Model  string
	Device string
	Scheme string
	Units  string
	Policy string
	Batch  int
	Set    []string // changes beside the sliders'
	Pins   []string // PATTERN=UNIT
	Knobs  map[string]float64
}

// badRequest is an error of the request; others are of the server.
type badRequest struct{ err error }

func (e badRequest) Error() string { return e.err.Error() }
func (e badRequest) Unwrap() error { return e.err }

func bad(err error) error { return badRequest{err} }

func parseChoice(q url.Values) (choice, error) {
	get := func(k, def string) string {
		if v := strings.TrimSpace(q.Get(k)); v != "" {
			return v
		}
		return def
	}
	c := choice{Model: get("model", "mobilenet_v2"), Device: get("device", "iphone-15-pro"), Scheme: get("scheme", "fp16"),
		Units: get("units", "all"), Policy: get("policy", "optimal"), Knobs: map[string]float64{}}
	var err error
	if c.Batch, err = strconv.Atoi(get("batch", "1")); err != nil || c.Batch < 1 || c.Batch > 1024 {
		return c, bad(fmt.Errorf("serve: batch %q (want 1 to 1024)", q.Get("batch")))
	}
	c.Set, c.Pins = list(q["set"]), list(q["pin"])
	if len(c.Set) > 64 || len(c.Pins) > 64 {
		return c, bad(fmt.Errorf("serve: %d changes and %d pins (want at most 64)", len(c.Set), len(c.Pins)))
	}
	for _, k := range knobs {
		v := q.Get("k." + k)
		if v == "" {
			continue
		}
		e, err := strconv.ParseFloat(v, 64)
		if err != nil || !(math.Abs(e) <= maxKnob) {
			return c, bad(fmt.Errorf("serve: slider %s at %q (want -3 to 3, the power of two of its factor)", k, v))
		}
		if e != 0 {
			c.Knobs[k] = e
		}
	}
	return c, nil
}

// list splits values that hold several, separated by commas, semicolons or
// lines.
func list(values []string) []string {
	var out []string
	for _, v := range values {
		for _, x := range strings.FieldsFunc(v, func(r rune) bool { return r == ';' || r == '\n' || r == ',' }) {
			if x = strings.TrimSpace(x); x != "" {
				out = append(out, x)
			}
		}
	}
	return out
}

// changes lists the overrides of a choice; sliders of units that the device
// lacks are left out.
func (c *choice) changes(d *device.Device) []string {
	var out []string
	for _, k := range knobs {
		if e := c.Knobs[k]; e != 0 {
			if _, err := d.Get(k); err == nil {
				out = append(out, k+"=x"+strconv.FormatFloat(math.Exp2(e), 'g', 6, 64))
			}
		}
	}
	return append(out, c.Set...)
}

// model returns the shared pricer of a model, and the name by which the
// pricer and the command line know it.
func (s *server) model(c *choice) (*whatif.Pricer, string, error) {
	name, key, stamp := c.Model, "zoo:"+c.Model, ""
	switch kind, rest, _ := strings.Cut(c.Model, ":"); kind {
	case "upload":
		s.mu.Lock()
		p := s.files[rest]
		s.mu.Unlock()
		if p == "" {
			return nil, "", bad(fmt.Errorf("serve: no upload %q; it may have been replaced by later ones", rest))
		}
		name, key = p, c.Model
	case "file":
		p, st, err := s.file(rest)
		if err != nil {
			return nil, "", bad(err)
		}
		name, key, stamp = p, c.Model, st
	default:
		if !zoo.Has(c.Model) {
			_, err := zoo.Build(c.Model)
			return nil, "", bad(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	m := s.models[key]
	variant := fmt.Sprintf("%s %d", c.Scheme, c.Batch)
	if m != nil && (m.stamp != stamp || !m.variant[variant] && len(m.variant) >= maxVariants) {
		m = nil // the file has changed, or the cache is full: begin anew
	}
	if m == nil {
		m = &loadedModel{pricer: &whatif.Pricer{}, path: name, stamp: stamp, variant: map[string]bool{}}
		s.models[key] = m
		if len(s.models) > maxModels {
			oldest := ""
			for k, x := range s.models {
				if k != key && (oldest == "" || x.used < s.models[oldest].used) {
					oldest = k
				}
			}
			delete(s.models, oldest)
		}
	}
	m.used = s.clock
	m.variant[variant] = true
	return m.pricer, name, nil
}

// isModel tells whether a name is one of a model file.
func isModel(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".onnx", ".mlmodel", ".mlpackage":
		return true
	}
	return false
}

// file checks a path below the folder and returns it for opening, with a
// stamp that changes when the file does. Links that lead out are refused.
func (s *server) file(rel string) (string, string, error) {
	if s.root == nil {
		return "", "", errors.New("serve: no folder is served (start with --dir)")
	}
	if !fs.ValidPath(rel) || !isModel(rel) {
		return "", "", fmt.Errorf("serve: %q is no model below the folder (want .onnx, .mlmodel or .mlpackage)", rel)
	}
	st, err := s.root.Stat(rel)
	if err != nil {
		return "", "", fmt.Errorf("serve: no model %q below the folder", rel)
	}
	if !st.IsDir() && !st.Mode().IsRegular() {
		return "", "", fmt.Errorf("serve: %q is no plain file", rel)
	}
	stamp := fmt.Sprint(st.Size(), st.ModTime().UnixNano())
	if st.IsDir() {
		// A package is a folder: nothing in it may lead elsewhere.
		n := 0
		err := fs.WalkDir(s.root.FS(), rel, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if n++; n > maxZipFiles || !d.IsDir() && !d.Type().IsRegular() {
				return fmt.Errorf("%s is a link or one file too many", p)
			}
			if i, err := d.Info(); err == nil && !d.IsDir() {
				stamp += fmt.Sprint(" ", i.Size(), i.ModTime().UnixNano())
			}
			return nil
		})
		if err != nil {
			return "", "", fmt.Errorf("serve: package %q: %v", rel, err)
		}
	}
	return filepath.Join(s.dir, filepath.FromSlash(rel)), stamp, nil
}

// listing is the models of the folder.
func (s *server) listing() []string {
	var out []string
	if s.root == nil {
		return out
	}
	_ = fs.WalkDir(s.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || len(out) >= maxListing:
			return fs.SkipDir
		case p != "." && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !isModel(p) || d.Type()&fs.ModeSymlink != 0:
			return nil
		case d.IsDir() != (path.Ext(p) == ".mlpackage"):
			return nil
		}
		out = append(out, p)
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return out
}

// answer is a placed choice.
type answer struct {
	choice choice
	placed whatif.Placed
	pred   *result.Prediction
	page   *report.Page
	where  string // the model on a command line
}

// solve places a choice; full adds what takes longer: reasons and other plans.
func (s *server) solve(ctx context.Context, c choice, full bool) (*answer, error) {
	mask, err := units.ParseMask(c.Units)
	if err != nil {
		return nil, bad(err)
	}
	policy, err := scheduler.ParsePolicy(c.Policy)
	if err != nil {
		return nil, bad(err)
	}
	var pins []scheduler.Pin
	for _, x := range c.Pins {
		pin, err := scheduler.ParsePin(x)
		if err != nil {
			return nil, bad(err)
		}
		pins = append(pins, pin)
	}
	if c.Scheme != compile.Stored.Name {
		if _, err := quant.Parse(c.Scheme); err != nil {
			return nil, bad(err)
		}
	}
	dev, err := device.Load(c.Device)
	if err != nil {
		return nil, bad(err)
	}
	p, name, err := s.model(&c)
	if err != nil {
		return nil, err
	}
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	cfg := whatif.Config{Model: name, Device: dev.Name, Scheme: c.Scheme, Units: mask, Policy: policy, Batch: c.Batch, Set: c.changes(dev), Pins: pins}
	a := &answer{choice: c}
	if a.placed, err = p.Desk().Place(&cfg); err != nil {
		return nil, bad(err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a.pred = a.placed.Prediction()
	a.where = name
	if kind, rest, ok := strings.Cut(c.Model, ":"); ok {
		a.where = rest
		if kind == "upload" {
			s.mu.Lock()
			a.where = s.names[rest]
			s.mu.Unlock()
		}
	}
	net, m := a.placed.Compiled.Net, a.placed.Machine
	a.page = &report.Page{Prediction: a.pred, Timeline: timeline.FromPrediction(a.pred), LiveBytes: scheduler.LiveBytes(net, m, a.placed.Plan),
		Roofs: roofs(a.placed.Device, a.pred), Version: whatif.Version(), Command: a.command()}
	if !full {
		return a, nil
	}
	ex, err := scheduler.NewExplainer(net, m, a.placed.Plan, a.placed.Options)
	if err != nil {
		return nil, err
	}
	ex.Reasons(a.pred)
	a.page.Explanation = &result.Explanation{Alternatives: ex.Alternatives(), RunnerUp: ex.RunnerUp()}
	if len(cfg.Set) == 0 && len(pins) == 0 && c.Batch == 1 {
		a.page.Published = published(dev, a.pred)
	}
	return a, nil
}

// command is the command line that gives the same.
func (a *answer) command() string {
	c := &a.choice
	t := &target{devices: []string{c.Device}, schemes: []string{c.Scheme}, units: []string{c.Units}, policy: c.Policy, set: a.placed.Config.Set, pins: c.Pins}
	if c.Batch > 1 {
		return fmt.Sprintf("# a batch of %d: save the study below and run  triune whatif study.yaml", c.Batch)
	}
	return commandLine(a.where, t)
}

// study is the study that gives the same, as YAML.
func (a *answer) study() string {
	c := &a.choice
	var b strings.Builder
	q := func(s string) string { return string(mustJSON(s)) }
	fmt.Fprintf(&b, "name: %s\nmodels: [%s]\ndevices: [%s]\nschemes: [%s]\nunits: [%s]\npolicies: [%s]\n", q(path.Base(a.where)+" on "+c.Device), q(a.where), q(c.Device), q(c.Scheme), q(c.Units), q(c.Policy))
	if c.Batch > 1 {
		fmt.Fprintf(&b, "batch: [%d]\n", c.Batch)
	}
	if len(c.Pins) > 0 {
		fmt.Fprintf(&b, "pins: %s\n", mustJSON(c.Pins))
	}
	if len(a.placed.Config.Set) > 0 {
		b.WriteString("set:\n")
		for _, x := range a.placed.Config.Set {
			k, v, _ := strings.Cut(x, "=")
			fmt.Fprintf(&b, "  %s: %s\n", q(strings.TrimSpace(k)), q(strings.TrimSpace(v)))
		}
	}
	return b.String()
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return []byte(`""`)
	}
	return b
}

// fail answers with an error: JSON for the API, text otherwise.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	code := http.StatusInternalServerError
	var b badRequest
	switch {
	case errors.As(err, &b):
		code = http.StatusBadRequest
	case r.Context().Err() != nil:
		return // nobody listens
	}
	msg := strings.Join(strings.Fields(err.Error()), " ")
	if strings.HasPrefix(r.URL.Path, "/api/") || r.URL.Path == "/upload" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(map[string]string{"error": msg})
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintf(w, `<p class="error" role="alert">%s</p>`, template.HTMLEscapeString(msg))
}

// query parses a request's query.
func query(r *http.Request) (url.Values, error) {
	if len(r.URL.RawQuery) > maxQuery {
		return nil, bad(errors.New("serve: the query is too long"))
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, bad(fmt.Errorf("serve: query: %w", err))
	}
	return q, nil
}

func (s *server) solveRequest(r *http.Request, full bool) (*answer, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	c, err := parseChoice(q)
	if err != nil {
		return nil, err
	}
	return s.solve(r.Context(), c, full)
}

func (s *server) apiPredict(w http.ResponseWriter, r *http.Request) {
	a, err := s.solveRequest(r, true)
	if err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = writeJSON(w, a.pred)
}

func (s *server) apiTrace(w http.ResponseWriter, r *http.Request) {
	a, err := s.solveRequest(r, false)
	if err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = timeline.ChromeTrace(w, timeline.FromPrediction(a.pred))
}

func (s *server) apiModels(w http.ResponseWriter, r *http.Request) {
	type entry struct {
		Model string `json:"model"`
		Title string `json:"title"`
		From  string `json:"from"` // built-in, folder, upload
	}
	var out []entry
	for _, n := range zoo.Names() {
		e, _ := zoo.Info(n)
		out = append(out, entry{n, e.Title, "built-in"})
	}
	for _, f := range s.listing() {
		out = append(out, entry{"file:" + f, f, "folder"})
	}
	s.mu.Lock()
	for _, id := range s.order {
		out = append(out, entry{"upload:" + id, s.names[id], "upload"})
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = writeJSON(w, out)
}

func (s *server) apiDevices(w http.ResponseWriter, r *http.Request) {
	type param struct {
		Path  string     `json:"path"`
		Unit  string     `json:"unit"`
		Value float64    `json:"value"`
		Range [2]float64 `json:"range"`
		Doc   string     `json:"doc"`
	}
	type entry struct {
		Device     string  `json:"device"`
		Label      string  `json:"label"`
		Chip       string  `json:"chip"`
		OS         string  `json:"os"`
		Parameters []param `json:"parameters,omitempty"`
	}
	names := device.Names()
	one := r.URL.Query().Get("device")
	if one != "" {
		names = []string{one}
	}
	var out []entry
	for _, n := range names {
		d, err := device.Load(n)
		if err != nil {
			fail(w, r, bad(err))
			return
		}
		e := entry{Device: d.Name, Label: d.Label, Chip: d.ChipLabel, OS: d.OS}
		if one != "" {
			for _, p := range d.Params() {
				e.Parameters = append(e.Parameters, param{p.Path, p.Unit, p.Value, p.Range, p.Doc})
			}
		}
		out = append(out, e)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = writeJSON(w, out)
}

func (s *server) reportPage(w http.ResponseWriter, r *http.Request) {
	a, err := s.solveRequest(r, true)
	if err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="report.html"`)
	_ = report.HTML(w, a.page)
}

// fragment answers the inside of the page: for one choice, or for two side by
// side when the query holds another one as b. With lite=1 the tables are left
// out.
func (s *server) fragment(w http.ResponseWriter, r *http.Request) {
	b, err := s.render(r)
	if err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(b)
}

// shownAnswer is what the template of a fragment sees.
type shownAnswer struct {
	Pred    *result.Prediction
	Body    template.HTML
	Command string
	Study   string
	Label   string
}

func (s *server) render(r *http.Request) ([]byte, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	lite := q.Get("lite") == "1"
	other := q.Get("b")
	c, err := parseChoice(q)
	if err != nil {
		return nil, err
	}
	show := func(a *answer, label string, all bool) (*shownAnswer, error) {
		var b bytes.Buffer
		if err := report.Fragment(&b, a.page, all); err != nil {
			return nil, err
		}
		return &shownAnswer{a.pred, template.HTML(b.String()), a.command(), a.study(), label}, nil
	}
	data := struct {
		A, B *shownAnswer
		Diff [][4]string
		Lite bool
	}{Lite: lite}
	all := !lite && other == ""
	one, err := s.solve(r.Context(), c, all)
	if err != nil {
		return nil, err
	}
	if other != "" {
		bq, err := url.ParseQuery(other)
		if err != nil {
			return nil, bad(fmt.Errorf("serve: b: %w", err))
		}
		bc, err := parseChoice(bq)
		if err != nil {
			return nil, err
		}
		two, err := s.solve(r.Context(), bc, false)
		if err != nil {
			return nil, err
		}
		for _, a := range []*answer{one, two} { // on the same scale of time
			a.page.Narrow, a.page.SpanMS = true, max(one.pred.LatencyMS, two.pred.LatencyMS)
		}
		if data.B, err = show(two, "B", false); err != nil {
			return nil, err
		}
		data.Diff = difference(one.pred, two.pred)
	}
	if data.A, err = show(one, "A", all); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := appTemplate.ExecuteTemplate(&out, "fragment", data); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// difference compares two predictions figure by figure.
func difference(a, b *result.Prediction) [][4]string {
	var out [][4]string
	add := func(name string, x, y float64, f func(float64) string) {
		d := "-"
		if y > 0 {
			d = fmt.Sprintf("%+.1f %%", 100*(x/y-1))
		}
		out = append(out, [4]string{name, f(x), f(y), d})
	}
	bytes := func(v float64) string { return size(int64(v)) }
	unit := func(p *result.Prediction, u string) float64 {
		for _, x := range p.Units {
			if x.Unit == u {
				return float64(x.Layers)
			}
		}
		return 0
	}
	add("latency, ms", a.LatencyMS, b.LatencyMS, ms)
	add("energy, mJ", a.EnergyMJ, b.EnergyMJ, ms)
	add("first load, ms", a.LoadMS, b.LoadMS, ms)
	add("package", float64(a.PackageBytes), float64(b.PackageBytes), bytes)
	add("memory", float64(a.PeakMemoryBytes), float64(b.PeakMemoryBytes), bytes)
	add("transfers, ms", a.TransferMS, b.TransferMS, ms)
	for _, u := range []string{"CPU", "GPU", "NE"} {
		add("layers on the "+u, unit(a, u), unit(b, u), func(v float64) string { return fmt.Sprint(v) })
	}
	return out
}

// knobView is a slider as the template sees it.
type knobView struct {
	Path, Unit, Doc string
	Shown           string  // its factor and value
	Value           float64 // as catalogued
	Exp             float64
	Missing         bool
}

func (s *server) page(w http.ResponseWriter, r *http.Request) {
	q, err := query(r)
	if err != nil {
		fail(w, r, err)
		return
	}
	c, cerr := parseChoice(q)
	data := struct {
		Choice         choice
		Zoo            []zoo.Entry
		Files          []string
		Uploads        [][2]string
		Devices        []*device.Device
		Schemes, Units []string
		Policies       []scheduler.Policy
		Knobs          []knobView
		Set, Pins      string
		B, Error       string
		Body           template.HTML
		MaxUpload      string
		Max            float64
	}{Choice: c, Files: s.listing(), Schemes: []string{"fp32", "fp16", "w8", "w8a8", "w4b32", "w4", "p8", "p6", "p4", "p2", "s50", "s75", "s50+w8", "stored"},
		Units: []string{"all", "cpu_and_ne", "cpu_and_gpu", "cpu_only"}, Set: strings.Join(c.Set, ", "), Pins: strings.Join(c.Pins, ", "), B: q.Get("b"), MaxUpload: size(s.maxUpload), Max: maxKnob}
	for _, n := range zoo.Names() {
		e, _ := zoo.Info(n)
		data.Zoo = append(data.Zoo, e)
	}
	if !slices.ContainsFunc(data.Zoo, func(e zoo.Entry) bool { return e.Name == c.Model }) && !strings.Contains(c.Model, ":") && zoo.Has(c.Model) {
		e, _ := zoo.Info(c.Model) // a spelling or a size of its own
		e.Name = c.Model
		data.Zoo = append(data.Zoo, e)
	}
	s.mu.Lock()
	for _, id := range s.order {
		data.Uploads = append(data.Uploads, [2]string{"upload:" + id, s.names[id]})
	}
	s.mu.Unlock()
	for _, n := range device.Names() {
		if d, err := device.Load(n); err == nil {
			data.Devices = append(data.Devices, d)
		}
	}
	for _, p := range scheduler.Policies() {
		if p != scheduler.Pinned {
			data.Policies = append(data.Policies, p)
		}
	}
	code := http.StatusOK
	if cerr != nil {
		data.Error, code = cerr.Error(), http.StatusBadRequest
	} else if b, err := s.render(r); err != nil {
		if r.Context().Err() != nil {
			return
		}
		data.Error, code = err.Error(), http.StatusBadRequest
	} else {
		data.Body = template.HTML(b)
	}
	if d, err := device.Load(c.Device); err == nil {
		data.Choice.Device = d.Name
		for _, k := range knobs {
			e, err := d.Get(k)
			f := math.Exp2(c.Knobs[k])
			shown := fmt.Sprintf("x%s = %s %s", report.Sig(f, 3), report.Sig(f*e.Value, 3), e.Unit)
			data.Knobs = append(data.Knobs, knobView{k, e.Unit, e.Doc, shown, e.Value, c.Knobs[k], err != nil})
		}
	}
	var out bytes.Buffer
	if err := appTemplate.ExecuteTemplate(&out, "app.html.tmpl", data); err != nil {
		fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	w.Write(out.Bytes())
}

// upload takes one model as the body: .onnx or .mlmodel as they are, an
// .mlpackage as a .zip. The name of the file is the parameter name.
func (s *server) upload(w http.ResponseWriter, r *http.Request) {
	name := path.Base(strings.ReplaceAll(r.URL.Query().Get("name"), `\`, "/"))
	if len(name) > 120 {
		name = name[len(name)-120:]
	}
	ext := strings.ToLower(path.Ext(name))
	if !isModel(name) && ext != ".zip" || ext == ".mlpackage" {
		fail(w, r, bad(fmt.Errorf("serve: %q is no model (want .onnx, .mlmodel, or an .mlpackage as .zip)", name)))
		return
	}
	select {
	case s.uploading <- struct{}{}:
		defer func() { <-s.uploading }()
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = writeJSON(w, map[string]string{"error": fmt.Sprintf("serve: %d uploads are under way; try again", maxReceived)})
		return
	}
	id, model, err := s.store(http.MaxBytesReader(w, r.Body, s.maxUpload), ext)
	if err == nil {
		// Only what can be read is kept.
		p := &whatif.Pricer{}
		select {
		case s.busy <- struct{}{}:
			_, err = p.Folded(model, 1)
			<-s.busy
		case <-r.Context().Done():
			err = r.Context().Err()
		}
		if err != nil {
			os.RemoveAll(filepath.Join(s.uploads, id))
			err = bad(errors.New(strings.NewReplacer(model, name, filepath.Base(model), name).Replace(err.Error())))
		} else {
			s.keep(id, name, model)
		}
	}
	if err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			err = bad(fmt.Errorf("serve: %s has more than %s", name, size(s.maxUpload)))
		}
		fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = writeJSON(w, map[string]string{"model": "upload:" + id, "name": name})
}

// keep registers an upload and forgets the oldest, beyond maxUploads of them or
// maxKeptSize of their bytes.
func (s *server) keep(id, name, model string) {
	var bytes int64
	_ = filepath.WalkDir(filepath.Join(s.uploads, id), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if i, err := d.Info(); err == nil {
				bytes += i.Size()
			}
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[id], s.files[id], s.sizes[id] = name, model, bytes
	s.order = append(s.order, id)
	total := int64(0)
	for _, n := range s.sizes {
		total += n
	}
	for len(s.order) > 1 && (len(s.order) > maxUploads || total > maxKeptSize*s.maxUpload) {
		old := s.order[0]
		s.order = s.order[1:]
		total -= s.sizes[old]
		delete(s.names, old)
		delete(s.files, old)
		delete(s.sizes, old)
		delete(s.models, "upload:"+old)
		os.RemoveAll(filepath.Join(s.uploads, old))
	}
}

// store writes an upload to a folder of its own and returns the model's path.
func (s *server) store(body io.Reader, ext string) (id, model string, err error) {
	id = strings.ToLower(rand.Text()[:16])
	dir := filepath.Join(s.uploads, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	model = filepath.Join(dir, "model"+ext)
	f, err := os.OpenFile(model, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	n, err := io.Copy(f, body)
	if err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return "", "", err
		}
		return "", "", bad(fmt.Errorf("serve: the upload broke off: %w", err))
	}
	if n == 0 {
		return "", "", bad(errors.New("serve: the upload is empty"))
	}
	if ext != ".zip" {
		return id, model, nil
	}
	zipped := model
	if model, err = s.unzip(f, n, dir); err == nil {
		err = os.Remove(zipped)
	}
	return id, model, err
}

// unzip unpacks the package of an archive. Paths that lead out, links, too
// many files and too many bytes are refused.
func (s *server) unzip(f *os.File, n int64, dir string) (string, error) {
	z, err := zip.NewReader(f, n)
	if err != nil {
		return "", bad(fmt.Errorf("serve: the archive cannot be read: %w", err))
	}
	if len(z.File) > maxZipFiles {
		return "", bad(fmt.Errorf("serve: %d files in the archive (want at most %d)", len(z.File), maxZipFiles))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	pkg, left := "", 4*s.maxUpload
	for _, e := range z.File {
		name := strings.TrimSuffix(e.Name, "/")
		if strings.HasPrefix(name, "__MACOSX") {
			continue
		}
		if !fs.ValidPath(name) || strings.Contains(name, `\`) {
			return "", bad(fmt.Errorf("serve: the archive holds a file %q outside itself", e.Name))
		}
		// The package may lie in folders; its inside is what counts.
		at := strings.Index(strings.ToLower(name)+"/", ".mlpackage/")
		if at < 0 {
			continue
		}
		top := name[:at+len(".mlpackage")]
		if pkg != "" && pkg != top {
			return "", bad(errors.New("serve: the archive holds several packages"))
		}
		pkg = top
		to := path.Join("model.mlpackage", strings.TrimPrefix(name[len(top):], "/"))
		if e.FileInfo().IsDir() {
			if err := root.MkdirAll(to, 0o700); err != nil {
				return "", err
			}
			continue
		}
		if !e.Mode().IsRegular() {
			return "", bad(fmt.Errorf("serve: %q in the archive is no plain file", e.Name))
		}
		if err := root.MkdirAll(path.Dir(to), 0o700); err != nil {
			return "", err
		}
		in, err := e.Open()
		if err != nil {
			return "", bad(fmt.Errorf("serve: the archive cannot be read: %w", err))
		}
		out, err := root.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			in.Close()
			return "", bad(fmt.Errorf("serve: %q is twice in the archive", e.Name))
		}
		k, err := io.Copy(out, io.LimitReader(in, left+1))
		in.Close()
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		if left -= k; left < 0 {
			return "", bad(fmt.Errorf("serve: the archive unpacks to more than %s", size(4*s.maxUpload)))
		}
		if err != nil {
			return "", bad(fmt.Errorf("serve: the archive cannot be read: %w", err))
		}
	}
	if pkg == "" {
		return "", bad(errors.New("serve: the archive holds no .mlpackage"))
	}
	return filepath.Join(dir, "model.mlpackage"), nil
}
