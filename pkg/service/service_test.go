package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestLogCarriesTheRequestID(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := service.NewLogger(&out, "svc", service.Common{LogFormat: "json", LogLevel: "info"})
	log.With("k", "v").InfoContext(event.WithOrigin(t.Context(), event.Origin{RequestID: "r-1"}), "hello")
	log.Debug("not shown")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["request_id"] != "r-1" || line["service"] != "svc" || line["k"] != "v" {
		t.Errorf("line = %s, %v", out.String(), err)
	}
}

func newService(timeout time.Duration) *service.Service {
	return service.New("svc", service.Common{ShutdownTimeout: timeout}, slog.New(slog.DiscardHandler))
}

func until(f func()) service.RunnerFunc {
	return func(ctx context.Context) error {
		<-ctx.Done()
		f()
		return nil
	}
}

func TestRunWaitsForEveryPart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(30 * time.Second)
		var mu sync.Mutex
		finished := 0
		slow := until(func() {
			time.Sleep(10 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			finished++
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		if s.Ready(ctx) == nil {
			t.Error("ready before it runs")
		}
		go func() { done <- s.Run(ctx, slow, slow) }()
		synctest.Wait()
		if err := s.Ready(ctx); err != nil {
			t.Errorf("Ready = %v", err)
		}
		cancel()
		synctest.Wait()
		if s.Ready(t.Context()) == nil {
			t.Error("ready while it stops")
		}
		if err := <-done; err != nil || finished != 2 {
			t.Errorf("Run = %v after %d parts", err, finished)
		}
	})
}

// TestRunStopsTheListenerFirst: the parts that serve requests outlive the last one.
func TestRunStopsTheListenerFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var listenerStopped, otherStopped time.Time
		listener := until(func() {
			time.Sleep(10 * time.Second)
			listenerStopped = time.Now()
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := newService(30*time.Second).Run(ctx, listener, until(func() { otherStopped = time.Now() })); err != nil {
			t.Error(err)
		}
		if otherStopped.Before(listenerStopped) {
			t.Errorf("the listener stopped at %s, what serves it at %s", listenerStopped, otherStopped)
		}
	})
}

func TestRunGivesUpOnAPartThatDoesNotStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		stuck := until(func() { <-never })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := newService(30*time.Second).Run(ctx, stuck); err == nil {
			t.Error("Run = nil")
		}
		close(never)
	})
}

func TestRunEndsWhenAPartDoes(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, part := range map[string]service.RunnerFunc{
		"with an error": func(context.Context) error { return boom },
		"by itself":     func(context.Context) error { return nil },
	} {
		stopped := false
		err := newService(time.Second).Run(t.Context(), part, until(func() { stopped = true }))
		if err == nil || !stopped {
			t.Errorf("%s: Run = %v, the others stopped: %t", name, err, stopped)
		}
	}
}

// TestReadyChecksRunTogether: a check that hangs does not make the others fail.
func TestReadyChecksRunTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(time.Second)
		s.Check("postgres", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		s.Check("redis", func(ctx context.Context) error { return ctx.Err() })
		running, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(running, until(func() {})) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Ready(ctx); err == nil || err.Error() != "postgres: context deadline exceeded" {
			t.Errorf("Ready = %v, want that of postgres alone", err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestReadyNamesTheCheck(t *testing.T) {
	t.Parallel()
	s := newService(time.Second)
	s.Check("postgres", func(context.Context) error { return errors.New("refused") })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx, until(func() {})) }()
	testkit.Eventually(t, 5*time.Second, func() error {
		if err := s.Ready(ctx); err != nil && err.Error() == "starting" {
			return err
		}
		return nil
	})
	if err := s.Ready(ctx); err == nil || err.Error() != "postgres: refused" {
		t.Errorf("Ready = %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWorkIsNotReadiness is REL-76: what a service does besides serving requests fails
// /readyz of the internal listener, with the reason, and not Ready.
func TestWorkIsNotReadiness(t *testing.T) {
	t.Parallel()
	s := newService(time.Second)
	s.CheckWork("consumer", func(context.Context) error { return errors.New("paused for 1m0s") })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx, until(func() {})) }()
	testkit.Eventually(t, 5*time.Second, func() error { return s.Ready(ctx) })
	if err := s.Working(ctx); err == nil || err.Error() != "consumer: paused for 1m0s" {
		t.Errorf("Working = %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
