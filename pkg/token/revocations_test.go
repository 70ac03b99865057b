package token_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// none is a set in which nothing was ended.
func none(t testing.TB) *token.Revocations {
	t.Helper()
	return ended(t, func(context.Context, time.Time) (token.Snapshot, error) {
		return token.Snapshot{AsOf: time.Now()}, nil
	})
}

func ended(t testing.TB, load token.LoadSnapshot) *token.Revocations {
	t.Helper()
	set := token.NewRevocations(load, testkit.Log(t), time.Now)
	testkit.Run(t, set)
	return set
}

// SEC-13: a token of a session that was ended is refused although it has not
// expired, whichever way the news came.
func TestSEC13RevokedSessionIsRefused(t *testing.T) {
	t.Parallel()
	issuer := testkit.NewIssuer(t)
	keys := token.NewJWKS(token.Remote{JWKSURL: issuer.JWKSURL}, testkit.Log(t), time.Now)
	var mu sync.Mutex
	sessions := []token.Revocation{{SessionID: "before-the-start", At: time.Now()}}
	set := ended(t, func(context.Context, time.Time) (token.Snapshot, error) {
		mu.Lock()
		defer mu.Unlock()
		return token.Snapshot{AsOf: time.Now(), Revocations: sessions}, nil
	})
	v := token.NewVerifier(keys, set, testkit.Expected, time.Now)
	verify := func(session string) error {
		_, err := v.Verify(t.Context(), issuer.Token(token.Identity{SessionID: session}))
		return err
	}
	if err := verify("living"); err != nil {
		t.Fatalf("living session = %v", err)
	}
	if err := verify("before-the-start"); !errors.Is(err, token.ErrRevoked) {
		t.Errorf("session that the first snapshot names = %v, want ErrRevoked", err)
	}

	set.Revoke("by-this-process")
	set.Observe(event.New(t.Context(), time.Now(), "", event.SessionRevoked{SessionID: "by-event"}))
	set.Observe(event.New(t.Context(), time.Now(), "", event.UserLoggedOut{SessionID: "by-logout"}))
	set.Observe(event.New(t.Context(), time.Now(), "", event.SessionRefreshed{SessionID: "living"}))
	for _, session := range []string{"by-this-process", "by-event", "by-logout"} {
		if err := verify(session); !errors.Is(err, token.ErrRevoked) {
			t.Errorf("%s = %v, want ErrRevoked", session, err)
		}
	}

	mu.Lock()
	sessions = append(sessions, token.Revocation{SessionID: "event-was-lost", At: time.Now()})
	mu.Unlock()
	testkit.Eventually(t, func() error {
		if err := verify("event-was-lost"); !errors.Is(err, token.ErrRevoked) {
			return fmt.Errorf("session that only the next snapshot names = %v, want ErrRevoked", err) //nolint:errorlint // It may be nil.
		}
		return nil
	})
	if err := verify("living"); err != nil {
		t.Errorf("living session = %v", err)
	}
}

// A verifier that knows nothing yet lets nobody in: a session that was ended
// before the start would be good again.
func TestVerifierWaitsForTheFirstSnapshot(t *testing.T) {
	t.Parallel()
	issuer := testkit.NewIssuer(t)
	keys := token.NewJWKS(token.Remote{JWKSURL: issuer.JWKSURL}, testkit.Log(t), time.Now)
	var mu sync.Mutex
	available := false
	set := ended(t, func(context.Context, time.Time) (token.Snapshot, error) {
		mu.Lock()
		defer mu.Unlock()
		if !available {
			return token.Snapshot{}, errors.New("auth-service is away")
		}
		return token.Snapshot{AsOf: time.Now(), Revocations: []token.Revocation{{SessionID: "ended", At: time.Now()}}}, nil
	})
	v := token.NewVerifier(keys, set, testkit.Expected, time.Now)
	raw := issuer.Token(token.Identity{SessionID: "ended"})
	if _, err := v.Verify(t.Context(), raw); !errors.Is(err, token.ErrNoKeys) {
		t.Fatalf("before the first snapshot = %v, want ErrNoKeys", err)
	}
	mu.Lock()
	available = true
	mu.Unlock()
	testkit.Eventually(t, func() error {
		if _, err := v.Verify(t.Context(), raw); !errors.Is(err, token.ErrRevoked) {
			return fmt.Errorf("after the first snapshot = %v, want ErrRevoked", err) //nolint:errorlint // It may be nil.
		}
		return nil
	})
}

// REL-42: while the clock of auth-service was ahead, a snapshot was taken. After it is set
// right, a session that ended during an outage is still in the next snapshot.
func TestSnapshotsAfterTheClockWasAhead(t *testing.T) {
	t.Parallel()
	issuer := testkit.NewIssuer(t)
	signedAt := time.Now()
	keys := token.NewJWKS(token.Remote{JWKSURL: issuer.JWKSURL}, testkit.Log(t), func() time.Time { return signedAt })
	raw := issuer.Token(token.Identity{SessionID: "ended"})
	verifier := func(set *token.Revocations) *token.Verifier {
		return token.NewVerifier(keys, set, testkit.Expected, func() time.Time { return signedAt })
	}
	if _, err := verifier(none(t)).Verify(t.Context(), raw); err != nil { // fetches the keys
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		const ahead = 2 * time.Hour
		started := time.Now()
		set := token.NewRevocations(func(_ context.Context, since time.Time) (token.Snapshot, error) {
			revocation := token.Revocation{SessionID: "ended", At: started.Add(10 * time.Second)}
			switch passed := time.Since(started); {
			case passed < 4*time.Second:
				return token.Snapshot{AsOf: time.Now().Add(ahead)}, nil
			case passed < 5*time.Minute:
				return token.Snapshot{}, errors.New("auth-service is unavailable")
			case revocation.At.Before(since):
				return token.Snapshot{AsOf: time.Now()}, nil
			}
			return token.Snapshot{AsOf: time.Now(), Revocations: []token.Revocation{revocation}}, nil
		}, slog.New(slog.DiscardHandler), time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = set.Run(ctx) })
		time.Sleep(5*time.Minute + 10*time.Second)
		synctest.Wait()
		if _, err := verifier(set).Verify(t.Context(), raw); !errors.Is(err, token.ErrRevoked) {
			t.Errorf("Verify = %v, want ErrRevoked", err)
		}
		cancel()
		running.Wait()
	})
}

// TestSEC117RevocationFromTheFuture is SEC-117: a session that was revoked in a distant future
// is forgotten when its last token has expired, not then.
func TestSEC117RevocationFromTheFuture(t *testing.T) {
	t.Parallel()
	issuer := testkit.NewIssuer(t)
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	keys := token.NewJWKS(token.Remote{JWKSURL: issuer.JWKSURL}, testkit.Log(t), time.Now)
	future := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	set := token.NewRevocations(func(context.Context, time.Time) (token.Snapshot, error) {
		return token.Snapshot{AsOf: clock()}, nil
	}, testkit.Log(t), clock)
	testkit.Run(t, set)
	set.Observe(event.New(t.Context(), future, "ann", event.SessionRevoked{SessionID: "s"}))
	v := token.NewVerifier(keys, set, testkit.Expected, time.Now)
	raw := issuer.Token(token.Identity{SessionID: "s"})
	if _, err := v.Verify(t.Context(), raw); !errors.Is(err, token.ErrRevoked) {
		t.Errorf("Verify() = %v, want ErrRevoked", err)
	}
	mu.Lock()
	now = now.Add(token.MaxLifetime + 5*time.Minute)
	mu.Unlock()
	testkit.Eventually(t, func() error { // with the next snapshot
		_, err := v.Verify(t.Context(), raw)
		return err
	})
}

// SEC-103: one time ends the sessions of everybody, however many there are, whichever way the
// news comes. It never moves back, and a time in the future ends nothing.
func TestSEC103AllSessionsThatBeganBefore(t *testing.T) {
	t.Parallel()
	issuer := testkit.NewIssuer(t)
	keys := token.NewJWKS(token.Remote{JWKSURL: issuer.JWKSURL}, testkit.Log(t), time.Now)
	now := time.Now().Truncate(time.Second)
	for name, tell := range map[string]func(*token.Revocations, time.Time){
		"by this process": (*token.Revocations).RevokeBefore,
		"by event": func(set *token.Revocations, before time.Time) {
			set.Observe(event.New(t.Context(), time.Now(), "", event.SessionsAllRevoked{Before: before}))
		},
		"by the first snapshot": nil,
	} {
		set := ended(t, func(context.Context, time.Time) (token.Snapshot, error) {
			if tell == nil {
				return token.Snapshot{AsOf: time.Now(), Before: now}, nil
			}
			return token.Snapshot{AsOf: time.Now()}, nil
		})
		v := token.NewVerifier(keys, set, testkit.Expected, time.Now)
		verify := func(began, authenticated time.Time) error {
			claims := issuer.Claims(token.Identity{AuthTime: authenticated})
			if !began.IsZero() {
				claims.SessionAt = jwt.NewNumericDate(began)
			}
			_, err := v.Verify(t.Context(), issuer.Sign(claims))
			return err
		}
		old, earlierRelease := now.Add(-time.Second), time.Time{}
		if tell != nil {
			if err := verify(old, old); err != nil {
				t.Fatalf("%s: before = %v", name, err)
			}
			tell(set, now)
			tell(set, now.Add(-time.Hour))
			tell(set, now.Add(time.Hour))
		}
		if err := verify(old, old); !errors.Is(err, token.ErrRevoked) {
			t.Errorf("%s: older session = %v, want ErrRevoked", name, err)
		}
		if err := verify(old, now.Add(time.Minute)); !errors.Is(err, token.ErrRevoked) {
			t.Errorf("%s: older session that was re-authenticated since = %v, want ErrRevoked", name, err)
		}
		if err := verify(now, now); err != nil {
			t.Errorf("%s: newer session = %v", name, err)
		}
		if err := verify(earlierRelease, old); !errors.Is(err, token.ErrRevoked) {
			t.Errorf("%s: older session in a token of an earlier release = %v, want ErrRevoked", name, err)
		}
		if err := verify(earlierRelease, now); err != nil {
			t.Errorf("%s: newer session in a token of an earlier release = %v", name, err)
		}
	}
}
