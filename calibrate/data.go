package calibrate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/units"
)

// Row is one measured latency.
type Row struct {
	Line      int    // line of the file, for messages
	Device    string // as the source writes it
	Chip      string
	OS        string
	Model     string
	Input     int // height and width in pixels; 0 for the network's own
	Precision string
	Mask      units.Mask
	LatencyMS float64
	Source    string
	Note      string
}

// columns of the file, in the order of the published one; others are ignored.
var columns = []string{"device", "chip", "os", "model", "input", "precision", "compute_units", "latency_ms", "source", "note"}

// ReadCSV reads measurements with a header line naming the columns device,
// chip, os, model, input, precision, compute_units, latency_ms, source and
// note, in any order; device or chip, model, precision, compute_units and
// latency_ms are needed.
func ReadCSV(r io.Reader) ([]Row, error) {
	cr := csv.NewReader(r)
	cr.FieldsPerRecord = -1
	cr.TrimLeadingSpace = true
	head, err := cr.Read()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("calibrate: the file is empty; want a header line and measurements")
		}
		return nil, fmt.Errorf("calibrate: %w", err)
	}
	at := map[string]int{}
	for i, h := range head {
		at[strings.ToLower(strings.TrimSpace(h))] = i
	}
	for _, need := range []string{"model", "precision", "compute_units", "latency_ms"} {
		if _, ok := at[need]; !ok {
			return nil, fmt.Errorf("calibrate: line 1: no column %q (want %s)", need, strings.Join(columns, ", "))
		}
	}
	var rows []Row
	for {
		rec, err := cr.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("calibrate: %w", err)
		}
		line, _ := cr.FieldPos(0)
		get := func(c string) string {
			if i, ok := at[c]; ok && i < len(rec) {
				return strings.TrimSpace(rec[i])
			}
			return ""
		}
		row := Row{Line: line, Device: get("device"), Chip: get("chip"), OS: get("os"), Model: get("model"),
			Precision: get("precision"), Source: get("source"), Note: get("note")}
		if row.Device == "" && row.Chip == "" {
			return nil, fmt.Errorf("calibrate: line %d: neither device nor chip is given", line)
		}
		if row.Model == "" || row.Precision == "" {
			return nil, fmt.Errorf("calibrate: line %d: model and precision are needed", line)
		}
		if s := get("input"); s != "" {
			if row.Input, err = strconv.Atoi(s); err != nil || row.Input < 1 || row.Input > 1<<14 {
				return nil, fmt.Errorf("calibrate: line %d: input %q; want pixels, for example 224", line, s)
			}
		}
		if row.Mask, err = units.ParseMask(get("compute_units")); err != nil {
			return nil, fmt.Errorf("calibrate: line %d: %w", line, err)
		}
		row.LatencyMS, err = strconv.ParseFloat(get("latency_ms"), 64)
		if err != nil || !(row.LatencyMS > 0) || math.IsInf(row.LatencyMS, 0) {
			return nil, fmt.Errorf("calibrate: line %d: latency_ms %q; want milliseconds above 0", line, get("latency_ms"))
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, errors.New("calibrate: the file has a header and no measurements")
	}
	return rows, nil
}

// Sigma is the relative standard error that the row's measurement is trusted
// to: 3 % for a median of a benchmark tool, more for values read off a plot,
// for a mean with image pre-processing in it, and for whole milliseconds (half
// a unit in the last place, uniformly). Benchmarks of unstated method count
// for 6 % and a single third party's own tool for 8 %.
func (r *Row) Sigma() float64 {
	v := 0.03 * 0.03
	note := strings.ToLower(r.Note)
	if strings.Contains(note, "digitised") || strings.Contains(note, "digitized") {
		v += 0.06 * 0.06
	}
	if strings.Contains(note, "pre-processing") || strings.Contains(note, "mean") {
		v += 0.08 * 0.08
	}
	if strings.Contains(note, "whole ms") {
		q := 1 / math.Sqrt(12) / r.LatencyMS
		v += q * q
	}
	switch source := strings.ToLower(r.Source); {
	case strings.Contains(source, "public benchmark"):
		v += 0.06 * 0.06
	case strings.Contains(source, "aneforge"):
		v += 0.08 * 0.08
	}
	return math.Sqrt(v)
}

// Unit is the unit that the row mainly measures: the one that Core ML prefers
// under the row's mask, given whether the device has a Neural Engine.
func (r *Row) Unit(hasNE bool) units.Kind {
	switch {
	case hasNE && r.Mask.Has(units.NE):
		return units.NE
	case r.Mask.Has(units.GPU):
		return units.GPU
	}
	return units.CPU
}
