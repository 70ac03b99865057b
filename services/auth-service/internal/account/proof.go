package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"

	"github.com/headgate/headgate/pkg/event"
)

// requestVerification adds a proof and the event that carries its secret,
// sealed, to email-service.
func (a *Accounts) requestVerification(ctx context.Context, c *Change) {
	now := a.time()
	secret := newSecret()
	proof := OneTimeToken{
		Hash: hashSecret(secret), Purpose: purposeVerifyEmail,
		AccountID: c.Account.ID, Email: c.Account.Email.Address,
		CreatedAt: now, ExpiresAt: now.Add(a.lifetimes.Verification),
	}
	c.Proofs = append(c.Proofs, proof)
	c.record(ctx, now, event.UserVerificationRequested{
		Email: proof.Email, Name: c.Account.Name,
		Token:     a.sealer.Seal(secret, event.VerificationContext(c.Account.ID)),
		ExpiresAt: proof.ExpiresAt,
	})
}

// newSecret returns 256 random bits that fit into a link.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
