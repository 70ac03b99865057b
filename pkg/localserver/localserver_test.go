package localserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/localserver"
)

const crashVariable = "LOCALSERVER_TEST_CRASH"

// TestMain runs the tests, or is an owner that starts both servers and crashes.
func TestMain(m *testing.M) {
	dir := os.Getenv(crashVariable)
	if dir == "" {
		os.Exit(m.Run())
	}
	for name, start := range starts {
		server, err := start(context.Background(), localserver.Options{Dir: filepath.Join(dir, name), Durable: true, Log: os.Stderr})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(server.Pid(), server.URL)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

var starts = map[string]func(context.Context, localserver.Options) (*localserver.Server, error){
	localserver.Postgres: localserver.StartPostgres,
	localserver.Redis:    localserver.StartRedis,
}

// clients put a value into a server and find it again.
var clients = map[string]struct {
	put func(ctx context.Context, url, key string) error
	has func(ctx context.Context, url, key string) error
}{
	localserver.Postgres: {
		put: func(ctx context.Context, url, key string) error { return query(ctx, url, "CREATE TABLE "+key+" ()") },
		has: func(ctx context.Context, url, key string) error { return query(ctx, url, "SELECT FROM "+key) },
	},
	localserver.Redis: {
		put: func(ctx context.Context, url, key string) error {
			return command(ctx, url, func(c *redis.Client) error { return c.Set(ctx, key, "x", 0).Err() })
		},
		has: func(ctx context.Context, url, key string) error {
			return command(ctx, url, func(c *redis.Client) error { return c.Get(ctx, key).Err() })
		},
	},
}

func query(ctx context.Context, url, sql string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

func command(_ context.Context, url string, f func(*redis.Client) error) error {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	client := redis.NewClient(opts)
	defer client.Close()
	return f(client)
}

func start(t *testing.T, name string, opts localserver.Options) *localserver.Server {
	t.Helper()
	server, err := starts[name](t.Context(), opts)
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() { stop(t, server) })
	return server
}

func stop(t *testing.T, server *localserver.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := server.Stop(ctx); err != nil {
		t.Errorf("Stop() = %v", err)
	}
}

// folder returns a new folder that every user can reach.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localserver-") //nolint:usetesting // No other user can reach t.TempDir.
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := localserver.Clean(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestDurableServerKeepsItsData(t *testing.T) {
	t.Parallel()
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := localserver.Options{Dir: filepath.Join(folder(t), name), Durable: true}
			first := start(t, name, opts)
			if err := client.put(t.Context(), first.URL, "kept"); err != nil {
				t.Fatalf("put: %v", err)
			}
			stop(t, first)

			opts.Port = first.Port
			second := start(t, name, opts)
			if second.URL != first.URL {
				t.Errorf("URL = %s, want %s as before", second.URL, first.URL)
			}
			if err := client.has(t.Context(), second.URL, "kept"); err != nil {
				t.Errorf("after a restart: %v", err)
			}
			for _, path := range []string{filepath.Join(opts.Dir, "password")} {
				info, err := os.Stat(path)
				if err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v, want mode 0600", path, info.Mode(), err)
				}
			}
		})
	}
}

func TestDurableServerAsksForItsPassword(t *testing.T) {
	t.Parallel()
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, name, localserver.Options{Dir: filepath.Join(folder(t), name), Durable: true})
			secret, _, _ := strings.Cut(server.URL[strings.Index(server.URL, "://")+3:], "@")
			_, secret, _ = strings.Cut(secret, ":")
			if err := client.put(t.Context(), strings.Replace(server.URL, secret, "wrong", 1), "x"); err == nil {
				t.Error("a wrong password was accepted")
			}
		})
	}
}

func TestServerTakesOverFromACrashedOwner(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := localserver.Options{Dir: filepath.Join(dir, name), Durable: true}
			left := start(t, name, opts) // Never stopped: nobody told it that its owner is gone.
			if err := client.put(t.Context(), left.URL, "kept"); err != nil {
				t.Fatalf("put: %v", err)
			}
			taken := start(t, name, opts)
			select {
			case <-left.Done():
			default:
				t.Error("the server of the earlier owner still runs")
			}
			if err := client.has(t.Context(), taken.URL, "kept"); err != nil {
				t.Errorf("after the take-over: %v", err)
			}
		})
	}
}

func TestServersDieWithTheirOwner(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), crashVariable+"="+dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err == nil || stdout.Len() == 0 {
		t.Fatalf("owner: %v\n%s", err, &stderr)
	}
	for line := range strings.Lines(stdout.String()) {
		pid, _, _ := strings.Cut(line, " ")
		id, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatalf("owner printed %q", line)
		}
		ends(t, id)
	}
	for name := range starts {
		start(t, name, localserver.Options{Dir: filepath.Join(dir, name), Durable: true})
	}
}

// ends waits until the process, which is nobody's child, is gone.
func ends(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for syscall.Kill(pid, 0) == nil {
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("process %d outlives its owner", pid)
			return
		}
	}
}

func TestKilledServerSaysSo(t *testing.T) {
	t.Parallel()
	for name := range starts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, name, localserver.Options{Dir: filepath.Join(folder(t), name)})
			server.Kill()
			if reason := server.Reason(); reason != "signal: killed" {
				t.Errorf("Reason() = %q, want signal: killed", reason)
			}
			if server.Err() == nil {
				t.Error("Err() = nil, want the signal")
			}
		})
	}
}

func TestTestServerLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// As root this folder is out of reach for the user who runs Postgres.
			private := t.TempDir()
			if err := os.Chmod(private, 0o700); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(private, name)
			server := start(t, name, localserver.Options{Dir: dir, Log: io.Discard})
			if err := client.put(t.Context(), server.URL, "x"); err != nil {
				t.Errorf("put: %v", err)
			}
			stop(t, server)
			if _, err := os.Stat(filepath.Join(dir, "data")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("data is still there: %v", err)
			}
			if info, err := os.Stat(private); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("mode of the parent = %v, %v, want it as it was", info.Mode(), err)
			}
		})
	}
}

func TestUnreachableFolderHasAStandIn(t *testing.T) {
	t.Parallel()
	private := t.TempDir()
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	opts := localserver.Options{Dir: filepath.Join(private, "postgres"), Durable: true}
	t.Cleanup(func() {
		if err := localserver.Clean(context.Background(), opts.Dir); err != nil {
			t.Error(err)
		}
	})
	first := start(t, localserver.Postgres, opts)
	if err := query(t.Context(), first.URL, "CREATE TABLE kept ()"); err != nil {
		t.Fatal(err)
	}
	stop(t, first)
	second := start(t, localserver.Postgres, opts)
	if err := query(t.Context(), second.URL, "SELECT FROM kept"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	t.Parallel()
	for name := range starts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			first := start(t, name, localserver.Options{Dir: filepath.Join(dir, "first")})
			_, err := starts[name](t.Context(), localserver.Options{Dir: filepath.Join(dir, "second"), Port: first.Port})
			if err == nil || !strings.Contains(err.Error(), "port is taken") {
				t.Errorf("start on a taken port = %v, want that it is taken", err)
			}
		})
	}
}

func TestTestRedisHasADatabaseForEachTest(t *testing.T) {
	t.Parallel()
	server := start(t, localserver.Redis, localserver.Options{Dir: folder(t)})
	last := strings.TrimSuffix(server.URL, "/0") + "/4095"
	if err := clients[localserver.Redis].put(t.Context(), last, "x"); err != nil {
		t.Errorf("put into %s: %v", last, err)
	}
}

// TestREL96RedisCLI is REL-96: redis-cli takes the URL of a server with a password as it is.
func TestREL96RedisCLI(t *testing.T) {
	t.Parallel()
	server := start(t, "redis", localserver.Options{Dir: filepath.Join(folder(t), "redis"), Durable: true})
	out, err := exec.CommandContext(t.Context(), "redis-cli", "-u", server.URL, "PING").Output()
	if err != nil || strings.TrimSpace(string(out)) != "PONG" {
		t.Errorf("redis-cli = %q, %v", out, err)
	}
}
