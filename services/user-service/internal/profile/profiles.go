package profile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// Store keeps profiles. Each method is one transaction, events included.
type Store interface {
	// Get fails with ErrNotFound, or ErrErased if the user has been deleted.
	Get(ctx context.Context, userID string) (Profile, error)
	// Seed stores p unless the user has a profile, and returns the stored profile.
	Seed(ctx context.Context, p Profile) (Profile, error)
	// Project stores the data of a sign-up and returns the profile's version. A
	// sign-up is the oldest event of an account, so in an existing profile it changes
	// only the time of creation, if it is earlier, and fills in a missing address or
	// name.
	Project(ctx context.Context, p Profile) (version int64, err error)
	// Update locks a profile, calls update, and stores the result together with the
	// events that update returns. It stores nothing if update fails or returns no
	// events. It fails with ErrNotFound.
	Update(ctx context.Context, userID string, update func(Profile) (Profile, []event.Event, error)) (Profile, error)
	// SetEmail sets the address and its AccountVersion, unless the profile has that of a later
	// one, and returns the profile's version, or 0 if nothing changed. It stores p if there is
	// no profile.
	SetEmail(ctx context.Context, p Profile) (version int64, err error)
	// Erase deletes a profile permanently: from now on Get fails, and Seed and Project
	// do not create another one. It returns a version that no profile had.
	Erase(ctx context.Context, userID string, at time.Time) (version int64, err error)
	// List returns up to limit profiles that match search, newest first, starting after the
	// one at after.
	List(ctx context.Context, search Search, after cursor.Position, limit int) ([]Profile, error)
}

// ErrCacheUnavailable says that the cache could not be invalidated. Readers of this
// instance still get no older version; invalidating should be retried.
var ErrCacheUnavailable = errors.New("cache unavailable")

// Load reads a profile from the store, as Store.Get does.
type Load func(ctx context.Context, userID string) (Profile, error)

// Cache keeps profiles for a while. It may lose entries and it may fail, but a Read that
// begins after Invalidate, Changed or Drop never returns what was read before it. If one of
// these failed, that still holds for the versions before the given one, in this instance.
// Version 0 removes any entry. The other instances follow a moment later.
type Cache interface {
	// Read returns a profile, and whether it came from the cache. Otherwise it calls load once
	// for all readers who miss the profile at the same time. It fails as load does, with
	// problem.ErrUnavailable if too many profiles are being read, or because ctx has ended.
	Read(ctx context.Context, userID string, load Load) (p Profile, cached bool, err error)
	Invalidate(ctx context.Context, userID string, version int64) error
	// Changed is Invalidate for the change that was just stored. It also removes an entry
	// whose version is not older, and returns when all instances have followed, after a
	// second at the latest.
	Changed(ctx context.Context, p Profile) error
	// Drop removes any entry, and returns when all instances have.
	Drop(ctx context.Context, userID string) error
	// ChangedLately reports whether a replica of the database may lack a change of the profile,
	// made through any instance.
	ChangedLately(userID string) bool
}

// Caller is who calls, with the token that says so.
type Caller struct {
	token.Identity

	Token string
}

// ErrAccountUnavailable says that a profile cannot be created yet: its event has not
// arrived, and auth-service does not answer.
var ErrAccountUnavailable = problem.New(problem.Unavailable, "account_unavailable", "Your profile is not available yet. Try again later.").WithRetryAfter(2 * time.Second)

// Profiles reads and changes profiles. It is safe for concurrent use.
type Profiles struct {
	store   Store
	cache   Cache
	account token.LoadAccount
	now     func() time.Time
}

// New returns the profiles in store, cached in cache. account is asked for addresses that
// access tokens do not have.
func New(store Store, cache Cache, account token.LoadAccount, now func() time.Time) *Profiles {
	return &Profiles{store: store, cache: cache, account: account, now: now}
}

func (p *Profiles) time() time.Time { return p.now().UTC().Truncate(time.Microsecond) }

// Me returns the caller's profile, and whether it came from the cache. If the event of
// the sign-up has not arrived yet, it creates the profile from the access token, or fails
// with ErrAccountUnavailable or token.ErrRevoked. If the token has a later address than the
// profile, it takes over the account's.
func (p *Profiles) Me(ctx context.Context, caller Caller) (me Profile, cached bool, err error) {
	me, cached, err = p.cache.Read(ctx, caller.UserID, p.store.Get)
	switch {
	case errors.Is(err, ErrNotFound) && !errors.Is(err, ErrErased):
		if err := p.create(ctx, caller); err != nil {
			return Profile{}, false, err
		}
	case err == nil && addressDiffers(me, caller.Identity):
		corrected, revoked := p.correctAddress(ctx, caller)
		if !corrected {
			return me, cached, revoked
		}
	default:
		return me, cached, err
	}
	me, _, err = p.cache.Read(ctx, caller.UserID, p.store.Get)
	return me, false, err
}

// addressDiffers reports whether the token has another address than the profile, and is newer
// than that: the event of the change has not arrived, or auth-service was restored and has lost the
// change.
func addressDiffers(me Profile, caller token.Identity) bool {
	return caller.Email != "" && caller.Email != me.Email && caller.IssuedAt.UnixMicro() > me.AccountVersion
}

// correctAddress sets the address that auth-service has now, and reports whether it could. A change
// that auth-service makes from now on has a later version. If it could not, the address that is
// known is good enough: the next read tries again, also if only the entry in the cache is left. The
// error is nil or token.ErrRevoked.
func (p *Profiles) correctAddress(ctx context.Context, caller Caller) (bool, error) {
	account, err := p.loadAccount(ctx, caller)
	if err == nil {
		err = p.setEmail(ctx, Profile{
			UserID: caller.UserID, Email: account.Email, Name: account.Name, AccountVersion: caller.IssuedAt.UnixMicro(), UpdatedAt: p.time(),
		})
	}
	if errors.Is(err, token.ErrRevoked) {
		return false, err
	}
	return err == nil, nil
}

// create stores the profile of the caller unless there is one. The access token has the
// address if the caller has proved it. Only otherwise, and only until the event arrives,
// auth-service is asked.
func (p *Profiles) create(ctx context.Context, caller Caller) error {
	if caller.Email == "" {
		account, err := p.loadAccount(ctx, caller)
		if err != nil {
			return err
		}
		caller.Email, caller.Name = account.Email, account.Name
	}
	created, err := p.store.Seed(ctx, p.seed(caller.Identity))
	if err != nil {
		return err
	}
	// The cache may say that there is none. If it is unavailable, the event of the sign-up
	// does this again, and until then it ends by itself.
	_ = p.cache.Invalidate(ctx, created.UserID, created.Version)
	return nil
}

// loadAccount returns what auth-service has of the caller. It fails with token.ErrRevoked or
// ErrAccountUnavailable.
func (p *Profiles) loadAccount(ctx context.Context, caller Caller) (token.Account, error) {
	account, err := p.account(ctx, caller.Token)
	if err != nil && !errors.Is(err, token.ErrRevoked) {
		return token.Account{}, errors.Join(ErrAccountUnavailable, err)
	}
	return account, err
}

// seed returns a profile created at the time of the caller's id, which auth-service makes
// just before the sign-up. So the event has nothing to correct when it arrives, and the
// version that a client has read by then stays current.
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

// Change applies a change to the caller's profile. It fails with ErrPrecondition if match
// is not nil and rejects the current version, and with a validation problem. Afterwards
// the cache returns no older version.
func (p *Profiles) Change(ctx context.Context, caller Caller, change Change, match func(version int64) bool) (Profile, error) {
	return p.apply(ctx, caller, match, func(next *Profile) (fields []string, err error) {
		*next, fields, err = change.Apply(*next)
		return fields, err
	})
}

// apply stores what update makes of the caller's profile, with the event of the change. update
// returns the names of the fields that differ; without any, nothing is stored.
func (p *Profiles) apply(ctx context.Context, caller Caller, match func(version int64) bool, update func(next *Profile) ([]string, error)) (Profile, error) {
	step := func(next Profile) (Profile, []event.Event, error) {
		if match != nil && !match(next.Version) {
			return Profile{}, nil, ErrPrecondition
		}
		fields, err := update(&next)
		if err != nil || len(fields) == 0 {
			return next, nil, err
		}
		next.Version++
		next.UpdatedAt = p.time()
		return next, []event.Event{event.New(ctx, next.UpdatedAt, next.UserID, event.UserProfileUpdated{
			Fields: fields, Version: next.Version,
		})}, nil
	}
	changed, err := p.store.Update(ctx, caller.UserID, step)
	if errors.Is(err, ErrNotFound) {
		if err = p.create(ctx, caller); err == nil {
			changed, err = p.store.Update(ctx, caller.UserID, step)
		}
	}
	if err != nil {
		return Profile{}, err
	}
	// If the cache is unavailable, the event that was stored invalidates it later.
	_ = p.cache.Changed(ctx, changed)
	return changed, nil
}

// Get returns the profile of a user and whether it came from the cache, or ErrNotFound.
func (p *Profiles) Get(ctx context.Context, userID string) (found Profile, cached bool, err error) {
	return p.cache.Read(ctx, userID, p.store.Get)
}

// List returns profiles for the administrator with an id; see Store. It has the administrator's
// own last change.
func (p *Profiles) List(ctx context.Context, readerID string, search Search, after cursor.Position, limit int) ([]Profile, error) {
	search.Current = p.cache.ChangedLately(readerID)
	return p.store.List(ctx, search, after, limit)
}

// DropCached removes a profile from the cache, in every instance. It fails with ErrCacheUnavailable.
func (p *Profiles) DropCached(ctx context.Context, userID string) error {
	return p.cache.Drop(ctx, userID)
}

// SignedUp handles the event of a sign-up.
func (p *Profiles) SignedUp(ctx context.Context, e event.Event) error {
	s, err := event.Decode[event.UserSignedUp](e)
	if err != nil {
		return err
	}
	userID, err := subject(e)
	if err != nil {
		return err
	}
	at := e.At(p.now())
	version, err := p.store.Project(ctx, Profile{
		UserID: userID, Email: s.Email, Name: s.Name, AccountVersion: s.AccountVersion,
		Preferences: []byte("{}"), Version: 1, CreatedAt: at, UpdatedAt: at,
	})
	if err != nil {
		return err
	}
	return p.cache.Invalidate(ctx, userID, version)
}

// Updated removes an older version from the cache, in case the cache was unavailable when
// the profile was changed.
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

// SessionEnded removes the profile of the session's user from the cache.
func (p *Profiles) SessionEnded(ctx context.Context, e event.Event) error {
	userID, err := subject(e)
	if err != nil {
		return err
	}
	return p.cache.Invalidate(ctx, userID, 0)
}

// EmailChanged sets the new address of a profile.
func (p *Profiles) EmailChanged(ctx context.Context, e event.Event) error {
	changed, err := event.Decode[event.UserEmailChanged](e)
	if err != nil {
		return err
	}
	userID, err := subject(e)
	if err != nil {
		return err
	}
	at := e.At(p.now())
	return p.setEmail(ctx, Profile{
		UserID: userID, Email: changed.Email, AccountVersion: cmp.Or(changed.AccountVersion, at.UnixMicro()), UpdatedAt: at,
	})
}

func (p *Profiles) setEmail(ctx context.Context, to Profile) error {
	to.Preferences, to.Version, to.CreatedAt = []byte("{}"), 1, to.UpdatedAt
	version, err := p.store.SetEmail(ctx, to)
	if err != nil {
		return err
	}
	return p.cache.Invalidate(ctx, to.UserID, version)
}

// Deleted erases the profile of a deleted account.
func (p *Profiles) Deleted(ctx context.Context, e event.Event) error {
	userID, err := subject(e)
	if err != nil {
		return err
	}
	version, err := p.store.Erase(ctx, userID, e.At(p.now()))
	if err != nil {
		return err
	}
	return p.cache.Invalidate(ctx, userID, version)
}

// subject returns the id of the user in the subject of e.
func subject(e event.Event) (string, error) {
	id, err := uuid.Parse(e.Subject)
	if err != nil {
		return "", fmt.Errorf("%w: subject is not a user's id", event.ErrMalformed)
	}
	return id.String(), nil
}
