package store_test

import (
	"context"
	"errors"
	"log/slog"
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
	return store.NewCache(store.CacheConfig{
		Client: client, Generation: func() string { return generation }, Reads: 10, Memory: 1 << 20, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Now: time.Now,
	})
}

var errNotCached = errors.New("not in the cache")

// get returns what the cache has.
func get(t *testing.T, cache *store.Cache, userID string) (profile.Profile, bool) {
	t.Helper()
	p, cached, err := cache.Read(t.Context(), userID, func(context.Context, string) (profile.Profile, error) {
		return profile.Profile{}, errNotCached
	})
	if err != nil && !errors.Is(err, errNotCached) {
		t.Fatal(err)
	}
	return p, cached
}

// put has the cache read a profile that it does not have.
func put(t *testing.T, cache *store.Cache, p profile.Profile) {
	t.Helper()
	if got, cached, err := cache.Read(t.Context(), p.UserID, constant(p)); err != nil || cached || got.Version != p.Version {
		t.Fatalf("read = version %d, %v, %v, want %d from the database", got.Version, cached, err, p.Version)
	}
}

func constant(p profile.Profile) profile.Load {
	return func(context.Context, string) (profile.Profile, error) { return p, nil }
}

// slowReader begins to read a profile that the cache does not have, and returns a function
// with which the database answers.
func slowReader(t *testing.T, cache *store.Cache, p profile.Profile) (finish func()) {
	t.Helper()
	reading, answer, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, _, err := cache.Read(context.Background(), p.UserID, func(context.Context, string) (profile.Profile, error) {
			close(reading)
			<-answer
			return p, nil
		})
		done <- err
	}()
	<-reading
	return func() {
		t.Helper()
		close(answer)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
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
	finish := slowReader(t, newCache(another(t, shared)), version(userID, 2)) // another instance
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
	finish()
	if p, ok := get(t, cache, userID); ok {
		t.Errorf("Get = version %d after the change to 3", p.Version)
	}
	put(t, cache, version(userID, 3))
	if p, ok := get(t, cache, userID); !ok || p.Version != 3 {
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
	finish := slowReader(t, there, version(userID, 1))
	if err := here.Invalidate(t.Context(), userID, 2); err != nil {
		t.Fatal(err)
	}
	finish()
	if _, ok := get(t, there, userID); ok {
		t.Error("version 1 was restored after the change to 2")
	}
	put(t, there, version(userID, 2))
	if err := here.Invalidate(t.Context(), userID, 2); err != nil { // the event of the change
		t.Fatal(err)
	}
	if p, ok := get(t, here, userID); !ok || p.Version != 2 {
		t.Error("a current entry was removed")
	}
	if err := here.Invalidate(t.Context(), userID, 0); err != nil {
		t.Fatal(err)
	}
	if _, ok := get(t, here, userID); ok {
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
	put(t, here, version(userID, 1))
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := here.Invalidate(t.Context(), userID, 2); err != nil {
		t.Errorf("Invalidate = %v", err)
	}
	if p, ok := get(t, there, userID); ok {
		t.Errorf("another instance gets version %d after the change to 2", p.Version)
	}
}
