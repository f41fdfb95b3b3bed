package timeline

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/triune-sim/triune/result"
)

func sample() *result.Timeline {
	return &result.Timeline{Title: `net <on> "a16"`, Lanes: []string{"CPU", "GPU", "NE"}, EndMS: 2, Spans: []result.Span{
		{Lane: 2, Name: "floor", Kind: "floor", StartMS: 0, DurMS: 0.2},
		{Lane: 2, Name: "conv & relu", Kind: "layer", StartMS: 0.2, DurMS: 0.8, Detail: "compute"},
		{Lane: 0, Name: "to CPU", Kind: "transfer", StartMS: 1, DurMS: 0.5},
		{Lane: 0, Name: "topk", Kind: "layer", StartMS: 1.5, DurMS: 0.5},
	}}
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	if err := Text(&b, sample(), 47); err != nil {
		t.Fatal(err)
	}
	want := `net <on> "a16"
CPU ····················▒▒▒▒▒▒▒▒▒▒▒██████████  50%
GPU ·········································   0%
NE  ░░░░█████████████████····················  50%
    0         0.5       1         1.5 ms
    █ layers  ▒ transfers  ░ floor and handling  · idle
`
	if got := b.String(); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	b.Reset()
	if err := Text(&b, &result.Timeline{}, 10); err != nil || !strings.Contains(b.String(), "nothing") {
		t.Errorf("%q %v", b.String(), err)
	}
}

func TestChromeTrace(t *testing.T) {
	for _, tl := range []*result.Timeline{sample(), {}, {Lanes: []string{"CPU"}}} {
		var b bytes.Buffer
		if err := ChromeTrace(&b, tl); err != nil {
			t.Fatal(err)
		}
		var doc struct {
			TraceEvents []struct {
				Ph  string
				Ts  float64
				Dur float64
			}
		}
		if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		sum, n := 0.0, 0
		for _, e := range doc.TraceEvents {
			if e.Ph == "X" {
				sum += e.Dur
				n++
			}
		}
		if n != len(tl.Spans) || n > 0 && sum != 2000 {
			t.Errorf("%d spans of %g us", n, sum)
		}
	}
}

func TestSVG(t *testing.T) {
	var b bytes.Buffer
	if err := SVG(&b, sample(), 800); err != nil {
		t.Fatal(err)
	}
	rects := 0
	d := xml.NewDecoder(&b)
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := tok.(xml.StartElement); ok && s.Name.Local == "rect" {
			rects++
		}
	}
	if rects != 5 { // background and four spans
		t.Errorf("%d rectangles", rects)
	}
}
