package host

import (
	"context"
	"time"

	"github.com/triune-sim/triune/model"
	"github.com/triune-sim/triune/runtime"
	"github.com/triune-sim/triune/units"
)

// Self is Triune as its own peer, under another scheme or on another number of
// threads. What fp16 costs over fp32, or what a second thread gains, is only
// known when both run in turn: rows that are measured one after the other
// differ by what else the machine did.
type Self struct {
	Scheme  string // "" for the row's
	Threads int    // 0 for the row's
}

// Name says what differs from the row.
func (p Self) Name() string {
	switch {
	case p.Scheme != "":
		return "triune " + p.Scheme
	case p.Threads == 1:
		return "triune on one thread"
	}
	return "triune"
}

// Open loads a file; Measure loads the row's model, by its name.
func (p Self) Open(_ context.Context, file, scheme string, threads int) (PeerSession, error) {
	return p.open(Options{}.withDefaults(), file, scheme, threads)
}

func (p Self) open(o Options, name, scheme string, threads int) (PeerSession, error) {
	mask := o.mask(scheme)
	if p.Scheme != "" {
		scheme = p.Scheme
		if mask = o.mask(scheme); scheme == "fp32" {
			mask = units.CPUOnly
		}
	}
	if p.Threads != 0 {
		threads = p.Threads
	}
	start := time.Now()
	s, err := runtime.Open(name, runtime.WithScheme(scheme), runtime.WithDevice(o.Device), runtime.WithUnits(mask), runtime.WithThreads(threads))
	if err != nil {
		return nil, err
	}
	in, err := inputs(s)
	if err == nil {
		_, err = s.Run(context.Background(), in)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return &selfSession{s, in, ms(time.Since(start))}, nil
}

type selfSession struct {
	*runtime.Session
	in   map[string]*model.Tensor
	load float64
}

func (s *selfSession) Version() string { return "" }

func (s *selfSession) Run(ctx context.Context) (float64, error) {
	t := time.Now()
	_, err := s.Session.Run(ctx, s.in)
	return ms(time.Since(t)), err
}

// Stats knows no memory: the process is the row's own.
func (s *selfSession) Stats() (float64, int64) { return s.load, 0 }
