// Package service is what every process of the product has: configuration from
// the environment, logs, health, metrics, and an orderly end. It knows nothing
// of databases, brokers or routes.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Service is one running process. Metrics is its own registry, so that tests
// can run several services in one program.
type Service struct {
	Name    string
	Log     *slog.Logger
	Metrics *prometheus.Registry

	cfg    Common
	mu     sync.Mutex
	checks map[string]func(context.Context) error
	state  string // empty when running
}

// New returns a service that is not ready yet. Programs use Main.
func New(name string, cfg Common, log *slog.Logger) *Service {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return &Service{
		Name:    name,
		Log:     log,
		Metrics: metrics,
		cfg:     cfg,
		checks:  map[string]func(context.Context) error{},
		state:   "starting",
	}
}

// Runner is a part of a service that works until its context ends, finishes
// what it has begun, and returns nil.
type Runner interface {
	Run(ctx context.Context) error
}

// RunnerFunc makes a Runner of a function.
type RunnerFunc func(ctx context.Context) error

// Run implements Runner.
func (f RunnerFunc) Run(ctx context.Context) error { return f(ctx) }

// Check adds a condition of readiness.
func (s *Service) Check(name string, check func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = check
}

// Run works until ctx ends or a runner fails, then stops every runner and waits
// for all of them, at most SHUTDOWN_TIMEOUT. door, by which requests come, stops
// first, since the others serve it; from the moment that ctx ends the service says
// that it is not ready. A runner that returns while nobody asked it to is an error:
// a service without its consumer is no service.
func (s *Service) Run(ctx context.Context, door Runner, others ...Runner) error {
	inside, closeInside := context.WithCancel(context.WithoutCancel(ctx))
	defer closeInside()
	outside, closeDoor := context.WithCancel(ctx)
	defer closeDoor()

	ended := make(chan error, 1+len(others))
	doorClosed := make(chan struct{})
	go func() {
		defer close(doorClosed)
		ended <- untilAsked(outside, door)
	}()
	for _, runner := range others {
		go func() { ended <- untilAsked(inside, runner) }()
	}
	s.setState("")
	s.Log.InfoContext(ctx, "started")

	var faults []error
	left := 1 + len(others)
	select {
	case <-ctx.Done():
		s.Log.InfoContext(ctx, "stopping")
	case err := <-ended:
		faults = append(faults, err)
		left--
	}
	s.setState("stopping")
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout)
	defer cancel()
	closeDoor()
	select {
	case <-doorClosed:
	case <-deadline.Done():
	}
	closeInside()
	for ; left > 0; left-- {
		select {
		case err := <-ended:
			faults = append(faults, err)
		case <-deadline.Done():
			return errors.Join(append(faults, fmt.Errorf("%d parts did not stop within %s", left, s.cfg.ShutdownTimeout))...)
		}
	}
	return errors.Join(faults...)
}

func untilAsked(ctx context.Context, runner Runner) error {
	err := runner.Run(ctx)
	if err == nil && ctx.Err() == nil {
		err = fmt.Errorf("%T ended by itself", runner)
	}
	return err
}

func (s *Service) setState(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

// Ready returns nil if the service can do its work, and else says what is amiss
// with each part.
func (s *Service) Ready(ctx context.Context) error {
	s.mu.Lock()
	state, checks := s.state, maps.Clone(s.checks)
	s.mu.Unlock()
	if state != "" {
		return errors.New(state)
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		if err := checks[name](ctx); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

// stderr is where logs go; stdout belongs to commands.
var stderr = os.Stderr
