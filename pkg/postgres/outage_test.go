package postgres_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestOutageLog is REL-75: while the database is stopped, its pool logs one line, however
// many queries fail, and one when the database is back.
func TestOutageLog(t *testing.T) {
	t.Parallel()
	options := localserver.Options{Dir: filepath.Join(t.TempDir(), "postgres"), Durable: true}
	server, err := localserver.StartPostgres(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Stop(t.Context()) }()
	log := &testkit.Buffer{}
	cfg := postgres.Database{DatabaseURL: service.Secret(server.URL), DatabaseMaxConns: 4}
	db, err := postgres.Open(t.Context(), cfg, slog.New(slog.NewTextHandler(log, nil)), schema)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	before := log.Count("level=")
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	away := time.NewTimer(3 * time.Second)
	var clients sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := db.Exec(t.Context(), `SELECT 1`); err != nil && !postgres.Disconnected(err) {
					t.Errorf("Disconnected(%v) = false", err)
				}
			}
		})
	}
	<-away.C
	if n := log.Count("level=") - before; n != 1 || !strings.Contains(log.String(), "database is unavailable") {
		t.Errorf("%d lines during the outage, want 1:\n%s", n, log)
	}
	options.Port = server.Port
	if server, err = localserver.StartPostgres(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error {
		if !strings.Contains(log.String(), "database is available again") {
			return errors.New("no line says that the database is available again")
		}
		return nil
	})
	close(done)
	clients.Wait()
	if n := log.Count("level=") - before; n != 2 {
		t.Errorf("%d lines, want 2:\n%s", n, log)
	}
}
