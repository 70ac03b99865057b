package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

// dependencies are what the domain needs besides its configuration.
type dependencies struct {
	db       *postgres.Pool
	outbox   *outbox.Box
	refusals *outbox.Refusals
	now      func() time.Time // of the database
	hasher   *password.Hasher
	log      *slog.Logger
}

// domain is what the service and its commands work with.
type domain struct {
	accounts    *account.Accounts
	keyring     *signing.Keyring
	revocations *token.Revocations
	seals       *store.Seals
}

// newDomain connects the domain to its store. It creates the first signing key.
func newDomain(ctx context.Context, d dependencies, cfg Config) (domain, error) {
	keys, err := cfg.keys()
	if err != nil {
		return domain{}, err
	}
	atRest, err := event.NewSealer(keys.atRest.Reveal())
	if err != nil {
		return domain{}, fmt.Errorf("ENCRYPTION_KEY: %w", err)
	}
	links, err := event.NewSealer(keys.links.Reveal())
	if err != nil {
		return domain{}, fmt.Errorf("EVENT_SEAL_KEY: %w", err)
	}
	passkeys, err := cfg.passkeys()
	if err != nil {
		return domain{}, err
	}
	seals := store.NewSeals(d.db, atRest)
	if err := seals.Check(ctx); err != nil {
		return domain{}, fmt.Errorf("ENCRYPTION_KEY: %w; list the key again until auth-service keys re-encrypt has run", err)
	}
	keyring, err := signing.OpenKeyring(ctx, store.NewKeys(d.db, d.outbox, atRest), d.now)
	if err != nil {
		return domain{}, err
	}
	rows := store.New(d.db, d.outbox, d.now)
	rows.Limits = cfg.limits()
	revocations := token.NewRevocations(rows.Revocations, d.log, d.now)
	accounts := account.New(account.Config{
		Brand:             cfg.BrandName,
		Store:             rows,
		Revocations:       revocations,
		Hasher:            d.hasher,
		Issuer:            signing.NewIssuer(cfg.Expected, keyring, keys.refresh, cfg.AccessTokenTTL),
		LinkSealer:        links,
		AtRest:            atRest,
		Count:             d.refusals.Record,
		Passkeys:          passkeys,
		Fingerprints:      keys.atRest,
		Lifetimes:         cfg.lifetimes(),
		PasswordMinLength: cfg.PasswordMinLength,
		Mode:              account.SignUpMode(cfg.SignUpMode),
		Verification:      account.Verification(cfg.Verification),
		RequireVerified:   cfg.RequireVerifiedEmail,
		RequireMFAFor:     cfg.RequireMFAFor,
		Log:               d.log,
		Now:               d.now,
	})
	return domain{accounts: accounts, keyring: keyring, revocations: revocations, seals: seals}, nil
}
