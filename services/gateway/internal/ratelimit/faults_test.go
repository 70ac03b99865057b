package ratelimit

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
)

// redisTimeout is how long a request may wait for Redis, as in the gateway's main.
const redisTimeout = 100 * time.Millisecond

// ownRedis is a server that a test may break.
type ownRedis struct {
	t       *testing.T
	options localserver.Options
	server  *localserver.Server
	admin   redis.UniversalClient
}

func startRedis(t *testing.T) *ownRedis {
	t.Helper()
	r := &ownRedis{t: t, options: localserver.Options{Dir: filepath.Join(t.TempDir(), "redis"), Durable: true}}
	r.start()
	r.options.Port = r.server.Port
	r.admin = testkit.OpenRedis(t, r.server.URL, 5*time.Second)
	t.Cleanup(func() {
		if err := r.server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *ownRedis) start() {
	r.t.Helper()
	server, err := localserver.StartRedis(r.t.Context(), r.options)
	if err != nil {
		r.t.Fatal(err)
	}
	r.server = server
}

func (r *ownRedis) signal(s syscall.Signal) {
	r.t.Helper()
	if err := syscall.Kill(r.server.Pid(), s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *ownRedis) maxMemory(amount string) {
	r.t.Helper()
	if err := r.admin.ConfigSet(r.t.Context(), "maxmemory", amount).Err(); err != nil {
		r.t.Fatal(err)
	}
}

// TestSEC33RedisFaults is SEC-33 and REL-01 to REL-05 for the limits: whatever happens to
// Redis, no request fails or waits for long, the same limits apply in memory, and Redis
// counts again within two seconds of its return.
func TestSEC33RedisFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		begin, end func(r *ownRedis)
		timeout    time.Duration
	}{
		"gone": {
			func(r *ownRedis) {
				if err := r.server.Stop(r.t.Context()); err != nil {
					r.t.Fatal(err)
				}
			},
			(*ownRedis).start, redisTimeout,
		},
		"stopped": {
			func(r *ownRedis) { r.signal(syscall.SIGSTOP) },
			func(r *ownRedis) { r.signal(syscall.SIGCONT) }, redisTimeout,
		},
		"full": {
			func(r *ownRedis) { r.maxMemory("1") },
			// Redis lets a script that has begun to write go on, so the limits stay there. A
			// call that it executes after the timeout counts twice, so there is time.
			func(r *ownRedis) { r.maxMemory("0") }, slow,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRedis(t)
			l := New(testkit.OpenRedis(t, r.server.URL, fault.timeout), testkit.Log(t), prometheus.NewRegistry(), time.Now)
			login := key("login", 5, 15*time.Minute, "ann")
			general := key("general", 50, 15*time.Minute, "ann")[0]
			if d, _ := l.Take(t.Context(), "ann", login...); !d.Allowed || d.Remaining != 4 {
				t.Fatalf("before: %+v", d)
			}
			if d, _ := l.TakeLease(t.Context(), general); !d.Allowed {
				t.Fatalf("before: %+v", d)
			}
			fault.begin(r)
			for what, take := range map[string]func() bool{
				"login":   func() bool { d, _ := l.Take(t.Context(), "ann", login...); return d.Allowed },
				"general": func() bool { d, _ := l.TakeLease(t.Context(), general); return d.Allowed },
			} {
				passed, late := takeOften(take)
				// One passed before.
				if left := map[string]int{"login": 4, "general": 49}[what]; passed != left || late > 0 {
					t.Errorf("during the fault, %d of %s passed, %d were slow; want %d and 0", passed, what, late, left)
				}
			}
			fault.end(r)
			back := time.Now()
			testkit.Eventually(t, func() error {
				// Redis remembers what was used before the fault. After it was stopped, it
				// may also count the commands that it received meanwhile.
				if state := l.Peek(t.Context(), "ann", login[0]); state.Backend != "redis" || state.Used < 1 {
					return fmt.Errorf("redis is not asked yet: %+v", state)
				}
				return nil
			})
			t.Logf("counted in Redis again after %s", time.Since(back).Round(time.Millisecond))
		})
	}
}

// slow is far more than redisTimeout, also on a busy machine, and less than the client's own
// timeouts and retries would take.
const slow = 10 * time.Second

// takeOften calls take 100 times. It returns how many calls passed and how many were slow.
func takeOften(take func() bool) (passed, late int) {
	for range 100 {
		began := time.Now()
		if take() {
			passed++
		}
		if time.Since(began) > slow {
			late++
		}
	}
	return passed, late
}

// TestObservedLimits: they reject nothing, count no more than they would let pass, and do
// not affect other limits.
func TestObservedLimits(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	reg := prometheus.NewRegistry()
	l := New(client, testkit.Log(t), reg, time.Now)
	observed := key("observed", 2, time.Minute, "ann")[0]
	observed.Policy.Rate.Observe = true
	enforced := key("enforced", 4, time.Minute, "ann")[0]
	for i, want := range []bool{true, true, true, true, false, false} {
		d, ok := l.Take(t.Context(), "ann", observed, enforced)
		if !ok || d.Allowed != want || d.Policy.Name != "enforced" {
			t.Errorf("Take %d = %+v, %v", i+1, d, ok)
		}
	}
	if state := l.Peek(t.Context(), "ann", observed); state.Used != 2 {
		t.Errorf("the observed one has %d", state.Used)
	}
	for range 5 {
		if d, ok := l.TakeLease(t.Context(), observed); ok || !d.Allowed {
			t.Errorf("a lease of the observed one: %+v, %v", d, ok)
		}
	}
	want := `headgate_limiter_decisions_total{backend="redis",policy="observed",result="observed"}`
	if n := counted(t, reg, map[string]string{"policy": "observed", "backend": "redis", "result": "observed"}); n != 4 {
		t.Errorf("%s = %v, want 4", want, n)
	}
}

func counted(t *testing.T, reg *prometheus.Registry, labels map[string]string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			match := family.GetName() == "headgate_limiter_decisions_total"
			for _, label := range m.GetLabel() {
				match = match && labels[label.GetName()] == label.GetValue()
			}
			if match {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestCancelledRequestsSayNothing: requests that their clients cancel do not hide from the
// circuit breaker that Redis is unavailable.
func TestCancelledRequestsSayNothing(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	client := redis.NewClient(&redis.Options{Addr: listener.Addr().String(), MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	l := New(client, testkit.Log(t), prometheus.NewRegistry(), time.Now)
	login := key("login", 5, 15*time.Minute, "ann")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for range maxFailures {
		l.Take(t.Context(), "ann", login...)
		l.Take(cancelled, "ann", login...)
	}
	if state := l.breaker.State(); state != gobreaker.StateOpen {
		t.Errorf("the circuit breaker is %s", state)
	}
}
