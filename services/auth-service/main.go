// Auth-service keeps accounts and sessions, and issues tokens. It is the only service
// that sees passwords and refresh tokens.
package main

import (
	"context"
	"slices"

	"github.com/headgate/headgate/pkg/backend"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/api"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

const name = "auth-service"

var schemas = []postgres.Schema{outbox.Schema(), store.Schema()}

func main() {
	service.Main(name, run, slices.Concat(commands, backend.ProducerCommands[Config](name, schemas), []service.Command[Config]{backend.ErasureReport(name, schemas, remains)})...)
}

func run(ctx context.Context, s *service.Service, cfg Config) error {
	b, err := backend.Open(ctx, s, cfg.Config, schemas)
	if err != nil {
		return err
	}
	defer b.Close()
	hasher, err := cfg.hasher(hashWorker)
	if err != nil {
		return err
	}
	defer hasher.Close()
	d, err := newDomain(ctx, dependencies{db: b.DB, outbox: b.Outbox, refusals: b.Refusals, now: b.Clock.Now, hasher: hasher, log: s.Log}, cfg)
	if err != nil {
		return err
	}
	if err := ensureAdmin(ctx, s, d.accounts, cfg); err != nil {
		return err
	}
	// This service verifies tokens with its own keys; the others fetch them.
	verifier := token.NewVerifier(d.keyring, d.revocations, cfg.Expected, b.Clock.Now)
	router := b.Router(verifier, api.Routes(d.accounts, d.keyring, cfg.site()))
	return b.Run(ctx, router, d.accounts, d.keyring, d.revocations, b.Follower(d.revocations.Observe))
}

func remains(ctx context.Context, _ Config, db *postgres.Pool, userID string) (map[string]int, error) {
	return store.Remains(ctx, db, userID)
}
