package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/testkit"
)

// unreachable fails the commands of a client before they are sent, as a refused connection
// does.
type unreachable struct {
	calls atomic.Int64
	fails func(call int64) bool
}

var errUnreachable = errors.New("connection refused")

func (u *unreachable) DialHook(next redis.DialHook) redis.DialHook { return next }

func (u *unreachable) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if u.fails(u.calls.Add(1)) {
			cmd.SetErr(errUnreachable)
			return errUnreachable
		}
		return next(ctx, cmd)
	}
}

func (u *unreachable) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestSEC33BackendSwitch: a client gets the requests of one limit, however often the
// gateway changes between Redis and memory within the window.
func TestSEC33BackendSwitch(t *testing.T) {
	t.Parallel()
	never := func(int64) bool { return false }
	always := func(int64) bool { return true }
	for name, phases := range map[string][]func(call int64) bool{
		"single failures":     {func(call int64) bool { return call%3 == 0 }},
		"after the fault":     {always, never},
		"during the fault":    {never, always},
		"one fault in a row":  {func(call int64) bool { return call < 2 }, never},
		"from redis and back": {never, always, never, always},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := testkit.Redis(t)
			fault := &unreachable{fails: never}
			client.AddHook(fault)
			l := New(client, testkit.Log(t), prometheus.NewRegistry(), time.Now)
			strict := key("login", 20, 15*time.Minute, "ann")
			general := key("general", 20, 15*time.Minute, "ann")[0]
			// Scripts are loaded and connections made, so that each call is one command.
			l.Peek(t.Context(), "bob", strict[0])
			if d, _ := l.Take(t.Context(), "bob", key("login", 20, 15*time.Minute, "bob")...); !d.Allowed {
				t.Fatalf("before: %+v", d)
			}
			passed, leased := 0, 0
			for i, fails := range phases {
				fault.fails = fails
				takes := 7 // less than the limit, so that each phase has something to let pass
				if i == len(phases)-1 {
					takes = 60
				}
				for range takes {
					if d, _ := l.Take(t.Context(), "ann", strict...); d.Allowed {
						passed++
					}
					if d, _ := l.TakeLease(t.Context(), general); d.Allowed {
						leased++
					}
				}
				awaitClosed(t, l, fault)
			}
			if passed != 20 {
				t.Errorf("%d strict requests passed, want 20", passed)
			}
			if leased != 20 {
				t.Errorf("%d leased requests passed, want 20", leased)
			}
		})
	}
}

// awaitClosed waits until Redis counts again, if the next phase needs it.
func awaitClosed(t *testing.T, l *Limiter, fault *unreachable) {
	t.Helper()
	was := fault.fails
	fault.fails = func(int64) bool { return false }
	defer func() { fault.fails = was }()
	testkit.Eventually(t, func() error {
		if state := l.Peek(t.Context(), "carl", key("login", 20, time.Minute, "carl")[0]); state.Backend != "redis" {
			return errUnreachable
		}
		return nil
	})
}

// TestRedisUpBeforeRequests: the metric tells the truth from the start, without a request.
func TestRedisUpBeforeRequests(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fails func(int64) bool
		want  float64
	}{
		"redis counts":      {func(int64) bool { return false }, 1},
		"redis unreachable": {func(int64) bool { return true }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := testkit.Redis(t)
			fault := &unreachable{fails: tc.fails}
			client.AddHook(fault)
			l := New(client, testkit.Log(t), prometheus.NewRegistry(), time.Now)
			if up := testutil.ToFloat64(l.inRedis); up != 0 {
				t.Errorf("before Redis was asked, it is %v", up)
			}
			testkit.Run(t, l)
			testkit.Eventually(t, func() error {
				if up := testutil.ToFloat64(l.inRedis); fault.calls.Load() < 2 || up != tc.want {
					return fmt.Errorf("headgate_limiter_redis_up is %v, want %v", up, tc.want)
				}
				return nil
			})
		})
	}
}
