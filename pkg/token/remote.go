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

// RemoteVerifier is the Verifier of whoever has neither keys nor sessions: it
// asks auth-service for both and keeps them. Somebody must run it, and show it
// the events of event.User. It is safe for concurrent use.
type RemoteVerifier struct {
	*Verifier

	keys    *JWKS
	revoked *Revocations
}

// NewRemoteVerifier returns a verifier of the tokens of auth-service.
func NewRemoteVerifier(cfg Remote, want Expected, log *slog.Logger, metrics prometheus.Registerer, now func() time.Time) *RemoteVerifier {
	keys := NewJWKS(cfg, log, now)
	revoked := NewRevocations(RemoteSnapshots(cfg), log, now)
	v := &RemoteVerifier{Verifier: NewVerifier(keys, revoked, want, now), keys: keys, revoked: revoked}
	metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "headgate_jwks_age_seconds", Help: "Time since the keys of access tokens were fetched; over 60 while auth-service is away; +Inf before the first time.",
		}, keys.age),
		looked(&v.hits, "hit"), looked(&v.misses, "miss"),
	)
	return v
}

func looked(n *atomic.Int64, result string) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "headgate_token_cache_total", Help: "Access tokens looked up among those that were found good: a miss costs a check of the signature.",
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

// Observe takes the events that end a session and passes over all others.
func (v *RemoteVerifier) Observe(e event.Event) { v.revoked.Observe(e) }
