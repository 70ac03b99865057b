// Package service holds what every process of the product needs: configuration from
// the environment, logs, health checks, metrics, and an orderly stop. It must not
// know databases, brokers or routes.
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

// Service is one running process. Its methods may be called concurrently. Metrics
// is a registry of its own, so that tests can run several services in one program.
type Service struct {
	Name    string
	Log     *slog.Logger
	Metrics *prometheus.Registry

	cfg     Common
	mu      sync.Mutex
	checks  map[string]func(context.Context) error
	work    map[string]func(context.Context) error
	notices map[string]func(context.Context) string
	state   string // why it is not ready; empty while it runs
}

// New returns a service that is not ready yet. Programs use Main.
func New(name string, cfg Common, log *slog.Logger) *Service {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(),
	)
	return &Service{
		Name:    name,
		Log:     log,
		Metrics: metrics,
		cfg:     cfg,
		checks:  map[string]func(context.Context) error{},
		work:    map[string]func(context.Context) error{},
		notices: map[string]func(context.Context) string{},
		state:   "starting",
	}
}

// Runner is a part of a service. Run works until its context ends, finishes the
// work in flight, and returns nil.
type Runner interface {
	Run(ctx context.Context) error
}

// Opener is a Runner with an address. Open opens it, so that connections are accepted before
// Run is called.
type Opener interface {
	Runner
	Open(ctx context.Context) error
}

// RunnerFunc is a function that is a Runner.
type RunnerFunc func(ctx context.Context) error

// Run implements Runner.
func (f RunnerFunc) Run(ctx context.Context) error { return f(ctx) }

// Check adds a readiness check: the service cannot serve requests while it fails. The name
// prefixes its errors.
func (s *Service) Check(name string, check func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = check
}

// CheckWork adds a check of what the service does besides serving requests. While it
// fails, /readyz of the internal listener says no, and Ready does not: clients are still
// served.
func (s *Service) CheckWork(name string, check func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work[name] = check
}

// Run works until ctx ends or a runner fails. Then it stops every runner and waits
// for all of them, at most SHUTDOWN_TIMEOUT. The listener stops first, since the
// others serve its requests. From the moment that ctx ends the service is not
// ready. A runner that returns before it is stopped is an error: a service without
// its consumer must not go on.
func (s *Service) Run(ctx context.Context, listener Runner, others ...Runner) error {
	othersCtx, stopOthers := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOthers()
	listenerCtx, stopListener := context.WithCancel(ctx)
	defer stopListener()
	// Clients connect as soon as they learn that the service is ready.
	if opener, ok := listener.(Opener); ok {
		if err := opener.Open(ctx); err != nil {
			return err
		}
	}

	results := make(chan error, 1+len(others))
	listenerStopped := make(chan struct{})
	go func() {
		defer close(listenerStopped)
		results <- runUntilStopped(listenerCtx, listener)
	}()
	for _, runner := range others {
		go func() { results <- runUntilStopped(othersCtx, runner) }()
	}
	s.setState("")
	s.Log.InfoContext(ctx, "service started")

	var faults []error
	running := 1 + len(others)
	select {
	case <-ctx.Done():
		s.Log.InfoContext(ctx, "service stopping")
	case err := <-results:
		faults = append(faults, err)
		running--
	}
	s.setState("stopping")
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout)
	defer cancel()
	stopListener()
	select {
	case <-listenerStopped:
	case <-deadline.Done():
	}
	stopOthers()
	for ; running > 0; running-- {
		select {
		case err := <-results:
			faults = append(faults, err)
		case <-deadline.Done():
			return errors.Join(append(faults, fmt.Errorf("runners that did not stop within %s: %d", s.cfg.ShutdownTimeout, running))...)
		}
	}
	return errors.Join(faults...)
}

// runUntilStopped returns an error if the runner returns before ctx ends.
func runUntilStopped(ctx context.Context, runner Runner) error {
	err := runner.Run(ctx)
	if err == nil && ctx.Err() == nil {
		err = fmt.Errorf("%T returned before it was stopped", runner)
	}
	return err
}

func (s *Service) setState(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

// Ready returns nil if the service can serve requests. Otherwise the error is "starting",
// "stopping", or joins those of the checks that failed.
func (s *Service) Ready(ctx context.Context) error {
	s.mu.Lock()
	state, checks := s.state, maps.Clone(s.checks)
	s.mu.Unlock()
	if state != "" {
		return errors.New(state)
	}
	return runChecks(ctx, checks)
}

// Working returns nil if the service can serve requests and does the rest of its work.
func (s *Service) Working(ctx context.Context) error {
	s.mu.Lock()
	state, checks := s.state, maps.Clone(s.checks)
	maps.Copy(checks, s.work)
	s.mu.Unlock()
	if state != "" {
		return errors.New(state)
	}
	return runChecks(ctx, checks)
}

// runChecks runs the checks concurrently, so one that hangs does not make the others fail.
func runChecks(ctx context.Context, checks map[string]func(context.Context) error) error {
	names := slices.Sorted(maps.Keys(checks))
	faults := make([]error, len(names))
	var running sync.WaitGroup
	for i, name := range names {
		running.Go(func() {
			if err := checks[name](ctx); err != nil {
				faults[i] = fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	running.Wait()
	return errors.Join(faults...)
}

// stderr receives the logs; stdout is for the output of commands.
var stderr = os.Stderr
