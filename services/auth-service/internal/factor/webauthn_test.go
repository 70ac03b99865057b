package factor_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/headgate/headgate/services/auth-service/internal/factor"
	"github.com/headgate/headgate/services/auth-service/internal/factor/factortest"
)

const (
	host   = "id.example.com"
	origin = "https://id.example.com"
)

// fixture is an owner with one registered passkey.
type fixture struct {
	webauthn *factor.WebAuthn
	key      *factortest.Authenticator
	owner    factor.Owner
	passkey  factor.Credential
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	w, err := factor.NewWebAuthn(factor.RelyingParty{ID: host, Name: "Acme", Origins: factor.Origins{origin}})
	if err != nil {
		t.Fatal(err)
	}
	owner := factor.Owner{ID: uuid.NewString(), Email: "ann@example.com", Name: "Ann"}
	f := fixture{webauthn: w, owner: owner, key: factortest.New(t, owner.ID, host, origin)}
	c, err := w.BeginRegistration(owner)
	if err != nil {
		t.Fatal(err)
	}
	if f.passkey, err = f.register(c, f.key.Register(c.Options)); err != nil {
		t.Fatal(err)
	}
	f.owner.Passkeys = []string{f.passkey.Data}
	return f
}

func (f fixture) register(c factor.Ceremony, answer []byte) (factor.Credential, error) {
	r, err := factor.ParseRegistration(answer)
	if err != nil {
		return factor.Credential{}, err
	}
	return f.webauthn.FinishRegistration(f.owner, c.Session, r)
}

func (f fixture) login(c factor.Ceremony, answer []byte) (factor.Credential, error) {
	a, err := factor.ParseAssertion(answer)
	if err != nil {
		return factor.Credential{}, err
	}
	return f.webauthn.FinishLogin(f.owner, c.Session, a)
}

func TestPasskey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if f.passkey.ID != string(f.key.ID) {
		t.Errorf("id = %q, want %q", f.passkey.ID, f.key.ID)
	}
	c, err := f.webauthn.BeginLogin()
	if err != nil {
		t.Fatal(err)
	}
	f.key.Counter++
	answer := f.key.Login(c.Options)
	if a, err := factor.ParseAssertion(answer); err != nil || a.OwnerID != f.owner.ID {
		t.Errorf("ParseAssertion = %+v, %v, want the owner %s", a, err, f.owner.ID)
	}
	if used, err := f.login(c, answer); err != nil || used.ID != f.passkey.ID || used.Data == f.passkey.Data {
		t.Errorf("FinishLogin = %+v, %v, want the passkey with its new counter", used, err)
	}
}

// A registration excludes the passkeys that the owner has.
func TestRegistrationExcludes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c, err := f.webauthn.BeginRegistration(f.owner)
	if err != nil {
		t.Fatal(err)
	}
	var options struct {
		PublicKey struct {
			ExcludeCredentials []struct{ ID string }
		}
	}
	if err := json.Unmarshal(f.key.JSON(c.Options), &options); err != nil {
		t.Fatal(err)
	}
	if got := options.PublicKey.ExcludeCredentials; len(got) != 1 || got[0].ID != factortest.Encode(f.key.ID) {
		t.Errorf("excludeCredentials = %+v, want the passkey", got)
	}
}

// The counter of a passkey advances with every use. A copy falls behind.
func TestPasskeyCloneWarning(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.key.Counter = 7
	c, err := f.webauthn.BeginLogin()
	if err != nil {
		t.Fatal(err)
	}
	used, err := f.login(c, f.key.Login(c.Options))
	if err != nil {
		t.Fatal(err)
	}
	f.owner.Passkeys = []string{used.Data}
	for counter, want := range map[uint32]error{6: factor.ErrRejected, 7: factor.ErrRejected, 0: factor.ErrRejected, 8: nil} {
		f.key.Counter = counter
		if _, err := f.login(c, f.key.Login(c.Options)); !errors.Is(err, want) {
			t.Errorf("FinishLogin with counter %d after 7 = %v, want %v", counter, err, want)
		}
	}
}

// Passkeys that are synchronised between devices do not count.
func TestPasskeyWithoutACounter(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.key.Counter = 0
	c, err := f.webauthn.BeginRegistration(f.owner)
	if err != nil {
		t.Fatal(err)
	}
	registered, err := f.register(c, f.key.Register(c.Options))
	if err != nil {
		t.Fatal(err)
	}
	f.owner.Passkeys = []string{registered.Data}
	if c, err = f.webauthn.BeginLogin(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := f.login(c, f.key.Login(c.Options)); err != nil {
			t.Errorf("FinishLogin = %v", err)
		}
	}
}

func TestPasskeyRejected(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(a *factortest.Authenticator){
		"another site":         func(a *factortest.Authenticator) { a.Origin = "https://evil.example.com" },
		"another host":         func(a *factortest.Authenticator) { a.Host = "evil.example.com" },
		"user not verified":    func(a *factortest.Authenticator) { a.Flags = factortest.UserPresent },
		"another owner":        func(a *factortest.Authenticator) { a.Owner = uuid.New() },
		"another credential":   func(a *factortest.Authenticator) { a.ID = []byte("unknown credential") },
		"signed by no passkey": func(a *factortest.Authenticator) { a.Key = factortest.New(a.T, a.Owner.String(), host, origin).Key },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			c, err := f.webauthn.BeginLogin()
			if err != nil {
				t.Fatal(err)
			}
			f.key.T, f.key.Counter = t, 2
			change(f.key)
			if _, err := f.login(c, f.key.Login(c.Options)); !errors.Is(err, factor.ErrRejected) {
				t.Errorf("FinishLogin = %v, want ErrRejected", err)
			}
		})
	}
	f := newFixture(t)
	first, err := f.webauthn.BeginLogin()
	if err != nil {
		t.Fatal(err)
	}
	second, err := f.webauthn.BeginLogin()
	if err != nil {
		t.Fatal(err)
	}
	f.key.Counter = 2
	if _, err := f.login(second, f.key.Login(first.Options)); !errors.Is(err, factor.ErrRejected) {
		t.Errorf("FinishLogin in another ceremony = %v, want ErrRejected", err)
	}
	registration, err := f.webauthn.BeginRegistration(f.owner)
	if err != nil {
		t.Fatal(err)
	}
	f.key.Flags = factortest.UserPresent
	if _, err := f.register(registration, f.key.Register(registration.Options)); !errors.Is(err, factor.ErrRejected) {
		t.Errorf("FinishRegistration without verification = %v, want ErrRejected", err)
	}
	for _, answer := range []string{"", "{}", "[]", "null", `{"id":"x","rawId":"x","type":"public-key","response":{}}`} {
		if _, err := factor.ParseRegistration([]byte(answer)); !errors.Is(err, factor.ErrRejected) {
			t.Errorf("ParseRegistration(%q) = %v, want ErrRejected", answer, err)
		}
		if _, err := factor.ParseAssertion([]byte(answer)); !errors.Is(err, factor.ErrRejected) {
			t.Errorf("ParseAssertion(%q) = %v, want ErrRejected", answer, err)
		}
	}
}

func FuzzParseAssertion(f *testing.F) {
	f.Add([]byte(`{"id":"eA","rawId":"eA","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"","signature":"","userHandle":""}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if a, err := factor.ParseAssertion(answer); err == nil && uuid.Validate(a.OwnerID) != nil {
			t.Errorf("ParseAssertion(%q) = %+v", answer, a)
		}
	})
}
