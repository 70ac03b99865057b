package store_test

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/localserver/child"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// TestGenerationWithSentinel is REL-43: a new connection to a Sentinel changes nothing. One to
// a Redis process that is not the master, such as a replica, makes the generation unknown
// until the next Refresh, and no line says that it has changed.
func TestGenerationWithSentinel(t *testing.T) {
	t.Parallel()
	var log testkit.Buffer
	generation := store.NewGeneration(testkit.Database(t), slog.New(slog.NewTextHandler(&log, nil)))
	open := func(url string) redis.UniversalClient {
		client, err := bus.Redis{RedisURL: service.Secret(url)}.OpenWith(time.Second, generation.Connected)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		if err := client.Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		return client
	}
	refresh := func(client redis.UniversalClient) string {
		if err := generation.Refresh(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		return generation.Current()
	}
	sentinelURL := startSentinel(t)
	client := open(sentinelURL)
	first := refresh(client)
	open(sentinelURL)
	if got := generation.Current(); got != first || first == "" {
		t.Errorf("after another connection to the Sentinel the generation is %q, want %q", got, first)
	}
	open(testkit.RedisURL(t))
	if got := generation.Current(); got != "" {
		t.Errorf("after a connection to another process the generation is %q, want it unknown", got)
	}
	if got := refresh(client); got != first {
		t.Errorf("the generation is %q, want %q", got, first)
	}
	if n := strings.Count(log.String(), "cache generation changed"); n != 1 {
		t.Errorf("%d lines say that the generation changed, want 1:\n%s", n, log.String())
	}
}

// startSentinel starts a master and a Sentinel, and returns the URL for both.
func startSentinel(t *testing.T) (url string) {
	t.Helper()
	master := startServer(t)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("bind 127.0.0.1\nsentinel monitor main 127.0.0.1 %d 1\n", master)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("redis://127.0.0.1:%d?master_name=main", startServer(t, conf, "--sentinel"))
}

// startServer starts redis-server with the arguments on a free port.
func startServer(t *testing.T, args ...string) (port int) {
	t.Helper()
	binary, err := localserver.FindRedis("")
	if err != nil {
		t.Fatal(err)
	}
	if port, err = localserver.FreePort(t.Context()); err != nil {
		t.Fatal(err)
	}
	args = append(args, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", t.TempDir())
	process, err := child.Start(exec.Command(binary, args...), child.Signals{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Kill)
	admin := redis.NewClient(&redis.Options{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))})
	defer admin.Close()
	testkit.Eventually(t, func() error { return admin.Ping(t.Context()).Err() })
	return port
}
