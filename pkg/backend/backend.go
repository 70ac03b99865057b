// Package backend is what the services behind the gateway have in common: it opens
// a service's database, Redis and outbox, and runs what every producer and every
// consumer of events needs. A service's main keeps what is special about it.
//
// It has functions and one struct, without hooks and without a registry. It contains no
// business rules.
package backend

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

// Config is the part of the configuration that every service behind the gateway
// has.
type Config struct {
	service.Common
	web.Listener
	web.BehindGateway
	web.StepUp
	postgres.Database
	bus.Redis
	bus.Streams
	bus.SigningKey
	bus.PublicKeys
	token.Expected
}

// ConsumerSchemas returns the migrations that a consumer of events needs besides
// its own: outbox, dead letters and published watermarks. A service whose own
// tables are not its consumed-event records adds reconcile.RecordsSchema.
func ConsumerSchemas() []postgres.Schema {
	return []postgres.Schema{outbox.Schema(), deadletter.Schema(), reconcile.WatermarksSchema()}
}

// Backend is a running service with its database, its Redis and its outbox. Clock tells the
// time for everything that the database stores.
type Backend struct {
	*service.Service

	DB       *postgres.Pool
	Redis    redis.UniversalClient // with bus.EventTimeout
	Outbox   *outbox.Box
	Refusals *outbox.Refusals // of requests of strangers
	Clock    *postgres.Clock
	Hints    *bus.Hints // for browsers

	cfg          Config
	signer       *event.Signer
	authenticity *bus.Authenticity
}

// Open waits for the database, migrates it to the schemas, and prepares the
// connection to Redis, which need not be up yet. Readiness depends on the database
// from then on. The caller closes the Backend.
func Open(ctx context.Context, s *service.Service, cfg Config, schemas []postgres.Schema) (*Backend, error) {
	signer, keys, err := cfg.eventKeys(s.Name)
	if err != nil {
		return nil, fmt.Errorf("check config: %w", err)
	}
	client, err := cfg.Redis.Open(bus.EventTimeout)
	if err != nil {
		return nil, err
	}
	outage := bus.LogOutages(client, s.Log)
	s.Notice("redis", func(context.Context) string { return bus.OutageNotice(outage) })
	db, err := postgres.Open(ctx, cfg.Database, s.Log, schemas...)
	if err != nil {
		client.Close()
		return nil, err
	}
	clock, err := postgres.NewClock(ctx, db, s.Log)
	if err != nil {
		db.Close()
		client.Close()
		return nil, err
	}
	s.Check("postgres", db.Ping)
	box := outbox.New(s.Name)
	return &Backend{
		Service: s, DB: db, Redis: client, Outbox: box, Refusals: outbox.NewRefusals(box, db, s.Log, clock.Now), Clock: clock, cfg: cfg,
		Hints:  bus.NewHints(bus.HintsConfig{Client: client, Producer: s.Name, Signer: signer, Log: s.Log, Metrics: s.Metrics}),
		signer: signer, authenticity: bus.NewAuthenticity(cfg.PublicKeys, keys, s.Log, s.Metrics),
	}, nil
}

// eventKeys returns the signer of a service's events and the public keys of all services. It
// fails if those do not have the signer's: consumers would refuse the events.
func (c Config) eventKeys(name string) (*event.Signer, event.PublicKeys, error) {
	signer, err := c.SigningKey.Signer(name)
	if err != nil {
		return nil, event.PublicKeys{}, err
	}
	keys, err := c.PublicKeys.Keys(c.Common)
	if err != nil {
		return nil, event.PublicKeys{}, err
	}
	if !keys.Has(signer) {
		return nil, event.PublicKeys{}, fmt.Errorf("EVENT_PUBLIC_KEYS: the key of EVENT_SIGNING_KEY is missing; add %s in every service first", signer.PublicKey())
	}
	return signer, keys, nil
}

// Close closes the connections to the database and to Redis.
func (b *Backend) Close() {
	b.DB.Close()
	b.Redis.Close()
}

// Verifier returns a verifier of access tokens that fetches keys and revoked
// sessions from auth-service. It must run, as must a Follower that calls its
// Observe.
func (b *Backend) Verifier(remote token.Remote) *token.RemoteVerifier {
	return token.NewRemoteVerifier(remote, b.cfg.Expected, b.Log, b.Metrics, time.Now)
}

// Follower returns a runner that shows observe every event of the user stream.
func (b *Backend) Follower(observe func(event.Event)) *bus.Follower {
	return bus.NewFollower(b.Redis, event.User, observe, b.authenticity, b.Log)
}

// Router returns the handler of the routes. Requests that were understood and
// refused, and privileged reads, are recorded as events.
func (b *Backend) Router(auth web.Authenticator, routes ...[]web.Route) http.Handler {
	return web.NewRouter(slices.Concat(routes...), web.Options{
		Auth:           auth,
		StepUp:         b.cfg.StepUp,
		TrustedProxies: b.cfg.GatewayNetworks,
		Development:    b.cfg.Development(),
		Log:            b.Log,
		Metrics:        b.Metrics,
		Unavailable:    func(err error) bool { return postgres.Unavailable(err) || postgres.Contended(err) },
		Refused:        b.Refusals.Refused,
		Read:           b.Outbox.Reads(b.DB),
		Ready:          b.Ready,
	})
}

// Run serves handler and runs the clock, the monitor of the streams, the outbox's relay and
// refusals, the producer's side of reconciliation, and runners, as service.Run does.
func (b *Backend) Run(ctx context.Context, handler http.Handler, runners ...service.Runner) error {
	publisher := bus.NewSigningPublisher(b.Redis, b.signer)
	epochs := outbox.NewEpochs(b.DB, b.Redis, b.Name, b.Log, b.Metrics)
	relay := outbox.NewRelay(b.DB, publisher, epochs, b.Log, b.Metrics)
	b.CheckWork("outbox", relay.Healthy)
	server := web.NewServer(b.cfg.Listener, handler, b.Log)
	server.FromGateway = true
	return b.Service.Run(ctx, server, append(runners,
		bus.NewMonitor(bus.MonitorConfig{
			Client: b.Redis, Topics: event.Topics(), MaxBytes: b.cfg.StreamMaxBytes, Log: b.Log, Metrics: b.Metrics,
		}),
		b.Clock,
		b.Hints,
		relay,
		b.Refusals,
		outbox.NewEraser(b.DB, b.Log),
		reconcile.NewProducer(reconcile.ProducerConfig{
			Name: b.Name, Outbox: outbox.NewPublished(b.DB, publisher, epochs), Redis: b.Redis,
			Interval: b.cfg.ReconcileInterval, Log: b.Log, Metrics: b.Metrics,
		}),
	)...)
}
