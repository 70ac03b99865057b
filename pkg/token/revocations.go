package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/service"
)

// MaxLifetime bounds the lifetime of an access token, and so how long a revoked session must
// be remembered.
const MaxLifetime = time.Hour

// ErrRevoked says that the token is valid but its session was ended.
var ErrRevoked = problem.New(problem.Unauthenticated, "session_revoked", "This session has ended. Sign in again.")

// Revocation says that a session was ended.
type Revocation struct {
	SessionID string    `json:"sessionId"`
	At        time.Time `json:"at"`
}

// Snapshot holds the sessions that were ended between some time and AsOf, by the clock of
// auth-service.
type Snapshot struct {
	AsOf        time.Time    `json:"asOf"`
	Before      time.Time    `json:"before,omitzero"` // All sessions that began before were ended.
	Revocations []Revocation `json:"revocations"`
}

// LoadSnapshot returns the sessions that were ended since a time. The zero time stands for
// all that still matter.
type LoadSnapshot func(ctx context.Context, since time.Time) (Snapshot, error)

// Revocations are the ended sessions whose access tokens may not have expired yet. They are
// fetched every few seconds, and events add new ones at once, so a check is a lookup in
// memory that needs neither Redis nor auth-service. It is safe for concurrent use.
type Revocations struct {
	load LoadSnapshot
	log  *slog.Logger
	now  func() time.Time

	outage   *service.Outage
	loaded   chan struct{} // closed by the first snapshot
	warnOnce sync.Once

	mu      sync.RWMutex
	ended   map[string]time.Time
	before  time.Time // All sessions that began before were ended.
	since   time.Time
	cleaned time.Time
}

const (
	snapshotEvery = 5 * time.Second
	firstRetry    = 250 * time.Millisecond
	// A revocation can commit later than its timestamp, and the clocks of auth-service's
	// replicas differ.
	snapshotOverlap  = time.Minute
	snapshotTimeout  = 3 * time.Second
	snapshotMaxBytes = 256 << 20
	longestWait      = 2 * time.Second
	cleanEvery       = time.Minute
)

// NewRevocations returns a set that is filled by Run and Observe.
func NewRevocations(load LoadSnapshot, log *slog.Logger, now func() time.Time) *Revocations {
	outage := service.NewOutage(service.OutageConfig{
		Log: log, Failing: "revocation refresh failed; retrying", Over: "revocations refreshed again",
	})
	return &Revocations{load: load, log: log, now: now, outage: outage, loaded: make(chan struct{}), ended: map[string]time.Time{}}
}

// Run keeps the set up to date until ctx ends.
func (r *Revocations) Run(ctx context.Context) error {
	r.run(ctx)
	return nil
}

func (r *Revocations) run(ctx context.Context) {
	started := r.now()
	for {
		pause := snapshotEvery
		if err := r.refresh(ctx); err != nil && ctx.Err() == nil {
			// Services start together, so the first failures are normal.
			if r.ready() || r.now().Sub(started) >= longestWait {
				r.outage.Record(ctx, "", err)
			}
			if !r.ready() {
				pause = firstRetry
			}
		} else if err == nil {
			r.outage.Record(ctx, "", nil)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (r *Revocations) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	r.mu.RLock()
	since := r.since
	r.mu.RUnlock()
	snapshot, err := r.load(ctx, since)
	if err == nil && snapshot.AsOf.Before(since) {
		// The clock of auth-service was ahead, so since is in its future and hides sessions.
		snapshot, err = r.load(ctx, time.Time{})
	}
	if errors.Is(err, errNoSnapshots) {
		r.warnOnce.Do(func() {
			r.log.WarnContext(ctx, "revocation snapshots unavailable, using events only; auth-service is too old or JWKS_URL is wrong", "error", err.Error())
		})
		snapshot, err = Snapshot{AsOf: r.now()}, nil
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, revocation := range snapshot.Revocations {
		r.add(revocation)
	}
	r.revokeBefore(snapshot.Before)
	r.since = snapshot.AsOf.Add(-snapshotOverlap)
	r.clean()
	if !r.ready() {
		close(r.loaded)
	}
	return nil
}

func (r *Revocations) ready() bool {
	select {
	case <-r.loaded:
		return true
	default:
		return false
	}
}

// Revoke records that sessions were ended just now.
func (r *Revocations) Revoke(sessionIDs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range sessionIDs {
		r.add(Revocation{SessionID: id, At: r.now()})
	}
}

// RevokeBefore records that all sessions that began before a time were ended.
func (r *Revocations) RevokeBefore(before time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revokeBefore(before)
}

// revokeBefore never moves the time back. A time in the future would end sessions that do not
// exist yet.
func (r *Revocations) revokeBefore(before time.Time) {
	if before.After(r.before) && !before.After(r.now().Add(leeway)) {
		r.before = before
	}
}

// Observe records the sessions of an event that ends some, and ignores other events.
func (r *Revocations) Observe(e event.Event) {
	var id string
	switch e.Name {
	case event.SessionRevoked{}.EventName():
		p, err := event.Decode[event.SessionRevoked](e)
		if err != nil {
			return // The snapshot has it.
		}
		id = p.SessionID
	case event.UserLoggedOut{}.EventName():
		p, err := event.Decode[event.UserLoggedOut](e)
		if err != nil {
			return
		}
		id = p.SessionID
	case event.SessionsAllRevoked{}.EventName():
		if p, err := event.Decode[event.SessionsAllRevoked](e); err == nil {
			r.RevokeBefore(p.Before)
		}
		return
	default:
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(Revocation{SessionID: id, At: e.OccurredAt})
}

// add remembers a session until its last token has expired. A time in the future, beyond the
// difference of clocks, does not make it remember the session for longer.
func (r *Revocations) add(revocation Revocation) {
	now := r.now()
	at := revocation.At
	if limit := now.Add(snapshotOverlap); at.After(limit) {
		at = limit
	}
	if until := at.Add(MaxLifetime + leeway); until.After(now) {
		r.ended[revocation.SessionID] = until
	}
}

func (r *Revocations) clean() {
	now := r.now()
	if now.Sub(r.cleaned) < cleanEvery {
		return
	}
	r.cleaned = now
	for id, until := range r.ended {
		if !until.After(now) {
			delete(r.ended, id)
		}
	}
}

// check returns nil, ErrRevoked, or ErrNoKeys while there is no snapshot yet. It waits up to
// longestWait for the first one.
func (r *Revocations) check(ctx context.Context, sessionID string, began time.Time) error {
	if !r.ready() {
		wait := time.NewTimer(longestWait)
		defer wait.Stop()
		select {
		case <-r.loaded:
		case <-ctx.Done():
			return ErrNoKeys
		case <-wait.C:
			return ErrNoKeys
		}
	}
	if r.has(sessionID, began) {
		return ErrRevoked
	}
	return nil
}

// has reports whether a session that began at a time is known to have ended.
func (r *Revocations) has(sessionID string, began time.Time) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, revoked := r.ended[sessionID]
	return revoked || began.Before(r.before)
}

// RevocationsPath is the internal route of auth-service for ended sessions. The query
// parameter since is a time (RFC 3339).
const RevocationsPath = "/internal/v1/revocations"

// RemoteSnapshots returns a loader that fetches snapshots from the host of cfg.JWKSURL.
func RemoteSnapshots(cfg Remote) LoadSnapshot {
	client := &http.Client{CheckRedirect: noRedirect}
	return func(ctx context.Context, since time.Time) (Snapshot, error) {
		snapshot, err := fetchSnapshot(ctx, client, cfg.JWKSURL, since)
		if err != nil {
			return Snapshot{}, fmt.Errorf("fetch revocations: %w", err)
		}
		return snapshot, nil
	}
}

var errNoSnapshots = errors.New("no " + RevocationsPath)

func fetchSnapshot(ctx context.Context, client *http.Client, jwksURL string, since time.Time) (Snapshot, error) {
	u, err := url.Parse(jwksURL)
	if err != nil {
		return Snapshot{}, err
	}
	u.Path, u.RawQuery = RevocationsPath, ""
	if !since.IsZero() {
		u.RawQuery = url.Values{"since": {since.UTC().Format(time.RFC3339Nano)}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return Snapshot{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return Snapshot{}, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return Snapshot{}, errNoSnapshots
	}
	if res.StatusCode != http.StatusOK {
		return Snapshot{}, fmt.Errorf("%s responded with %s", u.Redacted(), res.Status)
	}
	var body struct {
		Data Snapshot `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, snapshotMaxBytes)).Decode(&body); err != nil {
		return Snapshot{}, err
	}
	if body.Data.AsOf.IsZero() {
		return Snapshot{}, fmt.Errorf("%s: response without asOf", u.Redacted())
	}
	return body.Data, nil
}
