package calibrate

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/triune-sim/triune/units"
)

// ReadPasted reads medians copied by hand from Xcode's performance report, a
// line each: network (with @pixels where not its own), scheme, compute units,
// milliseconds. Empty lines and lines that begin with # are skipped.
//
//	# iPhone 13, iOS 17.5, Xcode 15 performance tab, median
//	resnet50          fp16  all         2.1 ms
//	mobilenet_v2@160  w8a8  cpu_and_ne  0.31
//
// The device and system are the same for all lines.
func ReadPasted(r io.Reader, device, os string) ([]Row, error) {
	if strings.TrimSpace(device) == "" {
		return nil, fmt.Errorf("calibrate: pasted medians need the device they were measured on")
	}
	var rows []Row
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		t := strings.TrimSpace(sc.Text())
		if t == "" || strings.HasPrefix(t, "#") {
			continue
		}
		f := strings.Fields(t)
		if len(f) == 5 && strings.EqualFold(f[4], "ms") {
			f = f[:4]
		}
		if len(f) != 4 {
			return nil, fmt.Errorf("calibrate: line %d: %q; want network, scheme, compute units and milliseconds", n, t)
		}
		row := Row{Line: n, Device: device, OS: os, Precision: f[1], Source: "pasted Core ML report"}
		name, size, sized := strings.Cut(f[0], "@")
		row.Model = name
		if sized {
			px, err := strconv.Atoi(size)
			if err != nil || px < 1 || px > 1<<14 {
				return nil, fmt.Errorf("calibrate: line %d: input size %q; want pixels, for example %s@224", n, size, name)
			}
			row.Input = px
		}
		var err error
		if row.Mask, err = units.ParseMask(f[2]); err != nil {
			return nil, fmt.Errorf("calibrate: line %d: %w", n, err)
		}
		ms := strings.TrimSuffix(strings.ToLower(f[3]), "ms")
		row.LatencyMS, err = strconv.ParseFloat(ms, 64)
		if err != nil || !(row.LatencyMS > 0) || math.IsInf(row.LatencyMS, 0) {
			return nil, fmt.Errorf("calibrate: line %d: latency %q; want milliseconds above 0", n, f[3])
		}
		rows = append(rows, row)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("calibrate: %w", err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("calibrate: no medians found; want lines of network, scheme, compute units and milliseconds")
	}
	return rows, nil
}
