package tests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
)

// instance is a gateway in addition to that of the stack.
type instance struct {
	url   string
	start func() *exec.Cmd
	cmd   *exec.Cmd
	ready atomic.Bool // according to /readyz
}

// newInstances starts n gateways for the services of the stack.
func newInstances(t *testing.T, n int) []*instance {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "gateway")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./services/gateway")
	build.Dir, build.Env = root, environment()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the gateway: %v\n%s", err, out)
	}
	s := facts(t)
	env := append(environment(), "ENV=development", "LOCAL_DIR="+system.dir, "LOG_FORMAT=json", "DRAIN_DELAY=1s",
		"REDIS_URL="+s.RedisURL, "JWKS_URL="+s.ServiceURLs["auth-service"]+"/.well-known/jwks.json",
		"AUTH_URL="+s.ServiceURLs["auth-service"], "USER_URL="+s.ServiceURLs["user-service"],
		"EMAIL_URL="+s.ServiceURLs["email-service"], "AUDIT_URL="+s.ServiceURLs["audit-service"],
		"GENERAL_RATE_LIMIT=off", "GENERAL_IP_RATE_LIMIT=off")
	var instances []*instance
	for i := range n {
		var ports [2]int
		for p := range ports {
			port, err := localserver.FreePort(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ports[p] = port
		}
		instance := &instance{url: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}
		instance.start = func() *exec.Cmd {
			cmd := exec.Command(binary)
			cmd.Env = append(slices.Clone(env), fmt.Sprintf("INSTANCE_ID=rolling-%d", i),
				fmt.Sprintf("HTTP_ADDR=127.0.0.1:%d", ports[0]), fmt.Sprintf("OPS_ADDR=127.0.0.1:%d", ports[1]))
			cmd.Stderr = testWriter{t}
			if err := cmd.Start(); err != nil {
				t.Error(err)
			}
			return cmd
		}
		instance.cmd = instance.start()
		t.Cleanup(func() {
			if err := instance.stop(); err != nil {
				t.Error(err)
			}
		})
		instances = append(instances, instance)
	}
	return instances
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

func (i *instance) stop() error {
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return i.cmd.Wait()
}

// balance checks the readiness of every instance until ctx ends, as a load balancer does.
func balance(ctx context.Context, instances []*instance) {
	probe := &http.Client{Timeout: time.Second}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ; ctx.Err() == nil; <-tick.C {
		for _, i := range instances {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url+"/readyz", http.NoBody)
			if err != nil {
				continue
			}
			res, err := probe.Do(req)
			if err == nil {
				res.Body.Close()
			}
			i.ready.Store(err == nil && res.StatusCode == http.StatusOK)
		}
	}
}

// TestREL27RollingRestart: two gateways are restarted one after the other under load. Every
// request succeeds, including those that a client must not retry.
func TestREL27RollingRestart(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	c.signup(newEmail())
	instances := newInstances(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var background errgroup.Group
	background.Go(func() error {
		balance(ctx, instances)
		return nil
	})
	await := func(i *instance) {
		testkit.Eventually(t, func() error {
			if !i.ready.Load() {
				return errors.New("not ready")
			}
			return nil
		})
	}
	for _, i := range instances {
		await(i)
	}

	work, stopWork := context.WithCancel(t.Context())
	defer stopWork()
	load := c.startLoad(work, instances)
	for _, i := range instances {
		load.awaitMore(t, 100)
		if err := i.stop(); err != nil {
			t.Errorf("a gateway did not stop cleanly: %v", err)
		}
		i.cmd = i.start()
		await(i)
	}
	load.awaitMore(t, 100)
	stopWork()
	if err := load.clients.Wait(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := background.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d requests", load.answered.Load())
}

// load is clients that send requests to the ready instances in turn.
type load struct {
	clients  errgroup.Group // ends with the first request that fails, or with the context
	answered atomic.Int64
}

func (c *client) startLoad(ctx context.Context, instances []*instance) *load {
	l := &load{}
	var next atomic.Int64
	for range 8 {
		l.clients.Go(func() error {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				i := instances[next.Add(1)%int64(len(instances))]
				if !i.ready.Load() {
					continue
				}
				if err := c.patchMe(client, i.url); err != nil {
					return fmt.Errorf("after %d answers: %w", l.answered.Load(), err)
				}
				l.answered.Add(1)
			}
			return nil
		})
	}
	return l
}

// awaitMore waits until n more requests have been answered.
func (l *load) awaitMore(t *testing.T, n int64) {
	t.Helper()
	want := l.answered.Load() + n
	testkit.Eventually(t, func() error {
		if got := l.answered.Load(); got < want {
			return fmt.Errorf("%d requests answered, want %d", got, want)
		}
		return nil
	})
}

// patchMe changes the profile through the gateway at url. HTTP clients do not retry a
// PATCH by themselves.
func (c *client) patchMe(client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPatch, url+"/api/v1/user/me", strings.NewReader(`{"bio":"rolling"}`))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.tokens.AccessToken)
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", res.StatusCode, body)
	}
	return err
}
