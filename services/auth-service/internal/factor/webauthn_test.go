package factor_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
	"github.com/google/uuid"

	"github.com/headgate/headgate/services/auth-service/internal/factor"
)

const (
	host   = "id.example.com"
	origin = "https://id.example.com"
)

// Flags of authenticator data (Web Authentication, 6.1).
const (
	userPresent  = 0x01
	userVerified = 0x04
	withKey      = 0x40
)

// authenticator is a security key in software.
type authenticator struct {
	t     *testing.T
	key   *ecdsa.PrivateKey
	id    []byte
	owner uuid.UUID

	// Fields that tests change.
	host, origin string
	flags        byte
	counter      uint32
}

func newAuthenticator(t *testing.T, owner string) *authenticator {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := []byte("credential " + rand.Text())
	return &authenticator{t: t, key: key, id: id, owner: uuid.MustParse(owner), host: host, origin: origin, flags: userPresent | userVerified, counter: 1}
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (a *authenticator) json(v any) []byte {
	a.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		a.t.Fatal(err)
	}
	return data
}

func (a *authenticator) cbor(v any) []byte {
	a.t.Helper()
	data, err := webauthncbor.Marshal(v)
	if err != nil {
		a.t.Fatal(err)
	}
	return data
}

// challenge returns the challenge in the options of a ceremony.
func (a *authenticator) challenge(c factor.Ceremony) string {
	a.t.Helper()
	var options struct {
		PublicKey struct{ Challenge string }
	}
	if err := json.Unmarshal(a.json(c.Options), &options); err != nil || options.PublicKey.Challenge == "" {
		a.t.Fatalf("options = %+v, %v", c.Options, err)
	}
	return options.PublicKey.Challenge
}

func (a *authenticator) clientData(kind string, c factor.Ceremony) []byte {
	a.t.Helper()
	return a.json(map[string]any{"type": kind, "challenge": a.challenge(c), "origin": a.origin, "crossOrigin": false})
}

func (a *authenticator) data(flags byte) []byte {
	sum := sha256.Sum256([]byte(a.host))
	return binary.BigEndian.AppendUint32(append(sum[:], flags), a.counter)
}

func (a *authenticator) answer(response map[string]string) []byte {
	a.t.Helper()
	return a.json(map[string]any{"id": encode(a.id), "rawId": encode(a.id), "type": "public-key", "response": response})
}

// register answers navigator.credentials.create.
func (a *authenticator) register(c factor.Ceremony) []byte {
	a.t.Helper()
	point, err := a.key.PublicKey.Bytes() // 0x04, x, y
	if err != nil {
		a.t.Fatal(err)
	}
	data := append(a.data(a.flags|withKey), make([]byte, 16)...) // no AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(a.id)))
	data = append(data, a.id...)
	data = append(data, a.cbor(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})...) // COSE: EC2, ES256, P-256
	return a.answer(map[string]string{
		"clientDataJSON":    encode(a.clientData("webauthn.create", c)),
		"attestationObject": encode(a.cbor(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})),
	})
}

// login answers navigator.credentials.get.
func (a *authenticator) login(c factor.Ceremony) []byte {
	a.t.Helper()
	client, data := a.clientData("webauthn.get", c), a.data(a.flags)
	sum := sha256.Sum256(client)
	signed := sha256.Sum256(append(slices.Clip(data), sum[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, signed[:])
	if err != nil {
		a.t.Fatal(err)
	}
	return a.answer(map[string]string{
		"clientDataJSON": encode(client), "authenticatorData": encode(data), "signature": encode(signature), "userHandle": encode(a.owner[:]),
	})
}

// fixture is an owner with one registered passkey.
type fixture struct {
	webauthn *factor.WebAuthn
	key      *authenticator
	owner    factor.Owner
	passkey  factor.Credential
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	w, err := factor.NewWebAuthn(host, origin)
	if err != nil {
		t.Fatal(err)
	}
	owner := factor.Owner{ID: uuid.NewString(), Email: "ann@example.com", Name: "Ann"}
	f := fixture{webauthn: w, owner: owner, key: newAuthenticator(t, owner.ID)}
	c, err := w.BeginRegistration(owner)
	if err != nil {
		t.Fatal(err)
	}
	if f.passkey, err = f.register(c, f.key.register(c)); err != nil {
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
	if f.passkey.ID != string(f.key.id) {
		t.Errorf("id = %q, want %q", f.passkey.ID, f.key.id)
	}
	c, err := f.webauthn.BeginLogin()
	if err != nil {
		t.Fatal(err)
	}
	f.key.counter++
	answer := f.key.login(c)
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
	if err := json.Unmarshal(f.key.json(c.Options), &options); err != nil {
		t.Fatal(err)
	}
	if got := options.PublicKey.ExcludeCredentials; len(got) != 1 || got[0].ID != encode(f.key.id) {
		t.Errorf("excludeCredentials = %+v, want the passkey", got)
	}
}

// The counter of a passkey advances with every use. A copy falls behind.
func TestPasskeyCloneWarning(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.key.counter = 7
	c, err := f.webauthn.BeginLogin()
	if err != nil {
		t.Fatal(err)
	}
	used, err := f.login(c, f.key.login(c))
	if err != nil {
		t.Fatal(err)
	}
	f.owner.Passkeys = []string{used.Data}
	for counter, want := range map[uint32]error{6: factor.ErrRejected, 7: factor.ErrRejected, 0: factor.ErrRejected, 8: nil} {
		f.key.counter = counter
		if _, err := f.login(c, f.key.login(c)); !errors.Is(err, want) {
			t.Errorf("FinishLogin with counter %d after 7 = %v, want %v", counter, err, want)
		}
	}
}

// Passkeys that are synchronised between devices do not count.
func TestPasskeyWithoutACounter(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.key.counter = 0
	c, err := f.webauthn.BeginRegistration(f.owner)
	if err != nil {
		t.Fatal(err)
	}
	registered, err := f.register(c, f.key.register(c))
	if err != nil {
		t.Fatal(err)
	}
	f.owner.Passkeys = []string{registered.Data}
	if c, err = f.webauthn.BeginLogin(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := f.login(c, f.key.login(c)); err != nil {
			t.Errorf("FinishLogin = %v", err)
		}
	}
}

func TestPasskeyRejected(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(a *authenticator){
		"another site":         func(a *authenticator) { a.origin = "https://evil.example.com" },
		"another host":         func(a *authenticator) { a.host = "evil.example.com" },
		"user not verified":    func(a *authenticator) { a.flags = userPresent },
		"another owner":        func(a *authenticator) { a.owner = uuid.New() },
		"another credential":   func(a *authenticator) { a.id = []byte("unknown credential") },
		"signed by no passkey": func(a *authenticator) { a.key = newAuthenticator(a.t, a.owner.String()).key },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			c, err := f.webauthn.BeginLogin()
			if err != nil {
				t.Fatal(err)
			}
			f.key.t, f.key.counter = t, 2
			change(f.key)
			if _, err := f.login(c, f.key.login(c)); !errors.Is(err, factor.ErrRejected) {
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
	f.key.counter = 2
	if _, err := f.login(second, f.key.login(first)); !errors.Is(err, factor.ErrRejected) {
		t.Errorf("FinishLogin in another ceremony = %v, want ErrRejected", err)
	}
	registration, err := f.webauthn.BeginRegistration(f.owner)
	if err != nil {
		t.Fatal(err)
	}
	f.key.flags = userPresent
	if _, err := f.register(registration, f.key.register(registration)); !errors.Is(err, factor.ErrRejected) {
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
