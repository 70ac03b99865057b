package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// programConfig is the configuration of the program that TestMain can be.
type programConfig struct {
	service.Common

	FaultFile string `envconfig:"FAULT_FILE" desc:"Contains the name of the check that fails."`
}

func TestMain(m *testing.M) {
	testkit.ProgramMain(m, func() {
		service.Main("svc", func(ctx context.Context, s *service.Service, cfg programConfig) error {
			failing := func(name string) func(context.Context) error {
				return func(context.Context) error {
					if fault, err := os.ReadFile(cfg.FaultFile); err == nil && string(fault) == name {
						return errors.New("away")
					}
					return nil
				}
			}
			s.Check("database", failing("database"))
			s.CheckWork("consumer", failing("consumer"))
			return s.Run(ctx, until(func() {}))
		})
	})
}

// TestREL84HealthcheckIsAboutRequests is REL-84: the health check of a container fails only
// while the service cannot serve requests. While its other work fails, the internal /readyz
// says no, and the services that depend on this one start nevertheless.
func TestREL84HealthcheckIsAboutRequests(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "fault")
	p := testkit.StartProgram(t, map[string]string{"FAULT_FILE": file})
	environment := map[string]string{"OPS_ADDR": strings.TrimPrefix(p.OpsURL, "http://")}
	for _, tc := range []struct {
		fault, ready string
		code         int
	}{
		{"", `"status":"ready"`, 0},
		{"consumer", `"reason":"consumer: away"`, 0},
		{"database", `"reason":"database: away"`, 1},
	} {
		if err := os.WriteFile(file, []byte(tc.fault), 0o600); err != nil {
			t.Fatal(err)
		}
		if ready := p.Ready(); !strings.Contains(ready, tc.ready) {
			t.Errorf("%q fails: readyz = %s", tc.fault, ready)
		}
		if _, stderr, code := testkit.RunProgram(t, environment, "healthcheck"); code != tc.code {
			t.Errorf("%q fails: healthcheck = %d %s, want %d", tc.fault, code, stderr, tc.code)
		}
	}
	p.Stop()
	if _, _, code := testkit.RunProgram(t, environment, "healthcheck"); code != 1 {
		t.Errorf("healthcheck of a service that has stopped = %d, want 1", code)
	}
}

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
	testkit.Eventually(t, func() error {
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
	testkit.Eventually(t, func() error { return s.Ready(ctx) })
	if err := s.Working(ctx); err == nil || err.Error() != "consumer: paused for 1m0s" {
		t.Errorf("Working = %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// opening is a listener whose address is not open at once.
type opening struct {
	service.Runner
	open func() error
}

func (o opening) Open(context.Context) error { return o.open() }

// TestReadyWhenListening: a service is not ready before its listener is open, because clients
// connect as soon as they learn that it is ready.
func TestReadyWhenListening(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(30 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		slow := opening{until(func() {}), func() error {
			time.Sleep(time.Second)
			return nil
		}}
		go func() { done <- s.Run(ctx, slow) }()
		synctest.Wait()
		if err := s.Ready(ctx); err == nil || err.Error() != "starting" {
			t.Errorf("Ready = %v before the listener is open", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if err := s.Ready(ctx); err != nil {
			t.Errorf("Ready = %v after it is", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}

		taken := errors.New("address already in use")
		if err := newService(time.Second).Run(t.Context(), opening{until(func() {}), func() error { return taken }}); !errors.Is(err, taken) {
			t.Errorf("Run = %v, want %v", err, taken)
		}
	})
}
