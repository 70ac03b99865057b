package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// TestREL101Lifetime is REL-101: entries live for 600 s ± 10 %, each for another time.
func TestREL101Lifetime(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	cache := newCache(client)
	different := map[time.Duration]bool{}
	for range 50 {
		userID := uuid.NewString()
		put(t, cache, version(userID, 1))
		ttl := client.PTTL(t.Context(), "user:profile:v1:"+userID).Val()
		if ttl < 535*time.Second || ttl > 660*time.Second {
			t.Errorf("an entry lives for %s", ttl)
		}
		different[ttl.Truncate(time.Second)] = true
	}
	if len(different) < 10 {
		t.Errorf("50 entries end at %d different times", len(different))
	}
}

// TestREL101RenewedWhileServed is REL-101: readers of an entry that is about to end get it,
// and it is read again once, in the background.
func TestREL101RenewedWhileServed(t *testing.T) {
	t.Parallel()
	db, redisURL := testkit.Database(t), testkit.RedisURL(t)
	instances := []instance{newInstance(t, db, redisURL), newInstance(t, db, redisURL)}
	awaitMemory(t, instances...)
	client := testkit.OpenRedis(t, redisURL, 5*time.Second)
	userID := uuid.NewString()
	key := "user:profile:v1:" + userID
	put(t, instances[0].Cache, version(userID, 1))
	if err := instances[0].Invalidate(t.Context(), userID, 1); err != nil { // from the memories only
		t.Fatal(err)
	}
	if err := client.PExpire(t.Context(), key, 50*time.Second).Err(); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for n := range 100 {
		readers.Go(func() {
			p, cached, err := instances[n%2].Read(t.Context(), userID, constant(version(userID, 1)))
			if err != nil || !cached || p.Version != 1 {
				t.Errorf("read = version %d, %v, %v, want it from the cache", p.Version, cached, err)
			}
		})
	}
	readers.Wait()
	testkit.Eventually(t, func() error {
		if ttl := client.PTTL(t.Context(), key).Val(); ttl < 500*time.Second {
			return fmt.Errorf("the entry lives for %s", ttl)
		}
		return nil
	})
	if n := instances[0].loads(t) + instances[1].loads(t); n != 2 {
		t.Errorf("the profile was read %d times, want twice", n)
	}
}

// TestREL102Garbage is REL-102: whatever is in Redis, the reader gets the profile, and it is
// cached again.
func TestREL102Garbage(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	cache := newCache(client)
	for _, garbage := range []string{
		"", " ", "junk", "null", "1", "[]", "{}", `"text"`, "\x00\xff", `{"version":1`, `{"version":"1"}`, `{"version":-1}`, `{"version":1e400}`,
		`{"version":1,"generation":"` + generation + `","profile":{"userId":"` + uuid.NewString() + `"}}`,
		`{"version":1,"generation":"` + generation + `","profile":{"userId":7}}`,
		`{"version":1,"generation":"` + generation + `","profile":[]}`,
		`{"version":1,"generation":"` + generation + `","missing":"unknown"}`,
		`{"version":1,"generation":"another","missing":"erased"}`,
		`{"version":1,"profile":{"userId":"x"}}`,
	} {
		userID := uuid.NewString()
		if err := client.Set(t.Context(), "user:profile:v1:"+userID, garbage, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		put(t, cache, version(userID, 1))
		if p, ok := get(t, cache, userID); !ok || p.Version != 1 {
			t.Errorf("after %q: version %d, %v", garbage, p.Version, ok)
		}
	}
	userID := uuid.NewString()
	if err := client.LPush(t.Context(), "user:profile:v1:"+userID, "of another type").Err(); err != nil {
		t.Fatal(err)
	}
	put(t, cache, version(userID, 1))
	if p, ok := get(t, cache, userID); !ok || p.Version != 1 {
		t.Errorf("after a list: version %d, %v", p.Version, ok)
	}
}

// countedStore counts the accesses to profiles.
type countedStore struct {
	*store.Store

	accesses atomic.Int32
}

func (s *countedStore) Get(ctx context.Context, userID string) (profile.Profile, error) {
	s.accesses.Add(1)
	return s.Store.Get(ctx, userID)
}

func (s *countedStore) Seed(ctx context.Context, p profile.Profile) (profile.Profile, error) {
	s.accesses.Add(1)
	return s.Store.Seed(ctx, p)
}

// TestREL102NoProfile is REL-102: that there is no profile is cached for 30 s at most, and
// never hides a profile that was created: from the token of its user, or by an event.
func TestREL102NoProfile(t *testing.T) {
	t.Parallel()
	db, redisURL := testkit.Database(t, outbox.Schema(), store.Schema()), testkit.RedisURL(t)
	client := testkit.OpenRedis(t, redisURL, 5*time.Second)
	rows := &countedStore{Store: store.New(db, outbox.New("user-service"))}
	here, there := newInstance(t, db, redisURL), newInstance(t, db, redisURL)
	awaitMemory(t, here, there)
	profiles := map[string]*profile.Profiles{
		"here": profile.New(rows, here.Cache, nil, time.Now), "there": profile.New(rows, there.Cache, nil, time.Now),
	}
	wantNone := func(when, userID string) {
		t.Helper()
		before := here.loads(t) + there.loads(t)
		for range 3 {
			for name, p := range profiles {
				if _, _, err := p.Get(t.Context(), userID); !errors.Is(err, profile.ErrNotFound) {
					t.Errorf("%s, %s: %v", when, name, err)
				}
			}
		}
		if n := here.loads(t) + there.loads(t) - before; n > 1 {
			t.Errorf("%s: the database was read %d times", when, n)
		}
		if ttl := client.PTTL(t.Context(), "user:profile:v1:"+userID).Val(); ttl <= 0 || ttl > 30*time.Second {
			t.Errorf("%s: the entry lives for %s", when, ttl)
		}
	}
	newCaller := func() profile.Caller {
		return profile.Caller{Identity: token.Identity{UserID: uuid.Must(uuid.NewV7()).String(), Email: "ann@example.com", Name: "Ann"}}
	}
	for how, create := range map[string]func(caller profile.Caller) error{
		"the token": func(caller profile.Caller) error {
			_, _, err := profiles["here"].Me(t.Context(), caller)
			return err
		},
		"a change": func(caller profile.Caller) error {
			_, err := profiles["here"].Change(t.Context(), caller, profile.Change{Bio: []byte(`"x"`)}, nil)
			return err
		},
		"the sign-up": func(caller profile.Caller) error {
			return profiles["here"].SignedUp(t.Context(), testkit.NewEvent(t.Context(), caller.UserID, event.UserSignedUp{Email: caller.Email, Name: "Ann"}))
		},
		"the address": func(caller profile.Caller) error {
			return profiles["here"].EmailChanged(t.Context(), testkit.NewEvent(t.Context(), caller.UserID, event.UserEmailChanged{Email: caller.Email}))
		},
	} {
		caller := newCaller()
		wantNone("before "+how, caller.UserID)
		if err := create(caller); err != nil {
			t.Fatal(err)
		}
		for name, p := range profiles {
			if found, _, err := p.Get(t.Context(), caller.UserID); err != nil || found.Email != caller.Email {
				t.Errorf("%s: after %s: %+v, %v", name, how, found, err)
			}
		}
		if err := profiles["there"].Deleted(t.Context(), testkit.NewEvent(t.Context(), caller.UserID, event.UserDeleted{})); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, func() error { // The other instance follows a moment later.
			if _, _, err := profiles["here"].Get(t.Context(), caller.UserID); !errors.Is(err, profile.ErrNotFound) {
				return fmt.Errorf("after the deletion: %w", err)
			}
			return nil
		})
		wantNone("after the deletion", caller.UserID)
		before := rows.accesses.Load()
		for _, p := range profiles {
			if _, _, err := p.Me(t.Context(), caller); !errors.Is(err, profile.ErrNotFound) {
				t.Errorf("me after the deletion = %v", err)
			}
		}
		if n := rows.accesses.Load() - before; n != 0 {
			t.Errorf("me after the deletion has read the database %d times", n)
		}
	}
}
