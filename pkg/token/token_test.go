package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

func TestMain(m *testing.M) { testkit.Main(m) }

type keys map[string]crypto.PublicKey

func (k keys) Key(_ context.Context, kid string) (crypto.PublicKey, error) {
	if key, ok := k[kid]; ok {
		return key, nil
	}
	return nil, token.ErrUnknownKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func claims(change func(*token.Claims)) token.Claims {
	now := time.Now()
	c := token.Claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: testkit.Expected.Issuer, Audience: jwt.ClaimStrings{testkit.Expected.Audience}, Subject: "u1",
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(time.Minute)),
		},
		SessionID: "s1", Role: token.RoleAdmin, Email: "a@example.com", Name: "A",
	}
	if change != nil {
		change(&c)
	}
	return c
}

func TestVerifyReturnsTheIdentity(t *testing.T) {
	t.Parallel()
	es := newKey(t)
	public, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v := token.NewVerifier(keys{"es": es.Public(), "ed": public}, none(t), testkit.Expected, time.Now)
	signed := claims(nil)
	want := token.Identity{
		UserID: "u1", SessionID: "s1", Role: token.RoleAdmin, Email: "a@example.com", Name: "A", IssuedAt: signed.IssuedAt.UTC(),
	}
	for kid, key := range map[string]crypto.Signer{"es": es, "ed": ed} {
		raw, err := token.Sign(key, kid, signed)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.Verify(t.Context(), raw); err != nil || got != want {
			t.Errorf("%s: Verify = %+v, %v, want %+v", kid, got, err, want)
		}
	}
}

// TestSEC01To09VerifyRefuses covers SEC-01 to SEC-09 as far as a verifier goes.
func TestSEC01To09VerifyRefuses(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	v := token.NewVerifier(keys{"k": key.Public()}, none(t), testkit.Expected, time.Now)
	f := newForger(t, key)
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	set, err := token.MarshalJWKS(keys{"k": key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	later := strconv.FormatInt(time.Now().Add(time.Minute).Unix(), 10)
	if _, err := v.Verify(t.Context(), f.withExpiry(later)); err != nil {
		t.Fatalf("Verify of claims as text = %v", err)
	}
	foreign := newForger(t, newKey(t)).good
	ago := func(d time.Duration) *jwt.NumericDate { return jwt.NewNumericDate(time.Now().Add(-d)) }

	for name, tc := range map[string]struct {
		raw  string
		want error
	}{
		"nothing":             {"", token.ErrInvalid},
		"junk":                {"junk", token.ErrInvalid},
		"huge":                {strings.Repeat("a", 65<<10), token.ErrInvalid},
		"SEC-01 alg none":     {f.forge(`{"alg":"none","typ":"at+jwt","kid":"k"}`, func(string) []byte { return nil }), token.ErrInvalid},
		"SEC-01 alg nOnE":     {f.forge(`{"alg":"nOnE","typ":"at+jwt","kid":"k"}`, func(string) []byte { return nil }), token.ErrInvalid},
		"SEC-02 HS256":        {f.confused(point), token.ErrInvalid},
		"SEC-02 DER":          {f.confused(der), token.ErrInvalid},
		"SEC-02 PEM":          {f.confused(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), token.ErrInvalid},
		"SEC-02 JWKS":         {f.confused(set), token.ErrInvalid},
		"SEC-02 another alg":  {f.forge(`{"alg":"EdDSA","typ":"at+jwt","kid":"k"}`, f.hmac(point)), token.ErrInvalid},
		"SEC-04 unknown kid":  {f.header(func(h map[string]any) { h["kid"] = "../../dev/null" }), token.ErrInvalid},
		"SEC-04 number kid":   {f.header(func(h map[string]any) { h["kid"] = 7 }), token.ErrInvalid},
		"SEC-04 long kid":     {f.header(func(h map[string]any) { h["kid"] = strings.Repeat("k", 1<<10) }), token.ErrInvalid},
		"SEC-04 array kid":    {f.header(func(h map[string]any) { h["kid"] = []string{"k"} }), token.ErrInvalid},
		"SEC-04 huge kid":     {f.header(func(h map[string]any) { h["kid"] = strings.Repeat("k", 10<<10) }), token.ErrInvalid},
		"SEC-04 SQL kid":      {f.header(func(h map[string]any) { h["kid"] = "' OR 1=1--" }), token.ErrInvalid},
		"SEC-04 no kid":       {f.header(func(h map[string]any) { delete(h, "kid") }), token.ErrInvalid},
		"SEC-05 typ JWT":      {f.header(func(h map[string]any) { h["typ"] = "JWT" }), token.ErrInvalid},
		"SEC-05 typ refresh":  {f.header(func(h map[string]any) { h["typ"] = "refresh+jwt" }), token.ErrInvalid},
		"SEC-08 twice sub":    {f.payload(`{"iss":"` + testkit.Expected.Issuer + `","aud":"` + testkit.Expected.Audience + `","sub":"u1","sub":"u2","sid":"s1","role":"admin","exp":` + later + `}`), token.ErrInvalid},
		"SEC-08 4 segments":   {f.good + ".x", token.ErrInvalid},
		"SEC-08 2 segments":   {f.good[:strings.LastIndex(f.good, ".")], token.ErrInvalid},
		"SEC-08 two dots":     {strings.Replace(f.good, ".", "..", 1), token.ErrInvalid},
		"SEC-08 crit":         {f.header(func(h map[string]any) { h["crit"] = []string{"x"} }), token.ErrInvalid},
		"SEC-06 issuer":       {f.with(func(c *token.Claims) { c.Issuer = "https://headgate.evil" }), token.ErrInvalid},
		"SEC-06 audience":     {f.with(func(c *token.Claims) { c.Audience = jwt.ClaimStrings{"other"} }), token.ErrInvalid},
		"SEC-06 no audience":  {f.with(func(c *token.Claims) { c.Audience = nil }), token.ErrInvalid},
		"SEC-07 expired":      {f.with(func(c *token.Claims) { c.ExpiresAt = ago(90 * time.Second) }), token.ErrExpired},
		"SEC-07 exp text":     {f.withExpiry(`"` + later + `"`), token.ErrInvalid},
		"SEC-07 exp 1e300":    {f.withExpiry("1e300"), token.ErrExpired},
		"SEC-07 exp negative": {f.withExpiry("-1"), token.ErrExpired},
		"SEC-07 no expiry":    {f.with(func(c *token.Claims) { c.ExpiresAt = nil }), token.ErrInvalid},
		"SEC-07 not yet":      {f.with(func(c *token.Claims) { c.NotBefore = ago(-5 * time.Minute) }), token.ErrInvalid},
		"SEC-07 issued later": {f.with(func(c *token.Claims) { c.IssuedAt = ago(-time.Hour) }), token.ErrInvalid},
		"no subject":          {f.with(func(c *token.Claims) { c.Subject = "" }), token.ErrInvalid},
		"no session":          {f.with(func(c *token.Claims) { c.SessionID = "" }), token.ErrInvalid},
		"SEC-09 last changed": {f.flipped(1), token.ErrInvalid},
		"SEC-09 2nd changed":  {f.flipped(2), token.ErrInvalid},
		"SEC-09 3rd changed":  {f.flipped(3), token.ErrInvalid},
		"SEC-09 truncated":    {f.good[:len(f.good)-4], token.ErrInvalid},
		"SEC-09 no signature": {f.good[:strings.LastIndex(f.good, ".")+1], token.ErrInvalid},
		"SEC-09 padded":       {f.good + "==", token.ErrInvalid},
		"SEC-09 zeros":        {f.good[:strings.LastIndex(f.good, ".")+1] + base64.RawURLEncoding.EncodeToString(make([]byte, 64)), token.ErrInvalid},
		"another's key":       {foreign, token.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := v.Verify(t.Context(), tc.raw); !errors.Is(err, tc.want) || got != (token.Identity{}) {
				t.Errorf("Verify = %+v, %v, want %v", got, err, tc.want)
			}
		})
	}
}

// TestSEC03KeysInTheHeader: a key that a token brings along, or says where to get,
// is not taken and not fetched.
func TestSEC03KeysInTheHeader(t *testing.T) {
	t.Parallel()
	server, stranger := newJWKSServer(t), newKey(t)
	server.publish(t, keys{"k": stranger.Public()})
	set := *server.set.Load()
	var own struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(set, &own); err != nil {
		t.Fatal(err)
	}
	v := token.NewVerifier(keys{"k": newKey(t).Public()}, none(t), testkit.Expected, time.Now)
	for name, value := range map[string]any{
		"jwk": own.Keys[0], "jku": server.URL, "x5u": server.URL, "x5c": []string{"MIIB"},
	} {
		forged := jwt.NewWithClaims(jwt.SigningMethodES256, claims(nil))
		forged.Header["typ"], forged.Header["kid"], forged.Header[name] = token.Type, "k", value
		raw, err := forged.SignedString(stranger)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.Verify(t.Context(), raw); !errors.Is(err, token.ErrInvalid) {
			t.Errorf("%s: Verify = %+v, %v", name, got, err)
		}
	}
	if n := server.fetches.Load(); n != 0 {
		t.Errorf("%d keys were fetched from where a token said", n)
	}
}

// jwksServer serves whatever set it holds and counts the fetches.
type jwksServer struct {
	*httptest.Server
	set     atomic.Pointer[[]byte]
	fetches atomic.Int64
}

func newJWKSServer(t *testing.T) *jwksServer {
	t.Helper()
	s := &jwksServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.fetches.Add(1)
		set := s.set.Load()
		if set == nil {
			http.Error(w, "unavailable", http.StatusServiceUnavailable)
			return
		}
		if _, err := w.Write(*set); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *jwksServer) publish(t *testing.T, keys map[string]crypto.PublicKey) {
	t.Helper()
	set, err := token.MarshalJWKS(keys)
	if err != nil {
		t.Fatal(err)
	}
	s.set.Store(&set)
}

func TestSEC11JWKSRotatesWithoutRefusingAnybody(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	advance := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }

	server := newJWKSServer(t)
	set := token.NewJWKS(token.Remote{JWKSURL: server.URL}, testkit.Log(t), clock)
	one, two := newKey(t), newKey(t)

	if _, err := set.Key(t.Context(), "one"); !errors.Is(err, token.ErrNoKeys) {
		t.Fatalf("Key before any fetch worked = %v, want ErrNoKeys", err)
	}
	server.publish(t, keys{"one": one.Public()})
	advance(time.Second)
	if _, err := set.Key(t.Context(), "one"); err != nil {
		t.Fatalf("Key once the server is there = %v", err)
	}
	before := server.fetches.Load()
	for range 100 {
		if _, err := set.Key(t.Context(), "forged"); !errors.Is(err, token.ErrUnknownKey) {
			t.Fatalf("Key(forged) = %v, want ErrUnknownKey", err)
		}
	}
	if n := server.fetches.Load() - before; n > 1 {
		t.Errorf("100 forged ids made %d fetches, want at most 1", n)
	}
	server.publish(t, keys{"one": one.Public(), "two": two.Public()})
	advance(31 * time.Second)
	if _, err := set.Key(t.Context(), "two"); err != nil {
		t.Errorf("Key of a new key = %v", err)
	}
	server.Close()
	advance(time.Hour)
	for range 3 {
		if _, err := set.Key(t.Context(), "one"); err != nil {
			t.Errorf("Key while the server is unavailable = %v", err)
		}
	}
}

func TestSEC10JWKSHoldsNothingPrivate(t *testing.T) {
	t.Parallel()
	set, err := token.MarshalJWKS(keys{"k": newKey(t).Public()})
	if err != nil {
		t.Fatal(err)
	}
	var decoded struct{ Keys []map[string]any }
	if err := json.Unmarshal(set, &decoded); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"d", "k", "p", "q"} {
		if _, ok := decoded.Keys[0][secret]; ok {
			t.Errorf("SEC-10: the set has the member %q", secret)
		}
	}
	if decoded.Keys[0]["kid"] != "k" || decoded.Keys[0]["alg"] != "ES256" || decoded.Keys[0]["use"] != "sig" {
		t.Errorf("key = %v", decoded.Keys[0])
	}
}

func FuzzVerify(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	v := token.NewVerifier(keys{"k": key.Public()}, none(f), testkit.Expected, time.Now)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJFUzI1NiIsImtpZCI6ImsiLCJ0eXAiOiJhdCtqd3QifQ.e30.AA")
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := v.Verify(t.Context(), raw); err == nil {
			t.Errorf("Verify took %q", raw)
		}
	})
}
