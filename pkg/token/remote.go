package token

import (
	"context"
	"log/slog"
	"sync"
	"time"

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
func NewRemoteVerifier(cfg Remote, want Expected, log *slog.Logger, now func() time.Time) *RemoteVerifier {
	keys := NewJWKS(cfg, log, now)
	revoked := NewRevocations(RemoteSnapshots(cfg), log, now)
	return &RemoteVerifier{Verifier: NewVerifier(keys, revoked, want, now), keys: keys, revoked: revoked}
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
