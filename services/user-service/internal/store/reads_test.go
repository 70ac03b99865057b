package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// loads returns how many profiles an instance has read from the database.
func (i instance) loads(t *testing.T) int {
	t.Helper()
	return i.count(t, "headgate_profile_cache_loads_total")
}

// count returns the sum of a metric over all series with the labels, which are pairs of name
// and value.
func (i instance) count(t *testing.T, metric string, labels ...string) (sum int) {
	t.Helper()
	families, err := i.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != metric {
			continue
		}
		for _, series := range family.GetMetric() {
			has := map[string]string{}
			for _, label := range series.GetLabel() {
				has[label.GetName()] = label.GetValue()
			}
			matches := true
			for n := 0; n < len(labels); n += 2 {
				matches = matches && has[labels[n]] == labels[n+1]
			}
			if matches {
				sum += int(series.GetCounter().GetValue() + series.GetGauge().GetValue())
			}
		}
	}
	return sum
}

// awaitMemory waits until the instances may use their memories.
func awaitMemory(t *testing.T, instances ...instance) {
	t.Helper()
	for _, i := range instances {
		testkit.Eventually(t, func() error {
			if i.count(t, "headgate_profile_cache_memory_usable") == 0 {
				return errors.New("the memory may not be used")
			}
			return nil
		})
	}
}

// TestREL99ManyMisses is REL-99: 500 readers miss the same profile at the same time, in two
// instances, while the database is slow. Each instance reads it once at most. The same holds
// for a profile that does not exist.
func TestREL99ManyMisses(t *testing.T) {
	t.Parallel()
	db, redisURL := testkit.Database(t, outbox.Schema(), store.Schema()), testkit.RedisURL(t)
	rows := store.New(db, outbox.New("user-service"))
	userID := uuid.NewString()
	p := version(userID, 1)
	p.Email, p.CreatedAt, p.UpdatedAt = "ann@example.com", time.Now(), time.Now()
	if _, err := rows.Seed(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		userID string
		want   error
	}{"a profile": {userID, nil}, "no profile": {uuid.NewString(), profile.ErrNotFound}} {
		t.Run(name, func(t *testing.T) {
			instances := []instance{newInstance(t, db, redisURL), newInstance(t, db, redisURL)}
			tx, err := db.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), `LOCK TABLE profiles IN ACCESS EXCLUSIVE MODE`); err != nil {
				t.Fatal(err)
			}
			var readers sync.WaitGroup
			for n := range 500 {
				readers.Go(func() {
					p, _, err := instances[n%2].Read(t.Context(), tc.userID, rows.Get)
					if !errors.Is(err, tc.want) || err == nil && p.UserID != tc.userID {
						t.Errorf("read = %+v, %v, want %v", p, err, tc.want)
					}
				})
			}
			testkit.AwaitLockWait(t, db)
			<-time.After(100 * time.Millisecond) // The database is slow.
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			readers.Wait()
			total := 0
			for n, i := range instances {
				loads := i.loads(t)
				if loads > 1 {
					t.Errorf("instance %d has read the profile %d times", n, loads)
				}
				total += loads
			}
			if total == 0 {
				t.Error("nothing was read")
			}
			if _, cached, err := instances[0].Read(t.Context(), tc.userID, rows.Get); !cached || !errors.Is(err, tc.want) {
				t.Errorf("the next reader got %v, %v, want the cached result", cached, err)
			}
		})
	}
}

// TestREL99ReaderLeaves is REL-99: the reader for whom the database is read leaves. Another
// one, who waits for the same read, gets the profile.
func TestREL99ReaderLeaves(t *testing.T) {
	t.Parallel()
	cache, userID := newCache(testkit.Redis(t)), uuid.NewString()
	var loads atomic.Int32
	reading, answer := make(chan struct{}), make(chan struct{})
	load := func(ctx context.Context, userID string) (profile.Profile, error) {
		if loads.Add(1) == 1 {
			close(reading)
		}
		<-answer
		return version(userID, 1), ctx.Err()
	}
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, _, err := cache.Read(ctx, userID, load)
		left <- err
	}()
	<-reading
	stayed := make(chan error, 1)
	go func() {
		p, _, err := cache.Read(context.Background(), userID, load)
		if err == nil && p.Version != 1 {
			err = fmt.Errorf("version %d", p.Version)
		}
		stayed <- err
	}()
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the reader who left got %v", err)
	}
	close(answer)
	if err := <-stayed; err != nil {
		t.Errorf("the reader who stayed got %v", err)
	}
	if n := loads.Load(); n != 1 {
		t.Errorf("the database was read %d times", n)
	}
}

// lateHook delays the reply to the first script with a lossy context until release is closed.
type lateHook struct {
	redis.Hook

	first            *sync.Once
	reached, release chan struct{}
}

func (h lateHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "evalsha" && lossy(ctx) {
			h.first.Do(func() {
				close(h.reached)
				<-h.release
			})
		}
		return err
	}
}

// TestREL99LateReader is REL-99: a reader is told that the profile is being read, and is
// delayed until that is over. It does not read the profile again.
func TestREL99LateReader(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	hook := lateHook{lossyHook{}, &sync.Once{}, make(chan struct{}), make(chan struct{})}
	client.AddHook(hook)
	cache, userID := newCache(client), uuid.NewString()
	finish := slowReader(t, cache, version(userID, 1))
	late := make(chan error, 1)
	go func() {
		p, _, err := cache.Read(context.WithValue(context.Background(), lossyKey{}, true), userID, func(context.Context, string) (profile.Profile, error) {
			return profile.Profile{}, errors.New("read again")
		})
		if err == nil && p.Version != 1 {
			err = fmt.Errorf("version %d", p.Version)
		}
		late <- err
	}()
	<-hook.reached
	finish()
	close(hook.release)
	if err := <-late; err != nil {
		t.Error(err)
	}
}

// TestREL99NothingFromBeforeAChange is REL-99: a read of the database that began before a
// change is still going on. A reader that begins after the change does not wait for it.
func TestREL99NothingFromBeforeAChange(t *testing.T) {
	t.Parallel()
	db, redisURL := testkit.Database(t), testkit.RedisURL(t)
	here, there := newInstance(t, db, redisURL), newInstance(t, db, redisURL)
	awaitMemory(t, here, there)
	for name, invalidate := range map[string]func(userID string) error{
		"changed": func(userID string) error { return here.Changed(t.Context(), version(userID, 2)) },
		"dropped": func(userID string) error { return here.Drop(t.Context(), userID) },
		"event":   func(userID string) error { return here.Invalidate(t.Context(), userID, 2) },
	} {
		userID := uuid.NewString()
		finish := slowReader(t, there.Cache, version(userID, 1))
		if err := invalidate(userID); err != nil {
			t.Fatal(err)
		}
		put(t, there.Cache, version(userID, 2))
		finish()
		for cache, i := range map[string]instance{"here": here, "there": there} {
			if p, ok := get(t, i.Cache, userID); !ok || p.Version != 2 {
				t.Errorf("%s, %s: version %d, %v, want 2", name, cache, p.Version, ok)
			}
		}
	}
}

// TestREL99HolderDies is REL-99: the instance that reads the database dies. The others wait
// for it briefly.
func TestREL99HolderDies(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	cache, userID := newCache(client), uuid.NewString()
	if err := client.Set(t.Context(), "user:profile:lease:{user:profile:v1:"+userID+"}", "of the dead", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	put(t, cache, version(userID, 1))
	if took := time.Since(began); took < 400*time.Millisecond || took > 10*time.Second {
		t.Errorf("the read took %s, want about half a second", took)
	}
	if _, ok := get(t, cache, userID); !ok {
		t.Error("the profile was not cached")
	}
}

// TestREL99WithoutRedis is REL-99: while Redis is away, no reads are shared, and so many at
// the same time at most that the database is not overloaded. Who waits too long gets a 503.
func TestREL99WithoutRedis(t *testing.T) {
	t.Parallel()
	server, err := localserver.StartRedis(t.Context(), localserver.Options{Dir: filepath.Join(t.TempDir(), "redis")})
	if err != nil {
		t.Fatal(err)
	}
	client := testkit.OpenRedis(t, server.URL, time.Second)
	const most = 3
	cache := store.NewCache(store.CacheConfig{
		Client: client, Generation: func() string { return generation }, Reads: most, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Now: time.Now,
	})
	server.Kill()
	var now, highest, refused, served atomic.Int32
	refusedAll := make(chan struct{})
	load := func(_ context.Context, userID string) (profile.Profile, error) {
		defer now.Add(-1)
		if n := now.Add(1); n > highest.Load() {
			highest.Store(n)
		}
		<-refusedAll
		return version(userID, 1), nil
	}
	var readers sync.WaitGroup
	const all = 20
	userID := uuid.NewString()
	for range all {
		readers.Go(func() {
			_, _, err := cache.Read(t.Context(), userID, load)
			p := problem.From(err)
			switch {
			case err == nil:
				served.Add(1)
			case errors.Is(err, problem.ErrUnavailable) && p.RetryAfter > 0:
				if refused.Add(1) == all-most {
					close(refusedAll)
				}
			default:
				t.Errorf("read = %v", err)
			}
		})
	}
	readers.Wait()
	if highest.Load() > most || served.Load() != most || refused.Load() != all-most {
		t.Errorf("%d reads at the same time, %d served, %d refused", highest.Load(), served.Load(), refused.Load())
	}
}
