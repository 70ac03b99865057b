package factor

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/google/uuid"
)

// WebAuthn registers and checks passkeys for one relying party. It is safe for concurrent
// use.
type WebAuthn struct {
	relyingParty *webauthn.WebAuthn
	origins      Origins
}

// NewWebAuthn returns a checker of passkeys for a relying party, which must be valid and
// have an origin.
func NewWebAuthn(rp RelyingParty) (*WebAuthn, error) {
	checker, err := webauthn.New(&webauthn.Config{RPID: rp.ID, RPDisplayName: rp.Name, RPOrigins: rp.Origins})
	if err != nil {
		return nil, fmt.Errorf("configure passkeys: %w", err)
	}
	return &WebAuthn{checker, rp.Origins}, nil
}

// fromAllowedOrigin reports whether an answer comes from one of the origins. The library
// compares scheme, host and port alone, without regard to case.
func (w *WebAuthn) fromAllowedOrigin(client protocol.CollectedClientData) bool {
	return slices.Contains(w.origins, client.Origin)
}

// withoutExtensions returns a browser's answer without the outputs of extensions. No options
// request any, and what a client adds by itself is ignored, whatever it is (Web
// Authentication, 7.1, step 20, and 7.2, step 18).
func withoutExtensions(answer []byte) []byte {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(answer, &members); err != nil {
		return nil
	}
	maps.DeleteFunc(members, func(name string, _ json.RawMessage) bool { return strings.EqualFold(name, "clientExtensionResults") })
	rest, err := json.Marshal(members)
	if err != nil {
		return nil
	}
	return rest
}

// Owner is the account that passkeys belong to.
type Owner struct {
	ID       string // a UUID
	Email    string
	Name     string
	Passkeys []string // the Data of each Credential
}

// Credential is a registered passkey.
type Credential struct {
	ID   string // the id that the authenticator gave it
	Data string // its public key and counters, to be stored
}

// user is an Owner as the library needs it.
type user struct {
	Owner

	id          uuid.UUID
	credentials []webauthn.Credential
}

func (u user) WebAuthnID() []byte                         { return u.id[:] }
func (u user) WebAuthnName() string                       { return u.Email }
func (u user) WebAuthnDisplayName() string                { return u.Name }
func (u user) WebAuthnCredentials() []webauthn.Credential { return u.credentials }

func newUser(o Owner) (user, error) {
	id, err := uuid.Parse(o.ID)
	if err != nil {
		return user{}, fmt.Errorf("parse account id: %w", err)
	}
	u := user{Owner: o, id: id, credentials: make([]webauthn.Credential, len(o.Passkeys))}
	for i, data := range o.Passkeys {
		if err := json.Unmarshal([]byte(data), &u.credentials[i]); err != nil {
			return user{}, fmt.Errorf("decode passkey: %w", err)
		}
	}
	return u, nil
}

// Ceremony is the first step of a registration or a login with a passkey (Web
// Authentication, 7).
type Ceremony struct {
	Options any    // for navigator.credentials.create or get
	Session string // to be stored, and passed to the second step
}

func newCeremony(options any, session *webauthn.SessionData) (Ceremony, error) {
	data, err := json.Marshal(session)
	if err != nil {
		return Ceremony{}, fmt.Errorf("encode ceremony: %w", err)
	}
	return Ceremony{Options: options, Session: string(data)}, nil
}

func parseSession(text string) (webauthn.SessionData, error) {
	var session webauthn.SessionData
	if err := json.Unmarshal([]byte(text), &session); err != nil {
		return session, fmt.Errorf("decode ceremony: %w", err)
	}
	session.Expires = time.Time{} // Callers check it with a clock of their own.
	return session, nil
}

// BeginRegistration starts the registration of a passkey. Authenticators that
// hold one of the owner's passkeys already are excluded.
func (w *WebAuthn) BeginRegistration(o Owner) (Ceremony, error) {
	u, err := newUser(o)
	if err != nil {
		return Ceremony{}, err
	}
	var registered []protocol.CredentialDescriptor
	for _, credential := range u.credentials {
		registered = append(registered, credential.Descriptor())
	}
	options, session, err := w.relyingParty.BeginRegistration(u,
		webauthn.WithExclusions(registered),
		webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired,
		}))
	if err != nil {
		return Ceremony{}, fmt.Errorf("begin passkey registration: %w", err)
	}
	return newCeremony(options, session)
}

// Registration is a browser's answer to BeginRegistration, parsed but not checked.
type Registration struct {
	parsed *protocol.ParsedCredentialCreationData
}

// ParseRegistration parses a browser's answer, or fails with ErrRejected.
func ParseRegistration(answer []byte) (Registration, error) {
	parsed, err := protocol.ParseCredentialCreationResponseBytes(withoutExtensions(answer))
	if err != nil {
		return Registration{}, ErrRejected
	}
	return Registration{parsed}, nil
}

// FinishRegistration checks an answer against the session of its first step. It
// fails with ErrRejected.
func (w *WebAuthn) FinishRegistration(o Owner, session string, r Registration) (Credential, error) {
	if !w.fromAllowedOrigin(r.parsed.Response.CollectedClientData) {
		return Credential{}, ErrRejected
	}
	u, err := newUser(o)
	if err != nil {
		return Credential{}, err
	}
	data, err := parseSession(session)
	if err != nil {
		return Credential{}, err
	}
	credential, err := w.relyingParty.CreateCredential(u, data, r.parsed)
	if err != nil {
		return Credential{}, ErrRejected
	}
	return encode(credential)
}

func encode(credential *webauthn.Credential) (Credential, error) {
	data, err := json.Marshal(credential)
	if err != nil {
		return Credential{}, fmt.Errorf("encode passkey: %w", err)
	}
	return Credential{ID: string(credential.ID), Data: string(data)}, nil
}

// BeginLogin starts a login with whichever passkey the browser offers.
func (w *WebAuthn) BeginLogin() (Ceremony, error) {
	options, session, err := w.relyingParty.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return Ceremony{}, fmt.Errorf("begin passkey login: %w", err)
	}
	return newCeremony(options, session)
}

// Assertion is a browser's answer to BeginLogin, parsed but not checked.
type Assertion struct {
	OwnerID string // the account that the passkey claims to belong to
	parsed  *protocol.ParsedCredentialAssertionData
}

// ParseAssertion parses a browser's answer, or fails with ErrRejected.
func ParseAssertion(answer []byte) (Assertion, error) {
	parsed, err := protocol.ParseCredentialRequestResponseBytes(withoutExtensions(answer))
	if err != nil {
		return Assertion{}, ErrRejected
	}
	id, err := uuid.FromBytes(parsed.Response.UserHandle)
	if err != nil {
		return Assertion{}, ErrRejected
	}
	return Assertion{OwnerID: id.String(), parsed: parsed}, nil
}

// FinishLogin checks an answer against the session of its first step and returns
// the passkey with its new counter, to be stored. It fails with ErrRejected, which is
// ErrCopied if the passkey has signed the answer but its counter did not advance.
func (w *WebAuthn) FinishLogin(o Owner, session string, a Assertion) (Credential, error) {
	if !w.fromAllowedOrigin(a.parsed.Response.CollectedClientData) {
		return Credential{}, ErrRejected
	}
	u, err := newUser(o)
	if err != nil {
		return Credential{}, err
	}
	data, err := parseSession(session)
	if err != nil {
		return Credential{}, err
	}
	find := func(_, _ []byte) (webauthn.User, error) { return u, nil }
	credential, err := w.relyingParty.ValidateDiscoverableLogin(find, data, a.parsed)
	if err != nil {
		return Credential{}, ErrRejected
	}
	if credential.Authenticator.CloneWarning {
		return Credential{}, ErrCopied
	}
	return encode(credential)
}
