package whatif

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Runner is a study that is ready to run.
type Runner struct {
	Study  *Study
	Pricer *Pricer
	Stamp  Stamp
	// Measurer makes what runs networks for the analysis mixed, on so many
	// seeded inputs from a seed on; without it that analysis is refused.
	// MeasureProgress, if not nil, is told of each measurement.
	Measurer        func(seed uint64, samples int) Measure
	MeasureProgress func(done, total int)

	rows *rowMaker
}

// Open checks a study against its devices and models' names, and prepares to
// run it. Networks are compiled when a row first needs them.
func Open(s *Study) (*Runner, error) {
	p := &Pricer{Dir: s.dir}
	if s.axes == nil {
		if err := s.init(); err != nil {
			return nil, err
		}
	}
	// Names that are wrong spoil every row: say so now.
	for _, n := range s.deviceNames() {
		if _, err := p.Device(n); err != nil {
			return nil, err
		}
	}
	for _, n := range s.schemeNames() {
		if _, err := p.Scheme(n); err != nil {
			return nil, err
		}
	}
	m, err := newRowMaker(s, p)
	if err != nil {
		return nil, err
	}
	st, err := s.stamp(p)
	if err != nil {
		return nil, err
	}
	r := &Runner{Study: s, Pricer: p, Stamp: st, rows: m}
	return r, r.checkAnalyses()
}

func (s *Study) schemeNames() []string {
	out := append([]string(nil), s.Schemes...)
	for i := range s.Configs {
		if n := s.Configs[i].Scheme; n != "" {
			out = append(out, n)
		}
	}
	if s.Base != nil && s.Base.Scheme != "" {
		out = append(out, s.Base.Scheme)
	}
	return out
}

// Columns describes the columns of the rows.
func (r *Runner) Columns() []Column { return r.rows.columns }

// Len returns the number of configurations.
func (r *Runner) Len() int64 { return r.Study.Len() }

// Progress is how far a run is.
type Progress struct {
	Done, Total int64
	Kept        int64 // rows that passed the filter
	Elapsed     time.Duration
	PerSecond   float64
	Left        time.Duration // at the rate so far
}

// String writes the progress as a line for people.
func (p Progress) String() string {
	pct := 100.0
	if p.Total > 0 {
		pct = 100 * float64(p.Done) / float64(p.Total)
	}
	s := fmt.Sprintf("%d of %d configurations (%.0f %%), %.0f/s", p.Done, p.Total, pct, p.PerSecond)
	if p.Done < p.Total && p.PerSecond > 0 {
		s += fmt.Sprintf(", %s left", p.Left.Round(time.Second))
	}
	return s
}

// RunOptions say how to run. The zero value uses all processors.
type RunOptions struct {
	Workers  int            // 0: one per processor
	Progress func(Progress) // called now and then from one goroutine; may be nil
}

// blockRows is the number of configurations that make a block. It is part of
// the format of an unfinished run, not of its results.
const blockRows = 512

// Run prices all configurations and calls emit with their rows in order. The
// block is emit's to keep. When ctx is done, Run stops with its error; rows
// emitted until then are a prefix of the whole.
func (r *Runner) Run(ctx context.Context, o RunOptions, emit func(*Block) error) error {
	n := r.Len()
	todo := func(i int64) bool { return true }
	return r.run(ctx, o, (n+blockRows-1)/blockRows, todo, func(_ int64, b *Block) error { return emit(b) })
}

// run makes the blocks for which todo is true and emits them in order.
func (r *Runner) run(ctx context.Context, o RunOptions, blocks int64, todo func(int64) bool, emit func(int64, *Block) error) error {
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	total := r.Len()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type job struct {
		index int64
		done  chan *Block
	}
	var done, kept atomic.Int64
	ahead := make(chan job, 2*workers) // in order, bounds what is in memory
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			d := r.rows.desk()
			for j := range jobs {
				lo := j.index * blockRows
				hi := min(total, lo+blockRows)
				b := r.rows.newBlock(int(hi - lo))
				if err := d.fill(b, lo, hi, func() bool { return ctx.Err() != nil }); err != nil {
					cancel(err)
					b = nil
				} else {
					done.Add(hi - lo)
					kept.Add(int64(b.Rows))
				}
				j.done <- b
			}
		}()
	}
	go func() {
		defer close(ahead)
		defer close(jobs)
		for i := range blocks {
			if !todo(i) {
				done.Add(min(total, (i+1)*blockRows) - i*blockRows)
				continue
			}
			j := job{i, make(chan *Block, 1)}
			select {
			case ahead <- j:
			case <-ctx.Done():
				return
			}
			select {
			case jobs <- j:
			case <-ctx.Done():
				j.done <- nil
				return
			}
		}
	}()
	start, last := time.Now(), time.Now()
	report := func(force bool) {
		if o.Progress == nil || !force && time.Since(last) < 200*time.Millisecond {
			return
		}
		last = time.Now()
		p := Progress{Done: done.Load(), Total: total, Kept: kept.Load(), Elapsed: time.Since(start)}
		if s := p.Elapsed.Seconds(); s > 0 {
			p.PerSecond = float64(p.Done) / s
		}
		if p.PerSecond > 0 {
			p.Left = time.Duration(float64(p.Total-p.Done) / p.PerSecond * float64(time.Second))
		}
		o.Progress(p)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for j := range ahead {
		var b *Block
	wait:
		for {
			select {
			case b = <-j.done:
				break wait
			case <-tick.C:
				report(false)
			}
		}
		if b == nil {
			cancel(errStopped)
			continue
		}
		if ctx.Err() != nil {
			continue
		}
		if err := emit(j.index, b); err != nil {
			cancel(err)
		}
		report(false)
	}
	wg.Wait()
	report(true)
	err := context.Cause(ctx)
	return err
}
