package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/triune-sim/triune/model/onnx"
	"github.com/triune-sim/triune/model/zoo"
	"github.com/triune-sim/triune/result"
)

func serve(t *testing.T, dir string, maxUpload int64) (*httptest.Server, *server) {
	t.Helper()
	s, err := newServer(dir, maxUpload)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() { h.Close(); s.Close() })
	return h, s
}

func fetch(t *testing.T, u string) (int, string) {
	t.Helper()
	r, err := http.Get(u)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func post(t *testing.T, u string, body []byte) (int, map[string]string) {
	t.Helper()
	r, err := http.Post(u, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	m := map[string]string{}
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		t.Fatalf("%s: %v", u, err)
	}
	return r.StatusCode, m
}

// tinyONNX is a small network as a file.
func tinyONNX(t *testing.T) []byte {
	t.Helper()
	g, err := zoo.Build("tiny_cnn")
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(t.TempDir(), "t.onnx")
	if err := onnx.Save(p, g); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The API answers what the command line prints, figure by figure.
func TestServeEqualsPredict(t *testing.T) {
	h, _ := serve(t, "", 1e6)
	code, body := fetch(t, h.URL+"/api/v1/predict?model=mobilenet_v2&device=iphone-14-pro&scheme=w8a8&units=cpu_and_ne&set=dram_gbs=40&k.ne.peak_tf=1")
	if code != 200 {
		t.Fatal(body)
	}
	ecode, out, _ := triune(t, "predict", "mobilenet_v2", "-d", "iphone-14-pro", "-c", "w8a8", "-u", "cpu_and_ne", "--set", "ne.peak_tf=x2", "--set", "dram_gbs=40", "--json")
	if ecode != 0 || body != out {
		t.Errorf("the API and the command line differ (%d and %d bytes)", len(body), len(out))
	}
	// Pins too, several in one value or in several.
	code, body = fetch(t, h.URL+"/api/v1/predict?model=mobilenet_v2&device=iphone-14-pro&pin=gemm%3Dcpu,+conv%3Dne&pin="+url.QueryEscape("features.0*=gpu"))
	ecode, out, _ = triune(t, "predict", "mobilenet_v2", "-d", "iphone-14-pro", "--pin", "gemm=cpu", "--pin", "conv=ne", "--pin", "features.0*=gpu", "--json")
	var p result.Prediction
	if err := json.Unmarshal([]byte(body), &p); code != 200 || ecode != 0 || err != nil || body != out {
		t.Fatalf("with pins: %d, code %d, %v: %.300s", code, ecode, err, body)
	}
	for _, u := range p.Units {
		if u.Layers == 0 {
			t.Errorf("pins leave the %s without a layer", u.Unit)
		}
	}
	if len(p.Units) != 3 {
		t.Errorf("pins to three units use %d", len(p.Units))
	}
	// What the page says reproduces it does.
	code, view := fetch(t, h.URL+"/view?model=tiny_cnn&device=m1&scheme=w8&k.dram_gbs=-1")
	if code != 200 || !strings.Contains(view, "triune predict tiny_cnn -d m1 -c w8 -u all --set dram_gbs=x0.5") {
		t.Errorf("%d: no command line in the page", code)
	}
	if _, view = fetch(t, h.URL+"/view?model=tiny_cnn&device=m1&pin=*pool*%3Dcpu"); !strings.Contains(view, "triune predict tiny_cnn -d m1 -c fp16 -u all --pin &#39;*pool*=cpu&#39;") {
		t.Error("no pin in the command line")
	}
}

func TestServeStudyReproduces(t *testing.T) {
	_, s := serve(t, "", 1e6)
	c, err := parseChoice(url.Values{"model": {"tiny_cnn"}, "device": {"m1"}, "scheme": {"w8"}, "units": {"cpu_only"}, "batch": {"2"}, "k.dram_gbs": {"1"}, "set": {"cpu.cache_mb=x2, slc_mb=3"}, "pin": {"conv=cpu; Gemm=cpu"}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.solve(context.Background(), c, true)
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := triune(t, "whatif", writeStudy(t, a.study()), "--json")
	var doc struct {
		Rows []map[string]any `json:"rows"`
	}
	if err := json.Unmarshal([]byte(out), &doc); code != 0 || err != nil || len(doc.Rows) != 1 {
		t.Fatalf("code %d, %v, %s\n%s", code, err, errs, a.study())
	}
	if doc.Rows[0]["latency_ms"] != a.pred.LatencyMS || doc.Rows[0]["dram_gbs"] != a.placed.Device.DRAMGBs.Value {
		t.Errorf("the study gives %v ms, the page %v", doc.Rows[0]["latency_ms"], a.pred.LatencyMS)
	}
}

func TestServePages(t *testing.T) {
	h, _ := serve(t, "", 1e6)
	for path, want := range map[string]string{
		"/":                                      "mobilenet_v2, fp16 on iphone-15-pro",
		"/?model=resnet50&device=m1&scheme=w8a8": "resnet50, w8a8 on m1",
		"/?k.ne.floor_ms=1&device=m1":            "<output>x2.00 = 0.",
		"/?device=iphone-7":                      "iphone-7", // no Neural Engine: its sliders are hidden
		"/view?lite=1":                           "Timeline",
		"/view?b=" + url.QueryEscape("scheme=w8"): "A against B",
		"/view?policy=throughput":                 "throughput",
		"/app.js":                                 "redrawMs",
		"/tables.js":                              "aria-sort",
		"/app.css":                                "prefers-color-scheme",
		"/api/v1/models":                          `"resnet50"`,
		"/api/v1/devices":                         `"iPhone 14 Pro"`,
		"/api/v1/devices?device=m1":               `"ne.peak_tf"`,
		"/api/v1/trace?model=tiny_mlp":            "traceEvents",
		"/report.html?model=tiny_mlp":             "<!DOCTYPE html>",
	} {
		code, body := fetch(t, h.URL+path)
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, %q missing in %.300s", path, code, want, body)
		}
	}
	if _, lite := fetch(t, h.URL+"/view?lite=1"); strings.Contains(lite, "<table class=\"sort\"") {
		t.Error("a lite view has the table of layers")
	}
	r, err := http.Get(h.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if csp := r.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("policy %q", csp)
	}
}

// Bad requests: one line that says what is wrong, never a crash.
func TestServeRefuses(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret.onnx")
	for _, p := range []string{outside, filepath.Join(dir, "good.onnx")} {
		if err := os.WriteFile(p, tinyONNX(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link.onnx")); err != nil {
		t.Fatal(err)
	}
	pkg := filepath.Join(dir, "p.mlpackage")
	if err := os.Mkdir(pkg, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(pkg, "Manifest.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.onnx"), 0o644); err != nil {
		t.Fatal(err)
	}
	h, _ := serve(t, dir, 1e6)
	for q, want := range map[string]string{
		"model=resnet5": "resnet5", "device=iphone-3": "iphone-3", "scheme=w7": "w7", "scheme=/etc/passwd.yaml": "unknown scheme", "units=tpu": "tpu",
		"policy=best": "best", "policy=pinned": "at least one pin", "pin=x": "PATTERN=UNIT", "pin=conv%3Dtpu": "tpu", "pin=nothing%3Dcpu": "matches no layer", "pin=conv%3Dne&units=cpu_only": "cannot run on the NE", "batch=0": "batch", "batch=x": "batch", "set=ne.speed=3": "ne.speed", "set=x": "path=value",
		"k.ne.peak_tf=9": "slider", "k.ne.peak_tf=NaN": "slider", "model=upload:nothing": "no upload",
		"model=file:../" + filepath.Base(filepath.Dir(outside)) + "/secret.onnx": "no model", "model=file:/etc/passwd": "no model",
		"model=file:" + outside: "no model", "model=file:link.onnx": "no model", "model=file:away/secret.onnx": "no model", "model=file:pipe.onnx": "no plain file", "model=file:..%2f..%2fsecret.onnx": "no model", "model=file:..%5csecret.onnx": "no model",
		"model=file:good.onnx%00": "no model", "model=file:good.onnx/": "no model", "model=file:./good.onnx": "no model", "model=file:p.mlpackage": "link", "model=file:notes.txt": "no model",
		"model=file:missing.onnx": "no model", "model=file:.": "no model", "model=" + outside: "", "b=%25zz": "", "%zz": "",
	} {
		for _, path := range []string{"/api/v1/predict?", "/view?", "/?"} {
			if strings.HasPrefix(q, "b=") && path != "/view?" {
				continue
			}
			code, body := fetch(t, h.URL+path+q)
			if code != 400 || !strings.Contains(body, want) || strings.Contains(body, "secret") && !strings.Contains(q, "secret") {
				t.Errorf("%s%s: %d, want 400 and %q: %.200s", path, q, code, want, body)
			}
		}
	}
	if code, body := fetch(t, h.URL+"/api/v1/predict?model=file:good.onnx"); code != 200 {
		t.Errorf("a file of the folder: %d %s", code, body)
	}
	if _, body := fetch(t, h.URL+"/api/v1/models"); !strings.Contains(body, "file:good.onnx") || strings.Contains(body, "link.onnx") || strings.Contains(body, "notes") {
		t.Errorf("models: %s", body[len(body)-400:])
	}
	if code, _ := fetch(t, h.URL+"/view?x="+strings.Repeat("a", 20000)); code != 400 {
		t.Errorf("a long query: %d", code)
	}
	for _, path := range []string{"/nothing", "/../etc/passwd", "/..%2fetc%2fpasswd", "/web/app.js", "/app.js/../web/app.css"} {
		if code, _ := fetch(t, h.URL+path); code != 404 {
			t.Errorf("%s: %d, want 404", path, code)
		}
	}
	// Another site's page, and another site's name for this machine.
	req, _ := http.NewRequest("POST", h.URL+"/upload?name=x.onnx", strings.NewReader("x"))
	req.Header.Set("Origin", "https://example.com")
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 403 {
		t.Errorf("a foreign post: %d", r.StatusCode)
	}
	for _, c := range []struct {
		site, mode, dest string
		code             int
	}{{"cross-site", "no-cors", "image", 403}, {"cross-site", "cors", "empty", 403}, {"cross-site", "navigate", "iframe", 403},
		{"cross-site", "navigate", "document", 200}, {"same-origin", "cors", "empty", 200}, {"none", "navigate", "document", 200}} {
		req, _ = http.NewRequest("GET", h.URL+"/view?lite=1", nil)
		req.Header.Set("Sec-Fetch-Site", c.site)
		req.Header.Set("Sec-Fetch-Mode", c.mode)
		req.Header.Set("Sec-Fetch-Dest", c.dest)
		if r, err = http.DefaultClient.Do(req); err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != c.code {
			t.Errorf("%+v: %d", c, r.StatusCode)
		}
	}
	req, _ = http.NewRequest("GET", h.URL+"/", nil)
	req.Host = "evil.example.com"
	if r, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 403 {
		t.Errorf("a foreign host name: %d", r.StatusCode)
	}
}

func archive(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, data := range files {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUpload(t *testing.T) {
	h, s := serve(t, "", 200_000)
	good := tinyONNX(t)
	code, m := post(t, h.URL+"/upload?name=my+net.onnx", good)
	if code != 200 || m["name"] != "my net.onnx" {
		t.Fatalf("%d %v", code, m)
	}
	code, body := fetch(t, h.URL+"/api/v1/predict?scheme=w8&model="+m["model"])
	var p result.Prediction
	if err := json.Unmarshal([]byte(body), &p); code != 200 || err != nil || p.LatencyMS <= 0 {
		t.Errorf("%d %v %s", code, err, body)
	}
	if _, view := fetch(t, h.URL+"/view?model="+m["model"]); !strings.Contains(view, "&#39;my net.onnx&#39;") {
		t.Error("the command line lacks the file's name")
	}
	// A package, made by the command line, as an archive in a folder.
	dir := t.TempDir()
	if code, _, errs := triune(t, "compress", "tiny_cnn", "-c", "w8", "-o", filepath.Join(dir, "n.mlpackage")); code != 0 {
		t.Fatal(errs)
	}
	files := map[string][]byte{"__MACOSX/x": []byte("x")}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		b, err := os.ReadFile(p)
		files["folder/"+filepath.ToSlash(rel)] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	code, m = post(t, h.URL+"/upload?name=n.mlpackage.zip", archive(t, files))
	if code != 200 {
		t.Fatalf("%d %v", code, m)
	}
	if code, body := fetch(t, h.URL+"/api/v1/predict?scheme=stored&model="+m["model"]); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	noise := bytes.Repeat([]byte("noise 123 "), 1000)
	before := len(s.order)
	for _, c := range []struct {
		name string
		body []byte
		want string
	}{
		{"x.onnx", noise, "x.onnx"}, {"x.onnx", nil, "empty"}, {"x.mlmodel", noise, "x.mlmodel"}, {"x.exe", noise, "no model"}, {"x.mlpackage", noise, "zip"}, {"", noise, "no model"},
		{"x.zip", noise, "archive"}, {"x.zip", archive(t, map[string][]byte{"a.txt": noise}), "no .mlpackage"},
		{"x.zip", archive(t, map[string][]byte{"../x.mlpackage/a": noise}), "outside"},
		{"x.zip", archive(t, map[string][]byte{"/x.mlpackage/a": noise}), "outside"},
		{"x.zip", archive(t, map[string][]byte{"x.mlpackage/../../a": noise}), "outside"},
		{"x.zip", archive(t, map[string][]byte{"x.mlpackage/a": nil, "y.mlpackage/a": nil}), "several"},
		{"x.zip", archive(t, map[string][]byte{"x.mlpackage/Manifest.json": noise}), "x.zip"},
		{"x.zip", archive(t, map[string][]byte{"x.mlpackage/a": bytes.Repeat([]byte{0}, 900_000)}), "unpacks to more"},
		{"big.onnx", bytes.Repeat([]byte("big"), 100_000), "more than 200 kB"},
		{"../../../etc/x.onnx", noise, "x.onnx"},
	} {
		code, m := post(t, h.URL+"/upload?name="+url.QueryEscape(c.name), c.body)
		if code != 400 || !strings.Contains(m["error"], c.want) || strings.Contains(m["error"], s.uploads) {
			t.Errorf("%s: %d %v, want %q", c.name, code, m, c.want)
		}
	}
	if len(s.order) != before {
		t.Error("a refused upload was kept")
	}
	if e, err := os.ReadDir(s.uploads); err != nil || len(e) != before {
		t.Errorf("%d folders of uploads, %v", len(e), err)
	}
	// The oldest make room: by their bytes, and by their number.
	padded := append(bytes.Clone(good), unknownField(190_000-len(good))...)
	for range maxKeptSize + 2 {
		if code, m := post(t, h.URL+"/upload?name=a.onnx", padded); code != 200 {
			t.Fatalf("%d %v", code, m)
		}
	}
	if kept := diskUse(t, s.uploads); kept > maxKeptSize*s.maxUpload {
		t.Errorf("uploads take %d bytes, the most is %d", kept, maxKeptSize*s.maxUpload)
	}
	h, s = serve(t, "", 1e6)
	_, m = post(t, h.URL+"/upload?name=first.onnx", good)
	var last map[string]string
	for range maxUploads {
		_, last = post(t, h.URL+"/upload?name=a.onnx", good)
	}
	if len(s.order) != maxUploads {
		t.Errorf("%d uploads kept", len(s.order))
	}
	if code, _ := fetch(t, h.URL+"/view?lite=1&model="+m["model"]); code != 400 {
		t.Errorf("an upload that made room: %d", code)
	}
	if code, _ := fetch(t, h.URL+"/view?lite=1&model="+last["model"]); code != 200 {
		t.Errorf("the last upload: %d", code)
	}
}

// unknownField is n bytes that readers of protocol buffers skip.
func unknownField(n int) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, 9999, protowire.BytesType), make([]byte, n))
}

func diskUse(t *testing.T, dir string) int64 {
	t.Helper()
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var i os.FileInfo
			if i, err = d.Info(); err == nil {
				n += i.Size()
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Slow senders hold no more than their share, what is broken off leaves no
// file, and others are told to come back.
func TestUploadSlowly(t *testing.T) {
	h, s := serve(t, "", 1e6)
	var pipes []*io.PipeWriter
	done := make(chan error, maxReceived)
	for range maxReceived {
		r, w := io.Pipe()
		pipes = append(pipes, w)
		go func() {
			resp, err := http.Post(h.URL+"/upload?name=slow.onnx", "application/octet-stream", r)
			if err == nil {
				resp.Body.Close()
			}
			done <- err
		}()
		if _, err := w.Write([]byte("slow")); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; len(s.uploading) < maxReceived; i++ {
		if i > 1000 {
			t.Fatal("the uploads do not begin")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if code, m := post(t, h.URL+"/upload?name=a.onnx", tinyONNX(t)); code != http.StatusServiceUnavailable || !strings.Contains(m["error"], "try again") {
		t.Errorf("%d %v", code, m)
	}
	if code, _ := fetch(t, h.URL+"/view?lite=1"); code != 200 {
		t.Errorf("the page while uploads are slow: %d", code)
	}
	for _, w := range pipes {
		w.CloseWithError(errors.New("gone"))
	}
	for range pipes {
		<-done
	}
	for i := 0; ; i++ {
		e, err := os.ReadDir(s.uploads)
		if err != nil {
			t.Fatal(err)
		}
		if len(e) == 0 && len(s.uploading) == 0 {
			break
		}
		if i > 1000 {
			t.Fatalf("%d broken uploads left", len(e))
		}
		time.Sleep(5 * time.Millisecond)
	}
	if code, m := post(t, h.URL+"/upload?name=a.onnx", tinyONNX(t)); code != 200 {
		t.Errorf("afterwards: %d %v", code, m)
	}
}

// The caches stay bounded, whatever is asked for.
func TestServeCaches(t *testing.T) {
	_, s := serve(t, "", 1e6)
	for i := range maxModels + 10 {
		if _, _, err := s.model(&choice{Model: fmt.Sprintf("tiny_cnn@%d", 32+i), Scheme: "fp16", Batch: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.models) != maxModels {
		t.Errorf("%d models kept", len(s.models))
	}
	for i := range maxVariants + 10 {
		if _, _, err := s.model(&choice{Model: "tiny_mlp", Scheme: fmt.Sprint("w4b", i+1), Batch: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.models["zoo:tiny_mlp"].variant); n > maxVariants {
		t.Errorf("%d variants kept", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range cap(s.busy) {
		s.busy <- struct{}{}
	}
	c, _ := parseChoice(url.Values{})
	if _, err := s.solve(ctx, c, false); err == nil {
		t.Error("a cancelled request was served")
	}
}

// The server ends with its context.
func TestServeUntil(t *testing.T) {
	s, err := newServer("", 1e6)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveUntil(ctx, ln, s) }()
	if code, _ := fetch(t, "http://"+ln.Addr().String()+"/view?lite=1&model=tiny_mlp"); code != 200 {
		t.Errorf("%d", code)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the server goes on")
	}
	for args, want := range map[string]string{"--max-upload 0": "max-upload", "--dir /no/such/folder": "/no/such/folder", "x": "unknown command"} {
		code, out, errs := triune(t, append([]string{"serve"}, strings.Fields(args)...)...)
		if code == 0 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: code %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
}

// A redraw while a slider is dragged, without the browser.
func BenchmarkView(b *testing.B) {
	s, err := newServer("", 1e6)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for n := 0; b.Loop(); n++ {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", fmt.Sprintf("/view?lite=1&model=mobilenet_v2&scheme=w8a8&k.ne.spill_gbs=%g", float64(n%50)/20), nil))
		if w.Code != 200 {
			b.Fatal(w.Body.String())
		}
	}
}

// driver is a page that uses the real one in a frame, as a person would, and
// sends what it saw.
const driver = `<!DOCTYPE html><title>driver</title><iframe id="f" width="1200" height="900"></iframe><script>
var out={errors:[],steps:[]},f=document.getElementById("f");
function sleep(n){return new Promise(function(r){setTimeout(r,n);});}
async function until(what,test){for(var i=0;i<600;i++){if(test()){out.steps.push(what);return;}await sleep(20);}throw new Error("never: "+what);}
async function run(){
  f.src="/";
  await new Promise(function(r){f.onload=r;});
  var w=f.contentWindow,d=f.contentDocument;
  w.addEventListener("error",function(e){out.errors.push(String(e.message));});
  var ce=w.console.error;w.console.error=function(){out.errors.push([].join.call(arguments," "));ce.apply(w.console,arguments);};
  d.addEventListener("securitypolicyviolation",function(e){out.errors.push("policy: "+e.violatedDirective+" "+e.blockedURI);});
  var html=d.documentElement,res=d.getElementById("result"),form=d.getElementById("choice");
  function set(name,v){var e=form.elements[name];e.value=v;e.dispatchEvent(new w.Event("change",{bubbles:true}));}
  await until("ready",function(){return html.dataset.ready==="1"&&res.textContent.indexOf("mobilenet_v2, fp16")>=0;});
  set("device","iphone-12");
  await until("device",function(){return res.textContent.indexOf("on iphone-12")>=0;});
  set("scheme","w8a8");
  await until("scheme",function(){return res.textContent.indexOf("w8a8 on iphone-12")>=0;});
  // Drag a slider, a redraw for every position.
  var k=form.elements["k.ne.spill_gbs"],times=[];
  for(var i=0;i<25;i++){
    var n=+html.dataset.redraws;
    k.value=String(-1.5+i*0.1);k.dispatchEvent(new w.Event("input",{bubbles:true}));
    await until("",function(){return +html.dataset.redraws>n;});
    times.push(+html.dataset.redrawMs);
  }
  k.dispatchEvent(new w.Event("change",{bubbles:true}));
  await until("dragged",function(){return res.textContent.indexOf("ne.spill_gbs=x")>=0&&res.querySelector("table.sort");});
  times.sort(function(a,b){return a-b;});out.median=times[12];out.slowest=times[24];
  // Sort the table by a click, and by the keyboard.
  var b=res.querySelector("#layers th button");if(!b)throw new Error("the table does not sort");
  b.focus();if(d.activeElement!==b)throw new Error("the head cannot be focused");
  b.click();out.sorted=res.querySelector("#layers th").getAttribute("aria-sort");
  // Everything can be reached by the keyboard.
  out.unreachable=[];
  d.querySelectorAll("input:not([type=hidden]),select,button,a[href]").forEach(function(e){if(e.offsetParent&&e.tabIndex<0)out.unreachable.push(e.outerHTML.slice(0,80));
    if(/INPUT|SELECT/.test(e.tagName)&&e.type!=="hidden"&&e.labels&&!e.labels.length)out.unreachable.push("no label: "+e.outerHTML.slice(0,80));});
  // Compare.
  d.getElementById("compare").click();set("scheme","fp16");
  await until("compare",function(){return res.textContent.indexOf("A against B")>=0&&res.textContent.indexOf("fp16 on iphone-12")>=0;});
  d.getElementById("single").click();
  await until("single",function(){return res.textContent.indexOf("A against B")<0&&res.textContent.indexOf("fp16 on")>=0;});
  // Pin layers, of which the command line tells, and a layer that is not there.
  set("pin","conv=gpu, gemm=cpu");
  await until("pinned",function(){return res.textContent.indexOf("--pin conv=gpu --pin gemm=cpu")>=0;});
  set("pin","nothing=gpu");
  await until("unpinned",function(){var e=res.querySelector(".error");return e&&e.textContent.indexOf("matches no layer")>=0;});
  set("pin","");
  // Upload a model, and what is none.
  var bytes=new Uint8Array(await (await fetch("/driver/model")).arrayBuffer());
  await w.triuneUpload(new w.File([bytes],"mine.onnx"));
  await until("upload",function(){return res.textContent.indexOf("mine.onnx")>=0;});
  await w.triuneUpload(new w.File(["hello"],"bad.onnx"));
  await until("refused",function(){return res.querySelector(".error")&&res.textContent.indexOf("bad.onnx")>=0;});
  out.refusal=res.textContent;
  set("scheme","w7");
  await until("message",function(){return res.querySelector(".error")&&res.textContent.indexOf("w7")>=0;});
}
run().catch(function(e){out.failed=String(e);}).then(function(){
  out.steps=out.steps.filter(Boolean);
  fetch("/driver/done",{method:"POST",body:JSON.stringify(out)});
});
</script>`

// The page in a browser: it loads, follows every control, draws while a slider
// is dragged, takes a model and refuses what is none.
func TestServeInBrowser(t *testing.T) {
	browser := ""
	for _, n := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(n); err == nil {
			browser = p
			break
		}
	}
	if browser == "" {
		t.Skip("no chromium on this machine (Debian: apt-get install chromium)")
	}
	if testing.Short() {
		t.Skip("a browser takes some seconds")
	}
	s, err := newServer("", 1e6)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	model := tinyONNX(t)
	done := make(chan []byte, 1)
	mux := http.NewServeMux()
	mux.Handle("/", s)
	mux.HandleFunc("/driver", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, driver)
	})
	mux.HandleFunc("/driver/model", func(w http.ResponseWriter, _ *http.Request) { w.Write(model) })
	mux.HandleFunc("/driver/done", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		select {
		case done <- b:
		default:
		}
	})
	h := httptest.NewServer(mux)
	defer h.Close()
	cmd := exec.Command(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-first-run", "--user-data-dir="+t.TempDir(), h.URL+"/driver")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Skipf("chromium does not start: %v", err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		time.Sleep(200 * time.Millisecond) // its children leave the profile
	}()
	var raw []byte
	select {
	case raw = <-done:
	case <-time.After(120 * time.Second):
		t.Fatal("the browser sent nothing")
	}
	var got struct {
		Errors, Steps, Unreachable []string
		Failed, Sorted, Refusal    string
		Median, Slowest            float64
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	t.Logf("steps %v; redraw median %.1f ms, slowest %.1f ms", got.Steps, got.Median, got.Slowest)
	if got.Failed != "" || len(got.Errors) > 0 || len(got.Unreachable) > 0 {
		t.Errorf("failed %q, errors %q, not reachable %q", got.Failed, got.Errors, got.Unreachable)
	}
	if len(got.Steps) != 11 || got.Sorted != "descending" || !strings.Contains(got.Refusal, "bad.onnx") {
		t.Errorf("steps %q, sorted %q, refusal %q", got.Steps, got.Sorted, got.Refusal)
	}
	if got.Median > 100 {
		t.Errorf("a redraw takes %.0f ms in the median; want less than 100", got.Median)
	}
}
