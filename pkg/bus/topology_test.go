package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
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
			t.Logf("output of redis-server on port %d:\n%s", port, &output)
		}
	})
	t.Cleanup(stop)
	admin := redis.NewClient(&redis.Options{Addr: address(port)})
	defer admin.Close()
	testkit.Eventually(t, func() error { return admin.Ping(t.Context()).Err() })
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

// cluster is a Redis Cluster of three masters.
type cluster struct {
	client redis.UniversalClient
	ports  []int
	stop   []func()
}

func startCluster(t *testing.T, timeout time.Duration, args ...string) *cluster {
	t.Helper()
	c := &cluster{ports: make([]int, 3), stop: make([]func(), 3)}
	busPorts := make([]int, 3)
	for i := range c.ports {
		// The default is port+10000, which an outgoing connection may be using.
		busPorts[i] = freePort(t)
		c.ports[i], c.stop[i] = startRedis(t, append([]string{"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(busPorts[i]), "--cluster-node-timeout", "2000"}, args...)...)
	}
	bounds := []int{0, 5461, 10923, 16384}
	for i, port := range c.ports {
		if err := do(t, port, "CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i+1]-1); err != nil {
			t.Fatal(err)
		}
		if err := do(t, c.ports[0], "CLUSTER", "MEET", "127.0.0.1", port, busPorts[i]); err != nil {
			t.Fatal(err)
		}
	}
	c.client = testkit.OpenRedis(t, "redis://"+address(c.ports[0])+"?addr="+address(c.ports[1]), timeout)
	testkit.Eventually(t, func() error {
		for _, port := range c.ports {
			admin := redis.NewClient(&redis.Options{Addr: address(port)})
			info, err := admin.ClusterInfo(t.Context()).Result()
			admin.Close()
			if err != nil || !strings.Contains(info, "cluster_state:ok") {
				return fmt.Errorf("%s: %w", info, err)
			}
		}
		return nil
	})
	return c
}

// TestClusterShardDown is REL-45: while the shard of one stream is dead or does not
// answer, the relay publishes the events of the streams on the other shards.
func TestClusterShardDown(t *testing.T) {
	t.Parallel()
	const waiting, shard = 600, 1 // email-events has slot 7608, audit-events 1729
	for name, fault := range map[string]func(*testing.T, *cluster){
		"dead": func(_ *testing.T, c *cluster) { c.stop[shard]() },
		"no answer": func(t *testing.T, c *cluster) {
			t.Helper()
			if err := do(t, c.ports[shard], "CLIENT", "PAUSE", "45000", "ALL"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, bus.EventTimeout, "--cluster-require-full-coverage", "no")
			log := &testkit.Buffer{}
			bus.LogOutages(c.client, slog.New(slog.NewTextHandler(log, nil)))
			db := testkit.Database(t, outbox.Schema())
			epochs := outbox.NewEpochs(db, c.client, "test", testkit.Log(t), prometheus.NewRegistry())
			testkit.Run(t, outbox.NewRelay(db, bus.NewPublisher(c.client), epochs, testkit.Log(t), prometheus.NewRegistry()))
			add := func(n int, topic event.Topic) {
				t.Helper()
				e := testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{})
				e.Topics = []event.Topic{topic}
				err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
					for range n {
						e.ID = ""
						if err := outbox.New("test").Add(t.Context(), tx, e); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			want := func(within time.Duration, topic event.Topic, n int64) {
				t.Helper()
				testkit.Within(t, within, func() error {
					if got, err := c.client.XLen(t.Context(), string(topic)).Result(); err != nil || got != n {
						return fmt.Errorf("%s has %d entries, want %d: %w", topic, got, n, err)
					}
					return nil
				})
			}
			add(1, event.Email)
			want(testkit.Timeout, event.Email, 1)
			fault(t, c)
			add(waiting, event.Email)
			for n := range int64(5) {
				add(1, event.Audit)
				want(15*time.Second, event.Audit, n+1)
			}
			if name == "no answer" {
				want(testkit.Timeout, event.Email, waiting+1)
				testkit.Eventually(t, func() error {
					if err := c.client.XLen(t.Context(), string(event.Email)).Err(); err != nil || log.Count("level=") != 2 || log.Count("available again") != 1 {
						return fmt.Errorf("log = %s, want a line at the beginning and one at the end: %w", log, err)
					}
					return nil
				})
				return
			}
			// The relay retries every five seconds, and commands to others succeed meanwhile.
			for range 12 {
				pause := time.NewTimer(2500 * time.Millisecond)
				<-pause.C
				if err := c.client.XLen(t.Context(), string(event.Audit)).Err(); err != nil {
					t.Errorf("XLEN of another shard = %v", err)
				}
			}
			if err := c.client.XLen(t.Context(), string(event.Email)).Err(); !errors.Is(err, bus.ErrUnavailable) {
				t.Errorf("XLEN of the dead shard = %v, want ErrUnavailable", err)
			}
			if log.Count("level=") != 1 {
				t.Errorf("log = %s, want one line", log)
			}
		})
	}
}

// TestCluster publishes and consumes on three masters.
func TestCluster(t *testing.T) {
	t.Parallel()
	client := startCluster(t, time.Second).client
	f := newFixture(t, client)
	f.consume("a", nil, func(cfg *bus.SubscriberConfig) { cfg.MaintenanceInterval = 50 * time.Millisecond })
	for range 20 {
		m := newMessage(t, event.UserLoggedIn{})
		f.publish(m)
		f.wantSeen(m)
	}
	f.wantNothingPending()
	position, err := bus.GroupPosition(t.Context(), client, string(event.Audit), "test")
	if err != nil || !position.Exists() {
		t.Errorf("position = %+v, %v", position, err)
	}
}

// TestFailover is REL-07: the master dies, Sentinel promotes its replica, and the
// consumer continues on the replica.
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
	testkit.Eventually(t, func() error {
		return bus.NewPublisher(client).Publish(string(event.Audit), first)
	})
	f.wantSeen(first)
	testkit.Eventually(t, func() error {
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
	testkit.Eventually(t, func() error {
		return bus.NewPublisher(client).Publish(string(event.Audit), second)
	})
	f.wantSeen(second)
}

// silentProxy is a proxy whose connections can go silent without being closed.
type silentProxy struct {
	address string
	target  string

	mu      sync.Mutex
	silent  context.Context
	silence context.CancelFunc
}

func newSilentProxy(t *testing.T, target string) *silentProxy {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &silentProxy{address: listener.Addr().String(), target: target}
	p.silent, p.silence = context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { p.serve(t, conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.silence()
		running.Wait()
	})
	return p
}

func (p *silentProxy) serve(t *testing.T, client net.Conn) {
	t.Helper()
	defer client.Close()
	p.mu.Lock()
	silent := p.silent
	p.mu.Unlock()
	server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	// Once the proxy is silent, both connections stay open until the test ends.
	go func() {
		<-silent.Done()
		_ = server.SetDeadline(time.Now())
	}()
	go io.Copy(server, client) //nolint:errcheck // It ends with the connections.
	_, _ = io.Copy(client, server)
	<-t.Context().Done()
}

// silenceExisting silences the existing connections; new ones work.
func (p *silentProxy) silenceExisting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silence()
	p.silent, p.silence = context.WithCancel(context.Background())
}

// TestSilentConnection: a connection that goes silent without being closed is
// detected within 15 s. Without a read deadline, XREADGROUP would wait for ever.
func TestSilentConnection(t *testing.T) {
	t.Parallel()
	port, _ := startRedis(t)
	proxy := newSilentProxy(t, address(port))
	direct := testkit.OpenRedis(t, "redis://"+address(port), time.Second)
	through := testkit.OpenRedis(t, "redis://"+proxy.address, bus.EventTimeout)
	f := newFixture(t, through)
	consumer := f.consume("a", nil)
	defer consumer.Stop()
	first := newMessage(t, event.UserLoggedIn{})
	f.publish(first)
	f.wantSeen(first)
	proxy.silenceExisting()
	start := time.Now()
	second := newMessage(t, event.UserLoggedIn{})
	if err := bus.NewPublisher(direct).Publish(string(event.Audit), second); err != nil {
		t.Fatal(err)
	}
	f.wantSeen(second)
	t.Logf("detected after %s", time.Since(start))
}

// TestRedisURL: the three dialects of the URL are valid, and no error contains the
// URL.
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
