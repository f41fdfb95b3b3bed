package kernels

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A Task is a job cut into n independent pieces. RunPiece computes piece i on
// the given worker (0 <= worker < Pool.Threads); pieces must not depend on one
// another, and the result of a piece must not depend on the worker.
type Task interface{ RunPiece(i, worker int) }

// Pool is a set of persistent workers. The zero value and nil run everything
// on the caller. A Pool may be shared by any number of goroutines: while one
// has the workers, the others compute on their own goroutine, which changes no
// result because work is split by index only.
type Pool struct {
	threads int
	mu      sync.Mutex // held while the workers are busy with one job
	task    Task
	n       int64
	next    atomic.Int64
	gate    atomic.Uint64 // number of the job, gateOpen, helpers inside it
	wake    []chan struct{}
	asleep  []atomic.Bool
	closed  atomic.Bool
	done    chan struct{}
	wg      sync.WaitGroup
}

// The gate of a job: helpers enter while it is open. The caller closes it when
// no piece is left to take and waits for those inside alone: a helper that has
// not come by then, because it sleeps or because the system gave its processor
// to something else, has nothing to do with the job.
const (
	gateOpen  = 1 << 15
	gateJob   = 1 << 16 // one job
	gateCount = gateOpen - 1
)

// enter waits for no one: it reports whether the job of the gate is open, and
// counts the helper in if so.
func (p *Pool) enter() bool {
	for {
		g := p.gate.Load()
		if g&gateOpen == 0 {
			return false
		}
		if p.gate.CompareAndSwap(g, g+1) {
			return true
		}
	}
}

// NewPool starts a pool of the given number of threads, the caller included:
// NewPool(1) starts no goroutine. threads <= 0 means one per CPU of the
// process (GOMAXPROCS).
func NewPool(threads int) *Pool {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	threads = min(threads, gateCount)
	p := &Pool{threads: threads, done: make(chan struct{}, 1)}
	p.wake = make([]chan struct{}, threads-1)
	p.asleep = make([]atomic.Bool, threads-1)
	for i := range p.wake {
		p.wake[i] = make(chan struct{}, 1)
		p.wg.Add(1)
		go p.worker(i)
	}
	return p
}

// Threads returns how many threads work on a job, the caller included.
func (p *Pool) Threads() int {
	if p == nil || p.threads < 1 {
		return 1
	}
	return p.threads
}

// Close ends the workers and waits for them. The pool keeps working after
// Close, on the caller's goroutine alone.
func (p *Pool) Close() {
	if p == nil || p.closed.Swap(true) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.wake {
		select {
		case p.wake[i] <- struct{}{}:
		default:
		}
	}
	p.wg.Wait()
}

// spinRounds is how long a worker polls for the next job before it sleeps, and
// a caller for the last piece: layers of one inference follow each other within
// microseconds, and waking a thread takes longer than most layers do. At 20 to
// 60 ns a round it is under half a millisecond.
const spinRounds = 1 << 13

func (p *Pool) worker(i int) {
	defer p.wg.Done()
	var seen uint64
	for {
		spins := 0
		for p.gate.Load()/gateJob == seen {
			if p.closed.Load() {
				return
			}
			if spins++; spins < spinRounds {
				spinPause()
				continue
			}
			p.asleep[i].Store(true)
			if p.gate.Load()/gateJob == seen && !p.closed.Load() {
				<-p.wake[i]
			}
			p.asleep[i].Store(false)
			spins = 0
		}
		seen = p.gate.Load() / gateJob
		if !p.enter() {
			continue
		}
		// The job inside is the newest: no other begins before this helper leaves.
		seen = p.gate.Load() / gateJob
		p.drain(i + 1)
		if p.gate.Add(^uint64(0))&(gateOpen|gateCount) == 0 {
			p.done <- struct{}{} // the last one out, and the caller waits
		}
	}
}

func (p *Pool) drain(worker int) {
	n, t := p.n, p.task
	for {
		i := p.next.Add(1) - 1
		if i >= n {
			return
		}
		t.RunPiece(int(i), worker)
	}
}

// Run computes pieces 0..n-1 of t and returns when all are done. It allocates
// nothing when t is a pointer that already lives on the heap.
func (p *Pool) Run(n int, t Task) {
	if n <= 0 {
		return
	}
	if p == nil || p.threads < 2 || n == 1 || p.closed.Load() || !p.mu.TryLock() {
		for i := 0; i < n; i++ {
			t.RunPiece(i, 0)
		}
		return
	}
	if p.closed.Load() {
		p.mu.Unlock()
		for i := 0; i < n; i++ {
			t.RunPiece(i, 0)
		}
		return
	}
	p.task, p.n = t, int64(n)
	p.next.Store(0)
	p.gate.Store((p.gate.Load()/gateJob+1)*gateJob | gateOpen)
	for i := range p.wake {
		if p.asleep[i].Load() {
			select {
			case p.wake[i] <- struct{}{}:
			default:
			}
		}
	}
	p.drain(0)
	if p.gate.And(^uint64(gateOpen))&gateCount != 0 {
		for spins := 0; len(p.done) == 0 && spins < spinRounds; spins++ {
			spinPause()
		}
		<-p.done
	}
	p.task = nil
	p.mu.Unlock()
}

type funcTask struct{ f func(i int) }

func (f *funcTask) RunPiece(i, _ int) { f.f(i) }

// For calls f(0) ... f(n-1), spread over the workers, and returns when all
// calls have. It allocates its closure; kernels use [Pool.Run].
func (p *Pool) For(n int, f func(i int)) {
	p.Run(n, &funcTask{f})
}
