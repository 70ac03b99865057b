package testkit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

// Expected holds the issuer and audience of an Issuer's tokens: the defaults.
var Expected = token.Expected{Issuer: "headgate", Audience: "headgate-api"}

// Issuer signs access tokens like auth-service and publishes its key.
type Issuer struct {
	JWKSURL string

	t   testing.TB
	key *ecdsa.PrivateKey
	kid string

	mu       sync.Mutex
	revoked  []token.Revocation
	accounts map[string]token.Account // by id
	asked    int
}

// NewIssuer returns an issuer that serves its key set until the test ends.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("generate key: %v", err)
	}
	i := &Issuer{t: t, key: key, kid: uuid.NewString()}
	set, err := token.MarshalJWKS(map[string]crypto.PublicKey{i.kid: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == token.RevocationsPath {
			_ = web.OK(w, http.StatusOK, i.snapshot()) // A snapshot always encodes.
			return
		}
		if r.URL.Path == token.AccountPath {
			i.serveAccount(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = w.Write(set) // It fails only if the client has disconnected.
	}))
	t.Cleanup(server.Close)
	i.JWKSURL = server.URL
	return i
}

// Token returns a token for the identity that is valid for 15 minutes. A missing user
// or session id is generated; a missing role is user, a missing time of authentication now.
func (i *Issuer) Token(identity token.Identity) string {
	i.t.Helper()
	return i.Sign(i.Claims(identity))
}

// Claims returns the claims of Token, for tests that modify them.
func (i *Issuer) Claims(identity token.Identity) token.Claims {
	if identity.UserID == "" {
		identity.UserID = uuid.Must(uuid.NewV7()).String()
	}
	if identity.SessionID == "" {
		identity.SessionID = uuid.Must(uuid.NewV7()).String()
	}
	if identity.Role == "" {
		identity.Role = token.RoleUser
	}
	now := time.Now()
	authTime := identity.AuthTime
	if authTime.IsZero() {
		authTime = now
	}
	return token.Claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    Expected.Issuer,
			Audience:  jwt.ClaimStrings{Expected.Audience},
			Subject:   identity.UserID,
			ID:        uuid.Must(uuid.NewV7()).String(),
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(15 * time.Minute)),
		},
		SessionID: identity.SessionID,
		Role:      identity.Role,
		AuthTime:  jwt.NewNumericDate(authTime),
		ACR:       identity.ACR,
		Email:     identity.Email,
		Name:      identity.Name,
	}
}

// Sign returns the token for claims.
func (i *Issuer) Sign(claims token.Claims) string {
	i.t.Helper()
	raw, err := token.Sign(i.key, i.kid, claims)
	if err != nil {
		i.t.Fatal(err)
	}
	return raw
}

// SetAccount sets an account, which the issuer serves to services with a token of it.
func (i *Issuer) SetAccount(account token.Account) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.accounts == nil {
		i.accounts = map[string]token.Account{}
	}
	i.accounts[account.ID] = account
}

// AccountsAsked returns how often an account was asked for.
func (i *Issuer) AccountsAsked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func (i *Issuer) serveAccount(w http.ResponseWriter, r *http.Request) {
	var claims token.Claims
	raw, err := web.Bearer(r)
	if err == nil {
		_, _, err = jwt.NewParser().ParseUnverified(raw, &claims)
	}
	i.mu.Lock()
	account, ok := i.accounts[claims.Subject]
	i.asked++
	i.mu.Unlock()
	if err != nil || !ok {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_ = web.OK(w, http.StatusOK, account) // An account always encodes.
}

// Revoke revokes a session without an event: verifiers find it by polling.
func (i *Issuer) Revoke(sessionID string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.revoked = append(i.revoked, token.Revocation{SessionID: sessionID, At: time.Now()})
}

func (i *Issuer) snapshot() token.Snapshot {
	i.mu.Lock()
	defer i.mu.Unlock()
	return token.Snapshot{AsOf: time.Now(), Revocations: slices.Clone(i.revoked)}
}

// Verifier returns a verifier of the issuer's tokens.
func (i *Issuer) Verifier() *token.RemoteVerifier {
	verifier := token.NewRemoteVerifier(token.Remote{JWKSURL: i.JWKSURL}, Expected, Log(i.t), prometheus.NewRegistry(), time.Now)
	Run(i.t, verifier)
	return verifier
}
