package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// Store keeps accounts. Each method is one transaction, events included.
type Store interface {
	// CreateAccount fails with ErrEmailTaken. session and proof may be nil.
	CreateAccount(ctx context.Context, a Account, session *Session, proof *OneTimeToken, events ...event.Event) error
	// AccountByEmail finds an account by the key of its address, or fails with ErrNotFound.
	AccountByEmail(ctx context.Context, key string) (Account, error)
	// StartSession stores a session of an account that is still active, with
	// its new hash unless that is empty. It fails with ErrAccountDisabled.
	StartSession(ctx context.Context, s Session, newHash string, events ...event.Event) error
	// UpdateSession locks a session, lets update change it, and stores it with
	// the events that update returns, unless update fails. It fails with
	// ErrRefreshInvalid if there is no such session.
	UpdateSession(ctx context.Context, id string, update func(s *Session, owner Account) ([]event.Event, error)) error
	// Sessions returns the sessions of an account that live at now, newest first.
	Sessions(ctx context.Context, accountID string, now time.Time) ([]Session, error)
	// UseToken locks a one-time token and its account, lets use change both, and
	// stores them. It fails with ErrTokenInvalid if there is no such token.
	UseToken(ctx context.Context, purpose string, hash []byte, use func(t *OneTimeToken, owner *Account) ([]event.Event, error)) error
	// Record stores events that come with no change.
	Record(ctx context.Context, events ...event.Event) error
	// Revocations is a token.LoadSnapshot.
	Revocations(ctx context.Context, since time.Time) (token.Snapshot, error)
	// HasAdmin reports whether there is an administrator.
	HasAdmin(ctx context.Context) (bool, error)
}

// Lifetimes are how long things live.
type Lifetimes struct {
	Access       time.Duration // of an access token
	RefreshIdle  time.Duration // of a session that nobody refreshes
	Session      time.Duration // of a session, whatever happens
	RefreshGrace time.Duration // in which the token before the current one still gets the current one
	Verification time.Duration // of a verification link
}

// Accounts is the service. It is safe for concurrent use.
type Accounts struct {
	store     Store
	revoked   *token.Revocations
	hasher    *password.Hasher
	issuer    *Issuer
	sealer    *event.Sealer
	lifetimes Lifetimes
	minLength int
	now       func() time.Time
}

// Config is what Accounts are made of.
type Config struct {
	Store             Store
	Revocations       *token.Revocations // of this process, told at once of what it ends
	Hasher            *password.Hasher
	Issuer            *Issuer
	Sealer            *event.Sealer
	Lifetimes         Lifetimes
	PasswordMinLength int // code points
	Now               func() time.Time
}

// New returns the service.
func New(cfg Config) *Accounts {
	return &Accounts{
		store: cfg.Store, revoked: cfg.Revocations, hasher: cfg.Hasher, issuer: cfg.Issuer, sealer: cfg.Sealer,
		lifetimes: cfg.Lifetimes, minLength: cfg.PasswordMinLength, now: cfg.Now,
	}
}

// time returns now as precisely as Postgres keeps it, so that what is signed
// before a row is stored equals what is signed after it was read.
func (a *Accounts) time() time.Time { return a.now().UTC().Truncate(time.Microsecond) }

// SignUp is what somebody gives to get an account.
type SignUp struct {
	Email, Password, Name string
}

// Register creates an account and signs it in. The account, its session and
// its events commit together or not at all. It fails with a validation problem,
// ErrWeakPassword, ErrEmailTaken or password.ErrBusy.
func (a *Accounts) Register(ctx context.Context, in SignUp) (Account, Tokens, error) {
	account, secret, err := a.prepare(in)
	if err != nil {
		return Account{}, Tokens{}, err
	}
	// An address that is taken needs no hash. The store decides races.
	switch _, err := a.store.AccountByEmail(ctx, account.Email.Key); {
	case err == nil:
		return Account{}, Tokens{}, ErrEmailTaken
	case !errors.Is(err, ErrNotFound):
		return Account{}, Tokens{}, err
	}
	if account.PasswordHash, err = a.hasher.Hash(ctx, secret); err != nil {
		return Account{}, Tokens{}, err
	}
	ctx = actAs(ctx, account)
	session := a.newSession(ctx, account, "")
	proof, requested := a.requestVerification(ctx, account)
	tokens, err := a.issuer.tokens(account, session, a.lifetimes, account.CreatedAt)
	if err != nil {
		return Account{}, Tokens{}, err
	}
	err = a.store.CreateAccount(ctx, account, &session, &proof, a.signedUp(ctx, account), requested)
	if err != nil {
		return Account{}, Tokens{}, err
	}
	return account, tokens, nil
}

// prepare checks a sign-up and returns the account without its hash, and the
// password in the form that is hashed.
func (a *Accounts) prepare(in SignUp) (Account, string, error) {
	email, emailFault := ParseEmail(in.Email)
	secret, secretFault := password.Normalize("password", in.Password)
	name, nameFault := parseName(in.Name)
	if secretFault == nil && len([]rune(secret)) < a.minLength {
		secretFault = &problem.Field{
			Field: "password", Code: "too_short",
			Message: fmt.Sprintf("The password must have at least %d characters.", a.minLength),
		}
	}
	if err := faults(emailFault, secretFault, nameFault); err != nil {
		return Account{}, "", err
	}
	if password.Weak(secret, email.Address, localPart(email), name) {
		return Account{}, "", ErrWeakPassword
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Account{}, "", fmt.Errorf("make account id: %w", err)
	}
	now := a.time()
	return Account{
		ID: id.String(), Email: email, Name: name, Role: token.RoleUser, Status: Active,
		CreatedAt: now, UpdatedAt: now,
	}, secret, nil
}

func (a *Accounts) signedUp(ctx context.Context, account Account) event.Event {
	return event.New(ctx, account.CreatedAt, account.ID, event.UserSignedUp{
		Email: account.Email.Address, Name: account.Name, Role: account.Role,
	})
}

// LogIn is what somebody gives to sign in.
type LogIn struct {
	Email, Password, DeviceName string
}

// Login checks a password and starts a session. It takes the same time whether
// or not an account has the address. It fails with ErrInvalidCredentials,
// ErrAccountDisabled, a validation problem or password.ErrBusy; the first two
// are recorded as events.
func (a *Accounts) Login(ctx context.Context, in LogIn) (Account, Tokens, error) {
	email, emailFault := ParseEmail(in.Email)
	secret, secretFault := password.Normalize("password", in.Password)
	device, deviceFault := parseLine("deviceName", in.DeviceName, maxDevice)
	if err := faults(emailFault, secretFault, deviceFault); err != nil {
		return Account{}, Tokens{}, err
	}
	account, err := a.store.AccountByEmail(ctx, email.Key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Account{}, Tokens{}, err
	}
	ok, stale, err := a.hasher.Verify(ctx, account.PasswordHash, secret)
	if err != nil {
		return Account{}, Tokens{}, err
	}
	if !ok {
		return Account{}, Tokens{}, a.loginFailed(ctx, account, ErrInvalidCredentials)
	}
	if account.Status != Active {
		return Account{}, Tokens{}, a.loginFailed(ctx, account, ErrAccountDisabled)
	}
	newHash := ""
	if stale {
		if newHash, err = a.hasher.Hash(ctx, secret); err != nil {
			return Account{}, Tokens{}, err
		}
	}
	ctx = actAs(ctx, account)
	session := a.newSession(ctx, account, device)
	tokens, err := a.issuer.tokens(account, session, a.lifetimes, session.CreatedAt)
	if err != nil {
		return Account{}, Tokens{}, err
	}
	err = a.store.StartSession(ctx, session, newHash, event.New(ctx, session.CreatedAt, account.ID, event.UserLoggedIn{
		SessionID: session.ID, DeviceName: device,
	}))
	if errors.Is(err, ErrAccountDisabled) {
		return Account{}, Tokens{}, a.loginFailed(ctx, account, ErrAccountDisabled)
	}
	if err != nil {
		return Account{}, Tokens{}, err
	}
	return account, tokens, nil
}

// loginFailed records why a login was refused and returns the reason.
func (a *Accounts) loginFailed(ctx context.Context, account Account, reason *problem.Problem) error {
	failed := event.New(ctx, a.time(), account.ID, event.UserLoginFailed{Reason: reason.Code})
	if err := a.store.Record(ctx, failed); err != nil {
		return err
	}
	return reason
}

func (a *Accounts) newSession(ctx context.Context, account Account, device string) Session {
	now := a.time()
	origin := event.OriginFrom(ctx)
	return Session{
		ID: uuid.Must(uuid.NewV7()).String(), AccountID: account.ID,
		Generation: 1, RotatedAt: now,
		DeviceName: device, UserAgent: origin.UserAgent, IP: origin.IP,
		CreatedAt: now, LastUsedAt: now,
		ExpiresAt: now.Add(min(a.lifetimes.RefreshIdle, a.lifetimes.Session)),
		EndsAt:    now.Add(a.lifetimes.Session),
	}
}

// requestVerification returns a proof to be stored and the event that carries
// its secret, sealed, to email-service.
func (a *Accounts) requestVerification(ctx context.Context, account Account) (OneTimeToken, event.Event) {
	secret := newSecret()
	proof := OneTimeToken{
		Hash: hashSecret(secret), Purpose: purposeVerifyEmail,
		AccountID: account.ID, Email: account.Email.Address,
		CreatedAt: account.UpdatedAt, ExpiresAt: account.UpdatedAt.Add(a.lifetimes.Verification),
	}
	return proof, event.New(ctx, account.UpdatedAt, account.ID, event.UserVerificationRequested{
		Email: account.Email.Address, Name: account.Name,
		Token:     a.sealer.Seal(secret, event.VerificationContext(account.ID)),
		ExpiresAt: proof.ExpiresAt,
	})
}

// newSecret returns 256 random bits that fit into a link.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// actAs returns a context in which events are the account's own doing.
func actAs(ctx context.Context, account Account) context.Context {
	return event.WithActor(ctx, event.Actor{Type: account.Role, ID: account.ID})
}
