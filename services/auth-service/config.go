package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/api"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// Config is what the environment says.
type Config struct {
	service.Common
	web.Listener
	web.BehindGateway
	postgres.Database
	bus.Redis
	bus.Streams
	token.Expected

	RefreshTokenSecret service.Secret `envconfig:"REFRESH_TOKEN_SECRET" ignored:"true" generate:"true" desc:"Signs refresh tokens. At least 32 random characters."`
	EncryptionKey      service.Secret `envconfig:"ENCRYPTION_KEY" ignored:"true" generate:"true" desc:"Encrypts signing keys, TOTP secrets and kept answers in the database. At least 32 random characters; never change it alone."`
	EventSealKey       service.Secret `envconfig:"EVENT_SEAL_KEY" ignored:"true" generate:"true" desc:"Seals links in events for email-service, which must have the same. At least 32 random characters."`

	PasswordPeppers service.Secret `envconfig:"PASSWORD_PEPPERS" ignored:"true" desc:"Optional. Secrets that passwords are keyed with before they are hashed, as id:secret with commas; the first is for new hashes, the others for old ones. Whoever has the database alone can guess nothing. Never remove one that hashes were made with."`

	AccessTokenTTL  time.Duration `envconfig:"ACCESS_TOKEN_TTL" default:"15m" desc:"How long an access token is good; at most 1h."`
	RefreshTokenTTL time.Duration `envconfig:"REFRESH_TOKEN_TTL" default:"168h" desc:"How long a session lives that nobody refreshes."`
	SessionTTL      time.Duration `envconfig:"SESSION_TTL" default:"720h" desc:"How long a session lives at most."`
	RefreshGrace    time.Duration `envconfig:"REFRESH_GRACE" default:"10s" desc:"How long the refresh token before the current one gets the current one again; 0 is strict."`
	VerificationTTL time.Duration `envconfig:"VERIFICATION_TTL" default:"24h" desc:"How long a verification link works."`

	ResetTTL time.Duration `envconfig:"RESET_TTL" default:"30m" desc:"How long a link to choose a new password works; at most 1h."`

	ReauthWindow time.Duration `envconfig:"REAUTH_WINDOW" default:"15m" desc:"How long after a sign-in or a re-authentication factors can be changed."`

	SignUpMode           string `envconfig:"SIGNUP_MODE" default:"open" desc:"Who may sign up: open (everybody, and a taken address is refused), strict (everybody, and only a mail tells whether the address is taken) or closed (nobody)."`
	RequireVerifiedEmail bool   `envconfig:"REQUIRE_VERIFIED_EMAIL" default:"false" desc:"Whether an address must be verified before its account can sign in."`

	PasswordHash string `envconfig:"PASSWORD_HASH" default:"argon2id" desc:"What hashes new passwords: argon2id or bcrypt. Both are understood; at the next login a hash of the other kind is made anew."`
	BcryptCost   int    `envconfig:"BCRYPT_COST" default:"12" desc:"Cost of new bcrypt hashes, 10 to 16. With bcrypt a password has at most 72 bytes, and new hashes no pepper."`

	PasswordMinLength int `envconfig:"PASSWORD_MIN_LENGTH" default:"8" desc:"Characters that a password needs, 8 or more."`
	HashConcurrency   int `envconfig:"HASH_CONCURRENCY" default:"0" desc:"Passwords hashed at a time, in a process each; 0 is the number of cores. Each takes up to 60 MiB while it hashes."`
	HashQueue         int `envconfig:"HASH_QUEUE" default:"256" desc:"Passwords that may wait to be hashed before sign-ins are answered with 503."`

	AdminEmail    string         `envconfig:"ADMIN_EMAIL" desc:"Address of the first administrator, who is created at start while there is none."`
	AdminPassword service.Secret `envconfig:"ADMIN_PASSWORD" ignored:"true" desc:"The first administrator's password; needed with ADMIN_EMAIL."`
	PublicBaseURL string         `envconfig:"PUBLIC_BASE_URL" required:"true" desc:"The URL by which people reach the gateway, such as https://id.example.com. Passkeys need a name, not an IP address."`
	AppURL        string         `envconfig:"APP_URL" desc:"The URL of the application that people sign in to, such as https://app.example.com. The pages that mails link to lead on to it; nowhere if it is empty."`
}

// ValidateOwn checks the fields that are auth-service's own.
func (c Config) ValidateOwn() error {
	faults := []error{
		service.Strong("REFRESH_TOKEN_SECRET", c.RefreshTokenSecret),
		service.Strong("ENCRYPTION_KEY", c.EncryptionKey),
		service.Strong("EVENT_SEAL_KEY", c.EventSealKey),
	}
	if c.RefreshTokenSecret != "" && (c.RefreshTokenSecret == c.EventSealKey || c.RefreshTokenSecret == c.EncryptionKey) ||
		c.EncryptionKey != "" && c.EncryptionKey == c.EventSealKey {
		faults = append(faults, errors.New("REFRESH_TOKEN_SECRET, ENCRYPTION_KEY, EVENT_SEAL_KEY: each must differ from the others"))
	}
	if _, err := password.ParsePeppers(c.PasswordPeppers.Reveal()); err != nil {
		faults = append(faults, fmt.Errorf("PASSWORD_PEPPERS: %w", err))
	}
	switch c.PasswordHash {
	case argon2id:
	case bcryptHash:
	default:
		faults = append(faults, errors.New("PASSWORD_HASH: want argon2id or bcrypt"))
	}
	if c.BcryptCost < 10 || c.BcryptCost > 16 {
		faults = append(faults, errors.New("BCRYPT_COST: want 10 to 16"))
	}
	if c.AccessTokenTTL <= 0 || c.AccessTokenTTL > token.MaxLifetime {
		faults = append(faults, errors.New("ACCESS_TOKEN_TTL: want more than 0 and at most 1h"))
	}
	if c.RefreshTokenTTL <= 0 || c.SessionTTL < c.RefreshTokenTTL {
		faults = append(faults, errors.New("REFRESH_TOKEN_TTL: want more than 0 and at most SESSION_TTL"))
	}
	if c.RefreshGrace < 0 || c.RefreshGrace > time.Minute {
		faults = append(faults, errors.New("REFRESH_GRACE: want 0s to 1m"))
	}
	if c.VerificationTTL <= 0 {
		faults = append(faults, errors.New("VERIFICATION_TTL: want more than 0"))
	}
	if c.ResetTTL <= 0 || c.ResetTTL > time.Hour {
		faults = append(faults, errors.New("RESET_TTL: want more than 0 and at most 1h"))
	}
	if c.ReauthWindow <= 0 {
		faults = append(faults, errors.New("REAUTH_WINDOW: want more than 0"))
	}
	switch account.SignUpMode(c.SignUpMode) {
	case account.SignUpOpen, account.SignUpStrict, account.SignUpClosed:
	default:
		faults = append(faults, errors.New("SIGNUP_MODE: want open, strict or closed"))
	}
	if c.PasswordMinLength < 8 || c.PasswordMinLength > 128 {
		faults = append(faults, errors.New("PASSWORD_MIN_LENGTH: want 8 to 128"))
	}
	if c.HashConcurrency < 0 || c.HashQueue < 1 {
		faults = append(faults, errors.New("HASH_CONCURRENCY, HASH_QUEUE: want 0 or more, and 1 or more"))
	}
	if (c.AdminEmail == "") != (c.AdminPassword == "") {
		faults = append(faults, errors.New("ADMIN_EMAIL, ADMIN_PASSWORD: set both or neither"))
	}
	if !webAddress(c.PublicBaseURL) {
		faults = append(faults, errors.New("PUBLIC_BASE_URL: want http(s)://host"))
	}
	if c.AppURL != "" && !webAddress(c.AppURL) {
		faults = append(faults, errors.New("APP_URL: want http(s)://host or nothing"))
	}
	return errors.Join(faults...)
}

func webAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// The kinds of hashes.
const (
	argon2id   = "argon2id"
	bcryptHash = "bcrypt"
)

// hasher returns a hasher that works in processes of worker, or in this one if it
// is nil.
func (c Config) hasher(worker func() *exec.Cmd) (*password.Hasher, error) {
	peppers, err := password.ParsePeppers(c.PasswordPeppers.Reveal())
	if err != nil {
		return nil, fmt.Errorf("PASSWORD_PEPPERS: %w", err)
	}
	cfg := password.Config{
		Params: password.Standard, Peppers: peppers, Concurrency: c.HashConcurrency, Queue: c.HashQueue, Worker: worker,
	}
	if c.PasswordHash == bcryptHash {
		cfg.BcryptCost = c.BcryptCost
	}
	return password.NewHasher(cfg), nil
}

func (c Config) site() api.Site {
	return api.Site{Issuer: c.Issuer, BaseURL: c.PublicBaseURL, AppURL: c.AppURL}
}

func (c Config) lifetimes() account.Lifetimes {
	return account.Lifetimes{
		RefreshIdle: c.RefreshTokenTTL, Session: c.SessionTTL,
		RefreshGrace: c.RefreshGrace, Verification: c.VerificationTTL, Reset: c.ResetTTL, Reauth: c.ReauthWindow,
	}
}

// passkeys are bound to the host by which people reach the gateway (Web
// Authentication, 5.1.2): whoever moves to another one needs new ones. There are
// none, and the result is nil, if the host has no name.
func (c Config) passkeys() (*factor.WebAuthn, error) {
	u, err := url.Parse(c.PublicBaseURL)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(u.Hostname()) != nil {
		return nil, nil //nolint:nilnil // Passkeys are one of several ways to sign in.
	}
	return factor.NewWebAuthn(u.Hostname(), u.Scheme+"://"+u.Host)
}
