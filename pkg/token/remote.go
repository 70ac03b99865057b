package token

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
)

// RemoteVerifier is the Verifier of a process other than auth-service: it fetches and caches
// auth-service's public keys and revoked sessions. Its Run must be running, and Observe must
// get the events of event.User. It is safe for concurrent use.
type RemoteVerifier struct {
	*Verifier

	keys    *JWKS
	revoked *Revocations
}

// NewRemoteVerifier returns a verifier for the tokens of auth-service.
func NewRemoteVerifier(cfg Remote, want Expected, log *slog.Logger, metrics prometheus.Registerer, now func() time.Time) *RemoteVerifier {
	keys := NewJWKS(cfg, log, now)
	revoked := NewRevocations(RemoteSnapshots(cfg), log, now)
	v := &RemoteVerifier{Verifier: NewVerifier(keys, revoked, want, now), keys: keys, revoked: revoked}
	metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "headgate_jwks_age_seconds", Help: "Seconds since the public keys of access tokens were fetched. Over 60 while auth-service is unavailable, +Inf before the first fetch.",
		}, keys.age),
		lookups(&v.hits, "hit"), lookups(&v.misses, "miss"),
	)
	return v
}

func lookups(n *atomic.Int64, result string) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "headgate_token_cache_total", Help: "Lookups in the cache of verified access tokens, by result: hit, or miss, which costs a signature check.",
		ConstLabels: prometheus.Labels{"result": result},
	}, func() float64 { return float64(n.Load()) })
}

// Run keeps keys and revocations up to date until ctx ends.
func (v *RemoteVerifier) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { v.keys.run(ctx) })
	parts.Go(func() { v.revoked.run(ctx) })
	parts.Wait()
	return nil
}

// Observe records the session of an event that ends one, and ignores other events.
func (v *RemoteVerifier) Observe(e event.Event) { v.revoked.Observe(e) }
