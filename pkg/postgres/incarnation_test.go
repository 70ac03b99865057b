package postgres_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/postgres"
)

// TestIncarnationSQL: all sessions agree on the value whatever their settings are. It
// changes when the database is created again, and when the server restarts.
func TestIncarnationSQL(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "incarnation-") //nolint:usetesting // No other user can reach t.TempDir.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := localserver.Clean(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	opts := localserver.Options{Dir: filepath.Join(dir, "postgres"), Durable: true}
	server := startPostgres(t, opts)
	url := server.URL
	run := func(statements ...string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		for _, statement := range statements {
			if _, err := conn.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
	}
	incarnation := func(role string, settings ...string) string {
		t.Helper()
		cfg, err := pgx.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Database = "restored"
		conn, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		for _, setting := range append(settings, "SET ROLE "+role) {
			if _, err := conn.Exec(t.Context(), setting); err != nil {
				t.Fatalf("%s: %v", setting, err)
			}
		}
		var value string
		if err := conn.QueryRow(t.Context(), `SELECT `+postgres.IncarnationSQL).Scan(&value); err != nil {
			t.Fatal(err)
		}
		return value
	}

	run(`CREATE ROLE plain`, `CREATE DATABASE restored`)
	first := incarnation("postgres")
	if again := incarnation("plain", "SET timezone = 'Asia/Kolkata'", "SET datestyle = 'SQL, DMY'", "SET search_path = ''"); again != first || first == "" {
		t.Errorf("another session reads %q, want %q", again, first)
	}
	run(`DROP DATABASE restored`, `CREATE DATABASE restored`)
	created := incarnation("postgres")
	if created == first {
		t.Errorf("the value %q survived DROP DATABASE", created)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	url = startPostgres(t, opts).URL
	if restarted := incarnation("postgres"); restarted == created {
		t.Errorf("the value %q survived a restart", restarted)
	}
}

func startPostgres(t *testing.T, opts localserver.Options) *localserver.Server {
	t.Helper()
	server, err := localserver.StartPostgres(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server
}
