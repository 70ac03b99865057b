package profile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
)

// Store keeps profiles. Each method is one transaction, events included.
type Store interface {
	// Get fails with ErrNotFound.
	Get(ctx context.Context, userID string) (Profile, error)
	// Seed stores p unless there is a profile, and returns the one there is.
	Seed(ctx context.Context, p Profile) (Profile, error)
	// Project stores what a sign-up said and returns the profile's version. That
	// is the oldest fact of an account, so of a profile that is there it changes
	// only the time, if it is earlier, and an address that is missing.
	Project(ctx context.Context, p Profile) (version int64, err error)
	// Update locks a profile, lets update change it, and stores it with the
	// events that update returns, unless it returns none or fails. It fails
	// with ErrNotFound.
	Update(ctx context.Context, userID string, update func(Profile) (Profile, []event.Event, error)) (Profile, error)
	// SetEmail gives a profile the address that it has as of UpdatedAt, unless it
	// has one as of later, and returns the profile's version, or 0 if nothing
	// changed. It stores p if there is no profile.
	SetEmail(ctx context.Context, p Profile) (version int64, err error)
	// Erase deletes a profile for good: Get fails from now on, and Seed and
	// Project make no other. It returns a version that none was.
	Erase(ctx context.Context, userID string, at time.Time) (version int64, err error)
	// List returns up to limit profiles whose address or name contains q,
	// newest first, after the one with the id after.
	List(ctx context.Context, q, after string, limit int) ([]Profile, error)
}

// ErrCacheAway says that the cache could not be told of a change. Readers are
// safe; telling it is worth another try.
var ErrCacheAway = errors.New("cache cannot be reached")

// Cache keeps profiles for a while. It may forget, and it may fail, but after
// Invalidate it never gives a version older than the one given: not from this
// instance, even when Invalidate failed. Version 0 drops whatever there is.
type Cache interface {
	Get(ctx context.Context, userID string) (Profile, bool)
	Put(ctx context.Context, p Profile)
	Invalidate(ctx context.Context, userID string, version int64) error
}

// Profiles is the service. It is safe for concurrent use.
type Profiles struct {
	store Store
	cache Cache
	now   func() time.Time
}

// New returns the service.
func New(store Store, cache Cache, now func() time.Time) *Profiles {
	return &Profiles{store: store, cache: cache, now: now}
}

func (p *Profiles) time() time.Time { return p.now().UTC().Truncate(time.Microsecond) }

// Me returns the caller's profile, and whether it came from the cache. If no
// event has arrived yet, it is made from what the access token says.
func (p *Profiles) Me(ctx context.Context, caller token.Identity) (me Profile, cached bool, err error) {
	if me, ok := p.cache.Get(ctx, caller.UserID); ok {
		return me, true, nil
	}
	me, err = p.store.Get(ctx, caller.UserID)
	if errors.Is(err, ErrNotFound) {
		me, err = p.store.Seed(ctx, p.seed(caller))
	}
	if err != nil {
		return Profile{}, false, err
	}
	p.cache.Put(ctx, me)
	return me, false, nil
}

// seed returns a profile as old as the caller's id, which auth-service makes
// just before the sign-up: so the event, when it comes, has nothing to correct,
// and what a client has read until then stays the current version.
func (p *Profiles) seed(caller token.Identity) Profile {
	created := p.time()
	if id, err := uuid.Parse(caller.UserID); err == nil && id.Version() == 7 {
		if made := time.Unix(id.Time().UnixTime()).UTC().Truncate(time.Millisecond); made.Before(created) {
			created = made
		}
	}
	return Profile{
		UserID: caller.UserID, Email: caller.Email, Name: caller.Name,
		Preferences: []byte("{}"), Version: 1, CreatedAt: created, UpdatedAt: created,
	}
}

// Change applies a change to the caller's profile. match decides by the version
// that is there whether to go on; it may be nil. It fails with ErrPrecondition
// or with a validation problem. The cache gives no older version afterwards.
func (p *Profiles) Change(ctx context.Context, caller token.Identity, change Change, match func(version int64) bool) (Profile, error) {
	update := func(old Profile) (Profile, []event.Event, error) {
		if match != nil && !match(old.Version) {
			return Profile{}, nil, ErrPrecondition
		}
		next, fields, err := change.Apply(old)
		if err != nil || len(fields) == 0 {
			return next, nil, err
		}
		next.Version++
		next.UpdatedAt = p.time()
		return next, []event.Event{event.New(ctx, next.UpdatedAt, next.UserID, event.UserProfileUpdated{
			Fields: fields, Version: next.Version,
		})}, nil
	}
	changed, err := p.store.Update(ctx, caller.UserID, update)
	if errors.Is(err, ErrNotFound) {
		if _, err = p.store.Seed(ctx, p.seed(caller)); err == nil {
			changed, err = p.store.Update(ctx, caller.UserID, update)
		}
	}
	if err != nil {
		return Profile{}, err
	}
	// A cache that is away is invalidated by the event that has been stored.
	_ = p.cache.Invalidate(ctx, changed.UserID, changed.Version)
	return changed, nil
}

// Get returns somebody's profile, or ErrNotFound.
func (p *Profiles) Get(ctx context.Context, userID string) (Profile, error) {
	return p.store.Get(ctx, userID)
}

// List returns profiles for an administrator, see Store.
func (p *Profiles) List(ctx context.Context, q, after string, limit int) ([]Profile, error) {
	return p.store.List(ctx, q, after, limit)
}

// Forget drops a profile from the cache. It fails if the cache is away.
func (p *Profiles) Forget(ctx context.Context, userID string) error {
	return p.cache.Invalidate(ctx, userID, 0)
}

// SignedUp projects a sign-up.
func (p *Profiles) SignedUp(ctx context.Context, e event.Event) error {
	s, err := event.Decode[event.UserSignedUp](e)
	if err != nil {
		return err
	}
	userID, err := subject(e)
	if err != nil {
		return err
	}
	at := e.OccurredAt.UTC()
	version, err := p.store.Project(ctx, Profile{
		UserID: userID, Email: s.Email, Name: s.Name,
		Preferences: []byte("{}"), Version: 1, CreatedAt: at, UpdatedAt: at,
	})
	if err != nil {
		return err
	}
	return p.cache.Invalidate(ctx, userID, version)
}

// Updated drops an older version from the cache, for the case that the cache
// was away when the change was made.
func (p *Profiles) Updated(ctx context.Context, e event.Event) error {
	u, err := event.Decode[event.UserProfileUpdated](e)
	if err != nil {
		return err
	}
	userID, err := subject(e)
	if err != nil {
		return err
	}
	if u.Version < 1 {
		return fmt.Errorf("%w: version %d", event.ErrMalformed, u.Version)
	}
	return p.cache.Invalidate(ctx, userID, u.Version)
}

// SessionEnded drops the owner's profile from the cache.
func (p *Profiles) SessionEnded(ctx context.Context, e event.Event) error {
	userID, err := subject(e)
	if err != nil {
		return err
	}
	return p.cache.Invalidate(ctx, userID, 0)
}

// EmailChanged gives a profile its new address.
func (p *Profiles) EmailChanged(ctx context.Context, e event.Event) error {
	changed, err := event.Decode[event.UserEmailChanged](e)
	if err != nil {
		return err
	}
	userID, err := subject(e)
	if err != nil {
		return err
	}
	at := e.OccurredAt.UTC()
	version, err := p.store.SetEmail(ctx, Profile{
		UserID: userID, Email: changed.Email, Preferences: []byte("{}"), Version: 1, CreatedAt: at, UpdatedAt: at,
	})
	if err != nil {
		return err
	}
	return p.cache.Invalidate(ctx, userID, version)
}

// Deleted erases the profile of an account that is gone.
func (p *Profiles) Deleted(ctx context.Context, e event.Event) error {
	userID, err := subject(e)
	if err != nil {
		return err
	}
	version, err := p.store.Erase(ctx, userID, e.OccurredAt.UTC())
	if err != nil {
		return err
	}
	return p.cache.Invalidate(ctx, userID, version)
}

// subject returns the id of the user whom e is about.
func subject(e event.Event) (string, error) {
	id, err := uuid.Parse(e.Subject)
	if err != nil {
		return "", fmt.Errorf("%w: subject is not a user's id", event.ErrMalformed)
	}
	return id.String(), nil
}
