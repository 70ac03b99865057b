// Auth-service keeps accounts and sessions and issues tokens. It is the only
// service that knows a password or a refresh token.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/api"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

const name = "auth-service"

func main() {
	service.Main(name, run, service.Command[Config]{
		Name: "admin create", Usage: "create an administrator: admin create EMAIL [NAME]; the password is read from standard input", Run: createAdmin,
	})
}

func run(ctx context.Context, s *service.Service, cfg Config) error {
	db, err := postgres.Open(ctx, cfg.Database, s.Log, outbox.Schema(), store.Schema())
	if err != nil {
		return err
	}
	defer db.Close()
	redis, err := cfg.Redis.Open(bus.EventPatience)
	if err != nil {
		return err
	}
	defer redis.Close()

	box := outbox.New(name)
	rows := store.New(db, box, time.Now)
	revocations := token.NewRevocations(rows.Revocations, s.Log, time.Now)
	accounts, issuer, err := open(ctx, rows, revocations, s.Log, cfg)
	if err != nil {
		return err
	}
	if err := ensureAdmin(ctx, s, accounts, cfg); err != nil {
		return err
	}
	jwks, err := issuer.JWKS()
	if err != nil {
		return err
	}
	router := web.NewRouter(api.Routes(accounts, jwks), web.Options{
		Auth:           token.NewVerifier(issuer, revocations, cfg.Expected, time.Now),
		TrustedProxies: cfg.GatewayNetworks,
		Development:    cfg.Development(),
		Log:            s.Log,
		Metrics:        s.Metrics,
		Unavailable:    postgres.Unavailable,
		Denied:         box.Denials(db, s.Log),
		Live:           service.Livez,
		Ready:          s.PublicReadyz,
	})
	s.Check("postgres", db.Ping)
	return s.Run(ctx,
		web.NewServer(cfg.Listener, router, s.Log),
		accounts,
		revocations,
		bus.NewFollower(redis, event.User, revocations.Observe, s.Log),
		outbox.NewRelay(db, bus.NewPublisher(redis), s.Log, s.Metrics),
		outbox.NewReconciler(outbox.ReconcilerConfig{
			Database: db, Redis: redis, Producer: name, Interval: cfg.ReconcileInterval, Log: s.Log, Metrics: s.Metrics,
		}),
	)
}

// open wires the domain to its store.
func open(ctx context.Context, rows *store.Store, revocations *token.Revocations, log *slog.Logger, cfg Config) (*account.Accounts, *account.Issuer, error) {
	atRest, err := event.NewSealer(cfg.EncryptionKey.Reveal())
	if err != nil {
		return nil, nil, fmt.Errorf("ENCRYPTION_KEY: %w", err)
	}
	links, err := event.NewSealer(cfg.EventSealKey.Reveal())
	if err != nil {
		return nil, nil, fmt.Errorf("EVENT_SEAL_KEY: %w", err)
	}
	keys, err := rows.SigningKeys(ctx, atRest)
	if err != nil {
		return nil, nil, err
	}
	issuer, err := account.NewIssuer(cfg.Expected, keys, cfg.RefreshTokenSecret.Reveal())
	if err != nil {
		return nil, nil, err
	}
	return account.New(account.Config{
		Store:             rows,
		Revocations:       revocations,
		Hasher:            password.NewHasher(password.Standard, cfg.HashConcurrency, cfg.HashQueue),
		Issuer:            issuer,
		Sealer:            links,
		Lifetimes:         cfg.lifetimes(),
		PasswordMinLength: cfg.PasswordMinLength,
		Mode:              account.Mode(cfg.SignUpMode),
		RequireVerified:   cfg.RequireVerifiedEmail,
		Log:               log,
		Now:               time.Now,
	}), issuer, nil
}
