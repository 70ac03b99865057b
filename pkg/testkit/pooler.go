package testkit

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/localserver"
)

// The pool modes of PgBouncer.
const (
	SessionPooling     = "session"
	TransactionPooling = "transaction"
)

// Pooler is a PgBouncer in front of a database.
type Pooler struct {
	URL string // of the database, through the pooler

	t      testing.TB
	port   int
	config string
	cmd    *exec.Cmd
	log    *Buffer
}

// ThroughPoolers runs the test of a program with the address of an empty database: of Postgres
// itself, and of a PgBouncer in each mode.
func ThroughPoolers(t *testing.T, f func(t *testing.T, databaseURL string)) {
	t.Helper()
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, DatabaseURL(t))
	})
	for _, mode := range []string{SessionPooling, TransactionPooling} {
		t.Run(mode+" pooling", func(t *testing.T) {
			t.Parallel()
			f(t, StartPooler(t, DatabaseURL(t), mode).URL)
		})
	}
}

// StartPooler starts a PgBouncer in front of the database with the address. It has the
// defaults of PgBouncer but for the pool mode and the settings, such as
// "query_wait_timeout = 1". Every user and every name of a database lead to that database.
// The test stops the pooler when it ends.
func StartPooler(t testing.TB, address, mode string, settings ...string) *Pooler {
	t.Helper()
	server, err := url.Parse(address)
	if err != nil {
		t.Fatalf("read the address of the database: %v", err)
	}
	p := &Pooler{t: t, log: &Buffer{}}
	if p.port, err = localserver.FreePort(t.Context()); err != nil {
		t.Fatal(err)
	}
	password, _ := server.User.Password()
	lines := append([]string{
		"[databases]",
		fmt.Sprintf("* = host=%s port=%s user=%s password=%s dbname=%s", server.Hostname(), server.Port(), server.User.Username(), password, strings.TrimPrefix(server.Path, "/")),
		"[pgbouncer]",
		"listen_addr = 127.0.0.1", fmt.Sprintf("listen_port = %d", p.port), "unix_socket_dir =", "auth_type = any",
		"pool_mode = " + mode,
	}, settings...)
	p.config = filepath.Join(t.TempDir(), "pgbouncer.ini")
	if err := os.WriteFile(p.config, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil { //nolint:gosec // Another user reads it.
		t.Fatal(err)
	}
	through := *server
	through.Host = fmt.Sprintf("127.0.0.1:%d", p.port)
	p.URL = through.String()
	p.Start()
	t.Cleanup(p.Kill)
	return p
}

// Start starts the pooler, which must not be running, and returns when it accepts connections.
func (p *Pooler) Start() {
	p.t.Helper()
	program, err := findPgBouncer()
	if err != nil {
		p.t.Fatal(err)
	}
	args := []string{p.config}
	if os.Geteuid() == 0 { // PgBouncer refuses to run as root.
		args = append(args, "--user", "nobody")
	}
	p.cmd = exec.Command(program, args...) //nolint:gosec,noctx // Kill ends it.
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	Eventually(p.t, func() error {
		conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", p.port))
		if err != nil {
			return fmt.Errorf("%w\n%s", err, p.log)
		}
		return conn.Close()
	})
}

// Kill ends the pooler and cuts its connections. It may have ended before.
func (p *Pooler) Kill() {
	_ = p.cmd.Process.Kill() // It fails if the process has ended.
	_ = p.cmd.Wait()         // So does this.
}

// findPgBouncer returns the path of PgBouncer, which Debian does not install on the PATH of
// every user.
func findPgBouncer() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("pgbouncer is %w: apt install pgbouncer", localserver.ErrNotInstalled)
}
