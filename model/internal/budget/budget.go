// Package budget bounds what the readers of model files hold in memory.
package budget

import "fmt"

// Budget counts what a file makes its reader hold, so that a short file of
// many empty fields, or of one function that is called ten thousand times,
// cannot ask for much memory: all told a reader stays below eight times the
// file and 8 MiB (the TestReaderMemory of each reader measures it). The file's
// own bytes are one of the eight. Counts are estimates of what the Go heap
// takes for each kind of record, the maps and slices that hold it included. A
// nil Budget has no limit.
type Budget struct {
	limit   int64
	kept    int64 // part of the graph
	passing int64 // of the records being read
}

// New returns the budget of a reader of a file of the given size in bytes.
func New(file int) *Budget {
	b := &Budget{limit: 6 << 20}
	b.Allow(file)
	return b
}

// Allow adds the size of another file to what may be held.
func (b *Budget) Allow(file int) { b.limit += 7 * int64(file) }

// Keep takes n bytes for good.
func (b *Budget) Keep(n int) error {
	if b == nil {
		return nil
	}
	b.kept += int64(n)
	return b.check()
}

// Pass takes n bytes until [Budget.Passed].
func (b *Budget) Pass(n int) error {
	if b == nil {
		return nil
	}
	b.passing += int64(n)
	return b.check()
}

// Passing returns a mark for [Budget.Passed].
func (b *Budget) Passing() int64 {
	if b == nil {
		return 0
	}
	return b.passing
}

// Passed gives back what was taken with [Budget.Pass] since the mark was made.
func (b *Budget) Passed(mark int64) {
	if b != nil {
		b.passing = mark
	}
}

func (b *Budget) check() error {
	if b.kept+b.passing > b.limit {
		return fmt.Errorf("the model needs more memory than its file can account for (the limit is %d bytes: seven times the file and 6 MiB)", b.limit)
	}
	return nil
}
