// User-service stores user profiles and serves them from a cache.
package main

import (
	"context"
	"time"

	"github.com/headgate/headgate/pkg/backend"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/api"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

const name = "user-service"

// cacheTimeout is how long a request waits for the cache before it reads from Postgres.
const cacheTimeout = 50 * time.Millisecond

var schemas = append(backend.ConsumerSchemas(), reconcile.RecordsSchema(), store.Schema())

func main() {
	service.Main(name, run, append(backend.ConsumerCommands[Config](name, event.User, schemas), backend.ErasureReport(name, schemas, remains))...)
}

func run(ctx context.Context, s *service.Service, cfg Config) error {
	b, err := backend.Open(ctx, s, cfg.Config, schemas)
	if err != nil {
		return err
	}
	defer b.Close()
	generation := store.NewGeneration(b.DB, s.Log)
	cache, err := cfg.Redis.OpenWith(cacheTimeout, generation.Connected)
	if err != nil {
		return err
	}
	defer cache.Close()
	blobs, err := openBlobs(ctx, cfg)
	if err != nil {
		return err
	}
	defer blobs.Close()

	profileCache := store.NewCache(store.CacheConfig{
		Client: cache, Generation: generation.Current, Reads: int(cfg.DatabaseMaxConns / 2), Memory: cfg.ProfileCacheMemory,
		Log: s.Log, Metrics: s.Metrics, Now: time.Now,
	})
	replicas, err := store.NewReplicas(ctx, b.DB, store.ReplicasConfig{URLs: cfg.ReplicaURLs, Conns: cfg.DatabaseMaxConns, Log: s.Log, Metrics: s.Metrics})
	if err != nil {
		return err
	}
	defer replicas.Close()
	rows := store.New(b.DB, b.Outbox)
	rows.Replicas = replicas
	profiles := profile.New(rows, profileCache, token.RemoteAccounts(cfg.Remote), b.Clock.Now)
	avatars := profile.NewAvatars(profiles, rows, blobs, cfg.AvatarMemory)
	exports := profile.NewExports(profiles, rows, cfg.sources(), api.MailLink(cfg.JWKSURL), cfg.ExportTTL)
	exports.Shown = cfg.assets().Shown
	deadLetters := deadletter.New(b.DB, b.Outbox, b.Clock.Now)
	verifier := b.Verifier(cfg.Remote)
	consumer := b.Consumer(backend.ConsumerConfig{
		Topic:               event.User,
		Handlers:            api.Handlers(profiles, avatars),
		DeadLetters:         deadLetters,
		DeadLetterRetention: cfg.DeadLetterRetention,
		Records:             reconcile.NewRecords(b.DB, event.User),
		Unavailable:         api.Unavailable,
		Probe:               profileCache.Ping,
	})
	router := b.Router(verifier, deadLetters.Routes(api.Prefix), api.Routes(profiles, exports, cfg.assets()), api.AvatarRoutes(avatars, cfg.assets()))
	return b.Run(ctx, router, append(consumer, verifier, b.Follower(verifier.Observe), generation.Watch(cache), profileCache, replicas, purge(exports, s.Log),
		profile.NewSweeper(avatars, cfg.AvatarSweepInterval, b.Log, b.Metrics))...)
}
