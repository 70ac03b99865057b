package store_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const generation = "generation of the test"

func newCache(client *redis.Client) *store.Cache {
	return store.NewCache(client, func() string { return generation }, prometheus.NewRegistry(), time.Now)
}

func version(userID string, n int64) profile.Profile {
	return profile.Profile{UserID: userID, Name: "Ann", Preferences: []byte("{}"), Version: n}
}

// lossyHook delays a script with a lossy context until lose is closed, and then fails it
// as a lost connection does.
type lossyHook struct{ reached, lose chan struct{} }

func (h lossyHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h lossyHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h lossyHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "evalsha" || !lossy(ctx) {
			return next(ctx, cmd)
		}
		close(h.reached)
		<-h.lose
		err := error(&net.OpError{Op: "write", Err: errors.New("connection lost")})
		cmd.SetErr(err)
		return err
	}
}

type lossyKey struct{}

func lossy(ctx context.Context) bool { return ctx.Value(lossyKey{}) != nil }

// TestOlderInvalidationKeepsTheNewerVersion: two changes overlap. The invalidation of the
// older one arrives while that of the newer one is lost.
func TestOlderInvalidationKeepsTheNewerVersion(t *testing.T) {
	t.Parallel()
	shared := testkit.Redis(t)
	client := another(t, shared)
	hook := lossyHook{reached: make(chan struct{}), lose: make(chan struct{})}
	client.AddHook(hook)
	cache, userID := newCache(client), uuid.NewString()

	lost := make(chan error, 1)
	go func() { lost <- cache.Invalidate(context.WithValue(t.Context(), lossyKey{}, true), userID, 3) }()
	<-hook.reached
	if err := cache.Invalidate(t.Context(), userID, 2); err != nil {
		t.Fatal(err)
	}
	close(hook.lose)
	if err := <-lost; err == nil {
		t.Fatal("the lost invalidation reports success")
	}
	if err := cache.Invalidate(t.Context(), userID, 0); err != nil { // a logout
		t.Fatal(err)
	}
	newCache(another(t, shared)).Put(t.Context(), version(userID, 2), generation) // another instance, a slow reader
	if p, ok := cache.Get(t.Context(), userID); ok {
		t.Errorf("Get = version %d after the change to 3", p.Version)
	}
	cache.Put(t.Context(), version(userID, 3), generation)
	if p, ok := cache.Get(t.Context(), userID); !ok || p.Version != 3 {
		t.Errorf("Get = version %d, %v, want 3", p.Version, ok)
	}
}

func another(t *testing.T, of *redis.Client) *redis.Client {
	t.Helper()
	client := redis.NewClient(of.Options())
	t.Cleanup(func() { client.Close() })
	return client
}

// TestSlowReaderRestoresNothing: a reader that read before a change does not put the older
// profile back.
func TestSlowReaderRestoresNothing(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	here, there, userID := newCache(client), newCache(client), uuid.NewString()
	here.Put(t.Context(), version(userID, 1), generation)
	if err := here.Invalidate(t.Context(), userID, 2); err != nil {
		t.Fatal(err)
	}
	there.Put(t.Context(), version(userID, 1), generation)
	if _, ok := there.Get(t.Context(), userID); ok {
		t.Error("version 1 was restored after the change to 2")
	}
	there.Put(t.Context(), version(userID, 2), generation)
	if err := here.Invalidate(t.Context(), userID, 2); err != nil { // the event of the change
		t.Fatal(err)
	}
	if p, ok := here.Get(t.Context(), userID); !ok || p.Version != 2 {
		t.Error("a current entry was removed")
	}
	if err := here.Invalidate(t.Context(), userID, 0); err != nil {
		t.Fatal(err)
	}
	if _, ok := here.Get(t.Context(), userID); ok {
		t.Error("Invalidate of version 0 left an entry")
	}
}

// TestREL05FullRedisDropsTheOldEntry is REL-05: a full Redis cannot take the event of
// the change either, so the old entry must be deleted at once.
func TestREL05FullRedisDropsTheOldEntry(t *testing.T) {
	t.Parallel()
	server, err := localserver.StartRedis(t.Context(), localserver.Options{Dir: filepath.Join(t.TempDir(), "redis")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	options, err := redis.ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	here, there, userID := newCache(client), newCache(client), uuid.NewString()
	here.Put(t.Context(), version(userID, 1), generation)
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := here.Invalidate(t.Context(), userID, 2); err != nil {
		t.Errorf("Invalidate = %v", err)
	}
	if p, ok := there.Get(t.Context(), userID); ok {
		t.Errorf("another instance gets version %d after the change to 2", p.Version)
	}
}
