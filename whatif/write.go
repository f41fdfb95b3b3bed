package whatif

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/parquet-go/parquet-go"
)

// Writer writes rows in one format, block by block.
type Writer interface {
	Write(*Block) error
	// Close finishes the document; the underlying writer stays open.
	Close() error
}

// appendJSONNumber writes a number that reads back as the same float64; null
// for what JSON lacks.
func appendJSONNumber(b []byte, v float64) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

func appendJSONString(b []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil { // strings always marshal
		return append(b, `""`...)
	}
	return append(b, q...)
}

func csvNumber(k ColumnKind, v float64) string {
	switch {
	case math.IsNaN(v):
		return ""
	case k == Integer:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// csvWriter writes rows as RFC 4180 with a header.
type csvWriter struct {
	cols []Column
	w    *csv.Writer
	line []string
}

// NewCSV returns a writer of comma-separated values with a header line;
// missing values are empty.
func NewCSV(w io.Writer, cols []Column) (Writer, error) {
	c := &csvWriter{cols, csv.NewWriter(w), make([]string, len(cols))}
	for i, x := range cols {
		c.line[i] = x.Name
	}
	return c, c.w.Write(c.line)
}

func (c *csvWriter) Write(b *Block) error {
	for r := range b.Rows {
		for k := range c.cols {
			if b.Str[k] != nil {
				c.line[k] = b.Str[k][r]
			} else {
				c.line[k] = csvNumber(c.cols[k].Kind, b.Num[k][r])
			}
		}
		if err := c.w.Write(c.line); err != nil {
			return err
		}
	}
	return nil
}

func (c *csvWriter) Close() error {
	c.w.Flush()
	return c.w.Error()
}

type jsonWriter struct {
	cols  []Column
	names [][]byte
	w     *bufio.Writer
	buf   []byte
	any   bool
	tail  func() (any, error)
}

// NewJSON returns a writer of one JSON document: what the rows were made from,
// the columns, the rows as objects, and after them what tail returns, as
// "findings" (nil: none).
func NewJSON(w io.Writer, st Stamp, cols []Column, tail func() (any, error)) (Writer, error) {
	j := &jsonWriter{cols: cols, w: bufio.NewWriterSize(w, 1<<16), tail: tail}
	for _, c := range cols {
		j.names = append(j.names, append(appendJSONString(nil, c.Name), ':'))
	}
	head, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	desc, err := json.Marshal(cols)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(j.w, "{\"made_from\":%s,\n\"columns\":%s,\n\"rows\":[", head, desc)
	return j, nil
}

func (j *jsonWriter) Write(b *Block) error {
	for r := range b.Rows {
		out := j.buf[:0]
		if j.any {
			out = append(out, ',')
		}
		j.any = true
		out = append(out, '\n', '{')
		for k := range j.cols {
			if k > 0 {
				out = append(out, ',')
			}
			out = append(out, j.names[k]...)
			if b.Str[k] != nil {
				out = appendJSONString(out, b.Str[k][r])
			} else {
				out = appendJSONNumber(out, b.Num[k][r])
			}
		}
		out = append(out, '}')
		j.buf = out
		if _, err := j.w.Write(out); err != nil {
			return err
		}
	}
	return nil
}

func (j *jsonWriter) Close() error {
	j.w.WriteString("\n]")
	if j.tail != nil {
		v, err := j.tail()
		if err != nil {
			return err
		}
		t, err := json.Marshal(v)
		if err != nil {
			return err
		}
		fmt.Fprintf(j.w, ",\n\"findings\":%s", t)
	}
	j.w.WriteString("}\n")
	return j.w.Flush()
}

// groupRows is the number of rows of a Parquet row group: what is held in
// memory while writing.
const groupRows = 1 << 16

type parquetWriter struct {
	cols   []Column
	order  []int // column of each leaf; leaves are sorted by name
	w      *parquet.GenericWriter[any]
	rows   []parquet.Row
	values []parquet.Value
	inside int
}

// NewParquet returns a writer of a Parquet file: zstd pages, dictionaries for
// texts, optional numbers for results. What the rows were made from is in the
// file's key-value metadata, as triune.study.
func NewParquet(w io.Writer, st Stamp, cols []Column) (Writer, error) {
	group := parquet.Group{}
	for _, c := range cols {
		var n parquet.Node
		switch c.Kind {
		case Text:
			n = parquet.Encoded(parquet.String(), &parquet.RLEDictionary)
		case Integer:
			n = parquet.Optional(parquet.Encoded(parquet.Leaf(parquet.Int64Type), &parquet.RLEDictionary))
		default:
			n = parquet.Optional(parquet.Encoded(parquet.Leaf(parquet.DoubleType), &parquet.Plain))
		}
		group[c.Name] = parquet.Compressed(n, &parquet.Zstd)
	}
	schema := parquet.NewSchema("triune_study", group)
	p := &parquetWriter{cols: cols}
	for _, path := range schema.Columns() {
		for k := range cols {
			if cols[k].Name == path[0] {
				p.order = append(p.order, k)
			}
		}
	}
	if len(p.order) != len(cols) {
		return nil, fmt.Errorf("whatif: parquet: %d columns of %d have a place in the schema", len(p.order), len(cols))
	}
	head, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	desc, err := json.Marshal(cols)
	if err != nil {
		return nil, err
	}
	p.w = parquet.NewGenericWriter[any](w, schema, parquet.CreatedBy("triune", Version(), ""),
		parquet.KeyValueMetadata("triune.study", string(head)), parquet.KeyValueMetadata("triune.columns", string(desc)))
	return p, nil
}

func (p *parquetWriter) Write(b *Block) error {
	n := len(p.cols)
	if cap(p.values) < b.Rows*n {
		p.values = make([]parquet.Value, b.Rows*n)
		p.rows = make([]parquet.Row, b.Rows)
	}
	vals := p.values[:b.Rows*n]
	for r := range b.Rows {
		for leaf, k := range p.order {
			var v parquet.Value
			switch {
			case b.Str[k] != nil:
				v = parquet.ByteArrayValue([]byte(b.Str[k][r])).Level(0, 0, leaf)
			case math.IsNaN(b.Num[k][r]):
				v = parquet.NullValue().Level(0, 0, leaf)
			case p.cols[k].Kind == Integer:
				v = parquet.Int64Value(int64(b.Num[k][r])).Level(0, 1, leaf)
			default:
				v = parquet.DoubleValue(b.Num[k][r]).Level(0, 1, leaf)
			}
			vals[r*n+leaf] = v
		}
		p.rows[r] = vals[r*n : (r+1)*n]
	}
	// Groups end at fixed rows, whatever the blocks are.
	rows := p.rows[:b.Rows]
	for len(rows) > 0 {
		k := min(len(rows), groupRows-p.inside)
		if _, err := p.w.WriteRows(rows[:k]); err != nil {
			return fmt.Errorf("whatif: parquet: %w", err)
		}
		rows = rows[k:]
		if p.inside += k; p.inside == groupRows {
			if err := p.w.Flush(); err != nil {
				return fmt.Errorf("whatif: parquet: %w", err)
			}
			p.inside = 0
		}
	}
	return nil
}

func (p *parquetWriter) Close() error {
	if err := p.w.Close(); err != nil {
		return fmt.Errorf("whatif: parquet: %w", err)
	}
	return nil
}
