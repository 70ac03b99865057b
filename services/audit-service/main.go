// Audit-service records every security-relevant event once, and serves the log to those
// who may read it.
package main

import (
	"context"

	"github.com/headgate/headgate/pkg/backend"
	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/audit-service/internal/api"
	"github.com/headgate/headgate/services/audit-service/internal/store"
)

const name = "audit-service"

// window is the number of events in flight, which share inserts.
const window = 1000

// schemas have no consumed-event records: the log itself is the record.
var schemas = append(backend.ConsumerSchemas(), store.Schema())

func main() {
	service.Main(name, run, append(backend.ConsumerCommands[Config](name, event.Audit, schemas), backend.ErasureReport(name, schemas, remains))...)
}

func run(ctx context.Context, s *service.Service, cfg Config) error {
	b, err := backend.Open(ctx, s, cfg.Config, schemas)
	if err != nil {
		return err
	}
	defer b.Close()

	log, deadLetters := store.New(b.DB), deadletter.New(b.DB, b.Outbox, b.Clock.Now)
	verifier := b.Verifier(cfg.Remote)
	consumer := b.Consumer(backend.ConsumerConfig{
		Topic:               event.Audit,
		Rest:                hinted(log.Add, b.Hints), // The log also records events that this release does not know.
		DeadLetters:         deadLetters,
		DeadLetterRetention: cfg.DeadLetterRetention,
		Unavailable:         postgres.Unavailable,
		Window:              window,
	})
	router := b.Router(verifier, api.Routes(log), deadLetters.Routes(api.Prefix))
	return b.Run(ctx, router, append(consumer, verifier, b.Follower(verifier.Observe))...)
}

func remains(ctx context.Context, _ Config, db *postgres.Pool, userID string) (map[string]int, error) {
	return store.Remains(ctx, db, userID)
}

// hinted returns add, which also tells browsers that the log has more records. It leaves out
// that somebody read the log: a page that then reads it again would never come to rest.
func hinted(add bus.Handler, hints *bus.Hints) bus.Handler {
	read := event.AuditRead{}.EventName()
	return func(ctx context.Context, e event.Event) error {
		err := add(ctx, e)
		if err == nil && e.Name != read {
			hints.Count(event.AuditAppended{}, 1)
		}
		return err
	}
}
