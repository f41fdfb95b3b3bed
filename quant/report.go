package quant

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/triune-sim/triune/model"
)

// Report says what [Apply] did.
type Report struct {
	Scheme string `json:"scheme"`
	// Weights lists every floating-point constant that a node reads, in order
	// of first use.
	Weights []WeightReport `json:"weights"`
	// Quantized and Float count the activation tensors carried as 8-bit codes
	// and the tensors of the scheme's operators that stayed float.
	Quantized int `json:"quantized_tensors"`
	// Ops lists the operators that activation quantisation left alone, and why.
	Ops []OpReport `json:"float_ops,omitempty"`
	// BytesBefore and BytesAfter are the sizes of all constants, in bytes:
	// arrays only, no container.
	BytesBefore int64 `json:"bytes_before"`
	BytesAfter  int64 `json:"bytes_after"`
	// Notes are remarks on single constants (values that are not finite or
	// saturated in fp16, dequantized integer constants) and on names of the
	// configuration that the model does not have.
	Notes []string `json:"notes,omitempty"`
}

// WeightReport is one constant.
type WeightReport struct {
	Name   string      `json:"name"`
	Op     model.Op    `json:"op"` // of the first reader
	Node   string      `json:"node"`
	Shape  model.Shape `json:"shape"`
	Scheme string      `json:"scheme,omitempty"` // how it is stored; empty if left alone
	// Skipped says why a stage left the constant alone.
	Skipped     string `json:"skipped,omitempty"`
	BytesBefore int64  `json:"bytes_before"`
	BytesAfter  int64  `json:"bytes_after"`
}

// OpReport is one operator that stays float.
type OpReport struct {
	Node   string   `json:"node"`
	Op     model.Op `json:"op"`
	Reason string   `json:"reason"`
}

// Ratio returns bytes before over bytes after.
func (r *Report) Ratio() float64 {
	if r.BytesAfter == 0 {
		return 1
	}
	return float64(r.BytesBefore) / float64(r.BytesAfter)
}

// Compressed returns how many constants were compressed.
func (r *Report) Compressed() int {
	n := 0
	for _, w := range r.Weights {
		if w.Scheme != "" {
			n++
		}
	}
	return n
}

// WriteText prints the report as aligned columns; with all false, the constants
// that were left alone are summed up by reason.
func (r *Report) WriteText(w io.Writer, all bool) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if all && len(r.Weights) > 0 || r.Compressed() > 0 {
		fmt.Fprintln(tw, "constant\toperator\tshape\tstored as\tbytes before\tbytes after")
	}
	type group struct {
		n     int
		bytes int64
	}
	skipped := map[string]*group{}
	var order []string
	for _, x := range r.Weights {
		if x.Scheme == "" && !all {
			reason := x.Skipped
			if i := strings.IndexByte(reason, ':'); i >= 0 {
				reason = reason[:i]
			}
			g := skipped[reason]
			if g == nil {
				g = &group{}
				skipped[reason] = g
				order = append(order, reason)
			}
			g.n++
			g.bytes += x.BytesAfter
			continue
		}
		stored := x.Scheme
		if x.Skipped != "" {
			stored = strings.TrimSpace(stored + " (left alone: " + x.Skipped + ")")
		}
		fmt.Fprintf(tw, "%s\t%s\t%v\t%s\t%d\t%d\n", x.Name, x.Op, x.Shape, stored, x.BytesBefore, x.BytesAfter)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, reason := range order {
		g := skipped[reason]
		if reason == "" {
			reason = "no stage applies"
		}
		fmt.Fprintf(w, "left alone: %d constants, %d bytes: %s\n", g.n, g.bytes, reason)
	}
	if r.Quantized > 0 {
		fmt.Fprintf(w, "activations: %d tensors carried as 8-bit codes\n", r.Quantized)
	}
	floats := map[string][]string{} // operators by reason
	order = nil
	for _, o := range r.Ops {
		if floats[o.Reason] == nil {
			order = append(order, o.Reason)
		}
		floats[o.Reason] = append(floats[o.Reason], o.Node)
	}
	for _, reason := range order {
		names := floats[reason]
		n := len(names)
		if most := 6; n > most && !all {
			names = append(names[:most:most], "...")
		}
		fmt.Fprintf(w, "left float: %d operators: %s: %s\n", n, reason, strings.Join(names, ", "))
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, "note:", n)
	}
	_, err := fmt.Fprintf(w, "compressed %d of %d constants: %d -> %d bytes (ratio %.3f)\n",
		r.Compressed(), len(r.Weights), r.BytesBefore, r.BytesAfter, r.Ratio())
	return err
}
