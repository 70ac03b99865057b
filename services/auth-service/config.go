package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/backend"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/api"
	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/password"
)

// Config is the configuration in the environment.
type Config struct {
	backend.Config
	service.Brand

	RefreshTokenSecret service.Secret `envconfig:"REFRESH_TOKEN_SECRET" ignored:"true" generate:"true" desc:"Signs refresh tokens. One secret of at least 32 random characters, or a list of id:secret: the first is for new things, the others for existing ones."`
	EncryptionKey      service.Secret `envconfig:"ENCRYPTION_KEY" ignored:"true" generate:"true" desc:"Encrypts signing keys, TOTP secrets and stored answers in the database. One secret, or a list like REFRESH_TOKEN_SECRET. What is encrypted with a secret that is no longer listed cannot be read."`
	EventSealKey       service.Secret `envconfig:"EVENT_SEAL_KEY" ignored:"true" generate:"true" desc:"Seals links in events for email-service, which needs the same. One secret, or a list like REFRESH_TOKEN_SECRET."`

	PasswordPeppers    service.Secret `envconfig:"PASSWORD_PEPPERS" ignored:"true" desc:"Optional. Secrets that passwords are keyed with before they are hashed, as a comma-separated list of id:secret. The first is for new hashes, the others for existing ones. With peppers, a stolen database alone is useless for guessing passwords. Never remove one that hashes still use."`
	FirebaseSignerKeys service.Secret `envconfig:"FIREBASE_SIGNER_KEYS" ignored:"true" desc:"Optional. The signer keys (base64_signer_key) of Firebase projects whose users were imported, as a comma-separated list of id:key. Their hashes name the id and cannot be checked without the key. Remove a key when no hash uses it any more."`

	AccessTokenTTL  time.Duration `envconfig:"ACCESS_TOKEN_TTL" default:"15m" desc:"How long an access token is valid; at most 1h."`
	RefreshTokenTTL time.Duration `envconfig:"REFRESH_TOKEN_TTL" default:"168h" desc:"How long a session lasts without a refresh."`
	SessionTTL      time.Duration `envconfig:"SESSION_TTL" default:"720h" desc:"How long a session lasts in total."`
	RefreshGrace    time.Duration `envconfig:"REFRESH_GRACE" default:"10s" desc:"How long the previous refresh token still gets the current one; 0 turns this off."`
	VerificationTTL time.Duration `envconfig:"VERIFICATION_TTL" default:"24h" desc:"How long a verification link is valid."`

	ResetTTL time.Duration `envconfig:"RESET_TTL" default:"30m" desc:"How long a link to choose a new password is valid; at most 1h."`

	SignUpMode           string `envconfig:"SIGNUP_MODE" default:"open" desc:"Who may sign up: open (anyone; an address that has an account is refused), strict (anyone; only an email tells whether the address has an account) or closed (no one)."`
	RequireVerifiedEmail bool   `envconfig:"REQUIRE_VERIFIED_EMAIL" default:"false" desc:"Whether an address must be verified before its account can sign in."`
	Verification         string `envconfig:"VERIFICATION" default:"proof" desc:"What verifies an address: proof (the link with a session or the password of the account, since another person may have signed up with the address; a new address also by the link alone in a network of a live session) or link (the link alone; then the next password reset removes the passkeys and authenticator apps of the account)."`

	UnverifiedTTL *time.Duration `envconfig:"UNVERIFIED_TTL" desc:"How long an account is kept whose address is not verified; 0 means forever. It applies to accounts that sign up while it is set. Default: 168h if accounts must verify their address to sign in (SIGNUP_MODE=strict or REQUIRE_VERIFIED_EMAIL), else 0."`

	DeletionGrace time.Duration `envconfig:"ACCOUNT_DELETION_GRACE" default:"336h" desc:"How long an account whose owner has deleted it can still be restored, by signing in. Until then nobody else can sign up with its address. 0 deletes at once. Administrators always delete at once."`

	NetworkMailLimit       int `envconfig:"NETWORK_MAIL_LIMIT" default:"200" desc:"How many emails and answers that reveal whether an address has an account one client address can cause an hour; 0 means no limit."`
	MaxConsecutiveFailures int `envconfig:"MAX_CONSECUTIVE_FAILURES" default:"100" desc:"After how many failed sign-ins in a row an account accepts passwords only from networks and devices that its owner has used, until one succeeds there or the owner uses a reset link; 0 turns this off."`

	MaxSessions int `envconfig:"MAX_SESSIONS" default:"100" desc:"How many sessions an account can have: a sign-in ends the oldest; 0 means no limit."`

	PasswordHash string `envconfig:"PASSWORD_HASH" default:"argon2id" desc:"Algorithm of new password hashes: argon2id or bcrypt. Hashes of both are accepted; the next login replaces those of the other algorithm."`
	BcryptCost   int    `envconfig:"BCRYPT_COST" default:"12" desc:"Cost of new bcrypt hashes, 10 to 16. With bcrypt, a password has at most 72 bytes, and new hashes have no pepper."`

	PasswordMinLength int `envconfig:"PASSWORD_MIN_LENGTH" default:"8" desc:"Minimum length of a password in characters, at least 8."`
	HashConcurrency   int `envconfig:"HASH_CONCURRENCY" default:"0" desc:"How many passwords are hashed at a time, each in a process of its own; 0 means the number of cores. Each needs up to 60 MiB while it hashes, or 300 MiB for an imported hash of the highest costs."`
	HashQueue         int `envconfig:"HASH_QUEUE" default:"256" desc:"How many sign-ins may wait for their passwords to be hashed before others are answered with 503, and as many requests of signed-in users."`

	AdminEmail      string         `envconfig:"ADMIN_EMAIL" desc:"Email address of the first administrator, created at start if there is none."`
	AdminPassword   service.Secret `envconfig:"ADMIN_PASSWORD" ignored:"true" desc:"Password of the first administrator; required with ADMIN_EMAIL."`
	PublicBaseURL   string         `envconfig:"PUBLIC_BASE_URL" required:"true" desc:"The public URL of the gateway, such as https://id.example.com. In production it must be https, except on localhost. Passkeys need a host name, not an IP address."`
	WebAuthnRPID    string         `envconfig:"WEBAUTHN_RP_ID" desc:"The domain that passkeys are bound to, such as example.com. Default: the host of PUBLIC_BASE_URL. After a change, no existing passkey can sign in."`
	WebAuthnRPName  string         `envconfig:"WEBAUTHN_RP_NAME" desc:"The name that browsers show when a passkey is created. Default: BRAND_NAME."`
	WebAuthnOrigins factor.Origins `envconfig:"WEBAUTHN_ORIGINS" desc:"Origins besides that of PUBLIC_BASE_URL that may use passkeys: comma-separated web origins such as https://app.example.com, and applications for Android as android:apk-key-hash: and the SHA-256 hash of the signing certificate in base64url. Web origins outside of WEBAUTHN_RP_ID are listed at /.well-known/webauthn, which browsers read from that domain."`
	AppURL          string         `envconfig:"APP_URL" desc:"The URL of the application that people sign in to, such as https://app.example.com; https in production, except on localhost. Landing pages link to it; they have no link if it is empty."`
}

// ValidateOwn checks the fields that are auth-service's own.
func (c Config) ValidateOwn() error {
	var faults []error
	if _, err := c.keys(); err != nil {
		faults = append(faults, err)
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
	switch account.SignUpMode(c.SignUpMode) {
	case account.SignUpOpen, account.SignUpStrict, account.SignUpClosed:
	default:
		faults = append(faults, errors.New("SIGNUP_MODE: want open, strict or closed"))
	}
	switch account.Verification(c.Verification) {
	case account.VerifyByProof, account.VerifyByLink:
	default:
		faults = append(faults, errors.New("VERIFICATION: want proof or link"))
	}
	if c.UnverifiedTTL != nil && *c.UnverifiedTTL != 0 && *c.UnverifiedTTL < c.VerificationTTL {
		faults = append(faults, errors.New("UNVERIFIED_TTL: want 0 or at least VERIFICATION_TTL"))
	}
	if c.DeletionGrace < 0 || c.DeletionGrace > 90*24*time.Hour {
		faults = append(faults, errors.New("ACCOUNT_DELETION_GRACE: want 0 to 2160h"))
	}
	if c.PasswordMinLength < 8 || c.PasswordMinLength > 128 {
		faults = append(faults, errors.New("PASSWORD_MIN_LENGTH: want 8 to 128"))
	}
	if c.NetworkMailLimit < 0 || c.MaxConsecutiveFailures < 0 || c.MaxSessions < 0 {
		faults = append(faults, errors.New("NETWORK_MAIL_LIMIT, MAX_CONSECUTIVE_FAILURES, MAX_SESSIONS: want 0 or more"))
	}
	if c.HashConcurrency < 0 || c.HashQueue < 1 {
		faults = append(faults, errors.New("HASH_CONCURRENCY, HASH_QUEUE: want 0 or more, and 1 or more"))
	}
	if (c.AdminEmail == "") != (c.AdminPassword == "") {
		faults = append(faults, errors.New("ADMIN_EMAIL, ADMIN_PASSWORD: set both or neither"))
	}
	if err := c.CheckURL("PUBLIC_BASE_URL", c.PublicBaseURL); err != nil {
		faults = append(faults, err)
	} else if _, err := c.passkeys(); err != nil {
		faults = append(faults, err)
	}
	if c.AppURL != "" {
		faults = append(faults, c.CheckURL("APP_URL", c.AppURL))
	}
	return errors.Join(faults...)
}

// keys are the lists of keys in the configuration.
type keys struct{ refresh, atRest, links, peppers, signers service.Keys }

func (c Config) keys() (keys, error) {
	var k keys
	var err [5]error
	k.refresh, err[0] = service.ParseKeys("REFRESH_TOKEN_SECRET", c.RefreshTokenSecret)
	k.atRest, err[1] = service.ParseKeys("ENCRYPTION_KEY", c.EncryptionKey)
	k.links, err[2] = service.ParseKeys("EVENT_SEAL_KEY", c.EventSealKey)
	if c.PasswordPeppers != "" {
		k.peppers, err[3] = service.ParseKeys("PASSWORD_PEPPERS", c.PasswordPeppers)
	}
	if c.FirebaseSignerKeys != "" {
		k.signers, err[4] = service.ParseKeys("FIREBASE_SIGNER_KEYS", c.FirebaseSignerKeys)
		for _, key := range k.signers {
			if fault := password.SignerKey(key.Secret.Reveal()); fault != nil {
				err[4] = errors.Join(err[4], fmt.Errorf("FIREBASE_SIGNER_KEYS, key %s: %w", key.ID, fault))
			}
		}
	}
	if err := errors.Join(err[:]...); err != nil {
		return k, err
	}
	if !service.Disjoint(k.refresh, k.atRest, k.links, k.peppers, k.signers) {
		return k, errors.New("REFRESH_TOKEN_SECRET, ENCRYPTION_KEY, EVENT_SEAL_KEY, PASSWORD_PEPPERS, FIREBASE_SIGNER_KEYS: each must differ from the others")
	}
	return k, nil
}

// The algorithms of new hashes.
const (
	argon2id   = "argon2id"
	bcryptHash = "bcrypt"
)

// hasher returns a hasher that works in processes that worker starts, or in this one if
// worker is nil.
func (c Config) hasher(worker func() *exec.Cmd) (*password.Hasher, error) {
	keys, err := c.keys()
	if err != nil {
		return nil, err
	}
	cfg := password.Config{
		Params: password.Standard, Peppers: keys.peppers, Signers: keys.signers, Concurrency: c.HashConcurrency, Queue: c.HashQueue, Worker: worker,
	}
	if c.PasswordHash == bcryptHash {
		cfg.BcryptCost = c.BcryptCost
	}
	return password.NewHasher(cfg), nil
}

func (c Config) site() api.Site {
	return api.Site{Brand: c.BrandName, Issuer: c.Issuer, BaseURL: c.PublicBaseURL, AppURL: c.AppURL, RelatedOrigins: c.relyingParty().Related()}
}

func (c Config) limits() account.Limits {
	return account.Limits{MailsPerNetwork: c.NetworkMailLimit, ConsecutiveFailures: c.MaxConsecutiveFailures, Sessions: c.MaxSessions}
}

func (c Config) lifetimes() account.Lifetimes {
	return account.Lifetimes{
		RefreshIdle: c.RefreshTokenTTL, Session: c.SessionTTL,
		RefreshGrace: c.RefreshGrace, Verification: c.VerificationTTL, Reset: c.ResetTTL, Reauth: c.ReauthWindow,
		Unverified: c.unverifiedTTL(), DeletionGrace: c.DeletionGrace,
	}
}

// unverifiedTTL returns how long unverified accounts are kept; 0 means for ever.
func (c Config) unverifiedTTL() time.Duration {
	cannotSignIn := c.RequireVerifiedEmail || account.SignUpMode(c.SignUpMode) == account.SignUpStrict
	switch {
	case c.UnverifiedTTL != nil:
		return *c.UnverifiedTTL
	case cannotSignIn:
		return max(7*24*time.Hour, c.VerificationTTL)
	}
	return 0
}

// relyingParty returns the site that passkeys are for (Web Authentication, 5.1.2). It has no
// ID if PUBLIC_BASE_URL has an IP address and WEBAUTHN_RP_ID is not set.
func (c Config) relyingParty() factor.RelyingParty {
	rp := factor.RelyingParty{ID: c.WebAuthnRPID, Name: cmp.Or(c.WebAuthnRPName, c.BrandName), Origins: c.WebAuthnOrigins}
	u, err := url.Parse(c.PublicBaseURL)
	if err != nil {
		return rp
	}
	if origin := factor.WebOrigin(u); origin != "" {
		rp.ID = cmp.Or(rp.ID, strings.ToLower(u.Hostname()))
		rp.Origins = append(factor.Origins{origin}, rp.Origins...)
	}
	return rp
}

// passkeys returns the checker of passkeys, or nil if the relying party has no ID or no
// origin.
func (c Config) passkeys() (*factor.WebAuthn, error) {
	switch rp := c.relyingParty(); {
	case rp.ID == "" && len(rp.Origins) > 0:
		return nil, errors.New("WEBAUTHN_ORIGINS: set WEBAUTHN_RP_ID, because PUBLIC_BASE_URL has an IP address")
	case rp.ID == "" || len(rp.Origins) == 0:
		return nil, nil //nolint:nilnil // Passkeys are one of several ways to sign in.
	default:
		if err := rp.Validate(); err != nil {
			return nil, fmt.Errorf("WEBAUTHN_RP_ID, WEBAUTHN_ORIGINS: %w", err)
		}
		return factor.NewWebAuthn(rp)
	}
}
