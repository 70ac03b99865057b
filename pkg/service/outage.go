package service

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Outage logs that something fails at every attempt: a line when that begins, a line a
// minute while it lasts, and a line when it is over, however many parts fail and however
// often they retry. Its methods may be called concurrently.
type Outage struct {
	cfg     OutageConfig
	failing atomic.Bool

	mu     sync.Mutex
	faults map[string]error // of the parts that fail
	since  time.Time
	last   time.Time // failure
	logged time.Time
}

// OutageConfig says how an outage is logged.
type OutageConfig struct {
	Log     *slog.Logger
	Failing string // message of the first line and of one a minute
	Over    string // message of the last line
	Parts   string // key under which the lines list the parts that fail; none if empty
	// Reported reports whether another part of the service logs the error. Such an error
	// is logged at the level debug and begins no outage. No error is if it is nil.
	Reported func(error) bool
	// Quiet is how long nothing may fail before the outage is over; the time does not count
	// to it. It is for attempts at different things: one that succeeds does not prove that
	// the next one will.
	Quiet time.Duration
}

const outageLogEvery = time.Minute

// NewOutage returns an outage that has not begun.
func NewOutage(cfg OutageConfig) *Outage {
	return &Outage{cfg: cfg, faults: map[string]error{}}
}

// Record records the result of an attempt of a part, which may be "".
func (o *Outage) Record(ctx context.Context, part string, err error) {
	switch {
	case err == nil:
		o.succeeded(ctx, part)
	case o.cfg.Reported != nil && o.cfg.Reported(err):
		//nolint:sloglint // The texts are constants of the parts that configure the outage.
		o.cfg.Log.DebugContext(ctx, o.cfg.Failing, "error", err.Error())
	default:
		o.failed(ctx, part, err)
	}
}

func (o *Outage) failed(ctx context.Context, part string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	begins := !o.failing.Swap(true)
	if begins {
		o.since = now
	}
	o.last, o.faults[part] = now, err
	if !begins && now.Sub(o.logged) < outageLogEvery {
		return
	}
	o.logged = now
	attributes := []any{"error", err.Error()}
	if o.cfg.Parts != "" {
		parts := slices.DeleteFunc(slices.Sorted(maps.Keys(o.faults)), func(part string) bool { return part == "" })
		attributes = append(attributes, o.cfg.Parts, parts)
	}
	if !begins {
		attributes = append(attributes, "failing_ms", now.Sub(o.since).Milliseconds())
	}
	//nolint:sloglint // The texts are constants of the parts that configure the outage.
	o.cfg.Log.WarnContext(ctx, o.cfg.Failing, attributes...)
}

func (o *Outage) succeeded(ctx context.Context, part string) {
	if !o.failing.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.last) < o.cfg.Quiet {
		return
	}
	delete(o.faults, part)
	if len(o.faults) > 0 || !o.failing.Swap(false) {
		return
	}
	//nolint:sloglint // The texts are constants of the parts that configure the outage.
	o.cfg.Log.InfoContext(ctx, o.cfg.Over, "failed_ms", (time.Since(o.since) - o.cfg.Quiet).Milliseconds())
}

// Fault returns the last error of a part, nil if it does not fail.
func (o *Outage) Fault(part string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.faults[part]
}

// Lasts returns for how long the outage has lasted, 0 if there is none.
func (o *Outage) Lasts() time.Duration {
	if !o.failing.Load() {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return max(1, time.Since(o.since))
}
