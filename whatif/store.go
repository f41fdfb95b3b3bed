package whatif

import (
	"bufio"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The folder of a study holds study.json (what the rows are made from, and
// whether they are complete), the rows in the formats asked for (rows.csv,
// rows.json, rows.parquet), and, while it is unfinished, the finished blocks
// in .blocks. A block's file appears by renaming, so that it is whole or
// absent, whatever ends the program.

// Formats lists the formats that [Runner.RunDir] writes.
func Formats() []string { return []string{"csv", "json", "parquet"} }

const blockDir = ".blocks"

// State is the content of study.json.
type State struct {
	Stamp
	Complete bool      `json:"complete"`
	Done     int64     `json:"configurations_done"`
	Rows     int64     `json:"rows"`
	Failed   int64     `json:"configurations_without_plan"`
	Formats  []string  `json:"formats"`
	Columns  []Column  `json:"columns"`
	Findings []Finding `json:"findings,omitempty"`
}

// DirOptions say how [Runner.RunDir] runs.
type DirOptions struct {
	RunOptions
	Formats []string // of Formats; empty: csv and parquet
	Resume  bool     // continue an interrupted run of the same study
}

// ErrOtherStudy is wrapped by the error that says that a folder holds the
// results of another study.
var ErrOtherStudy = errors.New("the folder holds another study, or other versions of its parts")

// RunDir runs the study into a folder. When ctx ends, the finished blocks stay
// and the files hold their rows; with Resume a later call computes the rest.
// The rows are the same, byte for byte, as those of a run at one go. each, if
// not nil, sees all rows in order when the run is complete.
func (r *Runner) RunDir(ctx context.Context, dir string, o DirOptions, each func(*Block) error) (*State, error) {
	formats := o.Formats
	if len(formats) == 0 {
		formats = []string{"csv", "parquet"}
	}
	for _, f := range formats {
		if !slices.Contains(Formats(), f) {
			return nil, fmt.Errorf("whatif: unknown format %q (want csv, json or parquet)", f)
		}
	}
	st := &State{Stamp: r.Stamp, Formats: formats, Columns: r.Columns()}
	blocks := filepath.Join(dir, blockDir)
	if err := r.prepare(dir, blocks, o.Resume); err != nil {
		return nil, err
	}
	if err := writeState(dir, st); err != nil {
		return nil, err
	}
	n := (r.Len() + blockRows - 1) / blockRows
	have, err := haveBlocks(blocks, n)
	if err != nil {
		return nil, err
	}
	runErr := r.run(ctx, o.RunOptions, n, func(i int64) bool { return !have[i] }, func(i int64, b *Block) error {
		if err := saveBlock(blocks, i, b); err != nil {
			return err
		}
		have[i] = true
		return nil
	})
	if runErr != nil && ctx.Err() == nil {
		return nil, runErr
	}
	st.Complete = runErr == nil
	// What is done is written even when interrupted.
	if err := r.assemble(dir, blocks, have, st, each); err != nil {
		return nil, err
	}
	if err := writeState(dir, st); err != nil {
		return nil, err
	}
	if !st.Complete {
		return st, runErr
	}
	return st, os.RemoveAll(blocks)
}

// prepare makes the folder ready: empty, or holding the same study.
func (r *Runner) prepare(dir, blocks string, resume bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("whatif: %w", err)
	}
	old, err := ReadState(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("whatif: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("whatif: %s is not empty and holds no study (want a new or empty folder)", dir)
		}
	case err != nil:
		return err
	case resume && old.Hash != r.Stamp.Hash:
		return fmt.Errorf("whatif: %s: %w: hash %s, this one is %s (run without --resume into another folder)", dir, ErrOtherStudy, old.Hash, r.Stamp.Hash)
	case resume:
		return mkdir(blocks)
	default:
		// Only what a study has written is removed.
		for _, f := range Formats() {
			if err := os.Remove(filepath.Join(dir, "rows."+f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("whatif: %w", err)
			}
		}
		if err := os.RemoveAll(blocks); err != nil {
			return fmt.Errorf("whatif: %w", err)
		}
	}
	return mkdir(blocks)
}

func mkdir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("whatif: %w", err)
	}
	return nil
}

// ReadState reads the study.json of a folder.
func ReadState(dir string) (*State, error) {
	b, err := os.ReadFile(filepath.Join(dir, "study.json"))
	if err != nil {
		return nil, fmt.Errorf("whatif: %w", err)
	}
	var st struct {
		Stamp
		Complete bool  `json:"complete"`
		Done     int64 `json:"configurations_done"`
		Rows     int64 `json:"rows"`
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("whatif: %s: %w", filepath.Join(dir, "study.json"), err)
	}
	return &State{Stamp: st.Stamp, Complete: st.Complete, Done: st.Done, Rows: st.Rows}, nil
}

// WriteState writes the study.json of a folder, with what analyses found.
func WriteState(dir string, st *State) error { return writeState(dir, st) }

func writeState(dir string, st *State) error {
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("whatif: %w", err)
	}
	return writeWhole(filepath.Join(dir, "study.json"), func(w io.Writer) error {
		_, err := w.Write(append(b, '\n'))
		return err
	})
}

// writeWhole writes a file that appears whole or not at all.
func writeWhole(name string, f func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".part-*")
	if err != nil {
		return fmt.Errorf("whatif: %w", err)
	}
	defer os.Remove(tmp.Name())
	w := bufio.NewWriterSize(tmp, 1<<16)
	err = f(w)
	if err == nil {
		err = w.Flush()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("whatif: %w", err)
	}
	return nil
}

func blockName(i int64) string { return fmt.Sprintf("%08d.gob", i) }

func haveBlocks(dir string, n int64) (map[int64]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("whatif: %w", err)
	}
	have := map[int64]bool{}
	for _, e := range entries {
		num, ok := strings.CutSuffix(e.Name(), ".gob")
		i, err := strconv.ParseInt(num, 10, 64)
		if ok && err == nil && i >= 0 && i < n {
			have[i] = true
		}
	}
	return have, nil
}

func saveBlock(dir string, i int64, b *Block) error {
	return writeWhole(filepath.Join(dir, blockName(i)), func(w io.Writer) error { return gob.NewEncoder(w).Encode(b) })
}

func (r *Runner) loadBlock(dir string, i int64) (*Block, error) {
	name := filepath.Join(dir, blockName(i))
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("whatif: %w", err)
	}
	defer f.Close()
	b := &Block{}
	if err := gob.NewDecoder(bufio.NewReader(f)).Decode(b); err != nil {
		return nil, fmt.Errorf("whatif: %s: %w (remove the file and resume)", name, err)
	}
	// gob does not tell an empty slice from none.
	ok := len(b.Num) == len(r.rows.columns) && len(b.Str) == len(r.rows.columns)
	for k := 0; ok && k < len(r.rows.columns); k++ {
		if r.rows.columns[k].Kind == Text {
			if b.Num[k] = nil; b.Str[k] == nil {
				b.Str[k] = []string{}
			}
			ok = len(b.Str[k]) == b.Rows
		} else {
			b.Str[k] = nil
			ok = len(b.Num[k]) == b.Rows
		}
	}
	if !ok {
		return nil, fmt.Errorf("whatif: %s: not a block of this study (remove the file and resume)", name)
	}
	return b, nil
}

// assemble writes the finished blocks, in order, in every format.
func (r *Runner) assemble(dir, blocks string, have map[int64]bool, st *State, each func(*Block) error) error {
	order := make([]int64, 0, len(have))
	for i := range have {
		order = append(order, i)
	}
	slices.Sort(order)
	st.Done, st.Rows, st.Failed = 0, 0, 0
	var files []*os.File
	var writers []Writer
	var buffers []*bufio.Writer
	defer func() {
		for _, f := range files {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	for _, format := range st.Formats {
		f, err := os.CreateTemp(dir, ".part-*")
		if err != nil {
			return fmt.Errorf("whatif: %w", err)
		}
		files = append(files, f)
		buf := bufio.NewWriterSize(f, 1<<16)
		buffers = append(buffers, buf)
		var w Writer
		switch format {
		case "csv":
			w, err = NewCSV(buf, st.Columns)
		case "json":
			w, err = NewJSON(buf, st.Stamp, st.Columns, nil)
		default:
			w, err = NewParquet(buf, st.Stamp, st.Columns)
		}
		if err != nil {
			return err
		}
		writers = append(writers, w)
	}
	for _, i := range order {
		b, err := r.loadBlock(blocks, i)
		if err != nil {
			return err
		}
		st.Done += min(r.Len(), (i+1)*blockRows) - i*blockRows
		st.Rows += int64(b.Rows)
		st.Failed += int64(b.Failed)
		for _, w := range writers {
			if err := w.Write(b); err != nil {
				return err
			}
		}
		if each != nil && st.Complete {
			if err := each(b); err != nil {
				return err
			}
		}
	}
	for k, format := range st.Formats {
		if err := writers[k].Close(); err != nil {
			return err
		}
		if err := buffers[k].Flush(); err != nil {
			return fmt.Errorf("whatif: %w", err)
		}
		if err := files[k].Chmod(0o644); err != nil {
			return fmt.Errorf("whatif: %w", err)
		}
		if err := os.Rename(files[k].Name(), filepath.Join(dir, "rows."+format)); err != nil {
			return fmt.Errorf("whatif: %w", err)
		}
	}
	return nil
}
