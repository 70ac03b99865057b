package account

import (
	"context"
	"log/slog"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// Store is everything that the use cases store. Each part is declared in the file
// of the use case that needs it. Every method that writes is one transaction,
// events included.
type Store interface {
	accountReader
	accountUpdater
	eventRecorder

	signUpStore
	loginStore
	mfaChallengeStore
	failedAttemptStore
	mailBudgetStore
	sessionStore
	sessionUpdater
	linkStore
	linkRequestStore
	idempotencyStore
	factorReader
	ceremonyStore
	firstAdminStore
	accountLister
	personalDataReader
	importStore
	maintenanceStore
}

// accountReader is what most use cases begin with.
type accountReader interface {
	// Account fails with ErrNotFound.
	Account(ctx context.Context, id string) (Account, error)
	// AccountByEmail finds an account by the key of its address. It fails with
	// ErrNotFound.
	AccountByEmail(ctx context.Context, key string) (Account, error)
}

// accountUpdater is how an account changes.
type accountUpdater interface {
	// ChangeAccount locks an account and some of its live sessions, lets decide change
	// them, and stores the result. It stores nothing if decide fails. It fails with
	// ErrNotFound, ErrEmailTaken, ErrPasskeyTaken, ErrPasskeyExpired, and with ErrLastAdmin if no active
	// administrator would be left.
	ChangeAccount(ctx context.Context, id string, lock SessionLock, decide func(c *Change) error) error
}

// eventRecorder records what changes no account.
type eventRecorder interface {
	// Record stores events.
	Record(ctx context.Context, events ...event.Event) error
	// RecordNothing stores nothing and takes as long as Record.
	RecordNothing(ctx context.Context) error
}

// CountRefusal records what happened to an account, or to a stranger if subject is empty: an
// event for the first time, and counts in later ones. It reports whether it has waited for the
// database, as Record does.
type CountRefusal func(ctx context.Context, subject string, p event.Countable) (waited bool)

// Lifetimes are how long things are valid.
type Lifetimes struct {
	RefreshIdle  time.Duration // a session that is not refreshed
	Session      time.Duration // a session in total
	RefreshGrace time.Duration // how long a rotated refresh token still gets its successor
	Verification time.Duration // a verification link
	Unverified   time.Duration // a provisional account whose address is not verified; 0 means for ever
	Reset        time.Duration // a link to choose a new password
	Reauth       time.Duration // a sign-in or re-authentication, as proof of identity

	DeletionGrace time.Duration // in which the owner can cancel a deletion; 0 deletes at once
}

// Accounts carries out the use cases. It is safe for concurrent use.
type Accounts struct {
	brand    string
	store    Store
	passkeys *factor.WebAuthn
	revoked  *token.Revocations
	hasher   *password.Hasher
	issuer   *signing.Issuer
	links    *event.Sealer
	atRest   *event.Sealer
	count    CountRefusal

	fingerprints    service.Keys
	lifetimes       Lifetimes
	minLength       int
	mode            SignUpMode
	verification    Verification
	requireVerified bool
	requireMFAFor   []string

	now                func() time.Time
	log                *slog.Logger
	linkRequestArrived chan struct{}
}

// Config is what Accounts need.
type Config struct {
	Brand             string // the name of the product, in authenticator apps
	Store             Store
	Revocations       *token.Revocations // of this process; sessions that it ends are added at once
	Hasher            *password.Hasher
	Issuer            *signing.Issuer
	LinkSealer        *event.Sealer    // seals links for email-service
	AtRest            *event.Sealer    // seals secrets that only the database keeps
	Passkeys          *factor.WebAuthn // nil if passkeys are unavailable
	Count             CountRefusal
	Fingerprints      service.Keys // key the fingerprints of requests
	Lifetimes         Lifetimes
	PasswordMinLength int // in code points
	Mode              SignUpMode
	Verification      Verification
	RequireVerified   bool     // whether an address must be verified before its account can sign in
	RequireMFAFor     []string // roles, see web.StepUp
	Now               func() time.Time
	Log               *slog.Logger
}

// New returns Accounts. Run must be called for link requests to be handled.
func New(cfg Config) *Accounts {
	return &Accounts{
		brand: cfg.Brand,
		store: cfg.Store, passkeys: cfg.Passkeys, revoked: cfg.Revocations, hasher: cfg.Hasher, issuer: cfg.Issuer,
		links: cfg.LinkSealer, atRest: cfg.AtRest, count: cfg.Count,
		fingerprints: cfg.Fingerprints, lifetimes: cfg.Lifetimes, minLength: cfg.PasswordMinLength, mode: cfg.Mode, verification: cfg.Verification, requireVerified: cfg.RequireVerified, requireMFAFor: cfg.RequireMFAFor,
		now: cfg.Now, log: cfg.Log, linkRequestArrived: make(chan struct{}, 1),
	}
}

// time returns the current time in the precision of Postgres, so that a token
// issued before its session is stored equals one issued after it was read back.
func (a *Accounts) time() time.Time { return a.now().UTC().Truncate(time.Microsecond) }

// Record stores an event that another service reports on behalf of the caller, or counts
// it.
func (a *Accounts) Record(ctx context.Context, report event.Payload) error {
	if p, ok := report.(event.Countable); ok {
		a.count(ctx, event.OriginFrom(ctx).Actor.ID, p)
		return nil
	}
	return a.store.Record(ctx, event.New(ctx, a.time(), event.OriginFrom(ctx).Actor.ID, report))
}

// update changes an account by Store.ChangeAccount. This process refuses the
// sessions that the change revokes at once.
func (a *Accounts) update(ctx context.Context, id string, lock SessionLock, decide func(c *Change) error) error {
	var revoked []string
	err := a.store.ChangeAccount(ctx, id, lock, func(c *Change) error {
		if err := decide(c); err != nil {
			return err
		}
		revoked = c.revokedSessions()
		return nil
	})
	if err == nil {
		a.revoked.Revoke(revoked...)
	}
	return err
}
