// Auth-service keeps accounts and sessions, and issues tokens. It is the only service
// that sees passwords and refresh tokens.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/api"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

const name = "auth-service"

func main() { service.Main(name, run, commands...) }

func run(ctx context.Context, s *service.Service, cfg Config) error {
	db, err := postgres.Open(ctx, cfg.Database, s.Log, outbox.Schema(), store.Schema())
	if err != nil {
		return err
	}
	defer db.Close()
	redis, err := cfg.Redis.Open(bus.EventTimeout)
	if err != nil {
		return err
	}
	defer redis.Close()

	box := outbox.New(name)
	rows := store.New(db, box, time.Now)
	revocations := token.NewRevocations(rows.Revocations, s.Log, time.Now)
	keyring, err := openKeyring(ctx, db, box, cfg)
	if err != nil {
		return err
	}
	hasher, err := cfg.hasher(hashWorker)
	if err != nil {
		return err
	}
	defer hasher.Close()
	accounts, err := open(rows, keyring, revocations, hasher, s.Log, cfg)
	if err != nil {
		return err
	}
	if err := ensureAdmin(ctx, s, accounts, cfg); err != nil {
		return err
	}
	router := web.NewRouter(api.Routes(accounts, keyring, cfg.site()), web.Options{
		Auth:           token.NewVerifier(keyring, revocations, cfg.Expected, time.Now),
		TrustedProxies: cfg.GatewayNetworks,
		Development:    cfg.Development(),
		Log:            s.Log,
		Metrics:        s.Metrics,
		Unavailable:    postgres.Unavailable,
		Refused:        box.Refusals(db, s.Log),
		Ready:          s.Ready,
	})
	s.Check("postgres", db.Ping)
	return s.Run(ctx,
		web.NewServer(cfg.Listener, router, s.Log),
		accounts,
		keyring,
		revocations,
		bus.NewFollower(redis, event.User, revocations.Observe, s.Log),
		outbox.NewRelay(db, bus.NewPublisher(redis), s.Log, s.Metrics),
		reconcile.NewProducer(reconcile.ProducerConfig{
			Name: name, Outbox: outbox.NewPublished(db), Redis: redis, Interval: cfg.ReconcileInterval, Log: s.Log, Metrics: s.Metrics,
		}),
	)
}

func openKeyring(ctx context.Context, db *pgxpool.Pool, box *outbox.Box, cfg Config) (*signing.Keyring, error) {
	atRest, err := event.NewSealer(cfg.EncryptionKey.Reveal())
	if err != nil {
		return nil, fmt.Errorf("ENCRYPTION_KEY: %w", err)
	}
	return signing.OpenKeyring(ctx, store.NewKeys(db, box, atRest), time.Now)
}

// open connects the domain to its store.
func open(rows *store.Store, keyring *signing.Keyring, revocations *token.Revocations, hasher *password.Hasher, log *slog.Logger, cfg Config) (*account.Accounts, error) {
	atRest, err := event.NewSealer(cfg.EncryptionKey.Reveal())
	if err != nil {
		return nil, fmt.Errorf("ENCRYPTION_KEY: %w", err)
	}
	links, err := event.NewSealer(cfg.EventSealKey.Reveal())
	if err != nil {
		return nil, fmt.Errorf("EVENT_SEAL_KEY: %w", err)
	}
	passkeys, err := cfg.passkeys()
	if err != nil {
		return nil, fmt.Errorf("PUBLIC_BASE_URL: %w", err)
	}
	return account.New(account.Config{
		Store:             rows,
		Revocations:       revocations,
		Hasher:            hasher,
		Issuer:            signing.NewIssuer(cfg.Expected, keyring, cfg.RefreshTokenSecret.Reveal(), cfg.AccessTokenTTL),
		LinkSealer:        links,
		AtRest:            atRest,
		Passkeys:          passkeys,
		FingerprintSecret: cfg.EncryptionKey.Reveal(),
		Lifetimes:         cfg.lifetimes(),
		PasswordMinLength: cfg.PasswordMinLength,
		Mode:              account.SignUpMode(cfg.SignUpMode),
		RequireVerified:   cfg.RequireVerifiedEmail,
		Log:               log,
		Now:               time.Now,
	}), nil
}
