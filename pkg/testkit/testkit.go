// Package testkit gives each test real stores: a database cloned from a migrated
// template, and a Redis database. It also signs tokens and waits for conditions. No
// program may import it.
package testkit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/service"
)

// The variables that name the servers for all tests. make test starts the servers
// once and sets the variables. Without them, each package starts its own servers.
const (
	databaseVariable = "TEST_DATABASE_URL"
	redisVariable    = "TEST_REDIS_URL"
)

// Main is the TestMain of a package whose tests use the servers. It stops the servers
// that the package started.
func Main(m *testing.M) {
	code := m.Run()
	servers.stop()
	os.Exit(code)
}

// shared holds the servers that this test binary started.
type shared struct {
	postgres, redis func() (string, error)

	mu      sync.Mutex
	started []*localserver.Server
	dir     string
}

var servers = newShared()

func newShared() *shared {
	s := &shared{}
	s.postgres = sync.OnceValues(func() (string, error) { return s.url(databaseVariable, "postgres", localserver.StartPostgres) })
	s.redis = sync.OnceValues(func() (string, error) { return s.url(redisVariable, "redis", localserver.StartRedis) })
	return s
}

func (s *shared) url(variable, name string, start func(context.Context, localserver.Options) (*localserver.Server, error)) (string, error) {
	if url := os.Getenv(variable); url != "" {
		return url, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "headgate-test-")
		if err != nil {
			return "", fmt.Errorf("create test folder: %w", err)
		}
		s.dir = dir
	}
	server, err := start(context.Background(), localserver.Options{Dir: filepath.Join(s.dir, name), Log: io.Discard})
	if err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	s.started = append(s.started, server)
	return server.URL, nil
}

func (s *shared) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, server := range s.started {
		if err := server.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "testkit:", err)
		}
	}
	if s.dir != "" {
		if err := os.RemoveAll(s.dir); err != nil {
			fmt.Fprintln(os.Stderr, "testkit:", err)
		}
	}
}

// Log returns a logger that writes to the test's output.
func Log(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(w.end)
	return service.NewLogger(w, t.Name(), service.Common{LogLevel: "debug", LogFormat: "text"})
}

// testWriter discards output after the end of the test, when t.Log would panic.
type testWriter struct {
	t    testing.TB
	mu   sync.Mutex
	over bool
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.t.Logf("%s", bytes.TrimRight(b, "\n"))
	}
	return len(b), nil
}

func (w *testWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}

// Timeout is how long tests wait for what has to happen. It is no promise about how soon: on
// a machine that is busy with other things, all takes longer.
const Timeout = 2 * time.Minute

// Eventually waits until condition returns nil. After two minutes, it fails the test with
// the last error.
func Eventually(t testing.TB, condition func() error) {
	t.Helper()
	Within(t, Timeout, condition)
}

// Within is Eventually with another time, for a test in which something else happens later
// that would make the condition true as well.
func Within(t testing.TB, timeout time.Duration, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", timeout, err)
		}
		<-tick.C
	}
}
