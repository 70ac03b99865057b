package account

import (
	"context"
	"log/slog"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
)

// Store keeps accounts. Each method is one transaction, events included.
type Store interface {
	// CreateAccount stores the new account that decide makes of an empty change. It
	// fails with ErrEmailTaken.
	CreateAccount(ctx context.Context, decide func(c *Change) error) error
	// ChangeAccount locks an account and its living sessions, lets decide change
	// them, and stores the outcome, unless decide fails. It fails with
	// ErrNotFound, ErrEmailTaken, and with ErrLastAdmin if no active
	// administrator would be left.
	ChangeAccount(ctx context.Context, id string, decide func(c *Change) error) error
	// UseToken is ChangeAccount for the owner of a one-time token, which is gone
	// afterwards, unless decide fails. It fails with ErrTokenInvalid if there is
	// no such token.
	UseToken(ctx context.Context, purpose LinkPurpose, hash []byte, decide func(t OneTimeToken, c *Change) error) error
	// TokenOwner returns a one-time token that can still be used or has expired, and
	// its owner. It locks nothing and fails with ErrTokenInvalid.
	TokenOwner(ctx context.Context, purpose LinkPurpose, hash []byte) (OneTimeToken, Account, error)
	// AddLinkRequest stores a request for TakeLinkRequest.
	AddLinkRequest(ctx context.Context, r LinkRequest) error
	// TakeLinkRequest is ChangeAccount for the address of the oldest request that is
	// due at now. The change is empty if no account has it; an account that serve
	// puts there is created. If serve fails, the request is due again later. It
	// reports whether there was a request.
	TakeLinkRequest(ctx context.Context, now time.Time, serve func(r LinkRequest, c *Change) error) (bool, error)
	// StartChallenge stores a challenge of an account, as StartSession does a
	// session.
	StartChallenge(ctx context.Context, ch Challenge, owner Account, newHash string, attempt []byte, events ...event.Event) error
	// ChallengeOwner returns the account of a challenge that lives at now. It fails
	// with ErrChallengeExpired.
	ChallengeOwner(ctx context.Context, hash []byte, now time.Time) (Account, error)
	// UseChallenge is ChangeAccount for the owner of a challenge. It fails with
	// ErrChallengeExpired if there is no such challenge.
	UseChallenge(ctx context.Context, hash []byte, decide func(ch *Challenge, c *Change) error) error
	// Factors returns the factors of an account that are confirmed, oldest first,
	// and how many recovery codes it has.
	Factors(ctx context.Context, accountID string) ([]Factor, int, error)
	// AddCeremony stores the first step of a ceremony.
	AddCeremony(ctx context.Context, c Ceremony) error
	// TakeCeremony removes a ceremony and returns it, or fails with
	// ErrPasskeyExpired.
	TakeCeremony(ctx context.Context, hash []byte) (Ceremony, error)
	// Account fails with ErrNotFound.
	Account(ctx context.Context, id string) (Account, error)
	// AccountByEmail finds an account by the key of its address, or fails with ErrNotFound.
	AccountByEmail(ctx context.Context, key string) (Account, error)
	// Accounts returns up to limit accounts that fit f, newest first, after the
	// one with the id after.
	Accounts(ctx context.Context, f Filter, after string, limit int) ([]Account, error)
	// StartSession stores a session of an account that still is what owner says,
	// and replaces its hash unless newHash is empty. It fails with ErrAccountChanged. What
	// attempt counted is cleared.
	StartSession(ctx context.Context, s Session, owner Account, newHash string, attempt []byte, events ...event.Event) error
	// UpdateSession locks a session, lets decide change it, and stores the outcome,
	// unless decide fails. It fails with ErrSessionNotFound. The owner is not
	// locked: whatever takes rights from an account ends its sessions.
	UpdateSession(ctx context.Context, id string, decide func(c *SessionChange) error) error
	// ImportAccounts stores new accounts with their events and reports for each
	// whether it did: not if its address or id is taken.
	ImportAccounts(ctx context.Context, changes []Change) ([]bool, error)
	// Sessions returns up to limit sessions of an account that live at now, newest
	// first, after the one with the id after.
	Sessions(ctx context.Context, accountID string, now time.Time, after string, limit int) ([]Session, error)
	// CountFailedAttempt counts an attempt as a failure, unless too many were before it.
	CountFailedAttempt(ctx context.Context, a FailedAttempt) (CountedAttempt, error)
	// UncountFailedAttempt takes back that an attempt was counted at a time.
	UncountFailedAttempt(ctx context.Context, key []byte, at time.Time) error
	// ClearFailedAttempts forgets the failures that a CountedAttempt's key names.
	ClearFailedAttempts(ctx context.Context, key []byte) error
	// ReserveIdempotencyKey notes that a request is at work, or returns the answer that it
	// had. It fails with ErrKeyReused or ErrKeyInProgress.
	ReserveIdempotencyKey(ctx context.Context, o IdempotencyRecord, now time.Time) (answer string, err error)
	// ReleaseIdempotencyKey forgets a request that has no answer.
	ReleaseIdempotencyKey(ctx context.Context, key []byte) error
	// Record stores events that come with no change.
	Record(ctx context.Context, events ...event.Event) error
	// Revocations is a token.LoadSnapshot.
	Revocations(ctx context.Context, since time.Time) (token.Snapshot, error)
	// Sweep deletes what has served its time.
	Sweep(ctx context.Context, now time.Time) error
	// HighestBcryptCost returns the highest cost of the bcrypt hashes of accounts, or 0
	// if there are none.
	HighestBcryptCost(ctx context.Context) (int, error)
	// HasAdmin reports whether there is an administrator.
	HasAdmin(ctx context.Context) (bool, error)
}

// Lifetimes are how long things live.
type Lifetimes struct {
	RefreshIdle  time.Duration // of a session that nobody refreshes
	Session      time.Duration // of a session, whatever happens
	RefreshGrace time.Duration // in which the token before the current one still gets the current one
	Verification time.Duration // of a verification link
	Reset        time.Duration // of a link to choose a new password
	Reauth       time.Duration // of the proof that somebody is who they are
}

// Accounts is the service. It is safe for concurrent use.
type Accounts struct {
	store    Store
	passkeys *factor.WebAuthn
	revoked  *token.Revocations
	hasher   *password.Hasher
	issuer   *signing.Issuer
	sealer   *event.Sealer
	atRest   *event.Sealer

	fingerprints []byte
	lifetimes    Lifetimes
	minLength    int
	mode         SignUpMode
	now          func() time.Time
	log          *slog.Logger
	wake         chan struct{}

	requireVerified bool
}

// Config is what Accounts are made of.
type Config struct {
	Store             Store
	Revocations       *token.Revocations // of this process, told at once of what it ends
	Hasher            *password.Hasher
	Issuer            *signing.Issuer
	Sealer            *event.Sealer    // of links, for email-service
	Passkeys          *factor.WebAuthn // nil for none
	AtRest            *event.Sealer    // of what only the database holds
	FingerprintSecret string
	Lifetimes         Lifetimes
	PasswordMinLength int // code points
	Mode              SignUpMode
	RequireVerified   bool // Must an address be verified before its account signs in?
	Now               func() time.Time
	Log               *slog.Logger
}

// New returns the service.
func New(cfg Config) *Accounts {
	return &Accounts{
		store: cfg.Store, revoked: cfg.Revocations, hasher: cfg.Hasher, issuer: cfg.Issuer, sealer: cfg.Sealer, atRest: cfg.AtRest, passkeys: cfg.Passkeys, fingerprints: hashSecret("headgate fingerprint v1\x00" + cfg.FingerprintSecret),
		lifetimes: cfg.Lifetimes, minLength: cfg.PasswordMinLength, mode: cfg.Mode, requireVerified: cfg.RequireVerified,
		now: cfg.Now, log: cfg.Log, wake: make(chan struct{}, 1),
	}
}

// time returns now as precisely as Postgres keeps it, so that what is signed
// before a row is stored equals what is signed after it was read.
func (a *Accounts) time() time.Time { return a.now().UTC().Truncate(time.Microsecond) }

// actAs returns a context in which events are the account's own doing.
func actAs(ctx context.Context, account Account) context.Context {
	return event.WithActor(ctx, event.Actor{Type: account.Role, ID: account.ID})
}
