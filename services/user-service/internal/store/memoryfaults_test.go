package store_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// cutHook fails every command while it is cut, as a network partition does.
type cutHook struct{ cut atomic.Bool }

func (h *cutHook) err() error {
	if h.cut.Load() {
		return &net.OpError{Op: "read", Err: errors.New("cut off")}
	}
	return nil
}

func (h *cutHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *cutHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := h.err(); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (h *cutHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := h.err(); err != nil {
			return err
		}
		return next(ctx, cmds)
	}
}

// TestREL100SilentInstance is REL-100: an instance with the profile in memory is cut off from
// Redis. A change is acknowledged within about a second, after which that instance does not
// use its memory. The next change does not wait for it.
func TestREL100SilentInstance(t *testing.T) {
	t.Parallel()
	db, redisURL := testkit.Database(t), testkit.RedisURL(t)
	here, there := newInstance(t, db, redisURL), newInstance(t, db, redisURL)
	hook := &cutHook{}
	there.client.AddHook(hook)
	awaitSure(t, here, there)
	userID := uuid.NewString()
	heat(t, version(userID, 1), here, there)

	hook.cut.Store(true)
	began := time.Now()
	if err := here.Changed(t.Context(), version(userID, 2)); err != nil {
		t.Fatal(err)
	}
	if p, _, err := there.Read(t.Context(), userID, constant(version(userID, 2))); err != nil || p.Version != 2 {
		t.Errorf("the instance that is cut off has version %d, %v", p.Version, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the change took %s", took)
	}
	admin := testkit.OpenRedis(t, redisURL, 5*time.Second)
	if n := admin.HLen(t.Context(), registryKey).Val(); n != 1 {
		t.Errorf("%d instances are registered, want the silent one to be removed", n)
	}

	hook.cut.Store(false)
	heat(t, version(userID, 2), here, there)
	if err := here.Changed(t.Context(), version(userID, 3)); err != nil {
		t.Fatal(err)
	}
	if p, _, err := there.Read(t.Context(), userID, constant(version(userID, 3))); err != nil || p.Version != 3 {
		t.Errorf("the instance that is back has version %d, %v", p.Version, err)
	}
}

// TestREL100WithoutRedis is REL-100: Redis goes away, or is frozen, while a profile is in the
// memories of two instances. When a change through one of them is over, the other one does not
// use its memory.
func TestREL100WithoutRedis(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(t *testing.T, server *localserver.Server){
		"killed": func(_ *testing.T, server *localserver.Server) { server.Kill() },
		"frozen": func(t *testing.T, server *localserver.Server) {
			t.Helper()
			if err := testkit.OpenRedis(t, server.URL, time.Second).Do(t.Context(), "CLIENT", "PAUSE", "20000", "ALL").Err(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(server.Kill)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, err := localserver.StartRedis(t.Context(), localserver.Options{Dir: filepath.Join(t.TempDir(), "redis")})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(server.Kill)
			db, userID := testkit.Database(t), uuid.NewString()
			here, there := newInstance(t, db, server.URL), newInstance(t, db, server.URL)
			awaitSure(t, here, there)
			heat(t, version(userID, 1), here, there)
			stop(t, server)
			began := time.Now()
			if err := here.Changed(t.Context(), version(userID, 2)); !errors.Is(err, profile.ErrCacheUnavailable) {
				t.Errorf("Changed = %v, want ErrCacheUnavailable", err)
			}
			took := time.Since(began)
			for name, i := range map[string]instance{"here": here, "there": there} {
				if p, _, err := i.Read(t.Context(), userID, constant(version(userID, 2))); err != nil || p.Version != 2 {
					t.Errorf("%s: version %d, %v", name, p.Version, err)
				}
			}
			if took > 5*time.Second {
				t.Errorf("the change took %s", took)
			}
		})
	}
}

// TestREL100RegistryLost is REL-100: Redis loses the registry of the instances. A change waits
// for the leases that it does not know.
func TestREL100RegistryLost(t *testing.T) {
	t.Parallel()
	db, redisURL := testkit.Database(t), testkit.RedisURL(t)
	here, there := newInstance(t, db, redisURL), newInstance(t, db, redisURL)
	awaitSure(t, here, there)
	admin := testkit.OpenRedis(t, redisURL, 5*time.Second)
	for n := range int64(5) {
		userID := uuid.NewString()
		heat(t, version(userID, n+1), here, there)
		if err := admin.FlushDB(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if err := here.Changed(t.Context(), version(userID, n+2)); err != nil {
			t.Fatal(err)
		}
		if p, _, err := there.Read(t.Context(), userID, constant(version(userID, n+2))); err != nil || p.Version != n+2 {
			t.Errorf("version %d, %v, want %d", p.Version, err, n+2)
		}
	}
}

// TestREL100FullRedis is REL-100: Redis accepts no announcement, because it is full.
func TestREL100FullRedis(t *testing.T) {
	t.Parallel()
	server, err := localserver.StartRedis(t.Context(), localserver.Options{Dir: filepath.Join(t.TempDir(), "redis")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	db, userID := testkit.Database(t), uuid.NewString()
	here, there := newInstance(t, db, server.URL), newInstance(t, db, server.URL)
	awaitSure(t, here, there)
	heat(t, version(userID, 1), here, there)
	admin := testkit.OpenRedis(t, server.URL, 5*time.Second)
	limit := func(bytes string) {
		t.Helper()
		if err := admin.ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for n := range int64(6) {
		heat(t, version(userID, n+1), here, there)
		limit("1")
		var relief sync.WaitGroup
		if n > 0 { // Only for a moment, in which there may be no renewal of a lease.
			relief.Go(func() {
				<-time.After(20 * time.Millisecond)
				if err := admin.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
					t.Error(err)
				}
			})
		}
		if err := here.Changed(t.Context(), version(userID, n+2)); err != nil {
			t.Errorf("Changed = %v", err)
		}
		if p, _, err := there.Read(t.Context(), userID, constant(version(userID, n+2))); err != nil || p.Version != n+2 {
			t.Errorf("version %d, %v, want %d", p.Version, err, n+2)
		}
		relief.Wait()
		limit("0")
	}
}
