// Package supervisor keeps a set of programs running: it restarts those that end, gives up
// those that never become ready, and leaves no process behind. It does not know what the
// programs do.
package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"time"
)

// Process is a running program.
type Process interface {
	Pid() int
	// Done is closed when the program has ended.
	Done() <-chan struct{}
	// Reason returns why the program has ended.
	Reason() string
	// Stop ends the program gracefully, or kills it when ctx ends. When it returns, the
	// program has ended.
	Stop(ctx context.Context) error
}

// Unit is a program to keep running.
type Unit struct {
	Name string
	// Start starts the program. It need not do so if ctx is cancelled.
	Start func(ctx context.Context) (Process, error)
	// Ready returns nil if the program is ready. If Ready is nil, it is ready at once.
	Ready func(ctx context.Context) error
	// Tail returns the last lines of the program's output, for error messages.
	Tail func() []string
}

// Options are the limits of a supervisor. Each has a default.
type Options struct {
	// Log receives a line for each restart, with its reason.
	Log io.Writer
	// Changed is called when a program has a new process id.
	Changed func()

	FirstBackoff time.Duration // 500 ms, doubled each time
	MaxBackoff   time.Duration // 10 s
	// Healthy is how long a program must run until its failures are forgotten: 10 s.
	Healthy time.Duration
	// Starts is how often a program is started before it is given up: 3.
	Starts int
	// ReadyTimeout is how long a program may take to become ready: 90 s.
	ReadyTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	o.FirstBackoff = cmp.Or(o.FirstBackoff, 500*time.Millisecond)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, 10*time.Second)
	o.Healthy = cmp.Or(o.Healthy, 10*time.Second)
	o.Starts = cmp.Or(o.Starts, 3)
	o.ReadyTimeout = cmp.Or(o.ReadyTimeout, 90*time.Second)
	return o
}

// GaveUpError says that a program did not become ready.
type GaveUpError struct {
	Name   string
	Reason string
	Tail   []string // the last lines of its output
}

func (e *GaveUpError) Error() string {
	text := fmt.Sprintf("%s did not start: %s", e.Name, e.Reason)
	if len(e.Tail) > 0 {
		text += "\nlast lines of its output:\n    " + strings.Join(e.Tail, "\n    ")
	}
	return text
}

// Supervisor keeps its units running until Stop.
type Supervisor struct {
	opts   Options
	cancel context.CancelFunc
	units  sync.WaitGroup
	ready  chan error // one value for each unit

	mu       sync.Mutex
	pids     map[string]int
	stopping context.Context //nolint:containedctx // The context of Stop, for the units that cancel ends.
}

// Start starts all units concurrently. The end of ctx does not stop them: the caller must
// call Stop.
func Start(ctx context.Context, units []Unit, opts Options) *Supervisor {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Supervisor{opts: opts.withDefaults(), cancel: cancel, ready: make(chan error, len(units)), pids: map[string]int{}}
	for _, unit := range units {
		s.units.Go(func() {
			k := keeper{Supervisor: s, unit: unit, deadline: time.Now().Add(s.opts.ReadyTimeout)}
			k.run(ctx)
		})
	}
	return s
}

// Ready waits until every unit is ready. It fails with a *GaveUpError as soon as a unit is
// given up. It must be called at most once.
func (s *Supervisor) Ready(ctx context.Context) error {
	for range cap(s.ready) {
		select {
		case err := <-s.ready:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Pids returns the process ids of the running units.
func (s *Supervisor) Pids() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.pids)
}

// Stop stops all units concurrently: gracefully, and by force when ctx ends. When it returns,
// all have ended.
func (s *Supervisor) Stop(ctx context.Context) {
	s.mu.Lock()
	s.stopping = ctx
	s.mu.Unlock()
	s.cancel()
	s.units.Wait()
}

func (s *Supervisor) running(name string, pid int) {
	s.mu.Lock()
	s.pids[name] = pid
	s.mu.Unlock()
	s.opts.Changed()
}

func (s *Supervisor) ended(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pids, name)
}

func (s *Supervisor) logf(format string, args ...any) {
	// An error of the log must not stop the programs.
	_, _ = fmt.Fprintf(s.opts.Log, format+"\n", args...)
}

func (s *Supervisor) stopContext() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}
