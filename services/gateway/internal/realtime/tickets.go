package realtime

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/problem"
)

// TicketTTL is how long a ticket can be redeemed.
const TicketTTL = 30 * time.Second

// ErrTicket says that a ticket was never issued, is used or has expired.
var ErrTicket = problem.New(problem.Unauthenticated, "ticket_invalid", "Invalid, used or expired ticket. Get a new one (POST /api/v1/realtime/ticket).")

// Tickets stand for an access token where a browser cannot send one: in the URL of a
// WebSocket. A ticket is of use once. Redis has the token, but only sealed with the ticket, of
// which it has nothing but a hash: what is in Redis admits nobody, and cannot be made up. It is
// safe for concurrent use.
type Tickets struct{ client redis.UniversalClient }

// NewTickets returns the tickets in Redis, which all gateways share.
func NewTickets(client redis.UniversalClient) Tickets { return Tickets{client} }

const (
	ticketBytes = 32
	ticketKeys  = "realtime:ticket:"
)

// Issue returns a ticket for an access token. It fails with ErrUnavailable.
func (t Tickets) Issue(ctx context.Context, accessToken string) (string, error) {
	secret := make([]byte, ticketBytes)
	_, _ = rand.Read(secret) // It never fails.
	name, seal, err := derive(secret)
	if err != nil {
		return "", err
	}
	//nolint:gosec // The key seals nothing else, so the nonce need not differ from others.
	sealed := seal.Seal(nil, make([]byte, seal.NonceSize()), []byte(accessToken), nil)
	if err := t.client.Set(ctx, name, sealed, TicketTTL).Err(); err != nil {
		return "", fmt.Errorf("store ticket: %w: %w", err, ErrUnavailable)
	}
	return base64.RawURLEncoding.EncodeToString(secret), nil
}

// Redeem returns the access token of a ticket, once. It fails with ErrTicket or ErrUnavailable.
// The token may have expired meanwhile, or its session may have ended.
func (t Tickets) Redeem(ctx context.Context, ticket string) (string, error) {
	secret, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	if err != nil || len(secret) != ticketBytes {
		return "", ErrTicket
	}
	name, seal, err := derive(secret)
	if err != nil {
		return "", err
	}
	sealed, err := t.client.GetDel(ctx, name).Bytes()
	if errors.Is(err, redis.Nil) {
		return "", ErrTicket
	}
	if err != nil {
		return "", fmt.Errorf("redeem ticket: %w: %w", err, ErrUnavailable)
	}
	accessToken, err := seal.Open(nil, make([]byte, seal.NonceSize()), sealed, nil)
	if err != nil {
		return "", ErrTicket
	}
	return string(accessToken), nil
}

// derive returns the name of a ticket in Redis and the key that seals its token.
func derive(secret []byte) (name string, seal cipher.AEAD, err error) {
	hash, err := hkdf.Key(sha256.New, secret, nil, "headgate realtime ticket name v1", sha256.Size)
	if err != nil {
		return "", nil, fmt.Errorf("derive name of ticket: %w", err)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "headgate realtime ticket seal v1", 32)
	if err != nil {
		return "", nil, fmt.Errorf("derive key of ticket: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", nil, fmt.Errorf("seal ticket: %w", err)
	}
	if seal, err = cipher.NewGCM(block); err != nil {
		return "", nil, fmt.Errorf("seal ticket: %w", err)
	}
	return ticketKeys + base64.RawURLEncoding.EncodeToString(hash), seal, nil
}
