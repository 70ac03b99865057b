package localserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/localserver/child"
)

// Postgres and Redis are the names of the servers for Install and Missing.
const (
	Postgres = "postgres"
	Redis    = "redis"
)

const (
	superuser       = "postgres"
	postgresPidFile = "postmaster.pid"
)

// StartPostgres starts a Postgres server and returns when it accepts connections.
// The error wraps ErrNotInstalled if no program was found for it.
func StartPostgres(ctx context.Context, opts Options) (*Server, error) {
	c := &cluster{opts: opts}
	server, err := c.start(ctx)
	if err != nil && !opts.Durable && c.data != "" {
		err = errors.Join(err, os.RemoveAll(filepath.Dir(c.data)))
	}
	return server, err
}

// StartReplica starts a streaming replica of a server that is not Durable, and returns when it
// accepts queries. Its data is copied if opts.Dir has none.
func StartReplica(ctx context.Context, opts Options, primary *Server) (*Server, error) {
	c := &cluster{opts: opts, primary: primary.URL}
	server, err := c.start(ctx)
	if err != nil && c.data != "" {
		err = errors.Join(err, os.RemoveAll(filepath.Dir(c.data)))
	}
	return server, err
}

// cluster is a data folder of Postgres.
type cluster struct {
	opts     Options
	primary  string // of which it is a replica; empty if it is none
	binaries postgresBinaries
	data     string
	owner    *account
	password string
}

func (c *cluster) start(ctx context.Context) (*Server, error) {
	if err := c.prepare(ctx); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	server, err := start(ctx, "postgres", c.opts, c.launch)
	if err != nil {
		return nil, err
	}
	server.URL = c.url(server.Port)
	if !c.opts.Durable {
		server.discard = filepath.Dir(c.data)
	}
	return server, nil
}

// prepare finds or creates the data, and finds the binaries that match it.
func (c *cluster) prepare(ctx context.Context) (err error) {
	if c.opts.Dir, err = filepath.Abs(c.opts.Dir); err != nil {
		return fmt.Errorf("resolve data folder: %w", err)
	}
	if c.binaries, err = findPostgres(c.opts.Bin, 0); err != nil {
		return err
	}
	folder, owner, err := postgresFolder(ctx, c.opts, c.binaries.path("initdb"))
	if err != nil {
		return err
	}
	c.data, c.owner = filepath.Join(folder, clusterName), owner
	if c.opts.Durable {
		if c.password, err = password(filepath.Join(c.opts.Dir, "password")); err != nil {
			return err
		}
	}
	major, err := majorOf(c.data)
	if err != nil {
		return err
	}
	switch {
	case major == 0 && c.primary != "":
		return c.copyPrimary(ctx)
	case major == 0:
		return c.init(ctx)
	}
	if c.binaries, err = findPostgres(c.opts.Bin, major); err != nil {
		return err
	}
	return stopOrphan(ctx, c.opts, c.data, postgresPidFile, syscall.SIGINT)
}

// init creates the cluster in a draft folder and renames it, so that a crash leaves
// either no cluster or a complete one.
func (c *cluster) init(ctx context.Context) error {
	draft := filepath.Join(filepath.Dir(c.data), "draft")
	args := []string{"--pgdata", draft, "--username", superuser, "--encoding", "UTF8"}
	if c.opts.Durable {
		secret := filepath.Join(filepath.Dir(c.data), "password")
		defer os.Remove(secret) // The one for clients is in Options.Dir.
		if err := errors.Join(writeAtomically(secret, c.password+"\n"), c.owner.own(secret)); err != nil {
			return fmt.Errorf("write password for initdb: %w", err)
		}
		args = append(args, "--auth", "scram-sha-256", "--pwfile", secret)
	} else {
		args = append(args, "--auth", "trust", "--no-sync")
	}
	// UTF-8 as in the official image; the plain C locale where the system has none.
	var err error
	for _, locale := range []string{utf8Locale(), "C"} {
		if err := os.RemoveAll(draft); err != nil {
			return fmt.Errorf("remove draft: %w", err)
		}
		if err = c.initdb(ctx, append(args, "--locale", locale)); err == nil {
			return os.Rename(draft, c.data)
		}
	}
	return err
}

func utf8Locale() string {
	if runtime.GOOS == "darwin" {
		return "en_US.UTF-8"
	}
	return "C.UTF-8"
}

func (c *cluster) initdb(ctx context.Context, args []string) error {
	return c.create(ctx, "initdb", args)
}

// copyPrimary creates the cluster as a replica, as init does.
func (c *cluster) copyPrimary(ctx context.Context) error {
	draft := filepath.Join(filepath.Dir(c.data), "draft")
	if err := os.RemoveAll(draft); err != nil {
		return fmt.Errorf("remove draft: %w", err)
	}
	if err := c.create(ctx, "pg_basebackup", []string{"--dbname", c.primary, "--pgdata", draft, "--write-recovery-conf", "--checkpoint", "fast", "--no-sync"}); err != nil {
		return err
	}
	return os.Rename(draft, c.data)
}

// create runs a program that creates data.
func (c *cluster) create(ctx context.Context, program string, args []string) error {
	cmd := exec.CommandContext(ctx, c.binaries.path(program), args...) //nolint:gosec // A binary found above.
	cmd.Dir = filepath.Dir(c.data)
	c.owner.drop(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("create data with %s: %w: %s", program, err, out)
	}
	return nil
}

// launch starts the server on the port.
func (c *cluster) launch(_ context.Context, port int) (attempt, error) {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(port),
		"unix_socket_directories": "", // The path of a socket has a low limit, which a project folder can exceed.
		"max_connections":         "300",
		"logging_collector":       "off",
		"log_destination":         "stderr",
		"timezone":                "UTC",
		"lc_messages":             "C",
	}
	if !c.opts.Durable {
		settings["fsync"] = "off"
		settings["synchronous_commit"] = "off"
		settings["full_page_writes"] = "off"
	}
	args := []string{"-D", c.data}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	a := attempt{output: &tail{next: orDiscard(c.opts.Output)}, probe: func(ctx context.Context) error { return c.probe(ctx, port) }}
	cmd := exec.Command(c.binaries.path("postgres"), args...) //nolint:gosec,noctx // The binary found above; Stop ends it.
	cmd.Dir = c.data
	cmd.Stdout, cmd.Stderr = a.output, a.output
	c.owner.drop(cmd)
	var err error
	a.process, err = child.Start(cmd, child.Signals{Stop: syscall.SIGINT, Orphan: syscall.SIGINT})
	return a, err
}

func (c *cluster) url(port int) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Host: "127.0.0.1:" + strconv.Itoa(port), Path: "/postgres", RawQuery: "sslmode=disable"}
	if c.password != "" {
		u.User = url.UserPassword(superuser, c.password)
	}
	return u.String()
}

func (c *cluster) probe(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.url(port))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var data string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&data); err != nil {
		return err
	}
	if data != c.data {
		return fmt.Errorf("%w: another server answers, with the data in %s", errPortTaken, data)
	}
	return nil
}
