package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/testkit/localserver"
)

// startRedis starts a server with the arguments, on a free port, until the test
// ends or stop is called.
func startRedis(t *testing.T, args ...string) (port int, stop func()) {
	t.Helper()
	port = freePort(t)
	binary, err := localserver.FindRedis("")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(binary, append(args, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--save", "")...)
	if len(args) > 0 && strings.HasSuffix(args[0], ".conf") {
		cmd = exec.Command(binary, append(args, "--port", strconv.Itoa(port), "--dir", dir)...)
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // It was killed.
		if t.Failed() {
			t.Logf("redis-server on port %d said:\n%s", port, &output)
		}
	})
	t.Cleanup(stop)
	admin := redis.NewClient(&redis.Options{Addr: address(port)})
	defer admin.Close()
	testkit.Eventually(t, 10*time.Second, func() error { return admin.Ping(t.Context()).Err() })
	return port, stop
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := localserver.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// do runs a command on one server.
func do(t *testing.T, port int, args ...any) error {
	t.Helper()
	admin := redis.NewClient(&redis.Options{Addr: address(port)})
	defer admin.Close()
	return admin.Do(t.Context(), args...).Err()
}

// TestCluster publishes and consumes on three masters.
func TestCluster(t *testing.T) {
	t.Parallel()
	ports, busPorts := make([]int, 3), make([]int, 3)
	for i := range ports {
		// By itself Redis takes port+10000, which may belong to somebody's
		// outgoing connection.
		busPorts[i] = freePort(t)
		ports[i], _ = startRedis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(busPorts[i]), "--cluster-node-timeout", "2000")
	}
	bounds := []int{0, 5461, 10923, 16384}
	for i, port := range ports {
		if err := do(t, port, "CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i+1]-1); err != nil {
			t.Fatal(err)
		}
		if err := do(t, ports[0], "CLUSTER", "MEET", "127.0.0.1", port, busPorts[i]); err != nil {
			t.Fatal(err)
		}
	}
	client := testkit.OpenRedis(t, "redis://"+address(ports[0])+"?addr="+address(ports[1]), time.Second)
	testkit.Eventually(t, 20*time.Second, func() error {
		for _, port := range ports {
			admin := redis.NewClient(&redis.Options{Addr: address(port)})
			info, err := admin.ClusterInfo(t.Context()).Result()
			admin.Close()
			if err != nil || !strings.Contains(info, "cluster_state:ok") {
				return fmt.Errorf("%s: %w", info, err)
			}
		}
		return nil
	})
	f := newFixture(t, client)
	f.consume("a", nil, func(cfg *bus.SubscriberConfig) { cfg.MaintenanceInterval = 50 * time.Millisecond })
	for range 20 {
		m := newMessage(t, event.UserLoggedIn{})
		f.publish(m)
		f.wantSeen(m)
	}
	f.wantNothingPending()
	if _, err := bus.CaughtUp(t.Context(), client, string(event.Audit), "test"); err != nil {
		t.Error(err)
	}
}

// TestFailover is REL-07: the master dies, Sentinel promotes its replica, and
// the consumer goes on there.
func TestFailover(t *testing.T) {
	t.Parallel()
	master, kill := startRedis(t)
	replica, _ := startRedis(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master))
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("bind 127.0.0.1\nsentinel monitor main 127.0.0.1 %d 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n", master)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel, _ := startRedis(t, conf, "--sentinel")
	client := testkit.OpenRedis(t, "redis://"+address(sentinel)+"?master_name=main", time.Second)
	f := newFixture(t, client)
	f.consume("a", nil)
	first := newMessage(t, event.UserLoggedIn{})
	testkit.Eventually(t, 20*time.Second, func() error {
		return bus.NewPublisher(client).Publish(string(event.Audit), first)
	})
	f.wantSeen(first)
	testkit.Eventually(t, 20*time.Second, func() error {
		admin := redis.NewClient(&redis.Options{Addr: address(replica)})
		defer admin.Close()
		info, err := admin.Info(t.Context(), "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = fmt.Errorf("the replica has not caught up: %s", info)
		}
		return err
	})
	kill()
	second := newMessage(t, event.UserLoggedIn{})
	testkit.Eventually(t, 40*time.Second, func() error {
		return bus.NewPublisher(client).Publish(string(event.Audit), second)
	})
	f.wantSeen(second)
}

// hole is a proxy whose connections can fall silent.
type hole struct {
	address string
	target  string

	mu     sync.Mutex
	silent context.Context
	fall   context.CancelFunc
}

func newHole(t *testing.T, target string) *hole {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hole{address: listener.Addr().String(), target: target}
	h.silent, h.fall = context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { h.serve(t, conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		h.fall()
		running.Wait()
	})
	return h
}

func (h *hole) serve(t *testing.T, client net.Conn) {
	t.Helper()
	defer client.Close()
	h.mu.Lock()
	silent := h.silent
	h.mu.Unlock()
	server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", h.target)
	if err != nil {
		return
	}
	defer server.Close()
	// When it falls silent, neither side is told: both stay open for the test.
	go func() {
		<-silent.Done()
		_ = server.SetDeadline(time.Now())
	}()
	go io.Copy(server, client) //nolint:errcheck // It ends with the connections.
	_, _ = io.Copy(client, server)
	<-t.Context().Done()
}

// swallow makes the connections that exist fall silent; new ones work.
func (h *hole) swallow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fall()
	h.silent, h.fall = context.WithCancel(context.Background())
}

// TestSilentConnection is trap T9: a connection that is dropped without a word
// is noticed within 15 s.
func TestSilentConnection(t *testing.T) {
	t.Parallel()
	port, _ := startRedis(t)
	proxy := newHole(t, address(port))
	direct := testkit.OpenRedis(t, "redis://"+address(port), time.Second)
	through := testkit.OpenRedis(t, "redis://"+proxy.address, bus.EventTimeout)
	f := newFixture(t, through)
	consumer := f.consume("a", nil)
	defer consumer.Stop()
	first := newMessage(t, event.UserLoggedIn{})
	f.publish(first)
	f.wantSeen(first)
	proxy.swallow()
	start := time.Now()
	second := newMessage(t, event.UserLoggedIn{})
	if err := bus.NewPublisher(direct).Publish(string(event.Audit), second); err != nil {
		t.Fatal(err)
	}
	f.wantSeen(second)
	t.Logf("noticed after %s", time.Since(start))
}

// TestRedisURL reads the three dialects and shows none of them in errors.
func TestRedisURL(t *testing.T) {
	t.Parallel()
	for url, good := range map[string]bool{
		"redis://u:geheim@h:6379/1": true, "rediss://h": true, "redis://h:1?addr=h2:2": true,
		"redis://h:26379?master_name=main&addr=h2:26379": true,
		"http://geheim": false, "redis://h:1?master_name=": false, "redis://h/geheim": false, "geheim": false, "": false,
		"redis://h?addr=h2&geheim=1": false,
	} {
		err := bus.Redis{RedisURL: service.Secret(url)}.Validate()
		if good != (err == nil) || err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("Validate(%q) = %v", url, err)
		}
	}
}
