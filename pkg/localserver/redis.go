package localserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/headgate/headgate/pkg/localserver/child"
)

const redisPidFile = "redis.pid"

// StartRedis starts a Redis server and returns when it answers. Without
// Options.Durable it has 4096 databases, so that each test can have its own. The
// error wraps ErrNotInstalled if no program was found for it.
func StartRedis(ctx context.Context, opts Options) (*Server, error) {
	r, err := prepareRedis(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	server, err := start(ctx, "redis", opts, r.launch)
	if err != nil {
		return nil, err
	}
	server.URL = r.url(server.Port)
	if !opts.Durable {
		server.discard = r.data
	}
	return server, nil
}

// store is a data folder of Redis.
type store struct {
	opts         Options
	binary, data string
	password     string
}

func prepareRedis(ctx context.Context, opts Options) (*store, error) {
	binary, err := FindRedis(opts.Bin)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolve data folder: %w", err)
	}
	r := &store{opts: opts, binary: binary, data: filepath.Join(dir, "data")}
	if err := os.MkdirAll(r.data, 0o700); err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	if opts.Durable {
		if r.password, err = password(filepath.Join(dir, "password")); err != nil {
			return nil, err
		}
	}
	return r, stopOrphan(ctx, opts, r.data, redisPidFile, syscall.SIGTERM)
}

// launch starts the server on the port. It passes the configuration through standard
// input, because every user of the machine can read arguments.
func (r *store) launch(_ context.Context, port int) (attempt, error) {
	a := attempt{output: &tail{next: orDiscard(r.opts.Output)}}
	cmd := exec.Command(r.binary, "-") //nolint:gosec,noctx // The binary found above; Stop ends it.
	cmd.Dir = r.data
	cmd.Stdin = strings.NewReader(r.config(port))
	cmd.Stdout, cmd.Stderr = a.output, a.output
	process, err := child.Start(cmd, child.Signals{Orphan: syscall.SIGTERM})
	a.process = process
	a.probe = func(ctx context.Context) error { return r.probe(ctx, port, process.Pid()) }
	return a, err
}

func (r *store) config(port int) string {
	lines := []string{
		"bind 127.0.0.1",
		"port " + strconv.Itoa(port),
		"pidfile " + redisPidFile,
		"daemonize no",
		"tcp-backlog 128",
		`save ""`,
	}
	if r.opts.Durable {
		lines = append(lines,
			"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction",
			"requirepass "+r.password)
	} else {
		lines = append(lines, "appendonly no", "databases 4096")
	}
	return strings.Join(lines, "\n") + "\n"
}

func (r *store) url(port int) string {
	u := url.URL{Scheme: "redis", Host: "127.0.0.1:" + strconv.Itoa(port), Path: "/0"}
	if r.password != "" {
		u.User = url.UserPassword("default", r.password) // redis-cli needs a user name
	}
	return u.String()
}

// probe checks that the server answers PING, which fails while it loads its data, and
// that it has the expected process id.
func (r *store) probe(ctx context.Context, port, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline() // It was set above.
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	request := "PING\r\nINFO server\r\nQUIT\r\n"
	if r.password != "" {
		request = "AUTH " + r.password + "\r\n" + request
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return err
	}
	return expectPid(bufio.NewScanner(conn), pid)
}

func expectPid(lines *bufio.Scanner, pid int) error {
	for lines.Scan() {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "-"):
			return errors.New(line)
		case strings.HasPrefix(line, "process_id:"):
			if line != "process_id:"+strconv.Itoa(pid) {
				return fmt.Errorf("%w: another server answers, with %s", errPortTaken, line)
			}
			return nil
		}
	}
	return errors.Join(errors.New("no answer from the server"), lines.Err())
}
