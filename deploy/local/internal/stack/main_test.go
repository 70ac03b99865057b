package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestMain runs as one of the services or as the launcher, if the binary has its name.
func TestMain(m *testing.M) {
	name := filepath.Base(os.Args[0])
	for _, svc := range services {
		if svc.name == name {
			exit(fakeService(svc))
		}
	}
	if name == "local" {
		exit(testLauncher())
	}
	os.Exit(m.Run())
}

func testLauncher() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	dir := os.Getenv("TEST_DIR")
	cfg := Config{Dir: dir, Root: dir, Bin: filepath.Dir(os.Args[0]), Environ: os.Environ(), Out: os.Stdout}
	return Up(ctx, context.Background(), cfg)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fakeService does what the launcher expects of a service: it opens its database, listens on
// its addresses, and ends after SIGTERM.
func fakeService(svc service) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if os.Getenv("TEST_BROKEN") == svc.name {
		return errors.New("check config: TOKEN_SECRET: want 32 bytes")
	}
	if svc.database != "" {
		conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
		if err != nil {
			return fmt.Errorf("open database: %w", err)
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if _, err := conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS kept (at timestamptz)"); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
	}
	public := http.NewServeMux()
	public.HandleFunc("GET /env/{name}", func(w http.ResponseWriter, r *http.Request) {
		value, ok := os.LookupEnv(r.PathValue("name"))
		if !ok {
			http.Error(w, "not set", http.StatusNotFound)
			return
		}
		fmt.Fprint(w, value)
	})
	var asked atomic.Int64
	public.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		status := "ok"
		if asked.Add(1) < 3 { // A gateway sees the services a moment after it began to listen.
			status = "degraded"
		}
		fmt.Fprintf(w, `{"success":true,"data":{"status":%q}}`, status)
	})
	ops := http.NewServeMux()
	ops.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	for addr, handler := range map[string]http.Handler{os.Getenv("HTTP_ADDR"): public, os.Getenv("OPS_ADDR"): ops} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
		defer server.Close()
		go func() { _ = server.Serve(listener) }()
	}
	fmt.Println("listening on", os.Getenv("HTTP_ADDR"))
	<-ctx.Done()
	fmt.Println("drained")
	return nil
}
