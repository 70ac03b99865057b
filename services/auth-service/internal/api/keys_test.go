package api_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

func TestSigningKeysSurviveARestart(t *testing.T) {
	t.Parallel()
	s := newService(t)
	_, _, before := s.do("GET", "/.well-known/jwks.json", "", "", "")
	open := func(sealer *event.Sealer) (*signing.Keyring, error) {
		return signing.OpenKeyring(t.Context(), store.NewKeys(s.db, outbox.New("auth-service"), sealer), time.Now)
	}
	again, err := open(s.sealer)
	if err != nil || string(again.JWKS()) != string(before) {
		t.Errorf("keys after a restart = %v, %v; before %s", again, err, before)
	}
	if _, err := open(testkit.Sealer(t, strings.Repeat("another key ", 4))); !errors.Is(err, event.ErrSeal) {
		t.Errorf("keys with another ENCRYPTION_KEY = %v, want ErrSeal", err)
	}
}

func header(t *testing.T, raw string) (h struct{ Kid, Alg, Typ string }) {
	t.Helper()
	encoded, _, _ := strings.Cut(raw, ".")
	data, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &h); err != nil {
		t.Fatal(err)
	}
	return h
}

// SEC-11: during a rotation to another algorithm, a service that fetches the keys refuses
// no token, and the old key can be retired when its tokens have expired.
func TestSEC11KeyRotation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	quiet := token.NewRevocations(func(context.Context, time.Time) (token.Snapshot, error) { return token.Snapshot{AsOf: s.time()}, nil }, testkit.Log(t), s.time)
	testkit.Run(t, quiet)
	remote := token.NewVerifier(token.NewJWKS(token.Remote{JWKSURL: s.URL + "/.well-known/jwks.json"}, testkit.Log(t), s.time), quiet, testkit.Expected, s.time)
	s.signup("ann@example.com")
	old := s.keyring.List()
	kids := map[string]int{}
	oldToken := ""
	for second := range 240 {
		if second == 30 {
			if _, err := s.keyring.Rotate(t.Context(), signing.EdDSA, signing.ActivationDelay); err != nil {
				t.Fatal(err)
			}
		}
		raw := s.login("ann@example.com").Data.Tokens.AccessToken
		if _, err := remote.Verify(t.Context(), raw); err != nil {
			t.Fatalf("second %d: %v", second, err)
		}
		h := header(t, raw)
		kids[h.Alg]++
		if h.Kid == old[0].ID {
			oldToken = raw
		}
		s.advance(time.Second)
	}
	if kids[signing.ES256] != 150 || kids[signing.EdDSA] != 90 {
		t.Errorf("tokens by algorithm = %v", kids)
	}
	if err := s.keyring.Retire(t.Context(), old[0].ID, 15*time.Minute); !errors.Is(err, signing.ErrKeyInUse) {
		t.Errorf("Retire while its tokens live = %v, want ErrKeyInUse", err)
	}
	if _, err := remote.Verify(t.Context(), oldToken); err != nil {
		t.Errorf("old token before the key is retired = %v", err)
	}
	if err := s.keyring.ForceRetire(t.Context(), old[0].ID); err != nil {
		t.Fatal(err)
	}
	s.want(s.call("GET", "/sessions", oldToken, nil), 401, "token_invalid")
	s.advance(time.Minute)
	_, _ = remote.Verify(t.Context(), oldToken) // This reloads the keys in the background.
	testkit.Eventually(t, func() error {
		if _, err := remote.Verify(t.Context(), oldToken); !errors.Is(err, token.ErrInvalid) {
			return errors.New("a token of a retired key is still taken")
		}
		return nil
	})
	keys := s.keyring.List()
	if len(keys) != 1 || keys[0].State != signing.Active {
		t.Errorf("keys = %+v, want the active one alone", keys)
	}
	if err := s.keyring.ForceRetire(t.Context(), keys[0].ID); !errors.Is(err, signing.ErrKeyActive) {
		t.Errorf("ForceRetire of the active key = %v, want ErrKeyActive", err)
	}
	if err := s.keyring.ForceRetire(t.Context(), "nonsense"); !errors.Is(err, signing.ErrUnknownKey) {
		t.Errorf("ForceRetire(nonsense) = %v", err)
	}
	if rotated, retired := s.count(event.Audit, event.SigningKeyRotated{}), s.count(event.Audit, event.SigningKeyRetired{}); rotated != 1 || retired != 1 {
		t.Errorf("%d, %d events", rotated, retired)
	}
}

// A replica loads a key that it does not know when a token names it.
func TestImmediateRotationReachesReplicas(t *testing.T) {
	t.Parallel()
	s := newService(t)
	replica := s.replica()
	s.signup("ann@example.com")
	s.advance(2 * time.Second)
	if _, err := s.keyring.Rotate(t.Context(), signing.ES256, 0); err != nil {
		t.Fatal(err)
	}
	raw := s.login("ann@example.com").Data.Tokens.AccessToken
	if _, err := replica.Key(t.Context(), header(t, raw).Kid); err != nil {
		t.Errorf("Key = %v", err)
	}
	if _, err := replica.Key(t.Context(), "made up"); !errors.Is(err, token.ErrUnknownKey) {
		t.Errorf("Key(made up) = %v", err)
	}
}
