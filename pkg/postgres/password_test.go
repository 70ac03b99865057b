package postgres_test

import (
	"context"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestDatabasePassword: DATABASE_PASSWORD is sent as it is, whatever characters it has and in
// whichever form the address is, and also to DATABASE_DIRECT_URL. It replaces a password in the
// address.
func TestDatabasePassword(t *testing.T) {
	t.Parallel()
	at := startAskingServer(t)
	conn, err := pgx.Connect(t.Context(), at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	run := func(format, password string) {
		t.Helper()
		var statement string
		if err := conn.QueryRow(t.Context(), `SELECT format($1, $2::text)`, format, password).Scan(&statement); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	run(`CREATE ROLE app LOGIN SUPERUSER PASSWORD %L`, "first")
	open := func(cfg postgres.Database) error {
		cfg.DatabaseMaxConns = 2
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // Open waits for a server that refuses.
		defer cancel()
		pool, err := postgres.Open(ctx, cfg, testkit.Log(t))
		if err == nil {
			pool.Close()
		}
		return err
	}
	bare := url.URL{Scheme: "postgres", User: url.User("app"), Host: at.Host, Path: at.Path, RawQuery: "sslmode=disable"}
	wrong := bare
	wrong.User = url.UserPassword("app", "wrong")
	pairs := "host=" + at.Hostname() + " port=" + at.Port() + " user=app dbname=postgres sslmode=disable"
	for _, password := range testkit.SpecialPasswords {
		run(`ALTER ROLE app PASSWORD %L`, password)
		for form, cfg := range map[string]postgres.Database{
			"URL":                   {DatabaseURL: service.Secret(bare.String())},
			"key=value":             {DatabaseURL: service.Secret(pairs)},
			"two hosts":             {DatabaseURL: service.Secret(strings.Replace(bare.String(), "@", "@127.0.0.1:1,", 1))},
			"password in the URL":   {DatabaseURL: service.Secret(wrong.String())},
			"password in the pairs": {DatabaseURL: service.Secret(pairs + " password=wrong")},
			"direct URL":            {DatabaseURL: service.Secret(bare.String()), DatabaseDirectURL: service.Secret(wrong.String())},
		} {
			cfg.DatabasePassword = service.Secret(password)
			if err := open(cfg); err != nil {
				t.Errorf("%s with DATABASE_PASSWORD=%s: %v", form, password, err)
			}
		}
	}
	// This server does ask.
	if refused, err := pgx.Connect(t.Context(), wrong.String()); err == nil {
		refused.Close(t.Context())
		t.Errorf("Connect(%s) = nil, want a refused password", wrong.String())
	}
}

// startAskingServer returns the address of a new server that asks for passwords, which the
// shared one does not.
func startAskingServer(t *testing.T) *url.URL {
	t.Helper()
	dir, err := os.MkdirTemp("", "password-") //nolint:usetesting // The account of Postgres cannot reach t.TempDir.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := localserver.Clean(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	server, err := localserver.StartPostgres(t.Context(), localserver.Options{Dir: dir, Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return at
}
