package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// heat has the instances keep a profile in memory.
func heat(t *testing.T, p profile.Profile, instances ...instance) {
	t.Helper()
	for _, i := range instances {
		testkit.Eventually(t, func() error {
			before := i.count(t, "headgate_profile_cache_lookups_total", "layer", "memory", "result", "hit")
			got, _, err := i.Read(t.Context(), p.UserID, constant(p))
			if err == nil && got.Version != p.Version {
				t.Fatalf("read = version %d, want %d", got.Version, p.Version)
			}
			if i.count(t, "headgate_profile_cache_lookups_total", "layer", "memory", "result", "hit") == before {
				err = errors.Join(err, errors.New("the profile is not in memory"))
			}
			return err
		})
	}
}

const registryKey = "user:profile:peers:{v1}:registry"

// awaitSure waits until the instances know one another for longer than a lease.
func awaitSure(t *testing.T, instances ...instance) {
	t.Helper()
	awaitMemory(t, instances...)
	<-time.After(time.Second)
}

// TestREL100ReadersAndAWriter is REL-100: a user changes the profile through one of three
// instances after another, and then reads it through each. Fifty readers keep it hot. No read
// that begins after the answer to a change returns an older profile.
func TestREL100ReadersAndAWriter(t *testing.T) {
	t.Parallel()
	db, redisURL := testkit.Database(t, outbox.Schema(), store.Schema()), testkit.RedisURL(t)
	var instances [3]instance
	var profiles [3]*profile.Profiles
	for n := range instances {
		instances[n] = newInstance(t, db, redisURL)
		profiles[n] = profile.New(store.New(db, outbox.New("user-service")), instances[n].Cache, nil, time.Now)
	}
	awaitMemory(t, instances[:]...)
	caller := profile.Caller{Identity: token.Identity{UserID: uuid.Must(uuid.NewV7()).String(), Email: "ann@example.com", Name: "Ann"}}
	var written, reads atomic.Int64
	read := func(n int) {
		before := written.Load()
		p, _, err := profiles[n].Me(t.Context(), caller)
		if err != nil {
			t.Errorf("instance %d: %v", n, err)
			return
		}
		reads.Add(1)
		if seen, _ := strconv.ParseInt(p.Bio, 10, 64); seen < before {
			t.Errorf("instance %d: read %d after %d was written", n, seen, before)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for r := range 50 {
		readers.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				read(r % 3)
				<-time.After(5 * time.Millisecond)
			}
		})
	}
	for i := int64(1); i <= 400 && !t.Failed(); i++ {
		bio, err := json.Marshal(strconv.FormatInt(i, 10))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := profiles[i%3].Change(t.Context(), caller, profile.Change{Bio: bio}, nil); err != nil {
			t.Fatal(err)
		}
		written.Store(i)
		for n := range profiles {
			read((int(i) + 1 + n) % 3)
		}
	}
	cancel()
	readers.Wait()
	hits := 0
	for _, i := range instances {
		hits += i.count(t, "headgate_profile_cache_lookups_total", "layer", "memory", "result", "hit")
	}
	if hits == 0 {
		t.Error("no read came from memory")
	}
	t.Logf("%d reads, %d from memory", reads.Load(), hits)
}

// TestREL100HotProfileCostsNoRoundTrip is REL-100: a hot profile is read from memory alone.
func TestREL100HotProfileCostsNoRoundTrip(t *testing.T) {
	t.Parallel()
	i := newInstance(t, testkit.Database(t), testkit.RedisURL(t))
	awaitMemory(t, i)
	p := version(uuid.NewString(), 1)
	heat(t, p, i)
	const reads = 10_000
	fromRedis := i.count(t, "headgate_profile_cache_lookups_total", "layer", "redis")
	for range reads {
		if _, _, err := i.Read(t.Context(), p.UserID, constant(p)); err != nil {
			t.Fatal(err)
		}
	}
	if n := i.count(t, "headgate_profile_cache_lookups_total", "layer", "redis") - fromRedis; n > 10 {
		t.Errorf("%d of %d reads asked Redis", n, reads)
	}
	if n := i.loads(t); n != 1 {
		t.Errorf("%d reads of the database", n)
	}
}

// TestREL100DropAndEventsReachAllMemories is REL-100: what an administrator or an event drops
// is dropped in every instance.
func TestREL100DropAndEventsReachAllMemories(t *testing.T) {
	t.Parallel()
	db, redisURL := testkit.Database(t), testkit.RedisURL(t)
	here, there := newInstance(t, db, redisURL), newInstance(t, db, redisURL)
	awaitSure(t, here, there)
	userID := uuid.NewString()
	heat(t, version(userID, 7), here, there)
	if err := here.Drop(t.Context(), userID); err != nil {
		t.Fatal(err)
	}
	for name, i := range map[string]instance{"there": there, "here": here} {
		if p, ok := get(t, i.Cache, userID); ok {
			t.Errorf("%s: version %d after the drop", name, p.Version)
		}
	}
	heat(t, version(userID, 7), here, there)
	if err := here.Invalidate(t.Context(), userID, 0); err != nil {
		t.Fatal(err)
	}
	testkit.Within(t, 5*time.Second, func() error { // less than an entry lives in memory
		if p, ok := get(t, there.Cache, userID); ok {
			return fmt.Errorf("version %d after the event", p.Version)
		}
		return nil
	})
}

// TestREL100GenerationFlushes is REL-100: another generation of the cache, or none that is
// known, makes everything in memory invalid.
func TestREL100GenerationFlushes(t *testing.T) {
	t.Parallel()
	var current atomic.Value
	current.Store(generation)
	i := instance{metrics: prometheus.NewRegistry()}
	i.Cache = store.NewCache(store.CacheConfig{
		Client: testkit.Redis(t), Generation: func() string { text, _ := current.Load().(string); return text },
		Reads: 10, Memory: 1 << 20, Log: testkit.Log(t), Metrics: i.metrics, Now: time.Now,
	})
	testkit.Run(t, i.Cache)
	awaitMemory(t, i)
	userID := uuid.NewString()
	heat(t, version(userID, 9), i)
	for _, other := range []string{"", "another"} {
		current.Store(other)
		if p, ok := get(t, i.Cache, userID); ok {
			t.Errorf("in the generation %q: version %d", other, p.Version)
		}
	}
	heat(t, version(userID, 1), i) // A restored database has lower versions.
}

// TestREL100StoppedInstance is REL-100: an instance that stops waits for the reads that go on
// without their requests, and leaves the registry, so no writer waits for it.
func TestREL100StoppedInstance(t *testing.T) {
	t.Parallel()
	redisURL := testkit.RedisURL(t)
	i := newInstance(t, testkit.Database(t), redisURL)
	awaitMemory(t, i)
	reading, answer := make(chan struct{}), make(chan struct{})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		_, _, _ = i.Read(ctx, uuid.NewString(), func(_ context.Context, userID string) (profile.Profile, error) {
			close(reading)
			<-answer
			return version(userID, 1), nil
		})
	}()
	<-reading
	leave()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		i.running.Stop()
	}()
	admin := testkit.OpenRedis(t, redisURL, 5*time.Second)
	testkit.Eventually(t, func() error {
		if n := admin.HLen(t.Context(), registryKey).Val(); n != 0 {
			return fmt.Errorf("%d instances are registered", n)
		}
		return nil
	})
	select {
	case <-stopped:
		t.Error("the cache has stopped before a read of the database was over")
	case <-time.After(200 * time.Millisecond):
	}
	close(answer)
	<-stopped
}
